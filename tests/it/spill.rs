//! What memory does not hold: how much is kept, where the rest goes, and what that costs.

use crate::support::{Scratch, alone, children, done_as_nobody, fixture, is_root};
use crate::talk::{in_two_parts, noise, own_status, pattern, talk_until_it_wrote};
use procession::{Command, ErrorKind, Overflow, Stdio, Stop, Stream};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

#[test]
fn the_file_is_there_as_soon_as_there_is_more() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("out");
        for (size, spills) in [(0, false), (9_999, false), (10_000, false), (10_001, true), (1_000_000, true)] {
            for block in ["1000", "65536"] {
                fs::write(&path, "of the last run").unwrap();
                let command = fixture("spew").args([&size.to_string(), block]);
                let output = command.capture_limit(10_000, Overflow::Spill(path.clone())).output().unwrap();
                let stdout = output.captured_stdout();
                assert_eq!(stdout.spilled(), spills.then_some(&*path), "{size}");
                assert_eq!((stdout.total(), stdout.dropped(), stdout.gap()), (size as u64, 0, None));
                assert!(stdout.bytes() == pattern(size.min(10_000)), "memory holds the beginning");
                let expected = if spills { pattern(size) } else { Vec::new() };
                assert!(fs::read(&path).unwrap() == expected, "and the file all of it, {size}");
                assert!(output.is_complete());
            }
        }
    });
}

#[test]
fn each_stream_has_its_file() {
    alone!({
        let scratch = Scratch::new();
        let (path, beside) = (scratch.join("out"), scratch.join("out.stderr"));
        let both = fixture("alternate").args(["300000", "1000", "3000"]);
        let spilling = both.clone().capture_limit(1000, Overflow::Spill(path.clone()));
        let output = spilling.output().unwrap();
        assert_eq!(output.captured_stderr().spilled(), Some(&*beside));
        assert!(fs::read(&path).unwrap() == pattern(300_000) && fs::read(&beside).unwrap() == pattern(300_000));
        // One alone.
        fs::remove_file(&beside).unwrap();
        let own = scratch.join("own");
        let output = both.capture_limit_stderr(1000, Overflow::Spill(own.clone())).output().unwrap();
        assert_eq!(output.captured_stdout().spilled(), None);
        assert!(output.stdout() == pattern(300_000) && fs::read(&own).unwrap() == pattern(300_000));
        assert!(!beside.exists());
        // No file is made for a stream that goes elsewhere.
        let nothing = scratch.join("nothing");
        let elsewhere = fixture("echo").arg("x").capture_limit(0, Overflow::Spill(nothing.clone()));
        elsewhere.stdout(Stdio::null()).stderr(Stdio::null()).output().unwrap();
        assert!(!nothing.exists());
        // Of stages and what is shown as it comes as well.
        let (last, mut total) = (scratch.join("last"), 0);
        let limited = fixture("cat").capture_limit(10, Overflow::Spill(last.clone()));
        let output = (fixture("spew").arg("100000") | limited).for_each_chunk(|_, bytes| total += bytes.len()).unwrap();
        assert_eq!((total, output.captured_stdout().spilled()), (100_000, Some(&*last)));
        assert!(fs::read(&last).unwrap() == pattern(100_000));
    });
}

#[test]
fn a_file_that_cannot_be_made_is_told_before_a_process_is_made() {
    alone!({
        if done_as_nobody() {
            return;
        }
        let scratch = Scratch::new();
        let made = scratch.join("made");
        let touching = fixture("touch").arg(&made);
        let mut paths = vec![scratch.join("no/such/folder"), scratch.path().to_owned()];
        if !is_root() {
            paths.push("/proc/1/mem".into());
        }
        for path in paths {
            let error = touching.clone().capture_limit(10, Overflow::Spill(path.clone())).output().unwrap_err();
            assert_eq!(error.failed_path(), Some(&*path), "{error}");
            assert!(error.to_string().contains("touch"), "{error}");
        }
        assert!(!made.exists());
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn a_disk_that_fills_up_ends_the_run_and_is_named() {
    alone!({
        let full = || Overflow::Spill("/dev/full".into());
        let limited =
            fixture("flood").stop(Stop::kill()).capture_limit(1000, full()).capture_limit_stderr(10, Overflow::Head);
        let error = limited.output().unwrap_err();
        assert_eq!((error.failed_path(), error.raw_os_error()), (Some("/dev/full".as_ref()), Some(libc::ENOSPC)));
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.to_string().contains("flood"), "{error}");
        assert!(error.output().stdout().starts_with(b"y\ny\n"), "what was read is in the record");
        assert_eq!(children(), Vec::<String>::new());
        // Up to the limit nothing is written.
        let small = fixture("spew").arg("1000").capture_limit(1000, full()).capture_limit_stderr(10, Overflow::Head);
        assert!(small.output().unwrap().success());
        let shown =
            fixture("flood").capture_limit(10, full()).capture_limit_stderr(10, Overflow::Head).stop(Stop::kill());
        assert_eq!(shown.for_each_chunk(|_, _| ()).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(children(), Vec::<String>::new());
    });
}

/// A disk of one mebibyte that only this thread sees; no if there are no rights.
fn small_disk(place: &CString) -> bool {
    let none = std::ptr::null();
    // SAFETY: flags; this thread leaves its mounts to itself.
    let alone = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    // SAFETY: strings that end with a zero, and null where that is allowed.
    let private =
        alone && unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) } == 0;
    let (kind, size) = (c"tmpfs".as_ptr(), c"size=1m".as_ptr());
    // SAFETY: strings that end with a zero.
    private && unsafe { libc::mount(kind, place.as_ptr(), kind, 0, size.cast()) } == 0
}

#[test]
fn a_disk_that_fills_up_in_the_middle_keeps_what_it_got() {
    alone!({
        let scratch = Scratch::new();
        let place = CString::new(scratch.path().as_os_str().as_bytes()).unwrap();
        if !small_disk(&place) {
            eprintln!("skipped: no right to mount");
            return;
        }
        let path = scratch.join("out");
        let limited = fixture("spew").arg((8 * MIB).to_string()).capture_limit(1000, Overflow::Spill(path.clone()));
        let error = limited.output().unwrap_err();
        assert_eq!((error.failed_path(), error.raw_os_error()), (Some(&*path), Some(libc::ENOSPC)));
        assert_eq!(children(), Vec::<String>::new());
        let written = fs::read(&path).unwrap();
        assert!(written.len() > MIB / 2 && written == pattern(written.len()));
        // SAFETY: a string that ends with a zero.
        assert_eq!(unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) }, 0);
    });
}

