//! Rust functions in processes of their own, and what processes share.
//!
//! Everything here reaches another process by descriptor, as an argument or in a message: nothing has a name, and nothing is left behind.

#![allow(dead_code)] // while it is being built

mod array;
mod barrier;
mod bell;
mod codec;
mod condition;
mod event;
mod lock;
#[cfg(all(test, loom))]
mod models;
mod object;
mod passing;
mod plain;
mod raw_lock;
mod region;
mod rlock;
mod semaphore;
mod shared_memory;
mod value;
#[cfg_attr(loom, path = "word_modelled.rs")]
mod word;

pub use array::Array;
pub use barrier::{Barrier, BrokenBarrier};
pub use condition::Condition;
pub use event::Event;
pub use lock::{Lock, LockGuard, OwnerDied, TryLockError};
pub use passing::Descriptor;
pub use plain::{Integer, Plain};
pub use rlock::{RLock, RLockGuard};
pub use semaphore::{Permit, Semaphore};
pub use shared_memory::SharedMemory;
pub use value::Value;
