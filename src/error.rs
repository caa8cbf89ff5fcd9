//! What can go wrong, told apart by what a caller would do about it.

use std::{fmt, io, sync::Arc};

/// Why a call didn't succeed.
///
/// No variant holds a secret: not in its fields, not in its text. What a caller does next:
///
/// ```
/// # use here_datalens::{Error, Session, Password};
/// # fn ask() -> Password { Password::new("") }
/// fn datasets(session: &Session) -> Result<serde_json::Value, Error> {
///     match session.datasets() {
///         Err(error) if error.needs_sign_in() => {
///             session.sign_in(&ask())?;
///             session.datasets()
///         }
///         // Err(error) if error.is_temporary() => try again in a while
///         other => other,
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an argument was refused. Nothing was sent.
    #[non_exhaustive]
    InvalidInput {
        /// What was refused, such as "base URL".
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused the credentials or the access token (status 401 or 403).
    Unauthorized {
        /// What was asked for.
        operation: Operation,
        /// The status of the response.
        status: u16,
        /// A short excerpt of the server's own text.
        text: Option<String>,
    },
    /// The session has no tokens that are of use: the user has to sign in.
    SignInRequired {
        /// What was asked for.
        operation: Operation,
        /// The status of the response by which the server refused the tokens; `None` if
        /// there were none, or no refresh token.
        status: Option<u16>,
        /// A short excerpt of the server's own text.
        text: Option<String>,
    },
    /// The server answered with a status that means no success.
    Status {
        /// What was asked for.
        operation: Operation,
        /// The status of the response.
        status: u16,
        /// A short excerpt of the server's own text; only of a 4xx or 5xx.
        text: Option<String>,
    },
    /// The server redirected the request to where no credentials are sent.
    Redirect {
        /// What was asked for.
        operation: Operation,
        /// The status of the response.
        status: u16,
        /// Where to, if the response says so: the path for the same origin, else the
        /// origin (scheme, host, port).
        to: Option<String>,
    },
    /// The proxy refused to make a connection, for good.
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// The status of its response to CONNECT.
        status: u16,
    },
    /// The server or the proxy wasn't reached, or not in time, or not safely.
    #[non_exhaustive]
    Transport {
        /// What was asked for.
        operation: Operation,
        /// How far the request got.
        stage: Stage,
        /// Whether it was a time limit that ended it.
        is_timeout: bool,
        /// Whether the same may succeed later.
        is_temporary: bool,
        /// What failed, with the host that was spoken to and the operating system's
        /// message.
        reason: String,
    },
    /// The response isn't what it should be: truncated, malformed, too large.
    #[non_exhaustive]
    InvalidResponse {
        /// What was asked for.
        operation: Operation,
        /// What is wrong with it.
        reason: String,
        /// Whether the connection ended before the response did.
        is_truncated: bool,
    },
    /// The [`TokenStore`](crate::TokenStore) failed.
    Store {
        /// What the store calls itself.
        name: String,
        /// Whether there are new tokens that couldn't be stored. The session holds them:
        /// the same call, made again, succeeds.
        renewed: bool,
        /// What the store failed with.
        source: Arc<io::Error>,
    },
    /// The caller's own writer failed.
    Output(Arc<io::Error>),
}

/// What was asked for: the subject of an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Signing in.
    SignIn {
        /// The host, with its port where that isn't the usual one.
        host: String,
        /// The e-mail address of the account.
        email: String,
    },
    /// Refreshing the tokens.
    Refresh {
        /// The host, with its port where that isn't the usual one.
        host: String,
    },
    /// Reading a resource.
    Read {
        /// The resource as it was asked for, without its query.
        resource: String,
    },
}

/// How far a request got, for [`Error::Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Looking up the name of the host.
    Resolve,
    /// Making the connection.
    Connect,
    /// Having the proxy make the connection.
    Proxy,
    /// Setting up TLS.
    Tls,
    /// Verifying the server's certificate.
    Certificate,
    /// Sending the request or waiting for the response.
    Exchange,
}

impl Error {
    pub(crate) fn invalid_input(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidInput { name, reason: reason.into() }
    }

    /// Whether signing in, with [`Session::sign_in`](crate::Session::sign_in), is what
    /// helps: there are no tokens, or the server refuses them for good. A refused sign-in
    /// is none of these, nor is a 401 that came after a refresh.
    pub fn needs_sign_in(&self) -> bool {
        matches!(self, Self::SignInRequired { .. })
    }

