//! A place in a manager where so many wait for each other. Decides what breaks it: a time that passes, a client that dies while it waits there.

use super::Managed;
use super::client::{Client, Handle};
use super::object::{Monitor, Waiting};
use super::proxy::{create_by, managed};
use super::server::put_on_shelf;
use super::waiting::{CLEAR, GIVE, LOOK, TAKE};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::barrier::BrokenBarrier;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A place in a manager's process where so many wait until all have come, from all machines.
///
/// Who dies while it waits there breaks it for the others. Who dies before it has come is not missed: a [timeout](Self::wait_timeout) breaks it then. That
/// is different from [`ipc::Barrier`](crate::ipc::Barrier), which knows its parties.
///
/// ```
/// use procession::ipc::{BrokenBarrier, Manager};
/// use std::time::Duration;
///
/// let manager = Manager::start()?;
/// let start = manager.barrier(2)?;
/// let other = start.clone();
/// let thread = std::thread::spawn(move || other.wait());
/// let mine = start.wait()?.unwrap();
/// assert_eq!(mine + thread.join().unwrap()?.unwrap(), 1);
/// assert_eq!(start.wait_timeout(Duration::from_millis(5))?, Err(BrokenBarrier::TimedOut));
/// start.reset()?;
/// assert!(!start.is_broken()?);
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Barrier {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Barrier);

const REASONS: [BrokenBarrier; 4] =
    [BrokenBarrier::PartyDied, BrokenBarrier::TimedOut, BrokenBarrier::Aborted, BrokenBarrier::Reset];

/// What a [`Barrier`] stands for.
#[derive(Debug)]
struct Meeting {
    parties: u64,
    come: u64,
    broken: Option<BrokenBarrier>,
    /// Goes up when a round has ended, in whatever way.
    round: u64,
    /// Those who have not heard yet how their round has ended, and how it has.
    told: HashMap<u64, (u64, Option<BrokenBarrier>)>,
}

/// A verb; and of who waits its place, from 1 on, and its round.
type Call = (u64, u64, u64);
/// A number, and why it is none, from 1 on.
type Answer = (u64, u8);

impl Meeting {
    fn new(parties: u64) -> Meeting {
        Meeting { parties, come: 0, broken: None, round: 0, told: HashMap::new() }
    }

    /// The round is over for all who are waiting.
    fn end(&mut self, why: Option<BrokenBarrier>, waiting: u64) {
        if waiting > 0 {
            self.told.insert(self.round, (waiting, why));
        }
        (self.come, self.round) = (0, self.round + 1);
    }

    fn breaks(&mut self, why: BrokenBarrier) {
        if self.broken.is_none() {
            self.broken = Some(why);
            self.end(Some(why), self.come);
        }
    }

    fn come(&mut self) -> Result<Option<u64>, BrokenBarrier> {
        if let Some(why) = self.broken {
            return Err(why);
        }
        self.come += 1;
        let place = self.come;
        if place < self.parties {
            return Ok(None);
        }
        self.end(None, place - 1);
        Ok(Some(place - 1))
    }

    /// How this round has ended, for one of those who were waiting.
    fn hear(&mut self, round: u64) -> Option<Option<BrokenBarrier>> {
        let (left, why) = self.told.get_mut(&round)?;
        *left -= 1;
        let (left, why) = (*left, *why);
        if left == 0 {
            self.told.remove(&round);
        }
        Some(why)
    }
}

fn broken(why: BrokenBarrier) -> Answer {
    (0, REASONS.iter().position(|reason| *reason == why).map_or(1, |place| place as u8 + 1))
}

impl Waiting for Meeting {
    type Call = Call;
    type Answer = Answer;

    fn attempt(&mut self, (verb, place, round): &mut Call, _: u64) -> Option<Answer> {
        match *verb {
            TAKE if *place == 0 => {
                (*place, *round) = (self.come + 1, self.round);
                match self.come() {
                    Ok(last) => last.map(|last| (last, 0)),
                    Err(why) => Some(broken(why)),
                }
            }
            TAKE => {
                let why = self.hear(*round)?;
                Some(why.map_or((*place - 1, 0), broken))
            }
            GIVE => {
                self.breaks(BrokenBarrier::Aborted);
                Some((0, 0))
            }
            CLEAR => {
                match self.broken.take() {
                    Some(_) => {}
                    None => self.end(Some(BrokenBarrier::Reset), self.come),
                }
                Some((0, 0))
            }
            LOOK => Some(self.broken.map_or((self.come, 0), broken)),
            _ => Some((self.parties, 0)),
        }
    }

    fn give_up(&mut self, (verb, place, round): &mut Call, _: u64, has_gone: bool) {
        if *verb != TAKE || *place == 0 {
            return;
        }
        // It was one of those who are told; if nobody has been told yet, it is what they are told.
        if *round == self.round {
            self.breaks(if has_gone { BrokenBarrier::PartyDied } else { BrokenBarrier::TimedOut });
        }
        self.hear(*round);
    }
}

