//! How replies come back to who asked: one that is waited for, and those of an iteration. Leaves to `answers` who comes next.

use super::WorkerPool;
use super::answers::{Answer, Gathering, Slot, Tell};
use super::desk::Message;
use super::{LOOK_AHEAD, Shared};
use crate::deadline::Deadline;
use crate::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::time::Duration;

/// A request that was given to a [`WorkerPool`].
///
/// Dropping it does not cancel the request.
#[doc(alias = "AsyncResult")]
#[doc(alias = "Future")]
#[must_use = "the reply is lost otherwise"]
pub struct PendingReply {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    number: u64,
}

impl PendingReply {
    pub(super) fn new(slot: Arc<Slot>, shared: Arc<Shared>, number: u64) -> PendingReply {
        PendingReply { slot, shared, number }
    }

    /// Waits for the reply.
    ///
    /// # Errors
    /// As [`WorkerPool::apply`].
    #[doc(alias = "result")]
    pub fn get(self) -> Result<Vec<u8>, Error> {
        self.slot.take()
    }

    /// Waits for the reply for a task, and leaves it.
    #[cfg(feature = "future")]
    pub(crate) fn poll_wait(&self, task: &mut Context<'_>) -> Poll<()> {
        self.slot.poll_wait(task)
    }

    /// The reply that has come, once.
    #[cfg(feature = "future")]
    pub(crate) fn take(&self) -> Result<Vec<u8>, Error> {
        self.slot.take()
    }

    /// A reply as text.
    #[cfg(feature = "future")]
    pub(crate) fn text_of(&self, reply: &[u8]) -> Result<String, Error> {
        self.shared.rules.text_of(reply)
    }

    /// Waits for the reply, as text.
    ///
    /// # Errors
    /// As [`WorkerPool::apply_text`].
    pub fn get_text(self) -> Result<String, Error> {
        let shared = Arc::clone(&self.shared);
        self.get().and_then(|reply| shared.rules.text_of(&reply))
    }

    /// The number of the request, by which errors name it. They are counted from 1 in each pool.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until there is a reply or an error, so long at most. True if there is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.slot.wait(Deadline::after(timeout))
    }

    /// Whether there is a reply or an error.
    #[doc(alias = "ready")]
    pub fn is_done(&self) -> bool {
        self.slot.wait(Deadline::now())
    }

    /// Takes the request back, or stops the worker that has it, with everything that it has started. It is answered in any case, as
    /// [cancelled](Error::is_cancelled) unless the reply was there before.
    pub fn cancel(&self) {
        self.shared.inbox.ask(Message::Cancel(self.number));
    }
}

impl fmt::Debug for PendingReply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PendingReply").field("number", &self.number).field("is_done", &self.is_done()).finish()
    }
}

/// The replies of [`WorkerPool::imap`] and [`WorkerPool::imap_unordered`].
///
/// Dropping it cancels what was not yielded.
#[must_use = "nothing is asked until replies are"]
pub struct WorkerReplies<'a, I> {
    pool: &'a WorkerPool,
    requests: I,
    gathering: Gathering,
    group: u64,
}

impl<'a, I> WorkerReplies<'a, I>
where
    I: Iterator,
    I::Item: Into<Vec<u8>>,
{
    pub(super) fn new(pool: &'a WorkerPool, requests: I, in_order: bool) -> WorkerReplies<'a, I> {
        let rules = &pool.shared.rules;
        let look_ahead = rules.look_ahead.unwrap_or(LOOK_AHEAD.saturating_mul(rules.workers));
        let group = pool.shared.last_group.fetch_add(1, Ordering::Relaxed) + 1;
        WorkerReplies { pool, requests, gathering: Gathering::new(in_order, look_ahead), group }
    }

    /// The next reply, if it comes in time. `None` when the time is over, and [at the end](Self::is_over).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Vec<u8>, Error>> {
        self.next_until(Deadline::after(timeout))
    }

    /// The replies as text, by the settings of the command.
    pub fn texts(self) -> impl Iterator<Item = Result<String, Error>> {
        let shared = Arc::clone(&self.pool.shared);
        self.map(move |reply| reply.and_then(|reply| shared.rules.text_of(&reply)))
    }

    /// Takes requests until there are enough with the pool.
    fn submit(&mut self) {
        if !self.gathering.wants_more() {
            return;
        }
        while self.gathering.has_room() {
            // A pool that takes nothing more ends the iteration, however long the input is.
            if self.pool.shared.inbox.is_closed() {
                return self.gathering.end();
            }
            let Some(request) = self.requests.next() else { return self.gathering.end() };
            let place = Tell::new(self.gathering.place());
            if let Err((error, place)) = self.pool.submit(&request.into(), self.group, place) {
                place.tell(Err(error));
            }
        }
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Answer> {
        self.submit();
        if self.is_over() { None } else { self.gathering.next_until(deadline) }
    }

    /// The next reply for a task, which is woken.
    #[cfg(feature = "future")]
    pub(crate) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.submit();
        if self.is_over() { Poll::Ready(None) } else { self.gathering.poll_next(task).map(Some) }
    }

    /// A reply as text.
    #[cfg(feature = "future")]
    pub(crate) fn text_of(&self, reply: &[u8]) -> Result<String, Error> {
        self.pool.shared.rules.text_of(reply)
    }
}

impl<I> WorkerReplies<'_, I> {
    /// Whether every reply was yielded.
    pub fn is_over(&self) -> bool {
        self.gathering.is_over()
    }
}

impl<I> Iterator for WorkerReplies<'_, I>
where
    I: Iterator,
    I::Item: Into<Vec<u8>>,
{
    type Item = Result<Vec<u8>, Error>;

    fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        self.next_until(Deadline::NEVER)
    }
}

impl<I> Drop for WorkerReplies<'_, I> {
    fn drop(&mut self) {
        if self.gathering.has_rest() {
            self.pool.shared.inbox.ask(Message::CancelGroup(self.group));
        }
    }
}

impl<I> fmt::Debug for WorkerReplies<'_, I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (submitted, yielded) = (self.gathering.submitted, self.gathering.yielded);
        out.debug_struct("WorkerReplies").field("submitted", &submitted).field("yielded", &yielded).finish()
    }
}
