//! One job that is being played: where it is in its script, why it is being stopped, and how its end is told. It plans its own next
//! turn; when that comes is the engine's matter.

use super::capture::Capture;
use super::journal::{Event, Journal};
use super::script::{End, Fault, Script, Step};
use super::time::{Key, Timeline};
use crate::command::Input;
use crate::error::Error;
use crate::output::{Cause, Output, Stream};
use crate::pool::done::Outcome;
use crate::pool::engine::{Capabilities, Finish, Job, JobId, JobNews, SignalFidelity, Tell};
use crate::signal::Signal;
use crate::status::ExitStatus;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A job that was taken and has not ended.
#[derive(Debug)]
pub(super) struct Run {
    id: JobId,
    attempt: u32,
    command: Arc<str>,
    live: bool,
    timeout: Option<Duration>,
    script: Arc<Script>,
    record: Output,
    capture: Capture,
    input: Option<Input>,
    /// Live output, where the engine tells it at the end.
    late: Vec<(Stream, Vec<u8>)>,
    next_step: usize,
    /// When the script began.
    begun: Option<Duration>,
    /// When it was started last.
    started: Duration,
    asked_to_cancel: bool,
    stopping: Option<Why>,
    planned: Vec<(Turn, Key)>,
}

/// What can come for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Queue,
    Start,
    Step,
    End,
    Timeout,
    Cancel,
    Die,
}

/// What is planned: something for a job, or the end of the engine.
#[derive(Debug)]
pub(super) enum Planned {
    Turn(JobId, Turn),
    Death(Arc<str>),
}

/// What a turn leads to.
#[derive(Debug)]
pub(super) enum Fate {
    GoesOn,
    Over,
    EngineDies(Arc<str>),
}

/// Why a job is being stopped.
#[derive(Clone, Copy, Debug)]
enum Why {
    Cancelled,
    TimedOut,
    Overflowed,
}

/// What a job finds around it.
pub(super) struct Around<'a, 't> {
    pub(super) time: &'a mut Timeline<Planned>,
    pub(super) journal: &'a Journal,
    pub(super) able: &'a Capabilities,
    /// When the engine was made, by the wall clock.
    pub(super) begin: SystemTime,
    pub(super) tell: &'a mut Tell<'t>,
}

impl Run {
    /// Takes the job, and plans its beginning.
    pub(super) fn begin(job: &Job, script: Arc<Script>, time: &mut Timeline<Planned>) -> Result<Run, Error> {
        let record = job.record();
        let mut run = Run {
            id: job.id,
            attempt: job.attempt,
            command: record.command().into(),
            live: job.live,
            timeout: job.command.timeout,
            record,
            capture: Capture::of(&job.command, job.live)?,
            input: job.command.input.clone(),
            late: Vec::new(),
            next_step: 0,
            begun: None,
            started: Duration::ZERO,
            asked_to_cancel: false,
            stopping: None,
            planned: Vec::new(),
            script,
        };
        let start = time.now().saturating_add(run.script.queued.unwrap_or_default());
        if run.script.queued.is_some() {
            run.plan(Turn::Queue, time.now(), time);
        }
        if run.script.never_starts() {
            run.plan(Turn::End, start.saturating_add(run.script.length), time);
        } else {
            run.plan(Turn::Start, start, time);
        }
        Ok(run)
    }

    /// What the journal knows it by.
    pub(super) fn label(&self) -> (JobId, u32, &Arc<str>) {
        (self.id, self.attempt, &self.command)
    }

    /// Whether it was started. Only then is it counted.
    pub(super) fn has_started(&self) -> bool {
        self.begun.is_some()
    }

    /// A wish to cancel it. What comes of it is told later.
    pub(super) fn cancel(&mut self, time: &mut Timeline<Planned>) {
        if !self.script.ignores_cancel && !std::mem::replace(&mut self.asked_to_cancel, true) {
            self.plan(Turn::Cancel, time.now(), time);
        }
    }

