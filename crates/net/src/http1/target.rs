//! The target of a request.
//!
//! # Source
//! RFC 9112, section 3.2. The form of CONNECT is refused: this is no proxy.
use super::refusal::Refusal;
use bytes::Bytes;
use http::{Method, Uri, uri::Scheme};

/// Reads a target: a path, `*` of OPTIONS, or a whole URL, whose host must then be the one that Host names.
///
/// # Errors
/// It is another form, or holds what no path holds.
pub(crate) fn read(target: &Bytes, method: &Method) -> Result<Uri, Refusal> {
    // What is no ASCII, and a fragment, are understood differently by different readers.
    if !target.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\')) {
        return Err(Refusal::Target);
    }
    let uri = Uri::from_maybe_shared(target.clone()).map_err(|_| Refusal::Target)?;
    let known = match target.first() {
        Some(b'/') => true,
        Some(b'*') if target.len() == 1 => method == Method::OPTIONS,
        _ => uri.scheme() == Some(&Scheme::HTTP) && method != Method::CONNECT,
    };
    if known { Ok(uri) } else { Err(Refusal::Target) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_paths_urls_of_http_and_the_star_of_options() {
        let read = |text: &'static str, method: Method| {
            read(&Bytes::from_static(text.as_bytes()), &method).map(|uri| uri.path().to_owned())
        };
        for (text, path) in
            [("/v2?x=1", "/v2"), ("//v2", "//v2"), ("http://A:80/v2", "/v2"), ("http://a", "/")]
        {
            assert_eq!(read(text, Method::GET), Ok(path.into()));
        }
        assert_eq!(read("*", Method::OPTIONS), Ok("*".into()));
        for (text, method) in [
            ("*", Method::GET),
            ("v2", Method::GET),
            ("localhost:80", Method::CONNECT),
            ("http://a/", Method::CONNECT),
            ("ftp://a/", Method::GET),
            ("https://a/", Method::GET),
            ("http:///v2", Method::GET),
            ("/v2#part", Method::GET),
            ("/v2\\..", Method::GET),
            ("/\u{e4}", Method::GET),
            ("", Method::GET),
        ] {
            assert_eq!(read(text, method.clone()), Err(Refusal::Target), "{method} {text}");
        }
    }
}
