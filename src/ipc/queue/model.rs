//! The steps of a queue as a model, and all orders in which they can happen: every process may be killed between any two of them. Shows that
//! nothing that was reported as put is lost or comes twice, that nothing half done is ever seen, and that nobody waits for ever: without a death
//! not even for the look that all take after a while. Small queues and few processes, but every interleaving.
//!
//! A step is one access to what is shared, in the order of `core.rs` and `bell.rs`. That such a step sees what the others have written before is
//! what their memory orders are for; the lock is taken as a whole, because it has tests of its own.

use std::collections::HashSet;

/// Who is on which side of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    /// Puts so many messages.
    Puts(u8),
    /// Gets until the queue is closed and empty.
    Gets,
    /// Closes the queue, when those who put are through, or at any time.
    Closes { early: bool },
}

/// What a process does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    TakeTurn,
    LookAtOwnEnd,
    LookAtOtherEnd,
    Begin,
    Complete,
    Publish,
    EndTurn { done: bool },
    BeforeSleep,
    LastLook { drowsy: u8 },
    Sleep { drowsy: u8 },
    Asleep { drowsy: u8 },
    LookForSleepers,
    ClearSleepers,
    Wake { all: bool },
    SetSleepers,
    Report,
    Close,
    Ended,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    side: Side,
    next: Next,
    /// Messages put or got, and reported.
    reported: u8,
    /// What it has read at the head, or the tail when its turn began.
    held: u8,
    /// Which bell it has still to ring, for one who closes.
    bell: usize,
}

/// A message is who has put it and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Free,
    HalfWritten,
    Message(u8, u8),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Bell {
    number: u8,
    sleepers: bool,
}

const NOT_EMPTY: usize = 0;
const NOT_FULL: usize = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    processes: Vec<Process>,
    turns: [Option<usize>; 2],
    ring: Vec<Slot>,
    /// Counts, not places.
    tail: u8,
    head: u8,
    head_seen: u8,
    tail_seen: u8,
    closed: bool,
    bells: [Bell; 2],
    deaths: u8,
    /// All that was ever published, in order.
    published: Vec<(u8, u8)>,
    /// Who took which of them, and whether it could say so.
    taken: Vec<(u8, bool)>,
}

/// A way in which the model differs from the queue: what would go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Publishes first and writes then.
    PublishFirst,
    /// Does not look again before it sleeps.
    NoLastLook,
    /// Wakes first, and says then that nobody sleeps.
    ClearLate,
    /// Stores the tail, and overlooks a close.
    PublishAfterClose,
}

