//! The password prompt, on the controlling terminal and under its job control.
//!
//! As getpass(3) does it: echo is off while the password is typed; signals and line
//! editing are left to the terminal. rpassword alone would turn them off, so it reads
//! from a line that the terminal has edited and that was checked here.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::{fs::File, mem, os::fd::AsRawFd};
use std::{thread, time::Duration};

use libc::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, c_int, tcflag_t, termios};
use rpassword::ConfigBuilder;

use crate::signals;

const PROMPT: &str = "Password: ";

/// As many bytes are all that a terminal keeps of a longer line.
const MAX_LINE: usize = 4095;

/// How long a pager may take to look at the terminal's modes.
const PAGER_START: Duration = Duration::from_millis(200);

/// Opens the terminal, whatever standard input and output are.
pub(crate) fn open() -> Result<File, &'static str> {
    File::options().read(true).write(true).open("/dev/tty").map_err(|_| {
        "no password, and no terminal to ask for it: use --password-stdin or set DATALENS_PASSWORD"
    })
}

/// Asks for the password on the terminal.
pub(crate) fn prompt_password(terminal: &File) -> Result<String, String> {
    let fail = |error| format!("can't ask for the password on the terminal: {error}");
    let line = ask(terminal).map_err(fail)?;
    check(&line)?;
    let config = ConfigBuilder::new().input_data(line).output_discard();
    rpassword::read_password_with_config(config.build()).map_err(fail)
}

/// Reads a line of the terminal, which doesn't show it.
fn ask(mut terminal: &File) -> io::Result<Vec<u8>> {
    // In the background, SIGTTOU stops the process here, before it reads modes that
    // are another's.
    // SAFETY: `tcdrain` takes a number.
    os_result(unsafe { libc::tcdrain(terminal.as_raw_fd()) })?;
    // A pager, begun at the same time, restores in the end what it saw in the beginning.
    if !io::stdout().is_terminal() {
        thread::sleep(PAGER_START);
    }
    TERMINAL.store(terminal.as_raw_fd(), SeqCst);
    install_handlers();
    let prompted = set_hidden(true).and_then(|_| terminal.write_all(PROMPT.as_bytes()));
    let line = prompted.and_then(|()| read_line(terminal));
    // A handler that ran in between would hide it again.
    signals::with_all_blocked(|| {
        let _ = set_hidden(false);
        TERMINAL.store(-1, SeqCst);
    });
    // The line break that was typed isn't shown.
    let _ = terminal.write_all(b"\n");
    line
}

/// Reads to the end of the line and no further: what follows is for whoever is next.
fn read_line(input: impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(MAX_LINE + 1);
    BufReader::with_capacity(1, input).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Refuses a line that rpassword would alter, or that the terminal may have cut.
fn check(line: &[u8]) -> Result<(), &'static str> {
    let typed = line.strip_suffix(b"\n").unwrap_or(line);
    match str::from_utf8(typed) {
        _ if line.is_empty() => Err("no password was typed"),
        _ if typed.len() >= MAX_LINE => {
            Err("the password is too long for a terminal: use --password-stdin")
        }
        Err(_) => Err("the password isn't UTF-8"),
        Ok(text) if text.contains(char::is_control) => {
            Err("the password contains a control character, such as Esc or Tab")
        }
        Ok(_) => Ok(()),
    }
}

fn install_handlers() {
    signals::install(hide_and_prompt, &[SIGCONT]);
    signals::install(restore_and_act, &[SIGINT, SIGTERM, SIGHUP, SIGQUIT]);
    // SIGTSTP doesn't stop this process where nobody could continue it (an orphaned process
    // group, as in `ssh -t HOST datalens`, such as that of the session's leader always is);
    // to restore the modes even for a moment would show what is typed then.
    // SAFETY: these take numbers.
    let [session, group, parents] =
        unsafe { [libc::getsid(0), libc::getpgrp(), libc::getsid(libc::getppid())] };
    if parents == session && group != session {
        signals::install(restore_and_act, &[SIGTSTP]);
    }
}

extern "C" fn restore_and_act(signal: c_int) {
    let _ = set_hidden(false);
    signals::act_by_default(signal);
    // Continued, or not stopped at all.
    signals::install(restore_and_act, &[signal]);
    let _ = set_hidden(true);
}

