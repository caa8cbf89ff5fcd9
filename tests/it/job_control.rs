//! The password prompt under the job control of shells.
#![cfg(target_os = "linux")]

use std::env;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use pty_process::blocking::Command;

use crate::support::command::DATALENS as PROGRAM;
use crate::support::fake_api::{EMAIL, FakeApi, PASSWORD};
use crate::support::process::{
    catches, kill, wait_until_ended, wait_until_signals_are_handled, wait_until_stopped,
};
use crate::support::terminal::{Terminal, at_terminal};
use crate::support::{require, wait_until};

/// The command, in a shell that `shell` gave its variables.
pub const DATALENS: &str = r#""$DATALENS" "$USERNAME""#;

/// The shells that are installed.
pub fn shells() -> impl Iterator<Item = &'static str> {
    ["bash", "dash"].into_iter().filter(|name| require(name))
}

fn shell(name: &str, server: &FakeApi) -> Command {
    at_terminal(name, &server.base_url())
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("PS1", "$ ")
        .env("DATALENS", PROGRAM)
        .env("USERNAME", EMAIL)
}

/// A shell that runs a script.
fn script(name: &str, server: &FakeApi, text: &str) -> Terminal {
    Terminal::start(shell(name, server).args(["-c", text]))
}

/// A shell with job control, which leaves the modes to the programs that it runs.
pub fn interactive(name: &str, server: &FakeApi) -> Terminal {
    let options: &[&str] = match name {
        "bash" => &["--norc", "--noediting", "-i"],
        _ => &["-i"],
    };
    let mut terminal = Terminal::start(shell(name, server).args(options));
    terminal.expect("$ ");
    terminal
}

