//! A wish from outside that the whole run end: ^C, a hang-up, a polite kill. Decides what the first, the second and any further signal
//! mean, which signals are copies of others, and when the terminal is put right. How signals are caught is decided in `sys`; what runs,
//! and who is reached, is known to `core` and to the engines.

use super::lanes::Shared;
use crate::error::Error;
use crate::signal::Signal;
use crate::sys::interrupt::{Heard, Watch};
use crate::sys::terminal::Tidy;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a signal means for the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No new ones; those that run are told, and may finish.
    Ask,
    /// Those that run are stopped, each by its plan.
    Stop,
    /// They are killed.
    Kill,
}

/// How far the end of a run has come. Pure.
#[derive(Debug, Default)]
pub(super) struct Interruption {
    /// How long those that run may take after the first signal.
    pub(super) grace: Duration,
    first: Option<Heard>,
    last: Option<Heard>,
    stage: Option<Stage>,
    until: Option<Instant>,
}

/// Whoever has started us may pass on what the terminal sends to both of us. So long after it the same signal is a copy.
const COPY_WITHIN: Duration = Duration::from_millis(200);

impl Interruption {
    /// A signal has come. What is to be done, unless nothing is.
    pub(super) fn hear(&mut self, heard: Heard, now: Instant) -> Option<Stage> {
        if self.last.is_some_and(|last| is_copy(last, heard)) {
            return None;
        }
        self.first = self.first.or(Some(heard));
        self.last = Some(heard);
        let stage = match self.stage {
            None => Stage::Ask,
            Some(Stage::Ask) => Stage::Stop,
            Some(_) => Stage::Kill,
        };
        self.stage = Some(stage);
        self.until = if stage == Stage::Ask { now.checked_add(self.grace) } else { None };
        Some(stage)
    }

    /// The grace is over, now and not before.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.until.is_none_or(|until| now < until) {
            return false;
        }
        (self.until, self.stage) = (None, Some(Stage::Stop));
        true
    }

    /// When the grace is over.
    pub(super) fn moment(&self) -> Option<Instant> {
        self.until
    }

    /// The first signal that has come.
    pub(super) fn signal(&self) -> Option<Signal> {
        self.first.and_then(|heard| Signal::from_number(heard.number))
    }
}

/// A person who types a signal twice does it by the same way twice.
fn is_copy(last: Heard, heard: Heard) -> bool {
    let is_same = last.number == heard.number && last.by_terminal != heard.by_terminal;
    is_same && heard.at.saturating_duration_since(last.at) < COPY_WITHIN
}

/// Listens for signals, on a thread of its own, as long as it lives.
#[derive(Debug)]
pub(super) struct Listener {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Listener, Error> {
        let watch = Watch::begin().map_err(|error| Error::io("sigaction", error))?;
        let watch = watch.ok_or_else(|| Error::invalid("another pool of this program is interruptible"))?;
        // From here on dropping it lets go of the signals.
        let mut listener = Listener { watch: Arc::new(watch), thread: None };
        let (watch, shared) = (Arc::clone(&listener.watch), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("procession-signals".to_owned());
        let thread = thread.spawn(move || listen(&watch, &shared));
        listener.thread = Some(thread.map_err(|error| Error::io("thread", error))?);
        Ok(listener)
    }
}

fn listen(watch: &Watch, shared: &Arc<Shared>) {
    // Without a signal that can be heard there is nothing to do here.
    while let Ok(Some(heard)) = watch.next() {
        if !shared.interrupt(heard) {
            watch.pass_on(heard.number);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.watch.end();
        if let Some(thread) = self.thread.take() {
            // It has no callbacks that could panic.
            let _ = thread.join();
        }
    }
}

/// The terminal as it was when the pool was made.
#[derive(Debug, Default)]
pub(super) struct Desk(Option<Tidy>);

impl Desk {
    pub(super) fn now() -> Desk {
        Desk(Tidy::now())
    }

    /// Puts the terminal right.
    pub(super) fn tidy_up(&self) {
        if let Some(tidy) = &self.0 {
            // A terminal that has gone needs nothing.
            let _ = tidy.put_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_is_one_step_and_a_copy_is_none() {
        let start = Instant::now();
        let (int, term) = (libc::SIGINT, libc::SIGTERM);
        let (typed, sent) = (true, false);
        for (signals, expected) in [
            (vec![(int, typed, 0)], vec![Some(Stage::Ask)]),
            (vec![(int, typed, 0), (int, typed, 1)], vec![Some(Stage::Ask), Some(Stage::Stop)]),
            (vec![(int, typed, 0), (int, sent, 1)], vec![Some(Stage::Ask), None]),
            (vec![(int, sent, 0), (int, typed, 199)], vec![Some(Stage::Ask), None]),
            (vec![(int, sent, 0), (int, typed, 200)], vec![Some(Stage::Ask), Some(Stage::Stop)]),
            (vec![(int, typed, 0), (term, sent, 1)], vec![Some(Stage::Ask), Some(Stage::Stop)]),
            (
                vec![(term, sent, 0), (term, sent, 0), (term, sent, 0), (int, typed, 0)],
                vec![Some(Stage::Ask), Some(Stage::Stop), Some(Stage::Kill), Some(Stage::Kill)],
            ),
        ] {
            let mut interruption = Interruption::default();
            assert_eq!(interruption.signal(), None);
            let stages = signals.iter().map(|&(number, by_terminal, millis)| {
                let at = start + Duration::from_millis(millis);
                interruption.hear(Heard { number, by_terminal, at }, at)
            });
            assert_eq!(stages.collect::<Vec<_>>(), expected, "{signals:?}");
            assert_eq!(interruption.signal().map(Signal::number), signals.first().map(|signal| signal.0));
        }
    }

    #[test]
    fn the_end_of_the_grace_is_the_second_signal() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let heard = |millis| Heard { number: libc::SIGINT, by_terminal: true, at: at(millis) };
        let mut interruption = Interruption { grace: Duration::from_millis(50), ..Interruption::default() };
        assert!(!interruption.is_due(at(0)));
        assert_eq!(interruption.hear(heard(0), at(0)), Some(Stage::Ask));
        assert_eq!(interruption.moment(), Some(at(50)));
        assert!(!interruption.is_due(at(49)) && interruption.is_due(at(50)) && !interruption.is_due(at(51)));
        assert_eq!((interruption.moment(), interruption.hear(heard(60), at(60))), (None, Some(Stage::Kill)));
        let mut interruption = Interruption { grace: Duration::MAX, ..Interruption::default() };
        assert_eq!((interruption.hear(heard(0), at(0)), interruption.moment()), (Some(Stage::Ask), None));
        assert_eq!((interruption.hear(heard(1), at(1)), interruption.moment()), (Some(Stage::Stop), None));
    }
}
