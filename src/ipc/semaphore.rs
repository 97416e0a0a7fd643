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

/// What stands in the memory. All of it is changed by the holder of the lock alone, except for the two numbers of a cell.
///
/// | word | means |
/// |---|---|
/// | `LOCK` | as in `raw_lock` |
/// | `FREE` | permits that nobody has |
/// | `TOTAL` | permits that exist |
/// | `BOUND` | how many may exist; never changes |
/// | `SLEEPERS` | who finds no permit sleeps on it. `ASLEEP`: perhaps somebody does. `WATCHED`: somebody has asked for the descriptor, for good. Above: how often they were woken |
/// | `USED` | the cells from this one on have never been used |
/// | `CELLS` | for each slot a [`Cell`]: a party, how many permits it uses, and how many it has put aside |
///
/// A permit that is given back stays with its party, put aside: giving back and taking again are one exchange of its own cell. Who finds none
/// anywhere else takes what all parties have put aside. While somebody sleeps or watches nothing is put aside.
///
/// The truth is `TOTAL` and the sums of the cells; `FREE` is what is left of the total. Each change of the truth is one store, so whatever a party
/// was doing when it died, it was done or not done, and the next holder of the lock counts `FREE` anew. A cell whose party is not there any more
/// (the owner died, or went and left permits) is emptied by the next one that finds no permit, or that gets the slot.
///
/// The lock orders all but the cells. Who is about to sleep says so in `SLEEPERS`, then exchanges each cell, even for the same value; who puts a
/// permit aside exchanges its cell, then looks at `SLEEPERS`. Of two exchanges of a cell the later one acquires what the earlier one has
/// released: so either the sleeper sees the permit, or its owner sees the sleeper.
const LOCK: usize = 0;
const FREE: usize = 4;
const TOTAL: usize = 8;
const BOUND: usize = 12;
const SLEEPERS: usize = 16;
const USED: usize = 24;
const CELLS: usize = 64;
pub(super) const LENGTH: usize = CELLS + SLOTS as usize * size_of::<Long>();

const ASLEEP: u32 = 1;
const WATCHED: u32 = 2;
const WOKEN_ONCE: u32 = 4;

/// More than anybody can hold, and far from where counting would overflow.
const MOST: u32 = i32::MAX as u32;

pub(super) static KIND: Kind = Kind {
    name: "Semaphore",
    number: u32::from_le_bytes(*b"sema"),
    length_min: LENGTH,
    bury: |body, dead| raw_lock::bury(body.word(LOCK), dead),
    leave: |_, _| (),
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

    /// Waits until there is a permit, and takes it: it is given back when what this returns is dropped, or when this process dies. To give it back
    /// elsewhere, [`forget`](Permit::forget) it here and [`release`](Self::release) one there.
    #[inline]
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

    #[inline]
    fn take(&self, deadline: Deadline) -> bool {
        self.words().take(deadline)
    }

    #[inline]
    fn words(&self) -> Words<'_, impl Fn(Party) -> bool> {
        let bell = Some(&self.bell);
        Words { body: self.region.body(), me: self.region.me(), gone: |party| self.region.bury_if_dead(party), bell }
    }
}

/// Readable as long as there is a permit. From the first call on taking and giving back take a lock, and a change between none and some costs
/// a system call.
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
    /// Keeps it for good: it does not come back by itself, not even when this process dies. Somebody, anywhere, makes another one with
    /// [`release`](Semaphore::release).
    ///
    /// So one process can take what another one gives back, as with a `sem_t` or in Python: then nobody owns a permit, and no death brings one
    /// back.
    ///
    /// ```
    /// use procession::ipc::{Process, Semaphore};
    ///
    /// let places = Semaphore::new(1)?;
    /// places.acquire().forget();
    /// assert_eq!(places.value(), 0);
    /// // Its end alone would bring nothing back.
    /// Process::start(|places: Semaphore| places.release(1), places.clone())?.join()??;
    /// assert_eq!(places.value(), 1);
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[doc(alias = "sem_wait")]
    pub fn forget(self) {
        self.semaphore.words().forget();
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    #[inline]
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

/// What a party has: from the lowest bits how many permits it uses (32), how many it has put aside (4), and its number (28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    used: u32,
    aside: u32,
    party: u32,
}

