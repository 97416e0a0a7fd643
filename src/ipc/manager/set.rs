//! A set of a manager: what each item is in once. Decides what it can be asked from everywhere.

use super::client::{Client, Handle};
use super::collections::{ALL, CLEAR, GET, Item, LENGTH, PUSH, REMOVE};
use super::object::Shared;
use super::proxy::{self, managed, run};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::program::without_size;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// A set in a manager's process.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let seen = manager.set::<String>()?;
/// assert!(seen.insert(&"one".to_owned())?);
/// assert!(!seen.insert(&"one".to_owned())?);
/// assert!(seen.contains(&"one".to_owned())? && seen.remove(&"one".to_owned())?);
/// assert!(seen.is_empty()?);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "HashSet")]
pub struct Set<T> {
    handle: Handle,
    types: PhantomData<fn() -> T>,
}

managed!(Set<T>);

/// What a [`Set`] stands for.
struct Members<T>(HashSet<T>);

impl<T: Item + Eq + Hash> Shared for Members<T> {
    type Call = (u8, Option<T>);
    type Answer = (u64, Vec<T>);

    fn call(&mut self, (verb, item): Self::Call) -> Self::Answer {
        let set = &mut self.0;
        let whether = |is: bool| (u64::from(is), Vec::new());
        match (verb, item) {
            (GET, Some(item)) => whether(set.contains(&item)),
            (PUSH, Some(item)) => whether(set.insert(item)),
            (REMOVE, Some(item)) => whether(set.remove(&item)),
            (ALL, _) => (0, set.iter().cloned().collect()),
            (CLEAR, _) => {
                set.clear();
                whether(true)
            }
            _ => (set.len() as u64, Vec::new()),
        }
    }
}

pub(super) fn set<T: Item + Eq + Hash>(client: &Arc<Client>) -> Result<Set<T>, Error> {
    let handle = proxy::create(client, |()| Members::<T>(HashSet::new()), &())?;
    Ok(Set { handle, types: PhantomData })
}

impl<T: Item + Eq + Hash> Set<T> {
    fn ask(&self, verb: u8, item: Option<&T>) -> Result<<Members<T> as Shared>::Answer, Error> {
        self.handle.call(&(verb, item), Deadline::NEVER)
    }

    /// Puts an item in. Whether it was not there.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "add")]
    pub fn insert(&self, item: &T) -> Result<bool, Error> {
        Ok(self.ask(PUSH, Some(item))?.0 == 1)
    }

    /// Takes an item out. Whether it was there.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "discard")]
    pub fn remove(&self, item: &T) -> Result<bool, Error> {
        Ok(self.ask(REMOVE, Some(item))?.0 == 1)
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn contains(&self, item: &T) -> Result<bool, Error> {
        Ok(self.ask(GET, Some(item))?.0 == 1)
    }

    /// How many there are.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn len(&self) -> Result<u64, Error> {
        Ok(self.ask(LENGTH, None)?.0)
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// A copy of all as it is now.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn to_set(&self) -> Result<HashSet<T>, Error> {
        Ok(self.ask(ALL, None)?.1.into_iter().collect())
    }

    /// Takes all out.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn clear(&self) -> Result<(), Error> {
        self.ask(CLEAR, None).map(drop)
    }

    /// Calls a function with the set in its hands, over there: unions, differences, everything that takes several steps. See
    /// [`Proxy::with`](super::Proxy::with).
    ///
    /// # Errors
    /// As there.
    pub fn update<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(&mut HashSet<T>, A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let _witness = function;
        let inside = |set: &mut Members<T>, arguments: A| without_size::<F>()(&mut set.0, arguments);
        run(&self.handle, inside, &arguments)
    }
}
