//! Pools of processes, awaited. Their threads go on by themselves, so nothing is asked of a runtime but the time.

use crate::error::Error;
use crate::future::Awaited;
use crate::future::workers::{joined, next_before, or_cancel, waited};
use crate::ipc::{PendingResult, ProcessPool, ProcessResults};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::poll_fn;
use std::time::Duration;

impl ProcessPool {
    /// The verbs of this pool as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped cancels the tasks that it was to wait for.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&ProcessPool> {
        Awaited(self)
    }
}

impl<R> PendingResult<R> {
    /// The verbs of this task as futures. A future that is dropped changes nothing.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&PendingResult<R>> {
        Awaited(self)
    }
}

impl<'a, F, R, I> ProcessResults<'a, F, R, I> {
    /// The results of this iteration as futures. A future that is dropped takes no result.
    #[doc(alias = "async")]
    pub fn future(self) -> Awaited<ProcessResults<'a, F, R, I>> {
        Awaited(self)
    }
}

/// The verbs of a pool.
impl<'a> Awaited<&'a ProcessPool> {
    /// As [`ProcessPool::apply`].
    ///
    /// ```
    /// use procession::{future, ipc::ProcessPool};
    ///
    /// let pool = ProcessPool::new(2)?;
    /// let square = |number: u64| number * number;
    /// let (one, all) = future::block_on(async {
    ///     let one = pool.future().apply(square, 12).await?;
    ///     Ok::<_, procession::Error>((one, pool.future().map(square, 0..4).await?))
    /// })??;
    /// assert_eq!((one, all), (144, vec![0, 1, 4, 9]));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn apply<F, A, R>(self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let pending = self.0.apply_async(function, arguments)?;
        or_cancel(|task| pending.poll_wait(task), || pending.cancel()).await;
        pending.get()
    }

    /// As [`ProcessPool::map`].
    ///
    /// # Errors
    /// As there.
    #[doc(alias = "starmap")]
    pub async fn map<F, A, R>(self, function: F, items: impl IntoIterator<Item = A>) -> Result<Vec<R>, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let (mut results, mut all) = (self.imap(function, items), Vec::new());
        while let Some(result) = results.next().await {
            all.push(result?);
        }
        Ok(all)
    }

    /// As [`ProcessPool::imap`].
    pub fn imap<F, A, R, I>(self, function: F, items: I) -> Awaited<ProcessResults<'a, F, R, I::IntoIter>>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.0.imap(function, items).future()
    }

    /// As [`ProcessPool::imap_unordered`].
    pub fn imap_unordered<F, A, R, I>(self, function: F, items: I) -> Awaited<ProcessResults<'a, F, R, I::IntoIter>>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.0.imap_unordered(function, items).future()
    }

    /// As [`ProcessPool::join`].
    ///
    /// # Errors
    /// As there.
    pub async fn join(self) -> Result<(), Error> {
        poll_fn(|task| self.0.poll_join(task)).await
    }

    /// As [`ProcessPool::join_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn join_timeout(self, timeout: Duration) -> Result<(), Error> {
        joined(timeout, |task| self.0.poll_join(task)).await
    }
}

/// A task that may not have ended yet.
impl<R> Awaited<&PendingResult<R>> {
    /// As [`PendingResult::wait_timeout`].
    pub async fn wait_timeout(self, timeout: Duration) -> bool {
        waited(timeout, |task| self.0.poll_wait(task)).await
    }
}

/// A task that may not have ended yet.
impl<R: DeserializeOwned> Awaited<&PendingResult<R>> {
    /// As [`PendingResult::get`]: once. After that it is an error.
    ///
    /// # Errors
    /// As there.
    pub async fn get(self) -> Result<R, Error> {
        poll_fn(|task| self.0.poll_wait(task)).await;
        self.0.take()
    }
}

/// Results that come one by one.
impl<F, A, R, I> Awaited<ProcessResults<'_, F, R, I>>
where
    F: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
    I: Iterator<Item = A>,
{
    /// The next result; `None` if there are no more. The input is read by the thread that polls this.
    pub async fn next(&mut self) -> Option<Result<R, Error>> {
        poll_fn(|task| self.0.poll_next(task)).await
    }

    /// As [`ProcessResults::next_timeout`].
    pub async fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R, Error>> {
        next_before(timeout, |task| self.0.poll_next(task)).await
    }
}

impl<F, R, I> Awaited<ProcessResults<'_, F, R, I>> {
    /// As [`ProcessResults::is_over`].
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}
