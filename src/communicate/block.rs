//! The blocking driver: feeds the machines of a few children with readiness from one `ppoll`, on the caller's thread. Decides in
//! which order the facts are looked at: bytes, the stop in progress, the end of the process, the deadline.

use crate::child::{Child, KillOnDrop};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::explain::Explanation;
use crate::handle::{self, ProcessHandle, Progress, Stopper};
use crate::machine::{Machine, STREAMS, Trouble};
use crate::output::{Cause, ProcessEntry, Stream};
use crate::pipe::{PipeReader, PipeWriter};
use crate::sys::poll::{self, PollFd};
use crate::sys::procfs::Channel;
use crate::sys::{self, procfs};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

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

    /// Everything that was ready has been moved. May move more between the children; a break pauses the conversations.
    fn look(&mut self, _talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Watch for () {}

/// After a stop the pipes get this long at most, whatever the command says: a timeout bounds the whole call.
const DRAIN_AFTER_STOP: Duration = Duration::from_millis(500);
/// Without a descriptor that announces the end, this is how often one looks.
const LOOK: Duration = Duration::from_millis(5);
/// A pipe that was found full gets this size, in either direction: each side then sleeps less often, and it still fits the
/// second-level cache.
const PIPE_SIZE: usize = 256 * 1024;
/// As much as a pipe holds whose size nobody chose. A size that was chosen stays.
const PIPE_FULL: usize = 64 * 1024;
/// An output of this size is large: the memory for what comes next is asked for in pieces of the second size. They bound by
/// how much the memory in use exceeds the output.
const LARGE: usize = 1024 * 1024;
const AHEAD: usize = 256 * 1024;

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
        talk.prepare()?;
    }
    loop {
        for (place, talk) in talks.iter_mut().enumerate() {
            talk.transfer(place, deadline, watch)?;
        }
        let goes_on = |talk: &Talk<'_>| talk.stopper.is_none() && !talk.has_seen_enough;
        if watch.look(talks).is_break() && talks.iter().all(goes_on) {
            return Ok(Ending::Paused);
        }
        stop_all_if_wanted(talks);
        let (mut over, mut is_new) = (true, false);
        for (place, talk) in talks.iter_mut().enumerate() {
            let was_over = talk.is_over;
            talk.is_over = match talk.decide(deadline, stops)? {
                Decision::Over => true,
                Decision::TimedOut => return Ok(Ending::TimedOut),
                Decision::Wait => false,
            };
            if talk.is_over && !was_over {
                talk.give_up(place, deadline, watch)?;
                is_new = true;
            }
            over &= talk.is_over;
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
        talk.finish(place, deadline, watch)?;
    }
    // What came last is handed on; nothing is stopped any more.
    let _ = watch.look(talks);
    Ok(Ending::Over)
}

