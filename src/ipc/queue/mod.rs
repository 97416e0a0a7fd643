//! A bounded queue between processes and threads. Decides what can be asked of it, in which words, and how values become messages; how messages
//! are kept, and what a death means for them, is in `core.rs`, and where they lie in `ring.rs`.

mod bell;
mod bytes;
mod core;
mod errors;
#[cfg(test)]
mod model;
mod ring;

pub use errors::{GetError, PutError};

use super::codec;
use super::passing;
use crate::deadline::Deadline;
use crate::error::Error;
use core::{Core, Role};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How many bytes of messages a queue holds if nothing else is said, less a few for each message.
const BYTES: usize = (1 << 20) - ring::UNIT;

/// A queue of values for many who put and many who get, threads and processes alike.
///
/// What is put is encoded at once and lies in memory that all share: when [`put`](Queue::put) returns, the message is there, whatever becomes of
/// the process. A process that is killed at any instruction damages nothing, holds up nobody for longer than a tenth of a second, and takes
/// nothing with it but the message that it has taken out. While messages flow no system call is made.
///
/// Values reach the other side as data, through serde; a queue of bytes without any of that is a `Queue<[u8]>`, with `put_bytes` and `get_bytes`. The order is that in which
/// `put` was done, for each who puts and among them. A queue holds a mebibyte of messages and as many of them as fit, or say
/// [`bounded`](Queue::bounded) or [`with_capacity`](Queue::with_capacity).
///
/// Handles can be cloned, used from any thread, and sent to other processes: as an argument, in a message of a connection, or as
/// a descriptor ([`from_fd`](Queue::from_fd)). A `Queue` can put and get. Where it shall be noticed that nobody is left on the other side, use
/// handles that can do one of both, [`sender`](Queue::sender) and [`receiver`](Queue::receiver), and drop the queue itself: who waits
/// then gets [`GetError::PeersGone`] or [`PutError::PeersGone`] when the last handle of the other kind is gone, in whichever way. A handle on
/// its way to another process counts as long as somebody holds its descriptor. A receiver that could do both is never told, since it might put
/// something itself.
///
/// Dropping the last handle anywhere frees the memory, with all that is in it; nothing has a name and nothing stays behind.
///
/// ```
/// use procession::ipc::Queue;
///
/// let queue = Queue::new()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         for number in 0..100_u32 {
///             queue.put((number, format!("job {number}"))).unwrap();
///         }
///         queue.close();
///     });
///     let jobs: Vec<(u32, String)> = queue.iter().collect::<Result<_, _>>()?;
///     assert_eq!(jobs.len(), 100);
///     Ok::<(), procession::Error>(())
/// })?;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "JoinableQueue")]
#[doc(alias = "SimpleQueue")]
#[doc(alias = "channel")]
#[doc(alias = "sync_channel")]
pub struct Queue<T: ?Sized> {
    core: Arc<Core>,
    values: PhantomData<Values<T>>,
}

/// A handle of a [`Queue`] that can put and not get.
///
/// ```
/// use procession::ipc::{GetError, Queue};
///
/// let (sender, receiver) = Queue::<String>::new()?.split()?;
/// sender.put("the only one".to_owned())?;
/// drop(sender);
/// assert_eq!(receiver.get()?, "the only one");
/// assert!(matches!(receiver.get(), Err(GetError::PeersGone)));
/// # Ok::<(), procession::Error>(())
/// ```
pub struct QueueSender<T: ?Sized> {
    core: Arc<Core>,
    values: PhantomData<Values<T>>,
}

/// A handle of a [`Queue`] that can get and not put.
///
/// ```
/// use procession::ipc::{PutError, Queue};
///
/// let (sender, receiver) = Queue::<u8>::bounded(1)?.split()?;
/// drop(receiver);
/// sender.put(1)?; // nobody looks as long as there is room
/// assert!(matches!(sender.put(2), Err(PutError::PeersGone(2))));
/// # Ok::<(), procession::Error>(())
/// ```
pub struct QueueReceiver<T: ?Sized> {
    core: Arc<Core>,
    values: PhantomData<Values<T>>,
}

/// Handles hold no value, so they can go to any thread.
type Values<T> = fn(Box<T>) -> Box<T>;

