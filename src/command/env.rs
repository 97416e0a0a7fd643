//! The environment a child will have: what is inherited, and what is changed. Decides the order and what a duplicate means;
//! the bytes are made by `plan`.

use crate::sys::environ;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

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

    /// Shows what of the parent's environment the child will have, as keys and values. Entries that are none, without `=` or without a
    /// key, are left out, as by std.
    pub(crate) fn each_inherited(&self, mut show: impl FnMut(&[u8], &[u8])) {
        if self.clear {
            return;
        }
        let is_changed = |key: &[u8]| !self.changes.is_empty() && self.changes.contains_key(OsStr::from_bytes(key));
        let alone = environ::visit_if_alone(|entry| {
            // A key may begin with `=`, as std reads it.
            let end = entry.iter().skip(1).position(|&byte| byte == b'=').map(|place| place + 1);
            if let Some((key, [_, value @ ..])) = end.and_then(|end| entry.split_at_checked(end))
                && !is_changed(key)
            {
                show(key, value);
            }
        });
        if !alone {
            for (key, value) in std::env::vars_os() {
                if !is_changed(key.as_bytes()) {
                    show(key.as_bytes(), value.as_bytes());
                }
            }
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
