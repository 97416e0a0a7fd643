//! What there is of each resource, and who holds what. Pure: it counts, and leaves to the pool who comes first and what becomes of
//! those for whom nothing is left.

use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// How much a pool has of a resource: so and so much, or certain things that can be told apart.
///
/// A task takes its part with [`Task::needs`](crate::pool::Task::needs) for as long as it runs. Of what can be told apart, such as
/// GPUs, ports or licences, a task has its part alone, and an environment variable tells it which it has got.
///
/// ```
/// use procession::pool::Supply;
///
/// let memory = Supply::amount(8 << 30);
/// let threads = Supply::amount(16).env("OMP_NUM_THREADS");
/// let processors = Supply::indexed(0..4).env("CUDA_VISIBLE_DEVICES");
/// let boards = Supply::tokens(["ttyUSB0", "ttyUSB3"]).env("BOARD");
/// # let _ = (memory, threads, processors, boards);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a supply is of no use until it is given to a pool"]
pub struct Supply {
    kind: Kind,
    variable: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Amount(u64),
    Tokens(Vec<Arc<str>>),
    Indexed(Range<u64>),
}

/// More things than this are counted as an amount: there are no more ports.
const TOKENS_MAX: u64 = 65_536;

impl Supply {
    /// So much, in any unit: bytes, slots, percent. One part is as good as another.
    #[doc(alias = "semaphore")]
    pub fn amount(amount: u64) -> Supply {
        Supply { kind: Kind::Amount(amount), variable: None }
    }

    /// Things with names of their own. Those that come first are taken first.
    pub fn tokens<T: Into<Arc<str>>>(names: impl IntoIterator<Item = T>) -> Supply {
        Supply { kind: Kind::Tokens(names.into_iter().map(Into::into).collect()), variable: None }
    }

    /// Things that are called by their number, at most 65536. Small numbers are taken first.
    pub fn indexed(numbers: Range<u64>) -> Supply {
        Supply { kind: Kind::Indexed(numbers), variable: None }
    }

    /// The environment variable that tells a task what it has got: the names or numbers with commas between them, or the amount.
    /// It is set for every task that [needs](crate::pool::Task::needs) the resource, also for one that needs 0 of it, and for no
    /// other.
    pub fn env(mut self, variable: impl Into<Arc<str>>) -> Supply {
        self.variable = Some(variable.into());
        self
    }
}

/// All resources of a pool, and what is left of each.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    shelves: BTreeMap<Arc<str>, Shelf>,
}

/// One resource.
#[derive(Debug)]
struct Shelf {
    total: u64,
    free: Free,
    variable: Option<Arc<str>>,
}

/// What is left of it.
#[derive(Debug)]
enum Free {
    Amount(u64),
    /// The names of all, and the places of those that nobody holds.
    Tokens(Vec<Arc<str>>, BTreeSet<usize>),
}

/// What a task holds. There is one such value for each part that was taken, and it goes back by [`Stock::give_back`].
#[derive(Debug, Default)]
#[must_use = "what is dropped and not given back is lost"]
pub(crate) struct Held {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    resource: Arc<str>,
    amount: u64,
    /// The places of the tokens, if there are tokens.
    places: Vec<usize>,
    variable: Option<(Arc<str>, String)>,
}

impl Stock {
    /// Nothing yet.
    pub(crate) fn new() -> Stock {
        Stock::default()
    }

