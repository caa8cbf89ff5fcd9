//! The policy of a session: which tokens a call may use, who renews them and when, and
//! what comes of it. Nothing here blocks or sends: `renewal` does what is decided here.
//!
//! A fresh token waits for nobody. A stale one is refreshed once for all who wait. One
//! that is alive is used while a refresh ahead of its expiry fails.

use std::sync::{Arc, Weak};
use std::{io, mem, thread::ThreadId, time::SystemTime};

use crate::error::Error;
use crate::tokens::{Account, Tokens};

/// What a session knows of its tokens, and who renews them.
#[derive(Default)]
pub(super) struct State {
    /// The tokens that are held.
    pub(super) tokens: Option<Arc<Tokens>>,
    known: Known,
    /// What the store held when it was last seen to be older than the tokens here: a load
    /// without a lock, or a store that couldn't be written, may bring it back.
    superseded: Option<Option<Arc<Tokens>>>,
    /// The store held just that when it was last looked at.
    is_store_behind: bool,
    /// A call found that a sign-in is needed, and no other tokens have come since.
    pub(super) needs_sign_in: bool,
    /// The number of the latest turn to renew the tokens.
    turn: u64,
    /// Whose turn it is, as long as it lasts.
    renewing: Option<ThreadId>,
    /// Somebody waits for the end of the turn.
    is_waited_for: bool,
    /// What the latest turn that failed has failed with, and its number.
    failure: Option<(u64, Error)>,
}

/// What is known of the tokens that are held, and of no others.
#[derive(Default)]
struct Known {
    /// The turn that brought them, unless they were loaded.
    renewed_in: Option<u64>,
    /// When a refresh ahead of the expiry may be tried again after one that failed.
    next_refresh: Option<SystemTime>,
    /// The server refused, for good, to refresh them.
    refusal: Option<Error>,
    /// A call that had been given them by a renewal was answered 401 all the same.
    is_refresh_useless: bool,
    /// Alive while the call that refreshed them has no response yet, so that nobody knows
    /// whether a refresh helps.
    first_use: Weak<()>,
}

/// What a call has met so far.
#[derive(Default)]
pub(super) struct History {
    /// Of a sign-in: whether one was needed when it began.
    sign_in: Option<bool>,
    /// The tokens that it was answered 401 with, last.
    rejected: Option<Arc<Tokens>>,
    /// A renewal that it made or waited for brought tokens for it.
    is_renewed: bool,
    /// The latest turn whose end it has waited for, to get tokens.
    waited_for: Option<u64>,
    /// Kept, by the call that refreshed its tokens, until it has a response.
    pub(super) first_use: Option<Arc<()>>,
}

/// What whoever renews does next, unless there is nothing to be refreshed.
pub(super) enum Plan {
    Use(Arc<Tokens>),
    /// Refresh these; and whether that is early, ahead of their expiry.
    Refresh {
        tokens: Arc<Tokens>,
        is_early: bool,
    },
    /// Let the call use these, or fail by its 401 to them: it refreshes no more.
    GiveUp(Arc<Tokens>),
}

impl State {
    /// The tokens that a call may use as they are; stale ones only if a renewal that it
    /// waited for has brought them, or if refreshing them is put off. A sign-in uses those
    /// alone that somebody else's has brought to one that was needed when it began.
    pub(super) fn usable(&self, now: SystemTime, call: &mut History) -> Option<Arc<Tokens>> {
        let (tokens, known) = (self.tokens.as_ref()?, &self.known);
        let is_put_off =
            known.next_refresh.is_some_and(|at| now < at) && tokens.time_left(now).is_some();
        let is_brought = known.renewed_in.is_some_and(|turn| call.has_waited_for(turn));
        let is_usable = (tokens.is_fresh_at(now) || is_put_off || is_brought)
            && known.refusal.is_none()
            && !call.is_rejected(tokens)
            && call.sign_in.is_none_or(|was_needed| was_needed && !self.needs_sign_in);
        call.is_renewed |= is_usable && is_brought;
        is_usable.then(|| Arc::clone(tokens))
    }

