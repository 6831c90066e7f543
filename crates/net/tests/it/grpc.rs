//! gRPC: statuses, limits, cancellation, drain, driven by the `h2` client.
use crate::server::Server;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use std::{
    io::{Read as _, Write as _},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use xebec_net::limits::Limits;

async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn start(
    client: &mut SendRequest<Bytes>,
    path: &str,
    body: &[u8],
    headers: &[(&str, &str)],
) -> ResponseFuture {
    let mut request =
        Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
    response
}

/// The message's bytes and the status with its text.
async fn finish(response: ResponseFuture) -> (Vec<u8>, String, String) {
    let response = response.await.unwrap();
    let (head, mut body) = response.into_parts();
    let mut data = Vec::new();
    while let Some(piece) = body.data().await {
        data.extend_from_slice(&piece.unwrap());
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let get = |map: &HeaderMap, name: &str| map.get(name).map(|value| value.to_str().unwrap().to_owned());
    let status = get(&head.headers, "grpc-status").or(get(&trailers, "grpc-status")).unwrap();
    let message = get(&head.headers, "grpc-message").or(get(&trailers, "grpc-message")).unwrap_or_default();
    (data, status, message)
}

async fn call(
    client: &mut SendRequest<Bytes>,
    path: &str,
    body: &[u8],
    headers: &[(&str, &str)],
) -> (Vec<u8>, String, String) {
    let response = start(client, path, body, headers);
    finish(response).await
}

#[tokio::test]
async fn a_message_is_answered_with_a_message_and_status_zero() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let (data, status, _) = call(&mut client, "/echo/x", &[0, 0, 0, 0, 1, 9], &[]).await;
    assert_eq!((data.as_slice(), status.as_str()), (&[0, 0, 0, 0, 2, 8, 1][..], "0"));
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_with_its_name_percent_encoded() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let (_, status, message) = call(&mut client, "/other/x", &[0, 0, 0, 0, 0], &[]).await;
    assert_eq!((status.as_str(), message.as_str()), ("12", "/other/x is not offered: 100 %25"));
}

#[tokio::test]
async fn messages_that_are_cut_too_long_too_many_or_wrongly_packed_are_refused() {
    let server = Server::start(Limits { max_message_bytes: 10, ..Limits::default() });
    let mut client = connect(&server).await;
    type Case<'a> = (&'a [u8], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[], "3"),
        (&[0, 0, 0], &[], "3"),
        (&[0, 0, 0, 0, 5, 1], &[], "3"),
        (&[0, 0, 0, 0, 11], &[], "8"),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], "12"),
        (&[1, 0, 0, 0, 1, 0], &[], "3"),
        (&[1, 0, 0, 0, 1, 0], &[("grpc-encoding", "gzip")], "3"),
        (&[0, 0, 0, 0, 1, 0], &[("grpc-encoding", "snappy")], "12"),
    ];
    for (body, headers, wanted) in cases {
        let (_, status, message) = call(&mut client, "/echo/x", body, headers).await;
        assert_eq!(status, *wanted, "{body:?} {headers:?}: {message}");
        assert!(!message.is_empty());
    }
    let (_, status, _) = call(&mut client, "/echo/x", &[0, 0, 0, 0, 1, 9], &[]).await;
    assert_eq!(status, "0");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_other_streams_go_on() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let (_, status, _) = call(&mut client, "/echo/panic", &[0, 0, 0, 0, 0], &[]).await;
    assert_eq!((status.as_str(), server.counters.panics.get()), ("13", 1));
    let (_, status, _) = call(&mut client, "/echo/x", &[0, 0, 0, 0, 0], &[]).await;
    assert_eq!(status, "0");
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_call_on_the_server_too() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let (_, status, _) = call(&mut client, "/echo/hold", &[0, 0, 0, 0, 0], &[("grpc-timeout", "10m")]).await;
    assert_eq!((status.as_str(), server.echo.dropped.load(SeqCst)), ("4", 1));
}

#[tokio::test]
async fn a_deadline_that_passes_ends_an_answer_of_many_messages() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let (data, status, _) =
        call(&mut client, "/echo/watch", &[0, 0, 0, 0, 0], &[("grpc-timeout", "300m")]).await;
    assert_eq!((data.as_slice(), status.as_str()), (&[0, 0, 0, 0, 2, 8, 1][..], "4"));
}

/// A frame of HTTP/2 on stream 1 or, of what is about the connection, on none.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = u8::from(kind < 2);
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Opens a connection with what a client has to say first.
fn raw(server: &Server) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(server.grpc).unwrap();
    // A bound on a failing test.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, &[])).unwrap();
    stream
}

