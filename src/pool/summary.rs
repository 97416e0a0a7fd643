//! What a run came to, in numbers: how many ended how, how long they took and what they used, and who failed. Decides what is worth
//! a line at the end of a run; keeps a bounded number of tasks, however many there were.

use super::done::{Done, TaskId};
use super::observe::{Observer, TaskNews};
use super::readable;
use super::verdict::{Tally, Verdict};
use crate::entry;
use crate::explain::spoken;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The numbers of a run, for people: how many tasks succeeded and failed, how long they ran, the slowest, and what each of those
/// that failed said last.
///
/// Cheap to clone: all clones show the same run. Give one to the pool with [`Pool::observe`](crate::pool::Pool::observe) and print
/// the other when the run is over, or while it goes on.
///
/// ```
/// use procession::pool::{Pool, Summary};
/// use procession::Command;
///
/// let summary = Summary::new();
/// let pool = Pool::new(4).observe(summary.clone());
/// pool.map(["true", "false", "true"].map(Command::new));
/// assert_eq!((summary.succeeded(), summary.failed()), (2, 1));
/// print!("{summary}");
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "report")]
#[doc(alias = "statistics")]
pub struct Summary(Arc<Mutex<State>>);

/// How many tasks are told by name.
const KEPT: usize = 10;
/// How much is kept of a label, and of what a task said last.
const LABEL_COLUMNS: usize = 60;
const SAID_COLUMNS: usize = 200;
/// Where the last line is looked for.
const TAIL_BYTES: usize = 1024;

#[derive(Debug)]
struct State {
    kept_max: usize,
    tally: Tally,
    first_start: Option<Instant>,
    last_end: Option<Instant>,
    ran_total: Duration,
    waited_longest: Duration,
    user: Duration,
    system: Duration,
    resident_max: u64,
    retries: u64,
    /// When the attempts that run were started.
    running: HashMap<TaskId, Instant>,
    slowest: Vec<Entry>,
    failed: Vec<Entry>,
}

/// A task that is told by name.
#[derive(Clone, Debug)]
struct Entry {
    label: String,
    how: String,
    ran: Duration,
    said: String,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary::new()
    }
}

impl Summary {
    /// Tells at most 10 of the tasks that failed, the first ones, and as many of the slowest by name.
    pub fn new() -> Summary {
        Summary(Arc::new(Mutex::new(State {
            kept_max: KEPT,
            tally: Tally::default(),
            first_start: None,
            last_end: None,
            ran_total: Duration::ZERO,
            waited_longest: Duration::ZERO,
            user: Duration::ZERO,
            system: Duration::ZERO,
            resident_max: 0,
            retries: 0,
            running: HashMap::new(),
            slowest: Vec::new(),
            failed: Vec::new(),
        })))
    }

    /// Tells so many of each instead.
    pub fn keep(self, tasks_max: usize) -> Summary {
        self.state().kept_max = tasks_max;
        self
    }

    /// How many tasks have ended.
    pub fn tasks(&self) -> u64 {
        self.state().tally.total()
    }

    /// How many of them have succeeded.
    pub fn succeeded(&self) -> u64 {
        self.state().tally.of(Verdict::Succeeded)
    }

    /// How many were not run, because a run log says that they had succeeded before.
    pub fn skipped(&self) -> u64 {
        self.state().tally.of(Verdict::Skipped)
    }

    /// How many have failed in any way, or could not be started. Those that were cancelled, or not started because of others, are not
    /// among them.
    pub fn failed(&self) -> u64 {
        self.state().tally.failed()
    }

    /// How many were never started [because of others](Done::unstarted): a halt, an interrupt, a cancel, or a task they wait for.
    pub fn not_started(&self) -> u64 {
        self.state().tally.of(Verdict::NotStarted)
    }

    /// How many were cancelled while they ran.
    pub fn cancelled(&self) -> u64 {
        self.state().tally.of(Verdict::Cancelled)
    }

    /// How often a task was run again.
    pub fn retries(&self) -> u64 {
        self.state().retries
    }

    /// From the start of the first task to the end of the last one.
    pub fn wall(&self) -> Duration {
        self.state().wall()
    }

    /// How long all attempts ran, together.
    pub fn ran(&self) -> Duration {
        self.state().ran_total
    }

    /// The processor time that was used, as far as it is known: that of the last attempt of each task.
    pub fn processor_time(&self) -> Duration {
        let state = self.state();
        state.user + state.system
    }

    /// How many tasks ran at a time, on average; 0 if none ran for any time.
    pub fn parallelism(&self) -> f64 {
        self.state().parallelism()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has left numbers, and they are as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Summary {
    fn see(&mut self, news: &TaskNews<'_>) {
        let mut state = self.state();
        match news {
            TaskNews::Started { id, at, .. } => state.start(*id, *at),
            TaskNews::Retrying { id, at, .. } => {
                state.retries += 1;
                state.end(*id, None, *at);
            }
            TaskNews::Finished(done) => state.finish(done),
            _ => {}
        }
    }
}

/// A table that ends with the tasks that failed.
impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().write(out)
    }
}

