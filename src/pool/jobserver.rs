//! GNU make's jobserver, both sides of it: a pipe with one byte for each job that may run beside the first. Decides how a byte is taken
//! and put back without ever waiting, and what is made good when a child took bytes to its grave. What `MAKEFLAGS` says is read and
//! written by `makeflags`; when a byte is wanted is the pool's matter.

use super::makeflags::{self, Auth};
use crate::command::{Command, Stdio};
use crate::error::{Error, ErrorKind};
use crate::sys;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A limit on jobs that is shared with other programs, by the protocol of GNU make: whoever wants to run one more job takes a token.
///
/// A program that make has started, or cargo, takes its tokens [from them](Self::from_env), and together they run no more jobs than
/// `make -j` was told. A program that itself starts makes, cargos, ninjas or linkers [gives them tokens](Self::server), so that they do
/// not run their number of jobs each. Clones are the same jobserver.
///
/// ```
/// use procession::Command;
/// use procession::pool::{Jobserver, JobserverStyle};
///
/// let jobserver = Jobserver::server(2, JobserverStyle::Fifo)?;
/// let one = jobserver.try_acquire()?.expect("there are two");
/// let two = jobserver.try_acquire()?.expect("there is another");
/// assert!(jobserver.try_acquire()?.is_none());
/// drop(two);
///
/// // The command runs on the first token, and has the second one to take.
/// let flags = jobserver.configure(Command::shell("echo $MAKEFLAGS")).check_output_text()?;
/// assert!(flags.starts_with("-j2 --jobserver-auth=fifo:/"));
/// drop(one);
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone)]
#[doc(alias = "make")]
#[doc(alias = "MAKEFLAGS")]
pub struct Jobserver {
    shared: Arc<Shared>,
}

/// How a jobserver is handed to children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobserverStyle {
    /// By the name of a pipe, in a private directory. Every descendant can use it that runs as the same user, through any number of
    /// programs that know nothing of it. For make from version 4.4 on, and for what has learnt it since: an older make ends with an
    /// error at the sight of it.
    Fifo,
    /// By two inherited descriptors. For older programs, and for commands that run as another user. A program in between may close
    /// them, as make does for all lines of a rule that are not marked as recursive. Make knows what is said here from version 4.2 on.
    Pipe,
}

/// The right to run one job. Dropping it gives it back; a program that ends without that, say by
/// [`exit`](std::process::exit) or a signal, takes it away from all others.
#[must_use = "dropping it gives it back"]
pub struct JobToken {
    jobserver: Jobserver,
}

struct Shared {
    channel: Channel,
    passed: Passed,
    /// How many jobs there are at a time, all in all, as far as we know.
    jobs: Option<usize>,
    side: Side,
    held: Mutex<Held>,
}

/// Who has made the pipe, and puts it right.
enum Side {
    Client,
    /// We, here. The place goes away with us.
    Server {
        _place: Option<Place>,
    },
}

/// How children get it.
enum Passed {
    Path(PathBuf),
    /// In the state in which others want them: without O_NONBLOCK.
    Ends {
        reader: OwnedFd,
        writer: OwnedFd,
    },
}

/// What we hold. The first token is ours because we were started: it is no byte.
#[derive(Default)]
struct Held {
    tokens: usize,
    /// The bytes of the others, and any that could not be put back yet.
    bytes: Vec<u8>,
}

/// What fits into any pipe, however the kernel divides it.
const JOBS_MAX: usize = 4096;

/// The byte that we make tokens of. What others make them of is given back as it was.
const TOKEN: u8 = b'+';

/// In the order in which they are asked: make overrides what an outer cargo has said, and cargo leaves `MAKEFLAGS` alone.
const VARIABLES: [&str; 2] = [MAKEFLAGS, CARGO_MAKEFLAGS];
const MAKEFLAGS: &str = "MAKEFLAGS";
const CARGO_MAKEFLAGS: &str = "CARGO_MAKEFLAGS";

