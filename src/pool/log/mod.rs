//! The run log: who ended how, one line for each task, kept so that a later run can go on from it. Decides when something is written
//! and what a failed write means; `line` decides how a line looks, `key` when two tasks are the same, `history` what follows.

mod history;
mod key;
mod line;

pub use history::History;

use super::done::{Done, TaskId};
use super::observe::{Observer, TaskNews};
use super::task::Task;
use crate::error::{self, Error};
use crate::plan;
use crate::sys::{errno, fd};
use key::{Contents, Hash};
use line::Wall;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Writes what became of each task of a pool to a file, one line of JSON for each, so that a later run can skip what has succeeded.
///
/// A handle: its clones share everything, so one is given to the pool and another one is kept to ask, at the end, whether
/// [everything was written](Self::finish).
///
/// ```
/// use procession::pool::{Pool, RunLog, Task};
/// use procession::Command;
///
/// # let folder = std::env::temp_dir().join(format!("procession-doc-runlog-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("run.log");
/// let tasks = || [Task::new(Command::new("sort").arg("/etc/passwd")).reads("/etc/passwd")];
/// let log = RunLog::append(&path)?;
/// let pool = Pool::new(4).observe(log.clone());
/// pool.map(RunLog::read(&path)?.skip_done(tasks()));
/// log.finish()?;
///
/// // The next run has nothing to do.
/// assert!(RunLog::read(&path)?.skip_done(tasks()).is_empty());
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The file
///
/// Each line is written by one write(2) at the end of the file: what was written stays, whatever happens to this program, and several
/// programs may share a log on a local file system. A line that was cut short, by a full disk or a crash of the machine, is never
/// continued: the next line is a line of its own, and a reader skips the piece. A log that cannot be written to stops nobody: the
/// next task is tried again, and [`finish`](Self::finish) tells how many lines are missing and why. A new file is for this user
/// alone.
///
/// The fields of version 1 of a line; those of which nothing is known are `null`:
///
/// | field | |
/// |---|---|
/// | `v` | the version |
/// | `key` | what is the same if the task and what it reads are the same, 64 hexadecimal digits |
/// | `unkeyed` | why there is no `key` |
/// | `task` | what is the same if the task is the same, whatever is in the files that it reads |
/// | `label`, `name`, `group`, `command` | as those of [`Done`]; secrets are masked |
/// | `outcome` | `exited` (with `code`), `signalled` (with `signal`, a number, and `exact`), `timed-out`, `overflowed`, `cancelled` (with `confirmed`), `not-started`, or `engine-failed` (with `retryable`) |
/// | `success` | whether it exited in a way that the command accepts |
/// | `attempts` | how often it was started |
/// | `submitted`, `started`, `ended` | when, as RFC 3339 has it, in UTC with milliseconds |
/// | `waited`, `ran` | how long, in seconds |
/// | `usage` | `user` and `system`, in seconds, and `resident_max`, in bytes |
/// | `place`, `slot` | where it ran |
/// | `stdout`, `stderr` | `bytes`, how many it wrote, and `file`, where they are, if they are in a file |
/// | `error` | what kept it from running to its end, without what the program said |
///
/// # When a task is the same
///
/// The key is a SHA-256 over the program, its arguments (also secret ones) and the changes to its environment, its directory, its
/// [input](crate::Command::input) and the files its streams are on, its user, group and file mode mask; and over the name, size and
/// content of each file that it [reads](Task::reads), as it was when the task was about to be started, or that there was none. Whatever
/// else it depends on should be declared as a file that it reads: the program itself, the inherited environment, what is beside it.
/// The content is read by the thread that looks on, so large files hold up the pool for as long as it takes to read them.
///
/// Where this cannot be known, the task has no key, and never counts as done: input from a reader or an open file, a directory or
/// descriptor given as an open file, and what it reads being a directory or not readable.
#[derive(Clone)]
#[doc(alias = "joblog")]
#[doc(alias = "journal")]
pub struct RunLog {
    shared: Arc<Mutex<State>>,
}

impl RunLog {
    /// A log in this file, behind what is in it. The file is created if it is missing.
    ///
    /// # Errors
    /// If the file cannot be opened to be written and read.
    pub fn append(path: impl Into<PathBuf>) -> Result<RunLog, Error> {
        RunLog::open(path.into(), false)
    }

    /// A log in this file, which is created, or emptied if it is there.
    ///
    /// # Errors
    /// If the file cannot be opened to be written and read, or not be emptied.
    pub fn create(path: impl Into<PathBuf>) -> Result<RunLog, Error> {
        RunLog::open(path.into(), true)
    }

    fn open(path: PathBuf, empty: bool) -> Result<RunLog, Error> {
        let open = || {
            let mut options = File::options();
            // Reading tells whether the last line has an end.
            let file = fd::open(&path, options.read(true).append(true).create(true).mode(0o600), 0)?;
            let file = File::from(file);
            let is_regular = file.metadata()?.is_file();
            if empty && is_regular {
                file.set_len(0)?;
            }
            Ok((file, is_regular))
        };
        let (file, is_regular) = open().map_err(|error| Error::io("open", error).path(&path))?;
        let state = State { path, file, is_regular, sync: false, known: HashMap::new(), lost: 0, failure: None };
        Ok(RunLog { shared: Arc::new(Mutex::new(state)) })
    }