impl State {
    fn start(&mut self, id: TaskId, at: Instant) {
        self.first_start = Some(self.first_start.map_or(at, |first| first.min(at)));
        self.running.insert(id, at);
    }

    /// An attempt is over.
    fn end(&mut self, id: TaskId, started: Option<Instant>, at: Instant) {
        let Some(started) = self.running.remove(&id).or(started) else { return };
        self.first_start = Some(self.first_start.map_or(started, |first| first.min(started)));
        self.last_end = Some(self.last_end.map_or(at, |last| last.max(at)));
        self.ran_total += at.saturating_duration_since(started);
    }

    fn finish(&mut self, done: &Done) {
        self.end(done.id(), done.started(), done.ended());
        let verdict = Verdict::of(done);
        self.tally.add(verdict);
        if done.started().is_some() && !matches!(verdict, Verdict::Unstartable | Verdict::NotStarted) {
            self.waited_longest = self.waited_longest.max(done.waited());
            self.keep_if_slow(done);
        }
        if let Some(usage) = done.output().usage() {
            self.user += usage.user;
            self.system += usage.system;
            self.resident_max = self.resident_max.max(usage.resident_max);
        }
        if verdict.is_failure() && self.failed.len() < self.kept_max {
            self.failed.push(Entry { said: last_words(done), ..Entry::new(done) });
        }
    }

    fn keep_if_slow(&mut self, done: &Done) {
        let ran = done.ran();
        let place = self.slowest.partition_point(|slow| slow.ran >= ran);
        if place < self.kept_max {
            self.slowest.insert(place, Entry::new(done));
            self.slowest.truncate(self.kept_max);
        }
    }

    fn wall(&self) -> Duration {
        let ends = self.last_end.zip(self.first_start);
        ends.map_or(Duration::ZERO, |(last, first)| last.saturating_duration_since(first))
    }

    fn parallelism(&self) -> f64 {
        let wall = self.wall().as_secs_f64();
        if wall > 0.0 { self.ran_total.as_secs_f64() / wall } else { 0.0 }
    }

    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = self.tally.total();
        if tasks == 0 {
            return out.write_str("no task has ended\n");
        }
        let plural = if tasks == 1 { "" } else { "s" };
        writeln!(out, "{tasks} task{plural} in {}: {}", spoken(self.wall()), self.tally)?;
        self.write_facts(out)?;
        if self.slowest.len() > 1 {
            write_list(out, "slowest", &self.slowest)?;
        }
        write_list(out, "failed", &self.failed)?;
        match self.tally.failed().saturating_sub(self.failed.len() as u64) {
            0 => Ok(()),
            more => writeln!(out, "  and {more} more"),
        }
    }

    fn write_facts(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(longest) = self.slowest.first() {
            let (total, longest, at_a_time) = (spoken(self.ran_total), spoken(longest.ran), self.parallelism());
            writeln!(out, "  ran      {total} in all, at most {longest}, {at_a_time:.1} at a time")?;
        }
        if !self.waited_longest.is_zero() {
            writeln!(out, "  waited   at most {}", spoken(self.waited_longest))?;
        }
        if self.resident_max > 0 || !(self.user + self.system).is_zero() {
            let (user, system) = (spoken(self.user), spoken(self.system));
            let memory = readable::bytes(self.resident_max);
            writeln!(out, "  used     {user} processor time, {system} of the kernel, at most {memory} of memory")?;
        }
        if self.retries > 0 {
            writeln!(out, "  retried  {}", self.retries)?;
        }
        Ok(())
    }
}

impl Entry {
    fn new(done: &Done) -> Entry {
        let attempts = match done.attempts() {
            0 | 1 => String::new(),
            attempts => format!(", attempt {attempts}"),
        };
        Entry {
            label: entry::visible_line(done.label(), LABEL_COLUMNS),
            how: format!("{}{attempts}", done.outcome()),
            ran: done.ran(),
            said: String::new(),
        }
    }
}

