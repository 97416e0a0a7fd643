//! Messages as bytes on their way: the header in front of each, and the decoder that finds them again in pieces of any size. Pure: no system calls.
//! Decides what a message may be and refuses the rest before it costs memory. Leaves to others what the bytes of a message mean.
//!
//! Version 1, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | `c5 70`: this is one of our messages |
//! | 1 | the version |
//! | 1 | the [kind](Kind) |
//! | 4 | how many descriptors travel beside the first byte |
//! | 8 | the length of what follows |
//! | length | the message |
//!
//! Where the kernel keeps the borders of what was sent (`SOCK_SEQPACKET`), a message is a row of packets: the first begins with the header, none has
//! more than 128 KiB, and none has bytes of two messages. So a small message is one call for both sides, and is there whole or not at all.
//!
//! A program of another version can still read the first three bytes, and say what it has found: they never change.

use crate::sys::socket::DESCRIPTORS_MAX;
use std::collections::TryReserveError;
use std::fmt;

/// What this program speaks.
pub(crate) const VERSION: u8 = 1;
/// The length of a header.
pub(crate) const HEADER: usize = 16;
const MAGIC: [u8; 2] = [0xc5, b'p'];

/// The largest message that is taken, unless the owner of the connection says otherwise: 1 GiB.
pub(crate) const MESSAGE_MAX: u64 = 1 << 30;

/// No packet is longer. The buffer that the kernel gives a socket takes it and begins the next one. With smaller packets large messages are slower:
/// a sender that waits is woken when most of the buffer is empty.
pub(crate) const PACKET_MAX: usize = 128 * 1024;
/// Memory for a message grows with what has come, in steps of at least this size: a length alone costs nothing.
const STEP: usize = PACKET_MAX;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The name of the type of the values that follow.
    Hello = 1,
    /// A value, in postcard's format.
    Value = 2,
    /// Bytes as they are.
    Bytes = 3,
    /// Why nothing will follow, as text.
    Refusal = 4,
    /// Who listens asks for a proof: random bytes.
    Challenge = 5,
    /// The proof of who has connected: random bytes, and what follows from both and the key.
    Proof = 6,
    /// The proof of who listens.
    Verdict = 7,
}

const KINDS: [Kind; 7] =
    [Kind::Hello, Kind::Value, Kind::Bytes, Kind::Refusal, Kind::Challenge, Kind::Proof, Kind::Verdict];

/// What stands in front of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) descriptors: u32,
    pub(crate) length: u64,
}

/// Why the bytes cannot be ours. Where the next message begins cannot be known after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Magic([u8; 2]),
    Version(u8),
    Kind(u8),
    Descriptors(u32),
    /// A packet does not end where the message or the longest packet does.
    Packet,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Magic([one, two]) => {
                let [first, second] = MAGIC;
                write!(out, "no message begins with the bytes {one:02x} {two:02x}, but with {first:02x} {second:02x}")
            }
            Fault::Version(version) => {
                write!(out, "the other side speaks version {version} of the format, this one {VERSION}")
            }
            Fault::Packet => write!(out, "a packet that is longer than the message in it, or than {PACKET_MAX} bytes"),
            Fault::Kind(kind) => write!(out, "a message of the unknown kind {kind}"),
            Fault::Descriptors(count) => {
                write!(out, "a message with {count} descriptors, where {DESCRIPTORS_MAX} are the most")
            }
        }
    }
}

impl Head {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let [one, two] = MAGIC;
        let [a, b, c, d] = self.descriptors.to_le_bytes();
        let [e, f, g, h, i, j, k, l] = self.length.to_le_bytes();
        [one, two, VERSION, self.kind as u8, a, b, c, d, e, f, g, h, i, j, k, l]
    }

    fn from_bytes(bytes: [u8; HEADER]) -> Result<Head, Fault> {
        let [one, two, version, kind, a, b, c, d, length @ ..] = bytes;
        check_start(&[one, two, version])?;
        let kind = *KINDS.iter().find(|known| **known as u8 == kind).ok_or(Fault::Kind(kind))?;
        let descriptors = u32::from_le_bytes([a, b, c, d]);
        if descriptors as usize > DESCRIPTORS_MAX {
            return Err(Fault::Descriptors(descriptors));
        }
        Ok(Head { kind, descriptors, length: u64::from_le_bytes(length) })
    }
}

