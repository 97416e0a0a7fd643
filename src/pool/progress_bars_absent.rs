//! Twin of `progress_bars` for a build without the feature: there are no bars, so `progress` writes lines.

use super::progress::Board;
use std::time::Instant;

/// There is none.
#[derive(Debug)]
pub(super) enum Bars {}

impl Bars {
    pub(super) fn on_stderr() -> Option<Bars> {
        None
    }

    pub(super) fn draw(&mut self, _board: &Board, _now: Instant) {
        match *self {}
    }

    pub(super) fn columns(&self) -> usize {
        match *self {}
    }

    pub(super) fn hide(&mut self) {
        match *self {}
    }

    pub(super) fn say(&mut self, _line: &str) {
        match *self {}
    }
}
