//! What processes wait for in a manager: a queue, a lock, a semaphore, a flag. Decides what a client that dies leaves: what it held is free, and the next
//! holder of a lock is told. What is held belongs to a connection, so a guard keeps its connection as long as it lives.

use super::Managed;
use super::client::{Client, Handle, Line};
use super::collections::Item;
use super::object::{Monitor, Waiting};
use super::proxy::{create_by, managed};
use super::server::put_on_shelf;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipc::lock::OwnerDied;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A lock in a manager's process: one holder at a time, on all machines.
///
/// As [`ipc::Lock`](crate::ipc::Lock), which is much faster among processes of one machine that can pass it on.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let lock = manager.lock()?;
/// {
///     let _guard = lock.lock()?;
///     assert!(lock.is_locked()?);
/// }
/// assert!(!lock.is_locked()?);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Lock {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Lock);

pub(super) const TAKE: u64 = 0;
pub(super) const GIVE: u64 = 1;
pub(super) const LOOK: u64 = 2;
pub(super) const CLEAR: u64 = 3;

const FREE: u64 = 0;
const TAKEN: u64 = 1;
pub(super) const TAKEN_FROM_DEAD: u64 = 2;

/// What a [`Lock`] stands for.
#[derive(Debug, Default)]
pub(super) struct LockState {
    holder: Option<u64>,
    has_died: bool,
}

impl Waiting for LockState {
    type Call = u64;
    type Answer = u64;

    fn attempt(&mut self, call: &mut u64, visitor: u64) -> Option<u64> {
        match *call {
            TAKE if self.holder.is_none() => {
                self.holder = Some(visitor);
                Some(if std::mem::take(&mut self.has_died) { TAKEN_FROM_DEAD } else { TAKEN })
            }
            TAKE => None,
            GIVE => {
                if self.holder == Some(visitor) {
                    self.holder = None;
                }
                Some(FREE)
            }
            _ => Some(if self.holder.is_some() { TAKEN } else { FREE }),
        }
    }

    fn left(&mut self, visitor: u64) {
        if self.holder == Some(visitor) {
            (self.holder, self.has_died) = (None, true);
        }
    }
}

pub(super) fn lock(client: &Arc<Client>) -> Result<Lock, Error> {
    let make = |()| put_on_shelf(Monitor::new(LockState::default()));
    Ok(Lock::of_handle(create_by(client, make, &())?))
}

impl Lock {
    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    /// [`AcquireError::OwnerDied`] with the guard, if the last holder has died holding it. [`AcquireError::Failed`] when the manager has ended.
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<LockGuard, AcquireError> {
        self.lock_until(Deadline::NEVER)
    }

    /// As [`lock`](Self::lock), for so long at most.
    ///
    /// # Errors
    /// As there, and [a timeout](Error::is_timeout).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard, AcquireError> {
        self.lock_until(Deadline::after(timeout))
    }

    pub(super) fn lock_until(&self, deadline: Deadline) -> Result<LockGuard, AcquireError> {
        let (answer, held) = Held::take(&self.handle, deadline)?;
        let guard = LockGuard { held };
        if answer == TAKEN_FROM_DEAD { Err(AcquireError::OwnerDied(OwnerDied::of(guard))) } else { Ok(guard) }
    }

    /// Whether somebody has it just now.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "locked")]
    pub fn is_locked(&self) -> Result<bool, Error> {
        Ok(self.handle.call::<_, u64>(&LOOK, Deadline::NEVER)? != FREE)
    }
}

/// What is held of a lock or a semaphore, and the connection that holds it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) handle: Handle,
    line: Option<Box<Line>>,
}

impl Held {
    pub(super) fn take(handle: &Handle, deadline: Deadline) -> Result<(u64, Held), Error> {
        let (answer, line) = handle.call_on::<_, u64>(handle.client().line()?, &TAKE, deadline)?;
        match answer {
            Ok(answer) => Ok((answer, Held { handle: handle.clone(), line: Some(Box::new(line)) })),
            Err(error) => {
                handle.client().put_back(line);
                Err(error)
            }
        }
    }
}

impl Held {
    /// Does something else than giving it back.
    fn end(mut self, verb: u64) {
        if let Some(line) = self.line.take() {
            self.say(*line, verb);
        }
    }

