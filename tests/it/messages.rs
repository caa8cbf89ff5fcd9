//! Every message of the command, whole, so that the next change of words is seen.

use std::fs;
use std::process::Command;

use crate::support::CLOSED_PORT;
use crate::support::command::{datalens, datalens_at, run};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::scripted_server::{ScriptedServer, hold, respond};
use crate::support::fake_api::{EMAIL, FakeApi};
use crate::support::files::write_private;
use crate::support::fixture::Fixture;
use crate::support::temporary_file;
use crate::support::tls::{Ca, Certificate, fake_api};

/// The exit status and the message of a run, with names in the place of what differs.
fn said(command: &mut Command, names: &[(&str, &str)]) -> String {
    let output = run(command);
    let message = output.stderr.trim_end().replace("datalens: ", "");
    let message = names.iter().fold(message, |text, (from, to)| text.replace(from, to));
    format!("{} {message}", output.status.unwrap_or(-1))
}

/// A run that reads `x` of a fake API that answers so.
fn read(response: impl Into<Vec<u8>>) -> String {
    let server = FakeApi::start();
    server.respond_always("/v1/x", response);
    let host = format!("127.0.0.1:{}", server.port());
    said(datalens_at(&server.base_url()).args([EMAIL, "x?secret=query"]), &[(&host, "HOST")])
}

/// A run whose sign-in is answered so.
fn sign_in(response: impl Into<Vec<u8>>) -> String {
    let server = FakeApi::start();
    server.respond_always("/v1/sign_in", response);
    let host = format!("127.0.0.1:{}", server.port());
    said(datalens_at(&server.base_url()).arg(EMAIL), &[(&host, "HOST")])
}

/// A run whose settings are changed so.
fn with(variable: &str, value: &str) -> String {
    let mut command = datalens_at(CLOSED_PORT);
    said(command.env(variable, value).args([EMAIL, "x"]), &[("127.0.0.1:1", "HOST")])
}

/// A run that goes to a server of a script, with these arguments.
fn scripted(script: &'static [u8], arguments: &[&str]) -> String {
    let server = ScriptedServer::start(move |_, stream| {
        respond(&stream, script);
        if script.is_empty() {
            hold(stream);
        }
    });
    let host = format!("127.0.0.1:{}", server.port());
    said(datalens_at(&server.base_url()).arg(EMAIL).args(arguments), &[(&host, "HOST")])
}

/// A run over TLS with a certificate, and perhaps its authority.
fn over_tls(certificate: Certificate, ca: &Ca, is_known: bool) -> String {
    let (server, _) = fake_api(ca.server(certificate));
    let pem = temporary_file(ca.pem());
    let mut command = datalens_at(&format!("https://localhost:{}", server.port()));
    if is_known {
        command.arg("--cacert").arg(pem.path());
    }
    let host = format!("localhost:{}", server.port());
    said(command.arg(EMAIL), &[(&host, "HOST")])
}

/// A run through a proxy that answers so.
fn through_proxy(script: &'static [u8]) -> String {
    let proxy = ScriptedServer::start(move |_, stream| {
        respond(&stream, script);
    });
    let address = format!("127.0.0.1:{}", proxy.port());
    let mut command = datalens_at("https://api.example");
    command.env("https_proxy", format!("http://me:pr0xy-secret@{address}"));
    said(command.arg(EMAIL), &[(&address, "PROXY")])
}

/// A run with a session's file that this has been done to.
fn with_file(spoil: impl FnOnce(&Fixture)) -> String {
    let fixture = Fixture::with_expired_token();
    spoil(&fixture);
    let host = format!("127.0.0.1:{}", fixture.server.port());
    let directory = fixture.path("");
    let directory = directory.to_str().unwrap().trim_end_matches('/');
    said(&mut fixture.datalens(), &[(&host, "HOST"), (directory, "DIR")])
}

fn refresh(response: impl Into<Vec<u8>>) -> String {
    with_file(|fixture| fixture.server.respond_always("/v1/sign_in/refresh", response))
}

fn check(cases: Vec<(String, &str)>) {
    let wrong: Vec<_> = cases.iter().filter(|(said, expected)| said != expected).collect();
    for (said, expected) in &wrong {
        println!("  said: {said}\nwanted: {expected}\n");
    }
    assert!(wrong.is_empty(), "{} of {}", wrong.len(), cases.len());
}

