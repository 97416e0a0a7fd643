//! Where the last word about a task goes: to whoever holds its handle, to a loop over many, or to a function. Each is said exactly once:
//! a word that nobody said is said when its delivery is dropped.

use super::done::{Done, Outcome, TaskId};
use super::lanes::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Called with the record of a task when it is over.
pub(super) type Callback = Box<dyn FnOnce(&Done) + Send>;

/// Where a record goes. Dropped without one, it says so.
pub(super) struct Delivery {
    to: Option<To>,
}

enum To {
    Slot { slot: Arc<Slot>, callback: Option<Callback> },
    Batch(Arc<Batch>),
}

impl Delivery {
    pub(super) fn to_slot(slot: Arc<Slot>, callback: Option<Callback>) -> Delivery {
        Delivery { to: Some(To::Slot { slot, callback }) }
    }

    pub(super) fn to_batch(batch: Arc<Batch>) -> Delivery {
        Delivery { to: Some(To::Batch(batch)) }
    }

    /// No function of the caller's will be called.
    pub(super) fn is_quiet(&self) -> bool {
        !matches!(self.to, Some(To::Slot { callback: Some(_), .. }))
    }

    /// A function of the caller's may be called, and may panic; the record has been put down before.
    pub(super) fn deliver(mut self, done: Done) {
        match self.to.take() {
            Some(To::Slot { slot, callback }) => {
                slot.put(done);
                if let (Some(callback), Some(done)) = (callback, slot.done.get()) {
                    callback(done);
                }
            }
            Some(To::Batch(batch)) => batch.put(done),
            None => {}
        }
    }

    /// Nothing will come of it, and whoever submitted it knows.
    pub(super) fn forget(mut self) {
        self.to = None;
    }
}

/// A bug, or a panic, has lost a task: nobody is left waiting.
impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(to) = self.to.take() else { return };
        let now = Instant::now();
        let done = Done {
            id: TaskId(0),
            index: 0,
            name: None,
            group: None,
            outcome: Outcome::EngineFailed { retryable: false },
            result: Err(Error::new(ErrorKind::Engine).detail("the pool has lost the task")),
            attempts: 0,
            slot: 0,
            place: "".into(),
            submitted: now,
            started: None,
            ended: now,
            skipped: false,
        };
        match to {
            To::Slot { slot, .. } => slot.put(done),
            To::Batch(batch) => batch.put(done),
        }
    }
}

/// Somebody who waits for one of several things.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    condition: Condvar,
}

impl Bell {
    fn ring(&self) {
        *lock(&self.rung) = true;
        self.condition.notify_all();
    }

    /// Waits until it has been rung since the last time. False if the deadline came first.
    fn wait(&self, deadline: Deadline) -> bool {
        let mut rung = lock(&self.rung);
        while !std::mem::take(&mut *rung) {
            rung = match pause(&self.condition, rung, deadline) {
                Some(rung) => rung,
                None => return false,
            };
        }
        true
    }
}

/// The record of one task, once it is there.
pub(super) struct Slot {
    done: OnceLock<Done>,
    bells: Mutex<Vec<Arc<Bell>>>,
}

impl Slot {
    pub(super) fn new() -> Arc<Slot> {
        Arc::new(Slot { done: OnceLock::new(), bells: Mutex::new(Vec::new()) })
    }

    fn put(&self, done: Done) {
        // There is one delivery for each slot.
        let _ = self.done.set(done);
        for bell in lock(&self.bells).drain(..) {
            bell.ring();
        }
    }

    /// The bell rings when the record is there.
    fn hang(&self, bell: &Arc<Bell>) {
        let mut bells = lock(&self.bells);
        if self.done.get().is_some() {
            bell.ring();
        } else {
            bells.push(Arc::clone(bell));
        }
    }

    fn unhang(&self, bell: &Arc<Bell>) {
        lock(&self.bells).retain(|other| !Arc::ptr_eq(other, bell));
    }
}

/// The records of many tasks, in the order in which they come.
pub(super) struct Batch {
    state: Mutex<Arrived>,
    condition: Condvar,
}

#[derive(Default)]
struct Arrived {
    done: VecDeque<Done>,
    /// With so many there the one who waits is woken; nobody waits at 0.
    wanted: usize,
}

impl Batch {
    pub(super) fn new() -> Arc<Batch> {
        Arc::new(Batch { state: Mutex::default(), condition: Condvar::new() })
    }

    fn put(&self, done: Done) {
        let mut state = lock(&self.state);
        state.done.push_back(done);
        if state.wanted > 0 && state.done.len() >= state.wanted {
            state.wanted = 0;
            drop(state);
            self.condition.notify_all();
        }
    }

    /// Whether a record is there.
    pub(super) fn has_some(&self) -> bool {
        !lock(&self.state).done.is_empty()
    }

