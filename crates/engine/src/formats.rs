//! Formats that people mistake for ONNX, by their content, with the way to ONNX.
//!
//! Invariant: nothing of a foreign file is run or unpacked; a bounded beginning of it is looked at. The commands are
//! those of docs/guide/import.md. Not here: what a scan or a load does about one.
use crate::repository::read;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

/// What something is instead of ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// As a sentence goes on behind "is".
    pub format: &'static str,
    /// What to do, with the command.
    pub way_out: &'static str,
}

/// So much of a file is looked at.
const LOOKED_AT: usize = 64 << 10;

const PYTORCH: Foreign = Foreign {
    format: "a PyTorch checkpoint (.pt, .pth)",
    way_out: "load it into its class in Python and run torch.onnx.export(model, (example,), \"model.onnx\", dynamo=True); see docs/guide/import.md",
};
const TORCHSCRIPT: Foreign = Foreign {
    format: "a TorchScript archive (.pt)",
    way_out: "run torch.onnx.export(torch.jit.load(\"model.pt\"), (example,), \"model.onnx\", dynamo=False), or export the original module; see docs/guide/import.md",
};
const KERAS: Foreign = Foreign {
    format: "a Keras model (.keras)",
    way_out: "run keras.models.load_model(\"model.keras\").export(\"model.onnx\", format=\"onnx\"); see docs/guide/import.md",
};
const HDF5: Foreign = Foreign {
    format: "HDF5, as Keras saves (.h5)",
    way_out: "run python -m tf2onnx.convert --keras model.h5 --output model.onnx; see docs/guide/import.md",
};
const SAVED_MODEL: Foreign = Foreign {
    format: "a TensorFlow SavedModel",
    way_out: "run python -m tf2onnx.convert --saved-model FOLDER --output model.onnx; see docs/guide/import.md",
};
const TFLITE: Foreign = Foreign {
    format: "TensorFlow Lite (.tflite)",
    way_out: "run python -m tf2onnx.convert --tflite model.tflite --output model.onnx; see docs/guide/import.md",
};
const SKLEARN: Foreign = Foreign {
    format: "a Python pickle of a scikit-learn model",
    way_out: "run skl2onnx.to_onnx(model, X[:1]) in Python and write its SerializeToString(); a pickle is code and is never loaded; see docs/guide/import.md",
};
const PICKLE: Foreign = Foreign {
    format: "a Python pickle",
    way_out: "export the model in Python with skl2onnx.to_onnx or torch.onnx.export; a pickle is code and is never loaded; see docs/guide/import.md",
};
const XGBOOST: Foreign = Foreign {
    format: "an XGBoost model",
    way_out: "run onnxmltools.convert_xgboost(model, initial_types=[(\"x\", FloatTensorType([None, N]))]) in Python; see docs/guide/import.md",
};
const LIGHTGBM: Foreign = Foreign {
    format: "a LightGBM model",
    way_out: "run onnxmltools.convert_lightgbm(model, initial_types=[(\"x\", FloatTensorType([None, N]))]) in Python; see docs/guide/import.md",
};
const GGUF: Foreign = Foreign {
    format: "GGUF",
    way_out: "export the original model: optimum-cli export onnx --model NAME FOLDER; see docs/guide/import.md",
};
const SAFETENSORS: Foreign = Foreign {
    format: "safetensors, which holds weights without a graph",
    way_out: "export the model it belongs to: optimum-cli export onnx --model FOLDER OUT, or torch.onnx.export; see docs/guide/import.md",
};
const CORE_ML: Foreign = Foreign {
    format: "a Core ML model",
    way_out: "export the original model to ONNX; Core ML cannot be converted back; see docs/guide/import.md",
};
const NUMPY: Foreign = Foreign {
    format: "a NumPy archive (.npz), which holds arrays without a graph",
    way_out: "export the model that it belongs to; see docs/guide/import.md",
};
const ZIP: Foreign = Foreign {
    format: "a zip archive",
    way_out: "unpack it with unzip and give the .onnx file in it; see docs/guide/import.md",
};
const GZIP: Foreign = Foreign { format: "gzip", way_out: "unpack it with gunzip" };
const ORT: Foreign = Foreign {
    format: "ONNX Runtime's own format (.ort)",
    way_out: "use the .onnx file it was made from; see docs/guide/import.md",
};
const MLFLOW: Foreign = Foreign {
    format: "an MLflow model",
    way_out: "give the .onnx file below it, or save it with mlflow.onnx.save_model; see docs/guide/import.md",
};

