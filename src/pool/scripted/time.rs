//! Virtual time: what comes when, and what a wait does with it. Pure, except for the bell at the end, which wakes and holds a thread.

use crate::deadline::Deadline;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What comes when, counted from the beginning. At one moment it comes in the order in which it was planned.
#[derive(Debug)]
pub(super) struct Timeline<T> {
    begin: Instant,
    now: Duration,
    count: u64,
    plan: BTreeMap<Key, T>,
}

/// Where in the plan something stands.
pub(super) type Key = (Duration, u64);

impl<T> Timeline<T> {
    pub(super) fn new(begin: Instant) -> Timeline<T> {
        Timeline { begin, now: Duration::ZERO, count: 0, plan: BTreeMap::new() }
    }

    /// How much time has passed.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The same as a moment.
    pub(super) fn moment(&self) -> Instant {
        self.begin.checked_add(self.now).unwrap_or(self.begin)
    }

    /// Plans something for a time, or for now if that is past. A time that the clock cannot hold never comes.
    pub(super) fn plan(&mut self, at: Duration, what: T) -> Option<Key> {
        self.begin.checked_add(at)?;
        self.count += 1;
        let key = (at.max(self.now), self.count);
        self.plan.insert(key, what);
        Some(key)
    }

    /// It does not come.
    pub(super) fn forget(&mut self, key: Key) {
        self.plan.remove(&key);
    }

    /// Takes the first of what has come.
    pub(super) fn take_due(&mut self) -> Option<T> {
        let first = self.plan.first_entry()?;
        (first.key().0 <= self.now).then(|| first.remove())
    }

    /// What a wait until this deadline does next.
    pub(super) fn next_move(&self, until: Deadline, woken: bool, held: bool) -> Move {
        let next = self.plan.first_key_value().map(|((at, _), _)| *at);
        let until = until.moment().map(|moment| moment.saturating_duration_since(self.begin));
        next_move(self.now, next, until, woken, held)
    }

    /// Lets time pass until then. It does not go back.
    pub(super) fn jump(&mut self, to: Duration) {
        self.now = self.now.max(to);
    }
}

/// What a wait does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Tells what has come.
    Tell,
    /// Ends, with nothing to tell.
    Return,
    /// Lets time pass until then.
    Jump(Duration),
    /// Really waits, for somebody to ring.
    Wait,
}

/// What has come is told first. Whoever was woken wants to look around before time passes. `None` is never.
fn next_move(now: Duration, next: Option<Duration>, until: Option<Duration>, woken: bool, held: bool) -> Move {
    let has_come = |moment: Option<Duration>| moment.is_some_and(|moment| moment <= now);
    if has_come(next) {
        return Move::Tell;
    }
    if woken || has_come(until) {
        return Move::Return;
    }
    match next.into_iter().chain(until).min() {
        Some(moment) if !held => Move::Jump(moment),
        _ => Move::Wait,
    }
}

/// Wakes the thread that waits, and keeps time from passing.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Rung {
    pub(super) woken: bool,
    pub(super) holds: usize,
}

