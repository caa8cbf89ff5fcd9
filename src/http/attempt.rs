//! One attempt at a request that failed: how far it got, the error that it becomes, and
//! which requests may be sent again after it (RFC 9110, section 9.2.2).

use std::fmt;
use std::io;
use std::time::Duration;

use ureq::Timeout;

use super::certificates;
use super::{Call, redact};
use crate::error::{Error, Stage};

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct AttemptError {
    pub(crate) error: Error,
    pub(crate) retryable: Retryable,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// Which requests may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retryable {
    /// None: it would fail again, or some of the response has been delivered.
    Never,
    /// Idempotent ones: the request may have reached the server.
    IfIdempotent,
    /// Idempotent ones, at once and whatever the settings: an idle connection had been
    /// closed.
    NowIfIdempotent,
    /// All: the request didn't reach the server, or the server wants it again.
    Always,
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        Self::new(error, Retryable::Never)
    }
}

impl AttemptError {
    /// A failure after which these requests may be sent again, if it may pass at all.
    fn new(error: Error, retryable: Retryable) -> Self {
        let retryable = if error.is_temporary() { retryable } else { Retryable::Never };
        Self { error, retryable, retry_after: None }
    }

    /// A response with another status than 200.
    pub(crate) fn status(error: Error, status: u16, retry_after: Option<Duration>) -> Self {
        let is_unprocessed = matches!(status, 429 | 503);
        let retryable = if is_unprocessed { Retryable::Always } else { Retryable::IfIdempotent };
        Self { retry_after, ..Self::new(error, retryable) }
    }

    /// A response that ended too early.
    pub(crate) fn truncated(reason: String, call: &Call<'_>) -> Self {
        let operation = call.operation.clone();
        let error = Error::InvalidResponse { operation, reason, is_truncated: true };
        Self::new(error, Retryable::IfIdempotent)
    }

    /// The failure of a request, or of reading its response, of whose body so many bytes
    /// have come. (Of an error of a reader this unwraps ureq's own.)
    pub(crate) fn exchange(error: impl Into<ureq::Error>, received: u64, call: &Call<'_>) -> Self {
        let truncated = || Self::truncated(format!("cut short after {received} bytes"), call);
        let reason = match error.into() {
            ureq::Error::Other(error) => match error.downcast::<TransportError>() {
                Ok(error) => return error.into_attempt(call),
                Err(_) => "the response can't be read",
            },
            ureq::Error::Timeout(Timeout::PerRead | Timeout::RecvBody) => {
                let kind = Kind::Stalled(received);
                return TransportError::new(Stage::Exchange, kind, "").into_attempt(call);
            }
            ureq::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                return truncated();
            }
            error @ (ureq::Error::Timeout(_) | ureq::Error::Io(_)) => {
                return TransportError::from_ureq(Stage::Exchange, error).into_attempt(call);
            }
            #[cfg(feature = "gzip")]
            ureq::Error::Decompress(_, error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return truncated();
            }
            #[cfg(feature = "gzip")]
            ureq::Error::Decompress(..) => "not valid gzip",
            // Their texts may quote the response.
            ureq::Error::Protocol(_) | ureq::Error::BodyStalled => "not valid HTTP",
            ureq::Error::LargeResponseHeader(..) => "the head of the response is too large",
            _ => "the response can't be read",
        };
        call.invalid_response(reason).into()
    }

    /// The same failure, after so many bytes of the response have been delivered.
    pub(crate) fn after_delivery(mut self, delivered: u64) -> Self {
        if delivered > 0 {
            self.retryable = Retryable::Never;
            if let Error::InvalidResponse { reason, .. } | Error::Transport { reason, .. } =
                &mut self.error
            {
                reason.push_str("; the output is incomplete");
            }
        }
        self
    }
}

/// Why there is no response, and how far the request got, which ureq's own errors don't
/// say. It travels in `ureq::Error::Other`.
#[derive(Debug)]
pub(crate) struct TransportError {
    pub(crate) stage: Stage,
    /// The proxy's host and port, if it is what failed.
    pub(crate) proxy: Option<String>,
    pub(crate) kind: Kind,
    /// What failed; may be empty.
    pub(crate) reason: String,
    /// Which requests may be sent again, if the kind is a temporary one.
    pub(crate) retryable: Retryable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It may succeed later.
    Temporary,
    /// Time ran out, whatever else failed before.
    Timeout,
    /// Time ran out after so many bytes of the response's body.
    Stalled(u64),
    /// It would fail again.
    Final,
    /// TLS failed; the reason is rustls's message.
    Tls,
    /// The proxy's response to CONNECT has this status, which is final.
    Refused(u16),
}

