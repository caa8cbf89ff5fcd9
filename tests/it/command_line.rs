//! The command line and the environment: help, options, and what is refused before
//! anything is sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::command::{at, datalens, run};
use crate::support::fake_api::{EMAIL, FakeApi};
use crate::support::temporary_file;

#[test]
fn help_and_version_need_no_environment() {
    let short = run(datalens().arg("-h"));
    let long = run(datalens().arg("--help"));
    let usage = "Usage: datalens [OPTIONS] USERNAME [RESOURCE]";
    for (output, words) in [
        (&short, &[usage, "--session", "HERE_APP_CODE", "hour"][..]),
        (&long, &[usage, "--session", "HERE_APP_CODE", "130", "Examples"]),
    ] {
        assert_eq!((output.status, output.stderr.as_str()), (Some(0), ""));
        for word in words {
            assert!(output.text().contains(word), "{word}");
        }
        let widest = output.text().lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(79), "{widest:?}");
    }
    assert!(short.text().lines().count() <= 23, "{short:?}");
    let version = format!("datalens {}\n", env!("CARGO_PKG_VERSION"));
    run(datalens().arg("-V")).assert_printed(&version);
    run(datalens().arg("--version")).assert_printed(&version);
}

#[test]
fn without_arguments_it_says_what_it_is_and_where_help_is() {
    let output = run(&mut datalens());
    assert_eq!((output.status, output.text()), (Some(2), ""));
    for words in ["Usage: datalens", "valid for an hour", "--help"] {
        assert!(output.stderr.contains(words), "{output:?}");
    }
}

#[test]
fn an_option_beats_its_variable_and_an_earlier_one() {
    let server = FakeApi::start();
    let url = format!("--base-url={}/prefix/", server.base_url());
    run(at(&server).env("DATALENS_BASE_URL", "x").args(["--base-url", "y", &url, EMAIL]))
        .assert_printed_datasets();
    assert_eq!(server.requests()[0].path(), "/prefix/v1/sign_in/");
    run(at(&server).args(["--timeout", "1e-9", "--timeout=9", EMAIL])).assert_printed_datasets();
}

