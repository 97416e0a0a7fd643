//! What is fed to a child's standard input, as a value.

use super::stdio::{Kind, Stdio};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What is fed to a child's standard input.
///
/// Bytes, strings and files convert into it. A file is not fed by verbs that run to the end: the child reads it by itself. Other
/// descriptors are best given to [`Command::stdin`](crate::Command::stdin).
///
/// ```
/// use procession::{Command, Input};
///
/// let numbers = (0..1000).map(|i| format!("{i}\n")).collect::<String>();
/// let sum = Command::new("wc").arg("-l").input(numbers).output()?;
/// assert_eq!(sum.stdout_lossy().trim(), "1000");
///
/// let reader = std::io::repeat(b'y').take(5);
/// # use std::io::Read;
/// assert_eq!(Command::new("cat").input(Input::reader(reader)).output()?.stdout(), b"yyyyy");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
pub struct Input(pub(crate) Source);

type SharedReader = Arc<Mutex<Option<Box<dyn Read + Send>>>>;

#[derive(Clone)]
pub(crate) enum Source {
    Bytes(Arc<Vec<u8>>),
    Reader(SharedReader),
    File(Arc<OwnedFd>),
}

impl Input {
    /// Nothing: the child sees the end of its input at once.
    pub fn empty() -> Input {
        Input::from(Vec::new())
    }

    /// Bytes from a reader, taken in pieces as the child takes them, on the thread that drives the child.
    ///
    /// A reader that blocks holds up this thread, timeouts included: give descriptors that can block to
    /// [`Command::stdin`](crate::Command::stdin) instead. A reader can be used for one run.
    pub fn reader(reader: impl Read + Send + 'static) -> Input {
        Input(Source::Reader(Arc::new(Mutex::new(Some(Box::new(reader))))))
    }

    /// The file, if it is one, for the child to read by itself.
    pub(crate) fn file(&self) -> Option<Stdio> {
        match &self.0 {
            Source::File(file) => Some(Stdio(Kind::Fd(Arc::clone(file)))),
            _ => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.0, Source::Bytes(bytes) if bytes.is_empty())
    }

    /// Opens the input for one run.
    pub(crate) fn open(&self) -> io::Result<Opened> {
        match &self.0 {
            Source::Bytes(bytes) => Ok(Opened::Bytes(Arc::clone(bytes))),
            Source::Reader(shared) => {
                let reader = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
                let used = || io::Error::new(io::ErrorKind::InvalidInput, "the input's reader has been used already");
                Ok(Opened::Reader(reader.ok_or_else(used)?))
            }
            Source::File(file) => Ok(Opened::Reader(Box::new(File::from(file.try_clone()?)))),
        }
    }
}

/// An input in use.
pub(crate) enum Opened {
    Bytes(Arc<Vec<u8>>),
    Reader(Box<dyn Read + Send>),
}

impl fmt::Debug for Input {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bytes(bytes) => write!(out, "Input({} bytes)", bytes.len()),
            Source::Reader(_) => out.write_str("Input(reader)"),
            Source::File(file) => write!(out, "Input(descriptor {})", file.as_raw_fd()),
        }
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Input {
        Input(Source::Bytes(Arc::new(bytes)))
    }
}

impl From<String> for Input {
    fn from(text: String) -> Input {
        Input::from(text.into_bytes())
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Input {
        Input::from(text.as_bytes().to_vec())
    }
}

impl From<&String> for Input {
    fn from(text: &String) -> Input {
        Input::from(text.as_str())
    }
}

impl From<&[u8]> for Input {
    fn from(bytes: &[u8]) -> Input {
        Input::from(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Input {
    fn from(bytes: &[u8; N]) -> Input {
        Input::from(bytes.to_vec())
    }
}

impl From<&Vec<u8>> for Input {
    fn from(bytes: &Vec<u8>) -> Input {
        Input::from(bytes.clone())
    }
}

/// From where the file stands.
impl From<File> for Input {
    fn from(file: File) -> Input {
        Input(Source::File(Arc::new(file.into())))
    }
}

/// Nothing.
impl From<()> for Input {
    fn from((): ()) -> Input {
        Input::empty()
    }
}
