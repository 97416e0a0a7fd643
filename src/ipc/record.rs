//! The record of a run and the error around it, as data: so that a function in another process returns what a command there has said, and why it
//! has failed. Decides what of them travels: everything but the [explanation](crate::Output::explanation) of a survivor, and of an error
//! without a number of the system's its text.
//!
//! The form is a row of values in the order of the fields, with a version in front. What arrives is looked at before it is believed: no number in
//! it can make a later look at the record fail.

use crate::entry::ProcessEntry;
use crate::error::{Error, ErrorKind, Panic, Parts, Source};
use crate::output::{Accepted, Captured, Cause, Completeness, Mark, Output, Stream, Usage};
use crate::status::ExitStatus;
use crate::text::{DecodeError, ErrorMode, Newlines, Text};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const VERSION: u8 = 1;

/// Each kind has the number of its place here. New ones go behind.
const KINDS: [ErrorKind; 21] = [
    ErrorKind::InvalidInput,
    ErrorKind::NotFound,
    ErrorKind::InterpreterNotFound,
    ErrorKind::DirectoryNotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::NotExecutable,
    ErrorKind::ArgumentListTooLong,
    ErrorKind::ResourceExhausted,
    ErrorKind::ExecutableBusy,
    ErrorKind::Unsupported,
    ErrorKind::Timeout,
    ErrorKind::Ended,
    ErrorKind::Status,
    ErrorKind::Overflow,
    ErrorKind::Cancelled,
    ErrorKind::Dependency,
    ErrorKind::Engine,
    ErrorKind::Panic,
    ErrorKind::OwnerDied,
    ErrorKind::Decode,
    ErrorKind::Io,
];

const CAUSES: [Cause; 6] =
    [Cause::NotStarted, Cause::Running, Cause::Ended, Cause::Timeout, Cause::Overflow, Cause::Stopped];
const ERROR_MODES: [ErrorMode; 3] = [ErrorMode::Strict, ErrorMode::Replace, ErrorMode::Ignore];
const NEWLINES: [Newlines; 2] = [Newlines::Keep, Newlines::Universal];

/// The place of something in its table. What is missing there, by a mistake of ours, is told as the last.
fn number_of<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|other| other == value).unwrap_or(table.len() - 1) as u8
}

fn at<T: Copy, E: serde::de::Error>(table: &[T], number: u8, what: &str) -> Result<T, E> {
    table.get(usize::from(number)).copied().ok_or_else(|| E::custom(format!("{what} {number} is not known here")))
}

/// As data: a function in another process can return it, and so can a message hold it. What the program has said, how it ended and what
/// it used arrive; an [explanation](Output::explanation) does not.
impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stages: Vec<One<'_>> = self.stages.iter().map(One).collect();
        (VERSION, One(self), stages).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Output, D::Error> {
        let (version, OwnedOne(output), stages) = <(u8, OwnedOne, Vec<OwnedOne>)>::deserialize(deserializer)?;
        known::<D::Error>(version)?;
        Ok(Output { stages: stages.into_iter().map(|OwnedOne(stage)| stage).collect(), ..output })
    }
}

/// As data: a function in another process can fail with it. The kind, the text, the record of the run and the panic arrive.
///
/// ```
/// use procession::ipc::Process;
/// use procession::{Command, Error};
///
/// fn count_lines(text: String) -> Result<u64, Error> {
///     let output = Command::new("wc").arg("-l").input(text).check_output_text()?;
///     output.trim().parse().map_err(|_| std::io::Error::other("wc has printed no number").into())
/// }
///
/// // The first `?` is for the process, the second one for the function.
/// assert_eq!(Process::start(count_lines, "a\nb\n".to_owned())?.join()??, 2);
///
/// let failing = |()| -> Result<(), Error> { Command::shell("echo no space >&2; exit 3").check_output().map(drop) };
/// let error = Process::start(failing, ())?.join()?.unwrap_err();
/// assert!(error.is_status());
/// assert_eq!((error.output().returncode(), error.output().stderr_lossy()), (3, "no space\n".into()));
/// # Ok::<(), Error>(())
/// ```
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Parts { kind, step, path, detail, source, output, panic } = self.parts();
        let panic = panic.as_ref().map(|panic| (panic.message(), panic.location(), panic.backtrace()));
        let cause = source.as_ref().map(|source| match source {
            Source::Io(error) => match error.raw_os_error() {
                Some(number) => (0_u8, i64::from(number), String::new()),
                None => (1, 0, error.to_string()),
            },
            Source::Decode(error) => (2, error.offset() as i64, error.encoding().to_owned()),
        });
        let path = path.as_deref().map(path_bytes);
        (VERSION, number_of(&KINDS, kind), step, path, detail, cause, panic, output).serialize(serializer)
    }
}

