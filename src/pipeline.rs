//! Commands joined by pipes. Decides which stream of a stage goes where, which status the whole has, and that all stages share one
//! timeout and one stop. How bytes are moved and processes waited for is decided where it is for a single command.

use crate::child::{self, Child, KillOnDrop};
use crate::command::{Command, Input, Stdio};
use crate::communicate::{Ending, Talk, drive};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::explain::Explanation;
use crate::handle::{ProcessHandle, StopReport, Target, explain_all, stop_all};
use crate::machine::Machine;
use crate::output::{Accepted, Captured, Cause, Completeness, Output, Stream, Usage};
use crate::pipe::{PipeReader, PipeWriter, pipe};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::Stop;
use std::fmt;
use std::ops::BitOr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Commands joined by pipes: what one writes to its standard output the next reads from its standard input.
///
/// Made by `|`, by [`Command::pipe`], or from an iterator. It has the verbs of a single command, and its [`Output`] is that of a
/// single command with the [`stages`](Output::stages) inside: every stage's status, standard error and usage.
///
/// The whole succeeds if every stage does (the shell's `pipefail`). A stage that was ended by SIGPIPE because the next one had
/// read enough is forgiven. The status of the whole is that of the last stage that failed, else that of the last one.
///
/// ```
/// use procession::Command;
///
/// let top = Command::new("seq").arg("100000") | Command::new("grep").arg("7") | Command::new("head").arg("-2");
/// assert_eq!(top.to_string(), "seq 100000 | grep 7 | head -2");
/// assert_eq!(top.check_output()?, b"7\n17\n");
///
/// let output = (Command::shell("echo data; exit 3") | Command::new("cat")).output()?;
/// assert_eq!(output.stdout(), b"data\n");
/// assert_eq!(output.status().code(), Some(3));
/// assert!(output.stages()[1].success());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a pipeline does nothing until a verb such as `call`, `output` or `spawn` is used"]
pub struct Pipeline {
    stages: Vec<Command>,
    pipefail: bool,
    timeout: Option<Duration>,
    stop: Option<Stop>,
    echo: bool,
}

/// Joining.
impl Command {
    /// Joins this command's standard output to the next one's standard input, as `|` does.
    pub fn pipe(self, next: Command) -> Pipeline {
        Pipeline::from_iter([self, next])
    }
}

impl BitOr for Command {
    type Output = Pipeline;

    fn bitor(self, next: Command) -> Pipeline {
        self.pipe(next)
    }
}

impl BitOr<Command> for Pipeline {
    type Output = Pipeline;

    fn bitor(self, next: Command) -> Pipeline {
        self.pipe(next)
    }
}

impl BitOr<Pipeline> for Command {
    type Output = Pipeline;

    fn bitor(self, next: Pipeline) -> Pipeline {
        Pipeline::from_iter([self]) | next
    }
}

impl BitOr for Pipeline {
    type Output = Pipeline;

    /// The settings of the left one hold.
    fn bitor(mut self, next: Pipeline) -> Pipeline {
        self.stages.extend(next.stages);
        self
    }
}

/// From the first stage to the last.
impl FromIterator<Command> for Pipeline {
    fn from_iter<I: IntoIterator<Item = Command>>(stages: I) -> Pipeline {
        Pipeline { stages: stages.into_iter().collect(), pipefail: true, timeout: None, stop: None, echo: false }
    }
}

impl Pipeline {
    /// Adds a stage.
    pub fn pipe(mut self, next: Command) -> Pipeline {
        self.stages.push(next);
        self
    }

    /// Whether the failure of any stage is the failure of the whole: yes by default. Otherwise the last stage decides alone, as in
    /// a shell that was not told `set -o pipefail`.
    pub fn pipefail(mut self, pipefail: bool) -> Pipeline {
        self.pipefail = pipefail;
        self
    }

    /// The longest time for the whole run, as [`Command::timeout`]. Timeouts of the stages do not count.
    pub fn timeout(mut self, timeout: Duration) -> Pipeline {
        self.timeout = Some(timeout);
        self
    }

    /// How every stage is stopped, instead of by its own plan.
    pub fn stop(mut self, stop: Stop) -> Pipeline {
        self.stop = Some(stop);
        self
    }

    /// Prints the whole pipeline as one shell line to this program's standard error just before it is started; see
    /// [`Command::echo`]. The stages then print nothing of their own.
    pub fn echo(mut self) -> Pipeline {
        self.echo = true;
        self
    }

    /// What the first stage reads; see [`Command::input`].
    pub fn input(self, input: impl Into<Input>) -> Pipeline {
        self.first(|first| first.input(input))
    }

