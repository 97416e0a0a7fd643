//! The examples of the pool, for what comes out of them. Each is part of this program, and runs as a process of its own by the same name
//! and with the same arguments as its own `main` would get: the one that cargo has built may be of yesterday.

use crate::support::{Scratch, alone, script};
use procession::{Command, Output, Stdio};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

#[allow(dead_code)] // its main
#[path = "../../examples/fanout.rs"]
mod fanout;
#[allow(dead_code)] // its main
#[path = "../../examples/make_like.rs"]
mod make_like;
#[allow(dead_code)] // its main
#[path = "../../examples/nslookup_many.rs"]
mod nslookup_many;

/// The name of the example and its arguments, with a byte in between that stands in none of them.
const VARIABLE: &str = "PROCESSION_TEST_EXAMPLE";
const BETWEEN: u8 = 0x1f;

/// Far more than any of them takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: the examples, when this program is started as one of them.
#[test]
fn play() {
    let Some(line) = std::env::var_os(VARIABLE) else { return };
    let words = line.as_bytes().split(|byte| *byte == BETWEEN);
    let words: Vec<OsString> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
    std::process::exit(match words.first().and_then(|name| name.to_str()) {
        Some("fanout") => fanout::fanout(words).into(),
        Some("make_like") => make_like::make_like(words).into(),
        Some("nslookup_many") => nslookup_many::nslookup_many(words).into(),
        name => panic!("{name:?}"),
    });
}

/// What the test harness says before anything else.
const HEAD: &str = "\nrunning 1 test\n";

fn example<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Command {
    let mut line = OsString::from(name);
    for arg in args {
        line.push(OsStr::from_bytes(&[BETWEEN]));
        line.push(arg);
    }
    // With several threads the harness does not say the name of the test first.
    Command::new(std::env::current_exe().unwrap().as_path())
        .args(["--exact", "examples_pool::play", "--nocapture", "--test-threads=2"])
        .env(VARIABLE, line)
        .env_remove("MAKEFLAGS")
        .timeout(PATIENCE)
}

fn said(output: &Output) -> String {
    let text = output.stdout_text().unwrap();
    text.strip_prefix(HEAD).unwrap_or_else(|| panic!("{text:?}")).to_owned()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

// ---- fanout ----

/// Runs it; its exit code, and both streams.
fn fan<'a>(args: impl IntoIterator<Item = &'a str>) -> (i32, String, String) {
    fan_with(args, "")
}

fn fan_with<'a>(args: impl IntoIterator<Item = &'a str>, input: impl AsRef<[u8]>) -> (i32, String, String) {
    let output = example("fanout", args).input(input.as_ref().to_vec()).output().unwrap();
    (output.returncode(), said(&output), output.stderr_lossy().into_owned())
}

#[test]
fn values_become_arguments_and_nothing_else() {
    alone!({
        let values =
            ["plain", "two words", "it's", "\"quoted\"", "$(touch no)", "line\nline", "a;b|c>d", "*", "", "-n"];
        let args = ["-k", "-j4", "printf", "<%s|%s>\n", "{}", "{#}", ":::"];
        let (code, stdout, stderr) = fan(args.into_iter().chain(values));
        let expected: String =
            values.iter().enumerate().map(|(index, value)| format!("<{value}|{}>\n", index + 1)).collect();
        assert_eq!((code, stdout, stderr), (0, expected, String::new()));

        let (_, stdout, _) = fan(["-k", "echo", "{/.}", "in", "{//}", "{1.}", ":::", "dir/a b.txt", "/x.y/z"]);
        assert_eq!(stdout, "a b in dir dir/a b\nz in /x.y /x.y/z\n");
        let (_, stdout, _) = fan(["-k", "echo", "{2}{1}", ":::", "a", "b", ":::", "1", "2"]);
        assert_eq!(stdout, "1a\n2a\n1b\n2b\n");
        // Without a command they are lines for the shell.
        let (code, stdout, _) = fan(["-k", "-j2", ":::", "echo a | tr a b", "exit 3"]);
        assert_eq!((code, &*stdout), (1, "b\n"));
    });
}

