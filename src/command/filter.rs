//! A function between a child and whoever gets its output, as a value: on the way to a target, or as a stage of a pipeline.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

/// A Rust function that changes a stream of bytes on its way.
///
/// It is called on the thread that drives the children, between reads, so no thread is needed; as long as it takes its time they
/// wait. An error from it fails the run: the children are stopped, and the record holds what was read.
///
/// A filter can be used for several runs; the function then keeps what it has captured. It is locked while it is called.
///
/// ```
/// use procession::{Command, Filter};
///
/// let numbers = Command::new("seq").arg("5") | Filter::keep_lines(|line| line != b"3") | Command::new("tac");
/// assert_eq!(numbers.check_output()?, b"5\n4\n2\n1\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
pub struct Filter {
    pub(crate) function: Function,
    pub(crate) by_line: bool,
}

/// Gets a line or a piece, `None` at the end, and appends what is to pass.
pub(crate) type Function = Arc<Mutex<dyn FnMut(Option<&[u8]>, &mut Vec<u8>) -> io::Result<()> + Send>>;

impl Filter {
    /// Lets those lines pass of which the function says so. It sees them without their line end.
    pub fn keep_lines(mut keep: impl FnMut(&[u8]) -> bool + Send + 'static) -> Filter {
        Filter::lines(move |line, out| {
            if keep(line) {
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        })
    }

    /// Puts another line in the place of each. The function sees it without its line end and returns it without one.
    pub fn map_lines<L: AsRef<[u8]>>(mut map: impl FnMut(&[u8]) -> L + Send + 'static) -> Filter {
        Filter::lines(move |line, out| {
            out.extend_from_slice(map(line).as_ref());
            out.push(b'\n');
        })
    }

    fn lines(mut function: impl FnMut(&[u8], &mut Vec<u8>) + Send + 'static) -> Filter {
        let mut filter = Filter::new(move |line, out| {
            if let Some(line) = line {
                function(line, out);
            }
            Ok(())
        });
        filter.by_line = true;
        filter
    }

    /// Any function: it gets the bytes in pieces as they were read, `None` at their end, and appends what is to pass.
    ///
    /// ```
    /// use procession::{Command, Filter};
    ///
    /// let mut count = 0;
    /// let counted = Filter::new(move |piece, out| {
    ///     match piece {
    ///         Some(bytes) => count += bytes.len(),
    ///         None => out.extend_from_slice(count.to_string().as_bytes()),
    ///     }
    ///     Ok(())
    /// });
    /// assert_eq!((Command::new("echo").arg("hello") | counted).check_output()?, b"6");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn new(function: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> io::Result<()> + Send + 'static) -> Filter {
        Filter { function: Arc::new(Mutex::new(function)), by_line: false }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Filter")
    }
}
