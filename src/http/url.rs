//! URLs: the base URL, the resources below it, and what a redirect may name (RFC 3986).
//!
//! A request's URL is always put together from the origin of the base URL and a path, so
//! that nothing in a resource or in a redirect can take it, and the credentials in it,
//! anywhere else.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// The longest path of a base URL, and the longest resource, in bytes as they go on the
/// wire: a request line has to fit into the buffer that it is sent from.
const MAX_PATH: usize = 4096;

/// The longest target of a redirect, in bytes as it goes on the wire, for the same reason.
const MAX_TARGET: usize = 16 * 1024;

/// What never needs to be encoded, beside letters and digits (RFC 3986, section 2.3).
pub(crate) const UNRESERVED: &[u8] = b"-._~";

/// What stands for itself in a path or a query, beside letters and digits (RFC 3986,
/// sections 3.3 and 3.4): an escape stays one, and the API's own names of parameters have
/// brackets.
const PATH_OR_QUERY: &[u8] = b"-._~!$&'()*+,;=:@/?%[]";

/// Why a text is refused.
type Reason = &'static str;

fn refuse_if(is_refused: bool, reason: Reason) -> Result<(), Reason> {
    if is_refused { Err(reason) } else { Ok(()) }
}

/// The schemes, and the default port of each.
const SCHEMES: [(&str, u16); 2] = [("https", 443), ("http", 80)];

/// Scheme, host and port (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    /// In lower case; an IPv6 address in its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The host, with the port where it isn't the default one.
    pub(crate) authority: String,
}

impl Origin {
    /// Splits an absolute `http` or `https` URL into its origin and the rest.
    pub(crate) fn split(url: &str) -> Result<(Self, &str), Reason> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let known = SCHEMES.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
        let (scheme, default_port) = known.ok_or("must begin with https://")?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        refuse_if(authority.contains('@'), "must not hold a user name or a password")?;
        let (host, port) = split_authority(authority, default_port)?;
        let host = host.to_ascii_lowercase();
        let authority = if port == default_port { host.clone() } else { format!("{host}:{port}") };
        Ok((Self { scheme, host, port, authority }, rest))
    }

    /// Whether the host is this machine, whatever a name server says.
    fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "[::1]")
            || self.host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Splits `host[:port]` and checks both.
pub(crate) fn split_authority(authority: &str, default_port: u16) -> Result<(&str, u16), Reason> {
    // The colons of an IPv6 address stand within its brackets.
    let address_end = authority.rfind(']').unwrap_or(0);
    let colon = authority[address_end..].find(':').map_or(authority.len(), |at| address_end + at);
    let (host, port) = authority.split_at(colon);
    check_host(host)?;
    let Some(digits) = port.strip_prefix(':') else { return Ok((host, default_port)) };
    // `parse` takes a sign as well.
    let port = digits.parse().ok().filter(|port| *port > 0 && !digits.starts_with('+'));
    Ok((host, port.ok_or("the port must be a number from 1 to 65535")?))
}

fn check_host(host: &str) -> Result<(), Reason> {
    refuse_if(host.is_empty(), "has no host")?;
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return refuse_if(address.parse::<Ipv6Addr>().is_err(), "the host is no IPv6 address");
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_odd = |b: u8| !b.is_ascii_alphanumeric() && !b"-_.".contains(&b);
    refuse_if(
        host.len() > 253 || name.bytes().any(is_odd) || name.split('.').any(str::is_empty),
        "the host is no valid name (write a name outside ASCII in its xn-- form)",
    )?;
    // Resolvers take "127.1", "2130706433" and "0x7f000001" for addresses.
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_hexadecimal = last.starts_with("0x") || last.starts_with("0X");
    let is_number = is_hexadecimal || last.bytes().all(|b| b.is_ascii_digit());
    refuse_if(is_number && host.parse::<Ipv4Addr>().is_err(), "the host is no IPv4 address")
}

/// The URL that the API's paths (`/v1/…`) are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    pub(crate) origin: Origin,
    /// Empty, or a path that begins with a slash and ends without.
    prefix: String,
}

