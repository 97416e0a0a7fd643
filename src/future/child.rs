//! Processes that are there, waited for and talked to without blocking.

use super::Awaited;
use super::awaited::{advance, stop};
use super::readiness::Readiness;
use crate::child::Child;
use crate::command::Input;
use crate::communicate::{Driver, LOOK, Party, Purpose, Watch};
use crate::converse::Conversation;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle::{ProcessHandle, StopReport, Stops, Target};
use crate::live::{Begun, Chunks, Line, Lines, ShowChunks, ShowLines, ShowText};
use crate::output::{Output, Stream};
use crate::pipeline::PipelineChild;
use crate::status::ExitStatus;
use crate::stop::Stop;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::{Context, Poll, ready};
use std::time::Duration;

impl Child {
    /// The verbs of this child as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped leaves the child as it is, with everything that was read and everything that is still to be written: the
    /// next verb, blocking or not, goes on from there.
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut Child> {
        Awaited(self)
    }
}

impl PipelineChild {
    /// The verbs of these children as futures: see [`Child::future`].
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut PipelineChild> {
        Awaited(self)
    }
}

impl ProcessHandle {
    /// The verbs of this process as futures: see [`Child::future`].
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&ProcessHandle> {
        Awaited(self)
    }
}

/// Waiting for a process.
impl Awaited<&ProcessHandle> {
    /// As [`ProcessHandle::wait`].
    ///
    /// ```
    /// use procession::{Command, future};
    ///
    /// let child = Command::shell("exit 3").spawn()?;
    /// let status = future::block_on(async { child.handle().future().wait().await })??;
    /// assert_eq!(status.code(), Some(3));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait(self) -> Result<ExitStatus, Error> {
        Ok(self.wait_deadline(Deadline::NEVER).await?.unwrap_or(ExitStatus::UNKNOWN))
    }

    /// As [`ProcessHandle::wait_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_timeout(self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        self.wait_deadline(Deadline::after(timeout)).await
    }

    /// As [`ProcessHandle::wait_deadline`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_deadline(self, deadline: impl Into<Deadline>) -> Result<Option<ExitStatus>, Error> {
        // It is looked at before every wait.
        let (deadline, mut readiness) = (deadline.into(), Readiness::for_new()?);
        poll_fn(|task| wait(task, self.0, deadline, &mut readiness)).await
    }

    /// As [`ProcessHandle::stop`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn stop(self, plan: &Stop) -> Result<StopReport, Error> {
        let (mut readiness, mut stops) = (Readiness::here()?, Stops::new(std::iter::once(plan)));
        let target = || [Target { handle: self.0, plan, pipes: Vec::new(), close_stdin: None }];
        poll_fn(|task| advance(task, &mut stops, &mut target(), &mut readiness)).await?;
        only(stops.reports(&target()), self.0)
    }
}

/// One report for one target.
fn only(reports: Result<Vec<StopReport>, Error>, handle: &ProcessHandle) -> Result<StopReport, Error> {
    let reports = reports.map_err(|error| error.of_command(|| handle.line()))?;
    reports.into_iter().next().ok_or_else(|| Error::invalid("nothing to stop"))
}

fn wait(
    task: &mut Context<'_>,
    handle: &ProcessHandle,
    deadline: Deadline,
    readiness: &mut Readiness,
) -> Poll<Result<Option<ExitStatus>, Error>> {
    let mut is_announced = false;
    loop {
        if let Some(status) = handle.try_wait()? {
            // Its descriptor is waited for no more, even if others keep it.
            readiness.let_go();
            return Poll::Ready(Ok(Some(status)));
        }
        if deadline.has_passed() {
            return Poll::Ready(Ok(None));
        }
        // What is announced and cannot be reaped yet, or cannot be announced, is looked at now and then.
        let notice = handle.notice().filter(|_| !is_announced || !handle.has_exited());
        let until = if notice.is_some() { deadline } else { deadline.earlier(Deadline::after(LOOK)) };
        ready!(readiness.readable(task, notice, until))?;
        is_announced = true;
    }
}

