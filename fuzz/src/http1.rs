//! What comes over a connection of HTTP/1.1: read by us beside hyper, and then answered.
use crate::{
    memory::bounded,
    rest,
    service::{self, Listener},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{cell::RefCell, convert::Infallible, iter::once};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use xebec_net::fuzzing::{Understood, WireEnd};

/// A request as its reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Read {
    fn new<B>(request: &Request<B>, body: Vec<u8>) -> Self {
        let headers = request.headers().iter();
        Self {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(),
            body,
        }
    }
}

/// The first byte chooses where the bytes are cut, the rest is what comes.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Some((size, came)) = bytes.split_first() else { return false };
    let requests = service::with(|listener| {
        let (requests, end) = bounded(came.len(), || listener.desk.requests(once(came), true));
        let cuts = came.chunks(usize::from(*size).max(1));
        let (cut, cut_end) = bounded(came.len(), || listener.desk.requests(cuts, false));
        let (read, cut) = (read(&requests), self::read(&cut));
        assert_eq!((&read, end), (&cut, cut_end), "cut every {size} bytes: {}", came.escape_ascii());
        if let WireEnd::Last { taken } | WireEnd::Waits { taken } = end {
            assert!(taken <= came.len(), "more was taken than came");
        }
        let hypers = hypers(came);
        assert!(hypers.starts_with(&read), "{}\nours {read:?}\nhyper {hypers:?}", came.escape_ascii());
        requests
    });
    let taken = !requests.is_empty();
    for Understood { head, body } in requests {
        rest::call(head, body);
    }
    taken
}

fn read(requests: &[Understood]) -> Vec<Read> {
    let read = |understood: &Understood| {
        let request = Request::from_parts(understood.head.clone(), ());
        Read::new(&request, understood.body.to_vec())
    };
    requests.iter().map(read).collect()
}

/// The requests that our reader takes, up to the first that it refuses or the last that the caller wants answered.
pub fn ours(bytes: &[u8]) -> Vec<Read> {
    service::with(|Listener { desk, .. }| read(&desk.requests(once(bytes), false).0))
}

/// The same by hyper.
pub fn hypers(bytes: &[u8]) -> Vec<Read> {
    let read = RefCell::new(Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(bytes.len().max(1 << 20));
        client.write_all(bytes).await.expect("room for all");
        client.shutdown().await.expect("an end");
        let answer = service_fn(async |request: Request<Incoming>| {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                read.borrow_mut().push(Read::new(&Request::from_parts(parts, ()), body.to_bytes().to_vec()));
            }
            Ok::<_, Infallible>(hyper::Response::new(Full::<Bytes>::default()))
        });
        let connection =
            http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), answer);
        // That it ends in an error is one of the outcomes.
        let (_, _) = tokio::join!(connection, async { client.read_to_end(&mut Vec::new()).await });
    });
    read.into_inner()
}
