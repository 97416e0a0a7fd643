//! The state of a pool: which tasks wait, run, pause; who may start next; what an end means for the others. Passive: it takes
//! no lock, asks no clock, and makes no system call but those of a jobserver, which never wait. Lanes tell it what their engines say and carry out what it orders; what others are to
//! be told leaves it as effects.

mod ends;
mod moments;
mod orders;
mod wishes;

use super::admission::{Admission, Gauge, Pace};
use super::allowance::Allowance;
use super::delivery::Delivery;
use super::done::{Done, Outcome, TaskId, Unstarted};
use super::engine::{Capabilities, FileAccess, Finish, Job, JobId, Refusal};
use super::halt::Halt;
use super::interrupt::{Interruption, Stage};
use super::jobserver::JobToken;
use super::known::{Claim, KEPT, Known};
use super::line::{Line, Wish};
use super::ready::Sign;
use super::resources::{Held, Stock};
use super::retry::Retry;
use super::task::{Earlier, Task};
use crate::error::{Error, ErrorKind};
use crate::output::{Accepted, Cause, Output, Stream};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::sys::interrupt::Heard;
use std::any::Any;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What others are to be told, in order.
pub(super) enum Effect {
    Submitted {
        id: TaskId,
        task: Arc<Task>,
        at: Instant,
    },
    /// Told before the engine is asked.
    Starting {
        id: TaskId,
        task: Arc<Task>,
    },
    Started {
        id: TaskId,
        task: Arc<Task>,
        attempt: u32,
        slot: usize,
        place: Arc<str>,
        at: Instant,
    },
    Output {
        id: TaskId,
        task: Arc<Task>,
        index: usize,
        stream: Stream,
        bytes: Vec<u8>,
    },
    Ready {
        id: TaskId,
        at: Instant,
    },
    Retrying {
        id: TaskId,
        task: Arc<Task>,
        attempt: u32,
        outcome: Outcome,
        result: Box<Result<Output, Error>>,
        pause: Duration,
        at: Instant,
    },
    Resolved(Box<Done>, Delivery),
}

/// What a lane is to do before it waits.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) cancels: Vec<JobId>,
    /// Signals to pass on, and whether the terminal has sent them to this program's group already.
    pub(super) signals: Vec<(JobId, Signal, bool)>,
    pub(super) jobs: Vec<Start>,
    /// Signs that services are ready, which somebody must look for.
    pub(super) probes: Vec<(JobId, Sign)>,
    /// When it must look again; never if it need not.
    pub(super) until: Option<Instant>,
    /// There is nothing left to do, ever.
    pub(super) leave: bool,
    /// These lanes have work as well.
    pub(super) wake: Vec<usize>,
}

/// A job to be started.
pub(super) struct Start {
    pub(super) job: Box<Job>,
    /// The descriptor to which it writes that it is ready, if it does.
    pub(super) notifies: Option<i32>,
    /// The task, if it need not be run where it is known to have succeeded before: nothing that it waits for was run.
    pub(super) skippable: Option<Arc<Task>>,
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.cancels.is_empty() && self.signals.is_empty() && self.jobs.is_empty() && self.probes.is_empty()
    }
}

/// What has happened, in a form that can be kept until the core looks at it.
#[allow(clippy::large_enum_variant)] // most are ends
pub(super) enum Report {
    Started(Arc<str>),
    Output(Stream, Vec<u8>),
    /// The sign of a service was looked for.
    Probed(bool),
    /// The engine cannot pass a signal on.
    NotSignalled,
    CancelAccepted,
    Finished(Finish),
}

/// After a cancel an engine is given so long beyond the stop plan to tell the end; then the last word is that nobody knows.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);
/// How often the signs of a service are looked for.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// With nothing running, a task for which the system has no room is tried so often, with doubling pauses from the first one: 5 s in all.
const ROOM_TRIES: u32 = 9;
const ROOM_PAUSE: Duration = Duration::from_millis(10);
/// With something running one waits for its end, and looks so often whether others have made room.
const ROOM_LOOK: Duration = Duration::from_millis(100);
/// No engine that lives can do what a task asks for.
const STRANDED: &str = "the engine that could run it has failed";
/// A moment that no clock can name is as good as this one.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86400);