impl BaseUrl {
    pub(crate) fn parse(url: &str) -> Result<Self, Reason> {
        check_characters(url)?;
        let (origin, path) = Origin::split(url)?;
        let is_secure = origin.scheme == "https" || origin.is_loopback();
        refuse_if(!is_secure, "must begin with https:// (plain http is for localhost alone)")?;
        refuse_if(path.contains('?'), "must not have a query")?;
        let prefix = path.strip_suffix('/').unwrap_or(path);
        // A resource follows it.
        check_path(&format!("{prefix}/")[1..])?;
        Ok(Self { origin, prefix: encode_path(prefix, MAX_PATH)? })
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

/// A path below `/v1/` with an optional query of its own, as it goes on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource(String);

impl Resource {
    pub(crate) fn parse(text: &str) -> Result<Self, Reason> {
        let text = text.strip_prefix('/').unwrap_or(text);
        check_characters(text)?;
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        refuse_if(path.is_empty(), "is empty")?;
        let first = path.split('/').next().unwrap_or(path);
        refuse_if(first.contains(':'), "must be a path below /v1/, not a URL")?;
        refuse_if(first == "v1", "is taken below /v1/ already: leave out v1/")?;
        check_path(path)?;
        let mut names = query.split('&').filter_map(|parameter| parameter.split('=').next());
        let is_ours = names.any(|name| matches!(&decode(name)[..], b"app_id" | b"app_code"));
        refuse_if(is_ours, "must not have app_id or app_code in its query: they are added to it")?;
        encode_path(text, MAX_PATH).map(Self)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the query.
    pub(crate) fn path(&self) -> &str {
        self.0.split('?').next().unwrap_or_default()
    }
}

/// A path, or a path and a query, as it goes on the wire.
fn encode_path(text: &str, max_length: usize) -> Result<String, Reason> {
    let encoded = encode(text, PATH_OR_QUERY);
    refuse_if(encoded.len() > max_length, "is too long")?;
    Ok(encoded)
}

/// The ban that holds for paths and queries alike.
fn check_characters(text: &str) -> Result<(), Reason> {
    let is_visible = text.bytes().all(|b| b.is_ascii_graphic());
    refuse_if(!is_visible, "must be visible ASCII (percent-encode everything else)")?;
    refuse_if(text.contains('#'), "must not have a fragment (#)")?;
    refuse_if(text.contains('\\'), "must not hold a backslash")?;
    let is_escaped = text.split('%').skip(1).all(|after| hex(after, 0..2).is_some());
    refuse_if(!is_escaped, "has a % that no two hexadecimal digits follow")
}

/// Refuses a path that a server might take for one outside the API. It is looked at
/// as servers do that decode it before they split it.
fn check_path(path: &str) -> Result<(), Reason> {
    let decoded = decode(path);
    let is_odd = decoded.iter().any(|b| b.is_ascii_control() || *b == b'\\');
    refuse_if(is_odd, "must not hold an encoded control character or backslash")?;
    let mut segments = decoded.split(|b| *b == b'/');
    let has_dots = segments.any(|segment| matches!(segment, b"." | b".."));
    refuse_if(has_dots, "must not have a segment . or ..")?;
    // Only the last may be empty: "datasets/".
    let has_empty = decoded.starts_with(b"/") || decoded.windows(2).any(|pair| pair == b"//");
    refuse_if(has_empty, "must not have an empty segment (//)")
}

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// To a path, with its query, of the same origin.
    SameOrigin(String),
    /// To another origin, or to nowhere usable.
    CrossOrigin(Option<Origin>),
}

/// Interprets the `Location` of a response (RFC 9110, section 10.2.2): an absolute URL,
/// perhaps without its scheme, or an absolute path. What is relative to the path of the
/// request isn't followed.
pub(crate) fn redirect(origin: &Origin, location: &str) -> Redirect {
    let location = location.split('#').next().unwrap_or(location);
    let is_clean = location.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    // What is left out is as in the URL of the request (RFC 3986, section 4.2).
    let left_out = match location {
        _ if location.starts_with("//") => format!("{}:", origin.scheme),
        _ if location.starts_with('/') => origin.to_string(),
        _ => String::new(),
    };
    match Origin::split(&format!("{left_out}{location}")) {
        Ok((target, path)) if is_clean && target == *origin => {
            let path = format!("/{}", path.strip_prefix('/').unwrap_or(path));
            encode_path(&path, MAX_TARGET).map_or(Redirect::CrossOrigin(None), Redirect::SameOrigin)
        }
        Ok((target, _)) if is_clean => Redirect::CrossOrigin(Some(target)),
        _ => Redirect::CrossOrigin(None),
    }
}

/// Percent-encodes a text as one segment of a resource's path (RFC 3986, section 3.3), for
/// an id that comes from data.
///
/// ```
/// let resource = format!("queries/{}/data", here_datalens::encode_segment("a/b c"));
/// assert_eq!(resource, "queries/a%2Fb%20c/data");
/// ```
pub fn encode_segment(text: &str) -> String {
    encode(text, UNRESERVED)
}

/// Percent-encodes every byte that is neither a letter or a digit of ASCII nor among these.
pub(crate) fn encode(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Percent-decodes; what is no escape stays as it is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    unescape(text, '%', |after| Some((vec![hex(after, 0..2)? as u8], 2)))
}

/// The bytes that an escape stands for, and its length after its mark.
pub(super) type Escape = (Vec<u8>, usize);

/// Replaces each escape, which `decode` reads after its mark. A mark that begins none stays.
pub(super) fn unescape(text: &str, mark: char, decode: fn(&str) -> Option<Escape>) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        let (bytes, length) = decode(after).unwrap_or_else(|| (vec![mark as u8], 0));
        plain.extend(before.bytes().chain(bytes));
        rest = &after[length..];
    }
    plain.extend(rest.as_bytes());
    plain
}

