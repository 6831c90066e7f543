use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn load_line(line: &[&str]) -> Result<Config, Vec<String>> {
    let flags = Line::try_parse_from([&["xebec"], line].concat()).unwrap().flags;
    let mut faults = Faults::default();
    load(flags, true, &mut faults).ok_or(faults.0)
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
        "--objective",
        "speed",
        "--exit-on-error",
        "maybe",
        "--model-control-mode",
        "poll",
        "--exit-timeout-secs",
        "-1",
        "--log-level",
        "[",
    ])
    .unwrap_err();
    for words in [
        "--model-repository is missing",
        "--http-port (XEBEC_HTTP_PORT) is '80000', but must be a port",
        "--grpc-address is 0.0.0.0, which is not loopback",
        "--max-json-depth",
        "--objective (XEBEC_OBJECTIVE) is 'speed', but must be one of throughput, latency",
        "--exit-on-error",
        "--model-control-mode: this version loads all models at start",
        "--exit-timeout-secs",
        "--log-level",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words} is missing in {faults:#?}");
    }
    assert_eq!(faults.len(), 9, "{faults:#?}");
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
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let folder = repository();
    let file = folder.path().join("xebec.yaml");
    std::fs::write(&file, "http-port: 9000\ngrpc-port: 9001\nexit-on-error: false\nmax-connections: 7\n")
        .unwrap();
    let config = with_repository(&["--config", &file.to_string_lossy(), "--grpc-port", "9999"]).unwrap();
    let port = |listener: Listener| listener.address.unwrap().port();
    assert_eq!((port(config.http), port(config.grpc), port(config.metrics)), (9000, 9999, 8002));
    assert_eq!((config.exit_on_error, config.limits.max_connections), (false, 7));
}

#[test]
fn an_unknown_key_of_the_file_is_an_error_with_its_name() {
    let folder = repository();
    let file = folder.path().join("xebec.yaml");
    std::fs::write(&file, "http-prot: 9000\n").unwrap();
    let faults = with_repository(&["--config", &file.to_string_lossy()]).unwrap_err();
    assert!(faults.iter().any(|fault| fault.contains("http-prot")), "{faults:?}");
    let faults = with_repository(&["--config", "/nowhere.yaml"]).unwrap_err();
    assert!(faults[0].contains("cannot read /nowhere.yaml"), "{faults:?}");
}

#[test]
fn every_default_is_valid_and_every_variable_has_our_prefix() {
    for setting in SETTINGS {
        assert_eq!(setting.variable, format!("XEBEC_{}", setting.name.replace('-', "_").to_uppercase()));
        if !setting.default.is_empty() {
            let flag = format!("--{}", setting.name);
            assert!(with_repository(&[&flag, setting.default]).is_ok(), "{}", setting.name);
        }
    }
}

#[test]
fn what_is_in_force_is_printed() {
    let mut out = Vec::new();
    with_repository(&["--http-port", "1234"]).unwrap().print(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("configuration is valid\n") && text.contains("http-port: 1234\n"), "{text}");
}
