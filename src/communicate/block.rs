//! The blocking driver: waits with one `ppoll`, on the caller's thread.

use crate::communicate::{Driver, Talk, Waiter, answer, wanted};
use crate::error::Error;
use crate::sys::poll;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Whoever calls waits.
#[derive(Debug)]
struct Blocking;

impl Driver for Blocking {
    fn wait(&mut self, _task: &mut Context<'_>, talks: &mut [Talk<'_>]) -> Poll<Result<(), Error>> {
        let mut wanted = wanted(talks);
        poll::wait(&mut wanted.entries, wanted.until.moment()).map_err(|error| Error::io("poll", error))?;
        let answers: Vec<bool> = wanted.entries.iter().map(poll::is_ready).collect();
        let asked = wanted.asked;
        answer(talks, asked, answers);
        Poll::Ready(Ok(()))
    }

    fn never_blocks(&self) -> bool {
        false
    }
}

/// Waits for a blocking verb.
pub(crate) fn waiter() -> Waiter {
    Box::new(Blocking)
}

/// The result of what waits by blocking: it is never pending.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut task) = (pin!(future), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut task) {
            return result;
        }
    }
}
