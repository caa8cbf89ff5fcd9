//! Certificates in PEM (RFC 7468), and rustls's errors about a handshake in words.

use std::borrow::Cow;

use ureq::tls::Certificate;

use super::{date::format_date, redact::Redactor};
use crate::error::Stage;

/// The most names of a certificate that a message lists.
const MAX_NAMES: usize = 5;

const NOTHING_IN_COMMON: &str = "no version, cipher or kind of key in common with the server";

const REFUSED_AT_FIRST: &str =
    "the server refused it: no version, cipher or kind of key in common, or no client certificate";

/// What rustls says, in `Debug` text as well, and why there is no connection. The first
/// that fits is taken. A time that follows the phrase is shown as a date after the reason.
const REASONS: [(&str, &str); 13] = [
    ("invalid peer certificate: UnknownIssuer", "not trusted by Mozilla's root certificates"),
    // An authority made anew under the same name, or RSA of 1024 bits.
    ("BadSignature", "not signed with a trusted key, or with one of a kind that isn't supported"),
    (", but certificate is not valid after ", "expired on"),
    (", but certificate is not valid before ", "not valid before"),
    ("CaUsedAsEndEntity", "a certificate authority's own, which a server can't use"),
    ("UnsupportedSignatureAlgorithm", "signed with an unsupported kind of key or signature"),
    ("certificate does not allow extended key usage", "not made for servers"),
    ("invalid peer certificate", "not valid"),
    ("peer is incompatible", NOTHING_IN_COMMON),
    ("received fatal alert: HandshakeFailure", REFUSED_AT_FIRST),
    ("received fatal alert: ProtocolVersion", NOTHING_IN_COMMON),
    ("received fatal alert", "the server refused it"),
    ("received corrupt message", "the server doesn't speak TLS"),
];

/// Returns the certificates of a PEM file. Other text and other blocks are passed over.
///
/// # Errors
///
/// Returns a reason, to follow the name of the file, if there is no certificate in it,
/// or one that can't be used: rustls would leave it out without an error.
pub(crate) fn parse_pem(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    // PEM is ASCII. DER holds NUL, and UTF-16, which PowerShell writes, is half NUL.
    if pem.contains(&0) {
        return Err("not text: convert DER with `openssl x509 -inform der`, UTF-16 to UTF-8".into());
    }
    // Nearly all files are UTF-8, which is told faster than `from_utf8_lossy` converts.
    let text = str::from_utf8(pem).map_or_else(|_| String::from_utf8_lossy(pem), Cow::from);
    let certificates = text.match_indices("BEGIN").filter_map(|(at, begin)| {
        let (before, block) = (&text[..at], &text[at + begin.len()..]);
        let refuse = |reason| format!("line {}: {reason}", before.matches('\n').count() + 1);
        Some(decode(certificate_body(before, block)?).map_err(refuse))
    });
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err("no certificate in PEM: it begins with `-----BEGIN CERTIFICATE-----`".into());
    }
    Ok(certificates)
}

/// Copying through a word processor makes other dashes of hyphens.
fn is_dash(character: char) -> bool {
    character == '-' || !character.is_ascii()
}

/// Returns what follows the label of a block, if that says that it is a certificate: also
/// the old labels of RFC 7468, section 5.1, and OpenSSL's `TRUSTED CERTIFICATE`.
fn certificate_body<'a>(before: &str, block: &'a str) -> Option<&'a str> {
    const OTHER_BLOCKS: [&str; 3] =
        ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "ATTRIBUTE CERTIFICATE"];
    let label_ends = |c| is_dash(c) || c == '\n' || c == '\r';
    let (label, body) = block.split_at(block.find(label_ends).unwrap_or(block.len()));
    let body = body.trim_start_matches(is_dash).trim_start();
    let says_certificate = label.contains("CERTIFICATE") && !OTHER_BLOCKS.contains(&label.trim());
    let line_start = before.rsplit(['\n', '\r']).next().unwrap_or_default();
    let is_commented_out = line_start.starts_with('#') && body.starts_with('#');
    (before.ends_with(is_dash) && says_certificate && !is_commented_out).then_some(body)
}