    /// Puts a resource on its shelf.
    pub(crate) fn add(&mut self, name: Arc<str>, supply: Supply) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::invalid("a resource has no name"));
        }
        if self.shelves.contains_key(&name) {
            return Err(Error::invalid(format!("resource {name:?} is given twice")));
        }
        if let Some(variable) = &supply.variable {
            self.check_variable(&name, variable)?;
        }
        let free = match supply.kind {
            Kind::Amount(amount) => Free::Amount(amount),
            Kind::Tokens(names) => tokens(&name, names)?,
            Kind::Indexed(numbers) if numbers.end.saturating_sub(numbers.start) > TOKENS_MAX => {
                return Err(Error::invalid(format!("resource {name:?} has more than {TOKENS_MAX} numbers")));
            }
            Kind::Indexed(numbers) => tokens(&name, numbers.map(|number| number.to_string().into()).collect())?,
        };
        self.shelves.insert(name, Shelf { total: free.amount(), free, variable: supply.variable });
        Ok(())
    }

    fn check_variable(&self, name: &str, variable: &str) -> Result<(), Error> {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            return Err(Error::invalid(format!(
                "resource {name:?}: no environment variable can be called {variable:?}"
            )));
        }
        match self.shelves.iter().find(|(_, shelf)| shelf.variable.as_deref() == Some(variable)) {
            Some((other, _)) => {
                Err(Error::invalid(format!("resources {other:?} and {name:?} have the same variable {variable:?}")))
            }
            None => Ok(()),
        }
    }

    /// Refuses what could never be taken.
    pub(crate) fn check(&self, needs: &[(Arc<str>, u64)]) -> Result<(), Error> {
        for (name, wanted) in totals(needs) {
            let Some(shelf) = self.shelves.get(name) else {
                return Err(Error::invalid(format!("there is no resource {name:?}; {}", self.known())));
            };
            if wanted > u128::from(shelf.total) {
                let total = shelf.total;
                return Err(Error::invalid(format!("{wanted} of resource {name:?} are needed, and there are {total}")));
            }
        }
        Ok(())
    }

    fn known(&self) -> String {
        let names: Vec<String> = self.shelves.keys().map(|name| format!("{name:?}")).collect();
        if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) }
    }

    /// Takes everything that is needed, or nothing.
    pub(crate) fn try_take(&mut self, needs: &[(Arc<str>, u64)]) -> Option<Held> {
        // Most tasks need nothing, and this is asked often.
        if needs.is_empty() {
            return Some(Held::default());
        }
        let totals = totals(needs);
        let is_there = |(name, wanted): (&&str, &u128)| {
            self.shelves.get(*name).is_some_and(|shelf| *wanted <= u128::from(shelf.free.amount()))
        };
        if !totals.iter().all(is_there) {
            return None;
        }
        let mut held = Held::default();
        for (name, wanted) in totals {
            if let Some((resource, _)) = self.shelves.get_key_value(name) {
                let resource = Arc::clone(resource);
                // It is not more than there is.
                let amount = u64::try_from(wanted).unwrap_or(u64::MAX);
                held.parts.extend(self.shelves.get_mut(name).map(|shelf| shelf.take(resource, amount)));
            }
        }
        Some(held)
    }

    /// Puts back what was taken.
    pub(crate) fn give_back(&mut self, held: Held) {
        for part in held.parts {
            if let Some(shelf) = self.shelves.get_mut(&part.resource) {
                shelf.give_back(part);
            }
        }
    }
}

impl Held {
    /// The variables that tell a task what it has got, with their values.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, String)> {
        self.parts.iter().filter_map(|part| {
            let (name, value) = part.variable.as_ref()?;
            Some((&**name, value.clone()))
        })
    }
}

impl Shelf {
    /// Takes so much, which must be there.
    fn take(&mut self, resource: Arc<str>, amount: u64) -> Part {
        let (places, value) = match &mut self.free {
            Free::Amount(free) => {
                *free = free.saturating_sub(amount);
                (Vec::new(), amount.to_string())
            }
            Free::Tokens(names, free) => {
                let places: Vec<usize> = (0..amount).map_while(|_| free.pop_first()).collect();
                let taken: Vec<&str> =
                    places.iter().filter_map(|place| names.get(*place).map(|name| &**name)).collect();
                let value = taken.join(",");
                (places, value)
            }
        };
        Part { resource, amount, places, variable: self.variable.clone().map(|variable| (variable, value)) }
    }

    fn give_back(&mut self, part: Part) {
        match &mut self.free {
            Free::Amount(free) => *free = free.saturating_add(part.amount).min(self.total),
            Free::Tokens(_, free) => free.extend(part.places),
        }
    }
}

impl Free {
    fn amount(&self) -> u64 {
        match self {
            Free::Amount(amount) => *amount,
            Free::Tokens(_, free) => free.len() as u64,
        }
    }
}

fn tokens(name: &str, names: Vec<Arc<str>>) -> Result<Free, Error> {
    let mut seen = BTreeSet::new();
    for token in &names {
        // They are joined with commas, and an environment cannot hold a NUL.
        if token.is_empty() || token.contains([',', '\0']) {
            return Err(Error::invalid(format!("resource {name:?}: no token can be called {token:?}")));
        }
        if !seen.insert(token) {
            return Err(Error::invalid(format!("resource {name:?}: token {token:?} is given twice")));
        }
    }
    let free = (0..names.len()).collect();
    Ok(Free::Tokens(names, free))
}

