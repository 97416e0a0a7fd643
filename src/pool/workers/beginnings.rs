//! When it is of no use to start one more worker. Pure. Used by the pools of commands and of functions.

/// So many workers in a row may end by themselves before they come to their first task; then no further one will come to it.
pub(crate) const BEGINNINGS_MAX: u32 = 3;
/// So many in a row may die without having ended a task.
pub(crate) const DEATHS_MAX: u32 = 64;

/// How many workers in a row have ended before their first task, and without having ended one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beginnings {
    failed: u32,
    deaths: u32,
}

impl Beginnings {
    /// Some worker has ended a task: it can be done. That others can begin is shown by the first task of each alone.
    pub(crate) fn succeed(&mut self, is_its_first: bool) {
        self.deaths = 0;
        if is_its_first {
            self.failed = 0;
        }
    }

    /// One has died without having ended a task. True if that were too many.
    #[must_use]
    pub(crate) fn die(&mut self) -> bool {
        self.deaths = self.deaths.saturating_add(1);
        self.deaths >= DEATHS_MAX
    }

    /// One has ended by itself before it came to a task. True if that were too many.
    #[must_use]
    pub(crate) fn fail(&mut self) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.failed >= BEGINNINGS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_begins_the_count_again() {
        let mut beginnings = Beginnings::default();
        assert!((1..BEGINNINGS_MAX).all(|_| !beginnings.fail()));
        beginnings.succeed(true);
        assert!((1..BEGINNINGS_MAX).all(|_| !beginnings.fail()));
        beginnings.succeed(false);
        assert!(beginnings.fail() && beginnings.fail());
        assert!((1..DEATHS_MAX).all(|_| !beginnings.die()));
        assert!(beginnings.die());
    }
}