const ASIDE_MOST: u32 = 15;
const _: () = assert!(Party::MASK < 1 << 28);

impl Cell {
    #[inline]
    fn of(word: u64) -> Cell {
        Cell { used: word as u32, aside: (word >> 32) as u32 & ASIDE_MOST, party: (word >> 36) as u32 }
    }

    #[inline]
    fn word(self) -> u64 {
        u64::from(self.party) << 36 | u64::from(self.aside & ASIDE_MOST) << 32 | u64::from(self.used)
    }

    /// All that nobody else has.
    fn sum(self) -> u32 {
        self.used.saturating_add(self.aside)
    }

    fn empty(self) -> Option<Cell> {
        Some(Cell { used: 0, aside: 0, ..self })
    }

    #[inline]
    fn use_aside(self) -> Option<Cell> {
        Some(Cell { used: self.used.checked_add(1)?, aside: self.aside.checked_sub(1)?, ..self })
    }

    #[inline]
    fn put_aside(self) -> Option<Cell> {
        let aside = Some(self.aside + 1).filter(|aside| *aside <= ASIDE_MOST)?;
        Some(Cell { used: self.used.checked_sub(1)?, aside, ..self })
    }

    fn take_aside(self) -> Option<Cell> {
        Some(Cell { aside: 0, ..self })
    }

    fn use_one(self) -> Option<Cell> {
        Some(Cell { used: self.used.checked_add(1)?, ..self })
    }

    fn drop_one(self) -> Option<Cell> {
        Some(Cell { used: self.used.checked_sub(1)?, ..self })
    }
}

/// Changes a cell in one step, if it can be changed so. What it was before.
#[inline]
fn change(cell: &Long, change: impl Fn(Cell) -> Option<Cell>) -> Option<Cell> {
    let mut word = cell.load();
    loop {
        let before = Cell::of(word);
        match cell.replace(word, change(before)?.word()) {
            Ok(()) => return Some(before),
            Err(now) => word = now,
        }
    }
}

impl<'a, Gone: Fn(Party) -> bool> Words<'a, Gone> {
    #[inline]
    pub(super) fn take(&self, deadline: Deadline) -> bool {
        self.change_own(Cell::use_aside) || self.wait_and_take(deadline)
    }

    #[inline]
    pub(super) fn give_back(&self) {
        if !self.is_wanted() && self.change_own(Cell::put_aside) {
            if self.is_wanted() {
                self.hand_out();
            }
            return;
        }
        self.give_to_all();
    }

    /// Whether nothing is to be put aside.
    #[inline]
    fn is_wanted(&self) -> bool {
        self.body.word(SLEEPERS).load() & (ASLEEP | WATCHED) != 0
    }

    /// Changes our cell, if it is ours and can be changed so.
    #[inline]
    fn change_own(&self, to: impl Fn(Cell) -> Option<Cell>) -> bool {
        let mine = |cell: Cell| cell.party == self.me.number();
        change(self.cell(self.me.slot()), |cell| Some(cell).filter(|cell| mine(*cell)).and_then(&to)).is_some()
    }

    #[cold]
    fn wait_and_take(&self, deadline: Deadline) -> bool {
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
        self.own();
        if self.free() == 0 {
            sleepers.store(sleepers.load() | ASLEEP);
            self.gather();
        }
        let free = self.free();
        if free == 0 {
            return Err(sleepers.load());
        }
        self.change_own(Cell::use_one);
        self.set_free(free - 1);
        if slept {
            // There may be others, and who returned a permit after the one that woke us has not woken them.
            sleepers.store(sleepers.load() | ASLEEP);
        }
        if free > 1 && sleepers.load() & ASLEEP != 0 {
            drop(held);
            sleepers.wake(free - 1);
        }
        Ok(())
    }

    /// Gives a permit to whoever wants it.
    #[cold]
    fn give_to_all(&self) {
        let (_, held) = self.lock();
        if self.change_own(Cell::drop_one) {
            self.set_free(self.free().saturating_add(1));
        }
        self.wake(held, 1);
    }

    /// Hands out what we have put aside a moment too late.
    #[cold]
    fn hand_out(&self) {
        let (_, held) = self.lock();
        self.gather();
        let free = self.free();
        self.wake(held, free);
    }

