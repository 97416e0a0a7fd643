//! A command made ready: every byte and every step, in order, before any process exists. Decides how the program is found,
//! which requests contradict themselves, which steps the child takes and in which order, and which descriptors it has.

use crate::command::{self, Attributes, Command, Directory, FileMode, Id, Kind, Mask, Program, Pty, Stdio};
use crate::error::{Error, ErrorKind};
use crate::output::Stream;
use crate::signal::Signal;
use crate::sys::affinity;
use crate::sys::step::Step;
use crate::sys::strings::{Strings, ZeroByte};
use crate::terminal;
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a child would be: the program as found, its arguments and environment, its streams, and each step between its birth
/// and the program, in order.
///
/// Made by [`Command::plan`] without running anything. [`Display`](fmt::Display) shows it for people; secrets among the
/// arguments are masked there, and the environment is only counted.
///
/// ```
/// use procession::Command;
///
/// let plan = Command::new("sh").arg("-c").arg("true").umask(0o077).setsid().plan()?;
/// assert!(plan.program().ends_with("bin/sh"));
/// let steps: Vec<_> = plan.steps().iter().map(|step| step.name()).collect();
/// let place = |name| steps.iter().position(|step| *step == name).unwrap();
/// assert!(place("umask") < place("setsid"));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// The shell line, for errors and records.
    pub(crate) line: String,
    /// Where the program may be, in the order in which the child tries.
    pub(crate) candidates: Strings,
    pub(crate) argv: Strings,
    pub(crate) envp: Arc<Strings>,
    /// What goes to which descriptor; 0 to 2 that are inherited are left out.
    pub(crate) descriptors: Vec<(RawFd, Stdio)>,
    /// Everything else, in order. Descriptors of ours that a step needs are filled in when they are open.
    pub(crate) steps: Vec<Step>,
    pub(crate) directory: Option<SharedFd>,
    /// The terminal to open, if a stream is on it.
    pub(crate) pty: Option<Pty>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) pipe_size: Option<usize>,
    pub(crate) leads_session: bool,
    pub(crate) leads_group: bool,
    /// The environment entry that marks the child's tree.
    pub(crate) mark: Option<CString>,
    /// What must not be shown, wherever it turns up.
    pub(crate) secrets: Vec<OsString>,
}

/// A descriptor that a command holds; equal if it is the same one.
#[derive(Clone, Debug)]
pub(crate) struct SharedFd(pub(crate) Arc<OwnedFd>);

impl PartialEq for SharedFd {
    fn eq(&self, other: &SharedFd) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedFd {}

/// A descriptor of ours that is not open yet.
pub(crate) const UNBOUND: RawFd = -1;

impl Command {
    /// Makes the command ready without running it: a dry run.
    ///
    /// # Errors
    /// Everything that is wrong with the request, and a program that cannot be found.
    #[doc(alias = "dry_run")]
    pub fn plan(&self) -> Result<Plan, Error> {
        let streams = self.streams_with_targets(&self.chosen_streams());
        streams.and_then(|streams| Plan::resolve(self, &streams)).map_err(|error| error.of_command(|| self.to_string()))
    }

    /// A stream that has a target comes by a pipe.
    pub(crate) fn streams_with_targets(&self, streams: &[Option<Stdio>; 3]) -> Result<[Option<Stdio>; 3], Error> {
        let [stdout_ends, stderr_ends] = have_ends(streams);
        let [stdin, stdout, stderr] = streams.clone();
        let stdout = self.stream_with_target(Stream::Stdout, stdout, stdout_ends)?;
        let stderr = self.stream_with_target(Stream::Stderr, stderr, stderr_ends)?;
        Ok([stdin, stdout, stderr])
    }

    fn stream_with_target(&self, stream: Stream, stdio: Option<Stdio>, has_end: bool) -> Result<Option<Stdio>, Error> {
        match stdio {
            stdio if !self.has_target(stream) => Ok(stdio),
            None => Ok(Some(Stdio::piped())),
            // Targets of both streams get it by way of the stream that it has become.
            Some(stdio) if has_end || (joins_another(&stdio) && !self.has_own_target(stream)) => Ok(Some(stdio)),
            Some(stdio) => Err(Error::invalid(format!("{stream} has a target, and is said to be {stdio:?}"))),
        }
    }
}

impl Plan {
    /// The program's file, as it was found.
    pub fn program(&self) -> &Path {
        Path::new(self.candidates.iter().next().map_or(OsStr::new(""), |path| OsStr::from_bytes(path.to_bytes())))
    }

