//! A queue that is the kernel's: a pair of sockets that keep messages apart (`SOCK_SEQPACKET`, unix(7)). Decides that one write is one message and
//! one read is one message, for programs in every language. What is not Rust needs nothing but its descriptor.

use super::passing;
use super::queue::{GetError, PutError};
use crate::command::Stdio;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::{poll, socket};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The largest message in bytes. Whoever reads needs room for so many.
const SIZE_MAX: usize = 64 * 1024;

/// A queue of messages for programs in any language: the end to put messages in, and the end to get them from.
///
/// Any number of processes can have copies of either end. A message is what one write(2) wrote, and goes to one of those who read, whole: one
/// read(2) with room for 64 KiB gets it. The kernel does both or neither, so a process that is killed tears nothing and holds up
/// nobody. When no copy of the first end is left, readers see the end of file behind the last message; when no copy of the second one is
/// left, a write is the error EPIPE, and the signal SIGPIPE for those who have not asked for the error. The kernel keeps some hundred
/// messages (`net.core.wmem_default`), and then a write waits.
///
/// For Rust on both sides a [`Queue`](super::Queue) is faster, has typed values, and knows more.
///
/// A shell writes with its `printf`, which is one write, and reads with `dd`, because what it calls `read` takes bytes one at a time and would
/// throw away the rest of the message. The POSIX shell names descriptors with one digit.
///
/// ```
/// use procession::Command;
/// use procession::ipc::packet_queue;
///
/// let (jobs, workers_jobs) = packet_queue()?;
/// let (workers_results, results) = packet_queue()?;
/// let worker = "while job=$(dd bs=65536 count=1 <&3 2>/dev/null) && [ -n \"$job\" ]; do printf 'done: %s' \"$job\" >&4; done";
/// let worker = Command::shell(worker).fd(3, workers_jobs).fd(4, workers_results);
/// let mut workers = [worker.spawn()?, worker.spawn()?];
/// drop(worker); // and with it our copies of the workers' ends
///
/// for number in 0..10 {
///     jobs.put(format!("job {number}").as_bytes())?;
/// }
/// drop(jobs);
/// assert_eq!(results.iter().collect::<Result<Vec<_>, _>>()?.len(), 10);
/// for worker in &mut workers {
///     worker.wait()?;
/// }
/// # Ok::<(), procession::Error>(())
/// ```
///
/// # Errors
/// If the process has no descriptors left.
pub fn packet_queue() -> Result<(PacketSender, PacketReceiver), Error> {
    let (one, two) = socket::packet_pair().map_err(|error| Error::io("socketpair", error))?;
    Ok((PacketSender { fd: one }, PacketReceiver { fd: two }))
}

/// The end of a [`packet_queue`] where messages are put.
///
/// As [`Stdio`] it can be any stream or descriptor of a child, also standard output, of a program that writes each message at once.
///
/// ```
/// use procession::Command;
/// use procession::ipc::packet_queue;
///
/// let (sender, receiver) = packet_queue()?;
/// Command::shell("printf one; printf two").stdout(sender).status()?;
/// let messages: Vec<Vec<u8>> = receiver.iter().collect::<Result<_, _>>()?;
/// assert_eq!(messages, [b"one", b"two"]);
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
pub struct PacketSender {
    fd: OwnedFd,
}

/// The end of a [`packet_queue`] where messages are got.
///
/// ```
/// use procession::ipc::{GetError, packet_queue};
///
/// let (sender, receiver) = packet_queue()?;
/// sender.put(b"hello")?;
/// drop(sender);
/// let mut message = Vec::new();
/// receiver.get(&mut message)?;
/// assert_eq!(message, b"hello");
/// assert!(matches!(receiver.get(&mut message), Err(GetError::Closed)));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
pub struct PacketReceiver {
    fd: OwnedFd,
}

impl PacketSender {
    /// Puts a message of 1 to 65,536 bytes, and waits for room if there is none.
    ///
    /// # Errors
    /// [`PutError::TooLarge`]; [`PutError::PeersGone`] if no copy of the other end is left; [`PutError::Encode`] for a message without bytes,
    /// which would look like the end.
    pub fn put(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_until(message, Deadline::NEVER)
    }