    pub(super) fn forget(&self) {
        let (body, _held) = self.lock();
        // In this order: who dies in between gives back what it had, and that is one less than there were.
        body.word(TOTAL).store(body.word(TOTAL).load().saturating_sub(1));
        self.change_own(Cell::drop_one);
    }

    /// Makes permits, or says how many there are and may be.
    pub(super) fn make(&self, permits: u32) -> Result<(), (u32, u32)> {
        let (body, held) = self.lock();
        let (total, bound) = (body.word(TOTAL).load(), body.word(BOUND).load());
        let more = total.checked_add(permits).filter(|more| *more <= bound).ok_or((total, bound))?;
        body.word(TOTAL).store(more);
        self.set_free(self.free().saturating_add(permits));
        self.wake(held, permits);
        Ok(())
    }

    /// Takes back what parties have that are not there any more, and what the others have put aside.
    pub(super) fn collect(&self) {
        let (_, held) = self.lock();
        let before = self.free();
        for slot in 0..self.used() {
            let cell = Cell::of(self.cell(slot).load());
            let party = Party::named_in(cell.party).filter(|party| cell.sum() > 0 && *party != self.me);
            if party.is_some_and(|party| (self.gone)(party)) {
                self.empty(slot, Cell::empty, Cell::sum);
            }
        }
        self.gather();
        let back = self.free().saturating_sub(before);
        if back > 0 {
            self.wake(held, back);
        }
    }

    /// Takes all that has been put aside. Exchanges each cell, even if there is nothing in it: see above.
    fn gather(&self) {
        (0..self.used()).for_each(|slot| self.empty(slot, Cell::take_aside, |cell| cell.aside));
    }

    /// Takes something out of a cell: from then on it is free.
    fn empty(&self, slot: u32, to: impl Fn(Cell) -> Option<Cell>, count: impl Fn(Cell) -> u32) {
        if let Some(count) = change(self.cell(slot), to).map(count).filter(|count| *count > 0) {
            self.set_free(self.free().saturating_add(count));
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.body.word(FREE).load()
    }

    /// From now on the bell is kept right.
    fn watch(&self) {
        let (body, _held) = self.lock();
        let sleepers = body.word(SLEEPERS);
        if sleepers.load() & WATCHED != 0 {
            return;
        }
        sleepers.store(sleepers.load() | WATCHED);
        self.gather();
        if let Some(bell) = self.bell {
            bell.set(self.free() > 0);
        }
    }

    /// The lock. What its last holder has left half done when it died is put right.
    fn lock(&self) -> (View<'a>, Held<'a>) {
        let bury = |party| _ = (self.gone)(party);
        let (held, taken) = Held::take(self.body.word(LOCK), self.me, bury);
        if taken == Taken::FromDead {
            let had = (0..self.used()).map(|slot| Cell::of(self.cell(slot).load()).sum()).fold(0, u32::saturating_add);
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
            sleepers.store((value & !ASLEEP).wrapping_add(WOKEN_ONCE));
        }
        drop(held);
        if asleep {
            sleepers.wake(permits);
        }
    }

    /// Who waits by the descriptor is told too early rather than not at all, if we die in the middle.
    fn set_free(&self, free: u32) {
        let word = self.body.word(FREE);
        if self.body.word(SLEEPERS).load() & WATCHED == 0 {
            word.store(free);
            return;
        }
        let changes = word.load() == 0 || free == 0;
        let ring = |rings: bool| {
            if let Some(bell) = self.bell.filter(|_| changes && rings == (free > 0)) {
                bell.set(rings);
            }
        };
        ring(true);
        word.store(free);
        ring(false);
    }

    /// Makes our cell ours: what the last party of the slot has left in it is free again.
    fn own(&self) {
        let slot = self.me.slot();
        if Cell::of(self.cell(slot).load()).party == self.me.number() {
            return;
        }
        if self.used() <= slot {
            self.body.word(USED).store(slot + 1);
        }
        let ours = Cell { used: 0, aside: 0, party: self.me.number() };
        self.empty(slot, |_| Some(ours), Cell::sum);
    }

    #[inline]
    fn cell(&self, slot: u32) -> &'a Long {
        self.body.long(CELLS + (slot % SLOTS) as usize * size_of::<Long>())
    }

    fn used(&self) -> u32 {
        self.body.word(USED).load().min(SLOTS)
    }
}
