use super::*;
use crate::repository::config::{fields, parse};
use xebec_core::resource::{Metadata, ModelSource};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn found(root: &Path) -> Scan {
    scan(&[root.to_owned()]).unwrap()
}

fn fault(scan: &Scan) -> String {
    assert_eq!(scan.faults.len(), 1, "{:?}", scan.faults);
    scan.faults[0].1.to_string()
}

#[test]
fn bare_files_and_tritons_layout_are_found_and_the_latest_version_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "bare.onnx", "");
    write(root, "tower/1/model.onnx", "");
    write(root, "tower/12/model.onnx", "");
    write(root, "tower/007/model.onnx", "");
    write(root, "tower/notes/model.onnx", "");
    write(root, "deep/1/model.onnx/model.onnx", "");
    write(root, ".hidden/1/model.onnx", "");
    write(root, "README.md", "");
    let scan = found(root);
    assert!(scan.faults.is_empty());
    let names: Vec<(&str, Vec<u64>)> = scan
        .candidates
        .iter()
        .map(|candidate| {
            (candidate.name.as_str(), candidate.versions.keys().map(|version| version.get()).collect())
        })
        .collect();
    assert_eq!(names, [("bare", vec![1]), ("deep", vec![1]), ("tower", vec![12])]);
}

#[test]
fn one_model_is_opened_by_its_file_or_its_folder_and_nothing_else_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "bare.onnx", "");
    write(root, "tower/1/model.onnx", "");
    write(root, "notes.txt", "");
    let name = |path: &str| open(&root.join(path)).map(|candidate| candidate.name.to_string());
    assert_eq!((name("bare.onnx").unwrap(), name("tower").unwrap()), ("bare".into(), "tower".into()));
    assert!(name("notes.txt").unwrap_err().to_string().contains("neither an .onnx file nor a model folder"));
    assert!(name("missing").unwrap_err().to_string().contains("cannot read"));
    // What is beside the model is told with what was meant.
    write(root, "tower/config.pbtxt", "");
    for (path, words) in [
        ("tower/1", "tower/1 is a part of a model; name "),
        ("tower/config.pbtxt", "tower/config.pbtxt is a part of a model; name "),
    ] {
        let said = name(path).unwrap_err().to_string();
        assert!(said.contains(words) && said.ends_with("/tower"), "{said}");
    }
    let said = name("").unwrap_err().to_string();
    assert!(said.contains(" is a folder of models; name ") && said.ends_with("/bare.onnx"), "{said}");
    write(root, "7/1/model.onnx", "");
    assert_eq!(name("7").unwrap(), "7", "a model may be called as a version is");
}

#[test]
fn version_policies_choose_and_a_missing_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for version in 1..=4 {
        write(root, &format!("m/{version}/model.onnx"), "");
    }
    let kept = |policy: &str| {
        write(root, "m/config.pbtxt", policy);
        let scan = found(root);
        match scan.candidates.first() {
            Some(candidate) => Ok(candidate.versions.keys().map(|version| version.get()).collect::<Vec<_>>()),
            None => Err(fault(&scan)),
        }
    };
    assert_eq!(kept("version_policy: { latest: { num_versions: 2 } }"), Ok(vec![3, 4]));
    assert_eq!(kept("version_policy: { all: {} }"), Ok(vec![1, 2, 3, 4]));
    assert_eq!(kept("version_policy: { specific: { versions: [1, 3] } }"), Ok(vec![1, 3]));
    let missing = kept("version_policy: { specific: { versions: [9] } }").unwrap_err();
    assert!(missing.contains("asks for version 9") && missing.contains("has only 1, 2, 3, 4"), "{missing}");
}

#[test]
fn one_name_twice_is_refused_and_the_others_are_found() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "twice.onnx", "");
    write(folder.path(), "twice/1/model.onnx", "");
    write(folder.path(), "other.onnx", "");
    let scan = found(folder.path());
    assert!(fault(&scan).starts_with("two models are called 'twice'"));
    assert_eq!(scan.candidates.len(), 1);
}

#[test]
fn links_out_of_the_repository_are_refused_and_links_inside_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret.onnx", "");
    write(folder.path(), "real.onnx", "");
    std::os::unix::fs::symlink(outside.path().join("secret.onnx"), folder.path().join("out.onnx")).unwrap();
    std::os::unix::fs::symlink("real.onnx", folder.path().join("alias.onnx")).unwrap();
    let scan = found(folder.path());
    assert!(fault(&scan).contains("outside of"), "{:?}", scan.faults);
    assert_eq!(scan.candidates.len(), 2);
}

