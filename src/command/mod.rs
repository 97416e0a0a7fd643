//! What to run, as a value: data and setters only. Nothing here makes a system call, except that a borrowed descriptor is
//! duplicated. The verbs live with what they return:
//!
//! - [`Command::plan`] in `plan`;
//! - [`Command::spawn`] in `child`;
//! - `call`, `check_call`, `status`, `output`, `run`, `check_output`, `check_output_text` in `communicate`;
//! - `for_each_line`, `try_for_each_line`, `for_each_chunk` in `live`.

mod attributes;
mod capture;
mod env;
mod filter;
mod input;
mod pty;
mod quote;
mod settings;
mod stdio;
mod target;

pub(crate) use attributes::{Attributes, Directory, Mask};
pub use attributes::{Id, Resource};
pub use capture::Overflow;
pub(crate) use capture::{CONTEXT, Limit};
pub(crate) use env::{Env, held_environment, hold_environment};
pub use filter::Filter;
pub use input::Input;
pub(crate) use input::Opened;
pub(crate) use input::Source;
pub use pty::Pty;
pub use quote::quote;
pub(crate) use settings::Settings;
pub use stdio::Stdio;
pub(crate) use stdio::{FileMode, Kind};
pub use target::{Clock, Target};
pub(crate) use target::{Place, SharedWriter};

use crate::error::Error;
use crate::output::{Accepted, Stream};
use crate::signal::Signal;
use crate::stop::Stop;
use crate::sys::fork::Hook;
use crate::text::Text;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A command: what to run, with which streams, rights and limits, and how long.
///
/// A value: setters take and return it, it can be cloned, printed and run as often as one likes. It makes no system call
/// until a verb is used, and a wrong request is told by the verb, before anything is created.
///
/// Its [`Display`](fmt::Display) is a line that can be pasted into a shell.
///
/// ```
/// use procession::Command;
///
/// let command = Command::new("grep").arg("-c").arg("a b").env("LC_ALL", "C").current_dir("/tmp");
/// assert_eq!(command.to_string(), "cd /tmp && LC_ALL=C grep -c 'a b'");
/// ```
#[derive(Clone)]
#[must_use = "a command does nothing until a verb such as `call`, `output` or `spawn` is used"]
#[doc(alias = "Popen")]
pub struct Command {
    pub(crate) program: Program,
    pub(crate) executable: Option<Program>,
    pub(crate) arg0: Option<OsString>,
    pub(crate) args: Vec<Arg>,
    pub(crate) env: Env,
    pub(crate) directory: Option<Directory>,
    /// Standard input, output and error; `None` lets the verb choose.
    pub(crate) streams: [Option<Stdio>; 3],
    pub(crate) descriptors: Vec<(RawFd, Stdio)>,
    /// The settings of its terminal, on which are then all streams that were not set.
    pub(crate) pty: Option<Pty>,
    pub(crate) attributes: Attributes,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) track: bool,
    pub(crate) echo: bool,
    pub(crate) observer: Option<Observer>,
    pub(crate) input: Option<Input>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_on_drop: bool,
    pub(crate) targets: Vec<(Option<Stream>, Target)>,
    /// What its children keep of it.
    pub(crate) settings: Arc<Settings>,
}

/// Called with a command just before it is started.
pub(crate) type Observer = Arc<dyn Fn(&Command) + Send + Sync>;

/// An argument, and whether it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arg {
    pub(crate) text: OsString,
    pub(crate) secret: bool,
}

/// How a program is named: by a word, which is searched in `PATH` unless it has a slash, or by a path, which is never
/// searched. Strings convert into the first, [`Path`]s into the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A word, as one would type it into a shell.
    Name(OsString),
    /// A path. A relative one is relative to the directory of the parent, whatever directory the child gets.
    Path(PathBuf),
}

impl Program {
    pub(crate) fn as_os_str(&self) -> &OsStr {
        match self {
            Program::Name(name) => name,
            Program::Path(path) => path.as_os_str(),
        }
    }
}

macro_rules! program_from {
    ($variant:ident: $($source:ty),*) => {
        $(impl From<$source> for Program {
            fn from(source: $source) -> Program {
                Program::$variant(source.into())
            }
        })*
    };
}

