//! Heads of requests, out of their fields.
//!
//! # Source
//! RFC 9113, sections 8.2 and 8.3; RFC 3986, section 2, for what a path may hold.
use super::hpack::{Field, Name};
use http::{HeaderMap, HeaderValue, Method, header, uri};
use std::cell::Cell;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Without a query.
    pub(crate) path: String,
    /// The host that the request is for.
    pub(crate) authority: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
    /// Bytes that the body is said to have.
    pub(crate) length: Option<u64>,
    /// It was looked at once and is one that this server answers: a head that comes again need not be.
    pub(crate) accepted: Cell<bool>,
}

/// Why a list of fields is no head that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It breaks the rules of HTTP.
    Malformed,
    /// It is longer than may be.
    TooLarge,
}

/// A head on its way.
#[derive(Debug)]
pub(crate) struct Fields {
    method: Option<Method>,
    scheme: bool,
    authority: Option<HeaderValue>,
    path: Option<String>,
    headers: HeaderMap,
    /// Bytes that may still come, and headers.
    room: usize,
    more: usize,
    unfit: Option<Unfit>,
}

impl Fields {
    /// Takes as many bytes of fields, each counted as RFC 7541, section 4.1, says, and as many headers.
    pub(crate) fn new(most_bytes: usize, most_headers: usize) -> Self {
        Self {
            method: None,
            scheme: false,
            authority: None,
            path: None,
            headers: HeaderMap::new(),
            room: most_bytes,
            more: most_headers,
            unfit: None,
        }
    }

    /// Takes the next field. What is too much is not kept.
    pub(crate) fn take(&mut self, field: &Field) {
        if self.unfit.is_some() {
            return;
        }
        let taken = match self.room.checked_sub(field.bytes) {
            None => Err(Unfit::TooLarge),
            Some(room) => {
                self.room = room;
                self.place(field)
            }
        };
        self.unfit = taken.err();
    }

    fn place(&mut self, field: &Field) -> Result<(), Unfit> {
        let value = field.value.as_ref().ok_or(Unfit::Malformed)?;
        // What begins with a colon comes first, and once.
        let early =
            |unknown: bool| if unknown && self.headers.is_empty() { Ok(()) } else { Err(Unfit::Malformed) };
        match &field.name {
            Name::Method => {
                early(self.method.is_none())?;
                self.method = Some(Method::from_bytes(value.as_bytes()).map_err(|_| Unfit::Malformed)?);
            }
            Name::Scheme => {
                early(!self.scheme)?;
                uri::Scheme::try_from(value.as_bytes()).map_err(|_| Unfit::Malformed)?;
                self.scheme = true;
            }
            Name::Authority => {
                early(self.authority.is_none())?;
                uri::Authority::try_from(value.as_bytes()).map_err(|_| Unfit::Malformed)?;
                self.authority = Some(value.clone());
            }
            Name::Path => {
                early(self.path.is_none())?;
                self.path = Some(path(value)?);
            }
            Name::Plain(name) => {
                if is_of_the_connection(name, value) {
                    return Err(Unfit::Malformed);
                }
                self.more = self.more.checked_sub(1).ok_or(Unfit::TooLarge)?;
                self.headers.try_append(name, value.clone()).map_err(|_| Unfit::TooLarge)?;
            }
            Name::Wrong => return Err(Unfit::Malformed),
        }
        Ok(())
    }

    /// The head of a request.
    ///
    /// # Errors
    /// Something is missing, wrong, or too much.
    pub(crate) fn finish(self) -> Result<Head, Unfit> {
        let Self { method, scheme, authority, path, headers, unfit, .. } = self;
        if let Some(unfit) = unfit {
            return Err(unfit);
        }
        let method = method.ok_or(Unfit::Malformed)?;
        let path = match (path, scheme) {
            // This one names a host alone.
            (None, false) if method == Method::CONNECT => String::new(),
            (Some(path), true) if method != Method::CONNECT => path,
            _ => return Err(Unfit::Malformed),
        };
        let length = length(&headers)?;
        Ok(Head { method, path, authority, headers, length, accepted: Cell::new(false) })
    }

    /// Whether these may stand behind a body.
    pub(crate) fn are_trailers(&self) -> bool {
        self.unfit.is_none()
            && self.method.is_none()
            && self.path.is_none()
            && self.authority.is_none()
            && !self.scheme
    }
}

