//! Packet queues, awaited.

use super::{Try, tried};
use crate::deadline::Deadline;
use crate::future::Awaited;
use crate::ipc::{GetError, PacketReceiver, PacketSender, PutError};
use crate::sys::poll;
use std::os::fd::AsFd;
use std::time::Duration;

impl PacketSender {
    /// The verbs of this end as futures, on any runtime: see [`future`](crate::future). A future that is dropped has put nothing.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&PacketSender> {
        Awaited(self)
    }
}

impl PacketReceiver {
    /// The verbs of this end as futures, on any runtime: see [`future`](crate::future). A future that is dropped has taken nothing.
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&PacketReceiver> {
        Awaited(self)
    }
}

/// The verbs of the end where messages are put.
impl Awaited<&PacketSender> {
    /// As [`PacketSender::put`].
    ///
    /// # Errors
    /// As there; [`PutError::Broken`] if there is no runtime.
    pub async fn put(self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_until(message, Deadline::NEVER).await
    }

    /// As [`PacketSender::put_timeout`].
    ///
    /// # Errors
    /// As there; [`PutError::Broken`] if there is no runtime.
    pub async fn put_timeout(self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.put_until(message, Deadline::after(timeout)).await
    }

    async fn put_until(mut self, message: &[u8], deadline: Deadline) -> Result<(), PutError<()>> {
        let attempt = |end: &mut &PacketSender| match end.put_nowait(message) {
            Err(PutError::Full(())) => Try::Wait(Err(PutError::Full(()))),
            answer => Try::Answer(answer),
        };
        let put = tried(&mut self.0, deadline, attempt, |end| (poll::writable(end.as_fd()), Deadline::NEVER)).await;
        put.unwrap_or_else(|error| Err(PutError::Broken { item: (), error }))
    }
}

/// The verbs of the end where messages are got.
impl Awaited<&PacketReceiver> {
    /// As [`PacketReceiver::get`].
    ///
    /// ```
    /// use procession::{Command, future, ipc::packet_queue};
    ///
    /// let (sender, receiver) = packet_queue()?;
    /// let _child = Command::shell("printf done").stdout(sender).spawn()?;
    /// let mut message = Vec::new();
    /// future::block_on(async { receiver.future().get(&mut message).await })??;
    /// assert_eq!(message, b"done");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As there; [`GetError::Broken`] if there is no runtime.
    pub async fn get(self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_until(message, Deadline::NEVER).await
    }

    /// As [`PacketReceiver::get_timeout`].
    ///
    /// # Errors
    /// As there; [`GetError::Broken`] if there is no runtime.
    pub async fn get_timeout(self, message: &mut Vec<u8>, timeout: Duration) -> Result<(), GetError> {
        self.get_until(message, Deadline::after(timeout)).await
    }

    async fn get_until(mut self, message: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
        let attempt = |end: &mut &PacketReceiver| match end.get_nowait(message) {
            Err(GetError::Empty) => Try::Wait(Err(GetError::Empty)),
            answer => Try::Answer(answer),
        };
        let got = tried(&mut self.0, deadline, attempt, |end| (poll::readable(end.as_fd()), Deadline::NEVER)).await;
        got.unwrap_or_else(|error| Err(GetError::Broken(error)))
    }
}
