//! Why something was not put, and why nothing was got. A put that fails gives the item back.

use crate::error::{Error, ErrorKind};
use std::fmt;

/// Why an item was not put into a [`Queue`](super::Queue). The item is in it: [`into_item`](PutError::into_item).
///
/// ```
/// use procession::ipc::{PutError, Queue};
///
/// let queue = Queue::bounded(1)?;
/// queue.put("first".to_owned())?;
/// match queue.put_nowait("second".to_owned()) {
///     Err(PutError::Full(item)) => assert_eq!(item, "second"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), procession::Error>(())
/// ```
#[non_exhaustive]
#[doc(alias = "TrySendError")]
#[doc(alias = "SendTimeoutError")]
pub enum PutError<T> {
    /// There was no room, within the timeout if there was one.
    Full(T),
    /// The queue is [closed](super::Queue::close).
    Closed(T),
    /// There is no room, and nobody is left anywhere who could take something out.
    PeersGone(T),
    /// It would not even fit into the empty queue.
    TooLarge {
        /// What was to be put.
        item: T,
        /// Its size in bytes.
        size: usize,
        /// The size of the largest message that fits.
        size_max: usize,
    },
    /// It has no form in bytes, such as a descriptor.
    Encode {
        /// What was to be put.
        item: T,
        /// Why it has none.
        error: Error,
    },
    /// The memory of the queue was written to by somebody who does not know its rules, or the system failed.
    Broken {
        /// What was to be put.
        item: T,
        /// What was found.
        error: Error,
    },
}

/// Why nothing was got from a [`Queue`](super::Queue).
///
/// ```
/// use procession::ipc::{GetError, Queue};
///
/// let queue = Queue::<u32>::new()?;
/// assert!(matches!(queue.get_nowait(), Err(GetError::Empty)));
/// queue.close();
/// assert!(matches!(queue.get_nowait(), Err(GetError::Closed)));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[doc(alias = "TryRecvError")]
#[doc(alias = "RecvTimeoutError")]
pub enum GetError {
    /// There was nothing, within the timeout if there was one.
    Empty,
    /// The queue is [closed](super::Queue::close), and all that was in it has been taken out.
    Closed,
    /// There is nothing, and nobody is left anywhere who could put something in.
    PeersGone,
    /// A message was taken out, and it is no value of the type. The next one is not affected.
    Decode(Error),
    /// The memory of the queue was written to by somebody who does not know its rules, or the system failed.
    Broken(Error),
}

impl<T> PutError<T> {
    /// The item that was not put.
    pub fn into_item(self) -> T {
        match self {
            PutError::Full(item) | PutError::Closed(item) | PutError::PeersGone(item) => item,
            PutError::TooLarge { item, .. } | PutError::Encode { item, .. } | PutError::Broken { item, .. } => item,
        }
    }

    /// Whether it was put back for want of room.
    pub fn is_full(&self) -> bool {
        matches!(self, PutError::Full(_))
    }

    /// Whether the queue is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, PutError::Closed(_))
    }
}

impl GetError {
    /// Whether there was just nothing there.
    pub fn is_empty(&self) -> bool {
        matches!(self, GetError::Empty)
    }

    /// Whether the queue is closed and drained.
    pub fn is_closed(&self) -> bool {
        matches!(self, GetError::Closed)
    }
}

/// Why messages were not put, apart from the items.
#[derive(Debug)]
pub(super) enum Refusal {
    Full,
    Closed,
    PeersGone,
    TooLarge { size: usize, size_max: usize },
    Encode(Error),
    Broken(Error),
}

