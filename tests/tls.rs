//! TLS, with a certificate authority made on the spot, and the proxy on the way.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use here_datalens::{Client, ClientBuilder, Credentials, Error, Password, Stage};
use support::command::{Ran, account, datalens, run};
use support::scripted::{Scripted, hold, reply};
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME};
use support::tls::{Ca, Certificate, accept, stand_in};
use tempfile::NamedTempFile;

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

/// The command for a server at this port, over TLS, with the password.
fn at(port: u16) -> Command {
    let mut command = datalens();
    account(&mut command, &format!("https://localhost:{port}"));
    command.env("DATALENS_PASSWORD", PASSWORD).arg(USER_NAME);
    command
}

fn client(port: u16, ca: &Ca) -> ClientBuilder {
    Client::builder(Credentials::new(APP_ID, APP_CODE))
        .base_url(format!("https://127.0.0.1:{port}"))
        .root_certificates(ca.pem())
}

fn is_datasets(ran: &Ran) {
    assert_eq!(
        (ran.status, ran.out()),
        (Some(0), format!("{DATASETS}\n").as_str()),
        "{ran:?}"
    );
}

fn fails(ran: &Ran, words: &str) {
    assert_eq!((ran.status, ran.out()), (Some(4), ""), "{ran:?}");
    assert!(ran.stderr.contains(words), "{ran:?}");
}

#[test]
fn certificates_come_from_the_option_or_the_variable() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (server, _) = stand_in(ca.server(Certificate::Good));
    let (ours, others) = (file(&ca.pem()), file(&other.pem()));
    is_datasets(&run(at(server.port()).env("SSL_CERT_FILE", ours.path())));
    is_datasets(&run(at(server.port())
        .env("SSL_CERT_FILE", others.path())
        .arg("--cacert")
        .arg(ours.path())));
    fails(
        &run(at(server.port())
            .env("SSL_CERT_FILE", ours.path())
            .arg("--cacert")
            .arg(others.path())),
        "untrusted certificate",
    );
    let both = file(&(other.pem() + "\n" + &ca.pem()));
    is_datasets(&run(at(server.port()).arg("--cacert").arg(both.path())));
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_told_and_nothing_sent() {
    let ca = Ca::new();
    for (certificate, roots) in [
        (Certificate::Good, Ca::new()),
        (Certificate::OfAnotherHost, Ca::new()),
        (Certificate::Expired, Ca::new()),
    ] {
        let wrong_issuer = matches!(certificate, Certificate::Good);
        let pem = if wrong_issuer { roots.pem() } else { ca.pem() };
        let (server, _) = stand_in(ca.server(certificate));
        let ran = run(at(server.port()).arg("--cacert").arg(file(&pem).path()));
        fails(&ran, "untrusted certificate of localhost");
        assert!(ran.stderr.contains("--cacert"), "{ran:?}");
        assert!(server.requests().is_empty(), "{certificate:?}");
    }
    // By default Mozilla's are trusted, and ours isn't among them.
    let (server, _) = stand_in(ca.server(Certificate::Good));
    fails(&run(&mut at(server.port())), "untrusted certificate");
}

#[test]
fn plain_http_where_tls_is_expected_is_no_connection() {
    let server = StandIn::start();
    fails(
        &run(&mut at(server.port())),
        "no TLS connection to localhost",
    );
}

#[test]
fn tls_where_plain_http_is_expected_is_no_answer() {
    let ca = Ca::new();
    let (server, _) = stand_in(ca.server(Certificate::Good));
    let ran = run(at(server.port()).env("DATALENS_BASE_URL", server.base_url()));
    assert!(matches!(ran.status, Some(4 | 5)), "{ran:?}");
    assert!(ran.stdout.is_empty() && server.requests().is_empty());
}

#[test]
fn a_server_that_stops_in_the_handshake_is_given_up() {
    let server = Scripted::start(|_, stream| hold(stream));
    let short = Duration::from_millis(200);
    let client = client(server.port(), &Ca::new())
        .connect_timeout(short)
        .build()
        .unwrap();
    let error = client
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unreachable {
                timed_out: true,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_body_that_ends_without_close_notify_is_found_cut_by_its_json() {
    let ca = Ca::new();
    let config = ca.server(Certificate::Good);
    let server = Scripted::start(move |_, stream| {
        let Ok(mut tls) = accept(&config, stream) else {
            return;
        };
        let mut piece = [0; 4096];
        let _ = tls.read(&mut piece);
        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"datasets\":[");
        let _ = tls.flush();
    });
    let client = client(server.port(), &ca).build().unwrap();
    let error = client
        .datasets(&here_datalens::AccessToken::new("t"))
        .unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
}

/// A CONNECT proxy: what it answers with, or where it leads, and the heads it got.
fn proxy(to: u16, answer: &'static [u8]) -> (Scripted, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let server = Scripted::start(move |_, stream| {
        let Some(request) = reply(&stream, answer) else {
            return;
        };
        seen.lock()
            .unwrap()
            .push(format!("{} {:?}", request.target, request.headers));
        if answer.starts_with(b"HTTP/1.1 200") {
            tunnel(stream, TcpStream::connect(("127.0.0.1", to)).unwrap());
        }
    });
    (server, heads)
}

