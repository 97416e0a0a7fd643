//! Which objects a manager has, and who still wants them. Decides when an object goes: when no client refers to it, no name does, and it is not on its
//! way to anybody. Pure: time is passed in.

use crate::error::ErrorKind;
use crate::ipc::manager::protocol::Failure;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// An object that was sent to somebody waits so long for them.
pub(super) const LOAN: Duration = Duration::from_secs(120);

/// The objects of the type `O`.
pub(super) struct Shelf<O> {
    last_number: u64,
    entries: HashMap<u64, (O, u64)>,
    /// Object, and the name of its type.
    names: HashMap<String, (u64, String)>,
    /// Object, and until when.
    loans: HashMap<u64, (u64, Instant)>,
}

impl<O: Clone> Shelf<O> {
    pub(super) fn new() -> Shelf<O> {
        Shelf { last_number: 0, entries: HashMap::new(), names: HashMap::new(), loans: HashMap::new() }
    }

    /// A new object, on its way to who wants it. Its number, and that of the loan.
    pub(super) fn add(&mut self, object: O, now: Instant) -> (u64, u64) {
        let (number, loan) = (self.last_number + 1, self.last_number + 2);
        self.last_number = loan;
        self.entries.insert(number, (object, 1));
        self.loans.insert(loan, (number, now + LOAN));
        (number, loan)
    }

    pub(super) fn get(&self, number: u64) -> Result<O, Failure> {
        let gone = || Failure::new(ErrorKind::NotFound, format!("the manager has no object {number}: it is gone"));
        self.entries.get(&number).map(|(object, _)| object.clone()).ok_or_else(gone)
    }

    /// One more reference.
    pub(super) fn keep(&mut self, number: u64) -> Result<(), Failure> {
        self.get(number)?;
        if let Some((_, references)) = self.entries.get_mut(&number) {
            *references += 1;
        }
        Ok(())
    }

    /// One reference less. What nobody wants any more is returned, to be dropped elsewhere.
    #[must_use]
    pub(super) fn release(&mut self, number: u64) -> Option<O> {
        let (_, references) = self.entries.get_mut(&number)?;
        *references = references.saturating_sub(1);
        if *references > 0 {
            return None;
        }
        self.entries.remove(&number).map(|(object, _)| object)
    }

    /// The object goes to somebody. The number of the loan.
    pub(super) fn lend(&mut self, number: u64, now: Instant) -> Result<u64, Failure> {
        self.keep(number)?;
        self.last_number += 1;
        self.loans.insert(self.last_number, (number, now + LOAN));
        Ok(self.last_number)
    }

    /// The object has arrived: one more reference. What was sent once may arrive several times, as long as anybody has the object.
    pub(super) fn claim(&mut self, number: u64, loan: u64) -> Result<(), Failure> {
        if self.loans.get(&loan).is_some_and(|(lent, _)| *lent == number) {
            // The reference of the loan is now that of the claimer.
            self.loans.remove(&loan);
            return self.get(number).map(drop);
        }
        self.keep(number)
    }

    /// Takes back what nobody has claimed in time.
    #[must_use]
    pub(super) fn expire(&mut self, now: Instant) -> Vec<O> {
        let mut late = Vec::new();
        self.loans.retain(|_, (number, until)| {
            let is_late = *until <= now;
            if is_late {
                late.push(*number);
            }
            !is_late
        });
        late.into_iter().filter_map(|number| self.release(number)).collect()
    }

    /// Gives the object a name. An error if something else has it.
    pub(super) fn publish(&mut self, name: &str, number: u64, of_type: &str) -> Result<(), Failure> {
        if self.names.contains_key(name) {
            return Err(Failure::new(ErrorKind::InvalidInput, format!("there is an object named {name:?} already")));
        }
        self.keep(number)?;
        self.names.insert(name.to_owned(), (number, of_type.to_owned()));
        Ok(())
    }

    /// The object of this name, with one more reference.
    pub(super) fn find(&mut self, name: &str, of_type: &str) -> Result<u64, Failure> {
        let unknown = || Failure::new(ErrorKind::NotFound, format!("no object is named {name:?}"));
        let (number, its_type) = self.names.get(name).ok_or_else(unknown)?;
        if its_type != of_type {
            let text = format!("the object named {name:?} is a {its_type}, and no {}", of_type.escape_debug());
            return Err(Failure::new(ErrorKind::InvalidInput, text));
        }
        let number = *number;
        self.keep(number)?;
        Ok(number)
    }

