//! Bytes to text and to lines, whatever the borders of the chunks they arrive in. Pure: no system call is made here.
//! Decides what becomes of bytes that are no text, and what ends a line.

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::borrow::Cow;
use std::fmt;

/// What becomes of bytes that the encoding does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorMode {
    /// An error that says where they are. The bytes stay in the [`Output`](crate::Output).
    #[default]
    Strict,
    /// U+FFFD in their place.
    Replace,
    /// They are left out.
    Ignore,
}

/// What becomes of line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Newlines {
    /// They stay as they are; a line ends at `\n`.
    #[default]
    Keep,
    /// `\r\n` and a lone `\r` count as `\n`, as in Python's text mode.
    #[doc(alias = "universal_newlines")]
    Universal,
}

/// How bytes become text: an encoding, what to do with errors, and what to do with line ends.
///
/// ```
/// use procession::{ErrorMode, Newlines, Text};
///
/// let latin = Text::encoding("latin1")?.newlines(Newlines::Universal);
/// assert_eq!(latin.decode(b"caf\xe9\r\n")?, "café\n");
/// assert!(Text::utf8().decode(b"caf\xe9").is_err());
/// assert_eq!(Text::utf8().errors(ErrorMode::Replace).decode(b"caf\xe9")?, "caf\u{fffd}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    encoding: &'static Encoding,
    errors: ErrorMode,
    newlines: Newlines,
}

impl Default for Text {
    fn default() -> Text {
        Text::utf8()
    }
}

impl Text {
    /// UTF-8, strict, line ends kept.
    pub fn utf8() -> Text {
        Text { encoding: UTF_8, errors: ErrorMode::Strict, newlines: Newlines::Keep }
    }

    /// An encoding by a label of the [Encoding Standard](https://encoding.spec.whatwg.org/#names-and-labels), such as
    /// `utf-8`, `latin1`, `shift_jis`, `utf-16le` or `windows-1252`. Case and surrounding space do not matter.
    ///
    /// # Errors
    /// If no encoding has this label.
    pub fn encoding(label: &str) -> Result<Text, UnknownEncoding> {
        match Encoding::for_label(label.as_bytes()) {
            Some(encoding) => Ok(Text { encoding, ..Text::utf8() }),
            None => Err(UnknownEncoding(label.to_owned())),
        }
    }

    /// The name of the encoding, and the rest.
    #[cfg(all(feature = "ipc", target_os = "linux"))]
    pub(crate) fn parts(&self) -> (&'static str, ErrorMode, Newlines) {
        (self.encoding.name(), self.errors, self.newlines)
    }

    /// What becomes of bytes that are no text.
    pub fn errors(self, errors: ErrorMode) -> Text {
        Text { errors, ..self }
    }

    /// What becomes of line ends.
    pub fn newlines(self, newlines: Newlines) -> Text {
        Text { newlines, ..self }
    }

