//! A Rust function in a process of its own, from the side of who started it. Decides what is said when the process ends in another way than by
//! returning. Leaves to `bootstrap` what happens on the other side, and everything about the process itself to [`Child`].

use super::bootstrap;
use super::call::{self, Beginning, Call, State};
use super::children;
use super::codec;
use super::function::Function;
use crate::child::Child;
use crate::command::{Command, Stdio};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::handle::{ProcessHandle, StopReport};
use crate::output::Output;
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::Stop;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A process that has not come to its function by then never will, unless somebody knows better.
pub(super) const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// A Rust function that runs in a process of its own.
///
/// The process runs the same program, from the beginning: it is no copy of this one, and shares nothing with it but what it gets as arguments. These
/// and the result are data (serde's `Serialize` and `Deserialize`); [shared objects](crate::ipc) are data, too, where they are arguments. The
/// function takes one argument; several are a tuple. It is a function or a closure that captures nothing.
///
/// Nothing needs to be said in `main`, and it works in tests. The function runs before `main` would, when the constructors of the C libraries have
/// run, on a thread like the main one: standard input is empty unless [said otherwise](ProcessBuilder::configure), the other streams are
/// inherited.
///
/// Dropping it leaves the process running, as with [`Child`].
///
/// ```
/// use procession::ipc::Process;
///
/// fn area((width, height): (u32, u32)) -> u32 {
///     width * height
/// }
///
/// let mut process = Process::start(area, (6, 7))?;
/// assert_eq!(process.join()?, 42);
///
/// // A panic comes back as an error.
/// let mut process = Process::start(|list: Vec<u8>| list[3], vec![1, 2])?;
/// let error = process.join().unwrap_err();
/// assert_eq!(error.panic().unwrap().message(), "index out of bounds: the len is 2 but the index is 3");
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "multiprocessing")]
pub struct Process<R> {
    child: Child,
    call: Call,
    name: String,
    label: String,
    arrival_max: Duration,
    arrival: Deadline,
    ended: Option<Output>,
    /// We have sent it a signal ourselves.
    was_asked: AtomicBool,
    result: PhantomData<fn() -> R>,
}

/// What listening to a process has brought.
pub(crate) enum Heard {
    End(Box<Output>),
    Nothing,
    /// It is to be killed.
    NeverComes,
}

/// A process that is about to be started: see [`Process::builder`].
pub struct ProcessBuilder<A, R> {
    arguments: A,
    function: Result<Function, Error>,
    function_name: &'static str,
    name: Option<String>,
    arrival_max: Duration,
    command: Command,
    result: PhantomData<fn() -> R>,
}

impl<R: Serialize + DeserializeOwned> Process<R> {
    /// Starts a process that calls the function. Dropping what this returns leaves the process running: whoever may leave early, by `?` for example,
    /// asks for a [`daemon`](ProcessBuilder::daemon), or joins.
    ///
    /// Errors name the function; of a closure that is not much, so [give the process a name](ProcessBuilder::name). The message of a panic is also
    /// written to standard error, as everywhere in Rust; [`configure`](ProcessBuilder::configure) can send it elsewhere.
    ///
    /// A closure must not capture: what it needs is its argument.
    ///
    /// ```compile_fail
    /// let factor = 3;
    /// let process = procession::ipc::Process::start(|number: u32| factor * number, 2);
    /// ```
    ///
    /// # Errors
    /// If the arguments cannot be sent, or no process can be started; see also [`ProcessBuilder::start`].
    pub fn start<F, A>(function: F, arguments: A) -> Result<Process<R>, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
    {
        Process::builder(function, arguments).start()
    }

    /// A process with a name or other settings.
    pub fn builder<F, A>(function: F, arguments: A) -> ProcessBuilder<A, R>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
    {
        ProcessBuilder {
            arguments,
            function: Function::of(function),
            function_name: type_name::<F>(),
            name: None,
            arrival_max: ARRIVAL_MAX,
            command: Command::new(call::PROGRAM).stdin(Stdio::null()),
            result: PhantomData,
        }
    }

    /// Waits for the end of the process, and returns what the function has returned. Can be called again.
    ///
    /// # Errors
    /// A [panic](Error::panic) of the function; an end of the process before the function returned (a signal, an `exit`), with its record; a process
    /// that has not come to its function [in time](ProcessBuilder::arrival_timeout), which is killed; a result that cannot be sent.
    pub fn join(&mut self) -> Result<R, Error> {
        self.join_until(Deadline::NEVER)
    }

