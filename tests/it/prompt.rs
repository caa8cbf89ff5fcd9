//! The password prompt, behind a pseudo-terminal: what is typed there, and what becomes of
//! the terminal's modes.
#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::termios::{InputFlags, LocalFlags};
use pty_process::blocking::Command;

use crate::support::command::DATALENS;
use crate::support::fake_api::{DATASETS, EMAIL, FakeApi, PASSWORD};
use crate::support::process::{catches, child_of, kill};
use crate::support::terminal::{Terminal, at_terminal};
use crate::support::{skip, wait_until};

fn datalens(server: &FakeApi) -> Command {
    at_terminal(DATALENS, &server.base_url()).arg(EMAIL)
}

/// Types this at the prompt; the program must end with this status and message, and
/// have sent nothing.
fn expect_refusal(keys: &[u8], message: &str) {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    terminal.type_in(keys);
    terminal.expect_original_modes();
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(2), "{keys:?}: {shown}");
    let lines = format!("Password: \r\ndatalens: {message}\r\n");
    assert_eq!(shown, lines, "{keys:?}");
    assert!(server.requests().is_empty());
}

#[test]
fn the_password_is_asked_for_and_not_shown() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    terminal.give_password();
    terminal.expect_original_modes();
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert_eq!(shown, format!("Password: \r\n{DATASETS}\r\n"));
    assert_eq!(server.sign_ins(), 1);
}

#[test]
fn the_prompt_is_on_the_terminal_though_input_and_output_are_not() {
    let server = FakeApi::start();
    let command = datalens(&server).stdin(Stdio::null()).stdout(Stdio::null());
    let mut terminal = Terminal::start(command);
    terminal.expect_prompt();
    terminal.type_in(format!("{PASSWORD}\n"));
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert_eq!(shown, "Password: \r\n");
}

#[test]
fn password_stdin_at_a_terminal_asks_as_without_the_option() {
    let server = FakeApi::start();
    let command =
        datalens(&server).arg("--password-stdin").env("DATALENS_PASSWORD", "not this one");
    let mut terminal = Terminal::start(command);
    terminal.expect_prompt();
    terminal.give_password();
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert_eq!(server.sign_ins(), 1);
}

#[test]
fn ctrl_d_on_an_empty_line_is_an_error_on_a_line_of_its_own() {
    expect_refusal(b"\x04", "no password was typed");
}

#[test]
fn an_empty_line_is_refused() {
    expect_refusal(b"\n", "the password is empty");
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_when_the_line_is_entered() {
    for keys in [&b"\xff\n"[..], b"caf\xe9\n", b"\xc3(\n", b"a\xf0\x9f\n"] {
        expect_refusal(keys, "the password isn't UTF-8");
    }
}

#[test]
fn control_characters_are_refused_when_the_line_is_entered() {
    for keys in [
        "\x1bdemo\n",
        "\x1b[Ademo\n",
        "demo\tpass\n",
        "\x01\n",
        "\0demo\n",
        "\x08demo\n",
        // Ctrl-V takes what follows literally.
        "\x16\x03\n",
        "\x16\x15\n",
        "demo\x16\r\n",
        "\u{85}\n",
    ] {
        expect_refusal(
            keys.as_bytes(),
            "the password contains a control character, such as Esc or Tab",
        );
    }
}

#[test]
fn a_line_that_the_terminal_may_have_cut_is_refused() {
    for length in [4095, 4096, 10_000] {
        expect_refusal(
            format!("{}\n", "x".repeat(length)).as_bytes(),
            "the password is too long for a terminal: use --password-stdin",
        );
    }
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    let password = "x".repeat(4094);
    terminal.type_in(format!("{password}\n"));
    assert_eq!(terminal.end().0.code(), Some(3));
    let request = server.requests().pop().unwrap();
    assert_eq!(request.json_member("password").as_deref(), Some(&*password));
}

#[test]
fn line_editing_is_the_terminals_own() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    // Ctrl-U erases the line, Ctrl-W a word, and DEL a character.
    let (start, end) = PASSWORD.split_once(' ').unwrap();
    terminal.type_in(format!("wrong 😀\x15{start} wröng\x17{end}ä😀\x7f\x7f\n"));
    terminal.expect("}]}");
    assert!(terminal.end().0.success());
    assert_eq!(server.sign_ins(), 1);
}

