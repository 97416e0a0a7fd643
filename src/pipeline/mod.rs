//! Commands joined by pipes. Decides which stream of a stage goes where, which status the whole has, and that all stages share one
//! timeout and one stop. How bytes are moved and processes waited for is decided where it is for a single command; where a filter
//! stands between two commands, bytes pass through us.

mod child;
mod record;
mod relay;

pub use child::PipelineChild;

use crate::child::{Child, KillOnDrop, echo};
use crate::command::{Command, Filter, Input, Stdio, Target};
use crate::communicate::{Purpose, Watch};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::filter::{OpenFilter, Sieve};
use crate::live::{Line, ShowChunks, ShowLines, ShowText};
use crate::output::{Output, Stream};
use crate::pipe::pipe_sized;
use crate::status::ExitStatus;
use crate::stop::Stop;
use crate::text::Text;
use std::fmt;
use std::ops::{BitOr, ControlFlow};
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
    pub(crate) timeout: Option<Duration>,
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

    /// std's name for [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn status(&self) -> Result<ExitStatus, Error> {
        self.call()
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

    /// Python's name for [`output`](Self::output).
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn run(&self) -> Result<Output, Error> {
        self.output()
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
        let (text, line_max) = self.shown_as();
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
        let mut watch = ShowText::new(self.shown_as().0, show);
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
        let mut children = self.start_run(streams, purpose)?;
        children.go_on(deadline, true, watch).map_err(|error| self.say_timeout(error))
    }

    /// Starts a run that is not to outlive its verb; its conversation stands ready.
    pub(crate) fn start_run(&self, streams: Streams, purpose: Purpose) -> Result<PipelineChild, Error> {
        let mut children = self.spawn_with(Some(streams), KillOnDrop::Always)?;
        let input = match self.stages.first() {
            Some(first) => first.fed_input(first.input_stream(None)?.as_ref()),
            None => Input::empty(),
        };
        children.start_talk(input, purpose)?;
        Ok(children)
    }

    /// An error that knows which time was exceeded.
    pub(crate) fn say_timeout(&self, error: Error) -> Error {
        match (error.is_timeout(), self.timeout) {
            (true, Some(timeout)) => error.detail(format!("timed out after {timeout:?}")),
            _ => error,
        }
    }

    /// How lines are found, and how long they may be.
    pub(crate) fn shown_as(&self) -> (Text, usize) {
        self.stages.last().map_or((Text::default(), 1), |last| (last.settings.text, last.settings.line_max))
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
            echo(self);
        }
        let collects = streams == Some(Streams::Collected);
        let mut children: Vec<Child> = Vec::with_capacity(self.stages.len());
        let (mut from_before, mut relays) = (None, Vec::new());
        for (place, stage) in self.stages.iter().enumerate() {
            let [own_stdin, own_stdout, _] = &stage.streams;
            let within = |name: &str| failed(Error::invalid(format!("{name} of stage {} is the pipe", place + 1)));
            let filters: Vec<_> =
                self.filters_behind(place).map(|one| OpenFilter::new(one, stage.settings.line_max)).collect();
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
            child.kill_on_drop = KillOnDrop::Always;
            child.sieve = (!filters.is_empty()).then(|| Box::new(Sieve::new(filters)));
            if let Some(stop) = &self.stop {
                Arc::make_mut(&mut child.settings).stop = stop.clone();
            }
            children.push(child);
        }
        for (child, stage) in children.iter_mut().zip(&self.stages) {
            child.kill_on_drop = match on_drop {
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
pub(crate) enum Streams {
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
