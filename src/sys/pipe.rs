//! pipe(7): pairs that are close-on-exec from birth, their size, and writes that never raise SIGPIPE in the host.
#![allow(unsafe_code)]

use super::errno::retry;
use super::{fd, mask};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A pipe: the end to read from and the end to write to, both above descriptor 2.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = os_pipe::pipe()?;
    Ok((fd::above_stdio(reader.into())?, fd::above_stdio(writer.into())?))
}

/// Asks for a pipe of at least `size` bytes (`F_SETPIPE_SZ`, Linux 2.6.35). A wish: an unprivileged user may have used up
/// the quota of pipe pages, and other systems have no such call.
#[cfg(target_os = "linux")]
pub(crate) fn set_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<usize> {
    use super::errno::check;
    use std::os::fd::AsRawFd;
    let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
    // SAFETY: F_SETPIPE_SZ takes an integer and changes only the kernel's buffer of this pipe.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, size) }).map(|size| size as usize)
}

/// Other systems size their pipes themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set_size(_fd: BorrowedFd<'_>, _size: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How many bytes a pipe holds (`F_GETPIPE_SZ`, Linux 2.6.35).
#[cfg(target_os = "linux")]
pub(crate) fn size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    use super::errno::check;
    use std::os::fd::AsRawFd;
    // SAFETY: F_GETPIPE_SZ takes no further argument and only asks.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) }).map(|size| size as usize)
}

/// Other systems do not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn size(_fd: BorrowedFd<'_>) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How many bytes wait in a pipe to be read (`FIONREAD`), asked at either end.
pub(crate) fn waiting(fd: BorrowedFd<'_>) -> io::Result<u64> {
    use super::errno::check;
    use std::os::fd::AsRawFd;
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which lives during the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut count) })?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Writes to a pipe; a reader that has gone is the error `BrokenPipe` and never a signal.
///
/// Where the host ignores SIGPIPE, as Rust programs do, a plain write is enough. Otherwise the signal is blocked in this
/// thread around the write and the pending one is taken away. The disposition of the process is read, never changed.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    without_signal(|| retry(|| Ok(nix::unistd::write(fd, bytes)?)))
}

/// Does something that writes, as [`write`] does it.
pub(crate) fn without_signal<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if mask::ignores(libc::SIGPIPE) { work() } else { mask::without_sigpipe(work) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_has_the_size_it_was_given() {
        let (reader, writer) = pair().unwrap();
        let given = set_size(reader.as_fd(), 128 * 1024).unwrap();
        assert_eq!(given, 128 * 1024);
        assert_eq!(size(writer.as_fd()).unwrap(), given);
    }

    #[test]
    fn what_is_no_pipe_has_no_size() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(size(file.as_fd()).is_err());
    }
}
