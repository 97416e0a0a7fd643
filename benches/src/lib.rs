//! What the benchmarks share: options, interleaved rounds, tables, and a program that does nothing.
//!
//! All contestants of a question run in one process run, one after the other in each round, and each round has an order of its
//! own: whatever the machine does meanwhile, it does to all of them, and no contestant always comes after the same other one,
//! which matters because the scheduler remembers. The middle of all rounds is what counts.

pub mod apart;
pub mod bare;
pub mod source;
pub mod tiny;

use std::time::{Duration, Instant};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many rounds; the middle one counts.
    pub rounds: usize,
    /// Fewer and shorter rounds: to see that it works.
    pub quick: bool,
    /// Everything on one processor.
    pub one_cpu: bool,
    /// Run only contestants and cases whose name contains this.
    pub only: Option<String>,
}

impl Options {
    /// Reads `--rounds N`, `--quick`, `--one-cpu` and `--only TEXT`.
    ///
    /// # Panics
    /// If there is anything else.
    pub fn parse(rounds: usize) -> Options {
        let mut options = Options { rounds, quick: false, one_cpu: false, only: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--rounds" => {
                    let number = words.next().and_then(|word| word.parse().ok());
                    options.rounds = number.expect("--rounds takes a number");
                }
                "--quick" => {
                    options.quick = true;
                    options.rounds = options.rounds.min(3);
                }
                "--one-cpu" => options.one_cpu = true,
                "--only" => options.only = words.next(),
                // cargo bench passes this to every program.
                "--bench" => {}
                other => panic!("{other}: only --rounds N, --quick, --one-cpu and --only TEXT are known"),
            }
        }
        if options.one_cpu {
            pin();
        }
        options
    }

    /// Whether a contestant or case is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }

    /// One number for real runs, another for quick ones.
    pub fn pick(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }
}

/// Pins this process, and what it starts, to the first processor that it may use.
pub fn pin() {
    // SAFETY: a set of processors is plain integers; both calls get a valid set and its size.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&allowed), &mut allowed), 0);
        let first = (0..libc::CPU_SETSIZE as usize).find(|&number| libc::CPU_ISSET(number, &allowed)).unwrap();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(first, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &one), 0);
    }
}

/// What this process, with all its threads and without its children, has used of the processors.
pub fn own_cpu() -> Duration {
    // SAFETY: a usage is plain integers, and the pointer is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The middle one.
///
/// # Panics
/// If there is none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// One way to do it.
pub struct Contestant<'a> {
    pub name: &'static str,
    run: Box<dyn FnMut() + 'a>,
}

/// A contestant that does the work once per call.
pub fn contestant<'a>(name: &'static str, run: impl FnMut() + 'a) -> Contestant<'a> {
    Contestant { name, run: Box::new(run) }
}

/// What was measured of one contestant, a number for each round.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: &'static str,
    /// The middle call of the round, µs.
    pub wall: Vec<f64>,
    /// Own processor time per call, µs.
    pub cpu: Vec<f64>,
}

/// The places of `count` contestants in the order of one round: shuffled, and the same in every run.
pub fn order(round: usize, count: usize) -> Vec<usize> {
    let mut state = (round as u32 + 1).wrapping_mul(0x9e37_79b9);
    let mut places: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        places.swap(last, state as usize % (last + 1));
    }
    places
}

/// Runs all contestants in every round, `calls` times in a row after some calls that do not count.
pub fn measure(options: &Options, calls: usize, mut contestants: Vec<Contestant<'_>>) -> Vec<Measured> {
    contestants.retain(|contestant| options.wants(contestant.name));
    let mut measured: Vec<Measured> = contestants
        .iter()
        .map(|contestant| Measured { name: contestant.name, wall: Vec::new(), cpu: Vec::new() })
        .collect();
    for round in 0..options.rounds {
        for place in order(round, contestants.len()) {
            let (wall, cpu) = one_round(&mut contestants[place], calls);
            measured[place].wall.push(wall);
            measured[place].cpu.push(cpu);
        }
    }
    measured
}

fn one_round(contestant: &mut Contestant<'_>, calls: usize) -> (f64, f64) {
    for _ in 0..calls / 10 {
        (contestant.run)();
    }
    let mut walls = Vec::with_capacity(calls);
    let before = own_cpu();
    for _ in 0..calls {
        let start = Instant::now();
        (contestant.run)();
        walls.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let cpu = (own_cpu() - before).as_secs_f64() * 1e6 / calls as f64;
    (median(&walls), cpu)
}

/// Prints a table of what was measured, with ratios to the contestant `std`.
pub fn report(title: &str, measured: &[Measured]) {
    let find = |name| measured.iter().find(|row| row.name == name).map(|row| median(&row.wall));
    let reference = find("std");
    let mut table = Table::new(title, &["", "wall µs", "ratio", "best µs", "own CPU µs"]);
    for row in measured {
        let wall = median(&row.wall);
        let best = row.wall.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio = reference.map_or("-".to_owned(), |reference| format!("{:.2}", wall / reference));
        table.row(&[row.name.to_owned(), number(wall), ratio, number(best), number(median(&row.cpu))]);
    }
    table.print();
}

/// As [`report`], for work that is counted in `unit`s, millions of them: how many times as fast as each of the `references` it is.
pub fn report_rate(title: &str, measured: &[Measured], millions: f64, unit: &str, references: &[&str]) {
    let rate = format!("{unit}/s");
    let times = references.iter().map(|reference| format!("x {reference}"));
    let head: Vec<String> =
        ["", "wall ms", &rate, "best ms", "own CPU ms"].map(str::to_owned).into_iter().chain(times).collect();
    let mut table = Table::new(title, &head.iter().map(String::as_str).collect::<Vec<_>>());
    let find = |name: &str| measured.iter().find(|row| row.name == name).map(|row| median(&row.wall));
    for row in measured {
        let wall = median(&row.wall);
        let best = row.wall.iter().copied().fold(f64::INFINITY, f64::min);
        let mut cells = vec![row.name.to_owned()];
        cells.extend([wall / 1e3, millions / (wall / 1e6), best / 1e3, median(&row.cpu) / 1e3].map(number));
        cells.extend(references.iter().map(|reference| match find(reference) {
            Some(reference) => format!("{:.2}", reference / wall),
            None => "-".to_owned(),
        }));
        table.row(&cells);
    }
    table.print();
}

/// As many digits as mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A table in Markdown.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, head: &[&str]) -> Table {
        Table { title: title.to_owned(), rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    pub fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.to_vec());
    }

    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        println!("\n{}\n", self.title);
        for (place, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if place == 0 {
                let lines = widths.iter().enumerate().map(|(column, &width)| match column {
                    0 => "-".repeat(width.max(1)),
                    _ => format!("{}:", "-".repeat(width.max(2) - 1)),
                });
                println!("| {} |", lines.collect::<Vec<_>>().join(" | "));
            }
        }
    }
}