    /// Decodes bytes that are all there.
    ///
    /// # Errors
    /// In strict mode, if bytes are no text in this encoding; also a sequence cut off at the end.
    pub fn decode(&self, bytes: &[u8]) -> Result<String, DecodeError> {
        if self.encoding == UTF_8
            && self.newlines == Newlines::Keep
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Ok(text.to_owned());
        }
        let mut text = String::new();
        let mut decoder = self.decoder();
        decoder.push(bytes, &mut text)?;
        decoder.finish(&mut text)?;
        Ok(text)
    }

    /// Whether a line end cannot be found among the bytes, so that they must be decoded first.
    pub(crate) fn is_cut_as_text(&self) -> bool {
        !self.encoding.is_ascii_compatible()
    }

    /// How the bytes of one line are decoded.
    pub(crate) fn of_line(&self) -> Text {
        let encoding = if self.is_cut_as_text() { UTF_8 } else { self.encoding };
        Text { encoding, newlines: Newlines::Keep, ..*self }
    }

    /// Decodes bytes that are all there, with U+FFFD for what is no text.
    pub(crate) fn decode_lossy<'a>(&self, bytes: &'a [u8]) -> Cow<'a, str> {
        self.encoding.decode_without_bom_handling(bytes).0
    }

    pub(crate) fn line_cutter(&self, size_max: usize) -> LineCutter {
        let lines = LineSplitter::new(self.newlines, size_max);
        let decoder = self.is_cut_as_text().then(|| Text { newlines: Newlines::Keep, ..*self }.decoder());
        LineCutter { lines, decoder, decoded: String::new() }
    }

    pub(crate) fn line_finder(&self, size_max: usize) -> LineFinder {
        let (newlines, size_max) = (self.newlines, size_max.max(1));
        LineFinder { newlines, size_max, begun: 0, scanned: 0, marks: 0, block: 0, after_return: false }
    }

    /// A decoder for bytes that come in chunks.
    pub fn decoder(&self) -> Decoder {
        // A byte order mark belongs to UTF-16, and is text (U+FEFF) elsewhere, as in Python.
        let inner = if self.encoding == UTF_16LE || self.encoding == UTF_16BE {
            self.encoding.new_decoder_with_bom_removal()
        } else {
            self.encoding.new_decoder_without_bom_handling()
        };
        Decoder { inner, text: *self, consumed: 0, after_return: false, scratch: String::new() }
    }
}

/// A label that names no encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEncoding(String);

impl fmt::Display for UnknownEncoding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no such encoding: {:?}", self.0)
    }
}

impl std::error::Error for UnknownEncoding {}

/// Bytes that are no text in the encoding that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    offset: u64,
    encoding: &'static str,
}

impl DecodeError {
    #[cfg(all(feature = "ipc", target_os = "linux"))]
    pub(crate) fn at(offset: u64, encoding: &str) -> Option<DecodeError> {
        Encoding::for_label(encoding.as_bytes()).map(|encoding| DecodeError { offset, encoding: encoding.name() })
    }

    /// Where the first such byte stands, counted from the beginning of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The name of the encoding.
    pub fn encoding(&self) -> &'static str {
        self.encoding
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "byte {} is not {}", self.offset, self.encoding)
    }
}

impl std::error::Error for DecodeError {}

/// Decodes a stream chunk by chunk: a character or a `\r\n` that is cut by a border comes out as if it were not.
///
/// ```
/// use procession::Text;
///
/// let mut decoder = Text::utf8().decoder();
/// let mut text = String::new();
/// for byte in "€".as_bytes() {
///     decoder.push(&[*byte], &mut text)?;
/// }
/// decoder.finish(&mut text)?;
/// assert_eq!(text, "€");
/// # Ok::<(), procession::DecodeError>(())
/// ```
pub struct Decoder {
    inner: encoding_rs::Decoder,
    text: Text,
    /// Bytes taken before the current chunk.
    consumed: u64,
    /// The last character was `\r`, and a `\n` that follows belongs to it.
    after_return: bool,
    scratch: String,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Decoder").field("text", &self.text).field("consumed", &self.consumed).finish()
    }
}

