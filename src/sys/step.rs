//! What a child can do between its birth and exec, as plain values. `plan` puts them in order, `after_fork` runs them and
//! `error` names them: one list, three readers, and therefore it lives below all three.

use std::ffi::CString;
use std::fmt;
use std::os::fd::RawFd;

/// One thing that a child does before it becomes the program.
///
/// Steps are data: a [`Plan`](crate::Plan) lists them in the order in which the child will take them, and an error names
/// the one that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Take a table of descriptors of its own with those below this number, where the parent's is shared until then (close_range(2)
    /// with `CLOSE_RANGE_UNSHARE`). It is in no plan: a spawn puts it before all others if that is cheaper than a copy.
    OwnTable {
        /// The first number that is left out.
        first: RawFd,
    },
    /// Give a signal its default action (`None` for `ignore`: sigaction(2) with `SIG_DFL`) or ignore it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Ignore it instead of giving it its default action.
        ignore: bool,
    },
    /// Put a descriptor of ours at a number of the child's (dup2(2)); equal numbers only lose their close-on-exec flag.
    Descriptor {
        /// The parent's number.
        from: RawFd,
        /// The child's number.
        to: RawFd,
    },
    /// Join a control group by writing to its `cgroup.procs`, opened before.
    ControlGroup {
        /// The open `cgroup.procs`.
        procs: RawFd,
    },
    /// Change directory by path (chdir(2)).
    Directory(CString),
    /// Change directory by descriptor (fchdir(2)).
    DirectoryDescriptor(RawFd),
    /// Set the file mode creation mask (umask(2)).
    Umask(u32),
    /// Become the leader of a new session without a terminal (setsid(2)).
    Session,
    /// Join a process group, or lead a new one if 0 (setpgid(2)).
    ProcessGroup(i32),
    /// Make the terminal at this descriptor the controlling terminal of the session (TIOCSCTTY).
    ControllingTerminal {
        /// The child's number.
        descriptor: RawFd,
    },
    /// Make the child's group the foreground group of a terminal (tcsetpgrp(3)).
    Foreground {
        /// The open terminal.
        terminal: RawFd,
    },
    /// Add to the nice value (setpriority(2)).
    Nice(i32),
    /// Run on these processors only (sched_setaffinity(2)); the words of the bit mask.
    Affinity(Vec<usize>),
    /// Set how much the kernel likes to kill this process when memory ends (`/proc/self/oom_score_adj`).
    OomScore(i32),
    /// Set a resource limit (setrlimit(2)).
    Limit {
        /// The system's number of the resource.
        resource: i32,
        /// The limit that holds.
        soft: u64,
        /// The limit up to which the process may raise it.
        hard: u64,
    },
    /// Set the supplementary groups (setgroups(2)).
    Groups(Vec<u32>),
    /// Set the real, effective and saved group id (setresgid(2)).
    GroupId(u32),
    /// Set the real, effective and saved user id (setresuid(2)).
    UserId(u32),
    /// Be sent a signal when the parent ends (PR_SET_PDEATHSIG); fails if the parent has ended already.
    ParentDeathSignal {
        /// The signal's number.
        signal: i32,
        /// The pid that the parent must have.
        parent: i32,
    },
    /// Never gain privileges by exec (PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
    /// Block exactly these signals (sigprocmask(2)).
    SignalMask(Vec<i32>),
    /// Mark every descriptor above 2 close-on-exec, except these, in ascending order (close_range(2)).
    CloseOthers(Vec<RawFd>),
}

