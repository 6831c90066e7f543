use super::*;
use crate::repository::{complete::Defaults, config::parse};
use std::time::Duration;
use xebec_core::resource::Objective;

fn settings() -> Settings {
    let defaults = Defaults {
        max_batch_size: 64,
        max_queue: 100,
        cores: 2,
        instances: None,
        objective: Objective::Throughput,
        inline_below: Duration::ZERO,
    };
    Settings::new(defaults)
}

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/testdata").join(path)
}

/// A model folder with this configuration.
fn house(file: &str, config: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m");
    std::fs::create_dir_all(model.join("1")).unwrap();
    std::fs::copy(testdata(file), model.join("1/model.onnx")).unwrap();
    std::fs::write(model.join("config.pbtxt"), config).unwrap();
    (folder, model)
}

fn diagnose(path: &Path) -> Diagnosis {
    let mut all = examine(path, None, &settings(), &|_| ()).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

const SCALER: &str = "repository/scaler.onnx";

/// What is proposed, as the parser reads it.
fn proposed(diagnosis: &Diagnosis) -> ModelConfig {
    parse(&diagnosis.proposal.as_ref().unwrap().1).unwrap()
}

#[test]
fn a_model_that_is_right_has_no_findings() {
    let (_folder, model) = house(SCALER, "max_batch_size: 8 dynamic_batching { }");
    assert_eq!(
        diagnose(&model),
        Diagnosis { model: "m".into(), versions: vec![(Version::FIRST, Vec::new())], ..Diagnosis::default() }
    );
    let bare = diagnose(&testdata(SCALER));
    assert!(bare.findings.is_empty() && bare.proposal.is_none(), "{bare:?}");
}

#[test]
fn labels_are_told_and_what_is_wrong_with_one_where_it_stands() {
    let label = |name: &str, version: &str| {
        format!("parameters {{ key: \"version_label.{name}\" value {{ string_value: \"{version}\" }} }} ")
    };
    let (_folder, model) = house(SCALER, &(label("stable", "1") + &label("best", "1")));
    let diagnosis = diagnose(&model);
    assert_eq!(diagnosis.versions, [(Version::FIRST, vec!["best".to_owned(), "stable".to_owned()])]);
    assert!(diagnosis.findings.is_empty(), "{diagnosis:?}");
    // To nothing: nobody can tell what was meant.
    let (_folder, model) = house(SCALER, &label("stable", "7"));
    let diagnosis = diagnose(&model);
    let [fault] = diagnosis.findings.as_slice() else { panic!("{diagnosis:?}") };
    assert!(fault.gravity == Gravity::Fault && fault.path.ends_with("m/config.pbtxt"), "{fault:?}");
    assert!(
        fault.message.starts_with("label 'stable' is version 7, which is not there: there are 1"),
        "{fault:?}"
    );
    // One that can be none is left out of what is proposed.
    let (_folder, model) = house(SCALER, &(label("stable", "1") + &label("1", "1") + &label("next", "x")));
    let diagnosis = diagnose(&model);
    assert_eq!(diagnosis.findings.len(), 2, "{diagnosis:?}");
    let kept: Vec<_> = proposed(&diagnosis).parameters.into_keys().collect();
    assert_eq!(kept, ["version_label.stable"]);
}

#[test]
fn a_field_without_effect_is_a_note_with_the_way_to_one() {
    let text = "max_batch_size: 8 dynamic_batching { } instance_group { rate_limiter { resources { name: \"R\" count: 1 } } }";
    let (_folder, model) = house(SCALER, text);
    let diagnosis = diagnose(&model);
    let [note] = diagnosis.findings.as_slice() else { panic!("{diagnosis:?}") };
    assert!(note.gravity == Gravity::Note && note.path.ends_with("config.pbtxt"));
    assert!(note.message.starts_with("instance_group.rate_limiter has no effect: "), "{note:?}");
    assert!(note.message.contains("--rate-limit execution_count"), "{note:?}");
}

#[test]
fn a_file_with_another_sum_than_its_agent_says_is_told_and_one_that_fits_is_not() {
    let config = |sum: &str| {
        format!(
            "max_batch_size: 8 dynamic_batching {{ }} model_repository_agents {{ agents {{ name: \"checksum\" parameters {{ key: \"MD5:1/model.onnx\" value: \"{sum}\" }} }} }}"
        )
    };
    let (_folder, model) = house(SCALER, &config(&"0".repeat(32)));
    let diagnosis = diagnose(&model);
    assert!(diagnosis.is_faulty());
    let said = &diagnosis.findings[0].message;
    let (_, rest) = said.split_once("1/model.onnx has MD5 ").unwrap();
    let (_folder, model) = house(SCALER, &config(&rest[..32]));
    assert!(diagnose(&model).findings.is_empty());
}

#[test]
fn every_misspelt_name_is_told_with_its_place_and_put_right() {
    let text =
        "# a comment\nmax_batchsize: 8\ninput [ { nam: \"x\" data_type: TYPE_FLOAT32 dims: [ 4 ] } ]\n";
    let (_folder, model) = house(SCALER, text);
    let diagnosis = diagnose(&model);
    let places: Vec<_> = diagnosis.findings.iter().filter_map(|finding| finding.place).collect();
    assert_eq!(places, [(2, 1), (3, 11), (3, 31)]);
    let config = proposed(&diagnosis);
    assert_eq!(
        (config.max_batch_size, config.input[0].name.as_str(), config.input[0].data_type),
        (8, "x", 11)
    );
}

#[test]
fn the_mistake_with_the_batch_axis_is_explained_and_corrected() {
    let text = "max_batch_size: 8 input [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 4 ] } ] instance_group { count: 2 }";
    let (_folder, model) = house(SCALER, text);
    let diagnosis = diagnose(&model);
    assert!(
        diagnosis.findings[0]
            .message
            .contains("dims leave out the batch axis because max_batch_size is above 0")
    );
    let config = proposed(&diagnosis);
    assert_eq!((config.max_batch_size, config.input[0].dims.as_slice()), (8, &[4][..]));
    assert_eq!(config.instance_group[0].count, 2, "what was right is kept");
}

#[test]
fn what_is_not_honoured_is_all_told_and_left_out_of_the_proposal() {
    let text = "name: \"other\" platform: \"tensorrt_plan\" model_operations { op_library_filename: \"a.so\" } instance_group [ { kind: KIND_MODEL count: 3 } ]";
    let (_folder, model) = house(SCALER, text);
    let diagnosis = diagnose(&model);
    let said: Vec<&str> = diagnosis.findings.iter().map(|finding| finding.message.as_str()).collect();
    for part in ["tensorrt_plan", "model_operations", "KIND_MODEL", "name is \"other\""] {
        assert!(said.iter().any(|message| message.contains(part)), "{part}: {said:?}");
    }
    let config = proposed(&diagnosis);
    assert_eq!(
        (config.name.as_str(), config.platform.as_str(), config.instance_group[0].count),
        ("m", "", 3)
    );
}

#[test]
fn a_graph_without_a_batch_axis_gets_none() {
    let (_folder, model) = house("repository/no_batch.onnx", "max_batch_size: 8");
    let diagnosis = diagnose(&model);
    assert!(diagnosis.findings[0].message.contains("first axis is not free"), "{:?}", diagnosis.findings);
    assert_eq!(proposed(&diagnosis).max_batch_size, 0);
}

#[test]
fn operators_that_stop_batching_are_named() {
    let (_folder, model) =
        house("repository/softmax_over_batch.onnx", "max_batch_size: 8 dynamic_batching { }");
    let diagnosis = diagnose(&model);
    assert!(!diagnosis.is_faulty());
    let said = &diagnosis.findings[0];
    assert_eq!(said.gravity, Gravity::Doubt);
    assert!(said.message.contains("(Softmax) works over the batch axis"), "{}", said.message);
    let (_folder, model) = house(SCALER, "max_batch_size: 8");
    assert!(diagnose(&model).findings[0].message.contains("write dynamic_batching { }"));
}

#[test]
fn versions_that_are_empty_missing_or_differ_are_told() {
    let (_folder, model) = house(SCALER, "version_policy { all { } }");
    for version in ["2", "007"] {
        std::fs::create_dir(model.join(version)).unwrap();
    }
    std::fs::create_dir(model.join("3")).unwrap();
    std::fs::copy(testdata("repository/lookup.onnx"), model.join("3/model.onnx")).unwrap();
    let diagnosis = diagnose(&model);
    let said: String = diagnosis.findings.iter().map(|finding| format!("{}\n", finding.message)).collect();
    assert!(said.contains("is empty") && said.contains("without a leading zero"), "{said}");
    assert!(said.contains("version 1 has other inputs or outputs than version 3"), "{said}");
    let (_folder, model) = house(SCALER, "");
    std::fs::remove_dir_all(model.join("1")).unwrap();
    assert!(diagnose(&model).findings[0].message.contains("has no version"));
}

#[test]
fn a_model_is_named_by_any_of_its_parts_and_another_format_is_told_once() {
    let (_folder, model) = house(SCALER, "max_batchsize: 8");
    let whole = diagnose(&model);
    assert!(whole.model == "m" && whole.is_faulty());
    assert_eq!((diagnose(&model.join("1")), diagnose(&model.join("config.pbtxt"))), (whole.clone(), whole));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("saved/1/variables")).unwrap();
    std::fs::write(folder.path().join("saved/1/saved_model.pb"), "x").unwrap();
    std::fs::create_dir_all(folder.path().join("keras")).unwrap();
    std::fs::write(folder.path().join("keras/model.h5"), b"\x89HDF\r\n\x1a\n").unwrap();
    let all = examine(folder.path(), None, &settings(), &|_| ()).unwrap();
    let said = |at: usize| match all[at].findings.as_slice() {
        [one] => (all[at].model.clone(), one.message.clone()),
        several => panic!("{several:?}"),
    };
    assert!(said(0).0 == "keras" && said(0).1.starts_with("it is HDF5, as Keras saves"), "{:?}", said(0));
    assert!(said(1).0 == "saved" && said(1).1.starts_with("it is a TensorFlow SavedModel"), "{:?}", said(1));
}