impl Jobserver {
    /// The jobserver of the program that has started this one: make, cargo, or any other that says so in `MAKEFLAGS` or
    /// `CARGO_MAKEFLAGS`. `None` if there is none, or if it is withheld from this program. A make without `-j` has none either; that
    /// there is a make at all is told by the variable `MAKELEVEL`.
    ///
    /// One token is in our hands from the start, because this program is a job of somebody; it is the first that
    /// [`try_acquire`](Self::try_acquire) returns. So call this once in a program, and clone what it returns.
    ///
    /// ```no_run
    /// use procession::pool::Jobserver;
    ///
    /// let Some(jobserver) = Jobserver::from_env()? else {
    ///     return Ok(()); // not started by make: there is nobody to share with
    /// };
    /// while let Some(token) = jobserver.try_acquire()? {
    ///     // start a job, and keep the token as long as it runs
    ///     # drop(token); break;
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the variable names a jobserver that cannot be used: [`Io`](ErrorKind::Io) where its descriptors are closed, because make did
    /// not take the line for a recursive one, or where its pipe cannot be opened; [`Unsupported`](ErrorKind::Unsupported) for a style that
    /// this library, or this system, does not know. A program can go on without it, one job at a time.
    pub fn from_env() -> Result<Option<Jobserver>, Error> {
        Jobserver::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(value: impl Fn(&str) -> Option<OsString>) -> Result<Option<Jobserver>, Error> {
        let (mut is_withheld, mut trouble) = (false, None);
        for variable in VARIABLES {
            let Some(flags) = value(variable) else { continue };
            let found = match makeflags::auth(flags.as_bytes()) {
                None => continue,
                Some(Auth::Withheld) => {
                    is_withheld = true;
                    continue;
                }
                Some(Auth::Fifo(path)) => client_of_fifo(variable, path),
                Some(Auth::Descriptors(read, write)) => client_of_descriptors(variable, read, write),
                Some(Auth::Unknown(text)) => {
                    Err(unsupported(format!("{variable} names one of unknown style: {text:?}")))
                }
            };
            match found {
                Ok((channel, passed)) => {
                    let jobs = makeflags::jobs(flags.as_bytes());
                    return Ok(Some(Jobserver::new(channel, passed, jobs, Side::Client)));
                }
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        // Whoever withheld it knows best; the other variable is left over from somebody further out.
        match trouble {
            Some(error) if !is_withheld => Err(error),
            _ => Ok(None),
        }
    }

    /// A jobserver of our own for so many jobs at a time, from 1 to 4096.
    ///
    /// That is the number of all jobs: those that this program runs, each on a token that it has acquired before, and those that its
    /// children add to that.
    ///
    /// The pipe of [`Fifo`](JobserverStyle::Fifo) goes away with the last clone and the last token. It has its place in the directory for
    /// temporary files; in /tmp if the name of that is relative or holds blanks, quotes, `$` or `\`, because not every program can read
    /// such names in `MAKEFLAGS`.
    ///
    /// # Errors
    /// If the number is out of bounds, or no pipe can be made.
    #[doc(alias = "jobserver-style")]
    pub fn server(jobs: usize, style: JobserverStyle) -> Result<Jobserver, Error> {
        if jobs == 0 || jobs > JOBS_MAX {
            return Err(Error::invalid(format!("a jobserver is for 1 to {JOBS_MAX} jobs and not for {jobs}")));
        }
        // A pipe with a name can be opened twice: once for us, who must not wait, and once for those who expect to.
        let place = Place::new()?;
        let channel = Channel::open(&place.path).map_err(|error| failed(error).path(&place.path))?;
        let (passed, side) = match style {
            JobserverStyle::Fifo => (Passed::Path(place.path.clone()), Side::Server { _place: Some(place) }),
            JobserverStyle::Pipe => {
                let open = |options: &mut OpenOptions| sys::fd::open(&place.path, options, 0).map_err(failed);
                let reader = open(OpenOptions::new().read(true))?;
                let writer = open(OpenOptions::new().write(true))?;
                (Passed::Ends { reader, writer }, Side::Server { _place: None })
            }
        };
        for _ in 1..jobs {
            if !channel.put(TOKEN).map_err(failed)? {
                return Err(failed(io::Error::from_raw_os_error(libc::EAGAIN)).detail("the pipe is too small"));
            }
        }
        Ok(Jobserver::new(channel, passed, Some(jobs), side))
    }

    /// How many jobs there are at a time, all in all: known to a [server](Self::server), and to a client if whoever started it says `-j` in
    /// `MAKEFLAGS`, as make does.
    ///
    /// ```
    /// use procession::pool::{Jobserver, JobserverStyle};
    ///
    /// assert_eq!(Jobserver::server(4, JobserverStyle::Pipe)?.jobs(), Some(4));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn jobs(&self) -> Option<usize> {
        self.shared.jobs
    }

    fn new(channel: Channel, passed: Passed, jobs: Option<usize>, side: Side) -> Jobserver {
        Jobserver { shared: Arc::new(Shared { channel, passed, jobs, side, held: Mutex::default() }) }
    }

    /// Takes a token if one can be had at this moment. Never waits, whatever others have done to the pipe.
    ///
    /// The first token needs nobody's consent: it is the one on which this program runs. To wait for another one, wait until the
    /// [descriptor](AsFd) is readable and try again; somebody else may have been faster.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub fn try_acquire(&self) -> Result<Option<JobToken>, Error> {
        let mut held = self.shared.held();
        if held.tokens > held.bytes.len() {
            let Some(byte) = self.shared.channel.take().map_err(failed)? else { return Ok(None) };
            held.bytes.push(byte);
        }
        held.tokens += 1;
        Ok(Some(JobToken { jobserver: self.clone() }))
    }

    /// Lets a command use this jobserver: says in its `MAKEFLAGS` where it is, keeps whatever else is said there, takes
    /// `CARGO_MAKEFLAGS` away, and gives it the descriptors where the style wants that.
    ///
    /// The command is a job itself, and adds jobs of its own only by taking tokens; so acquire one before it is started, and keep
    /// it until it has ended.
    pub fn configure(&self, command: Command) -> Command {
        let (auth, command) = match &self.shared.passed {
            Passed::Path(path) => (Auth::Fifo(path.clone()), command),
            Passed::Ends { reader, writer } => {
                let (read, command) = passed_on(command, reader);
                let (write, command) = passed_on(command, writer);
                (Auth::Descriptors(read, write), command)
            }
        };
        let before = command.env.get(MAKEFLAGS).unwrap_or_default();
        let flags = makeflags::with_jobserver(before.as_bytes(), self.shared.jobs, &auth);
        let is_cargos = command.env.get(CARGO_MAKEFLAGS).is_some();
        let command = if is_cargos { command.env_remove(CARGO_MAKEFLAGS) } else { command };
        command.env(MAKEFLAGS, OsString::from_vec(flags))
    }

    /// Puts the number of tokens right: a child that was killed takes its tokens with it, and a faulty one gives back more than it took.
    /// Returns how many were missing; a negative number is how many were too many.
    ///
    /// Call it when nobody who was given this jobserver is alive any more: what a living one holds would count as missing. The tokens
    /// that this program holds are accounted for. The jobserver of somebody else is left alone, and the result is 0.
    ///
    /// # Errors
    /// If the pipe cannot be read or written.
    pub fn recover(&self) -> Result<isize, Error> {
        self.recover_beside(&self.shared.held())
    }

    /// The same, if this program holds no token. Then nobody is alive who was given one to run on.
    pub(super) fn recover_if_unused(&self) -> Result<isize, Error> {
        let held = self.shared.held();
        if held.tokens > 0 { Ok(0) } else { self.recover_beside(&held) }
    }

    /// The lock is held, so that nobody takes or gives meanwhile.
    fn recover_beside(&self, held: &Held) -> Result<isize, Error> {
        let shared = &*self.shared;
        let (Side::Server { .. }, Some(jobs)) = (&shared.side, shared.jobs) else { return Ok(0) };
        let expected = jobs.saturating_sub(1).saturating_sub(held.bytes.len());
        let found = sys::pipe::waiting(shared.channel.reader.as_fd()).map_err(failed)?;
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        for _ in found..expected {
            shared.channel.put(TOKEN).map_err(failed)?;
        }
        for _ in expected..found {
            shared.channel.take().map_err(failed)?;
        }
        Ok(expected.saturating_sub(found) as isize - found.saturating_sub(expected) as isize)
    }
}

/// Readable when there may be a token to take. For waiting only: what is read from it is taken from everybody.
impl AsFd for Jobserver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.channel.reader.as_fd()
    }
}

