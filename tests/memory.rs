//! What children cost in memory, counted by an allocator of its own. A program of its own for that reason.
#![allow(unsafe_code)]

use procession::{ChildSet, Command, Follow};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

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

/// Starts children, waits until nothing happens any more, and divides.
fn bytes_per_child(command: &Command, follow: Follow, until_quiet: usize) -> isize {
    let mut set = ChildSet::new().unwrap();
    let first = set.start_and_follow(command, follow).unwrap();
    set.remove(first).unwrap().kill().unwrap();
    let before = bytes();
    for _ in 0..COUNT {
        set.start_and_follow(command, follow).unwrap();
    }
    let mut news = 0;
    while news < until_quiet {
        news += usize::from(set.wait_any().unwrap().is_some());
    }
    assert!(set.wait_any_timeout(std::time::Duration::from_millis(20)).unwrap().is_none());
    let bytes = (bytes() - before) / COUNT as isize;
    assert_eq!(set.len(), COUNT);
    bytes
}

#[test]
fn an_idle_child_of_a_set_is_small() {
    let command = Command::new("sleep").arg("600").stop(procession::Stop::kill());
    let bytes = bytes_per_child(&command, Follow::Record, 0);
    eprintln!("{bytes} bytes");
    assert!(bytes <= 512, "{bytes} bytes");
}

#[test]
fn a_run_asks_for_little_memory() {
    let command = Command::new("echo").arg("x");
    for _ in 0..3 {
        command.output().unwrap();
    }
    let before = calls();
    command.output().unwrap();
    eprintln!("{} calls", calls() - before);
}
