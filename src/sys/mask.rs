//! Signal masks and dispositions of the host: read, blocked for a moment in one thread, never changed for good (`interrupt` changes
//! some for a while, where that was asked for).
#![allow(unsafe_code)]

use super::errno::check;
use std::io;
use std::mem::MaybeUninit;

/// Whether the host ignores this signal (rt_sigaction(2) with no new action).
pub(crate) fn ignores(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; the old one is written to memory of the right type.
    let known = check(unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) });
    if known.is_err() {
        return false;
    }
    // SAFETY: the call succeeded, so the kernel has filled the struct.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// A set of signals with none or all in it.
pub(crate) fn set(full: bool) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    if full {
        // SAFETY: the pointer is valid for a write of a whole set.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
    } else {
        // SAFETY: the pointer is valid for a write of a whole set.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    }
    // SAFETY: both calls initialise the set and cannot fail with a valid pointer.
    unsafe { set.assume_init() }
}

/// Adds one signal to a set. A number the system does not know changes nothing.
pub(crate) fn add(set: &mut libc::sigset_t, signal: libc::c_int) {
    // SAFETY: the set is initialised and exclusively borrowed.
    unsafe { libc::sigaddset(set, signal) };
}

/// Replaces the mask of the calling thread and returns the one before.
pub(crate) fn replace(new: &libc::sigset_t) -> libc::sigset_t {
    let mut old = set(false);
    // SAFETY: both pointers are valid sets; SIG_SETMASK with them cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, new, &mut old) };
    old
}

/// Runs `work` with one signal blocked in this thread and puts the mask back.
pub(crate) fn blocking<T>(signal: libc::c_int, work: impl FnOnce() -> T) -> T {
    let mut wanted = current();
    add(&mut wanted, signal);
    let _restore = Restore(replace(&wanted));
    work()
}

/// Puts a mask back, also if what is done meanwhile unwinds.
struct Restore(libc::sigset_t);

impl Drop for Restore {
    fn drop(&mut self) {
        replace(&self.0);
    }
}

/// The mask of the calling thread.
pub(crate) fn current() -> libc::sigset_t {
    let mut old = set(false);
    // SAFETY: a null new set only asks; the old one is written to a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut old) };
    old
}

/// Runs a write with SIGPIPE blocked in this thread; if it raised one, takes it away before the mask is put back.
pub(crate) fn without_sigpipe<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    without(libc::SIGPIPE, |error| error.kind() == io::ErrorKind::BrokenPipe, work)
}

/// The same for SIGXFSZ, which the kernel raises in the thread whose write begins at the greatest size that a file may have
/// (`RLIMIT_FSIZE`).
pub(crate) fn without_sigxfsz<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    without(libc::SIGXFSZ, |error| error.raw_os_error() == Some(libc::EFBIG), work)
}

fn without<T>(
    signal: libc::c_int,
    has_raised: impl FnOnce(&io::Error) -> bool,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let waiting_before = is_pending(signal);
    blocking(signal, || {
        let result = work();
        if result.as_ref().is_err_and(has_raised) && !waiting_before {
            take_pending(signal);
        }
        result
    })
}

fn is_pending(signal: libc::c_int) -> bool {
    let mut pending = set(false);
    // SAFETY: the pointer is a valid set to write to.
    unsafe { libc::sigpending(&mut pending) };
    // SAFETY: the set is initialised.
    unsafe { libc::sigismember(&pending, signal) == 1 }
}

fn take_pending(signal: libc::c_int) {
    if !is_pending(signal) {
        return;
    }
    let mut wanted = set(false);
    add(&mut wanted, signal);
    let mut taken: libc::c_int = 0;
    // SAFETY: both pointers are valid; the signal is pending and blocked in this thread, so the call returns at once.
    unsafe { libc::sigwait(&wanted, &mut taken) };
}
