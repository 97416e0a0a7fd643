//! One word by which one side tells the other that a message is there, and is told whether that one sleeps. Decides who must ring for whom. Leaves to others
//! where the message stands, how one rings, and how one sleeps.
//!
//! | word | means |
//! |---|---|
//! | `EMPTY` | nothing is there; who waits for it looks at this word |
//! | `ASLEEP` | nothing is there; who waits for it sleeps elsewhere, and wants to be rung for |
//! | `WRITTEN` | a message is there |
//! | `ELSEWHERE` | a message comes to where one sleeps |
//!
//! Who has a message writes it, then exchanges the word: a release. Who waits exchanges `EMPTY` for `ASLEEP`, or finds the message: an acquire. Of the two
//! exchanges one is later, so either the sleeper finds the message or the other side finds the sleeper. Putting in is for one side, everything else for the
//! other, and nothing is put in while something is there. The owner died: there is none; who sleeps does so where a death is told.

use super::word::Word;

const EMPTY: u32 = 0;
const ASLEEP: u32 = 1;
const WRITTEN: u32 = 2;
const ELSEWHERE: u32 = 3;

/// A message is there. Whether the other side must be rung for.
pub(crate) fn put(word: &Word) -> bool {
    word.swap(WRITTEN) != EMPTY
}

/// A message is about to be sent to where the other side sleeps.
pub(crate) fn announce(word: &Word) {
    word.swap(ELSEWHERE);
}

/// Whether anything has been put in or announced, or a bell was rung for it.
pub(crate) fn has_come(word: &Word) -> bool {
    word.load() != EMPTY
}

/// Whether a message is there. If not, one must sleep, and look again after a bell.
pub(crate) fn look(word: &Word) -> bool {
    word.replace(EMPTY, ASLEEP) == Err(WRITTEN)
}

/// The message was taken, here or elsewhere.
pub(crate) fn clear(word: &Word) {
    word.store(EMPTY);
}
