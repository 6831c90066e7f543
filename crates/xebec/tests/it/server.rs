//! Servers that answer as a test says: HTTP/1.1 with threads, gRPC with h2.
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

/// What becomes of a request.
pub(crate) enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// These bytes, whatever they are.
    Raw(&'static str),
    /// These bytes, and the connection ends.
    Last(&'static str),
    /// The connection ends.
    Close,
    /// Nothing, ever.
    Silence,
}

/// A request as it came: method and path, heads in lower case, body.
pub(crate) struct Seen<'a> {
    pub(crate) line: &'a str,
    pub(crate) head: &'a str,
    pub(crate) body: &'a [u8],
    /// How many infer requests came before this one.
    pub(crate) nth: u64,
}

/// Starts a server of HTTP/1.1; it ends with the test's process.
pub(crate) fn http(reply: impl Fn(Seen<'_>) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (reply, count) = (Arc::new(reply), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (reply, count) = (Arc::clone(&reply), Arc::clone(&count));
            std::thread::spawn(move || connection(stream.unwrap(), &*reply, &count));
        }
    });
    address
}

/// A model that answers so many infer requests and then is gone, port and all.
pub(crate) fn mortal(requests: u64) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, gone, count) =
        (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let dead = Arc::clone(&gone);
    let reply = move |seen: Seen<'_>| match seen.nth {
        _ if seen.line.starts_with("GET") => {
            Reply::Answer(200, r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}"#.into())
        }
        nth if nth < requests => Reply::Answer(200, "{}".into()),
        _ => {
            // The listener wakes up for one more connection, and closes instead of taking it.
            dead.store(true, SeqCst);
            drop(TcpStream::connect(address));
            Reply::Close
        }
    };
    let (reply, over) = (Arc::new(reply), Arc::clone(&gone));
    std::thread::spawn(move || {
        for stream in listener.incoming().take_while(|_| !over.load(SeqCst)) {
            let (reply, count) = (Arc::clone(&reply), Arc::clone(&count));
            std::thread::spawn(move || connection(stream.unwrap(), &*reply, &count));
        }
    });
    (address, gone)
}

fn connection(stream: TcpStream, reply: &dyn Fn(Seen<'_>) -> Reply, count: &AtomicU64) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut head) = (String::new(), String::new());
        // A client that has gone is the end of a connection.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let nth = if line.contains("/infer ") { count.fetch_add(1, SeqCst) } else { 0 };
        let answer = match reply(Seen { line: line.trim_end(), head: &head, body: &body, nth }) {
            Reply::Answer(status, body) => {
                format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
            Reply::Raw(bytes) => bytes.to_owned(),
            Reply::Last(bytes) => {
                // A client that has gone is the end all the same.
                let _ = reader.get_mut().write_all(bytes.as_bytes());
                return;
            }
            Reply::Close => return,
            Reply::Silence => continue,
        };
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Starts a server of gRPC: for a path and how many infer calls came before, the status and the message.
pub(crate) fn grpc(reply: impl Fn(&str, Bytes, u64) -> (u16, Vec<u8>) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (reply, count) = (Arc::new(reply), Arc::new(AtomicU64::new(0)));
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (reply, count) = (Arc::clone(&reply), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(call(request, respond, Arc::clone(&reply), Arc::clone(&count)));
                    }
                });
            }
        });
    });
    address
}

async fn call(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    reply: Arc<impl Fn(&str, Bytes, u64) -> (u16, Vec<u8>)>,
    count: Arc<AtomicU64>,
) {
    let (head, mut body) = request.into_parts();
    let mut whole = BytesMut::new();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    let path = head.uri.path();
    let nth = if path.ends_with("/ModelInfer") { count.fetch_add(1, SeqCst) } else { 0 };
    let (status, message) = reply(path, whole.split_off(5).freeze(), nth);
    let status = HeaderValue::from(status);
    if status != "0" {
        let said = HeaderValue::from_bytes(&message).unwrap();
        let response = Response::builder().header("grpc-status", status).header("grpc-message", said);
        let _ = respond.send_response(response.body(()).unwrap(), true);
        return;
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.extend_from_slice(&message);
    // A client that has gone is not this server's trouble.
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    let _ = stream.send_data(framed.freeze(), false);
    let _ =
        stream.send_trailers(HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status)]));
}
