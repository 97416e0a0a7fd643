//! A pool whose records are awaited. Its threads go on by themselves, so nothing is asked of a runtime but the time.

use super::Awaited;
use super::runtime::Alarm;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::Output;
use crate::pool::{Done, Pending, Pool, Results, ReturnWhen, Task, hang_all};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

impl Pool {
    /// The verbs of this pool as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped cancels the task that it was to wait for.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&Pool> {
        Awaited(self)
    }
}

impl Pending {
    /// The verbs of this task as futures. A future that is dropped changes nothing.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&Pending> {
        Awaited(self)
    }
}

impl<'a, I> Results<'a, I> {
    /// The records of this loop as futures. A future that is dropped takes no record.
    #[doc(alias = "async")]
    pub fn future(self) -> Awaited<Results<'a, I>> {
        Awaited(self)
    }
}

/// Cancels its task, unless that is over.
struct Cancelling(Option<Pending>);

impl Drop for Cancelling {
    fn drop(&mut self) {
        if let Some(pending) = &self.0 {
            pending.cancel();
        }
    }
}

/// The verbs of a pool.
impl<'a> Awaited<&'a Pool> {
    /// As [`Pool::apply`].
    ///
    /// ```
    /// use procession::{Command, Pool, future};
    ///
    /// let pool = Pool::new(2);
    /// let output = future::block_on(async { pool.future().apply(Command::new("echo").arg("hello")).await })??;
    /// assert_eq!(output.stdout(), b"hello\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn apply(self, task: impl Into<Task>) -> Result<Output, Error> {
        let mut pending = Cancelling(Some(self.0.apply_async(task)?));
        if let Some(pending) = &pending.0 {
            let bell = hang_all([pending]);
            poll_fn(|task| bell.poll_wait(task)).await;
        }
        match pending.0.take() {
            Some(pending) => pending.into_done().into_result(),
            None => Err(Error::invalid("a task that is over")),
        }
    }

    /// As [`Pool::map`].
    pub async fn map<T: Into<Task>>(self, tasks: impl IntoIterator<Item = T>) -> Vec<Done> {
        let (mut results, mut all) = (self.imap(tasks), Vec::new());
        while let Some(done) = results.next().await {
            all.push(done);
        }
        all
    }

    /// As [`Pool::imap`].
    pub fn imap<T: Into<Task>, I: IntoIterator<Item = T>>(self, tasks: I) -> Awaited<Results<'a, I::IntoIter>> {
        self.0.imap(tasks).future()
    }

    /// As [`Pool::imap_unordered`].
    ///
    /// ```
    /// use procession::{Command, Pool, future};
    ///
    /// let pool = Pool::new(4);
    /// let succeeded = future::block_on(async {
    ///     let commands = (0..20).map(|number| Command::shell(format!("exit {}", number % 2)));
    ///     let (mut results, mut succeeded) = (pool.future().imap_unordered(commands), 0);
    ///     while let Some(done) = results.next().await {
    ///         succeeded += usize::from(done.success());
    ///     }
    ///     succeeded
    /// })?;
    /// assert_eq!(succeeded, 10);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn imap_unordered<T: Into<Task>, I: IntoIterator<Item = T>>(
        self,
        tasks: I,
    ) -> Awaited<Results<'a, I::IntoIter>> {
        self.0.imap_unordered(tasks).future()
    }

    /// As [`Pool::join`].
    ///
    /// # Errors
    /// As there.
    pub async fn join(self) -> Result<(), Error> {
        self.join_deadline(Deadline::NEVER).await
    }

    /// As [`Pool::join_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn join_timeout(self, timeout: Duration) -> Result<(), Error> {
        self.join_deadline(Deadline::after(timeout)).await
    }

    /// As [`Pool::join_deadline`].
    ///
    /// # Errors
    /// As there.
    pub async fn join_deadline(self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        let (deadline, mut alarm) = (deadline.into(), Alarm::default());
        poll_fn(|task| self.0.poll_join(task, |task| alarm.has_passed(task, deadline))).await
    }
}

/// A task that may not be over yet.
impl<'a> Awaited<&'a Pending> {
    /// As [`Pending::wait`].
    pub async fn wait(self) -> &'a Done {
        loop {
            if let Some(done) = self.0.future().wait_deadline(Deadline::NEVER).await {
                return done;
            }
        }
    }

    /// As [`Pending::wait_timeout`].
    pub async fn wait_timeout(self, timeout: Duration) -> Option<&'a Done> {
        self.wait_deadline(Deadline::after(timeout)).await
    }

    /// As [`Pending::wait_deadline`].
    pub async fn wait_deadline(self, deadline: impl Into<Deadline>) -> Option<&'a Done> {
        let (bell, deadline, mut alarm) = (hang_all([self.0]), deadline.into(), Alarm::default());
        poll_fn(|task| match bell.poll_wait(task) {
            Poll::Pending if !alarm.has_passed(task, deadline) => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        self.0.done()
    }
}

/// Records that come one by one.
impl<T: Into<Task>, I: Iterator<Item = T>> Awaited<Results<'_, I>> {
    /// The next record; `None` if there are no more. The input is read by the thread that polls this.
    pub async fn next(&mut self) -> Option<Done> {
        let mut alarm = Alarm::default();
        poll_fn(|task| self.0.poll_next(task, |task, deadline| alarm.has_passed(task, deadline))).await
    }

    /// As [`Results::next_timeout`].
    pub async fn next_timeout(&mut self, timeout: Duration) -> Option<Done> {
        let (mut whole, mut own, deadline) = (Alarm::default(), Alarm::default(), Deadline::after(timeout));
        poll_fn(|task| {
            let next = self.0.poll_next(task, |task, deadline| whole.has_passed(task, deadline));
            if next.is_pending() && own.has_passed(task, deadline) { Poll::Ready(None) } else { next }
        })
        .await
    }
}

/// As [`pool::wait`](crate::pool::wait()), awaited.
pub async fn wait_pending(
    pending: &[Pending],
    when: ReturnWhen,
    deadline: impl Into<Deadline>,
) -> (Vec<usize>, Vec<usize>) {
    let (deadline, bell, mut alarm) = (deadline.into(), hang_all(pending), Alarm::default());
    let (mut over, mut has_failed) = (0, false);
    while over < pending.len() && !when.is_enough(over, has_failed) {
        let place = poll_fn(|task| match bell.poll_wait(task) {
            Poll::Ready(place) => Poll::Ready(Some(place)),
            Poll::Pending if alarm.has_passed(task, deadline) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let Some(place) = place.await else { break };
        over += 1;
        has_failed |= pending.get(place).and_then(Pending::success) == Some(false);
    }
    (0..pending.len()).partition(|&place| pending.get(place).is_some_and(Pending::is_done))
}
