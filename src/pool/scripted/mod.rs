//! An engine in memory whose children are scripts on virtual time: for tests of what runs commands, and of the pool itself. Here it is
//! decided who plays which script; what a job does is in `run`, when it comes in `time`.
//!
//! Nothing is started and nobody sleeps: an hour of a [`Script`] passes in no time, and two runs of a test see the same, moment by
//! moment. What would take a broken machine to see, an engine that loses jobs or a child that cannot be killed, is a line here.

mod capture;
mod journal;
mod run;
mod script;
mod time;

pub use journal::{Entry, Event, Journal};
pub use script::{Fault, Script};
pub use time::Hold;

use crate::command::Command;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::pool::engine::{Capabilities, Engine, Job, JobId, Refusal, Tell, Waker};
use run::{Around, Fate, Planned, Run};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use time::{Bell, Move, Timeline};

/// An engine whose jobs are played by [scripts](Script), in memory and on virtual time: a double for tests.
///
/// Rules say who plays what; the first that fits a job has its say, in the order in which they were given. A job that none fits is
/// [refused](crate::pool::Refusal::Never), and the error names its command. [`journal`](Self::journal) tells afterwards what was asked
/// of the engine and what became of it.
///
/// Time stands still while there is something to do. It passes, without a sleep, when [`poll`](Engine::poll) finds nothing that has come:
/// to the next thing that will come, or to the end of the wait if that is earlier. One `poll` tells what comes at one moment, so that
/// [`now`](Engine::now) behind it is that moment. Where nothing will ever come it really waits, until it is woken. What is submitted from
/// another thread may find that time has passed: [`hold`](Self::hold) keeps it.
///
/// Commands are not looked at beyond what is said here: a program need not exist. Their timeout, limits, accepted codes, transcript and
/// redirections mean what they mean elsewhere, but no file is opened and no target written to.
///
/// ```
/// use procession::pool::{Engine, Job, JobNews, Script, Scripted};
/// use procession::{Command, Deadline};
/// use std::time::Duration;
///
/// let mut engine = Scripted::new()
///     .on_program("cc", Script::new().stdout("compiled\n").takes(Duration::from_secs(3)))
///     .otherwise(Script::new().exits(1));
/// let journal = engine.journal();
///
/// // What a pool does.
/// let mut left = 2;
/// for file in ["a.c", "b.c"] {
///     assert!(engine.submit(&Job::new(Command::new("cc").arg(file))).is_ok());
/// }
/// while left > 0 {
///     engine.poll(Deadline::NEVER, &mut |_job, news| {
///         if let JobNews::Finished(finish) = news {
///             assert!(finish.output.success());
///             assert_eq!(finish.output.stdout(), b"compiled\n");
///             left -= 1;
///         }
///     })?;
/// }
///
/// assert_eq!(journal.running_max(), 2);
/// assert_eq!(
///     journal.to_string(),
///     "0s cc a.c: submitted\n0s cc b.c: submitted\n\
///      0s cc a.c: started\n0s cc b.c: started\n\
///      3s cc a.c: exit 0\n3s cc b.c: exit 0\n"
/// );
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "mock")]
#[doc(alias = "fake")]
#[doc(alias = "simulator")]
#[must_use = "an engine does nothing until a pool drives it"]
pub struct Scripted {
    able: Capabilities,
    rules: Vec<Rule>,
    otherwise: Option<Rule>,
    time: Timeline<Planned>,
    begin: SystemTime,
    bell: Arc<Bell>,
    journal: Journal,
    runs: BTreeMap<JobId, Run>,
    /// Why it has failed.
    dead: Option<Arc<str>>,
}

/// Who plays what.
struct Rule {
    answer: Answer,
    /// How often it is still used, if there is a bound.
    left: Option<u32>,
    /// How many jobs it has not taken yet.
    refused: u32,
}

type Answer = Box<dyn FnMut(&Job) -> Option<Arc<Script>> + Send>;

impl Rule {
    fn new(answer: impl FnMut(&Job) -> Option<Arc<Script>> + Send + 'static) -> Rule {
        Rule { answer: Box::new(answer), left: None, refused: 0 }
    }

    /// The script for a job, if the rule fits it.
    fn apply(&mut self, job: &Job) -> Option<Result<Arc<Script>, Refusal>> {
        if self.left == Some(0) {
            return None;
        }
        let script = (self.answer)(job)?;
        if self.refused < script.later {
            self.refused += 1;
            let error = Error::of_engine(ErrorKind::ResourceExhausted, "the script says: not now");
            return Some(Err(Refusal::Later(error)));
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        if let Some(reason) = &script.never {
            return Some(Err(Refusal::Never(Error::of_engine(ErrorKind::Unsupported, reason.to_string()))));
        }
        Some(Ok(script))
    }
}

/// Who plays what.
impl Scripted {
    /// Without rules, and with the [capabilities](Capabilities::local) of the local machine under the name `scripted`.
    pub fn new() -> Scripted {
        Scripted {
            able: Capabilities { name: "scripted".into(), ..Capabilities::local() },
            rules: Vec::new(),
            otherwise: None,
            time: Timeline::new(Instant::now()),
            begin: SystemTime::now(),
            bell: Arc::default(),
            journal: Journal::default(),
            runs: BTreeMap::new(),
            dead: None,
        }
    }

