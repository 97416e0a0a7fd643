//! A pool of processes for functions: Python's verbs, what a user sets, and how results come back. Leaves to `desk` who does what, and to `channel` how tasks
//! and results travel; what it has in common with the pool of commands that live on is in `pool::workers`.

mod channel;
mod desk;
mod results;
mod worker;

pub use results::{PendingResult, ProcessResults};

use super::codec::{self, Encoded};
use super::function::Function;
use super::passing::Descriptor;
use crate::command::{Command, Overflow, Target};
use crate::error::{Error, ErrorKind};
use crate::pool::workers::answers::{Slot, Tell};
use crate::pool::workers::inbox::Inbox;
use crate::spawn::nursery;
use crate::sys::eventfd;
use channel::DESCRIPTORS_MAX;
use desk::{Desk, Message, Order};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

/// How much of a worker's standard error is kept, for errors.
const STDERR_MAX: usize = 64 * 1024;
/// So many tasks of an iteration are with the pool for each worker, unless the user says otherwise: enough to keep workers busy whose tasks are
/// short.
const LOOK_AHEAD: usize = 256;

/// Runs functions in a fixed number of processes, one task after the other in each.
///
/// The functions and what they are called with are as for [`Process`](super::Process): data, and shared objects and descriptors, here also in results
/// (up to 253 descriptors in a task or a result). One pool can run any number of different functions. A worker
/// that dies takes nobody with it: the task that it was in is answered with an error that says which worker it was, how it ended and what it said
/// last, or is [begun again](ProcessPoolBuilder::retries); all others go on, and the worker is replaced.
///
/// A thread of the pool's own gives out the tasks. Short tasks are given out several at a time, so there is no chunk size to choose; those that a
/// worker has not begun are given to others when these have nothing to do.
///
/// Dropping the pool [terminates](Self::terminate) it, and waits until every worker has ended.
///
/// ```
/// use procession::ipc::ProcessPool;
///
/// fn square(number: u64) -> u64 {
///     number * number
/// }
///
/// let pool = ProcessPool::new(2)?;
/// assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]);
/// assert_eq!(pool.apply(|(text, times): (String, usize)| text.repeat(times), ("ab".into(), 2))?, "abab");
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "multiprocessing.Pool")]
#[doc(alias = "ProcessPoolExecutor")]
pub struct ProcessPool {
    shared: Arc<Shared>,
}

/// The settings of a pool: see [`ProcessPool::builder`].
pub struct ProcessPoolBuilder {
    rules: Rules,
    first: Result<Option<First>, Error>,
}

/// What holds for the life of a pool.
struct Rules {
    name: String,
    workers: usize,
    first: Option<First>,
    tasks_max: Option<u64>,
    memory_max: Option<u64>,
    timeout: Option<Duration>,
    retries: u32,
    look_ahead: Option<usize>,
    configure: Box<dyn Fn(Command) -> Command + Send + Sync>,
}

impl Rules {
    /// The command of a worker. Unless the user has said where standard error goes, it goes where ours does, and the end is kept.
    fn configured(&self, command: Command) -> Command {
        let command = (self.configure)(command);
        if command.streams.last().is_some_and(Option::is_some) {
            return command;
        }
        command.tee_stderr(Target::stderr()).capture_limit_stderr(STDERR_MAX, Overflow::Tail)
    }
}

/// What each worker does before its first task.
struct First {
    function: Function,
    arguments: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl First {
    /// For one more worker.
    fn copy(&self) -> Result<(u64, Vec<u8>, Vec<Descriptor>), Error> {
        let copy = |fd: &OwnedFd| fd.try_clone().map(Descriptor::from).map_err(|error| Error::io("dup", error));
        let descriptors = self.descriptors.iter().map(copy).collect::<Result<_, _>>()?;
        Ok((self.function.place(), self.arguments.clone(), descriptors))
    }
}

/// What the pool, its thread and those who wait share.
struct Shared {
    rules: Rules,
    /// Rung by workers, and by those who have something to say while the desk sleeps.
    bell: Arc<OwnedFd>,
    inbox: Inbox<Message>,
    last_id: AtomicU64,
    last_worker: AtomicU64,
}

impl ProcessPool {
    /// A pool of so many workers. They are started when there are tasks.
    ///
    /// # Errors
    /// If the number is 0; if the system gives no thread or descriptor.
    pub fn new(workers: usize) -> Result<ProcessPool, Error> {
        ProcessPool::builder().workers(workers).build()
    }

