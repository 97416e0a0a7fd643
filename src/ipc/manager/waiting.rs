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

const TAKE: u8 = 0;
const GIVE: u8 = 1;
const LOOK: u8 = 2;
const CLEAR: u8 = 3;

const FREE: u64 = 0;
const TAKEN: u64 = 1;
const TAKEN_FROM_DEAD: u64 = 2;

/// What a [`Lock`] stands for.
#[derive(Debug, Default)]
struct LockState {
    holder: Option<u64>,
    has_died: bool,
}

impl Waiting for LockState {
    type Call = u8;
    type Answer = u64;

    fn attempt(&mut self, call: &mut u8, visitor: u64) -> Option<u64> {
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

    fn lock_until(&self, deadline: Deadline) -> Result<LockGuard, AcquireError> {
        let (answer, held) = Held::take(&self.handle, deadline)?;
        let guard = LockGuard { _held: held };
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
struct Held {
    handle: Handle,
    line: Option<Box<Line>>,
}

impl Held {
    fn take(handle: &Handle, deadline: Deadline) -> Result<(u64, Held), Error> {
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

impl Drop for Held {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        // If the manager has gone, nothing is held any more.
        if let Ok((Ok(_), line)) = self.handle.call_on::<_, u64>(*line, &GIVE, Deadline::NEVER) {
            self.handle.client().put_back(line);
        }
    }
}

/// Holds a [`Lock`] as long as it lives.
#[derive(Debug)]
#[must_use = "the lock is given back at once otherwise"]
pub struct LockGuard {
    _held: Held,
}

/// Why a [`Lock`] was not simply taken.
pub enum AcquireError {
    /// It was taken, but the last holder has died holding it: what it protects may be half done. Told once.
    OwnerDied(OwnerDied<LockGuard>),
    /// It was not taken: the time has passed, or the manager has ended.
    Failed(Error),
}

impl AcquireError {
    /// Whether the time has passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, AcquireError::Failed(error) if error.is_timeout())
    }
}

impl fmt::Debug for AcquireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::OwnerDied(_) => out.write_str("OwnerDied(..)"),
            AcquireError::Failed(error) => out.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::OwnerDied(died) => fmt::Display::fmt(died, out),
            AcquireError::Failed(error) => fmt::Display::fmt(error, out),
        }
    }
}

impl std::error::Error for AcquireError {}

impl From<Error> for AcquireError {
    fn from(error: Error) -> AcquireError {
        AcquireError::Failed(error)
    }
}

/// Gives back what was taken.
impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Error {
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
#[doc(alias = "BoundedSemaphore")]
pub struct Semaphore {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Semaphore);

/// What a [`Semaphore`] stands for.
#[derive(Debug)]
struct Permits {
    free: u64,
    held: HashMap<u64, u64>,
}

impl Waiting for Permits {
    type Call = u8;
    type Answer = u64;

    fn attempt(&mut self, call: &mut u8, visitor: u64) -> Option<u64> {
        match *call {
            TAKE => {
                self.free = self.free.checked_sub(1)?;
                *self.held.entry(visitor).or_default() += 1;
            }
            GIVE => {
                if let Some(held) = self.held.get_mut(&visitor).filter(|held| **held > 0) {
                    *held -= 1;
                    self.free += 1;
                }
            }
            _ => {}
        }
        Some(self.free)
    }

    fn left(&mut self, visitor: u64) {
        self.free += self.held.remove(&visitor).unwrap_or_default();
    }
}

pub(super) fn semaphore(client: &Arc<Client>, permits: u64) -> Result<Semaphore, Error> {
    let make = |free| put_on_shelf(Monitor::new(Permits { free, held: HashMap::new() }));
    Ok(Semaphore::of_handle(create_by(client, make, &permits)?))
}

impl Semaphore {
    /// Waits for a permit.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn acquire(&self) -> Result<Permit, Error> {
        Ok(Permit { _held: Held::take(&self.handle, Deadline::NEVER)?.1 })
    }

    /// As [`acquire`](Self::acquire), for so long at most.
    ///
    /// # Errors
    /// [A timeout](Error::is_timeout) also.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit, Error> {
        Ok(Permit { _held: Held::take(&self.handle, Deadline::after(timeout))?.1 })
    }

    /// How many permits are free just now.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn available(&self) -> Result<u64, Error> {
        self.handle.call(&LOOK, Deadline::NEVER)
    }
}

