//! Lines, chunks and turns that are awaited.

use super::Awaited;
use super::readiness::Readiness;
use crate::communicate::Waiter;
use crate::converse::{Conversation, Pattern, Reply};
use crate::error::Error;
use crate::live::{Chunks, Line, Lines, OwnedLine};
use crate::output::Stream;
use crate::terminal::Terminal;
use std::time::Duration;

/// A conversation whose turns are awaited.
pub(super) fn conversation<'a>(
    readiness: Readiness,
    make: impl FnOnce(Waiter) -> Conversation<'a>,
) -> Awaited<Conversation<'a>> {
    Awaited(make(Box::new(readiness)))
}

/// Lines as they come. A future that is dropped takes no line.
impl<'a> Awaited<Lines<'a>> {
    /// As [`Lines::only`].
    pub fn only(self, stream: Stream) -> Awaited<Lines<'a>> {
        Awaited(self.0.only(stream))
    }

    /// As [`Lines::timeout`].
    pub fn timeout(self, timeout: Duration) -> Awaited<Lines<'a>> {
        Awaited(self.0.timeout(timeout))
    }

    /// As [`Lines::next_line`].
    ///
    /// ```
    /// use procession::{Command, Stdio, future};
    ///
    /// let sum = future::block_on(async {
    ///     let mut child = Command::new("seq").arg("1000").stdout(Stdio::piped()).spawn()?;
    ///     let (mut lines, mut sum) = (child.future().lines()?, 0);
    ///     while let Some(line) = lines.next_line().await? {
    ///         sum += line.text().parse::<u32>().unwrap();
    ///     }
    ///     Ok::<_, procession::Error>(sum)
    /// })??;
    /// assert_eq!(sum, 500_500);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn next_line(&mut self) -> Result<Option<Line<'_>>, Error> {
        self.0.awaited_line().await
    }

    /// The next line as a value that can be kept; `None` when the streams have ended.
    ///
    /// # Errors
    /// As [`next_line`](Self::next_line).
    pub async fn next(&mut self) -> Option<Result<OwnedLine, Error>> {
        self.next_line().await.map(|line| line.map(|line| line.to_owned())).transpose()
    }
}

/// Output as it is read. A future that is dropped takes nothing.
impl<'a> Awaited<Chunks<'a>> {
    /// As [`Chunks::only`].
    pub fn only(self, stream: Stream) -> Awaited<Chunks<'a>> {
        Awaited(self.0.only(stream))
    }

    /// As [`Chunks::timeout`].
    pub fn timeout(self, timeout: Duration) -> Awaited<Chunks<'a>> {
        Awaited(self.0.timeout(timeout))
    }

    /// As [`Chunks::next_chunk`].
    ///
    /// # Errors
    /// As there.
    pub async fn next_chunk(&mut self) -> Result<Option<(Stream, &[u8])>, Error> {
        self.0.awaited_chunk().await
    }
}

/// The turns of a conversation. A turn that is dropped takes nothing; what it has not written is written with the next one.
impl Awaited<Conversation<'_>> {
    /// As [`Conversation::listen_to`].
    pub fn listen_to(&mut self, stream: Stream) -> &mut Self {
        self.0.listen_to(stream);
        self
    }

    /// As [`Conversation::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.0.set_timeout(timeout);
        self
    }

    /// As [`Conversation::write`].
    ///
    /// # Errors
    /// As there.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        self.0.write_turn(bytes.as_ref()).await
    }

    /// As [`Conversation::write_line`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Error> {
        self.0.write_turn(&[line.as_ref(), b"\n"].concat()).await
    }

    /// As [`Conversation::end_input`].
    pub fn end_input(&mut self) {
        self.0.end_input();
    }

    /// As [`Conversation::read_until`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_until(&mut self, pattern: impl Into<Pattern>) -> Result<Reply, Error> {
        self.0.read_until_turn(pattern.into()).await
    }

    /// As [`Conversation::read_line`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.0.read_line_turn().await
    }

    /// As [`Conversation::read_quiet`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_quiet(&mut self, quiet: Duration) -> Result<Vec<u8>, Error> {
        self.0.read_quiet_turn(quiet).await
    }

    /// As [`Conversation::read_to_end`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, Error> {
        self.0.read_to_end_turn().await
    }

    /// As [`Conversation::terminal`].
    pub fn terminal(&self) -> Option<&Terminal> {
        self.0.terminal()
    }

    /// As [`Conversation::unread`].
    pub fn unread(&self) -> &[u8] {
        self.0.unread()
    }
}
