//! Where processes that do not know each other connect: a socket with a path for those of this machine, TCP for others. Decides who may come in, and
//! that nobody who is slow, silent or wrong keeps others out. Leaves to [`connection`](super::connection) what is said afterwards.
//!
//! On this machine the kernel says who connects, and nothing has to be proved. Over TCP both sides prove that they know a key. That takes two
//! messages from a stranger who may never send them: so each stranger is a guest in the lobby, with a moment by which it must be done, and
//! whoever accepts serves all guests until one of them is through.

use super::connection::{Connection, Peer, RawConnection, refused};
use super::frames::{Arrived, Incoming, Outgoing};
use super::handshake::{self, Key, LENGTH, Nonce};
use super::wire::Kind;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::{fd, poll, socket};
use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A stranger has so long to prove that it knows the key.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So many strangers are in the lobby at most; one more, and the oldest has to go.
const GUESTS_MAX: usize = 128;
/// So many wait in the kernel to be accepted, if it allows as many.
const WAITING_MAX: i32 = 1024;
/// The messages of a handshake are no longer.
const HANDSHAKE_MESSAGE_MAX: u64 = 256;

/// Waits for processes that connect.
///
/// A listener with a path lets in processes of the same user, and no others unless [told so](Self::allow_user): the kernel says who it is, so nothing
/// is to be proved. A listener on TCP lets in who knows the key, which both sides prove to each other.
///
/// **What goes over TCP is not encrypted.** Whoever can listen in reads it, and whoever can change it on its way does so unnoticed: the key tells who
/// connects, and guards nothing after that. Use it on a network you trust, or through a tunnel.
///
/// [`accept`](Self::accept) tells of each one that was refused as an error, [`ErrorKind::PermissionDenied`], and the next call goes on. Dropping a
/// listener with a path removes what it made, unless something else has the name by now; connections live on.
///
/// ```
/// # fn main() -> Result<(), procession::Error> {
/// use procession::ipc::{Connection, Listener};
///
/// let mut listener = Listener::new()?;
/// let path = listener.path().unwrap().to_owned();
/// let client = std::thread::spawn(move || {
///     let mut connection = Connection::<u32, u64>::connect(path)?;
///     connection.send(&7)?;
///     connection.recv()
/// });
/// let mut connection = listener.accept::<u64, u32>()?;
/// let number = connection.recv()?;
/// connection.send(&(u64::from(number) * 6))?;
/// assert_eq!(client.join().unwrap()?, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    place: Place,
}

#[derive(Debug)]
enum Place {
    Path(AtPath),
    Tcp(Lobby),
}

impl Listener {
    /// Listens in a new directory that only this user may enter, in the directory for temporary files.
    ///
    /// # Errors
    /// Of the kernel, when there can be no more files or descriptors.
    pub fn new() -> Result<Listener, Error> {
        let words = std::env::temp_dir().join("procession-");
        let directory = fd::private_directory(&words).map_err(|error| Error::io("mkdtemp", error).path(&words))?;
        let path = directory.join("listener");
        let made = AtPath::new(path, Some(directory.clone()));
        if made.is_err() {
            // Nothing is in it. What else is wrong is said already.
            let _ = fs::remove_dir(&directory);
        }
        Ok(Listener { place: Place::Path(made?) })
    }

    /// Listens at this path, where nothing may be yet. The socket has the mode 0600.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if there is something at the path, or it is too long for a socket (107 bytes are the most).
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Listener;
    ///
    /// let path = std::env::temp_dir().join(format!("service-{}", std::process::id()));
    /// let listener = Listener::bind(&path)?;
    /// assert_eq!(listener.path(), Some(path.as_path()));
    /// assert!(Listener::bind(&path).unwrap_err().is_invalid_input());
    /// drop(listener);
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(path: impl Into<PathBuf>) -> Result<Listener, Error> {
        Ok(Listener { place: Place::Path(AtPath::new(path.into(), None)?) })
    }

    /// Listens on TCP, for those who know the key. With port 0 the kernel chooses one, see [`address`](Self::address).
    ///
    /// The key has 16 bytes at least; 32 random ones are good. A password is not: whoever connects, or listens in, can try passwords at leisure.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a short key, or an address that is none.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::{Connection, Listener};
    ///
    /// let key = [7; 32]; // better: random
    /// let mut listener = Listener::tcp("127.0.0.1:0", &key)?;
    /// let address = listener.address().unwrap();
    /// let client = std::thread::spawn(move || Connection::<(), String>::connect_tcp(address, &key)?.recv());
    /// listener.accept::<String, ()>()?.send(&"welcome".to_owned())?;
    /// assert_eq!(client.join().unwrap()?, "welcome");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "authkey")]
    pub fn tcp(address: impl ToSocketAddrs, key: &[u8]) -> Result<Listener, Error> {
        Ok(Listener { place: Place::Tcp(Lobby::new(address, Key::new(key)?)?) })
    }

