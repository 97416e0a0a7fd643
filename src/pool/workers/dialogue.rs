//! What one worker says, and whether it is a reply to what it was asked. Decides what is said without having been asked, twice, or at too great a length.
//! Pure: the bytes come from somewhere, and nobody is told.

use super::protocol::Protocol;
use std::fmt;

/// What was said by a worker and not made into replies yet.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    bytes: Vec<u8>,
    /// So many of them were shown to the protocol before.
    seen: usize,
    /// How many replies are owed.
    owed: usize,
    /// There was a reply.
    has_replied: bool,
}

/// Why a worker cannot be believed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has said this without having been asked.
    Unasked(String),
    /// Behind its reply stands this.
    Surplus(String),
    /// Its reply is longer than so many bytes.
    TooLong(usize),
    /// What it says can never become a reply.
    Nonsense(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unasked(said) => write!(out, "it has said {said} without having been asked"),
            Fault::Surplus(said) => write!(out, "it has said {said} behind its reply"),
            Fault::TooLong(max) => write!(out, "its reply has more than {max} bytes"),
            Fault::Nonsense(why) => write!(out, "what it says is no reply: {why}"),
        }
    }
}

/// How much is shown of what somebody has said.
const SHOWN_MAX: usize = 60;

/// The beginning of it, in quotes, on one line.
pub(super) fn shown(bytes: &[u8]) -> String {
    let head = String::from_utf8_lossy(bytes.get(..SHOWN_MAX).unwrap_or(bytes)).into_owned();
    let rest = if bytes.len() > SHOWN_MAX { "…" } else { "" };
    format!("{head:?}{rest}")
}

impl Dialogue {
    /// One more reply is expected.
    pub(super) fn ask(&mut self) {
        self.owed += 1;
        self.has_replied = false;
    }

