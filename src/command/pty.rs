//! The terminal that a command is to have, as a value. Nothing is opened here.

use crate::sys::pty::Mode;

/// A pseudo-terminal for a child: how large it is and how it treats what passes it.
///
/// By default it has 24 rows and 80 columns, lines are edited as at a keyboard (so ^C interrupts and ^D ends the input), and what is
/// read from it is what the program wrote: there is no echo of the input, and `\n` stays `\n`. On a terminal for people both are
/// otherwise, and [`echo`](Pty::echo) and [`crlf`](Pty::crlf) bring them back.
///
/// ```
/// use procession::{Command, Pty};
///
/// let output = Command::shell("test -t 1 && stty size").pty(Pty::new().size(40, 100)).output()?;
/// assert_eq!(output.stdout(), b"40 100\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a terminal is made for a command: see `Command::pty`"]
pub struct Pty {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
    pub(crate) mode: Mode,
}

impl Pty {
    /// A terminal of 24 rows and 80 columns, without echo, that edits lines and leaves output as it is written.
    pub fn new() -> Pty {
        Pty { rows: 24, cols: 80, mode: Mode { echo: false, crlf: false, raw: false } }
    }

    /// Its size. A size of 0 is refused by the verb.
    #[doc(alias = "winsize")]
    #[doc(alias = "dimensions")]
    pub fn size(mut self, rows: u16, cols: u16) -> Pty {
        (self.rows, self.cols) = (rows, cols);
        self
    }

    /// Whether what is written to its input comes back among the output, as people are used to see what they type: no by default.
    pub fn echo(mut self, echo: bool) -> Pty {
        self.mode.echo = echo;
        self
    }

    /// Whether `\n` becomes `\r\n` on its way out, as real terminals want it: no by default, so that output is what the program
    /// wrote.
    #[doc(alias = "onlcr")]
    pub fn crlf(mut self, crlf: bool) -> Pty {
        self.mode.crlf = crlf;
        self
    }

    /// No line discipline: each byte is handed over as it is and when it comes. No character interrupts or erases, lines may have any
    /// length, and bytes of any value pass. Then there is no end of input either: closing standard input says nothing to the child,
    /// which must learn from the input itself that it is over.
    pub fn raw(mut self) -> Pty {
        self.mode.raw = true;
        self
    }
}

impl Default for Pty {
    fn default() -> Pty {
        Pty::new()
    }
}
