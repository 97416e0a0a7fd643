//! A program that writes faster than anybody reads: this one, started again with two words.

use std::io::Write;
use std::path::PathBuf;

const WORD: &str = "source";
/// A line of the source, which has no others.
const LINE: &[u8; 8] = b"1234567\n";
/// How much it writes at a time: as much as a pipe holds.
const BLOCK: usize = 64 * 1024;

/// Its path, and its arguments.
pub fn command(bytes: usize) -> (PathBuf, [String; 2]) {
    (std::env::current_exe().unwrap(), [WORD.to_owned(), bytes.to_string()])
}

/// To be called first: in a process that was started with [`command`] this writes the bytes and exits.
pub fn write_if_asked() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, bytes] = words.as_slice() else { return };
    if word != WORD {
        return;
    }
    let block = LINE.repeat(BLOCK / LINE.len());
    let mut left: usize = bytes.parse().unwrap();
    // Not buffered: a block is a system call.
    let mut stdout = std::fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().unwrap());
    while left > 0 {
        let count = left.min(BLOCK);
        // Whoever reads has gone, as in any pipeline.
        if stdout.write_all(&block[..count]).is_err() {
            break;
        }
        left -= count;
    }
    std::process::exit(0);
}
