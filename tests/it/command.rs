//! The command as a process: what it prints, and its exit statuses.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::CLOSED_PORT;
use crate::support::command::{
    at, datalens, datalens_at, run, run_with_input, set_application, start, wait,
};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::scripted_server::{ScriptedServer, hold};
use crate::support::fake_api::{APP_CODE, APP_ID, EMAIL, FakeApi, PASSWORD};

#[test]
fn the_data_sets_are_printed_byte_for_byte_over_one_connection() {
    let server = FakeApi::start();
    run(at(&server).arg(EMAIL)).assert_printed_datasets();
    assert_eq!(server.connections(), 1);
    assert_eq!(server.paths_after(0), ["/v1/sign_in/", "/v1/datasets/"]);
}

#[test]
fn another_resource_is_printed_with_its_query() {
    let server = FakeApi::start();
    let output = run(at(&server).args([EMAIL, "/queries/1/data?a=b%20c"]));
    output.assert_printed("{\"columns\":[\"a\",\"b\"],\"rows\":[[1,2],[3,4]]}\n");
    let target = server.requests().pop().unwrap().target;
    let expected = "/v1/queries/1/data?a=b%20c&app_id=";
    assert!(target.starts_with(expected), "{target}");
    // This one ends in a line feed of its own.
    let output = run(at(&server).args([EMAIL, "datasets/0123456789abcdef0123456789abcdef"]));
    output.assert_printed("{\"kind\":\"datalens#dataset\",\"name\":\"Café\"}\n");
}

#[test]
fn what_is_not_json_is_copied_as_it_is() {
    let server = FakeApi::start();
    let output = run(at(&server).args([EMAIL, "tiles/1"]));
    assert_eq!(output.status, Some(0), "{output:?}");
    assert_eq!(output.stdout, (0..=255).collect::<Vec<u8>>());
}

#[test]
fn what_is_declared_as_json_has_to_be_json() {
    let server = FakeApi::start();
    for (resource, header) in
        [("x", "Content-Type: text/json; a=b"), ("y", "Content-Type: a/geo+JSON")]
    {
        let path = format!("/v1/{resource}");
        server.respond_always(&path, response("200 OK", &[header], b"no"));
        run(at(&server).args([EMAIL, resource])).assert_failed(5, "not JSON");
    }
    // The data sets have to be JSON whatever is declared.
    server.respond_always("/v1/datasets", response("200 OK", &[], b"no"));
    run(at(&server).arg(EMAIL)).assert_failed(5, "not JSON");
}