    /// It has said this. True if these are the first bytes since the last reply.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> bool {
        let is_first = self.bytes.is_empty();
        self.bytes.extend_from_slice(bytes);
        is_first
    }

    /// The next reply that is there. After an error there will be none.
    pub(super) fn next_reply(&mut self, protocol: &Protocol, bytes_max: usize) -> Result<Option<Vec<u8>>, Fault> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        if self.owed == 0 {
            let said = shown(&self.bytes);
            return Err(if self.has_replied { Fault::Surplus(said) } else { Fault::Unasked(said) });
        }
        let Some(framed) = protocol.find(&self.bytes, self.seen).map_err(Fault::Nonsense)? else {
            self.seen = self.bytes.len();
            return if self.seen > bytes_max { Err(Fault::TooLong(bytes_max)) } else { Ok(None) };
        };
        if framed.reply.len() > bytes_max {
            return Err(Fault::TooLong(bytes_max));
        }
        let rest = self.bytes.split_off(framed.end);
        let mut reply = std::mem::replace(&mut self.bytes, rest);
        reply.truncate(framed.reply.end);
        reply.drain(..framed.reply.start);
        self.seen = 0;
        self.owed -= 1;
        self.has_replied = true;
        Ok(Some(reply))
    }

    /// From now on what comes was not asked for, and is no second reply either.
    pub(super) fn rest(&mut self) {
        self.has_replied = false;
    }

    /// What is there of a reply that has not come to its end.
    pub(super) fn half_reply(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1_000;

    /// What comes of these pieces, when so many replies are owed: the replies, and the fault or the half reply at the end.
    fn heard(protocol: &Protocol, owed: usize, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<Vec<u8>, Fault>) {
        let mut dialogue = Dialogue::default();
        (0..owed).for_each(|_| dialogue.ask());
        let mut replies = Vec::new();
        for piece in pieces {
            dialogue.hear(piece);
            loop {
                match dialogue.next_reply(protocol, MAX) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(fault) => return (replies, Err(fault)),
                }
            }
        }
        (replies, Ok(dialogue.half_reply().to_vec()))
    }

    fn zero() -> Protocol {
        Protocol::new(
            |_, _| Ok(()),
            |bytes, seen| {
                assert!(!bytes[..seen].contains(&0), "it was seen before");
                let end = bytes.iter().skip(seen).position(|byte| *byte == 0).map(|place| seen + place);
                Ok(end.map(|end| super::super::Framed { reply: 0..end, end: end + 1 }))
            },
        )
    }

    /// Wherever the borders between reads are, the same comes of it.
    #[test]
    fn replies_do_not_depend_on_where_they_are_split() {
        // (protocol, what is said, the replies in it, what is left)
        type Row = (Protocol, &'static [u8], &'static [&'static [u8]], &'static [u8]);
        let table: [Row; 8] = [
            (Protocol::lines(), b"one\n\ntwo\r\nthr", &[b"one", b"", b"two\r"], b"thr"),
            (Protocol::lines(), b"\xff\x00\n", &[b"\xff\x00"], b""),
            (Protocol::lines_until("."), b"a\nb\n.\n.\n..\n. \n.\nx\n.", &[b"a\nb\n", b"", b"..\n. \n"], b"x\n."),
            (Protocol::lines_until("END"), b"END\r\nENDE\nxEND\nEND\nEN", &[b"", b"ENDE\nxEND\n"], b"EN"),
            (Protocol::lines_until(""), b"a\n\nb\n\n", &[b"a\n", b"b\n"], b""),
            (Protocol::length_prefixed(), b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01\n\0\0", &[b"ab", b"", b"\n"], b"\0\0"),
            (Protocol::length_prefixed_little_endian(), b"\x03\0\0\0abc\x05\0\0\0ab", &[b"abc"], b"\x05\0\0\0ab"),
            (zero(), b"one\0\0tw", &[b"one", b""], b"tw"),
        ];
        for (protocol, bytes, replies, rest) in table {
            let expected = (replies.iter().map(|reply| reply.to_vec()).collect::<Vec<_>>(), Ok(rest.to_vec()));
            assert_eq!(heard(&protocol, 9, &[bytes]), expected, "{protocol:?} at once");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(heard(&protocol, 9, &single), expected, "{protocol:?} byte by byte");
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(heard(&protocol, 9, &pieces), expected, "{protocol:?} at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn what_was_not_asked_for_is_a_fault() {
        let lines = Protocol::lines();
        assert_eq!(heard(&lines, 0, &[b"hello"]), (vec![], Err(Fault::Unasked("\"hello\"".into()))));
        // A second reply, with the first one or behind it.
        for pieces in [&[&b"a\nb\n"[..]][..], &[b"a\n", b"b"], &[b"a", b"\n", b"b"]] {
            let (replies, end) = heard(&lines, 1, pieces);
            assert_eq!(replies, [b"a"]);
            assert!(matches!(end, Err(Fault::Surplus(_))), "{end:?}");
        }
        let mut dialogue = Dialogue::default();
        dialogue.ask();
        dialogue.hear(b"a\n");
        assert!(dialogue.next_reply(&lines, MAX).unwrap().is_some());
        dialogue.rest();
        dialogue.hear(b"b");
        assert!(matches!(dialogue.next_reply(&lines, MAX), Err(Fault::Unasked(_))));
    }

    #[test]
    fn a_reply_has_a_limit() {
        let lines = Protocol::lines();
        let line = |length: usize| [vec![b'x'; length], b"\n".to_vec()].concat();
        assert_eq!(heard(&lines, 1, &[&line(MAX)]).0.len(), 1);
        assert_eq!(heard(&lines, 1, &[&line(MAX + 1)]), (vec![], Err(Fault::TooLong(MAX))));
        // Also one that has no end.
        let endless = vec![b'x'; MAX + 1];
        let pieces: Vec<&[u8]> = endless.chunks(7).collect();
        assert_eq!(heard(&lines, 1, &pieces), (vec![], Err(Fault::TooLong(MAX))));
        assert!(heard(&lines, 1, &[&endless[..MAX]]).1.is_ok());
        let own = Protocol::new(|_, _| Ok(()), |_, _| Err("bad magic".into()));
        assert_eq!(heard(&own, 1, &[b"x"]).1, Err(Fault::Nonsense("bad magic".into())));
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(shown(b"a\n\x1b"), "\"a\\n\\u{1b}\"");
        assert!(shown(&[b'x'; 500]).chars().count() < 70);
    }
}
