//! Calls that take many messages: order, back-pressure, ends, cancellation, drain, driven by the `h2` client.
use crate::server::Server;
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request};
use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use xebec_net::limits::Limits;

/// Messages of one call that are begun and not answered, at most.
const MOST_AT_ONCE: usize = 64;

async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// One call, both ways open.
struct Talk {
    up: SendStream<Bytes>,
    down: RecvStream,
    left: BytesMut,
}

impl Talk {
    async fn open(client: &mut SendRequest<Bytes>, headers: &[(&str, &str)]) -> Self {
        let request = Request::post("http://localhost/echo/many").header("content-type", "application/grpc");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (response, up) = client.send_request(request.body(()).unwrap(), false).unwrap();
        Self { up, down: response.await.unwrap().into_body(), left: BytesMut::new() }
    }

    fn say(&mut self, message: &[u8]) {
        self.up.send_data(framed(message), false).unwrap();
    }

    /// The next answer, or nothing at the end.
    async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(([_, length @ ..], rest)) = self.left.split_first_chunk::<5>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    return Some(self.left.split_to(5 + length)[5..].to_vec());
                }
            }
            let piece = self.down.data().await?.unwrap();
            self.down.flow_control().release_capacity(piece.len()).unwrap();
            self.left.extend_from_slice(&piece);
        }
    }

    /// The status and its text, once there are no more answers.
    async fn end(mut self) -> (String, String) {
        assert_eq!(self.hear().await, None);
        let trailers: HeaderMap = self.down.trailers().await.unwrap().unwrap();
        let get = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        (get("grpc-status"), get("grpc-message"))
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn messages_run_side_by_side_and_are_answered_in_their_order() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let mut talk = Talk::open(&mut client, &[]).await;
    for message in [&b"h1"[..], b"2", b"h3", b"4"] {
        talk.say(message);
    }
    until("all four are begun", || server.echo.begun.load(SeqCst) == 4).await;
    server.echo.release.notify_waiters();
    for message in [&b"h1"[..], b"2", b"h3", b"4"] {
        assert_eq!(talk.hear().await.as_deref(), Some(message));
    }
    talk.say(b"");
    assert_eq!(talk.hear().await.as_deref(), Some(&b""[..]));
    talk.up.send_data(framed(b"last"), true).unwrap();
    assert_eq!(talk.hear().await.as_deref(), Some(&b"last"[..]));
    assert_eq!(talk.end().await, ("0".into(), String::new()));
}

#[tokio::test]
async fn garbage_behind_a_thousand_messages_ends_the_call_behind_a_thousand_answers() {
    let server = Server::start(Limits { max_message_bytes: 10, ..Limits::default() });
    let mut client = connect(&server).await;
    let ends: [(Bytes, &str, &str); 5] = [
        (framed(b"!"), "3", "garbage"),
        (Bytes::from_static(&[7, 0, 0, 0, 0]), "3", "the message's compression flag is neither 0 nor 1"),
        (
            Bytes::from_static(&[1, 0, 0, 0, 1, 0]),
            "3",
            "the message is compressed but grpc-encoding is not set",
        ),
        (
            Bytes::from_static(&[0, 0, 0, 0, 11]),
            "8",
            "request message is larger than the limit of 10 bytes; the operator can raise it with --grpc-max-message-size",
        ),
        (framed(b"p"), "13", "internal error"),
    ];
    for (garbage, code, words) in ends {
        let mut talk = Talk::open(&mut client, &[]).await;
        for number in 0..1000 {
            talk.say(number.to_string().as_bytes());
        }
        talk.up.send_data(garbage, false).unwrap();
        // Nothing behind the end is begun.
        let begun = server.echo.begun.load(SeqCst);
        for number in 0..1000 {
            assert_eq!(talk.hear().await, Some(number.to_string().into_bytes()));
        }
        assert_eq!(talk.end().await, (code.into(), words.into()));
        assert!(server.echo.begun.load(SeqCst) - begun <= 1001);
    }
    assert_eq!(server.counters.panics.get(), 1);
}

#[tokio::test]
async fn a_call_that_ends_inside_a_message_says_so_and_one_without_a_message_is_no_fault() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    for (bytes, code) in [(&[][..], "0"), (&[0, 0], "3"), (&[0, 0, 0, 0, 2, 1], "3")] {
        let mut talk = Talk::open(&mut client, &[]).await;
        talk.up.send_data(Bytes::from_static(bytes), true).unwrap();
        assert_eq!(talk.end().await.0, code, "{bytes:?}");
    }
}

#[tokio::test]
async fn with_many_in_flight_no_more_are_begun_and_the_callers_window_closes() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let mut talk = Talk::open(&mut client, &[]).await;
    let message = [b'h'; 64 << 10];
    let mut sent = 0;
    // Sent as long as the server makes room for it.
    while sent < 1000 {
        talk.up.reserve_capacity(message.len() + 5);
        let room = std::future::poll_fn(|cx| talk.up.poll_capacity(cx));
        let Ok(room) = tokio::time::timeout(Duration::from_millis(300), room).await else {
            if server.echo.begun.load(SeqCst) < MOST_AT_ONCE {
                continue;
            }
            break;
        };
        if room.unwrap().unwrap() >= message.len() + 5 {
            talk.say(&message);
            sent += 1;
        }
    }
    assert_eq!(server.echo.begun.load(SeqCst), MOST_AT_ONCE);
    // Those that were begun and what fits into the window of the stream.
    assert!((MOST_AT_ONCE..MOST_AT_ONCE + 40).contains(&sent), "{sent}");
    // A call beside it on the same connection is answered.
    let mut beside = Talk::open(&mut client, &[]).await;
    beside.up.send_data(framed(b"x"), true).unwrap();
    assert_eq!(beside.hear().await.as_deref(), Some(&b"x"[..]));
    for _ in 0..sent {
        server.echo.release.notify_one();
        assert_eq!(talk.hear().await.as_deref(), Some(&message[..]));
    }
}

