//! Commands joined by pipes. Decides which stream of a stage goes where, which status the whole has, and that all stages share one
//! timeout and one stop. How bytes are moved and processes waited for is decided where it is for a single command; where a filter
//! stands between two commands, bytes pass through us.

use crate::child::{self, Child, KillOnDrop};
use crate::command::{CONTEXT, Command, Filter, Input, Opened, Stdio, Target};
use crate::communicate::{Ending, Enough, Party, Purpose, Talk, Until, Watch, drive};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::explain::Explanation;
use crate::filter::{OpenFilter, Sieve};
use crate::handle::{self, ProcessHandle, StopReport, explain_all, stop_all};
use crate::live::{Chunks, Line, Lines, ShowChunks, ShowLines, ShowText};
use crate::machine::Machine;
use crate::output::{Accepted, Captured, Cause, Completeness, Output, Stream, Usage};
use crate::pipe::{PipeReader, PipeWriter, pipe_sized};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::Stop;
use crate::terminal::Terminal;
use crate::text::Text;
use std::fmt;
use std::ops::{BitOr, ControlFlow};
use std::os::fd::AsFd;
use std::sync::Arc;
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
    /// Functions, each with the place of the command whose output it gets.
    filters: Vec<(usize, Filter)>,
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

/// A Rust function behind the command.
impl BitOr<Filter> for Command {
    type Output = Pipeline;

    fn bitor(self, filter: Filter) -> Pipeline {
        Pipeline::from_iter([self]).filter(filter)
    }
}

impl BitOr<Filter> for Pipeline {
    type Output = Pipeline;

    fn bitor(self, filter: Filter) -> Pipeline {
        self.filter(filter)
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
        let before = self.stages.len();
        self.filters.extend(next.filters.into_iter().map(|(place, filter)| (place + before, filter)));
        self.stages.extend(next.stages);
        self
    }
}

/// From the first stage to the last.
impl FromIterator<Command> for Pipeline {
    fn from_iter<I: IntoIterator<Item = Command>>(stages: I) -> Pipeline {
        let stages = stages.into_iter().collect();
        Pipeline { stages, filters: Vec::new(), pipefail: true, timeout: None, stop: None, echo: false }
    }
}

impl Pipeline {
    /// Adds a stage.
    pub fn pipe(mut self, next: Command) -> Pipeline {
        self.stages.push(next);
        self
    }

    /// Adds a Rust function that changes what the last command writes, on its way to the next command or to the output of the whole.
    /// It is called by the verb, on its thread: of a pipeline that was [spawned](Self::spawn) nothing passes it until the pipeline
    /// is talked to or waited for.
    ///
    /// ```
    /// use procession::{Command, Filter};
    ///
    /// let louder = Filter::map_lines(|line| line.to_ascii_uppercase());
    /// assert_eq!((Command::new("echo").arg("hello") | louder).check_output()?, b"HELLO\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn filter(mut self, filter: Filter) -> Pipeline {
        self.filters.push((self.stages.len().saturating_sub(1), filter));
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

