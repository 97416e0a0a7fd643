//! The twin of `word.rs` for model checks (`--cfg loom`): the same words on the atomics of loom, with a kernel that is a queue. A thread can be
//! told to [die](mortal) at any access: from then on nothing that it does has an effect.
//!
//! Time does not pass: who sleeps is woken or sleeps for ever, which loom reports as a deadlock.

use crate::deadline::Deadline;
use crate::sys::shared::Mapping;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use std::cell::Cell;

loom::thread_local! {
    /// After how many accesses this thread dies. 0: it is dead.
    static LIFE: Cell<Option<u32>> = Cell::new(None);
}

/// Runs this until it is done or the thread has made so many accesses. Whether it was done.
pub(crate) fn mortal(accesses: u32, work: impl FnOnce()) -> bool {
    LIFE.with(|life| life.set(Some(accesses)));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok()
}

/// One access. False if the thread is dead, and only its guards are still being dropped.
fn lives() -> bool {
    LIFE.with(|life| match life.get() {
        None => true,
        Some(0) if std::thread::panicking() => false,
        Some(0) => std::panic::resume_unwind(Box::new("dead")),
        Some(left) => {
            life.set(Some(left - 1));
            true
        }
    })
}

loom::lazy_static! {
    static ref IN_A_HURRY: AtomicBool = AtomicBool::new(false);
}

/// From now on nobody sleeps: everybody looks all the time. Wake those who sleep already.
pub(crate) fn hurry() {
    IN_A_HURRY.store(true, Ordering::Release);
}

#[derive(Debug, Default)]
pub(crate) struct Word {
    value: AtomicU32,
    /// Who sleeps, by the order of going to sleep; and the number of the next one.
    queue: Mutex<(Vec<u32>, u32)>,
    bed: Condvar,
}

impl Word {
    pub(crate) fn load(&self) -> u32 {
        if lives() { self.value.load(Ordering::Acquire) } else { 0 }
    }

    pub(crate) fn store(&self, value: u32) {
        if lives() {
            self.value.store(value, Ordering::Release);
        }
    }

    pub(crate) fn swap(&self, value: u32) -> u32 {
        if lives() { self.value.swap(value, Ordering::AcqRel) } else { 0 }
    }

    pub(crate) fn replace(&self, old: u32, new: u32) -> Result<(), u32> {
        if !lives() {
            return Ok(());
        }
        self.value.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    pub(crate) fn add(&self, count: u32) -> u32 {
        if lives() { self.value.fetch_add(count, Ordering::AcqRel) } else { 0 }
    }

    pub(crate) fn set_bits(&self, bits: u32) -> u32 {
        if lives() { self.value.fetch_or(bits, Ordering::AcqRel) } else { 0 }
    }

    pub(crate) fn clear_bits(&self, bits: u32) -> u32 {
        if lives() { self.value.fetch_and(!bits, Ordering::AcqRel) } else { 0 }
    }

    pub(crate) fn sleep(&self, value: u32, _deadline: Deadline) {
        if !lives() {
            return;
        }
        let mut queue = self.queue.lock().unwrap();
        if self.value.load(Ordering::Acquire) != value || IN_A_HURRY.load(Ordering::Acquire) {
            return;
        }
        let me = queue.1;
        queue.1 += 1;
        queue.0.push(me);
        while queue.0.contains(&me) {
            queue = self.bed.wait(queue).unwrap();
        }
    }

    pub(crate) fn wake(&self, count: u32) -> u32 {
        if !lives() {
            return 0;
        }
        let mut queue = self.queue.lock().unwrap();
        let woken = queue.0.len().min(count as usize);
        queue.0.drain(..woken);
        self.bed.notify_all();
        woken as u32
    }
}

#[derive(Debug, Default)]
pub(crate) struct Long(AtomicU64);

impl Long {
    pub(crate) fn load(&self) -> u64 {
        if lives() { self.0.load(Ordering::Acquire) } else { 0 }
    }

    pub(crate) fn store(&self, value: u64) {
        if lives() {
            self.0.store(value, Ordering::Release);
        }
    }

    pub(crate) fn set_bits(&self, bits: u64) -> u64 {
        if lives() { self.0.fetch_or(bits, Ordering::AcqRel) } else { 0 }
    }

    pub(crate) fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        if !lives() {
            return Ok(());
        }
        self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

/// Memory of an object: at each place a word, and a long one beside it.
#[derive(Debug)]
pub(crate) struct Memory {
    words: Vec<Word>,
    longs: Vec<Long>,
}

impl Memory {
    pub(crate) fn new(length: usize) -> Memory {
        let words = (0..length.div_ceil(4)).map(|_| Word::default()).collect();
        Memory { words, longs: (0..length.div_ceil(8)).map(|_| Long::default()).collect() }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { memory: self, start: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    memory: &'a Memory,
    start: usize,
}

impl<'a> View<'a> {
    pub(crate) fn new(_mapping: &'a Mapping) -> View<'a> {
        unreachable!("models have no mappings")
    }

    pub(crate) fn from(self, offset: usize) -> View<'a> {
        View { start: self.start + offset, ..self }
    }

    pub(crate) fn length(self) -> usize {
        self.memory.words.len() * 4 - self.start
    }

    pub(crate) fn word(self, offset: usize) -> &'a Word {
        &self.memory.words[(self.start + offset) / 4]
    }

    pub(crate) fn long(self, offset: usize) -> &'a Long {
        &self.memory.longs[(self.start + offset) / 8]
    }

    pub(crate) fn copy_out(self, _offset: usize, _to: &mut [u8]) {}

    pub(crate) fn copy_in(self, _offset: usize, _from: &[u8]) {}
}
