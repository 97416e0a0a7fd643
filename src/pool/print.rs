//! What many tasks write, on two streams of ours. Decides what is put in front of what and that no line is torn; what waits for its
//! turn is kept by `held`, and how our own descriptors are written to is decided by `tee`.

use super::done::{Done, TaskId};
use super::held::{Kind, Order};
use super::observe::{Observer, TaskNews};
use crate::deadline::Deadline;
use crate::entry;
use crate::error::{self, Error};
use crate::output::{Captured, Output, Stream};
use crate::sys::fd;
use crate::tee;
use crate::text::{LineEnd, LineSplitter, Newlines};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Shows what the tasks of a pool write, on this program's standard output and error or on [writers](Self::writers), in one of
/// three ways: [`grouped`](Self::grouped), [`prefixed`](Self::prefixed), [`keep_order`](Self::keep_order).
///
/// A handle: its clones share everything, so one is given to the pool and another one is kept to [ask for errors](Self::error).
///
/// The streams stay apart, and the bytes are never changed, but that a prefix stands in front of a line if there is one. A stream that
/// cannot be written to, because nobody reads it or the disk is full, ends the showing and not the run: the first
/// [error](Self::error) is kept, and nothing more is written. A stream that does not take what is written, such as a terminal stopped
/// with ctrl-S, holds up the pool.
///
/// ```
/// use procession::pool::{Pool, Print};
/// use procession::Command;
///
/// let print = Print::keep_order().header(|label| format!("== {label}"));
/// let pool = Pool::new(4).observe(print.clone());
/// pool.map(["one", "two"].map(|word| Command::new("echo").arg(word)));
/// // == echo one
/// // one
/// // == echo two
/// // two
/// assert!(print.error().is_none());
/// ```
#[derive(Clone)]
#[must_use = "it shows nothing until it is given to a pool"]
pub struct Print {
    way: Way,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Grouped,
    Prefixed,
    KeepOrder,
}

impl Print {
    /// A task's output as one piece when it has ended, taken from [its record](Done::output): standard output, then standard error; or
    /// as they came, if the command keeps a [`transcript`](crate::Command::transcript). What is in a
    /// [file](crate::Overflow::Spill) is read from there. What was not kept is missing, and a line on standard error says so.
    ///
    /// Of a task that was run again only the last attempt is shown.
    #[doc(alias = "group")]
    #[doc(alias = "output-sync")]
    pub fn grouped() -> Print {
        Print::new(Way::Grouped, None)
    }

    /// Whole lines as they come, each with the name of its task in front, or its command if it has none, cut to 40 characters: `name| `
    /// unless [`prefix`](Self::prefix) says otherwise.
    ///
    /// No line is torn: a line is shown when its end has come, or when the attempt that writes it has ended, and always gets a line
    /// end. A line of more than 64 KiB is shown in pieces, those after the first marked with `(continued) ` behind the prefix.
    #[doc(alias = "line-buffer")]
    #[doc(alias = "tag")]
    pub fn prefixed() -> Print {
        Print::new(Way::Prefixed, Some(Box::new(|label| format!("{}| ", short(label)))))
    }

    /// As if the tasks had run one after the other in the order in which they were submitted. The first task that has not ended is
    /// shown as it writes, and what the others write is held.
    ///
    /// Up to 16 MiB are held in memory, of all tasks together, and what is more in a file without a name in the directory for
    /// temporary files. [Services](crate::pool::Task::service) hold up nobody: their output comes when they have ended.
    #[doc(alias = "ordered")]
    pub fn keep_order() -> Print {
        Print::new(Way::KeepOrder, None)
    }

    fn new(way: Way, prefix: Option<Box<Label>>) -> Print {
        let state = State {
            way,
            prefix,
            header: None,
            footer: None,
            screen: Screen::own(),
            tasks: HashMap::new(),
            order: Order::default(),
        };
        Print { way, shared: Arc::new(Shared { state: Mutex::new(state), failure: OnceLock::new() }) }
    }

