//! A tunnel through a proxy by CONNECT (RFC 9110, section 9.3.6).
//!
//! ureq's own connector isn't used: it takes status 200 alone, parses at most 20 header
//! lines and no folded ones, and gives each read of the response the whole time limit.
//! Of the response only the status matters here, and all of it has one deadline.

use std::io::{self, Read, Write};

use ureq::unversioned::transport::{ConnectionDetails, NextTimeout, Transport, TransportAdapter};
use ureq::{Proxy, config::AutoHeaderValue, http::StatusCode};

use super::attempt::{Kind, TransportError};
use super::connect::time_left;
use super::redact::base64;
use super::resolver::host_and_port;
use crate::error::{Stage, is_temporary_status};

/// The longest head of a response that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Asks the proxy at the other end of `stream` for a tunnel to the host of `details`, within
/// what is left of their time limit.
pub(crate) fn open(
    stream: Box<dyn Transport>,
    details: &ConnectionDetails,
) -> Result<Box<dyn Transport>, TransportError> {
    let mut stream = TransportAdapter::new(stream, details.current_time.clone());
    // Of the adapter's reads and writes all together.
    stream.set_timeout(NextTimeout { after: time_left(details).into(), ..details.timeout });
    let no_response = |error: io::Error| TransportError::at(Stage::Proxy, error);
    stream.write_all(request(details).as_bytes()).map_err(no_response)?;
    loop {
        let head = read_head(&mut stream).map_err(no_response)?;
        let (kind, reason) = match head.as_deref().and_then(parse_status) {
            // More is to come (RFC 9110, section 15.2).
            Some(100..=199) => continue,
            Some(200..=299) => return Ok(stream.into_inner()),
            Some(status) if is_temporary_status(status) => {
                (Kind::Temporary, format!("status {status}"))
            }
            Some(status) => (Kind::Refused(status), String::new()),
            None => (Kind::Final, "it doesn't speak HTTP".to_owned()),
        };
        return Err(TransportError::new(Stage::Proxy, kind, reason));
    }
}

fn request(details: &ConnectionDetails) -> String {
    let target = host_and_port(details.uri).unwrap_or_default();
    let proxy = details.config.proxy();
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let AutoHeaderValue::Provided(agent) = details.config.user_agent() {
        request += &format!("User-Agent: {agent}\r\n");
    }
    if let Some(user) = proxy.and_then(Proxy::username) {
        let password = proxy.and_then(Proxy::password).unwrap_or_default();
        request += &format!("Proxy-Authorization: {}\r\n", basic(user, password));
    }
    request + "\r\n"
}

/// Credentials (RFC 7617, section 2), in base64 with padding.
fn basic(user: &str, password: &str) -> String {
    let pair = base64(format!("{user}:{password}").as_bytes());
    format!("Basic {pair:=<width$}", width = pair.len().next_multiple_of(4))
}

/// Reads a response up to the empty line after its headers, and nothing of what follows;
/// `None` for what isn't HTTP or has no end.
fn read_head(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
        // Out of the transport's buffer.
        stream.read_exact(&mut byte)?;
        head.extend(byte);
        let is_http = head.iter().zip(b"HTTP/1.").all(|(a, b)| a == b);
        if !is_http || head.len() > MAX_HEAD {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// The status of `HTTP/1.x NNN …`.
fn parse_status(head: &[u8]) -> Option<u16> {
    let mut words = head.split(u8::is_ascii_whitespace);
    let is_http = matches!(words.next()?, b"HTTP/1.0" | b"HTTP/1.1");
    let status = StatusCode::from_bytes(words.next()?).ok()?;
    is_http.then(|| status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_are_in_base64() {
        for (user, password, expected) in [
            ("", "", "Og=="),
            ("f", "", "Zjo="),
            ("f", "o", "Zjpv"),
            ("f", "oo", "Zjpvbw=="),
            ("me", "pröxy/?", "bWU6cHLDtnh5Lz8="),
        ] {
            assert_eq!(basic(user, password), format!("Basic {expected}"));
        }
    }

    #[test]
    fn a_status_is_three_digits_after_the_version() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
            ("HTTP/1.0 407 Proxy Authentication Required\n\n", Some(407)),
            ("HTTP/1.1 204\r\n\r\n", Some(204)),
            ("HTTP/1.1 2000\r\n\r\n", None),
            ("HTTP/1.1 +20 OK\r\n\r\n", None),
            ("HTTP/1.1 20\r\n\r\n", None),
            ("HTTP/1.1 099\r\n\r\n", None),
            ("HTTP/1.2 200 OK\r\n\r\n", None),
            ("HTTP/1.1\r\n\r\n", None),
        ] {
            assert_eq!(parse_status(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn a_head_of_16_kb_is_read_and_none_that_is_longer() {
        for (length, fits) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
            let head = format!("{:x<width$}\r\n\r\n", "HTTP/1.1 200 ", width = length - 4);
            let read = read_head(&mut head.as_bytes()).unwrap();
            assert_eq!(read, fits.then(|| head.into_bytes()));
        }
    }

    #[test]
    fn what_is_not_http_is_not_waited_for() {
        let mut banner = &b"SSH-2.0-OpenSSH\r\n"[..];
        assert_eq!(read_head(&mut banner).unwrap(), None);
        assert_eq!(banner, b"SH-2.0-OpenSSH\r\n");
    }

    /// Gives as many bytes at a time as there are in a chunk.
    struct Chunks(Vec<Vec<u8>>);

    impl Read for Chunks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(chunk) = self.0.first_mut() else {
                return Ok(0);
            };
            let length = chunk.as_slice().read(buffer)?;
            chunk.drain(..length);
            self.0.retain(|chunk| !chunk.is_empty());
            Ok(length)
        }
    }

    proptest! {
        #[test]
        fn what_follows_the_head_is_left_in_the_stream(
            headers in "(X-[a-z]{1,5}: [ -~]{0,20}\r?\n([ \t][!-~]{1,9}\r?\n)?){0,40}",
            end in "\r?\n", rest in ".{0,20}", cut in 1..30_usize,
        ) {
            let head = format!("HTTP/1.1 200 OK\r\n{headers}{end}");
            let all = (head.clone() + &rest).into_bytes();
            let mut stream = Chunks(all.chunks(cut).map(<[u8]>::to_vec).collect());
            prop_assert_eq!(read_head(&mut stream).unwrap(), Some(head.into_bytes()));
            let mut left = String::new();
            stream.read_to_string(&mut left).unwrap();
            prop_assert_eq!(left, rest);
        }
    }
}