#[test]
fn of_settings() {
    let pem = temporary_file("no certificate");
    let pem = pem.path().to_str().unwrap();
    let cacert = with("SSL_CERT_FILE", pem).replace(pem, "FILE");
    check(vec![
        (with("HERE_APP_ID", ""), "2 HERE_APP_ID is empty"),
        (with("HERE_APP_ID", "x\u{fe0f}"), "2 HERE_APP_ID holds a character that can't be seen"),
        (with("HERE_APP_CODE", " x"), "2 HERE_APP_CODE begins or ends with a blank"),
        (with("HERE_APP_ID", "x\u{200b}"), "2 HERE_APP_ID holds a character that can't be seen"),
        (
            with("HERE_APP_CODE", "\"x\""),
            "2 HERE_APP_CODE is in quotes: leave them out (docker's --env-file keeps them)",
        ),
        (with("HERE_APP_ID", &"x".repeat(2000)), "2 HERE_APP_ID: is too long"),
        (with("DATALENS_PASSWORD", ""), "2 DATALENS_PASSWORD is empty"),
        (
            with("DATALENS_PASSWORD", "a\nb"),
            "2 DATALENS_PASSWORD contains a line break: it must be one line",
        ),
        (with("DATALENS_PASSWORD", "\u{feff}a"), "2 DATALENS_PASSWORD contains a byte-order mark"),
        (
            with("DATALENS_BASE_URL", "http://example.com"),
            "2 DATALENS_BASE_URL: must begin with https:// (plain http is for localhost alone)",
        ),
        (
            with("DATALENS_BASE_URL", " https://example.com"),
            "2 DATALENS_BASE_URL begins or ends with a blank",
        ),
        (
            said(
                datalens_at("https://api.example")
                    .env("https_proxy", "socks5://u:pr0xy-secret@x")
                    .arg(EMAIL),
                &[],
            ),
            "2 https_proxy: SOCKS proxies aren't supported, only http:// and https://",
        ),
        (
            with("SSL_CERT_FILE", "/nonexistent"),
            "2 SSL_CERT_FILE \"/nonexistent\": can't be read: No such file or directory (os error 2)",
        ),
        (
            cacert,
            "2 SSL_CERT_FILE \"FILE\": no certificate in PEM: it begins with `-----BEGIN CERTIFICATE-----`",
        ),
        (
            said(&mut datalens(), &[]),
            "2 prints a resource of HERE's Geovisualization (Data Lens) API as JSON\nUsage: datalens [OPTIONS] USERNAME [RESOURCE]\nAn access token is valid for an hour. Try 'datalens -h' or 'datalens --help'.",
        ),
        (said(datalens().arg(EMAIL), &[]), "2 HERE_APP_ID isn't set"),
        (
            said(datalens().args(["--help=x", EMAIL]), &[]),
            "2 --help takes no value\nTry 'datalens --help' for more.",
        ),
        (said(datalens_at(CLOSED_PORT).args([EMAIL, "?x=y"]), &[]), "2 resource: is empty"),
        (
            said(datalens_at(CLOSED_PORT).args([EMAIL, "../x"]), &[]),
            "2 resource: must not have a segment . or ..",
        ),
        (
            said(datalens_at(CLOSED_PORT).args([EMAIL, "v1/x"]), &[]),
            "2 resource: is taken below /v1/ already: leave out v1/",
        ),
        (
            said(datalens_at(CLOSED_PORT).arg(EMAIL).env_remove("DATALENS_PASSWORD"), &[]),
            "2 no password, and no terminal to ask for it: use --password-stdin or set DATALENS_PASSWORD",
        ),
    ]);
}

