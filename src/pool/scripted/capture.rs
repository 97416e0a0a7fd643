//! What becomes of what a scripted job writes. It goes through the same machine as the output of a real child, so that limits,
//! transcripts and redirections mean the same; nothing is opened, and files and targets get nothing.

use crate::command::{Command, Input, Limit, Stdio};
use crate::error::Error;
use crate::machine::{Machine, STREAMS};
use crate::output::{Output, Stream};
use crate::plan::have_ends;
use std::io;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Capture {
    /// To which end of ours a stream goes, if to any.
    routes: [Option<Stream>; 2],
    limits: [Option<Limit>; 2],
    transcript: bool,
    machine: Machine,
}

impl Capture {
    /// As the verbs that collect have it; of live output only the end is kept, unless the command says how much.
    pub(super) fn of(command: &Command, live: bool) -> Result<Capture, Error> {
        let streams = command.streams_with_targets(&command.collected_streams(Stdio::null())?)?;
        let [stdout_ends, stderr_ends] = have_ends(&streams);
        let [_, stdout, stderr] = &streams;
        let otherwise = || if live { Limit::SHOWN } else { Limit::default() };
        let [stdout_limit, stderr_limit] = command.settings.limits.clone().map(|limit| limit.unwrap_or_else(otherwise));
        let mut capture = Capture {
            routes: [
                route(stdout.as_ref(), (Stream::Stdout, stdout_ends), (Stream::Stderr, stderr_ends)),
                route(stderr.as_ref(), (Stream::Stderr, stderr_ends), (Stream::Stdout, stdout_ends)),
            ],
            limits: [stdout_ends.then_some(stdout_limit), stderr_ends.then_some(stderr_limit)],
            transcript: command.settings.transcript,
            machine: Machine::new(false, None, None),
        };
        capture.begin(live);
        Ok(capture)
    }

    /// Forgets what there was.
    pub(super) fn begin(&mut self, live: bool) {
        let [stdout, stderr] = &self.limits;
        self.machine = Machine::new(true, stdout.as_ref(), stderr.as_ref());
        if self.transcript {
            self.machine.remember_order();
        }
        if live {
            STREAMS.into_iter().for_each(|stream| self.machine.show(stream));
        }
    }

    /// Takes what was written. Says as output of which stream it comes to us, if it does.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8], at: Duration) -> Option<Stream> {
        let [stdout, stderr] = self.routes;
        let to = if stream == Stream::Stdout { stdout } else { stderr }?;
        self.machine.begin_look();
        self.machine.mark(to, bytes.len(), at);
        let mut rest = bytes;
        while !rest.is_empty() && !self.has_overflowed() {
            let read = self.machine.read(to, |buffer, max| {
                let (piece, others) = rest.split_at(rest.len().min(max));
                rest = others;
                buffer.extend_from_slice(piece);
                // Nothing would be the end of the stream.
                if piece.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(piece.len()) }
            });
            // Memory can neither fail to be read, nor is it spilled.
            if read.is_err() {
                break;
            }
        }
        Some(to)
    }

    /// Whether more was written than the limit allows.
    pub(super) fn has_overflowed(&self) -> bool {
        self.machine.overflowed().is_some()
    }

    /// Begins to read the input.
    pub(super) fn open_input(&mut self, input: Option<&Input>) -> io::Result<()> {
        if let Some(input) = input {
            self.machine.add_input(input.open()?);
        }
        Ok(())
    }

    /// Reads a part of the input, nothing at its end.
    pub(super) fn read_input(&mut self) -> io::Result<Vec<u8>> {
        let mut part = Vec::new();
        self.machine.write(|bytes| {
            part.extend_from_slice(bytes);
            Ok(bytes.len())
        })?;
        Ok(part)
    }

    /// Everything was written that there is.
    pub(super) fn close(&mut self) {
        for stream in STREAMS {
            // It is from memory.
            let _ = self.machine.read(stream, |_, _| Ok(0));
        }
    }

    /// Enters into the record what was read until now.
    pub(super) fn enter(&mut self, record: Output) -> Output {
        let [stdout, stderr] = self.machine.snapshot();
        let (input_accepted, input_refused) = self.machine.input();
        let marks = self.machine.take_marks();
        Output { stdout, stderr, input_accepted, input_refused, marks, ..record }
    }
}