#[test]
fn a_conversation_that_timed_out_goes_on_into_the_same_file() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("out");
        let (command, hold) = in_two_parts("0123456789", "abcdefghij");
        let mut child = command.capture_limit(5, Overflow::Spill(path.clone())).pipe_all().spawn().unwrap();
        let error = talk_until_it_wrote(&mut child, 10);
        assert_eq!(error.output().stdout(), b"01234");
        assert_eq!(error.output().captured_stdout().spilled(), Some(&*path));
        assert_eq!(fs::read(&path).unwrap(), b"0123456789");
        drop(hold);
        let output = child.communicate(()).unwrap();
        assert_eq!((output.stdout(), output.captured_stdout().total()), (&b"01234"[..], 20));
        assert_eq!(fs::read(&path).unwrap(), b"0123456789abcdefghij");
        assert!(output.is_complete());
    });
}

#[test]
fn the_file_stays_whole_when_the_rest_is_handed_out() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("out");
        let (command, hold) = in_two_parts("01\\n3456789\\n", "abc\\n");
        let mut child = command.capture_limit(5, Overflow::Spill(path.clone())).pipe_all().spawn().unwrap();
        talk_until_it_wrote(&mut child, 11);
        drop(hold);
        let rest: Vec<_> = child.lines().only(Stream::Stdout).map(|line| line.unwrap().text().into_owned()).collect();
        assert!(rest.last().unwrap().ends_with("abc"), "{rest:?}");
        let output = child.communicate(()).unwrap();
        assert_eq!(output.captured_stdout().spilled(), Some(&*path));
        assert_eq!(fs::read(&path).unwrap(), b"01\n3456789\nabc\n", "the file holds all of it");
    });
}

#[test]
fn a_flood_is_bounded_by_every_policy() {
    alone!({
        let before = own_status("VmHWM");
        for overflow in [Overflow::Head, Overflow::Tail, Overflow::HeadTail, Overflow::Spill("/dev/null".into())] {
            let flood = Command::shell("yes | head -c 2000000000").stderr(Stdio::null());
            let flood = flood.capture_limit(MIB, overflow.clone()).timeout(Duration::from_secs(60));
            let output = flood.output().unwrap();
            assert_eq!(output.captured_stdout().total(), 2_000_000_000, "{overflow:?}");
            assert_eq!(output.stdout().len(), MIB);
            let grown = own_status("VmHWM") - before;
            assert!(grown < 12 * 1024, "{overflow:?}: {grown} KiB");
        }
        let error = fixture("flood").capture_limit(MIB, Overflow::Fail).stop(Stop::kill()).output().unwrap_err();
        assert_eq!((error.kind(), error.output().stdout().len()), (ErrorKind::Overflow, MIB));
        assert_eq!(error.output().captured_stdout().bytes(), b"y\n".repeat(MIB / 2));
    });
}

#[test]
fn a_buffer_of_the_callers_is_used_again() {
    alone!({
        let mut buffer = Vec::new();
        let bytes = noise(3 * MIB);
        for round in 0..3 {
            let output = fixture("cat").input(bytes.clone()).output_into(&mut buffer).unwrap();
            assert!(buffer == bytes, "round {round}");
            assert!(output.stdout().is_empty() && output.is_complete());
            assert_eq!(output.captured_stdout().total(), bytes.len() as u64);
        }
        let (capacity, place) = (buffer.capacity(), buffer.as_ptr());
        fixture("echo").arg("x").output_into(&mut buffer).unwrap();
        assert_eq!((buffer.as_slice(), buffer.capacity(), buffer.as_ptr()), (&b"x\n"[..], capacity, place));
        fixture("exit").arg("0").stdout(Stdio::null()).output_into(&mut buffer).unwrap();
        assert!(buffer.is_empty());
        buffer.extend_from_slice(b"old");
        let error = fixture("spew").arg("1000").capture_limit(10, Overflow::Fail).output_into(&mut buffer).unwrap_err();
        assert_eq!((error.output().stdout(), buffer.as_slice()), (&pattern(10)[..], &b""[..]));
        assert!(Command::new("no-such-program").output_into(&mut buffer).is_err());
    });
}

#[test]
fn two_streams_cannot_share_a_file() {
    alone!({
        let scratch = Scratch::new();
        let spill = || Overflow::Spill(scratch.join("both"));
        let error = fixture("exit").capture_limit(10, spill()).capture_limit_stderr(10, spill()).output().unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
        assert!(!scratch.join("both").exists());
    });
}
