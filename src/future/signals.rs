//! Signals that ask this program to end, as something to await. How they are caught is decided in `sys/interrupt.rs`.

use super::descriptor::Watched;
use crate::error::Error;
use crate::signal::Signal;
use crate::sys::interrupt::Watch;
use std::fmt;
use std::io;

/// SIGINT, SIGTERM and SIGHUP, unless they are ignored: as long as this lives they are told here, and do nothing else.
///
/// There is one at a time in a program, also counting a pool that is [interruptible](crate::Pool::interruptible). Dropping it puts everything back as it
/// was. Children start with the dispositions that they would have without it.
///
/// ```
/// use procession::future::{Signals, block_on};
/// use procession::Signal;
///
/// let signals = Signals::new()?;
/// # unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
/// // Somebody sends SIGTERM to this program.
/// assert_eq!(block_on(signals.next())??, Signal::TERM);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "signal_handler")]
#[doc(alias = "add_signal_handler")]
pub struct Signals(Watched<Watch>);

impl Signals {
    /// Begins to catch them.
    ///
    /// # Errors
    /// If somebody else in this program does. If no descriptors are left.
    pub fn new() -> Result<Signals, Error> {
        let of_step = |error| Error::io("sigaction", error);
        let watch = Watch::begin().map_err(of_step)?;
        let watch = watch.ok_or_else(|| Error::invalid("somebody else in this program catches signals"))?;
        Ok(Signals(Watched::new(watch).map_err(of_step)?))
    }

    /// Waits for the next signal. If it is dropped before, none is lost.
    ///
    /// # Errors
    /// If there is no runtime to wait on, or if it belongs to another one.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            let heard = self.0.read_with(Watch::next_nowait).await?;
            if let Some(signal) = heard.and_then(|heard| Signal::from_number(heard.number)) {
                return Ok(signal);
            }
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Signals")
    }
}
