//! Where a filter or a target stands between two stages, what one writes comes by us. Decides when a stage is not read because the
//! next one has enough, and when the next one's input ends.

use crate::command::{CONTEXT, Opened};
use crate::communicate::{Talk, Watch};
use crate::machine::Machine;
use crate::output::Stream;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is relayed is handed out, and the next stage's input is held open for it.
pub(super) fn relay(machine: &mut Machine, place: usize, relays: &[usize]) {
    if relays.contains(&place) {
        machine.hand_out(Stream::Stdout, usize::MAX);
    }
    if place.checked_sub(1).is_some_and(|before| relays.contains(&before)) {
        machine.hold_input(true);
    }
}

/// Gives to a stage what came through the filters behind the one before.
pub(super) struct Relays<'a> {
    pub(super) relays: &'a [usize],
    pub(super) watch: &'a mut dyn Watch,
}

/// With so much still to be written, a stage's predecessor is not read for now.
pub(super) const WAITING_MAX: usize = 4 * CONTEXT;

impl Watch for Relays<'_> {
    fn see(&mut self, place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        if stream == Stream::Stdout && self.relays.contains(&place) {
            return ControlFlow::Continue(());
        }
        self.watch.see(place, stream, bytes)
    }

    fn end(&mut self, place: usize, stream: Stream) -> ControlFlow<()> {
        self.watch.end(place, stream)
    }

    fn look(&mut self, talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        for &place in self.relays {
            let (before, behind) = talks.split_at_mut(place + 1);
            if let (Some(from), Some(to)) = (before.last_mut(), behind.first_mut()) {
                hand_on(from, to);
            }
        }
        self.watch.look(talks)
    }
}

pub(super) fn hand_on(from: &mut Talk<'_>, to: &mut Talk<'_>) {
    let passed = from.machine.take_all(Stream::Stdout);
    if to.machine.input_is_open() && !to.reads_no_more() {
        if !passed.is_empty() {
            to.machine.add_input(Opened::Bytes(Arc::new(passed)));
        }
        from.state.is_paused = to.machine.input_waiting() > WAITING_MAX;
        if !from.machine.wants_to_read(Stream::Stdout) || from.state.is_over {
            to.machine.hold_input(false);
        }
    } else {
        // The writer learns from the broken pipe that nobody reads any more.
        from.child.stdout = None;
        from.state.is_paused = false;
    }
    if from.child.stdout.is_none() {
        from.machine.forget(Stream::Stdout);
    }
}
