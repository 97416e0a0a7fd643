//! Where processes wait for each other. Decides what a round is, and what breaks it.

use super::object::one_descriptor;
use super::region::{Kind, LOOK, Party, Region, SLOTS};
use super::word::{Long, View, Word};
use crate::deadline::Deadline;
use crate::error::Error;
use std::error;
use std::fmt;
use std::time::Duration;

/// A place where so many wait until all have come; then all go on, and the next round begins.
///
/// A round that cannot be completed is broken, and all who wait are told: when a process that has this barrier dies, whether it waits or not, when
/// somebody's time has passed, or when somebody [aborts](Self::abort). It stays broken until a [`reset`](Self::reset). A process that drops the
/// barrier, or returns from `main`, leaves in order and breaks nothing; one that exits otherwise has died.
///
/// ```
/// use procession::ipc::Barrier;
///
/// let start = Barrier::new(2)?;
/// std::thread::scope(|scope| {
///     let other = scope.spawn(|| start.wait().unwrap());
///     let mine = start.wait().unwrap();
///     assert_eq!(mine + other.join().unwrap(), 1);
/// });
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "mp.Barrier")]
pub struct Barrier {
    region: Region,
}

/// Why waiting at a [`Barrier`] is of no use. The text says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias = "BrokenBarrierError")]
pub enum BrokenBarrier {
    /// A process that has the barrier has died.
    PartyDied,
    /// Somebody's time has passed before all had come.
    TimedOut,
    /// Somebody has called [`Barrier::abort`].
    Aborted,
    /// Somebody has called [`Barrier::reset`] while we waited.
    Reset,
}

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BrokenBarrier::PartyDied => "the barrier is broken: a process that has it has died",
            BrokenBarrier::TimedOut => "the barrier is broken: not all came in time",
            BrokenBarrier::Aborted => "the barrier is broken: it was aborted",
            BrokenBarrier::Reset => "the barrier was reset while we waited",
        })
    }
}

impl error::Error for BrokenBarrier {}

/// What stands in the memory.
///
/// | word | means |
/// |---|---|
/// | `TURN` | counts what those who wait should look at; they sleep on it |
/// | `PARTIES` | how many must come; never changes |
/// | `STATE` | a [`State`]: who has come, the round, whether it is broken, how the last rounds ended |
/// | `LEFT` | for each slot the last party that has left it in order |
///
/// Everything that counts is in `STATE`, one word that is changed by one exchange: whatever a party was doing when it died, it was done or not
/// done. The owner died: there is none; each death breaks the round, by whoever sees it first. The exchange releases and acquires, so what was
/// written before `wait` by any of them is seen by all after it.
const TURN: usize = 0;
const PARTIES: usize = 4;
const STATE: usize = 8;
const LEFT: usize = 64;
const LENGTH: usize = LEFT + SLOTS as usize * size_of::<Word>();

static KIND: Kind = Kind {
    name: "Barrier",
    number: u32::from_le_bytes(*b"barr"),
    length_min: LENGTH,
    bury,
    leave: |body, party| left(body, party).store(party.number()),
};

one_descriptor!(Barrier, KIND);

fn bury(body: View<'_>, dead: Party) {
    if left(body, dead).load() != dead.number() {
        Words::of(body).spoil(BrokenBarrier::PartyDied);
    }
}

fn left<'a>(body: View<'a>, party: Party) -> &'a Word {
    body.word(LEFT + party.slot() as usize * size_of::<Word>())
}

impl Barrier {
    /// For so many that wait: threads of any processes.
    ///
    /// # Errors
    /// None or more than 65,535 parties, or the system has no more descriptors or memory.
    pub fn new(parties: u32) -> Result<Barrier, Error> {
        if parties == 0 || parties > MOST {
            return Err(Error::invalid(format!("a barrier for {parties}: it has 1 to {MOST} parties")));
        }
        let region = Region::create(&KIND, LENGTH)?;
        region.body().word(PARTIES).store(parties);
        Ok(Barrier { region })
    }

    /// Waits until all have come. The number says who came when: 0 for the first, and the highest for the one that was waited for.
    ///
    /// # Errors
    /// The barrier is or was broken, or was reset. Who waits is told of a death within a tenth of a second.
    pub fn wait(&self) -> Result<usize, BrokenBarrier> {
        self.wait_until(Deadline::NEVER)
    }

    /// As [`wait`](Self::wait), for this long at most: then the barrier is broken for all.
    ///
    /// ```
    /// use procession::ipc::{Barrier, BrokenBarrier};
    /// use std::time::Duration;
    ///
    /// let start = Barrier::new(2)?;
    /// assert_eq!(start.wait_timeout(Duration::from_millis(5)), Err(BrokenBarrier::TimedOut));
    /// assert_eq!(start.wait(), Err(BrokenBarrier::TimedOut));
    /// start.reset();
    /// assert!(!start.is_broken());
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<usize, BrokenBarrier> {
        self.wait_until(Deadline::after(timeout))
    }

