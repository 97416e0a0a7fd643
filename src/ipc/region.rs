//! The memory of one shared object, and the parties to it. Decides who is alive: every process that holds the object is a party, with a number of
//! its own, and the kernel keeps a lock on the byte of that number for as long as the process lives. Leaves to the object what is to be put
//! right when a party has died.
//!
//! So the death of a party is a fact that can be asked for at any time, from any process, in any pid namespace: nothing is announced, and
//! nothing can be missed. Who sleeps for another party looks every tenth of a second ([`LOOK`]) whether that one still lives.
//!
//! A process is one party to an object, however often it receives it: what comes a second time is what it has already.

use super::passing;
use super::vigil::Vigil;
use super::word::{Long, View, Word};
use crate::error::{Error, ErrorKind};
use crate::sys::{fd, record_lock, shared, socket};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Who sleeps until another party does something looks after this time whether that one is still alive.
pub(crate) const LOOK: Duration = if cfg!(loom) { Duration::ZERO } else { Duration::from_millis(100) };

/// What the memory begins with: "procmem" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"procmem\x01");
const AT_MAGIC: usize = 0;
const AT_KIND: usize = 8;
/// The slots from this one on have never been used.
const AT_USED: usize = 12;
/// A random number, by which the memory is known again.
const AT_IDENTITY: usize = 16;
const AT_SLOTS: usize = 64;
/// How many parties there can be at a time: processes.
pub(crate) const SLOTS: u32 = if cfg!(loom) { 4 } else { 4096 };
const AT_BODY: usize = AT_SLOTS + SLOTS as usize * size_of::<Word>();

/// A word for each slot: the generation of the party that has or had it, and whether it has left in order.
///
/// | value | means |
/// |---|---|
/// | generation | nobody has it |
/// | generation, `PRESENT`, its byte locked | the party lives |
/// | generation, `PRESENT`, its byte free | the party has died, and nobody has put things right yet |
const PRESENT: u32 = 1 << 31;

/// A party: the slot in the lower bits, its generation above, so that a number that comes back is another party. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Party(u32);

const SLOT_BITS: u32 = SLOTS.trailing_zeros();
const GENERATIONS: u32 = 1 << 16;

impl Party {
    /// How many bits a party takes in a word, from the lowest.
    pub(crate) const MASK: u32 = SLOTS * GENERATIONS - 1;

    fn new(slot: u32, generation: u32) -> Party {
        Party(generation << SLOT_BITS | slot)
    }

    #[cfg(test)]
    pub(crate) fn for_test(number: u32) -> Party {
        Party::new(number, 1)
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The party that a word names. `None` for 0.
    #[inline]
    pub(crate) fn named_in(word: u32) -> Option<Party> {
        Some(Party(word & Party::MASK)).filter(|party| party.0 != 0)
    }

    #[inline]
    pub(crate) fn slot(self) -> u32 {
        self.0 & (SLOTS - 1)
    }

    fn generation(self) -> u32 {
        self.0 >> SLOT_BITS
    }
}

/// What kind of object the memory belongs to, and what is to be done when a party has died.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name, for errors.
    pub(crate) name: &'static str,
    /// What stands in the memory. Another layout is another number.
    pub(crate) number: u32,
    /// How much memory the object needs at least.
    pub(crate) length_min: usize,
    /// Puts right what a dead party has left behind. It may itself be cut off at any point, and is called again by another then.
    pub(crate) bury: fn(View<'_>, Party),
    /// What a party that goes in order says before it is buried, too.
    pub(crate) leave: fn(View<'_>, Party),
}

/// The memories that this process is a party to, by their identity.
static ATTACHED: Mutex<BTreeMap<u64, Weak<Attached>>> = Mutex::new(BTreeMap::new());

fn attached() -> MutexGuard<'static, BTreeMap<u64, Weak<Attached>>> {
    ATTACHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory of an object, shared by all that have it in this process.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    attached: Arc<Attached>,
}

#[derive(Debug)]
struct Attached {
    kind: &'static Kind,
    mapping: shared::Mapping,
    identity: u64,
    me: Party,
    /// What others get. It holds no lock.
    file: OwnedFd,
    /// A description that nobody else has: with it ends the lock on our byte.
    life: OwnedFd,
    vigil: Vigil,
}

impl Region {
    /// Memory for a new object, all zeros.
    pub(crate) fn create(kind: &'static Kind, length: usize) -> Result<Region, Error> {
        let size = AT_BODY.checked_add(length.max(kind.length_min)).ok_or_else(|| too_large(kind, length))?;
        let file = shared::create(c"procession", size as u64).map_err(|error| Error::io("memfd_create", error))?;
        let mapping = map(&file, size)?;
        let mut identity = [0; 8];
        socket::random(&mut identity).map_err(|error| Error::io("getrandom", error))?;
        View::new(&mapping).long(AT_IDENTITY).store(u64::from_ne_bytes(identity));
        View::new(&mapping).long(AT_MAGIC).store(MAGIC);
        View::new(&mapping).word(AT_KIND).store(kind.number);
        let region = Region::join(kind, mapping, file)?;
        attached().insert(region.attached.identity, Arc::downgrade(&region.attached));
        Ok(region)
    }

