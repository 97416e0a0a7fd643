//! How far a run is, while it runs. Decides what is shown and how often: bars if standard error is a terminal and there is something
//! to draw them with (`progress_bars`), otherwise plain lines without any control character. Everything happens in the calls of the
//! pool; there is no thread and no clock of its own.

use super::done::{Done, Outcome, TaskId};
use super::observe::{Observer, TaskNews};
use super::progress_bars::Bars;
use super::verdict::{Tally, Verdict};
use crate::entry;
use crate::explain::spoken;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shows how far a run is: on a terminal bars (feature `progress`), elsewhere plain lines.
///
/// On a terminal one bar stands for the whole, with what failed, what runs and how long it may still take, and one line for each slot
/// with what runs in it. A task that fails leaves a line above. Elsewhere, and without the feature, each task that has ended gets a
/// line; when many end in a short time only some of them do, and the lines of failures go first. At the end there is one line for the
/// whole run. Labels are made visible, so that no task can drive the terminal.
///
/// It is drawn when something happens, and nothing moves in between: there is no thread behind it. A program that waits in a loop of
/// its own can call [`tick`](Self::tick) there.
///
/// Cheap to clone: all clones show the same run. It ends, and the bars go, with [`finish`](Self::finish) or when the last clone is
/// dropped.
///
/// ```
/// use procession::pool::{Pool, Progress};
/// use procession::Command;
///
/// let progress = Progress::new().total(3);
/// let pool = Pool::new(2).observe(progress.clone());
/// for done in pool.imap(["one", "two", "three"].map(|word| Command::new("echo").arg(word))) {
///     progress.suspend(|| print!("{}", done.output().stdout_lossy()));
/// }
/// ```
#[derive(Clone)]
#[doc(alias = "progress bar")]
#[doc(alias = "indicatif")]
#[doc(alias = "tqdm")]
pub struct Progress(Arc<Mutex<State>>);

/// How long a line with the end of a task is at most, if no terminal says it; and how much is kept of a label.
const LINE_COLUMNS: usize = 200;
/// Plain lines: so many at once, then so many in a second; failures have as many again.
const LINES_AT_ONCE: u32 = 20;
const LINES_PER_SECOND: u32 = 10;
/// Pictures of the bars: likewise. What is left out in a flood is seen with the next news, so a start of many slots must be no flood.
const DRAWS_AT_ONCE: u32 = 100;
const DRAWS_PER_SECOND: u32 = 15;

struct State {
    board: Board,
    view: View,
    /// So many calls of `suspend` are under way.
    suspended: usize,
    /// Something has happened that the last line does not tell.
    unsaid: bool,
}

enum View {
    Bars(Box<Bars>, Pace),
    Lines(Lines),
}

/// What is known of the run. Pure.
#[derive(Debug, Default)]
pub(super) struct Board {
    expected: u64,
    submitted: u64,
    tally: Tally,
    running: BTreeMap<TaskId, Running>,
    first: Option<Instant>,
    last: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Running {
    #[cfg_attr(not(feature = "progress"), allow(dead_code))] // only the bars tell
    pub(super) slot: usize,
    pub(super) label: String,
    pub(super) since: Instant,
}

/// Writes lines, not too many. The pace is decided by the times that are passed in.
struct Lines {
    writer: Box<dyn Write + Send>,
    pace: Pace,
    pace_of_failures: Pace,
    /// So many lines were left out since the last one.
    left_out: u64,
}

/// A number of occasions, and how fast they come back. Pure.
#[derive(Debug)]
struct Pace {
    at_once: u32,
    pause: Duration,
    /// All occasions before this moment have been taken.
    taken_until: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Progress {
    /// Shows it on standard error.
    pub fn new() -> Progress {
        let is_smart = std::env::var_os("TERM").is_some_and(|name| name != "dumb");
        let bars = if io::stderr().is_terminal() && is_smart { Bars::on_stderr() } else { None };
        match bars {
            Some(bars) => Progress::with_bars(bars),
            None => Progress::to(io::stderr()),
        }
    }

    /// Writes plain lines to this writer, such as a log. What it refuses is lost.
    pub fn to(writer: impl Write + Send + 'static) -> Progress {
        Progress::with(View::Lines(Lines {
            writer: Box::new(writer),
            pace: Pace::new(LINES_AT_ONCE, LINES_PER_SECOND),
            pace_of_failures: Pace::new(LINES_AT_ONCE, LINES_PER_SECOND),
            left_out: 0,
        }))
    }

    pub(super) fn with_bars(bars: Bars) -> Progress {
        Progress::with(View::Bars(Box::new(bars), Pace::new(DRAWS_AT_ONCE, DRAWS_PER_SECOND)))
    }

    fn with(view: View) -> Progress {
        Progress(Arc::new(Mutex::new(State { board: Board::default(), view, suspended: 0, unsaid: false })))
    }

    /// There will be so many tasks. Otherwise, and if there are more, those that were submitted are counted.
    pub fn total(self, tasks: u64) -> Progress {
        self.state().board.expected = tasks;
        self
    }

    /// Draws the bars anew, so that times go on. Nothing happens where there are none.
    pub fn tick(&self) {
        self.state().draw(Instant::now());
    }

    /// Takes the bars away, calls this, and draws them again: for whatever writes to the terminal. Children that write to the terminal
    /// themselves garble the bars: capture their output, or [`tee`](crate::Command::tee) it through a writer that calls this.
    ///
    /// No lock is held meanwhile, so that it may take as long as it likes and use the pool.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        let _resumed = Suspension::new(self);
        write()
    }

