//! The course of a conversation with a child: how far it has come, beyond what the child and the machine know by themselves. Data, which
//! stays with the child while nobody drives the conversation.

use crate::error::Error;
use crate::explain::Explanation;
use crate::handle::Stopper;
use crate::output::{Cause, ProcessEntry};
use crate::sys::procfs::Channel;
use std::time::Duration;

/// Which ends a transfer will not block on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) stdin: bool,
    pub(crate) streams: [bool; 2],
    /// Whoever wrote to it has gone: not even its end is to be waited for.
    pub(crate) hung_up: [bool; 2],
}

/// How far a conversation has come, beyond what the child and the machine know by themselves.
pub(crate) struct State {
    pub(crate) closing: Closing,
    pub(crate) ready: Ready,
    /// The process has ended; it is not reaped before the conversation is over.
    pub(crate) exited: bool,
    pub(crate) stopper: Option<Box<Stopping>>,
    /// Which pipes were asked to be larger: standard input, output and error.
    pub(crate) grown: [bool; 3],
    /// Which of standard output and error return at once from a read that finds nothing.
    pub(crate) nonblocking: [bool; 2],
    /// Up to which length the buffers of standard output and error have memory behind them, once one of them is large.
    pub(crate) prepared: Option<Box<[usize; 2]>>,
    /// The driver has others to wait for: nothing is waited for inside.
    pub(crate) never_blocks: bool,
    /// A transfer has failed: nothing more is moved, the process is only stopped.
    pub(crate) is_broken: bool,
    /// Who looks on has seen enough, or a target has failed: the process is to be stopped.
    pub(crate) has_seen_enough: bool,
    /// Nothing is waited for any more.
    pub(crate) is_over: bool,
    /// Standard output is not read for now: whoever gets it has enough.
    pub(crate) is_paused: bool,
}

/// A stop in progress, and the pipes that its process writes to.
pub(crate) struct Stopping {
    pub(crate) stopper: Stopper,
    pub(crate) pipes: Vec<Channel>,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            closing: Closing::from(Cause::Ended),
            // What can be written now need not be waited for; what can be read now is most likely nothing.
            ready: Ready { stdin: true, ..Ready::default() },
            exited: false,
            stopper: None,
            grown: [false; 3],
            nonblocking: [false; 2],
            prepared: None,
            never_blocks: false,
            is_broken: false,
            has_seen_enough: false,
            is_over: false,
            is_paused: false,
        }
    }

    /// How it ended. Of a conversation that goes on, as if it had.
    pub(crate) fn into_closing(self) -> Closing {
        self.closing
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopper.is_some()
    }
}

/// How a conversation came to its end.
#[derive(Debug)]
pub(crate) struct Closing {
    /// Why it is over.
    pub(crate) cause: Cause,
    pub(crate) left: Option<Box<Left>>,
    /// What a target or a filter failed with, first.
    pub(crate) failure: Option<Error>,
}

/// What there is to say of the end, if there is anything.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// How long the run took, where the record may be made much later.
    pub(crate) elapsed: Option<Duration>,
    /// Who was alive after a stop.
    pub(crate) survivors: Vec<ProcessEntry>,
    /// Why.
    pub(crate) explanation: Option<Box<Explanation>>,
}

impl From<Cause> for Closing {
    fn from(cause: Cause) -> Closing {
        Closing { cause, left: None, failure: None }
    }
}
