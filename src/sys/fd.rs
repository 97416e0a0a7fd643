//! Descriptors: duplicate, flags, and reads that land in spare capacity. Every descriptor made here is close-on-exec.
#![allow(unsafe_code)]

use super::errno::{check, retry};
use super::mask;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Duplicates a descriptor to the lowest free number from `lowest` on.
pub(crate) fn duplicate_from(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fd` is open for the length of the call; F_DUPFD_CLOEXEC takes an integer.
    let number = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) });
    let number = number.map_err(|error| match error.raw_os_error() {
        // `lowest` is not below the limit.
        Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::EMFILE),
        _ => error,
    })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Moves a new descriptor out of 0-2, where it would land if the host had closed its standard streams.
pub(crate) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate_from(fd.as_fd(), 3) }
}

/// From this number on new descriptors show that the table is long: a number is given only if all below it are taken.
const CROWDED: RawFd = 64;
/// From this number on stand those that we keep while the table is long.
const FAR: RawFd = 512;

static HIGHEST: AtomicI32 = AtomicI32::new(0);

/// The highest number that a descriptor of a child had so far, if the table has been long and a copy of its beginning can be had.
pub(crate) fn highest_if_crowded() -> Option<RawFd> {
    Some(HIGHEST.load(Ordering::Relaxed)).filter(|highest| *highest >= CROWDED && copies_beginnings())
}

/// Whether the kernel copies the beginning of a table well (Linux 6.11). From 5.9 on it can, but up to 5.17 it may forget descriptors where
/// the beginning does not end at a multiple of 64, and up to 6.10 the copy may take numbers for used that are free, also after exec
/// (CVE-2024-45025). Corrections in older series are not told by the number.
fn copies_beginnings() -> bool {
    if !cfg!(target_os = "linux") {
        return false;
    }
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let name = nix::sys::utsname::uname().ok();
        name.as_ref().and_then(|name| version(name.release().to_str()?)).is_some_and(|version| version >= (6, 11))
    })
}

/// The first two numbers of a release, as in "6.11.0-rc3".
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Moves a descriptor that we keep to a high number if the table is long: low numbers are for what a child is given, so that it needs a
/// copy of the beginning only. A wish: the limit may be lower.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    let fd = match fd.as_raw_fd() {
        CROWDED..FAR if copies_beginnings() => duplicate_from(fd.as_fd(), FAR).unwrap_or(fd),
        _ => fd,
    };
    HIGHEST.fetch_max(fd.as_raw_fd(), Ordering::Relaxed);
    fd
}

/// A duplicate that we keep, out of the way at once.
#[cfg(any(feature = "tokio", feature = "async-io"))]
pub(crate) fn duplicate_to_keep(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let far = highest_if_crowded().and_then(|_| duplicate_from(fd, FAR).ok());
    let duplicate = far.map_or_else(|| duplicate_from(fd, 3), Ok)?;
    HIGHEST.fetch_max(duplicate.as_raw_fd(), Ordering::Relaxed);
    Ok(duplicate)
}

/// Opens a file above descriptor 2. No terminal that is opened becomes ours; `flags` are further ones of open(2).
pub(crate) fn open(path: &Path, options: &mut OpenOptions, flags: i32) -> io::Result<OwnedFd> {
    let file = options.custom_flags(libc::O_NOCTTY | flags).open(path)?;
    above_stdio(file.into())
}

/// Opens once more what is behind a descriptor: a description of its own, whose flags nobody shares. It takes Linux, a mounted /proc,
/// and a file that this user may open. Not `/proc/self`, which is empty where the main thread has ended.
#[cfg(target_os = "linux")]
pub(crate) fn reopen(fd: BorrowedFd<'_>, options: &mut OpenOptions, flags: i32) -> io::Result<OwnedFd> {
    open(Path::new(&format!("/proc/thread-self/fd/{}", fd.as_raw_fd())), options, flags)
}

/// What other systems have in such a place is a duplicate.
#[cfg(not(target_os = "linux"))]
pub(crate) fn reopen(_fd: BorrowedFd<'_>, _options: &mut OpenOptions, _flags: i32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// mkdtemp(3): a new directory that only its owner may enter, called by these words and six letters.
pub(crate) fn private_directory(words: &Path) -> io::Result<PathBuf> {
    let mut template = words.as_os_str().to_owned();
    template.push("XXXXXX");
    Ok(nix::unistd::mkdtemp(template.as_os_str())?)
}

/// A file without a name, to write and to read, for this user alone: it is gone when it is closed.
pub(crate) fn unnamed(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    // O_TMPFILE, Linux 3.11; not every file system has it.
    #[cfg(target_os = "linux")]
    if let Ok(file) = open(directory, &mut options, libc::O_TMPFILE) {
        return Ok(file.into());
    }
    named_for_a_moment(directory, options.create_new(true))
}

fn named_for_a_moment(directory: &Path, options: &mut OpenOptions) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut attempt = || {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".procession-{}-{count}", std::process::id()));
        let file = open(&path, options, 0)?;
        fs::remove_file(&path).map(|()| file.into())
    };
    // A name may be taken: by a process of the same number that was killed, or by somebody who wants to be in the way.
    let is_taken =
        |result: &io::Result<File>| matches!(result, Err(error) if error.kind() == io::ErrorKind::AlreadyExists);
    let mut result = attempt();
    for _ in 0..TRIES_MAX {
        if !is_taken(&result) {
            break;
        }
        result = attempt();
    }
    result
}

/// So many names are tried for a file that will have none.
const TRIES_MAX: usize = 100;

/// Does something that writes to a file or a pipe: a size that a file may not have (`EFBIG`) and a reader that has gone are errors and
/// never signals.
pub(crate) fn without_signals<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let work = || super::pipe::without_signal(work);
    if mask::ignores(libc::SIGXFSZ) { work() } else { mask::without_sigxfsz(work) }
}

/// Duplicates a descriptor that is known by its number only. An error names a number that is not open.
pub(crate) fn duplicate_number(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC fails with EBADF if the number is not open; it takes an integer.
    let copy = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Duplicates a descriptor to a number above 2 that is none of these.
pub(crate) fn duplicate_avoiding(number: RawFd, avoided: &[RawFd]) -> io::Result<OwnedFd> {
    let mut copy = duplicate_number(number)?;
    while avoided.contains(&copy.as_raw_fd()) {
        copy = duplicate_from(copy.as_fd(), copy.as_raw_fd().saturating_add(1))?;
    }
    Ok(copy)
}

/// Makes reads and writes on this open file description return at once. Only for descriptions that the library made and
/// that no child shares: the flag belongs to the description, not to the number.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut on: libc::c_int = 1;
    // SAFETY: FIONBIO reads one int through the pointer, which lives during the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &mut on) }).map(drop)
}

/// Reads at most `count_max` bytes into the spare capacity of `buffer` and returns how many came (0 at end of file).
/// Reserves nothing: with no spare capacity it reads nothing and returns an error.
pub(crate) fn read_append(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, count_max: usize) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let count = spare.len().min(count_max);
    if count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let start = spare.as_mut_ptr().cast();
    // SAFETY: `start` is valid for writes of `count` bytes, all within the spare capacity of `buffer`.
    let read = retry(|| check(unsafe { libc::read(fd.as_raw_fd(), start, count) }))? as usize;
    let length = buffer.len() + read;
    // SAFETY: the kernel has written `read` bytes behind the old length, and `length` is within the capacity.
    unsafe { buffer.set_len(length) };
    Ok(read)
}

/// Reads into a slice.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| Ok(nix::unistd::read(fd, buffer)?))
}

/// The number that identifies the file behind a descriptor within its file system; for a pipe it stands in `/proc/*/fd`.
pub(crate) fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    #[allow(clippy::unnecessary_cast)] // u32 on FreeBSD of old
    Ok(nix::sys::stat::fstat(fd)?.st_ino as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn releases_are_compared_as_numbers() {
        let cases = [
            ("6.18.44-fc-v657", Some((6, 18))),
            ("6.9.0", Some((6, 9))),
            ("5.15.0-1053-aws", Some((5, 15))),
            ("6.11-rc3", Some((6, 11))),
            ("4.4.0", Some((4, 4))),
            ("10.0+", Some((10, 0))),
            ("6", None),
            ("", None),
            ("next-20261121", None),
            ("99999999999.1", None),
        ];
        for (release, expected) in cases {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("6.9") < Some((6, 11)) && version("10.0") > Some((6, 11)));
    }

    #[test]
    fn reads_land_behind_what_is_there() {
        let (reader, mut writer) = os_pipe::pipe().unwrap();
        writer.write_all(b"world").unwrap();
        let mut buffer = Vec::with_capacity(64);
        buffer.extend_from_slice(b"hello ");
        assert_eq!(read_append(reader.as_fd(), &mut buffer, 3).unwrap(), 3);
        assert_eq!(buffer, b"hello wor");
        assert_eq!(read_append(reader.as_fd(), &mut buffer, 30).unwrap(), 2);
        assert_eq!(buffer, b"hello world");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_opened_once_more_has_flags_of_its_own() {
        let flags = |fd: &OwnedFd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).unwrap() & libc::O_NONBLOCK;
        let (reader, writer) = crate::sys::pipe::pair().unwrap();
        let again = reopen(reader.as_fd(), OpenOptions::new().read(true), libc::O_NONBLOCK).unwrap();
        assert_eq!((flags(&reader), flags(&again)), (0, libc::O_NONBLOCK));
        assert_eq!(read(again.as_fd(), &mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::fs::File::from(writer).write_all(b"x").unwrap();
        assert_eq!(read(again.as_fd(), &mut [0; 2]).unwrap(), 1);
    }

    #[test]
    fn a_file_without_a_name_keeps_what_is_written_and_leaves_nothing() {
        use std::io::{Read, Seek};
        let directory = std::env::temp_dir().join(format!("procession-unnamed-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let mut options = File::options();
        let named = || named_for_a_moment(&directory, options.read(true).write(true).create_new(true));
        for mut file in [unnamed(&directory), { named }()].map(Result::unwrap) {
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
            file.write_all(b"kept").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "kept");
        }
        fs::remove_dir(&directory).unwrap();
        assert!(unnamed(&directory).is_err());
    }

    #[test]
    fn a_full_buffer_is_an_error_and_not_an_end_of_file() {
        let (reader, _writer) = os_pipe::pipe().unwrap();
        assert!(read_append(reader.as_fd(), &mut Vec::new(), 1).is_err());
    }
}
