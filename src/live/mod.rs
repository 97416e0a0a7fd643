//! Output while it comes: line by line, as text, or as it is read; with a function that is called, or with a loop that asks. Decides
//! what a line is shown as and which piece comes next; the run itself is that of [`Command::output`], with its timeout, its limits
//! and its record.

mod reading;
mod show;

pub use reading::{Chunks, Lines};
pub(crate) use show::{Begun, ShowChunks, ShowLines, ShowText};

use crate::child::Child;
use crate::command::Command;
use crate::communicate::{Purpose, Watch};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::machine::STREAMS;
use crate::output::{Output, Stream};
use crate::text::{DecodeError, LineEnd, Text};
use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

/// A line of output, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    stage: usize,
    stream: Stream,
    bytes: &'a [u8],
    end: LineEnd,
    text: Text,
}

impl<'a> Line<'a> {
    pub(crate) fn new(stream: Stream, bytes: &'a [u8], end: LineEnd, text: Text) -> Line<'a> {
        Line { stage: 0, stream, bytes, end, text }
    }

    /// Which stage of a pipeline it came from, counted from 0; 0 for a single command.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// Which stream it came from.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The bytes, without the line end. In an encoding in which a line cannot be found among the bytes (UTF-16) these are its UTF-8.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes as text in the encoding of [`Command::text`], with U+FFFD for what is none.
    pub fn text(&self) -> Cow<'a, str> {
        self.text.of_line().decode_lossy(self.bytes)
    }

    /// The bytes as text, decoded as [`Command::text`] says.
    ///
    /// # Errors
    /// If bytes are no text, and it says that this is an error.
    pub fn decode(&self) -> Result<String, DecodeError> {
        self.text.of_line().decode(self.bytes)
    }

    /// What ended it: a line end, the end of the stream, or the [`line_limit`](Command::line_limit).
    pub fn end(&self) -> LineEnd {
        self.end
    }

    /// The line as a value that can be kept.
    pub fn to_owned(&self) -> OwnedLine {
        let Line { stage, stream, bytes, end, text } = *self;
        OwnedLine { stage, stream, bytes: bytes.to_vec(), end, text }
    }
}

/// As [`text`](Line::text).
impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text())
    }
}

/// A line of output that owns its bytes: what [`Lines`] yields as an iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLine {
    stage: usize,
    stream: Stream,
    bytes: Vec<u8>,
    end: LineEnd,
    text: Text,
}

impl OwnedLine {
    /// The line, borrowed: everything that is known of it.
    pub fn as_line(&self) -> Line<'_> {
        let OwnedLine { stage, stream, ref bytes, end, text } = *self;
        Line { stage, stream, bytes, end, text }
    }

    /// Which stage of a pipeline it came from; see [`Line::stage`].
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// Which stream it came from.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The bytes, without the line end; see [`Line::bytes`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as text; see [`Line::text`].
    pub fn text(&self) -> Cow<'_, str> {
        self.as_line().text()
    }

    /// Takes the bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// As [`text`](OwnedLine::text).
impl fmt::Display for OwnedLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_line().fmt(out)
    }
}

// ---- a function that is called ----

