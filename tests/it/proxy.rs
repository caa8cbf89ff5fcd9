//! The way through a proxy: what opens a tunnel, whose failure is whose, and which proxy
//! the environment names.

use std::io::{self, BufReader};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use here_datalens::{ClientBuilder, Error, Stage};
use rustls::ServerConfig;

use crate::support::client::{self, session_with_token, sign_in};
use crate::support::fake_api::http::{Request, json_response, read_request};
use crate::support::fake_api::scripted_server::{ScriptedServer, drip, hold, respond};
use crate::support::fake_api::{FakeApi, Stream};
use crate::support::tls::{Ca, Certificate, accept, fake_api, without_tls};

/// No name server knows it, and the certificate is made for it.
const API: &str = "https://elsewhere.example";

const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A proxy and the API behind it in one server.
struct Proxy {
    server: FakeApi,
    connects: Arc<Mutex<Vec<Request>>>,
    ca: Ca,
}

impl Proxy {
    /// Starts one that responds to CONNECT with these bytes.
    fn start(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start_with(Ca::new(), None, move |stream| stream.write_all(&response))
    }

    /// Starts one, over TLS if there is a configuration, that responds to CONNECT so.
    fn start_with(
        ca: Ca,
        tls: Option<Arc<ServerConfig>>,
        respond: impl Fn(&mut dyn Stream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let connects = Arc::new(Mutex::new(Vec::new()));
        let (seen, api) = (Arc::clone(&connects), ca.server(Certificate::OfAnotherHost));
        let server = FakeApi::start_with(move |stream| {
            let mut stream: Box<dyn Stream> = match &tls {
                Some(config) => Box::new(accept(config, stream)?),
                None => Box::new(stream),
            };
            let request = read_request(&mut BufReader::new(&mut stream))?;
            seen.lock().unwrap().extend(request);
            respond(&mut *stream)?;
            Ok(Box::new(accept(&api, stream)?) as Box<dyn Stream>)
        });
        Self { server, connects, ca }
    }

    fn client(&self, scheme: &str) -> ClientBuilder {
        builder(scheme, self.server.port(), &self.ca)
    }
}

/// A client of the API behind a proxy at this port.
fn builder(scheme: &str, port: u16, ca: &Ca) -> ClientBuilder {
    client::builder(API)
        .root_certificates(ca.pem())
        .proxy(format!("{scheme}://me:proxy-secret@127.0.0.1:{port}"))
}

/// Signs in and reads.
fn run(client: ClientBuilder) {
    sign_in(&client.build().unwrap()).datasets().unwrap();
}

fn read(client: ClientBuilder) -> Error {
    let session = session_with_token(&client.build().unwrap(), "t");
    session.datasets().unwrap_err()
}

/// The error of a read, which tells of the proxy at this port, and neither of the API's
/// host nor of the proxy's password.
fn error_of_proxy(client: ClientBuilder, port: u16) -> Error {
    let error = read(client);
    let text = format!("{error} {error:?}");
    assert!(text.contains(&format!("proxy 127.0.0.1:{port}")), "{text}");
    assert!(!text.contains("elsewhere") && !text.contains("secret"), "{text}");
    error
}

/// Asserts that a request ended at this stage of the way to the proxy.
#[track_caller]
fn assert_stage(error: &Error, expected: Stage, expected_timeout: bool) {
    let Error::Transport { stage, is_timeout, reason, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((*stage, *is_timeout), (expected, expected_timeout), "{error}");
    assert!(reason.contains(" the proxy 127.0.0.1:"), "{error}");
}

#[test]
fn any_2xx_opens_the_tunnel_however_it_is_written() {
    let many: String = (0..300).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(16 * 1024 - 24));
    assert_eq!(long.len(), 16 * 1024);
    for response in [
        "HTTP/1.1 200 Connection established\r\n\r\n",
        "HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 299\r\nContent-Length: 99\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\n\tc\r\n\r\n",
        "HTTP/1.1 200 OK\nX-Bare: line feeds\n\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        &long,
    ] {
        let proxy = Proxy::start(response);
        run(proxy.client("http"));
        let connects = proxy.connects.lock().unwrap();
        assert_eq!(connects.len(), 1, "{response:.60}");
        assert_eq!(connects[0].method, "CONNECT");
        assert_eq!(connects[0].target, "elsewhere.example:443");
        assert_eq!(connects[0].header("host"), Some("elsewhere.example:443"));
    }
}

#[test]
fn a_response_may_come_a_byte_at_a_time() {
    let proxy = Proxy::start_with(Ca::new(), None, |stream| {
        CONNECTED.iter().try_for_each(|byte| stream.write_all(&[*byte]))
    });
    run(proxy.client("http"));
}

#[test]
fn a_proxy_may_speak_tls_itself() {
    let ca = Ca::new();
    let tls = ca.server(Certificate::Good);
    let proxy = Proxy::start_with(ca, Some(tls), |stream| {
        stream.write_all(CONNECTED)?;
        stream.flush()
    });
    run(proxy.client("https"));
    let connects = proxy.connects.lock().unwrap();
    assert_eq!(connects.len(), 1);
    // me:proxy-secret
    let credentials = connects[0].header("proxy-authorization");
    assert_eq!(credentials, Some("Basic bWU6cHJveHktc2VjcmV0"));
    assert_eq!(proxy.server.requests().len(), 2);
}

#[test]
fn what_fails_before_the_tunnel_stands_is_the_proxys() {
    let (ca, other) = (Ca::new(), Ca::new());
    let closing = ScriptedServer::start(|_, stream| drop(respond(&stream, b"")));
    let in_head = ScriptedServer::start(|_, stream| drop(respond(&stream, b"HTTP/1.1 200 OK\r\n")));
    let silent = ScriptedServer::start(|_, stream| hold(stream));
    let deaf = ScriptedServer::start(|_, stream| drop(stream));
    let (untrusted, _) = fake_api(other.server(Certificate::Good));
    let (expired, _) = fake_api(ca.server(Certificate::Expired));
    let plain = without_tls();
    let short = Duration::from_millis(300);
    let long = Duration::from_secs(10);
    for (scheme, port, stage, is_timeout) in [
        // No program serves the port tcpmux.
        ("http", 1, Stage::Connect, false),
        ("http", closing.port(), Stage::Proxy, false),
        ("http", in_head.port(), Stage::Proxy, false),
        ("http", silent.port(), Stage::Proxy, true),
        ("https", deaf.port(), Stage::Connect, false),
        ("https", silent.port(), Stage::Tls, true),
        ("https", untrusted.port(), Stage::Certificate, false),
        ("https", expired.port(), Stage::Certificate, false),
        ("https", plain.port(), Stage::Tls, false),
    ] {
        let limit = if is_timeout { short } else { long };
        let client = builder(scheme, port, &ca).connect_timeout(limit);
        let error = error_of_proxy(client, port);
        assert_stage(&error, stage, is_timeout);
        let may_pass = is_timeout || matches!(stage, Stage::Connect | Stage::Proxy);
        assert_eq!(error.is_temporary(), may_pass, "{error}");
    }
}

#[test]
fn a_proxy_whose_name_is_unknown_is_told_as_that() {
    let client = client::builder(API)
        .proxy("http://me:proxy-secret@proxy.invalid:3128")
        .connect_timeout(Duration::from_secs(1));
    let error = read(client);
    let is_resolve = matches!(error, Error::Transport { stage: Stage::Resolve, .. });
    assert!(is_resolve, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("can't look up the proxy proxy.invalid:3128"), "{text}");
    assert!(!text.contains("elsewhere"), "{text}");
}

#[test]
fn what_fails_in_the_tunnel_is_not_the_proxys() {
    let proxy = Proxy::start(CONNECTED);
    let error = read(proxy.client("http").root_certificates(Ca::new().pem()));
    let Error::Transport { stage: Stage::Certificate, reason, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("elsewhere.example") && !reason.contains("proxy"), "{reason}");
}

#[test]
fn a_servers_words_that_hold_the_proxys_password_are_left_out() {
    for (words, is_shown) in [("it was said", true), ("it was proxy-secret", false)] {
        let proxy = Proxy::start(CONNECTED);
        let response = json_response("500 Failed", &format!(r#"{{"message":"{words}"}}"#));
        proxy.server.respond_always("/v1/datasets", response);
        let session = session_with_token(&proxy.client("http").build().unwrap(), "access-token");
        let error = session.datasets().unwrap_err();
        assert_eq!(error.status(), Some(500), "{error:?}");
        assert_eq!(error.to_string().contains(words), is_shown, "{error}");
    }
}

#[test]
fn a_refusal_names_its_status_once_and_is_final_unless_it_may_pass() {
    for (status, may_pass, retries) in [
        // A final refusal isn't repeated, however often a call may be.
        (301, false, 3),
        (400, false, 3),
        (403, false, 3),
        (407, false, 3),
        (501, false, 3),
        (408, true, 0),
        (429, true, 0),
        (500, true, 0),
        (502, true, 0),
        (503, true, 1),
        (504, true, 0),
    ] {
        let head = format!("HTTP/1.1 {status} me:proxy-secret\r\nContent-Length: 1\r\n\r\nx");
        let proxy = Proxy::start(head);
        let port = proxy.server.port();
        let error = error_of_proxy(proxy.client("http").max_retries(retries), port);
        let expected = format!("127.0.0.1:{port}");
        match &error {
            Error::Proxy { proxy, status: it } => {
                assert!(!may_pass, "{error}");
                assert_eq!((proxy, *it), (&expected, status));
            }
            Error::Transport { stage: Stage::Proxy, .. } => assert!(may_pass, "{error}"),
            _ => panic!("{error:?}"),
        }
        assert_eq!(error.is_temporary(), may_pass, "{status}");
        let tries = if may_pass { 1 + retries as usize } else { 1 };
        assert_eq!(proxy.connects.lock().unwrap().len(), tries, "{status}");
        let text = error.to_string().replace(&expected, "");
        assert_eq!(text.matches(&status.to_string()).count(), 1, "{text}");
    }
}

#[test]
fn what_is_not_http_is_final() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(16 * 1024));
    for response in [&b"SSH-2.0-OpenSSH\r\n"[..], b"HTTP/1.1 OK\r\n\r\n", long.as_bytes()] {
        let proxy = Proxy::start(response);
        let error = error_of_proxy(proxy.client("http").max_retries(3), proxy.server.port());
        assert!(!error.is_temporary(), "{error:?}");
        assert_eq!(proxy.connects.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_response_that_drips_has_the_connect_limit_and_no_more() {
    let dripping = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\nX-Drip: ");
        drip(&stream, b"x");
    });
    let client = builder("http", dripping.port(), &Ca::new());
    let start = Instant::now();
    let limit = Duration::from_millis(300);
    let error = error_of_proxy(client.connect_timeout(limit), dripping.port());
    assert_stage(&error, Stage::Proxy, true);
    assert!(start.elapsed() < Duration::from_secs(10), "{error}");
}

#[cfg(feature = "cli")]
mod of_the_command {
    use std::process::Command;

    use super::*;
    use crate::support::command::{datalens_at, run};
    use crate::support::fake_api::EMAIL;
    use crate::support::{CLOSED_PORT, temporary_file};

    fn at(base_url: &str) -> Command {
        let mut command = datalens_at(base_url);
        command.arg(EMAIL);
        command
    }

    impl Proxy {
        fn command(&self, variable: &str) -> Command {
            let port = self.server.port();
            let mut command = at(API);
            command.env(variable, format!("http://me:pr%6Fxy-secret@127.0.0.1:{port}"));
            command
        }
    }

    #[test]
    fn a_proxy_of_the_environment_is_used_with_its_password() {
        let proxy = Proxy::start(CONNECTED);
        let pem = temporary_file(proxy.ca.pem());
        for variable in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            let mut command = proxy.command(variable);
            run(command.arg("--cacert").arg(pem.path())).assert_printed_datasets();
            let connect = proxy.connects.lock().unwrap().pop().expect(variable);
            let credentials = connect.header("proxy-authorization");
            assert_eq!(credentials, Some("Basic bWU6cHJveHktc2VjcmV0"));
            let head = format!("{} {:?}", connect.target, connect.headers);
            assert!(!head.contains("Bearer") && !head.contains("app_code"), "{head}");
        }
    }

    #[test]
    fn a_refusal_is_said_of_the_proxy_and_exits_by_whether_it_may_pass() {
        let responses: [(&[u8], i32, &str); 4] = [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 5, "407"),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\nme:proxy-secret", 4, "503"),
            (b"SSH-2.0-OpenSSH\r\n", 5, ""),
            (b"", 4, ""),
        ];
        for (head, exit_status, words) in responses {
            let proxy = Proxy::start(head);
            let output = run(&mut proxy.command("https_proxy"));
            output.assert_failed(exit_status, words);
            output.assert_failed(exit_status, &format!("proxy 127.0.0.1:{}", proxy.server.port()));
            assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
            assert!(!output.stderr.contains("proxy-secret"), "{output:?}");
            assert_eq!(proxy.connects.lock().unwrap().len(), 1);
        }
        run(at(API).env("https_proxy", CLOSED_PORT)).assert_failed(4, "proxy 127.0.0.1:1");
    }

