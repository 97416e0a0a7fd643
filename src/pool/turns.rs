//! The tasks that may start, in the order in which they are looked at: groups by turns, and within a group by rank.
//!
//! It decides whose turn it is, and how often a task may be passed over because it does not fit. Who may start, and which rank a
//! task has, is decided in [`line`](super::line). Pure.

use super::done::TaskId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::sync::Arc;

/// What a policy compares: the larger one goes first.
pub(super) type Rank = i64;

/// How often a task that does not fit lets others go ahead of it. After that nobody behind it starts until it fits: else a large
/// one would wait for ever while small ones come in.
pub(super) const PASSED_MAX: u32 = 64;

/// Where a task stands within its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// `None` counts as the mean of the ranks known, which moves.
    pub(super) rank: Option<Rank>,
    /// It ran already and goes before others of its rank.
    pub(super) is_back: bool,
    /// Its number in the order of submission.
    pub(super) arrival: u64,
}

/// The tasks that may start.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The first is the next to be served; a group that was served goes to the end.
    queues: BTreeMap<u64, Queue>,
    /// Where the queue of a group is. Groups without a task that may start are forgotten.
    turns: HashMap<Option<Arc<str>>, u64>,
    turn_next: u64,
}

/// The tasks of one group.
#[derive(Debug, Default)]
struct Queue {
    group: Option<Arc<str>>,
    known: BTreeMap<Key, Place>,
    /// Those without a rank of their own: one place of the order, wherever the mean is now.
    guessed: BTreeMap<Key, Place>,
}

/// The smaller one goes first: rank, new, arrival.
type Key = (Reverse<Rank>, bool, u64);

#[derive(Debug)]
struct Place {
    id: TaskId,
    passed: u32,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// A group that had none before is the last in turn.
    pub(super) fn insert(&mut self, group: &Option<Arc<str>>, standing: Standing, id: TaskId) {
        let turn = match self.turns.get(group) {
            Some(turn) => *turn,
            None => self.append(Queue { group: group.clone(), ..Queue::default() }),
        };
        if let Some(queue) = self.queues.get_mut(&turn) {
            queue.insert(standing, Place { id, passed: 0 });
        }
    }

    pub(super) fn remove(&mut self, group: &Option<Arc<str>>, standing: Standing) {
        if let Some(turn) = self.turns.get(group).copied() {
            self.remove_at(turn, standing);
        }
    }

    /// Another rank changes neither the group's turn nor how often the task was passed over.
    pub(super) fn move_to(&mut self, group: &Option<Arc<str>>, from: Standing, to: Standing) {
        let queue = self.turns.get(group).and_then(|turn| self.queues.get_mut(turn));
        if let Some((queue, place)) = queue.and_then(|queue| queue.remove(from).map(|place| (queue, place))) {
            queue.insert(to, place);
        }
    }

    /// The first that fits; those before it were passed over. One that was passed over too often ends the search.
    pub(super) fn take(&mut self, mean: Rank, fits: &mut dyn FnMut(TaskId) -> bool) -> Option<TaskId> {
        let mut before = 0;
        let mut found = None;
        for (turn, standing, place) in self.in_order(mean) {
            if fits(place.id) {
                found = Some((turn, standing, place.id));
                break;
            }
            if place.passed >= PASSED_MAX {
                break;
            }
            before += 1;
        }
        let (turn, standing, id) = found?;
        self.in_order(mean).take(before).for_each(|(_, _, place)| place.passed += 1);
        self.remove_at(turn, standing);
        self.end_turn(turn);
        Some(id)
    }

    fn in_order(&mut self, mean: Rank) -> impl Iterator<Item = (u64, Standing, &mut Place)> {
        let queues = self.queues.iter_mut();
        queues.flat_map(move |(turn, queue)| queue.in_order(mean).map(|(standing, place)| (*turn, standing, place)))
    }

    fn remove_at(&mut self, turn: u64, standing: Standing) {
        let Some(queue) = self.queues.get_mut(&turn) else { return };
        queue.remove(standing);
        if queue.is_empty() {
            self.turns.remove(&queue.group);
            self.queues.remove(&turn);
        }
    }

    fn end_turn(&mut self, turn: u64) {
        if self.queues.len() > 1
            && let Some(queue) = self.queues.remove(&turn)
        {
            self.append(queue);
        }
    }

    fn append(&mut self, queue: Queue) -> u64 {
        let turn = self.turn_next;
        self.turn_next += 1;
        self.turns.insert(queue.group.clone(), turn);
        self.queues.insert(turn, queue);
        turn
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.known.is_empty() && self.guessed.is_empty()
    }

    fn insert(&mut self, standing: Standing, place: Place) {
        let (places, key) = self.find(standing);
        places.insert(key, place);
    }

    fn remove(&mut self, standing: Standing) -> Option<Place> {
        let (places, key) = self.find(standing);
        places.remove(&key)
    }

    fn find(&mut self, standing: Standing) -> (&mut BTreeMap<Key, Place>, Key) {
        let places = if standing.rank.is_some() { &mut self.known } else { &mut self.guessed };
        (places, (Reverse(standing.rank.unwrap_or_default()), !standing.is_back, standing.arrival))
    }

    /// Both maps, merged.
    fn in_order(&mut self, mean: Rank) -> impl Iterator<Item = (Standing, &mut Place)> {
        let mut known = self.known.iter_mut().peekable();
        let mut guessed = self.guessed.iter_mut().peekable();
        iter::from_fn(move || {
            let is_known = match (known.peek(), guessed.peek()) {
                (Some((one, _)), Some(((_, is_new, arrival), _))) => **one < (Reverse(mean), *is_new, *arrival),
                (one, _) => one.is_some(),
            };
            let ((rank, is_new, arrival), place) = if is_known { known.next() } else { guessed.next() }?;
            let rank = is_known.then_some(rank.0);
            Some((Standing { rank, is_back: !is_new, arrival: *arrival }, place))
        })
    }
}
