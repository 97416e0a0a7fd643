//! The conversation with one child: what is transferred when an end is ready, and what the facts mean. It waits for nothing: drivers
//! tell it what is ready and ask it what to wait for. Decides in which order the facts are looked at: bytes, the stop in progress,
//! the end of the process, the deadline.

use crate::child::{Child, KillOnDrop};
use crate::course::{Closing, State, Stopping};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::handle::{self, ProcessHandle, Progress, Sight, Stopper};
use crate::machine::{Machine, STREAMS, Trouble};
use crate::output::{Cause, ProcessEntry, Stream};
use crate::pipe::{PipeReader, PipeWriter};
use crate::sys::{self, poll};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Who looks on while children are talked to. The unit type looks at nothing.
pub(crate) trait Watch {
    /// Output of the child at this place, as it was read, before anything is kept or dropped. A break stops the processes.
    fn see(&mut self, _place: usize, _stream: Stream, _bytes: &[u8]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The stream has ended, or is read no more.
    fn end(&mut self, _place: usize, _stream: Stream) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Our end of this descriptor of the child is about to be closed.
    fn closing(&mut self, _number: usize, _end: BorrowedFd<'_>) {}

    /// Everything that was ready has been moved. May move more between the children; a break pauses the conversations.
    fn look(&mut self, _talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Watch for () {}

/// After a stop the pipes get this long at most, whatever the command says: a timeout bounds the whole call.
const DRAIN_AFTER_STOP: Duration = Duration::from_millis(500);
/// Without a descriptor that announces the end, this is how often one looks.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// A pipe that was found full gets this size, in either direction: each side then sleeps less often, and it still fits the
/// second-level cache.
const PIPE_SIZE: usize = 256 * 1024;
/// As much as a pipe holds whose size nobody chose. A size that was chosen stays.
const PIPE_FULL: usize = 64 * 1024;
/// An output of this size is large: the memory for what comes next is asked for in pieces of the second size. They bound by
/// how much the memory in use exceeds the output.
const LARGE: usize = 1024 * 1024;
const AHEAD: usize = 256 * 1024;

/// What the facts mean.
pub(crate) enum Decision {
    /// For readiness, until this moment.
    Wait(Deadline),
    Over,
    TimedOut,
}

/// The conversation with one child.
pub(crate) struct Talk<'a> {
    pub(crate) child: &'a mut Child,
    pub(crate) machine: &'a mut Machine,
    pub(crate) state: State,
    /// Until when a driver waits for readiness; not at all if nothing is left to wait for.
    pub(super) until: Option<Deadline>,
    is_prepared: bool,
    /// An end that was ready may still be: nobody has come to the point where nothing more could be moved.
    pub(crate) is_unsure: bool,
}

impl<'a> Talk<'a> {
    /// The conversation, or how far it had come when it was left pending.
    pub(crate) fn new(child: &'a mut Child, machine: &'a mut Machine) -> Talk<'a> {
        let left = child.aside.as_mut().and_then(|aside| aside.talk.take());
        let is_prepared = left.is_some();
        Talk { is_prepared, is_unsure: !is_prepared, ..Talk::resume(child, machine, left.unwrap_or_else(State::new)) }
    }

    /// Leaves it as it is, pending.
    pub(crate) fn leave(self) {
        self.child.aside.get_or_insert_default().talk = Some(self.state);
    }

    /// The conversation as far as it has come.
    pub(crate) fn resume(child: &'a mut Child, machine: &'a mut Machine, state: State) -> Talk<'a> {
        Talk { child, machine, state, until: None, is_prepared: false, is_unsure: false }
    }

    /// How it ended. Of a conversation that goes on, as if it had.
    pub(crate) fn into_closing(self) -> Closing {
        self.state.into_closing()
    }

    /// As [`prepare`](Self::prepare), the first time.
    pub(super) fn prepare_once(&mut self) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_prepared, true) {
            self.prepare(false)?;
        }
        Ok(())
    }

    /// Our ends become non-blocking; the child's are other descriptions and stay as they are. What is only ever read when it is
    /// ready, and by nobody else, need not be before a second read in a row.
    pub(crate) fn prepare(&mut self, reads_when_ready: bool) -> Result<(), Error> {
        let [stdin, outputs @ ..] = self.ends();
        let outputs = if reads_when_ready && self.child.sieve.is_none() { [None; 2] } else { outputs };
        for end in stdin.into_iter().chain(outputs.into_iter().flatten()) {
            sys::fd::set_nonblocking(end).map_err(|error| Error::io("fcntl", error))?;
        }
        let [stdout, stderr] = outputs.map(|end| end.is_some());
        self.state.nonblocking = [stdout, stderr];
        Ok(())
    }

    /// Our ends, as far as they are open.
    pub(crate) fn ends(&self) -> [Option<BorrowedFd<'_>>; 3] {
        [
            self.child.stdin.as_ref().map(|end| end.as_fd()),
            self.child.stdout.as_ref().map(|end| end.as_fd()),
            self.child.stderr.as_ref().map(|end| end.as_fd()),
        ]
    }

    pub(crate) fn transfer(&mut self, place: usize, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        let ready = std::mem::take(&mut self.state.ready);
        if self.state.is_broken {
            return Ok(());
        }
        self.machine.begin_look();
        if ready.stdin && self.machine.wants_to_write() {
            let ([grown, ..], mut is_full) = (&mut self.state.grown, false);
            let written = match &self.child.stdin {
                Some(end) => self.machine.write(|bytes| {
                    let written = end.write_some(bytes);
                    is_full = !written.as_ref().is_ok_and(|count| *count == bytes.len());
                    let count = written?;
                    if count >= PIPE_FULL && count < bytes.len() {
                        grow(end.as_fd(), grown);
                    }
                    Ok(count)
                }),
                None => {
                    self.machine.end_input();
                    Ok(true)
                }
            };
            written.map_err(|error| Error::io("write stdin", error))?;
            self.is_unsure |= !is_full && self.machine.wants_to_write();
        }
        // A terminal may have no room for the end of input now; a pipe always has.
        let over = ready.stdin && !self.machine.input_is_open();
        if over && let Some(end) = self.child.stdin.take_if(|end| end.say_end()) {
            watch.closing(0, end.as_fd());
            self.tell_of_input();
        }
        let before = self.machine.total();
        for ((stream, is_ready), hung_up) in STREAMS.into_iter().zip(ready.streams).zip(ready.hung_up) {
            let wants = |machine: &Machine| is_ready && machine.wants_to_read(stream);
            if wants(self.machine) {
                self.read(place, stream, deadline, watch)?;
            }
            // Behind the last words is the end.
            if hung_up && wants(self.machine) && self.machine.collects(stream) {
                self.read(place, stream, deadline, watch)?;
            }
        }
        if self.machine.total() > before {
            self.machine.heard_at(Instant::now());
        }
        Ok(())
    }

    fn read(&mut self, place: usize, stream: Stream, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        let until = self.target_deadline(deadline);
        let [_, stdout_grown, stderr_grown] = &mut self.state.grown;
        let [stdout_nonblocking, stderr_nonblocking] = &mut self.state.nonblocking;
        let (end, grown, nonblocking, step) = match stream {
            Stream::Stdout => (&mut self.child.stdout, stdout_grown, stdout_nonblocking, "read stdout"),
            Stream::Stderr => (&mut self.child.stderr, stderr_grown, stderr_nonblocking, "read stderr"),
        };
        let Some(reader) = end else {
            self.machine.cut_off(stream, Vec::new());
            return Ok(());
        };
        let (mut full, mut was_read, mut is_dry) = (false, false, false);
        let clocked = self.child.settings.transcript || !self.child.tee.is_empty();
        let now = || if clocked { self.child.handle.born().elapsed() } else { Duration::ZERO };
        let (tee, failure, has_seen_enough) =
            (&mut self.child.tee, &mut self.state.closing.failure, &mut self.state.has_seen_enough);
        let (mut marks, sieve) = (Vec::new(), &mut self.child.sieve);
        let (prepared, used) = (&mut self.state.prepared, STREAMS.map(|stream| self.machine.used_memory(stream)));
        let mut skips = self.machine.skips_newline(stream);
        let stopping = self.state.stopper.is_some() || self.state.is_over;
        let ended = self.machine.read(stream, |buffer, max| {
            if clocked && !stopping && failure.is_none() && !*has_seen_enough {
                // Whoever does not take the bytes holds up the child.
                let caught_up = tee.catch_up(stream, until);
                if !matches!(caught_up, Ok(true)) {
                    *has_seen_enough |= caught_up.is_err();
                    *failure = caught_up.err();
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            if buffer.len() >= LARGE {
                let [stdout, stderr] = &mut **prepared.get_or_insert_with(|| Box::new(used));
                prepare_memory(buffer, if stream == Stream::Stdout { stdout } else { stderr });
            }
            let before = buffer.len();
            let mut read = |buffer: &mut Vec<u8>, max| {
                if std::mem::replace(&mut was_read, true) && !std::mem::replace(nonblocking, true) {
                    sys::fd::set_nonblocking(reader.as_fd())?;
                }
                let count = reader.read_append(buffer, max);
                is_dry = count.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
                full |= count.as_ref().is_ok_and(|count| *count >= PIPE_FULL);
                count
            };
            let sieve = sieve.as_mut().filter(|_| stream == Stream::Stdout);
            let count = match sieve {
                None => read(buffer, max)?,
                Some(sieve) => sieve.read(buffer, max, read)?,
            };
            let bytes = buffer.get(before..).unwrap_or_default();
            if clocked && count > 0 {
                let at = now();
                marks.push((count, at));
                if failure.is_none() {
                    *failure = tee.give(stream, bytes, at, until).err();
                }
            }
            // Whoever was shown the first half of a line end is not shown the second.
            let seen = match bytes.strip_prefix(b"\n") {
                Some(behind) if std::mem::take(&mut skips) => behind,
                _ => bytes,
            };
            skips &= bytes.is_empty();
            *has_seen_enough |= failure.is_some() || (!seen.is_empty() && watch.see(place, stream, seen).is_break());
            Ok(count)
        });
        if full {
            grow(reader.as_fd(), grown);
        }
        for (count, at) in marks {
            self.machine.mark(stream, count, at);
        }
        let ended = ended.map_err(|trouble| match trouble {
            Trouble::Read(error) => Error::io(step, error),
            Trouble::Spill(path, error) => Error::io("spill to", error).path(path),
        })?;
        self.is_unsure |= !is_dry;
        if ended && let Some(end) = end.take() {
            watch.closing(stream as usize + 1, end.as_fd());
            self.child.handle.span().stream_ended(stream, || self.machine.said(stream, 0).0);
        }
        self.take_filter_failure();
        if ended {
            self.end(place, stream, until, watch);
        }
        Ok(())
    }

    fn take_filter_failure(&mut self) {
        if let Some(error) = self.child.sieve.as_mut().and_then(|sieve| sieve.take_failure()) {
            self.state.closing.failure.get_or_insert(Error::io("filter", error));
            self.state.has_seen_enough = true;
        }
    }

    /// A target does not hold up a stop, nor a timeout, nor other children.
    fn target_deadline(&self, deadline: Deadline) -> Deadline {
        if self.state.stopper.is_some() || self.state.never_blocks { Deadline::now() } else { deadline }
    }

    /// Gives to targets what they would not take before, for drivers that do not wait for them. Whether some still have not taken all.
    pub(crate) fn catch_up(&mut self) -> bool {
        let mut behind = false;
        for stream in STREAMS {
            if self.state.closing.failure.is_none() && self.child.tee.is_behind(stream) {
                let caught_up = self.child.tee.catch_up(stream, Deadline::now());
                behind |= matches!(caught_up, Ok(false));
                self.state.closing.failure = caught_up.err();
            }
        }
        self.state.has_seen_enough |= self.state.closing.failure.is_some();
        behind
    }

    /// Whether a stream is not read because its targets have not taken what was read before.
    pub(crate) fn is_held_up(&self, stream: Stream) -> bool {
        let waits = self.state.never_blocks && self.state.stopper.is_none() && self.state.closing.failure.is_none();
        waits && self.child.tee.is_behind(stream)
    }

    /// Tells everybody that no more will come of a stream.
    fn end(&mut self, place: usize, stream: Stream, until: Deadline, watch: &mut dyn Watch) {
        if self.state.closing.failure.is_none() && !self.child.tee.is_empty() {
            self.state.closing.failure = self.child.tee.end(stream, self.child.handle.born().elapsed(), until).err();
        }
        self.state.has_seen_enough |= self.state.closing.failure.is_some() || watch.end(place, stream).is_break();
    }

    /// What the facts mean.
    pub(crate) fn decide(
        &mut self,
        deadline: Deadline,
        stops: bool,
        sight: &mut Sight,
        watch: &mut dyn Watch,
    ) -> Result<Decision, Error> {
        if let Some(decision) = self.advance_stop(sight, watch)? {
            return Ok(decision);
        }
        // Only the end of the process is left: the last wait reaps it in one call.
        let said = self.child.stdin.is_none();
        let may_block = said && deadline == Deadline::NEVER && !self.state.never_blocks;
        if self.machine.is_done() && (self.state.exited || may_block) {
            return Ok(Decision::Over);
        }
        if self.state.exited && self.state.is_paused {
            // That we do not read is not the pipe's fault.
            self.child.drain = Deadline::NEVER;
        } else if self.state.exited {
            self.begin_drain(self.child.settings.drain);
            if self.child.drain.has_passed() || (stops && deadline.has_passed()) {
                return Ok(Decision::Over);
            }
        }
        if deadline.has_passed() {
            // One last look: it may have ended while we were not looking.
            if !self.state.exited && self.child.handle.has_exited() {
                self.state.exited = true;
            } else if stops {
                self.begin_stop(Cause::Timeout);
            } else {
                self.child.handle.span().timed_out();
                return Ok(Decision::TimedOut);
            }
            return self.decide(deadline, stops, sight, watch);
        }
        Ok(Decision::Wait(deadline.earlier(self.child.drain)))
    }

    pub(crate) fn begin_stop(&mut self, cause: Cause) {
        if cause == Cause::Timeout {
            self.child.handle.span().timed_out();
        }
        let (stopper, pipes) = (Stopper::new(&self.child.settings.stop), self.child.pipes());
        self.state.stopper = Some(Box::new(Stopping { stopper, pipes }));
        self.state.closing.cause = cause;
    }

    /// Once: a conversation that is continued goes on with the drain that has begun.
    fn begin_drain(&mut self, drain: Duration) {
        if self.child.drain == Deadline::NEVER {
            self.child.drain = Deadline::after(drain);
        }
    }

    /// Goes on with the stop, if there is one, and says what that means.
    fn advance_stop(&mut self, sight: &mut Sight, watch: &mut dyn Watch) -> Result<Option<Decision>, Error> {
        let Some(stopping) = &mut self.state.stopper else { return Ok(None) };
        let Stopping { stopper, pipes } = &mut **stopping;
        let (stdin, machine) = (&mut self.child.stdin, &mut *self.machine);
        let mut close_stdin = || {
            machine.end_input();
            if let Some(end) = stdin.take() {
                watch.closing(0, end.as_fd());
            }
        };
        match stopper.advance(&self.child.handle, pipes, sight, &mut close_stdin)? {
            Progress::Wait(until) => Ok(Some(Decision::Wait(until))),
            Progress::Over => {
                self.begin_drain(self.child.settings.drain.min(DRAIN_AFTER_STOP));
                // What exceeds the limit is not read any more, so there is no end of file to wait for.
                let over = self.machine.is_done()
                    || self.state.is_broken
                    || self.state.closing.cause == Cause::Overflow
                    || self.child.drain.has_passed();
                Ok(Some(if over { Decision::Over } else { Decision::Wait(self.child.drain) }))
            }
        }
    }

    /// What is watched of a stop in progress besides the process itself: readable when somebody else of its tree has ended.
    pub(crate) fn members(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.state.stopper.iter().flat_map(|stopping| stopping.stopper.descriptors())
    }

    /// What exceeds its limit ends the conversation, and so does who looks on and has seen enough.
    pub(crate) fn why_to_stop(&self) -> Option<Cause> {
        if self.machine.overflowed().is_some() {
            Some(Cause::Overflow)
        } else {
            self.state.has_seen_enough.then_some(Cause::Stopped)
        }
    }

    /// Whether the process has ended and nobody can be waited for who reads what is written to it.
    pub(crate) fn reads_no_more(&self) -> bool {
        self.state.exited && self.state.is_over
    }

    /// Whether standard output has more although its pipe may have nothing.
    pub(crate) fn has_passed(&self) -> bool {
        let reading = !self.state.is_paused && !self.state.is_broken && self.machine.overflowed().is_none();
        let wants = reading && self.machine.wants_to_read(Stream::Stdout) && !self.is_held_up(Stream::Stdout);
        wants && self.child.sieve.as_ref().is_some_and(|sieve| sieve.has_passed())
    }

    /// The ends that bytes can still pass.
    pub(crate) fn wanted(&self) -> (Option<&PipeWriter>, [Option<&PipeReader>; 2]) {
        let reading = self.machine.overflowed().is_none() && !self.state.is_broken;
        let wants = |stream| reading && self.machine.wants_to_read(stream) && !self.is_held_up(stream);
        // What is over has its end still to be said.
        let wants_input = (self.machine.wants_to_write() || !self.machine.input_is_open()) && !self.state.is_broken;
        let stdin = self.child.stdin.as_ref().filter(|_| wants_input);
        let stdout = self.child.stdout.as_ref().filter(|_| wants(Stream::Stdout) && !self.state.is_paused);
        let stderr = self.child.stderr.as_ref().filter(|_| wants(Stream::Stderr));
        (stdin, [stdout, stderr])
    }

    /// What the process wrote before its end is in its pipes by now, and so is the end of file if nobody else holds them. With
    /// a short drain nobody may have looked since.
    fn read_what_is_there(&mut self, place: usize, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        for stream in STREAMS {
            for _ in 0..LAST_READS {
                let end = match stream {
                    Stream::Stdout => &self.child.stdout,
                    Stream::Stderr => &self.child.stderr,
                };
                let Some(end) = end.as_ref().filter(|_| self.machine.wants_to_read(stream)) else { break };
                let ready = poll::wait_readable(end.as_fd(), Deadline::now().moment());
                if !ready.map_err(|error| Error::io("poll", error))? {
                    break;
                }
                let before = self.machine.total();
                self.read(place, stream, deadline, watch)?;
                if self.machine.total() > before {
                    self.machine.heard_at(Instant::now());
                }
            }
        }
        self.read_what_has_passed(place, deadline, watch)
    }

    /// What filters have made of what was read is not given up with the pipe.
    fn read_what_has_passed(&mut self, place: usize, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        let Some(sieve) = self.child.sieve.as_mut().filter(|_| self.machine.wants_to_read(Stream::Stdout)) else {
            return Ok(());
        };
        sieve.cut_off();
        while self.child.sieve.as_ref().is_some_and(|sieve| sieve.has_passed()) && self.machine.overflowed().is_none() {
            self.read(place, Stream::Stdout, deadline, watch)?;
        }
        self.take_filter_failure();
        Ok(())
    }

    /// Reading is given up: nobody waits for the streams any more.
    pub(crate) fn give_up(
        &mut self,
        place: usize,
        deadline: Deadline,
        sight: &mut Sight,
        watch: &mut dyn Watch,
    ) -> Result<(), Error> {
        if self.state.is_broken {
            return Ok(());
        }
        if self.machine.overflowed().is_none() {
            self.read_what_is_there(place, deadline, watch)?;
        }
        self.explain_what_is_left();
        // Since the drain was over, or the stop.
        let since = self.child.drain.moment().map_or_else(Instant::now, |moment| moment.min(Instant::now()));
        for stream in STREAMS {
            if self.machine.wants_to_read(stream) {
                let end = match stream {
                    Stream::Stdout => self.child.stdout.take(),
                    Stream::Stderr => self.child.stderr.take(),
                };
                let holders = end.map(|end| {
                    watch.closing(stream as usize + 1, end.as_fd());
                    holders(&self.child.handle, &end, since, sight)
                });
                self.machine.cut_off(stream, holders.unwrap_or_default());
                self.child.handle.span().stream_cut_off(stream, || self.machine.said(stream, 0).0);
                self.end(place, stream, self.target_deadline(deadline), watch);
            }
        }
        Ok(())
    }

    /// Nothing is waited for any more but the reaping of a process that has ended.
    pub(crate) fn finish(
        &mut self,
        place: usize,
        deadline: Deadline,
        sight: &mut Sight,
        watch: &mut dyn Watch,
    ) -> Result<(), Error> {
        self.give_up(place, deadline, sight, watch)?;
        if self.state.closing.failure.is_none()
            && self.state.closing.cause == Cause::Ended
            && let Err(error) = self.child.tee.finish(self.target_deadline(deadline))
        {
            self.state.closing.failure =
                Some(if deadline.has_passed() { error.kind_of(ErrorKind::Timeout) } else { error });
        }
        self.machine.end_input();
        if let Some(end) = self.child.stdin.take() {
            watch.closing(0, end.as_fd());
        }
        let Some(stopping) = self.state.stopper.take() else {
            self.child.handle.wait_ended_alone(Deadline::NEVER)?;
            self.note_the_time();
            return Ok(());
        };
        // The plan has done what it could; drop does not do it again.
        self.child.kill_on_drop = KillOnDrop::No;
        let patience = if self.state.never_blocks { Duration::ZERO } else { LOOK };
        let ended = self.child.handle.wait_ended(Deadline::after(patience))?;
        let report = stopping.stopper.report(&self.child.handle, ended.map(|ended| ended.status));
        if !report.survivors().is_empty() {
            self.state.closing.left.get_or_insert_default().survivors = report.survivors().to_vec();
        }
        self.note_the_time();
        Ok(())
    }
}

/// For drivers that do not wait inside.
impl Talk<'_> {
    /// Records of such a driver are made when somebody asks for them.
    fn note_the_time(&mut self) {
        if self.state.never_blocks {
            self.state.closing.left.get_or_insert_default().elapsed = Some(self.child.handle.born().elapsed());
        }
    }

    /// Who has just closed everything has most often ended by now, and nothing is left but to reap it.
    pub(super) fn look_once_done(&mut self, was_done: bool) -> Result<(), Error> {
        if !was_done && self.machine.is_done() && !self.state.exited && !self.state.is_stopping() {
            self.state.exited = self.child.handle.try_wait()?.is_some();
        }
        Ok(())
    }

    /// Whether [`finish`](Self::finish) would wait for nobody: the process can be reaped, and targets have taken everything.
    pub(crate) fn can_finish(&mut self, deadline: Deadline) -> Result<bool, Error> {
        let is_announced = self.state.exited && self.child.handle.try_wait()?.is_none();
        // A process that a debugger holds is announced and cannot be reaped. A stop does not wait for that without a bound.
        if is_announced && !(self.state.stopper.is_some() && self.child.drain.has_passed()) {
            return Ok(false);
        }
        let waits = self.state.closing.cause == Cause::Ended && !deadline.has_passed();
        Ok(!(waits && self.catch_up()))
    }
}

