//! The seam to ureq's connections: names are looked up once, sockets are told a time
//! limit once, and each failure says how far the call had come, which ureq's own
//! errors don't.
//!
//! Everything that ureq marks as unversioned is used here and nowhere else.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, RustlsConnector,
    TcpConnector, Transport, time,
};

/// How long an idle connection, and the answer of a name lookup, is kept: as long
/// as ureq keeps connections by default.
pub(crate) const KEPT: Duration = Duration::from_secs(15);

/// Makes an agent whose failures are [`Fault`]s wherever the phase matters.
pub(crate) fn agent(config: Config) -> ureq::Agent {
    let names = Names::default();
    let lines = Lines {
        // As ureq's own, without what warns of features that aren't there.
        inner:
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(Steady)
                .chain(RustlsConnector::default()),
        names: names.clone(),
        proxied: config.proxy().is_some(),
    };
    ureq::Agent::with_parts(config, lines, names)
}

/// What ureq's error alone doesn't tell; it travels inside `ureq::Error::Other`.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The name of the host couldn't be looked up.
    Name(String),
    /// No connection was made, so no byte of the request was sent.
    NotConnected(ureq::Error),
    /// The connection ended before the first byte of the answer.
    NoAnswer {
        /// Whether it had served an earlier call, so that the server may just have
        /// closed an idle connection.
        reused: bool,
        error: Option<ureq::Error>,
    },
}

impl Fault {
    fn into_error(self) -> ureq::Error {
        ureq::Error::Other(Box::new(self))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fault")
    }
}

impl std::error::Error for Fault {}

/// Looks up host names, each once for as long as a connection may idle: ureq asks
/// before every request, even one that goes over a pooled connection.
#[derive(Clone, Debug, Default)]
struct Names {
    kept: Arc<Mutex<Option<(String, Instant, ResolvedSocketAddrs)>>>,
}

impl Names {
    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(String, Instant, ResolvedSocketAddrs)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        *self.kept() = None;
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut found = self.empty();
        if let Ok(address) = bare.parse::<IpAddr>() {
            found.push(SocketAddr::new(address, port));
            return Ok(found);
        }
        let target = format!("{host}:{port}");
        if let Some((kept, at, addresses)) = &*self.kept()
            && *kept == target
            && at.elapsed() < KEPT
        {
            return Ok(addresses.clone());
        }
        let question = target.clone();
        for address in look_up(timeout, move || question.to_socket_addrs())? {
            if found.len() < 16 {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(Fault::Name("the name has no address".into()).into_error());
        }
        *self.kept() = Some((target, Instant::now(), found.clone()));
        Ok(found)
    }
}

/// Asks the system, which knows no time limit, in a thread that can be left behind.
fn look_up<A: Send + 'static>(
    timeout: NextTimeout,
    question: impl FnOnce() -> std::io::Result<A> + Send + 'static,
) -> Result<A, ureq::Error> {
    let (sender, answer) = mpsc::sync_channel(1);
    // The builder, as thread::spawn panics where there can be no thread.
    thread::Builder::new()
        .spawn(move || sender.send(question()))
        .map_err(|error| Fault::Name(error.to_string()).into_error())?;
    let answer = match timeout.after {
        time::Duration::Exact(limit) => answer.recv_timeout(limit),
        time::Duration::NotHappening => answer.recv().map_err(Into::into),
    };
    match answer {
        Ok(answer) => answer.map_err(|error| Fault::Name(error.to_string()).into_error()),
        Err(_) => Err(ureq::Error::Timeout(timeout.reason)),
    }
}

/// Makes connections as ureq does, and marks their failures.
#[derive(Debug)]
struct Lines<C> {
    inner: C,
    names: Names,
    proxied: bool,
}

impl<C: Connector> Connector for Lines<C> {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        match self.inner.connect(details, chained) {
            Ok(Some(inner)) => Ok(Some(
                match self.proxied && details.config.proxy().is_none() {
                    // ureq comes here a second time, for the connection to the proxy itself.
                    true => Box::new(ToProxy::new(Box::new(inner), details)),
                    false => Box::new(Line::new(Box::new(inner))),
                },
            )),
            Ok(None) => Err(Fault::NotConnected(ureq::Error::ConnectionFailed).into_error()),
            Err(error) => {
                // The next try shall not meet an address that has gone stale.
                self.names.forget();
                Err(match is_fault(&error) {
                    true => error,
                    false => Fault::NotConnected(error).into_error(),
                })
            }
        }
    }
}

fn is_fault(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Other(inner) if inner.is::<Fault>())
}

/// Keeps what is left of a time limit the same for a while, so that a socket isn't told
/// anew for each read and write, a system call each: ureq passes it on to the microsecond.
#[derive(Debug)]
struct Steady;

/// How late a time limit may be.
const STEP: Duration = Duration::from_millis(100);

