//! Memory between a pool and one of its workers: tasks on the way there, results on the way back. Decides the layout, who may write what, and when
//! somebody is woken. Leaves to others what a task is.
//!
//! Each way is a ring of bytes with one writer and one reader. Tasks are granted and claimed by one word that holds both counts, so that
//! at every moment each task is either the worker's, or can be taken back; that word is also the evidence when a worker has died.
//!
//! | place | what | written by |
//! |---|---|---|
//! | 0 | how many tasks were granted (upper half) and claimed (lower half) | pool grants and takes back; worker claims |
//! | 64 | 1: the worker sleeps until a task is granted | worker sets, pool clears |
//! | 128 | how many bytes of results there are, from the beginning | worker |
//! | 192 | 1: the pool wants to be rung for at the next result | pool sets, worker clears |
//! | 256 | how many bytes of results were read | pool |
//! | 320 | 1: the worker sleeps until results were read | worker sets, pool clears |
//! | 384 | 1: the worker has come to its first task | worker |
//! | 512 | tasks | pool |
//! | 512 + [`RING`] | results | worker |
//!
//! What is too large for a ring lies in a file beside it, whose pages are given back when it was read.
//!
//! Descriptors go through a socket beside it, one packet for each task or result that has any, sent before the piece that says how many they are. At
//! most one task with descriptors is with a worker at a time, so a packet that was not received belongs to a task that was not begun: the pool,
//! which has a copy of the worker's end, takes it back with the task. Until then nobody else holds the descriptors.

use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipc::region::LOOK;
use crate::ipc::word::{Long, View, Word};
use crate::sys::shared::{self, Mapping};
use crate::sys::socket;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

const AT_COUNTS: usize = 0;
const AT_ASLEEP: usize = 64;
const AT_WRITTEN: usize = 128;
const AT_TELL: usize = 192;
const AT_READ: usize = 256;
const AT_BLOCKED: usize = 320;
const AT_READY: usize = 384;
const AT_TASKS: usize = 512;
/// How many bytes each ring has.
const RING: usize = 256 * 1024;
const LENGTH: usize = AT_TASKS + 2 * RING;

/// Longer ones lie in the file. Short enough that the ring holds many.
const INLINE_MAX: usize = 8 * 1024;
/// In front of each piece: its length, and what it is; the rest up to the end of the ring is skipped.
const HEAD: usize = 8;
const SKIP: u32 = u32::MAX;
/// What a piece is: in the lowest bit, whether its bytes are in the file, so that the piece holds place and length; above, how many descriptors
/// come with it.
const IN_FILE: u32 = 1;
const INLINE: u32 = 0;
const DESCRIPTOR: u32 = 2;

fn kind_of(long: bool, descriptors: u32) -> u32 {
    if long { IN_FILE + descriptors * DESCRIPTOR } else { INLINE + descriptors * DESCRIPTOR }
}

/// So many descriptors can come with one task or result: a packet of them.
pub(super) const DESCRIPTORS_MAX: usize = socket::DESCRIPTORS_MAX;

fn mapped(file: BorrowedFd<'_>) -> Result<Mapping, Error> {
    let length = NonZeroUsize::new(LENGTH).ok_or_else(|| Error::invalid("a channel of no length"))?;
    if shared::size(file).map_err(|error| Error::io("fstat", error))? != LENGTH as u64 {
        return Err(Error::invalid("this is no channel to a worker"));
    }
    Mapping::new(file, length, true).map_err(|error| Error::io("mmap", error))
}

/// One ring: where a piece is put, and how it is found.
#[derive(Clone, Copy)]
struct Ring<'a>(View<'a>);

