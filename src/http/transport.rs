//! ureq's transport, customised: cached DNS, dead addresses passed over, CONNECT, and
//! errors that record how far the request got.
//!
//! All of `http` that is below ureq uses what ureq marks as unversioned; nothing else does.

use std::sync::{Arc, Mutex};
use std::{fmt, io, net::SocketAddr, time::Duration};

use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
    time,
};
use ureq::{Error, config::Config, http::Uri};

use super::attempt::{Kind, TransportError};
use super::connect::{first_of, in_order, time_left};
use super::resolver::{Addresses, CachingResolver, host_and_port};
use super::{lock, tunnel};
use crate::{error::Stage, event::Event};

/// Makes an agent whose errors are [`TransportError`]s wherever it matters how far the
/// request got.
pub(crate) fn agent(config: Config, resolver: CachingResolver) -> ureq::Agent {
    let (last_used, tls) = (Mutex::default(), RustlsConnector::default());
    let connector = TrackedConnector { resolver: Arc::new(resolver), last_used, tls };
    ureq::Agent::with_parts(config, connector, NoResolver)
}

/// Leaves it to the connector to look names up: ureq asks before every request, even one
/// that goes over a pooled connection.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Makes connections, through a proxy if there is one.
struct TrackedConnector {
    resolver: Arc<CachingResolver>,
    /// The address that the latest connection was made to.
    last_used: Mutex<Option<SocketAddr>>,
    tls: RustlsConnector,
}

impl Connector for TrackedConnector {
    type Out = Stream;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Stream>, Error> {
        let stream = self.open(details).map_err(|error| {
            self.resolver.forget();
            Error::Other(error.into())
        })?;
        Ok(Some(Stream { is_whole: true, ..stream }))
    }
}

impl TrackedConnector {
    fn open(&self, details: &ConnectionDetails) -> Result<Stream, TransportError> {
        let Some(proxy) = details.config.proxy() else {
            return self.connect_to(details, details.uri);
        };
        let to_proxy = self.connect_to(details, proxy.uri());
        let tunnel = to_proxy.and_then(|stream| tunnel::open(stream.boxed(), details));
        // Whatever failed so far is the proxy's failure. It also resolves the host.
        let at_proxy = |error| TransportError { proxy: host_and_port(proxy.uri()), ..error };
        let tunnel = Stream::over(tunnel.map_err(at_proxy)?);
        self.handshake(&step(details, details.uri), tunnel)
    }

    /// Connects to the host of a URL, to the first of its addresses that accepts.
    fn connect_to(&self, details: &ConnectionDetails, uri: &Uri) -> Result<Stream, TransportError> {
        let candidates = self.candidates(details, uri)?;
        let attempt = |address, limit: Duration| {
            let mut details = step(details, uri);
            details.addrs.push(address);
            details.timeout.after = limit.into();
            let tcp = TcpConnector::default().connect(&details, None::<()>)?;
            *lock(&self.last_used) = Some(address);
            let host = uri.host().unwrap_or_default();
            (self.resolver.on_event)(&Event::Connected { host, address });
            tcp.map(Transport::boxed).map(Stream::over).ok_or(Error::ConnectionFailed)
        };
        let stream = first_of(candidates, || time_left(details), attempt)?;
        self.handshake(&step(details, uri), stream)
    }

    /// The addresses of the host of a URL, in the order in which they are tried.
    fn candidates(&self, details: &ConnectionDetails, uri: &Uri) -> Addresses {
        let mut addresses = self.resolver.addresses(uri, time_left(details))?;
        // Plain http stays on this machine, whatever a hosts file says of localhost.
        if uri.scheme_str() == Some("http") && details.config.proxy().is_none() {
            addresses.retain(|address| address.ip().to_canonical().is_loopback());
            if addresses.is_empty() {
                let reason = "it isn't this machine, and plain http goes nowhere else";
                return Err(TransportError::new(Stage::Connect, Kind::Final, reason));
            }
        }
        Ok(in_order(&addresses, *lock(&self.last_used)))
    }

