//! How results come back: one that is waited for, and those of an iteration, as values. Leaves to `pool::workers::answers` who comes next.

use super::desk::Message;
use super::{LOOK_AHEAD, ProcessPool, Shared};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipc::codec::{self, Encoded};
use crate::pool::workers::answers::{Gathering, Slot, Tell};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::time::Duration;

/// A task that was given to a [`ProcessPool`].
///
/// Dropping it does not cancel the task.
#[doc(alias = "AsyncResult")]
#[doc(alias = "Future")]
#[must_use = "what the function returns is lost otherwise"]
pub struct PendingResult<R> {
    slot: Arc<Slot<Encoded>>,
    shared: Arc<Shared>,
    id: u64,
    result: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> PendingResult<R> {
    pub(super) fn new(slot: Arc<Slot<Encoded>>, shared: Arc<Shared>, id: u64) -> PendingResult<R> {
        PendingResult { slot, shared, id, result: PhantomData }
    }

    /// Waits for what the function returns.
    ///
    /// # Errors
    /// As [`ProcessPool::apply`].
    pub fn get(self) -> Result<R, Error> {
        self.take()
    }

    /// Waits for it, and takes it, once.
    pub(crate) fn take(&self) -> Result<R, Error> {
        self.slot.take().and_then(|(bytes, descriptors)| codec::decode(&bytes, descriptors))
    }
}

impl<R> PendingResult<R> {
    /// Waits until the task has ended, so long at most. True if it has.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.slot.wait(Deadline::after(timeout))
    }

    /// Waits until the task has ended, for a task of a runtime, which is woken.
    #[cfg(feature = "future")]
    pub(crate) fn poll_wait(&self, task: &mut Context<'_>) -> Poll<()> {
        self.slot.poll_wait(task)
    }

    /// Whether the task has ended.
    #[doc(alias = "ready")]
    pub fn is_done(&self) -> bool {
        self.slot.wait(Deadline::now())
    }

    /// Takes the task back, or stops the worker that is in it, with everything that it has started. The task is answered in any case, as
    /// [cancelled](Error::is_cancelled) unless it has ended before.
    pub fn cancel(&self) {
        self.shared.inbox.ask(Message::Cancel(self.id));
    }
}

impl<R> fmt::Debug for PendingResult<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PendingResult").field("id", &self.id).field("is_done", &self.is_done()).finish()
    }
}

/// The results of [`ProcessPool::imap`] and [`ProcessPool::imap_unordered`].
///
/// Dropping it cancels what was not yielded.
#[must_use = "nothing is done until results are asked for"]
pub struct ProcessResults<'a, F, R, I> {
    pool: &'a ProcessPool,
    function: F,
    items: I,
    gathering: Gathering<Encoded>,
    group: u64,
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
        let look_ahead = rules.look_ahead.unwrap_or(LOOK_AHEAD.saturating_mul(rules.workers));
        ProcessResults {
            pool,
            function,
            items,
            gathering: Gathering::new(in_order, look_ahead),
            group: pool.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            result: PhantomData,
        }
    }

    /// The next result, if it comes in time. `None` when the time is over, and [at the end](Self::is_over).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R, Error>> {
        self.next_until(Deadline::after(timeout))
    }

    /// Takes items until there are enough with the pool.
    fn submit(&mut self) {
        if !self.gathering.wants_more() {
            return;
        }
        while self.gathering.has_room() {
            // A pool that takes nothing more ends the iteration, however long the input is.
            if self.pool.shared.inbox.is_closed() {
                return self.gathering.end();
            }
            let Some(item) = self.items.next() else { return self.gathering.end() };
            let place = self.gathering.place();
            if let Err((error, place)) = self.pool.submit(self.function, &item, self.group, Tell::new(place)) {
                place.tell(Err(error));
            }
        }
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Result<R, Error>> {
        self.submit();
        if self.is_over() {
            return None;
        }
        let result = self.gathering.next_until(deadline)?;
        Some(result.and_then(|(bytes, descriptors)| codec::decode(&bytes, descriptors)))
    }

    /// The next result for a task, which is woken.
    #[cfg(feature = "future")]
    pub(crate) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<R, Error>>> {
        self.submit();
        if self.is_over() {
            return Poll::Ready(None);
        }
        let result = self.gathering.poll_next(task);
        result.map(|result| Some(result.and_then(|(bytes, descriptors)| codec::decode(&bytes, descriptors))))
    }
}

impl<F, R, I> ProcessResults<'_, F, R, I> {
    /// Whether every result was yielded.
    pub fn is_over(&self) -> bool {
        self.gathering.is_over()
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
        if self.gathering.has_rest() {
            self.pool.shared.inbox.ask(Message::CancelGroup(self.group));
        }
    }
}

impl<F, R, I> fmt::Debug for ProcessResults<'_, F, R, I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (submitted, yielded) = (self.gathering.submitted, self.gathering.yielded);
        out.debug_struct("ProcessResults").field("submitted", &submitted).field("yielded", &yielded).finish()
    }
}