    /// Commands for which this is true play this script.
    pub fn on(self, mut fits: impl FnMut(&Command) -> bool + Send + 'static, script: Script) -> Scripted {
        let script = Arc::new(script);
        self.rule(Rule::new(move |job| fits(&job.command).then(|| Arc::clone(&script))))
    }

    /// Commands with this program play this script. A name without a slash fits a program in any directory.
    pub fn on_program(self, name: impl Into<OsString>, script: Script) -> Scripted {
        let name = name.into();
        let fits = move |command: &Command| {
            let program = command.get_program();
            program == name || Path::new(program).file_name() == Some(&name)
        };
        self.on(fits, script)
    }

    /// Jobs for which this function has a script play it.
    ///
    /// ```
    /// use procession::pool::{Script, Scripted};
    ///
    /// // The first two attempts at everything fail, and the third one prints its arguments.
    /// let engine = Scripted::new().answer(|job| {
    ///     let words: Vec<_> = job.command.get_args().map(|word| word.to_string_lossy()).collect();
    ///     Some(if job.attempt < 3 { Script::new().exits(75) } else { Script::new().stdout(words.join(" ")) })
    /// });
    /// # let _ = engine;
    /// ```
    pub fn answer(self, mut script: impl FnMut(&Job) -> Option<Script> + Send + 'static) -> Scripted {
        self.rule(Rule::new(move |job| script(job).map(Arc::new)))
    }

    /// The rule before this is used so many times; then jobs that it fits go to those behind it.
    ///
    /// ```
    /// use procession::pool::{Script, Scripted};
    ///
    /// // The first two fail, all others succeed.
    /// let engine = Scripted::new().on_program("flaky", Script::new().exits(75)).times(2).otherwise(Script::new());
    /// # let _ = engine;
    /// ```
    pub fn times(mut self, times: u32) -> Scripted {
        if let Some(rule) = self.rules.last_mut() {
            rule.left = Some(times);
        }
        self
    }

    /// Jobs that no rule fits play this script.
    pub fn otherwise(mut self, script: Script) -> Scripted {
        let script = Arc::new(script);
        self.otherwise = Some(Rule::new(move |_| Some(Arc::clone(&script))));
        self
    }

    fn rule(mut self, rule: Rule) -> Scripted {
        self.rules.push(rule);
        self
    }
}

/// What it can do, and how it is watched.
impl Scripted {
    /// Changes what it says it can do, and what it then does: without live output it tells all output just before the end; signals are
    /// as exact as it says; the death of a job that was cancelled is confirmed or not; it keeps timeouts as finely as it says, or
    /// not at all; it takes no more jobs at a time than it says.
    ///
    /// ```
    /// use procession::pool::{Engine, Scripted, SignalFidelity};
    ///
    /// let engine = Scripted::new().with_capabilities(|able| {
    ///     able.live_output = false;
    ///     able.signals = SignalFidelity::Inferred;
    ///     able.in_flight_max = Some(100);
    /// });
    /// assert_eq!(engine.capabilities().in_flight_max, Some(100));
    /// ```
    pub fn with_capabilities(mut self, change: impl FnOnce(&mut Capabilities)) -> Scripted {
        change(&mut self.able);
        self
    }

    /// The whole engine fails when this much time has passed: then [`poll`](Engine::poll) is an error, and nothing more is told.
    pub fn dies_after(mut self, time: Duration, reason: impl Into<Arc<str>>) -> Scripted {
        self.time.plan(time, Planned::Death(reason.into()));
        self
    }

    /// What was asked of it and what became of that; ask before a pool owns the engine.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Keeps time from passing until the [`Hold`] is dropped: jobs are taken and start, and nothing else comes. For tests that submit
    /// from another thread than the one that polls, and want them all to have been submitted at the same moment.
    pub fn hold(&self) -> Hold {
        Hold::new(&self.bell)
    }

