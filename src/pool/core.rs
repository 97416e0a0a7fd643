//! The state of a pool: which tasks wait, run, pause; who may start next; what an end means for the others. Passive: it makes no
//! system call, takes no lock and asks no clock. Lanes tell it what their engines say and carry out what it orders; what others are to
//! be told leaves it as effects.

use super::admission::{Admission, Gauge};
use super::allowance::Allowance;
use super::delivery::Delivery;
use super::done::{Done, Outcome, TaskId};
use super::engine::{Capabilities, FileAccess, Finish, Job, JobId, Refusal};
use super::halt::Halt;
use super::jobserver::JobToken;
use super::line::{Line, Wish};
use super::ready::Sign;
use super::resources::{Held, Stock};
use super::retry::Retry;
use super::task::{Earlier, Task};
use crate::error::{Error, ErrorKind};
use crate::output::{Accepted, Cause, Output, Stream};
use crate::status::ExitStatus;
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
        outcome: Outcome,
        pause: Duration,
        at: Instant,
    },
    Resolved(Box<Done>, Delivery),
}

/// What a lane is to do before it waits.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) cancels: Vec<JobId>,
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
    pub(super) job: Job,
    /// The descriptor to which it writes that it is ready, if it does.
    pub(super) notifies: Option<i32>,
    /// The task, if it need not be run where it is known to have succeeded before: nothing that it waits for was run.
    pub(super) skippable: Option<Arc<Task>>,
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.cancels.is_empty() && self.jobs.is_empty() && self.probes.is_empty()
    }
}

/// What has happened, in a form that can be kept until the core looks at it.
#[allow(clippy::large_enum_variant)] // most are ends
pub(super) enum Report {
    Started(Arc<str>),
    Output(Stream, Vec<u8>),
    /// The sign of a service was looked for.
    Probed(bool),
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
    gauge: Gauge,
    seen: Option<Instant>,
    entries: HashMap<TaskId, Entry>,
    jobs: HashMap<JobId, TaskId>,
    names: HashMap<Arc<str>, TaskId>,
    named: HashMap<TaskId, Arc<str>>,
    /// The numbers of the tasks that this pool has got: first and last of each row, in order.
    own: Vec<(TaskId, TaskId)>,
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
    pub(super) closed: bool,
    terminated: bool,
    /// Services in the order in which they were started, and whether they are to end.
    services: Vec<TaskId>,
    services_end: bool,
    starved: Option<Starved>,
    /// Tasks that have succeeded before are not run again; which were not.
    pub(super) skips: bool,
    skipped: HashSet<TaskId>,
    /// Somebody looks on.
    pub(super) is_observed: bool,
    pub(super) wants_output: bool,
    pub(super) outbox: VecDeque<Effect>,
    /// Somebody is telling what was in the outbox, and will tell what comes in.
    pub(super) is_telling: bool,
    pub(super) rounds_told: u64,
    /// What conditions of the caller's have panicked with.
    pub(super) panics: Vec<Box<dyn Any + Send>>,
}

/// A task, its place among those submitted with it, and where its record goes.
pub(super) type Submission = (Task, usize, Delivery);

/// One engine and what runs there.
pub(super) struct Lane {
    pub(super) capabilities: Capabilities,
    running: usize,
    cancels: Vec<JobId>,
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
    /// Whom it waits for; kept only where tasks can be skipped.
    after: Vec<TaskId>,
    index: usize,
    delivery: Delivery,
    submitted: Instant,
    attempts: u32,
    cancelled: bool,
    /// It is a service that was ready: those that waited for it have gone on, and the line has forgotten it.
    is_forgotten: bool,
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
    started: Instant,
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
            gauge: Gauge::default(),
            seen: None,
            entries: HashMap::new(),
            jobs: HashMap::new(),
            names: HashMap::new(),
            named: HashMap::new(),
            own: Vec::new(),
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
            closed: false,
            terminated: false,
            services: Vec::new(),
            services_end: false,
            starved: None,
            skips: false,
            skipped: HashSet::new(),
            is_observed: false,
            wants_output: false,
            outbox: VecDeque::new(),
            is_telling: false,
            rounds_told: 0,
            panics: Vec::new(),
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

    pub(super) fn is_running(&self, id: TaskId) -> bool {
        self.entries.get(&id).is_some_and(|entry| matches!(entry.phase, Phase::Running(_)))
    }

    // ---- what users wish ----