    /// A pool with other settings. Without a number it has as many workers as this process may use processors
    /// ([`available_parallelism`](thread::available_parallelism): affinity and quota of the cgroup).
    #[doc(alias = "cpu_count")]
    pub fn builder() -> ProcessPoolBuilder {
        let rules = Rules {
            name: "Worker".into(),
            workers: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            first: None,
            tasks_max: None,
            memory_max: None,
            timeout: None,
            retries: 0,
            look_ahead: None,
            configure: Box::new(|command| command),
        };
        ProcessPoolBuilder { rules, first: Ok(None) }
    }

    /// Calls the function in a worker, and waits for what it returns.
    ///
    /// # Errors
    /// If the arguments cannot be sent; if the pool was closed; and what became of the task: a [panic](Error::panic), the death of its worker with the
    /// record of it, a [timeout](Error::is_timeout), a [cancellation](Error::is_cancelled).
    pub fn apply<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.apply_async(function, arguments)?.get()
    }

    /// Calls the function in a worker, and does not wait.
    ///
    /// # Errors
    /// If the arguments cannot be sent, or the pool was closed.
    #[doc(alias = "submit")]
    pub fn apply_async<F, A, R>(&self, function: F, arguments: A) -> Result<PendingResult<R>, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let slot = Arc::new(Slot::default());
        let answered = Arc::clone(&slot);
        let id = self.submit(function, &arguments, 0, Tell::new(move |result| answered.put(result)));
        let id = id.map_err(|(error, tell)| tell.instead(error))?;
        Ok(PendingResult::new(slot, Arc::clone(&self.shared), id))
    }

    /// Calls the function in a worker, and the callback with what came of it, on the pool's thread, which does nothing else meanwhile.
    ///
    /// A panic of the callback ends the callback and nothing else.
    ///
    /// # Errors
    /// If the arguments cannot be sent, or the pool was closed.
    pub fn apply_async_with<F, A, R>(
        &self,
        function: F,
        arguments: A,
        callback: impl FnOnce(Result<R, Error>) + Send + 'static,
    ) -> Result<(), Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let decode = |(bytes, descriptors): Encoded| codec::decode(&bytes, descriptors);
        let tell = Tell::new(move |result| callback(result.and_then(decode)));
        self.submit(function, &arguments, 0, tell).map(drop).map_err(|(error, tell)| tell.instead(error))
    }

    /// Calls the function for each of the items, and returns what it returned, in their order.
    ///
    /// ```
    /// use procession::ipc::ProcessPool;
    ///
    /// let pool = ProcessPool::new(2)?;
    /// // Several arguments are a tuple, as with Python's starmap.
    /// assert_eq!(pool.map(|(a, b): (i32, i32)| a - b, [(3, 1), (10, 5)])?, [2, 5]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// That of the first item, in their order, that has failed. The others are not begun then, and those that run are stopped;
    /// [`imap`](Self::imap) goes on.
    #[doc(alias = "starmap")]
    pub fn map<F, A, R>(&self, function: F, items: impl IntoIterator<Item = A>) -> Result<Vec<R>, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.imap(function, items).collect()
    }

    /// Calls the function for each of the items, and yields what came of them in their order, each as soon as it is there.
    ///
    /// Items are taken while results are, a bounded number ahead: see [`look_ahead`](ProcessPoolBuilder::look_ahead). Dropping the iteration cancels
    /// what is left of it.
    pub fn imap<F, A, R, I>(&self, function: F, items: I) -> ProcessResults<'_, F, R, I::IntoIter>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        ProcessResults::new(self, function, items.into_iter(), true)
    }

    /// The same in the order in which they end.
    pub fn imap_unordered<F, A, R, I>(&self, function: F, items: I) -> ProcessResults<'_, F, R, I::IntoIter>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        ProcessResults::new(self, function, items.into_iter(), false)
    }

    /// How many workers the pool may have.
    pub fn workers(&self) -> usize {
        self.shared.rules.workers
    }

    /// Takes no more tasks. Those that it has are done, and the workers end then.
    pub fn close(&self) {
        self.shared.inbox.close();
    }

    /// Takes no more tasks, answers those that were not begun as cancelled, and stops the workers with everything that they have started.
    pub fn terminate(&self) {
        self.shared.inbox.terminate();
    }

    /// Waits until a pool that was [closed](Self::close) or [terminated](Self::terminate) has ended.
    ///
    /// # Errors
    /// If it was not: it would wait for ever.
    pub fn join(&self) -> Result<(), Error> {
        self.shared.inbox.join()
    }

    /// As [`join`](Self::join), for so long at most.
    ///
    /// # Errors
    /// If it was not closed; and a [timeout](Error::is_timeout).
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.shared.inbox.join_timeout(timeout)
    }

    /// As [`join`](Self::join), for a task of a runtime, which is woken.
    #[cfg(feature = "future")]
    pub(crate) fn poll_join(&self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.inbox.poll_join(task)
    }

    /// Gives a task to the desk, and says its number. If that cannot be, who was to be told comes back.
    fn submit<F, A, R>(
        &self,
        function: F,
        arguments: &A,
        group: u64,
        tell: Tell<Encoded>,
    ) -> Result<u64, (Error, Tell<Encoded>)>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let (bytes, descriptors) = match task_bytes(function, arguments) {
            Ok(task) => task,
            Err(error) => return Err((error, tell)),
        };
        let rules = &self.shared.rules;
        let id = self.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (timeout, retries) = (rules.timeout, rules.retries);
        let order = Order { id, group, function: type_name::<F>(), bytes, descriptors, timeout, retries, tell };
        match self.shared.inbox.submit(Message::Submit(order)) {
            Err((error, Message::Submit(order))) => Err((error, order.tell)),
            _ => Ok(id),
        }
    }
}

