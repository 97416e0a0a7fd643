//! Functions in processes of their own, awaited: by the verbs of their children.

use crate::deadline::Deadline;
use crate::error::Error;
use crate::future::Awaited;
use crate::handle::StopReport;
use crate::ipc::{Heard, Process};
use crate::output::Output;
use crate::status::ExitStatus;
use crate::stop::Stop;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

impl<R> Process<R> {
    /// The verbs of this process as futures, on any runtime: see [`future`](crate::future).
    ///
    /// A future that is dropped leaves the process as it is; it can be joined again.
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut Process<R>> {
        Awaited(self)
    }
}

/// Joining.
impl<R: Serialize + DeserializeOwned> Awaited<&mut Process<R>> {
    /// As [`Process::join`].
    ///
    /// ```
    /// use procession::{future, ipc::Process};
    ///
    /// let mut process = Process::start(|number: u32| number * number, 12)?;
    /// assert_eq!(future::block_on(async { process.future().join().await })??, 144);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn join(self) -> Result<R, Error> {
        join_until(self.0, Deadline::NEVER).await
    }

    /// As [`Process::join_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn join_timeout(self, timeout: Duration) -> Result<R, Error> {
        let joined = join_until(self.0, Deadline::after(timeout)).await;
        joined.map_err(|error| self.0.say_time(error, timeout))
    }
}

/// Waiting, and stopping.
impl<R> Awaited<&mut Process<R>> {
    /// As [`Process::wait`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait(self) -> Result<ExitStatus, Error> {
        self.0.child().future().wait().await
    }

    /// As [`Process::wait_timeout`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_timeout(self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        self.0.child().future().wait_timeout(timeout).await
    }

    /// As [`Process::stop`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn stop(self, plan: &Stop) -> Result<StopReport, Error> {
        self.0.note_asked(true);
        self.0.child().future().stop(plan).await
    }
}

async fn join_until<R: Serialize + DeserializeOwned>(process: &mut Process<R>, deadline: Deadline) -> Result<R, Error> {
    let output = match process.take_end() {
        Some(output) => output,
        None => wait_for_end(process, deadline).await?,
    };
    process.result_of(output)
}

async fn wait_for_end<R>(process: &mut Process<R>, deadline: Deadline) -> Result<Output, Error> {
    loop {
        let until = process.listen_until(deadline)?;
        let heard = process.child().future().communicate_deadline((), until).await;
        match process.judge(heard, deadline)? {
            Heard::End(output) => return Ok(*output),
            Heard::Nothing => {}
            Heard::NeverComes => {
                // Survivors would have said more than we know.
                let _ = process.child().future().stop(&Stop::kill()).await?;
                return Err(process.never_came());
            }
        }
    }
}
