//! What is awaited: the noun whose verbs are futures, and a run that belongs to its future.

use super::readiness::Readiness;
use crate::child::{Child, KillOnDrop};
use crate::communicate::{Driver, Watch};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle::{Sight, StopReport, Stops, Target};
use crate::output::Output;
use crate::pipeline::PipelineChild;
use crate::stop::Stop;
use crate::sys::procfs::Channel;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

/// Something whose blocking verbs are awaited here: each has the name, the meaning, the errors and the record of the blocking one.
///
/// Got by `future()`, from a [`Command`](crate::Command::future), a [`Pipeline`](crate::Pipeline::future), a
/// [`Child`](crate::Child::future), a [`ChildSet`](crate::ChildSet::future), and all else that waits.
///
/// ```
/// use procession::{Command, future};
///
/// let output = future::block_on(async { Command::new("echo").arg("hello").future().output().await })??;
/// assert_eq!(output.stdout(), b"hello\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing happens until one of its verbs is awaited"]
pub struct Awaited<T>(pub(super) T);

/// What a verb starts and must not outlive it.
pub(super) trait Scoped: Send + Sized + 'static {
    fn poll_talk(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        watch: &mut dyn Watch,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Output, Error>>;

    fn into_children(self) -> Vec<Child>;
}

impl Scoped for Child {
    fn poll_talk(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        watch: &mut dyn Watch,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Output, Error>> {
        Child::poll_talk(self, task, deadline, true, watch, driver)
    }

    fn into_children(self) -> Vec<Child> {
        vec![self]
    }
}

impl Scoped for PipelineChild {
    fn poll_talk(
        &mut self,
        task: &mut Context<'_>,
        deadline: Deadline,
        watch: &mut dyn Watch,
        driver: &mut dyn Driver,
    ) -> Poll<Result<Output, Error>> {
        PipelineChild::poll_talk(self, task, deadline, true, watch, driver)
    }

    fn into_children(self) -> Vec<Child> {
        self.into_stages()
    }
}

/// A run that does not outlive its future: if that is dropped, the processes are stopped by their plans, by somebody else if the runtime
/// knows one, and otherwise at once.
pub(super) struct Running<T: Scoped> {
    run: Option<T>,
    readiness: Option<Readiness>,
}

impl<T: Scoped> Running<T> {
    /// The runtime is found before anything is started.
    pub(super) fn start(start: impl FnOnce() -> Result<T, Error>) -> Result<Running<T>, Error> {
        let readiness = Readiness::for_new()?;
        Ok(Running { run: Some(start()?), readiness: Some(readiness) })
    }

    pub(super) async fn finish<W: Watch>(&mut self, deadline: Deadline, watch: &mut W) -> Result<Output, Error> {
        poll_fn(|task| match (&mut self.run, &mut self.readiness) {
            (Some(run), Some(readiness)) => run.poll_talk(task, deadline, watch, readiness),
            _ => Poll::Ready(Err(Error::invalid("a run that is over"))),
        })
        .await
    }

    /// The parts, for talks by turns.
    pub(super) fn parts(&mut self) -> Option<(&mut T, &mut Readiness)> {
        self.run.as_mut().zip(self.readiness.as_mut())
    }
}

impl<T: Scoped> Drop for Running<T> {
    fn drop(&mut self) {
        let Some((run, mut readiness)) = self.run.take().zip(self.readiness.take()) else { return };
        let mut children = run.into_children();
        // Before any descriptor is closed.
        if children.iter().all(|child| child.status().is_some()) {
            readiness.closing_all();
        } else {
            readiness.let_go();
        }
        children.retain(|child| child.kill_on_drop != KillOnDrop::No && child.status().is_none());
        if children.is_empty() {
            return;
        }
        // Whoever is given back is stopped by its drop, in bounded time.
        if let Some(runtime) = readiness.runtime().cloned() {
            drop(runtime.adopt(Box::pin(stop_dropped(children, readiness))));
        }
    }
}

/// What drop does, without blocking.
async fn stop_dropped(mut children: Vec<Child>, mut readiness: Readiness) {
    let pipes = children.iter().map(Child::pipes).collect::<Vec<_>>();
    for child in &mut children {
        // Open pipes would keep a child alive that waits for us to read or to say the end.
        (child.stdout, child.stderr) = (None, None);
    }
    // Nobody is left to be told; what survives is reaped later.
    let _ = stop(&mut children, None, &pipes, &mut readiness).await;
    for child in &mut children {
        child.kill_on_drop = KillOnDrop::No;
    }
}

/// Stops all of them at the same time, each by its own plan or by this one.
pub(super) async fn stop(
    children: &mut [Child],
    plan: Option<&Stop>,
    pipes: &[Vec<Channel>],
    readiness: &mut Readiness,
) -> Result<Vec<StopReport>, Error> {
    let mut stops = Stops::new(children.iter().map(|child| plan.unwrap_or(&child.settings.stop)));
    poll_fn(|task| with_targets(children, plan, pipes, |targets| advance(task, &mut stops, targets, readiness)))
        .await?;
    with_targets(children, plan, pipes, |targets| stops.reports(targets))
}

/// Goes on with the stops as far as they go now.
pub(super) fn advance(
    task: &mut Context<'_>,
    stops: &mut Stops,
    targets: &mut [Target<'_>],
    readiness: &mut Readiness,
) -> Poll<Result<(), Error>> {
    loop {
        // A stop lets go of those who have ended.
        readiness.let_go();
        let until = Sight::with_shared(|sight| stops.advance(targets, sight));
        let Some(until) = until else { return Poll::Ready(Ok(())) };
        ready!(readiness.wait(task, &mut stops.entries(targets), until, &mut true))?;
    }
}

fn with_targets<T>(
    children: &mut [Child],
    plan: Option<&Stop>,
    pipes: &[Vec<Channel>],
    act: impl FnOnce(&mut [Target<'_>]) -> T,
) -> T {
    let (mut handles, mut closers) = (Vec::new(), Vec::new());
    for child in children {
        let Child { stdin, handle, settings, .. } = child;
        handles.push((&*handle, plan.unwrap_or(&settings.stop)));
        closers.push(move || *stdin = None);
    }
    let targets = handles.into_iter().zip(pipes).zip(&mut closers);
    let mut targets: Vec<Target<'_>> = targets
        .map(|(((handle, plan), pipes), close)| Target { handle, plan, pipes: pipes.clone(), close_stdin: Some(close) })
        .collect();
    act(&mut targets)
}