    fn admit(&mut self, job: &Job) -> Result<(), Refusal> {
        self.check_alive().map_err(Refusal::Never)?;
        if self.runs.contains_key(&job.id) {
            return Err(Refusal::Never(Error::invalid(format!("job {} is there already", job.id))));
        }
        if self.able.in_flight_max.is_some_and(|max| self.runs.len() >= max) {
            let text = format!("{} jobs are there already", self.runs.len());
            return Err(Refusal::Later(Error::of_engine(ErrorKind::ResourceExhausted, text)));
        }
        let answer = self.rules.iter_mut().chain(&mut self.otherwise).find_map(|rule| rule.apply(job));
        let script = answer.unwrap_or_else(|| {
            Err(Refusal::Never(Error::invalid(format!("no script fits the command {}", job.command))))
        })?;
        assert!(!script.has(Fault::PanicsInSubmit), "the script says that the engine panics here");
        let run = Run::begin(job, script, &mut self.time).map_err(Refusal::Never)?;
        self.runs.insert(job.id, run);
        Ok(())
    }

    fn check_alive(&self) -> Result<(), Error> {
        match &self.dead {
            Some(reason) => Err(Error::of_engine(ErrorKind::Io, reason.to_string())),
            None => Ok(()),
        }
    }

    /// Lets time pass until there is something to tell, and says whether there is.
    fn wait(&mut self, until: Deadline) -> bool {
        let mut state = self.bell.lock();
        loop {
            let woken = std::mem::take(&mut state.woken);
            match self.time.next_move(until, woken, state.holds > 0) {
                Move::Tell => return true,
                Move::Return => return false,
                Move::Jump(to) => {
                    self.time.jump(to);
                    self.journal.set_now(self.time.now());
                }
                Move::Wait => state = self.bell.wait(state),
            }
        }
    }

    fn play(&mut self, planned: Planned, tell: &mut Tell<'_>) -> Result<(), Error> {
        let (id, turn) = match planned {
            Planned::Turn(id, turn) => (id, turn),
            Planned::Death(reason) => return self.die(reason),
        };
        let Some(run) = self.runs.get_mut(&id) else { return Ok(()) };
        let (time, journal, able, begin) = (&mut self.time, &self.journal, &self.able, self.begin);
        match run.play(turn, &mut Around { time, journal, able, begin, tell }) {
            Fate::GoesOn => {}
            Fate::Over => drop(self.runs.remove(&id)),
            Fate::EngineDies(reason) => return self.die(reason),
        }
        Ok(())
    }

    fn die(&mut self, reason: Arc<str>) -> Result<(), Error> {
        self.dead = Some(reason);
        self.abandon(Event::Lost);
        self.check_alive()
    }

    /// Nothing more will be told of any job.
    fn abandon(&mut self, event: Event) {
        for run in std::mem::take(&mut self.runs).into_values() {
            if run.has_started() {
                self.journal.count(false);
            }
            self.journal.note(run.label(), event);
        }
    }
}

impl Engine for Scripted {
    fn capabilities(&self) -> Capabilities {
        self.able.clone()
    }

    fn now(&self) -> Instant {
        self.time.moment()
    }

    fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.bell);
        Waker::new(move || bell.ring())
    }

    fn submit(&mut self, job: &Job) -> Result<(), Refusal> {
        let admitted = self.admit(job);
        let event = if admitted.is_ok() { Event::Submitted } else { Event::Refused };
        self.journal.note((job.id, job.attempt, &job.command.to_string().into()), event);
        admitted
    }

    fn poll(&mut self, until: Deadline, tell: &mut Tell<'_>) -> Result<(), Error> {
        self.check_alive()?;
        if self.wait(until) {
            while let Some(planned) = self.time.take_due() {
                self.play(planned, tell)?;
            }
        }
        Ok(())
    }

    fn cancel(&mut self, job: JobId) {
        if let Some(run) = self.runs.get_mut(&job) {
            self.journal.note(run.label(), Event::CancelAsked);
            run.cancel(&mut self.time);
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.abandon(Event::Stopped);
    }
}

impl Default for Scripted {
    fn default() -> Scripted {
        Scripted::new()
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rules, jobs) = (self.rules.len(), self.runs.len());
        write!(out, "Scripted({rules} rules, {jobs} jobs, {:?} passed)", self.time.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Overflow, Stdio};
    use crate::output::{Cause, Completeness};
    use crate::pool::done::Outcome;
    use crate::pool::engine::{Finish, JobNews, SignalFidelity};
    use crate::signal::Signal;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    const S: Duration = Duration::from_secs(1);

    /// An engine, how far its own time has come, and what it has told: a line each.
    struct Watched {
        engine: Scripted,
        begin: Instant,
        names: BTreeMap<JobId, String>,
        told: Vec<String>,
        ended: BTreeMap<String, Finish>,
    }

    impl Watched {
        fn new(engine: Scripted) -> Watched {
            let begin = engine.now();
            Watched { engine, begin, names: BTreeMap::new(), told: Vec::new(), ended: BTreeMap::new() }
        }

        fn submit_live(&mut self, live: bool, command: Command) -> Result<JobId, Refusal> {
            let job = Job { live, ..Job::new(command) };
            self.engine.submit(&job)?;
            self.names.insert(job.id, job.command.to_string());
            Ok(job.id)
        }