/// One permit of a [`Semaphore`], as long as it lives.
#[derive(Debug)]
#[must_use = "the permit is given back at once otherwise"]
pub struct Permit {
    _held: Held,
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
    type Call = u8;
    type Answer = bool;

    fn attempt(&mut self, call: &mut u8, _: u64) -> Option<bool> {
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
    fn ask(&self, verb: u8, deadline: Deadline) -> Result<bool, Error> {
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

/// What a [`Queue`] stands for.
#[derive(Debug)]
struct Items<T> {
    items: VecDeque<T>,
    items_max: u64,
}

impl<T: Item> Waiting for Items<T> {
    type Call = (u8, Option<T>);
    type Answer = (u64, Option<T>);

    fn attempt(&mut self, (verb, item): &mut Self::Call, _: u64) -> Option<Self::Answer> {
        let length = self.items.len() as u64;
        match *verb {
            TAKE => self.items.pop_front().map(|item| (length, Some(item))),
            GIVE if length >= self.items_max => None,
            GIVE => {
                self.items.extend(item.take());
                Some((length + 1, None))
            }
            _ => Some((length, None)),
        }
    }
}

pub(super) fn queue<T: Item>(client: &Arc<Client>, items_max: u64) -> Result<Queue<T>, Error> {
    if items_max == 0 {
        return Err(Error::invalid("a queue for no items at a time would never take one"));
    }
    let make = |items_max| put_on_shelf(Monitor::new(Items::<T> { items: VecDeque::new(), items_max }));
    Ok(Queue::of_handle(create_by(client, make, &items_max)?))
}

impl<T: Item> Queue<T> {
    fn ask(&self, verb: u8, item: Option<&T>, deadline: Deadline) -> Result<(u64, Option<T>), Error> {
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
        let mut permits = Permits { free: 2, held: HashMap::new() };
        assert_eq!((permits.attempt(&mut { TAKE }, 1), permits.attempt(&mut { TAKE }, 1)), (Some(1), Some(0)));
        assert_eq!(permits.attempt(&mut { TAKE }, 2), None);
        assert_eq!(permits.attempt(&mut { GIVE }, 2), Some(0));
        assert_eq!(permits.attempt(&mut { GIVE }, 1), Some(1));
        permits.left(1);
        permits.left(1);
        assert_eq!(permits.attempt(&mut { LOOK }, 2), Some(2));
    }

    #[test]
    fn a_queue_keeps_order_and_bound() {
        let mut queue = Items { items: VecDeque::new(), items_max: 2 };
        assert_eq!(queue.attempt(&mut (TAKE, None), 1), None);
        let mut put = |item| queue.attempt(&mut (GIVE, Some(item)), 1);
        assert_eq!((put(1), put(2), put(3)), (Some((1, None)), Some((2, None)), None));
        let mut waits = (GIVE, Some(3));
        assert_eq!((queue.attempt(&mut waits, 1), waits), (None, (GIVE, Some(3))));
        assert_eq!(queue.attempt(&mut (TAKE, None), 1), Some((2, Some(1))));
        assert_eq!(queue.attempt(&mut waits, 1), Some((2, None)));
        assert_eq!(queue.attempt(&mut (LOOK, None), 1), Some((2, None)));
    }

    #[test]
    fn a_flag_stays_until_it_is_cleared() {
        let mut flag = Flag::default();
        let mut ask = |verb| flag.attempt(&mut { verb }, 1);
        assert_eq!((ask(TAKE), ask(LOOK), ask(GIVE)), (None, Some(false), Some(true)));
        assert_eq!((ask(TAKE), ask(TAKE), ask(CLEAR), ask(TAKE)), (Some(true), Some(true), Some(false), None));
    }
}
