//! The record of a run, as plain data. The same record is in every success and in every error; what was not there is said.

mod made;
mod transcript;

pub(crate) use transcript::Mark;
pub use transcript::Piece;

pub use crate::entry::ProcessEntry;
pub(crate) use crate::entry::{list, write_visible};
use crate::explain::Explanation;
use crate::status::ExitStatus;
use crate::text::{DecodeError, Text};
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Everything that is known of one run of a command.
///
/// Verbs that collect return it, and every [`Error`](crate::Error) carries one: after a timeout it holds what was read
/// until then, after a failed spawn it is empty.
///
/// ```
/// use procession::Command;
///
/// let output = Command::new("sh").args(["-c", "echo hello; echo oops >&2; exit 3"]).output()?;
/// assert_eq!(output.stdout(), b"hello\n");
/// assert_eq!(output.stderr_lossy(), "oops\n");
/// assert_eq!(output.status().code(), Some(3));
/// assert!(output.is_complete());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub(crate) command: String,
    pub(crate) pid: Option<u32>,
    pub(crate) status: Option<ExitStatus>,
    pub(crate) accepted: Accepted,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) input_accepted: u64,
    pub(crate) input_refused: bool,
    pub(crate) usage: Option<Usage>,
    pub(crate) started: Option<SystemTime>,
    pub(crate) elapsed: Duration,
    pub(crate) cause: Cause,
    pub(crate) survivors: Vec<ProcessEntry>,
    pub(crate) explanation: Option<Box<Explanation>>,
    pub(crate) text: Text,
    pub(crate) stages: Vec<Output>,
    pub(crate) marks: Vec<Mark>,
}

/// Why a run is over, or that it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No process was made.
    #[default]
    NotStarted,
    /// The process is still running; the record shows what was known at this moment.
    Running,
    /// The process ended without our doing: it exited, or a signal of somebody else's ended it.
    Ended,
    /// The timeout passed, and the process was stopped.
    Timeout,
    /// It wrote more than the limit allows, and was stopped.
    Overflow,
    /// It was stopped by request, or because the caller could not go on.
    Stopped,
}

/// An output stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// `stdout` or `stderr`.
impl fmt::Display for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// What was collected of one stream.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    pub(crate) bytes: Vec<u8>,
    pub(crate) total: u64,
    pub(crate) dropped: u64,
    pub(crate) gap: Option<usize>,
    pub(crate) completeness: Completeness,
    /// Something that was not kept was shown to nobody either.
    pub(crate) lost: bool,
    pub(crate) spilled: Option<PathBuf>,
}

impl Captured {
    /// The bytes that were kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes were read, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The file that holds the whole output, if there was more than [`Overflow::Spill`](crate::Overflow::Spill) keeps in memory.
    pub fn spilled(&self) -> Option<&Path> {
        self.spilled.as_deref()
    }

    /// How many bytes were read and not kept, by the [`Overflow`](crate::Overflow) policy.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Where in [`bytes`](Self::bytes) the dropped ones are missing, if any were dropped. If bytes are missing in several places, as
    /// they can be when a stream was [read piece by piece](crate::Child::lines) in between, it is the first of them.
    pub fn gap(&self) -> Option<usize> {
        self.gap
    }

    /// Whether the stream was read to its end.
    pub fn completeness(&self) -> &Completeness {
        &self.completeness
    }
}

/// Whether a stream was read to its end. The end of the process and the end of its streams are two facts: a grandchild may
/// hold a pipe open long after its parent has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completeness {
    /// The stream was not captured.
    #[default]
    NotCaptured,
    /// The end of file was seen.
    Complete,
    /// Reading has not come to an end: the record was made while the process was running.
    Open,
    /// The process had ended and reading was given up, because the pipe was still open when the drain time was over.
    CutOff {
        /// Who held the pipe open, as far as it can be seen.
        holders: Vec<ProcessEntry>,
    },
}

/// What a process and its reaped descendants used (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time in the program.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The most memory that was resident at one time, in bytes.
    #[doc(alias = "maxrss")]
    pub resident_max: u64,
}

/// The exit codes that count as success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// 0 alone.
    #[default]
    Zero,
    Codes(Vec<i32>),
    Any,
}

impl Accepted {
    pub(crate) fn accepts(&self, status: ExitStatus) -> bool {
        match self {
            Accepted::Zero => status.success(),
            Accepted::Codes(codes) => codes.contains(&status.returncode()),
            Accepted::Any => true,
        }
    }
}

impl Output {
    /// The command as a shell line, with secrets masked.
    #[doc(alias = "args")]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The number the process had, if one was made. It may belong to another process by now.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// How the process ended. [`ExitStatus::UNKNOWN`] if it did not, or if nobody can tell; [`cause`](Self::cause) tells
    /// these apart.
    pub fn status(&self) -> ExitStatus {
        self.status.unwrap_or(ExitStatus::UNKNOWN)
    }

