//! The line that says, at a terminal, what is being waited for.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::job_control::{DATALENS as IN_SHELL, interactive, shells};
use crate::support::command::{DATALENS, datalens_at, start, wait};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::scripted_server::{ScriptedServer, respond};
use crate::support::fake_api::{DATASETS, EMAIL, FakeApi, PASSWORD};
use crate::support::fixture::Fixture;
use crate::support::mounts::{bind_at, with_mounts};
use crate::support::terminal::{Terminal, at_terminal};

/// What wipes a line: ECMA-48's "erase in line".
const WIPE: &str = "\r\x1b[K";

/// A run at a terminal, with the password in the environment.
fn datalens(base_url: &str) -> pty_process::blocking::Command {
    at_terminal(DATALENS, base_url).env("DATALENS_PASSWORD", PASSWORD).arg(EMAIL)
}

/// Waits until a line says this, and returns for how many seconds.
fn expect_status(terminal: &mut Terminal, what: &str) -> u32 {
    terminal.expect(&format!("\r{what} … "));
    let seconds = terminal.expect_up_to(" s\x1b[K");
    let (_, seconds) = seconds.rsplit_once(", ").unwrap_or(("", &seconds));
    seconds.parse().expect("a number")
}

/// What is said of waiting for the data sets.
fn datasets_from(server: &FakeApi) -> String {
    format!("datasets/ from 127.0.0.1:{}", server.port())
}

#[test]
fn after_two_seconds_of_waiting_a_line_says_for_what_is_renewed_and_wiped() {
    let server = FakeApi::start();
    let held = server.hold("/v1/datasets");
    let mut terminal = Terminal::start(datalens(&server.base_url()));
    let what = datasets_from(&server);
    let first = expect_status(&mut terminal, &what);
    let second = expect_status(&mut terminal, &what);
    assert!(2 <= first && first < second, "{first}, {second}");
    drop(held);
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(shown.starts_with(&format!("\r{what} … {first} s")), "{shown}");
    assert!(shown.ends_with(&format!(" s\x1b[K{WIPE}{DATASETS}\r\n")), "{shown}");
}

#[test]
fn nothing_is_wiped_from_the_background() {
    for name in shells() {
        let server = FakeApi::start();
        let held = server.hold("/v1/datasets");
        let mut shell = interactive(name, &server);
        shell.type_in(format!("DATALENS_PASSWORD='{PASSWORD}' {IN_SHELL} >/dev/null\n"));
        held.wait();
        expect_status(&mut shell, &datasets_from(&server));
        shell.type_in("\x1a");
        shell.expect("Stopped");
        shell.type_in("bg; echo \"in the \"background\n");
        shell.expect("in the background");
        drop(held);
        shell.type_in("wait; echo \"the \"end\n");
        shell.expect("the end");
        let (_, shown) = shell.shown().rsplit_once("in the background").unwrap();
        assert!(!shown.contains("\x1b[K"), "{name}: {shown:?}");
    }
}

#[test]
fn the_line_fits_a_narrow_terminal_whatever_it_says() {
    let server = FakeApi::start();
    let columns = |c: char| if c.is_ascii() || c == '…' { 1 } else { 2 };
    // Of characters with more bytes than columns, fewer fit.
    for (name, narrowest) in [("中文中文中文中文中文中文", 25), ("x".repeat(40).as_str(), 35)]
    {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        let lock = File::create(file.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let command = datalens(&server.base_url()).arg("--session").arg(file);
        let mut terminal = Terminal::with_columns(command, 40);
        let line = terminal.expect_up_to("\x1b[K");
        let width: usize = line.trim_start_matches('\r').chars().map(columns).sum();
        assert!((narrowest..40).contains(&width) && line.ends_with(" s"), "{line:?}");
    }
}

#[test]
fn the_line_is_shown_where_the_terminal_does_not_say_its_width() {
    let server = FakeApi::start();
    let held = server.hold("/v1/datasets");
    let mut terminal = Terminal::with_columns(datalens(&server.base_url()), 0);
    expect_status(&mut terminal, &datasets_from(&server));
    drop(held);
    assert!(terminal.end().0.success());
}

#[test]
fn the_line_is_wiped_before_a_message() {
    let server = FakeApi::start();
    server.respond_always("/v1/datasets", json_response("404 Not Found", "{}"));
    let held = server.hold("/v1/datasets");
    let mut terminal = Terminal::start(datalens(&server.base_url()));
    expect_status(&mut terminal, &datasets_from(&server));
    drop(held);
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(5), "{shown}");
    assert!(shown.contains(&format!(" s\x1b[K{WIPE}datalens: datasets/: ")), "{shown}");
}