/// The part of a header that every version has: who speaks something else may never send a whole header.
fn check_start(bytes: &[u8]) -> Result<(), Fault> {
    if let [one, two, ..] = *bytes
        && [one, two] != MAGIC
    {
        return Err(Fault::Magic([one, two]));
    }
    match bytes.get(MAGIC.len()) {
        Some(&version) if version != VERSION => Err(Fault::Version(version)),
        _ => Ok(()),
    }
}

/// What the last bytes have brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A message is there, as the [body](Decoder::body).
    Message(Head),
    /// A message begins that is larger than is taken. It will be skipped.
    TooLarge(Head),
}

/// Finds messages in bytes that come in pieces. It never takes a byte that lies behind the message that it is at.
#[derive(Debug)]
pub(crate) struct Decoder {
    length_max: u64,
    /// What can come at once, if it comes in packets: there must be room for it.
    packet_max: Option<usize>,
    header: Vec<u8>,
    body: Vec<u8>,
    state: State,
}

/// Where a packet goes: so many bytes at most to the first, what is left to the rest.
#[derive(Debug)]
pub(crate) struct Space<'a> {
    pub(crate) first: &'a mut Vec<u8>,
    pub(crate) count_max: usize,
    pub(crate) rest: Option<&'a mut Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Body(Head),
    /// So much of a message that is too large is still to come.
    Skip(u64),
    /// The body is a whole message.
    Complete,
    Broken(Fault),
}

impl Decoder {
    pub(crate) fn new(length_max: u64) -> Decoder {
        let header = Vec::with_capacity(HEADER);
        Decoder { length_max, packet_max: None, header, body: Vec::new(), state: State::Header }
    }

    /// What is to be decoded comes in packets.
    pub(crate) fn of_packets(self) -> Decoder {
        Decoder { packet_max: Some(PACKET_MAX), ..self }
    }

