//! At most so many commands at a time: order, bounds, retries, dependencies, resources, and who is told.

mod done;
mod engine;
mod halt;
mod held;
#[cfg(feature = "runlog")]
mod log;
mod observe;
mod print;
mod ready;
mod retry;
mod task;

pub use done::{Done, Outcome, TaskId};
pub use engine::{Capabilities, Engine, FileAccess, Finish, Job, JobId, JobNews, Refusal, SignalFidelity, Tell, Waker};
pub use halt::Halt;
#[cfg(feature = "runlog")]
pub use log::{History, RunLog};
pub use observe::{Observer, TaskNews};
pub use print::Print;
pub use ready::Ready;
pub use retry::Retry;
pub use task::{After, Task};