    /// Writes to these instead of this program's own standard output and error. Each is flushed whenever something was written.
    pub fn writers(self, stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Print {
        self.set(|state| {
            let (stdout, stderr) = (To::Writer(Box::new(stdout)), To::Writer(Box::new(stderr)));
            state.screen = Screen { stdout: Target::new(stdout), stderr: Target::new(stderr) };
        })
    }

    /// Puts this in front of each line, made from the name of the task, or its command if it has none. Lines are then treated as
    /// [`prefixed`](Self::prefixed) treats them.
    pub fn prefix(self, prefix: impl Fn(&str) -> String + Send + 'static) -> Print {
        self.set(|state| state.prefix = Some(Box::new(prefix)))
    }

    /// A line on standard output in front of what a task writes, made from its name, or its command if it has none. A task that writes
    /// nothing has none, unless there is a [footer](Self::footer).
    pub fn header(self, header: impl Fn(&str) -> String + Send + 'static) -> Print {
        self.set(|state| state.header = Some(Box::new(header)))
    }

    /// A line on standard output behind what a task has written, when it has ended.
    ///
    /// ```
    /// use procession::pool::Print;
    ///
    /// let print = Print::keep_order().footer(|done| format!("== {done}, {:.1} s", done.ran().as_secs_f64()));
    /// # let _ = print;
    /// ```
    pub fn footer(self, footer: impl Fn(&Done) -> String + Send + 'static) -> Print {
        self.set(|state| state.footer = Some(Box::new(footer)))
    }

    fn set(self, set: impl FnOnce(&mut State)) -> Print {
        set(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner));
        self
    }

    /// Why nothing more is shown, if that is so: the first error of a write, or of the file for what is held.
    pub fn error(&self) -> Option<Error> {
        self.shared.failure.get().map(|failure| Error::io(failure.step, error::same(&failure.error)))
    }
}

impl Observer for Print {
    fn see(&mut self, news: &TaskNews<'_>) {
        if self.shared.failure.get().is_some() {
            return;
        }
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(failure) = state.see(news) {
            let _ = self.shared.failure.set(failure);
            // Nobody will see it.
            (state.tasks, state.order) = (HashMap::new(), Order::default());
        }
    }

    fn wants_output(&self) -> bool {
        self.way != Way::Grouped
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Print({:?})", self.way)
    }
}

struct Shared {
    state: Mutex<State>,
    failure: OnceLock<Failure>,
}

struct Failure {
    step: &'static str,
    error: io::Error,
}

type Label = dyn Fn(&str) -> String + Send;
type Footer = dyn Fn(&Done) -> String + Send;

struct State {
    way: Way,
    prefix: Option<Box<Label>>,
    header: Option<Box<Label>>,
    footer: Option<Box<Footer>>,
    screen: Screen,
    /// Those of which something was shown, or is held.
    tasks: HashMap<TaskId, Begun>,
    /// Whose turn it is, if they take turns.
    order: Order,
}

/// The longest line that is held until its end has come; what is read of a file at a time; and what is rendered at a time.
const LINE_MAX: usize = 64 * 1024;

/// Stands behind the prefix of a line that is the rest of the line before.
const CONTINUED: &[u8] = b"(continued) ";

impl State {
    fn see(&mut self, news: &TaskNews<'_>) -> Result<(), Failure> {
        match news {
            TaskNews::Submitted { id, task, .. } if self.way == Way::KeepOrder => self.order.add(*id, task.is_service),
            TaskNews::Output { id, label, stream, bytes, .. } if self.way != Way::Grouped => {
                self.show(*id, label, *stream, bytes)?;
            }
            TaskNews::Retrying { id, .. } => self.end_lines(*id)?,
            TaskNews::Finished(done) => {
                if self.way == Way::Grouped {
                    self.show_record(done)?;
                }
                self.end(done)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Shows output of a task.
    fn show(&mut self, id: TaskId, label: &str, stream: Stream, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.begin(id, label)?;
        if self.tasks.get(&id).is_none_or(|task| task.lines.is_none()) {
            return self.place(id, Kind { stream, is_own_line: false }, bytes);
        }
        let mut rendered = Vec::new();
        for part in bytes.chunks(LINE_MAX) {
            if let Some(lines) = self.lines(id) {
                lines.push(stream, part, &mut rendered);
            }
            self.place(id, Kind { stream, is_own_line: false }, &rendered)?;
            rendered.clear();
        }
        Ok(())
    }

    fn lines(&mut self, id: TaskId) -> Option<&mut Lines> {
        self.tasks.get_mut(&id)?.lines.as_deref_mut()
    }

    /// Shows the header of a task, if it is the first to be shown of it.
    fn begin(&mut self, id: TaskId, label: &str) -> Result<(), Failure> {
        if self.tasks.contains_key(&id) {
            return Ok(());
        }
        let prefix = self.prefix.as_ref().map(|prefix| prefix(label));
        self.tasks.insert(id, Begun { lines: prefix.map(Lines::new).map(Box::new) });
        let header = self.header.as_ref().map(|header| header(label));
        header.map_or(Ok(()), |header| self.place_line(id, Stream::Stdout, header))
    }

    /// Shows what is held of lines whose end has not come.
    fn end_lines(&mut self, id: TaskId) -> Result<(), Failure> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut rendered = Vec::new();
            if let Some(lines) = self.lines(id) {
                lines.end(stream, &mut rendered);
            }
            self.place(id, Kind { stream, is_own_line: false }, &rendered)?;
        }
        Ok(())
    }

    fn end(&mut self, done: &Done) -> Result<(), Failure> {
        self.end_lines(done.id)?;
        if let Some(footer) = self.footer.as_ref().map(|footer| footer(done)) {
            self.begin(done.id, done.label())?;
            self.place_line(done.id, Stream::Stdout, footer)?;
        }
        self.tasks.remove(&done.id);
        if self.way == Way::KeepOrder {
            let mut screen = Shower::new(&mut self.screen);
            let shown = self.order.end(done.id, &mut |kind, bytes| screen.write(kind, bytes));
            shown.map_err(|error| screen.failure(error))?;
        }
        Ok(())
    }

    /// A line of ours.
    fn place_line(&mut self, id: TaskId, stream: Stream, mut line: String) -> Result<(), Failure> {
        line.push('\n');
        self.place(id, Kind { stream, is_own_line: true }, line.as_bytes())
    }

    /// Writes what is ready to be shown, now or in its turn.
    fn place(&mut self, id: TaskId, kind: Kind, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut screen = Shower::new(&mut self.screen);
        let placed = match self.way {
            Way::KeepOrder => self.order.give(id, kind, bytes, &mut |kind, bytes| screen.write(kind, bytes)),
            Way::Grouped | Way::Prefixed => screen.write(kind, bytes),
        };
        placed.map_err(|error| screen.failure(error))
    }
}

/// Whole records.
impl State {
    fn show_record(&mut self, done: &Done) -> Result<(), Failure> {
        let (id, label, output) = (done.id, done.label(), done.output());
        if is_all_in_memory(output) {
            for piece in output.transcript() {
                self.show(id, label, piece.stream(), piece.bytes())?;
            }
            if !output.marks.is_empty() {
                return Ok(());
            }
        }
        for (stream, captured) in [(Stream::Stdout, &output.stdout), (Stream::Stderr, &output.stderr)] {
            self.show_captured(id, label, stream, captured)?;
            // What follows is another stream, which may be shown in the same place.
            self.end_lines(id)?;
        }
        Ok(())
    }

