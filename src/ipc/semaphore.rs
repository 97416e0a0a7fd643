//! So many at a time, across processes. Decides where a permit is counted: at the party that has it, so that what a dead party had can be given
//! back to the permit.

use super::bell::Bell;
use super::lock::Held;
use super::object::memory_and_bell;
use super::raw_lock::{self, Taken};
use super::region::{Kind, LOOK, Party, Region, SLOTS};
use super::word::{Long, View};
use crate::deadline::Deadline;
use crate::error::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A number of permits that processes share: who wants to go on takes one, and waits if there is none.
///
/// The permits that a process holds when it dies come back: within a tenth of a second for those who wait, and at once for those who ask. So
/// a process that is killed never makes the others wait for ever. A permit that was taken for good ([`Permit::forget`]) is gone for good,
/// until somebody [releases](Self::release) one.
///
/// ```
/// use procession::ipc::Semaphore;
///
/// let at_a_time = Semaphore::new(2)?;
/// let first = at_a_time.acquire();
/// let second = at_a_time.acquire();
/// assert!(at_a_time.try_acquire().is_none());
/// drop(first);
/// assert_eq!(at_a_time.value(), 1);
/// # drop(second);
/// # Ok::<(), procession::Error>(())
/// ```
///
/// Together with children, on one thread: [`as_fd`](AsFd::as_fd) is readable as long as there is a permit.
///
/// ```
/// use procession::ipc::Semaphore;
/// use procession::{ChildSet, News};
/// use std::os::fd::AsFd;
///
/// let permits = Semaphore::new(0)?;
/// let mut set = ChildSet::new()?;
/// let watch = set.watch(permits.as_fd().try_clone_to_owned()?)?;
/// permits.release(1)?;
/// assert!(matches!(set.wait_any()?, Some(News::Readable(key)) if key == watch));
/// assert!(permits.try_acquire().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "BoundedSemaphore")]
#[doc(alias = "sem_t")]
pub struct Semaphore {
    region: Region,
    bell: Bell,
}

/// What stands in the memory. All of it is changed by the holder of the lock alone.
///
/// | word | means |
/// |---|---|
/// | `LOCK` | as in `raw_lock` |
/// | `FREE` | permits that nobody has |
/// | `TOTAL` | permits that exist |
/// | `BOUND` | how many may exist; never changes |
/// | `SLEEPERS` | who finds no permit sleeps on it; `ASLEEP`: perhaps somebody does; above that bit: how often they were woken |
/// | `WATCHED` | 1: somebody has asked for the descriptor, so it is kept right; never 0 again |
/// | `USED` | the cells from this one on have never been used |
/// | `CELLS` | for each slot a party, and how many permits it has |
///
/// The truth is `TOTAL` and the cells; `FREE` is what is left of the total, and kept beside it to be quick. Each change of the truth is one
/// store, so whatever a holder of the lock was doing when it died, it was done or not done, and counting anew puts `FREE` right. A cell whose
/// party is not there any more (the owner died, or went and left permits) is emptied by the next one that finds no permit, or that gets the
/// slot. The stores are releases and the loads acquires, and the lock orders them in any case; `SLEEPERS` is set
/// under the lock and changed by whoever wakes, so nobody falls asleep who has just been woken.
const LOCK: usize = 0;
const FREE: usize = 4;
const TOTAL: usize = 8;
const BOUND: usize = 12;
const SLEEPERS: usize = 16;
const ASLEEP: u32 = 1;
const WATCHED: usize = 20;
const USED: usize = 24;
const CELLS: usize = 64;
pub(super) const LENGTH: usize = CELLS + SLOTS as usize * size_of::<Long>();

/// More than anybody can hold, and far from where counting would overflow.
const MOST: u32 = i32::MAX as u32;

pub(super) static KIND: Kind = Kind {
    name: "Semaphore",
    number: u32::from_le_bytes(*b"sema"),
    length_min: LENGTH,
    bury: |body, dead| raw_lock::bury(body.word(LOCK), dead),
};

memory_and_bell!(Semaphore, KIND);

impl Semaphore {
    /// With so many permits at first; [`release`](Self::release) can make more.
    ///
    /// # Errors
    /// More than 2,147,483,647, or the system has no more descriptors or memory.
    pub fn new(permits: u32) -> Result<Semaphore, Error> {
        Semaphore::with(permits, MOST)
    }

