//! How a service says that it can be used.

use std::net::SocketAddr;
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
