//! proc(5): who is there, whose child it is, and which pipes it holds. Everything here is a help for people and for stops
//! that reach further than one process; where /proc is missing or hidden the answers are empty, and nothing depends on them.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

/// A line of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    /// The first letter of the state: `R`, `S`, `D`, `T`, `Z` …
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// Ticks since boot: together with the pid it names one process for ever.
    pub(crate) started: u64,
}

/// The process table, as far as it can be seen.
pub(crate) fn table() -> Vec<Stat> {
    pids().filter_map(stat).collect()
}

/// One line of the process table.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of a process, with its arguments, made fit for one line, and with `***` in place of what is secret.
pub(crate) fn command_line(pid: i32, secrets: &[OsString]) -> String {
    const READ_MAX: usize = 64 * 1024;
    const SHOWN_MAX: usize = 200;
    let mut bytes = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/cmdline"));
    let read = file.and_then(|file| file.take(READ_MAX as u64).read_to_end(&mut bytes));
    if bytes.len() == READ_MAX {
        // The beginning of a secret that is cut off would not be recognised.
        let longest = secrets.iter().map(|secret| secret.len()).max().unwrap_or(0);
        bytes.truncate(READ_MAX.saturating_sub(longest));
    }
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        bytes = masked(&bytes, secret.as_bytes());
    }
    if read.is_err() || bytes.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim_end());
    }
    bytes.truncate(SHOWN_MAX);
    let words = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// With `***` in place of each occurrence of a secret.
fn masked(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(secret) {
            Some(behind) => {
                shown.extend_from_slice(b"***");
                rest = behind;
            }
            None => {
                shown.push(*first);
                rest = tail;
            }
        }
    }
    shown
}

/// Whether the environment that a process was started with has this entry.
pub(crate) fn has_environment(pid: i32, entry: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|found| found == entry))
}

/// The processes, other than this one, that can write to the pipe with this inode. A copy of this program that was forked
/// without exec holds our end, to read from: that keeps nothing open.
pub(crate) fn pipe_writers(inode: u64) -> Vec<i32> {
    let name = format!("pipe:[{inode}]");
    let ours = std::process::id() as i32;
    pids().filter(|&pid| pid != ours && writes_to(pid, name.as_bytes())).collect()
}

fn writes_to(pid: i32, name: &[u8]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    // The link's own permissions say how the descriptor was opened.
    let writes = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|link| link.permissions().mode() & 0o200 != 0);
    entries.flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str().as_bytes() == name) && writes(&entry)
    })
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// `pid (name) state ppid pgrp session … starttime(22) …`; the name may hold anything, so it is cut at the last parenthesis.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let line = String::from_utf8_lossy(line);
    let (head, tail) = line.rsplit_once(')')?;
    let pid = head.split_once(' ')?.0.parse().ok()?;
    let mut words = tail.split_ascii_whitespace();
    let state = words.next()?.chars().next()?;
    let parent = words.next()?.parse().ok()?;
    let group = words.next()?.parse().ok()?;
    let session = words.next()?.parse().ok()?;
    let started = words.nth(15)?.parse().ok()?;
    Some(Stat { pid, state, parent, group, session, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"42 (a) S 7 ) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 9999 21";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent, stat.group, stat.session), (42, 'R', 1, 2, 3));
        assert_eq!(stat.started, 19);
    }

    #[test]
    fn each_occurrence_of_a_secret_is_masked() {
        assert_eq!(masked(b"a pw pw=pwpw p", b"pw"), b"a *** ***=****** p");
        assert_eq!(masked(b"", b"pw"), b"");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_in_the_table() {
        let pid = std::process::id() as i32;
        let own = table().into_iter().find(|stat| stat.pid == pid).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id() as i32);
        assert!(own.started > 0);
    }
}
