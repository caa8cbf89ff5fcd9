//! Where requests go: the base URL, the resources below it, and what a redirect may name.
//!
//! Pure functions of text. A request's URL is always put together from the origin
//! of the base URL and a path, so that nothing in a resource or in a redirect can
//! take it, and the credentials in it, anywhere else.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest path of a base URL, and the longest resource, in bytes as they go on the
/// wire: a request line has to fit into the buffer that it is sent from.
const MAX_TEXT: usize = 4096;

/// The longest target of a redirect, in bytes as it goes on the wire, for the same reason.
const MAX_TARGET: usize = 16 * 1024;

/// Scheme, host and port (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    /// In lower case; an IPv6 address in its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// Splits an absolute `http` or `https` URL into its origin and the rest.
    pub(crate) fn split(url: &str) -> Result<(Self, &str), &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("must begin with https://")?;
        let https = scheme.eq_ignore_ascii_case("https");
        if !https && !scheme.eq_ignore_ascii_case("http") {
            return Err("must begin with https://");
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err("must not hold a user name or a password");
        }
        let (host, port) = split_port(authority)?;
        Ok((
            Self {
                https,
                host: host?.to_ascii_lowercase(),
                port: port.unwrap_or(if https { 443 } else { 80 }),
            },
            rest,
        ))
    }

    /// Whether the host is this machine, whatever a name server says.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host == "[::1]"
            || self
                .host
                .parse()
                .is_ok_and(|address: Ipv4Addr| address.is_loopback())
    }

    /// The host, with the port where it isn't the scheme's own.
    pub(crate) fn authority(&self) -> String {
        match (self.https, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

type Host<'a> = Result<&'a str, &'static str>;

/// Splits `host[:port]`; the host is checked, too.
pub(crate) fn split_port(authority: &str) -> Result<(Host<'_>, Option<u16>), &'static str> {
    // The colons of an IPv6 address stand within its brackets.
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[after_address..].find(':') {
        Some(colon) => authority.split_at(after_address + colon),
        None => (authority, ""),
    };
    let port = match port.strip_prefix(':') {
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("the port must be a number from 1 to 65535"),
        },
        Some(_) => return Err("the port must be a number from 1 to 65535"),
    };
    Ok((check_host(host), port))
}

fn check_host(host: &str) -> Host<'_> {
    if host.is_empty() {
        return Err("has no host");
    }
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(_) => Ok(host),
            Err(_) => Err("the host is no IPv6 address"),
        };
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.len() > 253 || !name.split('.').all(label) {
        return Err("the host is no valid name (write a name outside ASCII in its xn-- form)");
    }
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    // Resolvers take "127.1" and "2130706433" for addresses; nobody means them.
    if name.split('.').next_back().is_some_and(numeric) && host.parse::<Ipv4Addr>().is_err() {
        return Err("the host is no IPv4 address");
    }
    Ok(host)
}

/// The address that the API's paths (`/v1/…`) are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    pub(crate) origin: Origin,
    /// Empty, or a path that begins with a slash and ends without.
    prefix: String,
}

impl BaseUrl {
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        check_characters(url)?;
        let (origin, rest) = Origin::split(url)?;
        if !origin.https && !origin.is_loopback() {
            return Err("must begin with https:// (plain http is for localhost alone)");
        }
        if rest.contains('?') {
            return Err("must not have a query");
        }
        let prefix = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(path) = prefix.strip_prefix('/') {
            check_path(path)?;
        }
        Ok(Self {
            origin,
            prefix: encode_path(prefix)?,
        })
    }

    /// The path, below the origin, of `resource` below `/v1/`.
    pub(crate) fn path(&self, resource: &str) -> String {
        format!("{}/v1/{resource}", self.prefix)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.prefix)
    }
}