    /// The commands.
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
        self.spawn_with(None, KillOnDrop::No)
    }

    /// Runs the pipeline with the streams of this program; see [`Command::call`].
    ///
    /// # Errors
    /// As there.
    pub fn call(&self) -> Result<ExitStatus, Error> {
        Ok(self.run_shared()?.status())
    }

    /// Runs the pipeline with the streams of this program; see [`Command::check_call`].
    ///
    /// # Errors
    /// As there.
    pub fn check_call(&self) -> Result<(), Error> {
        self.run_shared()?.check().map(drop)
    }

    /// Runs the pipeline and collects the last stage's standard output and every stage's standard error; see
    /// [`Command::output`].
    ///
    /// # Errors
    /// As there.
    pub fn output(&self) -> Result<Output, Error> {
        self.run_with(Streams::Collected, Purpose::Collect, &mut ())
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

    /// Runs the pipeline and shows each line of the last stage's standard output and of every stage's standard error as it comes;
    /// [`Line::stage`] tells them apart. See [`Command::for_each_line`].
    ///
    /// ```
    /// use procession::{Command, Stream};
    ///
    /// let mut seen = Vec::new();
    /// let loud = Command::shell("echo one; echo oops >&2") | Command::new("tr").args(["a-z", "A-Z"]);
    /// loud.for_each_line(|line| seen.push((line.stage(), line.stream(), line.text().into_owned())))?;
    /// seen.sort_by_key(|(stage, ..)| *stage);
    /// assert_eq!(seen, [(0, Stream::Stderr, "oops".to_owned()), (1, Stream::Stdout, "ONE".to_owned())]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn for_each_line(&self, mut show: impl FnMut(Line<'_>)) -> Result<Output, Error> {
        self.try_for_each_line(|line| {
            show(line);
            ControlFlow::Continue(())
        })
    }

    /// As [`for_each_line`](Self::for_each_line), until the function breaks off; see [`Command::try_for_each_line`].
    ///
    /// # Errors
    /// As there.
    pub fn try_for_each_line(&self, show: impl FnMut(Line<'_>) -> ControlFlow<()>) -> Result<Output, Error> {
        let last = self.stages.last();
        let (text, line_max) = last.map_or((Default::default(), 1), |last| (last.text, last.line_max));
        let mut watch = ShowLines::new(text, line_max, show);
        let result = self.run_shown(&mut watch);
        watch.result(result)
    }

    /// As [`for_each_line`](Self::for_each_line), with the bytes as they are read; see [`Command::for_each_chunk`].
    ///
    /// # Errors
    /// As there.
    pub fn for_each_chunk(&self, show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.run_shown(&mut ShowChunks(show))
    }

    /// As [`for_each_chunk`](Self::for_each_chunk), decoded as the last stage's [`text`](Command::text) says; see
    /// [`Command::for_each_text`].
    ///
    /// # Errors
    /// As there.
    pub fn for_each_text(&self, show: impl FnMut(Stream, &str)) -> Result<Output, Error> {
        let mut watch = ShowText::new(self.stages.last().map_or_else(Default::default, |last| last.text), show);
        let result = self.run_shown(&mut watch);
        watch.result(result)
    }

    fn run_shared(&self) -> Result<Output, Error> {
        self.run_with(Streams::Shared, Purpose::Show, &mut ())
    }

    fn run_shown(&self, watch: &mut dyn Watch) -> Result<Output, Error> {
        self.run_with(Streams::Collected, Purpose::Show, watch)
    }

    fn run_with(&self, streams: Streams, purpose: Purpose, watch: &mut dyn Watch) -> Result<Output, Error> {
        let deadline = Deadline::from(self.timeout);
        let mut children = self.spawn_with(Some(streams), KillOnDrop::Always)?;
        let input = match self.stages.first() {
            Some(first) => first.fed_input(first.input_stream(None)?.as_ref()),
            None => Input::empty(),
        };
        children.talk(input, purpose, deadline, true, watch).map_err(|error| match (error.is_timeout(), self.timeout) {
            (true, Some(timeout)) => error.detail(format!("timed out after {timeout:?}")),
            _ => error,
        })
    }

    fn filters_behind(&self, place: usize) -> impl Iterator<Item = &Filter> {
        self.filters.iter().filter(move |(of, _)| *of == place).map(|(_, filter)| filter)
    }

    /// Starts all stages, with the streams that a verb wants at the outer ends, if it is one.
    fn spawn_with(&self, streams: Option<Streams>, on_drop: KillOnDrop) -> Result<PipelineChild, Error> {
        let line = self.to_string();
        let failed = |error: Error| error.of_command(|| line.clone());
        let Some(last) = self.stages.len().checked_sub(1) else {
            return Err(Error::invalid("a pipeline without a command"));
        };
        if self.echo {
            child::echo(self);
        }
        let collects = streams == Some(Streams::Collected);
        let mut children: Vec<Child> = Vec::with_capacity(self.stages.len());
        let (mut from_before, mut relays) = (None, Vec::new());
        for (place, stage) in self.stages.iter().enumerate() {
            let [own_stdin, own_stdout, _] = &stage.streams;
            let within = |name: &str| failed(Error::invalid(format!("{name} of stage {} is the pipe", place + 1)));
            let filters: Vec<_> = self.filters_behind(place).map(|one| OpenFilter::new(one, stage.line_max)).collect();
            let stdin = match from_before.take() {
                Some(_) if own_stdin.is_some() || stage.input.is_some() => return Err(within("stdin")),
                Some(before) => Some(before),
                None => stage.input_stream(collects.then(Stdio::null))?,
            };
            let mut shown = None;
            let stdout = if place < last {
                if own_stdout.is_some() {
                    return Err(within("stdout"));
                }
                Some(if filters.is_empty() && !stage.has_target(Stream::Stdout) {
                    let made = pipe_sized(stage.attributes.pipe_size);
                    let (reader, writer) = made.map_err(|error| failed(Error::io("pipe", error)))?;
                    from_before = Some(Stdio::from(reader));
                    Stdio::from(writer)
                } else {
                    relays.push(place);
                    from_before = Some(Stdio::piped());
                    Stdio::piped()
                })
            } else if filters.is_empty() {
                stage.chosen_stream(1).or_else(|| collects.then(Stdio::piped))
            } else {
                let chosen = stage.chosen_stream(1);
                if chosen.as_ref().is_some_and(|stdout| !stdout.has_end()) {
                    let text = "stdout of a pipeline that ends in a filter goes through us: use `tee_stdout` on its last command";
                    return Err(failed(Error::invalid(text)));
                }
                // What would be inherited is written by us.
                let inherits = !collects && chosen.is_none() && !stage.has_own_target(Stream::Stdout);
                let terminal = chosen.filter(Stdio::is_pty);
                shown = inherits.then(|| stage.clone().tee_stdout(Target::stdout()));
                terminal.or_else(|| Some(Stdio::piped()))
            };
            let stderr = stage.chosen_stream(2).or_else(|| collects.then(Stdio::piped));
            // While the others are being started, a failure stops those that run.
            let stage = shown.as_ref().unwrap_or(stage);
            let quiet = (self.echo && stage.echo).then(|| Command { echo: false, ..stage.clone() });
            let mut child = quiet.as_ref().unwrap_or(stage).spawn_with(&[stdin, stdout, stderr])?;
            child.settings.kill_on_drop = KillOnDrop::Always;
            child.sieve = Sieve::new(filters);
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
        let mut whole = PipelineChild { stdin: None, stdout: None, children, relays, line, pipefail: self.pipefail };
        whole.take_ends();
        Ok(whole)
    }
}

/// Which streams a verb wants at the outer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    /// Those of this program.
    Shared,
    Collected,
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
            for _ in self.filters_behind(place) {
                out.write_str(" | <filter>")?;
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
    /// The children whose output comes to us and is given to the next one, because there are filters between them or targets.
    relays: Vec<usize>,
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
        if !self.relays.is_empty() || self.children.last().is_some_and(|last| !last.sieve.is_empty()) {
            return Ok(self.talk(Input::empty(), Purpose::Show, Deadline::NEVER, false, &mut ())?.status());
        }
        let ends = self.children.iter_mut().map(|child| {
            let status = child.wait()?;
            Ok((status, child.settings.accepted.accepts(status)))
        });
        let ends: Vec<(ExitStatus, bool)> = ends.collect::<Result<_, Error>>()?;
        Ok(whole(&ends, self.pipefail).0)
    }

    /// The lines of the last stage's standard output and of every stage's standard error, as they come; see [`Child::lines`].
    pub fn lines(&mut self) -> Lines<'_> {
        let last = self.children.last().map(|last| (last.settings.text, last.settings.line_max));
        let (text, line_max) = last.unwrap_or_default();
        Lines::new(self, text, line_max)
    }

    pub(crate) fn text(&self) -> Text {
        self.children.last().map_or_else(Text::default, |last| last.settings.text)
    }

    /// The output as it is read; see [`Child::chunks`].
    pub fn chunks(&mut self) -> Chunks<'_> {
        Chunks::new(self)
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
        let mut subjects: Vec<_> = self.children.iter().map(|child| child.subject(child.machine.as_ref())).collect();
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

    /// The ends of the whole are those of the outer stages: they have them while something is done with all stages.
    fn lend_ends(&mut self) {
        if let Some(first) = self.children.first_mut() {
            first.stdin = self.stdin.take();
        }
        if let Some(last) = self.children.last_mut().filter(|last| last.sieve.is_empty()) {
            last.stdout = self.stdout.take();
        }
    }

    fn take_ends(&mut self) {
        self.stdin = self.children.first_mut().and_then(|first| first.stdin.take());
        // What a filter is still to change is nobody's to read.
        let last = self.children.last_mut().filter(|last| last.sieve.is_empty());
        self.stdout = last.and_then(|last| last.stdout.take());
    }

    fn talk(
        &mut self,
        input: Input,
        purpose: Purpose,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
    ) -> Result<Output, Error> {
        self.lend_ends();
        let talked = self.talk_with_ends(input, purpose, deadline, stops, watch);
        self.take_ends();
        talked
    }

    fn talk_with_ends(
        &mut self,
        input: Input,
        purpose: Purpose,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
    ) -> Result<Output, Error> {
        let mut machines = self.begin(input, purpose)?;
        let watch = &mut Relays { relays: &self.relays, watch };
        let mut talks: Vec<Talk<'_>> =
            self.children.iter_mut().zip(&mut machines).map(|(child, machine)| Talk::new(child, machine)).collect();
        let ending = drive(&mut talks, deadline, stops, watch);
        let ends: Vec<_> = talks.into_iter().map(Talk::into_closing).collect();
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
            child.machine = Some(machine);
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

/// What is relayed is handed out, and the next stage's input is held open for it.
fn relay(machine: &mut Machine, place: usize, relays: &[usize]) {
    if relays.contains(&place) {
        machine.hand_out(Stream::Stdout, usize::MAX);
    }
    if place.checked_sub(1).is_some_and(|before| relays.contains(&before)) {
        machine.hold_input(true);
    }
}

/// Gives to a stage what came through the filters behind the one before.
struct Relays<'a> {
    relays: &'a [usize],
    watch: &'a mut dyn Watch,
}

