//! One value that processes share. Decides that it is never seen half written, whoever dies.

use super::codec::short_name;
use super::lock::Held;
use super::plain::{Integer, Plain};
use super::raw_lock;
use super::region::{Kind, Region};
use super::word::{Long, Word};
use crate::error::Error;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A value that processes share: a number, or anything else that is [`Plain`].
///
/// It is always whole: whoever dies in the middle of a change, the others see the value before it or the one after it, and nobody waits for the
/// dead. So there is no [`OwnerDied`](super::OwnerDied) here. Up to 8 bytes reading and changing take a few instructions and no lock; larger values take
/// a lock for a moment.
///
/// ```
/// use procession::ipc::Value;
///
/// let count = Value::new(40_u32)?;
/// count.fetch_add(1);
/// count.update(|count| count + 1);
/// assert_eq!(count.get(), 42);
///
/// let best = Value::new((f64::INFINITY, [0_u64; 4]))?;
/// best.update(|now| if 0.5 < now.0 { (0.5, [1, 2, 3, 4]) } else { now });
/// assert_eq!(best.get().1, [1, 2, 3, 4]);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "mp.Value")]
#[doc(alias = "Atomic")]
pub struct Value<T> {
    region: Region,
    of: PhantomData<fn() -> T>,
}

/// What stands in the memory.
///
/// | word | means |
/// |---|---|
/// | `LOCK` | as in `raw_lock`; only for values of more than 8 bytes |
/// | `WHICH` | which of the two copies is the value: 0 or 1; changed by the holder of the lock |
/// | `TYPE` | what the type is called, hashed |
/// | `SMALL` | the value, if it fits |
/// | `COPIES` | otherwise: two of them |
///
/// A large value is written to the copy that does not count, and then made to count by one store. The owner died: before that store or after it,
/// there is nothing to be put right. The store is a release and the reader's load an acquire, and the lock orders them anyway.
const LOCK: usize = 0;
const WHICH: usize = 4;
const TYPE: usize = 8;
const SMALL: usize = 16;
const COPIES: usize = 16;

static KIND: Kind = Kind {
    name: "Value",
    number: u32::from_le_bytes(*b"valu"),
    length_min: SMALL + size_of::<Long>(),
    bury: |body, dead| raw_lock::bury(body.word(LOCK), dead),
    leave: |_, _| (),
};

/// Whether the value is in one word.
const fn is_small<T: Plain>() -> bool {
    T::SIZE <= size_of::<u64>()
}

impl<T: Plain> Value<T> {
    /// A new value.
    ///
    /// # Errors
    /// If the system has no more descriptors or memory.
    pub fn new(value: T) -> Result<Value<T>, Error> {
        let copies = T::SIZE.checked_mul(2).and_then(|size| size.checked_add(COPIES));
        let length = copies.ok_or_else(|| Error::invalid(format!("a Value of {} bytes", T::SIZE)))?;
        let region = Region::create(&KIND, length)?;
        region.body().long(TYPE).store(type_number::<T>());
        let new = Value { region, of: PhantomData };
        new.set(value);
        Ok(new)
    }

    /// The value behind a descriptor, in a program that has inherited it: the counterpart of `as_fd`.
    ///
    /// # Errors
    /// If it is something else, of another type, or of another version of this library.
    pub fn from_fd(descriptor: impl Into<OwnedFd>) -> Result<Value<T>, Error> {
        Value::of(Region::attach(&KIND, descriptor.into())?)
    }

    fn of(region: Region) -> Result<Value<T>, Error> {
        let fits = region.body().length()
            >= if is_small::<T>() { 0 } else { T::SIZE.saturating_mul(2).saturating_add(COPIES) };
        if !fits || region.body().long(TYPE).load() != type_number::<T>() {
            return Err(Error::invalid(format!("this is no Value<{}>: it is of another type", short_name::<T>())));
        }
        Ok(Value { region, of: PhantomData })
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> T {
        if is_small::<T>() { from_word(self.small().load()) } else { self.get_large() }
    }

    /// Replaces it.
    #[inline]
    pub fn set(&self, value: T) {
        if is_small::<T>() {
            self.small().store(to_word(value));
        } else {
            self.change_large(|_| value);
        }
    }

    /// Replaces it, and returns what it was.
    pub fn replace(&self, value: T) -> T {
        self.update(|_| value)
    }

    /// Changes it in one step: nobody else's change comes in between. What it was before.
    ///
    /// The function is called again when somebody else was quicker, so it should do nothing but compute. It must not use the same value.
    #[inline]
    pub fn update(&self, mut change: impl FnMut(T) -> T) -> T {
        if !is_small::<T>() {
            return self.change_large(change);
        }
        let mut word = self.small().load();
        loop {
            let before = from_word(word);
            match self.small().replace(word, to_word(change(before))) {
                Ok(()) => return before,
                Err(now) => word = now,
            }
        }
    }

    fn small(&self) -> &Long {
        self.region.body().long(SMALL)
    }

    fn get_large(&self) -> T {
        let _held = self.lock();
        let mut bytes = vec![0; T::SIZE];
        self.region.body().copy_out(self.copy(self.which().load()), &mut bytes);
        T::read(&bytes)
    }

    fn change_large(&self, mut change: impl FnMut(T) -> T) -> T {
        let _held = self.lock();
        let (body, which) = (self.region.body(), self.which().load());
        let mut bytes = vec![0; T::SIZE];
        body.copy_out(self.copy(which), &mut bytes);
        let before = T::read(&bytes);
        change(before).write(&mut bytes);
        let other = which & 1 ^ 1;
        body.copy_in(self.copy(other), &bytes);
        self.which().store(other);
        before
    }

    fn which(&self) -> &Word {
        self.region.body().word(WHICH)
    }

    fn copy(&self, which: u32) -> usize {
        COPIES + (which & 1) as usize * T::SIZE
    }

    fn lock(&self) -> Held<'_> {
        let bury = |party| _ = self.region.bury_if_dead(party);
        // Whether the last holder has died is all the same.
        Held::take(self.region.body().word(LOCK), self.region.me(), bury).0
    }
}

