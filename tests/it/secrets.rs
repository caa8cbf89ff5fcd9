//! Secrets: none in `Debug`, in an error, in an event, in the log; all of them in what is
//! serialised for a store.

use std::sync::{Arc, Mutex};

use here_datalens::{AccessToken, Client, Credentials, Error, MemoryStore, Password, RefreshToken};

use crate::support::client::{
    builder, client, password, session_with_token, sign_in, signed_in, tokens,
};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::scripted_server::{ScriptedServer, respond};
use crate::support::fake_api::{APP_CODE, APP_ID, EMAIL, FakeApi, PASSWORD};
use crate::support::logger;

/// What nobody may see. The fake API's tokens all hold the last but one; the last is of
/// somebody else, so that the client doesn't know it.
pub const SECRETS: [&str; 5] = [PASSWORD, APP_CODE, "app%26code", "tOk3n", UNKNOWN];
pub const UNKNOWN: &str = "Qx7GmZ0pVt4LsY9wKd2R";

#[track_caller]
pub fn assert_no_secret(name: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{name}: {secret}: {text}");
    }
    let json = serde_json::to_string(PASSWORD).unwrap();
    assert!(!text.contains(&json), "{name}: {text}");
}

#[test]
fn debug_shows_no_secret() {
    let (_server, session) = signed_in();
    let tokens = tokens(&session);
    let shown = format!(
        "{session:?} {:?} {tokens:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        session.client(),
        Credentials::new(APP_ID, APP_CODE),
        Client::builder(Credentials::new(APP_ID, APP_CODE)).proxy("http://u:proxy-secret@h"),
        password(),
        AccessToken::new("tOk3n"),
        RefreshToken::new("tOk3n"),
        MemoryStore::new(Some(tokens.clone())),
    );
    assert_no_secret("Debug", &shown);
    assert!(!shown.contains("proxy-secret"), "{shown}");
    for word in [APP_ID, EMAIL, "Credentials {", "Session {", "Client {", "ClientBuilder {"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn serialised_tokens_have_the_members_of_a_session_file() {
    let (_server, session) = signed_in();
    let tokens = tokens(&session);
    let json = serde_json::to_value(&tokens).unwrap();
    let members: Vec<_> = json.as_object().unwrap().keys().collect();
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
    assert_eq!(json["access_token"], tokens.access_token().secret());
    assert_eq!(json["user_name"], EMAIL);
}

#[test]
fn a_logger_at_the_debug_level_records_no_secret() {
    logger::start();
    let (server, session) = signed_in();
    session.datasets().unwrap();
    server.expire_tokens();
    session.datasets().unwrap();
    assert_eq!(server.refreshes(), 1);
    let location = response("302 Found", &["Location: /v1/x?tOk3n"], b"");
    server.respond_once("/v1/datasets", location);
    server.respond_once("/v1/x", response("404 Not Found", &[], b"tOk3n"));
    assert_eq!(session.datasets().unwrap_err().status(), Some(404));
    let log = logger::recorded();
    assert!(log.contains("POST") && log.contains("GET"), "{log}");
    assert_no_secret("the log", &log);
}

/// A client, and what it tells of events.
fn recording(server: &FakeApi) -> (Client, Arc<Mutex<String>>) {
    let seen = Arc::new(Mutex::new(String::new()));
    let theirs = Arc::clone(&seen);
    let client = builder(&server.base_url())
        .on_event(move |event| *theirs.lock().unwrap() += &format!("{event}\n{event:?}\n"))
        .build()
        .unwrap();
    (client, seen)
}

#[test]
fn events_hold_no_secret() {
    let server = FakeApi::start();
    let (client, seen) = recording(&server);
    let session = sign_in(&client);
    server.expire_tokens();
    session.datasets().unwrap();
    let refused = response("400 Bad Request", &[], UNKNOWN.as_bytes());
    server.respond_once("/v1/x", refused);
    assert!(session.get::<()>("x?secret=tOk3n").is_err());
    let seen = seen.lock().unwrap();
    for words in ["POST /v1/sign_in/ ", "GET /v1/datasets/ ", "status 401", "refreshed"] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    assert_no_secret("events", &seen);
}

#[test]
fn the_path_of_a_redirect_that_holds_a_secret_is_left_out_of_events() {
    let server = FakeApi::start();
    let (client, seen) = recording(&server);
    let session = session_with_token(&client, "own-access-token");
    for (path, shown) in [
        ("/v1/elsewhere", "GET /v1/elsewhere at"),
        ("/v1/x/own-access-token", "GET … at"),
        ("/v1/0123456789abcdef01234567", "GET /v1/… at"),
    ] {
        let location = format!("Location: {path}");
        server.respond_once("/v1/datasets", response("302 Found", &[&location], b""));
        server.respond_once(path, json_response("200 OK", "[]"));
        session.datasets().unwrap();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert!(seen.contains(shown), "{path}: {seen}");
        assert!(!seen.contains("own-access-token"), "{seen}");
    }
}

#[test]
fn an_excerpt_that_holds_a_secret_is_left_out() {
    let token = "tOk3n-with+some/chars";
    let encoded_code = "demo%20app%26code%3D50%25%2B%C3%BC%2F%3F%23";
    let json_code = serde_json::to_string(APP_CODE).unwrap().replace('/', "\\/");
    for (excerpt, is_shown) in [
        ("a plain reason".to_owned(), true),
        (format!("bad token {token}"), false),
        (format!("GET /v1/x?app_code={encoded_code}"), false),
        (format!("{{\"message\":{json_code}}}"), false),
        (format!("<title>{}{token}</title>", " ".repeat(20_000)), false),
    ] {
        let server = ScriptedServer::start({
            let bytes = response("400 Bad Request", &["Connection: close"], excerpt.as_bytes());
            move |_, stream| drop(respond(&stream, &bytes))
        });
        let session = session_with_token(&client(&server.base_url()), token);
        let error = session.datasets().unwrap_err();
        let text = format!("{error} {error:?}");
        assert_eq!(text.contains("the server says"), is_shown, "{text}");
        assert_no_secret(&excerpt, &text);
    }
}

#[test]
fn a_sign_in_whose_request_is_sent_back_shows_nothing_of_it() {
    use std::io::Write;
    let server = ScriptedServer::start(|_, stream| {
        let request = respond(&stream, b"").unwrap();
        let body = [request.target.as_bytes(), &request.body].concat();
        let mut stream = &stream;
        let _ = stream.write_all(&response("400 Bad Request", &["Connection: close"], &body));
    });
    let error = client(&server.base_url()).sign_in(EMAIL, &password()).unwrap_err();
    assert!(matches!(error, Error::Status { status: 400, .. }), "{error:?}");
    assert_no_secret("the request", &format!("{error} {error:?}"));
}

#[test]
fn a_password_in_the_words_about_a_sign_in_is_left_out() {
    let server = FakeApi::start();
    let client = client(&server.base_url());
    for words in [
        format!("no account has {PASSWORD}"),
        format!("no account has {}", PASSWORD.replace('"', "&quot;")),
    ] {
        let refused = response("400 Bad Request", &[], words.as_bytes());
        server.respond_once("/v1/sign_in", refused);
        let error = client.sign_in(EMAIL, &password()).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("no account"), "{text}");
    }
}

#[test]
fn a_secret_is_shown_by_secret_alone() {
    let password: Password = "correct horse".into();
    assert_eq!(password.secret(), "correct horse");
    assert_eq!(Password::from(String::from("x")).secret(), "x");
    assert_eq!(AccessToken::new("t").unwrap().secret(), "t");
    assert_eq!(RefreshToken::new("r").unwrap().secret(), "r");
}