impl Ring<'_> {
    /// How many bytes from this position on a piece of this length takes, with what is skipped before it.
    fn size_at(position: u64, length: usize) -> (u64, u64) {
        let size = (HEAD + length).next_multiple_of(HEAD) as u64;
        let left = RING as u64 - position % RING as u64;
        if size > left { (left, left + size) } else { (0, size) }
    }

    /// Writes a piece behind this position, where there is room, and says where the next one begins.
    fn write(self, position: u64, kind: u32, bytes: &[u8]) -> u64 {
        let (skipped, size) = Ring::size_at(position, bytes.len());
        if skipped > 0 {
            self.0.copy_in((position % RING as u64) as usize, &[SKIP.to_ne_bytes(); 2].concat());
        }
        let at = ((position + skipped) % RING as u64) as usize;
        let mut head = [0; HEAD];
        let (length, what) = head.split_at_mut(4);
        length.copy_from_slice(&(bytes.len() as u32).to_ne_bytes());
        what.copy_from_slice(&kind.to_ne_bytes());
        self.0.copy_in(at, &head);
        self.0.copy_in(at + HEAD, bytes);
        position + size
    }

    /// Reads the piece at this position: its kind, and where the next one begins. `None` if no piece can be there.
    fn read(self, position: u64, bytes: &mut Vec<u8>) -> Option<(u32, u64)> {
        let at = (position % RING as u64) as usize;
        let (mut length, mut kind) = self.head(at);
        let mut start = position;
        if length == SKIP {
            start += (RING - at) as u64;
            (length, kind) = self.head(0);
        }
        let at = (start % RING as u64) as usize;
        if length as usize > INLINE_MAX.max(HEAD * 2) || at + HEAD + length as usize > RING {
            return None;
        }
        bytes.resize(length as usize, 0);
        self.0.copy_out(at + HEAD, bytes);
        Some((kind, start + (HEAD + length as usize).next_multiple_of(HEAD) as u64))
    }

    fn head(self, at: usize) -> (u32, u32) {
        let mut head = [0; HEAD];
        self.0.copy_out(at, &mut head);
        let [a, b, c, d, e, f, g, h] = head;
        (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
    }
}

/// Where long pieces lie: written by one side, read and given back by the other.
#[derive(Debug)]
struct Beside {
    file: File,
    /// Where the next one is written.
    end: u64,
}

impl Beside {
    /// What stands in the ring for it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<[u8; 16]> {
        self.file.write_all_at(bytes, self.end)?;
        let mut place = [0; 16];
        let (start, length) = place.split_at_mut(8);
        start.copy_from_slice(&self.end.to_ne_bytes());
        length.copy_from_slice(&(bytes.len() as u64).to_ne_bytes());
        self.end += (bytes.len() as u64).next_multiple_of(4096);
        Ok(place)
    }

    fn read(&self, place: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or(u64::MAX);
        let (start, length) = place.split_at_checked(8).unwrap_or_default();
        let (start, length) = (number(start), number(length));
        let size = self.file.metadata()?.len();
        if start.checked_add(length).is_none_or(|end| end > size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece that is not there"));
        }
        *bytes = vec![0; length as usize];
        self.file.read_exact_at(bytes, start)?;
        // Only memory would be lost.
        let _ = shared::give_back(self.file.as_fd(), start, length.next_multiple_of(4096));
        Ok(())
    }
}

/// Sends a packet of descriptors, if there are any.
fn send(socket: &OwnedFd, descriptors: &[OwnedFd], waits: bool) -> io::Result<()> {
    if descriptors.is_empty() {
        return Ok(());
    }
    socket::send(socket.as_fd(), &[IoSlice::new(&[0])], descriptors, waits).map(drop)
}

/// Receives a packet of so many descriptors, which was sent before its piece.
fn receive(socket: &OwnedFd, count: u32) -> io::Result<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let (mut byte, mut descriptors) = (Vec::with_capacity(1), Vec::new());
    let received = socket::receive_with_descriptors(socket.as_fd(), &mut byte, 1, None, &mut descriptors, false)?;
    if received.lost {
        return Err(io::Error::other("this process may not have so many descriptors"));
    }
    if descriptors.len() != count as usize {
        let text = format!("{} descriptors have come instead of {count}", descriptors.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(descriptors)
}

/// The descriptors that make a channel, on their way to the worker.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) memory: OwnedFd,
    pub(super) tasks: OwnedFd,
    pub(super) results: OwnedFd,
    pub(super) socket: OwnedFd,
}

/// A task that was granted and not answered.
#[derive(Debug)]
struct Granted<T> {
    task: T,
    /// Where its piece begins, with what is skipped before it.
    start: u64,
    /// How many descriptors were sent with it, and those that are kept for another beginning.
    sent: u32,
    kept: Vec<OwnedFd>,
}

/// A task that the worker has not begun, or not taken.
#[derive(Debug)]
pub(super) struct Returned<T> {
    pub(super) task: T,
    /// Its descriptors; an error if this process could not take them back.
    pub(super) descriptors: io::Result<Vec<OwnedFd>>,
}

