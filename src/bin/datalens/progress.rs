//! Signs of life on standard error: a line for each event if asked for, and, at a
//! terminal, what is being waited for.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{mem, thread};

use here_datalens::Event;

use crate::{signals, terminal};

/// How long nothing is said of a wait.
const PATIENCE_SECONDS: u64 = 2;

/// How often the line is renewed.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest line, in columns: one that wraps can't be wiped.
const MAX_LINE: usize = 79;

static STATUS: Mutex<Status> = Mutex::new(Status { wait: None, bytes: 0, is_shown: false });

struct Status {
    /// What is being waited for, and since when.
    wait: Option<(String, Instant)>,
    /// How much of a body has come.
    bytes: u64,
    is_shown: bool,
}

/// Says something on standard error, in one write, so that lines of several processes don't
/// mix; what can't be said has nowhere else to go.
pub(crate) fn report(message: &dyn Display) {
    let _status = wiped();
    let _ = io::stderr().write_all(format!("datalens: {message}\n").as_bytes());
}

/// Takes note of what is being waited for, if anything, and wipes the line of what was.
pub(crate) fn set_wait(wait: Option<String>) {
    let wait = wait.map(|wait| (wait, Instant::now()));
    *wiped() = Status { wait, bytes: 0, is_shown: false };
}

/// Ends what is being waited for if this, which is about to be written to, is a terminal.
pub(crate) fn end_wait_at(output: &impl IsTerminal) {
    if status().wait.is_some() && output.is_terminal() {
        set_wait(None);
    }
}

/// Starts to show what is being waited for, if standard error is a terminal. Returns what
/// takes note of events.
pub(crate) fn start(verbose: bool) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    let shows_waits = io::stderr().is_terminal();
    if shows_waits {
        let show_waits = || loop {
            thread::sleep(INTERVAL);
            status().show();
        };
        // Without a thread there is no line, and nothing else is missing.
        signals::with_all_blocked(|| drop(thread::Builder::new().spawn(show_waits)));
    }
    move |event| {
        if verbose || matches!(event, Event::Retry { .. }) {
            report(event);
        }
        if shows_waits {
            follow(event);
        }
    }
}

fn follow(event: &Event<'_>) {
    let wait = match event {
        Event::Resolving { host, .. } => format!("looking up {host}"),
        Event::Request { host, path, .. } => match path.split("/v1/").last() {
            Some("sign_in/") => format!("signing in at {host}"),
            Some("sign_in/refresh") => format!("refreshing the session at {host}"),
            resource => format!("{} from {host}", resource.unwrap_or_default()),
        },
        Event::Locking { store, .. } => format!("another process is refreshing {store}"),
        Event::Retry { .. } => "waiting to try again".into(),
        Event::Body { bytes, .. } => return status().bytes = *bytes,
        _ => return,
    };
    set_wait(Some(wait));
}

fn status() -> MutexGuard<'static, Status> {
    STATUS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The status, with no line shown.
fn wiped() -> MutexGuard<'static, Status> {
    let mut status = status();
    if mem::take(&mut status.is_shown) && terminal::is_in_foreground(io::stderr()) {
        let _ = io::stderr().write_all(b"\r\x1b[K");
    }
    status
}

impl Status {
    fn show(&mut self) {
        let Some((wait, since)) = &self.wait else { return };
        let seconds = since.elapsed().as_secs();
        if seconds < PATIENCE_SECONDS || !terminal::is_in_foreground(io::stderr()) {
            return;
        }
        let bytes = if self.bytes > 0 { format!("{} bytes, ", self.bytes) } else { String::new() };
        let time = format!(" … {bytes}{seconds} s");
        // No character has more columns than bytes, in UTF-8.
        let columns = terminal::columns(io::stderr()).map_or(MAX_LINE, |all| all - 1);
        let room = MAX_LINE.min(columns).saturating_sub(time.len());
        let end = (0..=room.min(wait.len())).rfind(|end| wait.is_char_boundary(*end));
        let line = format!("\r{}{time}\x1b[K", &wait[..end.unwrap_or(0)]);
        self.is_shown = io::stderr().write_all(line.as_bytes()).is_ok();
    }
}
