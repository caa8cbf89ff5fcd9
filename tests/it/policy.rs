//! The policy of a session, over real sockets and threads: when tokens are refreshed, by
//! whom, and what becomes of those who wait.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use here_datalens::{
    Client, Credentials, Error, Event, JsonCheck, Password, Session, TokenStore, Tokens,
};
use serde_json::Value;

use crate::support::fake_api::http::json_response;
use crate::support::fake_api::{APP_CODE, APP_ID, EMAIL, FakeApi, PASSWORD};

const REFRESH: &str = "/v1/sign_in/refresh";

/// A store of one mutex, held while it is renewed; tests look into it and break it.
#[derive(Clone, Default)]
struct Store(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tokens: Mutex<Option<Tokens>>,
    fails_to_write: AtomicBool,
    panics: AtomicBool,
    panics_after: AtomicBool,
    fails_to_load: AtomicBool,
    is_busy: AtomicBool,
    /// What somebody else stores who has the lock for too long.
    others: Mutex<Option<Tokens>>,
    /// What loading without the lock returns in place of the tokens.
    old: Mutex<Option<Tokens>>,
}

impl Store {
    fn of(tokens: Tokens) -> Self {
        let store = Self::default();
        store.put(Some(tokens));
        store
    }

    fn put(&self, tokens: Option<Tokens>) {
        *self.lock() = tokens;
    }

    fn stored(&self) -> Option<Tokens> {
        self.lock().clone()
    }

    /// A panic of whoever renews it leaves the mutex poisoned, and the tokens whole.
    fn lock(&self) -> MutexGuard<'_, Option<Tokens>> {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for Store {
    fn is_busy(&self) -> bool {
        self.0.is_busy.load(Ordering::SeqCst)
    }

    fn load(&self) -> io::Result<Option<Tokens>> {
        if self.0.fails_to_load.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let old = self.0.old.lock().unwrap().clone();
        Ok(old.or_else(|| self.stored()))
    }

    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "as told");
        let mut tokens = self.lock();
        if let Some(others) = self.0.others.lock().unwrap().take() {
            *tokens = Some(others);
            return Err(io::ErrorKind::TimedOut.into());
        }
        let renewed = renew(tokens.clone());
        assert!(!self.0.panics_after.swap(false, Ordering::SeqCst), "as told");
        if let Some(renewed) = renewed {
            if self.0.fails_to_write.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *tokens = Some(renewed);
        }
        Ok(())
    }
}

fn client(server: &FakeApi) -> Client {
    client_with(server, |_| {})
}

fn client_with(server: &FakeApi, on_event: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Client {
    let builder = Client::builder(Credentials::new(APP_ID, APP_CODE));
    let builder = builder.base_url(server.base_url()).on_event(on_event);
    builder.build().unwrap()
}

/// Good tokens that have so many seconds of a lifetime left, by the clock here.
fn tokens(server: &FakeApi, left: u64, lifetime: u64) -> Tokens {
    let session = client(server).sign_in(EMAIL, &Password::new(PASSWORD));
    let expires_at = SystemTime::now() + Duration::from_secs(left);
    let tokens = session.unwrap().tokens().unwrap();
    tokens.with_times(expires_at - Duration::from_secs(lifetime), expires_at)
}

fn expired(server: &FakeApi) -> Tokens {
    tokens(server, 0, 3600)
}

fn session(server: &FakeApi, store: &Store) -> Session {
    client(server).session(EMAIL, store.clone())
}

fn sign_in(session: &Session) {
    session.sign_in(&Password::new(PASSWORD)).unwrap();
}

/// The numbers of refreshes and of reads that were asked for.
fn sent(server: &FakeApi) -> (usize, usize) {
    let requests = server.requests();
    let refreshes = requests.iter().filter(|r| r.path() == REFRESH).count();
    let reads = requests.iter().filter(|r| r.method == "GET").count();
    (refreshes, reads)
}

/// Runs what must not hang.
fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("it ends in time")
}