    /// The words the program will see, its own name first.
    pub fn args(&self) -> impl Iterator<Item = &OsStr> {
        self.argv.iter().map(|word| OsStr::from_bytes(word.to_bytes()))
    }

    /// The entries of its environment, as `KEY=value`.
    pub fn env(&self) -> impl Iterator<Item = &OsStr> {
        self.envp.iter().map(|entry| OsStr::from_bytes(entry.to_bytes()))
    }

    /// The steps between its birth and the program, in order; the streams come right after the signals.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn resolve(command: &Command, streams: &[Option<Stdio>; 3]) -> Result<Plan, Error> {
        let descriptors = descriptors(streams, &command.descriptors)?;
        let (pty, attributes) = terminal(command, &descriptors)?;
        check_attributes(&attributes)?;
        let mark = command.track.then(mark);
        let envp = environment(command, mark.as_deref())?;
        let directory = match &command.directory {
            Some(Directory::Fd(fd)) => Some(SharedFd(Arc::clone(fd))),
            _ => None,
        };
        Ok(Plan {
            line: command.to_string(),
            argv: arguments(command)?,
            envp,
            steps: steps(command, &attributes, &descriptors)?,
            candidates: lookup(command)?,
            descriptors,
            directory,
            pty,
            cgroup: attributes.cgroup.clone(),
            pipe_size: attributes.pipe_size,
            leads_session: attributes.session,
            leads_group: attributes.session || attributes.process_group == Some(0),
            mark,
            secrets: secrets(command),
        })
    }
}

/// As for people: the environment and the arguments may hold secrets.
impl fmt::Debug for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Plan(\n{self})")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "run      {}", self.line)?;
        for path in self.candidates.iter() {
            writeln!(out, "program  {}", path.to_string_lossy())?;
        }
        writeln!(out, "env      {} entries", self.envp.len())?;
        if let Some(Pty { rows, cols, mode }) = &self.pty {
            let words = [(mode.echo, " echo"), (mode.crlf, " crlf"), (mode.raw, " raw")];
            let words: String = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
            writeln!(out, "pty      {rows} rows, {cols} columns{words}")?;
        }
        for (number, stdio) in &self.descriptors {
            writeln!(out, "stream   {number} <- {stdio:?}")?;
        }
        for step in &self.steps {
            writeln!(out, "step     {step}")?;
        }
        writeln!(out, "step     exec")
    }
}

/// A string for the kernel; a zero byte would cut it short, so it is refused by name.
fn c_string(what: impl fmt::Display, text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{what} contains a zero byte: {text:?}")))
}

/// What must not be shown, in whatever text it stands.
pub(crate) fn secrets(command: &Command) -> Vec<OsString> {
    let args = command.args.iter().filter(|arg| arg.secret).map(|arg| &arg.text);
    let values = command.env.changes.values().flatten().filter(|value| value.secret).map(|value| &value.text);
    args.chain(values).cloned().collect()
}

fn arguments(command: &Command) -> Result<Strings, Error> {
    let name = command.arg0.as_deref().unwrap_or(command.program.as_os_str());
    let bytes = command.args.iter().map(|arg| arg.text.len() + 1).sum::<usize>() + name.len() + 1;
    let mut argv = Strings::with_capacity(command.args.len() + 1, bytes);
    push(&mut argv, "the program's name", name)?;
    for (place, arg) in command.args.iter().enumerate() {
        argv.push(&[arg.text.as_bytes()]).map_err(|ZeroByte| {
            let shown = if arg.secret { "***".to_owned() } else { format!("{:?}", arg.text) };
            Error::invalid(format!("argument {} contains a zero byte: {shown}", place + 1))
        })?;
    }
    Ok(argv)
}

fn push(strings: &mut Strings, what: &str, text: &OsStr) -> Result<(), Error> {
    strings
        .push(&[text.as_bytes()])
        .map_err(|ZeroByte| Error::invalid(format!("{what} contains a zero byte: {text:?}")))
}

