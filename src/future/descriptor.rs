//! Any descriptor as something to await: a transfer is tried, and if it would block its task sleeps until the descriptor has become ready. What
//! tells readiness is decided in `runtime.rs`.

use super::runtime::{Interest, Runtime, Source};
use crate::error::Error;
use crate::sys;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A descriptor whose transfers can be awaited: a socket, a listener, a pipe, whatever epoll takes. On every runtime.
///
/// Several tasks may share it, by reference or in an `Arc`, also to read at the same time. The descriptor is registered with the runtime when somebody
/// first has to wait, and stays so; it belongs to that runtime from then on, and for a scope to its thread.
///
/// ```
/// use procession::future::{Watched, scope};
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = Watched::new(TcpListener::bind("127.0.0.1:0")?)?;
/// let address = listener.get_ref().local_addr()?;
/// let text = scope(|scope| {
///     scope.spawn(async {
///         let (client, _) = listener.accept().await.unwrap();
///         client.write_all(b"hello").await.unwrap();
///     });
///     scope.block_on(async {
///         let stream = Watched::new(TcpStream::connect(address)?)?;
///         let mut text = Vec::new();
///         stream.read_to_end(&mut text).await?;
///         Ok::<_, procession::Error>(text)
///     })
/// })???;
/// assert_eq!(text, b"hello");
/// # Ok::<(), procession::Error>(())
/// ```
///
/// Dropping it closes the descriptor, as dropping what it holds does.
#[doc(alias = "AsyncFd")]
#[doc(alias = "Async")]
#[doc(alias = "add_reader")]
pub struct Watched<T: AsFd> {
    // Before the descriptor is closed.
    reads: Side,
    writes: Side,
    io: T,
}

/// One direction.
struct Side {
    interest: Interest,
    state: Mutex<SideState>,
    fan: Arc<Fan>,
}

#[derive(Default)]
struct SideState {
    source: Option<Source>,
    /// How often it has become ready.
    edges: u64,
}

/// All who wait in one direction. That is mostly one, for whom nothing is allocated.
#[derive(Default)]
struct Fan(Mutex<(Option<Waker>, Vec<Waker>)>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fan {
    fn add(&self, waker: &Waker) {
        let (first, others) = &mut *lock(&self.0);
        if !first.iter().chain(&*others).any(|other| other.will_wake(waker)) {
            match first {
                None => *first = Some(waker.clone()),
                Some(_) => others.push(waker.clone()),
            }
        }
    }
}

impl Wake for Fan {
    fn wake(self: Arc<Fan>) {
        let (first, others) = std::mem::take(&mut *lock(&self.0));
        first.into_iter().chain(others).for_each(Waker::wake);
    }
}

impl Side {
    fn new(interest: Interest) -> Side {
        Side { interest, state: Mutex::default(), fan: Arc::default() }
    }

    fn edges(&self) -> u64 {
        lock(&self.state).edges
    }

    /// Whether it has become ready since `seen`. Everybody who waits tries again then, so that nobody waits for what another has left.
    fn poll(&self, seen: u64, fd: BorrowedFd<'_>, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let state = &mut *lock(&self.state);
        if state.edges != seen {
            return Poll::Ready(Ok(()));
        }
        let source = match &mut state.source {
            Some(source) => source,
            none => none.insert(Runtime::current().and_then(|runtime| runtime.source(fd, self.interest))?),
        };
        self.fan.add(context.waker());
        let all = Waker::from(Arc::clone(&self.fan));
        // Others who wait have been woken by the same edge.
        if source.take_ready(&mut Context::from_waker(&all))? {
            state.edges += 1;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl<T: AsFd> Watched<T> {
    /// Makes the descriptor non-blocking, for all who share its open file description.
    ///
    /// # Errors
    /// If it cannot be made so.
    pub fn new(io: T) -> io::Result<Watched<T>> {
        sys::fd::set_nonblocking(io.as_fd())?;
        Ok(Watched { reads: Side::new(Interest::Read), writes: Side::new(Interest::Write), io })
    }

    /// What it holds.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// What it holds, which stays non-blocking.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Calls the function until it says something else than [`WouldBlock`](io::ErrorKind::WouldBlock), and waits in between for bytes, or a client.
    ///
    /// ```
    /// use procession::future::{Watched, block_on};
    /// use std::os::unix::net::UnixDatagram;
    ///
    /// let (one, other) = UnixDatagram::pair()?;
    /// let one = Watched::new(one)?;
    /// other.send(b"news")?;
    /// let mut buffer = [0; 16];
    /// let count = block_on(one.read_with(|socket| socket.recv(&mut buffer)))??;
    /// assert_eq!(&buffer[..count], b"news");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the function. If there is no runtime to wait on, or if it belongs to another one.
    pub async fn read_with<R>(&self, transfer: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.transfer(&self.reads, transfer).await
    }

    /// As [`read_with`](Self::read_with), and waits for room.
    ///
    /// # Errors
    /// As [`read_with`](Self::read_with).
    pub async fn write_with<R>(&self, transfer: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.transfer(&self.writes, transfer).await
    }

    async fn transfer<R>(&self, side: &Side, mut transfer: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        loop {
            let seen = side.edges();
            match transfer(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
            poll_fn(|context| side.poll(seen, self.io.as_fd(), context)).await?;
        }
    }

    /// Reads what there is, as soon as there is something. 0 is the end.
    ///
    /// # Errors
    /// Those of read(2), and as [`read_with`](Self::read_with).
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_with(|io| sys::fd::read(io.as_fd(), buffer)).await
    }

    /// Appends everything up to the end. What was read before an error is there.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_to_end(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let before = buffer.len();
        loop {
            buffer.reserve(READ_SIZE);
            if self.read_with(|io| sys::fd::read_append(io.as_fd(), buffer, READ_SIZE)).await? == 0 {
                return Ok(buffer.len() - before);
            }
        }
    }

    /// Writes what there is room for, as soon as there is some. A reader that has gone is an error and never a signal.
    ///
    /// # Errors
    /// Those of write(2), and as [`read_with`](Self::read_with).
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|io| sys::pipe::write(io.as_fd(), bytes)).await
    }

    /// Writes everything. If it is dropped, a beginning may have been written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }
}

const READ_SIZE: usize = 16 * 1024;

impl Watched<TcpListener> {
    /// The next client.
    ///
    /// # Errors
    /// Those of accept(2), such as a client that has gone or no descriptors left; the next call may succeed. As
    /// [`read_with`](Watched::read_with).
    pub async fn accept(&self) -> io::Result<(Watched<TcpStream>, SocketAddr)> {
        let (stream, address) = self.read_with(TcpListener::accept).await?;
        Ok((Watched::new(stream)?, address))
    }
}

impl Watched<UnixListener> {
    /// The next client.
    ///
    /// # Errors
    /// As that of a TCP listener.
    pub async fn accept(&self) -> io::Result<(Watched<UnixStream>, UnixAddress)> {
        let (stream, address) = self.read_with(UnixListener::accept).await?;
        Ok((Watched::new(stream)?, address))
    }
}

impl<T: AsFd> AsFd for Watched<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Watched").field(&self.io).finish()
    }
}
