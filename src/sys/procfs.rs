//! proc(5): who is there, whose child it is, and which pipes it holds. Everything here is a help for people and for stops
//! that reach further than one process; where /proc is missing or hidden the answers are empty, and nothing depends on them.

use super::pty::{self, Identity};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

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
    pub(crate) threads: u32,
    /// Ticks of processor time used.
    pub(crate) worked: u64,
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
    bytes = without_secrets(bytes, secrets);
    if read.is_err() || bytes.is_empty() {
        // A process can give itself any name (PR_SET_NAME), so it is treated as arguments are.
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = without_secrets(name.trim_ascii_end().to_vec(), secrets);
        bytes = [b"[", name.as_slice(), b"]"].concat();
    }
    bytes.truncate(SHOWN_MAX);
    let words = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// With `***` in place of everything that is secret.
pub(crate) fn without_secrets(mut bytes: Vec<u8>, secrets: &[OsString]) -> Vec<u8> {
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        bytes = masked(&bytes, secret.as_bytes());
    }
    bytes
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

/// The entries that begin so in the environment that a process was started with.
pub(crate) fn environment_entries(pid: i32, beginning: &[u8]) -> Vec<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let entries = environment.split(|&byte| byte == 0);
    entries.filter(|entry| entry.starts_with(beginning)).map(<[u8]>::to_vec).collect()
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

/// Whether a process is one of the [`writers`].
pub(crate) fn writes_to(pid: i32, channels: &[Channel]) -> bool {
    modes(pid, channels).iter().any(|mode| mode & WRITES != 0 && mode & READS == 0)
}

/// The bits of a descriptor's link that tell how it was opened.
const READS: u32 = 0o400;
const WRITES: u32 = 0o200;

/// How a process holds each of the channels; 0 for one that it does not hold, or that may not be seen. A terminal counts as one that
/// is only written to, if the process has it open for that and not its other end.
fn modes(pid: i32, channels: &[Channel]) -> Vec<u32> {
    let mut modes = vec![0; channels.len()];
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return modes };
    let (mut terminals, mut masters) = (Vec::new(), Vec::new());
    for entry in entries.flatten() {
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let mode = || entry.metadata().map_or(0, |link| link.permissions().mode());
        let inode = pipe_inode(link.as_os_str().as_bytes());
        for (place, (held, channel)) in modes.iter_mut().zip(channels).enumerate() {
            match channel {
                Channel::Pipe(wanted) if inode == Some(*wanted) => *held |= mode(),
                Channel::Terminal(wanted) if mode() & WRITES != 0 => {
                    terminals.extend(terminal_number(&link, &entry.path(), *wanted).map(|number| (place, number)));
                }
                _ => {}
            }
        }
        if link.file_name().is_some_and(|name| name == "ptmx") {
            masters.extend(master_number(pid, &entry.file_name()));
        }
    }
    for (place, terminal) in terminals {
        if let Some(held) = modes.get_mut(place).filter(|_| !masters.contains(&terminal)) {
            *held |= WRITES;
        }
    }
    modes
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

// ---- what a process is doing ----

/// The process table, and who holds some pipes, seen in one pass.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) table: Vec<Stat>,
    pub(crate) ends: Vec<PipeEnd>,
}

/// A pipe that a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PipeEnd {
    pub(crate) pid: i32,
    pub(crate) inode: u64,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// Looks once at every process, and if there are pipes to be looked for, at every descriptor of each. This process counts; a copy
/// of it that has not become its program yet (see [`writers`]) does not.
pub(crate) fn survey(inodes: &[u64]) -> Survey {
    let ours = std::process::id() as i32;
    let channels: Vec<Channel> = inodes.iter().map(|inode| Channel::Pipe(*inode)).collect();
    let mut survey = Survey::default();
    for stat in pids().filter_map(stat) {
        let modes = if inodes.is_empty() { Vec::new() } else { modes(stat.pid, &channels) };
        let ends = modes.into_iter().zip(inodes).map(|(mode, inode)| PipeEnd {
            pid: stat.pid,
            inode: *inode,
            reads: mode & READS != 0,
            writes: mode & WRITES != 0,
        });
        survey.ends.extend(ends.filter(|end| end.reads != end.writes || (end.reads && end.pid == ours)));
        survey.table.push(stat);
    }
    survey
}

