//! From a command to a process: which file is run, what it sees as its name, directory and environment; lines and shells;
//! looking at a command without running it, and running it often and from many threads.

use crate::inject::supervise;
use crate::support::{Scratch, alone, children, descriptors, done_as_nobody, fixture, fixture_path, script};
use procession::{Child, Command, ErrorKind, Plan, ProcessHandle, Program, SpawnRoute, Stdio, cmd, pipe, quote};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[track_caller]
fn said(command: &Command) -> String {
    let output = command.output().unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout_text().unwrap().trim_end().to_owned()
}

/// A directory with a program `tool` that says this word.
fn with_tool(scratch: &Scratch, word: &str) -> PathBuf {
    let directory = scratch.directory(word);
    scratch.file(Path::new(word).join("tool"), 0o755, format!("#!/bin/sh\necho {word}\n"));
    directory
}

fn joined(places: &[&Path]) -> OsString {
    std::env::join_paths(places).unwrap()
}

/// Changes a variable of this process for the length of the value.
struct Variable(&'static str, Option<OsString>);

impl Variable {
    fn set(key: &'static str, value: impl AsRef<OsStr>) -> Variable {
        let before = std::env::var_os(key);
        // SAFETY: the test's process has no other thread that reads the environment without the lock.
        unsafe { std::env::set_var(key, value) };
        Variable(key, before)
    }
}

impl Drop for Variable {
    fn drop(&mut self) {
        match &self.1 {
            // SAFETY: as above.
            Some(value) => unsafe { std::env::set_var(self.0, value) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(self.0) },
        }
    }
}

/// Goes to a directory and back.
struct Inside(PathBuf);

impl Inside {
    fn of(directory: &Path) -> Inside {
        let before = std::env::current_dir().unwrap();
        std::env::set_current_dir(directory).unwrap();
        Inside(before)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        std::env::set_current_dir(&self.0).unwrap();
    }
}

// ---- which file ----

/// B12: the PATH that the child will have decides, and never a mix.
#[test]
fn a_name_is_searched_in_the_path_of_the_child() {
    alone!({
        let scratch = Scratch::new();
        let (ours, theirs, none) =
            (with_tool(&scratch, "ours"), with_tool(&scratch, "theirs"), scratch.directory("none"));
        let with_bin = |place: &Path| joined(&[place, Path::new("/usr/bin"), Path::new("/bin")]);
        let tool = Command::new("tool");
        let missing = |command: &Command| command.output().unwrap_err().is_not_found();
        {
            let _path = Variable::set("PATH", with_bin(&ours));
            assert_eq!(said(&tool), "ours");
            assert_eq!(said(&tool.clone().env("OTHER", "x")), "ours");
            assert_eq!(said(&tool.clone().env("PATH", with_bin(&theirs))), "theirs");
            assert!(missing(&tool.clone().env("PATH", with_bin(&none))));
            assert!(missing(&tool.clone().env_clear()));
            assert!(missing(&tool.clone().env_remove("PATH")));
            assert!(missing(&tool.clone().env("PATH", "")));
            assert_eq!(said(&tool.clone().env_clear().env("PATH", with_bin(&theirs))), "theirs");
            assert_eq!(said(&tool.clone().env_replace([("PATH", with_bin(&theirs))])), "theirs");
            assert_eq!(tool.plan().unwrap().program(), ours.join("tool"));
        }
        let _path = Variable::set("PATH", with_bin(&none));
        assert!(missing(&tool));
        assert_eq!(said(&tool.env("PATH", with_bin(&theirs))), "theirs");
        // Without a PATH, the system's own places.
        assert_eq!(said(&Command::new("echo").arg("found").env_remove("PATH")), "found");
    });
}

/// B13, H3: neither the current directory nor any other relative one is searched.
#[test]
fn relative_places_are_passed_over() {
    alone!({
        let scratch = Scratch::new();
        let here = with_tool(&scratch, "here");
        let there = with_tool(&scratch, "there");
        let file = scratch.file("file", 0o755, "#!/bin/sh\n");
        let _inside = Inside::of(&here);
        for path in [":/bin", "/bin:", "/bin::/usr/bin", ".", "..", "../here", "~", "", ":", "./:/bin"] {
            let error = Command::new("tool").env("PATH", path).output().unwrap_err();
            assert!(error.is_not_found(), "{path:?}: {error}");
        }
        let path = |places: &str| format!("{places}:{}:/bin", there.display());
        for places in ["", ".", ":.:..", file.to_str().unwrap(), "/no/such/place"] {
            let command = Command::new("tool").env("PATH", path(places));
            assert_eq!(said(&command), "there", "{places:?}");
            assert!(command.plan().unwrap().program().is_absolute());
        }
        for name in [".", ".."] {
            let error = Command::new(name).output().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
        let error = Command::new("file").env("PATH", file.as_os_str()).output().unwrap_err();
        assert!(error.is_not_found(), "{error}");
        // A directory of that name is no program.
        scratch.directory("here/tooldir");
        let error = Command::new("tooldir").env("PATH", joined(&[&here])).output().unwrap_err();
        assert!(error.is_not_found(), "{error}");
    });
}

/// B11: a relative path is relative to the parent's directory, whatever the child's.
#[test]
fn a_relative_program_is_relative_to_the_parent() {
    alone!({
        let scratch = Scratch::new();
        let (ours, theirs) = (with_tool(&scratch, "ours"), with_tool(&scratch, "theirs"));
        let _inside = Inside::of(&ours);
        for program in [Program::from("./tool"), Program::from(Path::new("tool")), Program::from("../ours/tool")] {
            assert_eq!(said(&Command::new(program.clone())), "ours", "{program:?}");
            assert_eq!(said(&Command::new(program.clone()).current_dir(&theirs)), "ours", "{program:?}");
            let fd = File::open(&theirs).unwrap();
            assert_eq!(said(&Command::new(program.clone()).current_dir_fd(fd)), "ours", "{program:?}");
        }
        // A word is searched, a path is not.
        assert!(Command::new("tool").env("PATH", "/usr/bin:/bin").output().unwrap_err().is_not_found());
        let elsewhere = Command::new(Path::new("tool")).env("PATH", joined(&[&theirs]));
        assert_eq!(said(&elsewhere), "ours");
    });
}

/// B14: what the child may not enter is passed over, also when the parent may.
#[test]
fn a_child_of_other_rights_searches_with_its_own() {
    alone!({
        if !crate::support::is_root() {
            return;
        }
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let (closed, open) = (with_tool(&scratch, "closed"), with_tool(&scratch, "open"));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let tool = Command::new("tool").env("PATH", joined(&[&closed, &open, Path::new("/bin")]));
        assert_eq!(said(&tool), "closed");
        assert_eq!(said(&tool.clone().user("nobody").current_dir("/")), "open");
        let only = Command::new("tool").env("PATH", joined(&[&closed, Path::new("/bin")])).user("nobody");
        let error = only.current_dir("/").output().unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::PermissionDenied, Some(libc::EACCES)), "{error}");
    });
}