#[test]
fn arguments_that_cannot_be_used_are_refused_and_nothing_is_sent() {
    let server = FakeApi::start();
    let empty = temporary_file("");
    let empty = empty.path().to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--timeout", "1"], "USERNAME is missing"),
        (&["help"], "e-mail"),
        (&["a@b\nc"], "control character"),
        (&[EMAIL, "../x"], "resource: "),
        (&[EMAIL, "v1/datasets"], "v1/"),
        (&[EMAIL, "a", "-t"], "--token takes no RESOURCE"),
        (&[EMAIL, "a", "--header"], "--header takes no RESOURCE"),
        (&[EMAIL, "-t", "--header"], "exclude each other"),
        (&[EMAIL, "--timeout", "0"], "--timeout"),
        (&[EMAIL, "--timeout", "hidden"], "--timeout"),
        (&[EMAIL, "--retry", "-1"], "--retry"),
        (&[EMAIL, "--password=hidden"], "unknown option --password"),
        (&[EMAIL, "--password:hidden"], "unknown option --password"),
        (&[EMAIL, "-phidden"], "unknown option -p"),
        (&[EMAIL, "--token=hidden"], "takes no value"),
        (&[EMAIL, "--session"], "needs a value"),
        (&[EMAIL, "--session="], "--session"),
        (&[EMAIL, "a", "hidden"], "too many"),
        (&[EMAIL, "--cacert", empty], "no certificate"),
        (&[EMAIL, "--cacert", "/nonexistent"], "/nonexistent"),
        (&[EMAIL, "--base-url", "http://example.com"], "base-url: "),
        (&[EMAIL, "--base-url", "https://a:hidden@b"], "base-url: "),
    ];
    for (arguments, words) in cases {
        let output = run(at(&server).args(*arguments));
        output.assert_failed(2, words);
        assert!(!output.stderr.contains("hidden"), "{output:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn variables_that_cannot_be_used_are_named_and_nothing_is_sent() {
    let server = FakeApi::start();
    let empty = temporary_file("");
    let empty = empty.path().to_str().unwrap();
    for (variable, value, words) in [
        ("HERE_APP_ID", "", "HERE_APP_ID is empty"),
        ("HERE_APP_ID", " hidden", "HERE_APP_ID"),
        ("HERE_APP_ID", "hidden\u{200b}", "HERE_APP_ID"),
        ("HERE_APP_ID", "\"hidden\"", "quotes"),
        ("HERE_APP_CODE", "", "HERE_APP_CODE is empty"),
        ("HERE_APP_CODE", "hidden\n", "HERE_APP_CODE"),
        ("HERE_APP_CODE", "\u{feff}hidden", "HERE_APP_CODE"),
        ("HERE_APP_CODE", "'hidden'", "quotes"),
        ("DATALENS_PASSWORD", "", "DATALENS_PASSWORD is empty"),
        ("DATALENS_PASSWORD", "hidden\r", "DATALENS_PASSWORD"),
        ("DATALENS_PASSWORD", "hid\nhidden", "DATALENS_PASSWORD"),
        ("DATALENS_PASSWORD", "\u{feff}hidden", "DATALENS_PASSWORD"),
        ("DATALENS_BASE_URL", "http://example.com", "DATALENS_BASE_URL: "),
        ("DATALENS_BASE_URL", "https://a:hidden@b", "DATALENS_BASE_URL: "),
        ("DATALENS_BASE_URL", "https://example.com ", "DATALENS_BASE_URL"),
        ("SSL_CERT_FILE", "/", "SSL_CERT_FILE \"/\""),
        ("SSL_CERT_FILE", "/nonexistent", "SSL_CERT_FILE \"/nonexistent\""),
        ("SSL_CERT_FILE", "/dev/zero", "too large"),
        ("SSL_CERT_FILE", empty, "no certificate"),
    ] {
        let output = run(at(&server).env(variable, value).arg(EMAIL));
        output.assert_failed(2, words);
        assert!(!output.stderr.contains("hidden"), "{output:?}");
    }
    for variable in ["HERE_APP_ID", "HERE_APP_CODE"] {
        let output = run(at(&server).env_remove(variable).arg(EMAIL));
        output.assert_failed(2, &format!("{variable} isn't set"));
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn certificates_of_8_megabytes_are_read_and_more_are_refused() {
    let server = FakeApi::start();
    for (size, words) in [(8 << 20, "no certificate"), ((8 << 20) + 1, "too large")] {
        let file = temporary_file(" ".repeat(size));
        run(at(&server).arg("--cacert").arg(file.path()).arg(EMAIL)).assert_failed(2, words);
    }
}

#[test]
fn what_is_not_utf8_is_refused() {
    let server = FakeApi::start();
    let bad = OsStr::from_bytes(b"\xff@\n");
    for variable in ["HERE_APP_ID", "HERE_APP_CODE", "DATALENS_PASSWORD", "DATALENS_BASE_URL"] {
        let output = run(at(&server).env(variable, bad).arg(EMAIL));
        output.assert_failed(2, &format!("{variable} isn't UTF-8"));
    }
    run(at(&server).arg(bad)).assert_failed(2, "USERNAME isn't UTF-8");
    run(at(&server).arg(EMAIL).arg(bad)).assert_failed(2, "RESOURCE isn't UTF-8");
    run(at(&server).arg("-\u{ff}\n").arg(EMAIL)).assert_failed(2, "unknown option");
    assert_eq!(server.connections(), 0);
}

#[test]
fn empty_variables_that_are_no_credentials_count_as_unset() {
    let server = FakeApi::start();
    let mut command = at(&server);
    for variable in ["SSL_CERT_FILE", "https_proxy", "ALL_PROXY", "no_proxy"] {
        command.env(variable, "");
    }
    run(command.arg(EMAIL)).assert_printed_datasets();
}
