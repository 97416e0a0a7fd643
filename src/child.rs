//! A process together with the pipe ends we keep. Decides what `wait` does with standard input, and what drop does to a child
//! that still runs.

use crate::command::{Command, Limit, Overflow, Settings, Stdio};
use crate::course::State;
use crate::deadline::Deadline;
use crate::entry::write_visible;
use crate::error::Error;
use crate::explain::Explanation;
use crate::filter::Sieve;
use crate::handle::{self, OurEnd, ProcessHandle, StopReport, Subject, TAIL_ASKED};
use crate::machine::Machine;
use crate::output::{Stream, Usage};
use crate::pipe::{PipeReader, PipeWriter};
use crate::plan::{Plan, have_ends};
use crate::signal::Signal;
use crate::spawn;
use crate::status::ExitStatus;
use crate::stop::Stop;
use crate::sys::{self, procfs::Channel};
use crate::tee::Tee;
use crate::terminal::Terminal;
use crate::trace;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A process that was started, with our ends of its pipes.
///
/// The pipe ends are there if the stream was [`Stdio::piped`]. Take them to read and write by hand, or let
/// [`communicate`](Child::communicate) feed and collect without a deadlock.
///
/// Dropping a child closes the pipe ends and lets the process go on; it is reaped quietly when it has ended, at the latest by
/// the next command that is started. A child on a terminal of its own gets SIGHUP then, because the terminal goes away. With
/// [`Command::kill_on_drop`] it is stopped by its stop plan instead, in bounded time.
///
/// ```
/// use procession::Command;
///
/// let mut child = Command::new("cat").pipe_all().spawn()?;
/// let output = child.communicate("there and back")?;
/// assert_eq!(output.stdout(), b"there and back");
/// assert_eq!(child.returncode(), Some(0));
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "Popen")]
pub struct Child {
    /// Our end of its standard input. Dropping it says the end of input.
    pub stdin: Option<PipeWriter>,
    /// Our end of its standard output.
    pub stdout: Option<PipeReader>,
    /// Our end of its standard error.
    pub stderr: Option<PipeReader>,
    pub(crate) terminal: Option<Box<Terminal>>,
    pub(crate) handle: ProcessHandle,
    /// A conversation that was begun and not finished.
    pub(crate) machine: Option<Box<Machine>>,
    /// Until when its pipes may stay open; set when a conversation has seen the end of the process.
    pub(crate) drain: Deadline,
    /// Who else gets what it writes.
    pub(crate) tee: Tee,
    /// What its standard output passes through before anybody sees it.
    pub(crate) sieve: Option<Box<Sieve>>,
    /// What few children have.
    pub(crate) aside: Option<Box<Aside>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) kill_on_drop: KillOnDrop,
    pub(crate) started: SystemTime,
}

/// What waits with a child for its next conversation.
#[derive(Default)]
pub(crate) struct Aside {
    /// Where what memory does not hold will go.
    pub(crate) spills: Option<Spills>,
    /// How far the last one had come that was left while it was pending.
    pub(crate) talk: Option<State>,
}

/// A file for each output stream.
pub(crate) type Spills = [Option<(PathBuf, File)>; 2];

/// Whether drop stops the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillOnDrop {
    No,
    /// In the process with this number only: a forked copy of the program has another, and must not touch the child.
    In(u32),
    /// The child lives within one call.
    Always,
}

impl Command {
    /// Starts the command and returns at once. Streams that are not set are inherited.
    ///
    /// The command can be used again.
    ///
    /// # Errors
    /// Everything that is wrong with the request, and every step that fails: see [`ErrorKind`](crate::ErrorKind). Nothing is
    /// left behind then.
    pub fn spawn(&self) -> Result<Child, Error> {
        self.spawn_with(&self.chosen_streams())
    }

    /// Starts the command with streams that a verb has chosen.
    pub(crate) fn spawn_with(&self, streams: &[Option<Stdio>; 3]) -> Result<Child, Error> {
        let started = self.start_with(streams);
        started.inspect_err(trace::spawn_failed)
    }

    fn start_with(&self, streams: &[Option<Stdio>; 3]) -> Result<Child, Error> {
        let named = |error: Error| error.of_command(|| self.to_string());
        let streams = self.streams_with_targets(streams).map_err(named)?;
        let plan = Plan::resolve(self, &streams).map_err(named)?;
        let tee = Tee::open(&self.targets, self.settings.line_max).map_err(named)?;
        let spills = self.open_spills(&streams).map_err(named)?;
        if self.echo {
            echo(self);
        }
        if let Some(observer) = &self.observer {
            observer(self);
        }
        let started = SystemTime::now();
        let spawned = spawn::spawn(&plan, &self.hooks)?;
        Ok(Child {
            stdin: spawned.stdin,
            stdout: spawned.stdout,
            stderr: spawned.stderr,
            terminal: spawned.terminal.map(Box::new),
            handle: spawned.handle,
            machine: None,
            drain: Deadline::NEVER,
            tee,
            sieve: None,
            aside: spills.map(|spills| Box::new(Aside { spills: Some(spills), talk: None })),
            settings: Arc::clone(&self.settings),
            kill_on_drop: if self.kill_on_drop { KillOnDrop::In(std::process::id()) } else { KillOnDrop::No },
            started,
        })
    }