    /// As [`join`](Self::join), but waits so long at most. The process goes on then.
    ///
    /// # Errors
    /// As [`join`](Self::join), and [a timeout](Error::is_timeout).
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<R, Error> {
        self.join_before(Deadline::after(timeout), timeout)
    }

    /// Until the end of a time that was given.
    fn join_before(&mut self, deadline: Deadline, timeout: Duration) -> Result<R, Error> {
        self.join_until(deadline).map_err(|error| self.say_time(error, timeout))
    }

    pub(crate) fn say_time(&self, error: Error, timeout: Duration) -> Error {
        let goes_on = error.is_timeout() && self.is_alive();
        if goes_on { error.detail(format!("has not ended after {timeout:?}")) } else { error }
    }

    fn join_until(&mut self, deadline: Deadline) -> Result<R, Error> {
        let output = match self.ended.take() {
            Some(output) => output,
            None => self.wait_for_end(deadline)?,
        };
        self.result_of(output)
    }

    /// As [`join_until`](Self::join_until), when the end is known.
    pub(crate) fn result_of(&mut self, output: Output) -> Result<R, Error> {
        let was_asked = self.was_asked.load(Ordering::Relaxed) && output.status().signal().is_some();
        let result =
            outcome_of(&self.call, output.status(), was_asked).and_then(|bytes| codec::decode(&bytes, Vec::new()));
        let result = result.map_err(|error| self.blame(error, output.clone()));
        self.ended = Some(output);
        result
    }
}

/// What came of a call whose process has ended like this. The value in bytes.
pub(super) fn outcome(call: &Call, status: ExitStatus) -> Result<Vec<u8>, Error> {
    outcome_of(call, status, false)
}

/// The same; `was_asked` if it was we who have sent the signal.
fn outcome_of(call: &Call, status: ExitStatus, was_asked: bool) -> Result<Vec<u8>, Error> {
    let by_whom = if was_asked { ", sent by this program," } else { "" };
    let ended = |when: &str| Error::new(ErrorKind::Status).detail(format!("{status}{by_whom} before {when}"));
    match call.state()? {
        State::Returned if status.success() => call.result(),
        // A panic that was caught may have been followed by another end.
        State::Panicked if is_end_of_panic(status) => Err(Error::of_panic(call.panic()?)),
        State::Refused => Err(Error::invalid(String::from_utf8_lossy(&call.result()?).into_owned())),
        State::Started => Err(ended("the process had come to its function")),
        State::Arrived | State::Returned | State::Panicked => Err(ended("the function had returned")),
    }
}

impl<R> Process<R> {
    /// Waits for the end, and gives up what never comes to its function.
    fn wait_for_end(&mut self, deadline: Deadline) -> Result<Output, Error> {
        loop {
            let until = self.listen_until(deadline)?;
            let heard = self.child.communicate_deadline((), until);
            match self.judge(heard, deadline)? {
                Heard::End(output) => return Ok(*output),
                Heard::Nothing => {}
                Heard::NeverComes => {
                    // Survivors would have said more than we know.
                    let _ = self.child.stop(&Stop::kill())?;
                    return Err(self.never_came());
                }
            }
        }
    }

    /// How its end is known already, if it is.
    #[cfg(feature = "future")]
    pub(crate) fn take_end(&mut self) -> Option<Output> {
        self.ended.take()
    }

    /// Until when to listen to it, before it is looked at again.
    pub(crate) fn listen_until(&self, deadline: Deadline) -> Result<Deadline, Error> {
        let arrived = self.call.state()? != State::Started;
        Ok(if arrived { deadline } else { deadline.earlier(self.arrival) })
    }

