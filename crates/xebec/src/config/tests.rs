use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn load_line(line: &[&str]) -> Result<Config, Vec<String>> {
    load_with(line, &[], true)
}

fn load_with(line: &[&str], variables: &[(&str, &str)], serve: bool) -> Result<Config, Vec<String>> {
    let flags = Line::try_parse_from([&["xebec"], line].concat()).unwrap().flags;
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut faults = Faults::default();
    load(&flags, &variables, serve, &mut faults).ok_or(faults.0)
}

/// Loads a file of settings.
fn load_file(text: &str, line: &[&str], variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let folder = repository();
    let file = folder.path().join("xebec.yaml");
    std::fs::write(&file, text.replace("DIR", &folder.path().to_string_lossy())).unwrap();
    let path = file.to_string_lossy().into_owned();
    let loaded = load_with(&[&["--config", &path], line].concat(), variables, true);
    loaded.map_err(|faults| faults.iter().map(|fault| fault.replace(&path, "FILE")).collect())
}

fn repository() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn with_repository(line: &[&str]) -> Result<Config, Vec<String>> {
    let folder = repository();
    let path = folder.path().to_string_lossy().into_owned();
    load_line(&[&["--model-repository", &path], line].concat())
}

#[test]
fn defaults_are_tritons_ports_on_loopback() {
    let config = with_repository(&[]).unwrap();
    let ports =
        [config.http, config.grpc, config.metrics].map(|listener| listener.address.unwrap().to_string());
    assert_eq!(ports, ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"]);
    assert_eq!((config.server_name.as_str(), config.defaults.max_batch_size), ("triton", 64));
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = load_line(&[
        "--http-port",
        "80000",
        "--grpc-address",
        "0.0.0.0",
        "--max-json-depth",
        "1000",
        "--allowed-hosts",
        "http://models.example",
        "--objective",
        "speed",
        "--exit-on-error",
        "maybe",
        "--model-control-mode",
        "pull",
        "--load-model",
        "a/b",
        "--exit-timeout-secs",
        "-1",
        "--log-level",
        "[",
    ])
    .unwrap_err();
    for words in [
        "--model-repository is missing",
        "--http-port (XEBEC_HTTP_PORT) is '80000' on the command line, but must be a port",
        "--grpc-address is 0.0.0.0, which is not loopback",
        "--max-json-depth",
        "--allowed-hosts (XEBEC_ALLOWED_HOSTS) is 'http://models.example' on the command line, but must be names such as",
        "--objective (XEBEC_OBJECTIVE) is 'speed' on the command line, but must be one of throughput, latency",
        "--exit-on-error",
        "--model-control-mode (XEBEC_MODEL_CONTROL_MODE) is 'pull' on the command line, but must be one of none, poll, explicit",
        "--load-model: 'a/b' is no model's name",
        "--load-model has no effect without --model-control-mode explicit",
        "--exit-timeout-secs",
        "--log-level",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words} is missing in {faults:#?}");
    }
    assert_eq!(faults.len(), 12, "{faults:#?}");
}

#[test]
fn a_listener_off_loopback_needs_the_flag_with_the_ugly_name() {
    for address in ["0.0.0.0", "192.0.2.1", "::"] {
        assert!(with_repository(&["--http-address", address]).is_err(), "{address}");
        assert!(
            with_repository(&["--http-address", address, "--i-know-this-is-insecure"]).is_ok(),
            "{address}"
        );
    }
    for address in ["127.0.0.1", "127.8.8.8", "::1"] {
        assert!(with_repository(&["--http-address", address]).is_ok(), "{address}");
    }
    assert!(with_repository(&["--http-address", "0.0.0.0", "--allow-http", "false"]).is_ok());
}

#[test]
fn localhost_is_loopback() {
    assert_eq!(with_repository(&["--http-address", "localhost"]).unwrap().http.address.unwrap().port(), 8000);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file_and_the_file_over_defaults() {
    let text =
        "model-repository: [DIR]\nhttp-port: 9000\ngrpc-port: 9001\nmax-connections: 7\nmax-json-depth: 8\n";
    let variables = [("XEBEC_GRPC_PORT", "9998"), ("XEBEC_MAX_JSON_DEPTH", "9"), ("XEBEC_HTTP_PORT", "")];
    let config = load_file(text, &["--grpc-port", "9999"], &variables).unwrap();
    let port = |listener: Listener| listener.address.unwrap().port();
    assert_eq!((port(config.http), port(config.grpc), port(config.metrics)), (9000, 9999, 8002));
    assert_eq!((config.max_json_depth, config.limits.max_connections), (9, 7));
}

#[test]
fn a_value_of_the_file_is_taken_as_it_stands_there() {
    let text =
        "model-repository: DIR\naccess-log: off\nserver-name: 1.10\nexit-on-error: false\ngrpc-port:\n";
    let config = load_file(text, &[], &[]).unwrap();
    assert_eq!((config.server_name.as_str(), config.access_log, config.exit_on_error), ("1.10", None, false));
    assert_eq!((config.repositories.len(), config.grpc.address.unwrap().port()), (1, 8001));
}

#[test]
fn every_unknown_key_of_the_file_is_a_fault_with_its_line() {
    let faults = load_file("model-repository: DIR\nhttp-prot: 9000\ngrpc-prot: {a: [b]}\n", &[], &[]);
    let want = |line, key| format!("FILE line {line}: '{key}' is not a setting; see xebec serve --help");
    assert_eq!(faults.unwrap_err(), [want(2, "http-prot"), want(3, "grpc-prot")]);
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault_with_its_name() {
    let faults = load_file("http-port: [\n", &[], &[]).unwrap_err();
    assert!(faults.len() == 1 && faults[0].starts_with("FILE: "), "{faults:?}");
    assert_eq!(faults[0].lines().count(), 1, "{faults:?}");
    let faults = load_file("http-port: 1\n---\nhttp-port: 2\n", &[], &[]).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("a second document begins in line"), "{faults:?}");
    let faults = load_file("http-port: 1\nhttp-port: 2\n", &[], &[]).unwrap_err();
    assert_eq!(faults, ["FILE: http-port is there twice, again in line 2"]);
    let faults = load_file("http-port: {a: 1}\n", &[], &[]).unwrap_err();
    assert_eq!(faults, ["FILE: a single value must stand in line 1"]);
    let faults = load_line(&["--config", "/nowhere.yaml"]).unwrap_err();
    assert!(faults.len() == 1 && faults[0].contains("cannot read /nowhere.yaml"), "{faults:?}");
}

#[test]
fn a_fault_names_the_place_of_its_value() {
    let text = "model-repository: DIR\n\nmax-json-depth: 1000\n";
    let faults = load_file(text, &["--objective", "speed"], &[("XEBEC_HTTP_PORT", "x")]).unwrap_err();
    for words in [
        "--max-json-depth (XEBEC_MAX_JSON_DEPTH) is '1000' in FILE line 3, but",
        "--http-port (XEBEC_HTTP_PORT) is 'x' in the environment, but",
        "--objective (XEBEC_OBJECTIVE) is 'speed' on the command line, but",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(words)), "{words} is missing in {faults:#?}");
    }
}

