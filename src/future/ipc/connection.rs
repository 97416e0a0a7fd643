//! Connections, awaited. Leaves to `ipc` what becomes of a message that is out or has come in part: it stays with the connection.

use super::{once, tried, unless_late};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::future::Awaited;
use crate::ipc::{Connection, Messages, Parcel, RawConnection, Receiver, Sender};
use crate::sys::poll::{self, PollFd};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::AsFd;
use std::time::Duration;

impl<S, R> Connection<S, R> {
    /// The verbs of this connection as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped loses no byte and tears no message. What has come in part is kept for the next verb, blocking or not. Of a
    /// value that was being sent nothing is out, or [`is_sending`](Self::is_sending) is true: the rest goes before the next message then, and
    /// the value must not be sent again.
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut Connection<S, R>> {
        Awaited(self)
    }
}

impl<S> Sender<S> {
    /// The verbs of this half as futures: see [`Connection::future`].
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut Sender<S>> {
        Awaited(self)
    }
}

impl<R> Receiver<R> {
    /// The verbs of this half as futures: see [`Connection::future`].
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut Receiver<R>> {
        Awaited(self)
    }
}

impl<'a, R> Messages<'a, R> {
    /// The values that come as futures. A future that is dropped takes none.
    #[doc(alias = "async")]
    pub fn future(self) -> Awaited<Messages<'a, R>> {
        Awaited(self)
    }
}

impl RawConnection {
    /// The verbs of this connection as futures: see [`Connection::future`].
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut RawConnection> {
        Awaited(self)
    }
}

/// Readable, whenever that is.
fn readable<O: AsFd>(object: &O) -> (PollFd<'_>, Deadline) {
    (poll::readable(object.as_fd()), Deadline::NEVER)
}

/// Room to write, whenever there is some.
fn writable<O: AsFd>(object: &O) -> (PollFd<'_>, Deadline) {
    (poll::writable(object.as_fd()), Deadline::NEVER)
}

/// Both halves.
impl<S, R> Awaited<&mut Connection<S, R>> {
    /// As [`Connection::poll`].
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn poll(self, timeout: Duration) -> Result<bool, Error> {
        self.0.halves().1.future().poll(timeout).await
    }

    /// As [`Connection::flush`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn flush(self) -> Result<(), Error> {
        self.0.halves().0.future().flush().await
    }

    /// As [`Connection::flush_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn flush_timeout(self, timeout: Duration) -> Result<(), Error> {
        self.0.halves().0.future().flush_timeout(timeout).await
    }
}

/// Sending.
impl<S: Serialize, R> Awaited<&mut Connection<S, R>> {
    /// As [`Connection::send`].
    ///
    /// ```
    /// use procession::{future, ipc::Connection};
    ///
    /// let (mut ours, mut theirs) = Connection::<Vec<u8>, ()>::pair()?;
    /// let length = future::scope(|scope| {
    ///     // More than the kernel keeps: one waits for the other.
    ///     let sender = scope.spawn(async { ours.future().send(&vec![1; 1 << 20]).await });
    ///     scope.block_on(async {
    ///         let value = theirs.future().recv().await?;
    ///         sender.await??;
    ///         Ok::<_, Box<dyn std::error::Error>>(value.len())
    ///     })
    /// })???;
    /// assert_eq!(length, 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn send(self, value: &S) -> Result<(), Error> {
        self.0.halves().0.future().send(value).await
    }

    /// As [`Connection::send_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn send_timeout(self, value: &S, timeout: Duration) -> Result<(), Error> {
        self.0.halves().0.future().send_timeout(value, timeout).await
    }
}

/// Receiving.
impl<S, R: DeserializeOwned> Awaited<&mut Connection<S, R>> {
    /// As [`Connection::recv`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv(self) -> Result<R, Error> {
        self.0.halves().1.future().recv().await
    }

    /// As [`Connection::recv_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv_timeout(self, timeout: Duration) -> Result<R, Error> {
        self.0.halves().1.future().recv_timeout(timeout).await
    }
}

/// The half that sends.
impl<S> Awaited<&mut Sender<S>> {
    /// As [`Sender::flush`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn flush(self) -> Result<(), Error> {
        self.flush_until(Deadline::NEVER).await
    }

    /// As [`Sender::flush_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn flush_timeout(self, timeout: Duration) -> Result<(), Error> {
        self.flush_until(Deadline::after(timeout)).await
    }

    async fn flush_until(self, deadline: Deadline) -> Result<(), Error> {
        let attempt = |sender: &mut Sender<S>| unless_late(sender.flush_timeout(Duration::ZERO));
        tried(self.0, deadline, attempt, writable).await?
    }
}

/// The half that sends.
impl<S: Serialize> Awaited<&mut Sender<S>> {
    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn send(self, value: &S) -> Result<(), Error> {
        self.send_until(value, Deadline::NEVER).await
    }

