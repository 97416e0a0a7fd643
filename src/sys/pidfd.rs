//! pidfd_open(2): a descriptor that stands for one process and never for another. Readable once the process has ended.
#![allow(unsafe_code)]

use super::errno::check;
use super::fd;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens a descriptor of a process (Linux 5.3). Safe from reuse of the number only while the process is our unreaped child,
/// or when the caller checks afterwards that it is still the one that was meant.
pub(crate) fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integer arguments.
    let number = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec by itself); nobody else owns it.
    fd::above_stdio(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// Sends a signal to exactly this process (pidfd_send_signal(2), Linux 5.1). 0 only asks whether it could be sent.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integer arguments and a null siginfo, which means the same as kill(2).
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) }).map(drop)
}

/// `struct pidfd_info` in its first version (include/uapi/linux/pidfd.h).
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// Ask for the exit status.
const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: u32 = 0xC000_0000 | (size_of::<Info>() as u32) << 16 | 0xFF << 8 | 11;

/// The raw wait status of a process that somebody else has reaped (`PIDFD_GET_INFO`, Linux 6.15). `None` where the kernel
/// cannot tell.
pub(crate) fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the number encodes the size of the struct, which is valid for reads and writes.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &mut info) };
    (asked == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}
