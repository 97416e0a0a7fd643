//! The one error of the library: what ran, which step failed, why, and the last thing the child said. Holds plain data, so
//! that every module can speak it.

use crate::entry;
use crate::output::Output;
use crate::text::{DecodeError, UnknownEncoding};
use std::borrow::Cow;
use std::error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a command, with everything that is known of the run.
///
/// The text says what ran, which step failed and why; if the process had said something on its standard error, the end of
/// that follows. [`output`](Error::output) is the record of the run: nothing that was read is lost.
///
/// ```
/// use procession::{Command, ErrorKind};
///
/// let error = Command::new("no-such-program").output().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(error.to_string().starts_with("no-such-program: "));
/// ```
pub struct Error {
    inner: Box<Parts>,
}

/// What an error consists of.
pub(crate) struct Parts {
    pub(crate) kind: ErrorKind,
    pub(crate) step: Option<Cow<'static, str>>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) detail: Option<Cow<'static, str>>,
    pub(crate) source: Option<Source>,
    pub(crate) output: Output,
    pub(crate) panic: Option<Panic>,
}

/// The panic of a function that ran in another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    message: String,
    location: String,
    backtrace: String,
}

impl Panic {
    #[cfg_attr(not(all(feature = "ipc", target_os = "linux")), allow(dead_code))]
    pub(crate) fn new(message: String, location: String, backtrace: String) -> Panic {
        Panic { message, location, backtrace }
    }

    /// What was said.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// File, line and column.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Who had called whom, as [`std::backtrace`] shows it.
    #[doc(alias = "traceback")]
    pub fn backtrace(&self) -> &str {
        &self.backtrace
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "panicked at {}: {}", self.location, self.message)
    }
}

#[derive(Debug)]
pub(crate) enum Source {
    Io(io::Error),
    Decode(DecodeError),
}

/// The sort of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request contradicts itself or cannot be said to the kernel; nothing was created.
    InvalidInput,
    /// There is no such program; the text lists the places that were tried.
    NotFound,
    /// The program is a script or binary whose interpreter does not exist.
    InterpreterNotFound,
    /// The working directory does not exist, or is none.
    DirectoryNotFound,
    /// The system does not allow it.
    PermissionDenied,
    /// The file is no program: it has no execute permission, no interpreter line, or another machine's format.
    NotExecutable,
    /// Arguments and environment are too long for the kernel.
    ArgumentListTooLong,
    /// The system, or a limit, allows no more processes, descriptors or memory; it may work later.
    ResourceExhausted,
    /// The program is open for writing (ETXTBSY), also after a bounded number of tries.
    ExecutableBusy,
    /// The kernel, or this engine, has no means for the option; the text names what is missing.
    Unsupported,
    /// The timeout passed.
    Timeout,
    /// The output ended before what was waited for came.
    #[doc(alias = "EOF")]
    Ended,
    /// The process ended with an exit code that is not accepted, or by a signal.
    Status,
    /// The process wrote more than the limit allows.
    Overflow,
    /// The task was cancelled, or the run was halted before it was its turn.
    Cancelled,
    /// The task was not started, because one that it waits for has not succeeded.
    Dependency,
    /// The place where the task ran has failed, or cannot tell what became of it.
    Engine,
    /// A function that ran in another process has panicked.
    Panic,
    /// A process has died while it changed what it shares with others: that may be half done. Told once.
    #[doc(alias = "EOWNERDEAD")]
    OwnerDied,
    /// Bytes are no text in the encoding asked for, or no value of the type that was expected.
    Decode,
    /// Any other failure of the system.
    Io,
}

