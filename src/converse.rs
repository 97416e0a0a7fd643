//! Talking by turns: write, read until something comes, and again. Decides when a turn is over and what it returns; how bytes are moved
//! is decided where it is for every conversation.

use crate::child::{Child, KillOnDrop};
use crate::command::{Command, Input, Stdio};
use crate::communicate::{Ending, Enough, Party, Purpose, Talk, Waiter, block, pump, waiter};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::machine::Machine;
use crate::output::{Output, Stream};
use crate::pipeline::PipelineChild;
use crate::terminal::Terminal;
use crate::text::Text;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// A conversation by turns with a child or a pipeline: what `expect` is for.
///
/// Each turn waits no longer than the timeout. While a turn writes, the child's output is read, and while it waits for one stream the
/// other is read too, so no amount of either blocks the child. A turn that fails takes nothing: what was read stays unread, the error
/// holds it, and the conversation can go on. Dropping it leaves the child as it is; what is unread stays with the child.
///
/// Programs often keep back what they write to a pipe until they end: such a program needs a [terminal](Command::pty).
///
/// Made by [`Child::converse`], [`PipelineChild::converse`](crate::PipelineChild::converse) and [`Command::converse`].
#[doc(alias = "expect")]
#[doc(alias = "pexpect")]
pub struct Conversation<'a> {
    party: &'a mut (dyn Party + 'a),
    /// Which stream of which child is listened to.
    source: (usize, Stream),
    /// For one turn.
    timeout: Duration,
    /// For all of them.
    until: Deadline,
    text: Text,
    waiter: Waiter,
}

impl fmt::Debug for Conversation<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Conversation")
            .field("party", &self.party)
            .field("source", &self.source)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Talking by turns.
impl Child {
    /// Begins a conversation by turns, or goes on with it; a turn waits no longer than `timeout`.
    ///
    /// ```
    /// use procession::Command;
    /// use std::time::Duration;
    ///
    /// let adder = "while read -r a b; do echo \"sum $((a + b))\"; done";
    /// let mut child = Command::shell(adder).pipe_all().spawn()?;
    /// let mut talk = child.converse(Duration::from_secs(10));
    /// talk.write_line("1 2")?;
    /// talk.read_until("sum ")?;
    /// assert_eq!(talk.read_line()?.as_deref(), Some(&b"3"[..]));
    /// talk.end_input();
    /// assert_eq!(talk.read_to_end()?, b"");
    /// assert!(child.wait()?.success());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[doc(alias = "expect")]
    pub fn converse(&mut self, timeout: Duration) -> Conversation<'_> {
        let text = self.settings.text;
        Conversation::new(self, (0, Stream::Stdout), timeout, text, waiter())
    }
}

impl PipelineChild {
    /// Begins a conversation by turns with the first stage's input and the last one's output; see [`Child::converse`].
    #[doc(alias = "expect")]
    pub fn converse(&mut self, timeout: Duration) -> Conversation<'_> {
        let source = self.sources().first().copied().unwrap_or((0, Stream::Stdout));
        let text = self.text();
        Conversation::new(self, source, timeout, text, waiter())
    }
}

