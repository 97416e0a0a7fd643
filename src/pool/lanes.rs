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
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::interrupt::Heard;
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a pool and its threads share.
pub(super) struct Shared {
    core: Mutex<Core>,
    /// Everything has its last word.
    idle: Condvar,
    engines: Engines,
    lanes_max: usize,
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
    panics: Vec<String>,
}

thread_local! {
    /// The pools that this thread is telling about: a function that is told may submit further tasks.
    static TELLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    pub(super) fn new(core: Core, engines: Engines) -> Shared {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes_max = match &engines {
            Engines::Local => processors,
            Engines::Given(capabilities, _) => capabilities.len(),
        };
        Shared {
            core: Mutex::new(core),
            idle: Condvar::new(),
            engines,
            lanes_max,
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

    fn lanes_max(&self, core: &Core) -> usize {
        self.lanes_max.min(core.width)
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
        let (result, wake, wants_lane) = {
            let mut core = self.core();
            let now = core.moment(Instant::now());
            let result = act(&mut core, now);
            let lanes_max = self.lanes_max(&core);
            let wake = core.lanes_with_work(lanes_max);
            let alive = core.lanes.iter().filter(|lane| lane.is_alive).count();
            (result, wake, alive < lanes_max && alive < core.unresolved())
        };
        self.wake(&wake);
        if wants_lane {
            self.start_lane();
        }
        self.tell();
        result
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

    /// Tells everything that is to be told, in order. If somebody is at it, he tells this as well; whoever is told and calls here again
    /// comes back at once.
    fn tell(self: &Arc<Shared>) {
        let name = Arc::as_ptr(self) as usize;
        if TELLING.with_borrow(|telling| telling.contains(&name)) {
            return;
        }
        if self.core().outbox.is_empty() {
            return;
        }
        self.tidy_up();
        let mut audience = lock(&self.audience);
        TELLING.with_borrow_mut(|telling| telling.push(name));
        loop {
            let effects = std::mem::take(&mut self.core().outbox);
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                audience.tell(effect);
            }
        }
        TELLING.with_borrow_mut(|telling| telling.retain(|other| *other != name));
        drop(audience);
        if self.core().unresolved() == 0 {
            self.idle.notify_all();
        }
    }

    // ---- the end ----

    /// Waits until every task has had its last word, and all threads have ended. False if the deadline came first.
    pub(super) fn join(self: &Arc<Shared>, deadline: Deadline) -> bool {
        let mut core = self.core();
        while core.unresolved() > 0 {
            core = match pause(&self.idle, core, deadline) {
                Some(core) => core,
                None => return false,
            };
        }
        drop(core);
        self.tell();
        self.wake_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        let own = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
            // What a lane panicked with was told by its tasks.
            let _ = thread.join();
        }
        true
    }

    /// What those who look on panicked with.
    pub(super) fn take_panics(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.audience).panics)
    }

    // ---- lanes ----

    fn start_lane(self: &Arc<Shared>) {
        let engine = match &self.engines {
            Engines::Local => Local::new().map(|local| Some(Box::new(local) as Box<dyn Engine>)),
            Engines::Given(_, engines) => Ok(lock(engines).pop()),
        };
        let started = match engine {
            Ok(Some(engine)) => self.start_thread(engine),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            // With fewer lanes it takes longer; with none it does not go on.
            let mut core = self.core();
            if !core.lanes.iter().any(|lane| lane.is_alive) {
                let now = core.moment(Instant::now());
                core.all_lanes_failed(&error.to_string(), now);
            }
        }
    }

    fn start_thread(self: &Arc<Shared>, engine: Box<dyn Engine>) -> Result<(), Error> {
        let lane = {
            let mut core = self.core();
            lock(&self.wakers).push(engine.waker());
            core.add_lane(engine.capabilities())
        };
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("procession-pool-{lane}"));
        let thread = thread.spawn(move || run_lane(&shared, lane, engine));
        match thread {
            Ok(thread) => {
                lock(&self.threads).push(thread);
                Ok(())
            }
            Err(error) => {
                self.core().lane_failed(lane, "no thread can be started", true, Instant::now());
                Err(Error::io("thread", error))
            }
        }
    }
}

impl Audience {
    fn tell(&mut self, effect: Effect) {
        match effect {
            Effect::Resolved(done, delivery) => {
                self.see(&TaskNews::Finished(&done));
                let delivered = catch_unwind(AssertUnwindSafe(|| delivery.deliver(*done)));
                self.panics.extend(delivered.err().map(|panic| words(&*panic)));
            }
            Effect::Submitted { id, task, at } => {
                self.see(&TaskNews::Submitted { id, label: &task.to_string(), task: &task, at });
            }
            Effect::Started { id, task, attempt, slot, place, at } => {
                let label = &task.to_string();
                self.see(&TaskNews::Started { id, label, attempt, slot, place: &place, at });
            }
            Effect::Output { id, task, index, stream, bytes } => {
                let label = &task.to_string();
                self.see(&TaskNews::Output { id, index, label, stream, bytes: &bytes });
            }
            Effect::Ready { id, at } => self.see(&TaskNews::Ready { id, at }),
            Effect::Retrying { id, outcome, pause, at } => self.see(&TaskNews::Retrying { id, outcome, pause, at }),
        }
    }

    fn see(&mut self, news: &TaskNews<'_>) {
        for observer in &mut self.observers {
            let seen = catch_unwind(AssertUnwindSafe(|| observer.see(news)));
            self.panics.extend(seen.err().map(|panic| words(&*panic)));
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
        Err(panic) => format!("the engine panicked: {}", words(&*panic)),
    };
    let now = catch_unwind(AssertUnwindSafe(|| engine.now())).unwrap_or_else(|_| Instant::now());
    // What it runs is stopped before anybody is told that it has ended.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(engine)));
    shared.core().lane_failed(lane, &failure, true, now);
    let is_last = !shared.core().lanes.iter().any(|lane| lane.is_alive);
    if is_last && matches!(&shared.engines, Engines::Given(_, spare) if lock(spare).is_empty()) {
        shared.core().all_lanes_failed(&failure, now);
    }
    // Others take over what is left.
    shared.change(|_, _| ());
}

fn drive(shared: &Arc<Shared>, lane: usize, engine: &mut dyn Engine) -> Result<(), Error> {
    let mut reports = Vec::new();
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
    let lanes_max = shared.lanes_max(&core);
    let orders = core.orders(lane, lanes_max, now);
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
    for Start { mut job, notifies, skippable } in orders.jobs {
        if skippable.is_some_and(|task| shared.is_done(&task)) {
            let now = engine.now();
            shared.core().skip(job.id, now);
            continue;
        }
        if let Some(number) = notifies {
            match Probe::descriptor(&mut job.command, number) {
                Ok(probe) => drop(lock(&shared.probes).insert(job.id, probe)),
                Err(error) => {
                    let now = engine.now();
                    shared.core().refused(job.id, Refusal::Later(error), now);
                    continue;
                }
            }
        }
        let submitted = engine.submit(&job);
        let now = engine.now();
        let mut core = shared.core();
        match submitted {
            Ok(()) => core.accepted(job.id, now),
            Err(refusal) => core.refused(job.id, refusal, now),
        }
    }
    for (job, sign) in orders.probes {
        let is_ready = match &sign {
            Sign::Descriptor(_) => lock(&shared.probes).get_mut(&job).is_some_and(Probe::look),
            sign => sign.is_there(),
        };
        let now = engine.now();
        shared.core().report(job, Report::Probed(is_ready), now);
    }
}
