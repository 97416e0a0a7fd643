//! Plain memory that processes share. Decides that safe code can use it: it is copied in and out until it is sealed, and lent only from then on,
//! when nobody can change it.

use super::passing::{Descriptor, because};
use crate::error::Error;
use crate::sys::shared;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

/// Memory of a fixed length that processes share, without a name: there is nothing to unlink, it goes with its last descriptor.
///
/// Two ways to use it. To hand large data to many: write it, [`seal`](Self::seal) it, and everybody has it as a `&[u8]` without a copy. To
/// exchange: [`read_at`](Self::read_at) and [`write_at`](Self::write_at) copy by a system call each; who may when is for you to say, with a
/// [`Lock`](super::Lock). Small values that change often are better in a [`Value`](super::Value) or an [`Array`](super::Array).
///
/// It is a memfd with nothing in it but your bytes, so programs in any language can map it.
///
/// ```
/// use procession::ipc::SharedMemory;
///
/// let memory = SharedMemory::new(1 << 20)?;
/// memory.write_at(4096, b"for all")?;
/// let bytes = memory.seal()?;
/// assert_eq!(&bytes[4096..4103], b"for all");
/// assert!(memory.write_at(0, b"too late").is_err());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "memfd")]
#[doc(alias = "shm_open")]
pub struct SharedMemory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    length: usize,
    sealed: OnceLock<shared::Sealed>,
}

impl SharedMemory {
    /// So many bytes, all 0. What is never written takes no memory.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new(length: usize) -> Result<SharedMemory, Error> {
        let file = shared::create(c"procession", length as u64)
            .map_err(|error| Error::io("memfd_create", error).detail(format!("shared memory of {length} bytes")))?;
        Ok(SharedMemory::of(file, length))
    }

    /// The memory behind a descriptor, in a program that has inherited it: the counterpart of `as_fd`.
    ///
    /// # Errors
    /// It is no memfd whose size can no longer change (`F_SEAL_SHRINK`, `F_SEAL_GROW`).
    pub fn from_fd(descriptor: impl Into<OwnedFd>) -> Result<SharedMemory, Error> {
        let file = descriptor.into();
        let seals = shared::seals(file.as_fd());
        let seals = seals.map_err(|_| Error::invalid("the descriptor is no shared memory"))?;
        let size = shared::size(file.as_fd()).map_err(|error| Error::io("fstat", error))?;
        let length = usize::try_from(size).ok().filter(|_| shared::is_fixed(seals));
        let length =
            length.ok_or_else(|| Error::invalid(format!("{size} bytes of shared memory, which could change")))?;
        Ok(SharedMemory::of(file, length))
    }

    fn of(file: OwnedFd, length: usize) -> SharedMemory {
        SharedMemory { inner: Arc::new(Inner { file: file.into(), length, sealed: OnceLock::new() }) }
    }

    /// How many bytes there are.
    #[doc(alias = "size")]
    pub fn len(&self) -> usize {
        self.inner.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.inner.length == 0
    }

    /// Copies bytes out. If somebody writes them meanwhile, some may be old and some new.
    ///
    /// # Errors
    /// They reach beyond the end.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let place = self.place(offset, bytes.len())?;
        self.inner.file.read_exact_at(bytes, place).map_err(|error| Error::io("pread", error))
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// They reach beyond the end, or the memory is sealed (nothing was written then); or there is no more memory.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let place = self.place(offset, bytes.len())?;
        self.inner.file.write_all_at(bytes, place).map_err(|error| {
            let error = Error::io("pwrite", error);
            if self.is_sealed() { error.detail("the memory is sealed") } else { error }
        })
    }

    /// Makes it read-only for everybody and for good, and lends it. Again is fine.
    ///
    /// # Errors
    /// Another program has mapped it for writing.
    pub fn seal(&self) -> Result<&[u8], Error> {
        shared::seal_against_writing(self.inner.file.as_fd()).map_err(|error| Error::io("F_ADD_SEALS", error))?;
        match self.sealed()? {
            Some(bytes) => Ok(bytes),
            None => Err(Error::invalid("the memory could not be sealed")),
        }
    }

    /// Whether somebody has sealed it.
    pub fn is_sealed(&self) -> bool {
        shared::seals(self.inner.file.as_fd()).is_ok_and(shared::is_read_only)
    }

    /// The bytes, once somebody has sealed it: here or in another process.
    ///
    /// ```
    /// use procession::ipc::SharedMemory;
    ///
    /// let memory = SharedMemory::new(3)?;
    /// assert!(memory.sealed()?.is_none());
    /// memory.write_at(0, b"abc")?;
    /// memory.seal()?;
    /// assert_eq!(memory.sealed()?, Some(&b"abc"[..]));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the system has no room for it in the address space.
    pub fn sealed(&self) -> Result<Option<&[u8]>, Error> {
        let inner = &*self.inner;
        if let Some(sealed) = inner.sealed.get() {
            return Ok(Some(sealed.bytes()));
        }
        if !self.is_sealed() {
            return Ok(None);
        }
        let sealed = shared::Sealed::new(inner.file.as_fd(), inner.length).map_err(|error| Error::io("mmap", error))?;
        Ok(Some(inner.sealed.get_or_init(|| sealed).bytes()))
    }

    fn place(&self, offset: usize, count: usize) -> Result<u64, Error> {
        let length = self.len();
        match offset.checked_add(count) {
            Some(end) if end <= length => Ok(offset as u64),
            _ => Err(Error::invalid(format!("{count} bytes at offset {offset} in shared memory of {length}"))),
        }
    }
}

/// The descriptor of the memory, to hand it on or to map it.
impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.file.as_fd()
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        super::passing::serialize(self.as_fd(), serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedMemory, D::Error> {
        let file = Descriptor::deserialize(deserializer)?;
        SharedMemory::from_fd(file.into_owned_fd()).map_err(|why| D::Error::custom(because(why)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_outside_is_named() {
        let memory = SharedMemory::new(10).unwrap();
        let text = |error: Error| error.to_string();
        assert_eq!(text(memory.write_at(8, b"abc").unwrap_err()), "3 bytes at offset 8 in shared memory of 10");
        let text = text(memory.read_at(usize::MAX, &mut [0; 2]).unwrap_err());
        assert_eq!(text, format!("2 bytes at offset {} in shared memory of 10", usize::MAX));
        memory.read_at(10, &mut []).unwrap();
    }

    #[test]
    fn sealed_it_is_read_only_for_all() {
        let memory = SharedMemory::new(3).unwrap();
        let other = SharedMemory::from_fd(memory.as_fd().try_clone_to_owned().unwrap()).unwrap();
        other.write_at(0, b"one").unwrap();
        assert_eq!(other.sealed().unwrap(), None);
        assert_eq!(memory.seal().unwrap(), b"one");
        assert_eq!(other.sealed().unwrap(), Some(&b"one"[..]));
        assert_eq!(other.seal().unwrap(), b"one");
        let error = other.write_at(0, b"two").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("sealed"), "{error}");
        let empty = SharedMemory::new(0).unwrap();
        assert_eq!(empty.seal().unwrap(), b"");
    }

    #[test]
    fn a_file_is_refused() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(SharedMemory::from_fd(file).is_err());
    }
}
