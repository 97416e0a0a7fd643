//! Gathers what an [`Explanation`] says: of each process itself, and in one pass over the process table who belongs to it and who
//! holds its pipes. Decides what is looked at, and how much of it; what follows from it is decided by `explain`.

use super::ProcessHandle;
use super::tree::{self, Roots};
use crate::entry::{ProcessEntry, tail};
use crate::explain::{Explanation, Life, PipeFacts, ProcessFacts, SystemCall, in_one_line};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::sys::procfs::{self, PipeEnd, Stat, Survey};
use crate::sys::wait::{self, Glimpse};
use crate::sys::{self, calls};
use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// How many relatives are looked at more closely.
const RELATIVES_MAX: usize = 32;
/// How many of those who hold a pipe are named.
const HOLDERS_MAX: usize = 16;
/// How much of the last output is shown.
const TAIL_LINES: usize = 4;
const TAIL_BYTES: usize = 512;
/// How much of it is asked for: a secret that begins before what is shown must be recognised.
pub(crate) const TAIL_ASKED: usize = TAIL_BYTES + 4096;

/// A process to be explained, and what its owner knows of its streams.
pub(crate) struct Subject<'a> {
    pub(crate) handle: &'a ProcessHandle,
    /// Standard input, output and error.
    pub(crate) streams: [OurEnd<'a>; 3],
    /// When output was read last.
    pub(crate) heard: Option<Instant>,
}

/// What the owner of a process knows of one of its streams.
#[derive(Default)]
pub(crate) struct OurEnd<'a> {
    pub(crate) fd: Option<BorrowedFd<'a>>,
    /// How many bytes a conversation has moved.
    pub(crate) passed: Option<u64>,
    /// The last [`TAIL_ASKED`] of them, of an output.
    pub(crate) tail: Vec<u8>,
}

impl ProcessHandle {
    /// What the process is doing and why it does not come to its end, as far as it can be seen at this moment: for people, and for
    /// the log of a program that waits for too long. See [`Child::explain`](crate::Child::explain), which knows more about the pipes.
    ///
    /// Takes one look at the process table and never fails: what cannot be seen is left out. It neither waits for the process nor
    /// changes anything.
    #[doc(alias = "hang")]
    #[doc(alias = "diagnose")]
    #[doc(alias = "ps")]
    pub fn explain(&self) -> Explanation {
        let streams = [OurEnd::default(), OurEnd::default(), OurEnd::default()];
        explain(&Subject { handle: self, streams, heard: None })
    }

    /// Whether it runs, without reaping it.
    fn life(&self) -> Life {
        let ended = self.lock();
        if let Some(ended) = ended.as_deref() {
            return Life::Ended(ended.status);
        }
        match wait::glimpse(self.who()) {
            Ok(Glimpse::Running) => Life::Running,
            Ok(Glimpse::Stopped(signal)) => Life::Stopped(Signal::from_number(signal)),
            Ok(Glimpse::Ended(raw)) => Life::Unreaped(ExitStatus::from_raw(raw)),
            // Not ours to wait for: somebody else reaped it, or this is a forked copy of the program.
            Err(_) => match self.inner.birth.notice.pidfd() {
                Some(fd) if !super::readable_now(fd) => Life::Running,
                Some(fd) => Life::Ended(sys::pidfd::exit_status(fd).map_or(ExitStatus::UNKNOWN, ExitStatus::from_raw)),
                None => Life::Ended(ExitStatus::UNKNOWN),
            },
        }
    }
}

/// Explains one process.
pub(crate) fn explain(subject: &Subject<'_>) -> Explanation {
    let glance = Glance::of(subject);
    let survey = procfs::survey(&glance.pipes());
    glance.surely(subject, &survey)
}

