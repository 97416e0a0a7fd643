//! Records that are put together by hand: by engines that run commands elsewhere, and by tests. What is not said stays unknown.

use super::{Captured, Cause, Completeness, Output, Stream, Usage};
use crate::status::ExitStatus;
use std::time::{Duration, SystemTime};

/// Records made by hand, for engines and for tests. Whoever runs commands gets them from the verbs.
impl Output {
    /// The record of a run that has ended with this status. Code 0 counts as success.
    ///
    /// An engine begins with [`Job::record`](crate::pool::Job::record), which knows what the command accepts.
    ///
    /// ```
    /// use procession::{ExitStatus, Output};
    ///
    /// let output = Output::of_run("cc -c main.c", ExitStatus::from_code(1)).with_stderr("main.c:3: no");
    /// assert_eq!(output.check().unwrap_err().to_string(), "cc -c main.c: exit status: 1; stderr ends:\nmain.c:3: no");
    /// ```
    pub fn of_run(command: impl Into<String>, status: ExitStatus) -> Output {
        Output { command: command.into(), ..Output::default() }.with_status(status)
    }

    /// How the process ended. A record that knew of no process now says that it ended by itself; another
    /// [cause](Self::with_cause) stays.
    pub fn with_status(mut self, status: ExitStatus) -> Output {
        self.status = Some(status);
        if self.cause == Cause::NotStarted {
            self.cause = Cause::Ended;
        }
        self
    }

    /// Why the run is over.
    pub fn with_cause(mut self, cause: Cause) -> Output {
        self.cause = cause;
        self
    }

    /// All that it wrote to standard output.
    pub fn with_stdout(self, bytes: impl Into<Vec<u8>>) -> Output {
        self.with_stream(Stream::Stdout, bytes.into())
    }

    /// All that it wrote to standard error.
    pub fn with_stderr(self, bytes: impl Into<Vec<u8>>) -> Output {
        self.with_stream(Stream::Stderr, bytes.into())
    }

    fn with_stream(mut self, stream: Stream, bytes: Vec<u8>) -> Output {
        let total = bytes.len() as u64;
        let captured = Captured { bytes, total, completeness: Completeness::Complete, ..Captured::default() };
        match stream {
            Stream::Stdout => self.stdout = captured,
            Stream::Stderr => self.stderr = captured,
        }
        self
    }

    /// When it was started, by the wall clock.
    pub fn with_started(mut self, started: SystemTime) -> Output {
        self.started = Some(started);
        self
    }

    /// How long it took.
    pub fn with_elapsed(mut self, elapsed: Duration) -> Output {
        self.elapsed = elapsed;
        self
    }

    /// What it used.
    pub fn with_usage(mut self, usage: Usage) -> Output {
        self.usage = Some(usage);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_it_was_given_and_no_more() {
        let output = Output::of_run("a b", ExitStatus::from_code(0));
        assert!(output.success() && output.is_complete());
        assert_eq!((output.command(), output.cause(), output.pid(), output.usage()), ("a b", Cause::Ended, None, None));
        assert_eq!(*output.captured_stdout().completeness(), Completeness::NotCaptured);

        let usage = Usage { user: Duration::from_secs(1), ..Usage::default() };
        let output = output.with_stdout("x\n").with_elapsed(Duration::from_secs(2)).with_usage(usage);
        let output = output.with_started(SystemTime::UNIX_EPOCH);
        assert_eq!((output.stdout(), output.captured_stdout().total(), output.stderr()), (&b"x\n"[..], 2, &b""[..]));
        assert_eq!(output.ended(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2)));
        assert_eq!(output.usage(), Some(usage));
    }

    #[test]
    fn a_status_does_not_hide_a_cause() {
        for (before, after) in [(Cause::NotStarted, Cause::Ended), (Cause::Timeout, Cause::Timeout)] {
            let output = Output::default().with_cause(before).with_status(ExitStatus::from_raw(9));
            assert_eq!(output.cause(), after);
        }
    }
}