pub(super) struct Core {
    pub(super) width: usize,
    pub(super) retry: Retry,
    pub(super) halt: Halt,
    pub(super) line: Line,
    pub(super) stock: Stock,
    pub(super) admission: Option<Admission>,
    pub(super) allowance: Allowance,
    pub(super) pace: Pace,
    gauge: Gauge,
    seen: Option<Instant>,
    entries: HashMap<TaskId, Entry>,
    jobs: HashMap<JobId, TaskId>,
    known: Known,
    free_slots: BTreeSet<usize>,
    slots: usize,
    running: usize,
    pub(super) lanes: Vec<Lane>,
    /// How many lanes may live at a time, whether one that died is replaced, and how many are about to be added.
    pub(super) lanes_max: usize,
    pub(super) renews_lanes: bool,
    starting: usize,
    /// Counts what may let a task start that could not before: whoever has looked since need not look again.
    changes: u64,
    /// A lane has left something to others.
    has_yielded: bool,
    admission_again: Option<Instant>,
    /// Moments: when a pause is over, when a job has had its time, when a sign is looked for.
    moments: BTreeSet<(Instant, TaskId)>,
    succeeded: usize,
    failed: usize,
    halted: Option<String>,
    pub(super) interruption: Interruption,
    pub(super) closed: bool,
    terminated: bool,
    /// Services in the order in which they were started, and whether they are to end.
    services: Vec<TaskId>,
    services_end: bool,
    starved: Option<Starved>,
    /// Tasks that have succeeded before are not run again.
    pub(super) skips: bool,
    /// Somebody looks on.
    pub(super) is_observed: bool,
    pub(super) wants_output: bool,
    pub(super) outbox: VecDeque<Effect>,
    /// Somebody is telling what was in the outbox, and will tell what comes in.
    pub(super) is_telling: bool,
    pub(super) rounds_told: u64,
    /// What a condition of the caller's has panicked with, the first one that was not told.
    pub(super) panic: Option<Box<dyn Any + Send>>,
}

/// A task, its place among those submitted with it, and where its record goes.
pub(super) type Submission = (Task, usize, Delivery);

/// One engine and what runs there.
pub(super) struct Lane {
    pub(super) capabilities: Capabilities,
    running: usize,
    cancels: Vec<JobId>,
    signals: Vec<(JobId, Signal, bool)>,
    pub(super) is_waiting: bool,
    /// How many changes there were when it looked for a task last.
    looked: u64,
    pub(super) is_alive: bool,
}

/// The system has refused to make a process for lack of room.
struct Starved {
    tries: u32,
    again: Instant,
}

struct Entry {
    task: Arc<Task>,
    claim: Arc<Claim>,
    /// Whom it waits for: they are known as long as it is not over.
    after: Vec<Arc<Claim>>,
    index: usize,
    delivery: Delivery,
    submitted: Instant,
    attempts: u32,
    cancelled: bool,
    /// Why it does not run, at its end.
    unstarted: Option<Unstarted>,
    phase: Phase,
}

enum Phase {
    Waiting,
    /// Until this moment, before it is run again.
    Pausing(Instant),
    Running(Box<Run>),
}

