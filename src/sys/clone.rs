//! clone(2): births at the price of vfork, whatever the size of the parent. Decides which kernel route is open and keeps the
//! parent's half; the child's half is `after_fork`.
//!
//! Two routes share one shape. The child runs on a small stack of its own in the memory of its parent, which is suspended
//! until exec (`CLONE_VM|CLONE_VFORK`), so success costs no pipe and no copy of page tables, and a failure is two words in
//! memory. With `clone3` and `CLONE_CLEAR_SIGHAND` (Linux 5.5) the kernel itself takes the handlers away at birth, so no
//! handler of the host can run in the child and no signal needs to be blocked. With plain `clone` (containers that refuse
//! clone3 with ENOSYS or EPERM) all signals are blocked across the window and the child clears the handlers itself.
//!
//! On both a child that needs only the beginning of a long table of descriptors shares the table (`CLONE_FILES`) until its first step
//! copies that beginning.
#![allow(unsafe_code)]

use super::after_fork::{self, Failure, Job};
use super::step::Step;
use super::{fd, mask};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A kernel route, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// clone3(2), Linux 5.3, with `CLONE_CLEAR_SIGHAND` of 5.5.
    Clone3,
    /// clone(2) with `CLONE_PIDFD`, Linux 5.2.
    Clone,
}

/// A new process: its number, and its descriptor unless the table of descriptors was full.
pub(crate) struct Born {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: Option<OwnedFd>,
}

/// Why there is no new program.
pub(crate) enum Refusal {
    /// The kernel made no process.
    Clone(io::Error),
    /// The process was made and could not become the program; it has ended and waits to be reaped.
    Child(Born, Failure),
}

/// Deep enough for the child's half in a build without optimisation.
const STACK_SIZE: usize = 32 * 1024;

#[repr(C, align(16))]
struct Stack([MaybeUninit<u8>; STACK_SIZE]);

/// Makes a child that runs the job. `cgroup` is an open cgroup v2 directory to be born in (clone3 only).
pub(crate) fn spawn(route: Route, job: &Job<'_>, cgroup: Option<RawFd>) -> Result<Born, Refusal> {
    let born = match birth(route, job, cgroup, true) {
        // The table is full: a child without a descriptor can still be waited for by its number.
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => birth(route, job, cgroup, false),
        other => other,
    };
    let born = born.map_err(Refusal::Clone)?;
    match job.report.failure() {
        None => Ok(born),
        Some(failure) => Err(Refusal::Child(born, failure)),
    }
}

/// Whether the route is open on this kernel, under this filter, and really shares memory (an emulator that turns vfork into
/// fork does not, and would lose every report). Makes a child that does nothing, and that tells nobody when it ends. An error if
/// that cannot be found out now, because something is lacking that may be there later.
pub(crate) fn probe(route: Route) -> io::Result<bool> {
    let job = Job {
        steps: &[],
        candidates: &[],
        argv: &[std::ptr::null()],
        envp: &[std::ptr::null()],
        report: Default::default(),
    };
    let born = match birth(route, &job, None, true) {
        Ok(born) => born,
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => return Err(error),
            _ => return Ok(false),
        },
    };
    let mut status: c_int = 0;
    // SAFETY: the pointer is valid; the pid is our child, not reaped before; __WALL because it ends without a signal.
    while unsafe { libc::waitpid(born.pid, &mut status, libc::__WALL) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(job.report.is_alive() && born.pidfd.is_some())
}

/// The signal that tells the parent of the child's end. The probe passes no candidates and is silent.
fn exit_signal(job: &Job<'_>) -> c_int {
    if job.candidates.is_empty() { 0 } else { libc::SIGCHLD }
}

fn birth(route: Route, job: &Job<'_>, cgroup: Option<RawFd>, pidfd: bool) -> io::Result<Born> {
    let mut stack = Stack([MaybeUninit::uninit(); STACK_SIZE]);
    let mut descriptor: RawFd = -1;
    let pid = match route {
        Route::Clone3 => clone3(job, cgroup, pidfd.then_some(&mut descriptor), &mut stack)?,
        Route::Clone => clone(job, pidfd.then_some(&mut descriptor), &mut stack)?,
    };
    let pidfd = (descriptor >= 0)
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        .then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
        .and_then(|fd| fd::above_stdio(fd).ok())
        .map(fd::out_of_the_way);
    Ok(Born { pid, pidfd })
}

