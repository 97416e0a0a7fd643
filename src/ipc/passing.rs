//! How a shared object reaches another process: its descriptors travel beside the bytes. Decides that a descriptor can be written only where
//! there is such a way, an argument of a process or a message of a
//! connection, and that each is taken once.
//!
//! Serialisation has no place for descriptors, so they are gathered beside it: who sends [gathers](gathering), each object that has a descriptor
//! puts it there and writes its number, and who receives [hands them out](handing_out) by number.

use crate::sys::fd;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that can be part of an argument or a message: a file, a socket, one end of a pipe.
///
/// The other process gets a descriptor of its own for the same open file description. Sending does not use ours up.
#[derive(Debug)]
#[doc(alias = "DupFd")]
#[doc(alias = "send_handle")]
pub struct Descriptor(OwnedFd);

impl<T: Into<OwnedFd>> From<T> for Descriptor {
    fn from(file: T) -> Descriptor {
        Descriptor(file.into())
    }
}

impl Descriptor {
    /// The descriptor itself.
    pub fn into_owned_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.as_fd(), serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Descriptor, D::Error> {
        let number = u32::deserialize(deserializer)?;
        take(number).map(Descriptor).map_err(|why| D::Error::custom(because(why)))
    }
}

thread_local! {
    /// Why the last object could not be written or read: the format has no words for it.
    static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
    static LEAVING: RefCell<Vec<Vec<OwnedFd>>> = const { RefCell::new(Vec::new()) };
    static ARRIVED: RefCell<Vec<Vec<Option<OwnedFd>>>> = const { RefCell::new(Vec::new()) };
}

/// Writes or reads something, and says in case of an error why one of our objects refused.
pub(crate) fn explaining<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, (E, Option<String>)> {
    WHY.take();
    work().map_err(|error| (error, WHY.take()))
}

/// The error of an object that cannot be written or read.
pub(crate) fn because(why: impl ToString) -> String {
    let why = why.to_string();
    WHY.set(Some(why.clone()));
    why
}

/// Writes something, and gathers the descriptors in it.
pub(crate) fn gathering<T>(write: impl FnOnce() -> T) -> (T, Vec<OwnedFd>) {
    LEAVING.with_borrow_mut(|stack| stack.push(Vec::new()));
    let level = Level(&|| LEAVING.with_borrow_mut(|stack| drop(stack.pop())));
    let written = write();
    let gathered = LEAVING.with_borrow_mut(|stack| stack.last_mut().map(std::mem::take));
    drop(level);
    (written, gathered.unwrap_or_default())
}

/// Reads something with descriptors in it. Those that nobody takes are closed.
pub(crate) fn handing_out<T>(descriptors: Vec<OwnedFd>, read: impl FnOnce() -> T) -> T {
    ARRIVED.with_borrow_mut(|stack| stack.push(descriptors.into_iter().map(Some).collect()));
    let _level = Level(&|| drop(ARRIVED.with_borrow_mut(|stack| stack.pop())));
    read()
}

/// Goes back by one level, also when a panic passes.
struct Level<'a>(&'a dyn Fn());

impl Drop for Level<'_> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Puts a copy of the descriptor on its way, and writes its number.
pub(crate) fn serialize<S: Serializer>(fd: BorrowedFd<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    let number = give(fd).map_err(|why| S::Error::custom(because(why)))?;
    number.serialize(serializer)
}

fn give(fd: BorrowedFd<'_>) -> Result<u32, String> {
    LEAVING.with_borrow_mut(|stack| {
        let Some(gathered) = stack.last_mut() else {
            return Err("a descriptor can only be an argument of a process, an argument or the result of a task of a pool, or part of a message on a connection".into());
        };
        let copy = fd::duplicate_from(fd, 3).map_err(|error| format!("dup: {error}"))?;
        gathered.push(copy);
        Ok(gathered.len() as u32 - 1)
    })
}

fn take(number: u32) -> Result<OwnedFd, String> {
    ARRIVED.with_borrow_mut(|stack| {
        let Some(arrived) = stack.last_mut() else {
            return Err("no descriptors have come with this".into());
        };
        let count = arrived.len();
        arrived.get_mut(number as usize).and_then(Option::take).ok_or_else(|| {
            format!("descriptor {number} of {count} that have come does not exist, or was taken already")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_descriptor_travels_beside_the_bytes() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (bytes, descriptors) = gathering(|| postcard::to_allocvec(&("before", Descriptor::from(reader), 7_u8)));
        let bytes = bytes.unwrap();
        let read = || postcard::from_bytes::<(String, Descriptor, u8)>(&bytes).unwrap();
        let (before, reader, after) = handing_out(descriptors, read);
        assert_eq!((before.as_str(), after), ("before", 7));
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        std::io::PipeReader::from(reader.into_owned_fd()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn outside_of_a_message_there_is_no_way() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(postcard::to_allocvec(&Descriptor::from(reader)).is_err());
        assert!(postcard::from_bytes::<Descriptor>(&[0]).is_err());
        // Also after a panic in between.
        let panicked = std::panic::catch_unwind(|| gathering(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert!(LEAVING.with_borrow(|stack| stack.is_empty()));
    }

    #[test]
    fn each_is_taken_once() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let twice = postcard::to_allocvec(&(0_u32, 0_u32)).unwrap();
        let read = || postcard::from_bytes::<(Descriptor, Descriptor)>(&twice).map(drop);
        assert!(handing_out(vec![reader.into()], read).is_err());
    }
}
