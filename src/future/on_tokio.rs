//! Descriptors and moments that are waited for on tokio.

use super::reactor::Interest;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::Sleep;

pub(crate) struct Source {
    fd: AsyncFd<Number>,
    interest: Interest,
}

/// What is waited for by its number. `AsyncFd` takes it out of the list before it drops it, and the source goes before the descriptor.
enum Number {
    Theirs(RawFd),
    /// A duplicate: a number can be in the list once only.
    Ours(OwnedFd),
}

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Number::Theirs(number) => *number,
            Number::Ours(fd) => fd.as_raw_fd(),
        }
    }
}

impl Source {
    /// `None` for a file.
    pub(super) fn new(handle: &Handle, fd: BorrowedFd<'_>, interest: Interest) -> Result<Option<Source>, Error> {
        let wanted = match interest {
            Interest::Read => tokio::io::Interest::READABLE,
            Interest::Write => tokio::io::Interest::WRITABLE,
        };
        let _context = handle.enter();
        #[allow(deprecated)]
        // what replaces it is unsafe for types that may close their descriptor, which a `Number` does not before its end
        let add = |number| AsyncFd::with_interest(number, wanted);
        let added = match add(Number::Theirs(fd.as_raw_fd())) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                let duplicate = sys::fd::duplicate_to_keep(fd).map_err(|error| Error::io("dup", error))?;
                add(Number::Ours(duplicate))
            }
            added => added,
        };
        match added {
            Ok(fd) => Ok(Some(Source { fd, interest })),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
            Err(error) => Err(Error::io("epoll", error)),
        }
    }

    pub(super) fn take_ready(&self, context: &mut Context<'_>) -> io::Result<bool> {
        let polled = match self.interest {
            Interest::Read => self.fd.poll_read_ready(context),
            Interest::Write => self.fd.poll_write_ready(context),
        };
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(guard) => {
                guard?.clear_ready();
                Ok(true)
            }
        }
    }
}

pub(super) struct Alarm {
    handle: Handle,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub(super) fn new(handle: Handle) -> Alarm {
        Alarm { handle, sleep: None }
    }

    pub(super) fn has_passed(&mut self, context: &mut Context<'_>, deadline: Deadline) -> bool {
        let Some(moment) = deadline.moment() else {
            self.sleep = None;
            return false;
        };
        loop {
            if deadline.has_passed() {
                return true;
            }
            let moment = moment.into();
            let sleep = self.sleep.get_or_insert_with(|| {
                let _context = self.handle.enter();
                Box::pin(tokio::time::sleep_until(moment))
            });
            if sleep.deadline() != moment || sleep.is_elapsed() {
                sleep.as_mut().reset(moment);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return false;
            }
        }
    }
}