/// All pipes, by inode, and who holds them but this process. Looks at every descriptor of every process.
pub(crate) fn pipes() -> HashMap<u64, Vec<i32>> {
    let ours = std::process::id() as i32;
    let mut pipes: HashMap<u64, Vec<i32>> = HashMap::new();
    for pid in pids().filter(|pid| *pid != ours) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let Some(inode) = pipe_inode(link.as_os_str().as_bytes()) else { continue };
            let holders = pipes.entry(inode).or_default();
            if holders.last() != Some(&pid) {
                holders.push(pid);
            }
        }
    }
    pipes
}

/// What a descriptor of a process refers to: a path, or something like `pipe:[77]`.
pub(crate) fn descriptor(pid: i32, number: i32) -> Option<Vec<u8>> {
    Some(fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?.into_os_string().into_encoded_bytes())
}

/// The function of the kernel that a process waits in (`wchan`), where the kernel tells.
pub(crate) fn kernel_function(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
    Some(name).filter(|name| !name.is_empty() && name != "0")
}

/// The system call that the main thread of a process is in, by number, with its first argument. `None` if it is in none, or if
/// that may not be seen.
pub(crate) fn system_call(pid: i32) -> Option<(i64, u64)> {
    let line = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    parse_system_call(&line).filter(|_| has_our_width(pid))
}

/// `NUMBER 0xARG ..`, `running`, or `-1 ..` outside of a call.
fn parse_system_call(line: &str) -> Option<(i64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let first = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    Some((number, first))
}

/// Whether the program is of our kind: a 32-bit program on a 64-bit kernel numbers its calls otherwise.
fn has_our_width(pid: i32) -> bool {
    let mut start = [0_u8; 5];
    let program = fs::File::open(format!("/proc/{pid}/exe")).and_then(|mut file| file.read_exact(&mut start));
    program.is_ok() && start == [0x7f, b'E', b'L', b'F', if cfg!(target_pointer_width = "64") { 2 } else { 1 }]
}

/// Ticks of processor time as a duration.
pub(crate) fn ticks(count: u64) -> Duration {
    let frequency = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let frequency = frequency.and_then(|frequency| u64::try_from(frequency).ok()).filter(|frequency| *frequency > 0);
    let milliseconds = count.saturating_mul(1000).checked_div(frequency.unwrap_or(100));
    Duration::from_millis(milliseconds.unwrap_or_default())
}

/// `pipe:[INODE]`
pub(crate) fn pipe_inode(link: &[u8]) -> Option<u64> {
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
    let (user, system): (u64, u64) = (words.nth(7)?.parse().ok()?, words.next()?.parse().ok()?);
    let threads = words.nth(4)?.parse().ok()?;
    let started = words.nth(1)?.parse().ok()?;
    Some(Stat { pid, state, parent, group, session, started, threads, worked: user.saturating_add(system) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"42 (a) S 7 ) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 9999 21";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent, stat.group, stat.session), (42, 'R', 1, 2, 3));
        assert_eq!((stat.started, stat.threads, stat.worked), (19, 17, 11 + 12));
    }

    #[test]
    fn a_system_call_is_a_number_and_its_arguments() {
        assert_eq!(parse_system_call("0 0x3 0x7f07 0x20000 0x0 0x0 0x0 0x7ffe 0x7f07"), Some((0, 3)));
        for none in ["running\n", "-1 0x7ffe 0x7f07", "", "7", "7 x"] {
            assert_eq!(parse_system_call(none), None, "{none:?}");
        }
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
    fn a_copy_of_this_process_holds_no_terminal_of_a_child() {
        use std::os::fd::AsFd;
        use std::process::{Command, Stdio};
        let pair = pty::open().unwrap();
        let terminal = Channel::Terminal(pty::identity(pair.slave.as_fd()).unwrap());
        let sleeper = |stdin: Stdio| {
            let mut command = Command::new("sleep");
            command.arg("60").stdin(stdin).stdout(pair.slave.try_clone().unwrap()).spawn().unwrap()
        };
        // As a child is between its birth and its program, and as a descendant is, also one that has a terminal to give.
        let mut copy = sleeper(pair.master.try_clone().unwrap().into());
        let mut descendant = sleeper(Stdio::null());
        let mut emulator = sleeper(pty::open().unwrap().master.into());
        let writers = writers(&[terminal]);
        for child in [&mut copy, &mut descendant, &mut emulator] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(writers.contains(&(descendant.id() as i32)), "{writers:?}");
        assert!(writers.contains(&(emulator.id() as i32)), "{writers:?}");
        assert!(!writers.contains(&(copy.id() as i32)), "{writers:?}");
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