    /// Makes the TLS handshake where the URL is https. All connections share its set-up.
    fn handshake(&self, to: &ConnectionDetails, stream: Stream) -> Result<Stream, TransportError> {
        let over_tls = self.tls.connect(to, Some(stream));
        over_tls
            .and_then(|over_tls| over_tls.ok_or(Error::ConnectionFailed))
            .map(|over_tls| Stream::over(over_tls.boxed()))
            .map_err(|error| TransportError::at(Stage::Tls, error))
    }
}

impl fmt::Debug for TrackedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrackedConnector")
    }
}

/// The details of one step on the way to a connection, within the same time limit.
fn step<'a>(details: &'a ConnectionDetails<'a>, uri: &'a Uri) -> ConnectionDetails<'a> {
    ConnectionDetails {
        uri,
        addrs: details.resolver.empty(),
        config: details.config,
        // A time limit of its own is all that a request here changes. At the request's
        // level ureq would set TLS up anew for it, with no session to resume.
        request_level: false,
        resolver: details.resolver,
        now: details.now,
        timeout: details.timeout,
        current_time: details.current_time.clone(),
        run_connector: details.run_connector.clone(),
        register_shutdown: details.register_shutdown.clone(),
    }
}

/// A connection to the host, or a part of one, which TLS or a tunnel is laid over.
///
/// It keeps what is left of a time limit the same for a while: ureq passes it on to the
/// microsecond, of which a socket is told by a system call for each read and write, a
/// tenth of a kept-alive call.
#[derive(Debug)]
struct Stream {
    inner: Box<dyn Transport>,
    /// It leads to the host itself: TLS up to a proxy is no TLS to the host, and what a
    /// proxy or TLS sends is no response.
    is_whole: bool,
    /// It is whole, a request is under way, and nothing of its response has come.
    awaits_response: bool,
    /// An earlier response came over this connection, so that the server may just have
    /// closed an idle one.
    reused: bool,
}

impl Stream {
    /// A part of a connection.
    fn over(inner: Box<dyn Transport>) -> Self {
        Self { inner, is_whole: false, awaits_response: false, reused: false }
    }

    /// What ureq is told of a failure; of one before the response, how far the request got.
    fn failure(&self, error: Error) -> Error {
        if !self.awaits_response || matches!(error, Error::Timeout(_)) {
            return error;
        }
        let error = TransportError::at(Stage::Exchange, error);
        Error::Other(TransportError { was_idle: self.reused, ..error }.into())
    }
}