impl TransportError {
    pub(crate) fn new(stage: Stage, kind: Kind, reason: impl Into<String>) -> Self {
        let retryable = match stage {
            Stage::Exchange => Retryable::IfIdempotent,
            // No byte of the request was sent.
            _ => Retryable::Always,
        };
        Self { stage, proxy: None, kind, reason: reason.into(), retryable }
    }

    /// A failure of ureq's transports.
    pub(crate) fn from_ureq(stage: Stage, error: ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::new(stage, Kind::Timeout, ""),
            ureq::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                Self::new(stage, Kind::Temporary, system_message(&error))
            }
            error => Self::new(stage, Kind::Tls, error.into_io().to_string()),
        }
    }

    fn into_attempt(self, call: &Call<'_>) -> AttemptError {
        let retryable = self.retryable;
        AttemptError::new(self.into_error(call), retryable)
    }

    fn into_error(mut self, call: &Call<'_>) -> Error {
        match (self.kind, &self.proxy) {
            (Kind::Refused(status), Some(proxy)) => {
                return Error::Proxy { proxy: proxy.clone(), status };
            }
            (Kind::Tls, _) => self.describe_tls(call),
            _ => {}
        }
        let limit = self.limit(call).as_secs_f64();
        let mut reason = match self.kind {
            Kind::Timeout => format!("{} within {limit} s", self.what_failed(call)),
            Kind::Stalled(bytes) => {
                format!("the response stalled for {limit} s after {bytes} bytes")
            }
            _ => self.what_failed(call),
        };
        if !self.reason.is_empty() {
            reason += &format!(": {}", redact::sanitize(&self.reason));
        }
        let is_timeout = matches!(self.kind, Kind::Timeout | Kind::Stalled(_));
        Error::Transport {
            operation: call.operation.clone(),
            stage: self.stage,
            is_timeout,
            is_temporary: is_timeout || self.kind == Kind::Temporary,
            reason,
        }
    }

    fn describe_tls(&mut self, call: &Call<'_>) {
        let host = match &self.proxy {
            Some(proxy) => proxy.rsplit_once(':').map_or(proxy.as_str(), |(host, _)| host),
            None => &call.http.origin.host,
        };
        let (stage, reason) = certificates::describe(&self.reason, host, call.http.has_own_roots);
        self.stage = stage;
        // It may hold names out of the certificate.
        self.reason = call.redactor().line(&reason).unwrap_or_else(|| "not valid".into());
    }

    fn what_failed(&self, call: &Call<'_>) -> String {
        let what = match self.stage {
            Stage::Resolve => "can't look up",
            Stage::Connect => "can't connect to",
            Stage::Tls => "no TLS connection to",
            Stage::Certificate => "untrusted certificate of",
            Stage::Proxy => "no tunnel through",
            Stage::Exchange => "no response from",
        };
        match &self.proxy {
            Some(proxy) => format!("{what} the proxy {proxy}"),
            None => format!("{what} {}", call.http.host),
        }
    }

    /// The time limit of the stage.
    fn limit(&self, call: &Call<'_>) -> Duration {
        let limits = &call.http.limits;
        let limit = match self.stage {
            Stage::Resolve => limits.resolve(),
            Stage::Exchange => limits.read,
            _ => limits.connect,
        };
        call.timeout.map_or(limit, |timeout| timeout.min(limit))
    }
}

impl From<TransportError> for ureq::Error {
    fn from(error: TransportError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection failed")
    }
}

impl std::error::Error for TransportError {}

