//! Which tasks a pool knows by name and number, and for how long. Decides when one that is over is forgotten; what a name means, and what
//! follows from what is known, is for others to say. Pure.

use super::done::TaskId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// So many of those that have ended last are known, whoever holds them.
pub(super) const KEPT: usize = 10_000;

/// As long as somebody has one the task is known.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) id: TaskId,
    name: Option<Arc<str>>,
    was_skipped: AtomicBool,
}

impl Claim {
    /// It was not run, because it has succeeded before.
    pub(super) fn skip(&self) {
        self.was_skipped.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_skipped(&self) -> bool {
        self.was_skipped.load(Ordering::Relaxed)
    }
}

/// Those that are not over, that somebody has a claim to, and that have ended last.
#[derive(Debug)]
pub(super) struct Known {
    kept: usize,
    tasks: HashMap<TaskId, Arc<Claim>>,
    names: HashMap<Arc<str>, TaskId>,
    /// Those that have ended last, in this order.
    ended: VecDeque<TaskId>,
    /// Those that have ended before them, and had a claim when they were looked at last.
    claimed: VecDeque<TaskId>,
}

/// How many old claims are looked at for each task: more than one can become old.
const LOOKS: usize = 2;

impl Known {
    /// Keeps so many that have ended.
    pub(super) fn new(kept: usize) -> Known {
        let (tasks, names) = (HashMap::new(), HashMap::new());
        Known { kept, tasks, names, ended: VecDeque::new(), claimed: VecDeque::new() }
    }

    /// A task that is not over.
    pub(super) fn add(&mut self, id: TaskId, name: Option<Arc<str>>) -> Arc<Claim> {
        if let Some(name) = &name {
            self.names.insert(Arc::clone(name), id);
        }
        let claim = Arc::new(Claim { id, name, was_skipped: AtomicBool::new(false) });
        self.tasks.insert(id, Arc::clone(&claim));
        claim
    }

    pub(super) fn named(&self, name: &str) -> Option<TaskId> {
        self.names.get(name).copied()
    }

    pub(super) fn claim(&self, id: TaskId) -> Option<Arc<Claim>> {
        self.tasks.get(&id).cloned()
    }

    /// What people call it.
    pub(super) fn label(&self, id: TaskId) -> String {
        let name = self.tasks.get(&id).and_then(|claim| claim.name.as_ref());
        name.map_or_else(|| format!("task {id}"), |name| name.to_string())
    }

    /// A task is over. Says which ones are forgotten.
    pub(super) fn end(&mut self, id: TaskId) -> Vec<TaskId> {
        self.ended.push_back(id);
        let mut forgotten = Vec::new();
        for _ in 0..LOOKS.min(self.claimed.len()) {
            self.look_at(|known| &mut known.claimed, &mut forgotten);
        }
        if self.ended.len() > self.kept {
            self.look_at(|known| &mut known.ended, &mut forgotten);
        }
        forgotten
    }

    /// The first of these is forgotten, unless somebody has a claim.
    fn look_at(&mut self, of: fn(&mut Known) -> &mut VecDeque<TaskId>, forgotten: &mut Vec<TaskId>) {
        let Some(id) = of(self).pop_front() else { return };
        if self.tasks.get(&id).is_some_and(|claim| Arc::strong_count(claim) > 1) {
            self.claimed.push_back(id);
            return;
        }
        if let Some(name) = self.tasks.remove(&id).and_then(|claim| claim.name.clone()) {
            self.names.remove(&name);
        }
        forgotten.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Numbers that do not look like any, the same in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, count: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % count
        }
    }

    /// Whoever is not over, is claimed, or has ended lately is known; of the rest there are never more than have a claim, or had one a
    /// little while ago.
    #[test]
    fn what_can_be_asked_for_is_known_and_nothing_else_for_long() {
        for seed in 0..200 {
            let mut dice = Dice(seed);
            let kept = 1 + dice.below(8);
            let mut known = Known::new(kept);
            let mut claims: BTreeMap<TaskId, Arc<Claim>> = BTreeMap::new();
            let (mut open, mut ended): (Vec<TaskId>, Vec<TaskId>) = (Vec::new(), Vec::new());
            for number in 0..400 {
                let id = TaskId(number);
                let name = (number % 3 > 0).then(|| Arc::from(format!("{number}")));
                let claim = known.add(id, name);
                open.push(id);
                if dice.below(3) == 0 {
                    claims.insert(id, claim);
                }
                if dice.below(2) == 0 && !claims.is_empty() {
                    let place = dice.below(claims.len());
                    let id = *claims.keys().nth(place).unwrap();
                    claims.remove(&id);
                }
                for _ in 0..dice.below(3).min(open.len()) {
                    let id = open.swap_remove(dice.below(open.len()));
                    ended.push(id);
                    for forgotten in known.end(id) {
                        assert!(known.claim(forgotten).is_none());
                    }
                }
                let last = &ended[ended.len().saturating_sub(kept)..];
                for id in open.iter().chain(last).chain(claims.keys()) {
                    assert_eq!(known.claim(*id).map(|claim| claim.id), Some(*id), "seed {seed}");
                    if id.0 % 3 > 0 {
                        assert_eq!(known.named(&id.to_string()[1..]), Some(*id), "seed {seed}");
                        assert_eq!(known.label(*id), id.to_string()[1..]);
                    }
                }
            }
            claims.clear();
            open.drain(..).for_each(|id| drop(known.end(id)));
            for number in 400..1000 {
                known.add(TaskId(number), None);
                known.end(TaskId(number));
            }
            assert_eq!((known.tasks.len(), known.names.len(), known.claimed.len()), (kept, 0, 0), "seed {seed}");
        }
    }
}
