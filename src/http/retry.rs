//! Sending a request again after a failure that may pass.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::thread;
use std::time::{Duration, Instant};

use super::{Call, Limits, MAX_IDLE_CONNECTIONS, Response, attempt::AttemptError};
use crate::{error::Error, event::Event};

/// The first wait; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait, also of those that a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Call<'_> {
    /// Sends the request, again if it may be, and hands the response, if its status is 200,
    /// to `take`.
    pub(crate) fn send<'a, T>(
        &'a self,
        mut take: impl FnMut(Response<'a>) -> Result<T, AttemptError>,
    ) -> Result<T, Error> {
        let Limits { call: timeout, retries: max_retries, .. } = self.limits;
        let (mut retries, mut idle_connections) = (0, MAX_IDLE_CONNECTIONS);
        let mut deadline = Instant::now() + timeout;
        loop {
            match self.follow_redirects(deadline).and_then(&mut take) {
                // The server may have closed any of the idle connections, which shows only
                // when a request has been sent over it.
                Err(failure) if failure.was_idle && idle_connections > 0 => idle_connections -= 1,
                Err(failure) if retries < max_retries && failure.may_repeat(self.is_get()) => {
                    let wait = wait(retries, failure.retry_after, random());
                    (self.http.on_event)(&Event::Retry { error: &failure.error, wait });
                    thread::sleep(wait);
                    (retries, idle_connections) = (retries + 1, MAX_IDLE_CONNECTIONS);
                    deadline = Instant::now() + timeout;
                }
                ended => return ended.map_err(|failure| failure.error),
            }
        }
    }
}

/// The wait before a retry: what the server asks for, else half a second, doubled
/// each time, and up to half as much again, so that many clients don't come at once.
fn wait(retries: u32, asked_for: Option<Duration>, random: f64) -> Duration {
    let wait = asked_for.unwrap_or_else(|| {
        let base = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(retries));
        base.min(LONGEST_WAIT).mul_f64(1.0 + random / 2.0)
    });
    wait.min(LONGEST_WAIT)
}

/// From 0 to 1. std's random keys are good enough to spread waits.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    bits as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_start_at_half_a_second_and_double_up_to_a_minute() {
        let milliseconds = |retries, random| wait(retries, None, random).as_millis();
        assert_eq!(milliseconds(0, 0.0), 500);
        assert_eq!(milliseconds(0, 1.0), 750);
        assert_eq!(milliseconds(1, 0.0), 1_000);
        assert_eq!(milliseconds(3, 0.5), 5_000);
        assert_eq!(milliseconds(u32::MAX, 1.0), 60_000);
        assert!((0.0..=1.0).contains(&random()));
    }

    #[test]
    fn no_two_waits_are_the_same() {
        let mut waits: Vec<_> = (0..200).map(|_| wait(0, None, random())).collect();
        waits.sort();
        waits.dedup();
        assert_eq!(waits.len(), 200);
        assert!(waits[0] < FIRST_WAIT * 11 / 10 && waits[199] > FIRST_WAIT * 14 / 10, "{waits:?}");
    }

    #[test]
    fn a_server_is_given_the_time_that_it_asks_for_up_to_a_minute() {
        for (asked_for, waited) in [(0, 0), (7, 7), (60, 60), (3600, 60)] {
            let wait = wait(5, Some(Duration::from_secs(asked_for)), 1.0);
            assert_eq!(wait, Duration::from_secs(waited));
        }
    }
}
