//! Rust functions in processes of their own, and what processes share.
//!
//! [A page of its own](crate::docs::ipc) says how it works and what happens when a party dies.
//!
//! Everything here reaches another process by descriptor, as an argument or in a message: nothing has a name, and nothing is left behind.

mod array;
mod barrier;
mod bell;
mod bootstrap;
mod call;
mod children;
mod codec;
mod condition;
mod connection;
mod event;
mod frames;
mod function;
mod handshake;
mod letterbox;
mod listener;
mod lock;
pub mod manager;
#[cfg(all(test, loom))]
mod models;
mod object;
mod packets;
mod passing;
mod plain;
mod pool;
mod process;
mod queue;
mod raw_lock;
mod record;
mod region;
mod rlock;
mod semaphore;
mod shared_memory;
mod value;
mod vigil;
mod wait;
mod wire;
#[cfg_attr(loom, path = "word_modelled.rs")]
mod word;

pub use array::Array;
pub use barrier::{Barrier, BrokenBarrier};
pub use bootstrap::{Current, current};
pub use children::{ActiveChild, active_children};
pub use condition::Condition;
pub use connection::{Connection, Messages, Peer, RawConnection, Receiver, Sender, one_way};
pub use event::Event;
#[cfg(feature = "future")]
pub(crate) use frames::Parcel;
pub use listener::Listener;
pub use lock::{Lock, LockGuard, OwnerDied, TryLockError};
pub use manager::{Manager, Proxy, Shared};
pub use packets::{PacketReceiver, PacketSender, packet_queue};
pub use passing::Descriptor;
pub use plain::{Integer, Plain};
pub use pool::{PendingResult, ProcessPool, ProcessPoolBuilder, ProcessResults};
#[cfg(feature = "future")]
pub(crate) use process::Heard;
pub use process::{Process, ProcessBuilder, join_all, join_all_timeout};
pub use queue::{GetError, PutError, Queue, QueueIter, QueueReceiver, QueueSender};
#[cfg(feature = "future")]
pub(crate) use region::LOOK;
pub use rlock::{RLock, RLockGuard};
pub use semaphore::{Permit, Semaphore};
pub use shared_memory::SharedMemory;
pub use value::Value;
pub use wait::{wait_any, wait_any_timeout};
