//! The waiting line of a pool: who waits for whom, which rank each task has, and which one is next.
//!
//! It decides when a task may start, when it never can, and what its rank is under a [`Policy`]. The order among those that may
//! start is kept in [`turns`](super::turns); whether one fits, when it is run and whether it is run again is the pool's to say.
//! Pure: no clock, no locks, no system calls.

use super::done::TaskId;
use super::turns::{Rank, Standing, Turns};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// In which order the tasks of a pool start, among those that wait for nothing.
///
/// One that does not fit (because a resource is in use) lets those behind it go ahead, but not for ever: when 64
/// have passed it, those behind it wait until it fits. A task that is run again goes before others of the same rank.
///
/// ```
/// use procession::pool::Policy;
///
/// assert_eq!(Policy::default(), Policy::FirstCome);
/// ```
#[doc(alias = "scheduling")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In the order of submission.
    #[default]
    #[doc(alias = "fifo")]
    FirstCome,
    /// The largest [`priority`](crate::pool::Task::priority) first. What such a task waits for has its priority,
    /// too, so that it does not wait behind lesser ones.
    Priority,
    /// The longest [`estimate`](crate::pool::Task::estimate) first, so that no long one is left for the end. A task without one
    /// counts as the mean of those known.
    #[doc(alias = "lpt")]
    LongestFirst,
    /// The one with the most work behind it first: its [`estimate`](crate::pool::Task::estimate) and those of the longest chain
    /// of tasks that wait for it. A task without one counts as the mean of those known when it was submitted, or as a second.
    CriticalPath,
}

/// What the line must know about a task.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) id: TaskId,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) priority: i32,
    pub(crate) estimate: Option<Duration>,
    /// What it waits for, and whether that must succeed. An id that the line does not know has succeeded.
    pub(crate) after: Vec<(TaskId, bool)>,
}

/// Tasks that wait, and those that others may wait for.
#[derive(Debug)]
pub(crate) struct Line {
    policy: Policy,
    fair: bool,
    /// Those that wait, and those that have left but are not over.
    tasks: ByTask<Waiting>,
    /// Those that failed or never could run, each with the one whose failure it was, until that is forgotten. All that is remembered of
    /// what is over.
    failed: ByTask<TaskId>,
    turns: Turns,
    /// Those whose followers have changed since their rank was looked at: looked at last to first, each one once.
    stale: BTreeSet<(u64, TaskId)>,
    estimates: Estimates,
    waiting: usize,
    arrivals: u64,
}

type ByTask<Value> = HashMap<TaskId, Value, BuildHasherDefault<NumberHasher>>;

/// One task.
#[derive(Debug)]
struct Waiting {
    state: State,
    group: Option<Arc<str>>,
    /// Its number in the order of submission.
    arrival: u64,
    /// A number larger than those of all it waits for.
    order: u64,
    /// By its own wish.
    own: Option<Rank>,
    /// With what its followers add to it.
    rank: Option<Rank>,
    /// What was not over when it came. Those that are by now are unknown to the line.
    after: Vec<TaskId>,
    /// The waiting ones that come after it, largest rank first.
    followers: BTreeMap<(Reverse<Option<Rank>>, TaskId), Link>,
    /// It is a service that can be used.
    is_ready: bool,
}

/// What one that waits for another one waits for: its success, or its readiness if it is a service; its end; or both.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    succeeds: bool,
    ends: bool,
}

/// Where a task is on its way through the line.
#[derive(Debug)]
enum State {
    /// Waits for so many others.
    Blocked(usize),
    /// Is in `turns`, for the first time or again.
    Startable { is_back: bool },
    /// Runs, or goes back.
    Taken,
    /// Left without being taken.
    Gone,
}

/// What a task counts as on a critical path if nothing is known at all: chains are compared by their length then.
const ESTIMATE: Duration = Duration::from_secs(1);

impl Line {
    /// An empty one. If it is `fair`, groups take turns and the policy decides within each; tasks without a group are one.
    pub(crate) fn new(policy: Policy, fair: bool) -> Line {
        Line {
            policy,
            fair,
            tasks: HashMap::default(),
            failed: HashMap::default(),
            turns: Turns::default(),
            stale: BTreeSet::new(),
            estimates: Estimates::default(),
            waiting: 0,
            arrivals: 0,
        }
    }

    /// Adds tasks that may wait for each other, in any order, and for earlier ones.
    ///
    /// Returns those that can never run because what they wait for has failed, each with the one whose failure it was. They are
    /// not in the line and count as failed. An id that is known already is left out.
    ///
    /// # Errors
    /// The tasks of a cycle: each waits for the next, and the last for the first. Nothing is added then.
    pub(crate) fn add(&mut self, wishes: Vec<Wish>) -> Result<Vec<(TaskId, TaskId)>, Vec<TaskId>> {
        let order = in_order_of_need(&wishes)?;
        wishes.iter().filter_map(|wish| wish.estimate).for_each(|estimate| self.estimates.learn(estimate));
        self.tasks.reserve(wishes.len());
        let (mut lost, mut free) = (Vec::new(), Vec::new());
        for place in 0..wishes.len() {
            let index = order.get(place).copied().unwrap_or(place);
            let Some(wish) = wishes.get(index) else { continue };
            let numbers = (self.arrivals + index as u64, self.arrivals + place as u64);
            match self.culprit(wish) {
                Some(culprit) => {
                    self.failed.insert(wish.id, culprit);
                    lost.push((wish.id, culprit));
                }
                None => free.extend(self.enter(wish, numbers)),
            }
        }
        self.arrivals += wishes.len() as u64;
        self.start_turns(free);
        Ok(lost)
    }

