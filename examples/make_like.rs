//! A tiny make. A file of rules becomes tasks that wait for each other; the pool decides what can be built at the same time, what is
//! skipped, and what is not built because of a failure.
//!
//! ```text
//! # target: what it is made of
//! words: text.txt
//!         tr -cs a-z '\n' <text.txt >words
//! .PHONY: all
//! all: words
//! ```
//!
//! Shares its number of jobs with make, in both directions: it takes tokens from a make that has started it, and gives tokens to the
//! makes that it starts. Without any rules it shows itself on a small example.

use lexopt::{Arg, Parser, ValueExt};
use procession::pool::{
    Halt, Jobserver, JobserverStyle, Observer, Pending, Policy, Pool, Print, Script, Scripted, Task, TaskNews,
};
use procession::{Command, Done};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

const USAGE: &str = "\
Usage: make_like [-C DIRECTORY] [-f FILE] [-j N] [-k] [-n] [TARGET..]

Builds the targets, or the first one of the file, and before them whatever they are made of that is older than its own sources.

  -C DIRECTORY  where everything is; `.` unless it is said
  -f FILE       the rules; `Rules` unless it is said
  -j N          so many at a time; as many as there are processors unless it is said, or as make allows that has started this
  -k            builds whatever does not depend on what has failed
  -n            says what would be run

A rule is `target: sources` and the lines behind it that begin with a blank. These are one script for the shell, which ends with
the first command that fails. The sources of the target `.PHONY` are no files.
";

fn main() -> ExitCode {
    ExitCode::from(make_like(std::env::args_os()))
}

/// The whole program: its exit status, 2 if something is wrong.
pub(crate) fn make_like(args: impl IntoIterator<Item = OsString>) -> u8 {
    let status = Options::parse(Parser::from_iter(args)).and_then(|options| match options {
        Some(options) if options.is_bare && !options.rules_path().exists() => example(),
        Some(options) => build(options),
        None => Ok(true),
    });
    match status {
        Ok(true) => 0,
        Ok(false) => 2,
        Err(error) => {
            eprintln!("make_like: {error}");
            2
        }
    }
}

type Trouble = Box<dyn std::error::Error>;

/// What is wished.
struct Options {
    directory: PathBuf,
    file: PathBuf,
    /// As many as make allows, or as there are processors.
    jobs: Option<usize>,
    keep_going: bool,
    dry_run: bool,
    targets: Vec<String>,
    /// Nothing was said.
    is_bare: bool,
}

impl Options {
    /// None if there is nothing to do but to show the usage, which was done.
    fn parse(mut parser: Parser) -> Result<Option<Options>, Trouble> {
        let mut options = Options {
            directory: ".".into(),
            file: "Rules".into(),
            jobs: None,
            keep_going: false,
            dry_run: false,
            targets: Vec::new(),
            is_bare: true,
        };
        while let Some(arg) = parser.next()? {
            options.is_bare = false;
            match arg {
                Arg::Short('C') => options.directory = parser.value()?.into(),
                Arg::Short('f') => options.file = parser.value()?.into(),
                Arg::Short('j') => options.jobs = Some(parser.value()?.parse()?),
                Arg::Short('k') => options.keep_going = true,
                Arg::Short('n') => options.dry_run = true,
                Arg::Short('h') | Arg::Long("help") => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                Arg::Value(target) => options.targets.push(target.string()?),
                arg => return Err(arg.unexpected().into()),
            }
        }
        Ok(Some(options))
    }

    fn rules_path(&self) -> PathBuf {
        self.directory.join(&self.file)
    }

