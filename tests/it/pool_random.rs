//! Random runs of a pool on engines in memory: tasks that wait for each other, fail, hang, are cancelled, run again, lose their engine.
//! Whatever happens, the run ends, each task gets one last word, and nobody breaks the bounds or the order.
//!
//! `PROCESSION_RANDOM_SEED` is the first seed and `PROCESSION_RANDOM_ROUNDS` how many follow. The same seed makes the same pool and the
//! same tasks; who comes first among threads is a matter of time (`PROCESSION_RANDOM_AGAIN` runs each seed so often).

use crate::support::alone;
use procession::pool::scripted::{Event, Fault, Journal};
use procession::pool::{
    After, Done, Engine, FileAccess, Halt, Observer, Outcome, Pending, Policy, Pool, Ready, Retry, Script, Scripted,
    Supply, Task, TaskId, TaskNews,
};
use procession::{Command, Signal};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn each_task_gets_one_last_word_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    alone!({
        std::panic::set_hook(Box::new(|panic| {
            // Those that are asked for say nothing.
            let text = panic.payload_as_str().unwrap_or_default();
            if !text.starts_with("the script says") && !text.starts_with("on purpose") {
                eprintln!("{panic}");
            }
        }));
        let first = number("PROCESSION_RANDOM_SEED").unwrap_or(1);
        let rounds = number("PROCESSION_RANDOM_ROUNDS").unwrap_or(400);
        let again = number("PROCESSION_RANDOM_AGAIN").unwrap_or(1);
        for seed in first..first + rounds {
            for _ in 0..again {
                // SAFETY: an integer argument.
                unsafe { libc::alarm(60) };
                eprintln!("seed {seed}"); // the last one that is shown is the one that failed or hung
                Round::new(seed).run();
            }
        }
    });
}

// ---- chance ----

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn time(&mut self) -> Duration {
        let most = self.of(&[0, 5, 100, 3000]);
        Duration::from_millis(self.below(most + 1) as u64)
    }
}

// ---- what is seen ----

#[derive(Default)]
struct Seen {
    /// By task: what was told, a letter each, and how often it was said to be over.
    stages: HashMap<TaskId, String>,
    running: usize,
    running_max: usize,
    last: Option<Instant>,
}

struct Watch {
    seen: Arc<Mutex<Seen>>,
    panics: usize,
    wants_output: bool,
}

impl Observer for Watch {
    fn see(&mut self, news: &TaskNews<'_>) {
        let mut seen = self.seen.lock().unwrap();
        let (id, letter, at) = match news {
            TaskNews::Submitted { id, at, .. } => (*id, 'q', Some(*at)),
            TaskNews::Starting { id, .. } => (*id, 'i', None),
            TaskNews::Started { id, at, .. } => (*id, 's', Some(*at)),
            TaskNews::Output { id, .. } => (*id, 'o', None),
            TaskNews::Ready { id, at } => (*id, 'y', Some(*at)),
            TaskNews::Retrying { id, at, .. } => (*id, 'r', Some(*at)),
            TaskNews::Finished(done) => (done.id(), 'f', Some(done.ended())),
            _ => return,
        };
        let stages = seen.stages.entry(id).or_default();
        let was_running = stages.rfind(['s', 'r']).is_some_and(|place| stages[place..].starts_with('s'));
        stages.push(letter);
        match letter {
            's' => seen.running += 1,
            'r' | 'f' if was_running => seen.running -= 1,
            _ => {}
        }
        seen.running_max = seen.running_max.max(seen.running);
        if let Some(at) = at {
            assert!(seen.last.is_none_or(|last| last <= at), "time went back: {news:?}");
            seen.last = Some(at);
        }
        drop(seen);
        if self.panics > 0 {
            self.panics -= 1;
            panic!("on purpose: somebody who looks on");
        }
    }

    fn wants_output(&self) -> bool {
        self.wants_output
    }
}

