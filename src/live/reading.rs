//! A loop that asks for the next piece. Decides which piece that is; what was not handed out stays with the child.

use super::{Line, OwnedLine};
use crate::child::Child;
use crate::communicate::{Ending, Party, Purpose, Talk, Waiter, block, pump, waiter};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::machine::Machine;
use crate::output::Stream;
use crate::text::{Cut, LineFinder, Text};
use std::fmt;
use std::time::Duration;

/// Asking piece by piece.
impl Child {
    /// The lines of both streams, as they come: an iterator, and with [`next_line`](Lines::next_line) a loop that copies nothing.
    ///
    /// Both streams are read whichever is asked for, so neither can block the child. Standard input stays as it is; if the child
    /// waits for its end, [feed](Self::feed) it or drop [`stdin`](Self::stdin) first. Nothing is lost when the iteration is left
    /// early: the next one, or [`communicate`](Self::communicate), goes on behind the last line that was handed out. After a
    /// conversation that timed out everything since the beginning comes, but for what that one has dropped or written to a file
    /// beyond its [`capture_limit`](crate::Command::capture_limit).
    ///
    /// The iteration ends with the streams. Then [`wait`](Self::wait) returns the status and `communicate` the record.
    ///
    /// ```
    /// use procession::{Command, Stdio};
    ///
    /// let mut child = Command::shell("echo one; echo two; exit 3").stdout(Stdio::piped()).spawn()?;
    /// for line in child.lines() {
    ///     println!("{}", line?);
    /// }
    /// assert_eq!(child.wait()?.code(), Some(3));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn lines(&mut self) -> Lines<'_> {
        let (text, line_max) = (self.settings.text, self.settings.line_max);
        Lines::new(self, text, line_max, waiter())
    }

    /// The output of both streams as it is read: [`next_chunk`](Chunks::next_chunk) copies nothing. See [`lines`](Self::lines).
    pub fn chunks(&mut self) -> Chunks<'_> {
        Chunks::new(self, waiter())
    }

    /// Gives input to the child that is written while its output is read, by whatever reads it next: [`lines`](Self::lines),
    /// [`chunks`](Self::chunks) or a conversation; [`wait`](Self::wait) alone writes nothing. Standard input is closed behind it.
    ///
    /// ```
    /// use procession::Command;
    ///
    /// let mut child = Command::new("sort").pipe_all().spawn()?;
    /// child.feed("b\na\n")?;
    /// let lines: Vec<_> = child.lines().map(|line| line.map(|line| line.text().into_owned())).collect::<Result<_, _>>()?;
    /// assert_eq!(lines, ["a", "b"]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If standard input is not a pipe or has been closed.
    pub fn feed(&mut self, input: impl Into<crate::command::Input>) -> Result<(), Error> {
        let machine = self.begin(input.into(), Purpose::Collect)?;
        self.machine = Some(Box::new(machine));
        Ok(())
    }
}

/// The pieces of output that were read and not taken, and where more comes from.
struct Reading<'a> {
    party: &'a mut dyn Party,
    /// Which streams of which stages are handed out.
    sources: Vec<(usize, Stream)>,
    timeout: Option<Duration>,
    waiter: Waiter,
}

