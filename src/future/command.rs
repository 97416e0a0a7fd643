//! Commands and pipelines, run to their ends without blocking.

use super::Awaited;
use super::awaited::Running;
use super::readiness::Readiness;
use super::talk::conversation;
use crate::child::Child;
use crate::command::{Command, Input, Stdio};
use crate::communicate::{Purpose, Watch};
use crate::converse::Conversation;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::live::{Line, ShowChunks, ShowLines, ShowText};
use crate::output::{Output, Stream};
use crate::pipeline::{Pipeline, PipelineChild, Streams};
use crate::status::ExitStatus;
use std::ops::ControlFlow;
use std::time::Duration;

impl Command {
    /// The verbs of this command as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped before it is done stops its process, and what belongs to it, by the [`stop`](Self::stop) plan.
    #[doc(alias = "async")]
    #[doc(alias = "create_subprocess_exec")]
    pub fn future(&self) -> Awaited<&Command> {
        Awaited(self)
    }
}

impl Pipeline {
    /// The verbs of this pipeline as futures: see [`Command::future`].
    #[doc(alias = "async")]
    pub fn future(&self) -> Awaited<&Pipeline> {
        Awaited(self)
    }
}

/// The verbs of a command. Errors are those of the blocking verbs, and that there is no runtime here.
impl Awaited<&Command> {
    /// As [`Command::spawn`], which waits for nothing but the start of the program.
    ///
    /// # Errors
    /// As there.
    pub async fn spawn(self) -> Result<Child, Error> {
        self.0.spawn()
    }

    /// As [`Command::call`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn call(self) -> Result<ExitStatus, Error> {
        Ok(self.run_shared().await?.status())
    }

    /// As [`Command::status`].
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn status(self) -> Result<ExitStatus, Error> {
        self.call().await
    }

    /// As [`Command::check_call`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn check_call(self) -> Result<(), Error> {
        self.run_shared().await?.check().map(drop)
    }

    /// As [`Command::output`].
    ///
    /// ```
    /// use procession::{Command, future};
    /// use std::time::Duration;
    ///
    /// let slow = Command::shell("echo early; sleep 60").timeout(Duration::from_millis(100));
    /// let error = future::block_on(async { slow.future().output().await })?.unwrap_err();
    /// assert!(error.is_timeout());
    /// assert_eq!(error.output().stdout(), b"early\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn output(self) -> Result<Output, Error> {
        self.run_with(|| self.0.collected_streams(Stdio::null()), Purpose::Collect, &mut ()).await
    }

    /// As [`Command::output_into`]. If the future is dropped the buffer is empty.
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn output_into(self, stdout: &mut Vec<u8>) -> Result<Output, Error> {
        let memory = std::mem::take(stdout);
        let streams = self.0.collected_streams(Stdio::null())?;
        let deadline = Deadline::from(self.0.timeout);
        let mut running = Running::start(|| {
            let mut child = self.0.start_run(&streams, Purpose::Collect)?;
            if let Some(machine) = &mut child.machine {
                machine.lend(Stream::Stdout, memory);
            }
            Ok(child)
        })?;
        let output = running.finish(deadline, &mut ()).await;
        let mut output = output.map_err(|error| self.0.say_timeout(error))?;
        *stdout = std::mem::take(&mut output.stdout.bytes);
        Ok(output)
    }

    /// As [`Command::run`].
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub async fn run(self) -> Result<Output, Error> {
        self.output().await
    }

    /// As [`Command::check_output`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn check_output(self) -> Result<Vec<u8>, Error> {
        Ok(self.output().await?.check()?.into_stdout())
    }

    /// As [`Command::check_output_text`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn check_output_text(self) -> Result<String, Error> {
        self.output().await?.check()?.into_stdout_text()
    }

    /// As [`Command::for_each_line`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_line(self, mut show: impl FnMut(Line<'_>)) -> Result<Output, Error> {
        self.try_for_each_line(|line| {
            show(line);
            ControlFlow::Continue(())
        })
        .await
    }

    /// As [`Command::try_for_each_line`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn try_for_each_line(self, show: impl FnMut(Line<'_>) -> ControlFlow<()>) -> Result<Output, Error> {
        let mut watch = ShowLines::new(self.0.settings.text, self.0.settings.line_max, show);
        let result = self.run_shown(&mut watch).await;
        watch.result(result)
    }

    /// As [`Command::for_each_chunk`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_chunk(self, show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.run_shown(&mut ShowChunks(show)).await
    }

    /// As [`Command::for_each_text`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_text(self, show: impl FnMut(Stream, &str)) -> Result<Output, Error> {
        let mut watch = ShowText::new(self.0.settings.text, show);
        let result = self.run_shown(&mut watch).await;
        watch.result(result)
    }

    /// As [`Command::converse`], with turns that are awaited.
    ///
    /// ```
    /// use procession::{Command, future};
    /// use std::time::Duration;
    ///
    /// let greeter = Command::shell("printf 'name? '; read -r name; echo \"hello $name\"");
    /// let (greeting, output) = future::block_on(async {
    ///     let talk = async |talk: &mut future::Awaited<procession::Conversation<'_>>| {
    ///         talk.read_until("name? ").await?;
    ///         talk.write_line("world").await?;
    ///         talk.read_line().await
    ///     };
    ///     greeter.future().converse(Duration::from_secs(10), talk).await
    /// })??;
    /// assert_eq!(greeting.as_deref(), Some(&b"hello world"[..]));
    /// assert!(output.success());
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn converse<T>(
        self,
        timeout: Duration,
        talk: impl AsyncFnOnce(&mut Awaited<Conversation<'_>>) -> Result<T, Error>,
    ) -> Result<(T, Output), Error> {
        let until = Deadline::from(self.0.timeout);
        let mut running = Running::start(|| self.0.start_talk())?;
        let Some((child, _)) = running.parts() else { return Err(Error::invalid("a run that is over")) };
        let text = child.settings.text;
        let source = (0, Stream::Stdout);
        let mut conversation = conversation(Readiness::here()?, |waiter| {
            Conversation::new(child, source, timeout, text, waiter).until(until)
        });
        let result = talk(&mut conversation).await?;
        drop(conversation);
        if let Some((child, _)) = running.parts() {
            let machine = child.begin(Input::empty(), Purpose::Show)?;
            child.machine = Some(Box::new(machine));
        }
        let output = running.finish(until.earlier(Deadline::after(timeout)), &mut ()).await;
        Ok((result, output.map_err(|error| self.0.say_late_end(error, until, timeout))?))
    }

    async fn run_shared(&self) -> Result<Output, Error> {
        self.run_with(|| self.0.shared_streams(), Purpose::Show, &mut ()).await
    }

    async fn run_shown<W: Watch>(&self, watch: &mut W) -> Result<Output, Error> {
        self.run_with(|| self.0.collected_streams(Stdio::null()), Purpose::Show, watch).await
    }

    async fn run_with<W: Watch>(
        &self,
        streams: impl FnOnce() -> Result<[Option<Stdio>; 3], Error>,
        purpose: Purpose,
        watch: &mut W,
    ) -> Result<Output, Error> {
        let deadline = Deadline::from(self.0.timeout);
        let mut running = Running::start(|| self.0.start_run(&streams()?, purpose))?;
        let output = running.finish(deadline, watch).await;
        output.map_err(|error| self.0.say_timeout(error))
    }
}

