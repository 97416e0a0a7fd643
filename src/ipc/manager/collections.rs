//! The collections of a manager: a dict, a list, one value, names with values of any type. Decides what each can be asked from everywhere. What takes
//! several steps is a function that has the collection in its hands.

use super::client::Handle;
use super::object::Shared;
use super::proxy::{managed, run};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::codec;
use crate::sys::program::without_size;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::hash::Hash;
use std::marker::PhantomData;

/// What can be part of a collection.
pub trait Item: Serialize + DeserializeOwned + Clone + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Item for T {}

pub(super) const GET: u8 = 0;
pub(super) const SET: u8 = 1;
pub(super) const REMOVE: u8 = 2;
pub(super) const LENGTH: u8 = 3;
pub(super) const ALL: u8 = 4;
pub(super) const CLEAR: u8 = 5;
pub(super) const PUSH: u8 = 6;

/// A map in a manager's process: what one puts in all can get.
///
/// A value is data, so what you get is a copy: change it with [`update`](Self::update), or put it in again. The items have no order. A value can be
/// a proxy for something else.
///
/// ```
/// use procession::ipc::{Manager, Process};
/// use procession::ipc::manager::Dict;
///
/// fn count(words: (Dict<String, u32>, String)) -> Result<(), String> {
///     let (counts, text) = words;
///     for word in text.split_whitespace() {
///         let add = |counts: &mut std::collections::HashMap<String, u32>, word: String| *counts.entry(word).or_default() += 1;
///         counts.update(add, word.to_owned()).map_err(|error| error.to_string())?;
///     }
///     Ok(())
/// }
///
/// let manager = Manager::start()?;
/// let counts = manager.dict::<String, u32>()?;
/// let mut one = Process::start(count, (counts.clone(), "a rose is".to_owned()))?;
/// let mut two = Process::start(count, (counts.clone(), "a rose".to_owned()))?;
/// assert_eq!((one.join()?, two.join()?), (Ok(()), Ok(())));
/// assert_eq!(counts.get(&"rose".to_owned())?, Some(2));
/// assert_eq!(counts.len()?, 3);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "DictProxy")]
#[doc(alias = "HashMap")]
pub struct Dict<K, V> {
    handle: Handle,
    types: PhantomData<fn() -> (K, V)>,
}

managed!(Dict<K, V>);

/// What a [`Dict`] stands for.
pub(super) struct Entries<K, V>(pub(super) HashMap<K, V>);

impl<K: Item + Eq + Hash, V: Item> Shared for Entries<K, V> {
    type Call = (u8, Option<K>, Option<V>);
    type Answer = (u64, Option<V>, Vec<(K, V)>);

    fn call(&mut self, (verb, key, value): Self::Call) -> Self::Answer {
        let map = &mut self.0;
        let one = |value| (0, value, Vec::new());
        match (verb, key, value) {
            (GET, Some(key), _) => one(map.get(&key).cloned()),
            (SET, Some(key), Some(value)) => one(map.insert(key, value)),
            (REMOVE, Some(key), _) => one(map.remove(&key)),
            (ALL, ..) => (0, None, map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
            (CLEAR, ..) => {
                map.clear();
                one(None)
            }
            _ => (map.len() as u64, None, Vec::new()),
        }
    }
}

impl<K: Item + Eq + Hash, V: Item> Dict<K, V> {
    fn ask(&self, verb: u8, key: Option<&K>, value: Option<&V>) -> Result<<Entries<K, V> as Shared>::Answer, Error> {
        self.handle.call(&(verb, key, value), Deadline::NEVER)
    }

    /// The value of this key.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        Ok(self.ask(GET, Some(key), None)?.1)
    }

