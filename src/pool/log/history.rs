//! What a run log says of the tasks of the next run: which need not be run, which are run again, how long each will take.

use super::super::done::Outcome;
use super::super::task::{After, Earlier, Task};
use super::key::{self, Contents, Hash};
use super::line::{self, Entry};
use crate::error::Error;
use crate::output::Accepted;
use crate::status::ExitStatus;
use crate::sys::fd;
use crate::text::{LineEnd, LineSplitter, Newlines};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a [`RunLog`](crate::pool::RunLog) says: who has succeeded, who has not, and how long they took. Of several lines about the same
/// task the last one counts.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By key: a task, with what it read.
    exact: HashMap<Hash, Ended>,
    /// By identity: a task, whatever it read.
    tasks: HashMap<Hash, Past>,
    count: u64,
    unreadable_count: u64,
    unreadable: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    outcome: Outcome,
    success: bool,
}

#[derive(Clone, Copy, Debug)]
struct Past {
    last: Ended,
    /// How long it ran when it succeeded last, and when it exited last.
    succeeded: Option<Duration>,
    exited: Option<Duration>,
}

impl History {
    /// Whether a task need not be run: the last line about it, with what it reads as it is now, says that it succeeded, its command
    /// still accepts this exit code, and the files that it [writes](Task::writes) are there. Never so for a
    /// [service](Task::service).
    ///
    /// The files that it reads are read now, if there is any line about the task.
    pub fn succeeded(&self, task: &Task) -> bool {
        self.is_done(task)
    }

    /// Whether the last line about a task, whatever it read then, says that it did not succeed; and it has not
    /// [succeeded](Self::succeeded) with what it reads now either.
    pub fn failed(&self, task: &Task) -> bool {
        self.has_failed(task, &mut Contents::default())
    }

    /// How long a task ran when it succeeded last; if it never did, when it last exited. With whatever it read then.
    pub fn duration_of(&self, task: &Task) -> Option<Duration> {
        let past = self.tasks.get(&key::identity(task))?;
        past.succeeded.or(past.exited)
    }

    /// The task with its duration as [estimate](Task::estimate), for policies that let the longest go first. One that has an estimate
    /// keeps it, and one that nothing is known of has none.
    pub fn estimates(&self, mut task: Task) -> Task {
        task.estimate = task.estimate.or_else(|| self.duration_of(&task));
        task
    }

    /// The tasks that are still to be run, in their order: those that have not [succeeded](Self::succeeded), and those that come
    /// [after](Task::after) one that is run, because what it leaves them may be new. What they waited for and is not run any more is
    /// waited for no more.
    ///
    /// A task that waits for one that is not among these is run as well, because nobody here knows what becomes of that one.
    #[doc(alias = "resume")]
    pub fn skip_done<T: Into<Task>>(&self, tasks: impl IntoIterator<Item = T>) -> Vec<Task> {
        let tasks: Vec<Task> = tasks.into_iter().map(Into::into).collect();
        let (names, mut contents) = (Names::of(&tasks), Contents::default());
        let mut runs: Vec<bool> = tasks.iter().map(|task| !self.is_done_now(task, &mut contents)).collect();
        let mut behind = vec![Vec::new(); tasks.len()];
        for (place, task) in tasks.iter().enumerate() {
            for after in &task.after {
                match names.place(after) {
                    // It is started for whoever needs it.
                    Some(earlier) if tasks.get(earlier).is_some_and(|task| task.is_service) => {}
                    Some(earlier) => behind.get_mut(earlier).into_iter().for_each(|all| all.push(place)),
                    None => set(&mut runs, place),
                }
            }
        }
        spread(&mut runs, &behind);
        rest(tasks, &runs)
    }

