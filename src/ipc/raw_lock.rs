//! A lock that is one word: how it is taken, given back, and taken from the dead. Everything that needs to be done by one party at a time is built on
//! it. Leaves to the caller what a death in the middle means for what the lock protects.
//!
//! | word | means |
//! |---|---|
//! | 0 | free |
//! | party | held; nobody sleeps |
//! | party + `SLEEPERS` | held; whoever gives it back wakes one |
//! | `SUSPECT`, perhaps + `SLEEPERS` | free, but its last holder has died holding it; the next one is told |
//!
//! A party is a process, so a thread that ends without giving its lock back leaves it locked, as with std. Taking is an acquire, giving back a
//! release: what a holder has written is seen by the next one. Who has slept takes the lock with `SLEEPERS`, because there may be others; that
//! costs one needless wake at the end and never loses one. A sleeper that dies when it was the one to be woken takes the wake with it: so
//! everybody looks again after a while ([`LOOK`]), which also finds the death of a holder.

use super::region::{LOOK, Party};
use super::word::Word;
use crate::deadline::Deadline;

const SUSPECT: u32 = 1 << 30;
const SLEEPERS: u32 = 1 << 31;

/// So often the word is looked at before going to sleep, each time after twice as long: a lock that is held for a moment is free again by then, and
/// a sleep costs thousands of times as much. The pauses grow because each look takes the word away from the processor of the holder: whoever
/// wants the lock again and again does several rounds undisturbed, instead of one for each journey of the word.
const LOOKS: u32 = if cfg!(loom) { 0 } else { 8 };

/// In which state the lock was found by whoever has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    Clean,
    /// The last holder has died holding it: what it protects may be half done.
    FromDead,
}

/// Takes the lock if it is free.
#[inline]
pub(crate) fn try_take(word: &Word, me: Party) -> Option<Taken> {
    match word.replace(0, me.number()) {
        Ok(()) => Some(Taken::Clean),
        Err(value) => claim(word, value, me, 0),
    }
}

/// Takes a lock that has this value, if it is free. `None` if it is not, or is another one by now.
fn claim(word: &Word, value: u32, me: Party, sleepers: u32) -> Option<Taken> {
    if Party::named_in(value).is_some() {
        return None;
    }
    let taken = if value & SUSPECT == 0 { Taken::Clean } else { Taken::FromDead };
    word.replace(value, me.number() | value & SLEEPERS | sleepers).ok().map(|()| taken)
}

/// Waits for the lock. `None` when the deadline has passed. `bury` looks whether a party has died, and buries it then.
#[inline]
pub(crate) fn take(word: &Word, me: Party, deadline: Deadline, bury: impl Fn(Party)) -> Option<Taken> {
    match word.replace(0, me.number()) {
        Ok(()) => Some(Taken::Clean),
        Err(_) => wait_and_take(word, me, deadline, &bury),
    }
}

#[cold]
fn wait_and_take(word: &Word, me: Party, deadline: Deadline, bury: &dyn Fn(Party)) -> Option<Taken> {
    let (mut looks, mut sleepers) = (0, 0);
    loop {
        let value = word.load();
        let Some(holder) = Party::named_in(value) else {
            if let Some(taken) = claim(word, value, me, sleepers) {
                return Some(taken);
            }
            continue;
        };
        if looks < LOOKS {
            (0..1 << looks).for_each(|_| std::hint::spin_loop());
            looks += 1;
            continue;
        }
        if deadline.has_passed() {
            return None;
        }
        let asleep = value | SLEEPERS;
        if value != asleep && word.replace(value, asleep).is_err() {
            continue;
        }
        (sleepers, looks) = (SLEEPERS, 0);
        word.sleep(asleep, deadline.earlier(Deadline::after(LOOK)));
        if word.load() == asleep {
            bury(holder);
        }
    }
}

/// Gives the lock back, and wakes one that sleeps.
#[inline]
pub(crate) fn give_back(word: &Word) {
    if word.swap(0) & SLEEPERS != 0 {
        word.wake(1);
    }
}

/// Who holds it, if anybody does.
pub(crate) fn holder(word: &Word) -> Option<Party> {
    Party::named_in(word.load())
}

/// What is to be done with the lock when a party has died: if it was the holder's, the next one gets it and is told.
pub(crate) fn bury(word: &Word, dead: Party) {
    let mut value = word.load();
    while Party::named_in(value) == Some(dead) {
        match word.replace(value, SUSPECT | value & SLEEPERS) {
            Ok(()) => {
                word.wake(u32::MAX);
                return;
            }
            Err(now) => value = now,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_next_holder_is_told_of_a_death_once() {
        let (one, two) = (Party::for_test(1), Party::for_test(2));
        let word = Word::default();
        assert_eq!(try_take(&word, one), Some(Taken::Clean));
        assert_eq!(try_take(&word, two), None);
        assert_eq!(take(&word, two, Deadline::now(), |_| ()), None);
        bury(&word, two);
        assert_eq!(holder(&word), Some(one));
        assert_eq!(take(&word, two, Deadline::NEVER, |party| bury(&word, party)), Some(Taken::FromDead));
        give_back(&word);
        assert_eq!(try_take(&word, one), Some(Taken::Clean));
    }

    #[test]
    fn threads_take_turns() {
        let (word, sum) = (Word::default(), std::sync::atomic::AtomicU32::new(0));
        std::thread::scope(|scope| {
            for number in 1..=4 {
                let (word, sum) = (&word, &sum);
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        assert_eq!(take(word, Party::for_test(number), Deadline::NEVER, |_| ()), Some(Taken::Clean));
                        // Not atomic as a whole: turns are lost if two are inside.
                        let before = sum.load(std::sync::atomic::Ordering::Relaxed);
                        sum.store(before + 1, std::sync::atomic::Ordering::Relaxed);
                        give_back(word);
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 80_000);
    }
}
