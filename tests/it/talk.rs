//! What the tests of conversations, waiting and stopping share: known bytes, lines as they come, pids that are said, and what
//! the test's own process spends.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal as Number, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, Uid, setresuid};
use procession::{Child, Command, Error, PipeReader, PipeWriter, SpawnRoute};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What the helper program writes when it writes a pattern.
pub fn pattern(size: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(size).collect()
}

/// Bytes that do not repeat, so that a lost, doubled or moved piece shows.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_ne_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The next line, without its end. Takes nothing behind it.
pub fn line(reader: &mut PipeReader) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while reader.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        bytes.extend(byte);
    }
    String::from_utf8(bytes).unwrap()
}

/// The pid at the end of a line such as `grandchild 17`.
#[track_caller]
pub fn pid_in(line: &str) -> u32 {
    let word = line.split_whitespace().last().unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("no pid in {line:?}"))
}

/// A shell that writes the first text, waits for the other end of a pipe to be dropped, and writes the second.
pub fn in_two_parts(before: &str, after: &str) -> (Command, PipeWriter) {
    let (reader, writer) = procession::pipe().unwrap();
    let script = format!("printf '{before}'; read x <&3; printf '{after}'");
    (Command::shell(script).fd(3, reader), writer)
}

/// Talks to the child until it has written so much.
pub fn talk_until_it_wrote(child: &mut Child, count: u64) -> Error {
    loop {
        let error = child.communicate_timeout((), Duration::from_millis(20)).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        if error.output().captured_stdout().total() >= count {
            return error;
        }
    }
}

/// The pids in all lines that begin with `word`.
pub fn pids_in(text: &[u8], word: &str) -> Vec<u32> {
    let text = String::from_utf8_lossy(text);
    text.lines().filter(|line| line.starts_with(word)).map(pid_in).collect()
}

/// Ends processes that a test left behind on purpose, also when it fails.
pub struct Leftover(pub Vec<u32>);

impl Drop for Leftover {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw(*pid as i32), Number::SIGKILL);
        }
    }
}

/// The processor time of this process.
pub fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
}

/// A number of `/proc/self/status`.
pub fn own_status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How often this thread has gone to sleep.
pub fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Whether the status survives that somebody else reaps: a pidfd, and Linux 6.15.
pub fn keeps_stolen_status() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split(['.', '-']).take(2).filter_map(|word| word.parse().ok()).collect();
    SpawnRoute::current() != SpawnRoute::Portable && numbers >= vec![6, 15]
}

/// Runs the body as a user without rights, whom no other test uses; root only. The rights come back at the end.
pub fn without_rights(body: impl FnOnce()) {
    let user = 40_000 + std::process::id() % 20_000;
    let root = Uid::from_raw(0);
    let nobody = Uid::from_raw(user);
    setresuid(nobody, nobody, root).unwrap();
    stay_readable();
    body();
    setresuid(root, root, root).unwrap();
    stay_readable();
}

/// A process that changed its user hides its own /proc from itself.
fn stay_readable() {
    // SAFETY: an integer argument.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
}

/// Runs the body while a descriptor of this program is another.
pub fn with_descriptor<T>(number: i32, other: impl AsFd, body: impl FnOnce() -> T) -> T {
    io::stdout().flush().unwrap();
    // SAFETY: integer arguments.
    let before = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 10) };
    assert!(before > 0);
    // SAFETY: integer arguments.
    assert_eq!(unsafe { libc::dup2(other.as_fd().as_raw_fd(), number) }, number);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    // SAFETY: integer arguments; the copy was made above.
    assert_eq!(unsafe { libc::dup2(before, number) }, number);
    // SAFETY: made above and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(before) });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
