//! Each way in which a program cannot be started is told apart, at once and without litter.

use crate::inject::supervise;
use crate::support::{Scratch, alone, children, descriptors, done_as_nobody, fixture, wait_for};
use nix::sys::resource::{Resource as Nix, getrlimit, setrlimit};
use procession::{Command, Error, ErrorKind, Resource, Stdio};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[track_caller]
fn refused(command: &Command) -> Error {
    let error = command.spawn().expect_err("a child was made");
    assert_eq!(children(), Vec::<String>::new(), "{error}");
    assert!(error.output().pid().is_none());
    error
}

#[track_caller]
fn check(command: &Command, kind: ErrorKind, step: Option<&str>, errno: Option<i32>, words: &str) {
    let error = refused(command);
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.failed_step(), step, "{error}");
    assert_eq!(error.raw_os_error(), errno, "{error}");
    let text = error.to_string();
    assert!(text.contains(words), "{text:?} lacks {words:?}");
    // The text shows the beginning of a long line, the record has all of it.
    let shown: String = command.to_string().chars().take(300).collect();
    assert!(text.starts_with(&shown), "{text:?} does not say what ran");
    assert_eq!(error.output().command(), command.to_string());
}

#[test]
fn a_name_that_is_nowhere_lists_the_places() {
    alone!({
        let scratch = Scratch::new();
        let (one, two) = (scratch.directory("one"), scratch.directory("two"));
        let path = std::env::join_paths([&one, &two]).unwrap();
        let command = Command::new("no-such-program").env("PATH", path);
        check(&command, ErrorKind::NotFound, None, Some(libc::ENOENT), "no such program");
        let text = refused(&command).to_string();
        for place in [one, two] {
            assert!(text.contains(place.join("no-such-program").to_str().unwrap()), "{text}");
        }
        for path in ["", ":", "relative:."] {
            let text = refused(&Command::new("sh").env("PATH", path)).to_string();
            assert!(text.contains("PATH has no absolute directory"), "{text}");
        }
    });
}

/// B1: the errno of execve, its step and its path, before spawn returns.
#[test]
fn exec_errors_reach_the_caller_and_are_told_apart() {
    alone!({
        let scratch = Scratch::new();
        let exec = Some("exec");
        let missing = scratch.join("missing");
        check(&Command::new(&missing), ErrorKind::NotFound, exec, Some(libc::ENOENT), missing.to_str().unwrap());
        check(&Command::new(scratch.path()), ErrorKind::NotExecutable, exec, Some(libc::EACCES), "directory");
        let plain = scratch.file("plain", 0o644, "#!/bin/sh\n");
        check(
            &Command::new(&plain),
            ErrorKind::NotExecutable,
            exec,
            Some(libc::EACCES),
            "no permission to be executed",
        );
        let orphan = scratch.file("orphan", 0o755, "#! /no/such/interpreter -x\n");
        let kind = ErrorKind::InterpreterNotFound;
        check(&Command::new(&orphan), kind, exec, Some(libc::ENOENT), "/no/such/interpreter");
        symlink("nowhere", scratch.join("dangling")).unwrap();
        let dangling = scratch.join("dangling");
        check(&Command::new(dangling), ErrorKind::NotFound, exec, Some(libc::ENOENT), "dangling");
        symlink("loop", scratch.join("loop")).unwrap();
        check(&Command::new(scratch.join("loop")), ErrorKind::Io, exec, Some(libc::ELOOP), "loop");
        let long = scratch.join("x".repeat(300));
        check(&Command::new(long), ErrorKind::Io, exec, Some(libc::ENAMETOOLONG), "xxx");
        let below = plain.join("below");
        check(&Command::new(below), ErrorKind::NotFound, exec, Some(libc::ENOTDIR), "below");
        let noise = scratch.file("noise", 0o755, [0x7f, 1, 2, 3]);
        check(&Command::new(noise), ErrorKind::NotExecutable, exec, Some(libc::ENOEXEC), "no program of this machine");
    });
}