fn tunnel(near: TcpStream, far: TcpStream) {
    let pairs = [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))];
    let copies = pairs.map(|(from, to)| {
        let (mut from, mut to) = (from.unwrap(), to.unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        })
    });
    for copy in copies {
        let _ = copy.join();
    }
}

const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

#[test]
fn a_proxy_of_the_environment_is_used_with_its_password() {
    let ca = Ca::new();
    let (server, _) = stand_in(ca.server(Certificate::Good));
    let (proxy, heads) = proxy(server.port(), CONNECTED);
    for variable in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        let url = format!("http://me:pr%6Fxy-secret@127.0.0.1:{}", proxy.port());
        let ran = run(at(server.port())
            .env(variable, url)
            .arg("--cacert")
            .arg(file(&ca.pem()).path()));
        is_datasets(&ran);
        let head = heads.lock().unwrap().pop().expect(variable);
        assert!(
            head.starts_with(&format!("localhost:{} ", server.port())),
            "{head}"
        );
        // me:proxy-secret
        assert!(head.contains("Basic bWU6cHJveHktc2VjcmV0"), "{head}");
        assert!(
            !head.contains("Bearer") && !head.contains("app_code"),
            "{head}"
        );
    }
}

#[test]
fn an_exception_goes_past_the_proxy() {
    let ca = Ca::new();
    let (server, _) = stand_in(ca.server(Certificate::Good));
    for variable in ["no_proxy", "NO_PROXY"] {
        is_datasets(&run(at(server.port())
            .env("https_proxy", "http://127.0.0.1:1")
            .env(variable, "other.example, localhost")
            .arg("--cacert")
            .arg(file(&ca.pem()).path())));
    }
}

#[test]
fn plain_http_on_this_machine_goes_past_any_proxy() {
    let server = StandIn::start();
    let mut command = at(server.port());
    account(&mut command, &server.base_url());
    for variable in ["http_proxy", "https_proxy", "ALL_PROXY"] {
        command.env(variable, "http://127.0.0.1:1");
    }
    is_datasets(&run(&mut command));
}

#[test]
fn a_proxy_that_cannot_be_used_is_an_error_and_never_left_out() {
    let ca = Ca::new();
    let (server, _) = stand_in(ca.server(Certificate::Good));
    for url in [
        "socks5://u:proxy-secret@127.0.0.1:1",
        "http://u:proxy-secret@:x",
        "::",
    ] {
        let ran = run(at(server.port()).env("https_proxy", url));
        assert_eq!(ran.status, Some(2), "{url}: {ran:?}");
        assert!(ran.stderr.starts_with("datalens: https_proxy: "), "{ran:?}");
        assert!(!ran.stderr.contains("proxy-secret"), "{ran:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_proxy_that_refuses_lies_or_is_gone_is_no_connection() {
    let refusals: [&[u8]; 4] = [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\n\r\nme:proxy-secret",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ];
    for answer in refusals {
        let (proxy, heads) = proxy(1, answer);
        let url = format!("http://me:proxy-secret@127.0.0.1:{}", proxy.port());
        let ran = run(at(1).env("https_proxy", url));
        fails(&ran, "localhost");
        assert!(!ran.stderr.contains("proxy-secret"), "{ran:?}");
        assert_eq!(heads.lock().unwrap().len(), 1);
    }
    fails(
        &run(at(1).env("https_proxy", "http://127.0.0.1:1")),
        "localhost",
    );
}

#[test]
fn a_proxy_that_drips_its_answer_is_given_up() {
    let dripping = Scripted::start(|_, stream| {
        reply(&stream, b"HTTP/1.1 200 OK\r\nX-Drip: ");
        let mut stream = &stream;
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let client = client(1, &Ca::new())
        .proxy(format!("http://127.0.0.1:{}", dripping.port()))
        .connect_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let start = Instant::now();
    let error = client
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .unwrap_err();
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
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}
