//! Twin of `clone` for systems whose kernel has no such births: every route is closed, and the portable engine serves.

use super::after_fork::{Failure, Job};
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// A kernel route; none is open here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Clone3,
    Clone,
}

/// A new process; there is none here.
pub(crate) struct Born {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: Option<OwnedFd>,
}

/// Why there is no new program.
#[allow(dead_code)] // the second never happens here
pub(crate) enum Refusal {
    Clone(io::Error),
    Child(Born, Failure),
}

/// Refuses.
pub(crate) fn spawn(_route: Route, _job: &Job<'_>, _cgroup: Option<RawFd>) -> Result<Born, Refusal> {
    Err(Refusal::Clone(io::ErrorKind::Unsupported.into()))
}

/// Whether the route is open: no.
pub(crate) fn probe(_route: Route) -> io::Result<bool> {
    Ok(false)
}
