//! A queue of messages that are bytes: who may touch the ring when, when a message is there, and who waits for what. Decides what is left of a
//! process that dies at any instruction. Types, roles and words for people are above it.
//!
//! Those who put take turns by one lock, those who get by another. A message is copied behind the tail, where nobody looks, and then one store
//! to the tail makes it exist; one store to the head takes it out. So whoever dies in its turn has done nothing or all, and a lock that is taken
//! [from the dead](super::super::raw_lock::Taken::FromDead) needs no repair: there is nothing that could be half done. The counts of messages are
//! bits of the same two words, so they cannot disagree with the ring (`model.rs` tries all orders, with deaths in between).
//!
//! | word | changed by | means |
//! |---|---|---|
//! | `PUTTING`, `GETTING` | raw lock | whose turn it is |
//! | `TAIL` | who has `PUTTING`; `CLOSED` by anybody | all before it has been put; [`End`] |
//! | `HEAD` | who has `GETTING` | all before it has been taken; [`End`] |
//! | `HEAD_SEEN` | who has `PUTTING` | a head of before: there is at least so much room. Saves looking at the other side's cache line |
//! | `TAIL_SEEN` | who has `GETTING` | a tail of before: there is at least so much to get |
//! | `DONE` | anybody, by one exchange | so many tasks are done, at most as many as were taken |
//! | `NOT_EMPTY`, `NOT_FULL`, `ALL_DONE` | [`bell`] | who sleeps until a message comes, until there is room, until all tasks are done |
//!
//! The tail is published by an exchange that fails if the queue was closed meanwhile: what is reported as put was put before the close, and those
//! who get see it before they see the end.
//!
//! Who waits for room is woken when the queue is half empty, and not for each message that is taken: otherwise both sides would wake each other
//! once for each message. Who is slow to take makes the others wait a tenth of a second longer than necessary, with half a queue in front of it.

use super::bell;
use super::errors::{GetError, Refusal};
use super::ring::{CLOSED, Content, Corrupt, End, Memory, Ring, UNIT, UNITS_MAX, content, messages_between, units_for};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::raw_lock;
use crate::ipc::region::{Kind, LOOK, Region};
use crate::ipc::word::{Long, View, Word};
use crate::sys::{fd, record_lock, shared};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

static KIND: Kind = Kind {
    name: "queue",
    number: 0x51_0001,
    length_min: AT_RING + UNITS_MIN as usize * UNIT,
    bury: |view, dead| {
        raw_lock::bury(view.word(AT_PUTTING), dead);
        raw_lock::bury(view.word(AT_GETTING), dead);
    },
    leave: |_, _| (),
};

/// What stays as it is from the beginning.
const AT_ITEMS: usize = 0;
const AT_UNITS: usize = 8;
const AT_NAME: usize = 16;
const NAME_SIZE: usize = 112;
/// What is written by different sides lies on different cache lines, which come in pairs.
const AT_PUTTING: usize = 128;
const AT_HEAD_SEEN: usize = 136;
const AT_TAIL: usize = 256;
const AT_NOT_EMPTY: usize = 384;
const AT_GETTING: usize = 512;
const AT_TAIL_SEEN: usize = 520;
const AT_HEAD: usize = 640;
const AT_NOT_FULL: usize = 768;
const AT_DONE: usize = 896;
const AT_ALL_DONE: usize = 904;
const AT_RING: usize = 1024;

/// The smallest ring: a page.
const UNITS_MIN: u32 = 512;

/// So often is looked before going to sleep: while both sides run the other one is done with a message by then.
const SPINS: u32 = 100;

/// What the holder of a handle may do. Said by a lock on a byte of the memory, which ends with the last copy of the description that holds it,
/// wherever that is: in a process, in a message, among the descriptors of a child that has not looked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Both,
    Sender,
    Receiver,
}

const SENDERS: u32 = 1 << 30;
const RECEIVERS: u32 = SENDERS + 1;

impl Role {
    fn bytes(self) -> &'static [u32] {
        match self {
            Role::Both => &[SENDERS, RECEIVERS],
            Role::Sender => &[SENDERS],
            Role::Receiver => &[RECEIVERS],
        }
    }
}

