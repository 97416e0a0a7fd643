//! In which order the output of both streams came, as far as it can be known. Pure: pieces are noted with the time they were read,
//! and found again in what was kept.

use super::{Captured, Stream};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A piece of output was read: from which stream, how much, when, and in which look at both streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) stream: Stream,
    pub(crate) count: u64,
    pub(crate) at: Duration,
    pub(crate) look: u64,
}

/// A piece of output in the order of reading; see [`Output::transcript`](crate::Output::transcript).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    stage: usize,
    stream: Stream,
    bytes: &'a [u8],
    total: u64,
    at: Duration,
    is_simultaneous: bool,
}

impl<'a> Piece<'a> {
    /// Which stage of a pipeline it came from, counted from 0; 0 for a single command.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// Which stream it came from.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The bytes, as far as they were kept.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes as UTF-8, with U+FFFD for what is none; a character that was cut by the border of two pieces is none in either.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes)
    }

    /// How many bytes were read, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When it was read, counted from the start of the process; monotonic. It was written before, at most since the last look.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Whether this piece and the one before it, of the other stream of the same stage, were found in one look: which of them was
    /// written first cannot be known.
    pub fn is_simultaneous(&self) -> bool {
        self.is_simultaneous
    }
}

/// As [`text`](Piece::text).
impl fmt::Display for Piece<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text())
    }
}

/// The pieces of one stage, which was started so long after the first, in the order of reading.
pub(super) fn pieces<'a>(
    stage: usize,
    marks: &'a [Mark],
    since: Duration,
    stdout: &'a Captured,
    stderr: &'a Captured,
) -> Vec<Piece<'a>> {
    let (mut stdout_read, mut stderr_read) = (0, 0);
    let mut before: Option<&Mark> = None;
    let mut pieces = Vec::with_capacity(marks.len());
    for mark in marks {
        let (captured, read) = match mark.stream {
            Stream::Stdout => (stdout, &mut stdout_read),
            Stream::Stderr => (stderr, &mut stderr_read),
        };
        let (start, end) = (place(captured, *read), place(captured, *read + mark.count));
        *read += mark.count;
        pieces.push(Piece {
            stage,
            stream: mark.stream,
            bytes: captured.bytes.get(start..end).unwrap_or_default(),
            total: mark.count,
            at: since + mark.at,
            is_simultaneous: before.is_some_and(|before| before.look == mark.look && before.stream != mark.stream),
        });
        before = Some(mark);
    }
    pieces
}

/// Where in the bytes that were kept a place in the stream is found: what was dropped shrinks to the gap.
fn place(captured: &Captured, offset: u64) -> usize {
    let gap = captured.gap.map_or(u64::MAX, |gap| gap as u64);
    let place = offset.min(gap) + offset.saturating_sub(gap.saturating_add(captured.dropped));
    captured.bytes.len().min(usize::try_from(place).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], gap: Option<usize>, dropped: u64) -> Captured {
        Captured { bytes: bytes.to_vec(), gap, dropped, ..Captured::default() }
    }

    fn mark(stream: Stream, count: u64, look: u64) -> Mark {
        Mark { stream, count, at: Duration::from_millis(look), look }
    }

    #[test]
    fn pieces_are_found_again_in_what_was_kept() {
        let marks = [
            mark(Stream::Stdout, 3, 1),
            mark(Stream::Stderr, 2, 1),
            mark(Stream::Stdout, 3, 2),
            mark(Stream::Stderr, 1, 3),
            mark(Stream::Stdout, 4, 4),
        ];
        // "abcdefghij" of which "cdefg" was dropped.
        let (stdout, stderr) = (captured(b"abhij", Some(2), 5), captured(b"xyz", None, 0));
        let pieces = pieces(0, &marks, Duration::ZERO, &stdout, &stderr);
        let seen: Vec<_> = pieces.iter().map(|piece| (piece.bytes(), piece.total(), piece.is_simultaneous())).collect();
        assert_eq!(
            seen,
            [(&b"ab"[..], 3, false), (b"xy", 2, true), (b"", 3, false), (b"z", 1, false), (b"hij", 4, false)]
        );
        assert_eq!(pieces[3].at(), Duration::from_millis(3));
        assert_eq!(pieces[3].stream(), Stream::Stderr);
    }
}
