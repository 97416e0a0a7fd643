//! One at a time, across processes. Decides what users are told of a holder's death; how the word works is in [`raw_lock`](super::raw_lock).

use super::object::one_descriptor;
use super::raw_lock::{self, Taken};
use super::region::{Kind, Party, Region};
use super::word::Word;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::error;
use std::fmt;
use std::time::Duration;

/// A lock that processes share: one holder at a time, among all threads of all processes that have it.
///
/// As std's `Mutex`, but it guards what you say it guards: files, a [`SharedMemory`](super::SharedMemory), a device. When its holder dies,
/// whatever ended it, the next one gets the lock and is told so by [`OwnerDied`], once: it can look and put things right. Taking it when it is
/// free takes no system call.
///
/// It reaches another process as an argument or in a message. The holder is a process: a thread that waits for a lock that its own process
/// holds waits for ever, as with std. Dropping the guard gives the lock back; so does the end of the process, and that counts as a death.
///
/// ```
/// use procession::ipc::Lock;
///
/// let lock = Lock::new()?;
/// {
///     let _guard = lock.lock()?;
///     assert!(lock.is_locked());
///     assert!(lock.try_lock().is_err());
/// }
/// assert!(!lock.is_locked());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "Mutex")]
#[doc(alias = "mp.Lock")]
pub struct Lock {
    region: Region,
}

static KIND: Kind = Kind {
    name: "Lock",
    number: u32::from_le_bytes(*b"lock"),
    length_min: size_of::<Word>(),
    bury: |body, dead| raw_lock::bury(body.word(0), dead),
    leave: |_, _| (),
};

one_descriptor!(Lock, KIND);

impl Lock {
    /// A new lock, free.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new() -> Result<Lock, Error> {
        Ok(Lock { region: Region::create(&KIND, 0)? })
    }

    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    /// The guard, in an [`OwnerDied`], if the last holder has died holding it. `?` gives the lock back and passes the error on.
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, OwnerDied<LockGuard<'_>>> {
        loop {
            if let Some(taken) = self.take(Deadline::NEVER) {
                return self.told(taken);
            }
        }
    }

    /// Takes the lock if it is free.
    ///
    /// ```
    /// use procession::ipc::{Lock, TryLockError};
    ///
    /// let lock = Lock::new()?;
    /// let first = lock.try_lock()?;
    /// assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody has it, and [`OwnerDied`] with the guard if the last holder has died holding it.
    pub fn try_lock(&self) -> Result<LockGuard<'_>, TryLockError<LockGuard<'_>>> {
        let word = self.word();
        let taken = raw_lock::try_take(word, self.region.me()).or_else(|| {
            let holder = raw_lock::holder(word)?;
            if !self.region.bury_if_dead(holder) {
                return None;
            }
            raw_lock::try_take(word, self.region.me())
        });
        Ok(self.told(taken.ok_or(TryLockError::WouldBlock)?)?)
    }

    /// Waits for the lock for this long at most.
    ///
    /// ```
    /// use procession::ipc::Lock;
    /// use std::time::Duration;
    ///
    /// let lock = Lock::new()?;
    /// let _guard = lock.lock()?;
    /// assert!(lock.lock_timeout(Duration::from_millis(5)).is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock); `WouldBlock` once the time has passed.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>, TryLockError<LockGuard<'_>>> {
        match self.take(Deadline::after(timeout)) {
            Some(taken) => Ok(self.told(taken)?),
            None => self.try_lock(),
        }
    }

    /// Whether somebody has it just now.
    #[doc(alias = "locked")]
    pub fn is_locked(&self) -> bool {
        raw_lock::holder(self.word()).is_some_and(|holder| !self.region.bury_if_dead(holder))
    }

    #[inline]
    fn word(&self) -> &Word {
        self.region.body().word(0)
    }

    #[inline]
    fn take(&self, deadline: Deadline) -> Option<Taken> {
        let bury = |party| _ = self.region.bury_if_dead(party);
        raw_lock::take(self.word(), self.region.me(), deadline, bury)
    }

    #[inline]
    fn told(&self, taken: Taken) -> Result<LockGuard<'_>, OwnerDied<LockGuard<'_>>> {
        OwnerDied::tell(taken, LockGuard { lock: self })
    }
}

/// Holds a [`Lock`] as long as it lives.
///
/// It may go to another thread of the process: the holder is the process.
#[derive(Debug)]
#[must_use = "the lock is given back at once otherwise"]
pub struct LockGuard<'a> {
    lock: &'a Lock,
}

