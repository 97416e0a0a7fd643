//! Why a process does not come to its end, as plain data and in words. Decides what follows from the facts and how it is said;
//! the facts are gathered by `handle` and read by `sys::procfs`.

use crate::entry::{ProcessEntry, list, shortened, write_visible};
use crate::signal::Signal;
use crate::status::ExitStatus;
use std::fmt;
use std::time::Duration;

/// What a process is doing, what its pipes look like, and what follows: for the question "why does it hang?".
///
/// Made by [`Child::explain`](crate::Child::explain), [`ProcessHandle::explain`](crate::ProcessHandle::explain) and
/// [`PipelineChild::explain`](crate::PipelineChild::explain), and by every verb that has to leave something behind: see
/// [`Output::explanation`](crate::Output::explanation). It is the state of one moment. What cannot be seen is left out: where
/// /proc is missing or hidden, much of it. Secrets of the command are masked.
///
/// Its [`Display`](fmt::Display) is for people: a few short lines.
///
/// ```
/// use procession::{Command, Stdio};
///
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
/// let explanation = child.explain();
/// assert_eq!(explanation.pid, child.id());
/// assert!(explanation.to_string().contains("(cat >/dev/null): running, started "));
/// child.wait()?;
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The command as a shell line, with secrets masked, cut to a bearable length.
    pub command: String,
    /// Its number.
    pub pid: u32,
    /// Whether it runs.
    pub life: Life,
    /// How long ago it was started.
    pub elapsed: Duration,
    /// What the process table says about it, while it is there.
    pub process: Option<ProcessFacts>,
    /// Who belongs to it: its descendants, its group and session if it leads them, those who carry its mark or can write to
    /// its pipes. At most 32.
    pub relatives: Vec<ProcessFacts>,
    /// How many more there are.
    pub relatives_left_out: usize,
    /// Standard input, output and error, as far as anything is known of them.
    pub streams: Vec<PipeFacts>,
    /// How long ago the last output was read, if a conversation has read any.
    pub silent_for: Option<Duration>,
    /// What follows from all this, most telling first.
    pub reasons: Vec<Reason>,
    /// Whether the process table could be seen at all. Where it could not, little of the above is known.
    pub sees_processes: bool,
    /// The stages of a pipeline; empty for a single command. The rest is then that of the first stage.
    pub stages: Vec<Explanation>,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Life {
    /// It runs, or waits for something.
    Running,
    /// A signal has stopped it (SIGSTOP, Ctrl-Z, a read from the terminal in the background), if known which.
    Stopped(Option<Signal>),
    /// It has ended, and nobody has waited for it yet: a zombie.
    Unreaped(ExitStatus),
    /// It has ended and was waited for.
    Ended(ExitStatus),
}

/// A process, as the process table shows it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessFacts {
    /// Its number and its command line, with secrets masked.
    pub entry: ProcessEntry,
    /// The letter of its state (proc(5)): `R`, `S`, `D`, `T`, `t`, `Z` …
    pub state: char,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// How many threads it has.
    pub threads: u32,
    /// The processor time it has used.
    pub processor_time: Duration,
    /// The function of the kernel it waits in, if that may be seen.
    #[doc(alias = "wchan")]
    pub kernel_function: Option<String>,
    /// The system call its main thread is in, if that may be seen.
    pub call: Option<SystemCall>,
}

/// A system call that a process waits in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemCall {
    /// Its name, or its number.
    pub name: String,
    /// The descriptor it is about, if it is about one.
    pub descriptor: Option<i32>,
    /// What that descriptor refers to: a path, `pipe:[77]`, `socket:[78]`.
    pub target: Option<String>,
}

/// A standard stream of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipeFacts {
    /// 0, 1 or 2.
    pub descriptor: i32,
    /// What it refers to, if that may be seen: a path, or `pipe:[77]`.
    pub target: Option<String>,
    /// Whether it is a pipe whose other end this program holds.
    pub ours: bool,
    /// Who can read from the pipe, without this program.
    pub readers: Vec<ProcessEntry>,
    /// Who can write to the pipe, without this program.
    pub writers: Vec<ProcessEntry>,
    /// How many bytes are in the pipe and wait to be read.
    pub waiting: Option<u64>,
    /// How many bytes the pipe holds.
    pub size: Option<u64>,
    /// How many bytes a conversation has written to it or read from it so far.
    pub passed: Option<u64>,
    /// The end of what was read so far, with secrets masked.
    pub tail: String,
}