    /// As [`put`](PacketSender::put), and waits for so long at most.
    ///
    /// # Errors
    /// Also [`PutError::Full`].
    pub fn put_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
        self.put_until(message, Deadline::after(timeout))
    }

    /// As [`put`](PacketSender::put), and does not wait.
    ///
    /// # Errors
    /// Also [`PutError::Full`].
    pub fn put_nowait(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.put_until(message, Deadline::now())
    }

    fn put_until(&self, message: &[u8], deadline: Deadline) -> Result<(), PutError<()>> {
        if message.len() > SIZE_MAX {
            return Err(PutError::TooLarge { item: (), size: message.len(), size_max: SIZE_MAX });
        }
        if message.is_empty() {
            return Err(PutError::Encode { item: (), error: Error::invalid("a message of a packet queue has a byte") });
        }
        let broken = |step: &'static str, error| PutError::Broken { item: (), error: Error::io(step, error) };
        loop {
            match socket::send(self.as_fd(), &[IoSlice::new(message)], &[], false) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_gone(&error) => return Err(PutError::PeersGone(())),
                Err(error) => return Err(broken("send", error)),
            }
            let room = poll::wait(&mut [poll::writable(self.as_fd())], deadline.moment());
            if !room.map_err(|error| broken("poll", error))? {
                return Err(PutError::Full(()));
            }
        }
    }
}

/// The other end was closed, perhaps with messages in it.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl PacketReceiver {
    /// Gets a message, instead of what is in `message`, and waits for one if there is none.
    ///
    /// # Errors
    /// [`GetError::Closed`] if no copy of the other end is left and all has been got; [`GetError::Decode`] if somebody has written a message of more
    /// than 65,536 bytes, which is gone then.
    pub fn get(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_until(message, Deadline::NEVER)
    }

    /// As [`get`](PacketReceiver::get), and waits for so long at most.
    ///
    /// # Errors
    /// Also [`GetError::Empty`].
    pub fn get_timeout(&self, message: &mut Vec<u8>, timeout: Duration) -> Result<(), GetError> {
        self.get_until(message, Deadline::after(timeout))
    }

    /// As [`get`](PacketReceiver::get), and does not wait.
    ///
    /// # Errors
    /// Also [`GetError::Empty`].
    pub fn get_nowait(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_until(message, Deadline::now())
    }

    /// All messages, until no copy of the other end is left. Waits for each.
    pub fn iter(&self) -> impl Iterator<Item = Result<Vec<u8>, GetError>> + '_ {
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let mut message = Vec::new();
            let got = self.get(&mut message).map(|()| message);
            ended = matches!(got, Err(GetError::Closed | GetError::Broken(_)));
            Some(got).filter(|got| !matches!(got, Err(GetError::Closed)))
        })
    }

    fn get_until(&self, message: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
        message.clear();
        // One more byte than allowed, to see what is too long.
        message.reserve(SIZE_MAX + 1);
        loop {
            match socket::receive(self.as_fd(), message, SIZE_MAX + 1, false) {
                Ok(0) => return Err(GetError::Closed),
                Ok(size) if size > SIZE_MAX => {
                    message.clear();
                    let text = format!("a message of more than {SIZE_MAX} bytes was cut off");
                    return Err(GetError::Decode(Error::invalid(text)));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_gone(&error) => return Err(GetError::Closed),
                Err(error) => return Err(GetError::Broken(Error::io("recv", error))),
            }
            match poll::wait_readable(self.as_fd(), deadline.moment()) {
                Ok(true) => {}
                Ok(false) => return Err(GetError::Empty),
                Err(error) => return Err(GetError::Broken(Error::io("poll", error))),
            }
        }
    }
}

/// What descriptors can.
macro_rules! end {
    ($end:ident) => {
        impl $end {
            /// Another descriptor of the same end.
            ///
            /// # Errors
            /// If the process has no descriptors left.
            pub fn try_clone(&self) -> Result<$end, Error> {
                let fd = self.fd.try_clone().map_err(|error| Error::io("dup", error))?;
                Ok($end { fd })
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl From<$end> for OwnedFd {
            fn from(end: $end) -> OwnedFd {
                end.fd
            }
        }

        /// For a descriptor that this process was given. What it is shows with the first message.
        impl From<OwnedFd> for $end {
            fn from(fd: OwnedFd) -> $end {
                $end { fd }
            }
        }

        impl From<$end> for Stdio {
            fn from(end: $end) -> Stdio {
                Stdio::from(end.fd)
            }
        }

        /// Only while it is passed to another process.
        impl Serialize for $end {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                passing::serialize(self.as_fd(), serializer)
            }
        }

        impl<'de> Deserialize<'de> for $end {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$end, D::Error> {
                let fd = passing::Descriptor::deserialize(deserializer)?;
                Ok($end { fd: fd.into_owned_fd() })
            }
        }
    };
}

end!(PacketSender);
end!(PacketReceiver);
