//! One child of a set: its conversation, and which of its descriptors are waited for. Decides what is told of it, in which order.

use super::Follow;
use super::token::{Key, Part};
use crate::child::{Child, KillOnDrop};
use crate::command::Input;
use crate::communicate::{Decision, LOOK, Talk, Watch, add_input};
use crate::course::{Ready, State};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle::{self, Sight};
use crate::machine::{Machine, STREAMS};
use crate::output::{Cause, Output, Stream};
use crate::signal::Signal;
use crate::sys::epoll::{Epoll, Interest};
use crate::text::{Cut, LineFinder};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

pub(super) struct Entry {
    pub(super) child: Child,
    machine: Machine,
    state: State,
    follow: Follow,
    times: Option<Box<Times>>,
    registered: Registered,
    /// Under which moment it is in the set's list.
    pub(super) armed: Option<Instant>,
    /// It stands in the line of those that have something to tell.
    pub(super) is_pending: bool,
    finders: Option<Box<[LineFinder; 2]>>,
    told_end: [bool; 2],
    /// What the system refused; the process is stopped for it.
    failure: Option<Error>,
    /// Nothing is waited for any more.
    is_over: bool,
}

/// What is to happen when.
struct Times {
    limit: Option<Limit>,
    /// When the caller wants to hear that it still runs.
    remind: Deadline,
}

/// How long it may run.
pub(super) struct Limit {
    pub(super) timeout: Duration,
    /// When it is stopped.
    pub(super) deadline: Deadline,
}

/// The descriptors that are waited for. Members of a stop are looked after while it goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Registered {
    ends: [Waited; 3],
    notice: bool,
    /// The end of the process is not waited for before the next look.
    defers_notice: bool,
    /// The end of the process cannot be announced, and is looked for now and then.
    is_blind: bool,
}

/// How an end is waited for. Most children say so little that one answer is all there is of a stream; whoever is told once and no more
/// need not be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waited {
    #[default]
    Not,
    /// To be told once.
    Once,
    /// Was told, and is quiet.
    Told,
    /// As long as it is not removed.
    Always,
}

impl Waited {
    /// Whether it would be told.
    fn is_heard(self) -> bool {
        matches!(self, Waited::Once | Waited::Always)
    }
}

/// What there is to tell of a child.
pub(crate) enum Fact {
    Line(Stream, Cut),
    /// So much of what was [taken](Machine::taken).
    Chunk(Stream, usize),
    End(Stream),
    /// The last.
    Over,
}

/// Called with what is read.
pub(super) type See<'a> = dyn FnMut(Stream, &[u8]) + 'a;

/// What children of a set have in common while they are looked at.
pub(super) struct Around<'a, 'b> {
    pub(super) epoll: &'a mut Epoll,
    pub(super) sight: &'a mut Sight,
    pub(super) see: &'a mut See<'b>,
}

/// Passes on what is read, and takes care that nothing is closed while it is waited for.
struct Onlooker<'a, 'b> {
    epoll: &'a mut Epoll,
    registered: &'a mut Registered,
    see: &'a mut See<'b>,
}

impl Watch for Onlooker<'_, '_> {
    fn see(&mut self, _place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        (self.see)(stream, bytes);
        ControlFlow::Continue(())
    }

    fn closing(&mut self, number: usize, end: BorrowedFd<'_>) {
        if self.registered.ends.get_mut(number).map(std::mem::take).is_some_and(Waited::is_heard) {
            self.epoll.remove(end);
        }
    }
}

impl Entry {
    /// `is_ours`: nobody else has ever had its ends.
    pub(super) fn new(
        child: Child,
        machine: Machine,
        follow: Follow,
        limit: Option<Limit>,
        is_ours: bool,
    ) -> Result<Entry, Error> {
        let mut child = child;
        let mut state = child.aside.as_mut().and_then(|aside| aside.talk.take()).unwrap_or_else(State::new);
        state.never_blocks = true;
        let (text, line_max) = (child.settings.text, child.settings.line_max);
        let finder = || text.line_finder(line_max);
        let mut entry = Entry {
            machine,
            state,
            follow,
            times: limit.map(|limit| Box::new(Times { limit: Some(limit), remind: Deadline::NEVER })),
            registered: Registered::default(),
            armed: None,
            is_pending: false,
            finders: (follow == Follow::Lines).then(|| Box::new([finder(), finder()])),
            told_end: [follow == Follow::Record; 2],
            failure: None,
            is_over: false,
            child,
        };
        // What nobody else can read is ready when it is said to be, so that a first read does not block.
        entry.talk(|talk| talk.prepare(is_ours))?;
        Ok(entry)
    }