struct Run {
    job: JobId,
    lane: usize,
    slot: usize,
    held: Held,
    token: Option<JobToken>,
    place: Arc<str>,
    /// When the engine had taken it.
    accepted: Option<Instant>,
    /// The pool's own clock for it: when it is cancelled, or given up.
    moment: Option<Instant>,
    /// It is being cancelled, for this reason.
    ending: Option<Outcome>,
    service: Service,
    /// When its sign is looked for.
    look: Option<Instant>,
    /// The end of what it wrote last, in which a sign may stand.
    heard: [Vec<u8>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Service {
    No,
    /// It must be ready at this moment.
    Awaited(Instant),
    Ready,
}

impl Core {
    pub(super) fn new(width: usize, line: Line) -> Core {
        Core {
            width,
            retry: Retry::NEVER,
            halt: Halt::NEVER,
            line,
            stock: Stock::new(),
            admission: None,
            allowance: Allowance::default(),
            pace: Pace::default(),
            gauge: Gauge::default(),
            seen: None,
            entries: HashMap::new(),
            jobs: HashMap::new(),
            known: Known::new(KEPT),
            free_slots: BTreeSet::new(),
            slots: 0,
            running: 0,
            lanes: Vec::new(),
            lanes_max: 1,
            renews_lanes: true,
            starting: 0,
            changes: 0,
            has_yielded: false,
            admission_again: None,
            moments: BTreeSet::new(),
            succeeded: 0,
            failed: 0,
            halted: None,
            interruption: Interruption::default(),
            closed: false,
            terminated: false,
            services: Vec::new(),
            services_end: false,
            starved: None,
            skips: false,
            is_observed: false,
            wants_output: false,
            outbox: VecDeque::new(),
            is_telling: false,
            rounds_told: 0,
            panic: None,
        }
    }

    /// The latest moment that is known: an engine may have a time of its own, which runs ahead.
    pub(super) fn moment(&mut self, now: Instant) -> Instant {
        let seen = self.seen.map_or(now, |seen| seen.max(now));
        *self.seen.insert(seen)
    }

    /// How many tasks have no last word yet.
    pub(super) fn unresolved(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn waiting(&self) -> usize {
        self.entries.len() - self.running
    }

    /// Whether the whole run is to end, so that nothing is started any more.
    pub(super) fn is_halted(&self) -> bool {
        self.halted.is_some()
    }

    /// Why.
    pub(super) fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    pub(super) fn is_running(&self, id: TaskId) -> bool {
        self.entries.get(&id).is_some_and(|entry| matches!(entry.phase, Phase::Running(_)))
    }
}

impl Lane {
    /// How many more jobs it takes, if it is to run at most so many.
    fn capacity(&self, most: usize) -> usize {
        let most = if self.is_alive { self.capabilities.in_flight_max.unwrap_or(usize::MAX).min(most) } else { 0 };
        most.saturating_sub(self.running)
    }
}

const CANCELLED: Outcome = Outcome::Cancelled { confirmed: true };

fn later(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now + FOR_EVER)
}

/// The result that an outcome means.
fn result_of(outcome: Outcome, output: Output, error: Option<Error>) -> Result<Output, Error> {
    let otherwise = |kind: ErrorKind, text: &'static str| Error::new(kind).detail(text);
    let error = match (outcome, error) {
        (Outcome::Exited(_) | Outcome::Signalled { .. }, None) => return Ok(output),
        (Outcome::Cancelled { .. }, _) => otherwise(ErrorKind::Cancelled, "cancelled while it ran"),
        (Outcome::TimedOut, Some(error)) if error.is_timeout() => return Err(error),
        (Outcome::TimedOut, _) => otherwise(ErrorKind::Timeout, "timed out"),
        (_, Some(error)) => return Err(error),
        (Outcome::Overflowed, None) => otherwise(ErrorKind::Overflow, "wrote too much"),
        (Outcome::NotStarted, None) => otherwise(ErrorKind::Engine, "not started"),
        (Outcome::EngineFailed { .. }, None) => otherwise(ErrorKind::Engine, "the engine has failed"),
    };
    Err(error.with_output(output))
}

/// What a task asks for and a place cannot do.
pub(super) fn lacks(task: &Task, place: &Capabilities) -> Option<String> {
    let lack = |what: &str| Some(format!("the engine {} has no {what}", place.name));
    let command = &task.command;
    if !place.local_process && command.is_local() {
        return lack("local processes (a descriptor, terminal, user, limit, hook or target is asked for)");
    }
    if place.files == FileAccess::None && !(task.inputs.is_empty() && task.outputs.is_empty()) {
        return lack("files");
    }
    if !place.live_output && matches!(task.ready.as_ref().map(|ready| &ready.sign), Some(Sign::Line(_))) {
        return lack("live output (a line is to tell that the service is ready)");
    }
    None
}

/// Whether the text stands in what was heard, across the borders of pieces. Keeps of it what may become a sign.
fn has_sign(heard: &mut Vec<u8>, bytes: &[u8], text: &[u8]) -> bool {
    heard.extend_from_slice(bytes);
    let found = text.is_empty() || heard.windows(text.len()).any(|window| window == text);
    let kept = text.len().saturating_sub(1).min(heard.len());
    heard.drain(..heard.len() - kept);
    found
}
