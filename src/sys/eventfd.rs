//! A descriptor that is readable or not, as somebody wants it to be (eventfd(2), Linux 2.6.27): for those who wait in a loop of their own. Why it
//! rings is decided above.

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A new one, not readable.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    super::fd::above_stdio(bell.into())
}

/// Whether the descriptor is such a one. It does not block from now on.
#[cfg_attr(not(feature = "ipc"), allow(dead_code))] // the one caller
pub(crate) fn is_one(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let link = std::fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))?;
    let is = link.to_str() == Some("anon_inode:[eventfd]");
    if is {
        super::fd::set_nonblocking(fd)?;
    }
    Ok(is)
}

/// Readable from now on. That it could not be counted up means that it is readable.
pub(crate) fn ring(fd: BorrowedFd<'_>) {
    while write(fd, &1_u64.to_ne_bytes()) == Err(Errno::EINTR) {}
}

/// Not readable from now on. Nothing to read means that it was not.
#[cfg_attr(not(feature = "ipc"), allow(dead_code))] // the one caller
pub(crate) fn silence(fd: BorrowedFd<'_>) {
    while read(fd, &mut [0; 8]) == Err(Errno::EINTR) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use std::os::fd::AsFd;
    use std::time::Instant;

    fn is_ringing(fd: BorrowedFd<'_>) -> bool {
        poll::wait_readable(fd, Some(Instant::now())).unwrap()
    }

    #[test]
    fn it_rings_until_silenced() {
        let bell = create().unwrap();
        assert!(is_one(bell.as_fd()).unwrap() && !is_ringing(bell.as_fd()));
        silence(bell.as_fd());
        ring(bell.as_fd());
        ring(bell.as_fd());
        assert!(is_ringing(bell.as_fd()));
        silence(bell.as_fd());
        assert!(!is_ringing(bell.as_fd()));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(!is_one(reader.as_fd()).unwrap());
    }
}