    #[test]
    fn an_exception_goes_past_the_proxy() {
        let ca = Ca::new();
        let (server, _) = fake_api(ca.server(Certificate::Good));
        let pem = temporary_file(ca.pem());
        for (variable, list, host) in [
            ("no_proxy", "other.example, localhost", "localhost"),
            ("NO_PROXY", "other.example localhost", "localhost"),
            ("no_proxy", "10.0.0.0/8,127.0.0.0/8", "127.0.0.1"),
        ] {
            let mut command = at(&format!("https://{host}:{}", server.port()));
            command.env("https_proxy", CLOSED_PORT).env(variable, list);
            run(command.arg("--cacert").arg(pem.path())).assert_printed_datasets();
        }
    }

    #[test]
    fn plain_http_on_this_machine_goes_past_any_proxy() {
        let server = FakeApi::start();
        let mut command = at(&server.base_url());
        for variable in ["http_proxy", "https_proxy", "ALL_PROXY"] {
            command.env(variable, CLOSED_PORT);
        }
        run(&mut command).assert_printed_datasets();
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_never_left_out() {
        let (server, _) = fake_api(Ca::new().server(Certificate::Good));
        for url in ["socks5://u:proxy-secret@127.0.0.1:1", "http://u:proxy-secret@:x", "::"] {
            let mut command = at(&format!("https://localhost:{}", server.port()));
            let output = run(command.env("https_proxy", url));
            output.assert_failed(2, "datalens: https_proxy: ");
            assert!(!output.stderr.contains("proxy-secret"), "{output:?}");
        }
        assert_eq!(server.connections(), 0);
    }
}
