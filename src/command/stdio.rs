//! Where a stream of a child goes, as a value. Decides what can be asked for; files are opened and pipes made by `spawn`.

use crate::pipe::{PipeReader, PipeWriter};
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a stream of a child goes.
///
/// A value: it can be cloned and used for several commands. Descriptors given to it are closed when the last command or
/// `Stdio` that holds them is dropped; the child gets copies.
///
/// ```
/// use procession::{Command, Stdio};
///
/// let merged = Command::new("sh").args(["-c", "echo out; echo err >&2"]).stderr(Stdio::stdout()).output()?;
/// assert_eq!(merged.stdout(), b"out\nerr\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Stdio(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Inherit,
    Null,
    Pipe,
    /// The terminal of the command.
    Pty,
    File {
        path: PathBuf,
        mode: FileMode,
    },
    Fd(Arc<OwnedFd>),
    /// A descriptor that could not be duplicated; reported when the command is resolved.
    Broken {
        number: i32,
        errno: i32,
    },
    /// The other output stream of the child.
    Same(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileMode {
    Read,
    Truncate,
    Append,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Inherit, Kind::Inherit)
            | (Kind::Null, Kind::Null)
            | (Kind::Pipe, Kind::Pipe)
            | (Kind::Pty, Kind::Pty) => true,
            (Kind::File { path: one, mode: a }, Kind::File { path: two, mode: b }) => one == two && a == b,
            (Kind::Fd(one), Kind::Fd(two)) => one.as_raw_fd() == two.as_raw_fd(),
            (Kind::Broken { number: one, .. }, Kind::Broken { number: two, .. }) => one == two,
            (Kind::Same(one), Kind::Same(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for Kind {}

impl Stdio {
    /// The stream of the parent.
    pub fn inherit() -> Stdio {
        Stdio(Kind::Inherit)
    }

    /// The null device: nothing to read, and what is written is gone.
    #[doc(alias = "DEVNULL")]
    pub fn null() -> Stdio {
        Stdio(Kind::Null)
    }

    /// A pipe to the parent. After [`spawn`](crate::Command::spawn) the parent's end is a field of the
    /// [`Child`](crate::Child); verbs that run to the end collect from it.
    #[doc(alias = "PIPE")]
    #[doc(alias = "capture")]
    pub fn piped() -> Stdio {
        Stdio(Kind::Pipe)
    }

    /// The pseudo-terminal of the command, of which there is one, whatever the number of streams on it; see
    /// [`Command::pty`](crate::Command::pty), where its size and its settings are said. The parent's end is a field of the
    /// [`Child`](crate::Child), as with a pipe: of standard output and error only the first that is on the terminal.
    ///
    /// ```
    /// use procession::{Command, Stdio};
    ///
    /// let output = Command::shell("test -t 1 && echo yes").stdin(Stdio::null()).stdout(Stdio::pty()).output()?;
    /// assert_eq!(output.stdout(), b"yes\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn pty() -> Stdio {
        Stdio(Kind::Pty)
    }

    /// The file at this path, to read from; for standard input.
    pub fn read(path: impl Into<PathBuf>) -> Stdio {
        Stdio(Kind::File { path: path.into(), mode: FileMode::Read })
    }

    /// The file at this path, created if missing and emptied if not.
    pub fn write(path: impl Into<PathBuf>) -> Stdio {
        Stdio(Kind::File { path: path.into(), mode: FileMode::Truncate })
    }

    /// The file at this path, created if missing; every write goes to its end.
    pub fn append(path: impl Into<PathBuf>) -> Stdio {
        Stdio(Kind::File { path: path.into(), mode: FileMode::Append })
    }

    /// For standard error: where the child's standard output goes, by one open file description, so that the order of
    /// writes is kept.
    #[doc(alias = "STDOUT")]
    pub fn stdout() -> Stdio {
        Stdio(Kind::Same(1))
    }

    /// For standard output: where the child's standard error goes.
    pub fn stderr() -> Stdio {
        Stdio(Kind::Same(2))
    }

    /// A copy of a descriptor that stays the caller's. If it is not open, the command is refused with an error that names
    /// its number.
    pub fn borrowed(fd: impl AsFd) -> Stdio {
        let fd = fd.as_fd();
        match fd.try_clone_to_owned() {
            Ok(copy) => Stdio::from(copy),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EBADF);
                Stdio(Kind::Broken { number: fd.as_raw_fd(), errno })
            }
        }
    }

    pub(crate) fn is_pipe(&self) -> bool {
        matches!(self.0, Kind::Pipe)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.0, Kind::Null)
    }

    pub(crate) fn is_other_stream(&self) -> bool {
        matches!(self.0, Kind::Same(_))
    }

    pub(crate) fn is_pty(&self) -> bool {
        matches!(self.0, Kind::Pty)
    }

    /// Whether the other end is the parent's.
    pub(crate) fn has_end(&self) -> bool {
        self.is_pipe() || self.is_pty()
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Inherit => out.write_str("inherit"),
            Kind::Null => out.write_str("null"),
            Kind::Pipe => out.write_str("piped"),
            Kind::Pty => out.write_str("pty"),
            Kind::File { path, mode } => write!(out, "{mode:?} {}", path.display()),
            Kind::Fd(fd) => write!(out, "descriptor {}", fd.as_raw_fd()),
            Kind::Broken { number, .. } => write!(out, "descriptor {number} (not open)"),
            Kind::Same(stream) => write!(out, "same as {stream}"),
        }
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio(Kind::Fd(Arc::new(fd)))
    }
}

impl From<io::Stdin> for Stdio {
    fn from(stream: io::Stdin) -> Stdio {
        Stdio::borrowed(stream)
    }
}

impl From<io::Stdout> for Stdio {
    fn from(stream: io::Stdout) -> Stdio {
        Stdio::borrowed(stream)
    }
}

impl From<io::Stderr> for Stdio {
    fn from(stream: io::Stderr) -> Stdio {
        Stdio::borrowed(stream)
    }
}

macro_rules! from_descriptor {
    ($($owner:ty),*) => {
        $(impl From<$owner> for Stdio {
            fn from(owner: $owner) -> Stdio {
                Stdio::from(OwnedFd::from(owner))
            }
        })*
    };
}

from_descriptor!(
    File,
    PipeReader,
    PipeWriter,
    os_pipe::PipeReader,
    os_pipe::PipeWriter,
    UnixStream,
    TcpStream,
    UdpSocket,
    std::process::ChildStdin,
    std::process::ChildStdout,
    std::process::ChildStderr
);
