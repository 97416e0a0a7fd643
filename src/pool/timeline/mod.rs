//! What ran when and where, as a picture. Decides what is kept of each attempt and what is dropped when there are too many; how it is
//! shown is decided in `page`, how it is handed to other viewers in `chrome`.

mod chrome;
mod file;
mod page;

use super::done::{Done, Outcome, TaskId};
use super::observe::{Observer, TaskNews};
use super::summary::Summary;
use super::verdict::Verdict;
use crate::entry;
use crate::error::Error;
use crate::output::Usage;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Draws what ran when, in which slot, for how long and with which end: a page for people, or a trace for the viewers of browsers.
///
/// Cheap to clone: all clones show the same run. Give one to the pool with [`Pool::observe`](crate::pool::Pool::observe), and write the
/// picture with the other one when the run is over, or while it goes on. Secrets of commands are masked as everywhere.
///
/// The page is one file that needs no network: a bar for each attempt, with its command, end, times, processor time and memory; it can
/// be searched and zoomed, with or without a mouse, and a table has the same in words.
///
/// ```
/// use procession::pool::{Pool, Timeline};
/// use procession::Command;
///
/// # let folder = std::env::temp_dir().join(format!("timeline-{}", std::process::id()));
/// # std::fs::create_dir(&folder).unwrap();
/// let timeline = Timeline::new();
/// let pool = Pool::new(4).observe(timeline.clone());
/// pool.map(["a", "b", "c"].map(|word| Command::new("echo").arg(word)));
/// timeline.write_html(folder.join("run.html"))?;
/// timeline.write_chrome(folder.join("run.json"))?;
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
#[doc(alias = "gantt")]
#[doc(alias = "trace")]
pub struct Timeline(Arc<Mutex<State>>);

/// So many attempts are kept.
const BARS_MAX: usize = 200_000;
/// How much is kept of a label and of a command.
const LABEL_COLUMNS: usize = 200;
const COMMAND_COLUMNS: usize = 500;

struct State {
    summary: Summary,
    bars_max: usize,
    /// Ended attempts, the shortest one first.
    bars: BinaryHeap<Reverse<Bar>>,
    dropped: u64,
    open: HashMap<TaskId, Open>,
    first: Option<Instant>,
    last: Option<Instant>,
    /// What the clock on the wall showed at a moment.
    wall: Option<(Instant, SystemTime)>,
}

/// A task that has not ended.
struct Open {
    task: Arc<Named>,
    attempt: u32,
    slot: usize,
    place: Arc<str>,
    /// None while it waits to be run again.
    started: Option<Instant>,
}

/// What all attempts of a task have in common.
#[derive(Debug)]
struct Named {
    id: TaskId,
    label: String,
    told: OnceLock<Told>,
}

/// What is only told at the end.
#[derive(Debug)]
struct Told {
    /// Unless it is the label.
    command: Option<String>,
    submitted: Instant,
}

/// One attempt.
#[derive(Clone, Debug)]
struct Bar {
    task: Arc<Named>,
    attempt: u32,
    slot: usize,
    place: Arc<str>,
    /// None if it never ran.
    started: Option<Instant>,
    ended: Instant,
    end: End,
    usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Running,
    /// It is run again after this pause.
    Retried(Outcome, Duration),
    Over(Verdict, Outcome),
}

/// All that there is to be drawn, in the order of time.
struct Run {
    bars: Vec<Bar>,
    dropped: u64,
    start: Instant,
    end: Instant,
    started: Option<SystemTime>,
    summary: Summary,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline::new()
    }
}

impl Timeline {
    /// Keeps at most 200,000 attempts. If there are more the shortest are dropped, and the picture says how many.
    pub fn new() -> Timeline {
        Timeline(Arc::new(Mutex::new(State {
            summary: Summary::new().keep(0),
            bars_max: BARS_MAX,
            bars: BinaryHeap::new(),
            dropped: 0,
            open: HashMap::new(),
            first: None,
            last: None,
            wall: None,
        })))
    }

    /// Keeps so many attempts instead.
    pub fn keep(self, attempts_max: usize) -> Timeline {
        self.state().bars_max = attempts_max;
        self
    }

    /// The picture as a page.
    pub fn to_html(&self) -> String {
        let run = self.state().run();
        page::page(&run)
    }

