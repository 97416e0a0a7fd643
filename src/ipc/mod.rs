//! Rust functions in processes of their own, and what processes share.
//!
//! [A page of its own](crate::docs::ipc) says how it works and what happens when a party dies.
//!
//! Everything here reaches another process by descriptor, as an argument or in a message: nothing has a name, and nothing is left behind.

#![allow(dead_code)] // while it is being built

mod bootstrap;
mod call;
mod codec;
mod function;
mod connection;
mod frames;
mod handshake;
mod listener;
mod passing;
mod pool;
mod process;
mod raw_lock;
mod region;
mod wait;
mod wire;
mod word;

pub use bootstrap::{Current, current};
pub use connection::{Connection, Messages, Peer, RawConnection, Receiver, Sender, one_way};
pub use listener::Listener;
pub use passing::Descriptor;
pub use pool::{PendingResult, ProcessPool, ProcessPoolBuilder, ProcessResults};
pub use process::{Process, ProcessBuilder};
pub use wait::{wait_any, wait_any_timeout};
