//! A slow model of the waiting line, and random stories that both must tell alike.
//!
//! The model does what the rules say, word by word, and keeps nothing that it can find out by looking at every task again.

use super::done::TaskId;
use super::line::{Line, Policy, Wish};
use super::turns::PASSED_MAX;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

type Lost = BTreeSet<(TaskId, TaskId)>;

struct Model {
    policy: Policy,
    fair: bool,
    /// Those that are not over.
    tasks: BTreeMap<TaskId, Task>,
    failed: BTreeMap<TaskId, TaskId>,
    /// Groups with tasks that may start, the next one first.
    turns: Vec<Option<Arc<str>>>,
    /// The sum of all estimates, and how many there were.
    estimates: (i128, i128),
    arrivals: usize,
}

struct Task {
    wish: Wish,
    arrival: usize,
    /// For the critical path.
    length: i128,
    state: State,
    is_back: bool,
    is_ready: bool,
    passed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waits,
    Taken,
    Gone,
}

fn nanoseconds(duration: Duration) -> i128 {
    duration.as_nanos() as i128
}

impl Model {
    fn new(policy: Policy, fair: bool) -> Model {
        let (tasks, failed) = (BTreeMap::new(), BTreeMap::new());
        Model { policy, fair, tasks, failed, turns: Vec::new(), estimates: (0, 0), arrivals: 0 }
    }

    /// They have no cycle.
    fn add(&mut self, wishes: &[Wish]) -> Lost {
        for estimate in wishes.iter().filter_map(|wish| wish.estimate) {
            self.estimates = (self.estimates.0 + nanoseconds(estimate), self.estimates.1 + 1);
        }
        let known = self.mean().unwrap_or(1_000_000_000);
        let mut lost = Lost::new();
        let mut left: Vec<(usize, &Wish)> = (self.arrivals..).zip(wishes).collect();
        self.arrivals += wishes.len();
        while !left.is_empty() {
            // One that waits for none of the others: what it waits for is decided.
            let is_left = |id: &TaskId| left.iter().any(|(_, wish)| wish.id == *id);
            let next = left.iter().position(|(_, wish)| !wish.after.iter().any(|(id, _)| is_left(id))).unwrap();
            let (arrival, wish) = left.remove(next);
            let mut must_succeed = wish.after.iter().filter(|(_, succeeds)| *succeeds);
            if let Some(culprit) = must_succeed.find_map(|(id, _)| self.failed.get(id).copied()) {
                self.failed.insert(wish.id, culprit);
                lost.insert((wish.id, culprit));
            } else {
                let (mut wish, length) = (wish.clone(), wish.estimate.map_or(known, nanoseconds));
                let is_ready = |id: &TaskId| self.tasks.get(id).is_some_and(|task| task.is_ready);
                wish.after.retain(|(id, succeeds)| !(*succeeds && is_ready(id)));
                let (state, is_back, is_ready) = (State::Waits, false, false);
                self.tasks.insert(wish.id, Task { wish, arrival, length, state, is_back, is_ready, passed: 0 });
            }
        }
        self.change_turns();
        lost
    }

    /// Everything that waits for the success of this one, and what waits for the success of that.
    fn rule_out(&mut self, culprit: TaskId) -> Lost {
        let mut failed = vec![culprit];
        loop {
            let is_hit = |task: &Task| task.wish.after.iter().any(|(id, succeeds)| *succeeds && failed.contains(id));
            let next = self.tasks.values().find(|task| task.state == State::Waits && is_hit(task));
            let Some(id) = next.map(|task| task.wish.id) else { break };
            self.tasks.remove(&id);
            self.failed.insert(id, culprit);
            failed.push(id);
        }
        failed.into_iter().skip(1).map(|id| (id, culprit)).collect()
    }

    fn mean(&self) -> Option<i128> {
        self.estimates.0.checked_div(self.estimates.1)
    }

    fn may_start(&self, task: &Task) -> bool {
        task.state == State::Waits && task.wish.after.iter().all(|(id, _)| !self.tasks.contains_key(id))
    }