    fn open_spills(&self, streams: &[Option<Stdio>; 3]) -> Result<Option<Spills>, Error> {
        let [stdout, stderr] = have_ends(streams);
        let open = |has_end: bool, limit: &Option<Limit>| -> Result<_, Error> {
            match limit {
                Some(Limit { overflow: Overflow::Spill(path), .. }) if has_end => {
                    let file = sys::fd::open(path, File::options().write(true).create(true).truncate(true), 0);
                    let file = file.map_err(|error| Error::io("open", error).path(path))?;
                    Ok(Some((path.clone(), file.into())))
                }
                _ => Ok(None),
            }
        };
        let [stdout_limit, stderr_limit] = &self.settings.limits;
        let path = |limit: &Option<Limit>| match limit {
            Some(Limit { overflow: Overflow::Spill(path), .. }) => Some(path.clone()),
            _ => None,
        };
        if stdout && stderr && path(stdout_limit).is_some() && path(stdout_limit) == path(stderr_limit) {
            return Err(Error::invalid("both streams are to be spilled to the same file"));
        }
        let spills = [open(stdout, stdout_limit)?, open(stderr, stderr_limit)?];
        Ok(spills.iter().any(Option::is_some).then_some(spills))
    }
}

/// Shows a line before it is run, as `set -x` does.
pub(crate) fn echo(line: &dyn fmt::Display) {
    let mut text = String::from("+ ");
    // Writing to a string does not fail.
    let _ = write_visible(&mut text, &line.to_string());
    text.push('\n');
    crate::sys::terminal::remark(&text);
}

impl Child {
    /// The process, without the pipes: cheap to clone, usable from any thread.
    pub fn handle(&self) -> &ProcessHandle {
        &self.handle
    }