impl<T: ?Sized> Queue<T> {
    /// A queue that holds a mebibyte of messages, however many that are.
    ///
    /// # Errors
    /// If the process has no descriptors left, or /proc is not there.
    pub fn new() -> Result<Queue<T>, Error> {
        Queue::with_capacity(usize::MAX, BYTES)
    }

    /// A queue of at most so many items that wait, and a mebibyte at most.
    ///
    /// ```
    /// use procession::ipc::Queue;
    ///
    /// let queue = Queue::bounded(2)?;
    /// queue.put_all([1, 2])?;
    /// assert!(queue.is_full() && queue.put_nowait(3).is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for no items; as [`new`](Queue::new) else.
    #[doc(alias = "maxsize")]
    pub fn bounded(items_max: usize) -> Result<Queue<T>, Error> {
        Queue::with_capacity(items_max, BYTES)
    }

    /// A queue of at most so many items, in which a message of `bytes` bytes fits, and as many more as that makes. The memory is used up as it
    /// is needed; the size is rounded up to a power of two.
    ///
    /// ```
    /// use procession::ipc::Queue;
    ///
    /// let pictures = Queue::<[u8]>::with_capacity(4, 64 << 20)?;
    /// pictures.put_bytes(&vec![0; 64 << 20])?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for no items, or more than a gibibyte; as [`new`](Queue::new) else.
    pub fn with_capacity(items_max: usize, bytes: usize) -> Result<Queue<T>, Error> {
        Core::create(items_max, bytes, &codec::short_name::<T>()).map(Queue::of)
    }

    /// A handle for the same queue that can only put.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn sender(&self) -> Result<QueueSender<T>, Error> {
        self.core.with_role(Role::Sender).map(QueueSender::of)
    }

    /// A handle for the same queue that can only get.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn receiver(&self) -> Result<QueueReceiver<T>, Error> {
        self.core.with_role(Role::Receiver).map(QueueReceiver::of)
    }

    /// Both sides, instead of this handle.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn split(self) -> Result<(QueueSender<T>, QueueReceiver<T>), Error> {
        Ok((self.sender()?, self.receiver()?))
    }
}

/// What handles of every kind can.
macro_rules! handle {
    ($handle:ident, $role:expr, $name:literal) => {
        impl<T: ?Sized> $handle<T> {
            fn of(core: Core) -> $handle<T> {
                $handle { core: Arc::new(core), values: PhantomData }
            }

            /// The queue whose descriptor this process has got in some way, such as [`Command::pass_fd`](crate::Command::pass_fd), from a
            /// handle of any kind.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is no queue, or one of other values: both sides must call the
            /// type by the same name.
            pub fn from_fd(fd: OwnedFd) -> Result<$handle<T>, Error> {
                Core::attach(fd, $role, &codec::short_name::<T>()).map($handle::of)
            }

            /// How many items are in the queue. Others may put and get meanwhile.
            #[doc(alias = "len")]
            pub fn qsize(&self) -> usize {
                self.core.content().messages as usize
            }

            /// Whether nothing is in the queue. Others may put and get meanwhile.
            #[doc(alias = "empty")]
            pub fn is_empty(&self) -> bool {
                self.qsize() == 0
            }

            /// Whether not even a message without bytes has room. Others may put and get meanwhile.
            #[doc(alias = "full")]
            pub fn is_full(&self) -> bool {
                self.core.is_full()
            }

            /// How many items can be in the queue at most, if they are small.
            #[doc(alias = "maxsize")]
            pub fn capacity(&self) -> usize {
                self.core.items_max()
            }

            /// The size in bytes of the largest message that fits.
            pub fn message_size_max(&self) -> usize {
                self.core.message_size_max()
            }

            /// Closes the queue for all, everywhere: nothing can be put any more, and what is in it can still be got. Wakes all who wait.
            #[doc(alias = "shutdown")]
            pub fn close(&self) {
                self.core.close();
            }

            /// Whether somebody has closed the queue.
            pub fn is_closed(&self) -> bool {
                self.core.is_closed()
            }

            /// How many items were put for which nobody has called `task_done` yet.
            pub fn unfinished_tasks(&self) -> usize {
                self.core.unfinished()
            }

            /// Waits until `task_done` was called for every item that was put.
            ///
            /// A process that dies between getting an item and `task_done` leaves it undone: who has to know uses a timeout.
            ///
            /// # Errors
            /// [`ErrorKind::Ended`](crate::ErrorKind::Ended) if nobody is left anywhere who could do what is undone.
            pub fn join(&self) -> Result<(), Error> {
                self.core.join(Deadline::NEVER)
            }

            /// As [`join`](Self::join), for so long at most.
            ///
            /// # Errors
            /// Also [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
            pub fn join_timeout(&self, timeout: Duration) -> Result<(), Error> {
                self.core.join(Deadline::after(timeout))
            }
        }

        impl<T: ?Sized> Clone for $handle<T> {
            fn clone(&self) -> $handle<T> {
                $handle { core: Arc::clone(&self.core), values: PhantomData }
            }
        }

        impl<T: ?Sized> fmt::Debug for $handle<T> {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.debug_struct($name)
                    .field("qsize", &self.qsize())
                    .field("capacity", &self.capacity())
                    .field("closed", &self.is_closed())
                    .finish_non_exhaustive()
            }
        }

        /// The descriptor that makes a handle in another process. As long as anybody has it, there is somebody on this side of the queue.
        impl<T: ?Sized> AsFd for $handle<T> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.core.fd()
            }
        }

        /// Only while it is passed to another process.
        impl<T: ?Sized> Serialize for $handle<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                passing::serialize(self.as_fd(), serializer)
            }
        }

        impl<'de, T: ?Sized> Deserialize<'de> for $handle<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$handle<T>, D::Error> {
                let file = passing::Descriptor::deserialize(deserializer)?;
                $handle::from_fd(file.into_owned_fd()).map_err(|why| D::Error::custom(passing::because(why)))
            }
        }
    };
}

