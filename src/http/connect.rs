//! Several addresses of a host, some of which may be dead: in which order and for how long
//! they are tried.

use std::{net::SocketAddr, time::Duration};

use ureq::unversioned::transport::{ConnectionDetails, time::Instant};

use super::attempt::{Kind, TransportError};
use crate::error::Stage;

/// How long each of several addresses is tried in the first round.
const FIRST_ROUND: Duration = Duration::from_millis(333);

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
            let connected = connect(address, limit);
            match connected.map_err(|error| TransportError::at(Stage::Connect, error)) {
                Ok(connected) => return Ok(connected),
                // It may be slow, and have more time in the next round.
                Err(TransportError { kind: Kind::Timeout, .. }) => {}
                Err(TransportError { reason, .. }) => {
                    candidates.retain(|candidate| *candidate != address);
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

/// What is left of the time limit that `details` came with.
pub(crate) fn time_left(details: &ConnectionDetails) -> Duration {
    let Instant::Exact(start) = details.now else { return *details.timeout.after };
    details.timeout.after.saturating_sub(start.elapsed())
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
