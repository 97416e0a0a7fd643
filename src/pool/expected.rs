//! Tasks of a loop that wait for others that have not come yet, by name: who can go when one has come. Pure; that they have come, and
//! what becomes of those who wait in vain, is for the loop to say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Those that wait for names.
#[derive(Debug)]
pub(super) struct Expected<T> {
    /// By their number in the order in which they came, with how many names are missing.
    waiting: BTreeMap<usize, (T, usize)>,
    by_name: HashMap<Arc<str>, Vec<usize>>,
    next: usize,
}

impl<T> Expected<T> {
    pub(super) fn new() -> Expected<T> {
        Expected { waiting: BTreeMap::new(), by_name: HashMap::new(), next: 0 }
    }

    /// It goes when all of these have come. There is at least one.
    pub(super) fn hold(&mut self, one: T, names: BTreeSet<Arc<str>>) {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, (one, names.len()));
        for name in names {
            self.by_name.entry(name).or_default().push(number);
        }
    }

    /// This one has come: those that waited for it and for nothing else, in the order in which they came.
    pub(super) fn come(&mut self, name: &str) -> Vec<T> {
        let mut free = Vec::new();
        for number in self.by_name.remove(name).unwrap_or_default() {
            let Some((_, missing)) = self.waiting.get_mut(&number) else { continue };
            *missing -= 1;
            if *missing == 0 {
                free.extend(self.waiting.remove(&number).map(|(one, _)| one));
            }
        }
        free
    }

    /// All that are left, in the order in which they came.
    pub(super) fn give_up(&mut self) -> Vec<T> {
        self.by_name.clear();
        std::mem::take(&mut self.waiting).into_values().map(|(one, _)| one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn each_goes_when_the_last_of_its_names_has_come() {
        let mut expected = Expected::new();
        expected.hold(1, names(&["a", "b"]));
        expected.hold(2, names(&["b"]));
        expected.hold(3, names(&["c"]));
        expected.hold(4, names(&["a"]));
        assert_eq!(expected.come("x"), [0; 0]);
        assert_eq!(expected.come("b"), [2]);
        assert_eq!(expected.come("b"), [0; 0]);
        assert_eq!(expected.come("a"), [1, 4]);
        expected.hold(5, names(&["a"]));
        assert_eq!(expected.give_up(), [3, 5]);
        assert_eq!(expected.come("c"), [0; 0]);
        assert_eq!(expected.give_up(), [0; 0]);
    }
}
