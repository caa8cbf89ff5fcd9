//! Redirects of a read: followed within the origin, to which the token goes, and nowhere
//! else.

use here_datalens::Error;

use crate::support::client::{client, session_with_token, signed_in};
use crate::support::fake_api::FakeApi;
use crate::support::fake_api::http::{json_response, response};

#[test]
fn redirects_are_followed_within_the_origin_with_the_token() {
    let (server, session) = signed_in();
    let statuses = ["301 a", "302 a", "303 a", "307 a", "308 a"];
    for (number, status) in statuses.into_iter().enumerate() {
        // By path, and by URL.
        let origin = if number % 2 == 0 { server.base_url() } else { String::new() };
        let location = format!("Location: {origin}/v1/step{}?x=y#z", number + 1);
        let bytes = response(status, &[&location], b"gone");
        server.respond_once(&format!("/v1/step{number}"), bytes);
    }
    server.respond_once("/v1/step5", json_response("200 OK", "[1]"));
    assert_eq!(session.get::<Vec<u8>>("step0").unwrap(), [1]);
    let requests = server.requests();
    for request in &requests[1..] {
        assert_eq!(request.method, "GET");
        let authorization = request.header("authorization").unwrap();
        assert!(authorization.starts_with("Bearer "), "{request:?}");
    }
    assert_eq!(requests.last().unwrap().target, "/v1/step5?x=y");
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_longest_redirect_is_followed_and_a_longer_one_is_not() {
    let server = FakeApi::start();
    let client = client(&server.base_url());
    let session = session_with_token(&client, &"t".repeat(8 * 1024));
    let longest = format!("/v1/{}", "x".repeat(16 * 1024 - 4));
    for (location, requests) in [(&longest, 2), (&(longest.clone() + "x"), 1)] {
        let header = format!("Location: {location}");
        server.respond_once("/v1/datasets", response("302 Found", &[&header], b""));
        server.respond_once("/v1/xxx", json_response("200 OK", "[]"));
        let before = server.requests().len();
        assert_eq!(session.datasets().is_ok(), requests == 2);
        assert_eq!(server.requests().len() - before, requests);
    }
    assert_eq!(server.requests()[1].target, longest);
}

#[test]
fn a_location_that_is_relative_to_the_path_or_empty_is_not_followed() {
    let (server, session) = signed_in();
    for location in ["", "#a", "?a", "a", "./a", "../a"] {
        let header = format!("Location: {location}");
        server.respond_once("/v1/datasets", response("302 Found", &[&header], b""));
        let before = server.requests().len();
        let error = session.datasets().unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{location}: {error}");
        assert_eq!(server.requests().len() - before, 1, "{location}");
    }
}

#[test]
fn redirects_to_another_origin_are_refused_and_nothing_is_sent_there() {
    let (server, session) = signed_in();
    let elsewhere = FakeApi::start();
    let port = server.port();
    for target in [
        elsewhere.base_url(),
        format!("//127.0.0.1:{}/", elsewhere.port()),
        format!("http://localhost:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://tOk3n@127.0.0.1:{port}/"),
    ] {
        let location = format!("Location: {target}?q=tOk3n");
        server.respond_once("/v1/datasets", response("302 Found", &[&location], b""));
        let before = server.requests().len();
        let error = session.datasets().unwrap_err();
        let is_redirect = matches!(error, Error::Redirect { status: 302, .. });
        assert!(is_redirect, "{target}: {error}");
        assert!(!format!("{error} {error:?}").contains("tOk3n"), "{error}");
        assert_eq!(server.requests().len() - before, 1, "{target}");
    }
    assert_eq!(elsewhere.connections(), 0);
}
