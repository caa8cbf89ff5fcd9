//! One attempt at a request that failed: how far it got, the error that it becomes, and
//! which requests may be sent again after it (RFC 9110, section 9.2.2).

use std::io::ErrorKind::{InvalidData, UnexpectedEof};
use std::{fmt, time::Duration};

use ureq::{Timeout, tls::RootCerts};

use super::{Call, RESOLVE_TIMEOUT, certificates, redact};
use crate::error::{Error, Stage};

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct AttemptError {
    pub(crate) error: Error,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// The server had closed an idle connection, so that a GET may go over another one.
    pub(crate) was_idle: bool,
    /// Some of the response has been delivered.
    pub(crate) is_delivered: bool,
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, was_idle: false, is_delivered: false }
    }
}

impl AttemptError {
    /// Whether the request, of an idempotent method or not, may be sent again (RFC 9110,
    /// section 9.2.2).
    pub(crate) fn may_repeat(&self, is_idempotent: bool) -> bool {
        let is_safe = match self.error {
            _ if is_idempotent => true,
            // Before the exchange, no byte of the request is sent.
            Error::Transport { stage, .. } => stage != Stage::Exchange,
            Error::Status { status, .. } => matches!(status, 429 | 503),
            _ => false,
        };
        is_safe && self.error.is_temporary() && !self.is_delivered
    }

    /// The same failure, after so many bytes of the response have been delivered.
    pub(crate) fn after_delivery(mut self, delivered: u64) -> Self {
        use Error::{InvalidResponse, Transport};
        self.is_delivered = delivered > 0;
        if let InvalidResponse { reason, .. } | Transport { reason, .. } = &mut self.error
            && self.is_delivered
        {
            reason.push_str("; the output is incomplete");
        }
        self
    }
}

impl Call<'_> {
    /// The failure of a request, or of reading its response, of whose body so many bytes
    /// have come if it has begun. (Of an error of a reader this unwraps ureq's own.)
    pub(super) fn failure(
        &self,
        error: impl Into<ureq::Error>,
        received: Option<u64>,
    ) -> AttemptError {
        let invalid = |reason: &str| self.invalid_response(reason).into();
        let truncated = || {
            let operation = self.operation.clone();
            let reason = format!("cut short after {} bytes", received.unwrap_or(0));
            Error::InvalidResponse { operation, reason, is_truncated: true }.into()
        };
        match error.into() {
            ureq::Error::Other(error) => match error.downcast::<TransportError>() {
                Ok(error) => error.into_attempt(self),
                Err(_) => invalid("the response can't be read"),
            },
            ureq::Error::Timeout(limit) => self.timed_out(limit, received).into(),
            ureq::Error::Io(error) if error.kind() != InvalidData => truncated(),
            ureq::Error::Io(error) => TransportError::at(Stage::Exchange, error).into_attempt(self),
            #[cfg(feature = "gzip")]
            ureq::Error::Decompress(_, error) if error.kind() == UnexpectedEof => truncated(),
            #[cfg(feature = "gzip")]
            ureq::Error::Decompress(..) => invalid("not valid gzip"),
            // Their texts may quote the response.
            ureq::Error::Protocol(_) | ureq::Error::BodyStalled => invalid("not valid HTTP"),
            ureq::Error::LargeResponseHeader(..) => {
                invalid("the head of the response is too large")
            }
            _ => invalid("the response can't be read"),
        }
    }

    /// The error of a response that didn't come within a limit, or whose body didn't, of
    /// which so many bytes have come if it has begun.
    fn timed_out(&self, limit: Timeout, received: Option<u64>) -> Error {
        let (whole, read) = (self.limits.call, self.limits.call.min(self.limits.read));
        let seconds = if limit == Timeout::Global { whole } else { read }.as_secs_f64();
        let host = &self.http.base_url.origin.authority;
        let reason = match (received, limit) {
            // It may as well be the limit of a read of the head that ends the wait for one.
            (None, _) => format!("no response from {host} within {seconds} s"),
            (Some(bytes), Timeout::Global) => {
                format!("the response wasn't complete within {seconds} s, after {bytes} bytes")
            }
            (Some(bytes), _) => format!("the response stalled for {seconds} s after {bytes} bytes"),
        };
        let (operation, stage) = (self.operation.clone(), Stage::Exchange);
        Error::Transport { operation, stage, is_timeout: true, is_temporary: true, reason }
    }
}

