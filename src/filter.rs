//! Filters in use: each run has its own place in the lines of a stream. Decides how bytes pass from one function to the next, and to
//! whoever reads behind them. Pure but for what the functions do.

use crate::command::Filter;
use crate::output::Stream;
use crate::text::{LineSplitter, Newlines};
use std::fmt;
use std::io;
use std::sync::PoisonError;

/// Lines on their way through us stay as they are, so they end at `\n` alone.
pub(crate) fn splitter(line_max: usize) -> LineSplitter {
    LineSplitter::new(Newlines::Keep, line_max)
}

/// A filter in use, for one stream or for two.
pub(crate) struct OpenFilter {
    filter: Filter,
    lines: Option<[LineSplitter; 2]>,
}

impl OpenFilter {
    pub(crate) fn new(filter: &Filter, line_max: usize) -> OpenFilter {
        let lines = filter.by_line.then(|| [splitter(line_max), splitter(line_max)]);
        OpenFilter { filter: filter.clone(), lines }
    }

    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut function = self.filter.function.lock().unwrap_or_else(PoisonError::into_inner);
        let Some([stdout, stderr]) = &mut self.lines else {
            return function(Some(bytes), out);
        };
        let lines = if stream == Stream::Stdout { stdout } else { stderr };
        let mut result = Ok(());
        lines.push(bytes, |line, _| {
            if result.is_ok() {
                result = function(Some(line), out);
            }
        });
        result
    }

    /// A stream has ended; if it was the last one the function is told.
    pub(crate) fn end(&mut self, stream: Stream, last: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let mut function = self.filter.function.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        if let Some([stdout, stderr]) = &mut self.lines {
            let lines = if stream == Stream::Stdout { stdout } else { stderr };
            lines.finish(|line, _| result = function(Some(line), out));
        }
        match result {
            Ok(()) if last => function(None, out),
            result => result,
        }
    }
}

impl fmt::Debug for OpenFilter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt(out)
    }
}

/// Filters between a pipe of ours and whoever reads it.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    filters: Vec<OpenFilter>,
    /// What came out of the last filter; what stands before `taken` has been read.
    passed: Vec<u8>,
    taken: usize,
    /// Memory for what is read, and between two filters.
    spare: Vec<u8>,
    ended: bool,
    /// That was not the end of the pipe.
    is_cut_off: bool,
    /// What a filter failed with, until it is asked for.
    failure: Option<io::Error>,
}

/// How much goes through the filters at a time, and how often one read tries if nothing comes out.
const PIECE: usize = 256 * 1024;
const TRIES: usize = 16;

impl Sieve {
    pub(crate) fn new(filters: Vec<OpenFilter>) -> Sieve {
        Sieve { filters, ..Sieve::default() }
    }

    /// Whether there is more to read although the pipe may have nothing.
    pub(crate) fn has_passed(&self) -> bool {
        self.taken < self.passed.len()
    }

    /// Nothing more will be read: the filters are told the end, and what they still have comes out.
    pub(crate) fn cut_off(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.is_cut_off = true;
        let before = std::mem::take(&mut self.passed);
        self.spare.clear();
        match self.pass() {
            Ok(()) => self.passed.splice(..0, before).for_each(drop),
            Err(error) => (self.passed, self.failure) = (before, Some(error)),
        }
    }

    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Appends at most `max` bytes of what has passed, by reading as much as that takes; 0 is the end. If nothing passes for now
    /// the error says "would block".
    pub(crate) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        max: usize,
        mut read: impl FnMut(&mut Vec<u8>, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        for _ in 0..TRIES {
            if buffer.is_empty() && self.taken == 0 && !self.passed.is_empty() && self.passed.len() <= max {
                std::mem::swap(buffer, &mut self.passed);
                return Ok(buffer.len());
            }
            if let Some(rest) = self.passed.get(self.taken..).filter(|rest| !rest.is_empty()) {
                let piece = rest.get(..max).unwrap_or(rest);
                buffer.extend_from_slice(piece);
                self.taken += piece.len();
                return Ok(piece.len());
            }
            self.taken = 0;
            self.passed.clear();
            if self.ended {
                return if self.is_cut_off { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) };
            }
            self.spare.clear();
            self.spare.reserve(PIECE);
            self.ended = read(&mut self.spare, PIECE)? == 0;
            if let Err(error) = self.pass() {
                // Whoever reads stops because of the failure; nothing more is to come out.
                (self.failure, self.ended) = (Some(error), true);
                self.passed.clear();
                break;
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// From the spare memory through all filters.
    fn pass(&mut self) -> io::Result<()> {
        std::mem::swap(&mut self.passed, &mut self.spare);
        for filter in &mut self.filters {
            self.spare.clear();
            if !self.passed.is_empty() {
                filter.push(Stream::Stdout, &self.passed, &mut self.spare)?;
            }
            if self.ended {
                filter.end(Stream::Stdout, true, &mut self.spare)?;
            }
            std::mem::swap(&mut self.passed, &mut self.spare);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads through the filters what comes in these chunks, at most `max` bytes at a time.
    fn through(filters: &[Filter], chunks: &[&[u8]], max: usize) -> io::Result<Vec<u8>> {
        let mut sieve = Sieve::new(filters.iter().map(|filter| OpenFilter::new(filter, 1024)).collect());
        let (mut chunks, mut all) = (chunks.iter(), Vec::new());
        loop {
            let read = sieve.read(&mut all, max, |buffer, _| {
                let chunk = chunks.next().copied().unwrap_or_default();
                buffer.extend_from_slice(chunk);
                Ok(chunk.len())
            });
            match read {
                Ok(0) => return Ok(all),
                Ok(count) => assert!(count <= max),
                Err(error) => return Err(sieve.take_failure().unwrap_or(error)),
            }
        }
    }

    #[test]
    fn filters_follow_each_other_whatever_the_borders() {
        let filters = [Filter::keep_lines(|line| line != b"b"), Filter::map_lines(|line| [line, b"!"].concat())];
        for max in [1, 3, 100] {
            assert_eq!(through(&filters, &[b"a\nb", b"\ncc\n", b"d"], max).unwrap(), b"a!\ncc!\nd!\n");
        }
        assert_eq!(through(&filters, &[], 10).unwrap(), b"");
    }

    #[test]
    fn what_is_cut_off_is_no_end_and_leaves_nothing_in_the_filters() {
        let mut sieve = Sieve::new(vec![OpenFilter::new(&Filter::map_lines(|line| [b"> ", line].concat()), 1024)]);
        let (mut all, mut chunks) = (Vec::new(), [&b"one\nha"[..], b"lf"].into_iter());
        let mut read = |buffer: &mut Vec<u8>, _| {
            let chunk = chunks.next().ok_or(io::ErrorKind::WouldBlock)?;
            buffer.extend_from_slice(chunk);
            Ok(chunk.len())
        };
        assert_eq!(sieve.read(&mut all, 3, &mut read).unwrap(), 3);
        sieve.cut_off();
        sieve.cut_off();
        assert!(sieve.has_passed());
        while sieve.has_passed() {
            sieve.read(&mut all, 100, &mut read).unwrap();
        }
        assert_eq!(all, b"> one\n> ha\n");
        let end = sieve.read(&mut all, 100, &mut read).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock, "it has not ended");
    }

    #[test]
    fn a_failure_is_kept_and_ends_the_stream() {
        let fails = Filter::new(|piece, _| if piece.is_some() { Err(io::Error::other("no")) } else { Ok(()) });
        assert_eq!(through(&[fails], &[b"a"], 10).unwrap_err().to_string(), "no");
    }
}