handle!(Queue, Role::Both, "Queue");
handle!(QueueSender, Role::Sender, "QueueSender");
handle!(QueueReceiver, Role::Receiver, "QueueReceiver");

/// What those can who put.
macro_rules! putting {
    ($handle:ident) => {
        impl<T: Serialize> $handle<T> {
            /// Puts an item into the queue, and waits for room if there is none.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::new()?;
            /// queue.put(("three", 3))?;
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// A [`PutError`] with the item in it: when the queue is closed, when the item is too large or cannot be sent, and when nobody is left
            /// anywhere who could make room.
            #[doc(alias = "send")]
            pub fn put(&self, item: T) -> Result<(), PutError<T>> {
                put(&self.core, item, Deadline::NEVER)
            }

            /// As [`put`](Self::put), and waits for so long at most. The item comes back if there was no room.
            ///
            /// # Errors
            /// Also [`PutError::Full`].
            #[doc(alias = "send_timeout")]
            pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
                put(&self.core, item, Deadline::after(timeout))
            }

            /// As [`put`](Self::put), and does not wait for room. For others who are just putting something it waits a tenth of a second at most:
            /// longer than that it only takes if one of them was stopped.
            ///
            /// # Errors
            /// Also [`PutError::Full`].
            #[doc(alias = "try_send")]
            pub fn put_nowait(&self, item: T) -> Result<(), PutError<T>> {
                put(&self.core, item, Deadline::now())
            }

            /// Puts all the items, many at a time: they cost less than one by one, and those who wait are woken once. How many it were.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::new()?;
            /// assert_eq!(queue.put_all(0..1000)?, 1000);
            /// assert_eq!(queue.qsize(), 1000);
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// A [`PutError`] with the items that were taken from the iterator and not put, the first of which is the one that was refused. Give
            /// the iterator as `&mut` to go on with the rest.
            pub fn put_all(&self, items: impl IntoIterator<Item = T>) -> Result<usize, PutError<Vec<T>>> {
                put_all(&self.core, items.into_iter(), Deadline::NEVER)
            }

            /// As [`put_all`](Self::put_all), for so long at most.
            ///
            /// # Errors
            /// Also [`PutError::Full`].
            pub fn put_all_timeout(
                &self,
                items: impl IntoIterator<Item = T>,
                timeout: Duration,
            ) -> Result<usize, PutError<Vec<T>>> {
                put_all(&self.core, items.into_iter(), Deadline::after(timeout))
            }
        }
    };
}

