//! Where tokens live between calls and between programs.

#[cfg(unix)]
pub(crate) mod file;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tokens::Tokens;

/// Keeps the tokens of one account, for all sessions that use it, in whatever threads
/// and processes.
///
/// A [`Session`](crate::Session) loads from its store whenever the tokens that it holds
/// aren't fresh, and renews under the store's exclusion. It checks itself whose tokens
/// they are and whether they are better than those that it holds.
///
/// # Errors
/// A session returns an error of its store as [`Error::Store`](crate::Error::Store), or
/// goes on with tokens that are still good. Two kinds mean something:
/// [`TimedOut`](io::ErrorKind::TimedOut) that the store is in use elsewhere, and the same
/// may succeed later; [`InvalidInput`](io::ErrorKind::InvalidInput) that what is stored
/// is refused, and stays so until somebody mends it. No error may quote a token.
///
/// # Example
/// A store of one's own, for a service that has a place for secrets:
///
/// ```
/// use std::io;
/// use std::sync::Mutex;
/// use here_datalens::{TokenStore, Tokens};
///
/// # struct Vault(Mutex<Option<String>>);
/// # impl Vault {
/// #     fn get(&self) -> io::Result<Option<String>> { Ok(self.0.lock().unwrap().clone()) }
/// #     fn put(&self, text: &str) -> io::Result<()> { *self.0.lock().unwrap() = Some(text.into()); Ok(()) }
/// # }
/// struct VaultStore {
///     vault: Vault,
///     lock: Mutex<()>, // enough for one process
/// }
///
/// impl TokenStore for VaultStore {
///     fn load(&self) -> io::Result<Option<Tokens>> {
///         let Some(json) = self.vault.get()? else {
///             return Ok(None);
///         };
///         // serde's error may quote what is stored.
///         let tokens = serde_json::from_str(&json);
///         tokens.map(Some).map_err(|_| io::ErrorKind::InvalidInput.into())
///     }
///
///     fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
///         let _lock = self.lock.lock();
///         match renew(self.load()?) {
///             Some(tokens) => self.vault.put(&serde_json::to_string(&tokens)?),
///             None => Ok(()),
///         }
///     }
/// }
/// ```
pub trait TokenStore: Send + Sync {
    /// Returns the tokens that are stored, if any, without waiting for anybody.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn load(&self) -> io::Result<Option<Tokens>>;

    /// Calls `renew` at most once, with what is stored, and stores what it returns; on
    /// `None` it leaves all as it is. From before the call until after the storing
    /// nobody else gets to renew, in whatever thread or process.
    ///
    /// `renew` sends requests, so it takes its time, and the old tokens may be spent
    /// once it has been called: what can be found to fail should be found before.
    ///
    /// # Errors
    /// Whatever keeps the tokens from being loaded or stored. One that comes before
    /// `renew` was called means that nothing was sent.
    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()>;

    /// Whether somebody is renewing just now, so that [`update`](Self::update) would wait. A
    /// session goes on with a token that is alive then. Defaults to `false`.
    fn is_busy(&self) -> bool {
        false
    }

    /// Returns what messages call the store. One without a name is never waited for.
    /// Defaults to "token store".
    fn name(&self) -> String {
        "token store".into()
    }
}

/// Keeps tokens in memory, for one session and its clones.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Option<Tokens>>);

impl MemoryStore {
    /// Makes a store that holds these tokens.
    pub fn new(tokens: Option<Tokens>) -> Self {
        Self(Mutex::new(tokens))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tokens>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> io::Result<Option<Tokens>> {
        Ok(self.lock().clone())
    }

    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
        let mut tokens = self.lock();
        if let Some(renewed) = renew(tokens.clone()) {
            *tokens = Some(renewed);
        }
        Ok(())
    }

    fn name(&self) -> String {
        String::new()
    }
}
