//! The fork route: std's `pre_exec`, with a child that takes our steps and becomes the program by itself, so that the order
//! of things, the environment and the rules of look-up are the same on every route.
#![allow(unsafe_code)]

use super::after_fork::{self, Failure, Job};
use super::step::Step;
use super::strings::Pointers;
use super::{fd, mask, pipe};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process;
use std::sync::Arc;

/// What a user wants to run in the child before exec, and takes the responsibility for.
pub(crate) type Hook = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Owned by the closure, for the child to borrow.
pub(crate) struct Parts {
    pub(crate) steps: Vec<Step>,
    pub(crate) candidates: Pointers,
    pub(crate) argv: Pointers,
    pub(crate) envp: Pointers,
    pub(crate) hooks: Vec<Hook>,
    /// How many steps come before the hooks.
    pub(crate) steps_before_hooks: usize,
}

impl fmt::Debug for Parts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Parts").field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// Why the fork route made no program.
pub(crate) enum Refusal {
    /// No process was made.
    Fork(io::Error),
    /// A step or exec failed; `hook` is set if it was a hook of the user's. The child has been reaped.
    Child { failure: Failure, hook: bool },
}

/// Makes a child by std. What failed is told on a pipe of our own, and std's own is not relied on: it may have a number at
/// which the child wants something else, and is then overwritten.
pub(crate) fn spawn(parts: Parts) -> Result<process::Child, Refusal> {
    let wanted: Vec<RawFd> = parts.steps.iter().filter_map(target).collect();
    let (reader, mut writer) = pipe::pair().map_err(Refusal::Fork)?;
    if wanted.contains(&writer.as_raw_fd()) {
        writer = fd::duplicate_avoiding(writer.as_raw_fd(), &wanted).map_err(Refusal::Fork)?;
    }
    let mut command = process::Command::new("/");
    // No handler of the host runs in the copy: the child takes them away before it restores the mask.
    let old = mask::replace(&mask::set(true));
    hook(&mut command, parts, writer, old);
    let result = command.spawn();
    mask::replace(&old);
    // Our copy of the writing end lives in the closure; without it the end comes with exec.
    drop(command);
    let mut child = result.map_err(Refusal::Fork)?;
    match read_failure(&reader) {
        None => Ok(child),
        Some(refusal) => {
            // It is about to end, and if somebody else reaps it that is as good.
            let _ = child.wait();
            Err(refusal)
        }
    }
}

fn target(step: &Step) -> Option<RawFd> {
    match step {
        Step::Descriptor { to, .. } => Some(*to),
        _ => None,
    }
}

fn read_failure(reader: &OwnedFd) -> Option<Refusal> {
    let mut words = [0_u8; 12];
    let count = fd::read(reader.as_fd(), &mut words).ok()?;
    if count != words.len() {
        return None;
    }
    let [place, errno, hook] = [0, 4, 8]
        .map(|start| words.get(start..start + 4).and_then(|word| word.try_into().ok()).map_or(0, i32::from_ne_bytes));
    Some(Refusal::Child { failure: Failure { place: place as usize, errno }, hook: hook != 0 })
}

fn hook(command: &mut process::Command, parts: Parts, writer: OwnedFd, mask: libc::sigset_t) {
    let ignores_pipe = mask::ignores(libc::SIGPIPE);
    let child = move || -> io::Result<()> {
        // Capture the whole: a closure takes only the fields it names, and pointers are no owners.
        let parts = &parts;
        after_fork::clear_handlers();
        if ignores_pipe {
            after_fork::ignore_again(libc::SIGPIPE);
        }
        after_fork::restore_mask(&mask);
        let (before, after) = parts.steps.split_at(parts.steps_before_hooks.min(parts.steps.len()));
        let mut job = Job {
            steps: before,
            candidates: parts.candidates.get(),
            argv: parts.argv.get(),
            envp: parts.envp.get(),
            report: Default::default(),
        };
        let (failure, hook) = 'failed: {
            if let Err(failure) = job.prepare() {
                break 'failed (failure, false);
            }
            for hook in &parts.hooks {
                if let Err(error) = hook() {
                    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                    break 'failed (Failure { place: 0, errno }, true);
                }
            }
            job.steps = after;
            let failure = job.run();
            (Failure { place: failure.place + before.len(), ..failure }, false)
        };
        send_failure(writer.as_raw_fd(), failure, hook);
        // SAFETY: ends this process only, without running anything of the host's.
        unsafe { libc::_exit(127) }
    };
    // SAFETY: the closure keeps the law of `after_fork`: it makes system calls on memory made before. Hooks are the user's
    // own, who promised the same when calling `Command::pre_exec`.
    unsafe { command.pre_exec(child) };
}

fn send_failure(fd: RawFd, failure: Failure, hook: bool) {
    let mut words = [0_u8; 12];
    for (place, word) in words.chunks_exact_mut(4).zip([failure.place as i32, failure.errno, hook as i32]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    // SAFETY: the pointer is valid for reads of this length. It fits into the empty pipe.
    unsafe { libc::write(fd, words.as_ptr().cast(), words.len()) };
}
