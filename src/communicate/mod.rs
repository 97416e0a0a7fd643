//! The verbs that run a command to its end, and the conversation with a child that is there. Here are `Command::call`,
//! `check_call`, `status`, `output`, `run`, `check_output`, `check_output_text`, and `Child::communicate`. Decides which streams
//! a verb chooses, and what record comes out; the loop is in `drive`, the waiting in `block`,
//! what the facts mean in `talk`, the rules for bytes in `machine`.

#[cfg_attr(procession_awaited, path = "block_awaited.rs")]
mod block;
mod drive;
mod talk;
mod wanted;

use crate::child::{Child, KillOnDrop};
use crate::command::{Command, Input, Limit, Stdio};
use crate::course::Closing;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::machine::{Machine, STREAMS};
use crate::output::{Captured, Cause, Output, Stream};
use crate::pipe::PipeWriter;
use crate::status::ExitStatus;
use crate::terminal::Terminal;
pub(crate) use block::{block, waiter};
pub(crate) use drive::{Driver, Ending, Waiter, drive};
use std::fmt;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::{Context, Poll};
use std::time::Duration;
pub(crate) use talk::{Decision, LOOK, Talk, Watch};
pub(crate) use wanted::{answer, wanted};

/// What becomes of the output of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is the result.
    Collect,
    /// Somebody sees it as it comes; the record keeps enough to say what happened last.
    Show,
}

/// A child, or several that are talked to together, whose output is handed out piece by piece.
pub(crate) trait Party: Send {
    /// Which streams of which child there are to hand out, the most wanted first.
    fn sources(&self) -> Vec<(usize, Stream)>;

    fn machine(&self, place: usize) -> Option<&Machine>;

    fn machine_mut(&mut self, place: usize) -> Option<&mut Machine>;

    /// Takes up the conversation, or begins it: these streams are handed out, standard input stays open for more.
    fn hand_out(&mut self, sources: &[(usize, Stream)]);

    /// Reads and writes until it is enough, all is over, or the deadline has come. While it is pending all there is to know is here.
    fn pump(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        enough: &mut Enough<'_>,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Ending, Error>>;

    /// Adds input behind what is still to be written.
    fn add_input(&mut self, input: Input) -> Result<(), Error>;

    /// No more input will come: standard input is closed when all is written.
    fn end_input(&mut self);

    /// The terminal that is written to.
    fn terminal(&self) -> Option<&Terminal>;

    /// The record until now.
    fn record_so_far(&self) -> Output;
}

impl fmt::Debug for dyn Party + '_ {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.record_so_far().command())
    }
}

/// As [`Party::pump`], to be awaited.
pub(crate) async fn pump(
    party: &mut (dyn Party + '_),
    deadline: Deadline,
    enough: &mut Enough<'_>,
    waiter: &mut Waiter,
) -> Result<Ending, Error> {
    poll_fn(|task| party.pump(task, deadline, enough, &mut **waiter)).await
}

/// Whether what was read and written until now is enough.
pub(crate) type Enough<'a> = dyn FnMut(&[Talk<'_>]) -> bool + Send + 'a;

/// Pauses when it is enough.
pub(crate) struct Until<'a, 'b>(pub(crate) &'a mut Enough<'b>);

