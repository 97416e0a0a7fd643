//! Zero-ended strings as execve(2) wants them: one block of memory for all of them, and a list of pointers into it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::fmt;

/// Strings without zero bytes, each ended by one, in one block.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    /// Where each string begins.
    starts: Vec<usize>,
}

/// A string contained a zero byte, and would have been cut short there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ZeroByte;

impl Strings {
    pub(crate) fn with_capacity(count: usize, bytes: usize) -> Strings {
        Strings { bytes: Vec::with_capacity(bytes), starts: Vec::with_capacity(count) }
    }

    /// Adds a string made of parts.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> Result<(), ZeroByte> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(ZeroByte);
        }
        self.starts.push(self.bytes.len());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        Ok(())
    }

    /// Adds `key=value`, neither of which can contain a zero byte because they were strings of C's before.
    pub(crate) fn push_inherited(&mut self, key: &[u8], value: &[u8]) {
        self.starts.push(self.bytes.len());
        self.bytes.reserve(key.len() + value.len() + 2);
        self.bytes.extend_from_slice(key);
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The strings, with their ends.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CStr> {
        let from = |&start: &usize| self.bytes.get(start..).and_then(|bytes| CStr::from_bytes_until_nul(bytes).ok());
        self.starts.iter().filter_map(from)
    }

    /// The strings for the kernel.
    pub(crate) fn into_pointers(self) -> Pointers {
        let pointers = pointers(&self);
        Pointers { pointers, _strings: self }
    }

    /// The strings for the kernel, as long as they are borrowed: pointers and a null at the end.
    pub(crate) fn pointers(&self) -> Vec<*const c_char> {
        pointers(self)
    }
}

fn pointers(strings: &Strings) -> Vec<*const c_char> {
    let base = strings.bytes.as_ptr().cast::<c_char>();
    let mut pointers = Vec::with_capacity(strings.starts.len() + 1);
    pointers.extend(strings.starts.iter().map(|&start| base.wrapping_add(start)));
    pointers.push(std::ptr::null());
    pointers
}

impl fmt::Debug for Strings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

/// Strings and the list of pointers to them, ended by a null pointer.
pub(crate) struct Pointers {
    pointers: Vec<*const c_char>,
    _strings: Strings,
}

// SAFETY: the pointers lead into the block that is owned beside them, whose heap memory does not move and never changes.
unsafe impl Send for Pointers {}
// SAFETY: as above; nothing is written through them.
unsafe impl Sync for Pointers {}

impl Pointers {
    pub(crate) fn get(&self) -> &[*const c_char] {
        &self.pointers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_keep_their_borders() {
        let mut strings = Strings::default();
        strings.push(&[b"A", b"=", b"1"]).unwrap();
        strings.push(&[b""]).unwrap();
        assert_eq!(strings.push(&[b"a", b"b\0c"]), Err(ZeroByte));
        strings.push(&[b"last"]).unwrap();
        assert_eq!(strings.iter().collect::<Vec<_>>(), [c"A=1", c"", c"last"]);
        let pointers = strings.pointers();
        assert_eq!(pointers.len(), 4);
        assert!(pointers[3].is_null());
        // SAFETY: the pointer leads to a zero-ended string that lives.
        assert_eq!(unsafe { CStr::from_ptr(pointers[2]) }, c"last");
    }
}
