//! The handle whose calls use a fresh token, and the refresh below it.

mod support;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use here_datalens::{Check, Client, Credentials, Error, Password, Session};
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME, json};

fn client(server: &StandIn) -> Client {
    let credentials = Credentials::new(APP_ID, APP_CODE);
    Client::builder(credentials)
        .base_url(server.base_url())
        .build()
        .unwrap()
}

fn sign_in(server: &StandIn) -> Session {
    client(server)
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .unwrap()
}

/// The session as it is when its token has `seconds` left.
fn with_left(session: &Session, seconds: i64) -> Session {
    let mut stored = serde_json::to_value(session).unwrap();
    let issued_at = stored["issued_at"].as_i64().unwrap();
    stored["expires_at"] = (issued_at + seconds).into();
    serde_json::from_value(stored).unwrap()
}

#[test]
fn a_refresh_sends_both_tokens_and_replaces_both() {
    let server = StandIn::start();
    let old = sign_in(&server);
    let new = client(&server).refresh(&old).unwrap();
    assert_ne!(new.access_token(), old.access_token());
    assert_ne!(new.refresh_token(), old.refresh_token());
    assert_eq!(new.user_name(), USER_NAME);
    let request = server.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.path()),
        ("POST", "/v1/sign_in/refresh")
    );
    assert_eq!(request.query("app_id").as_deref(), Some(APP_ID));
    assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        request.json_member("access_token").as_deref(),
        Some(old.access_token().as_str())
    );
    let refresh_token = old.refresh_token().map(|token| token.as_str());
    assert_eq!(
        request.json_member("refresh_token").as_deref(),
        refresh_token
    );
}

#[test]
fn the_old_refresh_token_is_kept_if_the_answer_brings_none() {
    let server = StandIn::start();
    let old = sign_in(&server);
    server.answer_next(
        "/v1/sign_in/refresh",
        json("200 OK", r#"{"access_token":"new"}"#),
    );
    let new = client(&server).refresh(&old).unwrap();
    assert_eq!(new.access_token().as_str(), "new");
    assert_eq!(new.refresh_token(), old.refresh_token());
}

#[test]
fn a_refused_refresh_means_sign_in_again_and_no_other_failure_does() {
    let server = StandIn::start();
    let session = sign_in(&server);
    for (status, again) in [
        ("400 Bad Request", true),
        ("401 Unauthorized", true),
        ("403 Forbidden", true),
        ("404 Not Found", true),
        ("408 Request Timeout", false),
        ("429 Too Many Requests", false),
        ("500 Internal Server Error", false),
        ("503 Service Unavailable", false),
    ] {
        server.answer_next("/v1/sign_in/refresh", json(status, "{}"));
        let error = client(&server).refresh(&session).unwrap_err();
        assert_eq!(
            matches!(error, Error::SignInAgain { .. }),
            again,
            "{status}: {error}"
        );
        assert_eq!(
            error.to_string().contains("sign in again"),
            again,
            "{status}: {error}"
        );
    }
}

#[test]
fn a_session_of_another_account_is_refused_before_its_tokens_are_sent() {
    let (server, other) = (StandIn::start(), StandIn::start());
    let session = sign_in(&server);
    let client = client(&other);
    assert!(matches!(
        client.refresh(&session),
        Err(Error::Setting { .. })
    ));
    assert!(matches!(
        client.signed_in(session),
        Err(Error::Setting { .. })
    ));
    assert!(other.requests().is_empty());
}

#[test]
fn a_token_is_refreshed_when_less_than_the_margin_is_left() {
    let server = StandIn::start();
    let session = sign_in(&server);
    let client = client(&server);
    let refreshes = |left, margin| {
        let before = server.refreshes();
        let mut handle = client.signed_in(with_left(&session, left)).unwrap();
        if let Some(margin) = margin {
            handle = handle.margin(Duration::from_secs(margin));
        }
        let _ = handle.datasets();
        server.refreshes() - before
    };
    assert_eq!(refreshes(120, None), 0);
    assert_eq!(refreshes(20, Some(5)), 0);
    assert_eq!(refreshes(20, None), 1);
}

#[test]
fn an_expired_token_is_refreshed_once_before_it_is_used() {
    let server = StandIn::start();
    let handle = client(&server)
        .signed_in(with_left(&sign_in(&server), -1))
        .unwrap();
    for _ in 0..3 {
        handle.datasets().unwrap();
    }
    assert_eq!(server.refreshes(), 1);
    assert!(handle.session().is_fresh(Duration::from_secs(60)));
}

#[test]
fn a_401_leads_to_one_refresh_and_one_repeat() {
    let server = StandIn::start();
    let handle = client(&server).signed_in(sign_in(&server)).unwrap();
    server.expire_tokens();
    let mut out = Vec::new();
    handle.copy("datasets/", Check::Json, &mut out).unwrap();
    assert_eq!(out, DATASETS.as_bytes());
    assert_eq!(server.refreshes(), 1);

    server.answer_always("/v1/datasets", json("401 Unauthorized", "{}"));
    let before = server.requests().len();
    let error = handle.get::<serde_json::Value>("datasets/").unwrap_err();
    assert!(
        matches!(error, Error::Refused { status: 401, .. }),
        "{error}"
    );
    let paths: Vec<String> = server.requests()[before..]
        .iter()
        .map(|request| request.path().to_owned())
        .collect();
    assert_eq!(
        paths,
        ["/v1/datasets/", "/v1/sign_in/refresh", "/v1/datasets/"]
    );
}

#[test]
fn a_call_refreshes_at_most_once() {
    let server = StandIn::start();
    let handle = client(&server)
        .signed_in(with_left(&sign_in(&server), -1))
        .unwrap();
    server.answer_always("/v1/datasets", json("401 Unauthorized", "{}"));
    assert!(handle.datasets().unwrap_err().is_refused());
    assert_eq!(server.refreshes(), 1);
}

#[test]
fn a_refresh_that_fails_leaves_the_session_as_it_was() {
    let server = StandIn::start();
    let session = with_left(&sign_in(&server), -1);
    let handle = client(&server).signed_in(session.clone()).unwrap();
    server.answer_next("/v1/sign_in/refresh", json("503 Service Unavailable", "{}"));
    assert!(handle.datasets().unwrap_err().is_temporary());
    assert_eq!(handle.session(), session);
    handle.datasets().unwrap();
}

#[test]
fn fifty_threads_with_an_expired_token_make_one_refresh() {
    let server = StandIn::start();
    for expired_by_time in [true, false] {
        let session = sign_in(&server);
        let before = server.refreshes();
        let session = match expired_by_time {
            true => with_left(&session, -1),
            false => session,
        };
        server.expire_tokens();
        let handle = client(&server).signed_in(session).unwrap();
        let barrier = Barrier::new(50);
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    barrier.wait();
                    handle.datasets().unwrap();
                });
            }
        });
        assert_eq!(server.refreshes() - before, 1, "by time: {expired_by_time}");
    }
}

#[test]
fn nothing_shows_a_token_but_what_is_stored() {
    let server = StandIn::start();
    let session = sign_in(&server);
    let handle = client(&server).signed_in(session.clone()).unwrap();
    let shown = format!("{session:?} {handle:?}");
    assert!(!shown.contains("tOk3n"), "{shown}");
    let stored = serde_json::to_value(&session).unwrap();
    let members: Vec<_> = stored
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        [
            "access_token",
            "app_id",
            "base_url",
            "expires_at",
            "issued_at",
            "refresh_token",
            "user_name"
        ]
    );
}
