//! When a task is run again: how often, after which ends, and after which pause. Pure.

use super::done::Outcome;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// When a task that did not succeed is run again.
///
/// Without conditions every end that is no success counts, except those that would be the same again: a program that is not there,
/// and a task that was cancelled. A place that has failed ([`Outcome::EngineFailed`]) is tried again only if the task is
/// [`idempotent`](crate::pool::Task::idempotent).
///
/// ```
/// use procession::pool::Retry;
/// use std::time::Duration;
///
/// let retry = Retry::times(3).backoff(Duration::from_millis(100)).pause_max(Duration::from_secs(1));
/// let pauses: Vec<u64> = (1..=5).map(|failed| retry.pause(failed).as_millis() as u64).collect();
/// assert_eq!(pauses, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Clone)]
pub struct Retry {
    times: u32,
    first: Duration,
    factor: u32,
    pause_max: Duration,
    only: Option<Arc<dyn Fn(Outcome) -> bool + Send + Sync>>,
}

impl Retry {
    /// Never again.
    pub const NEVER: Retry =
        Retry { times: 0, first: Duration::ZERO, factor: 1, pause_max: Duration::from_secs(60), only: None };

    /// At most so many times more, at once.
    pub fn times(times: u32) -> Retry {
        Retry { times, ..Retry::NEVER }
    }

    /// Waits so long before the first repetition, and twice as long before each further one, up to a minute.
    #[doc(alias = "delay")]
    pub fn backoff(mut self, first: Duration) -> Retry {
        (self.first, self.factor) = (first, 2);
        self
    }

    /// Waits so long before each repetition.
    pub fn pause_of(mut self, pause: Duration) -> Retry {
        (self.first, self.factor) = (pause, 1);
        self
    }

    /// The longest pause.
    pub fn pause_max(mut self, pause: Duration) -> Retry {
        self.pause_max = pause;
        self
    }

    /// Only after these exit codes.
    pub fn on_codes(self, codes: impl IntoIterator<Item = i32>) -> Retry {
        let codes: Vec<i32> = codes.into_iter().collect();
        self.when(move |outcome| matches!(outcome, Outcome::Exited(code) if codes.contains(&code)))
    }

    /// Only after outcomes for which this is true.
    pub fn when(mut self, is_worth: impl Fn(Outcome) -> bool + Send + Sync + 'static) -> Retry {
        self.only = Some(Arc::new(is_worth));
        self
    }

    /// How often it is run again, at most.
    pub fn get_times(&self) -> u32 {
        self.times
    }

    /// The pause before it is run again, when so many attempts have failed.
    pub fn pause(&self, failed: u32) -> Duration {
        let doublings = self.factor.checked_pow(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.checked_mul(doublings).unwrap_or(self.pause_max).min(self.pause_max)
    }

    /// The pause before the next attempt, if there is one.
    pub(crate) fn again(&self, outcome: Outcome, attempts: u32, idempotent: bool) -> Option<Duration> {
        let by_itself = match outcome {
            Outcome::Cancelled { .. } | Outcome::NotStarted => return None,
            Outcome::EngineFailed { retryable } => {
                if !(retryable && idempotent) {
                    return None;
                }
                true
            }
            _ => true,
        };
        let worth = self.only.as_ref().map_or(by_itself, |only| only(outcome));
        (worth && attempts <= self.times).then(|| self.pause(attempts))
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Retry({} times, from {:?} to {:?})", self.times, self.first, self.pause_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_the_same_again_is_not_tried_again() {
        let retry = Retry::times(5);
        assert_eq!(retry.again(Outcome::NotStarted, 1, true), None);
        assert_eq!(retry.again(Outcome::Cancelled { confirmed: true }, 1, true), None);
        assert_eq!(retry.again(Outcome::EngineFailed { retryable: true }, 1, false), None);
        assert_eq!(retry.again(Outcome::EngineFailed { retryable: false }, 1, true), None);
        assert_eq!(retry.again(Outcome::EngineFailed { retryable: true }, 1, true), Some(Duration::ZERO));
        assert_eq!(retry.again(Outcome::Exited(1), 5, false), Some(Duration::ZERO));
        assert_eq!(retry.again(Outcome::Exited(1), 6, false), None);
    }

    #[test]
    fn conditions_choose() {
        let retry = Retry::times(1).on_codes([75]);
        assert!(retry.again(Outcome::Exited(75), 1, false).is_some());
        assert!(retry.again(Outcome::Exited(1), 1, false).is_none());
        assert!(retry.again(Outcome::TimedOut, 1, false).is_none());
    }

    #[test]
    fn a_pause_does_not_overflow() {
        let retry = Retry::times(u32::MAX).backoff(Duration::MAX);
        assert_eq!(retry.pause(u32::MAX), Duration::from_secs(60));
        assert_eq!(Retry::times(1).pause(9), Duration::ZERO);
    }
}