    /// The exit code, or minus the signal's number; see [`ExitStatus::returncode`].
    pub fn returncode(&self) -> i32 {
        self.status().returncode()
    }

    /// Whether the process ended with an exit code that the command accepts: 0, or those given to
    /// [`Command::accept`](crate::Command::accept).
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| self.accepted.accepts(status))
    }

    /// What the process wrote to its standard output, as far as it was captured.
    pub fn stdout(&self) -> &[u8] {
        &self.stdout.bytes
    }

    /// What the process wrote to its standard error, as far as it was captured.
    pub fn stderr(&self) -> &[u8] {
        &self.stderr.bytes
    }

    /// Standard output with what is known about it.
    pub fn captured_stdout(&self) -> &Captured {
        &self.stdout
    }

    /// Standard error with what is known about it.
    pub fn captured_stderr(&self) -> &Captured {
        &self.stderr
    }

    /// Takes the bytes of standard output out of the record, without a copy.
    pub fn into_stdout(self) -> Vec<u8> {
        self.stdout.bytes
    }

    /// Takes the bytes of both streams out of the record, without a copy.
    pub fn into_streams(self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.bytes, self.stderr.bytes)
    }

    /// Standard output as text, decoded as [`Command::text`](crate::Command::text) says (strict UTF-8 unless told
    /// otherwise).
    ///
    /// # Errors
    /// If bytes are no text; they stay in [`stdout`](Self::stdout).
    pub fn stdout_text(&self) -> Result<String, DecodeError> {
        self.text.decode(&self.stdout.bytes)
    }

    /// Standard error as text; see [`stdout_text`](Self::stdout_text).
    ///
    /// # Errors
    /// If bytes are no text; they stay in [`stderr`](Self::stderr).
    pub fn stderr_text(&self) -> Result<String, DecodeError> {
        self.text.decode(&self.stderr.bytes)
    }

    /// Standard output as UTF-8, with U+FFFD for what is none. Cannot fail.
    pub fn stdout_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout.bytes)
    }

    /// Standard error as UTF-8, with U+FFFD for what is none. Cannot fail.
    pub fn stderr_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr.bytes)
    }

    /// Whether every captured stream was read to its end and nothing of it was lost: what is not in the record was shown to
    /// somebody as it came, or is in a [file](Captured::spilled).
    pub fn is_complete(&self) -> bool {
        [&self.stdout, &self.stderr].iter().all(|stream| {
            let read = matches!(stream.completeness, Completeness::Complete | Completeness::NotCaptured);
            read && !stream.lost
        })
    }

    /// How many bytes of the input were written to the process's pipe.
    pub fn input_accepted(&self) -> u64 {
        self.input_accepted
    }

    /// Whether the process closed its standard input, or ended, before all of the input was written.
    pub fn input_refused(&self) -> bool {
        self.input_refused
    }

    /// What the process used. `None` while it runs, or if somebody else reaped it.
    #[doc(alias = "rusage")]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// When the process was started, by the wall clock.
    pub fn started(&self) -> Option<SystemTime> {
        self.started
    }

    /// When the record was closed, by the wall clock of the start and the monotonic clock since.
    pub fn ended(&self) -> Option<SystemTime> {
        self.started.and_then(|started| started.checked_add(self.elapsed))
    }

    /// How long the run took, until its streams and its end were seen; monotonic.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Why the run is over.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The stages of a pipeline, each with its own status, standard error and usage; empty for a single command.
    pub fn stages(&self) -> &[Output] {
        &self.stages
    }

    /// Both streams as one log, in the order of reading, if the command was told to keep a
    /// [`transcript`](crate::Command::transcript); else empty. For a pipeline those of all stages.
    ///
    /// The order within a stream is certain. Between the streams it is that of reading: what was written to one of them long before
    /// the other comes first, but two pieces that were found in [one look](Piece::is_simultaneous), or within microseconds, may
    /// have been written the other way round. If the order must be exact, let both streams be one with
    /// [`Stdio::stdout`](crate::Stdio::stdout).
    ///
    /// ```
    /// use procession::{Command, Stream};
    ///
    /// let output = Command::shell("echo one; sleep 0.1; echo oops >&2; sleep 0.1; echo two").transcript().output()?;
    /// let log: Vec<_> = output.transcript().iter().map(|piece| (piece.stream(), piece.bytes())).collect();
    /// assert_eq!(log, [(Stream::Stdout, &b"one\n"[..]), (Stream::Stderr, b"oops\n"), (Stream::Stdout, b"two\n")]);
    /// assert_eq!(output.stdout(), b"one\ntwo\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn transcript(&self) -> Vec<Piece<'_>> {
        let Some((last, before)) = self.stages.split_last() else {
            return transcript::pieces(0, &self.marks, Duration::ZERO, &self.stdout, &self.stderr);
        };
        let since = |stage: &Output| {
            let between = stage.started.zip(self.started).map(|(stage, first)| stage.duration_since(first));
            between.and_then(Result::ok).unwrap_or_default()
        };
        // The whole has taken the last one's standard output.
        let mut all = transcript::pieces(before.len(), &last.marks, since(last), &self.stdout, &last.stderr);
        for (place, stage) in before.iter().enumerate() {
            all.extend(transcript::pieces(place, &stage.marks, since(stage), &stage.stdout, &stage.stderr));
        }
        all.sort_by_key(Piece::at);
        all
    }

    /// Processes of the run's tree that were still alive after a stop had done everything it could.
    pub fn survivors(&self) -> &[ProcessEntry] {
        &self.survivors
    }

    /// What could be seen of the process, its tree and its pipes when something had to be left behind: a stop that left
    /// survivors, or a pipe that was [cut off](Completeness::CutOff). `None` if nothing was: then nobody looked.
    #[doc(alias = "hang")]
    pub fn explanation(&self) -> Option<&Explanation> {
        self.explanation.as_deref()
    }

    /// Why something was left behind, in short sentences, without what the record says elsewhere.
    pub(crate) fn reasons(&self, said: &[ProcessEntry]) -> Vec<String> {
        self.explanation.as_ref().map(|explanation| explanation.briefly(said)).unwrap_or_default()
    }
}

