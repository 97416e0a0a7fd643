//! What became of a task: a closed set of outcomes, and the record around it.

use crate::error::Error;
use crate::output::{Cause, Output};
use crate::signal::Signal;
use crate::status::ExitStatus;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A task of a pool. Numbers grow with each task and are never used again within a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// The task with this number, for tests of engines and of those who look on. A pool chooses its own numbers.
    pub fn from_number(number: u64) -> TaskId {
        TaskId(number)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "#{}", self.0)
    }
}

/// How a task ended, wherever it ran. The set is closed; trouble of the place where it ran never looks like an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled {
        /// The signal.
        signal: Signal,
        /// False if the engine concluded it from an exit code such as 128 + 9, which a program can also choose by itself.
        exact: bool,
    },
    /// It exceeded its timeout and was stopped.
    TimedOut,
    /// It wrote more than its capture limit allows and was stopped.
    Overflowed,
    /// It was cancelled, before or while it ran.
    Cancelled {
        /// It is known to be dead: all of its tree was seen to end, or it never ran. Whoever frees what it used waits for this.
        confirmed: bool,
    },
    /// It was not started: there is no such program, it is not allowed, a task that it waits for has failed, or the run was
    /// [halted](crate::pool::Pool::halt). The error says which.
    NotStarted,
    /// The place where it ran has failed; what became of the process is not known.
    EngineFailed {
        /// It may succeed when it is tried again.
        retryable: bool,
    },
}

impl Outcome {
    /// How a process ended whose status is known exactly.
    pub fn of(status: ExitStatus) -> Outcome {
        match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Exited(code),
            (None, Some(signal)) => Outcome::Signalled { signal, exact: true },
            // Somebody else took the status.
            (None, None) => Outcome::EngineFailed { retryable: false },
        }
    }

    /// Whether it ran to its end by itself, whatever the exit code.
    pub fn has_exited(self) -> bool {
        matches!(self, Outcome::Exited(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited(code) => write!(out, "exit {code}"),
            Outcome::Signalled { signal, exact: true } => write!(out, "{signal}"),
            Outcome::Signalled { signal, exact: false } => write!(out, "probably {signal}"),
            Outcome::TimedOut => out.write_str("timed out"),
            Outcome::Overflowed => out.write_str("too much output"),
            Outcome::Cancelled { confirmed: true } => out.write_str("cancelled"),
            Outcome::Cancelled { confirmed: false } => out.write_str("cancelled, perhaps still running"),
            Outcome::NotStarted => out.write_str("not started"),
            Outcome::EngineFailed { .. } => out.write_str("engine failed"),
        }
    }
}

/// Why a task was not started, where that is no failure of its own: see [`Done::unstarted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstarted {
    /// The run had been [halted](crate::pool::Pool::halt), by what had become of others.
    Halted,
    /// The run had been [interrupted](crate::pool::Pool::interruptible).
    Interrupted,
    /// It was cancelled while it waited: by its handle, by the end of its loop, or with the whole pool.
    Cancelled,
    /// This task, for which it waited, has not succeeded.
    Dependency(TaskId),
}

/// `halted`, `interrupted`, `cancelled`, `#7 has not succeeded`.
impl fmt::Display for Unstarted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unstarted::Halted => out.write_str("halted"),
            Unstarted::Interrupted => out.write_str("interrupted"),
            Unstarted::Cancelled => out.write_str("cancelled"),
            Unstarted::Dependency(id) => write!(out, "{id} has not succeeded"),
        }
    }
}

/// What became of a task: the last word about it. Every task gets exactly one.
///
/// How a command ends is no error, as with [`Command::output`](crate::Command::output); what kept it from running to its end is.
/// The record is there in both cases.
#[derive(Debug)]
#[must_use = "a task can have failed"]
pub struct Done {
    pub(crate) id: TaskId,
    pub(crate) index: usize,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) outcome: Outcome,
    pub(crate) unstarted: Option<Unstarted>,
    pub(crate) result: Result<Output, Error>,
    pub(crate) attempts: u32,
    pub(crate) slot: usize,
    pub(crate) place: Arc<str>,
    pub(crate) submitted: Instant,
    pub(crate) started: Option<Instant>,
    pub(crate) ended: Instant,
    pub(crate) skipped: bool,
}

impl Done {
    /// What a pool would tell of a task without a name that has ended just now with this result, at its first attempt and on this
    /// machine: for tests of those who look on.
    ///
    /// ```
    /// use procession::Command;
    /// use procession::pool::{Done, TaskId};
    ///
    /// let done = Done::of(TaskId::from_number(7), Command::shell("exit 3").output());
    /// assert!(!done.success());
    /// assert_eq!(done.to_string(), "/bin/sh -c 'exit 3': exit 3");
    /// ```
    pub fn of(id: TaskId, result: Result<Output, Error>) -> Done {
        let outcome = outcome_of(&result);
        let (ended, elapsed) = (Instant::now(), result.as_ref().unwrap_or_else(Error::output).elapsed());
        let started = ended.checked_sub(elapsed).unwrap_or(ended);
        let was_started = outcome != Outcome::NotStarted;
        Done {
            attempts: u32::from(was_started),
            place: "local".into(),
            submitted: started,
            started: was_started.then_some(started),
            ended,
            ..Done::without_place(id, outcome, result, ended)
        }
    }

