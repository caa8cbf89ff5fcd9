//! Where the password comes from.

use std::io::{self, IsTerminal, Read};
use std::{env, os::unix::ffi::OsStringExt};

use here_datalens::{Error, Operation, Password};

use crate::error::{CliError, named};
use crate::{output, terminal};

/// More than any password, and little enough to read at once.
const MAX_PASSWORD: usize = 8 * 1024;

/// Reads the password that this error asks for.
pub(crate) fn read_password(from_stdin: bool, why: &Error) -> Result<Password, CliError> {
    // That there is no session yet need not be said.
    let is_first = matches!(why, Error::SignInRequired { operation: Operation::SignIn { .. }, .. });
    let mut untold = (!is_first).then_some(why);
    read(from_stdin, &mut untold).map(Password::new).map_err(|reason| {
        // The server may have refused the session.
        let exit_status = if why.status().is_some() { 3 } else { 2 };
        let message = untold.map_or(String::new(), |why| format!("{why}; ")) + &reason;
        CliError { exit_status, message }
    })
}

/// Reads it from standard input if that was asked for, else from `DATALENS_PASSWORD`, else
/// from the terminal, which is told first why. Standard input that is a terminal would show
/// what is typed: the prompt asks instead.
fn read(from_stdin: bool, untold: &mut Option<&Error>) -> Result<String, String> {
    let (name, bytes) = if from_stdin && !io::stdin().is_terminal() {
        ("the password on standard input", read_line(io::stdin())?)
    } else if !from_stdin && let Some(password) = env::var_os("DATALENS_PASSWORD") {
        ("DATALENS_PASSWORD", password.into_vec())
    } else {
        let terminal = terminal::open()?;
        if let Some(why) = untold.take() {
            output::report(why);
        }
        ("the password", terminal::prompt_password(&terminal)?.into_bytes())
    };
    named(name, check(bytes))
}

/// Refuses what a person wouldn't see. Blanks may be part of a password.
fn check(bytes: Vec<u8>) -> Result<String, &'static str> {
    let length = bytes.len();
    match String::from_utf8(bytes) {
        _ if length > MAX_PASSWORD => Err("is too long"),
        Err(_) => Err("isn't UTF-8"),
        Ok(text) if text.is_empty() => Err("is empty"),
        Ok(text) if text.contains('\u{feff}') => Err("contains a byte-order mark"),
        Ok(text) if text.contains(['\r', '\n']) => {
            Err("contains a line break: it must be one line")
        }
        Ok(text) => Ok(text),
    }
}

/// Reads to the end, and drops one final LF or CRLF.
fn read_line(input: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Enough to tell that a password is too long, whatever ends it.
    let read = input.take(MAX_PASSWORD as u64 + 3).read_to_end(&mut bytes);
    read.map_err(|error| format!("can't read the password on standard input: {error}"))?;
    if bytes.pop_if(|byte| *byte == b'\n').is_some() {
        bytes.pop_if(|byte| *byte == b'\r');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: impl Read) -> Result<String, &'static str> {
        check(read_line(input).unwrap())
    }

    #[test]
    fn one_final_line_break_is_not_part_of_the_password() {
        for input in ["secret", "secret\n", "secret\r\n"] {
            assert_eq!(read(input.as_bytes()).as_deref(), Ok("secret"), "{input:?}");
        }
        assert_eq!(read(&b" a\tb\0 \n"[..]).as_deref(), Ok(" a\tb\0 "));
    }

    #[test]
    fn what_is_no_password_is_refused() {
        for input in ["", "\n", "\r\n"] {
            assert_eq!(read(input.as_bytes()), Err("is empty"), "{input:?}");
        }
        assert_eq!(read(&b"\xff\n"[..]), Err("isn't UTF-8"));
        assert_eq!(read(io::repeat(b'a')), Err("is too long"));
        let longest = "a".repeat(MAX_PASSWORD);
        assert_eq!(read(format!("{longest}\r\n").as_bytes()).as_ref(), Ok(&longest));
        assert_eq!(read(format!("{longest}\nmore").as_bytes()), Err("is too long"));
    }

    #[test]
    fn line_breaks_and_byte_order_marks_are_refused() {
        for input in [
            "secret\n\n",
            "secret\nmore",
            "secret\r",
            "secret\r\r\n",
            "\nsecret\n",
            "\r\nsecret",
            "\u{feff}secret\n",
            "sec\u{feff}ret",
        ] {
            assert!(read(input.as_bytes()).is_err(), "{input:?}");
        }
    }

    #[test]
    fn blanks_in_and_around_a_password_stay() {
        for password in [" ", " secret ", "\tse  cret\t", "\u{a0}secret\u{3000}"] {
            assert_eq!(read(password.as_bytes()).as_deref(), Ok(password));
        }
    }
}
