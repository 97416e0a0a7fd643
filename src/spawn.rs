//! From a plan to a process: opens the streams, chooses the route, makes the child, and says in words what failed. Nothing is
//! left behind when it fails: every descriptor is owned, and a child that could not become the program is reaped here.

use crate::command::{FileMode, Kind, Pty, Stdio};
use crate::error::{Error, ErrorKind};
use crate::handle::{self, Birth, Foreground, Notice, ProcessHandle};
use crate::pipe::{PipeReader, PipeWriter};
use crate::plan::{self, Plan, UNBOUND};
use crate::sys::after_fork::{Failure, Job};
use crate::sys::fork::{self, Hook};
use crate::sys::step::Step;
use crate::sys::strings::Strings;
use crate::sys::wait::{self, Patience, Who};
use crate::sys::{self, clone, fd, pipe, pty};
use crate::terminal::Terminal;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// A new process and the ends we keep.
pub(crate) struct Spawned {
    pub(crate) handle: ProcessHandle,
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) stderr: Option<PipeReader>,
    pub(crate) terminal: Option<Terminal>,
}

/// How processes are made on this system.
///
/// Chosen once, by trying: the best route that the kernel allows. The environment variable `PROCESSION_ENGINE` (`clone3`,
/// `clone` or `portable`) chooses a lower one, for kernels and emulators on which a route is allowed and broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnRoute {
    /// clone3(2) in the memory of the parent, with a process descriptor.
    Clone3,
    /// clone(2) in the memory of the parent, with a process descriptor: where clone3 is forbidden.
    Clone,
    /// The portable engine: std's fork, and no process descriptors.
    Portable,
}

impl SpawnRoute {
    /// The route of this process. The first time it is asked for, it is found out.
    pub fn current() -> SpawnRoute {
        static ROUTE: OnceLock<SpawnRoute> = OnceLock::new();
        match ROUTE.get() {
            Some(route) => *route,
            None => match choose() {
                Found::Surely(route) => *ROUTE.get_or_init(|| route),
                Found::ForNow(route) => route,
            },
        }
    }
}

/// A route, and whether it was found out or is only tried, because there was no room to find out.
enum Found {
    Surely(SpawnRoute),
    ForNow(SpawnRoute),
}

fn choose() -> Found {
    let best = if cfg!(procession_portable) { SpawnRoute::Portable } else { SpawnRoute::Clone3 };
    let wished = match std::env::var("PROCESSION_ENGINE").as_deref() {
        Ok("portable") => SpawnRoute::Portable,
        Ok("clone") if best != SpawnRoute::Portable => SpawnRoute::Clone,
        _ => best,
    };
    let routes = [(SpawnRoute::Clone3, clone::Route::Clone3), (SpawnRoute::Clone, clone::Route::Clone)];
    // The child that finds out holds for a moment what we hold, as every child does.
    let _no_writer = FENCE.read().unwrap_or_else(PoisonError::into_inner);
    for (route, kernel) in routes.into_iter().skip_while(|(route, _)| *route != wished) {
        match clone::probe(kernel) {
            Ok(true) => return Found::Surely(route),
            Ok(false) => {}
            Err(_) => return Found::ForNow(route),
        }
    }
    Found::Surely(SpawnRoute::Portable)
}

/// Makes the process. `hooks` force the fork route.
pub(crate) fn spawn(plan: &Plan, hooks: &[Hook]) -> Result<Spawned, Error> {
    let begun = Instant::now();
    handle::reap_orphans();
    let route = if hooks.is_empty() { SpawnRoute::current() } else { SpawnRoute::Portable };
    let mut bound = bind(plan, route).map_err(|error| error.of_command(|| plan.line.clone()))?;
    let mut born = birth_unless_busy(route, plan, &bound, hooks);
    if let Err(refused) = &born
        && bound.shares_table()
        && refused.is_of_table()
    {
        let lasts = !refused.may_pass();
        bound.steps.remove(0);
        born = birth_unless_busy(route, plan, &bound, hooks);
        if lasts && born.is_ok() {
            MAY_SHARE_TABLE.store(false, Ordering::Relaxed);
        }
    }
    let born = born.map_err(|refused| {
        if let Some(foreground) = &bound.foreground {
            foreground.take_back_from_nobody();
        }
        explain(plan, &bound, refused).of_command(|| plan.line.clone())
    })?;
    let handle = ProcessHandle::new(Birth {
        pid: born.pid,
        notice: born.notice,
        line: plan.line.as_str().into(),
        born: begun,
        leads_group: plan.leads_group,
        leads_session: plan.leads_session,
        mark: plan.mark.as_ref().map(|mark| mark.to_bytes().into()),
        secrets: plan.secrets.as_slice().into(),
        foreground: bound.foreground.map(Box::new),
    });
    handle.span().spawned(route);
    let Ours { stdin, stdout, stderr, terminal, .. } = bound.ours;
    Ok(Spawned { handle, stdin, stdout, stderr, terminal })
}

