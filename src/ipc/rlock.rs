//! A lock that its holder can take again. Decides who the holder is, a thread of a process, and counts; the word is that of
//! [`raw_lock`](super::raw_lock).

use super::lock::{OwnerDied, TryLockError};
use super::object::one_descriptor;
use super::raw_lock::{self, Taken};
use super::region::{Kind, Party, Region};
use super::word::{Long, View, Word};
use crate::deadline::Deadline;
use crate::error::Error;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A [`Lock`](super::Lock) that the thread that holds it can take again: given back when as many guards have gone, in any order.
///
/// For functions that call each other and all need the lock. The holder is a thread of a process; its death is told as with `Lock`.
/// A process that was given the same lock twice has two locks in this respect, and can wait for itself.
///
/// ```
/// use procession::ipc::RLock;
///
/// let lock = RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// drop(outer);
/// assert!(lock.is_locked());
/// drop(inner);
/// assert!(!lock.is_locked());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "ReentrantLock")]
#[doc(alias = "mp.RLock")]
pub struct RLock {
    region: Region,
}

/// | word | means |
/// |---|---|
/// | `LOCK` | as in `raw_lock`: the process |
/// | `THREAD` | the thread of that process; 0 if nobody holds it, or is just about to take it or to give it back |
/// | `COUNT` | how many guards there are; written and read by the holder alone |
///
/// The thread is written after the lock was taken, and erased before it is given back: so a thread that reads its own number beside its own
/// process is the holder. The owner died: whoever buries it erases the thread first, because a thread of another process may have its number.
const LOCK: usize = 0;
const THREAD: usize = 8;
const COUNT: usize = 16;

static KIND: Kind = Kind {
    name: "RLock",
    number: u32::from_le_bytes(*b"rlck"),
    length_min: COUNT + size_of::<Long>(),
    bury,
    leave: |_, _| (),
};

fn bury(body: View<'_>, dead: Party) {
    if raw_lock::holder(body.word(LOCK)) == Some(dead) {
        body.long(THREAD).store(0);
        raw_lock::bury(body.word(LOCK), dead);
    }
}

one_descriptor!(RLock, KIND);

/// The number of this thread in its process.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

impl RLock {
    /// A new lock, free.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new() -> Result<RLock, Error> {
        Ok(RLock { region: Region::create(&KIND, 0)? })
    }

    /// Waits until the lock is free, or ours already, and takes it.
    ///
    /// # Errors
    /// The guard, in an [`OwnerDied`], if the last holder has died holding it.
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<RLockGuard<'_>, OwnerDied<RLockGuard<'_>>> {
        loop {
            match self.take(Deadline::NEVER) {
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::OwnerDied(died)) => return Err(died),
                Ok(guard) => return Ok(guard),
            }
        }
    }

    /// Takes the lock if it is free, or ours already.
    ///
    /// # Errors
    /// As [`Lock::try_lock`](super::Lock::try_lock).
    pub fn try_lock(&self) -> Result<RLockGuard<'_>, TryLockError<RLockGuard<'_>>> {
        if let Some(guard) = self.again() {
            return Ok(guard);
        }
        let taken = raw_lock::try_take(self.word(), self.region.me()).or_else(|| {
            let holder = raw_lock::holder(self.word())?;
            if !self.region.bury_if_dead(holder) {
                return None;
            }
            raw_lock::try_take(self.word(), self.region.me())
        });
        self.first(taken)
    }

    /// Waits for the lock for this long at most.
    ///
    /// # Errors
    /// As [`Lock::lock_timeout`](super::Lock::lock_timeout).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, TryLockError<RLockGuard<'_>>> {
        match self.take(Deadline::after(timeout)) {
            Err(TryLockError::WouldBlock) => self.try_lock(),
            other => other,
        }
    }

    /// Whether somebody has it just now, this thread included.
    #[doc(alias = "locked")]
    pub fn is_locked(&self) -> bool {
        raw_lock::holder(self.word()).is_some_and(|holder| !self.region.bury_if_dead(holder))
    }

    #[inline]
    fn word(&self) -> &Word {
        self.region.body().word(LOCK)
    }

    fn thread(&self) -> &Long {
        self.region.body().long(THREAD)
    }

    fn count(&self) -> &Long {
        self.region.body().long(COUNT)
    }

    fn guard(&self) -> RLockGuard<'_> {
        RLockGuard { lock: self, stays: PhantomData }
    }

    #[inline]
    fn take(&self, deadline: Deadline) -> Result<RLockGuard<'_>, TryLockError<RLockGuard<'_>>> {
        if let Some(guard) = self.again() {
            return Ok(guard);
        }
        let bury = |party| _ = self.region.bury_if_dead(party);
        self.first(raw_lock::take(self.word(), self.region.me(), deadline, bury))
    }

    /// If we hold it already.
    fn again(&self) -> Option<RLockGuard<'_>> {
        let ours = self.thread().load() == this_thread() && raw_lock::holder(self.word()) == Some(self.region.me());
        ours.then(|| {
            self.count().store(self.count().load() + 1);
            self.guard()
        })
    }

    fn first(&self, taken: Option<Taken>) -> Result<RLockGuard<'_>, TryLockError<RLockGuard<'_>>> {
        let taken = taken.ok_or(TryLockError::WouldBlock)?;
        self.count().store(1);
        self.thread().store(this_thread());
        Ok(OwnerDied::tell(taken, self.guard())?)
    }
}

/// Holds an [`RLock`] once, as long as it lives. It stays in its thread.
#[derive(Debug)]
#[must_use = "the lock is given back at once otherwise"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    stays: PhantomData<*const ()>,
}

impl Drop for RLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let count = self.lock.count().load().saturating_sub(1);
        self.lock.count().store(count);
        if count == 0 {
            self.lock.thread().store(0);
            raw_lock::give_back(self.lock.word());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Another party to the same lock, as another process would be.
    fn party(lock: &RLock) -> RLock {
        RLock { region: Region::attach_as_another(&KIND, lock.as_fd().try_clone_to_owned().unwrap()).unwrap() }
    }

    #[test]
    fn a_lock_that_comes_a_second_time_is_the_same() {
        let lock = RLock::new().unwrap();
        let same = RLock::from_fd(lock.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let held = lock.lock().unwrap();
        drop(same.lock_timeout(Duration::ZERO).unwrap());
        drop(same);
        assert!(lock.is_locked());
        drop(held);
        assert!(!lock.is_locked());
    }

    #[test]
    fn another_thread_and_another_party_wait() {
        let lock = RLock::new().unwrap();
        let other = party(&lock);
        let guards = [lock.lock().unwrap(), lock.try_lock().unwrap(), lock.lock_timeout(Duration::ZERO).unwrap()];
        let blocked = |lock: &RLock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        assert!(blocked(&other));
        std::thread::scope(|scope| assert!(scope.spawn(|| blocked(&lock)).join().unwrap()));
        let [one, two, three] = guards;
        drop(two);
        drop(one);
        assert!(blocked(&other));
        drop(three);
        assert!(other.lock().is_ok());
    }

    #[test]
    fn the_next_holder_is_told_and_counts_from_one() {
        let lock = RLock::new().unwrap();
        let other = party(&lock);
        std::mem::forget([other.lock().unwrap(), other.lock().unwrap()]);
        drop(other);
        let told = lock.lock().unwrap_err().into_inner();
        assert!(lock.lock().is_ok());
        drop(told);
        assert!(!lock.is_locked());
    }
}