    /// Makes it this thread's turn to renew; or returns `false`, if that is to wait.
    ///
    /// # Errors
    /// What the turn that the call waited for has failed with, or that this thread would
    /// wait for itself.
    pub(super) fn take_turn(&mut self, me: ThreadId, call: &mut History) -> Result<bool, Error> {
        match (&self.failure, self.renewing) {
            (Some((turn, error)), _) if call.has_waited_for(*turn) => Err(error.clone()),
            (_, Some(thread)) if thread == me => {
                let reason = "its tokens are being renewed by the very call that calls back";
                Err(Error::invalid_input("session", reason))
            }
            (_, Some(_)) => {
                self.is_waited_for = true;
                call.waited_for = Some(self.turn);
                Ok(false)
            }
            (_, None) => {
                self.turn += 1;
                self.renewing = Some(me);
                Ok(true)
            }
        }
    }

    /// The call whose turn it is fails, and with it those who wait.
    pub(super) fn failed(&mut self, error: &Error) {
        self.needs_sign_in |= error.needs_sign_in();
        if error.needs_sign_in() && error.status().is_some() {
            self.known.refusal = Some(error.clone());
        }
        // Tokens that couldn't be stored are held all the same.
        if !matches!(error, Error::Store { renewed: true, .. }) {
            self.failure = Some((self.turn, error.clone()));
        }
    }

    /// Ends the turn, and returns whether anybody waits for that.
    pub(super) fn end_turn(&mut self) -> bool {
        self.renewing = None;
        mem::take(&mut self.is_waited_for)
    }

    /// Takes up what the store holds, unless it is older than what is held here.
    pub(super) fn adopt(&mut self, stored: Option<Tokens>, account: Account<'_>) -> io::Result<()> {
        let stored = stored.map(Arc::new);
        self.is_store_behind = self.superseded.as_ref() == Some(&stored);
        if self.is_store_behind {
            return Ok(());
        }
        if let Some(tokens) = &stored {
            tokens.check_account(account)?;
            self.stored();
        }
        if self.tokens != stored {
            self.hold(stored);
        }
        Ok(())
    }

    /// Decides what whoever renews does next.
    ///
    /// # Errors
    /// The refusal, if refreshing the tokens was refused for good; `None` if there is
    /// nothing to refresh, or nothing to refresh it with.
    pub(super) fn plan(
        &mut self,
        now: SystemTime,
        call: &mut History,
    ) -> Result<Plan, Option<Error>> {
        if let Some(tokens) = self.usable(now, call) {
            return Ok(Plan::Use(tokens));
        }
        let (held, known) = (self.tokens.clone(), &mut self.known);
        if let Some(refusal) = &known.refusal {
            return Err(Some(refusal.clone()));
        }
        let tokens = held.ok_or(None)?;
        let is_rejected = call.is_rejected(&tokens);
        let is_alive = tokens.time_left(now).is_some();
        let is_early = is_alive && !is_rejected;
        if tokens.refresh_token().is_none() {
            if !is_early {
                return Err(None);
            }
            known.next_refresh = Some(tokens.expires_at());
            return Ok(Plan::Use(tokens));
        }
        // A 401 that another refresh won't help against, as far as is known, is the caller's.
        known.is_refresh_useless |= is_rejected && call.is_renewed;
        let is_in_doubt = known.is_refresh_useless || known.first_use.strong_count() > 0;
        let has_refreshed = call.rejected.is_some() && call.is_renewed;
        if has_refreshed || is_rejected && is_in_doubt && is_alive {
            return Ok(Plan::GiveUp(tokens));
        }
        Ok(Plan::Refresh { tokens, is_early })
    }