#[test]
fn a_folder_without_a_version_says_where_the_file_belongs() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "m/model.onnx", "");
    assert!(fault(&found(folder.path())).contains("m/1/model.onnx"));
    write(folder.path(), "m/config.pbtxt", "default_model_filename: \"../x.onnx\"");
    assert!(fault(&found(folder.path())).contains("is not the name of a file"));
}

#[test]
fn a_model_of_another_format_is_refused_with_the_command_that_converts_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "net/1/model.pt", "PK\u{3}\u{4} net/data.pkl net/constants.pkl");
    write(root, "saved/1/model.savedmodel/saved_model.pb", "x");
    write(root, "plain/saved_model.pb", "x");
    write(root, "weights.gguf", "GGUF");
    write(root, "good/1/model.onnx", "");
    let scan = found(root);
    let said: Vec<String> = scan.faults.iter().map(|(name, fault)| format!("{name}: {fault}")).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with("net: ")
            && said[0].contains("TorchScript")
            && said[0].contains("torch.onnx.export")
    );
    assert!(said[1].starts_with("plain: ") && said[1].contains("--saved-model"));
    assert!(said[2].starts_with("saved: ") && said[2].contains("SavedModel"));
    // A stray file beside the models is a line in the log and takes nobody down.
    assert_eq!(scan.candidates.len(), 1);
}

#[test]
fn a_config_in_tritons_usual_spelling_parses() {
    let text = r#"
        # A comment with [ brackets ].
        name: "simple"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [
          { name: "IN [0]" data_type: TYPE_FP32 dims: [ 16 ] },
          { name: 'b' data_type: TYPE_INT64 dims: [ -1, 2 ] }
        ]
        output[{ name: "y" data_type: TYPE_STRING dims: [ 1 ] }]
        instance_group [ { count: 2 kind: KIND_CPU } ]
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
    "#;
    let config = parse(text).unwrap();
    assert_eq!((config.input.len(), config.output.len(), config.instance_group[0].count), (2, 1, 2));
    assert_eq!(
        (config.input[0].name.as_str(), config.input[1].dims.as_slice()),
        ("IN [0]", [-1, 2].as_slice())
    );
}

#[test]
fn everything_that_is_not_honoured_is_named_at_once() {
    let text = r#"
        platform: "tensorrt_plan"
        max_batch_size: -1
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] is_shape_tensor: true } ]
        instance_group [ { kind: KIND_MODEL profile: [ "1" ] } ]
        sequence_batching { iterative_sequence: true }
        model_transaction_policy { decoupled: true }
        model_operations { op_library_filename: [ "ops.so" ] }
    "#;
    let refusal = parse(text).unwrap_err();
    for field in [
        "platform",
        "max_batch_size",
        "input.is_shape_tensor",
        "KIND_MODEL",
        "instance_group.profile",
        "sequence_batching.iterative_sequence true",
        "model_transaction_policy.decoupled true",
        "model_operations",
    ] {
        assert!(refusal.contains(field), "{field} is missing in: {refusal}");
    }
}

#[test]
fn what_is_of_a_gpu_is_nothing_to_do_on_the_cpu_and_refused_with_a_gpu() {
    let text = r#"
        optimization {
          priority: PRIORITY_MAX
          cuda { graphs: true busy_wait_events: true output_copy_stream: true graph_spec { batch_size: 1 } }
          input_pinned_memory { enable: true }
          output_pinned_memory { enable: true }
          gather_kernel_buffer_threshold: 64
        }
        cc_model_filenames { key: "7.5" value: "turing.onnx" }
        instance_group [ { kind: KIND secondary_devices { kind: KIND_NVDLA } }, { kind: KIND } ]
    "#;
    let all = [
        "optimization.priority PRIORITY_MAX",
        "optimization.cuda",
        "optimization.input_pinned_memory.enable true",
        "optimization.output_pinned_memory.enable true",
        "optimization.gather_kernel_buffer_threshold",
        "instance_group.secondary_devices",
        "cc_model_filenames",
    ];
    for on_cpu in ["KIND_CPU", "KIND_AUTO"] {
        let config = parse(&text.replace("kind: KIND ", &format!("kind: {on_cpu} "))).unwrap();
        let mut said: Vec<String> = config::idle(&config, false).into_iter().map(|idle| idle.path).collect();
        said.sort();
        let mut all = all.to_vec();
        all.sort_unstable();
        assert_eq!(said, all, "{on_cpu}");
    }
    let refusal = parse(&text.replace("kind: KIND ", "kind: KIND_GPU ")).unwrap_err();
    for field in all {
        assert!(refusal.contains(&format!("{field} is not honoured")), "{field} is missing in: {refusal}");
    }
    assert!(parse("instance_group { gpus: [ 0 ] } optimization { priority: PRIORITY_MIN }").is_err());
}

