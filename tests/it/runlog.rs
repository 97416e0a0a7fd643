//! The run log: what is in it, that a later run goes on from it, and that neither a crash nor a full disk makes it say something wrong.
//! The news are those that a pool tells.

use crate::inject::supervise;
use crate::support::{Scratch, alone, is_root, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procession::pool::{Done, History, Observer, Pool, RunLog, Task, TaskId, TaskNews};
use procession::{Command, Error, ErrorKind, Input, Output, Overflow};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A task that echoes its number.
fn echo(number: u64) -> Task {
    Task::new(Command::new("echo").arg(number.to_string()).current_dir("/"))
}

/// Tells the log what a pool would tell of a task that has ended so.
fn told(log: &mut RunLog, task: &Task, result: Result<Output, Error>) {
    let (id, at) = (TaskId::from_number(1), Instant::now());
    log.see(&TaskNews::Submitted { id, task, label: "", at });
    log.see(&TaskNews::Starting { id, task });
    log.see(&TaskNews::Finished(&Done::of(id, result)));
}

/// Runs a task as a pool would.
fn run(log: &mut RunLog, task: &Task) {
    let (id, at) = (TaskId::from_number(1), Instant::now());
    log.see(&TaskNews::Submitted { id, task, label: "", at });
    log.see(&TaskNews::Starting { id, task });
    log.see(&TaskNews::Finished(&Done::of(id, task.command().output())));
}

/// A result that costs no process.
fn success() -> Result<Output, Error> {
    static ONCE: std::sync::OnceLock<Output> = std::sync::OnceLock::new();
    Ok(ONCE.get_or_init(|| Command::new("true").output().unwrap()).clone())
}

fn read(path: &Path) -> History {
    RunLog::read(path).unwrap()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_later_run_goes_on_from_it() {
    alone!({
        let scratch = Scratch::new();
        let (path, source, product) = (scratch.join("run.log"), scratch.join("source"), scratch.join("product"));
        assert_eq!(read(&path).line_count(), 0, "before the first run there is no file");
        fs::write(&source, "one").unwrap();
        let copy = || {
            let command = Command::new("cp").args(["source", "product"]).current_dir(scratch.path());
            Task::new(command).name("copy").reads("source").writes("product")
        };
        let fail = || Task::new(Command::shell("exit 3").current_dir("/")).name("fail");
        let never = || Task::new(Command::new("/no/such/program").current_dir("/"));
        let tasks = || [copy(), fail(), never()];
        let mut log = RunLog::append(&path).unwrap();
        tasks().iter().for_each(|task| run(&mut log, task));
        log.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "commands are private");

        let names = |tasks: Vec<Task>| tasks.iter().map(ToString::to_string).collect::<Vec<_>>();
        let left = ["fail", "cd / && /no/such/program"];
        assert_eq!(names(read(&path).skip_done(tasks())), left);
        assert_eq!(names(read(&path).retry_failed(tasks().into_iter().chain([echo(1)]))), left);
        assert!(read(&path).duration_of(&copy()).is_some() && read(&path).duration_of(&never()).is_none());

        fs::write(&source, "two").unwrap();
        let history = read(&path);
        assert!(!history.succeeded(&copy()) && !history.failed(&copy()), "it was never run with this");
        run(&mut log, &copy());
        assert!(read(&path).succeeded(&copy()));
        fs::write(&source, "one").unwrap();
        assert!(read(&path).succeeded(&copy()), "it was run with this, too");
        fs::remove_file(&product).unwrap();
        assert!(!read(&path).succeeded(&copy()), "what it made is gone");
        assert_eq!((read(&path).line_count(), read(&path).unreadable_count()), (4, 0));
    });
}

/// What counts is what was there when it was started, and not what it has made of it.
#[test]
fn the_key_is_that_of_the_start() {
    alone!({
        let scratch = Scratch::new();
        let (path, file) = (scratch.join("run.log"), scratch.join("file"));
        let task = Task::new(Command::shell("echo more >>file").current_dir(scratch.path())).reads("file");
        let (id, at) = (TaskId::from_number(1), Instant::now());
        let mut log = RunLog::append(&path).unwrap();
        log.see(&TaskNews::Submitted { id, task: &task, label: "", at });
        // What it waits for makes the file, a first attempt fails, and then it runs.
        fs::write(&file, "made").unwrap();
        log.see(&TaskNews::Starting { id, task: &task });
        fs::write(&file, "repaired").unwrap();
        log.see(&TaskNews::Starting { id, task: &task });
        log.see(&TaskNews::Finished(&Done::of(id, task.command().output())));
        let mut answers = Vec::new();
        for content in ["made", "repaired", "repairedmore\n"] {
            fs::write(&file, content).unwrap();
            answers.push(read(&path).succeeded(&task));
        }
        fs::remove_file(&file).unwrap();
        answers.push(read(&path).succeeded(&task));
        assert_eq!(answers, [false, true, false, false]);
    });
}

/// A program in three steps: what the later ones read is made by the earlier ones.
fn steps(folder: &Path) -> Vec<Task> {
    let step = |name: &str, from: &str, to: &str| {
        let script = format!("cat {from} >{to} && echo {name} >>{to} && echo {name} >>ran");
        Task::new(Command::shell(script).current_dir(folder)).name(name).reads(from).writes(to)
    };
    vec![
        step("pack", "program", "package").after("link"),
        step("link", "object", "program").after("compile"),
        step("compile", "source", "object"),
    ]
}

#[test]
fn a_pool_goes_on_where_an_earlier_one_was() {
    alone!({
        let scratch = Scratch::new();
        let (path, ran) = (scratch.join("run.log"), scratch.join("ran"));
        fs::write(scratch.join("source"), "one\n").unwrap();
        let made = || {
            fs::write(&ran, "").unwrap();
            let log = RunLog::append(&path).unwrap();
            let pool = Pool::new(2).observe(log.clone());
            let tasks = RunLog::read(&path).unwrap().skip_done(steps(scratch.path()));
            pool.submit_all(tasks).unwrap().iter().for_each(|task| assert!(task.wait().success()));
            pool.close();
            pool.join().unwrap();
            log.finish().unwrap();
            text(&ran)
        };
        assert_eq!(made(), "compile\nlink\npack\n");
        assert_eq!(made(), "", "each was logged with what it has read, though that was not there at first");
        fs::write(scratch.join("source"), "two\n").unwrap();
        assert_eq!(made(), "compile\nlink\npack\n");
        fs::remove_file(scratch.join("package")).unwrap();
        assert_eq!(made(), "pack\n");
        fs::write(scratch.join("program"), "somebody has been here\n").unwrap();
        assert_eq!(made(), "pack\n", "what was made is read, too");
        assert_eq!(text(&scratch.join("package")), "somebody has been here\npack\n");
        assert_eq!(made(), "");
    });
}

/// One that looks on and takes its time.
struct Slow(RunLog);

impl Observer for Slow {
    fn see(&mut self, news: &TaskNews<'_>) {
        std::thread::sleep(Duration::from_millis(2));
        self.0.see(news);
    }
}

/// Each task changes what it reads as soon as it can; the log must have looked before, also where another thread tells it.
#[test]
fn a_pool_lets_the_log_look_before_a_task_starts() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        let tasks = || {
            (0..100).map(|number| {
                let file = format!("file{number}");
                let command = Command::shell(format!("echo changed >{file}")).current_dir(scratch.path());
                Task::new(command).reads(file)
            })
        };
        let reset = || (0..100).for_each(|number| fs::write(scratch.join(format!("file{number}")), "before").unwrap());
        reset();
        let pool = Pool::new(8).observe(Slow(RunLog::append(&path).unwrap()));
        assert!(pool.map(tasks()).iter().all(Done::success));
        drop(pool);
        assert_eq!(read(&path).skip_done(tasks()).len(), 100, "none has run with what is there now");
        reset();
        assert_eq!(read(&path).skip_done(tasks()).len(), 0, "all have run with what was there then");
    });
}

