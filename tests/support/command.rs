//! The built binary as a process.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::stand_in::{APP_CODE, APP_ID, PASSWORD, StandIn};

/// Longer than any run takes: reached only by one that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process left behind.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text on standard output")
    }
}

/// The binary with an environment of nothing, no standard input, and no terminal: a
/// developer's shell has one, which `setsid` leaves behind.
pub fn datalens() -> Command {
    let mut command = Command::new("setsid");
    command
        .arg("--wait")
        .arg(env!("CARGO_BIN_EXE_datalens"))
        .env_clear()
        .stdin(Stdio::null());
    command
}

/// The same with the address and the credentials of a stand-in, and the password.
pub fn datalens_at(server: &StandIn) -> Command {
    let mut command = datalens();
    account(&mut command, &server.base_url());
    command.env("DATALENS_PASSWORD", PASSWORD);
    command
}

/// Gives a command the address and the application's credentials.
pub fn account(command: &mut Command, base_url: &str) {
    command
        .env("HERE_APP_ID", APP_ID)
        .env("HERE_APP_CODE", APP_CODE)
        .env("DATALENS_BASE_URL", base_url);
}

pub fn run(command: &mut Command) -> Ran {
    run_with_input(command, b"")
}

/// Runs to the end, with this on standard input unless it is nothing.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Ran {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // Meanwhile its output is read. The program may end without reading it.
        thread::spawn(move || stdin.write_all(&input));
    }
    let id = child.id().to_string();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = Command::new("kill").args(["-s", "KILL", &id]).status();
        panic!("the program still runs after {PATIENCE:?}");
    };
    let output = output.expect("the program ends");
    Ran {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("text on standard error"),
    }
}