/// What std's atomics have. Each returns the value before; sums wrap around.
impl<T: Integer> Value<T> {
    /// Adds to it.
    ///
    /// ```
    /// let tickets = procession::ipc::Value::new(0_u64)?;
    /// let (mine, yours) = (tickets.fetch_add(1), tickets.fetch_add(1));
    /// assert_eq!((mine, yours), (0, 1));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn fetch_add(&self, by: T) -> T {
        self.update(|value| value.wrapping_add(by))
    }

    /// Subtracts from it.
    pub fn fetch_sub(&self, by: T) -> T {
        self.update(|value| value.wrapping_sub(by))
    }

    /// Makes it at least so large.
    pub fn fetch_max(&self, least: T) -> T {
        self.update(|value| value.max(least))
    }

    /// Makes it at most so large.
    pub fn fetch_min(&self, most: T) -> T {
        self.update(|value| value.min(most))
    }

    /// Keeps only these bits.
    pub fn fetch_and(&self, bits: T) -> T {
        self.update(|value| value & bits)
    }

    /// Sets these bits.
    pub fn fetch_or(&self, bits: T) -> T {
        self.update(|value| value | bits)
    }

    /// Replaces it if it is `old`, or says in the error what it is.
    ///
    /// ```
    /// let owner = procession::ipc::Value::new(0_u32)?;
    /// assert_eq!(owner.compare_exchange(0, 7), Ok(0));
    /// assert_eq!(owner.compare_exchange(0, 8), Err(7));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// The value, if it is another one; nothing was changed then.
    pub fn compare_exchange(&self, old: T, new: T) -> Result<T, T> {
        let before = self.update(|value| if value == old { new } else { value });
        if before == old { Ok(before) } else { Err(before) }
    }
}

fn to_word<T: Plain>(value: T) -> u64 {
    let mut bytes = [0; size_of::<u64>()];
    value.write(&mut bytes[..T::SIZE]);
    u64::from_ne_bytes(bytes)
}

fn from_word<T: Plain>(word: u64) -> T {
    T::read(&word.to_ne_bytes()[..T::SIZE])
}

/// What two programs agree on when they mean the same type: its name without paths, and its size, hashed (FNV-1a).
pub(super) fn type_number<T: Plain>() -> u64 {
    let name = short_name::<T>();
    let bytes = name.bytes().chain((T::SIZE as u64).to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Value<T> {
        Value { region: self.region.clone(), of: PhantomData }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.get()).finish()
    }
}

/// The descriptor of the memory, to hand it on.
impl<T> AsFd for Value<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.region.as_fd()
    }
}

impl<T> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<T>, D::Error> {
        let region = Region::deserialize(&KIND, deserializer)?;
        Value::of(region).map_err(|why| D::Error::custom(super::passing::because(why)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_lose_no_change() {
        let (small, large) = (Value::new(0_i16).unwrap(), Value::new((0_u64, [0_u64; 3])).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        small.fetch_add(1);
                        large.update(|(count, row)| (count + 1, [count + 1; 3].map(|new| new.max(row[0]))));
                        let (count, row) = large.get();
                        assert_eq!(row, [count; 3]);
                    }
                });
            }
        });
        assert_eq!((small.get(), large.get().0), (20_000, 20_000));
    }

    #[test]
    fn another_type_is_refused() {
        let value = Value::new(1_u32).unwrap();
        let fd = || value.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(Value::<u32>::from_fd(fd()).unwrap().get(), 1);
        let text = Value::<[f64; 4]>::from_fd(fd()).unwrap_err().to_string();
        assert_eq!(text, "this is no Value<[f64; 4]>: it is of another type");
        assert!(Value::<i32>::from_fd(fd()).is_err());
    }

    #[test]
    fn a_change_that_panics_changes_nothing() {
        let large = Value::new([1_u64; 2]).unwrap();
        let panicked = std::panic::catch_unwind(|| large.update(|_| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(large.get(), [1; 2]);
    }
}
