//! What a child keeps of its command, shared by all children of it.

use super::Limit;
use crate::output::Accepted;
use crate::stop::Stop;
use crate::text::Text;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How a child's output is kept, how its end is judged, and how it is stopped.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What is kept of standard output and error; `None` lets the verb choose.
    pub(crate) limits: [Option<Limit>; 2],
    pub(crate) transcript: bool,
    pub(crate) line_max: usize,
    pub(crate) accepted: Accepted,
    pub(crate) text: Text,
    pub(crate) stop: Stop,
    pub(crate) drain: Duration,
}

impl Settings {
    /// Those of a command that says nothing.
    pub(super) fn unsaid() -> Arc<Settings> {
        static UNSAID: LazyLock<Arc<Settings>> = LazyLock::new(|| {
            Arc::new(Settings {
                limits: [None, None],
                transcript: false,
                line_max: 1 << 20,
                accepted: Accepted::Zero,
                text: Text::utf8(),
                stop: Stop::default(),
                drain: Duration::from_secs(1),
            })
        });
        Arc::clone(&UNSAID)
    }
}