// ---- opening what the plan names ----

/// The plan with descriptors in it.
struct Bound {
    steps: Vec<Step>,
    ours: Ours,
    /// The child's ends, and whatever else must be open until it has its own copies.
    _theirs: Vec<OwnedFd>,
    cgroup: Option<File>,
    foreground: Option<Foreground>,
}

/// The parent's ends of 0 to 2, and the terminal that some of them are of.
#[derive(Default)]
struct Ours {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    terminal: Option<Terminal>,
    /// Whether what we keep makes room for what the child is given.
    makes_room: bool,
}

impl Ours {
    fn keep(&self, fd: OwnedFd) -> OwnedFd {
        if self.makes_room { fd::out_of_the_way(fd) } else { fd }
    }
}

fn bind(plan: &Plan, route: SpawnRoute) -> Result<Bound, Error> {
    let mut ours = Ours { makes_room: route != SpawnRoute::Portable, ..Ours::default() };
    let mut theirs = Vec::new();
    let slave = match &plan.pty {
        Some(settings) => Some(open_terminal(plan, settings, &mut ours)?),
        None => None,
    };
    let mut map: Vec<(RawFd, RawFd)> = Vec::with_capacity(plan.descriptors.len());
    for (number, stdio) in &plan.descriptors {
        let source = match (&stdio.0, &slave) {
            (Kind::Pty, Some(slave)) => Some(slave.as_raw_fd()),
            _ => open(plan, *number, stdio, &mut ours, &mut theirs)?,
        };
        map.extend(source.map(|source| (*number, source)));
    }
    theirs.extend(slave);
    for (number, stdio) in &plan.descriptors {
        if let Kind::Same(other) = stdio.0 {
            let other = RawFd::from(other);
            let source = map.iter().find(|(target, _)| *target == other).map_or(other, |(_, source)| *source);
            map.push((*number, source));
        }
    }
    // Whatever of ours has a number that the child wants for something else moves to one that it does not want.
    let wanted: Vec<RawFd> = map.iter().map(|(target, _)| *target).collect();
    let lift = plan::to_lift(&map);
    for ((_, source), lift) in map.iter_mut().zip(lift) {
        if lift {
            let copy = lifted(*source, &wanted)?;
            *source = copy.as_raw_fd();
            theirs.push(copy);
        }
    }
    let mut bound = Bound { steps: Vec::new(), ours, _theirs: theirs, cgroup: None, foreground: None };
    if let Some(directory) = &plan.cgroup {
        bound.cgroup = Some(open_cgroup(directory)?);
    }
    let moves = map.iter().map(|&(to, from)| Step::Descriptor { from, to });
    let (before, after) = plan.steps.split_at(plan.steps.partition_point(plan::is_before_descriptors));
    bound.steps.reserve_exact(plan.steps.len() + map.len());
    bound.steps.extend(before.iter().cloned());
    bound.steps.extend(moves);
    for step in after {
        let step = bind_step(plan, route, step, &wanted, &mut bound)?;
        bound.steps.extend(step);
    }
    if route != SpawnRoute::Portable
        && let Some(first) = first_not_needed(&bound.steps)
    {
        bound.steps.insert(0, Step::OwnTable { first });
    }
    Ok(bound)
}

/// Whether a child may be born in our table of descriptors; not where that was refused once, by an older kernel or a filter.
static MAY_SHARE_TABLE: AtomicBool = AtomicBool::new(true);

