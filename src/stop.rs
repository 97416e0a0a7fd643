//! How a process is stopped, as data: what is tried, in which order, how long each step may take, and how far it reaches.
//! Who is reached and how the signals are sent is decided in `handle`.

use crate::signal::Signal;
use std::time::Duration;

/// A plan for stopping a process: ask, wait, insist.
///
/// Each step is tried and given its time; the plan ends as soon as everything within its scope has ended. The default is
/// SIGTERM, half a second, SIGKILL, for the whole tree.
///
/// ```
/// use procession::{Command, Signal, Stop};
/// use std::time::Duration;
///
/// let stop = Stop::new()
///     .close_stdin(Duration::from_millis(100))
///     .signal(Signal::TERM, Duration::from_millis(100))
///     .then_kill();
/// let mut child = Command::new("sleep").arg("60").spawn()?;
/// let report = child.stop(&stop)?;
/// assert_eq!(report.status().signal(), Some(Signal::TERM));
/// assert!(report.survivors().is_empty());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub(crate) steps: Vec<StopStep>,
    pub(crate) scope: Scope,
}

/// How far a stop reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The process alone.
    Process,
    /// The process and its process group, if it leads one (see [`Command::process_group`](crate::Command::process_group)).
    Group,
    /// The process, its group and session if it leads them, its descendants, and those that carry the mark of
    /// [`Command::track_descendants`](crate::Command::track_descendants). Processes that hold a captured pipe count as well.
    #[default]
    Tree,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopStep {
    pub(crate) action: Action,
    pub(crate) grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Signal(Signal),
    CloseStdin,
}

/// How long the kernel may take to end a process after SIGKILL before it is reported as a survivor.
const KILL_GRACE: Duration = Duration::from_secs(2);

impl Stop {
    /// A plan without steps, for the whole tree.
    #[allow(clippy::new_without_default)] // the default plan has steps
    pub fn new() -> Stop {
        Stop { steps: Vec::new(), scope: Scope::Tree }
    }

    /// SIGKILL at once.
    pub fn kill() -> Stop {
        Stop::new().then_kill()
    }

    /// SIGTERM, some time, SIGKILL.
    pub fn term_then_kill(grace: Duration) -> Stop {
        Stop::new().signal(Signal::TERM, grace).then_kill()
    }

    /// Adds a step: send a signal and wait. A stopped process is continued so that it can act on the signal.
    pub fn signal(self, signal: Signal, grace: Duration) -> Stop {
        self.step(Action::Signal(signal), grace)
    }

    /// Adds a step: close the child's standard input, if it is a pipe that we hold, and wait.
    pub fn close_stdin(self, grace: Duration) -> Stop {
        self.step(Action::CloseStdin, grace)
    }

    /// Adds the last step: SIGKILL. What is alive two seconds later is reported as a survivor.
    pub fn then_kill(self) -> Stop {
        self.signal(Signal::KILL, KILL_GRACE)
    }

    /// How far the plan reaches.
    pub fn scope(self, scope: Scope) -> Stop {
        Stop { scope, ..self }
    }

    /// The longest that all its steps take.
    pub(crate) fn duration(&self) -> Duration {
        self.steps.iter().fold(Duration::ZERO, |sum, step| sum.saturating_add(step.grace))
    }

    fn step(mut self, action: Action, grace: Duration) -> Stop {
        self.steps.push(StopStep { action, grace });
        self
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::term_then_kill(Duration::from_millis(500))
    }
}
