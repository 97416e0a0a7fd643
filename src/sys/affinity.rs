//! sched_setaffinity(2): on which processors this thread may run, and its children.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::cell::RefCell;

thread_local! {
    /// Where the children of this thread may run, if it has settled.
    static OF_CHILDREN: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// This thread stays on one of the processors on which it may run, if there are several; everything that it starts may run on all of
/// them.
pub(crate) fn settle(place: usize) {
    let this_thread = Pid::from_raw(0);
    let Ok(set) = sched_getaffinity(this_thread) else { return };
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|&number| set.is_set(number).unwrap_or(false)).collect();
    let own = place.checked_rem(allowed.len()).and_then(|place| allowed.get(place));
    if let Some(&own) = own
        && allowed.len() > 1
        && stay_on([own])
    {
        OF_CHILDREN.set(Some(allowed));
    }
}

/// This thread runs anywhere again, and its children where it does. Whether it had settled.
pub(crate) fn roam() -> bool {
    let had_settled = OF_CHILDREN.take().is_some();
    if had_settled {
        // The system takes those that this program may use.
        stay_on(0..CpuSet::count());
    }
    had_settled
}

/// Where the children of this thread may run, if that is not where it runs itself.
pub(crate) fn of_children() -> Option<Vec<usize>> {
    // A thread that ends has nothing of its own any more.
    OF_CHILDREN.try_with(|allowed| allowed.borrow().clone()).ok().flatten()
}

/// True if the system agrees.
fn stay_on(processors: impl IntoIterator<Item = usize>) -> bool {
    let mut set = CpuSet::new();
    let filled = processors.into_iter().try_for_each(|processor| set.set(processor));
    filled.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_ok()
}