#[tokio::test]
async fn a_reset_drops_what_runs_and_gives_back_what_was_not_read() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    // Each leaves almost all of its stream's window unread; together, more than the connection's.
    for round in 1..=12 {
        let mut talk = Talk::open(&mut client, &[]).await;
        (0..MOST_AT_ONCE).for_each(|_| talk.say(b"h"));
        let begun = round * MOST_AT_ONCE;
        until("all are begun", || server.echo.begun.load(SeqCst) == begun).await;
        talk.up.reserve_capacity(1 << 20);
        let room = std::future::poll_fn(|cx| talk.up.poll_capacity(cx)).await.unwrap().unwrap();
        talk.up.send_data(vec![0; room].into(), false).unwrap();
        talk.up.send_reset(h2::Reason::CANCEL);
        until("all are dropped", || server.echo.dropped.load(SeqCst) == begun).await;
    }
    let mut talk = Talk::open(&mut client, &[]).await;
    talk.say(&[b'x'; 1 << 20]);
    assert_eq!(talk.hear().await.map(|answer| answer.len()), Some(1 << 20));
}

#[tokio::test]
async fn what_waits_in_a_stream_fills_the_memory_for_requests_and_ends_it_behind_its_answers() {
    // Each of the two cores has a share of half a MiB.
    let server = Server::start(Limits { max_buffered_bytes: 1 << 20, ..Limits::default() });
    let mut client = connect(&server).await;
    let mut talk = Talk::open(&mut client, &[]).await;
    let message = [b'h'; 60 << 10];
    for sent in 1..=8 {
        talk.say(&message);
        until("it is begun", || server.echo.begun.load(SeqCst) == sent).await;
    }
    talk.say(&message);
    // A call beside it is refused as well, until the stream has let go.
    let mut beside = Talk::open(&mut client, &[]).await;
    beside.say(&message);
    let full = "the requests being read and waiting fill the memory for them; try again";
    assert_eq!(beside.end().await, ("14".into(), full.into()));
    for _ in 0..8 {
        server.echo.release.notify_one();
        assert_eq!(talk.hear().await.map(|answer| answer.len()), Some(message.len()));
    }
    assert_eq!(talk.end().await, ("14".into(), full.into()));
    let mut after = Talk::open(&mut client, &[]).await;
    after.up.send_data(framed(&[b'x'; 60 << 10]), true).unwrap();
    assert_eq!(after.hear().await.map(|answer| answer.len()), Some(message.len()));
    assert_eq!(after.end().await.0, "0");
}

#[tokio::test]
async fn a_deadline_ends_a_call_of_many_as_well() {
    let server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let mut talk = Talk::open(&mut client, &[("grpc-timeout", "50m")]).await;
    talk.say(b"h");
    assert_eq!(talk.end().await.0, "4");
    assert_eq!(server.echo.dropped.load(SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_rests_is_ended_in_its_time_and_one_that_waits_for_an_answer_is_not() {
    let idle_timeout = Duration::from_millis(300);
    let server = Server::start(Limits { idle_timeout, ..Limits::default() });
    let mut client = connect(&server).await;
    let (mut busy, idle) = (Talk::open(&mut client, &[]).await, Talk::open(&mut client, &[]).await);
    busy.say(b"h");
    assert_eq!(idle.end().await, ("14".into(), "the stream was idle for 0.3 s".into()));
    server.echo.release.notify_one();
    assert_eq!(busy.hear().await.as_deref(), Some(&b"h"[..]));
    assert_eq!(busy.end().await.0, "14");
}

#[tokio::test]
async fn a_message_that_stands_still_ends_its_call_of_many() {
    let server = Server::start(Limits { stall_timeout: Duration::from_millis(300), ..Limits::default() });
    let mut client = connect(&server).await;
    let mut talk = Talk::open(&mut client, &[]).await;
    talk.say(b"x");
    talk.up.send_data(framed(b"half").slice(..7), false).unwrap();
    assert_eq!(talk.hear().await.as_deref(), Some(&b"x"[..]));
    assert_eq!(talk.end().await, ("1".into(), "the message stood still for 0.3 s".into()));
}

#[tokio::test]
async fn a_drain_answers_what_was_read_and_ends_streams_that_rest() {
    let mut server = Server::start(Limits::default());
    let mut client = connect(&server).await;
    let (mut busy, idle) = (Talk::open(&mut client, &[]).await, Talk::open(&mut client, &[]).await);
    busy.say(b"h");
    until("it is begun", || server.echo.begun.load(SeqCst) == 1).await;
    server.drain.begin(Instant::now());
    let draining = "server is draining and takes no new requests";
    assert_eq!(idle.end().await, ("14".into(), draining.into()));
    busy.say(b"more");
    until("it is begun", || server.echo.begun.load(SeqCst) == 2).await;
    server.echo.release.notify_one();
    assert_eq!(busy.hear().await.as_deref(), Some(&b"h"[..]));
    assert_eq!(busy.hear().await.as_deref(), Some(&b"more"[..]));
    assert_eq!(busy.end().await, ("14".into(), draining.into()));
    drop(client);
    server.join();
}
