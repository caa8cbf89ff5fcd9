//! A session's policy over the fake API: when it refreshes, for whom, and what happens
//! when that fails.

use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;

use here_datalens::{Account, Error, Event, JsonCheck, MemoryStore, Operation, Session, Tokens};

use crate::support::client::{
    aged, builder, client, expired, password, session_with_token, sign_in, signed_in, tokens,
};
use crate::support::fake_api::http::json_response;
use crate::support::fake_api::{APP_CODE, APP_ID, DATASETS, EMAIL, FakeApi};

const REFRESH: &str = "/v1/sign_in/refresh";

/// A fake API, and a session whose access token is so many seconds old.
fn signed_in_for(age: u64, lifetime: u64) -> (FakeApi, Session) {
    let (server, session) = signed_in();
    let tokens = aged(&tokens(&session), age, lifetime);
    let session = session.client().resume(tokens).unwrap();
    (server, session)
}

fn with_expired_token() -> (FakeApi, Session) {
    signed_in_for(3601, 3600)
}

#[test]
fn a_refresh_sends_both_tokens_and_replaces_both() {
    let (server, session) = with_expired_token();
    let old = tokens(&session);
    session.datasets().unwrap();
    let new = tokens(&session);
    assert_ne!(new.access_token(), old.access_token());
    assert_ne!(new.refresh_token(), old.refresh_token());
    assert_eq!(new.account(), old.account());
    let request = &server.requests()[1];
    assert_eq!((request.method.as_str(), request.path()), ("POST", REFRESH));
    assert_eq!(request.query("app_id").as_deref(), Some(APP_ID));
    assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
    assert_eq!(request.header("authorization"), None);
    let access_token = request.json_member("access_token");
    assert_eq!(access_token.as_deref(), Some(old.access_token().secret()));
    let refresh_token = request.json_member("refresh_token");
    let expected = old.refresh_token().map(|token| token.secret());
    assert_eq!(refresh_token.as_deref(), expected);
}

