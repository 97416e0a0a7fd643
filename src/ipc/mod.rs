//! Rust functions in processes of their own, and what processes share.
//!
//! Everything here reaches another process by descriptor, as an argument or in a message: nothing has a name, and nothing is left behind.

#![allow(dead_code)] // while it is being built

mod codec;
mod connection;
mod frames;
mod handshake;
mod listener;
mod passing;
mod raw_lock;
mod region;
mod wait;
mod wire;
mod word;

pub use connection::{Connection, Messages, Peer, RawConnection, Receiver, Sender, one_way};
pub use listener::Listener;
pub use passing::Descriptor;
pub use wait::{wait_any, wait_any_timeout};
