//! The calendar (gmtime(3)).
#![allow(unsafe_code)]

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in UTC, split up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utc {
    pub(crate) year: i64,
    pub(crate) month: i32,
    pub(crate) day: i32,
    pub(crate) hour: i32,
    pub(crate) minute: i32,
    pub(crate) second: i32,
    pub(crate) millis: u32,
}

/// Splits a moment up. Moments before 1970 count as its beginning.
pub(crate) fn utc(moment: SystemTime) -> Utc {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    #[allow(deprecated)] // it will be wider with musl
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(libc::time_t::MAX);
    // SAFETY: `tm` is a plain C struct of integers and a pointer, for which zeros are valid.
    let mut split: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; gmtime_r uses no state but these, and no environment.
    let _ = unsafe { libc::gmtime_r(&raw const seconds, &raw mut split) };
    Utc {
        year: i64::from(split.tm_year) + 1900,
        month: split.tm_mon + 1,
        day: split.tm_mday,
        hour: split.tm_hour,
        minute: split.tm_min,
        second: split.tm_sec,
        millis: since.subsec_millis(),
    }
}

/// As RFC 3339 has it: `2024-02-29T12:34:56.789Z`.
impl fmt::Display for Utc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Utc { year, month, day, hour, minute, second, millis } = self;
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_day() {
        let utc = utc(UNIX_EPOCH + Duration::from_millis(1_709_210_096_789));
        let expected = Utc { year: 2024, month: 2, day: 29, hour: 12, minute: 34, second: 56, millis: 789 };
        assert_eq!(utc, expected);
        assert_eq!(utc.to_string(), "2024-02-29T12:34:56.789Z");
    }
}
