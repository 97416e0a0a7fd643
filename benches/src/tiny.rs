//! A program that ends at once, without a C library or a loader, written as bytes: what is left is the price of starting.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The program in a directory of its own, which goes with this value.
pub struct Tiny {
    directory: PathBuf,
    path: PathBuf,
}

impl Tiny {
    /// Writes the program.
    ///
    /// # Panics
    /// If the directory for temporary files is not writable.
    pub fn new() -> Tiny {
        let directory = std::env::temp_dir().join(format!("procession-bench-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        // Any user may run it: some contestants change theirs.
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.join("tiny");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
        file.write_all(&elf()).unwrap();
        Tiny { directory, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for Tiny {
    fn default() -> Tiny {
        Tiny::new()
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // What stays behind is 128 bytes in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `xor edi, edi; push 60; pop rax; syscall`: exit(0).
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[0x31, 0xff, 0x6a, 0x3c, 0x58, 0x0f, 0x05];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

/// `mov x0, #0; mov x8, #93; svc #0`: exit(0).
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the tiny program is written for x86_64 and aarch64");

/// elf(5): the file header, one segment with everything in it, the code.
fn elf() -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let size = HEADERS + CODE.len() as u64;
    let mut file = Vec::new();
    // 64 bits, little-endian, version 1, System V.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // An executable for this machine, version 1.
    file.extend(2_u16.to_le_bytes());
    file.extend(MACHINE.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    // Where it begins; the segment list; no section list; flags.
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    // Sizes: this header, one segment entry, how many, no sections.
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // A segment to load, to be read and executed: offset, two addresses, two sizes, alignment.
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(CODE);
    file
}
