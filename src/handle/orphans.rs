//! Children whose handles were dropped while they ran. They are remembered, and reaped when a command is started or another
//! handle is dropped: no zombie stays for long, no thread and no signal handler is needed, and nothing blocks.

use super::notice::Notice;
use crate::sys::poll;
use crate::sys::wait::{self, Patience, Who};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

struct Orphan {
    pid: i32,
    notice: Notice,
}

static ORPHANS: Mutex<Vec<Orphan>> = Mutex::new(Vec::new());
/// So that the usual case, no orphans, costs one read of memory.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Reaps a process if it has ended, else remembers it. True if it still runs.
pub(super) fn adopt(pid: i32, notice: Notice) -> bool {
    reap_orphans();
    let orphan = Orphan { pid, notice };
    let runs = !orphan.reap();
    if runs {
        let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.push(orphan);
        COUNT.store(orphans.len(), Ordering::Relaxed);
    }
    runs
}

/// Reaps those that have ended.
pub(crate) fn reap_orphans() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ended) = ended(&orphans) {
        let mut ended = ended.into_iter();
        orphans.retain(|orphan| !(ended.next().unwrap_or(true) && orphan.reap()));
    }
    COUNT.store(orphans.len(), Ordering::Relaxed);
}

/// One look at all of them. `None` if none has ended.
fn ended(orphans: &[Orphan]) -> Option<Vec<bool>> {
    let pidfds: Option<Vec<_>> = orphans.iter().map(|orphan| orphan.notice.pidfd()).collect();
    let Some(pidfds) = pidfds else {
        // Without descriptors each is asked.
        return Some(vec![true; orphans.len()]);
    };
    let mut entries: Vec<_> = pidfds.into_iter().map(poll::readable).collect();
    match poll::wait(&mut entries, Some(Instant::now())) {
        Ok(false) => None,
        Ok(true) => Some(entries.iter().map(poll::is_ready).collect()),
        // More descriptors than a lowered limit lets poll take: ask each.
        Err(_) => Some(vec![true; orphans.len()]),
    }
}

impl Orphan {
    /// Whether it is gone: reaped now, or not ours (any more).
    fn reap(&self) -> bool {
        let who = self.notice.pidfd().map_or(Who::Pid(self.pid), Who::Descriptor);
        !matches!(wait::reap(who, Patience::Look), Ok(None))
    }
}