    /// Lets in processes of this user as well, and lets every user reach the socket: who is not allowed is refused at the door.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a listener on TCP.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Listener;
    ///
    /// let listener = Listener::new()?.allow_user(0)?; // root, and this user
    /// # let _ = listener;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_user(mut self, uid: u32) -> Result<Listener, Error> {
        match &mut self.place {
            Place::Path(at) => at.allow(uid)?,
            Place::Tcp(_) => return Err(Error::invalid("on TCP nobody knows which user connects")),
        }
        Ok(self)
    }

    /// Gives those who connect over TCP so long to prove that they know the key: 10 s if nothing is said.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Listener {
        if let Place::Tcp(lobby) = &mut self.place {
            lobby.timeout = timeout;
        }
        self
    }

    /// Where it listens, if that is a path.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Path(at) => Some(&at.path),
            Place::Tcp(_) => None,
        }
    }

    /// Where it listens, if that is TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Path(_) => None,
            Place::Tcp(lobby) => Some(lobby.address),
        }
    }

    /// Waits for the next one that connects and may.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] if somebody was refused, [`ErrorKind::ResourceExhausted`] if there can be no more descriptors. The
    /// listener goes on: call again.
    pub fn accept<S, R>(&mut self) -> Result<Connection<S, R>, Error> {
        Ok(self.accept_until(Deadline::NEVER)?.typed())
    }

    /// As [`accept`](Self::accept), for so long at most.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] also.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::Listener;
    /// use std::time::Duration;
    ///
    /// let mut listener = Listener::new()?;
    /// let error = listener.accept_timeout::<u8, u8>(Duration::from_millis(1)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept_timeout<S, R>(&mut self, timeout: Duration) -> Result<Connection<S, R>, Error> {
        Ok(self.accept_until(Deadline::after(timeout))?.typed())
    }

    /// As [`accept`](Self::accept), for bytes.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ipc::{Listener, RawConnection};
    ///
    /// let mut listener = Listener::new()?;
    /// let mut client = RawConnection::connect(listener.path().unwrap())?;
    /// client.send_bytes(b"hello")?;
    /// assert_eq!(listener.accept_raw()?.recv_bytes()?, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept_raw(&mut self) -> Result<RawConnection, Error> {
        self.accept_until(Deadline::NEVER)
    }

    /// As [`accept_timeout`](Self::accept_timeout), for bytes.
    ///
    /// # Errors
    /// As there.
    pub fn accept_raw_timeout(&mut self, timeout: Duration) -> Result<RawConnection, Error> {
        self.accept_until(Deadline::after(timeout))
    }

    /// When there is something to do although nobody connects: somebody has been silent for too long.
    #[cfg(feature = "future")]
    pub(crate) fn next_moment(&self) -> Deadline {
        match &self.place {
            Place::Path(_) => Deadline::NEVER,
            Place::Tcp(lobby) => lobby.guests.front().map_or(Deadline::NEVER, |oldest| oldest.deadline),
        }
    }

    pub(crate) fn accept_until(&mut self, deadline: Deadline) -> Result<RawConnection, Error> {
        match &mut self.place {
            Place::Path(at) => at.accept(deadline),
            Place::Tcp(lobby) => lobby.accept(deadline),
        }
    }
}

/// Readable when [`accept`](Listener::accept) has something to do. On TCP that may be less than a whole connection: use
/// [`accept_timeout`](Listener::accept_timeout) then.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.place {
            Place::Path(at) => at.socket.as_fd(),
            // Linux has it always.
            Place::Tcp(lobby) => lobby.readiness.as_fd().unwrap_or(lobby.socket.as_fd()),
        }
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout).detail("timed out: nobody has connected")
}

fn denied(text: String) -> Error {
    Error::new(ErrorKind::PermissionDenied).detail(text)
}