#[test]
fn a_variable_that_no_setting_has_is_a_warning() {
    let folder = repository();
    let path = folder.path().to_string_lossy();
    let variables =
        [("XEBEC_HTTP_PROT", "1"), ("XEBEC_MODEL_REPOSITORY", &*path), ("XEBEC_ENGINE_CACHE", "x")];
    let config = load_with(&[], &variables, true).unwrap();
    assert_eq!(config.warnings, ["the variable XEBEC_HTTP_PROT has no effect: no setting has this name"]);
    assert_eq!(config.repositories, [folder.path()]);
}

#[test]
fn a_repository_of_the_environment_does_not_keep_up_from_its_yaml_files() {
    let variables = [("XEBEC_MODEL_REPOSITORY", "/nowhere")];
    assert!(load_with(&[], &variables, false).unwrap().repositories.is_empty());
    assert!(load_with(&["--model-repository", "/nowhere"], &[], false).is_err());
}

#[test]
fn listeners_that_want_one_port_are_told_so_and_free_ports_are_not() {
    let faults = with_repository(&["--http-port", "7000", "--metrics-port", "7000"]).unwrap_err();
    assert_eq!(faults, ["--http-port and --metrics-port are both 7000"]);
    assert!(with_repository(&["--http-port", "0", "--grpc-port", "0"]).is_ok());
    let apart = ["--http-port", "7000", "--grpc-port", "7000", "--grpc-address", "127.0.0.2"];
    assert!(with_repository(&apart).is_ok());
}

#[test]
fn a_check_finds_files_that_only_a_start_would_miss() {
    let check = |line: &[&str]| {
        let mut faults = Faults::default();
        with_repository(line).unwrap().check_files(&mut faults);
        faults.0
    };
    let faults = check(&["--onnxruntime-library", "/nowhere/a.so"]);
    assert_eq!(faults, ["--onnxruntime-library names /nowhere/a.so, but there is no such file"]);
    let faults = check(&["--access-log", "text", "--access-log-file", "/nowhere/a.log"]);
    assert!(faults[0].starts_with("--access-log-file cannot be written"), "{faults:?}");
    let faults = with_repository(&["--access-log-file", "/nowhere/a.log"]).unwrap_err();
    assert!(faults[0].contains("no effect while --access-log is off"), "{faults:?}");
}