/// One handle of a queue.
#[derive(Debug)]
pub(super) struct Core {
    region: Region,
    /// A description that holds the locks of the role. What others get is a copy of it.
    role: OwnedFd,
    units: u32,
    items: u32,
}

impl Core {
    pub(super) fn create(items: usize, bytes: usize, name: &str) -> Result<Core, Error> {
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        if items == 0 {
            return Err(Error::invalid("a queue for 0 items could never be put to"));
        }
        let units = units_for(bytes).and_then(u32::checked_next_power_of_two).filter(|units| *units <= UNITS_MAX);
        let units = units.ok_or_else(|| {
            let most = UNITS_MAX as usize * UNIT - UNIT;
            Error::invalid(format!("a queue for {bytes} bytes is larger than {most} bytes, the most there can be"))
        })?;
        let units = units.max(UNITS_MIN);
        let region = Region::create(&KIND, AT_RING + units as usize * UNIT)?;
        let (body, items) = (region.body(), items.min(units));
        body.long(AT_ITEMS).store(items.into());
        body.long(AT_UNITS).store(units.into());
        body.copy_in(AT_NAME, &padded(name));
        let role = take_role(region.as_fd(), Role::Both)?;
        Ok(Core { region, role, units, items })
    }

    /// The queue that somebody else has made, of messages that both call the same.
    pub(super) fn attach(file: OwnedFd, role: Role, name: &str) -> Result<Core, Error> {
        if shared::seals(file.as_fd()).is_err() {
            // It says what it thinks of this.
            Region::attach(&KIND, file)?;
            return Err(Error::invalid("this is no queue"));
        }
        // What has come holds the role of whoever sent it, until we have taken ours.
        let region = Region::attach(&KIND, reopen(file.as_fd())?)?;
        let body = region.body();
        let (items, units) = (body.long(AT_ITEMS).load(), body.long(AT_UNITS).load());
        let most = ((body.length() - AT_RING) / UNIT).min(UNITS_MAX as usize) as u64;
        let fits = units.is_power_of_two() && units <= most && (1..=units).contains(&items);
        let (Ok(items), Ok(units), true) = (u32::try_from(items), u32::try_from(units), fits) else {
            return Err(Error::invalid(format!("this is no queue: {items} items in {units} of {most} units")));
        };
        let mut written = [0; NAME_SIZE];
        body.copy_out(AT_NAME, &mut written);
        if written != padded(name) {
            let end = written.iter().position(|byte| *byte == 0).unwrap_or(NAME_SIZE);
            let other = String::from_utf8_lossy(written.get(..end).unwrap_or_default()).into_owned();
            return Err(Error::invalid(format!("this is a queue of {other:?} and not of {name:?}")));
        }
        let role = take_role(region.as_fd(), role)?;
        Ok(Core { region, role, units, items })
    }

    /// Another handle of this process, with a role of its own.
    pub(super) fn with_role(&self, role: Role) -> Result<Core, Error> {
        Ok(Core { region: self.region.clone(), role: take_role(self.region.as_fd(), role)?, ..*self })
    }