#[test]
fn values_are_lines_of_the_input() {
    alone!({
        let (code, stdout, _) = fan_with(["-k", "printf", "<%s>"], "a b\n\n\\x\n'\nlast");
        assert_eq!((code, &*stdout), (0, "<a b><><\\x><'><last>"));
        let (_, stdout, _) = fan_with(["-k", "-0", "printf", "<%s>"], "a\nb\0c\0\n");
        assert_eq!(stdout, "<a\nb><c><\n>");
        // Bytes that are no text, through a command line and back.
        let output = example("fanout", ["-k", "printf", "%s"]).input(b"\xff\xfe\n\x80".to_vec()).output().unwrap();
        assert_eq!(output.stdout().strip_prefix(HEAD.as_bytes()), Some(&b"\xff\xfe\x80"[..]));
        let (code, _, stderr) = fan_with(["echo"], vec![b'x'; 200_000]);
        assert_eq!((code, &*stderr), (255, "fanout: a value has more than 131072 bytes\n"));
        let (code, stdout, _) = fan_with(["echo"], "");
        assert_eq!((code, &*stdout), (0, ""));
    });
}

#[test]
fn a_value_is_run_when_it_comes() {
    alone!({
        let mut child =
            example("fanout", ["-j4", "echo"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for word in ["one\n", "two\n"] {
            // The first of eight for which there would be room, and nothing follows it.
            input.write_all(word.as_bytes()).unwrap();
            let mut lines = child.lines();
            let found = std::iter::from_fn(|| lines.next()).any(|line| line.unwrap().bytes() == word.trim().as_bytes());
            assert!(found, "{word}");
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn an_endless_input_ends_with_the_halt_and_fills_no_memory() {
    alone!({
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        let input = yes.stdout.take().unwrap();
        // Half a gibibyte of addresses; what is read ahead would be more in no time.
        let args = ["-j2", "--halt", "soon,success=500", "true"];
        let output = example("fanout", args).stdin(Stdio::from(input)).output().unwrap();
        assert_eq!(output.returncode(), 0, "{output}");
        let resident_max = output.usage().unwrap().resident_max;
        assert!(resident_max < 64 << 20, "{resident_max}");
        yes.wait().unwrap();
    });
}

#[test]
fn output_is_shown_as_it_is_wished() {
    alone!({
        // The first one ends only when the last one has.
        let folder = Scratch::new();
        let flag = folder.join("flag");
        let line =
            format!("case $1 in a) until test -e {0}; do :; done;; c) : >{0};; esac; echo $1; echo $1", flag.display());
        let job = ["sh", "-c", &line, "sh", "{}", ":::", "a", "b", "c"];
        let run = |options: &[&'static str]| {
            let _ = fs::remove_file(&flag);
            let args =
                options.iter().map(|option| (*option).to_owned()).chain(job.iter().map(|word| (*word).to_owned()));
            let output = example("fanout", args).output().unwrap();
            assert_eq!(output.returncode(), 0, "{output}");
            said(&output)
        };
        assert_eq!(run(&["-j3", "-k"]), "a\na\nb\nb\nc\nc\n");
        let grouped = run(&["-j3"]);
        assert!(["a\na\n", "b\nb\n", "c\nc\n"].iter().all(|group| grouped.contains(group)), "{grouped}");
        assert_eq!(run(&["-j3", "-k", "--tag"]), "a\ta\na\ta\nb\tb\nb\tb\nc\tc\nc\tc\n");
        let (_, stdout, _) = fan(["--line-prefix", "echo", ":::", "a", "b b"]);
        assert_eq!(sorted(&stdout), ["echo 'b b'| b b", "echo a| a"]);
        // A value that is there twice is two jobs.
        let (code, stdout, _) = fan(["--tag", "echo", ":::", "a", "a"]);
        assert_eq!((code, &*stdout), (0, "a\ta\na\ta\n"));
        let (_, _, stderr) = fan(["--progress", "true", ":::", "a", "b"]);
        assert!(stderr.contains("[2/2] 2 succeeded"), "{stderr}");
    });
}

#[test]
fn the_exit_code_counts_failures() {
    alone!({
        let (code, ..) = fan(["sh", "-c", "exit $1", "sh", "{}", ":::", "0", "1", "77", "0", "255"]);
        assert_eq!(code, 3);
        let many: Vec<String> = (0..150).map(|number| number.to_string()).collect();
        let (code, ..) = fan(["false", ":::"].into_iter().chain(many.iter().map(String::as_str)));
        assert_eq!(code, 101);
        let (code, _, stderr) = fan(["/no/such/program", ":::", "a"]);
        assert_eq!(code, 1);
        assert!(stderr.starts_with("fanout: /no/such/program a: "), "{stderr}");
        let (code, _, stderr) = fan(["--timeout", "0.1", "sleep", ":::", "60"]);
        assert_eq!((code, &*stderr), (1, "fanout: sleep 60: timed out\n"));
        for (args, expected) in [
            (&["--bogus"][..], "invalid option '--bogus'"),
            (&["-j", "x"], "cannot parse"),
            (&["--halt", "now", "true"], "fail=N%"),
            (&["--halt", "later,fail=1", "true"], "fail=N%"),
            (&["--resume", "true"], "--resume needs a --joblog"),
            (&["--timeout", "-1", "true"], "cannot parse"),
        ] {
            let (code, stdout, stderr) = fan(args.iter().copied());
            assert!(code == 255 && stdout.is_empty() && stderr.contains(expected), "{args:?}: {code} {stderr}");
        }
        let (code, stdout, _) = fan([]);
        assert!(code == 0 && stdout.starts_with("Usage: fanout "));
    });
}

#[test]
fn failures_are_run_again() {
    alone!({
        let folder = Scratch::new();
        let count = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default().len();
        let job = format!("cd {} && printf x >>$1 && test $(wc -c <$1) -ge $2", folder.path().display());
        let (code, ..) = fan(["--retries", "2", "sh", "-c", &job, "sh", "{1}", "{2}", ":::", "a", ":::", "3"]);
        assert_eq!((code, count("a")), (0, 3));
        let (code, ..) = fan(["--retries", "2", "sh", "-c", &job, "sh", "{1}", "{2}", ":::", "b", ":::", "4"]);
        assert_eq!((code, count("b")), (1, 3));
    });
}

#[test]
fn a_halt_ends_early() {
    alone!({
        let exits = ["sh", "-c", "echo $1; exit $1", "sh", "{}", ":::", "0", "1", "0", "2", "0"];
        let run = |halt| fan(["-k", "-j1", "--halt", halt].into_iter().chain(exits));
        assert_eq!(run("soon,fail=1"), (1, "0\n1\n".into(), String::new()));
        assert_eq!(run("now,fail=2"), (2, "0\n1\n0\n2\n".into(), String::new()));
        assert_eq!(run("soon,fail=34%"), (2, "0\n1\n0\n2\n".into(), String::new()));
        assert_eq!(run("soon,success=2"), (0, "0\n1\n0\n".into(), String::new()));
        assert_eq!(run("never"), (2, "0\n1\n0\n2\n0\n".into(), String::new()));
        // The first one is stopped, and has not failed.
        let folder = Scratch::new();
        let job = format!(
            "case $1 in a) : >{0}; sleep 1000;; b) until test -e {0}; do :; done; exit 1;; esac",
            folder.join("flag").display()
        );
        let (code, ..) = fan(["-j2", "--halt", "now,fail=1", "sh", "-c", &job, "sh", "{}", ":::", "a", "b"]);
        assert_eq!(code, 1);
    });
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    alone!({
        // Two lines are the harness's.
        let run = Command::new("yes") | example("fanout", ["-j2", "echo"]) | Command::new("head").arg("-4");
        let output = run.output().unwrap();
        assert_eq!(said(&output), "y\ny\n");
        assert_eq!(output.stages()[1].status().code(), Some(255), "{output}");
        assert!(output.stderr_lossy().contains("Broken pipe"), "{output}");
    });
}

#[test]
fn a_dry_run_runs_nothing() {
    alone!({
        let folder = Scratch::new();
        let file = folder.join("a b").display().to_string();
        let (code, stdout, _) = fan(["--dry-run", "touch", ":::", &file, "plain"]);
        assert_eq!((code, stdout), (0, format!("touch '{file}'\ntouch plain\n")));
        assert!(!Path::new(&file).exists());
    });
}

#[test]
fn a_delay_lies_between_starts() {
    alone!({
        let before = std::time::Instant::now();
        assert_eq!(fan(["-j8", "--delay", "0.2", "true", ":::", "1", "2", "3"]).0, 0);
        assert!(before.elapsed() >= Duration::from_millis(400));
    });
}

#[cfg(feature = "runlog")]
#[test]
fn a_log_is_written_and_gone_on_from() {
    alone!({
        let folder = Scratch::new();
        let (log, good) = (folder.join("log"), folder.join("good"));
        let job = format!("echo $1; test $1 != b || test -e {}", good.display());
        let lines = || {
            let text = fs::read_to_string(&log).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
        };
        let log_name = log.display().to_string();
        let run = |options: &[&str], values: &[&str]| {
            let words =
                [&["-k", "-j1", "--joblog", &log_name], options, &["sh", "-c", &job, "sh", "{}", ":::"], values];
            fan(words.concat())
        };

        assert_eq!(run(&[], &["a", "b"]), (1, "a\nb\n".into(), String::new()));
        let first = lines();
        assert_eq!(first.len(), 2);
        assert_eq!((&first[0]["success"], &first[0]["code"]), (&true.into(), &0.into()));
        assert_eq!((&first[1]["success"], &first[1]["code"]), (&false.into(), &1.into()));
        assert!(first[0]["label"].as_str().unwrap().ends_with(" sh a"), "{}", first[0]);

        // What has failed is run again, and what is new; the rest is not.
        let (code, stdout, _) = run(&["--resume", "--dry-run"], &["a", "b", "c"]);
        assert_eq!((code, sorted(&stdout).len()), (0, 2), "{stdout}");
        assert_eq!(lines().len(), 2);
        assert_eq!(run(&["--resume"], &["a", "b", "c"]), (1, "b\nc\n".into(), String::new()));
        assert_eq!(lines().len(), 4);
        fs::write(&good, "").unwrap();
        assert_eq!(run(&["--resume"], &["a", "b", "c"]), (0, "b\n".into(), String::new()));
        assert_eq!(run(&["--resume"], &["a", "b", "c"]), (0, String::new(), String::new()));
        assert_eq!(lines().len(), 5);
        // A torn line is told and costs one task.
        let text = fs::read(&log).unwrap();
        fs::write(&log, &text[..text.len() - 10]).unwrap();
        let (code, stdout, stderr) = run(&["--resume"], &["a", "b", "c"]);
        assert_eq!((code, &*stdout), (0, "b\n"));
        assert!(stderr.starts_with("fanout: ") && stderr.lines().count() == 1, "{stderr}");
        // Without --resume it begins anew.
        assert_eq!(run(&[], &["a"]).1, "a\n");
        assert_eq!(lines().len(), 1);
    });
}

#[cfg(feature = "timeline")]
#[test]
fn a_picture_is_drawn() {
    alone!({
        let folder = Scratch::new();
        let (page, trace) = (folder.join("run.html"), folder.join("run.json"));
        let (page_name, trace_name) = (page.display().to_string(), trace.display().to_string());
        let (code, ..) = fan(["--timeline", &page_name, "--timeline", &trace_name, "true", ":::", "a", "b"]);
        assert_eq!(code, 0);
        assert!(fs::read_to_string(&page).unwrap().contains("true a"));
        assert!(fs::read_to_string(&trace).unwrap().contains("\"true b\""));
        let (code, _, stderr) = fan(["--timeline", "picture.png", "true"]);
        assert_eq!((code, &*stderr), (255, "fanout: --timeline picture.png: neither .html nor .json\n"));
    });
}

#[cfg(not(all(feature = "runlog", feature = "timeline")))]
#[test]
fn what_is_not_built_in_says_so() {
    alone!({
        for (option, feature) in [("--joblog", "runlog"), ("--timeline", "timeline")] {
            let is_there = if feature == "runlog" { cfg!(feature = "runlog") } else { cfg!(feature = "timeline") };
            if !is_there {
                let (code, stdout, stderr) = fan([option, "/no/such/file", "echo", ":::", "a"]);
                let expected =
                    format!("fanout: {option} is not in this program: build it with `--features {feature}`\n");
                assert_eq!((code, stdout, stderr), (255, String::new(), expected));
            }
        }
    });
}

// ---- nslookup_many ----

/// The rows of its table, without the times: host, tries, answer.
fn rows(text: &str) -> Vec<(String, String, String)> {
    let rows = text.lines().skip_while(|line| !(line.starts_with("host ") && line.ends_with("answer"))).skip(1);
    rows.map(|row| {
        let mut words = row.split_whitespace().map(String::from);
        let (host, _time, _ms, tries) = (words.next(), words.next(), words.next(), words.next());
        (host.unwrap(), tries.unwrap(), words.collect::<Vec<_>>().join(" "))
    })
    .collect()
}

#[test]
fn hosts_are_looked_up_with_whatever_answers() {
    alone!({
        let output = example("nslookup_many", ["www.python.org", "nobody.invalid", "www.python.org"]).output().unwrap();
        let rows = rows(&said(&output));
        assert_eq!(output.returncode(), 1, "{output}");
        let [(www, _, address), (nobody, _, trouble)] = &rows[..] else { panic!("{output}") };
        assert_eq!((&**www, &**nobody), ("www.python.org", "nobody.invalid"));
        assert!(address.split(' ').all(|address| address.parse::<std::net::IpAddr>().is_ok()), "{address}");
        assert!(trouble.contains("nobody.invalid"), "{trouble}");
        assert!(output.stderr_lossy().contains("[2/2] 1 succeeded, 1 failed"), "{output}");
    });
}

#[test]
fn a_host_that_is_slow_is_asked_again() {
    alone!({
        let folder = Scratch::new();
        // The first question about a slow host has no answer, and none about a dead one.
        let nslookup = format!(
            "#!/bin/sh\ncase $1 in slow*) test -e {0}/$1 || {{ : >{0}/$1; exec sleep 1000; }};; dead*) exec sleep 1000;; esac\n\
             exec {1} \"$@\"\n",
            folder.path().display(),
            script("fake-nslookup.sh").display()
        );
        folder.file("nslookup", 0o755, nslookup);
        let hosts = folder.file("hosts", 0o644, "slow.org\n# nobody\n\nquick.org  # somebody\ndead.org\nslow2.org");
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let args = ["--timeout", "1", "--retries", "1", "--file", hosts.to_str().unwrap()];
        let output = example("nslookup_many", args).env("PATH", path).output().unwrap();
        assert_eq!(output.returncode(), 1, "{output}");
        let rows = rows(&said(&output));
        let rows: Vec<_> = rows.iter().map(|(host, tries, answer)| (&**host, &**tries, &**answer)).collect();
        assert_eq!(
            rows,
            [
                ("slow.org", "2", "192.0.2.8"),
                ("quick.org", "1", "192.0.2.9"),
                ("dead.org", "2", "timed out"),
                ("slow2.org", "2", "192.0.2.9"),
            ]
        );
        let output = example("nslookup_many", ["--", "-x"]).output().unwrap();
        assert_eq!(output.returncode(), 2, "{output}");
    });
}

// ---- make_like ----

/// A directory with rules and sources.
struct Tree(Scratch);

impl Tree {
    fn new(rules: &str) -> Tree {
        let tree = Tree(Scratch::new());
        tree.write("Rules", rules);
        tree
    }

    fn write(&self, name: &str, text: &str) {
        self.0.file(name, 0o644, text);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// Makes a file younger than everything that is here, however coarse the clock of the file system is.
    fn touch(&self, name: &str) {
        let ages =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().modified().unwrap());
        let youngest = ages.max().unwrap();
        let file = fs::File::options().append(true).open(self.0.join(name)).unwrap();
        file.set_modified(youngest + Duration::from_secs(1)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let directory = self.0.path().to_str().unwrap();
        example("make_like", ["-C", directory].iter().chain(args))
    }

    fn make(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().unwrap();
        (output.returncode(), said(&output), output.stderr_lossy().into_owned())
    }
}

#[test]
fn what_is_older_than_its_sources_is_made() {
    alone!({
        let tree = Tree::new(
            ".PHONY: all check\nall: out # the first one\nout: left right\n\tcat left right >out\n\
             left: source\n\ttr a-z A-Z <source >left\nright: source other\n\tcat other source >right\ncheck:\n\techo checked\n",
        );
        tree.write("source", "s\n");
        tree.write("other", "o\n");
        // Nothing is run for show, and each comes behind what it is made of.
        let (code, shown, _) = tree.make(&["-n"]);
        assert_eq!(code, 0);
        assert_eq!(sorted(&shown), ["cat left right >out", "cat other source >right", "tr a-z A-Z <source >left"]);
        assert!(shown.ends_with("cat left right >out\n"), "{shown}");
        assert_eq!(tree.read("out"), "");

        let (code, made, stderr) = tree.make(&["-j4"]);
        assert_eq!((code, sorted(&made), &*stderr), (0, sorted(&shown), ""));
        assert_eq!(tree.read("out"), "S\no\ns\n");
        assert_eq!(tree.make(&[]), (0, "make_like: nothing is to be done for all\n".into(), String::new()));

        tree.touch("other");
        let expected = "cat other source >right\ncat left right >out\n";
        assert_eq!(tree.make(&["-n"]).1, expected);
        assert_eq!(tree.make(&[]), (0, expected.into(), String::new()));
        assert_eq!(tree.make(&["left", "check"]).1, "echo checked\nchecked\n");
    });
}

#[test]
fn a_circle_and_a_hole_are_named() {
    alone!({
        let tree = Tree::new("a: b\n\ttouch a\nb: c\n\ttouch b\nc: a\n\ttouch c\nd: nothing\n\ttouch d\n");
        let (code, _, stderr) = tree.make(&[]);
        assert_eq!((code, &*stderr), (2, "make_like: tasks wait for each other: a after b after c after a\n"));
        let (code, _, stderr) = tree.make(&["d"]);
        assert_eq!((code, &*stderr), (2, "make_like: there is no rule for nothing, of which d is made\n"));
        assert_eq!(tree.make(&["e"]).2, "make_like: there is no rule for e\n");
        tree.write("Rules", "\techo\n");
        assert!(tree.make(&[]).2.ends_with("Rules:1: a command without a target\n"));
        tree.write("Rules", "a:\na:\n");
        assert!(tree.make(&[]).2.ends_with("Rules:2: a second rule for the same target\n"));
    });
}

#[test]
fn a_failure_ends_the_build_or_only_what_needs_it() {
    alone!({
        let tree = Tree::new(
            ".PHONY: all\nall: top good\ntop: bad\n\ttouch top\nbad:\n\ttouch bad\n\tfalse\n\techo never\n\
             good: first\n\ttouch good\nfirst:\n\ttouch first\n",
        );
        let (code, stdout, stderr) = tree.make(&["-k", "-j1"]);
        assert_eq!(code, 2, "{stderr}");
        assert!(tree.0.join("good").exists() && !stdout.contains("never\nnever"));
        // Half a file does not stay.
        assert!(!tree.0.join("bad").exists());
        let expected = format!("make_like: {} was removed", tree.0.join("bad").display());
        let expected =
            ["make_like: *** bad: exit 1", &*expected, "make_like: all was not made", "make_like: top was not made"];
        assert_eq!(sorted(&stderr), sorted(&expected.join("\n")));

        fs::remove_file(tree.0.join("good")).unwrap();
        let (code, stdout, _) = tree.make(&["-j1", "bad", "good"]);
        assert_eq!((code, &*stdout), (2, "touch bad\nfalse\necho never\n"));
        assert!(!tree.0.join("good").exists());
    });
}

fn has_make() -> bool {
    let is_there =
        Command::new("make").arg("--version").output().is_ok_and(|output| output.stdout().starts_with(b"GNU"));
    if !is_there {
        eprintln!("skipped: GNU make is not installed");
    }
    is_there
}

/// A step of a build that notes how many of its kind are at work, and stays until as many were there as there should be, or ten
/// seconds have passed.
const STEP: &str = "mkdir $(D)/at-work.$@; ls $(D) | grep -c at-work >>$(D)/seen; n=0; \
                    until grep -q $(MOST) $(D)/seen || test $$n = 100; do sleep 0.1; n=$$((n + 1)); done; \
                    sleep 0.1; rmdir $(D)/at-work.$@; : >$@";

fn most_at_work(tree: &Tree) -> usize {
    tree.read("seen").lines().map(|line| line.trim().parse().unwrap()).max().unwrap()
}

#[test]
fn makes_that_it_starts_share_its_jobs() {
    alone!({
        if !has_make() {
            return;
        }
        let tree = Tree::new(".PHONY: all one two\nall: one two\none:\n\tmake -s -C one\ntwo:\n\tmake -s -C two\n");
        for name in ["one", "two"] {
            let targets = ["a", "b", "c", "d", "e"].map(|target| format!("{name}-{target}")).join(" ");
            fs::create_dir(tree.0.join(name)).unwrap();
            let text = format!("D = {}\nMOST = 3\nall: {targets}\n{targets}:\n\t{STEP}\n", tree.0.path().display());
            fs::write(tree.0.join(name).join("Makefile"), text).unwrap();
        }
        let (code, _, stderr) = tree.make(&["-j3"]);
        assert_eq!((code, &*stderr), (0, ""));
        assert!(tree.0.join("one/one-e").exists() && tree.0.join("two/two-e").exists());
        // Two makes with a job each, and one more that either may have; each alone would have had three.
        assert_eq!(most_at_work(&tree), 3);
    });
}

#[test]
fn it_takes_its_jobs_from_a_make() {
    alone!({
        if !has_make() {
            return;
        }
        let step = STEP.replace("$(D)", "$D").replace("$(MOST)", "$MOST").replace("$$", "$");
        let targets = ["a", "b", "c", "d", "e", "f"];
        let rules: String = targets.iter().map(|name| format!("{name}:\n\t{}\n", step.replace("$@", name))).collect();
        let tree = Tree::new(&format!(".PHONY: all\nall: {}\n{rules}", targets.join(" ")));
        let inner = tree.command(&[]).env("D", tree.0.path());
        let variable =
            inner.get_envs().find(|(name, _)| *name == VARIABLE).and_then(|(_, value)| value).unwrap().to_owned();
        let program = std::env::current_exe().unwrap();
        tree.write(
            "Makefile",
            &format!("all:\n\t+@{} --exact examples_pool::play --nocapture --test-threads=2\n", program.display()),
        );
        for (jobs, most) in [("-j1", 1), ("-j2", 2), ("-j5", 5)] {
            let outer = Command::new("make").args([jobs, "-C"]).arg(tree.0.path()).env_remove("MAKEFLAGS");
            let outer =
                outer.env(VARIABLE, &variable).env("D", tree.0.path()).env("MOST", most.to_string()).timeout(PATIENCE);
            let output = outer.output().unwrap();
            assert!(output.success(), "{output}");
            assert_eq!(most_at_work(&tree), most, "{jobs}: {output}");
            targets.iter().chain(&["seen"]).for_each(|name| fs::remove_file(tree.0.join(name)).unwrap());
        }
    });
}