#[test]
fn what_cannot_be_known_again_is_never_skipped() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        let file = scratch.file("input", 0o644, "text");
        let command = || Command::new("cat").current_dir("/");
        let mut log = RunLog::append(&path).unwrap();
        for task in [
            Task::new(command().input(Input::reader(&b"text"[..]))),
            Task::new(command().stdin(File::open(&file).unwrap())),
            Task::new(command()).reads("/"),
        ] {
            run(&mut log, &task);
            let history = read(&path);
            assert!(!history.succeeded(&task) && !history.failed(&task), "{task}");
            assert!(history.duration_of(&task).is_some());
        }
        assert_eq!(text(&path).matches(r#""key":null,"unkeyed":"#).count(), 3, "{}", text(&path));
        // What is known, on the other hand, is.
        let task = Task::new(command().stdin(procession::Stdio::read(&file)));
        run(&mut log, &task);
        assert!(read(&path).succeeded(&task));
        fs::write(&file, "test").unwrap();
        assert!(!read(&path).succeeded(&task));
    });
}

#[test]
fn a_secret_is_part_of_the_key_and_of_nothing_else() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        let script = r#"echo "$1 $TOKEN"; echo "bad: $1 $TOKEN" >&2; sleep "${2-0}"; exit 3"#;
        let login = |secret: &str| Command::shell(script).arg("sh").secret_arg(secret).secret_env("TOKEN", secret);
        let mut log = RunLog::append(&path).unwrap();
        for command in [
            login("hunter2"),
            login("hunter2").arg("60").timeout(Duration::from_millis(50)),
            login("hunter2").capture_limit(3, Overflow::Fail),
            login("hunter2").executable("no-such-program"),
            login("hunter2").current_dir("/nowhere"),
            login("hunter2").capture_limit(3, Overflow::Spill("/nowhere/out".into())),
            login("hunter2").accept([3]),
        ] {
            run(&mut log, &Task::new(command));
        }
        let text = text(&path);
        assert_eq!(text.lines().count(), 7);
        assert!(!text.contains("hunter2"), "{text}");
        for outcome in ["exited", "timed-out", "overflowed", "not-started"] {
            assert!(text.contains(&format!(r#""outcome":"{outcome}""#)), "{outcome}: {text}");
        }
        assert!(read(&path).succeeded(&login("hunter2").accept([3]).into()));
        assert!(!read(&path).succeeded(&login("hunter3").accept([3]).into()));
    });
}