    /// Sets the value of this key, and returns what it was.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn insert(&self, key: &K, value: &V) -> Result<Option<V>, Error> {
        Ok(self.ask(SET, Some(key), Some(value))?.1)
    }

    /// Takes the value of this key out.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "pop")]
    pub fn remove(&self, key: &K) -> Result<Option<V>, Error> {
        Ok(self.ask(REMOVE, Some(key), None)?.1)
    }

    /// How many there are.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn len(&self) -> Result<u64, Error> {
        Ok(self.ask(LENGTH, None, None)?.0)
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
    #[doc(alias = "items")]
    #[doc(alias = "_getvalue")]
    pub fn to_map(&self) -> Result<HashMap<K, V>, Error> {
        Ok(self.ask(ALL, None, None)?.2.into_iter().collect())
    }

    /// Takes all out.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn clear(&self) -> Result<(), Error> {
        self.ask(CLEAR, None, None).map(drop)
    }

    /// Calls a function with the map in its hands, over there: for everything that takes several steps. See [`Proxy::with`](super::Proxy::with).
    ///
    /// # Errors
    /// As there.
    pub fn update<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(&mut HashMap<K, V>, A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let _witness = function;
        let inside = |entries: &mut Entries<K, V>, arguments: A| without_size::<F>()(&mut entries.0, arguments);
        run(&self.handle, inside, &arguments)
    }
}

/// A list in a manager's process.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let list = manager.list::<String>()?;
/// list.push(&"one".to_owned())?;
/// list.push(&"two".to_owned())?;
/// assert_eq!(list.get(1)?.as_deref(), Some("two"));
/// list.update(|list, ()| list.sort_by_key(|text| std::cmp::Reverse(text.clone())), ())?;
/// assert_eq!(list.to_vec()?, ["two", "one"]);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "ListProxy")]
pub struct List<T> {
    handle: Handle,
    types: PhantomData<fn() -> T>,
}

managed!(List<T>);

/// What a [`List`] stands for.
pub(super) struct Row<T>(pub(super) Vec<T>);

impl<T: Item> Shared for Row<T> {
    type Call = (u8, u64, Option<T>);
    type Answer = (u64, Option<T>, Vec<T>);

    fn call(&mut self, (verb, place, item): Self::Call) -> Self::Answer {
        let list = &mut self.0;
        let at = usize::try_from(place).ok().filter(|at| *at < list.len());
        let one = |item| (0, item, Vec::new());
        match (verb, at, item) {
            (GET, Some(at), _) => one(list.get(at).cloned()),
            (SET, Some(at), Some(item)) => one(list.get_mut(at).map(|old| std::mem::replace(old, item))),
            (REMOVE, Some(at), _) => one(Some(list.remove(at))),
            (PUSH, _, Some(item)) => {
                list.push(item);
                one(None)
            }
            (ALL, ..) => (0, None, list.clone()),
            (CLEAR, ..) => {
                list.clear();
                one(None)
            }
            (LENGTH, ..) => (list.len() as u64, None, Vec::new()),
            _ => one(None),
        }
    }
}

impl<T: Item> List<T> {
    fn ask(&self, verb: u8, place: u64, item: Option<&T>) -> Result<<Row<T> as Shared>::Answer, Error> {
        self.handle.call(&(verb, place, item), Deadline::NEVER)
    }

    /// Appends an item.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "append")]
    pub fn push(&self, item: &T) -> Result<(), Error> {
        self.ask(PUSH, 0, Some(item)).map(drop)
    }

    /// The item at this place, if there is one.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn get(&self, place: u64) -> Result<Option<T>, Error> {
        Ok(self.ask(GET, place, None)?.1)
    }

    /// Replaces the item at this place, and returns what was there; `None` if there is no such place.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn set(&self, place: u64, item: &T) -> Result<Option<T>, Error> {
        Ok(self.ask(SET, place, Some(item))?.1)
    }

    /// Takes the item at this place out.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    #[doc(alias = "pop")]
    pub fn remove(&self, place: u64) -> Result<Option<T>, Error> {
        Ok(self.ask(REMOVE, place, None)?.1)
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
        Ok(self.ask(ALL, 0, None)?.2)
    }

    /// Takes all out.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn clear(&self) -> Result<(), Error> {
        self.ask(CLEAR, 0, None).map(drop)
    }

    /// Calls a function with the list in its hands, over there. See [`Proxy::with`](super::Proxy::with).
    ///
    /// # Errors
    /// As there.
    pub fn update<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(&mut Vec<T>, A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let _witness = function;
        let inside = |row: &mut Row<T>, arguments: A| without_size::<F>()(&mut row.0, arguments);
        run(&self.handle, inside, &arguments)
    }
}