        fn submit(&mut self, name: &str) -> JobId {
            self.submit_live(true, Command::new(name)).unwrap()
        }

        /// One wait, until so many seconds have passed since the beginning.
        fn poll(&mut self, until: Option<u64>) -> Result<(), Error> {
            let until =
                until.map_or(Deadline::NEVER, |seconds| Deadline::at(self.begin + Duration::from_secs(seconds)));
            let mut told = Vec::new();
            let polled = self.engine.poll(until, &mut |id, news| {
                let name = self.names.get(&id).map_or("?", String::as_str);
                told.push(format!("{name}: {}", in_words(&news)));
                if let JobNews::Finished(finish) = news {
                    self.ended.insert(name.to_owned(), finish);
                }
            });
            let at = (self.engine.now() - self.begin).as_secs_f64();
            self.told.extend(told.into_iter().map(|line| format!("{at} {line}")));
            polled
        }

        /// Until everything has ended that can end.
        fn play(mut self) -> Watched {
            while !self.engine.runs.is_empty() {
                let now = self.engine.now();
                let day = self.begin + 86_400 * S;
                self.poll(Some(86_400)).unwrap();
                if now == day {
                    break;
                }
            }
            self
        }
    }

    fn in_words(news: &JobNews<'_>) -> String {
        match news {
            JobNews::Queued => "queued".to_owned(),
            JobNews::Started { place } => format!("started at {place}"),
            JobNews::Output { stream, bytes } => format!("{stream} {:?}", String::from_utf8_lossy(bytes)),
            JobNews::Retrying(reason) => format!("again, {reason}"),
            JobNews::CancelAccepted => "cancelling".to_owned(),
            JobNews::Finished(finish) => finish.outcome.to_string(),
        }
    }

    /// What is told of one live job.
    fn told(script: Script) -> Vec<String> {
        told_of(Scripted::new().otherwise(script), Command::new("a"))
    }

    fn told_of(engine: Scripted, command: Command) -> Vec<String> {
        let mut watched = Watched::new(engine);
        watched.submit_live(true, command).unwrap();
        watched.play().told.into_iter().map(|line| line.replace("a: ", "")).collect()
    }

    #[test]
    fn what_scripts_tell() {
        let script = Script::new;
        let failed = |retryable| Outcome::EngineFailed { retryable };
        for (script, expected) in [
            (script(), &["0 started at scripted", "0 exit 0"][..]),
            (script().takes(2 * S).exits(3), &["0 started at scripted", "2 exit 3"]),
            (script().exits(3).takes(2 * S), &["0 started at scripted", "2 exit 3"]),
            (
                script().queued(S).place("moon").stdout("x").takes(S).stderr("y").takes(S).killed_by(Signal::SEGV),
                &["0 queued", "1 started at moon", "1 stdout \"x\"", "2 stderr \"y\"", "3 SIGSEGV"],
            ),
            (script().takes(S).not_found(), &["1 not started"]),
            (script().takes(S).ends(failed(true)), &["0 started at scripted", "1 engine failed"]),
            (script().ends(Outcome::TimedOut).takes(S), &["0 started at scripted", "1 timed out"]),
            (
                script().stdout("x").takes(S).runs_again("host lost").stdout("y").takes(S),
                &[
                    "0 started at scripted",
                    "0 stdout \"x\"",
                    "1 again, host lost",
                    "1 started at scripted",
                    "1 stdout \"y\"",
                    "2 exit 0",
                ],
            ),
            (script().queued(S).silent().stdout("x").takes(S), &["1 stdout \"x\"", "2 exit 0"]),
            (script().hangs(), &["0 started at scripted"]),
            (script().takes(Duration::MAX), &["0 started at scripted"]),
        ] {
            let case = format!("{script:?}");
            assert_eq!(told(script), expected, "{case}");
        }
    }