/// Results of so many threads that make the same call.
fn by_threads(count: usize, session: &Session) -> Vec<Result<Value, Error>> {
    thread::scope(|scope| {
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(|| session.datasets())).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

#[test]
fn tokens_of_thirty_seconds_are_refreshed_when_half_of_their_life_has_gone() {
    let server = FakeApi::start();
    server.set_expires_in("30");
    for (left, refreshes) in [(20, 0), (10, 1)] {
        let session = client(&server).resume(tokens(&server, left, 30)).unwrap();
        for _ in 0..50 {
            session.datasets().unwrap();
        }
        assert_eq!(server.refreshes(), refreshes);
    }
}

#[test]
fn many_threads_with_an_expired_token_make_one_refresh() {
    let server = FakeApi::start();
    let session = client(&server).resume(expired(&server)).unwrap();
    assert!(by_threads(40, &session).iter().all(Result::is_ok));
    assert_eq!(sent(&server), (1, 40));
}

#[test]
fn a_fresh_token_waits_for_nobody() {
    let server = FakeApi::start();
    let (begun, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let client = client_with(&server, move |event| {
        if matches!(event, Event::Request { method: "POST", .. }) {
            begun.send(()).unwrap();
            let _ = goes_on.lock().unwrap().recv();
        }
    });
    let session = client.resume(tokens(&server, 3600, 3600)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| sign_in(&session));
        begins.recv().unwrap();
        // The sign-in has its turn, and holds the store.
        session.datasets().unwrap();
        session.access_token().unwrap();
        go_on.send(()).unwrap();
    });
}

#[test]
fn what_is_fresh_in_the_store_is_taken_without_its_lock() {
    let server = FakeApi::start();
    let store = Store::of(tokens(&server, 3600, 3600));
    // As soon as it is locked.
    store.0.panics.store(true, Ordering::SeqCst);
    session(&server, &store).datasets().unwrap();
}

#[test]
fn a_token_that_is_alive_is_used_while_an_early_refresh_fails() {
    for (status, body) in [("503 Service Unavailable", "{}"), ("400 Bad Request", "{}")] {
        let server = FakeApi::start();
        let alive = tokens(&server, 40, 3600);
        server.respond_always(REFRESH, json_response(status, body));
        let session = client(&server).resume(alive.clone()).unwrap();
        assert!(by_threads(8, &session).iter().all(Result::is_ok));
        assert_eq!(session.access_token().unwrap(), *alive.access_token());
        assert_eq!(sent(&server), (1, 8));
    }
}

#[test]
fn a_refresh_that_was_refused_early_is_tried_once_more_at_the_expiry_and_then_no_more() {
    let server = FakeApi::start();
    server.respond_always(REFRESH, json_response("400 Bad Request", r#"{"message":"too early"}"#));
    let alive = tokens(&server, 2, 3600);
    let expires_at = alive.expires_at();
    let session = client(&server).resume(alive).unwrap();
    session.datasets().unwrap();
    session.datasets().unwrap();
    assert_eq!(sent(&server), (1, 2));
    thread::sleep(expires_at.duration_since(SystemTime::now()).unwrap_or_default());
    for _ in 0..10 {
        let error = session.datasets().unwrap_err();
        assert!(error.needs_sign_in(), "{error}");
        assert!(error.to_string().contains("too early"), "{error}");
    }
    assert_eq!(sent(&server), (2, 2));
}

#[test]
fn a_dead_session_sends_nothing_more_until_somebody_signs_in() {
    let server = FakeApi::start();
    let store = Store::of(expired(&server));
    server.revoke_tokens();
    let session = session(&server, &store);
    let failed = |session: &Session| {
        let results = by_threads(50, session);
        let mut errors = results.into_iter().map(Result::unwrap_err);
        assert!(errors.all(|error| error.needs_sign_in()));
    };
    failed(&session);
    failed(&session);
    assert_eq!(sent(&server), (1, 0));
    // Through the store.
    sign_in(&self::session(&server, &store));
    session.datasets().unwrap();
    assert_eq!(sent(&server), (1, 1));
    // In the same process.
    let dead = client(&server).resume(expired(&server)).unwrap();
    server.revoke_tokens();
    failed(&dead);
    sign_in(&dead);
    dead.datasets().unwrap();
    assert_eq!(sent(&server), (2, 2));
}

#[test]
fn a_sign_in_that_is_needed_uses_that_of_somebody_else() {
    let server = FakeApi::start();
    let store = Store::default();
    let session = session(&server, &store);
    assert!(session.datasets().unwrap_err().needs_sign_in());
    sign_in(&self::session(&server, &store));
    sign_in(&session);
    session.datasets().unwrap();
    assert_eq!(server.sign_ins(), 1);
    // It isn't needed now, so that it is meant.
    sign_in(&session);
    assert_eq!(server.sign_ins(), 2);
}

#[test]
fn a_stubborn_resource_costs_one_refresh_and_no_good_call_beside_it() {
    let server = FakeApi::start();
    server.respond_always("/v1/stubborn", json_response("401 Unauthorized", "{}"));
    let session = client(&server).resume(tokens(&server, 3600, 3600)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let error = session.get::<Value>("stubborn").unwrap_err();
                    assert_eq!(error.status(), Some(401));
                    assert!(!error.needs_sign_in(), "{error}");
                }
            });
            scope.spawn(|| {
                for _ in 0..200 {
                    session.datasets().unwrap();
                }
            });
        }
    });
    assert_eq!(server.refreshes(), 1);
}

