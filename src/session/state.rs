//! The policy of a session: which tokens a call may use, who renews them and when, and
//! what comes of it. Nothing here blocks or sends: `renewal` does what is decided here.
//!
//! A fresh token waits for nobody. A stale one is refreshed once for all who wait. One
//! that is alive is used while a refresh ahead of its expiry fails.

use std::sync::{Arc, OnceLock, Weak};
use std::{io, thread::ThreadId, time::SystemTime};

use crate::error::Error;
use crate::tokens::{Account, Tokens};

/// What a session knows of its tokens, and who renews them.
pub(super) struct State {
    /// What calls fail with while there is nothing to be refreshed.
    sign_in_required: Error,
    held: Option<Held>,
    /// What the store held when it was last seen to be older than the tokens here: a load
    /// without a lock, or a store that couldn't be written, may bring it back.
    superseded: Option<Option<Tokens>>,
    /// A call found that a sign-in is needed, and no other tokens have come since.
    pub(super) needs_sign_in: bool,
    /// The renewal that is under way.
    renewal: Option<Arc<Renewal>>,
}

/// Tokens, and what is known of them alone.
struct Held {
    tokens: Arc<Tokens>,
    /// When a refresh ahead of the expiry may be tried again after one that failed.
    next_refresh: Option<SystemTime>,
    /// The server refused, for good, to refresh them.
    refusal: Option<Error>,
    /// A call that had been given them by a refresh was answered 401 all the same.
    is_refresh_useless: bool,
    /// Alive while the call that refreshed them has no response yet, so that nobody knows
    /// whether a refresh helps.
    first_use: Weak<()>,
}

/// A turn to renew the tokens: whose it is and, once it has ended, what came of it.
pub(super) struct Renewal {
    thread: ThreadId,
    pub(super) outcome: OnceLock<Outcome>,
}

/// What came of a renewal for those who waited for it; `None` lets each of them look for
/// itself.
pub(super) type Outcome = Option<Result<Arc<Tokens>, Error>>;

/// The tokens that a call gets.
pub(super) struct Usable {
    pub(super) tokens: Arc<Tokens>,
    /// A renewal that the call made or waited for brought them.
    pub(super) is_renewed: bool,
    /// Kept, by the call that refreshed them, until it has a response.
    pub(super) first_use: Option<Arc<()>>,
}

/// A 401 to a call.
pub(super) struct Rejection {
    pub(super) tokens: Arc<Tokens>,
    /// A renewal has brought tokens for this call before.
    pub(super) is_renewed: bool,
    pub(super) error: Error,
}

/// What a call does next, unless it fails.
pub(super) enum Step {
    Use(Usable),
    /// Wait for the end of the renewal that is under way, then look again.
    Wait(Arc<Renewal>),
    /// It is this call's turn: renew, and end the turn.
    Renew,
}

/// What whoever renews does next, unless there is nothing to be refreshed.
pub(super) enum Plan {
    Use(Usable),
    /// Refresh these; and whether that is early, ahead of their expiry.
    Refresh(Arc<Tokens>, bool),
    /// Fail: another refresh doesn't help against the call's 401.
    Unauthorized(Error),
}

impl State {
    pub(super) fn new(tokens: Option<Tokens>, sign_in_required: Error) -> Self {
        let held = tokens.map(|tokens| Held::new(Arc::new(tokens), Weak::new()));
        Self { sign_in_required, held, superseded: None, needs_sign_in: false, renewal: None }
    }

    pub(super) fn tokens(&self) -> Option<Arc<Tokens>> {
        self.held.as_ref().map(|held| Arc::clone(&held.tokens))
    }

    /// Decides what a call does next that may have been answered 401, or have waited for
    /// a renewal.
    pub(super) fn step(
        &mut self,
        now: SystemTime,
        me: ThreadId,
        rejection: Option<&Rejection>,
        waited_for: Option<&Renewal>,
    ) -> Result<Step, Error> {
        // What came of a renewal holds for those who waited for it, and nobody else.
        let outcome = waited_for.and_then(|renewal| renewal.outcome.get()?.as_ref());
        let brought = outcome.and_then(|outcome| outcome.as_ref().ok());
        match (self.usable(now, rejection, brought), outcome) {
            (Some(usable), _) => Ok(Step::Use(usable)),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => self.take_turn(me),
        }
    }

    /// Makes it this thread's turn, if it is nobody's.
    pub(super) fn take_turn(&mut self, me: ThreadId) -> Result<Step, Error> {
        let Some(renewal) = &self.renewal else {
            self.renewal = Some(Arc::new(Renewal { thread: me, outcome: OnceLock::new() }));
            return Ok(Step::Renew);
        };
        if renewal.thread == me {
            let reason = "its tokens are being renewed by the very call that calls back";
            return Err(Error::invalid_input("session", reason));
        }
        Ok(Step::Wait(Arc::clone(renewal)))
    }

    /// What came of a renewal for those who waited for it.
    pub(super) fn outcome(&self, result: &Result<Usable, Error>) -> Outcome {
        match result {
            Ok(usable) if usable.is_renewed => Some(Ok(Arc::clone(&usable.tokens))),
            // The new tokens are held all the same.
            Err(Error::Store { renewed: true, .. }) => self.tokens().map(Ok),
            // A 401 is the call's own.
            Ok(_) | Err(Error::Unauthorized { .. }) => None,
            Err(error) => Some(Err(error.clone())),
        }
    }

    /// Ends the turn, and returns whether anybody waits for that.
    pub(super) fn end_turn(&mut self, outcome: Outcome) -> bool {
        self.needs_sign_in |= matches!(&outcome, Some(Err(error)) if error.needs_sign_in());
        self.renewal.take().is_some_and(|renewal| {
            // Nobody else sets it.
            let _ = renewal.outcome.set(outcome);
            Arc::strong_count(&renewal) > 1
        })
    }

