//! Walks along one chain ahead of its session.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zeroize::Zeroize;

use super::{Link, Mark, Shared};
use crate::limits;
use crate::mppe::rc4::{self, LANES_MAX, Packets};
use crate::mppe::rekey::KeySchedule;

/// Fills the links of one direction of a session.
pub struct Preparer {
    shared: Arc<Shared>,
    schedule: KeySchedule,
    mark: Mark,
    rest: Option<Rest>,
}

/// When it was found that the session is ahead, and where.
struct Rest {
    since_ms: u64,
    passed: u64,
}

/// What came of a try to prepare links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// All links are full.
    Nothing,
    /// The session is too fast: it is worth another try in `limits::PREPARER_REST_MS`.
    Resting,
    /// There may be more to do.
    Some,
}

impl Preparer {
    pub(super) const fn new(shared: Arc<Shared>, schedule: KeySchedule, mark: Mark) -> Self {
        Self {
            shared,
            schedule,
            mark,
            rest: None,
        }
    }

    /// Whether the session is still there.
    pub(super) fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// Fills as many links as are filled abreast.
    pub(super) fn prepare(&mut self, now_ms: u64) -> Progress {
        if self.shared.free.len() < LANES_MAX {
            return Progress::Nothing;
        }
        if self.must_rest(now_ms) {
            return Progress::Resting;
        }
        self.catch_up();
        let mut links = Links(std::array::from_fn(|_| {
            let mut link = self.shared.free.pop()?;
            self.step();
            link.mark = self.mark;
            link.stream.fill(0);
            Some(link)
        }));
        rc4::encipher(&mut links);
        for link in links.0.into_iter().flatten() {
            // There are no more links than the queue has room for.
            let _ = self.shared.ready.push(link);
        }
        Progress::Some
    }

    fn must_rest(&mut self, now_ms: u64) -> bool {
        let passed = self.shared.passed.load(Ordering::Relaxed);
        if passed <= self.mark.index {
            self.rest = None;
            return false;
        }
        let is_fast = match &self.rest {
            Some(rest) if now_ms < rest.since_ms + limits::PREPARER_REST_MS => return true,
            Some(rest) => passed - rest.passed > limits::PREPARED_PACKETS as u64 / 2,
            None => true,
        };
        self.rest = is_fast.then_some(Rest {
            since_ms: now_ms,
            passed,
        });
        is_fast
    }

    /// Goes where the session is, when it is ahead.
    fn catch_up(&mut self) {
        if let Some(mark) = self.shared.overtaken.pop()
            && mark.index > self.mark.index
        {
            self.mark = mark;
        }
        while self.mark.index < self.shared.passed.load(Ordering::Relaxed) {
            self.step();
        }
    }

    fn step(&mut self) {
        self.mark.key = self.schedule.next(&self.mark.key);
        self.mark.index += 1;
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.mark.zeroize();
        self.shared.workshop.leave();
    }
}

impl std::fmt::Debug for Preparer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Preparer(<hidden>)")
    }
}

/// Streams of zeros, which become key streams.
struct Links([Option<Box<Link>>; LANES_MAX]);

impl Packets for Links {
    fn count(&self) -> usize {
        LANES_MAX
    }

    fn key(&self, index: usize) -> &[u8; 16] {
        match &self.0[index] {
            Some(link) => link.mark.key.as_bytes(),
            None => &[0; 16],
        }
    }

    fn text(&mut self, index: usize) -> &mut [u8] {
        match &mut self.0[index] {
            Some(link) => &mut link.stream,
            None => &mut [],
        }
    }
}