/// What is sent to a worker.
fn task_bytes<F, A, R>(function: F, arguments: &A) -> Result<Encoded, Error>
where
    F: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    super::bootstrap::check()?;
    let mut bytes = worker::task(Function::of(function)?, &[]);
    let descriptors = codec::encode_behind(arguments, &mut bytes)?;
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(worker::too_many(descriptors.len()));
    }
    Ok((bytes, descriptors))
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        self.terminate();
        // In a callback it would wait for itself; the workers are stopped in any case.
        let _ = self.join();
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProcessPool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

impl Shared {
    fn next_worker(&self) -> u64 {
        self.last_worker.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl ProcessPoolBuilder {
    /// How many workers there are at most.
    #[must_use]
    #[doc(alias = "max_workers")]
    pub fn workers(mut self, workers: usize) -> ProcessPoolBuilder {
        self.rules.workers = workers;
        self
    }

    /// What each worker does before its first task: opens a database, keeps a [shared object](crate::ipc). Its arguments may have descriptors in them.
    ///
    /// What the tasks are to use is kept in a `static`: each worker is a process, and has its own.
    ///
    /// ```
    /// use procession::ipc::{ProcessPool, Value};
    /// use std::sync::OnceLock;
    ///
    /// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    /// static COUNT: OnceLock<Value<u64>> = OnceLock::new();
    ///
    /// fn begin((text, count): (String, Value<u64>)) {
    ///     // Set once: a worker begins once.
    ///     let _ = WORDS.set(text.split(' ').map(str::to_owned).collect());
    ///     let _ = COUNT.set(count);
    /// }
    ///
    /// fn word(number: usize) -> Option<String> {
    ///     COUNT.get()?.fetch_add(1);
    ///     WORDS.get()?.get(number).cloned()
    /// }
    ///
    /// let count = Value::new(0)?;
    /// let pool = ProcessPool::builder().workers(2).initializer(begin, ("a bc def".to_owned(), count.clone())).build()?;
    /// assert_eq!(pool.map(word, [2, 0, 7])?, [Some("def".to_owned()), Some("a".to_owned()), None]);
    /// assert_eq!(count.get(), 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// If it panics, or the worker ends in it, the pool has no workers, and every task is answered with an error that says why.
    #[must_use]
    pub fn initializer<F, A>(mut self, function: F, arguments: A) -> ProcessPoolBuilder
    where
        F: Fn(A) + Copy + 'static,
        A: Serialize + DeserializeOwned,
    {
        self.first = Function::of(function).and_then(|function| {
            let (arguments, descriptors) = codec::encode(&arguments)?;
            Ok(Some(First { function, arguments, descriptors }))
        });
        self
    }

    /// A worker is replaced after so many tasks.
    #[must_use]
    #[doc(alias = "maxtasksperchild")]
    pub fn tasks_per_worker(mut self, tasks_max: u64) -> ProcessPoolBuilder {
        self.rules.tasks_max = Some(tasks_max);
        self
    }

    /// A worker is replaced when it has more memory than this after a task (its resident set, in bytes).
    #[must_use]
    pub fn memory_per_worker(mut self, bytes_max: u64) -> ProcessPoolBuilder {
        self.rules.memory_max = Some(bytes_max);
        self
    }

    /// A task may take so long, from when its worker could begin. After that the worker is stopped with everything that it has started; others are
    /// not touched.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ProcessPoolBuilder {
        self.rules.timeout = Some(timeout);
        self
    }

    /// A task whose worker dies in it is begun again, so often at most. A panic is a result and no death. Descriptors in its arguments are kept for
    /// that until it has ended.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> ProcessPoolBuilder {
        self.rules.retries = retries;
        self
    }