#[test]
fn of_responses() {
    let long = format!("[{}x]", "1,".repeat(50_000));
    check(vec![
        (
            read(json_response("401 Unauthorized", r#"{"message":"no"}"#)),
            "3 x: access refused: no permission, or the app id or the app code is wrong (status 401); the server says: no",
        ),
        (
            read(json_response("403 Forbidden", "{}")),
            "3 x: access refused: no permission, or the app id or the app code is wrong (status 403)",
        ),
        (
            read(json_response("404 Not Found", r#"{"message":"no such resource"}"#)),
            "5 x: not found, or no permission (status 404); the server says: no such resource",
        ),
        (read(json_response("429 Too Many Requests", "{}")), "4 x: too many requests (status 429)"),
        (
            read(json_response("500 Oops", "<html><title>It broke</title>")),
            "4 x: the server failed (status 500); the server says: It broke",
        ),
        (
            read(json_response("418 I'm a teapot", "short and stout")),
            "5 x: unexpected status (status 418); the server says: short and stout",
        ),
        (
            read(response("404 Not Found", &["Content-Encoding: br"], b"{\"message\":\"no\"}")),
            "5 x: not found, or no permission (status 404)",
        ),
        (read(json_response("201 Created", "{}")), "5 x: unexpected status (status 201)"),
        (
            read(response("302 Found", &["Location: https://elsewhere.example/x?y"], b"")),
            "5 x: redirected to https://elsewhere.example, which gets no credentials (status 302)",
        ),
        (
            read(response("302 Found", &["Location: relative"], b"")),
            "5 x: redirected to nowhere usable (status 302)",
        ),
        (
            read(response("302 Found", &["Location: /v1/x"], b"")),
            "5 x: redirected more than 5 times",
        ),
        (
            sign_in(response("302 Found", &["Location: /v1/sign_in?x=y"], b"")),
            "5 sign-in at HOST: redirected to /v1/sign_in, which isn't followed (status 302)",
        ),
        (
            sign_in(response("302 Found", &["Location: /v2/datalens/sign_in/new"], b"")),
            "5 sign-in at HOST: redirected to /v2/datalens/sign_in/new, which isn't followed (status 302)",
        ),
        (
            sign_in(response("302 Found", &["Location: //elsewhere.example/x"], b"")),
            "5 sign-in at HOST: redirected to http://elsewhere.example, which gets no credentials (status 302)",
        ),
        (read(json_response("200 OK", "")), "5 x: empty, not JSON"),
        (read(json_response("200 OK", "[1")), "5 x: the JSON ends too early"),
        (read(json_response("200 OK", "[1,]")), "5 x: not JSON at byte 3"),
        (read(json_response("200 OK", "\"\u{0}\"")), "5 x: not JSON at byte 1"),
        (
            read(json_response("200 OK", &"[".repeat(200))),
            "5 x: the JSON is nested too deeply at byte 127",
        ),
        (
            read(json_response("200 OK", &long)).chars().take(80).collect(),
            "5 x: not JSON at byte 100001; the output is incomplete",
        ),
        (
            read(response("200 OK", &["Content-Encoding: br"], b"x")),
            "5 x: the content encoding isn't supported",
        ),
        (
            read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n[1"),
            "4 x: cut short after 2 bytes",
        ),
        (
            read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: a/json\r\n\r\n[1"),
            "4 x: the JSON ends too early",
        ),
        (read("SSH-2.0-OpenSSH\r\nConnection: close\r\n"), "5 x: not valid HTTP"),
        (
            read(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(30_000))),
            "5 x: the head of the response is too large",
        ),
    ]);
}

#[test]
fn of_signing_in_and_refreshing() {
    let lost = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99\r\n\r\n{";
    check(vec![
        (
            sign_in(json_response("401 Unauthorized", r#"{"message":"wrong password"}"#)),
            "3 sign-in at HOST: refused: check the user name me+demo@example.com, the password, the app id and the app code (status 401); the server says: wrong password",
        ),
        (
            sign_in(json_response("200 OK", r#"{"message":"locked out"}"#)),
            "5 sign-in at HOST: no access token in the response; the server says: locked out",
        ),
        (
            sign_in(json_response("200 OK", "[]")),
            "5 sign-in at HOST: the JSON doesn't fit: expected a map (line 1, column 0)",
        ),
        (
            sign_in(json_response("200 OK", r#"{"access_token":"a b"}"#)),
            "5 sign-in at HOST: the access token in the response isn't visible ASCII of at most 8192 bytes",
        ),
        (
            sign_in(json_response("503 Busy", "{}")),
            "4 sign-in at HOST: the server failed (status 503)",
        ),
        (
            refresh(json_response("401 Unauthorized", r#"{"message":"expired"}"#)),
            "3 refresh at HOST: refused: sign in again (status 401); the server says: expired; no password, and no terminal to ask for it: use --password-stdin or set DATALENS_PASSWORD",
        ),
        (
            refresh(json_response("503 Busy", "{}")),
            "4 refresh at HOST: the server failed (status 503)",
        ),
        (
            refresh(lost),
            "4 refresh at HOST: cut short after 1 bytes; the session may have ended, which the next call finds out",
        ),
        (
            refresh(json_response("200 OK", "{}")),
            "5 refresh at HOST: no access token in the response; the session may have ended, which the next call finds out",
        ),
    ]);
}

#[test]
fn of_sessions() {
    check(vec![
        (
            with_file(|fixture| write_private(&fixture.file(), "hello")),
            "2 session \"DIR/session.json\": can't be used: what it holds isn't a session",
        ),
        (
            with_file(|fixture| fixture.change("app_id", "another")),
            "2 session \"DIR/session.json\": can't be used: it belongs to another account: its app id differs",
        ),
        (
            with_file(|fixture| {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(fixture.file(), fs::Permissions::from_mode(0o644)).unwrap();
            }),
            "2 session \"DIR/session.json\": can't be used: others can read or write it: chmod 600 'DIR/session.json'",
        ),
        (
            with_file(|fixture| {
                fs::remove_file(fixture.file()).unwrap();
                fs::create_dir(fixture.file()).unwrap();
            }),
            "2 session \"DIR/session.json\": can't be used: can't open it: it is not a regular file",
        ),
        (
            with_file(|fixture| {
                let lock = fixture.path("session.json.lock");
                fs::remove_file(&lock).unwrap();
                fs::create_dir(lock).unwrap();
            }),
            "1 session \"DIR/session.json\": can't be used: can't lock \"DIR/session.json.lock\": it is not a regular file",
        ),
        (
            said(datalens_at(CLOSED_PORT).args(["-s", "/nonexistent/s.json", EMAIL]), &[]),
            "2 session \"/nonexistent/s.json\": can't be used: its directory doesn't exist",
        ),
    ]);
}

#[test]
fn of_connections() {
    let (ca, other) = (Ca::new(), Ca::new());
    check(vec![
        (
            said(datalens_at(CLOSED_PORT).arg(EMAIL), &[]),
            "4 sign-in at 127.0.0.1:1: can't connect to 127.0.0.1:1: Connection refused",
        ),
        (
            // What follows is the system's, and depends on whether there is a network.
            said(datalens_at("https://nowhere.invalid").arg(EMAIL), &[]).chars().take(60).collect(),
            "4 sign-in at nowhere.invalid: can't look up nowhere.invalid:",
        ),
        (
            scripted(b"", &["--timeout", "0.2"]),
            "4 sign-in at HOST: no response from HOST within 0.2 s",
        ),
        (
            scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", &[]),
            "4 sign-in at HOST: cut short after 1 bytes",
        ),
        (
            over_tls(Certificate::Good, &ca, false),
            "5 sign-in at HOST: untrusted certificate of HOST: not trusted by Mozilla's root certificates (--cacert FILE names others)",
        ),
        (
            over_tls(Certificate::Expired, &ca, true),
            "5 sign-in at HOST: untrusted certificate of HOST: expired on 2002-01-01",
        ),
        (
            over_tls(Certificate::OfAnotherHost, &other, true),
            "5 sign-in at HOST: untrusted certificate of HOST: made for elsewhere.example, not for localhost",
        ),
        (
            through_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
            "5 proxy PROXY: wants other credentials: they are set in its URL, user:password@host (status 407)",
        ),
        (
            through_proxy(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
            "5 proxy PROXY: refuses the connection (status 403)",
        ),
        (
            through_proxy(b"HTTP/1.1 503 Busy\r\n\r\n"),
            "4 sign-in at api.example: no tunnel through the proxy PROXY: status 503",
        ),
        (
            through_proxy(b"SSH-2.0-OpenSSH\r\n"),
            "5 sign-in at api.example: no tunnel through the proxy PROXY: it doesn't speak HTTP",
        ),
        (
            through_proxy(b""),
            "4 sign-in at api.example: no tunnel through the proxy PROXY: the connection was closed",
        ),
        (
            said(
                datalens_at("https://api.example")
                    .env("https_proxy", "http://127.0.0.1:1")
                    .arg(EMAIL),
                &[],
            ),
            "4 sign-in at api.example: can't connect to the proxy 127.0.0.1:1: Connection refused",
        ),
    ]);
}
