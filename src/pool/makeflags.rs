//! The words of the variable `MAKEFLAGS`: where the jobserver is, and how that is said to a child. Pure; bytes in, bytes out.
//!
//! Make writes single letters first, then long options, then `--` and the variables of its command line. Blanks within a word are
//! quoted by a backslash.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// How to reach a jobserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// A named pipe.
    Fifo(PathBuf),
    /// A descriptor to read from, and one to write to.
    Descriptors(RawFd, RawFd),
    /// There is one, and it is not for this process.
    Withheld,
    /// In a style that we do not know.
    Unknown(String),
}

const AUTH: &[u8] = b"--jobserver-auth=";
/// The same before make 4.2, and in what cargo says.
const DESCRIPTORS: &[u8] = b"--jobserver-fds=";
const FIFO: &[u8] = b"fifo:";
const JOBS: &[u8] = b"--jobs=";

/// Where the jobserver is. Of several places the last one counts.
pub(crate) fn auth(flags: &[u8]) -> Option<Auth> {
    let words = options(flags);
    let last = |name: &[u8]| words.iter().rev().find_map(|word| word.strip_prefix(name));
    let value = unquoted(last(AUTH).or_else(|| last(DESCRIPTORS))?);
    if let Some(path) = value.strip_prefix(FIFO).filter(|path| !path.is_empty()) {
        return Some(Auth::Fifo(OsString::from_vec(path.to_vec()).into()));
    }
    let text = String::from_utf8_lossy(&value).into_owned();
    let numbers = text.split_once(',').and_then(|(read, write)| Some((read.parse().ok()?, write.parse().ok()?)));
    Some(match numbers {
        Some((read, write)) if read < 0 || write < 0 => Auth::Withheld,
        Some((read, write)) => Auth::Descriptors(read, write),
        None => Auth::Unknown(text),
    })
}

