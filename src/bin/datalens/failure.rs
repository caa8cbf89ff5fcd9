//! Why the program ends, as a message and an exit status.

use std::error::Error as _;
use std::fmt;
use std::io;

use here_datalens::{Error, Stage};

/// Why the program ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something on this machine failed.
    Local(String),
    /// Usage, a setting, no password.
    Setting(String),
    /// Another process holds the session for too long.
    Busy(String),
    /// A refresh was refused, and no password is to be had.
    NoPassword(Error, String),
    /// The library's.
    Client(Error),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// The reader of standard output has had enough: a success, for a filter.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Output(error) => Self::output(&error),
            error => Self::Client(error),
        }
    }
}

impl Failure {
    /// The failure of writing to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Local(format!("can't write the output: {error}")),
        }
    }

    /// The status that the program exits with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Local(_) => 1,
            Self::Setting(_) => 2,
            Self::NoPassword(..) => 3,
            Self::Busy(_) => 4,
            Self::Interrupted => 130,
            Self::Client(error) => match error {
                Error::Setting { .. } => 2,
                Error::Refused { .. } | Error::SignInAgain { .. } => 3,
                Error::Unreachable { .. } => 4,
                Error::Output(_) => 1,
                _ => 5,
            },
        }
    }

    /// Whether there is anything to say.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::OutputClosed | Self::Interrupted)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(reason) | Self::Setting(reason) | Self::Busy(reason) => f.write_str(reason),
            Self::NoPassword(refusal, reason) => write!(f, "{refusal}; {reason}"),
            Self::Client(error) => {
                write!(f, "{error}")?;
                if let Error::Unreachable {
                    stage: Stage::Certificate,
                    ..
                } = error
                {
                    f.write_str(" (--cacert FILE names other certificates to trust)")?;
                }
                match error.source() {
                    Some(source) => write!(f, "\ncaused by: {source}"),
                    None => Ok(()),
                }
            }
            Self::Interrupted | Self::OutputClosed => Ok(()),
        }
    }
}