    /// Whether the same call may succeed later: the server wasn't reached, or not in
    /// time; the response was truncated; the server or the proxy is overloaded or broken
    /// (408, 429, 500, 502, 503, 504); or the store is in use elsewhere.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Transport { is_temporary, .. } => *is_temporary,
            Self::InvalidResponse { is_truncated, .. } => *is_truncated,
            Self::Status { status, .. } => is_temporary_status(*status),
            Self::Store { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether it was a time limit that ended the call.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Transport { is_timeout: true, .. })
    }

    /// The error of a response by which the server refused the tokens for good.
    pub(crate) fn into_sign_in_required(self) -> Self {
        match self {
            Self::Unauthorized { operation, status, text }
            | Self::Status { operation, status, text } => {
                Self::SignInRequired { operation, status: Some(status), text }
            }
            error => error,
        }
    }

    /// Returns the status of the API's response, if that is what the error is about.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { status, .. }
            | Self::Status { status, .. }
            | Self::Redirect { status, .. } => Some(*status),
            Self::SignInRequired { status, .. } => *status,
            _ => None,
        }
    }
}

/// Whether a request that was answered so, by the server or by a proxy, may succeed later.
pub(crate) fn is_temporary_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Operation::{Read, Refresh, SignIn};
        match self {
            Self::InvalidInput { name, reason } => write!(f, "{name}: {reason}"),
            Self::Unauthorized { operation: operation @ SignIn { email, .. }, .. } => write!(
                f,
                "{operation}: refused: check the user name {email}, the password, the app id and \
                 the app code"
            ),
            Self::Unauthorized { operation, .. } => write!(
                f,
                "{operation}: access refused: no permission, or the app id or the app code is wrong"
            ),
            Self::SignInRequired { operation, status, .. } => {
                let reason = match operation {
                    SignIn { .. } => "needed: there is no session",
                    Refresh { .. } if status.is_none() => "no refresh token: sign in again",
                    Refresh { .. } => "refused: sign in again",
                    Read { .. } => "the session has ended: sign in again",
                };
                write!(f, "{operation}: {reason}")
            }
            Self::Status { operation, status, .. } => {
                write!(f, "{operation}: {}", meaning(*status))
            }
            Self::Redirect { operation, to, .. } => {
                let (to, end) = match to.as_deref() {
                    None => ("nowhere usable", ""),
                    Some(path) if path.starts_with('/') => (path, ", which isn't followed"),
                    Some(origin) => (origin, ", which gets no credentials"),
                };
                write!(f, "{operation}: redirected to {to}{end}")
            }
            Self::Proxy { proxy, status: 407 } => write!(
                f,
                "proxy {proxy}: wants other credentials: they are set in its URL, user:password@host"
            ),
            Self::Proxy { proxy, .. } => write!(f, "proxy {proxy}: refuses the connection"),
            Self::Transport { operation, reason, .. }
            | Self::InvalidResponse { operation, reason, .. } => write!(f, "{operation}: {reason}"),
            Self::Store { name, renewed: true, .. } => {
                write!(f, "{name}: the new tokens can't be stored")
            }
            Self::Store { name, .. } if self.is_temporary() => {
                write!(f, "{name}: in use elsewhere")
            }
            Self::Store { name, .. } => write!(f, "{name}: can't be used"),
            Self::Output(_) => f.write_str("can't write the output"),
        }?;
        let proxy_status = if let Self::Proxy { status, .. } = self { Some(*status) } else { None };
        if let Some(status) = self.status().or(proxy_status) {
            write!(f, " (status {status})")?;
        }
        if let Self::Unauthorized { text: Some(text), .. }
        | Self::SignInRequired { text: Some(text), .. }
        | Self::Status { text: Some(text), .. } = self
        {
            write!(f, "; the server says: {text}")?;
        }
        Ok(())
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        404 => "not found, or no permission",
        429 => "too many requests",
        500..=599 => "the server failed",
        _ => "unexpected status",
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignIn { host, .. } => write!(f, "sign-in at {host}"),
            Self::Refresh { host } => write!(f, "refresh at {host}"),
            Self::Read { resource } => f.write_str(resource),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Output(source) | Self::Store { source, .. } => Some(source),
            // Foreign errors stay inside: their texts may quote URLs or values.
            _ => None,
        }
    }
}
