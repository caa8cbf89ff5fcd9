//! HTTP/1.1 over ureq: requests to one origin, the status of their responses, and
//! redirects within the origin.

pub(crate) mod attempt;
pub(crate) mod body;
pub(crate) mod certificates;
mod connect;
mod date;
mod json;
pub(crate) mod proxy;
mod redact;
pub(crate) mod resolver;
mod retry;
pub(crate) mod transport;
mod tunnel;
pub(crate) mod url;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use ureq::Proxy;
use ureq::http::{self, HeaderName, header};

use self::url::{BaseUrl, Redirect};
use self::{attempt::AttemptError, redact::Redactor};
use crate::error::{Error, Operation};
use crate::event::{Event, OnEvent};
use crate::secret::AccessToken;

/// How many redirects a GET follows.
const MAX_REDIRECTS: usize = 5;

/// The largest response to a POST that is read, in bytes.
const MAX_POST_RESPONSE: u64 = 1024 * 1024;

/// How many idle connections are kept, in all and to the one host.
pub(crate) const MAX_IDLE_CONNECTIONS: usize = 64;

/// The limits of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of a whole call, each retry apart.
    pub(crate) call: Duration,
    pub(crate) connect: Duration,
    /// Of the wait for a response, a stall of its body, and a whole POST.
    pub(crate) read: Duration,
    /// Of a body that is read into memory, in bytes.
    pub(crate) body: u64,
    /// How often the request is sent again.
    pub(crate) retries: u32,
}

/// The most that looking up a name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP client of the origin of one base URL.
pub(crate) struct Http {
    pub(crate) agent: ureq::Agent,
    pub(crate) base_url: BaseUrl,
    pub(crate) on_event: OnEvent,
}

/// One call of the API: a request, what it is about, and what nobody else may see of it.
pub(crate) struct Call<'a> {
    pub(crate) http: &'a Http,
    pub(crate) operation: Operation,
    /// Path and query (RFC 9112, section 3.2.1).
    pub(crate) target: String,
    /// What a GET is authorized with. Without one, the request is a POST of JSON.
    pub(crate) access_token: Option<&'a AccessToken>,
    /// The body of a POST.
    pub(crate) body: String,
    /// The secrets in the request. (The password of the proxy is one more of the call.)
    pub(crate) secrets: Vec<&'a str>,
    pub(crate) limits: Limits,
}

/// A response whose head has come, and the call that it answers.
pub(crate) struct Response<'a> {
    call: &'a Call<'a>,
    inner: http::Response<ureq::Body>,
    /// The body, once it has been read.
    pub(crate) bytes: Vec<u8>,
}

impl Call<'_> {
    /// Makes it a POST of JSON, whose response is short and has to come whole.
    pub(crate) fn with_body(self, json: &Value) -> Self {
        let Limits { call, read, .. } = self.limits;
        let limits = Limits { call: call.min(read), body: MAX_POST_RESPONSE, ..self.limits };
        Self { body: json.to_string(), limits, ..self }
    }

    fn is_get(&self) -> bool {
        self.access_token.is_some()
    }

    pub(crate) fn redactor(&self) -> Redactor<'_> {
        let mut secrets = self.secrets.clone();
        secrets.extend(self.http.agent.config().proxy().and_then(Proxy::password));
        let resource =
            if let Operation::Read { resource } = &self.operation { resource } else { "" };
        Redactor { secrets, sent_body: self.body.as_bytes(), resource }
    }

    /// Sends the request and returns the response, after the redirects of a GET, if its
    /// status is 200.
    fn follow_redirects(&self, deadline: Instant) -> Result<Response<'_>, AttemptError> {
        let mut target = self.target.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(&target, deadline)?;
            match response.redirect() {
                Some(Redirect::SameOrigin(location)) if self.is_get() => target = location,
                _ => return response.check_status(),
            }
            // Read to its end, the connection serves the next request.
            response.error_excerpt();
        }
        Err(self.invalid_response(format!("redirected more than {MAX_REDIRECTS} times")).into())
    }

    fn request(&self, target: &str, deadline: Instant) -> Result<Response<'_>, AttemptError> {
        let Http { agent, base_url: BaseUrl { origin, .. }, on_event } = self.http;
        let left = Some(deadline.saturating_duration_since(Instant::now()));
        let path = target.split('?').next().unwrap_or(target);
        // Where a redirect leads is the server's own text.
        let is_ours = self.target.starts_with(path);
        let redacted = if is_ours { None } else { self.redactor().path(path) };
        let path = redacted.as_deref().unwrap_or(if is_ours { path } else { "…" });
        let method = if self.is_get() { "GET" } else { "POST" };
        on_event(&Event::Request { method, host: &origin.authority, path });
        let (url, start) = (format!("{origin}{target}"), Instant::now());
        let response = if let Some(access_token) = self.access_token {
            // As the script in HERE's guide has it.
            let request = agent.get(url).header(header::CONTENT_TYPE, "text/plain");
            let bearer = format!("Bearer {}", access_token.secret());
            let request = request.header(header::AUTHORIZATION, bearer);
            request.config().timeout_global(left).build().call()
        } else {
            let request = agent.post(url).header(header::CONTENT_TYPE, "application/json");
            request.config().timeout_global(left).build().send(&self.body)
        };
        let inner = response.map_err(|error| self.failure(error, None))?;
        let status = inner.status().as_u16();
        on_event(&Event::Response { status, elapsed: start.elapsed() });
        Ok(Response { call: self, inner, bytes: Vec::new() })
    }

    pub(crate) fn invalid_response(&self, reason: impl Into<String>) -> Error {
        let (operation, reason) = (self.operation.clone(), reason.into());
        Error::InvalidResponse { operation, reason, is_truncated: false }
    }
}

impl Response<'_> {
    /// The value of a header, if it is visible ASCII.
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Where the response redirects to, if it does (RFC 9110, section 15.4; 300, 304 and
    /// 305 name no other place for the same request).
    fn redirect(&self) -> Option<Redirect> {
        let location = self.header(header::LOCATION).unwrap_or_default();
        let is_redirect = matches!(self.inner.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        is_redirect.then(|| url::redirect(&self.call.http.base_url.origin, location))
    }

    /// Returns the response if its status is 200.
    fn check_status(self) -> Result<Self, AttemptError> {
        let (call, status) = (self.call, self.inner.status().as_u16());
        if status == 200 {
            return Ok(self);
        }
        let operation = call.operation.clone();
        if let Some(redirect) = self.redirect() {
            let to = match redirect {
                Redirect::SameOrigin(target) => Some(target),
                Redirect::CrossOrigin(origin) => origin.map(|origin| origin.to_string()),
            };
            let to = to.and_then(|to| call.redactor().path(to.split('?').next()?));
            return Err(Error::Redirect { operation, status, to }.into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let retry_after = self.header(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| date::retry_after(value, now));
        let text = self.error_excerpt().filter(|_| (400..=599).contains(&status));
        let error = match status {
            401 | 403 => Error::Unauthorized { operation, status, text },
            _ => Error::Status { operation, status, text },
        };
        Err(AttemptError { retry_after, ..error.into() })
    }
}

/// Nothing that is locked here is left half-changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
