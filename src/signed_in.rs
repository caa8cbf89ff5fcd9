//! A client with a session that stays fresh.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::{Check, Copied};
use crate::client::Client;
use crate::error::Error;
use crate::secret::AccessToken;
use crate::session::Session;

/// How much life an access token must have left to be used.
const MARGIN: Duration = Duration::from_secs(60);

/// Reads as [`Client`] does, always with a fresh token; made by [`Client::signed_in`].
///
/// A token with less than a minute of life left is refreshed before it is used; one
/// that the server answers with 401 is refreshed as well, and the call repeated once.
/// A call refreshes at most once.
///
/// Threads share it by reference. However many of them find the token stale, one
/// refreshes it and the others use what comes of it, be it a failure; nothing waits
/// while ordinary calls are under way.
pub struct SignedIn {
    client: Client,
    margin: Duration,
    /// Held while a refresh is under way, and at no other time.
    turn: Mutex<()>,
    present: Mutex<Present>,
}

struct Present {
    session: Arc<Session>,
    /// How many refreshes were tried, and what the last of them failed with.
    tries: u64,
    failure: Option<Error>,
}

impl SignedIn {
    pub(crate) fn new(client: Client, session: Session) -> Self {
        Self {
            client,
            margin: MARGIN,
            turn: Mutex::new(()),
            present: Mutex::new(Present {
                session: Arc::new(session),
                tries: 0,
                failure: None,
            }),
        }
    }

    /// Sets how much life an access token must have left to be used.
    /// Defaults to a minute.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Returns the session as it is now, to be stored for example.
    pub fn session(&self) -> Session {
        Session::clone(&self.present().session)
    }

    /// As [`Client::datasets`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn datasets(&self) -> Result<Value, Error> {
        self.call(|token| self.client.datasets(token))
    }

    /// As [`Client::get`].
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::SignInAgain`] if the server refuses to refresh the
    /// session; and whatever else a refresh may fail with, which leaves the session as
    /// it was.
    pub fn get<T: DeserializeOwned>(&self, resource: &str) -> Result<T, Error> {
        self.call(|token| self.client.get(token, resource))
    }

    /// As [`Client::copy`].
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Output`] if the writer fails.
    pub fn copy(&self, resource: &str, check: Check, out: &mut dyn Write) -> Result<Copied, Error> {
        Client::check_resource(resource)?;
        self.call(|token| self.client.copy(token, resource, check, out))
    }

    fn call<T>(&self, mut once: impl FnMut(&AccessToken) -> Result<T, Error>) -> Result<T, Error> {
        let (before, tries) = {
            let present = self.present();
            (Arc::clone(&present.session), present.tries)
        };
        let session = match before.is_fresh(self.margin) {
            true => Arc::clone(&before),
            false => self.refresh(tries, |session| session.is_fresh(self.margin))?,
        };
        let token = session.access_token();
        match once(token) {
            // A token that this call has just got isn't mended by another refresh.
            Err(Error::Refused { status: 401, .. }) if Arc::ptr_eq(&before, &session) => {
                let session = self.refresh(tries, |session| session.access_token() != token)?;
                once(session.access_token())
            }
            other => other,
        }
    }

    /// Refreshes the session unless another thread has brought one that will do.
    /// `seen` is how many refreshes had been tried when the call began.
    fn refresh(
        &self,
        seen: u64,
        will_do: impl Fn(&Session) -> bool,
    ) -> Result<Arc<Session>, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let session = {
            let present = self.present();
            if will_do(&present.session) {
                return Ok(Arc::clone(&present.session));
            }
            if present.tries != seen {
                // What came of a refresh holds for all who waited for it, so that a dead
                // server is asked once, not once a thread.
                return match &present.failure {
                    Some(error) => Err(error.clone()),
                    None => Ok(Arc::clone(&present.session)),
                };
            }
            Arc::clone(&present.session)
        };
        let result = self.client.refresh(&session);
        let mut present = self.present();
        present.tries += 1;
        present.failure = result.as_ref().err().cloned();
        present.session = Arc::new(result?);
        Ok(Arc::clone(&present.session))
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("client", &self.client)
            .field("margin", &self.margin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Credentials;

    #[test]
    fn those_who_waited_for_a_failed_refresh_share_its_failure() {
        let client = Client::builder(Credentials::new("id", "code"))
            .build()
            .unwrap();
        let account = [client.base_url(), client.app_id(), "me"];
        // Without a refresh token the refresh fails, and nothing is sent.
        let session = Session::issued_now(account, AccessToken::new("t"), None, None);
        let handle = client.signed_in(session).unwrap();
        let tries = || handle.present().tries;
        assert!(handle.refresh(0, |_| false).is_err());
        assert_eq!(tries(), 1);
        assert!(handle.refresh(0, |_| false).is_err());
        assert_eq!(tries(), 1, "this call began before the first refresh ended");
        assert!(handle.refresh(1, |_| false).is_err());
        assert_eq!(tries(), 2);
        assert!(handle.refresh(2, |_| true).is_ok());
        assert_eq!(tries(), 2);
    }
}