/// How much of standard error the text shows.
const TAIL_LINES: usize = 8;
const TAIL_BYTES: usize = 1024;
/// How much of the command line it shows.
const COMMAND_CHARS: usize = 300;

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Error {
        let inner =
            Parts { kind, step: None, path: None, detail: None, source: None, output: Output::default(), panic: None };
        Error { inner: Box::new(inner) }
    }

    #[cfg(all(feature = "ipc", target_os = "linux"))]
    pub(crate) fn parts(&self) -> &Parts {
        &self.inner
    }

    #[cfg(all(feature = "ipc", target_os = "linux"))]
    pub(crate) fn of_parts(parts: Parts) -> Error {
        Error { inner: Box::new(parts) }
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::InvalidInput).detail(detail)
    }

    #[cfg_attr(all(target_os = "linux", not(feature = "ipc")), allow(dead_code))] // everything is there
    pub(crate) fn unsupported(detail: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Unsupported).detail(detail)
    }

    /// A failed system call, sorted by its errno.
    pub(crate) fn io(step: impl Into<Cow<'static, str>>, error: io::Error) -> Error {
        let kind = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => ErrorKind::PermissionDenied,
            Some(libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC) => {
                ErrorKind::ResourceExhausted
            }
            Some(libc::ENOSYS) => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        Error::new(kind).step(step).source(error)
    }

    pub(crate) fn kind_of(mut self, kind: ErrorKind) -> Error {
        self.inner.kind = kind;
        self
    }

    /// Whether this step has failed.
    pub(crate) fn is_of_step(&self, step: &str) -> bool {
        self.inner.step.as_deref() == Some(step)
    }

    pub(crate) fn step(mut self, step: impl Into<Cow<'static, str>>) -> Error {
        self.inner.step = Some(step.into());
        self
    }

    pub(crate) fn path(mut self, path: impl Into<PathBuf>) -> Error {
        self.inner.path = Some(path.into());
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Error {
        self.inner.detail = Some(detail.into());
        self
    }

    pub(crate) fn source(mut self, source: io::Error) -> Error {
        self.inner.source = Some(Source::Io(source));
        self
    }

    /// Names the command, unless it is named already.
    pub(crate) fn of_command(mut self, command: impl FnOnce() -> String) -> Error {
        if self.inner.output.command.is_empty() {
            self.inner.output.command = command();
        }
        self
    }

    #[cfg_attr(not(all(feature = "ipc", target_os = "linux")), allow(dead_code))]
    pub(crate) fn of_panic(panic: Panic) -> Error {
        let mut error = Error::new(ErrorKind::Panic).detail(panic.to_string());
        error.inner.panic = Some(panic);
        error
    }

    pub(crate) fn with_output(mut self, output: Output) -> Error {
        self.inner.output = output;
        self
    }

    /// What an [`Engine`](crate::pool::Engine) has to say, in its own words: why it takes no job, why one has failed, why it has failed
    /// itself. The text is lower case and has no full stop; the command is named by those who pass the error on.
    ///
    /// ```
    /// use procession::pool::Refusal;
    /// use procession::{Error, ErrorKind};
    ///
    /// let error = Error::of_engine(ErrorKind::ResourceExhausted, "the queue of the cluster is full");
    /// assert_eq!(error.to_string(), "the queue of the cluster is full");
    /// let refusal = Refusal::Later(error);
    /// # let _ = refusal;
    /// ```
    pub fn of_engine(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Error {
        Error::new(kind).detail(text)
    }

    /// The sort of the error.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The record of the run: what was read until then, how it ended, what it used. Empty if there was no run.
    pub fn output(&self) -> &Output {
        &self.inner.output
    }

    /// The panic of a function that ran in another process, with its backtrace.
    pub fn panic(&self) -> Option<&Panic> {
        self.inner.panic.as_ref()
    }

    /// Takes the record of the run.
    pub fn into_output(self) -> Output {
        self.inner.output
    }

    /// The step that failed: `exec`, `clone`, the name of a [`Step`](crate::Step), or what the library was doing.
    pub fn failed_step(&self) -> Option<&str> {
        self.inner.step.as_deref()
    }

    /// The file or directory that the step was about.
    pub fn failed_path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// The number that the kernel gave, if it was the kernel that refused.
    #[doc(alias = "errno")]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.inner.source {
            Some(Source::Io(error)) => error.raw_os_error(),
            _ => None,
        }
    }

    /// Whether a timeout passed.
    #[doc(alias = "TimeoutExpired")]
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Whether a task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// Whether there is no such program.
    #[doc(alias = "FileNotFoundError")]
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether the process ended in a way that is not accepted.
    #[doc(alias = "CalledProcessError")]
    pub fn is_status(&self) -> bool {
        self.kind() == ErrorKind::Status
    }

    /// Whether the request itself was wrong.
    #[doc(alias = "ValueError")]
    pub fn is_invalid_input(&self) -> bool {
        self.kind() == ErrorKind::InvalidInput
    }

    /// Whether the same request may work later, when others have ended.
    pub fn is_resource_exhausted(&self) -> bool {
        self.kind() == ErrorKind::ResourceExhausted
    }

    /// Which step failed and why: neither what ran nor anything that it said itself.
    pub(crate) fn summary(&self) -> String {
        let path = self.inner.path.as_ref().map(|path| path.display());
        let before = match (&self.inner.step, path) {
            (Some(step), Some(path)) => format!("{step} {path}: "),
            (Some(step), None) => format!("{step}: "),
            (None, Some(path)) => format!("{path}: "),
            (None, None) => String::new(),
        };
        before + &self.reason()
    }

    fn reason(&self) -> String {
        let inner = &*self.inner;
        let source = inner.source.as_ref().map(|source| match source {
            Source::Io(error) => system_message(error),
            Source::Decode(error) => error.to_string(),
        });
        match (&inner.detail, source) {
            (Some(detail), Some(source)) => format!("{detail}: {source}"),
            (Some(detail), None) => detail.to_string(),
            (None, Some(source)) => source,
            (None, None) => match inner.kind {
                ErrorKind::Status => inner.output.status().to_string(),
                kind => format!("{kind:?}").to_lowercase(),
            },
        }
    }
}