pub(super) fn barrier(client: &Arc<Client>, parties: u64) -> Result<Barrier, Error> {
    if parties == 0 {
        return Err(Error::invalid("a barrier for nobody would never be passed"));
    }
    let make = |parties| put_on_shelf(Monitor::new(Meeting::new(parties)));
    Ok(Barrier::of_handle(create_by(client, make, &parties)?))
}

const PARTIES: u64 = CLEAR + 1;

impl Barrier {
    fn ask(&self, verb: u64, deadline: Deadline) -> Result<Result<u64, BrokenBarrier>, Error> {
        let (number, why) = self.handle.call::<Call, Answer>(&(verb, 0, 0), deadline)?;
        if why == 0 {
            return Ok(Ok(number));
        }
        let unknown = || Error::new(ErrorKind::Decode).detail("the manager has answered with an unknown reason");
        let reason = REASONS.get(usize::from(why) - 1).copied();
        reason.map(Err).ok_or_else(unknown)
    }

    /// Waits until all have come. The number says who came when: 0 for the first, and the highest for the one that was waited for.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call). The inner one: the barrier is or was broken, or was reset.
    pub fn wait(&self) -> Result<Result<u64, BrokenBarrier>, Error> {
        self.ask(TAKE, Deadline::NEVER)
    }

    /// As [`wait`](Self::wait), for so long at most: then the barrier is broken for all.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Result<u64, BrokenBarrier>, Error> {
        match self.ask(TAKE, Deadline::after(timeout)) {
            Err(error) if error.is_timeout() => Ok(Err(BrokenBarrier::TimedOut)),
            answer => answer,
        }
    }

    /// Breaks it: all who wait, or come, are told.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn abort(&self) -> Result<(), Error> {
        self.ask(GIVE, Deadline::NEVER).map(drop)
    }

    /// Makes it whole and empty again. Those who wait just now are told [`BrokenBarrier::Reset`].
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn reset(&self) -> Result<(), Error> {
        self.ask(CLEAR, Deadline::NEVER).map(drop)
    }

    /// Whether it is broken.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> Result<bool, Error> {
        Ok(self.ask(LOOK, Deadline::NEVER)?.is_err())
    }

    /// How many wait just now.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> Result<u64, Error> {
        Ok(self.ask(LOOK, Deadline::NEVER)?.unwrap_or(0))
    }

    /// How many must come.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn parties(&self) -> Result<u64, Error> {
        Ok(self.ask(PARTIES, Deadline::NEVER)?.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(meeting: &mut Meeting, call: &mut Call) -> Option<Answer> {
        meeting.attempt(call, 0)
    }

    #[test]
    fn rounds_follow_each_other_and_all_are_told() {
        let mut meeting = Meeting::new(3);
        for _ in 0..3 {
            let (mut one, mut two, mut three) = ((TAKE, 0, 0), (TAKE, 0, 0), (TAKE, 0, 0));
            assert_eq!((ask(&mut meeting, &mut one), ask(&mut meeting, &mut two)), (None, None));
            assert_eq!(ask(&mut meeting, &mut one), None);
            assert_eq!(ask(&mut meeting, &mut (LOOK, 0, 0)), Some((2, 0)));
            assert_eq!(ask(&mut meeting, &mut three), Some((2, 0)));
            // One of the next round comes before those of this one have heard of its end.
            let mut next = (TAKE, 0, 0);
            assert_eq!(ask(&mut meeting, &mut next), None);
            assert_eq!((ask(&mut meeting, &mut two), ask(&mut meeting, &mut one)), (Some((1, 0)), Some((0, 0))));
            ask(&mut meeting, &mut (CLEAR, 0, 0));
            assert_eq!(ask(&mut meeting, &mut next), Some((0, 4)));
        }
        assert!(meeting.told.is_empty());
    }

    #[test]
    fn who_gives_up_breaks_it() {
        for (has_gone, why) in [(true, BrokenBarrier::PartyDied), (false, BrokenBarrier::TimedOut)] {
            let mut meeting = Meeting::new(3);
            let (mut one, mut two) = ((TAKE, 0, 0), (TAKE, 0, 0));
            assert_eq!((ask(&mut meeting, &mut one), ask(&mut meeting, &mut two)), (None, None));
            meeting.give_up(&mut one, 0, has_gone);
            assert_eq!(ask(&mut meeting, &mut (TAKE, 0, 0)), Some(broken(why)));
            ask(&mut meeting, &mut (GIVE, 0, 0));
            assert_eq!(ask(&mut meeting, &mut two), Some(broken(why)));
            assert!(meeting.told.is_empty());
            ask(&mut meeting, &mut (CLEAR, 0, 0));
            assert_eq!(ask(&mut meeting, &mut (LOOK, 0, 0)), Some((0, 0)));
        }
        // Too late: all had come.
        let mut meeting = Meeting::new(2);
        let mut one = (TAKE, 0, 0);
        assert_eq!((ask(&mut meeting, &mut one), ask(&mut meeting, &mut (TAKE, 0, 0))), (None, Some((1, 0))));
        meeting.give_up(&mut one, 0, true);
        assert!(meeting.broken.is_none() && meeting.told.is_empty());
    }
}