    /// What another process gets.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.role.as_fd()
    }

    pub(super) fn items_max(&self) -> usize {
        self.items as usize
    }

    pub(super) fn message_size_max(&self) -> usize {
        (self.units as usize - 1) * UNIT
    }

    /// What is in it. Others may change it meanwhile; then it is what was there at some moment, or nearly so.
    pub(super) fn content(&self) -> Content {
        let mut tail = self.tail();
        for _ in 0..SPINS {
            let (head, again) = (self.head(), self.tail());
            if tail == again {
                return content(head, tail, self.units).unwrap_or_default();
            }
            tail = again;
        }
        let (units, messages) = (self.units, messages_between(self.head().count(), tail.count()).min(self.items));
        Content { messages, units: units.min(messages.saturating_mul(2)) }
    }

    pub(super) fn is_full(&self) -> bool {
        !self.fits(self.content(), 1)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tail().is_closed()
    }

    /// Nothing is put any more. For all.
    pub(super) fn close(&self) {
        self.long(AT_TAIL).set_bits(CLOSED);
        for bell in [AT_NOT_EMPTY, AT_NOT_FULL] {
            bell::ring_all(self.word(bell));
        }
    }

    fn word(&self, offset: usize) -> &Word {
        self.region.body().word(offset)
    }

    fn long(&self, offset: usize) -> &Long {
        self.region.body().long(offset)
    }

    fn end(&self, offset: usize) -> End {
        End::from_word(self.long(offset).load())
    }

    fn tail(&self) -> End {
        self.end(AT_TAIL)
    }

    fn head(&self) -> End {
        self.end(AT_HEAD)
    }

    fn ring(&self) -> Ring<View<'_>> {
        Ring::new(self.region.body().from(AT_RING), self.units)
    }

    fn fits(&self, content: Content, units: u32) -> bool {
        content.messages < self.items && content.units.saturating_add(units) <= self.units
    }

    /// Whether nobody is left anywhere who has this role. If that cannot be asked, somebody is.
    fn is_gone(&self, role: u32) -> bool {
        !record_lock::is_held(self.region.as_fd(), role).unwrap_or(true)
    }

    /// Waits for the others who want the same lock: at least until it is certain whether its holder is alive. None if one that is alive, but does
    /// not run, has it.
    #[inline]
    fn take_turn<'a>(&'a self, lock: &'a Word, deadline: Deadline) -> Option<Turn<'a>> {
        // There is nothing to repair when it is taken from the dead.
        let _: raw_lock::Taken = match raw_lock::try_take(lock, self.region.me()) {
            Some(taken) => taken,
            None => self.wait_for_turn(lock, deadline)?,
        };
        Some(Turn { lock })
    }

    #[cold]
    fn wait_for_turn(&self, lock: &Word, deadline: Deadline) -> Option<raw_lock::Taken> {
        let least = Deadline::after(LOOK);
        let deadline = if deadline.earlier(least) == deadline { least } else { deadline };
        raw_lock::take(lock, self.region.me(), deadline, |party| {
            let _: bool = self.region.bury_if_dead(party); // it is looked at again anyway
        })
    }
}

/// A turn of those who put, or of those who get.
struct Turn<'a> {
    lock: &'a Word,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        raw_lock::give_back(self.lock);
    }
}

impl Memory for View<'_> {
    fn copy_in(&self, offset: usize, from: &[u8]) {
        View::copy_in(*self, offset, from);
    }

    fn copy_out(&self, offset: usize, to: &mut [u8]) {
        View::copy_out(*self, offset, to);
    }
}

// ---- putting

