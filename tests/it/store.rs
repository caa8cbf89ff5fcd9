//! Sessions over stores of a program's own: shared, failing, of another account.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use here_datalens::{Error, MemoryStore, TokenStore, Tokens};

use crate::support::client::{client, expired, password, signed_in, tokens};
use crate::support::fake_api::{EMAIL, FakeApi};

/// A store that several sessions share, and that fails when a test wants it to. It keeps
/// the tokens as JSON, as a keyring or a database would.
#[derive(Clone, Default)]
struct Vault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    json: Mutex<Option<String>>,
    lock: Mutex<()>,
    cannot_load: AtomicBool,
    cannot_store: AtomicBool,
    is_locked: AtomicBool,
}

impl Vault {
    fn holding(tokens: &Tokens) -> Self {
        let vault = Self::default();
        vault.put(tokens);
        vault
    }

    fn put(&self, tokens: &Tokens) {
        let json = serde_json::to_string(tokens).unwrap();
        *self.0.json.lock().unwrap() = Some(json);
    }

    fn tokens(&self) -> Option<Tokens> {
        let json = self.0.json.lock().unwrap();
        json.as_deref().map(|json| serde_json::from_str(json).unwrap())
    }
}

fn fail(flag: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
    if flag.load(Ordering::SeqCst) {
        return Err(kind.into());
    }
    Ok(())
}

impl TokenStore for Vault {
    fn load(&self) -> io::Result<Option<Tokens>> {
        fail(&self.0.cannot_load, io::ErrorKind::PermissionDenied)?;
        Ok(self.tokens())
    }

    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
        fail(&self.0.is_locked, io::ErrorKind::TimedOut)?;
        let _lock = self.0.lock.lock();
        if let Some(tokens) = renew(self.load()?) {
            fail(&self.0.cannot_store, io::ErrorKind::StorageFull)?;
            self.put(&tokens);
        }
        Ok(())
    }

    fn name(&self) -> String {
        "vault".into()
    }
}

/// A fake API, and a store that holds expired tokens of it.
fn with_expired_token() -> (FakeApi, Vault) {
    let (server, session) = signed_in();
    let vault = Vault::holding(&expired(&tokens(&session)));
    (server, vault)
}

#[test]
fn making_a_session_neither_loads_nor_sends() {
    let (server, vault) = with_expired_token();
    vault.0.cannot_load.store(true, Ordering::SeqCst);
    let session = client(&server.base_url()).session(EMAIL, vault);
    assert_eq!(session.tokens(), None);
    assert_eq!(session.email(), EMAIL);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn sessions_that_share_a_store_make_one_refresh() {
    let (server, vault) = with_expired_token();
    let sessions: Vec<_> =
        (0..8).map(|_| client(&server.base_url()).session(EMAIL, vault.clone())).collect();
    std::thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| session.datasets().unwrap());
        }
    });
    assert_eq!(server.refreshes(), 1);
    assert_eq!(vault.tokens(), sessions[0].tokens());
}

#[test]
fn a_sign_in_is_stored() {
    let server = FakeApi::start();
    let vault = Vault::default();
    let session = client(&server.base_url()).session(EMAIL, vault.clone());
    assert!(session.datasets().unwrap_err().needs_sign_in());
    session.sign_in(&password()).unwrap();
    assert_eq!(vault.tokens(), session.tokens());
}

#[test]
fn after_a_sign_in_by_others_theirs_is_used_and_nothing_sent() {
    let server = FakeApi::start();
    let vault = Vault::default();
    let [first, second] =
        [(); 2].map(|()| client(&server.base_url()).session(EMAIL, vault.clone()));
    assert!(first.datasets().unwrap_err().needs_sign_in());
    assert!(second.datasets().unwrap_err().needs_sign_in());
    first.sign_in(&password()).unwrap();
    second.sign_in(&password()).unwrap();
    assert_eq!(server.sign_ins(), 1);
    assert_eq!(first.tokens(), second.tokens());
}

#[test]
fn what_others_have_refreshed_is_used_after_a_401() {
    let (server, session) = signed_in();
    let vault = Vault::holding(&tokens(&session));
    let [first, second] =
        [(); 2].map(|()| client(&server.base_url()).session(EMAIL, vault.clone()));
    first.datasets().unwrap();
    second.datasets().unwrap();
    server.expire_tokens();
    first.datasets().unwrap();
    second.datasets().unwrap();
    assert_eq!(server.refreshes(), 1);
}

#[test]
fn new_tokens_that_cannot_be_stored_are_an_error_once_and_used_ever_after() {
    let (server, vault) = with_expired_token();
    let session = client(&server.base_url()).session(EMAIL, vault.clone());
    vault.0.cannot_store.store(true, Ordering::SeqCst);
    let before = server.requests().len();
    let error = session.datasets().unwrap_err();
    let Error::Store { name, renewed: true, source } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((name.as_str(), source.kind()), ("vault", io::ErrorKind::StorageFull));
    assert!(error.to_string().starts_with("vault: "), "{error}");
    assert!(!error.is_temporary() && !error.needs_sign_in(), "{error}");
    assert_eq!(server.paths_after(before), ["/v1/sign_in/refresh"]);
    session.datasets().unwrap();
    session.datasets().unwrap();
    assert_eq!(server.refreshes(), 1);
    // The store still holds the pair that was spent, which isn't brought back.
    assert_ne!(vault.tokens(), session.tokens());
    vault.0.cannot_store.store(false, Ordering::SeqCst);
    server.expire_tokens();
    session.datasets().unwrap();
    assert_eq!(server.refreshes(), 2);
    assert_eq!(vault.tokens(), session.tokens());
}

#[test]
fn an_error_before_the_refresh_spends_no_tokens() {
    for (flag, is_temporary) in [(false, false), (true, true)] {
        let (server, vault) = with_expired_token();
        let session = client(&server.base_url()).session(EMAIL, vault.clone());
        let failing = if flag { &vault.0.is_locked } else { &vault.0.cannot_load };
        failing.store(true, Ordering::SeqCst);
        let error = session.datasets().unwrap_err();
        let is_store = matches!(error, Error::Store { renewed: false, .. });
        assert!(is_store, "{error:?}");
        assert_eq!(error.is_temporary(), is_temporary, "{error}");
        assert_eq!(server.requests().len(), 1);
        failing.store(false, Ordering::SeqCst);
        session.datasets().unwrap();
    }
}

#[test]
fn stored_tokens_of_another_account_are_refused_and_stay() {
    let (server, session) = signed_in();
    let stored = tokens(&session);
    let vault = Vault::holding(&stored);
    let session = client(&server.base_url()).session("other@example.com", vault.clone());
    let password = password();
    for result in [session.datasets().map(drop), session.sign_in(&password)] {
        match result {
            Err(Error::Store { source, renewed: false, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(vault.tokens(), Some(stored));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_memory_store_begins_with_the_tokens_that_it_is_given() {
    let (server, session) = signed_in();
    let store = MemoryStore::new(session.tokens());
    let session = client(&server.base_url()).session(EMAIL, store);
    session.datasets().unwrap();
    assert_eq!(server.sign_ins(), 1);
}
