//! futex(2): sleep until a word of memory that processes share is no longer what it was. What the word means is decided far above.
#![allow(unsafe_code)]

use super::errno::check;
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps as long as the word has this value (`FUTEX_WAIT`). Comes back when somebody [wakes](wake), when the word is another one
/// already, when the time has passed, or for a signal: the caller looks at the word again and decides.
pub(crate) fn wait(word: &AtomicU32, value: u32, time: Option<Duration>) {
    let time = time.map(|time| libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos() as _,
    });
    let time = time.as_ref().map_or(null(), |time| time as *const libc::timespec);
    // SAFETY: the word lives as long as the borrow, and the time, if any, as long as this function; the kernel only reads both.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, time, null_mut::<u32>(), 0) };
}

/// Wakes up to so many that sleep on the word, in any process (`FUTEX_WAKE`). How many were woken.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    let count = count.min(i32::MAX as u32);
    // SAFETY: only the address counts; nothing is read or written.
    let woken = check(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) });
    // The address is one of ours, so the call cannot fail.
    woken.unwrap_or_default() as u32
}
