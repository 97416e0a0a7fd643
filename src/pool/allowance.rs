//! A pool's share of a jobserver: when a token is asked for, when it is asked for again, and what is made good when the last one has
//! gone back. How tokens are taken and put back is decided in `jobserver`.

use super::jobserver::{JobToken, Jobserver};
use crate::command::Command;
use std::time::{Duration, Instant};

/// How often a token is asked for while a task could start if there were one.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What the pool may start, as far as others have a say in it. Without a jobserver that is everything.
#[derive(Default)]
pub(super) struct Allowance {
    jobserver: Option<Jobserver>,
    /// There was no token. None is asked for before this moment, unless one of ours has gone back.
    again: Option<Instant>,
}

impl Allowance {
    pub(super) fn of(jobserver: Jobserver) -> Allowance {
        Allowance { jobserver: Some(jobserver), again: None }
    }

    /// Whether a task may be started. If so, the token for it is put there, if it takes one.
    pub(super) fn take(&mut self, now: Instant, token: &mut Option<JobToken>) -> bool {
        let Some(jobserver) = &self.jobserver else { return true };
        if self.again.is_some() {
            return false;
        }
        // A pipe that cannot be read is one without tokens: the first one, which is no byte, keeps things going.
        *token = jobserver.try_acquire().ok().flatten();
        if token.is_none() {
            self.again = now.checked_add(ASK_EVERY);
        }
        token.is_some()
    }

    /// A task is over, or was not started.
    pub(super) fn give_back(&mut self, token: Option<JobToken>) {
        if token.is_none() {
            return;
        }
        drop(token);
        self.again = None;
        if let Some(jobserver) = &self.jobserver {
            // It is tried again with the next one.
            let _ = jobserver.recover_if_unused();
        }
    }

    /// Nothing is to be asked for now.
    pub(super) fn is_used_up(&self) -> bool {
        self.again.is_some()
    }

    /// When to ask again.
    pub(super) fn moment(&self) -> Option<Instant> {
        self.again
    }

    /// Time has passed, or it is not known any more who was to ask again. Whether there may be something to be had again.
    pub(super) fn renew(&mut self, now: Option<Instant>) -> bool {
        self.again.take_if(|again| now.is_none_or(|now| now >= *again)).is_some()
    }

    /// Hands the jobserver to a command that runs on a token.
    pub(super) fn configure(&self, command: Command) -> Command {
        match &self.jobserver {
            Some(jobserver) => jobserver.configure(command),
            None => command,
        }
    }
}
