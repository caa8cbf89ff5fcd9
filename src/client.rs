//! The client: one function a call of the API, over one path to the server.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Body;
use ureq::http::{Response, header};

use crate::address::{self, BaseUrl, Target, encode, is_unreserved};
use crate::answer::{self, Check, Copied};
use crate::builder::{ClientBuilder, Limits};
use crate::echo;
use crate::error::{Error, Request};
use crate::failure::{Again, Failure};
use crate::retry::{Method, Retries};
use crate::secret::{AccessToken, Credentials, MAX_SECRET, Password};
use crate::session::{Session, check_access_token};
use crate::sign_in::{RefreshRequest, SignInAnswer, SignInRequest, refused_refresh};
use crate::signed_in::SignedIn;

/// How many redirects a GET follows.
const MAX_REDIRECTS: usize = 5;

/// The largest answer to a sign-in that is read, in bytes.
const MAX_SIGN_IN: u64 = 1024 * 1024;

/// A client of the API, for the credentials of one application.
///
/// It holds no token, so that one client serves many users; it is cheap to clone,
/// and its clones, in whatever threads, share connections. A connection is kept for
/// 15 seconds after its last use.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    agent: ureq::Agent,
    base_url: BaseUrl,
    /// Both as text, which messages and sessions take.
    base_url_text: String,
    host: String,
    credentials: Credentials,
    /// `app_id=…&app_code=…`, encoded: a part of every URL.
    query: String,
    limits: Limits,
    retries: Retries,
}

impl Client {
    /// Makes a client for HERE's own address with the default settings.
    ///
    /// # Errors
    /// [`Error::Setting`] if the app id or the app code is empty or too long.
    pub fn new(credentials: Credentials) -> Result<Self, Error> {
        Self::builder(credentials).build()
    }

    /// Begins a client with other settings.
    pub fn builder(credentials: Credentials) -> ClientBuilder {
        ClientBuilder::new(credentials)
    }

    pub(crate) fn assemble(
        agent: ureq::Agent,
        base_url: BaseUrl,
        credentials: Credentials,
        limits: Limits,
        retries: Retries,
    ) -> Self {
        let pair = [
            encode(&credentials.app_id, is_unreserved),
            encode(&credentials.app_code, is_unreserved),
        ];
        Self {
            shared: Arc::new(Shared {
                agent,
                base_url_text: base_url.to_string(),
                host: base_url.origin.authority(),
                base_url,
                credentials,
                query: format!("app_id={}&app_code={}", pair[0], pair[1]),
                limits,
                retries,
            }),
        }
    }

    /// The address of the API, in its normal form.
    pub fn base_url(&self) -> &str {
        &self.shared.base_url_text
    }

    /// The app id of the application.
    pub fn app_id(&self) -> &str {
        &self.shared.credentials.app_id
    }

