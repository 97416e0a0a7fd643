//! One connection between a client and a manager's process, for one question and its answer at a time. Decides how they get there: through the socket,
//! or, on one machine, by memory that both sides have, in which case nobody asks the kernel for anything as long as both sides are awake.
//!
//! There is a letterbox for each way (see there for its word), and behind it place for one message. The bell is an empty message through the socket. One
//! question at a time, so nobody writes where somebody reads.
//!
//! The owner died: everybody sleeps at the socket, never at a word, so the kernel tells the death of the other side at once.

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::connection::{RawConnection, Receiver, Sender};
use crate::ipc::vigil::Vigil;
use crate::ipc::word::{View, Word};
use crate::ipc::{codec, frames, letterbox, passing};
use crate::sys::shared::{self, Mapping};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// For each way a page and a line of the cache: the word, the length of the message, and behind them the message.
const WAY: usize = 8192;
const AT_WORD: usize = 0;
const AT_LENGTH: usize = 4;
const AT_MESSAGE: usize = 64;
/// Longer messages go through the socket.
const LENGTH_MAX: usize = WAY - AT_MESSAGE;
const SIZE: usize = 2 * WAY;

/// One end: sends values of the type `S`, receives values of the type `R`.
#[derive(Debug)]
pub(super) struct Line<S, R> {
    sender: Sender<S>,
    receiver: Receiver<R>,
    memory: Option<Memory>,
    bytes: Vec<u8>,
}

/// Memory for one line, as one side sees it.
#[derive(Debug)]
pub(super) struct Memory {
    mapping: Mapping,
    /// Where our messages go, and where those of the other side come.
    ours: usize,
    theirs: usize,
    vigil: Vigil,
}

impl<S: Serialize, R: DeserializeOwned> Line<S, R> {
    pub(super) fn new(connection: RawConnection) -> Line<S, R> {
        let (sender, receiver) = connection.typed().split();
        Line { sender, receiver, memory: None, bytes: Vec::new() }
    }

    /// From now on this memory is used, by the side that asks.
    pub(super) fn ask_in(&mut self, memory: Memory) {
        self.memory = Some(memory);
    }

    /// From now on this memory is used, by the side that answers.
    pub(super) fn answer_in(&mut self, memory: Memory) {
        self.memory = Some(Memory { ours: memory.theirs, theirs: memory.ours, ..memory });
    }

    pub(super) fn send(&mut self, value: &S, deadline: Deadline) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let sent = self.send_as(value, &mut bytes, deadline);
        bytes.shrink_to(frames::kept(bytes.len()));
        self.bytes = bytes;
        sent
    }

    fn send_as(&mut self, value: &S, bytes: &mut Vec<u8>, deadline: Deadline) -> Result<(), Error> {
        let (written, descriptors) = passing::gathering(|| codec::encode_into(value, bytes));
        written?;
        let Some(memory) = &self.memory else { return self.sender.send_encoded(bytes, descriptors, deadline) };
        if !descriptors.is_empty() || bytes.len() > LENGTH_MAX {
            letterbox::announce(memory.our_word());
            return self.sender.send_encoded(bytes, descriptors, deadline);
        }
        if memory.write(bytes) { self.sender.ring(deadline) } else { Ok(()) }
    }

    pub(super) fn recv(&mut self, deadline: Deadline) -> Result<R, Error> {
        let Some(memory) = &self.memory else { return self.receiver.recv_until(deadline) };
        loop {
            if memory.look() {
                memory.read(&mut self.bytes)?;
                return codec::decode(&self.bytes, Vec::new());
            }
            if let Some(value) = self.receiver.recv_or_ring_until(deadline)? {
                letterbox::clear(memory.their_word());
                return Ok(value);
            }
        }
    }

    /// Whether the other side has gone, asked while it waits for an answer: it says nothing then.
    pub(super) fn is_gone(&self) -> bool {
        self.receiver.poll(std::time::Duration::ZERO)
    }
}

impl Memory {
    /// Memory for a new line, and the descriptor that leads there.
    pub(super) fn create() -> Result<(Memory, OwnedFd), Error> {
        let file = shared::create(c"procession-line", SIZE as u64).map_err(|error| Error::io("memfd_create", error))?;
        Ok((Memory::attach(file.as_fd())?, file))
    }

    /// The memory that somebody else has made.
    pub(super) fn attach(file: BorrowedFd<'_>) -> Result<Memory, Error> {
        let foreign = || Error::invalid("this is no memory for a line");
        let size = NonZeroUsize::new(SIZE).ok_or_else(foreign)?;
        // It must not become shorter: an access behind its end would kill us.
        let is_fixed = shared::seals(file).is_ok_and(shared::is_fixed);
        if !is_fixed || shared::size(file).ok() != Some(SIZE as u64) {
            return Err(foreign());
        }
        let mapping = Mapping::new(file, size, true).map_err(|error| Error::io("mmap", error))?;
        Ok(Memory { mapping, ours: 0, theirs: WAY, vigil: Vigil::default() })
    }