putting!(Queue);
putting!(QueueSender);

/// What those can who get.
macro_rules! getting {
    ($handle:ident) => {
        impl<T: DeserializeOwned> $handle<T> {
            /// Takes an item out of the queue, and waits for one if there is none.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::new()?;
            /// queue.put("a job".to_owned())?;
            /// assert_eq!(queue.get()?, "a job");
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// When the queue is closed and empty, when it is empty and nobody is left anywhere who could put something in, and when a message
            /// was no value of the type: it is gone then, and the queue goes on.
            #[doc(alias = "recv")]
            pub fn get(&self) -> Result<T, GetError> {
                get(&self.core, Deadline::NEVER)
            }

            /// As [`get`](Self::get), and waits for so long at most.
            ///
            /// # Errors
            /// Also [`GetError::Empty`].
            #[doc(alias = "recv_timeout")]
            pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
                get(&self.core, Deadline::after(timeout))
            }

            /// As [`get`](Self::get), and does not wait for an item. For others who are just taking one it waits a tenth of a second at most:
            /// longer than that it only takes if one of them was stopped.
            ///
            /// # Errors
            /// Also [`GetError::Empty`].
            #[doc(alias = "try_recv")]
            pub fn get_nowait(&self) -> Result<T, GetError> {
                get(&self.core, Deadline::now())
            }

            /// Waits for an item, takes it and all that are there, at most so many, and appends them to `items`. How many it were.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::new()?;
            /// queue.put_all(0..5)?;
            /// let mut items = Vec::new();
            /// assert_eq!(queue.get_many(&mut items, 100)?, 5);
            /// assert_eq!(items, [0, 1, 2, 3, 4]);
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// As [`get`](Self::get). If one of several messages was no value of the type, the others have been appended all the same.
            pub fn get_many(&self, items: &mut Vec<T>, count_max: usize) -> Result<usize, GetError> {
                get_many(&self.core, items, count_max, Deadline::NEVER)
            }

            /// As [`get_many`](Self::get_many), and waits for the first one for so long at most.
            ///
            /// # Errors
            /// Also [`GetError::Empty`].
            pub fn get_many_timeout(
                &self,
                items: &mut Vec<T>,
                count_max: usize,
                timeout: Duration,
            ) -> Result<usize, GetError> {
                get_many(&self.core, items, count_max, Deadline::after(timeout))
            }

            /// All items, until the queue is closed and empty. Waits for each. An item that cannot be got is an error among the others; after
            /// [`GetError::PeersGone`] and [`GetError::Broken`] nothing comes any more.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::new()?;
            /// queue.put_all(1..=3)?;
            /// queue.close();
            /// let sum: i32 = queue.iter().sum::<Result<_, _>>()?;
            /// assert_eq!(sum, 6);
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn iter(&self) -> QueueIter<'_, T> {
                QueueIter { core: &self.core, ended: false, values: PhantomData }
            }
        }

        impl<T: ?Sized> $handle<T> {
            /// Says that the work on an item which was got is done, for those who [join](Self::join).
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::new()?;
            /// queue.put("a job".to_owned())?;
            /// queue.get()?;
            /// queue.task_done()?;
            /// queue.join()?;
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it was said for every item that was ever got.
            pub fn task_done(&self) -> Result<(), Error> {
                self.core.task_done()
            }
        }

        impl<'a, T: DeserializeOwned> IntoIterator for &'a $handle<T> {
            type Item = Result<T, GetError>;
            type IntoIter = QueueIter<'a, T>;

            fn into_iter(self) -> QueueIter<'a, T> {
                self.iter()
            }
        }
    };
}

getting!(Queue);
getting!(QueueReceiver);

/// The items of a queue as they come; see [`Queue::iter`].
#[derive(Debug)]
pub struct QueueIter<'a, T> {
    core: &'a Core,
    ended: bool,
    values: PhantomData<Values<T>>,
}

impl<T: DeserializeOwned> Iterator for QueueIter<'_, T> {
    type Item = Result<T, GetError>;

    fn next(&mut self) -> Option<Result<T, GetError>> {
        if self.ended {
            return None;
        }
        let item = get(self.core, Deadline::NEVER);
        self.ended = matches!(item, Err(GetError::Closed | GetError::PeersGone | GetError::Broken(_)));
        Some(item).filter(|item| !matches!(item, Err(GetError::Closed)))
    }
}

