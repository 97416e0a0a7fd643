//! What runs between clone and exec. The law of this file:
//!
//! - no allocation, no lock, no panic, no drop;
//! - nothing is read that another thread may change, and nothing is written but the report: the child borrows the memory
//!   of its parent until exec;
//! - everything needed was made before, in the `Job`;
//! - whatever can fail is a step, and its failure is reported as that step;
//! - a table of descriptors that is still the parent's is not touched: `Step::OwnTable` comes before everything that opens, moves or
//!   closes one.
//!
//! The same code serves the clone routes (memory shared with the parent) and the fork route (a copy). It leaves by exec or
//! by an errno; whoever called it ends the process.
#![allow(unsafe_code)]

use super::errno;
use super::step::Step;
use std::ffi::{c_char, c_int};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Everything the child needs, borrowed from the parent.
pub(crate) struct Job<'a> {
    /// What to do before exec, in order.
    pub(crate) steps: &'a [Step],
    /// The program, in the order in which the places are tried, ended by a null pointer.
    pub(crate) candidates: &'a [*const c_char],
    /// The arguments, ended by a null pointer.
    pub(crate) argv: &'a [*const c_char],
    /// The environment, ended by a null pointer.
    pub(crate) envp: &'a [*const c_char],
    /// Where the child says what failed.
    pub(crate) report: Report,
}

/// What the child tells its parent, in memory that both share. All zero: nothing failed.
#[derive(Debug, Default)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(crate) struct Report {
    /// Set as the first thing the child does, so that a parent can tell shared memory from a copy.
    alive: AtomicI32,
    /// The place of the failed step in the list; the list's length stands for exec.
    place: AtomicI32,
    /// Its errno.
    errno: AtomicI32,
}

/// A step that failed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The place of the step in the list; the list's length stands for exec.
    pub(crate) place: usize,
    /// The errno.
    pub(crate) errno: i32,
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // nobody shares memory with a child there
impl Report {
    /// Whether the child has run at all in this memory.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Relaxed) != 0
    }

    /// The child says that it runs.
    pub(crate) fn set_alive(&self) {
        self.alive.store(1, Relaxed);
    }

    /// What failed, if anything did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self.errno.load(Relaxed) {
            0 => None,
            errno => Some(Failure { place: self.place.load(Relaxed) as usize, errno }),
        }
    }

    /// The child says what failed.
    pub(crate) fn fail(&self, failure: Failure) {
        self.place.store(failure.place as i32, Relaxed);
        self.errno.store(failure.errno, Relaxed);
    }
}

impl Job<'_> {
    /// Takes every step, in order.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        for (place, step) in self.steps.iter().enumerate() {
            if let Err(errno) = take(step) {
                return Err(Failure { place, errno });
            }
        }
        Ok(())
    }

    /// Becomes the program. Returns only if no candidate could be run, with the rule of execvp(3): a place that is missing
    /// is passed over, a permission error is kept in mind and wins over a later "not found".
    pub(crate) fn exec(&self) -> Failure {
        let mut errno = libc::ENOENT;
        for &path in self.candidates {
            if path.is_null() {
                break;
            }
            // SAFETY: path, argv and envp are zero-ended strings and null-ended lists that live until exec replaces them.
            unsafe { libc::execve(path, self.argv.as_ptr(), self.envp.as_ptr()) };
            match errno::last() {
                libc::EACCES => errno = libc::EACCES,
                missing @ (libc::ENOENT | libc::ENOTDIR) if errno != libc::EACCES => errno = missing,
                libc::ENOENT | libc::ENOTDIR => {}
                other => {
                    errno = other;
                    break;
                }
            }
        }
        Failure { place: self.steps.len(), errno }
    }

    /// The whole child half: steps, exec, and on failure the report.
    pub(crate) fn run(&self) -> Failure {
        let failure = match self.prepare() {
            Ok(()) => self.exec(),
            Err(failure) => failure,
        };
        self.report.fail(failure);
        failure
    }
}

/// `Ok` or the errno.
type Taken = Result<(), i32>;

fn done(result: c_int) -> Taken {
    if result < 0 { Err(errno::last()) } else { Ok(()) }
}

