//! What an ONNX file holds, and what its runs cost here: for people who look at a model before they serve it.
//!
//! Not here: printing (the binary), whether it can be served as configured (`doctor`).
use crate::{
    backend::Backend,
    catalog::Settings,
    onnx::{self, OnnxError, Operators, Parameters, ValueInfo},
    repository::{Candidate, complete, read},
    served,
};
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use xebec_core::Version;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Of the model file.
    pub path: PathBuf,
    /// Of the model file.
    pub bytes: u64,
    /// Of the model file, in hexadecimal digits.
    pub sha256: String,
    /// Version of the file's format.
    pub ir_version: i64,
    /// Program that wrote it, with its version.
    pub producer: String,
    /// Operator sets by domain; ONNX's own is called `ai.onnx`.
    pub opsets: Vec<(String, i64)>,
    /// What callers give.
    pub inputs: Vec<ValueInfo>,
    /// What callers may give, if `config.pbtxt` says so: inputs with a default.
    pub defaults: Vec<ValueInfo>,
    /// What callers get.
    pub outputs: Vec<ValueInfo>,
    /// How often each operator stands in the graph and its subgraphs.
    pub operators: Operators,
    /// Constants.
    pub parameters: Parameters,
    /// Files of external data, with their sizes.
    pub external: Vec<(PathBuf, u64)>,
    /// Why requests of different callers never share a run; empty if they may.
    pub stops: Vec<String>,
}

/// A file could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /** Which. */
        path: PathBuf,
        /** Why. */
        source: io::Error,
    },
    /// It is no ONNX model, or one with faults.
    #[error("{}", path.display())]
    Onnx {
        /** Which. */
        path: PathBuf,
        /** What is wrong. */
        source: OnnxError,
    },
}

/// Reads a model file.
///
/// # Errors
/// It cannot be read or is no ONNX model.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    let unreadable = |source| InspectError::Read { path: path.to_owned(), source };
    let fault = |source| InspectError::Onnx { path: path.to_owned(), source };
    let bytes = read::whole(path).map_err(unreadable)?;
    let (length, sha256) = (bytes.len() as u64, sha256(&bytes));
    let graph = onnx::Model::parse(bytes.into()).map_err(fault)?;
    let files = graph.check_external(path.parent().unwrap_or(Path::new("."))).map_err(fault)?;
    let sized = files.into_iter().map(|file| {
        let size = file.metadata().map_err(|source| InspectError::Read { path: file.clone(), source })?.len();
        Ok((file, size))
    });
    Ok(Inspection {
        path: path.to_owned(),
        bytes: length,
        sha256,
        ir_version: graph.ir_version(),
        producer: graph.producer(),
        opsets: graph.opsets(),
        inputs: graph.inputs().to_vec(),
        defaults: if graph.ir_version() < 4 { Vec::new() } else { graph.defaults() },
        outputs: graph.outputs().to_vec(),
        operators: graph.operators(),
        parameters: graph.parameters(),
        external: sized.collect::<Result<_, InspectError>>()?,
        stops: graph.stops(),
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut digits, byte| {
        // Writing into a text has no error to give.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// What a run of so many rows takes: the median of several, on zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Rows of the run.
    pub rows: u32,
    /// Its time, or why it failed.
    pub took: Result<Duration, String>,
}

/// Row numbers that are measured, as far as a request may have them.
const ROWS: [u32; 4] = [1, 4, 16, 64];

/// Runs a model and tells what it costs. `told` hears of each measure that begins.
///
/// # Errors
/// The model cannot be loaded as it is configured.
pub fn cost(
    backend: &dyn Backend,
    candidate: &Candidate,
    version: Version,
    settings: &Settings,
    told: &dyn Fn(u32),
) -> Result<Vec<Cost>, crate::catalog::CatalogError> {
    use crate::catalog::CatalogError;
    let path = candidate.versions.get(&version).map(PathBuf::as_path).unwrap_or(Path::new(""));
    let bytes = read::whole(path).map_err(|source| CatalogError::Read { path: path.to_owned(), source })?;
    let onnx = |source| CatalogError::Onnx { path: path.to_owned(), source };
    let graph = onnx::Model::parse(bytes.into()).map_err(onnx)?;
    graph.check_external(path.parent().unwrap_or(&candidate.root)).map_err(onnx)?;
    let plan = complete::plan(candidate, version, &graph, &settings.defaults)?;
    let model = backend.load(path, &graph, plan.load.clone())?;
    drop(graph);
    let most = plan.info.max_batch_size.max(1);
    let rows = ROWS.into_iter().filter(|rows| *rows <= most);
    let measure = |rows| {
        told(rows);
        Cost { rows, took: served::cost(&*model, &plan, rows) }
    };
    Ok(rows.map(measure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testdata(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/testdata").join(path)
    }

    #[test]
    fn a_file_tells_what_is_in_it() {
        let scaler = inspect(&testdata("repository/scaler.onnx")).unwrap();
        assert_eq!((scaler.ir_version, scaler.producer.as_str(), scaler.sha256.len()), (8, "xebec", 64));
        assert_eq!((scaler.inputs.len(), scaler.outputs.len()), (1, 1));
        assert!(scaler.stops.is_empty() && scaler.external.is_empty());
        assert!(scaler.opsets.contains(&("ai.onnx".into(), 17)));
        let count: usize = scaler.operators.values().sum();
        assert!(count >= 2 && scaler.parameters.tensors >= 1, "{:?}", scaler.operators);
        assert_eq!(scaler.parameters.bytes, 4 * scaler.parameters.elements);
    }

    #[test]
    fn every_operator_that_stops_batching_is_named_also_in_a_subgraph() {
        let softmax = inspect(&testdata("repository/softmax_over_batch.onnx")).unwrap();
        assert!(softmax.stops[0].contains("(Softmax) works over the batch axis"), "{:?}", softmax.stops);
        let inner = inspect(&testdata("repository/reduce_in_if.onnx")).unwrap();
        assert!(
            inner.operators.keys().any(|operator| operator.starts_with("Reduce")),
            "{:?}",
            inner.operators
        );
        assert!(!inner.stops.is_empty());
    }

    #[test]
    fn external_files_and_defaults_are_listed_and_no_model_is_an_error() {
        let external = inspect(&testdata("repository/external_data/1/model.onnx"));
        let external = external
            .or_else(|_| inspect(&testdata("repository/external_data/1/model.onnx/model.onnx")))
            .unwrap();
        assert_eq!(external.external.len(), 1);
        let optional = inspect(&testdata("configured/optional.onnx")).unwrap();
        assert_eq!(optional.defaults[0].name, "bias");
        assert!(matches!(inspect(&testdata("broken/pickle.onnx")), Err(InspectError::Onnx { .. })));
        assert!(matches!(inspect(&testdata("none.onnx")), Err(InspectError::Read { .. })));
    }
}