/// Running by turns.
impl Command {
    /// Runs the command and talks to it by turns; returns what the function returns, and the record. Streams that are not set are
    /// piped. When the function is done, standard input is closed and the end of the process awaited, which is a turn as well.
    ///
    /// If anything goes wrong, in a turn or in the function, the process is stopped by its [`stop`](Self::stop) plan. The
    /// [`timeout`](Self::timeout) of the command bounds the whole.
    ///
    /// ```
    /// use procession::Command;
    /// use std::time::Duration;
    ///
    /// let greeter = Command::shell("printf 'name? '; read -r name; echo \"hello $name\"");
    /// let (greeting, output) = greeter.converse(Duration::from_secs(10), |talk| {
    ///     talk.read_until("name? ")?;
    ///     talk.write_line("world")?;
    ///     talk.read_line()
    /// })?;
    /// assert_eq!(greeting.as_deref(), Some(&b"hello world"[..]));
    /// assert!(output.success());
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the command cannot be started, if a turn fails, or with whatever the function returns as error.
    ///
    /// # Panics
    /// If the function does; the process is stopped then.
    pub fn converse<T>(
        &self,
        timeout: Duration,
        talk: impl FnOnce(&mut Conversation<'_>) -> Result<T, Error>,
    ) -> Result<(T, Output), Error> {
        let until = Deadline::from(self.timeout);
        let mut child = self.start_talk()?;
        let result = talk(&mut child.converse(timeout).until(until))?;
        let machine = child.begin(Input::empty(), Purpose::Show)?;
        let output = child.talk_with(machine, until.earlier(Deadline::after(timeout)), true, &mut ());
        Ok((result, output.map_err(|error| self.say_late_end(error, until, timeout))?))
    }

    /// Starts a run by turns that is not to outlive its verb.
    pub(crate) fn start_talk(&self) -> Result<Child, Error> {
        let [stdin, stdout, stderr] = self.chosen_streams();
        let piped = |stream: Option<Stdio>| stream.or_else(|| Some(Stdio::piped()));
        let mut child = self.spawn_with(&[piped(stdin), piped(stdout), piped(stderr)])?;
        child.kill_on_drop = KillOnDrop::Always;
        if let Some(input) = &self.input {
            child.feed(input.clone())?;
        }
        if let Some(machine) = &mut child.machine {
            // More may come by the turns.
            machine.hold_input(true);
        }
        Ok(child)
    }

    /// An error that knows which time was exceeded when all turns had been taken.
    pub(crate) fn say_late_end(&self, error: Error, until: Deadline, timeout: Duration) -> Error {
        match self.timeout {
            _ if !error.is_timeout() => error,
            Some(timeout) if until.has_passed() => error.detail(format!("timed out after {timeout:?}")),
            _ => error.detail(format!("not ended within {timeout:?}")),
        }
    }
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(
        party: &'a mut (dyn Party + 'a),
        source: (usize, Stream),
        timeout: Duration,
        text: Text,
        waiter: Waiter,
    ) -> Conversation<'a> {
        let mut conversation = Conversation { party, source, timeout, until: Deadline::NEVER, text, waiter };
        conversation.listen();
        conversation
    }

    /// All turns together take no longer than until then.
    pub(crate) fn until(mut self, until: Deadline) -> Conversation<'a> {
        self.until = until;
        self
    }

    /// What is listened to is handed out.
    fn listen(&mut self) {
        self.party.hand_out(&[self.source]);
    }

    /// Listens to this stream from now on. What comes from the other is read all the same: if it was listened to before it waits, else
    /// the last 64 KiB of it do, or what [`capture_limit`](Command::capture_limit) says.
    pub fn listen_to(&mut self, stream: Stream) -> &mut Self {
        self.source.1 = stream;
        self.listen();
        self
    }

    /// The longest wait of the turns that follow.
    pub fn set_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = timeout;
        self
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// If the child does not take it in time: what is left is written with the next turn. If the child has closed its input or ended.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        block(self.write_turn(bytes.as_ref()))
    }

    /// As [`write`](Self::write), to be awaited. What a dropped turn has not written is written with the next one.
    pub(crate) async fn write_turn(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let deadline = self.deadline();
        self.party.add_input(Input::from(bytes))?;
        let ending = self
            .pump(deadline, &mut |talks| {
                talks.first().is_none_or(|first| first.machine.input_waiting() == 0 || !first.machine.input_is_open())
            })
            .await?;
        let waiting = self.party.machine(0).map_or(0, Machine::input_waiting);
        let refused = self.party.machine(0).is_none_or(|machine| machine.input().1);
        match ending {
            _ if refused => {
                let error = io::Error::from(io::ErrorKind::BrokenPipe);
                Err(self.fail(Error::io("write stdin", error).detail("the child has closed its input")))
            }
            Ending::TimedOut => {
                let text = format!("{waiting} bytes of input were not taken within {:?}", self.timeout);
                Err(self.fail(Error::new(ErrorKind::Timeout).detail(text)))
            }
            Ending::Over | Ending::Paused => Ok(()),
        }
    }

    /// Writes a line and its end.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[doc(alias = "sendline")]
    pub fn write_line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write([line.as_ref(), b"\n"].concat())
    }

    /// Says that no more input will come.
    #[doc(alias = "sendeof")]
    pub fn end_input(&mut self) {
        self.waiter.let_go();
        self.party.end_input();
    }

    /// Reads until the pattern has come, and returns everything up to its end; what comes behind stays unread.
    ///
    /// # Errors
    /// If it does not come in time, or the stream ends before ([`ErrorKind::Ended`]); what was read stays unread and is in the error.
    /// If more is unread than the command's [`capture_limit`](Command::capture_limit) allows: the child is stopped then.
    #[doc(alias = "expect")]
    pub fn read_until(&mut self, pattern: impl Into<Pattern>) -> Result<Reply, Error> {
        block(self.read_until_turn(pattern.into()))
    }

    /// As [`read_until`](Self::read_until), to be awaited. A dropped turn takes nothing.
    pub(crate) async fn read_until_turn(&mut self, mut pattern: Pattern) -> Result<Reply, Error> {
        if pattern.is_empty() {
            return Err(self.fail(Error::invalid("an empty pattern comes at once, or never")));
        }
        let mut scanned = 0;
        let found = self.read_while(|unread, _| {
            let found = pattern.find(unread, scanned);
            scanned = unread.len();
            found
        });
        let Some((which, matched)) = found.await.map_err(|error| self.missed(error, &pattern))? else {
            self.see_the_end().await?;
            let error = Error::new(ErrorKind::Ended).detail(format!("the output ended before {pattern} came"));
            return Err(self.fail(error));
        };
        let bytes = self.take(matched.end);
        Ok(Reply { bytes, matched, which, text: self.text })
    }

    /// Reads a line, without its end; `None` if the stream has ended. A last line without an end is a line too.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until), except that the end of the stream is none. With [`Command::text`] in an encoding in which a
    /// line cannot be found among the bytes (UTF-16): use [`Pattern::with`] then.
    pub fn read_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        block(self.read_line_turn())
    }

    /// As [`read_line`](Self::read_line), to be awaited.
    pub(crate) async fn read_line_turn(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.text.is_cut_as_text() {
            return Err(self.fail(Error::invalid("lines of this encoding cannot be found: use `read_until`")));
        }
        let mut finder = self.text.line_finder(usize::MAX);
        let found = self.read_while(|unread, ended| finder.next(unread, ended));
        let cut =
            found.await.map_err(|error| if error.is_timeout() { error.detail(self.late("a line")) } else { error })?;
        Ok(cut.map(|cut| {
            let after_return = finder.is_after_return();
            let mut line = self.take(finder.forget());
            let (place, stream) = self.source;
            if let Some(machine) = self.party.machine_mut(place).filter(|_| after_return) {
                machine.skip_newline(stream);
            }
            line.truncate(cut.end);
            line.drain(..cut.start);
            line
        }))
    }

    /// Reads until nothing has come for so long, or the stream has ended; returns what came, perhaps nothing.
    ///
    /// # Errors
    /// If it is not quiet before the timeout has passed; what came stays unread. As [`read_until`](Self::read_until) otherwise.
    pub fn read_quiet(&mut self, quiet: Duration) -> Result<Vec<u8>, Error> {
        block(self.read_quiet_turn(quiet))
    }

    /// As [`read_quiet`](Self::read_quiet), to be awaited.
    pub(crate) async fn read_quiet_turn(&mut self, quiet: Duration) -> Result<Vec<u8>, Error> {
        let deadline = self.deadline();
        loop {
            let known = self.unread().len();
            let moment = Deadline::after(quiet);
            let until = deadline.earlier(moment);
            match self.read_once(until, |unread, _| (unread.len() > known).then_some(())).await? {
                Step::Found(()) if deadline.has_passed() => {}
                Step::Found(()) => continue,
                Step::Ended => break,
                Step::TimedOut if moment.has_passed() => break,
                Step::TimedOut => {}
            }
            let text = format!("not quiet for {quiet:?} within {:?}", self.timeout);
            return Err(self.fail(Error::new(ErrorKind::Timeout).detail(text)));
        }
        Ok(self.take(self.unread().len()))
    }

    /// Reads until the stream has ended.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until), except that the end of the stream is none.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>, Error> {
        block(self.read_to_end_turn())
    }

    /// As [`read_to_end`](Self::read_to_end), to be awaited.
    pub(crate) async fn read_to_end_turn(&mut self) -> Result<Vec<u8>, Error> {
        let ended = self.read_while(|_, _| None::<()>).await;
        ended.map_err(|error| if error.is_timeout() { error.detail(self.late("the end")) } else { error })?;
        Ok(self.take(self.unread().len()))
    }

    /// The terminal that is talked through, if it is one: to resize it, or to see whether a password is asked for.
    ///
    /// ```
    /// use procession::{Command, Pty};
    /// use std::time::Duration;
    ///
    /// let login = Command::shell("stty -echo; printf 'password: '; read -r word; echo thanks").pty(Pty::new().echo(true));
    /// login.converse(Duration::from_secs(10), |talk| {
    ///     talk.read_until("password: ")?;
    ///     let hidden = talk.terminal().is_some_and(|terminal| terminal.echo().is_ok_and(|echo| !echo));
    ///     assert!(hidden);
    ///     talk.write_line("secret")?;
    ///     talk.read_until("thanks")
    /// })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn terminal(&self) -> Option<&Terminal> {
        self.party.terminal()
    }

    /// What was read and no turn has taken.
    pub fn unread(&self) -> &[u8] {
        let (place, stream) = self.source;
        self.party.machine(place).map_or(&[], |machine| machine.unread(stream))
    }

    fn deadline(&self) -> Deadline {
        self.until.earlier(Deadline::after(self.timeout))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.unread().get(..count).unwrap_or_default().to_vec();
        let (place, stream) = self.source;
        if let Some(machine) = self.party.machine_mut(place) {
            machine.take(stream, count);
        }
        bytes
    }

    /// Reads until something is found in what is unread; `None` if the stream ends before.
    async fn read_while<T: Send>(
        &mut self,
        mut find: impl FnMut(&[u8], bool) -> Option<T> + Send,
    ) -> Result<Option<T>, Error> {
        match self.read_once(self.deadline(), &mut find).await? {
            Step::Found(found) => Ok(Some(found)),
            Step::Ended => Ok(None),
            Step::TimedOut => Err(self.fail(Error::new(ErrorKind::Timeout))),
        }
    }

    async fn read_once<T: Send>(
        &mut self,
        deadline: Deadline,
        mut find: impl FnMut(&[u8], bool) -> Option<T> + Send,
    ) -> Result<Step<T>, Error> {
        let (place, stream) = self.source;
        let (mut found, mut known) = (None, usize::MAX);
        let mut look = |machine: &Machine| {
            let (unread, ended) = (machine.unread(stream), !machine.wants_to_read(stream));
            // Nobody looks twice at the same bytes.
            if found.is_none() && (unread.len() != known || ended) {
                known = unread.len();
                found = find(unread, ended);
            }
            found.is_some() || ended
        };
        let ready = self.party.machine(place).is_none_or(&mut look);
        let ending = match ready {
            true => Ending::Paused,
            false => {
                let enough = &mut |talks: &[Talk<'_>]| talks.get(place).is_none_or(|talk| look(talk.machine));
                self.pump(deadline, enough).await?
            }
        };
        // The last bytes may have come with the end.
        if let (Ending::Over, Some(machine)) = (ending, self.party.machine(place)) {
            look(machine);
        }
        Ok(match (found, ending) {
            (Some(found), _) => Step::Found(found),
            (None, Ending::TimedOut) => Step::TimedOut,
            (None, Ending::Over | Ending::Paused) => Step::Ended,
        })
    }

    /// When a stream ends the process mostly ends too, a moment later: then its status is worth waiting for.
    async fn see_the_end(&mut self) -> Result<(), Error> {
        let moment = self.deadline().earlier(Deadline::after(END_MAX));
        self.pump(moment, &mut |_| false).await.map(drop)
    }

    async fn pump(&mut self, deadline: Deadline, enough: &mut Enough<'_>) -> Result<Ending, Error> {
        pump(&mut *self.party, deadline, enough, &mut self.waiter).await
    }

    /// An error with everything that was read until now.
    fn fail(&self, error: Error) -> Error {
        error.with_output(self.party.record_so_far())
    }

    fn late(&self, what: &str) -> String {
        format!("{what} did not come within {:?}", self.timeout)
    }

    fn missed(&self, error: Error, pattern: &Pattern) -> Error {
        if error.is_timeout() { error.detail(self.late(&pattern.to_string())) } else { error }
    }
}