#[test]
fn a_401_to_a_token_that_was_just_refreshed_goes_to_the_caller() {
    let server = FakeApi::start();
    let session = client(&server).resume(expired(&server)).unwrap();
    server.respond_always("/v1/stubborn", json_response("401 Unauthorized", "{}"));
    let error = session.get::<Value>("stubborn").unwrap_err();
    assert_eq!((error.status(), error.needs_sign_in()), (Some(401), false));
    assert_eq!(sent(&server), (1, 1));
}

#[test]
fn a_token_that_was_replaced_under_way_is_no_reason_to_fail() {
    let server = FakeApi::start();
    let store = Store::of(tokens(&server, 3600, 3600));
    let [one, two] = [(); 2].map(|()| session(&server, &store));
    one.datasets().unwrap();
    two.datasets().unwrap();
    // One refreshes: to two, its token has been replaced.
    server.expire_tokens();
    one.datasets().unwrap();
    two.datasets().unwrap();
    assert_eq!(server.refreshes(), 1);
    // Even though one has learnt that a refresh doesn't help.
    server.respond_always("/v1/stubborn", json_response("401 Unauthorized", "{}"));
    one.get::<Value>("stubborn").unwrap_err();
    two.get::<Value>("stubborn").unwrap_err();
    one.datasets().unwrap();
    two.datasets().unwrap();
}

#[test]
fn the_store_is_looked_at_under_its_lock_before_a_401_goes_to_the_caller() {
    let server = FakeApi::start();
    let store = Store::of(tokens(&server, 3600, 3600));
    let [one, two] = [(); 2].map(|()| session(&server, &store));
    server.respond_always("/v1/stubborn", json_response("401 Unauthorized", "{}"));
    one.get::<Value>("stubborn").unwrap_err();
    // The other is about to store what it has refreshed: a load doesn't show it yet.
    *store.0.old.lock().unwrap() = store.stored();
    two.get::<Value>("stubborn").unwrap_err();
    one.datasets().unwrap();
}

#[test]
fn a_token_is_proven_by_the_head_of_the_first_response() {
    struct Writer<'a>(&'a FakeApi, &'a Session);
    impl io::Write for Writer<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A 401 while the body is still being copied is one like any other.
            self.0.expire_tokens();
            self.1.datasets().unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let server = FakeApi::start();
    let session = client(&server).resume(expired(&server)).unwrap();
    let writer = Writer(&server, &session);
    session.copy("tiles/1", JsonCheck::Never, writer).unwrap();
    assert_eq!(server.refreshes(), 2);
}

