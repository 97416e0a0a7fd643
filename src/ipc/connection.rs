//! A connection between two processes: values of one type go out, values of another come in. Decides who may send what, and that both sides agree
//! on the types before the first value is read. Leaves to [`frames`](super::frames) how messages get through.
//!
//! Before its first value each side sends the name of its type, so that two programs that do not mean the same find out at once.

use super::frames::{self, Arrived, Incoming, Outgoing, Parcel};
use super::wire::{Kind, MESSAGE_MAX};
use super::{codec, passing};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::sys::socket::{self, Form};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Names of types are cut off here; both sides cut at the same place.
const NAME_MAX: usize = 1024;

/// One end of a two-way connection: sends values of the type `S`, receives values of the type `R`.
///
/// Messages arrive whole, in order, each once. Both types need serde's derive; whatever of this module is shared, and a
/// [`Descriptor`](super::Descriptor), can be part of a message between processes of one machine. A connection itself can be an argument of a
/// process or be sent through another connection, as long as it is not in the middle of a message: whoever passes it on drops its own copy
/// then, because two users of one end would take pieces of each other's messages.
///
/// A side that is closed, and a process that has died, are the same to the other one: what was sent before can still be received, then
/// [`recv`](Self::recv) is the error [`ErrorKind::Ended`], and so is sending. There is no signal.
///
/// One thread at a time sends, and one receives; for two at the same time there is [`split`](Self::split).
///
/// The descriptor ([`AsFd`]) is readable exactly when there is something to receive: nothing is read ahead.
///
/// ```
/// # fn main() -> Result<(), procession::Error> {
/// use procession::ipc::Connection;
///
/// let (mut ours, mut theirs) = Connection::<String, u32>::pair()?;
/// let other = std::thread::spawn(move || {
///     let text = theirs.recv()?;
///     theirs.send(&(text.len() as u32))
/// });
/// ours.send(&"hello".to_owned())?;
/// assert_eq!(ours.recv()?, 5);
/// other.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Pipe")]
#[doc(alias = "socketpair")]
#[doc(alias = "channel")]
pub struct Connection<S, R> {
    sender: Sender<S>,
    receiver: Receiver<R>,
}

