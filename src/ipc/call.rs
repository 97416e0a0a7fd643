//! The call of a function in another process, as a file in memory that both have: what is called with what, how far it has come, and what came out of
//! it. Decides the layout and who writes when. Nobody ever waits for the other: the arguments are there before the process is, and the result
//! stays when it has gone, whatever its size.
//!
//! | place | what | written by |
//! |---|---|---|
//! | 0 | "proccal" and the version | parent, before the start |
//! | 8 | the [state](State), a byte | process: when it arrives, and when everything else is written |
//! | 16, 24, 32 | how long the beginning, the arguments, the result are | parent; parent; process |
//! | 64 | the three, one after the other | |

use super::codec;
use crate::error::{Error, ErrorKind, Panic};
use crate::sys::shared;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

const MAGIC: u64 = u64::from_le_bytes(*b"proccal\x01");
const AT_STATE: u64 = 8;
const AT_LENGTHS: u64 = 16;
const AT_BYTES: u64 = 64;

/// How far the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not come to the function.
    Started = 0,
    /// It is in the function, or has ended in it.
    Arrived = 1,
    /// The function has returned; the result is its value.
    Returned = 2,
    /// The function has panicked; the result says how.
    Panicked = 3,
    /// The function could not be called, or its value could not be sent; the result is the reason.
    Refused = 4,
}

/// What the process needs to know before it looks at its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// The file that the parent's program is.
    pub(crate) program: (u64, u64),
    /// Where the function is in it.
    pub(crate) place: u64,
    pub(crate) name: String,
    pub(crate) parent: u32,
    /// Descriptors that belong to the arguments, in order.
    pub(crate) descriptors: Vec<RawFd>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Call {
    file: File,
}

impl Call {
    /// A call that was not made yet.
    pub(crate) fn new(beginning: &Beginning, arguments: &[u8]) -> Result<Call, Error> {
        let mut bytes = Vec::new();
        let Beginning { program: (device, inode), place, name, parent, descriptors } = beginning;
        codec::encode_into(&(device, inode, place, name, parent, descriptors), &mut bytes)?;
        let file = shared::unsealed(c"procession-call").map_err(|error| Error::io("memfd_create", error))?;
        let call = Call { file: File::from(file) };
        let lengths = [bytes.len() as u64, arguments.len() as u64, 0].map(u64::to_le_bytes).concat();
        let pieces = [
            (0, &MAGIC.to_le_bytes()[..]),
            (AT_LENGTHS, &lengths),
            (AT_BYTES, &bytes),
            (AT_BYTES + bytes.len() as u64, arguments),
        ];
        let write = |(place, piece): &(u64, &[u8])| call.file.write_all_at(piece, *place);
        pieces.iter().try_for_each(write).map_err(|error| Error::io("write", error))?;
        Ok(call)
    }

    /// A call that the parent has left for us.
    pub(crate) fn left_by_parent(file: OwnedFd) -> Call {
        Call { file: File::from(file) }
    }

    /// What is to be called, and with which arguments.
    pub(crate) fn beginning(&self) -> Result<(Beginning, Vec<u8>), Error> {
        let magic = u64::from_le_bytes(self.array(0)?);
        if magic != MAGIC {
            return Err(Error::invalid(format!("no call of this version: {magic:#018x} instead of {MAGIC:#018x}")));
        }
        let [beginning, arguments, _] = self.lengths()?;
        let bytes = self.bytes(AT_BYTES, beginning)?;
        type Form = (u64, u64, u64, String, u32, Vec<RawFd>);
        let (device, inode, place, name, parent, descriptors) = codec::decode::<Form>(&bytes, Vec::new())?;
        let beginning_read = Beginning { program: (device, inode), place, name, parent, descriptors };
        Ok((beginning_read, self.bytes(AT_BYTES + beginning, arguments)?))
    }

    /// Says how far we are. With a result it is written before.
    pub(crate) fn arrive(&self) -> io::Result<()> {
        self.file.write_all_at(&[State::Arrived as u8], AT_STATE)
    }

    /// Leaves the result, and then says so.
    pub(crate) fn end(&self, state: State, result: &[u8]) -> Result<(), Error> {
        let write =
            |bytes: &[u8], place| self.file.write_all_at(bytes, place).map_err(|error| Error::io("write", error));
        let [beginning, arguments, _] = self.lengths()?;
        write(result, AT_BYTES + beginning + arguments)?;
        write(&(result.len() as u64).to_le_bytes(), AT_LENGTHS + 16)?;
        write(&[state as u8], AT_STATE)
    }

