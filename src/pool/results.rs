//! A loop over the records of many tasks. Decides how far ahead the input is read, and which record comes next.

use super::Pool;
use super::core::Submission;
use super::delivery::{Batch, Delivery};
use super::done::{Done, Outcome, TaskId};
use super::task::Task;
use crate::deadline::Deadline;
use crate::error::Error;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many tasks are read ahead for each that runs.
const AHEAD: usize = 4;
/// How long tasks wait for those that are submitted with them, if the input is slow.
const PATIENCE: Duration = Duration::from_millis(2);
/// For so many tasks at most memory is asked for before they are read.
const TOGETHER: usize = 32;

/// The records of tasks that are run while it is iterated: see [`Pool::imap`].
///
/// Dropping it cancels what is left.
#[must_use = "no task is run until a record is asked for"]
pub struct Results<'a, I> {
    pool: &'a Pool,
    tasks: I,
    batch: Arc<Batch>,
    ordered: bool,
    deadline: Deadline,
    /// How many may be submitted and not handed out.
    most: usize,
    submitted: usize,
    handed_out: usize,
    /// The input has come to its end.
    exhausted: bool,
    /// Submitted and not over, and which of them are services.
    open: HashSet<TaskId>,
    services: HashSet<TaskId>,
    arrived: VecDeque<Done>,
    /// Records that came before their turn.
    early: BTreeMap<usize, Done>,
}

impl<'a, T: Into<Task>, I: Iterator<Item = T>> Results<'a, I> {
    pub(super) fn new(pool: &'a Pool, tasks: I, ordered: bool) -> Results<'a, I> {
        let width = pool.width();
        let most = width.saturating_add(pool.ahead.unwrap_or(width.saturating_mul(AHEAD)));
        Results {
            pool,
            tasks,
            batch: Batch::new(),
            ordered,
            deadline: Deadline::NEVER,
            most,
            submitted: 0,
            handed_out: 0,
            exhausted: false,
            open: HashSet::new(),
            services: HashSet::new(),
            arrived: VecDeque::new(),
            early: BTreeMap::new(),
        }
    }

    /// Until when the whole iteration may take. What is not over then is cancelled, and the records of that still come.
    #[doc(alias = "timeout")]
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Results<'a, I> {
        self.deadline = deadline.into();
        self
    }