/// The order in which a task may be told of.
fn is_legal(stages: &str) -> bool {
    let mut state = 'n';
    for stage in stages.chars() {
        state = match (state, stage) {
            ('n', 'q') => 'q',
            ('q' | 'i' | 'r', 'i') => 'i',
            ('i', 's') => 's',
            ('s', 'o' | 'y') => 's',
            // It may end before its start was told, because there was no start.
            ('s' | 'i', 'r') => 'r',
            ('q' | 'i' | 's' | 'r', 'f') => 'f',
            _ => return false,
        };
    }
    state == 'f'
}

// ---- a round ----

struct Round {
    seed: u64,
    chance: Chance,
    width: usize,
    journals: Vec<Journal>,
    /// By engine: it has no files.
    without_files: Vec<bool>,
    stock: u64,
    /// By number: what it needs, what it waits for (and whether that must succeed), whether it is a service.
    facts: Vec<Facts>,
    callbacks: Arc<AtomicUsize>,
    called: usize,
    /// Scripts may break the rules of engines.
    is_rough: bool,
    /// Some cannot be cancelled, and go on when the pool has given them up.
    is_stubborn: bool,
}

#[derive(Clone, Default)]
struct Facts {
    id: Option<TaskId>,
    needs: u64,
    after: Vec<(usize, bool)>,
    is_service: bool,
    reads: bool,
}

impl Round {
    fn new(seed: u64) -> Round {
        let mut chance = Chance(seed);
        let width = chance.of(&[1, 1, 2, 3, 5, 16]);
        let stock = 1 + chance.below(4) as u64;
        let is_rough = chance.one_in(3);
        let is_stubborn = chance.one_in(6);
        Round {
            seed,
            chance,
            width,
            journals: Vec::new(),
            without_files: Vec::new(),
            stock,
            facts: Vec::new(),
            callbacks: Arc::default(),
            called: 0,
            is_rough,
            is_stubborn,
        }
    }

