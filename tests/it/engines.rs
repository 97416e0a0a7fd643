//! What every engine of a pool must do, wherever it runs its jobs: one suite over all of them, driven by hand as a pool would. To put
//! another engine to the test, add it to `ENGINES`.

use crate::outside::Threads;
use crate::support::{alone, is_running};
use procession::pool::scripted::{Event, Fault};
use procession::pool::{
    Capabilities, Engine, Finish, Job, JobId, JobNews, Local, Outcome, Refusal, Script, Scripted, SignalFidelity,
};
use procession::{Command, Deadline, Error, ErrorKind, Overflow, Signal, Stream};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// The engines.
const ENGINES: &[(&str, Maker)] = &[
    ("scripted", || Made::scripted(|_| {}, |script| script)),
    ("scripted, silent", || Made::scripted(|_| {}, Script::silent)),
    ("scripted, with a queue", || Made::scripted(|_| {}, |script| script.queued(Duration::from_millis(50)))),
    ("scripted, narrow", || Made::scripted(|able| able.in_flight_max = Some(2), |script| script)),
    ("scripted, coarse", || Made::scripted(coarse, |script| script)),
    ("scripted, far away", || Made::scripted(far_away, |script| script)),
    ("threads", || Made::local(Threads::new())),
    ("local", || Made::local(Local::new().unwrap())),
];

type Maker = fn() -> Made;

/// The longest that anything may take, on the engine's clock.
const BOUND: Duration = Duration::from_secs(30);

fn coarse(able: &mut Capabilities) {
    able.deadline_granularity = Some(Duration::from_secs(2));
    able.signals = SignalFidelity::Unknown;
}

fn far_away(able: &mut Capabilities) {
    able.local_process = false;
    able.live_output = false;
    able.signals = SignalFidelity::Inferred;
    able.confirms_death = false;
    able.deadline_granularity = None;
    able.in_flight_max = Some(5);
}

/// An engine, and how to see whether what it runs is still there: by the number of a process, which the job has said.
struct Made {
    engine: Box<dyn Engine>,
    lives: Box<dyn Fn(JobId, Option<u32>) -> bool>,
}

impl Made {
    /// One that starts processes on this machine.
    fn local(engine: impl Engine + 'static) -> Made {
        Made { engine: Box::new(engine), lives: Box::new(|_, pid| pid.is_some_and(is_running)) }
    }

    /// One that plays the commands of this file.
    fn scripted(able: fn(&mut Capabilities), change: fn(Script) -> Script) -> Made {
        let parts = repertoire();
        let engine = Scripted::new().with_capabilities(able).answer(move |job| {
            let line = job.command.to_string();
            parts.iter().find(|(command, _)| command.to_string() == line).map(|(_, script)| change(script.clone()))
        });
        let journal = engine.journal();
        let lives = move |id, _pid| {
            let last = journal.entries().into_iter().rev().find(|entry| entry.job == id);
            let there = [Event::Started, Event::StartedAgain, Event::CancelAsked];
            last.is_some_and(|entry| there.contains(&entry.event))
        };
        Made { engine: Box::new(engine), lives: Box::new(lives) }
    }
}

/// Runs the body with each engine.
fn with_each(body: impl Fn(&mut Driver)) {
    for (name, make) in ENGINES {
        eprintln!("engine: {name}");
        body(&mut Driver::new(make()));
    }
}

// ---- the commands, and how they are played

/// A command that runs to its end, and what must come of it.
struct Case {
    what: &'static str,
    command: Command,
    script: Script,
    outcome: Outcome,
    success: bool,
    stdout: Vec<u8>,
    stderr: &'static [u8],
    error: Option<ErrorKind>,
    /// What is shown as it comes is not limited in the same way.
    collected_only: bool,
}

fn case(what: &'static str, command: Command, script: Script, outcome: Outcome) -> Case {
    let (stdout, stderr, success) = (Vec::new(), &b""[..], outcome == Outcome::Exited(0));
    Case { what, command, script, outcome, success, stdout, stderr, error: None, collected_only: false }
}