/// B17: the name the program sees is the one given, or another.
#[test]
fn the_first_word_is_the_name_as_given() {
    alone!({
        let directory = fixture_path().parent().unwrap();
        let found = Command::new("fixture").arg("argv").arg("a b").env("PATH", joined(&[directory]));
        assert_eq!(said(&found), "\"fixture\"\n\"argv\"\n\"a b\"");
        let path = fixture_path().to_str().unwrap();
        assert_eq!(said(&fixture("argv")), format!("{path:?}\n\"argv\""));
        assert_eq!(said(&fixture("argv").arg0("other name")), "\"other name\"\n\"argv\"");
        let executed = Command::new("no-such-name").executable(fixture_path()).arg("argv");
        assert_eq!(said(&executed), "\"no-such-name\"\n\"argv\"");
        assert_eq!(said(&executed.arg0("third")), "\"third\"\n\"argv\"");
        let odd: Vec<OsString> =
            vec!["".into(), "-".into(), "*".into(), "new\nline".into(), OsString::from_vec(vec![0xff])];
        assert_eq!(
            said(&fixture("argv").args(odd)).lines().skip(2).collect::<Vec<_>>(),
            ["\"\"", "\"-\"", "\"*\"", "\"new\\nline\"", "\"\\xFF\""]
        );
    });
}

#[test]
fn the_shell_is_the_systems_and_only_if_asked_for() {
    alone!({
        assert_eq!(said(&Command::shell("echo $((6*7)) \"$1\"").args(["name", "$HOME;x"])), "42 $HOME;x");
        assert_eq!(said(&Command::shell("echo $0").env("PATH", "/nowhere")), "/bin/sh");
        assert_eq!(said(&Command::new("echo").arg("$HOME;`x`|y")), "$HOME;`x`|y");
        assert_eq!(Command::shell("exit 3").status().unwrap().code(), Some(3));
        assert!(said(&Command::new(script("greet.sh"))).len() > 1);
    });
}