    /// How many items of an iteration are taken ahead of the results. Otherwise 256 for each worker.
    #[must_use]
    #[doc(alias = "buffersize")]
    pub fn look_ahead(mut self, items: usize) -> ProcessPoolBuilder {
        self.rules.look_ahead = Some(items);
        self
    }

    /// What the workers are called, with a number behind it. Otherwise `Worker`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ProcessPoolBuilder {
        self.rules.name = name.into();
        self
    }

    /// Sets what every command has: environment, working directory, limits. Unless this says otherwise, what a worker writes to standard error is passed
    /// on to ours, and the end of it is kept for errors.
    #[must_use]
    pub fn configure(mut self, settings: impl Fn(Command) -> Command + Send + Sync + 'static) -> ProcessPoolBuilder {
        let before = self.rules.configure;
        self.rules.configure = Box::new(move |command| settings(before(command)));
        self
    }

    /// The pool.
    ///
    /// # Errors
    /// If there is to be no worker, or none that may do a task; if the arguments of the [initializer](Self::initializer) cannot be sent; if this
    /// program has no [beginning for processes](crate::docs::ipc); if the system gives no thread or descriptor.
    pub fn build(self) -> Result<ProcessPool, Error> {
        super::bootstrap::check()?;
        let rules = Rules { first: self.first?, ..self.rules };
        if rules.workers == 0 || rules.tasks_max == Some(0) {
            return Err(Error::invalid(
                "a pool without a worker, or whose workers may do no task, would never do anything",
            ));
        }
        let bell = Arc::new(eventfd::create().map_err(|error| Error::io("eventfd", error))?);
        let ringer = Arc::clone(&bell);
        let shared = Arc::new(Shared {
            rules,
            bell,
            inbox: Inbox::new(move || eventfd::ring(ringer.as_fd())),
            last_id: AtomicU64::new(0),
            last_worker: AtomicU64::new(0),
        });
        let (desks, result) = (Arc::clone(&shared), Arc::clone(&shared));
        let (sender, receiver) = std::sync::mpsc::channel();
        let run = move || {
            desks.inbox.begin();
            // The desk ends when its workers have, and should it die, so shall they.
            nursery::outlive_children();
            match Desk::new(Arc::clone(&desks)) {
                Ok(desk) => {
                    // Who waits for it waits for this word only.
                    let _ = sender.send(Ok(()));
                    desk.run();
                }
                Err(error) => {
                    desks.inbox.end();
                    let _ = sender.send(Err(error));
                }
            }
        };
        let spawned = thread::Builder::new().name("procession-pool".into()).spawn(run);
        spawned.map_err(|error| Error::io("thread", error))?;
        receiver
            .recv()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Engine).detail("the thread of the pool has ended")))?;
        Ok(ProcessPool { shared: result })
    }
}

impl fmt::Debug for ProcessPoolBuilder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.rules;
        out.debug_struct("ProcessPoolBuilder").field("name", &rules.name).field("workers", &rules.workers).finish()
    }
}