/// Running to the end and looking on.
impl Command {
    /// Runs the command as [`output`](Self::output) does, and shows each line of both streams as soon as it is complete, on the
    /// calling thread.
    ///
    /// Lines of one stream come in order; between the two streams no order is known. What ends a line is said by
    /// [`text`](Self::text); a line is no longer than [`line_limit`](Self::line_limit). The record keeps the last 64 KiB of each
    /// stream, for errors, unless [`capture_limit`](Self::capture_limit) says otherwise.
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
    /// As [`output`](Self::output). Where a line end cannot be found among the bytes (UTF-16) they are decoded first: if they are no
    /// text then, and [`text`](Self::text) says that this is an error, the process is stopped.
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
    pub fn try_for_each_line(&self, show: impl FnMut(Line<'_>) -> ControlFlow<()>) -> Result<Output, Error> {
        let mut watch = ShowLines::new(self.settings.text, self.settings.line_max, show);
        let result = self.run_shown(&mut watch);
        watch.result(result)
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
    pub fn for_each_chunk(&self, show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.run_shown(&mut ShowChunks(show))
    }

    /// As [`for_each_chunk`](Self::for_each_chunk), decoded as [`text`](Self::text) says: characters and line ends that are cut by the
    /// border of two reads come whole.
    ///
    /// ```
    /// use procession::{Command, Newlines, Text};
    ///
    /// let mut text = String::new();
    /// let latin = Text::encoding("latin1")?.newlines(Newlines::Universal);
    /// Command::shell(r"printf 'caf\351\r\n'").text(latin).for_each_text(|_, piece| text.push_str(piece))?;
    /// assert_eq!(text, "café\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`output`](Self::output), and if bytes are no text and [`text`](Self::text) says that this is an error: the process is
    /// stopped then.
    ///
    /// # Panics
    /// If the function does; the process is stopped then.
    pub fn for_each_text(&self, show: impl FnMut(Stream, &str)) -> Result<Output, Error> {
        let mut watch = ShowText::new(self.settings.text, show);
        let result = self.run_shown(&mut watch);
        watch.result(result)
    }
}

/// Going on to the end and looking on.
impl Child {
    /// Reads to the end as [`communicate`](Self::communicate) does without input, and shows each line as it comes; see
    /// [`Command::for_each_line`]. What was read before and [not taken](Self::lines) comes first.
    ///
    /// ```
    /// use procession::{Command, Stdio};
    ///
    /// let mut child = Command::shell("echo one; echo two").stdout(Stdio::piped()).spawn()?;
    /// let mut count = 0;
    /// let output = child.for_each_line(|_| count += 1)?;
    /// assert_eq!((count, output.success()), (2, true));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`communicate`](Self::communicate).
    pub fn for_each_line(&mut self, mut show: impl FnMut(Line<'_>)) -> Result<Output, Error> {
        let mut watch = ShowLines::new(self.settings.text, self.settings.line_max, |line| {
            show(line);
            ControlFlow::Continue(())
        });
        let result = self.run_shown(&mut watch);
        watch.result(result)
    }

    /// As [`for_each_line`](Self::for_each_line), with the bytes as they are read; see [`Command::for_each_chunk`].
    ///
    /// # Errors
    /// As [`communicate`](Self::communicate).
    pub fn for_each_chunk(&mut self, show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.run_shown(&mut ShowChunks(show))
    }

    /// As [`for_each_chunk`](Self::for_each_chunk), decoded as [`Command::text`] says; see [`Command::for_each_text`].
    ///
    /// # Errors
    /// As [`communicate`](Self::communicate), and if bytes are no text and that is an error: the process is stopped then.
    pub fn for_each_text(&mut self, show: impl FnMut(Stream, &str)) -> Result<Output, Error> {
        let mut watch = ShowText::new(self.settings.text, show);
        let result = self.run_shown(&mut watch);
        watch.result(result)
    }

    fn run_shown(&mut self, watch: &mut dyn Watch) -> Result<Output, Error> {
        let flow = self.show_what_was_read(watch);
        let machine = self.begin(crate::command::Input::empty(), Purpose::Show)?;
        self.talk_with(machine, Deadline::NEVER, false, &mut Begun { watch, flow })
    }

    /// Shows what was read before; whether that is enough.
    pub(crate) fn show_what_was_read(&mut self, watch: &mut dyn Watch) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        if let Some(machine) = &mut self.machine {
            for stream in STREAMS {
                machine.hand_out(stream, usize::MAX);
                let unread = machine.unread(stream);
                if flow.is_continue() && !unread.is_empty() {
                    flow = watch.see(0, stream, unread);
                }
                if flow.is_continue() && machine.has_ended(stream) {
                    flow = watch.end(0, stream);
                }
            }
        }
        flow
    }
}