    fn startable(&self) -> Vec<&Task> {
        let mut all: Vec<&Task> = self.tasks.values().filter(|task| self.may_start(task)).collect();
        all.sort_by_key(|task| task.arrival);
        all
    }

    fn group(&self, task: &Task) -> Option<Arc<str>> {
        task.wish.group.clone().filter(|_| self.fair)
    }

    /// Groups that have nothing to start lose their turn, others come to the end.
    fn change_turns(&mut self) {
        let groups: Vec<_> = self.startable().into_iter().map(|task| self.group(task)).collect();
        self.turns.retain(|group| groups.contains(group));
        for group in groups {
            if !self.turns.contains(&group) {
                self.turns.push(group);
            }
        }
    }

    /// With those of the tasks that wait for it. What is known already is not looked for again.
    fn rank(&self, task: &Task, known: &mut BTreeMap<TaskId, i128>) -> i128 {
        if let Some(rank) = known.get(&task.wish.id) {
            return *rank;
        }
        let mut behind = || {
            let waits_for_it = |other: &&Task| other.wish.after.iter().any(|(id, _)| *id == task.wish.id);
            let waiting = self.tasks.values().filter(|other| other.state == State::Waits);
            waiting.filter(waits_for_it).map(|other| self.rank(other, known)).max()
        };
        let rank = match self.policy {
            Policy::FirstCome => 0,
            Policy::Priority => behind().unwrap_or(i128::MIN).max(task.wish.priority.into()),
            Policy::LongestFirst => task.wish.estimate.map(nanoseconds).or(self.mean()).unwrap_or_default(),
            Policy::CriticalPath => behind().unwrap_or_default() + task.length,
        };
        known.insert(task.wish.id, rank);
        rank
    }

    fn order(&self) -> Vec<TaskId> {
        let mut known = BTreeMap::new();
        let mut all = self.startable();
        all.sort_by_cached_key(|task| {
            let group = self.group(task);
            let turn = self.turns.iter().position(|other| *other == group);
            (turn, -self.rank(task, &mut known), !task.is_back, task.arrival)
        });
        all.into_iter().map(|task| task.wish.id).collect()
    }

    /// What is taken, who was looked at, and whether one held up those behind it.
    fn take(&mut self, fits: impl Fn(TaskId) -> bool) -> (Option<TaskId>, Vec<TaskId>, bool) {
        let mut looked = Vec::new();
        for id in self.order() {
            looked.push(id);
            if fits(id) {
                for passed in &looked {
                    self.tasks.get_mut(passed).unwrap().passed += 1;
                }
                let task = self.tasks.get_mut(&id).unwrap();
                (task.state, task.passed) = (State::Taken, 0);
                let group = self.group(&self.tasks[&id]);
                self.turns.retain(|other| *other != group);
                self.change_turns();
                return (Some(id), looked, false);
            }
            if self.tasks[&id].passed == PASSED_MAX {
                return (None, looked, true);
            }
        }
        (None, looked, false)
    }