impl Decoder {
    /// Decodes a chunk and appends what is complete to `text`.
    ///
    /// # Errors
    /// In strict mode, if bytes are no text. What came before them has been appended, and the decoder goes on behind them.
    pub fn push(&mut self, chunk: &[u8], text: &mut String) -> Result<(), DecodeError> {
        self.decode(chunk, text, false)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// In strict mode, if the stream ends in the middle of a character.
    pub fn finish(&mut self, text: &mut String) -> Result<(), DecodeError> {
        self.decode(&[], text, true)
    }

    fn decode(&mut self, chunk: &[u8], text: &mut String, last: bool) -> Result<(), DecodeError> {
        let mut rest = chunk;
        let mut first_error = None;
        loop {
            let room = self.inner.max_utf8_buffer_length_without_replacement(rest.len()).unwrap_or(4096);
            self.scratch.clear();
            self.scratch.reserve(room.max(16));
            let (result, read) = self.inner.decode_to_string_without_replacement(rest, &mut self.scratch, last);
            self.consumed += read as u64;
            rest = rest.get(read..).unwrap_or_default();
            self.append(text);
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(bad, after) => match self.text.errors {
                    ErrorMode::Strict => {
                        let behind = u64::from(bad) + u64::from(after);
                        let offset = self.consumed.saturating_sub(behind);
                        let encoding = self.text.encoding.name();
                        first_error.get_or_insert(DecodeError { offset, encoding });
                    }
                    ErrorMode::Replace => {
                        self.after_return = false;
                        text.push(char::REPLACEMENT_CHARACTER);
                    }
                    ErrorMode::Ignore => {}
                },
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn append(&mut self, text: &mut String) {
        match self.text.newlines {
            Newlines::Keep => text.push_str(&self.scratch),
            Newlines::Universal => {
                for character in self.scratch.chars() {
                    match character {
                        '\n' if self.after_return => {}
                        '\r' => text.push('\n'),
                        other => text.push(other),
                    }
                    self.after_return = character == '\r';
                }
            }
        }
    }
}

/// What ended a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineEnd {
    /// A line end, which is not part of the line.
    Newline,
    /// The end of the stream: the last line had no line end.
    Stream,
    /// The line had reached the greatest size; the rest follows as the next line.
    Size,
}

/// Cuts a stream into lines, whatever the borders of the chunks.
///
/// A line that lies within one chunk is handed out as a slice of that chunk, without a copy. A line longer than `size_max`
/// bytes is handed out in pieces, so memory is bounded.
///
/// ```
/// use procession::{LineSplitter, Newlines};
///
/// let mut lines = Vec::new();
/// let mut splitter = LineSplitter::new(Newlines::Universal, 1024);
/// splitter.push(b"one\r", |line, _| lines.push(line.to_vec()));
/// splitter.push(b"\ntwo\nthr", |line, _| lines.push(line.to_vec()));
/// splitter.finish(|line, _| lines.push(line.to_vec()));
/// assert_eq!(lines, [&b"one"[..], b"two", b"thr"]);
/// ```
#[derive(Clone, Debug)]
pub struct LineSplitter {
    newlines: Newlines,
    size_max: usize,
    begun: Vec<u8>,
    after_return: bool,
}

impl LineSplitter {
    /// For lines of at most `size_max` bytes (at least 1).
    pub fn new(newlines: Newlines, size_max: usize) -> LineSplitter {
        LineSplitter { newlines, size_max: size_max.max(1), begun: Vec::new(), after_return: false }
    }

    /// Takes a chunk and hands out the lines that it completes.
    pub fn push(&mut self, chunk: &[u8], line: impl FnMut(&[u8], LineEnd)) {
        match self.newlines {
            Newlines::Keep => self.cut::<false>(chunk, line),
            Newlines::Universal => self.cut::<true>(chunk, line),
        }
    }

    fn cut<const RETURNS: bool>(&mut self, chunk: &[u8], mut line: impl FnMut(&[u8], LineEnd)) {
        // The first half of a `\r\n` was the end of the chunk before.
        let mut start = usize::from(self.after_return && chunk.starts_with(b"\n"));
        self.after_return &= chunk.is_empty();
        // But for the first line, what stands between two ends is a line, unless it may be too long.
        let whole = chunk.len() <= self.size_max;
        let mut plain = whole && self.begun.is_empty();
        for_each_end::<RETURNS>(chunk, |place| {
            // The second half of a `\r\n` ends no line of its own.
            let Some(head) = chunk.get(start..place) else { return };
            if plain {
                line(head, LineEnd::Newline);
            } else {
                self.complete(head, &mut line);
                plain = whole;
            }
            start = place + 1;
            if RETURNS && chunk.get(place) == Some(&b'\r') {
                match chunk.get(start) {
                    Some(b'\n') => start += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
        });
        self.begin(chunk.get(start..).unwrap_or_default(), &mut line);
    }

    /// Ends the stream and hands out the last line if it had no line end.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8], LineEnd)) {
        if !self.begun.is_empty() {
            line(&self.begun, LineEnd::Stream);
            self.begun.clear();
        }
        self.after_return = false;
    }

    fn complete(&mut self, head: &[u8], line: &mut impl FnMut(&[u8], LineEnd)) {
        self.begin(head, line);
        line(&self.begun, LineEnd::Newline);
        self.begun.clear();
    }

    /// Keeps the beginning of a line; hands out what exceeds the greatest size.
    fn begin(&mut self, mut bytes: &[u8], line: &mut impl FnMut(&[u8], LineEnd)) {
        while self.begun.len() + bytes.len() > self.size_max {
            let (head, tail) = bytes.split_at(self.size_max - self.begun.len());
            self.begun.extend_from_slice(head);
            line(&self.begun, LineEnd::Size);
            self.begun.clear();
            bytes = tail;
        }
        self.begun.extend_from_slice(bytes);
    }
}

/// Cuts a stream into lines; where a line end cannot be found among the bytes they are decoded first.
pub(crate) struct LineCutter {
    lines: LineSplitter,
    decoder: Option<Decoder>,
    decoded: String,
}

impl LineCutter {
    pub(crate) fn push(&mut self, chunk: &[u8], line: impl FnMut(&[u8], LineEnd)) -> Result<(), DecodeError> {
        let Some(decoder) = &mut self.decoder else {
            self.lines.push(chunk, line);
            return Ok(());
        };
        self.decoded.clear();
        let decoded = decoder.push(chunk, &mut self.decoded);
        self.lines.push(self.decoded.as_bytes(), line);
        decoded
    }

    pub(crate) fn finish(&mut self, mut line: impl FnMut(&[u8], LineEnd)) -> Result<(), DecodeError> {
        let mut result = Ok(());
        if let Some(decoder) = &mut self.decoder {
            self.decoded.clear();
            result = decoder.finish(&mut self.decoded);
            self.lines.push(self.decoded.as_bytes(), &mut line);
        }
        self.lines.finish(line);
        result
    }
}

/// Finds lines in a buffer that grows at its end and loses what was taken at its beginning; nothing is looked at twice.
#[derive(Clone, Debug)]
pub(crate) struct LineFinder {
    newlines: Newlines,
    size_max: usize,
    /// Where the line begins whose end was not found yet.
    begun: usize,
    scanned: usize,
    /// The ends in the block at `block`, which was looked through last, that were not come to yet.
    marks: u64,
    block: usize,
    after_return: bool,
}

/// A line in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) how: LineEnd,
}

impl LineFinder {
    /// Whether a part of the buffer was not looked through, or the end of it is still to be told.
    pub(crate) fn has_more(&self, bytes: &[u8], ended: bool) -> bool {
        self.scanned < bytes.len() || (ended && self.begun < bytes.len())
    }

    /// The next line that is complete. `ended`: the buffer does not grow any more.
    #[inline]
    pub(crate) fn next(&mut self, bytes: &[u8], ended: bool) -> Option<Cut> {
        // For most lines that is all.
        if self.newlines == Newlines::Keep && (self.marks != 0 || self.go_on(bytes)) {
            let end = self.block + self.marks.trailing_zeros() as usize;
            if end - self.begun <= self.size_max {
                self.marks &= self.marks - 1;
                return Some(self.cut(end, end + 1, LineEnd::Newline));
            }
        }
        self.look(bytes, ended)
    }

    /// Looks through one more whole block. Whether an end is in it.
    #[inline(never)]
    fn go_on(&mut self, bytes: &[u8]) -> bool {
        if let Some(block) = bytes.get(self.scanned..).and_then(<[u8]>::first_chunk) {
            (self.marks, self.block) = (marks(block, b'\n'), self.scanned);
            self.scanned += BLOCK;
        }
        self.marks != 0
    }

    fn look(&mut self, bytes: &[u8], ended: bool) -> Option<Cut> {
        if self.after_return && self.begun < bytes.len() {
            self.after_return = false;
            if bytes.get(self.begun) == Some(&b'\n') {
                self.begun += 1;
                self.scanned = self.scanned.max(self.begun);
            }
        }
        loop {
            let is_marked = self.marks != 0;
            let end = if is_marked { self.block + self.marks.trailing_zeros() as usize } else { self.scanned };
            if end.saturating_sub(self.begun) > self.size_max {
                let end = self.begun + self.size_max;
                return Some(self.cut(end, end, LineEnd::Size));
            }
            if is_marked {
                self.marks &= self.marks - 1;
                // The second half of a `\r\n` ends no line of its own.
                if end < self.begun {
                    continue;
                }
                let mut next = end + 1;
                if self.newlines == Newlines::Universal && bytes.get(end) == Some(&b'\r') {
                    match bytes.get(next) {
                        Some(b'\n') => next += 1,
                        Some(_) => {}
                        None => self.after_return = true,
                    }
                }
                return Some(self.cut(end, next, LineEnd::Newline));
            }
            let mut space = [0; BLOCK];
            let (block, count) = first_block(bytes.get(self.scanned..).unwrap_or_default(), &mut space);
            if count == 0 {
                let rests = ended && self.begun < bytes.len();
                return rests.then(|| self.cut(bytes.len(), bytes.len(), LineEnd::Stream));
            }
            self.marks = marks(block, b'\n');
            if self.newlines == Newlines::Universal {
                self.marks |= marks(block, b'\r');
            }
            self.block = self.scanned;
            self.scanned += count;
        }
    }

    #[inline]
    fn cut(&mut self, end: usize, next: usize, how: LineEnd) -> Cut {
        Cut { start: std::mem::replace(&mut self.begun, next), end, how }
    }

    /// Whether the last line that was found ended with a `\r`, and a `\n` that comes next belongs to it.
    pub(crate) fn is_after_return(&self) -> bool {
        self.after_return
    }

    /// What stands before the next line is taken from the buffer; returns how much that is.
    pub(crate) fn forget(&mut self) -> usize {
        // What was seen and not come to is looked at again.
        let seen = if std::mem::take(&mut self.marks) == 0 { self.scanned.saturating_sub(self.begun) } else { 0 };
        self.scanned = seen;
        std::mem::take(&mut self.begun)
    }
}

/// Calls `found` with the place of each `\n`, and `\r` if it is wanted. Many bytes are looked at together: for the short lines that
/// programs write this beats a search that starts anew behind every line.
#[inline]
fn for_each_end<const RETURNS: bool>(bytes: &[u8], mut found: impl FnMut(usize)) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut space = [0; BLOCK];
    let (last, _) = first_block(rest, &mut space);
    for place in 0..blocks.len() + 1 {
        let block = blocks.get(place).unwrap_or(last);
        let mut marks = marks(block, b'\n');
        if RETURNS {
            marks |= self::marks(block, b'\r');
        }
        while marks != 0 {
            found(place * BLOCK + marks.trailing_zeros() as usize);
            marks &= marks - 1;
        }
    }
}

/// As many bytes as a word has bits.
const BLOCK: usize = 64;

/// The bytes at the beginning, and how many they are. What is missing is filled with a byte that ends no line, in `space`.
#[inline]
fn first_block<'a>(bytes: &'a [u8], space: &'a mut [u8; BLOCK]) -> (&'a [u8; BLOCK], usize) {
    if let Some(block) = bytes.first_chunk() {
        return (block, BLOCK);
    }
    space.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    (space, bytes.len())
}

