//! One process: wait for it, signal it, stop it. Decides who reaps and when, what becomes of a status that somebody else took,
//! and that a signal never reaches a process that is not ours.
//!
//! A child is reaped by `waitid` on its descriptor, under the same lock as every signal that goes by number, so a number is
//! never used after the kernel could have given it to another process. Nothing here waits for any child but its own.

mod explain;
mod notice;
mod orphans;
mod sight;
mod stopper;
mod tree;

pub(crate) use explain::{OurEnd, Subject, TAIL_ASKED, explain, explain_all};
pub(crate) use notice::Notice;
pub(crate) use orphans::reap_orphans;
pub(crate) use sight::Sight;
pub use stopper::StopReport;
#[cfg(feature = "future")]
pub(crate) use stopper::Stops;
pub(crate) use stopper::{Progress, Stopper, Target, signal_all, stop_all};

use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::{ProcessEntry, Usage};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::Stop;
use crate::sys::procfs::Channel;
use crate::sys::wait::{self, Patience, Rusage, Who};
use crate::sys::{self, poll};
use crate::trace::ChildSpan;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(all(feature = "ipc", target_os = "linux"))]
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A process that this program started, by a name that never means another process.
///
/// Cheap to clone and usable from any thread: several may wait, poll and signal at the same time, and all see the same end.
/// It holds no pipe. When the last handle is dropped a process that still runs goes on; it is reaped quietly when it has
/// ended, at the latest by the next command that is started.
///
/// ```
/// use procession::{Command, Signal};
///
/// let child = Command::new("sleep").arg("60").spawn()?;
/// let handle = child.handle().clone();
/// let waiter = std::thread::spawn(move || handle.wait());
/// child.send_signal(Signal::TERM)?;
/// assert_eq!(waiter.join().unwrap()?.signal(), Some(Signal::TERM));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
pub struct ProcessHandle {
    inner: Arc<Inner>,
}

/// A handle that keeps nothing of the process.
#[cfg(all(feature = "ipc", target_os = "linux"))]
#[derive(Clone)]
pub(crate) struct WeakHandle(Weak<Inner>);

#[cfg(all(feature = "ipc", target_os = "linux"))]
impl WeakHandle {
    /// Whether anybody has the process.
    pub(crate) fn exists(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn upgrade(&self) -> Option<ProcessHandle> {
        self.0.upgrade().map(|inner| ProcessHandle { inner })
    }
}

/// What is known of a new process when its handle is made.
pub(crate) struct Birth {
    pub(crate) pid: i32,
    pub(crate) notice: Notice,
    pub(crate) line: Box<str>,
    /// When it was to be made.
    pub(crate) born: Instant,
    pub(crate) leads_group: bool,
    pub(crate) leads_session: bool,
    pub(crate) mark: Option<Box<[u8]>>,
    /// What is shown of nobody in its tree.
    pub(crate) secrets: Box<[OsString]>,
    pub(crate) foreground: Option<Box<Foreground>>,
}

/// A terminal whose foreground the child was given, and the group that had it before.
#[derive(Debug)]
pub(crate) struct Foreground {
    pub(crate) terminal: File,
    pub(crate) before: i32,
}

impl Foreground {
    /// Takes the terminal back if it is still with a group that `ended` knows: to the group that had it before, or if that has
    /// gone, to ours. If the terminal is gone there is nothing to give back.
    fn take_back(&self, ended: impl Fn(i32) -> bool) {
        let terminal = self.terminal.as_fd();
        let theirs = sys::terminal::foreground(terminal).is_ok_and(ended);
        if theirs && sys::terminal::set_foreground(terminal, self.before).is_err() {
            let _ = sys::terminal::set_foreground(terminal, sys::terminal::own_group());
        }
    }

    /// Takes the terminal back from a child that did not become the program and has been reaped: a group without members.
    pub(crate) fn take_back_from_nobody(&self) {
        self.take_back(|group| kill(-group, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)));
    }
}

struct Inner {
    birth: Birth,
    serial: u64,
    span: ChildSpan,
    /// Set once, when the process was reaped. The lock is held while a number is used.
    ended: Mutex<Option<Box<Ended>>>,
}

/// How a process ended and what it used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) usage: Option<Usage>,
}

impl ProcessHandle {
    pub(crate) fn new(birth: Birth) -> ProcessHandle {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let serial = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let span = ChildSpan::new(serial, birth.pid, &birth.line);
        let ended = Mutex::new(None);
        ProcessHandle { inner: Arc::new(Inner { birth, serial, span, ended }) }
    }

