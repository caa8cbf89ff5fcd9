//! Time limits, against servers that are silent, stall or drip.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use here_datalens::{ClientBuilder, Error, JsonCheck, Stage};

use crate::support::client::{builder, password, session_with_token};
use crate::support::fake_api::http::json_response;
use crate::support::fake_api::scripted_server::{ScriptedServer, drip, hold, respond};
use crate::support::fake_api::{EMAIL, FakeApi};

const SHORT: Duration = Duration::from_millis(200);

/// Calls with short limits, which end soon.
#[track_caller]
fn assert_timeout(stage: Stage, call: impl FnOnce() -> Error) {
    let start = Instant::now();
    let error = call();
    assert!(start.elapsed() < Duration::from_secs(20), "{error}");
    assert!(error.is_timeout() && error.is_temporary(), "{error:?}");
    let reached = matches!(&error, Error::Transport { stage: reached, .. } if *reached == stage);
    assert!(reached, "{error:?}");
}

fn read(builder: ClientBuilder) -> Error {
    let session = session_with_token(&builder.build().unwrap(), "t");
    session.datasets().unwrap_err()
}

fn sign_in(builder: ClientBuilder) -> Error {
    let client = builder.build().unwrap();
    client.sign_in(EMAIL, &password()).unwrap_err()
}

#[test]
fn a_silent_server_is_given_up() {
    let before_head = ScriptedServer::start(|_, stream| hold(stream));
    let in_head = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\nContent-");
        hold(stream);
    });
    let in_body = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
        hold(stream);
    });
    for server in [before_head, in_head, in_body] {
        let builder = || builder(&server.base_url());
        assert_timeout(Stage::Exchange, || read(builder().read_timeout(SHORT)));
        assert_timeout(Stage::Exchange, || read(builder().timeout(SHORT)));
        assert_timeout(Stage::Exchange, || sign_in(builder().read_timeout(SHORT)));
        assert_timeout(Stage::Exchange, || sign_in(builder().timeout(SHORT)));
    }
}

#[test]
fn a_response_to_a_sign_in_that_drips_is_given_up() {
    let server = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\n\r\n");
        drip(&stream, b" ");
    });
    let builder = builder(&server.base_url()).read_timeout(SHORT);
    assert_timeout(Stage::Exchange, || sign_in(builder));
}

#[test]
fn a_limit_that_ends_a_response_is_told_as_what_it_is() {
    let stalled = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1,");
        hold(stream);
    });
    let dripping = ScriptedServer::start(|_, stream| {
        respond(&stream, b"HTTP/1.1 200 OK\r\n\r\n");
        drip(&stream, b" ");
    });
    let silent = ScriptedServer::start(|_, stream| hold(stream));
    let text = |builder: ClientBuilder| read(builder).to_string();
    // No part of a second that sockets are told of as it is.
    for limit in [SHORT, Duration::from_millis(250)] {
        let text = text(builder(&silent.base_url()).read_timeout(limit));
        let end = format!("within {} s", limit.as_secs_f64());
        assert!(text.starts_with("datasets/: no response from") && text.ends_with(&end), "{text}");
    }
    assert_eq!(
        text(builder(&stalled.base_url()).read_timeout(SHORT)),
        "datasets/: the response stalled for 0.2 s after 3 bytes"
    );
    assert_eq!(
        text(builder(&stalled.base_url()).timeout(SHORT)),
        "datasets/: the response wasn't complete within 0.2 s, after 3 bytes"
    );
    let limits = builder(&dripping.base_url()).timeout(SHORT).read_timeout(SHORT / 2);
    let text = text(limits);
    let begin = "datasets/: the response wasn't complete within 0.2 s, after ";
    assert!(text.starts_with(begin), "{text}");
}

#[test]
fn a_call_has_its_time_limit_once_though_it_is_repeated_over_a_new_connection() {
    // The first connection serves one call, and is closed when the second has waited for
    // most of its time; the next one is silent.
    let server = ScriptedServer::start(|number, stream| {
        if number > 0 {
            return hold(stream);
        }
        respond(&stream, &json_response("200 OK", "{}"));
        respond(&stream, b"");
        thread::sleep(Duration::from_millis(800));
    });
    let client = builder(&server.base_url()).timeout(Duration::from_secs(1));
    let session = session_with_token(&client.build().unwrap(), "t");
    session.datasets().unwrap();
    let start = Instant::now();
    assert_timeout(Stage::Exchange, || session.datasets().unwrap_err());
    assert!(start.elapsed() < Duration::from_millis(1600), "{:?}", start.elapsed());
    assert_eq!(server.connections(), 2);
}

#[test]
fn an_address_that_swallows_connections_is_given_up() {
    // The queue of a listener that accepts nothing is full after a few connections.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
    let queue: Vec<_> = std::iter::from_fn(|| connect().ok()).take(10_000).collect();
    assert!(queue.len() < 10_000);
    let builder = builder(&format!("http://{address}")).connect_timeout(SHORT);
    assert_timeout(Stage::Connect, || read(builder));
}

/// A writer that takes longer than the server may stall.
struct Slow(usize);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::sleep(Duration::from_millis(150));
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_writer_is_no_stalled_server() {
    let server = FakeApi::start();
    let text = format!("\"{}\"", "x".repeat(300_000));
    server.respond_always("/v1/datasets", json_response("200 OK", &text));
    let builder = builder(&server.base_url()).read_timeout(Duration::from_millis(100));
    let session = session_with_token(&builder.build().unwrap(), "t");
    let mut out = Slow(0);
    session.copy("datasets/", JsonCheck::Always, &mut out).unwrap();
    assert_eq!(out.0, text.len());
}
