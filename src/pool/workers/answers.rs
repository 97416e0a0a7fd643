//! How an answer comes back from the thread of a pool whose workers live on: one that is waited for, and those of an iteration. Decides that everything is
//! answered exactly once, and how far the input is read ahead. Leaves to others what the bytes mean. Used by the pools of commands and of functions.

use super::inbox::wait_until;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a worker has answered, or why it has not.
pub(crate) type Answer<T = Vec<u8>> = Result<T, Error>;

/// Who is told of an answer. Told exactly once: who drops it tells that the pool is over.
pub(crate) struct Tell<T = Vec<u8>>(Option<Box<dyn FnOnce(Answer<T>) + Send>>);

impl<T> Tell<T> {
    pub(crate) fn new(tell: impl FnOnce(Answer<T>) + Send + 'static) -> Tell<T> {
        Tell(Some(Box::new(tell)))
    }

    /// The code of others is no reason for a panic here.
    pub(crate) fn tell(mut self, answer: Answer<T>) {
        self.say(answer);
    }

    /// The error goes to somebody else, and is told to nobody here.
    pub(crate) fn instead(mut self, error: Error) -> Error {
        self.0 = None;
        error
    }

    fn say(&mut self, answer: Answer<T>) {
        if let Some(tell) = self.0.take() {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| tell(answer)));
        }
    }
}

impl<T> Drop for Tell<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.say(Err(terminated()));
        }
    }
}

impl<T> fmt::Debug for Tell<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tell").finish_non_exhaustive()
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled).detail("cancelled")
}

pub(crate) fn terminated() -> Error {
    Error::new(ErrorKind::Cancelled).detail("the pool was terminated")
}

pub(crate) fn broken(why: &str) -> Error {
    Error::new(ErrorKind::Engine).detail(format!("the pool has no workers: {why}"))
}

/// An answer, when it is there.
#[derive(Debug)]
pub(crate) struct Slot<T = Vec<u8>> {
    answer: Mutex<Option<Answer<T>>>,
    is_there: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot { answer: Mutex::new(None), is_there: Condvar::new() }
    }
}

impl<T> Slot<T> {
    pub(crate) fn put(&self, answer: Answer<T>) {
        *self.lock() = Some(answer);
        self.is_there.notify_all();
    }

