//! waitid(2): see that a child has ended without reaping it, and reap it together with its usage. Never any
//! child but the one that is named.
#![allow(unsafe_code)]

use super::errno::{check, retry};
use std::io;
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What a process used (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rusage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// In bytes.
    pub(crate) resident_max: u64,
}

/// Whether to wait for the end or only to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Look,
    Wait,
}

impl Patience {
    fn flag(self) -> libc::c_int {
        match self {
            Patience::Look => libc::WNOHANG,
            Patience::Wait => 0,
        }
    }
}

/// A child of ours, by the surest name we have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'fd> {
    Pid(i32),
    /// Its process descriptor (Linux 5.4): never another process, even if a stranger reaped ours and the number came round.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Descriptor(BorrowedFd<'fd>),
}

/// Whether our child has ended; it stays a zombie. An error means that it is not ours to wait for any more.
pub(crate) fn has_ended(who: Who<'_>, patience: Patience) -> io::Result<bool> {
    let (kind, id) = who.parts();
    let flags = libc::WEXITED | libc::WNOWAIT | patience.flag();
    let mut info = empty_info();
    retry(|| {
        // SAFETY: the pointer is valid for a write of a siginfo.
        check(unsafe { libc::waitid(kind, id, &mut info, flags) })
    })?;
    Ok(info.si_signo != 0)
}

/// What can be seen of a child without reaping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glimpse {
    Running,
    /// By this signal.
    Stopped(i32),
    /// With this raw status.
    Ended(i32),
}

/// Looks at our child, and takes nothing away. An error means that it is not ours to wait for any more.
pub(crate) fn glimpse(who: Who<'_>) -> io::Result<Glimpse> {
    let (kind, id) = who.parts();
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG;
    let mut info = empty_info();
    retry(|| {
        // SAFETY: the pointer is valid for a write of a siginfo.
        check(unsafe { libc::waitid(kind, id, &mut info, flags) })
    })?;
    if info.si_signo == 0 {
        return Ok(Glimpse::Running);
    }
    // SAFETY: an answer of waitid fills this part of the union.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        libc::CLD_STOPPED | libc::CLD_TRAPPED => Glimpse::Stopped(status),
        code => Glimpse::Ended(raw_status(code, status)),
    })
}

/// The status that wait(2) would give.
fn raw_status(code: i32, status: i32) -> i32 {
    match code {
        libc::CLD_EXITED => (status & 0xFF) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }
}

/// An all-zero siginfo tells "nothing yet" from an answer.
fn empty_info() -> libc::siginfo_t {
    // SAFETY: a siginfo is plain integers, for which zero is valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Reaps our child: its raw status and what it used. `None` if it has not ended. An error means that it is not ours to wait
/// for any more.
#[cfg(target_os = "linux")]
pub(crate) fn reap(who: Who<'_>, patience: Patience) -> io::Result<Option<(i32, Rusage)>> {
    let (kind, id) = who.parts();
    let flags = libc::WEXITED | patience.flag();
    let mut info = empty_info();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // The system call has a fifth argument that the C function hides: what the child used.
    let arguments = (std::ptr::from_mut(&mut info), usage.as_mut_ptr());
    retry(|| {
        // SAFETY: both pointers are valid for writes of their types.
        check(unsafe { libc::syscall(libc::SYS_waitid, kind, id, arguments.0, flags, arguments.1) })
    })?;
    if info.si_signo == 0 {
        return Ok(None);
    }
    // SAFETY: an answer to WEXITED fills this part of the union.
    let status = unsafe { info.si_status() };
    let raw = raw_status(info.si_code, status);
    // SAFETY: zeroed before, and filled by the call.
    Ok(Some((raw, Rusage::from(unsafe { usage.assume_init() }))))
}

/// Reaps our child: its raw status and what it used. `None` if it has not ended. An error means that it is not ours to wait
/// for any more.
#[cfg(not(target_os = "linux"))]
pub(crate) fn reap(who: Who<'_>, patience: Patience) -> io::Result<Option<(i32, Rusage)>> {
    let (_, pid) = who.parts();
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let reaped = retry(|| {
        // SAFETY: both pointers are valid for writes; `pid` is positive, so no other child is reaped.
        check(unsafe { libc::wait4(pid as libc::pid_t, &mut status, patience.flag(), usage.as_mut_ptr()) })
    })?;
    if reaped == 0 {
        return Ok(None);
    }
    // SAFETY: zeroed before, and filled by the call.
    Ok(Some((status, Rusage::from(unsafe { usage.assume_init() }))))
}

impl Who<'_> {
    fn parts(self) -> (libc::idtype_t, libc::id_t) {
        match self {
            Who::Pid(pid) => (libc::P_PID, pid as libc::id_t),
            #[cfg(target_os = "linux")]
            Who::Descriptor(fd) => (libc::P_PIDFD, fd.as_raw_fd() as libc::id_t),
            #[cfg(not(target_os = "linux"))]
            Who::Descriptor(_) => (libc::P_PID, 0),
        }
    }
}

impl From<libc::rusage> for Rusage {
    fn from(usage: libc::rusage) -> Rusage {
        Rusage {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            resident_max: usage.ru_maxrss as u64 * RESIDENT_UNIT,
        }
    }
}

/// `ru_maxrss` counts kilobytes, on Apple's systems bytes.
const RESIDENT_UNIT: u64 = if cfg!(target_vendor = "apple") { 1 } else { 1024 };

fn duration(time: libc::timeval) -> Duration {
    #[allow(clippy::unnecessary_cast)] // i32 on some systems
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}

/// kill(2) by number: real-time signals have no name in nix.
pub(crate) fn kill_number(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: integer arguments.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}
