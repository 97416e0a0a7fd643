//! A process that uses a manager, as the manager's process sees it. Decides which connection carries what: one, the anchor, keeps the references, and
//! its end gives them back; calls go over others, of which there are as many as threads call at a time.

use super::line::{self, Memory};
use super::protocol::{ManagerAnswer2, ManagerRequest2, Payload, Verb};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::connection::{Connection, RawConnection};
use crate::ipc::passing::{self, Descriptor};
use crate::ipc::{call, frames};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A manager that says nothing for so long while one connects, or asks for something that never waits, is taken for dead.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A server that was asked to answer by some moment gets so much longer to say that it could not.
const MARGIN: Duration = Duration::from_secs(2);
/// Connections that are kept for the next call.
const IDLE_MAX: usize = 16;

/// How to come to a manager.
pub(super) enum Door {
    /// Ends of sockets can be sent through it.
    Socket(OwnedFd),
    Path(PathBuf),
    Tcp(SocketAddr, Vec<u8>),
}

/// One connection to a manager.
pub(super) type Line = line::Line<ManagerRequest2, ManagerAnswer2>;

impl Line {
    /// A new connection, and the number of the server.
    fn open(door: &Door, deadline: Deadline) -> Result<(Line, [u8; 16]), Error> {
        let connection = match door {
            Door::Socket(door) => through(door, deadline)?,
            Door::Path(path) => RawConnection::connect(path)?,
            Door::Tcp(address, key) => RawConnection::connect_tcp(address, key)?,
        };
        let mut line = Line::new(connection);
        let payload = Payload::of(&call::own_program()?)?;
        let hello = ManagerRequest2 { payload, ..ManagerRequest2::new(Verb::Hello, 0) };
        let (_, identity) = line.ask(&hello, deadline)??;
        Ok((line, identity.value()?))
    }

    /// A new connection for calls: through memory if both sides are on one machine.
    fn open_for_calls(door: &Door, deadline: Deadline) -> Result<Line, Error> {
        let (mut line, _) = Line::open(door, deadline)?;
        if !matches!(door, Door::Tcp(..)) {
            let (memory, file) = Memory::create()?;
            let file = Descriptor::from(file);
            let share = ManagerRequest2 { payload: Payload::of(&file)?, ..ManagerRequest2::new(Verb::Share, 0) };
            // If it cannot over there, the socket does it all.
            if line.ask(&share, deadline)?.is_ok() {
                line.ask_in(memory);
            }
        }
        Ok(line)
    }

    /// Asks for something, and waits for the answer. The outer error: this connection cannot be used any more.
    pub(super) fn ask(
        &mut self,
        request: &ManagerRequest2,
        deadline: Deadline,
    ) -> Result<Result<(u64, Payload), Error>, Error> {
        self.say(request, deadline)?;
        let ManagerAnswer2(answer) = self.recv(deadline).map_err(of_server)?;
        Ok(answer.map_err(super::protocol::Failure::into_error))
    }

    /// Says something that has no answer.
    fn say(&mut self, request: &ManagerRequest2, deadline: Deadline) -> Result<(), Error> {
        self.send(request, deadline).map_err(of_server)
    }
}

/// The error of a connection, as one of the manager.
fn of_server(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Ended => Error::new(ErrorKind::Ended).detail("the manager has ended"),
        ErrorKind::Timeout => Error::new(ErrorKind::Timeout)
            .detail("timed out: the manager has not answered, and may still do what it was asked"),
        _ => error,
    }
}

/// Sends the other end of a new connection through the door.
fn through(door: &OwnedFd, deadline: Deadline) -> Result<RawConnection, Error> {
    let (ours, theirs) = frames::packet_pair()?;
    let copy = door.try_clone().map_err(|error| Error::io("dup", error))?;
    // One message is one system call, so those of several processes do not mix.
    let (mut way, _) = Connection::<Descriptor, ()>::from_fd(copy)?.split();
    way.send_until(&Descriptor::from(theirs), deadline).map_err(of_server)?;
    RawConnection::from_fd(ours)
}

