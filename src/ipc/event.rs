//! A flag that processes wait for. Decides what setting and clearing mean, and how the descriptor follows the flag.

use super::bell::Bell;
use super::object::memory_and_bell;
use super::region::{Kind, LOOK, Region};
use super::vigil::Vigil;
use super::word::Word;
use crate::deadline::Deadline;
use crate::error::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A flag that processes share: once it is set, everybody who waits for it goes on, until it is cleared.
///
/// For "begin", "stop", "the first result is there". Nobody holds it, so no death leaves it in the wrong state, and all who wait are woken
/// whoever else of them has been killed.
///
/// ```
/// use procession::ipc::Event;
/// use std::time::Duration;
///
/// let stop = Event::new()?;
/// assert!(!stop.wait_timeout(Duration::from_millis(5)));
/// stop.set();
/// stop.wait();
/// assert!(stop.is_set());
/// stop.clear();
/// assert!(!stop.is_set());
/// # Ok::<(), procession::Error>(())
/// ```
///
/// Together with children, on one thread: [`as_fd`](AsFd::as_fd) is readable as long as the flag is set.
///
/// ```
/// use procession::ipc::Event;
/// use procession::{ChildSet, News};
/// use std::os::fd::AsFd;
///
/// let stop = Event::new()?;
/// let mut set = ChildSet::new()?;
/// let watch = set.watch(stop.as_fd().try_clone_to_owned()?)?;
/// stop.set();
/// assert!(matches!(set.wait_any()?, Some(News::Readable(key)) if key == watch));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "mp.Event")]
#[doc(alias = "ManualResetEvent")]
pub struct Event {
    region: Region,
    bell: Bell,
}

/// The bits of the one word, on which those who wait sleep.
///
/// | bit | means |
/// |---|---|
/// | `SET` | the flag |
/// | `SLEEPERS` | not set, and perhaps somebody sleeps: whoever sets it wakes all |
/// | `WATCHED` | somebody has asked for the descriptor, so it is kept right; never 0 again |
///
/// Setting is a release and looking an acquire: what was written before the flag was set is seen by those who go on. The owner died: there is
/// none. Who dies while setting, after the flag and before the wake, leaves sleepers asleep; they look again after [`LOOK`]. Who dies after the
/// flag and before the descriptor leaves that one behind the flag, until somebody sets or clears again. (The descriptor first would be worse: one
/// who is told, and clears, would be told of the same setting twice.)
const SET: u32 = 1;
const SLEEPERS: u32 = 2;
const WATCHED: u32 = 4;

static KIND: Kind = Kind {
    name: "Event",
    number: u32::from_le_bytes(*b"evnt"),
    length_min: size_of::<Word>(),
    bury: |_, _| (),
    leave: |_, _| (),
};

memory_and_bell!(Event, KIND);

impl Event {
    /// A new flag, not set.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new() -> Result<Event, Error> {
        Ok(Event { region: Region::create(&KIND, 0)?, bell: Bell::create()? })
    }

    /// Sets the flag, and wakes all who wait. Nothing happens if it is set.
    pub fn set(&self) {
        if set(self.word()) & WATCHED != 0 {
            self.agree();
        }
    }

    /// Clears the flag: from now on waiting is waiting.
    pub fn clear(&self) {
        if self.word().clear_bits(SET) & WATCHED != 0 {
            self.agree();
        }
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.word().load() & SET != 0
    }

    /// Waits until the flag is set.
    pub fn wait(&self) {
        while !wait(self.word(), self.region.vigil(), Deadline::NEVER) {}
    }

    /// Waits until the flag is set, for this long at most. Whether it is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        wait(self.word(), self.region.vigil(), Deadline::after(timeout))
    }

    /// The descriptor, put right if somebody has died between the flag and it.
    #[cfg(feature = "future")]
    pub(crate) fn notice(&self) -> BorrowedFd<'_> {
        self.word().set_bits(WATCHED);
        self.agree();
        self.bell.as_fd()
    }

    fn word(&self) -> &Word {
        self.region.body().word(0)
    }

    /// Makes the descriptor what the flag is, whoever else changes them meanwhile: who is last to look sees both the same.
    fn agree(&self) {
        loop {
            let is_set = self.word().load() & SET != 0;
            self.bell.set(is_set);
            if (self.word().load() & SET != 0) == is_set {
                return;
            }
        }
    }
}

/// Readable as long as the flag is set; do not read it yourself. From the first call on, setting and clearing take a system call more. A
/// process that is killed inside of [`set`](Event::set), in the instant between the flag and the descriptor, tells those who wait by the
/// descriptor nothing; those who call [`wait`](Event::wait) are told.
impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.word().set_bits(WATCHED) & WATCHED == 0 {
            self.agree();
        }
        self.bell.as_fd()
    }
}

/// What the word was before.
pub(super) fn set(word: &Word) -> u32 {
    let mut value = word.load();
    while value & SET == 0 {
        match word.replace(value, SET | value & WATCHED) {
            Ok(()) if value & SLEEPERS != 0 => {
                word.wake(u32::MAX);
                break;
            }
            Ok(()) => break,
            Err(now) => value = now,
        }
    }
    value
}

/// Waits for the flag. False when the deadline has passed.
pub(super) fn wait(word: &Word, vigil: &Vigil, deadline: Deadline) -> bool {
    let is_set = || word.load() & SET != 0;
    if is_set() || !deadline.has_passed() && vigil.watch(is_set) {
        return true;
    }
    loop {
        let value = word.load();
        if value & SET != 0 {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        let asleep = value | SLEEPERS;
        if value == asleep || word.replace(value, asleep).is_ok() {
            word.sleep(asleep, deadline.earlier(Deadline::after(LOOK)));
        }
    }
}