    /// Takes tasks that may wait for each other. Nothing is taken if one of them is wrong.
    pub(super) fn submit(
        &mut self,
        tasks: Vec<Submission>,
        capabilities: &[Capabilities],
        now: Instant,
    ) -> Result<Vec<TaskId>, (Error, Vec<Submission>)> {
        static TASKS: AtomicU64 = AtomicU64::new(0);
        let first = TASKS.fetch_add(tasks.len() as u64, Ordering::Relaxed) + 1;
        let ids: Vec<TaskId> = (first..).map(TaskId).take(tasks.len()).collect();
        let wishes = match self.wishes(&tasks, &ids, capabilities) {
            Ok(wishes) => wishes,
            Err(error) => return Err((error, tasks)),
        };
        let afters: Vec<Vec<TaskId>> = if self.skips {
            wishes.iter().map(|wish| wish.after.iter().map(|(id, _)| *id).collect()).collect()
        } else {
            vec![Vec::new(); wishes.len()]
        };
        let doomed = match self.line.add(wishes) {
            Ok(doomed) => doomed,
            Err(cycle) => {
                let label = |id: &TaskId| {
                    let place = ids.iter().position(|other| other == id);
                    place.and_then(|place| tasks.get(place)).map_or_else(String::new, |(task, ..)| task.to_string())
                };
                let names: Vec<String> = cycle.iter().chain(cycle.first()).map(label).collect();
                let error = Error::invalid(format!("tasks wait for each other: {}", names.join(" after ")));
                return Err((error, tasks));
            }
        };
        self.changes += 1;
        self.own(&ids);
        for (((task, index, delivery), &id), after) in tasks.into_iter().zip(&ids).zip(afters) {
            if let Some(name) = &task.name {
                self.names.insert(Arc::clone(name), id);
                self.named.insert(id, Arc::clone(name));
            }
            let task = Arc::new(task);
            if self.is_observed {
                self.outbox.push_back(Effect::Submitted { id, task: Arc::clone(&task), at: now });
            }
            let entry = Entry {
                task,
                after,
                index,
                delivery,
                submitted: now,
                attempts: 0,
                cancelled: false,
                is_forgotten: false,
                phase: Phase::Waiting,
            };
            self.entries.insert(id, entry);
        }
        self.doom(doomed, now);
        if let Some(reason) = self.halted.clone() {
            self.drain(&reason, now);
        }
        Ok(ids)
    }