/// How long the end of a process may come after the end of its output.
const END_MAX: Duration = Duration::from_millis(100);

enum Step<T> {
    Found(T),
    Ended,
    TimedOut,
}

/// What a turn waits for: a text, one of several, or whatever a function finds.
///
/// ```
/// use procession::{Command, Pattern};
/// use std::time::Duration;
///
/// let mut child = Command::shell("echo working; echo 'done: 42 files'").pipe_all().spawn()?;
/// let mut talk = child.converse(Duration::from_secs(10));
/// let reply = talk.read_until(Pattern::any(["failed", "done: "]))?;
/// assert_eq!((reply.which(), reply.before()), (1, &b"working\n"[..]));
/// let number = Pattern::with(|unread| unread.iter().position(|byte| *byte == b' ').map(|end| 0..end));
/// assert_eq!(talk.read_until(number)?.matched(), b"42");
/// # child.wait()?;
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Pattern(Kind);

type Find = Box<dyn FnMut(&[u8]) -> Option<Range<usize>> + Send>;

enum Kind {
    Literal(Vec<u8>),
    Any(Vec<Pattern>),
    With(Find),
}

impl Pattern {
    /// Whichever comes first; of two that begin at the same place the one that stands first here.
    pub fn any<P: Into<Pattern>>(patterns: impl IntoIterator<Item = P>) -> Pattern {
        Pattern(Kind::Any(patterns.into_iter().map(Into::into).collect()))
    }