    /// With so many permits, and never more: a [`release`](Self::release) too many is an error.
    ///
    /// ```
    /// use procession::ipc::Semaphore;
    ///
    /// let seats = Semaphore::bounded(2)?;
    /// let text = seats.release(1).unwrap_err().to_string();
    /// assert_eq!(text, "1 more permits would make 3, and there may be 2");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bounded(permits: u32) -> Result<Semaphore, Error> {
        Semaphore::with(permits, permits)
    }

    fn with(permits: u32, bound: u32) -> Result<Semaphore, Error> {
        if permits > MOST {
            return Err(Error::invalid(format!("{permits} permits: a semaphore has at most {MOST}")));
        }
        let region = Region::create(&KIND, LENGTH)?;
        begin(region.body(), permits, bound);
        Ok(Semaphore { region, bell: Bell::create()? })
    }

    /// Waits until there is a permit, and takes it.
    pub fn acquire(&self) -> Permit<'_> {
        loop {
            if self.take(Deadline::NEVER) {
                return Permit { semaphore: self };
            }
        }
    }

    /// Takes a permit if there is one.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.take(Deadline::now()).then(|| Permit { semaphore: self })
    }

    /// Waits for a permit for this long at most.
    ///
    /// ```
    /// use procession::ipc::Semaphore;
    /// use std::time::Duration;
    ///
    /// let none = Semaphore::new(0)?;
    /// assert!(none.acquire_timeout(Duration::from_millis(5)).is_none());
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        self.take(Deadline::after(timeout)).then(|| Permit { semaphore: self })
    }

    /// Makes so many permits, whoever may have had them: one process releases, another one acquires and [forgets](Permit::forget).
    ///
    /// # Errors
    /// If there would be more than there may be; nothing was released then.
    #[doc(alias = "post")]
    pub fn release(&self, permits: u32) -> Result<(), Error> {
        self.words().make(permits).map_err(|(exist, bound)| {
            let sum = u64::from(exist) + u64::from(permits);
            Error::invalid(format!("{permits} more permits would make {sum}, and there may be {bound}"))
        })
    }

    /// How many permits nobody has, just now.
    #[doc(alias = "get_value")]
    pub fn value(&self) -> u32 {
        let words = self.words();
        words.collect();
        words.free()
    }

    fn take(&self, deadline: Deadline) -> bool {
        self.words().take(deadline)
    }

    fn words(&self) -> Words<'_, impl Fn(Party) -> bool> {
        let bell = Some(&self.bell);
        Words { body: self.region.body(), me: self.region.me(), gone: |party| self.region.bury_if_dead(party), bell }
    }
}

/// Readable as long as there is a permit. From the first call on, a change between none and some costs a system call.
///
/// Nobody is told by it of a permit that comes back because its holder has died, until somebody looks ([`value`](Semaphore::value)): who waits
/// by descriptor alone looks now and then.
impl AsFd for Semaphore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.words().watch();
        self.bell.as_fd()
    }
}

/// A permit of a [`Semaphore`]: given back when it is dropped.
#[derive(Debug)]
#[must_use = "the permit is given back at once otherwise"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
}

impl Permit<'_> {
    /// Keeps it for good: it does not come back, not even when this process dies.
    pub fn forget(self) {
        self.semaphore.words().forget();
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.words().give_back();
    }
}

pub(super) fn begin(body: View<'_>, permits: u32, bound: u32) {
    body.word(BOUND).store(bound);
    body.word(TOTAL).store(permits);
    body.word(FREE).store(permits);
}

/// The memory, and what is asked of the outside world: whether a party is not there any more. It is buried then.
pub(super) struct Words<'a, Gone> {
    pub(super) body: View<'a>,
    pub(super) me: Party,
    pub(super) gone: Gone,
    pub(super) bell: Option<&'a Bell>,
}

/// The party that a cell belongs to, and how many permits it has.
fn parts(cell: u64) -> (u32, u32) {
    ((cell >> 32) as u32, cell as u32)
}

impl<'a, Gone: Fn(Party) -> bool> Words<'a, Gone> {
    pub(super) fn take(&self, deadline: Deadline) -> bool {
        let mut slept = false;
        loop {
            let Err(asleep) = self.try_take(slept) else { return true };
            if deadline.has_passed() {
                self.collect();
                return self.try_take(slept).is_ok();
            }
            let look = deadline.earlier(Deadline::after(LOOK));
            self.body.word(SLEEPERS).sleep(asleep, look);
            slept = true;
            if look.has_passed() {
                self.collect();
            }
        }
    }

    /// Takes a permit, or says that somebody sleeps from now on: the value of `SLEEPERS` as long as it should.
    fn try_take(&self, slept: bool) -> Result<(), u32> {
        let (body, held) = self.lock();
        let sleepers = body.word(SLEEPERS);
        let free = self.own(body.word(FREE).load());
        if free == 0 {
            let asleep = sleepers.load() | ASLEEP;
            sleepers.store(asleep);
            return Err(asleep);
        }
        self.change_own(1);
        self.set_free(free - 1);
        if slept {
            // There may be others, and who returned a permit after the one that woke us has not woken them.
            sleepers.store(sleepers.load() | ASLEEP);
            if free > 1 {
                drop(held);
                sleepers.wake(1);
            }
        }
        Ok(())
    }