/// The last line that a task said on its standard error, or what went wrong with it.
fn last_words(done: &Done) -> String {
    let said = entry::tail(done.output().stderr(), 1, TAIL_BYTES);
    if !said.trim().is_empty() {
        return entry::visible_line(said.trim(), SAID_COLUMNS);
    }
    let Err(error) = done.result() else { return String::new() };
    let text = error.to_string();
    // The label says what ran.
    let why = text.strip_prefix(done.command()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
    entry::visible_line(why.lines().next().unwrap_or_default(), SAID_COLUMNS)
}

/// The tasks below a heading, in columns; what they said goes below each.
fn write_list(out: &mut fmt::Formatter<'_>, heading: &str, entries: &[Entry]) -> fmt::Result {
    if entries.is_empty() {
        return Ok(());
    }
    writeln!(out, "{heading}")?;
    let width = |text: fn(&Entry) -> usize| entries.iter().map(text).max().unwrap_or_default();
    let (ran_width, how_width) = (width(|entry| spoken(entry.ran).len()), width(|entry| entry.how.len()));
    for entry in entries {
        writeln!(out, "  {:>ran_width$}  {:<how_width$}  {}", spoken(entry.ran), entry.how, entry.label)?;
        if !entry.said.is_empty() {
            writeln!(out, "  {:>ran_width$}  {}", "", entry.said)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::done::{Outcome, Unstarted};
    use super::super::sample::{Sample, run_start};
    use super::*;

    #[test]
    fn the_table() {
        let mut summary = Summary::new();
        let start = run_start();
        let retried = Sample::new(start, 3, "cc -c b.c").slot(1).ran(6000, 7000).attempts(2).exits(2);
        let retried = retried.said(b"b.c:1: first\nb.c:2: \x1b[31merror\x1b[0m\n\n");
        retried.tell_started(&mut summary, 1, Some(0));
        retried.tell_retrying(&mut summary, Outcome::Exited(2), 2000);
        for sample in [
            Sample::new(start, 1, "make all").name("build").ran(0, 8000).used(1500, 250, 12 << 20),
            Sample::new(start, 2, "cc -c a.c").slot(1).submitted(0).ran(3000, 4500),
            retried,
            Sample::new(start, 4, "nope --all").ends(Outcome::NotStarted).never_ran(10),
            Sample::new(start, 5, "late").ends(Outcome::Cancelled { confirmed: true }).ran(10, 10),
            Sample::new(start, 7, "no").ends(Outcome::NotStarted).unstarted(Unstarted::Halted).never_ran(10),
            Sample::new(start, 8, "not")
                .ends(Outcome::NotStarted)
                .unstarted(Unstarted::Dependency(TaskId(3)))
                .never_ran(10),
            Sample::new(start, 9, "nor")
                .ends(Outcome::Cancelled { confirmed: true })
                .unstarted(Unstarted::Cancelled)
                .never_ran(10),
            // Halted between two attempts.
            Sample::new(start, 10, "again")
                .ends(Outcome::NotStarted)
                .unstarted(Unstarted::Halted)
                .never_ran(10)
                .attempts(1),
            Sample::new(start, 6, "old").skipped().never_ran(0),
        ] {
            sample.tell(&mut summary);
        }
        let expected = "\
10 tasks in 8.0 s: 2 succeeded, 1 skipped, 2 failed, 1 could not be started, 3 not started, 1 cancelled
  ran      12.5 s in all, at most 8.0 s, 1.6 at a time
  waited   at most 6.0 s
  used     1.5 s processor time, 250 ms of the kernel, at most 12.0 MiB of memory
  retried  1
slowest
  8.0 s  exit 0             build
  1.5 s  exit 0             cc -c a.c
  1.0 s  exit 2, attempt 2  cc -c b.c
   0 ms  cancelled          late
failed
  1.0 s  exit 2, attempt 2  cc -c b.c
         b.c:2: \\u{1b}[31merror\\u{1b}[0m
   0 ms  not started        nope --all
         it went wrong
   0 ms  not started        again
         it went wrong
";
        assert_eq!(summary.to_string(), expected);
        assert_eq!((summary.tasks(), summary.succeeded(), summary.failed()), (10, 2, 3));
        assert_eq!((summary.cancelled(), summary.skipped(), summary.retries()), (1, 1, 1));
        assert_eq!(summary.not_started(), 3);
        assert_eq!(summary.wall(), Duration::from_secs(8));
        assert_eq!(summary.ran(), Duration::from_millis(12_500));
        assert_eq!(summary.processor_time(), Duration::from_millis(1750));
    }

    #[test]
    fn a_run_of_nothing_and_of_one() {
        let mut summary = Summary::default();
        assert_eq!(summary.to_string(), "no task has ended\n");
        assert!(summary.parallelism().abs() < f64::EPSILON);
        Sample::new(run_start(), 1, "true").tell(&mut summary);
        assert_eq!(
            summary.to_string(),
            "1 task in 0 ms: 1 succeeded\n  ran      0 ms in all, at most 0 ms, 0.0 at a time\n"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut summary = Summary::new().keep(3);
        let start = run_start();
        for id in 0..1000 {
            let long = "x".repeat(10_000);
            let sample = Sample::new(start, id, &format!("task {id} {long}")).ran(0, id * 7 % 1000).exits(1);
            sample.said(long.as_bytes()).tell(&mut summary);
        }
        let state = summary.state();
        let longest: Vec<_> = state.slowest.iter().map(|entry| entry.ran.as_millis()).collect();
        assert_eq!(longest, [999, 998, 997]);
        assert_eq!((state.failed.len(), state.running.len()), (3, 0));
        drop(state);
        let text = summary.to_string();
        assert!(text.len() < 3000 && text.ends_with("  and 997 more\n"), "{text}");
        let none = Summary::new().keep(0);
        Sample::new(start, 1, "false").exits(1).tell(&mut none.clone());
        assert!(none.to_string().ends_with("  and 1 more\n"), "{none}");
    }
}
