//! Errors: each status has its variant and its advice, and a program's own tests can make
//! most of them.

use std::io;
use std::sync::Arc;

use here_datalens::{Client, ClientBuilder, Error, Event, FileStore, Operation, Session, Stage};

use crate::support::CLOSED_PORT;
use crate::support::client::{session_at, signed_in};
use crate::support::fake_api::http::response;

fn read() -> Operation {
    Operation::Read { resource: "datasets/".into() }
}

/// Errors as a program's own tests make them.
fn made() -> [Error; 7] {
    let text = Some("its own words".to_owned());
    [
        Error::Unauthorized { operation: read(), status: 403, text: text.clone() },
        Error::SignInRequired {
            operation: Operation::Refresh { host: "example.com".into() },
            status: None,
            text: None,
        },
        Error::Status { operation: read(), status: 503, text },
        Error::Redirect { operation: read(), status: 302, to: None },
        Error::Proxy { proxy: "10.0.0.1:3128".into(), status: 407 },
        Error::Store {
            name: "vault".into(),
            renewed: false,
            source: Arc::new(io::ErrorKind::TimedOut.into()),
        },
        Error::Output(Arc::new(io::ErrorKind::StorageFull.into())),
    ]
}

#[test]
fn errors_can_be_made_and_say_what_a_caller_does_next() {
    let advice: Vec<_> = made()
        .iter()
        .map(|error| {
            (error.needs_sign_in(), error.is_temporary(), error.is_timeout(), error.status())
        })
        .collect();
    assert_eq!(
        advice,
        [
            (false, false, false, Some(403)),
            (true, false, false, None),
            (false, true, false, Some(503)),
            (false, false, false, Some(302)),
            // The status of the API alone.
            (false, false, false, None),
            (false, true, false, None),
            (false, false, false, None),
        ]
    );
}

#[test]
fn errors_say_what_failed_on_what() {
    assert_eq!(
        made().map(|error| error.to_string()),
        [
            "datasets/: access refused: no permission, or the app id or the app code is wrong \
             (status 403); the server says: its own words",
            "refresh at example.com: no refresh token: sign in again",
            "datasets/: the server failed (status 503); the server says: its own words",
            "datasets/: redirected to nowhere usable (status 302)",
            "proxy 10.0.0.1:3128: wants other credentials: they are set in its URL, \
             user:password@host (status 407)",
            "vault: in use elsewhere",
            "can't write the output",
        ]
    );
}

#[test]
fn a_store_and_a_writer_are_the_sources_of_their_errors() {
    use std::error::Error as _;
    let sources = made().map(|error| error.source().map(|source| source.to_string()));
    let expected = [io::ErrorKind::TimedOut, io::ErrorKind::StorageFull];
    let expected = expected.map(|kind| Some(io::Error::from(kind).to_string()));
    assert_eq!(sources[..5], [const { None }; 5]);
    assert_eq!(sources[5..], expected);
}

#[test]
fn each_status_has_its_variant_and_its_advice() {
    for (status, is_unauthorized, is_temporary) in [
        ("201 Created", false, false),
        ("204 No Content", false, false),
        ("300 Multiple Choices", false, false),
        ("304 Not Modified", false, false),
        ("305 Use Proxy", false, false),
        ("400 Bad Request", false, false),
        ("401 Unauthorized", true, false),
        ("403 Forbidden", true, false),
        ("404 Not Found", false, false),
        ("407 Proxy Authentication Required", false, false),
        ("408 Request Timeout", false, true),
        ("418 I'm a teapot", false, false),
        ("429 Too Many Requests", false, true),
        ("500 Internal Server Error", false, true),
        ("501 Not Implemented", false, false),
        ("502 Bad Gateway", false, true),
        ("503 Service Unavailable", false, true),
        ("504 Gateway Timeout", false, true),
        ("505 HTTP Version Not Supported", false, false),
    ] {
        let (server, session) = signed_in();
        let bytes = response(status, &[], b"its own words");
        server.respond_always("/v1/datasets", bytes.clone());
        let read = session.datasets().unwrap_err();
        server.respond_always("/v1/sign_in", bytes);
        let sign_in = session.sign_in(&"x".into()).unwrap_err();
        for (error, subject) in [(read, "datasets/: "), (sign_in, "sign-in at 127.0.0.1")] {
            let variant = matches!(error, Error::Unauthorized { .. });
            assert_eq!(variant, is_unauthorized, "{error:?}");
            assert_eq!(error.is_temporary(), is_temporary, "{error}");
            assert!(!error.needs_sign_in() && !error.is_timeout(), "{error}");
            assert_eq!(error.status().map(|status| status.to_string()), Some(status[..3].into()));
            let text = error.to_string();
            assert!(text.starts_with(subject), "{error}");
            // A port may hold the same digits.
            let without_port = text.replace(&server.port().to_string(), "");
            assert_eq!(without_port.matches(&status[..3]).count(), 1, "{error}");
            let has_words = text.contains("its own words");
            assert_eq!(has_words, !status.starts_with(['2', '3']), "{error}");
        }
    }
}

#[test]
fn of_an_error_body_that_is_too_long_to_search_nothing_is_shown() {
    let (server, session) = signed_in();
    let words = |length| "own words ".repeat(length / 10 + 1)[..length].to_owned();
    for (length, is_shown) in [(64 * 1024, true), (64 * 1024 + 1, false), (65 * 1024, false)] {
        let long = response("404 Not Found", &[], words(length).as_bytes());
        server.respond_once("/v1/datasets", long);
        let error = session.datasets().unwrap_err().to_string();
        assert_eq!(error.contains("own words"), is_shown, "{length}: {error}");
    }
}

#[test]
fn a_server_that_is_not_there_was_not_reached() {
    let error = session_at(CLOSED_PORT).datasets().unwrap_err();
    assert!(matches!(error, Error::Transport { stage: Stage::Connect, .. }), "{error:?}");
    assert!(error.is_temporary() && !error.is_timeout(), "{error}");
    assert_eq!(error.status(), None);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");

    let error = session_at("https://nowhere.invalid").datasets().unwrap_err();
    assert!(matches!(error, Error::Transport { stage: Stage::Resolve, .. }), "{error:?}");
    assert!(error.is_temporary(), "{error}");
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}

#[test]
fn what_threads_share_can_be_shared() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<(Client, ClientBuilder, Session)>();
    shared::<Error>();
    shared::<FileStore>();
    fn send<T: Send + Sync>() {}
    send::<Event<'static>>();
}