fn cases() -> Vec<Case> {
    let script = Script::new;
    let exited = Outcome::Exited;
    let shell = Command::shell;
    let words = ["%s\n", "a b", "$HOME", "*", "", "\"'\\", "-n"];
    let many: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    let echoed: String = (1..=20_000).map(|number| format!("line {number}\n")).collect();
    vec![
        case("nothing", Command::new("true"), script(), exited(0)),
        case("exit code", shell("exit 3"), script().exits(3), exited(3)),
        case("the highest exit code", shell("exit 255"), script().exits(255), exited(255)),
        Case {
            success: true,
            ..case("accepted exit code", shell("exit 4").accept([4, 5]), script().exits(4), exited(4))
        },
        Case {
            stdout: b"last words\n".to_vec(),
            ..case(
                "signal",
                shell("echo last words; kill -TERM $$"),
                script().stdout("last words\n").killed_by(Signal::TERM),
                Outcome::Signalled { signal: Signal::TERM, exact: true },
            )
        },
        Case {
            stdout: words[1..].join("\n").into_bytes().into_iter().chain(*b"\n").collect(),
            ..case(
                "arguments are no shell's business",
                Command::new("printf").args(words),
                script().stdout(words[1..].join("\n")).stdout("\n"),
                exited(0),
            )
        },
        Case {
            error: Some(ErrorKind::NotFound),
            ..case(
                "missing program",
                Command::new("no-such-program-of-procession").arg("x"),
                script().not_found(),
                Outcome::NotStarted,
            )
        },
        Case {
            stdout: echoed.clone().into_bytes(),
            ..case("standard input", Command::new("cat").input(echoed), script().echoes_input(), exited(0))
        },
        Case {
            stdout: b"1\n3\n".to_vec(),
            stderr: b"2\n4\n",
            ..case(
                "both streams",
                shell("echo 1; echo 2 >&2; echo 3; echo 4 >&2"),
                script().stdout("1\n").stderr("2\n").stdout("3\n").stderr("4\n"),
                exited(0),
            )
        },
        Case {
            stdout: vec![0, 255, b'\r', 10, 200],
            ..case("bytes", shell(r"printf '\000\377\r\n\310'"), script().stdout([0, 255, 13, 10, 200]), exited(0))
        },
        Case {
            stdout: many.clone().into_bytes(),
            ..case("much output", Command::new("seq").arg("50000"), script().stdout(&many), exited(0))
        },
        Case {
            stdout: b"1\n2\n3\n4\n5\n".to_vec(),
            collected_only: true,
            ..case(
                "too much output",
                Command::new("seq").arg("50001").capture_limit(10, Overflow::Fail),
                script().stdout(&many),
                Outcome::Overflowed,
            )
        },
        Case {
            stdout: b"partial\n".to_vec(),
            ..case(
                "timeout",
                shell("echo partial; exec sleep 1000").timeout(Duration::from_secs(1)),
                script().stdout("partial\n").hangs(),
                Outcome::TimedOut,
            )
        },
    ]
}

/// Says its number and goes on until it is stopped.
fn endless() -> Command {
    Command::shell("echo $$; exec sleep 1000")
}

/// The same, and does not want to be stopped.
fn stubborn() -> Command {
    Command::shell("trap '' INT TERM HUP; echo $$; while :; do sleep 1; done")
}

/// Says the number of a child of its own that does not want to be stopped.
fn with_family() -> Command {
    Command::shell("trap '' INT TERM; sleep 1000 & echo $!; wait; wait")
}

fn exits(code: usize) -> Command {
    Command::shell(format!("exit {code}"))
}

/// Every command of this file with the script that plays it.
fn repertoire() -> Vec<(Command, Script)> {
    let hangs = || Script::new().stdout("1\n").hangs();
    let mut all: Vec<_> = cases().into_iter().map(|case| (case.command, case.script)).collect();
    all.extend((0..7).map(|code| (exits(code), Script::new().takes(Duration::from_millis(20)).exits(code as u8))));
    all.push((endless(), hangs()));
    all.push((stubborn(), hangs().resists(Duration::from_secs(1))));
    all.push((with_family(), hangs().resists(Duration::from_secs(1))));
    all
}

// ---- who drives them

/// Drives an engine as a pool does, and watches that it keeps the rules.
struct Driver {
    made: Made,
    able: Capabilities,
    stories: BTreeMap<JobId, Story>,
    complaints: Vec<String>,
    latest: Instant,
}