/// What becomes of the tasks of a worker that has died.
#[derive(Debug)]
pub(super) struct Rest<T> {
    /// The one that it was in, with what was kept for another beginning.
    pub(super) begun: Option<(T, Vec<OwnedFd>)>,
    pub(super) unbegun: Vec<Returned<T>>,
}

/// A task that could not be granted. Without an error there is no room just now.
#[derive(Debug)]
pub(super) struct Ungranted<T> {
    pub(super) task: T,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) error: Option<io::Error>,
}

/// The answer to a task.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub(super) task: T,
    /// The descriptors in the result; an error if this process may not have so many.
    pub(super) descriptors: io::Result<Vec<OwnedFd>>,
}

/// The side of the pool. `T` is what it knows of a task.
#[derive(Debug)]
pub(super) struct Channel<T> {
    mapping: Mapping,
    tasks: Beside,
    results: Beside,
    /// Our end of the way for descriptors, and a copy of the worker's.
    socket: OwnedFd,
    theirs: OwnedFd,
    granted: VecDeque<Granted<T>>,
    /// Where the next task goes.
    end: u64,
    read: u64,
}

impl<T> Channel<T> {
    /// A channel, and what the worker needs of it.
    pub(super) fn new() -> Result<(Channel<T>, Ends), Error> {
        let step = |error| Error::io("memfd_create", error);
        let memory = shared::create(c"procession-worker", LENGTH as u64).map_err(step)?;
        let tasks = shared::unsealed(c"procession-tasks").map_err(step)?;
        let results = shared::unsealed(c"procession-results").map_err(step)?;
        let (ours, socket) = socket::packet_pair().map_err(|error| Error::io("socketpair", error))?;
        let copy = |file: &OwnedFd| file.try_clone().map_err(|error| Error::io("dup", error));
        let channel = Channel {
            mapping: mapped(memory.as_fd())?,
            tasks: Beside { file: copy(&tasks)?.into(), end: 0 },
            results: Beside { file: copy(&results)?.into(), end: 0 },
            socket: ours,
            theirs: copy(&socket)?,
            granted: VecDeque::new(),
            end: 0,
            read: 0,
        };
        Ok((channel, Ends { memory, tasks, results, socket }))
    }