/// Decodes a certificate, without what may follow it: OpenSSL appends its trust settings.
fn decode(body: &str) -> Result<Certificate<'static>, &'static str> {
    // Most of a file is searched here, which is faster by bytes.
    let dash = body.bytes().position(|byte| byte == b'-' || !byte.is_ascii());
    let (base64, end) = body.split_at(dash.unwrap_or(body.len()));
    if !end.trim_start_matches(is_dash).starts_with("END") {
        return Err("the certificate is cut off: copy the file again");
    }
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    let decoded = Certificate::from_pem(pem.as_bytes())
        .map_err(|_| "the certificate isn't valid base64: copy the file again")?;
    let der = leading_certificate(decoded.der())
        .ok_or("not a whole X.509 certificate: copy or export it again")?;
    Ok(Certificate::from_der(der).to_owned())
}

/// Returns the certificate in DER (RFC 5280, section 4.1) at the start, if it has the
/// fields that rustls wants of a root certificate: of version 3, or of version 1, which
/// isn't written and has no extensions.
fn leading_certificate(der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    let skip = |der, tag| Some(element(tag, der)?.1);
    let (certificate, rest) = element(SEQUENCE, der)?;
    let (fields, signature) = element(SEQUENCE, certificate)?;
    let version_3 = fields.strip_prefix(&[0xa0, 3, 2, 1, 2]);
    // The serial number, then signature, issuer, validity, subject and key.
    let tags = [0x02, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE];
    let fields_end = tags.into_iter().try_fold(version_3.unwrap_or(fields), skip)?;
    // The extensions, which may be left out.
    let extensions_end = version_3.and_then(|_| skip(fields_end, 0xa3)).unwrap_or(fields_end);
    // The algorithm once more, and the signature.
    let signature_end = [SEQUENCE, 0x03].into_iter().try_fold(signature, skip)?;
    let is_whole = extensions_end.is_empty() && signature_end.is_empty();
    is_whole.then(|| &der[..der.len() - rest.len()])
}

/// Splits the first element of DER off, if it has this tag: its content, and what follows
/// it. Each length is written in the shortest form. rustls takes no element of 64 KB and
/// more.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der.strip_prefix(&[tag])? {
        [len @ ..=0x7f, rest @ ..] | [0x81, len @ 0x80..=0xff, rest @ ..] => ([0, *len], rest),
        [0x82, high @ 1..=0xff, low, rest @ ..] => ([*high, *low], rest),
        _ => return None,
    };
    rest.split_at_checked(u16::from_be_bytes(length).into())
}

/// Puts what rustls says of a failed handshake with this host into words. It isn't a
/// dependency, so its errors, which ureq wraps, are told by their text.
pub(crate) fn describe(
    message: &str,
    host: &str,
    own_roots: bool,
    redactor: &Redactor<'_>,
) -> (Stage, String) {
    let known = REASONS.iter().find(|(phrase, _)| message.contains(phrase));
    let (phrase, reason) = *known.unwrap_or(&(message, "it failed"));
    let (_, after) = message.split_once(phrase).unwrap_or_default();
    let seconds = after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let text = if message.starts_with("invalid peer certificate: certificate not valid for name") {
        let names = redactor.line(&names(message)).unwrap_or_else(|| "other names".to_owned());
        format!("made for {names}, not for {host}")
    } else if own_roots && message.starts_with("invalid peer certificate: UnknownIssuer") {
        "not trusted by the root certificates given, which don't hold its issuer's".to_owned()
    } else if let Ok(seconds) = seconds.parse() {
        format!("{reason} {}", format_date(seconds))
    } else {
        reason.to_owned()
    };
    let is_certificate = message.starts_with("invalid peer certificate: ");
    (if is_certificate { Stage::Certificate } else { Stage::Tls }, text)
}