fn environment(command: &Command, mark: Option<&CStr>) -> Result<Arc<Strings>, Error> {
    for (key, value) in &command.env.changes {
        let bytes = key.as_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') {
            return Err(Error::invalid(format!("environment key {key:?} is empty or contains `=`")));
        }
        if bytes.contains(&0) {
            return Err(Error::invalid(format!("environment key {key:?} contains a zero byte")));
        }
        if value.as_ref().is_some_and(|value| value.text.as_bytes().contains(&0)) {
            return Err(Error::invalid(format!("the value of environment variable {key:?} contains a zero byte")));
        }
    }
    if command.env.is_inherited()
        && mark.is_none()
        && let Some(held) = command::held_environment()
    {
        return Ok(held);
    }
    let mut envp = Strings::with_capacity(64, 4096);
    command.env.each_inherited(|key, value| envp.push_inherited(key, value));
    for (key, value) in command.env.added() {
        // Looked through above.
        let _ = envp.push(&[key.as_bytes(), b"=", value.as_bytes()]);
    }
    if let Some(mark) = mark {
        // Made by us, without zero bytes.
        let _ = envp.push(&[mark.to_bytes()]);
    }
    Ok(Arc::new(envp))
}

/// With this begins the entry that marks a tree.
pub(crate) const MARK: &str = "PROCESSION_TREE=";

/// An entry that no other child has.
fn mark() -> CString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let entry = format!("{MARK}{}.{count}.{time}", std::process::id());
    CString::new(entry).unwrap_or_default()
}

// ---- the program ----

/// Where the program may be. A word without a slash is searched in the PATH that the child will have; relative and empty
/// entries of PATH, which mean "whatever directory I am in", are passed over. A relative path is relative to the directory
/// of the parent, whatever directory the child gets.
fn lookup(command: &Command) -> Result<Strings, Error> {
    let program = command.executable.as_ref().unwrap_or(&command.program);
    let name = program.as_os_str();
    if name.is_empty() {
        return Err(Error::invalid("the program's name is empty"));
    }
    let mut candidates = Strings::with_capacity(1, name.len() + 1);
    push(&mut candidates, "the program's name", name)?;
    let found = match program {
        Program::Name(name) if !name.as_bytes().contains(&b'/') => search(command, name)?,
        _ if command.directory.is_some() && Path::new(name).is_relative() => {
            let here = std::env::current_dir().map_err(|error| {
                Error::io("getcwd", error).detail("the program's path is relative to a directory that is gone")
            })?;
            vec![here.join(name)]
        }
        // As it stands.
        _ => return Ok(candidates),
    };
    let mut candidates = Strings::default();
    for path in &found {
        push(&mut candidates, "the program's path", path.as_os_str())?;
    }
    Ok(candidates)
}