    /// Breaks it: all who wait, or come, are told.
    pub fn abort(&self) {
        self.words().spoil(BrokenBarrier::Aborted);
    }

    /// Makes it whole and empty again. Those who wait just now are told [`BrokenBarrier::Reset`].
    pub fn reset(&self) {
        // Those who are dead now must not break what comes.
        self.region.bury_dead();
        self.words().reset();
    }

    /// Whether it is broken. Looks whether a party has died.
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> bool {
        self.region.bury_dead();
        self.words().state().broken().is_some()
    }

    /// How many wait just now.
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> usize {
        let state = self.words().state();
        if state.broken().is_some() { 0 } else { state.come() as usize }
    }

    /// How many must come.
    pub fn parties(&self) -> usize {
        self.words().parties() as usize
    }

    fn wait_until(&self, deadline: Deadline) -> Result<usize, BrokenBarrier> {
        self.words().wait(deadline, || self.region.bury_dead()).map(|index| index as usize)
    }

    fn words(&self) -> Words<'_> {
        Words::of(self.region.body())
    }
}

const MOST: u32 = (1 << COME_BITS) - 1;
const COME_BITS: u32 = 16;
const BROKEN_BITS: u32 = 2;
const ROUND_BITS: u32 = 14;
const ENDS_BITS: u32 = 32;

/// The word, from the lowest bits: how many have come, why it is broken (0: it is not), the number of the round, and for each of the last 32
/// rounds whether it was reset instead of completed, the last one lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u64);

impl State {
    fn new(come: u32, broken: u32, round: u32, ends: u32) -> State {
        let round = round % (1 << ROUND_BITS);
        let high = u64::from(ends) << ROUND_BITS | u64::from(round);
        State((high << BROKEN_BITS | u64::from(broken)) << COME_BITS | u64::from(come & MOST))
    }

    fn bits(self, from: u32, count: u32) -> u32 {
        (self.0 >> from & ((1 << count) - 1)) as u32
    }

    fn come(self) -> u32 {
        self.bits(0, COME_BITS)
    }

    fn round(self) -> u32 {
        self.bits(COME_BITS + BROKEN_BITS, ROUND_BITS)
    }

    fn ends(self) -> u32 {
        self.bits(COME_BITS + BROKEN_BITS + ROUND_BITS, ENDS_BITS)
    }

    fn reason(self) -> u32 {
        self.bits(COME_BITS, BROKEN_BITS)
    }

    fn broken(self) -> Option<BrokenBarrier> {
        match self.reason() {
            0 => None,
            1 => Some(BrokenBarrier::PartyDied),
            2 => Some(BrokenBarrier::TimedOut),
            _ => Some(BrokenBarrier::Aborted),
        }
    }

    /// One more has come.
    fn and_one(self) -> State {
        State::new(self.come() + 1, 0, self.round(), self.ends())
    }

    /// The next round, empty. How this one ended is kept.
    fn next(self, was_reset: bool) -> State {
        State::new(0, 0, self.round() + 1, self.ends() << 1 | u32::from(was_reset))
    }

    /// The same round, which will not be completed.
    fn spoilt(self, why: BrokenBarrier) -> State {
        let reason = match why {
            BrokenBarrier::PartyDied => 1,
            BrokenBarrier::TimedOut => 2,
            BrokenBarrier::Aborted | BrokenBarrier::Reset => 3,
        };
        State::new(self.come(), reason, self.round(), self.ends())
    }

    /// How this round ended, if it has.
    fn end_of(self, round: u32) -> Option<Result<(), BrokenBarrier>> {
        let since = self.round().wrapping_sub(round) % (1 << ROUND_BITS);
        match since {
            0 => self.broken().map(Err),
            // Who comes so late that it is forgotten was passed by resets: a round is not completed without all.
            _ if since > ENDS_BITS || self.ends() >> (since - 1) & 1 != 0 => Some(Err(BrokenBarrier::Reset)),
            _ => Some(Ok(())),
        }
    }
}

pub(super) struct Words<'a> {
    turn: &'a Word,
    state: &'a Long,
    parties: &'a Word,
}

