//! Output that waits for its turn: whose turn it is, and where it is kept meanwhile, in memory or in a file without a name.
//! What it looks like, and where it goes, is decided by `print`.

use super::done::TaskId;
use crate::output::Stream;
use crate::sys::fd;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is shown: to which stream, and whether it is a line of ours that must begin on a fresh line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) stream: Stream,
    pub(super) is_own_line: bool,
}

/// Where output goes when its turn has come.
pub(super) type Show<'a> = dyn FnMut(Kind, &[u8]) -> io::Result<()> + 'a;

/// The output of tasks in the order of their submission. The first one that has not ended is shown as it comes; the others wait.
/// Services are not waited for: what they write is held until they have ended.
#[derive(Debug, Default)]
pub(super) struct Order {
    tasks: BTreeMap<TaskId, Waiting>,
    live: Option<TaskId>,
    store: Store,
}

#[derive(Debug, Default)]
struct Waiting {
    pages: Vec<Page>,
    has_ended: bool,
    is_service: bool,
}

impl Order {
    /// A task was submitted.
    pub(super) fn add(&mut self, id: TaskId, is_service: bool) {
        self.tasks.entry(id).or_default().is_service = is_service;
        if self.live.is_none() {
            self.live = self.first();
        }
    }

    /// Shows what a task has written, or keeps it until its turn.
    pub(super) fn give(&mut self, id: TaskId, kind: Kind, bytes: &[u8], show: &mut Show<'_>) -> io::Result<()> {
        if !self.tasks.contains_key(&id) {
            self.add(id, false);
        }
        if self.live == Some(id) {
            return show(kind, bytes);
        }
        let mut kind = kind;
        for part in bytes.chunks(PART_MAX) {
            if let Some(task) = self.tasks.get_mut(&id) {
                self.store.in_memory += push(&mut task.pages, kind, part);
            }
            // The rest of a long line.
            kind.is_own_line = false;
            if self.store.in_memory > MEMORY_MAX {
                let pages = self.tasks.values_mut().map(|task| &mut task.pages);
                self.store.move_out(pages)?;
            }
        }
        Ok(())
    }

    /// A task has ended. Shows what was held up by it.
    pub(super) fn end(&mut self, id: TaskId, show: &mut Show<'_>) -> io::Result<()> {
        let task = self.tasks.entry(id).or_default();
        // A service that has ended has its turn as everybody else.
        (task.has_ended, task.is_service) = (true, false);
        if self.live == Some(id) {
            self.live = None;
        }
        while self.live.is_none()
            && let Some(first) = self.first()
        {
            let Some(task) = self.tasks.get_mut(&first) else { break };
            let (pages, has_ended) = (std::mem::take(&mut task.pages), task.has_ended);
            if has_ended {
                self.tasks.remove(&first);
            } else {
                self.live = Some(first);
            }
            self.store.show(pages, show)?;
        }
        Ok(())
    }

    /// The first task whose turn it can be.
    fn first(&self) -> Option<TaskId> {
        self.tasks.iter().find(|(_, task)| !task.is_service).map(|(id, _)| *id)
    }
}

/// So much is held in memory, of all tasks together.
const MEMORY_MAX: usize = if cfg!(test) { 4 * PAGE_MAX } else { 16 * 1024 * 1024 };

/// The size of a page: of what is read back from the file at a time.
const PAGE_MAX: usize = if cfg!(test) { 64 } else { 64 * 1024 };

/// The longest record, its head not counted.
const PART_MAX: usize = PAGE_MAX / 2;

/// A row of records. Each has a head of three bytes: the kind, and the length.
#[derive(Debug)]
enum Page {
    Memory {
        bytes: Vec<u8>,
        /// Where the last record begins.
        last: usize,
    },
    File {
        number: u64,
        length: usize,
    },
}

const HEAD: usize = 3;

