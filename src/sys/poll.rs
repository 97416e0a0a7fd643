//! Readiness of a few descriptors, with a moment at which to stop waiting.
#![allow(unsafe_code)]

use nix::errno::Errno;
pub(crate) use nix::poll::PollFd;
use nix::poll::PollFlags;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// An entry that waits for bytes, an end of file, or the exit of a process.
pub(crate) fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// An entry that waits for room, or for the reader to go.
pub(crate) fn writable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLOUT)
}

/// Whether an entry waits for room.
#[cfg(feature = "future")]
pub(crate) fn writes(entry: &PollFd<'_>) -> bool {
    entry.events().contains(PollFlags::POLLOUT)
}

/// Whether a transfer will not block: also on hang-up and error, which the transfer then reports.
pub(crate) fn is_ready(entry: &PollFd<'_>) -> bool {
    entry.any().unwrap_or(true)
}

/// Whether everybody at the other end of a terminal has gone (`POLLHUP`). Until somebody comes back nothing that is written reaches
/// anybody.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut entries = [writable(fd)];
    wait(&mut entries, Some(Instant::now()))?;
    Ok(entries.iter().filter_map(PollFd::revents).any(|events| events.contains(PollFlags::POLLHUP)))
}

/// Waits until one entry is ready or the moment has come (`None`: for ever). True if something is ready. Never early: the
/// clock is asked again before the moment counts as come, and an interrupted wait goes on with the time that is left.
pub(crate) fn wait(entries: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<bool> {
    loop {
        let remaining = until.map(|moment| moment.saturating_duration_since(Instant::now()));
        match call(entries, remaining) {
            Ok(0) if until.is_none_or(|moment| Instant::now() < moment) => {}
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits for one descriptor to become readable.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<bool> {
    wait(&mut [readable(fd)], until)
}

/// Waits for descriptors that are known by their numbers, to read or to write. Which of them are ready; a number that is not open
/// counts as ready, and the transfer reports it.
#[cfg(any(not(target_os = "linux"), all(feature = "future", procession_portable)))]
pub(crate) fn wait_numbers(
    numbers: impl Iterator<Item = (std::os::fd::RawFd, bool)>,
    until: Option<Instant>,
) -> io::Result<Vec<bool>> {
    let entry = |(number, writes)| {
        // SAFETY: the caller removes a number before it closes it, so it is open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if writes { writable(fd) } else { readable(fd) }
    };
    let mut entries: Vec<PollFd<'_>> = numbers.map(entry).collect();
    wait(&mut entries, until)?;
    Ok(entries.iter().map(is_ready).collect())
}

/// The longest wait that fits every `time_t`; the loop above waits again.
const LONGEST: Duration = Duration::from_secs(20 * 86_400);

/// ppoll(2), nanoseconds.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn call(entries: &mut [PollFd<'_>], remaining: Option<Duration>) -> nix::Result<i32> {
    nix::poll::ppoll(entries, remaining.map(|time| time.min(LONGEST).into()), None)
}

/// poll(2), milliseconds, rounded up: late rather than early.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn call(entries: &mut [PollFd<'_>], remaining: Option<Duration>) -> nix::Result<i32> {
    use nix::poll::PollTimeout;
    let timeout = remaining.map_or(PollTimeout::NONE, |time| {
        let millis = time.min(LONGEST).as_nanos().div_ceil(1_000_000) as i32;
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    nix::poll::poll(entries, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_moment_is_never_early() {
        let (reader, _writer) = os_pipe::pipe().unwrap();
        for micros in [1, 100, 999, 1001, 5500] {
            let until = Instant::now() + Duration::from_micros(micros);
            assert!(!wait_readable(reader.as_fd(), Some(until)).unwrap());
            assert!(Instant::now() >= until);
        }
    }

    #[test]
    fn hang_up_counts_as_ready() {
        let (reader, writer) = os_pipe::pipe().unwrap();
        drop(writer);
        assert!(wait_readable(reader.as_fd(), None).unwrap());
    }
}
