//! At most so many at a time.

use super::monitor::{FIRST, Monitor, State};
use super::timeout::timeout;
use std::fmt;
use std::time::Duration;

/// Permits, of which there are so many. Who waits first gets one first, also against those who come later and ask for one at once.
///
/// ```
/// use procession::future::{Semaphore, scope, sleep};
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// let (permits, inside) = (Semaphore::new(2), Cell::new(0));
/// scope(|scope| {
///     for _ in 0..10 {
///         scope.spawn(async {
///             let _permit = permits.acquire().await;
///             inside.set(inside.get() + 1);
///             assert!(inside.get() <= 2);
///             sleep(Duration::from_millis(1)).await;
///             inside.set(inside.get() - 1);
///         });
///     }
/// })?;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "BoundedSemaphore")]
pub struct Semaphore(Monitor<Permits>);

struct Permits(usize);

impl State for Permits {
    fn calls(&self, _line: usize) -> bool {
        self.0 > 0
    }
}

impl Permits {
    fn take(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

/// A permit. Dropping it gives it back.
#[must_use = "dropping a permit gives it back"]
pub struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    /// With so many permits.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore(Monitor::new(Permits(permits)))
    }

    /// Waits for a permit.
    pub async fn acquire(&self) -> Permit<'_> {
        self.0.wait(FIRST, Permits::take).await;
        Permit(self)
    }

    /// Waits for a permit for at most this long.
    pub async fn acquire_timeout(&self, patience: Duration) -> Option<Permit<'_>> {
        timeout(patience, self.acquire()).await.ok()
    }

    /// A permit, if there is one and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.0.attempt(FIRST, Permits::take).map(|()| Permit(self))
    }

    /// Adds permits: new ones, or [forgotten](Permit::forget) ones.
    pub fn release(&self, permits: usize) {
        self.0.change(|there| there.0 = there.0.saturating_add(permits));
    }

    /// How many permits there are.
    #[doc(alias = "counter")]
    #[doc(alias = "available")]
    pub fn value(&self) -> usize {
        self.0.look(|there| there.0)
    }
}

impl Permit<'_> {
    /// Does not give it back. [`Semaphore::release`] can, later.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release(1);
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Semaphore").field("value", &self.value()).finish()
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Permit")
    }
}

/// One at a time, across an `.await`. What tasks of one scope share between two of them needs none.
///
/// ```
/// use procession::future::{Lock, block_on};
///
/// let lock = Lock::new();
/// block_on(async {
///     let _held = lock.acquire().await;
///     assert!(lock.locked() && lock.try_acquire().is_none());
/// })?;
/// assert!(!lock.locked());
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "Mutex")]
#[derive(Debug)]
pub struct Lock(Semaphore);

impl Lock {
    /// One that nobody holds.
    pub const fn new() -> Lock {
        Lock(Semaphore::new(1))
    }

    /// Waits until it is one's turn. It is held until the permit is dropped.
    pub async fn acquire(&self) -> Permit<'_> {
        self.0.acquire().await
    }

    /// Takes it, if nobody holds it or waits for it.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.0.try_acquire()
    }

    /// Whether somebody holds it.
    pub fn locked(&self) -> bool {
        self.0.value() == 0
    }
}

impl Default for Lock {
    fn default() -> Lock {
        Lock::new()
    }
}
