//! Every fault that an answer can have: what the library and the command make of it,
//! and that no secret shows in what they say.

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use here_datalens::{
    AccessToken, Check, Client, ClientBuilder, Credentials, Error, Password, Stage,
};
use support::command::{Ran, datalens, datalens_at, run};
use support::logger;
use support::scripted::{Scripted, hold, reply};
use support::stand_in::{APP_CODE, APP_ID, PASSWORD, StandIn, USER_NAME, answer, json};

const JSON: &str = "Content-Type: application/json";

/// One fault: the bytes of the answer, the exit status, words of the message, and
/// whether the library calls it a bad answer.
struct Fault {
    name: &'static str,
    bytes: Vec<u8>,
    status: i32,
    words: &'static str,
}

fn fault(name: &'static str, bytes: impl Into<Vec<u8>>, status: i32, words: &'static str) -> Fault {
    Fault {
        name,
        bytes: bytes.into(),
        status,
        words,
    }
}

fn head(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{JSON}\r\nConnection: close\r\n{headers}\r\n")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    answer(
        "200 OK",
        &[
            JSON,
            "Connection: close",
            &format!("Content-Encoding: {encoding}"),
        ],
        body,
    )
}

fn body(bytes: &[u8]) -> Vec<u8> {
    answer("200 OK", &[JSON, "Connection: close"], bytes)
}

