//! What a `config.pbtxt` asks for, with ONNX Runtime in this process.
use crate::engine::{Given, Recorder, catalog, submit};
use std::{path::Path, sync::Arc, time::Duration};
use xebec_core::{Datatype, resource::Provider};
use xebec_e2e::generate::root;
use xebec_engine::{catalog::Catalog, repository::scan};

mod edges;
mod stock;

/// A repository with one model called `m`.
pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) catalog: Catalog,
    pub(crate) seen: Arc<Recorder>,
    /// Why the model is not served, if it is not.
    pub(crate) refusal: Option<String>,
}

impl House {
    /// `file` is one of `models/testdata`.
    pub(crate) fn new(file: &str, config: &str) -> Self {
        Self::with(file, config, |_| ())
    }

    /// As [`Self::new`], with more files in the model's folder.
    pub(crate) fn with(file: &str, config: &str, more: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m");
        std::fs::create_dir_all(model.join("1")).unwrap();
        std::fs::copy(root().join("models/testdata").join(file), model.join("1/model.onnx")).unwrap();
        std::fs::write(model.join("config.pbtxt"), config).unwrap();
        more(&model);
        let seen = Arc::new(Recorder::default());
        let catalog = catalog(Some(Arc::clone(&seen)), Duration::ZERO);
        let found = scan(&[folder.path().to_owned()]).unwrap();
        let mut reasons: Vec<String> = found.faults.iter().map(|(_, fault)| fault.to_string()).collect();
        let failures = catalog.load(found, &|_| true, &|_| ());
        reasons.extend(failures.into_iter().map(|failure| failure.reason));
        Self { folder, catalog, seen, refusal: reasons.into_iter().next() }
    }

    /// Four numbers for the input `x`.
    fn ask(&self, numbers: [f32; 4]) -> Given {
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        submit(&self.catalog, "m", "1".into(), Datatype::Fp32, &[1, 4], &data).answer().unwrap()
    }
}

const SCALER: &str = "repository/scaler.onnx";

pub(crate) fn floats(data: &[u8]) -> Vec<f32> {
    data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn a_provider_that_is_not_there_fails_the_load_and_says_what_to_install() {
    let accelerator = |which: &str, name: &str| {
        format!(
            "optimization {{ execution_accelerators {{ {which}_execution_accelerator [ {{ name: \"{name}\" }} ] }} }}"
        )
    };
    let on_gpu = "instance_group [ { kind: KIND_GPU } ]\n";
    for (config, provider, package) in [
        (on_gpu.to_owned(), "CUDA cannot be had", "pip install onnxruntime-gpu)"),
        (
            on_gpu.to_owned() + &accelerator("gpu", "tensorrt"),
            "TensorRT cannot be had",
            "onnxruntime-gpu tensorrt",
        ),
        (accelerator("cpu", "openvino"), "OpenVINO cannot be had", "pip install onnxruntime-openvino"),
    ] {
        let refusal = House::new(SCALER, &config).refusal.unwrap();
        assert!(refusal.contains(provider) && refusal.contains(package), "{refusal}");
        assert!(refusal.contains("--onnxruntime-library FILE"), "{refusal}");
    }
}

#[test]
fn a_document_that_asks_for_a_provider_is_told_the_same() {
    let house = House::new(SCALER, "");
    let mut found = scan(&[house.folder.path().to_owned()]).unwrap();
    found.candidates[0].resources.provider = Provider::Cuda;
    let failures = catalog(None, Duration::ZERO).load(found, &|_| true, &|_| ());
    assert!(failures[0].reason.starts_with("CUDA cannot be had from onnxruntime"), "{}", failures[0].reason);
}

#[test]
fn settings_of_the_engine_reach_it_and_answers_stay_right() {
    let parameter = |key: &str, value: &str| {
        format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}\n")
    };
    let config = [
        "optimization { graph { level: -1 } }\n".to_owned(),
        parameter("intra_op_thread_count", "2"),
        parameter("inter_op_thread_count", "2"),
        parameter("execution_mode", "1"),
        parameter("enable_mem_arena", "0"),
        parameter("enable_mem_pattern", "0"),
        parameter("session.disable_prepacking", "1"),
        parameter("team", "fraud"),
    ];
    let house = House::new(SCALER, &config.concat());
    assert_eq!(house.refusal, None);
    assert_eq!(floats(&house.ask([1.0, 2.0, 3.0, 4.0]).data), [3.0, 5.0, 7.0, 9.0]);
    let shrinking = House::new(SCALER, &parameter("memory.enable_memory_arena_shrinkage", "cpu:0"));
    assert_eq!(floats(&shrinking.ask([0.0, 0.0, 0.0, 1.0]).data), [1.0, 1.0, 1.0, 3.0]);
    // What reaches the engine can be wrong for it.
    let wrong =
        parameter("intra_op_thread_count", "3") + &parameter("session.intra_op_thread_affinities", "x");
    let wrong = House::new(SCALER, &wrong);
    assert!(wrong.refusal.is_some_and(|reason| reason.contains("onnxruntime cannot load")));
}