impl<S, R> Connection<S, R> {
    /// Two ends that are connected: what one sends the other receives.
    ///
    /// # Errors
    /// Of the kernel, when there can be no more descriptors.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    ///
    /// let (mut one, mut two) = Connection::<u8, (u8, bool)>::pair()?;
    /// two.send(&(7, true))?;
    /// assert_eq!(one.recv()?, (7, true));
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::type_complexity)] // two ends are what it is
    pub fn pair() -> Result<(Connection<S, R>, Connection<R, S>), Error> {
        let (one, two) = frames::packet_pair()?;
        Ok((Connection::new(Way::local(one)), Connection::new(Way::local(two))))
    }

    fn new(way: Way) -> Connection<S, R> {
        RawConnection::new(way).typed()
    }

    /// An end that was inherited as a descriptor: a connected socket for a stream of bytes, or for packets in order
    /// (`SOCK_SEQPACKET`), on which nothing has been sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is something else.
    ///
    /// ```
    /// use procession::ipc::Connection;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (one, two) = UnixStream::pair()?;
    /// let mut one = Connection::<u8, u8>::from_fd(one.into())?;
    /// let mut two = Connection::<u8, u8>::from_fd(two.into())?;
    /// one.send(&1)?;
    /// assert_eq!(two.recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_fd(descriptor: OwnedFd) -> Result<Connection<S, R>, Error> {
        Ok(RawConnection::from_fd(descriptor)?.typed())
    }

    /// Refuses messages of more bytes than this, both ways; 1 GiB if nothing is said. A message that is too large is refused before it costs
    /// memory, and the next one can be received.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ErrorKind;
    /// use procession::ipc::Connection;
    ///
    /// let (mut one, two) = Connection::<Vec<u8>, ()>::pair()?;
    /// let mut two = two.message_max(1000);
    /// one.send(&vec![0; 2000])?;
    /// one.send(&vec![0; 20])?;
    /// assert_eq!(two.recv().unwrap_err().kind(), ErrorKind::Overflow);
    /// assert_eq!(two.recv()?.len(), 20);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "maxlength")]
    #[must_use]
    pub fn message_max(self, bytes: usize) -> Connection<S, R> {
        Connection { sender: self.sender.message_max(bytes), receiver: self.receiver.message_max(bytes) }
    }

    /// Whether the last value is out in part, because a timeout has passed in its middle. Its rest goes before the next message;
    /// [`flush`](Self::flush) sends it without one.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Sends the rest of a message that a timeout has interrupted. Needed only if nothing else is sent.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn flush(&mut self) -> Result<(), Error> {
        self.sender.flush()
    }

    /// As [`flush`](Self::flush), for so long at most.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.sender.flush_timeout(timeout)
    }

    /// Waits until there is something to receive, or the end, for so long at most. True then. A message of which only a part has come counts.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    /// use std::time::Duration;
    ///
    /// let (mut one, two) = Connection::<u8, u8>::pair()?;
    /// assert!(!two.poll(Duration::ZERO));
    /// one.send(&1)?;
    /// assert!(two.poll(Duration::from_secs(60)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll(&self, timeout: Duration) -> bool {
        self.receiver.poll(timeout)
    }

    /// The halves where they are.
    #[cfg(feature = "future")]
    pub(crate) fn halves(&mut self) -> (&mut Sender<S>, &mut Receiver<R>) {
        (&mut self.sender, &mut self.receiver)
    }

    /// Two halves, for two threads. The connection is closed when both are dropped.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    ///
    /// let (ours, theirs) = Connection::<u32, u32>::pair()?;
    /// let (mut sender, receiver) = ours.split();
    /// let echo = std::thread::spawn(move || {
    ///     let (mut sender, mut receiver) = theirs.split();
    ///     receiver.incoming().try_for_each(|number| sender.send(&number?))
    /// });
    /// let numbers = std::thread::spawn(move || {
    ///     let mut receiver = receiver;
    ///     receiver.incoming().sum::<Result<u32, _>>()
    /// });
    /// (0..1000).try_for_each(|number| sender.send(&number))?;
    /// sender.finish()?;
    /// assert_eq!(numbers.join().unwrap()?, 499_500);
    /// echo.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        (self.sender, self.receiver)
    }

    /// The same connection for bytes from now on. The other side must do the same at this point of their conversation.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] in the middle of a message.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    ///
    /// let (mut one, mut two) = Connection::<String, ()>::pair()?;
    /// one.send(&"bytes follow".to_owned())?;
    /// let mut one = one.into_raw()?;
    /// one.send_bytes(b"\x00\x01\x02")?;
    /// assert_eq!(two.recv()?, "bytes follow");
    /// assert_eq!(two.into_raw()?.recv_bytes()?, [0, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_raw(self) -> Result<RawConnection, Error> {
        let Connection { sender, receiver } = self;
        if let Some(why) = sender.in_the_way().or(receiver.in_the_way()) {
            return Err(Error::invalid(format!("the connection cannot be used for bytes: {why}")));
        }
        Ok(RawConnection { way: sender.way, out: sender.out, into: receiver.into })
    }

    /// Who is at the other end, on this machine: the process, user and group that made the connection. For a [`pair`](Self::pair) that is who
    /// made the pair.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a connection over TCP.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    ///
    /// let (one, _two) = Connection::<u8, u8>::pair()?;
    /// assert_eq!(one.peer()?.pid(), std::process::id());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "SO_PEERCRED")]
    pub fn peer(&self) -> Result<Peer, Error> {
        self.sender.way.peer()
    }
}

impl<S: Serialize, R> Connection<S, R> {
    /// Sends a value. Waits while the other side does not receive and the kernel's buffer is full.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the value cannot be sent: it is too large, it has too many descriptors in it (253 are the most), or
    /// it has any and the connection is one over TCP. [`ErrorKind::Ended`] if the other side is closed or has died. In each case nothing of it
    /// was sent, or nobody is there to receive it.
    pub fn send(&mut self, value: &S) -> Result<(), Error> {
        self.sender.send(value)
    }

    /// As [`send`](Self::send), for so long at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] also. Then [`is_sending`](Self::is_sending) tells whether a part of this value is out: if so, the rest will go
    /// before the next message, and the value must not be sent again; if not, nothing of it was sent.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    /// use std::time::Duration;
    ///
    /// let (mut one, mut two) = Connection::<Vec<u8>, ()>::pair()?;
    /// let late = one.send_timeout(&vec![1; 10_000_000], Duration::from_millis(1)).unwrap_err();
    /// assert!(late.is_timeout() && one.is_sending());
    /// let other = std::thread::spawn(move || two.recv());
    /// one.flush()?;
    /// assert_eq!(other.join().unwrap()?.len(), 10_000_000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_timeout(&mut self, value: &S, timeout: Duration) -> Result<(), Error> {
        self.sender.send_timeout(value, timeout)
    }
}

