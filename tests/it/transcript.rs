//! Both streams as one log.

use crate::support::{alone, fixture};
use crate::talk::{in_two_parts, pattern, talk_until_it_wrote};
use procession::{Command, Output, Overflow, Piece, Stdio, Stream};
use std::time::Duration;

/// What came of a stream by the pieces.
fn of(output: &Output, stream: Stream) -> Vec<u8> {
    let pieces = output.transcript();
    pieces.iter().filter(|piece| piece.stream() == stream).flat_map(|piece| piece.bytes().to_vec()).collect()
}

#[track_caller]
fn holds_together(output: &Output) {
    let pieces = output.transcript();
    assert!(!pieces.is_empty());
    assert_eq!(of(output, Stream::Stdout), output.stdout());
    assert_eq!(of(output, Stream::Stderr), output.stderr());
    for (stream, captured) in [(Stream::Stdout, output.captured_stdout()), (Stream::Stderr, output.captured_stderr())] {
        let total: u64 = pieces.iter().filter(|piece| piece.stream() == stream).map(Piece::total).sum();
        assert_eq!(total, captured.total());
        assert!(pieces.iter().all(|piece| piece.bytes().len() as u64 <= piece.total() && piece.total() > 0));
    }
    assert!(pieces.windows(2).all(|two| two[0].at() <= two[1].at()), "time does not go back");
    assert!(pieces.iter().all(|piece| piece.at() <= output.elapsed()));
    assert!(
        pieces
            .iter()
            .skip(1)
            .zip(&pieces)
            .all(|(piece, before)| { !piece.is_simultaneous() || piece.stream() != before.stream() })
    );
    assert!(!pieces[0].is_simultaneous());
}

#[test]
fn what_was_written_long_before_comes_before() {
    alone!({
        let script = "echo a; sleep 0.5; echo b >&2; sleep 0.5; echo c >&2; sleep 0.5; printf d";
        let output = Command::shell(script).transcript().output().unwrap();
        holds_together(&output);
        let pieces = output.transcript();
        let seen: Vec<_> = pieces.iter().map(|piece| (piece.stream(), piece.bytes())).collect();
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        assert_eq!(seen, [(out, &b"a\n"[..]), (err, b"b\n"), (err, b"c\n"), (out, b"d")]);
        assert!(pieces.iter().all(|piece| !piece.is_simultaneous()));
        assert!(pieces[3].at() - pieces[0].at() >= Duration::from_millis(1500));
    });
}

#[test]
fn what_was_found_in_one_look_is_marked() {
    alone!({
        let mut child = Command::shell("echo out; echo err >&2").transcript().pipe_all().spawn().unwrap();
        // Both are there before anybody looks.
        child.wait().unwrap();
        let output = child.communicate(()).unwrap();
        holds_together(&output);
        let seen: Vec<_> = output.transcript().iter().map(|piece| (piece.stream(), piece.is_simultaneous())).collect();
        assert_eq!(seen, [(Stream::Stdout, false), (Stream::Stderr, true)]);
    });
}

#[test]
fn what_was_dropped_is_counted_where_it_was() {
    alone!({
        for overflow in [Overflow::Head, Overflow::Tail, Overflow::HeadTail] {
            let noisy = fixture("alternate").args(["300000", "1000", "3000"]).transcript();
            let output = noisy.capture_limit(50_000, overflow.clone()).output().unwrap();
            holds_together(&output);
            assert_eq!(output.captured_stdout().total(), 300_000, "{overflow:?}");
            assert_eq!(output.stdout().len(), 50_000);
            let kept: usize = output.transcript().iter().map(|piece| piece.bytes().len()).sum();
            assert_eq!(kept, 100_000);
        }
        let all = fixture("alternate").args(["300000", "1000", "3000"]).transcript().output().unwrap();
        holds_together(&all);
        assert!(of(&all, Stream::Stderr) == pattern(300_000));
    });
}

#[test]
fn a_record_in_the_middle_has_one_as_well() {
    alone!({
        let (command, hold) = in_two_parts("one", "two");
        let mut child = command.transcript().pipe_all().spawn().unwrap();
        let error = talk_until_it_wrote(&mut child, 3);
        holds_together(error.output());
        assert_eq!(error.output().transcript().len(), 1);
        drop(hold);
        let output = child.communicate(()).unwrap();
        holds_together(&output);
        assert_eq!(output.transcript().len(), 2);
        // Also of what is shown as it comes.
        let shown = fixture("lines").arg("50000").transcript().for_each_chunk(|_, _| ()).unwrap();
        holds_together(&shown);
        assert_eq!(shown.stdout().len(), 64 * 1024);
        let error = fixture("say-sleep").args(["x", "60000", "y"]).transcript().timeout(Duration::from_millis(200));
        holds_together(error.output().unwrap_err().output());
    });
}

#[test]
fn those_of_all_stages_are_one() {
    alone!({
        let loud =
            |text: &str, seconds: &str| Command::shell(format!("cat; sleep {seconds}; echo {text} >&2")).transcript();
        let pipeline = loud("first", "0") | loud("second", "0.5") | loud("third", "0.5");
        let output = pipeline.input("data\n").output().unwrap();
        let pieces = output.transcript();
        let seen: Vec<_> = pieces.iter().map(|piece| String::from_utf8_lossy(piece.bytes()).into_owned()).collect();
        assert_eq!(seen.len(), 4);
        assert!(seen.contains(&"data\n".to_owned()));
        assert!(pieces.iter().all(|piece| match piece.bytes() {
            b"first\n" => piece.stage() == 0,
            b"second\n" => piece.stage() == 1,
            _ => piece.stage() == 2,
        }));
        let errors: Vec<_> = seen.iter().filter(|text| *text != "data\n").collect();
        assert_eq!(errors, ["first\n", "second\n", "third\n"]);
        assert!(pieces.windows(2).all(|two| two[0].at() <= two[1].at()));
        assert!(pieces.iter().all(|piece| piece.at() <= output.stages()[2].elapsed() + Duration::from_millis(100)));
    });
}

#[test]
fn nobody_gets_one_who_has_not_asked() {
    alone!({
        let output = fixture("echo").arg("x").output().unwrap();
        assert!(output.transcript().is_empty());
        let output = fixture("echo").arg("x").transcript().stdout(Stdio::null()).output().unwrap();
        assert!(output.transcript().is_empty());
        let mut buffer = Vec::new();
        let output = fixture("echo").arg("x").transcript().output_into(&mut buffer).unwrap();
        assert_eq!(buffer, b"x\n");
        let totals: Vec<_> = output.transcript().iter().map(|piece| (piece.bytes().len(), piece.total())).collect();
        assert_eq!(totals, [(0, 2)], "the bytes are the caller's");
    });
}
