//! What is fed to a child's standard input, as a value.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// What is fed to a child's standard input.
///
/// Bytes and strings convert into it. A file or another descriptor need not be fed at all: give it to
/// [`Command::stdin`](crate::Command::stdin), and the child reads it by itself.
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

/// Nothing.
impl From<()> for Input {
    fn from((): ()) -> Input {
        Input::empty()
    }
}