    /// Does what was planned for now.
    pub(super) fn play(&mut self, turn: Turn, around: &mut Around<'_, '_>) -> Fate {
        self.planned.retain(|(other, _)| *other != turn);
        match turn {
            Turn::Queue => self.tell_stage(JobNews::Queued, around),
            Turn::Start => self.start(around),
            Turn::Step => return self.step(around),
            Turn::End => return self.end(around),
            Turn::Timeout => self.stop(Why::TimedOut, around),
            Turn::Cancel => {
                self.tell_stage(JobNews::CancelAccepted, around);
                if !self.has_started() {
                    self.finish(Outcome::Cancelled { confirmed: true }, None, None, around);
                    return Fate::Over;
                }
                self.stop(Why::Cancelled, around);
            }
            Turn::Die => {
                let seen = !self.script.death_unseen;
                self.finish_stopped(self.stopping.unwrap_or(Why::Cancelled), seen, around);
                return Fate::Over;
            }
        }
        Fate::GoesOn
    }

    fn start(&mut self, around: &mut Around<'_, '_>) {
        assert!(!self.script.has(Fault::PanicsInPoll), "the script says that the engine panics here");
        self.begun = Some(around.time.now());
        around.journal.count(true);
        around.journal.note(self.label(), Event::Started);
        if !self.script.has(Fault::StartsLate) {
            self.tell_start(around);
        }
        if self.script.has(Fault::StartsTwice) {
            self.tell_start(around);
        }
        self.begin_timeout(around);
        self.plan_next(around.time);
    }

    fn tell_start(&mut self, around: &mut Around<'_, '_>) {
        let place = self.script.place.clone().unwrap_or_else(|| Arc::clone(&around.able.name));
        self.tell_stage(JobNews::Started { place }, around);
    }

    /// The timeout counts from here, on the engine's clock if it has one.
    fn begin_timeout(&mut self, around: &mut Around<'_, '_>) {
        self.started = around.time.now();
        self.forget(Turn::Timeout, around.time);
        if let (Some(timeout), Some(grain)) = (self.timeout, around.able.deadline_granularity) {
            let at = self.started.saturating_add(round_up(timeout, grain));
            self.plan(Turn::Timeout, at, around.time);
        }
    }

    /// Plans the next step of the script, or its end.
    fn plan_next(&mut self, time: &mut Timeline<Planned>) {
        let begun = self.begun.unwrap_or_default();
        match (self.script.steps.get(self.next_step), &self.script.end) {
            (Some((after, _)), _) => self.plan(Turn::Step, begun.saturating_add(*after), time),
            (None, End::Never) => {}
            (None, _) => self.plan(Turn::End, begun.saturating_add(self.script.length), time),
        }
    }

    fn step(&mut self, around: &mut Around<'_, '_>) -> Fate {
        let script = Arc::clone(&self.script);
        let step = script.steps.get(self.next_step).map(|(_, step)| step);
        self.next_step += 1;
        match step {
            Some(Step::Write(stream, bytes)) => self.write(*stream, bytes, around),
            Some(Step::Echo) => {
                if let Err(error) = self.echo(around) {
                    let error = Error::io("read input", error);
                    self.finish(Outcome::EngineFailed { retryable: false }, None, Some(error), around);
                    return Fate::Over;
                }
            }
            Some(Step::RunAgain(reason)) if self.stopping.is_none() => self.run_again(reason, around),
            Some(Step::RunAgain(_)) | None => {}
        }
        self.plan_next(around.time);
        Fate::GoesOn
    }

    fn write(&mut self, stream: Stream, bytes: &[u8], around: &mut Around<'_, '_>) {
        let since = around.time.now().saturating_sub(self.started);
        let Some(stream) = self.capture.write(stream, bytes, since) else { return };
        match (self.live, around.able.live_output) {
            (true, true) => (around.tell)(self.id, JobNews::Output { stream, bytes }),
            (true, false) => self.late.push((stream, bytes.to_vec())),
            (false, _) if self.script.has(Fault::SpeaksUnasked) => {
                (around.tell)(self.id, JobNews::Output { stream, bytes });
            }
            (false, _) => {}
        }
        if self.capture.has_overflowed() {
            self.stop(Why::Overflowed, around);
        }
    }