    #[test]
    fn what_stops_a_job() {
        let script = Script::new;
        let timed = || Command::new("a").timeout(2 * S);
        // The script, and what is told when it is cancelled after one second; when its timeout is two seconds; both.
        for (script, cancelled, timed_out, both) in [
            (script().hangs(), &["1 cancelling", "1 cancelled"][..], &["2 timed out"][..], &["1 cancelled"][..]),
            (
                script().hangs().resists(3 * S),
                &["1 cancelling", "4 cancelled"],
                &["5 timed out"],
                // Whatever comes first decides.
                &["4 cancelled"],
            ),
            // It ends in the middle of the stop.
            (
                script().takes(3 * S).exits(7).resists(5 * S),
                &["1 cancelling", "3 cancelled"],
                &["3 timed out"],
                &["3 cancelled"],
            ),
            (
                script().hangs().resists(S).death_unseen(),
                &["1 cancelling", "2 cancelled, perhaps still running"],
                &["3 timed out"],
                &["2 cancelled, perhaps still running"],
            ),
            (script().takes(3 * S).ignores_cancel(), &["3 exit 0"], &["2 timed out"], &["2 timed out"]),
            (script().silent().hangs(), &["1 cancelled"], &["2 timed out"], &["1 cancelled"]),
            // It has not started yet.
            (script().queued(9 * S).resists(5 * S), &["1 cancelling", "1 cancelled"], &["9 exit 0"], &["1 cancelled"]),
            // What the engine loses in the middle of a stop is lost.
            (
                script().takes(2 * S).resists(5 * S).ends(Outcome::EngineFailed { retryable: false }),
                &["1 cancelling", "2 engine failed"],
                &["2 engine failed"],
                &["2 engine failed"],
            ),
        ] {
            let case = format!("{script:?}");
            let play = |command: Command, cancels: bool| -> Vec<String> {
                let mut watched = Watched::new(Scripted::new().otherwise(script.clone()));
                let id = watched.submit_live(false, command).unwrap();
                while cancels && watched.engine.now() < watched.begin + S {
                    watched.poll(Some(1)).unwrap();
                }
                if cancels {
                    watched.engine.cancel(id);
                    watched.engine.cancel(id);
                }
                let told = watched.play().told.into_iter().map(|line| line.replace("a: ", ""));
                told.filter(|line| !line.contains("started at") && !line.contains("queued")).collect()
            };
            assert_eq!(play(Command::new("a"), true), cancelled, "{case}");
            assert_eq!(play(timed(), false), timed_out, "{case}");
            assert_eq!(play(timed(), true).last(), both.last().map(ToString::to_string).as_ref(), "{case}");
        }
    }

    #[test]
    fn what_an_engine_cannot_do_it_does_not_do() {
        let script = || Script::new().stdout("x").takes(S).stderr("y").takes(S);
        let engine =
            |change: fn(&mut Capabilities), script| Scripted::new().with_capabilities(change).otherwise(script);
        let start = "0 started at scripted";

        let batch = engine(|able| able.live_output = false, script());
        assert_eq!(told_of(batch, Command::new("a")), [start, "2 stdout \"x\"", "2 stderr \"y\"", "2 exit 0"]);

        let signals = |signals: SignalFidelity| {
            let engine = Scripted::new().with_capabilities(|able| able.signals = signals);
            told_of(engine.otherwise(Script::new().killed_by(Signal::KILL)), Command::new("a")).pop().unwrap()
        };
        assert_eq!(signals(SignalFidelity::Exact), "0 SIGKILL");
        assert_eq!(signals(SignalFidelity::Inferred), "0 probably SIGKILL");
        assert_eq!(signals(SignalFidelity::Unknown), "0 exit 1");

        let timed = || Command::new("a").timeout(Duration::from_millis(1500));
        let no_clock = engine(|able| able.deadline_granularity = None, Script::new().takes(5 * S));
        assert_eq!(told_of(no_clock, timed()), [start, "5 exit 0"]);
        let coarse = engine(|able| able.deadline_granularity = Some(S), Script::new().takes(5 * S));
        assert_eq!(told_of(coarse, timed()), [start, "2 timed out"]);
        let exact = Scripted::new().otherwise(Script::new().takes(5 * S));
        assert_eq!(told_of(exact, timed()), [start, "1.5 timed out"]);

        let mut watched = Watched::new(engine(|able| able.confirms_death = false, Script::new().hangs()));
        let id = watched.submit("a");
        watched.poll(None).unwrap();
        watched.engine.cancel(id);
        assert_eq!(watched.play().told.last().unwrap(), "0 a: cancelled, perhaps still running");
    }

    #[test]
    fn the_first_rule_that_fits_has_its_say() {
        let engine = Scripted::new()
            .on_program("cc", Script::new().exits(1))
            .times(1)
            .on(|command| command.get_args().any(|arg| arg == "-c"), Script::new().exits(2))
            .answer(|job| (job.command.get_program() == "odd").then(|| Script::new().exits(3)))
            .on_program("cc", Script::new().exits(4));
        let mut watched = Watched::new(engine);
        for command in ["cc -c 1", "/usr/bin/cc 2", "ld -c 3", "cc 4", "odd"] {
            watched.submit_live(false, Command::parse(command).unwrap()).unwrap();
        }
        let Refusal::Never(error) = watched.submit_live(false, Command::new("mcc").arg("a b")).unwrap_err() else {
            panic!("not refused for ever");
        };
        assert_eq!(error.to_string(), "no script fits the command mcc 'a b'");
        let ended = watched.play().ended;
        let codes: Vec<_> = ended.iter().map(|(name, end)| format!("{name}: {}", end.outcome)).collect();
        let expected = ["/usr/bin/cc 2: exit 4", "cc -c 1: exit 1", "cc 4: exit 4", "ld -c 3: exit 2", "odd: exit 3"];
        assert_eq!(codes, expected);
    }

