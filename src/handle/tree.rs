//! Who belongs to a process: its group, its session, its descendants, those that carry its mark, those that hold its pipes.
//! Each member is held by a name that survives the reuse of its number.

use super::sight::{Seen, Table};
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
pub(super) fn refresh(seen: &Seen, roots: &Roots<'_>, known: &mut Vec<Member>) -> bool {
    let marked = roots.mark.map_or(&[][..], |mark| seen.marked(mark));
    let found = find(&seen.table, roots, &seen.writers(roots.pipes), marked, known);
    let before = known.len();
    known.extend(found.into_iter().filter_map(|stat| Member::hold(stat.clone())));
    known.len() > before
}

/// The living processes of a table that belong to the roots, when those that can write to its pipes are known.
pub(super) fn members(stats: &[Stat], roots: &Roots<'_>, held: &HashSet<i32>) -> Vec<Stat> {
    let table = Table::new(stats.to_vec());
    let is_marked = |stat: &&Stat| {
        roots.mark.is_some_and(|mark| procfs::environment_entries(stat.pid, mark).iter().any(|found| found == mark))
    };
    let marked: Vec<i32> = stats.iter().filter(is_marked).map(|stat| stat.pid).collect();
    find(&table, roots, held, &marked, &[]).into_iter().cloned().collect()
}

/// The pure part: who in the table belongs to the roots and is not known yet, in the order of the table.
fn find<'t>(
    table: &'t Table,
    roots: &Roots<'_>,
    held: &HashSet<i32>,
    marked: &[i32],
    known: &[Member],
) -> Vec<&'t Stat> {
    let own = std::process::id() as i32;
    let mut inside: HashSet<i32> = known.iter().map(|member| member.stat.pid).chain(roots.pid).collect();
    let mut parents: Vec<i32> = inside.iter().copied().collect();
    let mut found: Vec<usize> = Vec::new();
    // A copy of this program, forked while the pipe was being made, holds it and is nobody's descendant.
    let is_copy = |place: &usize| table.stats.get(*place).is_none_or(|stat| stat.parent == own);
    let holders = held.iter().filter_map(|pid| table.place(*pid)).filter(|place| !is_copy(place));
    let mut wanted: Vec<usize> = holders.chain(marked.iter().filter_map(|pid| table.place(*pid))).collect();
    if roots.group || roots.session {
        let belongs = |stat: &Stat| {
            (roots.group && Some(stat.group) == roots.pid) || (roots.session && Some(stat.session) == roots.pid)
        };
        wanted.extend(table.stats.iter().enumerate().filter(|(_, stat)| belongs(stat)).map(|(place, _)| place));
    }
    loop {
        for place in wanted.drain(..) {
            let Some(stat) = table.stats.get(place) else { continue };
            if !is_over(stat) && !table.forbidden.contains(&stat.pid) && inside.insert(stat.pid) {
                found.push(place);
                parents.push(stat.pid);
            }
        }
        let Some(parent) = parents.pop().filter(|_| roots.descendants) else { break };
        wanted.extend(table.children(parent));
    }
    found.sort_unstable();
    found.into_iter().filter_map(|place| table.stats.get(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, group: i32, session: i32) -> Stat {
        Stat { pid, state: 'S', parent, group, session, started: pid as u64, threads: 1, worked: 0 }
    }

    fn pids(table: &[Stat], roots: &Roots<'_>) -> Vec<i32> {
        let table = Table::new(table.to_vec());
        find(&table, roots, &HashSet::new(), &[900], &[]).iter().map(|stat| stat.pid).collect()
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