/// Answers that are bad, and some that only look so.
fn answers() -> Vec<Fault> {
    let good = br#"{"datasets":[]}"#;
    let nested = [b"[".repeat(5_000_000), b"]".repeat(5_000_000)].concat();
    let long_head = head("200 OK", &format!("X-Long: {}\r\n", "x".repeat(2_000_000)));
    let headers: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let whole = "F;name=value\r\n{\"datasets\":[]}\r\n0\r\nX-Trailer: y\r\n\r\n";
    let mut cut_gzip = gzip(b"[1,2,3]");
    cut_gzip.truncate(15);
    let mut bad_gzip = gzip(good);
    bad_gzip[12] ^= 0xff;
    vec![
        fault(
            "cut by length",
            head("200 OK", "Content-Length: 99\r\n") + "{\"a\":",
            5,
            "cut short",
        ),
        fault(
            "cut in a chunk",
            head("200 OK", chunked) + "9\r\n{\"a\":",
            5,
            "cut short",
        ),
        fault(
            "cut between chunks",
            head("200 OK", chunked) + "5\r\n{\"a\":\r\n",
            5,
            "cut short",
        ),
        fault(
            "cut without a length",
            head("200 OK", "") + "{\"a\":",
            5,
            "ends too early",
        ),
        fault("empty", body(b""), 5, "empty"),
        fault("no content", head("204 No Content", ""), 5, "status 204"),
        fault("not JSON", body(b"hello"), 5, "not JSON"),
        fault(
            "a captive portal",
            answer(
                "200 OK",
                &["Content-Type: text/html", "Connection: close"],
                b"<html>",
            ),
            5,
            "not JSON",
        ),
        fault("two values", body(b"{} {}"), 5, "not JSON"),
        fault(
            "a head of 20 KB",
            head("200 OK", &format!("X-Long: {}\r\n", "x".repeat(20_000))) + "{}",
            0,
            "",
        ),
        fault("a head of megabytes", long_head, 5, "head is too large"),
        fault(
            "a thousand headers",
            head("200 OK", &headers),
            5,
            "not valid HTTP",
        ),
        fault(
            "an invalid header",
            head("200 OK", "a b: c\r\n"),
            5,
            "not valid HTTP",
        ),
        fault(
            "a NUL in the head",
            head("200 OK", "a: \0\r\n"),
            5,
            "not valid HTTP",
        ),
        fault(
            "a bad chunk",
            head("200 OK", chunked) + "xyz\r\n",
            5,
            "not valid HTTP",
        ),
        fault(
            "two lengths",
            head("200 OK", "Content-Length: 1\r\nContent-Length: 2\r\n"),
            5,
            "",
        ),
        fault(
            "an SSH banner",
            "SSH-2.0-OpenSSH_9.6\r\nConnection: close\r\n",
            5,
            "not valid HTTP",
        ),
        fault(
            "an alert of TLS",
            &b"\x15\x03\x01\x00\x02\x02\x0a\nConnection: close\r\n"[..],
            5,
            "not valid HTTP",
        ),
        fault("a byte-order mark", body(b"\xef\xbb\xbf{}"), 5, "not JSON"),
        fault("invalid UTF-8", body(b"[\"\xff\"]"), 5, "UTF-8"),
        fault(
            "brackets without end",
            body(&b"[".repeat(5_000_000)),
            5,
            "ends too early",
        ),
        fault(
            "too many brackets",
            body(&b"[".repeat(10_000_001)),
            5,
            "too deeply",
        ),
        fault("many brackets", body(&nested), 0, ""),
        fault("compressed", encoded("gzip", &gzip(good)), 0, ""),
        fault("compressed and cut", encoded("gzip", &cut_gzip), 5, ""),
        fault("compressed badly", encoded("gzip", &bad_gzip), 5, ""),
        fault("not compressed at all", encoded("gzip", good), 5, "gzip"),
        fault(
            "compressed doubly",
            encoded("gzip, gzip", &gzip(&gzip(good))),
            5,
            "encoding",
        ),
        fault("compressed otherwise", encoded("br", good), 5, "encoding"),
        fault(
            "compressed under an odd name",
            encoded("x-gzip", &gzip(good)),
            5,
            "encoding",
        ),
        fault(
            "compressed in capitals",
            encoded("GZIP", &gzip(good)),
            5,
            "encoding",
        ),
        fault(
            "HTTP/1.0",
            "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{\"datasets\":[]}",
            0,
            "",
        ),
        fault(
            "chunks with all their frills",
            head("200 OK", chunked) + whole,
            0,
            "",
        ),
        fault(
            "a 100 first",
            b"HTTP/1.1 100 Continue\r\n\r\n"
                .iter()
                .copied()
                .chain(body(good))
                .collect::<Vec<_>>(),
            0,
            "",
        ),
        fault(
            "a 103 first",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                .iter()
                .copied()
                .chain(body(good))
                .collect::<Vec<_>>(),
            0,
            "",
        ),
        fault(
            "another success",
            head("201 Created", "") + "{}",
            5,
            "status 201",
        ),
        fault(
            "a switch of protocols",
            head("101 Switching Protocols", ""),
            5,
            "status 101",
        ),
        fault(
            "not modified",
            head("304 Not Modified", ""),
            5,
            "status 304",
        ),
        fault(
            "a redirect elsewhere",
            head(
                "302 Found",
                "Location: https://elsewhere.example/?q=tOk3n\r\n",
            ),
            5,
            "https://elsewhere.example,",
        ),
        fault(
            "a redirect to nothing",
            head("302 Found", "Location: \u{fc}\r\n"),
            5,
            "status 302",
        ),
        fault(
            "a redirect to a place that doesn't fit",
            head(
                "302 Found",
                &format!("Location: /{}\r\n", "{".repeat(7_000)),
            ),
            5,
            "redirected to nowhere usable",
        ),
        fault(
            "a redirect without a place",
            head("302 Found", ""),
            5,
            "status 302",
        ),
        fault(
            "a redirect in a circle",
            head("302 Found", "Location: ?x\r\nContent-Length: 0\r\n"),
            5,
            "more than 5 times",
        ),
        fault(
            "an unknown status",
            head("599 Whatever", "Content-Length: 0\r\n"),
            5,
            "status 599",
        ),
        fault(
            "an impossible status",
            head("999 Whatever", "Content-Length: 0\r\n"),
            5,
            "999",
        ),
    ]
}

/// What the stand-in knows as secret; its tokens all hold the last.
const SECRETS: [&str; 4] = [PASSWORD, APP_CODE, "app%26code", "tOk3n"];

fn no_secret(name: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{name}: {text}");
    }
}

fn client(base_url: &str) -> ClientBuilder {
    Client::builder(Credentials::new(APP_ID, APP_CODE)).base_url(base_url)
}

#[test]
fn a_faulty_answer_to_a_read_is_survived_and_told() {
    logger::start();
    for fault in answers() {
        let server = StandIn::start();
        let client = client(&server.base_url()).build().unwrap();
        let session = client.sign_in(USER_NAME, &Password::new(PASSWORD)).unwrap();
        server.answer_always("/v1/datasets", fault.bytes.clone());
        let result = client.copy(
            session.access_token(),
            "datasets/",
            Check::Json,
            &mut Vec::new(),
        );
        match result {
            Ok(_) => assert_eq!(fault.status, 0, "{}", fault.name),
            Err(error) => {
                assert_eq!(fault.status, 5, "{}: {error}", fault.name);
                assert!(
                    error.to_string().contains(fault.words),
                    "{}: {error}",
                    fault.name
                );
                no_secret(fault.name, &format!("{error} {error:?}"));
            }
        }

        let ran = run(datalens_at(&server).arg(USER_NAME));
        assert_eq!(
            ran.status,
            Some(fault.status),
            "{}: {}",
            fault.name,
            ran.stderr
        );
        assert!(
            ran.stderr.contains(fault.words),
            "{}: {}",
            fault.name,
            ran.stderr
        );
        told_once(fault.name, &ran);
        if fault.status != 0 && fault.bytes.len() < 60_000 {
            assert!(ran.stdout.is_empty(), "{}", fault.name);
        }
    }
    let log = logger::recorded();
    assert!(log.contains("GET"), "{log}");
    no_secret("the log", &log);
}