    /// Takes the bars away and writes the last line. If more happens after that, it starts again.
    pub fn finish(&self) {
        self.state().finish();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has left a picture that the next news put right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Progress {
    fn see(&mut self, news: &TaskNews<'_>) {
        self.state().see(news);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Progress({})", self.state().board.line())
    }
}

/// Ends also when what is called in between panics; then the bars come back with the next news.
struct Suspension<'a>(&'a Progress);

impl Suspension<'_> {
    fn new(progress: &Progress) -> Suspension<'_> {
        let mut state = progress.state();
        state.suspended += 1;
        if let View::Bars(bars, _) = &mut state.view {
            bars.hide();
        }
        Suspension(progress)
    }
}

impl Drop for Suspension<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.suspended = state.suspended.saturating_sub(1);
        if state.suspended == 0 {
            let State { board, view, .. } = &mut *state;
            if let (View::Bars(bars, _), Some(now)) = (view, board.last) {
                bars.draw(board, now);
            }
        }
    }
}

/// The last clone is gone.
impl Drop for State {
    fn drop(&mut self) {
        self.finish();
    }
}

impl State {
    fn see(&mut self, news: &TaskNews<'_>) {
        let Some((now, event)) = self.board.see(news) else { return };
        self.unsaid = true;
        match event {
            // All of a run may be submitted at once.
            Event::Submitted => return,
            Event::Started => {}
            Event::Ended(end) => self.say(&end, now),
        }
        self.draw(now);
    }

    /// A line that stays: of every end if there is nothing else to see, and only of failures above the bars.
    fn say(&mut self, end: &End, now: Instant) {
        match &mut self.view {
            View::Lines(lines) => lines.say(end, &self.board, now),
            View::Bars(bars, pace) => {
                if end.is_failure && self.suspended == 0 && pace.allows(now) {
                    bars.say(&self.board.line_of(end, bars.columns()));
                    bars.draw(&self.board, now);
                }
            }
        }
    }

    fn draw(&mut self, now: Instant) {
        if let View::Bars(bars, pace) = &mut self.view
            && self.suspended == 0
            && self.board.first.is_some()
            && pace.allows(now)
        {
            bars.draw(&self.board, now);
        }
    }

    fn finish(&mut self) {
        if !std::mem::take(&mut self.unsaid) {
            return;
        }
        let line = self.board.last_line();
        match &mut self.view {
            View::Bars(bars, _) => bars.say(&line),
            View::Lines(lines) => lines.write(&line),
        }
    }
}

/// What of the news is worth a line.
enum Event {
    Submitted,
    Started,
    Ended(End),
}

/// The end of an attempt, in words.
struct End {
    label: String,
    how: String,
    is_failure: bool,
}