#[test]
fn lines_are_read_by_the_shells_rules_and_nothing_is_expanded() {
    alone!({
        let line = format!("A='1 2' B=\"$x\" {} env A B", quote(fixture_path()));
        assert_eq!(said(&Command::parse(line).unwrap()), "A=1 2\nB=$x");
        let line = format!("{} argv 'a b' c\\ d \"it's\" '' $HOME *", quote(fixture_path()));
        let words = ["\"a b\"", "\"c d\"", "\"it's\"", "\"\"", "\"$HOME\"", "\"*\""];
        assert_eq!(said(&Command::parse(line).unwrap()).lines().skip(2).collect::<Vec<_>>(), words);
        let count = 3;
        let command = cmd!(fixture_path(), "argv", count.to_string(), "x",);
        assert_eq!(said(&command).lines().skip(2).collect::<Vec<_>>(), ["\"3\"", "\"x\""]);
        for line in ["", "A=1", "a 'b", "a \\"] {
            assert!(Command::parse(line).unwrap_err().is_invalid_input(), "{line:?}");
        }
    });
}

/// H1: what is quoted comes out of a real shell as it was.
#[test]
fn quoted_words_pass_a_real_shell() {
    alone!({
        let mut seed = 7_u64;
        let mut random = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        let special = b" \t\n'\"\\$`!*?[](){}<>|&;~#=%-^,.\x01\x7f";
        for round in 0..150 {
            let length = random(40);
            let byte = |kind: u64, any: u64| match kind {
                0 => any as u8 % 127 + 1,
                1 => b'a' + any as u8 % 26,
                _ => special[any as usize % special.len()],
            };
            let word: Vec<u8> = (0..length).map(|_| byte(random(3), random(1000))).collect();
            let line = format!("printf %s {}", quote(OsStr::from_bytes(&word)));
            let output = Command::shell(line).output().unwrap();
            assert_eq!(output.stdout(), word, "round {round}: {}", output.command());
        }
        // Also the line that a command displays.
        let command = fixture("argv").arg("it's \"$x\" \\").arg("").env("K", "v w").current_dir("/");
        assert_eq!(said(&Command::shell(command.to_string())), said(&command));
        let removed = fixture("env").arg("HOME").arg("K").env_remove("HOME").env("K", "it's");
        assert_eq!(said(&Command::shell(removed.to_string())), said(&removed));
        // H2: an operand is never an option.
        assert_eq!(said(&fixture("argv").operand("-rf")).lines().last(), Some("\"./-rf\""));
    });
}

// ---- directory ----

/// B18, H11: a directory that has gone, or was swapped.
#[test]
fn directories_by_path_and_by_descriptor() {
    alone!({
        let scratch = Scratch::new();
        let (one, two) = (scratch.directory("one"), scratch.directory("two"));
        assert_eq!(said(&fixture("cwd").current_dir(&one)), one.to_str().unwrap());
        assert_eq!(said(&fixture("cwd").current_dir("/")), "/");
        let link = scratch.join("link");
        symlink(&one, &link).unwrap();
        let by_descriptor = fixture("cwd").current_dir_fd(File::open(&link).unwrap());
        let by_path = fixture("cwd").current_dir(&link);
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert_eq!(said(&by_descriptor), one.to_str().unwrap());
        assert_eq!(said(&by_path), two.to_str().unwrap());
        fs::remove_dir(&one).unwrap();
        assert!(by_descriptor.clone().args(["ignored"]).status().is_ok());
        let file = scratch.file("file", 0o644, "");
        let error = fixture("cwd").current_dir_fd(File::open(file).unwrap()).spawn().unwrap_err();
        assert_eq!((error.failed_step(), error.raw_os_error()), (Some("fchdir"), Some(libc::ENOTDIR)), "{error}");
        let before = std::env::current_dir().unwrap();
        {
            let gone = scratch.directory("gone");
            let _inside = Inside::of(&gone);
            fs::remove_dir(&gone).unwrap();
            assert_eq!(said(&fixture("cwd").current_dir("/")), "/");
            assert!(fixture("exit").arg("0").status().unwrap().success());
            let error = Command::new("./tool").current_dir("/").spawn().unwrap_err();
            assert_eq!(error.failed_step(), Some("getcwd"), "{error}");
        }
        assert_eq!(std::env::current_dir().unwrap(), before);
    });
}