#[test]
fn the_token_is_printed_alone_or_as_a_header() {
    let server = FakeApi::start();
    let output = run(at(&server).args(["-t", EMAIL]));
    assert_eq!(output.status, Some(0), "{output:?}");
    let text = output.text();
    assert!(text.starts_with("1-access-") && text.ends_with("_-\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
    let output = run(at(&server).args([EMAIL, "--header"]));
    let text = output.text();
    assert!(text.starts_with("Authorization: Bearer 2-access-"), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn the_password_is_the_one_line_of_standard_input() {
    let server = FakeApi::start();
    for ending in ["", "\n", "\r\n"] {
        // The option beats the variable.
        let mut command = at(&server);
        command.env("DATALENS_PASSWORD", "wrong");
        command.args(["--password-stdin", "-t", EMAIL]);
        let output = run_with_input(&mut command, format!("{PASSWORD}{ending}").as_bytes());
        assert_eq!(output.status, Some(0), "{ending:?}: {output:?}");
    }
    let before = server.requests().len();
    for (input, words) in [
        (&b"\xff"[..], "UTF-8"),
        (b"", "empty"),
        (b"\n", ""),
        (b"\nsecret", ""),
        (b"secret\nsecond", ""),
        (b"\xef\xbb\xbfsecret", ""),
        (&[b'x'; 10_000], "too long"),
    ] {
        let mut command = at(&server);
        let output = run_with_input(command.args(["--password-stdin", EMAIL]), input);
        output.assert_failed(2, words);
        assert!(!output.stderr.contains("secret"), "{output:?}");
    }
    assert_eq!(server.requests().len(), before);
}

#[test]
fn awkward_characters_arrive_as_they_are() {
    let ascii: String = (b' '..=b'~').map(char::from).collect();
    let ascii = ascii.trim();
    for text in [ascii, "ü 😀", "%41%zz", "a+b&c=d#e?f/g", "\\\"", "e\u{301}"] {
        let server = FakeApi::start();
        let email = format!("{text}@example.com");
        let password = format!(" \t{text} ");
        let output = run(at(&server)
            .env("DATALENS_PASSWORD", &password)
            .env("HERE_APP_ID", text)
            .env("HERE_APP_CODE", text)
            .args(["--", &email]));
        assert_eq!(output.status, Some(3), "{output:?}");
        let request = server.requests().pop().unwrap();
        assert_eq!(request.query("app_id").as_deref(), Some(text));
        assert_eq!(request.query("app_code").as_deref(), Some(text));
        assert_eq!(request.json_member("email"), Some(email));
        assert_eq!(request.json_member("password"), Some(password));
    }
}

#[test]
fn without_a_password_or_a_terminal_it_says_what_to_do() {
    let server = FakeApi::start();
    let output = run(at(&server).env_remove("DATALENS_PASSWORD").arg(EMAIL));
    output.assert_failed(2, "--password-stdin");
    output.assert_failed(2, "DATALENS_PASSWORD");
    assert_eq!(server.connections(), 0);
}

#[test]
fn refused_credentials_exit_with_3() {
    let server = FakeApi::start();
    for variable in ["DATALENS_PASSWORD", "HERE_APP_ID", "HERE_APP_CODE"] {
        let output = run(at(&server).env(variable, "wrong").arg(EMAIL));
        output.assert_failed(3, "the password");
        output.assert_failed(3, EMAIL);
    }
    server.respond_always("/v1/datasets", json_response("403 Forbidden", "{}"));
    run(at(&server).arg(EMAIL)).assert_failed(3, "status 403");
    let paths = server.paths_after(0);
    assert!(!paths.iter().any(|path| path.ends_with("refresh")), "{paths:?}");
}

#[test]
fn a_status_is_said_with_the_servers_own_words() {
    let server = FakeApi::start();
    let output = run(at(&server).args([EMAIL, "x?y=z"]));
    output.assert_failed(5, "datalens: x: not found, or no permission (status 404)");
    assert!(!output.stderr.contains("y=z"), "{output:?}");
    let words = response("500 Oops", &[], b"\x1b[31mit\r\nbroke");
    server.respond_always("/v1/x", words);
    let output = run(at(&server).args([EMAIL, "x"]));
    output.assert_failed(4, "(status 500); the server says: [31mit broke\n");
}

#[test]
fn a_sign_in_that_is_malformed_or_redirected_exits_with_5() {
    let server = FakeApi::start();
    let redirect = response("302 Found", &["Location: /v1/sign_in/2"], b"");
    for (bytes, words) in [
        (json_response("200 OK", ""), "sign-in at"),
        (json_response("200 OK", r#"{"refresh_token":"tOk3n"}"#), "access token"),
        (json_response("200 OK", r#"{"access_token":"tOk3n\n"}"#), "access token"),
        (json_response("200 OK", "<html>tOk3n"), "not JSON"),
        (redirect, "redirected to /v1/sign_in/2"),
    ] {
        server.respond_once("/v1/sign_in", bytes);
        let before = server.requests().len();
        let output = run(at(&server).arg(EMAIL));
        output.assert_failed(5, words);
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert!(!output.stderr.contains("tOk3n"), "{output:?}");
        assert_eq!(server.requests().len() - before, 1, "{words}");
    }
}

#[test]
fn a_server_that_is_not_there_exits_with_4_and_is_named() {
    for (base_url, host) in
        [(CLOSED_PORT, "127.0.0.1:1"), ("https://nowhere.invalid", "nowhere.invalid")]
    {
        run(datalens_at(base_url).arg(EMAIL)).assert_failed(4, host);
    }
}

#[test]
fn a_time_limit_holds_for_a_silent_server() {
    let server = ScriptedServer::start(|_, stream| hold(stream));
    let output = run(datalens_at(&server.base_url()).args([EMAIL, "--timeout", "0.2"]));
    output.assert_failed(4, &server.port().to_string());
}

#[test]
fn a_retry_is_said_in_a_line() {
    let server = FakeApi::start();
    for status in ["503 Service Unavailable", "429 Too Many Requests"] {
        let bytes = response(status, &["Retry-After: 0"], b"{}");
        server.respond_once("/v1/datasets", bytes);
    }
    let output = run(at(&server).args(["--retry", "2", EMAIL]));
    assert_eq!(output.status, Some(0), "{output:?}");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    for (line, status) in lines.iter().zip(["503", "429"]) {
        assert!(line.starts_with("datalens: datasets/: "), "{line}");
        assert!(line.contains(status), "{line}");
        assert!(line.ends_with("trying again in 0.0 s"), "{line}");
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let server = FakeApi::start();
    let long = format!("[{}0]", "0,".repeat(1_000_000));
    server.respond_always("/v1/datasets", json_response("200 OK", &long));
    let mut child = start(at(&server).arg(EMAIL));
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    drop(out);
    let output = wait(child);
    assert_eq!((output.status, output.stderr.as_str()), (Some(0), ""));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_exits_with_1() {
    let server = FakeApi::start();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&[EMAIL][..], &["-t", EMAIL], &["--help"]] {
        let mut command = at(&server);
        let output = command.args(arguments).stdout(full()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        let expected = "datalens: can't write the output: No space";
        assert!(message.starts_with(expected), "{message}");
    }
    // A message that can't be written changes nothing.
    let mut command = at(&server);
    let output = command.args([EMAIL, "x"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
}

#[cfg(target_os = "linux")]
#[test]
fn no_secret_stands_on_the_command_line() {
    let server = FakeApi::start();
    let mut command = datalens();
    set_application(&mut command, &server.base_url());
    command.args(["--password-stdin", "-t", EMAIL]);
    let mut child = start(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(PASSWORD.as_bytes()).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    drop(stdin);
    assert_eq!(wait(child).status, Some(0));
    assert!(line.contains(EMAIL), "{line:?}");
    for secret in [PASSWORD, APP_CODE, APP_ID] {
        assert!(!line.contains(secret), "{line:?}");
    }
}