fn take(step: &Step) -> Taken {
    match step {
        Step::OwnTable { first } => linux::take_own_table(*first),
        Step::Signal { signal, ignore } => set_action(*signal, *ignore),
        Step::Descriptor { from, to } => place_descriptor(*from, *to),
        Step::ControlGroup { procs } => write_all(*procs, b"0"),
        // SAFETY: the path is a zero-ended string.
        Step::Directory(path) => done(unsafe { libc::chdir(path.as_ptr()) }),
        // SAFETY: an integer argument; a number that is not open is an error.
        Step::DirectoryDescriptor(fd) => done(unsafe { libc::fchdir(*fd) }),
        Step::Umask(mode) => {
            // SAFETY: cannot fail.
            unsafe { libc::umask(*mode as libc::mode_t) };
            Ok(())
        }
        // SAFETY: no arguments.
        Step::Session => done(unsafe { libc::setsid() }),
        // SAFETY: integer arguments.
        Step::ProcessGroup(group) => done(unsafe { libc::setpgid(0, *group) }),
        // SAFETY: TIOCSCTTY takes an integer.
        Step::ControllingTerminal { descriptor } => done(unsafe { libc::ioctl(*descriptor, libc::TIOCSCTTY as _, 0) }),
        Step::Foreground { terminal } => take_foreground(*terminal),
        Step::Nice(increment) => add_nice(*increment),
        Step::Affinity(words) => linux::set_affinity(words),
        Step::OomScore(score) => linux::set_oom_score(*score),
        Step::Limit { resource, soft, hard } => set_limit(*resource, *soft, *hard),
        Step::Groups(groups) => ids::set_groups(groups),
        Step::GroupId(id) => ids::set_group(*id),
        Step::UserId(id) => ids::set_user(*id),
        Step::ParentDeathSignal { signal, parent } => linux::set_parent_death_signal(*signal, *parent),
        Step::NoNewPrivileges => linux::set_no_new_privileges(),
        Step::SignalMask(signals) => set_mask(signals),
        Step::CloseOthers(kept) => close_others(kept),
    }
}

fn set_action(signal: c_int, ignore: bool) -> Taken {
    // SAFETY: an all-zero sigaction is SIG_DFL with an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: the new action is initialised and names no handler; the old one is not asked for.
    done(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })
}

/// Gives every signal that has a handler its default action; what is ignored stays ignored. For routes where the kernel
/// does not do it (`CLONE_CLEAR_SIGHAND`). Called with all signals blocked.
pub(crate) fn clear_handlers() {
    for signal in 1..=64 {
        // SAFETY: an all-zero sigaction is a valid place to read into.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null new action only asks.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
        if asked == 0 && action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN {
            // The number was valid a line ago, so this cannot fail.
            let _ = set_action(signal, false);
        }
    }
}

/// Ignores a signal that the host ignores: std gives SIGPIPE its default action, and whether the child wants that is for
/// the steps to say.
pub(crate) fn ignore_again(signal: c_int) {
    // A number that the host ignores is valid, so this cannot fail.
    let _ = set_action(signal, true);
}

/// Restores a mask, for routes that had every signal blocked across the birth.
pub(crate) fn restore_mask(mask: &libc::sigset_t) {
    // SAFETY: the mask is a valid set; SIG_SETMASK with it cannot fail.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

fn set_mask(signals: &[c_int]) -> Taken {
    let mut mask = super::mask::set(false);
    for &signal in signals {
        super::mask::add(&mut mask, signal);
    }
    // SAFETY: the mask is a valid set.
    done(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut()) })
}

fn place_descriptor(from: RawFd, to: RawFd) -> Taken {
    if from == to {
        // SAFETY: an integer argument; the flag is cleared in the child's own table only.
        return done(unsafe { libc::fcntl(from, libc::F_SETFD, 0) });
    }
    loop {
        // SAFETY: integer arguments, and the table is the child's own.
        match done(unsafe { libc::dup2(from, to) }) {
            Err(libc::EINTR | libc::EBUSY) => {}
            result => return result,
        }
    }
}

fn write_all(fd: RawFd, bytes: &[u8]) -> Taken {
    loop {
        // SAFETY: the pointer is valid for reads of this length.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match written {
            count if count == bytes.len() as isize => return Ok(()),
            count if count >= 0 => return Err(libc::EIO),
            _ if errno::last() == libc::EINTR => {}
            _ => return Err(errno::last()),
        }
    }
}

/// tcsetpgrp from a group that is still in the background raises SIGTTOU, which would stop the child: blocked for the
/// moment.
fn take_foreground(terminal: RawFd) -> Taken {
    let mut mask = super::mask::set(false);
    super::mask::add(&mut mask, libc::SIGTTOU);
    let mut before = super::mask::set(false);
    // SAFETY: both are valid sets.
    done(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &mask, &mut before) })?;
    // SAFETY: no arguments, cannot fail.
    let group = unsafe { libc::getpgrp() };
    // SAFETY: integer arguments; a descriptor that is no terminal is an error.
    let taken = done(unsafe { libc::tcsetpgrp(terminal, group) });
    // SAFETY: a valid set.
    done(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) })?;
    taken
}

fn add_nice(increment: c_int) -> Taken {
    // SAFETY: integer arguments; for the calling process it cannot fail, and a nice value of -1 is told apart by not asking
    // for an error.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: integer arguments.
    done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, now.saturating_add(increment)) })
}