/// What bytes are, if they are of another format.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> Option<Foreign> {
    let beginning = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let has = |words: &[u8]| beginning.windows(words.len()).any(|window| window == words);
    let is_pickle = matches!(bytes, [0x80, 2..=5, ..]);
    let is_safetensors = bytes.get(8) == Some(&b'{') && bytes.get(3..8) == Some(&[0; 5]);
    Some(match () {
        () if bytes.starts_with(b"PK\x03\x04") => zip(bytes),
        // Their wrappers for scikit-learn have both names.
        () if is_pickle && has(b"xgboost") => XGBOOST,
        () if is_pickle && has(b"lightgbm") => LIGHTGBM,
        () if is_pickle && has(b"sklearn") => SKLEARN,
        // torch.save before version 1.6 began with this number.
        () if is_pickle && (has(b"torch") || has(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")) => PYTORCH,
        () if is_pickle => PICKLE,
        () if bytes.starts_with(b"\x89HDF\r\n\x1a\n") => HDF5,
        () if bytes.starts_with(b"GGUF") => GGUF,
        () if bytes.get(4..8) == Some(b"TFL3") => TFLITE,
        () if bytes.get(4..8) == Some(b"ORTM") => ORT,
        () if bytes.starts_with(&[0x1f, 0x8b]) => GZIP,
        () if bytes.starts_with(b"tree\nversion=") => LIGHTGBM,
        () if bytes.starts_with(b"binf") || (bytes.starts_with(b"{") && has(b"learner")) => XGBOOST,
        () if is_safetensors => SAFETENSORS,
        () if is_core_ml(beginning) => CORE_ML,
        () => return None,
    })
}

/// A zip archive by the names in it, which stand before each file's bytes.
fn zip(bytes: &[u8]) -> Foreign {
    let beginning = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    // The list of all names stands at the end.
    let end = bytes.get(bytes.len().saturating_sub(LOOKED_AT)..).unwrap_or(bytes);
    let has = |words: &[u8]| {
        [beginning, end].iter().any(|part| part.windows(words.len()).any(|window| window == words))
    };
    match () {
        () if has(b"constants.pkl") => TORCHSCRIPT,
        () if has(b"data.pkl") => PYTORCH,
        () if has(b"model.weights.h5") => KERAS,
        () if has(b".npy") => NUMPY,
        () => ZIP,
    }
}

/// Core ML and ONNX begin alike; a kind of model has a number that no field of ONNX has.
///
/// # Source
/// coremltools, "Model.proto": the oneof `Type` has the fields 200 to 3000.
fn is_core_ml(mut bytes: &[u8]) -> bool {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    while let Ok((number, kind)) = decode_key(&mut bytes) {
        if (200..=3000).contains(&number) {
            return true;
        }
        if skip_field(kind, number, &mut bytes, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

/// What a file or folder is, if it is a model of another format.
#[must_use]
pub fn of_path(path: &Path) -> Option<Foreign> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).exists();
        return match () {
            () if has("saved_model.pb") || has("saved_model.pbtxt") => Some(SAVED_MODEL),
            () if has("MLmodel") => Some(MLFLOW),
            () if path.extension().is_some_and(|extension| extension == "mlpackage") => Some(CORE_ML),
            () => None,
        };
    }
    if path.file_name().is_some_and(|name| name == "saved_model.pb") {
        return Some(SAVED_MODEL);
    }
    let mut file = read::open(path).ok()?;
    let mut bytes = Vec::new();
    let most = (2 * LOOKED_AT) as u64;
    file.by_ref().take(most).read_to_end(&mut bytes).ok()?;
    of_bytes(&bytes)
}

/// The first model of another format in a folder, by name.
#[must_use]
pub fn in_folder(folder: &Path) -> Option<(PathBuf, Foreign)> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut paths: Vec<PathBuf> = entries.take(1000).map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| of_path(&path).map(|foreign| (path, foreign)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_known_by_its_content() {
        let zip_of = |names: &[&str]| [b"PK\x03\x04".to_vec(), names.join("...").into_bytes()].concat();
        let core_ml = [&[8, 4, 18, 2, 10, 0][..], &[0xa2, 0x1f, 0]].concat();
        for (bytes, format) in [
            (zip_of(&["m/data.pkl", "m/code/x.py", "m/constants.pkl"]), TORCHSCRIPT),
            (zip_of(&["m/data.pkl", "m/data/0"]), PYTORCH),
            (zip_of(&["metadata.json", "model.weights.h5"]), KERAS),
            (zip_of(&["x.npy"]), NUMPY),
            (zip_of(&["readme"]), ZIP),
            (b"\x80\x04\x95..sklearn.linear_model".to_vec(), SKLEARN),
            (b"\x80\x04\x95..xgboost.sklearn".to_vec(), XGBOOST),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), PYTORCH),
            (b"\x80\x05abc".to_vec(), PICKLE),
            (b"\x89HDF\r\n\x1a\n".to_vec(), HDF5),
            (b"GGUF\x03".to_vec(), GGUF),
            (b"\x1c\0\0\0TFL3".to_vec(), TFLITE),
            (b"\x1c\0\0\0ORTM".to_vec(), ORT),
            (vec![0x1f, 0x8b, 8], GZIP),
            (b"tree\nversion=v4\n".to_vec(), LIGHTGBM),
            (b"{\"learner\":{\"attributes\":{}}}".to_vec(), XGBOOST),
            (b"{L\0\0\0\0\0\0\0\x07learner{".to_vec(), XGBOOST),
            (b"\x40\0\0\0\0\0\0\0{\"a\":{}}".to_vec(), SAFETENSORS),
            (core_ml, CORE_ML),
        ] {
            assert_eq!(of_bytes(&bytes), Some(format));
        }
        // What ONNX files begin with, and what is nothing.
        for bytes in [&[8, 8, 18, 5, b'x', b'e', b'b', b'e', b'c'][..], b"", b"{}", b"hello"] {
            assert_eq!(of_bytes(bytes), None);
        }
    }

    #[test]
    fn folders_are_known_by_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("model.savedmodel");
        std::fs::create_dir(&saved).unwrap();
        std::fs::write(saved.join("saved_model.pb"), "x").unwrap();
        assert_eq!(of_path(&saved), Some(SAVED_MODEL));
        assert_eq!(of_path(&saved.join("saved_model.pb")), Some(SAVED_MODEL));
        assert_eq!(in_folder(folder.path()), Some((saved, SAVED_MODEL)));
        assert_eq!(of_path(folder.path()), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = of_bytes(&bytes);
            let _ = of_bytes(&[b"PK\x03\x04".to_vec(), bytes].concat());
        }
    }
}