impl Core {
    /// Puts the messages that `message` knows by number, all of them or until something is in the way. How many it were.
    pub(super) fn put<'a>(
        &self,
        message: impl Fn(usize) -> Option<&'a [u8]>,
        deadline: Deadline,
    ) -> (usize, Result<(), Refusal>) {
        let mut put = 0;
        while let Some(next) = message(put) {
            match self.put_some(|place| message(put + place), deadline) {
                Ok(0) => {
                    if let Err(refusal) = self.wait_for_room(next.len(), deadline) {
                        return (put, Err(refusal));
                    }
                }
                Ok(count) => put += count,
                Err(refusal) => return (put, Err(refusal)),
            }
        }
        (put, Ok(()))
    }

    /// One turn: puts as many as there is room for, perhaps none.
    fn put_some<'a>(&self, message: impl Fn(usize) -> Option<&'a [u8]>, deadline: Deadline) -> Result<usize, Refusal> {
        let turn = self.take_turn(self.word(AT_PUTTING), deadline).ok_or(Refusal::Full)?;
        let (ring, before) = (self.ring(), self.tail());
        if before.is_closed() {
            return Err(Refusal::Closed);
        }
        let (mut tail, mut count) = (before, 0);
        let head_seen = End::from_word(self.long(AT_HEAD_SEEN).load());
        let mut here = content(head_seen, tail, self.units).or_else(|_| self.look_at_head(tail));
        while let Some(next) = message(count) {
            let too_large = Refusal::TooLarge { size: next.len(), size_max: self.message_size_max() };
            let Some(units) = units_for(next.len()).filter(|units| *units <= self.units) else {
                if count > 0 {
                    break;
                }
                return Err(too_large);
            };
            if !here.is_ok_and(|here| self.fits(here, units)) {
                here = self.look_at_head(tail);
            }
            let now = here.map_err(|corrupt| Refusal::Broken(corrupted(corrupt)))?;
            let Some(next) = Some(next).filter(|_| self.fits(now, units)).and_then(|next| ring.write(tail, next))
            else {
                break;
            };
            here = Ok(Content { messages: now.messages + 1, units: now.units + units });
            (tail, count) = (next, count + 1);
        }
        if count > 0 {
            // From here on they exist, all at once. Nobody but a close can have been here.
            let published = self.long(AT_TAIL).replace(before.word(), tail.word());
            published.map_err(|_| Refusal::Closed)?;
        }
        drop(turn);
        if count > 0 {
            bell::ring(self.word(AT_NOT_EMPTY), u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(count)
    }

    fn look_at_head(&self, tail: End) -> Result<Content, Corrupt> {
        let head = self.head();
        self.long(AT_HEAD_SEEN).store(head.word());
        content(head, tail, self.units)
    }

    /// Waits until there may be room for a message of this length.
    #[cold]
    fn wait_for_room(&self, length: usize, deadline: Deadline) -> Result<(), Refusal> {
        let units = units_for(length).unwrap_or(UNITS_MAX);
        // The head may be further than the tail that was seen before it: then there was room.
        let has_room = |tail| content(self.head(), tail, self.units).map_or(true, |here| self.fits(here, units));
        let mut spins = 0;
        while spins < SPINS && !deadline.has_passed() {
            if has_room(self.tail()) {
                return Ok(());
            }
            std::hint::spin_loop();
            spins += 1;
        }
        let bell = self.word(AT_NOT_FULL);
        loop {
            let drowsy = bell::before_sleep(bell, deadline);
            let tail = self.tail();
            if tail.is_closed() {
                return Err(Refusal::Closed);
            }
            if has_room(tail) {
                return Ok(());
            }
            if bell::sleep(bell, drowsy, deadline) && self.is_gone(RECEIVERS) && !has_room(self.tail()) {
                return Err(Refusal::PeersGone);
            }
            if drowsy.is_none() {
                return Err(Refusal::Full);
            }
        }
    }
}

// ---- getting

impl Core {
    /// Takes out up to so many messages, at least one, and appends them to `bytes`, and where each ends to `ends`.
    pub(super) fn get(
        &self,
        count_max: usize,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        deadline: Deadline,
    ) -> Result<(), GetError> {
        if count_max == 0 {
            return Ok(());
        }
        while self.get_some(count_max, bytes, ends, deadline)? == 0 {
            self.wait_for_message(deadline)?;
        }
        Ok(())
    }

    /// One turn: takes as many as there are, perhaps none.
    fn get_some(
        &self,
        count_max: usize,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        deadline: Deadline,
    ) -> Result<usize, GetError> {
        let turn = self.take_turn(self.word(AT_GETTING), deadline).ok_or(GetError::Empty)?;
        let (ring, mut head) = (self.ring(), self.head());
        let mut tail = End::from_word(self.long(AT_TAIL_SEEN).load());
        let mut here = content(head, tail, self.units);
        if !here.is_ok_and(|here| here.messages as usize >= count_max) {
            tail = self.tail();
            self.long(AT_TAIL_SEEN).store(tail.word());
            here = content(head, tail, self.units);
        }
        let mut here = here.map_err(broken)?;
        let mut count = 0;
        while count < count_max && here.messages > 0 {
            match ring.read(head, here, bytes).and_then(|next| Ok((next, content(next, tail, self.units)?))) {
                Ok(next) => (head, here) = next,
                // It will be the first one next time.
                Err(_) if count > 0 => break,
                Err(corrupt) => return Err(broken(corrupt)),
            }
            ends.push(bytes.len());
            count += 1;
        }
        if count > 0 {
            // From here on they are taken, all at once.
            self.long(AT_HEAD).store(head.word());
        }
        drop(turn);
        let bell = self.word(AT_NOT_FULL);
        if count > 0 && bell::is_waited_for(bell) && self.is_half_empty(here) {
            bell::ring(bell, self.items - here.messages.min(self.items));
        }
        Ok(count)
    }

    fn is_half_empty(&self, here: Content) -> bool {
        here.messages <= self.items / 2 && here.units <= self.units / 2
    }

    /// Waits until there may be a message.
    #[cold]
    fn wait_for_message(&self, deadline: Deadline) -> Result<(), GetError> {
        let is_empty = |tail: End| messages_between(self.head().count(), tail.count()) == 0;
        let mut spins = 0;
        while spins < SPINS && !deadline.has_passed() {
            if !is_empty(self.tail()) {
                return Ok(());
            }
            std::hint::spin_loop();
            spins += 1;
        }
        let bell = self.word(AT_NOT_EMPTY);
        loop {
            let drowsy = bell::before_sleep(bell, deadline);
            let tail = self.tail();
            if !is_empty(tail) {
                return Ok(());
            }
            if tail.is_closed() {
                return Err(GetError::Closed);
            }
            if bell::sleep(bell, drowsy, deadline) && self.is_gone(SENDERS) && is_empty(self.tail()) {
                // A close may have come before the last of them went.
                return Err(if self.is_closed() { GetError::Closed } else { GetError::PeersGone });
            }
            if drowsy.is_none() {
                return Err(GetError::Empty);
            }
        }
    }
}

// ---- tasks

impl Core {
    /// One of those that were taken is done.
    pub(super) fn task_done(&self) -> Result<(), Error> {
        let done = self.word(AT_DONE);
        loop {
            let before = done.load();
            if messages_between(before, self.head().count()) == 0 {
                return Err(Error::invalid("task_done was called more often than messages were taken from the queue"));
            }
            if done.replace(before, next_count(before)).is_ok() {
                break;
            }
        }
        if self.unfinished() == 0 {
            bell::ring_all(self.word(AT_ALL_DONE));
        }
        Ok(())
    }

    /// How many were put whose tasks are not done.
    pub(super) fn unfinished(&self) -> usize {
        // In this order it is 0 only if it was: done can never be more than put.
        let done = self.word(AT_DONE).load();
        messages_between(done, self.tail().count()) as usize
    }

    /// Waits until all tasks are done.
    pub(super) fn join(&self, deadline: Deadline) -> Result<(), Error> {
        let bell = self.word(AT_ALL_DONE);
        loop {
            let drowsy = bell::before_sleep(bell, deadline);
            let unfinished = self.unfinished();
            if unfinished == 0 {
                return Ok(());
            }
            if bell::sleep(bell, drowsy, deadline) && self.is_gone(RECEIVERS) && self.unfinished() > 0 {
                let text =
                    format!("{unfinished} tasks of the queue are not done, and nobody is left who could do them");
                return Err(Error::new(ErrorKind::Ended).detail(text));
            }
            if drowsy.is_none() {
                let text = format!("{unfinished} tasks of the queue are not done");
                return Err(Error::new(ErrorKind::Timeout).detail(text));
            }
        }
    }
}

fn next_count(count: u32) -> u32 {
    count.wrapping_add(1) & (u32::MAX >> 1)
}

fn broken(corrupt: Corrupt) -> GetError {
    GetError::Broken(corrupted(corrupt))
}

fn corrupted(corrupt: Corrupt) -> Error {
    Error::new(ErrorKind::Io).detail(format!("the memory of the queue is corrupt: {corrupt}"))
}

/// The name of the messages' type, cut where there is no more room.
fn padded(name: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn reopen(file: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let mut options = OpenOptions::new();
    let file = fd::reopen(file, options.read(true).write(true), 0);
    file.map_err(|error| Error::io("open", error).path("/proc/self/fd"))
}

/// A description that says this role.
fn take_role(file: BorrowedFd<'_>, role: Role) -> Result<OwnedFd, Error> {
    let file = reopen(file)?;
    for byte in role.bytes() {
        record_lock::share(file.as_fd(), *byte).map_err(|error| Error::io("fcntl", error))?;
    }
    Ok(file)
}