    /// Whether each line is on the disk before the run goes on (fdatasync(2)), so that not even a power failure loses it. No unless it
    /// is set; a crash of the program loses nothing in either case.
    #[doc(alias = "fsync")]
    pub fn sync(self, sync: bool) -> RunLog {
        self.state(|state| state.sync = sync);
        self
    }

    /// What a log says. Lines that are cut short or are no lines of a run log are skipped, and [told](History::unreadable); a file that
    /// is not there is an empty history.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<History, Error> {
        history::read(path.as_ref())
    }

    /// How many lines could not be written.
    pub fn lost(&self) -> u64 {
        self.state(|state| state.lost)
    }

    /// Brings everything to the disk, and says whether all is there. The log can be used further.
    ///
    /// # Errors
    /// If a line could not be written, or not be brought to the disk: the first error, and how many lines are missing.
    pub fn finish(&self) -> Result<(), Error> {
        self.state(|state| {
            state.bring_to_disk();
            let Some((step, failure)) = &state.failure else { return Ok(()) };
            let error = Error::io(*step, error::same(failure)).path(&state.path);
            Err(match state.lost {
                0 => error,
                1 => error.detail("1 line of the run log is missing"),
                lost => error.detail(format!("{lost} lines of the run log are missing")),
            })
        })
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for RunLog {
    fn see(&mut self, news: &TaskNews<'_>) {
        match news {
            TaskNews::Submitted { id, task, .. } => {
                let known = Known::of(task);
                self.state(|state| state.known.insert(*id, known));
            }
            TaskNews::Starting { id, task } => {
                let mut known = self.state(|state| state.known.remove(id)).unwrap_or_else(|| Known::of(task));
                known.key = key::key(task, known.task, &mut Contents::default());
                self.state(|state| state.known.insert(*id, known));
            }
            TaskNews::Finished(done) => self.state(|state| state.finished(done)),
            _ => {}
        }
    }
}

impl fmt::Debug for RunLog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state(|state| write!(out, "RunLog({})", state.path.display()))
    }
}

/// What is known of a task that has not ended.
struct Known {
    task: Hash,
    key: Result<Hash, String>,
    secrets: Vec<OsString>,
}

impl Known {
    fn of(task: &Task) -> Known {
        let secrets = plan::secrets(&task.command);
        Known { task: key::identity(task), key: Err("it was not started".to_owned()), secrets }
    }
}

struct State {
    path: PathBuf,
    file: File,
    is_regular: bool,
    sync: bool,
    known: HashMap<TaskId, Known>,
    lost: u64,
    /// The first failure, and at which step.
    failure: Option<(&'static str, io::Error)>,
}

impl State {
    fn finished(&mut self, done: &Done) {
        let known = self.known.remove(&done.id);
        if done.skipped {
            // What the log says of it is still so.
            return;
        }
        let line = line::write(done, known.as_ref(), Wall::now());
        if let Err(error) = self.write(&line) {
            self.lost += 1;
            self.failure.get_or_insert(("write", error));
            return;
        }
        if self.sync {
            self.bring_to_disk();
        }
    }

    /// Writes a line, or less. What is behind it must begin with a line end if it was less.
    fn write(&self, line: &str) -> io::Result<()> {
        // Somebody else, too, may have left a piece of a line.
        let fresh = if self.ends_with_line()? { "" } else { "\n" };
        let bytes = [fresh, line, "\n"].concat();
        let written = self.write_once(bytes.as_bytes())?;
        if written == bytes.len() {
            return Ok(());
        }
        // The rest could come behind what another program has written meanwhile. The kernel says only now why it took no more.
        self.write_once(b"\n")?;
        Err(io::Error::new(io::ErrorKind::WriteZero, "a line was cut short"))
    }

    fn write_once(&self, bytes: &[u8]) -> io::Result<usize> {
        fd::without_signals(|| errno::retry(|| (&self.file).write(bytes)))
    }

    fn ends_with_line(&self) -> io::Result<bool> {
        let length = if self.is_regular { self.file.metadata()?.len() } else { 0 };
        let mut last = [b'\n'];
        if let Some(place) = length.checked_sub(1) {
            // If somebody has just made it shorter, nothing is read.
            self.file.read_at(&mut last, place)?;
        }
        Ok(last == *b"\n")
    }

    fn bring_to_disk(&mut self) {
        let synced = if self.is_regular { self.file.sync_data() } else { Ok(()) };
        if let Err(error) = synced {
            self.failure.get_or_insert(("sync", error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::output::Output;

    /// What the log said before is still so.
    #[test]
    fn what_was_skipped_is_not_written_again() {
        let path = std::env::temp_dir().join(format!("procession-log-{}", std::process::id()));
        let mut log = RunLog::create(&path).unwrap();
        let task = Task::new(Command::new("a"));
        for (number, skipped) in [(1, false), (2, true), (3, false)] {
            let id = TaskId(number);
            log.see(&TaskNews::Submitted { id, task: &task, label: "a", at: std::time::Instant::now() });
            log.see(&TaskNews::Finished(&Done { skipped, ..Done::of(id, Ok(Output::default())) }));
        }
        assert!(log.state(|state| state.known.is_empty()));
        let history = RunLog::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(history.line_count(), 2);
    }
}