// ---- values and messages

/// So much of a batch is encoded before it is put.
const BATCH_ITEMS: usize = 1024;
const BATCH_BYTES: usize = 128 * 1024;
/// A thread does not keep more than this.
const KEPT_BYTES: usize = 1 << 20;

/// Messages one behind the other, and where each ends.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn message(&self, place: usize) -> Option<&[u8]> {
        let start = place.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(place)?)
    }

    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).filter_map(|place| self.message(place))
    }
}

thread_local! {
    /// Memory that a thread uses again.
    static SPARE: Cell<Batch> = const { Cell::new(Batch { bytes: Vec::new(), ends: Vec::new() }) };
}

/// Works with an empty batch. Taken and not borrowed: what encodes and decodes is the user's code, and may use a queue as well.
fn with_batch<R>(work: impl FnOnce(&mut Batch) -> R) -> R {
    let mut batch = SPARE.try_with(Cell::take).unwrap_or_default();
    batch.bytes.clear();
    batch.ends.clear();
    let result = work(&mut batch);
    if batch.bytes.capacity() <= KEPT_BYTES {
        let _ = SPARE.try_with(|spare| spare.set(batch)); // a thread that ends keeps nothing
    }
    result
}

fn put<T: Serialize>(core: &Core, item: T, deadline: Deadline) -> Result<(), PutError<T>> {
    let put = with_batch(|batch| {
        codec::encode_into(&item, &mut batch.bytes).map_err(errors::Refusal::Encode)?;
        core.put(|place| Some(batch.bytes.as_slice()).filter(|_| place == 0), deadline).1
    });
    put.map_err(|refusal| refusal.of(item))
}

fn put_all<T: Serialize>(
    core: &Core,
    mut items: impl Iterator<Item = T>,
    deadline: Deadline,
) -> Result<usize, PutError<Vec<T>>> {
    let mut count = 0;
    let mut waiting = Vec::new();
    loop {
        let put = with_batch(|batch| {
            let failed = fill(batch, &mut waiting, &mut items);
            let (put, refused) = core.put(|place| batch.message(place), deadline);
            count += put;
            waiting.drain(..put.min(waiting.len()));
            refused.and(failed)
        });
        match put {
            Err(refusal) => return Err(refusal.of(waiting)),
            Ok(more) if !more => return Ok(count),
            Ok(_) => {}
        }
    }
}

/// Encodes the next items and keeps them. Whether there may be more, or why the last one cannot be sent.
fn fill<T: Serialize>(
    batch: &mut Batch,
    waiting: &mut Vec<T>,
    items: &mut impl Iterator<Item = T>,
) -> Result<bool, errors::Refusal> {
    while batch.ends.len() < BATCH_ITEMS && batch.bytes.len() < BATCH_BYTES {
        let Some(item) = items.next() else { return Ok(false) };
        let encoded = codec::encode_into(&item, &mut batch.bytes);
        waiting.push(item);
        encoded.map_err(errors::Refusal::Encode)?;
        batch.ends.push(batch.bytes.len());
    }
    Ok(true)
}

fn get<T: DeserializeOwned>(core: &Core, deadline: Deadline) -> Result<T, GetError> {
    with_batch(|batch| {
        core.get(1, &mut batch.bytes, &mut batch.ends, deadline)?;
        codec::decode(&batch.bytes, Vec::new()).map_err(GetError::Decode)
    })
}

fn get_many<T: DeserializeOwned>(
    core: &Core,
    items: &mut Vec<T>,
    count_max: usize,
    deadline: Deadline,
) -> Result<usize, GetError> {
    with_batch(|batch| {
        core.get(count_max, &mut batch.bytes, &mut batch.ends, deadline)?;
        let (mut count, mut wrong) = (0, None);
        for message in batch.messages() {
            match codec::decode(message, Vec::new()) {
                Ok(item) => items.push(item),
                Err(error) => wrong = wrong.or(Some(GetError::Decode(error))),
            }
            count += 1;
        }
        wrong.map_or(Ok(count), Err)
    })
}
