//! The name that connections are made to, of the server or of the proxy, and its
//! addresses: looked up with a time limit, and kept for a while.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use ureq::{http::Uri, unversioned::resolver::DefaultResolver};

use super::attempt::{Kind, TransportError};
use super::{RESOLVE_TIMEOUT, lock};
use crate::error::Stage;
use crate::event::{Event, OnEvent};

/// How long an idle connection, and the addresses of the name, are kept: as long as ureq
/// keeps connections by default.
pub(crate) const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Looks up the one name of a client, by a thread of its own: the operating system knows no
/// time limit. Whoever needs the name meanwhile waits for the same lookup, so that there
/// is no more than one such thread to leave behind.
pub(crate) struct CachingResolver {
    resolve: Box<Resolve>,
    latest: Mutex<Lookup>,
    finished: Condvar,
    pub(crate) on_event: OnEvent,
}

/// Returns the addresses of a `host:port`.
type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

pub(crate) type Addresses = Result<Vec<SocketAddr>, TransportError>;

/// The latest lookup.
struct Lookup {
    is_running: bool,
    /// What came of it, or of the one before it while it is running.
    addresses: Addresses,
    /// How long addresses are good for.
    expiry: Instant,
}

impl Lookup {
    /// Whether there are addresses, or will be, without another lookup.
    fn is_usable(&self) -> bool {
        self.is_running || self.addresses.is_ok() && Instant::now() < self.expiry
    }
}

/// The operating system's resolver.
pub(crate) fn system(on_event: OnEvent) -> CachingResolver {
    let resolve = |name: &str| name.to_socket_addrs().map(Iterator::collect);
    CachingResolver::new(Box::new(resolve), on_event)
}

/// The `host:port` of a URL.
pub(crate) fn host_and_port(uri: &Uri) -> Option<String> {
    DefaultResolver::host_and_port(uri.scheme()?, uri.authority()?)
}

impl CachingResolver {
    pub(crate) fn new(resolve: Box<Resolve>, on_event: OnEvent) -> Self {
        let nothing = Lookup { is_running: false, addresses: Ok(vec![]), expiry: Instant::now() };
        Self { resolve, latest: Mutex::new(nothing), finished: Condvar::new(), on_event }
    }

    /// Returns the addresses of a URL's host, which is a name or an address.
    pub(crate) fn addresses(self: &Arc<Self>, uri: &Uri, limit: Duration) -> Addresses {
        let name = host_and_port(uri).unwrap_or_default();
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let host = uri.host().unwrap_or_default();
        // Nobody is told of events with the lock held.
        if lock(&self.latest).is_usable() {
            return self.look_up(name, limit);
        }
        (self.on_event)(&Event::Resolving { host });
        let addresses = self.look_up(name, limit)?;
        (self.on_event)(&Event::Resolved { host, addresses: &addresses });
        Ok(addresses)
    }

    /// Lets the next connection look the name up again: an address may have gone stale.
    pub(crate) fn forget(&self) {
        lock(&self.latest).expiry = Instant::now();
    }

    /// Waits for the lookup that goes on or is recent, or for another.
    fn look_up(self: &Arc<Self>, name: String, limit: Duration) -> Addresses {
        let mut latest = lock(&self.latest);
        if !latest.is_usable() {
            let resolver = Arc::clone(self);
            // The builder, as thread::spawn panics where there can be no thread.
            let thread = thread::Builder::new().spawn(move || resolver.finish(&name));
            thread.map_err(|error| TransportError::at(Stage::Resolve, error))?;
            latest.is_running = true;
        }
        let limit = limit.min(RESOLVE_TIMEOUT);
        let waited = self.finished.wait_timeout_while(latest, limit, |latest| latest.is_running);
        let (latest, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(TransportError::new(Stage::Resolve, Kind::Timeout, ""));
        }
        latest.addresses.clone()
    }

    /// Looks the name up, however long that takes, and tells whoever waits for it.
    fn finish(&self, name: &str) {
        let addresses = (self.resolve)(name);
        let addresses = addresses.map_err(|error| TransportError::at(Stage::Resolve, error));
        let expiry = Instant::now() + POOL_IDLE_TIMEOUT;
        *lock(&self.latest) = Lookup { is_running: false, addresses, expiry };
        self.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    type Answers = Sender<Result<SocketAddr, &'static str>>;

    /// A resolver that tells of each lookup, and returns what the test answers.
    fn scripted() -> (Arc<CachingResolver>, Receiver<String>, Answers) {
        scripted_with(Arc::new(|_| {}))
    }

    fn scripted_with(on_event: OnEvent) -> (Arc<CachingResolver>, Receiver<String>, Answers) {
        let ((asked, questions), (sender, answers)) = (mpsc::channel(), mpsc::channel());
        let answers: Mutex<Receiver<Result<SocketAddr, &str>>> = Mutex::new(answers);
        let resolve = move |name: &str| {
            asked.send(name.to_owned()).unwrap();
            let answer = lock(&answers).recv().unwrap();
            answer.map(|address| vec![address]).map_err(io::Error::other)
        };
        (Arc::new(CachingResolver::new(Box::new(resolve), on_event)), questions, sender)
    }

    fn find(
        resolver: &Arc<CachingResolver>,
        limit: Duration,
    ) -> Result<SocketAddr, (bool, String)> {
        match resolver.addresses(&Uri::from_static("https://api.example"), limit) {
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
    fn a_lookup_is_told_before_and_after_and_a_recent_one_is_not() {
        let (sender, told) = mpsc::channel();
        let on_event = move |event: &Event<'_>| sender.send(event.to_string()).unwrap();
        let (resolver, _questions, answers) = scripted_with(Arc::new(on_event));
        answers.send(Ok(address(1))).unwrap();
        find(&resolver, LONG).unwrap();
        find(&resolver, LONG).unwrap();
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told, ["looking up api.example", "api.example has the addresses 127.0.0.1"]);
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
            assert_eq!(questions.recv().unwrap(), "api.example:443");
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
    fn an_address_is_not_looked_up() {
        let (resolver, questions, _answers) = scripted();
        for (url, expected) in
            [("http://127.0.0.1", "127.0.0.1:80"), ("https://[::1]:80", "[::1]:80")]
        {
            let found = resolver.addresses(&Uri::from_static(url), LONG).unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
        assert_eq!(questions.try_iter().count(), 0);
    }
}