    #[must_use]
    pub(super) fn withdraw(&mut self, name: &str) -> Option<O> {
        let (number, _) = self.names.remove(name)?;
        self.release(number)
    }

    /// Takes everything out.
    pub(super) fn clear(&mut self) -> Vec<O> {
        self.entries.drain().map(|(_, (object, _))| object).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new object with one reference.
    fn add<O: Clone>(shelf: &mut Shelf<O>, object: O) -> u64 {
        let (number, loan) = shelf.add(object, Instant::now());
        shelf.claim(number, loan).unwrap();
        number
    }

    #[test]
    fn an_object_goes_with_its_last_reference() {
        let now = Instant::now();
        let mut shelf = Shelf::new();
        let one = add(&mut shelf, "one");
        shelf.keep(one).unwrap();
        assert_eq!(shelf.release(one), None);
        assert_eq!(shelf.release(one), Some("one"));
        assert!(shelf.get(one).is_err() && shelf.keep(one).is_err() && shelf.lend(one, now).is_err());
        assert_eq!(shelf.release(one), None);
        let two = add(&mut shelf, "two");
        assert_ne!(one, two);
    }

    #[test]
    fn what_is_on_its_way_stays() {
        let now = Instant::now();
        let mut shelf = Shelf::new();
        let one = add(&mut shelf, "one");
        let loan = shelf.lend(one, now).unwrap();
        assert_eq!(shelf.release(one), None);
        assert!(shelf.expire(now).is_empty());
        shelf.claim(one, loan).unwrap();
        assert!(shelf.expire(now + LOAN).is_empty());
        // Once more, while the first one has it.
        shelf.claim(one, loan).unwrap();
        assert_eq!(shelf.release(one), None);
        assert_eq!(shelf.release(one), Some("one"));
        assert!(shelf.claim(one, loan).is_err());
        // And never claimed.
        let two = add(&mut shelf, "two");
        let _ = shelf.lend(two, now).unwrap();
        assert_eq!(shelf.release(two), None);
        assert_eq!(shelf.expire(now + LOAN), ["two"]);
    }

    #[test]
    fn names_keep_their_objects() {
        let mut shelf = Shelf::new();
        let one = add(&mut shelf, "one");
        shelf.publish("name", one, "Type").unwrap();
        assert!(shelf.publish("name", one, "Type").is_err());
        assert_eq!(shelf.release(one), None);
        assert!(shelf.find("nam", "Type").is_err());
        let error = shelf.find("name", "Other").unwrap_err().into_error();
        assert_eq!(error.to_string(), "the object named \"name\" is a Type, and no Other");
        assert_eq!(shelf.find("name", "Type").unwrap(), one);
        assert_eq!(shelf.withdraw("name"), None);
        assert_eq!(shelf.release(one), Some("one"));
        assert_eq!(shelf.withdraw("name"), None);
    }

    /// Random histories against a plain count.
    #[test]
    fn references_are_counted_right() {
        let (mut random, now) = (0x9e37_79b9_7f4a_7c15_u64, Instant::now());
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut shelf = Shelf::new();
        let mut model: HashMap<u64, u64> = HashMap::new();
        let mut loans: Vec<(u64, u64)> = Vec::new();
        for _ in 0..20_000 {
            let number = next(40) * u64::from(!model.is_empty());
            let known = model.keys().nth(number as usize % model.len().max(1)).copied().unwrap_or_default();
            match next(5) {
                0 => _ = model.insert(add(&mut shelf, ()), 1),
                1 if shelf.keep(known).is_ok() => *model.get_mut(&known).unwrap() += 1,
                2 => {
                    if let Ok(loan) = shelf.lend(known, now) {
                        loans.push((known, loan));
                        *model.get_mut(&known).unwrap() += 1;
                    }
                }
                3 if !loans.is_empty() => {
                    let (lent, loan) = loans.swap_remove(next(loans.len() as u64) as usize);
                    shelf.claim(lent, loan).unwrap();
                }
                _ => {
                    let lent = loans.iter().filter(|(number, _)| *number == known).count() as u64;
                    if model.get(&known).is_some_and(|count| *count > lent) {
                        let gone = shelf.release(known).is_some();
                        let count = model.get_mut(&known).unwrap();
                        *count -= 1;
                        assert_eq!(gone, *count == 0);
                        if gone {
                            model.remove(&known);
                        }
                    }
                }
            }
        }
        assert!(model.keys().all(|number| shelf.get(*number).is_ok()));
    }
}