#[test]
fn the_refresh_token_is_kept_if_the_response_brings_none() {
    let (server, session) = with_expired_token();
    let old = tokens(&session);
    let response = json_response("200 OK", r#"{"access_token":"new"}"#);
    server.respond_once(REFRESH, response);
    assert_eq!(session.access_token().unwrap().secret(), "new");
    assert_eq!(tokens(&session).refresh_token(), old.refresh_token());
}

#[test]
fn a_token_is_refreshed_with_less_than_a_minute_or_half_of_its_life_left() {
    for (age, lifetime, refreshes) in [
        (0, 3600, 0),
        (3500, 3600, 0),
        (3560, 3600, 1),
        (3601, 3600, 1),
        (5, 30, 0),
        (20, 30, 1),
        (1, 2, 1),
    ] {
        let (server, session) = signed_in_for(age, lifetime);
        session.datasets().unwrap();
        assert_eq!(server.refreshes(), refreshes, "{age} s of {lifetime} s");
    }
}

#[test]
fn an_expired_token_is_refreshed_once_before_it_is_used() {
    let (server, session) = with_expired_token();
    for _ in 0..3 {
        session.datasets().unwrap();
    }
    let datasets = "/v1/datasets/";
    assert_eq!(server.paths_after(1), [REFRESH, datasets, datasets, datasets]);
    assert!(tokens(&session).is_fresh());
}

#[test]
fn a_401_leads_to_one_refresh_and_one_repeat() {
    let (server, session) = signed_in();
    server.expire_tokens();
    let mut out = Vec::new();
    session.copy("datasets/", JsonCheck::Always, &mut out).unwrap();
    assert_eq!(out, DATASETS.as_bytes());
    assert_eq!(server.refreshes(), 1);

    server.respond_always("/v1/datasets", json_response("401 Unauthorized", "{}"));
    let before = server.requests().len();
    let error = session.datasets().unwrap_err();
    let is_unauthorized = matches!(error, Error::Unauthorized { status: 401, .. });
    assert!(is_unauthorized, "{error:?}");
    assert!(!error.needs_sign_in(), "{error:?}");
    let paths = server.paths_after(before);
    assert_eq!(paths, ["/v1/datasets/", REFRESH, "/v1/datasets/"]);
}

#[test]
fn a_call_refreshes_at_most_once() {
    let (server, session) = with_expired_token();
    server.respond_always("/v1/datasets", json_response("401 Unauthorized", "{}"));
    let error = session.datasets().unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    assert_eq!(server.refreshes(), 1);
}

#[test]
fn a_resource_that_is_always_refused_costs_one_refresh_in_all() {
    let (server, session) = signed_in();
    server.respond_always("/v1/x", json_response("401 Unauthorized", "{}"));
    for _ in 0..10 {
        let error = session.get::<()>("x").unwrap_err();
        assert_eq!(error.status(), Some(401), "{error}");
        session.datasets().unwrap();
    }
    assert_eq!(server.refreshes(), 1);
}

#[test]
fn a_final_refusal_of_a_refresh_needs_a_sign_in_and_no_other_failure_does() {
    for (status, needs_sign_in) in [
        ("400 Bad Request", true),
        ("401 Unauthorized", true),
        ("403 Forbidden", true),
        ("404 Not Found", true),
        ("408 Request Timeout", false),
        ("429 Too Many Requests", false),
        ("500 Internal Server Error", false),
        ("503 Service Unavailable", false),
    ] {
        let (server, session) = with_expired_token();
        let body = r#"{"message":"its own words"}"#;
        server.respond_always(REFRESH, json_response(status, body));
        let error = session.datasets().unwrap_err();
        assert_eq!(error.needs_sign_in(), needs_sign_in, "{status}: {error}");
        assert_eq!(error.is_temporary(), !needs_sign_in, "{status}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("refresh at 127.0.0.1:"), "{text}");
        assert!(text.contains("its own words"), "{text}");
        assert_eq!(text.contains("sign in again"), needs_sign_in, "{text}");
    }
}

#[test]
fn after_a_final_refusal_nothing_is_sent_until_a_sign_in() {
    let (server, session) = with_expired_token();
    server.revoke_tokens();
    for _ in 0..10 {
        assert!(session.datasets().unwrap_err().needs_sign_in());
    }
    assert_eq!(server.paths_after(1), [REFRESH]);
    session.sign_in(&password()).unwrap();
    session.datasets().unwrap();
}

#[test]
fn a_session_without_tokens_needs_a_sign_in_and_sends_nothing() {
    let server = FakeApi::start();
    let session = client(&server.base_url()).session(EMAIL, MemoryStore::default());
    let error = session.datasets().unwrap_err();
    assert!(error.needs_sign_in() && error.status().is_none(), "{error:?}");
    assert!(session.access_token().unwrap_err().needs_sign_in());
    assert_eq!(session.tokens(), None);
    assert_eq!(server.connections(), 0);
    session.sign_in(&password()).unwrap();
    session.datasets().unwrap();
}

#[test]
fn a_401_to_a_session_without_a_refresh_token_needs_a_sign_in() {
    let server = FakeApi::start();
    let session = session_with_token(&client(&server.base_url()), "unknown");
    let error = session.datasets().unwrap_err();
    assert!(error.needs_sign_in(), "{error:?}");
    assert_eq!(error.status(), Some(401));
    assert!(error.to_string().contains("token expired"), "{error}");
    let Error::SignInRequired { operation, .. } = error else {
        panic!("{error:?}");
    };
    assert!(matches!(operation, Operation::Read { resource } if resource == "datasets/"));
}

#[test]
fn a_401_to_a_session_without_a_refresh_token_is_mended_by_a_sign_in() {
    let server = FakeApi::start();
    let session = session_with_token(&client(&server.base_url()), "unknown");
    assert!(session.datasets().unwrap_err().needs_sign_in());
    session.sign_in(&password()).unwrap();
    assert_eq!(server.sign_ins(), 1);
    session.datasets().unwrap();
}

#[test]
fn a_token_that_is_alive_is_used_while_its_refresh_fails() {
    for status in ["503 Service Unavailable", "400 Bad Request"] {
        let (server, session) = signed_in_for(3570, 3600);
        let before = tokens(&session);
        server.respond_always(REFRESH, json_response(status, "{}"));
        for _ in 0..5 {
            session.datasets().unwrap();
        }
        assert_eq!(tokens(&session), before, "{status}");
        let refreshes = server.paths_after(1);
        let refreshes = refreshes.iter().filter(|path| *path == REFRESH).count();
        // Not tried again at once.
        assert_eq!(refreshes, 1, "{status}");
    }
}

#[test]
fn a_refresh_that_fails_leaves_the_tokens_and_is_tried_again() {
    let (server, session) = with_expired_token();
    let before = tokens(&session);
    let busy = json_response("503 Service Unavailable", "{}");
    server.respond_once(REFRESH, busy);
    assert!(session.datasets().unwrap_err().is_temporary());
    assert_eq!(tokens(&session), before);
    session.datasets().unwrap();
}

#[test]
fn fifty_threads_with_an_expired_token_make_one_refresh() {
    for is_expired_by_time in [true, false] {
        let (server, session) = signed_in();
        let mut tokens = tokens(&session);
        if is_expired_by_time {
            tokens = expired(&tokens);
        }
        server.expire_tokens();
        let session = session.client().resume(tokens).unwrap();
        let barrier = Barrier::new(50);
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    barrier.wait();
                    session.datasets().unwrap();
                });
            }
        });
        assert_eq!(server.refreshes(), 1, "by time: {is_expired_by_time}");
    }
}

