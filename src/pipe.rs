//! The pipe ends that a parent keeps, and those of a terminal, which are used alike. Decides how they read and write, what the end of
//! a terminal's output is, and how the end of its input is said; what is done with the bytes is decided elsewhere.

use crate::deadline::Deadline;
use crate::sys::procfs::Channel;
use crate::sys::pty::Identity;
use crate::sys::{self, pty};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The end of a pipe to read from: a child's standard output or error.
///
/// Reading blocks until bytes come or every writer has gone. Dropping it closes the end; a child that goes on writing then
/// gets SIGPIPE.
///
/// It is also our end of a child's terminal ([`Command::pty`](crate::Command::pty)). That terminal goes away with the last of our
/// ends and not with this one alone. A descriptor taken out of such an end is non-blocking, and where everybody else has gone a
/// read from it is the error EIO on Linux; reads from this type see the end of file.
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
    /// The terminal it is the other end of, if it is one.
    terminal: Option<Box<Identity>>,
}

/// The end of a pipe to write to: a child's standard input.
///
/// Writing blocks while the pipe is full. If the child has closed its end the error is `BrokenPipe`, and never a signal,
/// also in programs that do not ignore SIGPIPE. Dropping it closes the end, and the child sees the end of its input.
///
/// It is also our end of a child's terminal ([`Command::pty`](crate::Command::pty)). Dropping it says the end of input as somebody at a
/// keyboard does, by the terminal's end-of-file character, ^D; twice inside a line, because the first one only hands over what was
/// typed. A child that edits lines by itself, such as a shell at its prompt, is told once. A [raw](crate::Pty::raw) terminal knows no
/// end of input, and nothing is said. Dropping does not wait for room: writing does, so it is there after a write, and may not be after a
/// conversation that was broken off. A descriptor taken out of such an end says nothing and is non-blocking.
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
    typist: Option<Box<Typist>>,
}

/// A new pipe: what is written to the second end is read from the first. Both are close-on-exec.
///
/// Give one end to a command as [`Stdio`](crate::Stdio) and keep the other.
///
/// # Errors
/// If the process or the system has no descriptors left.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = sys::pipe::pair()?;
    Ok((PipeReader::new(reader), PipeWriter::new(writer)))
}

/// As [`pipe`], and wishes for a size; see `Command::pipe_size`.
pub(crate) fn pipe_sized(size: Option<usize>) -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = pipe()?;
    if let Some(size) = size {
        let _: io::Result<usize> = sys::pipe::set_size(reader.as_fd(), size);
    }
    Ok((reader, writer))
}

impl PipeReader {
    pub(crate) fn new(fd: OwnedFd) -> PipeReader {
        PipeReader { fd, terminal: None }
    }

    /// Our end of a terminal.
    pub(crate) fn of_terminal(fd: OwnedFd, terminal: Identity) -> PipeReader {
        PipeReader { fd, terminal: Some(Box::new(terminal)) }
    }

    /// Reads at most `count_max` bytes into the spare capacity of `buffer`; 0 is the end of file.
    pub(crate) fn read_append(&self, buffer: &mut Vec<u8>, count_max: usize) -> io::Result<usize> {
        self.received(sys::fd::read_append(self.fd.as_fd(), buffer, count_max))
    }

