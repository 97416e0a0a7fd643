//! A lock in a manager's process that its holder can take again. Decides who the holder is: a thread. Over there it is a plain lock; that a thread has
//! it already is known here.

use super::Managed;
use super::client::{Client, Handle};
use super::proxy::managed;
use super::waiting::{self, AcquireError, Lock, LockGuard};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipc::lock::OwnerDied;
use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// A lock in a manager's process that the thread that has it can take again: it is free when all guards are dropped.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let lock = manager.rlock()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// drop(outer);
/// assert!(lock.is_locked()?);
/// drop(inner);
/// assert!(!lock.is_locked()?);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "ReentrantLock")]
pub struct RLock {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(RLock);

pub(super) fn rlock(client: &Arc<Client>) -> Result<RLock, Error> {
    Ok(RLock::of_handle(waiting::lock(client)?.handle().clone()))
}

/// By manager and object.
type Held = HashMap<([u8; 16], u64), Weak<LockGuard>>;

thread_local! {
    /// What this thread has.
    static OURS: RefCell<Held> = RefCell::new(Held::new());
}

impl RLock {
    /// Waits until the lock is free, or this thread's already, and takes it.
    ///
    /// # Errors
    /// As [`Lock::lock`]: [`AcquireError::OwnerDied`] with the guard, if the last holder has died holding it.
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<RLockGuard, AcquireError<RLockGuard>> {
        self.lock_until(Deadline::NEVER)
    }

    /// As [`lock`](Self::lock), for so long at most.
    ///
    /// # Errors
    /// As there, and [a timeout](Error::is_timeout).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard, AcquireError<RLockGuard>> {
        self.lock_until(Deadline::after(timeout))
    }

    fn lock_until(&self, deadline: Deadline) -> Result<RLockGuard, AcquireError<RLockGuard>> {
        let key = self.handle.key();
        if let Some(held) = OURS.with_borrow(|ours| ours.get(&key).and_then(Weak::upgrade)) {
            return Ok(RLockGuard { _held: held });
        }
        let (guard, has_died) = match self.plain().lock_until(deadline) {
            Ok(guard) => (guard, false),
            Err(AcquireError::OwnerDied(died)) => (died.into_inner(), true),
            Err(AcquireError::Failed(error)) => return Err(AcquireError::Failed(error)),
        };
        let held = Rc::new(guard);
        OURS.with_borrow_mut(|ours| {
            ours.retain(|_, held| held.strong_count() > 0);
            ours.insert(key, Rc::downgrade(&held));
        });
        let guard = RLockGuard { _held: held };
        if has_died { Err(AcquireError::OwnerDied(OwnerDied::of(guard))) } else { Ok(guard) }
    }

    /// Whether somebody has it just now, this thread included.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "locked")]
    pub fn is_locked(&self) -> Result<bool, Error> {
        self.plain().is_locked()
    }

    fn plain(&self) -> Lock {
        Lock::of_handle(self.handle.clone())
    }
}

/// Holds an [`RLock`] as long as it lives, for the thread that has taken it.
#[derive(Debug)]
#[must_use = "the lock is given back at once otherwise"]
pub struct RLockGuard {
    _held: Rc<LockGuard>,
}
