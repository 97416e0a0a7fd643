//! Listeners, awaited.

use super::{tried, unless_late};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::future::Awaited;
use crate::ipc::{Connection, Listener, RawConnection};
use crate::sys::poll;
use std::os::fd::AsFd;
use std::time::Duration;

impl Listener {
    /// The verbs of this listener as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped turns nobody away: who has connected meanwhile, or is still proving that it knows the key, is served by the
    /// next verb.
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut Listener> {
        Awaited(self)
    }
}

/// The verbs of a listener.
impl Awaited<&mut Listener> {
    /// As [`Listener::accept`].
    ///
    /// ```
    /// use procession::{future, ipc::{Connection, Listener}};
    ///
    /// let answer = future::block_on(async {
    ///     let mut listener = Listener::new()?;
    ///     let mut client = Connection::<u32, u64>::connect(listener.path().unwrap())?;
    ///     let mut server = listener.future().accept::<u64, u32>().await?;
    ///     client.future().send(&7).await?;
    ///     let number = server.future().recv().await?;
    ///     server.future().send(&(u64::from(number) * 6)).await?;
    ///     client.future().recv().await
    /// })??;
    /// assert_eq!(answer, 42);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn accept<S, R>(self) -> Result<Connection<S, R>, Error> {
        Ok(self.accept_until(Deadline::NEVER).await?.typed())
    }

    /// As [`Listener::accept_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn accept_timeout<S, R>(self, timeout: Duration) -> Result<Connection<S, R>, Error> {
        Ok(self.accept_until(Deadline::after(timeout)).await?.typed())
    }

    /// As [`Listener::accept_raw`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn accept_raw(self) -> Result<RawConnection, Error> {
        self.accept_until(Deadline::NEVER).await
    }

    /// As [`Listener::accept_raw_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn accept_raw_timeout(self, timeout: Duration) -> Result<RawConnection, Error> {
        self.accept_until(Deadline::after(timeout)).await
    }

    async fn accept_until(self, deadline: Deadline) -> Result<RawConnection, Error> {
        let attempt = |listener: &mut Listener| unless_late(listener.accept_until(Deadline::now()));
        tried(self.0, deadline, attempt, |listener| (poll::readable(listener.as_fd()), listener.next_moment())).await?
    }
}
