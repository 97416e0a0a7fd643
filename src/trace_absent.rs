//! Twin of `trace` for a build without the feature: nothing is told, to nobody, at no cost.

use crate::error::Error;
use crate::output::{Stream, Usage};
use crate::status::ExitStatus;
use std::fmt::{Debug, Display};

/// Nobody listens.
#[derive(Debug)]
pub(crate) struct ChildSpan;

impl ChildSpan {
    #[inline(always)]
    pub(crate) fn new(_serial: u64, _pid: i32, _command: &str) -> ChildSpan {
        ChildSpan
    }

    #[inline(always)]
    pub(crate) fn spawned(&self, _route: impl Debug) {}

    #[inline(always)]
    pub(crate) fn input_refused(&self) {}

    #[inline(always)]
    pub(crate) fn stream_ended(&self, _stream: Stream, _bytes: impl FnOnce() -> u64) {}

    #[inline(always)]
    pub(crate) fn stream_cut_off(&self, _stream: Stream, _bytes: impl FnOnce() -> u64) {}

    #[inline(always)]
    pub(crate) fn timed_out(&self) {}

    #[inline(always)]
    pub(crate) fn stop_step(&self, _action: impl Display, _to: impl Display) {}

    #[inline(always)]
    pub(crate) fn exited(&self, _status: ExitStatus, _usage: Option<Usage>) {}

    #[inline(always)]
    pub(crate) fn dropped(&self) {}
}

#[inline(always)]
pub(crate) fn spawn_failed(_error: &Error) {}
