//! Sending a call again after a failure that may pass.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::failure::{Again, Failure};

/// The first wait; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait, also of those that a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How often a call is sent again, and who is told of it.
#[derive(Clone, Default)]
pub(crate) struct Retries {
    pub(crate) most: u32,
    pub(crate) tell: Option<Arc<Tell>>,
}

/// Is told of a failure and of the wait after it.
type Tell = dyn Fn(&Error, Duration) + Send + Sync;

/// The kinds of call that differ in what may be sent again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    Get,
    Post,
}

impl Method {
    fn allows(self, again: Again) -> bool {
        match again {
            Again::None => false,
            Again::Get | Again::GetAtOnce => self == Self::Get,
            Again::Any => true,
        }
    }
}

impl Retries {
    /// Runs a call until it succeeds, may not be sent again, or has been too often.
    pub(crate) fn run<T>(
        &self,
        method: Method,
        mut once: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut retries = 0;
        loop {
            match once() {
                Ok(done) => return Ok(done),
                Err(failure) if retries == self.most || !method.allows(failure.again) => {
                    return Err(failure.error);
                }
                Err(failure) => {
                    let wait = wait(retries, failure.after, random());
                    if let Some(tell) = &self.tell {
                        tell(&failure.error, wait);
                    }
                    thread::sleep(wait);
                    retries += 1;
                }
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
    fn a_server_is_given_the_time_that_it_asks_for_up_to_a_minute() {
        for (asked_for, waited) in [(0, 0), (7, 7), (60, 60), (3600, 60)] {
            let wait = wait(5, Some(Duration::from_secs(asked_for)), 1.0);
            assert_eq!(wait, Duration::from_secs(waited));
        }
    }

    #[test]
    fn only_what_may_be_sent_again_is() {
        for (again, get, post) in [
            (Again::None, false, false),
            (Again::Get, true, false),
            (Again::GetAtOnce, true, false),
            (Again::Any, true, true),
        ] {
            assert_eq!(Method::Get.allows(again), get, "{again:?}");
            assert_eq!(Method::Post.allows(again), post, "{again:?}");
        }
    }
}