/// What a person wants to see: both streams, with control characters made visible, and the end if it is not a plain success.
impl fmt::Display for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in [&self.stdout, &self.stderr] {
            let text = String::from_utf8_lossy(&stream.bytes);
            write_visible(out, &text)?;
            if !text.is_empty() && !text.ends_with('\n') {
                out.write_str("\n")?;
            }
            if stream.dropped > 0 {
                let how = if stream.lost { "dropped" } else { "were handed out as they came" };
                writeln!(out, "[{} bytes {how}]", stream.dropped)?;
            }
            if let Some(path) = &stream.spilled {
                out.write_str("[all of it is in ")?;
                write_visible(out, &path.to_string_lossy())?;
                out.write_str("]\n")?;
            }
            if let Completeness::CutOff { holders } = &stream.completeness {
                writeln!(out, "[cut off: the pipe is still held by {}]", list(holders))?;
            }
        }
        let holders = |stream: &Captured| match &stream.completeness {
            Completeness::CutOff { holders } => holders.clone(),
            _ => Vec::new(),
        };
        let said = [holders(&self.stdout), holders(&self.stderr)].concat();
        for reason in self.reasons(&said) {
            write!(out, "[")?;
            write_visible(out, &reason)?;
            out.write_str("]\n")?;
        }
        if self.status.is_some() && !self.status().success() {
            writeln!(out, "[{}]", self.status())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_cannot_drive_the_terminal() {
        let mut output = Output { status: Some(ExitStatus::from_code(2)), ..Output::default() };
        output.stdout.bytes = b"\x1b[2Jhello\r\n".to_vec();
        assert_eq!(output.to_string(), "\\u{1b}[2Jhello\n[exit status: 2]\n");
    }

    #[test]
    fn what_is_not_shown_is_said() {
        let mut output = Output { status: Some(ExitStatus::from_code(0)), ..Output::default() };
        output.stdout.dropped = 3;
        assert_eq!(output.to_string(), "[3 bytes were handed out as they came]\n");
        output.stdout.lost = true;
        assert_eq!(output.to_string(), "[3 bytes dropped]\n");
        output.stdout = Captured { bytes: b"x\n".to_vec(), spilled: Some("/tmp/log".into()), ..Captured::default() };
        assert_eq!(output.to_string(), "x\n[all of it is in /tmp/log]\n");
    }

    #[test]
    fn accepted_codes_decide_success() {
        let output = |accepted| Output { status: Some(ExitStatus::from_code(1)), accepted, ..Output::default() };
        assert!(!output(Accepted::Zero).success());
        assert!(output(Accepted::Codes(vec![0, 1])).success());
        assert!(!output(Accepted::Codes(vec![0])).success());
        assert!(output(Accepted::Any).success());
        assert!(!Output { accepted: Accepted::Any, ..Output::default() }.success(), "it never ran");
    }

    #[test]
    fn completeness_is_told() {
        let mut output = Output::default();
        assert!(output.is_complete());
        output.stderr.completeness = Completeness::CutOff { holders: Vec::new() };
        assert!(!output.is_complete());
        output.stderr.completeness = Completeness::Complete;
        output.stdout.dropped = 1;
        assert!(output.is_complete(), "it was shown to somebody");
        output.stdout.lost = true;
        assert!(!output.is_complete());
    }
}