/// Returns the number in this place of a text, if there are only hexadecimal digits.
pub(super) fn hex(text: &str, digits: Range<usize>) -> Option<u16> {
    let digits = text.get(digits).filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ureq::http::Uri;

    #[test]
    fn a_host_of_253_characters_is_the_longest() {
        let longest = format!("{}.{}", "x".repeat(126), "y".repeat(126));
        assert_eq!(split_authority(&longest, 443), Ok((&*longest, 443)));
        assert!(split_authority(&(longest + "y"), 443).is_err());
    }

    #[test]
    fn base_urls_are_normalised() {
        for (url, normalised) in [
            ("https://datalens.api.here.com", "https://datalens.api.here.com"),
            ("HTTPS://Gateway.Example:443/here/", "https://gateway.example/here"),
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
            "https://example.com//",
            "https://example.com/a//",
            "https://0x7f000001",
            "https://example.0X1f",
            "https://0177.0.0.1",
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
            ("queries/1/data?a=%20b&c={d|e}", "queries/1/data?a=%20b&c=%7Bd%7Ce%7D"),
            ("datasets?with_column[]=a:b//c/../d", "datasets?with_column[]=a:b//c/../d"),
        ] {
            assert_eq!(Resource::parse(text), Ok(Resource(wire.into())));
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
            "v1/datasets",
            "/v1",
            "a?app_id=1",
            "a?b&app%5Fcode=1",
        ] {
            assert!(Resource::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn redirects_stay_at_the_origin_or_are_told_apart() {
        let origin = Origin::split("https://api.example/").unwrap().0;
        let redirect = |location| redirect(&origin, location);
        for (location, path) in [
            ("/v1/a/", "/v1/a/"),
            ("/v1/a?b=c#d", "/v1/a?b=c"),
            ("https://API.example:443/x?y", "/x?y"),
            ("https://api.example", "/"),
            ("https://api.example?x", "/?x"),
            ("//API.example/x", "/x"),
            ("/x//evil.example", "/x//evil.example"),
        ] {
            let expected = Redirect::SameOrigin(path.into());
            assert_eq!(redirect(location), expected, "{location}");
        }
        for location in [
            "http://api.example/",
            "https://api.example:444/",
            "https://api.example.evil.example/",
            "//evil.example/",
        ] {
            assert!(matches!(redirect(location), Redirect::CrossOrigin(Some(_))), "{location}");
        }
        for location in [
            "",
            "#fragment",
            "?query",
            "relative",
            "../up",
            "https://user@api.example/",
            "javascript:x",
            "https:/x",
            "/\\evil.example",
            "/ä",
        ] {
            let expected = Redirect::CrossOrigin(None);
            assert_eq!(redirect(location), expected, "{location}");
        }
        let longest = format!("/{}", "x".repeat(MAX_TARGET - 1));
        assert_eq!(redirect(&longest), Redirect::SameOrigin(longest.clone()));
        let longer = format!("{longest}x");
        assert_eq!(redirect(&longer), Redirect::CrossOrigin(None));
    }

    /// A segment of a path: no dots alone, and every `%` begins an escape.
    const SEGMENT: &str = r"[a-zA-Z0-9_~!$&'()*+,;=@{}|^-]([a-zA-Z0-9._~{}|:@-]|%[2-7][0-9A]){0,6}";

    fn base_url() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            "[a-z][a-z0-9_-]{0,8}(\\.[a-zA-Z]{2,5}){0,2}\\.?",
            "192\\.0\\.2\\.[1-9]",
            "\\[2001:db8::[1-9a-f]\\]"
        ];
        let port = prop::option::of(1..=u16::MAX);
        let path = prop::collection::vec(SEGMENT, 0..3);
        ("https|HTTPS|Https", host, port, path, any::<bool>()).prop_map(
            |(scheme, host, port, path, has_slash)| {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let path: String = path.iter().map(|segment| format!("/{segment}")).collect();
                format!("{scheme}://{host}{port}{path}{}", if has_slash { "/" } else { "" })
            },
        )
    }

    fn resource() -> impl Strategy<Value = String> {
        let path = prop::collection::vec(SEGMENT, 1..4);
        let end = prop_oneof!["/?", r"/?\?([a-z]{1,3}=[a-z0-9./?:@{}|%-]{0,4}&?){0,3}"];
        ("/?[a-z]{3,8}", path, end).prop_map(|(first, path, end)| {
            format!("{first}/{}{}", path.join("/"), end.replace('%', "%20"))
        })
    }

    /// The same with something odd put in somewhere.
    fn mutated(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        let odd = prop_oneof![
            r"[/\\?#@:.%&=\[\] ]{1,3}",
            r"(//evil\.example|localhost|127\.0\.0\.1|:443|%2[eEfF]|/\.\./|\.\.|app_code=x)",
            any::<char>().prop_map(String::from),
        ];
        (text, odd, any::<prop::sample::Index>()).prop_map(|(text, odd, place)| {
            let (before, after) = text.split_at(place.index(text.len()));
            format!("{before}{odd}{after}")
        })
    }

    /// What ureq makes of a URL that was put together.
    fn parsed(origin: &Origin, path: &str) -> Uri {
        format!("{origin}{path}").parse().expect("a URL that ureq takes")
    }

    fn check_base_url(base_url: &BaseUrl) -> Result<(), TestCaseError> {
        prop_assert_eq!(BaseUrl::parse(&base_url.to_string()), Ok(base_url.clone()));
        let uri = parsed(&base_url.origin, &base_url.path("x"));
        prop_assert_eq!(uri.host(), Some(base_url.origin.host.as_str()));
        let port =
            uri.port_u16().unwrap_or(if base_url.origin.scheme == "https" { 443 } else { 80 });
        prop_assert_eq!(port, base_url.origin.port);
        prop_assert!(base_url.origin.scheme == "https" || base_url.origin.is_loopback());
        Ok(())
    }

    fn check_resource(text: &str, Resource(resource): Resource) -> Result<(), TestCaseError> {
        let base_url = BaseUrl::parse("https://api.example/here").unwrap();
        let uri = parsed(&base_url.origin, &base_url.path(&resource));
        prop_assert_eq!(uri.authority().map(|a| a.as_str()), Some("api.example"));
        prop_assert!(uri.path().starts_with("/here/v1/"));
        let path = decode(uri.path());
        prop_assert!(!path.split(|b| *b == b'/').any(|s| s == b"." || s == b".."));
        prop_assert_eq!(decode(&resource), decode(text.strip_prefix('/').unwrap_or(text)));
        Ok(())
    }

    proptest! {
        #[test]
        fn a_base_url_is_accepted_and_stays_itself(text in base_url()) {
            check_base_url(&BaseUrl::parse(&text).map_err(TestCaseError::fail)?)?;
        }

        #[test]
        fn an_odd_base_url_is_refused_or_stays_itself(text in mutated(base_url())) {
            if let Ok(base_url) = BaseUrl::parse(&text) {
                check_base_url(&base_url)?;
            }
        }

        #[test]
        fn a_resource_is_accepted_and_stays_below_the_api(text in resource()) {
            check_resource(&text, Resource::parse(&text).map_err(TestCaseError::fail)?)?;
        }

        #[test]
        fn an_odd_resource_is_refused_or_stays_below_the_api(text in mutated(resource())) {
            if let Ok(resource) = Resource::parse(&text) {
                check_resource(&text, resource)?;
            }
        }

        #[test]
        fn a_redirect_leads_nowhere_but_to_the_origin(path in resource(), odd in mutated(resource())) {
            let origin = Origin::split("https://api.example").unwrap().0;
            let path = path.trim_start_matches('/');
            for location in [format!("/{path}"), format!("https://api.example/{path}")] {
                let expected = encode(&format!("/{path}"), PATH_OR_QUERY);
                prop_assert_eq!(redirect(&origin, &location), Redirect::SameOrigin(expected));
            }
            for location in [odd.clone(), format!("https://api.example{odd}")] {
                if let Redirect::SameOrigin(path) = redirect(&origin, &location) {
                    let uri = parsed(&origin, &path);
                    prop_assert_eq!(uri.scheme_str(), Some("https"));
                    prop_assert_eq!(uri.authority().map(|a| a.as_str()), Some("api.example"));
                }
            }
        }

        #[test]
        fn any_text_survives_its_encoding(text in any::<String>()) {
            let encoded = encode_segment(&text);
            let is_expected = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
            prop_assert!(encoded.bytes().all(is_expected));
            prop_assert_eq!(decode(&encoded), text.as_bytes());
        }
    }
}
