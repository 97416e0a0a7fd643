//! The kernel, one subject per file. Every unsafe block of the crate is here: each holds one call and says why this call
//! is sound. What the files decide is mechanism only; no policy of the library lives at this level.

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
pub(crate) mod environ;
pub(crate) mod errno;
pub(crate) mod fd;
pub(crate) mod fork;
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
pub(crate) mod pty;
pub(crate) mod step;
pub(crate) mod strings;
pub(crate) mod terminal;
pub(crate) mod wait;