/// The verbs of a pipeline. Errors are those of the blocking verbs, and that there is no runtime here.
impl Awaited<&Pipeline> {
    /// As [`Pipeline::spawn`], which waits for nothing but the start of the programs.
    ///
    /// # Errors
    /// As there.
    pub async fn spawn(self) -> Result<PipelineChild, Error> {
        self.0.spawn()
    }

    /// As [`Pipeline::call`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn call(self) -> Result<ExitStatus, Error> {
        Ok(self.run_with(Streams::Shared, Purpose::Show, &mut ()).await?.status())
    }

    /// As [`Pipeline::status`].
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn status(self) -> Result<ExitStatus, Error> {
        self.call().await
    }

    /// As [`Pipeline::check_call`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn check_call(self) -> Result<(), Error> {
        self.run_with(Streams::Shared, Purpose::Show, &mut ()).await?.check().map(drop)
    }

    /// As [`Pipeline::output`].
    ///
    /// ```
    /// use procession::{Command, future};
    ///
    /// let loud = Command::new("echo").arg("hello") | Command::new("tr").args(["a-z", "A-Z"]);
    /// let output = future::block_on(async { loud.future().output().await })??;
    /// assert_eq!(output.stdout(), b"HELLO\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn output(self) -> Result<Output, Error> {
        self.run_with(Streams::Collected, Purpose::Collect, &mut ()).await
    }

    /// As [`Pipeline::run`].
    ///
    /// # Errors
    /// As [`output`](Self::output).
    pub async fn run(self) -> Result<Output, Error> {
        self.output().await
    }

    /// As [`Pipeline::check_output`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn check_output(self) -> Result<Vec<u8>, Error> {
        Ok(self.output().await?.check()?.into_stdout())
    }

    /// As [`Pipeline::check_output_text`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn check_output_text(self) -> Result<String, Error> {
        self.output().await?.check()?.into_stdout_text()
    }

    /// As [`Pipeline::for_each_line`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_line(self, mut show: impl FnMut(Line<'_>)) -> Result<Output, Error> {
        self.try_for_each_line(|line| {
            show(line);
            ControlFlow::Continue(())
        })
        .await
    }

    /// As [`Pipeline::try_for_each_line`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn try_for_each_line(self, show: impl FnMut(Line<'_>) -> ControlFlow<()>) -> Result<Output, Error> {
        let (text, line_max) = self.0.shown_as();
        let mut watch = ShowLines::new(text, line_max, show);
        let result = self.run_with(Streams::Collected, Purpose::Show, &mut watch).await;
        watch.result(result)
    }

    /// As [`Pipeline::for_each_chunk`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_chunk(self, show: impl FnMut(Stream, &[u8])) -> Result<Output, Error> {
        self.run_with(Streams::Collected, Purpose::Show, &mut ShowChunks(show)).await
    }

    /// As [`Pipeline::for_each_text`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn for_each_text(self, show: impl FnMut(Stream, &str)) -> Result<Output, Error> {
        let mut watch = ShowText::new(self.0.shown_as().0, show);
        let result = self.run_with(Streams::Collected, Purpose::Show, &mut watch).await;
        watch.result(result)
    }

    async fn run_with<W: Watch>(&self, streams: Streams, purpose: Purpose, watch: &mut W) -> Result<Output, Error> {
        let deadline = Deadline::from(self.0.timeout);
        let mut running = Running::start(|| self.0.start_run(streams, purpose))?;
        let output = running.finish(deadline, watch).await;
        output.map_err(|error| self.0.say_timeout(error))
    }
}