    fn view(&self) -> View<'_> {
        View::new(&self.mapping)
    }

    fn our_word(&self) -> &Word {
        self.view().word(self.ours + AT_WORD)
    }

    fn their_word(&self) -> &Word {
        self.view().word(self.theirs + AT_WORD)
    }

    /// Whether the other side must be rung for.
    fn write(&self, bytes: &[u8]) -> bool {
        let view = self.view();
        view.copy_in(self.ours + AT_MESSAGE, bytes);
        view.word(self.ours + AT_LENGTH).store(bytes.len() as u32);
        letterbox::put(self.our_word())
    }

    /// Whether a message stands here. If not, the socket is the place to wait.
    fn look(&self) -> bool {
        let word = self.their_word();
        self.vigil.watch(|| letterbox::has_come(word));
        letterbox::look(word)
    }

    fn read(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let view = self.view();
        let length = view.word(self.theirs + AT_LENGTH).load() as usize;
        if length > LENGTH_MAX {
            return Err(Error::new(ErrorKind::Decode).detail(format!("a message of {length} bytes in {LENGTH_MAX}")));
        }
        bytes.resize(length, 0);
        view.copy_out(self.theirs + AT_MESSAGE, bytes);
        letterbox::clear(self.their_word());
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ipc::passing::Descriptor;
    use std::time::Duration;

    type Message = (Vec<u8>, Vec<Descriptor>);
    type End = Line<Message, Message>;

    fn both() -> (End, End) {
        let (one, two) = RawConnection::pair().unwrap();
        let (mut asker, mut answerer) = (Line::new(one), Line::new(two));
        let (memory, file) = Memory::create().unwrap();
        asker.ask_in(memory);
        answerer.answer_in(Memory::attach(file.as_fd()).unwrap());
        (asker, answerer)
    }

    fn is_empty(end: &End) -> bool {
        !letterbox::has_come(end.memory.as_ref().unwrap().their_word())
    }

    /// Every length around the borders, with and without descriptors, each side sometimes asleep.
    #[test]
    fn what_is_asked_is_answered_by_either_way() {
        let (mut asker, mut answerer) = both();
        let lengths = [0, 1, 100, LENGTH_MAX - 10, LENGTH_MAX - 4, LENGTH_MAX - 3, LENGTH_MAX - 2, LENGTH_MAX, 20_000];
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok((bytes, descriptors)) = answerer.recv(Deadline::NEVER) {
                    if bytes.len() % 2 == 1 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    answerer.send(&(bytes, descriptors), Deadline::NEVER).unwrap();
                }
            });
            for round in 0..200 {
                let length = lengths[round % lengths.len()];
                let bytes = vec![round as u8; length];
                let beside = |_| Descriptor::from(std::io::pipe().unwrap().0);
                let descriptors: Vec<_> = (0..round % 4 / 2).map(beside).collect();
                if round % 5 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                asker.send(&(bytes, descriptors), Deadline::NEVER).unwrap();
                let (bytes, descriptors) = asker.recv(Deadline::NEVER).unwrap();
                assert!(bytes.len() == length && bytes.iter().all(|byte| *byte == round as u8));
                assert!(descriptors.len() == round % 4 / 2 && is_empty(&asker));
            }
            drop(asker);
        });
    }

    #[test]
    fn the_end_is_told_at_once() {
        let (mut asker, answerer) = both();
        assert!(!asker.is_gone());
        assert!(asker.recv(Deadline::after(Duration::from_millis(1))).unwrap_err().is_timeout());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| asker.recv(Deadline::NEVER).unwrap_err());
            drop(answerer);
            assert_eq!(waits.join().unwrap().kind(), ErrorKind::Ended);
        });
    }

    #[test]
    fn a_length_that_cannot_be_and_other_memory_are_refused() {
        let (asker, mut answerer) = both();
        let view = asker.memory.as_ref().unwrap().view();
        view.word(AT_LENGTH).store(LENGTH_MAX as u32 + 1);
        letterbox::put(view.word(AT_WORD));
        assert_eq!(answerer.recv(Deadline::NEVER).unwrap_err().kind(), ErrorKind::Decode);
        let short = shared::create(c"test", 100).unwrap();
        assert!(Memory::attach(short.as_fd()).is_err());
        let unsealed = shared::unsealed(c"test").unwrap();
        std::fs::File::from(unsealed.try_clone().unwrap()).set_len(SIZE as u64).unwrap();
        assert!(Memory::attach(unsealed.as_fd()).is_err());
        // An answer that nobody has rung for, or a bell without an answer, holds up nobody.
        let (mut asker, mut answerer) = both();
        answerer.sender.ring(Deadline::NEVER).unwrap();
        answerer.send(&(vec![1], Vec::new()), Deadline::NEVER).unwrap();
        assert_eq!(asker.recv(Deadline::NEVER).unwrap().0, [1]);
        assert!(asker.recv(Deadline::after(Duration::from_millis(1))).unwrap_err().is_timeout());
        answerer.send(&(vec![2], Vec::new()), Deadline::NEVER).unwrap();
        assert_eq!(asker.recv(Deadline::NEVER).unwrap().0, [2]);
    }
}