/// With so much still to be written, a stage's predecessor is not read for now.
const WAITING_MAX: usize = 4 * CONTEXT;

impl Watch for Relays<'_> {
    fn see(&mut self, place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        if stream == Stream::Stdout && self.relays.contains(&place) {
            return ControlFlow::Continue(());
        }
        self.watch.see(place, stream, bytes)
    }

    fn end(&mut self, place: usize, stream: Stream) -> ControlFlow<()> {
        self.watch.end(place, stream)
    }

    fn look(&mut self, talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        for &place in self.relays {
            let (before, behind) = talks.split_at_mut(place + 1);
            if let (Some(from), Some(to)) = (before.last_mut(), behind.first_mut()) {
                hand_on(from, to);
            }
        }
        self.watch.look(talks)
    }
}

fn hand_on(from: &mut Talk<'_>, to: &mut Talk<'_>) {
    let passed = from.machine.take_all(Stream::Stdout);
    if to.machine.input_is_open() && !to.reads_no_more() {
        if !passed.is_empty() {
            to.machine.add_input(Opened::Bytes(Arc::new(passed)));
        }
        from.is_paused = to.machine.input_waiting() > WAITING_MAX;
        if !from.machine.wants_to_read(Stream::Stdout) || from.is_over {
            to.machine.hold_input(false);
        }
    } else {
        // The writer learns from the broken pipe that nobody reads any more.
        from.child.stdout = None;
        from.is_paused = false;
    }
    if from.child.stdout.is_none() {
        from.machine.forget(Stream::Stdout);
    }
}

