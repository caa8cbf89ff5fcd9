//! A session: reads with an access token that it keeps fresh, by itself, for threads and
//! processes alike. The policy stands in `state`, and is carried out in `renewal`.

mod renewal;
mod state;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, io::Write, time::SystemTime};

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::state::{History, State};
use crate::http::body::{CopySummary, JsonCheck};
use crate::http::{Response, attempt::AttemptError, url::Resource};
use crate::secret::{AccessToken, MAX_SECRET, Password, check_length};
use crate::store::{MemoryStore, TokenStore};
use crate::tokens::{Account, Tokens};
use crate::{client::Client, error::Error};

/// A user's session, by which resources are read.
///
/// Made by [`Client::sign_in`], [`Client::resume`] or [`Client::session`]. It is used by
/// reference from any number of threads; a clone is the same session.
///
/// The access token of each call is fresh: it has a minute to live, or half of its
/// lifetime if that is shorter. A stale one is refreshed, once for all who wait for it, in
/// this process and, by the session's [`TokenStore`], in others. If a refresh ahead of the
/// expiry fails, the token is used while it lives. A call that is answered 401 refreshes
/// the token once and is repeated once.
///
/// ```no_run
/// use here_datalens::{Client, Credentials, Password};
///
/// # fn main() -> Result<(), here_datalens::Error> {
/// let client = Client::new(Credentials::new("app id", "app code"))?;
/// let session = client.sign_in("me@example.com", &Password::new("password"))?;
/// std::thread::scope(|scope| {
///     for id in ["17", "18"] {
///         let session = &session;
///         scope.spawn(move || session.get::<serde_json::Value>(&format!("queries/{id}")));
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "the tokens of a sign-in are lost with the session"]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    email: String,
    store: Box<dyn TokenStore>,
    state: Mutex<State>,
    /// Told when a turn to renew the tokens has ended.
    turn_ended: Condvar,
}

/// The making of sessions.
impl Client {
    /// Signs in with the e-mail address and the password of a HERE account.
    ///
    /// ```no_run
    /// # use here_datalens::{Client, Credentials, Password};
    /// # fn main() -> Result<(), here_datalens::Error> {
    /// # let client = Client::new(Credentials::new("app id", "app code"))?;
    /// let session = client.sign_in("me@example.com", &Password::new("password"))?;
    /// println!("{}", session.datasets()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Session::sign_in`].
    pub fn sign_in(&self, email: &str, password: &Password) -> Result<Session, Error> {
        let session = self.session(email, MemoryStore::default());
        session.sign_in(password)?;
        Ok(session)
    }

    /// Goes on with tokens of an earlier session. Sends nothing.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if they belong to another base URL or app id.
    pub fn resume(&self, tokens: Tokens) -> Result<Session, Error> {
        let store = MemoryStore::new(Some(tokens.clone()));
        let session = self.session(tokens.account().email, store);
        let adopted = session.state().adopt(Some(tokens), session.account());
        adopted.map_err(|error| Error::invalid_input("tokens", error.to_string()))?;
        Ok(session)
    }

    /// Makes a session whose tokens live in a store: those that are there, or those that
    /// a later [`Session::sign_in`] brings. Sends nothing and loads nothing; what is wrong
    /// shows at the first call.
    ///
    /// ```no_run
    /// # use here_datalens::{Client, Credentials, Error, Password};
    /// # fn ask() -> Password { Password::new("password") }
    /// # #[cfg(unix)]
    /// # fn main() -> Result<(), Error> {
    /// # let client = Client::new(Credentials::new("app id", "app code"))?;
    /// use here_datalens::FileStore;
    ///
    /// let session = client.session("me@example.com", FileStore::new("session.json"));
    /// let datasets = match session.datasets() {
    ///     Err(error) if error.needs_sign_in() => {
    ///         session.sign_in(&ask())?;
    ///         session.datasets()?
    ///     }
    ///     other => other?,
    /// };
    /// # Ok(())
    /// # }
    /// # #[cfg(not(unix))]
    /// # fn main() {}
    /// ```
    pub fn session(&self, email: &str, store: impl TokenStore + 'static) -> Session {
        let (client, email, store) = (self.clone(), email.to_owned(), Box::new(store));
        let (state, turn_ended) = (Mutex::default(), Condvar::new());
        Session { shared: Arc::new(Shared { client, email, store, state, turn_ended }) }
    }
}

