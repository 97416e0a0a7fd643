//! A row of values of a manager, as many as at first for ever. Decides what it can be asked from everywhere.

use super::client::{Client, Handle};
use super::collections::{ALL, GET, Item, LENGTH, SET};
use super::object::Shared;
use super::proxy::{self, managed, run};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::program::without_size;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::Arc;

/// A row of values in a manager's process whose length never changes. Among processes of one machine [`ipc::Array`](crate::ipc::Array) is much faster.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let row = manager.array(vec![1.5, 2.5, 3.5])?;
/// row.set(1, &7.0)?;
/// assert_eq!(row.update(|row, ()| row.iter().sum::<f64>(), ())?, 12.0);
/// assert!(row.get(3).unwrap_err().is_invalid_input());
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "ArrayProxy")]
pub struct Array<T> {
    handle: Handle,
    types: PhantomData<fn() -> T>,
}

managed!(Array<T>);

/// What an [`Array`] stands for.
struct Places<T>(Vec<T>);

impl<T: Item> Shared for Places<T> {
    type Call = (u8, u64, Option<T>);
    /// The length, and what was asked for.
    type Answer = (u64, Vec<T>);

    fn call(&mut self, (verb, place, item): Self::Call) -> Self::Answer {
        let length = self.0.len() as u64;
        let at = usize::try_from(place).ok().and_then(|at| self.0.get_mut(at));
        let found = match (verb, at, item) {
            (GET, Some(at), _) => vec![at.clone()],
            (SET, Some(at), Some(item)) => vec![std::mem::replace(at, item)],
            (ALL, ..) => self.0.clone(),
            _ => Vec::new(),
        };
        (length, found)
    }
}

pub(super) fn array<T: Item>(client: &Arc<Client>, values: &Vec<T>) -> Result<Array<T>, Error> {
    Ok(Array { handle: proxy::create(client, Places::<T>, values)?, types: PhantomData })
}

impl<T: Item> Array<T> {
    fn ask(&self, verb: u8, place: u64, item: Option<&T>) -> Result<<Places<T> as Shared>::Answer, Error> {
        self.handle.call(&(verb, place, item), Deadline::NEVER)
    }

    fn one(&self, verb: u8, place: u64, item: Option<&T>) -> Result<T, Error> {
        let (length, found) = self.ask(verb, place, item)?;
        let outside = || Error::invalid(format!("there is no place {place} in an array of {length}"));
        found.into_iter().next().ok_or_else(outside)
    }

    /// The value at this place.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such place. As [`Proxy::call`](super::Proxy::call).
    pub fn get(&self, place: u64) -> Result<T, Error> {
        self.one(GET, place, None)
    }

    /// Replaces the value at this place, and returns what was there.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn set(&self, place: u64, value: &T) -> Result<T, Error> {
        self.one(SET, place, Some(value))
    }

    /// How many there are.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn len(&self) -> Result<u64, Error> {
        Ok(self.ask(LENGTH, 0, None)?.0)
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
    pub fn to_vec(&self) -> Result<Vec<T>, Error> {
        Ok(self.ask(ALL, 0, None)?.1)
    }

    /// Calls a function with all values in its hands, over there. See [`Proxy::with`](super::Proxy::with).
    ///
    /// # Errors
    /// As there.
    pub fn update<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(&mut [T], A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let _witness = function;
        let inside = |row: &mut Places<T>, arguments: A| without_size::<F>()(&mut row.0, arguments);
        run(&self.handle, inside, &arguments)
    }
}
