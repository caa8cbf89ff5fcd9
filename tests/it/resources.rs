//! Reading: the request, values and types, copies byte for byte, and limits.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use here_datalens::{
    Client, CopySummary, Credentials, Error, Event, JsonCheck, Session, encode_segment,
};
use serde::Deserialize;

use crate::support::client::{builder, session_with_token, signed_in, tokens};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::{APP_CODE, DATASETS, EMAIL, FakeApi};

fn copy(
    session: &Session,
    resource: &str,
    check: JsonCheck,
) -> (Result<CopySummary, Error>, Vec<u8>) {
    let mut out = Vec::new();
    (session.copy(resource, check, &mut out), out)
}

#[test]
fn a_read_sends_the_token_and_no_password() {
    let (server, session) = signed_in();
    let expected: serde_json::Value = serde_json::from_str(DATASETS).unwrap();
    assert_eq!(session.datasets().unwrap(), expected);
    let request = server.requests().pop().unwrap();
    assert_eq!(request.method, "GET");
    assert_eq!(request.path(), "/v1/datasets/");
    let bearer = format!("Bearer {}", tokens(&session).access_token().secret());
    assert_eq!(request.header("authorization"), Some(bearer.as_str()));
    assert_eq!(request.header("content-type"), Some("text/plain"));
    assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
    assert!(request.body.is_empty());
    assert!(request.headers.len() <= 6, "{request:?}");
}