impl Board {
    /// Takes it in; says when it was and what there is to tell.
    fn see(&mut self, news: &TaskNews<'_>) -> Option<(Instant, Event)> {
        let (at, event) = match news {
            TaskNews::Submitted { at, .. } => {
                self.submitted += 1;
                (*at, Event::Submitted)
            }
            TaskNews::Started { id, label, slot, at, .. } => {
                let label = entry::visible_line(label, LINE_COLUMNS);
                self.running.insert(*id, Running { slot: *slot, label, since: *at });
                (*at, Event::Started)
            }
            TaskNews::Retrying { id, outcome, pause, at, .. } => (*at, self.retry(*id, *outcome, *pause, *at)),
            TaskNews::Finished(done) => (done.ended(), self.finish(done)),
            _ => return None,
        };
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        Some((at, event))
    }

    fn retry(&mut self, id: TaskId, outcome: Outcome, pause: Duration, at: Instant) -> Event {
        let (label, ran) = match self.running.remove(&id) {
            Some(running) => (running.label, at.saturating_duration_since(running.since)),
            None => (id.to_string(), Duration::ZERO),
        };
        let again = if pause.is_zero() { "again at once".to_owned() } else { format!("again in {}", spoken(pause)) };
        Event::Ended(End { label, how: format!("{outcome} ({}), {again}", spoken(ran)), is_failure: true })
    }

    fn finish(&mut self, done: &Done) -> Event {
        self.running.remove(&done.id());
        let verdict = Verdict::of(done);
        self.tally.add(verdict);
        let how = match verdict {
            Verdict::Skipped => "skipped".to_owned(),
            _ => format!("{} ({})", done.outcome(), spoken(done.ran())),
        };
        let label = entry::visible_line(done.label(), LINE_COLUMNS);
        Event::Ended(End { label, how, is_failure: verdict.is_failure() })
    }

    /// `[12/100] label: exit 1 (2.0 s)`, with as much of the label as there is room for.
    fn line_of(&self, end: &End, columns: usize) -> String {
        let (place, how) = (self.place(), &end.how);
        let label = entry::visible_line(&end.label, columns.saturating_sub(place.len() + how.len() + 3));
        format!("{place} {label}: {how}")
    }

    pub(super) fn ended(&self) -> u64 {
        self.tally.total()
    }

    /// As far as it is known.
    pub(super) fn total(&self) -> u64 {
        self.expected.max(self.submitted).max(self.ended())
    }

    /// `[12/100]`, every time as wide.
    fn place(&self) -> String {
        let total = self.total().to_string();
        format!("[{:>width$}/{total}]", self.ended(), width = total.len())
    }

    /// `2 failed, 8 running, 34 s`.
    pub(super) fn state(&self, now: Instant) -> String {
        let failed = match self.tally.failed() {
            0 => String::new(),
            failed => format!("{failed} failed, "),
        };
        let elapsed = self.first.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        format!("{failed}{} running, {}", self.running.len(), spoken(elapsed))
    }

    /// What runs, in the order of the slots.
    #[cfg_attr(not(feature = "progress"), allow(dead_code))] // only the bars tell
    pub(super) fn running(&self) -> Vec<&Running> {
        let mut running: Vec<_> = self.running.values().collect();
        running.sort_by_key(|running| running.slot);
        running
    }

    fn line(&self) -> String {
        format!("{} {}", self.place(), self.state(self.last.unwrap_or_else(Instant::now)))
    }

    fn last_line(&self) -> String {
        if self.ended() == 0 || self.ended() < self.total() {
            // It was given up.
            return self.line();
        }
        let wall = self.last.zip(self.first).map(|(last, first)| last.saturating_duration_since(first));
        format!("{} {} in {}", self.place(), self.tally, spoken(wall.unwrap_or_default()))
    }
}

impl Lines {
    fn say(&mut self, end: &End, board: &Board, now: Instant) {
        let allowed = self.pace.allows(now) || (end.is_failure && self.pace_of_failures.allows(now));
        if !allowed {
            self.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let plural = if left_out == 1 { "" } else { "s" };
            self.write(&format!("{} {} ({left_out} line{plural} left out)", board.place(), board.state(now)));
        }
        self.write(&board.line_of(end, LINE_COLUMNS));
    }

