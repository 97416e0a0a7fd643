//! Something that happens once, or is so or not: events, and results that somebody else sets.

use super::monitor::{ALL, Monitor, State};
use super::timeout::timeout;
use std::fmt;
use std::time::Duration;

/// A flag that tasks and threads wait for. All of them go on when it is set.
///
/// ```
/// use procession::future::{Event, block_on};
///
/// let event = Event::new();
/// std::thread::scope(|threads| {
///     threads.spawn(|| event.set());
///     block_on(event.wait())
/// })?;
/// assert!(event.is_set());
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Event(Monitor<Flag>);

struct Flag {
    is_set: bool,
    /// Who waited when it was set goes on, also if it was cleared at once.
    times: u64,
}

impl State for Flag {
    fn calls(&self, _line: usize) -> bool {
        self.is_set
    }
}

impl Event {
    /// One that is not set.
    pub const fn new() -> Event {
        Event(Monitor::new(Flag { is_set: false, times: 0 }))
    }

    /// Sets it, and lets all go on who wait.
    pub fn set(&self) {
        self.0.change(|flag| {
            flag.is_set = true;
            flag.times = flag.times.wrapping_add(1);
        });
    }

    /// From now on who comes has to wait.
    pub fn clear(&self) {
        self.0.change(|flag| flag.is_set = false);
    }

    /// Whether it is set.
    #[doc(alias = "ready")]
    pub fn is_set(&self) -> bool {
        self.0.look(|flag| flag.is_set)
    }

    /// Waits until it is set, or was set since this was called.
    pub async fn wait(&self) {
        let before = self.0.look(|flag| flag.times);
        self.0.wait(ALL, |flag| (flag.is_set || flag.times != before).then_some(())).await;
    }

    /// The same, for at most this long. Whether it was set.
    pub async fn wait_timeout(&self, patience: Duration) -> bool {
        timeout(patience, self.wait()).await.is_ok()
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Event").field("is_set", &self.is_set()).finish()
    }
}

/// A value that somebody sets, and any number of tasks wait for. For failures, let the value be a [`Result`].
///
/// ```
/// use procession::future::{AsyncResult, scope};
///
/// let answer = AsyncResult::new();
/// scope(|scope| {
///     let tasks = [scope.spawn(answer.get()), scope.spawn(answer.get())];
///     scope.spawn(async { answer.set(42) });
///     for task in tasks {
///         assert_eq!(scope.block_on(task)?, Ok(42));
///     }
///     Ok::<(), procession::Error>(())
/// })??;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "Future")]
pub struct AsyncResult<T>(Monitor<Slot<T>>);

struct Slot<T>(Option<T>);

impl<T> State for Slot<T> {
    fn calls(&self, _line: usize) -> bool {
        self.0.is_some()
    }
}

impl<T> AsyncResult<T> {
    /// One that is not set.
    pub const fn new() -> AsyncResult<T> {
        AsyncResult(Monitor::new(Slot(None)))
    }

    /// Sets it. If it was set, the new value takes the place of the old one.
    #[doc(alias = "set_result")]
    pub fn set(&self, value: T) {
        let before = self.0.change(|slot| slot.0.replace(value));
        drop(before);
    }

    /// Whether it is set.
    pub fn ready(&self) -> bool {
        self.0.look(|slot| slot.0.is_some())
    }

    /// Waits for the value.
    pub async fn get(&self) -> T
    where
        T: Clone,
    {
        self.0.wait(ALL, |slot| slot.0.clone()).await
    }

    /// The value, if it is set.
    #[doc(alias = "get_nowait")]
    pub fn value(&self) -> Option<T>
    where
        T: Clone,
    {
        self.0.look(|slot| slot.0.clone())
    }
}

impl<T> Default for AsyncResult<T> {
    fn default() -> AsyncResult<T> {
        AsyncResult::new()
    }
}

impl<T> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AsyncResult").field("ready", &self.ready()).finish()
    }
}
