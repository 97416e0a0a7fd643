//! The kernel, one subject per file. Every unsafe block of the crate is here: each holds one call and says why this call
//! is sound. What the files decide is mechanism only; no policy of the library lives at this level.

#[cfg(target_os = "linux")]
pub(crate) mod affinity;
#[cfg(not(target_os = "linux"))]
#[path = "affinity_absent.rs"]
pub(crate) mod affinity;
pub(crate) mod after_fork;
#[cfg(target_os = "linux")]
pub(crate) mod calls;
#[cfg(not(target_os = "linux"))]
#[path = "calls_absent.rs"]
pub(crate) mod calls;
#[cfg(target_os = "linux")]
pub(crate) mod clone;
#[cfg(not(target_os = "linux"))]
#[path = "clone_absent.rs"]
pub(crate) mod clone;
pub(crate) mod clock;
#[cfg(all(feature = "future", target_os = "linux", not(procession_portable)))]
pub(crate) mod edges;
#[cfg(all(feature = "future", any(not(target_os = "linux"), procession_portable)))]
#[path = "edges_absent.rs"]
pub(crate) mod edges;
pub(crate) mod environ;
#[cfg(target_os = "linux")]
pub(crate) mod epoll;
#[cfg(not(target_os = "linux"))]
#[path = "epoll_absent.rs"]
pub(crate) mod epoll;
pub(crate) mod errno;
#[cfg(all(any(feature = "ipc", all(feature = "future", not(procession_portable))), target_os = "linux"))]
pub(crate) mod eventfd;
pub(crate) mod fd;
pub(crate) mod fork;
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub(crate) mod futex;
pub(crate) mod interrupt;
pub(crate) mod mask;
pub(crate) mod memory;
#[cfg(target_os = "linux")]
pub(crate) mod pidfd;
#[cfg(not(target_os = "linux"))]
#[path = "pidfd_absent.rs"]
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod procfs;
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub(crate) mod program;
pub(crate) mod pty;
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub(crate) mod record_lock;
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub(crate) mod shared;
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub(crate) mod socket;
pub(crate) mod step;
pub(crate) mod strings;
pub(crate) mod terminal;
pub(crate) mod wait;