    fn view(&self) -> View<'_> {
        View::new(&self.mapping)
    }

    /// How many tasks are with the worker.
    pub(super) fn len(&self) -> usize {
        self.granted.len()
    }

    /// The tasks that are with the worker, in their order.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &T> {
        self.granted.iter().map(|granted| &granted.task)
    }

    /// Grants the worker a task with its descriptors, which are kept as well if the task may be begun again. Gives everything back if there is no room.
    pub(super) fn grant(
        &mut self,
        task: T,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        keeps: bool,
    ) -> Result<(), Ungranted<T>> {
        let long = bytes.len() > INLINE_MAX;
        let (_, size) = Ring::size_at(self.end, if long { 16 } else { bytes.len() });
        let oldest = self.granted.front().map_or(self.end, |granted| granted.start);
        let occupied = !descriptors.is_empty() && self.granted.iter().any(|granted| granted.sent > 0);
        if self.end + size - oldest > RING as u64 || occupied {
            return Err(Ungranted { task, descriptors, error: None });
        }
        let place = if long { self.tasks.write(bytes).map(Some) } else { Ok(None) };
        // They go last, because they cannot be taken back by somebody who has not enough descriptors.
        let place = place.and_then(|place| send(&self.socket, &descriptors, false).map(|()| place));
        let place = match place {
            Ok(place) => place,
            Err(error) => return Err(Ungranted { task, descriptors, error: Some(error) }),
        };
        let sent = descriptors.len() as u32;
        let kind = kind_of(long, sent);
        let end = self.ring(0).write(self.end, kind, place.as_ref().map_or(bytes, |place| place));
        let kept = if keeps { descriptors } else { Vec::new() };
        self.granted.push_back(Granted { task, start: self.end, sent, kept });
        self.end = end;
        change(self.counts(), |granted, claimed| Some((granted.wrapping_add(1), claimed)));
        Ok(())
    }

    /// Wakes the worker if it sleeps, after tasks were granted.
    pub(super) fn wake(&self) {
        let asleep = self.view().word(AT_ASLEEP);
        if asleep.load() != 0 && asleep.swap(0) != 0 {
            asleep.wake(1);
        }
    }

    /// Takes back up to so many tasks that the worker has not begun, the last ones first.
    pub(super) fn take_back(&mut self, count_max: usize) -> Vec<Returned<T>> {
        let mut count = 0;
        change(self.counts(), |granted, claimed| {
            count = granted.wrapping_sub(claimed).min(count_max.try_into().unwrap_or(u32::MAX));
            (count > 0).then(|| (granted.wrapping_sub(count), claimed))
        });
        let mut back = Vec::new();
        for _ in 0..count {
            let Some(granted) = self.granted.pop_back() else { break };
            self.end = granted.start;
            back.push(self.returned(granted));
        }
        back
    }

    /// A task that was not begun, with its descriptors.
    fn returned(&self, Granted { task, sent, kept, .. }: Granted<T>) -> Returned<T> {
        // What was not received is in the socket, and nothing else is.
        let unreceived = receive(&self.theirs, sent);
        Returned { task, descriptors: if kept.is_empty() { unreceived } else { Ok(kept) } }
    }

    /// How many of its tasks the worker has not begun.
    pub(super) fn unbegun(&self) -> usize {
        let (granted, claimed) = halves(self.counts().load());
        granted.wrapping_sub(claimed) as usize
    }

    /// The next result, with its task. An error if what is there is none.
    pub(super) fn next_result(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Answered<T>>> {
        let written = self.view().long(AT_WRITTEN).load();
        if written == self.read {
            return Ok(None);
        }
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the worker has written over its results");
        let (kind, next) = self.ring(RING).read(self.read, bytes).ok_or_else(garbled)?;
        if kind & IN_FILE != 0 {
            let place = std::mem::take(bytes);
            self.results.read(&place, bytes)?;
        }
        let descriptors = receive(&self.socket, kind / DESCRIPTOR);
        self.read = next;
        self.view().long(AT_READ).store(next);
        let blocked = self.view().word(AT_BLOCKED);
        if blocked.load() != 0 && blocked.swap(0) != 0 {
            blocked.wake(1);
        }
        let granted = self.granted.pop_front().ok_or_else(garbled)?;
        Ok(Some(Answered { task: granted.task, descriptors }))
    }

    /// Asks to be rung for when there is something new. True if there is already: a result, or that it has become `ready`.
    pub(super) fn ask_to_be_told(&self, ready: bool) -> bool {
        self.view().word(AT_TELL).store(1);
        self.view().long(AT_WRITTEN).load() != self.read || self.is_ready() != ready
    }

    /// Whether the worker has come to its first task.
    pub(super) fn is_ready(&self) -> bool {
        self.view().word(AT_READY).load() != 0
    }

    /// What becomes of the tasks of a worker that has died: the one that it was in, and those that it had not begun.
    pub(super) fn into_rest(mut self) -> Rest<T> {
        let unbegun = self.unbegun();
        let rest = self.granted.split_off(self.granted.len().saturating_sub(unbegun));
        let begun = self.granted.pop_front().map(|granted| (granted.task, granted.kept));
        Rest { begun, unbegun: rest.into_iter().map(|granted| self.returned(granted)).collect() }
    }

    fn counts(&self) -> &Long {
        self.view().long(AT_COUNTS)
    }

    fn ring(&self, offset: usize) -> Ring<'_> {
        Ring(self.view().from(AT_TASKS + offset))
    }
}

fn halves(counts: u64) -> (u32, u32) {
    ((counts >> 32) as u32, counts as u32)
}

/// Changes both counts at once.
fn change(counts: &Long, mut to: impl FnMut(u32, u32) -> Option<(u32, u32)>) -> bool {
    let mut value = counts.load();
    loop {
        let (granted, claimed) = halves(value);
        let Some((granted, claimed)) = to(granted, claimed) else { return false };
        match counts.replace(value, u64::from(granted) << 32 | u64::from(claimed)) {
            Ok(()) => return true,
            Err(now) => value = now,
        }
    }
}

/// The side of the worker.
#[derive(Debug)]
pub(super) struct WorkerChannel {
    mapping: Mapping,
    tasks: Beside,
    results: Beside,
    socket: OwnedFd,
    /// Where the next task begins.
    read: u64,
    written: u64,
}

