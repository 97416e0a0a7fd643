//! A pipeline that was started: its stages are talked to, waited for and stopped together.

use super::record;
use super::relay::{Relays, relay};
use crate::child::Child;
use crate::command::Input;
use crate::communicate::{Driver, Ending, Enough, Party, Purpose, Talk, Until, Watch, block, drive, waiter};
use crate::course::Closing;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::explain::Explanation;
use crate::handle::{self, ProcessHandle, StopReport, explain_all, stop_all};
use crate::live::{Chunks, Lines};
use crate::machine::Machine;
use crate::output::{Accepted, Cause, Output, Stream};
use crate::pipe::{PipeReader, PipeWriter};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::Stop;
use crate::terminal::Terminal;
use crate::text::Text;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A pipeline that was started.
///
/// Dropping it closes the pipe ends and lets the stages go on, except those with [`Command::kill_on_drop`](crate::Command::kill_on_drop).
#[derive(Debug)]
pub struct PipelineChild {
    /// Our end of the first stage's standard input, if it is piped.
    pub stdin: Option<PipeWriter>,
    /// Our end of the last stage's standard output, if it is piped.
    pub stdout: Option<PipeReader>,
    pub(super) children: Vec<Child>,
    /// The children whose output comes to us and is given to the next one, because there are filters between them or targets.
    pub(super) relays: Vec<usize>,
    pub(crate) line: String,
    pub(super) pipefail: bool,
}

impl PipelineChild {
    /// The processes, in the order of the stages.
    pub fn handles(&self) -> impl Iterator<Item = &ProcessHandle> {
        self.children.iter().map(Child::handle)
    }

    /// Writes the input to the first stage, reads the last one's output and every stage's errors, and waits for all; see
    /// [`Child::communicate`].
    ///
    /// # Errors
    /// As there.
    pub fn communicate(&mut self, input: impl Into<Input>) -> Result<Output, Error> {
        self.talk(input.into(), Purpose::Collect, Deadline::NEVER, false, &mut ())
    }