type ErrorForm = (
    u8,
    u8,
    Option<String>,
    Option<OwnedBytes>,
    Option<String>,
    Option<(u8, i64, String)>,
    Option<(String, String, String)>,
    Output,
);

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Error, D::Error> {
        let (version, kind, step, path, detail, cause, panic, output) = ErrorForm::deserialize(deserializer)?;
        known::<D::Error>(version)?;
        let source = match cause {
            None => None,
            Some((0, number, _)) => Some(Source::Io(io::Error::from_raw_os_error(number as i32))),
            Some((2, offset, encoding)) => match DecodeError::at(offset as u64, &encoding) {
                Some(error) => Some(Source::Decode(error)),
                None => Some(Source::Io(io::Error::other(format!("no {encoding} at offset {offset}")))),
            },
            Some((_, _, text)) => Some(Source::Io(io::Error::other(text))),
        };
        Ok(Error::of_parts(Parts {
            kind: at::<_, D::Error>(&KINDS, kind, "an error of kind")?,
            step: step.map(Into::into),
            path: path.map(OwnedBytes::into_path),
            detail: detail.map(Into::into),
            source,
            output,
            panic: panic.map(|(message, location, backtrace)| Panic::new(message, location, backtrace)),
        }))
    }
}

fn known<E: serde::de::Error>(version: u8) -> Result<(), E> {
    if version == VERSION {
        return Ok(());
    }
    Err(E::custom(format!("a record of version {version} instead of {VERSION}")))
}

/// The record of one command, without stages: these have none themselves, so nothing that arrives can nest.
struct One<'a>(&'a Output);
struct OwnedOne(Output);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let output = self.0;
        let accepted = match &output.accepted {
            Accepted::Zero => (0_u8, &[][..]),
            Accepted::Codes(codes) => (1, codes.as_slice()),
            Accepted::Any => (2, &[][..]),
        };
        let usage = output.usage.map(|usage| (usage.user, usage.system, usage.resident_max));
        // Nobody starts a process before 1970.
        let started = output.started.and_then(|started| started.duration_since(SystemTime::UNIX_EPOCH).ok());
        let (encoding, errors, newlines) = output.text.parts();
        let text = (encoding, number_of(&ERROR_MODES, &errors), number_of(&NEWLINES, &newlines));
        let mark = |mark: &Mark| (mark.stream == Stream::Stderr, mark.count, mark.at, mark.look);
        let marks: Vec<_> = output.marks.iter().map(mark).collect();
        let ending = (
            output.status.map(|status| (status.is_known(), status.raw().unwrap_or_default())),
            output.pid,
            accepted,
            number_of(&CAUSES, &output.cause),
        );
        let streams = (OneStream(&output.stdout), OneStream(&output.stderr), marks, text);
        let times = (started, output.elapsed, usage);
        let input = (output.input_accepted, output.input_refused);
        (&output.command, ending, streams, times, input, pairs(&output.survivors)).serialize(serializer)
    }
}

type Ending = (Option<(bool, i32)>, Option<u32>, (u8, Vec<i32>), u8);
type Streams = (OwnedStream, OwnedStream, Vec<(bool, u64, Duration, u64)>, (String, u8, u8));
type Times = (Option<Duration>, Duration, Option<(Duration, Duration, u64)>);
type OneForm = (String, Ending, Streams, Times, (u64, bool), Vec<(u32, String)>);

impl<'de> Deserialize<'de> for OwnedOne {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedOne, D::Error> {
        let (command, ending, streams, times, (input_accepted, input_refused), survivors) =
            OneForm::deserialize(deserializer)?;
        let (status, pid, (accepted, codes), cause) = ending;
        let (OwnedStream(stdout), OwnedStream(stderr), marks, (encoding, errors, newlines)) = streams;
        let (started, elapsed, usage) = times;
        let text = Text::encoding(&encoding).map_err(D::Error::custom)?;
        let text = text.errors(at::<_, D::Error>(&ERROR_MODES, errors, "the error mode")?);
        Ok(OwnedOne(Output {
            command,
            pid,
            status: status.map(|(known, raw)| if known { ExitStatus::from_raw(raw) } else { ExitStatus::UNKNOWN }),
            accepted: match accepted {
                0 => Accepted::Zero,
                1 => Accepted::Codes(codes),
                _ => Accepted::Any,
            },
            stdout,
            stderr,
            input_accepted,
            input_refused,
            usage: usage.map(|(user, system, resident_max)| Usage { user, system, resident_max }),
            started: started.map(|since| Ok(SystemTime::UNIX_EPOCH + bounded::<D::Error>(since)?)).transpose()?,
            elapsed: bounded::<D::Error>(elapsed)?,
            cause: at::<_, D::Error>(&CAUSES, cause, "the end by cause")?,
            survivors: entries(survivors),
            explanation: None,
            text: text.newlines(at::<_, D::Error>(&NEWLINES, newlines, "the line end")?),
            stages: Vec::new(),
            marks: plausible::<D::Error>(marks)?,
        }))
    }
}