    /// Where the first stage reads from; see [`Command::stdin`].
    pub fn stdin(self, stdin: impl Into<Stdio>) -> Pipeline {
        self.first(|first| first.stdin(stdin))
    }

    /// Where the last stage writes to; see [`Command::stdout`].
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Pipeline {
        if let Some(last) = self.stages.pop() {
            self.stages.push(last.stdout(stdout));
        }
        self
    }

    /// Where every stage writes its errors to that was not told otherwise; see [`Command::stderr`].
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Pipeline {
        let stderr = stderr.into();
        for stage in &mut self.stages {
            let [_, _, place] = &mut stage.streams;
            place.get_or_insert_with(|| stderr.clone());
        }
        self
    }

    /// The stages.
    pub fn stages(&self) -> &[Command] {
        &self.stages
    }

    fn first(mut self, set: impl FnOnce(Command) -> Command) -> Pipeline {
        if let Some(first) = self.stages.first_mut() {
            *first = set(first.clone());
        }
        self
    }
}

/// The verbs, with the meaning they have for a single command.
impl Pipeline {
    /// Starts all stages. Streams that are not set are inherited.
    ///
    /// # Errors
    /// As [`Command::spawn`]; stages that were started before the one that failed are stopped.
    pub fn spawn(&self) -> Result<PipelineChild, Error> {
        self.spawn_with(false, KillOnDrop::No)
    }

    /// Runs the pipeline with the streams of this program; see [`Command::call`].
    ///
    /// # Errors
    /// As there.
    pub fn call(&self) -> Result<ExitStatus, Error> {
        Ok(self.run(false)?.status())
    }

    /// Runs the pipeline with the streams of this program; see [`Command::check_call`].
    ///
    /// # Errors
    /// As there.
    pub fn check_call(&self) -> Result<(), Error> {
        self.run(false)?.check().map(drop)
    }

    /// Runs the pipeline and collects the last stage's standard output and every stage's standard error; see
    /// [`Command::output`].
    ///
    /// # Errors
    /// As there.
    pub fn output(&self) -> Result<Output, Error> {
        self.run(true)
    }

    /// Runs the pipeline and returns what the last stage wrote; see [`Command::check_output`].
    ///
    /// # Errors
    /// As there.
    pub fn check_output(&self) -> Result<Vec<u8>, Error> {
        Ok(self.output()?.check()?.into_stdout())
    }

    /// Runs the pipeline and returns what the last stage wrote, as text; see [`Command::check_output_text`].
    ///
    /// # Errors
    /// As there.
    pub fn check_output_text(&self) -> Result<String, Error> {
        self.output()?.check()?.into_stdout_text()
    }

    fn run(&self, collects: bool) -> Result<Output, Error> {
        let deadline = Deadline::from(self.timeout);
        let mut children = self.spawn_with(collects, KillOnDrop::Always)?;
        let input = self.stages.first().and_then(|first| first.input.clone());
        let input = input.filter(|input| input.file().is_none()).unwrap_or_else(Input::empty);
        children.talk(input, deadline, true).map_err(|error| match (error.is_timeout(), self.timeout) {
            (true, Some(timeout)) => error.detail(format!("timed out after {timeout:?}")),
            _ => error,
        })
    }

    fn spawn_with(&self, collects: bool, on_drop: KillOnDrop) -> Result<PipelineChild, Error> {
        let line = self.to_string();
        let failed = |error: Error| error.of_command(|| line.clone());
        let Some(last) = self.stages.len().checked_sub(1) else {
            return Err(Error::invalid("a pipeline without a stage"));
        };
        if self.echo {
            child::echo(self);
        }
        let mut children: Vec<Child> = Vec::with_capacity(self.stages.len());
        let mut from_before = None;
        for (place, stage) in self.stages.iter().enumerate() {
            let [own_stdin, own_stdout, own_stderr] = stage.streams.clone();
            let within = |name: &str| failed(Error::invalid(format!("{name} of stage {} is the pipe", place + 1)));
            let stdin = match from_before.take() {
                Some(_) if own_stdin.is_some() || stage.input.is_some() => return Err(within("stdin")),
                Some(before) => Some(before),
                None => stage.input_stream(collects.then(Stdio::null))?,
            };
            let stdout = if place < last {
                if own_stdout.is_some() {
                    return Err(within("stdout"));
                }
                let (reader, writer) = pipe().map_err(|error| failed(Error::io("pipe", error)))?;
                from_before = Some(Stdio::from(reader));
                Some(Stdio::from(writer))
            } else {
                own_stdout.or_else(|| collects.then(Stdio::piped))
            };
            let stderr = own_stderr.or_else(|| collects.then(Stdio::piped));
            // While the others are being started, a failure stops those that run.
            let quiet = (self.echo && stage.echo).then(|| Command { echo: false, ..stage.clone() });
            let mut child = quiet.as_ref().unwrap_or(stage).spawn_with(&[stdin, stdout, stderr])?;
            child.settings.kill_on_drop = KillOnDrop::Always;
            if let Some(stop) = &self.stop {
                child.settings.stop = stop.clone();
            }
            children.push(child);
        }
        for (child, stage) in children.iter_mut().zip(&self.stages) {
            child.settings.kill_on_drop = match on_drop {
                KillOnDrop::No if stage.kill_on_drop => KillOnDrop::In(std::process::id()),
                other => other,
            };
        }
        let mut whole = PipelineChild { stdin: None, stdout: None, children, line, pipefail: self.pipefail };
        whole.take_ends();
        Ok(whole)
    }
}