/// What exceeds its limit ends the whole, and so does who looks on and has seen enough.
fn stop_all_if_wanted(talks: &mut [Talk<'_>]) {
    let wanted = talks.iter().any(|talk| talk.has_seen_enough || talk.machine.overflowed().is_some());
    if !wanted || talks.iter().any(|talk| talk.stopper.is_some()) {
        return;
    }
    // Who has come to the end by itself was not stopped.
    for talk in talks.iter_mut().filter(|talk| !(talk.is_over && talk.child.handle.has_exited())) {
        let cause = if talk.machine.overflowed().is_some() { Cause::Overflow } else { Cause::Stopped };
        talk.begin_stop(cause);
    }
}

/// Waits until something is ready, or until the earliest moment that one of them waits for.
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

/// Which ends a transfer will not block on.
#[derive(Clone, Copy, Default)]
struct Ready {
    stdin: bool,
    streams: [bool; 2],
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

enum Decision {
    Wait,
    Over,
    TimedOut,
}

/// The conversation with one child.
pub(crate) struct Talk<'a> {
    pub(crate) child: &'a mut Child,
    pub(crate) machine: &'a mut Machine,
    closing: Closing,
    ready: Ready,
    /// The process has ended; it is not reaped before the conversation is over.
    exited: bool,
    stopper: Option<(Stopper, Vec<Channel>)>,
    /// Until when to wait for readiness; not at all if nothing is left to wait for.
    until: Option<Deadline>,
    /// Which pipes were asked to be larger: standard input, output and error.
    grown: [bool; 3],
    /// Up to which length the buffers of standard output and error have memory behind them.
    prepared: [usize; 2],
    /// Who looks on has seen enough, or a target has failed: the process is to be stopped.
    pub(crate) has_seen_enough: bool,
    /// Nothing is waited for any more.
    pub(crate) is_over: bool,
    /// Standard output is not read for now: whoever gets it has enough.
    pub(crate) is_paused: bool,
}

/// How a conversation came to its end.
#[derive(Debug)]
pub(crate) struct Closing {
    /// Why it is over.
    pub(crate) cause: Cause,
    /// Who was alive after a stop.
    pub(crate) survivors: Vec<ProcessEntry>,
    /// Why something was left behind.
    pub(crate) explanation: Option<Box<Explanation>>,
    /// What a target or a filter failed with, first.
    pub(crate) failure: Option<Error>,
}

impl From<Cause> for Closing {
    fn from(cause: Cause) -> Closing {
        Closing { cause, survivors: Vec::new(), explanation: None, failure: None }
    }
}

impl<'a> Talk<'a> {
    pub(crate) fn new(child: &'a mut Child, machine: &'a mut Machine) -> Talk<'a> {
        let prepared = STREAMS.map(|stream| machine.used_memory(stream));
        Talk {
            child,
            machine,
            closing: Closing::from(Cause::Ended),
            // What can be written now need not be waited for; what can be read now is most likely nothing.
            ready: Ready { stdin: true, streams: [false; 2] },
            exited: false,
            stopper: None,
            until: None,
            grown: [false; 3],
            prepared,
            has_seen_enough: false,
            is_over: false,
            is_paused: false,
        }
    }

    /// How it ended. Of a conversation that goes on, as if it had.
    pub(crate) fn into_closing(self) -> Closing {
        self.closing
    }

    /// Our ends become non-blocking; the child's are other descriptions and stay as they are.
    fn prepare(&mut self) -> Result<(), Error> {
        let ends = [
            self.child.stdin.as_ref().map(|end| end.as_fd()),
            self.child.stdout.as_ref().map(|end| end.as_fd()),
            self.child.stderr.as_ref().map(|end| end.as_fd()),
        ];
        for end in ends.into_iter().flatten() {
            sys::fd::set_nonblocking(end).map_err(|error| Error::io("fcntl", error))?;
        }
        Ok(())
    }

    fn transfer(&mut self, place: usize, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        let ready = std::mem::take(&mut self.ready);
        self.machine.begin_look();
        if ready.stdin && self.machine.wants_to_write() {
            let [grown, ..] = &mut self.grown;
            let written = match &self.child.stdin {
                Some(end) => self.machine.write(|bytes| {
                    let count = end.write_some(bytes)?;
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
        }
        // A terminal may have no room for the end of input now; a pipe always has.
        let over = ready.stdin && !self.machine.input_is_open();
        if over && self.child.stdin.as_ref().is_some_and(PipeWriter::say_end) {
            self.child.stdin = None;
            self.tell_of_input();
        }
        let before = self.machine.total();
        for (stream, ready) in STREAMS.into_iter().zip(ready.streams) {
            if ready && self.machine.wants_to_read(stream) {
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
        let [_, stdout_grown, stderr_grown] = &mut self.grown;
        let [stdout_prepared, stderr_prepared] = &mut self.prepared;
        let (end, grown, prepared, step) = match stream {
            Stream::Stdout => (&mut self.child.stdout, stdout_grown, stdout_prepared, "read stdout"),
            Stream::Stderr => (&mut self.child.stderr, stderr_grown, stderr_prepared, "read stderr"),
        };
        let Some(reader) = end else {
            self.machine.cut_off(stream, Vec::new());
            return Ok(());
        };
        let mut full = false;
        let clocked = self.child.settings.transcript || !self.child.tee.is_empty();
        let now = || if clocked { self.child.settings.started_at.elapsed() } else { Duration::ZERO };
        let (tee, failure, has_seen_enough) =
            (&mut self.child.tee, &mut self.closing.failure, &mut self.has_seen_enough);
        let (mut marks, sieve) = (Vec::new(), &mut self.child.sieve);
        let mut skips = self.machine.skips_newline(stream);
        let stopping = self.stopper.is_some() || self.is_over;
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
            prepare_memory(buffer, prepared);
            let before = buffer.len();
            let mut read = |buffer: &mut Vec<u8>, max| {
                let count = reader.read_append(buffer, max)?;
                full |= count >= PIPE_FULL;
                Ok(count)
            };
            let sieve = Some(&mut *sieve).filter(|sieve| stream == Stream::Stdout && !sieve.is_empty());
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
        if ended {
            *end = None;
            self.child.handle.span().stream_ended(stream, || self.machine.said(stream, 0).0);
        }
        self.take_filter_failure();
        if ended {
            self.end(place, stream, until, watch);
        }
        Ok(())
    }

    fn take_filter_failure(&mut self) {
        if let Some(error) = self.child.sieve.take_failure() {
            self.closing.failure.get_or_insert(Error::io("filter", error));
            self.has_seen_enough = true;
        }
    }

    /// A target does not hold up a stop, nor a timeout.
    fn target_deadline(&self, deadline: Deadline) -> Deadline {
        if self.stopper.is_some() { Deadline::now() } else { deadline }
    }

    /// Tells everybody that no more will come of a stream.
    fn end(&mut self, place: usize, stream: Stream, until: Deadline, watch: &mut dyn Watch) {
        if self.closing.failure.is_none() && !self.child.tee.is_empty() {
            self.closing.failure = self.child.tee.end(stream, self.child.settings.started_at.elapsed(), until).err();
        }
        self.has_seen_enough |= self.closing.failure.is_some() || watch.end(place, stream).is_break();
    }

    /// What the facts mean. Sets `until`.
    fn decide(&mut self, deadline: Deadline, stops: bool) -> Result<Decision, Error> {
        self.until = None;
        if let Some(decision) = self.advance_stop()? {
            return Ok(decision);
        }
        if self.stopper.is_some() {
            return Ok(Decision::Wait);
        }
        // Only the end of the process is left: the last wait reaps it in one call.
        let said = self.child.stdin.is_none();
        if self.machine.is_done() && (self.exited || (said && deadline == Deadline::NEVER)) {
            return Ok(Decision::Over);
        }
        if self.exited && self.is_paused {
            // That we do not read is not the pipe's fault.
            self.child.drain = Deadline::NEVER;
        } else if self.exited {
            self.begin_drain(self.child.settings.drain);
            if self.child.drain.has_passed() || (stops && deadline.has_passed()) {
                return Ok(Decision::Over);
            }
        }
        if deadline.has_passed() {
            // One last look: it may have ended while we were not looking.
            if !self.exited && self.child.handle.has_exited() {
                self.exited = true;
            } else if stops {
                self.begin_stop(Cause::Timeout);
            } else {
                self.child.handle.span().timed_out();
                return Ok(Decision::TimedOut);
            }
            return self.decide(deadline, stops);
        }
        self.until = Some(deadline.earlier(self.child.drain));
        Ok(Decision::Wait)
    }

    fn begin_stop(&mut self, cause: Cause) {
        if cause == Cause::Timeout {
            self.child.handle.span().timed_out();
        }
        self.stopper = Some((Stopper::new(&self.child.settings.stop), self.child.pipes()));
        self.closing.cause = cause;
    }

    /// Once: a conversation that is continued goes on with the drain that has begun.
    fn begin_drain(&mut self, drain: Duration) {
        if self.child.drain == Deadline::NEVER {
            self.child.drain = Deadline::after(drain);
        }
    }

    /// Goes on with the stop, if there is one. A decision if the stop and its drain are over.
    fn advance_stop(&mut self) -> Result<Option<Decision>, Error> {
        let Some((stopper, pipes)) = &mut self.stopper else { return Ok(None) };
        let (stdin, machine) = (&mut self.child.stdin, &mut *self.machine);
        let mut close_stdin = || {
            machine.end_input();
            *stdin = None;
        };
        match stopper.advance(&self.child.handle, pipes, &mut close_stdin)? {
            Progress::Wait(until) => {
                self.until = Some(until);
                Ok(None)
            }
            Progress::Over => {
                self.begin_drain(self.child.settings.drain.min(DRAIN_AFTER_STOP));
                // What exceeds the limit is not read any more, so there is no end of file to wait for.
                let over =
                    self.machine.is_done() || self.closing.cause == Cause::Overflow || self.child.drain.has_passed();
                self.until = (!over).then_some(self.child.drain);
                Ok(over.then_some(Decision::Over))
            }
        }
    }

    /// Adds what it waits for, and says what that is and until when.
    fn enlist<'fd>(&'fd self, entries: &mut Vec<PollFd<'fd>>) -> (Asked, Deadline) {
        let Some(until) = self.until else { return (Asked::default(), Deadline::NEVER) };
        let (stdin, [stdout, stderr]) = self.wanted();
        let notice = if self.exited { None } else { self.child.handle.notice() };
        entries.extend(stdin.map(|end| poll::writable(end.as_fd())));
        entries.extend(stdout.into_iter().chain(stderr).map(|end| poll::readable(end.as_fd())));
        entries.extend(notice.map(poll::readable));
        let before = entries.len();
        if let Some((stopper, _)) = &self.stopper {
            entries.extend(stopper.descriptors().map(poll::readable));
        }
        let asked = Asked {
            stdin: stdin.is_some(),
            streams: [stdout.is_some(), stderr.is_some()],
            notice: notice.is_some(),
            blind: !self.exited && notice.is_none(),
            members: entries.len() - before,
        };
        let until = if asked.blind { until.earlier(Deadline::after(LOOK)) } else { until };
        (asked, if self.has_passed() { Deadline::now() } else { until })
    }

    /// Takes the answers to what was asked.
    fn answer(&mut self, asked: Asked, answers: &mut impl Iterator<Item = bool>) {
        let mut answer = |asked: bool| asked && answers.next().unwrap_or(false);
        let [stdout, stderr] = asked.streams;
        self.ready = Ready { stdin: answer(asked.stdin), streams: [answer(stdout), answer(stderr)] };
        if self.has_passed() {
            let [stdout, _] = &mut self.ready.streams;
            *stdout = true;
        }
        self.exited |= answer(asked.notice) || (asked.blind && self.child.handle.has_exited());
        // The members have woken us; the stop looks at them by itself.
        for _ in 0..asked.members {
            answers.next();
        }
    }

    /// Whether the process has ended and nobody can be waited for who reads what is written to it.
    pub(crate) fn reads_no_more(&self) -> bool {
        self.exited && self.is_over
    }

    /// Whether standard output has more although its pipe may have nothing.
    fn has_passed(&self) -> bool {
        let reading = !self.is_paused && self.machine.overflowed().is_none();
        reading && self.machine.wants_to_read(Stream::Stdout) && self.child.sieve.has_passed()
    }

    /// The ends that bytes can still pass.
    fn wanted(&self) -> (Option<&PipeWriter>, [Option<&PipeReader>; 2]) {
        let reading = self.machine.overflowed().is_none();
        let wants = |stream| reading && self.machine.wants_to_read(stream);
        // What is over has its end still to be said.
        let wants_input = self.machine.wants_to_write() || !self.machine.input_is_open();
        let stdin = self.child.stdin.as_ref().filter(|_| wants_input);
        let stdout = self.child.stdout.as_ref().filter(|_| wants(Stream::Stdout) && !self.is_paused);
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
        if self.child.sieve.is_empty() || !self.machine.wants_to_read(Stream::Stdout) {
            return Ok(());
        }
        self.child.sieve.cut_off();
        while self.child.sieve.has_passed() && self.machine.overflowed().is_none() {
            self.read(place, Stream::Stdout, deadline, watch)?;
        }
        self.take_filter_failure();
        Ok(())
    }

    /// Reading is given up: nobody waits for the streams any more.
    fn give_up(&mut self, place: usize, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        if self.machine.overflowed().is_none() {
            self.read_what_is_there(place, deadline, watch)?;
        }
        self.explain_what_is_left();
        for stream in STREAMS {
            if self.machine.wants_to_read(stream) {
                let end = match stream {
                    Stream::Stdout => self.child.stdout.take(),
                    Stream::Stderr => self.child.stderr.take(),
                };
                let holders = end.map(|end| holders(&self.child.handle, &end));
                self.machine.cut_off(stream, holders.unwrap_or_default());
                self.child.handle.span().stream_cut_off(stream, || self.machine.said(stream, 0).0);
                self.end(place, stream, self.target_deadline(deadline), watch);
            }
        }
        Ok(())
    }

    /// Nothing is waited for any more but the reaping of a process that has ended.
    fn finish(&mut self, place: usize, deadline: Deadline, watch: &mut dyn Watch) -> Result<(), Error> {
        self.give_up(place, deadline, watch)?;
        if self.closing.failure.is_none()
            && self.closing.cause == Cause::Ended
            && let Err(error) = self.child.tee.finish(self.target_deadline(deadline))
        {
            self.closing.failure = Some(if deadline.has_passed() { error.kind_of(ErrorKind::Timeout) } else { error });
        }
        self.machine.end_input();
        self.child.stdin = None;
        let Some((stopper, _)) = self.stopper.take() else {
            self.child.handle.wait_ended_alone(Deadline::NEVER)?;
            return Ok(());
        };
        // The plan has done what it could; drop does not do it again.
        self.child.settings.kill_on_drop = KillOnDrop::No;
        let ended = self.child.handle.wait_ended(Deadline::after(LOOK))?;
        let report = stopper.report(&self.child.handle, ended.map(|ended| ended.status));
        self.closing.survivors = report.survivors().to_vec();
        Ok(())
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
        let survivors = self.stopper.as_ref().is_some_and(|(stopper, _)| stopper.leaves_survivors());
        let cut_off =
            self.closing.cause != Cause::Overflow && STREAMS.iter().any(|&stream| self.machine.wants_to_read(stream));
        // Once: afterwards the pipes are closed.
        if self.closing.explanation.is_none() && (survivors || cut_off) {
            let explanation = handle::explain(&self.child.subject(Some(self.machine)));
            self.closing.explanation = Some(Box::new(explanation.at_the_end()));
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
    if length < LARGE || length + PIPE_SIZE <= *prepared {
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

/// Who keeps the pipe open.
fn holders(handle: &ProcessHandle, end: &PipeReader) -> Vec<ProcessEntry> {
    let Some(channel) = end.channel() else { return Vec::new() };
    procfs::writers(&[channel]).into_iter().map(|pid| handle.entry(pid)).collect()
}