#[test]
fn an_early_refresh_waits_for_nobody_elsewhere_and_its_failure_is_told() {
    let server = FakeApi::start();
    let store = Store::of(tokens(&server, 40, 3600));
    server.respond_always(REFRESH, json_response("503 Service Unavailable", "{}"));
    let (sender, failures) = mpsc::channel();
    let client = client_with(&server, move |event| {
        if let Event::RefreshFailed { error } = event {
            sender.send(error.status()).unwrap();
        }
    });
    store.0.is_busy.store(true, Ordering::SeqCst);
    client.session(EMAIL, store.clone()).datasets().unwrap();
    assert_eq!((sent(&server), failures.try_iter().count()), ((0, 1), 0));
    store.0.is_busy.store(false, Ordering::SeqCst);
    client.session(EMAIL, store).datasets().unwrap();
    assert_eq!(sent(&server), (1, 2));
    assert_eq!(failures.try_iter().collect::<Vec<_>>(), [Some(503)]);
}

#[test]
fn a_refusal_of_an_early_refresh_that_comes_after_the_expiry_is_not_final() {
    let server = FakeApi::start();
    let alive = tokens(&server, 2, 3600);
    let expires_at = alive.expires_at();
    server.respond_once(REFRESH, json_response("400 Bad Request", "{}"));
    server.before_response(REFRESH, move || {
        thread::sleep(expires_at.duration_since(SystemTime::now()).unwrap_or_default());
    });
    client(&server).resume(alive).unwrap().datasets().unwrap();
    assert_eq!(sent(&server), (2, 1));
}

#[test]
fn an_early_refresh_holds_a_call_up_once_whatever_the_retries() {
    let server = FakeApi::start();
    let alive = tokens(&server, 40, 3600);
    server.respond_always(REFRESH, json_response("503 Service Unavailable", "{}"));
    let retrying = client(&server).to_builder().max_retries(1).build().unwrap();
    let session = retrying.resume(alive).unwrap();
    session.datasets().unwrap();
    assert_eq!(sent(&server), (1, 1));
}

#[test]
fn a_call_that_refreshed_does_not_refresh_what_others_bring() {
    let server = FakeApi::start();
    let store = Store::of(tokens(&server, 3600, 3600));
    let others = tokens(&server, 3600, 3600);
    let (reads, stored) = (AtomicUsize::new(0), store.clone());
    let client = client_with(&server, move |event| {
        let is_read = matches!(event, Event::Request { method: "GET", .. });
        // The repeat.
        if is_read && reads.fetch_add(1, Ordering::SeqCst) == 1 {
            stored.put(Some(others.clone()));
        }
    });
    server.respond_always("/v1/stubborn", json_response("401 Unauthorized", "{}"));
    let session = client.session(EMAIL, store);
    session.get::<Value>("stubborn").unwrap_err();
    assert_eq!(sent(&server), (1, 3));
}

#[test]
fn tokens_that_are_alive_are_used_though_the_store_fails() {
    for (left, lifetime, is_alive) in [(63, 3600, true), (3, 3, false)] {
        let server = FakeApi::start();
        // Fresh now, and in three seconds no more.
        let store = Store::of(tokens(&server, left, lifetime));
        let session = session(&server, &store);
        session.datasets().unwrap();
        store.0.fails_to_load.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(3100));
        let again = session.datasets();
        if is_alive {
            again.unwrap();
        } else {
            assert!(matches!(again, Err(Error::Store { renewed: false, .. })));
        }
        assert_eq!(sent(&server), (0, if is_alive { 2 } else { 1 }));
    }
}

#[test]
fn what_others_stored_is_used_though_their_lock_was_held_too_long() {
    let server = FakeApi::start();
    let store = Store::of(expired(&server));
    *store.0.others.lock().unwrap() = Some(tokens(&server, 3600, 3600));
    session(&server, &store).datasets().unwrap();
    assert_eq!(sent(&server), (0, 1));
}

