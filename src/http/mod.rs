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

use ureq::http::{self, HeaderMap, Method, Request, header, request::Builder};
use ureq::{AsSendBody, Proxy};

use self::url::{BaseUrl, Redirect};
use self::{attempt::AttemptError, body::Bytes, redact::Redactor};
use crate::error::{Error, Operation};
use crate::event::{Event, Events};
use crate::secret::AccessToken;

/// A response whose head has come.
pub(crate) type Response = http::Response<ureq::Body>;

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
    pub(crate) limits: Limits,
    pub(crate) events: Events,
}

/// One call of the API: a request, what it is about, and what nobody else may see of it.
pub(crate) struct Call<'a> {
    pub(crate) http: &'a Http,
    pub(crate) operation: Operation,
    /// Path and query (RFC 9112, section 3.2.1).
    pub(crate) target: String,
    /// The body of a POST.
    pub(crate) body: String,
    /// The secrets in the request. (The password of the proxy is one more of the call.)
    pub(crate) secrets: Vec<&'a str>,
}

impl Call<'_> {
    /// The limit of the whole call, each retry apart.
    pub(crate) fn timeout(&self) -> Duration {
        let Limits { call, read, .. } = self.http.limits;
        // Of a sign-in and a refresh, the body is short and has to come whole.
        let is_short = !matches!(self.operation, Operation::Read { .. });
        if is_short { call.min(read) } else { call }
    }

    pub(crate) fn redactor(&self) -> Redactor<'_> {
        let mut secrets = self.secrets.clone();
        secrets.extend(self.http.agent.config().proxy().and_then(Proxy::password));
        let resource =
            if let Operation::Read { resource } = &self.operation { resource } else { "" };
        Redactor { secrets, sent_body: self.body.as_bytes(), resource }
    }

    /// Sends a GET with a bearer token (RFC 6750, section 2.1) and hands the response, if
    /// its status is 200, to `take`.
    pub(crate) fn get<T>(
        &self,
        access_token: &AccessToken,
        mut take: impl FnMut(Response, &Self) -> Result<T, AttemptError>,
    ) -> Result<T, Error> {
        let bearer = format!("Bearer {}", access_token.secret());
        self.http.retry(&Method::GET, self.http.limits.retries, || {
            let deadline = Instant::now() + self.timeout();
            let mut attempt = || take(self.follow_redirects(&bearer, deadline)?, self);
            // The server may have closed any of the idle connections, which shows only
            // when a request has been sent over it.
            for _ in 0..MAX_IDLE_CONNECTIONS {
                match attempt() {
                    Err(failure) if failure.was_idle => {}
                    other => return other,
                }
            }
            attempt()
        })
    }

    fn follow_redirects(&self, bearer: &str, deadline: Instant) -> Result<Response, AttemptError> {
        let mut target = self.target.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request = Request::get(format!("{}{target}", self.http.base_url.origin))
                // As the script in HERE's guide has it.
                .header(header::CONTENT_TYPE, "text/plain")
                .header(header::AUTHORIZATION, bearer);
            let left = deadline.saturating_duration_since(Instant::now());
            let response = self.send(request, (), left)?;
            match self.redirect(&response) {
                Some(Redirect::SameOrigin(location)) => target = location,
                _ => return self.check_status(response),
            }
            // Read to its end, the connection serves the next request.
            body::error_excerpt(response, self);
        }
        Err(self.invalid_response(format!("redirected more than {MAX_REDIRECTS} times")).into())
    }

    /// Sends a POST of JSON, which follows no redirect, and returns the body of the
    /// response if its status is 200.
    pub(crate) fn post_json(&self, max_retries: u32) -> Result<Bytes, Error> {
        self.http.retry(&Method::POST, max_retries, || {
            let request = Request::post(format!("{}{}", self.http.base_url.origin, self.target))
                .header(header::CONTENT_TYPE, "application/json");
            let response = self.send(request, self.body.as_str(), self.timeout())?;
            body::read(self.check_status(response)?, MAX_POST_RESPONSE, self)
        })
    }

    fn send(
        &self,
        request: Builder,
        body: impl AsSendBody,
        timeout: Duration,
    ) -> Result<Response, AttemptError> {
        let failure = |error| AttemptError::exchange(error, None, self);
        let request = request.body(body).map_err(|error| failure(error.into()))?;
        let (agent, events) = (&self.http.agent, &self.http.events);
        let request = agent.configure_request(request).timeout_global(Some(timeout)).build();
        let (method, path) = (request.method().as_str(), request.uri().path());
        // Where a redirect leads is the server's own text.
        let is_ours = self.target.starts_with(path);
        let redacted = if is_ours { None } else { self.redactor().path(path) };
        let path = redacted.as_deref().unwrap_or(if is_ours { path } else { "…" });
        events.emit(&Event::Request { method, host: &self.http.base_url.origin.authority, path });
        let start = Instant::now();
        let response = agent.run(request).map_err(failure)?;
        let status = response.status().as_u16();
        events.emit(&Event::Response { status, elapsed: start.elapsed() });
        Ok(response)
    }

    /// Where a response redirects to, if it does (RFC 9110, section 15.4; 300, 304 and 305
    /// name no other place for the same request).
    fn redirect(&self, response: &Response) -> Option<Redirect> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).unwrap_or_default();
        Some(url::redirect(&self.http.base_url.origin, location))
    }

    /// Returns the response if its status is 200.
    fn check_status(&self, response: Response) -> Result<Response, AttemptError> {
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let operation = self.operation.clone();
        if let Some(redirect) = self.redirect(&response) {
            let to = match redirect {
                Redirect::SameOrigin(target) => Some(target),
                Redirect::CrossOrigin(origin) => origin.map(|origin| origin.to_string()),
            };
            let to = to.and_then(|to| self.redactor().path(to.split('?').next()?));
            return Err(Error::Redirect { operation, status, to }.into());
        }
        let retry_after = retry_after(response.headers());
        let text = body::error_excerpt(response, self).filter(|_| (400..=599).contains(&status));
        let error = match status {
            401 | 403 => Error::Unauthorized { operation, status, text },
            _ => Error::Status { operation, status, text },
        };
        Err(AttemptError { retry_after, ..error.into() })
    }

    pub(crate) fn invalid_response(&self, reason: impl Into<String>) -> Error {
        let (operation, reason) = (self.operation.clone(), reason.into());
        Error::InvalidResponse { operation, reason, is_truncated: false }
    }
}

/// How long a response asks to wait (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date::retry_after(value.trim(), now.as_secs())
}

/// Nothing that is locked here is left half-changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
