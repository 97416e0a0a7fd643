//! Our side of a child's terminal: its size, its settings, who is in its foreground. What passes it is read and written by the ends
//! in `pipe`; how a terminal is made for a child is decided in `plan` and `spawn`.

use crate::error::Error;
use crate::sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The terminal of a child that was started with [`Command::pty`](crate::Command::pty) or
/// [`Stdio::pty`](crate::Stdio::pty).
///
/// Cheap to clone and usable from any thread, say from the one that hears of a new window size. The terminal lives as long as
/// something of it is ours: a `Terminal`, or the child's [`stdin`](crate::Child::stdin), [`stdout`](crate::Child::stdout) or
/// [`stderr`](crate::Child::stderr) on it. When the last of them is dropped it hangs up: the session on it gets SIGHUP, and who
/// still has it open reads the end of file.
///
/// ```
/// use procession::{Command, Pty};
///
/// let mut child = Command::shell("read go; stty size").pty(Pty::new().size(24, 80)).spawn()?;
/// child.terminal().unwrap().resize(50, 132)?;
/// assert_eq!(child.communicate("go\n")?.stdout(), b"50 132\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "pty")]
pub struct Terminal {
    master: Arc<OwnedFd>,
    path: Option<PathBuf>,
}

impl Terminal {
    pub(crate) fn new(master: Arc<OwnedFd>, path: Option<PathBuf>) -> Terminal {
        Terminal { master, path }
    }

    /// Its size: rows and columns.
    ///
    /// # Errors
    /// If the system refuses the call.
    pub fn size(&self) -> Result<(u16, u16), Error> {
        sys::pty::size(self.as_fd()).map_err(|error| Error::io("terminal size", error))
    }

    /// Gives it another size. If that changes anything, the kernel sends SIGWINCH to the group in the foreground.
    ///
    /// # Errors
    /// If one of the two is 0, or the system refuses the call.
    #[doc(alias = "TIOCSWINSZ")]
    #[doc(alias = "setwinsize")]
    pub fn resize(&self, rows: u16, cols: u16) -> Result<(), Error> {
        check_size(rows, cols)?;
        sys::pty::set_size(self.as_fd(), rows, cols).map_err(|error| Error::io("terminal size", error))
    }

    /// Gives it the size of another terminal, such as the one that this program runs on.
    ///
    /// # Errors
    /// If the other is no terminal (ENOTTY) or does not know its size, or the system refuses the call.
    pub fn resize_like(&self, other: impl AsFd) -> Result<(), Error> {
        let (rows, cols) = sys::pty::size(other.as_fd()).map_err(|error| Error::io("terminal size", error))?;
        self.resize(rows, cols)
    }

    /// Whether what is written to its input comes back as output. A program that asks for a password turns this off: a good moment
    /// to send one.
    ///
    /// # Errors
    /// If the system refuses the call.
    #[doc(alias = "waitnoecho")]
    pub fn echo(&self) -> Result<bool, Error> {
        Ok(self.mode()?.echo)
    }

    /// Whether what is written to its input comes back as output. The child can change that at any time, and who changes last wins.
    ///
    /// # Errors
    /// If the system refuses the call.
    #[doc(alias = "setecho")]
    pub fn set_echo(&self, echo: bool) -> Result<(), Error> {
        sys::pty::set_echo(self.as_fd(), echo).map_err(|error| Error::io("terminal settings", error))
    }

    /// Whether its input is handed over byte by byte, without editing of lines. Programs that edit lines themselves, such as
    /// shells at their prompt, set this.
    ///
    /// # Errors
    /// If the system refuses the call.
    pub fn is_raw(&self) -> Result<bool, Error> {
        Ok(self.mode()?.raw)
    }

    /// Takes the line discipline away, or puts it back: editing of lines, signals by characters, and the end of input; see
    /// [`Pty::raw`](crate::Pty::raw). To put it back does not turn the echo on.
    ///
    /// # Errors
    /// If the system refuses the call.
    #[doc(alias = "cfmakeraw")]
    pub fn set_raw(&self, raw: bool) -> Result<(), Error> {
        sys::pty::set_raw(self.as_fd(), raw).map_err(|error| Error::io("terminal settings", error))
    }

    /// The process group in the foreground: the one that ^C reaches. `None` if there is none, because the child has ended.
    ///
    /// # Errors
    /// If the system refuses the call.
    #[doc(alias = "tcgetpgrp")]
    pub fn foreground_group(&self) -> Result<Option<u32>, Error> {
        let group = sys::terminal::foreground(self.as_fd()).map_err(|error| Error::io("foreground", error))?;
        Ok(u32::try_from(group).ok().filter(|&group| group > 0))
    }

    /// The name by which the child's side can be opened, if there is one in this file system: `/dev/pts/3`.
    #[doc(alias = "ttyname")]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn mode(&self) -> Result<sys::pty::Mode, Error> {
        sys::pty::mode(self.as_fd()).map_err(|error: io::Error| Error::io("terminal settings", error))
    }
}

/// A terminal of no size is what programs divide by.
pub(crate) fn check_size(rows: u16, cols: u16) -> Result<(), Error> {
    if rows == 0 || cols == 0 {
        return Err(Error::invalid(format!("a terminal of {rows} rows and {cols} columns has no size")));
    }
    Ok(())
}

/// Our end of the terminal. It is non-blocking.
impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
