//! What a pool tells to those who look on: logs, progress bars, timelines. They see everything and decide nothing.

use super::done::{Done, Outcome, TaskId};
use super::task::Task;
use crate::error::Error;
use crate::output::{Output, Stream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What happens to a task.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskNews<'a> {
    /// It was submitted.
    Submitted {
        /// Which task.
        id: TaskId,
        /// The task itself.
        task: &'a Task,
        /// What people know it by: its name, or the command.
        label: &'a str,
        /// When.
        at: Instant,
    },
    /// It is about to be started: what it waits for has ended, and what it will read is there. Told before each attempt; once more if
    /// the engine had no room for it then.
    Starting {
        /// Which task.
        id: TaskId,
        /// The task itself.
        task: &'a Task,
    },
    /// It was started, for the first time or again: the engine has taken it. On this machine its process is there now; where jobs
    /// queue at the engine it may start later.
    Started {
        /// Which task.
        id: TaskId,
        /// What people know it by.
        label: &'a str,
        /// Which attempt this is, from 1.
        attempt: u32,
        /// Which of the pool's slots it runs in, from 0.
        slot: usize,
        /// Where, in the engine's words.
        place: &'a Arc<str>,
        /// When.
        at: Instant,
    },
    /// It has written this. Told only if one of those who look on [wants it](Observer::wants_output).
    Output {
        /// Which task.
        id: TaskId,
        /// Its place among the tasks it was submitted with.
        index: usize,
        /// What people know it by.
        label: &'a str,
        /// To which stream.
        stream: Stream,
        /// What.
        bytes: &'a [u8],
    },
    /// A service can be used.
    Ready {
        /// Which task.
        id: TaskId,
        /// When.
        at: Instant,
    },
    /// It did not succeed and will be run again.
    Retrying {
        /// Which task.
        id: TaskId,
        /// What people know it by.
        label: &'a str,
        /// Which attempt has ended, from 1.
        attempt: u32,
        /// How the attempt ended.
        outcome: Outcome,
        /// What [`Done::result`] would have been if it had been the last attempt: the record of this one is in it, in an error as well.
        result: Result<&'a Output, &'a Error>,
        /// After this pause.
        pause: Duration,
        /// When.
        at: Instant,
    },
    /// It is over. Told exactly once for each task that was submitted.
    Finished(&'a Done),
}

/// Somebody who looks on while a pool works.
///
/// Called from the pool's threads, one at a time, in the order in which things happen, and never with a lock of the pool's held. What
/// takes long here holds up the pool. A panic is caught, told by [`Pool::join`](crate::pool::Pool::join), and ends nothing.
///
/// ```
/// use procession::pool::{Observer, TaskNews};
///
/// /// Counts what is over.
/// #[derive(Default)]
/// struct Count(usize);
///
/// impl Observer for Count {
///     fn see(&mut self, news: &TaskNews<'_>) {
///         if let TaskNews::Finished(done) = news {
///             self.0 += 1;
///             eprintln!("{} {done}", self.0);
///         }
///     }
/// }
/// ```
pub trait Observer: Send {
    /// Something has happened.
    fn see(&mut self, news: &TaskNews<'_>);

    /// Whether it wants to see output as it comes.
    fn wants_output(&self) -> bool {
        false
    }
}