/// What this process knows of a manager, and has there.
pub(super) struct Client {
    identity: [u8; 16],
    door: Door,
    /// `None` once an answer did not come: a late one would be taken for another.
    anchor: Mutex<Option<Line>>,
    idle: Mutex<Vec<Line>>,
}

/// The managers that this process is connected to.
static CLIENTS: Mutex<Vec<Weak<Client>>> = Mutex::new(Vec::new());

impl Client {
    /// Connects, unless this process is connected to the same manager already.
    pub(super) fn connect(door: Door, deadline: Deadline) -> Result<Arc<Client>, Error> {
        let (anchor, identity) = Line::open(&door, deadline)?;
        let mut clients = locked(&CLIENTS);
        clients.retain(|client| client.strong_count() > 0);
        if let Some(client) = find(&clients, identity) {
            return Ok(client);
        }
        let client = Client { identity, door, anchor: Mutex::new(Some(anchor)), idle: Mutex::default() };
        let client = Arc::new(client);
        clients.push(Arc::downgrade(&client));
        Ok(client)
    }

    /// Asks on the anchor, for what never waits.
    pub(super) fn ask(&self, request: &ManagerRequest2) -> Result<(u64, Payload), Error> {
        let mut anchor = locked(&self.anchor);
        let line = anchor.as_mut().ok_or_else(|| of_server(frames::closed()))?;
        let answer = line.ask(request, Deadline::after(SILENCE_MAX));
        if answer.is_err() {
            *anchor = None;
        }
        answer?
    }

    /// A connection for a call.
    pub(super) fn line(&self) -> Result<Line, Error> {
        let idle = locked(&self.idle).pop();
        idle.map_or_else(|| Line::open_for_calls(&self.door, Deadline::after(SILENCE_MAX)), Ok)
    }

    /// Keeps a connection for the next call.
    pub(super) fn put_back(&self, line: Line) {
        let mut idle = locked(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push(line);
        }
    }
}

fn find(clients: &[Weak<Client>], identity: [u8; 16]) -> Option<Arc<Client>> {
    clients.iter().filter_map(Weak::upgrade).find(|client| client.identity == identity)
}

/// What is in it is whole at every moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reference to an object of a manager. The object stays as long as any process has one.
#[derive(Clone)]
pub struct Handle(Arc<Reference>);

struct Reference {
    client: Arc<Client>,
    object: u64,
}

impl Drop for Reference {
    fn drop(&mut self) {
        let release = ManagerRequest2::new(Verb::Release, self.object);
        // If the manager has gone, so has the object.
        let mut anchor = locked(&self.client.anchor);
        if anchor.as_mut().is_some_and(|line| line.say(&release, Deadline::after(SILENCE_MAX)).is_err()) {
            *anchor = None;
        }
    }
}

impl Handle {
    /// Asks for a new object, however long that takes, and takes it as one that was sent to us.
    pub(super) fn create(client: &Arc<Client>, request: &ManagerRequest2) -> Result<Handle, Error> {
        let mut line = client.line()?;
        let answer = line.ask(request, Deadline::NEVER)?;
        client.put_back(line);
        let (object, loan) = answer?;
        let claim = ManagerRequest2 { number: loan.value()?, ..ManagerRequest2::new(Verb::Claim, object) };
        client.ask(&claim)?;
        Ok(Handle::counted(client, object))
    }

    /// A reference that the manager has counted already.
    pub(super) fn counted(client: &Arc<Client>, object: u64) -> Handle {
        Handle(Arc::new(Reference { client: Arc::clone(client), object }))
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.0.client
    }

    pub(super) fn object(&self) -> u64 {
        self.0.object
    }

    /// What no other object has.
    pub(super) fn key(&self) -> ([u8; 16], u64) {
        (self.client().identity, self.object())
    }

    pub(super) fn is_same(&self, other: &Handle) -> bool {
        self.key() == other.key()
    }

