//! A manager's process. Decides who may ask for what, and what becomes of a client that goes. One thread for each connection, so nobody waits for
//! anybody's calls but those of the same object.
//!
//! A connection comes through the door, a socket of which every process that was given a proxy has a copy, or from a listener. Whoever has the door has
//! it from us: no name leads to it. The process ends when its lifeline does, which only the owner has.

use super::line::{Line, Memory};
use super::object::{self, Caller, Object, handing, making};
use super::protocol::{Failure, ManagerAnswer2, ManagerRequest2, Payload, Verb};
use super::shelf::Shelf;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::connection::{Connection, RawConnection};
use crate::ipc::function::Function;
use crate::ipc::listener::Listener;
use crate::ipc::passing::Descriptor;
use crate::ipc::wait::wait_any_timeout;
use crate::ipc::{bootstrap, call};
use crate::sys::socket;
use std::collections::HashMap;
use std::io::{PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// So many connections are served at a time. One more is told that it is one too many.
const CONNECTIONS_MAX: usize = 900;
/// Loans that nobody claims are looked for so often.
const ROUND: Duration = Duration::from_secs(1);
/// The objects have so long to go in order when the owner has gone.
const FAREWELL: Duration = Duration::from_secs(1);
/// A method of a user's may need as much as in any other thread.
const STACK: usize = 2 << 20;

/// The other end of a client's connection.
type Visit = Line<ManagerAnswer2, ManagerRequest2>;

/// What the process is started with.
pub(super) type Arguments = (Connection<(), Descriptor>, RawConnection);

struct Server {
    identity: [u8; 16],
    program: (u64, u64),
    shelf: Mutex<Shelf<Arc<dyn Object>>>,
    last_visitor: AtomicU64,
    visitors: AtomicUsize,
    listeners: Mutex<mpsc::Sender<Listener>>,
    wake: PipeWriter,
}

/// What the process does.
pub(super) fn serve(arguments: Arguments) -> Result<(), String> {
    attend_all(arguments).map_err(|error| error.to_string())
}

fn attend_all((mut door, lifeline): Arguments) -> Result<(), Error> {
    let (mut woken, wake) = std::io::pipe().map_err(|error| Error::io("pipe", error))?;
    let (listeners_in, listeners_out) = mpsc::channel();
    let mut identity = [0; 16];
    socket::random(&mut identity).map_err(|error| Error::io("getrandom", error))?;
    let server = Arc::new(Server {
        identity,
        program: call::own_program()?,
        shelf: Mutex::new(Shelf::new()),
        last_visitor: AtomicU64::new(0),
        visitors: AtomicUsize::new(0),
        listeners: Mutex::new(listeners_in),
        wake,
    });
    let mut listeners: Vec<Listener> = Vec::new();
    loop {
        let mut objects: Vec<&dyn AsFd> = vec![&lifeline, &door, &woken];
        objects.extend(listeners.iter().map(|listener| listener as &dyn AsFd));
        let ready = wait_any_timeout(&objects, ROUND)?;
        if ready.contains(&0) {
            break;
        }
        if ready.contains(&1) {
            match door.try_recv() {
                Ok(Some(descriptor)) => {
                    // Whoever sends something else through the door does not come in.
                    if let Ok(connection) = RawConnection::from_fd(descriptor.into_owned_fd()) {
                        server.welcome(connection, true);
                    }
                }
                Ok(None) => {}
                // A descriptor that did not fit into our table is lost, and its sender sees that.
                Err(error) if error.is_resource_exhausted() => {}
                Err(error) => return Err(error),
            }
        }
        if ready.contains(&2) {
            let _ = woken.read(&mut [0; 64]);
        }
        for listener in &mut listeners {
            let is_local = listener.path().is_some();
            // Who is refused was told why; whoever else fails tries again.
            while let Ok(connection) = listener.accept_raw_timeout(Duration::ZERO) {
                server.welcome(connection, is_local);
            }
        }
        listeners.extend(listeners_out.try_iter());
        let late = server.shelf().expire(Instant::now());
        drop(late);
    }
    let (said, done) = mpsc::channel();
    // A destructor of the user's that hangs, or a thread too many, does not keep the process.
    let _ = thread::Builder::new().spawn(move || {
        let objects = server.shelf().clear();
        drop(objects);
        let _ = said.send(());
    });
    let _ = done.recv_timeout(FAREWELL);
    Ok(())
}

impl Server {
    /// Nothing that runs while it is held can panic but for want of memory.
    fn shelf(&self) -> MutexGuard<'_, Shelf<Arc<dyn Object>>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn welcome(self: &Arc<Server>, connection: RawConnection, is_local: bool) {
        let mut visit = Visit::new(connection);
        let refuse = |visit: &mut Visit, text: &str| {
            let failure = Failure::new(ErrorKind::ResourceExhausted, text);
            // If it cannot be told, it sees that the connection is closed.
            let _ = visit.send(&ManagerAnswer2(Err(failure)), Deadline::now());
        };
        if self.visitors.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            self.visitors.fetch_sub(1, Ordering::Relaxed);
            return refuse(&mut visit, &format!("the manager has {CONNECTIONS_MAX} connections, and takes no more"));
        }
        let server = Arc::clone(self);
        let number = self.last_visitor.fetch_add(1, Ordering::Relaxed) + 1;
        let visitor =
            Visitor { server, number, is_local, is_of_program: false, kept: HashMap::new(), called: HashMap::new() };
        // Without a thread the connection is closed, which its client sees.
        let spawned = thread::Builder::new().stack_size(STACK).spawn(move || visitor.attend(visit));
        if spawned.is_err() {
            self.visitors.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A connection, and what it has.
struct Visitor {
    server: Arc<Server>,
    number: u64,
    is_local: bool,
    is_of_program: bool,
    /// References.
    kept: HashMap<u64, u64>,
    /// Objects that may hold something on its behalf.
    called: HashMap<u64, Weak<dyn Object>>,
}

impl Visitor {
    fn attend(mut self, mut visit: Visit) {
        bootstrap::account_for_this_thread();
        // What is no message of ours ends the connection: its client sees that.
        while let Ok(request) = visit.recv(Deadline::NEVER) {
            if request.verb == Verb::Share {
                if self.share(request, &mut visit).is_err() {
                    break;
                }
                continue;
            }
            let has_answer = request.verb != Verb::Release;
            let answer = ManagerAnswer2(self.answer(request, &visit));
            if has_answer && tell(&mut visit, &answer).is_err() {
                break;
            }
        }
        drop(visit);
        self.leave();
    }

    /// From the next message on the memory is used. The answer still goes the old way.
    fn share(&self, request: ManagerRequest2, visit: &mut Visit) -> Result<(), Error> {
        let memory =
            if self.is_local { request.payload.value::<Descriptor>() } else { Err(Error::invalid("not here")) };
        let memory = memory.and_then(|file| Memory::attach(file.as_fd()));
        let (answer, memory) = match memory {
            Ok(memory) => (Ok((0, Payload::default())), Some(memory)),
            Err(error) => (Err(error.into()), None),
        };
        tell(visit, &ManagerAnswer2(answer))?;
        memory.into_iter().for_each(|memory| visit.answer_in(memory));
        Ok(())
    }

    /// What it held is free, what it kept may go.
    fn leave(&mut self) {
        for object in std::mem::take(&mut self.called).into_values() {
            if let Some(object) = object.upgrade() {
                object.left(self.number);
            }
        }
        let mut gone = Vec::new();
        for (number, count) in std::mem::take(&mut self.kept) {
            gone.extend((0..count).filter_map(|_| self.server.shelf().release(number)));
        }
        self.server.visitors.fetch_sub(1, Ordering::Relaxed);
        // The last words of an object are the user's, and may panic.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(gone)));
    }

    /// A panic of the user's is an answer.
    fn answer(&mut self, request: ManagerRequest2, visit: &Visit) -> Result<(u64, Payload), Failure> {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| self.serve(request, visit)));
        caught.unwrap_or_else(|_| Err(Error::of_panic(bootstrap::take_last_panic()).into()))
    }

    fn serve(&mut self, request: ManagerRequest2, visit: &Visit) -> Result<(u64, Payload), Failure> {
        let ManagerRequest2 { verb, object, number, patience, text, payload } = request;
        let nothing = || Payload::default();
        match verb {
            Verb::Hello => {
                self.is_of_program = self.is_local && payload.value::<(u64, u64)>()? == self.server.program;
                Ok((0, Payload::of(&self.server.identity)?))
            }
            Verb::Call => {
                let called = self.server.shelf().get(object)?;
                self.remember(object, &called);
                let deadline = patience.map_or(Deadline::NEVER, Deadline::after);
                let is_gone = || visit.is_gone();
                Ok((0, called.call(payload, &Caller { visitor: self.number, deadline, is_gone: &is_gone })?))
            }
            Verb::Run => {
                self.must_be_of_program("run a function")?;
                let called = self.server.shelf().get(object)?;
                let (bytes, descriptors) = payload.into_parts();
                let result = handing(called, || Function::at(number).call(bytes, descriptors))?;
                Ok((0, Payload::of_encoded(result)))
            }
            Verb::Create => {
                self.must_be_of_program("make an object")?;
                let (bytes, descriptors) = payload.into_parts();
                let (called, made) = making(|| Function::at(number).call(bytes, descriptors));
                called?;
                let none = || Failure::new(ErrorKind::InvalidInput, "the function has made no object");
                let (number, loan) = self.server.shelf().add(made.ok_or_else(none)?, Instant::now());
                Ok((number, Payload::of(&loan)?))
            }
            Verb::Lend => Ok((self.server.shelf().lend(object, Instant::now())?, nothing())),
            Verb::Claim => {
                self.server.shelf().claim(object, number)?;
                Ok((self.has(object), nothing()))
            }
            Verb::Release => {
                let gone = self.release(object);
                drop(gone);
                Ok((0, nothing()))
            }
            Verb::Publish => {
                let of_type = payload.value::<String>()?;
                self.server.shelf().publish(&text, object, &of_type)?;
                Ok((0, nothing()))
            }
            Verb::Find => {
                let of_type = payload.value::<String>()?;
                let number = self.server.shelf().find(&text, &of_type)?;
                Ok((self.has(number), nothing()))
            }
            Verb::Withdraw => {
                let gone = self.server.shelf().withdraw(&text);
                drop(gone);
                Ok((0, nothing()))
            }
            Verb::ListenAtPath => {
                self.must_be_of_program("let others in")?;
                self.listen(Listener::bind(PathBuf::from(text))?)?;
                Ok((0, nothing()))
            }
            // Answered by who has the connection in its hands.
            Verb::Share => Err(Failure::new(ErrorKind::InvalidInput, "the memory is shared already")),
            Verb::ListenOnTcp => {
                self.must_be_of_program("let others in")?;
                let (address, key) = payload.value::<(SocketAddr, Vec<u8>)>()?;
                let listener = Listener::tcp(address, &key)?;
                let address = listener.address();
                self.listen(listener)?;
                Ok((0, Payload::of(&address)?))
            }
        }
    }

    fn must_be_of_program(&self, what: &str) -> Result<(), Failure> {
        if self.is_of_program {
            return Ok(());
        }
        let text = format!("only a process of the same program on the same machine can {what} in a manager");
        Err(Failure::new(ErrorKind::PermissionDenied, text))
    }

    /// It may hold something of this object from now on.
    fn remember(&mut self, number: u64, object: &Arc<dyn Object>) {
        if !object.can_be_held() || self.called.contains_key(&number) {
            return;
        }
        // Those that have gone are forgotten whenever the table would have to grow.
        if self.called.len() == self.called.capacity() {
            self.called.retain(|_, object| object.strong_count() > 0);
        }
        self.called.insert(number, Arc::downgrade(object));
    }

    /// One more reference is this connection's.
    fn has(&mut self, number: u64) -> u64 {
        *self.kept.entry(number).or_default() += 1;
        number
    }

    /// Gives back a reference that is this connection's.
    fn release(&mut self, number: u64) -> Option<Arc<dyn Object>> {
        let count = self.kept.get_mut(&number)?;
        *count -= 1;
        if *count == 0 {
            self.kept.remove(&number);
        }
        self.server.shelf().release(number)
    }

    fn listen(&self, listener: Listener) -> Result<(), Failure> {
        let ended = || Failure::new(ErrorKind::Ended, "the manager is about to end");
        let sender = self.server.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send(listener).map_err(|_| ended())?;
        (&self.server.wake).write_all(&[1]).map_err(|_| ended())
    }
}

/// An answer that cannot be sent is told as a failure; an error if that cannot be sent either.
fn tell(visit: &mut Visit, answer: &ManagerAnswer2) -> Result<(), Error> {
    match visit.send(answer, Deadline::NEVER) {
        Err(error) if error.is_invalid_input() => visit.send(&ManagerAnswer2(Err(error.into())), Deadline::NEVER),
        sent => sent,
    }
}

/// Makes an object, for [`Verb::Create`].
pub(super) fn put_on_shelf(object: impl Object) {
    object::made(Arc::new(object));
}