/// A time that can be added to others.
fn bounded<E: serde::de::Error>(time: Duration) -> Result<Duration, E> {
    if time.as_secs() < 1 << 40 { Ok(time) } else { Err(E::custom(format!("{time:?} is no time of a process"))) }
}

/// Pieces whose lengths can be added up.
fn plausible<E: serde::de::Error>(marks: Vec<(bool, u64, Duration, u64)>) -> Result<Vec<Mark>, E> {
    let mut sum = 0_u64;
    let mark = |(is_stderr, count, at, look): (bool, u64, Duration, u64)| {
        sum = sum.checked_add(count).ok_or_else(|| E::custom("pieces of output that are longer than any can be"))?;
        let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
        Ok(Mark { stream, count, at: bounded(at)?, look })
    };
    marks.into_iter().map(mark).collect()
}

fn pairs(entries: &[ProcessEntry]) -> Vec<(u32, &str)> {
    entries.iter().map(|entry| (entry.pid, entry.command.as_str())).collect()
}

fn entries(pairs: Vec<(u32, String)>) -> Vec<ProcessEntry> {
    pairs.into_iter().map(|(pid, command)| ProcessEntry { pid, command }).collect()
}

struct OneStream<'a>(&'a Captured);
struct OwnedStream(Captured);

impl Serialize for OneStream<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Captured { bytes, total, dropped, gap, completeness, lost, spilled } = self.0;
        let completeness = match completeness {
            Completeness::NotCaptured => (0_u8, Vec::new()),
            Completeness::Complete => (1, Vec::new()),
            Completeness::Open => (2, Vec::new()),
            Completeness::CutOff { holders } => (3, pairs(holders)),
        };
        let gap = gap.map(|gap| gap as u64);
        let spilled = spilled.as_deref().map(path_bytes);
        (Bytes(bytes), total, dropped, gap, completeness, lost, spilled).serialize(serializer)
    }
}

type StreamForm = (OwnedBytes, u64, u64, Option<u64>, (u8, Vec<(u32, String)>), bool, Option<OwnedBytes>);

impl<'de> Deserialize<'de> for OwnedStream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedStream, D::Error> {
        let (OwnedBytes(bytes), total, dropped, gap, (completeness, holders), lost, spilled) =
            StreamForm::deserialize(deserializer)?;
        Ok(OwnedStream(Captured {
            gap: gap.map(|gap| bytes.len().min(usize::try_from(gap).unwrap_or(usize::MAX))),
            bytes,
            total,
            dropped,
            completeness: match completeness {
                0 => Completeness::NotCaptured,
                1 => Completeness::Complete,
                2 => Completeness::Open,
                _ => Completeness::CutOff { holders: entries(holders) },
            },
            lost,
            spilled: spilled.map(OwnedBytes::into_path),
        }))
    }
}

/// Bytes that go as one block, and not one by one.
struct Bytes<'a>(&'a [u8]);
struct OwnedBytes(Vec<u8>);

fn path_bytes(path: &Path) -> Bytes<'_> {
    Bytes(path.as_os_str().as_bytes())
}

impl OwnedBytes {
    fn into_path(self) -> PathBuf {
        OsString::from_vec(self.0).into()
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for OwnedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedBytes, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor).map(OwnedBytes)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    /// Formats of text have no blocks.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Stdio};
    use crate::ipc::codec;

