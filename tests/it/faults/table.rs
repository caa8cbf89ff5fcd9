//! The table of faults.

use crate::secrets::UNKNOWN;
use crate::support::fake_api::http::response;
#[cfg(feature = "gzip")]
use crate::support::gzip;

const GOOD: &str = r#"{"datasets":[]}"#;
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// The exit statuses of the command, which say what the library's advice is, too.
pub const DONE: i32 = 0;
/// It may work later, so that a read is retried.
pub const TEMPORARY: i32 = 4;
/// It won't by itself.
pub const FINAL: i32 = 5;

pub struct Fault {
    pub name: &'static str,
    /// The whole response.
    pub bytes: Vec<u8>,
    pub exit_status: i32,
    /// A part of the message.
    pub words: &'static str,
}

fn fault(
    name: &'static str,
    bytes: impl Into<Vec<u8>>,
    exit_status: i32,
    words: &'static str,
) -> Fault {
    let bytes = bytes.into();
    Fault { name, bytes, exit_status, words }
}

/// The head of a response that ends with the connection.
fn head(status: &str, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\r\n"
    )
}

fn ok(headers: &str, body: &str) -> String {
    head("200 OK", headers) + body
}

/// A response with a status, its length, and this body.
fn status(status: &str, body: &str) -> Vec<u8> {
    let headers = ["Content-Type: application/json", "Connection: close"];
    response(status, &headers, body.as_bytes())
}

fn body(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let headers = ["Content-Type: application/json", "Connection: close"];
    response("200 OK", &headers, bytes.as_ref())
}

pub fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    let encoding = format!("Content-Encoding: {encoding}");
    response("200 OK", &["Connection: close", &encoding], body)
}

