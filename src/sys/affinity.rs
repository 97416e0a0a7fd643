//! sched_setaffinity(2): on which processors this thread may run.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processors on which this thread may run.
pub(crate) fn allowed() -> Vec<usize> {
    let this_thread = Pid::from_raw(0);
    let Ok(set) = sched_getaffinity(this_thread) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&number| set.is_set(number).unwrap_or(false)).collect()
}

/// All that there may be; the system takes those that this program may use.
pub(crate) fn everywhere() -> Vec<usize> {
    (0..CpuSet::count()).collect()
}

/// This thread runs on these processors from now on. True if the system agrees.
pub(crate) fn stay_on(processors: &[usize]) -> bool {
    let mut set = CpuSet::new();
    let filled = processors.iter().try_for_each(|&processor| set.set(processor));
    filled.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_ok()
}
