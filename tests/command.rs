//! The command as a process: options, variables, output, exit statuses.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use support::command::{account, datalens, datalens_at, run, run_with_input};
use support::scripted::{Scripted, hold};
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME, answer, json};

/// Runs and expects this exit status, this on standard output and this in the message.
fn expect(command: &mut Command, status: i32, out: &str, words: &str) {
    let ran = run(command);
    assert_eq!((ran.status, ran.out()), (Some(status), out), "{ran:?}");
    assert!(ran.stderr.contains(words), "{words:?} isn't in {ran:?}");
    match status {
        0 => assert!(ran.stderr.is_empty(), "{ran:?}"),
        _ => assert!(ran.stderr.starts_with("datalens: "), "{ran:?}"),
    }
}

#[test]
fn help_and_version_need_no_environment() {
    let ran = run(datalens().arg("--help"));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    for word in [
        "Usage: datalens [OPTIONS] USERNAME [RESOURCE]",
        "HERE_APP_CODE",
        "130",
    ] {
        assert!(ran.out().contains(word), "{word}");
    }
    let version = format!("datalens {}\n", env!("CARGO_PKG_VERSION"));
    expect(datalens().arg("-V"), 0, &version, "");
    expect(datalens().arg("--version"), 0, &version, "");
}

#[test]
fn the_data_sets_are_printed_byte_for_byte_over_one_connection() {
    let server = StandIn::start();
    expect(
        datalens_at(&server).arg(USER_NAME),
        0,
        &format!("{DATASETS}\n"),
        "",
    );
    assert_eq!(server.connections(), 1);
    let paths: Vec<_> = server
        .requests()
        .iter()
        .map(|r| r.path().to_owned())
        .collect();
    assert_eq!(paths, ["/v1/sign_in/", "/v1/datasets/"]);
}

#[test]
fn another_resource_is_printed_with_its_query() {
    let server = StandIn::start();
    let json = "{\"columns\":[\"a\",\"b\"],\"rows\":[[1,2],[3,4]]}\n";
    expect(
        datalens_at(&server).args([USER_NAME, "/queries/1/data?a=b%20c"]),
        0,
        json,
        "",
    );
    let request = server.requests().pop().unwrap();
    assert!(
        request
            .target
            .starts_with("/v1/queries/1/data?a=b%20c&app_id="),
        "{request:?}"
    );
    // This one ends in a line feed of its own.
    let resource = "datasets/0123456789abcdef0123456789abcdef";
    let out = "{\"kind\":\"datalens#dataset\",\"name\":\"Café\"}\n";
    expect(datalens_at(&server).args([USER_NAME, resource]), 0, out, "");
}

#[test]
fn what_is_not_json_is_copied_as_it_is() {
    let server = StandIn::start();
    let ran = run(datalens_at(&server).args([USER_NAME, "tiles/1"]));
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(ran.stdout, (0..=255).collect::<Vec<u8>>());
    server.answer_always(
        "/v1/x",
        answer("200 OK", &["Content-Type: text/json; a=b"], b"no"),
    );
    expect(
        datalens_at(&server).args([USER_NAME, "x"]),
        5,
        "",
        "not JSON",
    );
    server.answer_always(
        "/v1/y",
        answer("200 OK", &["Content-Type: a/geo+JSON"], b"no"),
    );
    expect(
        datalens_at(&server).args([USER_NAME, "y"]),
        5,
        "",
        "not JSON",
    );
}

