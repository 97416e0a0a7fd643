//! The controlling terminal and its foreground group (tcsetpgrp(3)).

use super::mask;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Opens the controlling terminal of this process.
pub(crate) fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// The group in the foreground of a terminal.
pub(crate) fn foreground(terminal: BorrowedFd<'_>) -> io::Result<i32> {
    Ok(nix::unistd::tcgetpgrp(terminal)?.as_raw())
}

/// The group of this process.
pub(crate) fn own_group() -> i32 {
    nix::unistd::getpgrp().as_raw()
}

/// Puts a group in the foreground. From the background this raises SIGTTOU, which is blocked in this thread for the moment.
pub(crate) fn set_foreground(terminal: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    mask::blocking(libc::SIGTTOU, || Ok(nix::unistd::tcsetpgrp(terminal.as_fd(), nix::unistd::Pid::from_raw(group))?))
}
