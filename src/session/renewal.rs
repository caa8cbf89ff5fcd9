//! How a session renews its tokens, as its policy decides: one thread at a time, under the
//! exclusion of the store, with none of the session's own locks held.

use std::sync::{Arc, PoisonError};
use std::{io, thread, time::SystemTime};

use super::Session;
use super::state::{History, Plan};
use crate::{error::Error, event::Event, tokens::Tokens};

impl Session {
    /// Returns tokens that a call may use, renewed if need be. If it was answered 401, they
    /// are others, or the same again where no others help.
    pub(super) fn usable_tokens(&self, call: &mut History) -> Result<Arc<Tokens>, Error> {
        self.in_turn(call, |call| self.renew(call).inspect_err(|error| self.state().failed(error)))
    }

    /// Returns tokens that a call may use, or what comes of `renew` when it is its turn.
    pub(super) fn in_turn(
        &self,
        call: &mut History,
        renew: impl FnOnce(&mut History) -> Result<Arc<Tokens>, Error>,
    ) -> Result<Arc<Tokens>, Error> {
        let mut state = self.state();
        loop {
            if let Some(tokens) = state.usable(SystemTime::now(), call) {
                return Ok(tokens);
            }
            if state.take_turn(thread::current().id(), call)? {
                break;
            }
            let woken = self.shared.turn_ended.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let _turn = Turn(self);
        renew(call)
    }

    /// Takes up what the store holds, and refreshes it if that is of no use either.
    fn renew(&self, call: &mut History) -> Result<Arc<Tokens>, Error> {
        // Loading waits for nobody, and others may have renewed the tokens.
        if let Err(error) = self.adopt(self.shared.store.load()) {
            return self.refresh(Err(error), call);
        }
        match self.plan(SystemTime::now(), call)? {
            Plan::Use(tokens) => return Ok(tokens),
            // Whoever renews them does so for all.
            Plan::Refresh { tokens, is_early: true } if self.shared.store.is_busy() => {
                return Ok(tokens);
            }
            _ => {}
        }
        // Somebody may be replacing the tokens, under the exclusion of the store.
        match self.update(|| self.refresh(Ok(()), call)) {
            Err(error @ Error::Store { renewed: false, .. }) => {
                // Whoever had the lock may have renewed them.
                let _ = self.adopt(self.shared.store.load());
                self.refresh(Err(error), call)
            }
            updated => updated,
        }
    }

    /// Refreshes the tokens, unless they are of use. The error of a store that can't be
    /// used is taken for that of the refresh.
    fn refresh(&self, store: Result<(), Error>, call: &mut History) -> Result<Arc<Tokens>, Error> {
        let mut now = SystemTime::now();
        loop {
            let (tokens, is_early) = match self.plan(now, call) {
                Ok(Plan::Use(tokens) | Plan::GiveUp(tokens)) => return Ok(tokens),
                Ok(Plan::Refresh { tokens, is_early }) => (tokens, is_early),
                Err(error) => return Err(store.err().unwrap_or(error)),
            };
            let refreshed = store.clone().and_then(|()| {
                self.client().emit(&Event::Refreshing);
                let tokens = self.client().send_refresh(&tokens, is_early)?;
                let tokens = self.state().renewed(tokens, call);
                self.client().emit(&Event::Refreshed);
                Ok(tokens)
            });
            let Err(error) = refreshed else { return refreshed };
            self.client().emit(&Event::RefreshFailed { error: &error });
            if !is_early {
                // At once: the store may panic.
                self.state().failed(&error);
                return Err(error);
            }
            now = SystemTime::now();
            self.state().put_off(now, error)?;
        }
    }

    fn plan(&self, now: SystemTime, call: &mut History) -> Result<Plan, Error> {
        let mut state = self.state();
        state.plan(now, call).map_err(|refusal| {
            let has_tokens = state.tokens.is_some();
            refusal.unwrap_or_else(|| self.client().sign_in_required(self.email(), has_tokens))
        })
    }

    /// Takes up what was loaded.
    fn adopt(&self, loaded: io::Result<Option<Tokens>>) -> Result<(), Error> {
        let adopted = loaded.and_then(|stored| self.state().adopt(stored, self.account()));
        adopted.map_err(|error| self.store_error(error, false))
    }

    /// Lets `renew` bring new tokens under the exclusion of the store, and stores them.
    pub(super) fn update(
        &self,
        mut renew: impl FnMut() -> Result<Arc<Tokens>, Error>,
    ) -> Result<Arc<Tokens>, Error> {
        let name = self.shared.store.name();
        if !name.is_empty() {
            self.client().emit(&Event::Locking { store: &name });
        }
        let mut result = None;
        let updated = self.shared.store.update(&mut |stored| {
            result = Some(self.adopt(Ok(stored)).and_then(|()| renew()));
            self.state().new_tokens().map(|tokens| Tokens::clone(tokens))
        });
        let Some(result) = result else {
            let nothing = || io::Error::other("it didn't let the tokens be renewed");
            return Err(self.store_error(updated.err().unwrap_or_else(nothing), false));
        };
        if self.state().new_tokens().is_some() {
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
struct Turn<'a>(&'a Session);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Not needed, and a system call, where nobody waits.
        if self.0.state().end_turn() {
            self.0.shared.turn_ended.notify_all();
        }
    }
}