/// The operating system's message, without its number.
pub(crate) fn system_message(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the connection was closed".to_owned();
    }
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Operation;
    use crate::event::Events;
    use crate::http::url::Origin;
    use crate::http::{Http, Limits};

    fn with_call<T>(test: impl FnOnce(&Call<'_>) -> T) -> T {
        let second = Duration::from_secs(1);
        let http = Http {
            agent: ureq::Agent::new_with_defaults(),
            origin: Origin::split("https://api.example").unwrap().0,
            host: "api.example".to_owned(),
            limits: Limits { call: Some(second * 7), connect: second * 15, read: second * 5 },
            has_own_roots: false,
            proxy_password: None,
            max_retries: 0,
            events: Events::default(),
        };
        let operation = Operation::Read { resource: "datasets/".to_owned() };
        test(&Call::new(&http, operation, "/v1/datasets/".to_owned(), Vec::new()))
    }

    fn io_error(kind: io::ErrorKind, text: &'static str) -> ureq::Error {
        io::Error::new(kind, text).into()
    }

    #[test]
    fn each_failure_says_what_failed_and_may_be_repeated_only_if_it_may_pass() {
        use self::Retryable::{Always, IfIdempotent, Never};
        let new = TransportError::new;
        let at_proxy = |error| TransportError { proxy: Some("p.example:80".to_owned()), ..error };
        let untrusted = "invalid peer certificate: UnknownIssuer";
        for (error, stage, retryable, text) in [
            (
                new(Stage::Resolve, Kind::Timeout, ""),
                Stage::Resolve,
                Always,
                "can't look up api.example within 7 s",
            ),
            (
                new(Stage::Connect, Kind::Timeout, "Connection refused"),
                Stage::Connect,
                Always,
                "can't connect to api.example within 7 s: Connection refused",
            ),
            (
                at_proxy(new(Stage::Connect, Kind::Temporary, "a\u{7}b")),
                Stage::Connect,
                Always,
                "can't connect to the proxy p.example:80: a b",
            ),
            (
                at_proxy(new(Stage::Proxy, Kind::Final, "it doesn't speak HTTP")),
                Stage::Proxy,
                Never,
                "no tunnel through the proxy p.example:80: it doesn't speak HTTP",
            ),
            (
                TransportError::from_ureq(
                    Stage::Tls,
                    io_error(io::ErrorKind::InvalidData, untrusted),
                ),
                Stage::Certificate,
                Never,
                "untrusted certificate of api.example: \
                 not trusted by Mozilla's root certificates",
            ),
            (
                TransportError::from_ureq(
                    Stage::Exchange,
                    io_error(io::ErrorKind::ConnectionReset, "reset (os error 104)"),
                ),
                Stage::Exchange,
                IfIdempotent,
                "no response from api.example: reset",
            ),
            (
                new(Stage::Exchange, Kind::Stalled(9), ""),
                Stage::Exchange,
                IfIdempotent,
                "the response stalled for 5 s after 9 bytes",
            ),
        ] {
            let failure = with_call(|call| AttemptError::exchange(error, 0, call));
            let Error::Transport { stage: got, is_timeout, ref reason, .. } = failure.error else {
                panic!("{failure:?}");
            };
            assert_eq!((got, failure.retryable, reason.as_str()), (stage, retryable, text));
            assert_eq!(failure.error.is_temporary(), retryable != Never, "{text}");
            assert_eq!(is_timeout, text.contains("7 s") || text.contains("5 s"), "{text}");
        }
    }

    #[test]
    fn a_refusal_of_a_proxy_is_an_error_of_its_own_and_never_repeated() {
        let error = TransportError::new(Stage::Proxy, Kind::Refused(407), "");
        let error = TransportError { proxy: Some("p.example:80".to_owned()), ..error };
        let failure = with_call(|call| AttemptError::exchange(error, 0, call));
        assert_eq!(failure.retryable, Retryable::Never);
        let Error::Proxy { proxy, status: 407 } = failure.error else {
            panic!("{failure:?}");
        };
        assert_eq!(proxy, "p.example:80");
    }

    #[test]
    fn a_post_is_repeated_after_429_and_503_alone() {
        let operation = Operation::Refresh { host: "api.example".to_owned() };
        for (status, retryable) in [
            (429, Retryable::Always),
            (503, Retryable::Always),
            (408, Retryable::IfIdempotent),
            (500, Retryable::IfIdempotent),
            (404, Retryable::Never),
            (501, Retryable::Never),
        ] {
            let error = Error::Status { operation: operation.clone(), status, text: None };
            assert_eq!(AttemptError::status(error, status, None).retryable, retryable, "{status}");
        }
    }

    #[test]
    fn what_was_cut_short_is_repeated_unless_some_of_it_was_delivered() {
        for (delivered, retryable, text) in [
            (0, Retryable::IfIdempotent, "cut short after 5 bytes"),
            (3, Retryable::Never, "cut short after 5 bytes; the output is incomplete"),
        ] {
            let cut = io_error(io::ErrorKind::UnexpectedEof, "");
            let failure = with_call(|call| AttemptError::exchange(cut, 5, call));
            let failure = failure.after_delivery(delivered);
            assert!(failure.error.is_temporary());
            assert_eq!(failure.retryable, retryable);
            assert_eq!(failure.error.to_string(), format!("datasets/: {text}"));
        }
    }
}