    /// The memory of an object that somebody else has made, or that this process has already: then it is the same party.
    pub(crate) fn attach(kind: &'static Kind, file: OwnedFd) -> Result<Region, Error> {
        let mapping = Region::checked(kind, &file)?;
        let identity = identity(&mapping).load();
        // Nobody else of this process attaches it meanwhile.
        let mut all = attached();
        if let Some(known) = all.get(&identity).and_then(Weak::upgrade) {
            // If it goes now it wants to be taken off the list.
            drop(all);
            if is_same(&known.file, &file)? {
                return Ok(Region { attached: known });
            }
            // A copy of the bytes, which somebody has made.
            return Region::join(kind, mapping, file);
        }
        let region = Region::join(kind, mapping, file)?;
        all.insert(identity, Arc::downgrade(&region.attached));
        Ok(region)
    }

    /// As if another process had it, too.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn attach_as_another(kind: &'static Kind, file: OwnedFd) -> Result<Region, Error> {
        Region::join(kind, Region::checked(kind, &file)?, file)
    }

    fn checked(kind: &'static Kind, file: &OwnedFd) -> Result<shared::Mapping, Error> {
        let foreign = |what: String| Error::invalid(format!("this is no {}: {what}", kind.name));
        let seals = shared::seals(file.as_fd()).map_err(|_| foreign("the descriptor is no shared memory".into()))?;
        let size = shared::size(file.as_fd()).map_err(|error| Error::io("fstat", error))?;
        let size = usize::try_from(size).map_err(|_| foreign(format!("{size} bytes do not fit into memory")))?;
        if !shared::is_fixed(seals) || size < AT_BODY + kind.length_min {
            return Err(foreign(format!("{size} bytes of shared memory, which could change")));
        }
        let mapping = map(file, size)?;
        let view = View::new(&mapping);
        let (magic, number) = (view.long(AT_MAGIC).load(), view.word(AT_KIND).load());
        if magic != MAGIC {
            return Err(foreign(format!("its memory begins with {magic:#018x} instead of {MAGIC:#018x}")));
        }
        if number != kind.number {
            return Err(foreign(format!("it is of kind {number} instead of {}", kind.number)));
        }
        Ok(mapping)
    }

    fn join(kind: &'static Kind, mapping: shared::Mapping, file: OwnedFd) -> Result<Region, Error> {
        let mut options = OpenOptions::new();
        let life = fd::reopen(file.as_fd(), options.read(true).write(true), 0)
            .map_err(|error| Error::io("open", error).path("/proc/self/fd"))?;
        let me = take_slot(kind, &mapping, life.as_fd())?;
        let identity = identity(&mapping).load();
        let attached = Attached { kind, mapping, identity, me, file, life, vigil: Vigil::default() };
        Ok(Region { attached: Arc::new(attached) })
    }

    /// The object's own part of the memory.
    #[inline]
    pub(crate) fn body(&self) -> View<'_> {
        View::new(&self.attached.mapping).from(AT_BODY)
    }

    /// Who we are.
    #[inline]
    pub(crate) fn me(&self) -> Party {
        self.attached.me
    }

    /// How long to look before going to sleep.
    pub(crate) fn vigil(&self) -> &Vigil {
        &self.attached.vigil
    }

    /// Looks whether this party has died, and puts things right then. True if it is not there any more.
    pub(crate) fn bury_if_dead(&self, party: Party) -> bool {
        let attached = &*self.attached;
        let slot = slot_word(&attached.mapping, party.slot());
        if slot.load() != PRESENT | party.generation() {
            return true;
        }
        party != attached.me && bury(attached.kind, &attached.mapping, attached.life.as_fd(), party.slot())
    }

    /// Looks after all parties, and puts things right where one has died.
    pub(crate) fn bury_dead(&self) {
        let attached = &*self.attached;
        for slot in 0..used(&attached.mapping) {
            if slot != attached.me.slot() && slot_word(&attached.mapping, slot).load() & PRESENT != 0 {
                bury(attached.kind, &attached.mapping, attached.life.as_fd(), slot);
            }
        }
    }

    /// How many parties there are, the dead ones not counted.
    #[cfg(test)]
    pub(crate) fn parties(&self) -> usize {
        self.bury_dead();
        let mapping = &self.attached.mapping;
        (0..used(mapping)).filter(|slot| slot_word(mapping, *slot).load() & PRESENT != 0).count()
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.attached.file.as_fd()
    }
}