    /// The picture in Chrome's trace event format, which `chrome://tracing`, Perfetto and others read.
    #[doc(alias = "perfetto")]
    pub fn to_chrome(&self) -> String {
        let run = self.state().run();
        chrome::trace(&run)
    }

    /// Writes [`to_html`](Self::to_html) to a file, which appears as a whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        file::write_whole(path.as_ref(), self.to_html().as_bytes())
    }

    /// Writes [`to_chrome`](Self::to_chrome) to a file, which appears as a whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_chrome(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        file::write_whole(path.as_ref(), self.to_chrome().as_bytes())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has left bars, and they are as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Timeline {
    fn see(&mut self, news: &TaskNews<'_>) {
        self.state().see(news);
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(out, "Timeline({} ended, {} not, {} dropped)", state.bars.len(), state.open.len(), state.dropped)
    }
}

impl State {
    fn see(&mut self, news: &TaskNews<'_>) {
        self.summary.see(news);
        match news {
            TaskNews::Submitted { at, .. } => self.note(*at),
            TaskNews::Started { id, label, attempt, slot, place, at } => {
                self.note(*at);
                let task = match self.open.remove(id) {
                    Some(open) => open.task,
                    None => Arc::new(Named::new(*id, label)),
                };
                let place = Arc::clone(place);
                self.open.insert(*id, Open { task, attempt: *attempt, slot: *slot, place, started: Some(*at) });
            }
            TaskNews::Retrying { id, outcome, pause, at, .. } => {
                self.note(*at);
                let Some(open) = self.open.get_mut(id) else { return };
                let bar = open.bar(*at, End::Retried(*outcome, *pause));
                open.started = None;
                self.keep(bar);
            }
            TaskNews::Finished(done) => self.finish(done),
            _ => {}
        }
    }

    fn finish(&mut self, done: &Done) {
        self.note(done.submitted());
        self.note(done.ended());
        let clocks = done.started().zip(done.output().started());
        self.wall = self.wall.or(clocks);
        let open = self.open.remove(&done.id()).unwrap_or_else(|| Open {
            task: Arc::new(Named::new(done.id(), done.label())),
            attempt: done.attempts(),
            slot: done.slot(),
            place: Arc::clone(&done.place),
            started: done.started(),
        });
        open.task.tell(done);
        let verdict = Verdict::of(done);
        // What turned out not to be startable has had a slot, and has not run.
        let started = open.started.filter(|_| !matches!(verdict, Verdict::Unstartable | Verdict::NotStarted));
        let (place, usage) = (Arc::clone(&done.place), done.output().usage());
        let bar = open.bar(done.ended(), End::Over(verdict, done.outcome()));
        self.keep(Bar { started, place, usage, ..bar });
    }

    /// A moment that belongs to the run.
    fn note(&mut self, at: Instant) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    fn keep(&mut self, bar: Bar) {
        self.bars.push(Reverse(bar));
        while self.bars.len() > self.bars_max {
            self.bars.pop();
            self.dropped += 1;
        }
    }

    /// What there is by now. What runs is drawn until the last moment that something happened.
    fn run(&self) -> Run {
        let now = Instant::now();
        let (start, end) = (self.first.unwrap_or(now), self.last.unwrap_or(now));
        let running = self.open.values().filter(|open| open.started.is_some());
        let mut bars: Vec<Bar> = running.map(|open| open.bar(end, End::Running)).collect();
        bars.extend(self.bars.iter().map(|Reverse(bar)| bar.clone()));
        bars.sort_by_key(|bar| (bar.started.unwrap_or(bar.ended), bar.slot, bar.task.id, bar.attempt));
        let started = self.wall.and_then(|(at, wall)| wall.checked_sub(at.saturating_duration_since(start)));
        Run { bars, dropped: self.dropped, start, end, started, summary: self.summary.clone() }
    }
}

impl Open {
    fn bar(&self, ended: Instant, end: End) -> Bar {
        Bar {
            task: Arc::clone(&self.task),
            attempt: self.attempt,
            slot: self.slot,
            place: Arc::clone(&self.place),
            started: self.started,
            ended,
            end,
            usage: None,
        }
    }
}

impl Named {
    fn new(id: TaskId, label: &str) -> Named {
        Named { id, label: entry::visible_line(label, LABEL_COLUMNS), told: OnceLock::new() }
    }