fn set_limit(resource: c_int, soft: u64, hard: u64) -> Taken {
    let limit = libc::rlimit { rlim_cur: soft as libc::rlim_t, rlim_max: hard as libc::rlim_t };
    // SAFETY: the struct is initialised and lives during the call.
    done(unsafe { libc::setrlimit(resource as _, &limit) })
}

/// The identity of the child. On Linux these are raw calls: the C library's own change every thread of the process, and
/// before exec that memory is still our parent's (setresuid(2), "C library/kernel differences").
#[cfg(target_os = "linux")]
mod ids {
    use super::{Taken, done};

    pub(super) fn set_groups(groups: &[u32]) -> Taken {
        // SAFETY: the pointer is valid for reads of this many ids.
        done(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } as i32)
    }

    pub(super) fn set_group(id: u32) -> Taken {
        // SAFETY: integer arguments.
        done(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) } as i32)?;
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        // SAFETY: three valid places to write an id to.
        done(unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) })?;
        all_are(id, [real, effective, saved])
    }

    pub(super) fn set_user(id: u32) -> Taken {
        // SAFETY: integer arguments.
        done(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) } as i32)?;
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        // SAFETY: three valid places to write an id to.
        done(unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) })?;
        all_are(id, [real, effective, saved])
    }

    fn all_are(id: u32, three: [u32; 3]) -> Taken {
        if three == [id; 3] { Ok(()) } else { Err(libc::EPERM) }
    }
}

/// Elsewhere the portable engine has forked, so the child has memory and threads of its own.
#[cfg(not(target_os = "linux"))]
mod ids {
    use super::{Taken, done};

    pub(super) fn set_groups(groups: &[u32]) -> Taken {
        // SAFETY: the pointer is valid for reads of this many ids.
        done(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) })
    }

    pub(super) fn set_group(id: u32) -> Taken {
        // SAFETY: an integer argument.
        done(unsafe { libc::setgid(id) })
    }

    pub(super) fn set_user(id: u32) -> Taken {
        // SAFETY: an integer argument.
        done(unsafe { libc::setuid(id) })
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{RawFd, Taken, done, errno, write_all};

    pub(super) fn set_affinity(words: &[usize]) -> Taken {
        let size = std::mem::size_of_val(words);
        // SAFETY: the pointer is valid for reads of `size` bytes.
        done(unsafe { libc::sched_setaffinity(0, size, words.as_ptr().cast()) })
    }

    /// close_range(2) with `CLOSE_RANGE_UNSHARE`, Linux 5.9, used from 6.11 on: copies what stands below the range, and closes in the copy what does. An
    /// error, also that of a kernel that does not know it, has closed nothing.
    pub(super) fn take_own_table(first: RawFd) -> Taken {
        let flags = libc::CLOSE_RANGE_UNSHARE;
        // SAFETY: integer arguments. What is closed is closed in a table that nobody else has.
        done(unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, flags) } as i32)
    }

    pub(super) fn set_oom_score(score: i32) -> Taken {
        // "-1000" at the longest; written from the end.
        let mut text = [0_u8; 12];
        let mut start = text.len();
        let mut rest = score.unsigned_abs();
        loop {
            start = start.saturating_sub(1);
            let Some(place) = text.get_mut(start) else { return Err(libc::EINVAL) };
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if score < 0 {
            start = start.saturating_sub(1);
            let Some(place) = text.get_mut(start) else { return Err(libc::EINVAL) };
            *place = b'-';
        }
        let Some(text) = text.get(start..) else { return Err(libc::EINVAL) };
        let path = c"/proc/self/oom_score_adj";
        // SAFETY: a zero-ended path and flags that need no mode.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(errno::last());
        }
        let result = write_all(fd, text);
        // SAFETY: the descriptor was opened above and is not used after.
        unsafe { libc::close(fd) };
        result
    }

    pub(super) fn set_parent_death_signal(signal: i32, parent: i32) -> Taken {
        // SAFETY: PR_SET_PDEATHSIG takes an integer.
        done(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) })?;
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::getppid() } == parent { Ok(()) } else { Err(libc::ESRCH) }
    }

    pub(super) fn set_no_new_privileges() -> Taken {
        // SAFETY: PR_SET_NO_NEW_PRIVS takes an integer.
        done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
    }
}

/// The plan refuses these steps on other systems, so this is never reached; if it were, it would say so.
#[cfg(not(target_os = "linux"))]
mod linux {
    use super::{RawFd, Taken};

    pub(super) fn take_own_table(_first: RawFd) -> Taken {
        Err(libc::ENOSYS)
    }

    pub(super) fn set_affinity(_words: &[usize]) -> Taken {
        Err(libc::ENOSYS)
    }