    fn show_captured(&mut self, id: TaskId, label: &str, stream: Stream, captured: &Captured) -> Result<(), Failure> {
        if let Some(path) = captured.spilled() {
            return self.show_file(id, label, stream, path);
        }
        self.show(id, label, stream, captured.bytes())?;
        match captured.dropped() {
            0 => Ok(()),
            count => self.note(id, label, format!("{count} bytes of {stream} were not kept")),
        }
    }

    fn show_file(&mut self, id: TaskId, label: &str, stream: Stream, path: &Path) -> Result<(), Failure> {
        let mut space = vec![0; LINE_MAX];
        let mut file = match open(path) {
            Ok(file) => file,
            Err(error) => return self.note(id, label, format!("{stream} is in {}: {error}", path.display())),
        };
        loop {
            match file.read(&mut space) {
                Ok(0) => return Ok(()),
                Ok(count) => self.show(id, label, stream, space.get(..count).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.note(id, label, format!("{stream} is in {}: {error}", path.display())),
            }
        }
    }

    /// Says what cannot be shown.
    fn note(&mut self, id: TaskId, label: &str, what: String) -> Result<(), Failure> {
        self.begin(id, label)?;
        self.place_line(id, Stream::Stderr, format!("[{}: {what}]", short(label)))
    }
}

/// A name that fits in front of a line: a command may have many lines, and be long.
fn short(label: &str) -> String {
    let line = label.replace(char::is_control, " ");
    entry::shortened(&line, LABEL_MAX).into_owned()
}

/// So many characters of a name are shown.
const LABEL_MAX: usize = 40;

fn is_all_in_memory(output: &Output) -> bool {
    [&output.stdout, &output.stderr].iter().all(|stream| stream.dropped() == 0 && stream.spilled().is_none())
}

/// Somebody may have put a named pipe in the place of the file.
fn open(path: &Path) -> io::Result<File> {
    fd::open(path, File::options().read(true), libc::O_NONBLOCK).map(File::from)
}

/// A task of which something was shown.
struct Begun {
    /// What of its lines was not, if they get a prefix.
    lines: Option<Box<Lines>>,
}

/// The lines of a task, of which only whole ones pass.
struct Lines {
    prefix: String,
    streams: [LineSplitter; 2],
    /// The next line of the stream is the rest of one that was too long.
    continued: [bool; 2],
}

impl Lines {
    fn new(prefix: String) -> Lines {
        let splitter = || LineSplitter::new(Newlines::Keep, LINE_MAX);
        Lines { prefix, streams: [splitter(), splitter()], continued: [false; 2] }
    }