impl State {
    fn new(sides: &[Side], size: usize) -> State {
        let process = |side: &Side| {
            let next = if matches!(side, Side::Closes { .. }) { Next::Close } else { Next::TakeTurn };
            Process { side: *side, next, reported: 0, held: 0, bell: 0 }
        };
        State {
            processes: sides.iter().map(process).collect(),
            turns: [None; 2],
            ring: vec![Slot::Free; size],
            tail: 0,
            head: 0,
            head_seen: 0,
            tail_seen: 0,
            closed: false,
            bells: [Bell::default(); 2],
            deaths: 0,
            published: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn size(&self) -> u8 {
        self.ring.len() as u8
    }

    fn goes(&self, who: usize, next: Next) -> State {
        let mut state = self.clone();
        state.processes[who].next = next;
        state
    }

    /// What can come of the next step of one of them: nothing if it cannot do any, several if the kernel may choose.
    fn steps(&self, who: usize, flaw: Flaw) -> Vec<State> {
        let process = self.processes[who];
        let puts = matches!(process.side, Side::Puts(_));
        // The bell that is rung, and the one on which it sleeps.
        let (rings, sleeps_on) = if puts { (NOT_EMPTY, NOT_FULL) } else { (NOT_FULL, NOT_EMPTY) };
        let rings = if matches!(process.side, Side::Closes { .. }) { process.bell } else { rings };
        let mut state = self.clone();
        let me = &mut state.processes[who];
        match process.next {
            Next::TakeTurn => {
                let turn = &mut state.turns[usize::from(!puts)];
                if turn.is_some_and(|holder| self.processes[holder].next != Next::Dead) {
                    return Vec::new();
                }
                *turn = Some(who);
                me.next = Next::LookAtOwnEnd;
            }
            Next::LookAtOwnEnd => {
                me.held = if puts { self.tail } else { self.head };
                let nothing = match puts {
                    true => self.tail - self.head_seen == self.size(),
                    false => self.tail_seen <= self.head,
                };
                me.next = match () {
                    () if puts && self.closed => Next::EndTurn { done: false },
                    () if nothing => Next::LookAtOtherEnd,
                    () => Next::Begin,
                };
            }
            Next::LookAtOtherEnd => {
                let nothing = if puts {
                    state.head_seen = self.head;
                    self.tail - self.head == self.size()
                } else {
                    state.tail_seen = self.tail;
                    self.tail == self.head
                };
                me.next = if nothing { Next::EndTurn { done: false } } else { Next::Begin };
            }
            Next::Begin if flaw == Flaw::PublishFirst && puts => me.next = Next::Publish,
            Next::Begin => {
                let place = usize::from(process.held) % self.ring.len();
                if puts {
                    state.ring[place] = Slot::HalfWritten;
                }
                me.next = Next::Complete;
            }
            Next::Complete => {
                let place = usize::from(process.held) % self.ring.len();
                match self.ring[place] {
                    _ if puts => state.ring[place] = Slot::Message(who as u8, process.reported),
                    Slot::Message(from, number) => {
                        let expected = self.published[usize::from(self.head)];
                        assert_eq!((from, number), expected, "another message than was put here");
                    }
                    other => panic!("{other:?} was got"),
                }
                let published = flaw == Flaw::PublishFirst && puts;
                me.next = if published { Next::EndTurn { done: true } } else { Next::Publish };
            }
            Next::Publish if puts => {
                if self.closed && flaw != Flaw::PublishAfterClose {
                    me.next = Next::EndTurn { done: false };
                } else {
                    state.tail += 1;
                    state.published.push((who as u8, process.reported));
                    state.taken.push((u8::MAX, false));
                    me.next = if flaw == Flaw::PublishFirst { Next::Complete } else { Next::EndTurn { done: true } };
                }
            }
            Next::Publish => {
                state.taken[usize::from(self.head)] = (who as u8, false);
                state.ring[usize::from(self.head) % self.ring.len()] = Slot::Free;
                state.head += 1;
                me.next = Next::EndTurn { done: true };
            }
            Next::EndTurn { done } => {
                state.turns[usize::from(!puts)] = None;
                me.next = if done { Next::LookForSleepers } else { Next::BeforeSleep };
            }
            Next::BeforeSleep => {
                state.bells[sleeps_on].sleepers = true;
                let drowsy = self.bells[sleeps_on].number;
                me.next = if flaw == Flaw::NoLastLook { Next::Sleep { drowsy } } else { Next::LastLook { drowsy } };
            }
            Next::LastLook { drowsy } => {
                me.next = match () {
                    () if puts && self.closed => Next::Ended,
                    () if puts && self.tail - self.head < self.size() => Next::TakeTurn,
                    () if !puts && self.tail > self.head => Next::TakeTurn,
                    () if !puts && self.closed => Next::Ended,
                    () => Next::Sleep { drowsy },
                };
            }
            Next::Sleep { drowsy } => {
                let unchanged = self.bells[sleeps_on] == Bell { number: drowsy, sleepers: true };
                me.next = if unchanged { Next::Asleep { drowsy } } else { Next::BeforeSleep };
            }
            Next::LookForSleepers => {
                let half = puts || (self.tail - self.head) <= self.size() / 2;
                me.next = match self.bells[rings].sleepers && half {
                    true if flaw == Flaw::ClearLate => Next::Wake { all: false },
                    true => Next::ClearSleepers,
                    false => Next::Report,
                };
            }
            Next::ClearSleepers => {
                let all = matches!(process.side, Side::Closes { .. });
                let bell = &mut state.bells[rings];
                if flaw == Flaw::ClearLate && !all {
                    bell.sleepers = false;
                    me.next = Next::Report;
                    return vec![state];
                }
                me.next = if bell.sleepers || all { Next::Wake { all } } else { Next::Report };
                bell.sleepers = false;
                bell.number += 1;
            }
            Next::Wake { all } => return self.wakings(who, rings, all, flaw),
            Next::SetSleepers => {
                state.bells[rings].sleepers = true;
                me.next = Next::Report;
            }
            Next::Report => {
                if let Side::Closes { .. } = process.side {
                    me.bell += 1;
                    me.next = if me.bell < 2 { Next::ClearSleepers } else { Next::Ended };
                } else {
                    me.reported += 1;
                    let through = matches!(process.side, Side::Puts(count) if count == me.reported);
                    me.next = if through { Next::Ended } else { Next::TakeTurn };
                    if !puts {
                        let last = state.taken.iter_mut().rfind(|(taker, _)| *taker == who as u8);
                        last.unwrap().1 = true;
                    }
                }
            }
            Next::Close => {
                let waits = Side::Closes { early: false } == process.side;
                let is_through = |other: &Process| {
                    !matches!(other.side, Side::Puts(_)) || matches!(other.next, Next::Ended | Next::Dead)
                };
                if waits && !self.processes.iter().all(is_through) {
                    return Vec::new();
                }
                state.closed = true;
                me.next = Next::ClearSleepers;
            }
            Next::Asleep { .. } | Next::Ended | Next::Dead => return Vec::new(),
        }
        vec![state]
    }

    /// The kernel wakes as many as it was told, whichever it likes.
    fn wakings(&self, who: usize, bell: usize, all: bool, flaw: Flaw) -> Vec<State> {
        let asleep: Vec<usize> = self.asleep().filter(|(_, on)| *on == bell).map(|(place, _)| place).collect();
        let wanted = if all { usize::MAX } else { 2 };
        let count = wanted.min(asleep.len());
        let sets = (0..1_u32 << asleep.len()).filter(|set| set.count_ones() as usize == count);
        let woken = |set: u32| {
            let again = !all && count == 2;
            let next = match () {
                () if flaw == Flaw::ClearLate && !all => Next::ClearSleepers,
                () if again => Next::SetSleepers,
                () => Next::Report,
            };
            let mut state = self.goes(who, next);
            for (bit, place) in asleep.iter().enumerate() {
                if set & 1 << bit != 0 {
                    state.processes[*place].next = Next::BeforeSleep;
                }
            }
            state
        };
        sets.map(woken).collect()
    }

    /// Who sleeps, and on which bell.
    fn asleep(&self) -> impl Iterator<Item = (usize, usize)> {
        let sleeps = |process: &Process| matches!(process.next, Next::Asleep { .. });
        let bell = |process: &Process| if matches!(process.side, Side::Puts(_)) { NOT_FULL } else { NOT_EMPTY };
        self.processes
            .iter()
            .enumerate()
            .filter(move |(_, process)| sleeps(process))
            .map(move |(place, process)| (place, bell(process)))
    }

    /// Nobody can do anything any more: is all as it should be?
    fn check_end(&self) {
        let alive = |process: &&Process| process.next != Next::Dead;
        for process in self.processes.iter().filter(alive) {
            assert_eq!(process.next, Next::Ended, "somebody waits for ever");
        }
        let reported: Vec<(u8, u8)> = self
            .processes
            .iter()
            .enumerate()
            .filter(|(_, process)| matches!(process.side, Side::Puts(_)))
            .flat_map(|(who, process)| (0..process.reported).map(move |number| (who as u8, number)))
            .collect();
        let once = self.published.iter().collect::<HashSet<_>>().len() == self.published.len();
        assert!(once, "a message was put twice");
        assert!(reported.iter().all(|message| self.published.contains(message)), "reported and not put");
        // In the order of each: the numbers of those who put rise.
        for (place, (from, number)) in self.published.iter().enumerate() {
            assert!(self.published[..place].iter().filter(|(other, _)| other == from).count() == usize::from(*number));
        }
        let getters_left = self.processes.iter().filter(alive).any(|process| process.side == Side::Gets);
        for (place, (taker, said)) in self.taken.iter().enumerate() {
            let was_taken = place < usize::from(self.head);
            assert!(was_taken || !getters_left, "a message was left behind");
            let dead = was_taken && self.processes[usize::from(*taker)].next == Next::Dead;
            assert!(!was_taken || *said || dead, "a message was lost with a taker that lives");
        }
    }
}

/// Tries all orders, with so many deaths at most. How many different states there are.
fn explore(sides: &[Side], size: usize, deaths: u8, flaw: Flaw) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![State::new(sides, size)];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let mut next: Vec<State> = (0..sides.len()).flat_map(|who| state.steps(who, flaw)).collect();
        if next.is_empty() {
            // Everybody looks after a while. Without a death nobody needs to.
            let asleep: Vec<usize> = state.asleep().map(|(place, _)| place).collect();
            if asleep.is_empty() || state.deaths == 0 {
                state.check_end();
            } else {
                let mut looked = state.clone();
                asleep.iter().for_each(|place| looked.processes[*place].next = Next::BeforeSleep);
                next.push(looked);
            }
        }
        if state.deaths < deaths {
            let alive = (0..sides.len()).filter(|who| !matches!(state.processes[*who].next, Next::Ended | Next::Dead));
            next.extend(alive.map(|who| State { deaths: state.deaths + 1, ..state.goes(who, Next::Dead) }));
        }
        open.extend(next);
    }
    seen.len()
}