    /// Its terminal, if it has one of its own: see [`Command::pty`].
    pub fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_deref()
    }

    /// The process's number.
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.handle.id()
    }

    /// Closes our end of standard input, if there is one, and waits for the end.
    ///
    /// A child that writes more than a pipe holds waits for somebody to read: if standard output or error is piped, or has a
    /// [target](Command::tee), use [`communicate`](Self::communicate), or read them first.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.stdin = None;
        let ended = self.handle.wait_ended_alone(Deadline::NEVER)?;
        Ok(ended.map_or(ExitStatus::UNKNOWN, |ended| ended.status))
    }

    /// Closes our end of standard input, if there is one, and waits at most this long. `None` if the child still runs then;
    /// it is not stopped.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        self.wait_deadline(Deadline::after(timeout))
    }

    /// Closes our end of standard input, if there is one, and waits at most until this moment. `None` if the child still runs
    /// then; it is not stopped.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn wait_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<Option<ExitStatus>, Error> {
        self.stdin = None;
        self.handle.wait_deadline(deadline)
    }

    /// Looks whether it has ended, without waiting.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.handle.try_wait()
    }

    /// Python's name for [`try_wait`](Self::try_wait), with Python's number: the exit code, or minus the signal's number.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn poll(&self) -> Result<Option<i32>, Error> {
        self.handle.poll()
    }

    /// How it ended, if it was waited for: the exit code, or minus the signal's number.
    pub fn returncode(&self) -> Option<i32> {
        self.handle.returncode()
    }

    /// How it ended, if it was waited for.
    pub fn status(&self) -> Option<ExitStatus> {
        self.handle.status()
    }

    /// What it used, if it was waited for and nobody else reaped it.
    #[doc(alias = "rusage")]
    pub fn usage(&self) -> Option<Usage> {
        self.handle.usage()
    }

    /// Sends a signal. `Ok(false)` if the process had ended already: then nothing is sent, to nobody.
    ///
    /// # Errors
    /// If the system does not allow it, because the process changed its user.
    pub fn send_signal(&self, signal: Signal) -> Result<bool, Error> {
        self.handle.send_signal(signal)
    }

    /// Sends a signal to the process group that the child leads. `Ok(false)` if the child had been reaped already.
    ///
    /// # Errors
    /// If it leads no group, or the system does not allow it.
    #[doc(alias = "killpg")]
    pub fn send_signal_group(&self, signal: Signal) -> Result<bool, Error> {
        self.handle.send_signal_group(signal)
    }

    /// Asks it to end: SIGTERM.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn terminate(&self) -> Result<bool, Error> {
        self.handle.terminate()
    }

    /// Ends it: SIGKILL. The process alone; [`stop`](Self::stop) reaches its descendants as well.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn kill(&self) -> Result<bool, Error> {
        self.handle.kill()
    }

    /// Stops the process, and what belongs to it, by a plan; returns when all of it has ended or the plan has done everything
    /// it could. A step that closes standard input closes [`stdin`](Self::stdin).
    ///
    /// Output that is piped is not read meanwhile; a conversation that times out stops the child and goes on reading.
    ///
    /// # Errors
    /// If the system does not allow the signals, or refuses to wait.
    pub fn stop(&mut self, stop: &Stop) -> Result<StopReport, Error> {
        let pipes = self.pipes();
        let stdin = &mut self.stdin;
        self.handle.stop_closing(stop, pipes, Some(&mut || *stdin = None))
    }

    /// What the process is doing, what its pipes look like, and why it does not come to its end, as far as it can be seen at this
    /// moment: for people, and for the log of a program that waits for too long.
    ///
    /// Takes one look at the process table and never fails: what cannot be seen is left out. It neither waits for the process nor
    /// changes anything.
    ///
    /// ```
    /// use procession::{Command, Stdio};
    ///
    /// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    /// if child.handle().wait_timeout(std::time::Duration::from_millis(100))?.is_none() {
    ///     // 4711 (cat): running, started 100 ms ago
    ///     //   it waits for its input, which we hold open
    ///     //   ..
    ///     eprintln!("{}", child.explain());
    /// }
    /// child.wait()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[doc(alias = "hang")]
    #[doc(alias = "diagnose")]
    pub fn explain(&self) -> Explanation {
        handle::explain(&self.subject(self.machine.as_deref()))
    }

    /// What we know of it, in the midst of a conversation as well.
    pub(crate) fn subject<'a>(&'a self, machine: Option<&Machine>) -> Subject<'a> {
        // What is said of our ends holds for pipes; a terminal is seen as the process has it.
        let ends = [
            self.stdin.as_ref().filter(|end| !end.is_terminal()).map(|end| end.as_fd()),
            self.stdout.as_ref().filter(|end| !end.is_terminal()).map(|end| end.as_fd()),
            self.stderr.as_ref().filter(|end| !end.is_terminal()).map(|end| end.as_fd()),
        ];
        let mut streams = ends.map(|fd| OurEnd { fd, ..OurEnd::default() });
        if let Some(machine) = machine {
            let [stdin, outputs @ ..] = &mut streams;
            stdin.passed = Some(machine.input().0).filter(|count| *count > 0 || stdin.fd.is_some());
            for (end, stream) in outputs.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
                let (count, tail) = machine.said(stream, TAIL_ASKED);
                end.passed = Some(count).filter(|count| *count > 0 || end.fd.is_some());
                end.tail = tail;
            }
        }
        Subject { handle: &self.handle, streams, heard: machine.and_then(Machine::heard) }
    }

    /// What its output comes by: whoever can write to it belongs to its tree.
    pub(crate) fn pipes(&self) -> Vec<Channel> {
        let ends = [&self.stdout, &self.stderr].into_iter().flatten();
        ends.filter_map(PipeReader::channel).collect()
    }
}

/// The descriptor of the process, which becomes readable when it has ended.
///
/// # Panics
/// If there is none and none can be made; [`ProcessHandle::try_as_fd`] is an error then.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.handle.try_as_fd() {
            Ok(fd) => fd,
            Err(error) => panic!("{error}"),
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Child")
            .field("handle", &self.handle)
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}

/// See the type. Never panics; blocks only with `kill_on_drop`, for at most the times of the stop plan.
impl Drop for Child {
    fn drop(&mut self) {
        // Whoever has been waited for needs no further look.
        if self.handle.status().is_some() {
            return;
        }
        let stops = match self.kill_on_drop {
            KillOnDrop::No => false,
            KillOnDrop::In(owner) => owner == std::process::id(),
            KillOnDrop::Always => true,
        };
        if !stops {
            return;
        }
        let pipes = self.pipes();
        // Open pipes would keep a child alive that waits for us to read or to say the end.
        (self.stdout, self.stderr) = (None, None);
        // Nobody is left to be told; what survives is reaped later.
        let stdin = &mut self.stdin;
        let _ = self.handle.stop_closing(&self.settings.stop, pipes, Some(&mut || *stdin = None));
    }
}
