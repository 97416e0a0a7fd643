//! Whether the machine can bear one more task: limits as data, what the machine says, and the decision, which is pure. When it is
//! asked, and what becomes of a task that must wait, is the pool's matter.

use crate::error::Error;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// When the machine is too busy for one more task, whatever else is free.
///
/// Limits are those of the whole machine, with everything that runs on it, and all of them must be kept. One task is always allowed to
/// run, so that a busy machine makes a pool slow and not stop. What counts is the moment at which a task is to be started; those that
/// run are left alone.
///
/// ```
/// use procession::pool::Admission;
///
/// let admission = Admission::new().load_max(16.0).memory_pressure_max(10.0).memory_free_min(2 << 30);
/// # let _ = admission;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    load_max: Option<f64>,
    memory_pressure_max: Option<f64>,
    memory_free_min: Option<u64>,
}

impl Admission {
    /// No limits.
    pub fn new() -> Admission {
        Admission::default()
    }

    /// No more threads than this, of all processes, shall want a processor. Two numbers of `/proc/loadavg` must be within it: the load average of the
    /// last minute, and the count of this moment with the new task added, because the average is late to notice a rush.
    #[doc(alias = "loadavg")]
    pub fn load_max(mut self, threads: f64) -> Admission {
        self.load_max = Some(threads);
        self
    }

    /// In no more than this share of the last ten seconds, in percent, shall some process have waited for memory: `some avg10` of
    /// `/proc/pressure/memory` (Linux 4.20). It is near 0 as long as everybody gets the memory they ask for, however little is left.
    #[doc(alias = "PSI")]
    pub fn memory_pressure_max(mut self, percent: f64) -> Admission {
        self.memory_pressure_max = Some(percent);
        self
    }

    /// So many bytes shall be available without swapping: `MemAvailable` of `/proc/meminfo`. In a container this is the memory of the
    /// whole machine.
    #[doc(alias = "memfree")]
    pub fn memory_free_min(mut self, bytes: u64) -> Admission {
        self.memory_free_min = Some(bytes);
        self
    }

    /// Whether these limits make sense and can be watched on this machine.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a limit that nothing can keep;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the file that a limit is about cannot be read here.
    pub fn check(&self) -> Result<(), Error> {
        self.check_limits()?;
        if self.load_max.is_some() {
            check_file(LOAD, parse_load)?;
        }
        if self.memory_pressure_max.is_some() {
            check_file(PRESSURE, parse_pressure)?;
        }
        if self.memory_free_min.is_some() {
            check_file(MEMORY, parse_memory)?;
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Error> {
        if let Some(load) = self.load_max.filter(|load| !(load.is_finite() && *load > 0.0)) {
            return Err(Error::invalid(format!("no load can be at most {load}")));
        }
        if let Some(percent) = self.memory_pressure_max.filter(|percent| !(0.0..=100.0).contains(percent)) {
            return Err(Error::invalid(format!("a memory pressure of {percent} percent is not between 0 and 100")));
        }
        Ok(())
    }

    /// Whether one more task may be started beside those that run. What could not be read is no obstacle.
    pub(crate) fn admits(&self, running: usize, reading: &Reading) -> bool {
        if running == 0 {
            return true;
        }
        let load = self.load_max.is_none_or(|max| {
            reading.load.is_none_or(|load| load.average <= max && load.at_work.saturating_add(1) as f64 <= max)
        });
        let pressure =
            self.memory_pressure_max.is_none_or(|max| reading.memory_pressure.is_none_or(|percent| percent <= max));
        let memory = self.memory_free_min.is_none_or(|min| reading.memory_free.is_none_or(|bytes| bytes >= min));
        load && pressure && memory
    }

    fn has_limits(&self) -> bool {
        *self != Admission::default()
    }
}

/// So much time lies between two starts, at least. Pure.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// Whether a task may be started now.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// One is started, and it counts from now; or from later, when that is said again.
    pub(crate) fn start(&mut self, now: Instant) {
        self.next = if self.interval.is_zero() { None } else { now.checked_add(self.interval) };
    }

    /// What was to be started was not.
    pub(crate) fn take_back(&mut self) {
        self.next = None;
    }

    /// When the next one may be started, as long as that was not asked after that moment.
    pub(crate) fn moment(&self) -> Option<Instant> {
        self.next
    }

    /// Whether that moment has come, now and not before.
    pub(crate) fn renew(&mut self, now: Instant) -> bool {
        self.next.take_if(|next| *next <= now).is_some()
    }
}

/// What the machine says of itself, as far as it does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub(crate) load: Option<Load>,
    /// In how many percent of the last ten seconds somebody waited for memory.
    pub(crate) memory_pressure: Option<f64>,
    /// In bytes.
    pub(crate) memory_free: Option<u64>,
}

/// How many want a processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// In the last minute.
    pub(crate) average: f64,
    /// Now, without the thread that asks.
    pub(crate) at_work: u64,
}

