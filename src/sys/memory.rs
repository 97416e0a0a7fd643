//! madvise(2): fresh memory, many pages at once instead of one fault after the other.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use super::errno::check;
use std::io;
use std::mem::MaybeUninit;

/// How many bytes a page has.
#[cfg(target_os = "linux")]
pub(crate) fn page_size() -> usize {
    // SAFETY: an integer argument; every system has a page size.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Asks the kernel for the pages behind memory that is about to be written (`MADV_POPULATE_WRITE`, Linux 5.14). A wish:
/// without it the first write to each page gets that page. What is there already keeps its content.
#[cfg(target_os = "linux")]
pub(crate) fn populate(memory: &mut [MaybeUninit<u8>]) -> io::Result<()> {
    const POPULATE_WRITE: libc::c_int = 23;
    let page = page_size();
    // Whole pages within the memory: others may own the rest of the first and of the last.
    let skipped = memory.as_ptr().align_offset(page);
    let Some(inside) = memory.get_mut(skipped..) else { return Ok(()) };
    let length = inside.len() - inside.len() % page;
    // SAFETY: the range is exclusively borrowed, and the call changes no content: it only does what a write to each page
    // would do before writing.
    check(unsafe { libc::madvise(inside.as_mut_ptr().cast(), length, POPULATE_WRITE) }).map(drop)
}

/// Other systems have no such advice.
#[cfg(not(target_os = "linux"))]
pub(crate) fn populate(_memory: &mut [MaybeUninit<u8>]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_stays_and_any_length_is_fine() {
        for length in [0, 1, 4095, 4096, 100_000] {
            let mut buffer = Vec::with_capacity(length + 8);
            buffer.extend_from_slice(b"before");
            // Refused by an older kernel; then nothing has happened.
            let _ = populate(buffer.spare_capacity_mut());
            assert_eq!(buffer, b"before");
            let mut full: Vec<MaybeUninit<u8>> = vec![MaybeUninit::new(7); length];
            let _ = populate(&mut full);
            // SAFETY: every byte was initialised above.
            assert!(full.iter().all(|byte| unsafe { byte.assume_init() } == 7));
        }
    }
}