#[test]
fn broken_files_and_other_formats_are_told_for_every_model_of_a_repository() {
    let all = examine(&testdata("broken"), None, &settings(), &|_| ()).unwrap();
    let said = |name: &str| {
        let diagnosis = all.iter().find(|diagnosis| diagnosis.model == name).unwrap();
        assert!(diagnosis.is_faulty(), "{name}");
        diagnosis.findings[0].message.clone()
    };
    assert!(said("empty").contains("the file is empty"));
    assert!(said("pickle").contains("a Python pickle"));
    assert!(said("external_escape").contains("without '..'"));
    assert!(said("misfit").contains("write input"));
    assert!(said("truncated").contains("damaged"));
    let whole = examine(&testdata("repository"), None, &settings(), &|_| ()).unwrap();
    let faulty: Vec<_> = whole.iter().filter(|diagnosis| diagnosis.is_faulty()).collect();
    assert!(whole.len() > 20 && faulty.is_empty(), "{faulty:?}");
}

#[test]
fn a_printed_configuration_is_read_as_it_was() {
    let text = r#"
        name: "m" max_batch_size: 8
        input [ { name: "a \"b\" \\ \001" data_type: TYPE_FP32 dims: [ -1, 2 ] reshape { shape: [ ] } } ]
        version_policy { specific { versions: [ 1, 3 ] } }
        dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 2 value { timeout_action: DELAY } } }
        parameters { key: "k" value { string_value: "v" } }
        metric_tags { key: "team" value: "x" }
        model_warmup { name: "w" inputs { key: "a" value { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } }
        optimization { graph { level: -1 } }
    "#;
    let config = parse(text).unwrap();
    assert_eq!(parse(&pretty(&config).unwrap()), Ok(config));
}
