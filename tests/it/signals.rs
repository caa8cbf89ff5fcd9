//! Signals to a run of the command: tokens that were spent are replaced in the file
//! before it ends.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::command::{at, ignore, run, start, wait};
use crate::support::fake_api::http::response;
use crate::support::fake_api::{EMAIL, FakeApi, Held};
use crate::support::fixture::Fixture;
use crate::support::process::{catches, kill, wait_until_signals_are_handled};

static SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// A run whose refresh the server has made, and whose response it holds.
fn refreshing(fixture: &Fixture) -> (Child, Held) {
    let held = fixture.server.hold("/v1/sign_in/refresh");
    let child = start(&mut fixture.datalens());
    held.wait();
    (child, held)
}

#[test]
fn a_signal_during_a_refresh_ends_the_run_when_the_new_tokens_are_stored() {
    for signal in SIGNALS {
        let fixture = Fixture::with_expired_token();
        let (child, held) = refreshing(&fixture);
        kill(child.id(), signal);
        wait_until_signals_are_handled(child.id());
        drop(held);
        let output = wait(child);
        assert_eq!(output.signal, Some(signal as i32), "{output:?}");
        assert_eq!((output.text(), output.stderr.as_str()), ("", ""), "{signal}");
        fixture.assert_tidy();
        run(&mut fixture.datalens()).assert_printed_datasets();
        assert_eq!(fixture.server.refreshes(), 1, "{signal}");
    }
}

#[test]
fn whatever_comes_of_new_tokens_a_signal_ends_the_run_before_anything_else() {
    let to_print = Fixture::with_expired_token();
    let refused = Fixture::with_expired_token();
    refused.server.revoke_tokens();
    let signed_out = Fixture::new();
    for (fixture, path, arguments) in [
        (to_print, "/v1/sign_in/refresh", &["--token"][..]),
        (refused, "/v1/sign_in/refresh", &[]),
        (signed_out, "/v1/sign_in", &["--token"]),
    ] {
        let held = fixture.server.hold(path);
        let child = start(fixture.with_password().args(arguments));
        held.wait();
        let requests = fixture.server.requests().len();
        kill(child.id(), Signal::SIGTERM);
        wait_until_signals_are_handled(child.id());
        drop(held);
        let output = wait(child);
        assert_eq!(output.signal, Some(Signal::SIGTERM as i32), "{path}: {output:?}");
        assert_eq!((output.text(), output.stderr.as_str()), ("", ""), "{path}");
        assert_eq!(fixture.server.requests().len(), requests, "{path}");
        fixture.assert_tidy();
    }
}

#[test]
fn a_second_signal_during_a_refresh_ends_the_run_at_once() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGINT), (Signal::SIGINT, Signal::SIGHUP)] {
        let fixture = Fixture::with_expired_token();
        let before = fixture.content();
        let (child, _held) = refreshing(&fixture);
        kill(child.id(), first);
        wait_until_signals_are_handled(child.id());
        kill(child.id(), second);
        let output = wait(child);
        // The first is the one that it would have ended by later.
        assert_eq!(output.signal, Some(second as i32), "{output:?}");
        assert_eq!(fixture.content(), before);
    }
}

#[test]
fn ignored_signals_stay_ignored_during_a_refresh() {
    let fixture = Fixture::with_expired_token();
    let held = fixture.server.hold("/v1/sign_in/refresh");
    let mut command = fixture.datalens();
    ignore(&mut command, &SIGNALS);
    let child = start(&mut command);
    held.wait();
    for signal in SIGNALS.into_iter().chain(SIGNALS) {
        assert!(!catches(child.id(), signal));
        kill(child.id(), signal);
    }
    drop(held);
    wait(child).assert_printed_datasets();
}

#[test]
fn while_it_waits_for_the_lock_a_signal_ends_the_run_at_once_and_nothing_is_sent() {
    for signal in SIGNALS {
        let fixture = Fixture::with_expired_token();
        let before = fixture.content();
        let requests = fixture.server.requests().len();
        let lock = File::open(fixture.path("session.json.lock")).unwrap();
        lock.lock().unwrap();
        let mut child = start(fixture.datalens().arg("--verbose"));
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("datalens: locking session"), "{line}");
        assert!(!catches(child.id(), signal));
        kill(child.id(), signal);
        let output = wait(child);
        assert_eq!(output.signal, Some(signal as i32), "{output:?}");
        assert_eq!(fixture.content(), before);
        assert_eq!(fixture.server.requests().len(), requests);
    }
}

#[test]
fn while_it_waits_to_send_a_refresh_again_a_signal_ends_the_run_at_once() {
    let fixture = Fixture::with_expired_token();
    let later = response("503 Service Unavailable", &["Retry-After: 60"], b"{}");
    fixture.server.respond_always("/v1/sign_in/refresh", later);
    let mut child = start(fixture.datalens().args(["--retry", "1"]));
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("trying again in 60"), "{line}");
    let start = Instant::now();
    kill(child.id(), Signal::SIGTERM);
    let output = wait(child);
    assert!(start.elapsed() < Duration::from_secs(5), "{output:?}");
    assert_eq!(output.signal, Some(Signal::SIGTERM as i32), "{output:?}");
}

#[test]
fn a_refresh_at_a_host_that_was_looked_up_is_no_less_safe() {
    let fixture = Fixture::with_expired_token();
    let base_url = fixture.server.base_url().replace("127.0.0.1", "localhost");
    fixture.change("base_url", base_url.as_str());
    let held = fixture.server.hold("/v1/sign_in/refresh");
    let child = start(fixture.datalens().args(["--base-url", &base_url]));
    held.wait();
    kill(child.id(), Signal::SIGTERM);
    wait_until_signals_are_handled(child.id());
    let before = fixture.content();
    drop(held);
    let output = wait(child);
    assert_eq!(output.signal, Some(Signal::SIGTERM as i32), "{output:?}");
    assert_ne!(fixture.content(), before);
}

#[test]
fn a_sign_in_that_is_not_stored_ends_at_once() {
    let server = FakeApi::start();
    let held = server.hold("/v1/sign_in");
    let child = start(at(&server).arg(EMAIL));
    held.wait();
    let start = Instant::now();
    kill(child.id(), Signal::SIGINT);
    let output = wait(child);
    assert!(start.elapsed() < Duration::from_secs(5), "{output:?}");
    assert_eq!(output.signal, Some(Signal::SIGINT as i32), "{output:?}");
    drop(held);
}

#[test]
fn outside_a_refresh_a_signal_ends_the_run_at_once() {
    for signal in SIGNALS {
        let fixture = Fixture::with_expired_token();
        let held = fixture.server.hold("/v1/datasets");
        let child = start(&mut fixture.datalens());
        held.wait();
        let start = Instant::now();
        kill(child.id(), signal);
        let output = wait(child);
        // Sooner than a signal during a refresh may.
        assert!(start.elapsed() < Duration::from_secs(5), "{output:?}");
        assert_eq!(output.signal, Some(signal as i32), "{output:?}");
    }
}