#[test]
fn a_clone_is_the_same_session() {
    let (server, session) = with_expired_token();
    let clone = session.clone();
    session.datasets().unwrap();
    assert_eq!(clone.tokens(), session.tokens());
    clone.datasets().unwrap();
    assert_eq!(server.refreshes(), 1);
}

#[test]
fn tokens_of_one_session_can_be_resumed_in_another() {
    let (server, session) = signed_in();
    let json = serde_json::to_string(&tokens(&session)).unwrap();
    let tokens: Tokens = serde_json::from_str(&json).unwrap();
    let account = Account { base_url: &server.base_url(), app_id: APP_ID, email: EMAIL };
    assert_eq!(tokens.account(), account);
    let resumed = client(&server.base_url()).resume(tokens).unwrap();
    assert_eq!(resumed.email(), EMAIL);
    resumed.datasets().unwrap();
    assert_eq!(server.sign_ins(), 1);
}

#[test]
fn a_callback_may_ask_the_session_but_not_make_it_renew_its_tokens_again() {
    let server = FakeApi::start();
    let session = Arc::new(OnceLock::<Session>::new());
    let results = Arc::new(Mutex::new(Vec::new()));
    let (theirs, seen) = (Arc::clone(&session), Arc::clone(&results));
    let client = builder(&server.base_url())
        .on_event(move |event| {
            if let (Event::Refreshing, Some(session)) = (event, theirs.get()) {
                assert_eq!(session.email(), EMAIL);
                assert!(session.tokens().is_some());
                seen.lock().unwrap().push(session.datasets());
            }
        })
        .build()
        .unwrap();
    let tokens = expired(&tokens(&sign_in(&client)));
    let session = session.get_or_init(|| client.resume(tokens).unwrap());
    session.datasets().unwrap();
    let results = results.lock().unwrap();
    let [Err(Error::InvalidInput { .. })] = &results[..] else {
        panic!("{results:?}");
    };
    assert_eq!(server.refreshes(), 1);
}
