//! Waiting, in a manager, until something that a lock protects has changed. Decides who is woken: who came first; and that no wake goes to the dead.

use super::Managed;
use super::client::{Client, Handle};
use super::object::{Monitor, Waiting};
use super::proxy::{create_by, managed};
use super::server::put_on_shelf;
use super::waiting::{AcquireError, GIVE, LOOK, Lock, LockGuard, TAKE};
use crate::deadline::Deadline;
use crate::error::Error;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Waits, on all machines, until something that a [`Lock`] protects has changed.
///
/// ```
/// use procession::ipc::Manager;
/// use std::time::Duration;
///
/// let manager = Manager::start()?;
/// let (lock, changed, items) = (manager.lock()?, manager.condition()?, manager.cell(0_u32)?);
/// let producer = (lock.clone(), changed.clone(), items.clone());
/// let thread = std::thread::spawn(move || {
///     let (lock, changed, items) = producer;
///     let _guard = lock.lock()?;
///     items.set(&1)?;
///     changed.notify_one()
/// });
/// let mut guard = lock.lock()?;
/// while items.get()? == 0 {
///     guard = changed.wait(guard)?;
/// }
/// # drop(guard);
/// # thread.join().unwrap()?;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "Condvar")]
pub struct Condition {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Condition);

/// What a [`Condition`] stands for: who waits, in the order of coming, and whether it was woken.
#[derive(Debug, Default)]
struct Sleepers(VecDeque<(u64, bool)>);

impl Sleepers {
    fn wake(&mut self, count: u64) {
        let sleeping = self.0.iter_mut().filter(|(_, woken)| !woken);
        sleeping.take(usize::try_from(count).unwrap_or(usize::MAX)).for_each(|(_, woken)| *woken = true);
    }

    /// Takes this one out; its wake, if it had one, is for the next one.
    fn remove(&mut self, visitor: u64) {
        let had_wake = self.0.iter().any(|(who, woken)| *who == visitor && *woken);
        self.0.retain(|(who, _)| *who != visitor);
        self.wake(u64::from(had_wake));
    }
}

impl Waiting for Sleepers {
    /// `LOOK`: this one waits from now on; `TAKE`: until it is woken; `GIVE`: so many are woken.
    type Call = (u64, u64);
    /// Whether it was woken.
    type Answer = bool;

    fn attempt(&mut self, (verb, count): &mut (u64, u64), visitor: u64) -> Option<bool> {
        match *verb {
            LOOK => {
                self.remove(visitor);
                self.0.push_back((visitor, false));
            }
            TAKE => {
                let place = self.0.iter().position(|(who, _)| *who == visitor);
                let woken = place.and_then(|place| self.0.get(place)).is_none_or(|(_, woken)| *woken);
                if !woken {
                    return None;
                }
                place.map(|place| self.0.remove(place));
            }
            _ => self.wake(*count),
        }
        Some(true)
    }

    fn give_up(&mut self, _: &mut (u64, u64), visitor: u64, _: bool) {
        self.remove(visitor);
    }

    fn left(&mut self, visitor: u64) {
        self.remove(visitor);
    }
}

pub(super) fn condition(client: &Arc<Client>) -> Result<Condition, Error> {
    let make = |()| put_on_shelf(Monitor::new(Sleepers::default()));
    Ok(Condition::of_handle(create_by(client, make, &())?))
}

impl Condition {
    /// Gives the lock back, waits until somebody [notifies](Self::notify_one), and takes the lock again.
    ///
    /// # Errors
    /// As [`Lock::lock`]: [`AcquireError::OwnerDied`] with the guard, if a holder has died meanwhile. [`AcquireError::Failed`] when the manager has
    /// ended.
    pub fn wait(&self, guard: LockGuard) -> Result<LockGuard, AcquireError> {
        self.wait_until(guard, Deadline::NEVER).0
    }

    /// As [`wait`](Self::wait), for so long at most. The second value is false if the time has passed without a wake; the lock is ours again, or
    /// is not, as the first one says.
    pub fn wait_timeout(&self, guard: LockGuard, timeout: Duration) -> (Result<LockGuard, AcquireError>, bool) {
        self.wait_until(guard, Deadline::after(timeout))
    }

    fn wait_until(&self, guard: LockGuard, deadline: Deadline) -> (Result<LockGuard, AcquireError>, bool) {
        let lock = Lock::of_handle(guard.held.handle.clone());
        // Before the lock is free for those who notify.
        let line = match self.say_on(None, LOOK, Deadline::NEVER) {
            Ok(line) => line,
            Err(error) => return (Err(error.into()), false),
        };
        drop(guard);
        let woken = match self.say_on(Some(line), TAKE, deadline) {
            Ok(line) => {
                self.handle.client().put_back(line);
                true
            }
            Err(error) if error.is_timeout() => false,
            Err(error) => return (Err(error.into()), false),
        };
        (lock.lock_until(Deadline::NEVER), woken)
    }

    /// Says something on a connection, by which who waits is known.
    fn say_on(
        &self,
        line: Option<super::client::Line>,
        verb: u64,
        deadline: Deadline,
    ) -> Result<super::client::Line, Error> {
        let line = line.map_or_else(|| self.handle.client().line(), Ok)?;
        let (answer, line) = self.handle.call_on::<_, bool>(line, &(verb, 0_u64), deadline)?;
        match answer {
            Ok(_) => Ok(line),
            Err(error) => {
                self.handle.client().put_back(line);
                Err(error)
            }
        }
    }

    /// Wakes the one who has waited longest, if anybody waits. Who was dead by then is passed over; who is killed between the wake and
    /// the lock takes the wake along, as if it had died a moment later.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "signal")]
    pub fn notify_one(&self) -> Result<(), Error> {
        self.notify(1)
    }

    /// Wakes so many of those who wait.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn notify(&self, count: u64) -> Result<(), Error> {
        self.handle.call::<_, bool>(&(GIVE, count), Deadline::NEVER).map(drop)
    }

    /// Wakes all who wait.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "broadcast")]
    pub fn notify_all(&self) -> Result<(), Error> {
        self.notify(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_goes_to_who_came_first_and_not_to_the_dead() {
        let mut sleepers = Sleepers::default();
        let mut ask = |verb, count, visitor| sleepers.attempt(&mut (verb, count), visitor);
        (1..=4).for_each(|visitor| assert_eq!(ask(LOOK, 0, visitor), Some(true)));
        assert_eq!(ask(TAKE, 0, 1), None);
        ask(GIVE, 1, 9);
        assert_eq!((ask(TAKE, 0, 2), ask(TAKE, 0, 1)), (None, Some(true)));
        ask(GIVE, 1, 9);
        // It dies with its wake.
        sleepers.left(2);
        assert_eq!(sleepers.attempt(&mut (TAKE, 0), 4), None);
        assert_eq!(sleepers.attempt(&mut (TAKE, 0), 3), Some(true));
        // Whose time is over takes no wake.
        sleepers.give_up(&mut (TAKE, 0), 4, false);
        sleepers.wake(u64::MAX);
        assert!(sleepers.0.is_empty());
    }
}
