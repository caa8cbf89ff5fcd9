//! The fake API itself, asked without the client: where it is wrong, no other test can be
//! trusted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::fake_api::{DATASETS, EMAIL, FakeApi, PASSWORD, QUERY};

/// One connection that is kept for several requests.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn to(server: &FakeApi) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and returns the status and the body of its response.
    fn send(&mut self, line: &str, token: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).unwrap(), 0, "cut: {head}");
        }
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length = length.lines().next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    fn sign_in(&mut self, password: &str) -> (u16, String) {
        let body = json!({"email": EMAIL, "password": password}).to_string();
        self.send(&format!("POST /v1/sign_in/?{QUERY}"), "", &body)
    }

    fn refresh(&mut self, pair: &Pair) -> (u16, String) {
        let body = json!({"access_token": pair.access, "refresh_token": pair.refresh}).to_string();
        self.send(&format!("POST /v1/sign_in/refresh?{QUERY}"), "", &body)
    }

    fn datasets(&mut self, token: &str) -> (u16, String) {
        self.send(&format!("GET /v1/datasets/?{QUERY}"), token, "")
    }
}

struct Pair {
    access: String,
    refresh: String,
}

impl Pair {
    fn of((status, body): (u16, String)) -> Self {
        assert_eq!(status, 200, "{body}");
        // The number that no f64 holds is there for the client to ignore.
        let body: Value = serde_json::from_str(&body.replace("1e400", "0")).unwrap();
        let member = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: member("access_token"), refresh: member("refresh_token") }
    }
}

#[test]
fn a_connection_is_kept_from_request_to_request() {
    let server = FakeApi::start();
    let mut connection = Connection::to(&server);
    let pair = Pair::of(connection.sign_in(PASSWORD));
    let response = connection.datasets(&pair.access);
    assert_eq!(response, (200, DATASETS.to_owned()));
    assert_eq!(server.connections(), 1);
}

#[test]
fn wrong_credentials_are_refused_and_not_echoed() {
    let server = FakeApi::start();
    let mut connection = Connection::to(&server);
    let (status, body) = connection.sign_in("another-secret");
    assert_eq!(status, 401);
    assert!(!body.contains("another-secret"), "{body}");
    assert_eq!(connection.datasets("no-token").0, 401);
    // As a form's reader takes it: a plus sign has to be encoded.
    let wrong = QUERY.replace("%2B", "+");
    let (status, _) = connection.send(&format!("GET /v1/datasets/?{wrong}"), "", "");
    assert_eq!(status, 401);
    let request = server.requests().pop().unwrap();
    assert_eq!(request.query("app_code").as_deref(), Some("demo app&code=50% ü/?#"));
}

#[test]
fn a_refresh_replaces_the_pair_and_works_once() {
    let server = FakeApi::start();
    let mut connection = Connection::to(&server);
    let old = Pair::of(connection.sign_in(PASSWORD));
    server.expire_tokens();
    assert_eq!(connection.datasets(&old.access).0, 401);
    let new = Pair::of(connection.refresh(&old));
    assert!(new.access != old.access && new.refresh != old.refresh);
    assert_eq!(connection.datasets(&new.access).0, 200);
    assert_eq!(connection.refresh(&old).0, 401);
    assert_eq!((server.sign_ins(), server.refreshes()), (1, 1));
}