/// The kinds and flags of the frames that come until the server closes.
fn frames_to_end(mut stream: std::net::TcpStream) -> Vec<(u8, u8)> {
    let mut bytes = Vec::new();
    // A reset is as good as an end.
    let closed = stream.read_to_end(&mut bytes).map_err(|error| error.kind());
    assert_ne!(closed, Err(std::io::ErrorKind::WouldBlock), "the server never closed");
    let (mut frames, mut rest) = (Vec::new(), bytes.as_slice());
    while let [long, middle, short, kind, flags, _, _, _, _, behind @ ..] = rest {
        frames.push((*kind, *flags));
        let length = u32::from_be_bytes([0, *long, *middle, *short]);
        rest = behind.get(usize::try_from(length).unwrap()..).unwrap_or_default();
    }
    frames
}

#[test]
fn headers_of_a_call_that_trickle_in_are_cut_off() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let mut stream = raw(&server);
    stream.write_all(&frame(1, 4, &[0x83; 20])[..12]).unwrap();
    frames_to_end(stream);
}

#[test]
fn a_connection_without_calls_is_closed_although_something_comes_now_and_then() {
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let mut stream = raw(&server);
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (end, mut buffer) = (Instant::now() + Duration::from_secs(20), [0; 1024]);
    while stream.write_all(&frame(6, 0, &[0; 8])).is_ok() && stream.read(&mut buffer).unwrap_or(1) > 0 {
        assert!(Instant::now() < end, "pings kept it open");
    }
}

/// A call whose answer does not come, of a client that then says nothing.
fn hold_in_silence(server: &Server) -> std::net::TcpStream {
    let mut stream = raw(server);
    // POST, http, the path and the content type, as HPACK has them.
    let head = [&[0x83, 0x86, 0x04, 10][..], b"/echo/hold", &[0x0f, 0x10, 16], b"application/grpc"].concat();
    stream.write_all(&frame(1, 4, &head)).unwrap();
    stream.write_all(&frame(0, 1, &[0, 0, 0, 0, 0])).unwrap();
    stream
}

#[tokio::test]
async fn a_caller_that_is_not_there_any_more_is_asked_and_gives_its_place_back() {
    let short = Duration::from_millis(200);
    let limits = Limits { idle_timeout: short, stall_timeout: short, ..Limits::default() };
    let server = Server::start(limits);
    let silent = hold_in_silence(&server);
    server.echo.held.notified().await;
    // One that answers when it is asked waits as long as it wants.
    let mut client = connect(&server).await;
    let response = start(&mut client, "/echo/hold", &[0, 0, 0, 0, 0], &[]);
    server.echo.held.notified().await;
    let began = Instant::now();
    while server.echo.dropped.load(SeqCst) == 0 || began.elapsed() < 4 * short {
        assert!(began.elapsed() < Duration::from_secs(20), "the silent one kept its place");
        tokio::task::yield_now().await;
    }
    assert_eq!(server.echo.dropped.load(SeqCst), 1);
    let frames = tokio::task::spawn_blocking(move || frames_to_end(silent)).await.unwrap();
    assert!(frames.contains(&(6, 0)), "{frames:?}");
    let (_, status, _) = call_late(&mut client, &server, response).await;
    assert_eq!(status, "0");
}

#[tokio::test]
async fn a_reset_stream_cancels_its_call() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let response = start(&mut client, "/echo/hold", &[0, 0, 0, 0, 0], &[]);
    server.echo.held.notified().await;
    drop(response);
    while server.echo.dropped.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn draining_finishes_open_calls_and_then_closes_the_connection() {
    let mut server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let response = start(&mut client, "/echo/hold", &[0, 0, 0, 0, 0], &[]);
    server.echo.held.notified().await;
    server.drain.begin(Instant::now());
    let (_, status, _) = call_late(&mut client, &server, response).await;
    assert_eq!(status, "0");
    drop(client);
    tokio::task::spawn_blocking(move || server.join()).await.unwrap();
}