    /// Whatever a function finds in the bytes that are unread, for example a regular expression: it is asked each time that more has
    /// come, and returns where the match lies.
    pub fn with(find: impl FnMut(&[u8]) -> Option<Range<usize>> + Send + 'static) -> Pattern {
        Pattern(Kind::With(Box::new(find)))
    }

    fn is_empty(&self) -> bool {
        match &self.0 {
            Kind::Literal(literal) => literal.is_empty(),
            Kind::Any(patterns) => patterns.is_empty() || patterns.iter().any(Pattern::is_empty),
            Kind::With(_) => false,
        }
    }

    /// Where it is, and which of several; what stands before `scanned` was looked through.
    fn find(&mut self, unread: &[u8], scanned: usize) -> Option<(usize, Range<usize>)> {
        match &mut self.0 {
            Kind::Literal(literal) => {
                // It may have begun with the last bytes that were looked through.
                let from = (scanned + 1).saturating_sub(literal.len());
                let place = unread.get(from..)?.windows(literal.len()).position(|window| window == literal)?;
                Some((0, from + place..from + place + literal.len()))
            }
            Kind::Any(patterns) => {
                let found = patterns
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(which, pattern)| pattern.find(unread, scanned).map(|(_, matched)| (which, matched)));
                found.min_by_key(|(_, matched)| matched.start)
            }
            Kind::With(find) => {
                let matched = find(unread)?;
                let end = matched.end.min(unread.len());
                Some((0, matched.start.min(end)..end))
            }
        }
    }
}

