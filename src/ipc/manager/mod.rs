//! Objects that live in a process of their own, and are called from everywhere.
//!
//! A [`Manager`] starts that process. It has dicts, lists, sets, arrays, single values, queues, locks and the like, and [types of your own](Shared). What you hold of
//! them are proxies: each can be cloned, used by several threads, passed to other processes, and found by name, also from other machines.
//!
//! Each call is a message and its answer: on one machine some microseconds, by memory that both sides see. What many processes share all the time is better
//! off in memory of its own: see the
//! other types of [`ipc`](crate::ipc).

mod array;
mod barrier;
mod client;
mod collections;
mod condition;
mod line;
mod object;
mod protocol;
mod proxy;
mod rlock;
mod server;
mod set;
mod shelf;
mod waiting;

pub use array::Array;
pub use barrier::Barrier;
pub use collections::{Cell, Dict, Item, List, Namespace};
pub use condition::Condition;
pub use object::Shared;
pub use proxy::{Managed, Proxy};
pub use rlock::{RLock, RLockGuard};
pub use set::Set;
pub use waiting::{AcquireError, Event, Lock, LockGuard, Permit, Queue, Semaphore};

use self::client::{Client, Door, SILENCE_MAX};
use self::collections::{Entries, Row, Slot, Typed};
use self::protocol::{ManagerRequest2, Payload, Verb};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::codec;
use crate::ipc::connection::{Connection, RawConnection};
use crate::ipc::passing::Descriptor;
use crate::ipc::process::Process;
use crate::signal::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A process that was asked to end gets so long, if nothing is said.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// A process that holds objects for others, or the way to one.
///
/// [`start`](Self::start) starts it, and it ends when the manager is dropped, or its process ends in whatever way. Nothing leads to it but the proxies
/// that you pass on, unless you let others in: [`listen_at`](Self::listen_at) for programs of the same user,
/// [`listen_on_tcp`](Self::listen_on_tcp) for who knows a key. They [`connect`](Self::connect) and [`find`](Self::find) what you have
/// [published](Self::publish). Nothing that arrives can make anything run but functions of this very program, and those only from its own processes
/// on this machine.
///
/// ```
/// use procession::ipc::{Manager, Process};
/// use procession::ipc::manager::List;
///
/// let manager = Manager::start()?;
/// let list = manager.list::<u32>()?;
/// let append = |list: List<u32>| list.push(&7).map_err(|error| error.to_string());
/// assert_eq!(Process::start(append, list.clone())?.join()?, Ok(()));
/// assert_eq!(list.to_vec()?, [7]);
/// manager.shutdown()?;
/// assert!(list.to_vec().unwrap_err().to_string().contains("the manager has ended"));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
#[doc(alias = "SyncManager")]
#[doc(alias = "BaseManager")]
pub struct Manager {
    client: Arc<Client>,
    server: Option<Server>,
}

/// The process, if it is ours.
#[derive(Debug)]
struct Server {
    process: Process<Result<(), String>>,
    lifeline: RawConnection,
}

impl Manager {
    /// Starts the process. It ignores SIGINT, so ^C does not take the objects away from those who use them.
    ///
    /// # Errors
    /// If no process can be started: see [`ProcessBuilder::start`](crate::ipc::ProcessBuilder::start).
    pub fn start() -> Result<Manager, Error> {
        let (ours, theirs) = Connection::<Descriptor, ()>::pair()?;
        let (lifeline, its_end) = RawConnection::pair()?;
        let builder = Process::builder(server::serve, (theirs, its_end)).name("manager");
        let mut process = builder.configure(|command| command.ignore_signal(Signal::INT)).start()?;
        let door = ours.as_fd().try_clone_to_owned().map_err(|error| Error::io("dup", error))?;
        match Client::connect(Door::Socket(door), Deadline::after(SILENCE_MAX)) {
            Ok(client) => Ok(Manager { client, server: Some(Server { process, lifeline }) }),
            Err(error) => {
                // What it says itself tells more.
                drop(lifeline);
                let said = process.join_timeout(SHUTDOWN);
                _ = process.kill()?;
                _ = process.wait()?;
                Err(said.err().filter(|error| !error.is_timeout()).unwrap_or(error))
            }
        }
    }

    /// Connects to a manager that [listens at this path](Self::listen_at). Dropping it ends nothing over there.
    ///
    /// # Errors
    /// As [`Connection::connect`], and if something else listens there.
    pub fn connect(path: impl AsRef<Path>) -> Result<Manager, Error> {
        let door = Door::Path(client::absolute(path.as_ref())?);
        Ok(Manager { client: Client::connect(door, Deadline::after(SILENCE_MAX))?, server: None })
    }

