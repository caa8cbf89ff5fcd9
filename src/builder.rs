//! The settings of a client, and their check.

use std::{fmt, sync::Arc, time::Duration};

use ureq::tls::{RootCerts, TlsConfig};

use crate::event::{Event, OnEvent};
use crate::http::resolver::{self, POOL_IDLE_TIMEOUT};
use crate::http::url::BaseUrl;
use crate::http::{Http, Limits, MAX_IDLE_CONNECTIONS, certificates, proxy, transport};
use crate::{error::Error, secret::Credentials, secret::check_length};

/// HERE's own service.
const BASE_URL: &str = "https://datalens.api.here.com";

/// The size of a connection's buffers: room for the longest request line, for the head
/// of any sensible response, and for a record of TLS (RFC 8446, section 5.2: 16,645
/// bytes) in one read. There are four of them, zeroed for each connection: ureq's 128 KB
/// are a seventh of a small job's work.
const BUFFER_SIZE: usize = 20 * 1024;

/// The longest app id and app code, in bytes: with each byte of them escaped, the
/// request line still fits into the buffer.
const MAX_CREDENTIAL: usize = 1024;

/// Longer than anybody waits, and short enough for every platform's timers.
const MAX_TIMEOUT: Duration = Duration::from_secs(u32::MAX as u64);

/// Collects the settings of a [`Client`](crate::Client); made by
/// [`Client::builder`](crate::Client::builder). A time limit must be above zero; it is kept
/// to a tenth of a second.
///
/// ```no_run
/// use std::time::Duration;
/// use here_datalens::{Client, Credentials};
/// # fn main() -> Result<(), here_datalens::Error> {
/// let client = Client::builder(Credentials::new("app id", "app code"))
///     .proxy_from_env()
///     .timeout(Duration::from_secs(30))
///     .max_retries(2)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    pub(crate) credentials: Credentials,
    pub(crate) base_url: String,
    /// The certificates that are trusted, or why those that were set can't be.
    roots: Result<RootCerts, String>,
    proxy: proxy::Setting,
    user_agent: String,
    pub(crate) limits: Limits,
    on_event: OnEvent,
}

