//! Where the last word about a task goes: to whoever holds its handle, to a loop over many, or to a function. Each is said exactly once:
//! a word that nobody said is said when its delivery is dropped.

use super::done::{Done, Outcome, TaskId};
use super::known::Claim;
use super::lanes::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::time::Duration;

/// Called with the record of a task when it is over.
pub(super) type Callback = Box<dyn FnOnce(&Done) + Send>;

/// Where a record goes. Dropped without one, it says so.
pub(super) struct Delivery {
    to: Option<To>,
}

enum To {
    Slot { filler: Filler, callback: Option<Callback> },
    Batch(Arc<Batch>),
}

/// Whoever fills a slot. He who wants to take the record away waits until this one has let go of it: fields are dropped in order.
struct Filler {
    slot: Arc<Slot>,
    _gate: Gate,
}

struct Gate(Arc<Bell>);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.ring(0);
    }
}

impl Delivery {
    pub(super) fn to_slot(slot: Arc<Slot>, callback: Option<Callback>) -> Delivery {
        let gate = Gate(Arc::clone(&slot.gate));
        Delivery { to: Some(To::Slot { filler: Filler { slot, _gate: gate }, callback }) }
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
            Some(To::Slot { filler, callback }) => {
                filler.slot.put(done);
                if let (Some(callback), Some(done)) = (callback, filler.slot.done.get()) {
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
        match self.to.take() {
            Some(To::Slot { filler, .. }) => filler.slot.put(lost()),
            Some(To::Batch(batch)) => batch.put(lost()),
            None => {}
        }
    }
}

/// What is said when nothing is known.
fn lost() -> Done {
    let error = Error::new(ErrorKind::Engine).detail("the pool has lost the task");
    Done::unbegun(TaskId(0), Outcome::EngineFailed { retryable: false }, error)
}

/// What somebody hangs up who waits for one of several things, each with a place.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    condition: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    /// The places that have rung and were not heard.
    places: VecDeque<usize>,
    /// The task that waits for the next.
    waker: Option<Waker>,
}

impl Bell {
    fn ring(&self, place: usize) {
        let mut rung = lock(&self.rung);
        rung.places.push_back(place);
        let waker = rung.waker.take();
        drop(rung);
        self.condition.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    /// A place that has rung and was not heard; the task is woken when there is one.
    #[cfg(feature = "future")]
    pub(crate) fn poll_wait(&self, task: &mut Context<'_>) -> Poll<usize> {
        let mut rung = lock(&self.rung);
        match rung.places.pop_front() {
            Some(place) => Poll::Ready(place),
            None => {
                rung.waker = Some(task.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits until there is a place that has rung and was not heard. `None` if the deadline came first.
    fn wait(&self, deadline: Deadline) -> Option<usize> {
        let mut rung = lock(&self.rung);
        loop {
            if let Some(place) = rung.places.pop_front() {
                return Some(place);
            }
            rung = pause(&self.condition, rung, deadline)?;
        }
    }
}

/// The record of one task, once it is there.
pub(super) struct Slot {
    done: OnceLock<Done>,
    /// Those of people who have gone away are left until the next one comes.
    bells: Mutex<Vec<(Weak<Bell>, usize)>>,
    /// Rings when nobody will fill the slot, or look at what he has filled in, any more.
    gate: Arc<Bell>,
}

impl Slot {
    pub(super) fn new() -> Arc<Slot> {
        Arc::new(Slot { done: OnceLock::new(), bells: Mutex::default(), gate: Arc::default() })
    }

    fn put(&self, done: Done) {
        // There is one delivery for each slot.
        let _ = self.done.set(done);
        for (bell, place) in lock(&self.bells).drain(..) {
            if let Some(bell) = bell.upgrade() {
                bell.ring(place);
            }
        }
    }

    /// The bell rings once, with this place, when the record is there.
    fn hang(&self, bell: &Arc<Bell>, place: usize) {
        let mut bells = lock(&self.bells);
        if self.done.get().is_some() {
            bell.ring(place);
        } else {
            bells.retain(|(bell, _)| bell.strong_count() > 0);
            bells.push((Arc::downgrade(bell), place));
        }
    }
}

/// One bell for all of them, which rings with their places.
pub(crate) fn hang_all<'a>(pending: impl IntoIterator<Item = &'a Pending>) -> Arc<Bell> {
    let bell = Arc::new(Bell::default());
    for (place, one) in pending.into_iter().enumerate() {
        one.slot.hang(&bell, place);
    }
    bell
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
    /// The task that waits.
    waker: Option<Waker>,
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
            let waker = state.waker.take();
            drop(state);
            self.condition.notify_all();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether a record is there.
    pub(super) fn has_some(&self) -> bool {
        !lock(&self.state).done.is_empty()
    }

    /// As [`take`](Self::take), for a task, which is woken.
    #[cfg(feature = "future")]
    pub(super) fn poll_take(&self, task: &mut Context<'_>, wanted: usize) -> Poll<VecDeque<Done>> {
        let mut state = lock(&self.state);
        if state.done.len() < wanted {
            (state.wanted, state.waker) = (wanted, Some(task.waker().clone()));
            return Poll::Pending;
        }
        (state.wanted, state.waker) = (0, None);
        Poll::Ready(std::mem::take(&mut state.done))
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
    pub(super) claim: Arc<Claim>,
    pub(super) slot: Arc<Slot>,
    pub(super) shared: Weak<Shared>,
}

impl Pending {
    /// The task: for [`Task::after`](crate::pool::Task::after).
    pub fn id(&self) -> TaskId {
        self.claim.id
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
        self.slot.hang(&bell, 0);
        bell.wait(deadline);
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
        self.shared.upgrade().is_some_and(|shared| shared.core().is_running(self.id()))
    }

    /// Wishes that it be cancelled: one that waits is over at once, one that runs is stopped with its tree, by the stop plan of its
    /// command. False if it is over already. That it has happened is told as its [`Outcome`].
    pub fn cancel(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.cancel(&[self.id()]))
    }

    /// Waits, and takes the record. If the task has a callback that is waited for, too.
    pub fn into_done(self) -> Done {
        // Whoever has put it down has a look at it as long as the callback takes.
        while self.slot.gate.wait(Deadline::NEVER).is_none() {}
        Arc::into_inner(self.slot).and_then(|slot| slot.done.into_inner()).unwrap_or_else(lost)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pending").field("id", &self.id()).field("outcome", &self.done().map(Done::outcome)).finish()
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

impl ReturnWhen {
    /// Whether to wait no longer, when so many are over.
    pub(crate) fn is_enough(self, over: usize, has_failed: bool) -> bool {
        match self {
            ReturnWhen::First => over > 0,
            ReturnWhen::FirstFailure => has_failed,
            ReturnWhen::All => false,
        }
    }
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
    let bell = hang_all(pending);
    let (mut over, mut has_failed) = (0, false);
    loop {
        if when.is_enough(over, has_failed) || over == pending.len() {
            break;
        }
        let Some(place) = bell.wait(deadline) else { break };
        over += 1;
        has_failed |= pending.get(place).and_then(Pending::success) == Some(false);
    }
    (0..pending.len()).partition(|&place| pending.get(place).is_some_and(Pending::is_done))
}

/// Tasks in the order in which they come to their end; see [`as_completed`].
#[derive(Debug)]
pub struct AsCompleted<'a> {
    pending: &'a [Pending],
    bell: Arc<Bell>,
    left: usize,
    deadline: Deadline,
}

/// The tasks one by one, as they come to their end, each with its place. Ends early when the deadline has come.
pub fn as_completed(pending: &[Pending], deadline: impl Into<Deadline>) -> AsCompleted<'_> {
    AsCompleted { pending, bell: hang_all(pending), left: pending.len(), deadline: deadline.into() }
}

impl<'a> Iterator for AsCompleted<'a> {
    type Item = (usize, &'a Done);

    fn next(&mut self) -> Option<(usize, &'a Done)> {
        if self.left == 0 {
            return None;
        }
        let place = self.bell.wait(self.deadline)?;
        self.left -= 1;
        self.pending.get(place)?.done().map(|done| (place, done))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