    /// As [`communicate`](Self::communicate), for at most this long; see [`Child::communicate_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn communicate_timeout(&mut self, input: impl Into<Input>, timeout: Duration) -> Result<Output, Error> {
        let talked = self.talk(input.into(), Purpose::Collect, Deadline::after(timeout), false, &mut ());
        talked.map_err(
            |error| {
                if error.is_timeout() { error.detail(format!("not finished after {timeout:?}")) } else { error }
            },
        )
    }

    /// Closes our end of the first stage's standard input, waits for all stages, and returns the status of the whole.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.stdin = None;
        if self.passes_through_us() {
            return Ok(self.talk(Input::empty(), Purpose::Show, Deadline::NEVER, false, &mut ())?.status());
        }
        let ends = self.children.iter_mut().map(|child| {
            let status = child.wait()?;
            Ok((status, child.settings.accepted.accepts(status)))
        });
        let ends: Vec<(ExitStatus, bool)> = ends.collect::<Result<_, Error>>()?;
        Ok(record::whole(&ends, self.pipefail).0)
    }

    /// Whether something would stand still if nobody talked to the stages.
    pub(crate) fn passes_through_us(&self) -> bool {
        !self.relays.is_empty() || self.children.last().is_some_and(|last| last.sieve.is_some())
    }

    /// The lines of the last stage's standard output and of every stage's standard error, as they come; see [`Child::lines`].
    pub fn lines(&mut self) -> Lines<'_> {
        let (text, line_max) = self.shown_as();
        Lines::new(self, text, line_max, waiter())
    }

    /// How lines are found, and how long they may be.
    pub(crate) fn shown_as(&self) -> (Text, usize) {
        self.children.last().map(|last| (last.settings.text, last.settings.line_max)).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> Text {
        self.children.last().map_or_else(Text::default, |last| last.settings.text)
    }

    /// The output as it is read; see [`Child::chunks`].
    pub fn chunks(&mut self) -> Chunks<'_> {
        Chunks::new(self, waiter())
    }

    /// Gives input to the first stage that is written while the output is read; see [`Child::feed`].
    ///
    /// # Errors
    /// As there.
    pub fn feed(&mut self, input: impl Into<Input>) -> Result<(), Error> {
        self.lend_ends();
        let machines = self.begin(input.into(), Purpose::Collect);
        self.take_ends();
        self.keep(machines?);
        Ok(())
    }

    /// Sends a signal to every stage that has not ended.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn send_signal(&self, signal: Signal) -> Result<(), Error> {
        self.children.iter().try_for_each(|child| child.send_signal(signal).map(drop))
    }

    /// Stops all stages at the same time, each with what belongs to it, by a plan; see [`Child::stop`]. The reports are in the order
    /// of the stages. A step that closes standard input closes the first stage's; the others see the end of theirs in turn.
    ///
    /// # Errors
    /// As there.
    pub fn stop(&mut self, stop: &Stop) -> Result<Vec<StopReport>, Error> {
        self.lend_ends();
        let stopped = self.stop_stages(Some(stop));
        self.take_ends();
        stopped
    }

    /// What every stage is doing and why the whole does not come to its end; see [`Child::explain`]. One look at the process table
    /// for all stages.
    pub fn explain(&self) -> Explanation {
        let mut subjects: Vec<_> = self.children.iter().map(|child| child.subject(child.machine.as_deref())).collect();
        // The ends of the whole are those of the outer stages.
        if let Some([stdin, ..]) = subjects.first_mut().map(|first| &mut first.streams) {
            stdin.fd = self.stdin.as_ref().map(|end| end.as_fd());
        }
        let last = subjects.last_mut().filter(|_| self.stdout.is_some());
        if let Some([_, stdout, _]) = last.map(|last| &mut last.streams) {
            stdout.fd = self.stdout.as_ref().map(|end| end.as_fd());
        }
        Explanation::of_stages(&self.line, explain_all(&subjects))
    }

    /// What was left behind by any stage.
    fn explained(&self, stages: &[Output]) -> Option<Box<Explanation>> {
        let explained: Vec<Explanation> = stages.iter().filter_map(|stage| stage.explanation().cloned()).collect();
        (!explained.is_empty()).then(|| Box::new(Explanation::of_stages(&self.line, explained)))
    }

    /// Stops all stages by one plan, or each by its own. The ends are lent to the stages.
    fn stop_stages(&mut self, plan: Option<&Stop>) -> Result<Vec<StopReport>, Error> {
        let mut stdin = self.children.first_mut().and_then(|first| first.stdin.take());
        let mut close = || stdin = None;
        let mut close_stdin: Option<&mut dyn FnMut()> = Some(&mut close);
        let mut targets: Vec<handle::Target<'_>> = Vec::with_capacity(self.children.len());
        for child in &self.children {
            let plan = plan.unwrap_or(&child.settings.stop);
            targets.push(handle::Target {
                handle: child.handle(),
                plan,
                pipes: child.pipes(),
                close_stdin: close_stdin.take(),
            });
        }
        let stopped = stop_all(&mut targets).map_err(|error| error.of_command(|| self.line.clone()));
        drop(targets);
        if let Some(first) = self.children.first_mut() {
            first.stdin = stdin;
        }
        stopped
    }

    /// The stages, with the ends of the whole, until the loan is dropped.
    #[cfg(feature = "future")]
    pub(crate) fn lend(&mut self) -> Lent<'_> {
        self.lend_ends();
        Lent(self)
    }

    /// The stages, with the ends of the whole.
    #[cfg(feature = "future")]
    pub(crate) fn into_stages(mut self) -> Vec<Child> {
        self.lend_ends();
        self.children
    }

    /// The ends of the whole are those of the outer stages: they have them while something is done with all stages.
    fn lend_ends(&mut self) {
        if let Some(first) = self.children.first_mut() {
            first.stdin = self.stdin.take();
        }
        if let Some(last) = self.children.last_mut().filter(|last| last.sieve.is_none()) {
            last.stdout = self.stdout.take();
        }
    }

    pub(super) fn take_ends(&mut self) {
        self.stdin = self.children.first_mut().and_then(|first| first.stdin.take());
        // What a filter is still to change is nobody's to read.
        let last = self.children.last_mut().filter(|last| last.sieve.is_none());
        self.stdout = last.and_then(|last| last.stdout.take());
    }

    pub(super) fn talk(
        &mut self,
        input: Input,
        purpose: Purpose,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
    ) -> Result<Output, Error> {
        self.start_talk(input, purpose)?;
        self.go_on(deadline, stops, watch)
    }

    /// Goes on with a conversation that was begun.
    pub(super) fn go_on(&mut self, deadline: Deadline, stops: bool, watch: &mut dyn Watch) -> Result<Output, Error> {
        let mut waiter = waiter();
        block(poll_fn(|task| self.poll_talk(task, deadline, stops, watch, &mut *waiter)))
    }

    /// Begins the conversation, or takes it up.
    pub(crate) fn start_talk(&mut self, input: Input, purpose: Purpose) -> Result<(), Error> {
        self.lend_ends();
        let machines = self.begin(input, purpose).map(|machines| self.keep(machines));
        self.take_ends();
        machines
    }

    /// Goes on with the conversation to its end, by any driver. While it is pending it stays with the children.
    pub(crate) fn poll_talk(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Output, Error>> {
        let Driven { machines, ends, ending } = ready!(self.drive(task, deadline, stops, watch, driver));
        let settled = self.settle(machines, ends, ending, stops);
        self.take_ends();
        Poll::Ready(settled)
    }

    /// Drives the conversations of all stages. Where it is not pending the stages still have the ends of the whole.
    fn drive(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
        driver: &mut dyn Driver,
    ) -> Poll<Driven> {
        self.lend_ends();
        let machines = self.children.iter_mut().filter_map(|child| child.machine.take().map(|machine| *machine));
        let mut machines: Vec<Machine> = machines.collect();
        let watch = &mut Relays { relays: &self.relays, watch };
        let mut talks: Vec<Talk<'_>> =
            self.children.iter_mut().zip(&mut machines).map(|(child, machine)| Talk::new(child, machine)).collect();
        let Poll::Ready(ending) = drive(task, &mut talks, deadline, stops, watch, driver) else {
            talks.into_iter().for_each(Talk::leave);
            self.keep(machines);
            self.take_ends();
            return Poll::Pending;
        };
        let ends = talks.into_iter().map(Talk::into_closing).collect();
        Poll::Ready(Driven { machines, ends, ending })
    }

    /// What the end of a conversation, or of its time, means.
    fn settle(
        &mut self,
        machines: Vec<Machine>,
        ends: Vec<Closing>,
        ending: Result<Ending, Error>,
        stops: bool,
    ) -> Result<Output, Error> {
        match ending {
            Ok(Ending::Over) => {
                let overflowed: Vec<_> = machines.iter().map(Machine::overflowed).collect();
                let parts = machines.into_iter().zip(&self.children).zip(ends);
                let mut failure = None;
                let stages = parts.map(|((machine, child), mut closing)| {
                    failure = failure.take().or(closing.failure.take());
                    child.record(machine, closing)
                });
                let output = self.record(stages.collect());
                match (failure, output.cause) {
                    (Some(failure), _) => Err(failure.with_output(output)),
                    (None, Cause::Timeout) => Err(Error::new(ErrorKind::Timeout).with_output(output)),
                    (None, Cause::Overflow) => Err(self.overflow(&overflowed, output)),
                    _ => Ok(output),
                }
            }
            Ok(Ending::TimedOut | Ending::Paused) => {
                let output = self.snapshot(&machines, Cause::Running);
                self.keep(machines);
                Err(Error::new(ErrorKind::Timeout).with_output(output))
            }
            Err(error) => {
                // As for a single command: a verb ends the processes whatever happens.
                let cause = if stops { Cause::Stopped } else { Cause::Running };
                if stops {
                    let _ = self.stop_stages(None);
                }
                let output = self.snapshot(&machines, cause);
                self.keep(machines);
                Err(error.with_output(output))
            }
        }
    }

    fn begin(&mut self, input: Input, purpose: Purpose) -> Result<Vec<Machine>, Error> {
        let mut machines = Vec::with_capacity(self.children.len());
        let mut input = Some(input);
        for (place, child) in self.children.iter_mut().enumerate() {
            match child.begin(input.take().unwrap_or_else(Input::empty), purpose) {
                Ok(mut machine) => {
                    relay(&mut machine, place, &self.relays);
                    machines.push(machine);
                }
                Err(error) => {
                    self.keep(machines);
                    return Err(error.of_command(|| self.line.clone()));
                }
            }
        }
        Ok(machines)
    }

    /// Each stage keeps its unfinished conversation.
    fn keep(&mut self, machines: Vec<Machine>) {
        for (child, machine) in self.children.iter_mut().zip(machines) {
            child.machine = Some(Box::new(machine));
        }
    }

    fn snapshot(&self, machines: &[Machine], cause: Cause) -> Output {
        let parts = machines.iter().zip(&self.children);
        self.record(parts.map(|(machine, child)| child.snapshot(machine, cause)).collect())
    }

    fn overflow(&self, overflowed: &[Option<Stream>], output: Output) -> Error {
        let found = self.children.iter().zip(overflowed).find(|(_, stream)| stream.is_some());
        match found {
            Some((child, stream)) => child.overflow(*stream, output),
            None => Error::new(ErrorKind::Overflow).with_output(output),
        }
    }

    /// The record of the whole, as if it were one command, with the stages inside.
    fn record(&self, mut stages: Vec<Output>) -> Output {
        let known = stages.iter().all(|stage| stage.status.is_some());
        let ends: Vec<(ExitStatus, bool)> = stages.iter().map(|stage| (stage.status(), stage.success())).collect();
        let (status, accepted) = record::whole(&ends, self.pipefail);
        let mut output = Output {
            command: self.line.clone(),
            status: known.then_some(status),
            stderr: record::joined(&stages),
            cause: record::cause(&stages),
            usage: record::usage(&stages),
            survivors: stages.iter().flat_map(|stage| stage.survivors.clone()).collect(),
            explanation: self.explained(&stages),
            ..Output::default()
        };
        output.accepted = if accepted { Accepted::Any } else { Accepted::Codes(Vec::new()) };
        if let Some(first) = stages.first() {
            output.pid = first.pid;
            output.started = first.started;
            output.elapsed = first.elapsed;
            (output.input_accepted, output.input_refused) = (first.input_accepted, first.input_refused);
        }
        if let Some(last) = stages.last_mut() {
            output.stdout = std::mem::take(&mut last.stdout);
            output.text = last.text;
        }
        output.stages = stages;
        output
    }
}