    fn echo(&mut self, around: &mut Around<'_, '_>) -> io::Result<()> {
        self.capture.open_input(self.input.as_ref())?;
        while !self.capture.has_overflowed() {
            let part = self.capture.read_input()?;
            if part.is_empty() {
                break;
            }
            self.write(Stream::Stdout, &part, around);
        }
        Ok(())
    }

    fn run_again(&mut self, reason: &str, around: &mut Around<'_, '_>) {
        self.capture.begin(self.live);
        self.late.clear();
        around.journal.note(self.label(), Event::StartedAgain);
        self.tell_stage(JobNews::Retrying(reason.to_owned()), around);
        self.tell_start(around);
        self.begin_timeout(around);
    }

    /// The first reason to stop it is the one that counts.
    fn stop(&mut self, why: Why, around: &mut Around<'_, '_>) {
        if self.stopping.is_none() {
            self.stopping = Some(why);
            self.forget(Turn::Timeout, around.time);
            let at = around.time.now().saturating_add(self.script.resists);
            self.plan(Turn::Die, at, around.time);
        }
    }

    /// Ends by itself; in the middle of a stop that is how the stop ends.
    fn end(&mut self, around: &mut Around<'_, '_>) -> Fate {
        let (outcome, status) = match &self.script.end {
            End::Engine(reason) => return Fate::EngineDies(Arc::clone(reason)),
            End::Signal(signal) => by_signal(*signal, around.able.signals),
            End::Outcome(outcome) => (*outcome, status_of(*outcome, around.able.signals)),
            End::Never => return Fate::GoesOn,
        };
        match self.stopping {
            Some(why) if matches!(outcome, Outcome::Exited(_) | Outcome::Signalled { .. }) => {
                self.finish_stopped(why, true, around);
            }
            _ => self.finish(outcome, status, self.script.make_error(), around),
        }
        Fate::Over
    }

    fn finish_stopped(&mut self, why: Why, seen: bool, around: &mut Around<'_, '_>) {
        let outcome = match why {
            Why::Cancelled => Outcome::Cancelled { confirmed: seen && around.able.confirms_death },
            Why::TimedOut => Outcome::TimedOut,
            Why::Overflowed => Outcome::Overflowed,
        };
        let status = status_of(outcome, around.able.signals);
        self.finish(outcome, status, None, around);
    }

    /// Tells the end. Whatever is still planned does not come.
    fn finish(
        &mut self,
        outcome: Outcome,
        status: Option<ExitStatus>,
        error: Option<Error>,
        around: &mut Around<'_, '_>,
    ) {
        for (_, key) in self.planned.drain(..) {
            around.time.forget(key);
        }
        if self.has_started() {
            around.journal.count(false);
        }
        around.journal.note(self.label(), Event::Ended(outcome));
        for (stream, bytes) in std::mem::take(&mut self.late) {
            (around.tell)(self.id, JobNews::Output { stream, bytes: &bytes });
        }
        if self.script.has(Fault::StartsLate) && self.has_started() {
            self.tell_start(around);
        }
        let output = self.close(outcome, status, around);
        if self.script.has(Fault::EndsTwice) {
            let finish = Finish { outcome, output: output.clone(), error: None };
            (around.tell)(self.id, JobNews::Finished(finish));
        }
        if self.script.has(Fault::EndsAnother) {
            let finish = Finish { outcome, output: output.clone(), error: None };
            (around.tell)(JobId::next(), JobNews::Finished(finish));
        }
        (around.tell)(self.id, JobNews::Finished(Finish { outcome, output, error }));
        if self.script.has(Fault::SpeaksAfterEnd) {
            (around.tell)(self.id, JobNews::Output { stream: Stream::Stdout, bytes: b"late" });
        }
    }

    /// The record at the end.
    fn close(&mut self, outcome: Outcome, status: Option<ExitStatus>, around: &Around<'_, '_>) -> Output {
        let record = std::mem::take(&mut self.record);
        if !self.has_started() {
            return record;
        }
        let cause = match outcome {
            Outcome::Exited(_) | Outcome::Signalled { .. } => Cause::Ended,
            Outcome::TimedOut => Cause::Timeout,
            Outcome::Overflowed => Cause::Overflow,
            Outcome::Cancelled { confirmed: true } => Cause::Stopped,
            // As far as anybody knows.
            Outcome::Cancelled { confirmed: false } | Outcome::NotStarted | Outcome::EngineFailed { .. } => {
                Cause::Running
            }
        };
        if cause != Cause::Running {
            self.capture.close();
        }
        let elapsed = around.time.now().saturating_sub(self.started);
        let record = self.capture.enter(record).with_cause(cause).with_elapsed(elapsed);
        let record = match around.begin.checked_add(self.started) {
            Some(started) => record.with_started(started),
            None => record,
        };
        match status {
            Some(status) => record.with_status(status),
            None => record,
        }
    }

