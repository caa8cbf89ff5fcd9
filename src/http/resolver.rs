//! Host names to addresses: ureq's resolver, with a cache and a time limit.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::attempt::{Kind, TransportError, system_message};
use super::{lock, proxy};
use crate::error::Stage;
use crate::event::{Event, Events};

/// How long an idle connection, and the addresses of a name, are kept: as long as ureq
/// keeps connections by default.
pub(crate) const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Resolves each name once for as long as a connection may idle: ureq asks before every
/// request, even one that goes over a pooled connection.
#[derive(Clone, Debug)]
pub(crate) struct CachingResolver {
    inner: Arc<dyn Resolver>,
    lookups: Arc<Lookups>,
    events: Events,
}

/// The last lookup of each name, by a thread of its own: the operating system knows no
/// time limit. Whoever needs the name meanwhile waits for the same lookup, so that there
/// is no more than one such thread to leave behind.
#[derive(Debug, Default)]
struct Lookups {
    by_key: Mutex<ByKey>,
    finished: Condvar,
}

type ByKey = BTreeMap<String, Lookup>;

#[derive(Debug)]
enum Lookup {
    Running,
    /// What came of it, and how long that is good for.
    Finished(Box<Outcome>, Instant),
}

/// The addresses, or why there are none.
type Outcome = Result<ResolvedSocketAddrs, String>;

impl CachingResolver {
    pub(crate) fn new(inner: impl Resolver, events: Events) -> Self {
        Self { inner: Arc::new(inner), lookups: Arc::default(), events }
    }

    /// Returns the addresses of a URL's host.
    pub(crate) fn addresses(
        &self,
        uri: &Uri,
        config: &Config,
        limit: Duration,
    ) -> Result<ResolvedSocketAddrs, TransportError> {
        let host = uri.host().unwrap_or_default();
        let outcome = if proxy::bare(host).parse::<IpAddr>().is_ok() {
            Some(resolve(&*self.inner, uri, config))
        } else {
            self.look_up(uri, config, limit)
        };
        match outcome {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(reason)) => Err(TransportError::new(Stage::Resolve, Kind::Temporary, reason)),
            None => Err(TransportError::new(Stage::Resolve, Kind::Timeout, "")),
        }
    }

    /// Lets the next request look names up again: an address may have gone stale.
    pub(crate) fn forget(&self) {
        for lookup in lock(&self.lookups.by_key).values_mut() {
            if let Lookup::Finished(_, expiry) = lookup {
                *expiry = Instant::now();
            }
        }
    }

    /// Waits for the lookup that goes on or is recent, or for another.
    fn look_up(&self, uri: &Uri, config: &Config, limit: Duration) -> Option<Outcome> {
        let (key, host) = (key(uri), uri.host().unwrap_or_default());
        let is_usable = |lookups: &ByKey| lookups.get(&key).is_some_and(Lookup::is_usable);
        // Nobody is told of events with the lock held.
        let is_recent = is_usable(&lock(&self.lookups.by_key));
        if !is_recent {
            self.events.emit(&Event::Resolving { host });
        }
        let mut lookups = lock(&self.lookups.by_key);
        if !is_usable(&lookups) {
            if let Err(error) = self.start(key.clone(), uri.clone(), config.clone()) {
                return Some(Err(system_message(&error)));
            }
            lookups.insert(key.clone(), Lookup::Running);
        }
        let is_running = |lookups: &mut ByKey| matches!(lookups.get(&key), Some(Lookup::Running));
        let waited = self.lookups.finished.wait_timeout_while(lookups, limit, is_running);
        let (lookups, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(Lookup::Finished(outcome, _)) = lookups.get(&key) else { return None };
        let outcome = Outcome::clone(outcome);
        drop(lookups);
        if let (false, Ok(addresses)) = (is_recent, &outcome) {
            self.events.emit(&Event::Resolved { host, addresses });
        }
        Some(outcome)
    }

    fn start(&self, key: String, uri: Uri, config: Config) -> io::Result<()> {
        let resolver = self.clone();
        // The builder, as thread::spawn panics where there can be no thread.
        let thread = thread::Builder::new().spawn(move || {
            let outcome = Box::new(resolve(&*resolver.inner, &uri, &config));
            let lookup = Lookup::Finished(outcome, Instant::now() + POOL_IDLE_TIMEOUT);
            lock(&resolver.lookups.by_key).insert(key, lookup);
            resolver.lookups.finished.notify_all();
        });
        thread.map(drop)
    }
}

impl Lookup {
    fn is_usable(&self) -> bool {
        match self {
            Self::Running => true,
            Self::Finished(outcome, expiry) => outcome.is_ok() && Instant::now() < *expiry,
        }
    }
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.addresses(uri, config, *timeout.after)?;
        // Plain http stays on this machine, whatever a hosts file says of localhost.
        let is_plain = uri.scheme() == Some(&Scheme::HTTP);
        let is_allowed = |address: &&SocketAddr| !is_plain || address.ip().is_loopback();
        let mut allowed = self.empty();
        addresses.iter().filter(is_allowed).for_each(|address| allowed.push(*address));
        if allowed.is_empty() {
            let reason = "it isn't this machine, and plain http goes nowhere else";
            return Err(TransportError::new(Stage::Connect, Kind::Final, reason).into());
        }
        Ok(allowed)
    }
}

/// What a lookup is known by: not by the authority, which may hold a proxy's password.
fn key(uri: &Uri) -> String {
    format!("{:?} {:?} {:?}", uri.scheme_str(), uri.host(), uri.port_u16())
}

