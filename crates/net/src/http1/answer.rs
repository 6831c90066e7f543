//! Answers of HTTP/1.1, written behind each other.
use crate::outbox::Outbox;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

/// What is said about an answer beside itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    /// The moment, as a header has it.
    pub(crate) date: &'a [u8],
    /// No other answer follows on this connection.
    pub(crate) closes: bool,
    /// The caller is of HTTP/1.0 and has to be told that others may.
    pub(crate) keeps: bool,
    /// The request was HEAD: the body is not sent, but its length is told.
    pub(crate) head_only: bool,
}

/// Adds an answer to what is to go.
pub(crate) fn put(out: &mut Outbox, answer: &Response<Bytes>, manner: Manner<'_>) {
    let (status, body) = (answer.status(), answer.body());
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    put_head(out.tail(), status, answer.headers(), (!bodiless).then_some(body.len()), manner);
    if !bodiless && !manner.head_only {
        out.push(body);
    }
}

fn put_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<usize>,
    manner: Manner<'_>,
) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = status.canonical_reason().unwrap_or("Unknown");
        for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    for (name, value) in headers {
        // How long the body is and what becomes of the connection is ours to say.
        if name != header::CONTENT_LENGTH && name != header::CONNECTION && name != header::TRANSFER_ENCODING {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match (manner.closes, manner.keeps) {
        (true, _) => out.extend_from_slice(b"connection: close\r\n"),
        (false, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, false) => {}
    }
    for part in [b"date: ", manner.date, b"\r\n\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Manner<'static> = Manner { date: b"now", closes: false, keeps: false, head_only: false };

    fn unsent(outbox: &Outbox) -> String {
        outbox.with_unsent(|slices| {
            let all = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
            String::from_utf8(all).unwrap()
        })
    }

    #[test]
    fn small_answers_leave_together_and_say_their_length_and_the_date() {
        let mut outbox = Outbox::default();
        let answer =
            Response::builder().header("x", "y").header("content-length", "9").body("hello".into()).unwrap();
        put(&mut outbox, &answer, PLAIN);
        put(&mut outbox, &answer, Manner { head_only: true, keeps: true, ..PLAIN });
        let none = Response::builder().status(204).body("never".into()).unwrap();
        put(&mut outbox, &none, Manner { closes: true, ..PLAIN });
        let want = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\ndate: now\r\n\r\nhello\
                    HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\nconnection: keep-alive\r\ndate: now\r\n\r\n\
                    HTTP/1.1 204 No Content\r\nconnection: close\r\ndate: now\r\n\r\n";
        assert_eq!(unsent(&outbox), want);
        outbox.advance(10);
        assert_eq!(unsent(&outbox), want[10..]);
        outbox.advance(want.len() - 10);
        assert!(outbox.is_empty());
    }
}
