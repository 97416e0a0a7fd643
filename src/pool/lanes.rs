//! The threads of a pool: each drives one engine, carries out what the core orders, and tells the core what has happened. Decides who
//! tells others what the core has to say, so that they hear it in order and outside of every lock.

use super::core::{Core, Effect, Orders, Report, Start};
use super::delivery::{lock, pause};
use super::done::TaskId;
use super::engine::{Capabilities, Engine, JobId, JobNews, Refusal, Waker};
use super::interrupt::Desk;
use super::local::Local;
use super::observe::{Observer, TaskNews};
use super::ready::{Probe, Sign};
use super::task::Task;
use crate::command::hold_environment;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::interrupt::Heard;
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker as TaskWaker;
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a pool and its threads share.
pub(super) struct Shared {
    core: Mutex<Core>,
    /// Something has been told, perhaps the last word of all.
    quiet: Condvar,
    /// Tasks that wait for the end of all: they are woken with those who wait for that.
    joiners: Mutex<Vec<TaskWaker>>,
    engines: Engines,
    wakers: Mutex<Vec<Waker>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where services write that they are ready. Whichever lane has the time looks.
    probes: Mutex<HashMap<JobId, Probe>>,
    is_done: Mutex<Option<Arc<IsDone>>>,
    /// Held by whoever tells.
    audience: Mutex<Audience>,
    /// The terminal, as it is to be after an interrupt.
    pub(super) desk: Mutex<Desk>,
}

/// Whether a task need not be run, because it has succeeded before.
pub(super) type IsDone = dyn Fn(&Task) -> bool + Send + Sync;

/// Where engines come from.
pub(super) enum Engines {
    /// This machine: as many as there are processors.
    Local,
    /// These, each once.
    Given(Vec<Capabilities>, Mutex<Vec<Box<dyn Engine>>>),
}

/// Those who look on, and what went wrong with them.
#[derive(Default)]
pub(super) struct Audience {
    observers: Vec<Box<dyn Observer>>,
    /// What the first of them has panicked with that was not told.
    panic: Option<String>,
}

