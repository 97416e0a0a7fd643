//! What a manager's process and its clients say to each other. Decides the words and the version. Leaves the frames, and the first look at the types,
//! to [`Connection`](crate::ipc::Connection): the names of the two types here stand in its hello, so another version is told at once.
//!
//! Data only. The two verbs that name a function of the program, `Create` and `Run`, are refused by the server unless it knows that the other side is
//! the same program on the same machine.

use crate::error::{Error, ErrorKind, Panic};
use crate::ipc::codec;
use crate::ipc::passing::Descriptor;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verb {
    /// The first word on each connection: which program this is. The answer is the number of the server.
    #[default]
    Hello = 0,
    /// A call of an object, in the object's own words.
    Call = 1,
    /// A function of the program, with the object in its hands.
    Run = 2,
    /// A new object, made by a function of the program. It is on its way to who asks, as after `Lend`.
    Create = 3,
    /// The object is on its way to somebody: it stays until it was claimed.
    Lend = 4,
    /// The object has arrived here.
    Claim = 5,
    /// This client is done with the object. There is no answer.
    Release = 6,
    /// The object can be found by this name.
    Publish = 7,
    /// The object of this name.
    Find = 8,
    /// Nobody finds this name any more.
    Withdraw = 9,
    /// Others may connect at this path.
    ListenAtPath = 10,
    /// Others may connect by TCP.
    ListenOnTcp = 11,
    /// From the next message on, what both say stands in this memory. See [`line`](super::line).
    Share = 12,
}

const VERBS: [Verb; 13] = [
    Verb::Hello,
    Verb::Call,
    Verb::Run,
    Verb::Create,
    Verb::Lend,
    Verb::Claim,
    Verb::Release,
    Verb::Publish,
    Verb::Find,
    Verb::Withdraw,
    Verb::ListenAtPath,
    Verb::ListenOnTcp,
    Verb::Share,
];

/// One thing that a client wants. The number in its name is the version of everything here.
#[derive(Debug, Default)]
pub(super) struct ManagerRequest2 {
    pub(super) verb: Verb,
    pub(super) object: u64,
    /// The place of a function, or the number of a loan.
    pub(super) number: u64,
    /// How long a call may wait for others. `None`: for ever.
    pub(super) patience: Option<Duration>,
    pub(super) text: String,
    pub(super) payload: Payload,
}

/// What comes of it.
#[derive(Debug)]
pub(super) struct ManagerAnswer2(pub(super) Result<(u64, Payload), Failure>);

impl ManagerRequest2 {
    pub(super) fn new(verb: Verb, object: u64) -> ManagerRequest2 {
        ManagerRequest2 { verb, object, ..ManagerRequest2::default() }
    }
}

impl Serialize for ManagerRequest2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ManagerRequest2 { verb, object, number, patience, text, payload } = self;
        (*verb as u8, object, number, patience, text, payload).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ManagerRequest2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ManagerRequest2, D::Error> {
        type Form = (u8, u64, u64, Option<Duration>, String, Payload);
        let (verb, object, number, patience, text, payload) = Form::deserialize(deserializer)?;
        let verb = VERBS.get(usize::from(verb)).copied().ok_or_else(|| D::Error::custom("no verb of this version"))?;
        Ok(ManagerRequest2 { verb, object, number, patience, text, payload })
    }
}

impl Serialize for ManagerAnswer2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ManagerAnswer2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ManagerAnswer2, D::Error> {
        Ok(ManagerAnswer2(Deserialize::deserialize(deserializer)?))
    }
}

/// A value inside of a message, whose type only the object and its users know.
#[derive(Debug, Default)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    descriptors: Vec<Descriptor>,
}

impl Payload {
    pub(super) fn of<T: Serialize + ?Sized>(value: &T) -> Result<Payload, Error> {
        Ok(Payload::of_encoded(codec::encode(value)?))
    }

    pub(super) fn of_encoded((bytes, descriptors): codec::Encoded) -> Payload {
        Payload { bytes, descriptors: descriptors.into_iter().map(Descriptor::from).collect() }
    }

