//! What a scripted job does and when, as data.

use crate::error::{Error, ErrorKind};
use crate::output::Stream;
use crate::pool::done::Outcome;
use crate::signal::Signal;
use std::sync::Arc;
use std::time::Duration;

/// What a scripted job does, on virtual time. Without a word it starts at once, writes nothing, and ends at once with code 0.
///
/// Output comes in the order in which it is given here, and [`takes`](Self::takes) puts time between: what is said behind it happens
/// so much later, the end last of all. Everything else may be said in any order; of what contradicts itself the last word holds.
///
/// ```
/// use procession::pool::Script;
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// // A line at once, another one after two seconds, and the end after three.
/// let script = Script::new().stdout("one\n").takes(2 * second).stderr("two\n").takes(second).exits(3);
/// # let _ = script;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a script does nothing until it is given to a scripted engine"]
pub struct Script {
    pub(super) later: u32,
    pub(super) never: Option<Arc<str>>,
    pub(super) queued: Option<Duration>,
    pub(super) place: Option<Arc<str>>,
    pub(super) silent: bool,
    /// What it does, and how long after its start.
    pub(super) steps: Vec<(Duration, Step)>,
    pub(super) length: Duration,
    pub(super) end: End,
    pub(super) error: Option<(ErrorKind, Arc<str>)>,
    pub(super) resists: Duration,
    pub(super) death_unseen: bool,
    pub(super) ignores_cancel: bool,
    pub(super) faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Write(Stream, Arc<[u8]>),
    Echo,
    RunAgain(Arc<str>),
}

#[derive(Clone, Debug)]
pub(super) enum End {
    Outcome(Outcome),
    /// As far as the engine knows signals.
    Signal(Signal),
    Never,
    /// The whole engine fails, for this reason.
    Engine(Arc<str>),
}

/// What an engine must not do, and one that was written badly may: to test what stands above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Tells twice that the job was started.
    StartsTwice,
    /// Tells only behind its output that it was started.
    StartsLate,
    /// Tells output of a job that is not live.
    SpeaksUnasked,
    /// Tells output behind the end.
    SpeaksAfterEnd,
    /// Tells its end twice.
    EndsTwice,
    /// Tells the end of a job that nobody has submitted, too.
    EndsAnother,
    /// Panics when the job is submitted.
    PanicsInSubmit,
    /// Panics when the job is to start.
    PanicsInPoll,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Fault] = &[
        Fault::StartsTwice,
        Fault::StartsLate,
        Fault::SpeaksUnasked,
        Fault::SpeaksAfterEnd,
        Fault::EndsTwice,
        Fault::EndsAnother,
        Fault::PanicsInSubmit,
        Fault::PanicsInPoll,
    ];
}

/// What it does.
impl Script {
    /// Ends at once with code 0.
    pub fn new() -> Script {
        Script {
            later: 0,
            never: None,
            queued: None,
            place: None,
            silent: false,
            steps: Vec::new(),
            length: Duration::ZERO,
            end: End::Outcome(Outcome::Exited(0)),
            error: None,
            resists: Duration::ZERO,
            death_unseen: false,
            ignores_cancel: false,
            faults: Vec::new(),
        }
    }

    /// Writes this to standard output.
    pub fn stdout(self, bytes: impl AsRef<[u8]>) -> Script {
        self.step(Step::Write(Stream::Stdout, bytes.as_ref().into()))
    }

    /// Writes this to standard error.
    pub fn stderr(self, bytes: impl AsRef<[u8]>) -> Script {
        self.step(Step::Write(Stream::Stderr, bytes.as_ref().into()))
    }

    /// Copies its input to standard output, as cat(1). A reader or file that the command has for input is really read, by the engine's
    /// thread.
    pub fn echoes_input(self) -> Script {
        self.step(Step::Echo)
    }

    /// Lets this much time pass.
    pub fn takes(mut self, time: Duration) -> Script {
        self.length = self.length.saturating_add(time);
        self
    }

    /// The engine loses it here and starts it once more by itself, for this reason. What it wrote before is not in the record any more,
    /// its timeout begins anew, and the script goes on.
    pub fn runs_again(self, reason: impl Into<Arc<str>>) -> Script {
        self.step(Step::RunAgain(reason.into()))
    }

