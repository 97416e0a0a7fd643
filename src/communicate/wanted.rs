//! What conversations wait for, and what the answers mean to them.

use super::talk::{LOOK, Talk};
use crate::course::Ready;
use crate::deadline::Deadline;
use crate::machine::STREAMS;
use crate::sys::poll::{self, PollFd};
use std::os::fd::AsFd;

/// What several conversations wait for.
pub(crate) struct Wanted<'fd> {
    pub(crate) entries: Vec<PollFd<'fd>>,
    pub(crate) asked: Vec<Asked>,
    /// The earliest moment that one of them waits for. Who waits for nothing has none.
    pub(crate) until: Deadline,
    /// Something must be looked at now and then, because nothing announces it.
    pub(crate) looks: bool,
}

/// What they wait for now.
pub(crate) fn wanted<'fd>(talks: &'fd [Talk<'_>]) -> Wanted<'fd> {
    let (entries, asked) = (Vec::with_capacity(talks.len() * 4), Vec::with_capacity(talks.len()));
    let mut wanted = Wanted { entries, asked, until: Deadline::NEVER, looks: false };
    for talk in talks {
        let (one, until) = talk.enlist(&mut wanted.entries);
        wanted.looks |= one.looks;
        wanted.asked.push(one);
        wanted.until = wanted.until.earlier(until);
    }
    wanted
}

/// Tells them which of the entries are ready, in their order.
pub(crate) fn answer(talks: &mut [Talk<'_>], asked: Vec<Asked>, answers: impl IntoIterator<Item = bool>) {
    let mut answers = answers.into_iter();
    for (talk, asked) in talks.iter_mut().zip(asked) {
        talk.answer(asked, &mut answers);
    }
}

/// What a talk has enlisted for one wait, in this order. Kept, because by the time of the answers there may be more to ask for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    stdin: bool,
    streams: [bool; 2],
    notice: bool,
    /// The end is waited for and nothing can announce it.
    blind: bool,
    /// Something has to be looked at now and then.
    looks: bool,
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
        let blind = !self.state.exited && notice.is_none();
        let asked = Asked {
            stdin: stdin.is_some(),
            streams: [stdout.is_some(), stderr.is_some()],
            notice: notice.is_some(),
            blind,
            looks: blind || STREAMS.into_iter().any(|stream| self.is_held_up(stream)),
            members: entries.len() - before,
        };
        let until = if asked.looks { until.earlier(Deadline::after(LOOK)) } else { until };
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
