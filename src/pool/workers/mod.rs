//! A pool of commands that live on and answer one request after the other: Python's verbs, and what a user sets. Leaves to `desk` who does what, to
//! `dialogue` and `protocol` what a reply is, to `blame` what a death means. What the pool of functions needs as well is in `inbox`, `answers` and
//! `beginnings`.

pub(crate) mod answers;
pub(crate) mod beginnings;
mod blame;
mod desk;
mod dialogue;
pub(crate) mod inbox;
mod protocol;
mod replies;

pub use protocol::{Framed, Protocol};
pub use replies::{PendingReply, WorkerReplies};

use crate::command::{Command, Stdio};
use crate::error::Error;
use crate::set::ChildSet;
use crate::spawn::nursery;
use answers::{Slot, Tell};
use desk::{Desk, First, Message, Order};
use dialogue::shown;
use inbox::Inbox;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

/// So many requests of an iteration are with the pool for each worker, unless the user says otherwise.
const LOOK_AHEAD: usize = 16;
/// So long is a reply at most, unless the user says otherwise.
const REPLY_MAX: usize = 64 << 20;
/// So long a worker that was told to go may take for it, unless the user says otherwise.
const LEAVE: Duration = Duration::from_secs(10);

/// Asks a fixed number of processes that live on: each reads requests from its standard input and writes replies to its standard output, one after
/// the other.
///
/// For programs that are slow to start and quick to answer: an interpreter with a loop, `bc`, a linter that serves. The [`Protocol`] says what
/// requests and replies look like; without another one they are lines. Both are bytes, and `_text` verbs make text of replies by the
/// [settings](Command::text) of the command.
///
/// A worker has one request at a time. If it dies in it, the request is answered with an error that says which worker that was, which request,
/// how it ended, what it said last and what it used; or it is [asked again](WorkerPoolBuilder::retries). A request of which the worker had not
/// read a byte has nothing to do with its death, and goes to another one. All others go on, and the worker is replaced. Workers that
/// never come to a request are not started for ever: after the third in a row the pool has no workers, and every request is answered with why.
///
/// What a worker says without having been asked is never taken for a reply, as far as that can be known: what comes while it has no
/// request, before it has read its request, or behind its reply in the same read. It is stopped and replaced then. A program that says
/// one line too much only after it has read the next request cannot be told from one that replies to it.
///
/// What workers write to standard error is kept for errors, the last 64 KiB of each, and shown to nobody unless the command says so.
///
/// A thread of the pool's own gives out the requests. Dropping the pool [terminates](Self::terminate) it, and waits until every worker has
/// ended.
///
/// ```
/// use procession::Command;
/// use procession::pool::WorkerPool;
///
/// // A filter that does not keep lines for itself; of Python that would be `print(answer, flush=True)`.
/// let upper = Command::shell("while read -r word; do echo \"$word and $word\"; done");
/// let pool = WorkerPool::new(2, upper)?;
/// assert_eq!(pool.apply_text("salt")?, "salt and salt");
/// assert_eq!(pool.map_text(["a", "b", "c"])?, ["a and a", "b and b", "c and c"]);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "coprocess")]
#[doc(alias = "coproc")]
#[doc(alias = "ProcessPoolExecutor")]
#[doc(alias = "multiprocessing.Pool")]
pub struct WorkerPool {
    shared: Arc<Shared>,
}

/// The settings of a pool: see [`WorkerPool::builder`].
pub struct WorkerPoolBuilder {
    rules: Rules,
    /// Requests and checks, as they were given.
    first: Vec<(Option<Vec<u8>>, Check)>,
}

/// Whether what was said at a beginning is right.
type Check = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What holds for the life of a pool.
struct Rules {
    command: Command,
    name: String,
    workers: usize,
    protocol: Protocol,
    first: Vec<First>,
    requests_max: Option<u64>,
    timeout: Option<Duration>,
    retries: u32,
    look_ahead: Option<usize>,
    reply_max: usize,
    leave: Duration,
}

impl Rules {
    /// Where the standard error of a worker goes, if the command does not say: to its record.
    fn stderr(&self) -> Option<Stdio> {
        Some(self.command.chosen_stream(2).unwrap_or_else(Stdio::piped))
    }

    fn text_of(&self, reply: &[u8]) -> Result<String, Error> {
        let text = self.command.settings.text;
        if !self.protocol.is_line() {
            return Ok(text.decode(reply)?);
        }
        // What its line end is, the settings say.
        let mut line = text.decode(&[reply, b"\n"].concat())?;
        line.truncate(line.len() - usize::from(line.ends_with('\n')));
        Ok(line)
    }
}