    /// These numbers are in order, and greater than all before.
    fn own(&mut self, ids: &[TaskId]) {
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return };
        match self.own.last_mut() {
            Some((_, end)) if end.0 + 1 == first.0 => *end = last,
            _ => self.own.push((first, last)),
        }
    }

    fn is_own(&self, id: TaskId) -> bool {
        let place = self.own.partition_point(|(_, last)| *last < id);
        self.own.get(place).is_some_and(|(first, _)| *first <= id)
    }

    fn wishes(&self, tasks: &[Submission], ids: &[TaskId], capabilities: &[Capabilities]) -> Result<Vec<Wish>, Error> {
        if self.closed {
            return Err(Error::invalid("the pool is closed"));
        }
        let mut names: HashMap<&str, TaskId> = HashMap::new();
        for ((task, ..), &id) in tasks.iter().zip(ids) {
            if let Some(name) = task.name.as_deref()
                && (self.names.contains_key(name) || names.insert(name, id).is_some())
            {
                return Err(Error::invalid(format!("there are two tasks named {name:?}")));
            }
        }
        let wish = |((task, ..), &id): (&Submission, &TaskId)| -> Result<Wish, Error> {
            let named = |error: Error| error.of_command(|| task.to_string());
            self.stock.check(&task.needs).map_err(named)?;
            // One place that can run it is enough.
            let lacking = capabilities.iter().map(|place| lacks(task, place)).collect::<Option<Vec<_>>>();
            if let Some(lack) = lacking.and_then(|lacks| lacks.into_iter().next()) {
                return Err(named(Error::new(ErrorKind::Unsupported).detail(lack)));
            }
            if self.is_stranded(task) {
                return Err(named(Error::new(ErrorKind::Engine).detail(STRANDED)));
            }
            let mut after = Vec::with_capacity(task.after.len());
            for earlier in &task.after {
                let id = match &earlier.what {
                    Earlier::Name(name) => names.get(&**name).or_else(|| self.names.get(name)).copied(),
                    Earlier::Id(id) => Some(*id).filter(|id| self.is_own(*id)),
                };
                let what = || match &earlier.what {
                    Earlier::Name(name) => format!("there is no task named {name:?} to wait for"),
                    Earlier::Id(id) => format!("task {id} is not of this pool"),
                };
                after.push((id.ok_or_else(|| named(Error::invalid(what())))?, earlier.succeeds));
            }
            let (group, priority, estimate) = (task.group.clone(), task.priority, task.estimate);
            Ok(Wish { id, group, priority, estimate, after })
        };
        tasks.iter().zip(ids).map(wish).collect()
    }

    /// Wishes that a task be cancelled. False if its last word was said.
    pub(super) fn cancel(&mut self, id: TaskId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.cancelled = true;
        match entry.phase {
            Phase::Running(_) => self.end_run(id, Outcome::Cancelled { confirmed: false }, now),
            _ => {
                self.line.remove(id);
                let error = Error::new(ErrorKind::Cancelled).detail("cancelled before it was started");
                self.resolve_unstarted(id, Outcome::Cancelled { confirmed: true }, error, now);
            }
        }
        true
    }

    /// No new tasks; what waits is cancelled, and what runs is stopped.
    pub(super) fn terminate(&mut self, now: Instant) {
        (self.closed, self.terminated, self.services_end) = (true, true, true);
        for id in self.entries.keys().copied().collect::<BTreeSet<_>>() {
            self.cancel(id, now);
        }
    }

    /// What follows from a change: services end when nothing else is left.
    pub(super) fn settle(&mut self, now: Instant) {
        self.end_next_service(now);
    }

    /// Of these services the one that was started last is to end.
    pub(super) fn end_service_of(&mut self, ids: &HashSet<TaskId>, now: Instant) {
        let last = self.services.iter().rev().find(|id| ids.contains(id)).copied();
        if let Some(id) = last.or_else(|| ids.iter().copied().find(|id| self.entries.contains_key(id))) {
            self.cancel(id, now);
        }
    }

    // ---- what lanes ask ----

    /// How many lanes are to be started now; each is added, or has failed, soon.
    pub(super) fn lanes_wanted(&mut self) -> usize {
        let (wanted, there) = if self.renews_lanes {
            // No more than there is something to do for.
            (self.lanes_max.min(self.width).min(self.entries.len()), self.alive())
        } else {
            (if self.entries.is_empty() { 0 } else { self.lanes_max }, self.lanes.len())
        };
        let missing = wanted.saturating_sub(there + self.starting);
        self.starting += missing;
        missing
    }

    pub(super) fn alive(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_alive).count()
    }

    /// Whether there is a lane, or soon will be.
    pub(super) fn has_lanes(&self) -> bool {
        self.starting > 0 || self.alive() > 0
    }

    pub(super) fn add_lane(&mut self, capabilities: Capabilities, now: Instant) -> usize {
        self.starting = self.starting.saturating_sub(1);
        self.changes += 1;
        let (running, cancels) = (0, Vec::new());
        self.lanes.push(Lane { capabilities, running, cancels, is_waiting: false, looked: 0, is_alive: true });
        // One that was added before may be gone, and this was the last one that its tasks could hope for.
        self.fail_stranded(STRANDED, now);
        self.lanes.len() - 1
    }

    /// A lane that was wanted has not come to be.
    pub(super) fn lane_not_started(&mut self, error: &str, now: Instant) {
        self.starting = self.starting.saturating_sub(1);
        self.has_fewer_lanes(error, now);
    }

    /// There is no room for another one: with fewer it takes longer, with none it does not go on.
    pub(super) fn has_fewer_lanes(&mut self, error: &str, now: Instant) {
        self.changes += 1;
        if !self.renews_lanes {
            self.fail_stranded(error, now);
        } else if self.has_lanes() {
            self.lanes_max = self.alive() + self.starting;
        } else {
            self.all_lanes_failed(error, now);
        }
    }

    /// What a lane is to do now.
    pub(super) fn orders(&mut self, lane: usize, now: Instant) -> Orders {
        let mut orders = Orders::default();
        self.look_at_moments(now, &mut orders);
        self.renew_allowance(Some(now));
        self.end_next_service(now);
        self.look_at_room(now);
        while let Some(job) = self.next_job(lane, now) {
            orders.jobs.push(job);
        }
        self.has_looked(lane);
        if let Some(lane) = self.lanes.get_mut(lane) {
            orders.cancels.append(&mut lane.cancels);
            // Until it is told to wake up: it waits for its engine next.
            lane.is_waiting = orders.is_empty();
            orders.leave = self.closed && self.entries.is_empty() && lane.running == 0;
            lane.is_alive &= !orders.leave;
        }
        orders.wake = self.lanes_with_work();
        orders.until = self.next_moment(now);
        orders
    }

    /// Those who could not start because there was no room may have a look from time to time.
    fn look_at_room(&mut self, now: Instant) {
        if self.is_kept_waiting() && self.admission_again.is_none_or(|again| again <= now) {
            self.admission_again = Some(now + Gauge::AGE_MAX);
            self.changes += 1;
        }
        if self.starved.as_ref().is_some_and(|starved| starved.again <= now) {
            self.changes += 1;
        }
    }

    /// There may be a token again, for whichever lane.
    fn renew_allowance(&mut self, now: Option<Instant>) {
        let was_used_up = self.allowance.is_used_up();
        self.allowance.renew(now);
        self.changes += u64::from(was_used_up && !self.allowance.is_used_up());
    }

    /// A lane has found all that there was for it. Those that can do the same would find nothing either.
    fn has_looked(&mut self, lane: usize) {
        let (share, changes) = (self.share(), self.changes);
        // One could have tried again, and there was nothing for it here: others may.
        self.starved.take_if(|starved| Some(starved.again) <= self.seen);
        let Some(looked) = self.lanes.get_mut(lane) else { return };
        looked.looked = changes;
        if self.running < self.width && looked.capacity(share) > 0 {
            let able = looked.capabilities.clone();
            for other in self.lanes.iter_mut().filter(|other| other.is_waiting && other.looked < changes) {
                if other.capabilities == able {
                    other.looked = changes;
                }
            }
        }
    }

    /// How many tasks each lane is to run, as long as the others have as many.
    fn share(&self) -> usize {
        self.width.div_ceil((self.alive() + self.starting).max(1))
    }

    /// Lanes that wait although there is something for them.
    pub(super) fn lanes_with_work(&mut self) -> Vec<usize> {
        let mut room = self.width.saturating_sub(self.running).min(self.line.len());
        let now = self.seen;
        if !self.line.has_startable()
            || self.starved.as_ref().is_some_and(|starved| Some(starved.again) > now)
            || self.allowance.is_used_up()
        {
            room = 0;
        }
        let all_over = self.closed && self.entries.is_empty();
        let (share, changes) = (self.share(), self.changes);
        let mut wake = Vec::new();
        for (place, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_waiting && lane.is_alive) {
            let may_find = room > 0 && lane.looked < changes && lane.capacity(usize::MAX) > 0;
            if may_find || !lane.cancels.is_empty() || all_over {
                lane.is_waiting = false;
                wake.push(place);
            }
            if may_find {
                room -= lane.capacity(share).min(room);
            }
        }
        wake
    }

    /// It does not wait any more, and looks for work before it does.
    pub(super) fn is_awake(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.is_waiting = false;
        }
    }

    /// A lane that waits, and is not to wait any more.
    pub(super) fn wake_one(&mut self) -> Option<usize> {
        let place = self.lanes.iter().position(|lane| lane.is_waiting && lane.is_alive)?;
        self.lanes.get_mut(place)?.is_waiting = false;
        Some(place)
    }

    /// There may be work, and the machine is too busy for it.
    fn is_kept_waiting(&self) -> bool {
        self.admission.is_some() && self.line.has_startable() && self.running < self.width
    }

    fn next_moment(&self, now: Instant) -> Option<Instant> {
        let first = self.moments.first().map(|(moment, _)| *moment);
        let starved = self.starved.as_ref().map(|starved| starved.again);
        let admission = self.is_kept_waiting().then(|| now + Gauge::AGE_MAX);
        [first, starved, admission, self.allowance.moment()].into_iter().flatten().min()
    }

    /// The next task that may run on this lane.
    fn next_job(&mut self, lane: usize, now: Instant) -> Option<Start> {
        let share = self.share();
        let place = self.lanes.get(lane)?;
        if self.running >= self.width || place.capacity(usize::MAX) == 0 {
            return None;
        }
        if !self.has_room(now) {
            return None;
        }
        let place = self.lanes.get(lane)?;
        let has_its_share = place.capacity(share) == 0;
        let (entries, stock, lanes) = (&self.entries, &mut self.stock, &self.lanes);
        let can_be_of_others = self.starting > 0;
        let is_for_others = |task: &Task| {
            let others = lanes.iter().enumerate().filter(|(other, place)| *other != lane && place.capacity(share) > 0);
            others.into_iter().any(|(_, other)| lacks(task, &other.capabilities).is_none())
        };
        let allowance = &mut self.allowance;
        // The others may not be there yet, but the task was taken for their sake.
        let several = self.lanes_max > 1 && !self.renews_lanes;
        let (mut held, mut token, mut has_yielded) = (None, None, false);
        let id = self.line.take(&mut |id| {
            let Some(entry) = entries.get(&id) else { return false };
            if several && lacks(&entry.task, &place.capabilities).is_some() {
                return false;
            }
            if has_its_share && (can_be_of_others || is_for_others(&entry.task)) {
                has_yielded = true;
                return false;
            }
            held = stock.try_take(&entry.task.needs);
            // A service takes no token: with a single one nothing else would ever run.
            if held.is_none() || entry.task.is_service || allowance.take(now, &mut token) {
                return held.is_some();
            }
            held.take().into_iter().for_each(|held| stock.give_back(held));
            false
        });
        self.has_yielded |= has_yielded;
        let id = id?;
        self.begin_run(id, lane, held?, token, now)
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.allowance.is_used_up() {
            return false;
        }
        if self.starved.as_ref().is_some_and(|starved| now < starved.again) {
            return false;
        }
        let Some(admission) = &self.admission else { return true };
        if !self.line.has_startable() {
            return false;
        }
        self.gauge.admits(admission, self.running, now)
    }

    fn begin_run(
        &mut self,
        id: TaskId,
        lane: usize,
        held: Held,
        token: Option<JobToken>,
        now: Instant,
    ) -> Option<Start> {
        let entry = self.entries.get_mut(&id)?;
        let slot = self.free_slots.pop_first().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        entry.attempts += 1;
        if let Some(starved) = &mut self.starved {
            // One only, until it is known whether there is room.
            starved.again = now + ROOM_LOOK;
        }
        let task = &entry.task;
        if self.is_observed {
            self.outbox.push_back(Effect::Starting { id, task: Arc::clone(task) });
        }
        let sign = task.ready.as_ref();
        let job = JobId::next();
        let mut command = task.command.clone();
        for (name, value) in held.environment() {
            command = command.env(name, value);
        }
        if token.is_some() && self.lanes.get(lane).is_some_and(|lane| lane.capabilities.local_process) {
            command = self.allowance.configure(command);
        }
        let listens = matches!(sign, Some(ready) if matches!(ready.sign, Sign::Line(_)));
        let order = Job {
            id: job,
            command,
            attempt: entry.attempts,
            live: self.wants_output || listens,
            resources: task.needs.clone(),
            inputs: task.inputs.clone(),
            outputs: task.outputs.clone(),
            idempotent: task.idempotent,
        };
        let notifies = match sign.map(|ready| &ready.sign) {
            Some(Sign::Descriptor(number)) => Some(*number),
            _ => None,
        };
        let first = entry.attempts == 1 && !task.is_service && self.skips;
        let skippable = first && entry.after.iter().all(|earlier| self.skipped.contains(earlier));
        let skippable = skippable.then(|| Arc::clone(task));
        let service = match sign {
            Some(ready) => Service::Awaited(later(now, ready.within)),
            None => Service::No,
        };
        let place = self.lanes.get(lane).map_or_else(|| "".into(), |lane| Arc::clone(&lane.capabilities.name));
        let run = Run {
            job,
            lane,
            slot,
            held,
            token,
            place,
            started: now,
            moment: None,
            ending: None,
            service,
            look: None,
            heard: [Vec::new(), Vec::new()],
        };
        entry.phase = Phase::Running(Box::new(run));
        self.jobs.insert(job, id);
        self.running += 1;
        // Those it was left to may be full now.
        self.changes += u64::from(std::mem::take(&mut self.has_yielded));
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.running += 1;
        }
        Some(Start { job: order, notifies, skippable })
    }

    /// The engine has taken a job, which was offered to it at the moment `started`.
    pub(super) fn accepted(&mut self, job: JobId, started: Instant, now: Instant) {
        let Some((id, place)) = self.run_of(job).map(|(id, run)| (id, Arc::clone(&run.place))) else { return };
        if self.starved.take().is_some() {
            self.changes += 1;
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        // Its engine may have a time of its own, which is behind.
        run.started = run.started.max(started);
        let timeout = entry.task.command.timeout;
        let own = self.lanes.get(run.lane).and_then(|lane| lane.capabilities.deadline_granularity);
        // An engine that keeps the time by itself is given what its stop plan may take, and some more.
        let stop = entry.task.command.stop.duration();
        let spare = own.map_or(Duration::ZERO, |grain| grain.saturating_add(stop).saturating_add(CONFIRM_WITHIN));
        // What is being cancelled already has its moment.
        if run.ending.is_none() {
            run.moment = timeout.and_then(|timeout| now.checked_add(timeout.saturating_add(spare)));
            self.moments.extend(run.moment.map(|moment| (moment, id)));
        }
        if let Service::Awaited(_) = run.service {
            run.look = Some(now);
            self.moments.insert((now, id));
            if !self.services.contains(&id) && entry.task.is_service {
                self.services.push(id);
            }
        }
        if self.is_observed {
            let task = Arc::clone(&entry.task);
            let (attempt, slot) = (entry.attempts, run.slot);
            self.outbox.push_back(Effect::Started { id, task, attempt, slot, place, at: now });
        }
    }

    /// A job was not started, because its task is known to have succeeded before.
    pub(super) fn skip(&mut self, job: JobId, now: Instant) {
        let Some(id) = self.jobs.get(&job).copied() else { return };
        let run = self.leave_run(id);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.attempts = 0;
        self.skipped.insert(id);
        let output = Output {
            command: entry.task.command.to_string(),
            status: Some(ExitStatus::from_code(0)),
            accepted: Accepted::Any,
            ..Output::default()
        };
        self.resolve(id, run, Outcome::Exited(0), Ok(output), now);
    }

    /// The engine has not taken a job.
    pub(super) fn refused(&mut self, job: JobId, refusal: Refusal, now: Instant) {
        let Some(id) = self.jobs.get(&job).copied() else { return };
        let tries = self.starved.as_ref().map_or(0, |starved| starved.tries);
        let started = self.leave_run(id);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match refusal {
            Refusal::Later(error) => {
                entry.attempts -= 1;
                if started.as_ref().is_some_and(|run| run.ending.is_some()) || entry.cancelled {
                    let error = Error::new(ErrorKind::Cancelled).detail("cancelled before it was started");
                    return self.resolve_unstarted(id, CANCELLED, error, now);
                }
                if let Some(reason) = self.halted.clone() {
                    return self.resolve_unstarted(id, Outcome::NotStarted, halted(&reason), now);
                }
                // With others running one waits for the end of one of them; alone, one tries again after a while.
                let is_alone = self.running == 0;
                if is_alone && tries >= ROOM_TRIES {
                    return self.finish(id, started, Outcome::NotStarted, Err(error), now);
                }
                let pause = if is_alone { ROOM_PAUSE * (1 << tries.min(16)) } else { ROOM_LOOK };
                let tries = if is_alone { tries + 1 } else { 0 };
                self.starved = Some(Starved { tries, again: now + pause });
                self.put_back(id);
            }
            Refusal::Never(error) => self.finish(id, started, Outcome::NotStarted, Err(error), now),
        }
    }

    /// It is to be run again.
    fn put_back(&mut self, id: TaskId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.phase = Phase::Waiting;
        if std::mem::take(&mut entry.is_forgotten) {
            let (group, priority, estimate) = (entry.task.group.clone(), entry.task.priority, entry.task.estimate);
            // It waits for nothing, so that there is no cycle.
            let _ = self.line.add(vec![Wish { id, group, priority, estimate, after: Vec::new() }]);
        } else {
            self.line.put_back(id);
        }
        self.changes += 1;
    }

    fn run_of(&mut self, job: JobId) -> Option<(TaskId, &mut Run)> {
        let id = *self.jobs.get(&job)?;
        match &mut self.entries.get_mut(&id)?.phase {
            Phase::Running(run) if run.job == job => Some((id, run)),
            _ => None,
        }
    }

    // ---- what engines tell ----

    pub(super) fn report(&mut self, job: JobId, report: Report, now: Instant) {
        let Some((id, run)) = self.run_of(job) else { return };
        match report {
            Report::Started(place) => run.place = place,
            Report::CancelAccepted => {}
            Report::Probed(is_ready) => {
                if is_ready {
                    self.is_ready(id, now);
                }
            }
            Report::Output(stream, bytes) => self.hear(id, stream, bytes, now),
            Report::Finished(finish) => self.ended(id, finish, now),
        }
    }

    fn hear(&mut self, id: TaskId, stream: Stream, bytes: Vec<u8>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut is_ready = false;
        if let Phase::Running(run) = &mut entry.phase
            && let (Service::Awaited(_), Some(Sign::Line(text))) =
                (run.service, entry.task.ready.as_ref().map(|ready| &ready.sign))
        {
            let [stdout, stderr] = &mut run.heard;
            let heard = if stream == Stream::Stdout { stdout } else { stderr };
            is_ready = has_sign(heard, &bytes, text.as_bytes());
        }
        if self.wants_output {
            let (task, index) = (Arc::clone(&entry.task), entry.index);
            self.outbox.push_back(Effect::Output { id, task, index, stream, bytes });
        }
        if is_ready {
            self.is_ready(id, now);
        }
    }

    /// A service can be used: those that wait for it may start.
    fn is_ready(&mut self, id: TaskId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if !matches!(run.service, Service::Awaited(_)) || run.ending.is_some() {
            return;
        }
        run.service = Service::Ready;
        entry.is_forgotten = true;
        self.changes += 1;
        if self.is_observed {
            self.outbox.push_back(Effect::Ready { id, at: now });
        }
        let doomed = self.line.resolve(id, true);
        self.doom(doomed, now);
    }

    fn ended(&mut self, id: TaskId, finish: Finish, now: Instant) {
        let Finish { outcome, output, error } = finish;
        let started = self.leave_run(id);
        let ending = started.as_ref().and_then(|run| run.ending);
        // What the pool has ended is called what the pool ended it for; who came to the end before is not.
        let by_us = matches!(outcome, Outcome::Cancelled { .. } | Outcome::EngineFailed { .. });
        let confirmed = matches!(outcome, Outcome::Cancelled { confirmed: true });
        let outcome = match ending {
            Some(Outcome::Cancelled { .. }) if by_us => Outcome::Cancelled { confirmed },
            Some(ending) if by_us => ending,
            _ => outcome,
        };
        let result = result_of(outcome, output, error);
        self.finish(id, started, outcome, result, now);
    }

    /// The last word about an attempt.
    fn finish(
        &mut self,
        id: TaskId,
        run: Option<Box<Run>>,
        outcome: Outcome,
        result: Result<Output, Error>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let success = result.as_ref().is_ok_and(Output::success);
        let retry = entry.task.retry.as_ref().unwrap_or(&self.retry);
        let again =
            if success || entry.cancelled || self.halted.is_some() || (self.services_end && entry.task.is_service) {
                None
            } else {
                let again = || retry.again(outcome, entry.attempts, entry.task.idempotent);
                // A condition is the caller's.
                catch_unwind(AssertUnwindSafe(again)).unwrap_or_else(|panic| {
                    self.panics.push(panic);
                    None
                })
            };
        if let Some(pause) = again {
            if self.is_observed {
                self.outbox.push_back(Effect::Retrying { id, outcome, pause, at: now });
            }
            let until = later(now, pause);
            entry.phase = Phase::Pausing(until);
            self.moments.insert((until, id));
            return;
        }
        self.resolve(id, run, outcome, result, now);
    }

    /// The last word about a task: said once, because the entry is gone afterwards.
    fn resolve(
        &mut self,
        id: TaskId,
        run: Option<Box<Run>>,
        outcome: Outcome,
        result: Result<Output, Error>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.services.retain(|service| *service != id);
        if let Phase::Pausing(until) = entry.phase {
            self.moments.remove(&(until, id));
        }
        self.changes += 1;
        let success = result.as_ref().is_ok_and(Output::success);
        // Those that were not tried, because of another one, are no failures of their own.
        let was_tried = run.is_some() || entry.attempts > 0;
        let is_failure = was_tried && !success && !matches!(outcome, Outcome::Cancelled { .. });
        // What the pool has stopped by its own wish says nothing about the run.
        if self.halted.is_none() {
            (self.succeeded, self.failed) =
                (self.succeeded + usize::from(success), self.failed + usize::from(is_failure));
        }
        let done = Done {
            id,
            index: entry.index,
            name: entry.task.name.clone(),
            group: entry.task.group.clone(),
            outcome,
            result,
            attempts: entry.attempts,
            slot: run.as_ref().map_or(0, |run| run.slot),
            place: run.as_ref().map_or_else(|| "".into(), |run| Arc::clone(&run.place)),
            submitted: entry.submitted,
            started: run.as_ref().filter(|_| entry.attempts > 0).map(|run| run.started),
            ended: now,
            skipped: self.skipped.contains(&id),
        };
        self.outbox.push_back(Effect::Resolved(Box::new(done), entry.delivery));
        let doomed = self.line.resolve(id, success);
        self.doom(doomed, now);
        self.look_at_halt(now);
    }

    /// Those that can never run, because of the failure of another.
    fn doom(&mut self, doomed: Vec<(TaskId, TaskId)>, now: Instant) {
        for (id, culprit) in doomed {
            let name = self.named.get(&culprit).map_or_else(|| format!("task {culprit}"), |name| name.to_string());
            let text = format!("not started: {name} has not succeeded");
            let error = Error::new(ErrorKind::Dependency).detail(text);
            self.resolve_unstarted(id, Outcome::NotStarted, error, now);
        }
    }

    fn resolve_unstarted(&mut self, id: TaskId, outcome: Outcome, error: Error, now: Instant) {
        let Some(entry) = self.entries.get(&id) else { return };
        let error = error.of_command(|| entry.task.command.to_string());
        self.resolve(id, None, outcome, Err(error), now);
    }

    fn look_at_halt(&mut self, now: Instant) {
        if self.halted.is_some() {
            return;
        }
        let Some(reason) = self.halt.reason(self.succeeded, self.failed) else { return };
        self.halted = Some(reason.clone());
        self.drain(&reason, now);
        if self.halt.stops_running() {
            let running = self.entries.iter().filter(|(_, entry)| matches!(entry.phase, Phase::Running(_)));
            for id in running.map(|(id, _)| *id).collect::<BTreeSet<_>>() {
                self.end_run(id, Outcome::Cancelled { confirmed: false }, now);
            }
        }
    }

    /// What waits, or pauses, is not started any more.
    fn drain(&mut self, reason: &str, now: Instant) {
        self.line.drain();
        let idle = self.entries.iter().filter(|(_, entry)| !matches!(entry.phase, Phase::Running(_)));
        for id in idle.map(|(id, _)| *id).collect::<BTreeSet<_>>() {
            self.resolve_unstarted(id, Outcome::NotStarted, halted(reason), now);
        }
    }

    /// The engine is told to stop a job.
    fn end_run(&mut self, id: TaskId, ending: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if run.ending.is_some() {
            return;
        }
        run.ending = Some(ending);
        if let Some(moment) = run.moment.take() {
            self.moments.remove(&(moment, id));
        }
        // Nobody waits for ever for an engine that does not answer.
        run.moment = now.checked_add(entry.task.command.stop.duration().saturating_add(CONFIRM_WITHIN));
        self.moments.extend(run.moment.map(|moment| (moment, id)));
        let (lane, job) = (run.lane, run.job);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.cancels.push(job);
        }
    }

    /// What it held is free again.
    fn leave_run(&mut self, id: TaskId) -> Option<Box<Run>> {
        let entry = self.entries.get_mut(&id)?;
        if !matches!(entry.phase, Phase::Running(_)) {
            return None;
        }
        let Phase::Running(mut run) = std::mem::replace(&mut entry.phase, Phase::Waiting) else { return None };
        self.jobs.remove(&run.job);
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(run.lane) {
            lane.running -= 1;
            lane.cancels.retain(|job| *job != run.job);
        }
        self.free_slots.insert(run.slot);
        self.stock.give_back(std::mem::take(&mut run.held));
        self.allowance.give_back(run.token.take());
        for moment in [run.moment.take(), run.look.take()].into_iter().flatten() {
            self.moments.remove(&(moment, id));
        }
        // Something has ended: there may be room.
        self.starved = None;
        self.changes += 1;
        Some(run)
    }

    // ---- moments ----

    fn look_at_moments(&mut self, now: Instant, orders: &mut Orders) {
        while let Some(&(moment, id)) = self.moments.first()
            && moment <= now
        {
            self.moments.pop_first();
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            match &mut entry.phase {
                Phase::Pausing(until) if *until <= now => self.put_back(id),
                Phase::Running(run) => {
                    let has_had_its_time = run.moment.is_some_and(|moment| moment <= now);
                    match (has_had_its_time, run.ending) {
                        (true, None) => {
                            run.moment = None;
                            self.end_run(id, Outcome::TimedOut, now);
                        }
                        (true, Some(ending)) => self.give_up(id, ending, now),
                        (false, _) => self.look_for_sign(id, now, orders),
                    }
                }
                _ => {}
            }
        }
    }

    /// An engine has not told the end of what it was to stop.
    fn give_up(&mut self, id: TaskId, ending: Outcome, now: Instant) {
        let run = self.leave_run(id);
        let error = Error::new(ErrorKind::Engine).detail("the engine has not told the end of what it was to stop");
        let result = result_of(ending, Output::default(), Some(error));
        // It may still run: only what may run twice is run again.
        if self.entries.get(&id).is_some_and(|entry| entry.task.idempotent) {
            self.finish(id, run, ending, result, now);
        } else {
            self.resolve(id, run, ending, result, now);
        }
    }

    fn look_for_sign(&mut self, id: TaskId, now: Instant, orders: &mut Orders) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        let (Service::Awaited(until), Some(ready)) = (run.service, &entry.task.ready) else { return };
        if now >= until {
            return self.end_run(id, Outcome::TimedOut, now);
        }
        let next = match &ready.sign {
            Sign::Started => return self.is_ready(id, now),
            Sign::Line(_) => until,
            sign => {
                orders.probes.push((run.job, sign.clone()));
                until.min(now + PROBE_EVERY)
            }
        };
        run.look = Some(next);
        self.moments.insert((next, id));
    }

    /// When nothing but services is left they are stopped, the last one first, one after the other.
    fn end_next_service(&mut self, now: Instant) {
        let only_services = self.entries.len() == self.services.len();
        if !(self.services_end || self.closed) || !only_services {
            return;
        }
        if let Some(&last) = self.services.last() {
            if let Some(entry) = self.entries.get_mut(&last) {
                entry.cancelled = true;
            }
            if self.is_running(last) {
                self.end_run(last, Outcome::Cancelled { confirmed: false }, now);
            } else {
                self.cancel(last, now);
            }
        }
    }

    /// An engine has failed as a whole: everything that ran there is over, and nothing is started there any more.
    pub(super) fn lane_failed(&mut self, lane: usize, error: &str, retryable: bool, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            (lane.is_alive, lane.is_waiting) = (false, false);
            lane.cancels.clear();
        }
        self.changes += 1;
        self.renew_allowance(None);
        let there = |entry: &Entry| matches!(&entry.phase, Phase::Running(run) if run.lane == lane);
        let ids: BTreeSet<TaskId> = self.entries.iter().filter(|(_, entry)| there(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            let run = self.leave_run(id);
            let outcome = Outcome::EngineFailed { retryable };
            let command = self.entries.get(&id).map(|entry| entry.task.command.to_string()).unwrap_or_default();
            let error = Error::new(ErrorKind::Engine).detail(error.to_owned());
            let output = Output { command, cause: Cause::Running, ..Output::default() };
            self.finish(id, run, outcome, Err(error.with_output(output)), now);
        }
        self.fail_stranded(error, now);
    }

    /// Every lane that waits is to look at its moments: who would have looked is no more.
    pub(super) fn wake_all(&mut self) -> Vec<usize> {
        let waiting = self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_waiting && lane.is_alive);
        waiting.map(|(place, lane)| (lane.is_waiting = false, place).1).collect()
    }

    /// What waits for an engine that is no more, and none that lives could run, is over.
    fn fail_stranded(&mut self, error: &str, now: Instant) {
        if self.renews_lanes || self.starting > 0 {
            return;
        }
        if self.has_lanes() {
            let idle = self.entries.iter().filter(|(_, entry)| !matches!(entry.phase, Phase::Running(_)));
            let stranded = idle.filter(|(_, entry)| self.is_stranded(&entry.task)).map(|(id, _)| *id);
            for id in stranded.collect::<BTreeSet<_>>() {
                self.fail_unstarted(id, error, now);
            }
        } else {
            self.closed = true;
            self.all_lanes_failed(error, now);
        }
    }

    /// There is no engine left: what waits will never run.
    pub(super) fn all_lanes_failed(&mut self, error: &str, now: Instant) {
        self.line.drain();
        for id in self.entries.keys().copied().collect::<BTreeSet<_>>() {
            self.leave_run(id);
            self.fail_unstarted(id, error, now);
        }
    }

    fn fail_unstarted(&mut self, id: TaskId, error: &str, now: Instant) {
        self.line.remove(id);
        let error = Error::new(ErrorKind::Engine).detail(format!("not started: {error}"));
        self.resolve_unstarted(id, Outcome::EngineFailed { retryable: false }, error, now);
    }

    /// No engine that lives, or soon will, can do what it asks for.
    fn is_stranded(&self, task: &Task) -> bool {
        let is_able = |lane: &Lane| lane.is_alive && lacks(task, &lane.capabilities).is_none();
        !self.renews_lanes && !self.lanes.is_empty() && self.starting == 0 && !self.lanes.iter().any(is_able)
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

fn halted(reason: &str) -> Error {
    Error::new(ErrorKind::Cancelled).detail(format!("not started: the run was halted: {reason}"))
}

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
