//! How results come back: one that is waited for, and those of an iteration. Decides how far the input is read ahead.

use super::desk::Message;
use super::{LOOK_AHEAD, ProcessPool, Shared, wait_until};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipc::codec::{self, Encoded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A result in bytes, when it is there.
#[derive(Debug, Default)]
pub(super) struct Slot {
    result: Mutex<Option<Result<Encoded, Error>>>,
    is_there: Condvar,
}

impl Slot {
    pub(super) fn put(&self, result: Result<Encoded, Error>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.is_there.notify_all();
    }

    fn wait(&self, deadline: Deadline) -> bool {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        while result.is_none() && !deadline.has_passed() {
            result = wait_until(&self.is_there, result, deadline);
        }
        result.is_some()
    }
}

/// A task that was given to a [`ProcessPool`].
///
/// Dropping it does not cancel the task.
#[doc(alias = "AsyncResult")]
#[doc(alias = "Future")]
#[must_use = "what the function returns is lost otherwise"]
pub struct PendingResult<R> {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    id: u64,
    result: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> PendingResult<R> {
    pub(super) fn new(slot: Arc<Slot>, shared: Arc<Shared>, id: u64) -> PendingResult<R> {
        PendingResult { slot, shared, id, result: PhantomData }
    }

    /// Waits for what the function returns.
    ///
    /// # Errors
    /// As [`ProcessPool::apply`].
    pub fn get(self) -> Result<R, Error> {
        self.slot.wait(Deadline::NEVER);
        let result = self.slot.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let missing = || Err(Error::invalid("a result that was taken already"));
        result.unwrap_or_else(missing).and_then(|(bytes, descriptors)| codec::decode(&bytes, descriptors))
    }
}

impl<R> PendingResult<R> {
    /// Waits until the task has ended, so long at most. True if it has.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.slot.wait(Deadline::after(timeout))
    }

    /// Whether the task has ended.
    #[doc(alias = "ready")]
    pub fn is_done(&self) -> bool {
        self.slot.wait(Deadline::now())
    }

    /// Takes the task back, or stops the worker that is in it, with everything that it has started. The task is answered in any case, as
    /// [cancelled](Error::is_cancelled) unless it has ended before.
    pub fn cancel(&self) {
        // Cancelling is possible as long as there is somebody who could.
        let _ = self.shared.post(Message::Cancel(self.id));
    }
}

impl<R> fmt::Debug for PendingResult<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PendingResult").field("id", &self.id).field("is_done", &self.is_done()).finish()
    }
}

/// What has come of an iteration and was not yielded yet.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    results: Mutex<BTreeMap<u64, Result<Encoded, Error>>>,
    /// The one that is waited for has come.
    has_come: Condvar,
}

/// The results of [`ProcessPool::imap`] and [`ProcessPool::imap_unordered`].
///
/// Dropping it cancels what was not yielded.
#[must_use = "nothing is done until results are asked for"]
pub struct ProcessResults<'a, F, R, I> {
    pool: &'a ProcessPool,
    function: F,
    items: Option<I>,
    in_order: bool,
    gathered: Arc<Gathered>,
    group: u64,
    /// How many were submitted, and how many were yielded.
    submitted: u64,
    yielded: u64,
    look_ahead: u64,
    result: PhantomData<fn() -> R>,
}

impl<'a, F, A, R, I> ProcessResults<'a, F, R, I>
where
    F: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
    I: Iterator<Item = A>,
{
    pub(super) fn new(pool: &'a ProcessPool, function: F, items: I, in_order: bool) -> ProcessResults<'a, F, R, I> {
        let rules = &pool.shared.rules;
        let look_ahead = rules.look_ahead.unwrap_or(LOOK_AHEAD.saturating_mul(rules.workers)).max(1) as u64;
        ProcessResults {
            pool,
            function,
            items: Some(items),
            in_order,
            gathered: Arc::default(),
            group: pool.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            submitted: 0,
            yielded: 0,
            look_ahead,
            result: PhantomData,
        }
    }

    /// The next result, if it comes in time. `None` when the time is over, and [at the end](Self::is_over).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R, Error>> {
        self.next_until(Deadline::after(timeout))
    }

    /// Takes items until there are enough with the pool; many at a time, because each time costs.
    fn submit(&mut self) {
        if self.submitted - self.yielded > self.look_ahead / 2 {
            return;
        }
        while self.submitted - self.yielded < self.look_ahead {
            // A pool that takes nothing more ends the iteration, however long the input is.
            if self.pool.shared.inbox().closed {
                self.items = None;
            }
            let Some(item) = self.items.as_mut().and_then(Iterator::next) else {
                self.items = None;
                return;
            };
            let (gathered, number) = (Arc::clone(&self.gathered), self.submitted);
            self.submitted += 1;
            let put = move |result| {
                let mut results = gathered.results.lock().unwrap_or_else(PoisonError::into_inner);
                results.insert(number, result);
                drop(results);
                gathered.has_come.notify_one();
            };
            if let Err(error) = self.pool.submit(self.function, &item, self.group, put) {
                let mut results = self.gathered.results.lock().unwrap_or_else(PoisonError::into_inner);
                results.insert(number, Err(error));
            }
        }
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Result<R, Error>> {
        self.submit();
        if self.is_over() {
            return None;
        }
        let mut results = self.gathered.results.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found = if self.in_order {
                results.remove(&self.yielded)
            } else {
                results.pop_first().map(|(_, result)| result)
            };
            if let Some(result) = found {
                self.yielded += 1;
                return Some(result.and_then(|(bytes, descriptors)| codec::decode(&bytes, descriptors)));
            }
            if deadline.has_passed() {
                return None;
            }
            results = wait_until(&self.gathered.has_come, results, deadline);
        }
    }
}

impl<F, R, I> ProcessResults<'_, F, R, I> {
    /// Whether every result was yielded.
    pub fn is_over(&self) -> bool {
        self.items.is_none() && self.submitted == self.yielded
    }
}

impl<F, A, R, I> Iterator for ProcessResults<'_, F, R, I>
where
    F: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
    I: Iterator<Item = A>,
{
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Result<R, Error>> {
        self.next_until(Deadline::NEVER)
    }
}

impl<F, R, I> Drop for ProcessResults<'_, F, R, I> {
    fn drop(&mut self) {
        if self.submitted > self.yielded {
            let _ = self.pool.shared.post(Message::CancelGroup(self.group));
        }
    }
}

impl<F, R, I> fmt::Debug for ProcessResults<'_, F, R, I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProcessResults").field("submitted", &self.submitted).field("yielded", &self.yielded).finish()
    }
}
