//! Names for what a set waits for, that fit into the word which the kernel hands back. A name is never given to something else: a
//! place is used again under the next generation, so that a late answer about a closed descriptor finds nobody. Pure.

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Stdin,
    Stdout,
    Stderr,
    /// The end of the process.
    Notice,
    /// Somebody else who is being stopped with it.
    Member,
    /// A descriptor of the caller's.
    Watched,
    /// Somebody wants the wait to end.
    Wake,
}

const PARTS: [Part; 7] =
    [Part::Stdin, Part::Stdout, Part::Stderr, Part::Notice, Part::Member, Part::Watched, Part::Wake];

/// A place in a [`Slab`], in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// Generations are counted in 29 bits; half a billion lives of one place are enough for an answer to be forgotten.
const GENERATIONS: u32 = 1 << 29;

impl Key {
    /// For what there is one of.
    pub(super) const FIRST: Key = Key { index: 0, generation: 0 };

    pub(super) fn token(self, part: Part) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 32 | (part as u64) << 61
    }

    pub(super) fn of(token: u64) -> (Key, Part) {
        let key = Key { index: token as u32, generation: (token >> 32) as u32 % GENERATIONS };
        (key, PARTS.get((token >> 61) as usize).copied().unwrap_or(Part::Wake))
    }
}

/// Values by key.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some((generation, slot)) = self.slots.get_mut(index as usize)
        {
            *slot = Some(value);
            return Key { index, generation: *generation };
        }
        let index = self.slots.len() as u32;
        self.slots.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.slots.get(key.index as usize)?;
        value.as_ref().filter(|_| *generation == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(key.index as usize)?;
        value.as_mut().filter(|_| *generation == key.generation)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (generation, value) = self.slots.get_mut(key.index as usize)?;
        *generation = (*generation + 1) % GENERATIONS;
        self.free.push(key.index);
        value.take()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let slots = (0u32..).zip(&self.slots);
        slots
            .filter(|(_, (_, value))| value.is_some())
            .map(|(index, (generation, _))| Key { index, generation: *generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_was_put_into_it() {
        for index in [0, 1, u32::MAX] {
            for generation in [0, 1, GENERATIONS - 1] {
                for part in PARTS {
                    let key = Key { index, generation };
                    assert_eq!(Key::of(key.token(part)), (key, part));
                }
            }
        }
    }

    #[test]
    fn a_place_that_is_used_again_has_another_name() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.index, second.index);
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&'b')));
        assert_eq!((slab.remove(first), slab.len()), (None, 1));
        assert_eq!(slab.keys().collect::<Vec<_>>(), [second]);
    }
}