/// One message or none, and no secret in it.
fn told_once(name: &str, ran: &Ran) {
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        lines.len(),
        usize::from(ran.status != Some(0)),
        "{name}: {}",
        ran.stderr
    );
    assert!(
        lines.iter().all(|line| line.starts_with("datalens: ")),
        "{name}: {}",
        ran.stderr
    );
    no_secret(name, &ran.stderr);
    no_secret(name, &String::from_utf8_lossy(&ran.stdout));
}

#[test]
fn an_answer_to_a_sign_in_of_the_wrong_shape_is_refused() {
    let token = |json: &str| format!(r#"{{"refresh_token":"tOk3n","access_token":{json}}}"#);
    let long = format!("\"{}\"", "x".repeat(100_000));
    for bytes in [
        "".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        r#"["tOk3n","tOk3n",3600]"#.to_owned(),
        r#"{"refresh_token":"tOk3n"}"#.to_owned(),
        token("null"),
        token("17"),
        token("\"\""),
        token(r#""tOk3n\nX: y""#),
        token(r#""tOk3n\r\n\r\n""#),
        token("\"tOk3n ü\""),
        token("\"tOk3n\\u0000\""),
        token(&long),
        format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)),
        "<html>tOk3n".to_owned(),
    ] {
        let server = StandIn::start();
        server.answer_always("/v1/sign_in", json("200 OK", &bytes));
        let ran = run(datalens_at(&server).arg(USER_NAME));
        let name = &bytes[..bytes.len().min(60)];
        assert_eq!(ran.status, Some(5), "{name}: {}", ran.stderr);
        told_once(name, &ran);
        assert_eq!(server.requests().len(), 1, "{name}");
    }
}

#[test]
fn a_sign_in_follows_no_redirect() {
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let (server, elsewhere) = (StandIn::start(), StandIn::start());
        for target in [
            elsewhere.base_url() + "/v1/sign_in/",
            "/v1/sign_in/2".to_owned(),
        ] {
            let before = server.requests().len();
            server.answer_next(
                "/v1/sign_in",
                head(status, &format!("Location: {target}\r\n")),
            );
            let ran = run(datalens_at(&server).arg(USER_NAME));
            assert_eq!(ran.status, Some(5), "{status}: {}", ran.stderr);
            assert!(
                ran.stderr.contains("redirected"),
                "{status}: {}",
                ran.stderr
            );
            assert_eq!(server.requests().len() - before, 1, "{status}");
        }
        assert_eq!(elsewhere.connections(), 0, "{status}");
    }
}

#[test]
fn a_sign_in_answer_without_end_is_not_read_into_memory() {
    let server = Scripted::start(|_, stream| {
        reply(&stream, head("200 OK", "").as_bytes());
        let mut stream = &stream;
        // Until the client has had enough.
        while stream.write_all(&[b' '; 65_536]).is_ok() {}
    });
    let client = client(&server.base_url()).build().unwrap();
    let error = client
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .unwrap_err();
    assert!(
        error.to_string().contains("larger than the limit"),
        "{error}"
    );
}