    fn tell_stage(&self, news: JobNews<'_>, around: &mut Around<'_, '_>) {
        if !self.script.silent {
            (around.tell)(self.id, news);
        }
    }

    fn plan(&mut self, turn: Turn, at: Duration, time: &mut Timeline<Planned>) {
        if let Some(key) = time.plan(at, Planned::Turn(self.id, turn)) {
            self.planned.push((turn, key));
        }
    }

    fn forget(&mut self, turn: Turn, time: &mut Timeline<Planned>) {
        for (_, key) in self.planned.extract_if(.., |(other, _)| *other == turn) {
            time.forget(key);
        }
    }
}

/// How a signal looks from where so much is known of it.
fn by_signal(signal: Signal, fidelity: SignalFidelity) -> (Outcome, Option<ExitStatus>) {
    let outcome = match fidelity {
        SignalFidelity::Exact => Outcome::Signalled { signal, exact: true },
        SignalFidelity::Inferred => Outcome::Signalled { signal, exact: false },
        SignalFidelity::Unknown => Outcome::Exited(1),
    };
    (outcome, status_of(outcome, fidelity))
}

/// The status that belongs to an outcome, if one is known.
fn status_of(outcome: Outcome, fidelity: SignalFidelity) -> Option<ExitStatus> {
    match outcome {
        Outcome::Exited(code) => u8::try_from(code).ok().map(ExitStatus::from_code),
        Outcome::Signalled { signal, exact: true } => Some(ExitStatus::from_raw(signal.number())),
        Outcome::Signalled { signal, exact: false } => {
            u8::try_from(128 + signal.number()).ok().map(ExitStatus::from_code)
        }
        Outcome::TimedOut | Outcome::Overflowed | Outcome::Cancelled { confirmed: true } => {
            by_signal(Signal::TERM, fidelity).1
        }
        Outcome::Cancelled { confirmed: false } | Outcome::NotStarted | Outcome::EngineFailed { .. } => None,
    }
}

/// The first moment of a clock with this grain that is not before.
fn round_up(time: Duration, grain: Duration) -> Duration {
    let (nanos, grain) = (time.as_nanos(), grain.as_nanos());
    if grain == 0 {
        return time;
    }
    let rounded = nanos.div_ceil(grain).saturating_mul(grain);
    u64::try_from(rounded / 1_000_000_000)
        .map_or(Duration::MAX, |seconds| Duration::new(seconds, (rounded % 1_000_000_000) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_clock_is_never_early() {
        let ms = Duration::from_millis;
        for (time, grain, expected) in [
            (ms(1500), ms(0), ms(1500)),
            (ms(1500), ms(1000), ms(2000)),
            (ms(2000), ms(1000), ms(2000)),
            (ms(0), ms(1000), ms(0)),
            (ms(1), ms(60_000), ms(60_000)),
            (Duration::MAX, ms(1000), Duration::MAX),
        ] {
            assert_eq!(round_up(time, grain), expected, "{time:?} {grain:?}");
        }
    }

    #[test]
    fn a_signal_as_it_is_seen_from_far() {
        let seen = |fidelity| {
            let (outcome, status) = by_signal(Signal::KILL, fidelity);
            (outcome, status.map(ExitStatus::returncode))
        };
        let signalled = |exact| Outcome::Signalled { signal: Signal::KILL, exact };
        assert_eq!(seen(SignalFidelity::Exact), (signalled(true), Some(-9)));
        assert_eq!(seen(SignalFidelity::Inferred), (signalled(false), Some(137)));
        assert_eq!(seen(SignalFidelity::Unknown), (Outcome::Exited(1), Some(1)));
    }
}