/// The number from which on a child needs nothing of our table, if not copying the rest is worth while: at clone every descriptor in it
/// costs some 80 ns, most of it at exec, which closes the copies again.
fn first_not_needed(steps: &[Step]) -> Option<RawFd> {
    let inherits_all = !steps.iter().any(|step| matches!(step, Step::CloseOthers(_)));
    if inherits_all || !MAY_SHARE_TABLE.load(Ordering::Relaxed) {
        return None;
    }
    let highest = fd::highest_if_crowded()?;
    let needed = steps.iter().filter_map(Step::needed).fold(2, RawFd::max);
    (needed < highest / 2).then_some(needed + 1)
}

impl Bound {
    fn shares_table(&self) -> bool {
        matches!(self.steps.first(), Some(Step::OwnTable { .. }))
    }
}

fn lifted(source: RawFd, wanted: &[RawFd]) -> Result<OwnedFd, Error> {
    fd::duplicate_avoiding(source, wanted).map_err(|error| Error::io("dup", error))
}

fn bind_step(
    plan: &Plan,
    route: SpawnRoute,
    step: &Step,
    wanted: &[RawFd],
    bound: &mut Bound,
) -> Result<Option<Step>, Error> {
    Ok(Some(match step {
        Step::DirectoryDescriptor(UNBOUND) => {
            let Some(directory) = &plan.directory else { return Ok(None) };
            let copy = lifted(directory.0.as_raw_fd(), wanted)?;
            let number = copy.as_raw_fd();
            bound._theirs.push(copy);
            Step::DirectoryDescriptor(number)
        }
        Step::Foreground { terminal: UNBOUND } => {
            let failed = |error| Error::io("foreground", error).path("/dev/tty");
            let terminal = sys::terminal::open().map_err(failed)?;
            let before = sys::terminal::foreground(terminal.as_fd()).map_err(failed)?;
            let copy = lifted(terminal.as_raw_fd(), wanted)?;
            let number = copy.as_raw_fd();
            bound._theirs.push(copy);
            bound.foreground = Some(Foreground { terminal, before });
            Step::Foreground { terminal: number }
        }
        Step::ControlGroup { procs: UNBOUND } => {
            // On the best route the child is born in the group.
            if route == SpawnRoute::Clone3 {
                return Ok(None);
            }
            let Some(directory) = &plan.cgroup else { return Ok(None) };
            let path = directory.join("cgroup.procs");
            let file = File::options().write(true).open(&path);
            let file = file.map_err(|error| Error::io("cgroup", error).path(path))?;
            let copy = lifted(file.as_raw_fd(), wanted)?;
            let number = copy.as_raw_fd();
            bound._theirs.push(copy);
            Step::ControlGroup { procs: number }
        }
        other => other.clone(),
    }))
}

fn open_cgroup(directory: &Path) -> Result<File, Error> {
    File::open(directory).map_err(|error| Error::io("cgroup", error).path(directory))
}

/// The descriptor of ours that a stream of the child comes from. `None` if that is decided by another stream.
fn open(
    plan: &Plan,
    number: RawFd,
    stdio: &Stdio,
    ours: &mut Ours,
    theirs: &mut Vec<OwnedFd>,
) -> Result<Option<RawFd>, Error> {
    let fd: OwnedFd = match &stdio.0 {
        // The plan has a terminal wherever a stream is on it.
        Kind::Same(_) | Kind::Pty => return Ok(None),
        Kind::Inherit => return Ok(Some(number)),
        Kind::Fd(shared) => return Ok(Some(shared.as_raw_fd())),
        Kind::Broken { errno, .. } => return Err(Error::io("dup", io::Error::from_raw_os_error(*errno))),
        Kind::Null => open_file(Path::new("/dev/null"), File::options().read(true).write(true))?,
        Kind::File { path, mode: FileMode::Read } => open_file(path, File::options().read(true))?,
        Kind::File { path, mode: FileMode::Truncate } => {
            open_file(path, File::options().write(true).create(true).truncate(true))?
        }
        Kind::File { path, mode: FileMode::Append } => open_file(path, File::options().append(true).create(true))?,
        Kind::Pipe => {
            let (reader, writer) = pipe::pair().map_err(|error| Error::io("pipe", error))?;
            if let Some(size) = plan.pipe_size {
                // A wish: see `Command::pipe_size`.
                let _ = pipe::set_size(reader.as_fd(), size);
            }
            match number {
                0 => {
                    ours.stdin = Some(PipeWriter::new(ours.keep(writer)));
                    reader
                }
                1 => {
                    ours.stdout = Some(PipeReader::new(ours.keep(reader)));
                    writer
                }
                _ => {
                    ours.stderr = Some(PipeReader::new(ours.keep(reader)));
                    writer
                }
            }
        }
    };
    let source = fd.as_raw_fd();
    theirs.push(fd);
    Ok(Some(source))
}