    pub(super) fn value<T: DeserializeOwned>(self) -> Result<T, Error> {
        let (bytes, descriptors) = self.into_parts();
        codec::decode(&bytes, descriptors)
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<OwnedFd>) {
        (self.bytes, self.descriptors.into_iter().map(Descriptor::into_owned_fd).collect())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Block(&self.bytes), &self.descriptors).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        let (OwnedBlock(bytes), descriptors) = Deserialize::deserialize(deserializer)?;
        Ok(Payload { bytes, descriptors })
    }
}

/// Bytes that go as one block, and not one by one.
struct Block<'a>(&'a [u8]);

impl Serialize for Block<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct OwnedBlock(Vec<u8>);

impl<'de> Deserialize<'de> for OwnedBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedBlock, D::Error> {
        deserializer.deserialize_bytes(BlockVisitor).map(OwnedBlock)
    }
}

struct BlockVisitor;

impl Visitor<'_> for BlockVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// Why a request has failed: an error that can travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    kind: u8,
    text: String,
    /// Message, place and backtrace.
    panic: Option<(String, String, String)>,
}

/// The kinds that travel. Any other one is told as [`ErrorKind::Io`].
const KINDS: [(u8, ErrorKind); 9] = [
    (1, ErrorKind::InvalidInput),
    (2, ErrorKind::NotFound),
    (3, ErrorKind::PermissionDenied),
    (4, ErrorKind::ResourceExhausted),
    (5, ErrorKind::Unsupported),
    (6, ErrorKind::Timeout),
    (7, ErrorKind::Ended),
    (8, ErrorKind::Panic),
    (9, ErrorKind::Decode),
];

impl Failure {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Failure {
        Failure::from(Error::new(kind).detail(text.into()))
    }

    pub(super) fn into_error(self) -> Error {
        if let Some((message, location, backtrace)) = self.panic {
            return Error::of_panic(Panic::new(message, location, backtrace));
        }
        let kind = KINDS.iter().find(|(number, _)| *number == self.kind).map_or(ErrorKind::Io, |(_, kind)| *kind);
        Error::new(kind).detail(self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = KINDS.iter().find(|(_, kind)| *kind == error.kind()).map_or(0, |(number, _)| *number);
        let panic = error
            .panic()
            .map(|panic| (panic.message().to_owned(), panic.location().to_owned(), panic.backtrace().to_owned()));
        Failure { kind, text: error.to_string(), panic }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.kind, &self.text, &self.panic).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Failure, D::Error> {
        let (kind, text, panic) = Deserialize::deserialize(deserializer)?;
        Ok(Failure { kind, text, panic })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_have_their_places() {
        for (number, verb) in VERBS.iter().enumerate() {
            assert_eq!(*verb as usize, number);
        }
    }

    /// What version 1 has written must be read by everything that calls itself version 1.
    #[test]
    fn the_bytes_of_the_version_stay() {
        let payload = Payload::of_encoded((vec![9, 8], Vec::new()));
        let patience = Some(Duration::from_millis(1_500));
        let request = ManagerRequest2 { verb: Verb::Call, object: 300, number: 7, patience, text: "a".into(), payload };
        let bytes = codec::encode(&request).unwrap().0;
        let written = [1, 0xac, 2, 7, 1, 1, 0x80, 0xca, 0xb5, 0xee, 1, 1, b'a', 2, 9, 8, 0];
        assert_eq!(bytes, written);
        let read: ManagerRequest2 = codec::decode(&written, Vec::new()).unwrap();
        assert_eq!((read.verb, read.object, read.number, read.patience), (Verb::Call, 300, 7, patience));
        let failure = Failure::new(ErrorKind::Timeout, "late");
        let answer = codec::encode(&ManagerAnswer2(Err(failure))).unwrap().0;
        assert_eq!(answer, [1, 6, 4, b'l', b'a', b't', b'e', 0]);
        assert!(codec::decode::<ManagerRequest2>(&[99, 0, 0, 0, 0, 0, 0], Vec::new()).is_err());
    }

    #[test]
    fn errors_arrive_as_they_were() {
        for (_, kind) in KINDS.into_iter().filter(|(_, kind)| *kind != ErrorKind::Panic) {
            let error = Failure::new(kind, "what it was").into_error();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, "what it was"));
        }
        let panic = Error::of_panic(Panic::new("why".into(), "where".into(), "how".into()));
        let error = Failure::from(panic).into_error();
        assert_eq!((error.kind(), error.panic().unwrap().message()), (ErrorKind::Panic, "why"));
    }
}
