//! A word on which those sleep who wait for something that is written elsewhere. Decides how a sleeper and whoever brings news cannot miss each
//! other, and that nobody makes a system call as long as nobody sleeps. What the news is, and whether it is enough, is for the sleeper.
//!
//! | word | means |
//! |---|---|
//! | n | nobody sleeps |
//! | n + `SLEEPERS` | somebody sleeps, or is about to; who brings news makes it n + 1 and wakes |
//!
//! Order: a sleeper sets `SLEEPERS` and then looks for news; who brings news publishes it and then looks for `SLEEPERS`. All four are
//! sequentially consistent, so at least one of them sees the other. The number changes with each ring: a sleeper that was seen, but does not
//! sleep yet, will not.
//!
//! The dead: a sleeper that is killed leaves `SLEEPERS` behind, which costs one call. One that is killed when it has been woken takes nothing
//! with it, because one more is woken than is needed, and because nobody sleeps longer than [`LOOK`] without looking again. Who dies between
//! the news and the ring delays the others by that time as well.

use crate::deadline::Deadline;
use crate::ipc::region::LOOK;
use crate::ipc::word::Word;

const SLEEPERS: u32 = 1 << 31;

/// What the word was when somebody went to sleep.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Drowsy(u32);

/// Before looking for news for the last time, and then to [`sleep`] or not. `None` if it is too late to sleep: nobody needs to ring then.
pub(super) fn before_sleep(word: &Word, deadline: Deadline) -> Option<Drowsy> {
    (!deadline.has_passed()).then(|| Drowsy(word.set_bits(SLEEPERS) | SLEEPERS))
}

/// Sleeps until there may be news, until the deadline, or for [`LOOK`] at most. True if nobody has rung.
pub(super) fn sleep(word: &Word, drowsy: Option<Drowsy>, deadline: Deadline) -> bool {
    let Some(Drowsy(value)) = drowsy else { return true };
    word.sleep(value, deadline.earlier(Deadline::after(LOOK)));
    word.load() == value
}

/// Whether somebody waits for news.
#[inline]
pub(super) fn is_waited_for(word: &Word) -> bool {
    word.load() & SLEEPERS != 0
}

/// There is news for so many.
#[inline]
pub(super) fn ring(word: &Word, count: u32) {
    if is_waited_for(word) {
        wake(word, count);
    }
}

#[cold]
fn wake(word: &Word, count: u32) {
    let mut value = word.load();
    while value & SLEEPERS != 0 {
        match word.replace(value, next(value)) {
            Ok(()) => break,
            Err(now) => value = now,
        }
    }
    if value & SLEEPERS == 0 {
        return; // Somebody else has rung since, later than our news.
    }
    // One more than needed: if not even so many slept, nobody is left, and the word says so already.
    if word.wake(count.saturating_add(1)) > count {
        word.set_bits(SLEEPERS);
    }
}

/// There is news for all.
pub(super) fn ring_all(word: &Word) {
    let mut value = word.load();
    while let Err(now) = word.replace(value, next(value)) {
        value = now;
    }
    word.wake(u32::MAX);
}

fn next(value: u32) -> u32 {
    (value & !SLEEPERS).wrapping_add(1) & !SLEEPERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::{AtomicU32, AtomicUsize};
    use std::time::{Duration, Instant};

    #[test]
    fn who_was_seen_does_not_sleep() {
        let word = Word::default();
        ring(&word, 1);
        assert_eq!(word.load(), 0);
        let drowsy = before_sleep(&word, Deadline::NEVER);
        ring(&word, 1);
        assert_eq!(word.load(), 1);
        assert!(!sleep(&word, drowsy, Deadline::NEVER));
        let drowsy = before_sleep(&word, Deadline::NEVER);
        assert!(sleep(&word, drowsy, Deadline::now()));
        // Whoever has no time left asks for no ring.
        let quiet = Word::default();
        let drowsy = before_sleep(&quiet, Deadline::now());
        assert!(drowsy.is_none() && sleep(&quiet, drowsy, Deadline::NEVER));
        assert_eq!(quiet.load(), 0);
        let last = Word::default();
        last.store(SLEEPERS - 1);
        ring_all(&last);
        assert_eq!(last.load(), 0);
    }

    /// Handing a turn to and fro takes far less than the time after which everybody looks again anyway.
    #[test]
    fn no_ring_is_missed() {
        const TURNS: u32 = 5000;
        let (bells, turn, looks) = ([Word::default(), Word::default()], AtomicU32::new(0), AtomicUsize::new(0));
        let started = Instant::now();
        std::thread::scope(|scope| {
            for own in 0..2 {
                let (bells, turn, looks) = (&bells, &turn, &looks);
                scope.spawn(move || {
                    for round in 0..TURNS {
                        let wanted = round * 2 + own;
                        while turn.load(SeqCst) != wanted {
                            let drowsy = before_sleep(&bells[own as usize], Deadline::NEVER);
                            if turn.load(SeqCst) != wanted && sleep(&bells[own as usize], drowsy, Deadline::NEVER) {
                                looks.fetch_add(1, SeqCst);
                            }
                        }
                        turn.store(wanted + 1, SeqCst);
                        ring(&bells[1 - own as usize], 1);
                    }
                });
            }
        });
        let (looks, time) = (looks.into_inner(), started.elapsed());
        // A machine that does nothing else for a tenth of a second may look once or twice.
        assert!(looks < 50 && time < Duration::from_secs(60), "{looks} looks in {time:?}");
    }
}
