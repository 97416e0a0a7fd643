//! What a request and a reply look like in bytes. Decides where a reply ends and which requests cannot be sent. Pure.

use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

/// How requests and replies stand in the pipes of a worker of a [`WorkerPool`](super::WorkerPool).
///
/// ```
/// use procession::pool::{Protocol, WorkerPool};
/// use procession::Command;
///
/// // Replies of several lines, the last of which says that it is the last.
/// let shell = "while read -r word; do echo \"$word\"; echo \"$word$word\"; echo .; done";
/// let pool = WorkerPool::builder(Command::shell(shell)).workers(1).protocol(Protocol::lines_until(".")).build()?;
/// assert_eq!(pool.apply_text("abc")?, "abc\nabcabc\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
pub struct Protocol(Kind);

#[derive(Clone)]
enum Kind {
    Lines,
    LinesUntil(Vec<u8>),
    Prefixed { little_endian: bool },
    Own { frame: Frame, find: Find },
}

type Frame = Arc<dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), String> + Send + Sync>;
type Find = Arc<dyn Fn(&[u8], usize) -> Result<Option<Framed>, String> + Send + Sync>;

/// Where a reply stands among the bytes that have come: see [`Protocol::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The bytes of the reply, without what frames it.
    pub reply: Range<usize>,
    /// Where it ends with all that belongs to it. At least 1.
    pub end: usize,
}

/// How many bytes a length takes.
const LENGTH: usize = 4;

impl Protocol {
    /// One line in, one line out. The line ends are added and taken off; a request with a line end in it is refused.
    pub fn lines() -> Protocol {
        Protocol(Kind::Lines)
    }

    /// A reply is lines, up to one that equals the marker, which is not part of it. A request gets a line end behind it, and may have others in it:
    /// whoever makes the program write the marker says so in the request, if the program does not do it by itself.
    pub fn lines_until(marker: impl Into<Vec<u8>>) -> Protocol {
        Protocol(Kind::LinesUntil(marker.into()))
    }

    /// In front of each request and of each reply stands how many bytes it has, in four bytes, the highest one first.
    #[doc(alias = "netstring")]
    pub fn length_prefixed() -> Protocol {
        Protocol(Kind::Prefixed { little_endian: false })
    }

    /// The same, the lowest one first, as native messages of browsers have it.
    pub fn length_prefixed_little_endian() -> Protocol {
        Protocol(Kind::Prefixed { little_endian: true })
    }

    /// A protocol of your own.
    ///
    /// `frame` appends what is to be sent for a request, or says why that cannot be. `find` finds the reply that begins at the first of the bytes that have
    /// come, if all of it is there; the number says how many of them it was shown before, in vain, so that it need not look at them
    /// again. An error means that this can never become a reply; the worker is stopped then.
    ///
    /// ```
    /// use procession::pool::{Framed, Protocol, WorkerPool};
    /// use procession::Command;
    ///
    /// // What ends with a zero byte.
    /// let zero = Protocol::new(
    ///     |request, bytes| {
    ///         bytes.extend_from_slice(request);
    ///         bytes.push(0);
    ///         Ok(())
    ///     },
    ///     |bytes, seen| {
    ///         let end = bytes.iter().skip(seen).position(|byte| *byte == 0).map(|place| seen + place);
    ///         Ok(end.map(|end| Framed { reply: 0..end, end: end + 1 }))
    ///     },
    /// );
    /// let pool = WorkerPool::builder(Command::new("cat")).workers(1).protocol(zero).build()?;
    /// assert_eq!(pool.apply("two\nlines")?, b"two\nlines");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(
        frame: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), String> + Send + Sync + 'static,
        find: impl Fn(&[u8], usize) -> Result<Option<Framed>, String> + Send + Sync + 'static,
    ) -> Protocol {
        Protocol(Kind::Own { frame: Arc::new(frame), find: Arc::new(find) })
    }

    /// What is sent for a request; an error if it cannot be.
    pub(super) fn frame(&self, request: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(request.len() + LENGTH);
        match &self.0 {
            Kind::Lines if request.contains(&b'\n') => {
                return Err("it has a line end in it, and each line would be a request".into());
            }
            Kind::Lines | Kind::LinesUntil(_) => {
                bytes.extend_from_slice(request);
                bytes.push(b'\n');
            }
            Kind::Prefixed { little_endian } => {
                let length = u32::try_from(request.len()).map_err(|_| "it is longer than its length can say")?;
                let length = if *little_endian { length.to_le_bytes() } else { length.to_be_bytes() };
                bytes.extend_from_slice(&length);
                bytes.extend_from_slice(request);
            }
            Kind::Own { frame, .. } => frame(request, &mut bytes)?,
        }
        if bytes.is_empty() { Err("nothing would be sent for it".into()) } else { Ok(bytes) }
    }

    /// The reply at the beginning of these bytes, of which so many were shown before.
    pub(super) fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Framed>, String> {
        match &self.0 {
            Kind::Lines => Ok(line_end(bytes, seen).map(|end| Framed { reply: 0..end, end: end + 1 })),
            Kind::LinesUntil(marker) => Ok(marked_end(bytes, seen, marker)),
            Kind::Prefixed { little_endian } => Ok(prefixed_end(bytes, *little_endian)),
            Kind::Own { find, .. } => {
                // What others have written is no reason for the pool to end.
                let found = panic::catch_unwind(AssertUnwindSafe(|| find(bytes, seen)));
                let found = found.unwrap_or_else(|_| Err("the protocol has panicked".into()))?;
                let is_wrong = |framed: &Framed| {
                    let Range { start, end } = framed.reply;
                    start > end || end > framed.end || framed.end > bytes.len() || framed.end == 0
                };
                match found {
                    Some(framed) if is_wrong(&framed) => {
                        Err(format!("the protocol has found {framed:?} in {}", bytes.len()))
                    }
                    found => Ok(found),
                }
            }
        }
    }

    /// Whether a reply is one line, whose end was taken off.
    pub(super) fn is_line(&self) -> bool {
        matches!(self.0, Kind::Lines)
    }

    /// Whether line ends are found among the bytes.
    pub(super) fn is_of_lines(&self) -> bool {
        matches!(self.0, Kind::Lines | Kind::LinesUntil(_))
    }

    /// Why no reply could ever end.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        match &self.0 {
            Kind::LinesUntil(marker) if marker.contains(&b'\n') => Some("a marker with a line end in it is no line"),
            _ => None,
        }
    }
}