const CLOSES: Side = Side::Closes { early: false };

#[test]
fn no_order_of_steps_loses_anything_or_keeps_anybody_waiting() {
    let early = Side::Closes { early: true };
    let mut states = 0;
    for (size, sides) in [
        (1, &[Side::Puts(2), Side::Gets, CLOSES][..]),
        (1, &[Side::Puts(2), Side::Gets, early]),
        (2, &[Side::Puts(3), Side::Gets, CLOSES]),
        (1, &[Side::Puts(1), Side::Puts(1), Side::Gets, CLOSES]),
        (1, &[Side::Puts(1), Side::Gets, Side::Gets, CLOSES]),
    ] {
        let count = explore(sides, size, 0, Flaw::None);
        eprintln!("{sides:?}, room for {size}: {count} states");
        states += count;
    }
    assert!(states > 10_000, "{states}");
}

#[test]
fn no_death_between_two_steps_loses_anything_or_keeps_anybody_waiting() {
    let mut states = 0;
    for (sides, deaths) in [
        (&[Side::Puts(2), Side::Gets, CLOSES][..], 2),
        (&[Side::Puts(1), Side::Puts(1), Side::Gets, CLOSES], 1),
        (&[Side::Puts(1), Side::Gets, Side::Gets, CLOSES], 1),
    ] {
        let count = explore(sides, 1, deaths, Flaw::None);
        eprintln!("{sides:?}, {deaths} deaths: {count} states");
        states += count;
    }
    assert!(states > 10_000, "{states}");
}

/// The model can fail: each flaw is found.
#[test]
fn flaws_are_found() {
    let two = [Side::Puts(2), Side::Gets, CLOSES];
    let early = [Side::Puts(2), Side::Gets, Side::Closes { early: true }];
    for (flaw, sides) in [
        (Flaw::PublishFirst, &two),
        (Flaw::NoLastLook, &two),
        (Flaw::ClearLate, &two),
        (Flaw::PublishAfterClose, &early),
    ] {
        let found = std::panic::catch_unwind(|| explore(sides, 1, 0, flaw));
        assert!(found.is_err(), "{flaw:?} was not found");
    }
}