/// B8: no surprise shell.
#[test]
fn a_script_without_an_interpreter_line_is_refused() {
    alone!({
        let scratch = Scratch::new();
        let none = [("text", "echo surprise\n"), ("empty", ""), ("blank", "#! \n")];
        for (name, text) in none {
            let path = scratch.file(name, 0o755, text);
            let error = refused(&Command::new(path));
            assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NotExecutable, Some(libc::ENOEXEC)), "{name}");
        }
        let hashes = scratch.file("hashes", 0o755, "#!");
        let errno = std::process::Command::new(&hashes).spawn().unwrap_err().raw_os_error();
        assert_eq!(refused(&Command::new(hashes)).raw_os_error(), errno);
        let unended = scratch.file("unended", 0o755, "#!/bin/sh");
        assert!(Command::new(unended).output().unwrap().success());
        let long = scratch.file("long", 0o755, format!("#!/{}\n", "x".repeat(300)));
        let error = refused(&Command::new(long));
        assert!(matches!(error.raw_os_error(), Some(libc::ENOEXEC | libc::ENOENT | libc::ENAMETOOLONG)), "{error}");
    });
}

/// B3: ENOENT of the directory is not ENOENT of the program.
#[test]
fn a_missing_directory_is_not_a_missing_program() {
    alone!({
        let scratch = Scratch::new();
        let (gone, here) = (scratch.join("gone"), scratch.path());
        let kind = ErrorKind::DirectoryNotFound;
        let (chdir, enoent) = (Some("chdir"), Some(libc::ENOENT));
        check(&Command::new("/bin/true").current_dir(&gone), kind, chdir, enoent, gone.to_str().unwrap());
        check(&Command::new("/no/program").current_dir(&gone), kind, chdir, enoent, "gone");
        check(&Command::new("/no/program").current_dir(here), ErrorKind::NotFound, Some("exec"), enoent, "/no/program");
        let file = scratch.file("file", 0o644, "");
        check(&Command::new("/bin/true").current_dir(file), kind, chdir, Some(libc::ENOTDIR), "file");
        let name = Command::new("no-such-program").env("PATH", "/usr/bin:/bin").current_dir(&gone);
        assert_eq!(refused(&name).kind(), ErrorKind::NotFound);
    });
}

/// B14: as execvp does, a permission error is passed over while looking on, and reported if nothing else is found.
#[test]
fn permission_is_passed_over_and_never_hidden() {
    alone!({
        if done_as_nobody() {
            return;
        }
        let scratch = Scratch::new();
        let [closed, plain, good, none] = ["closed", "plain", "good", "none"].map(|name| scratch.directory(name));
        scratch.file("closed/tool", 0o755, "#!/bin/sh\n");
        scratch.file("plain/tool", 0o644, "#!/bin/sh\n");
        scratch.file("good/tool", 0o755, "#!/bin/sh\necho good\n");
        set_mode(&closed, 0);
        let tool = |places: &[&Path]| Command::new("tool").env("PATH", std::env::join_paths(places).unwrap());
        let found = tool(&[&closed, &plain, &none, &good]).output().unwrap();
        assert_eq!(found.stdout(), b"good\n");
        for places in [[&closed, &none], [&plain, &none], [&none, &plain]] {
            let error = refused(&tool(&[places[0], places[1]]));
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
            assert!(error.failed_path().is_some_and(|path| path.ends_with("tool")), "{error}");
        }
        let error = refused(&Command::new(closed.join("tool")));
        assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("exec")), "{error}");
        let error = refused(&Command::new("/bin/true").current_dir(&closed));
        assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("chdir")), "{error}");
        set_mode(&closed, 0o755);
    });
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// B7: one string is one limit, all together are another.
#[test]
fn too_long_says_which_limit() {
    alone!({
        let sized = |size: usize| Command::new("/bin/true").arg("x".repeat(size));
        assert!(sized(131_071).output().unwrap().success());
        let kind = ErrorKind::ArgumentListTooLong;
        let (exec, e2big) = (Some("exec"), Some(libc::E2BIG));
        let error = refused(&sized(131_072));
        assert_eq!((error.kind(), error.failed_step(), error.raw_os_error()), (kind, exec, e2big));
        assert!(error.to_string().contains("argument 1 alone"), "{}", error.to_string().len());
        let error = refused(&Command::new("/bin/true").env("LONG_ONE", "x".repeat(140_000)));
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("variable LONG_ONE alone"));
        let secret = Command::new("/bin/true").secret_env("HIDDEN", "hunter2".repeat(20_000));
        assert!(!refused(&secret).to_string().contains("hunter2"));
        // A quarter of the stack limit, which is what we say, though never more than 6 MiB.
        let (soft, hard) = getrlimit(Nix::RLIMIT_STACK).unwrap();
        let stack = (1 << 20).min(hard);
        setrlimit(Nix::RLIMIT_STACK, stack, hard).unwrap();
        let many = |count: usize| Command::new("/bin/true").env_clear().args(vec!["y".repeat(1015); count]);
        let fitting = (stack / 4 / 1024) as usize;
        assert!(many(fitting - 8).output().unwrap().success());
        let error = refused(&many(fitting + 8));
        assert_eq!(error.kind(), kind);
        let text = error.to_string();
        assert!(text.contains(&format!("{} arguments", fitting + 9)) && text.contains("RLIMIT_STACK"));
        setrlimit(Nix::RLIMIT_STACK, soft, hard).unwrap();
    });
}