/// A child whose first step is to take a table of descriptors of its own is born in ours.
fn files(job: &Job<'_>) -> c_int {
    if matches!(job.steps.first(), Some(Step::OwnTable { .. })) { libc::CLONE_FILES } else { 0 }
}

/// The child's first and last frame on the clone3 route.
extern "C" fn child_after_clone3(job: *const Job<'_>) -> ! {
    // SAFETY: the parent is suspended inside the call that lent us the job, so it is alive and nobody writes to it.
    let job = unsafe { &*job };
    job.report.set_alive();
    end(job)
}

fn end(job: &Job<'_>) -> ! {
    // The probe has nothing to run.
    if !job.candidates.is_empty() {
        job.run();
    }
    // SAFETY: ends this process only, without running anything of the host's.
    unsafe { libc::_exit(127) }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn clone3(
    job: &Job<'_>,
    cgroup: Option<RawFd>,
    pidfd: Option<&mut RawFd>,
    stack: &mut Stack,
) -> io::Result<libc::pid_t> {
    // SAFETY: an all-zero clone_args asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_VM | libc::CLONE_VFORK | files(job)) as u64 | CLONE_CLEAR_SIGHAND;
    args.exit_signal = exit_signal(job) as u64;
    args.stack = stack.0.as_mut_ptr() as u64;
    args.stack_size = STACK_SIZE as u64;
    if let Some(place) = pidfd {
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = std::ptr::from_mut(place) as u64;
    }
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd as u64;
    }
    // SAFETY: the arguments describe a stack that lives, with everything the child reads, until the parent is resumed. The
    // child never returns into this frame.
    let result = unsafe { clone3_call(&args, job) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result as i32)) } else { Ok(result as libc::pid_t) }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The system call and the child's jump onto its own stack. A C function cannot do it: the child would return through a
/// frame that its parent still needs.
///
/// # Safety
/// `args` must give a stack that outlives the child's use of this memory, and `CLONE_VFORK`.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3_call(args: &libc::clone_args, job: &Job<'_>) -> isize {
    let result: isize;
    // SAFETY: clobbers what the kernel clobbers (rax, rcx, r11). In the parent nothing else changes; the child has registers
    // of its own, a fresh 16-aligned stack, and calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {job}",
            "call {entry}",
            "ud2",
            "2:",
            job = in(reg) std::ptr::from_ref(job),
            entry = in(reg) child_after_clone3 as *const (),
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// `args` must give a stack that outlives the child's use of this memory, and `CLONE_VFORK`.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3_call(args: &libc::clone_args, job: &Job<'_>) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but x0. In the parent nothing else changes; the child has registers of its
    // own, a fresh 16-aligned stack, and calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {job}",
            "blr {entry}",
            "brk #1",
            "2:",
            job = in(reg) std::ptr::from_ref(job),
            entry = in(reg) child_after_clone3 as *const (),
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_ref(args) as isize => result,
            in("x1") size_of::<libc::clone_args>(),
        );
    }
    result
}

/// Other processors take the plain route.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn clone3(
    _job: &Job<'_>,
    _cgroup: Option<RawFd>,
    _pidfd: Option<&mut RawFd>,
    _stack: &mut Stack,
) -> io::Result<libc::pid_t> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// What the child of the plain route gets: the job, and the mask to put back.
struct Masked<'a, 'b> {
    job: &'a Job<'b>,
    mask: libc::sigset_t,
}

extern "C" fn child_after_clone(masked: *mut c_void) -> c_int {
    // SAFETY: the parent is suspended inside the call that lent us this, so it is alive and nobody writes to it.
    let masked = unsafe { &*masked.cast::<Masked<'_, '_>>() };
    masked.job.report.set_alive();
    after_fork::clear_handlers();
    after_fork::restore_mask(&masked.mask);
    end(masked.job)
}

fn clone(job: &Job<'_>, pidfd: Option<&mut RawFd>, stack: &mut Stack) -> io::Result<libc::pid_t> {
    let old = mask::replace(&mask::set(true));
    let mut masked = Masked { job, mask: old };
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | files(job) | exit_signal(job);
    if pidfd.is_some() {
        flags |= libc::CLONE_PIDFD;
    }
    let place: *mut RawFd = pidfd.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let top = stack.0.as_mut_ptr_range().end;
    // SAFETY: the stack, the job and the place for the descriptor live until the parent is resumed; `top` is 16-aligned; the
    // child's function does not return.
    let pid =
        unsafe { libc::clone(child_after_clone, top.cast(), flags, std::ptr::from_mut(&mut masked).cast(), place) };
    let result = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
    mask::replace(&old);
    result
}