impl Serialize for Region {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        passing::serialize(self.as_fd(), serializer)
    }
}

impl Region {
    /// The memory that somebody has passed to us.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        kind: &'static Kind,
        deserializer: D,
    ) -> Result<Region, D::Error> {
        let file = passing::Descriptor::deserialize(deserializer)?;
        Region::attach(kind, file.into_owned_fd()).map_err(|why| D::Error::custom(passing::because(why)))
    }
}

/// We go in order. What we have left behind is put right like what the dead leave.
impl Drop for Attached {
    fn drop(&mut self) {
        let body = View::new(&self.mapping).from(AT_BODY);
        (self.kind.leave)(body, self.me);
        (self.kind.bury)(body, self.me);
        slot_word(&self.mapping, self.me.slot()).clear_bits(PRESENT);
        let mut all = attached();
        // Somebody may have attached it anew.
        if all.get(&self.identity).is_some_and(|attached| attached.strong_count() == 0) {
            all.remove(&self.identity);
        }
    }
}

fn identity(mapping: &shared::Mapping) -> &Long {
    View::new(mapping).long(AT_IDENTITY)
}

/// Whether both are descriptors of the same memory.
fn is_same(one: &OwnedFd, two: &OwnedFd) -> Result<bool, Error> {
    let known = |file: &OwnedFd| shared::file_number(file.as_fd()).map_err(|error| Error::io("fstat", error));
    Ok(known(one)? == known(two)?)
}

fn too_large(kind: &Kind, length: usize) -> Error {
    Error::invalid(format!("a {} of {length} bytes is larger than memory can be", kind.name))
}

fn map(file: &OwnedFd, size: usize) -> Result<shared::Mapping, Error> {
    let size = NonZeroUsize::new(size).ok_or_else(|| Error::invalid("shared memory of no size"))?;
    shared::Mapping::new(file.as_fd(), size, true).map_err(|error| Error::io("mmap", error))
}

fn slot_word(mapping: &shared::Mapping, slot: u32) -> &Word {
    View::new(mapping).word(AT_SLOTS + (slot % SLOTS) as usize * size_of::<Word>())
}

/// How many slots have ever been used.
fn used(mapping: &shared::Mapping) -> u32 {
    View::new(mapping).word(AT_USED).load().min(SLOTS)
}

/// The first free slot, or one whose party has died.
fn take_slot(kind: &'static Kind, mapping: &shared::Mapping, life: BorrowedFd<'_>) -> Result<Party, Error> {
    for slot in 0..SLOTS {
        let word = slot_word(mapping, slot);
        if word.load() & PRESENT != 0 && !bury(kind, mapping, life, slot) {
            continue;
        }
        // Whoever holds the byte may change the word.
        if !lock(life, slot)? {
            continue;
        }
        let before = word.load();
        if before & PRESENT != 0 {
            record_lock::give_back(life, slot);
            continue;
        }
        let generation = (before % GENERATIONS + 1) % GENERATIONS;
        let generation = generation.max(1);
        word.store(PRESENT | generation);
        raise(View::new(mapping).word(AT_USED), slot + 1);
        return Ok(Party::new(slot, generation));
    }
    let text = format!("a {} can be shared by {SLOTS} processes, and is", kind.name);
    Err(Error::new(ErrorKind::ResourceExhausted).detail(text))
}

fn raise(word: &Word, least: u32) {
    let mut value = word.load();
    while value < least {
        match word.replace(value, least) {
            Ok(()) => return,
            Err(now) => value = now,
        }
    }
}

/// Puts right what the party in this slot has left, if it has died. True if nobody has the slot now.
fn bury(kind: &Kind, mapping: &shared::Mapping, life: BorrowedFd<'_>, slot: u32) -> bool {
    // One at a time: the byte of the dead is ours meanwhile. If we die before it is done, the next one does it again.
    if !lock(life, slot).unwrap_or(false) {
        return false;
    }
    let word = slot_word(mapping, slot);
    let value = word.load();
    if value & PRESENT != 0 {
        (kind.bury)(View::new(mapping).from(AT_BODY), Party::new(slot, value & !PRESENT));
        word.clear_bits(PRESENT);
    }
    record_lock::give_back(life, slot);
    true
}

