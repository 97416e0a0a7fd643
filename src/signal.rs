//! Signals by number and by name. Decides how they are written; who sends them is decided elsewhere.

use std::fmt;
use std::str::FromStr;

/// A signal, by its number on this system.
///
/// The constants have POSIX's names without the prefix. Real-time signals are [`Signal::real_time`].
///
/// ```
/// use procession::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!("kill".parse::<Signal>().unwrap(), Signal::KILL);
/// assert_eq!("9".parse::<Signal>().unwrap(), Signal::KILL);
/// assert!("SIGNAL".parse::<Signal>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident = $number:ident;)*) => {
        impl Signal {
            $($(#[$doc])* pub const $name: Signal = Signal(libc::$number);)*

            /// Every named signal of POSIX, in the order of this page.
            pub const NAMED: &'static [Signal] = &[$(Signal::$name),*];
        }

        fn posix_name(number: i32) -> Option<&'static str> {
            $(if number == libc::$number { return Some(stringify!($number)); })*
            None
        }
    };
}

signals! {
    /// The terminal has hung up; daemons read it as "load your configuration again".
    HUP = SIGHUP;
    /// Interrupt from the keyboard (Ctrl-C).
    INT = SIGINT;
    /// Quit from the keyboard (Ctrl-\\), with a core dump.
    QUIT = SIGQUIT;
    /// Illegal instruction.
    ILL = SIGILL;
    /// Trace or breakpoint trap.
    TRAP = SIGTRAP;
    /// abort(3).
    ABRT = SIGABRT;
    /// Bad memory access.
    BUS = SIGBUS;
    /// Arithmetic error.
    FPE = SIGFPE;
    /// Kill; cannot be caught.
    KILL = SIGKILL;
    /// For the program's own use.
    USR1 = SIGUSR1;
    /// Invalid memory reference.
    SEGV = SIGSEGV;
    /// For the program's own use.
    USR2 = SIGUSR2;
    /// Write to a pipe that nobody reads.
    PIPE = SIGPIPE;
    /// alarm(2).
    ALRM = SIGALRM;
    /// Please end.
    TERM = SIGTERM;
    /// A child has changed its state.
    CHLD = SIGCHLD;
    /// Go on if stopped.
    CONT = SIGCONT;
    /// Stop; cannot be caught.
    STOP = SIGSTOP;
    /// Stop from the keyboard (Ctrl-Z).
    TSTP = SIGTSTP;
    /// Background read from the terminal.
    TTIN = SIGTTIN;
    /// Background write to the terminal.
    TTOU = SIGTTOU;
    /// Urgent data on a socket.
    URG = SIGURG;
    /// Processor time limit exceeded.
    XCPU = SIGXCPU;
    /// File size limit exceeded.
    XFSZ = SIGXFSZ;
    /// Virtual timer.
    VTALRM = SIGVTALRM;
    /// Profiling timer.
    PROF = SIGPROF;
    /// The window has a new size.
    WINCH = SIGWINCH;
    /// Input or output is possible.
    IO = SIGIO;
    /// Bad system call.
    SYS = SIGSYS;
}

impl Signal {
    /// The signal with this number, if the system can have one (1 to 64).
    pub fn from_number(number: i32) -> Option<Signal> {
        (1..=64).contains(&number).then_some(Signal(number))
    }

    /// The real-time signal `SIGRTMIN + offset`. `None` beyond `SIGRTMAX` and on systems that have none.
    pub fn real_time(offset: u32) -> Option<Signal> {
        #[cfg(target_os = "linux")]
        {
            let number = libc::SIGRTMIN().checked_add(i32::try_from(offset).ok()?)?;
            (number <= libc::SIGRTMAX()).then_some(Signal(number))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = offset;
            None
        }
    }

    /// The number, as in `kill -9`.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The name with its prefix, such as `SIGTERM`. `None` for real-time signals and numbers without a name.
    pub fn name(self) -> Option<&'static str> {
        posix_name(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return out.write_str(name);
        }
        #[cfg(target_os = "linux")]
        if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&self.0) {
            return write!(out, "SIGRTMIN+{}", self.0 - libc::SIGRTMIN());
        }
        write!(out, "signal {}", self.0)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self} ({})", self.0)
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> i32 {
        signal.0
    }
}

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSignal(String);

impl fmt::Display for UnknownSignal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no such signal: {:?}", self.0)
    }
}

impl std::error::Error for UnknownSignal {}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Reads `SIGTERM`, `TERM`, `term`, `15` and `RTMIN+3`.
    fn from_str(text: &str) -> Result<Signal, UnknownSignal> {
        let unknown = || UnknownSignal(text.to_owned());
        if let Ok(number) = text.parse() {
            return Signal::from_number(number).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(offset) = short.strip_prefix("RTMIN") {
            let offset = offset.strip_prefix('+').unwrap_or("0");
            return offset.parse().ok().and_then(Signal::real_time).ok_or_else(unknown);
        }
        Signal::NAMED
            .iter()
            .copied()
            .find(|signal| signal.name().is_some_and(|name| &name[3..] == short))
            .ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for &signal in Signal::NAMED {
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn real_time_signals_read_back_and_end() {
        let signal = Signal::real_time(3).unwrap();
        assert_eq!(signal.to_string(), "SIGRTMIN+3");
        assert_eq!("SIGRTMIN+3".parse::<Signal>().unwrap(), signal);
        assert_eq!(Signal::real_time(200), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "SIG", "SIGSIGTERM", "0", "65", "-1", "RTMIN+x", "TERM "] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }
}