impl<S, R: DeserializeOwned> Connection<S, R> {
    /// Receives the next value. Waits until there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`] when the other side is closed or has died, and everything was received. [`ErrorKind::Overflow`] for a message
    /// that is too large, [`ErrorKind::Decode`] for one that is no value of this type, or is cut off; [`ErrorKind::ResourceExhausted`]
    /// where this process may not have as many descriptors as come: after these the next message can be received.
    /// [`ErrorKind::Decode`] again and again if the other side sends another type, or speaks something else.
    pub fn recv(&mut self) -> Result<R, Error> {
        self.receiver.recv()
    }

    /// As [`recv`](Self::recv), for so long at most. What has come of a message until then is kept for the next call.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] also.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    /// use std::time::Duration;
    ///
    /// let (mut one, mut two) = Connection::<u8, u8>::pair()?;
    /// assert!(two.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    /// one.send(&1)?;
    /// assert_eq!(two.recv_timeout(Duration::from_secs(60))?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R, Error> {
        self.receiver.recv_timeout(timeout)
    }

    /// As [`recv`](Self::recv), without waiting: `None` if no whole message is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    ///
    /// let (mut one, mut two) = Connection::<char, ()>::pair()?;
    /// assert_eq!(two.try_recv()?, None);
    /// one.send(&'a')?;
    /// assert_eq!(two.try_recv()?, Some('a'));
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_recv(&mut self) -> Result<Option<R>, Error> {
        self.receiver.try_recv()
    }

    /// The values that come, until the other side is closed. An error is one item: the next value follows, unless nothing can follow.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Connection;
    ///
    /// let (mut one, mut two) = Connection::<u8, ()>::pair()?;
    /// for number in 1..=3 {
    ///     one.send(&number)?;
    /// }
    /// drop(one);
    /// let numbers: Result<Vec<u8>, _> = two.incoming().collect();
    /// assert_eq!(numbers?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn incoming(&mut self) -> Messages<'_, R> {
        self.receiver.incoming()
    }
}

/// A one-way connection: what the sender sends the receiver receives.
///
/// # Errors
/// Of the kernel, when there can be no more descriptors.
///
/// ```
/// # fn main() -> Result<(), procession::Error> {
/// let (mut sender, mut receiver) = procession::ipc::one_way()?;
/// sender.send(&[1.5, 2.5])?;
/// drop(sender);
/// let all: Result<Vec<[f64; 2]>, _> = receiver.incoming().collect();
/// assert_eq!(all?, [[1.5, 2.5]]);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Pipe")]
#[doc(alias = "channel")]
pub fn one_way<T>() -> Result<(Sender<T>, Receiver<T>), Error> {
    let (one, two) = Connection::<T, ()>::pair()?;
    Ok((one.split().0, two.split().1))
}

/// The half of a connection that sends. See [`Connection`], whose methods these are.
pub struct Sender<S> {
    way: Arc<Way>,
    out: Outgoing,
    has_said_hello: bool,
    /// Memory for the bytes of a value.
    bytes: Vec<u8>,
    types: PhantomData<fn(&S)>,
}

impl<S> Sender<S> {
    fn new(way: Arc<Way>, out: Outgoing, has_said_hello: bool) -> Sender<S> {
        Sender { way, out, has_said_hello, bytes: Vec::new(), types: PhantomData }
    }

    /// As [`Connection::message_max`].
    #[must_use]
    pub fn message_max(mut self, bytes: usize) -> Sender<S> {
        self.out.set_length_max(bytes as u64);
        self
    }

    /// As [`Connection::is_sending`].
    pub fn is_sending(&self) -> bool {
        self.out.is_sending()
    }

    /// As [`Connection::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.out.flush(self.way.as_fd(), Deadline::NEVER)
    }

    /// As [`Connection::flush_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.out.flush(self.way.as_fd(), Deadline::after(timeout))
    }

    /// Says that nothing more will be sent, for everybody who has this end: the other side receives what is on its way and then the end, and can
    /// still send. Merely dropping a half says that only when the other half is dropped as well.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    #[doc(alias = "shutdown")]
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()?;
        match socket::end_sending(self.way.as_fd()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotConnected => Err(Error::io("shutdown", error)),
            _ => Ok(()),
        }
    }

    /// Why this half cannot be given to somebody else now.
    fn in_the_way(&self) -> Option<String> {
        self.out.has_rest().then(|| "a message is not out yet".to_owned())
    }
}