#[test]
fn the_line_says_how_much_has_come() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let body = format!("\"{}", "x".repeat(199_999));
    let server = ScriptedServer::start(move |_, mut stream| {
        respond(&stream, &json_response("200 OK", r#"{"access_token":"t"}"#));
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 200001\r\n\r\n";
        respond(&stream, head.as_bytes());
        let _ = stream.write_all(body.as_bytes());
        let _ = released.lock().unwrap().recv();
        let _ = stream.write_all(b"\"");
    });
    let out = Stdio::from(File::options().write(true).open("/dev/null").unwrap());
    let mut terminal = Terminal::start(datalens(&server.base_url()).stdout(out));
    terminal.expect(" … 200000 bytes, ");
    drop(release);
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(shown.ends_with(WIPE), "{shown}");
}

#[test]
fn each_wait_has_its_name() {
    let fixture = Fixture::with_expired_token();
    let host = format!("127.0.0.1:{}", fixture.server.port());
    let lock = File::open(fixture.path("session.json.lock")).unwrap();
    lock.lock().unwrap();
    let refresh = fixture.server.hold("/v1/sign_in/refresh");
    let mut terminal = Terminal::start(fixture.at_terminal());
    let file = format!("another process is refreshing session {:?}", fixture.file());
    let room = file.chars().count().min(70);
    terminal.expect(&file[..room]);
    drop(lock);
    expect_status(&mut terminal, &format!("refreshing the session at {host}"));
    drop(refresh);
    assert!(terminal.end().0.success());

    let server = FakeApi::start();
    let sign_in = server.hold("/v1/sign_in");
    let mut terminal = Terminal::start(datalens(&server.base_url()));
    expect_status(&mut terminal, &format!("signing in at 127.0.0.1:{}", server.port()));
    drop(sign_in);
    assert!(terminal.end().0.success());
}

#[test]
fn a_lookup_that_hangs_has_its_name() {
    with_mounts(|directory| {
        // Nobody writes to it, so that whoever opens it waits.
        let hosts = directory.join("hosts");
        mkfifo(&hosts, Mode::from_bits_truncate(0o644)).unwrap();
        bind_at(&hosts, Path::new("/etc/hosts"));
        let mut terminal = Terminal::start(datalens("http://localhost:1"));
        expect_status(&mut terminal, "looking up localhost");
    });
}

#[test]
fn where_standard_error_is_no_terminal_there_is_no_line() {
    let server = FakeApi::start();
    let held = server.hold("/v1/datasets");
    let piped = start(datalens_at(&server.base_url()).arg(EMAIL));
    held.wait();
    let file = tempfile::NamedTempFile::new().unwrap();
    let command = datalens(&server.base_url()).stderr(file.reopen().unwrap());
    let with_file = Terminal::start(command);
    held.wait();
    // The last to begin, so that the others have waited as long.
    let mut terminal = Terminal::start(datalens(&server.base_url()));
    expect_status(&mut terminal, &datasets_from(&server));
    drop(held);
    assert!(terminal.end().0.success());
    wait(piped).assert_printed_datasets();
    let (status, shown) = with_file.end();
    assert!(status.success(), "{shown}");
    assert_eq!(shown, format!("{DATASETS}\r\n"));
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
}

#[test]
fn a_job_in_the_background_shows_no_line() {
    for name in shells() {
        let server = FakeApi::start();
        let held = server.hold("/v1/datasets");
        let mut shell = interactive(name, &server);
        shell.type_in(format!("DATALENS_PASSWORD='{PASSWORD}' {IN_SHELL} >/dev/null &\n"));
        held.wait();
        // It begins later, so that the other has waited as long.
        let mut terminal = Terminal::start(datalens(&server.base_url()));
        expect_status(&mut terminal, &datasets_from(&server));
        drop(held);
        assert!(terminal.end().0.success());
        shell.type_in("wait; echo \"the \"end\n");
        shell.expect("the end");
        assert!(!shell.shown().contains('…'), "{name}: {}", shell.shown());
    }
}

#[test]
fn the_line_is_wiped_before_a_retry_is_said_and_then_says_that_it_waits() {
    let server = FakeApi::start();
    let busy = response("503 Service Unavailable", &["Retry-After: 4"], b"{}");
    server.respond_once("/v1/datasets", busy);
    let command = datalens(&server.base_url()).args(["--retry", "1"]);
    let held = server.hold("/v1/datasets");
    let mut terminal = Terminal::start(command);
    expect_status(&mut terminal, &datasets_from(&server));
    drop(held);
    terminal.expect(&format!("{WIPE}datalens: datasets/: "));
    terminal.expect("trying again in 4.0 s\r\n");
    expect_status(&mut terminal, "waiting to try again");
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(shown.ends_with(&format!("{WIPE}{DATASETS}\r\n")), "{shown}");
}
