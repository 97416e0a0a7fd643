//! At most so many commands at a time: order, bounds, retries, dependencies, resources, and who is told. Here are the verbs; what may
//! start next is decided in `core`, in which order in `line`, where it runs is an `engine`, and the threads are in `lanes`.

mod admission;
mod allowance;
mod core;
mod delivery;
mod done;
mod engine;
mod expected;
mod halt;
mod interrupt;
mod lanes;
mod line;
mod local;
mod jobserver;
mod known;
mod makeflags;
mod held;
#[cfg(feature = "runlog")]
mod log;
#[cfg(test)]
mod line_model;
mod observe;
mod print;
mod progress;
#[cfg_attr(not(feature = "progress"), path = "progress_bars_absent.rs")]
mod progress_bars;
mod readable;
mod ready;
mod resources;
mod results;
mod retry;
pub mod scripted;
#[cfg(test)]
mod sample;
mod summary;
mod task;
mod template;
#[cfg(feature = "timeline")]
mod timeline;
mod turns;
mod verdict;
pub(crate) mod workers;

pub use admission::Admission;
#[cfg(feature = "future")]
pub(crate) use delivery::hang_all;
pub use delivery::{AsCompleted, Pending, ReturnWhen, as_completed, wait};
pub use done::{Done, Outcome, TaskId, Unstarted};
pub use engine::{Capabilities, Engine, FileAccess, Finish, Job, JobId, JobNews, Refusal, SignalFidelity, Tell, Waker};
pub use halt::Halt;
pub use jobserver::{JobToken, Jobserver, JobserverStyle};
pub use line::Policy;
pub use local::Local;
#[cfg(feature = "runlog")]
pub use log::{History, RunLog};
pub use observe::{Observer, TaskNews};
pub use print::Print;
pub use progress::Progress;
pub use ready::Ready;
pub use resources::Supply;
pub use results::Results;
pub use retry::Retry;
pub use scripted::{Script, Scripted};
pub use summary::Summary;
pub use task::{After, Task};
pub use template::Template;
#[cfg(feature = "timeline")]
pub use timeline::Timeline;
pub use workers::{Framed, PendingReply, Protocol, WorkerPool, WorkerPoolBuilder, WorkerReplies};

use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::Output;
use crate::signal::Signal;
use allowance::Allowance;
use core::{Core, Submission};
use delivery::{Callback, Delivery, Slot};
use interrupt::{Desk, Listener};
use known::Claim;
use lanes::{Engines, Shared};
use line::Line;
use std::ffi::OsString;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::time::Duration;

/// Runs many commands, at most so many at a time.
///
/// A task is a [`Command`](crate::Command), or a [`Task`] that says more: what it waits for, what it needs, how often it is tried. Each
/// task gets exactly one last word, a [`Done`], whatever dies. Input is taken as it is needed, so an endless iterator is fine.
///
/// The pool starts its first thread with its first task, and never more than there are processors.
///
/// [`close`](Self::close) and [`join`](Self::join) wait for everything. **Dropping** a pool that still runs something stops it, with its
/// tree, and waits until that is done; [`scope`](Self::scope) waits for the tasks instead, unless it is left by a panic.
///
/// ```
/// use procession::{Command, Pool};
///
/// let pool = Pool::new(8);
/// let words = ["one", "two", "three"];
/// for done in pool.imap(words.map(|word| Command::new("echo").arg(word))) {
///     print!("{}", done.output().stdout_lossy());
/// }
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "ProcessPoolExecutor")]
#[doc(alias = "ThreadPool")]
#[doc(alias = "xargs")]
#[doc(alias = "parallel")]
pub struct Pool {
    shared: Arc<Shared>,
    ahead: Option<usize>,
    policy: Policy,
    is_fair: bool,
    listener: Option<Listener>,
}

/// How a pool works. To be said before the first task.
impl Pool {
    /// A pool on this machine that runs so many commands at a time; 0 means as many as there are processors. Makes no system call.
    pub fn new(width: usize) -> Pool {
        Pool::over(width, Engines::Local)
    }

    /// A pool whose commands run on this engine.
    pub fn with_engine(width: usize, engine: impl Engine + 'static) -> Pool {
        Pool::with_engines(width, vec![Box::new(engine)])
    }