fn search(command: &Command, name: &OsStr) -> Result<Vec<PathBuf>, Error> {
    if name == "." || name == ".." {
        return Err(Error::new(ErrorKind::NotFound).detail(format!("{name:?} is a directory, not a program")));
    }
    // Without PATH the C library searches these.
    let path = command.env.get("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in std::env::split_paths(&path) {
        if directory.is_absolute() && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    // A child of other rights may be refused where we are not: then it gets every place to try.
    let other_rights = command.attributes.user.is_some() || command.attributes.group.is_some();
    let list = std::env::join_paths(&directories).unwrap_or_default();
    let found: Vec<PathBuf> = match which::which_in_all(name, Some(list), "/") {
        Ok(found) if other_rights => found.collect(),
        Ok(mut found) => found.next().into_iter().collect(),
        Err(_) => Vec::new(),
    };
    if found.is_empty() { Err(not_found(name, &directories)) } else { Ok(found) }
}

/// Nothing can be run: because of missing permission, which must not hide behind a later "not found", or because there is
/// nothing anywhere.
fn not_found(name: &OsStr, directories: &[PathBuf]) -> Error {
    let places: Vec<PathBuf> = directories.iter().map(|directory| directory.join(name)).collect();
    for place in &places {
        let denied = match std::fs::metadata(place) {
            Ok(metadata) => metadata.is_file(),
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        if denied {
            let error = io::Error::from_raw_os_error(libc::EACCES);
            return Error::io("find", error).path(place.clone());
        }
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let tried = if places.is_empty() { "PATH has no absolute directory".to_owned() } else { places.join(", ") };
    Error::new(ErrorKind::NotFound)
        .detail(format!("no such program (tried {tried})"))
        .source(io::Error::from_raw_os_error(libc::ENOENT))
}

// ---- the streams ----

const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];

fn stream_name(number: RawFd) -> String {
    let name = usize::try_from(number).ok().and_then(|number| STREAMS.get(number));
    name.map_or_else(|| format!("descriptor {number}"), ToString::to_string)
}

fn descriptors(streams: &[Option<Stdio>; 3], extra: &[(RawFd, Stdio)]) -> Result<Vec<(RawFd, Stdio)>, Error> {
    let mut all: Vec<(RawFd, Stdio)> = Vec::with_capacity(3 + extra.len());
    for (number, stdio) in streams.iter().enumerate() {
        match stdio {
            None | Some(Stdio(Kind::Inherit)) => {}
            Some(stdio) => all.push((number as RawFd, stdio.clone())),
        }
    }
    for (number, stdio) in extra {
        if *number < 3 {
            return Err(Error::invalid(format!("descriptor {number}: use stdin, stdout and stderr for 0 to 2")));
        }
        if stdio.is_pty() {
            let text = format!("descriptor {number}: only stdin, stdout and stderr can be on the terminal");
            return Err(Error::invalid(text));
        }
        if stdio.is_pipe() {
            let text = format!("descriptor {number}: make a pipe with `pipe()` and give one end");
            return Err(Error::invalid(text));
        }
        if all.iter().any(|(other, _)| other == number) {
            return Err(Error::invalid(format!("descriptor {number} is given twice")));
        }
        all.push((*number, stdio.clone()));
    }
    for (number, stdio) in &all {
        check_stdio(*number, stdio, &all)?;
    }
    Ok(all)
}

fn check_stdio(number: RawFd, stdio: &Stdio, all: &[(RawFd, Stdio)]) -> Result<(), Error> {
    let name = || stream_name(number);
    match &stdio.0 {
        Kind::Broken { number: fd, errno } => {
            let error = Error::io(name(), io::Error::from_raw_os_error(*errno));
            Err(error.kind_of(ErrorKind::InvalidInput).detail(format!("descriptor {fd}")))
        }
        Kind::File { mode: FileMode::Read, .. } if number == 1 || number == 2 => {
            Err(Error::invalid(format!("{} cannot go to a file that is opened for reading", name())))
        }
        Kind::File { mode, .. } if number == 0 && *mode != FileMode::Read => {
            Err(Error::invalid("stdin cannot come from a file that is opened for writing"))
        }
        Kind::Same(_) if number == 0 => Err(Error::invalid("stdin cannot be an output stream")),
        Kind::Same(other) => {
            let other = RawFd::from(*other);
            let circle = other == number
                || all.iter().any(|(target, stdio)| *target == other && matches!(stdio.0, Kind::Same(_)));
            if circle {
                let other = stream_name(other);
                let text = format!("{} goes where {other} goes, and {other} goes nowhere", name());
                return Err(Error::invalid(text));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Of which output streams an end is ours. The terminal has one for both.
pub(crate) fn have_ends(streams: &[Option<Stdio>; 3]) -> [bool; 2] {
    let [_, stdout, stderr] = streams.each_ref().map(Option::as_ref);
    let shared = stdout.is_some_and(Stdio::is_pty);
    let stderr = stderr.is_some_and(|stderr| stderr.is_pipe() || (stderr.is_pty() && !shared));
    [stdout.is_some_and(Stdio::has_end), stderr]
}

/// Whether it goes where the other stream goes.
fn joins_another(stdio: &Stdio) -> bool {
    stdio.is_other_stream() || stdio.is_pty()
}

/// The terminal of the command, if a stream is on it, and what follows from that: the child leads a session of its own, and it is
/// the controlling terminal.
fn terminal<'c>(
    command: &'c Command,
    descriptors: &[(RawFd, Stdio)],
) -> Result<(Option<Pty>, Cow<'c, Attributes>), Error> {
    let attributes = Cow::Borrowed(&command.attributes);
    let Some(descriptor) = on_terminal(descriptors).next() else {
        let unused = command.pty.is_some();
        return if unused { Err(Error::invalid("no stream is on the terminal")) } else { Ok((None, attributes)) };
    };
    let pty = command.pty.clone().unwrap_or_default();
    terminal::check_size(pty.rows, pty.cols)?;
    if attributes.controlling_terminal && descriptor != 0 {
        return Err(Error::invalid("the controlling terminal is that of the command, and stdin is not on it"));
    }
    if attributes.foreground {
        return Err(Error::invalid("on a terminal of its own the child is in the foreground by itself"));
    }
    let mut attributes = attributes.into_owned();
    (attributes.session, attributes.controlling_terminal) = (true, true);
    Ok((Some(pty), Cow::Owned(attributes)))
}

/// Which of the streams are on the terminal of the command, in ascending order.
fn on_terminal(descriptors: &[(RawFd, Stdio)]) -> impl Iterator<Item = RawFd> {
    descriptors.iter().filter(|(_, stdio)| stdio.is_pty()).map(|(number, _)| *number)
}

/// How descriptors of ours get to the numbers the child wants, as if at the same time: a source that is also another's
/// target has to be lifted out of the way first. Returns which sources to lift.
pub(crate) fn to_lift(map: &[(RawFd, RawFd)]) -> Vec<bool> {
    map.iter().map(|(target, source)| target != source && map.iter().any(|(other, _)| other == source)).collect()
}

// ---- the steps ----

/// The order is that of CPython's `_posixsubprocess`, with what it lacks put where its rights still suffice: signals,
/// descriptors, control group, directory, umask, session and group, terminal, scheduling and limits, groups, group, user,
/// death signal (which a change of user clears), no new privileges, close others, mask.
fn steps(command: &Command, attributes: &Attributes, descriptors: &[(RawFd, Stdio)]) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::with_capacity(8);
    steps.extend(signal_steps(attributes));
    if attributes.cgroup.is_some() {
        steps.push(Step::ControlGroup { procs: UNBOUND });
    }
    match &command.directory {
        Some(Directory::Path(path)) => {
            if path.as_os_str().is_empty() {
                return Err(Error::invalid("the working directory is an empty path"));
            }
            steps.push(Step::Directory(c_string("the working directory", path.as_os_str())?));
        }
        Some(Directory::Fd(_)) => steps.push(Step::DirectoryDescriptor(UNBOUND)),
        None => {}
    }
    steps.extend(attributes.umask.map(Step::Umask));
    match attributes.process_group {
        _ if attributes.session => steps.push(Step::Session),
        Some(group) => steps.push(Step::ProcessGroup(group)),
        None => {}
    }
    if attributes.controlling_terminal {
        // Without a terminal of the command it is the one that standard input is on.
        let descriptor = on_terminal(descriptors).next().unwrap_or(0);
        steps.push(Step::ControllingTerminal { descriptor });
    }
    if attributes.foreground {
        steps.push(Step::Foreground { terminal: UNBOUND });
    }
    steps.extend(attributes.oom_score.map(Step::OomScore));
    steps.extend(attributes.nice.map(Step::Nice));
    let processors = attributes.affinity.clone().or_else(affinity::of_children);
    steps.extend(processors.map(|processors| Step::Affinity(mask_words(&processors))));
    steps.extend(attributes.limits.iter().map(|&(resource, soft, hard)| Step::Limit {
        resource: resource.number(),
        soft,
        hard,
    }));
    steps.extend(identity_steps(attributes)?);
    steps.extend(
        attributes
            .parent_death_signal
            .map(|signal| Step::ParentDeathSignal { signal: signal.number(), parent: std::process::id() as i32 }),
    );
    if attributes.no_new_privileges {
        steps.push(Step::NoNewPrivileges);
    }
    if attributes.close_others {
        let mut kept: Vec<RawFd> = descriptors.iter().map(|(number, _)| *number).filter(|fd| *fd > 2).collect();
        kept.sort_unstable();
        steps.push(Step::CloseOthers(kept));
    }
    match &attributes.mask {
        Mask::Empty => steps.push(Step::SignalMask(Vec::new())),
        Mask::Block(signals) => {
            steps.push(Step::SignalMask(signals.iter().map(|signal| signal.number()).collect()));
        }
        Mask::Inherit => {}
    }
    Ok(steps)
}

/// How many steps come before the descriptors are put in place.
pub(crate) fn is_before_descriptors(step: &Step) -> bool {
    matches!(step, Step::Signal { .. })
}

fn signal_steps(attributes: &Attributes) -> Vec<Step> {
    let restored = [Signal::PIPE, Signal::XFSZ].map(|signal| (signal, false));
    let restored = restored.iter().filter(|_| attributes.restore_signals);
    let overridden = |signal: &Signal| attributes.actions.iter().any(|(other, _)| other == signal);
    restored
        .filter(|(signal, _)| !overridden(signal))
        .chain(&attributes.actions)
        .map(|(signal, ignore)| Step::Signal { signal: signal.number(), ignore: *ignore })
        .collect()
}

fn mask_words(processors: &[usize]) -> Vec<usize> {
    let bits = usize::BITS as usize;
    let highest = processors.iter().max().copied().unwrap_or(0);
    let mut words = vec![0; highest / bits + 1];
    for processor in processors {
        if let Some(word) = words.get_mut(processor / bits) {
            *word |= 1 << (processor % bits);
        }
    }
    words
}

/// Groups, group, user, in this order. A user brings his groups along, so that none of ours are left to the child.
fn identity_steps(attributes: &Attributes) -> Result<Vec<Step>, Error> {
    // A look-up can be slow (the database may be on the network), so nobody is looked up of whom all is given.
    let all_given = attributes.group.is_some() && (attributes.groups.is_some() || attributes.keep_groups);
    let user = match &attributes.user {
        Some(Id::Number(number)) if all_given && *number != NO_ID => Some(Found { number: *number, entry: None }),
        user => user.as_ref().map(find_user).transpose()?,
    };
    let mut group = attributes.group.as_ref().map(find_group).transpose()?;
    let mut groups = match &attributes.groups {
        Some(groups) => Some(groups.iter().map(find_group).collect::<Result<Vec<_>, _>>()?),
        None => None,
    };
    if let Some(user) = &user {
        let own = nix::unistd::geteuid();
        let changes = own.is_root() || own.as_raw() != user.number;
        if changes && group.is_none() {
            let missing = || {
                let number = user.number;
                Error::invalid(format!("user {number} is not in the user database: say which group it has"))
            };
            group = Some(user.entry.as_ref().ok_or_else(missing)?.0);
        }
        if changes && groups.is_none() && !attributes.keep_groups {
            groups = Some(match (&user.entry, group) {
                (Some((primary, name)), group) => groups_of(name, group.unwrap_or(*primary)),
                (None, _) => Vec::new(),
            });
        }
    }
    let steps = [groups.map(Step::Groups), group.map(Step::GroupId), user.map(|user| Step::UserId(user.number))];
    Ok(steps.into_iter().flatten().collect())
}

/// A user's number, and what the user database knows: the primary group and the name.
struct Found {
    number: u32,
    entry: Option<(u32, CString)>,
}

/// The kernel reads this number as "leave it as it is".
const NO_ID: u32 = u32::MAX;

fn find_user(id: &Id) -> Result<Found, Error> {
    use nix::unistd::{Uid, User};
    let found = match id {
        Id::Number(NO_ID) => return Err(Error::invalid(format!("{NO_ID} is no user"))),
        Id::Number(number) => User::from_uid(Uid::from_raw(*number)),
        Id::Name(name) => User::from_name(name),
    };
    let found = found.map_err(|errno| Error::io("find user", errno.into()))?;
    match (id, found) {
        (_, Some(user)) => Ok(Found {
            number: user.uid.as_raw(),
            entry: Some((user.gid.as_raw(), c_string("the user's name", OsStr::new(&user.name))?)),
        }),
        (Id::Number(number), None) => Ok(Found { number: *number, entry: None }),
        (Id::Name(name), None) => Err(Error::invalid(format!("no such user: {name:?}"))),
    }
}

fn find_group(id: &Id) -> Result<u32, Error> {
    match id {
        Id::Number(NO_ID) => Err(Error::invalid(format!("{NO_ID} is no group"))),
        Id::Number(number) => Ok(*number),
        Id::Name(name) => match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(Error::invalid(format!("no such group: {name:?}"))),
            Err(errno) => Err(Error::io("find group", errno.into())),
        },
    }
}

#[cfg(not(target_vendor = "apple"))]
fn groups_of(name: &CStr, group: u32) -> Vec<u32> {
    use nix::unistd::{Gid, getgrouplist};
    match getgrouplist(name, Gid::from_raw(group)) {
        Ok(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        Err(_) => vec![group],
    }
}

/// Apple's group database has no bounded list.
#[cfg(target_vendor = "apple")]
fn groups_of(_name: &CStr, group: u32) -> Vec<u32> {
    vec![group]
}

// ---- what contradicts itself ----

fn check_attributes(attributes: &Attributes) -> Result<(), Error> {
    if attributes.session && attributes.process_group.is_some_and(|group| group != 0) {
        return Err(Error::invalid("the leader of a new session cannot join another process group"));
    }
    if attributes.session && attributes.foreground {
        return Err(Error::invalid("a new session has no terminal whose foreground it could take"));
    }
    if attributes.foreground && attributes.process_group != Some(0) {
        return Err(Error::invalid("a child in the foreground leads a process group of its own"));
    }
    if attributes.process_group.is_some_and(|group| group < 0) {
        return Err(Error::invalid("a process group is not negative"));
    }
    if attributes.umask.is_some_and(|mask| mask > 0o777) {
        return Err(Error::invalid("a file mode creation mask is at most 0o777"));
    }
    if attributes.oom_score.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(Error::invalid("an oom score is between -1000 and 1000"));
    }
    if attributes.keep_groups && attributes.groups.is_some() {
        return Err(Error::invalid("the supplementary groups are given, so they cannot be kept"));
    }
    for (signal, _) in &attributes.actions {
        if matches!(*signal, Signal::KILL | Signal::STOP) {
            return Err(Error::invalid(format!("{signal} has one action, which cannot be changed")));
        }
    }
    for &(resource, soft, hard) in &attributes.limits {
        if soft > hard {
            return Err(Error::invalid(format!("limit {resource:?}: {soft} is above {hard}")));
        }
    }
    let affinity = attributes.affinity.as_deref();
    if affinity.is_some_and(|list| list.is_empty() || list.iter().any(|&processor| processor >= 1 << 16)) {
        return Err(Error::invalid("the list of processors is empty or has an impossible number"));
    }
    check_supported(attributes)
}

#[cfg(target_os = "linux")]
fn check_supported(_attributes: &Attributes) -> Result<(), Error> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn check_supported(attributes: &Attributes) -> Result<(), Error> {
    let lacking = [
        (attributes.affinity.is_some(), "sched_setaffinity(2)"),
        (attributes.oom_score.is_some(), "/proc/self/oom_score_adj"),
        (attributes.parent_death_signal.is_some(), "PR_SET_PDEATHSIG"),
        (attributes.no_new_privileges, "PR_SET_NO_NEW_PRIVS"),
        (attributes.cgroup.is_some(), "control groups"),
    ];
    match lacking.iter().find(|(wanted, _)| *wanted) {
        Some((_, feature)) => Err(Error::unsupported(format!("this system has no {feature}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_a_target_is_lifted() {
        assert_eq!(to_lift(&[(1, 2), (2, 1)]), [true, true]);
        assert_eq!(to_lift(&[(1, 5), (2, 5)]), [false, false]);
        assert_eq!(to_lift(&[(5, 5), (1, 5)]), [false, true]);
        assert_eq!(to_lift(&[(0, 7), (7, 8), (8, 3)]), [true, true, false]);
    }

    /// Runs the moves on a table of descriptors, in order, with the lifted sources out of the way.
    fn simulate(map: &[(RawFd, RawFd)]) -> Vec<(RawFd, RawFd)> {
        let lift = to_lift(map);
        let mut table: std::collections::HashMap<RawFd, RawFd> = (0..16).map(|fd| (fd, fd)).collect();
        let mut moves = Vec::new();
        for (place, (target, source)) in map.iter().enumerate() {
            let from = if lift[place] { 100 + place as RawFd } else { *source };
            if lift[place] {
                table.insert(from, table[source]);
            }
            moves.push((*target, from));
        }
        for (target, from) in moves {
            let content = table[&from];
            table.insert(target, content);
        }
        map.iter().map(|(target, _)| (*target, table[target])).collect()
    }

    #[test]
    fn any_map_is_realised_as_if_at_the_same_time() {
        let mut seed = 12345_u32;
        let mut random = |bound: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % bound
        };
        for _ in 0..5_000 {
            let mut targets: Vec<RawFd> = (0..16).collect();
            let count = 1 + random(8) as usize;
            let map: Vec<(RawFd, RawFd)> = (0..count)
                .map(|_| {
                    let target = targets.swap_remove(random(targets.len() as u32) as usize);
                    (target, random(16) as RawFd)
                })
                .collect();
            assert_eq!(simulate(&map), map);
        }
    }

    #[test]
    fn steps_come_in_the_order_in_which_rights_are_given_up() {
        let command = Command::new("/bin/true")
            .current_dir("/")
            .umask(0o22)
            .setsid()
            .user(1)
            .group(2)
            .groups([3_u32, 4])
            .no_new_privileges()
            .nice(1);
        let plan = command.plan().unwrap();
        let names: Vec<&str> = plan.steps().iter().map(Step::name).collect();
        assert_eq!(
            names,
            [
                "sigaction",
                "sigaction",
                "chdir",
                "umask",
                "setsid",
                "nice",
                "setgroups",
                "setgid",
                "setuid",
                "no new privileges",
                "close others",
                "signal mask"
            ]
        );
        assert_eq!(plan, command.plan().unwrap());
        assert_ne!(plan, command.umask(0).plan().unwrap());
    }

    #[test]
    fn a_user_brings_its_groups() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let plan = Command::new("/bin/true").user("nobody").plan().unwrap();
        assert!(plan.steps().iter().any(|step| matches!(step, Step::Groups(_))));
        assert!(plan.steps().iter().any(|step| matches!(step, Step::GroupId(_))));
        let error = Command::new("/bin/true").user(3_999_999).plan().unwrap_err();
        assert!(error.to_string().contains("3999999"), "{error}");
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let base = || Command::new("/bin/true");
        let cases = [
            (Command::new(""), "name is empty"),
            (Command::new("a\0b"), "zero byte"),
            (base().arg("ok").arg("a\0b"), "argument 2 contains a zero byte"),
            (base().arg0("a\0b"), "zero byte"),
            (base().env("", "v"), "environment key \"\""),
            (base().env("A=B", "v"), "environment key \"A=B\""),
            (base().env("A\0", "v"), "zero byte"),
            (base().env("A", "v\0"), "variable \"A\" contains a zero byte"),
            (base().current_dir("/a\0b"), "working directory contains a zero byte"),
            (base().current_dir(""), "working directory is an empty path"),
            (base().user("no-such-user-here"), "no such user: \"no-such-user-here\""),
            (base().group("no-such-group-here"), "no such group: \"no-such-group-here\""),
            (base().user(u32::MAX), "is no user"),
            (base().groups([u32::MAX]), "is no group"),
            (base().setsid().process_group(7), "cannot join"),
            (base().setsid().foreground(), "new session"),
            (base().process_group(-1), "not negative"),
            (base().umask(0o1000), "0o777"),
            (base().ignore_signal(Signal::KILL), "SIGKILL"),
            (base().oom_score(1001), "1000"),
            (base().cpu_affinity([]), "processors"),
            (base().limit(crate::Resource::Nofile, 2, 1), "Nofile"),
            (base().groups([1]).keep_groups(), "cannot be kept"),
            (base().stdout(Stdio::read("x")), "stdout"),
            (base().stdin(Stdio::write("x")), "stdin"),
            (base().stdin(Stdio::stdout()), "stdin"),
            (base().stdout(Stdio::stderr()).stderr(Stdio::stdout()), "goes nowhere"),
            (base().stdout(Stdio::stdout()), "goes nowhere"),
            (base().fd(2, Stdio::null()), "descriptor 2"),
            (base().fd(-4, Stdio::null()), "descriptor -4"),
            (base().fd(5, Stdio::null()).fd(5, Stdio::null()), "descriptor 5 is given twice"),
            (base().fd(5, Stdio::piped()), "descriptor 5"),
        ];
        for (command, text) in cases {
            let error = command.plan().unwrap_err();
            assert!(error.is_invalid_input(), "{error:?}");
            assert!(error.to_string().contains(text), "{error} should say {text:?}");
        }
    }

    #[test]
    fn a_secret_is_not_in_the_error_about_it() {
        let error = Command::new("/bin/true").secret_arg("hunter2\0").plan().unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        let error = Command::new("/bin/true").secret_env("A", "hunter2\0").plan().unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn duplicates_reach_the_child_once_and_the_last_wins() {
        let command = Command::new("/bin/true").env_clear().env("A", "1").env("B", "2").env("A", "3");
        let plan = command.plan().unwrap();
        assert_eq!(plan.env().collect::<Vec<_>>(), ["A=3", "B=2"]);
    }

    #[test]
    fn processors_become_bits() {
        assert_eq!(mask_words(&[0, 3]), [0b1001]);
        assert_eq!(mask_words(&[usize::BITS as usize]), [0, 1]);
    }
}