    pub(super) fn give_back(&self) {
        let (body, held) = self.lock();
        self.change_own(-1);
        self.set_free(body.word(FREE).load().saturating_add(1));
        self.wake(held, 1);
    }

    pub(super) fn forget(&self) {
        let (body, _held) = self.lock();
        // In this order: who dies in between gives back what it had, and that is one less than there were.
        body.word(TOTAL).store(body.word(TOTAL).load().saturating_sub(1));
        self.change_own(-1);
    }

    /// Makes permits, or says how many there are and may be.
    pub(super) fn make(&self, permits: u32) -> Result<(), (u32, u32)> {
        let (body, held) = self.lock();
        let (total, bound) = (body.word(TOTAL).load(), body.word(BOUND).load());
        let more = total.checked_add(permits).filter(|more| *more <= bound).ok_or((total, bound))?;
        body.word(TOTAL).store(more);
        self.set_free(body.word(FREE).load().saturating_add(permits));
        self.wake(held, permits);
        Ok(())
    }

    /// Takes back what parties have that are not there any more.
    pub(super) fn collect(&self) {
        let (body, held) = self.lock();
        let mut back = 0;
        for slot in 0..self.used() {
            let (party, count) = parts(self.cell(slot).load());
            let party = Party::named_in(party).filter(|party| count > 0 && *party != self.me);
            if party.is_some_and(|party| (self.gone)(party)) {
                self.cell(slot).store(0);
                back = count.saturating_add(back);
            }
        }
        if back > 0 {
            self.set_free(body.word(FREE).load().saturating_add(back));
            self.wake(held, back);
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.body.word(FREE).load()
    }

    /// From now on the bell is kept right.
    fn watch(&self) {
        let (body, _held) = self.lock();
        if body.word(WATCHED).swap(1) == 0
            && let Some(bell) = self.bell
        {
            bell.set(self.free() > 0);
        }
    }

    /// The lock. What its last holder has left half done when it died is put right.
    fn lock(&self) -> (View<'a>, Held<'a>) {
        let bury = |party| _ = (self.gone)(party);
        let (held, taken) = Held::take(self.body.word(LOCK), self.me, bury);
        if taken == Taken::FromDead {
            let had: u32 = (0..self.used()).map(|slot| parts(self.cell(slot).load()).1).fold(0, u32::saturating_add);
            self.set_free(self.body.word(TOTAL).load().saturating_sub(had));
        }
        (self.body, held)
    }

    /// Gives the lock back and wakes those who can go on.
    fn wake(&self, held: Held<'_>, permits: u32) {
        let sleepers = self.body.word(SLEEPERS);
        let value = sleepers.load();
        let asleep = value & ASLEEP != 0;
        if asleep {
            // Without the bit, and another number above it.
            sleepers.store(value.wrapping_add(ASLEEP));
        }
        drop(held);
        if asleep {
            sleepers.wake(permits);
        }
    }

    /// Who waits by the descriptor is told too early rather than not at all, if we die in the middle.
    fn set_free(&self, free: u32) {
        let word = self.body.word(FREE);
        if self.body.word(WATCHED).load() == 0 {
            word.store(free);
            return;
        }
        let changes = word.load() == 0 || free == 0;
        let ring =
            |rings: bool| self.bell.filter(|_| changes && rings == (free > 0)).map_or((), |bell| bell.set(rings));
        ring(true);
        word.store(free);
        ring(false);
    }

    /// Makes our cell ours: what the last party of the slot has left in it is free again. How many are free then.
    fn own(&self, free: u32) -> u32 {
        let slot = self.me.slot();
        let cell = self.cell(slot);
        let (party, count) = parts(cell.load());
        if party == self.me.number() {
            return free;
        }
        if self.used() <= slot {
            self.body.word(USED).store(slot + 1);
        }
        cell.store(u64::from(self.me.number()) << 32);
        let free = free.saturating_add(count);
        if count > 0 {
            self.set_free(free);
        }
        free
    }

    fn change_own(&self, by: i32) {
        let cell = self.cell(self.me.slot());
        let (_, count) = parts(cell.load());
        cell.store(u64::from(self.me.number()) << 32 | u64::from(count.saturating_add_signed(by)));
    }

    fn cell(&self, slot: u32) -> &'a Long {
        self.body.long(CELLS + (slot % SLOTS) as usize * size_of::<Long>())
    }

    fn used(&self) -> u32 {
        self.body.word(USED).load().min(SLOTS)
    }
}