/// How much is needed of each resource. What is named twice is needed twice; no sum overflows.
fn totals(needs: &[(Arc<str>, u64)]) -> BTreeMap<&str, u128> {
    let mut totals = BTreeMap::new();
    for (name, amount) in needs {
        let total: &mut u128 = totals.entry(&**name).or_default();
        *total = total.saturating_add(u128::from(*amount));
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(supplies: &[(&str, Supply)]) -> Stock {
        let mut stock = Stock::new();
        for (name, supply) in supplies {
            stock.add((*name).into(), supply.clone()).unwrap();
        }
        stock
    }

    fn needs(needs: &[(&str, u64)]) -> Vec<(Arc<str>, u64)> {
        needs.iter().map(|(name, amount)| (Arc::from(*name), *amount)).collect()
    }

    fn environment(held: &Held) -> Vec<String> {
        held.environment().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn supplies_that_make_no_sense_are_refused_by_name() {
        let cases = [
            ("", Supply::amount(1), "a resource has no name"),
            ("memory", Supply::amount(1), "resource \"memory\" is given twice"),
            ("gpu", Supply::tokens(["a", "b", "a"]), "resource \"gpu\": token \"a\" is given twice"),
            ("gpu", Supply::tokens(["a,b"]), "resource \"gpu\": no token can be called \"a,b\""),
            ("gpu", Supply::tokens([""]), "resource \"gpu\": no token can be called \"\""),
            ("gpu", Supply::tokens(["\0"]), "resource \"gpu\": no token can be called \"\\0\""),
            ("gpu", Supply::amount(1).env(""), "resource \"gpu\": no environment variable can be called \"\""),
            ("gpu", Supply::amount(1).env("A=B"), "resource \"gpu\": no environment variable can be called \"A=B\""),
            ("gpu", Supply::amount(1).env("M"), "resources \"memory\" and \"gpu\" have the same variable \"M\""),
            ("gpu", Supply::indexed(0..u64::MAX), "resource \"gpu\" has more than 65536 numbers"),
        ];
        for (name, supply, message) in cases {
            let mut stock = stock(&[("memory", Supply::amount(8).env("M"))]);
            let error = stock.add(name.into(), supply).unwrap_err();
            assert!(error.is_invalid_input());
            assert_eq!(error.to_string(), message);
            // Nothing has changed.
            assert_eq!(stock.shelves.len(), 1);
        }
    }

    #[test]
    fn what_could_never_be_taken_is_refused_with_both_numbers() {
        #[allow(clippy::reversed_empty_ranges)] // what somebody may compute
        let empty = Supply::indexed(5..2);
        let stock = stock(&[("gpu", Supply::indexed(0..2)), ("memory", Supply::amount(8)), ("none", empty)]);
        let cases = [
            (needs(&[]), None),
            (needs(&[("gpu", 2), ("memory", 8)]), None),
            (needs(&[("none", 0)]), None),
            (needs(&[("gpu", 3)]), Some("3 of resource \"gpu\" are needed, and there are 2")),
            (needs(&[("none", 1)]), Some("1 of resource \"none\" are needed, and there are 0")),
            (needs(&[("gpu", 1), ("gpu", 2)]), Some("3 of resource \"gpu\" are needed, and there are 2")),
            (
                needs(&[("memory", u64::MAX), ("memory", u64::MAX)]),
                Some("36893488147419103230 of resource \"memory\" are needed, and there are 8"),
            ),
            (
                needs(&[("memory", 1), ("disk", 0)]),
                Some("there is no resource \"disk\"; there are \"gpu\", \"memory\", \"none\""),
            ),
        ];
        for (needs, message) in cases {
            let error = stock.check(&needs).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), message, "{needs:?}");
        }
        let nothing = Stock::new().check(&needs(&[("gpu", 1)])).unwrap_err().to_string();
        assert_eq!(nothing, "there is no resource \"gpu\"; there are none");
    }

    #[test]
    fn all_or_nothing_and_the_first_ones_first() {
        let boards = Supply::tokens(["x", "y", "z"]).env("BOARDS");
        let mut stock = stock(&[("board", boards), ("memory", Supply::amount(10).env("BYTES"))]);
        let one = stock.try_take(&needs(&[("board", 1), ("memory", 4)])).unwrap();
        assert_eq!(environment(&one), ["BOARDS=x", "BYTES=4"]);
        let two = stock.try_take(&needs(&[("board", 1), ("board", 1)])).unwrap();
        assert_eq!(environment(&two), ["BOARDS=y,z"]);
        // There is memory but no board; afterwards there is as much memory as before.
        assert!(stock.try_take(&needs(&[("memory", 6), ("board", 1)])).is_none());
        let rest = stock.try_take(&needs(&[("memory", 6)])).unwrap();
        assert!(stock.try_take(&needs(&[("memory", 1)])).is_none());
        stock.give_back(one);
        stock.give_back(rest);
        let again = stock.try_take(&needs(&[("board", 1), ("memory", 10)])).unwrap();
        assert_eq!(environment(&again), ["BOARDS=x", "BYTES=10"]);
        stock.give_back(two);
        assert!(stock.try_take(&needs(&[("unknown", 0)])).is_none());
    }

    #[test]
    fn who_needs_none_is_told_so_and_who_needs_nothing_is_told_nothing() {
        let mut stock = stock(&[("gpu", Supply::indexed(7..9).env("GPUS")), ("quiet", Supply::indexed(0..1))]);
        assert_eq!(environment(&stock.try_take(&needs(&[("gpu", 0)])).unwrap()), ["GPUS="]);
        assert!(environment(&stock.try_take(&[]).unwrap()).is_empty());
        assert!(environment(&stock.try_take(&needs(&[("quiet", 1)])).unwrap()).is_empty());
        assert_eq!(environment(&stock.try_take(&needs(&[("gpu", 2)])).unwrap()), ["GPUS=7,8"]);
    }

    #[test]
    fn amounts_do_not_overflow() {
        let mut stock = stock(&[("all", Supply::amount(u64::MAX))]);
        let held = stock.try_take(&needs(&[("all", u64::MAX)])).unwrap();
        assert!(stock.try_take(&needs(&[("all", 1)])).is_none());
        assert!(stock.try_take(&needs(&[("all", u64::MAX), ("all", 1)])).is_none());
        stock.give_back(held);
        stock.give_back(Held {
            parts: vec![Part { resource: "all".into(), amount: 9, places: vec![3], variable: None }],
        });
        stock.give_back(stock_of_another_pool());
        let held = stock.try_take(&needs(&[("all", u64::MAX)])).unwrap();
        assert!(stock.try_take(&needs(&[("all", 1)])).is_none());
        stock.give_back(held);
    }

    fn stock_of_another_pool() -> Held {
        stock(&[("other", Supply::amount(1))]).try_take(&needs(&[("other", 1)])).unwrap()
    }

    /// Thousands of random moves beside a model that counts: never more is held than there is, no token by two, a refusal only
    /// where something is short, and at the end everything is back.
    #[test]
    fn never_overcommitted_and_everything_comes_back() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let names = ["amount", "indexed", "named"];
        for _ in 0..50 {
            let totals = [random(20), random(6), random(4)];
            let letters = ["a", "b", "c"].into_iter().take(totals[2] as usize);
            let mut stock = stock(&[
                (names[0], Supply::amount(totals[0])),
                (names[1], Supply::indexed(10..10 + totals[1]).env("INDEXED")),
                (names[2], Supply::tokens(letters).env("NAMED")),
            ]);
            let mut out: Vec<(Held, [u64; 3])> = Vec::new();
            for _ in 0..400 {
                if random(2) == 0 && !out.is_empty() {
                    let (held, _) = out.swap_remove(random(out.len() as u64) as usize);
                    stock.give_back(held);
                } else {
                    let wish: Vec<(usize, u64)> = (0..random(4)).map(|_| (random(3) as usize, random(5))).collect();
                    let mut wanted = [0; 3];
                    wish.iter().for_each(|(place, amount)| wanted[*place] += amount);
                    let wish: Vec<(Arc<str>, u64)> =
                        wish.iter().map(|(place, amount)| (names[*place].into(), *amount)).collect();
                    let held = [0, 1, 2].map(|place| out.iter().map(|(_, held)| held[place]).sum::<u64>());
                    let fits = (0..3).all(|place| wanted[place] + held[place] <= totals[place]);
                    let possible = (0..3).all(|place| wanted[place] <= totals[place]);
                    assert_eq!(stock.check(&wish).is_ok(), possible);
                    let taken = stock.try_take(&wish);
                    assert_eq!(taken.is_some(), fits, "{wish:?} of {totals:?}, {held:?} held");
                    out.extend(taken.map(|taken| (taken, wanted)));
                }
                let mut seen = BTreeSet::new();
                for (held, wanted) in &out {
                    for (variable, value) in held.environment() {
                        let tokens: Vec<&str> = value.split(',').filter(|token| !token.is_empty()).collect();
                        let place = if variable == "INDEXED" { 1 } else { 2 };
                        assert_eq!(tokens.len() as u64, wanted[place]);
                        assert!(tokens.into_iter().all(|token| seen.insert(token.to_owned())), "held by two");
                    }
                }
            }
            out.into_iter().for_each(|(held, _)| stock.give_back(held));
            let all: Vec<(Arc<str>, u64)> = names.map(Arc::from).into_iter().zip(totals).collect();
            assert!(stock.try_take(&all).is_some(), "not everything came back");
        }
    }
}
