//! The binary behind a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use pty_process::blocking::{Command, Pty};

/// Longer than anything here takes: reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process, its terminal, and what it showed so far.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

/// Which modes of a terminal are on, of those that a prompt changes.
#[derive(Debug, PartialEq)]
pub struct Modes {
    pub echo: bool,
    pub lines: bool,
    pub signals: bool,
}

impl Terminal {
    /// Starts a command whose terminal this is; what it isn't given otherwise is
    /// standard input, output and error, too.
    pub fn start(command: Command) -> Self {
        let (pty, slave) = pty_process::blocking::open().expect("a pseudo-terminal");
        let child = command.spawn(slave).expect("the program starts");
        let keyboard = duplicate(&pty);
        let mut output = duplicate(&pty);
        let (sender, screen) = mpsc::channel();
        thread::spawn(move || {
            // Held so that the modes can be asked for after the program has ended.
            let _pty = pty;
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            shown: String::new(),
        }
    }

    /// Waits until this is on the screen.
    pub fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(piece) => self.shown.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("no {text:?} in {:?}", self.shown),
            }
        }
    }

    pub fn type_in(&mut self, text: &str) {
        self.keyboard
            .write_all(text.as_bytes())
            .expect("the terminal takes it");
    }

    pub fn modes(&self) -> Modes {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        let modes = tcgetattr(&self.keyboard).expect("a terminal").local_flags;
        Modes {
            echo: modes.contains(LocalFlags::ECHO),
            lines: modes.contains(LocalFlags::ICANON),
            signals: modes.contains(LocalFlags::ISIG),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, and returns how it ended and all that was shown.
    pub fn end(mut self) -> (std::process::ExitStatus, String) {
        let status = self.child.wait().expect("the program ends");
        while let Ok(piece) = self.screen.recv_timeout(PATIENCE) {
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
        (status, self.shown)
    }
}

fn duplicate(pty: &Pty) -> File {
    let descriptor: OwnedFd = pty.as_fd().try_clone_to_owned().expect("a descriptor");
    File::from(descriptor)
}
