//! A state and those who wait for it to be as they need it: what events, queues and locks are made of. Decides who goes first. Knows wakers only, so it
//! works on every runtime and between threads.
//!
//! Nothing is handed over: who waits is called, looks for itself, and takes inside its own poll. So whoever is dropped while it waits has taken
//! nothing; if it had been called, the next one in its line is called instead.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A line in which the first goes first, and alone.
pub(super) const FIRST: usize = 0;
/// Another one.
pub(super) const SECOND: usize = 1;
/// Those who all go at once.
pub(super) const ALL: usize = 2;

pub(super) trait State {
    /// Whether somebody in this line has something to do.
    fn calls(&self, line: usize) -> bool;
}

#[derive(Debug)]
pub(super) struct Monitor<S> {
    inner: Mutex<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    state: S,
    /// By arrival. Without a waker: was called, and has not looked yet.
    lines: [BTreeMap<u64, Option<Waker>>; 3],
    last: u64,
}

/// A place in a line.
struct Ticket<'a, S: State> {
    monitor: &'a Monitor<S>,
    line: usize,
    number: Option<u64>,
}

/// Who is to be woken when nothing is locked any more.
#[derive(Default)]
struct Calls([Option<Waker>; 2], Vec<Waker>);

impl Calls {
    fn wake(self) {
        self.0.into_iter().flatten().chain(self.1).for_each(Waker::wake);
    }
}

impl<S: State> Monitor<S> {
    pub(super) const fn new(state: S) -> Monitor<S> {
        let lines = [const { BTreeMap::new() }; 3];
        Monitor { inner: Mutex::new(Inner { state, lines, last: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.lock().state)
    }

    /// Changes the state, and calls whoever can go on now.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner.state);
        let calls = inner.calls();
        drop(inner);
        calls.wake();
        result
    }

    /// Tries without waiting, unless somebody in this line was here before.
    pub(super) fn attempt<R>(&self, line: usize, attempt: impl FnOnce(&mut S) -> Option<R>) -> Option<R> {
        let mut inner = self.lock();
        if line != ALL && inner.lines.get(line).is_some_and(|line| !line.is_empty()) {
            return None;
        }
        let result = attempt(&mut inner.state)?;
        let calls = inner.calls();
        drop(inner);
        calls.wake();
        Some(result)
    }

    /// Tries until it succeeds. Nothing is changed before.
    pub(super) async fn wait<R>(&self, line: usize, mut attempt: impl FnMut(&mut S) -> Option<R>) -> R {
        let mut ticket = Ticket { monitor: self, line, number: None };
        poll_fn(|context| ticket.poll(context, &mut attempt)).await
    }
}

impl<S: State> Inner<S> {
    fn calls(&mut self) -> Calls {
        let mut calls = Calls::default();
        let [first, second, all] = &mut self.lines;
        for (number, (line, call)) in [first, second].into_iter().zip(&mut calls.0).enumerate() {
            if let Some(mut first) = line.first_entry()
                && self.state.calls(number)
            {
                *call = first.get_mut().take();
            }
        }
        if !all.is_empty() && self.state.calls(ALL) {
            calls.1 = all.values_mut().filter_map(Option::take).collect();
        }
        calls
    }
}

impl<S: State> Ticket<'_, S> {
    fn poll<R>(&mut self, context: &Context<'_>, attempt: &mut impl FnMut(&mut S) -> Option<R>) -> Poll<R> {
        let mut guard = self.monitor.lock();
        let inner = &mut *guard;
        let Some(line) = inner.lines.get_mut(self.line) else { return Poll::Pending };
        let is_first = line.keys().next().is_none_or(|first| Some(*first) == self.number);
        if (is_first || self.line == ALL)
            && let Some(result) = attempt(&mut inner.state)
        {
            self.number.take().and_then(|number| line.remove(&number));
            let calls = inner.calls();
            drop(guard);
            calls.wake();
            return Poll::Ready(result);
        }
        let number = self.number.unwrap_or(inner.last + 1);
        inner.last = inner.last.max(number);
        self.number = Some(number);
        match line.entry(number).or_default() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<S: State> Drop for Ticket<'_, S> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut inner = self.monitor.lock();
        inner.lines.get_mut(self.line).and_then(|line| line.remove(&number));
        let calls = inner.calls();
        drop(inner);
        calls.wake();
    }
}
