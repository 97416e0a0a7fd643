//! The same as epoll on systems without it, by poll(2): the cost of a wait grows with the number of descriptors.

use super::poll;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    /// To read, told once.
    ReadOnce,
}

/// What is told of a descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) token: u64,
    /// Nobody is left at the other end, as far as that is known.
    pub(crate) hung_up: bool,
}

pub(crate) struct Epoll {
    entries: Vec<(RawFd, u64, Interest)>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        Ok(Epoll { entries: Vec::new() })
    }

    /// There is none.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.remove(fd);
        self.entries.push((fd.as_raw_fd(), token, interest));
        Ok(())
    }

    /// Adds again what was told once.
    pub(crate) fn add_again(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.add(fd, token, interest)
    }

    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.entries.retain(|(number, _, _)| *number != fd.as_raw_fd());
    }

    /// Waits until something is ready or the moment has come (`None`: for ever), and appends what is ready. Never early.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Answer>, until: Option<Instant>) -> io::Result<()> {
        let asked = self.entries.iter().map(|(fd, _, interest)| (*fd, *interest == Interest::Write));
        let answers = poll::wait_numbers(asked, until)?;
        let mut answers = answers.into_iter();
        self.entries.retain(|(_, token, interest)| {
            let is_ready = answers.next().unwrap_or(false);
            if is_ready {
                ready.push(Answer { token: *token, hung_up: false });
            }
            !(is_ready && *interest == Interest::ReadOnce)
        });
        Ok(())
    }
}
