//! Rust functions in processes of their own, and what processes share.
//!
//! Everything here reaches another process by descriptor, as an argument or in a message: nothing has a name, and nothing is left behind.

#![allow(dead_code)] // while it is being built

mod codec;
mod frames;
mod passing;
mod raw_lock;
mod region;
mod wire;
mod word;

pub use passing::Descriptor;