    fn say(&self, line: Line, verb: u64) {
        if let Ok((Ok(_), line)) = self.handle.call_on::<_, u64>(line, &verb, Deadline::NEVER) {
            self.handle.client().put_back(line);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        // If the manager has gone, nothing is held any more.
        self.say(*line, GIVE);
    }
}

/// Holds a [`Lock`] as long as it lives.
#[derive(Debug)]
#[must_use = "the lock is given back at once otherwise"]
pub struct LockGuard {
    pub(super) held: Held,
}

/// Why a [`Lock`] or an [`RLock`](super::RLock) was not simply taken.
pub enum AcquireError<G = LockGuard> {
    /// It was taken, but the last holder has died holding it: what it protects may be half done. Told once.
    OwnerDied(OwnerDied<G>),
    /// It was not taken: the time has passed, or the manager has ended.
    Failed(Error),
}

impl<G> AcquireError<G> {
    /// Whether the time has passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, AcquireError::Failed(error) if error.is_timeout())
    }
}

impl<G> fmt::Debug for AcquireError<G> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::OwnerDied(_) => out.write_str("OwnerDied(..)"),
            AcquireError::Failed(error) => out.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<G> fmt::Display for AcquireError<G> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::OwnerDied(died) => fmt::Display::fmt(died, out),
            AcquireError::Failed(error) => fmt::Display::fmt(error, out),
        }
    }
}

impl<G> std::error::Error for AcquireError<G> {}

impl<G> From<Error> for AcquireError<G> {
    fn from(error: Error) -> AcquireError<G> {
        AcquireError::Failed(error)
    }
}

/// Gives back what was taken.
impl<G> From<AcquireError<G>> for Error {
    fn from(error: AcquireError<G>) -> Error {
        match error {
            AcquireError::OwnerDied(died) => died.into(),
            AcquireError::Failed(error) => error,
        }
    }
}

/// So many at a time, on all machines. The permits of a process that dies are free.
///
/// ```
/// use procession::ipc::Manager;
/// use std::time::Duration;
///
/// let manager = Manager::start()?;
/// let licences = manager.semaphore(1)?;
/// let permit = licences.acquire()?;
/// assert!(licences.acquire_timeout(Duration::from_millis(5)).unwrap_err().is_timeout());
/// drop(permit);
/// assert_eq!(licences.available()?, 1);
/// # Ok::<(), procession::Error>(())
/// ```
///
/// From [`Manager::bounded_semaphore`](super::Manager::bounded_semaphore) if there must never be more permits than at first.
#[doc(alias = "BoundedSemaphore")]
pub struct Semaphore {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Semaphore);

/// More than anybody needs, and far from where counting would overflow.
pub(super) const PERMITS_MAX: u64 = i64::MAX as u64;
const TOO_MANY: u64 = u64::MAX;

/// What a [`Semaphore`] stands for.
#[derive(Debug)]
struct Permits {
    free: u64,
    /// Those that exist, whoever has them, and how many may.
    total: u64,
    bound: u64,
    held: HashMap<u64, u64>,
}

impl Permits {
    fn new(permits: u64, bound: u64) -> Permits {
        Permits { free: permits, total: permits, bound, held: HashMap::new() }
    }

    /// One less for this visitor, if it has one.
    fn drop_one(&mut self, visitor: u64) -> bool {
        let held = self.held.get_mut(&visitor).filter(|held| **held > 0);
        held.map(|held| *held -= 1).is_some()
    }
}

impl Waiting for Permits {
    /// `TAKE`, `GIVE`, `LOOK`, `CLEAR`: the permit is kept for good; any larger number: so many more permits and `CLEAR`.
    type Call = u64;
    /// How many are free, or `TOO_MANY`.
    type Answer = u64;

    fn attempt(&mut self, call: &mut u64, visitor: u64) -> Option<u64> {
        match *call {
            TAKE => {
                self.free = self.free.checked_sub(1)?;
                *self.held.entry(visitor).or_default() += 1;
            }
            GIVE => self.free += u64::from(self.drop_one(visitor)),
            LOOK => {}
            CLEAR => self.total -= u64::from(self.drop_one(visitor)),
            many => {
                let more = many - CLEAR;
                let total = self.total.checked_add(more).filter(|total| *total <= self.bound);
                let Some(total) = total else { return Some(TOO_MANY) };
                (self.total, self.free) = (total, self.free + more);
            }
        }
        Some(self.free)
    }

    fn left(&mut self, visitor: u64) {
        self.free += self.held.remove(&visitor).unwrap_or_default();
    }
}

