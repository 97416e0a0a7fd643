//! Who looks on and shows what comes: as lines, as text, or as it is.

use super::Line;
use crate::communicate::{Talk, Watch};
use crate::error::Error;
use crate::output::{Output, Stream};
use crate::text::{DecodeError, Decoder, LineCutter, Text};
use std::ops::ControlFlow;

/// Whoever looks on has seen what was read before, and may have seen enough.
pub(crate) struct Begun<'a, W: ?Sized> {
    pub(crate) watch: &'a mut W,
    pub(crate) flow: ControlFlow<()>,
}

impl<W: Watch + ?Sized> Watch for Begun<'_, W> {
    fn see(&mut self, place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        self.watch.see(place, stream, bytes)
    }

    fn end(&mut self, place: usize, stream: Stream) -> ControlFlow<()> {
        self.watch.end(place, stream)
    }

    fn look(&mut self, talks: &mut [Talk<'_>]) -> ControlFlow<()> {
        for talk in &mut *talks {
            talk.state.has_seen_enough |= self.flow.is_break();
        }
        self.watch.look(talks)
    }
}

/// Cuts what it sees into lines.
pub(crate) struct ShowLines<F> {
    text: Text,
    line_max: usize,
    cutters: Vec<[LineCutter; 2]>,
    show: F,
    flow: ControlFlow<()>,
    failure: Option<DecodeError>,
}

impl<F: FnMut(Line<'_>) -> ControlFlow<()>> ShowLines<F> {
    pub(crate) fn new(text: Text, line_max: usize, show: F) -> ShowLines<F> {
        ShowLines { text, line_max, cutters: Vec::new(), show, flow: ControlFlow::Continue(()), failure: None }
    }

    /// The result of the run, or what was wrong with the text.
    pub(crate) fn result(self, result: Result<Output, Error>) -> Result<Output, Error> {
        failed_text(self.failure, result)
    }

    fn cut(&mut self, stage: usize, stream: Stream, bytes: Option<&[u8]>) -> ControlFlow<()> {
        let (text, line_max) = (self.text, self.line_max);
        if self.cutters.len() <= stage {
            self.cutters.resize_with(stage + 1, || [text.line_cutter(line_max), text.line_cutter(line_max)]);
        }
        let Some([stdout, stderr]) = self.cutters.get_mut(stage) else { return self.flow };
        let cutter = if stream == Stream::Stdout { stdout } else { stderr };
        let (show, flow) = (&mut self.show, &mut self.flow);
        let each = |bytes: &[u8], end| {
            if flow.is_continue() {
                *flow = show(Line { stage, stream, bytes, end, text });
            }
        };
        let cut = match bytes {
            Some(bytes) => cutter.push(bytes, each),
            None => cutter.finish(each),
        };
        if let Err(error) = cut {
            self.failure.get_or_insert(error);
            self.flow = ControlFlow::Break(());
        }
        self.flow
    }
}

impl<F: FnMut(Line<'_>) -> ControlFlow<()>> Watch for ShowLines<F> {
    fn see(&mut self, place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        self.cut(place, stream, Some(bytes))
    }

    fn end(&mut self, place: usize, stream: Stream) -> ControlFlow<()> {
        self.cut(place, stream, None)
    }
}

pub(crate) struct ShowChunks<F>(pub(crate) F);

impl<F: FnMut(Stream, &[u8])> Watch for ShowChunks<F> {
    fn see(&mut self, _place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        (self.0)(stream, bytes);
        ControlFlow::Continue(())
    }
}

/// Decodes what it sees.
pub(crate) struct ShowText<F> {
    text: Text,
    decoders: Vec<[Decoder; 2]>,
    decoded: String,
    show: F,
    failure: Option<DecodeError>,
}

impl<F: FnMut(Stream, &str)> ShowText<F> {
    pub(crate) fn new(text: Text, show: F) -> ShowText<F> {
        ShowText { text, decoders: Vec::new(), decoded: String::new(), show, failure: None }
    }

    pub(crate) fn result(self, result: Result<Output, Error>) -> Result<Output, Error> {
        failed_text(self.failure, result)
    }

    fn decode(&mut self, stage: usize, stream: Stream, bytes: Option<&[u8]>) -> ControlFlow<()> {
        let text = self.text;
        if self.decoders.len() <= stage {
            self.decoders.resize_with(stage + 1, || [text.decoder(), text.decoder()]);
        }
        let Some([stdout, stderr]) = self.decoders.get_mut(stage).filter(|_| self.failure.is_none()) else {
            return ControlFlow::Break(());
        };
        let decoder = if stream == Stream::Stdout { stdout } else { stderr };
        self.decoded.clear();
        let decoded = match bytes {
            Some(bytes) => decoder.push(bytes, &mut self.decoded),
            None => decoder.finish(&mut self.decoded),
        };
        if !self.decoded.is_empty() {
            (self.show)(stream, &self.decoded);
        }
        self.failure = decoded.err();
        if self.failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl<F: FnMut(Stream, &str)> Watch for ShowText<F> {
    fn see(&mut self, place: usize, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        self.decode(place, stream, Some(bytes))
    }

    fn end(&mut self, place: usize, stream: Stream) -> ControlFlow<()> {
        self.decode(place, stream, None)
    }
}

/// What was wrong with the text ends the run, and is what matters.
fn failed_text(failure: Option<DecodeError>, result: Result<Output, Error>) -> Result<Output, Error> {
    match failure {
        None => result,
        Some(failure) => Err(Error::from(failure).with_output(result.unwrap_or_else(Error::into_output))),
    }
}
