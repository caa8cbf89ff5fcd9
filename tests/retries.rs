//! Which calls are sent again, and after what.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use here_datalens::{AccessToken, Check, Client, ClientBuilder, Credentials, Error, Password};
use support::command::{datalens_at, run};
use support::scripted::{Scripted, reply};
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME, answer, json};

/// At once: a test isn't to wait for half a second.
const AT_ONCE: &str = "Retry-After: 0";

/// No program serves the port tcpmux.
const NOBODY: &str = "http://127.0.0.1:1";

fn builder(base_url: &str) -> ClientBuilder {
    Client::builder(Credentials::new(APP_ID, APP_CODE)).base_url(base_url)
}

fn failing(status: &str) -> Vec<u8> {
    answer(status, &[AT_ONCE], b"{}")
}

#[test]
fn each_status_is_retried_where_that_is_safe() {
    for (status, get, sign_in) in [
        ("429 Too Many Requests", 3, 3),
        ("503 Service Unavailable", 3, 3),
        ("500 Internal Server Error", 3, 1),
        ("502 Bad Gateway", 3, 1),
        ("504 Gateway Timeout", 3, 1),
        ("501 Not Implemented", 1, 1),
        ("401 Unauthorized", 1, 1),
        ("404 Not Found", 1, 1),
    ] {
        let server = StandIn::start();
        let client = builder(&server.base_url()).retries(2).build().unwrap();
        let session = client.sign_in(USER_NAME, &Password::new(PASSWORD)).unwrap();
        server.answer_always("/v1/", failing(status));
        let count = || server.requests().len();
        let before = count();
        assert!(client.datasets(session.access_token()).is_err());
        assert_eq!(count() - before, get, "GET {status}");
        assert!(client.sign_in(USER_NAME, &Password::new(PASSWORD)).is_err());
        assert_eq!(count() - before - get, sign_in, "sign-in {status}");
        assert!(client.refresh(&session).is_err());
        assert_eq!(
            count() - before - get - sign_in,
            sign_in,
            "refresh {status}"
        );
    }
}

#[test]
fn nothing_is_retried_by_default() {
    let server = StandIn::start();
    server.answer_always("/v1/", failing("503 Service Unavailable"));
    let client = builder(&server.base_url()).build().unwrap();
    assert!(client.datasets(&AccessToken::new("t")).is_err());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_retry_that_succeeds_is_told_of_and_no_failure() {
    let server = StandIn::start();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let client = builder(&server.base_url())
        .retries(1)
        .on_retry(move |error, wait| tell.lock().unwrap().push((error.to_string(), wait)))
        .build()
        .unwrap();
    server.answer_next("/v1/sign_in", failing("503 Service Unavailable"));
    client.sign_in(USER_NAME, &Password::new(PASSWORD)).unwrap();
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1);
    assert!(told[0].0.contains("503"), "{told:?}");
    assert_eq!(told[0].1, Duration::ZERO);
}

#[test]
fn a_connection_that_cannot_be_made_is_retried_for_any_call() {
    let told = Arc::new(Mutex::new(0));
    let tell = Arc::clone(&told);
    let client = builder(NOBODY)
        .retries(1)
        .on_retry(move |_, wait| {
            assert!((500..=750).contains(&wait.as_millis()), "{wait:?}");
            *tell.lock().unwrap() += 1;
        })
        .build()
        .unwrap();
    let error = client
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(*told.lock().unwrap(), 1);
}

#[test]
fn a_request_without_an_answer_is_retried_for_a_get_and_never_for_a_post() {
    let server = Scripted::start(|_, stream| {
        reply(&stream, b"");
    });
    let client = builder(&server.base_url()).retries(1).build().unwrap();
    assert!(client.sign_in(USER_NAME, &Password::new(PASSWORD)).is_err());
    assert_eq!(server.connections(), 1);
    assert!(client.datasets(&AccessToken::new("t")).is_err());
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_cut_answer_is_retried_until_some_of_it_has_been_handed_on() {
    let cut = |length: usize| {
        let body = format!("[{}", "1,".repeat(length / 2));
        let mut bytes = answer(
            "200 OK",
            &["Content-Type: application/json"],
            body.as_bytes(),
        );
        // As if ten bytes more were to come.
        let head = format!("Content-Length: {}", body.len());
        let longer = format!("Content-Length: {}", body.len() + 10);
        let text = String::from_utf8(bytes)
            .unwrap()
            .replacen(&head, &longer, 1);
        bytes = text.into_bytes();
        Scripted::start(move |_, stream| {
            reply(&stream, &bytes);
        })
    };
    for (length, connections) in [(10, 2), (60_000, 2), (200_000, 1)] {
        let server = cut(length);
        let client = builder(&server.base_url()).retries(1).build().unwrap();
        let mut out = Vec::new();
        let copied = client.copy(&AccessToken::new("t"), "x", Check::Json, &mut out);
        assert!(matches!(copied, Err(Error::Answer { .. })), "{copied:?}");
        assert_eq!(server.connections(), connections, "{length}");
        assert_eq!(out.is_empty(), connections == 2, "{length}");
    }
}

#[test]
fn an_idle_connection_that_was_closed_is_made_up_for_by_another() {
    // Two answers a connection; the third request on it finds it closed.
    let server = Scripted::start(|_, stream| {
        reply(&stream, &json("200 OK", "{}"));
        reply(&stream, &json("200 OK", "{}"));
        // Closed only now, when the client can no longer see it beforehand.
        reply(&stream, b"");
    });
    let client = builder(&server.base_url()).build().unwrap();
    for _ in 0..4 {
        client.datasets(&AccessToken::new("t")).unwrap();
    }
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_fresh_connection_that_is_closed_is_not() {
    let server = Scripted::start(|_, stream| {
        reply(&stream, b"");
    });
    let client = builder(&server.base_url()).build().unwrap();
    assert!(client.datasets(&AccessToken::new("t")).is_err());
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_command_says_one_line_a_retry() {
    let server = StandIn::start();
    server.answer_next("/v1/datasets", failing("503 Service Unavailable"));
    server.answer_next("/v1/datasets", failing("429 Too Many Requests"));
    let ran = run(datalens_at(&server).args(["--retry", "2", USER_NAME]));
    assert_eq!(
        (ran.status, ran.out()),
        (Some(0), format!("{DATASETS}\n").as_str())
    );
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert!(
        lines.iter().all(|line| line.starts_with("datalens: ")),
        "{ran:?}"
    );
    assert!(
        lines[0].contains("503") && lines[0].ends_with("trying again in 0.0 s"),
        "{ran:?}"
    );
}