    /// The first in the order of the policy that may start and for which `fits` is true. It leaves the line: it runs now.
    ///
    /// Those that do not fit and stand before it were passed over once more. One that was passed over too often
    /// ([`PASSED_MAX`](super::turns::PASSED_MAX)) holds up everything behind it until it fits.
    pub(crate) fn take(&mut self, fits: &mut dyn FnMut(TaskId) -> bool) -> Option<TaskId> {
        if !self.has_startable() {
            return None;
        }
        self.settle();
        let id = self.turns.take(self.estimates.mean().unwrap_or_default(), fits)?;
        self.waiting -= 1;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.state = State::Taken;
        }
        Some(id)
    }

    /// A task that was taken and is not over goes back, to be run again or because there was no room: before others of its rank.
    pub(crate) fn put_back(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if matches!(task.state, State::Taken) {
            task.state = State::Startable { is_back: true };
            task.is_ready = false;
            self.turns.insert(&task.group, task.standing(), id);
            self.waiting += 1;
        }
    }

    /// It leaves the line for good without having been taken: it was cancelled. False if it does not wait. What comes after it
    /// goes on waiting until it is [resolved](Self::resolve).
    pub(crate) fn remove(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        match task.state {
            State::Blocked(_) => {}
            State::Startable { .. } => self.turns.remove(&task.group, task.standing()),
            State::Taken | State::Gone => return false,
        }
        task.state = State::Gone;
        self.waiting -= 1;
        let key = task.key(id);
        for earlier in mem::take(&mut task.after) {
            if let Some(earlier_task) = self.tasks.get_mut(&earlier) {
                earlier_task.followers.remove(&key);
                mark_stale(&mut self.stale, self.policy, earlier, earlier_task);
            }
        }
        true
    }

    /// A service that was taken can be used: those that wait for that, and for nothing else, may start now. Those that wait for its end go
    /// on waiting.
    pub(crate) fn ready(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| matches!(task.state, State::Taken)) else { return };
        task.is_ready = true;
        let mut served = Vec::new();
        task.followers.retain(|(_, follower), link| {
            if link.succeeds && !link.ends {
                served.push(*follower);
            }
            link.succeeds = false;
            link.ends
        });
        mark_stale(&mut self.stale, self.policy, id, task);
        let mut free = Vec::new();
        served.into_iter().for_each(|follower| self.loosen(follower, &mut free));
        self.start_turns(free);
    }

    /// Those that cannot start before one of these services has ended.
    pub(crate) fn waiting_for_ends(&self, services: impl Iterator<Item = TaskId>) -> HashSet<TaskId> {
        let mut waiting = HashSet::new();
        let mut next: Vec<TaskId> = Vec::new();
        for task in services.filter_map(|id| self.tasks.get(&id)) {
            next.extend(task.followers.iter().filter(|(_, link)| link.ends).map(|((_, follower), _)| *follower));
        }
        while let Some(id) = next.pop() {
            if waiting.insert(id) {
                let task = self.tasks.get(&id);
                next.extend(task.into_iter().flat_map(|task| task.followers.keys().map(|(_, follower)| *follower)));
            }
        }
        waiting
    }

    /// A task is over. Those that wait for nothing else may start now.
    ///
    /// Returns those that can never run now, nearest first, each with the one whose failure it was. They have left the line, count
    /// as failed, and need not be resolved. A failure is remembered, also that of a task that is not known here.
    pub(crate) fn resolve(&mut self, id: TaskId, success: bool) -> Vec<(TaskId, TaskId)> {
        self.remove(id);
        let (mut lost, mut free) = (Vec::new(), Vec::new());
        self.end(id, success, id, &mut lost, &mut free);
        let mut next = 0;
        while let Some((follower, _)) = lost.get(next).copied() {
            self.end(follower, false, id, &mut lost, &mut free);
            next += 1;
        }
        self.start_turns(free);
        lost
    }

    /// Everything that waits leaves the line, in the order of submission, and counts as failed.
    pub(crate) fn drain(&mut self) -> Vec<TaskId> {
        let waiting = self.tasks.iter().filter(|(_, task)| task.waits());
        let mut left: Vec<(u64, TaskId)> = waiting.map(|(id, task)| (task.arrival, *id)).collect();
        left.sort_unstable();
        for (_, id) in &left {
            self.remove(*id);
        }
        for (_, id) in &left {
            self.forget(*id);
            self.failed.insert(*id, *id);
        }
        left.into_iter().map(|(_, id)| id).collect()
    }

    /// Nobody will ask for this one any more.
    pub(crate) fn forget_failure(&mut self, id: TaskId) {
        self.failed.remove(&id);
    }

    /// How many wait, startable or not.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether any could be taken if it fitted.
    pub(crate) fn has_startable(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whose failure keeps it from running, if any.
    fn culprit(&self, wish: &Wish) -> Option<TaskId> {
        wish.after.iter().filter(|(_, succeeds)| *succeeds).find_map(|(id, _)| self.failed.get(id).copied())
    }

    /// Gets in line behind what it waits for. Says so if it waits for nothing.
    fn enter(&mut self, wish: &Wish, (arrival, order): (u64, u64)) -> Option<(u64, TaskId)> {
        if self.tasks.contains_key(&wish.id) {
            return None;
        }
        let own = self.rank_of(wish);
        let mut after = Vec::new();
        for (earlier, succeeds) in &wish.after {
            let Some(earlier_task) = self.tasks.get_mut(earlier) else { continue };
            if *succeeds && earlier_task.is_ready {
                continue;
            }
            let link = earlier_task.followers.entry((Reverse(own), wish.id));
            // Named twice it is waited for once, and must succeed if it must by either.
            let link = link.or_insert_with(|| {
                after.push(*earlier);
                Link::default()
            });
            link.succeeds |= *succeeds;
            link.ends |= !*succeeds;
            mark_stale(&mut self.stale, self.policy, *earlier, earlier_task);
        }
        let free = after.is_empty().then_some((arrival, wish.id));
        let state = State::Blocked(after.len());
        let group = if self.fair { wish.group.clone() } else { None };
        let followers = BTreeMap::new();
        let task = Waiting { state, group, arrival, order, own, rank: own, after, followers, is_ready: false };
        self.tasks.insert(wish.id, task);
        self.waiting += 1;
        free
    }

    /// The rank by its own wish.
    fn rank_of(&self, wish: &Wish) -> Option<Rank> {
        match self.policy {
            Policy::FirstCome => Some(0),
            Policy::Priority => Some(wish.priority.into()),
            Policy::LongestFirst => wish.estimate.map(nanoseconds),
            Policy::CriticalPath => {
                Some(wish.estimate.map(nanoseconds).or(self.estimates.mean()).unwrap_or(nanoseconds(ESTIMATE)))
            }
        }
    }

    /// These wait for nothing any more. They take their turns in the order of submission, whoever was freed first.
    fn start_turns(&mut self, mut free: Vec<(u64, TaskId)>) {
        free.sort_unstable();
        for (_, id) in free {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.state = State::Startable { is_back: false };
            task.after = Vec::new();
            self.turns.insert(&task.group, task.standing(), id);
        }
    }

    fn forget(&mut self, id: TaskId) -> Option<Waiting> {
        let task = self.tasks.remove(&id)?;
        self.stale.remove(&(task.order, id));
        Some(task)
    }

    /// Forgets a task that waits no more, and tells its followers: some are free, some leave the line because it has failed.
    fn end(
        &mut self,
        id: TaskId,
        success: bool,
        culprit: TaskId,
        lost: &mut Vec<(TaskId, TaskId)>,
        free: &mut Vec<(u64, TaskId)>,
    ) {
        if !success {
            self.failed.entry(id).or_insert(culprit);
        }
        let Some(task) = self.forget(id) else { return };
        for ((_, follower), link) in task.followers {
            if link.succeeds && !success {
                self.remove(follower);
                lost.push((follower, culprit));
            } else {
                self.loosen(follower, free);
            }
        }
    }

    /// It waits for one less.
    fn loosen(&mut self, id: TaskId, free: &mut Vec<(u64, TaskId)>) {
        if let Some(task) = self.tasks.get_mut(&id)
            && let State::Blocked(open) = &mut task.state
        {
            *open -= 1;
            if *open == 0 {
                free.push((task.arrival, id));
            }
        }
    }

    /// Brings the ranks up to date. One that changes changes those of what it waits for, which have smaller numbers.
    fn settle(&mut self) {
        while let Some((_, id)) = self.stale.pop_last() {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let rank = task.rank_under(self.policy);
            if rank == task.rank {
                continue;
            }
            let (standing, key) = (task.standing(), task.key(id));
            task.rank = rank;
            if let State::Startable { .. } = task.state {
                self.turns.move_to(&task.group, standing, task.standing());
            }
            let key_now = task.key(id);
            let after = mem::take(&mut task.after);
            for earlier in &after {
                let Some(earlier_task) = self.tasks.get_mut(earlier) else { continue };
                if let Some(link) = earlier_task.followers.remove(&key) {
                    earlier_task.followers.insert(key_now, link);
                    mark_stale(&mut self.stale, self.policy, *earlier, earlier_task);
                }
            }
            if let Some(task) = self.tasks.get_mut(&id) {
                task.after = after;
            }
        }
    }
}