impl<S: Serialize> Sender<S> {
    /// As [`Connection::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, value: &S) -> Result<(), Error> {
        self.send_until(value, Deadline::NEVER)
    }

    /// As [`Connection::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout(&mut self, value: &S, timeout: Duration) -> Result<(), Error> {
        self.send_until(value, Deadline::after(timeout))
    }

    /// Sends a value, until this moment at most.
    pub(crate) fn send_until(&mut self, value: &S, deadline: Deadline) -> Result<(), Error> {
        let (bytes, descriptors) = self.encoded(value)?;
        let sent = self.send_encoded(&bytes, descriptors, deadline);
        self.keep(bytes);
        sent
    }

    /// The bytes of a value, and what travels beside them. The memory is to be [kept](Self::keep).
    pub(crate) fn encoded(&mut self, value: &S) -> Result<(Vec<u8>, Vec<OwnedFd>), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let (written, descriptors) = passing::gathering(|| codec::encode_into(value, &mut bytes));
        match written {
            Ok(()) => Ok((bytes, descriptors)),
            Err(error) => {
                self.keep(bytes);
                Err(error)
            }
        }
    }

    /// Keeps memory for the next value.
    pub(crate) fn keep(&mut self, mut bytes: Vec<u8>) {
        bytes.shrink_to(frames::kept(bytes.len()));
        self.bytes = bytes;
    }

    /// Sends the bytes of a value, and what travels beside them.
    pub(crate) fn send_encoded(
        &mut self,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let mut parcel = self.parcel(bytes, descriptors)?;
        self.send_on(&mut parcel, deadline)
    }

    /// A value that can be sent.
    pub(crate) fn parcel<'a>(&mut self, bytes: &'a [u8], descriptors: Vec<OwnedFd>) -> Result<Parcel<'a>, Error> {
        if !descriptors.is_empty() && !self.way.is_local {
            let name = codec::short_name::<S>();
            let text = format!("a value of the type {name} cannot be sent over TCP: there is a descriptor in it");
            return Err(Error::invalid(text));
        }
        if !self.has_said_hello {
            self.out.put_before(Kind::Hello, name_of::<S>().as_bytes())?;
            self.has_said_hello = true;
        }
        Ok(Parcel::new(Kind::Value, bytes, descriptors))
    }

    /// Sends it, or goes on with it.
    pub(crate) fn send_on(&mut self, parcel: &mut Parcel<'_>, deadline: Deadline) -> Result<(), Error> {
        self.out.send_on(self.way.as_fd(), parcel, deadline)
    }

    /// Sends an empty message that is no value: for who [expects](Receiver::recv_or_ring_until) such a thing.
    pub(crate) fn ring(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.out.send(self.way.as_fd(), Kind::Bytes, &[], Vec::new(), deadline)
    }
}

/// The half of a connection that receives. See [`Connection`], whose methods these are.
pub struct Receiver<R> {
    way: Arc<Way>,
    into: Incoming,
    hello: Hello,
    types: PhantomData<fn() -> R>,
}

/// What is known of the type of the other side.
#[derive(Debug)]
enum Hello {
    Awaited,
    Right,
    Wrong(String),
}

impl<R> Receiver<R> {
    fn new(way: Arc<Way>, into: Incoming, hello: Hello) -> Receiver<R> {
        Receiver { way, into, hello, types: PhantomData }
    }

    /// As [`Connection::message_max`].
    #[must_use]
    pub fn message_max(mut self, bytes: usize) -> Receiver<R> {
        self.into.set_length_max(bytes as u64);
        self
    }

    /// As [`Connection::poll`].
    pub fn poll(&self, timeout: Duration) -> bool {
        // What is wrong will be said by receiving.
        self.is_over() || frames::wait_readable(self.way.as_fd(), Deadline::after(timeout)).unwrap_or(true)
    }

    /// Whether receiving is an error from now on.
    fn is_over(&self) -> bool {
        self.into.is_over() || matches!(self.hello, Hello::Wrong(_))
    }

    /// Why this half cannot be given to somebody else now.
    fn in_the_way(&self) -> Option<String> {
        match &self.hello {
            _ if self.into.is_receiving() => Some("a message has come in part".to_owned()),
            Hello::Wrong(name) => Some(wrong_type::<R>(name).to_string()),
            Hello::Awaited | Hello::Right => None,
        }
    }
}

impl<R: DeserializeOwned> Receiver<R> {
    /// As [`Connection::recv`].
    ///
    /// # Errors
    /// As there.
    pub fn recv(&mut self) -> Result<R, Error> {
        self.recv_until(Deadline::NEVER)
    }