    /// A pool whose commands run on several engines, each driven by a thread of its own. A task runs where it can.
    pub fn with_engines(width: usize, engines: Vec<Box<dyn Engine>>) -> Pool {
        let capabilities = engines.iter().map(|engine| engine.capabilities()).collect();
        // The first one is the first to be taken.
        let engines = engines.into_iter().rev().collect();
        Pool::over(width, Engines::Given(capabilities, Mutex::new(engines)))
    }

    fn over(width: usize, engines: Engines) -> Pool {
        let width = if width > 0 { width } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let (policy, is_fair) = (Policy::FirstCome, false);
        let core = Core::new(width, Line::new(policy, is_fair));
        Pool { shared: Arc::new(Shared::new(core, engines)), ahead: None, policy, is_fair, listener: None }
    }

    /// In which order tasks start: first come first served by default.
    pub fn policy(mut self, policy: Policy) -> Pool {
        self.policy = policy;
        self.shared.core().line = Line::new(self.policy, self.is_fair);
        self
    }

    /// The [groups](Task::group) take turns.
    #[doc(alias = "round_robin")]
    pub fn fair(mut self) -> Pool {
        self.is_fair = true;
        self.shared.core().line = Line::new(self.policy, self.is_fair);
        self
    }

    /// When tasks that did not succeed are run again, unless they say it themselves. Never by default.
    pub fn retry(self, retry: Retry) -> Pool {
        self.shared.core().retry = retry;
        self
    }

    /// When the whole run ends early. Never by default.
    ///
    /// What waits then, and what is submitted after that, is not started: [`Outcome::NotStarted`], with an error of the kind
    /// [`Cancelled`](crate::ErrorKind::Cancelled). [`map`](Self::map) and its like take no more of their input then, and end with the records
    /// of what they have taken. [`halted`](Self::halted) tells why.
    pub fn halt(self, halt: Halt) -> Pool {
        self.shared.core().halt = halt;
        self
    }

    /// What there is of a resource that tasks [need](Task::needs).
    ///
    /// # Errors
    /// If there is one of this name already, or the name is empty.
    pub fn resource(self, name: impl Into<Arc<str>>, supply: Supply) -> Result<Pool, Error> {
        self.shared.core().stock.add(name.into(), supply)?;
        Ok(self)
    }

    /// Starts no task while the machine has enough to do.
    ///
    /// # Errors
    /// If the system does not tell what is asked for.
    pub fn admission(self, admission: Admission) -> Result<Pool, Error> {
        admission.check()?;
        self.shared.core().admission = Some(admission);
        Ok(self)
    }

    /// So much time lies between the starts of two tasks, at least, also of such as are run again: for servers that do not want to be
    /// asked by everybody at once. Nothing by default.
    ///
    /// ```
    /// use procession::{Command, Pool};
    /// use std::time::Duration;
    ///
    /// let pool = Pool::new(8).start_interval(Duration::from_millis(5));
    /// let done = pool.map([Command::new("true"), Command::new("true")]);
    /// assert!(done[1].started() >= done[0].started().map(|first| first + Duration::from_millis(5)));
    /// ```
    #[doc(alias = "delay")]
    #[doc(alias = "rate limit")]
    pub fn start_interval(self, interval: Duration) -> Pool {
        self.shared.core().pace.interval = interval;
        self
    }

    /// Shares the number of jobs with others: a task starts only when it has a token of this jobserver, and gives it back when it is over,
    /// however it ended.
    ///
    /// The first token needs nobody's consent, so one task can always run; a pool that got no further one runs them one after the other.
    /// With a [server](Jobserver::server) what the tasks of all pools with a clone of it, and
    /// the makes, cargos and linkers that they start, run together is never more than its number of jobs. Tasks on this machine find
    /// the jobserver in their `MAKEFLAGS`. When no token of the server is in use, those that killed children took with them are
    /// [made good](Jobserver::recover).
    ///
    /// A [service](Task::service) takes no token, and is told nothing of the jobserver: it is there for the others.
    ///
    /// ```
    /// use procession::pool::{Jobserver, JobserverStyle};
    /// use procession::{Command, Pool};
    ///
    /// // As make told us, if make has started us; otherwise a number of our own.
    /// let jobserver = match Jobserver::from_env()? {
    ///     Some(jobserver) => jobserver,
    ///     None => Jobserver::server(4, JobserverStyle::Pipe)?,
    /// };
    /// let pool = Pool::new(8).jobserver(jobserver);
    /// assert!(pool.map((0..8).map(|_| Command::new("true"))).iter().all(|done| done.success()));
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[doc(alias = "make -j")]
    #[doc(alias = "MAKEFLAGS")]
    pub fn jobserver(self, jobserver: Jobserver) -> Pool {
        self.shared.core().allowance = Allowance::of(jobserver);
        self
    }