impl Waiting {
    fn waits(&self) -> bool {
        matches!(self.state, State::Blocked(_) | State::Startable { .. })
    }

    fn standing(&self) -> Standing {
        let is_back = matches!(self.state, State::Startable { is_back: true });
        Standing { rank: self.rank, is_back, arrival: self.arrival }
    }

    /// Its key among the followers of what it waits for.
    fn key(&self, id: TaskId) -> (Reverse<Option<Rank>>, TaskId) {
        (Reverse(self.rank), id)
    }

    fn rank_under(&self, policy: Policy) -> Option<Rank> {
        let behind = self.followers.first_key_value().and_then(|((rank, _), _)| rank.0);
        match policy {
            Policy::FirstCome | Policy::LongestFirst => self.own,
            Policy::Priority => self.own.max(behind),
            Policy::CriticalPath => self.own.map(|own| own.saturating_add(behind.unwrap_or_default())),
        }
    }
}

/// Its followers have changed, and with them perhaps its rank.
fn mark_stale(stale: &mut BTreeSet<(u64, TaskId)>, policy: Policy, id: TaskId, task: &Waiting) {
    if matches!(policy, Policy::Priority | Policy::CriticalPath) {
        stale.insert((task.order, id));
    }
}

/// For numbers that grow by one: tasks that came together lie together in memory, which makes the line twice as fast.
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The map tells neighbours apart by the seven bits at the top.
        const TOP: u64 = 0x7f << 57;
        self.0 = number & !TOP | number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & TOP;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All estimates that the line was ever told.
#[derive(Debug, Default)]
struct Estimates {
    sum: i128,
    count: i128,
}

impl Estimates {
    fn learn(&mut self, estimate: Duration) {
        self.sum += i128::from(nanoseconds(estimate));
        self.count += 1;
    }

    fn mean(&self) -> Option<Rank> {
        self.sum.checked_div(self.count).and_then(|mean| mean.try_into().ok())
    }
}

/// Beyond three hundred years all are the same.
fn nanoseconds(duration: Duration) -> Rank {
    duration.as_nanos().try_into().unwrap_or(Rank::MAX)
}

