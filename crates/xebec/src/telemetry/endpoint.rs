//! Where a collector is.
use http::Uri;

/// The path that OTLP over HTTP has if a URL names none.
const TRACES: &str = "/v1/traces";

/// A collector of OTLP, without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Over gRPC: `host:port`.
    Grpc(String),
    /// Over HTTP with Protocol Buffers: a URL.
    Http(String),
}

impl Endpoint {
    /// Reads `grpc://host:port` or `http://host:port/path`; ports and the path have OTLP's defaults.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTS: &str = "grpc://HOST:4317 or http://HOST:4318/v1/traces";
        let uri: Uri = text.parse().map_err(|_| WANTS)?;
        let (scheme, authority) = (uri.scheme_str(), uri.authority().ok_or(WANTS)?);
        if authority.as_str().contains('@') {
            return Err("a URL without a name and a password in it");
        }
        if authority.host().is_empty()
            || (authority.port_u16().is_none() && authority.as_str() != authority.host())
        {
            return Err(WANTS);
        }
        let at = |port: u16| format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port));
        match scheme {
            Some("grpc") if matches!(uri.path(), "" | "/") && uri.query().is_none() => {
                Ok(Self::Grpc(at(4317)))
            }
            Some("grpc") => Err("grpc://HOST:4317, without a path"),
            Some("http") => {
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                Ok(Self::Http(format!("http://{}{}", at(4318), if path == "/" { TRACES } else { path })))
            }
            Some("https" | "grpcs") => Err(
                "grpc:// or http://, because this version has no TLS; a collector on this machine can send on with it",
            ),
            _ => Err(WANTS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_are_read_with_their_defaults() {
        let grpc = |at: &str| Ok(Endpoint::Grpc(at.into()));
        let http = |url: &str| Ok(Endpoint::Http(url.into()));
        assert_eq!(Endpoint::parse("grpc://localhost"), grpc("localhost:4317"));
        assert_eq!(Endpoint::parse("grpc://[::1]:9/"), grpc("[::1]:9"));
        assert_eq!(Endpoint::parse("http://collector:4318"), http("http://collector:4318/v1/traces"));
        assert_eq!(Endpoint::parse("http://c"), http("http://c:4318/v1/traces"));
        assert_eq!(Endpoint::parse("http://c:1/otlp/v1/traces?a=b"), http("http://c:1/otlp/v1/traces?a=b"));
    }

    #[test]
    fn what_is_no_collector_is_told() {
        for text in
            ["", "localhost:4317", "/v1/traces", "ftp://c", "grpc://c/path", "http://", "http://c:99999"]
        {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
        assert!(Endpoint::parse("https://c:4318").unwrap_err().contains("no TLS"));
        assert!(Endpoint::parse("http://u:p@c").unwrap_err().contains("password"));
    }
}