    /// As [`Connection::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R, Error> {
        self.recv_until(Deadline::after(timeout))
    }

    /// As [`Connection::try_recv`].
    ///
    /// # Errors
    /// As there.
    pub fn try_recv(&mut self) -> Result<Option<R>, Error> {
        match self.recv_until(Deadline::now()) {
            Err(error) if error.is_timeout() => Ok(None),
            result => result.map(Some),
        }
    }

    /// As [`Connection::incoming`].
    pub fn incoming(&mut self) -> Messages<'_, R> {
        Messages { receiver: self, has_failed: false }
    }

    /// Receives a value, until this moment at most.
    pub(crate) fn recv_until(&mut self, deadline: Deadline) -> Result<R, Error> {
        self.recv_or_ring_until(deadline)?.ok_or_else(|| unexpected::<R>("bytes have come"))
    }

    /// Receives a value, or `None` for an [empty message](Sender::ring).
    pub(crate) fn recv_or_ring_until(&mut self, deadline: Deadline) -> Result<Option<R>, Error> {
        loop {
            if let Hello::Wrong(name) = &self.hello {
                return Err(wrong_type::<R>(name));
            }
            let Arrived { kind, descriptors } = self.into.receive(self.way.as_fd(), deadline)?;
            match kind {
                Kind::Hello => self.hello = hear::<R>(self.into.body()),
                Kind::Value if matches!(self.hello, Hello::Awaited) => {
                    return Err(unexpected::<R>("a value has come and was not said to be of any type"));
                }
                Kind::Value => return codec::decode(self.into.body(), descriptors).map(Some),
                Kind::Bytes if self.into.body().is_empty() => return Ok(None),
                Kind::Bytes => return Err(unexpected::<R>("bytes have come")),
                Kind::Refusal => return Err(refused(self.into.body())),
                Kind::Challenge | Kind::Proof | Kind::Verdict => return Err(asks_for_key()),
            }
        }
    }
}

fn unexpected<R>(what: &str) -> Error {
    let text = format!("{what}, where values of the type {} are expected", codec::short_name::<R>());
    Error::new(ErrorKind::Decode).detail(text)
}

fn hear<R>(name: &[u8]) -> Hello {
    let name = String::from_utf8_lossy(name);
    if name == name_of::<R>() { Hello::Right } else { Hello::Wrong(name.chars().take(NAME_MAX).collect()) }
}

/// What stands in a hello.
fn name_of<T>() -> String {
    let mut name = codec::short_name::<T>();
    while name.len() > NAME_MAX {
        name.pop();
    }
    name
}

fn wrong_type<R>(theirs: &str) -> Error {
    let ours = codec::short_name::<R>();
    let text = format!("the other side sends values of the type {}, this one expects {ours}", theirs.escape_debug());
    Error::new(ErrorKind::Decode).detail(text)
}

/// The error of a connection that the other side does not want.
pub(crate) fn refused(why: &[u8]) -> Error {
    let why: String = String::from_utf8_lossy(why).chars().take(NAME_MAX).collect();
    Error::new(ErrorKind::PermissionDenied).detail(format!("the other side refuses: {}", why.escape_debug()))
}

fn asks_for_key() -> Error {
    Error::new(ErrorKind::PermissionDenied)
        .detail("the other side wants to see a proof of a key, and none is known here")
}

/// The values that come through a connection, until it is closed. From [`Connection::incoming`] and [`Receiver::incoming`].
#[derive(Debug)]
pub struct Messages<'a, R> {
    receiver: &'a mut Receiver<R>,
    /// Nothing can come after the last error.
    has_failed: bool,
}

impl<R: DeserializeOwned> Iterator for Messages<'_, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Result<R, Error>> {
        if self.has_failed {
            return None;
        }
        let received = self.receiver.recv();
        self.item_of(received)
    }
}

impl<R> Messages<'_, R> {
    /// Where they come from, unless nothing can come.
    #[cfg(feature = "future")]
    pub(crate) fn receiver(&mut self) -> Option<&mut Receiver<R>> {
        if self.has_failed { None } else { Some(self.receiver) }
    }

    /// What is yielded for what was received.
    pub(crate) fn item_of(&mut self, received: Result<R, Error>) -> Option<Result<R, Error>> {
        match received {
            Err(error) if error.kind() == ErrorKind::Ended => None,
            Err(error) => {
                self.has_failed = self.receiver.is_over() || error.kind() == ErrorKind::Io;
                Some(Err(error))
            }
            Ok(value) => Some(Ok(value)),
        }
    }
}

