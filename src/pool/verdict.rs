//! What the end of a task means to people, in one word. Decides which ends are counted together and which of them are failures; how
//! each single end is called is decided in `done`.

use super::done::{Done, Outcome};

/// One word for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    Skipped,
    Failed,
    Signalled,
    TimedOut,
    Overflowed,
    EngineFailed,
    Unstartable,
    NotStarted,
    Cancelled,
}

impl Verdict {
    /// All, in the order in which people want to see them.
    pub(crate) const ALL: [Verdict; 10] = [
        Verdict::Succeeded,
        Verdict::Skipped,
        Verdict::Failed,
        Verdict::Signalled,
        Verdict::TimedOut,
        Verdict::Overflowed,
        Verdict::EngineFailed,
        Verdict::Unstartable,
        Verdict::NotStarted,
        Verdict::Cancelled,
    ];

    /// That of a task.
    pub(crate) fn of(done: &Done) -> Verdict {
        if done.is_skipped() {
            return Verdict::Skipped;
        }
        match done.unstarted() {
            Some(_) if done.attempts() == 0 => Verdict::NotStarted,
            // It is not run again, and all attempts have failed.
            Some(_) if done.outcome() == Outcome::NotStarted => Verdict::Failed,
            _ if done.success() => Verdict::Succeeded,
            _ => Verdict::of_failure(done.outcome()),
        }
    }

    /// That of an attempt that did not succeed.
    pub(crate) fn of_failure(outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Exited(_) => Verdict::Failed,
            Outcome::Signalled { .. } => Verdict::Signalled,
            Outcome::TimedOut => Verdict::TimedOut,
            Outcome::Overflowed => Verdict::Overflowed,
            Outcome::Cancelled { .. } => Verdict::Cancelled,
            Outcome::NotStarted => Verdict::Unstartable,
            Outcome::EngineFailed { .. } => Verdict::EngineFailed,
        }
    }

    /// Something went wrong with the task itself. One that was cancelled, or not started because of others, is nobody's failure.
    pub(crate) fn is_failure(self) -> bool {
        !matches!(self, Verdict::Succeeded | Verdict::Skipped | Verdict::NotStarted | Verdict::Cancelled)
    }

    /// Its word after a number: `3 failed`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Succeeded => "succeeded",
            Verdict::Skipped => "skipped",
            Verdict::Failed => "failed",
            Verdict::Signalled => "signalled",
            Verdict::TimedOut => "timed out",
            Verdict::Overflowed => "wrote too much",
            Verdict::EngineFailed => "lost by the engine",
            Verdict::Unstartable => "could not be started",
            Verdict::NotStarted => "not started",
            Verdict::Cancelled => "cancelled",
        }
    }
}

/// How often each verdict was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally([u64; Verdict::ALL.len()]);

impl Tally {
    pub(crate) fn add(&mut self, verdict: Verdict) {
        if let Some(count) = self.0.get_mut(verdict as usize) {
            *count += 1;
        }
    }

    pub(crate) fn of(&self, verdict: Verdict) -> u64 {
        self.0.get(verdict as usize).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        Verdict::ALL.into_iter().filter(|verdict| verdict.is_failure()).map(|verdict| self.of(verdict)).sum()
    }

    /// Those that were given at all.
    pub(crate) fn given(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        Verdict::ALL.into_iter().map(|verdict| (verdict, self.of(verdict))).filter(|(_, count)| *count > 0)
    }
}

/// `9 succeeded, 2 failed, 1 timed out`.
impl std::fmt::Display for Tally {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (verdict, count)) in self.given().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(out, "{comma}{count} {}", verdict.word())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Signal;

    #[test]
    fn every_outcome_has_a_word_and_its_place() {
        for (place, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, place);
        }
        for (outcome, verdict, failure) in [
            (Outcome::Exited(1), Verdict::Failed, true),
            (Outcome::Exited(0), Verdict::Failed, true),
            (Outcome::Signalled { signal: Signal::KILL, exact: false }, Verdict::Signalled, true),
            (Outcome::TimedOut, Verdict::TimedOut, true),
            (Outcome::Overflowed, Verdict::Overflowed, true),
            (Outcome::Cancelled { confirmed: false }, Verdict::Cancelled, false),
            (Outcome::NotStarted, Verdict::Unstartable, true),
            (Outcome::EngineFailed { retryable: true }, Verdict::EngineFailed, true),
        ] {
            assert_eq!(Verdict::of_failure(outcome), verdict);
            assert_eq!(verdict.is_failure(), failure, "{verdict:?}");
        }
    }

    #[test]
    fn a_tally_says_what_there_is() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "");
        for verdict in [Verdict::Failed, Verdict::Succeeded, Verdict::Cancelled, Verdict::Succeeded] {
            tally.add(verdict);
        }
        assert_eq!(tally.to_string(), "2 succeeded, 1 failed, 1 cancelled");
        assert_eq!((tally.total(), tally.failed()), (4, 1));
    }
}