impl Bell {
    pub(super) fn lock(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'b>(&'b self, state: MutexGuard<'b, Rung>) -> MutexGuard<'b, Rung> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the wait, or the next one if nobody waits.
    pub(super) fn ring(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }
}

/// As long as this is there no time passes for its engine; see [`Scripted::hold`](super::Scripted::hold).
#[must_use = "time passes again when this is dropped"]
pub struct Hold(Arc<Bell>);

impl Hold {
    pub(super) fn new(bell: &Arc<Bell>) -> Hold {
        bell.lock().holds += 1;
        Hold(Arc::clone(bell))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.holds = state.holds.saturating_sub(1);
        drop(state);
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Hold")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_a_wait_does() {
        const NEVER: Option<Duration> = None;
        const FREE: [bool; 2] = [false, false];
        const WOKEN: [bool; 2] = [true, false];
        const HELD: [bool; 2] = [false, true];
        // It is the fifth second; what comes next, until when to wait, whether it was woken and is held.
        for (next, until, [woken, held], expected) in [
            // Nothing is planned.
            (NEVER, NEVER, FREE, Move::Wait),
            (NEVER, NEVER, WOKEN, Move::Return),
            (NEVER, Some(s(9)), FREE, Move::Jump(s(9))),
            (NEVER, Some(s(9)), WOKEN, Move::Return),
            (NEVER, Some(s(9)), HELD, Move::Wait),
            (NEVER, Some(s(5)), FREE, Move::Return),
            (NEVER, Some(s(0)), HELD, Move::Return),
            // Something has come.
            (Some(s(5)), NEVER, FREE, Move::Tell),
            (Some(s(5)), Some(s(5)), FREE, Move::Tell),
            (Some(s(5)), Some(s(1)), HELD, Move::Tell),
            (Some(s(4)), NEVER, WOKEN, Move::Tell),
            // Something will come: before, with, and after the end of the wait.
            (Some(s(7)), NEVER, FREE, Move::Jump(s(7))),
            (Some(s(7)), Some(s(9)), FREE, Move::Jump(s(7))),
            (Some(s(9)), Some(s(9)), FREE, Move::Jump(s(9))),
            (Some(s(9)), Some(s(7)), FREE, Move::Jump(s(7))),
            (Some(s(7)), Some(s(5)), FREE, Move::Return),
            (Some(s(7)), NEVER, WOKEN, Move::Return),
            (Some(s(7)), NEVER, HELD, Move::Wait),
            (Some(s(7)), Some(s(9)), HELD, Move::Wait),
            (Some(s(7)), Some(s(9)), [true, true], Move::Return),
        ] {
            let case = format!("{next:?} {until:?} woken {woken} held {held}");
            assert_eq!(next_move(s(5), next, until, woken, held), expected, "{case}");
        }
    }

    #[test]
    fn things_come_in_order_of_time_and_then_of_planning() {
        let mut line = Timeline::new(Instant::now());
        for (at, what) in [(3, "c"), (1, "a"), (3, "d"), (1, "b")] {
            line.plan(s(at), what).unwrap();
        }
        let gone = line.plan(s(2), "gone").unwrap();
        line.forget(gone);
        let mut seen = Vec::new();
        while let Move::Jump(to) = line.next_move(Deadline::NEVER, false, false) {
            assert_eq!(line.take_due(), None);
            line.jump(to);
            while let Some(what) = line.take_due() {
                seen.push((line.now().as_secs(), what));
            }
        }
        assert_eq!(seen, [(1, "a"), (1, "b"), (3, "c"), (3, "d")]);
        // What is planned for the past comes now, behind what is there.
        line.plan(s(3), "now");
        line.plan(s(0), "past");
        assert_eq!([line.take_due(), line.take_due(), line.take_due()], [Some("now"), Some("past"), None]);
    }

    #[test]
    fn a_wait_is_told_in_the_engines_own_moments() {
        let begin = Instant::now();
        let mut line: Timeline<()> = Timeline::new(begin);
        let until = Deadline::at(begin + s(3));
        assert_eq!(line.next_move(until, false, false), Move::Jump(s(3)));
        line.jump(s(3));
        assert_eq!((line.moment(), line.next_move(until, false, false)), (begin + s(3), Move::Return));
        line.jump(s(1));
        assert_eq!(line.now(), s(3), "time does not go back");
        let before_the_beginning = begin.checked_sub(s(1)).unwrap();
        assert_eq!(line.next_move(Deadline::at(before_the_beginning), false, false), Move::Return);
    }

    #[test]
    fn a_time_that_the_clock_cannot_hold_never_comes() {
        let mut line = Timeline::new(Instant::now());
        assert_eq!(line.plan(Duration::MAX, ()), None);
        assert_eq!(line.next_move(Deadline::NEVER, false, false), Move::Wait);
    }
}
