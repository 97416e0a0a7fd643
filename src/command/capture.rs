//! How much of a child's output is kept, as a value.

use std::path::PathBuf;

/// What happens when a child writes more than the limit.
///
/// ```
/// use procession::{Command, Overflow};
///
/// let seq = Command::new("seq").arg("100000");
/// let head = seq.clone().capture_limit(4, Overflow::Head).output()?;
/// assert_eq!(head.stdout(), b"1\n2\n");
/// let tail = seq.capture_limit(7, Overflow::Tail).output()?;
/// assert_eq!(tail.stdout(), b"100000\n");
/// assert_eq!(tail.captured_stdout().dropped(), 588_888);
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The run fails: the child is stopped, and the error holds what was read up to the limit.
    #[default]
    Fail,
    /// The first bytes are kept; the rest is read and counted.
    Head,
    /// The last bytes are kept; those before are counted.
    Tail,
    /// Half of the limit is kept from the beginning and half from the end.
    HeadTail,
    /// The first bytes are kept, and as soon as there are more the whole output is written to this file: memory holds the
    /// beginning and the file all of it. See [`Captured::spilled`](crate::Captured::spilled). The file is created, or emptied, when
    /// the command is started.
    Spill(PathBuf),
}

/// A limit for a captured stream, and what happens beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) bytes_max: usize,
    pub(crate) overflow: Overflow,
}

/// One gibibyte, then fail: for verbs that collect.
impl Default for Limit {
    fn default() -> Limit {
        Limit { bytes_max: 1 << 30, overflow: Overflow::Fail }
    }
}

impl Limit {
    /// How much is kept of what is shown to somebody as it comes: enough for an error to say what happened last.
    pub(crate) const SHOWN: Limit = Limit { bytes_max: CONTEXT, overflow: Overflow::Tail };
}

/// How much of the end of a stream is kept for errors.
pub(crate) const CONTEXT: usize = 64 * 1024;
