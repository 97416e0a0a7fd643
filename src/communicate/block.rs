//! The blocking driver: feeds the conversations with a few children from one `ppoll`, on the caller's thread, until all are over.

use super::talk::{Decision, LOOK, Ready, Talk, Watch};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle::Sight;
use crate::output::Cause;
use crate::sys::poll::{self, PollFd};
use std::os::fd::AsFd;

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

/// Runs the conversations with some children, which begin and end together. When the deadline has come each child is stopped by
/// the plan of its command, if `stops`; otherwise the conversations are left to be continued.
///
/// # Errors
/// A failure of the system. What a target or a filter fails with stops the processes first and is found in the [`Closing`].
pub(crate) fn drive(
    talks: &mut [Talk<'_>],
    deadline: Deadline,
    stops: bool,
    watch: &mut dyn Watch,
) -> Result<Ending, Error> {
    for talk in &mut *talks {
        talk.prepare(false)?;
    }
    let mut sight = Sight::default();
    loop {
        sight.renew();
        for (place, talk) in talks.iter_mut().enumerate() {
            talk.transfer(place, deadline, watch)?;
        }
        let goes_on = |talk: &Talk<'_>| talk.state.stopper.is_none() && !talk.state.has_seen_enough;
        if watch.look(talks).is_break() && talks.iter().all(goes_on) {
            return Ok(Ending::Paused);
        }
        stop_all_if_wanted(talks);
        let (mut over, mut is_new) = (true, false);
        for (place, talk) in talks.iter_mut().enumerate() {
            let was_over = talk.state.is_over;
            talk.until = match talk.decide(deadline, stops, &mut sight, watch)? {
                Decision::Over => None,
                Decision::TimedOut => return Ok(Ending::TimedOut),
                Decision::Wait(until) => Some(until),
            };
            talk.state.is_over = talk.until.is_none();
            if talk.state.is_over && !was_over {
                talk.give_up(place, deadline, &mut sight, watch)?;
                is_new = true;
            }
            over &= talk.state.is_over;
        }
        if over {
            break;
        }
        // Others may go on when they know that one is over.
        if !is_new {
            wait(talks)?;
        }
    }
    for (place, talk) in talks.iter_mut().enumerate() {
        talk.finish(place, deadline, &mut sight, watch)?;
    }
    // What came last is handed on; nothing is stopped any more.
    let _ = watch.look(talks);
    Ok(Ending::Over)
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

/// Waits until something is ready, or until the earliest moment that one of them waits for. Who waits for nothing has no moment.
fn wait(talks: &mut [Talk<'_>]) -> Result<(), Error> {
    let mut entries = Vec::with_capacity(talks.len() * 4);
    let mut until = Deadline::NEVER;
    let mut asked = Vec::with_capacity(talks.len());
    for talk in &*talks {
        let (one, moment) = talk.enlist(&mut entries);
        asked.push(one);
        until = until.earlier(moment);
    }
    poll::wait(&mut entries, until.moment()).map_err(|error| Error::io("poll", error))?;
    let answers: Vec<bool> = entries.iter().map(poll::is_ready).collect();
    let mut answers = answers.into_iter();
    for (talk, asked) in talks.iter_mut().zip(asked) {
        talk.answer(asked, &mut answers);
    }
    Ok(())
}

/// What a talk has enlisted for one wait, in this order. Kept, because by the time of the answers there may be more to ask for.
#[derive(Clone, Copy, Default)]
struct Asked {
    stdin: bool,
    streams: [bool; 2],
    notice: bool,
    /// The end is waited for and nothing can announce it.
    blind: bool,
    members: usize,
}

impl Talk<'_> {
    /// Adds what it waits for, and says what that is and until when.
    fn enlist<'fd>(&'fd self, entries: &mut Vec<PollFd<'fd>>) -> (Asked, Deadline) {
        let Some(until) = self.until else { return (Asked::default(), Deadline::NEVER) };
        let (stdin, [stdout, stderr]) = self.wanted();
        let notice = if self.state.exited { None } else { self.child.handle.notice() };
        entries.extend(stdin.map(|end| poll::writable(end.as_fd())));
        entries.extend(stdout.into_iter().chain(stderr).map(|end| poll::readable(end.as_fd())));
        entries.extend(notice.map(poll::readable));
        let before = entries.len();
        entries.extend(self.members().map(poll::readable));
        let asked = Asked {
            stdin: stdin.is_some(),
            streams: [stdout.is_some(), stderr.is_some()],
            notice: notice.is_some(),
            blind: !self.state.exited && notice.is_none(),
            members: entries.len() - before,
        };
        let until = if asked.blind { until.earlier(Deadline::after(LOOK)) } else { until };
        (asked, if self.has_passed() { Deadline::now() } else { until })
    }

    /// Takes the answers to what was asked.
    fn answer(&mut self, asked: Asked, answers: &mut impl Iterator<Item = bool>) {
        let mut answer = |asked: bool| asked && answers.next().unwrap_or(false);
        let [stdout, stderr] = asked.streams;
        let (stdin, streams) = (answer(asked.stdin), [answer(stdout), answer(stderr)]);
        self.state.ready = Ready { stdin, streams, ..Ready::default() };
        if self.has_passed() {
            let [stdout, _] = &mut self.state.ready.streams;
            *stdout = true;
        }
        self.state.exited |= answer(asked.notice) || (asked.blind && self.child.handle.has_exited());
        // The members have woken us; the stop looks at them by itself.
        for _ in 0..asked.members {
            answers.next();
        }
    }
}
