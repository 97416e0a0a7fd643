//! A row of values that processes share, of a fixed length. Decides what is told of a process that dies while it writes.

use super::codec::short_name;
use super::lock::{Held, owner_died};
use super::plain::Plain;
use super::raw_lock::{self, Taken};
use super::region::{Kind, Region};
use super::value::type_number;
use super::word::View;
use crate::error::Error;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A row of [`Plain`] values that processes share; its length is fixed.
///
/// Every call works under a lock of the array, so nobody sees what another one has written by half. If a process dies while it writes, the
/// next call on the array, whoever makes it, is an error of the kind [`OwnerDied`](crate::ErrorKind::OwnerDied) and does nothing else: one
/// part of the row may be new and another old. From then on the values count as they are.
///
/// ```
/// use procession::ipc::Array;
///
/// let row = Array::new(&[1.0, 2.0, 3.0])?;
/// row.set(0, 10.0)?;
/// row.update(|values| values.iter_mut().for_each(|value| *value *= 2.0))?;
/// assert_eq!(row.read_all()?, [20.0, 4.0, 6.0]);
/// assert_eq!(row.get(3).unwrap_err().to_string(), "index 3 of an Array of length 3");
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "mp.Array")]
pub struct Array<T> {
    region: Region,
    length: usize,
    of: PhantomData<fn() -> T>,
}

/// What stands in the memory.
///
/// | word | means |
/// |---|---|
/// | `LOCK` | as in `raw_lock` |
/// | `WRITING` | 1: the holder of the lock is writing items. The owner died: they may be half written, which is told once |
/// | `TYPE` | what the type is called, hashed |
/// | `COUNT` | how many items there are; never changes |
/// | `ITEMS` | the items; written and read by the holder of the lock |
///
/// The lock orders everything.
const LOCK: usize = 0;
const WRITING: usize = 4;
const TYPE: usize = 8;
const COUNT: usize = 16;
const ITEMS: usize = 64;

static KIND: Kind = Kind {
    name: "Array",
    number: u32::from_le_bytes(*b"arry"),
    length_min: ITEMS,
    bury: |body, dead| raw_lock::bury(body.word(LOCK), dead),
    leave: |_, _| (),
};

impl<T: Plain> Array<T> {
    /// A row of these values.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new(values: &[T]) -> Result<Array<T>, Error> {
        let new = Array::with_length(values.len())?;
        new.body().copy_in(ITEMS, &bytes_of(values));
        Ok(new)
    }

    /// A row of so many values that are all bytes 0: numbers are 0, `bool` is false.
    ///
    /// ```
    /// let histogram = procession::ipc::Array::<u64>::zeros(256)?;
    /// histogram.update_at(65, |count| count + 1)?;
    /// assert_eq!((histogram.len(), histogram.get(65)?), (256, 1));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn zeros(length: usize) -> Result<Array<T>, Error> {
        Array::with_length(length)
    }

    fn with_length(length: usize) -> Result<Array<T>, Error> {
        let size = T::SIZE.checked_mul(length).and_then(|size| size.checked_add(ITEMS));
        let size = size.ok_or_else(|| {
            Error::invalid(format!("an Array of {length} values of {} bytes is larger than memory can be", T::SIZE))
        })?;
        let region = Region::create(&KIND, size)?;
        region.body().long(TYPE).store(type_number::<T>());
        region.body().long(COUNT).store(length as u64);
        Ok(Array { region, length, of: PhantomData })
    }

    /// The array behind a descriptor, in a program that has inherited it: the counterpart of `as_fd`.
    ///
    /// # Errors
    /// If it is something else, of another type, or of another version of this library.
    pub fn from_fd(descriptor: impl Into<OwnedFd>) -> Result<Array<T>, Error> {
        Array::of(Region::attach(&KIND, descriptor.into())?)
    }

    fn of(region: Region) -> Result<Array<T>, Error> {
        if region.body().long(TYPE).load() != type_number::<T>() {
            return Err(Error::invalid(format!("this is no Array<{}>: it is of another type", short_name::<T>())));
        }
        let count = region.body().long(COUNT).load();
        let length = usize::try_from(count).ok().filter(|length| {
            let size = length.checked_mul(T::SIZE).and_then(|size| size.checked_add(ITEMS));
            size.is_some_and(|size| size <= region.body().length())
        });
        let length = length.ok_or_else(|| {
            Error::invalid(format!("an Array of {count} values does not fit into {} bytes", region.body().length()))
        })?;
        Ok(Array { region, length, of: PhantomData })
    }

    /// One value.
    ///
    /// # Errors
    /// There is no such index, or a process has died while it wrote (told once).
    pub fn get(&self, index: usize) -> Result<T, Error> {
        self.check(index)?;
        let _held = self.lock()?;
        Ok(self.item(index))
    }

    /// Replaces one value.
    ///
    /// # Errors
    /// As [`get`](Self::get); nothing was written then.
    pub fn set(&self, index: usize, value: T) -> Result<(), Error> {
        self.update_at(index, |_| value).map(drop)
    }

    /// Changes one value, and nobody else's change comes in between. What it was before. The function must not use the same array.
    ///
    /// # Errors
    /// As [`get`](Self::get); nothing was written then.
    pub fn update_at(&self, index: usize, change: impl FnOnce(T) -> T) -> Result<T, Error> {
        self.check(index)?;
        let held = self.lock()?;
        let before = self.item(index);
        self.store(&held, index, &[change(before)]);
        Ok(before)
    }

    /// All values.
    ///
    /// # Errors
    /// A process has died while it wrote (told once).
    pub fn read_all(&self) -> Result<Vec<T>, Error> {
        let held = self.lock()?;
        Ok(self.items(&held))
    }

    /// Replaces the values from an index on.
    ///
    /// # Errors
    /// They reach beyond the end, or a process has died while it wrote (told once). Nothing was written then.
    pub fn write(&self, start: usize, values: &[T]) -> Result<(), Error> {
        if start.checked_add(values.len()).is_none_or(|end| end > self.length) {
            let (count, length) = (values.len(), self.length);
            return Err(Error::invalid(format!("{count} values from index {start} on in an Array of length {length}")));
        }
        let held = self.lock()?;
        self.store(&held, start, values);
        Ok(())
    }

    /// Changes all values, and nobody else's change comes in between. The function gets a copy; if it panics nothing has changed. It must
    /// not use the same array.
    ///
    /// # Errors
    /// A process has died while it wrote (told once). The function was not called then.
    pub fn update<R>(&self, change: impl FnOnce(&mut [T]) -> R) -> Result<R, Error> {
        let held = self.lock()?;
        let mut values = self.items(&held);
        let result = change(&mut values);
        self.store(&held, 0, &values);
        Ok(result)
    }

    fn item(&self, index: usize) -> T {
        let mut bytes = [0; 64];
        match bytes.get_mut(..T::SIZE) {
            Some(bytes) => {
                self.body().copy_out(ITEMS + index * T::SIZE, bytes);
                T::read(bytes)
            }
            None => {
                let mut bytes = vec![0; T::SIZE];
                self.body().copy_out(ITEMS + index * T::SIZE, &mut bytes);
                T::read(&bytes)
            }
        }
    }

    fn items(&self, _held: &Held<'_>) -> Vec<T> {
        let mut bytes = vec![0; self.length * T::SIZE];
        self.body().copy_out(ITEMS, &mut bytes);
        (0..self.length).map(|index| T::read(&bytes[index * T::SIZE..][..T::SIZE])).collect()
    }

    fn store(&self, _held: &Held<'_>, start: usize, values: &[T]) {
        let bytes = bytes_of(values);
        self.body().word(WRITING).swap(1);
        self.body().copy_in(ITEMS + start * T::SIZE, &bytes);
        self.body().word(WRITING).store(0);
    }

    fn check(&self, index: usize) -> Result<(), Error> {
        let length = self.length;
        let wrong = || Error::invalid(format!("index {index} of an Array of length {length}"));
        if index < length { Ok(()) } else { Err(wrong()) }
    }
}

