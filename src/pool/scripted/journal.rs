//! What was asked of a scripted engine and what became of it, for a test to look at.

use crate::pool::done::Outcome;
use crate::pool::engine::JobId;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was asked of a [`Scripted`](super::Scripted) engine and what became of it, in order. A handle: clones see the same.
///
/// It stays when the engine has gone, and grows with every job. Its [`Display`](fmt::Display) is a line for each entry.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    now: Duration,
    entries: Vec<Entry>,
    running: usize,
    running_max: usize,
}

/// One line of a [`Journal`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// When, in virtual time since the engine was made.
    pub at: Duration,
    /// Of which job.
    pub job: JobId,
    /// Which attempt at its task that is, from 1.
    pub attempt: u32,
    /// Its command as a shell line, with secrets masked.
    pub command: Arc<str>,
    /// What happened.
    pub event: Event,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was taken.
    Submitted,
    /// It was not taken.
    Refused,
    /// It was started, whether that was told or not.
    Started,
    /// The engine has started it once more by itself.
    StartedAgain,
    /// It is to be cancelled. Noted for jobs that have not ended.
    CancelAsked,
    /// It has ended.
    Ended(Outcome),
    /// The engine has failed while it was there: nobody knows.
    Lost,
    /// The engine was dropped while it was there, and has stopped it.
    Stopped,
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Event::Submitted => "submitted",
            Event::Refused => "refused",
            Event::Started => "started",
            Event::StartedAgain => "started again",
            Event::CancelAsked => "to be cancelled",
            Event::Ended(outcome) => return outcome.fmt(out),
            Event::Lost => "lost",
            Event::Stopped => "stopped with the engine",
        })
    }
}

/// `1.5s cc -c main.c: exit 0`
impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Duration::ZERO => out.write_str("0s")?,
            at => write!(out, "{at:?}")?,
        }
        write!(out, " {}: {}", self.command, self.event)
    }
}

impl Journal {
    /// All entries until now.
    pub fn entries(&self) -> Vec<Entry> {
        self.book().entries.clone()
    }

    /// The commands in the order in which they were started.
    pub fn started(&self) -> Vec<Arc<str>> {
        let book = self.book();
        let started = book.entries.iter().filter(|entry| entry.event == Event::Started);
        started.map(|entry| Arc::clone(&entry.command)).collect()
    }

    /// How many jobs run now.
    pub fn running(&self) -> usize {
        self.book().running
    }

    /// How many ran at once at most.
    pub fn running_max(&self) -> usize {
        self.book().running_max
    }

    /// How much virtual time has passed.
    pub fn elapsed(&self) -> Duration {
        self.book().now
    }

    pub(super) fn set_now(&self, now: Duration) {
        self.book().now = now;
    }

    pub(super) fn note(&self, (job, attempt, command): (JobId, u32, &Arc<str>), event: Event) {
        let mut book = self.book();
        let entry = Entry { at: book.now, job, attempt, command: Arc::clone(command), event };
        book.entries.push(entry);
    }

    /// One more runs, or one less.
    pub(super) fn count(&self, starts: bool) {
        let mut book = self.book();
        book.running = if starts { book.running + 1 } else { book.running.saturating_sub(1) };
        book.running_max = book.running_max.max(book.running);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not while it is locked: who writes may look at it.
        self.entries().iter().try_for_each(|entry| writeln!(out, "{entry}"))
    }
}