// ---- environment ----

#[test]
fn the_environment_is_inherited_changed_or_replaced() {
    alone!({
        let _own = Variable::set("PROCESSION_OWN", "ours");
        let own = |command: Command| said(&command.args(["PROCESSION_OWN", "K"]));
        assert_eq!(own(fixture("env")), "PROCESSION_OWN=ours");
        assert_eq!(own(fixture("env").env("K", "v=w").env("K", "last")), "K=last\nPROCESSION_OWN=ours");
        assert_eq!(own(fixture("env").env("PROCESSION_OWN", "")), "PROCESSION_OWN=");
        assert_eq!(own(fixture("env").env_remove("PROCESSION_OWN")), "");
        assert_eq!(own(fixture("env").env_remove("K").env("K", "again")), "K=again\nPROCESSION_OWN=ours");
        assert_eq!(said(&fixture("env").env_clear()), "");
        assert_eq!(said(&fixture("env").env("A", "1").env_clear().env("B", "2")), "B=2");
        assert_eq!(said(&fixture("env").env_replace([("B", "2"), ("A", "1"), ("B", "3")])), "A=1\nB=3");
        assert_eq!(said(&fixture("env").env_clear().secret_env("S", "hunter2")), "S=hunter2");
        let odd = OsString::from_vec(vec![0xfe, b'=', b'\n']);
        let output = fixture("env").env_clear().env("K", &odd).output().unwrap();
        assert_eq!(output.stdout(), [b"K=".as_slice(), odd.as_bytes(), b"\n"].concat());
    });
}

/// B10: entries that are no variables do not keep anything from starting.
#[test]
fn odd_entries_of_our_own_environment_do_no_harm() {
    unsafe extern "C" {
        static mut environ: *const *const libc::c_char;
    }
    alone!({
        let entries = [c"ODD", c"=", c"", c"GOOD=yes", c"GOOD=no", c"=C:=x"];
        let mut pointers: Vec<_> = entries.iter().map(|entry| entry.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let place = &raw mut environ;
        // SAFETY: no other thread reads or changes the environment now.
        let before = unsafe { std::ptr::replace(place, pointers.as_ptr()) };
        let inherited = fixture("env").output();
        let changed = fixture("env").env("MORE", "1").output();
        // SAFETY: as above.
        unsafe { place.write(before) };
        let inherited = inherited.unwrap().stdout_text().unwrap();
        assert!(inherited.lines().any(|line| line == "GOOD=yes" || line == "GOOD=no"), "{inherited}");
        assert!(changed.unwrap().stdout_text().unwrap().contains("MORE=1"));
    });
}

// ---- without running it, and more than once ----

#[test]
fn a_plan_is_made_without_a_process() {
    alone!({
        let before = descriptors();
        let command = fixture("exit").arg("0").pipe_all().fd(9, Stdio::null()).umask(0o077).secret_arg("hunter2");
        let plan: Plan = command.plan().unwrap();
        assert_eq!(plan.program(), fixture_path());
        assert_eq!(
            plan.args().collect::<Vec<_>>(),
            [fixture_path().as_os_str(), "exit".as_ref(), "0".as_ref(), "hunter2".as_ref()]
        );
        assert!(plan.env().count() == std::env::vars_os().count());
        let text = plan.to_string();
        assert!(text.contains("umask 077") && text.contains("stream   9 <- null"), "{text}");
        assert!(text.ends_with("step     exec\n") && !text.contains("hunter2"), "{text}");
        assert_eq!(plan, command.plan().unwrap());
        assert_eq!((descriptors(), children()), (before, Vec::new()));
        let missing = Command::new("no-such-program").env("PATH", "/usr/bin:/bin").plan().unwrap_err();
        assert!(missing.is_not_found());
        let scratch = Scratch::new();
        let write = fixture("exit").stdout(Stdio::write(scratch.join("file")));
        write.plan().unwrap();
        assert!(!scratch.join("file").exists());
    });
}

/// F9: a command is a value.
#[test]
fn a_command_can_be_used_again() {
    alone!({
        let command = fixture("cat").pipe_all();
        let mut first = command.spawn().unwrap();
        let mut second = command.spawn().unwrap();
        assert_ne!(first.id(), second.id());
        assert_eq!(second.communicate("two").unwrap().stdout(), b"two");
        assert_eq!(first.communicate("one").unwrap().stdout(), b"one");
        for _ in 0..3 {
            assert_eq!(command.clone().input("again").output().unwrap().stdout(), b"again");
        }
        let (mut reader, writer) = pipe().unwrap();
        let command = fixture("echo").arg("shared").stdout(writer);
        assert!(command.status().unwrap().success() && command.clone().status().unwrap().success());
        drop(command);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "shared\nshared\n");
    });
}