    #[test]
    fn jobs_are_refused_for_now_and_for_ever() {
        let engine = Scripted::new()
            .on_program("shy", Script::new().refused_at_first(2))
            .times(1)
            .on_program("bad", Script::new().refused("not on this machine"))
            .otherwise(Script::new().takes(S))
            .with_capabilities(|able| able.in_flight_max = Some(3));
        let journal = engine.journal();
        let mut watched = Watched::new(engine);
        let answer = |watched: &mut Watched, name: &str| match watched.submit_live(false, Command::new(name)) {
            Ok(_) => "taken".to_owned(),
            Err(Refusal::Later(error)) => format!("later: {error}"),
            Err(Refusal::Never(error)) => format!("never: {error}"),
        };
        for (name, expected) in [
            ("shy", "later: the script says: not now"),
            ("shy", "later: the script says: not now"),
            ("shy", "taken"),
            ("bad", "never: not on this machine"),
            ("shy", "taken"), // by the last rule
            ("a", "taken"),
            ("b", "later: 3 jobs are there already"),
        ] {
            assert_eq!(answer(&mut watched, name), expected, "{name}");
        }
        let again = Job::new(Command::new("a"));
        watched.poll(None).unwrap();
        watched.engine.submit(&again).unwrap();
        assert!(matches!(watched.engine.submit(&again), Err(Refusal::Never(_))), "the same number twice");
        let watched = watched.play();
        assert_eq!(watched.ended.len(), 3, "of what was refused nothing is told: {:?}", watched.told);
        assert_eq!(journal.entries().iter().filter(|entry| entry.event == Event::Refused).count(), 5);
        assert_eq!(journal.running_max(), 3);
    }

    #[test]
    fn the_record_says_what_is_known() {
        let engine = Scripted::new()
            .on_program("cat", Script::new().echoes_input().takes(S).stderr("done").exits(3))
            .on_program("lost", Script::new().stdout("x").takes(S).ends(Outcome::EngineFailed { retryable: true }))
            .on_program("again", Script::new().stdout("x").takes(S).runs_again("").takes(S).stdout("y"))
            .on_program("much", Script::new().stdout("123456").takes(S))
            .on_program("absent", Script::new().not_found());
        let mut watched = Watched::new(engine);
        watched.submit_live(false, Command::new("cat").input("hello").accept([3]).secret_arg("pw")).unwrap();
        watched.submit_live(false, Command::new("cat").arg("1").stderr(Stdio::stdout())).unwrap();
        for name in ["lost", "again", "absent"] {
            watched.submit_live(false, Command::new(name)).unwrap();
        }
        watched.submit_live(false, Command::new("much").capture_limit(4, Overflow::Fail)).unwrap();
        let mut ended = watched.play().ended;
        let mut end = |name: &str| ended.remove(name).unwrap();

        let output = end("cat ***").output;
        assert!(output.success() && output.is_complete());
        assert_eq!((output.stdout(), output.stderr(), output.input_accepted()), (&b"hello"[..], &b"done"[..], 5));
        assert_eq!((output.cause(), output.elapsed(), output.pid()), (Cause::Ended, S, None));
        assert_eq!(output.status().code(), Some(3));
        assert_eq!(end("cat 1 2>&1").output.stdout(), b"done");

        let lost = end("lost").output;
        assert_eq!((lost.stdout(), lost.cause(), lost.status().is_known()), (&b"x"[..], Cause::Running, false));
        assert_eq!(*lost.captured_stdout().completeness(), Completeness::Open);

        let again = end("again").output;
        assert_eq!((again.stdout(), again.elapsed()), (&b"y"[..], S), "of the last run");

        let absent = end("absent");
        assert_eq!((absent.output.cause(), absent.output.elapsed()), (Cause::NotStarted, Duration::ZERO));
        assert_eq!(absent.error.unwrap().kind(), ErrorKind::NotFound);

        let much = end("much");
        assert_eq!((much.outcome, much.output.stdout()), (Outcome::Overflowed, &b"1234"[..]));
        assert_eq!((much.output.cause(), much.output.elapsed()), (Cause::Overflow, Duration::ZERO));
        assert!(ended.is_empty());
    }

    #[test]
    fn input_that_cannot_be_read_is_the_engines_trouble() {
        let mut watched = Watched::new(Scripted::new().otherwise(Script::new().echoes_input()));
        let command = Command::new("cat").input(crate::command::Input::reader(&b"once"[..]));
        watched.submit_live(false, command.clone()).unwrap();
        let mut watched = watched.play();
        assert_eq!(watched.ended.remove("cat").unwrap().output.stdout(), b"once");
        watched.submit_live(false, command).unwrap();
        let end = watched.play().ended.remove("cat").unwrap();
        assert_eq!(end.outcome, Outcome::EngineFailed { retryable: false });
        assert!(end.error.unwrap().to_string().contains("used already"));
    }

