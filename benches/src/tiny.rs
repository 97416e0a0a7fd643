//! A program that ends at once, without a C library or a loader, written as bytes: what is left is the price of starting.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a [sleeper](Tiny::sleeper) says.
pub const WORDS: &[u8] = b"hello\n";

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
        Tiny::with(CODE.to_vec())
    }

    /// One that says [`WORDS`] first, and sleeps so long before it ends.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn sleeper(time: Duration) -> Tiny {
        let mut code = sleeper();
        code.extend(time.as_secs().to_le_bytes());
        code.extend(u64::from(time.subsec_nanos()).to_le_bytes());
        code.extend(WORDS);
        Tiny::with(code)
    }

    fn with(code: Vec<u8>) -> Tiny {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("procession-bench-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        // Any user may run it: some contestants change theirs.
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.join("tiny");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
        file.write_all(&elf(&code)).unwrap();
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

/// write(1, words, 6); nanosleep(time, NULL); exit(0). The time is behind the code, and then the words.
#[cfg(target_arch = "x86_64")]
fn sleeper() -> Vec<u8> {
    // `push 1; pop rdi; push 1; pop rax; lea rsi, [rip + 42]; push 6; pop rdx; syscall`: the words are 16 behind the time.
    let mut code = vec![0x6a, 1, 0x5f, 0x6a, 1, 0x58, 0x48, 0x8d, 0x35, 42, 0, 0, 0, 0x6a, 6, 0x5a, 0x0f, 0x05];
    // `lea rdi, [rip + 14]; xor esi, esi; push 35; pop rax; syscall`
    code.extend([0x48, 0x8d, 0x3d, 14, 0, 0, 0, 0x31, 0xf6, 0x6a, 35, 0x58, 0x0f, 0x05]);
    code.extend(CODE);
    code
}

/// The same.
#[cfg(target_arch = "aarch64")]
fn sleeper() -> Vec<u8> {
    // `mov x<register>, #<value>` and `adr x<register>, <offset>`, for offsets that are divisible by 4.
    let set = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    let address = |register: u32, offset: u32| 0x1000_0000 | (offset >> 2) << 5 | register;
    const CALL: u32 = 0xd400_0001;
    let written = [set(0, 1), address(1, 44 + 16), set(2, 6), set(8, 64), CALL];
    let slept = [address(0, 28), set(1, 0), set(8, 101), CALL];
    let mut code: Vec<u8> = written.into_iter().chain(slept).flat_map(u32::to_le_bytes).collect();
    code.extend(CODE);
    code
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the tiny program is written for x86_64 and aarch64");

/// elf(5): the file header, one segment with everything in it, the code.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let size = HEADERS + code.len() as u64;
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
    file.extend(code);
    file
}
