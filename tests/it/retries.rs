//! Which calls are sent again, and after what.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use here_datalens::{ClientBuilder, Error, Event, JsonCheck, Session};

use crate::support::CLOSED_PORT;
use crate::support::client::{
    builder, client, expired, password, session_at, session_with_token, sign_in, tokens,
};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::scripted_server::{ScriptedServer, respond};
use crate::support::fake_api::{EMAIL, FakeApi};

/// A response that asks to come again at once: a test isn't to wait for half a second.
fn failing(status: &str) -> Vec<u8> {
    response(status, &["Retry-After: 0"], b"{}")
}

type Seen = Arc<Mutex<Vec<(String, Duration)>>>;

/// Collects what is retried.
fn watch(builder: ClientBuilder) -> (ClientBuilder, Seen) {
    let seen = Seen::default();
    let theirs = Arc::clone(&seen);
    let builder = builder.on_event(move |event| {
        if let Event::Retry { error, wait, .. } = event {
            theirs.lock().unwrap().push((error.to_string(), *wait));
        }
    });
    (builder, seen)
}

#[test]
fn a_retry_has_the_time_limit_of_the_call_anew() {
    let server = FakeApi::start();
    // The wait before the retry is longer than the limit.
    let client = builder(&server.base_url()).timeout(Duration::from_millis(400)).max_retries(1);
    let session = sign_in(&client.build().unwrap());
    server.respond_once("/v1/", response("503 Service Unavailable", &[], b"{}"));
    session.datasets().map(drop).unwrap();
}

