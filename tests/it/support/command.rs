//! The command `datalens` as a process.

use std::fmt;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{Pid, setsid};

use super::fake_api::{APP_CODE, APP_ID, DATASETS, FakeApi, PASSWORD};

/// Longer than any run takes: reached only by one that hangs.
const TIME_LIMIT: Duration = Duration::from_secs(120);

pub const DATALENS: &str = env!("CARGO_BIN_EXE_datalens");

/// What a process wrote, and how it ended.
pub struct RunOutput {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

// Written by hand: bytes are hard to read.
impl fmt::Debug for RunOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOutput")
            .field("status", &self.status)
            .field("signal", &self.signal)
            .field("stdout", &String::from_utf8_lossy(&self.stdout))
            .field("stderr", &self.stderr)
            .finish()
    }
}

impl RunOutput {
    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text on standard output")
    }

    /// Asserts that it printed this, and no message.
    #[track_caller]
    pub fn assert_printed(&self, text: &str) {
        let ended = (self.status, self.text(), self.stderr.as_str());
        assert_eq!(ended, (Some(0), text, ""));
    }

    #[track_caller]
    pub fn assert_printed_datasets(&self) {
        self.assert_printed(&format!("{DATASETS}\n"));
    }

    /// Asserts that it printed nothing, ended with this status, and said these words.
    #[track_caller]
    pub fn assert_failed(&self, status: i32, words: &str) {
        assert_eq!((self.status, self.text()), (Some(status), ""), "{self:?}");
        assert!(self.stderr.starts_with("datalens: "), "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} isn't in {self:?}");
    }
}

/// The command with an empty environment, no standard input, and no terminal: a
/// developer's shell has one, which a session of its own leaves behind.
pub fn datalens() -> Command {
    let mut command = Command::new(DATALENS);
    command.env_clear().stdin(Stdio::null());
    without_terminal(&mut command);
    reset_signals(&mut command);
    command
}

/// The same with the credentials of the fake API's application and account.
pub fn datalens_at(base_url: &str) -> Command {
    let mut command = datalens();
    set_application(&mut command, base_url);
    command.env("DATALENS_PASSWORD", PASSWORD);
    command
}

/// The same at a fake API.
pub fn at(server: &FakeApi) -> Command {
    datalens_at(&server.base_url())
}

/// Sets the base URL and the application's credentials.
pub fn set_application(command: &mut Command, base_url: &str) {
    command
        .env("HERE_APP_ID", APP_ID)
        .env("HERE_APP_CODE", APP_CODE)
        .env("DATALENS_BASE_URL", base_url);
}

fn without_terminal(command: &mut Command) {
    before_exec(command, || setsid().map(drop));
}

/// Lets the child do this between fork and exec: calls that are async-signal-safe alone.
#[allow(unsafe_code)] // std's `pre_exec`.
pub fn before_exec(
    command: &mut Command,
    mut prepare: impl FnMut() -> nix::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: every caller in these tests makes nothing but system calls.
    unsafe { command.pre_exec(move || prepare().map_err(Into::into)) };
}

/// Lets the command ignore these signals, unless it does something about them itself.
pub fn ignore(command: &mut Command, signals: &'static [Signal]) {
    set_action(command, signals, SigHandler::SigIgn);
}

/// Lets signals end the command, though the tests may run under `nohup` or in the
/// background, where some are ignored.
pub fn reset_signals(command: &mut Command) {
    let signals = &[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    set_action(command, signals, SigHandler::SigDfl);
}

#[allow(unsafe_code)] // nix's `signal`.
fn set_action(command: &mut Command, signals: &'static [Signal], action: SigHandler) {
    before_exec(command, move || {
        // SAFETY: no handler is installed.
        signals.iter().try_for_each(|it| unsafe { signal(*it, action) }.map(drop))
    });
}

pub fn run(command: &mut Command) -> RunOutput {
    wait(start(command))
}

/// Runs to the end with this on standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> RunOutput {
    let mut child = start(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // Meanwhile its output is read. The program may end without reading it.
    thread::spawn(move || stdin.write_all(&input));
    wait(child)
}

pub fn start(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Waits for the end.
pub fn wait(child: Child) -> RunOutput {
    let id = Pid::from_raw(child.id() as i32);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(TIME_LIMIT) else {
        let _ = kill(id, Signal::SIGKILL);
        panic!("the program still runs after {TIME_LIMIT:?}");
    };
    let output = output.expect("the program ends");
    RunOutput {
        status: output.status.code(),
        signal: output.status.signal(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("text on standard error"),
    }
}