    #[test]
    fn the_whole_engine_can_fail() {
        let by_script = Scripted::new()
            .on_program("b", Script::new().takes(2 * S).ends_engine("no route"))
            .otherwise(Script::new().takes(S).stdout("x").takes(5 * S));
        let by_time =
            Scripted::new().dies_after(2 * S, "no route").otherwise(Script::new().takes(S).stdout("x").hangs());
        for engine in [by_script, by_time] {
            let journal = engine.journal();
            let mut watched = Watched::new(engine);
            watched.submit("a");
            watched.submit("b");
            let error = loop {
                if let Err(error) = watched.poll(None) {
                    break error;
                }
            };
            assert_eq!(error.to_string(), "no route");
            assert_eq!(watched.engine.now(), watched.begin + 2 * S);
            let told = watched.told.len();
            assert!(watched.poll(None).is_err() && watched.told.len() == told, "it stays dead, and silent");
            assert!(matches!(watched.engine.submit(&Job::new(Command::new("c"))), Err(Refusal::Never(_))));
            assert!(journal.to_string().contains("2s a: lost\n2s b: lost\n"), "{journal}");
            assert_eq!((journal.running(), journal.running_max()), (0, 2));
        }
    }

    #[test]
    fn what_is_dropped_is_stopped() {
        let engine = Scripted::new().otherwise(Script::new().hangs());
        let journal = engine.journal();
        let mut watched = Watched::new(engine);
        watched.submit("a");
        watched.poll(None).unwrap();
        watched.submit("b");
        drop(watched);
        let expected = "0s a: submitted\n0s a: started\n0s b: submitted\n0s a: stopped with the engine\n\
                        0s b: stopped with the engine\n";
        assert_eq!((journal.to_string().as_str(), journal.running()), (expected, 0));
    }

    #[test]
    fn a_wait_lasts_as_long_as_it_says_and_no_longer() {
        let mut watched = Watched::new(Scripted::new().otherwise(Script::new().takes(5 * S)));
        watched.submit("a");
        let mut moments = Vec::new();
        for until in [Some(0), Some(3), Some(2), Some(4), Some(9), Some(9)] {
            watched.poll(until).unwrap();
            moments.push((watched.engine.now() - watched.begin).as_secs());
        }
        assert_eq!(moments, [0, 3, 3, 4, 5, 9]);
        assert_eq!(watched.told, ["0 a: started at scripted", "5 a: exit 0"]);
        // It was never asked to wait: it stays where it is, far from the real clock.
        assert_eq!(watched.engine.journal().elapsed(), 9 * S);
    }

    #[test]
    fn a_wake_ends_this_wait_or_the_next_one() {
        let mut watched = Watched::new(Scripted::new().otherwise(Script::new().hangs()));
        let waker = watched.engine.waker();
        waker.wake();
        waker.wake();
        watched.poll(None).unwrap();
        watched.submit("a");
        watched.poll(None).unwrap();
        assert_eq!(watched.told, ["0 a: started at scripted"]);
        // One that sleeps, or is about to: both must do.
        for _ in 0..20 {
            let waker = watched.engine.waker();
            let other = thread::spawn(move || waker.wake());
            watched.poll(None).unwrap();
            other.join().unwrap();
        }
        // Nothing passes before the thread has looked around.
        watched.engine.waker().wake();
        watched.poll(Some(9)).unwrap();
        assert_eq!(watched.engine.now(), watched.begin);
        watched.poll(Some(9)).unwrap();
        assert_eq!(watched.engine.now(), watched.begin + 9 * S);
    }

    #[test]
    fn while_it_is_held_time_stands_still() {
        let engine = Scripted::new().otherwise(Script::new().takes(S));
        let (hold, second) = (engine.hold(), engine.hold());
        let waker = engine.waker();
        let mut watched = Watched::new(engine);
        watched.submit("a");
        watched.poll(Some(9)).unwrap();
        assert_eq!(watched.told, ["0 a: started at scripted"]);
        waker.wake();
        watched.poll(Some(9)).unwrap();
        assert_eq!(watched.engine.now(), watched.begin);
        drop(hold);
        let other = thread::spawn(move || drop(second));
        watched.poll(Some(9)).unwrap();
        other.join().unwrap();
        assert_eq!(watched.told.last().unwrap(), "1 a: exit 0");
    }

