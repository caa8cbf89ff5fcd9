//! The settings of a client, and their check.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::address::BaseUrl;
use crate::client::Client;
use crate::connection::{self, KEPT};
use crate::error::Error;
use crate::proxy;
use crate::retry::Retries;
use crate::secret::Credentials;

/// HERE's own address.
const BASE_URL: &str = "https://datalens.api.here.com";

/// The size of a connection's buffers: room for the longest request line, for the head
/// of any sensible answer, and for a record of TLS (RFC 8446, section 5.2: 16,645 bytes)
/// in one read. There are four of them, zeroed for each connection: ureq's 128 KB are a
/// seventh of a small job's work.
const BUFFER: usize = 20 * 1024;

/// The longest app id and app code, in bytes: with each byte of them escaped, the
/// request line still fits into the buffer.
const MAX_CREDENTIAL: usize = 1024;

/// Longer than anybody waits, and short enough for every platform's timers.
const MAX_WAIT: Duration = Duration::from_secs(u32::MAX as u64);

/// Collects the settings of a [`Client`]; made by [`Client::builder`].
///
/// [`build`](Self::build) checks them all. A time limit must be above zero; it is kept
/// to a tenth of a second.
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    pub(crate) credentials: Credentials,
    base_url: String,
    root_certificates: Option<Vec<u8>>,
    proxy: proxy::Setting,
    user_agent: String,
    pub(crate) limits: Limits,
    retries: Retries,
}

/// The limits of a call.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) call: Option<Duration>,
    pub(crate) lookup: Duration,
    pub(crate) connect: Duration,
    pub(crate) response: Duration,
    pub(crate) stall: Duration,
    pub(crate) sign_in: Duration,
    pub(crate) body: u64,
}

