//! How a process ended. Decides what a wait status means; the raw number is kept.

use crate::signal::Signal;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process;

/// How a process ended: with an exit code, by a signal, or in a way that nobody can tell any more.
///
/// The last case happens when somebody else reaped the child (the host ignores SIGCHLD, or calls `waitpid(-1)`) on a kernel
/// before Linux 6.15. It is neither a success nor a made-up number.
///
/// ```
/// use procession::{ExitStatus, Signal};
///
/// let status = ExitStatus::from_raw(9);
/// assert_eq!(status.signal(), Some(Signal::KILL));
/// assert_eq!(status.code(), None);
/// assert_eq!(status.returncode(), -9);
/// assert_eq!(status.to_string(), "signal: SIGKILL");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatus {
    raw: Option<i32>,
}

impl ExitStatus {
    /// A status that nobody can tell any more.
    pub const UNKNOWN: ExitStatus = ExitStatus { raw: None };

    /// What [`returncode`](Self::returncode) says for [`ExitStatus::UNKNOWN`]: no exit code and no signal has this number.
    pub const UNKNOWN_RETURNCODE: i32 = i32::MIN;

    /// From the number that wait(2) gives.
    pub fn from_raw(raw: i32) -> ExitStatus {
        ExitStatus { raw: Some(raw) }
    }

    /// As if the process had exited with this code (0 to 255).
    pub fn from_code(code: u8) -> ExitStatus {
        ExitStatus::from_raw(i32::from(code) << 8)
    }

    /// The number that wait(2) gave, if it is known.
    pub fn raw(self) -> Option<i32> {
        self.raw
    }

    /// Whether it exited with code 0.
    pub fn success(self) -> bool {
        self.raw == Some(0)
    }

    /// Whether anything is known.
    pub fn is_known(self) -> bool {
        self.raw.is_some()
    }

    /// The exit code, if it exited.
    pub fn code(self) -> Option<i32> {
        self.std().and_then(|status| status.code())
    }

    /// The signal that ended it, if one did.
    pub fn signal(self) -> Option<Signal> {
        self.std().and_then(|status| status.signal()).and_then(Signal::from_number)
    }

    /// Whether it left a core dump.
    pub fn core_dumped(self) -> bool {
        self.std().is_some_and(|status| status.core_dumped())
    }

    /// The number that Python calls `returncode`: the exit code, or minus the signal's number.
    /// [`UNKNOWN_RETURNCODE`](Self::UNKNOWN_RETURNCODE) if nobody can tell.
    pub fn returncode(self) -> i32 {
        match (self.code(), self.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => -signal.number(),
            (None, None) => ExitStatus::UNKNOWN_RETURNCODE,
        }
    }

    /// The number that a shell shows as `$?`: the exit code, or 128 plus the signal's number; 255 if nobody can tell.
    pub fn shell_code(self) -> u8 {
        match (self.code(), self.signal()) {
            (Some(code), _) => code as u8,
            (None, Some(signal)) => (128 + signal.number()) as u8,
            (None, None) => 255,
        }
    }

    fn std(self) -> Option<process::ExitStatus> {
        self.raw.map(process::ExitStatus::from_raw)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code(), self.signal()) {
            (Some(code), _) => write!(out, "exit status: {code}"),
            (None, Some(signal)) => {
                let core = if self.core_dumped() { " (core dumped)" } else { "" };
                write!(out, "signal: {signal}{core}")
            }
            (None, None) => out.write_str("exit status unknown: somebody else reaped the process"),
        }
    }
}

impl fmt::Debug for ExitStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ExitStatus({self})")
    }
}

impl From<process::ExitStatus> for ExitStatus {
    fn from(status: process::ExitStatus) -> ExitStatus {
        ExitStatus::from_raw(status.into_raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes_and_all_signals() {
        for code in 0..=255_u8 {
            let status = ExitStatus::from_code(code);
            assert_eq!(status.code(), Some(i32::from(code)));
            assert_eq!((status.signal(), status.returncode()), (None, i32::from(code)));
            assert_eq!(status.success(), code == 0);
        }
        for number in 1..=64 {
            let status = ExitStatus::from_raw(number | 0x80);
            assert_eq!((status.code(), status.returncode()), (None, -number));
            assert!(status.core_dumped() && !status.success());
            assert_eq!(status.shell_code(), 128 + number as u8);
        }
    }

    #[test]
    fn unknown_is_neither_success_nor_a_number_of_its_own() {
        let status = ExitStatus::UNKNOWN;
        assert!(!status.success() && !status.is_known());
        assert_eq!((status.code(), status.signal(), status.raw()), (None, None, None));
        assert_eq!(status.returncode(), ExitStatus::UNKNOWN_RETURNCODE);
    }
}
