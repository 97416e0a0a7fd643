//! proc(5): who is there, whose child it is, and which pipes it holds. Everything here is a help for people and for stops
//! that reach further than one process; where /proc is missing or hidden the answers are empty, and nothing depends on them.

use super::pty::{self, Identity};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

/// What the output of a child comes by, as others hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A pipe, by its inode.
    Pipe(u64),
    /// A terminal.
    Terminal(Identity),
}

/// The processes, other than this one, that can write to one of these channels as a child of ours does. Looks at every
/// descriptor of every process, so it is asked for all channels at once.
///
/// Whoever can write to a pipe and read from it is a copy of this process that has not become its program yet: a child that
/// another thread is just starting. It holds what we hold, is gone from the pipe in a moment, and belongs to somebody else. On a
/// terminal everybody can do both; there a copy is known by our end of it, which no program is given.
pub(crate) fn writers(channels: &[Channel]) -> Vec<i32> {
    if channels.is_empty() {
        return Vec::new();
    }
    let ours = std::process::id() as i32;
    pids().filter(|&pid| pid != ours && writes_to(pid, channels)).collect()
}

fn writes_to(pid: i32, channels: &[Channel]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    // How each of the channels is held: the link's own mode tells how a descriptor was opened.
    let mut modes = vec![0; channels.len()];
    let (mut terminals, mut masters) = (Vec::new(), Vec::new());
    for entry in entries.flatten() {
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let mode = || entry.metadata().map_or(0, |link| link.permissions().mode());
        let inode = pipe_inode(link.as_os_str().as_bytes());
        for (held, channel) in modes.iter_mut().zip(channels) {
            match channel {
                Channel::Pipe(wanted) if inode == Some(*wanted) => *held |= mode(),
                Channel::Terminal(wanted) if mode() & 0o200 != 0 => {
                    terminals.extend(terminal_number(&link, &entry.path(), *wanted));
                }
                _ => {}
            }
        }
        if link.file_name().is_some_and(|name| name == "ptmx") {
            masters.extend(master_number(pid, &entry.file_name()));
        }
    }
    modes.iter().any(|mode| mode & 0o200 != 0 && mode & 0o400 == 0)
        || terminals.iter().any(|terminal| !masters.contains(terminal))
}

/// The number of the terminal behind a descriptor, if it is the one that is wanted. The name that the link shows is that in another
/// process's file system, so it is only the reason to look closer: what lies on a file system that hangs is not touched.
fn terminal_number(link: &Path, entry: &Path, wanted: Identity) -> Option<u32> {
    let number = link.file_name()?.to_str()?.parse().ok()?;
    let found = nix::sys::stat::stat(entry).ok()?;
    (pty::identity_in(&found) == wanted).then_some(number)
}

/// The number of the terminal that a descriptor is the other end of; Linux 4.14 tells.
fn master_number(pid: i32, descriptor: &OsStr) -> Option<u32> {
    let info = fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(descriptor)).ok()?;
    info.lines().find_map(|line| line.strip_prefix("tty-index:"))?.trim().parse().ok()
}

/// `pipe:[INODE]`
fn pipe_inode(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link.strip_prefix(b"pipe:[")?.strip_suffix(b"]")?).ok()?.parse().ok()
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

    #[test]
    #[cfg(target_os = "linux")]
    fn a_copy_of_this_process_holds_no_pipe_of_ours() {
        use std::os::fd::AsFd;
        use std::process::{Command, Stdio};
        let (reader, writer) = crate::sys::pipe::pair().unwrap();
        let inode = crate::sys::fd::inode(reader.as_fd()).unwrap();
        let sleeper = |stdin: Stdio| {
            let mut command = Command::new("sleep");
            command.arg("60").stdin(stdin).stdout(writer.try_clone().unwrap()).spawn().unwrap()
        };
        // As a child is between its birth and its program, and as a descendant is.
        let mut copy = sleeper(reader.try_clone().unwrap().into());
        let mut descendant = sleeper(Stdio::null());
        let writers = writers(&[Channel::Pipe(inode)]);
        for child in [&mut copy, &mut descendant] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(writers.contains(&(descendant.id() as i32)), "{writers:?}");
        assert!(!writers.contains(&(copy.id() as i32)), "{writers:?}");
    }
}