pub(super) fn semaphore(client: &Arc<Client>, permits: u64, bound: u64) -> Result<Semaphore, Error> {
    if permits > PERMITS_MAX {
        return Err(Error::invalid(format!("{permits} permits: a semaphore has at most {PERMITS_MAX}")));
    }
    let make = |(permits, bound)| put_on_shelf(Monitor::new(Permits::new(permits, bound)));
    Ok(Semaphore::of_handle(create_by(client, make, &(permits, bound))?))
}

impl Semaphore {
    /// Waits for a permit.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn acquire(&self) -> Result<Permit, Error> {
        Ok(Permit { held: Held::take(&self.handle, Deadline::NEVER)?.1 })
    }

    /// As [`acquire`](Self::acquire), for so long at most.
    ///
    /// # Errors
    /// [A timeout](Error::is_timeout) also.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit, Error> {
        Ok(Permit { held: Held::take(&self.handle, Deadline::after(timeout))?.1 })
    }

    /// How many permits are free just now.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn available(&self) -> Result<u64, Error> {
        self.handle.call(&LOOK, Deadline::NEVER)
    }

    /// Makes so many permits, whoever may have had them: one process releases, another one acquires and [forgets](Permit::forget).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there would be more than there may be; nothing was released then. As
    /// [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "post")]
    pub fn release(&self, permits: u64) -> Result<(), Error> {
        if permits == 0 {
            return Ok(());
        }
        let call = permits.checked_add(CLEAR).filter(|_| permits <= PERMITS_MAX);
        let too_many = || Error::invalid(format!("{permits} more permits are more than there may be"));
        match self.handle.call::<_, u64>(&call.ok_or_else(too_many)?, Deadline::NEVER)? {
            TOO_MANY => Err(too_many()),
            _ => Ok(()),
        }
    }
}

/// One permit of a [`Semaphore`], as long as it lives.
#[derive(Debug)]
#[must_use = "the permit is given back at once otherwise"]
pub struct Permit {
    held: Held,
}

impl Permit {
    /// Keeps it for good: it does not come back, not even when this process dies.
    pub fn forget(self) {
        self.held.end(CLEAR);
    }
}

/// A flag in a manager's process: once it is set, everybody who waits for it goes on.
///
/// ```
/// use procession::ipc::Manager;
/// use std::time::Duration;
///
/// let manager = Manager::start()?;
/// let stop = manager.event()?;
/// assert!(!stop.wait_timeout(Duration::from_millis(5))?);
/// stop.set()?;
/// stop.wait()?;
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Event {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Event);

/// What an [`Event`] stands for.
#[derive(Debug, Default)]
struct Flag(bool);

impl Waiting for Flag {
    type Call = u64;
    type Answer = bool;

    fn attempt(&mut self, call: &mut u64, _: u64) -> Option<bool> {
        match *call {
            TAKE => return self.0.then_some(true),
            GIVE => self.0 = true,
            CLEAR => self.0 = false,
            _ => {}
        }
        Some(self.0)
    }
}

pub(super) fn event(client: &Arc<Client>) -> Result<Event, Error> {
    let make = |()| put_on_shelf(Monitor::new(Flag::default()));
    Ok(Event::of_handle(create_by(client, make, &())?))
}

impl Event {
    fn ask(&self, verb: u64, deadline: Deadline) -> Result<bool, Error> {
        self.handle.call(&verb, deadline)
    }

    /// Sets the flag: all who wait go on.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn set(&self) -> Result<(), Error> {
        self.ask(GIVE, Deadline::NEVER).map(drop)
    }

    /// Clears the flag.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn clear(&self) -> Result<(), Error> {
        self.ask(CLEAR, Deadline::NEVER).map(drop)
    }

    /// Whether it is set.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn is_set(&self) -> Result<bool, Error> {
        self.ask(LOOK, Deadline::NEVER)
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn wait(&self) -> Result<(), Error> {
        self.ask(TAKE, Deadline::NEVER).map(drop)
    }

    /// Waits until it is set, for so long at most. Whether it was.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        match self.ask(TAKE, Deadline::after(timeout)) {
            Err(error) if error.is_timeout() => Ok(false),
            result => result,
        }
    }
}

/// A queue in a manager's process, also for other machines. Its items may be proxies.
///
/// Among processes of one machine [`ipc::Queue`](crate::ipc::Queue) is much faster.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let jobs = manager.queue::<String>(100)?;
/// jobs.put(&"one".to_owned())?;
/// assert_eq!(jobs.len()?, 1);
/// assert_eq!(jobs.get()?, "one");
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "JoinableQueue")]
pub struct Queue<T> {
    handle: Handle,
    types: PhantomData<fn() -> T>,
}