#[test]
fn eager_batching_is_accepted_and_said_to_do_nothing() {
    for kind in ["KIND_CPU", "KIND_GPU"] {
        let text = format!("instance_group {{ kind: {kind} }} optimization {{ eager_batching: true }}");
        let said = config::idle(&parse(&text).unwrap(), false);
        assert!(said.len() == 1 && said[0].path.starts_with("optimization.eager_batching"), "{said:?}");
    }
    assert!(config::idle(&parse("optimization { eager_batching: false }").unwrap(), false).is_empty());
}

#[test]
fn every_field_of_the_schema_has_a_verdict_and_every_row_a_field() {
    let leaves = fields::leaves(&config::schema().unwrap());
    let without: Vec<_> = leaves.iter().filter(|(_, row)| row.is_none()).collect();
    assert!(without.is_empty(), "{without:?}");
    for field in fields::FIELDS {
        let speaks = leaves.iter().any(|(_, row)| row.is_some_and(|row| row.path == field.path));
        assert!(speaks, "{} speaks for no field", field.path);
    }
}

#[test]
fn a_name_that_is_nearly_one_of_the_schema_is_told() {
    for (text, meant) in [
        ("max_batchsize: 8", "did you mean 'max_batch_size'?"),
        ("input { name: \"x\" data_type: TYPE_FLOAT32 }", "did you mean 'TYPE_FP32'?"),
        ("input { name: \"x\" data_type: TYPE_FLOAT }", "did you mean 'TYPE_FP32'?"),
        ("input { name: \"x\" data_type: type_bytes }", "did you mean 'TYPE_STRING'?"),
        ("instance_group { kind: KIND_CPUS }", "did you mean 'KIND_CPU'?"),
        ("instance_group { kind: A_TPU }", "known are KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL"),
        ("dynamic_batching { preferred_batch_sizes: [ 1 ] }", "did you mean 'preferred_batch_size'?"),
    ] {
        let said = parse(text).unwrap_err();
        assert!(said.contains(meant), "{text}: {said}");
    }
    assert!(!parse("utterly_different: 8").unwrap_err().contains("did you mean"));
}

#[test]
fn what_changes_nothing_is_accepted() {
    let text = "optimization { input_pinned_memory { enable: false } output_pinned_memory { } priority: PRIORITY_DEFAULT }
        model_transaction_policy { decoupled: false } response_cache { enable: false }";
    assert!(parse(text).is_ok());
}

/// A parameter that gives a version a label.
fn label(name: &str, version: &str) -> String {
    format!("parameters {{ key: \"version_label.{name}\" value {{ string_value: \"{version}\" }} }}\n")
}

#[test]
fn a_label_that_is_none_or_names_no_number_is_told_with_the_others() {
    let text = [
        label("1", "1"),
        label("a/b", "1"),
        label("stable", "newest"),
        label("next", ""),
        label("x", "1").replace("_label", "_lables"),
    ]
    .concat();
    let said = parse(&text).unwrap_err();
    for words in [
        "'version_label.1': a label of a version is 1 to 64",
        "'version_label.a/b': a label",
        "'version_label.stable' is \"newest\"; write the number of a version",
        "'version_label.next' is \"\"",
        "'version_lables.x' is no label of a version; write version_label.NAME",
    ] {
        assert!(said.contains(words), "{words} is missing in: {said}");
    }
    let labels = labels::read(&parse(&(label("stable", "1") + &label("v1.2", "7"))).unwrap()).unwrap();
    let labels: Vec<_> = labels.iter().map(|(label, version)| format!("{label} {version}")).collect();
    assert_eq!(labels, ["stable 1", "v1.2 7"]);
}