/// What was told of a job.
struct Story {
    job: Job,
    stage: Stage,
    asked_to_cancel: bool,
    cancel_accepted: bool,
    begun: Instant,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    finish: Option<Finish>,
}

/// How far a job has come, as far as was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    New,
    Queued,
    Started,
    Speaking,
    Ended,
}

impl Story {
    fn new(job: Job, begun: Instant) -> Story {
        Story {
            job,
            stage: Stage::New,
            asked_to_cancel: false,
            cancel_accepted: false,
            begun,
            stdout: Vec::new(),
            stderr: Vec::new(),
            finish: None,
        }
    }

    /// Takes the news, or says what is wrong with them.
    fn hear(&mut self, news: JobNews<'_>, able: &Capabilities) -> Result<(), String> {
        let said = format!("{news:?}");
        let check = |fine: bool| if fine { Ok(()) } else { Err(format!("{}: {said}", self.job.command)) };
        check(self.stage != Stage::Ended)?;
        match news {
            JobNews::Queued => {
                check(self.stage == Stage::New)?;
                self.stage = Stage::Queued;
            }
            JobNews::Started { place } => {
                check(self.stage < Stage::Started && !place.is_empty())?;
                self.stage = Stage::Started;
            }
            JobNews::Output { stream, bytes } => {
                check(self.job.live && !bytes.is_empty())?;
                self.stage = Stage::Speaking;
                match stream {
                    Stream::Stdout => self.stdout.extend_from_slice(bytes),
                    Stream::Stderr => self.stderr.extend_from_slice(bytes),
                }
            }
            JobNews::Retrying(_) => {
                check(able.runs_again)?;
                self.stage = Stage::Queued;
                self.stdout.clear();
                self.stderr.clear();
            }
            JobNews::CancelAccepted => {
                check(self.asked_to_cancel && !self.cancel_accepted)?;
                self.cancel_accepted = true;
            }
            JobNews::Finished(finish) => {
                self.stage = Stage::Ended;
                self.finish = Some(finish);
            }
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The number that it has said, if that was shown.
    fn pid(&self) -> Option<u32> {
        String::from_utf8_lossy(&self.stdout).strip_suffix('\n')?.parse().ok()
    }
}

impl Driver {
    fn new(made: Made) -> Driver {
        let (able, latest) = (made.engine.capabilities(), made.engine.now());
        Driver { made, able, stories: BTreeMap::new(), complaints: Vec::new(), latest }
    }

    fn try_submit(&mut self, command: &Command, live: bool) -> Result<JobId, Refusal> {
        let job = Job { live, ..Job::new(command.clone()) };
        let id = job.id;
        self.made.engine.submit(&job)?;
        self.stories.insert(id, Story::new(job, self.made.engine.now()));
        Ok(id)
    }

    #[track_caller]
    fn submit(&mut self, command: &Command, live: bool) -> JobId {
        self.try_submit(command, live).unwrap()
    }

    fn cancel(&mut self, id: JobId) {
        self.stories.get_mut(&id).unwrap().asked_to_cancel = true;
        self.made.engine.cancel(id);
    }

    fn poll(&mut self, until: Deadline) -> Result<(), Error> {
        let (stories, able, complaints) = (&mut self.stories, &self.able, &mut self.complaints);
        let polled = self.made.engine.poll(until, &mut |id, news| {
            let heard = match stories.get_mut(&id) {
                Some(story) => story.hear(news, able),
                None => Err(format!("nobody knows this job: {news:?}")),
            };
            complaints.extend(heard.err());
        });
        let now = self.made.engine.now();
        assert!(now >= self.latest, "time went back");
        self.latest = now;
        polled
    }

    fn in_at_most(&self, time: Duration) -> Deadline {
        Deadline::at(self.made.engine.now() + time)
    }

    /// Polls until this is a fact.
    #[track_caller]
    fn until(&mut self, what: &str, fact: impl Fn(&Driver) -> bool) {
        let end = self.made.engine.now() + BOUND;
        while !fact(self) {
            assert!(self.made.engine.now() < end, "{what} did not come about");
            self.keep_timeouts();
            let wait = self.in_at_most(Duration::from_millis(10)).earlier(Deadline::at(end));
            self.poll(wait).unwrap();
            assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
        }
    }

    /// Those of an engine without a clock.
    fn keep_timeouts(&mut self) {
        if self.able.deadline_granularity.is_some() {
            return;
        }
        let now = self.made.engine.now();
        let late = |story: &Story| {
            let timeout = story.job.command.get_timeout();
            timeout.is_some_and(|timeout| now >= story.begun + timeout) && !story.asked_to_cancel
        };
        let late: Vec<JobId> = self.stories.iter().filter(|(_, story)| late(story)).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.cancel(id));
    }

    #[track_caller]
    fn until_all_have_ended(&mut self) {
        self.until("the end of all", |driver| driver.stories.values().all(Story::has_ended));
        // Nothing comes behind that.
        let soon = self.in_at_most(Duration::from_millis(20));
        self.poll(soon).unwrap();
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }

    fn story(&self, id: JobId) -> &Story {
        &self.stories[&id]
    }

    fn outcome(&self, id: JobId) -> Option<Outcome> {
        self.story(id).finish.as_ref().map(|finish| finish.outcome)
    }

    fn lives(&self, id: JobId) -> bool {
        (self.made.lives)(id, self.story(id).pid())
    }

    /// Until the process was seen to run, and has said what it says.
    #[track_caller]
    fn until_it_runs(&mut self, id: JobId) {
        self.until("a running process", |driver| {
            let has_spoken = !driver.able.live_output || !driver.story(id).stdout.is_empty();
            has_spoken && driver.lives(id)
        });
    }

    /// How many jobs can be there at a time, of those that a test would like to have.
    fn room_for(&self, wanted: usize) -> usize {
        self.able.in_flight_max.map_or(wanted, |max| max.min(wanted))
    }
}

/// Whether this is what an engine that can do no more makes of an outcome.
fn agrees(expected: Outcome, seen: Outcome, able: &Capabilities) -> bool {
    match expected {
        Outcome::Signalled { signal, .. } => match able.signals {
            SignalFidelity::Exact => seen == expected,
            SignalFidelity::Inferred => seen == Outcome::Signalled { signal, exact: false },
            SignalFidelity::Unknown => matches!(seen, Outcome::Exited(code) if code != 0),
        },
        // Then it is cancelled.
        Outcome::TimedOut if able.deadline_granularity.is_none() => is_cancelled(seen, able),
        _ => seen == expected,
    }
}

/// A death is confirmed by whoever can.
fn is_cancelled(outcome: Outcome, able: &Capabilities) -> bool {
    outcome == Outcome::Cancelled { confirmed: able.confirms_death }
}

#[track_caller]
fn check_end(case: &Case, story: &Story, able: &Capabilities) {
    let Case { what, command, .. } = case;
    let what = format!("{what}, {}", if story.job.live { "live" } else { "collected" });
    let finish = story.finish.as_ref().unwrap();
    let output = &finish.output;
    assert!(agrees(case.outcome, finish.outcome, able), "{what}: {:?}", finish.outcome);
    assert_eq!(output.command(), command.to_string(), "{what}");
    assert_eq!(output.success(), case.success, "{what}");
    if let (Outcome::Exited(code), Outcome::Exited(_)) = (case.outcome, finish.outcome) {
        assert_eq!(output.status().code(), Some(code), "{what}");
    }
    let error = finish.error.as_ref().map(Error::kind);
    assert!(case.error.is_none() || error == case.error, "{what}: {error:?}");
    if story.job.live {
        assert_eq!((&story.stdout[..], &story.stderr[..]), (&case.stdout[..], case.stderr), "{what}");
        assert!(case.stdout.ends_with(output.stdout()) && case.stderr.ends_with(output.stderr()), "{what}");
    } else {
        assert_eq!((output.stdout(), output.stderr()), (&case.stdout[..], case.stderr), "{what}");
    }
}

// ---- the suite

#[test]
fn every_command_comes_to_its_end() {
    alone!({
        with_each(|driver| {
            for case in cases() {
                for live in [false, true] {
                    if live && case.collected_only {
                        continue;
                    }
                    let id = driver.submit(&case.command, live);
                    driver.until_all_have_ended();
                    check_end(&case, driver.story(id), &driver.able);
                }
            }
        });
    });
}

#[test]
fn all_at_once_come_to_their_ends_as_well() {
    alone!({
        with_each(|driver| {
            let cases = cases();
            let mut jobs = Vec::new();
            for case in &cases {
                let id = loop {
                    match driver.try_submit(&case.command, !case.collected_only) {
                        Ok(id) => break id,
                        Err(Refusal::Later(_)) => {
                            let ended = driver.stories.values().filter(|story| story.has_ended()).count();
                            driver.until("the end of one", |driver| {
                                driver.stories.values().filter(|story| story.has_ended()).count() > ended
                            });
                        }
                        Err(Refusal::Never(error)) => panic!("{}: {error}", case.what),
                    }
                };
                jobs.push((case, id));
            }
            driver.until_all_have_ended();
            for (case, id) in jobs {
                check_end(case, driver.story(id), &driver.able);
            }
        });
    });
}

#[test]
fn each_job_has_one_end_and_its_own() {
    alone!({
        with_each(|driver| {
            let mut left: Vec<usize> = (0..60).collect();
            while !left.is_empty() {
                let room = driver.room_for(20).min(left.len());
                let jobs: Vec<_> = left.drain(..room).map(|n| (driver.submit(&exits(n % 7), n % 2 == 0), n)).collect();
                driver.until_all_have_ended();
                for (id, number) in jobs {
                    assert_eq!(driver.outcome(id), Some(Outcome::Exited((number % 7) as i32)));
                }
            }
        });
    });
}

#[test]
fn what_is_cancelled_is_gone_when_its_end_is_told() {
    alone!({
        with_each(|driver| {
            for command in [endless(), stubborn(), with_family()] {
                let id = driver.submit(&command, true);
                driver.until_it_runs(id);
                driver.cancel(id);
                driver.cancel(id);
                driver.until_all_have_ended();
                let outcome = driver.outcome(id).unwrap();
                assert!(is_cancelled(outcome, &driver.able), "{command}: {outcome:?}");
                assert!(!driver.able.confirms_death || !driver.lives(id), "{command}");
            }
        });
    });
}

#[test]
fn what_is_cancelled_at_once_never_runs_or_is_stopped() {
    alone!({
        with_each(|driver| {
            let ids: Vec<JobId> = (0..driver.room_for(4)).map(|_| driver.submit(&endless(), false)).collect();
            ids.iter().for_each(|id| driver.cancel(*id));
            driver.until_all_have_ended();
            for id in ids {
                // An engine that sees nobody die may still know that it never lived.
                let outcome = driver.outcome(id).unwrap();
                let never_ran = outcome == Outcome::Cancelled { confirmed: true };
                assert!(never_ran || is_cancelled(outcome, &driver.able), "{outcome:?}");
            }
        });
    });
}

#[test]
fn a_cancel_reaches_nobody_else() {
    alone!({
        with_each(|driver| {
            let (one, other) = (driver.submit(&endless(), true), driver.submit(&endless(), true));
            driver.until_it_runs(one);
            driver.until_it_runs(other);
            driver.cancel(one);
            driver.until("the end of one", |driver| driver.story(one).has_ended());
            assert!(driver.lives(other) && !driver.story(other).has_ended());
            driver.cancel(other);
            driver.until_all_have_ended();
        });
    });
}

#[test]
fn a_cancel_of_what_is_not_there_is_harmless() {
    alone!({
        with_each(|driver| {
            driver.made.engine.cancel(Job::new(endless()).id);
            let ended = driver.submit(&exits(3), false);
            driver.until_all_have_ended();
            driver.made.engine.cancel(ended);
            driver.made.engine.cancel(ended);
            let after = driver.submit(&exits(4), false);
            driver.until_all_have_ended();
            let outcomes = [driver.outcome(ended), driver.outcome(after)];
            assert_eq!(outcomes, [Some(Outcome::Exited(3)), Some(Outcome::Exited(4))]);
        });
    });
}

#[test]
fn no_more_are_taken_than_it_says() {
    alone!({
        with_each(|driver| {
            let Some(max) = driver.able.in_flight_max else { return };
            let ids: Vec<JobId> = (0..max).map(|_| driver.submit(&endless(), true)).collect();
            driver.until_it_runs(ids[0]);
            let refused = driver.try_submit(&exits(3), false);
            assert!(matches!(refused, Err(Refusal::Later(_))), "{refused:?}");
            driver.cancel(ids[0]);
            driver.until("room", |driver| driver.story(ids[0]).has_ended());
            let after = driver.submit(&exits(3), false);
            ids.iter().skip(1).for_each(|id| driver.cancel(*id));
            driver.until_all_have_ended();
            assert_eq!(driver.outcome(after), Some(Outcome::Exited(3)));
        });
    });
}

#[test]
fn a_wait_ends_when_it_should() {
    alone!({
        with_each(|driver| {
            let id = driver.submit(&endless(), true);
            driver.until_it_runs(id);
            // Its moment has come, and was long ago.
            for until in [driver.made.engine.now(), driver.made.engine.now() - Duration::from_millis(1)] {
                driver.poll(Deadline::at(until)).unwrap();
            }
            let until = driver.made.engine.now() + Duration::from_millis(200);
            let mut turns = 0;
            while driver.made.engine.now() < until {
                driver.poll(Deadline::at(until)).unwrap();
                turns += 1;
            }
            assert!(turns < 100, "{turns} turns for one wait");
            assert!(!driver.story(id).has_ended());
            driver.cancel(id);
            driver.until_all_have_ended();
        });
    });
}

#[test]
fn a_wake_ends_the_wait_or_the_next_one() {
    alone!({
        with_each(|driver| {
            let waker = driver.made.engine.waker();
            waker.wake();
            waker.clone().wake();
            driver.poll(Deadline::NEVER).unwrap();
            // With a job that tells nothing more, and from another thread, before the wait begins or in it.
            let id = driver.submit(&endless(), true);
            driver.until_it_runs(id);
            for pause in [0, 0, 1, 20] {
                let waker = waker.clone();
                let other = thread::spawn(move || {
                    thread::sleep(Duration::from_millis(pause));
                    waker.wake();
                });
                driver.poll(Deadline::NEVER).unwrap();
                other.join().unwrap();
            }
            driver.cancel(id);
            driver.until_all_have_ended();
            // It may outlive the engine.
            drop(std::mem::replace(&mut driver.made.engine, Box::new(Scripted::new())));
            waker.wake();
        });
    });
}

#[test]
fn a_dropped_engine_leaves_nothing_behind() {
    alone!({
        for (name, make) in ENGINES {
            eprintln!("engine: {name}");
            let mut driver = Driver::new(make());
            let commands = [endless(), with_family(), stubborn()];
            let room = driver.room_for(commands.len());
            let ids: Vec<JobId> = commands.iter().take(room).map(|command| driver.submit(command, true)).collect();
            ids.iter().for_each(|id| driver.until_it_runs(*id));
            let pids: Vec<_> = ids.iter().map(|id| (*id, driver.story(*id).pid())).collect();
            let Made { engine, lives } = driver.made;
            drop(engine);
            for (id, pid) in pids {
                assert!(!lives(id, pid), "{id} {pid:?}");
            }
        }
    });
}

#[test]
fn what_an_engine_can_do_does_not_change() {
    alone!({
        with_each(|driver| {
            assert!(!driver.able.name.is_empty());
            let id = driver.submit(&exits(0), false);
            assert_eq!(driver.made.engine.capabilities(), driver.able);
            driver.until_all_have_ended();
            assert_eq!(driver.made.engine.capabilities(), driver.able);
            assert_eq!(driver.outcome(id), Some(Outcome::Exited(0)));
        });
    });
}

#[test]
fn an_engine_that_breaks_a_rule_is_found_out() {
    alone!({
        for &fault in Fault::ALL.iter().filter(|fault| !matches!(fault, Fault::PanicsInSubmit | Fault::PanicsInPoll)) {
            let engine = Scripted::new().otherwise(Script::new().stdout("x").fault(fault));
            let mut driver = Driver::new(Made { engine: Box::new(engine), lives: Box::new(|_, _| false) });
            driver.submit(&Command::new("a"), fault != Fault::SpeaksUnasked);
            driver.poll(Deadline::NEVER).unwrap();
            assert_eq!(driver.complaints.len(), 1, "{fault:?}: {:?}", driver.complaints);
        }
    });
}