impl Watch for Until<'_, '_> {
    fn look(&mut self, talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        if (self.0)(talks) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Party for Child {
    fn sources(&self) -> Vec<(usize, Stream)> {
        STREAMS.map(|stream| (0, stream)).to_vec()
    }

    fn machine(&self, _place: usize) -> Option<&Machine> {
        self.machine.as_deref()
    }

    fn machine_mut(&mut self, _place: usize) -> Option<&mut Machine> {
        self.machine.as_deref_mut()
    }

    fn hand_out(&mut self, sources: &[(usize, Stream)]) {
        let mut machine = self.machine.take().unwrap_or_else(|| {
            let mut machine = self.new_machine(Purpose::Show);
            machine.hold_input(true);
            Box::new(machine)
        });
        for &(_, stream) in sources {
            machine.hand_out(stream, self.limit(stream, Purpose::Collect).bytes_max);
        }
        self.machine = Some(machine);
    }

    fn pump(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        enough: &mut Enough<'_>,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Ending, Error>> {
        let Some(mut machine) = self.machine.take() else { return Poll::Ready(Ok(Ending::Over)) };
        let mut talk = Talk::new(self, &mut machine);
        let (talks, watch) = (std::slice::from_mut(&mut talk), &mut Until(enough));
        let Poll::Ready(ending) = drive(task, talks, deadline, false, watch, driver) else {
            talk.leave();
            self.machine = Some(machine);
            return Poll::Pending;
        };
        let mut closing = talk.into_closing();
        let failure = closing.failure.take();
        let overflowed = machine.overflowed().filter(|_| closing.cause == Cause::Overflow);
        let result = match (ending, failure) {
            (Ok(ending), None) if overflowed.is_none() => Ok(ending),
            (Ok(_), failure) => {
                let output = self.snapshot(&machine, closing);
                Err(match failure {
                    Some(failure) => failure.with_output(output),
                    None => self.overflow(overflowed, output),
                })
            }
            (Err(error), _) => Err(error.with_output(self.snapshot(&machine, Cause::Running))),
        };
        self.machine = Some(machine);
        Poll::Ready(result)
    }

    fn add_input(&mut self, input: Input) -> Result<(), Error> {
        let Some(mut machine) = self.machine.take() else { return Ok(()) };
        let added = add_input(&mut machine, input);
        self.machine = Some(machine);
        added.map_err(|error| error.of_command(|| self.handle.line()))
    }

    fn end_input(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        machine.hold_input(false);
        if machine.input_is_written() {
            machine.end_input();
            // Where there is no room to say it, it is said when the conversation goes on.
            if self.stdin.as_ref().is_some_and(PipeWriter::say_end) {
                self.stdin = None;
            }
        }
    }

    fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_deref()
    }

    fn record_so_far(&self) -> Output {
        let cause = if self.handle.ended().is_some() { Cause::Ended } else { Cause::Running };
        let output = self.machine.as_deref().map(|machine| self.snapshot(machine, cause));
        output.unwrap_or_else(|| Output { command: self.handle.line(), pid: Some(self.id()), ..Output::default() })
    }
}

/// Adds input to a conversation.
pub(crate) fn add_input(machine: &mut Machine, input: Input) -> Result<(), Error> {
    if input.is_empty() {
        return Ok(());
    }
    match input.open().map(|opened| machine.add_input(opened)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::invalid("there is input, and standard input is not a pipe or has been closed")),
        Err(error) => Err(Error::invalid(error.to_string())),
    }
}

/// Running to the end.
impl Command {
    /// Runs the command with the streams of this program and returns how it ended.
    ///
    /// ```
    /// use procession::Command;
    ///
    /// let status = Command::new("sh").args(["-c", "exit 7"]).call()?;
    /// assert_eq!(status.returncode(), 7);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it cannot be started, or exceeds its [`timeout`](Self::timeout). How it ends is no error: see
    /// [`check_call`](Self::check_call).
    #[doc(alias = "system")]
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

    /// Runs the command with the streams of this program.
    ///
    /// # Errors
    /// As [`call`](Self::call), and if it ends with an exit code that is not [accepted](Self::accept).
    pub fn check_call(&self) -> Result<(), Error> {
        self.run_shared()?.check().map(drop)
    }

    /// Runs the command and collects its standard output and error. Standard input is the null device unless
    /// [`input`](Self::input) or [`stdin`](Self::stdin) say otherwise; streams that are set go where they are told.
    ///
    /// No amount of input or output blocks the other, and a grandchild that keeps a pipe open does not hold up the call for
    /// longer than the [`drain`](Self::drain) time. Whatever happens, unwinding included, the process does not outlive the
    /// call.
    ///
    /// # Errors
    /// If it cannot be started, exceeds its [`timeout`](Self::timeout), or writes more than its
    /// [`capture_limit`](Self::capture_limit); the error holds what was read. How it ends is no error: see
    /// [`check_output`](Self::check_output) and [`Output::check`].
    #[doc(alias = "capture_output")]
    pub fn output(&self) -> Result<Output, Error> {
        self.run_with(&self.collected_streams(Stdio::null())?, Purpose::Collect, &mut (), |_| ())
    }