/// Why there is no response, and how far the request got, which ureq's own errors don't
/// say. It travels in `ureq::Error::Other`.
#[derive(Clone, Debug)]
pub(crate) struct TransportError {
    pub(crate) stage: Stage,
    /// The proxy's host and port, if it is what failed.
    pub(crate) proxy: Option<String>,
    pub(crate) kind: Kind,
    /// What failed; may be empty.
    pub(crate) reason: String,
    /// The connection had been idle, and nothing of a response came.
    pub(crate) was_idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It may succeed later.
    Temporary,
    /// Time ran out before there was a connection, whatever else failed before.
    Timeout,
    /// It would fail again. The reason is rustls's message if it is TLS that failed.
    Final,
    /// The proxy's response to CONNECT has this status, which is final.
    Refused(u16),
}

impl TransportError {
    pub(crate) fn new(stage: Stage, kind: Kind, reason: impl Into<String>) -> Self {
        Self { stage, proxy: None, kind, reason: reason.into(), was_idle: false }
    }

    /// A failure of ureq's transports, or of the operating system.
    pub(crate) fn at(stage: Stage, error: impl Into<ureq::Error>) -> Self {
        let (stage, kind, reason) = match error.into() {
            ureq::Error::Timeout(_) => (stage, Kind::Timeout, String::new()),
            ureq::Error::Io(error) if error.kind() == InvalidData => {
                (Stage::Tls, Kind::Final, error.to_string())
            }
            // The connection's own failure, such as a reset.
            ureq::Error::Io(_) if stage == Stage::Tls => {
                (Stage::Connect, Kind::Temporary, "closed during the TLS handshake".to_owned())
            }
            ureq::Error::Io(error) if error.kind() == UnexpectedEof => {
                (stage, Kind::Temporary, "the connection was closed".to_owned())
            }
            ureq::Error::Io(error) => (stage, Kind::Temporary, error.to_string()),
            error => (Stage::Tls, Kind::Final, error.into_io().to_string()),
        };
        // The operating system's messages end with their number.
        Self::new(stage, kind, reason.split(" (os error ").next().unwrap_or_default())
    }

    /// The failure of a call that it becomes.
    fn into_attempt(mut self, call: &Call<'_>) -> AttemptError {
        if let (Kind::Refused(status), Some(proxy)) = (self.kind, &self.proxy) {
            return Error::Proxy { proxy: proxy.clone(), status }.into();
        }
        if self.stage == Stage::Tls && self.kind == Kind::Final {
            self.describe_tls(call);
        }
        let host = || call.http.base_url.origin.authority.clone();
        let peer = self.proxy.as_ref().map_or_else(host, |proxy| format!("the proxy {proxy}"));
        let mut reason = format!("{self} {peer}");
        let is_timeout = self.kind == Kind::Timeout;
        if is_timeout {
            let longest =
                if self.stage == Stage::Resolve { RESOLVE_TIMEOUT } else { Duration::MAX };
            let limit = longest.min(call.limits.connect).min(call.limits.call);
            reason += &format!(" within {} s", limit.as_secs_f64());
        }
        if !self.reason.is_empty() {
            reason += &format!(": {}", redact::sanitize(&self.reason));
        }
        let is_temporary = is_timeout || self.kind == Kind::Temporary;
        let (operation, stage) = (call.operation.clone(), self.stage);
        let error = Error::Transport { operation, stage, is_timeout, is_temporary, reason };
        AttemptError { was_idle: self.was_idle && is_temporary && call.is_get(), ..error.into() }
    }

    fn describe_tls(&mut self, call: &Call<'_>) {
        let proxy = self.proxy.as_deref().and_then(|proxy| proxy.rsplit_once(':'));
        let host = proxy.map_or(call.http.base_url.origin.host.as_str(), |(host, _)| host);
        let roots = call.http.agent.config().tls_config().root_certs();
        let own_roots = !matches!(roots, RootCerts::WebPki);
        (self.stage, self.reason) =
            certificates::describe(&self.reason, host, own_roots, &call.redactor());
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::Resolve => "can't look up",
            Stage::Connect => "can't connect to",
            Stage::Tls => "no TLS connection to",
            Stage::Certificate => "untrusted certificate of",
            Stage::Proxy => "no tunnel through",
            Stage::Exchange => "no response from",
        })
    }
}