/// The places of wishes, none before what it waits for; empty if the order in which they came will do. The error is a cycle.
fn in_order_of_need(wishes: &[Wish]) -> Result<Vec<usize>, Vec<TaskId>> {
    if wishes.iter().all(|wish| wish.after.is_empty()) {
        return Ok(Vec::new());
    }
    let places: HashMap<TaskId, usize> = wishes.iter().enumerate().map(|(place, wish)| (wish.id, place)).collect();
    let needs = wishes.iter().enumerate().flat_map(|(place, wish)| wish.after.iter().map(move |(id, _)| (id, place)));
    // An earlier place, and a later one that waits for it.
    let mut pairs: Vec<_> = needs.filter_map(|(id, later)| Some((*places.get(id)?, later))).collect();
    if pairs.iter().all(|(earlier, later)| earlier < later) {
        return Ok(Vec::new());
    }
    pairs.sort_unstable();
    let mut open = vec![0_usize; wishes.len()];
    pairs.iter().for_each(|(_, later)| open[*later] += 1);
    let mut order: Vec<usize> = (0..wishes.len()).filter(|place| open[*place] == 0).collect();
    let mut next = 0;
    while let Some(earlier) = order.get(next).copied() {
        next += 1;
        let first = pairs.partition_point(|pair| pair.0 < earlier);
        for (_, later) in pairs[first..].iter().take_while(|pair| pair.0 == earlier) {
            open[*later] -= 1;
            if open[*later] == 0 {
                order.push(*later);
            }
        }
    }
    if order.len() == wishes.len() {
        return Ok(order);
    }
    pairs.retain(|(earlier, later)| open[*earlier] > 0 && open[*later] > 0);
    Err(cycle(&pairs).into_iter().map(|place| wishes[place].id).collect())
}

/// A cycle among pairs in which whoever is later in one is earlier or later in none but such: each waits for the next one.
fn cycle(pairs: &[(usize, usize)]) -> Vec<usize> {
    let waits_for: HashMap<usize, usize> = pairs.iter().map(|(earlier, later)| (*later, *earlier)).collect();
    let mut path = Vec::new();
    let mut seen = HashMap::new();
    let mut here = pairs.first().map(|(_, later)| *later);
    while let Some(place) = here
        && !seen.contains_key(&place)
    {
        seen.insert(place, path.len());
        path.push(place);
        here = waits_for.get(&place).copied();
    }
    let start = here.and_then(|place| seen.get(&place).copied()).unwrap_or_default();
    let mut cycle = path.split_off(start);
    let first = cycle.iter().enumerate().min_by_key(|(_, place)| **place).map_or(0, |(index, _)| index);
    cycle.rotate_left(first);
    cycle
}

#[cfg(test)]
mod tests {
    use super::super::turns::PASSED_MAX;
    use super::*;

    const POLICIES: [Policy; 4] = [Policy::FirstCome, Policy::Priority, Policy::LongestFirst, Policy::CriticalPath];

    fn wish(id: u64) -> Wish {
        Wish { id: TaskId(id), group: None, priority: 0, estimate: None, after: Vec::new() }
    }

    impl Wish {
        fn after(mut self, ids: impl IntoIterator<Item = u64>) -> Wish {
            self.after.extend(ids.into_iter().map(|id| (TaskId(id), true)));
            self
        }

        fn after_end(mut self, ids: impl IntoIterator<Item = u64>) -> Wish {
            self.after.extend(ids.into_iter().map(|id| (TaskId(id), false)));
            self
        }

        fn priority(self, priority: i32) -> Wish {
            Wish { priority, ..self }
        }

        fn seconds(self, seconds: u64) -> Wish {
            Wish { estimate: Some(Duration::from_secs(seconds)), ..self }
        }

        fn group(self, group: &str) -> Wish {
            Wish { group: Some(group.into()), ..self }
        }
    }

    fn line(policy: Policy, wishes: impl IntoIterator<Item = Wish>) -> Line {
        filled(Line::new(policy, false), wishes)
    }

    fn fair(policy: Policy, wishes: impl IntoIterator<Item = Wish>) -> Line {
        filled(Line::new(policy, true), wishes)
    }

    fn filled(mut line: Line, wishes: impl IntoIterator<Item = Wish>) -> Line {
        assert_eq!(add(&mut line, wishes), []);
        line
    }

    fn add(line: &mut Line, wishes: impl IntoIterator<Item = Wish>) -> Vec<(u64, u64)> {
        numbers(line.add(wishes.into_iter().collect()).unwrap())
    }

    fn numbers(pairs: Vec<(TaskId, TaskId)>) -> Vec<(u64, u64)> {
        pairs.into_iter().map(|(task, culprit)| (task.0, culprit.0)).collect()
    }

    fn resolve(line: &mut Line, id: u64, success: bool) -> Vec<(u64, u64)> {
        numbers(line.resolve(TaskId(id), success))
    }

    fn take(line: &mut Line) -> Option<u64> {
        line.take(&mut |_| true).map(|id| id.0)
    }

    /// Takes what may start until nothing may. Nothing is resolved.
    fn take_all(line: &mut Line) -> Vec<u64> {
        std::iter::from_fn(|| take(line)).collect()
    }

    /// Takes and resolves one after the other.
    fn run_all(line: &mut Line) -> Vec<u64> {
        let one = |line: &mut Line| take(line).inspect(|id| assert_eq!(resolve(line, *id, true), []));
        std::iter::from_fn(|| one(line)).collect()
    }

    #[test]
    fn the_policy_orders_what_waits_for_nothing() {
        // Numbers from 1: priority and estimate in seconds, 0 for none.
        let wishes = [(0, 0), (5, 10), (-3, 30), (5, 20), (i32::MAX, 0), (i32::MIN, 20)];
        for (policy, expected) in [
            (Policy::FirstCome, [1, 2, 3, 4, 5, 6]),
            (Policy::Priority, [5, 2, 4, 1, 3, 6]),
            // The mean is 20: those without an estimate are among those who say so.
            (Policy::LongestFirst, [3, 1, 4, 5, 6, 2]),
            (Policy::CriticalPath, [3, 1, 4, 5, 6, 2]),
        ] {
            let wishes = wishes.iter().zip(1..).map(|((priority, seconds), id)| {
                let wish = wish(id).priority(*priority);
                if *seconds == 0 { wish } else { wish.seconds(*seconds) }
            });
            assert_eq!(take_all(&mut line(policy, wishes)), expected, "{policy:?}");
        }
    }