/// Explains several, with one look at the process table for all.
pub(crate) fn explain_all(subjects: &[Subject<'_>]) -> Vec<Explanation> {
    let glances: Vec<Glance> = subjects.iter().map(Glance::of).collect();
    let pipes: HashSet<u64> = glances.iter().flat_map(Glance::pipes).collect();
    let survey = procfs::survey(&pipes.into_iter().collect::<Vec<_>>());
    glances.iter().zip(subjects).map(|(glance, subject)| glance.surely(subject, &survey)).collect()
}

/// What one process and our ends of its pipes say by themselves.
struct Glance {
    life: Life,
    /// The number, while it is surely the process's own.
    pid: Option<i32>,
    streams: [Option<Target>; 3],
}

/// What a stream refers to: in words, and as a pipe if it is one.
#[derive(Clone)]
struct Target {
    name: String,
    pipe: Option<u64>,
}

impl Glance {
    fn of(subject: &Subject<'_>) -> Glance {
        let handle = subject.handle;
        let life = handle.life();
        let pid = handle.owns_number().then_some(handle.inner.birth.pid);
        let mut number = 0;
        let streams = subject.streams.each_ref().map(|end| {
            let seen = pid.and_then(|pid| target(pid, number, handle));
            number += 1;
            let ours = end.fd.and_then(|fd| sys::fd::inode(fd).ok());
            // The process may have put something else in the place of the pipe; our end is what the caller asks about.
            ours.map(|inode| Target { name: format!("pipe:[{inode}]"), pipe: Some(inode) }).or(seen)
        });
        Glance { life, pid, streams }
    }

    fn pipes(&self) -> Vec<u64> {
        self.streams.iter().flatten().filter_map(|target| target.pipe).collect()
    }

    /// Nothing that was seen under the number if that may have come to mean a stranger meanwhile.
    fn surely(&self, subject: &Subject<'_>, survey: &Survey) -> Explanation {
        let explanation = self.explanation(subject, survey);
        if self.pid.is_none() || subject.handle.owns_number() {
            return explanation;
        }
        let ours = |(target, end): (&Option<Target>, &OurEnd<'_>)| target.clone().filter(|_| end.fd.is_some());
        let [stdin, stdout, stderr] = &self.streams;
        let [our_stdin, our_stdout, our_stderr] = &subject.streams;
        let streams = [(stdin, our_stdin), (stdout, our_stdout), (stderr, our_stderr)].map(ours);
        Glance { life: subject.handle.life(), pid: None, streams }.explanation(subject, survey)
    }

    fn explanation(&self, subject: &Subject<'_>, survey: &Survey) -> Explanation {
        let (handle, birth) = (subject.handle, &subject.handle.inner.birth);
        let (own, now) = (std::process::id() as i32, Instant::now());
        let process = survey.table.iter().find(|stat| Some(stat.pid) == self.pid);
        let streams = (0..).zip(&self.streams).zip(&subject.streams);
        let streams = streams.filter(|((_, target), end)| target.is_some() || end.passed.is_some());
        let streams: Vec<PipeFacts> =
            streams.map(|((number, target), end)| stream(number, target.as_ref(), end, survey, handle)).collect();
        // Whoever can write to its output belongs to it; a descriptor that it shares with others by inheritance does not count.
        let outputs: HashSet<u64> = subject
            .streams
            .iter()
            .zip(&self.streams)
            .skip(1)
            .filter(|(end, _)| end.fd.is_some())
            .filter_map(|(_, target)| target.as_ref()?.pipe)
            .collect();
        let held = survey.ends.iter().filter(|end| end.writes && end.pid != own && outputs.contains(&end.inode));
        let held: HashSet<i32> = held.map(|end| end.pid).collect();
        let roots = Roots {
            pid: self.pid,
            group: birth.leads_group,
            session: birth.leads_session,
            descendants: true,
            mark: birth.mark.as_deref(),
            pipes: &[],
        };
        let members = tree::members(&survey.table, &roots, &held);
        let relatives: Vec<&Stat> = members.iter().filter(|stat| Some(stat.pid) != self.pid).collect();
        let mut life = self.life;
        if life == Life::Running && process.is_some_and(|stat| stat.state == 'T') {
            // It was stopped meanwhile, or somebody else has taken the news.
            life = Some(handle.life()).filter(|life| *life != Life::Running).unwrap_or(Life::Stopped(None));
        }
        let mut explanation = Explanation {
            command: shown(birth.line.as_bytes().to_vec(), handle),
            pid: handle.id(),
            life,
            elapsed: now.saturating_duration_since(handle.born()),
            process: process.map(|stat| facts(stat, handle)),
            relatives_left_out: relatives.len().saturating_sub(RELATIVES_MAX),
            relatives: relatives.into_iter().take(RELATIVES_MAX).map(|stat| facts(stat, handle)).collect(),
            streams,
            silent_for: subject.heard.map(|heard| now.saturating_duration_since(heard)),
            reasons: Vec::new(),
            sees_processes: survey.table.iter().any(|stat| stat.pid == own),
            stages: Vec::new(),
        };
        explanation.conclude();
        explanation
    }
}

/// What a descriptor of a process refers to.
fn target(pid: i32, number: i32, handle: &ProcessHandle) -> Option<Target> {
    let link = procfs::descriptor(pid, number)?;
    let pipe = procfs::pipe_inode(&link);
    Some(Target { name: shown(link, handle), pipe })
}

/// Bytes of the process's own choice, fit to be shown.
fn shown(bytes: Vec<u8>, handle: &ProcessHandle) -> String {
    let bytes = procfs::without_secrets(bytes, &handle.inner.birth.secrets);
    in_one_line(&String::from_utf8_lossy(&bytes))
}

fn stream(
    descriptor: i32,
    target: Option<&Target>,
    end: &OurEnd<'_>,
    survey: &Survey,
    handle: &ProcessHandle,
) -> PipeFacts {
    let own = std::process::id() as i32;
    let ends = || survey.ends.iter().filter(|found| target.is_some_and(|target| target.pipe == Some(found.inode)));
    let opposite = |found: &PipeEnd| if descriptor == 0 { found.writes } else { found.reads };
    let named = |wanted: fn(&PipeEnd) -> bool| -> Vec<ProcessEntry> {
        let others = ends().filter(|found| found.pid != own && wanted(found)).take(HOLDERS_MAX);
        others.map(|found| handle.entry(found.pid)).collect()
    };
    PipeFacts {
        descriptor,
        target: target.map(|target| target.name.clone()),
        ours: end.fd.is_some() || ends().any(|found| found.pid == own && opposite(found)),
        readers: named(|found| found.reads),
        writers: named(|found| found.writes),
        waiting: end.fd.and_then(|fd| sys::pipe::waiting(fd).ok()),
        size: end.fd.and_then(|fd| sys::pipe::size(fd).ok()).map(|size| size as u64),
        passed: end.passed,
        tail: last_words(&end.tail, handle),
    }
}

/// The end of what was said. Of more than is shown, what could be the end of a secret is left out.
fn last_words(bytes: &[u8], handle: &ProcessHandle) -> String {
    let secrets = &handle.inner.birth.secrets;
    let cut = bytes.len() >= TAIL_ASKED;
    let longest = secrets.iter().map(|secret| secret.len()).max().unwrap_or(0);
    let masked = procfs::without_secrets(bytes.to_vec(), secrets);
    let safe = masked.get(if cut { longest } else { 0 }..).unwrap_or_default();
    tail(safe, TAIL_LINES, TAIL_BYTES)
}

fn facts(stat: &Stat, handle: &ProcessHandle) -> ProcessFacts {
    let call = procfs::system_call(stat.pid).map(|(number, first)| {
        let (name, descriptor) = match calls::name(number) {
            Some((name, true)) => (name.to_owned(), i32::try_from(first).ok()),
            Some((name, false)) => (name.to_owned(), None),
            None => (format!("system call {number}"), None),
        };
        let target = descriptor.and_then(|number| target(stat.pid, number, handle));
        SystemCall { name, descriptor, target: target.map(|target| target.name) }
    });
    ProcessFacts {
        entry: handle.entry(stat.pid),
        state: stat.state,
        parent: stat.parent as u32,
        group: stat.group as u32,
        session: stat.session as u32,
        threads: stat.threads,
        processor_time: procfs::ticks(stat.worked),
        kernel_function: procfs::kernel_function(stat.pid),
        call,
    }
}