impl<T> Array<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn body(&self) -> View<'_> {
        self.region.body()
    }

    fn lock(&self) -> Result<Held<'_>, Error> {
        let bury = |party| _ = self.region.bury_if_dead(party);
        let (held, taken) = Held::take(self.body().word(LOCK), self.region.me(), bury);
        if taken == Taken::FromDead && self.body().word(WRITING).swap(0) != 0 {
            return Err(owner_died());
        }
        Ok(held)
    }
}

fn bytes_of<T: Plain>(values: &[T]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * T::SIZE];
    bytes.chunks_mut(T::SIZE.max(1)).zip(values).for_each(|(bytes, value)| value.write(bytes));
    bytes
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Array<T> {
        Array { region: self.region.clone(), length: self.length, of: PhantomData }
    }
}

/// Says the length and not the values: they are behind a lock.
impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("len", &self.length).finish_non_exhaustive()
    }
}

/// The descriptor of the memory, to hand it on.
impl<T> AsFd for Array<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.region.as_fd()
    }
}

impl<T> Serialize for Array<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Array<T>, D::Error> {
        let region = Region::deserialize(&KIND, deserializer)?;
        Array::of(region).map_err(|why| D::Error::custom(super::passing::because(why)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn party(array: &Array<u16>) -> Array<u16> {
        Array::of(Region::attach_as_another(&KIND, array.as_fd().try_clone_to_owned().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn what_is_outside_is_named() {
        let row = Array::new(&[1_u16, 2, 3]).unwrap();
        let text = |error: Error| error.to_string();
        assert_eq!(text(row.set(3, 0).unwrap_err()), "index 3 of an Array of length 3");
        assert_eq!(text(row.write(2, &[7, 8]).unwrap_err()), "2 values from index 2 on in an Array of length 3");
        assert!(row.write(usize::MAX, &[1]).is_err());
        row.write(1, &[7, 8]).unwrap();
        assert_eq!(row.read_all().unwrap(), [1, 7, 8]);
        assert!(Array::<u64>::zeros(usize::MAX / 4).is_err());
        let nothing = Array::<u64>::zeros(0).unwrap();
        assert!(nothing.is_empty() && nothing.read_all().unwrap().is_empty());
        assert!(Array::<i16>::from_fd(row.as_fd().try_clone_to_owned().unwrap()).is_err());
    }

    #[test]
    fn only_a_death_while_writing_is_told() {
        let row = Array::<u16>::zeros(4).unwrap();
        let reader = party(&row);
        std::mem::forget(reader.lock().unwrap());
        drop(reader);
        assert_eq!(row.get(0).unwrap(), 0);
        let writer = party(&row);
        std::mem::forget(writer.lock().unwrap());
        writer.body().word(WRITING).store(1);
        drop(writer);
        assert_eq!(row.get(0).unwrap_err().kind(), ErrorKind::OwnerDied);
        assert_eq!(row.get(0).unwrap(), 0);
    }

    #[test]
    fn a_change_that_panics_changes_nothing() {
        let row = Array::new(&[1_u16, 2]).unwrap();
        let panicked = std::panic::catch_unwind(|| {
            row.update(|values| {
                values[0] = 9;
                panic!("on purpose")
            })
        });
        assert!(panicked.is_err());
        assert_eq!(row.read_all().unwrap(), [1, 2]);
    }
}
