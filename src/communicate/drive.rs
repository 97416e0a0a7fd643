//! The one loop of every conversation: transfer what is ready, see what the facts mean, wait. Decides in which order, for several children
//! that begin and end together; the waiting is left to a driver: on the caller's thread, or for a task that is woken.

use super::talk::{Decision, LOOK, Talk, Watch};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle::Sight;
use crate::output::{Cause, Stream};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The processes have ended, or everything was done to end them.
    Over,
    /// The deadline came; the conversation can go on.
    TimedOut,
    /// Who looks on has what it wanted; the conversation can go on.
    Paused,
}

/// Who waits.
pub(crate) trait Driver {
    /// Waits until something is ready, or until the earliest moment that one of them waits for, and tells them what is. `Pending`: come
    /// again when the task is woken. Whoever blocks is never pending.
    fn wait(&mut self, task: &mut Context<'_>, talks: &mut [Talk<'_>]) -> Poll<Result<(), Error>>;

    /// This descriptor is about to be closed.
    fn closing(&mut self, _end: BorrowedFd<'_>) {}

    /// Descriptors may be closed without a word until the next wait.
    fn let_go(&mut self) {}

    /// It has others to wait for: nothing may be waited for but by asking it.
    fn never_blocks(&self) -> bool;
}

/// Who waits in a verb, which may be made of several turns.
pub(crate) type Waiter = Box<dyn Driver + Send>;

/// Runs the conversations with some children, which begin and end together. When the deadline has come each child is stopped by
/// the plan of its command, if `stops`; otherwise the conversations are left to be continued. While it is pending, everything there is
/// to know is in the talks: it can be asked again, or be left at that.
///
/// # Errors
/// A failure of the system. What a target or a filter fails with stops the processes first and is found in the
/// [`Closing`](super::Closing).
pub(crate) fn drive(
    task: &mut Context<'_>,
    talks: &mut [Talk<'_>],
    deadline: Deadline,
    stops: bool,
    watch: &mut dyn Watch,
    driver: &mut dyn Driver,
) -> Poll<Result<Ending, Error>> {
    let never_blocks = driver.never_blocks();
    for talk in &mut *talks {
        talk.state.never_blocks = never_blocks;
        talk.prepare_once()?;
    }
    let mut turns = |sight: &mut Sight| {
        let driver = &mut *driver;
        let watch = &mut *watch;
        turns(task, talks, (deadline, stops), watch, driver, sight)
    };
    // Whoever never blocks has neighbours that may look at the same.
    if never_blocks { Sight::with_shared(turns) } else { turns(&mut Sight::default()) }
}

/// The turns of conversations that stand ready.
fn turns(
    task: &mut Context<'_>,
    talks: &mut [Talk<'_>],
    (deadline, stops): (Deadline, bool),
    watch: &mut dyn Watch,
    driver: &mut dyn Driver,
    sight: &mut Sight,
) -> Poll<Result<Ending, Error>> {
    let never_blocks = driver.never_blocks();
    loop {
        sight.renew();
        if talks.iter().any(|talk| talk.state.is_stopping()) {
            // A stop lets go of those who have ended.
            driver.let_go();
        }
        let mut both = Both { watch: &mut *watch, driver: &mut *driver };
        for (place, talk) in talks.iter_mut().enumerate() {
            if never_blocks {
                talk.catch_up();
            }
            let was_done = talk.machine.is_done();
            talk.transfer(place, deadline, &mut both)?;
            if never_blocks {
                talk.look_once_done(was_done)?;
            }
        }
        let goes_on = |talk: &Talk<'_>| talk.state.stopper.is_none() && !talk.state.has_seen_enough;
        if both.look(talks).is_break() && talks.iter().all(goes_on) {
            return Poll::Ready(Ok(Ending::Paused));
        }
        stop_all_if_wanted(talks);
        let (mut over, mut is_new) = (true, false);
        for (place, talk) in talks.iter_mut().enumerate() {
            let was_over = talk.state.is_over;
            talk.until = match talk.decide(deadline, stops, sight, &mut both)? {
                Decision::Over => None,
                Decision::TimedOut => return Poll::Ready(Ok(Ending::TimedOut)),
                Decision::Wait(until) => Some(until),
            };
            talk.state.is_over = talk.until.is_none();
            if talk.state.is_over && !was_over {
                talk.give_up(place, deadline, sight, &mut both)?;
                is_new = true;
            }
            over &= talk.state.is_over;
        }
        if over && (!never_blocks || all_can_finish(talks, deadline)?) {
            break;
        }
        // Others may go on when they know that one is over.
        if over || !is_new {
            ready!(driver.wait(task, talks))?;
        }
    }
    let mut both = Both { watch: &mut *watch, driver };
    for (place, talk) in talks.iter_mut().enumerate() {
        talk.finish(place, deadline, sight, &mut both)?;
    }
    // What came last is handed on; nothing is stopped any more.
    let _ = watch.look(talks);
    Poll::Ready(Ok(Ending::Over))
}

/// Whether nobody is waited for by what is left to do. Whoever cannot finish is looked at again soon.
fn all_can_finish(talks: &mut [Talk<'_>], deadline: Deadline) -> Result<bool, Error> {
    let mut all = true;
    for talk in talks {
        let can_finish = talk.can_finish(deadline)?;
        talk.until = (!can_finish).then(|| Deadline::after(LOOK));
        all &= can_finish;
    }
    Ok(all)
}

/// What exceeds its limit ends the whole, and so does who looks on and has seen enough.
fn stop_all_if_wanted(talks: &mut [Talk<'_>]) {
    if talks.iter().all(|talk| talk.why_to_stop().is_none()) || talks.iter().any(|talk| talk.state.stopper.is_some()) {
        return;
    }
    // Who has come to the end by itself was not stopped.
    for talk in talks.iter_mut().filter(|talk| !(talk.state.is_over && talk.child.handle.has_exited())) {
        talk.begin_stop(talk.why_to_stop().unwrap_or(Cause::Stopped));
    }
}

/// Whoever looks on, and the driver, which waits for nothing that is closed.
struct Both<'a> {
    watch: &'a mut dyn Watch,
    driver: &'a mut dyn Driver,
}

impl Watch for Both<'_> {
    fn see(&mut self, place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        self.watch.see(place, stream, bytes)
    }

    fn end(&mut self, place: usize, stream: Stream) -> ControlFlow<()> {
        self.watch.end(place, stream)
    }

    fn closing(&mut self, number: usize, end: BorrowedFd<'_>) {
        self.driver.closing(end);
        self.watch.closing(number, end);
    }

    fn look(&mut self, talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        self.watch.look(talks)
    }
}