/// What follows from the facts. `who` is a process of the tree, or `None` for the process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is stopped by a signal, if known by which, and goes on when it gets SIGCONT.
    Stopped {
        /// Who.
        who: Option<ProcessEntry>,
        /// By which signal.
        signal: Option<Signal>,
    },
    /// A debugger holds it.
    Traced {
        /// Who.
        who: Option<ProcessEntry>,
    },
    /// It is in uninterruptible sleep: no signal reaches it until the kernel has an answer.
    Uninterruptible {
        /// Who.
        who: Option<ProcessEntry>,
        /// The function of the kernel, if that may be seen.
        kernel_function: Option<String>,
    },
    /// It waits for its input.
    WaitsForInput {
        /// Who.
        who: Option<ProcessEntry>,
        /// Whether this program holds the end to write to.
        ours: bool,
        /// Who else holds it.
        writers: Vec<ProcessEntry>,
    },
    /// It waits for room in a pipe: nobody reads what it writes.
    WaitsForReader {
        /// Who.
        who: Option<ProcessEntry>,
        /// 1 for standard output, 2 for standard error.
        descriptor: i32,
        /// Whether this program holds the end to read from.
        ours: bool,
        /// Who else holds it.
        readers: Vec<ProcessEntry>,
    },
    /// It waits for somebody to type.
    WaitsForTerminal {
        /// Who.
        who: Option<ProcessEntry>,
        /// The terminal.
        terminal: String,
    },
    /// It waits for a child of its own.
    WaitsForChild {
        /// Who.
        who: Option<ProcessEntry>,
        /// The children it has.
        children: Vec<ProcessEntry>,
    },
    /// It waits in a system call.
    WaitsIn {
        /// Who.
        who: Option<ProcessEntry>,
        /// The call.
        call: SystemCall,
    },
    /// It is at work.
    Busy {
        /// Who.
        who: Option<ProcessEntry>,
        /// The processor time it has used so far.
        processor_time: Duration,
    },
    /// It has ended, and others hold its output open.
    HeldOpen {
        /// Who has ended.
        who: Option<ProcessEntry>,
        /// 1 for standard output, 2 for standard error.
        descriptors: Vec<i32>,
        /// Who holds them.
        holders: Vec<ProcessEntry>,
    },
    /// It has ended, and nobody has waited for it yet.
    NotWaitedFor {
        /// Who.
        who: Option<ProcessEntry>,
    },
}

/// How many reasons are told.
const REASONS_MAX: usize = 6;
/// How many of them an error or a record shows, and how much of each.
const BRIEF_MAX: usize = 3;
const BRIEF_CHARS: usize = 200;

// ---- what follows ----

impl Explanation {
    /// The same, of a process that is just being waited for.
    pub(crate) fn at_the_end(mut self) -> Explanation {
        if let Life::Unreaped(status) = self.life {
            (self.life, self.process) = (Life::Ended(status), None);
            self.conclude();
        }
        self
    }

    /// Draws the conclusions.
    pub(crate) fn conclude(&mut self) {
        self.reasons = match self.life {
            Life::Running | Life::Stopped(_) => self.reasons_alive(),
            Life::Unreaped(_) => self.held_open().into_iter().chain([Reason::NotWaitedFor { who: None }]).collect(),
            Life::Ended(_) => self.held_open().into_iter().collect(),
        };
        self.reasons.truncate(REASONS_MAX);
    }

    fn reasons_alive(&self) -> Vec<Reason> {
        let own = match self.life {
            Life::Stopped(signal) => Some(Reason::Stopped { who: None, signal }),
            _ => self.process.as_ref().and_then(|process| self.reason_of(process, None)),
        };
        let others: Vec<Reason> =
            self.relatives.iter().filter_map(|facts| self.reason_of(facts, Some(facts.entry.clone()))).collect();
        // What a descendant does in the ordinary way matters only if the process waits for it.
        let waits = matches!(own, None | Some(Reason::WaitsForChild { .. }));
        let (telling, ordinary): (Vec<Reason>, Vec<Reason>) = others.into_iter().partition(Reason::is_telling);
        own.into_iter().chain(telling).chain(ordinary.into_iter().filter(|_| waits)).collect()
    }

