//! The same as edge-triggered epoll on systems without it, by poll(2): what was told is not waited for until it is asked for again.

use super::{fd, pipe, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// A descriptor to be waited for, to read or to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    fd: RawFd,
    writes: bool,
    token: u64,
}

pub(crate) struct Edges {
    entries: Mutex<Vec<Entry>>,
    heard: OwnedFd,
    bell: OwnedFd,
}

impl Edges {
    pub(crate) fn new() -> io::Result<Edges> {
        let (heard, bell) = pipe::pair()?;
        fd::set_nonblocking(heard.as_fd())?;
        fd::set_nonblocking(bell.as_fd())?;
        Ok(Edges { entries: Mutex::default(), heard, bell })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told once when it is ready now, and then again whenever it was asked for.
    pub(crate) fn add(&self, fd: RawFd, token: u64, edge: Edge) -> io::Result<()> {
        self.ask_again(fd, token, edge);
        Ok(())
    }

    /// As if it was added anew.
    pub(crate) fn change(&self, fd: RawFd, token: u64, edge: Edge) -> io::Result<()> {
        self.remove(fd);
        self.add(fd, token, edge)
    }

    /// To be told once more.
    pub(crate) fn ask_again(&self, fd: RawFd, token: u64, edge: Edge) {
        let mut entries = self.entries();
        for writes in [(edge.reads, false), (edge.writes, true)]
            .iter()
            .filter(|(is_asked, _)| *is_asked)
            .map(|(_, writes)| *writes)
        {
            let entry = Entry { fd, writes, token };
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }

    pub(crate) fn remove(&self, fd: RawFd) {
        self.entries().retain(|entry| entry.fd != fd);
    }

    /// It is closed next.
    pub(crate) fn forget(&self, fd: RawFd) {
        self.remove(fd);
    }

    /// Ends the wait that is going on, or else the next one. A pipe that is full of rings is heard as well.
    pub(crate) fn ring(&self) {
        let _ = pipe::write(self.bell.as_fd(), &[0]);
    }

    /// Waits until something is ready, the bell rings, or the moment has come (`None`: for ever), and appends what is ready.
    pub(crate) fn wait(&self, ready: &mut Vec<(u64, Edge)>, until: Option<Instant>) -> io::Result<()> {
        let asked = self.entries().clone();
        let numbers = asked.iter().map(|entry| (entry.fd, entry.writes)).chain([(self.heard.as_raw_fd(), false)]);
        let answers = poll::wait_numbers(numbers, until)?;
        let told: Vec<Entry> =
            asked.iter().zip(&answers).filter(|(_, is_ready)| **is_ready).map(|(entry, _)| *entry).collect();
        self.entries().retain(|entry| !told.contains(entry));
        ready.extend(told.iter().map(|entry| (entry.token, Edge { reads: !entry.writes, writes: entry.writes })));
        while fd::read(self.heard.as_fd(), &mut [0; 64]).is_ok_and(|count| count > 0) {}
        Ok(())
    }
}