#[tokio::test]
async fn the_last_answer_of_a_drain_is_read_to_its_end_by_a_caller_that_goes_on_sending() {
    const PING: u8 = 6;
    const WINDOW: u8 = 8;
    let mut server = Server::start(Limits::default());
    // Room for little, so that most of the answer lies on the server's side when that is done with it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&server.grpc.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let text =
        |place: &[u8], text: &str| [place, &[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let head = [
        vec![0x83, 0x86],
        text(&[0x04], "/echo/hold-big"),
        text(&[0x01], "localhost"),
        text(&[0x0f, 0x10], "application/grpc"),
    ];
    let window = frame(WINDOW, 0, &[0, 0xff, 0, 0]);
    let call = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, &[0, 4, 0x7f, 255, 255, 255]),
        window.clone(),
        frame(1, 4, &head.concat()),
        frame(0, 1, &[0, 0, 0, 0, 0]),
    ];
    stream.write_all(&call.concat()).unwrap();
    server.echo.held.notified().await;
    server.drain.begin(Instant::now());
    let (mut bytes, mut data, mut kinds) = (Vec::new(), 0, Vec::new());
    let mut buffer = [0; 2048];
    loop {
        let some = stream.read(&mut buffer).expect("no reset");
        if some == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..some]);
        while let [long, middle, short, kind, flags, _, _, _, _, behind @ ..] = &bytes[..] {
            let length = usize::try_from(u32::from_be_bytes([0, *long, *middle, *short])).unwrap();
            let Some((payload, rest)) = behind.split_at_checked(length) else { break };
            match (*kind, *flags) {
                (0, _) => data += length,
                // The second goodbye: the server knows that this call is the last.
                (7, _) if kinds.contains(&(7, 0)) => server.echo.release.notify_one(),
                (PING, 0) => stream.write_all(&frame(PING, 1, payload)).unwrap(),
                _ => {}
            }
            kinds.push((*kind, *flags));
            bytes = rest.to_vec();
        }
        // What a caller that reads sends back now and then. The server may have read enough.
        let _ = stream.write_all(&window);
    }
    assert_eq!(data, (1 << 20) + 5);
    assert!(kinds.ends_with(&[(0, 0), (1, 5)]), "{kinds:?}");
    drop(stream);
    server.join();
}

async fn call_late(
    client: &mut SendRequest<Bytes>,
    server: &Server,
    response: ResponseFuture,
) -> (Vec<u8>, String, String) {
    // The server has said goodbye: new streams are refused by the client itself or by the server, not lost.
    server.echo.release.notify_one();
    let done = finish(response).await;
    let _ = client;
    done
}

#[tokio::test]
async fn what_is_not_grpc_is_told_so_in_http() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let get = Request::get("http://localhost/echo/x").body(()).unwrap();
    let (response, _) = client.send_request(get, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 405);
    let post =
        Request::post("http://localhost/echo/x").header("content-type", "text/plain").body(()).unwrap();
    let (response, _) = client.send_request(post, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 415);
}

#[tokio::test]
async fn a_message_that_stands_still_ends_its_stream_and_not_the_connection() {
    let limits = Limits { stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let mut client = connect(&server).await;
    let request =
        Request::post("http://localhost/echo/x").header("content-type", "application/grpc").body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false).unwrap();
    let (_, status, message) = finish(response).await;
    assert_eq!((status.as_str(), message.as_str()), ("1", "the message stood still for 0.2 s"));
    let (_, status, _) = call(&mut client, "/echo/x", &[0, 0, 0, 0, 1, 9], &[]).await;
    assert_eq!(status, "0");
}

#[tokio::test]
async fn an_answer_that_its_caller_makes_no_room_for_ends_its_stream() {
    let limits = Limits { stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (client, connection) = builder.initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let response = start(&mut client, "/echo/x", &[0, 0, 0, 0, 1, 9], &[]).await.unwrap();
    let reset = response.into_body().data().await.unwrap().unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn an_answer_of_which_its_caller_takes_a_byte_now_and_then_ends_its_stream() {
    let limits = Limits { stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start(limits);
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (client, connection) = builder.initial_window_size(1).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let response = start(&mut client, "/echo/big", &[0, 0, 0, 0, 1, 9], &[]).await.unwrap();
    let mut body = response.into_body();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..40 {
        match body.data().await.unwrap() {
            Ok(byte) => body.flow_control().release_capacity(byte.len()).unwrap(),
            Err(reset) => return assert_eq!(reset.reason(), Some(h2::Reason::CANCEL)),
        }
        pace.tick().await;
    }
    panic!("an answer went on ten times as long as it may stand still");
}

#[tokio::test]
async fn who_would_be_refused_in_any_case_is_refused_before_the_rest_of_the_message() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let request = Request::post("http://localhost/echo/peek")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    // A million bytes are announced, and three come.
    stream.send_data(Bytes::from_static(&[0, 0, 15, 66, 64, 1, 2, 3]), false).unwrap();
    let (_, status, message) = finish(response).await;
    assert_eq!((status.as_str(), message.as_str()), ("7", "not with 3 bytes"));
}
