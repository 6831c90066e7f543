//! HTTP/1.1: framing, limits, time, drain.
use crate::server::Server;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use xebec_net::limits::Limits;

pub(crate) fn send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).unwrap();
    // A bound on a failing test, not a wait: everything below answers or closes by itself.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

pub(crate) fn to_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn exchange(server: &Server, request: &[u8]) -> String {
    to_end(send(server, request))
}

#[test]
fn a_body_is_echoed_and_every_turn_ends_in_a_flush() {
    let server = Server::start(Limits::default());
    let answer = exchange(
        &server,
        b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(server.turns.0.load(SeqCst) > 0);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_and_by_what_comes() {
    let server = Server::start(Limits::default());
    let by_length =
        exchange(&server, b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048577\r\n\r\n");
    assert!(by_length.starts_with("HTTP/1.1 413"), "{by_length}");
    let mut chunked = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..17 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b'a'; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let by_content = exchange(&server, &chunked);
    assert!(by_content.starts_with("HTTP/1.1 413"), "{by_content}");
}

#[test]
fn three_megabytes_in_chunks_of_one_byte_are_refused_with_the_way_out() {
    let limits = Limits { max_body_pieces: 1000, ..Limits::default() };
    let server = Server::start(limits);
    let mut stream =
        send(&server, b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut chunks = Vec::new();
    for _ in 0..3 << 20 {
        chunks.extend_from_slice(b"1\r\na\r\n");
    }
    // The server answers and closes in the middle of it.
    let _ = stream.write_all(&chunks);
    let answer = to_end(stream);
    assert!(answer.contains("more than 1000 pieces"), "{answer}");
    let after = exchange(&server, b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(after.starts_with("HTTP/1.1 200"), "{after}");
}

#[test]
fn headers_that_trickle_in_are_cut_off_and_the_server_goes_on() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let slow = send(&server, b"GET / HTTP/1.1\r\nhost: ");
    assert_eq!(to_end(slow), "");
    let after = exchange(&server, b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(after.starts_with("HTTP/1.1 200"), "{after}");
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let limits = Limits { stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let idle = send(&server, b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let gauge = &server.counters.connections[0];
    until(|| gauge.get() == 1);
    until(|| gauge.get() == 0);
    drop(idle);
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let server = Server::start(Limits { max_header_bytes: 8192, ..Limits::default() });
    let mut request = b"GET / HTTP/1.1\r\nhost: localhost\r\nlong: ".to_vec();
    request.extend_from_slice(&[b'a'; 20_000]);
    request.extend_from_slice(b"\r\n\r\n");
    let answer = exchange(&server, &request);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    // Also where it would fit the buffer: the limit is the limit.
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nlong: {}\r\n\r\n", "a".repeat(8190));
    let answer = exchange(&server, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("--max-header-bytes"), "{answer}");
}

#[test]
fn one_connection_too_many_is_closed_at_once_and_counted() {
    let server = Server::start(Limits { max_connections: 2, ..Limits::default() });
    let refused = || server.counters.refused[0].get();
    let mut open = Vec::new();
    while refused() == 0 && open.len() < 50 {
        open.push(send(&server, b""));
        let seen = || server.counters.connections[0].get() + i64::try_from(refused()).unwrap();
        until(|| seen() >= i64::try_from(open.len()).unwrap());
    }
    assert_eq!((refused(), open.len()), (1, 3));
    // The other listener has room of its own.
    let other = TcpStream::connect(server.grpc).unwrap();
    until(|| server.counters.connections[1].get() == 1);
    drop(other);
}

#[test]
fn who_is_refused_while_still_sending_gets_to_read_why() {
    let server = Server::start(Limits::default());
    let mut stream = send(&server, b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n");
    // A client that writes everything first; the server has answered long before the end.
    stream.write_all(&vec![b'a'; 8_000_000]).unwrap();
    let answer = to_end(stream);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn a_chunked_request_is_followed_by_the_next_on_its_connection() {
    let server = Server::start(Limits::default());
    let chunked =
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let last = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = exchange(&server, &[&chunked[..], chunked, last].concat());
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
}

#[test]
fn a_request_that_comes_while_an_answer_is_read_slowly_does_not_cut_it_off() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let mut stream = send(
        &server,
        b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    let (mut first, began) = (vec![0; 1 << 20], Instant::now());
    stream.read_exact(&mut first).unwrap();
    // A reader that takes longer than a head may take: it goes on when that is over.
    until(|| began.elapsed() > Duration::from_secs(1));
    let rest = to_end(stream);
    assert!(first.len() + rest.len() > 64 << 20 && rest.ends_with("\r\n\r\n"), "{}", rest.len());
}

#[test]
fn a_body_of_which_a_byte_comes_now_and_then_is_cut_off() {
    let limits = Limits { stall_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start(limits);
    let mut stream = send(&server, b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000\r\n\r\n");
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let cut_off = std::iter::from_fn(|| {
        let mut byte = [0];
        let read = stream.read(&mut byte);
        let waits = read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        (waits && stream.write_all(b"a").is_ok()).then_some(Instant::now())
    })
    .all(|now| now < end);
    assert!(cut_off, "the connection was never cut");
}

#[test]
fn bodies_that_wait_for_their_answer_fill_the_memory_for_them_and_one_that_fits_a_share_is_taken() {
    // Each of two cores has room for one largest body, however small the whole is.
    let limits =
        Limits { max_buffered_bytes: 1, max_body_bytes: 1 << 20, max_message_bytes: 1, ..Limits::default() };
    let server = Server::start(limits);
    let post = |path: &str| {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(&vec![b'a'; 1_000_000]);
        request
    };
    let answer = exchange(&server, &post("/"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", answer.len());
    let held: Vec<TcpStream> = (0..6).map(|_| send(&server, &post("/keep"))).collect();
    let refused = held.into_iter().map(to_end).filter(|answer| answer.contains("fill the memory")).count();
    assert!(refused >= 4, "{refused} of 6 were refused where at most one a core fits");
}

#[test]
fn answers_that_nobody_reads_fill_the_memory_for_them_and_the_next_is_refused_until_they_are_read() {
    // Each of two cores has room for one such answer: the one that is alone there.
    let server = Server::start(Limits { max_buffered_bytes: 2 << 20, ..Limits::default() });
    let ask = |_| send(&server, b"GET /big HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut unread: Vec<TcpStream> = (0..6).map(ask).collect();
    let mut begins = |stream: &mut TcpStream| {
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        line
    };
    let refused = unread.iter_mut().map(&mut begins).filter(|line| line == b"HTTP/1.1 503").count();
    assert!(refused >= 4, "{refused} of 6 were refused where one a core fits");
    let read: Vec<String> = unread.into_iter().map(to_end).collect();
    let told = |answer: &&String| {
        answer.contains("--max-buffered-bytes") && answer.to_ascii_lowercase().contains("retry-after: 1")
    };
    assert_eq!(read.iter().filter(told).count(), refused);
    let mut again = ask(0);
    assert_eq!(&begins(&mut again), b"HTTP/1.1 200");
}

#[test]
fn answers_that_wait_for_their_turn_count_like_those_that_nobody_reads() {
    let server = Server::start(Limits { max_buffered_bytes: 2 << 20, ..Limits::default() });
    let held = b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let big = b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(9);
    let last = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let stream = send(&server, &[&held[..], &big, last].concat());
    wait_for(&server.echo.held);
    server.echo.release.notify_one();
    let answers = to_end(stream);
    let count = |status| answers.matches(status).count();
    assert_eq!((count("HTTP/1.1 200"), count("HTTP/1.1 503")), (3, 8));
}

#[test]
fn requests_that_were_read_behind_another_are_answered_while_draining() {
    let mut server = Server::start(Limits::default());
    let three = b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\nGET /a HTTP/1.1\r\nhost: localhost\r\n\r\nGET /b HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let whole = send(&server, three);
    wait_for(&server.echo.held);
    let mut cut = send(&server, &three[..three.len() - 10]);
    wait_for(&server.echo.held);
    server.drain.begin(Instant::now());
    server.echo.release.notify_one();
    server.echo.release.notify_one();
    assert_eq!(to_end(whole).matches("HTTP/1.1 200").count(), 3);
    // The rest of the third comes when the first two are answered already.
    cut.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut seen = Vec::new();
    while String::from_utf8_lossy(&seen).matches("HTTP/1.1 200").count() < 2 {
        let mut buffer = [0; 1024];
        let some = cut.read(&mut buffer).unwrap();
        assert_ne!(some, 0, "closed with half a request read");
        seen.extend_from_slice(&buffer[..some]);
    }
    cut.write_all(&three[three.len() - 10..]).unwrap();
    let answer = to_end(cut);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.join();
}

#[test]
fn a_panic_of_a_handler_is_a_500_and_the_connection_goes_on() {
    let server = Server::start(Limits::default());
    let two = b"GET /panic HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = exchange(&server, two);
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.counters.panics.get(), 1);
}

#[test]
fn a_caller_who_disconnects_cancels_what_it_asked_for() {
    let server = Server::start(Limits::default());
    let stream = send(&server, b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n");
    until(|| server.counters.connections[0].get() == 1);
    drop(stream);
    until(|| server.echo.dropped.load(SeqCst) == 1);
}

#[test]
fn draining_answers_what_was_accepted_and_closes_what_is_idle() {
    let mut server = Server::start(Limits::default());
    let idle = send(&server, b"");
    let busy = send(&server, b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let half = send(&server, b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-le");
    until(|| server.counters.connections[0].get() == 3);
    wait_for(&server.echo.held);
    server.drain.begin(Instant::now());
    assert_eq!(to_end(idle), "");
    let mut half = half;
    half.write_all(b"ngth: 2\r\n\r\nok").unwrap();
    let answer = to_end(half);
    assert!(answer.contains("connection: close") && answer.ends_with("\r\n\r\nok"), "{answer}");
    server.echo.release.notify_one();
    let answer = to_end(busy);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.join();
}

fn wait_for(notify: &tokio::sync::Notify) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(notify.notified());
}

/// Waits on a state; the bound only ends a failing test.
pub(crate) fn until(mut state: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !state() {
        assert!(Instant::now() < end, "the state was not reached");
        std::thread::yield_now();
    }
}