    /// Connects to a manager that [listens on TCP](Self::listen_on_tcp). **Nothing is encrypted**: see [`Listener`](crate::ipc::Listener).
    ///
    /// What is found there cannot be passed on to other processes: they connect by themselves.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] if the keys differ. As [`Connection::connect_tcp`].
    pub fn connect_tcp(address: impl ToSocketAddrs, key: &[u8]) -> Result<Manager, Error> {
        let door = Door::Tcp(one_address(address)?, key.to_vec());
        Ok(Manager { client: Client::connect(door, Deadline::after(SILENCE_MAX))?, server: None })
    }

    /// Lets processes of the same user in at this path, where nothing may be yet. The manager removes it when it ends in order.
    ///
    /// # Errors
    /// As [`Listener::bind`](crate::ipc::Listener::bind).
    ///
    /// ```
    /// use procession::ipc::Manager;
    /// use procession::ipc::manager::Dict;
    ///
    /// let path = std::env::temp_dir().join(format!("objects-{}", std::process::id()));
    /// let manager = Manager::start()?;
    /// manager.listen_at(&path)?;
    /// manager.publish("counts", &manager.dict::<String, u32>()?)?;
    ///
    /// // In any program of the same user:
    /// let other = Manager::connect(&path)?;
    /// let counts = other.find::<Dict<String, u32>>("counts")?;
    /// counts.insert(&"one".to_owned(), &1)?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn listen_at(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = client::absolute(path.as_ref())?;
        let text = path.to_str().ok_or_else(|| Error::invalid("the path is no text").path(&path))?.to_owned();
        self.client.ask(&ManagerRequest2 { text, ..ManagerRequest2::new(Verb::ListenAtPath, 0) }).map(drop)
    }

    /// Lets in who knows the key, by TCP. With port 0 the kernel chooses one; where it listens is returned. **Nothing is encrypted**: see
    /// [`Listener::tcp`](crate::ipc::Listener::tcp).
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// use procession::ipc::Manager;
    /// use procession::ipc::manager::Cell;
    ///
    /// let key = [7; 32]; // better: random
    /// let manager = Manager::start()?;
    /// manager.publish("answer", &manager.cell(42)?)?;
    /// let address = manager.listen_on_tcp("127.0.0.1:0", &key)?;
    ///
    /// let remote = Manager::connect_tcp(address, &key)?;
    /// assert_eq!(remote.find::<Cell<i32>>("answer")?.get()?, 42);
    /// assert!(Manager::connect_tcp(address, &[8; 32]).is_err());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[doc(alias = "get_server")]
    #[doc(alias = "authkey")]
    pub fn listen_on_tcp(&self, address: impl ToSocketAddrs, key: &[u8]) -> Result<SocketAddr, Error> {
        let payload = Payload::of(&(one_address(address)?, key))?;
        let request = ManagerRequest2 { payload, ..ManagerRequest2::new(Verb::ListenOnTcp, 0) };
        let listens = self.client.ask(&request)?.1.value::<Option<SocketAddr>>()?;
        listens.ok_or_else(|| Error::new(ErrorKind::Decode).detail("the manager does not say where it listens"))
    }

    /// The number of the process, if it is ours.
    pub fn id(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.process.id())
    }

    /// Makes an object of your own type over there, by a function that captures nothing. See [`Shared`].
    ///
    /// # Errors
    /// A panic of the function; arguments that cannot be sent. [`ErrorKind::PermissionDenied`] unless this is the program that has started the manager, on
    /// the same machine. [`ErrorKind::Ended`] when the manager has ended.
    pub fn create<T, F, A>(&self, make: F, arguments: A) -> Result<Proxy<T>, Error>
    where
        T: Shared,
        F: Fn(A) -> T + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
    {
        Ok(Proxy::of_handle(proxy::create(&self.client, make, &arguments)?))
    }

    /// A new map.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn dict<K: Item + Eq + Hash, V: Item>(&self) -> Result<Dict<K, V>, Error> {
        let make = |()| Entries::<K, V>(HashMap::new());
        Ok(Dict::of_handle(proxy::create(&self.client, make, &())?))
    }

    /// A new list.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn list<T: Item>(&self) -> Result<List<T>, Error> {
        Ok(List::of_handle(proxy::create(&self.client, |()| Row::<T>(Vec::new()), &())?))
    }

    /// A new set.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn set<T: Item + Eq + Hash>(&self) -> Result<Set<T>, Error> {
        set::set(&self.client)
    }

    /// A new row of these values, whose length never changes.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn array<T: Item>(&self, values: impl Into<Vec<T>>) -> Result<Array<T>, Error> {
        array::array(&self.client, &values.into())
    }

    /// A new place for one value.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn cell<T: Item>(&self, value: T) -> Result<Cell<T>, Error> {
        Ok(Cell::of_handle(proxy::create(&self.client, Slot::<T>, &value)?))
    }

    /// New names for values of any type.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn namespace(&self) -> Result<Namespace, Error> {
        let make = |()| Entries::<String, Typed>(HashMap::new());
        Ok(Namespace::of_handle(proxy::create(&self.client, make, &())?))
    }

    /// A new queue for so many items at a time.
    ///
    /// # Errors
    /// As [`create`](Self::create). [`ErrorKind::InvalidInput`] for none at a time.
    pub fn queue<T: Item>(&self, items_max: u64) -> Result<Queue<T>, Error> {
        waiting::queue(&self.client, items_max)
    }

    /// A new lock, free.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn lock(&self) -> Result<Lock, Error> {
        waiting::lock(&self.client)
    }

    /// A new lock that its holder can take again, free.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn rlock(&self) -> Result<RLock, Error> {
        rlock::rlock(&self.client)
    }

    /// A new condition; it belongs to no lock in particular.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn condition(&self) -> Result<Condition, Error> {
        condition::condition(&self.client)
    }

    /// A new barrier for so many.
    ///
    /// # Errors
    /// As [`create`](Self::create). [`ErrorKind::InvalidInput`] for none.
    pub fn barrier(&self, parties: u64) -> Result<Barrier, Error> {
        barrier::barrier(&self.client, parties)
    }

    /// A new semaphore with so many permits; [`release`](Semaphore::release) can make more.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn semaphore(&self, permits: u64) -> Result<Semaphore, Error> {
        waiting::semaphore(&self.client, permits, waiting::PERMITS_MAX)
    }

    /// A new semaphore with so many permits, and never more: a [`release`](Semaphore::release) too many is an error.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn bounded_semaphore(&self, permits: u64) -> Result<Semaphore, Error> {
        waiting::semaphore(&self.client, permits, permits)
    }

    /// A new flag, not set.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn event(&self) -> Result<Event, Error> {
        waiting::event(&self.client)
    }

    /// Gives an object a name, by which others [find](Self::find) it. It stays until the name is [withdrawn](Self::withdraw).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if something has the name, or the object belongs to another manager.
    pub fn publish<M: Managed>(&self, name: &str, object: &M) -> Result<(), Error> {
        let handle = object.handle();
        if !Arc::ptr_eq(handle.client(), &self.client) {
            return Err(Error::invalid(format!("the object to be named {name:?} belongs to another manager")));
        }
        let payload = Payload::of(&codec::short_name::<M>())?;
        let request =
            ManagerRequest2 { text: name.to_owned(), payload, ..ManagerRequest2::new(Verb::Publish, handle.object()) };
        self.client.ask(&request).map(drop)
    }

    /// The object of this name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nothing has the name, [`ErrorKind::InvalidInput`] if it is of another type.
    pub fn find<M: Managed>(&self, name: &str) -> Result<M, Error> {
        let payload = Payload::of(&codec::short_name::<M>())?;
        let request = ManagerRequest2 { text: name.to_owned(), payload, ..ManagerRequest2::new(Verb::Find, 0) };
        let (object, _) = self.client.ask(&request)?;
        Ok(M::of_handle(client::Handle::counted(&self.client, object)))
    }

    /// Takes a name away. Those who have found the object keep it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn withdraw(&self, name: &str) -> Result<(), Error> {
        let request = ManagerRequest2 { text: name.to_owned(), ..ManagerRequest2::new(Verb::Withdraw, 0) };
        self.client.ask(&request).map(drop)
    }

    /// Ends the process, and waits for its end; a connection to somebody else's is closed. The objects are dropped over there. If that takes more than
    /// a second, or anything else more than three, the process is killed. Dropping the manager does the same.
    ///
    /// # Errors
    /// If the system refuses, or the process has ended before in another way: with its record.
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.server.take().map_or(Ok(()), Server::shutdown)
    }
}

impl Server {
    fn shutdown(self) -> Result<(), Error> {
        let Server { mut process, lifeline } = self;
        drop(lifeline);
        match process.join_timeout(SHUTDOWN) {
            Err(error) if error.is_timeout() => {
                process.kill()?;
                process.wait().map(drop)
            }
            Err(error) => Err(error),
            Ok(Err(text)) => Err(Error::new(ErrorKind::Engine).detail(format!("the manager has failed: {text}"))),
            Ok(Ok(())) => Ok(()),
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Nobody can be told, and nothing is left.
        let _ = self.server.take().map(Server::shutdown);
    }
}

fn one_address(address: impl ToSocketAddrs) -> Result<SocketAddr, Error> {
    let addresses = address.to_socket_addrs().map_err(|error| Error::invalid("the address").source(error))?;
    addresses.into_iter().next().ok_or_else(|| Error::invalid("there is no address"))
}