/// Checks a resource, a path below `/v1/` with an optional query of its own, and
/// returns it as it goes on the wire.
pub(crate) fn resource(text: &str) -> Result<String, &'static str> {
    let text = text.strip_prefix('/').unwrap_or(text);
    if text.is_empty() {
        return Err("is empty");
    }
    check_characters(text)?;
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let first = path.split('/').next().unwrap_or(path);
    if first.contains(':') {
        return Err("must be a path below /v1/, not a URL");
    }
    check_path(path)?;
    let ours = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or(parameter);
        matches!(decode(name).as_slice(), b"app_id" | b"app_code")
    };
    if query.split('&').any(ours) {
        return Err("must not have app_id or app_code in its query: they are added to it");
    }
    encode_path(text)
}

/// A path, or a path and a query, as it goes on the wire.
fn encode_path(text: &str) -> Result<String, &'static str> {
    let encoded = encode(text, is_path_or_query);
    match encoded.len() {
        0..=MAX_TEXT => Ok(encoded),
        _ => Err("is too long"),
    }
}

/// The ban that holds for paths and queries alike.
fn check_characters(text: &str) -> Result<(), &'static str> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be visible ASCII (percent-encode everything else)");
    }
    if text.contains('#') {
        return Err("must not have a fragment (#)");
    }
    if text.contains('\\') {
        return Err("must not hold a backslash");
    }
    let escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(escape) {
        return Err("has a % that no two hexadecimal digits follow");
    }
    Ok(())
}

/// Refuses a path that a server might take for one outside the API. It is looked at
/// as servers do that decode it before they split it.
fn check_path(path: &str) -> Result<(), &'static str> {
    let decoded = decode(path);
    if decoded.iter().any(|b| b.is_ascii_control() || *b == b'\\') {
        return Err("must not hold an encoded control character or backslash");
    }
    let segments: Vec<&[u8]> = decoded.split(|b| *b == b'/').collect();
    if segments.iter().any(|s| matches!(*s, b"." | b"..")) {
        return Err("must not have a segment . or ..");
    }
    // Only the last may be empty: "datasets/".
    let (_, before) = segments.split_last().unwrap_or((&&[][..], &[]));
    if before.iter().any(|s| s.is_empty()) {
        return Err("must not have an empty segment (//)");
    }
    Ok(())
}

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a path, with its query, of the same origin.
    Here(String),
    /// To another origin, if it is one.
    Elsewhere(Option<Origin>),
}

/// Resolves the `Location` of an answer to a request for `path` of `origin`
/// (RFC 9110, section 10.2.2; RFC 3986, section 5.2).
pub(crate) fn redirect(origin: &Origin, path: &str, location: &str) -> Target {
    let location = location.split('#').next().unwrap_or(location);
    if !location.bytes().all(|b| b.is_ascii_graphic()) || location.contains('\\') {
        return Target::Elsewhere(None);
    }
    let scheme_end = location.find([':', '/', '?']).unwrap_or(location.len());
    let path = if location[scheme_end..].starts_with(':') {
        match Origin::split(location) {
            Ok((target, rest)) if target == *origin => absolute(rest),
            Ok((target, _)) => return Target::Elsewhere(Some(target)),
            Err(_) => return Target::Elsewhere(None),
        }
    } else if location.starts_with("//") {
        let scheme = if origin.https { "https:" } else { "http:" };
        return redirect(origin, path, &format!("{scheme}{location}"));
    } else if location.starts_with('/') {
        location.to_owned()
    } else {
        let path = path.split('?').next().unwrap_or(path);
        let directory = match location.starts_with('?') {
            true => path,
            false => &path[..path.rfind('/').map_or(0, |slash| slash + 1)],
        };
        format!("{directory}{location}")
    };
    let path = encode(&without_dot_segments(&path), is_path_or_query);
    match path.len() {
        0..=MAX_TARGET => Target::Here(path),
        _ => Target::Elsewhere(None),
    }
}

/// The path of a URL after its authority, which may be missing.
fn absolute(rest: &str) -> String {
    match rest.starts_with('/') {
        true => rest.to_owned(),
        false => format!("/{rest}"),
    }
}