    /// The tasks that have [failed](Self::failed), in their order, and whatever they come [after](Task::after) that has not succeeded. A
    /// task that no line is about has not failed.
    pub fn retry_failed<T: Into<Task>>(&self, tasks: impl IntoIterator<Item = T>) -> Vec<Task> {
        let tasks: Vec<Task> = tasks.into_iter().map(Into::into).collect();
        let (names, mut contents) = (Names::of(&tasks), Contents::default());
        let mut runs: Vec<bool> = tasks.iter().map(|task| self.has_failed(task, &mut contents)).collect();
        let mut needs = vec![Vec::new(); tasks.len()];
        for (task, needs) in tasks.iter().zip(&mut needs) {
            let earlier = task.after.iter().filter_map(|after| names.place(after));
            needs.extend(earlier.filter(|earlier| {
                tasks.get(*earlier).is_some_and(|earlier| !self.is_done_now(earlier, &mut contents))
            }));
        }
        spread(&mut runs, &needs);
        rest(tasks, &runs)
    }

    /// How many lines were read and understood.
    pub fn line_count(&self) -> u64 {
        self.count
    }

    /// How many lines were skipped: cut short by a crash or a full disk, of another version, or no lines of a run log.
    pub fn unreadable_count(&self) -> u64 {
        self.unreadable_count
    }

    /// The first hundred of them, by number, and what is wrong with each.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// For the pool, when a task is about to be started: whether it can be skipped. Whoever asks knows whether what it waited for was
    /// skipped as well.
    pub(crate) fn is_done(&self, task: &Task) -> bool {
        self.is_done_now(task, &mut Contents::default())
    }

    fn is_done_now(&self, task: &Task, contents: &mut Contents) -> bool {
        let identity = key::identity(task);
        if task.is_service || !self.tasks.contains_key(&identity) {
            return false;
        }
        let directory = task.command.get_current_dir().unwrap_or(Path::new(""));
        let is_there = task.outputs.iter().all(|path| directory.join(path).exists());
        let ended = key::key(task, identity, contents).ok().and_then(|key| self.exact.get(&key));
        is_there && ended.is_some_and(|ended| ended.is_success(&task.command.settings.accepted))
    }

    fn has_failed(&self, task: &Task, contents: &mut Contents) -> bool {
        let past = self.tasks.get(&key::identity(task));
        past.is_some_and(|past| !past.last.is_success(&task.command.settings.accepted))
            && !self.is_done_now(task, contents)
    }

    fn add(&mut self, entry: Entry) {
        self.count += 1;
        let last = Ended { outcome: entry.outcome, success: entry.success };
        if let Some(key) = entry.key {
            self.exact.insert(key, last);
        }
        if let Some(task) = entry.task {
            let past = self.tasks.entry(task).or_insert(Past { last, succeeded: None, exited: None });
            past.last = last;
            if entry.outcome.has_exited() {
                past.exited = Some(entry.ran);
                past.succeeded = if entry.success { past.exited } else { past.succeeded };
            }
        }
    }

    fn skip(&mut self, number: u64, reason: &str) {
        self.unreadable_count += 1;
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(format!("line {number}: {reason}"));
        }
    }
}

/// So many lines that were skipped are told.
const UNREADABLE_MAX: usize = 100;

/// A longer line is none of ours: the longest command line has two mebibytes, and few of its bytes grow sixfold.
const LINE_MAX: usize = 16 * 1024 * 1024;

impl Ended {
    fn is_success(self, accepted: &Accepted) -> bool {
        let status = match self.outcome {
            Outcome::Exited(code) => u8::try_from(code).ok().map(ExitStatus::from_code),
            Outcome::Signalled { signal, exact: true } => Some(ExitStatus::from_raw(signal.number())),
            _ => None,
        };
        self.success && status.is_some_and(|status| accepted.accepts(status))
    }
}