    /// Takes up what the store holds, unless it is older than what is held here.
    pub(super) fn adopt(&mut self, stored: Option<Tokens>, account: Account<'_>) -> io::Result<()> {
        if self.superseded.as_ref() == Some(&stored) {
            return Ok(());
        }
        let Some(tokens) = stored else {
            self.held = None;
            return Ok(());
        };
        check_account(tokens.account(), account)?;
        self.stored();
        if self.held.as_ref().is_none_or(|held| *held.tokens != tokens) {
            self.hold(Arc::new(tokens), Weak::new());
        }
        Ok(())
    }

    /// There are tokens in the store: if it is empty later on, somebody emptied it.
    pub(super) fn stored(&mut self) {
        self.superseded.take_if(|superseded| superseded.is_none());
    }

    /// The tokens that a call may use as they are; stale ones only if a renewal has just
    /// brought them, or if refreshing them is put off.
    fn usable(
        &self,
        now: SystemTime,
        rejection: Option<&Rejection>,
        brought: Option<&Arc<Tokens>>,
    ) -> Option<Usable> {
        let Held { tokens, next_refresh, refusal, .. } = self.held.as_ref()?;
        let is_put_off = next_refresh.is_some_and(|at| now < at) && tokens.time_left(now).is_some();
        let is_usable = refusal.is_none()
            && (tokens.is_fresh_at(now) || is_put_off || brought == Some(tokens))
            && !is_rejected(tokens, rejection);
        is_usable.then(|| Usable::new(tokens, brought.is_some()))
    }

    /// Decides what whoever renews does next.
    ///
    /// # Errors
    /// There is nothing to be refreshed, or the tokens have ended.
    pub(super) fn plan(
        &mut self,
        now: SystemTime,
        rejection: Option<&Rejection>,
    ) -> Result<Plan, Error> {
        if let Some(usable) = self.usable(now, rejection, None) {
            return Ok(Plan::Use(usable));
        }
        let held = self.held.as_mut().ok_or_else(|| self.sign_in_required.clone())?;
        if let Some(refusal) = &held.refusal {
            return Err(refusal.clone());
        }
        let tokens = Arc::clone(&held.tokens);
        let rejection = rejection.filter(|_| is_rejected(&tokens, rejection));
        let is_early = rejection.is_none() && tokens.time_left(now).is_some();
        match rejection {
            _ if tokens.refresh_token().is_none() && is_early => {
                held.next_refresh = Some(tokens.expires_at());
                Ok(Plan::Use(Usable::new(&tokens, false)))
            }
            _ if tokens.refresh_token().is_none() => {
                Err(self.sign_in_required.clone().into_unrefreshable())
            }
            Some(rejection) if held.is_final(now, rejection) => {
                Ok(Plan::Unauthorized(rejection.error.clone()))
            }
            _ => Ok(Plan::Refresh(tokens, is_early)),
        }
    }

    /// Holds new tokens, which came in the place of what the store holds.
    pub(super) fn renewed(&mut self, tokens: Tokens, stored: Option<Tokens>) -> Usable {
        let (tokens, first_use) = (Arc::new(tokens), Arc::new(()));
        self.superseded = Some(stored);
        self.hold(Arc::clone(&tokens), Arc::downgrade(&first_use));
        Usable { tokens, is_renewed: true, first_use: Some(first_use) }
    }

    /// A refresh failed, or couldn't be begun. Tokens that are alive are used all the same.
    pub(super) fn refresh_failed(
        &mut self,
        now: SystemTime,
        is_early: bool,
        error: Error,
    ) -> Result<Usable, Error> {
        let Some(held) = &mut self.held else { return Err(error) };
        let (tokens, is_refusal) = (&held.tokens, error.needs_sign_in());
        if let Some(left) = tokens.time_left(now).filter(|_| is_early) {
            held.next_refresh = Some(if is_refusal { tokens.expires_at() } else { now + left / 2 });
            return Ok(Usable::new(tokens, false));
        }
        held.refusal = (is_refusal && !is_early).then(|| error.clone());
        Err(error)
    }

    /// The tokens that somebody else's sign-in has brought to one that was needed when it
    /// began.
    pub(super) fn signed_in_by_others(&self, now: SystemTime, was_needed: bool) -> Option<Usable> {
        let is_done = was_needed && !self.needs_sign_in;
        self.usable(now, None, None).filter(|_| is_done)
    }

    fn hold(&mut self, tokens: Arc<Tokens>, first_use: Weak<()>) {
        self.needs_sign_in = false;
        self.held = Some(Held::new(tokens, first_use));
    }
}

impl Held {
    fn new(tokens: Arc<Tokens>, first_use: Weak<()>) -> Self {
        Self { tokens, next_refresh: None, refusal: None, is_refresh_useless: false, first_use }
    }

    /// Whether a 401 to these tokens goes to the caller, as another refresh won't help.
    fn is_final(&mut self, now: SystemTime, rejection: &Rejection) -> bool {
        self.is_refresh_useless |= rejection.is_renewed;
        let is_in_doubt = self.is_refresh_useless || self.first_use.strong_count() > 0;
        rejection.is_renewed || is_in_doubt && self.tokens.time_left(now).is_some()
    }
}

impl Usable {
    pub(super) fn new(tokens: &Arc<Tokens>, is_renewed: bool) -> Self {
        Self { tokens: Arc::clone(tokens), is_renewed, first_use: None }
    }
}

fn is_rejected(tokens: &Tokens, rejection: Option<&Rejection>) -> bool {
    rejection.is_some_and(|rejection| rejection.tokens.access_token() == tokens.access_token())
}

