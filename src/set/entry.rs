//! One child of a set: its conversation, and which of its descriptors are waited for. Decides what is told of it, in which order.

use super::Follow;
use super::token::{Key, Part};
use crate::child::{Child, KillOnDrop};
use crate::command::Input;
use crate::communicate::{Decision, LOOK, State, Talk, Watch, add_input};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle;
use crate::machine::{Machine, STREAMS};
use crate::output::{Cause, Output, Stream};
use crate::signal::Signal;
use crate::sys::epoll::{Epoll, Interest};
use crate::text::{Cut, LineFinder};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

pub(super) struct Entry {
    pub(super) child: Child,
    machine: Machine,
    state: State,
    follow: Follow,
    /// When it is stopped.
    deadline: Deadline,
    timeout: Option<Duration>,
    /// When the caller wants to hear that it still runs.
    pub(super) remind: Deadline,
    registered: Registered,
    /// Under which moment it is in the set's list.
    pub(super) armed: Option<Instant>,
    /// It stands in the line of those that have something to tell.
    pub(super) is_pending: bool,
    finders: Option<Box<[LineFinder; 2]>>,
    /// What was lent last counts as taken when the next is asked for.
    lent: Option<(Stream, usize)>,
    told_end: [bool; 2],
    failure: Option<Error>,
    result: Option<Result<Output, Error>>,
}

/// The descriptors that are waited for.
#[derive(Default)]
struct Registered {
    ends: [Option<RawFd>; 3],
    notice: bool,
    members: Vec<RawFd>,
}

/// What there is to tell of a child.
pub(super) enum Fact {
    Line(Stream, Cut),
    Chunk(Stream),
    End(Stream),
    Over(Box<Result<Output, Error>>),
}

/// Called with what is read.
pub(super) type See<'a> = dyn FnMut(Stream, &[u8]) + 'a;

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

    fn closing(&mut self, end: BorrowedFd<'_>) {
        for place in &mut self.registered.ends {
            if *place == Some(end.as_raw_fd()) {
                self.epoll.remove(end);
                *place = None;
            }
        }
    }
}

impl Entry {
    /// `is_ours`: nobody else has ever had its ends.
    pub(super) fn new(
        child: Child,
        machine: Machine,
        follow: Follow,
        timeout: Option<Duration>,
        is_ours: bool,
    ) -> Result<Entry, Error> {
        let mut state = State::new(&machine);
        state.never_blocks = true;
        let (text, line_max) = (child.settings.text, child.settings.line_max);
        let finder = || text.line_finder(line_max);
        let mut entry = Entry {
            machine,
            state,
            follow,
            deadline: Deadline::from(timeout),
            timeout,
            remind: Deadline::NEVER,
            registered: Registered::default(),
            armed: None,
            is_pending: false,
            finders: (follow == Follow::Lines).then(|| Box::new([finder(), finder()])),
            lent: None,
            told_end: [follow == Follow::Record; 2],
            failure: None,
            result: None,
            child,
        };
        // What nobody else can read is ready when it is said to be, so that a first read does not block.
        entry.talk(|talk| talk.prepare(is_ours))?;
        Ok(entry)
    }