    fn pool(&self) -> Result<Pool, Trouble> {
        if self.dry_run {
            // Everything succeeds there, and nothing is run.
            return Ok(Pool::with_engine(1, Scripted::new().otherwise(Script::new())));
        }
        let outer = match self.jobs {
            None => Jobserver::from_env().unwrap_or_else(|error| {
                eprintln!("make_like: one at a time, because make does not share its jobs: {error}");
                None
            }),
            Some(_) => None,
        };
        let width = match (self.jobs, &outer) {
            (Some(jobs), _) => jobs,
            // What bounds it are the tokens.
            (None, Some(_)) => 1000,
            // A make without -j has no jobserver, and means one at a time.
            (None, None) => usize::from(std::env::var_os("MAKELEVEL").is_some()),
        };
        let pool = Pool::new(width);
        let jobserver = match outer {
            Some(jobserver) => jobserver,
            // Make learnt the other style only with version 4.4.
            None => Jobserver::server(pool.width(), JobserverStyle::Pipe)?,
        };
        Ok(pool.jobserver(jobserver))
    }
}

/// How a target is made.
#[derive(Default)]
struct Rule {
    sources: Vec<String>,
    script: String,
}

/// All rules, and where their files are.
#[derive(Default)]
struct Rules {
    directory: PathBuf,
    rules: HashMap<String, Rule>,
    first: Option<String>,
    phony: HashSet<String>,
}

impl Rules {
    fn read(directory: &Path, path: &Path) -> Result<Rules, Trouble> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut rules = Rules { directory: directory.to_owned(), ..Rules::default() };
        let mut target = None;
        for (index, line) in text.lines().enumerate() {
            let trouble = |what| format!("{}:{}: {what}", path.display(), index + 1);
            if line.starts_with([' ', '\t']) && !line.trim().is_empty() {
                let rule = target.as_ref().and_then(|target| rules.rules.get_mut(target));
                let script = &mut rule.ok_or_else(|| trouble("a command without a target"))?.script;
                script.push_str(line.trim());
                script.push('\n');
                continue;
            }
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (name, sources) =
                line.split_once(':').ok_or_else(|| trouble("neither `target: sources` nor a command"))?;
            let (name, sources) = (name.trim().to_owned(), sources.split_whitespace().map(String::from));
            if name == ".PHONY" {
                rules.phony.extend(sources);
                target = None;
                continue;
            }
            if rules.rules.contains_key(&name) {
                return Err(trouble("a second rule for the same target").into());
            }
            rules.first.get_or_insert_with(|| name.clone());
            rules.rules.insert(name.clone(), Rule { sources: sources.collect(), script: String::new() });
            target = Some(name);
        }
        Ok(rules)
    }

    /// What must be looked at for these targets, in the order in which it is found.
    fn needed<'a>(&'a self, targets: &'a [String]) -> Result<Vec<&'a str>, Trouble> {
        let mut open: Vec<(&str, &str)> = targets.iter().rev().map(|target| (target.as_str(), "")).collect();
        let (mut seen, mut needed) = (HashSet::new(), Vec::new());
        while let Some((name, whose)) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            match self.rules.get(name) {
                Some(rule) => {
                    needed.push(name);
                    open.extend(rule.sources.iter().rev().map(|source| (source.as_str(), name)));
                }
                None if self.changed(name).is_some() => {}
                None if whose.is_empty() => return Err(format!("there is no rule for {name}").into()),
                None => return Err(format!("there is no rule for {name}, of which {whose} is made").into()),
            }
        }
        Ok(needed)
    }

    fn task(&self, name: &str) -> Task {
        let rule = &self.rules[name];
        let command = match rule.script.as_str() {
            "" => Command::new("true"),
            script => Command::new("/bin/sh").args(["-ec", script]),
        };
        let task = Task::new(command.current_dir(&self.directory)).name(name);
        let made = rule.sources.iter().filter(|source| self.rules.contains_key(*source));
        made.fold(task, |task, source| task.after(source.as_str()))
    }

    /// Whether a target is there and younger than its sources. The pool asks only if none of these was made just now.
    fn is_up_to_date(&self, name: &str) -> bool {
        let Some(rule) = self.rules.get(name) else { return true };
        if rule.script.is_empty() {
            return true;
        }
        let Some(changed) = self.changed(name).filter(|_| !self.phony.contains(name)) else { return false };
        rule.sources.iter().all(|source| self.changed(source).is_none_or(|source| source <= changed))
    }

    fn changed(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.directory.join(name)).and_then(|metadata| metadata.modified()).ok()
    }
}