impl<'a> Reading<'a> {
    fn new(party: &'a mut dyn Party, waiter: Waiter) -> Reading<'a> {
        let sources = party.sources();
        Reading { party, sources, timeout: None, waiter }
    }

    fn unread(&self, source: usize) -> &[u8] {
        let Some(&(place, stream)) = self.sources.get(source) else { return &[] };
        self.party.machine(place).map_or(&[], |machine| machine.unread(stream))
    }

    /// Whether there will be no more than what is unread.
    fn has_ended(&self, source: usize) -> bool {
        let Some(&(place, stream)) = self.sources.get(source) else { return true };
        self.party.machine(place).is_some_and(|machine| !machine.wants_to_read(stream))
    }

    /// The machine that reads a source, and which of its streams that is.
    fn machine(&mut self, source: usize) -> Option<(&mut Machine, Stream)> {
        let &(place, stream) = self.sources.get(source)?;
        Some((self.party.machine_mut(place)?, stream))
    }

    fn unread_of_all(&self) -> Vec<usize> {
        (0..self.sources.len()).map(|source| self.unread(source).len()).collect()
    }

    /// The `\n` that follows, if one does, is the second half of a line end whose first half was taken.
    fn skip_newline(&mut self, source: usize) {
        if let Some((machine, stream)) = self.machine(source) {
            machine.skip_newline(stream);
        }
    }

    fn deadline(&self) -> Deadline {
        Deadline::from(self.timeout)
    }

    /// Reads until one of the sources has more than so much unread or comes to its end, or all have ended. False if all have ended.
    async fn read_more(&mut self, known: &[usize], deadline: Deadline) -> Result<bool, Error> {
        let all_ended = |reading: &Reading<'_>| (0..reading.sources.len()).all(|source| reading.has_ended(source));
        self.party.hand_out(&self.sources);
        if self.unread_of_all().iter().zip(known).any(|(unread, known)| unread > known) {
            return Ok(true); // it was kept for a record until now
        }
        if all_ended(self) {
            return Ok(false);
        }
        let had_ended: Vec<bool> = (0..self.sources.len()).map(|source| self.has_ended(source)).collect();
        let sources = &self.sources;
        let mut enough = |talks: &[Talk<'_>]| -> bool {
            let machine = |place: usize| talks.get(place).map(|talk| &*talk.machine);
            let is_open = |&(place, stream): &(usize, Stream)| {
                machine(place).is_some_and(|machine| machine.wants_to_read(stream))
            };
            let is_more = |((source, known), had_ended): ((&(usize, Stream), &usize), &bool)| {
                let unread = machine(source.0).map_or(0, |machine| machine.unread(source.1).len());
                // The end of a stream is news if it ends a line.
                unread > *known || (unread > 0 && !had_ended && !is_open(source))
            };
            sources.iter().zip(known).zip(&had_ended).any(is_more) || !sources.iter().any(is_open)
        };
        match pump(&mut *self.party, deadline, &mut enough, &mut self.waiter).await? {
            Ending::TimedOut => {
                let timeout = self.timeout.unwrap_or_default();
                let output = self.party.record_so_far();
                Err(Error::new(ErrorKind::Timeout).detail(format!("nothing came for {timeout:?}")).with_output(output))
            }
            Ending::Over | Ending::Paused => Ok(true),
        }
    }
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reading").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// The lines of a child or a pipeline as they come: see [`Child::lines`].
///
/// As an iterator it yields lines that own their bytes; [`next_line`](Self::next_line) lends them.
#[must_use = "no line is read until it is asked for"]
pub struct Lines<'a> {
    reading: Reading<'a>,
    text: Text,
    line_max: usize,
    finders: Vec<LineFinder>,
    /// The source that is being looked through.
    place: usize,
    stage: usize,
    stream: Stream,
    ended: bool,
    /// Its memory, taken out of the machine, and where in it the unread begins.
    memory: Vec<u8>,
    start: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(party: &'a mut dyn Party, text: Text, line_max: usize, waiter: Waiter) -> Lines<'a> {
        let reading = Reading::new(party, waiter);
        let finders = reading.sources.iter().map(|_| text.line_finder(line_max)).collect();
        let (stage, stream, memory) = (0, Stream::Stdout, Vec::new());
        Lines { reading, text, line_max, finders, place: 0, stage, stream, ended: false, memory, start: 0 }
    }

    /// The lines of one stream alone. The other is read all the same; the record has the last 64 KiB of it, or what
    /// [`capture_limit`](crate::Command::capture_limit) says.
    pub fn only(mut self, stream: Stream) -> Lines<'a> {
        self.leave();
        self.reading.sources.retain(|(_, of)| *of == stream);
        self.finders.truncate(self.reading.sources.len());
        self.finders.fill(self.text.line_finder(self.line_max));
        self
    }

    /// The longest wait for a line, however much of it comes meanwhile. It is a failure that can be gone on after, without a loss.
    /// For ever by default.
    pub fn timeout(mut self, timeout: Duration) -> Lines<'a> {
        self.reading.timeout = Some(timeout);
        self
    }