    /// As [`Sender::send_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn send_timeout(self, value: &S, timeout: Duration) -> Result<(), Error> {
        self.send_until(value, Deadline::after(timeout)).await
    }

    async fn send_until(self, value: &S, deadline: Deadline) -> Result<(), Error> {
        let (bytes, descriptors) = self.0.encoded(value)?;
        let sent = match self.0.parcel(&bytes, descriptors) {
            Ok(mut parcel) => {
                let attempt = |sender: &mut Sender<S>| unless_late(sender.send_on(&mut parcel, Deadline::now()));
                tried(self.0, deadline, attempt, writable).await
            }
            Err(error) => Err(error),
        };
        self.0.keep(bytes);
        sent?
    }
}

/// The half that receives.
impl<R> Awaited<&mut Receiver<R>> {
    /// As [`Receiver::poll`].
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn poll(self, timeout: Duration) -> Result<bool, Error> {
        let attempt = |receiver: &mut Receiver<R>| once(receiver.poll(Duration::ZERO));
        tried(self.0, Deadline::after(timeout), attempt, readable).await
    }
}

/// The half that receives.
impl<R: DeserializeOwned> Awaited<&mut Receiver<R>> {
    /// As [`Receiver::recv`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv(self) -> Result<R, Error> {
        self.recv_until(Deadline::NEVER).await
    }

    /// As [`Receiver::recv_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv_timeout(self, timeout: Duration) -> Result<R, Error> {
        self.recv_until(Deadline::after(timeout)).await
    }

    async fn recv_until(self, deadline: Deadline) -> Result<R, Error> {
        let attempt = |receiver: &mut Receiver<R>| unless_late(receiver.recv_until(Deadline::now()));
        tried(self.0, deadline, attempt, readable).await?
    }
}

/// Values that come one by one.
impl<R: DeserializeOwned> Awaited<Messages<'_, R>> {
    /// The next value; `None` when the other side is closed.
    pub async fn next(&mut self) -> Option<Result<R, Error>> {
        let received = self.0.receiver()?.future().recv().await;
        self.0.item_of(received)
    }
}

/// Bytes.
impl Awaited<&mut RawConnection> {
    /// As [`RawConnection::send_bytes`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn send_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        self.send_until(RawConnection::parcel(bytes), Deadline::NEVER).await
    }

    /// As [`RawConnection::send_bytes_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn send_bytes_timeout(self, bytes: &[u8], timeout: Duration) -> Result<(), Error> {
        self.send_until(RawConnection::parcel(bytes), Deadline::after(timeout)).await
    }

    async fn send_until(self, mut parcel: Parcel<'_>, deadline: Deadline) -> Result<(), Error> {
        let attempt = |raw: &mut RawConnection| unless_late(raw.send_on(&mut parcel, Deadline::now()));
        tried(self.0, deadline, attempt, writable).await?
    }

    /// As [`RawConnection::flush`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn flush(self) -> Result<(), Error> {
        self.flush_until(Deadline::NEVER).await
    }

    /// As [`RawConnection::flush_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn flush_timeout(self, timeout: Duration) -> Result<(), Error> {
        self.flush_until(Deadline::after(timeout)).await
    }

    async fn flush_until(self, deadline: Deadline) -> Result<(), Error> {
        let attempt = |raw: &mut RawConnection| unless_late(raw.flush_timeout(Duration::ZERO));
        tried(self.0, deadline, attempt, writable).await?
    }

    /// As [`RawConnection::recv_bytes`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv_bytes(self) -> Result<Vec<u8>, Error> {
        self.recv_until(Deadline::NEVER).await
    }

    /// As [`RawConnection::recv_bytes_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv_bytes_timeout(self, timeout: Duration) -> Result<Vec<u8>, Error> {
        self.recv_until(Deadline::after(timeout)).await
    }

    async fn recv_until(self, deadline: Deadline) -> Result<Vec<u8>, Error> {
        let attempt = |raw: &mut RawConnection| unless_late(raw.recv_bytes_timeout(Duration::ZERO));
        tried(self.0, deadline, attempt, readable).await?
    }

    /// As [`RawConnection::recv_bytes_into`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn recv_bytes_into(self, buffer: &mut Vec<u8>) -> Result<usize, Error> {
        let attempt = |raw: &mut RawConnection| unless_late(raw.recv_bytes_into_until(buffer, Deadline::now()));
        tried(self.0, Deadline::NEVER, attempt, readable).await?
    }

    /// As [`RawConnection::poll`].
    ///
    /// # Errors
    /// If there is no runtime.
    pub async fn poll(self, timeout: Duration) -> Result<bool, Error> {
        let attempt = |raw: &mut RawConnection| once(raw.poll(Duration::ZERO));
        tried(self.0, Deadline::after(timeout), attempt, readable).await
    }
}