/// The same error once more, for one that is kept and told as often as it is asked for.
pub(crate) fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The system's words without the number that std appends.
fn system_message(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rsplit_once(" (os error ")) {
        (Some(_), Some((words, _))) => words.to_owned(),
        _ => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        if !inner.output.command.is_empty() {
            write!(out, "{}: ", entry::shortened(&inner.output.command, COMMAND_CHARS))?;
        }
        out.write_str(&self.summary())?;
        if !inner.output.survivors.is_empty() {
            write!(out, "; still alive: {}", entry::list(&inner.output.survivors))?;
        }
        for reason in inner.output.reasons(&inner.output.survivors) {
            write!(out, "; {reason}")?;
        }
        let tail = entry::tail(&inner.output.stderr.bytes, TAIL_LINES, TAIL_BYTES);
        if !tail.is_empty() {
            out.write_str("; stderr ends:\n")?;
            entry::write_visible(out, &tail)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Error({:?}: {self})", self.inner.kind)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.inner.source {
            Some(Source::Io(error)) => Some(error),
            Some(Source::Decode(error)) => Some(error),
            None => None,
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Error {
        let mut outer = Error::new(ErrorKind::Decode);
        outer.inner.source = Some(Source::Decode(error));
        outer
    }
}

impl From<UnknownEncoding> for Error {
    fn from(error: UnknownEncoding) -> Error {
        Error::invalid(error.to_string())
    }
}

/// Keeps the kind, and the whole error inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::NotFound | ErrorKind::InterpreterNotFound | ErrorKind::DirectoryNotFound => {
                io::ErrorKind::NotFound
            }
            ErrorKind::PermissionDenied | ErrorKind::NotExecutable => io::ErrorKind::PermissionDenied,
            ErrorKind::ArgumentListTooLong => io::ErrorKind::ArgumentListTooLong,
            ErrorKind::ResourceExhausted => io::ErrorKind::ResourceBusy,
            ErrorKind::ExecutableBusy => io::ErrorKind::ExecutableFileBusy,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Ended => io::ErrorKind::UnexpectedEof,
            ErrorKind::Decode => io::ErrorKind::InvalidData,
            ErrorKind::Cancelled => io::ErrorKind::Interrupted,
            ErrorKind::Status
            | ErrorKind::Overflow
            | ErrorKind::Dependency
            | ErrorKind::Engine
            | ErrorKind::Panic
            | ErrorKind::OwnerDied
            | ErrorKind::Io => match &error.inner.source {
                Some(Source::Io(source)) => source.kind(),
                _ => io::ErrorKind::Other,
            },
        };
        io::Error::new(kind, error)
    }
}