    /// As [`output`](Self::output), and collects standard output in a buffer of the caller's, which is emptied first and whose memory
    /// is used: for outputs that are large and many. The record's own standard output is empty, except in an error, which takes
    /// the buffer's memory along.
    ///
    /// ```
    /// use procession::Command;
    ///
    /// let mut buffer = Vec::new();
    /// for word in ["one", "two"] {
    ///     Command::new("echo").arg(word).output_into(&mut buffer)?.check()?;
    ///     assert_eq!(buffer, format!("{word}\n").into_bytes());
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub fn output_into(&self, stdout: &mut Vec<u8>) -> Result<Output, Error> {
        let memory = std::mem::take(stdout);
        let lend = |machine: &mut Machine| machine.lend(Stream::Stdout, memory);
        let mut output = self.run_with(&self.collected_streams(Stdio::null())?, Purpose::Collect, &mut (), lend)?;
        *stdout = std::mem::take(&mut output.stdout.bytes);
        Ok(output)
    }

    /// Python's name for [`output`](Self::output).
    ///
    /// # Errors
    /// As [`output`](Self::output).
    #[doc(alias = "getstatusoutput")]
    pub fn run(&self) -> Result<Output, Error> {
        self.output()
    }

    /// Runs the command and returns what it wrote to standard output. Standard error is collected too, for the error.
    ///
    /// # Errors
    /// As [`output`](Self::output), and if it ends with an exit code that is not [accepted](Self::accept).
    pub fn check_output(&self) -> Result<Vec<u8>, Error> {
        Ok(self.output()?.check()?.into_stdout())
    }

    /// Runs the command and returns what it wrote to standard output, as [text](Self::text).
    ///
    /// # Errors
    /// As [`check_output`](Self::check_output), and if the bytes are no text; the error holds them.
    #[doc(alias = "getoutput")]
    #[doc(alias = "read")]
    pub fn check_output_text(&self) -> Result<String, Error> {
        self.output()?.check()?.into_stdout_text()
    }

    pub(crate) fn shared_streams(&self) -> Result<[Option<Stdio>; 3], Error> {
        let [_, stdout, stderr] = self.chosen_streams();
        Ok([self.input_stream(None)?, stdout, stderr])
    }

    /// Both streams are collected unless they are set; `null` is what standard input is then.
    pub(crate) fn collected_streams(&self, null: Stdio) -> Result<[Option<Stdio>; 3], Error> {
        let [_, stdout, stderr] = self.chosen_streams();
        let piped = |stream: Option<Stdio>| stream.or_else(|| Some(Stdio::piped()));
        Ok([self.input_stream(Some(null))?, piped(stdout), piped(stderr)])
    }

    /// Input is fed through a pipe, or typed at a terminal; a stream that was told to come from elsewhere contradicts it.
    pub(crate) fn input_stream(&self, otherwise: Option<Stdio>) -> Result<Option<Stdio>, Error> {
        match (&self.input, self.chosen_stream(0)) {
            (Some(_), Some(stdin)) if stdin.is_pty() => Ok(Some(stdin)),
            (Some(_), Some(stdin)) if !stdin.is_pipe() => {
                let text = format!("there is input, and stdin is said to be {stdin:?}");
                Err(Error::invalid(text).of_command(|| self.to_string()))
            }
            (Some(input), _) => Ok(Some(input.file().unwrap_or_else(Stdio::piped))),
            (None, Some(stdin)) => Ok(Some(stdin)),
            (None, None) => Ok(otherwise),
        }
    }

    /// What is left for us to feed: nothing where the child reads a file by itself.
    pub(crate) fn fed_input(&self, stdin: Option<&Stdio>) -> Input {
        self.input.clone().filter(|_| stdin.is_some_and(Stdio::has_end)).unwrap_or_else(Input::empty)
    }