    /// Checks a resource as [`get`](Self::get) and [`copy`](Self::copy) do, before
    /// there is a token to read it with.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check_resource(resource: &str) -> Result<(), Error> {
        checked(resource).map(drop)
    }

    /// Signs in with the e-mail address and the password of a HERE account.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty or overlong argument, [`Error::Refused`] for
    /// wrong credentials, and whatever else can go wrong with a call but
    /// [`Error::Output`].
    pub fn sign_in(&self, email: &str, password: &Password) -> Result<Session, Error> {
        check_argument("user name", email)?;
        check_argument("password", password.as_str())?;
        let request = SignInRequest {
            email,
            password: password.as_str(),
        };
        let tokens = self.tokens("sign_in/", &request, &[password.as_str()])?;
        Ok(tokens.into_session([self.base_url(), self.app_id(), email]))
    }

    /// Changes the tokens of a session for new ones. The old ones may be of no more use
    /// then, so replace the whole session; a refresh token that the answer doesn't
    /// replace is kept.
    ///
    /// # Errors
    /// [`Error::SignInAgain`] if the server refuses (any 4xx but 408 and 429), or if
    /// the session has no refresh token; [`Error::Setting`] if the session is another
    /// address's or application's; and whatever else can go wrong with a call but
    /// [`Error::Output`].
    pub fn refresh(&self, session: &Session) -> Result<Session, Error> {
        self.check_session(session)?;
        let Some(refresh_token) = &session.refresh_token else {
            return Err(Error::SignInAgain {
                status: None,
                text: None,
            });
        };
        let request = RefreshRequest {
            access_token: &session.access_token,
            refresh_token,
        };
        let secrets = [session.access_token.as_str(), refresh_token.as_str()];
        let tokens = self.tokens("sign_in/refresh", &request, &secrets);
        let tokens = tokens.map_err(refused_refresh)?;
        let account = [self.base_url(), self.app_id(), session.user_name()];
        let mut refreshed = tokens.into_session(account);
        refreshed.refresh_token = refreshed
            .refresh_token
            .or_else(|| session.refresh_token.clone());
        Ok(refreshed)
    }

    /// Makes a handle whose calls always use a fresh token of this session.
    ///
    /// # Errors
    /// [`Error::Setting`] if the session is another address's or application's.
    pub fn signed_in(&self, session: Session) -> Result<SignedIn, Error> {
        self.check_session(&session)?;
        Ok(SignedIn::new(self.clone(), session))
    }

    /// Reads the account's data sets: the answer's JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn datasets(&self, token: &AccessToken) -> Result<Value, Error> {
        self.get(token, "datasets/")
    }

    /// Reads a resource below `/v1/`, with its own query if it needs one, such as
    /// `queries/17/data?name=value`, into any type.
    ///
    /// # Errors
    /// [`Error::Setting`] for a resource that could leave the API's place or a token
    /// that can't be sent; [`Error::Refused`] for a token that has expired;
    /// [`Error::Answer`] for one that doesn't fit the type or is larger than
    /// [`max_body_size`](ClientBuilder::max_body_size); and whatever else can go
    /// wrong with a call but [`Error::Output`].
    pub fn get<T: DeserializeOwned>(
        &self,
        token: &AccessToken,
        resource: &str,
    ) -> Result<T, Error> {
        self.read(token, resource, |response| {
            let body = answer::read(response, self.shared.limits.body, &self.shared.host)?;
            answer::parse(&body)
        })
    }

    /// Copies a resource to a writer, byte for byte, in constant memory.
    ///
    /// Nothing is written before the first 64 KB, or all of a shorter body, have come
    /// and are good. A body that turns out bad later has been written in part.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Output`] if the writer fails.
    pub fn copy(
        &self,
        token: &AccessToken,
        resource: &str,
        check: Check,
        out: &mut dyn Write,
    ) -> Result<Copied, Error> {
        self.read(token, resource, |response| {
            answer::copy(response, check, out, &self.shared.host)
        })
    }

    /// One GET and its answer, which `take` reads; an idle connection that the server
    /// had closed is made up for by another.
    fn read<T>(
        &self,
        token: &AccessToken,
        resource: &str,
        mut take: impl FnMut(Response<Body>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        check_access_token(token).map_err(|reason| Error::setting("access token", reason))?;
        let path = self.with_credentials(self.shared.base_url.path(&checked(resource)?));
        let mut once = || self.follow(token, &path).and_then(&mut take);
        self.shared.retries.run(Method::Get, || match once() {
            Err(failure) if failure.again == Again::GetAtOnce => once(),
            other => other,
        })
    }

    /// Sends a GET, and again to wherever the same origin redirects it.
    fn follow(&self, token: &AccessToken, path: &str) -> Result<Response<Body>, Failure> {
        let deadline = self.shared.limits.call.and_then(later);
        let secrets = [token.as_str(), &self.shared.credentials.app_code];
        let mut path = path.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get_once(token, &path, deadline)?;
            match self.redirect(&response, &path) {
                None => return self.accept(response, Request::Resource, &secrets),
                Some(Target::Here(target)) => path = target,
                Some(Target::Elsewhere(origin)) => {
                    let to = origin.map(|origin| origin.to_string());
                    return Err(Error::Redirect {
                        status: response.status().as_u16(),
                        to: to.filter(|to| !echo::holds(to, &secrets)),
                    }
                    .into());
                }
            }
            // Read to its end, the connection serves the next request.
            answer::error_text(response, &[], self.shared.limits.stall);
        }
        Err(Error::answer(format!("redirected more than {MAX_REDIRECTS} times")).into())
    }

    /// Where an answer sends the request on to, if it does.
    fn redirect(&self, response: &Response<Body>, path: &str) -> Option<Target> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = response.headers().get(header::LOCATION)?;
        Some(match location.to_str() {
            Ok(location) => address::redirect(&self.shared.base_url.origin, path, location),
            Err(_) => Target::Elsewhere(None),
        })
    }

    fn get_once(
        &self,
        token: &AccessToken,
        path: &str,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = self
            .shared
            .agent
            .get(self.url(path))
            // As the script in HERE's guide has it.
            .header(header::CONTENT_TYPE, "text/plain")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            request = request.config().timeout_global(Some(left)).build();
        }
        let response = request.call();
        response.map_err(|error| Failure::before_body(error, &self.shared.host))
    }

    fn post(&self, resource: &str, body: &[u8]) -> Result<Response<Body>, Failure> {
        let limits = &self.shared.limits;
        let limit = limits
            .call
            .map_or(limits.sign_in, |call| call.min(limits.sign_in));
        let path = self.with_credentials(self.shared.base_url.path(resource));
        let request = self
            .shared
            .agent
            .post(self.url(&path))
            .header(header::CONTENT_TYPE, "application/json")
            .config()
            .timeout_global(Some(limit))
            .build();
        let response = request.send(body);
        response.map_err(|error| Failure::before_body(error, &self.shared.host))
    }

    fn with_credentials(&self, path: String) -> String {
        let separator = match path.contains('?') {
            false => "?",
            true if path.ends_with(['?', '&']) => "",
            true => "&",
        };
        path + separator + &self.shared.query
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.shared.base_url.origin)
    }

    /// Lets an answer with status 200 pass and makes an error of any other.
    fn accept(
        &self,
        response: Response<Body>,
        request: Request,
        secrets: &[&str],
    ) -> Result<Response<Body>, Failure> {
        let status = response.status().as_u16();
        if status == 200 {
            answer::check_encoding(response.headers())?;
            return Ok(response);
        }
        let to = match self.redirect(&response, "/") {
            Some(Target::Elsewhere(Some(origin))) => Some(origin.to_string()),
            Some(Target::Here(_)) => Some(self.shared.base_url.origin.to_string()),
            _ => None,
        };
        let after = retry_after(&response);
        let text = answer::error_text(response, secrets, self.shared.limits.stall);
        let error = match status {
            401 | 403 => Error::Refused {
                status,
                request,
                text,
            },
            // Only a request that follows none comes here with a redirect.
            300..=399 => Error::Redirect {
                status,
                to: to.filter(|to| !echo::holds(to, secrets)),
            },
            400..=599 => Error::Status { status, text },
            _ => Error::Status { status, text: None },
        };
        Err(Failure::status(error, status, after))
    }

    /// Asks for tokens: sends the request, and takes them from the answer.
    fn tokens(
        &self,
        resource: &str,
        request: &impl Serialize,
        secrets: &[&str],
    ) -> Result<SignInAnswer, Error> {
        let body = serde_json::to_vec(request)
            .map_err(|_| Error::setting("request", "can't be written as JSON"))?;
        let secrets = [secrets, &[&self.shared.credentials.app_code]].concat();
        self.shared.retries.run(Method::Post, || {
            let response = self.post(resource, &body)?;
            let response = self.accept(response, Request::SignIn, &secrets)?;
            SignInAnswer::parse(&answer::read(response, MAX_SIGN_IN, &self.shared.host)?)
        })
    }

    fn check_session(&self, session: &Session) -> Result<(), Error> {
        if session.base_url == self.base_url() && session.app_id == self.app_id() {
            return Ok(());
        }
        let reason = "it was made at another address or with another app id";
        Err(Error::setting("session", reason))
    }
}

/// How long an answer asks to wait: `Retry-After` in seconds (RFC 9110, section 10.2.3).
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn checked(resource: &str) -> Result<String, Error> {
    address::resource(resource).map_err(|reason| Error::setting("resource", reason))
}

fn check_argument(name: &'static str, text: &str) -> Result<(), Error> {
    match text.len() {
        0 => Err(Error::setting(name, "is empty")),
        1..=MAX_SECRET => Ok(()),
        _ => Err(Error::setting(name, "is too long")),
    }
}

fn later(limit: Duration) -> Option<Instant> {
    Instant::now().checked_add(limit)
}

// Written by hand: the app code is part of what it holds.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.shared.base_url_text)
            .field("app_id", &self.shared.credentials.app_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}