    #[test]
    fn submission_counts_and_not_the_number() {
        for policy in POLICIES {
            assert_eq!(take_all(&mut line(policy, [9, 3, 7, 1].map(wish))), [9, 3, 7, 1], "{policy:?}");
        }
    }

    #[test]
    fn the_mean_moves_with_what_is_known() {
        let mut line = line(Policy::LongestFirst, [wish(1), wish(2).seconds(10), wish(3).seconds(2)]);
        assert_eq!(add(&mut line, [wish(4).seconds(30)]), []);
        // 14 now: more than 10.
        assert_eq!(take_all(&mut line), [4, 1, 2, 3]);
        // What has left is still known: nine and a half by then.
        assert_eq!(add(&mut line, [wish(5), wish(6).seconds(10), wish(7).seconds(4), wish(8).seconds(1)]), []);
        assert_eq!(take_all(&mut line), [6, 5, 7, 8]);
    }

    #[test]
    fn huge_estimates_do_not_overflow() {
        for policy in POLICIES {
            let huge = |id| Wish { estimate: Some(Duration::MAX), ..wish(id) };
            let mut line = line(policy, [huge(1), huge(2).after([1]), huge(3).after([2]), wish(4), huge(5)]);
            assert_eq!(take_all(&mut line), [1, 4, 5], "{policy:?}");
        }
    }

    #[test]
    fn what_goes_back_goes_before_its_equals() {
        for (policy, expected) in [
            (Policy::FirstCome, [2, 3, 4, 1]),
            (Policy::Priority, [1, 2, 3, 4]),
            (Policy::LongestFirst, [1, 2, 3, 4]),
            (Policy::CriticalPath, [1, 2, 3, 4]),
        ] {
            let small = [2, 3, 4].map(|id| wish(id).priority(1).seconds(1));
            let mut line = line(policy, small);
            assert_eq!([take(&mut line), take(&mut line)], [Some(2), Some(3)]);
            assert_eq!(add(&mut line, [wish(1).priority(2).seconds(2)]), []);
            assert_eq!(line.len(), 2);
            line.put_back(TaskId(3));
            line.put_back(TaskId(2));
            assert_eq!(line.len(), 4);
            assert_eq!(take_all(&mut line), expected, "{policy:?}");
        }
    }

    #[test]
    fn only_what_was_taken_goes_back() {
        let mut line = line(Policy::FirstCome, [wish(1), wish(2), wish(3), wish(4).after([1])]);
        assert_eq!(take(&mut line), Some(1));
        assert!(line.remove(TaskId(2)));
        resolve(&mut line, 1, true);
        for id in [1, 2, 3, 4, 5] {
            line.put_back(TaskId(id));
        }
        assert_eq!((take_all(&mut line), line.len()), (vec![3, 4], 0));
    }

    #[test]
    fn priority_is_lent_to_what_it_waits_for() {
        let mut line = line(
            Policy::Priority,
            [
                wish(1).priority(3),
                wish(2).priority(1),
                wish(3).priority(0).after([2]),
                wish(4).priority(2),
                wish(5).priority(9).after([3]),
            ],
        );
        assert_eq!(run_all(&mut line), [2, 3, 5, 1, 4]);
    }

    #[test]
    fn a_loan_ends_with_its_reason() {
        let wishes = [wish(1), wish(2).priority(1), wish(3).after([1]), wish(4).priority(5).after([3])];
        let mut one = line(Policy::Priority, wishes.clone());
        assert!(one.remove(TaskId(4)));
        assert_eq!(take_all(&mut one), [2, 1]);
        // The loan was made already, and what goes back has it, too.
        let mut other = line(Policy::Priority, wishes);
        assert_eq!(take(&mut other), Some(1));
        other.put_back(TaskId(1));
        assert_eq!(take(&mut other), Some(1));
        assert!(other.remove(TaskId(3)));
        other.put_back(TaskId(1));
        assert_eq!(take_all(&mut other), [2, 1]);
        // The failure of another one ends it as well.
        let mut third = line(
            Policy::Priority,
            [wish(1), wish(2).priority(1), wish(3).priority(7), wish(4).priority(5).after([1, 3])],
        );
        assert_eq!(take(&mut third), Some(3));
        assert_eq!(resolve(&mut third, 3, false), [(4, 3)]);
        assert_eq!(take_all(&mut third), [2, 1]);
    }

    #[test]
    fn the_longest_chain_behind_it_counts() {
        let wishes = [
            wish(1).seconds(5),
            wish(2).seconds(1),
            wish(3).seconds(3).after([2]),
            wish(4).seconds(3).after([3]),
            wish(5).seconds(4),
            wish(6).seconds(1).after([5]),
            wish(7).seconds(1).after([5]),
            wish(8).seconds(1).after([5]),
        ];
        // 2: 1 + 3 + 3. 1 and 5 have 5 each, however many come after 5.
        assert_eq!(take_all(&mut line(Policy::CriticalPath, wishes.clone())), [2, 1, 5]);
        let mut later = line(Policy::CriticalPath, wishes);
        assert_eq!(add(&mut later, [wish(9).seconds(2).after([8])]), []);
        assert_eq!(take_all(&mut later), [2, 5, 1]);
    }

    #[test]
    fn chains_without_estimates_are_compared_by_length() {
        let mut line = line(Policy::CriticalPath, [wish(1), wish(2), wish(3).after([2]), wish(4), wish(5).after([3])]);
        assert_eq!(run_all(&mut line), [2, 3, 1, 4, 5]);
    }