/// What the pool, its thread and those who wait share.
struct Shared {
    rules: Rules,
    inbox: Inbox<Message>,
    last_request: AtomicU64,
    last_group: AtomicU64,
}

impl WorkerPool {
    /// A pool of so many workers of this command that speak in lines. They are started when there are requests.
    ///
    /// # Errors
    /// As [`build`](WorkerPoolBuilder::build).
    pub fn new(workers: usize, command: Command) -> Result<WorkerPool, Error> {
        WorkerPool::builder(command).workers(workers).build()
    }

    /// A pool with other settings. Without a number it has as many workers as this process may use processors.
    pub fn builder(command: Command) -> WorkerPoolBuilder {
        let rules = Rules {
            command,
            name: "Worker".into(),
            workers: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            protocol: Protocol::lines(),
            first: Vec::new(),
            requests_max: None,
            timeout: None,
            retries: 0,
            look_ahead: None,
            reply_max: REPLY_MAX,
            leave: LEAVE,
        };
        WorkerPoolBuilder { rules, first: Vec::new() }
    }

    /// Asks a worker, and waits for its reply.
    ///
    /// # Errors
    /// If the request cannot be sent in this [`Protocol`], which is found out before anything is; if the pool was closed; and what became of the
    /// request: the death of its worker with the record of it, a [timeout](Error::is_timeout), a [cancellation](Error::is_cancelled), a reply that is
    /// too long, or more than one ([`Decode`](crate::ErrorKind::Decode)).
    pub fn apply(&self, request: impl Into<Vec<u8>>) -> Result<Vec<u8>, Error> {
        self.apply_async(request)?.get()
    }

    /// Asks a worker, and waits for its reply as text.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); and if the reply is no text.
    pub fn apply_text(&self, request: impl Into<Vec<u8>>) -> Result<String, Error> {
        self.apply_async(request)?.get_text()
    }

    /// Asks a worker, and does not wait.
    ///
    /// # Errors
    /// If the request cannot be sent, or the pool was closed.
    #[doc(alias = "submit")]
    pub fn apply_async(&self, request: impl Into<Vec<u8>>) -> Result<PendingReply, Error> {
        let slot = Arc::new(Slot::default());
        let answered = Arc::clone(&slot);
        let number = self.submit(&request.into(), 0, Tell::new(move |answer| answered.put(answer)));
        let number = number.map_err(|(error, tell)| tell.instead(error))?;
        Ok(PendingReply::new(slot, Arc::clone(&self.shared), number))
    }