/// Stages that have the ends of the whole.
#[cfg(feature = "future")]
pub(crate) struct Lent<'a>(&'a mut PipelineChild);

#[cfg(feature = "future")]
impl Lent<'_> {
    pub(crate) fn stages(&mut self) -> &mut [Child] {
        &mut self.0.children
    }
}

#[cfg(feature = "future")]
impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.take_ends();
    }
}

/// What has come of driving the conversations of all stages.
struct Driven {
    machines: Vec<Machine>,
    ends: Vec<Closing>,
    ending: Result<Ending, Error>,
}

impl Party for PipelineChild {
    fn sources(&self) -> Vec<(usize, Stream)> {
        let last = self.children.len().saturating_sub(1);
        let errors = (0..self.children.len()).map(|place| (place, Stream::Stderr));
        std::iter::once((last, Stream::Stdout)).chain(errors).collect()
    }

    fn machine(&self, place: usize) -> Option<&Machine> {
        self.children.get(place)?.machine.as_deref()
    }

    fn machine_mut(&mut self, place: usize) -> Option<&mut Machine> {
        self.children.get_mut(place)?.machine.as_deref_mut()
    }

    fn hand_out(&mut self, sources: &[(usize, Stream)]) {
        self.lend_ends();
        for (place, child) in self.children.iter_mut().enumerate() {
            let streams: Vec<_> =
                sources.iter().filter(|(of, _)| *of == place).map(|(_, stream)| (0, *stream)).collect();
            let is_new = child.machine.is_none();
            child.hand_out(&streams);
            if let Some(machine) = child.machine.as_mut().filter(|_| is_new) {
                relay(machine, place, &self.relays);
            }
        }
        self.take_ends();
    }