    /// Where the next packet is to be appended.
    pub(crate) fn packet_space(&mut self) -> Result<Space<'_>, TryReserveError> {
        if !self.is_in_header() {
            return self.space().map(|(first, count_max)| Space { first, count_max, rest: None });
        }
        let (_, count_max) = self.space()?;
        make_room(&mut self.body, PACKET_MAX, PACKET_MAX)?;
        Ok(Space { first: &mut self.header, count_max, rest: Some(&mut self.body) })
    }

    /// The bytes cannot be ours: a packet was cut off.
    pub(crate) fn break_off(&mut self) {
        self.state = State::Broken(Fault::Packet);
    }

    /// The largest message that is taken from now on.
    pub(crate) fn set_length_max(&mut self, length_max: u64) {
        self.length_max = length_max;
    }

    pub(crate) fn length_max(&self) -> u64 {
        self.length_max
    }

    /// Where the next bytes are to be appended, and how many at most, at least one. A body that was there before is gone.
    pub(crate) fn space(&mut self) -> Result<(&mut Vec<u8>, usize), TryReserveError> {
        if let State::Complete = self.state {
            self.state = State::Header;
            self.header.clear();
            self.body.clear();
        }
        let least = self.packet_max.unwrap_or(1);
        match self.state {
            State::Body(head) => {
                let missing = usize::try_from(head.length).unwrap_or(usize::MAX).saturating_sub(self.body.len());
                make_room(&mut self.body, missing, least)?;
                Ok((&mut self.body, missing))
            }
            State::Skip(missing) => {
                self.body.clear();
                make_room(&mut self.body, STEP, least)?;
                Ok((&mut self.body, usize::try_from(missing).unwrap_or(usize::MAX).min(STEP)))
            }
            State::Header | State::Complete | State::Broken(_) => {
                let missing = HEADER.saturating_sub(self.header.len()).max(1);
                self.header.try_reserve(missing)?;
                Ok((&mut self.header, missing))
            }
        }
    }

    /// Whether the next bytes are those of a header: descriptors can come with them.
    pub(crate) fn is_in_header(&self) -> bool {
        matches!(self.state, State::Header | State::Complete)
    }

    /// Looks at what was appended.
    pub(crate) fn advance(&mut self) -> Result<Option<News>, Fault> {
        match self.state {
            State::Header => {
                let head = check_start(&self.header).and_then(|()| match self.header.first_chunk() {
                    Some(bytes) => Head::from_bytes(*bytes).map(Some),
                    None => Ok(None),
                });
                match head.and_then(|head| head.map_or(Ok(None), |head| self.begin(head))) {
                    Ok(news) => Ok(news),
                    Err(fault) => {
                        self.state = State::Broken(fault);
                        Err(fault)
                    }
                }
            }
            State::Body(head) if self.body.len() as u64 >= head.length => {
                self.state = State::Complete;
                Ok(Some(News::Message(head)))
            }
            State::Skip(missing) => {
                let missing = missing.saturating_sub(self.body.len() as u64);
                self.body.clear();
                self.state = if missing == 0 { State::Complete } else { State::Skip(missing) };
                Ok(None)
            }
            State::Broken(fault) => Err(fault),
            State::Body(_) | State::Complete => Ok(None),
        }
    }

    /// A header is there, and what has come with it, if that is a packet.
    fn begin(&mut self, head: Head) -> Result<Option<News>, Fault> {
        let missing = head.length.checked_sub(self.body.len() as u64).ok_or(Fault::Packet)?;
        if head.length > self.length_max {
            self.body.clear();
            self.state = if missing == 0 { State::Complete } else { State::Skip(missing) };
            return Ok(Some(News::TooLarge(head)));
        }
        if missing == 0 {
            self.state = State::Complete;
            return Ok(Some(News::Message(head)));
        }
        self.state = State::Body(head);
        Ok(None)
    }

    /// Whether the bytes were not ours.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken(_))
    }

    /// The message that was just completed.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// How many bytes of how many have come, of a message or its header. `None` between two messages.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        let header = HEADER as u64;
        match self.state {
            State::Header if self.header.is_empty() => None,
            State::Complete => None,
            State::Header | State::Broken(_) => Some((self.header.len() as u64, header)),
            State::Body(head) => Some((header + self.body.len() as u64, header.saturating_add(head.length))),
            State::Skip(missing) => {
                let length = self.header.first_chunk().and_then(|bytes| Head::from_bytes(*bytes).ok());
                let length = length.map_or(missing, |head| head.length);
                Some((header.saturating_add(length - missing.min(length)), header.saturating_add(length)))
            }
        }
    }
}