    /// What a result means. A terminal that nobody has open any more has said everything: Linux calls that EIO.
    fn received(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(error) if self.terminal.is_some() && error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// What others hold who write to it.
    pub(crate) fn channel(&self) -> Option<Channel> {
        match &self.terminal {
            Some(terminal) => Some(Channel::Terminal(**terminal)),
            None => sys::fd::inode(self.fd.as_fd()).ok().map(Channel::Pipe),
        }
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
            match self.received(sys::fd::read(self.fd.as_fd(), buffer)) {
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
        PipeWriter { fd, typist: None }
    }

    /// Our end of a terminal. Both are descriptors of it: the second is to say the end of input by.
    pub(crate) fn of_terminal(fd: OwnedFd, terminal: Arc<OwnedFd>) -> PipeWriter {
        PipeWriter { fd, typist: Some(Box::new(Typist { terminal, last: AtomicU16::new(NOTHING) })) }
    }

    /// Writes what there is room for.
    pub(crate) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.typist {
            Some(typist) => typist.write_some(self.fd.as_fd(), bytes),
            None => sys::pipe::write(self.fd.as_fd(), bytes),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.typist.is_some()
    }

    fn wait_writable(&self) -> io::Result<()> {
        sys::poll::wait(&mut [sys::poll::writable(self.fd.as_fd())], None).map(drop)
    }

    /// Says the end of input where that takes words, that is, on a terminal. False if there is no room for them now; true if nothing
    /// is left but to close the end.
    pub(crate) fn say_end(&self) -> bool {
        self.typist.as_ref().is_none_or(|typist| typist.say_end())
    }

    /// The descriptor is somebody else's from now on, and so is the end of input.
    fn keep_quiet(&self) {
        if let Some(typist) = &self.typist {
            typist.last.store(ENDED, Ordering::Relaxed);
        }
    }
}

/// Who types at a terminal: knows what was typed last, and says the end of input when it is dropped.
#[derive(Debug)]
struct Typist {
    terminal: Arc<OwnedFd>,
    /// The last byte, or one of the states below.
    last: AtomicU16,
}

/// Nothing was typed yet.
const NOTHING: u16 = 0x100;
/// The end was said.
const ENDED: u16 = 0x101;

impl Typist {
    /// Writes, and takes note of it. Where nobody has the terminal open any more nobody reads: for that other systems have the
    /// error EIO, and Linux takes what fits into its buffers.
    fn write_some(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        if sys::poll::is_hung_up(fd)? {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match sys::pipe::write(fd, bytes) {
            Ok(count) => {
                if let Some(&last) = bytes.get(..count).and_then(<[u8]>::last) {
                    self.last.store(last.into(), Ordering::Relaxed);
                }
                Ok(count)
            }
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => Err(error),
        }
    }

    fn say_end(&self) -> bool {
        let terminal = self.terminal.as_fd();
        if sys::poll::is_hung_up(terminal).unwrap_or(true) {
            return true;
        }
        loop {
            let last = self.last.load(Ordering::Relaxed);
            if last == ENDED {
                return true;
            }
            // Without an answer there is nobody to tell.
            let words = pty::end_of_input(terminal, u8::try_from(last).ok()).unwrap_or_default();
            let Some(word) = words.first() else {
                self.last.store(ENDED, Ordering::Relaxed);
                return true;
            };
            // One at a time: there may be room for the first alone.
            match sys::pipe::write(terminal, &[*word]) {
                Ok(0) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(_) if words.len() > 1 => self.last.store((*word).into(), Ordering::Relaxed),
                _ => self.last.store(ENDED, Ordering::Relaxed),
            }
        }
    }
}

/// Never waits: our end is non-blocking. What finds no room is not said.
impl Drop for Typist {
    fn drop(&mut self) {
        self.say_end();
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
            match self.write_some(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_writable()?;
                }
                // Once the bytes are taken there is room for the end of input as well, so that dropping can say it.
                Ok(count) if self.typist.is_some() => {
                    self.wait_writable()?;
                    return Ok(count);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PipeReader {
    fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl PipeWriter {
    fn into_fd(self) -> OwnedFd {
        self.keep_quiet();
        self.fd
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
                self.into_fd().into_raw_fd()
            }
        }

        impl From<$end> for OwnedFd {
            fn from(end: $end) -> OwnedFd {
                end.into_fd()
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
                end.into_fd().into()
            }
        }
    };
}

descriptor!(PipeReader, os_pipe::PipeReader);
descriptor!(PipeWriter, os_pipe::PipeWriter);
