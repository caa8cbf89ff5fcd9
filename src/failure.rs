//! From ureq's errors to ours, and which calls may be sent again after which failure.

use std::io;
use std::time::Duration;

use ureq::Timeout;

use crate::connection::Fault;
use crate::error::{Error, Stage};

/// A failed try.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: Again,
    /// How long the server asks to wait.
    pub(crate) after: Option<Duration>,
}

/// Which calls may be sent again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// None: it would fail again, or part of the answer has been handed on.
    None,
    /// A GET: the request may have reached the server, where it changed nothing.
    Get,
    /// A GET, at once and whatever the settings: an idle connection had been closed.
    GetAtOnce,
    /// Any: the request didn't reach the server, or the server wants it again.
    Any,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error, Again::None)
    }
}

impl Failure {
    fn new(error: Error, again: Again) -> Self {
        Self {
            error,
            again,
            after: None,
        }
    }

    /// An answer with another status than 200.
    pub(crate) fn status(error: Error, status: u16, after: Option<Duration>) -> Self {
        let again = match status {
            429 | 503 => Again::Any,
            500 | 502 | 504 => Again::Get,
            _ => Again::None,
        };
        Self {
            error,
            again,
            after,
        }
    }

    /// An answer that ended too early.
    pub(crate) fn cut(reason: impl Into<String>) -> Self {
        Self::new(Error::answer(reason), Again::Get)
    }

    /// The failure of a call that had no answer yet.
    pub(crate) fn before_body(error: ureq::Error, host: &str) -> Self {
        match error {
            ureq::Error::Other(inner) => match inner.downcast::<Fault>() {
                Ok(fault) => Self::at_fault(*fault, host),
                Err(_) => unreachable(host, Stage::Exchange, "it failed", Again::Get),
            },
            other => Self::in_answer(other, host),
        }
    }

    /// The failure of reading a body.
    pub(crate) fn in_body(error: io::Error, host: &str) -> Self {
        // ureq wraps its own errors in io's; this unwraps them.
        Self::in_answer(ureq::Error::from(error), host)
    }

    /// The same failure, after which nothing is sent again if part of the answer has
    /// been handed on.
    pub(crate) fn handed_on(self, handed_on: bool) -> Self {
        match handed_on {
            true => self.error.into(),
            false => self,
        }
    }

    fn at_fault(fault: Fault, host: &str) -> Self {
        match fault {
            Fault::Name(reason) => unreachable(host, Stage::Name, &reason, Again::Any),
            Fault::NotConnected(error) => not_connected(error, host),
            Fault::NoAnswer { reused, error } => {
                let (stage, reason) = match &error {
                    Some(ureq::Error::Io(error)) => io_failure(error, Stage::Exchange),
                    _ => (
                        Stage::Exchange,
                        "the connection was closed before an answer came".to_owned(),
                    ),
                };
                let again = match reused {
                    true => Again::GetAtOnce,
                    false => Again::Get,
                };
                unreachable(host, stage, &reason, again)
            }
        }
    }

    /// The failure of a call whose answer had begun.
    fn in_answer(error: ureq::Error, host: &str) -> Self {
        match error {
            ureq::Error::Timeout(timeout) => timed_out(timeout, host),
            ureq::Error::Io(error) => match io_failure(&error, Stage::Exchange) {
                (stage @ (Stage::Tls | Stage::Certificate), reason) => {
                    unreachable(host, stage, &reason, Again::Get)
                }
                _ => Self::cut("it was cut short"),
            },
            // Their texts may quote the answer.
            ureq::Error::Protocol(_) => Error::answer("not valid HTTP").into(),
            ureq::Error::LargeResponseHeader(..) => Error::answer("its head is too large").into(),
            ureq::Error::BodyStalled => Error::answer("not valid HTTP").into(),
            #[cfg(feature = "gzip")]
            ureq::Error::Decompress(_, error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::cut("it was cut short")
            }
            #[cfg(feature = "gzip")]
            ureq::Error::Decompress(..) => Error::answer("not valid gzip").into(),
            _ => Error::answer("it can't be read").into(),
        }
    }
}

fn not_connected(error: ureq::Error, host: &str) -> Failure {
    match error {
        ureq::Error::Timeout(Timeout::Resolve) => timed_out(Timeout::Resolve, host),
        ureq::Error::Timeout(_) => timed_out(Timeout::Connect, host),
        ureq::Error::Io(error) => {
            let (stage, reason) = io_failure(&error, Stage::Connection);
            let again = match stage {
                Stage::Certificate => Again::None,
                _ => Again::Any,
            };
            unreachable(host, stage, &reason, again)
        }
        // The text is ureq's own and holds the proxy's status at the most.
        ureq::Error::ConnectProxyFailed(reason) => {
            unreachable(host, Stage::Proxy, &reason, Again::Any)
        }
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            unreachable(host, Stage::Proxy, "it doesn't speak HTTP", Again::Any)
        }
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
            unreachable(host, Stage::Tls, "TLS can't be set up", Again::Any)
        }
        _ => unreachable(host, Stage::Connection, "no connection", Again::Any),
    }
}

/// A timeout: before the request was sent any call may be sent again.
fn timed_out(timeout: Timeout, host: &str) -> Failure {
    let (stage, reason, again) = match timeout {
        Timeout::Resolve => (Stage::Name, "no answer in time", Again::Any),
        Timeout::Connect => (Stage::Connection, "no connection in time", Again::Any),
        Timeout::PerRead | Timeout::RecvBody => (Stage::Exchange, "the answer stalled", Again::Get),
        _ => (Stage::Exchange, "the time limit was reached", Again::Get),
    };
    let mut failure = unreachable(host, stage, reason, again);
    if let Error::Unreachable { timed_out, .. } = &mut failure.error {
        *timed_out = true;
    }
    failure
}

/// Tells a failure of TLS from one of the connection. rustls isn't a dependency, so
/// its errors, which ureq wraps as invalid data, are told by their text; neither they
/// nor the system's quote anything that was sent.
fn io_failure(error: &io::Error, otherwise: Stage) -> (Stage, String) {
    let reason = error.to_string();
    let certificate = "invalid peer certificate: ";
    match error.kind() {
        io::ErrorKind::InvalidData => match reason.strip_prefix(certificate) {
            Some(reason) => (Stage::Certificate, reason.to_owned()),
            None => (Stage::Tls, reason),
        },
        io::ErrorKind::UnexpectedEof if otherwise == Stage::Connection => {
            (Stage::Tls, "the connection was closed".to_owned())
        }
        _ => (otherwise, reason),
    }
}

fn unreachable(host: &str, stage: Stage, reason: &str, again: Again) -> Failure {
    Failure::new(
        Error::Unreachable {
            host: host.to_owned(),
            stage,
            timed_out: false,
            reason: reason.to_owned(),
        },
        again,
    )
}