    fn push(&mut self, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        let (splitter, mut render) = self.of(stream, out);
        splitter.push(bytes, &mut render);
    }

    fn end(&mut self, stream: Stream, out: &mut Vec<u8>) {
        let (splitter, mut render) = self.of(stream, out);
        splitter.finish(&mut render);
    }

    /// What cuts the lines of a stream, and what is to be done with each.
    fn of<'a>(
        &'a mut self,
        stream: Stream,
        out: &'a mut Vec<u8>,
    ) -> (&'a mut LineSplitter, impl FnMut(&[u8], LineEnd)) {
        let Lines { prefix, streams: [stdout, stderr], continued: [is_out, is_err] } = self;
        let (splitter, is_continued) = match stream {
            Stream::Stdout => (stdout, is_out),
            Stream::Stderr => (stderr, is_err),
        };
        let render = move |line: &[u8], end| {
            out.extend_from_slice(prefix.as_bytes());
            if *is_continued {
                out.extend_from_slice(CONTINUED);
            }
            out.extend_from_slice(line);
            out.push(b'\n');
            *is_continued = end == LineEnd::Size;
        };
        (splitter, render)
    }
}

/// Where everything goes.
struct Screen {
    stdout: Target,
    stderr: Target,
}

struct Target {
    to: To,
    /// What was written last is the end of a line.
    is_fresh: bool,
}

enum To {
    /// This program's own stream with this number.
    Own(i32),
    Writer(Box<dyn Write + Send>),
}

impl Screen {
    fn own() -> Screen {
        Screen { stdout: Target::new(To::Own(1)), stderr: Target::new(To::Own(2)) }
    }

    fn write(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let target = match kind.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if kind.is_own_line && !target.is_fresh {
            target.write(b"\n")?;
        }
        target.is_fresh = bytes.last().is_none_or(|byte| *byte == b'\n');
        target.write(bytes)
    }
}

impl Target {
    fn new(to: To) -> Target {
        Target { to, is_fresh: true }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        fd::without_signals(|| match &mut self.to {
            To::Own(number) => tee::write_own(*number, bytes, Deadline::NEVER).map(drop),
            To::Writer(writer) => writer.write_all(bytes).and_then(|()| writer.flush()),
        })
    }
}

/// The screen in use, which remembers where it failed.
struct Shower<'a> {
    screen: &'a mut Screen,
    step: &'static str,
}

impl<'a> Shower<'a> {
    fn new(screen: &'a mut Screen) -> Shower<'a> {
        Shower { screen, step: "hold output" }
    }

    fn write(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let shown = self.screen.write(kind, bytes);
        if shown.is_err() {
            self.step = match kind.stream {
                Stream::Stdout => "print to stdout",
                Stream::Stderr => "print to stderr",
            };
        }
        shown
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure { step: self.step, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_short_line() {
        for (label, expected) in [
            ("link", "link"),
            ("/bin/sh -c 'one\ntwo'", "/bin/sh -c 'one two'"),
            ("\x1b[31m\0", " [31m "),
            (&"é".repeat(40), &"é".repeat(40)),
            (&"é".repeat(41), &format!("{}…", "é".repeat(40))),
        ] {
            assert_eq!(short(label), expected);
        }
    }

    /// What is shown of the pieces of one stream.
    fn shown(pieces: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::new("> ".to_owned()), Vec::new());
        pieces.iter().for_each(|piece| lines.push(Stream::Stderr, piece, &mut out));
        lines.end(Stream::Stdout, &mut out);
        lines.end(Stream::Stderr, &mut out);
        lines.end(Stream::Stderr, &mut out);
        String::from_utf8_lossy(&out).replace(&"x".repeat(LINE_MAX), "FULL")
    }

    #[test]
    fn lines_at_the_border_of_their_greatest_length() {
        let full = &vec![b'x'; LINE_MAX][..];
        let cases: [(&[&[u8]], &str); 9] = [
            (&[], ""),
            (&[b"\n"], "> \n"),
            (&[b"a", b"", b"b"], "> ab\n"),
            (&[b"a\r", b"\nb\n"], "> a\r\n> b\n"),
            (&[full], "> FULL\n"),
            (&[full, b"\n"], "> FULL\n"),
            (&[full, b"y"], "> FULL\n> (continued) y\n"),
            (&[full, b"y\n", b"z"], "> FULL\n> (continued) y\n> z\n"),
            (&[full, full, full, b"\n\n"], "> FULL\n> (continued) FULL\n> (continued) FULL\n> \n"),
        ];
        for (pieces, expected) in cases {
            assert_eq!(shown(pieces), expected);
        }
    }
}