/// Asks ureq's resolver without its time limit, for which it would start a thread for
/// each caller.
fn resolve(resolver: &dyn Resolver, uri: &Uri, config: &Config) -> Outcome {
    match resolver.resolve(uri, config, NextTimeout::default()) {
        Ok(addresses) => Ok(addresses),
        Err(ureq::Error::Io(error)) => Err(system_message(&error)),
        Err(_) => Err("the name has no address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    /// Tells of each lookup, and returns what the test answers.
    #[derive(Debug)]
    struct Scripted {
        asked: Sender<String>,
        answers: Mutex<Receiver<Result<SocketAddr, &'static str>>>,
    }

    impl Resolver for Scripted {
        fn resolve(
            &self,
            uri: &Uri,
            _: &Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            assert!(timeout.after.is_not_happening());
            self.asked.send(uri.to_string()).unwrap();
            let mut found = self.empty();
            match lock(&self.answers).recv().unwrap() {
                Ok(address) => found.push(address),
                Err(reason) => return Err(io::Error::other(reason).into()),
            }
            Ok(found)
        }
    }

    type Answers = Sender<Result<SocketAddr, &'static str>>;

    fn scripted() -> (CachingResolver, Receiver<String>, Answers) {
        let ((asked, questions), (sender, answers)) = (mpsc::channel(), mpsc::channel());
        let answers = Mutex::new(answers);
        let resolver = CachingResolver::new(Scripted { asked, answers }, Events::default());
        (resolver, questions, sender)
    }

    fn find(resolver: &CachingResolver, limit: Duration) -> Result<SocketAddr, (bool, String)> {
        let uri = Uri::from_static("https://api.example/v1/");
        match resolver.addresses(&uri, &Config::default(), limit) {
            Ok(addresses) => Ok(addresses[0]),
            Err(error) => {
                assert_eq!((error.stage, &error.proxy), (Stage::Resolve, &None));
                Err((error.kind == Kind::Timeout, error.reason))
            }
        }
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, number], 443))
    }

    #[test]
    fn a_name_is_looked_up_once_until_a_connection_fails() {
        let (resolver, questions, answers) = scripted();
        answers.send(Ok(address(1))).unwrap();
        answers.send(Ok(address(2))).unwrap();
        assert_eq!(find(&resolver, LONG), Ok(address(1)));
        assert_eq!(find(&resolver, LONG), Ok(address(1)));
        resolver.forget();
        assert_eq!(find(&resolver, LONG), Ok(address(2)));
        assert_eq!(questions.try_iter().count(), 2);
    }

    #[test]
    fn a_failed_lookup_is_not_kept() {
        let (resolver, questions, answers) = scripted();
        answers.send(Err("no such name")).unwrap();
        answers.send(Ok(address(1))).unwrap();
        assert_eq!(find(&resolver, LONG), Err((false, "no such name".into())));
        assert_eq!(find(&resolver, LONG), Ok(address(1)));
        assert_eq!(questions.try_iter().count(), 2);
    }

    #[test]
    fn a_lookup_that_hangs_is_the_only_one_whoever_waits() {
        let (resolver, questions, answers) = scripted();
        thread::scope(|scope| {
            let patient = scope.spawn(|| find(&resolver, LONG));
            assert_eq!(questions.recv().unwrap(), "https://api.example/v1/");
            for _ in 0..20 {
                assert!(matches!(find(&resolver, SHORT), Err((true, _))));
                resolver.forget();
            }
            answers.send(Ok(address(1))).unwrap();
            assert_eq!(patient.join().unwrap(), Ok(address(1)));
        });
        assert_eq!(questions.try_iter().count(), 0);
    }

    #[test]
    fn who_waits_for_a_lookup_shares_its_failure() {
        let (resolver, questions, answers) = scripted();
        thread::scope(|scope| {
            let first = scope.spawn(|| find(&resolver, LONG));
            questions.recv().unwrap();
            let second = scope.spawn(|| find(&resolver, LONG));
            // Whichever comes too late to share it asks anew.
            answers.send(Err("no such name")).unwrap();
            answers.send(Err("no such name")).unwrap();
            let failed = Err((false, "no such name".to_owned()));
            assert_eq!(first.join().unwrap(), failed);
            assert_eq!(second.join().unwrap(), failed);
        });
    }

    #[test]
    fn a_lookup_is_not_known_by_the_password_of_a_proxy() {
        let (resolver, _questions, answers) = scripted();
        answers.send(Ok(address(1))).unwrap();
        let uri = Uri::from_static("http://me:proxy-secret@proxy.example:3128");
        let found = resolver.addresses(&uri, &Config::default(), LONG);
        assert_eq!(found.unwrap()[0], address(1));
        assert!(!format!("{resolver:?}").contains("secret"), "{resolver:?}");
    }

    #[test]
    fn plain_http_has_only_the_loopback_addresses() {
        let (resolver, _questions, answers) = scripted();
        let resolve = |url| resolver.resolve(&url, &Config::default(), NextTimeout::default());
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 80));
        answers.send(Ok(elsewhere)).unwrap();
        answers.send(Ok(elsewhere)).unwrap();
        let Err(ureq::Error::Other(error)) = resolve(Uri::from_static("http://localhost/")) else {
            panic!("an address elsewhere");
        };
        let error = error.downcast::<TransportError>().unwrap();
        assert_eq!((error.stage, error.kind), (Stage::Connect, Kind::Final), "{error:?}");
        let found = resolve(Uri::from_static("https://localhost/")).unwrap();
        assert_eq!(found[..], [elsewhere]);
    }
}