const LOAD: &str = "/proc/loadavg";
const PRESSURE: &str = "/proc/pressure/memory";
const MEMORY: &str = "/proc/meminfo";

impl Reading {
    /// Reads three small files that the kernel makes up on the spot.
    pub(crate) fn take() -> Reading {
        Reading {
            load: read(LOAD, parse_load).ok().flatten(),
            memory_pressure: read(PRESSURE, parse_pressure).ok().flatten(),
            memory_free: read(MEMORY, parse_memory).ok().flatten(),
        }
    }
}

/// The last reading, for as long as it is good enough.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    taken: Option<Instant>,
    reading: Reading,
}

impl Gauge {
    /// How old a reading may be. Whoever was refused asks again when so much time has passed, or a task has ended.
    pub(crate) const AGE_MAX: Duration = Duration::from_millis(100);

    /// Whether one more task may be started beside those that run. If so the task counts as running from now on, although no reading
    /// shows it yet: otherwise a single reading would let all of them in.
    pub(crate) fn admits(&mut self, admission: &Admission, running: usize, now: Instant) -> bool {
        self.admits_by(admission, running, now, Reading::take)
    }

    fn admits_by(
        &mut self,
        admission: &Admission,
        running: usize,
        now: Instant,
        take: impl FnOnce() -> Reading,
    ) -> bool {
        if !admission.has_limits() {
            return true;
        }
        if self.taken.is_none_or(|taken| now.saturating_duration_since(taken) >= Self::AGE_MAX) {
            self.reading = take();
            self.taken = Some(now);
        }
        let admits = admission.admits(running, &self.reading);
        if let Some(load) = self.reading.load.as_mut().filter(|_| admits) {
            load.at_work = load.at_work.saturating_add(1);
        }
        admits
    }
}

fn read<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> io::Result<Option<T>> {
    Ok(parse(&fs::read_to_string(path)?))
}

fn check_file<T>(path: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<(), Error> {
    let unsupported = || Error::new(crate::error::ErrorKind::Unsupported).path(path);
    match read(path, parse) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(unsupported().detail("a limit is about a number that is not there")),
        Err(error) => Err(unsupported().detail("a limit is about a file that cannot be read").source(error)),
    }
}

/// `AVERAGE AVERAGE AVERAGE AT_WORK/ALL PID`
fn parse_load(text: &str) -> Option<Load> {
    let mut words = text.split_ascii_whitespace();
    let average = number(words.next()?)?;
    let at_work: u64 = words.nth(2)?.split_once('/')?.0.parse().ok()?;
    Some(Load { average, at_work: at_work.saturating_sub(1) })
}

/// `some avg10=PERCENT avg60=PERCENT ..`, and a line `full ..`.
fn parse_pressure(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    number(line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?)
}

