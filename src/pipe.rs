//! The pipe ends that a parent keeps. Decides how they read and write; what is done with the bytes is decided elsewhere.

use crate::deadline::Deadline;
use crate::sys;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// The end of a pipe to read from: a child's standard output or error.
///
/// Reading blocks until bytes come or every writer has gone. Dropping it closes the end; a child that goes on writing then
/// gets SIGPIPE.
///
/// ```
/// use procession::{Command, Stdio};
/// use std::io::Read;
///
/// let mut child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
/// let mut text = String::new();
/// child.stdout.take().unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "hello\n");
/// child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PipeReader {
    fd: OwnedFd,
}

/// The end of a pipe to write to: a child's standard input.
///
/// Writing blocks while the pipe is full. If the child has closed its end the error is `BrokenPipe`, and never a signal,
/// also in programs that do not ignore SIGPIPE. Dropping it closes the end, and the child sees the end of its input.
///
/// ```
/// use procession::{Command, Stdio};
/// use std::io::Write;
///
/// let mut child = Command::new("grep").args(["-q", "needle"]).stdin(Stdio::piped()).spawn()?;
/// child.stdin.take().unwrap().write_all(b"hay\nneedle\n")?;
/// assert!(child.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PipeWriter {
    fd: OwnedFd,
}

/// A new pipe: what is written to the second end is read from the first. Both are close-on-exec.
///
/// Give one end to a command as [`Stdio`](crate::Stdio) and keep the other.
///
/// # Errors
/// If the process or the system has no descriptors left.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = sys::pipe::pair()?;
    Ok((PipeReader { fd: reader }, PipeWriter { fd: writer }))
}

impl PipeReader {
    pub(crate) fn new(fd: OwnedFd) -> PipeReader {
        PipeReader { fd }
    }

    /// Waits until a read will not block, or the deadline has passed. True if it will not: bytes are there, or the end.
    ///
    /// # Errors
    /// If poll(2) fails.
    pub fn wait_readable(&self, deadline: impl Into<Deadline>) -> io::Result<bool> {
        sys::poll::wait_readable(self.fd.as_fd(), deadline.into().moment())
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

/// A conversation may have left the end non-blocking; a plain read blocks all the same.
impl Read for &PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match sys::fd::read(self.fd.as_fd(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sys::poll::wait_readable(self.fd.as_fd(), None)?;
                }
                result => return result,
            }
        }
    }
}

impl PipeWriter {
    pub(crate) fn new(fd: OwnedFd) -> PipeWriter {
        PipeWriter { fd }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match sys::pipe::write(self.fd.as_fd(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sys::poll::wait(&mut [sys::poll::writable(self.fd.as_fd())], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! descriptor {
    ($end:ty, $foreign:ty) => {
        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl AsRawFd for $end {
            fn as_raw_fd(&self) -> RawFd {
                self.fd.as_raw_fd()
            }
        }

        impl IntoRawFd for $end {
            fn into_raw_fd(self) -> RawFd {
                self.fd.into_raw_fd()
            }
        }

        impl From<$end> for OwnedFd {
            fn from(end: $end) -> OwnedFd {
                end.fd
            }
        }

        impl From<OwnedFd> for $end {
            fn from(fd: OwnedFd) -> $end {
                <$end>::new(fd)
            }
        }

        impl From<$foreign> for $end {
            fn from(end: $foreign) -> $end {
                <$end>::new(end.into())
            }
        }

        impl From<$end> for $foreign {
            fn from(end: $end) -> $foreign {
                end.fd.into()
            }
        }
    };
}

descriptor!(PipeReader, os_pipe::PipeReader);
descriptor!(PipeWriter, os_pipe::PipeWriter);
