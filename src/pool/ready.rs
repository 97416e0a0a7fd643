//! How a service says that it can be used, and how one looks for the sign without waiting for it.

use crate::command::Command;
use crate::error::Error;
use crate::pipe::{PipeReader, pipe};
use crate::sys;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// When a service can be used by the tasks that wait for it, and how long that may take.
///
/// ```
/// use procession::pool::Ready;
/// use std::time::Duration;
///
/// let ready = Ready::line("listening on").within(Duration::from_secs(5));
/// # let _ = ready;
/// ```
#[derive(Clone, Debug)]
pub struct Ready {
    pub(crate) sign: Sign,
    pub(crate) within: Duration,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) enum Sign {
    Line(String),
    Descriptor(i32),
    Port(SocketAddr),
    File(PathBuf),
    Started,
}

/// How long a service may take if nothing else is said.
const WITHIN: Duration = Duration::from_secs(30);

impl Ready {
    fn new(sign: Sign) -> Ready {
        Ready { sign, within: WITHIN }
    }

    /// When a line that contains this text was written to standard output or error.
    pub fn line(text: impl Into<String>) -> Ready {
        Ready::new(Sign::Line(text.into()))
    }

    /// When the service has written a line to this descriptor, which it gets as a pipe: as s6 and systemd-like services can do.
    #[doc(alias = "notification-fd")]
    pub fn descriptor(number: i32) -> Ready {
        Ready::new(Sign::Descriptor(number))
    }

    /// When a TCP connection to this address is accepted.
    pub fn port(address: impl Into<SocketAddr>) -> Ready {
        Ready::new(Sign::Port(address.into()))
    }

    /// When this file exists.
    pub fn file(path: impl Into<PathBuf>) -> Ready {
        Ready::new(Sign::File(path.into()))
    }

    /// As soon as it was started.
    pub fn started() -> Ready {
        Ready::new(Sign::Started)
    }

    /// How long it may take: half a minute unless this is set. A service that is not ready then is stopped and has failed.
    pub fn within(mut self, timeout: Duration) -> Ready {
        self.within = timeout;
        self
    }
}

/// How long one look may take for the answer of a port. On this machine it is refused or accepted at once.
const CONNECT: Duration = Duration::from_millis(50);

impl Sign {
    /// Whether the sign is there now, as far as it is one that others can see.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Sign::Port(address) => TcpStream::connect_timeout(address, CONNECT).is_ok(),
            Sign::File(path) => path.exists(),
            Sign::Started => true,
            Sign::Line(_) | Sign::Descriptor(_) => false,
        }
    }
}

/// Our end of the pipe to which a service writes that it is ready.
pub(super) struct Probe {
    reader: PipeReader,
    is_ready: bool,
}

impl Probe {
    /// Gives a command the pipe.
    pub(super) fn descriptor(command: &mut Command, number: i32) -> Result<Probe, Error> {
        let (reader, writer) = pipe().map_err(|error| Error::io("pipe", error))?;
        sys::fd::set_nonblocking(reader.as_fd()).map_err(|error| Error::io("fcntl", error))?;
        *command = command.clone().fd(number, writer);
        Ok(Probe { reader, is_ready: false })
    }

    /// Whether a line, or the beginning of one, has come. An end without a word is none.
    pub(super) fn look(&mut self) -> bool {
        let mut bytes = [0; 256];
        self.is_ready |= sys::fd::read(self.reader.as_fd(), &mut bytes).is_ok_and(|count| count > 0);
        self.is_ready
    }
}