extern "C" fn hide_and_prompt(_: c_int) {
    if let Ok(true) = set_hidden(true) {
        // SAFETY: the pointer and the length are of one text.
        unsafe { libc::write(TERMINAL.load(SeqCst), PROMPT.as_ptr().cast(), PROMPT.len()) };
    }
}

/// The terminal that prompts, or -1.
static TERMINAL: AtomicI32 = AtomicI32::new(-1);

/// Of `ECHO` and `IUTF8`, which don't overlap, the modes that are changed.
static CHANGED: AtomicUsize = AtomicUsize::new(0);

const ECHO: tcflag_t = libc::ECHO | libc::ECHONL;

/// Without it, backspace leaves a part of a character.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
const IUTF8: tcflag_t = libc::IUTF8;
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
const IUTF8: tcflag_t = 0;

/// Turns echo off, or undoes that and nothing else: others may have changed modes since.
/// False in the background, where they are another's, and where nothing prompts.
fn set_hidden(hidden: bool) -> io::Result<bool> {
    let terminal = TERMINAL.load(SeqCst);
    if !is_in_foreground(terminal) {
        return Ok(false);
    }
    // SAFETY: zeros are valid modes, which `tcgetattr` replaces.
    let mut modes: termios = unsafe { mem::zeroed() };
    // SAFETY: these are modes.
    os_result(unsafe { libc::tcgetattr(terminal, &mut modes) })?;
    if hidden {
        let changed = (modes.c_lflag & ECHO) | (!modes.c_iflag & IUTF8);
        CHANGED.fetch_or(changed as usize, SeqCst);
        modes.c_lflag &= !ECHO;
        modes.c_iflag |= IUTF8;
    } else {
        let changed = CHANGED.swap(0, SeqCst) as tcflag_t;
        modes.c_lflag |= changed & ECHO;
        modes.c_iflag &= !(changed & IUTF8);
    }
    // SAFETY: as above.
    os_result(unsafe { libc::tcsetattr(terminal, libc::TCSANOW, &modes) }).map(|()| true)
}

/// Whether this process is in the foreground of a terminal, and may write there.
pub(crate) fn is_in_foreground(terminal: impl AsRawFd) -> bool {
    // SAFETY: these take numbers.
    unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) == libc::getpgrp() }
}

/// How many columns a terminal has, if it says so.
pub(crate) fn columns(terminal: impl AsRawFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `ioctl` may fill in the size.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (size.ws_col > 0).then_some(size.ws_col.into())
}

fn os_result(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rpassword makes of a line.
    fn read(line: &str) -> io::Result<String> {
        check(line.as_bytes()).map_err(io::Error::other)?;
        let config = ConfigBuilder::new().input_data(line).output_discard();
        rpassword::read_password_with_config(config.build())
    }

    #[test]
    fn every_character_is_refused_or_arrives_unaltered() {
        let (control, others): (Vec<char>, Vec<char>) = ('\0'..=char::MAX)
            .filter(|character| *character != '\n')
            .partition(|character| character.is_control());
        for characters in others.chunks(1000) {
            let text: String = characters.iter().collect();
            assert_eq!(read(&format!("{text}\n")).unwrap(), text);
        }
        for character in control {
            assert!(read(&format!("a{character}b\n")).is_err());
        }
    }

    #[test]
    fn a_call_that_failed_is_an_error() {
        assert!(os_result(0).is_ok());
        assert!(os_result(-1).is_err());
    }

    #[test]
    fn a_line_is_read_to_its_end_and_no_further() {
        let mut input = &b"first\nsecond\nthird"[..];
        for line in ["first\n", "second\n", "third", ""] {
            assert_eq!(read_line(&mut input).unwrap(), line.as_bytes());
        }
    }

    #[test]
    fn a_line_that_the_terminal_may_have_cut_is_refused() {
        let longest = [b'x'; MAX_LINE - 1];
        assert_eq!(check(&[&longest[..], b"\n"].concat()), Ok(()));
        assert!(check(&[&longest[..], b"x\n"].concat()).is_err());
    }
}
