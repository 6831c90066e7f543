//! `xebec serve` as a process: what it does when nobody listens, and that it always ends.
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

/// The bound of everything that is waited for here.
const BOUND: Duration = Duration::from_secs(60);

/// A server of copies of one small model on free ports.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts it with so many models; nobody reads its standard error unless the test does.
    fn start(models: usize, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/testdata/repository/scaler.onnx");
        for number in 0..models {
            std::fs::copy(&model, folder.path().join(format!("scaler-{number}.onnx"))).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_xebec"));
        command.args(["serve", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]).args(flags);
        command.arg("--model-repository").arg(folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, _folder: folder }
    }

    /// Reads what it prints until the line that begins with `word`; `None` if it ends before.
    fn line(&mut self, word: &str) -> Option<String> {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if let Some(rest) = line.strip_prefix(word) {
                return Some(rest.trim().to_owned());
            }
            line.clear();
        }
        None
    }

    fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// Waits for its end, within the bound; returns its exit status.
    fn end(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < BOUND, "the server does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone if the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const REQUEST: &str = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

fn post() -> String {
    format!(
        "POST /v2/models/scaler-0/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{REQUEST}",
        REQUEST.len()
    )
}

/// Sends requests and reads their answers; whether all of them were good.
fn load(address: &str, requests: usize) {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..requests {
        stream.write_all(post().as_bytes()).unwrap();
        let length = stream.read(&mut buffer).unwrap();
        let answer = String::from_utf8_lossy(&buffer[..length]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_closed_standard_error_ends_neither_the_server_nor_its_threads() {
    let mut server = Server::start(1, &["--log-level", "trace", "--access-log", "text"]);
    drop(server.child.stderr.take());
    let http = server.line("http").unwrap();
    server.line("ready").unwrap();
    load(&http, 100);
    server.terminate();
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_keep_the_server_from_its_end() {
    let mut server = Server::start(1, &["--access-log", "text", "--exit-timeout-secs", "5"]);
    let http = server.line("http").unwrap();
    server.line("ready").unwrap();
    // More lines than a pipe holds: the thread of the access log is stuck, with standard error locked.
    load(&http, 2000);
    server.terminate();
    assert_eq!(server.end(), Some(0));
}

/// What a pipe holds before whoever writes to it waits.
const PIPE_BYTES: usize = 64 << 10;

#[test]
fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let mut server = Server::start(1, &["--log-level", "trace", "--exit-timeout-secs", "30"]);
    let http = server.line("http").unwrap();
    server.line("ready").unwrap();
    let mut stream = TcpStream::connect(http.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let mut answer = [0; 4096];
    for _ in 0..2000 {
        stream.write_all(post().replace("FP32", "FP99").as_bytes()).unwrap();
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 400"));
    }
    drop(stream);
    server.terminate();
    let mut err = server.child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        err.read_to_end(&mut said).unwrap();
        said
    });
    assert_eq!(server.end(), Some(0));
    let said = said.join().unwrap();
    assert!(said.len() >= PIPE_BYTES, "the pipe was to be full: {} bytes", said.len());
}

#[test]
fn why_a_server_cannot_start_is_told_behind_its_log_and_its_drain_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.onnx"), "no model").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xebec"));
    command.args(["serve", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]);
    let output = command.arg("--model-repository").arg(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("model=broken"), "{said}");
    assert!(
        said.lines().last().unwrap().starts_with("error: 1 of 1 model versions cannot be served"),
        "{said}"
    );

    let mut server = Server::start(1, &[]);
    server.line("ready").unwrap();
    server.terminate();
    assert_eq!(server.end(), Some(0));
    let mut said = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(
        said.ends_with("draining: requests in flight get 30 s; a second signal ends at once\n"),
        "{said}"
    );
}

#[test]
fn the_time_to_drain_bounds_the_process_also_with_a_request_that_never_ends() {
    let mut server = Server::start(1, &["--exit-timeout-secs", "0.2"]);
    let http = server.line("http").unwrap();
    server.line("ready").unwrap();
    let mut half = TcpStream::connect(http.trim_start_matches("http://")).unwrap();
    half.write_all(&post().as_bytes()[..40]).unwrap();
    let began = Instant::now();
    server.terminate();
    assert!(server.end().is_some() && began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_signal_while_models_are_loaded_drains_and_ends_with_success() {
    let mut server = Server::start(300, &[]);
    server.line("metrics").unwrap();
    server.terminate();
    assert_eq!(server.line("ready"), None, "the load was to be cut short");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["completions", "bash"][..], &["serve", "--check-config", "--model-repository"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xebec"));
        command.args(args);
        if args.contains(&"serve") {
            command.arg(folder.path());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let (send, ended) = sync_channel(1);
        std::thread::spawn(move || drop(send.send(child.wait_with_output().unwrap())));
        let output = ended.recv_timeout(BOUND).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
