//! Queues of plain bytes: what is put is what is got, without serde.

use super::core::Core;
use super::{GetError, PutError, Queue, QueueReceiver, QueueSender, with_batch};
use crate::deadline::Deadline;
use std::time::Duration;

/// What those can who put bytes.
macro_rules! putting {
    ($handle:ident) => {
        impl $handle<[u8]> {
            /// Puts a message into the queue, and waits for room if there is none.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::<[u8]>::new()?;
            /// queue.put_bytes(b"any bytes")?;
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// When the queue is closed, when the message is too large, and when nobody is left anywhere who could make room.
            pub fn put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
                put(&self.core, message, Deadline::NEVER)
            }

            /// As `put_bytes`, and waits for so long at most.
            ///
            /// # Errors
            /// Also [`PutError::Full`].
            pub fn put_bytes_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError<()>> {
                put(&self.core, message, Deadline::after(timeout))
            }

            /// As `put_bytes`, and does not wait for room.
            ///
            /// # Errors
            /// Also [`PutError::Full`].
            pub fn put_bytes_nowait(&self, message: &[u8]) -> Result<(), PutError<()>> {
                put(&self.core, message, Deadline::now())
            }

            /// Puts all the messages, as many at a time as there is room for; those who wait are woken once.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::<[u8]>::new()?;
            /// queue.put_bytes_all(&["one", "two"])?;
            /// assert_eq!(queue.qsize(), 2);
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// As `put_bytes`, with the number of the first message that was not put in it.
            pub fn put_bytes_all<M: AsRef<[u8]>>(&self, messages: &[M]) -> Result<(), PutError<usize>> {
                put_all(&self.core, messages, Deadline::NEVER)
            }

            /// As `put_bytes_all`, for so long at most.
            ///
            /// # Errors
            /// Also [`PutError::Full`].
            pub fn put_bytes_all_timeout<M: AsRef<[u8]>>(
                &self,
                messages: &[M],
                timeout: Duration,
            ) -> Result<(), PutError<usize>> {
                put_all(&self.core, messages, Deadline::after(timeout))
            }
        }
    };
}

putting!(Queue);
putting!(QueueSender);

/// What those can who get bytes.
macro_rules! getting {
    ($handle:ident) => {
        impl $handle<[u8]> {
            /// Takes a message out of the queue, instead of what is in `message`, and waits for one if there is none.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::<[u8]>::new()?;
            /// queue.put_bytes(b"any bytes")?;
            /// let mut message = Vec::new();
            /// queue.get_bytes(&mut message)?;
            /// assert_eq!(message, b"any bytes");
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// When the queue is closed and empty, and when it is empty and nobody is left anywhere who could put something in.
            pub fn get_bytes(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
                get(&self.core, message, Deadline::NEVER)
            }

            /// As `get_bytes`, and waits for so long at most.
            ///
            /// # Errors
            /// Also [`GetError::Empty`].
            pub fn get_bytes_timeout(&self, message: &mut Vec<u8>, timeout: Duration) -> Result<(), GetError> {
                get(&self.core, message, Deadline::after(timeout))
            }

            /// As `get_bytes`, and does not wait for a message.
            ///
            /// # Errors
            /// Also [`GetError::Empty`].
            pub fn get_bytes_nowait(&self, message: &mut Vec<u8>) -> Result<(), GetError> {
                get(&self.core, message, Deadline::now())
            }

            /// Waits for a message, takes it and all that are there, at most so many, and shows them one by one. How many it were.
            ///
            /// ```
            /// # use procession::ipc::Queue;
            /// let queue = Queue::<[u8]>::new()?;
            /// queue.put_bytes_all(&["one", "two"])?;
            /// let mut length = 0;
            /// assert_eq!(queue.get_bytes_many(100, |message| length += message.len())?, 2);
            /// assert_eq!(length, 6);
            /// # Ok::<(), procession::Error>(())
            /// ```
            ///
            /// # Errors
            /// As `get_bytes`.
            pub fn get_bytes_many(&self, count_max: usize, show: impl FnMut(&[u8])) -> Result<usize, GetError> {
                get_many(&self.core, count_max, show, Deadline::NEVER)
            }

            /// As `get_bytes_many`, and waits for the first one for so long at most.
            ///
            /// # Errors
            /// Also [`GetError::Empty`].
            pub fn get_bytes_many_timeout(
                &self,
                count_max: usize,
                timeout: Duration,
                show: impl FnMut(&[u8]),
            ) -> Result<usize, GetError> {
                get_many(&self.core, count_max, show, Deadline::after(timeout))
            }
        }
    };
}

getting!(Queue);
getting!(QueueReceiver);

fn put(core: &Core, message: &[u8], deadline: Deadline) -> Result<(), PutError<()>> {
    let (_, put) = core.put(|place| Some(message).filter(|_| place == 0), deadline);
    put.map_err(|refusal| refusal.of(()))
}

fn put_all<M: AsRef<[u8]>>(core: &Core, messages: &[M], deadline: Deadline) -> Result<(), PutError<usize>> {
    let (count, put) = core.put(|place| messages.get(place).map(AsRef::as_ref), deadline);
    put.map_err(|refusal| refusal.of(count))
}

fn get(core: &Core, message: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
    message.clear();
    with_batch(|batch| core.get(1, message, &mut batch.ends, deadline))
}

fn get_many(core: &Core, count_max: usize, mut show: impl FnMut(&[u8]), deadline: Deadline) -> Result<usize, GetError> {
    with_batch(|batch| {
        core.get(count_max, &mut batch.bytes, &mut batch.ends, deadline)?;
        batch.messages().for_each(&mut show);
        Ok(batch.ends.len())
    })
}
