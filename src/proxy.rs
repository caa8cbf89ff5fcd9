//! The proxy that a setting or the environment names, by curl's rules.

use std::env;
use std::ffi::OsString;

use ureq::{Proxy, ProxyProtocol};

use crate::address::{Origin, decode, split_port};
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
        if !target.https {
            return Ok(None);
        }
        match self {
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
        let mut set = names
            .iter()
            .filter_map(|name| Some((*name, variable(name)?)));
        set.find(|(_, value)| !value.is_empty())
    };
    if let Some((name, list)) = first(&["no_proxy", "NO_PROXY"]) {
        let list = list.to_str().ok_or_else(|| not_utf8(name))?;
        if is_excepted(list, target) {
            return Ok(None);
        }
    }
    match first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]) {
        Some((name, url)) => parse(name, url.to_str().ok_or_else(|| not_utf8(name))?).map(Some),
        None => Ok(None),
    }
}

fn not_utf8(name: &'static str) -> Error {
    Error::setting(name, "isn't UTF-8")
}

/// Whether one of the entries of `no_proxy`, separated by commas or blanks, covers
/// the target: `*` all, a name itself and the names below it, each with or without
/// a port.
fn is_excepted(list: &str, target: &Origin) -> bool {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        let (name, port) = match entry.parse::<std::net::Ipv6Addr>() {
            Ok(address) => (format!("[{address}]"), None),
            Err(_) => match entry.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name.to_owned(), Some(port)),
                _ => (entry.to_owned(), None),
            },
        };
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let host = target.host.trim_end_matches('.');
        let below = host.strip_suffix(name.as_str());
        let covered = !name.is_empty() && below.is_some_and(|b| b.is_empty() || b.ends_with('.'));
        covered && port.is_none_or(|port| port.parse() == Ok(target.port))
    })
}

/// Takes a proxy's URL apart: `[http[s]://][user[:password]@]host[:port][/]`. No
/// message quotes it, since it may hold a password.
fn parse(name: &'static str, url: &str) -> Result<Proxy, Error> {
    let refuse = |reason: &str| Error::setting(name, reason);
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let protocol = match scheme.to_ascii_lowercase().as_str() {
        "http" => ProxyProtocol::Http,
        "https" => ProxyProtocol::Https,
        socks if socks.starts_with("socks") => {
            return Err(refuse(
                "SOCKS proxies aren't supported, only http:// and https://",
            ));
        }
        _ => return Err(refuse("must begin with http:// or https://")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (Some(user), authority),
        None => (None, authority),
    };
    let (host, port) = split_port(authority).map_err(refuse)?;
    let mut proxy = Proxy::builder(protocol).host(host.map_err(refuse)?);
    // curl's own default for a proxy without a port.
    proxy = proxy.port(port.unwrap_or(match protocol {
        ProxyProtocol::Https => 443,
        _ => 1080,
    }));
    if let Some(user) = user {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let plain = |text| {
            String::from_utf8(decode(text)).map_err(|_| refuse("its user or password isn't UTF-8"))
        };
        proxy = proxy.username(&plain(user)?).password(&plain(password)?);
    }
    // ureq's error is left out: it may quote the URL.
    proxy
        .build()
        .map_err(|_| refuse("isn't the URL of a proxy"))
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
            (
                &[
                    ("https_proxy", ""),
                    ("HTTPS_PROXY", "b"),
                    ("all_proxy", "c"),
                ],
                Some("b"),
            ),
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
            assert!(matches!(error, Error::Setting { .. }), "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn exceptions_cover_names_suffixes_ports_and_addresses() {
        let api = target("https://api.example.com");
        for (list, covered) in [
            ("api.example.com", true),
            ("API.Example.COM", true),
            ("a b,example.com", true),
            (" .example.com ", true),
            ("*.example.com", true),
            ("example.com:443", true),
            ("example.com:80", false),
            ("ple.com", false),
            ("api.example.com.evil", false),
            ("", false),
            (",", false),
            (".", false),
        ] {
            assert_eq!(is_excepted(list, &api), covered, "{list}");
        }
        let address = target("https://[::1]:8443");
        assert!(is_excepted("::1", &address));
        assert!(is_excepted("[::1]:8443", &address));
        assert!(!is_excepted("[::1]:443", &address));
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