#[test]
fn a_bomb_takes_no_memory() {
    let mut bomb = vec![b'a'; 200_000_000];
    (bomb[0], bomb[199_999_999]) = (b'"', b'"');
    let server = StandIn::start();
    server.answer_always("/v1/datasets", encoded("gzip", &gzip(&bomb)));
    drop(bomb);
    let mut command = Command::new("bash");
    // Of the address space, of which an idle thread of glibc's takes 64 MB.
    command
        .env_clear()
        .args(["-c", "ulimit -v 180000; exec \"$0\" \"$@\" >/dev/null"]);
    support::command::account(&mut command, &server.base_url());
    command.env("DATALENS_PASSWORD", PASSWORD);
    let ran = run(command.arg(env!("CARGO_BIN_EXE_datalens")).arg(USER_NAME));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

#[test]
fn an_error_text_that_echoes_a_secret_is_left_out() {
    let token = "tOk3n-with+some/chars";
    let encoded_code = "demo%20app%26code%3D50%25%2B%C3%BC%2F%3F%23";
    let json_code = serde_json::to_string(APP_CODE).unwrap().replace('/', "\\/");
    for (echo, shown) in [
        ("a plain reason".to_owned(), true),
        (format!("bad token {token}"), false),
        (format!("GET /v1/x?app_code={encoded_code}"), false),
        (format!("{{\"app_code\":{json_code}}}"), false),
        (format!("<pre>{}{token}</pre>", " ".repeat(20_000)), false),
    ] {
        let server = Scripted::start({
            let echo = echo.clone();
            move |_, stream| {
                reply(
                    &stream,
                    &answer("400 Bad Request", &["Connection: close"], echo.as_bytes()),
                );
            }
        });
        let client = client(&server.base_url()).build().unwrap();
        let error = client.datasets(&AccessToken::new(token)).unwrap_err();
        let text = format!("{error} {error:?}");
        assert_eq!(text.contains("the server says"), shown, "{text}");
        no_secret(&echo, &text);
    }
}

#[test]
fn a_sign_in_that_echoes_the_request_shows_nothing_of_it() {
    let server = Scripted::start(|_, stream| {
        let request = reply(&stream, b"").unwrap();
        let echo = [request.target.as_bytes(), &request.body].concat();
        let mut stream = &stream;
        let _ = stream.write_all(&answer("400 Bad Request", &["Connection: close"], &echo));
    });
    let mut command = datalens();
    support::command::account(&mut command, &server.base_url());
    let ran = run(command.env("DATALENS_PASSWORD", PASSWORD).arg(USER_NAME));
    assert_eq!(ran.status, Some(5));
    told_once("echo", &ran);
}

/// The failure of a read with short limits, which is to come soon.
fn slow(server: &Scripted, limits: impl Fn(ClientBuilder) -> ClientBuilder) -> Error {
    let client = limits(client(&server.base_url())).build().unwrap();
    let start = Instant::now();
    let error = client.datasets(&AccessToken::new("t")).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "{error}");
    error
}

fn is_timeout(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable {
            stage: Stage::Exchange,
            timed_out: true,
            ..
        }
    )
}

#[test]
fn a_silent_server_is_given_up() {
    let short = Duration::from_millis(200);
    let silent = Scripted::start(|_, stream| hold(stream));
    assert!(is_timeout(
        &slow(&silent, |builder| builder.response_timeout(short))
    ));
    assert!(is_timeout(&slow(&silent, |builder| builder.timeout(short))));

    let in_head = Scripted::start(|_, stream| {
        reply(&stream, b"HTTP/1.1 200 OK\r\nContent-");
        hold(stream);
    });
    assert!(is_timeout(
        &slow(&in_head, |builder| builder.response_timeout(short))
    ));

    let in_body = Scripted::start(|_, stream| {
        reply(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
        hold(stream);
    });
    assert!(is_timeout(
        &slow(&in_body, |builder| builder.stall_timeout(short))
    ));
    assert!(is_timeout(&slow(&in_body, |builder| builder.timeout(short))));
}

#[test]
fn an_answer_to_a_sign_in_that_drips_is_given_up() {
    let server = Scripted::start(|_, stream| {
        reply(&stream, b"HTTP/1.1 200 OK\r\n\r\n");
        let mut stream = &stream;
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    let client = client(&server.base_url())
        .sign_in_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = client
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .unwrap_err();
    assert!(is_timeout(&error), "{error}");
}

#[test]
fn a_black_hole_is_given_up() {
    // The queue of a listener that accepts nothing is full after a few connections.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
    {
        queue.push(stream);
        assert!(queue.len() < 10_000);
    }
    let client = client(&format!("http://{address}"))
        .connect_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = client.datasets(&AccessToken::new("t")).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unreachable {
                stage: Stage::Connection,
                timed_out: true,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_slow_writer_is_no_stalled_server() {
    struct Slow(usize);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // Longer than the server may stall.
            thread::sleep(Duration::from_millis(150));
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let server = StandIn::start();
    let text = format!("\"{}\"", "x".repeat(300_000));
    server.answer_always("/v1/datasets", json("200 OK", &text));
    let client = client(&server.base_url())
        .stall_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let mut out = Slow(0);
    client
        .copy(&AccessToken::new("t"), "datasets/", Check::Json, &mut out)
        .unwrap();
    assert_eq!(out.0, text.len());
}