/// A bit for each byte that equals `byte`, the lowest for the first. Eight bytes are looked at in one word.
#[inline]
fn marks(block: &[u8; BLOCK], byte: u8) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const LOW: u64 = ONES * 0x7f;
    let (words, _) = block.as_chunks::<8>();
    words.iter().rev().fold(0, |marks, word| {
        // A byte is zero here if it is the one looked for; adding to the low seven bits cannot carry into the next byte.
        let difference = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        let highest = !(((difference & LOW) + LOW) | difference | LOW);
        // Each bit of the factor moves the bit of one byte to its place in the highest byte, and no two meet.
        marks << 8 | ((highest >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut `bytes` in two or three chunks.
    fn chunkings(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
        let mut all = vec![vec![bytes], bytes.chunks(1).collect()];
        for one in 0..=bytes.len() {
            for two in one..=bytes.len() {
                all.push(vec![&bytes[..one], &bytes[one..two], &bytes[two..]]);
            }
        }
        all
    }

    fn decode(text: Text, chunks: &[&[u8]]) -> Result<String, DecodeError> {
        let (mut decoder, mut out) = (text.decoder(), String::new());
        for chunk in chunks {
            decoder.push(chunk, &mut out)?;
        }
        decoder.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn borders_of_chunks_do_not_matter() {
        let universal = Text::utf8().newlines(Newlines::Universal);
        let utf16 = Text::encoding("utf-16le").unwrap();
        let sixteen: Vec<u8> = "\u{feff}a😀é".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: [(Text, &[u8], &str); 5] = [
            (Text::utf8(), "€😀é\r\n".as_bytes(), "€😀é\r\n"),
            (universal, b"a\r\nb\rc\n\r\r\nd", "a\nb\nc\n\n\nd"),
            (utf16, &sixteen, "a😀é"),
            (Text::utf8().errors(ErrorMode::Replace), b"a\xff\xe2\x82", "a\u{fffd}\u{fffd}"),
            (Text::utf8().errors(ErrorMode::Ignore), b"a\xffb\xe2\x82", "ab"),
        ];
        for (text, bytes, expected) in cases {
            for chunks in chunkings(bytes) {
                assert_eq!(decode(text, &chunks).as_deref(), Ok(expected), "{chunks:?}");
            }
            assert_eq!(text.decode(bytes).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn an_error_says_where() {
        for (bytes, offset) in [(&b"ab\xffcd"[..], 2), (b"abc\xe2\x82", 3), (b"\xc0\x80", 0), (b"a\xe2\x28\xa1", 1)] {
            for chunks in chunkings(bytes) {
                assert_eq!(decode(Text::utf8(), &chunks).unwrap_err().offset(), offset, "{chunks:?}");
            }
        }
    }

    #[test]
    fn strict_decoding_goes_on_behind_the_error() {
        let (mut decoder, mut out) = (Text::utf8().decoder(), String::new());
        assert!(decoder.push(b"a\xffb\xfe", &mut out).is_err());
        decoder.push(b"c", &mut out).unwrap();
        assert_eq!(out, "abc");
    }

    #[test]
    fn unknown_labels_are_named() {
        let error = Text::encoding("klingon-8").unwrap_err();
        assert_eq!(error.to_string(), "no such encoding: \"klingon-8\"");
    }

    fn split(newlines: Newlines, size_max: usize, chunks: &[&[u8]]) -> Vec<(Vec<u8>, LineEnd)> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(newlines, size_max);
        for chunk in chunks {
            splitter.push(chunk, |line, end| lines.push((line.to_vec(), end)));
        }
        splitter.finish(|line, end| lines.push((line.to_vec(), end)));
        lines
    }

    /// As `split`, by a finder over a buffer that grows chunk by chunk; what was found is taken each time, or left.
    fn find(newlines: Newlines, size_max: usize, chunks: &[&[u8]], takes: bool) -> Vec<(Vec<u8>, LineEnd)> {
        let mut finder = Text::utf8().newlines(newlines).line_finder(size_max);
        let (mut buffer, mut lines) = (Vec::new(), Vec::new());
        for place in 0..=chunks.len() {
            let ended = place == chunks.len();
            buffer.extend_from_slice(chunks.get(place).unwrap_or(&&[][..]));
            while let Some(cut) = finder.next(&buffer, ended) {
                lines.push((buffer[cut.start..cut.end].to_vec(), cut.how));
            }
            assert!(!finder.has_more(&buffer, ended));
            if takes {
                buffer.drain(..finder.forget());
            }
        }
        lines
    }

    /// The plainest way to cut lines.
    fn naive(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines
    }

    #[test]
    fn lines_of_any_length_and_any_byte_are_found() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        for _ in 0..200 {
            let mut bytes = Vec::new();
            while bytes.len() < 20_000 {
                let length = random() % [3, 20, 9000][random() % 3];
                // Neighbours of `\n` and bytes with the highest bit must not be mistaken for one.
                bytes.extend((0..length).map(|_| [b'\t', 0x0b, 0x8a, 0xff, b'\r', b'x'][random() % 6]));
                bytes.push(b'\n');
            }
            bytes.truncate(random() % bytes.len());
            let border = random() % (bytes.len() + 1);
            let chunks = [&bytes[..border], &bytes[border..]];
            let expected = naive(&bytes);
            let lines = |lines: Vec<(Vec<u8>, LineEnd)>| lines.into_iter().map(|(line, _)| line).collect::<Vec<_>>();
            assert_eq!(lines(split(Newlines::Keep, 1 << 20, &chunks)), expected);
            assert_eq!(lines(find(Newlines::Keep, 1 << 20, &chunks, true)), expected);
            // Two ways to cut agree about lines that are too long.
            for (newlines, size_max) in [(Newlines::Keep, 7), (Newlines::Keep, 64), (Newlines::Universal, 100)] {
                let cut = split(newlines, size_max, &chunks);
                assert!(cut == find(newlines, size_max, &chunks, true), "{newlines:?} {size_max}");
                assert!(cut == find(newlines, size_max, &chunks, false), "{newlines:?} {size_max}");
            }
        }
    }

    #[test]
    fn lines_do_not_depend_on_borders() {
        use LineEnd::{Newline, Size, Stream};
        type Case = (Newlines, usize, &'static [u8], &'static [(&'static [u8], LineEnd)]);
        let cases: [Case; 6] = [
            (Newlines::Keep, 99, b"a\nbc\n\nd", &[(b"a", Newline), (b"bc", Newline), (b"", Newline), (b"d", Stream)]),
            (Newlines::Keep, 99, b"a\r\nb\r", &[(b"a\r", Newline), (b"b\r", Stream)]),
            (
                Newlines::Universal,
                99,
                b"a\r\nb\rc\n\r",
                &[(b"a", Newline), (b"b", Newline), (b"c", Newline), (b"", Newline)],
            ),
            (
                Newlines::Keep,
                3,
                b"abcdefg\nabc\n",
                &[(b"abc", Size), (b"def", Size), (b"g", Newline), (b"abc", Newline)],
            ),
            (Newlines::Keep, 99, b"", &[]),
            (Newlines::Universal, 99, b"\r\n", &[(b"", Newline)]),
        ];
        for (newlines, size_max, bytes, expected) in cases {
            let expected: Vec<(Vec<u8>, LineEnd)> = expected.iter().map(|(line, end)| (line.to_vec(), *end)).collect();
            for chunks in chunkings(bytes) {
                assert_eq!(split(newlines, size_max, &chunks), expected, "{chunks:?}");
                assert_eq!(find(newlines, size_max, &chunks, true), expected, "{chunks:?}");
                assert_eq!(find(newlines, size_max, &chunks, false), expected, "{chunks:?}");
            }
        }
    }
}
