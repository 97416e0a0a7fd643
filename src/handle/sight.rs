//! All processes as they were at one moment, for all stops that look at the same time: a look costs as much as there are processes,
//! and a thousand stops would each take their own. Decides when a look is too old, and who is found in it how.

use crate::deadline::Deadline;
use crate::plan::MARK;
use crate::sys::procfs::{self, Channel, Stat};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What the stops of one driver look at. Empty until one of them looks.
#[derive(Default)]
pub(crate) struct Sight {
    seen: Option<Seen>,
    /// It is that of a thread, whose drivers know nothing of each other and have no rounds.
    is_shared: bool,
}

thread_local! {
    /// For drivers that are one of many on their thread.
    static SHARED: Cell<Option<Sight>> = const { Cell::new(None) };
}

/// So long a shared look is good for all, at least.
const SHARED_MIN: Duration = Duration::from_millis(1);

impl Sight {
    /// Does something with the sight that all drivers of this thread share. There is one look for as long as a look takes, so that
    /// a thousand tasks that stop their children do not take a thousand.
    pub(crate) fn with_shared<T>(act: impl FnOnce(&mut Sight) -> T) -> T {
        let mut sight = SHARED.try_with(Cell::take).ok().flatten().unwrap_or_default();
        sight.is_shared = true;
        let result = act(&mut sight);
        if sight.seen.as_ref().is_some_and(|seen| seen.next() > Instant::now()) {
            // A thread that is ending shares it with nobody.
            let _ = SHARED.try_with(|shared| shared.set(Some(sight)));
        }
        result
    }

    /// The next look is a new one. Drivers say so once per round, so that there is one look in each at most.
    pub(crate) fn renew(&mut self) {
        if !self.is_shared {
            self.seen = None;
        }
    }

    /// All processes as they were at this moment or later. If this round has had its look, and it was earlier: when to come again.
    pub(super) fn since(&mut self, moment: Instant) -> Result<&Seen, Deadline> {
        let is_old = |seen: &Seen| seen.moment < moment && seen.next() <= Instant::now();
        if self.is_shared && self.seen.as_ref().is_some_and(is_old) {
            self.seen = None;
        }
        let seen = self.seen.get_or_insert_with(Seen::now);
        match seen.moment >= moment {
            true => Ok(seen),
            false if self.is_shared => Err(Deadline::at(seen.next())),
            false => Err(Deadline::now()),
        }
    }

    /// The processes, other than this one, that could write to a channel at this moment or later; see [`procfs::writers`].
    pub(crate) fn writers(&mut self, channel: Channel, since: Instant) -> Vec<i32> {
        let mut writers: Vec<i32> = match self.since(since) {
            Ok(seen) => seen.writers(&[channel]).into_iter().collect(),
            Err(_) => procfs::writers(&[channel]),
        };
        writers.sort_unstable();
        writers
    }
}

/// One look.
pub(super) struct Seen {
    /// When it began.
    pub(super) moment: Instant,
    /// How long it took, until now.
    cost: Cell<Duration>,
    pub(super) table: Table,
    /// Who holds which pipe.
    pipes: OnceLock<HashMap<u64, Vec<i32>>>,
    /// Who carries which mark.
    marks: OnceLock<HashMap<Vec<u8>, Vec<i32>>>,
}

impl Seen {
    fn now() -> Seen {
        let moment = Instant::now();
        let table = Table::new(procfs::table());
        Seen { moment, cost: Cell::new(moment.elapsed()), table, pipes: OnceLock::new(), marks: OnceLock::new() }
    }

    /// When the next one may be taken, by those who share this: no more than half of the time is spent on looking.
    fn next(&self) -> Instant {
        self.moment + (self.cost.get() * 2).max(SHARED_MIN)
    }

    /// The processes, other than this one, that can write to one of these; see [`procfs::writers`].
    pub(super) fn writers(&self, channels: &[Channel]) -> HashSet<i32> {
        let is_pipe = |channel: &&Channel| matches!(channel, Channel::Pipe(_));
        let terminals: Vec<Channel> = channels.iter().filter(|channel| !is_pipe(channel)).copied().collect();
        let mut writers: HashSet<i32> = procfs::writers(&terminals).into_iter().collect();
        for channel in channels {
            let Channel::Pipe(inode) = channel else { continue };
            let holders = self.pipes.get_or_init(|| self.counted(procfs::pipes)).get(inode);
            writers.extend(holders.into_iter().flatten().filter(|pid| procfs::writes_to(**pid, &[*channel])));
        }
        writers
    }

    /// A part of the look that is taken when it is first wanted.
    fn counted<T>(&self, look: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let seen = look();
        self.cost.set(self.cost.get() + begun.elapsed());
        seen
    }

    /// The processes whose environment had this entry, that of a [`MARK`], at their start.
    pub(super) fn marked(&self, mark: &[u8]) -> &[i32] {
        self.marks.get_or_init(|| self.counted(|| marks(&self.table))).get(mark).map_or(&[], Vec::as_slice)
    }
}

fn marks(table: &Table) -> HashMap<Vec<u8>, Vec<i32>> {
    let mut marks: HashMap<Vec<u8>, Vec<i32>> = HashMap::new();
    for stat in &table.stats {
        for entry in procfs::environment_entries(stat.pid, MARK.as_bytes()) {
            marks.entry(entry).or_default().push(stat.pid);
        }
    }
    marks
}

/// The process table, in which children are found by their parents.
pub(super) struct Table {
    pub(super) stats: Vec<Stat>,
    places: HashMap<i32, usize>,
    children: HashMap<i32, Vec<usize>>,
    /// This process and those above it: a stop never reaches them, whatever they hold.
    pub(super) forbidden: HashSet<i32>,
}

impl Table {
    pub(super) fn new(stats: Vec<Stat>) -> Table {
        let places: HashMap<i32, usize> = stats.iter().enumerate().map(|(place, stat)| (stat.pid, place)).collect();
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        for (place, stat) in stats.iter().enumerate() {
            children.entry(stat.parent).or_default().push(place);
        }
        let mut forbidden = HashSet::from([0, 1]);
        let mut pid = std::process::id() as i32;
        while forbidden.insert(pid) {
            match places.get(&pid).and_then(|place| stats.get(*place)) {
                Some(stat) => pid = stat.parent,
                None => break,
            }
        }
        Table { stats, places, children, forbidden }
    }

    /// Where it stands in the table.
    pub(super) fn place(&self, pid: i32) -> Option<usize> {
        self.places.get(&pid).copied()
    }

    /// Where its children stand.
    pub(super) fn children(&self, pid: i32) -> &[usize] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn one_look_in_a_round_serves_all_who_want_none_later() {
        let mut sight = Sight::default();
        let before = Instant::now();
        let moment = sight.since(before).ok().unwrap().moment;
        assert!(moment >= before);
        assert_eq!(sight.since(before).ok().unwrap().moment, moment);
        assert_eq!(sight.since(moment).ok().unwrap().moment, moment);
        assert!(sight.since(Instant::now()).is_err());
        sight.renew();
        assert!(sight.since(Instant::now()).is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_look_finds_who_writes_to_our_pipes() {
        use std::os::fd::AsFd;
        let (reader, writer) = crate::sys::pipe::pair().unwrap();
        let pipe = Channel::Pipe(crate::sys::fd::inode(reader.as_fd()).unwrap());
        let mut child = std::process::Command::new("sleep").arg("60").stdout(writer).spawn().unwrap();
        let mut sight = Sight::default();
        let writers = sight.since(Instant::now()).unwrap().writers(&[pipe]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(writers, HashSet::from([child.id() as i32]));
    }
}