    fn step(mut self, step: Step) -> Script {
        self.steps.push((self.length, step));
        self
    }

    /// Is told to wait for its turn at the engine for so long before it starts.
    pub fn queued(mut self, time: Duration) -> Script {
        self.queued = Some(time);
        self
    }

    /// Where it runs: the engine's name, unless this is set.
    pub fn place(mut self, place: impl Into<Arc<str>>) -> Script {
        self.place = Some(place.into());
        self
    }

    /// Nothing is told of it but its output and its end, as some engines do.
    pub fn silent(mut self) -> Script {
        self.silent = true;
        self
    }
}

/// How it ends.
impl Script {
    /// With an exit code.
    pub fn exits(self, code: u8) -> Script {
        self.ends(Outcome::Exited(code.into()))
    }

    /// By a signal, of which as much is known as the engine's [`SignalFidelity`](crate::pool::SignalFidelity) says: all, an exit code of
    /// 128 and its number, or that there was an exit code, which is then 1.
    pub fn killed_by(mut self, signal: Signal) -> Script {
        self.end = End::Signal(signal);
        self
    }

    /// With an outcome of any sort: [`TimedOut`](Outcome::TimedOut) although the command has no timeout,
    /// [`EngineFailed`](Outcome::EngineFailed), a signal that is only guessed. With [`NotStarted`](Outcome::NotStarted) it does not start,
    /// and nothing of it is output.
    pub fn ends(mut self, outcome: Outcome) -> Script {
        self.end = End::Outcome(outcome);
        self
    }

    /// There is no such program.
    pub fn not_found(self) -> Script {
        self.ends(Outcome::NotStarted).error(ErrorKind::NotFound, "no such program")
    }

    /// Not by itself: only when it is cancelled, or when the timeout of its command comes.
    pub fn hangs(mut self) -> Script {
        self.end = End::Never;
        self
    }

    /// Not at all, because the whole engine fails when it should: from then on [`poll`](crate::pool::Engine::poll) is an error.
    pub fn ends_engine(mut self, reason: impl Into<Arc<str>>) -> Script {
        self.end = End::Engine(reason.into());
        self
    }

    /// What the engine says of its end: see [`Finish::error`](crate::pool::Finish::error).
    pub fn error(mut self, kind: ErrorKind, text: impl Into<Arc<str>>) -> Script {
        self.error = Some((kind, text.into()));
        self
    }
}

/// How it is stopped, when it is cancelled, exceeds the timeout of its command, or writes too much: it dies at once, and is seen to be
/// dead, unless one of these is said.
impl Script {
    /// Goes on for so long before it dies. If it ends by itself in this time it was stopped all the same.
    pub fn resists(mut self, time: Duration) -> Script {
        self.resists = time;
        self
    }

    /// When it was cancelled nobody sees it die: the end that is told is not confirmed.
    pub fn death_unseen(mut self) -> Script {
        self.death_unseen = true;
        self
    }

    /// It cannot be cancelled: the wish is not even taken note of, and it goes on as if there were none.
    pub fn ignores_cancel(mut self) -> Script {
        self.ignores_cancel = true;
        self
    }
}

/// What the engine does instead of playing it well.
impl Script {
    /// Takes no job that would play it, for this reason: [`Refusal::Never`](crate::pool::Refusal::Never).
    pub fn refused(mut self, reason: impl Into<Arc<str>>) -> Script {
        self.never = Some(reason.into());
        self
    }

    /// Does not take the first so many jobs that would play it: [`Refusal::Later`](crate::pool::Refusal::Later).
    pub fn refused_at_first(mut self, times: u32) -> Script {
        self.later = times;
        self
    }

    /// Breaks a rule of [`Engine`](crate::pool::Engine).
    pub fn fault(mut self, fault: Fault) -> Script {
        self.faults.push(fault);
        self
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub(super) fn never_starts(&self) -> bool {
        matches!(self.end, End::Outcome(Outcome::NotStarted))
    }

    pub(super) fn make_error(&self) -> Option<Error> {
        self.error.as_ref().map(|(kind, text)| Error::of_engine(*kind, text.to_string()))
    }
}

impl Default for Script {
    fn default() -> Script {
        Script::new()
    }
}