    #[test]
    fn faults_break_the_rule_they_name() {
        let start = "0 started at scripted";
        for (fault, live, expected) in [
            (Fault::StartsTwice, true, &[start, start, "0 stdout \"x\"", "1 exit 0"][..]),
            (Fault::StartsLate, true, &["0 stdout \"x\"", "1 started at scripted", "1 exit 0"]),
            (Fault::SpeaksUnasked, false, &[start, "0 stdout \"x\"", "1 exit 0"]),
            (Fault::SpeaksAfterEnd, false, &[start, "1 exit 0", "1 stdout \"late\""]),
            (Fault::EndsTwice, false, &[start, "1 exit 0", "1 exit 0"]),
            (Fault::EndsAnother, false, &[start, "1 ?: exit 0", "1 exit 0"]),
        ] {
            let script = Script::new().stdout("x").takes(S).fault(fault);
            let mut watched = Watched::new(Scripted::new().otherwise(script));
            watched.submit_live(live, Command::new("a")).unwrap();
            let told: Vec<_> = watched.play().told.into_iter().map(|line| line.replace("a: ", "")).collect();
            assert_eq!(told, expected, "{fault:?}");
        }
        for fault in [Fault::PanicsInSubmit, Fault::PanicsInPoll] {
            let mut watched = Watched::new(Scripted::new().otherwise(Script::new().fault(fault)));
            let submitted = catch_unwind(AssertUnwindSafe(|| watched.submit("a")));
            assert_eq!(submitted.is_err(), fault == Fault::PanicsInSubmit);
            let polled = catch_unwind(AssertUnwindSafe(|| watched.poll(Some(1)).unwrap()));
            assert_eq!(polled.is_err(), fault == Fault::PanicsInPoll);
        }
    }

    // ---- by chance

    fn random(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    fn any_script(random: &mut impl FnMut(u64) -> u64) -> Script {
        let mut script = Script::new();
        for _ in 0..random(6) {
            script = match random(6) {
                0 => script.takes(random(4) as u32 * S),
                1 => script.stdout("out"),
                2 => script.stderr("err"),
                3 => script.runs_again("lost"),
                4 => script.queued(random(3) as u32 * S),
                _ => script.resists(random(4) as u32 * S),
            };
        }
        match random(8) {
            0 => script.hangs(),
            1 => script.killed_by(Signal::KILL),
            2 => script.not_found(),
            3 => script.ends(Outcome::EngineFailed { retryable: true }),
            4 => script.death_unseen(),
            code => script.exits(code as u8),
        }
    }

    /// The same jobs with the same cancels at the same moments, watched in steps of another length.
    fn play_any(seed: u64, mut step: impl FnMut() -> Option<u64>) -> (Vec<String>, String) {
        let mut random = random(seed);
        let scripts: Vec<Script> = (0..8).map(|_| any_script(&mut random)).collect();
        let engine = Scripted::new().answer(move |job| {
            let number: usize = job.command.get_program().to_str()?.parse().ok()?;
            scripts.get(number).cloned()
        });
        let journal = engine.journal();
        let mut watched = Watched::new(engine);
        let ids: Vec<JobId> = (0..8)
            .map(|number| {
                let command = Command::new(number.to_string()).timeout((5 + random(10)) as u32 * S);
                watched.submit_live(random(2) == 0, command).unwrap()
            })
            .collect();
        let mut cancels: Vec<(u64, JobId)> = ids.iter().map(|id| (random(12), *id)).collect();
        cancels.truncate(random(8) as usize);
        cancels.sort();
        for (at, id) in cancels {
            while watched.engine.now() < watched.begin + at as u32 * S {
                let short = (watched.engine.now() - watched.begin).as_secs() + step().unwrap_or(1000);
                watched.poll(Some(at.min(short))).unwrap();
            }
            // What comes at this very moment comes first.
            watched.poll(Some(0)).unwrap();
            watched.engine.cancel(id);
        }
        while !watched.engine.runs.is_empty() {
            let until = step().map(|step| (watched.engine.now() - watched.begin).as_secs() + step);
            watched.poll(until).unwrap();
        }
        assert_eq!((journal.running(), watched.ended.len()), (0, 8));
        (watched.told, journal.to_string())
    }

    #[test]
    fn the_story_is_the_same_however_it_is_watched() {
        for seed in 0..300 {
            let (told, journal) = play_any(seed, || None);
            let mut steps = random(seed + 1);
            assert_eq!(play_any(seed, || Some(steps(3))), (told.clone(), journal), "seed {seed}");
            for number in 0..8 {
                let of: Vec<&String> = told.iter().filter(|line| line.contains(&format!(" {number}: "))).collect();
                let ends = of.iter().filter(|line| is_end(line)).count();
                assert!(ends == 1 && is_end(of[of.len() - 1]), "seed {seed}: {of:?}");
            }
        }
    }

    fn is_end(line: &str) -> bool {
        !["queued", "started at", "stdout", "stderr", "again,", "cancelling"].iter().any(|stage| line.contains(stage))
    }
}