impl<'a> LockGuard<'a> {
    /// The lock that it holds.
    pub fn of(guard: &LockGuard<'a>) -> &'a Lock {
        guard.lock
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        raw_lock::give_back(self.lock.word());
    }
}

/// The last holder has died holding it, so what it protects may be half done. Holds what was asked for, as std's `PoisonError` does.
///
/// It is told once, to the next holder: from then on everything is as if nothing had happened.
///
/// ```
/// use procession::ipc::{Lock, OwnerDied};
///
/// let lock = Lock::new()?;
/// // What the lock protects is put right here, if it has to be.
/// let guard = lock.lock().unwrap_or_else(OwnerDied::into_inner);
/// drop(guard);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "PoisonError")]
#[doc(alias = "EOWNERDEAD")]
pub struct OwnerDied<G> {
    inner: G,
}

impl<G> OwnerDied<G> {
    /// What was asked for: the guard.
    pub fn into_inner(self) -> G {
        self.inner
    }

    /// What was asked for.
    pub fn get_ref(&self) -> &G {
        &self.inner
    }

    /// What was asked for.
    pub fn get_mut(&mut self) -> &mut G {
        &mut self.inner
    }

    pub(super) fn of(inner: G) -> OwnerDied<G> {
        OwnerDied { inner }
    }

    pub(super) fn tell(taken: Taken, guard: G) -> Result<G, OwnerDied<G>> {
        match taken {
            Taken::Clean => Ok(guard),
            Taken::FromDead => Err(OwnerDied::of(guard)),
        }
    }
}

impl<G> fmt::Debug for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").finish_non_exhaustive()
    }
}

const OWNER_DIED: &str = "the process that held the lock has died: what it protects may be half done";

impl<G> fmt::Display for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OWNER_DIED)
    }
}

impl<G> error::Error for OwnerDied<G> {}

/// Gives back what was asked for.
impl<G> From<OwnerDied<G>> for Error {
    fn from(_: OwnerDied<G>) -> Error {
        owner_died()
    }
}

pub(super) fn owner_died() -> Error {
    Error::new(ErrorKind::OwnerDied).detail(OWNER_DIED)
}

/// Why a lock was not simply taken: as std's `TryLockError`.
pub enum TryLockError<G> {
    /// It was taken, but the last holder has died holding it.
    OwnerDied(OwnerDied<G>),
    /// Somebody else has it, and did not give it back in time.
    WouldBlock,
}

impl<G> From<OwnerDied<G>> for TryLockError<G> {
    fn from(died: OwnerDied<G>) -> TryLockError<G> {
        TryLockError::OwnerDied(died)
    }
}

impl<G> fmt::Debug for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryLockError::OwnerDied(_) => "OwnerDied(..)",
            TryLockError::WouldBlock => "WouldBlock",
        })
    }
}

const WOULD_BLOCK: &str = "somebody else holds the lock";

impl<G> fmt::Display for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryLockError::OwnerDied(_) => OWNER_DIED,
            TryLockError::WouldBlock => WOULD_BLOCK,
        })
    }
}

impl<G> error::Error for TryLockError<G> {}

/// [`ErrorKind::OwnerDied`], which gives the lock back, or [`ErrorKind::Timeout`].
impl<G> From<TryLockError<G>> for Error {
    fn from(error: TryLockError<G>) -> Error {
        match error {
            TryLockError::OwnerDied(died) => died.into(),
            TryLockError::WouldBlock => Error::new(ErrorKind::Timeout).detail(WOULD_BLOCK),
        }
    }
}

/// The lock inside another object: taken for a few instructions. Its guard gives it back, also when a panic passes.
#[derive(Debug)]
pub(super) struct Held<'a> {
    word: &'a Word,
}

impl<'a> Held<'a> {
    /// Waits for as long as it takes. Also says in which state it was.
    #[inline]
    pub(super) fn take(word: &'a Word, me: Party, bury: impl Fn(Party)) -> (Held<'a>, Taken) {
        loop {
            if let Some(taken) = raw_lock::take(word, me, Deadline::NEVER, &bury) {
                return (Held { word }, taken);
            }
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        raw_lock::give_back(self.word);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Another party to the same lock, as another process would be.
    fn party(lock: &Lock) -> Lock {
        Lock { region: Region::attach_as_another(&KIND, lock.as_fd().try_clone_to_owned().unwrap()).unwrap() }
    }

    #[test]
    fn whoever_goes_with_the_lock_leaves_it_suspect() {
        let lock = Lock::new().unwrap();
        let other = party(&lock);
        std::mem::forget(other.lock().unwrap());
        assert!(lock.is_locked());
        drop(other);
        assert!(!lock.is_locked());
        let died = lock.lock().unwrap_err();
        assert!(lock.is_locked());
        drop(died.into_inner());
        assert!(lock.lock().is_ok());
    }

    #[test]
    fn the_errors_speak() {
        let lock = Lock::new().unwrap();
        let other = party(&lock);
        let guard = other.lock().unwrap();
        let error = lock.lock_timeout(Duration::ZERO).unwrap_err();
        assert!(matches!(error, TryLockError::WouldBlock));
        assert_eq!(Error::from(error).to_string(), "somebody else holds the lock");
        std::mem::forget(guard);
        drop(other);
        let error = Error::from(lock.try_lock().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::OwnerDied);
        assert!(lock.try_lock().is_ok());
    }
}