impl Session {
    /// Reads the account's data sets: the JSON of the response.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn datasets(&self) -> Result<Value, Error> {
        self.get("datasets/")
    }

    /// Reads a resource below `/v1/`, with its own query if it needs one, into any type.
    ///
    /// ```no_run
    /// # use here_datalens::{Error, Session, encode_segment};
    /// #[derive(serde::Deserialize)]
    /// struct Data {
    ///     columns: Vec<String>,
    ///     rows: Vec<Vec<f64>>,
    /// }
    ///
    /// # fn read(session: &Session, id: &str) -> Result<Data, Error> {
    /// session.get(&format!("queries/{}/data?name=value", encode_segment(id)))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a resource that could leave the API's place;
    /// [`Error::SignInRequired`] if there are no tokens of use; [`Error::Store`];
    /// [`Error::InvalidResponse`] for a body that doesn't fit the type or is larger than
    /// [`max_body_size`](crate::ClientBuilder::max_body_size); and whatever else can go
    /// wrong with a call but [`Error::Output`].
    pub fn get<T: DeserializeOwned>(&self, resource: &str) -> Result<T, Error> {
        self.call(resource, |response| response.read()?.parse())
    }

    /// Copies a resource to a writer, byte for byte, in constant memory.
    ///
    /// Nothing is written before the first 64 KB, or all of a shorter body, have come
    /// and are good. A body that turns out bad later has been written in part. A writer
    /// cancels the copy by any error but
    /// [`Interrupted`](std::io::ErrorKind::Interrupted), after which it is called again.
    ///
    /// ```no_run
    /// # use here_datalens::{JsonCheck, Session};
    /// # fn save(session: &Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::fs::File::create("tile.bin")?;
    /// let copied = session.copy("layers/17/tiles/1/2/3", JsonCheck::IfDeclared, file)?;
    /// println!("{} bytes", copied.bytes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Output`] if the writer fails.
    pub fn copy(
        &self,
        resource: &str,
        check: JsonCheck,
        mut out: impl Write,
    ) -> Result<CopySummary, Error> {
        self.call(resource, |response| response.copy(check, &mut out))
    }

    /// Returns an access token for requests of the program's own: a fresh one, or one that
    /// is alive if it can't be refreshed ahead of its expiry.
    ///
    /// # Errors
    /// [`Error::SignInRequired`], [`Error::Store`], and whatever else can go wrong with a
    /// refresh.
    pub fn access_token(&self) -> Result<AccessToken, Error> {
        Ok(self.usable_tokens(&mut History::default())?.access_token().clone())
    }

    /// Signs in with the password of the account, and stores the tokens.
    ///
    /// If a call has found that a sign-in is needed, and somebody else has signed in
    /// through the same store since, theirs are used and nothing is sent.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a user name or a password that is empty or too long;
    /// [`Error::Unauthorized`] for wrong credentials; [`Error::Store`]; and whatever else
    /// can go wrong with a call but [`Error::Output`].
    pub fn sign_in(&self, password: &Password) -> Result<(), Error> {
        check_length("user name", self.email(), MAX_SECRET)?;
        check_length("password", password.secret(), MAX_SECRET)?;
        let mut call = History::of_sign_in(self.state().needs_sign_in);
        let signed_in = self.in_turn(&mut call, |call| {
            self.update(|| {
                if let Some(tokens) = self.state().usable(SystemTime::now(), call) {
                    return Ok(tokens);
                }
                let tokens = self.client().send_sign_in(self.email(), password)?;
                Ok(self.state().renewed(tokens, call))
            })
        });
        signed_in.map(drop)
    }

    /// Returns the tokens as the session holds them now: `None` before its first call
    /// loads them from a store, and after they were found to be gone.
    pub fn tokens(&self) -> Option<Tokens> {
        self.state().tokens.as_deref().cloned()
    }

    /// Returns the e-mail address that the session is, or will be, signed in with.
    pub fn email(&self) -> &str {
        &self.shared.email
    }

    /// Returns the client that made the session.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    fn account(&self) -> Account<'_> {
        self.shared.client.account(&self.shared.email)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads with usable tokens, and again with other ones if that is answered 401.
    fn call<T>(
        &self,
        resource: &str,
        mut take: impl FnMut(Response<'_>) -> Result<T, AttemptError>,
    ) -> Result<T, Error> {
        let resource =
            Resource::parse(resource).map_err(|reason| Error::invalid_input("resource", reason))?;
        let mut history = History::default();
        let mut tokens = self.usable_tokens(&mut history)?;
        loop {
            let read = self.client().read(&tokens, &resource, |response| {
                history.first_use = None;
                take(response)
            });
            let error = match read {
                Err(error) if error.status() == Some(401) => error,
                other => return other,
            };
            history.reject(tokens);
            tokens = match self.usable_tokens(&mut history) {
                Ok(tokens) if history.is_rejected(&tokens) => return Err(error),
                // That there is nothing to be refreshed is told in the server's words.
                Err(Error::SignInRequired { status: None, .. }) => {
                    return Err(error.into_sign_in_required());
                }
                usable => usable?,
            };
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.shared.client)
            .field("email", &self.shared.email)
            .finish_non_exhaustive()
    }
}