/// One end of a two-way connection for messages that are bytes. They arrive whole, in order, each once, and are never looked at.
///
/// Everything that is said of a [`Connection`] holds, but for the types. Descriptors cannot be part of bytes.
///
/// ```
/// # fn main() -> Result<(), procession::Error> {
/// use procession::ipc::RawConnection;
///
/// let (mut one, mut two) = RawConnection::pair()?;
/// one.send_bytes(b"any bytes")?;
/// one.send_bytes(b"")?;
/// assert_eq!(two.recv_bytes()?, b"any bytes");
/// assert_eq!(two.recv_bytes()?, b"");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RawConnection {
    way: Arc<Way>,
    out: Outgoing,
    into: Incoming,
}

impl RawConnection {
    /// Two ends that are connected.
    ///
    /// # Errors
    /// Of the kernel, when there can be no more descriptors.
    pub fn pair() -> Result<(RawConnection, RawConnection), Error> {
        let (one, two) = frames::packet_pair()?;
        Ok((RawConnection::new(Way::local(one)), RawConnection::new(Way::local(two))))
    }

    fn new(way: Way) -> RawConnection {
        RawConnection::with(way, MESSAGE_MAX, MESSAGE_MAX)
    }

    fn with(way: Way, send_max: u64, receive_max: u64) -> RawConnection {
        RawConnection { out: way.outgoing(send_max), into: way.incoming(receive_max), way: Arc::new(way) }
    }

    /// As [`Connection::from_fd`].
    ///
    /// # Errors
    /// As there.
    pub fn from_fd(descriptor: OwnedFd) -> Result<RawConnection, Error> {
        Ok(RawConnection::new(Way::new(descriptor)?))
    }

    /// As [`Connection::message_max`].
    #[must_use]
    pub fn message_max(mut self, bytes: usize) -> RawConnection {
        self.out.set_length_max(bytes as u64);
        self.into.set_length_max(bytes as u64);
        self
    }