/// Adds a record, or makes the last one longer. Returns how much memory that took.
fn push(pages: &mut Vec<Page>, kind: Kind, part: &[u8]) -> usize {
    if let Some(Page::Memory { bytes, last }) = pages.last_mut() {
        let length = bytes.len().saturating_sub(*last + HEAD) + part.len();
        if !kind.is_own_line && length <= PART_MAX && bytes.len() + part.len() <= PAGE_MAX {
            let is_same = bytes.get(*last) == Some(&tag(kind));
            if is_same && let Some(head) = bytes.get_mut(*last..).and_then(|rest| rest.first_chunk_mut()) {
                *head = head_of(kind, length);
                bytes.extend_from_slice(part);
                return part.len();
            }
        }
        if bytes.len() + HEAD + part.len() <= PAGE_MAX {
            *last = bytes.len();
            bytes.extend_from_slice(&head_of(kind, part.len()));
            bytes.extend_from_slice(part);
            return HEAD + part.len();
        }
    }
    let bytes = [&head_of(kind, part.len())[..], part].concat();
    let length = bytes.len();
    pages.push(Page::Memory { bytes, last: 0 });
    length
}

fn tag(kind: Kind) -> u8 {
    u8::from(kind.stream == Stream::Stderr) | u8::from(kind.is_own_line) << 1
}

fn head_of(kind: Kind, length: usize) -> [u8; HEAD] {
    let [low, high, ..] = length.to_le_bytes();
    [tag(kind), low, high]
}

/// Shows the records of a page.
fn show_page(mut bytes: &[u8], show: &mut Show<'_>) -> io::Result<()> {
    while let Some((&[tag, low, high], rest)) = bytes.split_first_chunk() {
        let Some((part, behind)) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high]))) else { break };
        let stream = if tag & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
        show(Kind { stream, is_own_line: tag & 2 != 0 }, part)?;
        bytes = behind;
    }
    Ok(())
}

/// The file of pages that memory has no room for. Numbers of pages that were shown are used again.
#[derive(Debug, Default)]
struct Store {
    in_memory: usize,
    file: Option<File>,
    free: Vec<u64>,
    count: u64,
}

impl Store {
    /// Moves all pages that are in memory to the file.
    fn move_out<'a>(&mut self, all: impl Iterator<Item = &'a mut Vec<Page>>) -> io::Result<()> {
        for pages in all {
            // Those in memory are the last ones.
            for page in pages.iter_mut().rev() {
                let Page::Memory { bytes, .. } = page else { break };
                let length = bytes.len();
                let number = self.put(bytes)?;
                *page = Page::File { number, length };
                self.in_memory = self.in_memory.saturating_sub(length);
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let number = self.free.pop().unwrap_or(self.count);
        self.count = self.count.max(number + 1);
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(fd::unnamed(&std::env::temp_dir())?),
        };
        fd::without_signals(|| file.write_all_at(bytes, place_of(number)))?;
        Ok(number)
    }

    /// Shows pages, and gives back what they took.
    fn show(&mut self, pages: Vec<Page>, show: &mut Show<'_>) -> io::Result<()> {
        let mut space = Vec::new();
        for page in pages {
            match page {
                Page::Memory { bytes, .. } => {
                    self.in_memory = self.in_memory.saturating_sub(bytes.len());
                    show_page(&bytes, show)?;
                }
                Page::File { number, length } => {
                    space.resize(length, 0);
                    if let Some(file) = &self.file {
                        file.read_exact_at(&mut space, place_of(number))?;
                    }
                    self.free.push(number);
                    show_page(&space, show)?;
                }
            }
        }
        self.shrink()
    }

    /// A file in which nothing waits gives its room back to the disk.
    fn shrink(&mut self) -> io::Result<()> {
        if self.count > 0 && self.free.len() as u64 == self.count {
            self.free.clear();
            self.count = 0;
            return self.file.as_ref().map_or(Ok(()), |file| file.set_len(0));
        }
        Ok(())
    }
}

