//! The target of a request, and names of hosts.
//!
//! # Source
//! RFC 9112, section 3.2. The form of CONNECT is refused: this is no proxy.
use super::refusal::Refusal;
use bytes::Bytes;
use http::{Method, Uri, uri::Scheme};

/// A host and a port, as headers name them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authority<'a> {
    /// Of IPv6 without its brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

impl PartialEq for Authority<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
    }
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[address]` or `[address]:port`.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (address, port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                if host.is_empty() || !host.bytes().all(named) {
                    return None;
                }
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(Self { host, port })
    }
}

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
    fn hosts_are_names_and_addresses_and_nothing_else() {
        let parsed =
            |text: &'static str| Authority::parse(text.as_bytes()).map(|named| (named.host, named.port));
        assert_eq!(Authority::parse(b"A:1"), Authority::parse(b"a:1"));
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("LocalHost:8000", "LocalHost", Some(8000)),
            ("a-b_c.example:1", "a-b_c.example", Some(1)),
            ("127.0.0.1", "127.0.0.1", None),
            ("[::1]:8000", "::1", Some(8000)),
        ] {
            assert_eq!(parsed(text), Some((host, port)), "{text}");
        }
        for text in [
            "", ":80", "a:", "a:+1", "a:99999", "a b", "a,b", "a/b", "user@a", "[::1", "::1", "[a]",
            "[::1]80", "a%00", "a:1:2", "ä",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

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
