//! Output while it comes: line by line, or as it is read. Decides what a line is shown as; the run itself is that of
//! [`Command::output`], with its timeout, its limits and its record.

use crate::command::Command;
use crate::error::Error;
use crate::output::{Output, Stream};
use crate::text::{LineEnd, LineSplitter};
use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

/// A line of output, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    stream: Stream,
    bytes: &'a [u8],
    end: LineEnd,
}

impl<'a> Line<'a> {
    /// Which stream it came from.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The bytes, without the line end.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes as UTF-8, with U+FFFD for what is none.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes)
    }

    /// What ended it: a line end, the end of the stream, or the [`line_limit`](Command::line_limit).
    pub fn end(&self) -> LineEnd {
        self.end
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text())
    }
}

/// Running to the end and looking on.
impl Command {
    /// Runs the command as [`output`](Self::output) does, and shows each line of both streams as soon as it is complete, on the
    /// calling thread.
    ///
    /// Lines of one stream come in order; between the two streams no order is known. What ends a line is said by
    /// [`text`](Self::text); a line is no longer than [`line_limit`](Self::line_limit). The record holds the output as well:
    /// if there is much of it, set a [`capture_limit`](Self::capture_limit).
    ///
    /// The function is called between reads, so as long as it takes its time the child waits, and so do timeouts.
    ///
    /// ```
    /// use procession::{Command, Stream};
    ///
    /// let mut seen = Vec::new();
    /// let output = Command::shell("echo one; echo two; echo oops >&2").for_each_line(|line| {
    ///     if line.stream() == Stream::Stdout {
    ///         seen.push(line.text().into_owned());
    ///     }
    /// })?;
    /// assert_eq!(seen, ["one", "two"]);
    /// assert_eq!(output.stderr(), b"oops\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`output`](Self::output).
    ///
    /// # Panics
    /// If the function does; the process is stopped then.
    pub fn for_each_line(&self, mut show: impl FnMut(Line<'_>)) -> Result<Output, Error> {
        self.try_for_each_line(|line| {
            show(line);
            ControlFlow::Continue(())
        })
    }

    /// As [`for_each_line`](Self::for_each_line), until the function breaks off: then the process is stopped by its
    /// [`stop`](Self::stop) plan, no further line is shown, and the record says [`Stopped`](crate::Cause::Stopped).
    ///
    /// ```
    /// use procession::{Cause, Command};
    /// use std::ops::ControlFlow;
    ///
    /// let output = Command::shell("echo starting; echo ready; sleep 60").try_for_each_line(|line| {
    ///     if line.bytes() == b"ready" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    /// })?;
    /// assert_eq!(output.cause(), Cause::Stopped);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`output`](Self::output).
    ///
    /// # Panics
    /// If the function does; the process is stopped then.
    pub fn try_for_each_line(&self, mut show: impl FnMut(Line<'_>) -> ControlFlow<()>) -> Result<Output, Error> {
        let splitter = || LineSplitter::new(self.text.line_ends(), self.line_max);
        let (mut stdout, mut stderr) = (splitter(), splitter());
        let mut flow = ControlFlow::Continue(());
        let result = self.output_watched(&mut |stream, bytes| {
            let splitter = match stream {
                Stream::Stdout => &mut stdout,
                Stream::Stderr => &mut stderr,
            };
            splitter.push(bytes, |bytes, end| {
                if flow.is_continue() {
                    flow = show(Line { stream, bytes, end });
                }
            });
            flow
        });
        for (stream, mut splitter) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            splitter.finish(|bytes, end| {
                if flow.is_continue() {
                    flow = show(Line { stream, bytes, end });
                }
            });
        }
        result
    }

    /// As [`for_each_line`](Self::for_each_line), with the bytes as they are read: for targets that want all of it at once.
    ///
    /// ```
    /// use procession::Command;
    /// use std::io::Write;
    ///
    /// let mut log = Vec::new();
    /// Command::shell("echo to the log").for_each_chunk(|_, bytes| log.extend_from_slice(bytes))?;
    /// assert_eq!(log, b"to the log\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`output`](Self::output).
    ///
    /// # Panics
    /// If the function does; the process is stopped then.
    pub fn for_each_chunk(&self, mut show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.output_watched(&mut |stream, bytes| {
            show(stream, bytes);
            ControlFlow::Continue(())
        })
    }
}