/// Opens the terminal, keeps our ends of the streams that are on it, and returns the child's.
fn open_terminal(plan: &Plan, settings: &Pty, ours: &mut Ours) -> Result<OwnedFd, Error> {
    let pair = pty::open().map_err(explain_pty)?;
    let failed = |error| Error::io("pty", error);
    let slave = pair.slave.as_fd();
    pty::set_mode(slave, settings.mode).map_err(failed)?;
    pty::set_size(slave, settings.rows, settings.cols).map_err(failed)?;
    let identity = pty::identity(slave).map_err(failed)?;
    let master = Arc::new(ours.keep(pair.master));
    let on_it = |number| plan.descriptors.iter().any(|(other, stdio)| *other == number && stdio.is_pty());
    let end = |ours: &Ours| fd::duplicate_from(master.as_fd(), 3).map(|end| ours.keep(end)).map_err(failed);
    if on_it(0) {
        ours.stdin = Some(PipeWriter::of_terminal(end(ours)?, Arc::clone(&master)));
    }
    if on_it(1) {
        ours.stdout = Some(PipeReader::of_terminal(end(ours)?, identity));
    } else if on_it(2) {
        ours.stderr = Some(PipeReader::of_terminal(end(ours)?, identity));
    }
    ours.terminal = Some(Terminal::new(master, pair.path));
    Ok(pair.slave)
}

fn explain_pty(error: io::Error) -> Error {
    let (kind, detail) = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOSYS) => {
            (Some(ErrorKind::Unsupported), "there are no pseudo-terminals here (is /dev/pts mounted?)")
        }
        Some(libc::ENOSPC | libc::EAGAIN) => (None, "no more pseudo-terminals (kernel.pty.max)"),
        _ => return Error::io("pty", error).path("/dev/ptmx"),
    };
    let error = Error::io("pty", error).path("/dev/ptmx").detail(detail);
    match kind {
        Some(kind) => error.kind_of(kind),
        None => error,
    }
}

fn open_file(path: &Path, options: &mut std::fs::OpenOptions) -> Result<OwnedFd, Error> {
    fd::open(path, options, 0).map_err(|error| Error::io("open", error).path(path))
}

// ---- making the process ----

struct Born {
    pid: i32,
    notice: Notice,
}

/// Why there is no process, in the kernel's terms.
enum Refused {
    /// None was made.
    Birth(&'static str, io::Error),
    /// One was made and failed at a step, or at exec; it has been reaped.
    Step(Failure),
    /// A hook of the user's failed.
    Hook(i32),
}

impl Refused {
    fn errno(&self) -> Option<i32> {
        match self {
            Refused::Birth(_, error) => error.raw_os_error(),
            Refused::Step(failure) => Some(failure.errno),
            Refused::Hook(errno) => Some(*errno),
        }
    }

    /// Of a child that was born in our table: whether another one, with a copy of all of it, may fare better. It does where sharing is
    /// refused, and where a path leads through a descriptor in `/proc/self/fd` that was left out.
    fn is_of_table(&self) -> bool {
        match self {
            Refused::Birth(_, error) => {
                matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL | libc::ENOSYS))
            }
            Refused::Step(failure) => failure.place == 0 || failure.errno == libc::ENOENT,
            Refused::Hook(_) => false,
        }
    }

    /// Whether the next child may fare better.
    fn may_pass(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOMEM | libc::EMFILE | libc::ENOENT))
    }

    fn is_busy(&self, steps: usize) -> bool {
        matches!(self, Refused::Step(failure) if failure.place == steps && failure.errno == libc::ETXTBSY)
    }
}

fn birth_unless_busy(route: SpawnRoute, plan: &Plan, bound: &Bound, hooks: &[Hook]) -> Result<Born, Refused> {
    retry_while_busy(bound.steps.len(), || birth(route, plan, bound, hooks))
}