impl std::error::Error for TransportError {}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;
    use crate::error::Operation;
    use crate::http::url::BaseUrl;
    use crate::http::{Http, Limits};
    use crate::secret::AccessToken;

    fn with_call<T>(test: impl FnOnce(&mut Call<'_>) -> T) -> T {
        let second = Duration::from_secs(1);
        let proxy = ureq::Proxy::new("http://user:proxy-password@p.example").unwrap();
        let (call, connect, read) = (second * 12, second * 15, second * 5);
        let limits = Limits { call, connect, read, body: 0, retries: 0 };
        let http = Http {
            agent: ureq::Agent::config_builder().proxy(Some(proxy)).build().into(),
            base_url: BaseUrl::parse("https://api.example").unwrap(),
            on_event: Arc::new(|_| {}),
        };
        let operation = Operation::Read { resource: "datasets/".to_owned() };
        let access_token = AccessToken::new("token").unwrap();
        test(&mut Call {
            http: &http,
            operation,
            target: "/v1/datasets/".to_owned(),
            access_token: Some(&access_token),
            body: String::new(),
            secrets: Vec::new(),
            limits,
        })
    }

    const ALWAYS: [bool; 2] = [true, true];
    const IF_IDEMPOTENT: [bool; 2] = [true, false];
    const NEVER: [bool; 2] = [false, false];

    /// Whether a GET, and whether a POST, may be sent again.
    fn may_repeat(failure: &AttemptError) -> [bool; 2] {
        [true, false].map(|is_idempotent| failure.may_repeat(is_idempotent))
    }

    /// What a failure of the transport becomes on its way through ureq.
    fn travelled(error: TransportError) -> AttemptError {
        let error = ureq::Error::Other(error.into());
        with_call(|call| call.failure(error, None))
    }

    fn io_error(kind: io::ErrorKind, text: &'static str) -> ureq::Error {
        io::Error::new(kind, text).into()
    }

    #[test]
    fn each_failure_says_what_failed_and_may_be_repeated_only_if_it_may_pass() {
        let new = TransportError::new;
        let at_proxy = |error| TransportError { proxy: Some("p.example:80".to_owned()), ..error };
        let untrusted = "invalid peer certificate: UnknownIssuer";
        for (error, stage, repeated, text) in [
            (
                new(Stage::Resolve, Kind::Timeout, ""),
                Stage::Resolve,
                ALWAYS,
                "can't look up api.example within 10 s",
            ),
            (
                new(Stage::Connect, Kind::Timeout, "Connection refused"),
                Stage::Connect,
                ALWAYS,
                "can't connect to api.example within 12 s: Connection refused",
            ),
            (
                at_proxy(new(Stage::Connect, Kind::Temporary, "a\u{7}b")),
                Stage::Connect,
                ALWAYS,
                "can't connect to the proxy p.example:80: a b",
            ),
            (
                at_proxy(new(Stage::Proxy, Kind::Final, "it doesn't speak HTTP")),
                Stage::Proxy,
                NEVER,
                "no tunnel through the proxy p.example:80: it doesn't speak HTTP",
            ),
            (
                TransportError::at(Stage::Tls, io_error(io::ErrorKind::InvalidData, untrusted)),
                Stage::Certificate,
                NEVER,
                "untrusted certificate of api.example: \
                 not trusted by Mozilla's root certificates",
            ),
            (
                TransportError::at(
                    Stage::Exchange,
                    io_error(io::ErrorKind::ConnectionReset, "reset (os error 104)"),
                ),
                Stage::Exchange,
                IF_IDEMPOTENT,
                "no response from api.example: reset",
            ),
        ] {
            assert_transport(&travelled(error), stage, repeated, text);
        }
        for (limit, received, text) in [
            (Timeout::Global, None, "no response from api.example within 12 s"),
            (Timeout::Global, Some(9), "the response wasn't complete within 12 s, after 9 bytes"),
            (Timeout::PerRead, None, "no response from api.example within 5 s"),
            (Timeout::RecvResponse, None, "no response from api.example within 5 s"),
            (Timeout::PerRead, Some(9), "the response stalled for 5 s after 9 bytes"),
        ] {
            let error = ureq::Error::Timeout(limit);
            let failure = with_call(|call| call.failure(error, received));
            assert_transport(&failure, Stage::Exchange, IF_IDEMPOTENT, text);
        }
    }

    fn assert_transport(failure: &AttemptError, stage: Stage, repeated: [bool; 2], text: &str) {
        let Error::Transport { stage: got, is_timeout, ref reason, .. } = failure.error else {
            panic!("{failure:?}");
        };
        assert_eq!((got, may_repeat(failure), reason.as_str()), (stage, repeated, text));
        assert_eq!(failure.error.is_temporary(), repeated != NEVER, "{text}");
        let has_limit = [" 5 s", " 10 s", " 12 s"].iter().any(|limit| text.contains(limit));
        assert_eq!(is_timeout, has_limit, "{text}");
    }

    #[test]
    fn a_refusal_of_a_proxy_is_an_error_of_its_own_and_never_repeated() {
        let error = TransportError::new(Stage::Proxy, Kind::Refused(407), "");
        let error = TransportError { proxy: Some("p.example:80".to_owned()), ..error };
        let failure = travelled(error);
        assert_eq!(may_repeat(&failure), [false, false]);
        let Error::Proxy { proxy, status: 407 } = failure.error else {
            panic!("{failure:?}");
        };
        assert_eq!(proxy, "p.example:80");
    }

    #[test]
    fn what_tls_refuses_is_not_cut_short() {
        let error = io_error(io::ErrorKind::InvalidData, "received corrupt message");
        let failure = with_call(|call| call.failure(error, Some(5)));
        assert!(matches!(failure.error, Error::Transport { stage: Stage::Tls, .. }), "{failure:?}");
        assert_eq!(may_repeat(&failure), [false, false]);
    }

    #[test]
    fn the_password_of_the_proxy_is_a_secret_of_the_call() {
        with_call(|call| {
            assert_eq!(call.redactor().line("no proxy-password"), None);
            assert_eq!(call.redactor().line("no password").as_deref(), Some("no password"));
        });
    }

    #[test]
    fn a_post_is_repeated_after_429_and_503_alone() {
        let operation = Operation::Refresh { host: "api.example".to_owned() };
        for (status, repeated) in [
            (429, [true, true]),
            (503, [true, true]),
            (408, [true, false]),
            (500, [true, false]),
            (404, [false, false]),
            (501, [false, false]),
        ] {
            let error = Error::Status { operation: operation.clone(), status, text: None };
            assert_eq!(may_repeat(&error.into()), repeated, "{status}");
        }
    }

    #[test]
    fn an_idle_connection_that_was_closed_is_made_up_for_by_a_get_and_no_alert_is() {
        let reset = || io_error(io::ErrorKind::ConnectionReset, "reset");
        let alert = io_error(io::ErrorKind::InvalidData, "received fatal alert: InternalError");
        for (error, is_get, was_idle) in
            [(reset(), true, true), (reset(), false, false), (alert, true, false)]
        {
            let error = TransportError::at(Stage::Exchange, error);
            let error = TransportError { was_idle: true, ..error };
            let failure = with_call(|call| {
                call.access_token = call.access_token.filter(|_| is_get);
                call.failure(ureq::Error::Other(error.into()), None)
            });
            assert_eq!(failure.was_idle, was_idle);
        }
    }

    #[test]
    fn what_was_cut_short_is_repeated_unless_some_of_it_was_delivered() {
        for (delivered, repeated, text) in [
            (0, [true, false], "cut short after 5 bytes"),
            (3, [false, false], "cut short after 5 bytes; the output is incomplete"),
        ] {
            let cut = io_error(io::ErrorKind::UnexpectedEof, "");
            let failure = with_call(|call| call.failure(cut, Some(5)));
            let failure = failure.after_delivery(delivered);
            assert!(failure.error.is_temporary());
            assert_eq!(may_repeat(&failure), repeated);
            assert_eq!(failure.error.to_string(), format!("datasets/: {text}"));
        }
    }
}
