//! At most so many commands at a time: order, bounds, retries, dependencies, resources, and who is told.

mod done;
mod engine;
mod halt;
mod observe;
mod progress;
#[cfg_attr(not(feature = "progress"), path = "progress_bars_absent.rs")]
mod progress_bars;
mod readable;
mod ready;
mod retry;
#[cfg(test)]
mod sample;
mod summary;
mod task;
#[cfg(feature = "timeline")]
mod timeline;
mod verdict;

pub use done::{Done, Outcome, TaskId};
pub use engine::{Capabilities, Engine, FileAccess, Finish, Job, JobId, JobNews, Refusal, SignalFidelity, Tell, Waker};
pub use halt::Halt;
pub use observe::{Observer, TaskNews};
pub use progress::Progress;
pub use ready::Ready;
pub use retry::Retry;
pub use summary::Summary;
pub use task::{After, Task};
#[cfg(feature = "timeline")]
pub use timeline::Timeline;