managed!(Queue<T>);

const DONE: u64 = 4;
const JOIN: u64 = 5;
const UNFINISHED: u64 = 6;

/// What a [`Queue`] stands for.
#[derive(Debug)]
struct Items<T> {
    items: VecDeque<T>,
    items_max: u64,
    unfinished: u64,
}

impl<T: Item> Waiting for Items<T> {
    type Call = (u64, Option<T>);
    type Answer = (u64, Option<T>);

    fn attempt(&mut self, (verb, item): &mut Self::Call, _: u64) -> Option<Self::Answer> {
        let length = self.items.len() as u64;
        match *verb {
            TAKE => self.items.pop_front().map(|item| (length, Some(item))),
            GIVE if length >= self.items_max => None,
            GIVE => {
                self.items.extend(item.take());
                self.unfinished += 1;
                Some((length + 1, None))
            }
            DONE => {
                let before = self.unfinished;
                self.unfinished = before.saturating_sub(1);
                Some((before, None))
            }
            JOIN if self.unfinished > 0 => None,
            UNFINISHED => Some((self.unfinished, None)),
            _ => Some((length, None)),
        }
    }
}

pub(super) fn queue<T: Item>(client: &Arc<Client>, items_max: u64) -> Result<Queue<T>, Error> {
    if items_max == 0 {
        return Err(Error::invalid("a queue for no items at a time would never take one"));
    }
    let make = |items_max| put_on_shelf(Monitor::new(Items::<T> { items: VecDeque::new(), items_max, unfinished: 0 }));
    Ok(Queue::of_handle(create_by(client, make, &items_max)?))
}

impl<T: Item> Queue<T> {
    fn ask(&self, verb: u64, item: Option<&T>, deadline: Deadline) -> Result<(u64, Option<T>), Error> {
        self.handle.call(&(verb, item), deadline)
    }