impl Step {
    /// The name of the step in errors: the system call or file that does it.
    pub fn name(&self) -> &'static str {
        match self {
            Step::OwnTable { .. } => "own table",
            Step::Signal { .. } => "sigaction",
            Step::Descriptor { .. } => "dup2",
            Step::ControlGroup { .. } => "cgroup",
            Step::Directory(_) => "chdir",
            Step::DirectoryDescriptor(_) => "fchdir",
            Step::Umask(_) => "umask",
            Step::Session => "setsid",
            Step::ProcessGroup(_) => "setpgid",
            Step::ControllingTerminal { .. } => "controlling terminal",
            Step::Foreground { .. } => "foreground",
            Step::Nice(_) => "nice",
            Step::Affinity(_) => "affinity",
            Step::OomScore(_) => "oom score",
            Step::Limit { .. } => "setrlimit",
            Step::Groups(_) => "setgroups",
            Step::GroupId(_) => "setgid",
            Step::UserId(_) => "setuid",
            Step::ParentDeathSignal { .. } => "parent death signal",
            Step::NoNewPrivileges => "no new privileges",
            Step::SignalMask(_) => "signal mask",
            Step::CloseOthers(_) => "close others",
        }
    }

    /// The number of an open descriptor of the parent's that it needs. Every step is named, so that a new one is thought about: a
    /// number that is forgotten here may be missing in the child.
    pub(crate) fn needed(&self) -> Option<RawFd> {
        match self {
            Step::Descriptor { from: number, .. }
            | Step::ControlGroup { procs: number }
            | Step::DirectoryDescriptor(number)
            | Step::Foreground { terminal: number } => Some(*number),
            // These are numbers of the child's, which are in place by then.
            Step::ControllingTerminal { .. } | Step::CloseOthers(_) => None,
            Step::OwnTable { .. }
            | Step::Signal { .. }
            | Step::Directory(_)
            | Step::Umask(_)
            | Step::Session
            | Step::ProcessGroup(_)
            | Step::Nice(_)
            | Step::Affinity(_)
            | Step::OomScore(_)
            | Step::Limit { .. }
            | Step::Groups(_)
            | Step::GroupId(_)
            | Step::UserId(_)
            | Step::ParentDeathSignal { .. }
            | Step::NoNewPrivileges
            | Step::SignalMask(_) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Signal { signal, ignore } => {
                write!(out, "signal {signal} {}", if *ignore { "ignored" } else { "default" })
            }
            Step::OwnTable { first } => write!(out, "own table of descriptors, below {first}"),
            Step::Descriptor { from, to } if from == to => write!(out, "descriptor {to} kept"),
            Step::Descriptor { from, to } => write!(out, "descriptor {to} <- {from}"),
            Step::ControlGroup { procs } => write!(out, "cgroup by descriptor {procs}"),
            Step::Directory(path) => write!(out, "chdir {}", path.to_string_lossy()),
            Step::DirectoryDescriptor(fd) => write!(out, "fchdir {fd}"),
            Step::Umask(mode) => write!(out, "umask {mode:03o}"),
            Step::ProcessGroup(group) => write!(out, "setpgid {group}"),
            Step::Foreground { terminal } => write!(out, "foreground of terminal {terminal}"),
            Step::Nice(increment) => write!(out, "nice {increment:+}"),
            Step::Affinity(words) => write!(out, "affinity {words:x?}"),
            Step::OomScore(score) => write!(out, "oom score {score}"),
            Step::Limit { resource, soft, hard } => write!(out, "limit {resource} = {soft}:{hard}"),
            Step::Groups(groups) => write!(out, "setgroups {groups:?}"),
            Step::GroupId(id) => write!(out, "setgid {id}"),
            Step::UserId(id) => write!(out, "setuid {id}"),
            Step::ParentDeathSignal { signal, .. } => write!(out, "parent death signal {signal}"),
            Step::SignalMask(signals) => write!(out, "signal mask {signals:?}"),
            Step::CloseOthers(kept) => write!(out, "close others, keep {kept:?}"),
            Step::ControllingTerminal { descriptor } => write!(out, "controlling terminal at descriptor {descriptor}"),
            Step::Session | Step::NoNewPrivileges => out.write_str(self.name()),
        }
    }
}