thread_local! {
    /// The pools that this thread is telling about: a function that is told must not wait for them.
    static TELLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    pub(super) fn new(mut core: Core, engines: Engines) -> Shared {
        (core.lanes_max, core.renews_lanes) = match &engines {
            Engines::Local => (std::thread::available_parallelism().map_or(1, usize::from), true),
            Engines::Given(capabilities, _) => (capabilities.len(), false),
        };
        Shared {
            core: Mutex::new(core),
            quiet: Condvar::new(),
            joiners: Mutex::default(),
            engines,
            wakers: Mutex::default(),
            threads: Mutex::default(),
            probes: Mutex::default(),
            is_done: Mutex::default(),
            audience: Mutex::default(),
            desk: Mutex::default(),
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    pub(super) fn capabilities(&self) -> Vec<Capabilities> {
        match &self.engines {
            Engines::Local => vec![Capabilities::local()],
            Engines::Given(capabilities, _) => capabilities.clone(),
        }
    }

    /// Tasks for which this is true are not run.
    pub(super) fn skip_if(&self, is_done: Box<IsDone>) {
        let mut core = self.core();
        core.skips = true;
        *lock(&self.is_done) = Some(Arc::from(is_done));
    }

    fn is_done(&self, task: &Task) -> bool {
        let is_done = lock(&self.is_done).clone();
        is_done.is_some_and(|is_done| is_done(task))
    }

    pub(super) fn observe(&self, observer: Box<dyn Observer>) {
        let wants_output = observer.wants_output();
        lock(&self.audience).observers.push(observer);
        let mut core = self.core();
        core.is_observed = true;
        core.wants_output |= wants_output;
    }

    /// Does something with the core, and sees to what follows: lanes are started and woken, others are told.
    pub(super) fn change<T>(self: &Arc<Shared>, act: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let (result, wake, wanted) = {
            let mut core = self.core();
            let now = core.moment(Instant::now());
            let result = act(&mut core, now);
            core.settle(now);
            (result, core.lanes_with_work(), core.lanes_wanted())
        };
        self.wake(&wake);
        for _ in 0..wanted {
            self.start_lane();
        }
        self.see_to_telling();
        result
    }

    /// Does something with the core for a lane, whose engine says what time it is. The lane sees to what follows.
    fn at(&self, now: Instant, act: impl FnOnce(&mut Core, Instant)) {
        let mut core = self.core();
        let now = core.moment(now);
        act(&mut core, now);
    }

    pub(super) fn cancel(self: &Arc<Shared>, ids: &[TaskId]) -> bool {
        self.change(|core, now| ids.iter().fold(false, |any, id| core.cancel(*id, now) | any))
    }

    /// A signal has come. Tells nobody by itself, so that no callback keeps the next signal from being heard. False if nothing is left
    /// that a further signal could end.
    pub(super) fn interrupt(&self, heard: Heard) -> bool {
        let mut core = self.core();
        if core.interruption.signal().is_some() && core.unresolved() == 0 {
            return false;
        }
        let now = core.moment(Instant::now());
        core.interrupt(heard, now);
        drop(core);
        self.wake_all();
        true
    }

    fn wake_all(&self) {
        let lanes = lock(&self.wakers).len();
        self.wake(&(0..lanes).collect::<Vec<_>>());
    }

    /// After an interrupt, when nothing runs any more, before anybody is told.
    fn tidy_up(&self) {
        let core = self.core();
        let is_over = core.interruption.signal().is_some() && core.running() == 0;
        drop(core);
        if is_over {
            lock(&self.desk).tidy_up();
        }
    }

    fn wake(&self, lanes: &[usize]) {
        if lanes.is_empty() {
            return;
        }
        let wakers = lock(&self.wakers);
        for waker in lanes.iter().filter_map(|lane| wakers.get(*lane)) {
            waker.wake();
        }
    }

    // ---- telling ----

    /// Whoever is to be told hears it from a thread of the pool: a caller may hold what is needed to listen. Only what can be told
    /// without calling anybody is told here.
    fn see_to_telling(&self) {
        let lane = {
            let mut core = self.core();
            if core.outbox.is_empty() || core.is_telling {
                return;
            }
            let is_quiet = |effect: &Effect| matches!(effect, Effect::Resolved(_, delivery) if delivery.is_quiet());
            let tells_here = !core.has_lanes() || (!core.is_observed && core.outbox.iter().all(is_quiet));
            // A lane that does not wait tells before it does.
            if tells_here { None } else { Some(core.wake_one()) }
        };
        match lane {
            None => self.tell(),
            Some(lane) => self.wake(&Vec::from_iter(lane)),
        }
    }

    /// Tells everything that is to be told, in order. If somebody is at it, he tells this as well.
    fn tell(&self) {
        let mut effects = {
            let mut core = self.core();
            if core.outbox.is_empty() || core.is_telling {
                return;
            }
            core.is_telling = true;
            std::mem::take(&mut core.outbox)
        };
        let _mark = Telling::begin(self);
        loop {
            self.tidy_up();
            let mut audience = lock(&self.audience);
            effects.drain(..).for_each(|effect| audience.tell(effect));
            drop(audience);
            let mut core = self.core();
            core.rounds_told += 1;
            std::mem::swap(&mut effects, &mut core.outbox);
            core.is_telling = !effects.is_empty();
            let is_quiet = core.is_observed || core.unresolved() == 0;
            drop(core);
            if is_quiet {
                self.say_quiet();
            }
            if effects.is_empty() {
                return;
            }
        }
    }

    /// Whether this thread is just telling something of this pool, so that it cannot wait for it.
    pub(super) fn is_telling_here(&self) -> bool {
        TELLING.with_borrow(|telling| telling.contains(&self.name()))
    }

    fn name(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Comes back when everything there is has been told, also by somebody else.
    fn tell_first(&self) {
        self.tell();
        let mut core = self.core();
        // One round may be under way, and the next one has the rest.
        let enough = core.rounds_told + 2;
        while core.is_observed && core.is_telling && core.rounds_told < enough {
            core = pause(&self.quiet, core, Deadline::NEVER).unwrap_or_else(|| self.core());
        }
    }

    /// Those who wait for others to be done look again.
    fn say_quiet(&self) {
        self.quiet.notify_all();
        let joiners = std::mem::take(&mut *lock(&self.joiners));
        joiners.into_iter().for_each(TaskWaker::wake);
    }

    // ---- the end ----

    /// As [`join`](Self::join), for a task, which is woken.
    #[cfg(feature = "future")]
    pub(super) fn poll_join(&self, task: &mut Context<'_>) -> Poll<()> {
        // First the wish: what is said in between is heard.
        lock(&self.joiners).push(task.waker().clone());
        if self.join(Deadline::now()) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until every task has had its last word, and all threads have ended. False if the deadline came first, or if this is
    /// called by what the pool tells: then it ends by itself.
    pub(super) fn join(&self, deadline: Deadline) -> bool {
        if self.is_telling_here() {
            return false;
        }
        let mut core = self.core();
        while core.unresolved() > 0 || core.is_telling || !core.outbox.is_empty() {
            core = match pause(&self.quiet, core, deadline) {
                Some(core) => core,
                None => return false,
            };
        }
        drop(core);
        self.wake_all();
        loop {
            let threads = std::mem::take(&mut *lock(&self.threads));
            if threads.is_empty() {
                return true;
            }
            for thread in threads {
                // What a lane panicked with was told by its tasks.
                let _ = thread.join();
            }
        }
    }

    /// What one of those who look on, or a condition, panicked with.
    pub(super) fn take_panic(&self) -> Option<String> {
        let condition = self.core().panic.take();
        let panic = lock(&self.audience).panic.take();
        panic.or_else(|| condition.map(|panic| words(&*panic)))
    }

    // ---- lanes ----

    fn start_lane(self: &Arc<Shared>) {
        let engine = match &self.engines {
            Engines::Local => Local::new().map(|local| Some(Box::new(local) as Box<dyn Engine>)),
            Engines::Given(_, engines) => Ok(lock(engines).pop()),
        };
        let started = engine.and_then(|engine| match engine {
            Some(engine) => self.start_thread(engine),
            None => Err(Error::invalid("there is no engine")),
        });
        if let Err(error) = started {
            let mut core = self.core();
            let now = core.moment(Instant::now());
            core.lane_not_started(&error.to_string(), now);
        }
    }

    fn start_thread(self: &Arc<Shared>, engine: Box<dyn Engine>) -> Result<(), Error> {
        // An engine may come from outside.
        let known = catch_unwind(AssertUnwindSafe(|| (engine.waker(), engine.capabilities())));
        let (waker, capabilities) = known.map_err(|panic| Error::invalid(panicked(&*panic)))?;
        let lane = {
            let mut core = self.core();
            lock(&self.wakers).push(waker);
            let now = core.moment(Instant::now());
            core.add_lane(capabilities, now)
        };
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("procession-pool-{lane}"));
        match thread.spawn(move || run_lane(&shared, lane, engine)) {
            Ok(thread) => lock(&self.threads).push(thread),
            Err(error) => {
                let mut core = self.core();
                let now = core.moment(Instant::now());
                core.lane_failed(lane, &Error::io("thread", error).to_string(), true, now);
                core.has_fewer_lanes("no thread can be started", now);
            }
        }
        Ok(())
    }
}

/// While it lives this thread tells something of a pool.
struct Telling<'a>(&'a Shared);

impl<'a> Telling<'a> {
    fn begin(shared: &'a Shared) -> Telling<'a> {
        TELLING.with_borrow_mut(|telling| telling.push(shared.name()));
        Telling(shared)
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        TELLING.with_borrow_mut(|telling| telling.retain(|other| *other != self.0.name()));
        if std::thread::panicking() {
            // A bug; what comes next is told all the same.
            self.0.core().is_telling = false;
            self.0.say_quiet();
        }
    }
}

impl Audience {
    fn tell(&mut self, effect: Effect) {
        match effect {
            Effect::Resolved(done, delivery) => {
                self.see(&TaskNews::Finished(&done));
                let delivered = catch_unwind(AssertUnwindSafe(|| delivery.deliver(*done)));
                self.panic = self.panic.take().or_else(|| delivered.err().map(|panic| words(&*panic)));
            }
            Effect::Submitted { id, task, at } => {
                self.see(&TaskNews::Submitted { id, label: &task.to_string(), task: &task, at });
            }
            Effect::Starting { id, task } => self.see(&TaskNews::Starting { id, task: &task }),
            Effect::Started { id, task, attempt, slot, place, at } => {
                let label = &task.to_string();
                self.see(&TaskNews::Started { id, label, attempt, slot, place: &place, at });
            }
            Effect::Output { id, task, index, stream, bytes } => {
                let label = &task.to_string();
                self.see(&TaskNews::Output { id, index, label, stream, bytes: &bytes });
            }
            Effect::Ready { id, at } => self.see(&TaskNews::Ready { id, at }),
            Effect::Retrying { id, task, attempt, outcome, result, pause, at } => {
                let (label, result) = (&task.to_string(), (*result).as_ref());
                self.see(&TaskNews::Retrying { id, label, attempt, outcome, result, pause, at });
            }
        }
    }

    fn see(&mut self, news: &TaskNews<'_>) {
        for observer in &mut self.observers {
            let seen = catch_unwind(AssertUnwindSafe(|| observer.see(news)));
            self.panic = self.panic.take().or_else(|| seen.err().map(|panic| words(&*panic)));
        }
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

/// The life of a lane.
fn run_lane(shared: &Arc<Shared>, lane: usize, mut engine: Box<dyn Engine>) {
    let ran = catch_unwind(AssertUnwindSafe(|| drive(shared, lane, &mut *engine)));
    let failure = match ran {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panicked(&*panic),
    };
    let now = catch_unwind(AssertUnwindSafe(|| engine.now())).unwrap_or_else(|_| Instant::now());
    // What it runs is stopped before anybody is told that it has ended.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(engine)));
    let waiting = {
        let mut core = shared.core();
        let now = core.moment(now);
        core.lane_failed(lane, &failure, true, now);
        core.wake_all()
    };
    shared.wake(&waiting);
    // Others take over what is left.
    shared.change(|_, _| ());
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("the engine panicked: {}", words(panic))
}

fn drive(shared: &Arc<Shared>, lane: usize, engine: &mut dyn Engine) -> Result<(), Error> {
    let mut reports = Vec::new();
    engine.enter(lane);
    loop {
        let orders = order(shared, lane, engine.now());
        if orders.leave {
            shared.tell();
            return Ok(());
        }
        if !orders.is_empty() {
            // What comes of it may be the next order.
            carry_out(shared, orders, engine);
            shared.tell();
            continue;
        }
        let until = orders.until;
        shared.tell();
        engine.poll(until.map_or(Deadline::NEVER, Deadline::at), &mut |job, news| {
            reports.push((
                job,
                match news {
                    JobNews::Queued | JobNews::Retrying(_) => return,
                    JobNews::Started { place } => Report::Started(place),
                    JobNews::Output { stream, bytes } => Report::Output(stream, bytes.to_vec()),
                    JobNews::CancelAccepted => Report::CancelAccepted,
                    JobNews::Finished(finish) => Report::Finished(finish),
                },
            ));
        })?;
        let now = engine.now();
        let mut core = shared.core();
        let now = core.moment(now);
        core.is_awake(lane);
        for (job, report) in reports.drain(..) {
            if matches!(report, Report::Finished(_)) {
                lock(&shared.probes).remove(&job);
            }
            core.report(job, report, now);
        }
    }
}

fn order(shared: &Arc<Shared>, lane: usize, now: Instant) -> Orders {
    let mut core = shared.core();
    let now = core.moment(now);
    let orders = core.orders(lane, now);
    drop(core);
    shared.wake(&orders.wake);
    orders
}

fn carry_out(shared: &Arc<Shared>, orders: Orders, engine: &mut dyn Engine) {
    for job in orders.cancels {
        engine.cancel(job);
    }
    for (job, signal, by_terminal) in orders.signals {
        if !engine.signal(job, signal, by_terminal) {
            let now = engine.now();
            shared.core().report(job, Report::NotSignalled, now);
        }
    }
    if !orders.jobs.is_empty() {
        // Whoever wants to know what a task starts from looks before it can change that.
        shared.tell_first();
    }
    let _one_environment = hold_environment();
    for Start { mut job, notifies, skippable } in orders.jobs {
        if skippable.is_some_and(|task| shared.is_done(&task)) {
            shared.at(engine.now(), |core, now| core.skip(job.id, now));
            continue;
        }
        if let Some(number) = notifies {
            match Probe::descriptor(&mut job.command, number) {
                Ok(probe) => drop(lock(&shared.probes).insert(job.id, probe)),
                Err(error) => {
                    shared.at(engine.now(), |core, now| core.refused(job.id, Refusal::Later(error), now));
                    continue;
                }
            }
        }
        let submitted = engine.submit(&job);
        shared.at(engine.now(), |core, now| match submitted {
            Ok(()) => core.accepted(job.id, now),
            Err(refusal) => core.refused(job.id, refusal, now),
        });
    }
    for (job, sign) in orders.probes {
        let is_ready = match &sign {
            Sign::Descriptor(_) => lock(&shared.probes).get_mut(&job).is_some_and(Probe::look),
            sign => sign.is_there(),
        };
        shared.at(engine.now(), |core, now| core.report(job, Report::Probed(is_ready), now));
    }
}