/// Somebody who wrote the program has closed it, and a child of another thread of his still holds the descriptor until its
/// exec: a matter of microseconds. Six tries, 31 ms in all.
fn retry_while_busy(steps: usize, mut birth: impl FnMut() -> Result<Born, Refused>) -> Result<Born, Refused> {
    for pause in [1, 2, 4, 8, 16] {
        match birth() {
            Err(refused) if refused.is_busy(steps) => std::thread::sleep(Duration::from_millis(pause)),
            other => return other,
        }
    }
    birth()
}

fn birth(route: SpawnRoute, plan: &Plan, bound: &Bound, hooks: &[Hook]) -> Result<Born, Refused> {
    let _no_writer = FENCE.read().unwrap_or_else(PoisonError::into_inner);
    let cgroup = bound.cgroup.as_ref().map(AsRawFd::as_raw_fd);
    let dies_with_thread = bound.steps.iter().any(|step| matches!(step, Step::ParentDeathSignal { .. }));
    if !dies_with_thread || nursery::is_long_lived() {
        return birth_here(route, plan, &bound.steps, cgroup, hooks);
    }
    // The descriptors that the steps name stay open, because this thread waits.
    let (plan, steps, hooks) = (plan.clone(), bound.steps.clone(), hooks.to_vec());
    nursery::run(move || birth_here(route, &plan, &steps, cgroup, &hooks))
}

fn birth_here(
    route: SpawnRoute,
    plan: &Plan,
    steps: &[Step],
    cgroup: Option<RawFd>,
    hooks: &[Hook],
) -> Result<Born, Refused> {
    match route {
        SpawnRoute::Portable => birth_by_fork(plan, steps, hooks),
        SpawnRoute::Clone3 => birth_by_clone(clone::Route::Clone3, plan, steps, cgroup),
        SpawnRoute::Clone => birth_by_clone(clone::Route::Clone, plan, steps, None),
    }
}

fn birth_by_clone(route: clone::Route, plan: &Plan, steps: &[Step], cgroup: Option<RawFd>) -> Result<Born, Refused> {
    let (candidates, argv, envp) = (plan.candidates.pointers(), plan.argv.pointers(), plan.envp.pointers());
    let job = Job { steps, candidates: &candidates, argv: &argv, envp: &envp, report: Default::default() };
    match clone::spawn(route, &job, cgroup) {
        Ok(born) => Ok(Born { pid: born.pid, notice: Notice::new(born.pidfd) }),
        Err(clone::Refusal::Clone(error)) => {
            Err(Refused::Birth(if cgroup.is_some() { "clone into cgroup" } else { "clone" }, error))
        }
        Err(clone::Refusal::Child(born, failure)) => {
            let who = born.pidfd.as_ref().map_or(Who::Pid(born.pid), |fd| Who::Descriptor(fd.as_fd()));
            // It is about to end, and if somebody else reaps it that is as good.
            let _ = wait::reap(who, Patience::Wait);
            Err(Refused::Step(failure))
        }
    }
}

fn birth_by_fork(plan: &Plan, steps: &[Step], hooks: &[Hook]) -> Result<Born, Refused> {
    // Hooks come after everything but what would shut them out: the descriptors they may want, and the mask.
    let last = |step: &Step| matches!(step, Step::CloseOthers(_) | Step::SignalMask(_));
    let parts = fork::Parts {
        steps_before_hooks: steps.iter().position(last).unwrap_or(steps.len()),
        steps: steps.to_vec(),
        candidates: plan.candidates.clone().into_pointers(),
        argv: plan.argv.clone().into_pointers(),
        envp: Strings::clone(&plan.envp).into_pointers(),
        hooks: hooks.to_vec(),
    };
    match fork::spawn(parts) {
        Ok(child) => {
            let portable = SpawnRoute::current() == SpawnRoute::Portable;
            Ok(Born { pid: child.id() as i32, notice: Notice::of_std(child, portable) })
        }
        Err(fork::Refusal::Fork(error)) => Err(Refused::Birth("fork", error)),
        Err(fork::Refusal::Child { failure, hook: true }) => Err(Refused::Hook(failure.errno)),
        Err(fork::Refusal::Child { failure, hook: false }) => Err(Refused::Step(failure)),
    }
}

/// Held shared by every spawn between the birth of a child and its exec.
static FENCE: RwLock<()> = RwLock::new(());

