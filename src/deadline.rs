//! Duration in, absolute moment inside: the arithmetic is done once, here, and never panics.

use std::time::{Duration, Instant};

/// A moment after which waiting ends, on the monotonic clock; or never.
///
/// A duration that reaches beyond what the clock can hold means never.
///
/// ```
/// use procession::Deadline;
/// use std::time::Duration;
///
/// let deadline = Deadline::after(Duration::from_secs(5));
/// assert!(!deadline.has_passed());
/// assert!(Deadline::after(Duration::MAX) == Deadline::NEVER);
/// assert_eq!(deadline.earlier(Deadline::NEVER), deadline);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    moment: Option<Instant>,
}

impl Deadline {
    /// No deadline.
    pub const NEVER: Deadline = Deadline { moment: None };

    /// The moment that comes after this duration.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline { moment: Instant::now().checked_add(timeout) }
    }

    /// This moment.
    pub fn at(moment: Instant) -> Deadline {
        Deadline { moment: Some(moment) }
    }

    /// A moment that has come, for one look without waiting.
    pub fn now() -> Deadline {
        Deadline::at(Instant::now())
    }

    /// The moment, unless it is never.
    pub fn moment(self) -> Option<Instant> {
        self.moment
    }

    /// How long until then; zero once it has passed, `None` for never.
    pub fn remaining(self) -> Option<Duration> {
        self.moment.map(|moment| moment.saturating_duration_since(Instant::now()))
    }

    /// Whether the moment has come.
    pub fn has_passed(self) -> bool {
        self.moment.is_some_and(|moment| Instant::now() >= moment)
    }

    /// The earlier of two.
    pub fn earlier(self, other: Deadline) -> Deadline {
        match (self.moment, other.moment) {
            (Some(one), Some(two)) => Deadline::at(one.min(two)),
            (one, two) => Deadline { moment: one.or(two) },
        }
    }
}

impl From<Option<Duration>> for Deadline {
    fn from(timeout: Option<Duration>) -> Deadline {
        timeout.map_or(Deadline::NEVER, Deadline::after)
    }
}

impl From<Duration> for Deadline {
    fn from(timeout: Duration) -> Deadline {
        Deadline::after(timeout)
    }
}

impl From<Instant> for Deadline {
    fn from(moment: Instant) -> Deadline {
        Deadline::at(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overflows() {
        for timeout in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_nanos(u64::MAX)] {
            let deadline = Deadline::after(timeout);
            assert!(!deadline.has_passed());
        }
        assert!(Deadline::after(Duration::ZERO).has_passed());
        assert_eq!(Deadline::NEVER.remaining(), None);
        assert_eq!(Deadline::now().remaining(), Some(Duration::ZERO));
    }

    #[test]
    fn the_earlier_one_wins_from_both_sides() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(2));
        assert_eq!(soon.earlier(late), soon);
        assert_eq!(late.earlier(soon), soon);
        assert_eq!(Deadline::NEVER.earlier(soon), soon);
        assert_eq!(Deadline::NEVER.earlier(Deadline::NEVER), Deadline::NEVER);
    }
}