/// What is told to those who look on.
impl Talk<'_> {
    fn tell_of_input(&self) {
        if self.machine.input().1 {
            self.child.handle.span().input_refused();
        }
    }

    /// Looks around, before the pipes are closed, if a stop has left survivors or a pipe has not come to its end. What exceeded its
    /// limit was not read to the end, and there is nothing to be explained about that.
    fn explain_what_is_left(&mut self) {
        let survivors = self.state.stopper.as_ref().is_some_and(|stopping| stopping.stopper.leaves_survivors());
        let cut_off = self.state.closing.cause != Cause::Overflow
            && STREAMS.iter().any(|&stream| self.machine.wants_to_read(stream));
        // Once: afterwards the pipes are closed.
        if self.state.closing.left.is_none() && (survivors || cut_off) {
            let explanation = handle::explain(&self.child.subject(Some(self.machine)));
            self.state.closing.left.get_or_insert_default().explanation = Some(Box::new(explanation.at_the_end()));
        }
    }
}

/// How often a pipe is read again before it is given up.
const LAST_READS: usize = 16;

/// Asks once for a larger pipe.
fn grow(end: BorrowedFd<'_>, grown: &mut bool) {
    if !std::mem::replace(grown, true) && sys::pipe::size(end).is_ok_and(|size| size == PIPE_FULL) {
        // A wish: an unprivileged user may have used up the quota of pipe pages.
        let _: io::Result<usize> = sys::pipe::set_size(end, PIPE_SIZE);
    }
}

/// Gives the next read of a large output memory in one call: faults, one for each page, would cost as much as the copy.
fn prepare_memory(buffer: &mut Vec<u8>, prepared: &mut usize) {
    let length = buffer.len();
    if length + PIPE_SIZE <= *prepared {
        return;
    }
    let start = length.max(*prepared);
    let spare = buffer.spare_capacity_mut();
    let end = spare.len().min(start - length + AHEAD);
    if let Some(fresh) = spare.get_mut(start - length..end) {
        // A wish: an older kernel refuses, and then the faults come.
        let _: io::Result<()> = sys::memory::populate(fresh);
    }
    *prepared = start + AHEAD;
}

/// Who kept the pipe open at this moment or later.
fn holders(handle: &ProcessHandle, end: &PipeReader, since: Instant, sight: &mut Sight) -> Vec<ProcessEntry> {
    let Some(channel) = end.channel() else { return Vec::new() };
    sight.writers(channel, since).into_iter().map(|pid| handle.entry(pid)).collect()
}
