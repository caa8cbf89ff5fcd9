//! What a client does, told while it does it: for logs, metrics and signs of life.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::error::Error;

/// Something that a client does or meets on the way, given to the function that
/// [`ClientBuilder::on_event`](crate::ClientBuilder::on_event) sets.
///
/// It holds no secret, and `Display` says it in a line:
///
/// ```
/// # use here_datalens::{Client, Credentials};
/// let client = Client::builder(Credentials::new("app id", "app code"))
///     .on_event(|event| eprintln!("{event}"))
///     .build();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A host name is about to be looked up.
    Resolving {
        /// The name.
        host: &'a str,
    },
    /// A host name was looked up.
    Resolved {
        /// The name.
        host: &'a str,
        /// Its addresses, in the operating system's order.
        addresses: &'a [SocketAddr],
    },
    /// A TCP connection was made.
    Connected {
        /// The host that it leads to, the proxy's for one.
        host: &'a str,
        /// The address.
        address: SocketAddr,
    },
    /// A request is about to be sent.
    Request {
        /// The method.
        method: &'a str,
        /// The host, with its port where that isn't the usual one.
        host: &'a str,
        /// The path, without the query.
        path: &'a str,
    },
    /// The head of a response has come.
    Response {
        /// The status.
        status: u16,
        /// The time since the request was begun.
        elapsed: Duration,
    },
    /// A part of a body that is being copied has come, and more is to come.
    Body {
        /// How many bytes have come so far.
        bytes: u64,
    },
    /// A request will be sent again.
    Retry {
        /// Why.
        error: &'a Error,
        /// When: after this time.
        wait: Duration,
    },
    /// The lock of a token store is about to be taken, which waits for whoever holds it.
    Locking {
        /// What the store calls itself.
        store: &'a str,
    },
    /// The tokens are about to be refreshed.
    Refreshing,
    /// The tokens were refreshed.
    Refreshed,
    /// The tokens couldn't be refreshed. An access token that is alive is used all the same.
    RefreshFailed {
        /// Why.
        error: &'a Error,
    },
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolving { host } => write!(f, "looking up {host}"),
            Self::Resolved { host, addresses } => {
                write!(f, "{host} has the addresses")?;
                addresses.iter().try_for_each(|address| write!(f, " {}", address.ip()))
            }
            Self::Connected { host, address } => write!(f, "connected to {host} at {address}"),
            Self::Request { method, host, path } => write!(f, "{method} {path} at {host}"),
            Self::Response { status, elapsed } => {
                write!(f, "status {status} after {:.3} s", elapsed.as_secs_f64())
            }
            Self::Body { bytes } => write!(f, "{bytes} bytes so far"),
            Self::Retry { error, wait } => {
                write!(f, "{error}; trying again in {:.1} s", wait.as_secs_f64())
            }
            Self::Locking { store } => write!(f, "locking {store}"),
            Self::Refreshing => f.write_str("refreshing the tokens"),
            Self::Refreshed => f.write_str("refreshed the tokens"),
            Self::RefreshFailed { error } => write!(f, "{error}"),
        }
    }
}

/// What is called for each event.
pub(crate) type OnEvent = Arc<dyn Fn(&Event<'_>) + Send + Sync>;
