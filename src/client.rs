//! The client of one application: its settings, and the requests that it sends. (Its
//! sessions, which use them, are made in `session`.)

mod token_endpoint;

use std::{fmt, sync::Arc};

use crate::error::{Error, Operation};
use crate::http::url::{Resource, encode_segment};
use crate::http::{Call, Http, Response, attempt::AttemptError};
use crate::secret::Credentials;
use crate::tokens::{Account, Tokens};
use crate::{builder::ClientBuilder, event::Event};

/// A client of the API, for the credentials of one application.
///
/// It makes [`Session`](crate::Session)s, which read. One client serves many users; it is
/// cheap to clone, and its clones, in whatever threads, share connections. An idle
/// connection is kept for 15 seconds.
///
/// ```no_run
/// use here_datalens::{Client, Credentials};
/// # fn main() -> Result<(), here_datalens::Error> {
/// let client = Client::new(Credentials::new("app id", "app code"))?;
/// assert_eq!(client.base_url(), "https://datalens.api.here.com");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    /// `app_id=…&app_code=…`, encoded: a part of every URL.
    query: String,
    settings: ClientBuilder,
}

impl ClientBuilder {
    /// Checks the settings and makes the client. Sends nothing.
    ///
    /// # Errors
    /// [`Error::InvalidInput`], which names the first setting that can't be used.
    pub fn build(mut self) -> Result<Client, Error> {
        let http = self.http()?;
        self.base_url = http.base_url.to_string();
        let app_id = encode_segment(&self.credentials.app_id);
        let app_code = encode_segment(&self.credentials.app_code);
        let query = format!("app_id={app_id}&app_code={app_code}");
        Ok(Client { shared: Arc::new(Shared { http, query, settings: self }) })
    }
}

impl Client {
    /// Makes a client of HERE's own service with the default settings.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the app id or the app code is empty or too long.
    pub fn new(credentials: Credentials) -> Result<Self, Error> {
        Self::builder(credentials).build()
    }

    /// Begins a client with other settings.
    pub fn builder(credentials: Credentials) -> ClientBuilder {
        ClientBuilder::new(credentials)
    }

    /// Begins a client with the settings of this one. It has connections of its own.
    pub fn to_builder(&self) -> ClientBuilder {
        self.shared.settings.clone()
    }

    /// Returns the base URL in its normal form.
    pub fn base_url(&self) -> &str {
        &self.shared.settings.base_url
    }

    /// Returns the app id of the application.
    pub fn app_id(&self) -> &str {
        &self.shared.settings.credentials.app_id
    }

    /// Returns the account of a user, as tokens of this client have it.
    pub fn account<'a>(&'a self, email: &'a str) -> Account<'a> {
        Account { base_url: self.base_url(), app_id: self.app_id(), email }
    }

    pub(crate) fn emit(&self, event: &Event<'_>) {
        (self.shared.http.on_event)(event);
    }

    /// The error of a session without tokens, or without a refresh token among them.
    pub(crate) fn sign_in_required(&self, email: &str, has_tokens: bool) -> Error {
        let operation =
            if has_tokens { self.refresh_operation() } else { self.sign_in_operation(email) };
        Error::SignInRequired { operation, status: None, text: None }
    }

    fn sign_in_operation(&self, email: &str) -> Operation {
        let host = self.shared.http.base_url.origin.authority.clone();
        Operation::SignIn { host, email: email.to_owned() }
    }

    fn refresh_operation(&self) -> Operation {
        Operation::Refresh { host: self.shared.http.base_url.origin.authority.clone() }
    }

    /// Sends a GET of a resource and hands the response, if its status is 200, to `take`.
    pub(crate) fn read<T>(
        &self,
        tokens: &Tokens,
        resource: &Resource,
        take: impl FnMut(Response<'_>) -> Result<T, AttemptError>,
    ) -> Result<T, Error> {
        let operation = Operation::Read { resource: resource.path().to_owned() };
        let mut call = self.call(operation, resource.as_str(), &tokens.secrets());
        call.access_token = Some(tokens.access_token());
        call.send(take)
    }

    fn call<'a>(&'a self, operation: Operation, resource: &str, secrets: &[&'a str]) -> Call<'a> {
        let Shared { http, query: credentials, settings } = &*self.shared;
        let path = http.base_url.path(resource);
        // The application's credentials are added to the query.
        let separator = match path.split_once('?') {
            None => "?",
            Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
            Some(_) => "&",
        };
        let target = path + separator + credentials;
        let secrets = [&[settings.credentials.app_code.as_str()], secrets].concat();
        let (access_token, body, limits) = (None, String::new(), settings.limits);
        Call { http, operation, target, access_token, body, secrets, limits }
    }
}

// Written by hand: the app code is part of what it holds.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.base_url())
            .field("app_id", &self.app_id())
            .finish_non_exhaustive()
    }
}