#[test]
fn closed_idle_connections_are_passed_over_up_to_a_limit_for_each_retry() {
    // Each connection serves one request, and is closed by the next.
    let server = ScriptedServer::start(|_, mut stream| {
        respond(&stream, &json_response("200 OK", "{}"));
        let _ = stream.read(&mut [0]);
    });
    for (max_retries, expected) in [(0, 65), (1, 130)] {
        let session = Arc::new(OnceLock::<Session>::new());
        let requests = Arc::new(AtomicUsize::new(0));
        let (theirs, counted) = (Arc::clone(&session), Arc::clone(&requests));
        let is_within = AtomicBool::new(false);
        let builder = builder(&server.base_url()).max_retries(max_retries);
        let builder = builder.on_event(move |event| {
            let is_request = matches!(event, Event::Request { .. });
            if is_request && !is_within.swap(true, Ordering::SeqCst) {
                counted.fetch_add(1, Ordering::SeqCst);
                // Leaves an idle connection for the request that is to be sent.
                theirs.wait().datasets().unwrap();
                is_within.store(false, Ordering::SeqCst);
            }
        });
        let session = session.get_or_init(|| session_with_token(&builder.build().unwrap(), "t"));
        assert!(session.datasets().unwrap_err().is_temporary());
        assert_eq!(requests.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn each_status_is_retried_where_that_is_safe() {
    for (status, get, post) in [
        ("429 Too Many Requests", 3, 3),
        ("503 Service Unavailable", 3, 3),
        ("408 Request Timeout", 3, 1),
        ("500 Internal Server Error", 3, 1),
        ("502 Bad Gateway", 3, 1),
        ("504 Gateway Timeout", 3, 1),
        ("501 Not Implemented", 1, 1),
        ("404 Not Found", 1, 1),
    ] {
        let server = FakeApi::start();
        let client = builder(&server.base_url()).max_retries(2).build().unwrap();
        let session = sign_in(&client);
        let stale = client.resume(expired(&tokens(&session))).unwrap();
        server.respond_always("/v1/", failing(status));
        let sent = |call: &dyn Fn() -> Result<(), Error>| {
            let before = server.requests().len();
            assert!(call().is_err());
            server.requests().len() - before
        };
        assert_eq!(sent(&|| session.datasets().map(drop)), get, "GET {status}");
        assert_eq!(sent(&|| session.sign_in(&password())), post, "sign-in {status}");
        assert_eq!(sent(&|| stale.datasets().map(drop)), post, "refresh {status}");
    }
}

#[test]
fn a_refused_token_is_not_retried() {
    let server = FakeApi::start();
    let client = builder(&server.base_url()).max_retries(2).build().unwrap();
    for status in ["401 Unauthorized", "403 Forbidden"] {
        server.respond_once("/v1/datasets", failing(status));
        let before = server.requests().len();
        assert!(session_with_token(&client, "t").datasets().is_err());
        assert_eq!(server.requests().len() - before, 1, "{status}");
    }
}

#[test]
fn nothing_is_retried_by_default() {
    let server = FakeApi::start();
    server.respond_always("/v1/", failing("503 Service Unavailable"));
    assert!(session_at(&server.base_url()).datasets().is_err());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_retry_that_succeeds_is_an_event_and_no_failure() {
    let server = FakeApi::start();
    let (builder, seen) = watch(builder(&server.base_url()).max_retries(1));
    server.respond_once("/v1/sign_in", failing("503 Service Unavailable"));
    let _session = sign_in(&builder.build().unwrap());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].0.contains("503"), "{seen:?}");
    assert_eq!(seen[0].1, Duration::ZERO);
}

#[test]
fn a_date_in_the_past_as_retry_after_means_at_once() {
    let server = FakeApi::start();
    let (builder, seen) = watch(builder(&server.base_url()).max_retries(1));
    let date = "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT";
    server.respond_once("/v1/sign_in", response("429 Too Many Requests", &[date], b""));
    let _session = sign_in(&builder.build().unwrap());
    assert_eq!(seen.lock().unwrap()[0].1, Duration::ZERO);
}

#[test]
fn a_connection_that_cannot_be_made_is_retried_for_any_call() {
    let (builder, seen) = watch(builder(CLOSED_PORT).max_retries(1));
    let error = builder.build().unwrap().sign_in(EMAIL, &password()).unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert!((500..=750).contains(&seen[0].1.as_millis()), "{seen:?}");
}

#[test]
fn a_request_without_a_response_is_retried_for_a_get_and_never_for_a_post() {
    let server = ScriptedServer::start(|_, stream| drop(respond(&stream, b"")));
    let client = builder(&server.base_url()).max_retries(1).build().unwrap();
    let error = client.sign_in(EMAIL, &password()).unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(server.connections(), 1);
    let error = session_with_token(&client, "t").datasets().unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_truncated_response_is_retried_until_some_of_it_has_been_delivered() {
    for (length, connections) in [(10, 2), (60_000, 2), (200_000, 1)] {
        let body = format!("[{}", "1,".repeat(length / 2));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len() + 10);
        let server = ScriptedServer::start(move |_, stream| {
            respond(&stream, (head.clone() + &body).as_bytes());
        });
        let client = builder(&server.base_url()).max_retries(1).build().unwrap();
        let mut out = Vec::new();
        let copied = session_with_token(&client, "t").copy("x", JsonCheck::Always, &mut out);
        let error = copied.unwrap_err();
        assert!(matches!(error, Error::InvalidResponse { .. }), "{error:?}");
        assert!(error.is_temporary(), "{error}");
        assert_eq!(server.connections(), connections, "{length}");
        assert_eq!(out.is_empty(), connections == 2, "{length}");
    }
}

#[test]
fn idle_connections_that_were_closed_are_made_up_for_by_another() {
    // Two responses a connection; the third request on it finds it closed.
    let server = ScriptedServer::start(|_, stream| {
        respond(&stream, &json_response("200 OK", "{}"));
        respond(&stream, &json_response("200 OK", "{}"));
        // Closed only now, when the client can no longer see it beforehand.
        respond(&stream, b"");
    });
    let session = session_at(&server.base_url());
    for _ in 0..4 {
        session.datasets().unwrap();
    }
    assert_eq!(server.connections(), 2);
}

#[test]
fn an_idle_connection_that_is_reset_is_made_up_for_by_another() {
    let server = ScriptedServer::start(|number, stream| {
        respond(&stream, &json_response("200 OK", "{}"));
        if number == 0 {
            // Closed with the second request unread, which resets it.
            let _ = stream.peek(&mut [0]);
        }
    });
    let session = session_at(&server.base_url());
    session.datasets().unwrap();
    session.datasets().unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_post_goes_over_a_new_connection_once_the_old_one_is_seen_to_be_closed() {
    let (closed, wait_until_closed) = mpsc::channel();
    let server = ScriptedServer::start(move |_, stream| {
        respond(&stream, &json_response("200 OK", r#"{"access_token":"t"}"#));
        drop(stream);
        let _ = closed.send(());
    });
    let client = client(&server.base_url());
    for _ in 0..3 {
        let _session = sign_in(&client);
        wait_until_closed.recv().unwrap();
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_new_connection_that_is_closed_is_not_made_up_for() {
    let server = ScriptedServer::start(|_, stream| drop(respond(&stream, b"")));
    let session = session_with_token(&client(&server.base_url()), "t");
    assert!(session.datasets().is_err());
    assert_eq!(server.connections(), 1);
}