    fn talk<T>(&mut self, act: impl FnOnce(&mut Talk<'_>) -> T) -> T {
        let state = std::mem::replace(&mut self.state, State::new());
        let mut talk = Talk::resume(&mut self.child, &mut self.machine, state);
        let result = act(&mut talk);
        self.state = talk.state;
        result
    }

    /// The same, while what is closed is not waited for any more and what is read is seen.
    fn talk_seen<T>(
        &mut self,
        around: &mut Around<'_, '_>,
        act: impl FnOnce(&mut Talk<'_>, &mut Sight, &mut dyn Watch) -> T,
    ) -> T {
        let mut registered = self.registered;
        let mut watch = Onlooker { epoll: &mut *around.epoll, registered: &mut registered, see: &mut *around.see };
        let result = self.talk(|talk| act(talk, around.sight, &mut watch));
        self.registered = registered;
        result
    }

    /// When it is stopped.
    fn deadline(&self) -> Deadline {
        self.limit().map_or(Deadline::NEVER, |limit| limit.deadline)
    }

    fn limit(&self) -> Option<&Limit> {
        self.times.as_ref()?.limit.as_ref()
    }

    /// When the caller wants to hear that it still runs.
    pub(super) fn reminder(&self) -> Deadline {
        self.times.as_ref().map_or(Deadline::NEVER, |times| times.remind)
    }

    /// Sets that, and says what it was before.
    pub(super) fn set_reminder(&mut self, remind: Deadline) -> Deadline {
        let times = self.times.get_or_insert_with(|| Box::new(Times { limit: None, remind: Deadline::NEVER }));
        std::mem::replace(&mut times.remind, remind)
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Nothing is waited for any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Notes that an end will not block, or that the process has ended.
    pub(super) fn mark(&mut self, part: Part, hung_up: bool) {
        let Ready { stdin, streams: [stdout, stderr], hung_up: [stdout_end, stderr_end] } = &mut self.state.ready;
        let [_, stdout_waited, stderr_waited] = &mut self.registered.ends;
        let told = |is_ready: &mut bool, is_end: &mut bool, waited: &mut Waited| {
            (*is_ready, *is_end) = (true, hung_up);
            if *waited == Waited::Once {
                *waited = Waited::Told;
            }
        };
        match part {
            Part::Stdin => *stdin = true,
            Part::Stdout => told(stdout, stdout_end, stdout_waited),
            Part::Stderr => told(stderr, stderr_end, stderr_waited),
            Part::Notice => {
                self.state.exited = true;
                self.registered.notice = false;
            }
            _ => {}
        }
    }

    /// The end of the process need not be waited for yet: whoever says so looks again soon, and calls [`announce`](Self::announce) then.
    pub(super) fn defer_notice(&mut self) {
        self.registered.defers_notice = true;
    }

    /// From the next step on the end of the process is waited for in any case. Whether it was not before.
    pub(super) fn announce(&mut self) -> bool {
        std::mem::take(&mut self.registered.defers_notice) && !self.registered.notice && !self.is_over
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.is_over
            || STREAMS.into_iter().zip(self.told_end).any(|(stream, told)| {
                let has_more = self.follow != Follow::Record && !self.machine.unread(stream).is_empty();
                has_more || (!told && self.machine.has_ended(stream))
            })
    }

    /// Adds input behind what is still to be written.
    pub(super) fn add_input(&mut self, input: Input) -> Result<(), Error> {
        let added = add_input(&mut self.machine, input);
        self.state.ready.stdin = true;
        added.map_err(|error| error.of_command(|| self.child.handle().line()))
    }

    /// No more input will be added.
    pub(super) fn end_input(&mut self) {
        self.machine.hold_input(false);
        self.state.ready.stdin = true;
    }

    /// Begins to stop it, by the plan of its command. What it says on its way out is still read.
    pub(super) fn stop(&mut self) {
        if !self.is_over && !self.state.is_stopping() {
            self.talk(|talk| talk.begin_stop(Cause::Stopped));
        }
    }

    /// Sends a signal to it and its tree, but to nobody in this group.
    pub(super) fn signal(&self, sight: &mut Sight, signal: Signal, except_group: Option<i32>) -> Result<(), Error> {
        if self.is_over() {
            return Ok(());
        }
        let (handle, plan) = (self.child.handle(), &self.child.settings.stop);
        handle::signal_all(handle, plan, &self.child.pipes(), sight, (signal, except_group))
    }

    /// Moves what is ready, looks at the facts, and waits for what is wanted next. Returns when it wants to be looked at again.
    pub(super) fn step(&mut self, around: &mut Around<'_, '_>, key: Key) -> Deadline {
        if self.is_over {
            return Deadline::NEVER;
        }
        match self.advance(around).and_then(|decision| self.act_on(decision, around, key)) {
            Ok(until) => until,
            Err(error) => self.fail(error, around),
        }
    }

    fn advance(&mut self, around: &mut Around<'_, '_>) -> Result<Decision, Error> {
        if self.state.is_over {
            return Ok(Decision::Over);
        }
        // A stop lets go of those who have ended.
        self.unregister_members(around.epoll);
        let (deadline, Registered { is_blind, defers_notice, .. }) = (self.deadline(), self.registered);
        self.talk_seen(around, |talk, sight, watch| {
            talk.catch_up();
            if talk.has_passed() {
                let [stdout, _] = &mut talk.state.ready.streams;
                *stdout = true;
            }
            talk.transfer(0, deadline, watch)?;
            if let Some(cause) = talk.why_to_stop().filter(|_| !talk.state.is_stopping()) {
                talk.begin_stop(cause);
            }
            if is_blind && !talk.state.exited {
                talk.state.exited = talk.child.handle.has_exited();
            }
            if defers_notice && talk.machine.is_done() && !talk.state.is_stopping() && !talk.state.exited {
                // Who has closed everything has most often ended by now, and nothing is left but to reap it.
                talk.state.exited = talk.child.handle.try_wait()?.is_some();
            }
            talk.decide(deadline, true, sight, watch)
        })
    }

    fn act_on(&mut self, decision: Decision, around: &mut Around<'_, '_>, key: Key) -> Result<Deadline, Error> {
        if let Decision::Wait(until) = decision {
            return self.wait_for(until, around.epoll, key);
        }
        let deadline = self.deadline();
        let is_new = !std::mem::replace(&mut self.state.is_over, true);
        let can_finish = self.talk_seen(around, |talk, sight, watch| {
            if is_new {
                talk.give_up(0, deadline, sight, watch)?;
            }
            talk.can_finish(deadline)
        });
        if !can_finish? {
            self.unregister(around.epoll);
            return Ok(Deadline::after(LOOK));
        }
        self.conclude(around)?;
        Ok(Deadline::NEVER)
    }

    /// Waits for what can bring it on.
    fn wait_for(&mut self, until: Deadline, epoll: &mut Epoll, key: Key) -> Result<Deadline, Error> {
        let mut registered = self.registered;
        let until = self.talk(|talk| {
            wait_for_ends(talk, epoll, key, &mut registered.ends)?;
            if !talk.state.exited && !registered.notice && !registered.defers_notice {
                let notice = talk.child.handle.notice();
                let added = notice.map(|fd| epoll.add(fd, key.token(Part::Notice), Interest::ReadOnce));
                registered.notice = matches!(added, Some(Ok(())));
                registered.is_blind = !registered.notice;
            }
            let mut looks = registered.is_blind || STREAMS.into_iter().any(|stream| talk.is_held_up(stream));
            for member in talk.members() {
                looks |= epoll.add(member, key.token(Part::Member), Interest::ReadOnce).is_err();
            }
            let until = if looks { until.earlier(Deadline::after(LOOK)) } else { until };
            Ok(if talk.has_passed() { Deadline::now() } else { until })
        });
        self.registered = registered;
        until
    }

    /// Nothing of it is waited for any more.
    fn unregister(&mut self, epoll: &mut Epoll) {
        let registered = std::mem::take(&mut self.registered);
        self.talk(|talk| {
            for (end, _) in talk.ends().into_iter().zip(registered.ends).filter(|(_, waited)| *waited != Waited::Not) {
                end.into_iter().for_each(|end| epoll.remove(end));
            }
            if registered.notice {
                talk.child.handle.notice().into_iter().for_each(|fd| epoll.remove(fd));
            }
        });
        self.unregister_members(epoll);
    }

    fn unregister_members(&mut self, epoll: &mut Epoll) {
        if self.state.is_stopping() {
            self.talk(|talk| talk.members().for_each(|member| epoll.remove(member)));
        }
    }

    /// The system refuses something: the process is stopped, and the first error is the result.
    fn fail(&mut self, error: Error, around: &mut Around<'_, '_>) -> Deadline {
        let is_first = self.failure.is_none();
        self.failure.get_or_insert(error);
        self.state.is_broken = true;
        if is_first && !self.is_over {
            self.stop();
            return Deadline::now();
        }
        // It cannot even be stopped.
        self.unregister(around.epoll);
        self.child.kill_on_drop = KillOnDrop::No;
        self.is_over = true;
        Deadline::NEVER
    }

    fn conclude(&mut self, around: &mut Around<'_, '_>) -> Result<(), Error> {
        self.unregister(around.epoll);
        let deadline = self.deadline();
        self.talk_seen(around, |talk, sight, watch| talk.finish(0, deadline, sight, watch))?;
        self.is_over = true;
        Ok(())
    }

    /// What is to be told next, if anything.
    pub(super) fn next_fact(&mut self) -> Option<Fact> {
        for (place, stream) in STREAMS.into_iter().enumerate() {
            let ended = self.machine.has_ended(stream);
            if let Some(fact) = self.next_piece(place, stream, ended) {
                return Some(fact);
            }
            if let Some(told) = self.told_end.get_mut(place)
                && ended
                && !std::mem::replace(told, true)
            {
                return Some(Fact::End(stream));
            }
        }
        self.is_over.then_some(Fact::Over)
    }

    fn next_piece(&mut self, place: usize, stream: Stream, ended: bool) -> Option<Fact> {
        let unread = self.machine.unread(stream);
        match self.follow {
            Follow::Record => None,
            Follow::Chunks => {
                let count = unread.len();
                self.machine.take(stream, count);
                (count > 0).then_some(Fact::Chunk(stream, count))
            }
            Follow::Lines => {
                let finder = self.finders.as_mut()?.get_mut(place)?;
                if let Some(cut) = finder.next(unread, ended) {
                    return Some(Fact::Line(stream, cut));
                }
                let taken = finder.forget();
                self.machine.take(stream, taken);
                None
            }
        }
    }

    /// What has come of it, once it is over.
    pub(super) fn into_result(mut self) -> Result<Output, Error> {
        let timeout = self.limit().map(|limit| limit.timeout);
        let closing = self.state.into_closing();
        let result = match self.failure.take() {
            Some(error) => Err(error.with_output(self.child.record(self.machine, closing))),
            None => self.child.conclude(self.machine, closing),
        };
        result.map_err(|error| match timeout {
            Some(timeout) if error.is_timeout() => error.detail(format!("timed out after {timeout:?}")),
            _ => error,
        })
    }

    /// Its child, with the conversation as far as it has come.
    pub(super) fn into_child(mut self, epoll: &mut Epoll) -> Child {
        self.unregister(epoll);
        if let Some(finders) = &mut self.finders {
            for (stream, finder) in STREAMS.into_iter().zip(finders.iter_mut()) {
                let taken = finder.forget();
                self.machine.take(stream, taken);
                if finder.is_after_return() {
                    self.machine.skip_newline(stream);
                }
            }
        }
        self.child.machine = Some(Box::new(self.machine));
        self.child
    }
}

/// Waits for the ends that bytes can pass, and for no others.
fn wait_for_ends(talk: &Talk<'_>, epoll: &mut Epoll, key: Key, ends: &mut [Waited; 3]) -> Result<(), Error> {
    let (stdin, [stdout, stderr]) = talk.wanted();
    let wanted = [stdin.map(AsFd::as_fd), stdout.map(AsFd::as_fd), stderr.map(AsFd::as_fd)];
    let parts = [Part::Stdin, Part::Stdout, Part::Stderr];
    for (((waited, wanted), present), part) in ends.iter_mut().zip(wanted).zip(talk.ends()).zip(parts) {
        let token = key.token(part);
        let added = match (wanted, *waited) {
            (Some(fd), Waited::Not) if part == Part::Stdin => {
                *waited = Waited::Always;
                epoll.add(fd, token, Interest::Write)
            }
            (Some(fd), Waited::Not) => {
                *waited = Waited::Once;
                epoll.add(fd, token, Interest::ReadOnce)
            }
            // It has more to say than fits one answer.
            (Some(fd), Waited::Told) => {
                *waited = Waited::Always;
                epoll.add_again(fd, token, Interest::Read)
            }
            (None, Waited::Once | Waited::Always) => {
                *waited = Waited::Not;
                present.into_iter().for_each(|fd| epoll.remove(fd));
                Ok(())
            }
            _ => Ok(()),
        };
        added.map_err(|error| Error::io("epoll_ctl", error))?;
    }
    Ok(())
}