#[test]
fn the_token_is_printed_alone_or_as_a_header() {
    let server = StandIn::start();
    let ran = run(datalens_at(&server).args(["-t", USER_NAME]));
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(
        ran.out().starts_with("1-access-") && ran.out().ends_with("_-\n"),
        "{ran:?}"
    );
    assert_eq!(ran.out().lines().count(), 1);
    let ran = run(datalens_at(&server).args([USER_NAME, "--header"]));
    assert!(
        ran.out().starts_with("Authorization: Bearer 2-access-"),
        "{ran:?}"
    );
    assert_eq!(ran.out().lines().count(), 1);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn the_password_is_read_from_standard_input_up_to_a_final_line_break() {
    let server = StandIn::start();
    for ending in ["", "\n", "\r\n"] {
        let mut command = datalens_at(&server);
        // The option beats the variable.
        command
            .env("DATALENS_PASSWORD", "wrong")
            .args(["--password-stdin", "-t", USER_NAME]);
        let ran = run_with_input(&mut command, format!("{PASSWORD}{ending}").as_bytes());
        assert_eq!(ran.status, Some(0), "{ending:?}: {ran:?}");
    }
    for (input, words) in [
        (&b"\xff"[..], "UTF-8"),
        (b"\n", "empty"),
        (&[b'x'; 10_000], "too long"),
    ] {
        let before = server.requests().len();
        let ran = run_with_input(
            datalens_at(&server).args(["--password-stdin", USER_NAME]),
            input,
        );
        assert_eq!((ran.status, ran.out()), (Some(2), ""), "{ran:?}");
        assert!(ran.stderr.contains(words), "{ran:?}");
        assert_eq!(server.requests().len(), before);
    }
}

#[test]
fn awkward_characters_arrive_as_they_are() {
    let ascii: String = (1..128_u8).map(char::from).collect();
    for text in [ascii.as_str(), "ü 😀 \u{202e}", "%41%zz", "a+b&c=d#e?f/g"] {
        let server = StandIn::start();
        let ran = run(datalens_at(&server)
            .env("DATALENS_PASSWORD", text)
            .env("HERE_APP_ID", text)
            .env("HERE_APP_CODE", text)
            .args(["--", text]));
        assert_eq!(ran.status, Some(3), "{ran:?}");
        let request = server.requests().pop().unwrap();
        assert_eq!(request.query("app_id").as_deref(), Some(text));
        assert_eq!(request.query("app_code").as_deref(), Some(text));
        assert_eq!(request.json_member("email").as_deref(), Some(text));
        assert_eq!(request.json_member("password").as_deref(), Some(text));
    }
}

#[test]
fn an_option_beats_its_variable() {
    let server = StandIn::start();
    let out = format!("{DATASETS}\n");
    let url = format!("--base-url={}/prefix/", server.base_url());
    let mut command = datalens_at(&server);
    expect(
        command
            .env("DATALENS_BASE_URL", "x")
            .args([&url, USER_NAME]),
        0,
        &out,
        "",
    );
    assert_eq!(server.requests()[0].path(), "/prefix/v1/sign_in/");
}

#[test]
fn bad_settings_are_named_and_nothing_is_sent() {
    let server = StandIn::start();
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("HERE_APP_ID", "", &[], "HERE_APP_ID is empty"),
        ("HERE_APP_CODE", "", &[], "HERE_APP_CODE is empty"),
        ("DATALENS_PASSWORD", "", &[], "DATALENS_PASSWORD is empty"),
        (
            "DATALENS_BASE_URL",
            "http://example.com",
            &[],
            "base URL: must begin with https://",
        ),
        (
            "DATALENS_BASE_URL",
            "https://a:hidden@b",
            &[],
            "base URL: must not hold",
        ),
        (
            "SSL_CERT_FILE",
            "/",
            &[],
            "can't read certificates from \"/\"",
        ),
        (
            "SSL_CERT_FILE",
            "/nonexistent",
            &[],
            "can't read certificates",
        ),
        ("SSL_CERT_FILE", "/dev/zero", &[], "too large"),
        ("SSL_CERT_FILE", empty, &[], "no certificate"),
        ("X", "", &["--cacert", empty], "no certificate"),
        ("X", "", &["../x"], "resource: "),
        ("X", "", &["a", "-t"], "--token takes no RESOURCE"),
        ("X", "", &["-t", "--header"], "exclude each other"),
        ("X", "", &["--timeout", "0"], "--timeout"),
        ("X", "", &["--timeout", "1", "--timeout=1"], "given twice"),
        ("X", "", &["--password=hidden"], "unknown option"),
        ("X", "", &["a", "b"], "too many"),
    ];
    for (variable, value, arguments, words) in cases {
        let mut command = datalens_at(&server);
        let ran = run(command.env(variable, value).arg(USER_NAME).args(*arguments));
        assert_eq!((ran.status, ran.out()), (Some(2), ""), "{words}: {ran:?}");
        assert!(ran.stderr.contains(words), "{words}: {ran:?}");
        assert!(!ran.stderr.contains("hidden"), "{ran:?}");
    }
    for variable in ["HERE_APP_ID", "HERE_APP_CODE"] {
        let words = format!("{variable} isn't set");
        expect(
            datalens_at(&server).env_remove(variable).arg(USER_NAME),
            2,
            "",
            &words,
        );
    }
    assert_eq!(server.connections(), 0);
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let server = StandIn::start();
    let bad = OsStr::from_bytes(b"\xff\n");
    for variable in [
        "HERE_APP_ID",
        "HERE_APP_CODE",
        "DATALENS_PASSWORD",
        "DATALENS_BASE_URL",
    ] {
        let words = format!("{variable} isn't UTF-8");
        expect(
            datalens_at(&server).env(variable, bad).arg(USER_NAME),
            2,
            "",
            &words,
        );
    }
    expect(datalens_at(&server).arg(bad), 2, "", "USERNAME isn't UTF-8");
    expect(
        datalens_at(&server).arg(USER_NAME).arg(bad),
        2,
        "",
        "RESOURCE isn't UTF-8",
    );
    expect(
        datalens_at(&server).arg("-\u{ff}\n").arg(USER_NAME),
        2,
        "",
        "unknown option",
    );
    assert_eq!(server.connections(), 0);
}