    /// What one process of the tree waits for.
    fn reason_of(&self, facts: &ProcessFacts, who: Option<ProcessEntry>) -> Option<Reason> {
        match facts.state {
            'T' => return Some(Reason::Stopped { who, signal: None }),
            't' => return Some(Reason::Traced { who }),
            'D' => return Some(Reason::Uninterruptible { who, kernel_function: facts.kernel_function.clone() }),
            'R' => return Some(Reason::Busy { who, processor_time: facts.processor_time }),
            'Z' | 'X' => return None,
            _ => {}
        }
        let call = facts.call.clone()?;
        let target = call.target.as_deref();
        let on = |stream: &&PipeFacts| is_pipe(target) && stream.target.as_deref() == target;
        let others = |entries: &[ProcessEntry]| without(entries, facts.entry.pid);
        match Purpose::of(&call.name) {
            Purpose::Read if is_terminal(target) => {
                Some(Reason::WaitsForTerminal { who, terminal: call.target.unwrap_or_default() })
            }
            Purpose::Read => match self.streams.iter().filter(|stream| stream.descriptor == 0).find(on) {
                Some(stdin) => Some(Reason::WaitsForInput { who, ours: stdin.ours, writers: others(&stdin.writers) }),
                None => Some(Reason::WaitsIn { who, call }),
            },
            Purpose::Write => match self.streams.iter().filter(|stream| stream.descriptor > 0).find(on) {
                Some(stream) => Some(Reason::WaitsForReader {
                    who,
                    descriptor: stream.descriptor,
                    ours: stream.ours,
                    readers: others(&stream.readers),
                }),
                None => Some(Reason::WaitsIn { who, call }),
            },
            Purpose::Child => {
                let children = self.relatives.iter().filter(|other| other.parent == facts.entry.pid);
                let alive = children.filter(|child| !matches!(child.state, 'Z' | 'X'));
                Some(Reason::WaitsForChild { who, children: alive.map(|child| child.entry.clone()).collect() })
            }
            Purpose::Other => Some(Reason::WaitsIn { who, call }),
        }
    }

    /// Streams of the same holders are told at once.
    fn held_open(&self) -> Vec<Reason> {
        let mut held: Vec<(Vec<i32>, Vec<ProcessEntry>)> = Vec::new();
        for stream in self.streams.iter().filter(|stream| stream.descriptor > 0 && stream.ours) {
            let holders = without(&stream.writers, self.pid);
            match held.iter_mut().find(|(_, known)| *known == holders) {
                _ if holders.is_empty() => {}
                Some((descriptors, _)) => descriptors.push(stream.descriptor),
                None => held.push((vec![stream.descriptor], holders)),
            }
        }
        held.into_iter().map(|(descriptors, holders)| Reason::HeldOpen { who: None, descriptors, holders }).collect()
    }

    /// Of a process of which nothing is known.
    fn nothing() -> Explanation {
        Explanation {
            command: String::new(),
            pid: 0,
            life: Life::Ended(ExitStatus::UNKNOWN),
            elapsed: Duration::ZERO,
            process: None,
            relatives: Vec::new(),
            relatives_left_out: 0,
            streams: Vec::new(),
            silent_for: None,
            reasons: Vec::new(),
            sees_processes: false,
            stages: Vec::new(),
        }
    }

    /// Of a pipeline, of which these stages are to be explained.
    pub(crate) fn of_stages(command: &str, stages: Vec<Explanation>) -> Explanation {
        // A pipeline has a stage.
        let first = stages.first().cloned().unwrap_or_else(Explanation::nothing);
        let named = stages.iter().flat_map(|stage| {
            let entry = ProcessEntry { pid: stage.pid, command: stage.command.clone() };
            stage.reasons.iter().map(move |reason| reason.clone().of(&entry))
        });
        let reasons = named.take(REASONS_MAX).collect();
        Explanation { command: in_one_line(command), reasons, stages, ..first }
    }

