//! Where a pool's commands run: the seam between the waiting line and the machines. A pool asks an engine for *jobs*, not for
//! processes: numbers, live pipes and arbitrary signals are matters of the local machine, and the pool does not need them.

use super::done::Outcome;
use crate::command::Command;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::{Output, Stream};
use crate::signal::Signal;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One attempt to run a task. Numbers are never used again within a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(crate) u64);

impl JobId {
    /// A number that none had before.
    pub(crate) fn next() -> JobId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        JobId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// What an engine is asked to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What to run: program, arguments, environment, directory, input, limits. Arguments are a list and never a line for a shell.
    /// Its timeout is the pool's matter as well: an engine whose clock is fine enough keeps it, and the pool cancels in any case.
    pub command: Command,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Output is to be told as it comes, and not only in the record.
    pub live: bool,
    /// What it needs of each resource.
    pub resources: Vec<(Arc<str>, u64)>,
    /// Files it reads.
    pub inputs: Vec<PathBuf>,
    /// Files it writes.
    pub outputs: Vec<PathBuf>,
    /// Running it more than once does no harm.
    pub idempotent: bool,
}

impl Job {
    /// The first attempt at a command, without wishes and under a number of its own. A pool makes its jobs by itself; this is for those
    /// who drive an engine by hand, to try it or to put one in front of another.
    pub fn new(command: Command) -> Job {
        Job {
            id: JobId::next(),
            command,
            attempt: 1,
            live: false,
            resources: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            idempotent: false,
        }
    }

    /// The record to begin with: what is known before anything has run. It names the command with its secrets masked, and knows which
    /// exit codes are accepted and how text is decoded. An engine adds [what it learns](Output::with_status).
    pub fn record(&self) -> Output {
        Output {
            command: self.command.to_string(),
            accepted: self.command.settings.accepted.clone(),
            text: self.command.settings.text,
            ..Output::default()
        }
    }
}

/// What an engine tells of a job, in this order; stages may be missing, the last one never.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // looked at once and never kept
pub enum JobNews<'a> {
    /// It waits for its turn at the engine.
    Queued,
    /// It was started.
    Started {
        /// Where.
        place: Arc<str>,
    },
    /// It has written this. Only for jobs that are [live](Job::live); an engine that has no live output tells it just before the end.
    Output {
        /// To which stream.
        stream: Stream,
        /// What.
        bytes: &'a [u8],
    },
    /// The engine runs it again by itself, for this reason.
    Retrying(String),
    /// A wish to cancel has been taken note of; the process may still be running.
    CancelAccepted,
    /// The last word.
    Finished(Finish),
}

/// How a job ended.
#[derive(Debug)]
pub struct Finish {
    /// How.
    pub outcome: Outcome,
    /// What is known of the run. Of a job that was not live it holds all the output.
    pub output: Output,
    /// What went wrong, in the engine's words; without it the pool finds its own.
    pub error: Option<Error>,
}

/// Why an engine does not take a job.
#[derive(Debug)]
pub enum Refusal {
    /// Not now: it has no room. The pool offers it again when something has ended.
    Later(Error),
    /// It never will.
    Never(Error),
}

/// How exactly an engine knows the signal that ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalFidelity {
    /// The wait status comes through.
    Exact,
    /// It is concluded from 128 + n.
    Inferred,
    /// It is lost.
    Unknown,
}

/// How files come to where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// It sees the same file system.
    Shared,
    /// Declared inputs and outputs are sent and fetched.
    Staged,
    /// Not at all.
    None,
}

/// What an engine can do, as data. A task that asks for more is refused when it is submitted, by the name of what is lacking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What the engine calls itself.
    pub name: Arc<str>,
    /// Jobs are processes of this machine: descriptors, terminals, users, limits and hooks mean what they say.
    pub local_process: bool,
    /// Output can be told as it comes.
    pub live_output: bool,
    /// How exactly a signal is known.
    pub signals: SignalFidelity,
    /// The end of a cancelled job is seen, and not only asked for.
    pub confirms_death: bool,
    /// How fine the engine's own clock for timeouts is; `None` if it has none.
    pub deadline_granularity: Option<Duration>,
    /// How files come there.
    pub files: FileAccess,
    /// It may run a job more than once by itself, when a machine is lost.
    pub runs_again: bool,
    /// How many jobs it takes at a time.
    pub in_flight_max: Option<usize>,
}

impl Capabilities {
    /// Those of a process on this machine.
    pub fn local() -> Capabilities {
        Capabilities {
            name: "local".into(),
            local_process: true,
            live_output: true,
            signals: SignalFidelity::Exact,
            confirms_death: true,
            deadline_granularity: Some(Duration::ZERO),
            files: FileAccess::Shared,
            runs_again: false,
            in_flight_max: None,
        }
    }
}

/// Ends the wait of an engine from another thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// Calls this. It must not block, and may be called often; the engine's next [`poll`](Engine::poll), or the one that waits,
    /// returns soon.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Waker {
        Waker(Arc::new(wake))
    }

    /// Ends the wait.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Waker")
    }
}

/// Whom an engine tells.
pub type Tell<'a> = dyn FnMut(JobId, JobNews<'_>) + 'a;

/// A place where commands run. Each is used by one thread, which belongs to the pool.
///
/// The pool owns the policy: order, bounds, retries, timeouts. An engine only runs what it is given, tells what happens, and stops what
/// it is told to stop. Whoever drops an engine expects that everything it runs is stopped first, as far as it can.
pub trait Engine: Send {
    /// What it can do. Does not change.
    fn capabilities(&self) -> Capabilities;

    /// Its clock. The pool asks it for every moment, so that an engine can run on a time of its own.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// What ends its wait from another thread.
    fn waker(&self) -> Waker;

    /// The thread that will drive it calls this once, first. `place` is its number among the pool's threads, from 0.
    fn enter(&mut self, _place: usize) {}

    /// Takes a job. What becomes of it is told by [`poll`](Self::poll).
    ///
    /// # Errors
    /// If it does not take it. Then nothing more is told of it.
    fn submit(&mut self, job: &Job) -> Result<(), Refusal>;

    /// Waits until something has happened, the engine was woken, or this moment has come; tells what has happened.
    ///
    /// # Errors
    /// If the engine has failed as a whole: nothing more will be told of any job.
    fn poll(&mut self, until: Deadline, tell: &mut Tell<'_>) -> Result<(), Error>;

    /// Wishes that the job be stopped, with everything that belongs to it. That it was, is told as its end. Nothing happens if it has
    /// ended.
    fn cancel(&mut self, job: JobId);

    /// Sends a signal to the processes of a job, once to each, and lets them do with it what they want. With `by_terminal` those in the
    /// process group of this program have had it from the terminal. False if this cannot be done here, as with most engines: then
    /// the pool cancels the job.
    fn signal(&mut self, job: JobId, signal: Signal, by_terminal: bool) -> bool {
        let _ = (job, signal, by_terminal);
        false
    }
}
