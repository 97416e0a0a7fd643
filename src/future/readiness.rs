//! The third driver: what a task waits for is told to its runtime, and the task is left pending meanwhile. Decides when a descriptor that
//! may still be ready is looked at, so that no readiness is lost although a runtime tells of it once.

use super::runtime::{Alarm, Interest, Runtime, Source};
use crate::communicate::{Driver, LOOK, Talk, answer, wanted};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::poll::{self, PollFd};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

/// The descriptors that one task waits for, and its moment.
///
/// A source that is kept although nobody wants it tells of its readiness in vain; one whose descriptor is closed would tell of another.
pub(super) struct Readiness {
    /// Not before the first wait, if it was not known then.
    runtime: Option<Runtime>,
    sources: Vec<Waited>,
    /// Which wait this is.
    round: u64,
    alarm: Alarm,
    /// When to look at what nobody announces.
    look: Deadline,
    has_waited: bool,
    /// An end of a conversation that was ready may still be.
    is_unsure: bool,
}

/// A source, and the last wait that has asked it.
struct Waited {
    fd: RawFd,
    interest: Interest,
    source: Source,
    round: u64,
}

impl Readiness {
    /// By the runtime that polls the caller.
    pub(super) fn here() -> Result<Readiness, Error> {
        let runtime = Some(Runtime::current()?);
        Ok(Readiness { runtime, ..Readiness::later() })
    }

    /// By the runtime that polls what waits.
    pub(super) fn later() -> Readiness {
        Readiness {
            runtime: None,
            sources: Vec::new(),
            round: 0,
            alarm: Alarm::default(),
            look: Deadline::NEVER,
            has_waited: false,
            is_unsure: false,
        }
    }

    /// The same, where nothing is there to be ready yet.
    pub(super) fn for_new() -> Result<Readiness, Error> {
        Ok(Readiness { has_waited: true, ..Readiness::here()? })
    }

    /// As [`let_go`](Driver::let_go), of descriptors that are closed right after this.
    pub(super) fn closing_all(&mut self) {
        self.sources.drain(..).for_each(|waited| waited.source.closing());
    }

    pub(super) fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_ref()
    }

    /// Waits until one of the entries is ready, or until the moment. Which of them are; none if it is the moment that has come. May be
    /// spurious. `is_unsure`: one that was told before may be ready still, until all have been looked at.
    pub(super) fn wait(
        &mut self,
        task: &mut Context<'_>,
        entries: &mut [PollFd<'_>],
        until: Deadline,
        is_unsure: &mut bool,
    ) -> Poll<Result<Vec<bool>, Error>> {
        // What is ready at once needs no source; and whoever is dropped again and again comes on all the same.
        let is_first = !std::mem::replace(&mut self.has_waited, true);
        let mut answers = if is_first { look(entries)? } else { Vec::new() };
        if !answers.contains(&true) {
            let mut has_old = false;
            if self.sources.is_empty() {
                // Thousands may wait at a time.
                self.sources.reserve_exact(entries.len());
            }
            answers.clear();
            self.round += 1;
            let before = self.round - 1;
            for entry in &*entries {
                let (waited, is_new) = self.waited(entry)?;
                has_old |= !is_new;
                // What it has told while nobody asked was told to nobody.
                *is_unsure |= waited.round != before && !is_new;
                waited.round = before + 1;
                answers.push(waited.source.take_ready(task).map_err(|error| Error::io("wait", error))?);
            }
            // A new source tells by itself of what is ready.
            if !answers.contains(&true) && std::mem::take(is_unsure) && has_old {
                answers = look(entries)?;
            }
        }
        if answers.contains(&true) || self.alarm.has_passed(task, until) {
            return Poll::Ready(Ok(answers));
        }
        Poll::Pending
    }

    /// Waits until one descriptor is readable, or until the moment.
    pub(super) fn readable(
        &mut self,
        task: &mut Context<'_>,
        fd: Option<BorrowedFd<'_>>,
        until: Deadline,
    ) -> Poll<Result<(), Error>> {
        let mut entries: Vec<PollFd<'_>> = fd.into_iter().map(poll::readable).collect();
        self.wait(task, &mut entries, until, &mut true).map_ok(drop)
    }

    fn waited(&mut self, entry: &PollFd<'_>) -> Result<(&mut Waited, bool), Error> {
        let (fd, interest) = (entry.as_fd(), if poll::writes(entry) { Interest::Write } else { Interest::Read });
        let is_it = |waited: &Waited| (waited.fd, waited.interest) == (fd.as_raw_fd(), interest);
        let known = self.sources.iter().position(is_it);
        let place = match known {
            Some(place) => place,
            None => {
                let runtime = match &mut self.runtime {
                    Some(runtime) => runtime,
                    unknown => unknown.insert(Runtime::current()?),
                };
                let source = runtime.source(fd, interest)?;
                self.sources.push(Waited { fd: fd.as_raw_fd(), interest, source, round: 0 });
                self.sources.len() - 1
            }
        };
        match self.sources.get_mut(place) {
            Some(waited) => Ok((waited, known.is_none())),
            None => Err(Error::invalid("a source that is not there")),
        }
    }

    /// Until what has to be looked at is looked at again. True if it is time.
    fn looks(&mut self, looks: bool) -> bool {
        if !looks {
            self.look = Deadline::NEVER;
        } else if self.look == Deadline::NEVER {
            self.look = Deadline::after(LOOK);
        } else if self.look.has_passed() {
            self.look = Deadline::NEVER;
            return true;
        }
        false
    }
}

/// Which of them are ready now.
fn look(entries: &mut [PollFd<'_>]) -> Result<Vec<bool>, Error> {
    poll::wait(entries, Deadline::now().moment()).map_err(|error| Error::io("poll", error))?;
    Ok(entries.iter().map(poll::is_ready).collect())
}

impl Driver for Readiness {
    fn wait(&mut self, task: &mut Context<'_>, talks: &mut [Talk<'_>]) -> Poll<Result<(), Error>> {
        let mut is_unsure = self.is_unsure | talks.iter().any(|talk| talk.is_unsure);
        let mut wanted = wanted(talks);
        let is_time = self.looks(wanted.looks);
        let until = if is_time { Deadline::now() } else { wanted.until.earlier(self.look) };
        let answers = Readiness::wait(self, task, &mut wanted.entries, until, &mut is_unsure)?;
        let asked = wanted.asked;
        self.is_unsure = is_unsure;
        talks.iter_mut().for_each(|talk| talk.is_unsure = false);
        let Poll::Ready(answers) = answers else { return Poll::Pending };
        answer(talks, asked, answers);
        Poll::Ready(Ok(()))
    }

    fn closing(&mut self, end: BorrowedFd<'_>) {
        let is_it = |waited: &mut Waited| waited.fd == end.as_raw_fd();
        self.sources.extract_if(.., is_it).for_each(|waited| waited.source.closing());
    }

    fn let_go(&mut self) {
        self.sources.clear();
        // What they would have told is looked for.
        self.has_waited = false;
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// For a blocking verb, which finds its runtime when it waits. None where no scope can be opened.
#[cfg(procession_awaited)]
pub(crate) fn waiter() -> Option<crate::communicate::Waiter> {
    if has_no_scope() { None } else { Some(Box::new(Readiness::later())) }
}

/// Whether this thread is inside of a task, or is ending.
#[cfg(procession_awaited)]
pub(crate) fn has_no_scope() -> bool {
    use super::reactor::Reactor;
    Reactor::is_polling() || Reactor::of_thread().is_none()
}

impl fmt::Debug for Readiness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Readiness").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}