    /// Waits until so many records are there, and takes all. None if the deadline came first.
    pub(super) fn take(&self, wanted: usize, deadline: Deadline) -> Option<VecDeque<Done>> {
        let mut state = lock(&self.state);
        while state.done.len() < wanted {
            state.wanted = wanted;
            state = pause(&self.condition, state, deadline)?;
        }
        state.wanted = 0;
        Some(std::mem::take(&mut state.done))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing of a caller's runs with one of these locks held, so the values are whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits once. `None` if the deadline has come.
pub(super) fn pause<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> Option<MutexGuard<'a, T>> {
    let Some(remaining) = deadline.remaining() else {
        return Some(condition.wait(guard).unwrap_or_else(PoisonError::into_inner));
    };
    if remaining.is_zero() {
        return None;
    }
    Some(condition.wait_timeout(guard, remaining).unwrap_or_else(PoisonError::into_inner).0)
}

/// A task of a pool that may not be over yet: Python's `AsyncResult` and `Future`.
///
/// Dropping it changes nothing: the task goes on, and its callback is called.
#[doc(alias = "AsyncResult")]
#[doc(alias = "Future")]
pub struct Pending {
    pub(super) id: TaskId,
    pub(super) slot: Arc<Slot>,
    pub(super) shared: Weak<Shared>,
}

impl Pending {
    /// The task: for [`Task::after`](crate::pool::Task::after).
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Waits for the last word.
    #[doc(alias = "get")]
    pub fn wait(&self) -> &Done {
        loop {
            if let Some(done) = self.wait_deadline(Deadline::NEVER) {
                return done;
            }
        }
    }

    /// The same, for at most this long. `None` if it is not over then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&Done> {
        self.wait_deadline(Deadline::after(timeout))
    }

    /// The same, at most until a moment.
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Option<&Done> {
        let deadline = deadline.into();
        let bell = Arc::new(Bell::default());
        self.slot.hang(&bell);
        bell.wait(deadline);
        self.slot.unhang(&bell);
        self.done()
    }

    /// The last word, if it was said.
    pub fn done(&self) -> Option<&Done> {
        self.slot.done.get()
    }

    /// Whether it is over.
    #[doc(alias = "ready")]
    pub fn is_done(&self) -> bool {
        self.done().is_some()
    }

    /// Whether it has succeeded. `None` if it is not over.
    #[doc(alias = "successful")]
    pub fn success(&self) -> Option<bool> {
        self.done().map(Done::success)
    }

    /// Whether it runs now.
    #[doc(alias = "running")]
    pub fn is_running(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.core().is_running(self.id))
    }

    /// Wishes that it be cancelled: one that waits is over at once, one that runs is stopped with its tree, by the stop plan of its
    /// command. False if it is over already. That it has happened is told as its [`Outcome`].
    pub fn cancel(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.cancel(&[self.id]))
    }

    /// Waits, and takes the record. If the task has a callback that is waited for, too.
    pub fn into_done(self) -> Done {
        self.wait();
        let mut slot = self.slot;
        loop {
            match Arc::try_unwrap(slot).map(|slot| slot.done.into_inner()) {
                Ok(Some(done)) => return done,
                // Whoever has put it down is about to let go of it.
                Err(shared) => slot = shared,
                Ok(None) => slot = Slot::new(),
            }
            std::thread::yield_now();
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pending").field("id", &self.id).field("outcome", &self.done().map(Done::outcome)).finish()
    }
}

/// What [`wait`](crate::pool::wait()) waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnWhen {
    /// One of them is over.
    First,
    /// One of them has not succeeded, or all are over.
    FirstFailure,
    /// All are over.
    All,
}

/// Waits for several tasks, which may be of several pools. Returns those that are over and those that are not, by their places.
///
/// ```
/// use procession::pool::{Pool, ReturnWhen, wait};
/// use procession::{Command, Deadline};
///
/// let pool = Pool::new(2);
/// let pending = [pool.apply_async(Command::new("true"))?, pool.apply_async(Command::new("sleep").arg("60"))?];
/// let (done, not_done) = wait(&pending, ReturnWhen::First, Deadline::NEVER);
/// assert_eq!((done, not_done), (vec![0], vec![1]));
/// # Ok::<(), procession::Error>(())
/// ```
pub fn wait(pending: &[Pending], when: ReturnWhen, deadline: impl Into<Deadline>) -> (Vec<usize>, Vec<usize>) {
    let deadline = deadline.into();
    let bell = Arc::new(Bell::default());
    for one in pending {
        one.slot.hang(&bell);
    }
    let is_enough = || match when {
        ReturnWhen::First => pending.iter().any(Pending::is_done),
        ReturnWhen::FirstFailure => {
            pending.iter().any(|one| one.success() == Some(false)) || pending.iter().all(Pending::is_done)
        }
        ReturnWhen::All => pending.iter().all(Pending::is_done),
    };
    while !pending.is_empty() && !is_enough() && bell.wait(deadline) {}
    for one in pending {
        one.slot.unhang(&bell);
    }
    (0..pending.len()).partition(|&place| pending.get(place).is_some_and(Pending::is_done))
}

/// Tasks in the order in which they come to their end; see [`as_completed`].
#[derive(Debug)]
pub struct AsCompleted<'a> {
    pending: Vec<(usize, &'a Pending)>,
    deadline: Deadline,
}

/// The tasks one by one, as they come to their end, each with its place. Ends early when the deadline has come.
pub fn as_completed(pending: &[Pending], deadline: impl Into<Deadline>) -> AsCompleted<'_> {
    AsCompleted { pending: pending.iter().enumerate().collect(), deadline: deadline.into() }
}

impl<'a> Iterator for AsCompleted<'a> {
    type Item = (usize, &'a Done);

    fn next(&mut self) -> Option<(usize, &'a Done)> {
        let bell = Arc::new(Bell::default());
        for (_, one) in &self.pending {
            one.slot.hang(&bell);
        }
        let found = loop {
            if let Some(found) = self.pending.iter().position(|(_, one)| one.is_done()) {
                break Some(found);
            }
            if self.pending.is_empty() || !bell.wait(self.deadline) {
                break None;
            }
        };
        for (_, one) in &self.pending {
            one.slot.unhang(&bell);
        }
        let (place, one) = self.pending.swap_remove(found?);
        one.done().map(|done| (place, done))
    }
}