    /// Calls the object, in its own words.
    pub(super) fn call<C, A>(&self, call: &C, deadline: Deadline) -> Result<A, Error>
    where
        C: Serialize + ?Sized,
        A: DeserializeOwned,
    {
        let (answer, line) = self.call_on(self.client().line()?, call, deadline)?;
        self.client().put_back(line);
        answer
    }

    /// Calls the object over this connection. The outer error: the connection is closed.
    pub(super) fn call_on<C, A>(
        &self,
        mut line: Line,
        call: &C,
        deadline: Deadline,
    ) -> Result<(Result<A, Error>, Line), Error>
    where
        C: Serialize + ?Sized,
        A: DeserializeOwned,
    {
        let payload = match Payload::of(call) {
            Ok(payload) => payload,
            Err(error) => return Ok((Err(error), line)),
        };
        let patience = deadline.remaining();
        let request = ManagerRequest2 { patience, payload, ..ManagerRequest2::new(Verb::Call, self.object()) };
        let until = deadline.moment().map_or(Deadline::NEVER, |moment| Deadline::at(moment + MARGIN));
        let answer = line.ask(&request, until)?;
        Ok((answer.and_then(|(_, payload)| payload.value()), line))
    }

    /// Asks for something that is no call of the object, over a connection for calls.
    pub(super) fn request(&self, request: &ManagerRequest2, deadline: Deadline) -> Result<Payload, Error> {
        let mut line = self.client().line()?;
        let answer = line.ask(request, deadline)?;
        self.client().put_back(line);
        Ok(answer?.1)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Object").field(&self.object()).finish()
    }
}

/// The number of the manager, the object, the loan, and how to come there: by a descriptor or a path.
type Passed = ([u8; 16], u64, u64, Option<Descriptor>, Option<PathBuf>);

impl Handle {
    fn passed(&self) -> Result<Passed, Error> {
        let client = self.client();
        let (door, path) = match &client.door {
            Door::Socket(door) => {
                let copy = door.try_clone().map_err(|error| Error::io("dup", error))?;
                (Some(Descriptor::from(copy)), None)
            }
            Door::Path(path) => (None, Some(path.clone())),
            Door::Tcp(..) => {
                let text =
                    "what belongs to a manager behind TCP cannot be passed on: connect there, and find it by name";
                return Err(Error::invalid(text));
            }
        };
        let (loan, _) = client.ask(&ManagerRequest2::new(Verb::Lend, self.object()))?;
        Ok((client.identity, self.object(), loan, door, path))
    }

    fn claim((identity, object, loan, door, path): Passed) -> Result<Handle, Error> {
        let known = find(&locked(&CLIENTS), identity);
        let client = match (known, door, path) {
            (Some(client), _, _) => client,
            (None, Some(door), _) => Client::connect(Door::Socket(door.into_owned_fd()), Deadline::after(SILENCE_MAX))?,
            (None, None, Some(path)) => Client::connect(Door::Path(path), Deadline::after(SILENCE_MAX))?,
            (None, None, None) => return Err(Error::invalid("nothing says how to come to the manager")),
        };
        if client.identity != identity {
            return Err(Error::new(ErrorKind::Ended).detail("the manager has ended, and another one is in its place"));
        }
        client.ask(&ManagerRequest2 { number: loan, ..ManagerRequest2::new(Verb::Claim, object) })?;
        Ok(Handle::counted(&client, object))
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.passed().map_err(|why| S::Error::custom(passing::because(why)))?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Handle, D::Error> {
        let passed = Passed::deserialize(deserializer)?;
        Handle::claim(passed).map_err(|why| D::Error::custom(passing::because(why)))
    }
}

/// The path of a manager that listens at one.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::invalid("the path").path(path).source(error))
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.door {
            Door::Socket(door) => out.debug_tuple("Door").field(&door.as_fd()).finish(),
            Door::Path(path) => out.debug_tuple("Door").field(path).finish(),
            Door::Tcp(address, _) => out.debug_tuple("Door").field(address).finish(),
        }
    }
}
