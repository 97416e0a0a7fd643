//! Words and bytes in memory that processes share: the one place that makes references into it. What a word means is decided by the object
//! that it belongs to.
//!
//! All accesses to words are in one order that everybody sees (sequentially consistent): whoever says "I sleep" and then looks once more, and whoever writes and
//! then looks whether somebody sleeps, cannot miss each other. On today's processors only stores pay for it, a few nanoseconds.
//!
//! Everything that is shared is an atomic word, or bytes that are copied in and out and never borrowed. Who may copy when is the business of the
//! object: it holds a lock, or owns the piece of a ring. A process that breaks the rules of an object, on purpose or because it runs another
//! program, can make others read wrong bytes, and no more than that: nothing that is read from shared memory is used as a length or a place
//! without a check.
#![allow(unsafe_code)]

use crate::deadline::Deadline;
use crate::sys::futex;
use crate::sys::shared::Mapping;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A word on which threads of several processes can sleep.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Word(AtomicU32);

impl Word {
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn store(&self, value: u32) {
        self.0.store(value, Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn swap(&self, value: u32) -> u32 {
        self.0.swap(value, Ordering::SeqCst)
    }

    /// Replaces a value that is still there, or says which one is.
    #[inline]
    pub(crate) fn replace(&self, old: u32, new: u32) -> Result<(), u32> {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    #[inline]
    pub(crate) fn add(&self, count: u32) -> u32 {
        self.0.fetch_add(count, Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn set_bits(&self, bits: u32) -> u32 {
        self.0.fetch_or(bits, Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn clear_bits(&self, bits: u32) -> u32 {
        self.0.fetch_and(!bits, Ordering::SeqCst)
    }

    /// Sleeps while the word has this value, until the deadline at most. May come back for no reason: look again.
    pub(crate) fn sleep(&self, value: u32, deadline: Deadline) {
        futex::wait(&self.0, value, deadline.remaining());
    }

    /// Wakes up to so many sleepers.
    pub(crate) fn wake(&self, count: u32) -> u32 {
        futex::wake(&self.0, count)
    }
}

/// A word of 64 bits, on which nobody can sleep.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Long(AtomicU64);

impl Long {
    #[inline]
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn store(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }

    /// Replaces a value that is still there, or says which one is.
    #[inline]
    pub(crate) fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    #[inline]
    pub(crate) fn set_bits(&self, bits: u64) -> u64 {
        self.0.fetch_or(bits, Ordering::SeqCst)
    }
}

/// A part of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    mapping: &'a Mapping,
    start: usize,
    length: usize,
}

impl<'a> View<'a> {
    #[inline]
    pub(crate) fn new(mapping: &'a Mapping) -> View<'a> {
        View { mapping, start: 0, length: mapping.length() }
    }

    /// What begins here. Nothing where the mapping is shorter.
    #[inline]
    pub(crate) fn from(self, offset: usize) -> View<'a> {
        let skipped = offset.min(self.length);
        View { start: self.start + skipped, length: self.length - skipped, ..self }
    }

    #[inline]
    pub(crate) fn length(self) -> usize {
        self.length
    }

    /// The word at this offset, which is a multiple of 4.
    ///
    /// # Panics
    /// If it does not lie inside, which is a bug of ours: offsets are constants, and sizes are checked when an object is attached.
    #[inline]
    pub(crate) fn word(self, offset: usize) -> &'a Word {
        let place = self.place(offset, size_of::<Word>(), align_of::<Word>());
        // SAFETY: inside the mapping, which lives as long as the borrow, and aligned; any bits are a valid word. It is atomic, so others may
        // change it meanwhile.
        unsafe { &*place.cast() }
    }

    /// The word of 64 bits at this offset, which is a multiple of 8.
    ///
    /// # Panics
    /// As [`word`](Self::word).
    #[inline]
    pub(crate) fn long(self, offset: usize) -> &'a Long {
        let place = self.place(offset, size_of::<Long>(), align_of::<Long>());
        // SAFETY: as for `word`.
        unsafe { &*place.cast() }
    }

    /// Copies bytes out. Whoever calls has made sure, by the rules of the object, that nobody writes them now.
    pub(crate) fn copy_out(self, offset: usize, to: &mut [u8]) {
        let from = self.place(offset, to.len(), 1);
        // SAFETY: both are valid for the length, and cannot overlap: one is borrowed exclusively, and no reference to bytes of a mapping is ever
        // made.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    }

    /// Copies bytes in. Whoever calls has made sure that nobody reads or writes them now.
    pub(crate) fn copy_in(self, offset: usize, from: &[u8]) {
        let to = self.place(offset, from.len(), 1);
        // SAFETY: as for `copy_out`; the mapping is writable, because read-only ones are never written to.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    #[inline]
    fn place(self, offset: usize, size: usize, alignment: usize) -> *mut u8 {
        let fits = offset.checked_add(size).is_some_and(|end| end <= self.length);
        let start = self.start + offset;
        if !fits || !start.is_multiple_of(alignment) {
            outside(offset, size, self.length);
        }
        // SAFETY: inside the mapping, as was just found.
        unsafe { self.mapping.start().as_ptr().add(start) }
    }
}

/// Apart and by value, so that the places are computed in registers.
#[cold]
fn outside(offset: usize, size: usize, length: usize) -> ! {
    panic!("{offset} + {size} in shared memory of {length}");
}