    #[cfg(all(feature = "ipc", target_os = "linux"))]
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.inner))
    }

    /// The process's number. It stays the same after the end, when the system may have given it to another process.
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.inner.birth.pid as u32
    }

    /// A number of this process among all that this program has started: it begins at 1, grows with each, and unlike
    /// [`id`](Self::id) is never used again. For logs and maps.
    pub fn serial(&self) -> u64 {
        self.inner.serial
    }

    /// When it was to be made.
    pub(crate) fn born(&self) -> Instant {
        self.inner.birth.born
    }

    /// Where what happens to it is told.
    pub(crate) fn span(&self) -> &ChildSpan {
        &self.inner.span
    }

    /// The descriptor of the process, which becomes readable when it has ended: for a poll or select loop of your own. A
    /// pidfd where the kernel has them.
    ///
    /// # Errors
    /// If there is none and none can be made, because no descriptors or threads are left.
    #[doc(alias = "pidfd")]
    #[doc(alias = "sentinel")]
    pub fn try_as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.notice().ok_or_else(|| self.error("pidfd", io::Error::from_raw_os_error(libc::EMFILE)))
    }

    /// Waits for the end.
    ///
    /// A child that waits for the end of its input, or whose full pipes nobody reads, does not end: see
    /// [`Child::wait`](crate::Child::wait) and [`Child::communicate`](crate::Child::communicate).
    ///
    /// # Errors
    /// If the system refuses to wait. That somebody else took the status is no error: see [`ExitStatus::UNKNOWN`].
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        Ok(self.wait_ended(Deadline::NEVER)?.map_or(ExitStatus::UNKNOWN, |ended| ended.status))
    }

    /// Waits for the end, at most this long. `None` if it still runs then; it is not stopped.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        self.wait_deadline(Deadline::after(timeout))
    }

    /// Waits for the end, at most until this moment. `None` if it still runs then; it is not stopped.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<Option<ExitStatus>, Error> {
        Ok(self.wait_ended(deadline.into())?.map(|ended| ended.status))
    }

    /// Looks whether it has ended, without waiting.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        Ok(self.reap(Patience::Look)?.map(|ended| ended.status))
    }

    /// Python's name for [`try_wait`](Self::try_wait), with Python's number: the exit code, or minus the signal's number.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn poll(&self) -> Result<Option<i32>, Error> {
        Ok(self.try_wait()?.map(ExitStatus::returncode))
    }

    /// How it ended, if it was waited for: the exit code, or minus the signal's number. Makes no system call.
    pub fn returncode(&self) -> Option<i32> {
        self.status().map(ExitStatus::returncode)
    }

    /// How it ended, if it was waited for. Makes no system call.
    pub fn status(&self) -> Option<ExitStatus> {
        self.ended().map(|ended| ended.status)
    }

    /// What it used, if it was waited for and nobody else reaped it.
    #[doc(alias = "rusage")]
    pub fn usage(&self) -> Option<Usage> {
        self.ended().and_then(|ended| ended.usage)
    }

    /// Sends a signal. `Ok(false)` if the process had ended already: then nothing is sent, to nobody.
    ///
    /// # Errors
    /// If the system does not allow it, because the process changed its user.
    pub fn send_signal(&self, signal: Signal) -> Result<bool, Error> {
        let ended = self.lock();
        // The kernel takes signals for the dead as long as they are unreaped.
        if ended.is_some() || matches!(self.exit_state(), Ok(true)) {
            return Ok(false);
        }
        let sent = match self.inner.birth.notice.pidfd() {
            Some(pidfd) => sys::pidfd::send_signal(pidfd, signal.number()),
            None => self.kill_unreaped(self.inner.birth.pid, signal),
        };
        drop(ended);
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(self.error("kill", error).detail(format!("cannot send {signal}"))),
        }
    }

    /// Asks it to end: SIGTERM.
    ///
    /// # Errors
    /// As [`send_signal`](Self::send_signal).
    pub fn terminate(&self) -> Result<bool, Error> {
        self.send_signal(Signal::TERM)
    }

    /// Ends it: SIGKILL. The process alone; [`stop`](Self::stop) reaches its descendants as well.
    ///
    /// # Errors
    /// As [`send_signal`](Self::send_signal).
    pub fn kill(&self) -> Result<bool, Error> {
        self.send_signal(Signal::KILL)
    }

    /// Sends a signal to the process group that the process leads. `Ok(false)` if it had been reaped already.
    ///
    /// # Errors
    /// If it leads no group (see [`Command::process_group`](crate::Command::process_group)), or the system does not allow it.
    #[doc(alias = "killpg")]
    pub fn send_signal_group(&self, signal: Signal) -> Result<bool, Error> {
        if !self.inner.birth.leads_group {
            let text = "the process leads no group: use `process_group(0)` or `setsid()`";
            return Err(Error::invalid(text).of_command(|| self.line()));
        }
        let ended = self.lock();
        if ended.is_some() {
            return Ok(false);
        }
        let sent = self.kill_unreaped(-self.inner.birth.pid, signal);
        drop(ended);
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(self.error("killpg", error).detail(format!("cannot send {signal}"))),
        }
    }

    /// Stops the process, and what belongs to it, by a plan; returns when all of it has ended or the plan has done everything
    /// it could.
    ///
    /// # Errors
    /// If the system does not allow the signals, or refuses to wait.
    pub fn stop(&self, stop: &Stop) -> Result<StopReport, Error> {
        self.stop_closing(stop, Vec::new(), None)
    }

    /// As [`stop`](Self::stop), for those who hold its pipes.
    pub(crate) fn stop_closing<'a>(
        &'a self,
        stop: &'a Stop,
        pipes: Vec<Channel>,
        close_stdin: Option<&'a mut dyn FnMut()>,
    ) -> Result<StopReport, Error> {
        let reports = stop_all(&mut [Target { handle: self, plan: stop, pipes, close_stdin }]);
        let reports = reports.map_err(|error| error.of_command(|| self.line()))?;
        // One report for one target.
        reports.into_iter().next().ok_or_else(|| Error::invalid("nothing to stop"))
    }

    /// A process of its tree as people want to see it.
    pub(crate) fn entry(&self, pid: i32) -> ProcessEntry {
        ProcessEntry { pid: pid as u32, command: sys::procfs::command_line(pid, &self.inner.birth.secrets) }
    }

    pub(crate) fn line(&self) -> String {
        self.inner.birth.line.to_string()
    }

    fn error(&self, step: &'static str, error: io::Error) -> Error {
        Error::io(step, error).of_command(|| self.line())
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.lock().as_deref().copied()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Ended>>> {
        // The value is replaced whole, so a panic elsewhere cannot leave it half made.
        self.inner.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor that becomes readable at the end, if there is one or one can be made.
    pub(crate) fn notice(&self) -> Option<BorrowedFd<'_>> {
        let ended = self.lock();
        self.inner.birth.notice.fd(self.inner.birth.pid, ended.is_none())
    }

    /// Whether the process's number still means it: nobody has reaped it.
    pub(crate) fn owns_number(&self) -> bool {
        let ended = self.lock();
        ended.is_none() && self.exit_state().is_ok()
    }

    /// Whether it has ended. An error if it is not ours to wait for: reaped by somebody else, or this is a forked copy of the
    /// program.
    fn exit_state(&self) -> io::Result<bool> {
        wait::has_ended(self.who(), Patience::Look)
    }

    /// A signal by number, with the lock held. If nobody has reaped the process the number is still its own.
    fn kill_unreaped(&self, number: i32, signal: Signal) -> io::Result<()> {
        if self.exit_state().is_err() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        kill(number, signal.number())
    }

    /// As [`wait_ended`](Self::wait_ended), in one call if this is the only handle.
    pub(crate) fn wait_ended_alone(&mut self, deadline: Deadline) -> Result<Option<Ended>, Error> {
        // Nobody else can have a reference, so nobody can want the lock while we wait inside it.
        if deadline == Deadline::NEVER && Arc::get_mut(&mut self.inner).is_some() {
            return self.reap(Patience::Wait);
        }
        self.wait_ended(deadline)
    }

    /// Waits for the end and reaps. `None` if the deadline came first.
    pub(crate) fn wait_ended(&self, deadline: Deadline) -> Result<Option<Ended>, Error> {
        if let Some(ended) = self.ended() {
            return Ok(Some(ended));
        }
        if !self.wait_exit(deadline)? {
            return Ok(None);
        }
        self.reap_seen(deadline)
    }

    /// Reaps a process whose end was announced. The announcement can be early: a traced process, or a leader whose other
    /// threads are still ending, is not reapable for a moment.
    fn reap_seen(&self, deadline: Deadline) -> Result<Option<Ended>, Error> {
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(ended) = self.reap(Patience::Look)? {
                return Ok(Some(ended));
            }
            if deadline.has_passed() {
                return Ok(None);
            }
            std::thread::sleep(pause.min(deadline.remaining().unwrap_or(pause)));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Waits until it has ended and leaves it unreaped. False if the deadline came first.
    pub(crate) fn wait_exit(&self, deadline: Deadline) -> Result<bool, Error> {
        if self.ended().is_some() {
            return Ok(true);
        }
        if let Some(fd) = self.notice() {
            let seen = poll::wait_readable(fd, deadline.moment()).map_err(|error| self.error("poll", error))?;
            // A thread may not have come to announce what has happened already.
            return Ok(seen || (self.inner.birth.notice.pidfd().is_none() && self.has_exited()));
        }
        if let Some(ended) = self.inner.birth.notice.wait_without_descriptor(deadline) {
            let ended = ended.map_err(|error| self.error("wait", error))?;
            let known = ended.map(|status| Ended { status, usage: None });
            return Ok(known.map(|ended| self.close(self.lock(), ended)).is_some());
        }
        self.wait_by_looking(deadline)
    }

    /// The last resort, with the table of descriptors full: look now and then.
    fn wait_by_looking(&self, deadline: Deadline) -> Result<bool, Error> {
        let mut pause = Duration::from_micros(200);
        loop {
            if self.has_exited() {
                return Ok(true);
            }
            if deadline.has_passed() {
                return Ok(false);
            }
            std::thread::sleep(pause.min(deadline.remaining().unwrap_or(pause)));
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Whether it has ended; it is not reaped.
    pub(crate) fn has_exited(&self) -> bool {
        let ended = self.lock();
        if ended.is_some() {
            return true;
        }
        match self.exit_state() {
            Ok(exited) => exited,
            // Not ours to wait for: somebody else reaped it, or this is a forked copy of the program.
            Err(_) => self.inner.birth.notice.pidfd().is_none_or(|fd| readable_now(fd)),
        }
    }

    fn who(&self) -> Who<'_> {
        self.inner.birth.notice.pidfd().map_or(Who::Pid(self.inner.birth.pid), Who::Descriptor)
    }

    /// Reaps it under the lock. `None` if it has not ended.
    pub(crate) fn reap(&self, patience: Patience) -> Result<Option<Ended>, Error> {
        let guard = self.lock();
        if let Some(ended) = guard.as_deref().copied() {
            return Ok(Some(ended));
        }
        let ended = match wait::reap(self.who(), patience) {
            Ok(None) => return Ok(None),
            Ok(Some((raw, usage))) => Ended { status: ExitStatus::from_raw(raw), usage: Some(usage.into()) },
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => match self.status_taken(patience) {
                Some(status) => Ended { status, usage: None },
                None => return Ok(None),
            },
            Err(error) => return Err(self.error("waitid", error)),
        };
        Ok(Some(self.close(guard, ended)))
    }

    /// The status after somebody else reaped it: from the descriptor where the kernel keeps it (Linux 6.15), else unknown.
    /// `None` if it still runs, which a forked copy of the program can see.
    fn status_taken(&self, patience: Patience) -> Option<ExitStatus> {
        let Some(pidfd) = self.inner.birth.notice.pidfd() else { return Some(ExitStatus::UNKNOWN) };
        let until = (patience == Patience::Look).then(Instant::now);
        // A wait that fails cannot be made good; then the answer is "unknown" and not a hang.
        if let Ok(false) = poll::wait_readable(pidfd, until) {
            return None;
        }
        Some(sys::pidfd::exit_status(pidfd).map_or(ExitStatus::UNKNOWN, ExitStatus::from_raw))
    }

    /// Keeps the end and gives the terminal back.
    fn close(&self, mut guard: MutexGuard<'_, Option<Box<Ended>>>, ended: Ended) -> Ended {
        if let Some(foreground) = &self.inner.birth.foreground {
            foreground.take_back(|group| group == self.inner.birth.pid);
        }
        let first = guard.is_none();
        let ended = **guard.get_or_insert_with(|| Box::new(ended));
        // Whoever is told may ask the handle.
        drop(guard);
        if first {
            self.inner.span.exited(ended.status, ended.usage);
        }
        ended
    }
}

fn readable_now(fd: BorrowedFd<'_>) -> bool {
    poll::wait_readable(fd, Some(Instant::now())).unwrap_or(true)
}

/// kill(2), with the numbers that would reach more than one process kept out.
fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if matches!(pid, -1..=1) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    sys::wait::kill_number(pid, signal)
}

impl From<Rusage> for Usage {
    fn from(usage: Rusage) -> Usage {
        Usage { user: usage.user, system: usage.system, resident_max: usage.resident_max }
    }
}

impl fmt::Debug for ProcessHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status().map_or_else(|| "running".to_owned(), |status| status.to_string());
        write!(out, "ProcessHandle({}: {}, {status})", self.id(), self.inner.birth.line)
    }
}

/// The last handle is gone: reap now if it has ended, or remember it.
impl Drop for Inner {
    fn drop(&mut self) {
        if self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).is_none() {
            let notice = std::mem::take(&mut self.birth.notice);
            if orphans::adopt(self.birth.pid, notice) {
                self.span.dropped();
            }
        }
    }
}
