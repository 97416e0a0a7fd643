//! The controlling terminal, its foreground group (tcsetpgrp(3)) and its settings, and lines for whoever looks on.

use super::{fd, mask, pipe, procfs};
use nix::sys::termios::{self, SetArg, Termios};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens the controlling terminal of this process.
pub(crate) fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// The group in the foreground of a terminal.
pub(crate) fn foreground(terminal: BorrowedFd<'_>) -> io::Result<i32> {
    Ok(nix::unistd::tcgetpgrp(terminal)?.as_raw())
}

/// The group of this process.
pub(crate) fn own_group() -> i32 {
    nix::unistd::getpgrp().as_raw()
}

/// Puts a group in the foreground. From the background this raises SIGTTOU, which is blocked in this thread for the moment.
pub(crate) fn set_foreground(terminal: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    mask::blocking(libc::SIGTTOU, || Ok(nix::unistd::tcsetpgrp(terminal.as_fd(), nix::unistd::Pid::from_raw(group))?))
}

/// The terminal at this program's standard input as it was, to be put back when somebody has left it in disorder.
#[derive(Debug)]
pub(crate) struct Tidy {
    terminal: OwnedFd,
    settings: Termios,
    foreground: i32,
}

impl Tidy {
    /// How it is now. `None` if standard input is no terminal, or not one that this program is in the foreground of.
    pub(crate) fn now() -> Option<Tidy> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let terminal = fd::above_stdio(stdin.as_fd().try_clone_to_owned().ok()?).ok()?;
        let settings = termios::tcgetattr(&terminal).ok()?;
        let foreground = foreground(terminal.as_fd()).ok().filter(|group| *group == own_group())?;
        Some(Tidy { terminal, settings, foreground })
    }

    /// Puts it back, if the terminal is still ours or nobody's. Somebody else who has it now, such as the shell that has put this program
    /// into the background, keeps it as it is.
    pub(crate) fn put_back(&self) -> io::Result<()> {
        let terminal = self.terminal.as_fd();
        let now = foreground(terminal)?;
        if now != self.foreground {
            if is_alive(now) {
                return Ok(());
            }
            set_foreground(terminal, self.foreground)?;
        }
        mask::blocking(libc::SIGTTOU, || Ok(termios::tcsetattr(terminal, SetArg::TCSANOW, &self.settings)?))
    }
}

/// Whether somebody in this group is alive. The dead count as members until somebody reaps them, which may be never.
fn is_alive(group: i32) -> bool {
    let exists = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), None) != Err(nix::errno::Errno::ESRCH);
    let table = procfs::table();
    let has_living = table.iter().any(|stat| stat.group == group && !matches!(stat.state, 'Z' | 'X'));
    exists && (has_living || table.is_empty())
}

/// Writes to this process's standard error in one call, if it takes anything: for words that nothing depends on.
pub(crate) fn remark(text: &str) {
    // Whatever else this program says to its standard error by std's means comes before or after.
    let stderr = io::stderr().lock();
    // Closed, full, or a reader that has gone: nobody looks on, and never a signal.
    let _ = pipe::write(stderr.as_fd(), text.as_bytes());
}
