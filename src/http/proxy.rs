//! The proxy that a setting or the environment names, by curl's rules.

use std::{env, ffi::OsString, net::IpAddr};

use ureq::{Proxy, ProxyProtocol};

use super::url::{Origin, decode, split_authority};
use crate::error::Error;

/// Where a client learns of its proxy.
#[derive(Clone)]
pub(crate) enum Setting {
    Direct,
    Url(String),
    Environment,
}

impl Setting {
    /// The proxy on the way to `target`. A server on this machine that is spoken to
    /// over plain http has none, whatever the setting.
    pub(crate) fn proxy(&self, target: &Origin) -> Result<Option<Proxy>, Error> {
        match self {
            _ if target.scheme == "http" => Ok(None),
            Self::Direct => Ok(None),
            Self::Url(url) => parse("proxy", url).map(Some),
            Self::Environment => from_environment(target, |name| env::var_os(name)),
        }
    }
}

/// curl's order: the lower-case name first, the scheme's own variable before the
/// general one; an empty one counts as unset.
fn from_environment(
    target: &Origin,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Proxy>, Error> {
    let first = |names: &[&'static str]| {
        let mut set = names.iter().filter_map(|name| Some((*name, variable(name)?)));
        let Some((name, value)) = set.find(|(_, value)| !value.is_empty()) else { return Ok(None) };
        let value = value.into_string().map_err(|_| Error::invalid_input(name, "isn't UTF-8"))?;
        Ok(Some((name, value)))
    };
    let exceptions = first(&["no_proxy", "NO_PROXY"])?;
    if exceptions.is_some_and(|(_, list)| is_excepted(&list, target)) {
        return Ok(None);
    }
    let url = first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?;
    url.map(|(name, url)| parse(name, &url)).transpose()
}

/// Whether one of the entries of `no_proxy`, separated by commas or blanks, covers
/// the target.
fn is_excepted(list: &str, target: &Origin) -> bool {
    list.split(|c: char| c == ',' || c.is_whitespace()).any(|entry| covers(entry, target))
}

/// Whether an entry covers the target: `*` all, a name itself and the names below it,
/// an address itself, `address/bits` a network; each with or without a port.
fn covers(entry: &str, target: &Origin) -> bool {
    let (pattern, port) = match entry.rsplit_once(':') {
        // The other colons are those of an IPv6 address.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (entry, None),
    };
    let host = target.host.trim_end_matches('.');
    let covered = match bare(host).parse::<IpAddr>() {
        _ if pattern == "*" => true,
        Ok(address) => covers_address(bare(pattern), address),
        Err(_) => covers_name(pattern, host),
    };
    covered && port.is_none_or(|port| port.parse() == Ok(target.port))
}

fn covers_name(pattern: &str, host: &str) -> bool {
    let name = pattern.trim_start_matches("*.").trim_start_matches('.');
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    !name.is_empty() && format!(".{host}").ends_with(&format!(".{name}"))
}

fn covers_address(pattern: &str, host: IpAddr) -> bool {
    let (address, bits) = pattern.split_once('/').unwrap_or((pattern, "0"));
    // `parse` takes a sign as well.
    let bits = if bits.starts_with('+') { "" } else { bits };
    let (Ok(address), Ok(bits)) = (address.parse(), bits.parse()) else { return false };
    match (address, host) {
        // As in curl, a network of 0 bits is its address alone.
        _ if bits == 0 => address == host,
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

/// An address without the brackets of IPv6.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host)
}

/// Takes a proxy's URL apart: `[http[s]://][user[:password]@]host[:port][/]`. No
/// message quotes it, since it may hold a password.
fn parse(name: &'static str, url: &str) -> Result<Proxy, Error> {
    let refuse = |reason: &str| Error::invalid_input(name, reason);
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    // Without a port, curl's own default.
    let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (ProxyProtocol::Http, 1080),
        "https" => (ProxyProtocol::Https, 443),
        socks if socks.starts_with("socks") => {
            return Err(refuse("SOCKS proxies aren't supported, only http:// and https://"));
        }
        _ => return Err(refuse("must begin with http:// or https://")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (user, authority) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (host, port) = split_authority(authority, default_port).map_err(refuse)?;
    let mut proxy = Proxy::builder(protocol).host(host).port(port);
    if let Some(user) = user {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let not_utf8 = |_| refuse("its user or password isn't UTF-8");
        let plain = |text| String::from_utf8(decode(text)).map_err(not_utf8);
        proxy = proxy.username(&plain(user)?).password(&plain(password)?);
    }
    // ureq's error is left out: it may quote the URL.
    proxy.build().map_err(|_| refuse("isn't the URL of a proxy"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(url: &str) -> Origin {
        Origin::split(url).unwrap().0
    }

    fn chosen(variables: &[(&str, &str)]) -> Result<Option<Proxy>, Error> {
        from_environment(&target("https://api.example.com"), |name| {
            let value = variables.iter().find(|(n, _)| *n == name)?.1;
            Some(value.into())
        })
    }

    #[test]
    fn variables_are_read_in_curls_order() {
        for (variables, host) in [
            (&[][..], None),
            (&[("https_proxy", "a"), ("HTTPS_PROXY", "b")], Some("a")),
            (&[("https_proxy", ""), ("HTTPS_PROXY", "b"), ("all_proxy", "c")], Some("b")),
            (&[("http_proxy", "a"), ("HTTP_PROXY", "b")], None),
            (&[("all_proxy", "c"), ("ALL_PROXY", "d")], Some("c")),
            (&[("ALL_PROXY", "d"), ("NO_PROXY", "other.com")], Some("d")),
            (&[("ALL_PROXY", "d"), ("no_proxy", "x, .example.com")], None),
            (&[("ALL_PROXY", "socks5://d"), ("no_proxy", "*")], None),
        ] {
            let proxy = chosen(variables).unwrap();
            assert_eq!(proxy.as_ref().map(Proxy::host), host, "{variables:?}");
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let proxy = parse("proxy", "https://me:p%40ss%2Fw+d@[::1]:3128/").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("[::1]", 3128));
        assert_eq!(proxy.username(), Some("me"));
        assert_eq!(proxy.password(), Some("p@ss/w+d"));
        assert_eq!(parse("proxy", "proxy.example").unwrap().port(), 1080);
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused_without_a_word_of_them() {
        for url in [
            "socks5://secret@host",
            "ftp://secret@host",
            "http://secret@",
            "http://secret@host:99999",
            "http://secret@host:x",
            "http://secret@ho st",
            "http://secret%ff@host",
            "http://secret@host/path",
        ] {
            let error = parse("HTTPS_PROXY", url).unwrap_err();
            assert!(matches!(error, Error::InvalidInput { .. }), "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{url}");
        }
    }

    fn excepts(list: &str, host: &str) -> bool {
        is_excepted(list, &target(&format!("https://{host}")))
    }

    #[test]
    fn exceptions_cover_names_suffixes_and_ports() {
        for (list, covered) in [
            ("api.example.com", true),
            ("API.Example.COM", true),
            ("a b,example.com", true),
            (" .example.com ", true),
            ("*.example.com", true),
            ("*", true),
            ("example.com:443", true),
            ("example.com:80", false),
            ("ple.com", false),
            ("api.example.com.evil", false),
            ("", false),
            (",", false),
            (".", false),
            (":443", false),
            ("example.com/8", false),
        ] {
            assert_eq!(excepts(list, "api.example.com"), covered, "{list}");
        }
    }

    #[test]
    fn exceptions_cover_addresses_whole_and_by_network() {
        for (host, list, covered) in [
            ("127.0.0.1", "0.0.1", false),
            ("127.0.0.1", ".0.0.1", false),
            ("127.0.0.1", "*.0.0.1", false),
            ("127.0.0.1", "*", true),
            ("127.0.0.1:8443", "127.0.0.1:8443", true),
            ("127.0.0.1:8443", "127.0.0.0/8:8443", true),
            ("127.0.0.1:8443", "127.0.0.1:443", false),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("10.1.2.3", "10.0.0.0/x", false),
            ("10.1.2.3", "10.0.0.0/", false),
            ("10.1.2.3", "10.0.0.0/-8", false),
            ("10.1.2.3", "10.0.0.0/+8", false),
            ("10.1.2.3", "::/1", false),
            ("10.example.com", "10.0.0.0/8", false),
            ("[::1]", "::1", true),
            ("[::1]", "[::1]", true),
            ("[::1]:8443", "::1", true),
            ("[::1]:8443", "[::1]:8443", true),
            ("[::1]:8443", "[::1]:443", false),
            ("[fd12::1]", "fd00::/8", true),
            ("[fe80::1]", "fd00::/8", false),
            ("[fd12::1]", "fd00::/129", false),
        ] {
            assert_eq!(excepts(list, host), covered, "{list} for {host}");
        }
    }

    #[test]
    fn exceptions_are_those_of_curls_own_test() {
        // tests/unit/unit1614.c: the networks, then the lists.
        for (host, network, bits, covered) in [
            ("192.160.0.1", "192.160.0.1", 33, false),
            ("192.160.0.1", "192.160.0.1", 32, true),
            ("192.160.0.1", "192.160.0.1", 0, true),
            ("192.160.0.1", "192.160.0.1", 24, true),
            ("192.160.0.1", "192.160.0.1", 26, true),
            ("192.160.0.1", "192.160.0.1", 20, true),
            ("192.160.0.1", "192.160.0.1", 18, true),
            ("192.160.0.1", "192.160.0.1", 12, true),
            ("192.160.0.1", "192.160.0.1", 8, true),
            ("192.160.0.1", "10.0.0.1", 8, false),
            ("192.160.0.1", "10.0.0.1", 32, false),
            ("192.160.0.1", "10.0.0.1", 0, false),
            ("[::1]", "::1", 0, true),
            ("[::1]", "::1", 128, true),
            ("[::1]", "0:0::1", 128, true),
            ("[::1]", "0:0::1", 129, false),
            ("[fe80::ab47:4396:55c9:8474]", "fe80::ab47:4396:55c9:8474", 64, true),
        ] {
            let list = format!("{network}/{bits}");
            assert_eq!(excepts(&list, host), covered, "{list} for {host}");
        }
        let long = "localhost,".to_owned() + &"127.0.0.1.".repeat(12) + "127.0.0";
        for (host, list, covered) in [
            ("www.example.com", "localhost,.example.com,.example.de", true),
            ("www.example.com.", "localhost,.example.com,.example.de", true),
            ("example.com", "localhost,.example.com,.example.de", true),
            ("example.com.", "localhost,.example.com,.example.de", true),
            ("www.example.com", "localhost,.example.com.,.example.de", true),
            ("www.example.com", "localhost,www.example.com.,.example.de", true),
            ("example.com", "localhost,example.com,.example.de", true),
            ("example.com.", "localhost,example.com,.example.de", true),
            ("www.example.com", "localhost,example.com,.example.de", true),
            ("127.0.0.1", "127.0.0.1,localhost", true),
            ("127.0.0.1", "127.0.0.1,localhost,", true),
            ("127.0.0.1", "127.0.0.1/8,localhost,", true),
            ("127.0.0.1", "127.0.0.1/28,localhost,", true),
            ("127.0.0.1", "127.0.0.1/31,localhost,", true),
            ("127.0.0.1", "localhost,127.0.0.1", true),
            ("127.0.0.1", &long, false),
            ("127.0.0.1", &(long.clone() + "."), false),
            ("localhost", "localhost,127.0.0.1", true),
            ("localhost", "127.0.0.1,localhost", true),
            ("foobar", "barfoo", false),
            ("foobar", "foobar", true),
            ("192.168.0.1", "foobar", false),
            ("192.168.0.1", "192.168.0.0/16", true),
            ("192.168.0.1", "192.168.0.0/24", true),
            ("192.168.0.1", "192.168.0.0/32", false),
            ("192.168.0.1", "192.168.0.0", false),
            ("192.168.1.1", "192.168.0.0/24", false),
            ("192.168.1.1", "foo, bar, 192.168.0.0/24", false),
            ("192.168.1.1", "foo, bar, 192.168.0.0/16", true),
            ("[::1]", "foo, bar, 192.168.0.0/16", false),
            ("[::1]", "foo, bar, ::1/64", true),
            ("bar", "foo, bar, ::1/64", true),
            ("BAr", "foo, bar, ::1/64", true),
            ("BAr", "foo,,,,,              bar, ::1/64", true),
            ("www.example.com", "foo, .example.com", true),
            ("www.example.com", "www2.example.com, .example.net", false),
            ("example.com", ".example.com, .example.net", true),
            ("nonexample.com", ".example.com, .example.net", false),
        ] {
            assert_eq!(excepts(list, host), covered, "{list} for {host}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(list in "[a-z.*:,\\[\\] 0-9]{0,20}", url in "\\PC{0,20}") {
            let api = target("https://api.example.com");
            let _ = parse("proxy", &url);
            let covered = is_excepted(&list, &api);
            // Whatever else stands there, an entry that names the host covers it.
            let longer = format!("{list} api.example.com");
            prop_assert!(is_excepted(&longer, &api));
            prop_assert!(!covered || list.contains('*') || list.contains("com"));
        }
    }
}
