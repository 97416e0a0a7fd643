//! Waiting until something that a lock protects has changed. Decides that no wake is lost, whoever dies: who waits may be woken for nothing
//! instead.

use super::lock::{Lock, LockGuard, OwnerDied};
use super::object::one_descriptor;
use super::region::{Kind, LOOK, Region};
use super::word::Word;
use crate::deadline::Deadline;
use crate::error::Error;
use std::time::Duration;

/// Where processes wait for a change of something that a [`Lock`] protects.
///
/// As std's `Condvar`: who waits gives the lock back and has it again afterwards; a wake may come for no reason, so look again, or use
/// [`wait_while`](Self::wait_while). No wake is lost: when a process that has this condition dies, everybody who waits is woken within a tenth
/// of a second and looks again, because the wake that it got may have been meant for more.
///
/// ```
/// use procession::ipc::{Condition, Lock, Value};
///
/// let (lock, changed, count) = (Lock::new()?, Condition::new()?, Value::new(0_u32)?);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let _guard = lock.lock().unwrap();
///         count.set(3);
///         changed.notify_all();
///     });
///     let guard = lock.lock().unwrap();
///     let _guard = changed.wait_while(guard, || count.get() < 3).unwrap();
///     assert_eq!(count.get(), 3);
/// });
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "Condvar")]
#[doc(alias = "mp.Condition")]
pub struct Condition {
    region: Region,
}

/// One word: how many wakes there have been, modulo 2^32. Who waits reads it before giving the lock back, and sleeps as long as it is the same;
/// who wakes counts up first. So a wake between the reading and the sleep is seen. It counts up with release and is read with acquire, though
/// what is waited for is protected by the lock. The owner died: there is none; a party that dies counts as a wake for all.
const TURN: usize = 0;

static KIND: Kind = Kind {
    name: "Condition",
    number: u32::from_le_bytes(*b"cond"),
    length_min: size_of::<Word>(),
    bury: |body, _| notify(body.word(TURN), u32::MAX),
    leave: |_, _| (),
};

one_descriptor!(Condition, KIND);

impl Condition {
    /// A new condition; it belongs to no lock in particular.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new() -> Result<Condition, Error> {
        Ok(Condition { region: Region::create(&KIND, 0)? })
    }

    /// Gives the lock back, waits until somebody [notifies](Self::notify_one), and takes the lock again. May come back for no reason.
    ///
    /// # Errors
    /// As [`Lock::lock`]: the guard, if the last holder has died meanwhile.
    pub fn wait<'a>(&self, guard: LockGuard<'a>) -> Result<LockGuard<'a>, OwnerDied<LockGuard<'a>>> {
        self.wait_until(guard, Deadline::NEVER).0
    }

    /// As [`wait`](Self::wait), for this long at most. The second value is false if the time has passed without a wake; the lock is ours again
    /// in any case.
    ///
    /// ```
    /// use procession::ipc::{Condition, Lock};
    /// use std::time::Duration;
    ///
    /// let (lock, changed) = (Lock::new()?, Condition::new()?);
    /// let (_guard, woken) = changed.wait_timeout(lock.lock()?, Duration::from_millis(5)).unwrap();
    /// assert!(!woken);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout<'a>(
        &self,
        guard: LockGuard<'a>,
        timeout: Duration,
    ) -> Result<(LockGuard<'a>, bool), OwnerDied<(LockGuard<'a>, bool)>> {
        with(self.wait_until(guard, Deadline::after(timeout)))
    }

    /// Waits as long as this is true. It is called with the lock held.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and at once, because what is looked at may be half done.
    #[doc(alias = "wait_for")]
    pub fn wait_while<'a>(
        &self,
        mut guard: LockGuard<'a>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<LockGuard<'a>, OwnerDied<LockGuard<'a>>> {
        while condition() {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits as long as this is true, for this long at most. The second value says whether it has become false.
    ///
    /// ```
    /// use procession::ipc::{Condition, Lock};
    /// use std::time::Duration;
    ///
    /// let (lock, changed) = (Lock::new()?, Condition::new()?);
    /// let (_guard, came) = changed.wait_timeout_while(lock.lock()?, Duration::from_millis(5), || true).unwrap();
    /// assert!(!came);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait_while`](Self::wait_while).
    #[doc(alias = "wait_for")]
    pub fn wait_timeout_while<'a>(
        &self,
        mut guard: LockGuard<'a>,
        timeout: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(LockGuard<'a>, bool), OwnerDied<(LockGuard<'a>, bool)>> {
        let deadline = Deadline::after(timeout);
        loop {
            if !condition() {
                return Ok((guard, true));
            }
            if deadline.has_passed() {
                return Ok((guard, false));
            }
            guard = match self.wait_until(guard, deadline) {
                (Ok(guard), _) => guard,
                (Err(died), woken) => return Err(OwnerDied::of((died.into_inner(), woken))),
            };
        }
    }

    /// Wakes one of those who wait, if there is any.
    #[doc(alias = "signal")]
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes so many of those who wait.
    pub fn notify(&self, count: u32) {
        notify(self.turn(), count);
    }

    /// Wakes all who wait.
    #[doc(alias = "broadcast")]
    pub fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    fn turn(&self) -> &Word {
        self.region.body().word(TURN)
    }

    fn wait_until<'a>(
        &self,
        guard: LockGuard<'a>,
        deadline: Deadline,
    ) -> (Result<LockGuard<'a>, OwnerDied<LockGuard<'a>>>, bool) {
        let lock: &'a Lock = LockGuard::of(&guard);
        let turn = self.turn().load();
        drop(guard);
        let woken = sleep(self.turn(), turn, deadline, || self.region.bury_dead());
        (lock.lock(), woken)
    }
}

type Waited<'a> = (Result<LockGuard<'a>, OwnerDied<LockGuard<'a>>>, bool);

fn with(waited: Waited<'_>) -> Result<(LockGuard<'_>, bool), OwnerDied<(LockGuard<'_>, bool)>> {
    match waited {
        (Ok(guard), woken) => Ok((guard, woken)),
        (Err(died), woken) => Err(OwnerDied::of((died.into_inner(), woken))),
    }
}

pub(super) fn notify(turn: &Word, count: u32) {
    turn.add(1);
    turn.wake(count);
}

/// Sleeps until there has been a wake since `turn`. False if the deadline has passed before that.
pub(super) fn sleep(turn: &Word, seen: u32, deadline: Deadline, look: impl Fn()) -> bool {
    loop {
        if turn.load() != seen {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        let next = Deadline::after(LOOK);
        turn.sleep(seen, deadline.earlier(next));
        if next.has_passed() {
            look();
        }
    }
}