fn lock(life: BorrowedFd<'_>, slot: u32) -> Result<bool, Error> {
    record_lock::take(life, slot).map_err(|error: io::Error| Error::io("fcntl", error))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ipc::raw_lock;

    static LOCKED: Kind = Kind {
        name: "test object",
        number: u32::MAX,
        length_min: 8,
        bury: |view, dead| raw_lock::bury(view.word(0), dead),
        leave: |_, _| (),
    };

    fn copy(region: &Region) -> OwnedFd {
        region.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn parties_come_and_go() {
        let one = Region::create(&LOCKED, 8).unwrap();
        let two = Region::attach_as_another(&LOCKED, copy(&one)).unwrap();
        assert_ne!(one.me(), two.me());
        assert_eq!(one.parties(), 2);
        assert!(!one.bury_if_dead(two.me()));
        let left = two.me();
        assert_eq!(raw_lock::try_take(two.body().word(0), left), Some(raw_lock::Taken::Clean));
        drop(two);
        assert!(one.bury_if_dead(left));
        assert_eq!(raw_lock::try_take(one.body().word(0), one.me()), Some(raw_lock::Taken::FromDead));
        // The number comes back, and is somebody else.
        let three = Region::attach_as_another(&LOCKED, copy(&one)).unwrap();
        assert_eq!(three.me().slot(), left.slot());
        assert_ne!(three.me(), left);
        assert!(one.bury_if_dead(left) && !one.bury_if_dead(three.me()));
    }

    /// Made here or received, together or one after the other, by many threads: it is one party, and the memory is given back.
    #[test]
    fn a_process_is_one_party() {
        let one = Region::create(&LOCKED, 8).unwrap();
        let two = Region::attach(&LOCKED, copy(&one)).unwrap();
        assert_eq!((one.me(), one.parties()), (two.me(), 1));
        let file = copy(&one);
        let identity = one.attached.identity;
        drop(one);
        assert_eq!(two.parties(), 1);
        drop(two);
        assert!(!attached().contains_key(&identity));
        let again = Region::attach(&LOCKED, file.try_clone().unwrap()).unwrap();
        let other = Region::attach(&LOCKED, file.try_clone().unwrap()).unwrap();
        assert_eq!((again.me(), again.parties()), (other.me(), 1));
        drop((again, other));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope
                    .spawn(|| (0..500).for_each(|_| drop(Region::attach(&LOCKED, file.try_clone().unwrap()).unwrap())));
            }
        });
        assert!(!attached().contains_key(&identity));
        // The same bytes elsewhere are another memory.
        let one = Region::attach(&LOCKED, file).unwrap();
        let copied = Region::create(&LOCKED, 8).unwrap();
        View::new(&copied.attached.mapping).long(AT_IDENTITY).store(one.attached.identity);
        let other = Region::attach(&LOCKED, copy(&copied)).unwrap();
        assert_eq!((one.parties(), copied.parties()), (1, 2));
        drop(other);
        assert!(attached().contains_key(&identity));
    }

    #[test]
    fn other_memory_is_refused() {
        let refused = |file: OwnedFd| Region::attach(&LOCKED, file).unwrap_err().to_string();
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(refused(reader.into()), "this is no test object: the descriptor is no shared memory");
        let short = shared::create(c"test", 100).unwrap();
        assert!(refused(short).contains("100 bytes of shared memory"));
        let empty = shared::create(c"test", (AT_BODY + 8) as u64).unwrap();
        assert!(refused(empty).contains("its memory begins with"));
        static OTHER: Kind = Kind { name: "other", number: 7, ..LOCKED };
        let other = Region::create(&OTHER, 8).unwrap();
        assert!(refused(copy(&other)).contains("it is of kind 7"));
    }

    #[test]
    fn parties_are_counted() {
        let one = Region::create(&LOCKED, 8).unwrap();
        View::new(&one.attached.mapping).word(AT_USED).store(SLOTS);
        let others: Vec<_> = (1..8).map(|_| Region::attach_as_another(&LOCKED, copy(&one)).unwrap()).collect();
        assert_eq!(one.parties(), 8);
        drop(others);
        assert_eq!(one.parties(), 1);
    }
}
