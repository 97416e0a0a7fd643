//! The verbs that run a command to its end, and the conversation with a child that is there. Here are `Command::call`,
//! `check_call`, `status`, `output`, `run`, `check_output`, `check_output_text`, and `Child::communicate`. Decides which streams
//! a verb chooses, and what record comes out; the waiting is in `block`, the rules are in `machine`.

mod block;

use crate::child::{Child, KillOnDrop};
use crate::command::{Command, Input, Stdio};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::machine::Machine;
use crate::output::{Captured, Cause, Output, Stream};
use crate::status::ExitStatus;
pub(crate) use block::{Ending, Talk, Watch, drive};
use std::ops::ControlFlow;
use std::time::Duration;

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
        Ok(self.run_with(&self.shared_streams()?)?.status())
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
        self.run_with(&self.shared_streams()?)?.check().map(drop)
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
        self.run_with(&self.collected_streams()?)
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

    fn shared_streams(&self) -> Result<[Option<Stdio>; 3], Error> {
        let [_, stdout, stderr] = self.streams.clone();
        Ok([self.input_stream(None)?, stdout, stderr])
    }

    fn collected_streams(&self) -> Result<[Option<Stdio>; 3], Error> {
        let [_, stdout, stderr] = self.streams.clone();
        let piped = |stream: Option<Stdio>| stream.or_else(|| Some(Stdio::piped()));
        Ok([self.input_stream(Some(Stdio::null()))?, piped(stdout), piped(stderr)])
    }

    /// Input is fed through a pipe; a stream that was told to come from elsewhere contradicts it.
    pub(crate) fn input_stream(&self, otherwise: Option<Stdio>) -> Result<Option<Stdio>, Error> {
        let [stdin, _, _] = &self.streams;
        match (&self.input, stdin) {
            (Some(_), Some(stdin)) if !stdin.is_pipe() => {
                let text = format!("there is input, and stdin is said to be {stdin:?}");
                Err(Error::invalid(text).of_command(|| self.to_string()))
            }
            (Some(input), _) => Ok(Some(input.file().unwrap_or_else(Stdio::piped))),
            (None, Some(stdin)) => Ok(Some(stdin.clone())),
            (None, None) => Ok(otherwise),
        }
    }

    fn run_with(&self, streams: &[Option<Stdio>; 3]) -> Result<Output, Error> {
        self.run_watched(streams, None)
    }

    /// As [`output`](Self::output), and shows what is read.
    pub(crate) fn output_watched(&self, watch: Watch<'_>) -> Result<Output, Error> {
        self.run_watched(&self.collected_streams()?, Some(watch))
    }

    fn run_watched(&self, streams: &[Option<Stdio>; 3], watch: Option<Watch<'_>>) -> Result<Output, Error> {
        let deadline = Deadline::from(self.timeout);
        let mut child = self.spawn_with(streams)?;
        child.settings.kill_on_drop = KillOnDrop::Always;
        let input = self.input.clone().filter(|input| input.file().is_none()).unwrap_or_else(Input::empty);
        match child.talk(input, deadline, true, watch) {
            Err(mut error) if error.is_timeout() => {
                let timeout = self.timeout.unwrap_or_default();
                error = error.detail(format!("timed out after {timeout:?}"));
                Err(error)
            }
            other => other,
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
        self.talk(input.into(), Deadline::NEVER, false, None)
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
        let talked = self.talk(input.into(), Deadline::after(timeout), false, None);
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
        self.talk(input.into(), deadline.into(), false, None)
    }

    /// One conversation. The deadline stops the child, if `stops`; otherwise it leaves the conversation to be continued.
    fn talk(
        &mut self,
        input: Input,
        deadline: Deadline,
        stops: bool,
        watch: Option<Watch<'_>>,
    ) -> Result<Output, Error> {
        let mut machine = match self.begin(input) {
            Ok(machine) => machine,
            Err(error) => return Err(error.of_command(|| self.handle.line())),
        };
        // A closure around it lives no longer than the conversation.
        let mut watch = watch.map(|watch| move |stream: Stream, bytes: &[u8]| watch(stream, bytes));
        let watch = watch.as_mut().map(|watch| watch as &mut dyn FnMut(Stream, &[u8]) -> ControlFlow<()>);
        let mut talk = Talk::new(self, &mut machine).watched_by(watch);
        let ending = drive(std::slice::from_mut(&mut talk), deadline, stops);
        let (cause, survivors, explanation) = (talk.cause, talk.survivors, talk.explanation);
        match ending {
            Ok(Ending::Over) => {
                let overflowed = machine.overflowed();
                let input = machine.input();
                let output = Output { survivors, explanation, ..self.record(machine.into_captured(), input, cause) };
                match cause {
                    Cause::Timeout => Err(Error::new(ErrorKind::Timeout).with_output(output)),
                    Cause::Overflow => Err(self.overflow(overflowed, output)),
                    _ => Ok(output),
                }
            }
            Ok(Ending::TimedOut) => {
                let output = self.record(machine.snapshot(), machine.input(), Cause::Running);
                self.machine = Some(machine);
                Err(Error::new(ErrorKind::Timeout).with_output(output))
            }
            Err(error) => {
                // A verb ends the process whatever happens; a conversation leaves it to its owner.
                let cause = if stops { Cause::Stopped } else { Cause::Running };
                if stops {
                    // What could not be stopped is reaped later; the first error is the one that matters.
                    let _ = self.stop(&self.settings.stop.clone());
                }
                let output = self.record(machine.snapshot(), machine.input(), cause);
                self.machine = Some(machine);
                Err(error.with_output(output))
            }
        }
    }

    pub(crate) fn begin(&mut self, input: Input) -> Result<Machine, Error> {
        let mut machine = self.machine.take().unwrap_or_else(|| {
            let captured = [self.stdout.is_some(), self.stderr.is_some()];
            Machine::new(self.stdin.is_some(), captured, self.settings.limits)
        });
        if !input.is_empty() {
            let added = input.open().map(|opened| machine.add_input(opened));
            let refused = match added {
                Ok(true) => return Ok(machine),
                Ok(false) => Error::invalid("there is input, and standard input is not a pipe or has been closed"),
                Err(error) => Error::invalid(error.to_string()),
            };
            self.machine = Some(machine);
            return Err(refused);
        }
        Ok(machine)
    }

    pub(crate) fn overflow(&self, stream: Option<Stream>, output: Output) -> Error {
        let [stdout, stderr] = self.settings.limits;
        let (name, limit) = match stream {
            Some(Stream::Stderr) => ("stderr", stderr),
            _ => ("stdout", stdout),
        };
        let text = format!("wrote more than {} bytes to {name}", limit.bytes_max);
        Error::new(ErrorKind::Overflow).detail(text).with_output(output)
    }

    pub(crate) fn record(&self, captured: [Captured; 2], input: (u64, bool), cause: Cause) -> Output {
        let [stdout, stderr] = captured;
        let (input_accepted, input_refused) = input;
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
            started: Some(self.settings.started),
            elapsed: self.settings.started_at.elapsed(),
            cause,
            survivors: Vec::new(),
            explanation: None,
            text: self.settings.text,
            stages: Vec::new(),
        }
    }
}
