//! What can go wrong, told apart by what a caller would do about it.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a call didn't succeed.
///
/// No variant holds a secret: not in its fields, not in its text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an argument was refused. Nothing was sent.
    #[non_exhaustive]
    Setting {
        /// What was refused, such as "base URL".
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused the credentials or the token (status 401 or 403).
    #[non_exhaustive]
    Refused {
        /// The status of the answer.
        status: u16,
        /// What the request was for.
        request: Request,
        /// A short piece of the server's own text, cleaned.
        text: Option<String>,
    },
    /// The server refused to refresh the session: the user has to sign in again.
    #[non_exhaustive]
    SignInAgain {
        /// The status of the answer; `None` where the session holds no refresh token.
        status: Option<u16>,
        /// A short piece of the server's own text, cleaned.
        text: Option<String>,
    },
    /// The server answered with a status that means no success.
    #[non_exhaustive]
    Status {
        /// The status of the answer.
        status: u16,
        /// A short piece of the server's own text, cleaned; only of a 4xx or 5xx.
        text: Option<String>,
    },
    /// The server redirected the request to where no credentials are sent.
    #[non_exhaustive]
    Redirect {
        /// The status of the answer.
        status: u16,
        /// The origin (scheme, host, port) of the target, if the answer names one.
        to: Option<String>,
    },
    /// The server wasn't reached, or not in time, or not safely.
    #[non_exhaustive]
    Unreachable {
        /// The host, with its port where that isn't the usual one.
        host: String,
        /// How far the call got.
        stage: Stage,
        /// Whether it was a time limit that ended it.
        timed_out: bool,
        /// What the machine says of it.
        reason: String,
    },
    /// The answer isn't what it should be: not HTTP, cut, malformed, too large.
    #[non_exhaustive]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller's own writer failed.
    Output(Arc<io::Error>),
}

/// The kinds of request, for [`Error::Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Signing in: the user name, the password or the application's credentials are wrong.
    SignIn,
    /// Reading a resource: the token or the application's credentials are wrong.
    Resource,
}

/// How far a call got, for [`Error::Unreachable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Looking up the name of the host.
    Name,
    /// Making the connection.
    Connection,
    /// Having the proxy make the connection.
    Proxy,
    /// Setting up TLS.
    Tls,
    /// Checking the server's certificate.
    Certificate,
    /// Sending the request or waiting for the answer.
    Exchange,
}

impl Error {
    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting {
            name,
            reason: reason.into(),
        }
    }

    pub(crate) fn answer(reason: impl Into<String>) -> Self {
        Self::Answer {
            reason: reason.into(),
        }
    }

    /// Whether the server refused the credentials or the token, so that signing in
    /// again, perhaps with another password, may help.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::SignInAgain { .. })
    }

    /// Whether the same call may succeed later: the server wasn't reached, or is
    /// overloaded or broken (status 408, 429, or 5xx).
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { stage, .. } => *stage != Stage::Certificate,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, reason } => write!(f, "{name}: {reason}"),
            Self::Refused {
                status,
                request,
                text,
            } => {
                f.write_str(match request {
                    Request::SignIn => {
                        "sign-in refused: check the user name and the password, and the app id \
                         and app code"
                    }
                    Request::Resource => {
                        "access refused: the access token may have expired, or the app id and \
                         app code are wrong"
                    }
                })?;
                with_status(f, Some(*status), text)
            }
            Self::SignInAgain { status, text } => {
                f.write_str("the session can't be refreshed: sign in again")?;
                with_status(f, *status, text)
            }
            Self::Status { status, text } => {
                f.write_str(match status {
                    404 => "not there, or not yours",
                    429 => "too many requests: try later",
                    500..=599 => "the server failed: try later",
                    _ => "unexpected answer",
                })?;
                with_status(f, Some(*status), text)
            }
            Self::Redirect { status, to } => match to {
                Some(origin) => write!(
                    f,
                    "redirected to {origin}, where no credentials are sent (status {status})"
                ),
                None => write!(f, "redirected to nowhere usable (status {status})"),
            },
            Self::Unreachable {
                host,
                stage,
                timed_out,
                reason,
            } => {
                let what = match (stage, timed_out) {
                    (Stage::Name, _) => "can't look up",
                    (Stage::Connection, _) => "can't connect to",
                    (Stage::Proxy, _) => "no connection through the proxy to",
                    (Stage::Tls, _) => "no TLS connection to",
                    (Stage::Certificate, _) => "untrusted certificate of",
                    (Stage::Exchange, true) => "no answer in time from",
                    (Stage::Exchange, false) => "no answer from",
                };
                write!(f, "{what} {host}: {reason}")
            }
            Self::Answer { reason } => write!(f, "unusable answer: {reason}"),
            Self::Output(_) => f.write_str("can't write the output"),
        }
    }
}

fn with_status(
    f: &mut fmt::Formatter<'_>,
    status: Option<u16>,
    text: &Option<String>,
) -> fmt::Result {
    if let Some(status) = status {
        write!(f, " (status {status})")?;
    }
    match text {
        Some(text) => write!(f, "; the server says: {text}"),
        None => Ok(()),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Output(error) => Some(error),
            // Foreign errors stay inside: their texts may quote URLs or values.
            Self::Setting { .. }
            | Self::Refused { .. }
            | Self::SignInAgain { .. }
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::Unreachable { .. }
            | Self::Answer { .. } => None,
        }
    }
}