#[test]
fn a_new_log_is_empty_and_an_old_one_goes_on() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        for (open, expected) in [(RunLog::append(&path), 1), (RunLog::append(&path), 2), (RunLog::create(&path), 1)] {
            // They were opened one after the other before anything was written.
            told(&mut open.unwrap(), &echo(1), success());
            assert_eq!(read(&path).line_count().min(expected), expected);
        }
        told(&mut RunLog::create(&path).unwrap(), &echo(2), success());
        assert_eq!(read(&path).line_count(), 1);
        let error = RunLog::append(scratch.path()).unwrap_err();
        assert_eq!(error.failed_path(), Some(scratch.path()));
        assert_eq!(RunLog::read(scratch.path()).unwrap_err().failed_step(), Some("read"));
    });
}

#[test]
fn the_next_line_after_a_torn_one_is_a_line_of_its_own() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        let mut log = RunLog::create(&path).unwrap();
        (0..3).for_each(|number| told(&mut log, &echo(number), success()));
        let whole = fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for end in [last + 1, last + 10, whole.len() - 2, whole.len() - 1] {
            fs::write(&path, &whole[..end]).unwrap();
            // A line that lacks nothing but its end says all.
            let torn = u64::from(end < whole.len() - 1);
            let history = read(&path);
            assert_eq!((history.line_count(), history.unreadable_count()), (3 - torn, torn));
            assert_eq!(history.unreadable().first().map(String::as_str), (torn == 1).then_some("line 3: cut short"));
            // By whoever opens it next, and by whoever has it open while somebody else crashes.
            told(&mut RunLog::append(&path).unwrap(), &echo(7), success());
            File::options().append(true).open(&path).unwrap().write_all(b"{\"v\":1,").unwrap();
            told(&mut log, &echo(8), success());
            let history = read(&path);
            assert_eq!((history.line_count(), history.unreadable_count()), (5 - torn, torn + 1), "{}", text(&path));
            assert!([0, 1, 7, 8].iter().all(|number| history.succeeded(&echo(*number))));
            assert_eq!(history.succeeded(&echo(2)), torn == 0);
        }
    });
}

#[test]
fn what_is_no_log_is_passed_over() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        let mut log = RunLog::create(&path).unwrap();
        told(&mut log, &echo(1), success());
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"\n\nnoise \xff\xfe\n{\"v\":2,\"what\":\"ever\"}\n").unwrap();
        // A hole, as a file system may leave after a power failure, and a line without an end.
        file.write_all(&[0; 5000]).unwrap();
        file.write_all(b"\n").unwrap();
        file.write_all(&vec![b'x'; 40 * 1024 * 1024]).unwrap();
        told(&mut log, &echo(2), success());
        let history = read(&path);
        assert_eq!(history.line_count(), 2);
        let expected =
            ["line 4: no JSON", "line 5: written by another version: 2", "line 6: no JSON", "line 7: too long"];
        assert_eq!(history.unreadable(), expected);
        assert!(history.succeeded(&echo(1)) && history.succeeded(&echo(2)));
    });
}

