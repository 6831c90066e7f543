use super::*;
use http::HeaderValue;

fn at(listener: &str, listed: &str) -> Hosts {
    AllowedHosts::parse(listed).unwrap().at(listener.parse().unwrap())
}

fn check(hosts: &Hosts, host: &str, origin: Option<&str>) -> Result<(), Foreign> {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    if let Some(origin) = origin {
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
    }
    hosts.check(None, &headers)
}

#[test]
fn hosts_are_names_and_addresses_and_nothing_else() {
    let parsed = |text: &'static str| Authority::parse(text.as_bytes()).map(|named| (named.host, named.port));
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
        "", ":80", "a:", "a:+1", "a:99999", "a b", "a,b", "a/b", "user@a", "[::1", "::1", "[a]", "[::1]80",
        "a%00", "a:1:2", "ä",
    ] {
        assert_eq!(parsed(text), None, "{text}");
    }
}

#[test]
fn on_loopback_only_what_cannot_be_rebound_is_right() {
    for listener in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let hosts = at(listener, "");
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "models.localhost:1",
            "127.0.0.1:8000",
            "127.9.9.9",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(check(&hosts, host, None), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "evillocalhost",
            ".localhost",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "0.0.0.0:8000",
            "192.0.2.1",
            "[2001:db8::1]",
        ] {
            assert_eq!(check(&hosts, host, None), Err(Foreign::Host(host.into())), "{host}");
        }
    }
}

#[test]
fn off_loopback_any_host_is_right_until_names_are_listed() {
    assert_eq!(check(&at("0.0.0.0", ""), "evil.example", None), Ok(()));
    let hosts = at("0.0.0.0", "models.example, *.cluster.local");
    for host in [
        "models.example:8000",
        "Models.Example.",
        "a.cluster.local",
        "a.b.cluster.local",
        "localhost",
        // Probes of an orchestrator name the address.
        "10.1.2.3:8000",
        "[fd00::1]:8000",
    ] {
        assert_eq!(check(&hosts, host, None), Ok(()), "{host}");
    }
    for host in ["evil.example", "a.models.example", "cluster.local", "xcluster.local", ".cluster.local"] {
        assert!(check(&hosts, host, None).is_err(), "{host}");
    }
    // On loopback an address is listed as a name is.
    let hosts = at("127.0.0.1", "models.example,192.0.2.1,[2001:db8::1]");
    for (host, right) in
        [("models.example", true), ("192.0.2.1:1", true), ("[2001:db8:0::1]", true), ("192.0.2.2", false)]
    {
        assert_eq!(check(&hosts, host, None).is_ok(), right, "{host}");
    }
    assert_eq!(check(&at("127.0.0.1", "*"), "evil.example", None), Ok(()));
}

#[test]
fn a_web_page_is_right_only_if_it_is_of_the_host_that_it_asks() {
    for (hosts, host) in [(at("127.0.0.1", ""), "localhost:8000"), (at("0.0.0.0", "*"), "models.example")] {
        let name = host.split(':').next().unwrap();
        for origin in [format!("http://{name}"), format!("https://{name}:3000")] {
            assert_eq!(check(&hosts, host, Some(&origin)), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://127.0.0.1:8000",
            "http://[::1]",
            name,
            "file://",
            "http://a b",
            "chrome-extension://abc",
        ] {
            assert!(matches!(check(&hosts, host, Some(origin)), Err(Foreign::Origin(_))), "{origin}");
        }
    }
}

#[test]
fn a_target_and_a_header_that_name_hosts_are_both_judged_and_so_is_each_origin() {
    let hosts = at("127.0.0.1", "");
    let mut headers = HeaderMap::new();
    let check = |target: Option<&str>, headers: &HeaderMap| hosts.check(target.map(str::as_bytes), headers);
    // Without a host, as HTTP/1.0 allows, there is no browser.
    assert_eq!(check(None, &headers), Ok(()));
    assert_eq!(check(Some("localhost:1"), &headers), Ok(()));
    assert_eq!(check(Some("evil.example"), &headers), Err(Foreign::Host("evil.example".into())));
    headers.insert(header::HOST, HeaderValue::from_static("evil.example"));
    assert!(check(Some("localhost"), &headers).is_err());
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    headers.append(header::ORIGIN, HeaderValue::from_static("http://localhost"));
    assert_eq!(check(None, &headers), Ok(()));
    headers.append(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
    assert!(check(None, &headers).is_err());
    headers.remove(header::HOST);
    headers.remove(header::ORIGIN);
    headers.insert(header::ORIGIN, HeaderValue::from_static("http://localhost"));
    assert!(check(None, &headers).is_err(), "an origin, and no host that it could be of");
}

#[test]
fn what_is_listed_is_checked() {
    assert_eq!(AllowedHosts::parse(" "), Ok(AllowedHosts::default()));
    for text in ["a:80", "http://a", "*.", "*a", "a.*", "a,,b", "a/b", "[::1", "ä"] {
        assert!(AllowedHosts::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_shown_of_a_host_is_short_and_harmless() {
    assert_eq!(shown(b"a\"}\x1b[31m\\'%\xff"), "a???[31m????");
    assert_eq!(shown(&[b'a'; 1000]).len(), 100);
}