/// One value in a manager's process.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let best = manager.cell(0_u64)?;
/// best.set(&7)?;
/// let seen = best.update(|best, found: u64| { *best = found.max(*best); *best }, 5)?;
/// assert_eq!((seen, best.get()?), (7, 7));
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "ValueProxy")]
pub struct Cell<T> {
    handle: Handle,
    types: PhantomData<fn() -> T>,
}

managed!(Cell<T>);

/// What a [`Cell`] stands for.
pub(super) struct Slot<T>(pub(super) T);

impl<T: Item> Shared for Slot<T> {
    type Call = Option<T>;
    type Answer = Option<T>;

    fn call(&mut self, value: Option<T>) -> Option<T> {
        match value {
            Some(value) => {
                self.0 = value;
                None
            }
            None => Some(self.0.clone()),
        }
    }
}

impl<T: Item> Cell<T> {
    /// A copy of the value.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn get(&self) -> Result<T, Error> {
        let value: Option<T> = self.handle.call(&None::<&T>, Deadline::NEVER)?;
        value.ok_or_else(|| Error::new(ErrorKind::Decode).detail("the manager has answered without a value"))
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn set(&self, value: &T) -> Result<(), Error> {
        self.handle.call::<_, Option<T>>(&Some(value), Deadline::NEVER).map(drop)
    }

    /// Calls a function with the value in its hands, over there. See [`Proxy::with`](super::Proxy::with).
    ///
    /// # Errors
    /// As there.
    pub fn update<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(&mut T, A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let _witness = function;
        let inside = |slot: &mut Slot<T>, arguments: A| without_size::<F>()(&mut slot.0, arguments);
        run(&self.handle, inside, &arguments)
    }
}

/// Names with values of any type, in a manager's process.
///
/// A value is asked for by the type that it was set with. It must not have descriptors in it.
///
/// ```
/// use procession::ipc::Manager;
///
/// let manager = Manager::start()?;
/// let settings = manager.namespace()?;
/// settings.set("width", &7_u32)?;
/// settings.set("title", &"many".to_owned())?;
/// assert_eq!(settings.get::<u32>("width")?, Some(7));
/// assert_eq!(settings.get::<u32>("height")?, None);
/// assert!(settings.get::<u32>("title").unwrap_err().is_invalid_input());
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Namespace {
    handle: Handle,
    types: PhantomData<()>,
}

managed!(Namespace);

/// The name of a type, and a value in bytes.
pub(super) type Typed = (String, Vec<u8>);

impl Namespace {
    fn values(&self) -> Dict<String, Typed> {
        Dict { handle: self.handle.clone(), types: PhantomData }
    }

    /// The value of this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is of another type. As [`Proxy::call`](super::Proxy::call).
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some((its_type, bytes)) = self.values().get(&name.to_owned())? else { return Ok(None) };
        let wanted = codec::short_name::<T>();
        if its_type != wanted {
            return Err(Error::invalid(format!("{name:?} is a {}, and no {wanted}", its_type.escape_debug())));
        }
        codec::decode(&bytes, Vec::new()).map(Some)
    }

    /// Sets the value of this name.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn set<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let mut bytes = Vec::new();
        codec::encode_into(value, &mut bytes)?;
        self.values().insert(&name.to_owned(), &(codec::short_name::<T>(), bytes)).map(drop)
    }

    /// Takes this name out. Whether it was there.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        Ok(self.values().remove(&name.to_owned())?.is_some())
    }

    /// All names.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.values().to_map()?.into_keys().collect())
    }
}
