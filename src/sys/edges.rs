//! epoll(7), edge-triggered: what has become ready is told once, and a bell that any thread can ring ends a wait. For loops whose
//! descriptors come and go while they wait: all calls take `&self`. One call a wait, and none for a ring that was heard: eventfd(2) is not read.

use super::epoll::{self, ANSWERS_MAX};
use super::eventfd;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollOp};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

pub(crate) struct Edges {
    fd: OwnedFd,
    bell: OwnedFd,
    /// For the kernel to write to. Only the loop locks it.
    answers: Mutex<Vec<EpollEvent>>,
}

/// The bell's.
const BELL: u64 = u64::MAX;

impl Edges {
    pub(crate) fn new() -> io::Result<Edges> {
        let (fd, bell) = (epoll::create()?, eventfd::create()?);
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL);
        epoll::control(fd.as_fd(), EpollOp::EpollCtlAdd, bell.as_raw_fd(), &mut event)?;
        Ok(Edges { fd, bell, answers: Mutex::new(vec![EpollEvent::empty(); ANSWERS_MAX]) })
    }

    /// Told once when it is ready now, and once whenever it becomes ready.
    pub(crate) fn add(&self, fd: RawFd, token: u64, edge: Edge) -> io::Result<()> {
        match epoll::control(self.fd.as_fd(), EpollOp::EpollCtlAdd, fd, &mut event(token, edge)) {
            // Forgotten, and not closed after all.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => self.change(fd, token, edge),
            result => result,
        }
    }

    /// As if it was added anew.
    pub(crate) fn change(&self, fd: RawFd, token: u64, edge: Edge) -> io::Result<()> {
        epoll::control(self.fd.as_fd(), EpollOp::EpollCtlMod, fd, &mut event(token, edge))
    }

    /// Nothing need be done to be told once more.
    pub(crate) fn ask_again(&self, _fd: RawFd, _token: u64, _edge: Edge) {}

    /// Whoever is not there any more need not be removed.
    pub(crate) fn remove(&self, fd: RawFd) {
        let _ = epoll::control(self.fd.as_fd(), EpollOp::EpollCtlDel, fd, &mut EpollEvent::empty());
    }

    /// It is closed next, which removes it if nobody else holds a copy. Else it may be told of once more in vain.
    pub(crate) fn forget(&self, _fd: RawFd) {}

    /// Ends the wait that is going on, or else the next one.
    pub(crate) fn ring(&self) {
        eventfd::ring(self.bell.as_fd());
    }

    /// Waits until something is ready, the bell rings, or the moment has come (`None`: for ever), and appends what is ready.
    pub(crate) fn wait(&self, ready: &mut Vec<(u64, Edge)>, until: Option<Instant>) -> io::Result<()> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = epoll::wait(self.fd.as_fd(), &mut answers, until)?;
        let answers = answers.iter().take(count);
        ready.extend(
            answers.filter(|answer| answer.data() != BELL).map(|answer| (answer.data(), told(answer.events()))),
        );
        Ok(())
    }
}

fn event(token: u64, edge: Edge) -> EpollEvent {
    let mut flags = EpollFlags::EPOLLET;
    flags.set(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, edge.reads);
    flags.set(EpollFlags::EPOLLOUT, edge.writes);
    EpollEvent::new(flags, token)
}

/// The end of the other side is news for both.
fn told(flags: EpollFlags) -> Edge {
    let end = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
    Edge {
        reads: flags.intersects(end | EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP),
        writes: flags.intersects(end | EpollFlags::EPOLLOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const READ: Edge = Edge { reads: true, writes: false };

    #[test]
    fn what_is_ready_is_told_once() {
        let edges = Edges::new().unwrap();
        let (reader, mut writer) = os_pipe::pipe().unwrap();
        let told = || {
            let mut ready = Vec::new();
            edges.wait(&mut ready, Some(Instant::now())).unwrap();
            ready
        };
        writer.write_all(b"x").unwrap();
        edges.add(reader.as_raw_fd(), 7, READ).unwrap();
        assert_eq!((told(), told()), (vec![(7, READ)], vec![]));
        edges.ask_again(reader.as_raw_fd(), 7, READ);
        writer.write_all(b"x").unwrap();
        assert_eq!((told(), told()), (vec![(7, READ)], vec![]));
        edges.remove(reader.as_raw_fd());
        writer.write_all(b"x").unwrap();
        assert_eq!(told(), []);
        for token in [8, 9] {
            edges.add(reader.as_raw_fd(), token, READ).unwrap();
            assert_eq!((told(), told()), (vec![(token, READ)], vec![]));
            edges.forget(reader.as_raw_fd());
        }
    }

    #[test]
    fn every_ring_ends_a_wait() {
        let edges = Edges::new().unwrap();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                scope.spawn(|| edges.ring());
                edges.wait(&mut Vec::new(), None).unwrap();
            });
        }
    }
}