#[test]
fn several_may_share_a_log() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("run.log");
        let first = RunLog::append(&path).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (path, shared) = (&path, first.clone());
                scope.spawn(move || {
                    let mut log = if writer % 2 == 0 { shared } else { RunLog::append(path).unwrap() };
                    for number in 0..100 {
                        let (id, at) = (TaskId::from_number(writer * 1000 + number), Instant::now());
                        let task = echo(writer * 1000 + number);
                        log.see(&TaskNews::Submitted { id, task: &task, label: "", at });
                        log.see(&TaskNews::Starting { id, task: &task });
                        log.see(&TaskNews::Finished(&Done::of(id, success())));
                    }
                });
            }
        });
        first.finish().unwrap();
        let history = read(&path);
        assert_eq!((history.line_count(), history.unreadable_count()), (400, 0));
        assert!((0..4).all(|writer| (0..100).all(|number| history.succeeded(&echo(writer * 1000 + number)))));
    });
}

#[test]
fn a_line_is_one_write_and_comes_to_the_disk_if_it_is_to() {
    alone!({
        let scratch = Scratch::new();
        success().unwrap();
        for sync in [true, false] {
            let path = scratch.join(format!("{sync}"));
            let (mut writes, mut syncs, mut interrupted) = (0, 0, false);
            let work = || {
                let mut log = RunLog::append(&path).unwrap().sync(sync);
                (0..5).for_each(|number| told(&mut log, &echo(number), success()));
                log.finish()
            };
            let Some(result) = supervise(&[libc::SYS_write, libc::SYS_fdatasync], work, |call| {
                let is_write = call.number == libc::SYS_write;
                *(if is_write { &mut writes } else { &mut syncs }) += 1;
                let interrupts = is_write && !std::mem::replace(&mut interrupted, true);
                interrupts.then_some(libc::EINTR)
            }) else {
                return;
            };
            result.unwrap();
            assert_eq!((writes, syncs), (5 + 1, if sync { 6 } else { 1 }), "the first write is made again");
            assert_eq!(read(&path).line_count(), 5);
        }
        let path = scratch.join("refused");
        let refused = supervise(
            &[libc::SYS_fdatasync],
            || {
                let mut log = RunLog::append(&path).unwrap().sync(true);
                told(&mut log, &echo(1), success());
                (log.lost(), log.finish().unwrap_err())
            },
            |_| Some(libc::EIO),
        );
        let Some((lost, error)) = refused else { return };
        assert_eq!((lost, error.failed_step(), error.raw_os_error()), (0, Some("sync"), Some(libc::EIO)));
    });
}

#[test]
fn a_device_that_is_full_stops_nobody() {
    alone!({
        let mut log = RunLog::append("/dev/full").unwrap();
        (0..3).for_each(|number| told(&mut log, &echo(number), success()));
        assert_eq!(log.lost(), 3);
        for _ in 0..2 {
            let error = log.finish().unwrap_err();
            assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::ResourceExhausted, Some(libc::ENOSPC)));
            let expected = "write /dev/full: 3 lines of the run log are missing: No space left on device";
            assert_eq!(error.to_string(), expected);
        }
    });
}

/// Some of these are lost; the rest can be read, and comes after whatever was torn.
fn survives(path: &Path, fill: impl FnOnce(), make_room: impl FnOnce(), errno: i32) {
    let mut log = RunLog::append(path).unwrap();
    told(&mut log, &echo(0), success());
    fill();
    (1..=50).for_each(|number| told(&mut log, &echo(number), success()));
    let lost = log.lost();
    assert!((1..50).contains(&lost), "{lost}");
    let history = read(path);
    assert_eq!(history.line_count(), 51 - lost);
    assert!(history.unreadable_count() <= 1, "{:?}", history.unreadable());
    make_room();
    (51..=60).for_each(|number| told(&mut log, &echo(number), success()));
    let error = log.finish().unwrap_err();
    assert_eq!((error.raw_os_error(), log.lost()), (Some(errno), lost), "{error}");
    let history = read(path);
    assert_eq!((history.line_count(), history.unreadable_count()), (61 - lost, 1), "{:?}", history.unreadable());
    assert_eq!((0..=60).filter(|number| history.succeeded(&echo(*number))).count() as u64, 61 - lost);
    assert!((51..=60).all(|number| history.succeeded(&echo(number))));
}