fn found(location: &str) -> String {
    head("302 Found", &format!("Location: {location}\r\nContent-Length: 0\r\n"))
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

/// All faults.
pub fn faults() -> Vec<Fault> {
    let mut all = truncated();
    all.extend(malformed_bodies());
    all.extend(malformed_heads());
    all.extend(encodings());
    all.extend(statuses());
    all.extend(redirects());
    all.extend(harmless());
    all
}

#[rustfmt::skip] // A row is a line.
fn truncated() -> Vec<Fault> {
    vec![
        fault("cut by length", ok("Content-Length: 99\r\n", "{\"a\":"), TEMPORARY, "cut short"),
        fault("no body in spite of a length", ok("Content-Length: 9\r\n", ""), TEMPORARY, "cut short"),
        fault("cut in a chunk", ok(CHUNKED, "9\r\n{\"a\":"), TEMPORARY, "cut short"),
        fault("cut between chunks", ok(CHUNKED, "5\r\n{\"a\":\r\n"), TEMPORARY, "cut short"),
        fault("cut without a length", ok("", "{\"a\":"), TEMPORARY, "ends too early"),
        fault("cut in the head", "HTTP/1.1 200 OK\r\nConnection: close\r\n", TEMPORARY, ""),
    ]
}

#[rustfmt::skip] // A row is a line.
fn malformed_bodies() -> Vec<Fault> {
    let html = response(
        "200 OK",
        &["Content-Type: text/html", "Connection: close"],
        b"<html>",
    );
    vec![
        fault("empty", body(""), FINAL, "empty"),
        fault("empty without a length", ok("", ""), FINAL, "empty"),
        fault("JSON that ends too early", body("{\"a\":"), FINAL, "ends too early"),
        fault("JSON that ends too early in chunks", ok(CHUNKED, "1\r\n{\r\n0\r\n\r\n"), FINAL, "ends too early"),
        fault("not JSON", body("hello"), FINAL, "not JSON"),
        fault("a captive portal", html, FINAL, "not JSON"),
        fault("two values", body("{} {}"), FINAL, "not JSON"),
        fault("a byte-order mark", body(b"\xef\xbb\xbf{}"), FINAL, "not JSON"),
        fault("invalid UTF-8", body(b"[\"\xff\"]"), FINAL, "UTF-8"),
        fault("nested too deeply", body(nested(128)), FINAL, "too deeply"),
        fault("brackets without end", body("[".repeat(5_000_000)), FINAL, "too deeply"),
        fault("somebody's secret", body(UNKNOWN), FINAL, "not JSON"),
    ]
}

#[rustfmt::skip] // A row is a line.
fn malformed_heads() -> Vec<Fault> {
    let long = format!("X-Long: {}\r\n", "x".repeat(2_000_000));
    let many: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    let two_lengths = "Content-Length: 1\r\nContent-Length: 2\r\n";
    let alert = &b"\x15\x03\x01\x00\x02\x02\x0a\nConnection: close\r\n"[..];
    vec![
        fault("a head of megabytes", ok(&long, ""), FINAL, "head of the response is too large"),
        fault("a thousand headers", ok(&many, ""), FINAL, "not valid HTTP"),
        fault("an invalid header", ok("a b: c\r\n", ""), FINAL, "not valid HTTP"),
        fault("a NUL in the head", ok("a: \0\r\n", ""), FINAL, "not valid HTTP"),
        fault("a bad chunk", ok(CHUNKED, "xyz\r\n"), FINAL, "not valid HTTP"),
        fault("two lengths", ok(two_lengths, ""), FINAL, ""),
        fault("an SSH banner", "SSH-2.0-OpenSSH_9.6\r\nConnection: close\r\n", FINAL, "not valid HTTP"),
        fault("an alert of TLS", alert, FINAL, "not valid HTTP"),
    ]
}

#[rustfmt::skip] // A row is a line.
#[cfg(feature = "gzip")]
fn encodings() -> Vec<Fault> {
    let good = gzip(GOOD.as_bytes());
    let mut bad = good.clone();
    bad[12] ^= 0xff;
    let mut cut = encoded("gzip", &good);
    cut.truncate(cut.len() - 5);
    vec![
        fault("compressed", encoded("gzip", &good), DONE, ""),
        fault("compressed and cut", cut, TEMPORARY, "cut short"),
        fault("compressed, its end missing", encoded("gzip", &good[..15]), TEMPORARY, "cut short"),
        fault("compressed badly", encoded("gzip", &bad), FINAL, ""),
        fault("not compressed at all", encoded("gzip", GOOD.as_bytes()), FINAL, "gzip"),
        fault("compressed doubly", encoded("gzip, gzip", &gzip(&good)), FINAL, "encoding"),
        fault("compressed otherwise", encoded("br", b"x"), FINAL, "encoding"),
        fault("compressed under an odd name", encoded("x-gzip", &good), FINAL, "encoding"),
        fault("compressed in capitals", encoded("GZIP", &good), FINAL, "encoding"),
        fault("empty, compressed", encoded("gzip", b""), FINAL, "empty"),
        fault("empty, compressed otherwise", encoded("br", b""), FINAL, "empty"),
        fault("identity", encoded("identity", GOOD.as_bytes()), DONE, ""),
    ]
}

#[rustfmt::skip] // A row is a line.
#[cfg(not(feature = "gzip"))]
fn encodings() -> Vec<Fault> {
    vec![
        fault("compressed", encoded("gzip", b"x"), FINAL, "encoding"),
        fault("empty, compressed", encoded("gzip", b""), FINAL, "empty"),
        fault("identity", encoded("identity", GOOD.as_bytes()), DONE, ""),
    ]
}

#[rustfmt::skip] // A row is a line.
fn statuses() -> Vec<Fault> {
    let secret = format!(r#"{{"message":"bad token {UNKNOWN}"}}"#);
    vec![
        fault("no content", head("204 No Content", ""), FINAL, "status 204"),
        fault("another success", status("201 Created", "{}"), FINAL, "status 201"),
        fault("a switch of protocols", head("101 Switching Protocols", ""), FINAL, "status 101"),
        fault("several choices", status("300 Multiple Choices", ""), FINAL, "status 300"),
        fault("not modified", head("304 Not Modified", ""), FINAL, "status 304"),
        fault("use a proxy", status("305 Use Proxy", ""), FINAL, "status 305"),
        fault("a bad request", status("400 Bad Request", "{}"), FINAL, "status 400"),
        fault("not found", status("404 Not Found", "{}"), FINAL, "status 404"),
        fault("too slow a request", status("408 Request Timeout", "{}"), TEMPORARY, "status 408"),
        fault("too many requests", status("429 Too Many Requests", "{}"), TEMPORARY, "status 429"),
        fault("a failure", status("500 Oops", "{}"), TEMPORARY, "status 500"),
        fault("not implemented", status("501 Oops", "{}"), FINAL, "status 501"),
        fault("a bad gateway", status("502 Oops", "{}"), TEMPORARY, "status 502"),
        fault("overloaded", status("503 Oops", "{}"), TEMPORARY, "status 503"),
        fault("a slow gateway", status("504 Oops", "{}"), TEMPORARY, "status 504"),
        fault("an unknown status", status("599 Whatever", ""), FINAL, "status 599"),
        fault("an impossible status", status("999 Whatever", ""), FINAL, "999"),
        fault("a status with a secret", status("400 Bad Request", &secret), FINAL, "bad token"),
        fault(
            "a status with a body that is cut",
            head("400 Bad", "Content-Length: 9\r\n") + "x",
            FINAL,
            "status 400",
        ),
    ]
}

#[rustfmt::skip] // A row is a line.
fn redirects() -> Vec<Fault> {
    let elsewhere = "https://elsewhere.example/?q=tOk3n";
    let too_long = found(&format!("/{}", "{".repeat(7_000)));
    vec![
        fault("a redirect elsewhere", found(elsewhere), FINAL, "https://elsewhere.example"),
        fault("a redirect to no ASCII", found("\u{fc}"), FINAL, "status 302"),
        fault("a redirect that is too long", too_long, FINAL, "status 302"),
        fault("a redirect without a place", head("302 Found", ""), FINAL, "status 302"),
        fault("a redirect to an empty place", found(""), FINAL, "status 302"),
        fault("a redirect to a fragment", found("#x"), FINAL, "status 302"),
        fault("a redirect in a circle", found("/v1/datasets/"), FINAL, "more than 5 times"),
    ]
}

/// What looks like a fault and is none.
#[rustfmt::skip] // A row is a line.
fn harmless() -> Vec<Fault> {
    let after = |first: &str| [first.as_bytes(), &body(GOOD)].concat();
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    let chunks = "F;name=value\r\n{\"datasets\":[]}\r\n0\r\nX-Trailer: y\r\n\r\n";
    let old = "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{\"datasets\":[]}";
    vec![
        fault("a head of 20 KB", ok(&long, GOOD), DONE, ""),
        fault("many brackets", body(nested(127)), DONE, ""),
        fault("HTTP/1.0", old, DONE, ""),
        fault("no length", ok("", GOOD), DONE, ""),
        fault("chunks with all their frills", ok(CHUNKED, chunks), DONE, ""),
        fault("a 100 first", after("HTTP/1.1 100 Continue\r\n\r\n"), DONE, ""),
        fault("a 103 first", after("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), DONE, ""),
    ]
}
