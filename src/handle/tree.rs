//! Who belongs to a process: its group, its session, its descendants, those that carry its mark, those that hold its pipes.
//! Each member is held by a name that survives the reuse of its number.

use crate::sys::procfs::{self, Channel, Stat};
use crate::sys::{pidfd, poll};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Roots<'a> {
    /// The process, unless it was reaped: then its number may be a stranger's.
    pub(super) pid: Option<i32>,
    /// Whether it leads a group, or a session.
    pub(super) group: bool,
    pub(super) session: bool,
    /// Whether the descendants of the process, and of those that are known already, count.
    pub(super) descendants: bool,
    pub(super) mark: Option<&'a [u8]>,
    pub(super) pipes: &'a [Channel],
}

/// A process that belongs to another, held so that no signal reaches a stranger.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) stat: Stat,
    pidfd: Option<OwnedFd>,
}

impl Member {
    /// Takes hold of a process seen in the table; `None` if it is gone or no longer the one that was seen.
    fn hold(stat: Stat) -> Option<Member> {
        let pidfd = pidfd::open(stat.pid).ok();
        let again = procfs::stat(stat.pid)?;
        (again.started == stat.started).then_some(Member { stat: again, pidfd })
    }

    pub(super) fn is_alive(&self) -> bool {
        match &self.pidfd {
            Some(fd) => !poll::wait_readable(fd.as_fd(), Some(Instant::now())).unwrap_or(true),
            None => procfs::stat(self.stat.pid).is_some_and(|now| now.started == self.stat.started && !is_over(&now)),
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|fd| fd.as_fd())
    }

    /// Sends a signal. That it has gone meanwhile, or may not be signalled, shows in who survives.
    pub(super) fn signal(&self, signal: i32) {
        let _ = match &self.pidfd {
            Some(fd) => pidfd::send_signal(fd.as_fd(), signal),
            None if self.is_alive() => super::kill(self.stat.pid, signal),
            None => Ok(()),
        };
    }
}

fn is_over(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X')
}

/// Adds to `known` the living processes that belong to the roots, without the root itself. True if there were new ones.
pub(super) fn refresh(roots: &Roots<'_>, known: &mut Vec<Member>) -> bool {
    let table = procfs::table();
    let held: HashSet<i32> = procfs::writers(roots.pipes).into_iter().collect();
    let found = find(&table, roots, &held, known, |stat| is_marked(stat, roots));
    let before = known.len();
    known.extend(found.into_iter().filter_map(|stat| Member::hold(stat.clone())));
    known.len() > before
}

/// The living processes of a table that belong to the roots, when those that can write to its pipes are known.
pub(super) fn members<'t>(table: &'t [Stat], roots: &Roots<'_>, held: &HashSet<i32>) -> Vec<&'t Stat> {
    find(table, roots, held, &[], |stat| is_marked(stat, roots))
}

fn is_marked(stat: &Stat, roots: &Roots<'_>) -> bool {
    roots.mark.is_some_and(|mark| procfs::has_environment(stat.pid, mark))
}

/// The pure part: who in the table belongs to the roots and is not known yet.
fn find<'t>(
    table: &'t [Stat],
    roots: &Roots<'_>,
    held: &HashSet<i32>,
    known: &[Member],
    marked: impl Fn(&Stat) -> bool,
) -> Vec<&'t Stat> {
    let own = std::process::id() as i32;
    let mut inside: HashSet<i32> = known.iter().map(|member| member.stat.pid).chain(roots.pid).collect();
    let forbidden = ancestors(table);
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for stat in table {
            let belongs = || {
                (roots.group && Some(stat.group) == roots.pid)
                    || (roots.session && Some(stat.session) == roots.pid)
                    || (roots.descendants && inside.contains(&stat.parent))
                    // A copy of this program, forked while the pipe was being made, holds it and is nobody's descendant.
                    || (held.contains(&stat.pid) && stat.parent != own)
                    || marked(stat)
            };
            if !is_over(stat) && !inside.contains(&stat.pid) && !forbidden.contains(&stat.pid) && belongs() {
                inside.insert(stat.pid);
                found.push(stat);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// This process and those above it: a stop never reaches them, whatever they hold.
fn ancestors(table: &[Stat]) -> HashSet<i32> {
    let mut above = HashSet::from([0, 1]);
    let mut pid = std::process::id() as i32;
    while above.insert(pid) {
        match table.iter().find(|stat| stat.pid == pid) {
            Some(stat) => pid = stat.parent,
            None => break,
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, group: i32, session: i32) -> Stat {
        Stat { pid, state: 'S', parent, group, session, started: pid as u64, threads: 1, worked: 0 }
    }

    fn pids(table: &[Stat], roots: &Roots<'_>) -> Vec<i32> {
        let mut pids: Vec<i32> =
            find(table, roots, &HashSet::new(), &[], |stat| stat.pid == 900).iter().map(|s| s.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn each_root_finds_its_own() {
        let own = std::process::id() as i32;
        let table = [
            stat(own, 1, own, own),
            stat(100, own, 100, 100),
            stat(101, 100, 100, 100),
            stat(102, 101, 102, 100),
            stat(103, 1, 100, 100),
            stat(104, 1, 104, 104),
            stat(900, 1, 900, 900),
            Stat { state: 'Z', ..stat(105, 100, 100, 100) },
        ];
        let group = Roots { pid: Some(100), group: true, ..Roots::default() };
        assert_eq!(pids(&table, &group), [101, 103, 900]);
        let tree = Roots { pid: Some(100), descendants: true, ..Roots::default() };
        assert_eq!(pids(&table, &tree), [101, 102, 900]);
        let session = Roots { pid: Some(100), session: true, ..Roots::default() };
        assert_eq!(pids(&table, &session), [101, 102, 103, 900]);
    }

    #[test]
    fn a_stop_never_reaches_us_or_those_above() {
        let own = std::process::id() as i32;
        let table = [stat(own, 50, 100, 100), stat(50, 1, 100, 100), stat(1, 0, 100, 100), stat(101, 100, 100, 100)];
        let roots = Roots { pid: Some(100), group: true, session: true, descendants: true, ..Roots::default() };
        assert_eq!(pids(&table, &roots), [101]);
    }
}