/// The verbs of a child. Errors are those of the blocking verbs, and that there is no runtime here.
impl<'a> Awaited<&'a mut Child> {
    /// As [`Child::wait`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait(self) -> Result<ExitStatus, Error> {
        self.0.stdin = None;
        self.0.handle().future().wait().await
    }

    /// As [`Child::wait_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_timeout(self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        self.wait_deadline(Deadline::after(timeout)).await
    }

    /// As [`Child::wait_deadline`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_deadline(self, deadline: impl Into<Deadline>) -> Result<Option<ExitStatus>, Error> {
        self.0.stdin = None;
        self.0.handle().future().wait_deadline(deadline).await
    }

    /// As [`Child::communicate`]. A future that is dropped loses nothing: the next one goes on where it stopped.
    ///
    /// ```
    /// use procession::{Command, future};
    ///
    /// let mut child = Command::new("cat").pipe_all().spawn()?;
    /// let output = future::block_on(async { child.future().communicate("there and back").await })??;
    /// assert_eq!(output.stdout(), b"there and back");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn communicate(self, input: impl Into<Input>) -> Result<Output, Error> {
        self.talk(input.into(), Purpose::Collect, Deadline::NEVER, &mut ()).await
    }

    /// As [`Child::communicate_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn communicate_timeout(self, input: impl Into<Input>, timeout: Duration) -> Result<Output, Error> {
        let talked = self.talk(input.into(), Purpose::Collect, Deadline::after(timeout), &mut ()).await;
        talked.map_err(|error| say_not_finished(error, timeout))
    }

    /// As [`Child::communicate_deadline`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn communicate_deadline(
        self,
        input: impl Into<Input>,
        deadline: impl Into<Deadline>,
    ) -> Result<Output, Error> {
        self.talk(input.into(), Purpose::Collect, deadline.into(), &mut ()).await
    }

    /// As [`Child::for_each_line`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_line(self, mut show: impl FnMut(Line<'_>)) -> Result<Output, Error> {
        let mut watch = ShowLines::new(self.0.settings.text, self.0.settings.line_max, |line| {
            show(line);
            ControlFlow::Continue(())
        });
        let result = self.show(&mut watch).await;
        watch.result(result)
    }

    /// As [`Child::for_each_chunk`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_chunk(self, show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.show(&mut ShowChunks(show)).await
    }

    /// As [`Child::for_each_text`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_text(self, show: impl FnMut(Stream, &str)) -> Result<Output, Error> {
        let mut watch = ShowText::new(self.0.settings.text, show);
        let result = self.show(&mut watch).await;
        watch.result(result)
    }

    /// As [`Child::lines`].
    pub fn lines(self) -> Awaited<Lines<'a>> {
        let (text, line_max) = (self.0.settings.text, self.0.settings.line_max);
        Awaited(Lines::new(self.0, text, line_max, Box::new(Readiness::later())))
    }

    /// As [`Child::chunks`].
    pub fn chunks(self) -> Awaited<Chunks<'a>> {
        Awaited(Chunks::new(self.0, Box::new(Readiness::later())))
    }

    /// As [`Child::converse`].
    #[doc(alias = "expect")]
    pub fn converse(self, timeout: Duration) -> Awaited<Conversation<'a>> {
        let text = self.0.settings.text;
        Awaited(Conversation::new(self.0, (0, Stream::Stdout), timeout, text, Box::new(Readiness::later())))
    }

    /// As [`Child::stop`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn stop(self, plan: &Stop) -> Result<StopReport, Error> {
        let (mut readiness, pipes) = (Readiness::here()?, [self.0.pipes()]);
        let reports = stop(std::slice::from_mut(self.0), Some(plan), &pipes, &mut readiness).await;
        only(reports, self.0.handle())
    }

    async fn show<W: Watch>(self, watch: &mut W) -> Result<Output, Error> {
        let flow = self.0.show_what_was_read(watch);
        self.talk(Input::empty(), Purpose::Show, Deadline::NEVER, &mut Begun { watch, flow }).await
    }

    async fn talk<W: Watch>(
        self,
        input: Input,
        purpose: Purpose,
        deadline: Deadline,
        watch: &mut W,
    ) -> Result<Output, Error> {
        let (child, mut readiness) = (self.0, Readiness::here()?);
        let machine = child.begin(input, purpose)?;
        child.machine = Some(Box::new(machine));
        poll_fn(|task| child.poll_talk(task, deadline, false, watch, &mut readiness)).await
    }
}

fn say_not_finished(error: Error, timeout: Duration) -> Error {
    if error.is_timeout() { error.detail(format!("not finished after {timeout:?}")) } else { error }
}

/// The verbs of a pipeline that was started. Errors are those of the blocking verbs, and that there is no runtime here.
impl<'a> Awaited<&'a mut PipelineChild> {
    /// As [`PipelineChild::wait`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait(self) -> Result<ExitStatus, Error> {
        self.0.stdin = None;
        if self.0.passes_through_us() {
            return Ok(self.talk(Input::empty(), Purpose::Show, Deadline::NEVER).await?.status());
        }
        for handle in self.0.handles() {
            handle.future().wait().await?;
        }
        self.0.wait()
    }

    /// As [`PipelineChild::communicate`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn communicate(self, input: impl Into<Input>) -> Result<Output, Error> {
        self.talk(input.into(), Purpose::Collect, Deadline::NEVER).await
    }

    /// As [`PipelineChild::communicate_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn communicate_timeout(self, input: impl Into<Input>, timeout: Duration) -> Result<Output, Error> {
        let talked = self.talk(input.into(), Purpose::Collect, Deadline::after(timeout)).await;
        talked.map_err(|error| say_not_finished(error, timeout))
    }

    /// As [`PipelineChild::lines`].
    pub fn lines(self) -> Awaited<Lines<'a>> {
        let (text, line_max) = self.0.shown_as();
        Awaited(Lines::new(self.0, text, line_max, Box::new(Readiness::later())))
    }

    /// As [`PipelineChild::chunks`].
    pub fn chunks(self) -> Awaited<Chunks<'a>> {
        Awaited(Chunks::new(self.0, Box::new(Readiness::later())))
    }

    /// As [`PipelineChild::converse`].
    #[doc(alias = "expect")]
    pub fn converse(self, timeout: Duration) -> Awaited<Conversation<'a>> {
        let source = self.0.sources().first().copied().unwrap_or((0, Stream::Stdout));
        let text = self.0.text();
        Awaited(Conversation::new(self.0, source, timeout, text, Box::new(Readiness::later())))
    }

    /// As [`PipelineChild::stop`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn stop(self, plan: &Stop) -> Result<Vec<StopReport>, Error> {
        let mut readiness = Readiness::here()?;
        // A future that is dropped gives the ends back.
        let mut lent = self.0.lend();
        let pipes: Vec<_> = lent.stages().iter().map(Child::pipes).collect();
        let reports = stop(lent.stages(), Some(plan), &pipes, &mut readiness).await;
        drop(lent);
        reports.map_err(|error| error.of_command(|| self.0.line.clone()))
    }

    async fn talk(self, input: Input, purpose: Purpose, deadline: Deadline) -> Result<Output, Error> {
        let mut readiness = Readiness::here()?;
        self.0.start_talk(input, purpose)?;
        poll_fn(|task| self.0.poll_talk(task, deadline, false, &mut (), &mut readiness)).await
    }
}
