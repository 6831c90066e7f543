//! Requests for other hosts, and of their web pages.
use crate::{http::exchange, server::Server};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use xebec_net::limits::Limits;

#[test]
fn a_request_for_another_host_or_from_its_pages_never_reaches_the_service_and_the_connection_goes_on() {
    let server = Server::start(Limits::default());
    for (headers, status, words) in [
        ("host: evil.example", "421 Misdirected Request", "for the host 'evil.example'"),
        ("host: evil.example:8000", "421 Misdirected Request", "--allowed-hosts"),
        (
            "host: localhost\r\norigin: http://evil.example",
            "403 Forbidden",
            "web page of 'http://evil.example'",
        ),
        ("host: localhost\r\norigin: null", "403 Forbidden", "web page of 'null'"),
        ("host: localhost\r\norigin: http://a\"},{\"", "403 Forbidden", "web page of 'http://a?????'"),
    ] {
        let both = format!(
            "POST /panic HTTP/1.1\r\n{headers}\r\ncontent-length: 2\r\n\r\nok\
             POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
        );
        let answer = exchange(&server, both.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(words), "{answer}");
        assert!(answer.contains("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    let ping = exchange(&server, b"OPTIONS * HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert!(ping.starts_with("HTTP/1.1 421"), "{ping}");
    let same =
        "GET / HTTP/1.1\r\nhost: localhost:1\r\norigin: http://localhost:2\r\nconnection: close\r\n\r\n";
    assert!(exchange(&server, same.as_bytes()).starts_with("HTTP/1.1 200"));
    let counters = &server.counters;
    assert_eq!((counters.foreign.each_ref().map(|count| count.get()), counters.panics.get()), ([6, 0, 0], 0));
}

#[tokio::test]
async fn a_call_for_another_host_or_from_its_pages_is_permission_denied() {
    let server = Server::start(Limits::default());
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // A method that takes one message, and one that takes many.
    for path in ["/echo/x", "/echo/many"] {
        for (host, header, words) in [
            ("evil.example", None, "evil.example"),
            ("localhost", Some(("host", "evil.example")), "evil.example"),
            ("localhost", Some(("origin", "null")), "'null'"),
        ] {
            let mut request =
                Request::post(format!("http://{host}{path}")).header("content-type", "application/grpc");
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let head: HeaderMap = answer.await.unwrap().into_parts().0.headers;
            let message = head["grpc-message"].to_str().unwrap();
            assert!(head["grpc-status"] == "7" && message.contains(words), "{head:?}");
        }
    }
    assert_eq!(server.counters.foreign[1].get(), 6);
}