/// Says what is run, when it is started.
struct Echo {
    rules: Arc<Rules>,
}

impl Observer for Echo {
    fn see(&mut self, news: &TaskNews<'_>) {
        if let TaskNews::Started { label, .. } = news
            && let Some(rule) = self.rules.rules.get(*label)
        {
            print!("{}", rule.script);
        }
    }
}

/// Builds. False if something has failed.
fn build(options: Options) -> Result<bool, Trouble> {
    let rules = Arc::new(Rules::read(&options.directory, &options.rules_path())?);
    let targets = match (options.targets.as_slice(), &rules.first) {
        ([], Some(first)) => vec![first.clone()],
        ([], None) => return Err(format!("{}: no rules", options.rules_path().display()).into()),
        (targets, _) => targets.to_vec(),
    };
    let needed = rules.needed(&targets)?;
    let before: HashMap<&str, _> = needed.iter().map(|name| (*name, rules.changed(name))).collect();

    let halt = if options.keep_going { Halt::NEVER } else { Halt::on_failures(1) };
    let known = Arc::clone(&rules);
    let pool = options
        .pool()?
        .policy(Policy::CriticalPath)
        .halt(halt)
        // A task's name is all that it tells of itself.
        .skip_if(move |task| known.is_up_to_date(&task.to_string()))
        .observe(Echo { rules: Arc::clone(&rules) })
        .observe(Print::grouped());
    let done: Vec<Done> =
        pool.submit_all(needed.iter().map(|name| rules.task(name)))?.into_iter().map(Pending::into_done).collect();

    if done.iter().all(|done| done.is_skipped()) {
        println!("make_like: nothing is to be done for {}", targets.join(" "));
    }
    for (name, done) in needed.iter().zip(&done).filter(|(_, done)| !done.success()) {
        match done.result() {
            Ok(_) => eprintln!("make_like: *** {name}: {}", done.outcome()),
            // Because of another one, which is told by itself.
            Err(_) if done.attempts() == 0 => eprintln!("make_like: {name} was not made"),
            Err(error) => eprintln!("make_like: *** {name}: {error}"),
        }
        // Half a file would be younger than its sources the next time.
        let path = rules.directory.join(name);
        let is_half = !rules.phony.contains(*name) && rules.changed(name) != before[name];
        if is_half && !options.dry_run && fs::remove_file(&path).is_ok() {
            eprintln!("make_like: {} was removed", path.display());
        }
    }
    Ok(done.iter().all(Done::success))
}

/// What a beginner would try first.
fn example() -> Result<bool, Trouble> {
    const RULES: &str = "\
        report: common longest\n\tcat common longest >report\n\tcat report\n\
        common: words\n\tsort words | uniq -c | sort -rn | head -3 >common\n\
        longest: words\n\tawk '{ print length, $0 }' words | sort -rn | head -1 >longest\n\
        words: text\n\ttr -cs a-z '\\n' <text >words\n";
    let directory = std::env::temp_dir().join(format!("make_like-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let run = || {
        fs::write(directory.join("Rules"), RULES)?;
        fs::write(directory.join("text"), "the quick brown fox jumps over the lazy dog and the other dog\n")?;
        let mut is_good = true;
        for words in [&["-n"][..], &[], &[]] {
            println!("$ make_like {}", words.join(" "));
            let args = ["make_like".into(), "-C".into(), directory.clone().into_os_string()];
            let args = args.into_iter().chain(words.iter().map(OsString::from));
            let options = Options::parse(Parser::from_iter(args))?;
            is_good &= options.map_or(Ok(true), build)?;
        }
        Ok(is_good)
    };
    let result = run();
    fs::remove_dir_all(&directory)?;
    result
}