    /// Asks a worker, and calls the callback with what came of it, on the pool's thread, which does nothing else meanwhile.
    ///
    /// A panic of the callback ends the callback and nothing else.
    ///
    /// # Errors
    /// If the request cannot be sent, or the pool was closed.
    #[doc(alias = "add_done_callback")]
    pub fn apply_async_with(
        &self,
        request: impl Into<Vec<u8>>,
        callback: impl FnOnce(Result<Vec<u8>, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let submitted = self.submit(&request.into(), 0, Tell::new(callback));
        submitted.map(drop).map_err(|(error, tell)| tell.instead(error))
    }

    /// Asks each of these, and returns the replies in their order.
    ///
    /// # Errors
    /// That of the first request, in their order, that has failed. The others are not begun then, and those that run are stopped;
    /// [`imap`](Self::imap) goes on.
    pub fn map<R: Into<Vec<u8>>>(&self, requests: impl IntoIterator<Item = R>) -> Result<Vec<Vec<u8>>, Error> {
        self.imap(requests).collect()
    }

    /// The same with replies as text.
    ///
    /// # Errors
    /// As [`map`](Self::map); and if a reply is no text.
    pub fn map_text<R: Into<Vec<u8>>>(&self, requests: impl IntoIterator<Item = R>) -> Result<Vec<String>, Error> {
        self.imap(requests).texts().collect()
    }

    /// Asks each of these, and yields what came of them in their order, each as soon as it is there.
    ///
    /// Requests are taken while replies are, a bounded number ahead: see [`look_ahead`](WorkerPoolBuilder::look_ahead). Dropping the iteration
    /// cancels what is left of it.
    pub fn imap<R, I>(&self, requests: I) -> WorkerReplies<'_, I::IntoIter>
    where
        R: Into<Vec<u8>>,
        I: IntoIterator<Item = R>,
    {
        WorkerReplies::new(self, requests.into_iter(), true)
    }

    /// The same in the order in which they end.
    pub fn imap_unordered<R, I>(&self, requests: I) -> WorkerReplies<'_, I::IntoIter>
    where
        R: Into<Vec<u8>>,
        I: IntoIterator<Item = R>,
    {
        WorkerReplies::new(self, requests.into_iter(), false)
    }

    /// How many workers the pool may have.
    pub fn workers(&self) -> usize {
        self.shared.rules.workers
    }

    /// Takes no more requests. Those that it has are done, and the workers see the end of their input then.
    #[doc(alias = "shutdown")]
    pub fn close(&self) {
        self.shared.inbox.close();
    }

    /// Takes no more requests, answers those that were not begun as cancelled, and stops the workers with everything that they have started, each by
    /// the [stop plan](Command::stop) of the command.
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

    /// Gives a request to the desk, and says its number. If that cannot be, who was to be told comes back.
    fn submit(&self, request: &[u8], group: u64, tell: Tell) -> Result<u64, (Error, Tell)> {
        let number = self.shared.last_request.fetch_add(1, Ordering::Relaxed) + 1;
        let (rules, shown) = (&self.shared.rules, shown(request));
        let framed = match rules.protocol.frame(request) {
            Ok(framed) => Arc::new(framed),
            Err(why) => {
                let error = Error::invalid(format!("it cannot be sent: {why}"));
                return Err((error.of_command(|| format!("request {number} {shown}")), tell));
            }
        };
        let order = Order { number, group, shown, framed, retries: rules.retries, tell };
        match self.shared.inbox.submit(Message::Submit(order)) {
            Err((error, Message::Submit(order))) => Err((error, order.tell)),
            _ => Ok(number),
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.terminate();
        // In a callback it would wait for itself; the workers are stopped in any case.
        let _ = self.join();
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WorkerPool")
            .field("command", &self.shared.rules.command.to_string())
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

impl WorkerPoolBuilder {
    /// How many workers there are at most, those that are leaving counted.
    #[must_use]
    #[doc(alias = "max_workers")]
    pub fn workers(mut self, workers: usize) -> WorkerPoolBuilder {
        self.rules.workers = workers;
        self
    }

    /// What requests and replies look like. Otherwise [lines](Protocol::lines).
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> WorkerPoolBuilder {
        self.rules.protocol = protocol;
        self
    }

    /// What each worker says by itself before it is asked anything, as if it were a reply: a banner. For several lines say it several times.
    ///
    /// If it says something else the pool has no workers, and every request is answered with an error that says why.
    ///
    /// ```
    /// use procession::Command;
    /// use procession::pool::WorkerPool;
    ///
    /// let chatty = Command::shell("echo welcome; while read -r line; do echo \"<$line>\"; done");
    /// let pool = WorkerPool::builder(chatty).workers(1).greeting(|line| line == b"welcome").build()?;
    /// assert_eq!(pool.apply_text("hello")?, "<hello>");
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn greeting(mut self, is_right: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> WorkerPoolBuilder {
        self.first.push((None, Box::new(is_right)));
        self
    }

    /// A request to each worker before all others, and whether the reply is as it should be: to load a file, to choose a mode. May be said several times.
    ///
    /// If the reply is not right the pool has no workers, and every request is answered with an error that says why. If the worker dies, the
    /// next one tries, up to three in a row.
    ///
    /// ```
    /// use procession::Command;
    /// use procession::pool::WorkerPool;
    ///
    /// let line = "while read -r word rest; do case $word in base) base=$rest; echo ok;; *) echo $(($base + $word));; esac; done";
    /// let adder = WorkerPool::builder(Command::shell(line)).workers(1).initial("base 100", |reply| reply == b"ok");
    /// assert_eq!(adder.build()?.apply_text("7")?, "107");
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    #[doc(alias = "initializer")]
    pub fn initial(
        mut self,
        request: impl Into<Vec<u8>>,
        is_right: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> WorkerPoolBuilder {
        self.first.push((Some(request.into()), Box::new(is_right)));
        self
    }

    /// A worker is told to go after so many requests, by the end of its input, and replaced.
    #[must_use]
    #[doc(alias = "maxtasksperchild")]
    #[doc(alias = "max_tasks_per_child")]
    pub fn requests_per_worker(mut self, requests_max: u64) -> WorkerPoolBuilder {
        self.rules.requests_max = Some(requests_max);
        self
    }

    /// A reply may take so long, from when the request is given to a worker; those of the beginning as well. After that the worker is stopped by the
    /// [stop plan](Command::stop) of its command; others are not touched.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> WorkerPoolBuilder {
        self.rules.timeout = Some(timeout);
        self
    }

    /// A request whose worker dies in it, or closes its pipes, is asked again, so often at most. A timeout and a reply that is none are not.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> WorkerPoolBuilder {
        self.rules.retries = retries;
        self
    }

    /// How many requests of an iteration are taken ahead of the replies. Otherwise 16 for each worker.
    #[must_use]
    #[doc(alias = "buffersize")]
    pub fn look_ahead(mut self, requests: usize) -> WorkerPoolBuilder {
        self.rules.look_ahead = Some(requests);
        self
    }

    /// How many bytes a reply may have. Otherwise 64 MiB. A worker that exceeds it is stopped.
    #[must_use]
    pub fn reply_limit(mut self, bytes_max: usize) -> WorkerPoolBuilder {
        self.rules.reply_max = bytes_max;
        self
    }

    /// How long a worker may take to end that was told to go. Otherwise ten seconds; then it is stopped.
    #[must_use]
    pub fn leave_timeout(mut self, timeout: Duration) -> WorkerPoolBuilder {
        self.rules.leave = timeout;
        self
    }

    /// What the workers are called in errors, with a number behind it. Otherwise `Worker`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> WorkerPoolBuilder {
        self.rules.name = name.into();
        self
    }

    /// The pool.
    ///
    /// # Errors
    /// If there is to be no worker, or none that may do a request; if the command says where its standard input or output goes, has
    /// [input](Command::input) or a [timeout](Command::timeout), or runs on a [terminal](Command::pty); if lines cannot be found in its
    /// [encoding](Command::text); if an [initial request](Self::initial) cannot be sent; if the system gives no thread or descriptor.
    pub fn build(self) -> Result<WorkerPool, Error> {
        let rules = self.checked_rules()?;
        let mut set = ChildSet::new()?;
        let waker = set.waker()?;
        let inbox = Inbox::new(move || waker.wake());
        let (last_request, last_group) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { rules, inbox, last_request, last_group });
        let desk = Desk::new(Arc::clone(&shared), set);
        let run = move || {
            // The desk ends when its workers have, and should it die, so shall they.
            nursery::outlive_children();
            desk.run();
        };
        let spawned = thread::Builder::new().name("procession-pool".into()).spawn(run);
        spawned.map_err(|error| Error::io("thread", error))?;
        Ok(WorkerPool { shared })
    }

    fn checked_rules(self) -> Result<Rules, Error> {
        let WorkerPoolBuilder { mut rules, first } = self;
        let line = rules.command.to_string();
        let invalid = |text: &'static str| Error::invalid(text).of_command(|| line.clone());
        if rules.workers == 0 || rules.requests_max == Some(0) {
            return Err(invalid(
                "a pool without a worker, or whose workers may do no request, would never do anything",
            ));
        }
        let command = &rules.command;
        if command.pty.is_some() || command.chosen_stream(2).is_some_and(|stderr| stderr.is_pty()) {
            return Err(invalid("a worker is spoken to through pipes and not on a terminal"));
        }
        if command.chosen_stream(0).is_some() || command.chosen_stream(1).is_some() || command.input.is_some() {
            return Err(invalid("the standard input and output of a worker belong to its pool"));
        }
        if command.timeout.is_some() {
            return Err(invalid("the timeout of a command is for one run: a request has that of its pool"));
        }
        if rules.protocol.is_of_lines() && command.settings.text.is_cut_as_text() {
            return Err(invalid("the lines of this encoding cannot be found among bytes"));
        }
        if let Some(mistake) = rules.protocol.mistake() {
            return Err(invalid(mistake));
        }
        for (request, is_right) in first {
            let frame = |request: &Vec<u8>| rules.protocol.frame(request).map(Arc::new);
            let framed = request.as_ref().map(frame).transpose().map_err(|why| {
                let request = shown(request.as_deref().unwrap_or_default());
                Error::invalid(format!("the initial request {request} cannot be sent: {why}"))
            })?;
            rules.first.push(First { request, framed, is_right });
        }
        rules.command = rules.command.kill_on_drop();
        Ok(rules)
    }
}

impl fmt::Debug for WorkerPoolBuilder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rules { command, name, workers, protocol, .. } = &self.rules;
        out.debug_struct("WorkerPoolBuilder")
            .field("command", &command.to_string())
            .field("name", name)
            .field("workers", workers)
            .field("protocol", protocol)
            .finish_non_exhaustive()
    }
}