/// B6: at every limit it works or fails cleanly, and says what is lacking.
#[test]
fn any_number_of_free_descriptors_works_or_fails_cleanly() {
    alone!({
        let (soft, hard) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let echo = fixture("echo").arg("fine").limit(Resource::Nofile, soft, hard);
        let before = descriptors();
        echo.output().unwrap();
        let mut worked = 0;
        for limit in 3..=40 {
            setrlimit(Nix::RLIMIT_NOFILE, limit, hard).unwrap();
            let results = [
                echo.output().map(|output| assert_eq!(output.stdout(), b"fine\n")),
                echo.clone().pipe_all().spawn().map(|mut child| assert!(child.wait().unwrap().success())),
                echo.clone().stdout(Stdio::null()).status().map(|status| assert!(status.success())),
            ];
            setrlimit(Nix::RLIMIT_NOFILE, soft, hard).unwrap();
            for result in results {
                match result {
                    Ok(()) => worked += 1,
                    Err(error) => {
                        assert!(error.is_resource_exhausted(), "at {limit}: {error:?}");
                        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "at {limit}: {error:?}");
                    }
                }
            }
            // The portable engine's threads may still be closing their pipes.
            wait_for("the end of all descriptors", || descriptors() == before);
            assert_eq!(children(), Vec::<String>::new(), "at {limit}");
        }
        assert!((10..114).contains(&worked), "{worked} of 114 worked");
    });
}

/// B6: no more processes.
#[test]
fn no_more_processes_is_said_so() {
    alone!({
        if done_as_nobody() {
            return;
        }
        let (soft, hard) = getrlimit(Nix::RLIMIT_NPROC).unwrap();
        // The route is chosen while there is room.
        fixture("exit").arg("0").status().unwrap();
        setrlimit(Nix::RLIMIT_NPROC, 0, hard).unwrap();
        let error = refused(&fixture("exit").arg("0").pipe_all());
        setrlimit(Nix::RLIMIT_NPROC, soft, hard).unwrap();
        assert!(error.is_resource_exhausted(), "{error:?}");
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert!(error.to_string().contains("RLIMIT_NPROC"), "{error}");
        assert!(fixture("exit").arg("0").status().unwrap().success());
    });
}