    /// The reasons in an error or a record: few, short, and without what is said there already about these processes.
    pub(crate) fn briefly(&self, said: &[ProcessEntry]) -> Vec<String> {
        let new = self.reasons.iter().filter(|reason| match reason {
            Reason::HeldOpen { holders, .. } => !holders.iter().all(|holder| said.contains(holder)),
            Reason::NotWaitedFor { .. } => false,
            _ => true,
        });
        new.take(BRIEF_MAX).map(|reason| shortened(&reason.to_string(), BRIEF_CHARS).into_owned()).collect()
    }
}

impl Reason {
    /// The same, said of a process that is named.
    fn of(mut self, entry: &ProcessEntry) -> Reason {
        let (Reason::Stopped { who, .. }
        | Reason::Traced { who }
        | Reason::Uninterruptible { who, .. }
        | Reason::WaitsForInput { who, .. }
        | Reason::WaitsForReader { who, .. }
        | Reason::WaitsForTerminal { who, .. }
        | Reason::WaitsForChild { who, .. }
        | Reason::WaitsIn { who, .. }
        | Reason::Busy { who, .. }
        | Reason::HeldOpen { who, .. }
        | Reason::NotWaitedFor { who }) = &mut self;
        who.get_or_insert_with(|| entry.clone());
        self
    }

    /// Whether it explains a hang of the whole, and not only what a process does with its time.
    fn is_telling(&self) -> bool {
        !matches!(self, Reason::Busy { .. } | Reason::WaitsIn { .. } | Reason::WaitsForChild { .. })
    }
}

fn without(entries: &[ProcessEntry], pid: u32) -> Vec<ProcessEntry> {
    entries.iter().filter(|entry| entry.pid != pid).cloned().collect()
}

fn is_pipe(target: Option<&str>) -> bool {
    target.is_some_and(|target| target.starts_with("pipe:["))
}

fn is_terminal(target: Option<&str>) -> bool {
    target.is_some_and(|target| {
        ["/dev/pts/", "/dev/tty", "/dev/console"].iter().any(|terminal| target.starts_with(terminal))
    })
}

/// What a system call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Read,
    Write,
    Child,
    Other,
}

impl Purpose {
    fn of(call: &str) -> Purpose {
        match call {
            "read" | "readv" | "pread64" | "preadv" | "preadv2" => Purpose::Read,
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => Purpose::Write,
            "wait4" | "waitid" => Purpose::Child,
            _ => Purpose::Other,
        }
    }
}

// ---- in words ----

/// The name that people know a standard stream by.
fn stream_name(descriptor: i32) -> &'static str {
    match descriptor {
        0 => "stdin",
        1 => "stdout",
        _ => "stderr",
    }
}

/// The word for the letter of a state.
fn state_word(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "in uninterruptible sleep",
        'T' => "stopped",
        't' => "held by a debugger",
        'Z' => "zombie",
        'X' => "dead",
        'I' => "idle",
        _ => "in an unknown state",
    }
}

/// A line without line ends and other control characters, cut to a bearable length.
pub(crate) fn in_one_line(line: &str) -> String {
    const SHOWN_MAX: usize = 300;
    let line = shortened(line, SHOWN_MAX);
    line.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A duration with the precision that people want.
pub(crate) fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn bytes(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

impl fmt::Display for SystemCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        if let Some(descriptor) = self.descriptor {
            write!(out, " on descriptor {descriptor}")?;
        }
        if let Some(target) = &self.target {
            write!(out, " ({})", in_one_line(target))?;
        }
        Ok(())
    }
}

impl fmt::Display for Life {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Life::Running => out.write_str("running"),
            Life::Stopped(Some(signal)) => write!(out, "stopped by {signal}"),
            Life::Stopped(None) => out.write_str("stopped by a signal"),
            Life::Unreaped(status) => write!(out, "ended ({status}), not waited for (zombie)"),
            Life::Ended(status) => write!(out, "ended ({status})"),
        }
    }
}