    /// What it means that this was heard, for those who listen until the deadline.
    pub(crate) fn judge(&mut self, heard: Result<Output, Error>, deadline: Deadline) -> Result<Heard, Error> {
        match heard {
            Ok(output) => Ok(Heard::End(Box::new(output))),
            Err(error) if error.is_timeout() && !deadline.has_passed() => {
                // Asked once: it may end at this very moment.
                if self.child.try_wait()?.is_some() {
                    // What it has said is still to be read.
                    self.arrival = Deadline::NEVER;
                    return Ok(Heard::Nothing);
                }
                let never = self.call.state()? == State::Started && self.arrival.has_passed();
                Ok(if never { Heard::NeverComes } else { Heard::Nothing })
            }
            Err(error) if error.is_timeout() && self.child.try_wait()?.is_none() => {
                Err(self.blame(error, Output::default()))
            }
            Err(error) => {
                let output = error.output().clone();
                Err(self.blame(error, output))
            }
        }
    }

    /// The error of a process that was killed because of that.
    pub(crate) fn never_came(&self) -> Error {
        let time = self.arrival_max;
        let text = format!("the process had not come to its function after {time:?}, and was killed");
        self.blame(Error::new(ErrorKind::Timeout).detail(text), Output::default())
    }

    /// Says which process it was.
    fn blame(&self, error: Error, mut output: Output) -> Error {
        output.command.clone_from(&self.label);
        error.with_output(output)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the process.
    #[doc(alias = "pid")]
    #[doc(alias = "ident")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has not ended.
    pub fn is_alive(&self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// How the process has ended, as Python says it: 0 when the function has returned, 101 after a panic, negative for a signal. `None` while
    /// it runs.
    #[doc(alias = "exitcode")]
    pub fn exit_code(&self) -> Option<i32> {
        // It is not known to have ended.
        self.child.try_wait().ok().flatten().map(|status| status.returncode())
    }

    /// Asks the process to end (SIGTERM). [`join`](Self::join) is an error then that says who has sent the signal. What it shares with others is put right: see [the page](crate::docs::ipc).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn terminate(&self) -> Result<bool, Error> {
        self.child.terminate().inspect(|sent| self.note_asked(*sent))
    }

    /// Ends the process (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&self) -> Result<bool, Error> {
        self.child.kill().inspect(|sent| self.note_asked(*sent))
    }

    /// Interrupts the process (SIGINT).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn interrupt(&self) -> Result<bool, Error> {
        self.child.send_signal(Signal::INT).inspect(|sent| self.note_asked(*sent))
    }

    /// Stops the process and everything that it has started.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn stop(&mut self, stop: &Stop) -> Result<StopReport, Error> {
        self.note_asked(true);
        self.child.stop(stop)
    }

    /// That a signal was sent, or is about to be.
    pub(crate) fn note_asked(&self, sent: bool) {
        self.was_asked.fetch_or(sent, Ordering::Relaxed);
    }

    /// Waits for the end of the process, however it ends.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait()
    }

    /// As [`wait`](Self::wait), for so long at most.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        self.child.wait_timeout(timeout)
    }

    /// The process, to be waited for and signalled from elsewhere.
    pub fn handle(&self) -> &ProcessHandle {
        self.child.handle()
    }

    /// Its streams, where [`configure`](ProcessBuilder::configure) has asked for pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// A descriptor that becomes readable when the process ends, for [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html) and
    /// [`ChildSet::watch`](crate::ChildSet::watch).
    ///
    /// # Errors
    /// If the process has none, because no descriptor was left when it was started.
    pub fn sentinel(&self) -> Result<BorrowedFd<'_>, Error> {
        self.child.handle().try_as_fd()
    }
}

/// Joins all of them, and returns what became of each, in their order. An error of one keeps nobody from being joined.
///
/// ```
/// use procession::ipc::{Process, join_all};
///
/// let mut processes = Vec::new();
/// for number in 0..3_u32 {
///     processes.push(Process::start(|number: u32| number * number, number)?);
/// }
/// let squares: Vec<u32> = join_all(&mut processes).into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(squares, [0, 1, 4]);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "joinall")]
pub fn join_all<'a, R: Serialize + DeserializeOwned + 'a>(
    processes: impl IntoIterator<Item = &'a mut Process<R>>,
) -> Vec<Result<R, Error>> {
    processes.into_iter().map(Process::join).collect()
}

/// As [`join_all`], for so long at most, all of them together. What has not ended by then goes on, and is an error that says so
/// ([`is_timeout`](Error::is_timeout)); it can be joined again.
pub fn join_all_timeout<'a, R: Serialize + DeserializeOwned + 'a>(
    processes: impl IntoIterator<Item = &'a mut Process<R>>,
    timeout: Duration,
) -> Vec<Result<R, Error>> {
    let deadline = Deadline::after(timeout);
    processes.into_iter().map(|process| process.join_before(deadline, timeout)).collect()
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process { child, name, label, .. } = self;
        out.debug_struct("Process").field("name", name).field("function", label).field("child", child).finish()
    }
}

