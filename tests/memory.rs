//! What children cost in memory, counted by an allocator of its own. A program of its own for that reason.
#![allow(unsafe_code)]

use procession::{ChildSet, Command, Follow, Overflow, SpawnRoute, Stop};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

struct Counting;

thread_local! {
    /// The bytes that this thread has asked for and not given back.
    static BYTES: Cell<isize> = const { Cell::new(0) };
    /// How often it has asked.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    BYTES.with(|sum| sum.set(sum.get() + bytes));
    CALLS.with(|sum| sum.set(sum.get() + usize::from(bytes > 0)));
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.with(|sum| sum.set(sum.get() + size as isize - layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn bytes() -> isize {
    BYTES.with(Cell::get)
}

fn calls() -> usize {
    CALLS.with(Cell::get)
}

const COUNT: usize = 500;

/// Starts children that do nothing, and divides.
fn bytes_per_child(command: &Command, follow: Follow) -> isize {
    let mut set = ChildSet::new().unwrap();
    // Whatever is needed once.
    let first = set.start_and_follow(command, follow).unwrap();
    assert!(set.remove(first).unwrap().stop(&Stop::kill()).unwrap().is_stopped());
    let before = bytes();
    for _ in 0..COUNT {
        set.start_and_follow(command, follow).unwrap();
    }
    assert!(set.wait_any_timeout(Duration::from_millis(20)).unwrap().is_none());
    assert_eq!(set.len(), COUNT);
    (bytes() - before) / COUNT as isize
}

#[test]
fn an_idle_child_of_a_set_is_small() {
    let sleeper = || Command::new("sleep").arg("600").stop(Stop::kill());
    let settled = sleeper().capture_limit(1000, Overflow::Tail).accept([0, 1]);
    let cases = [
        (sleeper(), Follow::Record, 512),
        // What is said once is not kept for each.
        (settled, Follow::Record, 512),
        (sleeper(), Follow::Chunks, 512),
        // Two places in two streams.
        (sleeper(), Follow::Lines, 640),
        (sleeper().timeout(Duration::from_secs(600)), Follow::Record, 640),
    ];
    // A span; and the portable engine keeps a child of std's.
    let more = if cfg!(feature = "tracing") { 64 } else { 0 };
    let more = if SpawnRoute::current() == SpawnRoute::Portable { more + 256 } else { more };
    for (command, follow, most) in cases {
        let bytes = bytes_per_child(&command, follow);
        eprintln!("{command} {follow:?}: {bytes} bytes");
        assert!(bytes <= most + more, "{command} {follow:?}: {bytes} bytes");
    }
}

#[test]
fn a_run_asks_for_memory_a_few_times() {
    let command = Command::new(Path::new("/bin/sh")).args(["-c", "echo x"]).env_clear();
    for _ in 0..3 {
        command.output().unwrap();
    }
    let before = calls();
    command.output().unwrap();
    let calls = calls() - before;
    eprintln!("{calls} times");
    let most = if SpawnRoute::current() == SpawnRoute::Portable { 76 } else { 50 };
    // Verbs that are driven by a scope of their own, for tests, open it each time.
    let most = if cfg!(procession_awaited) { most + 20 } else { most };
    assert!(calls <= most, "{calls} times");
}

#[cfg(feature = "future")]
mod tasks {
    use super::{bytes, calls};
    use procession::future::{Watched, idle, scope, sleep};
    use std::io::Write;
    use std::time::Duration;

    #[test]
    fn a_task_costs_less_than_a_kibibyte() {
        scope(|scope| {
            let before = bytes();
            for _ in 0..1000 {
                scope.spawn(sleep(Duration::from_millis(50)));
            }
            scope.block_on(idle()).unwrap();
            let each = (bytes() - before) / 1000;
            assert!((100..1024).contains(&each), "{each}");
        })
        .unwrap();
    }

    #[test]
    fn nothing_is_allocated_for_a_turn() {
        scope(|scope| {
            for _ in 0..10 {
                scope.spawn(async {
                    for _ in 0..1000 {
                        idle().await;
                    }
                });
            }
            scope.block_on(idle()).unwrap();
            let before = calls();
            scope
                .block_on(async {
                    for _ in 0..900 {
                        idle().await;
                    }
                })
                .unwrap();
            // The future of this turn itself.
            assert!(calls() - before <= 2, "{}", calls() - before);
        })
        .unwrap();
    }

    #[test]
    fn nothing_is_allocated_for_a_wait_for_a_descriptor() {
        let (reader, mut writer) = procession::pipe().unwrap();
        let reader = Watched::new(reader).unwrap();
        scope(|scope| {
            let turns = async |count: usize, writer: &mut procession::PipeWriter| {
                for _ in 0..count {
                    let mut buffer = [0; 8];
                    let mut read = std::pin::pin!(reader.read(&mut buffer));
                    let mut looked = false;
                    std::future::poll_fn(|context| {
                        let polled = read.as_mut().poll(context);
                        if !std::mem::replace(&mut looked, true) {
                            assert!(polled.is_pending());
                            writer.write_all(b"x").unwrap();
                        }
                        polled
                    })
                    .await
                    .unwrap();
                }
            };
            scope.block_on(turns(10, &mut writer)).unwrap();
            let before = calls();
            scope.block_on(turns(1000, &mut writer)).unwrap();
            // The loop without epoll, which is tested with the portable engine, asks for a list each time.
            let most = if cfg!(procession_portable) { 5000 } else { 2 };
            assert!(calls() - before <= most, "{}", calls() - before);
        })
        .unwrap();
    }
}
