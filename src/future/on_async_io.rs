//! Descriptors and moments that are waited for by the thread of `async-io`.

use super::reactor::Interest;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys;
use async_io::{Async, Timer};
use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

pub(crate) struct Source {
    /// A duplicate: `Async` wants to own what it waits for.
    fd: Async<OwnedFd>,
    interest: Interest,
}

impl Source {
    /// `None` for a file.
    pub(super) fn new(fd: BorrowedFd<'_>, interest: Interest) -> Result<Option<Source>, Error> {
        let duplicate = sys::fd::duplicate_to_keep(fd).map_err(|error| Error::io("dup", error))?;
        match Async::new_nonblocking(duplicate) {
            Ok(fd) => Ok(Some(Source { fd, interest })),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
            Err(error) => Err(Error::io("epoll", error)),
        }
    }

    pub(super) fn take_ready(&self, context: &mut Context<'_>) -> io::Result<bool> {
        let polled = match self.interest {
            Interest::Read => self.fd.poll_readable(context),
            Interest::Write => self.fd.poll_writable(context),
        };
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(result) => result.map(|()| true),
        }
    }
}

#[derive(Default)]
pub(super) struct Alarm(Option<(Timer, Instant)>);

impl Alarm {
    pub(super) fn has_passed(&mut self, context: &mut Context<'_>, deadline: Deadline) -> bool {
        let Some(moment) = deadline.moment() else {
            self.0 = None;
            return false;
        };
        let (timer, armed) = self.0.get_or_insert_with(|| (Timer::at(moment), moment));
        if *armed != moment {
            timer.set_at(moment);
            *armed = moment;
        }
        loop {
            if deadline.has_passed() {
                return true;
            }
            if Pin::new(&mut *timer).poll(context).is_pending() {
                return false;
            }
            timer.set_at(moment);
        }
    }
}
