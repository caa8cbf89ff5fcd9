//! Programs and shells behind a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use pty_process::Size;
use pty_process::blocking::{Command, Pty};

use super::command::{reset_signals, set_application};
use super::fake_api::PASSWORD;
use super::process::stat;
use super::{TIME_LIMIT, wait_until};

/// A program that a terminal is for, with the credentials of the fake API's application
/// and nothing else in its environment.
pub fn at_terminal(program: &str, base_url: &str) -> Command {
    let mut command = std::process::Command::new(program);
    command.env_clear();
    set_application(&mut command, base_url);
    reset_signals(&mut command);
    command.into()
}

/// A process that leads the session of a terminal, and what the terminal showed.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
    /// How much of `shown` has been expected.
    expected: usize,
    original: Termios,
}

impl Terminal {
    /// Starts a command whose terminal this is; what it isn't given otherwise is
    /// standard input, output and error, too.
    pub fn start(command: Command) -> Self {
        Self::with_columns(command, 80)
    }

    /// One of this width.
    pub fn with_columns(command: Command, columns: u16) -> Self {
        // SIGQUIT leaves no core files behind.
        setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("a limit can be lowered");
        let (pty, slave) = pty_process::blocking::open().expect("a pseudo-terminal");
        pty.resize(Size::new(24, columns)).expect("a size");
        let keyboard = duplicate(&pty);
        let original = tcgetattr(&keyboard).expect("modes");
        let child = command.spawn(slave).expect("the program starts");
        Self {
            child,
            screen: read_in_background(pty),
            keyboard,
            shown: String::new(),
            expected: 0,
            original,
        }
    }

    /// Waits until this is on the screen, after what was expected before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        assert!(self.shows(text, TIME_LIMIT), "no {text:?} in {:?}", self.shown);
    }

    /// Types this again and again until the response to it has that text.
    #[track_caller]
    pub fn type_until(&mut self, keys: &str, text: &str) {
        let deadline = Instant::now() + TIME_LIMIT;
        self.type_in(keys);
        while !self.shows(text, Duration::from_millis(500)) {
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", self.shown);
            self.type_in(keys);
        }
    }

    /// Whether this is shown within that time, after what was expected before.
    fn shows(&mut self, text: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(start) = self.shown[self.expected..].find(text) {
                self.expected += start + text.len();
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(chunk) => self.shown.push_str(&String::from_utf8_lossy(&chunk)),
                Err(_) => return false,
            }
        }
    }

    /// Waits until this is on the screen, and returns what comes before it, after what
    /// was expected before.
    pub fn expect_up_to(&mut self, text: &str) -> String {
        let start = self.expected;
        self.expect(text);
        self.shown[start..self.expected - text.len()].to_owned()
    }

    /// Waits for a text that ends in a number and a full stop, and returns the number.
    pub fn expect_number(&mut self, text: &str) -> u32 {
        self.expect(text);
        self.expect_up_to(".").parse().expect("a number")
    }

    /// Waits for the prompt, with what is typed hidden.
    pub fn expect_prompt(&mut self) {
        self.expect("Password: ");
        assert!(!self.echoes());
    }

    /// Types the password and waits for the data sets.
    pub fn give_password(&mut self) {
        self.type_in(format!("{PASSWORD}\n"));
        self.expect("}]}");
    }

    pub fn type_in(&mut self, keys: impl AsRef<[u8]>) {
        self.keyboard.write_all(keys.as_ref()).expect("the terminal takes it");
    }

    pub fn modes(&self) -> Termios {
        tcgetattr(&self.keyboard).expect("modes")
    }

    /// Changes modes, as another program of the terminal may.
    pub fn change_modes(&self, change: impl Fn(&mut Termios)) {
        let mut modes = self.modes();
        change(&mut modes);
        tcsetattr(&self.keyboard, SetArg::TCSANOW, &modes).expect("modes");
    }

    pub fn echoes(&self) -> bool {
        self.modes().local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits until the modes are those of before the start.
    pub fn expect_original_modes(&self) {
        wait_until("original modes", || self.modes() == self.original);
    }

    pub fn original_modes(&self) -> &Termios {
        &self.original
    }

    /// The process that leads the session.
    pub fn leader(&self) -> u32 {
        self.child.id()
    }

    /// The foreground process group, which has the number of its first process.
    pub fn foreground(&self) -> u32 {
        stat(self.leader(), 5).expect("the leader lives").parse().expect("a number")
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Waits for the end, and returns how it ended and all that was shown.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_until("the end of the program", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        while let Ok(chunk) = self.screen.recv_timeout(TIME_LIMIT) {
            self.shown.push_str(&String::from_utf8_lossy(&chunk));
        }
        (status.expect("an end"), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    /// Leaves nothing running if a test has failed: the end of a session's leader hangs
    /// up, which ends stopped jobs as well.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn duplicate(pty: &Pty) -> File {
    let descriptor: OwnedFd = pty.as_fd().try_clone_to_owned().expect("a descriptor");
    File::from(descriptor)
}

/// Reads what is shown until nobody has the terminal open any more.
fn read_in_background(pty: Pty) -> Receiver<Vec<u8>> {
    let mut output = duplicate(&pty);
    let (sender, screen) = mpsc::channel();
    thread::spawn(move || {
        // Held so that the modes can be asked for after the program has ended.
        let _pty = pty;
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut chunk) {
            if sender.send(chunk[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    screen
}