#[test]
fn an_access_token_is_returned_for_requests_of_the_programs_own() {
    let (server, session) = signed_in();
    let token = session.access_token().unwrap();
    assert_eq!(&token, tokens(&session).access_token());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn all_calls_share_a_connection_refused_ones_too() {
    let (server, session) = signed_in();
    let client = session.client();
    for _ in 0..3 {
        session.datasets().unwrap();
        let stranger = session_with_token(client, "wrong");
        assert_eq!(stranger.datasets().unwrap_err().status(), Some(401));
        assert!(session.get::<()>("nowhere").is_err());
        assert!(client.sign_in("nobody", &"x".into()).is_err());
        assert!(session.get::<()>("datasets").is_err());
    }
    assert_eq!(server.connections(), 1);
}

#[derive(Debug, Deserialize, PartialEq)]
struct Data {
    columns: Vec<String>,
    rows: Vec<Vec<u8>>,
}

#[test]
fn a_resource_is_read_into_a_type() {
    let (server, session) = signed_in();
    let data: Data = session.get("queries/1/data?x=%20y").unwrap();
    let columns = vec!["a".to_owned(), "b".to_owned()];
    let rows = vec![vec![1, 2], vec![3, 4]];
    assert_eq!(data, Data { columns, rows });
    let request = server.requests().pop().unwrap();
    assert_eq!(request.query("x").as_deref(), Some(" y"));
}

#[test]
fn the_credentials_are_added_to_the_query_without_an_empty_parameter() {
    let (server, session) = signed_in();
    for (resource, start) in [
        ("x", "/v1/x?app_id="),
        ("x?", "/v1/x?app_id="),
        ("x?a=b", "/v1/x?a=b&app_id="),
        ("x?a=b&", "/v1/x?a=b&app_id="),
    ] {
        let _ = session.get::<()>(resource);
        let target = server.requests().pop().unwrap().target;
        assert!(target.starts_with(start), "{target}");
    }
}

#[test]
fn json_that_does_not_fit_the_type_names_the_member_and_never_a_value() {
    let (server, session) = signed_in();
    for (body, words) in [
        (r#"{"columns":[]}"#, "missing field `rows`"),
        (r#"{"columns":[],"columns":["hidden"]}"#, "duplicate field `columns`"),
        (r#"{"columns":["hidden",17]}"#, "expected a string"),
        (r#"{"columns":[],"rows":"hidden"}"#, "expected a sequence"),
        (r#"{"columns":[],"rows":[[1234567]]}"#, "expected u8"),
        (r#""hidden, expected nothing""#, "expected struct Data"),
    ] {
        server.respond_once("/v1/x", json_response("200 OK", body));
        let error = session.get::<Data>("x").unwrap_err();
        assert!(matches!(error, Error::InvalidResponse { .. }), "{error:?}");
        assert!(!error.is_temporary(), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(words), "{words}: {text}");
        assert!(!text.contains("hidden") && !text.contains("1234567"), "{text}");
    }
}

#[test]
fn an_encoded_segment_arrives_as_it_was() {
    let (server, session) = signed_in();
    for id in ["17", "a/b c", "..", "ü?#%&=+", "app_id=x"] {
        let resource = format!("queries/x{}/data", encode_segment(id));
        assert!(session.get::<()>(&resource).is_err());
        let path = server.requests().pop().unwrap().path().to_owned();
        assert_eq!(path, format!("/v1/{resource}"));
    }
    assert_eq!(encode_segment("a/b c%ü"), "a%2Fb%20c%25%C3%BC");
    // What would lead elsewhere, or can't stand in a path, is refused all the same.
    for id in ["..", "a/../b", "a\nb"] {
        let error = session.get::<()>(&encode_segment(id)).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{id}: {error}");
    }
}

#[test]
fn a_body_that_is_read_into_memory_is_limited() {
    let (_server, session) = signed_in();
    let read = |limit| {
        let client = session.client().to_builder().max_body_size(limit).build();
        client.unwrap().resume(tokens(&session)).unwrap().datasets()
    };
    assert!(read(DATASETS.len() as u64).is_ok());
    let error = read(DATASETS.len() as u64 - 1).unwrap_err();
    assert!(error.to_string().contains("larger than the limit"), "{error}");
}

#[test]
fn a_copy_is_byte_for_byte_and_says_what_it_was() {
    let (server, session) = signed_in();
    let (copied, out) = copy(&session, "datasets/", JsonCheck::IfDeclared);
    assert_eq!(out, DATASETS.as_bytes());
    let copied = copied.unwrap();
    assert_eq!(copied.bytes, out.len() as u64);
    assert_eq!(copied.content_type.as_deref(), Some("application/json"));
    assert!(copied.is_json());

    let (copied, out) = copy(&session, "tiles/1", JsonCheck::IfDeclared);
    assert_eq!(out, (0..=255).collect::<Vec<u8>>());
    let copied = copied.unwrap();
    assert_eq!(copied.content_type.as_deref(), Some("application/octet-stream"));
    assert!(!copied.is_json());

    // An odd number, so that the last chunk isn't a whole one.
    let long = format!("[{}\"é\"]", "\"é\",".repeat(100_001));
    server.respond_once("/v1/x", json_response("200 OK", &long));
    assert_eq!(copy(&session, "x", JsonCheck::Always).1, long.as_bytes());
}

#[test]
fn json_is_checked_always_or_if_declared_or_never() {
    let (server, session) = signed_in();
    for (resource, content_type, is_json) in [
        ("a", "application/json", true),
        ("b", "text/json; charset=utf-8", true),
        ("c", "application/geo+JSON", true),
        ("d", "application/jsonp", false),
        ("e", "text/html", false),
    ] {
        let header = format!("Content-Type: {content_type}");
        let bytes = response("200 OK", &[&header], b"not JSON");
        server.respond_always(&format!("/v1/{resource}"), bytes);
        for (check, is_checked) in
            [(JsonCheck::Always, true), (JsonCheck::IfDeclared, is_json), (JsonCheck::Never, false)]
        {
            let (copied, out) = copy(&session, resource, check);
            let is_refused = matches!(copied, Err(Error::InvalidResponse { .. }));
            assert_eq!(is_refused, is_checked, "{content_type} {check:?}");
            assert_eq!(out.is_empty(), is_checked, "{content_type} {check:?}");
        }
    }
}

#[test]
fn nothing_is_written_of_a_body_that_is_malformed_within_its_first_64_kb() {
    let (server, session) = signed_in();
    for (good, is_written) in [(10, false), (65_000, false), (200_000, true)] {
        let body = format!("[{}x]", " ".repeat(good));
        server.respond_once("/v1/x", json_response("200 OK", &body));
        let (copied, out) = copy(&session, "x", JsonCheck::Always);
        let error = copied.unwrap_err();
        assert!(matches!(error, Error::InvalidResponse { .. }), "{good}: {error}");
        assert_eq!(!out.is_empty(), is_written, "{good}");
        assert!(!out.contains(&b'x'), "{good}");
        let says_so = error.to_string().contains("incomplete");
        assert_eq!(says_so, is_written, "{error}");
    }
}

/// A writer that fails with one kind of error, for a while or for ever.
struct Failing {
    kind: io::ErrorKind,
    times: usize,
    written: Vec<u8>,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.times > 0 {
            self.times -= 1;
            return Err(self.kind.into());
        }
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_cancels_a_copy_by_any_error_but_interrupted() {
    let (server, session) = signed_in();
    let write = |kind, times| {
        let written = Vec::new();
        let mut out = Failing { kind, times, written };
        let copied = session.copy("datasets/", JsonCheck::Always, &mut out);
        (copied, out.written)
    };
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::TimedOut] {
        match write(kind, 1) {
            (Err(Error::Output(error)), written) => {
                assert_eq!((error.kind(), written.len()), (kind, 0));
            }
            other => panic!("{other:?}"),
        }
    }
    let (copied, written) = write(io::ErrorKind::Interrupted, 3);
    assert!(copied.is_ok(), "{copied:?}");
    assert_eq!(written, DATASETS.as_bytes());
    // A failure of the writer is no reason to ask the server again.
    assert_eq!(server.requests().len(), 4);
}

#[cfg(feature = "gzip")]
#[test]
fn a_compressed_response_is_decoded() {
    let (server, session) = signed_in();
    let body = crate::support::gzip(b"[1]");
    let compressed = response("200 OK", &["Content-Encoding: gzip"], &body);
    server.respond_once("/v1/x", compressed);
    assert_eq!(session.get::<Vec<u8>>("x").unwrap(), [1]);
    let request = server.requests().pop().unwrap();
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
}

#[test]
fn the_bytes_of_a_long_body_are_told_on_the_way_and_those_of_a_short_one_are_not() {
    let server = FakeApi::start();
    let (sender, told) = mpsc::channel();
    let builder = builder(&server.base_url()).on_event(move |event| {
        if let Event::Body { bytes } = event {
            sender.send(*bytes).unwrap();
        }
    });
    let session = session_with_token(&builder.build().unwrap(), "t");
    for (length, is_told) in [(64 * 1024 - 1, false), (64 * 1024, true)] {
        server.respond_once("/v1/x", response("200 OK", &[], &vec![b' '; length]));
        session.copy("x", JsonCheck::Never, io::sink()).unwrap();
        assert_eq!(told.try_iter().next(), is_told.then_some(length as u64));
    }
}

#[test]
fn the_longest_request_that_is_accepted_is_sent() {
    let (server, _) = signed_in();
    // Each `{` takes three bytes on the wire, and so does each byte of the credentials.
    let [prefix, resource] = [4096 - 1, 4096].map(|most| "{".repeat(most / 3));
    let longest = |more: &str| {
        let long = || "/".repeat(1024);
        Client::builder(Credentials::new(long(), long()))
            .base_url(format!("{}/{prefix}{more}", server.base_url()))
            .user_agent("x".repeat(1024))
            .build()
    };
    let client = longest("").unwrap();
    let session = session_with_token(&client, &"x".repeat(8 * 1024));
    assert_eq!(session.get::<()>(&resource).unwrap_err().status(), Some(401));
    let password = "x".repeat(8 * 1024).into();
    let error = client.sign_in(EMAIL, &password).unwrap_err();
    assert_eq!(error.status(), Some(401), "{error}");
    let read = &server.requests()[1];
    assert!(read.target.len() > 14_000, "{}", read.target.len());
    let bearer = read.header("authorization").unwrap();
    assert_eq!(bearer.len(), "Bearer ".len() + 8 * 1024);

    assert!(longest("{").is_err());
    let error = session.get::<()>(&(resource + "{")).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
}

#[test]
fn threads_share_a_client_and_a_session() {
    let (server, session) = signed_in();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    session.datasets().unwrap();
                }
            });
        }
    });
    assert!(server.connections() <= 8, "{}", server.connections());
}
