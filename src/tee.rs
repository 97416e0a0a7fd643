//! The targets of a child's output, opened: what passes a filter, what is put in front of a line, and when a write must wait.
//! Decides how bytes are rendered for each target; when they come is decided by the driver.

use crate::command::{Clock, Place, SharedWriter, Target};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::filter::{OpenFilter, splitter};
use crate::output::Stream;
use crate::sys::{self, clock, poll};
use crate::text::LineSplitter;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

/// The targets of one run.
#[derive(Debug, Default)]
pub(crate) struct Tee {
    targets: Box<[Open]>,
}

impl Tee {
    /// Opens what the targets name, before there is a process.
    pub(crate) fn open(targets: &[(Option<Stream>, Target)], line_max: usize) -> Result<Tee, Error> {
        let targets = targets.iter().map(|(of, target)| Open::new(*of, target, line_max));
        Ok(Tee { targets: targets.collect::<Result<_, Error>>()? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Whether a target of a stream has not taken everything that it was given.
    pub(crate) fn is_behind(&self, stream: Stream) -> bool {
        self.targets.iter().any(|target| target.wants(stream) && !target.pending.is_empty())
    }

    /// Gives what the targets of a stream have not taken yet. False if they have not taken all of it until the deadline: more
    /// should not be read for them.
    pub(crate) fn catch_up(&mut self, stream: Stream, until: Deadline) -> Result<bool, Error> {
        let mut all = true;
        for target in self.targets.iter_mut().filter(|target| target.wants(stream)) {
            target.flush(until).map_err(|error| target.error(error))?;
            all &= target.pending.is_empty();
        }
        Ok(all)
    }

    /// Gives a piece of output to the targets of its stream. What a target does not take until the deadline is given to it before
    /// the next piece, unless that is too much: while a child is stopped its output is read, and targets are not waited for.
    pub(crate) fn give(&mut self, stream: Stream, bytes: &[u8], at: Duration, until: Deadline) -> Result<(), Error> {
        let takes = |target: &&mut Open| target.wants(stream) && target.pending.len() <= PENDING_MAX;
        self.targets
            .iter_mut()
            .filter(takes)
            .try_for_each(|target| target.give(stream, bytes, at, until).map_err(|error| target.error(error)))
    }

    /// Gives what waits for a target that was not ready, until the deadline.
    ///
    /// # Errors
    /// If a target fails, or has not taken everything then.
    pub(crate) fn finish(&mut self, until: Deadline) -> Result<(), Error> {
        self.targets.iter_mut().try_for_each(|target| {
            let given = target.flush(until).and_then(|()| {
                let waiting = target.pending.len();
                let late =
                    || io::Error::new(io::ErrorKind::TimedOut, format!("{waiting} bytes were not taken in time"));
                if waiting == 0 { Ok(()) } else { Err(late()) }
            });
            given.map_err(|error| target.error(error))
        })
    }

    /// The stream has ended.
    pub(crate) fn end(&mut self, stream: Stream, at: Duration, until: Deadline) -> Result<(), Error> {
        self.targets.iter_mut().filter(|target| target.wants(stream)).try_for_each(|target| {
            let given = target.render_end(stream, at).and_then(|()| target.flush(until));
            given.map_err(|error| target.error(error))
        })
    }
}

/// One target in use.
struct Open {
    of: Option<Stream>,
    out: Out,
    filter: Option<OpenFilter>,
    decoration: Option<Decoration>,
    /// Which of its streams have not ended.
    running: [bool; 2],
    /// What is rendered and not written yet.
    pending: Vec<u8>,
}

enum Out {
    Own(i32),
    File { path: PathBuf, file: File, is_regular: bool },
    Writer(SharedWriter),
}

/// A target that has so much still to take gets no more.
const PENDING_MAX: usize = 4 * 1024 * 1024;

/// A write of at most this many bytes does not block on a pipe that is ready (`PIPE_BUF`).
const PIECE: usize = 4096;

impl Open {
    fn new(of: Option<Stream>, target: &Target, line_max: usize) -> Result<Open, Error> {
        let out = match &target.place {
            Place::Own(number) => Out::Own(*number),
            Place::Writer(writer) => Out::Writer(writer.clone()),
            Place::File { path, append } => {
                let mut options = File::options();
                let options = if *append { options.append(true) } else { options.write(true).truncate(true) };
                let failed = |error| Error::io("open", error).path(path);
                // A named pipe that nobody reads would hold us up without a bound.
                let file = sys::fd::open(path, options.create(true), libc::O_NONBLOCK).map_err(failed)?;
                let file = File::from(file);
                let is_regular = file.metadata().map_err(failed)?.is_file();
                Out::File { path: path.clone(), file, is_regular }
            }
        };
        let decorated = target.prefix.is_some() || target.clock.is_some();
        let decoration = decorated.then(|| Decoration {
            prefix: target.prefix.clone().unwrap_or_default(),
            clock: target.clock,
            started: SystemTime::now(),
            lines: [splitter(line_max), splitter(line_max)],
        });
        let filter = target.filter.as_ref().map(|filter| OpenFilter::new(filter, line_max));
        let running = [of != Some(Stream::Stderr), of != Some(Stream::Stdout)];
        Ok(Open { of, out, filter, decoration, running, pending: Vec::new() })
    }

    fn wants(&self, stream: Stream) -> bool {
        self.of.is_none_or(|of| of == stream)
    }

    fn error(&self, error: io::Error) -> Error {
        match &self.out {
            Out::Own(1) => Error::io("tee to stdout", error),
            Out::Own(_) => Error::io("tee to stderr", error),
            Out::File { path, .. } => Error::io("tee to", error).path(path),
            Out::Writer(_) => Error::io("tee to a writer", error),
        }
    }

    /// Most targets take the bytes as they are, and they are not copied then.
    fn give(&mut self, stream: Stream, bytes: &[u8], at: Duration, until: Deadline) -> io::Result<()> {
        if self.filter.is_some() || self.decoration.is_some() || !self.pending.is_empty() {
            self.render(stream, bytes, at)?;
            return self.flush(until);
        }
        let count = self.out.write(bytes, until)?;
        self.pending.extend_from_slice(bytes.get(count..).unwrap_or_default());
        Ok(())
    }

    fn render(&mut self, stream: Stream, bytes: &[u8], at: Duration) -> io::Result<()> {
        let Some(filter) = &mut self.filter else {
            match &mut self.decoration {
                Some(decoration) => decoration.push(stream, bytes, at, &mut self.pending),
                None => self.pending.extend_from_slice(bytes),
            }
            return Ok(());
        };
        match &mut self.decoration {
            Some(decoration) => {
                let mut passed = Vec::new();
                filter.push(stream, bytes, &mut passed)?;
                decoration.push(stream, &passed, at, &mut self.pending);
                Ok(())
            }
            None => filter.push(stream, bytes, &mut self.pending),
        }
    }

    fn render_end(&mut self, stream: Stream, at: Duration) -> io::Result<()> {
        let [stdout, stderr] = &mut self.running;
        match stream {
            Stream::Stdout => *stdout = false,
            Stream::Stderr => *stderr = false,
        }
        let last = !*stdout && !*stderr;
        let mut passed = Vec::new();
        if let Some(filter) = &mut self.filter {
            filter.end(stream, last, &mut passed)?;
        }
        match &mut self.decoration {
            Some(decoration) => {
                decoration.push(stream, &passed, at, &mut self.pending);
                decoration.end(stream, at, &mut self.pending);
            }
            None => self.pending.extend_from_slice(&passed),
        }
        Ok(())
    }

    /// Writes what is pending, as much as is taken until the deadline.
    fn flush(&mut self, until: Deadline) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        match self.out.write(&self.pending, until) {
            Ok(count) => {
                self.pending.drain(..count);
                Ok(())
            }
            Err(error) => {
                // It is not tried again.
                self.pending.clear();
                Err(error)
            }
        }
    }
}

impl Out {
    /// Writes, and says how much was taken until the deadline.
    fn write(&mut self, bytes: &[u8], until: Deadline) -> io::Result<usize> {
        match self {
            Out::Own(number) => write_own(*number, bytes, until),
            Out::File { file, is_regular: true, .. } => file.write_all(bytes).map(|()| bytes.len()),
            Out::File { file, .. } => write_patiently(file.as_fd(), bytes, until),
            Out::Writer(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.write_all(bytes).and_then(|()| writer.flush()).map(|()| bytes.len())
            }
        }
    }
}

/// Writes to this program's own standard output (1) or error, and says how much was taken until the deadline.
pub(crate) fn write_own(number: i32, bytes: &[u8], until: Deadline) -> io::Result<usize> {
    match number {
        1 => match flush_own_stdout(until)? {
            true => write_patiently(io::stdout().as_fd(), bytes, until),
            false => Ok(0),
        },
        _ => write_patiently(io::stderr().as_fd(), bytes, until),
    }
}

/// What the program printed before comes before. False if there was no room for it until the deadline.
fn flush_own_stdout(until: Deadline) -> io::Result<bool> {
    let mut stdout = io::stdout();
    // What is buffered is less than the room that a pipe has when it is ready.
    while poll::wait(&mut [poll::writable(stdout.as_fd())], until.moment())? {
        match sys::pipe::without_signal(|| stdout.flush()) {
            Ok(()) => return Ok(true),
            // Somebody has made it non-blocking, and somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Writes in pieces, each when there is room for it, and says how much was taken until the deadline. A piece ends with a line if
/// it can, so that what others write comes between lines.
fn write_patiently(fd: BorrowedFd<'_>, bytes: &[u8], until: Deadline) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        if !poll::wait(&mut [poll::writable(fd)], until.moment())? {
            break;
        }
        match sys::pipe::write(fd, piece(rest)) {
            Ok(count) => written += count,
            // Somebody has made it non-blocking, and somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// The next write: whole lines, unless the first is too long.
fn piece(bytes: &[u8]) -> &[u8] {
    let Some(piece) = bytes.get(..PIECE) else { return bytes };
    let lines = piece.iter().rposition(|&byte| byte == b'\n').and_then(|end| piece.get(..=end));
    lines.unwrap_or(piece)
}

impl fmt::Debug for Open {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.out {
            Out::Own(number) => write!(out, "descriptor {number}"),
            Out::File { path, .. } => write!(out, "{}", path.display()),
            Out::Writer(_) => out.write_str("writer"),
        }
    }
}

/// What stands in front of each line.
struct Decoration {
    prefix: String,
    clock: Option<Clock>,
    started: SystemTime,
    lines: [LineSplitter; 2],
}

impl Decoration {
    fn push(&mut self, stream: Stream, bytes: &[u8], at: Duration, out: &mut Vec<u8>) {
        let front = self.front(at);
        self.lines(stream).push(bytes, |line, _| write_line(&front, line, out));
    }

    fn end(&mut self, stream: Stream, at: Duration, out: &mut Vec<u8>) {
        let front = self.front(at);
        self.lines(stream).finish(|line, _| write_line(&front, line, out));
    }

    fn lines(&mut self, stream: Stream) -> &mut LineSplitter {
        let [stdout, stderr] = &mut self.lines;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    fn front(&self, at: Duration) -> String {
        let prefix = &self.prefix;
        match self.clock {
            None => prefix.clone(),
            Some(Clock::Elapsed) => format!("[{:>4}.{:03}] {prefix}", at.as_secs(), at.subsec_millis()),
            Some(Clock::Utc) => format!("{} {prefix}", clock::utc(self.started + at)),
        }
    }
}

fn write_line(front: &str, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(front.as_bytes());
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_ends_with_a_line_if_it_can() {
        assert_eq!(piece(b"short"), b"short");
        assert_eq!(piece(&[b'x'; PIECE]).len(), PIECE);
        assert_eq!(piece(&[b'x'; PIECE + 1]).len(), PIECE);
        let lines = b"0123456789\n".repeat(PIECE);
        assert_eq!(piece(&lines).len(), PIECE / 11 * 11);
        assert_eq!(piece(&lines[..PIECE]).len(), PIECE / 11 * 11);
    }
}