    fn put_back(&mut self, id: TaskId) {
        if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.state == State::Taken) {
            (task.state, task.is_back, task.is_ready) = (State::Waits, true, false);
        }
        self.change_turns();
    }

    fn ready(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.state == State::Taken) else { return };
        task.is_ready = true;
        for task in self.tasks.values_mut() {
            task.wish.after.retain(|(earlier, succeeds)| !(*succeeds && *earlier == id));
        }
        self.change_turns();
    }

    /// Those that wait for the end of this one, and those that wait for them.
    fn waiting_for_end(&self, service: TaskId) -> HashSet<TaskId> {
        let mut all = HashSet::new();
        loop {
            let waits = |task: &&Task| {
                let is_new = task.state == State::Waits && !all.contains(&task.wish.id);
                let mut after = task.wish.after.iter();
                is_new && after.any(|(id, succeeds)| (*id == service && !succeeds) || all.contains(id))
            };
            let Some(id) = self.tasks.values().find(waits).map(|task| task.wish.id) else { return all };
            all.insert(id);
        }
    }

    fn remove(&mut self, id: TaskId) -> bool {
        let task = self.tasks.get_mut(&id).filter(|task| task.state == State::Waits);
        let waited = task.map(|task| task.state = State::Gone).is_some();
        self.change_turns();
        waited
    }

    fn resolve(&mut self, id: TaskId, success: bool) -> Lost {
        self.remove(id);
        if !success {
            self.failed.entry(id).or_insert(id);
        }
        let was_known = self.tasks.remove(&id).is_some();
        let lost = if was_known && !success { self.rule_out(id) } else { Lost::new() };
        self.change_turns();
        lost
    }

    fn drain(&mut self) -> Vec<TaskId> {
        let waits = self.tasks.values().filter(|task| task.state == State::Waits);
        let mut left: Vec<_> = waits.map(|task| (task.arrival, task.wish.id)).collect();
        left.sort_unstable();
        for (_, id) in &left {
            self.tasks.remove(id);
            self.failed.insert(*id, *id);
        }
        self.change_turns();
        left.into_iter().map(|(_, id)| id).collect()
    }

    fn in_state(&self, state: State) -> Vec<TaskId> {
        self.tasks.iter().filter(|(_, task)| task.state == state).map(|(id, _)| *id).collect()
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<Value: Copy>(&mut self, values: &[Value]) -> Option<Value> {
        (!values.is_empty()).then(|| values[self.below(values.len())])
    }

    fn shuffle<Value>(&mut self, values: &mut [Value]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

/// What a task met in the end: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Ran,
    NeverCould,
    Cancelled,
}

/// How often something happened that a story is there for.
#[derive(Debug, Default)]
struct Counts {
    cycles: usize,
    taken: usize,
    lost: usize,
    held_up: usize,
}

struct Story {
    random: Random,
    /// What does not fit seldom does.
    is_stubborn: bool,
    line: Line,
    model: Model,
    used: Vec<TaskId>,
    wishes: BTreeMap<TaskId, Wish>,
    fates: BTreeMap<TaskId, Fate>,
    /// How those ended that were added, by what was said first.
    ends: BTreeMap<TaskId, bool>,
    counts: Counts,
}

/// Only a long story comes to the point where one that does not fit holds up the others.
fn is_long(seed: u64) -> bool {
    seed.is_multiple_of(15)
}

impl Story {
    fn new(policy: Policy, fair: bool, seed: u64) -> Story {
        Story {
            random: Random(seed),
            is_stubborn: is_long(seed),
            line: Line::new(policy, fair),
            model: Model::new(policy, fair),
            used: Vec::new(),
            wishes: BTreeMap::new(),
            fates: BTreeMap::new(),
            ends: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    fn go_on(&mut self) {
        match self.random.below(100) {
            0..20 if self.model.tasks.len() < 50 => self.add(),
            0..65 => self.take(),
            65..75 => self.put_back(),
            75..79 => self.remove(),
            79..99 => self.resolve(),
            _ if self.random.one_in(10) => self.drain(),
            _ => {}
        }
        // The long stories are about something else.
        if !self.is_stubborn && self.random.one_in(12) {
            self.ready();
        }
        self.compare();
    }

    fn compare(&self) {
        let waiting = self.model.in_state(State::Waits).len();
        assert_eq!((self.line.len(), self.line.is_empty()), (waiting, waiting == 0));
        assert_eq!(self.line.has_startable(), !self.model.turns.is_empty());
    }

    fn wish(&mut self, id: TaskId, earlier: &[TaskId]) -> Wish {
        let random = &mut self.random;
        let mut after = Vec::new();
        for _ in 0..random.below(4) {
            let among = if random.one_in(3) { &self.used } else { earlier };
            let named = random.pick(among).unwrap_or(TaskId(9_000_000));
            after.push((named, !random.one_in(3)));
        }
        let group = [None, Some("a"), Some("b"), Some("c")][random.below(4)].map(Arc::from);
        let estimate = (!random.one_in(3)).then(|| Duration::from_secs(random.below(5) as u64));
        Wish { id, group, priority: random.below(4) as i32 - 1, estimate, after }
    }

    fn add(&mut self) {
        let count = 1 + self.random.below(7);
        let mut ids: Vec<TaskId> = (0..count).map(|index| TaskId((self.used.len() + index) as u64)).collect();
        self.random.shuffle(&mut ids);
        let mut wishes: Vec<Wish> = (0..count).map(|index| self.wish(ids[index], &ids[..index])).collect();
        if self.random.one_in(5) {
            let (one, other) = (self.random.below(count), self.random.below(count));
            wishes[one].after.push((ids[other], true));
        }
        self.random.shuffle(&mut wishes);
        if let Some(wish) = wishes.iter_mut().find(|wish| wish.id == TaskId(0)) {
            // The first one goes before others, if it can: it is one that seldom fits.
            (wish.priority, wish.estimate) = (i32::MAX, Some(Duration::from_secs(100)));
            wish.after.clear();
        }
        if has_cycle(&wishes) {
            let cycle = self.line.add(wishes.clone()).unwrap_err();
            check_cycle(&cycle, &wishes);
            self.counts.cycles += 1;
            return;
        }
        let lost: Lost = self.line.add(wishes.clone()).unwrap().into_iter().collect();
        assert_eq!(lost, self.model.add(&wishes));
        self.used.extend(ids);
        self.wishes.extend(wishes.into_iter().map(|wish| (wish.id, wish)));
        self.never(lost);
    }

    fn never(&mut self, lost: Lost) {
        self.counts.lost += lost.len();
        for (id, culprit) in lost {
            assert_eq!(self.fates.insert(id, Fate::NeverCould), None);
            self.ends.insert(id, false);
            assert_ne!(self.fates.get(&culprit), Some(&Fate::NeverCould), "{culprit} is not where it began");
        }
    }

    fn take(&mut self) {
        let choice = self.random.below(if self.is_stubborn { 300 } else { 10 });
        let salt = self.random.below(1000) as u64;
        let fits = |id: TaskId| match choice {
            0 => true,
            1 => false,
            2 => (id.0 * 7919 + salt).is_multiple_of(3),
            // Some do not fit for long.
            _ => !id.0.is_multiple_of(40),
        };
        let mut looked = Vec::new();
        let taken = self.line.take(&mut |id| {
            looked.push(id);
            fits(id)
        });
        let (expected, expected_looked, is_held_up) = self.model.take(fits);
        assert_eq!((taken, looked), (expected, expected_looked));
        self.counts.held_up += usize::from(is_held_up);
        let Some(id) = taken else { return };
        self.counts.taken += 1;
        assert!(!self.fates.contains_key(&id));
        for (earlier, succeeds) in &self.model.tasks[&id].wish.after {
            assert!(!self.model.tasks.contains_key(earlier), "{earlier} is not over");
            assert!(!succeeds || self.ends.get(earlier).is_none_or(|success| *success), "{earlier} failed");
        }
    }

    fn put_back(&mut self) {
        let any = self.random.pick(&self.used).filter(|_| self.random.one_in(4));
        if let Some(id) = any.or(self.random.pick(&self.model.in_state(State::Taken))) {
            self.line.put_back(id);
            self.model.put_back(id);
        }
    }

    fn ready(&mut self) {
        let taken = self.model.in_state(State::Taken);
        let among = if self.random.one_in(5) { &self.used } else { &taken };
        let Some(id) = self.random.pick(among) else { return };
        self.line.ready(id);
        self.model.ready(id);
        if self.model.tasks.get(&id).is_some_and(|task| task.state == State::Taken) {
            assert_eq!(self.line.waiting_for_ends([id].into_iter()), self.model.waiting_for_end(id));
        }
    }

    fn remove(&mut self) {
        if let Some(id) = self.random.pick(&self.used) {
            let was_there = self.line.remove(id);
            assert_eq!(was_there, self.model.remove(id));
            if was_there {
                assert_eq!(self.fates.insert(id, Fate::Cancelled), None);
            }
        }
    }

    fn resolve(&mut self) {
        let id = match self.random.below(30) {
            0 => Some(TaskId(9_000_000 + self.random.below(2) as u64)),
            1 => self.random.pick(&self.used),
            2..10 => self.random.pick(&self.model.in_state(State::Gone)),
            _ => self.random.pick(&self.model.in_state(State::Taken)),
        };
        let success = !self.random.one_in(5);
        id.into_iter().for_each(|id| self.end(id, success));
    }

    fn end(&mut self, id: TaskId, success: bool) {
        let fate = self.model.tasks.get(&id).map(|task| match task.state {
            State::Taken => Fate::Ran,
            State::Waits | State::Gone => Fate::Cancelled,
        });
        if let Some(fate) = fate {
            let earlier = self.fates.insert(id, fate);
            assert!(earlier.is_none_or(|earlier| earlier == Fate::Cancelled && fate == earlier), "{id}");
        }
        if self.wishes.contains_key(&id) {
            self.ends.entry(id).or_insert(success);
        }
        let lost: Lost = self.line.resolve(id, success).into_iter().collect();
        assert_eq!(lost, self.model.resolve(id, success));
        self.never(lost);
    }

    fn drain(&mut self) {
        let left = self.line.drain();
        assert_eq!(left, self.model.drain());
        for id in left {
            assert_eq!(self.fates.insert(id, Fate::Cancelled), None);
            self.ends.insert(id, false);
        }
    }

    /// Everything runs to its end.
    fn finish(mut self) -> Counts {
        loop {
            for state in [State::Taken, State::Gone] {
                for id in self.model.in_state(state) {
                    let success = !self.random.one_in(5);
                    self.end(id, success);
                    self.compare();
                }
            }
            let taken = self.line.take(&mut |_| true);
            assert_eq!(taken, self.model.take(|_| true).0);
            if taken.is_none() {
                break;
            }
        }
        assert!(self.line.is_empty() && !self.line.has_startable());
        assert!(self.fates.keys().eq(self.wishes.keys()), "each task has one fate");
        self.counts
    }
}

/// Whether taking away those that wait for nobody here, again and again, leaves some.
fn has_cycle(wishes: &[Wish]) -> bool {
    let mut left: Vec<&Wish> = wishes.iter().collect();
    loop {
        let ids: Vec<TaskId> = left.iter().map(|wish| wish.id).collect();
        let count = left.len();
        left.retain(|wish| wish.after.iter().any(|(id, _)| ids.contains(id)));
        if left.len() == count {
            return count > 0;
        }
    }
}

fn check_cycle(cycle: &[TaskId], wishes: &[Wish]) {
    let place = |id: &TaskId| wishes.iter().position(|wish| wish.id == *id).unwrap();
    let waits = |id: &TaskId, other: &TaskId| wishes[place(id)].after.iter().any(|(earlier, _)| earlier == other);
    assert!(cycle.iter().zip(cycle.iter().cycle().skip(1)).all(|(id, next)| waits(id, next)), "{cycle:?}");
    assert_eq!(cycle.iter().collect::<BTreeSet<_>>().len(), cycle.len(), "{cycle:?}");
    assert_eq!(cycle.iter().map(place).min(), cycle.first().map(place), "{cycle:?}");
}

#[test]
fn the_line_does_what_the_model_does() {
    for policy in [Policy::FirstCome, Policy::Priority, Policy::LongestFirst, Policy::CriticalPath] {
        for fair in [false, true] {
            let mut counts = Counts::default();
            for seed in 0..40 {
                let mut story = Story::new(policy, fair, seed);
                let length = if is_long(seed) { 800 } else { 60 };
                (0..length).for_each(|_| story.go_on());
                let these = story.finish();
                counts.cycles += these.cycles;
                counts.taken += these.taken;
                counts.lost += these.lost;
                counts.held_up += these.held_up;
            }
            let enough = counts.cycles > 30 && counts.taken > 800 && counts.lost > 300 && counts.held_up > 10;
            assert!(enough, "{policy:?} {fair} {counts:?}");
        }
    }
}