/// Tells somebody why it is not let in. If that does not work, it will see that the connection is closed.
fn refuse(guest: BorrowedFd<'_>, why: &str) {
    // So short that it is one piece in any form.
    let _ =
        Outgoing::new(HANDSHAKE_MESSAGE_MAX).send(guest, Kind::Refusal, why.as_bytes(), Vec::new(), Deadline::now());
}

/// A socket with a path.
#[derive(Debug)]
struct AtPath {
    socket: OwnedFd,
    path: PathBuf,
    /// What we made there, to know it again.
    file: (u64, u64),
    directory: Option<PathBuf>,
    users: Vec<u32>,
}

impl AtPath {
    fn new(path: PathBuf, directory: Option<PathBuf>) -> Result<AtPath, Error> {
        let listening = socket::listen_at(&path, 0o600, WAITING_MAX).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Error::invalid("there is something at this path already").path(&path),
            Some(libc::ENAMETOOLONG) => Error::invalid("the path is too long for a socket").path(&path),
            _ => Error::io("bind", error).path(&path),
        })?;
        fd::set_nonblocking(listening.as_fd()).map_err(|error| Error::io("ioctl", error))?;
        let file = file_at(&path).map_err(|error| Error::io("stat", error).path(&path))?;
        let users = vec![nix::unistd::geteuid().as_raw()];
        Ok(AtPath { socket: listening, path, file, directory, users })
    }

    fn allow(&mut self, uid: u32) -> Result<(), Error> {
        let open = |path: &Path, mode| {
            let changed = fs::set_permissions(path, fs::Permissions::from_mode(mode));
            changed.map_err(|error| Error::io("chmod", error).path(path))
        };
        if let Some(directory) = &self.directory {
            open(directory, 0o711)?;
        }
        open(&self.path, 0o666)?;
        self.users.push(uid);
        Ok(())
    }

    fn accept(&mut self, deadline: Deadline) -> Result<RawConnection, Error> {
        loop {
            match socket::accept(self.socket.as_fd()) {
                Ok(guest) => return self.judge(guest),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let ready = poll::wait_readable(self.socket.as_fd(), deadline.moment());
                    if !ready.map_err(|error| Error::io("poll", error))? {
                        return Err(late());
                    }
                }
                Err(error) if is_of_guest(&error) => {}
                Err(error) => return Err(Error::io("accept", error)),
            }
        }
    }

    fn judge(&self, guest: OwnedFd) -> Result<RawConnection, Error> {
        let peer = Peer::of(guest.as_fd())?;
        if self.users.contains(&peer.uid()) {
            return RawConnection::from_fd(guest);
        }
        refuse(guest.as_fd(), &format!("user {} is not allowed", peer.uid()));
        let text = format!("process {} of user {} has connected and is not allowed", peer.pid(), peer.uid());
        Err(denied(text).path(&self.path))
    }
}