/// The host names and addresses that a certificate is made for, as far as a message
/// has room for them. rustls writes them out as they come.
fn names(error: &str) -> String {
    let (_, list) = error.split_once("; certificate is only valid for ").unwrap_or_default();
    let list = list.replace(" or ", ", ");
    let names = list.split(", ").filter_map(|name| {
        let name = name.strip_prefix("DnsName(\"").or(name.strip_prefix("IpAddress("))?;
        Some(name.trim_end_matches(['"', ')']))
    });
    let names = names.enumerate().map(|(n, name)| if n < MAX_NAMES { name } else { "…" });
    let names: Vec<&str> = names.take(MAX_NAMES + 1).collect();
    if names.is_empty() { "no host (subjectAltName)".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    // Most of these make handshakes.
    #![cfg_attr(not(feature = "ring"), allow(dead_code, unused_imports))]

    use std::io::{self, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, SanType, date_time_ymd,
    };
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, ServerConfig, ServerConnection};
    use ureq::Agent;
    use ureq::tls::{RootCerts, TlsConfig};

    use super::{describe as describe_redacted, *};

    /// Made by `openssl req -x509`.
    const VERSION_3: &str = "\
-----BEGIN CERTIFICATE-----
MIIBkjCCATegAwIBAgIUBDHcSUDbLOHfQb7Ukcf+BaRt9jEwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSaGVyZS1kYXRhbGVucy10ZXN0MCAXDTI2MTEyNTE1MzA1NloY
DzIxMjYxMTAxMTUzMDU2WjAdMRswGQYDVQQDDBJoZXJlLWRhdGFsZW5zLXRlc3Qw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARF5l8MEGwn8/OBugcqAIUI46//QODi
N5/gbChA82Vr+fZWy/f/N/81wQf7igiqSDzulUe2D5M2oOo3p/r2w093o1MwUTAd
BgNVHQ4EFgQUpEIt9Pcn0Vg0QKAeKQMx5s38YUIwHwYDVR0jBBgwFoAUpEIt9Pcn
0Vg0QKAeKQMx5s38YUIwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBG
AiEA0RM6Ew8r1ssPfbryxIXdm1zfZl/wkO5+G+NDAWd/9zQCIQCgB442rAEkggd9
6oujn2HguELBNms0YvtVQLIUa9xqjQ==
-----END CERTIFICATE-----
";

    /// Made by `openssl x509 -req`, without extensions.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBNzCB3QIUa2QKd2NPk1S7QPNgk68SNaGUb+4wCgYIKoZIzj0EAwIwHTEbMBkG
A1UEAwwSaGVyZS1kYXRhbGVucy10ZXN0MCAXDTI2MTEyNTE1MzA1NloYDzIxMjYx
MTAxMTUzMDU2WjAdMRswGQYDVQQDDBJoZXJlLWRhdGFsZW5zLXRlc3QwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQ/IgCK6CA1FA1XCb7PqycLNyJtxHE2zwp5XDot
3rhJ6L5+91Dp5cR8Rc2HXTF1pXbqhwLIYrhx8/njoS0YytOgMAoGCCqGSM49BAMC
A0kAMEYCIQDdTa+t3rmIIXQz/JUa/6wdfgfmmMYzz9PXTqp2akAE2gIhANFlPDb9
Nju2CWiju5o4P7k2xfygDSubu1v76sQrTnVN
-----END CERTIFICATE-----
";

    /// Made by `openssl x509 -trustout -addtrust serverAuth -setalias us`.
    const TRUSTED: &str = "\
-----BEGIN TRUSTED CERTIFICATE-----
MIIBkjCCATegAwIBAgIUBDHcSUDbLOHfQb7Ukcf+BaRt9jEwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSaGVyZS1kYXRhbGVucy10ZXN0MCAXDTI2MTEyNTE1MzA1NloY
DzIxMjYxMTAxMTUzMDU2WjAdMRswGQYDVQQDDBJoZXJlLWRhdGFsZW5zLXRlc3Qw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARF5l8MEGwn8/OBugcqAIUI46//QODi
N5/gbChA82Vr+fZWy/f/N/81wQf7igiqSDzulUe2D5M2oOo3p/r2w093o1MwUTAd
BgNVHQ4EFgQUpEIt9Pcn0Vg0QKAeKQMx5s38YUIwHwYDVR0jBBgwFoAUpEIt9Pcn
0Vg0QKAeKQMx5s38YUIwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBG
AiEA0RM6Ew8r1ssPfbryxIXdm1zfZl/wkO5+G+NDAWd/9zQCIQCgB442rAEkggd9
6oujn2HguELBNms0YvtVQLIUa9xqjTAQMAoGCCsGAQUFBwMBDAJ1cw==
-----END TRUSTED CERTIFICATE-----
";

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn ders(pem: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
        let certificates = parse_pem(pem.as_ref()).unwrap();
        certificates.iter().map(|c| c.der().to_vec()).collect()
    }

    fn refusal(pem: impl AsRef<[u8]>) -> String {
        parse_pem(pem.as_ref()).unwrap_err()
    }

    fn rustls_takes(der: Vec<u8>) -> bool {
        RootCertStore::empty().add(CertificateDer::from(der)).is_ok()
    }

    fn describe(message: &str, host: &str, own_roots: bool) -> (Stage, String) {
        describe_redacted(message, host, own_roots, &Redactor::default())
    }

    #[test]
    fn certificates_are_taken_however_their_lines_are_laid_out() {
        let next = authority("next");
        let expected = [ders(VERSION_3).remove(0), next.der().to_vec()];
        let pem = VERSION_3;
        let body: String = pem.lines().filter(|line| !line.contains('-')).collect();
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        for first in [
            pem.to_owned(),
            pem.trim_end().to_owned(), // END and BEGIN on one line
            format!("\u{feff}{pem}"),
            pem.replace('\n', "\r\n"),
            pem.replace('\n', "\r"),
            pem.replace('\n', "  \t\n \t "),
            pem.replace('\n', " "), // all on one line
            pem.replace('\n', "\n\n"),
            format!("{begin}\n{body}\n{end}\n"),
            format!("{begin}{body}{end}"),
            format!("# of our company{pem}"), // no line end before it
            pem.replace("-----", "----"),
            pem.replace("-----", "—–"),
            pem.replace("CERTIFICATE-----\n", "CERTIFICATE\n"),
            pem.replace(" CERTIFICATE", " X509 CERTIFICATE"),
            pem.replace(" CERTIFICATE", " X.509 CERTIFICATE"),
            pem.replace(" CERTIFICATE", " TRUSTED CERTIFICATE"),
            pem.replace(" CERTIFICATE", " CERTIFICATES"),
            pem.replace(" CERTIFICATE", " CERTIFICATE CHAIN"),
            TRUSTED.to_owned(),
            TRUSTED.replace("TRUSTED ", ""),
        ] {
            assert_eq!(ders(format!("{first}{}", next.pem())), expected, "{first}");
        }
    }

    #[test]
    fn other_text_and_other_blocks_are_passed_over() {
        let pem = VERSION_3;
        let expected = ders(pem);
        let commented: String = pem.lines().map(|line| format!("#{line}\r\n")).collect();
        let key = KeyPair::generate().unwrap().serialize_pem();
        let request = pem.replace(" CERTIFICATE", " CERTIFICATE REQUEST");
        let attributes = pem.replace(" CERTIFICATE", " ATTRIBUTE CERTIFICATE");
        for other in [
            "Issuer: CN=Ünïversity, BEGIN CERTIFICATE\n====\n".as_bytes(),
            b"Issuer: CN=Universit\xe4t\n",
            b"  subject=/CN=x -- y\n-----\n",
            b"-----BEGIN X509 CRL-----\nnot base64!\n-----END X509 CRL-----\n",
            b"-----BEGIN PRIVATE KEY-----\ncut off\n",
            commented.as_bytes(),
            key.as_bytes(),
            request.as_bytes(),
            attributes.as_bytes(),
        ] {
            let text = String::from_utf8_lossy(other);
            assert_eq!(ders([other, pem.as_bytes()].concat()), expected, "{text}");
            assert_eq!(ders([pem.as_bytes(), other].concat()), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_refused_with_its_line() {
        let pem = VERSION_3;
        let line = pem.lines().nth(3).unwrap();
        let cut = "the certificate is cut off: copy the file again";
        let base64 = "the certificate isn't valid base64: copy the file again";
        let whole = "not a whole X.509 certificate: copy or export it again";
        let request = CertificateParams::new(Vec::new()).unwrap();
        let request = request.serialize_request(&KeyPair::generate().unwrap());
        for (bad, expected) in [
            (pem.split("-----END").next().unwrap().to_owned(), cut),
            (pem.replace("-----END CERTIFICATE-----\n", ""), cut),
            (format!("{}\n{pem}", pem.split_once(line).unwrap().0), cut),
            ("-----BEGIN CERTIFICATE-----".to_owned(), cut),
            ("-----BEGIN CERTIFICATE".to_owned(), cut),
            (pem.replace(line, &format!("{}*", &line[1..])), base64),
            (pem.replace(line, &line[1..]), base64),
            (pem.replace(line, &format!("{line}=")), base64),
            (pem.replace(&format!("{line}\n"), ""), whole),
            (pem.replace("-----\nMII", "-----\n# ours\nMII"), base64),
            (pem.replace("MII", "AII"), whole),
            (pem.replace(line, ""), whole),
            (request.unwrap().pem().unwrap().replace(" REQUEST", ""), whole),
            (pem.replace(" CERTIFICATE", " CERTIFICATES").replace("MII", "AII"), whole),
        ] {
            let line = pem.lines().count() + 2;
            let reason = refusal(format!("{pem}# the next\n{bad}"));
            assert_eq!(reason, format!("line {line}: {expected}"), "{bad}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_says_what_it_is() {
        let utf16: Vec<u8> = VERSION_3.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mixed = [VERSION_3.as_bytes(), &utf16].concat();
        let key = KeyPair::generate().unwrap().serialize_pem();
        for (file, expected) in [
            (authority("one").der().to_vec(), "not text"),
            (utf16, "not text"),
            (mixed, "not text"),
            (key.into_bytes(), "no certificate in PEM"),
            (Vec::new(), "no certificate in PEM"),
            (b"<html>Not found</html>".to_vec(), "no certificate in PEM"),
            ("\u{feff}".into(), "no certificate in PEM"),
        ] {
            let reason = refusal(&file);
            assert!(reason.starts_with(expected), "{reason}");
            assert!(reason.contains(": "), "no remedy: {reason}");
        }
    }

    #[test]
    fn of_a_trusted_certificate_the_trust_settings_are_left_out() {
        let settings = TRUSTED.replace("TRUSTED ", "");
        let with_settings = Certificate::from_pem(settings.as_bytes()).unwrap();
        assert_eq!(ders(TRUSTED), ders(VERSION_3));
        assert!(with_settings.der().len() > ders(TRUSTED)[0].len());
    }

    #[test]
    fn root_certificates_of_versions_1_and_3_are_taken() {
        for pem in [VERSION_1, VERSION_3] {
            assert!(rustls_takes(ders(pem).remove(0)), "{pem}");
        }
        // Version 2.
        let mut der = ders(VERSION_3).remove(0);
        let at = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
        der[at + 4] = 1;
        assert!(leading_certificate(&der).is_none() && !rustls_takes(der));
    }

    #[test]
    fn a_certificate_with_more_in_it_than_belongs_there_is_refused() {
        let der = ders(VERSION_3).remove(0);
        let (content, _) = element(0x30, &der).unwrap();
        let (fields, rest) = element(0x30, content).unwrap();
        let sequence = |parts: &[&[u8]]| {
            let content = parts.concat();
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[0x30, 0x82][..], &length, &content].concat()
        };
        let more = &[5, 0][..];
        assert_eq!(sequence(&[&sequence(&[fields]), rest]), der);
        for der in [
            sequence(&[&sequence(&[fields, more]), rest]),
            sequence(&[&sequence(&[fields]), rest, more]),
        ] {
            assert!(leading_certificate(&der).is_none() && !rustls_takes(der));
        }
    }

    #[test]
    fn elements_are_those_of_der() {
        let element_of = |head: &[u8], length| [head, &vec![7; length]].concat();
        for (der, content) in [
            (element_of(&[4, 0], 0), Some(0)),
            (element_of(&[4, 2], 3), Some(2)),
            (element_of(&[4, 2], 1), None),
            (element_of(&[4, 0x7f], 0x7f), Some(0x7f)),
            (element_of(&[4, 0x80], 9), None),
            (element_of(&[4, 0x81, 0x7f], 0x7f), None),
            (element_of(&[4, 0x81, 0x80], 0x80), Some(0x80)),
            (element_of(&[4, 0x82, 0, 0xff], 0xff), None),
            (element_of(&[4, 0x82, 1, 0], 0x100), Some(0x100)),
            (element_of(&[4, 0x83, 1, 0, 0], 0x10000), None),
            (element_of(&[4, 0x81], 0), None),
            (element_of(&[4, 0x82, 1], 0), None),
            (element_of(&[4], 0), None),
            (Vec::new(), None),
        ] {
            let found = element(4, &der).map(|(content, _)| content.len());
            assert_eq!(found, content, "{der:x?}");
            assert_eq!(element(5, &der), None);
        }
    }

    proptest! {
        #[test]
        fn what_rustls_takes_is_taken(at in 0..400_usize, byte: u8, cut in 0..1_600_usize) {
            let mut der = ders(VERSION_3).remove(0);
            let at = at % der.len();
            der[at] = byte;
            der.truncate(cut);
            let taken = leading_certificate(&der) == Some(&der[..]);
            prop_assert!(taken || !rustls_takes(der));
        }

        #[test]
        fn a_changed_file_is_no_panic(at in 0..700_usize, other: char, cut in 0..1_400_usize) {
            let changed = VERSION_3.chars().enumerate();
            let text: String = changed.map(|(i, c)| if i == at { other } else { c }).collect();
            let _ = parse_pem(&text.as_bytes()[..cut.min(text.len())]);
        }
    }

    /// A certificate for these names, but for what the closure changes, and its key.
    fn server(
        issuer: &Authority,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<u8>, KeyPair) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        (certificate.der().to_vec(), key)
    }

    fn for_names(issuer: &Authority, names: &[&str]) -> (Vec<u8>, KeyPair) {
        server(issuer, names, |_| ())
    }

    fn serve_tls((certificate, key): (Vec<u8>, KeyPair)) -> u16 {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key)
            .unwrap();
        serve(move |stream| {
            let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
            while tls.is_handshaking() && tls.complete_io(stream).is_ok() {}
        })
    }

    /// Serves one connection.
    fn serve(handle: impl FnOnce(&mut TcpStream) + Send + 'static) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || handle(&mut listener.accept().unwrap().0));
        port
    }

    /// The text of the error of a request to this port.
    fn failure(host: &str, port: u16, roots: RootCerts) -> String {
        let agent: Agent = Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(20)))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .into();
        match agent.get(format!("https://{host}:{port}/")).call() {
            Err(ureq::Error::Io(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                error.to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    fn roots(authority: &Authority) -> RootCerts {
        RootCerts::new_with_certs(&parse_pem(authority.pem().as_bytes()).unwrap())
    }

    #[track_caller]
    fn rejects(certificate: (Vec<u8>, KeyPair), trusted: &Authority, words: &str) -> Stage {
        let text = failure("localhost", serve_tls(certificate), roots(trusted));
        let (stage, reason) = describe(&text, "localhost", true);
        assert_eq!(reason, words, "{text}");
        stage
    }

    #[cfg(feature = "ring")]
    #[test]
    fn an_unknown_issuer_alone_is_a_matter_of_the_roots() {
        let (ours, other, anew) = (authority("ours"), authority("other"), authority("ours"));
        let good = || for_names(&ours, &["localhost"]);
        let words = "not trusted by the root certificates given, which don't hold its issuer's";
        assert_eq!(rejects(good(), &other, words), Stage::Certificate);
        let same_name = "not signed with a trusted key, or with one of a kind that isn't supported";
        assert_eq!(rejects(good(), &anew, same_name), Stage::Certificate);
        let text = failure("localhost", serve_tls(good()), RootCerts::WebPki);
        let words = "not trusted by Mozilla's root certificates".to_owned();
        assert_eq!(describe(&text, "localhost", false), (Stage::Certificate, words));
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_certificate_out_of_its_time_says_its_date() {
        let ours = authority("ours");
        let valid = |first, last| {
            server(&ours, &["localhost"], |params| {
                params.not_before = date_time_ymd(first, 1, 1);
                params.not_after = date_time_ymd(last, 1, 1);
            })
        };
        let failure = rejects(valid(2001, 2002), &ours, "expired on 2002-01-01");
        assert_eq!(failure, Stage::Certificate);
        rejects(valid(2930, 2931), &ours, "not valid before 2930-01-01");
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_certificate_for_another_host_says_which() {
        let ours = authority("ours");
        for (names, words) in [
            (&["a.a"][..], "made for a.a, not for localhost"),
            (&["a.a", "*.b.b"], "made for a.a, *.b.b, not for localhost"),
            (&["a.a", "10.0.0.1", "b.b"], "made for a.a, 10.0.0.1, b.b, not for localhost"),
            (
                &["a.a", "b.b", "c.c", "d.d", "e.e"],
                "made for a.a, b.b, c.c, d.d, e.e, not for localhost",
            ),
            (
                &["a.a", "b.b", "c.c", "d.d", "e.e", "f.f", "g.g"],
                "made for a.a, b.b, c.c, d.d, e.e, …, not for localhost",
            ),
            (&[], "made for no host (subjectAltName), not for localhost"),
        ] {
            let failure = rejects(for_names(&ours, names), &ours, words);
            assert_eq!(failure, Stage::Certificate);
        }
        let address = serve_tls(for_names(&ours, &["a.a"]));
        let text = failure("127.0.0.1", address, roots(&ours));
        assert_eq!(describe(&text, "127.0.0.1", true).1, "made for a.a, not for 127.0.0.1");
    }

    #[cfg(feature = "ring")]
    #[test]
    fn names_of_a_certificate_are_cleaned_and_only_those_of_hosts_listed() {
        let ours = authority("ours");
        let for_name = |name| server(&ours, &[], |params| params.subject_alt_names = vec![name]);
        let mail = for_name(SanType::Rfc822Name("me@a.a".try_into().unwrap()));
        rejects(mail, &ours, "made for no host (subjectAltName), not for localhost");
        let hostile = for_name(SanType::DnsName("a\u{1b}[31m\n b\u{7f}".try_into().unwrap()));
        rejects(hostile, &ours, "made for a [31m b, not for localhost");
        let long = for_name(SanType::DnsName("a".repeat(9_000).try_into().unwrap()));
        let words = format!("made for {}…, not for localhost", "a".repeat(200));
        rejects(long, &ours, &words);
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_certificate_for_another_use_says_so() {
        let ours = authority("ours");
        let of_an_authority = server(&ours, &["localhost"], |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        });
        let words = "a certificate authority's own, which a server can't use";
        assert_eq!(rejects(of_an_authority, &ours, words), Stage::Certificate);
        let of_a_client = server(&ours, &["localhost"], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        rejects(of_a_client, &ours, "not made for servers");
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_signature_of_another_kind_is_not_supported() {
        let ours = authority("ours");
        let (mut der, key) = for_names(&ours, &["localhost"]);
        // ecdsa-with-SHA256 becomes ecdsa-with-SHA224 (RFC 5758, section 3.2).
        let sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        for at in 0..der.len() - sha256.len() {
            if der[at..].starts_with(&sha256) {
                der[at + 7] = 1;
            }
        }
        let words = "signed with an unsupported kind of key or signature";
        assert_eq!(rejects((der, key), &ours, words), Stage::Certificate);
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_handshake_that_fails_otherwise_is_no_matter_of_certificates() {
        for (response, words) in [
            (&[0x15, 3, 3, 0, 2, 2, 0x28][..], REFUSED_AT_FIRST), // handshake_failure
            (&[0x15, 3, 3, 0, 2, 2, 0x50], "the server refused it"), // internal_error
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server doesn't speak TLS"),
        ] {
            let port = serve(move |stream| {
                let _ = stream.write_all(response);
                let _ = io::copy(stream, &mut io::sink());
            });
            let text = failure("localhost", port, RootCerts::WebPki);
            let expected = (Stage::Tls, words.to_owned());
            assert_eq!(describe(&text, "localhost", false), expected, "{text}");
        }
    }

    #[test]
    fn every_other_error_of_rustls_is_in_words() {
        use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};
        let kind = "signed with an unsupported kind of key or signature";
        let other = CertificateError::Other(OtherError(Arc::new(io::Error::other("x"))));
        let algorithm = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![1],
            public_key_algorithm_id: vec![2],
        };
        for (error, words) in [
            (CertificateError::Revoked.into(), "not valid"),
            (algorithm.into(), kind),
            (CertificateError::Expired.into(), "not valid"),
            (CertificateError::BadEncoding.into(), "not valid"),
            (other.into(), "not valid"),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), NOTHING_IN_COMMON),
            (Error::AlertReceived(AlertDescription::CertificateRequired), "the server refused it"),
            (Error::NoCertificatesPresented, "it failed"),
            (Error::General("x".to_owned()), "it failed"),
        ] {
            let text = io::Error::new(io::ErrorKind::InvalidData, error).to_string();
            assert_eq!(describe(&text, "localhost", false).1, words, "{text}");
        }
        for (error, words) in [
            ("Other(OtherError(UnsupportedCertVersion))", "not valid"),
            ("certificate of a kind unheard of: X { y: 1 }", "not valid"),
            ("", "not valid"),
        ] {
            let text = format!("invalid peer certificate: {error}");
            assert_eq!(describe(&text, "localhost", false).1, words);
        }
    }
}
