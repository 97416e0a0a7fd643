//! pipe(7): pairs that are close-on-exec from birth, their size, and writes that never raise SIGPIPE in the host.
#![allow(unsafe_code)]

use super::errno::retry;
use super::{fd, mask};
use nix::sys::stat::{Mode, SFlag};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// A pipe: the end to read from and the end to write to, both above descriptor 2.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = os_pipe::pipe()?;
    Ok((fd::above_stdio(reader.into())?, fd::above_stdio(writer.into())?))
}

/// mkfifo(3): a pipe with a name, which only its owner may open.
pub(crate) fn named(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?)
}

/// Which pipe a descriptor belongs to, and what can be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Device and inode: the same for all ends of a pipe.
    pub(crate) pipe: (u64, u64),
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// What end of which pipe a descriptor is; `None` if it is something else.
pub(crate) fn end(fd: BorrowedFd<'_>) -> io::Result<Option<End>> {
    let stat = nix::sys::stat::fstat(fd)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFIFO {
        return Ok(None);
    }
    let access = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL)? & libc::O_ACCMODE;
    let (reads, writes) = (access != libc::O_WRONLY, access != libc::O_RDONLY);
    #[allow(clippy::unnecessary_cast)] // other types elsewhere
    let pipe = (stat.st_dev as u64, stat.st_ino as u64);
    Ok(Some(End { pipe, reads, writes }))
}

/// Moves at most `count` waiting bytes from one pipe into another (`splice`, Linux 2.6.31 for two pipes), and is the error `WouldBlock`
/// where none is waiting. The flag is that of the call: it never waits, whatever the flags of the descriptions are.
#[cfg(target_os = "linux")]
pub(crate) fn move_waiting(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    use super::errno::check;
    use std::os::fd::AsRawFd;
    use std::ptr::null_mut;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both are open for the length of the call; without offsets no memory of ours is involved.
    let moved =
        retry(|| check(unsafe { libc::splice(from, null_mut(), to, null_mut(), count, libc::SPLICE_F_NONBLOCK) }))?;
    Ok(moved as usize)
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn move_waiting(_from: BorrowedFd<'_>, _to: BorrowedFd<'_>, _count: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
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
    fn waiting_bytes_are_moved_and_nobody_waits() {
        let ((reader, writer), (to_read, to_write)) = (pair().unwrap(), pair().unwrap());
        let moved = |count| move_waiting(reader.as_fd(), to_write.as_fd(), count);
        assert_eq!(moved(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        write(writer.as_fd(), b"abc").unwrap();
        assert_eq!((moved(1).unwrap(), moved(9).unwrap()), (1, 2));
        assert_eq!(moved(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut bytes = [0; 9];
        assert_eq!(fd::read(to_read.as_fd(), &mut bytes).unwrap(), 3);
        assert_eq!(&bytes[..3], b"abc");
        drop(writer);
        assert_eq!(moved(1).unwrap(), 0);
    }

    #[test]
    fn ends_of_one_pipe_are_known_by_it() {
        let ((reader, writer), (other, _keep)) = (pair().unwrap(), pair().unwrap());
        let [read, write, other] = [&reader, &writer, &other].map(|fd| end(fd.as_fd()).unwrap().unwrap());
        assert_eq!((read.reads, read.writes, write.reads, write.writes), (true, false, false, true));
        assert_eq!(read.pipe, write.pipe);
        assert_ne!(read.pipe, other.pipe);
        assert_eq!(end(std::fs::File::open("/dev/null").unwrap().as_fd()).unwrap(), None);
    }

    #[test]
    fn what_is_no_pipe_has_no_size() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(size(file.as_fd()).is_err());
    }
}