impl Party for PipelineChild {
    fn sources(&self) -> Vec<(usize, Stream)> {
        let last = self.children.len().saturating_sub(1);
        let errors = (0..self.children.len()).map(|place| (place, Stream::Stderr));
        std::iter::once((last, Stream::Stdout)).chain(errors).collect()
    }

    fn machine(&self, place: usize) -> Option<&Machine> {
        self.children.get(place)?.machine.as_ref()
    }

    fn machine_mut(&mut self, place: usize) -> Option<&mut Machine> {
        self.children.get_mut(place)?.machine.as_mut()
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

    fn pump(&mut self, deadline: Deadline, enough: &mut Enough<'_>) -> Result<Ending, Error> {
        self.lend_ends();
        let mut machines: Vec<Machine> = self.children.iter_mut().filter_map(|child| child.machine.take()).collect();
        let mut talks: Vec<Talk<'_>> =
            self.children.iter_mut().zip(&mut machines).map(|(child, machine)| Talk::new(child, machine)).collect();
        let watch = &mut Relays { relays: &self.relays, watch: &mut Until(enough) };
        let ending = drive(&mut talks, deadline, false, watch);
        let mut ends: Vec<_> = talks.into_iter().map(Talk::into_closing).collect();
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
        result
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
        self.children.first()?.terminal.as_ref()
    }

    fn record_so_far(&self) -> Output {
        self.record(self.children.iter().map(Party::record_so_far).collect())
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
        all.total += stream.total;
        all.lost |= stream.lost;
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