/// Refuses tokens of another account.
pub(super) fn check_account(theirs: Account<'_>, ours: Account<'_>) -> io::Result<()> {
    for (what, theirs, ours) in [
        ("base URL", theirs.base_url, ours.base_url),
        ("app id", theirs.app_id, ours.app_id),
        ("user name", theirs.email, ours.email),
    ] {
        if theirs != ours {
            let reason = format!("it belongs to another account: its {what} differs");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::collections::hash_map::DefaultHasher;
    use std::hash::{Hash, Hasher};
    use std::thread;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::error::Operation;
    use crate::secret::{AccessToken, RefreshToken};

    const ACCOUNT: Account<'_> =
        Account { base_url: "https://example.com", app_id: "id", email: "me@example.com" };

    /// Seconds in the time of a test.
    fn time(seconds: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(1_000_000 + seconds).unwrap())
    }

    /// The pair of this number, issued an hour before it expires.
    fn pair(number: usize, expires: i64) -> Tokens {
        let access_token = AccessToken::new(number.to_string()).unwrap();
        let refresh_token = RefreshToken::new(number.to_string()).unwrap();
        Tokens::new(ACCOUNT, access_token, Some(refresh_token))
            .with_times(time(expires - 3600), time(expires))
    }

    fn number(tokens: &Tokens) -> usize {
        tokens.access_token().secret().parse().unwrap()
    }

    fn operation() -> Operation {
        let resource = String::new();
        Operation::Read { resource }
    }

    fn failure() -> Error {
        Error::Status { operation: operation(), status: 503, text: None }
    }

    fn refusal(status: Option<u16>) -> Error {
        Error::SignInRequired { operation: operation(), status, text: None }
    }

    fn unauthorized() -> Error {
        Error::Unauthorized { operation: operation(), status: 401, text: None }
    }

    fn store_error(renewed: bool) -> Error {
        Error::Store {
            name: String::new(),
            renewed,
            source: Arc::new(io::ErrorKind::TimedOut.into()),
        }
    }

    fn me() -> ThreadId {
        thread::current().id()
    }

    fn rejection(tokens: &Tokens, is_renewed: bool) -> Rejection {
        Rejection { tokens: Arc::new(tokens.clone()), is_renewed, error: unauthorized() }
    }

    fn new_state(tokens: Option<Tokens>) -> State {
        State::new(tokens, refusal(None))
    }

    fn is_refresh(plan: &Result<Plan, Error>) -> Option<bool> {
        match plan {
            Ok(Plan::Refresh(_, is_early)) => Some(*is_early),
            _ => None,
        }
    }

    // Single rules.

    #[test]
    fn a_refresh_refused_early_is_tried_once_more_at_the_expiry() {
        let mut state = new_state(Some(pair(0, 40)));
        assert_eq!(is_refresh(&state.plan(time(0), None)), Some(true));
        let failed = state.refresh_failed(time(0), true, refusal(Some(400)));
        assert_eq!(number(&failed.unwrap().tokens), 0);
        assert!(matches!(state.plan(time(39), None), Ok(Plan::Use(_))));
        assert_eq!(is_refresh(&state.plan(time(40), None)), Some(false));
        let failed = state.refresh_failed(time(40), false, refusal(Some(400)));
        assert!(failed.is_err());
        assert!(state.plan(time(41), None).is_err());
    }

    #[test]
    fn an_early_refresh_that_fails_is_tried_again_at_half_of_the_remaining_life() {
        let mut state = new_state(Some(pair(0, 40)));
        let failed = state.refresh_failed(time(0), true, failure());
        assert!(failed.is_ok());
        assert!(matches!(state.plan(time(19), None), Ok(Plan::Use(_))));
        assert_eq!(is_refresh(&state.plan(time(20), None)), Some(true));
    }

    #[test]
    fn a_token_that_dies_during_an_early_refresh_is_not_used_nor_its_refusal_final() {
        let mut state = new_state(Some(pair(0, 40)));
        let failed = state.refresh_failed(time(41), true, refusal(Some(400)));
        assert!(failed.is_err());
        assert_eq!(is_refresh(&state.plan(time(42), None)), Some(false));
    }

    #[test]
    fn without_a_refresh_token_a_token_is_used_until_it_expires_or_meets_a_401() {
        let access_token = AccessToken::new("0").unwrap();
        let tokens = Tokens::new(ACCOUNT, access_token, None).with_times(time(-3560), time(40));
        let mut state = new_state(Some(tokens.clone()));
        let met = rejection(&tokens, true);
        assert!(state.plan(time(0), Some(&met)).is_err());
        assert!(matches!(state.plan(time(0), None), Ok(Plan::Use(_))));
        assert!(state.plan(time(40), None).is_err());
    }

    #[test]
    fn what_a_store_held_before_a_failed_storing_is_not_taken_up_again() {
        for stored in [None, Some(pair(0, 40))] {
            let mut state = new_state(None);
            state.adopt(stored.clone(), ACCOUNT).unwrap();
            for number in 1..4 {
                drop(state.renewed(pair(number, 3600), stored.clone()));
                state.adopt(stored.clone(), ACCOUNT).unwrap();
                assert_eq!(self::number(&state.tokens().unwrap()), number);
            }
        }
    }

    #[test]
    fn a_store_that_somebody_emptied_is_a_fresh_start() {
        // Stored by the session itself, and by somebody else after a failed storing.
        let mut own = new_state(None);
        drop(own.renewed(pair(1, 3600), None));
        own.stored();
        let mut others = new_state(None);
        drop(others.renewed(pair(1, 3600), None));
        others.adopt(Some(pair(2, 3600)), ACCOUNT).unwrap();
        for mut state in [own, others] {
            state.adopt(None, ACCOUNT).unwrap();
            assert!(state.tokens().is_none());
        }
    }

    #[test]
    fn tokens_of_another_account_are_refused() {
        let mut state = new_state(Some(pair(0, 3600)));
        for (what, account) in [
            ("base URL", Account { base_url: "https://other", ..ACCOUNT }),
            ("app id", Account { app_id: "other", ..ACCOUNT }),
            ("user name", Account { email: "other", ..ACCOUNT }),
        ] {
            let error = state.adopt(Some(pair(1, 3600)), account).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(what), "{error}");
        }
        assert_eq!(number(&state.tokens().unwrap()), 0);
    }

    #[test]
    fn a_sign_in_takes_up_what_others_brought_since_it_was_needed_and_nothing_else() {
        let old = pair(0, 3600);
        for (was_needed, stored, taken) in [
            (true, pair(1, 3600), Some(1)),
            (true, old.clone(), None),
            (true, pair(1, 0), None),
            (false, pair(1, 3600), None),
        ] {
            let mut state = new_state(Some(old.clone()));
            if was_needed {
                state.end_turn(Some(Err(refusal(None))));
            }
            let was_needed = state.needs_sign_in;
            state.adopt(Some(stored), ACCOUNT).unwrap();
            let others = state.signed_in_by_others(time(0), was_needed);
            assert_eq!(others.map(|usable| number(&usable.tokens)), taken);
        }
    }

    #[test]
    fn whoever_renews_is_told_at_once_and_others_wait() {
        let mut state = new_state(Some(pair(0, 0)));
        assert!(matches!(state.step(time(0), me(), None, None), Ok(Step::Renew)));
        assert!(state.step(time(0), me(), None, None).is_err());
        assert!(state.take_turn(me()).is_err());
        let other = thread::spawn(me).join().unwrap();
        assert!(matches!(state.step(time(0), other, None, None), Ok(Step::Wait(_))));
        state.end_turn(None);
        assert!(matches!(state.step(time(0), other, None, None), Ok(Step::Renew)));
    }

    #[test]
    fn a_useless_refresh_is_made_again_once_the_token_has_expired_or_was_replaced() {
        let tokens = pair(1, 100);
        let mut state = new_state(Some(tokens.clone()));
        let plan = state.plan(time(0), Some(&rejection(&tokens, true)));
        assert!(matches!(plan, Ok(Plan::Unauthorized(_))));
        let met = rejection(&tokens, false);
        assert!(matches!(state.plan(time(99), Some(&met)), Ok(Plan::Unauthorized(_))));
        assert_eq!(is_refresh(&state.plan(time(100), Some(&met))), Some(false));
        state.adopt(Some(pair(2, 100)), ACCOUNT).unwrap();
        let met = rejection(&pair(2, 100), false);
        assert_eq!(is_refresh(&state.plan(time(0), Some(&met))), Some(false));
    }

    #[test]
    fn a_call_refreshes_once_even_if_what_that_brings_has_expired() {
        let tokens = pair(1, 0);
        let mut state = new_state(Some(tokens.clone()));
        let plan = state.plan(time(0), Some(&rejection(&tokens, true)));
        assert!(matches!(plan, Ok(Plan::Unauthorized(_))));
    }

    // All interleavings of three callers. A caller's program is that of `Session::call`,
    // cut where it takes or leaves a lock, or sends.

    /// Where a caller stands: what it does next.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    enum At {
        Step,
        Wait,
        Load,
        Plan,
        /// Takes the store's lock, and plans anew.
        Update,
        Send,
        Response,
        Write,
        Stored,
        EndTurn,
        Get,
        Done,
    }

    struct Caller {
        thread: ThreadId,
        at: At,
        calls_left: u8,
        /// Its resource is answered 401 whatever the token.
        is_stubborn: bool,
        waited_for: Option<Arc<Renewal>>,
        loaded: Option<Tokens>,
        refreshes: Option<(Arc<Tokens>, bool)>,
        response: Option<Result<Tokens, Error>>,
        result: Option<Result<Usable, Error>>,
        usable: Option<Usable>,
        rejection: Option<Rejection>,
        /// Refreshes that this call has sent, and whether one of a failure was waited for.
        sent: u8,
        shared_failure: bool,
    }

    /// What becomes of refreshes.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    enum Refresh {
        Succeeds,
        Fails,
        IsRefused,
    }

    /// What others, and the clock, may still do.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    struct Budget {
        /// Steps of the clock by 20 seconds.
        ticks: u8,
        /// Sign-ins of another process.
        sign_ins: u8,
        /// Refreshes of another process.
        refreshes: u8,
        removals: u8,
        /// Storings that fail, and locks that are not to be had.
        failed_writes: u8,
        failed_locks: u8,
    }

    /// A pair as the server knows it.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    struct Issued {
        expires: i64,
        is_revoked: bool,
        is_replaced: bool,
        /// Refused when it was no more early.
        is_refused: bool,
    }

    struct World {
        state: State,
        now: i64,
        callers: Vec<Caller>,
        refresh: &'static [Refresh],
        store: Option<Tokens>,
        /// Who has the store's lock: a caller, or another process.
        lock: Option<usize>,
        /// What the other process is about to store.
        others: Option<Tokens>,
        budget: Budget,
        issued: Vec<Issued>,
        /// How long what is issued lives.
        lifetime: i64,
        refreshed: u8,
        /// What has to hold at the end.
        most_refreshes: u8,
        good_calls_succeed: bool,
    }

    const OTHER: usize = usize::MAX;

    impl World {
        fn new(expires: i64, is_revoked: bool, refresh: &'static [Refresh]) -> Self {
            let tokens = pair(0, expires);
            Self {
                state: new_state(Some(tokens.clone())),
                now: 0,
                callers: Vec::new(),
                refresh,
                store: Some(tokens),
                lock: None,
                others: None,
                budget: Budget::default(),
                issued: vec![Issued { expires, is_revoked, ..Issued::default() }],
                lifetime: 3600,
                refreshed: 0,
                most_refreshes: u8::MAX,
                good_calls_succeed: false,
            }
        }

        /// Three callers, each with so many calls to make; those beyond the first few
        /// read a stubborn resource.
        fn with_callers(mut self, calls: [u8; 3], good: usize) -> Self {
            for (i, calls) in calls.into_iter().enumerate() {
                self.callers.push(Caller {
                    thread: thread::spawn(me).join().unwrap(),
                    at: At::Step,
                    calls_left: calls,
                    is_stubborn: i >= good,
                    waited_for: None,
                    loaded: None,
                    refreshes: None,
                    response: None,
                    result: None,
                    usable: None,
                    rejection: None,
                    sent: 0,
                    shared_failure: false,
                });
            }
            self
        }

        fn now(&self) -> SystemTime {
            time(self.now)
        }

        fn issue(&mut self) -> Tokens {
            let expires = self.now + self.lifetime;
            self.issued.push(Issued { expires, ..Issued::default() });
            pair(self.issued.len() - 1, expires)
        }

        /// The server exchanges a pair, which it does once.
        fn exchange(&mut self, tokens: &Tokens) -> Tokens {
            let old = &mut self.issued[number(tokens)];
            assert!(!old.is_replaced, "a pair was sent after it was replaced");
            (old.is_replaced, old.is_revoked) = (true, true);
            self.issue()
        }

        /// All that can happen next, as pairs of who and which of its ways.
        fn moves(&self) -> Vec<(usize, usize)> {
            let mut moves = Vec::new();
            for (i, caller) in self.callers.iter().enumerate() {
                let ways = match caller.at {
                    At::Done => 0,
                    At::Wait => {
                        usize::from(caller.waited_for.as_ref().unwrap().outcome.get().is_some())
                    }
                    At::Update if self.lock.is_some() => {
                        usize::from(self.budget.failed_locks > 0) * 2
                    }
                    At::Send => self.refresh.len(),
                    At::Write => 1 + usize::from(self.budget.failed_writes > 0),
                    _ => 1,
                };
                // The way 0 of an update is to have the lock.
                let first = usize::from(caller.at == At::Update && self.lock.is_some());
                moves.extend((first..ways).map(|way| (i, way)));
            }
            let is_free = self.lock.is_none();
            let is_going_on = !moves.is_empty();
            let others = [
                self.budget.ticks > 0,
                self.budget.sign_ins > 0 && is_free,
                self.budget.refreshes > 0 && is_free && self.can_others_refresh(),
                self.others.is_some(),
                self.budget.removals > 0,
            ];
            for (way, is_possible) in others.into_iter().enumerate() {
                if is_possible && (is_going_on || way == 3) {
                    moves.push((OTHER, way));
                }
            }
            moves
        }

        fn can_others_refresh(&self) -> bool {
            let stored = self.store.as_ref().map(|tokens| self.issued[number(tokens)]);
            stored.is_some_and(|issued| !issued.is_replaced && !issued.is_refused)
        }

        fn make(&mut self, (who, way): (usize, usize)) {
            if who != OTHER {
                return self.advance(who, way);
            }
            match way {
                0 => {
                    self.budget.ticks -= 1;
                    self.now += 20;
                }
                1 => {
                    self.budget.sign_ins -= 1;
                    self.store = Some(self.issue());
                }
                2 => {
                    self.budget.refreshes -= 1;
                    let tokens = self.store.clone().unwrap();
                    self.others = Some(self.exchange(&tokens));
                    self.lock = Some(OTHER);
                }
                3 => {
                    self.store = self.others.take();
                    self.lock = None;
                }
                _ => {
                    self.budget.removals -= 1;
                    self.store = None;
                }
            }
        }

        fn advance(&mut self, i: usize, way: usize) {
            let now = self.now();
            let caller = &mut self.callers[i];
            match caller.at {
                At::Step | At::Wait => self.step(i),
                At::Load => {
                    caller.loaded = self.store.clone();
                    caller.at = At::Plan;
                }
                At::Plan => {
                    let adopted = self.state.adopt(caller.loaded.take(), ACCOUNT);
                    adopted.unwrap();
                    match self.state.plan(now, caller.rejection.as_ref()) {
                        Ok(Plan::Use(usable)) => self.renewed(i, Ok(usable)),
                        Err(error) => self.renewed(i, Err(error)),
                        Ok(_) => caller.at = At::Update,
                    }
                }
                At::Update if way == 0 => self.update(i),
                At::Update => {
                    self.budget.failed_locks -= 1;
                    self.state.adopt(self.store.clone(), ACCOUNT).unwrap();
                    let result = match self.state.plan(now, caller.rejection.as_ref()) {
                        Ok(Plan::Use(usable)) => Ok(usable),
                        Ok(Plan::Refresh(_, is_early)) => {
                            self.state.refresh_failed(now, is_early, store_error(false))
                        }
                        Ok(Plan::Unauthorized(error)) => Err(error),
                        Err(_) => Err(store_error(false)),
                    };
                    self.renewed(i, result);
                }
                At::Send => self.send(i, way),
                At::Response => {
                    let stored = caller.loaded.take();
                    match caller.response.take().unwrap() {
                        Ok(tokens) => {
                            caller.result = Some(Ok(self.state.renewed(tokens, stored)));
                            caller.at = At::Write;
                        }
                        Err(error) => {
                            let (_, is_early) = caller.refreshes.take().unwrap();
                            let is_refusal = error.needs_sign_in();
                            let result = self.state.refresh_failed(now, is_early, error);
                            assert!(!(is_early && is_refusal && self.is_refused()));
                            self.lock = None;
                            self.renewed(i, result);
                        }
                    }
                }
                At::Write => {
                    self.lock = None;
                    if way == 0 {
                        let usable = caller.result.as_ref().unwrap().as_ref().ok().unwrap();
                        self.store = Some(Tokens::clone(&usable.tokens));
                        caller.at = At::Stored;
                    } else {
                        self.budget.failed_writes -= 1;
                        self.renewed(i, Err(store_error(true)));
                    }
                }
                At::Stored => {
                    self.state.stored();
                    caller.at = At::EndTurn;
                }
                At::EndTurn => {
                    let result = caller.result.take().unwrap();
                    let outcome = self.state.outcome(&result);
                    let is_refreshed = match &result {
                        Ok(usable) => usable.is_renewed,
                        Err(error) => matches!(error, Error::Store { renewed: true, .. }),
                    };
                    let is_success = matches!(outcome, Some(Ok(_)));
                    assert_eq!(is_refreshed, is_success, "a success is everybody's");
                    self.state.end_turn(outcome);
                    match result {
                        Ok(usable) => self.start_get(i, usable),
                        Err(error) => self.finish(i, Some(error)),
                    }
                }
                At::Get => self.get(i),
                At::Done => {}
            }
        }

        fn step(&mut self, i: usize) {
            let now = self.now();
            let caller = &mut self.callers[i];
            let waited_for = caller.waited_for.take();
            let rejection = caller.rejection.as_ref();
            let step = self.state.step(now, caller.thread, rejection, waited_for.as_deref());
            let outcome = waited_for.as_ref().map(|renewal| renewal.outcome.get());
            let outcome = outcome.map(|outcome| outcome.expect("woken at the end of a turn"));
            if let Some(Some(Err(_))) = outcome {
                caller.shared_failure = true;
                let is_told = matches!(step, Ok(Step::Use(_)) | Err(_));
                assert!(is_told, "a failure holds for those who waited");
            }
            if let Some(Some(Ok(tokens))) = outcome {
                let held = self.state.held.as_ref();
                let is_good = held.is_some_and(|h| h.tokens == *tokens && h.refusal.is_none());
                if is_good && !is_rejected(tokens, rejection) {
                    let is_used = matches!(&step, Ok(Step::Use(usable)) if usable.is_renewed);
                    assert!(is_used, "a success holds for those who waited");
                }
            }
            match step {
                Ok(Step::Use(usable)) => self.start_get(i, usable),
                Ok(Step::Wait(renewal)) => {
                    caller.waited_for = Some(renewal);
                    caller.at = At::Wait;
                }
                Ok(Step::Renew) => {
                    caller.at = At::Load;
                    let turns = self.callers.iter().filter(|c| c.has_turn()).count();
                    assert_eq!(turns, 1, "one renews at a time");
                }
                Err(error) => {
                    assert!(caller.shared_failure, "somebody else's failure: {error}");
                    self.finish(i, Some(error));
                }
            }
        }

        fn update(&mut self, i: usize) {
            let now = self.now();
            let caller = &mut self.callers[i];
            self.state.adopt(self.store.clone(), ACCOUNT).unwrap();
            let result = match self.state.plan(now, caller.rejection.as_ref()) {
                Ok(Plan::Use(usable)) => Ok(usable),
                Ok(Plan::Unauthorized(error)) | Err(error) => Err(error),
                Ok(Plan::Refresh(tokens, is_early)) => {
                    caller.loaded = self.store.clone();
                    caller.refreshes = Some((tokens, is_early));
                    caller.at = At::Send;
                    self.lock = Some(i);
                    return;
                }
            };
            self.renewed(i, result);
        }

        fn send(&mut self, i: usize, way: usize) {
            let (tokens, is_early) = self.callers[i].refreshes.clone().unwrap();
            let issued = self.issued[number(&tokens)];
            assert!(!issued.is_replaced, "a pair was sent after it was replaced");
            assert!(!issued.is_refused, "a pair was sent after its final refusal");
            let response = match self.refresh[way] {
                Refresh::Succeeds => {
                    self.refreshed += 1;
                    Ok(self.exchange(&tokens))
                }
                Refresh::Fails => Err(failure()),
                Refresh::IsRefused => {
                    self.issued[number(&tokens)].is_refused = !is_early;
                    Err(refusal(Some(400)))
                }
            };
            let caller = &mut self.callers[i];
            assert!(caller.sent == 0 || caller.rejection.is_some(), "one refresh");
            caller.sent += 1;
            caller.response = Some(response);
            caller.at = At::Response;
        }

        fn renewed(&mut self, i: usize, result: Result<Usable, Error>) {
            self.callers[i].result = Some(result);
            self.callers[i].at = At::EndTurn;
        }

        fn start_get(&mut self, i: usize, mut usable: Usable) {
            let caller = &mut self.callers[i];
            let rejection = caller.rejection.as_ref();
            assert!(!is_rejected(&usable.tokens, rejection), "used after a 401");
            let held = self.state.held.as_ref();
            let refused = held.filter(|held| held.refusal.is_some());
            let is_dead = refused.is_some_and(|held| held.tokens == usable.tokens);
            assert!(!is_dead, "used after the final refusal");
            usable.is_renewed |= rejection.is_some_and(|rejection| rejection.is_renewed);
            caller.usable = Some(usable);
            caller.at = At::Get;
        }

        fn get(&mut self, i: usize) {
            let caller = &mut self.callers[i];
            let mut usable = caller.usable.take().unwrap();
            let issued = self.issued[number(&usable.tokens)];
            let is_good = !issued.is_revoked && self.now < issued.expires && !caller.is_stubborn;
            if is_good {
                return self.finish(i, None);
            }
            caller.rejection = Some(Rejection {
                tokens: Arc::clone(&usable.tokens),
                is_renewed: usable.is_renewed,
                error: unauthorized(),
            });
            // Kept until the call has other tokens, or ends.
            usable.is_renewed = false;
            caller.usable = Some(usable);
            caller.at = At::Step;
        }

        fn finish(&mut self, i: usize, error: Option<Error>) {
            let caller = &mut self.callers[i];
            if self.good_calls_succeed && !caller.is_stubborn {
                assert!(error.is_none(), "a good call failed: {error:?}");
            }
            if let Some(Error::Status { .. }) = error {
                let is_own = caller.sent > 0 || caller.shared_failure;
                assert!(is_own, "a failure of nobody's");
                let is_early = caller.rejection.is_none() && self.now < self.issued[0].expires;
                assert!(!is_early, "a token that is alive is used");
            }
            caller.calls_left -= 1;
            caller.at = if caller.calls_left == 0 { At::Done } else { At::Step };
            (caller.usable, caller.rejection) = (None, None);
            (caller.sent, caller.shared_failure) = (0, false);
        }

        fn is_refused(&self) -> bool {
            self.state.held.as_ref().is_some_and(|h| h.refusal.is_some())
        }

        fn check_end(&self) {
            let is_done = self.callers.iter().all(|caller| caller.at == At::Done);
            assert!(is_done, "a caller waits for ever");
            assert!(self.state.renewal.is_none() && self.lock.is_none());
            assert!(self.refreshed <= self.most_refreshes, "{} refreshes", self.refreshed);
        }
    }

    impl Caller {
        fn has_turn(&self) -> bool {
            !matches!(self.at, At::Step | At::Wait | At::Get | At::Done)
        }
    }

    /// A copy of a world shares nothing that changes with it.
    impl Clone for World {
        fn clone(&self) -> Self {
            let mut renewals = Copies::default();
            let mut first_uses = Copies::default();
            let copy_renewal = |renewal: &Renewal| Renewal {
                thread: renewal.thread,
                outcome: renewal.outcome.clone(),
            };
            let mut renewal =
                |r: &Option<Arc<Renewal>>| r.as_ref().map(|r| renewals.of(r, copy_renewal));
            let mut usable = |usable: &Usable| Usable {
                tokens: Arc::clone(&usable.tokens),
                is_renewed: usable.is_renewed,
                first_use: usable.first_use.as_ref().map(|u| first_uses.of(u, |()| ())),
            };
            let mut callers = Vec::new();
            for caller in &self.callers {
                callers.push(Caller {
                    waited_for: renewal(&caller.waited_for),
                    loaded: caller.loaded.clone(),
                    refreshes: caller.refreshes.clone(),
                    response: caller.response.clone(),
                    result: caller.result.as_ref().map(|result| match result {
                        Ok(result) => Ok(usable(result)),
                        Err(error) => Err(error.clone()),
                    }),
                    usable: caller.usable.as_ref().map(&mut usable),
                    rejection: caller.rejection.as_ref().map(|r| Rejection {
                        tokens: Arc::clone(&r.tokens),
                        is_renewed: r.is_renewed,
                        error: r.error.clone(),
                    }),
                    ..*caller
                });
            }
            let state = State {
                sign_in_required: refusal(None),
                renewal: renewal(&self.state.renewal),
                superseded: self.state.superseded.clone(),
                needs_sign_in: self.state.needs_sign_in,
                held: self.state.held.as_ref().map(|held| Held {
                    tokens: Arc::clone(&held.tokens),
                    next_refresh: held.next_refresh,
                    refusal: held.refusal.clone(),
                    is_refresh_useless: held.is_refresh_useless,
                    first_use: match held.first_use.upgrade() {
                        Some(first_use) => Arc::downgrade(&first_uses.of(&first_use, |()| ())),
                        None => Weak::new(),
                    },
                }),
            };
            Self {
                state,
                callers,
                store: self.store.clone(),
                others: self.others.clone(),
                issued: self.issued.clone(),
                ..*self
            }
        }
    }

    /// Copies of what several share, shared alike.
    struct Copies<T>(Vec<(*const T, Arc<T>)>);

    impl<T> Default for Copies<T> {
        fn default() -> Self {
            Self(Vec::new())
        }
    }

    impl<T> Copies<T> {
        fn of(&mut self, original: &Arc<T>, copy: impl Fn(&T) -> T) -> Arc<T> {
            let address = Arc::as_ptr(original);
            let known = self.0.iter().find(|(known, _)| *known == address);
            if let Some((_, copied)) = known {
                return Arc::clone(copied);
            }
            let copied = Arc::new(copy(original));
            self.0.push((address, Arc::clone(&copied)));
            copied
        }
    }

    /// Two worlds of the same hash go on in the same ways.
    impl Hash for World {
        fn hash<H: Hasher>(&self, hasher: &mut H) {
            let id = |tokens: &Option<Tokens>| tokens.as_ref().map(number);
            let kind = |error: &Error| std::mem::discriminant(error);
            let usable = |usable: &Usable| {
                (number(&usable.tokens), usable.is_renewed, usable.first_use.is_some())
            };
            for caller in &self.callers {
                (caller.at, caller.calls_left, id(&caller.loaded)).hash(hasher);
                let waited_for = caller.waited_for.as_ref();
                let outcome = waited_for.map(|renewal| match renewal.outcome.get() {
                    Some(Some(Ok(tokens))) => number(tokens),
                    Some(Some(Err(error))) if error.needs_sign_in() => 1001,
                    Some(Some(Err(_))) => 1002,
                    Some(None) => 1003,
                    None => 1004,
                });
                outcome.hash(hasher);
                let refreshes = caller.refreshes.as_ref();
                refreshes.map(|(tokens, is_early)| (number(tokens), is_early)).hash(hasher);
                let response = caller.response.as_ref();
                response.map(|r| r.as_ref().map(number).map_err(kind)).hash(hasher);
                let result = caller.result.as_ref();
                result.map(|r| r.as_ref().map(usable).map_err(kind)).hash(hasher);
                caller.usable.as_ref().map(usable).hash(hasher);
                let rejection = caller.rejection.as_ref();
                rejection.map(|r| (number(&r.tokens), r.is_renewed)).hash(hasher);
                (caller.sent, caller.shared_failure).hash(hasher);
            }
            if let Some(held) = &self.state.held {
                (number(&held.tokens), held.next_refresh, held.refusal.is_some()).hash(hasher);
                (held.is_refresh_useless, held.first_use.strong_count()).hash(hasher);
            }
            (self.state.superseded.as_ref().map(id), self.state.needs_sign_in).hash(hasher);
            (self.state.renewal.is_some(), self.now, self.lock, self.budget).hash(hasher);
            (id(&self.store), id(&self.others), &self.issued, self.refreshed).hash(hasher);
        }
    }

    /// What was gone through, and the way to where it goes on, told if that is wrong.
    #[derive(Default)]
    struct Explorer {
        known: HashMap<u64, u64>,
        way: Vec<(usize, Option<At>, usize)>,
    }

    impl Explorer {
        /// Counts the interleavings from here on, all of which it goes through.
        fn explore(&mut self, world: &World) -> u64 {
            assert!(self.way.len() < 200, "a call never ends");
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            let hash = hasher.finish();
            if let Some(count) = self.known.get(&hash) {
                return *count;
            }
            let moves = world.moves();
            if moves.is_empty() {
                world.check_end();
            }
            let mut count = u64::from(moves.is_empty());
            for (who, way) in moves {
                let mut world = world.clone();
                let at = world.callers.get(who).map(|caller| caller.at);
                self.way.push((who, at, way));
                world.make((who, way));
                count = count.saturating_add(self.explore(&world));
                self.way.pop();
            }
            self.known.insert(hash, count);
            count
        }
    }

    impl Drop for Explorer {
        fn drop(&mut self) {
            for (who, at, way) in self.way.iter().filter(|_| thread::panicking()) {
                match at {
                    Some(at) => eprintln!("caller {who}: {at:?} {way}"),
                    None => eprintln!("others: {way}"),
                }
            }
        }
    }

    fn check(name: &str, world: &World, at_least: u64) {
        let mut explorer = Explorer::default();
        let count = explorer.explore(world);
        println!("{name}: {count} interleavings of {} states", explorer.known.len());
        assert!(count >= at_least, "{name}: {count}");
    }

    const SUCCEEDS: &[Refresh] = &[Refresh::Succeeds];
    const IS_REFUSED: &[Refresh] = &[Refresh::IsRefused];
    const ANY: &[Refresh] = &[Refresh::Succeeds, Refresh::Fails, Refresh::IsRefused];
    const EXPIRED: i64 = 0;
    const STALE: i64 = 40;
    const FRESH: i64 = 3600;

    #[test]
    fn in_all_interleavings_one_refresh_serves_all() {
        for expires in [EXPIRED, STALE, FRESH] {
            let mut world = World::new(expires, expires == FRESH, SUCCEEDS);
            world.most_refreshes = 1;
            world.good_calls_succeed = true;
            check("success", &world.with_callers([2, 1, 1], 3), 1_000);
        }
    }

    #[test]
    fn in_all_interleavings_each_call_ends_as_it_should() {
        for (expires, is_revoked) in
            [(EXPIRED, false), (STALE, false), (STALE, true), (FRESH, true)]
        {
            let world = World::new(expires, is_revoked, ANY);
            check("any", &world.with_callers([2, 2, 1], 3), 100_000);
        }
    }

    #[test]
    fn in_all_interleavings_a_dead_session_sends_nothing_more() {
        for (expires, is_revoked) in [(EXPIRED, false), (STALE, true), (FRESH, true)] {
            let world = World::new(expires, is_revoked, IS_REFUSED);
            check("dead", &world.with_callers([2, 2, 1], 3), 1_000);
        }
    }

    #[test]
    fn in_all_interleavings_a_live_token_is_used_while_early_refreshes_fail() {
        const FAIL: &[Refresh] = &[Refresh::Fails, Refresh::IsRefused];
        let mut world = World::new(STALE, false, FAIL);
        world.good_calls_succeed = true;
        world.budget.ticks = 1;
        check("early", &world.with_callers([2, 2, 1], 3), 100_000);
        let mut world = World::new(STALE, false, FAIL);
        world.budget.ticks = 2;
        check("expiry", &world.with_callers([2, 1, 1], 3), 100_000);
    }

    #[test]
    fn in_all_interleavings_a_stubborn_resource_costs_one_refresh() {
        // One more for the expiry.
        for (expires, good, most_refreshes) in [(FRESH, 1, 1), (FRESH, 0, 1), (EXPIRED, 1, 2)] {
            let mut world = World::new(expires, false, SUCCEEDS);
            world.most_refreshes = most_refreshes;
            world.good_calls_succeed = true;
            check("stubborn", &world.with_callers([2, 2, 2], good), 100_000);
        }
    }

    #[test]
    fn in_all_interleavings_what_others_bring_is_used_and_nothing_is_sent_twice() {
        for expires in [STALE, FRESH] {
            let mut world = World::new(expires, expires == FRESH, SUCCEEDS);
            world.good_calls_succeed = true;
            world.budget.sign_ins = 1;
            world.budget.refreshes = 1;
            check("others", &world.with_callers([1, 1, 1], 3), 100_000);
        }
        let mut world = World::new(STALE, true, &[Refresh::Succeeds, Refresh::IsRefused]);
        (world.budget.sign_ins, world.budget.removals) = (1, 1);
        check("removed", &world.with_callers([1, 1, 1], 3), 100_000);
        let mut world = World::new(FRESH, false, SUCCEEDS);
        world.good_calls_succeed = true;
        world.budget.refreshes = 1;
        check("stubborn beside others", &world.with_callers([1, 1, 1], 2), 100_000);
    }

    #[test]
    fn in_all_interleavings_no_pair_is_lost_while_the_store_fails() {
        for expires in [STALE, FRESH] {
            let mut world = World::new(expires, expires == FRESH, SUCCEEDS);
            (world.budget.failed_writes, world.budget.ticks) = (2, 1);
            world.lifetime = 70;
            check("unwritable", &world.with_callers([2, 1, 1], 3), 100_000);
            let mut world = World::new(expires, expires == FRESH, SUCCEEDS);
            (world.budget.failed_locks, world.budget.refreshes) = (1, 1);
            check("locked", &world.with_callers([1, 1, 1], 3), 100_000);
        }
    }
}
