//! Behaviour, through the public API: one file per noun. Every test runs in a process of its own and is checked for litter
//! (see `support`).
#![allow(unreachable_pub)] // a program, of which nothing can be reached
#![allow(clippy::duplicate_mod)] // examples are modules here, and share theirs
#![allow(unsafe_code)] // raw descriptors and signals of the test's own process

mod support;

mod attributes;
#[cfg(feature = "timeline")]
mod browser;
mod communicate;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod connection;
mod converse;
mod crowd;
mod descriptors;
#[cfg(feature = "future")]
mod drivers;
mod echo;
mod engines;
mod errors;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod examples_ipc;
#[cfg(feature = "future")]
mod examples_future;
mod examples_pool;
mod explain;
mod filters;
#[cfg(feature = "future")]
mod future_descriptor;
#[cfg(feature = "future")]
mod future_group;
#[cfg(all(feature = "future", feature = "ipc", target_os = "linux"))]
mod future_ipc;
#[cfg(feature = "future")]
mod future_scope;
#[cfg(feature = "future")]
mod future_verbs;
#[cfg(feature = "future")]
mod future_sync;
mod inject;
mod interrupt;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod ipc_kills;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod ipc_packets;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod ipc_queue;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod ipc_sync;
mod jobserver;
mod lines;
mod live;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod manager;
#[cfg(all(feature = "ipc", target_os = "linux"))]
mod manager_waiting;
mod mob;
mod nslookup;
mod outside;
mod pictures;
mod pipeline;
mod pool;
mod pool_children;
mod pool_faults;
mod pool_loops;
mod pool_random;
mod pty;
mod random;
mod routes;
mod set;
mod print;
#[cfg(feature = "ipc")]
mod process;
#[cfg(feature = "ipc")]
mod process_pool;
#[cfg(feature = "runlog")]
mod runlog;
mod spawn;
mod spill;
mod stop;
mod table;
mod talk;
mod tee;
mod terminal;
mod tidy;
#[cfg(feature = "tracing")]
mod trace;
mod transcript;
mod verbs;
mod wait;
mod worker_pool;
