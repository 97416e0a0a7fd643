//! What a child is: whose rights it has, which limits, which session and group, what it does with signals. Data only; `plan`
//! checks it and puts it in order.

use crate::signal::Signal;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// A user or group, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// By number.
    Number(u32),
    /// By name, looked up when the command is resolved.
    Name(String),
}

impl From<u32> for Id {
    fn from(number: u32) -> Id {
        Id::Number(number)
    }
}

impl From<&str> for Id {
    fn from(name: &str) -> Id {
        Id::Name(name.to_owned())
    }
}

impl From<String> for Id {
    fn from(name: String) -> Id {
        Id::Name(name)
    }
}

/// A resource that can be limited (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Size of the address space, in bytes (`RLIMIT_AS`).
    AddressSpace,
    /// Size of a core dump, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Size of the data segment, in bytes.
    Data,
    /// Size of files it writes, in bytes (`RLIMIT_FSIZE`).
    FileSize,
    /// Locked memory, in bytes.
    Memlock,
    /// Open descriptors.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Size of the stack, in bytes.
    Stack,
}

impl Resource {
    /// The system's number.
    pub(crate) fn number(self) -> i32 {
        (match self {
            Resource::AddressSpace => libc::RLIMIT_AS,
            Resource::Core => libc::RLIMIT_CORE,
            Resource::Cpu => libc::RLIMIT_CPU,
            Resource::Data => libc::RLIMIT_DATA,
            Resource::FileSize => libc::RLIMIT_FSIZE,
            Resource::Memlock => libc::RLIMIT_MEMLOCK,
            Resource::Nofile => libc::RLIMIT_NOFILE,
            Resource::Nproc => libc::RLIMIT_NPROC,
            Resource::Stack => libc::RLIMIT_STACK,
        }) as i32
    }
}

/// Where a child starts.
#[derive(Clone, Debug)]
pub(crate) enum Directory {
    Path(PathBuf),
    Fd(Arc<OwnedFd>),
}

/// Which signals a child blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mask {
    #[default]
    Empty,
    Inherit,
    Block(Vec<Signal>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) user: Option<Id>,
    pub(crate) group: Option<Id>,
    pub(crate) groups: Option<Vec<Id>>,
    pub(crate) keep_groups: bool,
    pub(crate) umask: Option<u32>,
    pub(crate) session: bool,
    pub(crate) process_group: Option<i32>,
    pub(crate) controlling_terminal: bool,
    pub(crate) foreground: bool,
    pub(crate) limits: Vec<(Resource, u64, u64)>,
    pub(crate) nice: Option<i32>,
    pub(crate) affinity: Option<Vec<usize>>,
    pub(crate) oom_score: Option<i32>,
    pub(crate) parent_death_signal: Option<Signal>,
    pub(crate) no_new_privileges: bool,
    pub(crate) mask: Mask,
    pub(crate) actions: Vec<(Signal, bool)>,
    pub(crate) restore_signals: bool,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) pipe_size: Option<usize>,
    pub(crate) close_others: bool,
}

impl Default for Attributes {
    fn default() -> Attributes {
        Attributes {
            user: None,
            group: None,
            groups: None,
            keep_groups: false,
            umask: None,
            session: false,
            process_group: None,
            controlling_terminal: false,
            foreground: false,
            limits: Vec::new(),
            nice: None,
            affinity: None,
            oom_score: None,
            parent_death_signal: None,
            no_new_privileges: false,
            mask: Mask::Empty,
            actions: Vec::new(),
            restore_signals: true,
            cgroup: None,
            pipe_size: None,
            close_others: true,
        }
    }
}
