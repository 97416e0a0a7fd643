//! When two tasks are the same: what is known of a task before it runs, and of the files that it reads, in one number. A wrong yes
//! would skip work that was never done; so whatever cannot be known is a no.

use super::super::task::Task;
use crate::command::{Attributes, Command, Directory, FileMode, Id, Kind, Program, Source, Stdio};
use crate::sys::fd;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What stands for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hash([u8; 32]);

impl Hash {
    /// From 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Hash> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |character: &u8| char::from(*character).to_digit(16);
            *byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
        }
        Some(Hash(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// What is the same whenever the same is to be run, whatever is in the files it reads.
pub(super) fn identity(task: &Task) -> Hash {
    let command = &task.command;
    let mut sum = Sum::new("procession task 1");
    sum.program(Some(&command.program));
    sum.program(command.executable.as_ref());
    sum.optional(command.arg0.as_ref().map(|name| name.as_bytes()));
    sum.number(command.args.len() as u64);
    command.args.iter().for_each(|arg| sum.bytes(arg.text.as_bytes()));
    sum.number(command.env.clear.into());
    sum.number(command.env.changes.len() as u64);
    for (key, value) in &command.env.changes {
        sum.bytes(key.as_bytes());
        sum.optional(value.as_ref().map(|value| value.text.as_bytes()));
    }
    sum.optional(command.get_current_dir().map(|path| path.as_os_str().as_bytes()));
    let ours = if depends_on_our_directory(command) { std::env::current_dir().ok() } else { None };
    sum.optional(ours.as_ref().map(|path| path.as_os_str().as_bytes()));
    command.streams.iter().for_each(|stream| sum.stdio(stream.as_ref()));
    sum.number(command.descriptors.len() as u64);
    for (number, stdio) in &command.descriptors {
        sum.bytes(&number.to_le_bytes());
        sum.stdio(Some(stdio));
    }
    sum.number(command.pty.is_some().into());
    sum.optional(match command.input.as_ref().map(|input| &input.0) {
        Some(Source::Bytes(bytes)) => Some(bytes),
        _ => None,
    });
    sum.attributes(&command.attributes);
    sum.end()
}

/// What is the same whenever a run would do the same, as far as it is declared; or why nobody can know.
pub(super) fn key(task: &Task, identity: Hash, contents: &mut Contents) -> Result<Hash, String> {
    if let Some(reason) = unknowable(&task.command) {
        return Err(reason);
    }
    let directory = task.command.get_current_dir().unwrap_or(Path::new(""));
    let inputs = task.inputs.iter().map(|path| (path.as_path(), directory.join(path)));
    // What the library opens is seen from our directory.
    let opened = opened(&task.command).map(|path| (path, path.to_owned()));
    let mut sum = Sum::new("procession key 1");
    sum.bytes(&identity.0);
    for (path, place) in inputs.chain(opened) {
        sum.bytes(path.as_os_str().as_bytes());
        match contents.of(place)? {
            None => sum.number(0),
            Some(Content { size, hash }) => {
                sum.number(1);
                sum.number(size);
                sum.bytes(&hash.0);
            }
        }
    }
    Ok(sum.end())
}

/// Whether a path that the command names is relative to the directory of this process.
fn depends_on_our_directory(command: &Command) -> bool {
    let is_relative = |program: &Program| match program {
        Program::Name(name) => name.as_bytes().contains(&b'/') && Path::new(name).is_relative(),
        Program::Path(path) => path.is_relative(),
    };
    let is_relative_file = |stdio: &Stdio| matches!(&stdio.0, Kind::File { path, .. } if path.is_relative());
    command.get_current_dir().is_none_or(Path::is_relative)
        || is_relative(command.executable.as_ref().unwrap_or(&command.program))
        || stdios(command).any(is_relative_file)
}

fn stdios(command: &Command) -> impl Iterator<Item = &Stdio> {
    command.streams.iter().flatten().chain(command.descriptors.iter().map(|(_, stdio)| stdio))
}

/// The files that the command gets opened to read.
fn opened(command: &Command) -> impl Iterator<Item = &Path> {
    stdios(command).filter_map(|stdio| match &stdio.0 {
        Kind::File { path, mode: FileMode::Read } => Some(path.as_path()),
        _ => None,
    })
}

/// Why nobody can know what the command will read, if that is so.
fn unknowable(command: &Command) -> Option<String> {
    if matches!(command.directory, Some(Directory::Fd(_))) {
        return Some("its directory is an open file".to_owned());
    }
    if let Some(Source::Reader(_) | Source::File(_)) = command.input.as_ref().map(|input| &input.0) {
        return Some("its input is a reader or an open file".to_owned());
    }
    let [stdin, _, _] = &command.streams;
    let stdin = stdin.iter().map(|stdio| (&0, stdio));
    let others = command.descriptors.iter().map(|(number, stdio)| (number, stdio));
    let mut unknown =
        stdin.chain(others).filter(|(_, stdio)| matches!(stdio.0, Kind::Inherit | Kind::Fd(_) | Kind::Broken { .. }));
    unknown.next().map(|(number, _)| format!("its descriptor {number} is an open file"))
}

/// A sum over parts, each with its length in front, so that no two rows of parts look the same.
struct Sum(Sha256);

impl Sum {
    fn new(what: &str) -> Sum {
        let mut sum = Sum(Sha256::new());
        sum.bytes(what.as_bytes());
        sum
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.number(bytes.is_some().into());
        self.bytes(bytes.unwrap_or_default());
    }

    fn program(&mut self, program: Option<&Program>) {
        self.number(match program {
            None => 0,
            Some(Program::Name(_)) => 1,
            Some(Program::Path(_)) => 2,
        });
        self.bytes(program.map(|program| program.as_os_str().as_bytes()).unwrap_or_default());
    }

    fn stdio(&mut self, stdio: Option<&Stdio>) {
        let (tag, bytes) = match stdio.map(|stdio| &stdio.0) {
            None => (0, &b""[..]),
            Some(Kind::Inherit) => (1, &b""[..]),
            Some(Kind::Null) => (2, &b""[..]),
            Some(Kind::Pipe) => (3, &b""[..]),
            Some(Kind::Pty) => (4, &b""[..]),
            Some(Kind::Fd(_) | Kind::Broken { .. }) => (5, &b""[..]),
            Some(Kind::Same(1)) => (6, &b""[..]),
            Some(Kind::Same(_)) => (7, &b""[..]),
            Some(Kind::File { path, mode: FileMode::Read }) => (8, path.as_os_str().as_bytes()),
            Some(Kind::File { path, mode: FileMode::Truncate }) => (9, path.as_os_str().as_bytes()),
            Some(Kind::File { path, mode: FileMode::Append }) => (10, path.as_os_str().as_bytes()),
        };
        self.number(tag);
        self.bytes(bytes);
    }

    /// Those that change what a run leaves behind.
    fn attributes(&mut self, attributes: &Attributes) {
        self.id(attributes.user.as_ref());
        self.id(attributes.group.as_ref());
        self.number(attributes.groups.is_some().into());
        let groups = attributes.groups.as_deref().unwrap_or_default();
        self.number(groups.len() as u64);
        groups.iter().for_each(|group| self.id(Some(group)));
        self.number(attributes.keep_groups.into());
        self.number(attributes.umask.map_or(u64::MAX, u64::from));
    }

    fn id(&mut self, id: Option<&Id>) {
        match id {
            None => self.number(0),
            Some(Id::Number(number)) => {
                self.number(1);
                self.number((*number).into());
            }
            Some(Id::Name(name)) => {
                self.number(2);
                self.bytes(name.as_bytes());
            }
        }
    }

    fn end(self) -> Hash {
        Hash(self.0.finalize().into())
    }
}

/// What is in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    size: u64,
    hash: Hash,
}

/// What is in files, each looked at once. For one moment: nothing here notices a change.
#[derive(Debug, Default)]
pub(super) struct Contents {
    seen: HashMap<PathBuf, Result<Option<Content>, String>>,
}

impl Contents {
    /// What is in a file; `None` if it is not there. An error says why that cannot be known.
    fn of(&mut self, path: PathBuf) -> Result<Option<Content>, String> {
        if let Some(content) = self.seen.get(&path) {
            return content.clone();
        }
        let content = look(&path).map_err(|error| format!("{}: {error}", path.display()));
        self.seen.insert(path, content.clone());
        content
    }
}

fn look(path: &Path) -> io::Result<Option<Content>> {
    // A named pipe would hold us up without a bound.
    let file = match fd::open(path, File::options().read(true), libc::O_NONBLOCK) {
        Ok(file) => File::from(file),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    let (mut sum, mut size) = (Sha256::new(), 0);
    let mut space = vec![0; 64 * 1024];
    loop {
        match (&file).read(&mut space) {
            Ok(0) => return Ok(Some(Content { size, hash: Hash(sum.finalize().into()) })),
            Ok(count) => {
                sum.update(space.get(..count).unwrap_or_default());
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Input, Pty};
    use std::collections::HashMap;
    use std::fs;

    fn base() -> Command {
        Command::new("cc").arg("-c").arg("main.c").current_dir("/src")
    }

    /// This number may not change: logs of earlier versions would be worth nothing.
    #[test]
    fn is_the_same_in_every_version() {
        let command = base().env("A", "b").env_remove("C").secret_arg("pw").umask(0o22).input("text");
        let task = Task::new(command).reads("/does/not/exist").name("any");
        let identity = identity(&task);
        assert_eq!(identity.to_string(), "5deb0436881d82fd68099295a61160cdcae8507a7082ae340ac47add9bc3cfa6");
        assert_eq!(
            key(&task, identity, &mut Contents::default()).unwrap().to_string(),
            "368ac590d91db912d1ac0867c113bf094828abba4c02cfebd5410498e93978ec"
        );
    }

    #[test]
    fn commands_that_differ_are_not_the_same() {
        let file = || File::open("/dev/null").unwrap();
        let commands = [
            base(),
            Command::new("cc").arg("-cmain.c").current_dir("/src"),
            Command::new("cc").arg("-c main.c").current_dir("/src"),
            Command::new("cc").arg("main.c").arg("-c").current_dir("/src"),
            Command::new(Path::new("cc")).arg("-c").arg("main.c").current_dir("/src"),
            base().arg(""),
            base().arg("").arg(""),
            base().arg0("main.c"),
            base().executable("main.c"),
            base().executable(Path::new("main.c")),
            base().current_dir("/src2"),
            Command::new("cc").arg("-c").arg("main.c"),
            Command::new("cc").arg("-c").arg("main.c").current_dir("src"),
            base().env("A", ""),
            base().env("A", "b"),
            base().env("Ab", ""),
            base().env_remove("A"),
            base().env_clear(),
            base().env_clear().env("A", "b"),
            base().env("A", "b").env("B", "c"),
            base().secret_env("A", "pw"),
            base().secret_arg("pw"),
            base().stdin(Stdio::read("/in")),
            base().stdin(Stdio::null()),
            base().stdin(Stdio::piped()),
            base().stdin(file()),
            base().stdout(Stdio::null()),
            base().stdout(Stdio::write("/out")),
            base().stdout(Stdio::append("/out")),
            base().stdout(Stdio::write("/other")),
            base().stdout(Stdio::write("out")),
            base().stderr(Stdio::write("/out")),
            base().stderr(Stdio::stdout()),
            base().stdout(Stdio::stderr()),
            base().stdout(Stdio::pty()),
            base().stdout(Stdio::inherit()),
            base().fd(3, Stdio::null()),
            base().fd(4, Stdio::null()),
            base().pty(Pty::new()),
            base().input(""),
            base().input("text"),
            base().user(0),
            base().user("0"),
            base().group(0),
            base().groups([0]),
            base().groups([0, 1]),
            base().groups(Vec::<Id>::new()),
            base().keep_groups(),
            base().umask(0),
            base().umask(0o22),
        ];
        let mut seen = HashMap::new();
        for command in commands {
            let text = format!("{command:?}");
            let before = seen.insert(identity(&Task::new(command)), text.clone());
            assert_eq!(before, None, "is the same as {text}");
        }
    }

    #[test]
    fn what_changes_nothing_does_not_count() {
        let same = [
            Task::new(base()),
            Task::new(base()).name("a").group("b").priority(3).needs("memory", 7).idempotent().after("c"),
            Task::new(base().timeout(std::time::Duration::from_secs(1)).accept([1]).nice(3).echo()),
            Task::new(base()).reads("/x").writes("/y"),
            Task::new(Command::new("cc").secret_arg("-c").arg("main.c").current_dir("/src")),
        ];
        for task in &same {
            assert_eq!(identity(task), identity(&same[0]), "{task:?}");
        }
        let (one, two) = (base().env("A", "1").env("B", "2"), base().env("B", "2").env("A", "0").env("A", "1"));
        assert_eq!(identity(&one.into()), identity(&two.into()));
    }

    fn key_of(task: &Task) -> Result<Hash, String> {
        key(task, identity(task), &mut Contents::default())
    }

    #[test]
    fn what_is_read_counts_by_name_and_content_and_as_missing() {
        let folder = std::env::temp_dir().join(format!("procession-key-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let task = Task::new(base().current_dir(&folder)).reads("in").reads("../nowhere/at/all");
        let states = [None, Some(""), Some("a"), Some("b"), Some("ab")];
        let mut keys = Vec::new();
        for state in states {
            if let Some(text) = state {
                fs::write(folder.join("in"), text).unwrap();
            }
            keys.push(key_of(&task).unwrap());
            assert_eq!(key_of(&task).as_ref(), Ok(&keys[keys.len() - 1]));
        }
        // The borders of files, and which of them has what.
        fs::write(folder.join("other"), "b").unwrap();
        for names in [["in", "other"], ["other", "in"], ["in", "in"]] {
            keys.push(key_of(&Task::new(base().current_dir(&folder)).reads(names[0]).reads(names[1])).unwrap());
        }
        keys.push(key_of(&Task::new(base().current_dir(&folder).stdin(Stdio::read(folder.join("in"))))).unwrap());
        fs::write(folder.join("in"), "ba").unwrap();
        keys.push(key_of(&Task::new(base().current_dir(&folder).stdin(Stdio::read(folder.join("in"))))).unwrap());
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());

        nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["fifo", ".", "/dev/null"] {
            let reason = key_of(&Task::new(base().current_dir(&folder)).reads(name)).unwrap_err();
            assert!(reason.contains(name) && reason.ends_with("no regular file"), "{reason}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_known_has_no_key() {
        let file = || File::open("/").unwrap();
        for (command, expected) in [
            (base().input(file()), "its input is a reader or an open file"),
            (base().input(Input::reader(io::empty())), "its input is a reader or an open file"),
            (base().current_dir_fd(file()), "its directory is an open file"),
            (base().stdin(file()), "its descriptor 0 is an open file"),
            (base().stdin(Stdio::inherit()), "its descriptor 0 is an open file"),
            (base().fd(5, file()), "its descriptor 5 is an open file"),
        ] {
            assert_eq!(key_of(&command.into()), Err(expected.to_owned()));
        }
        assert!(key_of(&base().stdout(file()).stderr(Stdio::inherit()).into()).is_ok());
    }

    #[test]
    fn a_key_reads_back() {
        let hash = identity(&base().into());
        let text = hash.to_string();
        assert_eq!(Hash::parse(&text), Some(hash));
        for wrong in ["", &text[1..], &text[2..], &format!("{text}00"), &text.replacen(&text[..1], "g", 1), "é"] {
            assert_eq!(Hash::parse(wrong), None, "{wrong}");
        }
    }
}