#[test]
fn a_failed_sign_in_is_not_the_failure_of_those_who_waited() {
    let server = FakeApi::start();
    let expired = expired(&server);
    let (begun, begins) = mpsc::channel();
    let client = client_with(&server, move |event| {
        if matches!(event, Event::Request { path, .. } if path.ends_with("/sign_in/")) {
            begun.send(()).unwrap();
            // Long enough for others to wait; they succeed if they didn't, too.
            thread::sleep(Duration::from_millis(200));
        }
    });
    let session = client.resume(expired).unwrap();
    server.respond_once("/v1/sign_in/", json_response("503 Service Unavailable", "{}"));
    thread::scope(|scope| {
        let failed = scope.spawn(|| session.sign_in(&Password::new(PASSWORD)));
        begins.recv().unwrap();
        assert!(by_threads(4, &session).iter().all(Result::is_ok));
        assert!(failed.join().unwrap().unwrap_err().is_temporary());
    });
    assert_eq!(sent(&server), (1, 4));
}

#[test]
fn a_callback_gets_an_error_at_once_for_what_it_holds_up_itself() {
    static SESSION: OnceLock<Session> = OnceLock::new();
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let server = FakeApi::start();
    let client = client_with(&server, |event| {
        let session = SESSION.get().unwrap();
        // A fresh token answers from within a call, but there may be none yet.
        let access_token = session.access_token().map(drop);
        let seen = match (event, session.tokens(), access_token) {
            (_, None, _) => "no tokens".into(),
            (_, Some(_), Ok(())) => "fresh".into(),
            (Event::Request { method: "GET", .. }, ..) => "not fresh at a GET".into(),
            (_, Some(_), Err(error)) => error.to_string(),
        };
        assert_eq!(session.email(), EMAIL);
        SEEN.lock().unwrap().push(seen);
    });
    let session = client.session(EMAIL, Store::of(expired(&server)));
    assert!(SESSION.set(session).is_ok());
    in_time(|| SESSION.get().unwrap().datasets().unwrap());
    let seen = SEEN.lock().unwrap();
    let is_told = |text: &String| text.contains("by the very call that calls back");
    assert!(seen.iter().any(is_told), "{seen:?}");
    assert!(seen.iter().any(|text| text == "fresh"), "{seen:?}");
    assert!(!seen.iter().any(|text| text.contains("not fresh")), "{seen:?}");
    assert_eq!(sent(&server), (1, 1));
}

#[test]
fn a_callback_can_make_calls_of_its_own_while_a_token_is_fresh() {
    static SESSION: OnceLock<Session> = OnceLock::new();
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let server = FakeApi::start();
    let client = client_with(&server, |event| {
        let is_request = matches!(event, Event::Request { .. });
        if is_request && CALLS.fetch_add(1, Ordering::SeqCst) == 0 {
            SESSION.get().unwrap().datasets().unwrap();
        }
    });
    let session = client.resume(tokens(&server, 3600, 3600)).unwrap();
    assert!(SESSION.set(session).is_ok());
    in_time(|| SESSION.get().unwrap().datasets().unwrap());
    assert_eq!(sent(&server), (0, 2));
}

#[test]
fn whoever_cannot_store_what_it_refreshed_says_so_once_and_the_others_succeed() {
    let server = FakeApi::start();
    let store = Store::of(expired(&server));
    store.0.fails_to_write.store(true, Ordering::SeqCst);
    let session = session(&server, &store);
    let results = by_threads(8, &session);
    let mut failed = results.iter().filter_map(|result| result.as_ref().err());
    let error = failed.next().unwrap();
    let is_named =
        matches!(error, Error::Store { renewed: true, name, .. } if name == "token store");
    assert!(is_named, "{error:?}");
    assert!(failed.next().is_none());
    assert_eq!(sent(&server), (1, 7));
    session.datasets().unwrap();
    assert_eq!(sent(&server), (1, 8));
}

#[test]
fn nobody_is_told_to_wait_for_tokens_in_memory() {
    let server = FakeApi::start();
    let is_locking = |event: &Event<'_>| matches!(event, Event::Locking { .. });
    let client = client_with(&server, move |event| assert!(!is_locking(event), "{event}"));
    let session = client.sign_in(EMAIL, &Password::new(PASSWORD)).unwrap();
    session.datasets().unwrap();
}