    fn write(&mut self, line: &str) {
        // In one piece, so that others who write there do not get in between. A log that cannot be written is no reason to stop a run.
        let _ = self.writer.write_all(format!("{line}\n").as_bytes());
        let _ = self.writer.flush();
    }
}

impl Pace {
    fn new(at_once: u32, per_second: u32) -> Pace {
        Pace { at_once, pause: Duration::from_secs(1) / per_second.max(1), taken_until: None }
    }

    /// Whether there is an occasion now; it is taken.
    fn allows(&mut self, now: Instant) -> bool {
        // The moment by which all that was taken has come back.
        let back = self.taken_until.map_or(now, |until| until.max(now));
        let until = back + self.pause;
        let is_free = until.saturating_duration_since(now) <= self.pause * self.at_once;
        if is_free {
            self.taken_until = Some(until);
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, run_start};
    use super::*;

    /// What was written, piece by piece.
    #[derive(Clone, Debug, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self) -> Vec<String> {
            let pieces = self.0.lock().unwrap();
            pieces.iter().map(|piece| piece.strip_suffix('\n').unwrap().to_owned()).collect()
        }
    }

    #[test]
    fn each_end_has_a_line() {
        let written = Written::default();
        let mut progress = Progress::to(written.clone()).total(10);
        let start = run_start();
        let slow = Sample::new(start, 9, "slow").name("slow\none").slot(3).ran(0, 9000);
        slow.tell_submitted(&mut progress);
        slow.tell_started(&mut progress, 1, None);
        slow.tell_retrying(&mut progress, Outcome::TimedOut, 1500);
        Sample::new(start, 1, "printf '\\e[2J' \u{1b}]0;x\u{7}").ran(0, 2500).tell(&mut progress);
        Sample::new(start, 2, "false").exits(1).ran(0, 2500).tell(&mut progress);
        Sample::new(start, 3, "old").skipped().never_ran(2600).tell(&mut progress);
        progress.tick();
        drop(progress.clone());
        assert_eq!(
            written.lines(),
            [
                "[ 0/10] slow\\none: timed out (1.5 s), again in 2.0 s",
                "[ 1/10] printf '\\e[2J' \\u{1b}]0;x\\u{7}: exit 0 (2.5 s)",
                "[ 2/10] false: exit 1 (2.5 s)",
                "[ 3/10] old: skipped",
            ]
        );
        drop(progress);
        assert_eq!(written.lines()[4..], ["[ 3/10] 1 failed, 0 running, 2.6 s"]);
    }

    #[test]
    fn a_flood_is_summed_up_and_the_last_line_is_right() {
        let written = Written::default();
        let mut progress = Progress::to(written.clone());
        let start = run_start();
        for id in 0..10_000 {
            let sample = Sample::new(start, id, "true").ran(0, id);
            let sample = if id % 1000 == 999 { sample.exits(3) } else { sample };
            sample.tell(&mut progress);
        }
        progress.finish();
        progress.finish();
        drop(progress);
        let lines = written.lines();
        // Ten seconds.
        assert!((100..300).contains(&lines.len()), "{}", lines.len());
        assert_eq!(lines.iter().filter(|line| line.contains("exit 3")).count(), 10, "failures go first");
        assert!(lines.iter().any(|line| line.ends_with("lines left out)")));
        assert_eq!(lines.last().unwrap(), "[10000/10000] 9990 succeeded, 10 failed in 10.0 s");
        assert_eq!(lines.iter().filter(|line| line.contains("succeeded")).count(), 1, "it is said once");
    }

    #[test]
    fn a_writer_that_refuses_is_no_reason_to_stop() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let mut progress = Progress::to(Full);
        Sample::new(run_start(), 1, "true").tell(&mut progress);
        assert_eq!(format!("{progress:?}"), "Progress([1/1] 0 running, 0 ms)");
    }

    #[test]
    fn a_pace_gives_what_it_says() {
        let start = run_start();
        let mut pace = Pace::new(3, 10);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for (milliseconds, allowed) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (99, false),
            (100, true),
            (101, false),
            (150, false),
            (200, true),
            (5000, true),
            (5000, true),
            (5000, true),
            (5000, false),
            // A clock that goes back gives nothing.
            (10, false),
        ] {
            assert_eq!(pace.allows(at(milliseconds)), allowed, "at {milliseconds}");
        }
    }
}