fn path(value: &HeaderValue) -> Result<String, Unfit> {
    // A fragment, blanks and what else no URI has are understood differently by different readers.
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(byte);
    let text =
        value.to_str().ok().filter(|text| text.as_bytes().iter().all(plain)).ok_or(Unfit::Malformed)?;
    let path = text.split_once('?').map_or(text, |(path, _)| path);
    if path.starts_with('/') || text == "*" { Ok(path.to_owned()) } else { Err(Unfit::Malformed) }
}

/// Headers that speak of one connection of HTTP/1.1 have no meaning here.
fn is_of_the_connection(name: &header::HeaderName, value: &HeaderValue) -> bool {
    match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => value != "trailers",
        _ => false,
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Unfit> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let one = digits.and_then(|digits| digits.parse().ok()).ok_or(Unfit::Malformed)?;
        if length.is_some_and(|length: u64| length != one) {
            return Err(Unfit::Malformed);
        }
        length = Some(one);
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::{super::hpack, *};

    fn read(fields: &[(&str, &str)], most_bytes: usize) -> Result<Head, Unfit> {
        let mut block = Vec::new();
        for (name, value) in fields {
            hpack::put(&mut block, name, value.as_bytes());
        }
        let mut out = Fields::new(most_bytes, 5);
        hpack::Decoder::new().decode(&block, |field| out.take(field)).unwrap();
        out.finish()
    }

    const CALL: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":path", "/a/b?c"), (":authority", "localhost:1")];

    #[test]
    fn a_head_is_what_its_fields_say() {
        let fields =
            [&CALL[..], &[("te", "trailers"), ("a", "1"), ("a", "2"), ("content-length", "7")]].concat();
        let head = read(&fields, 1000).unwrap();
        assert_eq!((head.method, head.path.as_str(), head.length), (Method::POST, "/a/b", Some(7)));
        assert_eq!(head.authority.unwrap(), "localhost:1");
        assert_eq!(head.headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn heads_that_break_the_rules_are_known() {
        let without = |name: &str| CALL.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
        let with = |more: &[(&'static str, &'static str)]| [&CALL[..], more].concat();
        let cases = [
            without(":method"),
            without(":scheme"),
            without(":path"),
            with(&[(":path", "/again")]),
            with(&[(":method", "POST")]),
            with(&[(":strange", "")]),
            with(&[(":status", "200")]),
            with(&[("a", "1"), (":authority", "late")]),
            with(&[("Capital", "1")]),
            with(&[("connection", "close")]),
            with(&[("transfer-encoding", "chunked")]),
            with(&[("te", "gzip")]),
            with(&[("content-length", "1"), ("content-length", "2")]),
            with(&[("content-length", "+1")]),
            with(&[("content-length", "99999999999999999999")]),
            [&without(":scheme")[..], &[(":scheme", "http://")]].concat(),
            [&without(":authority")[..], &[(":authority", "")]].concat(),
            [&without(":authority")[..], &[(":authority", "a b")]].concat(),
            [&without(":authority")[..], &[(":authority", "a/b")]].concat(),
            [&without(":path")[..], &[(":path", "/a#b")]].concat(),
            [&without(":path")[..], &[(":path", "/a b")]].concat(),
            [&without(":path")[..], &[(":path", "/a?b\\c")]].concat(),
            [&without(":path")[..], &[(":path", "?a")]].concat(),
            [&without(":path")[..], &[(":path", "")]].concat(),
            [&without(":path")[..], &[(":path", "a")]].concat(),
            [&without(":method")[..], &[(":method", "")]].concat(),
        ];
        for fields in cases {
            assert_eq!(read(&fields, 1000).err(), Some(Unfit::Malformed), "{fields:?}");
        }
        assert_eq!(read(&[(":method", "CONNECT"), (":authority", "a")], 1000).unwrap().path, "");
    }

    #[test]
    fn a_list_that_is_too_long_is_told_apart_and_not_kept() {
        let call: usize = CALL.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        let fields = [&CALL[..], &[("a", "1")]].concat();
        assert!(read(&fields, call + 34).is_ok());
        assert_eq!(read(&fields, call + 33).err(), Some(Unfit::TooLarge));
        let many = [&CALL[..], &[("a", "1"); 6]].concat();
        assert!(read(&many[..9], 1000).is_ok());
        assert_eq!(read(&many, 1000).err(), Some(Unfit::TooLarge));
    }
}