    /// The same connection for values from now on. The other side must do the same at this point of their conversation.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::RawConnection;
    ///
    /// let (one, two) = RawConnection::pair()?;
    /// let (mut one, mut two) = (one.typed::<u8, ()>(), two.typed::<(), u8>());
    /// one.send(&5)?;
    /// assert_eq!(two.recv()?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<S, R>(self) -> Connection<S, R> {
        let RawConnection { way, out, into } = self;
        let sender = Sender::new(Arc::clone(&way), out, false);
        Connection { sender, receiver: Receiver::new(way, into, Hello::Awaited) }
    }

    /// As [`Connection::send`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.send(self.way.as_fd(), Kind::Bytes, bytes, Vec::new(), Deadline::NEVER)
    }

    /// As [`Connection::send_timeout`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn send_bytes_timeout(&mut self, bytes: &[u8], timeout: Duration) -> Result<(), Error> {
        self.out.send(self.way.as_fd(), Kind::Bytes, bytes, Vec::new(), Deadline::after(timeout))
    }

    /// As [`Connection::is_sending`].
    pub fn is_sending(&self) -> bool {
        self.out.is_sending()
    }

    /// As [`Connection::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.out.flush(self.way.as_fd(), Deadline::NEVER)
    }

    /// As [`Connection::flush_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn flush_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.out.flush(self.way.as_fd(), Deadline::after(timeout))
    }

    /// As [`Connection::recv`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn recv_bytes(&mut self) -> Result<Vec<u8>, Error> {
        self.receive(Deadline::NEVER)?;
        Ok(self.into.take_body())
    }

    /// As [`Connection::recv_timeout`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn recv_bytes_timeout(&mut self, timeout: Duration) -> Result<Vec<u8>, Error> {
        self.receive(Deadline::after(timeout))?;
        Ok(self.into.take_body())
    }

    /// As [`Connection::try_recv`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn try_recv_bytes(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.receive(Deadline::now()) {
            Err(error) if error.is_timeout() => Ok(None),
            result => result.map(|()| Some(self.into.take_body())),
        }
    }

    /// Receives a message into a buffer, whose content is replaced, and says how long it is. No memory is made if the messages fit into
    /// the buffers that go round.
    ///
    /// # Errors
    /// As [`Connection::recv`]. The buffer is as before then.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::RawConnection;
    ///
    /// let (mut one, mut two) = RawConnection::pair()?;
    /// let mut buffer = Vec::new();
    /// for text in ["first", "and second"] {
    ///     one.send_bytes(text.as_bytes())?;
    ///     assert_eq!(two.recv_bytes_into(&mut buffer)?, text.len());
    ///     assert_eq!(buffer, text.as_bytes());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_bytes_into(&mut self, buffer: &mut Vec<u8>) -> Result<usize, Error> {
        self.recv_bytes_into_until(buffer, Deadline::NEVER)
    }

    /// Receives bytes, until this moment at most.
    pub(crate) fn recv_bytes_into_until(&mut self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<usize, Error> {
        self.receive(deadline)?;
        // The old buffer is the memory of the next message.
        std::mem::swap(self.into.body(), buffer);
        self.into.body().clear();
        Ok(buffer.len())
    }

    /// Bytes that can be sent.
    #[cfg(feature = "future")]
    pub(crate) fn parcel(bytes: &[u8]) -> Parcel<'_> {
        Parcel::new(Kind::Bytes, bytes, Vec::new())
    }

    /// Sends bytes, or goes on with them.
    #[cfg(feature = "future")]
    pub(crate) fn send_on(&mut self, parcel: &mut Parcel<'_>, deadline: Deadline) -> Result<(), Error> {
        self.out.send_on(self.way.as_fd(), parcel, deadline)
    }

    fn receive(&mut self, deadline: Deadline) -> Result<(), Error> {
        let arrived = self.into.receive(self.way.as_fd(), deadline)?;
        let wrong = |text: String| Err(Error::new(ErrorKind::Decode).detail(text));
        match arrived.kind {
            Kind::Bytes => Ok(()),
            Kind::Hello => {
                let name = String::from_utf8_lossy(self.into.body()).escape_debug().to_string();
                wrong(format!("the other side sends values of the type {name}, this one expects bytes"))
            }
            Kind::Value => wrong("a value has come, where bytes are expected".to_owned()),
            Kind::Refusal => Err(refused(self.into.body())),
            Kind::Challenge | Kind::Proof | Kind::Verdict => Err(asks_for_key()),
        }
    }

    /// As [`Connection::poll`].
    pub fn poll(&self, timeout: Duration) -> bool {
        // What is wrong will be said by receiving.
        self.into.is_over() || frames::wait_readable(self.way.as_fd(), Deadline::after(timeout)).unwrap_or(true)
    }

    /// As [`Connection::peer`].
    ///
    /// # Errors
    /// As there.
    pub fn peer(&self) -> Result<Peer, Error> {
        self.way.peer()
    }
}

/// A process on this machine at the other end of a connection, as it was when the connection was made.
///
/// The number of a process may belong to somebody else when that one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(socket::Credentials);

impl Peer {
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Result<Peer, Error> {
        socket::peer(socket).map(Peer).map_err(|error| Error::io("getsockopt", error))
    }

    /// The number of the process; 0 for one that cannot be seen from here.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.0.pid).unwrap_or_default()
    }

    /// The user.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// The group.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }
}

/// The socket, and what can pass through it.
#[derive(Debug)]
struct Way {
    socket: OwnedFd,
    form: Form,
    is_local: bool,
}

impl Way {
    fn local(socket: OwnedFd) -> Way {
        Way { socket, form: Form::Packets, is_local: true }
    }

    fn new(descriptor: OwnedFd) -> Result<Way, Error> {
        let (socket, form) = frames::checked(descriptor)?;
        let is_local = socket::is_local(socket.as_fd()).map_err(|error| Error::io("getsockopt", error))?;
        Ok(Way { socket, form, is_local })
    }

    /// The way out of it, for messages of this length at most.
    fn outgoing(&self, length_max: u64) -> Outgoing {
        Outgoing::new(length_max).of_form(self.form)
    }

    /// The way into it.
    fn incoming(&self, length_max: u64) -> Incoming {
        Incoming::new(length_max).of_form(self.form)
    }

    fn peer(&self) -> Result<Peer, Error> {
        if !self.is_local {
            return Err(Error::unsupported(
                "the kernel does not know who is at the other end of a connection over TCP",
            ));
        }
        Peer::of(self.as_fd())
    }
}