#[test]
fn timeout_in_a_script_ends_it() {
    let server = FakeApi::start();
    for name in shells() {
        let text = format!(r#"timeout 1 {DATALENS}; echo "status $?""#);
        let mut terminal = script(name, &server, &text);
        terminal.expect("status 124");
        terminal.expect_original_modes();
        assert!(terminal.end().0.success());
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_job_in_the_background_leaves_the_modes_alone_and_can_be_killed() {
    let server = FakeApi::start();
    for name in shells() {
        for (signal, message) in [(Signal::SIGTERM, "Terminated"), (Signal::SIGHUP, "Hangup")] {
            let mut terminal = interactive(name, &server);
            terminal.type_in(format!("{DATALENS} & echo \"job\" $!.\n"));
            let job = terminal.expect_number("job ");
            wait_until_stopped(job);
            assert_eq!(terminal.modes(), *terminal.original_modes());
            expect_killed(&mut terminal, job, signal, message);
            assert!(!terminal.shown().contains("Password"));
        }
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_job_suspended_at_its_prompt_can_be_killed() {
    let server = FakeApi::start();
    for name in shells() {
        for (signal, message) in [(Signal::SIGTERM, "Terminated"), (Signal::SIGHUP, "Hangup")] {
            let mut terminal = interactive(name, &server);
            terminal.type_in(format!("{DATALENS}\n"));
            terminal.expect_prompt();
            let job = terminal.foreground();
            terminal.type_in("\x1a");
            wait_until_stopped(job);
            expect_killed(&mut terminal, job, signal, message);
        }
    }
    assert!(server.requests().is_empty());
}

/// Kills the first, stopped job; `kill` of bash continues it, that of dash doesn't.
fn expect_killed(terminal: &mut Terminal, job: u32, signal: Signal, message: &str) {
    let signal = signal.as_str().trim_start_matches("SIG");
    terminal.type_in(format!("kill -s {signal} %1; kill -s CONT %1\n"));
    wait_until_ended(job);
    // The shell may not have heard of it yet.
    terminal.type_until("jobs\n", message);
    assert_eq!(terminal.modes(), *terminal.original_modes());
}

#[test]
fn ctrl_c_ends_the_loop_and_the_script_around_it() {
    let server = FakeApi::start();
    for name in shells() {
        let text = format!("for i in 1 2 3; do {DATALENS}; echo next; done; echo after");
        let mut terminal = script(name, &server, &text);
        terminal.expect_prompt();
        terminal.type_in("half\x03");
        terminal.expect_original_modes();
        let (status, shown) = terminal.end();
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{name}: {shown}");
        assert_eq!(shown.trim_end(), "Password:", "{name}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn ctrl_c_ends_a_loop_in_a_shell_whose_status_is_then_130() {
    let server = FakeApi::start();
    for name in shells() {
        for command in [DATALENS.to_owned(), format!("for i in 1 2 3; do {DATALENS}; done")] {
            let mut terminal = interactive(name, &server);
            terminal.type_in(format!("{command}\n"));
            terminal.expect_prompt();
            terminal.type_in("half\x03");
            terminal.expect("$ ");
            terminal.type_in("echo \"status\" $?.; exit\n");
            assert_eq!(terminal.expect_number("status "), 130, "{name}: {command}");
            assert_eq!(terminal.shown().matches("Password: ").count(), 1, "{name}");
            assert_eq!(terminal.modes(), *terminal.original_modes(), "{name}");
        }
    }
    assert!(server.requests().is_empty());
}

#[test]
fn suspended_it_restores_the_modes_and_continued_it_asks_anew() {
    for name in shells() {
        // Where there is none, Ctrl-Z is typed.
        for signal in [None, Some(Signal::SIGTSTP), Some(Signal::SIGSTOP)] {
            let server = FakeApi::start();
            let mut terminal = interactive(name, &server);
            terminal.type_in(format!("{DATALENS}\n"));
            // Twice, for a handler may be spent by its first run.
            for _ in 0..2 {
                terminal.expect_prompt();
                let job = terminal.foreground();
                match signal {
                    None => terminal.type_in("half\x1a"),
                    Some(signal) => kill(job, signal),
                }
                wait_until_stopped(job);
                // A program can do nothing about SIGSTOP.
                if signal != Some(Signal::SIGSTOP) {
                    assert_eq!(terminal.modes(), *terminal.original_modes(), "{signal:?}");
                }
                wait_until("the shell's foreground", || terminal.foreground() == terminal.leader());
                terminal.type_in("bg; echo \"in the \"background\n");
                terminal.expect("in the background");
                // There it is stopped again: it may not read.
                terminal.type_until("jobs\n", "Stopped");
                terminal.type_in("fg\n");
            }
            terminal.expect_prompt();
            terminal.give_password();
            terminal.expect("$ ");
            terminal.expect_original_modes();
            assert!(!terminal.shown().contains(PASSWORD), "{name}, {signal:?}");
            assert_eq!(server.sign_ins(), 1);
        }
    }
}

#[test]
fn after_the_prompt_signals_act_as_usual() {
    for name in shells() {
        let server = FakeApi::start();
        let held = server.hold("/v1/datasets");
        let mut terminal = interactive(name, &server);
        terminal.type_in(format!("{DATALENS}\n"));
        terminal.expect_prompt();
        terminal.type_in(format!("{PASSWORD}\n"));
        held.wait();
        for _ in 0..2 {
            let job = terminal.foreground();
            terminal.type_in("\x1a");
            terminal.expect("$ ");
            assert_eq!(terminal.modes(), *terminal.original_modes(), "{name}");
            terminal.type_in("fg\n");
            wait_until("the job's foreground", || terminal.foreground() == job);
            assert!(terminal.echoes());
        }
        terminal.type_in("\x03");
        terminal.expect("$ ");
        terminal.type_in("echo \"status\" $?.; exit\n");
        assert_eq!(terminal.expect_number("status "), 130, "{name}");
        assert_eq!(terminal.shown().matches("Password: ").count(), 1, "{name}");
        drop(held);
    }
}

#[test]
fn ignored_signals_stay_ignored() {
    let server = FakeApi::start();
    for name in shells() {
        let text = format!("trap '' HUP INT TERM QUIT TSTP; exec {DATALENS}");
        let mut terminal = script(name, &server, &text);
        terminal.expect_prompt();
        for signal in
            [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGTSTP]
        {
            kill(terminal.leader(), signal);
        }
        terminal.type_in("half\x03half\x1chalf\x1a");
        terminal.give_password();
        assert!(terminal.end().0.success(), "{name}");

        let text = format!("exec 3>&2 nohup {DATALENS} </dev/null >/dev/null 2>&1");
        let mut terminal = script(name, &server, &text);
        terminal.expect_prompt();
        kill(terminal.leader(), Signal::SIGHUP);
        terminal.type_in(format!("{PASSWORD}\n"));
        assert!(terminal.end().0.success(), "{name}");
    }
}

#[test]
fn nor_does_anything_stop_under_a_shell_that_nobody_could_continue() {
    let server = FakeApi::start();
    for name in shells() {
        let text = format!("sh -c 'echo \"process $$.\"; exec \"$@\"' sh {DATALENS}; :");
        let mut terminal = script(name, &server, &text);
        let process = terminal.expect_number("process ");
        terminal.expect_prompt();
        assert!(!catches(process, Signal::SIGTSTP));
        kill(process, Signal::SIGTSTP);
        wait_until_signals_are_handled(process);
        assert!(!terminal.echoes());
        terminal.give_password();
        let (status, shown) = terminal.end();
        assert!(status.success(), "{shown}");
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
}

#[test]
fn modes_that_were_off_before_stay_off() {
    let server = FakeApi::start();
    let text = format!("stty -echo iutf8; {DATALENS}; stty -a");
    let mut terminal = script("sh", &server, &text);
    terminal.expect_prompt();
    terminal.give_password();
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(shown.contains(" -echo "), "{shown}");
    assert!(shown.contains(" iutf8"), "{shown}");
}

#[test]
fn modes_that_were_turned_off_while_it_was_suspended_stay_off() {
    let server = FakeApi::start();
    for name in shells() {
        let mut terminal = interactive(name, &server);
        terminal.type_in(format!("{DATALENS}\n"));
        terminal.expect_prompt();
        let job = terminal.foreground();
        terminal.type_in("\x1a");
        wait_until_stopped(job);
        terminal.type_in("stty -echo; fg\n");
        terminal.expect_prompt();
        terminal.give_password();
        terminal.expect("$ ");
        assert!(!terminal.echoes(), "{name}");
    }
}

#[test]
fn in_a_pipeline_it_asks_and_leaves_the_modes_as_they_were() {
    let server = FakeApi::start();
    // As less does it: it restores in the end what it saw in the beginning.
    let pager = "sh -c 'm=$(stty -g </dev/tty); cat; stty \"$m\" </dev/tty'";
    for (name, reader) in shells().flat_map(|name| [(name, "cat"), (name, pager)]) {
        let mut terminal = interactive(name, &server);
        terminal.type_in(format!("{DATALENS} | {reader}\n"));
        terminal.expect_prompt();
        terminal.give_password();
        terminal.expect("$ ");
        assert_eq!(terminal.modes(), *terminal.original_modes(), "{name}, {reader}");
    }
}

#[test]
fn what_is_typed_before_the_prompt_and_after_the_line_is_not_lost() {
    let server = FakeApi::start();
    for name in shells() {
        let mut terminal = interactive(name, &server);
        terminal.type_in(format!("{DATALENS}\n{PASSWORD}\necho \"here \"after\n"));
        terminal.expect("}]}");
        terminal.expect("here after");
    }
}