impl<'a> Words<'a> {
    pub(super) fn of(body: View<'a>) -> Words<'a> {
        Words { turn: body.word(TURN), state: body.long(STATE), parties: body.word(PARTIES) }
    }

    fn state(&self) -> State {
        State(self.state.load())
    }

    fn parties(&self) -> u32 {
        self.parties.load()
    }

    /// Changes the state, and tells all. What it was, or why it was left alone.
    fn change<E>(&self, to: impl Fn(State) -> Result<State, E>) -> Result<State, E> {
        let mut state = self.state();
        loop {
            match self.state.replace(state.0, to(state)?.0) {
                Ok(()) => break,
                Err(now) => state = State(now),
            }
        }
        Ok(state)
    }

    fn tell_all(&self) {
        self.turn.add(1);
        self.turn.wake(u32::MAX);
    }

    pub(super) fn spoil(&self, why: BrokenBarrier) {
        let spoilt = self.change(|state| if state.broken().is_some() { Err(()) } else { Ok(state.spoilt(why)) });
        if spoilt.is_ok() {
            self.tell_all();
        }
    }

    fn reset(&self) {
        let _ = self.change::<()>(|state| Ok(state.next(true)));
        self.tell_all();
    }

    pub(super) fn wait(&self, deadline: Deadline, look: impl Fn()) -> Result<u32, BrokenBarrier> {
        let is_last = |state: State| state.come() + 1 >= self.parties();
        let before = self.change(|state| match state.broken() {
            Some(why) => Err(why),
            None if is_last(state) => Ok(state.next(false)),
            None => Ok(state.and_one()),
        })?;
        if is_last(before) {
            self.tell_all();
            return Ok(before.come());
        }
        loop {
            let turn = self.turn.load();
            if let Some(end) = self.state().end_of(before.round()) {
                return end.map(|()| before.come());
            }
            if deadline.has_passed() {
                self.give_up(before.round());
                continue;
            }
            let next = Deadline::after(LOOK);
            self.turn.sleep(turn, deadline.earlier(next));
            if next.has_passed() {
                look();
            }
        }
    }

    /// Breaks the round unless it is over.
    fn give_up(&self, round: u32) {
        let spoilt = self.change(|state| match state.end_of(round) {
            Some(_) => Err(()),
            None => Ok(state.spoilt(BrokenBarrier::TimedOut)),
        });
        if spoilt.is_ok() {
            self.tell_all();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn rounds_are_known_by_how_they_ended() {
        let mut state = State::new(0, 0, (1 << ROUND_BITS) - 2, 0);
        let first = state.round();
        for was_reset in [false, true, false, false] {
            state = state.and_one().next(was_reset);
        }
        assert_eq!(state.round(), 2);
        let end = |rounds: u32| state.end_of((first + rounds) % (1 << ROUND_BITS));
        assert_eq!(end(0), Some(Ok(())));
        assert_eq!(end(1), Some(Err(BrokenBarrier::Reset)));
        assert_eq!(end(2), Some(Ok(())));
        assert_eq!(end(4), None);
        let spoilt = state.and_one().spoilt(BrokenBarrier::TimedOut);
        assert_eq!(spoilt.end_of(state.round()), Some(Err(BrokenBarrier::TimedOut)));
        assert_eq!((spoilt.come(), spoilt.end_of(first)), (1, Some(Ok(()))));
        let late = (0..40).fold(state, |state, _| state.next(true));
        assert_eq!(late.end_of(state.round()), Some(Err(BrokenBarrier::Reset)));
    }

    #[test]
    fn who_leaves_in_order_breaks_nothing() {
        let barrier = Barrier::new(2).unwrap();
        let memory = barrier.as_fd().try_clone_to_owned().unwrap();
        let other = Barrier { region: Region::attach_as_another(&KIND, memory).unwrap() };
        let third = other.clone();
        drop(other);
        drop(third);
        assert!(!barrier.is_broken());
    }

    #[test]
    fn all_go_on_in_many_rounds() {
        const ROUNDS: usize = 500;
        let barrier = Barrier::new(3).unwrap();
        let sums: Vec<std::sync::atomic::AtomicUsize> = (0..ROUNDS).map(|_| 0.into()).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for sum in &sums {
                        let index = barrier.wait().unwrap();
                        sum.fetch_add(1 << (8 * index), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(sums.into_iter().all(|sum| sum.into_inner() == 0x01_01_01));
    }

    #[test]
    fn resetting_sends_those_who_wait_away() {
        let barrier = Barrier::new(2).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| barrier.wait());
            while barrier.waiting() == 0 {
                std::thread::yield_now();
            }
            barrier.reset();
            assert_eq!(waiting.join().unwrap(), Err(BrokenBarrier::Reset));
        });
        barrier.abort();
        assert_eq!(barrier.wait(), Err(BrokenBarrier::Aborted));
        barrier.reset();
        assert_eq!(barrier.waiting(), 0);
        assert!(Barrier::new(0).unwrap_err().to_string().contains("1 to 65535"));
    }
}