impl Refusal {
    pub(super) fn of<T>(self, item: T) -> PutError<T> {
        match self {
            Refusal::Full => PutError::Full(item),
            Refusal::Closed => PutError::Closed(item),
            Refusal::PeersGone => PutError::PeersGone(item),
            Refusal::TooLarge { size, size_max } => PutError::TooLarge { item, size, size_max },
            Refusal::Encode(error) => PutError::Encode { item, error },
            Refusal::Broken(error) => PutError::Broken { item, error },
        }
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => out.write_str("the queue is full"),
            PutError::Closed(_) => out.write_str("the queue is closed"),
            PutError::PeersGone(_) => out.write_str("the queue is full, and nobody is left who takes something out"),
            PutError::TooLarge { size, size_max, .. } => {
                write!(out, "a message of {size} bytes is too large for the queue, which takes {size_max}")
            }
            PutError::Encode { error, .. } | PutError::Broken { error, .. } => error.fmt(out),
        }
    }
}

/// Without the item, as with std: not everything can be shown.
impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => out.write_str("Full(..)"),
            PutError::Closed(_) => out.write_str("Closed(..)"),
            PutError::PeersGone(_) => out.write_str("PeersGone(..)"),
            PutError::TooLarge { size, size_max, .. } => {
                out.debug_struct("TooLarge").field("size", size).field("size_max", size_max).finish_non_exhaustive()
            }
            PutError::Encode { error, .. } => out.debug_tuple("Encode").field(error).finish(),
            PutError::Broken { error, .. } => out.debug_tuple("Broken").field(error).finish(),
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::Empty => out.write_str("the queue is empty"),
            GetError::Closed => out.write_str("the queue is closed and empty"),
            GetError::PeersGone => out.write_str("the queue is empty, and nobody is left who puts something in"),
            GetError::Decode(error) | GetError::Broken(error) => error.fmt(out),
        }
    }
}

impl<T> std::error::Error for PutError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PutError::Encode { error, .. } | PutError::Broken { error, .. } => std::error::Error::source(error),
            _ => None,
        }
    }
}

impl std::error::Error for GetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            GetError::Decode(error) | GetError::Broken(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}

/// Without the item, which may be anything.
impl<T> From<PutError<T>> for Error {
    fn from(error: PutError<T>) -> Error {
        let text = error.to_string();
        match error {
            PutError::Full(_) => Error::new(ErrorKind::Timeout).detail(text),
            PutError::Closed(_) | PutError::PeersGone(_) => Error::new(ErrorKind::Ended).detail(text),
            PutError::TooLarge { .. } => Error::invalid(text),
            PutError::Encode { error, .. } | PutError::Broken { error, .. } => error,
        }
    }
}

impl From<GetError> for Error {
    fn from(error: GetError) -> Error {
        let text = error.to_string();
        match error {
            GetError::Empty => Error::new(ErrorKind::Timeout).detail(text),
            GetError::Closed | GetError::PeersGone => Error::new(ErrorKind::Ended).detail(text),
            GetError::Decode(error) | GetError::Broken(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_the_item_and_say_why() {
        let refusals = [
            (Refusal::Full, "the queue is full", ErrorKind::Timeout),
            (Refusal::Closed, "the queue is closed", ErrorKind::Ended),
            (Refusal::PeersGone, "nobody is left who takes", ErrorKind::Ended),
            (Refusal::TooLarge { size: 9, size_max: 8 }, "a message of 9 bytes is too large", ErrorKind::InvalidInput),
            (Refusal::Encode(Error::invalid("no form")), "no form", ErrorKind::InvalidInput),
            (Refusal::Broken(Error::new(ErrorKind::Io).detail("odd")), "odd", ErrorKind::Io),
        ];
        for (refusal, text, kind) in refusals {
            let error = refusal.of(7);
            assert!(error.to_string().contains(text), "{error}");
            assert!(!format!("{error:?}").contains('7'), "{error:?}");
            let copy = error.to_string();
            match error {
                PutError::Full(item) => assert_eq!(item, 7),
                error => {
                    let other = Error::from(error);
                    assert_eq!((other.kind(), other.to_string()), (kind, copy));
                }
            }
        }
        assert_eq!(Refusal::Closed.of("item").into_item(), "item");
        assert_eq!(Error::from(GetError::PeersGone).kind(), ErrorKind::Ended);
        assert_eq!(Error::from(GetError::Empty).kind(), ErrorKind::Timeout);
    }
}
