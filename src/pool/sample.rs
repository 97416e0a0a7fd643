//! What the tests of the pictures look at: ends of tasks, made by hand, on a clock of their own.

use super::done::{Done, Outcome, TaskId, Unstarted};
use super::observe::{Observer, TaskNews};
use crate::error::{Error, ErrorKind};
use crate::output::{Accepted, Cause, Output, Usage};
use crate::status::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A task that is told step by step. Times are milliseconds since the start of the run.
pub(super) struct Sample {
    start: Instant,
    done: Done,
}

/// The start of a run.
pub(super) fn run_start() -> Instant {
    Instant::now()
}

impl Sample {
    /// A task that succeeds at once.
    pub(super) fn new(start: Instant, id: u64, command: &str) -> Sample {
        let status = Some(ExitStatus::from_code(0));
        let output = Output { command: command.to_owned(), status, cause: Cause::Ended, ..Output::default() };
        let done = Done {
            id: TaskId(id),
            index: id as usize,
            name: None,
            group: None,
            outcome: Outcome::Exited(0),
            unstarted: None,
            result: Ok(output),
            attempts: 1,
            slot: 0,
            place: Arc::from("local"),
            submitted: start,
            started: Some(start),
            ended: start,
            skipped: false,
        };
        Sample { start, done }
    }

    pub(super) fn name(mut self, name: &str) -> Sample {
        self.done.name = Some(Arc::from(name));
        self
    }

    pub(super) fn slot(mut self, slot: usize) -> Sample {
        self.done.slot = slot;
        self
    }

    pub(super) fn submitted(mut self, at: u64) -> Sample {
        self.done.submitted = self.at(at);
        self
    }

    pub(super) fn ran(mut self, from: u64, to: u64) -> Sample {
        self.done.started = Some(self.at(from));
        self.done.ended = self.at(to);
        self
    }

    pub(super) fn used(self, user: u64, system: u64, resident_max: u64) -> Sample {
        let usage = Usage { user: Duration::from_millis(user), system: Duration::from_millis(system), resident_max };
        self.output(|output| output.usage = Some(usage))
    }

    pub(super) fn said(self, stderr: &[u8]) -> Sample {
        self.output(|output| output.stderr.bytes = stderr.to_vec())
    }

    /// It exits with this code, and only 0 is accepted.
    pub(super) fn exits(mut self, code: u8) -> Sample {
        self.done.outcome = Outcome::Exited(i32::from(code));
        self.output(|output| {
            output.status = Some(ExitStatus::from_code(code));
            output.accepted = Accepted::Zero;
        })
    }

    /// It ends in another way; what does not run leaves an error.
    pub(super) fn ends(mut self, outcome: Outcome) -> Sample {
        self.done.outcome = outcome;
        let mut output = match &self.done.result {
            Ok(output) => output.clone(),
            Err(error) => error.output().clone(),
        };
        output.status = None;
        let kind = match outcome {
            Outcome::TimedOut => ErrorKind::Timeout,
            Outcome::NotStarted => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        self.done.result = Err(Error::new(kind).detail("it went wrong").with_output(output));
        self
    }

    /// It was not started because of others.
    pub(super) fn unstarted(mut self, why: Unstarted) -> Sample {
        self.done.unstarted = Some(why);
        self
    }

    /// It never ran.
    pub(super) fn never_ran(mut self, at: u64) -> Sample {
        self.done.started = None;
        self.done.attempts = 0;
        self.done.ended = self.at(at);
        self
    }

    pub(super) fn skipped(mut self) -> Sample {
        self.done.skipped = true;
        self
    }

    pub(super) fn attempts(mut self, attempts: u32) -> Sample {
        self.done.attempts = attempts;
        self
    }

    pub(super) fn place(mut self, place: &str) -> Sample {
        self.done.place = Arc::from(place);
        self
    }

    fn output(mut self, change: impl FnOnce(&mut Output)) -> Sample {
        if let Ok(output) = &mut self.done.result {
            change(output);
        }
        self
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    pub(super) fn tell_submitted(&self, observer: &mut dyn Observer) {
        let (id, label, at) = (self.done.id, self.done.label(), self.done.submitted);
        let task = &super::task::Task::new(crate::command::Command::new(label));
        observer.see(&TaskNews::Submitted { id, label, task, at });
    }

    /// An attempt is started, at its time or at this one.
    pub(super) fn tell_started(&self, observer: &mut dyn Observer, attempt: u32, at: Option<u64>) {
        let at = at.map(|at| self.at(at)).or(self.done.started);
        let Some(at) = at else { return };
        observer.see(&TaskNews::Started {
            id: self.done.id,
            label: self.done.label(),
            attempt,
            slot: self.done.slot,
            place: &self.done.place,
            at,
        });
    }

    pub(super) fn tell_retrying(&self, observer: &mut dyn Observer, outcome: Outcome, at: u64) {
        let (id, at, pause) = (self.done.id, self.at(at), Duration::from_secs(2));
        let (label, attempt, result) = (self.done.label(), self.done.attempts(), self.done.result());
        observer.see(&TaskNews::Retrying { id, label, attempt, outcome, result, pause, at });
    }

    pub(super) fn tell_finished(&self, observer: &mut dyn Observer) {
        observer.see(&TaskNews::Finished(&self.done));
    }

    /// All of it.
    pub(super) fn tell(&self, observer: &mut dyn Observer) {
        self.tell_submitted(observer);
        self.tell_started(observer, self.done.attempts, None);
        self.tell_finished(observer);
    }
}