impl<A: Serialize, R> ProcessBuilder<A, R> {
    /// Names the process, for errors and [`current`](super::current). Otherwise it is `Process-1`, `Process-2`, and so on.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ProcessBuilder<A, R> {
        self.name = Some(name.into());
        self
    }

    /// The process is killed when this one ends, in whatever way.
    #[must_use]
    pub fn daemon(self) -> ProcessBuilder<A, R> {
        self.configure(|command| command.parent_death_signal(Signal::KILL))
    }

    /// How long the process may take until its function is called, 30 seconds unless this says otherwise. Whoever waits for it kills it then: it hangs
    /// in the beginning of a library, or never was this program.
    #[must_use]
    pub fn arrival_timeout(mut self, timeout: Duration) -> ProcessBuilder<A, R> {
        self.arrival_max = timeout;
        self
    }

    /// Sets what every command has: streams, environment, working directory, limits, a user.
    ///
    /// ```
    /// use procession::Stdio;
    /// use procession::ipc::Process;
    ///
    /// let builder = Process::builder(|()| println!("said by the function"), ());
    /// let mut process = builder.configure(|command| command.nice(1).stdout(Stdio::piped())).start()?;
    /// let output = process.child().communicate(())?;
    /// assert_eq!(output.stdout_lossy(), "said by the function\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn configure(mut self, settings: impl FnOnce(Command) -> Command) -> ProcessBuilder<A, R> {
        self.command = settings(self.command);
        self
    }

    /// Starts the process. It does not wait for it.
    ///
    /// # Errors
    /// If the arguments cannot be sent; if the function does not belong to the main program; if this program has no beginning for processes; if no
    /// process can be started. Nothing is left behind then.
    pub fn start(self) -> Result<Process<R>, Error> {
        let arrival_max = self.arrival_max;
        let Started { child, call, name, label } = self.start_plainly()?;
        let arrival = Deadline::after(arrival_max);
        Ok(Process {
            child,
            call,
            name,
            label,
            arrival_max,
            arrival,
            ended: None,
            was_asked: AtomicBool::new(false),
            result: PhantomData,
        })
    }

    /// Starts the process, for those who wait for it in their own way.
    pub(super) fn start_plainly(self) -> Result<Started, Error> {
        let name = self.name.unwrap_or_else(next_name);
        let label = format!("{name} ({})", self.function_name);
        let named = |error: Error| error.of_command(|| label.clone());
        bootstrap::check().map_err(named)?;
        let function = self.function.map_err(named)?;
        let (arguments, descriptors) = codec::encode(&self.arguments).map_err(named)?;
        let beginning = Beginning {
            program: call::own_program().map_err(named)?,
            place: function.place(),
            name: name.clone(),
            parent: std::process::id(),
            descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        };
        let call = Call::new(&beginning, &arguments).map_err(named)?;
        let program = std::env::args_os().next().unwrap_or_else(|| name.clone().into());
        let command = self.command.arg0(program).env(bootstrap::variable(), call.as_fd().as_raw_fd().to_string());
        let command = descriptors.iter().fold(command.pass_fd(&call), |command, fd| command.pass_fd(fd));
        let child = command.spawn().map_err(|error| error.of_command(|| label.clone()))?;
        children::note(&name, child.handle());
        Ok(Started { child, call, name, label })
    }
}

/// A process and its call, nothing else.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) call: Call,
    pub(super) name: String,
    pub(super) label: String,
}

impl<A, R> fmt::Debug for ProcessBuilder<A, R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProcessBuilder").field("function", &self.function_name).field("name", &self.name).finish()
    }
}

/// A program that was built to abort ends by a signal.
fn is_end_of_panic(status: ExitStatus) -> bool {
    status.code() == Some(bootstrap::EXIT_PANIC) || status.signal() == Some(Signal::ABRT)
}

/// As in Python: the processes of a process have its name before theirs.
fn next_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    match super::current() {
        Some(current) => format!("{}:{number}", current.name()),
        None => format!("Process-{number}"),
    }
}