#[test]
fn a_file_that_may_not_grow_stops_nobody_and_tears_one_line() {
    alone!({
        let scratch = Scratch::new();
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        // The signal of this limit would end us.
        let limit = |soft| setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        survives(&scratch.join("run.log"), || limit(10_001), || limit(hard), libc::EFBIG);
    });
}

/// Mounts a disk of 64 KiB, which is seen by this thread alone and gone with it.
fn small_disk(path: &Path) -> io::Result<()> {
    let done = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let mount = |path: &CStr, kind: &CStr, flags, data: &CStr| {
        // SAFETY: strings that live during the call.
        done(unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) })
    };
    // SAFETY: an integer argument.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    mount(&CString::new(path.as_os_str().as_bytes())?, c"tmpfs", 0, c"size=64k")
}

#[test]
fn a_disk_that_is_full_stops_nobody_and_tears_one_line() {
    alone!({
        if !is_root() {
            return eprintln!("skipped: only root may mount a small disk");
        }
        let scratch = Scratch::new();
        if let Err(error) = small_disk(scratch.path()) {
            return eprintln!("skipped: no disk can be mounted here: {error}");
        }
        let filler = File::create(scratch.join("filler")).unwrap();
        let fill = || {
            let mut place = 0;
            // Two pages remain for the log.
            while place < 52 * 1024 && filler.write_all_at(&[0; 4096], place).is_ok() {
                place += 4096;
            }
        };
        survives(&scratch.join("run.log"), fill, || filler.set_len(0).unwrap(), libc::ENOSPC);
        drop(filler);
        let path = CString::new(scratch.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that lives during the call.
        assert_eq!(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }, 0);
    });
}

const WRITES_TO: &str = "PROCESSION_TEST_RUNLOG";

/// Not a test but the program of the next one: writes lines until it is killed.
#[test]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(WRITES_TO) else { return };
    // Of many lengths, up to some that take the kernel a while.
    let run = |count: u32| Command::new("true").args(vec!["x".repeat(1 << 16); 1 << count]).output().unwrap();
    let outputs: Vec<Output> = [vec![success().unwrap(); 10], (0..5).map(run).collect()].concat();
    let mut log = RunLog::append(path).unwrap();
    for (number, output) in outputs.iter().cycle().enumerate() {
        told(&mut log, &echo(number as u64), Ok(output.clone()));
    }
}

#[test]
fn a_crash_at_any_moment_loses_nothing_that_was_written() {
    alone!({
        let scratch = Scratch::new();
        let (mut all, mut torn) = (0, 0);
        for (round, grown) in crate::talk::noise(50).into_iter().enumerate() {
            let path = scratch.join(round.to_string());
            let mut log = RunLog::append(&path).unwrap();
            told(&mut log, &echo(0), success());
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "runlog::writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
                .env(WRITES_TO, &path)
                .env_remove("PROCESSION_TEST_ALONE")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let size = || fs::metadata(&path).unwrap().len();
            let enough = size() + 1 + u64::from(grown) * 1000;
            wait_for("lines", || size() > enough);
            child.kill().unwrap();
            child.wait().unwrap();
            let bytes = fs::read(&path).unwrap();
            let whole = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let history = read(&path);
            // The last line may be whole but for its end.
            assert!((whole..=whole + 1).contains(&history.line_count()), "round {round}: {:?}", history.unreadable());
            let is_torn = u64::from(bytes.last() != Some(&b'\n') && history.line_count() == whole);
            assert_eq!(history.unreadable_count(), is_torn, "round {round}: {:?}", history.unreadable());
            // The numbers began anew in the child.
            assert!((0..history.line_count() - 1).all(|number| history.succeeded(&echo(number))));
            // By the one that has it open, and by one that opens it now.
            told(&mut log, &echo(1_000_000), success());
            told(&mut RunLog::append(&path).unwrap(), &echo(1_000_001), success());
            let next = read(&path);
            assert_eq!((next.line_count(), next.unreadable_count()), (history.line_count() + 2, is_torn));
            assert!(next.succeeded(&echo(1_000_000)) && next.succeeded(&echo(1_000_001)));
            (all, torn) = (all + history.line_count(), torn + is_torn);
        }
        eprintln!("{all} lines, {torn} torn");
    });
}