    fn run(mut self) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let pool = self.pool(&seen);
        let mut pending: Vec<(usize, Pending)> = Vec::new();
        let mut told: Vec<Done> = Vec::new();
        let batches = 1 + self.chance.below(4);
        let mut closed = false;
        for _ in 0..batches {
            let first = self.facts.len();
            let count = self.chance.of(&[0, 1, 3, 10, 40]);
            let mut tasks: Vec<Task> = (0..count).map(|_| self.task(first)).collect();
            let verb = self.chance.below(if closed { 3 } else { 6 });
            if verb < 3 && self.chance.one_in(3) {
                // In a loop nobody needs to come before those that wait for him.
                tasks.reverse();
            }
            match verb {
                0 => {
                    let some = self.chance.below(count + 1);
                    told.extend(pool.imap(tasks).take(some));
                }
                1 => {
                    let done = pool.map(tasks);
                    // A loop ends early where the run does, with the records of what was taken.
                    let is_closed =
                        |done: &Done| done.result().is_err_and(|error| error.to_string().contains("closed"));
                    let ends_early = pool.halted().is_some() || done.last().is_some_and(is_closed);
                    assert!(done.len() == count || (done.len() < count && ends_early), "seed {}", self.seed);
                    let indexes: Vec<usize> = done.iter().map(Done::index).collect();
                    assert_eq!(indexes, (0..done.len()).collect::<Vec<_>>(), "seed {}", self.seed);
                    told.extend(done);
                }
                2 => told.extend(pool.imap_unordered(tasks)),
                3 => {
                    for (place, task) in tasks.into_iter().enumerate() {
                        let callbacks = Arc::clone(&self.callbacks);
                        let panics = self.chance.one_in(20);
                        let submitted = pool.apply_async_with(task, move |_| {
                            callbacks.fetch_add(1, Ordering::Relaxed);
                            assert!(!panics, "on purpose: a callback");
                        });
                        if let Ok(one) = submitted {
                            self.called += 1;
                            pending.push((first + place, one));
                        }
                    }
                }
                _ => {
                    if let Ok(all) = pool.submit_all(tasks) {
                        pending.extend((first..).zip(all));
                    }
                }
            }
            for (number, one) in &pending {
                self.facts[*number].id = Some(one.id());
            }
            for _ in 0..self.chance.below(4) {
                if let Some((_, one)) = pending.get(self.chance.below(pending.len().max(1))) {
                    match self.chance.below(3) {
                        0 => drop(one.cancel()),
                        1 => drop(one.wait_timeout(Duration::from_micros(self.chance.next() % 300))),
                        _ => drop(one.is_running()),
                    }
                }
            }
            if self.chance.one_in(12) {
                pool.close();
                closed = true;
            }
            if self.chance.one_in(30) {
                pool.terminate();
                closed = true;
            }
        }
        let mut is_dropped = false;
        match self.chance.below(5) {
            0 => is_dropped = true,
            1 => {
                pool.terminate();
                let _ = pool.join();
            }
            2 => {
                pool.close();
                if pool.join_timeout(Duration::from_micros(self.chance.next() % 500)).is_err() {
                    pool.terminate();
                    let _ = pool.join();
                }
            }
            _ => {
                // What hangs for ever without a timeout must be cancelled by somebody.
                pool.close();
                for (_, one) in &pending {
                    if one.wait_timeout(Duration::from_micros(200)).is_none() {
                        one.cancel();
                    }
                }
                let _ = pool.join();
            }
        }
        if !is_dropped {
            assert_eq!((pool.running(), pool.waiting()), (0, 0), "seed {}", self.seed);
        }
        drop(pool);
        let entries: usize = self.journals.iter().map(|journal| journal.entries().len()).sum();
        for (number, one) in &pending {
            let done = one.done().unwrap_or_else(|| panic!("seed {}: task {number} has no last word", self.seed));
            assert_eq!(done.id(), one.id());
        }
        assert_eq!(self.callbacks.load(Ordering::Relaxed), self.called, "seed {}: callbacks", self.seed);
        self.check(&seen.lock().unwrap(), &pending);
        let later: usize = self.journals.iter().map(|journal| journal.entries().len()).sum();
        assert_eq!(entries, later, "seed {}: something went on after the drop", self.seed);
    }

    fn pool(&mut self, seen: &Arc<Mutex<Seen>>) -> Pool {
        let engines = self.chance.of(&[1, 1, 1, 2, 3]);
        let engines: Vec<Box<dyn Engine>> = (0..engines).map(|_| Box::new(self.engine()) as Box<dyn Engine>).collect();
        let mut pool = Pool::with_engines(self.width, engines);
        let policies = [Policy::FirstCome, Policy::Priority, Policy::LongestFirst, Policy::CriticalPath];
        pool = pool.policy(self.chance.of(&policies));
        if self.chance.one_in(3) {
            pool = pool.fair();
        }
        if self.chance.one_in(3) {
            pool = pool.retry(self.retry());
        }
        if self.chance.one_in(4) {
            let halt = match self.chance.below(3) {
                0 => Halt::on_failures(1 + self.chance.below(4)),
                1 => Halt::on_failure_percent(self.chance.below(101) as u8),
                _ => Halt::on_successes(1 + self.chance.below(8)),
            };
            pool = pool.halt(if self.chance.one_in(2) { halt.now() } else { halt });
        }
        let panics = if self.chance.one_in(10) { 3 } else { 0 };
        let wants_output = self.chance.one_in(2);
        let pool = pool.observe(Watch { seen: Arc::clone(seen), panics, wants_output });
        pool.resource("stock", Supply::amount(self.stock)).unwrap()
    }

    fn engine(&mut self) -> Scripted {
        let mut engine = Scripted::new();
        if self.chance.one_in(4) {
            let most = 1 + self.chance.below(4);
            engine = engine.with_capabilities(|able| able.in_flight_max = Some(most));
        }
        if self.chance.one_in(6) {
            engine = engine.with_capabilities(|able| able.live_output = false);
        }
        if self.chance.one_in(6) {
            engine = engine.with_capabilities(|able| able.deadline_granularity = None);
        }
        if self.chance.one_in(10) {
            engine = engine.dies_after(self.chance.time(), "power cut");
        }
        let without_files = self.chance.one_in(4);
        if without_files {
            engine = engine.with_capabilities(|able| able.files = FileAccess::None);
        }
        self.without_files.push(without_files);
        self.journals.push(engine.journal());
        let (seed, is_rough, is_stubborn) = (self.chance.next(), self.is_rough, self.is_stubborn);
        engine.answer(move |job| {
            let number = job.command.get_args().next().and_then(|word| word.to_str()?.parse::<u64>().ok())?;
            let mut chance = Chance(seed ^ number.wrapping_mul(0x517c_c1b7) ^ u64::from(job.attempt));
            let script = script(&mut chance, is_rough);
            Some(if is_stubborn && chance.one_in(20) { script.hangs().ignores_cancel() } else { script })
        })
    }

    fn retry(&mut self) -> Retry {
        let retry = Retry::times(self.chance.below(4) as u32);
        match self.chance.below(5) {
            0 => retry.backoff(self.chance.time()),
            1 => retry.pause_of(self.chance.time()),
            2 => retry.on_codes([1, 2]),
            3 if self.is_rough => retry.when(|_| panic!("on purpose: a condition")),
            _ => retry,
        }
    }

    /// One more. It may wait for any of the same batch with a smaller number, and for what was submitted before.
    fn task(&mut self, first: usize) -> Task {
        let number = self.facts.len();
        let mut facts = Facts::default();
        let mut command = Command::new("job").arg(number.to_string());
        // Some hang, and not all of those are cancelled.
        command = command.timeout(if self.chance.one_in(4) { self.chance.time() } else { Duration::from_secs(20) });
        let name = |number: usize| format!("{number}");
        let mut task = Task::new(command).name(name(number)).priority(self.chance.below(5) as i32);
        if self.chance.one_in(3) {
            for _ in 0..=self.chance.below(3) {
                let earlier = first + self.chance.below(number - first + 1);
                // One of an earlier batch is known only if that was taken.
                if earlier < number {
                    let succeeds = self.chance.one_in(2);
                    let earlier_name: After = name(earlier).into();
                    task = if succeeds { task.after(earlier_name) } else { task.after_end(earlier_name) };
                    facts.after.push((earlier, succeeds));
                }
            }
        }
        if self.chance.one_in(4) {
            facts.needs = self.chance.next() % (self.stock + 1);
            task = task.needs("stock", facts.needs);
        }
        if self.chance.one_in(4) {
            task = task.retry(self.retry());
        }
        if self.chance.one_in(8) && self.without_files.contains(&false) {
            facts.reads = true;
            task = task.reads("/etc/passwd");
        }
        if self.chance.one_in(2) {
            task = task.idempotent();
        }
        if self.chance.one_in(3) {
            task = task.estimate(self.chance.time()).group(self.chance.of(&["a", "b"]));
        }
        // Services need a place beside those that wait for them.
        if self.width > 3 && self.chance.one_in(20) {
            facts.is_service = true;
            let ready = if self.chance.one_in(2) { Ready::started() } else { Ready::line("ready") };
            task = task.service(ready.within(self.chance.time()));
        }
        self.facts.push(facts);
        task
    }

    /// What holds of every run.
    fn check(&self, seen: &Seen, pending: &[(usize, Pending)]) {
        let seed = self.seed;
        for (id, stages) in &seen.stages {
            assert!(is_legal(stages), "seed {seed}: {id:?} was told as {stages}");
        }
        assert!(seen.running_max <= self.width, "seed {seed}: {} ran, not {}", seen.running_max, self.width);
        let dones: HashMap<usize, &Done> = pending.iter().filter_map(|(n, one)| Some((*n, one.done()?))).collect();
        for (number, done) in &dones {
            if !matches!(done.outcome(), Outcome::Cancelled { .. }) {
                assert!(done.started().is_none_or(|started| started >= done.submitted() && done.ended() >= started));
            }
            let Some(started) = done.started() else { continue };
            for (earlier, succeeds) in &self.facts[*number].after {
                // One that must succeed need only be ready, if it is a service.
                let is_ready_enough = self.facts[*earlier].is_service && *succeeds;
                let Some(before) = dones.get(earlier).filter(|_| !is_ready_enough) else { continue };
                assert!(before.ended() <= started, "seed {seed}: {number} did not wait for {earlier}");
                assert!(!succeeds || before.success(), "seed {seed}: {number} was started although {earlier} failed");
            }
        }
        // Each engine has a virtual time of its own, and the pool's is the one that has come farthest: with several a job may be given
        // up by the time of another.
        for (journal, _) in self.journals.iter().zip(&self.without_files).filter(|(_, without)| **without) {
            for entry in journal.entries() {
                let number = entry.command.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()).unwrap();
                assert!(!self.facts[number].reads, "seed {seed}: {entry} where there are no files");
            }
        }
        if let ([journal], false) = (&*self.journals, self.is_stubborn) {
            self.check_journal(journal);
        }
    }

    /// Each attempt runs once; the attempts of a task one after the other; no more resources than there are, on each engine.
    fn check_journal(&self, journal: &Journal) {
        let mut used = 0;
        let mut running: HashMap<String, u64> = HashMap::new();
        let mut last = Duration::ZERO;
        for entry in journal.entries() {
            assert!(last <= entry.at, "seed {}: time went back\n{journal}", self.seed);
            last = entry.at;
            let number = entry.command.rsplit(' ').next().unwrap_or_default().to_owned();
            let needs = number.parse::<usize>().ok().and_then(|number| self.facts.get(number)).map_or(0, |f| f.needs);
            match entry.event {
                Event::Submitted => {
                    assert!(
                        running.insert(number, needs).is_none(),
                        "seed {}: job {} twice\n{journal}",
                        self.seed,
                        entry.command
                    );
                    used += needs;
                }
                Event::Ended(_) | Event::Lost | Event::Stopped => used -= running.remove(&number).unwrap_or_default(),
                _ => {}
            }
            assert!(
                used <= self.stock,
                "seed {}: {used} of {} with {running:?} at {entry}\n{journal}",
                self.seed,
                self.stock
            );
            assert!(running.len() <= self.width, "seed {}: too many\n{journal}", self.seed);
        }
        assert!(running.is_empty(), "seed {}: left running {running:?}\n{journal}", self.seed);
    }
}

fn script(chance: &mut Chance, is_rough: bool) -> Script {
    let mut script = Script::new();
    if chance.one_in(3) {
        script = script.stdout("some\n");
    }
    script = script.takes(chance.time());
    if chance.one_in(4) {
        script = script.stdout("ready\n").takes(chance.time());
    }
    if chance.one_in(8) {
        script = script.resists(chance.time());
    }
    if chance.one_in(12) {
        script = script.queued(chance.time());
    }
    if chance.one_in(20) {
        script = script.death_unseen();
    }
    if chance.one_in(20) {
        script = script.silent();
    }
    if chance.one_in(25) {
        script = script.refused_at_first(1 + chance.below(3) as u32);
    }
    if is_rough && chance.one_in(12) {
        script = script.fault(chance.of(Fault::ALL));
    }
    match chance.below(if is_rough { 15 } else { 14 }) {
        0 | 1 => script.exits(1 + chance.below(3) as u8),
        2 => script.killed_by(Signal::KILL),
        3 => script.refused("not here"),
        4 => script.not_found(),
        5 if chance.one_in(3) => script.hangs(),
        14 if chance.one_in(6) => script.ends_engine("smoke"),
        _ => script,
    }
}
