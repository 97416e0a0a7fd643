//! How an answer comes back from the thread of a pool whose workers live on: one that is waited for, and those of an iteration. Decides that everything is
//! answered exactly once, and how far the input is read ahead. Leaves to others what the bytes mean. Used by the pools of commands and of functions.

#[cfg(feature = "future")]
use super::inbox::add_waker;
use super::inbox::wait_until;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
#[cfg(feature = "future")]
use std::task::{Context, Poll};

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
    state: Mutex<Held<T>>,
    has_come: Condvar,
}

#[derive(Debug)]
struct Held<T> {
    answer: Option<Answer<T>>,
    /// It may have been taken since.
    has_come: bool,
    /// The tasks that wait for it.
    wakers: Vec<Waker>,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        let held = Held { answer: None, has_come: false, wakers: Vec::new() };
        Slot { state: Mutex::new(held), has_come: Condvar::new() }
    }
}

impl<T> Slot<T> {
    pub(crate) fn put(&self, answer: Answer<T>) {
        let mut held = self.lock();
        (held.answer, held.has_come) = (Some(answer), true);
        let wakers = std::mem::take(&mut held.wakers);
        drop(held);
        self.has_come.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether it has come by then.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let mut held = self.lock();
        while !held.has_come && !deadline.has_passed() {
            held = wait_until(&self.has_come, held, deadline);
        }
        held.has_come
    }

    /// Waits for a task until it has come. The task is woken then.
    #[cfg(feature = "future")]
    pub(crate) fn poll_wait(&self, task: &mut Context<'_>) -> Poll<()> {
        let mut held = self.lock();
        if held.has_come {
            return Poll::Ready(());
        }
        add_waker(&mut held.wakers, task);
        Poll::Pending
    }

    /// Waits for it, and takes it.
    pub(crate) fn take(&self) -> Answer<T> {
        self.wait(Deadline::NEVER);
        self.lock().answer.take().unwrap_or_else(|| Err(Error::invalid("a result that was taken already")))
    }

    fn lock(&self) -> MutexGuard<'_, Held<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has come of an iteration and was not yielded yet.
#[derive(Debug)]
struct Gathered<T> {
    state: Mutex<Kept<T>>,
    has_come: Condvar,
}

#[derive(Debug)]
struct Kept<T> {
    answers: BTreeMap<u64, Answer<T>>,
    /// The task that waits, and for which answer, if not for any.
    waits: Option<(Waker, Option<u64>)>,
}

impl<T> Gathered<T> {
    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let kept = Kept { answers: BTreeMap::new(), waits: None };
        let gathered = Arc::new(Gathered { state: Mutex::new(kept), has_come: Condvar::new() });
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
            let mut kept = gathered.lock();
            kept.answers.insert(number, answer);
            let waits = kept.waits.take_if(|(_, wanted)| wanted.is_none_or(|wanted| wanted == number));
            drop(kept);
            gathered.has_come.notify_one();
            waits.into_iter().for_each(|(waker, _)| waker.wake());
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
        let mut kept = self.gathered.lock();
        loop {
            let found = kept.take(self.in_order.then_some(self.yielded));
            if found.is_some() {
                self.yielded += 1;
                return found;
            }
            if deadline.has_passed() {
                return None;
            }
            kept = wait_until(&self.gathered.has_come, kept, deadline);
        }
    }

    /// As [`next_until`](Self::next_until), for a task, which is woken when it comes.
    #[cfg(feature = "future")]
    pub(crate) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Answer<T>> {
        let wanted = self.in_order.then_some(self.yielded);
        let mut kept = self.gathered.lock();
        match kept.take(wanted) {
            Some(answer) => {
                self.yielded += 1;
                Poll::Ready(answer)
            }
            None => {
                kept.waits = Some((task.waker().clone(), wanted));
                Poll::Pending
            }
        }
    }
}

impl<T> Kept<T> {
    /// This one, or any.
    fn take(&mut self, wanted: Option<u64>) -> Option<Answer<T>> {
        match wanted {
            Some(number) => self.answers.remove(&number),
            None => self.answers.pop_first().map(|(_, answer)| answer),
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
        assert!(slot.wait(Deadline::now()) && slot.take().unwrap_err().is_invalid_input(), "it was taken");
        let answered = Arc::clone(&slot);
        Tell::new(move |answer| answered.put(answer)).tell(Ok(vec![1]));
        assert_eq!(slot.take().unwrap(), [1]);
        Tell::new(|_| panic!("on purpose")).tell(Ok(vec![0]));
    }

    #[cfg(feature = "future")]
    #[test]
    fn tasks_are_woken_once_each_and_for_what_they_wait_for() {
        use std::sync::atomic::{AtomicU32, Ordering};
        use std::task::Wake;

        #[derive(Default)]
        struct Count(AtomicU32);

        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let woken = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
        let wakers = counts.each_ref().map(|count| Waker::from(Arc::clone(count)));
        let mut tasks = wakers.each_ref().map(Context::from_waker);

        let slot = Slot::default();
        for task in tasks.iter_mut().chain([&mut Context::from_waker(&wakers[0])]) {
            assert!(slot.poll_wait(task).is_pending());
        }
        slot.put(Ok(vec![1]));
        assert_eq!(woken(), [1, 1]);
        assert!(tasks.iter_mut().all(|task| slot.poll_wait(task).is_ready()));

        for in_order in [true, false] {
            let mut gathering = Gathering::new(in_order, 4);
            let (first, second) = (gathering.place(), gathering.place());
            let before = woken()[0];
            assert!(gathering.poll_next(&mut tasks[0]).is_pending());
            second(Ok(vec![2]));
            assert_eq!(woken()[0], before + u32::from(!in_order));
            first(Ok(vec![1]));
            assert_eq!(woken()[0], before + 1);
            assert!(matches!(gathering.poll_next(&mut tasks[0]), Poll::Ready(Ok(bytes)) if bytes == [1]));
            assert!(matches!(gathering.poll_next(&mut tasks[0]), Poll::Ready(Ok(bytes)) if bytes == [2]));
            assert_eq!(gathering.yielded, 2);
        }
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