    /// The next line, without a copy; `None` when the streams have ended.
    ///
    /// ```
    /// use procession::{Command, Stdio};
    ///
    /// let mut child = Command::new("seq").arg("1000").stdout(Stdio::piped()).spawn()?;
    /// let (mut lines, mut sum) = (child.lines(), 0);
    /// while let Some(line) = lines.next_line()? {
    ///     sum += line.text().parse::<u32>().unwrap();
    /// }
    /// assert_eq!(sum, 500_500);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the [`timeout`](Self::timeout) has passed, if a target of the command fails, if more is unread than its
    /// [`capture_limit`](crate::Command::capture_limit) allows, or if the system refuses to read. With
    /// [`Command::text`](crate::Command::text) in an encoding in which a line cannot be found among the bytes (UTF-16): use
    /// [`Command::for_each_line`](crate::Command::for_each_line) then.
    #[inline]
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, Error> {
        let cut = match self.find() {
            Some(cut) => cut,
            None => match block(self.find_in_more())? {
                Some(cut) => cut,
                None => return Ok(None),
            },
        };
        Ok(self.line(&cut))
    }

    /// As [`next_line`](Self::next_line), to be awaited.
    #[cfg(feature = "future")]
    pub(crate) async fn awaited_line(&mut self) -> Result<Option<Line<'_>>, Error> {
        let cut = match self.find() {
            Some(cut) => Some(cut),
            None => self.find_in_more().await?,
        };
        Ok(cut.and_then(|cut| self.line(&cut)))
    }

    #[inline]
    fn line(&self, cut: &Cut) -> Option<Line<'_>> {
        let bytes = self.memory.get(self.start + cut.start..self.start + cut.end)?;
        Some(Line { stage: self.stage, stream: self.stream, bytes, end: cut.how, text: self.text })
    }

    /// The next line of the source that is being looked through.
    #[inline]
    fn find(&mut self) -> Option<Cut> {
        let bytes = self.memory.get(self.start..)?;
        self.finders.get_mut(self.place)?.next(bytes, self.ended)
    }

    /// The next line of any source, which is read until there is one. `None` when all streams have ended.
    async fn find_in_more(&mut self) -> Result<Option<Cut>, Error> {
        if self.text.is_cut_as_text() {
            return Err(Error::invalid("lines of this encoding cannot be lent: use `for_each_line`"));
        }
        let mut deadline = None;
        loop {
            self.put_back();
            if self.take_out() {
                if let Some(cut) = self.find() {
                    return Ok(Some(cut));
                }
                continue;
            }
            let deadline = *deadline.get_or_insert_with(|| self.reading.deadline());
            let known = self.reading.unread_of_all();
            if !self.reading.read_more(&known, deadline).await? {
                return Ok(None);
            }
        }
    }

    /// Begins to look through a source that has something to look through; false if there is none.
    fn take_out(&mut self) -> bool {
        let has_more = |(source, finder): (usize, &LineFinder)| {
            let ended = self.reading.has_ended(source);
            finder.has_more(self.reading.unread(source), ended).then_some((source, ended))
        };
        let Some((source, ended)) = self.finders.iter().enumerate().find_map(has_more) else { return false };
        (self.place, self.ended) = (source, ended);
        (self.stage, self.stream) = self.reading.sources.get(source).copied().unwrap_or((0, Stream::Stdout));
        if let Some((machine, stream)) = self.reading.machine(source) {
            (self.memory, self.start) = machine.take_out(stream);
        }
        true
    }

    /// The memory goes back to the machine, and the lines that were handed out are no longer unread.
    fn put_back(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let Some(finder) = self.finders.get_mut(self.place).filter(|_| !memory.is_empty()) else { return };
        let start = self.start + finder.forget();
        if let Some((machine, stream)) = self.reading.machine(self.place) {
            machine.put_back(stream, memory, start);
        }
        self.start = 0;
    }

    /// What was not handed out stays with the child, for whoever reads next.
    fn leave(&mut self) {
        self.put_back();
        for (source, finder) in self.finders.iter().enumerate() {
            if finder.is_after_return() {
                self.reading.skip_newline(source);
            }
        }
    }
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Lines").field("reading", &self.reading).finish_non_exhaustive()
    }
}