    /// Leaves the account of a panic.
    pub(crate) fn end_in_panic(&self, panic: &Panic) -> Result<(), Error> {
        let mut bytes = Vec::new();
        codec::encode_into(&(panic.message(), panic.location(), panic.backtrace()), &mut bytes)?;
        self.end(State::Panicked, &bytes)
    }

    /// How far the process has come.
    pub(crate) fn state(&self) -> Result<State, Error> {
        Ok(match self.array::<1>(AT_STATE)? {
            [0] => State::Started,
            [1] => State::Arrived,
            [2] => State::Returned,
            [3] => State::Panicked,
            _ => State::Refused,
        })
    }

    /// What the process has left.
    pub(crate) fn result(&self) -> Result<Vec<u8>, Error> {
        let [beginning, arguments, result] = self.lengths()?;
        self.bytes(AT_BYTES + beginning + arguments, result)
    }

    /// The panic that the process has left an account of.
    pub(crate) fn panic(&self) -> Result<Panic, Error> {
        let (message, location, backtrace) = codec::decode::<(String, String, String)>(&self.result()?, Vec::new())?;
        Ok(Panic::new(message, location, backtrace))
    }

    fn lengths(&self) -> Result<[u64; 3], Error> {
        let bytes = self.array::<24>(AT_LENGTHS)?;
        let mut lengths = [0; 3];
        for (length, bytes) in lengths.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *length = u64::from_le_bytes(*bytes);
        }
        Ok(lengths)
    }

    fn array<const N: usize>(&self, place: u64) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, place).map_err(|error| Error::io("read", error))?;
        Ok(bytes)
    }

    /// Bytes of the file. What is said to be there must be there before memory is asked for.
    fn bytes(&self, place: u64, length: u64) -> Result<Vec<u8>, Error> {
        let size = self.file.metadata().map_err(|error| Error::io("fstat", error))?.len();
        if place.checked_add(length).is_none_or(|end| end > size) {
            let text = format!("the call is {size} bytes long and says that {length} begin at {place}");
            return Err(Error::new(ErrorKind::Decode).detail(text));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, place).map_err(|error| Error::io("read", error))?;
        Ok(bytes)
    }
}

impl AsFd for Call {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The file that this program is: its device and its number there.
pub(crate) fn own_program() -> Result<(u64, u64), Error> {
    let file = fs::metadata(PROGRAM).map_err(|error| Error::io("stat", error).path(PROGRAM))?;
    Ok((file.dev(), file.ino()))
}

/// What is run to have one more process of this program, also if its file was moved or replaced meanwhile.
pub(crate) const PROGRAM: &str = "/proc/self/exe";

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning() -> Beginning {
        Beginning { program: (1, 2), place: 3, name: "four".into(), parent: 5, descriptors: vec![6, 7] }
    }

    #[test]
    fn what_is_written_is_read() {
        let call = Call::new(&beginning(), b"arguments").unwrap();
        assert_eq!(call.state().unwrap(), State::Started);
        let other = Call::left_by_parent(call.as_fd().try_clone_to_owned().unwrap());
        assert_eq!(other.beginning().unwrap(), (beginning(), b"arguments".to_vec()));
        other.arrive().unwrap();
        assert_eq!(call.state().unwrap(), State::Arrived);
        other.end(State::Returned, &[7; 100_000]).unwrap();
        assert_eq!((call.state().unwrap(), call.result().unwrap()), (State::Returned, vec![7; 100_000]));
        other.end_in_panic(&Panic::new("why".into(), "where".into(), "how".into())).unwrap();
        assert_eq!(call.panic().unwrap().to_string(), "panicked at where: why");
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let empty = Call::left_by_parent(shared::unsealed(c"test").unwrap());
        assert!(empty.beginning().is_err());
        let call = Call::new(&beginning(), b"").unwrap();
        call.file.write_all_at(&u64::MAX.to_le_bytes(), AT_LENGTHS).unwrap();
        assert_eq!(call.beginning().unwrap_err().kind(), ErrorKind::Decode);
        call.file.write_all_at(&[9], 7).unwrap();
        assert!(call.beginning().unwrap_err().to_string().starts_with("no call of this version"));
    }
}