/// Keeps every child of this library from being between its birth and its program while the guard lives.
///
/// For code that writes a program and then runs it: a child that is born while the file is open for writing holds a copy of
/// that descriptor until its exec, and running the file fails with ETXTBSY. Hold the guard while the file is open. Spawns of
/// other threads wait; spawning on the thread that holds the guard deadlocks.
///
/// ```
/// use std::io::Write;
/// use std::os::unix::fs::OpenOptionsExt;
///
/// let path = std::env::temp_dir().join(format!("fence-{}", std::process::id()));
/// {
///     let _fence = procession::spawn_fence();
///     let mut file = std::fs::File::options().write(true).create(true).mode(0o755).open(&path)?;
///     file.write_all(b"#!/bin/sh\necho fresh\n")?;
/// }
/// assert_eq!(procession::Command::new(path.as_path()).check_output()?, b"fresh\n");
/// # std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn spawn_fence() -> SpawnFence {
    // While the fence is up nobody can find out about the kernel.
    let _: SpawnRoute = SpawnRoute::current();
    SpawnFence { _guard: FENCE.write().unwrap_or_else(PoisonError::into_inner) }
}

/// See [`spawn_fence`]. Dropping it lets spawns go on.
#[derive(Debug)]
#[must_use = "spawns are kept back only while the guard lives"]
pub struct SpawnFence {
    _guard: RwLockWriteGuard<'static, ()>,
}

/// A thread that lives as long as the process. The kernel sends the parent death signal when the *thread* that made the child
/// ends, so children that want it are born here, unless the caller is the main thread.
pub(crate) mod nursery {
    use std::cell::Cell;
    use std::sync::mpsc::{Sender, channel, sync_channel};
    use std::sync::{Mutex, OnceLock, PoisonError};

    type Task = Box<dyn FnOnce() + Send>;

    thread_local! {
        static OUTLIVES_CHILDREN: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether the thread lives as long as the process, or as its children.
    pub(super) fn is_long_lived() -> bool {
        OUTLIVES_CHILDREN.get() || is_main_thread()
    }

    /// From now on the children of this thread that want the death signal get it when this thread ends.
    pub(crate) fn outlive_children() {
        OUTLIVES_CHILDREN.set(true);
    }

    fn is_main_thread() -> bool {
        #[cfg(target_os = "linux")]
        return nix::unistd::gettid() == nix::unistd::getpid();
        // Elsewhere there is no such signal.
        #[cfg(not(target_os = "linux"))]
        true
    }

    /// Runs `work` on the thread and waits for it.
    ///
    /// # Panics
    /// If the thread has died, which only a panic in a user's hook could cause.
    pub(super) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        static THREAD: OnceLock<Option<Mutex<Sender<Task>>>> = OnceLock::new();
        let sender = THREAD.get_or_init(|| {
            let (sender, tasks) = channel::<Task>();
            let thread = std::thread::Builder::new().name("procession-nursery".into());
            let started = thread.spawn(move || tasks.into_iter().for_each(|task| task()));
            started.ok().map(|_| Mutex::new(sender))
        });
        // Without a thread it runs here: the child then dies with this thread, which is early rather than never.
        let Some(sender) = sender else { return work() };
        let (result, answer) = sync_channel(1);
        let task = Box::new(move || {
            // The other side waits for the answer.
            let _ = result.send(work());
        });
        let sent = sender.lock().unwrap_or_else(PoisonError::into_inner).send(task).is_ok();
        match answer.recv() {
            Ok(answer) if sent => answer,
            _ => unreachable!("the nursery lives as long as the process"),
        }
    }
}

// ---- saying what failed ----

fn explain(plan: &Plan, bound: &Bound, refused: Refused) -> Error {
    match refused {
        Refused::Birth(step, error) => explain_birth(step, error),
        Refused::Hook(errno) => Error::io("pre_exec", io::Error::from_raw_os_error(errno)),
        Refused::Step(failure) => match bound.steps.get(failure.place) {
            Some(step) => explain_step(plan, step, failure.errno),
            None => explain_exec(plan, failure.errno),
        },
    }
}