/// A sentence.
impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = |who: &Option<ProcessEntry>| who.as_ref().map_or_else(|| "it".to_owned(), ToString::to_string);
        match self {
            Reason::Stopped { who, signal } => {
                write!(out, "{} is stopped", it(who))?;
                if let Some(signal) = signal {
                    write!(out, " ({signal})")?;
                }
                match *signal {
                    Some(Signal::TTIN) => out.write_str(": it reads from the terminal and is in its background"),
                    Some(Signal::TTOU) => out.write_str(": it uses the terminal and is in its background"),
                    _ => out.write_str(": send SIGCONT"),
                }
            }
            Reason::Traced { who } => write!(out, "{} is held by a debugger", it(who)),
            Reason::Uninterruptible { who, kernel_function } => {
                write!(
                    out,
                    "{} is in uninterruptible sleep (D): no signal reaches it until a device answers",
                    it(who)
                )?;
                kernel_function.as_ref().map_or(Ok(()), |function| write!(out, " ({function})"))
            }
            Reason::WaitsForInput { who, ours, writers } => {
                write!(out, "{} waits for its input, which {}", it(who), hold(*ours, writers, "hold", "holds"))?;
                out.write_str(" open")
            }
            Reason::WaitsForReader { who, descriptor, ours, readers } => {
                let name = stream_name(*descriptor);
                write!(out, "{} waits for somebody to read its {name}: the pipe is full, and ", it(who))?;
                out.write_str(&hold(*ours, readers, "hold", "holds"))?;
                out.write_str(" the other end")
            }
            Reason::WaitsForTerminal { who, terminal } => {
                write!(out, "{} waits for somebody to type at {}", it(who), in_one_line(terminal))
            }
            Reason::WaitsForChild { who, children } if children.is_empty() => {
                write!(out, "{} waits for a child of its own", it(who))
            }
            Reason::WaitsForChild { who, children } => {
                write!(out, "{} waits for its child {}", it(who), some(children))
            }
            Reason::WaitsIn { who, call } => match call.name.as_str() {
                "nanosleep" | "clock_nanosleep" => write!(out, "{} sleeps of its own will ({call})", it(who)),
                "futex" => write!(out, "{} waits for another thread or process (futex)", it(who)),
                "flock" | "fcntl" => write!(out, "{} waits for a lock: {call}", it(who)),
                _ => write!(out, "{} waits in {call}", it(who)),
            },
            Reason::Busy { who, processor_time } => {
                write!(out, "{} is at work: {} of processor time so far", it(who), spoken(*processor_time))
            }
            Reason::HeldOpen { who, descriptors, holders } => {
                let names: Vec<&str> = descriptors.iter().map(|number| stream_name(*number)).collect();
                let holds = if holders.len() == 1 { "holds" } else { "hold" };
                write!(out, "{} has ended, but {} {holds} its {}", it(who), some(holders), names.join(" and "))
            }
            Reason::NotWaitedFor { who } => write!(out, "{} has ended, and nobody has waited for it yet", it(who)),
        }
    }
}

/// `we hold`, `1 (a) holds`, `we and 1 (a) hold`.
fn hold(ours: bool, others: &[ProcessEntry], plural: &str, singular: &str) -> String {
    match (ours, others.len()) {
        (true, 0) => format!("we {plural}"),
        (true, _) => format!("we and {} {plural}", some(others)),
        (false, 0) => format!("somebody who cannot be seen {singular}"),
        (false, 1) => format!("{} {singular}", some(others)),
        (false, _) => format!("{} {plural}", some(others)),
    }
}

/// A list that stays short.
fn some(entries: &[ProcessEntry]) -> String {
    const SHOWN_MAX: usize = 4;
    match entries.get(..SHOWN_MAX) {
        Some(first) if entries.len() > SHOWN_MAX => format!("{} and {} more", list(first), entries.len() - SHOWN_MAX),
        _ => list(entries),
    }
}

impl fmt::Display for ProcessFacts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.entry)?;
        self.fmt_state(out)
    }
}

impl ProcessFacts {
    fn fmt_state(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(state_word(self.state))?;
        match &self.call {
            Some(call) => write!(out, " in {call}")?,
            None => {
                if let Some(function) = &self.kernel_function {
                    write!(out, " in {function}")?;
                }
            }
        }
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        write!(out, "; {} {threads}, {} of processor time", self.threads, spoken(self.processor_time))
    }
}

impl fmt::Display for PipeFacts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_of(out, None)
    }
}