impl ClientBuilder {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            base_url: BASE_URL.into(),
            root_certificates: None,
            proxy: proxy::Setting::Direct,
            user_agent: concat!("here-datalens/", env!("CARGO_PKG_VERSION")).into(),
            limits: Limits {
                call: None,
                lookup: Duration::from_secs(10),
                connect: Duration::from_secs(15),
                response: Duration::from_secs(60),
                stall: Duration::from_secs(60),
                sign_in: Duration::from_secs(60),
                body: 64 * 1024 * 1024,
            },
            retries: Retries::default(),
        }
    }

    /// Sets the address that `/v1/…` is appended to: `https`, or plain `http` for
    /// `localhost`, 127.0.0.0/8 and `[::1]`; a path prefix is welcome.
    /// Defaults to `https://datalens.api.here.com`.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets the certificates, in PEM, that are trusted instead of the built-in ones.
    /// Defaults to Mozilla's, compiled in; no environment variable is read.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// Sets the proxy, `http://[user:password@]host:port` or the same with `https`.
    /// Defaults to none. A loopback address over plain http has none anyway.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = proxy::Setting::Url(url.into());
        self
    }

    /// Takes the proxy from the environment as curl does: `https_proxy`,
    /// `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY`, with the exceptions of `no_proxy` or
    /// `NO_PROXY`. Defaults to not reading them.
    pub fn proxy_from_environment(mut self) -> Self {
        self.proxy = proxy::Setting::Environment;
        self
    }

    /// Sets the `User-Agent` header: visible ASCII and blanks.
    /// Defaults to `here-datalens/` and the version.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.user_agent = text.into();
        self
    }

    /// Limits the time of each whole call, its body and the caller's writer included.
    /// Defaults to no such limit.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.call = Some(limit);
        self
    }

    /// Limits the time of a name lookup. Defaults to 10 seconds.
    pub fn lookup_timeout(mut self, limit: Duration) -> Self {
        self.limits.lookup = limit;
        self
    }

    /// Limits the time of making a connection, TLS and proxy included.
    /// Defaults to 15 seconds.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.limits.connect = limit;
        self
    }

    /// Limits the time from the end of a request to the end of the answer's head.
    /// Defaults to 60 seconds.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.limits.response = limit;
        self
    }

    /// Limits how long a body may stall; the time that the caller's writer takes
    /// doesn't count. Defaults to 60 seconds.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.limits.stall = limit;
        self
    }

    /// Limits the time of a whole sign-in or refresh. Defaults to 60 seconds.
    pub fn sign_in_timeout(mut self, limit: Duration) -> Self {
        self.limits.sign_in = limit;
        self
    }

    /// Limits the bodies that are read into memory, in bytes after decompression.
    /// Defaults to 64 MiB.
    pub fn max_body_size(mut self, bytes: u64) -> Self {
        self.limits.body = bytes;
        self
    }

    /// Sets how often a call is sent again after a failure that may pass: any call if
    /// no connection could be made, or if the answer was 429 or 503; a read also on
    /// 500, 502 and 504, a reset, a timeout, and an answer that was cut, as long as
    /// none of it has been handed on.
    ///
    /// The wait is what the answer's `Retry-After` says, up to a minute; else half a
    /// second and twice as much each time, with jitter. [`timeout`](Self::timeout)
    /// holds for each try. Defaults to 0.
    pub fn retries(mut self, most: u32) -> Self {
        self.retries.most = most;
        self
    }

    /// Sets what is called before each retry, with the failure and the wait.
    pub fn on_retry(mut self, tell: impl Fn(&Error, Duration) + Send + Sync + 'static) -> Self {
        self.retries.tell = Some(Arc::new(tell));
        self
    }

    /// Checks the settings and makes the client. Sends nothing.
    ///
    /// # Errors
    /// [`Error::Setting`], which names the first setting that can't be used.
    pub fn build(mut self) -> Result<Client, Error> {
        check_credential("app id", &self.credentials.app_id)?;
        check_credential("app code", &self.credentials.app_code)?;
        let base_url =
            BaseUrl::parse(&self.base_url).map_err(|reason| Error::setting("base URL", reason))?;
        self.limits.check()?;
        let visible = |b: u8| b.is_ascii_graphic() || b == b' ';
        let user_agent = self.user_agent.trim_matches(' ');
        if user_agent.is_empty() || user_agent.len() > 1024 || !user_agent.bytes().all(visible) {
            return Err(Error::setting("user agent", "must be visible ASCII"));
        }
        let config = ureq::Agent::config_builder()
            // Statuses and redirects are ours to judge: ureq would drop a connection
            // with the former, and send a POST elsewhere as a GET for the latter.
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(user_agent)
            .proxy(self.proxy.proxy(&base_url.origin)?)
            .tls_config(tls(self.root_certificates.as_deref())?)
            .timeout_resolve(Some(self.limits.lookup))
            .timeout_connect(Some(self.limits.connect))
            .timeout_send_request(Some(self.limits.response))
            .timeout_send_body(Some(self.limits.response))
            .timeout_recv_response(Some(self.limits.response))
            .timeout_per_read(Some(self.limits.stall))
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            // A longer head doesn't fit into the buffer; ureq would call it cut.
            .max_response_header_size(BUFFER - 1)
            .max_idle_age(KEPT)
            .max_idle_connections(64)
            .max_idle_connections_per_host(64);
        let agent = connection::agent(config.build());
        Ok(Client::assemble(
            agent,
            base_url,
            self.credentials,
            self.limits,
            self.retries,
        ))
    }
}

impl Limits {
    fn check(&mut self) -> Result<(), Error> {
        let times = [
            ("timeout", self.call.as_mut()),
            ("lookup timeout", Some(&mut self.lookup)),
            ("connect timeout", Some(&mut self.connect)),
            ("response timeout", Some(&mut self.response)),
            ("stall timeout", Some(&mut self.stall)),
            ("sign-in timeout", Some(&mut self.sign_in)),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                if time.is_zero() {
                    return Err(Error::setting(name, "must be above zero"));
                }
                *time = (*time).min(MAX_WAIT);
            }
        }
        Ok(())
    }
}

fn check_credential(name: &'static str, text: &str) -> Result<(), Error> {
    match text.len() {
        0 => Err(Error::setting(name, "is empty")),
        1..=MAX_CREDENTIAL => Ok(()),
        _ => Err(Error::setting(name, "is too long")),
    }
}

fn tls(root_certificates: Option<&[u8]>) -> Result<TlsConfig, Error> {
    let Some(pem) = root_certificates else {
        return Ok(TlsConfig::default());
    };
    let refuse = |reason| Error::setting("root certificates", reason);
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(refuse("aren't valid PEM")),
        }
    }
    if certificates.is_empty() {
        return Err(refuse("hold no certificate in PEM"));
    }
    let roots = RootCerts::new_with_certs(&certificates);
    Ok(TlsConfig::builder().root_certs(roots).build())
}