    /// The next record, if it comes within this time. `None` if it does not, or if there are no more; [`is_over`](Self::is_over)
    /// tells which.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Done> {
        self.advance(1, Deadline::after(timeout))
    }

    /// Whether all records were handed out.
    pub fn is_over(&self) -> bool {
        self.exhausted && self.handed_out == self.submitted
    }

    /// All records, with as few wake-ups as possible.
    pub(super) fn collect_all(mut self) -> Vec<Done> {
        let mut all = Vec::new();
        // One is woken when half of what was read ahead is over: there is always more to do meanwhile.
        let wanted = (self.most / 2).max(1);
        while let Some(done) = self.advance(wanted, Deadline::NEVER) {
            all.push(done);
        }
        all
    }

    /// The next record; waits for so many at a time.
    fn advance(&mut self, wanted: usize, deadline: Deadline) -> Option<Done> {
        loop {
            self.submit_more();
            if let Some(done) = self.next_arrived() {
                self.handed_out += 1;
                return Some(done);
            }
            if self.open.is_empty() {
                if self.exhausted {
                    return None;
                }
                continue;
            }
            if self.exhausted && self.open.len() == self.services.len() {
                // Services of this very input do not keep it from ending.
                self.pool.shared.change(|core, now| core.end_service_of(&self.services, now));
            }
            // Those that come last are fewer than are waited for otherwise, and services do not end by themselves.
            let most = if self.exhausted { self.open.len() } else { self.open.len().div_ceil(2) };
            let wanted = wanted.min(most).min(self.open.len() - self.services.len());
            let until = deadline.earlier(self.deadline);
            match self.batch.take(wanted.max(1), until) {
                Some(arrived) => self.arrived.extend(arrived),
                None if self.deadline.has_passed() => self.cancel_all(),
                None => return None,
            }
        }
    }

    /// Takes as much of the input as may be taken, and submits it together, so that tasks may wait for each other; if the input is
    /// slow, what is there by then.
    fn submit_more(&mut self) {
        let mut begin = Instant::now();
        let room = self.handed_out.saturating_add(self.most).saturating_sub(self.submitted);
        let mut tasks: Vec<Submission> = Vec::with_capacity(if self.exhausted { 0 } else { room.min(TOGETHER) });
        if !self.exhausted && self.pool.interrupted().is_some() {
            // What was not taken stays where it is: it may be endless, or wait for somebody.
            self.exhausted = true;
        }
        while !self.exhausted && self.submitted + tasks.len() < self.handed_out.saturating_add(self.most) {
            let next = catch_unwind(AssertUnwindSafe(|| self.tasks.next().map(Into::into)));
            match next {
                Ok(Some(task)) => {
                    let index = self.submitted + tasks.len();
                    tasks.push((task, index, Delivery::to_batch(Arc::clone(&self.batch))));
                }
                Ok(None) => self.exhausted = true,
                Err(panic) => {
                    // What was taken is run, or cancelled when this is dropped.
                    self.exhausted = true;
                    self.submit(tasks);
                    resume_unwind(panic);
                }
            }
            if begin.elapsed() > PATIENCE && !tasks.is_empty() {
                // If they wait for some that are to come they come back.
                let count = tasks.len();
                tasks = self.offer(tasks).map_or_else(|(_, tasks)| tasks, |()| Vec::new());
                self.submitted += count - tasks.len();
                begin = Instant::now();
                if tasks.is_empty() && self.batch.has_some() {
                    return;
                }
            }
        }
        self.submit(tasks);
    }

    fn submit(&mut self, tasks: Vec<Submission>) {
        if tasks.is_empty() {
            return;
        }
        self.submitted += tasks.len();
        // One by one if one of them is wrong, so that it alone is refused.
        match self.offer(tasks) {
            Err((error, tasks)) if tasks.len() == 1 => self.refuse(tasks, error),
            Err((_, tasks)) => {
                for task in tasks {
                    if let Err((error, task)) = self.offer(vec![task]) {
                        self.refuse(task, error);
                    }
                }
            }
            Ok(()) => {}
        }
    }

    fn offer(&mut self, tasks: Vec<Submission>) -> Result<(), (Error, Vec<Submission>)> {
        let services: Vec<bool> = tasks.iter().map(|(task, ..)| task.is_service).collect();
        let ids = self.pool.offer(tasks)?;
        let services = ids.iter().zip(services).filter(|(_, is_service)| *is_service);
        self.services.extend(services.map(|(id, _)| *id));
        self.open.extend(ids);
        Ok(())
    }

    fn refuse(&mut self, tasks: Vec<Submission>, error: Error) {
        if let Some((task, index, delivery)) = tasks.into_iter().next() {
            delivery.forget();
            self.arrived.push_back(refused(index, error.of_command(|| task.command.to_string())));
        }
    }

    fn next_arrived(&mut self) -> Option<Done> {
        while let Some(done) = self.arrived.pop_front() {
            self.open.remove(&done.id);
            self.services.remove(&done.id);
            if !self.ordered || done.index == self.handed_out {
                return Some(done);
            }
            self.early.insert(done.index, done);
        }
        if self.ordered { self.early.remove(&self.handed_out) } else { None }
    }

    fn cancel_all(&mut self) {
        self.deadline = Deadline::NEVER;
        self.exhausted = true;
        let open: Vec<TaskId> = self.open.iter().copied().collect();
        self.pool.shared.cancel(&open);
    }
}

/// The record of a task that the pool has not taken.
fn refused(index: usize, error: Error) -> Done {
    let now = Instant::now();
    Done {
        id: TaskId(0),
        index,
        name: None,
        group: None,
        outcome: Outcome::NotStarted,
        result: Err(error),
        attempts: 0,
        slot: 0,
        place: "".into(),
        submitted: now,
        started: None,
        ended: now,
        skipped: false,
    }
}

impl<T: Into<Task>, I: Iterator<Item = T>> Iterator for Results<'_, I> {
    type Item = Done;

    fn next(&mut self) -> Option<Done> {
        self.advance(1, Deadline::NEVER)
    }
}

/// What is not over is cancelled.
impl<I> Drop for Results<'_, I> {
    fn drop(&mut self) {
        if !self.open.is_empty() {
            let open: Vec<TaskId> = self.open.iter().copied().collect();
            self.pool.shared.cancel(&open);
        }
    }
}

impl<I> fmt::Debug for Results<'_, I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Results").field("submitted", &self.submitted).field("handed_out", &self.handed_out).finish()
    }
}