    /// The record of a task that came to no place and was not begun, because of this error.
    pub(super) fn unbegun(id: TaskId, outcome: Outcome, error: Error) -> Done {
        Done::without_place(id, outcome, Err(error), Instant::now())
    }

    fn without_place(id: TaskId, outcome: Outcome, result: Result<Output, Error>, now: Instant) -> Done {
        Done {
            id,
            index: 0,
            name: None,
            group: None,
            outcome,
            unstarted: None,
            result,
            attempts: 0,
            slot: 0,
            place: "".into(),
            submitted: now,
            started: None,
            ended: now,
            skipped: false,
        }
    }

    /// The task.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Its place among the tasks it was submitted with, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its group, if it was given one.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// The command as a shell line, with secrets masked.
    pub fn command(&self) -> &str {
        self.output().command()
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why it was not started, or not again, if that was because of others and it could have been: it is no failure of its own then. A
    /// task that was tried before has [`attempts`](Self::attempts).
    ///
    /// ```
    /// use procession::pool::{Pool, Task, Unstarted};
    /// use procession::Command;
    ///
    /// let done = Pool::new(2).map([
    ///     Task::new(Command::new("false")).name("compile"),
    ///     Task::new(Command::new("true")).after("compile"),
    ///     Task::new(Command::new("/no/such/program")),
    /// ]);
    /// assert_eq!(done[1].unstarted(), Some(Unstarted::Dependency(done[0].id())));
    /// assert_eq!(done[2].unstarted(), None, "it could not be started");
    /// ```
    pub fn unstarted(&self) -> Option<Unstarted> {
        self.unstarted
    }

    /// How its process ended; [`ExitStatus::UNKNOWN`] if there was none or nobody can tell.
    pub fn status(&self) -> ExitStatus {
        self.output().status()
    }

    /// Whether it ran to its end with an exit code that the command accepts.
    pub fn success(&self) -> bool {
        self.result.as_ref().is_ok_and(Output::success)
    }

    /// The record of the last attempt; in an error as well.
    pub fn output(&self) -> &Output {
        match &self.result {
            Ok(output) => output,
            Err(error) => error.output(),
        }
    }

    /// What a call of [`Command::output`](crate::Command::output) would have returned.
    ///
    /// # Errors
    /// If it could not be started, exceeded its timeout or its capture limit, was cancelled, or the engine failed.
    pub fn result(&self) -> Result<&Output, &Error> {
        self.result.as_ref()
    }

    /// The same, by value.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    pub fn into_result(self) -> Result<Output, Error> {
        self.result
    }

    /// The same, and an exit code that is not accepted is an error as well.
    ///
    /// # Errors
    /// As [`result`](Self::result), and if it did not succeed.
    pub fn check(self) -> Result<Output, Error> {
        self.result?.check()
    }

    /// How often it was started; 0 if it never was.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// It was not run because a run log says that it had succeeded before.
    pub fn is_skipped(&self) -> bool {
        self.skipped
    }

    /// Which of the pool's slots it ran in last, from 0.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Where it ran last, in the engine's words: `local`, a host, a worker.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// When it was submitted.
    pub fn submitted(&self) -> Instant {
        self.submitted
    }

    /// When its last attempt was started: when the engine had taken it. On this machine its process is there then; where jobs queue at the
    /// engine it may start later. None if the last attempt was not taken, because there is no such program for example.
    pub fn started(&self) -> Option<Instant> {
        self.started
    }

    /// When it was over.
    pub fn ended(&self) -> Instant {
        self.ended
    }

    /// How long it waited from its submission to the start of its last attempt.
    pub fn waited(&self) -> Duration {
        self.started.unwrap_or(self.ended).saturating_duration_since(self.submitted)
    }

    /// How long its last attempt ran.
    pub fn ran(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| self.ended.saturating_duration_since(started))
    }

    /// What people know it by: its name, or the command.
    pub fn label(&self) -> &str {
        self.name().unwrap_or_else(|| self.command())
    }
}

/// What it is called, and how it ended.
impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.label(), self.outcome)
    }
}

/// The outcome that the result of a local run means.
pub(crate) fn outcome_of(result: &Result<Output, Error>) -> Outcome {
    let output = match result {
        Ok(output) => return Outcome::of(output.status()),
        Err(error) => error.output(),
    };
    match output.cause() {
        Cause::NotStarted => Outcome::NotStarted,
        Cause::Timeout => Outcome::TimedOut,
        Cause::Overflow => Outcome::Overflowed,
        _ => Outcome::EngineFailed { retryable: false },
    }
}
