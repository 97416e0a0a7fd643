//! The environment a child will have: what is inherited, and what is changed. Decides the order and what a duplicate means;
//! the bytes are made by `plan`.

use crate::sys::environ;
use crate::sys::strings::Strings;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

thread_local! {
    /// What commands inherit that this thread starts now; read when the first of them wants it.
    static HELD: RefCell<Held> = const { RefCell::new(Held::No) };
}

enum Held {
    No,
    Unread,
    Read(Arc<Strings>),
}

/// While it lives, all commands that this thread starts inherit one and the same environment, read once: in a program with threads that
/// costs a copy of each variable. For a few starts in a row.
pub(crate) fn hold_environment() -> impl Drop {
    struct Hold;
    impl Drop for Hold {
        fn drop(&mut self) {
            HELD.set(Held::No);
        }
    }
    HELD.set(Held::Unread);
    Hold
}

/// The environment that is held for the commands of this thread, if one is.
pub(crate) fn held_environment() -> Option<Arc<Strings>> {
    let look = |held: &RefCell<Held>| {
        let mut held = held.borrow_mut();
        if let Held::Unread = *held {
            let mut read = Strings::with_capacity(64, 4096);
            each_of_ours(|key, value| read.push_inherited(key, value));
            *held = Held::Read(Arc::new(read));
        }
        match &*held {
            Held::Read(read) => Some(Arc::clone(read)),
            _ => None,
        }
    };
    // A thread that ends holds nothing any more.
    HELD.try_with(look).ok().flatten()
}

/// Changes to the environment of the parent, or a whole environment.
///
/// One entry reaches the child for each key; the last change wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Env {
    pub(crate) clear: bool,
    pub(crate) changes: BTreeMap<OsString, Option<Value>>,
}

/// A value, and whether it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) text: OsString,
    pub(crate) secret: bool,
}

impl Env {
    pub(crate) fn set(&mut self, key: OsString, text: OsString, secret: bool) {
        self.changes.insert(key, Some(Value { text, secret }));
    }

    pub(crate) fn remove(&mut self, key: OsString) {
        if self.clear {
            self.changes.remove(&key);
        } else {
            self.changes.insert(key, None);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.clear = true;
        self.changes.clear();
    }

    /// Whether the child has the environment of the parent as it is.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.clear && self.changes.is_empty()
    }

    /// Shows what of the parent's environment the child will have, as keys and values. Entries that are none, without `=` or without a
    /// key, are left out, as by std.
    pub(crate) fn each_inherited(&self, mut show: impl FnMut(&[u8], &[u8])) {
        if self.clear {
            return;
        }
        let is_changed = |key: &[u8]| !self.changes.is_empty() && self.changes.contains_key(OsStr::from_bytes(key));
        let mut show = |key: &[u8], value: &[u8]| {
            if !is_changed(key) {
                show(key, value);
            }
        };
        match held_environment() {
            Some(held) => held.iter().for_each(|entry| show_entry(entry.to_bytes(), &mut show)),
            None => each_of_ours(show),
        }
    }

    /// What the child will have besides.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.changes.iter().filter_map(|(key, value)| Some((key.as_os_str(), value.as_ref()?.text.as_os_str())))
    }

    /// The value that the child will see for one key.
    pub(crate) fn get(&self, key: &str) -> Option<OsString> {
        match self.changes.get(OsStr::new(key)) {
            Some(value) => value.as_ref().map(|value| value.text.clone()),
            None if self.clear => None,
            None => std::env::var_os(key),
        }
    }
}

/// Shows the environment of this program.
fn each_of_ours(mut show: impl FnMut(&[u8], &[u8])) {
    let alone = environ::visit_if_alone(|entry| show_entry(entry, &mut show));
    if !alone {
        for (key, value) in std::env::vars_os() {
            show(key.as_bytes(), value.as_bytes());
        }
    }
}

/// Shows an entry as its key and its value, if it has both. A key may begin with `=`, as std reads it.
fn show_entry(entry: &[u8], show: &mut impl FnMut(&[u8], &[u8])) {
    let end = entry.iter().skip(1).position(|&byte| byte == b'=').map(|place| place + 1);
    if let Some((key, [_, value @ ..])) = end.and_then(|end| entry.split_at_checked(end)) {
        show(key, value);
    }
}
