//! Pools of commands that live on, awaited, and what the pools of functions need as well. Their threads go on by themselves, so nothing is asked of a
//! runtime but the time.

use super::Awaited;
use super::runtime::Alarm;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pool::workers::inbox::not_ended;
use crate::pool::{PendingReply, WorkerPool, WorkerReplies};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

impl WorkerPool {
    /// The verbs of this pool as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped cancels the requests that it was to wait for.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&WorkerPool> {
        Awaited(self)
    }
}

impl PendingReply {
    /// The verbs of this request as futures. A future that is dropped changes nothing.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&PendingReply> {
        Awaited(self)
    }
}

impl<'a, I> WorkerReplies<'a, I>
where
    I: Iterator,
    I::Item: Into<Vec<u8>>,
{
    /// The replies of this iteration as futures. A future that is dropped takes no reply.
    #[doc(alias = "async")]
    pub fn future(self) -> Awaited<WorkerReplies<'a, I>> {
        Awaited(self)
    }
}

/// The verbs of a pool of commands that live on.
impl<'a> Awaited<&'a WorkerPool> {
    /// As [`WorkerPool::apply`].
    ///
    /// # Errors
    /// As there.
    pub async fn apply(self, request: impl Into<Vec<u8>>) -> Result<Vec<u8>, Error> {
        let pending = self.0.apply_async(request)?;
        or_cancel(|task| pending.poll_wait(task), || pending.cancel()).await;
        pending.get()
    }

    /// As [`WorkerPool::apply_text`].
    ///
    /// ```
    /// use procession::{Command, future, pool::WorkerPool};
    ///
    /// let pool = WorkerPool::new(2, Command::shell("while read -r word; do echo \"$word and $word\"; done"))?;
    /// let (one, all) = future::block_on(async {
    ///     let one = pool.future().apply_text("salt").await?;
    ///     Ok::<_, procession::Error>((one, pool.future().map_text(["a", "b"]).await?))
    /// })??;
    /// assert_eq!((one.as_str(), all), ("salt and salt", vec!["a and a".to_owned(), "b and b".to_owned()]));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn apply_text(self, request: impl Into<Vec<u8>>) -> Result<String, Error> {
        let pending = self.0.apply_async(request)?;
        or_cancel(|task| pending.poll_wait(task), || pending.cancel()).await;
        pending.get_text()
    }

    /// As [`WorkerPool::map`].
    ///
    /// # Errors
    /// As there.
    pub async fn map<R: Into<Vec<u8>>>(self, requests: impl IntoIterator<Item = R>) -> Result<Vec<Vec<u8>>, Error> {
        let (mut replies, mut all) = (self.imap(requests), Vec::new());
        while let Some(reply) = replies.next().await {
            all.push(reply?);
        }
        Ok(all)
    }

    /// As [`WorkerPool::map_text`].
    ///
    /// # Errors
    /// As there.
    pub async fn map_text<R: Into<Vec<u8>>>(self, requests: impl IntoIterator<Item = R>) -> Result<Vec<String>, Error> {
        let (mut replies, mut all) = (self.imap(requests), Vec::new());
        while let Some(reply) = replies.next_text().await {
            all.push(reply?);
        }
        Ok(all)
    }

    /// As [`WorkerPool::imap`].
    pub fn imap<R, I>(self, requests: I) -> Awaited<WorkerReplies<'a, I::IntoIter>>
    where
        R: Into<Vec<u8>>,
        I: IntoIterator<Item = R>,
    {
        self.0.imap(requests).future()
    }

    /// As [`WorkerPool::imap_unordered`].
    pub fn imap_unordered<R, I>(self, requests: I) -> Awaited<WorkerReplies<'a, I::IntoIter>>
    where
        R: Into<Vec<u8>>,
        I: IntoIterator<Item = R>,
    {
        self.0.imap_unordered(requests).future()
    }

    /// As [`WorkerPool::join`].
    ///
    /// # Errors
    /// As there.
    pub async fn join(self) -> Result<(), Error> {
        poll_fn(|task| self.0.poll_join(task)).await
    }

    /// As [`WorkerPool::join_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn join_timeout(self, timeout: Duration) -> Result<(), Error> {
        joined(timeout, |task| self.0.poll_join(task)).await
    }
}

/// A request that may not have been answered yet.
impl Awaited<&PendingReply> {
    /// As [`PendingReply::get`]: once. After that it is an error.
    ///
    /// # Errors
    /// As there.
    pub async fn get(self) -> Result<Vec<u8>, Error> {
        poll_fn(|task| self.0.poll_wait(task)).await;
        self.0.take()
    }

    /// As [`PendingReply::get_text`]: once. After that it is an error.
    ///
    /// # Errors
    /// As there.
    pub async fn get_text(self) -> Result<String, Error> {
        poll_fn(|task| self.0.poll_wait(task)).await;
        self.0.take().and_then(|reply| self.0.text_of(&reply))
    }

    /// As [`PendingReply::wait_timeout`].
    pub async fn wait_timeout(self, timeout: Duration) -> bool {
        waited(timeout, |task| self.0.poll_wait(task)).await
    }
}

/// Replies that come one by one.
impl<I> Awaited<WorkerReplies<'_, I>>
where
    I: Iterator,
    I::Item: Into<Vec<u8>>,
{
    /// The next reply; `None` if there are no more. The input is read by the thread that polls this.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        poll_fn(|task| self.0.poll_next(task)).await
    }

    /// The next reply as text: see [`WorkerReplies::texts`].
    pub async fn next_text(&mut self) -> Option<Result<String, Error>> {
        let reply = self.next().await?;
        Some(reply.and_then(|reply| self.0.text_of(&reply)))
    }

    /// As [`WorkerReplies::next_timeout`].
    pub async fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Vec<u8>, Error>> {
        next_before(timeout, |task| self.0.poll_next(task)).await
    }

    /// As [`WorkerReplies::is_over`].
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

/// Calls the function when it is dropped, unless there is none any more.
struct OnDrop<F: FnMut()>(Option<F>);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(function) = &mut self.0 {
            function();
        }
    }
}

/// Waits, and cancels if nobody waits any more.
pub(super) async fn or_cancel(wait: impl FnMut(&mut Context<'_>) -> Poll<()>, cancel: impl FnMut()) {
    let mut on_drop = OnDrop(Some(cancel));
    poll_fn(wait).await;
    on_drop.0 = None;
}

/// Whether it is ready before so long has passed. What it brings is taken only then.
async fn before<T>(timeout: Duration, mut wait: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let (deadline, mut alarm) = (Deadline::after(timeout), Alarm::default());
    poll_fn(|task| match wait(task) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if alarm.has_passed(task, deadline) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// The end of a pool, in time.
pub(super) async fn joined(
    timeout: Duration,
    wait: impl FnMut(&mut Context<'_>) -> Poll<Result<(), Error>>,
) -> Result<(), Error> {
    before(timeout, wait).await.unwrap_or_else(|| Err(not_ended(timeout)))
}

/// Whether an answer comes in time.
pub(super) async fn waited(timeout: Duration, wait: impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
    before(timeout, wait).await.is_some()
}

/// The next of an iteration, in time.
pub(super) async fn next_before<T>(
    timeout: Duration,
    wait: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>,
) -> Option<T> {
    before(timeout, wait).await.flatten()
}
