//! How a session renews its tokens, as its policy decides: one thread at a time, under the
//! exclusion of the store, with none of the session's own locks held.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use super::Session;
use super::state::{Outcome, Plan, Rejection, Renewal, State, Step, Usable};
use crate::error::Error;
use crate::event::Event;
use crate::tokens::Tokens;

impl Session {
    /// Returns tokens that a call may use, renewed if need be; other ones than those that
    /// it was answered 401 with.
    pub(super) fn usable_tokens(&self, rejection: Option<&Rejection>) -> Result<Usable, Error> {
        let me = thread::current().id();
        let mut waited_for: Option<Arc<Renewal>> = None;
        let mut state = self.state();
        loop {
            match state.step(SystemTime::now(), me, rejection, waited_for.as_deref()) {
                Step::Use(usable) => return Ok(usable),
                Step::Fail(error) => return Err(error),
                Step::Wait(renewal) => {
                    state = self.wait(state, &renewal);
                    waited_for = Some(renewal);
                }
                Step::Renew => break,
            }
        }
        drop(state);
        let turn = Turn::new(self);
        let result = self.renew(rejection);
        turn.end(&result);
        result
    }

    pub(super) fn wait_for_turn(&self) -> Result<Turn<'_>, Error> {
        let mut state = self.state();
        loop {
            match state.take_turn(thread::current().id()) {
                Step::Fail(error) => return Err(error),
                Step::Wait(renewal) => state = self.wait(state, &renewal),
                _ => return Ok(Turn::new(self)),
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, renewal: &Renewal) -> MutexGuard<'a, State> {
        let turn_ended = &self.shared.turn_ended;
        let state = turn_ended.wait_while(state, |_| !renewal.has_ended());
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what the store holds, and refreshes it if that is of no use either.
    fn renew(&self, rejection: Option<&Rejection>) -> Result<Usable, Error> {
        // Loading waits for nobody, and others may have renewed the tokens.
        let loaded = self.shared.store.load();
        let loaded = loaded.and_then(|stored| self.state().adopt(stored, self.account()));
        if let Err(error) = loaded {
            return self.go_on_without_store(self.store_error(error, false), rejection);
        }
        match self.state().plan(SystemTime::now(), rejection) {
            Plan::Use(usable) => return Ok(usable),
            Plan::SignIn => return Err(self.shared.client.sign_in_required(self.email())),
            Plan::Fail(error) => return Err(error),
            // Somebody may be replacing the tokens, under the exclusion of the store.
            Plan::Refresh { .. } | Plan::Unauthorized(_) => {}
        }
        let updated = self.update(|stored| self.refresh(stored, rejection));
        let Err(error @ Error::Store { renewed: false, .. }) = updated else {
            return updated;
        };
        // Whoever had the lock may have renewed them.
        if let Ok(stored) = self.shared.store.load() {
            let _ = self.state().adopt(stored, self.account());
        }
        self.go_on_without_store(error, rejection)
    }

    /// Refreshes what the store holds, under its exclusion, unless that is of use.
    fn refresh(
        &self,
        stored: Option<Tokens>,
        rejection: Option<&Rejection>,
    ) -> Result<Usable, Error> {
        let client = &self.shared.client;
        let plan = {
            let mut state = self.state();
            let adopted = state.adopt(stored.clone(), self.account());
            adopted.map_err(|error| self.store_error(error, false))?;
            state.plan(SystemTime::now(), rejection)
        };
        let (tokens, is_early) = match plan {
            Plan::Use(usable) => return Ok(usable),
            Plan::SignIn => return Err(client.sign_in_required(self.email())),
            Plan::Fail(error) | Plan::Unauthorized(error) => return Err(error),
            Plan::Refresh { tokens, is_early } => (tokens, is_early),
        };
        client.events().emit(&Event::Refreshing);
        // A call that could go on with the token is held up by one request, not by retries.
        let max_retries = if is_early { 0 } else { client.max_retries() };
        match client.request_refresh(&tokens, max_retries) {
            Ok(renewed) => {
                let usable = self.state().renewed(renewed, stored);
                client.events().emit(&Event::Refreshed);
                Ok(usable)
            }
            Err(error) => {
                let now = SystemTime::now();
                self.state().refresh_failed(now, is_early, error)
            }
        }
    }

    /// Uses tokens that are alive though the store can't be used.
    fn go_on_without_store(
        &self,
        error: Error,
        rejection: Option<&Rejection>,
    ) -> Result<Usable, Error> {
        let mut state = self.state();
        match state.plan(SystemTime::now(), rejection) {
            Plan::Use(usable) => Ok(usable),
            Plan::Refresh { is_early, .. } => {
                state.refresh_failed(SystemTime::now(), is_early, error)
            }
            Plan::Unauthorized(error) => Err(error),
            Plan::SignIn | Plan::Fail(_) => Err(error),
        }
    }

    /// Lets `renew` bring new tokens under the exclusion of the store, and stores them.
    pub(super) fn update(
        &self,
        renew: impl Fn(Option<Tokens>) -> Result<Usable, Error>,
    ) -> Result<Usable, Error> {
        let store = &self.shared.store;
        let name = store.name();
        if !name.is_empty() {
            self.client().events().emit(&Event::Locking { store: &name });
        }
        let mut result = None;
        let updated = store.update(&mut |stored| {
            let renewed = renew(stored);
            let tokens = match &renewed {
                Ok(usable) if usable.is_renewed => Some(Tokens::clone(&usable.tokens)),
                _ => None,
            };
            result = Some(renewed);
            tokens
        });
        match (updated, result) {
            (Ok(()), Some(Ok(usable))) if usable.is_renewed => {
                self.state().stored();
                Ok(usable)
            }
            (Err(error), Some(Ok(usable))) if usable.is_renewed => {
                Err(self.store_error(error, true))
            }
            (_, Some(result)) => result,
            (Err(error), None) => Err(self.store_error(error, false)),
            (Ok(()), None) => {
                let error = io::Error::other("it didn't let the tokens be renewed");
                Err(self.store_error(error, false))
            }
        }
    }

    pub(super) fn store_error(&self, error: io::Error, renewed: bool) -> Error {
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
    fn new(session: &'a Session) -> Self {
        Self { session, outcome: None }
    }

    pub(super) fn end(mut self, result: &Result<Usable, Error>) {
        self.outcome = self.session.state().outcome(result);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.session.state().end_turn(self.outcome.take());
        self.session.shared.turn_ended.notify_all();
    }
}
