//! The descriptor that becomes readable when a process has ended, so that everything above sees one kind of thing: a pidfd
//! where the kernel has them, else a pipe that a thread writes to at the end. Made when it is first needed.

use crate::deadline::Deadline;
use crate::status::ExitStatus;
use crate::sys::wait::{self, Patience, Who};
use crate::sys::{pidfd, pipe};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use wait_timeout::ChildExt;

/// How the end of one process is announced.
#[derive(Default)]
pub(crate) struct Notice {
    descriptor: OnceLock<Descriptor>,
    /// Whether to ask the kernel for a pidfd at all.
    portable: bool,
    /// The portable engine's child, for timed waits where no thread can be had.
    child: Option<Box<Mutex<process::Child>>>,
    /// That is so: there was room for a pipe, and no thread.
    lacks_thread: AtomicBool,
}

enum Descriptor {
    Pidfd(OwnedFd),
    Pipe(OwnedFd),
}

impl Notice {
    /// For a child that the kernel made with a descriptor, or without one because the table was full.
    pub(crate) fn new(pidfd: Option<OwnedFd>) -> Notice {
        let notice = Notice::default();
        if let Some(pidfd) = pidfd {
            // A new cell is empty.
            let _ = notice.descriptor.set(Descriptor::Pidfd(pidfd));
        }
        notice
    }

    /// For a child of std's. `portable` means that no pidfd is to be used although there might be one.
    pub(crate) fn of_std(child: process::Child, portable: bool) -> Notice {
        // Now the number is surely his; later somebody else may have reaped him.
        let pidfd = if portable { None } else { pidfd::open(child.id() as i32).ok() };
        Notice { portable, child: Some(Box::new(Mutex::new(child))), ..Notice::new(pidfd) }
    }

    /// The pidfd, if there is one already.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self.descriptor.get() {
            Some(Descriptor::Pidfd(fd)) => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// The descriptor. If there is none yet, one is made, which needs the process to be ours and unreaped.
    pub(crate) fn fd(&self, pid: i32, unreaped: bool) -> Option<BorrowedFd<'_>> {
        if self.descriptor.get().is_none()
            && unreaped
            && let Some(made) = self.make(pid)
        {
            // Another thread may have been faster; then ours is closed.
            let _ = self.descriptor.set(made);
        }
        self.descriptor.get().map(|descriptor| match descriptor {
            Descriptor::Pidfd(fd) | Descriptor::Pipe(fd) => fd.as_fd(),
        })
    }

    fn make(&self, pid: i32) -> Option<Descriptor> {
        if !self.portable {
            match pidfd::open(pid) {
                Ok(fd) => return Some(Descriptor::Pidfd(fd)),
                // No room now; a pipe needs even more.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => return None,
                Err(_) => {}
            }
        }
        let (reader, writer) = pipe::pair().ok()?;
        let watching = watch(pid, writer).is_ok();
        self.lacks_thread.store(!watching, Ordering::Relaxed);
        watching.then_some(Descriptor::Pipe(reader))
    }

    /// Timed wait on std's child by the crate `wait-timeout`, for when no thread can announce the end. It reaps. `None` if this
    /// is no child of std's, or if there was no room for a pipe, which the crate needs too; the inner `None` means that the
    /// deadline came first.
    ///
    /// The crate rounds down to milliseconds and comes back early, so it is asked again until the deadline has passed.
    pub(crate) fn wait_without_descriptor(&self, deadline: Deadline) -> Option<io::Result<Option<ExitStatus>>> {
        const LONGEST: Duration = Duration::from_secs(86_400);
        if !self.lacks_thread.load(Ordering::Relaxed) {
            return None;
        }
        let mut child = self.child.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let remaining = deadline.remaining().unwrap_or(LONGEST).min(LONGEST);
            match child.wait_timeout(remaining.max(Duration::from_millis(1))) {
                Ok(Some(status)) => return Some(Ok(Some(status.into()))),
                Ok(None) if !deadline.has_passed() => {}
                Ok(None) => return Some(Ok(None)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A thread that waits for the process, without reaping it, and then writes to the pipe and closes it.
fn watch(pid: i32, writer: OwnedFd) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("procession-{pid}")).stack_size(64 * 1024);
    let started = thread.spawn(move || {
        // An error means that somebody else reaped it: that is an end as well.
        let _ = wait::has_ended(Who::Pid(pid), Patience::Wait);
        // A forked copy of the program may hold this end as well: closing it alone would tell nobody.
        let _ = pipe::write(writer.as_fd(), &[0]);
    });
    started.map(drop)
}

impl fmt::Debug for Notice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.descriptor.get() {
            Some(Descriptor::Pidfd(_)) => "Notice(pidfd)",
            Some(Descriptor::Pipe(_)) => "Notice(pipe)",
            None => "Notice(none yet)",
        })
    }
}
