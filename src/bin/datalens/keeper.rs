//! Which session a run works with: the stored one, a refreshed one, or a new one.

use std::time::Duration;

use here_datalens::{AccessToken, Client, Error, Password, Session};

use crate::failure::Failure;
use crate::session_file::{Locked, SessionFile};

/// How much life a stored token must have left.
const MARGIN: Duration = Duration::from_secs(60);

/// Keeps the session of one run.
pub(crate) struct Keeper<'a> {
    file: SessionFile,
    user_name: &'a str,
    /// Makes the client, once the network is needed.
    client: &'a dyn Fn() -> Result<Client, Failure>,
    password: &'a dyn Fn() -> Result<Password, Failure>,
    refreshed: bool,
    signed_in: bool,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(
        file: SessionFile,
        user_name: &'a str,
        client: &'a dyn Fn() -> Result<Client, Failure>,
        password: &'a dyn Fn() -> Result<Password, Failure>,
    ) -> Self {
        Self {
            file,
            user_name,
            client,
            password,
            refreshed: false,
            signed_in: false,
        }
    }

    /// The session to begin with.
    pub(crate) fn session(&mut self) -> Result<Session, Failure> {
        match self.file.load()? {
            Some(session) if session.is_fresh(MARGIN) => Ok(session),
            _ => self.renew(|session| session.is_fresh(MARGIN)),
        }
    }

    /// Another session in place of one whose token the server refused; that refusal, if
    /// nothing is left to be tried.
    pub(crate) fn after(
        &mut self,
        token: &AccessToken,
        refusal: Error,
    ) -> Result<Session, Failure> {
        match self.refreshed {
            true => Err(refusal.into()),
            false => self.renew(|session| session.access_token() != token),
        }
    }

    /// Uses a stored session that will do, else refreshes it, else signs in.
    fn renew(&mut self, will_do: impl Fn(&Session) -> bool) -> Result<Session, Failure> {
        let locked = self.file.lock()?;
        let refusal = match self.file.load()? {
            Some(session) if will_do(&session) => return Ok(session),
            Some(session) => match refresh(&locked, &(self.client)()?, &session) {
                Err(Failure::Client(refusal @ Error::SignInAgain { .. })) => Some(refusal),
                renewed => {
                    self.refreshed = true;
                    return renewed;
                }
            },
            None => None,
        };
        // A person at the prompt blocks no other process.
        drop(locked);
        if let (true, Some(refusal)) = (self.signed_in, &refusal) {
            return Err(refusal.clone().into());
        }
        let password = (self.password)().map_err(|failure| match (failure, refusal) {
            (Failure::Setting(reason), Some(refusal)) => Failure::NoPassword(refusal, reason),
            (failure, _) => failure,
        })?;
        self.sign_in(&password, will_do)
    }

    fn sign_in(
        &mut self,
        password: &Password,
        will_do: impl Fn(&Session) -> bool,
    ) -> Result<Session, Failure> {
        let client = (self.client)()?;
        let locked = self.file.lock()?;
        // Somebody else may have signed in meanwhile.
        if let Some(session) = self.file.load()?.filter(will_do) {
            return Ok(session);
        }
        let neighbour = locked.prepare()?;
        let session = client.sign_in(self.user_name, password)?;
        self.signed_in = true;
        neighbour.store(&session)?;
        Ok(session)
    }
}

fn refresh(locked: &Locked<'_>, client: &Client, session: &Session) -> Result<Session, Failure> {
    let neighbour = locked.prepare()?;
    let session = client.refresh(session)?;
    neighbour.store(&session)?;
    Ok(session)
}
