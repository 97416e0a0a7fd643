//! The local machine as an engine: jobs are children of a [`ChildSet`].

use super::done::{Outcome, outcome_of};
use super::engine::{Capabilities, Engine, Finish, Job, JobId, JobNews, Refusal, Tell, Waker};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::output::{Cause, Output};
use crate::set::{ChildKey, ChildSet, SetWaker};
use crate::signal::Signal;
use crate::sys;
use crate::sys::affinity;
use std::cell::Cell;
use std::collections::HashMap;

/// This machine. A job is a child process with its tree: what is cancelled is stopped by the stop plan of its command, and is
/// confirmed dead when all of the tree was seen to end.
///
/// Dropping it stops everything that runs in it.
#[derive(Debug)]
pub struct Local {
    set: ChildSet,
    waker: SetWaker,
    jobs: HashMap<ChildKey, JobOf>,
    children: HashMap<JobId, ChildKey>,
    /// Jobs whose programs could not be started, still to be told.
    stillborn: Vec<(JobId, Error)>,
}

#[derive(Debug)]
struct JobOf {
    id: JobId,
    live: bool,
    cancelled: bool,
}

impl Local {
    /// An engine of its own. It holds three descriptors.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn new() -> Result<Local, Error> {
        let mut set = ChildSet::new()?;
        let waker = set.waker()?;
        // Whoever drives an engine polls it.
        set.defer_notices();
        Ok(Local { set, waker, jobs: HashMap::new(), children: HashMap::new(), stillborn: Vec::new() })
    }
}

impl Engine for Local {
    fn capabilities(&self) -> Capabilities {
        Capabilities::local()
    }

    fn waker(&self) -> Waker {
        let waker = self.waker.clone();
        Waker::new(move || waker.wake())
    }

    /// The thread stays on one processor. A child is born where its parent runs, which waits for it meanwhile: with the parent in one
    /// place no processor is woken for nothing. The children themselves may run where the program may.
    fn enter(&mut self, place: usize) {
        affinity::settle(place);
    }

    fn submit(&mut self, job: &Job) -> Result<(), Refusal> {
        let mut started = self.set.start(&job.command);
        // The processors may have been taken away from this program meanwhile.
        if started.as_ref().is_err_and(|error| error.is_of_step("affinity")) && affinity::roam() {
            started = self.set.start(&job.command);
        }
        match started {
            Ok(child) => {
                self.jobs.insert(child, JobOf { id: job.id, live: job.live, cancelled: false });
                self.children.insert(job.id, child);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => Err(Refusal::Later(error)),
            Err(error) if error.kind() == ErrorKind::InvalidInput => Err(Refusal::Never(error)),
            Err(error) => {
                self.stillborn.push((job.id, error));
                Ok(())
            }
        }
    }

    fn poll(&mut self, until: Deadline, tell: &mut Tell<'_>) -> Result<(), Error> {
        let mut until = until;
        for (job, error) in self.stillborn.drain(..) {
            until = Deadline::now();
            tell(job, JobNews::Finished(finish(Err(error), false)));
        }
        let (set, jobs) = (&mut self.set, &self.jobs);
        let is_told = Cell::new(false);
        let mut exit = set.wait_exit(until, &is_told, &mut |child, stream, bytes| {
            if let Some(job) = jobs.get(&child).filter(|job| job.live) {
                is_told.set(true);
                tell(job.id, JobNews::Output { stream, bytes });
            }
        })?;
        // Whatever else is known by now is told in the same turn.
        while let Some((child, result)) = exit {
            if let Some(job) = self.jobs.remove(&child) {
                self.children.remove(&job.id);
                tell(job.id, JobNews::Finished(finish(result, job.cancelled)));
            }
            exit = self.set.ended();
        }
        Ok(())
    }

    fn cancel(&mut self, job: JobId) {
        let Some(&child) = self.children.get(&job) else { return };
        if let Some(job) = self.jobs.get_mut(&child) {
            job.cancelled = true;
        }
        self.set.stop(child);
    }

    fn signal(&mut self, job: JobId, signal: Signal, by_terminal: bool) -> bool {
        let Some(&child) = self.children.get(&job) else { return true };
        self.set.signal(child, signal, by_terminal.then(sys::terminal::own_group)).is_ok()
    }
}

fn finish(result: Result<Output, Error>, cancelled: bool) -> Finish {
    let outcome = outcome_of(&result);
    let output = match &result {
        Ok(output) => output,
        Err(error) => error.output(),
    };
    let outcome = if cancelled && output.cause() == Cause::Stopped {
        Outcome::Cancelled { confirmed: output.survivors().is_empty() && output.status.is_some() }
    } else {
        outcome
    };
    match result {
        Ok(output) => Finish { outcome, output, error: None },
        Err(error) => Finish { outcome, output: error.output().clone(), error: Some(error) },
    }
}
