//! A loop over the records of many tasks. Decides how far ahead the input is read, and which record comes next.

use super::Pool;
use super::core::Submission;
use super::delivery::{Batch, Delivery};
use super::done::{Done, Outcome, TaskId};
use super::expected::Expected;
use super::task::Task;
use crate::deadline::Deadline;
use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How many tasks are read ahead for each that runs.
const AHEAD: usize = 4;
/// How long records that are there wait for the input to fill the look-ahead.
const PATIENCE: Duration = Duration::from_millis(2);

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
    /// How many may be taken from the input and not handed out.
    most: usize,
    taken: usize,
    handed_out: usize,
    /// The input has come to its end, or no more of it is taken.
    exhausted: bool,
    /// Taken and not submitted, because they wait for tasks that are to come.
    expected: Expected<Submission>,
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
            taken: 0,
            handed_out: 0,
            exhausted: false,
            expected: Expected::new(),
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
        self.exhausted && self.handed_out == self.taken
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
            let wanted = match self.step(wanted) {
                Step::Next(done) => return Some(*done),
                Step::Over => return None,
                Step::Wait(wanted) => wanted,
            };
            match self.batch.take(wanted, deadline.earlier(self.deadline)) {
                Some(arrived) => self.arrived.extend(arrived),
                None if self.deadline.has_passed() => self.cancel_all(),
                None => return None,
            }
        }
    }

    /// The same, one at a time, for a task; `is_late` says whether a moment has come and wakes the task then.
    #[cfg(feature = "future")]
    pub(crate) fn poll_next(
        &mut self,
        task: &mut Context<'_>,
        mut is_late: impl FnMut(&mut Context<'_>, Deadline) -> bool,
    ) -> Poll<Option<Done>> {
        loop {
            let wanted = match self.step(1) {
                Step::Next(done) => return Poll::Ready(Some(*done)),
                Step::Over => return Poll::Ready(None),
                Step::Wait(wanted) => wanted,
            };
            match self.batch.poll_take(task, wanted) {
                Poll::Ready(arrived) => self.arrived.extend(arrived),
                Poll::Pending if is_late(task, self.deadline) => self.cancel_all(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Goes as far as it can without waiting for a record.
    fn step(&mut self, wanted: usize) -> Step {
        loop {
            self.take_more();
            if let Some(done) = self.next_arrived() {
                self.handed_out += 1;
                return Step::Next(Box::new(done));
            }
            if !self.open.is_empty() {
                break;
            }
            if self.exhausted {
                return Step::Over;
            }
        }
        let has_services = !self.services.is_empty();
        if self.exhausted && has_services {
            // Services of this very input do not keep it from ending.
            self.pool.shared.change(|core, now| core.end_service_of(&self.services, &self.open, now));
        }
        // Those that come last are fewer than are waited for otherwise; services, and what waits for their end, do not end by themselves.
        let most = if self.exhausted { self.open.len() } else { self.open.len().div_ceil(2) };
        let wanted = if has_services { 1 } else { wanted.min(most) };
        Step::Wait(wanted.max(1))
    }

    /// Takes as much of the input as may be taken, and submits each task when it has come; if the input is slow, until there are records
    /// to be handed out.
    fn take_more(&mut self) {
        let begin = Instant::now();
        while !self.exhausted && self.taken < self.handed_out.saturating_add(self.most) {
            if self.pool.shared.core().is_halted() {
                // What was not taken stays where it is: it may be endless, or wait for somebody.
                self.exhausted = true;
                break;
            }
            match catch_unwind(AssertUnwindSafe(|| self.tasks.next().map(Into::into))) {
                Ok(Some(task)) => self.take(task),
                Ok(None) => self.exhausted = true,
                Err(panic) => {
                    // What was taken is run, or cancelled when this is dropped.
                    self.exhausted = true;
                    self.submit_expectant();
                    resume_unwind(panic);
                }
            }
            if begin.elapsed() > PATIENCE && self.batch.has_some() {
                return;
            }
        }
        // Nothing more can come before these are over.
        self.submit_expectant();
    }

    /// One has come: it is submitted, and those that waited for it as well; unless it waits for one that has not come itself.
    fn take(&mut self, task: Task) {
        let unknown =
            if task.after.is_empty() { BTreeSet::new() } else { self.pool.shared.core().unknown_names(&task) };
        let submission = (task, self.taken, Delivery::to_batch(Arc::clone(&self.batch)));
        self.taken += 1;
        if !unknown.is_empty() {
            self.expected.hold(submission, unknown);
            return;
        }
        let mut come = vec![submission];
        while let Some(submission) = come.pop() {
            let name = submission.0.name.clone();
            match self.offer(vec![submission]) {
                Ok(()) => come.extend(name.map(|name| self.expected.come(&name)).unwrap_or_default().into_iter().rev()),
                Err((error, tasks)) => self.refuse(tasks, error),
            }
        }
    }

    /// Those that wait for what has not come are submitted together, so that each is told what is wrong with it.
    fn submit_expectant(&mut self) {
        let tasks = self.expected.give_up();
        if tasks.is_empty() {
            return;
        }
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
        let claims = self.pool.offer(tasks)?;
        let services = claims.iter().zip(services).filter(|(_, is_service)| *is_service);
        self.services.extend(services.map(|(claim, _)| claim.id));
        self.open.extend(claims.iter().map(|claim| claim.id));
        Ok(())
    }

    fn refuse(&mut self, tasks: Vec<Submission>, error: Error) {
        // A pool that is closed would refuse all others as well, and there may be no end of them.
        self.exhausted |= self.pool.shared.core().closed;
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

/// What a loop is to do next.
enum Step {
    Next(Box<Done>),
    /// To wait for so many records.
    Wait(usize),
    Over,
}

/// The record of a task that the pool has not taken.
fn refused(index: usize, error: Error) -> Done {
    Done { index, ..Done::unbegun(TaskId(0), Outcome::NotStarted, error) }
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
        out.debug_struct("Results").field("taken", &self.taken).field("handed_out", &self.handed_out).finish()
    }
}
