#![doc = include_str!("../README.md")]
#![cfg(unix)]

// A module uses only modules above it in this list; `tests/it/tidy.rs` knows the same list.
mod sys;
mod signal;
mod status;
mod deadline;
mod text;
mod entry;
mod explain;
mod output;
mod error;
#[cfg_attr(not(feature = "tracing"), path = "trace_absent.rs")]
mod trace;
mod stop;
mod pipe;
mod terminal;
mod command;
mod plan;
mod handle;
mod spawn;
mod machine;
mod filter;
mod tee;
mod course;
mod child;
mod communicate;
mod live;
mod pipeline;
mod converse;
mod set;
pub mod pool;
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub mod ipc;
#[cfg(feature = "future")]
pub mod future;

pub use child::Child;
pub use command::{Clock, Command, Filter, Id, Input, Overflow, Program, Pty, Resource, Stdio, Target, quote};
pub use converse::{Conversation, Pattern, Reply};
pub use deadline::Deadline;
pub use error::{Error, ErrorKind, Panic};
pub use explain::{Explanation, Life, PipeFacts, ProcessFacts, Reason, SystemCall};
pub use handle::{ProcessHandle, StopReport};
pub use live::{Chunks, Line, Lines, OwnedLine};
pub use output::{Captured, Cause, Completeness, Output, Piece, ProcessEntry, Stream, Usage};
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use pipeline::{Pipeline, PipelineChild};
pub use plan::Plan;
pub use pool::{Done, Outcome, Pool, Task};
pub use set::{ChildKey, ChildSet, Exit, Follow, News, SetWaker, TimerKey, WatchKey};
pub use signal::{Signal, UnknownSignal};
pub use spawn::{SpawnFence, SpawnRoute, spawn_fence};
pub use status::ExitStatus;
pub use stop::{Scope, Stop};
pub use sys::step::Step;
pub use terminal::Terminal;
pub use text::{DecodeError, Decoder, ErrorMode, LineEnd, LineSplitter, Newlines, Text, UnknownEncoding};

/// What was decided and why, what goes wrong with processes, and where to find what Python calls by another name.
pub mod docs {
    #[doc = include_str!("../docs/design.md")]
    pub mod design {}
    #[cfg(feature = "future")]
    #[doc = include_str!("../docs/future.md")]
    pub mod future {}
    #[doc = include_str!("../docs/gotchas.md")]
    pub mod gotchas {}
    #[cfg(all(feature = "ipc", target_os = "linux"))]
    #[doc = include_str!("../docs/ipc.md")]
    pub mod ipc {}
    #[doc = include_str!("../docs/python.md")]
    pub mod python {}
}