    pub(super) fn set_oom_score(_score: i32) -> Taken {
        Err(libc::ENOSYS)
    }

    pub(super) fn set_parent_death_signal(_signal: i32, _parent: i32) -> Taken {
        Err(libc::ENOSYS)
    }

    pub(super) fn set_no_new_privileges() -> Taken {
        Err(libc::ENOSYS)
    }
}

/// Marks everything above 2 that is not in `kept` (ascending) close-on-exec. Marks rather than closes: on the fork route
/// descriptors that carry an error home must live until exec.
fn close_others(kept: &[RawFd]) -> Taken {
    let mut lowest: RawFd = 3;
    for &fd in kept {
        if fd >= lowest {
            if fd > lowest {
                mark_range(lowest, fd - 1)?;
            }
            lowest = fd.saturating_add(1);
        }
    }
    mark_range(lowest, RawFd::MAX)
}

#[cfg(target_os = "linux")]
fn mark_range(first: RawFd, last: RawFd) -> Taken {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: integer arguments, and the table is the child's own.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first as u32, last as u32, flags) };
    if result == 0 { Ok(()) } else { mark_listed(first, last) }
}

#[cfg(not(target_os = "linux"))]
fn mark_range(first: RawFd, last: RawFd) -> Taken {
    mark_polled(first, last)
}

/// Without close_range (before Linux 5.11, or forbidden): walk the list of open descriptors, without malloc.
#[cfg(target_os = "linux")]
fn mark_listed(first: RawFd, last: RawFd) -> Taken {
    let path = c"/proc/self/fd";
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a zero-ended path and flags that need no mode.
    let directory = unsafe { libc::open(path.as_ptr(), flags) };
    if directory < 0 {
        return mark_polled(first, last);
    }
    #[repr(align(8))]
    struct Entries([u8; 1024]);
    let mut entries = Entries([0; 1024]);
    loop {
        let (start, size) = (entries.0.as_mut_ptr(), entries.0.len());
        // SAFETY: the buffer is valid for writes of its size.
        let count = unsafe { libc::syscall(libc::SYS_getdents64, directory, start, size) };
        let Some(mut rest) = usize::try_from(count).ok().and_then(|count| entries.0.get(..count)) else {
            break;
        };
        if rest.is_empty() {
            break;
        }
        // struct linux_dirent64: inode 8, offset 8, length 2, type 1, name.
        while let (Some(&[low, high]), Some(name)) = (rest.get(16..18), rest.get(19..)) {
            let length = u16::from_ne_bytes([low, high]) as usize;
            if let Some(fd) = std::ffi::CStr::from_bytes_until_nul(name).ok().and_then(number)
                && fd >= first
                && fd <= last
            {
                mark(fd);
            }
            let Some(next) = rest.get(length.max(1)..) else { break };
            rest = next;
        }
    }
    // SAFETY: the descriptor was opened above and is not used after.
    unsafe { libc::close(directory) };
    Ok(())
}

#[cfg(target_os = "linux")]
fn number(name: &std::ffi::CStr) -> Option<RawFd> {
    let mut value: RawFd = 0;
    for &byte in name.to_bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add((byte - b'0') as RawFd)?;
    }
    Some(value)
}

fn mark(fd: RawFd) {
    // SAFETY: integer arguments; a number that is not open is an error, and then there is nothing to mark.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Without /proc as well: ask poll(2), which names the numbers that are not open, a block at a time. Bounded by the larger
/// of the limits and by a million.
fn mark_polled(first: RawFd, last: RawFd) -> Taken {
    const BLOCK: usize = 256;
    // SAFETY: an all-zero rlimit is a valid place to read into.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid; the resource exists everywhere.
    done(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE as _, &mut limit) })?;
    let bound = (limit.rlim_max.max(limit.rlim_cur).min(1 << 20) as RawFd).saturating_sub(1);
    let last = last.min(bound);
    let mut start = first;
    while start <= last {
        let mut fds = [libc::pollfd { fd: -1, events: 0, revents: 0 }; BLOCK];
        let mut count = 0;
        for (offset, entry) in fds.iter_mut().enumerate() {
            let fd = start.saturating_add(offset as RawFd);
            if fd > last {
                break;
            }
            entry.fd = fd;
            count = offset + 1;
        }
        // SAFETY: the array is valid for `count` entries; a zero timeout does not wait.
        let answered = unsafe { libc::poll(fds.as_mut_ptr(), count as libc::nfds_t, 0) };
        for entry in fds.iter().take(count) {
            // poll refuses blocks above a lowered limit: then each number is marked untested.
            if answered < 0 || entry.revents & libc::POLLNVAL == 0 {
                mark(entry.fd);
            }
        }
        start = start.saturating_add(BLOCK as RawFd);
    }
    Ok(())
}
