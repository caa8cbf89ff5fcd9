//! The password prompt, on the controlling terminal and under its job control.
//!
//! As getpass(3) does it: echo is off while the password is typed; signals and line
//! editing are left to the terminal. rpassword alone would turn them off, so it reads
//! from a line that the terminal has edited and that was checked here.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::{fs::File, mem::MaybeUninit, os::fd::AsRawFd};
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
    HIDDEN.store(true, SeqCst);
    install_handlers();
    let prompted = hide().and_then(|_| terminal.write_all(PROMPT.as_bytes()));
    let line = prompted.and_then(|()| read_line(terminal));
    // A handler that runs from here on doesn't hide again.
    HIDDEN.store(false, SeqCst);
    restore();
    TERMINAL.store(-1, SeqCst);
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
    if line.is_empty() {
        return Err("no password was typed");
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line.len() >= MAX_LINE {
        return Err("the password is too long for a terminal: use --password-stdin");
    }
    let text = str::from_utf8(line).map_err(|_| "the password isn't UTF-8")?;
    if text.contains(char::is_control) {
        return Err("the password contains a control character, such as Esc or Tab");
    }
    Ok(())
}

fn install_handlers() {
    signals::install(restore_and_end, &[SIGINT, SIGTERM, SIGHUP, SIGQUIT]);
    // SIGTSTP doesn't stop this process where nobody could continue it (an orphaned process
    // group, as in `ssh -t HOST datalens`, such as that of the session's leader always is);
    // to restore the modes even for a moment would show what is typed then.
    // SAFETY: these take numbers.
    let [session, group, parents] =
        unsafe { [libc::getsid(0), libc::getpgrp(), libc::getsid(libc::getppid())] };
    if parents == session && group != session {
        signals::install(restore_and_stop, &[SIGTSTP]);
    }
    signals::install(hide_and_prompt, &[SIGCONT]);
}

extern "C" fn restore_and_end(signal: c_int) {
    restore();
    signals::end_by(signal);
}

extern "C" fn restore_and_stop(signal: c_int) {
    restore();
    signals::act_by_default(signal);
    let _ = hide();
}

extern "C" fn hide_and_prompt(_: c_int) {
    if let Ok(true) = hide() {
        // SAFETY: the pointer and the length are of one text.
        unsafe { libc::write(TERMINAL.load(SeqCst), PROMPT.as_ptr().cast(), PROMPT.len()) };
    }
}

/// The terminal that prompts, or -1.
static TERMINAL: AtomicI32 = AtomicI32::new(-1);

/// Whether what is typed is to be hidden.
static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Of `ECHO` and `IUTF8`, which don't overlap, the modes that are changed.
static CHANGED: AtomicUsize = AtomicUsize::new(0);

const ECHO: tcflag_t = libc::ECHO | libc::ECHONL;

/// Without it, backspace leaves a part of a character.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
const IUTF8: tcflag_t = libc::IUTF8;
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
const IUTF8: tcflag_t = 0;

/// Turns echo off, and says whether it is: only in the foreground, while `HIDDEN`.
fn hide() -> io::Result<bool> {
    Ok(HIDDEN.load(SeqCst)
        && edit_modes(|modes| {
            let changed = (modes.c_lflag & ECHO) | (!modes.c_iflag & IUTF8);
            CHANGED.fetch_or(changed as usize, SeqCst);
            modes.c_lflag &= !ECHO;
            modes.c_iflag |= IUTF8;
        })?)
}

/// Undoes what `hide` did, and nothing else: others may have changed modes since.
fn restore() {
    let restored = edit_modes(|modes| {
        let changed = CHANGED.load(SeqCst) as tcflag_t;
        modes.c_lflag |= changed & ECHO;
        modes.c_iflag &= !(changed & IUTF8);
    });
    if let Ok(true) = restored {
        CHANGED.store(0, SeqCst);
    }
}

/// Whether this process is in the foreground of a terminal, and may write there.
pub(crate) fn is_in_foreground(terminal: impl AsRawFd) -> bool {
    // SAFETY: these take numbers.
    unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) == libc::getpgrp() }
}

/// How many columns a terminal has, if it says so.
pub(crate) fn columns(terminal: impl AsRawFd) -> Option<usize> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: zeros are a valid size, which `ioctl` may fill in.
    let size = unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr());
        size.assume_init()
    };
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Edits the terminal's modes; false in the background, where they are another's.
fn edit_modes(edit: fn(&mut termios)) -> io::Result<bool> {
    let terminal = TERMINAL.load(SeqCst);
    if !is_in_foreground(terminal) {
        return Ok(false);
    }
    let mut modes = MaybeUninit::uninit();
    // SAFETY: `modes` is used once `tcgetattr` has filled it.
    unsafe {
        os_result(libc::tcgetattr(terminal, modes.as_mut_ptr()))?;
        edit(modes.assume_init_mut());
        os_result(libc::tcsetattr(terminal, libc::TCSANOW, modes.as_ptr())).map(|()| true)
    }
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