/// Whether it went wrong with the one that has connected, and not with us: the next one may be better.
fn is_of_guest(error: &io::Error) -> bool {
    let numbers =
        [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EHOSTDOWN, libc::EHOSTUNREACH, libc::ENETUNREACH];
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for AtPath {
    fn drop(&mut self) {
        // Somebody may have removed it, and somebody else may be there. What cannot be removed stays.
        if file_at(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// A socket on TCP, and those who have connected and have not proved yet that they know the key.
struct Lobby {
    socket: TcpListener,
    address: SocketAddr,
    key: Key,
    timeout: Duration,
    /// Of the socket and of all guests.
    readiness: Epoll,
    /// The oldest first, which is the order of their tokens.
    guests: VecDeque<Guest>,
    last_token: u64,
}

/// The token of the socket.
const SOCKET: u64 = 0;

#[derive(Debug)]
struct Guest {
    token: u64,
    socket: OwnedFd,
    address: SocketAddr,
    challenge: Nonce,
    into: Incoming,
    deadline: Deadline,
}

impl fmt::Debug for Lobby {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Lobby").field("address", &self.address).field("guests", &self.guests.len()).finish()
    }
}

impl Lobby {
    fn new(address: impl ToSocketAddrs, key: Key) -> Result<Lobby, Error> {
        let wrong = |error: io::Error| match error.raw_os_error() {
            None => Error::invalid("the address to listen at").source(error),
            Some(_) => Error::io("bind", error),
        };
        let bound = TcpListener::bind(address).map_err(wrong)?;
        let bound = fd::above_stdio(bound.into()).map_err(|error| Error::io("dup", error))?;
        let socket = TcpListener::from(bound);
        socket.set_nonblocking(true).map_err(|error| Error::io("ioctl", error))?;
        socket::listen(socket.as_fd(), WAITING_MAX).map_err(|error| Error::io("listen", error))?;
        let address = socket.local_addr().map_err(|error| Error::io("getsockname", error))?;
        let mut readiness = Epoll::new().map_err(|error| Error::io("epoll_create1", error))?;
        readiness.add(socket.as_fd(), SOCKET, Interest::Read).map_err(|error| Error::io("epoll_ctl", error))?;
        let guests = VecDeque::new();
        Ok(Lobby { socket, address, key, timeout: HANDSHAKE, readiness, guests, last_token: SOCKET })
    }

    /// Serves everybody who is there until one is through or was refused.
    fn accept(&mut self, deadline: Deadline) -> Result<RawConnection, Error> {
        let mut ready = Vec::new();
        loop {
            // What is there already is looked at before any moment counts as come: nobody may have looked for a long time.
            self.readiness
                .wait(&mut ready, Deadline::now().moment())
                .map_err(|error| Error::io("epoll_wait", error))?;
            if ready.is_empty() {
                let until = self.guests.front().map_or(deadline, |oldest| oldest.deadline.earlier(deadline));
                let waited = self.readiness.wait(&mut ready, until.moment());
                waited.map_err(|error| Error::io("epoll_wait", error))?;
            }
            for token in ready.drain(..).map(|answer| answer.token) {
                if token == SOCKET {
                    self.let_in()?;
                } else if let Some(result) = self.serve(token) {
                    return result;
                }
            }
            self.send_away_late()?;
            if deadline.has_passed() {
                return Err(late());
            }
        }
    }

    /// One more guest, if one is there. It is asked for a proof.
    fn let_in(&mut self) -> Result<(), Error> {
        let (socket, address) = match self.socket.accept() {
            Ok(guest) => guest,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_of_guest(&error) => return Ok(()),
            Err(error) => return Err(Error::io("accept", error)),
        };
        let socket = prepared(socket)?;
        self.last_token += 1;
        let mut challenge = [0; LENGTH];
        socket::random(&mut challenge).map_err(|error| Error::io("getrandom", error))?;
        let guest = Guest {
            token: self.last_token,
            socket,
            address,
            challenge,
            into: Incoming::new(HANDSHAKE_MESSAGE_MAX),
            deadline: Deadline::after(self.timeout),
        };
        let asked = send_now(guest.socket.as_fd(), Kind::Challenge, &challenge);
        asked.map_err(|error| denied(format!("{address} has connected and cannot be asked for a proof: {error}")))?;
        let added = self.readiness.add(guest.socket.as_fd(), guest.token, Interest::Read);
        added.map_err(|error| Error::io("epoll_ctl", error))?;
        self.guests.push_back(guest);
        if self.guests.len() > GUESTS_MAX
            && let Some(oldest) = self.guests.front().map(|guest| guest.token)
        {
            return self.send_away(oldest, "there are too many others");
        }
        Ok(())
    }

    /// Hears what a guest has to say. `None` if that is not enough to tell.
    fn serve(&mut self, token: u64) -> Option<Result<RawConnection, Error>> {
        let place = self.guests.iter().position(|guest| guest.token == token)?;
        let guest = self.guests.get_mut(place)?;
        let heard = guest.into.receive(guest.socket.as_fd(), Deadline::now());
        let verdict = match heard {
            Err(error) if error.is_timeout() => return None,
            Err(error) => Err(format!("instead of a proof: {error}")),
            Ok(Arrived { kind: Kind::Proof, .. }) => {
                let verdict = handshake::verdict(&self.key, &guest.challenge, guest.into.body());
                verdict.ok_or_else(|| "it does not know the key".to_owned())
            }
            Ok(_) => Err("it does not prove that it knows the key".to_owned()),
        };
        let guest = self.take_out(place)?;
        let through = verdict.and_then(|verdict| {
            let sent = send_now(guest.socket.as_fd(), Kind::Verdict, &verdict);
            sent.map_err(|error| error.to_string())
        });
        Some(match through {
            Ok(()) => RawConnection::from_fd(guest.socket),
            Err(why) => {
                refuse(guest.socket.as_fd(), "the keys are not the same");
                Err(denied(format!("{} has connected and was refused: {why}", guest.address)))
            }
        })
    }

    fn take_out(&mut self, place: usize) -> Option<Guest> {
        let guest = self.guests.remove(place)?;
        self.readiness.remove(guest.socket.as_fd());
        Some(guest)
    }

    /// The oldest guest, if its moment has passed.
    fn send_away_late(&mut self) -> Result<(), Error> {
        match self.guests.front() {
            Some(oldest) if oldest.deadline.has_passed() => {
                let text = format!("it has proved nothing within {:?}", self.timeout);
                self.send_away(oldest.token, &text)
            }
            _ => Ok(()),
        }
    }

    fn send_away(&mut self, token: u64, why: &str) -> Result<(), Error> {
        let place = self.guests.iter().position(|guest| guest.token == token);
        match place.and_then(|place| self.take_out(place)) {
            None => Ok(()),
            Some(guest) => {
                refuse(guest.socket.as_fd(), "too late");
                Err(denied(format!("{} has connected and was refused: {why}", guest.address)))
            }
        }
    }
}

fn send_now(socket: BorrowedFd<'_>, kind: Kind, body: &[u8]) -> Result<(), Error> {
    // A new socket has room for so little.
    Outgoing::new(HANDSHAKE_MESSAGE_MAX).send(socket, kind, body, Vec::new(), Deadline::now())
}

/// Messages go out at once, and a machine that has gone without a word is found out after a while.
fn prepared(socket: TcpStream) -> Result<OwnedFd, Error> {
    let socket = fd::above_stdio(socket.into()).map_err(|error| Error::io("dup", error))?;
    socket::set_prompt(socket.as_fd()).map_err(|error| Error::io("setsockopt", error))?;
    Ok(socket)
}

impl<S, R> Connection<S, R> {
    /// Connects to a [`Listener`] with a path that this user, or root, has made.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nothing is at the path or nobody listens there, [`ErrorKind::PermissionDenied`] if we may not connect, or
    /// the listener belongs to another user, [`ErrorKind::Timeout`] if its queue is full for 10 s. Whether the other side lets us in shows when something is received.
    ///
    /// ```
    /// # fn main() -> Result<(), procession::Error> {
    /// use procession::ErrorKind;
    /// use procession::ipc::{Connection, Listener};
    ///
    /// let mut listener = Listener::new()?;
    /// let mut client = Connection::<u8, u8>::connect(listener.path().unwrap())?;
    /// let mut server = listener.accept::<u8, u8>()?;
    /// assert_eq!(server.peer()?.pid(), std::process::id());
    /// server.send(&1)?;
    /// assert_eq!(client.recv()?, 1);
    /// let error = Connection::<u8, u8>::connect("/nobody/listens/here").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "Client")]
    pub fn connect(path: impl AsRef<Path>) -> Result<Connection<S, R>, Error> {
        Ok(RawConnection::connect(path)?.typed())
    }

    /// As [`connect`](Self::connect), to a listener that this user has made.
    ///
    /// # Errors
    /// As there, if another user has made it.
    pub fn connect_to_user(path: impl AsRef<Path>, uid: u32) -> Result<Connection<S, R>, Error> {
        Ok(RawConnection::connect_to_user(path, uid)?.typed())
    }

    /// Connects to a [`Listener`] on TCP that knows the same key. **Nothing is encrypted**, see there. Takes 10 s at most, and the time to look up
    /// a name.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] if the keys differ, [`ErrorKind::Timeout`], or of the kernel if nobody listens there.
    #[doc(alias = "Client")]
    #[doc(alias = "authkey")]
    pub fn connect_tcp(address: impl ToSocketAddrs, key: &[u8]) -> Result<Connection<S, R>, Error> {
        Ok(RawConnection::connect_tcp(address, key)?.typed())
    }

    /// As [`connect_tcp`](Self::connect_tcp), for so long at most.
    ///
    /// # Errors
    /// As there.
    pub fn connect_tcp_timeout(
        address: impl ToSocketAddrs,
        key: &[u8],
        timeout: Duration,
    ) -> Result<Connection<S, R>, Error> {
        Ok(RawConnection::connect_tcp_timeout(address, key, timeout)?.typed())
    }
}

impl RawConnection {
    /// As [`Connection::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(path: impl AsRef<Path>) -> Result<RawConnection, Error> {
        let own = nix::unistd::geteuid().as_raw();
        connect_to(path.as_ref(), &[own, 0])
    }

    /// As [`Connection::connect_to_user`].
    ///
    /// # Errors
    /// As there.
    pub fn connect_to_user(path: impl AsRef<Path>, uid: u32) -> Result<RawConnection, Error> {
        connect_to(path.as_ref(), &[uid])
    }

    /// As [`Connection::connect_tcp`].
    ///
    /// # Errors
    /// As there.
    pub fn connect_tcp(address: impl ToSocketAddrs, key: &[u8]) -> Result<RawConnection, Error> {
        RawConnection::connect_tcp_timeout(address, key, HANDSHAKE)
    }

    /// As [`Connection::connect_tcp_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn connect_tcp_timeout(
        address: impl ToSocketAddrs,
        key: &[u8],
        timeout: Duration,
    ) -> Result<RawConnection, Error> {
        let (key, deadline) = (Key::new(key)?, Deadline::after(timeout));
        let (socket, address) = connect_tcp_until(address, deadline)?;
        let named = |error: Error| {
            let text = format!("{address}: {}", error.summary());
            Error::new(error.kind()).detail(text)
        };
        prove(socket.as_fd(), &key, deadline).map_err(named)?;
        RawConnection::from_fd(socket)
    }
}

const FULL: &str = "too many wait there to be accepted";

fn connect_to(path: &Path, users: &[u32]) -> Result<RawConnection, Error> {
    let socket = socket::connect_to(path, Some(HANDSHAKE)).map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN) => Error::io("connect", error).kind_of(ErrorKind::Timeout).path(path).detail(FULL),
        Some(libc::ENOENT) => Error::io("connect", error).kind_of(ErrorKind::NotFound).path(path),
        Some(libc::ECONNREFUSED) => {
            Error::io("connect", error).kind_of(ErrorKind::NotFound).path(path).detail("nobody listens there")
        }
        Some(libc::ENAMETOOLONG) => Error::invalid("the path is too long for a socket").path(path),
        Some(libc::EPROTOTYPE) => Error::invalid("something else than a listener of this library is there").path(path),
        _ => Error::io("connect", error).path(path),
    })?;
    let owner = Peer::of(socket.as_fd())?.uid();
    if !users.contains(&owner) {
        return Err(denied(format!("the listener belongs to user {owner}")).path(path));
    }
    RawConnection::from_fd(socket)
}

