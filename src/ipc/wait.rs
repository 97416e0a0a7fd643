//! One wait for many things: connections, listeners, ends of pipes, whatever has a descriptor.

use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::poll;
use std::os::fd::AsFd;
use std::time::Duration;

/// Waits until at least one of these is ready: its places in the list. A connection is ready when something can be received or the other side
/// is gone, a listener when somebody has connected, anything else when its descriptor is readable.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an empty list, for which one would wait for ever. Of the kernel, when there
/// are more objects than descriptors may be open.
///
/// ```
/// # fn main() -> Result<(), procession::Error> {
/// use procession::ipc::{Connection, wait_any};
///
/// let (mut ours, mut theirs) = Connection::<u8, u8>::pair()?;
/// let (quiet, _keep) = Connection::<u8, u8>::pair()?;
/// theirs.send(&7)?;
/// assert_eq!(wait_any(&[&quiet, &ours])?, [1]);
/// assert_eq!(ours.recv()?, 7);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "select")]
#[doc(alias = "connection.wait")]
pub fn wait_any(objects: &[&dyn AsFd]) -> Result<Vec<usize>, Error> {
    if objects.is_empty() {
        return Err(Error::invalid("a wait for any of no objects would never end"));
    }
    wait_until(objects, Deadline::NEVER)
}

/// As [`wait_any`], for so long at most. An empty list if nothing is ready by then.
///
/// # Errors
/// As there, but for an empty list, which is never ready.
///
/// ```
/// # fn main() -> Result<(), procession::Error> {
/// use procession::ipc::{Connection, wait_any_timeout};
/// use std::time::Duration;
///
/// let (one, two) = Connection::<u8, u8>::pair()?;
/// assert!(wait_any_timeout(&[&one, &two], Duration::from_millis(1))?.is_empty());
/// drop(two);
/// assert_eq!(wait_any_timeout(&[&one], Duration::from_secs(60))?, [0]);
/// # Ok(())
/// # }
/// ```
pub fn wait_any_timeout(objects: &[&dyn AsFd], timeout: Duration) -> Result<Vec<usize>, Error> {
    wait_until(objects, Deadline::after(timeout))
}

fn wait_until(objects: &[&dyn AsFd], deadline: Deadline) -> Result<Vec<usize>, Error> {
    let mut entries: Vec<_> = objects.iter().map(|object| poll::readable(object.as_fd())).collect();
    poll::wait(&mut entries, deadline.moment()).map_err(|error| Error::io("poll", error))?;
    let ready = entries.iter().enumerate().filter(|(_, entry)| poll::is_ready(entry));
    Ok(ready.map(|(place, _)| place).collect())
}
