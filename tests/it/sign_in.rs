//! Signing in: the request, the tokens that it brings, and what is refused.

use std::time::Duration;

use here_datalens::{Error, Operation};

use crate::support::client::{builder, client, password, sign_in, signed_in, tokens};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::scripted_server::{ScriptedServer, respond, write_forever};
use crate::support::fake_api::{APP_CODE, APP_ID, EMAIL, FakeApi, PASSWORD};

/// The error of a sign-in that is responded to with this.
fn refused(bytes: impl Into<Vec<u8>>) -> (FakeApi, Error) {
    let server = FakeApi::start();
    server.respond_always("/v1/sign_in", bytes);
    let error = client(&server.base_url()).sign_in(EMAIL, &password());
    (server, error.unwrap_err())
}

#[test]
fn a_sign_in_sends_the_scripts_request() {
    let (server, _session) = signed_in();
    let request = server.requests().pop().unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!(request.path(), "/v1/sign_in/");
    assert_eq!(request.query("app_id").as_deref(), Some(APP_ID));
    assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let password = serde_json::to_string(PASSWORD).unwrap();
    let body = format!(r#"{{"email":"{EMAIL}","password":{password}}}"#);
    assert_eq!(String::from_utf8(request.body.clone()).unwrap(), body);
    assert_eq!(request.header("authorization"), None);
    let base_url = server.base_url();
    assert_eq!(request.header("host"), base_url.strip_prefix("http://"));
    let agent = format!("here-datalens/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent.as_str()));
    assert_eq!(request.header("content-length").unwrap(), body.len().to_string());
    assert_eq!(request.header("accept"), Some("*/*"));
    let encodings = cfg!(feature = "gzip").then_some("gzip");
    assert_eq!(request.header("accept-encoding"), encodings);
    let known = 6 + encodings.iter().len();
    assert!(request.headers.len() <= known, "{request:?}");
}

#[test]
fn the_tokens_say_whose_they_are() {
    let (server, session) = signed_in();
    let tokens = tokens(&session);
    assert_eq!(tokens.account(), session.client().account(EMAIL));
    assert_eq!(tokens.account().base_url, server.base_url());
    assert_eq!(tokens.account().app_id, APP_ID);
    assert_eq!(tokens.account().email, session.email());
    assert!(tokens.refresh_token().is_some());
}

#[test]
fn the_tokens_live_as_long_as_the_response_says_or_an_hour() {
    for (expires_in, seconds) in [
        ("120", 120),
        ("\"120\"", 120),
        ("120.9", 120),
        ("\"0.5\"", 1),
        ("1e3", 1000),
        ("0", 3600),
        ("-1", 3600),
        ("\"-1\"", 3600),
        ("\"\"", 3600),
        ("\"NaN\"", 3600),
        ("\"inf\"", 3600),
        ("\"an hour\"", 3600),
        ("1e400", 3600),
        ("\"1e400\"", 3600),
        ("null", 3600),
        ("[60]", 3600),
        // Of a member that is given twice, the last counts.
        ("60,\"expires_in\":90", 90),
        ("60,\"expires_in\":null", 3600),
    ] {
        let server = FakeApi::start();
        server.set_expires_in(expires_in);
        let tokens = tokens(&sign_in(&client(&server.base_url())));
        let lifetime = tokens.expires_at().duration_since(tokens.issued_at());
        let expected = Duration::from_secs(seconds);
        assert_eq!(lifetime.unwrap(), expected, "{expires_in}");
    }
    let (_server, session) = signed_in();
    let tokens = tokens(&session);
    let lifetime = tokens.expires_at().duration_since(tokens.issued_at());
    assert_eq!(lifetime.unwrap(), Duration::from_secs(3600));
}

#[test]
fn of_a_token_that_is_given_twice_the_last_counts() {
    let server = FakeApi::start();
    let body = r#"{"access_token":"a","refresh_token":"r","access_token":"b","refresh_token":"s"}"#;
    server.respond_once("/v1/sign_in", json_response("200 OK", body));
    let tokens = tokens(&sign_in(&client(&server.base_url())));
    assert_eq!(tokens.access_token().secret(), "b");
    assert_eq!(tokens.refresh_token().unwrap().secret(), "s");
}

#[test]
fn a_refresh_token_may_be_missing() {
    for member in
        ["", r#","refresh_token":null"#, r#","refresh_token":1"#, r#","refresh_token":"""#]
    {
        let server = FakeApi::start();
        let body = format!(r#"{{"access_token":"t"{member}}}"#);
        server.respond_once("/v1/sign_in", json_response("200 OK", &body));
        let session = sign_in(&client(&server.base_url()));
        assert_eq!(tokens(&session).refresh_token(), None, "{member}");
    }
}

#[test]
fn a_response_of_the_wrong_shape_is_refused_and_not_shown() {
    let token = |json: &str| format!(r#"{{"refresh_token":"tOk3n","access_token":{json}}}"#);
    for body in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        r#"["tOk3n","tOk3n",3600]"#.to_owned(),
        r#"{"refresh_token":"tOk3n"}"#.to_owned(),
        token("null"),
        token("17"),
        token("\"\""),
        token(r#""tOk3n\nX: y""#),
        token(r#""tOk3n\r\n\r\n""#),
        token("\"tOk3n ü\""),
        token("\"tOk3n\\u0000\""),
        token(&format!("\"{}\"", "x".repeat(100_000))),
        "[".repeat(200_000) + &"]".repeat(200_000),
        "<html>tOk3n".to_owned(),
    ] {
        let (server, error) = refused(json_response("200 OK", &body));
        let name = &body[..body.len().min(60)];
        assert!(matches!(error, Error::InvalidResponse { .. }), "{name}: {error}");
        assert!(!error.is_temporary() && !error.needs_sign_in(), "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("tOk3n"), "{error}");
        assert_eq!(server.requests().len(), 1, "{name}");
    }
}

#[test]
fn an_error_object_with_status_200_shows_the_servers_words() {
    let body = r#"{"error":{"message":"this account is locked"}}"#;
    let (_server, error) = refused(json_response("200 OK", body));
    assert!(error.to_string().contains("this account is locked"), "{error}");
}

#[test]
fn wrong_credentials_are_refused_and_the_user_named() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let (_server, error) = refused(json_response(status, "{}"));
        let Error::Unauthorized { operation, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(matches!(operation, Operation::SignIn { email, .. } if email == EMAIL));
        assert!(error.to_string().contains(EMAIL), "{error}");
        assert!(!error.needs_sign_in() && !error.is_temporary(), "{error}");
    }
}

#[test]
fn a_refused_sign_in_leaves_the_session_as_it_was() {
    let (server, session) = signed_in();
    let before = tokens(&session);
    let wrong = "wrong".into();
    let error = session.sign_in(&wrong).unwrap_err();
    assert_eq!(error.status(), Some(401), "{error}");
    assert_eq!(tokens(&session), before);
    session.datasets().unwrap();
    assert_eq!(server.sign_ins(), 1);
}

#[test]
fn a_sign_in_of_a_session_replaces_its_tokens() {
    let (server, session) = signed_in();
    let before = tokens(&session);
    server.revoke_tokens();
    session.sign_in(&password()).unwrap();
    assert_ne!(tokens(&session), before);
    session.datasets().unwrap();
}

#[test]
fn a_sign_in_follows_no_redirect() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let elsewhere = FakeApi::start();
        for (location, shown) in [
            (elsewhere.base_url() + "/v1/sign_in/?q=hidden", elsewhere.base_url()),
            ("/v1/sign_in/2?q=hidden".to_owned(), "/v1/sign_in/2".to_owned()),
        ] {
            let location = format!("Location: {location}");
            let (server, error) = refused(response(status, &[&location], b""));
            let Error::Redirect { to, .. } = &error else {
                panic!("{status}: {error:?}");
            };
            assert_eq!(to.as_deref(), Some(shown.as_str()), "{status}");
            assert!(!error.to_string().contains("hidden"), "{error}");
            assert_eq!(server.requests().len(), 1, "{status}");
        }
        assert_eq!(elsewhere.connections(), 0, "{status}");
    }
}

#[test]
fn a_response_without_end_is_not_read_into_memory() {
    let server = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\n\r\n");
        write_forever(&stream, &[b' '; 65_536]);
    });
    let client = builder(&server.base_url()).build().unwrap();
    let error = client.sign_in(EMAIL, &password()).unwrap_err();
    assert!(error.to_string().contains("larger than the limit of 1048576 bytes"), "{error}");
}