    /// Holds new tokens, which came in the place of what the store holds.
    pub(super) fn renewed(&mut self, tokens: Tokens, call: &mut History) -> Arc<Tokens> {
        if !self.is_store_behind {
            self.superseded = Some(self.tokens.take());
        }
        let tokens = Arc::new(tokens);
        self.hold(Some(Arc::clone(&tokens)));
        self.known.renewed_in = Some(self.turn);
        self.known.first_use = Arc::downgrade(call.first_use.insert(Arc::default()));
        call.is_renewed = true;
        tokens
    }

    /// Puts the next refresh off after one that failed, or couldn't be begun, ahead of the
    /// expiry: to the expiry if it was refused, else to when half of the remaining life has
    /// gone. What is next is planned anew.
    ///
    /// # Errors
    /// The same, unless it is a refusal, if the tokens have expired meanwhile.
    pub(super) fn put_off(&mut self, now: SystemTime, error: Error) -> Result<(), Error> {
        let is_refusal = error.needs_sign_in();
        let Some(left) = self.tokens.as_ref().and_then(|tokens| tokens.time_left(now)) else {
            // A refusal of what hadn't expired when it was sent isn't the last word.
            return if is_refusal { Ok(()) } else { Err(error) };
        };
        self.known.next_refresh = Some(now + if is_refusal { left } else { left / 2 });
        Ok(())
    }

    /// The tokens that this turn has brought.
    pub(super) fn new_tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref().filter(|_| self.known.renewed_in == Some(self.turn))
    }

    /// There are tokens in the store: if it is empty later on, somebody emptied it.
    pub(super) fn stored(&mut self) {
        self.superseded.take_if(|superseded| superseded.is_none());
    }

    fn hold(&mut self, tokens: Option<Arc<Tokens>>) {
        self.needs_sign_in &= tokens.is_none();
        self.tokens = tokens;
        self.known = Known::default();
    }
}

impl History {
    pub(super) fn of_sign_in(is_needed: bool) -> Self {
        Self { sign_in: Some(is_needed), ..Self::default() }
    }

    /// The call was answered 401.
    pub(super) fn reject(&mut self, tokens: Arc<Tokens>) {
        self.rejected = Some(tokens);
        self.waited_for = None;
    }

    /// Whether what came of this turn holds for the call: it wants tokens, and has waited
    /// for the turn, or for one before and is late to look.
    fn has_waited_for(&self, turn: u64) -> bool {
        self.sign_in.is_none() && self.waited_for.is_some_and(|waited_for| waited_for <= turn)
    }

    pub(super) fn is_rejected(&self, tokens: &Tokens) -> bool {
        let rejected = self.rejected.as_ref().map(|rejected| rejected.access_token());
        rejected == Some(tokens.access_token())
    }
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

    fn sign_in_required(error: Option<Error>) -> Error {
        error.unwrap_or_else(|| refusal(None))
    }

    fn me() -> ThreadId {
        thread::current().id()
    }

    /// A call that has met nothing yet.
    fn call() -> History {
        History::default()
    }

    fn rejection(tokens: &Tokens, is_renewed: bool) -> History {
        History { rejected: Some(Arc::new(tokens.clone())), is_renewed, ..call() }
    }

    fn new_state(tokens: Option<Tokens>) -> State {
        State { tokens: tokens.map(Arc::new), ..State::default() }
    }

    fn is_refresh(plan: &Result<Plan, Option<Error>>) -> Option<bool> {
        match plan {
            Ok(Plan::Refresh { is_early, .. }) => Some(*is_early),
            _ => None,
        }
    }

    // Single rules.

    #[test]
    fn a_refresh_refused_early_is_tried_once_more_at_the_expiry() {
        let mut state = new_state(Some(pair(0, 40)));
        assert_eq!(is_refresh(&state.plan(time(0), &mut call())), Some(true));
        state.put_off(time(0), refusal(Some(400))).unwrap();
        for seconds in [0, 39] {
            let plan = state.plan(time(seconds), &mut call());
            assert!(matches!(plan, Ok(Plan::Use(tokens)) if number(&tokens) == 0));
        }
        assert_eq!(is_refresh(&state.plan(time(40), &mut call())), Some(false));
        state.failed(&refusal(Some(400)));
        assert!(matches!(state.plan(time(41), &mut call()), Err(Some(_))));
    }

