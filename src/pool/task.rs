//! What a pool runs: a command, and what the pool must know to choose its moment. Data and setters only.

use super::done::TaskId;
use super::ready::Ready;
use super::retry::Retry;
use crate::command::Command;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A command for a [`Pool`](crate::pool::Pool), with what it waits for, what it needs, and what to do when it fails.
///
/// A [`Command`] by itself is a task without wishes, and converts into one.
///
/// ```
/// use procession::Command;
/// use procession::pool::{Retry, Task};
/// use std::time::Duration;
///
/// let link = Task::new(Command::new("ld").args(["-o", "app", "main.o"]))
///     .name("link")
///     .after("compile")
///     .priority(3)
///     .needs("memory", 2 << 30)
///     .retry(Retry::times(2).backoff(Duration::from_millis(100)));
/// assert_eq!(link.to_string(), "link");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is given to a pool"]
pub struct Task {
    pub(crate) command: Command,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) after: Vec<After>,
    pub(crate) priority: i32,
    pub(crate) needs: Vec<(Arc<str>, u64)>,
    pub(crate) retry: Option<Retry>,
    pub(crate) estimate: Option<Duration>,
    pub(crate) idempotent: bool,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) outputs: Vec<PathBuf>,
    pub(crate) ready: Option<Ready>,
    pub(crate) is_service: bool,
}

/// A task that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    pub(crate) what: Earlier,
    /// Only if it succeeds.
    pub(crate) succeeds: bool,
}

impl After {
    /// Whether the earlier task must succeed, as with [`Task::after`].
    pub fn must_succeed(&self) -> bool {
        self.succeeds
    }
}

/// How the earlier task is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Id(TaskId),
    Name(Arc<str>),
}

impl From<TaskId> for After {
    fn from(id: TaskId) -> After {
        After { what: Earlier::Id(id), succeeds: true }
    }
}

impl From<&str> for After {
    fn from(name: &str) -> After {
        After { what: Earlier::Name(name.into()), succeeds: true }
    }
}

impl From<String> for After {
    fn from(name: String) -> After {
        After { what: Earlier::Name(name.into()), succeeds: true }
    }
}

/// The name or the number.
impl std::fmt::Display for After {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            Earlier::Id(id) => id.fmt(out),
            Earlier::Name(name) => out.write_str(name),
        }
    }
}

impl Task {
    /// A task without wishes.
    pub fn new(command: Command) -> Task {
        Task {
            command,
            name: None,
            group: None,
            after: Vec::new(),
            priority: 0,
            needs: Vec::new(),
            retry: None,
            estimate: None,
            idempotent: false,
            inputs: Vec::new(),
            outputs: Vec::new(),
            ready: None,
            is_service: false,
        }
    }