    fn tell(&self, done: &Done) {
        let command = entry::visible_line(done.command(), COMMAND_COLUMNS);
        let command = Some(command).filter(|command| *command != self.label);
        // It is told once.
        let _ = self.told.set(Told { command, submitted: done.submitted() });
    }

    /// The command, if it is known.
    fn command(&self) -> Option<&str> {
        self.told.get().map(|told| told.command.as_deref().unwrap_or(&self.label))
    }
}

impl Bar {
    fn ran(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| self.ended.saturating_duration_since(started))
    }

    /// How long the task had waited since it was submitted, if that is known.
    fn waited(&self) -> Option<Duration> {
        Some(self.started?.saturating_duration_since(self.task.told.get()?.submitted))
    }

    /// None while it runs.
    fn verdict(&self) -> Option<Verdict> {
        match self.end {
            End::Running => None,
            End::Retried(outcome, _) => Some(Verdict::of_failure(outcome)),
            End::Over(verdict, _) => Some(verdict),
        }
    }

    /// How it ended, in words.
    fn status(&self) -> String {
        match self.end {
            End::Running => "running".to_owned(),
            End::Over(Verdict::Skipped, _) => "skipped".to_owned(),
            End::Retried(outcome, _) | End::Over(_, outcome) => outcome.to_string(),
        }
    }
}