impl Steady {
    fn limit(mut timeout: NextTimeout) -> NextTimeout {
        if let time::Duration::Exact(after) = timeout.after {
            let steps = after.as_nanos().div_ceil(STEP.as_nanos());
            timeout.after = STEP
                .saturating_mul(steps.try_into().unwrap_or(u32::MAX))
                .into();
        }
        timeout
    }
}

impl<T: Transport> Connector<T> for Steady {
    type Out = SteadyLine<T>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(SteadyLine))
    }
}

#[derive(Debug)]
struct SteadyLine<T>(T);

impl<T: Transport> Transport for SteadyLine<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, Steady::limit(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(Steady::limit(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// A connection that knows whether the first byte of an answer has come.
#[derive(Debug)]
struct Line {
    inner: Box<dyn Transport>,
    /// A request is under way and nothing of its answer has come.
    unanswered: bool,
    /// An earlier answer came over this connection.
    served: bool,
}

impl Line {
    fn new(inner: Box<dyn Transport>) -> Self {
        Self {
            inner,
            unanswered: false,
            served: false,
        }
    }

    fn fault(&self, error: Option<ureq::Error>) -> ureq::Error {
        match error {
            Some(error @ ureq::Error::Timeout(_)) => error,
            error => Fault::NoAnswer {
                reused: self.served,
                error,
            }
            .into_error(),
        }
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.unanswered = true;
        self.inner
            .transmit_output(amount, timeout)
            .map_err(|error| self.fault(Some(error)))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        match self.inner.await_input(timeout) {
            Ok(true) => {
                self.unanswered = false;
                self.served = true;
                Ok(true)
            }
            Ok(false) if self.unanswered => Err(self.fault(None)),
            Err(error) if self.unanswered => Err(self.fault(Some(error))),
            other => other,
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// The connection to a proxy. ureq gives each read of the answer to CONNECT the
/// whole time limit anew; here all of them together have it once.
#[derive(Debug)]
struct ToProxy {
    inner: Box<dyn Transport>,
    deadline: Option<Instant>,
    phase: Connect,
}

/// The request for a tunnel, its answer, and whatever goes through the tunnel.
#[derive(Debug, PartialEq)]
enum Connect {
    Request,
    Answer,
    Done,
}

impl ToProxy {
    fn new(inner: Box<dyn Transport>, details: &ConnectionDetails) -> Self {
        let deadline = match (details.now, details.timeout.after) {
            (time::Instant::Exact(now), time::Duration::Exact(after)) => now.checked_add(after),
            _ => None,
        };
        Self {
            inner,
            deadline,
            phase: Connect::Request,
        }
    }
}

impl Transport for ToProxy {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.phase == Connect::Answer {
            self.phase = Connect::Done;
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if self.phase != Connect::Done {
            self.phase = Connect::Answer;
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ureq::Error::Timeout(timeout.reason));
                }
                timeout.after = left.into();
            }
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_runs_down_is_told_in_steps_and_never_too_short() {
        for (left, told) in [
            (Duration::from_secs(60), Duration::from_secs(60)),
            (
                Duration::from_nanos(59_999_999_999),
                Duration::from_secs(60),
            ),
            (Duration::from_micros(59_900_001), Duration::from_secs(60)),
            (Duration::from_millis(59_900), Duration::from_millis(59_900)),
            (Duration::from_nanos(1), STEP),
            (Duration::ZERO, Duration::ZERO),
        ] {
            let timeout = NextTimeout {
                after: left.into(),
                ..NextTimeout::default()
            };
            assert_eq!(Steady::limit(timeout).after, told.into(), "{left:?}");
        }
        let never = NextTimeout::default();
        assert_eq!(Steady::limit(never).after, never.after);
        assert!(never.after.is_not_happening());
    }

    #[test]
    fn a_name_is_looked_up_once_until_a_connection_fails() {
        let names = Names::default();
        let look_up = |uri: &'static str| {
            let config = Config::builder().build();
            let found = names.resolve(&Uri::from_static(uri), &config, NextTimeout::default());
            found.unwrap()[0]
        };
        let real = look_up("https://localhost:4443/");
        assert!(real.ip().is_loopback() && real.port() == 4443);
        // No name server says this.
        let kept = SocketAddr::from(([192, 0, 2, 1], 4443));
        names.kept().as_mut().unwrap().2[0] = kept;
        assert_eq!(look_up("https://localhost:4443/v1"), kept);
        names.forget();
        assert_eq!(look_up("https://localhost:4443/"), real);
        assert_eq!(look_up("https://localhost/").port(), 443);
    }

    #[test]
    fn a_lookup_that_hangs_is_left_behind() {
        let timeout = NextTimeout {
            after: Duration::from_millis(20).into(),
            reason: ureq::Timeout::Resolve,
            ..NextTimeout::default()
        };
        let (_keep, never) = mpsc::channel::<()>();
        let result = look_up(timeout, move || Ok(never.recv().is_ok()));
        assert!(matches!(
            result,
            Err(ureq::Error::Timeout(ureq::Timeout::Resolve))
        ));
    }
}
