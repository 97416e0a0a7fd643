//! The controlling terminal and its foreground group (tcsetpgrp(3)), and lines for whoever looks on.

use super::{mask, pipe};
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

/// Writes to this process's standard error in one call, if it takes anything: for words that nothing depends on.
pub(crate) fn remark(text: &str) {
    // Whatever else this program says to its standard error by std's means comes before or after.
    let stderr = io::stderr().lock();
    // Closed, full, or a reader that has gone: nobody looks on, and never a signal.
    let _ = pipe::write(stderr.as_fd(), text.as_bytes());
}
