//! When a whole run ends early, and what becomes of the tasks that run then. Pure.

/// When the failure, or the success, of some tasks ends the whole run.
///
/// ```
/// use procession::pool::Halt;
///
/// let strict = Halt::on_failures(1).now();
/// let patient = Halt::on_failure_percent(10);
/// # let _ = (strict, patient);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halt {
    on: On,
    now: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum On {
    #[default]
    Never,
    Failures(usize),
    Percent(u8),
    Successes(usize),
}

/// From so many ended tasks on a percentage means something.
const SAMPLE_MIN: usize = 3;

impl Halt {
    /// Whatever happens every task is run.
    pub const NEVER: Halt = Halt { on: On::Never, now: false };

    /// When so many tasks have failed.
    #[doc(alias = "fail_fast")]
    pub fn on_failures(count: usize) -> Halt {
        Halt { on: On::Failures(count.max(1)), now: false }
    }

    /// When this share of the tasks that have ended has failed; looked at from the third end on.
    pub fn on_failure_percent(percent: u8) -> Halt {
        Halt { on: On::Percent(percent.min(100)), now: false }
    }

    /// When so many tasks have succeeded.
    pub fn on_successes(count: usize) -> Halt {
        Halt { on: On::Successes(count.max(1)), now: false }
    }

    /// Stops the tasks that run, too. Otherwise they may finish, and only no new ones are started.
    pub fn now(mut self) -> Halt {
        self.now = true;
        self
    }

    /// Whether those that run are stopped.
    pub(crate) fn stops_running(self) -> bool {
        self.now
    }

    /// Why the run is to end, if it is, when so many tasks have ended by themselves.
    pub(crate) fn reason(self, succeeded: usize, failed: usize) -> Option<String> {
        let ended = succeeded + failed;
        match self.on {
            On::Failures(count) if failed >= count => Some(format!("{failed} failed")),
            On::Percent(percent)
                if ended >= SAMPLE_MIN && failed > 0 && failed * 100 >= usize::from(percent) * ended =>
            {
                Some(format!("{failed} of {ended} failed"))
            }
            On::Successes(count) if succeeded >= count => Some(format!("{succeeded} succeeded")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_at_its_border() {
        for (halt, succeeded, failed, halts) in [
            (Halt::NEVER, 0, 1000, false),
            (Halt::on_failures(1), 5, 0, false),
            (Halt::on_failures(1), 0, 1, true),
            (Halt::on_failures(3), 0, 2, false),
            (Halt::on_failures(3), 9, 3, true),
            (Halt::on_failure_percent(50), 0, 2, false),
            (Halt::on_failure_percent(50), 2, 1, false),
            (Halt::on_failure_percent(50), 2, 2, true),
            (Halt::on_failure_percent(0), 9, 0, false),
            (Halt::on_successes(1), 0, 9, false),
            (Halt::on_successes(1), 1, 0, true),
        ] {
            assert_eq!(halt.reason(succeeded, failed).is_some(), halts, "{halt:?} {succeeded} {failed}");
        }
    }
}