impl fmt::Debug for Jobserver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shared.passed {
            Passed::Path(path) => write!(out, "Jobserver(fifo {})", path.display()),
            Passed::Ends { reader, writer } => {
                write!(out, "Jobserver(descriptors {} and {})", reader.as_raw_fd(), writer.as_raw_fd())
            }
        }
    }
}

impl fmt::Debug for JobToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JobToken({:?})", self.jobserver)
    }
}

/// Whichever token is dropped, it is a byte that goes back as long as there is one: the token that is no byte is of use to nobody else.
impl Drop for JobToken {
    fn drop(&mut self) {
        let shared = &*self.jobserver.shared;
        let mut held = shared.held();
        held.tokens = held.tokens.saturating_sub(1);
        while held.bytes.len() > held.tokens.saturating_sub(1) {
            // If it cannot be put back now, which takes a pipe that is full of other people's bytes, it goes with the next one, or
            // serves us again.
            match held.bytes.last().map(|byte| shared.channel.put(*byte)) {
                Some(Ok(true)) => held.bytes.pop(),
                _ => break,
            };
        }
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pipe with the bytes, read and written without ever waiting.
struct Channel {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Where the description is shared with others, who want it to block, a byte is moved through this pipe of ours.
    through: Option<(OwnedFd, OwnedFd)>,
}

impl Channel {
    /// A pipe by its name.
    fn open(path: &Path) -> io::Result<Channel> {
        // Its reader first, because without one there would be no writer.
        let reader = sys::fd::open(path, OpenOptions::new().read(true), libc::O_NONBLOCK)?;
        let writer = sys::fd::open(path, OpenOptions::new().write(true), libc::O_NONBLOCK)?;
        Ok(Channel { reader, writer, through: None })
    }

    /// A pipe whose descriptors are shared with others. O_NONBLOCK belongs to the description, so others would have it, too: we open the
    /// pipe once more. Where that is refused, because /proc is missing or the pipe is another user's, [`Channel::shared`] has to do.
    fn behind(reader: BorrowedFd<'_>, writer: BorrowedFd<'_>) -> io::Result<Channel> {
        let again = |fd, options: &mut OpenOptions| sys::fd::reopen(fd, options, libc::O_NONBLOCK);
        match (again(reader, OpenOptions::new().read(true)), again(writer, OpenOptions::new().write(true))) {
            (Ok(reader), Ok(writer)) => Ok(Channel { reader, writer, through: None }),
            _ => Channel::shared(reader, writer),
        }
    }

    /// With the flags that it has. A byte is moved to a pipe of ours first, by a call that does not wait whatever these flags are.
    fn shared(reader: BorrowedFd<'_>, writer: BorrowedFd<'_>) -> io::Result<Channel> {
        if !cfg!(target_os = "linux") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let through = Some(sys::pipe::pair()?);
        Ok(Channel { reader: reader.try_clone_to_owned()?, writer: writer.try_clone_to_owned()?, through })
    }

    /// A byte, if one is there.
    fn take(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let taken = match &self.through {
            None => sys::fd::read(self.reader.as_fd(), &mut byte),
            Some((reader, writer)) => match sys::pipe::move_waiting(self.reader.as_fd(), writer.as_fd(), 1) {
                Ok(1) => sys::fd::read(reader.as_fd(), &mut byte),
                other => other,
            },
        };
        match taken {
            Ok(1) => Ok(Some(u8::from_ne_bytes(byte))),
            // We hold a writer ourselves.
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a byte back. False if there is no room for it.
    fn put(&self, byte: u8) -> io::Result<bool> {
        if self.through.is_some() {
            // There is room for a page then; only a flood in this very moment could make the write wait.
            let mut entries = [sys::poll::writable(self.writer.as_fd())];
            if !sys::poll::wait(&mut entries, Some(Instant::now()))? {
                return Ok(false);
            }
        }
        match sys::pipe::write(self.writer.as_fd(), &[byte]) {
            Ok(count) => Ok(count == 1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A named pipe in a directory that nobody else may enter; both go away with the value.
struct Place {
    directory: PathBuf,
    path: PathBuf,
}

impl Place {
    fn new() -> Result<Place, Error> {
        let temporary = std::env::temp_dir();
        let is_plain = temporary.is_absolute() && is_plain(temporary.as_os_str());
        let parent = if is_plain { &*temporary } else { Path::new("/tmp") };
        let directory = sys::fd::private_directory(&parent.join("procession-jobs-"))
            .map_err(|error| failed(error).path(parent).detail("no place for a named pipe"))?;
        let path = directory.join("fifo");
        let place = Place { directory, path };
        sys::pipe::named(&place.path).map_err(|error| failed(error).path(&place.path))?;
        Ok(place)
    }
}

/// Nothing can be done about what cannot be removed, and nobody is left to be told.
impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Whether every program finds the end of such a name.
fn is_plain(name: &OsStr) -> bool {
    let is_odd = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"\\$'\"".contains(byte);
    !name.as_bytes().iter().any(is_odd)
}

fn client_of_fifo(variable: &str, path: PathBuf) -> Result<(Channel, Passed), Error> {
    let open = |path: &Path| {
        // Some who keep account of tokens serve them by a device.
        let sort = fs::metadata(path)?.file_type();
        let is_served = sort.is_fifo() || sort.is_char_device();
        if is_served { Channel::open(path) } else { Err(io::Error::other("it is none")) }
    };
    match open(&path) {
        Ok(channel) => Ok((channel, Passed::Path(path))),
        Err(error) => Err(failed(error).path(path).detail(format!("the pipe that {variable} names cannot be used"))),
    }
}

fn client_of_descriptors(variable: &str, read: RawFd, write: RawFd) -> Result<(Channel, Passed), Error> {
    let (reader, writer) = ends(read, write).map_err(|error| {
        let hint = "make passes them only to lines of a rule that begin with `+` or contain `$(MAKE)`";
        failed(error).detail(format!("{variable} names descriptors {read} and {write}, which are none of ours; {hint}"))
    })?;
    match Channel::behind(reader.as_fd(), writer.as_fd()) {
        Ok(channel) => Ok((channel, Passed::Ends { reader, writer })),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let text = format!(
                "{variable} names descriptors, which cannot be shared on this system; make 4.4 has named pipes"
            );
            Err(unsupported(text))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Copies of the descriptors, if they are the two ends of one pipe. Otherwise somebody has closed them, and the numbers may mean anything
/// by now.
fn ends(read: RawFd, write: RawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = (sys::fd::duplicate_number(read)?, sys::fd::duplicate_number(write)?);
    match (sys::pipe::end(reader.as_fd())?, sys::pipe::end(writer.as_fd())?) {
        (Some(from), Some(to)) if from.reads && to.writes && from.pipe == to.pipe => Ok((reader, writer)),
        _ => Err(io::Error::other("they are not the ends of a pipe")),
    }
}

/// Gives the command a copy of a descriptor, under its own number if that is free: no inherited one can have it.
fn passed_on(command: Command, fd: &OwnedFd) -> (RawFd, Command) {
    let mut number = fd.as_raw_fd();
    while command.descriptors.iter().any(|(taken, _)| *taken == number) {
        number = number.saturating_add(1);
    }
    (number, command.fd(number, Stdio::borrowed(fd)))
}

fn failed(error: io::Error) -> Error {
    Error::io("jobserver", error)
}

fn unsupported(text: String) -> Error {
    Error::new(ErrorKind::Unsupported).step("jobserver").detail(text)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// A pipe such as make has it, with these bytes in it, and the flags that lead to it.
    fn pipe(bytes: &[u8]) -> (OwnedFd, OwnedFd, String) {
        let (reader, writer) = sys::pipe::pair().unwrap();
        fs::File::from(writer.try_clone().unwrap()).write_all(bytes).unwrap();
        let flags = format!(" -j9 --jobserver-auth={},{}", reader.as_raw_fd(), writer.as_raw_fd());
        (reader, writer, flags)
    }

    fn client(variables: &[(&str, &str)]) -> Result<Option<Jobserver>, Error> {
        Jobserver::from_variables(|wanted| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value))
        })
    }

    fn rest(reader: OwnedFd, writer: OwnedFd) -> Vec<u8> {
        drop(writer);
        let mut bytes = Vec::new();
        fs::File::from(reader).read_to_end(&mut bytes).unwrap();
        bytes.sort_unstable();
        bytes
    }

    #[test]
    fn each_byte_goes_back_once_and_as_it_was() {
        let (reader, writer, flags) = pipe(b"abc");
        let jobserver = client(&[(MAKEFLAGS, &flags)]).unwrap().unwrap();
        assert!(jobserver.shared.channel.through.is_none());
        assert_eq!(jobserver.jobs(), Some(9));
        let mut tokens: Vec<JobToken> = (0..4).map(|_| jobserver.try_acquire().unwrap().unwrap()).collect();
        assert!(jobserver.try_acquire().unwrap().is_none());
        // Whichever is dropped, the pipe has one more; only the last one to be dropped is no byte.
        for (place, waiting) in [(0, 1), (2, 2), (0, 3), (0, 3)] {
            drop(tokens.remove(place));
            assert_eq!(sys::pipe::waiting(reader.as_fd()).unwrap(), waiting);
        }
        assert_eq!(jobserver.recover().unwrap(), 0);
        drop(jobserver);
        assert_eq!(rest(reader, writer), b"abc");
    }

    #[test]
    fn a_shared_description_is_read_without_waiting_and_keeps_its_flags() {
        let (reader, writer, _) = pipe(b"ab");
        let channel = Channel::shared(reader.as_fd(), writer.as_fd()).unwrap();
        assert_eq!((channel.take().unwrap(), channel.take().unwrap()), (Some(b'a'), Some(b'b')));
        assert_eq!(channel.take().unwrap(), None);
        assert!(channel.put(b'b').unwrap() && channel.put(b'a').unwrap());
        let flags = nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        drop(channel);
        assert_eq!(rest(reader, writer), b"ab");
    }

    #[test]
    fn nobody_waits_when_another_one_was_faster() {
        for shared in [true, false] {
            let (reader, writer, _) = pipe(b"x");
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let open = if shared { Channel::shared } else { Channel::behind };
                        let channel = open(reader.as_fd(), writer.as_fd()).unwrap();
                        for _ in 0..5_000 {
                            if let Some(byte) = channel.take().unwrap() {
                                assert!(channel.put(byte).unwrap());
                            }
                        }
                    });
                }
            });
            assert_eq!(rest(reader, writer), b"x");
        }
    }

    #[test]
    fn a_full_pipe_is_no_reason_to_wait() {
        for shared in [true, false] {
            let (reader, writer, _) = pipe(b"");
            let open = if shared { Channel::shared } else { Channel::behind };
            let channel = open(reader.as_fd(), writer.as_fd()).unwrap();
            let room = sys::pipe::size(reader.as_fd()).unwrap();
            fs::File::from(writer.try_clone().unwrap()).write_all(&vec![b'+'; room]).unwrap();
            assert!(!channel.put(b'x').unwrap());
        }
    }

    #[test]
    fn a_byte_that_finds_no_room_is_kept() {
        let (reader, writer, flags) = pipe(b"x");
        let jobserver = client(&[(MAKEFLAGS, &flags)]).unwrap().unwrap();
        let tokens = [(); 2].map(|()| jobserver.try_acquire().unwrap().unwrap());
        let room = sys::pipe::size(reader.as_fd()).unwrap();
        fs::File::from(writer.try_clone().unwrap()).write_all(&vec![b'+'; room]).unwrap();
        drop(tokens);
        assert_eq!(jobserver.shared.held().bytes, b"x");
        let mut flood = vec![0; room];
        fs::File::from(reader.try_clone().unwrap()).read_exact(&mut flood).unwrap();
        // It serves us again, and goes back afterwards.
        let tokens = [(); 2].map(|()| jobserver.try_acquire().unwrap().unwrap());
        assert!(jobserver.try_acquire().unwrap().is_none());
        drop((tokens, jobserver));
        assert_eq!(rest(reader, writer), b"x");
    }

    #[test]
    fn the_variable_of_make_comes_first_and_the_usable_one_counts() {
        let (reader, writer, flags) = pipe(b"a");
        let (_other_reader, _other_writer, other) = pipe(b"b");
        let closed = " --jobserver-auth=1000001,1000002";
        let withheld = " -j2 --jobserver-auth=-2,-2";
        let text = |variables: &[(&str, &str)]| match client(variables) {
            Ok(None) => "none".to_owned(),
            Ok(Some(jobserver)) => {
                let _ours = jobserver.try_acquire().unwrap();
                let is_first = jobserver
                    .try_acquire()
                    .unwrap()
                    .is_some_and(|_token| sys::pipe::waiting(reader.as_fd()).unwrap() == 0);
                if is_first { "first".to_owned() } else { "other".to_owned() }
            }
            Err(error) => format!("{:?} {error}", error.kind()),
        };
        assert_eq!(text(&[]), "none");
        assert_eq!(text(&[(MAKEFLAGS, ""), (CARGO_MAKEFLAGS, "-j")]), "none");
        assert_eq!(text(&[(MAKEFLAGS, &flags), (CARGO_MAKEFLAGS, &other)]), "first");
        assert_eq!(text(&[(MAKEFLAGS, "k -j8"), (CARGO_MAKEFLAGS, &other)]), "other");
        assert_eq!(text(&[(MAKEFLAGS, closed), (CARGO_MAKEFLAGS, &other)]), "other");
        assert_eq!(text(&[(MAKEFLAGS, withheld), (CARGO_MAKEFLAGS, &other)]), "other");
        assert_eq!(text(&[(MAKEFLAGS, withheld), (CARGO_MAKEFLAGS, closed)]), "none");
        assert_eq!(text(&[(MAKEFLAGS, withheld)]), "none");
        let error = text(&[(MAKEFLAGS, closed), (CARGO_MAKEFLAGS, withheld)]);
        assert_eq!(error, "none");
        let error = text(&[(MAKEFLAGS, closed)]);
        assert!(error.starts_with("Io jobserver: MAKEFLAGS names descriptors 1000001 and 1000002, "), "{error}");
        assert!(error.contains("begin with `+`"), "{error}");
        let error = text(&[(CARGO_MAKEFLAGS, "--jobserver-auth=semaphore_9")]);
        assert_eq!(error, "Unsupported jobserver: CARGO_MAKEFLAGS names one of unknown style: \"semaphore_9\"");
        assert_eq!(rest(reader, writer), b"a");
    }

    #[test]
    fn descriptors_that_mean_something_else_by_now_are_left_alone() {
        let (reader, writer, _) = pipe(b"a");
        let (_keep, other, _) = pipe(b"");
        let file = fs::File::open("/dev/null").unwrap();
        let (r, w) = (reader.as_raw_fd(), writer.as_raw_fd());
        for (read, write) in [(r, r), (w, w), (w, r), (r, other.as_raw_fd()), (r, file.as_raw_fd())] {
            let flags = format!("--jobserver-auth={read},{write}");
            let error = client(&[(MAKEFLAGS, &flags)]).unwrap_err();
            assert!(error.to_string().ends_with("they are not the ends of a pipe"), "{error}");
        }
        assert_eq!(rest(reader, writer), b"a");
    }

    #[test]
    fn names_that_need_quotes_are_avoided() {
        for (name, plain) in
            [("/tmp", true), ("/tmp/a.b-c,d", true), ("/a b", false), ("/a\\b", false), ("/a$b", false)]
        {
            assert_eq!(is_plain(OsStr::new(name)), plain, "{name}");
        }
    }
}