/// A line for a POSIX shell, with secrets masked.
impl fmt::Display for Pipeline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, stage) in self.stages.iter().enumerate() {
            if place > 0 {
                out.write_str(" | ")?;
            }
            match stage.directory {
                // A directory holds for its own stage alone.
                Some(_) => write!(out, "({stage})")?,
                None => write!(out, "{stage}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pipeline({self})")
    }
}

/// A pipeline that was started.
///
/// Dropping it closes the pipe ends and lets the stages go on, except those with [`Command::kill_on_drop`].
#[derive(Debug)]
pub struct PipelineChild {
    /// Our end of the first stage's standard input, if it is piped.
    pub stdin: Option<PipeWriter>,
    /// Our end of the last stage's standard output, if it is piped.
    pub stdout: Option<PipeReader>,
    children: Vec<Child>,
    line: String,
    pipefail: bool,
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
        self.talk(input.into(), Deadline::NEVER, false)
    }

    /// As [`communicate`](Self::communicate), for at most this long; see [`Child::communicate_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn communicate_timeout(&mut self, input: impl Into<Input>, timeout: Duration) -> Result<Output, Error> {
        let talked = self.talk(input.into(), Deadline::after(timeout), false);
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
        let ends = self.children.iter_mut().map(|child| {
            let status = child.wait()?;
            Ok((status, child.settings.accepted.accepts(status)))
        });
        let ends: Vec<(ExitStatus, bool)> = ends.collect::<Result<_, Error>>()?;
        Ok(whole(&ends, self.pipefail).0)
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
        let mut subjects: Vec<_> = self.children.iter().map(|child| child.subject(child.machine.as_ref())).collect();
        // The ends of the whole are those of the outer stages.
        if let Some([stdin, ..]) = subjects.first_mut().map(|first| &mut first.streams) {
            stdin.fd = self.stdin.as_ref().map(|end| end.as_fd());
        }
        if let Some([_, stdout, _]) = subjects.last_mut().map(|last| &mut last.streams) {
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
        let mut targets: Vec<Target<'_>> = Vec::with_capacity(self.children.len());
        for child in &self.children {
            let plan = plan.unwrap_or(&child.settings.stop);
            targets.push(Target {
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

    /// The ends of the whole are those of the outer stages: they have them while something is done with all stages.
    fn lend_ends(&mut self) {
        if let Some(first) = self.children.first_mut() {
            first.stdin = self.stdin.take();
        }
        if let Some(last) = self.children.last_mut() {
            last.stdout = self.stdout.take();
        }
    }

    fn take_ends(&mut self) {
        self.stdin = self.children.first_mut().and_then(|first| first.stdin.take());
        self.stdout = self.children.last_mut().and_then(|last| last.stdout.take());
    }

    fn talk(&mut self, input: Input, deadline: Deadline, stops: bool) -> Result<Output, Error> {
        self.lend_ends();
        let talked = self.talk_with_ends(input, deadline, stops);
        self.take_ends();
        talked
    }

    fn talk_with_ends(&mut self, input: Input, deadline: Deadline, stops: bool) -> Result<Output, Error> {
        let mut machines = self.begin(input)?;
        let mut talks: Vec<Talk<'_>> =
            self.children.iter_mut().zip(&mut machines).map(|(child, machine)| Talk::new(child, machine)).collect();
        let ending = drive(&mut talks, deadline, stops);
        let ends: Vec<_> = talks.into_iter().map(|talk| (talk.cause, talk.survivors, talk.explanation)).collect();
        match ending {
            Ok(Ending::Over) => {
                let overflowed: Vec<_> = machines.iter().map(Machine::overflowed).collect();
                let parts = machines.into_iter().zip(&self.children).zip(ends);
                let stages = parts.map(|((machine, child), (cause, survivors, explanation))| {
                    let input = machine.input();
                    Output { survivors, explanation, ..child.record(machine.into_captured(), input, cause) }
                });
                let output = self.record(stages.collect());
                match output.cause {
                    Cause::Timeout => Err(Error::new(ErrorKind::Timeout).with_output(output)),
                    Cause::Overflow => Err(self.overflow(&overflowed, output)),
                    _ => Ok(output),
                }
            }
            Ok(Ending::TimedOut) => {
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

    fn begin(&mut self, input: Input) -> Result<Vec<Machine>, Error> {
        let mut machines = Vec::with_capacity(self.children.len());
        let mut input = Some(input);
        for child in &mut self.children {
            match child.begin(input.take().unwrap_or_else(Input::empty)) {
                Ok(machine) => machines.push(machine),
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
            child.machine = Some(machine);
        }
    }

    fn snapshot(&self, machines: &[Machine], cause: Cause) -> Output {
        let parts = machines.iter().zip(&self.children);
        self.record(parts.map(|(machine, child)| child.record(machine.snapshot(), machine.input(), cause)).collect())
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
        let (status, accepted) = whole(&ends, self.pipefail);
        let mut output = Output {
            command: self.line.clone(),
            status: known.then_some(status),
            stderr: joined(&stages),
            cause: cause(&stages),
            usage: usage(&stages),
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

/// The status of the whole from the stages' own and whether each accepts its own: that of the last stage that failed, where being
/// ended by SIGPIPE is no failure of a stage that others follow; else that of the last.
fn whole(ends: &[(ExitStatus, bool)], pipefail: bool) -> (ExitStatus, bool) {
    let Some((last, before)) = ends.split_last() else { return (ExitStatus::UNKNOWN, false) };
    let fails = |(status, accepted): &&(ExitStatus, bool)| !accepted && status.signal() != Some(Signal::PIPE);
    let failed = before.iter().rev().find(fails).filter(|_| pipefail && last.1);
    *failed.unwrap_or(last)
}

/// What all stages said, in their order.
fn joined(stages: &[Output]) -> Captured {
    let captured = || stages.iter().map(|stage| &stage.stderr);
    let mut all = Captured::default();
    for stream in captured() {
        if !stream.bytes.is_empty() && stream.dropped > 0 {
            all.gap = all.gap.or(stream.gap.map(|gap| gap + all.bytes.len()));
        }
        all.bytes.extend_from_slice(&stream.bytes);
        all.dropped += stream.dropped;
    }
    // The least complete of all speaks for the whole.
    let rank = |completeness: &Completeness| match completeness {
        Completeness::NotCaptured => 0,
        Completeness::Complete => 1,
        Completeness::Open => 2,
        Completeness::CutOff { .. } => 3,
    };
    let least = captured().map(|stream| &stream.completeness).max_by_key(|completeness| rank(completeness));
    all.completeness = least.cloned().unwrap_or_default();
    all
}

/// Why the whole is over: what was done to any stage.
fn cause(stages: &[Output]) -> Cause {
    let any = |cause| stages.iter().any(|stage| stage.cause == cause);
    let order = [Cause::Overflow, Cause::Timeout, Cause::Running, Cause::Stopped];
    order.into_iter().find(|cause| any(*cause)).unwrap_or(Cause::Ended)
}

/// Processor time adds up; memory does not, so the largest counts.
fn usage(stages: &[Output]) -> Option<Usage> {
    let usages: Option<Vec<Usage>> = stages.iter().map(|stage| stage.usage).collect();
    Some(usages?.into_iter().fold(Usage::default(), |all, one| Usage {
        user: all.user + one.user,
        system: all.system + one.system,
        resident_max: all.resident_max.max(one.resident_max),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_that_of_the_whole() {
        let ok = (ExitStatus::from_code(0), true);
        let code = |code| (ExitStatus::from_code(code), false);
        let pipe = (ExitStatus::from_raw(13), false);
        let killed = (ExitStatus::from_raw(9), false);
        let cases = [
            (vec![ok, ok], true, ok),
            (vec![code(3), ok], true, code(3)),
            (vec![code(3), code(4), ok], true, code(4)),
            (vec![code(3), ok, code(5)], true, code(5)),
            (vec![pipe, ok], true, ok),
            (vec![pipe, code(1)], true, code(1)),
            (vec![code(2), pipe, ok], true, code(2)),
            (vec![ok, pipe], true, pipe),
            (vec![killed, ok], true, killed),
            (vec![code(3), ok], false, ok),
            (vec![ok, code(3)], false, code(3)),
            (vec![(ExitStatus::from_code(1), true), ok], true, ok),
        ];
        for (ends, pipefail, expected) in cases {
            assert_eq!(whole(&ends, pipefail), expected, "{ends:?}");
        }
    }
}