impl ClientBuilder {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let (connect, read) = (Duration::from_secs(15), Duration::from_secs(60));
        Self {
            credentials,
            base_url: BASE_URL.into(),
            roots: Ok(RootCerts::WebPki),
            proxy: proxy::Setting::Direct,
            user_agent: concat!("here-datalens/", env!("CARGO_PKG_VERSION")).into(),
            limits: Limits { call: MAX_TIMEOUT, connect, read, body: 64 * 1024 * 1024, retries: 0 },
            on_event: Arc::new(|_| {}),
        }
    }

    /// Sets the URL that `/v1/…` is appended to: `https`, or plain `http` for
    /// `localhost`, 127.0.0.0/8 and `[::1]`; with a path if there is a gateway.
    /// Defaults to `https://datalens.api.here.com`.
    pub fn base_url(self, url: impl Into<String>) -> Self {
        Self { base_url: url.into(), ..self }
    }

    /// Sets the certificates, in PEM, that are trusted instead of the built-in ones.
    /// Defaults to Mozilla's, compiled in; no environment variable is read.
    pub fn root_certificates(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { roots: certificates::parse_pem(&pem.into()).map(RootCerts::from), ..self }
    }

    /// Trusts the certificates of the operating system's store, which a company's own are
    /// added to, instead of the built-in ones. On Linux they are read from the usual
    /// places or from where the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// say; the first call fails if there are none.
    ///
    /// ```
    /// # use here_datalens::{Client, Credentials};
    /// # fn main() -> Result<(), here_datalens::Error> {
    /// let credentials = Credentials::new("app id", "app code");
    /// let client = Client::builder(credentials).platform_certificates().build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "platform-verifier")]
    pub fn platform_certificates(self) -> Self {
        Self { roots: Ok(RootCerts::PlatformVerifier), ..self }
    }

    /// Sets the proxy, `http://[user:password@]host:port` or the same with `https`.
    /// Defaults to none. A loopback address over plain http has none anyway.
    pub fn proxy(self, url: impl Into<String>) -> Self {
        Self { proxy: proxy::Setting::Url(url.into()), ..self }
    }

    /// Takes the proxy from the environment as curl does: `https_proxy`,
    /// `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY`, with the exceptions of `no_proxy` or
    /// `NO_PROXY`. Defaults to not reading them.
    pub fn proxy_from_env(self) -> Self {
        Self { proxy: proxy::Setting::Environment, ..self }
    }

    /// Sets the `User-Agent` header: visible ASCII and blanks.
    /// Defaults to `here-datalens/` and the version.
    pub fn user_agent(self, text: impl Into<String>) -> Self {
        Self { user_agent: text.into().trim_matches(' ').to_owned(), ..self }
    }

    /// Limits the time of each whole call, its body and the caller's writer included;
    /// a retry has it anew. Defaults to no such limit.
    pub fn timeout(self, limit: Duration) -> Self {
        Self { limits: Limits { call: limit.min(MAX_TIMEOUT), ..self.limits }, ..self }
    }

    /// Limits the time of making a connection: of looking up the name, which takes 10
    /// seconds at most, of the proxy, and of TLS. Defaults to 15 seconds.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        Self { limits: Limits { connect: limit.min(MAX_TIMEOUT), ..self.limits }, ..self }
    }

    /// Limits the wait for a response, the time that its body may stall, and that of a
    /// whole sign-in or refresh. The time that the caller's writer takes doesn't count.
    /// Defaults to 60 seconds.
    pub fn read_timeout(self, limit: Duration) -> Self {
        Self { limits: Limits { read: limit.min(MAX_TIMEOUT), ..self.limits }, ..self }
    }

    /// Limits the bodies that are read into memory, in bytes after decompression.
    /// Defaults to 64 MiB.
    pub fn max_body_size(self, bytes: u64) -> Self {
        Self { limits: Limits { body: bytes, ..self.limits }, ..self }
    }

    /// Sets how often a request is sent again after an error that
    /// [is temporary](Error::is_temporary): a sign-in or a refresh only if it can't have
    /// been received, or on 429 and 503; a read always, unless some of its body has
    /// been delivered.
    ///
    /// The wait is what the response's `Retry-After` says, up to a minute; else half a
    /// second and twice as much each time, with jitter. Defaults to 0.
    pub fn max_retries(self, retries: u32) -> Self {
        Self { limits: Limits { retries, ..self.limits }, ..self }
    }

    /// Sets the function that is called for each [`Event`]. It is called with no lock of
    /// a session held, and in whatever thread makes the call.
    ///
    /// ```
    /// # use here_datalens::{Client, Credentials, Event};
    /// let client = Client::builder(Credentials::new("app id", "app code"))
    ///     .on_event(|event| match event {
    ///         Event::Retry { .. } => eprintln!("{event}"),
    ///         _ => {}
    ///     })
    ///     .build();
    /// ```
    pub fn on_event(self, on_event: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self { on_event: Arc::new(on_event), ..self }
    }

    /// Checks the settings that are plain values, and returns the base URL.
    fn check(&self) -> Result<BaseUrl, Error> {
        check_crypto_provider()?;
        check_length("app id", &self.credentials.app_id, MAX_CREDENTIAL)?;
        check_length("app code", &self.credentials.app_code, MAX_CREDENTIAL)?;
        let base_url = BaseUrl::parse(&self.base_url)
            .map_err(|reason| Error::invalid_input("base URL", reason))?;
        let Limits { call, connect, read, .. } = self.limits;
        let times = [("timeout", call), ("connect timeout", connect), ("read timeout", read)];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(Error::invalid_input(name, "must be above zero"));
        }
        let is_visible = self.user_agent.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if !is_visible || !(1..=1024).contains(&self.user_agent.len()) {
            return Err(Error::invalid_input("user agent", "must be visible ASCII"));
        }
        Ok(base_url)
    }

    /// Checks the settings, and makes the HTTP client of them.
    pub(crate) fn http(&self) -> Result<Http, Error> {
        let base_url = self.check()?;
        let Limits { connect, read, .. } = self.limits;
        let proxy = self.proxy.proxy(&base_url.origin)?;
        let roots = self.roots.clone();
        let roots = roots.map_err(|reason| Error::invalid_input("root certificates", reason))?;
        let config = ureq::Agent::config_builder()
            // Statuses and redirects are ours to judge: ureq would drop a connection
            // with the former, and send a POST elsewhere as a GET for the latter.
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(&self.user_agent)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_connect(Some(connect))
            .timeout_send_request(Some(read))
            .timeout_send_body(Some(read))
            .timeout_recv_response(Some(read))
            .timeout_per_read(Some(read))
            .input_buffer_size(BUFFER_SIZE)
            .output_buffer_size(BUFFER_SIZE)
            // A longer head doesn't fit into the buffer; ureq would call it closed.
            .max_response_header_size(BUFFER_SIZE - 1)
            .max_idle_age(POOL_IDLE_TIMEOUT)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS);
        Ok(Http {
            agent: transport::agent(config.build(), resolver::system(self.on_event.clone())),
            base_url,
            on_event: self.on_event.clone(),
        })
    }
}

/// ureq panics at its first use of TLS where there is no crypto provider.
fn check_crypto_provider() -> Result<(), Error> {
    let is_there = cfg!(feature = "ring");
    #[cfg(feature = "process-provider")]
    let is_there = is_there || rustls::crypto::CryptoProvider::get_default().is_some();
    if is_there {
        return Ok(());
    }
    let reason = "there is none: enable the feature ring, or process-provider and install \
                  rustls's default provider first";
    Err(Error::invalid_input("crypto provider", reason))
}

// Written by hand: the app code and a proxy's password are part of what it holds.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}