    #[test]
    fn an_early_refresh_that_fails_is_tried_again_at_half_of_the_remaining_life() {
        let mut state = new_state(Some(pair(0, 40)));
        state.put_off(time(0), failure()).unwrap();
        for seconds in [0, 19] {
            assert!(matches!(state.plan(time(seconds), &mut call()), Ok(Plan::Use(_))));
        }
        assert_eq!(is_refresh(&state.plan(time(20), &mut call())), Some(true));
    }

    #[test]
    fn a_token_that_dies_during_an_early_refresh_is_not_used_nor_its_refusal_final() {
        let mut state = new_state(Some(pair(0, 40)));
        assert!(state.put_off(time(41), failure()).is_err());
        state.put_off(time(41), refusal(Some(400))).unwrap();
        assert_eq!(is_refresh(&state.plan(time(41), &mut call())), Some(false));
    }

    #[test]
    fn without_a_refresh_token_a_token_is_used_until_it_expires_or_meets_a_401() {
        let access_token = AccessToken::new("0").unwrap();
        let tokens = Tokens::new(ACCOUNT, access_token, None).with_times(time(-3560), time(40));
        let mut state = new_state(Some(tokens.clone()));
        let mut met = rejection(&tokens, true);
        assert!(matches!(state.plan(time(0), &mut met), Err(None)));
        // Which is nobody else's 401.
        state.failed(&refusal(None));
        assert!(matches!(state.plan(time(0), &mut call()), Ok(Plan::Use(_))));
        assert!(matches!(state.plan(time(40), &mut call()), Err(None)));
    }

    #[test]
    fn what_a_store_held_before_a_failed_storing_is_not_taken_up_again() {
        for stored in [None, Some(pair(0, 40))] {
            let mut state = new_state(None);
            state.adopt(stored.clone(), ACCOUNT).unwrap();
            for number in 1..4 {
                state.renewed(pair(number, 3600), &mut call());
                state.adopt(stored.clone(), ACCOUNT).unwrap();
                assert_eq!(self::number(&state.tokens.clone().unwrap()), number);
            }
        }
    }