#[test]
fn empty_variables_that_are_no_credentials_count_as_unset() {
    let server = StandIn::start();
    let mut command = datalens_at(&server);
    for variable in ["SSL_CERT_FILE", "https_proxy", "ALL_PROXY", "no_proxy"] {
        command.env(variable, "");
    }
    expect(command.arg(USER_NAME), 0, &format!("{DATASETS}\n"), "");
}

#[test]
fn without_a_password_or_a_terminal_it_says_what_to_do() {
    let server = StandIn::start();
    let mut command = datalens_at(&server);
    command.env_remove("DATALENS_PASSWORD").arg(USER_NAME);
    expect(&mut command, 2, "", "--password-stdin");
    expect(&mut command, 2, "", "DATALENS_PASSWORD");
    assert_eq!(server.connections(), 0);
}

#[test]
fn refused_credentials_exit_with_3() {
    let server = StandIn::start();
    for variable in ["DATALENS_PASSWORD", "HERE_APP_ID", "HERE_APP_CODE"] {
        let mut command = datalens_at(&server);
        expect(
            command.env(variable, "wrong").arg(USER_NAME),
            3,
            "",
            "the password",
        );
    }
    server.answer_always("/v1/datasets", json("403 Forbidden", "{}"));
    expect(datalens_at(&server).arg(USER_NAME), 3, "", "status 403");
    assert!(
        !server
            .requests()
            .iter()
            .any(|r| r.path().ends_with("refresh"))
    );
}

#[test]
fn statuses_are_told_with_the_servers_own_text() {
    let server = StandIn::start();
    expect(
        datalens_at(&server).args([USER_NAME, "x"]),
        5,
        "",
        "not there, or not yours (status 404)",
    );
    server.answer_always("/v1/x", json("500 Oops", "\x1b[31mit\r\nbroke"));
    expect(
        datalens_at(&server).args([USER_NAME, "x"]),
        5,
        "",
        "status 500); the server says: [31mit broke\n",
    );
}

#[test]
fn a_server_that_is_not_there_exits_with_4_and_is_named() {
    // No program serves the port tcpmux.
    let mut command = datalens();
    account(&mut command, "http://127.0.0.1:1");
    command.env("DATALENS_PASSWORD", PASSWORD).arg(USER_NAME);
    expect(&mut command, 4, "", "can't connect to 127.0.0.1:1");
    command.env("DATALENS_BASE_URL", "https://nowhere.invalid");
    expect(&mut command, 4, "", "can't look up nowhere.invalid");
}

#[test]
fn a_time_limit_holds_for_a_silent_server() {
    let server = Scripted::start(|_, stream| hold(stream));
    let mut command = datalens();
    account(&mut command, &server.base_url());
    command
        .env("DATALENS_PASSWORD", PASSWORD)
        .args([USER_NAME, "--timeout", "0.2"]);
    expect(&mut command, 4, "", "no answer in time from 127.0.0.1");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let server = StandIn::start();
    let long = format!("[{}0]", "0,".repeat(1_000_000));
    server.answer_always("/v1/datasets", json("200 OK", &long));
    let mut child = datalens_at(&server)
        .arg(USER_NAME)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{output:?}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_exits_with_1() {
    let server = StandIn::start();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&[USER_NAME][..], &["-t", USER_NAME], &["--help"]] {
        let output = datalens_at(&server)
            .args(arguments)
            .stdout(full())
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.starts_with("datalens: can't write the output: No space"),
            "{message}"
        );
    }
    // A message that can't be written changes nothing.
    let output = datalens_at(&server)
        .args([USER_NAME, "x"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
}

#[cfg(target_os = "linux")]
#[test]
fn no_secret_stands_on_the_command_line() {
    let server = StandIn::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_datalens"));
    command.env_clear();
    account(&mut command, &server.base_url());
    let mut child = command
        .args(["--password-stdin", "-t", USER_NAME])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(PASSWORD.as_bytes()).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    for secret in [PASSWORD, APP_CODE, APP_ID] {
        assert!(!line.contains(secret), "{line:?}");
    }
}