/// Reads a log.
pub(super) fn read(path: &Path) -> Result<History, Error> {
    let failed = |step, error| Error::io(step, error).path(path);
    let mut file = match fd::open(path, File::options().read(true), 0) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => return Err(failed("open", error)),
    };
    let mut reading = Reading::default();
    let mut lines = LineSplitter::new(Newlines::Keep, LINE_MAX);
    let mut space = vec![0; 256 * 1024];
    loop {
        match file.read(&mut space) {
            Ok(0) => break,
            Ok(count) => lines.push(space.get(..count).unwrap_or_default(), |line, end| reading.line(line, end)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", error)),
        }
    }
    lines.finish(|line, end| reading.line(line, end));
    Ok(reading.history)
}

#[derive(Default)]
struct Reading {
    history: History,
    number: u64,
    /// The line goes on that was too long.
    too_long: bool,
}

impl Reading {
    fn line(&mut self, line: &[u8], end: LineEnd) {
        if !self.too_long {
            self.number += 1;
            match line::read(line) {
                _ if end == LineEnd::Size => self.history.skip(self.number, "too long"),
                _ if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(entry) => self.history.add(entry),
                Err(reason) => self.history.skip(self.number, &reason),
            }
        }
        self.too_long = end == LineEnd::Size;
    }
}

/// Where the tasks are that have names.
struct Names(HashMap<Arc<str>, usize>);

impl Names {
    fn of(tasks: &[Task]) -> Names {
        let named = tasks.iter().enumerate().filter_map(|(place, task)| Some((task.name.clone()?, place)));
        Names(named.collect())
    }

    fn place(&self, after: &After) -> Option<usize> {
        match &after.what {
            Earlier::Name(name) => self.0.get(name).copied(),
            Earlier::Id(_) => None,
        }
    }
}

fn set(runs: &mut [bool], place: usize) {
    runs.get_mut(place).into_iter().for_each(|runs| *runs = true);
}

/// Whatever is linked to one that runs, runs.
fn spread(runs: &mut [bool], links: &[Vec<usize>]) {
    let mut fresh: Vec<usize> = runs.iter().enumerate().filter_map(|(place, runs)| runs.then_some(place)).collect();
    while let Some(place) = fresh.pop() {
        for &other in links.get(place).into_iter().flatten() {
            if let Some(runs) = runs.get_mut(other).filter(|runs| !**runs) {
                *runs = true;
                fresh.push(other);
            }
        }
    }
}