/// A line `MemAvailable: NUMBER kB` among others.
fn parse_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn number(word: &str) -> Option<f64> {
    word.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_pace_lies_between_starts() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut pace = Pace { interval: Duration::from_secs(2), next: None };
        assert!(pace.admits(at(0)) && pace.moment().is_none() && !pace.renew(at(0)));
        pace.start(at(0));
        assert!(!pace.admits(at(1)) && pace.moment() == Some(at(2)));
        pace.start(at(1));
        assert!(!pace.admits(at(2)) && !pace.renew(at(2)) && pace.admits(at(3)));
        assert!(pace.renew(at(3)) && !pace.renew(at(3)) && pace.admits(at(3)));
        pace.start(at(4));
        pace.take_back();
        assert!(pace.admits(at(4)));
        pace.interval = Duration::ZERO;
        pace.start(at(5));
        assert!(pace.admits(at(5)));
    }

    #[test]
    fn loads_are_read() {
        let load = |average, at_work| Some(Load { average, at_work });
        for (text, expected) in [
            ("0.81 0.28 0.14 2/89 10160\n", load(0.81, 1)),
            ("12.00 3 4 17/1 5", load(12.0, 16)),
            ("1 1 1 0/0 0", load(1.0, 0)),
            ("1 1 1 18446744073709551615/1 1", load(1.0, u64::MAX - 1)),
            ("1 1 1 18446744073709551616/1 1", None),
            ("1 1 1", None),
            ("1 1 1 7", None),
            ("x 1 1 2/3 4", None),
            ("NaN 1 1 2/3 4", None),
            ("inf 1 1 2/3 4", None),
            ("-1 1 1 2/3 4", None),
            ("", None),
            ("\0\0", None),
        ] {
            assert_eq!(parse_load(text), expected, "{text:?}");
        }
    }

    #[test]
    fn pressures_are_read() {
        for (text, expected) in [
            ("some avg10=1.25 avg60=0.40 avg300=0.09 total=77\nfull avg10=9.00 avg60=0 avg300=0 total=3\n", Some(1.25)),
            ("full avg10=9.00 avg60=0 avg300=0 total=3\nsome avg60=3 avg10=100.00\n", Some(100.0)),
            ("full avg10=9.00 avg60=0 avg300=0 total=3\n", None),
            ("some avg60=3\n", None),
            ("some avg10=\n", None),
            ("some avg10=-1\n", None),
            ("some avg10=1e999\n", None),
            ("someavg10=1\n", None),
            ("", None),
        ] {
            assert_eq!(parse_pressure(text), expected, "{text:?}");
        }
    }

    #[test]
    fn memory_is_read() {
        for (text, expected) in [
            ("MemTotal:  16 kB\nMemFree: 1 kB\nMemAvailable:    12 kB\nBuffers: 3 kB\n", Some(12 * 1024)),
            ("MemAvailable: 0 kB", Some(0)),
            ("MemAvailable:12kB", Some(12 * 1024)),
            ("MemAvailable: 18446744073709551615 kB", None),
            ("MemAvailable: 12 MB", None),
            ("MemAvailable: -12 kB", None),
            ("MemAvailable: kB", None),
            ("MemTotal: 12 kB", None),
            ("xMemAvailable: 12 kB", None),
            ("", None),
        ] {
            assert_eq!(parse_memory(text), expected, "{text:?}");
        }
    }

    #[test]
    fn each_limit_at_its_border() {
        let load = |average, at_work| Reading { load: Some(Load { average, at_work }), ..Reading::default() };
        let pressure = |percent| Reading { memory_pressure: Some(percent), ..Reading::default() };
        let free = |bytes| Reading { memory_free: Some(bytes), ..Reading::default() };
        let all = Admission::new().load_max(4.0).memory_pressure_max(10.0).memory_free_min(100);
        for (admission, reading, admits) in [
            (Admission::new(), Reading::take(), true),
            (Admission::new().load_max(4.0), load(4.0, 3), true),
            (Admission::new().load_max(4.0), load(4.01, 0), false),
            (Admission::new().load_max(4.0), load(0.0, 4), false),
            (Admission::new().load_max(0.5), load(0.0, 0), false),
            (Admission::new().load_max(4.0), load(0.0, u64::MAX), false),
            (Admission::new().memory_pressure_max(10.0), pressure(10.0), true),
            (Admission::new().memory_pressure_max(10.0), pressure(10.01), false),
            (Admission::new().memory_pressure_max(0.0), pressure(0.0), true),
            (Admission::new().memory_free_min(100), free(100), true),
            (Admission::new().memory_free_min(100), free(99), false),
            // What cannot be read is no limit, and each limit is about its own number.
            (all.clone(), Reading::default(), true),
            (all.clone(), load(9.0, 0), false),
            (all.clone(), pressure(99.0), false),
            (all, free(0), false),
        ] {
            assert_eq!(admission.admits(1, &reading), admits, "{admission:?} {reading:?}");
            assert!(admission.admits(0, &reading), "one must always run");
        }
    }

    #[test]
    fn readings_are_used_again_for_a_while_and_count_who_was_let_in() {
        let admission = Admission::new().load_max(3.0);
        let (mut gauge, start, mut looks) = (Gauge::default(), Instant::now(), 0);
        let mut ask = |milliseconds| {
            gauge.admits_by(&admission, 1, start + Duration::from_millis(milliseconds), || {
                looks += 1;
                Reading { load: Some(Load { average: 0.0, at_work: 1 }), ..Reading::default() }
            })
        };
        assert_eq!(
            [0, 0, 0, 99, 100, 150, 199, 200].map(&mut ask),
            [true, true, false, false, true, true, false, true]
        );
        // A clock that went backwards is no reason to look, or to fail.
        assert!(ask(0));
        assert_eq!(looks, 3);
        assert!(Gauge::default().admits_by(&Admission::new(), 9, start, || unreachable!("there is no limit")));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for (admission, message) in [
            (Admission::new().load_max(f64::NAN), "no load can be at most NaN"),
            (Admission::new().load_max(0.0), "no load can be at most 0"),
            (Admission::new().load_max(f64::INFINITY), "no load can be at most inf"),
            (
                Admission::new().memory_pressure_max(100.5),
                "a memory pressure of 100.5 percent is not between 0 and 100",
            ),
            (
                Admission::new().memory_pressure_max(f64::NAN),
                "a memory pressure of NaN percent is not between 0 and 100",
            ),
        ] {
            let error = admission.check().unwrap_err();
            assert!(error.is_invalid_input());
            assert_eq!(error.to_string(), message);
        }
        Admission::new().check().unwrap();
    }

    #[test]
    fn a_file_that_is_missing_or_says_nothing_is_named() {
        let error = check_file("/nowhere/pressure", parse_pressure).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().starts_with("/nowhere/pressure: a limit is about a file that cannot be read: "));
        let error = check_file("/dev/null", parse_pressure).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "/dev/null: a limit is about a number that is not there");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_something() {
        let reading = Reading::take();
        assert!(reading.load.is_some() && reading.memory_free.is_some_and(|bytes| bytes > 0), "{reading:?}");
        Admission::new().load_max(1.0).memory_free_min(1).check().unwrap();
    }
}