    #[test]
    fn groups_take_turns() {
        let wishes = || {
            let one = [1, 2, 3, 4].map(|id| wish(id).group("a").priority(id as i32));
            let other = [5, 6].map(|id| wish(id).group("b"));
            one.into_iter().chain(other).chain([7, 8, 9].map(wish))
        };
        assert_eq!(take_all(&mut fair(Policy::FirstCome, wishes())), [1, 5, 7, 2, 6, 8, 3, 9, 4]);
        assert_eq!(take_all(&mut fair(Policy::Priority, wishes())), [4, 5, 7, 3, 6, 8, 2, 9, 1]);
        assert_eq!(take_all(&mut line(Policy::FirstCome, wishes())), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_group_comes_and_goes() {
        let mut line = fair(Policy::FirstCome, [1, 2, 3].map(|id| wish(id).group("a")));
        assert_eq!(take(&mut line), Some(1));
        let chain = [wish(4).group("b"), wish(5).group("b").after([4]), wish(6).group("c")];
        assert_eq!(add(&mut line, chain), []);
        assert_eq!([take(&mut line), take(&mut line)], [Some(2), Some(4)]);
        // The next of b may not start yet.
        assert_eq!([take(&mut line), take(&mut line)], [Some(6), Some(3)]);
        assert_eq!((take(&mut line), line.has_startable(), line.len()), (None, false, 1));
        resolve(&mut line, 4, true);
        assert!(line.turns.is_empty() != line.has_startable());
        assert_eq!(take_all(&mut line), [5]);
    }

    #[test]
    fn groups_freed_at_the_same_moment_take_turns_in_order_of_submission() {
        let wishes = [
            wish(9).priority(1).group("a").after([1]),
            wish(8).priority(5).group("b").after([1]),
            wish(7).priority(3).group("c").after([1]),
            wish(1),
        ];
        let mut line = fair(Policy::Priority, wishes);
        assert_eq!(run_all(&mut line), [1, 9, 8, 7]);
    }

    #[test]
    fn what_does_not_fit_is_passed_over_but_not_for_ever() {
        for is_fair in [false, true] {
            let many = || (1..=200).map(|id| wish(id).group(if id % 2 == 0 { "even" } else { "odd" }));
            let mut line = filled(Line::new(Policy::FirstCome, is_fair), many());
            let mut without = |big: u64| {
                let mut looked = Vec::new();
                let taken = line.take(&mut |id| {
                    looked.push(id.0);
                    id.0 != big
                });
                (taken.map(|id| id.0), looked)
            };
            for round in 0..u64::from(PASSED_MAX) {
                let (taken, looked) = without(1);
                // By turns only those of its own group that come after it, and the other group when its turn is later.
                assert_eq!(looked.last().copied(), taken, "{is_fair} {round}");
                assert!(taken.is_some());
            }
            let blocked = (0..PASSED_MAX + 2).map(|_| without(1)).find(|(taken, _)| taken.is_none());
            assert_eq!(blocked, Some((None, vec![1])), "{is_fair}");
            assert_eq!(without(1), (None, vec![1]), "{is_fair}: and so it stays");
            assert_eq!(without(0).0, Some(1));
            assert!(without(0).0.is_some());
        }
    }

    #[test]
    fn exactly_so_many_pass() {
        let mut line = line(Policy::FirstCome, (0..=100).map(wish));
        let mut passed = 0;
        while line.take(&mut |id| id.0 != 0).is_some() {
            passed += 1;
        }
        assert_eq!(passed, PASSED_MAX);
        assert_eq!((line.len(), line.has_startable()), (37, true));
        // Whoever looks and takes nothing passes nobody over.
        assert_eq!(take(&mut line), Some(0));
        for _ in 0..1000 {
            assert_eq!(line.take(&mut |_| false), None);
        }
        assert_eq!(line.take(&mut |id| id.0 == 100), Some(TaskId(100)));
    }

    #[test]
    fn one_that_holds_up_those_behind_it_does_not_hold_up_those_before() {
        let mut line = line(Policy::Priority, (0..=100).map(wish));
        while line.take(&mut |id| id.0 != 0).is_some() {}
        assert_eq!(add(&mut line, [wish(200).priority(1), wish(201).priority(-1)]), []);
        assert_eq!(line.take(&mut |id| id.0 != 0), Some(TaskId(200)));
        assert_eq!(line.take(&mut |id| id.0 != 0), None);
        // Another rank does not make it patient again.
        assert_eq!(add(&mut line, [wish(202).priority(5).after([0]), wish(203)]), []);
        assert_eq!(line.take(&mut |id| id.0 != 0), None);
        // If it is gone the others go on.
        assert!(line.remove(TaskId(0)));
        assert!(take(&mut line).is_some());
    }

    #[test]
    fn ends_free_or_rule_out() {
        // How 1 ends, whether 2 must have its success, what becomes of 2.
        for (success, succeeds, startable) in
            [(true, true, true), (true, false, true), (false, true, false), (false, false, true)]
        {
            let mut line = line(Policy::FirstCome, [wish(1), Wish { after: vec![(TaskId(1), succeeds)], ..wish(2) }]);
            assert_eq!((take(&mut line), take(&mut line), line.has_startable()), (Some(1), None, false));
            let lost = resolve(&mut line, 1, success);
            assert_eq!(lost, if startable { vec![] } else { vec![(2, 1)] });
            assert_eq!((line.has_startable(), line.len()), (startable, usize::from(startable)));
            assert_eq!(take(&mut line), startable.then_some(2));
            // The same for one that comes when the end is known.
            let later = Wish { after: vec![(TaskId(1), succeeds)], ..wish(3) };
            assert_eq!(add(&mut line, [later]), if startable { vec![] } else { vec![(3, 1)] });
            assert_eq!(take(&mut line), startable.then_some(3));
        }
    }

    #[test]
    fn a_failure_goes_down_the_line_and_keeps_its_name() {
        let wishes = [
            wish(1),
            wish(2).after([1]),
            wish(3).after([1]),
            wish(4).after([2, 3]),
            wish(5).after_end([4]),
            wish(6).after([5]),
            wish(7).after_end([4, 9]),
            wish(9),
        ];
        let mut line = line(Policy::FirstCome, wishes);
        assert_eq!(take_all(&mut line), [1, 9]);
        assert_eq!(resolve(&mut line, 1, false), [(2, 1), (3, 1), (4, 1)]);
        assert_eq!((line.len(), take_all(&mut line)), (3, vec![5]));
        // Saying it again changes nothing.
        assert_eq!(resolve(&mut line, 4, false), []);
        assert_eq!(resolve(&mut line, 4, true), []);
        assert_eq!(
            add(&mut line, [wish(12).after([11]), wish(11).after([4]), wish(10).after_end([11])]),
            [(11, 1), (12, 1)]
        );
        assert_eq!(take_all(&mut line), [10]);
        assert_eq!(resolve(&mut line, 9, true), []);
        assert_eq!(resolve(&mut line, 5, true), []);
        assert_eq!(take_all(&mut line), [6, 7]);
    }

    #[test]
    fn names_in_a_list_count_once() {
        let twice = Wish {
            after: [(1, false), (1, true), (2, true), (1, false)].map(|(id, s)| (TaskId(id), s)).to_vec(),
            ..wish(3)
        };
        let mut line = line(Policy::FirstCome, [wish(1), wish(2), twice.clone()]);
        assert_eq!(take_all(&mut line), [1, 2]);
        assert_eq!((resolve(&mut line, 1, true), take(&mut line)), (vec![], None));
        assert_eq!((resolve(&mut line, 2, true), take(&mut line)), (vec![], Some(3)));
        let mut line = super::tests::line(Policy::FirstCome, [wish(1), wish(2), twice]);
        assert_eq!(resolve(&mut line, 1, false), [(3, 1)]);
        // An id that is known already is left out.
        assert_eq!(add(&mut line, [wish(2), wish(4), wish(4)]), []);
        assert_eq!((line.len(), take_all(&mut line)), (2, vec![2, 4]));
    }

    #[test]
    fn unknown_ids_have_succeeded_unless_a_failure_is_told() {
        let mut line = line(Policy::FirstCome, [wish(1).after([77]).after_end([78])]);
        assert_eq!(take(&mut line), Some(1));
        assert_eq!((resolve(&mut line, 77, false), resolve(&mut line, 78, true)), (vec![], vec![]));
        assert_eq!(add(&mut line, [wish(2).after([77]), wish(3).after([78])]), [(2, 77)]);
        assert_eq!(take(&mut line), Some(3));
    }

    #[test]
    fn a_service_is_ready_and_over_later() {
        let mut line = line(Policy::FirstCome, [wish(1), wish(2).after([1])]);
        assert_eq!(take_all(&mut line), [1]);
        assert_eq!((resolve(&mut line, 1, true), take(&mut line)), (vec![], Some(2)));
        assert_eq!(resolve(&mut line, 1, false), []);
        assert_eq!(add(&mut line, [wish(3).after([1])]), [(3, 1)]);
    }

    #[test]
    fn what_is_cancelled_leaves_the_line() {
        let mut line =
            line(Policy::FirstCome, [wish(1), wish(2).after([1]), wish(3).after([2]), wish(4).after_end([2])]);
        assert!(line.remove(TaskId(2)));
        assert!(!line.remove(TaskId(2)) && !line.remove(TaskId(9)));
        assert_eq!((line.len(), take_all(&mut line)), (3, vec![1]));
        assert!(!line.remove(TaskId(1)), "it runs");
        assert_eq!(resolve(&mut line, 1, true), []);
        // It is not over until somebody says so, also for those that come later.
        assert_eq!(add(&mut line, [wish(5).after([2])]), []);
        assert_eq!(take(&mut line), None);
        assert_eq!(resolve(&mut line, 2, false), [(3, 2), (5, 2)]);
        assert_eq!((take_all(&mut line), line.is_empty()), (vec![4], true));
        // To forget `remove` does no harm.
        assert_eq!(add(&mut line, [wish(6), wish(7).after([6])]), []);
        assert_eq!(resolve(&mut line, 6, false), [(7, 6)]);
        assert!(line.is_empty() && !line.has_startable());
    }

    #[test]
    fn a_drained_line_is_empty() {
        let mut line =
            line(Policy::Priority, [wish(5), wish(3).after([5]), wish(4).priority(2), wish(1).after_end([3])]);
        assert_eq!(take(&mut line), Some(4));
        assert_eq!(line.drain(), [5, 3, 1].map(TaskId));
        assert_eq!((line.len(), line.is_empty(), line.has_startable(), take(&mut line)), (0, true, false, None));
        assert_eq!(line.drain(), []);
        line.put_back(TaskId(4));
        assert_eq!(take(&mut line), Some(4));
        // Nobody has to resolve what was drained, and who does does no harm.
        assert_eq!(resolve(&mut line, 5, false), []);
        assert_eq!(add(&mut line, [wish(6).after([3]), wish(7).after_end([1])]), [(6, 3)]);
        assert_eq!(take_all(&mut line), [7]);
    }

    #[test]
    fn a_cycle_is_named_and_nothing_is_added() {
        // For each task what it waits for; the cycle.
        type Row = (&'static [(u64, &'static [u64])], &'static [u64]);
        let table: [Row; 7] = [
            (&[(1, &[1])], &[1]),
            (&[(1, &[2]), (2, &[1])], &[1, 2]),
            (&[(3, &[1]), (1, &[2]), (2, &[3])], &[3, 1, 2]),
            (&[(3, &[2]), (1, &[3]), (2, &[1])], &[3, 2, 1]),
            // Ways into it and out of it, and others beside it.
            (&[(1, &[]), (2, &[1, 4]), (3, &[2]), (4, &[3]), (5, &[4]), (6, &[5, 1])], &[2, 4, 3]),
            (&[(6, &[5, 1]), (5, &[4]), (4, &[3, 1]), (3, &[4]), (1, &[])], &[4, 3]),
            (&[(1, &[2]), (2, &[3]), (3, &[3, 0]), (4, &[1])], &[3]),
        ];
        for policy in POLICIES {
            for (wishes, expected) in table {
                let mut line = line(policy, [wish(0)]);
                let wishes = wishes.iter().map(|(id, after)| wish(*id).after(after.iter().copied()).seconds(9));
                let error = line.add(wishes.collect()).unwrap_err();
                assert_eq!(error.iter().map(|id| id.0).collect::<Vec<_>>(), expected);
                assert_eq!((line.len(), line.tasks.len(), line.estimates.count), (1, 1, 0));
                assert_eq!(run_all(&mut line), [0]);
            }
        }
    }

    #[test]
    fn any_order_within_a_submission_will_do() {
        let mut line =
            line(Policy::FirstCome, [wish(1).after([2, 4]), wish(2).after([3]), wish(3), wish(4).after([2])]);
        assert_eq!(run_all(&mut line), [3, 2, 4, 1]);
    }

    #[test]
    fn of_what_is_over_only_failures_are_remembered() {
        for policy in POLICIES {
            let mut line = Line::new(policy, true);
            for round in 0..100_u64 {
                let id = round * 10;
                let group = format!("group {round}");
                let wishes = [wish(id), wish(id + 1).after([id]), wish(id + 2).after([id + 1])];
                assert_eq!(add(&mut line, wishes.map(|wish| wish.group(&group))), []);
                assert_eq!(take(&mut line), Some(id));
                assert_eq!(resolve(&mut line, id, true), []);
                assert!(line.remove(TaskId(id + 1)));
                assert_eq!(resolve(&mut line, id + 1, false), [(id + 2, id + 1)]);
            }
            assert_eq!((line.tasks.len(), line.stale.len(), line.failed.len()), (0, 0, 200), "{policy:?}");
            assert_eq!(format!("{:?}", line.turns), "Turns { queues: {}, turns: {}, turn_next: 200 }");
            // What waits for one that goes on does not stay with it when it is cancelled.
            assert_eq!(add(&mut line, [wish(5000)]), []);
            assert_eq!(take(&mut line), Some(5000));
            for id in 5001..5100 {
                assert_eq!(add(&mut line, [wish(id).after([5000])]), []);
                assert!(line.remove(TaskId(id)));
                assert_eq!(resolve(&mut line, id, true), []);
            }
            assert_eq!((line.tasks.len(), line.tasks[&TaskId(5000)].followers.len()), (1, 0));
            assert!(line.stale.len() <= 1);
            assert_eq!(add(&mut line, [wish(5100).after([5000]), wish(5101).after([5100])]), []);
            assert_eq!(line.drain().len(), 2);
            assert_eq!(resolve(&mut line, 5000, true), []);
            assert_eq!((line.tasks.len(), line.stale.len()), (0, 0));
        }
    }

    /// More than any stack has room for; fewer where code is slow.
    const MANY: u64 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        for policy in POLICIES {
            let chain = || (0..MANY).map(|id| wish(id).after(id.checked_sub(1)));
            let mut forward = line(policy, chain());
            assert_eq!(take(&mut forward), Some(0));
            assert_eq!(resolve(&mut forward, 0, false).len() as u64, MANY - 1);
            let mut backward = line(policy, chain().collect::<Vec<_>>().into_iter().rev());
            assert!(run_all(&mut backward).into_iter().eq(0..MANY));
            let ring = chain().skip(1).chain([wish(0).after([MANY - 1])]);
            assert_eq!(Line::new(policy, false).add(ring.collect()).unwrap_err().len() as u64, MANY);
        }
    }

