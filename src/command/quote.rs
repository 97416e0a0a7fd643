//! Shell lines: how a command is written so that it can be pasted into a shell, and how a line is read. Both by `shlex`.

use crate::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What is shown instead of a secret.
pub(super) const MASK: &str = "***";

/// A word as a POSIX shell reads it back. A word with a zero byte, which no shell can say, is shown escaped.
///
/// ```
/// assert_eq!(procession::quote("it's"), r#""it's""#);
/// assert_eq!(procession::quote("plain-word"), "plain-word");
/// ```
#[doc(alias = "shlex")]
pub fn quote(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    match shlex::bytes::try_quote(bytes) {
        Ok(quoted) => String::from_utf8_lossy(&quoted).into_owned(),
        Err(_) => format!("'{}'", bytes.escape_ascii()),
    }
}

/// The words of a line, by the rules of a POSIX shell for quotes and backslashes; nothing is expanded.
pub(super) fn split(line: &OsStr) -> Result<Vec<OsString>, Error> {
    match shlex::bytes::split(line.as_bytes()) {
        Some(words) => Ok(words.into_iter().map(OsString::from_vec).collect()),
        None => Err(Error::invalid(format!("a quote or backslash is not closed in {line:?}"))),
    }
}

/// `NAME=value` with a name that a shell takes for a variable.
pub(super) fn assignment(word: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = word.as_bytes();
    let place = bytes.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (bytes.get(..place)?, bytes.get(place + 1..)?);
    let first = *name.first()?;
    let is_name = (first.is_ascii_alphabetic() || first == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_name.then(|| (OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_assigned() {
        assert_eq!(assignment("A=b=c".as_ref()), Some(("A".into(), "b=c".into())));
        for word in ["=x", "1A=x", "a-b=x", "plain", "./a=b"] {
            assert_eq!(assignment(word.as_ref()), None, "{word}");
        }
    }
}
