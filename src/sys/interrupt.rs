//! Signals that ask this program to end, caught for a while: the handler writes to a pipe of ours, and afterwards everything is as it was
//! before. What is to be done about such a signal is decided far above.
#![allow(unsafe_code)]

use super::errno::check;
use super::{fd, pipe, poll};
use nix::errno::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The signals that are caught, unless the program was told to ignore them.
const WATCHED: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// There is one watch at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Where the handler writes; -1 if it is not to.
static WRITER: AtomicI32 = AtomicI32::new(-1);
/// The process that watches: a copy that was forked off has the handler too, but must not speak for us.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// How many threads are inside the handler, and may use the descriptor.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) number: libc::c_int,
    /// Somebody has typed it: the terminal has sent it to the whole group in its foreground.
    pub(crate) by_terminal: bool,
    pub(crate) at: Instant,
}

/// The signals are caught as long as it lives.
#[derive(Debug)]
pub(crate) struct Watch {
    reader: OwnedFd,
    writer: OwnedFd,
    before: Vec<Before>,
    has_ended: AtomicBool,
}

struct Before {
    number: libc::c_int,
    action: libc::sigaction,
}

impl std::fmt::Debug for Before {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.number)
    }
}

/// What the handler writes in one piece: the signal, whether the terminal sent it, and when.
const MESSAGE: usize = 10;

impl Watch {
    /// Begins to catch. `None` if somebody else in this program does.
    pub(crate) fn begin() -> io::Result<Option<Watch>> {
        let (reader, writer) = pipe::pair()?;
        fd::set_nonblocking(reader.as_fd())?;
        fd::set_nonblocking(writer.as_fd())?;
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        OWNER.store(own_pid(), Ordering::SeqCst);
        WRITER.store(writer.as_raw_fd(), Ordering::SeqCst);
        // From here on dropping it puts everything back.
        let mut watch = Watch { reader, writer, before: Vec::new(), has_ended: AtomicBool::new(false) };
        for number in WATCHED {
            let action = action_of(number)?;
            if action.sa_sigaction != libc::SIG_IGN {
                // Known before the handler is there, so that it is put back whatever happens.
                watch.before.push(Before { number, action });
                set_action(number, &ours())?;
            }
        }
        Ok(Some(watch))
    }

    /// Waits for the next signal. `None` after [`end`](Self::end).
    pub(crate) fn next(&self) -> io::Result<Option<Heard>> {
        loop {
            poll::wait_readable(self.reader.as_fd(), None)?;
            match self.next_nowait() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// The same, and the error `WouldBlock` where there is none.
    pub(crate) fn next_nowait(&self) -> io::Result<Option<Heard>> {
        let mut message = [0; MESSAGE];
        fd::read(self.reader.as_fd(), &mut message)?;
        let [number, by_terminal, nanos @ ..] = message;
        if self.has_ended.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let age = monotonic().saturating_sub(Duration::from_nanos(u64::from_ne_bytes(nanos)));
        let now = Instant::now();
        let at = now.checked_sub(age).unwrap_or(now);
        Ok(Some(Heard { number: number.into(), by_terminal: by_terminal != 0, at }))
    }

    /// Lets [`next`](Self::next) come back.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // A pipe that is full of signals wakes as well.
        let _ = pipe::write(self.writer.as_fd(), &[0; MESSAGE]);
    }

    /// Lets a signal do what it would have done without us, now and from now on.
    pub(crate) fn pass_on(&self, number: libc::c_int) {
        for before in self.before.iter().filter(|before| before.number == number) {
            put_back(before);
            // SAFETY: no pointers; a signal to this process, which has the disposition that its program chose.
            let _ = check(unsafe { libc::kill(own_pid(), number) });
        }
    }
}

/// Readable when a signal has come.
impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// Every signal has the disposition that it had before, unless somebody has given it another one meanwhile.
impl Drop for Watch {
    fn drop(&mut self) {
        self.before.iter().for_each(put_back);
        WRITER.store(-1, Ordering::SeqCst);
        // A thread that has come into the handler before may be about to write. In a forked copy nobody else is there.
        while INSIDE.load(Ordering::SeqCst) > 0 && OWNER.load(Ordering::SeqCst) == own_pid() {
            std::thread::yield_now();
        }
        TAKEN.store(false, Ordering::SeqCst);
    }
}

fn put_back(before: &Before) {
    if action_of(before.number).is_ok_and(|now| now.sa_sigaction == handler()) {
        // It was accepted once.
        let _ = set_action(before.number, &before.action);
    }
}

fn handler() -> libc::sighandler_t {
    heard as *const () as libc::sighandler_t
}

fn ours() -> libc::sigaction {
    // SAFETY: a plain C struct of integers, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    action.sa_mask = super::mask::set(false);
    action
}

/// The disposition of a signal (sigaction(2) with no new action).
fn action_of(number: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; the old one is written to memory of the right type.
    check(unsafe { libc::sigaction(number, null(), action.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the struct is filled.
    Ok(unsafe { action.assume_init() })
}

/// sigaction(2).
fn set_action(number: libc::c_int, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: the new action is valid: ours, whose handler keeps the law of signal-safety(7), or one that was in force before.
    check(unsafe { libc::sigaction(number, action, std::ptr::null_mut()) }).map(drop)
}

/// The handler. Nothing in it but system calls, atomics and memory of its own: signal-safety(7).
extern "C" fn heard(number: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    INSIDE.fetch_add(1, Ordering::SeqCst);
    let writer = WRITER.load(Ordering::SeqCst);
    if OWNER.load(Ordering::SeqCst) != own_pid() {
        end_copy(number);
    } else if writer >= 0 {
        // SAFETY: the kernel gives a valid pointer to a handler that was set with SA_SIGINFO.
        let by_terminal = number == libc::SIGINT && is_from_kernel(unsafe { &*info });
        let mut message = [0_u8; MESSAGE];
        let [to_number, to_origin, nanos @ ..] = &mut message;
        (*to_number, *to_origin) = (number as u8, u8::from(by_terminal));
        *nanos = (monotonic().as_nanos() as u64).to_ne_bytes();
        // SAFETY: the pointer is valid for reads of this length. The descriptor is open as long as somebody is inside.
        unsafe { libc::write(writer, message.as_ptr().cast(), message.len()) };
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    Errno::set_raw(errno);
}

/// A forked copy of the program that has not become another one: the signal ends it, when the handler has come back.
fn end_copy(number: libc::c_int) {
    // SAFETY: a plain C struct of integers, for which zeros are valid; they mean the default action.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    let _ = set_action(number, &default);
    // SAFETY: no pointers; a signal to this very process.
    let _ = unsafe { libc::kill(own_pid(), number) };
}

#[cfg(target_os = "linux")]
fn is_from_kernel(info: &libc::siginfo_t) -> bool {
    info.si_code == libc::SI_KERNEL
}

#[cfg(not(target_os = "linux"))]
fn is_from_kernel(info: &libc::siginfo_t) -> bool {
    info.si_pid == 0
}

fn own_pid() -> libc::pid_t {
    // SAFETY: cannot fail.
    unsafe { libc::getpid() }
}

/// clock_gettime(2): the clock of `Instant`, as a number.
fn monotonic() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for a write; the clock exists on every system.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()) };
    // SAFETY: zeros are valid, too.
    let now = unsafe { now.assume_init() };
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
