//! A lock on one byte of a file that belongs to an open description (`F_OFD_SETLK`, fcntl(2), Linux 3.15). The kernel drops it with the last
//! copy of the description, wherever that is, whatever ended its holder. Nobody ever waits for one here.
#![allow(unsafe_code)]

use super::errno::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn on_byte(byte: u32, kind: libc::c_int) -> libc::flock {
    // SAFETY: a plain C struct of integers, for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = byte.into();
    lock.l_len = 1;
    lock
}

/// Locks the byte for this description. False if another one has it.
pub(crate) fn take(file: BorrowedFd<'_>, byte: u32) -> io::Result<bool> {
    let lock = on_byte(byte, libc::F_WRLCK);
    // SAFETY: the struct is valid for the call, and only read.
    match check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the byte back.
pub(crate) fn give_back(file: BorrowedFd<'_>, byte: u32) {
    let lock = on_byte(byte, libc::F_UNLCK);
    // SAFETY: as above. Unlocking what is locked cannot fail.
    let _ = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) });
}

/// Locks the byte for this description as many others may do at the same time.
pub(crate) fn share(file: BorrowedFd<'_>, byte: u32) -> io::Result<()> {
    let lock = on_byte(byte, libc::F_RDLCK);
    // SAFETY: the struct is valid for the call, and only read.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) }).map(drop)
}

/// Whether another description has the byte, alone or shared (`F_OFD_GETLK`).
pub(crate) fn is_held(file: BorrowedFd<'_>, byte: u32) -> io::Result<bool> {
    let mut lock = on_byte(byte, libc::F_WRLCK);
    // SAFETY: the struct is valid for the call, and plain integers are written to it.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