fn connect_tcp_until(address: impl ToSocketAddrs, deadline: Deadline) -> Result<(OwnedFd, SocketAddr), Error> {
    let addresses = address.to_socket_addrs();
    let addresses = addresses.map_err(|error| Error::invalid("the address to connect to").source(error))?;
    let mut last = Error::invalid("there is no address to connect to");
    for address in addresses {
        let connected = match deadline.remaining() {
            // Zero is refused.
            Some(time) => TcpStream::connect_timeout(&address, time.max(Duration::from_millis(1))),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(socket) => return Ok((prepared(socket)?, address)),
            Err(error) => {
                let is_late = error.kind() == io::ErrorKind::TimedOut;
                let error = Error::io(format!("connect {address}"), error);
                last = if is_late { error.kind_of(ErrorKind::Timeout) } else { error };
            }
        }
    }
    Err(last)
}

/// Proves that we know the key, and wants to see that the other side does.
fn prove(socket: BorrowedFd<'_>, key: &Key, deadline: Deadline) -> Result<(), Error> {
    let mut into = Incoming::new(HANDSHAKE_MESSAGE_MAX);
    let mut expect = |expected: Kind| {
        let Arrived { kind, .. } = into.receive(socket, deadline)?;
        match kind {
            Kind::Refusal => Err(refused(into.body())),
            _ if kind == expected => Ok(std::mem::take(into.body())),
            _ => Err(denied("the other side does not ask for a proof of the key".to_owned())),
        }
    };
    let challenge = expect(Kind::Challenge)?;
    let wrong_length = || denied(format!("the other side asks with {} bytes instead of {LENGTH}", challenge.len()));
    let challenge: Nonce = challenge.as_slice().try_into().map_err(|_| wrong_length())?;
    let mut own = [0; LENGTH];
    socket::random(&mut own).map_err(|error| Error::io("getrandom", error))?;
    let proof = handshake::proof(key, &challenge, &own);
    let sent = Outgoing::new(HANDSHAKE_MESSAGE_MAX).send(socket, Kind::Proof, &proof, Vec::new(), deadline);
    // Who is sent away meanwhile was told why.
    let verdict = expect(Kind::Verdict);
    let verdict = sent.and(verdict)?;
    if !handshake::is_right(key, &challenge, &own, &verdict) {
        return Err(denied("the other side does not know the key".to_owned()));
    }
    Ok(())
}