/// A shorter one is less; of two that are as long, the later one.
impl Ord for Bar {
    fn cmp(&self, other: &Bar) -> Ordering {
        let key = |bar: &Bar| (bar.ran(), Reverse((bar.task.id, bar.attempt)));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Bar {
    fn partial_cmp(&self, other: &Bar) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bar {
    fn eq(&self, other: &Bar) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Bar {}

impl Run {
    /// Microseconds since the start.
    fn moment(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.start))
    }

    /// From when to when, in microseconds. Ends that meet do so after rounding, too.
    fn span(&self, bar: &Bar) -> Option<(u64, u64)> {
        bar.started.map(|started| (self.moment(started), self.moment(bar.ended.max(started))))
    }

    /// The slots that were used, in their order.
    fn slots(&self) -> Vec<usize> {
        let mut slots: Vec<_> = self.bars.iter().filter(|bar| bar.started.is_some()).map(|bar| bar.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, run_start};
    use super::*;
    use crate::signal::Signal;
    use serde_json::{Value, json};

    const HOSTILE: &str =
        "sh -c '</script><script>pwned()</script><!-- {{ 7*7 }} \"q\" \u{2028} \u{1b}[2J \u{fffd} \u{202e}&lt;'";

    /// One of each.
    fn sample_run(start: Instant) -> Timeline {
        let timeline = Timeline::new();
        let see = &mut timeline.clone();
        let retried = Sample::new(start, 3, "flaky --now").slot(1).submitted(10).ran(5000, 6000).attempts(2);
        retried.tell_submitted(see);
        retried.tell_started(see, 1, Some(1000));
        retried.tell_retrying(see, Outcome::Signalled { signal: Signal::SEGV, exact: true }, 3000);
        let usage = |sample: Sample| sample.used(1500, 250, 12 << 20);
        for sample in [
            usage(Sample::new(start, 1, HOSTILE).slot(0).ran(0, 2500)),
            usage(Sample::new(start, 2, "cc -c a.c").name("a.o").slot(0).submitted(0).ran(2500, 4000)).exits(2),
            retried,
            Sample::new(start, 4, "sleep 100").slot(2).place("host <b>7</b>").ran(0, 6500).ends(Outcome::TimedOut),
            Sample::new(start, 5, "nope").ends(Outcome::NotStarted).ran(9, 10),
            Sample::new(start, 6, "old").skipped().never_ran(20),
        ] {
            sample.tell(see);
        }
        Sample::new(start, 7, "server").slot(3).ran(4000, 0).tell_started(see, 1, None);
        timeline
    }

    #[test]
    fn a_trace_in_chromes_format() {
        let trace: Value = serde_json::from_str(&sample_run(run_start()).to_chrome()).unwrap();
        assert_eq!(trace["displayTimeUnit"], "ms");
        assert_eq!(trace["otherData"], json!({"tasks": 6, "dropped": 0}));
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |phase: &str| -> Vec<&Value> { events.iter().filter(|event| event["ph"] == phase).collect() };
        for event in events {
            assert_eq!(event["pid"], 1);
            assert!(event["tid"] != 0 && event["name"].is_string(), "{event}");
        }
        let names: Vec<_> = of("M")
            .iter()
            .map(|event| (&event["tid"], &event["args"]))
            .map(|(tid, args)| format!("{tid} {args}"))
            .collect();
        assert_eq!(names[0], r#"null {"name":"pool"}"#);
        assert_eq!(names[1..3], [r#"1 {"name":"slot 0"}"#, r#"1 {"sort_index":0}"#]);
        assert_eq!(names.len(), 9);
        let complete = of("X");
        let spans: Vec<_> =
            complete.iter().map(|event| (event["tid"].as_u64(), event["ts"].as_u64(), event["dur"].as_u64())).collect();
        let span = |tid: u64, from: u64, ran: u64| (Some(tid), Some(from), Some(ran));
        assert_eq!(
            spans,
            [
                span(1, 0, 2_500_000),
                span(3, 0, 6_500_000),
                span(2, 1_000_000, 2_000_000),
                span(1, 2_500_000, 1_500_000),
                span(4, 4_000_000, 2_500_000),
                span(2, 5_000_000, 1_000_000),
            ]
        );
        assert_eq!(
            complete[3]["args"],
            json!({"task": "#2", "status": "exit 2", "attempt": 1, "place": "local", "command": "cc -c a.c", "waited_us": 2_500_000,
                "cpu_user_us": 1_500_000, "cpu_system_us": 250_000, "memory_max_bytes": 12 << 20})
        );
        // The first attempt of what was run again has got the command as well.
        assert_eq!(
            (&complete[2]["args"]["status"], &complete[2]["args"]["command"]),
            (&json!("SIGSEGV"), &json!("flaky --now"))
        );
        assert_eq!(
            (&complete[4]["args"]["status"], &complete[4]["args"]["command"]),
            (&json!("running"), &Value::Null)
        );
        let instants: Vec<_> =
            of("i").iter().map(|event| format!("{} {} {}", event["s"], event["ts"], event["name"])).collect();
        assert_eq!(
            instants,
            [r#""p" 10000 "not started: nope""#, r#""p" 20000 "skipped: old""#, r#""t" 3000000 "retry: flaky --now""#,]
        );
    }

    /// What the script would read.
    fn data(page: &str) -> Value {
        let start = "<script id=\"data\" type=\"application/json\">\n";
        let rest = page.split_once(start).unwrap().1;
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn a_page_holds_everything_and_nothing_of_it_is_markup() {
        let page = sample_run(run_start()).to_html();
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">") && page.ends_with("</html>"), "{page}");
        assert!(page.contains("<title>6 tasks, 3 failed</title>"));
        assert!(!page.contains("<script>pwned") && page.contains("{{ 7*7 }}") && !page.contains("<b>7"), "{page}");
        assert!(!page.contains(['\u{1b}', '\u{2028}', '\u{202e}']));
        // Nothing is fetched from anywhere.
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains(" src="));
        let data = data(&page);
        let shown =
            "sh -c '</script><script>pwned()</script><!-- {{ 7*7 }} \"q\" \\u{2028} \\u{1b}[2J \u{fffd} \\u{202e}&lt;'";
        assert_eq!(data["tasks"][0], json!(["#1", shown, null]));
        assert_eq!(data["tasks"][5], json!(["#2", "a.o", "cc -c a.c"]));
        assert_eq!(data["tasks"][6], json!(["#7", "server", false]));
        assert_eq!((&data["slots"], &data["span"]), (&json!([0, 1, 2, 3]), &json!(6_500_000)));
        assert_eq!(data["places"], json!(["local", "host <b>7</b>"]));
        let bars = data["bars"].as_array().unwrap();
        assert_eq!(bars.len(), 8);
        assert_eq!(bars[0], json!([0, 0, 0, 2_500_000, 0, 0, 1, 0, 0, 1_500_000, 250_000, 12 << 20, null]));
        let row = |at: usize| bars[at].as_array().unwrap();
        // It never ran: no slot, and the moment when that was known.
        assert_eq!(row(2)[1..5], [Value::Null, json!(10_000), json!(0), json!(Verdict::Unstartable as usize)]);
        assert_eq!((&row(4)[12], &row(4)[8]), (&json!(2_000_000), &json!(990_000)), "retried");
        assert_eq!(data["words"][row(6)[4].as_u64().unwrap() as usize], "running");
        // The plain table of those without scripts is escaped by the template.
        assert!(page.contains("<td>sh -c &#x27;&lt;&#x2f;script&gt;"), "{page}");
    }

    #[test]
    fn the_template_is_in_order() {
        let page = Timeline::new().to_html();
        assert!(page.contains("<title>0 tasks</title>") && page.ends_with("</html>"), "{page}");
        assert_eq!(data(&page)["bars"], json!([]));
        assert!(!page.contains("class=\"note\">There was"));
        for source in [include_str!("page.js"), include_str!("page.css")] {
            assert!(!source.contains("</"), "it would end its element");
        }
        for dangerous in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "import("] {
            assert!(!include_str!("page.js").contains(dangerous), "{dangerous}");
        }
    }

    #[test]
    fn the_shortest_are_dropped_and_it_is_said() {
        let timeline = Timeline::new().keep(10);
        let start = run_start();
        for id in 0..1000 {
            let sample = Sample::new(start, id, &format!("{id} {}", "x".repeat(10_000))).ran(0, id * 7 % 1000);
            sample.tell(&mut timeline.clone());
        }
        let state = timeline.state();
        assert_eq!((state.bars.len(), state.dropped, state.open.len()), (10, 990, 0));
        drop(state);
        let page = timeline.to_html();
        assert!(page.contains("the 990 shortest attempts are not shown"));
        assert!(page.len() < 100_000, "{}", page.len());
        let data = data(&page);
        let mut ran: Vec<_> = data["bars"].as_array().unwrap().iter().map(|bar| bar[3].as_u64().unwrap()).collect();
        ran.sort_unstable();
        assert_eq!((ran[0], ran[9]), (990_000, 999_000));
        assert_eq!(format!("{timeline:?}"), "Timeline(10 ended, 0 not, 990 dropped)");
    }

    #[test]
    fn a_task_that_is_cancelled_before_its_retry_has_two_ends() {
        let timeline = Timeline::new();
        let see = &mut timeline.clone();
        let sample = Sample::new(run_start(), 1, "x").ran(0, 100).ends(Outcome::Cancelled { confirmed: true });
        sample.tell_started(see, 1, None);
        sample.tell_retrying(see, Outcome::Exited(1), 50);
        sample.tell_finished(see);
        let bars = timeline.state().run().bars;
        let ends: Vec<_> = bars.iter().map(|bar| (bar.started.is_some(), bar.status())).collect();
        assert_eq!(ends, [(true, "exit 1".to_owned()), (false, "cancelled".to_owned())]);
    }

    #[test]
    fn who_comes_late_sees_the_ends_alone() {
        let timeline = Timeline::default();
        let see = &mut timeline.clone();
        let start = run_start();
        Sample::new(start, 1, "x").ran(20, 120).slot(7).tell_finished(see);
        let sample = Sample::new(start, 2, "y");
        sample.tell_retrying(see, Outcome::Exited(1), 50);
        let run = timeline.state().run();
        assert_eq!((run.bars.len(), run.slots()), (1, vec![7]));
        assert_eq!(run.span(&run.bars[0]), Some((20_000, 120_000)));
    }

    #[test]
    fn a_file_appears_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("procession-timeline-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let names = || {
            let names =
                std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            names
        };
        let timeline = sample_run(run_start());
        let path = folder.join("run.html");
        timeline.write_html(&path).unwrap();
        std::fs::write(folder.join("old"), "old").unwrap();
        std::os::unix::fs::symlink("old", folder.join("link")).unwrap();
        timeline.write_chrome(folder.join("link")).unwrap();
        assert_eq!(names(), ["link", "old", "run.html"]);
        assert!(std::fs::symlink_metadata(folder.join("link")).unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(folder.join("old")).unwrap(), timeline.to_chrome());
        assert_eq!(std::fs::read_to_string(&path).unwrap().len(), timeline.to_html().len());
        timeline.write_html("/dev/null").unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        for wrong in [folder.join("nowhere/run.html"), folder.clone(), std::path::PathBuf::new()] {
            let error = timeline.write_html(&wrong).unwrap_err();
            assert!(error.to_string().starts_with(&format!("write {}: ", wrong.display())), "{error}");
        }
        assert_eq!(names(), ["link", "old", "run.html"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
