//! What processes share, awaited. Decides how a verb that can be tried without waiting is made one that is awaited: it is tried, and its descriptor
//! is waited for. What a try does and leaves behind is for `ipc`, so a future that is dropped has done what its tries have done, and no more.

mod connection;
mod listener;
mod packets;
mod pool;
mod process;
mod signs;

use super::readiness::Readiness;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::poll::PollFd;
use std::future::poll_fn;
use std::task::{Poll, ready};

/// What a try has brought.
enum Try<T> {
    Answer(T),
    /// It has to wait. This is the answer if no time is left.
    Wait(T),
}

/// Tries until there is an answer. `spot` says which descriptor tells when to try again, and when to do so in any case.
async fn tried<O, T>(
    object: &mut O,
    deadline: Deadline,
    mut attempt: impl FnMut(&mut O) -> Try<T>,
    spot: impl Fn(&O) -> (PollFd<'_>, Deadline),
) -> Result<T, Error> {
    let mut readiness = Readiness::here()?;
    poll_fn(|task| {
        loop {
            // First the time: what comes before its end is found.
            let is_late = deadline.has_passed();
            match attempt(object) {
                Try::Answer(answer) => return Poll::Ready(Ok(answer)),
                Try::Wait(answer) if is_late => return Poll::Ready(Ok(answer)),
                Try::Wait(_) => {}
            }
            let (entry, until) = spot(object);
            ready!(readiness.wait(task, &mut [entry], deadline.earlier(until), &mut true))?;
        }
    })
    .await
}

/// A timeout is an answer only if no time is left.
fn unless_late<T>(answer: Result<T, Error>) -> Try<Result<T, Error>> {
    if answer.as_ref().is_err_and(Error::is_timeout) { Try::Wait(answer) } else { Try::Answer(answer) }
}

/// A fact that may still come about.
fn once(fact: bool) -> Try<bool> {
    if fact { Try::Answer(true) } else { Try::Wait(false) }
}
