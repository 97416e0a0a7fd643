//! A counter of the kernel that descriptors lead to (eventfd(2)): one process rings, another waits for it together with everything else.

use super::{errno, fd};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A new one at zero, close-on-exec, that never blocks.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    fd::above_stdio(bell.into())
}

/// Makes it readable for everybody.
pub(crate) fn ring(bell: BorrowedFd<'_>) -> io::Result<()> {
    // The counter is full only when nobody has listened 2^64 times: it is readable then, too.
    match errno::retry(|| Ok(nix::unistd::write(bell, &1_u64.to_ne_bytes())?)) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Sets it back to zero. False if it was.
pub(crate) fn silence(bell: BorrowedFd<'_>) -> io::Result<bool> {
    match fd::read(bell.as_fd(), &mut [0; 8]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        read => read.map(|_| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_until_it_is_silenced() {
        let bell = create().unwrap();
        assert!(!silence(bell.as_fd()).unwrap());
        ring(bell.as_fd()).unwrap();
        ring(bell.as_fd()).unwrap();
        assert!(silence(bell.as_fd()).unwrap());
        assert!(!silence(bell.as_fd()).unwrap());
    }
}