    /// Whether it is there by then.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let mut answer = self.lock();
        while answer.is_none() && !deadline.has_passed() {
            answer = wait_until(&self.is_there, answer, deadline);
        }
        answer.is_some()
    }

    /// Waits for it, and takes it.
    pub(crate) fn take(&self) -> Answer<T> {
        self.wait(Deadline::NEVER);
        self.lock().take().unwrap_or_else(|| Err(Error::invalid("a result that was taken already")))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Answer<T>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has come of an iteration and was not yielded yet.
#[derive(Debug)]
struct Gathered<T> {
    answers: Mutex<BTreeMap<u64, Answer<T>>>,
    has_come: Condvar,
}

impl<T> Gathered<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Answer<T>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An iteration over answers: how many items it may have with the pool, and which answer comes next.
#[derive(Debug)]
pub(crate) struct Gathering<T = Vec<u8>> {
    gathered: Arc<Gathered<T>>,
    in_order: bool,
    /// Nothing more will be submitted.
    is_exhausted: bool,
    pub(crate) submitted: u64,
    pub(crate) yielded: u64,
    look_ahead: u64,
}

impl<T: Send + 'static> Gathering<T> {
    /// `look_ahead`: at least 1.
    pub(crate) fn new(in_order: bool, look_ahead: usize) -> Gathering<T> {
        let look_ahead = look_ahead.max(1) as u64;
        let gathered = Arc::new(Gathered { answers: Mutex::default(), has_come: Condvar::new() });
        Gathering { gathered, in_order, is_exhausted: false, submitted: 0, yielded: 0, look_ahead }
    }

    /// Whether more items are wanted: many at a time, because each time costs.
    pub(crate) fn wants_more(&self) -> bool {
        !self.is_exhausted && self.unfinished() <= self.look_ahead / 2
    }

    /// Whether one more item may be submitted.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_exhausted && self.unfinished() < self.look_ahead
    }

    /// How many items have no answer yet, or one that was not yielded.
    fn unfinished(&self) -> u64 {
        self.submitted.saturating_sub(self.yielded)
    }

    /// Where the answer to one more item goes.
    pub(crate) fn place(&mut self) -> impl FnOnce(Answer<T>) + Send + 'static + use<T> {
        let (gathered, number) = (Arc::clone(&self.gathered), self.submitted);
        self.submitted += 1;
        move |answer| {
            gathered.lock().insert(number, answer);
            gathered.has_come.notify_one();
        }
    }

    /// The last item was submitted.
    pub(crate) fn end(&mut self) {
        self.is_exhausted = true;
    }

    /// Whether every answer was yielded.
    pub(crate) fn is_over(&self) -> bool {
        self.is_exhausted && self.submitted == self.yielded
    }

    /// Whether something is with the pool, or was not yielded.
    pub(crate) fn has_rest(&self) -> bool {
        self.submitted > self.yielded
    }

    /// The answer that comes next, if it comes in time. There must be an item without one that was yielded.
    pub(crate) fn next_until(&mut self, deadline: Deadline) -> Option<Answer<T>> {
        let mut answers = self.gathered.lock();
        loop {
            let found = match self.in_order {
                true => answers.remove(&self.yielded),
                false => answers.pop_first().map(|(_, answer)| answer),
            };
            if found.is_some() {
                self.yielded += 1;
                return found;
            }
            if deadline.has_passed() {
                return None;
            }
            answers = wait_until(&self.gathered.has_come, answers, deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_forgets_to_tell_tells_that_it_is_over() {
        let slot = Arc::new(Slot::default());
        let answered = Arc::clone(&slot);
        drop(Tell::new(move |answer| answered.put(answer)));
        assert!(slot.take().unwrap_err().is_cancelled());
        assert!(!slot.wait(Deadline::now()));
        let answered = Arc::clone(&slot);
        Tell::new(move |answer| answered.put(answer)).tell(Ok(vec![1]));
        assert_eq!(slot.take().unwrap(), [1]);
        Tell::new(|_| panic!("on purpose")).tell(Ok(vec![0]));
    }

    #[test]
    fn answers_come_in_order_or_as_they_come_and_not_too_many_at_a_time() {
        for in_order in [true, false] {
            let mut gathering = Gathering::new(in_order, 4);
            let mut places = Vec::new();
            while gathering.has_room() {
                places.push(gathering.place());
            }
            assert_eq!(places.len(), 4);
            assert!(!gathering.wants_more() && !gathering.is_over() && gathering.has_rest());
            assert!(gathering.next_until(Deadline::now()).is_none());
            let last = places.pop().unwrap();
            last(Ok(vec![3]));
            let early = gathering.next_until(Deadline::now());
            assert_eq!(early.is_none(), in_order);
            for (number, place) in places.into_iter().enumerate() {
                place(Ok(vec![number as u8]));
            }
            gathering.end();
            let mut rest = Vec::new();
            while !gathering.is_over() {
                rest.push(gathering.next_until(Deadline::now()).unwrap().unwrap()[0]);
            }
            assert_eq!(rest, if in_order { vec![0, 1, 2, 3] } else { vec![0, 1, 2] });
            assert!(!gathering.wants_more() && !gathering.has_room());
        }
    }

    #[test]
    fn more_is_wanted_when_half_was_yielded() {
        let mut gathering = Gathering::new(true, 4);
        (0..4).for_each(|_| gathering.place()(Ok(vec![0])));
        let wants: Vec<bool> = (0..4)
            .map(|_| {
                let wants = gathering.wants_more();
                gathering.next_until(Deadline::now()).unwrap().unwrap();
                wants
            })
            .collect();
        assert_eq!(wants, [false, false, true, true]);
    }
}
