//! How fast is a large output captured, at which price? One gibibyte of `head -c 1G /dev/zero`.

use procession_benches::{Options, Table, apart, median, number, order};

type Work = fn(()) -> Vec<u8>;

const CONTESTANTS: [(&str, Work); 4] = [
    ("procession", |()| command().output().unwrap().check().unwrap().into_stdout()),
    ("std", |()| {
        let mut command = std::process::Command::new("head");
        command.args(["-c", "1G", "/dev/zero"]).stderr(std::process::Stdio::inherit()).output().unwrap().stdout
    }),
    ("subprocess", |()| {
        let command = subprocess::Exec::cmd("head").args(["-c", "1G", "/dev/zero"]);
        command.stdout(subprocess::Redirection::Pipe).capture().unwrap().stdout
    }),
    ("duct", |()| duct::cmd!("head", "-c", "1G", "/dev/zero").stdout_capture().run().unwrap().stdout),
];

fn command() -> procession::Command {
    // The default limit is what is captured here, to the byte.
    procession::Command::new("head").args(["-c", "1G", "/dev/zero"]).stderr(procession::Stdio::inherit())
}

fn main() {
    let options = Options::parse(3);
    if let Some(name) = apart::asked() {
        let (_, work) = CONTESTANTS.iter().find(|(other, _)| *other == name).unwrap();
        return apart::tell(1, || (), work, |output| assert_eq!(output.len(), 1 << 30));
    }
    let mut table =
        Table::new(&format!("1 GiB captured, {} rounds", options.rounds), &["", "s", "MiB/s", "own CPU s", "peak MiB"]);
    let wanted = CONTESTANTS.iter().filter(|(name, _)| options.wants(name));
    let mut rows: Vec<(&str, Vec<apart::Sample>)> = wanted.map(|(name, _)| (*name, Vec::new())).collect();
    for round in 0..options.rounds {
        for place in order(round, rows.len()) {
            let (name, samples) = &mut rows[place];
            samples.push(apart::measure(name));
        }
    }
    for (name, samples) in &rows {
        let of = |what: fn(&apart::Sample) -> f64| median(&samples.iter().map(what).collect::<Vec<_>>());
        let seconds = of(|sample| sample.wall) / 1e6;
        let (cpu, peak) = (of(|sample| sample.cpu) / 1e6, of(|sample| sample.peak) / 1024.0);
        table.row(&[(*name).to_owned(), number(seconds), number(1024.0 / seconds), number(cpu), number(peak)]);
    }
    table.print();
}
