//! Rust functions in processes of their own, and what processes share.
//!
//! Everything here reaches another process by descriptor, as an argument or in a message: nothing has a name, and nothing is left behind.

#![allow(dead_code)] // while it is being built

mod codec;
mod packets;
mod passing;
mod queue;
mod raw_lock;
mod region;
mod word;

pub use packets::{PacketReceiver, PacketSender, packet_queue};
pub use passing::Descriptor;
pub use queue::{GetError, PutError, Queue, QueueIter, QueueReceiver, QueueSender};
