//! Memory that processes share, without a name: a file in memory (memfd_create(2)) whose size is sealed, so that no access can fail later.
#![allow(unsafe_code)]

use super::errno::{check, retry};
use super::fd;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};

/// A file in memory of this size, full of zeros, which it keeps (memfd_create(2), Linux 3.17). `name` is what /proc shows.
pub(crate) fn create(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    let file = unsealed(name)?;
    let length = libc::off_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    retry(|| Ok(nix::unistd::ftruncate(&file, length)?))?;
    seal(file.as_fd(), SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)?;
    Ok(file)
}

/// An empty file in memory that grows when it is written to.
pub(crate) fn unsealed(name: &CStr) -> io::Result<OwnedFd> {
    fd::above_stdio(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?)
}

/// Whether nobody can change the size of a file with these seals: then no access to its memory can fail.
pub(crate) fn is_fixed(seals: SealFlag) -> bool {
    seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)
}

/// Whether nobody can change the bytes of a file with these seals, either.
pub(crate) fn is_read_only(seals: SealFlag) -> bool {
    is_fixed(seals) && seals.contains(SealFlag::F_SEAL_WRITE)
}

/// From now on nobody may write. An error while somebody has it mapped for writing.
pub(crate) fn seal_against_writing(file: BorrowedFd<'_>) -> io::Result<()> {
    seal(file, SealFlag::F_SEAL_WRITE)
}

/// From now on nobody may do this to the file (`F_ADD_SEALS`).
pub(crate) fn seal(file: BorrowedFd<'_>, seals: SealFlag) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).map(drop).map_err(Into::into)
}

/// Which seals the file has. An error if it is no file in memory.
pub(crate) fn seals(file: BorrowedFd<'_>) -> io::Result<SealFlag> {
    fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate).map_err(Into::into)
}

/// How long the file is.
pub(crate) fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = nix::sys::stat::fstat(file)?;
    Ok(u64::try_from(stat.st_size).unwrap_or_default())
}

/// What tells a file from every other one that there is: its device and its number there.
pub(crate) fn file_number(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(file)?;
    #[allow(clippy::unnecessary_cast)] // other integers elsewhere
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}

/// Gives the memory behind a part of the file back; it reads as zeros then (fallocate(2), `FALLOC_FL_PUNCH_HOLE`).
pub(crate) fn give_back(file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let number = |value: u64| libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (offset, length) = (number(offset)?, number(length)?);
    retry(|| Ok(fallocate(file, flags, offset, length)?))
}

/// A whole file in our memory, as long as this lives.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: it is memory of the whole process, and whoever makes references into it answers for them.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// mmap(2), shared. The file must have a size that nobody can change.
    pub(crate) fn new(file: BorrowedFd<'_>, length: NonZeroUsize, writable: bool) -> io::Result<Mapping> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        Mapping::with(file, length, protection, libc::MAP_SHARED)
    }

    fn with(
        file: BorrowedFd<'_>,
        length: NonZeroUsize,
        protection: libc::c_int,
        flags: libc::c_int,
    ) -> io::Result<Mapping> {
        // SAFETY: at an address that the kernel chooses nothing of ours is replaced.
        let start = unsafe { libc::mmap(null_mut(), length.get(), protection, flags, file.as_raw_fd(), 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapping { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length.get()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped, and references into it cannot outlive this value.
        let _ = check(unsafe { libc::munmap(self.start.as_ptr().cast(), self.length.get()) });
    }
}

/// A file that nobody can change any more, in our memory.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// `None` if it is empty.
    mapping: Option<Mapping>,
}

impl Sealed {
    /// Maps a file that is [read-only](is_read_only) for everybody. An error if it is not.
    pub(crate) fn new(file: BorrowedFd<'_>, length: usize) -> io::Result<Sealed> {
        if !is_read_only(seals(file)?) || size(file)? != length as u64 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Private, because before Linux 6.7 a shared mapping of a sealed file was refused even for reading. The pages are the same.
        let map = |length| Mapping::with(file, length, libc::PROT_READ, libc::MAP_PRIVATE);
        Ok(Sealed { mapping: NonZeroUsize::new(length).map(map).transpose()? })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(mapping) = &self.mapping else { return &[] };
        // SAFETY: the mapping is of this length and lives as long as the borrow; the seals, which cannot be taken off, keep everybody from
        // changing size and bytes.
        unsafe { std::slice::from_raw_parts(mapping.start.as_ptr(), mapping.length.get()) }
    }
}
