//! Which host a request may be meant for, and whose web pages may send it.
//!
//! Browsers send requests for any page that they show. A page's own name can be made to lead to this machine (DNS
//! rebinding), and then the page reads the answers: its requests name its host. A page can also send to any address
//! without reading the answer: such requests name the page as their `Origin`. Both are refused here, before anything
//! of a body is read, for HTTP/1.1 and gRPC alike ([`Hosts::check`]).
//!
//! A name can be rebound and an address cannot, so addresses are judged by the listener alone. Not here: who may do
//! what (`xebec-core`, `permit`), whether Host is there once and well formed (`http1/head.rs`).
//!
//! # Source
//! RFC 6454, section 7; RFC 9110, sections 7.2, 7.4 and 15.5.20; RFC 6761, section 6.3 (`localhost`).
use http::{HeaderMap, StatusCode, header};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use xebec_core::Code;

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
                address.parse::<Ipv6Addr>().ok()?;
                (address, port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                if !is_name(host) {
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

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Names of hosts that the operator listed, besides those that are always right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    any: bool,
    names: Arc<[Name]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Host(String),
    /// Every name that ends so; it begins with a dot.
    Below(String),
    Address(IpAddr),
}

impl AllowedHosts {
    /// Reads a list divided by commas: names, `*.` and a name for every name below it, addresses, or `*` for any host.
    /// An empty one lists nothing.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim);
        let (mut any, mut names) = (false, Vec::new());
        for entry in entries.filter(|_| !text.trim().is_empty()) {
            let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
            match (entry.strip_prefix("*."), bare.parse()) {
                _ if entry == "*" => any = true,
                (Some(name), _) if is_name(name) => names.push(Name::Below(format!(".{name}"))),
                (None, Ok(address)) => names.push(Name::Address(address)),
                (None, Err(_)) if is_name(entry) => names.push(Name::Host(entry.to_owned())),
                _ => {
                    return Err(format!(
                        "'{entry}' is neither a name without a port, nor an address, nor '*'"
                    ));
                }
            }
        }
        Ok(Self { any, names: names.into() })
    }

    /// What holds on a listener of this address. Off loopback nobody can know which names lead to it, so that any is
    /// right where none is listed.
    pub(crate) fn at(&self, listener: IpAddr) -> Hosts {
        let loopback = listener.to_canonical().is_loopback();
        Hosts {
            any: self.any || (!loopback && self.names.is_empty()),
            loopback,
            names: Arc::clone(&self.names),
        }
    }
}

/// The hosts of one listener.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    any: bool,
    /// Only this machine reaches it, so that no other address is right.
    loopback: bool,
    names: Arc<[Name]>,
}

impl Hosts {
    /// Judges a request by the host that it names, in its target or in a header, and the web page that it comes from.
    ///
    /// # Errors
    /// It was meant for somebody else, or comes from a page of somebody else.
    pub(crate) fn check(&self, target: Option<&[u8]>, headers: &HeaderMap) -> Result<(), Foreign> {
        let mut asked = None;
        let by_header = headers.get_all(header::HOST).into_iter().map(http::HeaderValue::as_bytes);
        // Where both are there, neither may be foreign.
        for named in target.into_iter().chain(by_header) {
            let host = Authority::parse(named).map(|authority| authority.host);
            if !self.any && !host.is_some_and(|host| self.allow(host)) {
                return Err(Foreign::Host(shown(named)));
            }
            asked = host;
        }
        for origin in headers.get_all(header::ORIGIN) {
            let page = page(origin.as_bytes());
            if page.is_none()
                || !asked.zip(page).is_some_and(|(asked, page)| asked.eq_ignore_ascii_case(page))
            {
                return Err(Foreign::Origin(shown(origin.as_bytes())));
            }
        }
        Ok(())
    }

    fn allow(&self, host: &str) -> bool {
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            let listed = |name: &Name| matches!(name, Name::Address(listed) if *listed == address);
            return !self.loopback || address.to_canonical().is_loopback() || self.names.iter().any(listed);
        }
        // What browsers themselves take for this machine cannot be rebound.
        host.eq_ignore_ascii_case("localhost")
            || ends_with(host, ".localhost")
            || self.names.iter().any(|name| match name {
                Name::Host(name) => host.eq_ignore_ascii_case(name),
                Name::Below(end) => ends_with(host, end),
                Name::Address(_) => false,
            })
    }
}

/// Whether a name ends so and has something before it. Both are ASCII.
fn ends_with(host: &str, end: &str) -> bool {
    let start = host.len().checked_sub(end.len()).filter(|start| *start > 0);
    start.and_then(|start| host.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The host of an origin; `null`, which pages without a host send, has none.
fn page(origin: &[u8]) -> Option<&str> {
    let origin = std::str::from_utf8(origin).ok()?;
    let (_, authority) = origin.split_once("://")?;
    Authority::parse(authority.as_bytes()).map(|authority| authority.host)
}

/// What a caller wrote, short and without anything that means something in JSON, a log or a terminal.
fn shown(text: &[u8]) -> String {
    let plain = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._:/[]@*".contains(byte) => char::from(*byte),
        _ => '?',
    };
    text.iter().take(100).map(plain).collect()
}

/// Why a request is not for this server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Foreign {
    /// It names another host.
    #[error("the request is for the host '{0}', and this server does not answer as that host")]
    Host(String),
    /// It comes from a page of another host.
    #[error(
        "the request comes from a web page of '{0}', and pages of other hosts may not send requests here"
    )]
    Origin(String),
}

impl Foreign {
    /// The status of HTTP. 421, and not 403: the same request to the right name would be taken, which is what 421 says.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }

    /// The status of gRPC.
    pub(crate) fn code(&self) -> u8 {
        Code::PermissionDenied.grpc()
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Host(_) => {
                "ask for localhost or the server's address, or let the operator list the name with --allowed-hosts"
            }
            Self::Origin(_) => {
                "let the page's own server ask for it, or have a proxy serve both under one host and pass Host on"
            }
        }
    }
}

#[cfg(test)]
mod tests;
