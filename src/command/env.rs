//! The environment a child will have: what is inherited, and what is changed. Decides the order and what a duplicate means;
//! the bytes are made by `plan`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

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

    /// Hands out the entries that the child will have. What is inherited is read once, under the lock of std.
    pub(crate) fn each(&self, mut entry: impl FnMut(&OsStr, &OsStr)) {
        if !self.clear {
            for (key, value) in std::env::vars_os() {
                if self.changes.is_empty() || !self.changes.contains_key(&key) {
                    entry(&key, &value);
                }
            }
        }
        for (key, value) in &self.changes {
            if let Some(value) = value {
                entry(key, &value.text);
            }
        }
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