    /// Puts an item at the end. Waits while the queue is full.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn put(&self, item: &T) -> Result<(), Error> {
        self.ask(GIVE, Some(item), Deadline::NEVER).map(drop)
    }

    /// As [`put`](Self::put), for so long at most.
    ///
    /// # Errors
    /// [A timeout](Error::is_timeout) also.
    pub fn put_timeout(&self, item: &T, timeout: Duration) -> Result<(), Error> {
        self.ask(GIVE, Some(item), Deadline::after(timeout)).map(drop)
    }

    /// Takes the first item. Waits until there is one.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn get(&self) -> Result<T, Error> {
        self.got(Deadline::NEVER)
    }

    /// As [`get`](Self::get), for so long at most.
    ///
    /// # Errors
    /// [A timeout](Error::is_timeout) also.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, Error> {
        self.got(Deadline::after(timeout))
    }

    fn got(&self, deadline: Deadline) -> Result<T, Error> {
        let (_, item) = self.ask(TAKE, None, deadline)?;
        item.ok_or_else(|| {
            Error::new(crate::error::ErrorKind::Decode).detail("the manager has answered without an item")
        })
    }

    /// How many items there are.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "qsize")]
    pub fn len(&self) -> Result<u64, Error> {
        Ok(self.ask(LOOK, None, Deadline::NEVER)?.0)
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// Says that an item that was taken has been dealt with. Who counts on it uses [`join`](Self::join).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if this was said of every item that was ever put. As [`Proxy::call`](super::Proxy::call).
    pub fn task_done(&self) -> Result<(), Error> {
        match self.ask(DONE, None, Deadline::NEVER)?.0 {
            0 => Err(Error::invalid("task_done was called more often than there were items")),
            _ => Ok(()),
        }
    }

    /// Waits until [`task_done`](Self::task_done) was said of every item that was put. A client that dies between the two says nothing: then this
    /// waits until somebody else does.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    ///
    /// ```
    /// let manager = procession::ipc::Manager::start()?;
    /// let jobs = manager.queue::<u8>(10)?;
    /// jobs.put(&1)?;
    /// let worker = jobs.clone();
    /// let thread = std::thread::spawn(move || worker.get().and_then(|_| worker.task_done()));
    /// jobs.join()?;
    /// assert_eq!(jobs.unfinished_tasks()?, 0);
    /// # thread.join().unwrap()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn join(&self) -> Result<(), Error> {
        self.ask(JOIN, None, Deadline::NEVER).map(drop)
    }

    /// As [`join`](Self::join), for so long at most.
    ///
    /// # Errors
    /// [A timeout](Error::is_timeout) also.
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.ask(JOIN, None, Deadline::after(timeout)).map(drop)
    }

    /// Of how many items that were put [`task_done`](Self::task_done) was not said.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn unfinished_tasks(&self) -> Result<u64, Error> {
        Ok(self.ask(UNFINISHED, None, Deadline::NEVER)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_tells_of_a_death_once() {
        let mut lock = LockState::default();
        assert_eq!(lock.attempt(&mut { TAKE }, 1), Some(TAKEN));
        assert_eq!((lock.attempt(&mut { TAKE }, 2), lock.attempt(&mut { LOOK }, 2)), (None, Some(TAKEN)));
        // Who does not have it gives nothing back, and leaves nothing.
        assert_eq!(lock.attempt(&mut { GIVE }, 2), Some(FREE));
        lock.left(2);
        assert_eq!(lock.attempt(&mut { TAKE }, 2), None);
        lock.left(1);
        assert_eq!(lock.attempt(&mut { TAKE }, 2), Some(TAKEN_FROM_DEAD));
        assert_eq!(lock.attempt(&mut { GIVE }, 2), Some(FREE));
        assert_eq!(lock.attempt(&mut { TAKE }, 3), Some(TAKEN));
    }

    #[test]
    fn permits_come_back() {
        let mut permits = Permits::new(2, 3);
        assert_eq!((permits.attempt(&mut { TAKE }, 1), permits.attempt(&mut { TAKE }, 1)), (Some(1), Some(0)));
        assert_eq!(permits.attempt(&mut { TAKE }, 2), None);
        assert_eq!(permits.attempt(&mut { GIVE }, 2), Some(0));
        assert_eq!(permits.attempt(&mut { GIVE }, 1), Some(1));
        permits.left(1);
        permits.left(1);
        assert_eq!(permits.attempt(&mut { LOOK }, 2), Some(2));
        // One more than there were, and one less again, which does not come back.
        let more = |permits: &mut Permits, count: u64| permits.attempt(&mut { count + CLEAR }, 2);
        assert_eq!(
            (more(&mut permits, 2), more(&mut permits, 1), more(&mut permits, 1)),
            (Some(TOO_MANY), Some(3), Some(TOO_MANY))
        );
        assert_eq!(permits.attempt(&mut { TAKE }, 1), Some(2));
        assert_eq!(permits.attempt(&mut { CLEAR }, 1), Some(2));
        permits.left(1);
        assert_eq!((permits.free, permits.total), (2, 2));
        assert_eq!(more(&mut permits, 1), Some(3));
    }

    #[test]
    fn a_queue_keeps_order_and_bound() {
        let mut queue = Items { items: VecDeque::new(), items_max: 2, unfinished: 0 };
        assert_eq!(queue.attempt(&mut (TAKE, None), 1), None);
        let mut put = |item| queue.attempt(&mut (GIVE, Some(item)), 1);
        assert_eq!((put(1), put(2), put(3)), (Some((1, None)), Some((2, None)), None));
        let mut waits = (GIVE, Some(3));
        assert_eq!((queue.attempt(&mut waits, 1), waits), (None, (GIVE, Some(3))));
        assert_eq!(queue.attempt(&mut (TAKE, None), 1), Some((2, Some(1))));
        assert_eq!(queue.attempt(&mut waits, 1), Some((2, None)));
        assert_eq!(queue.attempt(&mut (LOOK, None), 1), Some((2, None)));
        // Three were put.
        assert_eq!(
            (queue.attempt(&mut (JOIN, None), 1), queue.attempt(&mut (UNFINISHED, None), 1)),
            (None, Some((3, None)))
        );
        (1..=3).rev().for_each(|left| assert_eq!(queue.attempt(&mut (DONE, None), 1), Some((left, None))));
        assert_eq!(queue.attempt(&mut (DONE, None), 1), Some((0, None)));
        assert!(queue.attempt(&mut (JOIN, None), 1).is_some());
    }

    #[test]
    fn a_flag_stays_until_it_is_cleared() {
        let mut flag = Flag::default();
        let mut ask = |verb| flag.attempt(&mut { verb }, 1);
        assert_eq!((ask(TAKE), ask(LOOK), ask(GIVE)), (None, Some(false), Some(true)));
        assert_eq!((ask(TAKE), ask(TAKE), ask(CLEAR), ask(TAKE)), (Some(true), Some(true), Some(false), None));
    }
}
