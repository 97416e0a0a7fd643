//! Which processes of ours there are. Decides what is told of them; they belong to those who have started them, and this list keeps none alive.

use crate::handle::{ProcessHandle, WeakHandle};
use std::sync::{Mutex, PoisonError};

static CHILDREN: Mutex<Vec<(String, WeakHandle)>> = Mutex::new(Vec::new());

/// A process that was started for a function, and has not ended: see [`active_children`].
#[derive(Clone, Debug)]
pub struct ActiveChild {
    name: String,
    handle: ProcessHandle,
}

impl ActiveChild {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the process.
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.handle.id()
    }

    /// The process, to be waited for and signalled.
    pub fn handle(&self) -> &ProcessHandle {
        &self.handle
    }
}

/// The processes of this one that run a function: each [`Process`](super::Process), the workers of pools, managers. In the order in which they were
/// started; those whose value was dropped are not among them.
///
/// Those that have ended are reaped on the way, so none of them stays a zombie; what they have returned can still be asked for.
///
/// ```
/// use procession::ipc::{Process, active_children};
///
/// let mut process = Process::builder(|()| std::thread::park(), ()).name("parked").start()?;
/// assert!(active_children().iter().any(|child| child.name() == "parked" && child.id() == process.id()));
/// process.kill()?;
/// process.wait()?;
/// assert!(active_children().iter().all(|child| child.id() != process.id()));
/// # Ok::<(), procession::Error>(())
/// ```
pub fn active_children() -> Vec<ActiveChild> {
    let children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let known: Vec<_> = children.iter().filter_map(|(name, handle)| Some((name.clone(), handle.upgrade()?))).collect();
    // Whoever lets go of the last handle of a process has something to do.
    drop(children);
    // One that cannot be asked is there.
    let has_ended = |handle: &ProcessHandle| handle.try_wait().is_ok_and(|status| status.is_some());
    let active = known.into_iter().filter(|(_, handle)| !has_ended(handle));
    active.map(|(name, handle)| ActiveChild { name, handle }).collect()
}

/// There is one more.
pub(super) fn note(name: &str, handle: &ProcessHandle) {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    children.retain(|(_, handle)| handle.exists());
    children.push((name.to_owned(), handle.downgrade()));
}