#[test]
fn a_bare_level_of_the_log_is_xebecs_own() {
    let level = |text: &str| with_repository(&["--log-level", text]).unwrap().log_level;
    assert_eq!((level("debug"), level("error")), ("warn,xebec=debug".to_owned(), "error".to_owned()));
    assert_eq!(level("info,h2=trace"), "info,h2=trace");
}

#[test]
fn every_default_is_valid_and_every_variable_has_our_prefix() {
    for setting in SETTINGS {
        assert_eq!(setting.variable, format!("XEBEC_{}", setting.name.replace('-', "_").to_uppercase()));
        if !setting.default.is_empty() {
            let flag = format!("--{}={}", setting.name, setting.default);
            assert!(with_repository(&[&flag]).is_ok(), "{}", setting.name);
        }
    }
}

#[test]
fn what_another_control_mode_would_need_is_a_fault() {
    let control = |flags: &[&str]| with_repository(flags).map(|config| config.control);
    assert_eq!(control(&[]), Ok(ControlMode::None));
    let poll = ["--model-control-mode", "poll", "--repository-poll-secs", "0.5"];
    assert_eq!(control(&poll), Ok(ControlMode::Poll { every: Duration::from_millis(500) }));
    let explicit = control(&["--model-control-mode", "explicit", "--load-model", "b, a"]).unwrap();
    let name = |name| ModelName::parse(name).unwrap();
    assert_eq!(["a", "b", "c"].map(|model| explicit.wants(&name(model))), [true, true, false]);
    let all = control(&["--model-control-mode", "explicit", "--load-model", "*"]).unwrap();
    assert!(all.wants(&name("c")));
    let faults = control(&[&poll[..], &["--allow-model-upload", "true"]].concat()).unwrap_err();
    assert_eq!(faults, ["--allow-model-upload has no effect without --model-control-mode explicit"]);
    let faults = load_with(&["--model-control-mode", "poll"], &[], false).unwrap_err();
    assert!(faults[0].contains("is for 'serve'"), "{faults:?}");
}

#[test]
fn resources_of_the_rate_limiter_are_a_repeated_flag_or_a_list_and_need_it_on() {
    let declared = |name: &str, count, device| Declared { name: name.into(), count, device };
    let limit = |flags: &[&str]| with_repository(flags).map(|config| config.rate_limit);
    assert_eq!(limit(&[]), Ok(None));
    let on = ["--rate-limit", "execution_count"];
    assert_eq!(limit(&on), Ok(Some(vec![])));
    let flags = ["--rate-limit-resource", "R1:4", "--rate-limit-resource", "R2:1:0"];
    let both = vec![declared("R1", 4, None), declared("R2", 1, Some(0))];
    assert_eq!(limit(&[&on[..], &flags].concat()), Ok(Some(both.clone())));
    let file = "model-repository: DIR\nrate-limit: execution_count\nrate-limit-resource: R1:4, R2:1:0\n";
    assert_eq!(load_file(file, &[], &[]).unwrap().rate_limit, Some(both));
    let said = limit(&flags).unwrap_err();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("has no effect while --rate-limit is off"), "{said:?}");
    for wrong in ["R1", "R1:x", ":4", "R1:4:x", "R1:4:-1", "R1:4:0:0", "a b:1"] {
        let said = limit(&[&on[..], &["--rate-limit-resource", wrong]].concat()).unwrap_err();
        assert!(said[0].contains("NAME:COUNT"), "{wrong}: {said:?}");
    }
}

#[test]
fn what_is_in_force_is_printed() {
    let mut out = Vec::new();
    with_repository(&["--http-port", "1234"]).unwrap().print(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("configuration is valid\n") && text.contains("http-port: 1234\n"), "{text}");
    assert!(
        text.contains("i-know-this-is-insecure: false\n") && !text.contains("io-threads: auto"),
        "{text}"
    );
}

#[test]
fn shared_memory_is_off_and_never_all_of_it() {
    assert_eq!(with_repository(&[]).unwrap().shared_memory, None);
    assert!(with_repository(&["--allow-shared-memory", "input,frames-*"]).unwrap().shared_memory.is_some());
    for names in ["*", "a,*", "../x", "a/b"] {
        let faults = with_repository(&["--allow-shared-memory", names]).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains("--allow-shared-memory"), "{faults:?}");
    }
}