macro_rules! literal_from {
    ($($source:ty),*) => {
        $(impl From<$source> for Pattern {
            fn from(literal: $source) -> Pattern {
                Pattern(Kind::Literal(literal.into()))
            }
        })*
    };
}

literal_from!(&str, String, &[u8], Vec<u8>);

impl<const N: usize> From<&[u8; N]> for Pattern {
    fn from(literal: &[u8; N]) -> Pattern {
        Pattern(Kind::Literal(literal.to_vec()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Literal(literal) => write!(out, "{:?}", String::from_utf8_lossy(literal)),
            Kind::Any(patterns) => {
                for (place, pattern) in patterns.iter().enumerate() {
                    write!(out, "{}{pattern}", if place > 0 { " or " } else { "" })?;
                }
                Ok(())
            }
            Kind::With(_) => out.write_str("the pattern"),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pattern({self})")
    }
}

/// What a turn has read: everything up to the end of the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: Vec<u8>,
    matched: Range<usize>,
    which: usize,
    text: Text,
}

impl Reply {
    /// All bytes, those of the match at their end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes before the match.
    pub fn before(&self) -> &[u8] {
        self.bytes.get(..self.matched.start).unwrap_or_default()
    }

    /// The bytes that matched.
    pub fn matched(&self) -> &[u8] {
        self.bytes.get(self.matched.clone()).unwrap_or_default()
    }