impl PipeFacts {
    /// Of the process with this number, which need not be named again.
    fn fmt_of(&self, out: &mut fmt::Formatter<'_>, own: Option<u32>) -> fmt::Result {
        write!(out, "{}: ", stream_name(self.descriptor))?;
        match (&self.target, self.ours) {
            (Some(target), true) => write!(out, "{}, whose other end we hold", in_one_line(target))?,
            (Some(target), false) => write!(out, "{}", in_one_line(target))?,
            (None, true) => out.write_str("a pipe whose other end we hold")?,
            (None, false) => out.write_str("no pipe of ours")?,
        }
        if let Some(waiting) = self.waiting {
            write!(out, "; {} in it", bytes(waiting))?;
            if let Some(size) = self.size.filter(|size| waiting >= *size) {
                write!(out, " of {size}: full")?;
            }
        }
        if let Some(passed) = self.passed {
            write!(out, "; {} {} so far", bytes(passed), if self.descriptor == 0 { "written" } else { "read" })?;
        }
        for (what, entries) in [("read", &self.readers), ("written", &self.writers)] {
            let others = without(entries, own.unwrap_or_default());
            match (others.len(), entries.len()) {
                (_, 0) => {}
                (0, _) => write!(out, "; {what} by it")?,
                (some_others, all) if some_others < all => write!(out, "; {what} by it and {}", some(&others))?,
                _ => write!(out, "; {what} by {}", some(&others))?,
            }
        }
        Ok(())
    }
}

/// A few short lines.
impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stages.is_empty() {
            return self.fmt_one(out);
        }
        for (place, stage) in self.stages.iter().enumerate() {
            if place > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{stage}")?;
        }
        Ok(())
    }
}

impl Explanation {
    fn fmt_one(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {}, started {} ago", self.pid, self.command, self.life, spoken(self.elapsed))?;
        for reason in &self.reasons {
            write!(out, "\n  {reason}")?;
        }
        if let Some(process) = &self.process {
            out.write_str("\n  ")?;
            process.fmt_state(out)?;
            write!(out, "\n  parent {}, group {}, session {}", process.parent, process.group, process.session)?;
        }
        if !self.sees_processes {
            out.write_str("\n  the process table cannot be seen: /proc is missing or hidden")?;
        }
        for stream in &self.streams {
            out.write_str("\n  ")?;
            stream.fmt_of(out, Some(self.pid))?;
        }
        self.fmt_output(out)?;
        for relative in &self.relatives {
            write!(out, "\n  belongs to it: {relative}")?;
        }
        if self.relatives_left_out > 0 {
            write!(out, "\n  and {} more", self.relatives_left_out)?;
        }
        Ok(())
    }