#[test]
fn the_observer_sees_every_start_and_no_refused_one() {
    alone!({
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let command = fixture("exit").arg("0").secret_arg("hunter2").on_spawn(move |command| {
            log.lock().unwrap().push(format!("{command} | {}", command.get_args().count()));
        });
        command.status().unwrap();
        command.output().unwrap();
        command.clone().arg("more").spawn().unwrap().wait().unwrap();
        assert!(command.clone().env("", "v").spawn().is_err());
        command.plan().unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen[0].ends_with("exit 0 *** | 3") && seen[2].ends_with("exit 0 *** more | 4"), "{seen:?}");
    });
}

// ---- threads ----

#[test]
fn what_threads_may_share() {
    fn sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    sync::<Command>();
    sync::<Plan>();
    sync::<ProcessHandle>();
    sync::<Stdio>();
    sync::<procession::Error>();
    sync::<procession::Output>();
    send::<Child>();
}

/// B21: the environment is read under the lock of the runtime, before the birth.
#[test]
fn many_threads_start_while_the_environment_changes() {
    alone!({
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let changer = scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: all others read by std's functions, which lock.
                    unsafe { std::env::set_var("PROCESSION_CHANGES", "x".repeat(count % 5000)) };
                    count += 1;
                }
                // SAFETY: as above.
                unsafe { std::env::remove_var("PROCESSION_CHANGES") };
            });
            let starters: Vec<_> = (0..4)
                .map(|thread| {
                    let command = fixture("echo").arg(thread.to_string());
                    scope.spawn(move || {
                        for _ in 0..50 {
                            assert_eq!(said(&command), thread.to_string());
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = starters.into_iter().map(|starter| starter.join()).collect();
            done.store(true, Ordering::Relaxed);
            changer.join().unwrap();
            assert!(ended.iter().all(Result::is_ok));
        });
    });
}

/// B19: an exec that hangs holds up its own thread and no other.
#[test]
fn a_slow_exec_does_not_hold_up_other_threads() {
    alone!({
        fixture("exit").arg("0").status().unwrap();
        let passed = AtomicUsize::new(0);
        let result = supervise(
            &[libc::SYS_execve],
            || fixture("echo").arg("slow").output().unwrap(),
            |call| {
                // The child is held between birth and program for as long as this takes.
                if !call.after_exec {
                    assert!(fixture("cat").input("x").output().unwrap().success());
                    passed.fetch_add(1, Ordering::Relaxed);
                }
                None
            },
        );
        let Some(output) = result else { return };
        assert_eq!((output.stdout(), passed.load(Ordering::Relaxed)), (&b"slow\n"[..], 1));
    });
}

/// F5: a copy of the host that does not execute anything drops its handles and touches nobody.
#[test]
fn a_forked_copy_of_the_host_leaves_our_children_alone() {
    alone!({
        let mut kept = fixture("pingpong").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop().spawn().unwrap();
        let other = fixture("sleep").arg("60000").spawn().unwrap();
        // SAFETY: the copy only drops what it has and leaves.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            drop(kept);
            drop(other);
            // SAFETY: ends the copy.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: a valid place; the copy is our child.
        unsafe { libc::waitpid(copy, &mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(other.try_wait().unwrap(), None);
        let output = kept.communicate("here\n").unwrap();
        assert_eq!(output.stdout(), b"pong here\n");
        other.kill().unwrap();
        other.handle().wait().unwrap();
    });
}

/// Everything here holds for a user without rights.
#[test]
fn nobody_can_start_programs() {
    alone!({
        if done_as_nobody() {
            return;
        }
        assert_eq!(said(&fixture("echo").arg("fine")), "fine");
        assert_eq!(said(&Command::new("sh").arg("-c").arg("echo $0")), "sh");
        assert!(matches!(SpawnRoute::current(), SpawnRoute::Clone3 | SpawnRoute::Clone | SpawnRoute::Portable));
        let name = CString::new("fine").unwrap();
        assert_eq!(said(&fixture("echo").arg(OsStr::from_bytes(name.to_bytes()))), "fine");
    });
}
