//! Events and semaphores between processes, awaited. Decides that who waits by their descriptors looks as often as who sleeps in memory: a party
//! that dies in the middle of a change may have told the descriptor nothing, or too much.

use super::{Try, once, tried};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::future::Awaited;
use crate::ipc::{Event, LOOK, Permit, Semaphore};
use crate::sys::poll;
use std::os::fd::AsFd;
use std::time::Duration;

impl Event {
    /// The verbs of this flag as futures, on any runtime: see [`future`](crate::future).
    ///
    /// They wait by the [descriptor](AsFd::as_fd): from the first wait on, setting and clearing take a system call more.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&Event> {
        Awaited(self)
    }
}

impl Semaphore {
    /// The verbs of this semaphore as futures, on any runtime: see [`future`](crate::future). A future that is dropped has taken no permit.
    ///
    /// They wait by the [descriptor](AsFd::as_fd): from the first wait on, taking and giving back take a lock.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&Semaphore> {
        Awaited(self)
    }
}

/// Waiting for a flag.
impl Awaited<&Event> {
    /// As [`Event::wait`].
    ///
    /// ```
    /// use procession::future;
    /// use procession::ipc::{Event, Process};
    ///
    /// let begun = Event::new()?;
    /// let mut process = Process::start(|begun: Event| begun.set(), begun.clone())?;
    /// future::block_on(async {
    ///     begun.future().wait().await?;
    ///     process.future().join().await
    /// })??;
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn wait(self) -> Result<(), Error> {
        self.wait_until(Deadline::NEVER).await.map(drop)
    }

    /// As [`Event::wait_timeout`].
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn wait_timeout(self, timeout: Duration) -> Result<bool, Error> {
        self.wait_until(Deadline::after(timeout)).await
    }

    async fn wait_until(mut self, deadline: Deadline) -> Result<bool, Error> {
        let attempt = |event: &mut &Event| once(event.is_set());
        tried(&mut self.0, deadline, attempt, |event| (poll::readable(event.notice()), Deadline::after(LOOK))).await
    }
}

/// Taking permits.
impl<'a> Awaited<&'a Semaphore> {
    /// As [`Semaphore::acquire`]. Nobody is first: whoever is there when there is a permit takes it.
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn acquire(self) -> Result<Permit<'a>, Error> {
        loop {
            if let Some(permit) = self.0.future().acquire_until(Deadline::NEVER).await? {
                return Ok(permit);
            }
        }
    }

    /// As [`Semaphore::acquire_timeout`].
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn acquire_timeout(self, timeout: Duration) -> Result<Option<Permit<'a>>, Error> {
        self.acquire_until(Deadline::after(timeout)).await
    }

    async fn acquire_until(mut self, deadline: Deadline) -> Result<Option<Permit<'a>>, Error> {
        // A try takes back what the dead have had.
        let attempt = |semaphore: &mut &'a Semaphore| match semaphore.try_acquire() {
            None => Try::Wait(None),
            permit => Try::Answer(permit),
        };
        tried(&mut self.0, deadline, attempt, |one| (poll::readable(one.as_fd()), Deadline::after(LOOK))).await
    }
}