    fn fmt_output(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(silent_for) = self.silent_for {
            write!(out, "\n  the last output came {} ago", spoken(silent_for))?;
        }
        for stream in self.streams.iter().filter(|stream| !stream.tail.is_empty()) {
            write!(out, "\n  its {} ends:", stream_name(stream.descriptor))?;
            for line in stream.tail.lines() {
                out.write_str("\n    | ")?;
                write_visible(out, line)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32) -> ProcessEntry {
        ProcessEntry { pid, command: format!("p{pid}") }
    }

    fn facts(pid: u32, parent: u32, state: char, call: Option<(&str, Option<&str>)>) -> ProcessFacts {
        let call = call.map(|(name, target)| SystemCall {
            name: name.to_owned(),
            descriptor: target.map(|_| 7),
            target: target.map(str::to_owned),
        });
        ProcessFacts {
            entry: entry(pid),
            state,
            parent,
            group: 1,
            session: 1,
            threads: 1,
            processor_time: Duration::from_millis(1500),
            kernel_function: None,
            call,
        }
    }

    /// Three pipes with the inodes 10 to 12, whose other ends are ours.
    fn streams() -> Vec<PipeFacts> {
        let stream = |descriptor: i32| PipeFacts {
            descriptor,
            target: Some(format!("pipe:[{}]", 10 + descriptor)),
            ours: true,
            ..PipeFacts::default()
        };
        (0..3).map(stream).collect()
    }

    fn running(own: ProcessFacts, relatives: Vec<ProcessFacts>, streams: Vec<PipeFacts>) -> Explanation {
        let life = Life::Running;
        let mut explanation =
            Explanation { pid: own.entry.pid, life, process: Some(own), relatives, streams, ..Explanation::nothing() };
        explanation.conclude();
        explanation
    }

    fn sentences(explanation: &Explanation) -> Vec<String> {
        explanation.reasons.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_state_and_call_has_its_sentence() {
        let reader = "it waits for somebody to read its stderr: the pipe is full, and we hold the other end";
        let deep = "it is in uninterruptible sleep (D): no signal reaches it until a device answers";
        let cases = [
            ('S', Some(("read", Some("pipe:[10]"))), "it waits for its input, which we hold open"),
            ('S', Some(("read", Some("pipe:[99]"))), "it waits in read on descriptor 7 (pipe:[99])"),
            ('S', Some(("read", Some("pipe:[11]"))), "it waits in read on descriptor 7 (pipe:[11])"),
            ('S', Some(("read", Some("/dev/pts/3"))), "it waits for somebody to type at /dev/pts/3"),
            ('S', Some(("writev", Some("pipe:[12]"))), reader),
            ('S', Some(("write", Some("pipe:[10]"))), "it waits in write on descriptor 7 (pipe:[10])"),
            ('S', Some(("wait4", None)), "it waits for a child of its own"),
            ('S', Some(("clock_nanosleep", None)), "it sleeps of its own will (clock_nanosleep)"),
            ('S', Some(("futex", None)), "it waits for another thread or process (futex)"),
            ('S', Some(("flock", Some("/tmp/a"))), "it waits for a lock: flock on descriptor 7 (/tmp/a)"),
            ('S', Some(("system call 500", None)), "it waits in system call 500"),
            ('R', None, "it is at work: 1.5 s of processor time so far"),
            ('D', None, deep),
            ('t', None, "it is held by a debugger"),
            ('T', None, "it is stopped: send SIGCONT"),
        ];
        for (state, call, sentence) in cases {
            let explanation = running(facts(5, 1, state, call), Vec::new(), streams());
            assert_eq!(sentences(&explanation), [sentence], "{state} {call:?}");
        }
        // What cannot be seen is not guessed.
        assert!(sentences(&running(facts(5, 1, 'S', None), Vec::new(), streams())).is_empty());
        // Not a pipe of ours: two files of one name are not one pipe.
        let mut files = streams();
        files[0].target = Some("/dev/null".to_owned());
        let explanation = running(facts(5, 1, 'S', Some(("read", Some("/dev/null")))), Vec::new(), files);
        assert_eq!(sentences(&explanation), ["it waits in read on descriptor 7 (/dev/null)"]);
    }

    #[test]
    fn a_process_does_not_hold_up_itself() {
        let mut streams = streams();
        streams[0].ours = false;
        streams[0].writers = vec![entry(5), entry(6), entry(7)];
        let explanation = running(facts(5, 1, 'S', Some(("read", Some("pipe:[10]")))), Vec::new(), streams);
        assert_eq!(sentences(&explanation), ["it waits for its input, which 6 (p6), 7 (p7) hold open"]);
    }

    #[test]
    fn descendants_speak_if_the_process_waits_for_them() {
        let sleeper = facts(6, 5, 'S', Some(("nanosleep", None)));
        let reader = facts(7, 6, 'S', Some(("read", Some("pipe:[10]"))));
        let zombie = facts(8, 5, 'Z', None);
        let waits = running(
            facts(5, 1, 'S', Some(("wait4", None))),
            vec![sleeper.clone(), reader.clone(), zombie.clone()],
            streams(),
        );
        let expected = [
            "it waits for its child 6 (p6)",
            "7 (p7) waits for its input, which we hold open",
            "6 (p6) sleeps of its own will (nanosleep)",
        ];
        assert_eq!(sentences(&waits), expected);
        let works = running(facts(5, 1, 'R', None), vec![sleeper, reader, zombie], streams());
        let expected =
            ["it is at work: 1.5 s of processor time so far", "7 (p7) waits for its input, which we hold open"];
        assert_eq!(sentences(&works), expected);
    }

    #[test]
    fn reasons_are_bounded() {
        let many = (10..200).map(|pid| facts(pid, 5, 'D', None)).collect();
        let explanation = running(facts(5, 1, 'S', Some(("wait4", None))), many, streams());
        assert_eq!(explanation.reasons.len(), REASONS_MAX);
        assert!(explanation.reasons[0].to_string().ends_with("13 (p13) and 186 more"), "{}", explanation.reasons[0]);
        let brief = explanation.briefly(&[]);
        assert_eq!(brief.len(), BRIEF_MAX);
        assert!(brief.iter().all(|sentence| sentence.chars().count() <= BRIEF_CHARS + 1));
    }

    #[test]
    fn what_the_dead_have_left_open() {
        let mut explanation = Explanation { pid: 5, streams: streams(), ..Explanation::nothing() };
        explanation.streams[1].writers = vec![entry(6)];
        explanation.streams[2].writers = vec![entry(6)];
        explanation.conclude();
        assert_eq!(sentences(&explanation), ["it has ended, but 6 (p6) holds its stdout and stderr"]);
        assert!(explanation.briefly(&[entry(6), entry(9)]).is_empty(), "said already");
        assert_eq!(explanation.briefly(&[entry(9)]).len(), 1);
        explanation.streams[2].writers = vec![entry(7), entry(8)];
        explanation.life = Life::Unreaped(ExitStatus::from_code(0));
        explanation.conclude();
        let expected = [
            "it has ended, but 6 (p6) holds its stdout",
            "it has ended, but 7 (p7), 8 (p8) hold its stderr",
            "it has ended, and nobody has waited for it yet",
        ];
        assert_eq!(sentences(&explanation), expected);
        // A pipe that is not ours is no matter of ours.
        explanation.streams.iter_mut().for_each(|stream| stream.ours = false);
        explanation.life = Life::Ended(ExitStatus::from_code(0));
        explanation.conclude();
        assert!(explanation.reasons.is_empty());
    }

    #[test]
    fn the_whole_reads_well() {
        let mut explanation = running(
            facts(5, 1, 'S', Some(("read", Some("pipe:[10]")))),
            vec![facts(6, 5, 'S', Some(("futex", None)))],
            streams(),
        );
        explanation.command = "tool --fast".to_owned();
        explanation.elapsed = Duration::from_millis(83_200);
        explanation.silent_for = Some(Duration::from_millis(20));
        explanation.sees_processes = true;
        explanation.relatives_left_out = 3;
        let [stdin, stdout, stderr] = explanation.streams.as_mut_slice() else { panic!() };
        (stdin.passed, stdin.waiting, stdin.readers) = (Some(1), Some(0), vec![entry(5)]);
        (stdout.passed, stdout.waiting, stdout.size) = (Some(12), Some(4096), Some(4096));
        stdout.writers = vec![entry(5), entry(6)];
        stdout.tail = "ready\n\u{1b}[2Jgo".to_owned();
        *stderr = PipeFacts { descriptor: 2, target: Some("/dev/null".to_owned()), ..PipeFacts::default() };
        let expected = "\
5 (tool --fast): running, started 1 min 23 s ago
  it waits for its input, which we hold open
  sleeping in read on descriptor 7 (pipe:[10]); 1 thread, 1.5 s of processor time
  parent 1, group 1, session 1
  stdin: pipe:[10], whose other end we hold; 0 bytes in it; 1 byte written so far; read by it
  stdout: pipe:[11], whose other end we hold; 4096 bytes in it of 4096: full; 12 bytes read so far; written by it and 6 (p6)
  stderr: /dev/null
  the last output came 20 ms ago
  its stdout ends:
    | ready
    | \\u{1b}[2Jgo
  belongs to it: 6 (p6): sleeping in futex; 1 thread, 1.5 s of processor time
  and 3 more";
        assert_eq!(explanation.to_string(), expected);
        let two = Explanation::of_stages("a | b", vec![explanation.clone(), explanation]);
        assert_eq!(two.to_string(), format!("{expected}\n{expected}"));
        assert_eq!(two.command, "a | b");
        // Of several, each is named.
        assert_eq!(sentences(&two), ["5 (tool --fast) waits for its input, which we hold open"; 2]);
    }
}