/// Those that run, which wait for nobody who does not.
fn rest(tasks: Vec<Task>, runs: &[bool]) -> Vec<Task> {
    let names = Names::of(&tasks);
    let does_run = |place: Option<usize>| place.is_none_or(|place| runs.get(place) == Some(&true));
    let pairs = tasks.into_iter().zip(runs).filter(|(_, runs)| **runs);
    pairs
        .map(|(mut task, _)| {
            task.after.retain(|after| does_run(names.place(after)));
            task
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::ready::Ready;
    use super::*;
    use crate::command::Command;
    use crate::signal::Signal;
    use std::collections::BTreeSet;

    fn task(name: &str) -> Task {
        Task::new(Command::new(name).current_dir("/")).name(name)
    }

    fn entry(task: &Task, outcome: Outcome, success: bool, seconds: u64) -> Entry {
        let identity = key::identity(task);
        let key = key::key(task, identity, &mut Contents::default()).ok();
        Entry { key, task: Some(identity), outcome, success, ran: Duration::from_secs(seconds) }
    }

    /// Of tasks that ended with these codes.
    fn history(ends: &[(&Task, i32)]) -> History {
        let mut history = History::default();
        ends.iter().for_each(|(task, code)| history.add(entry(task, Outcome::Exited(*code), *code == 0, 1)));
        history
    }

    fn names(tasks: &[Task]) -> Vec<&str> {
        tasks.iter().filter_map(|task| task.name.as_deref()).collect()
    }

    #[test]
    fn success_is_what_the_log_says_and_the_command_accepts() {
        let one = |code| Task::new(Command::new("a").current_dir("/").accept([code]));
        let killed = Outcome::Signalled { signal: Signal::KILL, exact: true };
        let perhaps = Outcome::Signalled { signal: Signal::KILL, exact: false };
        for (outcome, success, accepted, expected) in [
            (Outcome::Exited(0), true, 0, true),
            (Outcome::Exited(0), true, 1, false),
            (Outcome::Exited(1), true, 1, true),
            (Outcome::Exited(1), false, 1, false),
            (Outcome::Exited(256), true, 0, false),
            (killed, true, -9, true),
            (killed, true, 0, false),
            (perhaps, true, -9, false),
            (Outcome::TimedOut, true, 0, false),
            (Outcome::EngineFailed { retryable: true }, true, 0, false),
        ] {
            let (task, mut history) = (one(accepted), History::default());
            assert!(!history.succeeded(&task) && !history.failed(&task), "nothing is known");
            history.add(entry(&task, outcome, success, 1));
            assert_eq!(history.succeeded(&task), expected, "{outcome:?} {success} {accepted}");
            assert_eq!(history.failed(&task), !expected);
        }
    }

    #[test]
    fn the_last_line_counts() {
        let one = task("a");
        assert!(history(&[(&one, 1), (&one, 0)]).succeeded(&one));
        assert!(!history(&[(&one, 0), (&one, 1)]).succeeded(&one));
        assert!(history(&[(&one, 0), (&one, 1)]).failed(&one));
    }

    #[test]
    fn what_was_to_be_written_must_be_there_and_a_service_is_never_done() {
        let one = task("a");
        let log = history(&[(&one, 0)]);
        assert!(log.succeeded(&one.clone().writes("/")) && log.succeeded(&one.clone().writes(".")));
        assert!(!log.succeeded(&one.clone().writes("/nowhere")) && !log.succeeded(&one.clone().writes("nowhere")));
        assert!(!log.succeeded(&one.service(Ready::started())));
    }

    #[test]
    fn durations_are_those_of_the_last_success() {
        let (one, other) = (task("a"), task("b"));
        let mut history = History::default();
        let mut durations = Vec::new();
        for (outcome, success, seconds) in [
            (Outcome::TimedOut, false, 9),
            (Outcome::Exited(1), false, 2),
            (Outcome::Exited(0), true, 5),
            (Outcome::Exited(0), true, 4),
            (Outcome::Exited(1), false, 1),
            (Outcome::NotStarted, false, 0),
        ] {
            history.add(entry(&one, outcome, success, seconds));
            durations.push(history.duration_of(&one).map(|duration| duration.as_secs()));
        }
        assert_eq!(durations, [None, Some(2), Some(5), Some(4), Some(4), Some(4)]);
        let changed = one.clone().reads("/nowhere");
        assert_eq!(history.duration_of(&changed), Some(Duration::from_secs(4)), "whatever it reads");
        assert_eq!(history.estimates(changed).estimate, Some(Duration::from_secs(4)));
        assert_eq!(history.estimates(one.estimate(Duration::from_secs(7))).estimate, Some(Duration::from_secs(7)));
        assert_eq!(history.estimates(other).estimate, None);
    }

    #[test]
    fn who_comes_after_one_that_is_run_is_run() {
        let tasks = || {
            [
                task("compile"),
                task("link").after("compile"),
                task("test").after("link").after("database"),
                task("database").service(Ready::started()),
                task("docs"),
                task("stranger").after("unknown"),
                task("clean").after_end("test"),
            ]
        };
        let [compile, link, test, database, docs, stranger, clean] = &tasks();
        let all = [compile, link, test, database, docs, stranger, clean].map(|task| (task, 0));
        let rest = history(&all).skip_done(tasks());
        assert_eq!(names(&rest), ["database", "stranger"]);
        assert_eq!(rest[1].after.len(), 1, "who is not here may still be waited for");
        for (failed, expected) in [
            ("compile", &["compile", "link", "test", "database", "stranger", "clean"][..]),
            ("link", &["link", "test", "database", "stranger", "clean"]),
            ("test", &["test", "database", "stranger", "clean"]),
            ("docs", &["database", "docs", "stranger"]),
        ] {
            let ends = all.map(|(task, _)| (task, i32::from(task.name.as_deref() == Some(failed))));
            let rest = history(&ends).skip_done(tasks());
            assert_eq!(names(&rest), expected, "{failed}");
            let waits = rest.iter().find(|task| task.name.as_deref() == Some("link")).map(|link| link.after.len());
            assert_eq!(
                waits,
                match failed {
                    "compile" => Some(1),
                    "link" => Some(0),
                    _ => None,
                }
            );
        }
        assert_eq!(History::default().skip_done(tasks()).len(), 7);
    }

    #[test]
    fn what_has_failed_is_run_with_what_it_needs() {
        let tasks = || [task("a"), task("b").after("a"), task("c").after("b"), task("d"), task("e").after("d")];
        let [a, b, c, d, e] = &tasks();
        for (ends, expected) in [
            (&[(a, 0), (b, 1), (c, 1), (d, 0), (e, 0)][..], &["b", "c"][..]),
            (&[(a, 0), (b, 0), (c, 1), (d, 0), (e, 0)], &["c"]),
            (&[(a, 1), (d, 0), (e, 0)], &["a"]),
            (&[(c, 1)], &["a", "b", "c"]),
            (&[(e, 1), (d, 0)], &["e"]),
            (&[], &[]),
        ] {
            assert_eq!(names(&history(ends).retry_failed(tasks())), expected);
        }
    }

    /// Whoever waits for somebody who runs, runs; whoever is said to be done and does not is really done.
    #[test]
    fn any_web_of_tasks_is_cut_at_the_right_places() {
        let mut state = 7_u64;
        let mut below = move |count: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % count
        };
        for _ in 0..100 {
            let count = 1 + below(8);
            let tasks: Vec<Task> = (0..count)
                .map(|place| {
                    let links: Vec<usize> =
                        (0..below(3)).map(|_| below(count)).filter(|other| *other < place).collect();
                    let one = task(&place.to_string());
                    links.iter().fold(one, |task, other| task.after(other.to_string()))
                })
                .collect();
            let done: BTreeSet<usize> = (0..count).filter(|_| below(4) > 0).collect();
            let ends: Vec<(&Task, i32)> =
                tasks.iter().enumerate().map(|(i, t)| (t, i32::from(!done.contains(&i)))).collect();
            let rest = history(&ends).skip_done(tasks.clone());
            let runs: BTreeSet<usize> = names(&rest).iter().map(|name| name.parse().unwrap()).collect();
            for (place, task) in tasks.iter().enumerate() {
                let waits = |after: &After| runs.iter().any(|other| *after == After::from(other.to_string()));
                let expected = !done.contains(&place) || task.after.iter().any(waits);
                assert_eq!(runs.contains(&place), expected, "{place} of {tasks:?}");
            }
            assert!(
                rest.iter()
                    .flat_map(|task| &task.after)
                    .all(|after| { runs.iter().any(|other| *after == After::from(other.to_string())) })
            );
        }
    }

    #[test]
    fn lines_are_counted_and_named_and_no_more_than_a_hundred() {
        let mut reading = Reading::default();
        reading.line(b"", LineEnd::Newline);
        reading.line(b"nonsense", LineEnd::Newline);
        reading.line(b"very lo", LineEnd::Size);
        reading.line(b"ng nons", LineEnd::Size);
        reading.line(b"ense", LineEnd::Newline);
        reading.line(b"{", LineEnd::Stream);
        let expected = ["line 2: no JSON", "line 3: too long", "line 4: cut short"];
        assert_eq!(reading.history.unreadable(), expected);
        (0..200).for_each(|_| reading.line(b"x", LineEnd::Newline));
        assert_eq!((reading.history.unreadable_count(), reading.history.unreadable().len()), (203, 100));
        assert_eq!(reading.history.line_count(), 0);
    }
}
