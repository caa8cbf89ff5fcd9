//! How a session renews its tokens, as its policy decides: one thread at a time, under the
//! exclusion of the store, with none of the session's own locks held.

use std::sync::{Arc, PoisonError};
use std::thread::{self, ThreadId};
use std::{io, time::SystemTime};

use super::Session;
use super::state::{Outcome, Plan, Rejection, Renewal, State, Step, Usable};
use crate::{error::Error, event::Event, tokens::Tokens};

impl Session {
    /// Returns tokens that a call may use, renewed if need be; other ones than those that
    /// it was answered 401 with.
    pub(super) fn usable_tokens(&self, rejection: Option<&Rejection>) -> Result<Usable, Error> {
        let next = |state: &mut State, me, waited_for: Option<&Renewal>| {
            state.step(SystemTime::now(), me, rejection, waited_for)
        };
        if let Some(usable) = self.wait(next)? {
            return Ok(usable);
        }
        let turn = Turn::new(self);
        let result = self.renew(rejection);
        turn.end(&result);
        result
    }

    /// Does what `next` says until that is to use tokens, which are returned, or to renew
    /// them.
    pub(super) fn wait(
        &self,
        next: impl Fn(&mut State, ThreadId, Option<&Renewal>) -> Result<Step, Error>,
    ) -> Result<Option<Usable>, Error> {
        let mut waited_for: Option<Arc<Renewal>> = None;
        let mut state = self.state();
        loop {
            match next(&mut state, thread::current().id(), waited_for.as_deref())? {
                Step::Use(usable) => return Ok(Some(usable)),
                Step::Renew => return Ok(None),
                Step::Wait(renewal) => {
                    let turn_ended = &self.shared.turn_ended;
                    let woken = turn_ended.wait_while(state, |_| renewal.outcome.get().is_none());
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                    waited_for = Some(renewal);
                }
            }
        }
    }

    /// Takes up what the store holds, and refreshes it if that is of no use either.
    fn renew(&self, rejection: Option<&Rejection>) -> Result<Usable, Error> {
        // Loading waits for nobody, and others may have renewed the tokens.
        if let Err(error) = self.adopt(self.shared.store.load()) {
            return self.go_on_without_store(error, rejection);
        }
        match self.plan(rejection)? {
            Plan::Use(usable) => return Ok(usable),
            // Whoever renews them does so for all.
            Plan::Refresh(tokens, true) if self.shared.store.is_busy() => {
                return Ok(Usable::new(&tokens, false));
            }
            _ => {}
        }
        // Somebody may be replacing the tokens, under the exclusion of the store.
        match self.update(|stored| self.refresh(stored, rejection)) {
            Err(error @ Error::Store { renewed: false, .. }) => {
                // Whoever had the lock may have renewed them.
                let _ = self.adopt(self.shared.store.load());
                self.go_on_without_store(error, rejection)
            }
            updated => updated,
        }
    }

    /// Refreshes what the store holds, under its exclusion, unless that is of use.
    fn refresh(
        &self,
        stored: Option<Tokens>,
        rejection: Option<&Rejection>,
    ) -> Result<Usable, Error> {
        self.adopt(Ok(stored.clone()))?;
        let (tokens, is_early) = match self.plan(rejection)? {
            Plan::Use(usable) => return Ok(usable),
            Plan::Unauthorized(error) => return Err(error),
            Plan::Refresh(tokens, is_early) => (tokens, is_early),
        };
        let client = self.client();
        client.events().emit(&Event::Refreshing);
        match client.send_refresh(&tokens, is_early) {
            Ok(renewed) => {
                let usable = self.state().renewed(renewed, stored);
                client.events().emit(&Event::Refreshed);
                Ok(usable)
            }
            Err(error) => {
                client.events().emit(&Event::RefreshFailed { error: &error });
                let is_refusal = error.needs_sign_in();
                let failed = self.state().refresh_failed(SystemTime::now(), is_early, error);
                // They expired meanwhile: the refusal of an early refresh isn't the last word.
                let is_open = is_early && is_refusal && failed.is_err();
                if is_open { self.refresh(stored, rejection) } else { failed }
            }
        }
    }

    /// Uses tokens that are alive though the store can't be used.
    fn go_on_without_store(
        &self,
        error: Error,
        rejection: Option<&Rejection>,
    ) -> Result<Usable, Error> {
        match self.plan(rejection) {
            Ok(Plan::Use(usable)) => Ok(usable),
            Ok(Plan::Refresh(_, is_early)) => {
                self.client().events().emit(&Event::RefreshFailed { error: &error });
                self.state().refresh_failed(SystemTime::now(), is_early, error)
            }
            Ok(Plan::Unauthorized(error)) => Err(error),
            Err(_) => Err(error),
        }
    }

    fn plan(&self, rejection: Option<&Rejection>) -> Result<Plan, Error> {
        self.state().plan(SystemTime::now(), rejection)
    }

    /// Takes up what was loaded.
    pub(super) fn adopt(&self, loaded: io::Result<Option<Tokens>>) -> Result<(), Error> {
        let adopted = loaded.and_then(|stored| self.state().adopt(stored, self.account()));
        adopted.map_err(|error| self.store_error(error, false))
    }

    /// Lets `renew` bring new tokens under the exclusion of the store, and stores them.
    pub(super) fn update(
        &self,
        renew: impl Fn(Option<Tokens>) -> Result<Usable, Error>,
    ) -> Result<Usable, Error> {
        let name = self.shared.store.name();
        if !name.is_empty() {
            self.client().events().emit(&Event::Locking { store: &name });
        }
        let mut result = None;
        let updated = self.shared.store.update(&mut |stored| {
            let renewed = result.insert(renew(stored)).as_ref().ok()?;
            renewed.is_renewed.then(|| Tokens::clone(&renewed.tokens))
        });
        let Some(result) = result else {
            let nothing = || io::Error::other("it didn't let the tokens be renewed");
            return Err(self.store_error(updated.err().unwrap_or_else(nothing), false));
        };
        if result.as_ref().is_ok_and(|usable| usable.is_renewed) {
            updated.map_err(|error| self.store_error(error, true))?;
            self.state().stored();
        }
        result
    }

    fn store_error(&self, error: io::Error, renewed: bool) -> Error {
        Error::Store { name: self.shared.store.name(), renewed, source: Arc::new(error) }
    }
}

/// The turn to renew the tokens, which ends when this is dropped, by a panic as well.
pub(super) struct Turn<'a> {
    session: &'a Session,
    /// What came of it for those who waited.
    outcome: Outcome,
}

impl<'a> Turn<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, outcome: None }
    }

    pub(super) fn end(mut self, result: &Result<Usable, Error>) {
        self.outcome = self.session.state().outcome(result);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Not needed, and a system call, where nobody waits.
        if self.session.state().end_turn(self.outcome.take()) {
            self.session.shared.turn_ended.notify_all();
        }
    }
}