fn explain_birth(step: &'static str, error: io::Error) -> Error {
    let detail = match error.raw_os_error() {
        Some(libc::EAGAIN) => "no more processes (RLIMIT_NPROC, pids.max or the system's limit)",
        Some(libc::ENOMEM) => "no more memory",
        Some(libc::EMFILE) => "no more descriptors in this process (RLIMIT_NOFILE)",
        Some(libc::ENFILE) => "no more descriptors in the system",
        _ => return Error::io(step, error),
    };
    Error::io(step, error).detail(detail)
}

fn explain_step(plan: &Plan, step: &Step, errno: i32) -> Error {
    let error = Error::io(step.name(), io::Error::from_raw_os_error(errno));
    match step {
        Step::Directory(path) => {
            let missing = matches!(errno, libc::ENOENT | libc::ENOTDIR);
            let error = if missing { error.kind_of(ErrorKind::DirectoryNotFound) } else { error };
            error.path(OsStr::from_bytes(path.to_bytes()))
        }
        Step::ControlGroup { .. } => match &plan.cgroup {
            Some(path) => error.path(path.clone()),
            None => error,
        },
        Step::ParentDeathSignal { .. } if errno == libc::ESRCH => error.detail("the parent has ended already"),
        other => error.detail(other.to_string()),
    }
}

fn explain_exec(plan: &Plan, errno: i32) -> Error {
    let path = plan.program();
    let error = Error::io("exec", io::Error::from_raw_os_error(errno)).path(path);
    match errno {
        libc::ENOENT | libc::ENOTDIR => match interpreter(path) {
            Some(interpreter) if path.exists() => error
                .kind_of(ErrorKind::InterpreterNotFound)
                .detail(format!("its interpreter {} is missing", interpreter.display())),
            _ if path.exists() => error
                .kind_of(ErrorKind::InterpreterNotFound)
                .detail("the file is there, so what loads it is missing (a library loader or an interpreter)"),
            _ => error.kind_of(ErrorKind::NotFound).detail("no such program"),
        },
        libc::ENOEXEC => {
            let text = "it is no program of this machine, or a script without an interpreter line (#!)";
            error.kind_of(ErrorKind::NotExecutable).detail(text)
        }
        libc::EACCES if path.is_dir() => error.kind_of(ErrorKind::NotExecutable).detail("it is a directory"),
        libc::EACCES if is_readable_file(path) => {
            error.kind_of(ErrorKind::NotExecutable).detail("it has no permission to be executed")
        }
        libc::E2BIG => error.kind_of(ErrorKind::ArgumentListTooLong).detail(explain_too_big(plan)),
        libc::ETXTBSY => {
            error.kind_of(ErrorKind::ExecutableBusy).detail("it is open for writing, also after six tries")
        }
        libc::EAGAIN => error.detail("the user has more processes than RLIMIT_NPROC allows"),
        _ => error,
    }
}

/// A file without any execute permission. Permission that is there and does not suffice is another matter.
fn is_readable_file(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 == 0)
}

/// The interpreter that the first line of a script names.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut head = [0; 256];
    let count = File::open(path).ok()?.read(&mut head).ok()?;
    let line = head.get(..count)?.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let word = line.trim_ascii().split(|byte| byte.is_ascii_whitespace()).next()?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// The kernel has two limits: one for a single string (32 pages) and one for all of them (a quarter of the stack limit).
fn explain_too_big(plan: &Plan) -> String {
    const STRING_MAX: usize = 128 * 1024;
    let size = |string: &CStr| string.to_bytes_with_nul().len();
    let strings = || plan.argv.iter().chain(plan.envp.iter());
    let words = plan.argv.iter().map(size).enumerate();
    if let Some((place, bytes)) = words.into_iter().find(|(_, bytes)| *bytes > STRING_MAX) {
        return format!("argument {place} alone has {bytes} bytes, and one string may have {STRING_MAX}");
    }
    if let Some(entry) = plan.envp.iter().find(|entry| size(entry) > STRING_MAX) {
        let key = entry.to_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        let key = String::from_utf8_lossy(key);
        return format!("environment variable {key} alone is longer than the {STRING_MAX} bytes of one string");
    }
    let total: usize = strings().map(|string| size(string) + size_of::<usize>()).sum();
    let (words, entries) = (plan.argv.len(), plan.envp.len());
    format!(
        "{words} arguments and {entries} environment entries have {total} bytes together (RLIMIT_STACK / 4 are allowed)"
    )
}