/// How many jobs there are at a time, if it is said.
pub(crate) fn jobs(flags: &[u8]) -> Option<usize> {
    let words = options(flags);
    words.iter().enumerate().rev().find_map(|(place, word)| {
        let digits = match word.strip_prefix(JOBS).or_else(|| word.strip_prefix(b"-j")) {
            Some(b"") => words.get(place + 1)?,
            digits => digits?,
        };
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// These flags with another jobserver, and everything else as it was.
pub(crate) fn with_jobserver(flags: &[u8], jobs: Option<usize>, auth: &Auth) -> Vec<u8> {
    let all = words(flags);
    let (options, rest) = all.split_at(options(flags).len());
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut options = options.iter().peekable();
    while let Some(word) = options.next() {
        let is_jobs = *word == b"-j" || *word == b"--jobs";
        if is_jobs && options.peek().is_some_and(|next| is_number(next)) {
            options.next();
        }
        let is_number = word.strip_prefix(b"-j").is_some_and(is_number);
        if !(is_jobs || is_number || [AUTH, DESCRIPTORS, JOBS].iter().any(|name| word.starts_with(name))) {
            kept.push(word.to_vec());
        }
    }
    // Whoever looks for letters in the first word finds it empty, as make leaves it.
    if kept.first().is_none_or(|word| word.starts_with(b"-")) {
        kept.insert(0, Vec::new());
    }
    kept.push(jobs.map_or_else(|| b"-j".to_vec(), |jobs| format!("-j{jobs}").into_bytes()));
    kept.push([AUTH, &spelled(auth)].concat());
    kept.extend(rest.iter().map(|word| word.to_vec()));
    kept.join(&b' ')
}

fn spelled(auth: &Auth) -> Vec<u8> {
    match auth {
        Auth::Fifo(path) => [FIFO, &quoted(path.as_os_str().as_bytes())].concat(),
        Auth::Descriptors(read, write) => format!("{read},{write}").into_bytes(),
        Auth::Withheld | Auth::Unknown(_) => b"-2,-2".to_vec(),
    }
}

/// The words before `--`, as they are written.
fn options(flags: &[u8]) -> Vec<&[u8]> {
    words(flags).into_iter().take_while(|word| *word != b"--").collect()
}

/// All words, as they are written.
fn words(flags: &[u8]) -> Vec<&[u8]> {
    let mut is_quoted = false;
    let at_blanks = |byte: &u8| {
        let ends = !is_quoted && is_blank(*byte);
        is_quoted = !is_quoted && *byte == b'\\';
        ends
    };
    flags.split(at_blanks).filter(|word| !word.is_empty()).collect()
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_number(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_digit)
}

fn unquoted(word: &[u8]) -> Vec<u8> {
    let mut bytes = word.iter().copied();
    let mut plain = Vec::with_capacity(word.len());
    while let Some(byte) = bytes.next() {
        let next = if byte == b'\\' { bytes.next() } else { None };
        plain.push(next.unwrap_or(byte));
    }
    plain
}

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut word = Vec::with_capacity(text.len());
    for byte in text {
        if is_blank(*byte) || *byte == b'\\' {
            word.push(b'\\');
        }
        word.push(*byte);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fifo(path: &str) -> Option<Auth> {
        Some(Auth::Fifo(path.into()))
    }

    fn unknown(text: &str) -> Option<Auth> {
        Some(Auth::Unknown(text.into()))
    }

    #[test]
    fn the_place_is_found() {
        for (flags, expected) in [
            ("", None),
            ("   ", None),
            ("kn", None),
            (" -j4", None),
            ("k -j3 --jobserver-auth=3,4 -- A=x\\ y", Some(Auth::Descriptors(3, 4))),
            (" --jobserver-fds=5,6 -j", Some(Auth::Descriptors(5, 6))),
            ("-j --jobserver-fds=8,9 --jobserver-auth=8,9", Some(Auth::Descriptors(8, 9))),
            // The newer word counts, the last one of several, and what is a variable is none.
            (" --jobserver-auth=3,4 --jobserver-fds=5,6", Some(Auth::Descriptors(3, 4))),
            (" --jobserver-auth=nonsense --jobserver-auth=3,4", Some(Auth::Descriptors(3, 4))),
            (" -- --jobserver-auth=3,4", None),
            (" -- A=b\\ --jobserver-auth=3,4", None),
            (" -j3 --jobserver-auth=3,4 --jobserver-auth=-2,-2", Some(Auth::Withheld)),
            ("--jobserver-auth=3,-1", Some(Auth::Withheld)),
            (" -j3 --jobserver-auth=fifo:/tmp/GMfifo1", fifo("/tmp/GMfifo1")),
            ("\t--jobserver-auth=fifo:/a\\ b\\\\c\\d,1\t-k", fifo("/a b\\cd,1")),
            ("--jobserver-auth=fifo:/a\\", fifo("/a\\")),
            ("--jobserver-auth=fifo:", unknown("fifo:")),
            ("--jobserver-auth=", unknown("")),
            ("--jobserver-auth=3", unknown("3")),
            ("--jobserver-auth=3,4,5", unknown("3,4,5")),
            ("--jobserver-auth=3,99999999999", unknown("3,99999999999")),
            ("--jobserver-auth=gmake_semaphore_7", unknown("gmake_semaphore_7")),
            ("--jobserver-authority=3,4", None),
        ] {
            assert_eq!(auth(flags.as_bytes()), expected, "{flags:?}");
        }
        assert_eq!(auth(b"--jobserver-auth=\xff"), unknown("\u{fffd}"));
    }

    #[test]
    fn the_number_of_jobs_is_found() {
        for (flags, expected) in [
            ("", None),
            ("-j", None),
            (" -j --jobserver-auth=3,4", None),
            (" -j4 --jobserver-auth=3,4", Some(4)),
            ("k -j 12", Some(12)),
            ("--jobs=7 -k", Some(7)),
            ("-j2 -j3", Some(3)),
            ("-jx", None),
            ("-j99999999999999999999999", None),
            (" -- -j4", None),
        ] {
            assert_eq!(jobs(flags.as_bytes()), expected, "{flags:?}");
        }
    }

    #[test]
    fn everything_else_stays_as_it_was() {
        let (fifo, descriptors) = (Auth::Fifo("/tmp/x y/fifo".into()), Auth::Descriptors(7, 8));
        for (flags, expected) in [
            ("", " -j4 --jobserver-auth=7,8"),
            ("  ", " -j4 --jobserver-auth=7,8"),
            ("kn", "kn -j4 --jobserver-auth=7,8"),
            ("-k", " -k -j4 --jobserver-auth=7,8"),
            ("-j8", " -j4 --jobserver-auth=7,8"),
            ("-j 8 -l 3", " -l 3 -j4 --jobserver-auth=7,8"),
            ("-j -k --jobs --jobs=9 --jobs 9", " -k -j4 --jobserver-auth=7,8"),
            (" --no-print-directory", " --no-print-directory -j4 --jobserver-auth=7,8"),
            ("k -j3 --jobserver-auth=3,4 -- A=x\\ y -j2", "k -j4 --jobserver-auth=7,8 -- A=x\\ y -j2"),
            (" --jobserver-fds=3,4 --jobserver-auth=-2,-2 --", " -j4 --jobserver-auth=7,8 --"),
        ] {
            let joined = with_jobserver(flags.as_bytes(), Some(4), &descriptors);
            assert_eq!(String::from_utf8(joined.clone()).unwrap(), expected, "{flags:?}");
            assert_eq!((auth(&joined), jobs(&joined)), (Some(descriptors.clone()), Some(4)));
            // Once more changes nothing.
            assert_eq!(with_jobserver(&joined, Some(4), &descriptors), joined);
        }
        let joined = with_jobserver(b"s -- A=\xff", None, &fifo);
        assert_eq!(joined, b"s -j --jobserver-auth=fifo:/tmp/x\\ y/fifo -- A=\xff");
        assert_eq!(auth(&joined), Some(fifo));
    }
}