#[test]
fn a_label_to_nothing_says_which_label_which_version_and_which_there_are() {
    let folder = tempfile::tempdir().unwrap();
    for version in [1, 2, 3] {
        write(folder.path(), &format!("m/{version}/model.onnx"), "");
    }
    let found_with = |config: &str| {
        write(folder.path(), "m/config.pbtxt", config);
        found(folder.path())
    };
    let said = fault(&found_with(&(label("stable", "9") + &label("canary", "2") + &label("newest", "3"))));
    assert!(said.contains("label 'stable' is version 9, which is not there: there are 1, 2, 3"), "{said}");
    let way_out = "label 'canary' is version 2, which the version policy does not serve: it serves 3; write version_policy { specific { versions: [ 2, 3 ] } }";
    assert!(said.contains(way_out), "{said}");
    assert!(!said.contains("'newest'"), "{said}");
    let all = "version_policy { all { } }\n";
    let scan = found_with(&(all.to_owned() + &label("canary", "2") + &label("best", "2")));
    assert_eq!(scan.candidates[0].labels.len(), 2, "{:?}", scan.faults);
}

#[test]
fn a_tag_of_metrics_is_a_label() {
    let tags =
        |key: &str, value: &str| parse(&format!("metric_tags {{ key: \"{key}\" value: \"{value}\" }}"));
    assert_eq!(tags("team_1", "a b").unwrap().metric_tags["team_1"], "a b");
    for (key, value) in [("", "x"), ("a-b", "x"), ("a\\\"", "x"), ("a", &"x".repeat(256))] {
        assert!(tags(key, value).unwrap_err().contains("cannot be a label"), "{key}");
    }
}

#[test]
fn a_preferred_batch_size_is_between_1_and_the_largest() {
    for (size, fits) in [(0, false), (1, true), (8, true), (9, false)] {
        let text = format!("max_batch_size: 8 dynamic_batching {{ preferred_batch_size: [ {size} ] }}");
        assert_eq!(parse(&text).is_ok(), fits, "{size}");
    }
}

#[test]
fn a_syntax_error_and_an_unknown_field_have_their_place() {
    assert!(parse("name: \"a\"\nmax_batchsize: 8\n").unwrap_err().starts_with("line 2, column 1:"));
    assert!(parse("max_batch_size 8").unwrap_err().starts_with("line 1, column 16:"));
    assert!(parse("input [").is_err());
}

#[test]
fn a_config_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "m/1/model.onnx", "");
    write(folder.path(), "m/config.pbtxt", "name: \"other\"");
    assert!(fault(&found(folder.path())).contains("name is \"other\", but the folder is 'm'"));
}

fn service(uri: &str) -> InferenceService {
    InferenceService {
        api_version: "xebec.dev/v1alpha1".into(),
        metadata: Metadata {
            name: "s".into(),
            namespace: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        },
        spec: xebec_core::resource::InferenceServiceSpec {
            model: ModelSource { uri: uri.into(), format: xebec_core::resource::ModelFormat::Onnx },
            batching: resource::Batching::default(),
            resources: resource::Resources::default(),
            replicas: 1,
        },
    }
}

#[test]
fn a_service_names_a_local_file_and_what_a_laptop_lacks_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "models/m.onnx", "");
    let from = |service: &InferenceService| {
        Candidate::from_service(service, folder.path()).map_err(|error| error.to_string())
    };
    let absolute = format!("file://{}", folder.path().join("models/m.onnx").display());
    for uri in ["models/m.onnx", &absolute] {
        assert!(from(&service(uri)).unwrap().versions[&Version::FIRST].ends_with("models/m.onnx"));
    }
    assert!(from(&service("s3://bucket/m.onnx")).unwrap_err().contains("'s3' is not a scheme"));
    assert!(from(&service("missing.onnx")).unwrap_err().contains("cannot read"));
    let mut other = service("models/m.onnx");
    other.metadata.namespace = Some("team".into());
    assert!(from(&other).unwrap_err().contains("a laptop has only 'default'"));
    let mut none = service("models/m.onnx");
    none.spec.replicas = 0;
    assert!(from(&none).unwrap_err().contains("replicas is 0"));
    let mut threads = service("models/m.onnx");
    for (number, fits) in [(1, true), (1024, true), (0, false), (1025, false)] {
        threads.spec.resources.threads = Some(number);
        assert_eq!(from(&threads).is_ok(), fits, "{number}");
    }
}