/// RFC 3986, section 5.2.4.
fn without_dot_segments(path_and_query: &str) -> String {
    let end = path_and_query.find('?').unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(end);
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let directory = matches!(path.rsplit('/').next(), Some("." | ".."));
    let end = if directory && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}{query}", kept.join("/"))
}

/// Percent-encodes every byte that isn't to be kept.
pub(crate) fn encode(text: &str, keep: fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match keep(byte) {
            true => encoded.push(char::from(byte)),
            // Writing to a String can't fail.
            false => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// RFC 3986, section 2.3: what never needs to be encoded.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// What stands for itself in a path or a query; an escape stays one.
fn is_path_or_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>^`{|}".contains(&byte)
}

/// Percent-decodes; what is no escape stays as it is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ureq::http::Uri;

    #[test]
    fn base_urls_are_normalised() {
        for (url, normalised) in [
            (
                "https://datalens.api.here.com",
                "https://datalens.api.here.com",
            ),
            (
                "HTTPS://Gateway.Example:443/here/",
                "https://gateway.example/here",
            ),
            ("http://localhost:8080/", "http://localhost:8080"),
            ("http://127.9.9.9", "http://127.9.9.9"),
            ("http://[::1]:81", "http://[::1]:81"),
        ] {
            assert_eq!(BaseUrl::parse(url).unwrap().to_string(), normalised);
        }
    }

    #[test]
    fn base_urls_that_could_mislead_are_refused() {
        for url in [
            "",
            "datalens.api.here.com",
            "ftp://example.com",
            "http://example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://127.1",
            "https://",
            "https:///path",
            "https://:443",
            "https://user@example.com",
            "https://user:password@example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com:+443",
            "https://example.com:abc",
            "https://[::1",
            "https://[example]",
            "https://exa mple.com",
            "https://exam%70le.com",
            "https://bücher.example",
            "https://example..com",
            "https://example.com?query",
            "https://example.com#fragment",
            "https://example.com/a/../b",
            "https://example.com/a/%2e%2e/b",
            "https://example.com//a",
            "https://example.com\\a",
            "https://example.com/\n",
        ] {
            assert!(BaseUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn resources_go_on_the_wire_as_written_but_for_what_must_be_encoded() {
        for (text, wire) in [
            ("datasets/", "datasets/"),
            ("/datasets", "datasets"),
            (
                "queries/1/data?a=%20b&c={d|e}",
                "queries/1/data?a=%20b&c=%7Bd%7Ce%7D",
            ),
            (
                "datasets?with_column[]=a:b//c/../d",
                "datasets?with_column[]=a:b//c/../d",
            ),
        ] {
            assert_eq!(resource(text).as_deref(), Ok(wire));
        }
    }

    #[test]
    fn resources_that_could_leave_the_api_are_refused() {
        for text in [
            "",
            "/",
            "//example.com/",
            "https://example.com/",
            "mailto:a",
            "a//b",
            "a/%2Fb",
            "a\\b",
            "a%5cb",
            "a b",
            "a\tb",
            "a%0d%0ab",
            "a#b",
            "a?b#c",
            "a?b\\c",
            "a?b c",
            ".",
            "..",
            "a/./b",
            "../a",
            "a/..",
            "a/%2e%2E/b",
            "a/.%2e",
            "a/..%2fb",
            "ä",
            "a%",
            "a%4",
            "a?b=%zz",
            "a?app_id=1",
            "a?b&app%5Fcode=1",
        ] {
            assert!(resource(text).is_err(), "{text}");
        }
    }

    #[test]
    fn redirects_stay_at_the_origin_or_are_told_apart() {
        let origin = Origin::split("https://api.example/").unwrap().0;
        let redirect = |location| redirect(&origin, "/v1/a/b?c=d", location);
        for (location, path) in [
            ("/v1/a/", "/v1/a/"),
            ("c", "/v1/a/c"),
            ("../c?d#e", "/v1/c?d"),
            ("..", "/v1/"),
            ("../../../..", "/"),
            ("?x=y", "/v1/a/b?x=y"),
            ("https://API.example:443/x?y", "/x?y"),
            ("https://api.example", "/"),
            ("https://api.example?x", "/?x"),
            ("//api.example/x", "/x"),
            ("/x//evil.example", "/x//evil.example"),
        ] {
            assert_eq!(redirect(location), Target::Here(path.into()), "{location}");
        }
        for location in [
            "http://api.example/",
            "https://api.example:444/",
            "https://api.example.evil.example/",
            "//evil.example/",
        ] {
            assert!(
                matches!(redirect(location), Target::Elsewhere(Some(_))),
                "{location}"
            );
        }
        for location in [
            "https://user@api.example/",
            "javascript:x",
            "https:/x",
            "/\\evil.example",
            "/ä",
        ] {
            assert_eq!(redirect(location), Target::Elsewhere(None), "{location}");
        }
    }

    /// Text of the pieces that URLs are made of, which random text rarely is.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            r#"(https?|HTTP|javascript):"#,
            r#"[/\\?#@:.%&=\[\] ]{1,3}"#,
            r#"(api\.example|evil\.example|localhost|127\.0\.0\.1|:443|:8080|%2[eEfF]|\.\.)"#,
            "[a-z0-9]{0,4}",
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// What ureq makes of a URL that was put together.
    fn parsed(origin: &Origin, path: &str) -> Uri {
        format!("{origin}{path}")
            .parse()
            .expect("a URL that ureq takes")
    }

    proptest! {
        #[test]
        fn a_base_url_is_refused_or_stays_itself(text in pieces()) {
            if let Ok(base_url) = BaseUrl::parse(&text) {
                prop_assert_eq!(BaseUrl::parse(&base_url.to_string()), Ok(base_url.clone()));
                let uri = parsed(&base_url.origin, &base_url.path("x"));
                prop_assert_eq!(uri.host(), Some(base_url.origin.host.as_str()));
                let port = uri.port_u16().unwrap_or(if base_url.origin.https { 443 } else { 80 });
                prop_assert_eq!(port, base_url.origin.port);
                prop_assert!(base_url.origin.https || base_url.origin.is_loopback());
            }
        }

        #[test]
        fn a_resource_is_refused_or_stays_below_the_api(text in pieces()) {
            if let Ok(resource) = resource(&text) {
                let base_url = BaseUrl::parse("https://api.example/here").unwrap();
                let uri = parsed(&base_url.origin, &base_url.path(&resource));
                prop_assert_eq!(uri.authority().map(|a| a.as_str()), Some("api.example"));
                prop_assert!(uri.path().starts_with("/here/v1/"));
                let path = decode(uri.path());
                prop_assert!(!path.split(|b| *b == b'/').any(|s| s == b"." || s == b".."));
                prop_assert_eq!(decode(&resource), decode(text.strip_prefix('/').unwrap_or(&text)));
            }
        }

        #[test]
        fn a_redirect_leads_nowhere_but_to_the_origin(location in pieces()) {
            let origin = Origin::split("https://api.example").unwrap().0;
            if let Target::Here(path) = redirect(&origin, "/v1/a?b", &location) {
                prop_assert!(path.starts_with('/'));
                let uri = parsed(&origin, &path);
                prop_assert_eq!(uri.scheme_str(), Some("https"));
                prop_assert_eq!(uri.authority().map(|a| a.as_str()), Some("api.example"));
            }
        }

        #[test]
        fn any_text_survives_its_encoding(text in any::<String>()) {
            let encoded = encode(&text, is_unreserved);
            prop_assert!(encoded.bytes().all(|b| is_unreserved(b) || b == b'%'));
            prop_assert_eq!(decode(&encoded), text.as_bytes());
        }
    }
}
