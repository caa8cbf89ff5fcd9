//! TLS, with a certificate authority made on the spot.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use here_datalens::{ClientBuilder, Error, JsonCheck, Stage};
use rustls::HandshakeKind;

use crate::support::client::{self, password, session_with_token, sign_in};
use crate::support::fake_api::http::response;
use crate::support::fake_api::scripted_server::{ScriptedServer, hold};
use crate::support::fake_api::{EMAIL, FakeApi};
use crate::support::tls::{Ca, Certificate, accept, fake_api, without_tls};

fn builder(port: u16, ca: &Ca) -> ClientBuilder {
    client::builder(&format!("https://127.0.0.1:{port}")).root_certificates(ca.pem())
}

fn refused(builder: ClientBuilder) -> Error {
    let client = builder.build().unwrap();
    client.sign_in(EMAIL, &password()).unwrap_err()
}

fn stage(error: &Error) -> Option<Stage> {
    match error {
        Error::Transport { stage, .. } => Some(*stage),
        _ => None,
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_final_and_nothing_is_sent() {
    for certificate in [Certificate::Good, Certificate::OfAnotherHost, Certificate::Expired] {
        let ca = Ca::new();
        let (server, _) = fake_api(ca.server(certificate));
        // The good one isn't this authority's.
        let other = Ca::new();
        let trusted = if certificate == Certificate::Good { &other } else { &ca };
        let retries = builder(server.port(), trusted).max_retries(2);
        let error = refused(retries);
        assert_eq!(stage(&error), Some(Stage::Certificate), "{error:?}");
        assert!(!error.is_temporary() && !error.is_timeout(), "{error:?}");
        assert!(server.requests().is_empty(), "{certificate:?}");
        assert_eq!(server.connections(), 1, "{certificate:?}");
    }
}

#[test]
fn by_default_the_certificates_of_mozilla_are_trusted() {
    let ca = Ca::new();
    let (server, _) = fake_api(ca.server(Certificate::Good));
    let error = refused(client::builder(&format!("https://localhost:{}", server.port())));
    assert_eq!(stage(&error), Some(Stage::Certificate), "{error:?}");
    assert!(error.to_string().ends_with("not trusted by Mozilla's root certificates"), "{error}");

    let other = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
    let error = refused(builder(server.port(), &ca).root_certificates(other));
    assert!(error.to_string().contains("not trusted by the root certificates given"), "{error}");
}

#[test]
fn a_server_without_tls_is_final() {
    let server = without_tls();
    let error = refused(builder(server.port(), &Ca::new()));
    assert_eq!(stage(&error), Some(Stage::Tls), "{error:?}");
    assert!(!error.is_temporary(), "{error:?}");
    assert!(error.to_string().ends_with("the server doesn't speak TLS"), "{error}");
}

#[test]
fn a_handshake_that_is_broken_off_may_pass() {
    let server = ScriptedServer::start(|_, mut stream| {
        let _ = stream.read(&mut [0; 4096]);
    });
    let error = refused(builder(server.port(), &Ca::new()));
    assert_eq!(stage(&error), Some(Stage::Connect), "{error:?}");
    assert!(error.is_temporary(), "{error:?}");
    assert!(error.to_string().ends_with("closed during the TLS handshake"), "{error}");
}

#[test]
fn a_tls_server_that_is_spoken_to_without_tls_has_no_response() {
    let ca = Ca::new();
    let (server, _) = fake_api(ca.server(Certificate::Good));
    let error = refused(client::builder(&server.base_url()));
    let is_failure = matches!(error, Error::Transport { .. } | Error::InvalidResponse { .. });
    assert!(is_failure, "{error:?}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_server_that_stops_in_the_handshake_is_given_up() {
    let server = ScriptedServer::start(|_, stream| hold(stream));
    let short = Duration::from_millis(200);
    let error = refused(builder(server.port(), &Ca::new()).connect_timeout(short));
    assert!(error.is_timeout() && error.is_temporary(), "{error:?}");
}

#[test]
fn a_body_that_ends_without_close_notify_is_found_truncated_by_its_json() {
    let ca = Ca::new();
    let config = ca.server(Certificate::Good);
    let server = ScriptedServer::start(move |_, stream| {
        let Ok(mut tls) = accept(&config, stream) else {
            return;
        };
        let _ = tls.read(&mut [0; 4096]);
        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"datasets\":[");
        let _ = tls.flush();
    });
    let client = builder(server.port(), &ca).build().unwrap();
    let session = session_with_token(&client, "t");
    let copied = session.copy("datasets/", JsonCheck::Always, std::io::sink());
    for error in [session.datasets().unwrap_err(), copied.unwrap_err()] {
        assert!(matches!(error, Error::InvalidResponse { .. }), "{error:?}");
        assert!(error.is_temporary(), "{error:?}");
    }
}

#[test]
fn requests_with_a_time_limit_resume_the_tls_session_of_others() {
    let ca = Ca::new();
    let config = ca.server(Certificate::Good);
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&kinds);
    let server = FakeApi::start_with(move |stream| {
        let stream = accept(&config, stream)?;
        seen.lock().unwrap().extend(stream.conn.handshake_kind());
        Ok(Box::new(stream))
    });
    let close = response("200 OK", &["Connection: close"], b"{}");
    server.respond_always("/v1/datasets", close);
    let client = builder(server.port(), &ca).timeout(Duration::from_secs(30));
    // A sign-in has a limit of its own anyway.
    let session = sign_in(&client.build().unwrap());
    for _ in 0..3 {
        session.datasets().unwrap();
    }
    // The first read goes over the connection of the sign-in.
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    assert_eq!(*kinds.lock().unwrap(), [full, resumed, resumed]);
}

#[cfg(feature = "cli")]
mod of_the_command {
    use std::process::Command;

    use super::*;
    use crate::support::command::{datalens_at, run};
    use crate::support::temporary_file;

    /// The command for a server at this port.
    fn at(port: u16) -> Command {
        let mut command = datalens_at(&format!("https://localhost:{port}"));
        command.arg(EMAIL);
        command
    }

    #[test]
    fn certificates_come_from_the_option_or_the_variable() {
        let (ca, other) = (Ca::new(), Ca::new());
        let (server, _) = fake_api(ca.server(Certificate::Good));
        let (right, wrong) = (temporary_file(ca.pem()), temporary_file(other.pem()));
        let at = || at(server.port());
        run(at().env("SSL_CERT_FILE", right.path())).assert_printed_datasets();
        let mut both = at();
        both.env("SSL_CERT_FILE", wrong.path());
        run(both.arg("--cacert").arg(right.path())).assert_printed_datasets();
        let mut both = at();
        both.env("SSL_CERT_FILE", right.path());
        run(both.arg("--cacert").arg(wrong.path())).assert_failed(5, "localhost");
        let bundle = temporary_file(other.pem() + "\n" + &ca.pem());
        run(at().arg("--cacert").arg(bundle.path())).assert_printed_datasets();
    }

    #[test]
    fn a_certificate_that_is_not_trusted_exits_with_5_and_advises_cacert() {
        let (server, _) = fake_api(Ca::new().server(Certificate::Good));
        let output = run(&mut at(server.port()));
        output.assert_failed(5, "localhost");
        output.assert_failed(5, "certificate");
        output.assert_failed(5, "--cacert");
        assert!(server.requests().is_empty());
    }

    #[test]
    fn a_server_without_tls_exits_with_5() {
        let server = without_tls();
        run(&mut at(server.port())).assert_failed(5, "localhost");
    }
}