    #[test]
    fn many_may_wait_for_one_and_one_for_many() {
        for policy in POLICIES {
            let star = || (1..=MANY).map(|id| wish(id).after([0]).priority(1));
            let wishes = || [wish(0)].into_iter().chain(star()).chain([wish(MANY + 1).after(1..=MANY)]);
            let mut run = line(policy, wishes());
            assert!(run_all(&mut run).into_iter().eq(0..=MANY + 1), "{policy:?}");
            let mut failed = line(policy, wishes());
            assert_eq!(resolve(&mut failed, 0, false).len() as u64, MANY + 1);
            let mut cancelled = line(policy, wishes());
            for id in (1..=MANY).rev() {
                assert!(cancelled.remove(TaskId(id)));
                assert_eq!(resolve(&mut cancelled, id, false).len(), usize::from(id == MANY));
            }
            assert_eq!(take_all(&mut cancelled), [0]);
        }
    }

    /// For a look at the numbers: `cargo test --release pool::line -- --nocapture`.
    #[test]
    fn a_task_costs_little_however_many_there_are() {
        let wishes = |count: u64, linked: bool| -> Vec<Wish> {
            let wish = |id: u64| wish(id).priority(id as i32 % 10).seconds(id % 7);
            let group = |wish: Wish, id: u64| wish.group(["a", "b", "c"][id as usize % 3]);
            let after = |id: u64| id.checked_sub(1000).filter(|_| linked);
            (0..count).map(|id| group(wish(id), id).after(after(id))).collect()
        };
        for policy in POLICIES {
            for (is_fair, linked, singly) in [
                (false, false, false),
                (false, false, true),
                (true, false, true),
                (false, true, false),
                (true, true, true),
            ] {
                let count: u32 = 10_000;
                let mut line = Line::new(policy, is_fair);
                let wishes = wishes(count.into(), linked);
                let start = std::time::Instant::now();
                if singly {
                    wishes.into_iter().for_each(|wish| assert!(line.add(vec![wish]).is_ok()));
                } else {
                    assert!(line.add(wishes).is_ok());
                }
                let added = start.elapsed();
                let run = run_all(&mut line).len() as u64;
                let all = start.elapsed();
                println!(
                    "{policy:?} fair {is_fair} linked {linked} singly {singly}: added in {added:?}, all in {all:?}: {:?} a task",
                    all / count
                );
                assert_eq!(run, u64::from(count));
                // Tenfold of what it takes without optimisation. One pass over all tasks for each would be far more.
                assert!(all < Duration::from_micros(200) * count, "{all:?} for {count} tasks");
            }
        }
    }
}
