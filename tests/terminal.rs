//! The prompt, behind a pseudo-terminal.
#![cfg(unix)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use pty_process::blocking::Command;
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME};
use support::terminal::{Modes, Terminal};

const ORDINARY: Modes = Modes {
    echo: true,
    lines: true,
    signals: true,
};

fn datalens(server: &StandIn) -> Command {
    Command::new(env!("CARGO_BIN_EXE_datalens"))
        .env_clear()
        .env("HERE_APP_ID", APP_ID)
        .env("HERE_APP_CODE", APP_CODE)
        .env("DATALENS_BASE_URL", server.base_url())
        .arg(USER_NAME)
}

#[test]
fn the_password_is_asked_for_and_not_shown() {
    let server = StandIn::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect("Password: ");
    assert!(!terminal.modes().echo);
    terminal.type_in(&format!("{PASSWORD}\n"));
    terminal.expect("}]}");
    assert_eq!(terminal.modes(), ORDINARY);
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(shown.ends_with(&format!("{DATASETS}\r\n")), "{shown}");
    assert_eq!(server.sign_ins(), 1);
}

#[test]
fn the_prompt_is_on_the_terminal_though_input_and_output_are_not() {
    let server = StandIn::start();
    let command = datalens(&server).stdin(Stdio::null()).stdout(Stdio::null());
    let mut terminal = Terminal::start(command);
    terminal.expect("Password: ");
    terminal.type_in(&format!("{PASSWORD}\n"));
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert_eq!(shown.trim_end(), "Password:");
}

#[test]
fn ctrl_c_at_the_prompt_restores_the_terminal_and_exits_130() {
    let server = StandIn::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect("Password: ");
    terminal.type_in("half\x03");
    terminal.expect("\n");
    let modes = wait_for(&terminal);
    let (status, shown) = terminal.end();
    assert_eq!(modes, ORDINARY);
    assert_eq!(status.code(), Some(130), "{shown}");
    assert_eq!(shown.trim_end(), "Password:");
    assert!(server.requests().is_empty());
}

#[test]
fn signals_at_the_prompt_restore_the_terminal() {
    for (name, number) in [("TERM", 15), ("HUP", 1), ("QUIT", 3)] {
        let server = StandIn::start();
        let mut terminal = Terminal::start(datalens(&server));
        terminal.expect("Password: ");
        let id = terminal.id().to_string();
        let killed = std::process::Command::new("kill")
            .args(["-s", name, &id])
            .status();
        assert!(killed.unwrap().success());
        let modes = wait_for(&terminal);
        let (status, shown) = terminal.end();
        assert_eq!(modes, ORDINARY, "{name}");
        assert_eq!(status.signal(), Some(number), "{name}: {shown}");
    }
}

#[test]
fn ctrl_d_at_an_empty_prompt_is_an_error() {
    let server = StandIn::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect("Password: ");
    terminal.type_in("\x04");
    terminal.expect("datalens: no password was typed");
    let (status, _) = terminal.end();
    assert_eq!(status.code(), Some(2));
    assert!(server.requests().is_empty());
}

#[test]
fn an_empty_password_is_refused() {
    let server = StandIn::start();
    let mut terminal = Terminal::start(datalens(&server));
    terminal.expect("Password: ");
    terminal.type_in("\n");
    terminal.expect("the password from the prompt is empty");
    assert_eq!(terminal.end().0.code(), Some(2));
    assert!(server.requests().is_empty());
}

/// The modes once the program has set them back; a failing one never does.
fn wait_for(terminal: &Terminal) -> Modes {
    let start = std::time::Instant::now();
    while terminal.modes() != ORDINARY && start.elapsed().as_secs() < 10 {
        std::thread::yield_now();
    }
    terminal.modes()
}