    /// Lets SIGINT, SIGTERM and SIGHUP end the run in good order. By itself the library catches no signals; this is the one exception, and it
    /// lasts as long as the pool.
    ///
    /// - **The first signal**: no more tasks are started, nor taken from the input of [`map`](Self::map) and its like; those that wait are
    ///   [cancelled](Outcome::Cancelled). Those that run are told, and may finish within the grace. A ^C at the terminal has reached everybody
    ///   in this program's process group already, and they do not get it twice; those elsewhere, and all of them if the signal was sent to
    ///   this program by somebody, get the same signal from here, once. An engine that cannot pass on signals cancels its tasks.
    /// - **The second one**, or the end of the grace: what runs is stopped with its tree, each task by the [plan](crate::Stop) of its
    ///   command.
    /// - **The third one**: it is killed.
    ///
    /// The program goes on, and [`interrupted`](Self::interrupted) tells. If nothing is left that could be ended, a further signal does
    /// what it would do without the pool.
    ///
    /// When the last task is over after an interrupt, the terminal at standard input has its settings again and this program is in
    /// its foreground, whatever a killed child has left there; unless it is somebody else's by now.
    ///
    /// A signal that the program was told to ignore, as by `nohup`, stays ignored. Children do not notice any of it, and when the pool is
    /// dropped the signals do what they did before. A signal that is sent to the whole process group by other means than the terminal
    /// reaches the children twice, because nobody can tell.
    ///
    /// ```
    /// use procession::{Command, Pool};
    /// use std::time::Duration;
    ///
    /// let pool = Pool::new(4).interruptible(Duration::from_secs(10))?;
    /// let done = pool.map((0..8).map(|number| Command::new("echo").arg(number.to_string())));
    /// println!("{} done", done.iter().filter(|done| done.success()).count());
    /// if let Some(signal) = pool.interrupted() {
    ///     drop(pool);
    ///     std::process::exit(128 + signal.number());
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If another pool of this program is interruptible, or no descriptors or threads are left.
    #[doc(alias = "Ctrl-C")]
    #[doc(alias = "SIGINT")]
    pub fn interruptible(mut self, grace: Duration) -> Result<Pool, Error> {
        if self.listener.is_none() {
            self.listener = Some(Listener::start(&self.shared)?);
            *delivery::lock(&self.shared.desk) = Desk::now();
        }
        self.shared.core().interruption.grace = grace;
        Ok(self)
    }

    /// How many tasks are taken from the input of [`map`](Self::map) and its like beyond those that run: four for each place by
    /// default. As many results are kept for a caller who does not take them.
    #[doc(alias = "buffersize")]
    pub fn look_ahead(mut self, tasks: usize) -> Pool {
        self.ahead = Some(tasks);
        self
    }

    /// Does not run tasks for which this is true, asked just before it would start them: they have [succeeded](Done::is_skipped)
    /// already. A task that waits for one that was run is always run, too. The function is called on a thread of the pool.
    #[doc(alias = "up_to_date")]
    pub fn skip_if(self, is_done: impl Fn(&Task) -> bool + Send + Sync + 'static) -> Pool {
        self.shared.skip_if(Box::new(is_done));
        self
    }

    /// Goes on with an earlier run: what has succeeded in it, with the same command and the same inputs, is not run again.
    #[cfg(feature = "runlog")]
    pub fn resume(self, history: History) -> Pool {
        self.skip_if(move |task| history.is_done(task))
    }

    /// Somebody looks on: a log, a progress bar, a timeline.
    pub fn observe(self, observer: impl Observer + 'static) -> Pool {
        self.shared.observe(Box::new(observer));
        self
    }
}

