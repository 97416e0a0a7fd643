//! What a worker of a pool does: one task after the other, until it is told to go. Decides what a task and a result look like in bytes.

use super::channel::{DESCRIPTORS_MAX, Ends, WorkerChannel};
use crate::error::{Error, ErrorKind, Panic};
use crate::ipc::bootstrap;
use crate::ipc::codec::{self, Encoded};
use crate::ipc::function::Function;
use crate::ipc::passing::Descriptor;
use crate::sys::eventfd;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

/// What a worker gets as its argument: the memory, the files for long tasks and results, the socket for descriptors, the bell of the pool; what it is to do
/// first, with its arguments and the descriptors in them; how many tasks it may do; and how much memory it may have.
pub(super) type Setup = ([Descriptor; 5], Option<(u64, Vec<u8>, Vec<Descriptor>)>, Option<u64>, Option<u64>);

/// A task that is none: the worker is to end.
pub(super) const QUIT: &[u8] = &[];

/// A task in bytes.
pub(super) fn task(function: Function, arguments: &[u8]) -> Vec<u8> {
    [&function.place().to_le_bytes()[..], arguments].concat()
}

/// What comes back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Result<Encoded, Error>,
    /// How long the function took.
    pub(super) took: Duration,
}

const VALUE: u8 = 0;
const PANIC: u8 = 1;
const REFUSED: u8 = 2;
const HEAD: usize = 9;

impl Answer {
    /// Reads an answer, and what has come beside it.
    pub(super) fn read(bytes: &[u8], descriptors: io::Result<Vec<OwnedFd>>) -> Result<Answer, Error> {
        let wrong = || Error::new(ErrorKind::Decode).detail("a worker has left no result but rubbish");
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or_else(wrong)?;
        let [kind, nanos @ ..] = *head;
        let nanos = u64::from_le_bytes(nanos);
        let result = match kind {
            VALUE => match descriptors {
                Ok(descriptors) => Ok((rest.to_vec(), descriptors)),
                Err(error) => Err(Error::io("recvmsg", error).detail("the descriptors in the result")),
            },
            PANIC => {
                let (message, location, backtrace) = codec::decode::<(String, String, String)>(rest, Vec::new())?;
                Err(Error::of_panic(Panic::new(message, location, backtrace)))
            }
            _ => Err(Error::invalid(String::from_utf8_lossy(rest).into_owned())),
        };
        Ok(Answer { result, took: Duration::from_nanos(nanos) })
    }

    fn write(kind: u8, took: Duration, body: &[u8], bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.push(kind);
        bytes.extend_from_slice(&(took.as_nanos() as u64).to_le_bytes());
        bytes.extend_from_slice(body);
    }
}

/// The function of a worker's process.
pub(super) fn work((descriptors, first, tasks_max, memory_max): Setup) -> Result<(), String> {
    let [memory, tasks, results, socket, bell] = descriptors.map(Descriptor::into_owned_fd);
    let channel = WorkerChannel::new(Ends { memory, tasks, results, socket }).map_err(|error| error.to_string())?;
    if let Some((place, arguments, descriptors)) = first {
        let descriptors = descriptors.into_iter().map(Descriptor::into_owned_fd).collect();
        Function::at(place).call(arguments, descriptors).map_err(|error| error.to_string())?;
    }
    if channel.say_ready() {
        eventfd::ring(bell.as_fd());
    }
    serve(channel, bell, tasks_max, memory_max).map_err(|error| error.to_string())
}

/// One task after the other, until there have been enough. What was granted to it beyond that goes to others.
fn serve(mut channel: WorkerChannel, bell: OwnedFd, tasks_max: Option<u64>, memory_max: Option<u64>) -> io::Result<()> {
    let (mut task, mut answer) = (Vec::new(), Vec::new());
    let mut done = 0;
    while tasks_max.is_none_or(|max| done < max) && memory_max.is_none_or(|max| memory_used() <= max) {
        let descriptors = channel.next_task(&mut task)?;
        let Some((place, arguments)) = task.split_first_chunk::<8>() else { return Ok(()) };
        let function = Function::at(u64::from_le_bytes(*place));
        let begun = Instant::now();
        // What a panicking function leaves half done is its own, or poisoned.
        let called = panic::catch_unwind(AssertUnwindSafe(|| {
            let descriptors = descriptors.map_err(|error| {
                Error::io("recvmsg", error).detail("the descriptors in the arguments have not come")
            })?;
            let (result, descriptors) = function.call(arguments.to_vec(), descriptors)?;
            send(&channel, &descriptors)?;
            Ok::<_, Error>((result, descriptors.len()))
        }));
        let took = begun.elapsed();
        if called.is_ok() {
            bootstrap::forget_last_panic();
        }
        let (kind, body, sent) = match called {
            Ok(Ok((result, sent))) => (VALUE, result, sent),
            Ok(Err(error)) => (REFUSED, error.to_string().into_bytes(), 0),
            Err(_) => (PANIC, account(&bootstrap::take_last_panic()), 0),
        };
        Answer::write(kind, took, &body, &mut answer);
        if channel.leave_result(&answer, sent)? {
            eventfd::ring(bell.as_fd());
        }
        done += 1;
    }
    Ok(())
}

/// Sends the descriptors in a result, or says why not.
fn send(channel: &WorkerChannel, descriptors: &[OwnedFd]) -> Result<(), Error> {
    let count = descriptors.len();
    if count > DESCRIPTORS_MAX {
        return Err(too_many(count));
    }
    let failed = |error| Error::io("sendmsg", error).detail("the descriptors in the result cannot be sent");
    channel.send(descriptors).map_err(failed)
}

/// The error of a value with so many descriptors.
pub(super) fn too_many(count: usize) -> Error {
    Error::invalid(format!(
        "a value with {count} descriptors in it cannot be sent: a task and a result can have {DESCRIPTORS_MAX}"
    ))
}

fn account(panic: &Panic) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Three texts can always be written.
    let _ = codec::encode_into(&(panic.message(), panic.location(), panic.backtrace()), &mut bytes);
    bytes
}

/// How much memory this process has, as far as /proc says: the second number of statm, in pages.
fn memory_used() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
    pages * crate::sys::memory::page_size() as u64
}