    /// What people and other tasks call it. No two tasks that a pool [knows](Self::after) have the same name.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Task {
        self.name = Some(name.into());
        self
    }

    /// The group it belongs to: groups take turns under [`Pool::fair`](crate::pool::Pool::fair).
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Task {
        self.group = Some(group.into());
        self
    }

    /// Runs only when this task has succeeded. If it fails this one is not started, and says whose failure it was.
    ///
    /// Names are looked up among the tasks submitted together with this one, and then among all that the pool knows. It knows a task, by
    /// its name and its number, until it is over, and as long as somebody has its [`Pending`](crate::pool::Pending) or a task waits for
    /// it; of all others it knows the last 10,000 that have ended.
    #[doc(alias = "depends_on")]
    pub fn after(mut self, earlier: impl Into<After>) -> Task {
        self.after.push(earlier.into());
        self
    }

    /// Runs when this task has ended, however it ended: for what cleans up. With a [service](Self::service) this means its end, and not that
    /// it is ready; whoever waits for that is no reason for the service to go on.
    pub fn after_end(mut self, earlier: impl Into<After>) -> Task {
        self.after.push(After { succeeds: false, ..earlier.into() });
        self
    }

    /// Runs before those with a smaller number, under a policy that looks at priorities. 0 unless it is set.
    pub fn priority(mut self, priority: i32) -> Task {
        self.priority = priority;
        self
    }

    /// Takes so much of a [resource](crate::pool::Pool::resource) of the pool while it runs.
    pub fn needs(mut self, resource: impl Into<Arc<str>>, amount: u64) -> Task {
        self.needs.push((resource.into(), amount));
        self
    }

    /// How often, when and after which failures it is run again, instead of the pool's own rule.
    pub fn retry(mut self, retry: Retry) -> Task {
        self.retry = Some(retry);
        self
    }

    /// How long it is expected to run: for policies that let the longest go first.
    pub fn estimate(mut self, duration: Duration) -> Task {
        self.estimate = Some(duration);
        self
    }

    /// It may be run again without harm when the place where it ran has failed: see
    /// [`Outcome::EngineFailed`](crate::pool::Outcome::EngineFailed).
    pub fn idempotent(mut self) -> Task {
        self.idempotent = true;
        self
    }

    /// A file it reads; a relative path is seen from the directory of the command. Part of the key by which a run log knows the task
    /// again; sent along by engines without a shared file system.
    pub fn reads(mut self, path: impl Into<PathBuf>) -> Task {
        self.inputs.push(path.into());
        self
    }

    /// A file it writes; a relative path is seen from the directory of the command. As long as the file is missing a run log does not
    /// count the task as done; fetched by engines without a shared file system.
    pub fn writes(mut self, path: impl Into<PathBuf>) -> Task {
        self.outputs.push(path.into());
        self
    }

    /// A service: others that are [`after`](Self::after) it start when it is ready and not when it has ended. It goes on until the
    /// pool has nothing else to do but what waits for its [end](Self::after_end), and is stopped then, the last one first.
    pub fn service(mut self, ready: Ready) -> Task {
        self.ready = Some(ready);
        self.is_service = true;
        self
    }

    /// The command.
    pub fn command(&self) -> &Command {
        &self.command
    }
}

/// What was set: for those who look on, and for logs.
///
/// ```
/// use procession::Command;
/// use procession::pool::Task;
/// use std::time::Duration;
///
/// let task = Task::from(Command::new("cc").args(["-c", "a.c"]).timeout(Duration::from_secs(60))).name("a").after("headers");
/// assert_eq!((task.get_name(), task.command().to_string()), (Some("a"), "cc -c a.c".to_owned()));
/// assert_eq!(task.command().get_timeout(), Some(Duration::from_secs(60)));
/// assert_eq!(task.get_after().map(ToString::to_string).collect::<Vec<_>>(), ["headers"]);
/// ```
impl Task {
    /// Its [name](Self::name), if it has one. With `to_string` a task without one is called by its command.
    pub fn get_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its [group](Self::group).
    pub fn get_group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Whom it waits for, in the order in which that was said.
    pub fn get_after(&self) -> impl Iterator<Item = &After> {
        self.after.iter()
    }

    /// Its [priority](Self::priority).
    pub fn get_priority(&self) -> i32 {
        self.priority
    }

    /// How much it [needs](Self::needs) of each resource.
    pub fn get_needs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.needs.iter().map(|(resource, amount)| (&**resource, *amount))
    }

    /// When it is [run again](Self::retry), if that is not left to the pool.
    pub fn get_retry(&self) -> Option<&Retry> {
        self.retry.as_ref()
    }

    /// How long it is [expected](Self::estimate) to run.
    pub fn get_estimate(&self) -> Option<Duration> {
        self.estimate
    }

    /// The files it [reads](Self::reads).
    pub fn get_reads(&self) -> impl Iterator<Item = &Path> {
        self.inputs.iter().map(PathBuf::as_path)
    }

    /// The files it [writes](Self::writes).
    pub fn get_writes(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().map(PathBuf::as_path)
    }

    /// Whether it is [idempotent](Self::idempotent).
    pub fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// Whether it is a [service](Self::service).
    pub fn is_service(&self) -> bool {
        self.is_service
    }
}

impl From<Command> for Task {
    fn from(command: Command) -> Task {
        Task::new(command)
    }
}

impl From<&Command> for Task {
    fn from(command: &Command) -> Task {
        Task::new(command.clone())
    }
}

/// Its name, or the command.
impl std::fmt::Display for Task {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => out.write_str(name),
            None => self.command.fmt(out),
        }
    }
}