program_from!(Name: &str, &String, String, &OsStr, &OsString, OsString);
program_from!(Path: &Path, &PathBuf, PathBuf);

/// What to run.
impl Command {
    /// A command without arguments. See [`Program`] for how the program is found.
    pub fn new(program: impl Into<Program>) -> Command {
        Command {
            program: program.into(),
            executable: None,
            arg0: None,
            args: Vec::new(),
            env: Env::default(),
            directory: None,
            streams: [None, None, None],
            descriptors: Vec::new(),
            pty: None,
            attributes: Attributes::default(),
            hooks: Vec::new(),
            track: false,
            echo: false,
            observer: None,
            input: None,
            timeout: None,
            kill_on_drop: false,
            targets: Vec::new(),
            settings: Settings::unsaid(),
        }
    }

    fn set(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// A line for the system's shell: `/bin/sh -c line`. Further arguments become `$0`, `$1` and so on.
    ///
    /// Whatever is put into the line is read by the shell: quote what others chose with [`quote`], or better pass it as
    /// an argument.
    ///
    /// ```
    /// use procession::Command;
    ///
    /// let greeting = Command::shell("echo hello \"$1\"").args(["sh", "big world"]).check_output_text()?;
    /// assert_eq!(greeting, "hello big world\n");
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn shell(line: impl Into<OsString>) -> Command {
        Command::new(Path::new("/bin/sh")).arg("-c").arg(line)
    }

    /// Reads a line by the shell's rules for words, quotes and backslashes; words like `NAME=value` in front are added to
    /// the environment. No shell is started and nothing is expanded.
    ///
    /// ```
    /// use procession::Command;
    ///
    /// let command = Command::parse("LC_ALL=C sort -k 2 'my file'")?;
    /// assert_eq!(command.to_string(), "LC_ALL=C sort -k 2 'my file'");
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a quote is not closed, or the line has no program.
    #[doc(alias = "shlex")]
    pub fn parse(line: impl AsRef<OsStr>) -> Result<Command, Error> {
        let line = line.as_ref();
        let mut words = quote::split(line)?.into_iter().peekable();
        let mut variables = Vec::new();
        while let Some(variable) = words.peek().and_then(|word| quote::assignment(word)) {
            variables.push(variable);
            words.next();
        }
        let program = words.next().ok_or_else(|| Error::invalid(format!("no program in {line:?}")))?;
        Ok(Command::new(program).args(words).envs(variables))
    }

    /// Adds an argument.
    pub fn arg(self, arg: impl Into<OsString>) -> Command {
        self.push_arg(arg.into(), false)
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Command {
        self.args.extend(args.into_iter().map(|text| Arg { text: text.into(), secret: false }));
        self
    }

    /// Adds an argument that is never shown: lines, errors and records have `***` in its place. The system's process table
    /// still shows it to everybody; a pipe or a file is safer for secrets.
    pub fn secret_arg(self, arg: impl Into<OsString>) -> Command {
        self.push_arg(arg.into(), true)
    }

    /// Adds a path that cannot be mistaken for an option: `-rf` becomes `./-rf`.
    pub fn operand(self, path: impl AsRef<Path>) -> Command {
        let path = path.as_ref();
        if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
            self.push_arg(Path::new(".").join(path).into_os_string(), false)
        } else {
            self.push_arg(path.as_os_str().to_owned(), false)
        }
    }

    fn push_arg(mut self, text: OsString, secret: bool) -> Command {
        self.args.push(Arg { text, secret });
        self
    }

    /// The first word the program sees, instead of its name.
    #[doc(alias = "argv0")]
    pub fn arg0(mut self, name: impl Into<OsString>) -> Command {
        self.arg0 = Some(name.into());
        self
    }

    /// The file to execute, instead of the one named; the program still sees its old name as first word, as with Python's
    /// `executable`.
    pub fn executable(mut self, program: impl Into<Program>) -> Command {
        self.executable = Some(program.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        self.env.set(key.into(), value.into(), false);
        self
    }

    /// Sets environment variables.
    pub fn envs<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Command {
        for (key, value) in variables {
            self.env.set(key.into(), value.into(), false);
        }
        self
    }

    /// Sets an environment variable whose value is never shown; see [`secret_arg`](Self::secret_arg).
    pub fn secret_env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        self.env.set(key.into(), value.into(), true);
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Command {
        self.env.remove(key.into());
        self
    }

    /// Inherits nothing, and forgets what was set before.
    pub fn env_clear(mut self) -> Command {
        self.env.clear();
        self
    }

    /// Gives the child exactly this environment, as Python's `env=` does.
    pub fn env_replace<K: Into<OsString>, V: Into<OsString>>(
        self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Command {
        self.env_clear().envs(variables)
    }

    /// The directory the child starts in. It does not change what a relative program means.
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Command {
        self.directory = Some(Directory::Path(directory.into()));
        self
    }

    /// The directory the child starts in, by an open descriptor: nobody can swap it in between.
    pub fn current_dir_fd(mut self, directory: impl Into<OwnedFd>) -> Command {
        self.directory = Some(Directory::Fd(Arc::new(directory.into())));
        self
    }
}

/// The streams.
impl Command {
    /// Where standard input comes from. Inherited by default; null for verbs that collect.
    pub fn stdin(self, stdin: impl Into<Stdio>) -> Command {
        self.stream(0, stdin.into())
    }

    /// Where standard output goes. Inherited by default; collected by verbs that collect.
    pub fn stdout(self, stdout: impl Into<Stdio>) -> Command {
        self.stream(1, stdout.into())
    }

    /// Where standard error goes. Inherited by default; collected by verbs that collect.
    pub fn stderr(self, stderr: impl Into<Stdio>) -> Command {
        self.stream(2, stderr.into())
    }

    /// Pipes for all three streams.
    pub fn pipe_all(self) -> Command {
        self.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped())
    }

    /// A pseudo-terminal for the streams that are not set otherwise, before or after this: programs see a terminal, ask questions,
    /// use colours, and write each line when it is complete. The child leads a session of its own, whose controlling terminal it is.
    ///
    /// Our ends are [`stdin`](crate::Child::stdin) and [`stdout`](crate::Child::stdout) of the child, where standard error
    /// appears too, and verbs that collect do so as from pipes; [`terminal`](crate::Child::terminal) is for everything else. To drop
    /// the child hangs up, and then the program gets SIGHUP.
    ///
    /// ```
    /// use procession::{Command, Pty, Stdio};
    ///
    /// let output = Command::shell("read name; echo hello $name").pty(Pty::new()).input("world\n").output()?;
    /// assert_eq!(output.stdout(), b"hello world\n");
    ///
    /// let output = Command::shell("test -t 1 && echo oops >&2").pty(Pty::new()).stderr(Stdio::piped()).output()?;
    /// assert_eq!((output.stdout(), output.stderr()), (&b""[..], &b"oops\n"[..]));
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// Input passes the line discipline of the terminal, unless it is [raw](Pty::raw): a line may have 4095 bytes, of a longer one the
    /// rest is lost; control characters do what they do at a keyboard; and the end of input, said when
    /// [`stdin`](crate::Child::stdin) is dropped, is a ^D, which one reader sees once.
    #[doc(alias = "openpty")]
    #[doc(alias = "forkpty")]
    #[doc(alias = "tty")]
    pub fn pty(mut self, pty: Pty) -> Command {
        self.pty = Some(pty);
        self
    }

    /// The stream as it was set. With a terminal, one that was not set is on it.
    /// Whether it asks for what only a process of this machine can have.
    pub(crate) fn is_local(&self) -> bool {
        let elsewhere =
            |stream: &Option<Stdio>| stream.as_ref().is_none_or(|stream| stream.is_pipe() || stream.is_null());
        let attributes = Attributes { close_others: self.attributes.close_others, ..Attributes::default() };
        !self.streams.iter().all(elsewhere)
            || !self.descriptors.is_empty()
            || self.pty.is_some()
            || !self.hooks.is_empty()
            || !self.targets.is_empty()
            || self.attributes != attributes
            || matches!(self.directory, Some(Directory::Fd(_)))
    }

    pub(crate) fn chosen_stream(&self, number: usize) -> Option<Stdio> {
        let set = self.streams.get(number).cloned().flatten();
        set.or_else(|| self.pty.as_ref().map(|_| Stdio::pty()))
    }

    /// The three of them.
    pub(crate) fn chosen_streams(&self) -> [Option<Stdio>; 3] {
        [0, 1, 2].map(|number| self.chosen_stream(number))
    }

    fn stream(mut self, number: usize, stdio: Stdio) -> Command {
        if let Some(place) = self.streams.get_mut(number) {
            *place = Some(stdio);
        }
        self
    }

    /// Gives the child a further descriptor at a number of your choice, 3 or above. Any map works, also one that swaps.
    #[doc(alias = "pass_fds")]
    pub fn fd(mut self, number: RawFd, stdio: impl Into<Stdio>) -> Command {
        self.descriptors.push((number, stdio.into()));
        self
    }

    /// Gives the child a copy of a descriptor under the same number, as Python's `pass_fds` does. The parent's own keeps
    /// its flags.
    #[doc(alias = "pass_fds")]
    pub fn pass_fd(self, fd: impl AsFd) -> Command {
        let number = fd.as_fd().as_raw_fd();
        self.fd(number, Stdio::borrowed(fd))
    }

    /// Lets the child also have the parent's other descriptors that are not close-on-exec. By default it gets 0 to 2 and
    /// those it was given, and no others.
    #[doc(alias = "close_fds")]
    pub fn inherit_fds(mut self) -> Command {
        self.attributes.close_others = false;
        self
    }

    /// The size that pipes made for this command should have, in bytes; in a pipeline also the pipe to the next stage. A wish: where
    /// the system or a quota refuses, they keep their size.
    #[doc(alias = "pipesize")]
    pub fn pipe_size(mut self, bytes: usize) -> Command {
        self.attributes.pipe_size = Some(bytes);
        self
    }

    /// What the child reads on standard input, for verbs that run to the end. Fed by a pipe while output is read, so no
    /// amount of either can block the other.
    pub fn input(mut self, input: impl Into<Input>) -> Command {
        self.input = Some(input.into());
        self
    }

    /// How much is kept of each captured stream, and what happens beyond. By default verbs that collect keep one gibibyte and
    /// [fail](Overflow::Fail) beyond; those that show the output as it comes keep the last 64 KiB, for errors.
    ///
    /// With [`Overflow::Spill`] the file is that of standard output; standard error gets one beside it, with `.stderr` behind the
    /// name.
    pub fn capture_limit(mut self, bytes_max: usize, overflow: Overflow) -> Command {
        let beside = match &overflow {
            Overflow::Spill(path) => {
                let mut name = path.clone().into_os_string();
                name.push(".stderr");
                Overflow::Spill(name.into())
            }
            other => other.clone(),
        };
        self.set().limits = [Some(Limit { bytes_max, overflow }), Some(Limit { bytes_max, overflow: beside })];
        self
    }

    /// The limit for standard error alone; see [`capture_limit`](Self::capture_limit).
    pub fn capture_limit_stderr(mut self, bytes_max: usize, overflow: Overflow) -> Command {
        let [stdout, _] = self.settings.limits.clone();
        self.set().limits = [stdout, Some(Limit { bytes_max, overflow })];
        self
    }

    /// Gives a copy of both output streams to a target, as they come: to show them and collect them, or to show them and write them
    /// to a file. Lines of the two streams are never torn if the target has a prefix, timestamps or a filter of lines.
    ///
    /// A stream with a target comes by a pipe. Verbs that collect collect it as well; verbs that do not, like
    /// [`call`](Self::call), keep its last 64 KiB for errors. For a child that was [spawned](Self::spawn) the targets get what a
    /// conversation reads, such as [`communicate`](crate::Child::communicate) or [`lines`](crate::Child::lines).
    ///
    /// A target that cannot be written to ends the run: the child is stopped, and the error says which target and holds what was
    /// read. A terminal or pipe that does not take the bytes holds up the child, but not its timeout; what it has not taken then it
    /// does not get, and the run has timed out, even if the child has ended.
    ///
    /// ```
    /// use procession::{Clock, Command, Target};
    ///
    /// # let folder = std::env::temp_dir().join(format!("procession-doc-tee-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let log = folder.join("build.log");
    /// let output = Command::shell("echo building; echo careful >&2")
    ///     .tee(Target::stdout())
    ///     .tee(Target::append(&log).timestamps(Clock::Utc))
    ///     .output()?;
    /// assert_eq!(output.stdout(), b"building\n");
    /// assert!(std::fs::read_to_string(&log)?.contains("Z careful\n"));
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tee(self, target: Target) -> Command {
        self.push_target(None, target)
    }

    /// Gives a copy of standard output to a target; see [`tee`](Self::tee).
    pub fn tee_stdout(self, target: Target) -> Command {
        self.push_target(Some(Stream::Stdout), target)
    }

    /// Gives a copy of standard error to a target; see [`tee`](Self::tee).
    pub fn tee_stderr(self, target: Target) -> Command {
        self.push_target(Some(Stream::Stderr), target)
    }

    fn push_target(mut self, stream: Option<Stream>, target: Target) -> Command {
        self.targets.push((stream, target));
        self
    }

    /// Whether a target wants a stream.
    pub(crate) fn has_target(&self, stream: Stream) -> bool {
        self.targets.iter().any(|(of, _)| of.is_none_or(|of| of == stream))
    }

    /// Whether a target wants a stream and not the other.
    pub(crate) fn has_own_target(&self, stream: Stream) -> bool {
        self.targets.iter().any(|(of, _)| *of == Some(stream))
    }

    /// Keeps in which order the pieces of both streams came, and when: see [`Output::transcript`](crate::Output::transcript).
    pub fn transcript(mut self) -> Command {
        self.set().transcript = true;
        self
    }

    /// The longest line that [`for_each_line`](Self::for_each_line) shows in one piece, in bytes; longer ones come in several. One
    /// mebibyte by default.
    pub fn line_limit(mut self, bytes_max: usize) -> Command {
        self.set().line_max = bytes_max;
        self
    }

    /// How [`Output::stdout_text`](crate::Output::stdout_text) and its kin decode.
    #[doc(alias = "encoding")]
    pub fn text(mut self, text: Text) -> Command {
        self.set().text = text;
        self
    }
}

/// The run.
impl Command {
    /// The longest time for the whole run, for verbs that run to the end. When it has passed, the child is stopped by its
    /// [`stop`](Self::stop) plan and the error holds everything that was read.
    pub fn timeout(mut self, timeout: Duration) -> Command {
        self.timeout = Some(timeout);
        self
    }

    /// How the child is stopped: when the timeout passes, when it writes too much, when the verb's thread unwinds, and on
    /// drop if [`kill_on_drop`](Self::kill_on_drop) is set.
    pub fn stop(mut self, stop: Stop) -> Command {
        self.set().stop = stop;
        self
    }

    /// How long captured pipes may stay open after the child has ended, because a grandchild holds them: one second by
    /// default. Then the record says [`CutOff`](crate::Completeness::CutOff). [`Duration::MAX`] waits for the end of file.
    pub fn drain(mut self, drain: Duration) -> Command {
        self.set().drain = drain;
        self
    }

    /// The exit codes that count as success, instead of 0 alone. Negative numbers stand for signals, as in
    /// [`returncode`](crate::ExitStatus::returncode).
    pub fn accept(mut self, codes: impl IntoIterator<Item = i32>) -> Command {
        self.set().accepted = Accepted::Codes(codes.into_iter().collect());
        self
    }

    /// Lets every end count as success.
    pub fn accept_any(mut self) -> Command {
        self.set().accepted = Accepted::Any;
        self
    }

    /// Stops the child by its [`stop`](Self::stop) plan when its [`Child`](crate::Child) is dropped. Otherwise a dropped
    /// child goes on and is reaped quietly later.
    pub fn kill_on_drop(mut self) -> Command {
        self.kill_on_drop = true;
        self
    }

    /// Marks the child's environment so that a stop finds all its descendants, also those that left its group, session and
    /// line of descent. The variable is called `PROCESSION_TREE`.
    pub fn track_descendants(mut self) -> Command {
        self.track = true;
        self
    }

    /// Prints the command as a shell line, with `+ ` in front, to this program's standard error just before it is started, as
    /// `set -x` does in a shell. Secrets are masked and control characters made visible. A standard error that is closed, or takes
    /// nothing, is no error.
    ///
    /// ```
    /// use procession::Command;
    ///
    /// // + make -j8 'PREFIX=/opt/my tools'
    /// let make = Command::new("make").args(["-j8", "PREFIX=/opt/my tools"]).echo();
    /// # Command::new("true").secret_arg("hunter2").echo().check_call()?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[doc(alias = "verbose")]
    #[doc(alias = "xtrace")]
    pub fn echo(mut self) -> Command {
        self.echo = true;
        self
    }

    /// Calls a function with every command just before it is started: for logs and audits.
    #[doc(alias = "audit")]
    pub fn on_spawn(mut self, observer: impl Fn(&Command) + Send + Sync + 'static) -> Command {
        self.observer = Some(Arc::new(observer));
        self
    }
}

/// What the child is allowed, and where it belongs. All of it is done in the child before the program starts, at no cost to
/// the speed of starting; a step that fails is an error that names it.
impl Command {
    /// The user the child runs as, by number or by name. Its groups become those of the user, unless they are given: the
    /// primary group, and the supplementary ones of the group database. A number without an entry in the user database
    /// needs [`group`](Self::group) as well.
    #[doc(alias = "setuid")]
    #[doc(alias = "uid")]
    pub fn user(mut self, user: impl Into<Id>) -> Command {
        self.attributes.user = Some(user.into());
        self
    }

    /// The group the child runs as, by number or by name.
    #[doc(alias = "setgid")]
    #[doc(alias = "gid")]
    pub fn group(mut self, group: impl Into<Id>) -> Command {
        self.attributes.group = Some(group.into());
        self
    }

    /// The supplementary groups, by number or by name; none if the list is empty.
    #[doc(alias = "extra_groups")]
    #[doc(alias = "setgroups")]
    pub fn groups<I: Into<Id>>(mut self, groups: impl IntoIterator<Item = I>) -> Command {
        self.attributes.groups = Some(groups.into_iter().map(Into::into).collect());
        self
    }

    /// Keeps the supplementary groups of the parent although the user changes.
    pub fn keep_groups(mut self) -> Command {
        self.attributes.keep_groups = true;
        self
    }

    /// The file mode creation mask, such as `0o022`.
    pub fn umask(mut self, mask: u32) -> Command {
        self.attributes.umask = Some(mask);
        self
    }

    /// Makes the child the leader of a new session, without a controlling terminal.
    #[doc(alias = "start_new_session")]
    pub fn setsid(mut self) -> Command {
        self.attributes.session = true;
        self
    }

    /// Puts the child in a process group: 0 for a new one that it leads.
    pub fn process_group(mut self, group: i32) -> Command {
        self.attributes.process_group = Some(group);
        self
    }

    /// Makes the child the leader of a new session whose controlling terminal is its standard input.
    pub fn controlling_terminal(mut self) -> Command {
        self.attributes.session = true;
        self.attributes.controlling_terminal = true;
        self
    }

    /// Puts the child in a group of its own in the foreground of the terminal, as a shell does with a job. The terminal
    /// comes back to the parent's group when the child has ended and was waited for.
    pub fn foreground(mut self) -> Command {
        self.attributes.process_group.get_or_insert(0);
        self.attributes.foreground = true;
        self
    }

    /// Limits a resource: the limit that holds, and the one up to which the child may raise it. `u64::MAX` is no limit.
    #[doc(alias = "rlimit")]
    pub fn limit(mut self, resource: Resource, soft: u64, hard: u64) -> Command {
        self.attributes.limits.push((resource, soft, hard));
        self
    }

    /// Adds to the nice value: more is less urgent.
    pub fn nice(mut self, increment: i32) -> Command {
        self.attributes.nice = Some(increment);
        self
    }

    /// The processors the child may run on. Linux.
    pub fn cpu_affinity(mut self, processors: impl IntoIterator<Item = usize>) -> Command {
        self.attributes.affinity = Some(processors.into_iter().collect());
        self
    }

    /// How much the kernel likes to kill the child when memory ends, from -1000 to 1000. Linux.
    pub fn oom_score(mut self, score: i32) -> Command {
        self.attributes.oom_score = Some(score);
        self
    }

    /// A signal for the child when this process ends, however it ends. Linux (PR_SET_PDEATHSIG).
    ///
    /// The kernel ties this to the *thread* that starts the child, so from any thread but the main one the child is started
    /// by a helper thread that lives as long as the process. A program that changes its user at exec loses the setting.
    #[doc(alias = "pdeathsig")]
    pub fn parent_death_signal(mut self, signal: Signal) -> Command {
        self.attributes.parent_death_signal = Some(signal);
        self
    }

    /// Forbids the child and its descendants to gain privileges by exec. Linux.
    pub fn no_new_privileges(mut self) -> Command {
        self.attributes.no_new_privileges = true;
        self
    }

    /// The signals the child blocks. None by default.
    #[doc(alias = "sigmask")]
    pub fn signal_mask(mut self, blocked: impl IntoIterator<Item = Signal>) -> Command {
        self.attributes.mask = Mask::Block(blocked.into_iter().collect());
        self
    }

    /// Lets the child block what the calling thread blocks.
    pub fn inherit_signal_mask(mut self) -> Command {
        self.attributes.mask = Mask::Inherit;
        self
    }

    /// Lets the child ignore a signal.
    pub fn ignore_signal(mut self, signal: Signal) -> Command {
        self.attributes.actions.push((signal, true));
        self
    }

    /// Gives a signal its default action in the child, also if the parent ignores it.
    pub fn default_signal(mut self, signal: Signal) -> Command {
        self.attributes.actions.push((signal, false));
        self
    }

    /// Whether SIGPIPE and SIGXFSZ, which language runtimes ignore, get their default action in the child: yes by default.
    /// Other signals that this process was told to ignore stay ignored (nohup(1)).
    pub fn restore_signals(mut self, restore: bool) -> Command {
        self.attributes.restore_signals = restore;
        self
    }

    /// The control group the child belongs to from birth: a directory of the cgroup file system. Linux.
    pub fn cgroup(mut self, directory: impl Into<PathBuf>) -> Command {
        self.attributes.cgroup = Some(directory.into());
        self
    }

    /// Runs a function in the child just before exec, after every other step.
    ///
    /// Everything else of this type is data and costs nothing; this takes the slow path (fork), whose price grows with the
    /// memory of the parent. An error is the error of the spawn; a panic aborts the child.
    ///
    /// # Safety
    /// The function runs in a copy of this process with one thread. It must be async-signal-safe (signal-safety(7)): no
    /// allocation, no lock, nothing that another thread might have held at the moment of the fork.
    #[doc(alias = "preexec_fn")]
    #[allow(unsafe_code)] // a duty for the caller; no unsafe operation is here
    pub unsafe fn pre_exec(mut self, hook: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Command {
        self.hooks.push(Arc::new(hook));
        self
    }
}

/// What was asked for.
impl Command {
    /// The program.
    pub fn get_program(&self) -> &OsStr {
        self.program.as_os_str()
    }

    /// The arguments, without the program's name. Secrets are not masked.
    pub fn get_args(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().map(|arg| arg.text.as_os_str())
    }

    /// The directory the child starts in, if one was given by path.
    pub fn get_current_dir(&self) -> Option<&Path> {
        match &self.directory {
            Some(Directory::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// What the child reads on standard input, if something is fed to it.
    pub fn get_input(&self) -> Option<&Input> {
        self.input.as_ref()
    }

    /// The longest time for the whole run, if there is one.
    pub fn get_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The changes to the environment: a value, or `None` for one that is removed.
    pub fn get_envs(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        self.env
            .changes
            .iter()
            .map(|(key, value)| (key.as_os_str(), value.as_ref().map(|value| value.text.as_os_str())))
    }
}

/// A line for a POSIX shell, with secrets masked. What a shell has no short word for, such as limits and users, is left out.
impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Directory::Path(path)) = &self.directory {
            write!(out, "cd {} && ", quote(path))?;
        }
        self.fmt_environment(out)?;
        let program = self.executable.as_ref().unwrap_or(&self.program);
        match program {
            // A shell searches a path without a slash, and we do not.
            Program::Path(path) if !path.as_os_str().as_encoded_bytes().contains(&b'/') => {
                out.write_str(&quote(Path::new(".").join(path)))?;
            }
            other => out.write_str(&quote_program(other.as_os_str()))?,
        }
        for arg in &self.args {
            let shown = if arg.secret { quote::MASK.to_owned() } else { quote(&arg.text) };
            write!(out, " {shown}")?;
        }
        self.fmt_streams(out)
    }
}

impl Command {
    fn fmt_environment(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = || self.env.changes.iter().filter(|(_, value)| value.is_none());
        // `env` is needed for what a plain assignment cannot say.
        let plain = |key: &OsStr| {
            let mut word = key.to_owned();
            word.push("=");
            quote::assignment(&word).is_some()
        };
        if self.env.clear || removed().next().is_some() || self.env.changes.keys().any(|key| !plain(key)) {
            out.write_str("env ")?;
            if self.env.clear {
                out.write_str("-i ")?;
            }
        }
        for (key, _) in removed() {
            write!(out, "-u {} ", quote(key))?;
        }
        for (key, value) in &self.env.changes {
            if let Some(value) = value {
                let shown = if value.secret { quote::MASK.to_owned() } else { quote(&value.text) };
                write!(out, "{}={shown} ", if plain(key) { key.to_string_lossy().into_owned() } else { quote(key) })?;
            }
        }
        Ok(())
    }

    fn fmt_streams(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, stdio) in self.streams.iter().enumerate() {
            let to = if number == 1 { String::new() } else { number.to_string() };
            match stdio.as_ref().map(|stdio| &stdio.0) {
                Some(Kind::Null) if number == 0 => out.write_str(" </dev/null")?,
                Some(Kind::Null) => write!(out, " {to}>/dev/null")?,
                Some(Kind::File { path, .. }) if number == 0 => write!(out, " <{}", quote(path))?,
                Some(Kind::File { path, mode: FileMode::Append }) => write!(out, " {to}>>{}", quote(path))?,
                Some(Kind::File { path, .. }) => write!(out, " {to}>{}", quote(path))?,
                Some(Kind::Same(other)) => write!(out, " {to}>&{other}")?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A program whose name looks like an assignment would be read as one.
fn quote_program(program: &OsStr) -> String {
    let quoted = quote(program);
    if quote::assignment(program).is_some() && !quoted.starts_with(['\'', '"']) {
        format!("'{quoted}'")
    } else {
        quoted
    }
}

/// The shell line, and nothing that was marked secret.
impl fmt::Debug for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Command({self})")
    }
}

/// A [`Command`] from a program and its arguments.
///
/// ```
/// use procession::cmd;
///
/// let count = 3;
/// let text = cmd!("seq", count.to_string()).check_output_text()?;
/// assert_eq!(text, "1\n2\n3\n");
/// # Ok::<(), procession::Error>(())
/// ```
#[macro_export]
macro_rules! cmd {
    ($program:expr $(, $arg:expr)* $(,)?) => {
        $crate::Command::new($program)$(.arg($arg))*
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_can_be_pasted() {
        let cases = [
            (Command::new("ls"), "ls"),
            (Command::new("ls").arg("a b").arg("").arg("it's"), r#"ls 'a b' '' "it's""#),
            (Command::new(Path::new("ls")), "./ls"),
            (Command::new("a").env("K", "v w").env_remove("X"), "env -u X K='v w' a"),
            (Command::new("a").env_clear().env("K", "v"), "env -i K=v a"),
            (Command::new("a").secret_arg("pw").secret_env("T", "pw"), "T=*** a ***"),
            (Command::new("A=b"), "'A=b'"),
            (Command::new("rm").operand("-rf").operand("x"), "rm ./-rf x"),
            (
                Command::new("a").stdin(Stdio::read("i")).stdout(Stdio::append("o")).stderr(Stdio::stdout()),
                "a <i >>o 2>&1",
            ),
        ];
        for (command, line) in cases {
            assert_eq!(command.to_string(), line);
        }
    }

    #[test]
    fn what_is_displayed_reads_back() {
        for line in ["ls -l", "A=1 B='x y' prog 'a b' \"it's\" ''", "'A=b' c", "prog 'new\nline'"] {
            let command = Command::parse(line).unwrap();
            let again = Command::parse(command.to_string()).unwrap();
            assert_eq!(command.to_string(), again.to_string());
            assert_eq!(command.program, again.program);
            assert_eq!(command.args, again.args);
            assert_eq!(command.env, again.env);
        }
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in ["", "  ", "A=1", "echo 'open", "echo \\"] {
            assert!(Command::parse(line).unwrap_err().is_invalid_input(), "{line:?}");
        }
    }

    #[test]
    fn debug_keeps_secrets() {
        let command = Command::new("login").secret_arg("hunter2").secret_env("TOKEN", "hunter2");
        assert!(!format!("{command:?} {command}").contains("hunter2"));
    }
}
