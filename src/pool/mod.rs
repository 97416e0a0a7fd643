//! At most so many commands at a time: order, bounds, retries, dependencies, resources, and who is told.

mod admission;
mod done;
mod engine;
mod halt;
mod jobserver;
mod makeflags;
mod observe;
mod ready;
mod resources;
mod retry;
mod task;

pub use admission::Admission;
pub use done::{Done, Outcome, TaskId};
pub use engine::{Capabilities, Engine, FileAccess, Finish, Job, JobId, JobNews, Refusal, SignalFidelity, Tell, Waker};
pub use halt::Halt;
pub use jobserver::{JobToken, Jobserver, JobserverStyle};
pub use observe::{Observer, TaskNews};
pub use ready::Ready;
pub use resources::Supply;
pub use retry::Retry;
pub use task::{After, Task};