/// Lines that were not handed out stay with the child.
impl Drop for Lines<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<OwnedLine, Error>;

    fn next(&mut self) -> Option<Result<OwnedLine, Error>> {
        self.next_line().map(|line| line.map(|line| line.to_owned())).transpose()
    }
}

/// The output of a child or a pipeline as it is read: see [`Child::chunks`].
#[derive(Debug)]
#[must_use = "nothing is read until it is asked for"]
pub struct Chunks<'a> {
    reading: Reading<'a>,
    /// What was handed out last: from which source, and how much.
    lent: (usize, usize),
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(party: &'a mut dyn Party, waiter: Waiter) -> Chunks<'a> {
        Chunks { reading: Reading::new(party, waiter), lent: (0, 0) }
    }

    /// The output of one stream alone; see [`Lines::only`].
    pub fn only(mut self, stream: Stream) -> Chunks<'a> {
        self.take_lent();
        self.reading.sources.retain(|(_, of)| *of == stream);
        self
    }

    /// The longest wait for output. It is a failure that can be gone on after. For ever by default.
    pub fn timeout(mut self, timeout: Duration) -> Chunks<'a> {
        self.reading.timeout = Some(timeout);
        self
    }

    /// What was read next, without a copy; `None` when the streams have ended.
    ///
    /// # Errors
    /// As [`Lines::next_line`].
    pub fn next_chunk(&mut self) -> Result<Option<(Stream, &[u8])>, Error> {
        block(self.awaited_chunk())
    }

    /// As [`next_chunk`](Self::next_chunk), to be awaited.
    pub(crate) async fn awaited_chunk(&mut self) -> Result<Option<(Stream, &[u8])>, Error> {
        self.take_lent();
        let known = vec![0; self.reading.sources.len()];
        let deadline = self.reading.deadline();
        loop {
            let more = (0..known.len()).find(|&source| !self.reading.unread(source).is_empty());
            if let Some(source) = more {
                self.lent = (source, self.reading.unread(source).len());
                let stream = self.reading.sources.get(source).map_or(Stream::Stdout, |(_, stream)| *stream);
                return Ok(Some((stream, self.reading.unread(source))));
            }
            if !self.reading.read_more(&known, deadline).await? {
                return Ok(None);
            }
        }
    }

    fn take_lent(&mut self) {
        let (source, count) = std::mem::take(&mut self.lent);
        if let Some((machine, stream)) = self.reading.machine(source) {
            machine.take(stream, count);
        }
    }
}

/// What was handed out counts as taken.
impl Drop for Chunks<'_> {
    fn drop(&mut self) {
        self.take_lent();
    }
}

impl Iterator for Chunks<'_> {
    type Item = Result<(Stream, Vec<u8>), Error>;

    fn next(&mut self) -> Option<Result<(Stream, Vec<u8>), Error>> {
        self.next_chunk().map(|chunk| chunk.map(|(stream, bytes)| (stream, bytes.to_vec()))).transpose()
    }
}