/// To which end of ours a stream goes: its own if there is one, or that of the other stream if it joins that.
fn route(stdio: Option<&Stdio>, own: (Stream, bool), other: (Stream, bool)) -> Option<Stream> {
    let joins = stdio.is_some_and(|stdio| stdio.is_other_stream() || stdio.is_pty());
    match (own, other) {
        ((stream, true), _) => Some(stream),
        (_, (stream, true)) if joins => Some(stream),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Overflow, Pty};
    use crate::output::Completeness;

    #[test]
    fn output_goes_where_the_command_says() {
        let command = || Command::new("a");
        for (command, stdout, stderr) in [
            (command(), "out", "err"),
            (command().stderr(Stdio::stdout()), "outerr", ""),
            (command().stdout(Stdio::stderr()), "", "outerr"),
            (command().stdout(Stdio::null()), "", "err"),
            (command().stdout(Stdio::inherit()).stderr(Stdio::stdout()), "", ""),
            (command().stdout(Stdio::write("/nowhere/at/all")), "", "err"),
            (command().pty(Pty::new()), "outerr", ""),
            (command().pty(Pty::new()).stderr(Stdio::piped()), "out", "err"),
            (command().capture_limit(2, Overflow::Head), "ou", "er"),
            (command().capture_limit(2, Overflow::Tail), "ut", "rr"),
        ] {
            let mut capture = Capture::of(&command, false).unwrap();
            capture.write(Stream::Stdout, b"out", Duration::ZERO);
            capture.write(Stream::Stderr, b"err", Duration::ZERO);
            capture.close();
            let output = capture.enter(Output::default());
            let both = (output.stdout_lossy(), output.stderr_lossy());
            assert_eq!(both, (stdout.into(), stderr.into()), "{command}");
        }
    }

    #[test]
    fn much_output_and_much_input_are_taken_whole() {
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| number as u8).collect();
        let command = Command::new("cat").input(bytes.clone());
        let mut capture = Capture::of(&command, false).unwrap();
        capture.open_input(command.input.as_ref()).unwrap();
        loop {
            let part = capture.read_input().unwrap();
            if part.is_empty() {
                break;
            }
            capture.write(Stream::Stdout, &part, Duration::ZERO);
        }
        capture.close();
        let output = capture.enter(Output::default());
        assert!(output.stdout() == bytes && output.is_complete());
        assert_eq!((output.input_accepted(), output.input_refused()), (5_000_000, false));
    }

    #[test]
    fn too_much_is_noticed_and_the_order_is_kept() {
        let command = Command::new("a").capture_limit(3, Overflow::Fail).transcript();
        let mut capture = Capture::of(&command, false).unwrap();
        capture.write(Stream::Stdout, b"abc", Duration::from_secs(1));
        capture.write(Stream::Stderr, b"xy", Duration::from_secs(2));
        assert!(!capture.has_overflowed());
        capture.write(Stream::Stdout, b"d", Duration::from_secs(3));
        assert!(capture.has_overflowed());
        let output = capture.enter(Output::default());
        assert_eq!((output.stdout(), output.stderr()), (&b"abc"[..], &b"xy"[..]));
        let pieces: Vec<_> = output.transcript().iter().map(|piece| (piece.stream(), piece.at().as_secs())).collect();
        assert_eq!(pieces, [(Stream::Stdout, 1), (Stream::Stderr, 2), (Stream::Stdout, 3)]);
        assert_eq!(*output.captured_stderr().completeness(), Completeness::Open);
    }
}
