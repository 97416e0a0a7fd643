//! Many tasks on one thread, and everything of this library as something to `.await`: what gevent and `asyncio` are to Python.
//!
//! ```
//! use procession::future::{scope, sleep};
//! use std::time::Duration;
//!
//! let words = vec!["one", "two", "three"];
//! let total = scope(|scope| {
//!     // A task may borrow what lives longer than the scope.
//!     let tasks: Vec<_> = words.iter().map(|word| scope.spawn(async move {
//!         sleep(Duration::from_millis(1)).await;
//!         word.len()
//!     })).collect();
//!     scope.block_on(async {
//!         let mut total = 0;
//!         for task in tasks {
//!             total += task.await?;
//!         }
//!         Ok::<usize, procession::Error>(total)
//!     })
//! })???;
//! assert_eq!(total, 11);
//! # Ok::<(), procession::Error>(())
//! ```
//!
//! **Why.** A task costs less than a kibibyte, a thread costs a stack and the kernel's attention. Tasks of one scope take turns at every `.await`
//! and nowhere else, so what they share needs no lock.
//!
//! **Which runtime.** A future finds it when it first waits: the [`scope`] whose thread it is, else tokio (feature `tokio`), else `async-io` (feature
//! `async-io`, for smol and others), else it is an error that says so. The scope needs no crate and starts no thread.
//!
//! **Cancellation** is to drop a future. [`Task::kill`] drops that of a task.
//!
//! **Dropping a [`Task`]** stops nothing: the task belongs to its scope, and the scope ends when all of its tasks have.

mod awaited;
mod child;
mod clock;
mod command;
mod descriptor;
mod event;
mod group;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod ipc;
mod lock;
mod monitor;
#[cfg(feature = "async-io")]
mod on_async_io;
#[cfg(feature = "tokio")]
mod on_tokio;
mod pool;
mod queue;
mod reactor;
mod readiness;
mod runtime;
mod scope;
mod set;
mod several;
mod signals;
mod sleep;
mod talk;
mod task;
mod timeout;
mod workers;

#[cfg(procession_awaited)]
pub(crate) use readiness::{has_no_scope, waiter};

pub use awaited::Awaited;
pub use descriptor::Watched;
pub use event::{AsyncResult, Event};
pub use group::{Group, Imap};
pub use lock::{Lock, Permit, Semaphore};
pub use pool::wait_pending;
pub use queue::{Channel, Full, Queue};
pub use scope::{Scope, block_on, scope, try_scope};
pub use several::{Iwait, iwait, joinall, killall, wait};
pub use signals::Signals;
pub use sleep::{Idle, Sleep, idle, sleep};
pub use task::{Ended, Task};
pub use timeout::{TimedOut, Timeout, timeout, with_timeout_value};