/// B6: the other shortages, by injection.
#[test]
fn shortages_are_exhausted_resources() {
    alone!({
        fixture("exit").arg("0").status().unwrap();
        let births = [libc::SYS_clone3, libc::SYS_clone];
        let cases = [
            (&births[..], libc::ENOMEM, "memory"),
            (&births[..], libc::EAGAIN, "processes"),
            (&[libc::SYS_pipe2][..], libc::ENFILE, "pipe"),
        ];
        for (numbers, errno, word) in cases {
            let command = fixture("exit").arg("0").pipe_all();
            let Some(result) = supervise(numbers, || command.spawn(), |call| call.ours.then_some(errno)) else {
                return;
            };
            let error = result.unwrap_err();
            assert!(error.is_resource_exhausted(), "{error:?}");
            assert_eq!(error.raw_os_error(), Some(errno), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
    });
}

/// B16: a bounded number of tries, and then an error that says so.
#[test]
fn a_busy_program_is_tried_again_for_a_while() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("busy", 0o755, "#!/bin/sh\necho ran\n");
        let writer = File::options().append(true).open(&path).unwrap();
        let started = Instant::now();
        let error = refused(&Command::new(&path));
        assert!(started.elapsed() >= Duration::from_millis(31));
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::ExecutableBusy, Some(libc::ETXTBSY)), "{error}");
        drop(writer);
        assert_eq!(Command::new(&path).check_output().unwrap(), b"ran\n");
        let mut tries = 0;
        let result = supervise(
            &[libc::SYS_execve],
            || Command::new(&path).check_output().unwrap(),
            |call| {
                tries += usize::from(!call.after_exec);
                (tries <= 5).then_some(libc::ETXTBSY)
            },
        );
        if let Some(output) = result {
            assert_eq!((output.as_slice(), tries), (&b"ran\n"[..], 6));
        }
    });
}

/// B16: the fence and the time between birth and program shut each other out.
#[test]
fn the_fence_waits_for_births_and_births_for_the_fence() {
    alone!({
        let command = fixture("exit").arg("0");
        command.status().unwrap();
        let fenced = AtomicBool::new(false);
        let fence = || {
            let _fence = procession::spawn_fence();
            fenced.store(true, Ordering::SeqCst);
        };
        // A moment in which a broken fence would be seen; one that holds is never seen, however long it is.
        let moment = Duration::from_millis(100);
        let mut early = false;
        std::thread::scope(|scope| {
            let result = supervise(
                &[libc::SYS_execve],
                || assert!(command.status().unwrap().success()),
                |call| {
                    if !call.after_exec {
                        scope.spawn(fence);
                        std::thread::sleep(moment);
                        // Told below: a panic here would leave the call without an answer.
                        early |= fenced.load(Ordering::SeqCst);
                    }
                    None
                },
            );
            if result.is_some() {
                wait_for("the fence", || fenced.load(Ordering::SeqCst));
            }
            assert!(!early, "a child was between birth and program");
            let guard = procession::spawn_fence();
            let starter = scope.spawn(|| command.status().unwrap());
            std::thread::sleep(moment);
            assert!(!starter.is_finished());
            assert_eq!(children(), Vec::<String>::new());
            drop(guard);
            assert!(starter.join().unwrap().success());
        });
    });
}

/// B16: with the fence, no program that was just written is busy.
#[test]
fn the_fence_keeps_fresh_programs_from_being_busy() {
    alone!({
        let scratch = Scratch::new();
        let done = AtomicBool::new(false);
        let (scratch, done) = (&scratch, &done);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        fixture("exit").arg("0").check_call().unwrap();
                    }
                });
            }
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    scope.spawn(move || {
                        for round in 0..40 {
                            let name = format!("{writer}-{round}");
                            let path = scratch.file(&name, 0o755, format!("#!/bin/sh\necho {name}\n"));
                            let mut tries = 0;
                            let out = supervise(
                                &[libc::SYS_execve],
                                || Command::new(&path).check_output().unwrap(),
                                |call| {
                                    tries += usize::from(!call.after_exec);
                                    None
                                },
                            );
                            let Some(out) = out else { return };
                            // A second try would hide what the fence is for.
                            assert_eq!(tries, 1);
                            assert_eq!(out, format!("{name}\n").into_bytes());
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok));
        });
    });
}