/// Running tasks.
impl Pool {
    /// Runs one task and waits for it.
    ///
    /// # Errors
    /// As [`Command::output`](crate::Command::output); if it was cancelled, was not started because of another one, or its engine has
    /// failed; if the pool is closed, or the task asks for what the pool does not have.
    pub fn apply(&self, task: impl Into<Task>) -> Result<Output, Error> {
        self.apply_async(task)?.into_done().into_result()
    }

    /// Submits a task and returns at once.
    ///
    /// # Errors
    /// If the pool is closed, or the task asks for what the pool does not have. Nothing was taken then.
    #[doc(alias = "submit")]
    pub fn apply_async(&self, task: impl Into<Task>) -> Result<Pending, Error> {
        self.submit_one(task.into(), None)
    }

    /// The same, and calls a function when the task is over, on a thread of the pool. It must not wait for the pool. A panic in it ends
    /// nothing, and is told by [`join`](Self::join).
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async).
    #[doc(alias = "add_done_callback")]
    pub fn apply_async_with(
        &self,
        task: impl Into<Task>,
        callback: impl FnOnce(&Done) + Send + 'static,
    ) -> Result<Pending, Error> {
        self.submit_one(task.into(), Some(Box::new(callback)))
    }

    fn submit_one(&self, task: Task, callback: Option<Callback>) -> Result<Pending, Error> {
        let slot = Slot::new();
        let delivery = Delivery::to_slot(Arc::clone(&slot), callback);
        let claims = self.submit(vec![(task, 0, delivery)])?;
        let claim =
            claims.into_iter().next().ok_or_else(|| Error::invalid("one task was submitted, and none was taken"))?;
        Ok(Pending { claim, slot, shared: Arc::downgrade(&self.shared) })
    }

    /// Submits tasks that may wait for each other, in any order, and returns at once. All are taken, or none.
    ///
    /// ```
    /// use procession::pool::{Pool, Task};
    /// use procession::Command;
    ///
    /// let pool = Pool::new(4);
    /// let pending = pool.submit_all([
    ///     Task::new(Command::new("true")).name("link").after("compile"),
    ///     Task::new(Command::new("true")).name("compile"),
    /// ])?;
    /// assert!(pending.iter().all(|one| one.wait().success()));
    ///
    /// let error = pool.submit_all([
    ///     Task::new(Command::new("true")).name("hen").after("egg"),
    ///     Task::new(Command::new("true")).name("egg").after("hen"),
    /// ]).unwrap_err();
    /// assert_eq!(error.to_string(), "tasks wait for each other: hen after egg after hen");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async); if they wait for each other in a circle, which the error names; if two have the same name,
    /// or a name is not there.
    #[doc(alias = "DAG")]
    pub fn submit_all<T: Into<Task>>(&self, tasks: impl IntoIterator<Item = T>) -> Result<Vec<Pending>, Error> {
        let tasks: Vec<(Task, Arc<Slot>)> = tasks.into_iter().map(|task| (task.into(), Slot::new())).collect();
        let slots: Vec<Arc<Slot>> = tasks.iter().map(|(_, slot)| Arc::clone(slot)).collect();
        let tasks = tasks.into_iter().enumerate();
        let claims =
            self.submit(tasks.map(|(index, (task, slot))| (task, index, Delivery::to_slot(slot, None))).collect())?;
        let pending = claims.into_iter().zip(slots);
        Ok(pending.map(|(claim, slot)| Pending { claim, slot, shared: Arc::downgrade(&self.shared) }).collect())
    }

    fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Arc<Claim>>, Error> {
        self.offer(tasks).map_err(|(error, tasks)| {
            tasks.into_iter().for_each(|(_, _, delivery)| delivery.forget());
            error
        })
    }

    /// The tasks come back if they are not taken.
    fn offer(&self, tasks: Vec<Submission>) -> Result<Vec<Arc<Claim>>, (Error, Vec<Submission>)> {
        let capabilities = self.shared.capabilities();
        self.shared.change(|core, now| core.submit(tasks, &capabilities, now))
    }

    /// Runs all tasks and returns their records in the order of the tasks. Whatever happens to one of them the others are run, unless
    /// [`halt`](Self::halt) says otherwise: then, and after an [interrupt](Self::interruptible), there are records only of those that
    /// were taken from the input by then. If the pool is closed the first task that it refuses is the last one that is taken.
    ///
    /// ```
    /// use procession::{Command, Pool};
    ///
    /// let pool = Pool::new(4);
    /// let done = pool.map((0..20).map(|number| Command::shell(format!("exit {}", number % 2))));
    /// assert_eq!(done.iter().filter(|done| done.success()).count(), 10);
    /// ```
    pub fn map<T: Into<Task>>(&self, tasks: impl IntoIterator<Item = T>) -> Vec<Done> {
        self.imap(tasks).collect_all()
    }

    /// Runs a command for each set of values, put in place of its [placeholders](Template).
    ///
    /// ```
    /// use procession::{Command, Pool};
    ///
    /// let pool = Pool::new(4);
    /// let done = pool.starmap(&Command::new("echo").arg("{1}-{2}").into(), [["a", "b"], ["c", "d"]]);
    /// let said: Vec<_> = done.iter().map(|done| done.output().stdout_lossy()).collect();
    /// assert_eq!(said, ["a-b\n", "c-d\n"]);
    /// ```
    pub fn starmap<V: Into<OsString>, I: IntoIterator<Item = V>>(
        &self,
        template: &Template,
        values: impl IntoIterator<Item = I>,
    ) -> Vec<Done> {
        let values = values.into_iter().map(|values| values.into_iter().map(Into::into).collect::<Vec<OsString>>());
        self.map(values.enumerate().map(|(index, values)| template.fill(index + 1, &values)))
    }

    /// Runs the tasks and yields their records in the order of the tasks, each as soon as it and all before it are there. Further tasks
    /// are taken while the records are. Dropping the iteration cancels what is left of it.
    ///
    /// The input is read by the caller's thread, as far ahead as [`look_ahead`](Self::look_ahead) has room for. Each task is submitted when
    /// it was taken; one that is [`after`](Task::after) a name that has not come yet waits for it, as far as one looks ahead. As long as
    /// the input makes one wait no record is handed out, although tasks are run; where that matters, as with a terminal,
    /// [`apply_async_with`](Self::apply_async_with) says at once what has ended.
    ///
    /// It ends early, with the records of what was taken, when the pool is [halted](Self::halted) or closed.
    pub fn imap<T: Into<Task>, I: IntoIterator<Item = T>>(&self, tasks: I) -> Results<'_, I::IntoIter> {
        Results::new(self, tasks.into_iter(), true)
    }

    /// The same in the order in which they end; [`Done::index`] says which task it was.
    pub fn imap_unordered<T: Into<Task>, I: IntoIterator<Item = T>>(&self, tasks: I) -> Results<'_, I::IntoIter> {
        Results::new(self, tasks.into_iter(), false)
    }

    /// Runs all tasks and returns their records by [group](Task::group), the groups in the order in which they first came, the records
    /// in the order of the tasks.
    pub fn map_grouped<T: Into<Task>>(&self, tasks: impl IntoIterator<Item = T>) -> Vec<(Option<Arc<str>>, Vec<Done>)> {
        let mut groups: Vec<(Option<Arc<str>>, Vec<Done>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for done in self.imap(tasks) {
            let place = *places.entry(done.group.clone()).or_insert_with(|| {
                groups.push((done.group.clone(), Vec::new()));
                groups.len() - 1
            });
            if let Some((_, group)) = groups.get_mut(place) {
                group.push(done);
            }
        }
        groups
    }
}

