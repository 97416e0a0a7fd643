//! environ(7) without a copy for each variable, for programs with one thread.
//!
//! The array belongs to the C library, and whoever changes it in Rust holds a lock that only std can take. With one thread nobody can
//! change it while it is read; glibc says whether that is so (`__libc_single_threaded`, glibc 2.32). Everybody else asks std, which
//! copies every variable.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// Shows every entry, as `KEY=value`. False, and nothing is shown, if there may be other threads.
pub(crate) fn visit_if_alone(mut show: impl FnMut(&[u8])) -> bool {
    if !is_alone() {
        return false;
    }
    let mut place = array();
    while !place.is_null() {
        // SAFETY: within the array, which ends with a null pointer; no other thread can change it.
        let entry = unsafe { *place };
        if entry.is_null() {
            break;
        }
        // SAFETY: an entry is a zero-ended string, and no other thread can change it.
        show(unsafe { CStr::from_ptr(entry) }.to_bytes());
        place = place.wrapping_add(1);
    }
    true
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn array() -> *const *const libc::c_char {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: the C library defines it; with one thread nobody writes to it meanwhile.
    unsafe { environ }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_alone() -> bool {
    use std::sync::atomic::{AtomicPtr, Ordering};
    /// Where glibc keeps its answer, once it was looked up; dangling if it has none.
    static ANSWER: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
    const NONE: *mut libc::c_char = std::ptr::dangling_mut();
    let mut answer = ANSWER.load(Ordering::Relaxed);
    if answer.is_null() {
        let name = c"__libc_single_threaded";
        // SAFETY: a zero-ended name; the default search order.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        answer = if found.is_null() { NONE } else { found.cast() };
        ANSWER.store(answer, Ordering::Relaxed);
    }
    // SAFETY: the variable is one byte of glibc's and lives as long as the process; it is read as often as it is asked for, because
    // a thread may have been started since.
    answer != NONE && unsafe { answer.read_volatile() } != 0
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn array() -> *const *const libc::c_char {
    std::ptr::null()
}

/// Nobody says.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn is_alone() -> bool {
    false
}