/// For functions that deal with both. An error of ours that was put into one of the system's comes out as it was.
///
/// ```
/// use procession::{Command, Error, ErrorKind};
///
/// fn sorted(path: &str) -> Result<Vec<u8>, Error> {
///     let text = std::fs::read(path)?;
///     Command::new("sort").input(text).check_output()
/// }
///
/// let error = sorted("/no/such/file").unwrap_err();
/// assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Io, "No such file or directory"));
/// let error = Error::from(std::io::Error::from(Command::new("no-such-program").call().unwrap_err()));
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// ```
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        error.downcast::<Error>().unwrap_or_else(|error| {
            let mut error = Error::io("", error);
            error.inner.step = None;
            error
        })
    }
}

impl Output {
    /// The record itself if the process ended in a way that the command accepts.
    ///
    /// # Errors
    /// [`ErrorKind::Status`] with this record, if it did not.
    #[doc(alias = "check_returncode")]
    pub fn check(self) -> Result<Output, Error> {
        if self.success() {
            return Ok(self);
        }
        let error = Error::new(ErrorKind::Status);
        // Of a pipeline, the stage whose status it is.
        let failed = |stage: &Output| !stage.success() && stage.status == self.status;
        Err(match self.stages.iter().rposition(failed) {
            Some(place) => {
                let command = self.stages.get(place).map_or("", |stage| stage.command.as_str());
                error.detail(format!("stage {} ({command}): {}", place + 1, self.status()))
            }
            None => error,
        }
        .with_output(self))
    }

    /// Standard output as text, with the whole record in the error if it is none.
    pub(crate) fn into_stdout_text(self) -> Result<String, Error> {
        match self.stdout_text() {
            Ok(text) => Ok(text),
            Err(error) => Err(Error::from(error).with_output(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ExitStatus;

    #[test]
    fn the_text_says_what_ran_which_step_and_why() {
        let error = Error::io("chdir", io::Error::from_raw_os_error(libc::ENOENT))
            .kind_of(ErrorKind::DirectoryNotFound)
            .path("/nowhere")
            .of_command(|| "ls -l".to_owned());
        assert_eq!(error.to_string(), "ls -l: chdir /nowhere: No such file or directory");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_long_command_line_is_cut_in_the_text_and_whole_in_the_record() {
        let line = "é".repeat(5_000);
        let error = Error::invalid("no").of_command(|| line.clone());
        assert_eq!(error.to_string(), format!("{}…: no", "é".repeat(COMMAND_CHARS)));
        assert_eq!(error.output().command(), line);
    }

    #[test]
    fn the_text_ends_with_what_the_child_said_and_is_bounded() {
        let mut output = Output { command: "cc".into(), status: Some(ExitStatus::from_code(1)), ..Output::default() };
        output.stderr.bytes = (0..10_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let error = output.check().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cc: exit status: 1; stderr ends:\nline 9992\n"), "{text}");
        assert!(text.ends_with("line 9999"));
        assert_eq!(error.output().stderr().len(), error.into_output().stderr().len());
    }
}