/// B9, B10: refused by name before anything exists.
#[test]
fn zero_bytes_and_odd_keys_create_nothing() {
    alone!({
        let odd = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let started = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&started);
        let base = fixture("exit").arg("0").pipe_all().on_spawn(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let before = descriptors();
        let mut cases = vec![base.clone().env("", "v"), base.clone().env("A=B", "v"), Command::new("")];
        for bytes in [&b"\0x"[..], b"x\0x", b"x\0"] {
            cases.push(Command::new(odd(bytes)));
            cases.push(Command::new(Path::new(&odd(bytes))));
            cases.push(base.clone().executable(odd(bytes)));
            cases.push(base.clone().arg(odd(bytes)));
            cases.push(base.clone().arg0(odd(bytes)));
            cases.push(base.clone().env(odd(bytes), "v"));
            cases.push(base.clone().env("K", odd(bytes)));
            cases.push(base.clone().current_dir(odd(bytes)));
        }
        for command in cases {
            for error in [refused(&command), command.output().unwrap_err(), command.call().unwrap_err()] {
                assert!(error.is_invalid_input(), "{error:?}");
                assert_eq!(error.raw_os_error(), None, "{error:?}");
            }
            assert_eq!(descriptors(), before);
        }
        assert_eq!(started.load(Ordering::Relaxed), 0);
    });
}

/// B4: nothing is left behind, however often it fails.
#[test]
fn three_hundred_failures_leave_nothing() {
    alone!({
        let scratch = Scratch::new();
        let script = scratch.file("script", 0o755, "#!/no/interpreter\n");
        let missing = Command::new("/no/such/program").pipe_all();
        let commands = [
            missing.clone(),
            Command::new(script).pipe_all(),
            fixture("exit").current_dir("/no/such/directory").pipe_all(),
            fixture("exit").stdin(Stdio::read("/no/such/file")).stdout(Stdio::piped()),
            fixture("exit").pipe_all().process_group(1_000_000),
            missing.clone().stdin(Stdio::null()).fd(20, Stdio::null()),
        ];
        assert!(missing.spawn().is_err());
        let (files, threads) = (descriptors(), thread_count());
        for _ in 0..50 {
            for command in &commands {
                assert!(command.spawn().is_err());
                assert!(command.output().is_err());
            }
        }
        assert_eq!((descriptors(), thread_count()), (files, threads));
        assert_eq!(children(), Vec::<String>::new());
    });
}

fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// B5: a number that another thread got meanwhile is never closed.
#[test]
fn failures_close_nothing_of_others() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("file", 0o644, "x");
        let inode = fs::metadata(&path).unwrap().ino();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) {
                    let files: Vec<File> = (0..8).map(|_| File::open(&path).unwrap()).collect();
                    for file in files {
                        assert_eq!(file.metadata().unwrap().ino(), inode);
                        nix::unistd::close(file).unwrap();
                    }
                    rounds += 1;
                }
                rounds
            });
            let missing = Command::new("/no/such/program").pipe_all();
            let fine = fixture("exit").arg("0").pipe_all();
            for _ in 0..300 {
                assert!(missing.spawn().is_err());
                assert!(fine.spawn().unwrap().wait().unwrap().success());
            }
            done.store(true, Ordering::Relaxed);
            assert!(opener.join().unwrap() > 0);
        });
    });
}

/// B15: there is always a first word.
#[test]
fn an_argument_vector_is_never_empty() {
    alone!({
        assert!(refused(&Command::new("")).is_invalid_input());
        let output = fixture("argv").arg0("").output().unwrap();
        assert_eq!(output.stdout_text().unwrap(), "\"\"\n\"argv\"\n");
    });
}

/// B22: the child leaves only by exec or _exit, so what the host has not flushed appears once.
#[test]
fn unflushed_output_of_the_host_appears_once() {
    alone!({
        use std::io::{BufWriter, Write};
        let (mut reader, writer) = procession::pipe().unwrap();
        let mut buffered = BufWriter::new(writer);
        buffered.write_all(b"once").unwrap();
        assert!(Command::new("/no/such/program").spawn().is_err());
        // SAFETY: a hook that fails and does nothing else.
        let hooked = unsafe { fixture("exit").pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EIO))) };
        assert!(hooked.spawn().is_err());
        drop(buffered);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "once");
    });
}

/// H15, H7: what is shown of a failed command is a line without control characters, and without secrets.
#[test]
fn errors_of_secret_commands_keep_the_secret() {
    alone!({
        let command = Command::new("/no/such/program").secret_arg("hunter2").secret_env("TOKEN", "hunter2");
        let error = refused(&command);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    });
}