    fn run_shared(&self) -> Result<Output, Error> {
        self.run_with(&self.shared_streams()?, Purpose::Show, &mut (), |_| ())
    }

    /// As [`output`](Self::output), and shows what is read.
    pub(crate) fn run_shown(&self, watch: &mut dyn Watch) -> Result<Output, Error> {
        self.run_with(&self.collected_streams(Stdio::null())?, Purpose::Show, watch, |_| ())
    }

    fn run_with(
        &self,
        streams: &[Option<Stdio>; 3],
        purpose: Purpose,
        watch: &mut dyn Watch,
        prepare: impl FnOnce(&mut Machine),
    ) -> Result<Output, Error> {
        let deadline = Deadline::from(self.timeout);
        let (mut child, mut machine) = self.begin_run(streams, purpose)?;
        prepare(&mut machine);
        child.talk_with(machine, deadline, true, watch).map_err(|error| self.say_timeout(error))
    }

    /// Starts a run that is not to outlive its verb.
    fn begin_run(&self, streams: &[Option<Stdio>; 3], purpose: Purpose) -> Result<(Child, Machine), Error> {
        let mut child = self.spawn_with(streams)?;
        child.kill_on_drop = KillOnDrop::Always;
        let [stdin, ..] = streams;
        let machine = child.begin(self.fed_input(stdin.as_ref()), purpose)?;
        Ok((child, machine))
    }

    /// The same, and the conversation stands ready in the child.
    #[cfg(feature = "future")]
    pub(crate) fn start_run(&self, streams: &[Option<Stdio>; 3], purpose: Purpose) -> Result<Child, Error> {
        let (mut child, machine) = self.begin_run(streams, purpose)?;
        child.machine = Some(Box::new(machine));
        Ok(child)
    }

    /// An error that knows which time was exceeded.
    pub(crate) fn say_timeout(&self, error: Error) -> Error {
        match self.timeout {
            Some(timeout) if error.is_timeout() => error.detail(format!("timed out after {timeout:?}")),
            _ => error,
        }
    }
}

/// The conversation.
impl Child {
    /// Writes the input to the child's standard input and closes it, reads its standard output and error to their ends, and
    /// waits for it: all at the same time, so that no amount of either can block the other. Streams that are not piped are
    /// left alone.
    ///
    /// After a conversation that timed out this one goes on where that one stopped; new input comes behind the old. The
    /// output is everything since the beginning.
    ///
    /// # Errors
    /// If the child writes more than its [`capture_limit`](Command::capture_limit), in which case it is stopped; if there is
    /// input and standard input is not a pipe or has been closed; or if the system refuses a call.
    pub fn communicate(&mut self, input: impl Into<Input>) -> Result<Output, Error> {
        self.talk(input.into(), Deadline::NEVER)
    }

    /// As [`communicate`](Self::communicate), for at most this long.
    ///
    /// ```
    /// use procession::{Command, Stdio};
    /// use std::time::Duration;
    ///
    /// let mut child = Command::new("sh").args(["-c", "echo one; sleep 0.3; echo two"]).stdout(Stdio::piped()).spawn()?;
    /// let error = child.communicate_timeout((), Duration::from_millis(100)).unwrap_err();
    /// assert!(error.is_timeout());
    /// assert_eq!(error.output().stdout(), b"one\n");
    /// assert_eq!(child.communicate(())?.stdout(), b"one\ntwo\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there; and if the time is over, with everything read so far. The child then goes on, nothing is lost, and another
    /// call continues the conversation.
    pub fn communicate_timeout(&mut self, input: impl Into<Input>, timeout: Duration) -> Result<Output, Error> {
        let talked = self.talk(input.into(), Deadline::after(timeout));
        talked.map_err(
            |error| {
                if error.is_timeout() { error.detail(format!("not finished after {timeout:?}")) } else { error }
            },
        )
    }