    fn pump(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        enough: &mut Enough<'_>,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Ending, Error>> {
        let driven = ready!(self.drive(task, deadline, false, &mut Until(enough), driver));
        let Driven { machines, mut ends, ending } = driven;
        self.take_ends();
        let failure = ends.iter_mut().find_map(|closing| closing.failure.take());
        let overflowed: Vec<_> = machines.iter().map(Machine::overflowed).collect();
        let has_overflowed = ends.iter().any(|closing| closing.cause == Cause::Overflow);
        let result = match (ending, failure) {
            (Ok(ending), None) if !has_overflowed => Ok(ending),
            (Ok(_), failure) => {
                let parts = machines.iter().zip(&self.children).zip(ends);
                let stages = parts.map(|((machine, child), closing)| child.snapshot(machine, closing));
                let output = self.record(stages.collect());
                Err(match failure {
                    Some(failure) => failure.with_output(output),
                    None => self.overflow(&overflowed, output),
                })
            }
            (Err(error), _) => Err(error.with_output(self.snapshot(&machines, Cause::Running))),
        };
        self.keep(machines);
        Poll::Ready(result)
    }

    fn add_input(&mut self, input: Input) -> Result<(), Error> {
        let Some(first) = self.children.first_mut() else { return Ok(()) };
        first.add_input(input)
    }

    fn end_input(&mut self) {
        self.lend_ends();
        if let Some(first) = self.children.first_mut() {
            first.end_input();
        }
        self.take_ends();
    }

    fn terminal(&self) -> Option<&Terminal> {
        self.children.first()?.terminal.as_deref()
    }

    fn record_so_far(&self) -> Output {
        self.record(self.children.iter().map(Party::record_so_far).collect())
    }
}
