//! epoll(7): readiness of many descriptors, each known by a token, with a moment at which to stop waiting. Level-triggered. Whoever
//! closes a descriptor removes it first, unless it was to be told once and has been: a copy that lives on in a child between clone and
//! exec would go on being reported.
#![allow(unsafe_code)]

use super::errno::check;
use super::fd;
use nix::errno::Errno;
use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollFlags, EpollOp};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    /// To read, told once: afterwards the descriptor need not be removed to be quiet.
    ReadOnce,
}

/// What is told of a descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) token: u64,
    /// Nobody is left at the other end: what is there can be read to its end without waiting.
    pub(crate) hung_up: bool,
}

/// How many answers one wait can bring.
pub(super) const ANSWERS_MAX: usize = 256;

pub(crate) struct Epoll {
    fd: OwnedFd,
    answers: Vec<EpollEvent>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        Ok(Epoll { fd: create()?, answers: vec![EpollEvent::empty(); ANSWERS_MAX] })
    }

    /// Readable when something that was added is ready: one epoll can wait for another.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = EpollEvent::new(flags(interest), token);
        match self.control(EpollOp::EpollCtlAdd, fd, &mut event) {
            // Told once before, and not removed.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.control(EpollOp::EpollCtlMod, fd, &mut event)
            }
            result => result,
        }
    }

    /// Adds again what was told once.
    pub(crate) fn add_again(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(EpollOp::EpollCtlMod, fd, &mut EpollEvent::new(flags(interest), token))
    }

    /// Whoever is not there any more need not be removed.
    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>) {
        let _ = self.control(EpollOp::EpollCtlDel, fd, &mut EpollEvent::empty());
    }

    fn control(&self, operation: EpollOp, fd: BorrowedFd<'_>, event: &mut EpollEvent) -> io::Result<()> {
        control(self.fd.as_fd(), operation, fd.as_raw_fd(), event)
    }

    /// Waits until something is ready or the moment has come (`None`: for ever), and appends what is ready. Never early.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Answer>, until: Option<Instant>) -> io::Result<()> {
        let count = wait(self.fd.as_fd(), &mut self.answers, until)?;
        ready.extend(self.answers.iter().take(count).map(Answer::from));
        Ok(())
    }
}

/// epoll_create1(2).
pub(super) fn create() -> io::Result<OwnedFd> {
    // SAFETY: an integer argument.
    let number = check(unsafe { libc::epoll_create1(EpollCreateFlags::EPOLL_CLOEXEC.bits()) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    fd::above_stdio(unsafe { OwnedFd::from_raw_fd(number) })
}

/// epoll_ctl(2).
pub(super) fn control(epoll: BorrowedFd<'_>, operation: EpollOp, fd: RawFd, event: &mut EpollEvent) -> io::Result<()> {
    let event: *mut libc::epoll_event = std::ptr::from_mut(event).cast();
    // SAFETY: an `EpollEvent` is a transparent `epoll_event`, which is read during the call; a number that is not open is an error.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation as i32, fd, event) }).map(drop)
}

/// Waits until something is ready or the moment has come (`None`: for ever). How many answers there are. Never early.
pub(super) fn wait(fd: BorrowedFd<'_>, answers: &mut [EpollEvent], until: Option<Instant>) -> io::Result<usize> {
    loop {
        let remaining = until.map(|moment| moment.saturating_duration_since(Instant::now()));
        match call(fd, answers, remaining) {
            Ok(0) if until.is_none_or(|moment| Instant::now() < moment) => {}
            Ok(count) => return Ok(count),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// epoll_pwait2(2), nanoseconds (Linux 5.11); epoll_wait(2), milliseconds rounded up, before that.
fn call(fd: BorrowedFd<'_>, answers: &mut [EpollEvent], remaining: Option<Duration>) -> nix::Result<usize> {
    static HAS_PWAIT2: AtomicBool = AtomicBool::new(true);
    let (fd, count, answers) = (fd.as_raw_fd(), answers.len() as libc::c_int, answers.as_mut_ptr());
    let answers: *mut libc::epoll_event = answers.cast();
    let remaining = remaining.map(|time| time.min(LONGEST));
    if HAS_PWAIT2.load(Ordering::Relaxed) && remaining.is_some_and(|time| !time.is_zero()) {
        let time = remaining.unwrap_or_default();
        let time = libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ };
        let (time, mask) = (std::ptr::from_ref(&time), std::ptr::null::<libc::sigset_t>());
        // SAFETY: `answers` has room for `count` events; the time is read during the call; a null mask changes nothing.
        let result = unsafe { libc::syscall(libc::SYS_epoll_pwait2, fd, answers, count, time, mask, 0) };
        match Errno::result(result) {
            Err(Errno::ENOSYS | Errno::EPERM) => HAS_PWAIT2.store(false, Ordering::Relaxed),
            result => return result.map(|count| count as usize),
        }
    }
    let millis = remaining.map_or(-1, |time| time.as_nanos().div_ceil(1_000_000) as libc::c_int);
    // SAFETY: `answers` has room for `count` events.
    Errno::result(unsafe { libc::epoll_wait(fd, answers, count, millis) }).map(|count| count as usize)
}

impl From<&EpollEvent> for Answer {
    fn from(event: &EpollEvent) -> Answer {
        Answer { token: event.data(), hung_up: event.events().contains(EpollFlags::EPOLLHUP) }
    }
}

fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::Write => EpollFlags::EPOLLOUT,
        Interest::ReadOnce => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
    }
}

/// The longest wait that fits the milliseconds of the older call; the loop above waits again.
const LONGEST: Duration = Duration::from_secs(20 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn tokens_come_back_and_moments_are_not_early() {
        let mut epoll = Epoll::new().unwrap();
        let (reader, mut writer) = os_pipe::pipe().unwrap();
        epoll.add(reader.as_fd(), 7, Interest::Read).unwrap();
        let mut ready = Vec::new();
        for micros in [1, 900, 1100] {
            let until = Instant::now() + Duration::from_micros(micros);
            epoll.wait(&mut ready, Some(until)).unwrap();
            assert!(ready.is_empty() && Instant::now() >= until);
        }
        writer.write_all(b"x").unwrap();
        epoll.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [Answer { token: 7, hung_up: false }]);
        epoll.remove(reader.as_fd());
        ready.clear();
        epoll.wait(&mut ready, Some(Instant::now())).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn told_once_is_told_once_until_it_is_added_again() {
        let mut epoll = Epoll::new().unwrap();
        let (reader, writer) = os_pipe::pipe().unwrap();
        drop(writer);
        let mut ready = Vec::new();
        for _ in 0..2 {
            epoll.add(reader.as_fd(), 1, Interest::ReadOnce).unwrap();
            for _ in 0..2 {
                epoll.wait(&mut ready, Some(Instant::now())).unwrap();
            }
            assert_eq!(std::mem::take(&mut ready), [Answer { token: 1, hung_up: true }]);
        }
    }
}