impl WorkerChannel {
    pub(super) fn new(ends: Ends) -> Result<WorkerChannel, Error> {
        Ok(WorkerChannel {
            mapping: mapped(ends.memory.as_fd())?,
            tasks: Beside { file: File::from(ends.tasks), end: 0 },
            results: Beside { file: File::from(ends.results), end: 0 },
            socket: ends.socket,
            read: 0,
            written: 0,
        })
    }

    fn view(&self) -> View<'_> {
        View::new(&self.mapping)
    }

    /// From now on whatever goes wrong is a task's. True if the pool is to be rung for.
    pub(super) fn say_ready(&self) -> bool {
        self.view().word(AT_READY).store(1);
        self.is_to_tell()
    }

    fn is_to_tell(&self) -> bool {
        let tell = self.view().word(AT_TELL);
        tell.load() != 0 && tell.swap(0) != 0
    }

    /// Waits for the next task. Its descriptors; an error among them if this process may not have so many.
    pub(super) fn next_task(&mut self, bytes: &mut Vec<u8>) -> io::Result<io::Result<Vec<OwnedFd>>> {
        let counts = self.view().long(AT_COUNTS);
        let claim =
            || change(counts, |granted, claimed| (granted != claimed).then(|| (granted, claimed.wrapping_add(1))));
        let asleep = self.view().word(AT_ASLEEP);
        while !claim() {
            asleep.store(1);
            let (granted, claimed) = halves(counts.load());
            if granted == claimed {
                asleep.sleep(1, Deadline::NEVER);
            }
            asleep.store(0);
        }
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the tasks were written over");
        let ring = Ring(self.view().from(AT_TASKS));
        let (kind, next) = ring.read(self.read, bytes).ok_or_else(garbled)?;
        if kind & IN_FILE != 0 {
            let place = std::mem::take(bytes);
            self.tasks.read(&place, bytes)?;
        }
        self.read = next;
        Ok(receive(&self.socket, kind / DESCRIPTOR))
    }

    /// Sends the descriptors of the result that is left next.
    pub(super) fn send(&self, descriptors: &[OwnedFd]) -> io::Result<()> {
        send(&self.socket, descriptors, true)
    }

    /// Leaves a result, with which so many descriptors were [sent](Self::send). True if the pool is to be rung for.
    pub(super) fn leave_result(&mut self, bytes: &[u8], sent: usize) -> io::Result<bool> {
        let long = bytes.len() > INLINE_MAX;
        let place = if long { Some(self.results.write(bytes)?) } else { None };
        let piece = place.as_ref().map_or(bytes, |place| place);
        let (_, size) = Ring::size_at(self.written, piece.len());
        self.wait_for_room(size);
        let ring = Ring(self.view().from(AT_TASKS + RING));
        let kind = kind_of(long, sent as u32);
        self.written = ring.write(self.written, kind, piece);
        self.view().long(AT_WRITTEN).store(self.written);
        Ok(self.is_to_tell())
    }

    fn wait_for_room(&self, size: u64) {
        let blocked: &Word = self.view().word(AT_BLOCKED);
        let read = self.view().long(AT_READ);
        while self.written + size - read.load() > RING as u64 {
            blocked.swap(1);
            if self.written + size - read.load() > RING as u64 {
                blocked.sleep(1, Deadline::after(LOOK));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (Channel<usize>, WorkerChannel) {
        let (pool, ends) = Channel::new().unwrap();
        (pool, WorkerChannel::new(ends).unwrap())
    }

    /// Tasks of all lengths, some taken back, answered late or at once: each is answered once, with its own bytes.
    #[test]
    fn every_task_comes_through_once() {
        let (mut pool, mut worker) = both();
        let mut random = 7_u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        let text = |number: usize| vec![number as u8; [0, 1, 7, 8, 100, 5_000, 8_192, 8_193, 70_000][number % 9]];
        let (mut waiting, mut answered, mut bytes) = ((0..5_000).collect::<VecDeque<_>>(), vec![0; 5_000], Vec::new());
        let mut with_worker = 0;
        while answered.iter().sum::<i32>() < 5_000 {
            match next(4) {
                0 | 1 => {
                    for _ in 0..next(20) {
                        let Some(number) = waiting.pop_front() else { break };
                        if let Err(back) = pool.grant(number, &text(number), Vec::new(), false) {
                            assert!(back.error.is_none());
                            waiting.push_front(back.task);
                            break;
                        }
                    }
                }
                2 if next(3) == 0 => {
                    for back in pool.take_back(next(5) as usize) {
                        waiting.push_front(back.task);
                    }
                }
                _ => {
                    for _ in 0..next(20).min(pool.unbegun() as u64) {
                        worker.next_task(&mut bytes).unwrap().unwrap();
                        with_worker += 1;
                        worker.leave_result(&bytes, 0).unwrap();
                        if with_worker % 3 != 0 {
                            continue;
                        }
                        while let Some(Answered { task: number, .. }) = pool.next_result(&mut bytes).unwrap() {
                            assert_eq!(bytes, text(number));
                            answered[number] += 1;
                        }
                    }
                }
            }
            while let Some(Answered { task: number, .. }) = pool.next_result(&mut bytes).unwrap() {
                assert_eq!(bytes, text(number), "{number}");
                answered[number] += 1;
            }
        }
        assert!(answered.iter().all(|times| *times == 1));
        assert_eq!((pool.len(), pool.unbegun()), (0, 0));
    }

    #[test]
    fn what_a_dead_worker_had_begun_is_known() {
        let (mut pool, mut worker) = both();
        for number in 0..5 {
            pool.grant(number, b"task", Vec::new(), false).unwrap();
        }
        let mut bytes = Vec::new();
        worker.next_task(&mut bytes).unwrap().unwrap();
        worker.leave_result(b"result", 0).unwrap();
        worker.next_task(&mut bytes).unwrap().unwrap();
        assert_eq!(pool.next_result(&mut bytes).unwrap().unwrap().task, 0);
        drop(worker);
        let Rest { begun, unbegun } = pool.into_rest();
        assert_eq!(begun.unwrap().0, 1);
        assert_eq!(unbegun.iter().map(|back| back.task).collect::<Vec<_>>(), [2, 3, 4]);
    }

    /// The other end of a pipe whose first end is somewhere: whether that has been closed everywhere.
    fn is_closed(reader: &io::PipeReader) -> bool {
        crate::sys::poll::wait_readable(reader.as_fd(), Some(std::time::Instant::now())).unwrap()
    }

    #[test]
    fn descriptors_are_where_their_task_is() {
        let (mut pool, mut worker) = both();
        let (reader, writer) = io::pipe().unwrap();
        pool.grant(0, b"task", vec![writer.into()], false).unwrap();
        // One at a time; those without any do not wait for it.
        let (_, other) = io::pipe().unwrap();
        let back = pool.grant(1, b"task", vec![other.into()], false).unwrap_err();
        assert!(back.error.is_none() && back.descriptors.len() == 1);
        pool.grant(2, b"task", Vec::new(), false).unwrap();
        // Taken back, and nowhere else.
        let mut returned = pool.take_back(9);
        assert_eq!(returned.iter().map(|back| back.task).collect::<Vec<_>>(), [2, 0]);
        let descriptors = returned.pop().unwrap().descriptors.unwrap();
        assert!(!is_closed(&reader));
        // Taken by the worker, which has the only one.
        pool.grant(0, b"task", descriptors, false).unwrap();
        let descriptors = worker.next_task(&mut Vec::new()).unwrap().unwrap();
        assert!(!is_closed(&reader));
        worker.send(&descriptors).unwrap();
        worker.leave_result(b"result", 1).unwrap();
        drop(descriptors);
        let answered = pool.next_result(&mut Vec::new()).unwrap().unwrap();
        assert!(!is_closed(&reader));
        // Not begun when the worker dies; and begun, but kept.
        pool.grant(0, b"task", answered.descriptors.unwrap(), false).unwrap();
        let Rest { begun, unbegun: mut rest } = pool.into_rest();
        assert!(begun.is_none() && !is_closed(&reader));
        let (mut pool, mut worker) = both();
        pool.grant(0, b"task", rest.pop().unwrap().descriptors.unwrap(), true).unwrap();
        drop(worker.next_task(&mut Vec::new()).unwrap());
        drop(worker);
        let Rest { begun, .. } = pool.into_rest();
        assert!(!is_closed(&reader));
        drop(begun);
        assert!(is_closed(&reader));
    }

    #[test]
    fn rubbish_is_noticed() {
        let (mut pool, worker) = both();
        pool.grant(0, b"task", Vec::new(), false).unwrap();
        worker.view().from(AT_TASKS + RING).copy_in(0, &[0xee; 8]);
        worker.view().long(AT_WRITTEN).store(16);
        assert!(pool.next_result(&mut Vec::new()).is_err());
    }
}