    fn there_and_back<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
        let bytes = codec::encode(value).unwrap().0;
        // Cut off anywhere it is an error and nothing else.
        for length in 0..bytes.len() {
            assert!(codec::decode::<T>(&bytes[..length], Vec::new()).is_err());
        }
        let text = serde_json::to_string(value).unwrap();
        assert_eq!(codec::encode(&serde_json::from_str::<T>(&text).unwrap()).unwrap().0, bytes);
        codec::decode(&bytes, Vec::new()).unwrap()
    }

    #[test]
    fn a_record_arrives_as_it_was() {
        let mark = |stream, count| Mark { stream, count, at: Duration::from_millis(3), look: 9 };
        let holders = vec![ProcessEntry { pid: 7, command: "cat".into() }];
        let stdout = Captured {
            bytes: b"\xff\0ab".to_vec(),
            total: 10,
            dropped: 6,
            gap: Some(2),
            completeness: Completeness::CutOff { holders: holders.clone() },
            lost: true,
            spilled: Some(OsString::from_vec(b"/tmp/\xfe".to_vec()).into()),
        };
        let output = Output {
            command: "cc a.c".into(),
            pid: Some(4711),
            status: Some(ExitStatus::from_raw(139)),
            accepted: Accepted::Codes(vec![-11, 3]),
            stderr: Captured { completeness: Completeness::Open, ..Captured::default() },
            stdout,
            input_accepted: 12,
            input_refused: true,
            usage: Some(Usage { user: Duration::from_nanos(1), system: Duration::from_secs(2), resident_max: 3 }),
            started: Some(SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 5)),
            elapsed: Duration::from_micros(17),
            cause: Cause::Overflow,
            survivors: holders,
            explanation: None,
            text: Text::encoding("shift_jis").unwrap().errors(ErrorMode::Replace).newlines(Newlines::Universal),
            stages: vec![Output { command: "stage".into(), accepted: Accepted::Any, ..Output::default() }],
            marks: vec![mark(Stream::Stderr, 1), mark(Stream::Stdout, 10)],
        };
        let (before, after) = (format!("{output:?}"), format!("{:?}", there_and_back(&output)));
        assert_eq!(before, after);
        let unknown = Output { status: Some(ExitStatus::UNKNOWN), ..Output::default() };
        assert_eq!(there_and_back(&unknown).status, Some(ExitStatus::UNKNOWN));
        assert_eq!(there_and_back(&Output::default()).status, None);
    }

    #[test]
    fn an_error_arrives_as_it_was() {
        let panic = Panic::new("why".into(), "where".into(), "how".into());
        let decode = Text::utf8().decode(b"ab\xff").unwrap_err();
        let errors = [
            Error::invalid("no").of_command(|| "ls -l".into()),
            Error::io("chdir", io::Error::from_raw_os_error(libc::ENOENT)).path("/nowhere").detail("the directory"),
            Error::from(io::Error::other("in words")),
            Error::from(decode.clone()),
            Error::of_panic(panic.clone()),
            Command::new("no-such-program").call().unwrap_err(),
            Command::shell("echo oops >&2; exit 3").stderr(Stdio::piped()).check_output().unwrap_err(),
        ];
        for error in errors {
            let same = there_and_back(&error);
            assert_eq!((error.kind(), error.to_string()), (same.kind(), same.to_string()));
            assert_eq!((error.raw_os_error(), error.failed_step()), (same.raw_os_error(), same.failed_step()));
            assert_eq!((error.failed_path(), error.panic()), (same.failed_path(), same.panic()));
            assert_eq!(format!("{:?}", error.output()), format!("{:?}", same.output()));
        }
    }

    #[test]
    fn every_kind_has_its_number() {
        for (number, kind) in KINDS.iter().enumerate() {
            assert_eq!(number_of(&KINDS, kind), number as u8);
            assert_eq!(there_and_back(&Error::new(*kind)).kind(), *kind);
        }
    }

    /// What this version has written can be read by every later one.
    #[test]
    fn the_bytes_of_version_1() {
        let bytes = codec::encode(&Error::invalid("no")).unwrap().0;
        let mut expected = vec![1, 0, 0, 0, 1, 2, b'n', b'o', 0, 0, 1];
        // The empty record: a command, how it ended, two streams with nothing in between, times, input, survivors; no stages.
        expected.extend([0, 0, 0, 0, 0, 0]);
        expected.extend([0; 8].into_iter().chain([0; 8]).chain([0]));
        expected.extend([5, b'U', b'T', b'F', b'-', b'8', 0, 0]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
        let mut other = bytes;
        other[0] = 2;
        let error = codec::decode::<Error>(&other, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("bytes are no Error"), "{error}");
    }

    #[test]
    fn what_would_make_a_later_look_fail_is_refused() {
        let long = Output { elapsed: Duration::MAX, ..Output::default() };
        assert!(codec::decode::<Output>(&codec::encode(&long).unwrap().0, Vec::new()).is_err());
        let mark = Mark { stream: Stream::Stdout, count: u64::MAX, at: Duration::ZERO, look: 0 };
        let marks = Output { marks: vec![mark, mark], ..Output::default() };
        assert!(codec::decode::<Output>(&codec::encode(&marks).unwrap().0, Vec::new()).is_err());
        let gap = Captured { gap: Some(usize::MAX), total: 1, ..Captured::default() };
        let output = Output { stdout: gap, marks: vec![mark], ..Output::default() };
        let same = codec::decode::<Output>(&codec::encode(&output).unwrap().0, Vec::new()).unwrap();
        assert_eq!((same.stdout.gap, same.transcript().len()), (Some(0), 1));
    }
}