    /// Which of [several patterns](Pattern::any) has come, counted from 0.
    pub fn which(&self) -> usize {
        self.which
    }

    /// What came before the match, as text in the encoding of [`Command::text`], with U+FFFD for what is none.
    pub fn text(&self) -> Cow<'_, str> {
        self.text.decode_lossy(self.before())
    }
}

/// As [`text`](Reply::text).
impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each time that another piece has come.
    fn find(mut pattern: Pattern, bytes: &[u8], piece: usize) -> Option<(usize, Range<usize>)> {
        let mut scanned = 0;
        for end in (0..=bytes.len()).step_by(piece).chain([bytes.len()]) {
            let found = pattern.find(&bytes[..end], scanned);
            if found.is_some() {
                return found;
            }
            scanned = end;
        }
        None
    }

    #[test]
    fn a_pattern_is_found_whatever_the_borders() {
        for piece in 1..8 {
            assert_eq!(find("> ".into(), b"a>b> c> ", piece), Some((0, 3..5)));
            assert_eq!(find("aab".into(), b"aaab", piece), Some((0, 1..4)));
            assert_eq!(find("x".into(), b"aaab", piece), None);
            assert_eq!(find("x".into(), b"", piece), None);
        }
        assert_eq!(find(Pattern::any(["bc", "abc", "ab"]), b"xabc", 8), Some((1, 1..4)));
        assert_eq!(find(Pattern::with(|bytes| (bytes.len() > 2).then_some(1..99)), b"xabc", 1), Some((0, 1..3)));
    }

    #[test]
    fn empty_patterns_are_told() {
        assert!(Pattern::from("").is_empty());
        assert!(Pattern::any(["a", ""]).is_empty());
        assert!(Pattern::any::<&str>([]).is_empty());
        assert!(!Pattern::any(["a"]).is_empty());
    }
}