/// Where the first line end is, in what was not seen before.
fn line_end(bytes: &[u8], seen: usize) -> Option<usize> {
    let place = bytes.get(seen..)?.iter().position(|byte| *byte == b'\n')?;
    Some(seen + place)
}

/// The lines up to one that equals the marker. A carriage return at its end does not count.
fn marked_end(bytes: &[u8], seen: usize, marker: &[u8]) -> Option<Framed> {
    let before = bytes.get(..seen)?;
    let mut start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    while let Some(end) = line_end(bytes, start) {
        let line = bytes.get(start..end)?;
        if line == marker || line.strip_suffix(b"\r") == Some(marker) {
            return Some(Framed { reply: 0..start, end: end + 1 });
        }
        start = end + 1;
    }
    None
}

fn prefixed_end(bytes: &[u8], little_endian: bool) -> Option<Framed> {
    let length = *bytes.first_chunk::<LENGTH>()?;
    let length = if little_endian { u32::from_le_bytes(length) } else { u32::from_be_bytes(length) };
    let end = LENGTH.checked_add(usize::try_from(length).ok()?)?;
    (bytes.len() >= end).then_some(Framed { reply: LENGTH..end, end })
}

impl fmt::Debug for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Lines => out.write_str("Lines"),
            Kind::LinesUntil(marker) => write!(out, "LinesUntil({:?})", String::from_utf8_lossy(marker)),
            Kind::Prefixed { little_endian } => write!(out, "LengthPrefixed {{ little_endian: {little_endian} }}"),
            Kind::Own { .. } => out.write_str("Own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed_or_refused() {
        let lines = Protocol::lines();
        assert_eq!(lines.frame(b"").unwrap(), b"\n");
        assert_eq!(lines.frame(b"a b\r").unwrap(), b"a b\r\n");
        assert!(lines.frame(b"a\nb").unwrap_err().contains("line end"));
        assert!(lines.frame(b"a\n").is_err());
        assert_eq!(Protocol::lines_until(".").frame(b"a\nb").unwrap(), b"a\nb\n");
        assert_eq!(Protocol::length_prefixed().frame(b"abc").unwrap(), b"\0\0\0\x03abc");
        assert_eq!(Protocol::length_prefixed_little_endian().frame(b"").unwrap(), b"\0\0\0\0");
        let own = Protocol::new(|_, _| Ok(()), |_, _| Ok(None));
        assert!(own.frame(b"a").unwrap_err().contains("nothing"));
        assert!(Protocol::lines_until("a\nb").mistake().is_some());
    }

    #[test]
    fn a_protocol_that_finds_nonsense_is_caught() {
        for framed in [
            Framed { reply: 0..0, end: 0 },
            Framed { reply: 0..2, end: 1 },
            Framed { reply: 0..1, end: 9 },
            #[allow(clippy::reversed_empty_ranges)]
            Framed { reply: 2..1, end: 2 },
        ] {
            let found = framed.clone();
            let own = Protocol::new(|_, _| Ok(()), move |_, _| Ok(Some(found.clone())));
            assert!(own.find(b"abc", 0).is_err(), "{framed:?}");
        }
        let own = Protocol::new(|_, _| Ok(()), |_, _| panic!("on purpose"));
        assert!(own.find(b"abc", 0).unwrap_err().contains("panicked"));
    }
}
