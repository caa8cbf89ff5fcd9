//! TCP connections to a host with several addresses, some of which may be dead.

use std::{net::SocketAddr, time::Duration};

use ureq::http::Uri;
use ureq::unversioned::transport::time::{self, Instant};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, NextTimeout, Transport};

use super::attempt::{Kind, TransportError, system_message};
use crate::error::Stage;

/// A connection to the next hop, or what was laid over it.
pub(crate) type Stream = Box<dyn Transport>;

/// A stream to the next hop. That there may be TLS up to there is no TLS to the host.
///
/// It keeps what is left of a time limit the same for a while: ureq passes it on to the
/// microsecond, of which a socket is told by a system call for each read and write, a
/// tenth of a kept-alive call.
#[derive(Debug)]
pub(crate) struct Hop(pub(crate) Stream);

/// How late a time limit may be: a part of a second.
const TIMEOUT_STEP: Duration = Duration::from_millis(100);

fn in_steps(mut timeout: NextTimeout) -> NextTimeout {
    if let time::Duration::Exact(after) = timeout.after {
        let nanos = after.subsec_nanos().next_multiple_of(TIMEOUT_STEP.subsec_nanos());
        timeout.after = Duration::new(after.as_secs(), nanos).into();
    }
    timeout
}

impl Transport for Hop {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, in_steps(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(in_steps(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }
}

/// How long each of several addresses is tried in the first round.
const FIRST_ROUND: Duration = Duration::from_millis(333);

/// What is left of the time limit that `details` came with.
pub(crate) fn time_left(details: &ConnectionDetails) -> Duration {
    let Instant::Exact(start) = details.now else { return *details.timeout.after };
    details.timeout.after.saturating_sub(start.elapsed())
}

/// The details of one step on the way to a connection, within the same time limit.
pub(crate) fn step<'a>(details: &'a ConnectionDetails<'a>, uri: &'a Uri) -> ConnectionDetails<'a> {
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

/// Calls `connect` with addresses and limits until one succeeds or no time is left.
pub(crate) fn first_of<T>(
    mut candidates: Vec<SocketAddr>,
    left: impl Fn() -> Duration,
    mut connect: impl FnMut(SocketAddr, Duration) -> Result<T, ureq::Error>,
) -> Result<T, TransportError> {
    let (mut reasons, mut round) = (Vec::new(), 0);
    while !candidates.is_empty() && !left().is_zero() {
        let limit = limit_in_round(round, candidates.len(), left());
        for address in candidates.clone() {
            match connect(address, limit) {
                Ok(connected) => return Ok(connected),
                // It may be slow, and have more time in the next round.
                Err(ureq::Error::Timeout(_)) => {}
                Err(error) => {
                    candidates.retain(|candidate| *candidate != address);
                    let reason = system_message(&error.into_io());
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
        }
        round += 1;
    }
    let kind = if candidates.is_empty() { Kind::Temporary } else { Kind::Timeout };
    Err(TransportError::new(Stage::Connect, kind, reasons.join("; ")))
}

/// Sorts addresses by the family in turn, beginning with that of the first (RFC 8305,
/// section 4). The address that was used last is the first of all.
pub(crate) fn in_order(addresses: &[SocketAddr], last_used: Option<SocketAddr>) -> Vec<SocketAddr> {
    let ipv6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == ipv6_first);
    let in_turn = (0..addresses.len()).flat_map(|place| [first.get(place), second.get(place)]);
    let mut ordered: Vec<SocketAddr> = in_turn.flatten().copied().collect();
    // A stable sort, of which `false` comes first.
    ordered.sort_by_key(|address| Some(*address) != last_used);
    ordered
}

/// The time for each of several addresses in a round, counted from 0: all that is left for
/// an address alone; a third of a second, and twice as much in each round, until what is
/// left is shared out.
fn limit_in_round(round: u32, addresses: usize, left: Duration) -> Duration {
    let share = left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    let limit = FIRST_ROUND.saturating_mul(2_u32.saturating_pow(round));
    let is_last = addresses == 1 || (round > 0 && share < limit * 2);
    let limit = if is_last { share } else { limit.min(share) };
    // ureq would take zero for a second.
    limit.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        let with_port = |address: &str| SocketAddr::new(address.parse().unwrap(), 443);
        text.split_whitespace().map(with_port).collect()
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

    #[test]
    fn families_take_turns_and_the_address_used_last_is_first() {
        for (found, last_used, ordered) in [
            ("::1", "", "::1"),
            ("::1 ::2 ::3 1.1.1.1", "", "::1 1.1.1.1 ::2 ::3"),
            ("1.1.1.1 ::1 ::2 2.2.2.2", "", "1.1.1.1 ::1 2.2.2.2 ::2"),
            ("1.1.1.1 ::1 ::2", "::2", "::2 1.1.1.1 ::1"),
            ("1.1.1.1 ::1", "1.1.1.1", "1.1.1.1 ::1"),
            ("1.1.1.1 ::1", "3.3.3.3", "1.1.1.1 ::1"),
        ] {
            let last_used = addresses(last_used).first().copied();
            let got = in_order(&addresses(found), last_used);
            assert_eq!(got, addresses(ordered), "{found}, {last_used:?}");
        }
    }

    #[test]
    fn each_address_is_tried_for_a_third_of_a_second_and_then_for_a_share_of_the_rest() {
        for (count, limit, rounds) in [
            (1, 15_000, &[15_000][..]),
            (2, 15_000, &[333, 666, 1_332, 5_169]),
            (3, 15_000, &[333, 666, 1_332, 2_669]),
            (8, 15_000, &[333, 666, 876]),
            (2, 1_000, &[333, 167]),
            (2, 400, &[200]),
            (16, 100, &[6]),
        ] {
            let mut left = Duration::from_millis(limit);
            for (round, expected) in (0..).zip(rounds) {
                let each = limit_in_round(round, count, left);
                assert_eq!(each.as_millis(), *expected, "round {round} of {count} in {limit}");
                left -= each * u32::try_from(count).unwrap();
            }
            assert!(left < Duration::from_millis(1), "{left:?} of {limit}");
        }
    }

    #[test]
    fn an_address_that_refuses_leaves_its_time_to_the_others() {
        let (found, left) = (addresses("::1 ::2 ::3"), Cell::new(Duration::from_secs(15)));
        let mut tried = Vec::new();
        let outcome: Result<(), _> = first_of(
            found.clone(),
            || left.get(),
            |address, limit| {
                tried.push((address, limit.as_millis()));
                if address == found[2] || (address == found[1] && tried.len() > 3) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
                }
                left.set(left.get() - limit);
                Err(ureq::Error::Timeout(ureq::Timeout::Connect))
            },
        );
        let expected = [(0, 333), (1, 333), (2, 333), (0, 666), (1, 666), (0, 13_668)];
        assert_eq!(tried, expected.map(|(at, limit)| (found[at], limit)));
        let error = outcome.unwrap_err();
        assert_eq!((error.kind, error.reason.as_str()), (Kind::Timeout, "connection refused"));
    }

    #[test]
    fn no_try_has_no_time_at_all() {
        assert!(!limit_in_round(0, 2, Duration::from_nanos(1)).is_zero());
    }
}