/// How it stands, and the end.
impl Pool {
    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.shared.core().running()
    }

    /// How many tasks were taken and do not run yet.
    pub fn waiting(&self) -> usize {
        self.shared.core().waiting()
    }

    /// Why the run has ended early, if it has: by its [`halt`](Self::halt), or because it was [interrupted](Self::interrupted).
    ///
    /// ```
    /// use procession::pool::{Halt, Pool};
    /// use procession::Command;
    ///
    /// let pool = Pool::new(2).halt(Halt::on_failures(3));
    /// let done = pool.map((0..).map(|_| Command::new("false")));
    /// assert_eq!(pool.halted().as_deref(), Some("3 failed"));
    /// # let _ = done;
    /// ```
    pub fn halted(&self) -> Option<String> {
        self.shared.core().halted().map(str::to_owned)
    }

    /// The signal that has interrupted the run, the first one if there were several. Never without
    /// [`interruptible`](Self::interruptible).
    pub fn interrupted(&self) -> Option<Signal> {
        self.shared.core().interruption.signal()
    }

    /// How many run at a time.
    pub fn width(&self) -> usize {
        self.shared.core().width
    }

    /// Takes no new tasks. Those that were taken are run; services end when nothing else is left.
    pub fn close(&self) {
        self.shared.change(|core, _| core.closed = true);
    }

    /// Takes no new tasks, cancels those that wait, and stops those that run, each with its tree. Returns at once; every task gets its
    /// last word, and [`join`](Self::join) waits for that.
    #[doc(alias = "kill_workers")]
    #[doc(alias = "terminate_workers")]
    pub fn terminate(&self) {
        self.shared.change(|core, now| core.terminate(now));
    }

    /// Waits until every task is over, after [`close`](Self::close) or [`terminate`](Self::terminate).
    ///
    /// # Errors
    /// If the pool was not closed, because that would be for ever; if it is a callback of this pool that asks; if a callback, a
    /// condition, or somebody who looks on has panicked.
    pub fn join(&self) -> Result<(), Error> {
        self.join_deadline(Deadline::NEVER)
    }

    /// The same, for at most this long.
    ///
    /// # Errors
    /// As [`join`](Self::join), and if tasks are left then; they go on.
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.join_deadline(Deadline::after(timeout))
    }

    /// The same, at most until a moment.
    ///
    /// # Errors
    /// As [`join_timeout`](Self::join_timeout).
    pub fn join_deadline(&self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        self.may_be_joined()?;
        let is_over = self.shared.join(deadline.into());
        self.joined(is_over)
    }

    /// As [`join`](Self::join), for a task; `is_late` says whether to give it up, and wakes the task then.
    #[cfg(feature = "future")]
    pub(crate) fn poll_join(
        &self,
        task: &mut Context<'_>,
        is_late: impl FnOnce(&mut Context<'_>) -> bool,
    ) -> Poll<Result<(), Error>> {
        self.may_be_joined()?;
        match self.shared.poll_join(task) {
            Poll::Ready(()) => Poll::Ready(self.joined(true)),
            Poll::Pending if is_late(task) => Poll::Ready(self.joined(false)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn may_be_joined(&self) -> Result<(), Error> {
        if self.shared.is_telling_here() {
            return Err(Error::invalid("a callback of a pool cannot wait for the pool"));
        }
        if !self.shared.core().closed {
            return Err(Error::invalid("a pool is joined after it was closed or terminated"));
        }
        Ok(())
    }

    /// What is to be said at the end of all, or of one's patience.
    fn joined(&self, is_over: bool) -> Result<(), Error> {
        if !is_over {
            let left = self.shared.core().unresolved();
            let text = format!("{left} tasks of the pool are not over");
            return Err(Error::new(crate::error::ErrorKind::Timeout).detail(text));
        }
        match self.shared.take_panic() {
            Some(panic) => Err(Error::invalid(format!("a callback has panicked: {panic}"))),
            None => Ok(()),
        }
    }

    /// Gives the pool to a function and waits for all its tasks before it returns. If the function panics, everything is stopped first.
    ///
    /// ```
    /// use procession::{Command, Pool};
    ///
    /// let count = std::sync::atomic::AtomicUsize::new(0);
    /// Pool::new(2).scope(|pool| {
    ///     for _ in 0..4 {
    ///         pool.apply_async(Command::new("true"))?;
    ///     }
    ///     Ok::<(), procession::Error>(())
    /// })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the function panics.
    pub fn scope<T>(self, work: impl FnOnce(&Pool) -> T) -> T {
        let result = catch_unwind(AssertUnwindSafe(|| work(&self)));
        if result.is_err() {
            self.terminate();
        } else {
            self.close();
        }
        // What a callback panicked with is not the caller's failure.
        let _ = self.join();
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Stops what runs, and waits until it is stopped; in a callback of its own it does not wait.
impl Drop for Pool {
    fn drop(&mut self) {
        self.terminate();
        self.shared.join(Deadline::NEVER);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.shared.core();
        out.debug_struct("Pool")
            .field("width", &core.width)
            .field("running", &core.running())
            .field("waiting", &core.waiting())
            .finish()
    }
}
