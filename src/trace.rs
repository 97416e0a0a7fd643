//! What happens to each child, told to `tracing`: one span per child, and an event for every turn it takes. Decides names, fields
//! and levels; the places where things happen only say that they do. Without the feature its twin says nothing.

use crate::error::Error;
use crate::output::{Stream, Usage};
use crate::status::ExitStatus;
use std::fmt::{Debug, Display};
use tracing::{Span, debug, error, info, info_span, warn};

/// The span of one child. It ends when the last handle is gone.
#[derive(Debug)]
pub(crate) struct ChildSpan(Span);

impl ChildSpan {
    /// Within the span that is current now: the one of who spawns.
    pub(crate) fn new(serial: u64, pid: i32, command: &str) -> ChildSpan {
        ChildSpan(info_span!(target: "procession", "child", id = serial, pid, command))
    }

    pub(crate) fn spawned(&self, route: impl Debug) {
        debug!(target: "procession", parent: &self.0, ?route, "spawned");
    }

    pub(crate) fn input_refused(&self) {
        info!(target: "procession", parent: &self.0, "input refused");
    }

    pub(crate) fn stream_ended(&self, stream: Stream, bytes: impl FnOnce() -> u64) {
        debug!(target: "procession", parent: &self.0, ?stream, bytes = bytes(), "stream ended");
    }

    pub(crate) fn stream_cut_off(&self, stream: Stream, bytes: impl FnOnce() -> u64) {
        warn!(target: "procession", parent: &self.0, ?stream, bytes = bytes(), "stream cut off");
    }

    pub(crate) fn timed_out(&self) {
        warn!(target: "procession", parent: &self.0, "timed out");
    }

    pub(crate) fn stop_step(&self, action: impl Display, to: impl Display) {
        info!(target: "procession", parent: &self.0, %action, %to, "stop step");
    }

    pub(crate) fn exited(&self, status: ExitStatus, usage: Option<Usage>) {
        let usage = usage.as_ref().map(tracing::field::debug);
        debug!(target: "procession", parent: &self.0, %status, usage, "exited");
    }

    pub(crate) fn dropped(&self) {
        info!(target: "procession", parent: &self.0, "dropped while running");
    }
}

/// There is no child, and so no span.
pub(crate) fn spawn_failed(error: &Error) {
    error!(target: "procession", %error, "spawn failed");
}