impl AsFd for Way {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What goes with the descriptor when an end is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Passed {
    has_said_hello: bool,
    has_heard_hello: bool,
    send_max: u64,
    receive_max: u64,
}

impl Passed {
    fn serialize<S: Serializer>(self, way: &Way, why: Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(why) = why {
            let text = format!("a connection cannot be passed on now: {why}");
            return Err(S::Error::custom(passing::because(text)));
        }
        let hellos = (self.has_said_hello, self.has_heard_hello);
        (Borrowed(way.as_fd()), hellos, self.send_max, self.receive_max).serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Way, Passed), D::Error> {
        type Form = (passing::Descriptor, (bool, bool), u64, u64);
        let (descriptor, (has_said_hello, has_heard_hello), send_max, receive_max) = Form::deserialize(deserializer)?;
        let way = Way::new(descriptor.into_owned_fd()).map_err(|why| D::Error::custom(passing::because(why)))?;
        Ok((way, Passed { has_said_hello, has_heard_hello, send_max, receive_max }))
    }

    fn hello(self) -> Hello {
        if self.has_heard_hello { Hello::Right } else { Hello::Awaited }
    }
}

struct Borrowed<'a>(BorrowedFd<'a>);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        passing::serialize(self.0, serializer)
    }
}

impl<S> Sender<S> {
    fn passed(&self) -> Passed {
        Passed { has_said_hello: self.has_said_hello, send_max: self.out.length_max(), ..Passed::default() }
    }
}

impl<R> Receiver<R> {
    fn passed(&self) -> Passed {
        let has_heard_hello = matches!(self.hello, Hello::Right);
        Passed { has_heard_hello, receive_max: self.into.length_max(), ..Passed::default() }
    }
}

impl<S> Serialize for Sender<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.passed().serialize(&self.way, self.in_the_way(), serializer)
    }
}

impl<'de, S> Deserialize<'de> for Sender<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sender<S>, D::Error> {
        let (way, passed) = Passed::deserialize(deserializer)?;
        let out = way.outgoing(passed.send_max);
        Ok(Sender::new(Arc::new(way), out, passed.has_said_hello))
    }
}

impl<R> Serialize for Receiver<R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.passed().serialize(&self.way, self.in_the_way(), serializer)
    }
}

impl<'de, R> Deserialize<'de> for Receiver<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Receiver<R>, D::Error> {
        let (way, passed) = Passed::deserialize(deserializer)?;
        let into = way.incoming(passed.receive_max);
        Ok(Receiver::new(Arc::new(way), into, passed.hello()))
    }
}

impl<S, R> Serialize for Connection<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let Passed { has_said_hello, send_max, .. } = self.sender.passed();
        let passed = Passed { has_said_hello, send_max, ..self.receiver.passed() };
        let why = self.sender.in_the_way().or(self.receiver.in_the_way());
        passed.serialize(&self.sender.way, why, serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Connection<S, R>, D::Error> {
        let (way, passed) = Passed::deserialize(deserializer)?;
        let (out, into, way) = (way.outgoing(passed.send_max), way.incoming(passed.receive_max), Arc::new(way));
        let sender = Sender::new(Arc::clone(&way), out, passed.has_said_hello);
        Ok(Connection { sender, receiver: Receiver::new(way, into, passed.hello()) })
    }
}

impl Serialize for RawConnection {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let (send_max, receive_max) = (self.out.length_max(), self.into.length_max());
        let in_the_way = self.out.has_rest() || self.into.is_receiving();
        let why = in_the_way.then(|| "it is in the middle of a message".to_owned());
        Passed { send_max, receive_max, ..Passed::default() }.serialize(&self.way, why, serializer)
    }
}

impl<'de> Deserialize<'de> for RawConnection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawConnection, D::Error> {
        let (way, passed) = Passed::deserialize(deserializer)?;
        Ok(RawConnection::with(way, passed.send_max, passed.receive_max))
    }
}

impl<S, R> AsFd for Connection<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.way.as_fd()
    }
}

impl<S> AsFd for Sender<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.way.as_fd()
    }
}

impl<R> AsFd for Receiver<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.way.as_fd()
    }
}

impl AsFd for RawConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.way.as_fd()
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sends, receives) = (codec::short_name::<S>(), codec::short_name::<R>());
        out.debug_struct("Connection")
            .field("socket", &self.sender.way.socket)
            .field("sends", &format_args!("{sends}"))
            .field("receives", &format_args!("{receives}"))
            .finish()
    }
}

impl<S> fmt::Debug for Sender<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sends = codec::short_name::<S>();
        out.debug_struct("Sender").field("socket", &self.way.socket).field("sends", &format_args!("{sends}")).finish()
    }
}

impl<R> fmt::Debug for Receiver<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receives = codec::short_name::<R>();
        let receives = format_args!("{receives}");
        out.debug_struct("Receiver").field("socket", &self.way.socket).field("receives", &receives).finish()
    }
}
