//! Blocking verbs by the driver of futures, for tests: with `--cfg procession_awaited` every conversation is driven by a scope of its own, and
//! what is tested of blocking verbs is tested of that driver. Inside of a task, where nobody may wait like this, and in a thread that is ending, the caller's thread waits.

#[path = "block.rs"]
mod on_thread;

use crate::communicate::Waiter;
use crate::future;

/// Waits for a blocking verb.
pub(crate) fn waiter() -> Waiter {
    future::waiter().unwrap_or_else(on_thread::waiter)
}

/// The result of what waits so.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    if future::has_no_scope() {
        return on_thread::block(future);
    }
    match future::block_on(future) {
        Ok(result) => result,
        Err(error) => panic!("no scope: {error}"),
    }
}
