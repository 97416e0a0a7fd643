//! At most so many commands at a time: order, bounds, retries, dependencies, resources, and who is told.

mod done;
mod engine;
mod halt;
// Until the pool's core uses it.
#[cfg_attr(not(test), allow(dead_code))]
mod line;
#[cfg(test)]
mod line_model;
mod observe;
mod ready;
mod retry;
mod task;
#[cfg_attr(not(test), allow(dead_code))]
mod turns;

pub use done::{Done, Outcome, TaskId};
pub use engine::{
    Capabilities, Engine, FileAccess, Finish, Job, JobId, JobNews, Refusal, SignalFidelity, Tell, Waker,
};
pub use halt::Halt;
pub use line::Policy;
pub use observe::{Observer, TaskNews};
pub use ready::Ready;
pub use retry::Retry;
pub use task::{After, Task};
