//! What is written: on standard output, what was asked for; on standard error, messages, a
//! line for each event if asked for, and, at a terminal, what is being waited for. The two
//! may be one terminal: whoever writes wipes that line first.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs::File, mem, os::fd::AsFd, thread};

use here_datalens::{AccessToken, Error, Event, JsonCheck, Session};

use crate::args::{DEFAULT_RESOURCE, Options};
use crate::{signals, terminal};

/// How long nothing is said of a wait.
const PATIENCE_SECONDS: u64 = 2;

/// How often the line is renewed.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest line, in columns: one that wraps can't be wiped.
const MAX_LINE: usize = 79;

/// Standard output, which remembers the last byte. It is without the line buffering of std's,
/// which looks for the last line feed of every chunk.
pub(crate) struct Stdout {
    file: File,
    last: Option<u8>,
}

impl Stdout {
    pub(crate) fn open() -> Result<Self, Error> {
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(output_error)?;
        Ok(Self { file: file.into(), last: None })
    }

    /// Prints what was asked for, and a line feed after JSON that lacks one.
    pub(crate) fn print(&mut self, session: &Session, options: &Options) -> Result<(), Error> {
        if let Some(prefix) = options.token_prefix {
            return self.print_token(prefix, &session.access_token()?);
        }
        let resource = options.resource.as_str();
        let is_default = resource.strip_prefix('/').unwrap_or(resource) == DEFAULT_RESOURCE;
        let check = if is_default { JsonCheck::Always } else { JsonCheck::IfDeclared };
        let copied = session.copy(resource, check, &mut *self)?;
        let is_json = is_default || copied.is_json();
        if is_json && self.last != Some(b'\n') { self.print_text("\n") } else { Ok(()) }
    }

    /// Prints an access token, alone or in the header that this begins.
    pub(crate) fn print_token(&mut self, prefix: &str, token: &AccessToken) -> Result<(), Error> {
        // What a refresh has brought is stored by now.
        signals::end_deferral();
        self.print_text(&format!("{prefix}{}\n", token.secret()))
    }

    /// Prints a text as a whole.
    pub(crate) fn print_text(&mut self, text: &str) -> Result<(), Error> {
        self.write_all(text.as_bytes()).map_err(output_error)
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if status().wait.is_some() && self.file.is_terminal() {
            set_wait(None);
        }
        let written = self.file.write(bytes)?;
        self.last = bytes[..written].last().copied().or(self.last);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn output_error(error: io::Error) -> Error {
    Error::Output(Arc::new(error))
}

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

/// Whether waits are shown, which is at a terminal alone. Who asks first starts to show them.
static SHOWS_WAITS: LazyLock<bool> = LazyLock::new(|| {
    let is_terminal = io::stderr().is_terminal();
    if is_terminal {
        let show_waits = || loop {
            thread::sleep(INTERVAL);
            show_wait();
        };
        // Without a thread there is no line, and nothing else is missing.
        signals::with_all_blocked(|| drop(thread::Builder::new().spawn(show_waits)));
    }
    is_terminal
});

/// Says an event, if that is asked for or concerns everybody, and takes note of what is being
/// waited for from then on.
pub(crate) fn follow(event: &Event<'_>, verbose: bool) {
    if verbose || matches!(event, Event::Retry { .. }) {
        report(event);
    }
    let wait = match event {
        _ if !*SHOWS_WAITS => return,
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

/// Shows the line of what is being waited for, with the time that it has taken.
fn show_wait() {
    let status = &mut *status();
    let Some((wait, since)) = &status.wait else { return };
    let seconds = since.elapsed().as_secs();
    if seconds < PATIENCE_SECONDS || !terminal::is_in_foreground(io::stderr()) {
        return;
    }
    let bytes = if status.bytes > 0 { format!("{} bytes, ", status.bytes) } else { String::new() };
    let time = format!(" … {bytes}{seconds} s");
    // No character has more columns than bytes, in UTF-8, and the ellipsis has fewer.
    let columns = terminal::columns(io::stderr()).unwrap_or(MAX_LINE);
    let room = MAX_LINE.min(columns).saturating_sub(time.len());
    let end = (0..=room.min(wait.len())).rfind(|end| wait.is_char_boundary(*end));
    let line = format!("\r{}{time}\x1b[K", &wait[..end.unwrap_or(0)]);
    status.is_shown = io::stderr().write_all(line.as_bytes()).is_ok();
}
