//! Twin of `pidfd` for systems that have no process descriptors: everything is refused, and the callers have another way.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// There are none here.
pub(crate) fn open(_pid: i32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are none here.
pub(crate) fn send_signal(_pidfd: BorrowedFd<'_>, _signal: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are none here.
pub(crate) fn exit_status(_pidfd: BorrowedFd<'_>) -> Option<i32> {
    None
}