    /// As [`communicate_timeout`](Self::communicate_timeout), until a moment.
    ///
    /// # Errors
    /// As there.
    pub fn communicate_deadline(
        &mut self,
        input: impl Into<Input>,
        deadline: impl Into<Deadline>,
    ) -> Result<Output, Error> {
        self.talk(input.into(), deadline.into())
    }

    fn talk(&mut self, input: Input, deadline: Deadline) -> Result<Output, Error> {
        let machine = self.begin(input, Purpose::Collect)?;
        self.talk_with(machine, deadline, false, &mut ())
    }

    /// One conversation to the end. The deadline stops the child, if `stops`; otherwise it leaves the conversation to be continued.
    pub(crate) fn talk_with(
        &mut self,
        mut machine: Machine,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
    ) -> Result<Output, Error> {
        let mut talk = Talk::new(self, &mut machine);
        let talks = std::slice::from_mut(&mut talk);
        let mut waiter = waiter();
        let ending = block(poll_fn(|task| drive(task, talks, deadline, stops, watch, &mut *waiter)));
        let closing = talk.into_closing();
        self.settle(machine, closing, ending, stops)
    }

    /// The same for a conversation that was begun and stands ready, by any driver. While it is pending it stays with the child.
    #[cfg(feature = "future")]
    pub(crate) fn poll_talk(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        stops: bool,
        watch: &mut dyn Watch,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Output, Error>> {
        let mut machine = self.machine.take().unwrap_or_else(|| Box::new(self.new_machine(Purpose::Collect)));
        let mut talk = Talk::new(self, &mut machine);
        let Poll::Ready(ending) = drive(task, std::slice::from_mut(&mut talk), deadline, stops, watch, driver) else {
            talk.leave();
            self.machine = Some(machine);
            return Poll::Pending;
        };
        let closing = talk.into_closing();
        Poll::Ready(self.settle(*machine, closing, ending, stops))
    }

    /// What the end of a conversation, or of its time, means.
    fn settle(
        &mut self,
        machine: Machine,
        closing: Closing,
        ending: Result<Ending, Error>,
        stops: bool,
    ) -> Result<Output, Error> {
        match ending {
            Ok(Ending::Over) => self.conclude(machine, closing),
            Ok(Ending::TimedOut | Ending::Paused) => {
                let output = self.snapshot(&machine, Cause::Running);
                self.machine = Some(Box::new(machine));
                Err(Error::new(ErrorKind::Timeout).with_output(output))
            }
            Err(error) => {
                // A verb ends the process whatever happens; a conversation leaves it to its owner.
                let cause = if stops { Cause::Stopped } else { Cause::Running };
                if stops {
                    // What could not be stopped is reaped later; the first error is the one that matters.
                    let _ = self.stop(&self.settings.stop.clone());
                }
                let output = self.snapshot(&machine, cause);
                self.machine = Some(Box::new(machine));
                Err(error.with_output(output))
            }
        }
    }

    /// What a conversation that is over has come to.
    pub(crate) fn conclude(&self, machine: Machine, mut closing: Closing) -> Result<Output, Error> {
        let (failure, overflowed) = (closing.failure.take(), machine.overflowed());
        self.judge(failure, overflowed, self.record(machine, closing))
    }

    fn judge(&self, failure: Option<Error>, overflowed: Option<Stream>, output: Output) -> Result<Output, Error> {
        match (failure, output.cause) {
            (Some(failure), _) => Err(failure.with_output(output)),
            (None, Cause::Timeout) => Err(Error::new(ErrorKind::Timeout).with_output(output)),
            (None, Cause::Overflow) => Err(self.overflow(overflowed, output)),
            _ => Ok(output),
        }
    }

    /// Takes up the conversation, or begins it, with more input; standard input is closed behind that.
    pub(crate) fn begin(&mut self, input: Input, purpose: Purpose) -> Result<Machine, Error> {
        let mut machine = self.machine.take().map_or_else(|| self.new_machine(purpose), |machine| *machine);
        for stream in STREAMS {
            let shown = purpose == Purpose::Show;
            machine.keep(stream, &self.limit(stream, purpose));
            if shown {
                machine.show(stream);
            }
        }
        self.begin_with(machine, input)
    }

    /// The same, and both streams are handed out: at first what was collected until now.
    pub(crate) fn begin_live(&mut self, input: Input) -> Result<Machine, Error> {
        let mut machine = self.machine.take().map_or_else(|| self.new_machine(Purpose::Show), |machine| *machine);
        for stream in STREAMS {
            machine.hand_out(stream, self.limit(stream, Purpose::Collect).bytes_max);
        }
        self.begin_with(machine, input)
    }

    fn begin_with(&mut self, mut machine: Machine, input: Input) -> Result<Machine, Error> {
        match add_input(&mut machine, input) {
            Ok(()) => {
                machine.hold_input(false);
                Ok(machine)
            }
            Err(error) => {
                self.machine = Some(Box::new(machine));
                Err(error.of_command(|| self.handle.line()))
            }
        }
    }

    pub(crate) fn new_machine(&mut self, purpose: Purpose) -> Machine {
        let [stdout, stderr] = STREAMS.map(|stream| self.limit(stream, purpose));
        let (stdout, stderr) = (self.stdout.is_some().then_some(&stdout), self.stderr.is_some().then_some(&stderr));
        let mut machine = Machine::new(self.stdin.is_some(), stdout, stderr);
        let spills = self.aside.as_mut().and_then(|aside| aside.spills.take());
        for (stream, spill) in STREAMS.into_iter().zip(spills.into_iter().flatten()) {
            if let Some((path, file)) = spill {
                machine.spill_to(stream, path, file);
            }
        }
        if self.settings.transcript {
            machine.remember_order();
        }
        machine
    }

    /// How much is kept of a stream.
    pub(crate) fn limit(&self, stream: Stream, purpose: Purpose) -> Limit {
        let [stdout, stderr] = &self.settings.limits;
        let limit = if stream == Stream::Stdout { stdout } else { stderr };
        let otherwise = || if purpose == Purpose::Show { Limit::SHOWN } else { Limit::default() };
        limit.clone().unwrap_or_else(otherwise)
    }

    pub(crate) fn overflow(&self, stream: Option<Stream>, output: Output) -> Error {
        let stream = stream.unwrap_or(Stream::Stdout);
        let limit = self.limit(stream, Purpose::Collect);
        let text = format!("wrote more than {} bytes to {stream}", limit.bytes_max);
        Error::new(ErrorKind::Overflow).detail(text).with_output(output)
    }

    /// The record at the end of a conversation.
    pub(crate) fn record(&self, mut machine: Machine, closing: Closing) -> Output {
        let (input, marks) = (machine.input(), machine.take_marks());
        Output { marks, ..self.record_of(machine.into_captured(), input, closing) }
    }

    /// The record of a conversation that may go on.
    pub(crate) fn snapshot(&self, machine: &Machine, closing: impl Into<Closing>) -> Output {
        Output {
            marks: machine.marks().to_vec(),
            ..self.record_of(machine.snapshot(), machine.input(), closing.into())
        }
    }

    fn record_of(&self, captured: [Captured; 2], input: (u64, bool), closing: Closing) -> Output {
        let [stdout, stderr] = captured;
        let (input_accepted, input_refused) = input;
        let left = closing.left.map(|left| *left).unwrap_or_default();
        let ended = self.handle.ended();
        Output {
            command: self.handle.line(),
            pid: Some(self.handle.id()),
            status: ended.map(|ended| ended.status),
            accepted: self.settings.accepted.clone(),
            stdout,
            stderr,
            input_accepted,
            input_refused,
            usage: ended.and_then(|ended| ended.usage),
            started: Some(self.started),
            elapsed: left.elapsed.unwrap_or_else(|| self.handle.born().elapsed()),
            cause: closing.cause,
            survivors: left.survivors,
            explanation: left.explanation,
            text: self.settings.text,
            stages: Vec::new(),
            marks: Vec::new(),
        }
    }
}