#[test]
fn the_store_does_not_bring_a_replaced_pair_back() {
    for is_empty in [false, true] {
        let server = FakeApi::start();
        let store = Store::default();
        let session = session(&server, &store);
        if !is_empty {
            store.put(Some(expired(&server)));
        }
        store.0.fails_to_write.store(true, Ordering::SeqCst);
        server.set_expires_in("1");
        // Two storings in a row fail, and the third doesn't.
        let first = if is_empty {
            session.sign_in(&Password::new(PASSWORD)).unwrap_err()
        } else {
            session.datasets().unwrap_err()
        };
        assert!(matches!(first, Error::Store { renewed: true, .. }), "{first}");
        thread::sleep(Duration::from_millis(1100));
        let second = session.datasets().unwrap_err();
        assert!(matches!(second, Error::Store { renewed: true, .. }), "{second}");
        thread::sleep(Duration::from_millis(1100));
        store.0.fails_to_write.store(false, Ordering::SeqCst);
        server.set_expires_in("3600");
        session.datasets().unwrap();
        assert_eq!(server.refreshes(), if is_empty { 2 } else { 3 });
        assert_eq!(sent(&server).0, server.refreshes(), "none was refused");
        assert_eq!(store.stored(), session.tokens());
    }
}

#[test]
fn a_load_that_is_older_than_what_the_session_knows_is_passed_over() {
    let server = FakeApi::start();
    let old = tokens(&server, 3600, 3600);
    let store = Store::of(old.clone());
    *store.0.old.lock().unwrap() = Some(old);
    let session = session(&server, &store);
    session.datasets().unwrap();
    server.expire_tokens();
    session.datasets().unwrap();
    server.expire_tokens();
    session.datasets().unwrap();
    assert_eq!(sent(&server).0, 2);
    assert_eq!(server.refreshes(), 2);
}

#[test]
fn a_stored_pair_that_is_newer_but_stale_is_the_one_to_refresh() {
    let server = FakeApi::start();
    let store = Store::of(expired(&server));
    let session = session(&server, &store);
    session.datasets().unwrap();
    let stale = expired(&server);
    store.put(Some(stale.clone()));
    server.expire_tokens();
    session.datasets().unwrap();
    let requests = server.requests();
    let last = requests.iter().rfind(|r| r.path() == REFRESH).unwrap();
    let sent = last.json_member("access_token").unwrap();
    assert_eq!(sent, stale.access_token().secret());
}

#[test]
fn a_store_that_was_emptied_is_a_fresh_start() {
    for was_empty in [false, true] {
        let server = FakeApi::start();
        let store = if was_empty { Store::default() } else { Store::of(expired(&server)) };
        let session = session(&server, &store);
        server.set_expires_in("1");
        if was_empty {
            sign_in(&session);
        }
        session.datasets().unwrap();
        store.put(None);
        thread::sleep(Duration::from_millis(1100));
        let before = sent(&server);
        assert!(session.datasets().unwrap_err().needs_sign_in());
        assert!(session.tokens().is_none());
        assert_eq!(sent(&server), before);
        sign_in(&session);
        assert!(store.stored().is_some());
    }
}

#[test]
fn a_panic_in_a_callback_or_a_store_leaves_no_lock_and_no_waiter_behind() {
    for place in ["locking", "refreshing", "refreshed", "store"] {
        let server = FakeApi::start();
        let is_armed = AtomicBool::new(place != "store");
        let client = client_with(&server, move |event| {
            let is_place = event.to_string().starts_with(place);
            assert!(!(is_place && is_armed.swap(false, Ordering::SeqCst)), "as told");
        });
        let store = Store::of(expired(&server));
        store.0.panics.store(place == "store", Ordering::SeqCst);
        let session = client.session(EMAIL, store.clone());
        let (panicked, results) = in_time({
            let session = session.clone();
            move || {
                let call = || session.datasets();
                let panicked = panic::catch_unwind(AssertUnwindSafe(call)).is_err();
                (panicked, by_threads(8, &session))
            }
        });
        assert!(panicked, "{place}");
        assert!(results.iter().all(Result::is_ok), "{place}: {results:?}");
        assert_eq!(sent(&server), (1, 8), "{place}");
    }
}