    #[test]
    fn a_store_that_somebody_emptied_is_a_fresh_start() {
        // Stored by the session itself, and by somebody else after a failed storing.
        let mut own = new_state(None);
        own.renewed(pair(1, 3600), &mut call());
        own.adopt(Some(pair(1, 3600)), ACCOUNT).unwrap();
        let mut others = new_state(None);
        others.renewed(pair(1, 3600), &mut call());
        others.adopt(Some(pair(2, 3600)), ACCOUNT).unwrap();
        for mut state in [own, others] {
            state.adopt(None, ACCOUNT).unwrap();
            assert!(state.tokens.is_none());
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
        assert_eq!(number(&state.tokens.unwrap()), 0);
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
                state.failed(&refusal(None));
            }
            let mut sign_in = History::of_sign_in(state.needs_sign_in);
            assert!(state.usable(time(0), &mut sign_in).is_none());
            state.adopt(Some(stored), ACCOUNT).unwrap();
            let others = state.usable(time(0), &mut sign_in);
            assert_eq!(others.map(|tokens| number(&tokens)), taken);
        }
    }

    #[test]
    fn whoever_renews_is_told_at_once_and_others_wait() {
        let mut state = new_state(Some(pair(0, 0)));
        assert!(matches!(state.take_turn(me(), &mut call()), Ok(true)));
        assert!(state.take_turn(me(), &mut call()).is_err());
        let other = thread::spawn(me).join().unwrap();
        assert!(matches!(state.take_turn(other, &mut call()), Ok(false)));
        state.end_turn();
        assert!(matches!(state.take_turn(other, &mut call()), Ok(true)));
    }

    #[test]
    fn what_came_of_a_turn_holds_for_those_who_wait_for_tokens_even_if_late() {
        let others = || thread::spawn(me).join().unwrap();
        let mut state = new_state(Some(pair(0, 0)));
        let (mut waits, mut sign_in) = (call(), History::of_sign_in(false));
        for turn in [1, 2] {
            assert!(matches!(state.take_turn(me(), &mut call()), Ok(true)));
            if turn == 1 {
                assert!(matches!(state.take_turn(others(), &mut waits), Ok(false)));
                assert!(matches!(state.take_turn(others(), &mut sign_in), Ok(false)));
            }
            state.failed(&failure());
            state.end_turn();
        }
        assert!(state.take_turn(others(), &mut waits).is_err());
        assert!(matches!(state.take_turn(me(), &mut sign_in), Ok(true)));
        // Expired as these are, they are used by who has waited for them.
        state.renewed(pair(1, 0), &mut call());
        assert!(state.usable(time(1), &mut call()).is_none());
        assert!(state.usable(time(1), &mut sign_in).is_none());
        let brought = state.usable(time(1), &mut waits).unwrap();
        waits.reject(brought);
        state.renewed(pair(2, 0), &mut call());
        assert!(state.usable(time(1), &mut waits).is_none());
    }

    #[test]
    fn an_error_of_storing_new_tokens_is_no_failure_of_those_who_wait() {
        let other = thread::spawn(me).join().unwrap();
        let (mut state, mut waits) = (new_state(Some(pair(0, 0))), call());
        state.take_turn(me(), &mut call()).unwrap();
        state.take_turn(other, &mut waits).unwrap();
        state.failed(&store_error(true));
        state.end_turn();
        assert!(matches!(state.take_turn(other, &mut waits), Ok(true)));
    }

    #[test]
    fn the_end_of_a_turn_is_told_to_those_who_wait_for_it_alone() {
        let mut state = new_state(Some(pair(0, 0)));
        for is_waited_for in [false, true, false] {
            state.take_turn(me(), &mut call()).unwrap();
            if is_waited_for {
                state.take_turn(thread::spawn(me).join().unwrap(), &mut call()).unwrap();
            }
            assert_eq!(state.end_turn(), is_waited_for);
        }
    }

    #[test]
    fn a_useless_refresh_is_made_again_once_the_token_has_expired_or_was_replaced() {
        let tokens = pair(1, 100);
        let mut state = new_state(Some(tokens.clone()));
        let plan = state.plan(time(0), &mut rejection(&tokens, true));
        assert!(matches!(plan, Ok(Plan::GiveUp(_))));
        let mut met = rejection(&tokens, false);
        assert!(matches!(state.plan(time(99), &mut met), Ok(Plan::GiveUp(_))));
        assert_eq!(is_refresh(&state.plan(time(100), &mut met)), Some(false));
        state.adopt(Some(pair(2, 100)), ACCOUNT).unwrap();
        let mut met = rejection(&pair(2, 100), false);
        assert_eq!(is_refresh(&state.plan(time(0), &mut met)), Some(false));
    }

    #[test]
    fn a_call_refreshes_once_even_if_what_that_brings_has_expired() {
        let tokens = pair(1, 0);
        let mut state = new_state(Some(tokens.clone()));
        let plan = state.plan(time(0), &mut rejection(&tokens, true));
        assert!(matches!(plan, Ok(Plan::GiveUp(_))));
        // Nor does it replace what others have brought, who would replace what it brings.
        state.adopt(Some(pair(2, 0)), ACCOUNT).unwrap();
        let plan = state.plan(time(0), &mut rejection(&tokens, true));
        assert!(matches!(plan, Ok(Plan::GiveUp(tokens)) if number(&tokens) == 2));
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
        call: History,
        loaded: Option<Tokens>,
        refreshes: Option<(Arc<Tokens>, bool)>,
        response: Option<Result<Tokens, Error>>,
        result: Option<Result<Arc<Tokens>, Error>>,
        usable: Option<Arc<Tokens>>,
        /// Refreshes that this call has sent, and whether one of a failure was waited for.
        sent: u8,
        shared_failure: bool,
        /// What came of turns while it waited: a failure, new tokens.
        is_failed: bool,
        brought: Option<usize>,
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
                    call: call(),
                    loaded: None,
                    refreshes: None,
                    response: None,
                    result: None,
                    usable: None,
                    sent: 0,
                    shared_failure: false,
                    is_failed: false,
                    brought: None,
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
                    At::Wait => usize::from(self.is_over(caller.call.waited_for.unwrap())),
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

        fn is_over(&self, turn: u64) -> bool {
            self.state.renewing.is_none() || turn < self.state.turn
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
                    match self.state.plan(now, &mut caller.call) {
                        Ok(Plan::Use(tokens)) => {
                            assert!(!caller.call.is_rejected(&tokens), "used after a 401");
                            self.end(i, Ok(tokens));
                        }
                        Err(error) => self.end(i, Err(sign_in_required(error))),
                        Ok(_) => caller.at = At::Update,
                    }
                }
                At::Update if way == 0 => {
                    self.state.adopt(self.store.clone(), ACCOUNT).unwrap();
                    self.lock = Some(i);
                    self.refresh(i);
                }
                At::Update => {
                    self.budget.failed_locks -= 1;
                    self.state.adopt(self.store.clone(), ACCOUNT).unwrap();
                    let result = loop {
                        match self.state.plan(now, &mut caller.call) {
                            Ok(Plan::Use(tokens)) => break Ok(tokens),
                            Ok(Plan::Refresh { is_early, .. }) => {
                                if !is_early {
                                    break Err(store_error(false));
                                }
                                self.state.put_off(now, store_error(false)).unwrap();
                            }
                            Ok(Plan::GiveUp(tokens)) => break Ok(tokens),
                            Err(_) => break Err(store_error(false)),
                        }
                    };
                    self.end(i, result);
                }
                At::Send => self.send(i, way),
                At::Response => match caller.response.take().unwrap() {
                    Ok(tokens) => {
                        let tokens = self.state.renewed(tokens, &mut caller.call);
                        caller.result = Some(Ok(tokens));
                        caller.at = At::Write;
                    }
                    Err(error) => {
                        let (_, is_early) = caller.refreshes.take().unwrap();
                        let is_refusal = error.needs_sign_in();
                        if !is_early {
                            return self.end(i, Err(error));
                        }
                        let put_off = self.state.put_off(now, error);
                        assert!(!is_refusal || put_off.is_ok(), "refused early, it isn't final");
                        match put_off {
                            Err(error) => self.end(i, Err(error)),
                            Ok(()) => {
                                self.refresh(i);
                                if self.callers[i].at == At::Send {
                                    assert!(is_refusal, "tried again at the expiry");
                                    self.callers[i].sent -= 1;
                                }
                            }
                        }
                    }
                },
                At::Write => {
                    self.lock = None;
                    let new_tokens = self.state.new_tokens().map(|tokens| Tokens::clone(tokens));
                    assert!(new_tokens.is_some(), "what was refreshed is stored");
                    if way == 0 {
                        self.store = new_tokens;
                        caller.at = At::Stored;
                    } else {
                        self.budget.failed_writes -= 1;
                        self.end(i, Err(store_error(true)));
                    }
                }
                At::Stored => {
                    self.state.stored();
                    caller.at = At::EndTurn;
                }
                At::EndTurn => {
                    let result = caller.result.take().unwrap();
                    if let Err(error) = &result {
                        self.state.failed(error);
                    }
                    let is_refreshed = match &result {
                        Ok(_) => caller.call.is_renewed && caller.call.rejected.is_none(),
                        Err(error) => matches!(error, Error::Store { renewed: true, .. }),
                    };
                    let is_success = self.state.known.renewed_in == Some(self.state.turn);
                    assert!(is_success || !is_refreshed, "a success is everybody's");
                    let brought = self.state.new_tokens().map(|tokens| number(tokens));
                    self.state.end_turn();
                    for waits in self.callers.iter_mut().filter(|caller| caller.at == At::Wait) {
                        waits.is_failed |= result.is_err() && brought.is_none();
                        waits.brought = brought.or(waits.brought);
                    }
                    match result {
                        Ok(tokens) if self.callers[i].call.is_rejected(&tokens) => {
                            self.finish(i, Some(unauthorized()));
                        }
                        Ok(tokens) => self.start_get(i, tokens),
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
            // What holds for the call, if it has waited.
            let call = &mut caller.call;
            let is_failed = mem::take(&mut caller.is_failed);
            let brought = caller.brought.take();
            let held = self.state.tokens.as_ref().filter(|_| self.state.known.refusal.is_none());
            let is_good = held.is_some_and(|tokens| !call.is_rejected(tokens));
            let usable = self.state.usable(now, call);
            if is_good && held.map(|tokens| number(tokens)) == brought {
                let is_used = usable.is_some() && call.is_renewed;
                assert!(is_used, "a success holds for those who waited");
            }
            caller.shared_failure |= is_failed;
            if let Some(tokens) = usable {
                return self.start_get(i, tokens);
            }
            let turn = self.state.take_turn(caller.thread, call);
            assert!(!is_failed || turn.is_err(), "a failure holds for those who waited");
            match turn {
                Ok(false) => caller.at = At::Wait,
                Ok(true) => {
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

        /// Plans, with the lock held, and goes on as planned.
        fn refresh(&mut self, i: usize) {
            let now = self.now();
            let caller = &mut self.callers[i];
            let result = match self.state.plan(now, &mut caller.call) {
                Ok(Plan::Use(tokens)) => {
                    assert!(!caller.call.is_rejected(&tokens), "used after a 401");
                    Ok(tokens)
                }
                Ok(Plan::GiveUp(tokens)) => Ok(tokens),
                Err(error) => Err(sign_in_required(error)),
                Ok(Plan::Refresh { tokens, is_early }) => {
                    caller.refreshes = Some((tokens, is_early));
                    caller.at = At::Send;
                    return;
                }
            };
            self.lock = None;
            self.end(i, result);
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
            assert!(caller.sent == 0 || caller.call.rejected.is_some(), "one refresh");
            caller.sent += 1;
            caller.response = Some(response);
            caller.at = At::Response;
        }

        fn end(&mut self, i: usize, result: Result<Arc<Tokens>, Error>) {
            if self.lock == Some(i) {
                self.lock = None;
            }
            self.callers[i].result = Some(result);
            self.callers[i].at = At::EndTurn;
        }

        fn start_get(&mut self, i: usize, tokens: Arc<Tokens>) {
            let caller = &mut self.callers[i];
            assert!(!caller.call.is_rejected(&tokens), "used after a 401");
            let is_refused = self.state.known.refusal.is_some();
            let is_dead = is_refused && self.state.tokens.as_ref() == Some(&tokens);
            assert!(!is_dead, "used after the final refusal");
            caller.usable = Some(tokens);
            caller.call.waited_for = None;
            caller.at = At::Get;
        }

        fn get(&mut self, i: usize) {
            let caller = &mut self.callers[i];
            let tokens = caller.usable.take().unwrap();
            let issued = self.issued[number(&tokens)];
            let is_good = !issued.is_revoked && self.now < issued.expires && !caller.is_stubborn;
            if is_good {
                return self.finish(i, None);
            }
            caller.call.reject(tokens);
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
                let is_early = caller.call.rejected.is_none() && self.now < self.issued[0].expires;
                assert!(!is_early, "a token that is alive is used");
            }
            if let Some(Error::Store { renewed: true, .. }) = error {
                assert!(caller.sent > 0, "it is told to the call that refreshed alone");
            }
            caller.calls_left -= 1;
            caller.at = if caller.calls_left == 0 { At::Done } else { At::Step };
            caller.call = call();
            (caller.sent, caller.shared_failure) = (0, false);
        }

        fn check_end(&self) {
            let is_done = self.callers.iter().all(|caller| caller.at == At::Done);
            assert!(is_done, "a caller waits for ever");
            assert!(self.state.renewing.is_none() && self.lock.is_none());
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
            let mut first_uses = Copies::default();
            let mut callers = Vec::new();
            for caller in &self.callers {
                let first_use = caller.call.first_use.as_ref();
                callers.push(Caller {
                    call: History {
                        rejected: caller.call.rejected.clone(),
                        first_use: first_use.map(|u| first_uses.of(u, |()| ())),
                        ..caller.call
                    },
                    loaded: caller.loaded.clone(),
                    refreshes: caller.refreshes.clone(),
                    response: caller.response.clone(),
                    result: caller.result.clone(),
                    usable: caller.usable.clone(),
                    ..*caller
                });
            }
            let known = &self.state.known;
            let state = State {
                tokens: self.state.tokens.clone(),
                known: Known {
                    refusal: known.refusal.clone(),
                    first_use: match known.first_use.upgrade() {
                        Some(first_use) => Arc::downgrade(&first_uses.of(&first_use, |()| ())),
                        None => Weak::new(),
                    },
                    ..*known
                },
                superseded: self.state.superseded.clone(),
                failure: self.state.failure.clone(),
                ..self.state
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
            let (state, known) = (&self.state, &self.state.known);
            for Caller { call, .. } in &self.callers {
                // Of turns counts which is under way, and what came of those waited for.
                let failure = state.failure.as_ref().filter(|(turn, _)| call.has_waited_for(*turn));
                let is_brought = known.renewed_in.is_some_and(|turn| call.has_waited_for(turn));
                let is_over = call.waited_for.map(|turn| self.is_over(turn));
                (failure.map(|(_, error)| kind(error)), is_brought, is_over).hash(hasher);
                call.rejected.as_ref().map(|tokens| number(tokens)).hash(hasher);
                (call.is_renewed, call.first_use.is_some()).hash(hasher);
            }
            for caller in &self.callers {
                (caller.at, caller.calls_left, id(&caller.loaded)).hash(hasher);
                let refreshes = caller.refreshes.as_ref();
                refreshes.map(|(tokens, is_early)| (number(tokens), is_early)).hash(hasher);
                let response = caller.response.as_ref();
                response.map(|r| r.as_ref().map(number).map_err(kind)).hash(hasher);
                let result = caller.result.as_ref();
                result.map(|r| r.as_ref().map(|t| number(t)).map_err(kind)).hash(hasher);
                caller.usable.as_ref().map(|tokens| number(tokens)).hash(hasher);
                (caller.sent, caller.shared_failure).hash(hasher);
                (caller.is_failed, caller.brought).hash(hasher);
            }
            let is_this_turns = known.renewed_in == Some(state.turn);
            (state.tokens.as_ref().map(|tokens| number(tokens)), is_this_turns).hash(hasher);
            (known.next_refresh, known.refusal.is_some(), known.is_refresh_useless).hash(hasher);
            known.first_use.strong_count().hash(hasher);
            let superseded = state.superseded.as_ref();
            superseded.map(|tokens| tokens.as_ref().map(|tokens| number(tokens))).hash(hasher);
            (state.is_store_behind, state.needs_sign_in).hash(hasher);
            (state.renewing.is_some(), self.now, self.lock, self.budget).hash(hasher);
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
