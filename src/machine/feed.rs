//! Input that is still to be written. Decides what a pipe that nobody reads means, and how much is written in one go.

use super::TURN_MAX;
use crate::command::Opened;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// What goes to standard input. Without input it is a few words long.
#[derive(Debug, Default)]
pub(super) struct Feed {
    pub(super) open: bool,
    /// It stays open when everything has been written.
    pub(super) held: bool,
    pub(super) refused: bool,
    queue: Option<Box<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    parts: VecDeque<Part>,
    accepted: u64,
}

/// A piece of input, and how far it has been written.
pub(super) enum Part {
    Bytes {
        bytes: Arc<Vec<u8>>,
        offset: usize,
    },
    /// The mutex is never locked: it lets threads share a child whose reader they cannot share.
    Reader {
        reader: Mutex<Box<dyn Read + Send>>,
        buffer: Vec<u8>,
        filled: usize,
        offset: usize,
    },
}

/// How much is taken from a reader at a time.
pub(super) const READER_CHUNK: usize = 64 * 1024;

impl Part {
    pub(super) fn new(input: Opened) -> Part {
        match input {
            Opened::Bytes(bytes) => Part::Bytes { bytes, offset: 0 },
            Opened::Reader(reader) => {
                Part::Reader { reader: Mutex::new(reader), buffer: Vec::new(), filled: 0, offset: 0 }
            }
        }
    }

    /// Whether the next bytes must be asked from a reader, which may take its time.
    fn is_spent_reader(&self) -> bool {
        matches!(self, Part::Reader { filled, offset, .. } if offset == filled)
    }

    /// The bytes that come next; empty at the end. A reader is asked once, and what it has is passed on.
    fn next(&mut self) -> io::Result<&[u8]> {
        match self {
            Part::Bytes { bytes, offset } => Ok(bytes.get(*offset..).unwrap_or_default()),
            Part::Reader { reader, buffer, filled, offset } => {
                if *offset == *filled {
                    buffer.resize(READER_CHUNK, 0);
                    let reader = reader.get_mut().unwrap_or_else(PoisonError::into_inner);
                    (*filled, *offset) = (0, 0);
                    *filled = crate::sys::errno::retry(|| reader.read(buffer))?;
                }
                Ok(buffer.get(*offset..*filled).unwrap_or_default())
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        match self {
            Part::Bytes { bytes, offset } => bytes.len() - offset,
            Part::Reader { filled, offset, .. } => filled - offset,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Part::Bytes { offset, .. } | Part::Reader { offset, .. } => *offset += count,
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Bytes { bytes, offset } => write!(out, "{offset} of {} bytes", bytes.len()),
            Part::Reader { .. } => out.write_str("reader"),
        }
    }
}

impl Feed {
    pub(super) fn new(open: bool) -> Feed {
        Feed { open, ..Feed::default() }
    }

    pub(super) fn add(&mut self, part: Part) {
        self.queue.get_or_insert_default().parts.push_back(part);
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.queue.iter().flat_map(|queue| &queue.parts)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.parts.is_empty())
    }

    /// How much was taken.
    pub(super) fn accepted(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.accepted)
    }

    pub(super) fn write(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        let mut given = 0;
        while let Some(queue) = &mut self.queue
            && let Some(part) = queue.parts.front_mut()
        {
            // A child that takes everything at once must not keep us from looking at its output and at the clock.
            if given >= TURN_MAX || (given > 0 && part.is_spent_reader()) {
                return Ok(());
            }
            let bytes = part.next()?;
            if bytes.is_empty() {
                queue.parts.pop_front();
                continue;
            }
            match write(bytes) {
                Ok(count) => {
                    part.advance(count);
                    queue.accepted += count as u64;
                    given += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The child does not want it: not an error of the run, but a fact of it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.refuse();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.open = self.held;
        Ok(())
    }

    pub(super) fn refuse(&mut self) {
        self.refused |= !self.is_empty();
        self.queue.iter_mut().for_each(|queue| queue.parts.clear());
        self.open = false;
    }
}