#[test]
fn a_line_may_be_delivered_in_parts() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    let (start, end) = PASSWORD.split_once(' ').unwrap();
    // Ctrl-D delivers what was typed, and ends the input where that is nothing.
    terminal.type_in(format!("{start} \x04{end}\x04\x04"));
    terminal.expect("}]}");
    assert!(terminal.end().0.success());
}

#[test]
fn modes_that_others_change_meanwhile_stay_changed() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    // As a pager does.
    terminal.change_modes(|modes| {
        modes.local_flags.remove(LocalFlags::ICANON);
        modes.input_flags.remove(InputFlags::IXON);
    });
    terminal.give_password();
    wait_until("echo", || terminal.echoes());
    let modes = terminal.modes();
    assert!(!modes.local_flags.contains(LocalFlags::ICANON));
    assert!(!modes.input_flags.contains(InputFlags::IXON));
    terminal.change_modes(|modes| {
        modes.local_flags.insert(LocalFlags::ICANON);
        modes.input_flags.insert(InputFlags::IXON);
    });
    assert_eq!(terminal.modes(), *terminal.original_modes());
    assert!(terminal.end().0.success());
}

#[test]
fn where_nobody_could_continue_it_nothing_stops_and_the_password_stays_hidden() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    // A handler would turn echo on for a moment.
    assert!(!catches(terminal.leader(), Signal::SIGTSTP));
    terminal.type_in(format!("half\x1a{PASSWORD}\n"));
    terminal.expect("}]}");
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[test]
fn ctrl_c_ends_the_program_by_sigint() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    terminal.type_in("half\x03");
    terminal.expect_original_modes();
    let (status, shown) = terminal.end();
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{shown}");
    assert_eq!(shown.trim_end(), "Password:");
    assert!(server.requests().is_empty());
}

#[test]
fn ctrl_backslash_ends_the_program_by_sigquit() {
    let server = FakeApi::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect_prompt();
    terminal.type_in("half\x1c");
    terminal.expect_original_modes();
    let (status, shown) = terminal.end();
    assert_eq!(status.signal(), Some(Signal::SIGQUIT as i32), "{shown}");
    assert!(server.requests().is_empty());
}

#[test]
fn signals_from_outside_restore_the_modes_and_end_the_program() {
    let server = FakeApi::start();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGINT] {
        let mut terminal = Terminal::start(datalens(&server));
        terminal.expect_prompt();
        kill(terminal.leader(), signal);
        terminal.expect_original_modes();
        let (status, shown) = terminal.end();
        assert_eq!(status.signal(), Some(signal as i32), "{signal}: {shown}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn signals_end_the_first_process_of_a_container_whom_the_kernel_spares() {
    let unshare = ["--pid", "--fork"];
    let mut alone = std::process::Command::new("unshare");
    let alone = alone.args(unshare).arg("true").stderr(Stdio::null()).status();
    if !alone.is_ok_and(|status| status.success()) {
        return skip("there is no namespace of processes");
    }
    let server = FakeApi::start();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let command = at_terminal("unshare", &server.base_url());
        let mut terminal = Terminal::start(command.args(unshare).arg(DATALENS).arg(EMAIL));
        terminal.expect_prompt();
        kill(child_of(terminal.leader()), signal);
        terminal.expect_original_modes();
        let (status, shown) = terminal.end();
        assert_eq!(status.code(), Some(128 + signal as i32), "{signal}: {shown}");
    }
    assert!(server.requests().is_empty());
}
