//! Who else gets what a child writes, as a value: the terminal, a file, a writer of the caller's. Files are opened by `tee` when
//! the command is started.

use super::filter::Filter;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A place that gets a copy of what a child writes, as it comes: see [`Command::tee`](crate::Command::tee).
///
/// Without options the bytes pass as they are. With a [`prefix`](Self::prefix), [`timestamps`](Self::timestamps) or a
/// [`filter`](Self::filter) of lines they pass line by line, and no line is divided between two writes, so that lines of several
/// children are never torn; what is longer than 4 KiB may be, where it goes to a pipe or a terminal. An unterminated line at the end
/// gets a line end, and so does each piece of a line that exceeds the [`line_limit`](crate::Command::line_limit).
///
/// ```
/// use procession::{Command, Target};
/// use std::sync::{Arc, Mutex};
///
/// let log = Arc::new(Mutex::new(Vec::new()));
/// let output = Command::shell("echo one; echo two")
///     .tee_stdout(Target::writer(Arc::clone(&log)).prefix("job 7 | "))
///     .output()?;
/// assert_eq!(output.stdout(), b"one\ntwo\n");
/// assert_eq!(*log.lock().unwrap(), b"job 7 | one\njob 7 | two\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a target gets nothing until it is given to a command"]
pub struct Target {
    pub(crate) place: Place,
    pub(crate) prefix: Option<String>,
    pub(crate) clock: Option<Clock>,
    pub(crate) filter: Option<Filter>,
}

#[derive(Clone)]
pub(crate) enum Place {
    /// This program's own standard output or error, by number.
    Own(i32),
    File {
        path: PathBuf,
        append: bool,
    },
    Writer(SharedWriter),
}

pub(crate) type SharedWriter = Arc<Mutex<dyn Write + Send>>;

/// What a line is stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The seconds since the command was started: `[   1.234] `.
    Elapsed,
    /// The time of day, in UTC, as RFC 3339 has it: `2024-02-29T12:34:56.789Z `.
    Utc,
}

impl Target {
    /// This program's standard output. The copy is flushed at once.
    pub fn stdout() -> Target {
        Target::new(Place::Own(1))
    }

    /// This program's standard error.
    pub fn stderr() -> Target {
        Target::new(Place::Own(2))
    }

    /// A file, created if missing and emptied if not, each time the command is started. A named pipe needs a reader then: nobody waits
    /// for one, and without one the verb fails.
    pub fn write(path: impl Into<PathBuf>) -> Target {
        Target::new(Place::File { path: path.into(), append: false })
    }

    /// A file, created if missing; every write goes to its end. Of named pipes see [`write`](Self::write).
    pub fn append(path: impl Into<PathBuf>) -> Target {
        Target::new(Place::File { path: path.into(), append: true })
    }

    /// Any writer that can be shared: it is locked for each write, and is the caller's before, meanwhile and after.
    ///
    /// It is written to on the thread that drives the child. A writer that blocks holds up this thread, timeouts included.
    pub fn writer<W: Write + Send + 'static>(writer: Arc<Mutex<W>>) -> Target {
        Target::new(Place::Writer(writer))
    }

    fn new(place: Place) -> Target {
        Target { place, prefix: None, clock: None, filter: None }
    }

    /// Puts this in front of each line.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Target {
        self.prefix = Some(prefix.into());
        self
    }

    /// Puts the time in front of each line, and of the prefix: when the line was complete.
    pub fn timestamps(mut self, clock: Clock) -> Target {
        self.clock = Some(clock);
        self
    }

    /// Lets the bytes pass through a filter first. The record of the run is not filtered.
    pub fn filter(mut self, filter: Filter) -> Target {
        self.filter = Some(filter);
        self
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Own(1) => out.write_str("Target(stdout)"),
            Place::Own(_) => out.write_str("Target(stderr)"),
            Place::File { path, append } => {
                write!(out, "Target({} {})", if *append { "append" } else { "write" }, path.display())
            }
            Place::Writer(_) => out.write_str("Target(writer)"),
        }
    }
}
