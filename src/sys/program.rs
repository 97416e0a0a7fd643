//! The program that this process runs: a function of ours before its `main`, and functions that are named by their place in it, so that another
//! process of the same program finds the same function.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, CString, OsStr, OsString, c_int, c_void};
use std::io;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;

/// Runs a function when the program starts, before `main` (the section `.init_array` of ELF). Whoever links the module in which this stands has it.
macro_rules! before_main {
    ($name:ident, $function:path) => {
        #[used]
        #[allow(unsafe_code)]
        // SAFETY: the section is an array of such pointers, which the C library calls one by one.
        #[unsafe(link_section = ".init_array")]
        static $name: extern "C" fn() = {
            extern "C" fn before_main() {
                $function();
            }
            before_main
        };
    };
}
pub(crate) use before_main;

/// A function that can be called in another process of this program; it finds what it needs in its argument.
pub(crate) type Routine = fn(&mut dyn Any);

/// Where the functions of the main program are.
#[derive(Debug)]
struct Image {
    base: usize,
    code: Vec<Range<usize>>,
}

/// Where the function is in the main program. `None` if it belongs to a library that was loaded.
pub(crate) fn place_of(routine: Routine) -> Option<u64> {
    let (image, address) = (image(), routine as usize);
    let inside = image.code.iter().any(|range| range.contains(&address));
    inside.then(|| (address - image.base) as u64)
}

/// The function at a place that [`place_of`] gave in a process that runs the very same file. Whoever calls has made sure of that; a place outside of
/// the program's code is refused in any case.
pub(crate) fn routine_at(place: u64) -> Option<Routine> {
    let image = image();
    let address = image.base.checked_add(usize::try_from(place).ok()?)?;
    let inside = image.code.iter().any(|range| range.contains(&address));
    // SAFETY: in the same program the same function stands at the same distance from the base, which is all that changes from one process
    // to the next.
    inside.then(|| unsafe { std::mem::transmute::<usize, Routine>(address) })
}

/// Another value of a type that has no size, such as a function's own type: there is nothing in it that could differ.
///
/// It is only asked for on behalf of somebody who had such a value, in a process of the same program.
pub(crate) fn without_size<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0, "pass the function itself: no pointer to it, and no closure that captures") };
    // SAFETY: a read of no bytes, from a place that is aligned; and Copy says that one may have as many values as one likes.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = Image { base: 0, code: Vec::new() };
        // SAFETY: the callback has the right type, and gets a pointer to the image, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut image).cast()) };
        image
    })
}

/// The first one that is visited is the main program (dl_iterate_phdr(3)).
extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, image: *mut c_void) -> c_int {
    // SAFETY: the C library passes a valid struct for the time of the call.
    let info = unsafe { &*info };
    // SAFETY: it is the image that was passed in, borrowed by nobody else.
    let image = unsafe { &mut *image.cast::<Image>() };
    image.base = info.dlpi_addr as usize;
    for number in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: there are so many headers.
        let header = unsafe { info.dlpi_phdr.add(number) };
        // SAFETY: they stay as long as the program, and nobody writes to them.
        let header = unsafe { &*header };
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
            let start = image.base.wrapping_add(header.p_vaddr as usize);
            image.code.push(start..start.wrapping_add(header.p_memsz as usize));
        }
    }
    1
}

/// Takes a variable out of the environment, before `main`, when nobody else reads it.
pub(crate) fn take_variable(name: &CStr) -> Option<OsString> {
    // SAFETY: a zero-ended name.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: it is a zero-ended string until somebody changes the environment; it is copied at once.
    let value = unsafe { CStr::from_ptr(value) }.to_owned();
    // SAFETY: before `main`, no other thread of this program has been started by Rust code.
    unsafe { std::env::remove_var(OsStr::from_bytes(name.to_bytes())) };
    Some(OsString::from_vec(CString::into_bytes(value)))
}

/// Takes over a descriptor that the parent has left for us, from now on close-on-exec. An error if it is not open.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: an integer argument; it tells whether the number is open.
    super::errno::check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and was opened for us: nobody else in this program knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A write to a pipe that nobody reads is an error and no signal, as Rust's own start of a program arranges it.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: no handler is installed; the program has not begun, so nobody relies on another disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(_: &mut dyn Any) {}

    #[test]
    fn a_place_leads_back() {
        let place = place_of(one).unwrap();
        assert!(std::ptr::fn_addr_eq(routine_at(place).unwrap(), one as Routine));
        assert!(routine_at(u64::MAX).is_none());
        assert!(routine_at(0).is_none());
    }
}