#[test]
fn a_final_refusal_stands_though_the_store_panics_after_it() {
    let server = FakeApi::start();
    let store = Store::of(expired(&server));
    server.revoke_tokens();
    store.0.panics_after.store(true, Ordering::SeqCst);
    let session = session(&server, &store);
    assert!(panic::catch_unwind(AssertUnwindSafe(|| session.datasets())).is_err());
    assert!(session.datasets().unwrap_err().needs_sign_in());
    assert_eq!(sent(&server), (1, 0));
}

#[test]
fn waiters_of_a_call_that_panics_go_on() {
    let server = FakeApi::start();
    let (begun, begins) = mpsc::channel();
    let is_armed = AtomicBool::new(true);
    let client = client_with(&server, move |event| {
        if matches!(event, Event::Refreshing) && is_armed.swap(false, Ordering::SeqCst) {
            begun.send(()).unwrap();
            // Long enough for others to wait; they go on if they didn't, too.
            thread::sleep(Duration::from_millis(200));
            panic!("as told");
        }
    });
    let session = client.resume(expired(&server)).unwrap();
    in_time(move || {
        thread::scope(|scope| {
            let panics = scope.spawn(|| session.datasets());
            begins.recv().unwrap();
            assert!(by_threads(4, &session).iter().all(Result::is_ok));
            assert!(panics.join().is_err());
        });
    });
    assert_eq!(sent(&server).0, 1);
}

#[test]
fn a_failed_refresh_leaves_nothing_behind_for_later_calls() {
    let server = FakeApi::start();
    let session = client(&server).resume(expired(&server)).unwrap();
    server.respond_once(REFRESH, json_response("503 Service Unavailable", "{}"));
    assert!(session.datasets().unwrap_err().is_temporary());
    session.datasets().unwrap();
    assert_eq!(sent(&server), (2, 1));
}

#[test]
fn a_resource_is_refused_before_a_refresh_is_spent() {
    let server = FakeApi::start();
    let session = client(&server).resume(expired(&server)).unwrap();
    let before = server.requests().len();
    let error = session.get::<Value>("../v2/datasets").unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    let error = session.sign_in(&Password::new("")).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    assert_eq!(server.requests().len(), before);
}

#[test]
fn a_401_without_a_refresh_token_needs_a_sign_in_and_has_the_servers_words() {
    let server = FakeApi::start();
    let good = tokens(&server, 3600, 3600);
    let alone = Tokens::new(good.account(), good.access_token().clone(), None);
    let session = client(&server).resume(alone).unwrap();
    session.datasets().unwrap();
    server.expire_tokens();
    let error = session.datasets().unwrap_err();
    assert!(error.needs_sign_in());
    assert!(error.to_string().contains("token expired"), "{error}");
    // The sign-in is sent, though by the clock the token is fresh.
    sign_in(&session);
    session.datasets().unwrap();
    assert_eq!(server.sign_ins(), 2);
}

#[test]
fn without_a_refresh_token_a_token_is_used_to_its_end() {
    let server = FakeApi::start();
    let good = tokens(&server, 3600, 3600);
    let alone = Tokens::new(good.account(), good.access_token().clone(), None);
    let now = SystemTime::now();
    let almost =
        alone.clone().with_times(now - Duration::from_secs(3590), now + Duration::from_secs(10));
    let session = client(&server).resume(almost).unwrap();
    session.datasets().unwrap();
    let ended = alone.with_times(now - Duration::from_secs(3600), now);
    let session = client(&server).resume(ended).unwrap();
    assert!(session.datasets().unwrap_err().needs_sign_in());
    assert_eq!(sent(&server), (0, 1));
}

#[test]
fn tokens_of_another_account_are_neither_used_nor_overwritten() {
    let server = FakeApi::start();
    let store = Store::of(tokens(&server, 3600, 3600));
    let stored = store.stored();
    let session = client(&server).session("somebody@example.com", store.clone());
    let before = server.requests().len();
    for error in
        [session.datasets().unwrap_err(), session.sign_in(&Password::new(PASSWORD)).unwrap_err()]
    {
        assert!(matches!(error, Error::Store { renewed: false, .. }), "{error}");
    }
    assert_eq!(server.requests().len(), before);
    assert_eq!(store.stored(), stored);
}