impl Transport for Stream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.awaits_response = self.is_whole;
        self.inner.transmit_output(amount, in_steps(timeout)).map_err(|error| self.failure(error))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let came = self.inner.await_input(in_steps(timeout));
        let came = came.map_err(|error| self.failure(error))?;
        if self.awaits_response && !came {
            return Err(self.failure(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        (self.awaits_response, self.reused) = (false, true);
        Ok(came)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.is_whole && self.inner.is_tls()
    }
}

/// How late a time limit may be: a part of a second.
const TIMEOUT_STEP: Duration = Duration::from_millis(100);

fn in_steps(mut timeout: NextTimeout) -> NextTimeout {
    if let time::Duration::Exact(after) = timeout.after {
        let nanos = after.subsec_nanos().next_multiple_of(TIMEOUT_STEP.subsec_nanos());
        timeout.after = Duration::new(after.as_secs(), nanos).into();
    }
    timeout
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Resolves each lookup to the next of these answers, and the last one over again.
    fn answers(answers: impl Into<Vec<Vec<SocketAddr>>>) -> CachingResolver {
        let (answers, lookups) = (answers.into(), AtomicUsize::new(0));
        let resolve = move |_: &str| {
            let lookup = lookups.fetch_add(1, Ordering::SeqCst);
            Ok(answers[lookup.min(answers.len() - 1)].clone())
        };
        CachingResolver::new(Box::new(resolve), Arc::new(|_| {}))
    }

    fn agent_for(addresses: &[SocketAddr], connect_limit: Duration) -> ureq::Agent {
        let config =
            ureq::Agent::config_builder().proxy(None).timeout_connect(Some(connect_limit)).build();
        agent(config, answers([addresses.to_vec()]))
    }

    fn connect_error(result: Result<impl Sized, ureq::Error>) -> TransportError {
        match result.map(drop) {
            Err(ureq::Error::Other(error)) => *error.downcast().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_limit_that_runs_down_is_told_in_steps_and_never_too_short() {
        let told = |left: Duration| {
            let timeout = NextTimeout { after: left.into(), ..NextTimeout::default() };
            in_steps(timeout).after
        };
        for (left, expected) in [
            (Duration::from_secs(60), Duration::from_secs(60)),
            (Duration::from_nanos(59_999_999_999), Duration::from_secs(60)),
            (Duration::from_micros(59_900_001), Duration::from_secs(60)),
            (Duration::from_millis(59_900), Duration::from_millis(59_900)),
            (Duration::from_nanos(1), TIMEOUT_STEP),
            (Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!(told(left), expected.into(), "{left:?}");
        }
        let never = NextTimeout::default();
        assert_eq!(in_steps(never).after, never.after);
        assert!(never.after.is_not_happening());
    }

    const URL: &str = "http://api.example/";
    const LIMIT: Duration = Duration::from_secs(20);

    fn listen(number: u8) -> TcpListener {
        TcpListener::bind(SocketAddr::from(([127, 0, 0, number], 0))).unwrap()
    }

    /// Serves one request a connection and counts them.
    fn serve(listener: TcpListener) -> (SocketAddr, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let (address, counted) = (listener.local_addr().unwrap(), Arc::clone(&count));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
            }
        });
        (address, count)
    }

    /// An address that refuses connections.
    fn closed(number: u8) -> SocketAddr {
        listen(number).local_addr().unwrap()
    }

    /// An address that neither accepts nor refuses while what comes with it is held.
    fn dead(number: u8) -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
        let listener = listen(number);
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
        // Until the queue of those that aren't accepted is full.
        let queue = std::iter::from_fn(|| connect().ok()).collect();
        (address, (listener, queue))
    }

    #[test]
    fn a_refusing_address_is_passed_over_and_the_one_that_worked_stays_the_first() {
        let first = listen(2);
        let address = first.local_addr().unwrap();
        drop(first);
        let (good, count) = serve(listen(3));
        let agent = agent_for(&[address, good], LIMIT);
        agent.get(URL).call().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let (_, recovered) = serve(TcpListener::bind(address).unwrap());
        agent.get(URL).call().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert_eq!(recovered.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn dead_addresses_cost_a_third_of_a_second_each_and_only_once() {
        let (dead, (good, count)) = ([dead(4), dead(5)], serve(listen(6)));
        let agent = agent_for(&[dead[0].0, dead[1].0, good], LIMIT);
        let start = Instant::now();
        agent.get(URL).call().unwrap();
        let (took, step) = (start.elapsed(), Duration::from_millis(333));
        assert!(took >= step * 2 && took < LIMIT / 4, "{took:?}");
        let start = Instant::now();
        agent.get(URL).call().unwrap();
        assert!(start.elapsed() < step, "{:?}", start.elapsed());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn if_all_addresses_fail_each_reason_is_named_once() {
        let dead = dead(9);
        for (addresses, limited, expected) in [
            (vec![closed(10), closed(11)], false, "Connection refused"),
            (vec![closed(10), dead.0, closed(11)], true, "Connection refused"),
            (vec![dead.0], true, ""),
        ] {
            let agent = agent_for(&addresses, Duration::from_millis(500));
            let error = connect_error(agent.get(URL).call());
            let kind = if limited { Kind::Timeout } else { Kind::Temporary };
            assert_eq!((error.stage, error.proxy), (Stage::Connect, None));
            assert_eq!((error.kind, error.reason.as_str()), (kind, expected));
        }
    }

    #[test]
    fn after_a_failed_connection_the_name_is_looked_up_again() {
        let (good, _) = serve(listen(13));
        let config = ureq::Agent::config_builder().proxy(None).build();
        let moved = answers([vec![closed(14)], vec![good]]);
        let agent = agent(config, moved);
        connect_error(agent.get(URL).call());
        agent.get(URL).call().unwrap();
    }

    #[test]
    fn plain_http_sends_nothing_to_an_address_elsewhere() {
        let (good, count) = serve(listen(12));
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 80));
        let agent = agent_for(&[elsewhere], LIMIT);
        let error = connect_error(agent.get(URL).call());
        assert_eq!((error.stage, error.kind), (Stage::Connect, Kind::Final), "{error:?}");
        agent_for(&[elsewhere, good], LIMIT).get(URL).call().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        // A loopback address of IPv4, written in IPv6, is this machine.
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), closed(1).port());
        let error = connect_error(agent_for(&[mapped], LIMIT).get(URL).call());
        assert_eq!((error.stage, error.kind), (Stage::Connect, Kind::Temporary), "{error:?}");
    }

    #[test]
    fn https_and_a_proxy_may_be_anywhere() {
        // An address of this machine, though not a loopback address.
        let elsewhere = SocketAddr::from(([0, 0, 0, 0], closed(16).port()));
        let proxy = ureq::Proxy::new("http://proxy.example:3128").unwrap();
        for proxy in [None, Some(proxy)] {
            let config = ureq::Agent::config_builder().proxy(proxy).build();
            let agent = agent(config, answers([vec![elsewhere]]));
            let error = connect_error(agent.get("https://api.example/").call());
            assert_eq!((error.stage, error.kind), (Stage::Connect, Kind::Temporary), "{error:?}");
        }
    }

    #[cfg(feature = "ring")]
    #[test]
    fn what_rustls_says_is_handed_on_as_it_is() {
        let (plain, _) = serve(listen(15));
        let error = connect_error(agent_for(&[plain], LIMIT).get("https://api.example/").call());
        assert_eq!((error.stage, error.kind), (Stage::Tls, Kind::Final));
        assert!(error.reason.starts_with("received corrupt message"), "{error:?}");
    }

    #[test]
    fn a_lookup_that_hangs_is_told_as_that_whichever_limit_ends_it() {
        let hanging = |_: &str| {
            loop {
                thread::park();
            }
        };
        let short = Some(Duration::from_millis(20));
        let config = || ureq::Agent::config_builder().proxy(None);
        for config in [config().timeout_connect(short), config().timeout_global(short)] {
            let resolver = CachingResolver::new(Box::new(hanging), Arc::new(|_| {}));
            let agent = agent(config.build(), resolver);
            let error = connect_error(agent.get(URL).call());
            assert_eq!((error.stage, error.kind), (Stage::Resolve, Kind::Timeout), "{error:?}");
        }
    }

    #[test]
    fn a_tunnel_has_what_a_slow_lookup_leaves_of_the_limit() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let limit = Duration::from_millis(1200);
        let slow = move |_: &str| {
            thread::sleep(limit * 3 / 4);
            Ok(vec![address])
        };
        let proxy = ureq::Proxy::new("http://proxy.example:3128").ok();
        let config = ureq::Agent::config_builder().proxy(proxy).timeout_connect(Some(limit));
        let agent = agent(config.build(), CachingResolver::new(Box::new(slow), Arc::new(|_| {})));
        let start = Instant::now();
        let error = connect_error(agent.get("https://api.example/").call());
        assert_eq!((error.stage, error.kind), (Stage::Proxy, Kind::Timeout), "{error:?}");
        assert!(start.elapsed() < limit * 3 / 2, "{:?}", start.elapsed());
    }
}
