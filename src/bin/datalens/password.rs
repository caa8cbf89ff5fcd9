//! Where the password comes from.

use std::io::{self, Read};

use here_datalens::Password;

use crate::environment;
use crate::failure::Failure;
use crate::terminal;

/// More than any password, and little enough to read at once.
const MAX_PASSWORD: u64 = 8 * 1024;

/// Takes the password from standard input if that was asked for, else from
/// `DATALENS_PASSWORD`, else from the terminal.
pub(crate) fn obtain(from_stdin: bool) -> Result<Password, Failure> {
    let (password, place) = if from_stdin {
        (from(io::stdin().lock())?, "standard input")
    } else if let Some(password) = environment::secret("DATALENS_PASSWORD")? {
        (password, "DATALENS_PASSWORD")
    } else {
        (prompt()?, "the prompt")
    };
    match password.is_empty() {
        true => Err(Failure::Setting(format!(
            "the password from {place} is empty"
        ))),
        false => Ok(Password::new(password)),
    }
}

/// Everything up to the end, less one final LF or CRLF.
fn from(input: impl Read) -> Result<String, Failure> {
    let refuse = |reason: &str| Failure::Setting(format!("standard input: {reason}"));
    let mut bytes = Vec::new();
    input
        .take(MAX_PASSWORD + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(&error.to_string()))?;
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err(refuse("too long for a password"));
    }
    let mut password = String::from_utf8(bytes).map_err(|_| refuse("the password isn't UTF-8"))?;
    if password.ends_with('\n') {
        password.pop();
        if password.ends_with('\r') {
            password.pop();
        }
    }
    Ok(password)
}

fn prompt() -> Result<String, Failure> {
    terminal::prompt_password("Password: ").map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::Interrupted,
        io::ErrorKind::UnexpectedEof => Failure::Setting("no password was typed".into()),
        io::ErrorKind::InvalidData => Failure::Setting("the password isn't UTF-8".into()),
        _ => Failure::Setting(
            "no password, and no terminal to ask for it: use --password-stdin or set \
             DATALENS_PASSWORD"
                .into(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_final_line_break_is_not_part_of_the_password() {
        for (input, password) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            ("secret\n\n", "secret\n"),
            ("secret\r", "secret\r"),
            (" a\tb\0 \n", " a\tb\0 "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(from(input.as_bytes()).unwrap(), password, "{input:?}");
        }
    }

    #[test]
    fn what_is_no_password_is_refused() {
        assert!(from(&b"\xff\n"[..]).is_err());
        assert!(from(io::repeat(b'a')).is_err());
    }
}