/// Room for some of the bytes that are missing, at least for so many as come at once: never much more than has come already.
fn make_room(body: &mut Vec<u8>, missing: usize, least: usize) -> Result<(), TryReserveError> {
    if body.capacity() - body.len() >= missing.min(least) {
        return Ok(());
    }
    body.try_reserve(missing.min(body.len().max(STEP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a piece brings: the decoder asks for bytes until there are no more.
    fn feed(decoder: &mut Decoder, mut piece: &[u8]) -> Vec<Result<(News, Vec<u8>), Fault>> {
        let mut all = Vec::new();
        while !piece.is_empty() {
            let (buffer, wanted) = decoder.space().unwrap();
            let (now, rest) = piece.split_at(wanted.min(piece.len()).min(buffer.capacity() - buffer.len()));
            assert!(!now.is_empty());
            buffer.extend_from_slice(now);
            piece = rest;
            match decoder.advance() {
                Ok(None) => {}
                Ok(Some(news)) => all.push(Ok((news, decoder.body().clone()))),
                Err(fault) => {
                    all.push(Err(fault));
                    return all;
                }
            }
        }
        all
    }

    fn message(kind: Kind, body: &[u8]) -> Vec<u8> {
        let head = Head { kind, descriptors: 0, length: body.len() as u64 };
        [&head.to_bytes()[..], body].concat()
    }

    /// A generator that is the same everywhere.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, end: usize) -> usize {
            (self.next() % end as u64) as usize
        }
    }

    #[test]
    fn a_header_is_these_bytes() {
        let head = Head { kind: Kind::Value, descriptors: 0x0102, length: 0x0102_0304_0506_0708 };
        let head = Head { descriptors: 3, ..head };
        let bytes = [0xc5, b'p', 1, 2, 3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];
        assert_eq!(head.to_bytes(), bytes);
        assert_eq!(Head::from_bytes(bytes), Ok(head));
        for kind in KINDS {
            let head = Head { kind, ..head };
            assert_eq!(Head::from_bytes(head.to_bytes()), Ok(head));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = Head { kind: Kind::Bytes, descriptors: 0, length: 1 }.to_bytes();
        let with = |place: usize, byte: u8| {
            let mut bytes = good;
            bytes[place] = byte;
            bytes
        };
        for (bytes, text) in [
            (with(0, b'G'), "no message begins with the bytes 47 70, but with c5 70"),
            (with(2, 7), "the other side speaks version 7 of the format, this one 1"),
            (with(3, 99), "a message of the unknown kind 99"),
            (with(4, 254), "a message with 254 descriptors, where 253 are the most"),
        ] {
            let mut decoder = Decoder::new(MESSAGE_MAX);
            let found = feed(&mut decoder, &bytes);
            assert_eq!(found.last().unwrap().as_ref().unwrap_err().to_string(), text);
            // It stays so.
            assert_eq!(feed(&mut decoder, &good).pop().unwrap().unwrap_err().to_string(), text);
        }
        // The first bytes are enough to see who speaks.
        assert_eq!(feed(&mut Decoder::new(9), b"GE"), [Err(Fault::Magic(*b"GE"))]);
        assert_eq!(feed(&mut Decoder::new(9), &with(2, 2)[..3]), [Err(Fault::Version(2))]);
    }

    #[test]
    fn messages_are_found_in_pieces_of_any_size() {
        let mut random = Random(42);
        for _ in 0..300 {
            let bodies: Vec<Vec<u8>> = (0..random.below(8))
                .map(|_| {
                    let length = [0, 1, 15, 16, 17, 1000, STEP - 1, STEP, STEP + 1, 3 * STEP][random.below(10)];
                    (0..length).map(|place| place as u8 ^ length as u8).collect()
                })
                .collect();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| message(Kind::Bytes, body)).collect();
            let (mut decoder, mut rest, mut found) = (Decoder::new(MESSAGE_MAX), &stream[..], Vec::new());
            while !rest.is_empty() {
                let size = if random.below(2) == 0 { 1 + random.below(20) } else { 1 + random.below(2 * STEP) };
                let (piece, after) = rest.split_at(size.min(rest.len()));
                found.extend(feed(&mut decoder, piece).into_iter().map(|news| news.unwrap().1));
                rest = after;
            }
            assert_eq!(found, bodies);
            assert_eq!(decoder.progress(), None);
        }
    }

    #[test]
    fn a_message_is_a_row_of_packets() {
        let put = |decoder: &mut Decoder, mut packet: &[u8]| {
            let Space { first, count_max: wanted, rest } = decoder.packet_space().unwrap();
            let (now, after) = packet.split_at(wanted.min(packet.len()));
            first.extend_from_slice(now);
            packet = after;
            if let Some(rest) = rest {
                assert!(rest.is_empty() && rest.capacity() >= PACKET_MAX);
                rest.extend_from_slice(packet);
                packet = b"";
            }
            assert!(packet.is_empty());
            let news = decoder.advance();
            news.map(|news| news.map(|news| (news, decoder.body().len())))
        };
        let head = |length: u64| Head { kind: Kind::Bytes, descriptors: 0, length };
        let mut decoder = Decoder::new(200_000).of_packets();
        for length in [0, 1, 100, PACKET_MAX - HEADER, PACKET_MAX, 200_000, 200_001, 5] {
            let body = vec![7; length];
            let (first, mut rest) = body.split_at(length.min(PACKET_MAX - HEADER));
            let mut news = put(&mut decoder, &[&head(length as u64).to_bytes()[..], first].concat()).unwrap();
            if length > 200_000 {
                assert_eq!(news, Some((News::TooLarge(head(length as u64)), 0)));
            }
            while !rest.is_empty() {
                let (packet, after) = rest.split_at(rest.len().min(PACKET_MAX));
                rest = after;
                news = put(&mut decoder, packet).unwrap();
            }
            if length <= 200_000 {
                assert_eq!(news, Some((News::Message(head(length as u64)), length)));
            }
            assert_eq!(decoder.progress(), None);
        }
        let long = [&head(3).to_bytes()[..], b"four"].concat();
        assert_eq!(put(&mut decoder, &long), Err(Fault::Packet));
        assert!(decoder.is_broken());
    }

    #[test]
    fn too_large_is_said_before_it_costs_anything_and_skipped() {
        for (length, taken) in [(99, true), (100, true), (101, false), (1 << 31, false), (u64::MAX, false)] {
            let mut decoder = Decoder::new(100);
            let head = Head { kind: Kind::Bytes, descriptors: 0, length };
            let found = feed(&mut decoder, &head.to_bytes());
            assert_eq!(found.is_empty(), taken, "{length}");
            if !taken {
                assert_eq!(found, [Ok((News::TooLarge(head), Vec::new()))]);
                assert!(decoder.body.capacity() <= STEP);
                decoder.space().unwrap();
                assert!(decoder.body.capacity() <= STEP);
                assert_eq!(decoder.progress(), Some((16, 16_u64.saturating_add(length))));
            }
        }
        let mut decoder = Decoder::new(100);
        let large = message(Kind::Bytes, &vec![7; 3 * STEP]);
        let found = feed(&mut decoder, &[large, message(Kind::Bytes, b"next")].concat());
        assert!(matches!(&found[..], [Ok((News::TooLarge(_), _)), Ok((News::Message(_), body))] if body == b"next"));
    }

    #[test]
    fn a_length_alone_costs_a_step() {
        let mut decoder = Decoder::new(u64::MAX);
        let head = Head { kind: Kind::Bytes, descriptors: 0, length: u64::MAX };
        assert_eq!(feed(&mut decoder, &head.to_bytes()), []);
        for _ in 0..64 {
            assert_eq!(feed(&mut decoder, &[1; 1024]), []);
        }
        assert!(decoder.body.capacity() <= STEP);
        assert_eq!(decoder.progress(), Some((16 + 64 * 1024, u64::MAX)));
    }

    #[test]
    fn random_bytes_are_never_more_than_an_error() {
        let mut random = Random(7);
        for _ in 0..1000 {
            let mut decoder = Decoder::new(1 << 20);
            for _ in 0..random.below(6) + 1 {
                let mut bytes: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8).collect();
                // Most of them begin as they should, so that what follows is looked at.
                for (place, byte) in MAGIC.into_iter().chain([VERSION]).enumerate() {
                    if random.below(10) > 0
                        && let Some(place) = bytes.get_mut(place)
                    {
                        *place = byte;
                    }
                }
                if let Some(kind) = bytes.get_mut(3) {
                    *kind %= 9;
                }
                for zero in bytes.iter_mut().take(14).skip(5) {
                    *zero = if random.below(10) > 0 { 0 } else { *zero };
                }
                if feed(&mut decoder, &bytes).iter().any(Result::is_err) {
                    break;
                }
                assert!(decoder.body.capacity() <= (1 << 20) + STEP);
            }
        }
    }

    /// What version 1 has written once: it is read for ever. The file was made by this library on the day the format was made.
    #[test]
    fn yesterdays_bytes_are_read() {
        let bytes = include_bytes!("../../tests/data/wire-1.bin");
        let mut decoder = Decoder::new(MESSAGE_MAX);
        let found: Vec<_> = feed(&mut decoder, bytes).into_iter().map(Result::unwrap).collect();
        let kinds = found.iter().map(|(news, body)| match news {
            News::Message(head) => (head.kind, head.descriptors, body.as_slice()),
            News::TooLarge(_) => panic!("too large"),
        });
        let expected: [(Kind, u32, &[u8]); 4] = [
            (Kind::Hello, 0, b"(String, u32)"),
            (Kind::Value, 0, b"\x05hello\xac\x02"),
            (Kind::Bytes, 0, b""),
            (Kind::Refusal, 0, b"no"),
        ];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
    }
}