    fn talk<T>(&mut self, act: impl FnOnce(&mut Talk<'_>) -> T) -> T {
        let state = std::mem::replace(&mut self.state, State::new(&self.machine));
        let mut talk = Talk::resume(&mut self.child, &mut self.machine, state);
        let result = act(&mut talk);
        self.state = talk.state;
        result
    }

    pub(super) fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Nothing is waited for any more.
    pub(super) fn is_over(&self) -> bool {
        self.result.is_some()
    }

    /// Notes that an end will not block, or that the process has ended.
    pub(super) fn mark(&mut self, part: Part) {
        let [stdout, stderr] = &mut self.state.ready.streams;
        match part {
            Part::Stdin => self.state.ready.stdin = true,
            Part::Stdout => *stdout = true,
            Part::Stderr => *stderr = true,
            Part::Notice => {
                self.state.exited = true;
                self.registered.notice = false;
            }
            _ => {}
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.result.is_some()
            || STREAMS.into_iter().zip(self.told_end).any(|(stream, told)| {
                let has_more = self.follow != Follow::Record && !self.machine.unread(stream).is_empty();
                has_more || (!told && self.machine.has_ended(stream))
            })
    }

    /// Adds input behind what is still to be written.
    pub(super) fn add_input(&mut self, input: Input) -> Result<(), Error> {
        let added = add_input(&mut self.machine, input);
        self.mark(Part::Stdin);
        added.map_err(|error| error.of_command(|| self.child.handle().line()))
    }

    /// Begins to stop it, by the plan of its command. What it says on its way out is still read.
    pub(super) fn stop(&mut self) {
        if !self.is_over() && !self.state.is_stopping() {
            self.talk(|talk| talk.begin_stop(Cause::Stopped));
        }
    }

    /// Sends a signal to it and its tree, but to nobody in this group.
    pub(super) fn signal(&self, signal: Signal, except_group: Option<i32>) -> Result<(), Error> {
        if self.is_over() {
            return Ok(());
        }
        let (handle, plan) = (self.child.handle(), &self.child.settings.stop);
        handle::signal_all(handle, plan, &self.child.pipes(), signal, except_group)
    }

    /// Moves what is ready, looks at the facts, and waits for what is wanted next. Returns when it wants to be looked at again.
    pub(super) fn step(&mut self, epoll: &mut Epoll, key: Key, see: &mut See<'_>) -> Deadline {
        if self.is_over() {
            return Deadline::NEVER;
        }
        match self
            .advance(epoll, see)
            .and_then(|over| if over { Ok(None) } else { self.wait_for(epoll, key).map(Some) })
        {
            Ok(Some(until)) => until,
            Ok(None) => {
                self.conclude(epoll, see);
                Deadline::NEVER
            }
            Err(error) => self.fail(error, epoll, see),
        }
    }

    /// Whether it is over.
    fn advance(&mut self, epoll: &mut Epoll, see: &mut See<'_>) -> Result<bool, Error> {
        let deadline = self.deadline;
        if self.state.is_stopping() {
            // The next step may close what is waited for.
            self.unregister(epoll, false);
        }
        let mut registered = std::mem::take(&mut self.registered);
        let decided = self.talk(|talk| {
            let watch = &mut Onlooker { epoll, registered: &mut registered, see };
            talk.transfer(0, deadline, watch)?;
            if let Some(cause) = talk.why_to_stop().filter(|_| !talk.state.is_stopping()) {
                talk.begin_stop(cause);
            }
            if !talk.state.exited && talk.child.handle.notice().is_none() {
                talk.state.exited = talk.child.handle.has_exited();
            }
            talk.decide(deadline, true)
        });
        self.registered = registered;
        Ok(matches!(decided?, Decision::Over))
    }

    /// Waits for what can bring it on.
    fn wait_for(&mut self, epoll: &mut Epoll, key: Key) -> Result<Deadline, Error> {
        let mut registered = std::mem::take(&mut self.registered);
        let until = self.talk(|talk| -> Result<Deadline, Error> {
            let failed = |error| Error::io("epoll", error);
            let Some(mut until) = talk.state.until else { return Ok(Deadline::NEVER) };
            let (stdin, [stdout, stderr]) = talk.wanted();
            let wanted = [stdin.map(AsFd::as_fd), stdout.map(AsFd::as_fd), stderr.map(AsFd::as_fd)];
            let present = talk.ends();
            let parts =
                [(Part::Stdin, Interest::Write), (Part::Stdout, Interest::Read), (Part::Stderr, Interest::Read)];
            for (((place, wanted), present), (part, interest)) in
                registered.ends.iter_mut().zip(wanted).zip(present).zip(parts)
            {
                match (wanted, place.is_some()) {
                    (Some(fd), false) => {
                        epoll.add(fd, key.token(part), interest).map_err(failed)?;
                        *place = Some(fd.as_raw_fd());
                    }
                    (None, true) => {
                        if let Some(fd) = present {
                            epoll.remove(fd);
                        }
                        *place = None;
                    }
                    _ => {}
                }
            }
            if !talk.state.exited {
                match talk.child.handle.notice() {
                    Some(fd) if !registered.notice => {
                        epoll.add(fd, key.token(Part::Notice), Interest::ReadOnce).map_err(failed)?;
                        registered.notice = true;
                    }
                    Some(_) => {}
                    None => until = until.earlier(Deadline::after(LOOK)),
                }
            }
            for member in talk.members() {
                epoll.add(member, key.token(Part::Member), Interest::ReadOnce).map_err(failed)?;
                registered.members.push(member.as_raw_fd());
            }
            Ok(if talk.has_passed() { Deadline::now() } else { until })
        });
        self.registered = registered;
        until
    }

    /// Nothing of it is waited for any more, or, unless `all`, nothing that the step of a stop may close.
    fn unregister(&mut self, epoll: &mut Epoll, all: bool) {
        let mut registered = std::mem::take(&mut self.registered);
        self.talk(|talk| {
            let [stdin, ..] = talk.ends();
            for (place, end) in registered.ends.iter_mut().zip(talk.ends()) {
                let concerned = all || end.map(|end| end.as_raw_fd()) == stdin.map(|end| end.as_raw_fd());
                if concerned && let Some(end) = end.filter(|_| place.take().is_some()) {
                    epoll.remove(end);
                }
            }
            for member in talk.members() {
                if registered.members.contains(&member.as_raw_fd()) {
                    epoll.remove(member);
                }
            }
            registered.members.clear();
            if all
                && std::mem::take(&mut registered.notice)
                && let Some(fd) = talk.child.handle.notice()
            {
                epoll.remove(fd);
            }
        });
        self.registered = registered;
    }

    /// The system refuses something: the process is stopped, and the first error is the result.
    fn fail(&mut self, error: Error, epoll: &mut Epoll, see: &mut See<'_>) -> Deadline {
        let is_first = self.failure.is_none();
        self.failure.get_or_insert(error);
        if is_first && !self.state.is_stopping() {
            self.stop();
            return Deadline::now();
        }
        // It cannot even be stopped.
        self.conclude(epoll, see);
        Deadline::NEVER
    }

    fn conclude(&mut self, epoll: &mut Epoll, see: &mut See<'_>) {
        self.unregister(epoll, true);
        let deadline = self.deadline;
        let mut registered = Registered::default();
        let finished = self.talk(|talk| {
            let watch = &mut Onlooker { epoll, registered: &mut registered, see };
            talk.finish(0, deadline, watch)
        });
        if let Err(error) = finished {
            self.failure.get_or_insert(error);
        }
        let state = std::mem::replace(&mut self.state, State::new(&self.machine));
        let closing = state.into_closing();
        // What is unread is still to be handed out, so the record is a copy.
        let result = match self.failure.take() {
            Some(error) => {
                let output = self.child.snapshot(&self.machine, closing);
                Err(error.with_output(output))
            }
            None if self.follow == Follow::Record => {
                let machine = std::mem::replace(&mut self.machine, Machine::new(false, None, None));
                self.child.conclude(machine, closing)
            }
            None => self.child.conclude_live(&self.machine, closing),
        };
        self.result = Some(result.map_err(|error| match self.timeout {
            Some(timeout) if error.is_timeout() => error.detail(format!("timed out after {timeout:?}")),
            _ => error,
        }));
    }

    /// What is to be told next, if anything.
    pub(super) fn next_fact(&mut self) -> Option<Fact> {
        self.take_lent();
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
        self.result.take().map(|result| Fact::Over(Box::new(result)))
    }

    fn next_piece(&mut self, place: usize, stream: Stream, ended: bool) -> Option<Fact> {
        let unread = self.machine.unread(stream);
        match self.follow {
            Follow::Record => None,
            Follow::Chunks => {
                let count = unread.len();
                self.lent = (count > 0).then_some((stream, count));
                (count > 0).then_some(Fact::Chunk(stream))
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

    fn take_lent(&mut self) {
        if let Some((stream, count)) = self.lent.take() {
            self.machine.take(stream, count);
        }
    }

    /// Its child, with the conversation as far as it has come.
    pub(super) fn into_child(mut self, epoll: &mut Epoll) -> Child {
        self.unregister(epoll, true);
        self.take_lent();
        if let Some(finders) = &mut self.finders {
            for (stream, finder) in STREAMS.into_iter().zip(finders.iter_mut()) {
                let taken = finder.forget();
                self.machine.take(stream, taken);
                if finder.is_after_return() {
                    self.machine.skip_newline(stream);
                }
            }
        }
        if self.child.settings.kill_on_drop == KillOnDrop::Always {
            self.child.settings.kill_on_drop = KillOnDrop::No;
        }
        self.child.machine = Some(Box::new(self.machine));
        self.child
    }
}