fn place_of(number: u64) -> u64 {
    number.saturating_mul(PAGE_MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Numbers that do not look like any, the same in every run.
    pub(super) struct Dice(pub(super) u64);

    impl Dice {
        pub(super) fn below(&mut self, count: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % count
        }
    }

    type Shown = Vec<(Kind, Vec<u8>)>;

    fn into(shown: &mut Shown) -> impl FnMut(Kind, &[u8]) -> io::Result<()> {
        |kind, bytes| {
            match shown.last_mut() {
                Some((last, before)) if *last == kind && !kind.is_own_line => before.extend_from_slice(bytes),
                _ => shown.push((kind, bytes.to_vec())),
            }
            Ok(())
        }
    }

    fn kind(number: usize) -> Kind {
        let stream = if number & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
        Kind { stream, is_own_line: number == 2 }
    }

    /// Against a list for each task, which are put behind each other at the end.
    #[test]
    fn any_output_comes_in_the_order_of_submission_whatever_is_held() {
        let mut most_moved_out = 0;
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let (mut order, mut shown) = (Order::default(), Shown::new());
            let count = 1 + dice.below(6);
            let mut model: Vec<Shown> = vec![Shown::new(); count];
            let mut running: Vec<usize> = (0..count).collect();
            let mut announced = 0;
            while !running.is_empty() {
                let task = running[dice.below(running.len())];
                // The next one may come as a surprise, those behind it not.
                if task > announced || dice.below(3) == 0 {
                    if announced < count {
                        order.add(TaskId(announced as u64), false);
                        announced += 1;
                    }
                    continue;
                }
                announced = announced.max(task + 1);
                if dice.below(10) == 0 {
                    running.retain(|other| *other != task);
                    order.end(TaskId(task as u64), &mut into(&mut shown)).unwrap();
                    continue;
                }
                let bytes: Vec<u8> = (0..1 + dice.below(3 * PAGE_MAX)).map(|_| dice.below(256) as u8).collect();
                let kind = if bytes.len() <= PART_MAX { kind(dice.below(3)) } else { kind(dice.below(2)) };
                into(&mut model[task])(kind, &bytes).unwrap();
                order.give(TaskId(task as u64), kind, &bytes, &mut into(&mut shown)).unwrap();
                assert!(order.store.in_memory <= MEMORY_MAX);
                most_moved_out = most_moved_out.max(order.store.count);
            }
            let mut expected = Shown::new();
            for (kind, bytes) in model.concat() {
                into(&mut expected)(kind, &bytes).unwrap();
            }
            assert!(shown == expected, "seed {seed}");
            assert!(order.tasks.is_empty() && order.store.in_memory == 0 && order.store.count == 0);
            assert_eq!(order.store.file.map_or(0, |file| file.metadata().unwrap().len()), 0);
        }
        assert!(most_moved_out > 20);
    }

    #[test]
    fn pages_that_were_shown_are_used_again() {
        let (mut order, mut shown) = (Order::default(), Shown::new());
        (0..1000).for_each(|task| order.add(TaskId(task), false));
        let mut numbers = BTreeSet::new();
        for task in 1..1000 {
            // Two tasks are always held, so the file is never empty.
            for _ in 0..20 {
                order.give(TaskId(task), kind(0), &[b'x'; PAGE_MAX], &mut into(&mut shown)).unwrap();
            }
            if task > 2 {
                order.end(TaskId(task - 3), &mut into(&mut shown)).unwrap();
            }
            numbers.insert(order.store.count);
        }
        assert!(numbers.last() < Some(&200), "{numbers:?}");
    }

    #[test]
    fn a_service_holds_up_nobody_and_has_its_turn_when_it_has_ended() {
        let (mut order, mut shown) = (Order::default(), Shown::new());
        let mut give = |order: &mut Order, task, text: &str| {
            order.give(TaskId(task), kind(0), text.as_bytes(), &mut into(&mut shown)).unwrap();
        };
        order.add(TaskId(0), true);
        order.add(TaskId(1), false);
        order.add(TaskId(2), false);
        order.add(TaskId(3), true);
        give(&mut order, 0, "early service\n");
        give(&mut order, 3, "late service\n");
        give(&mut order, 2, "two\n");
        give(&mut order, 1, "one\n");
        for task in [0, 1, 2, 3] {
            order.end(TaskId(task), &mut into(&mut shown)).unwrap();
        }
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].1, b"one\nearly service\ntwo\nlate service\n");
    }
}
