//! Where preparers work, and how sessions call them.
//!
//! A worker calls once in a turn at most, and only when links have become free: while its rings are
//! full, the thread sleeps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::preparer::{Preparer, Progress};
use crate::limits;

/// What a worker shares with the thread that looks ahead for it.
#[derive(Debug)]
pub struct Workshop {
    /// Preparers that have not begun.
    new: ArrayQueue<Preparer>,
    /// Preparers there are.
    count: AtomicUsize,
    /// There is something to do.
    is_called: AtomicBool,
    is_asleep: AtomicBool,
    has_ended: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Workshop {
    /// Room for `limits::LOOK_AHEAD_SESSIONS` sessions, both directions of each.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            new: ArrayQueue::new(2 * limits::LOOK_AHEAD_SESSIONS),
            count: AtomicUsize::new(0),
            is_called: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            thread: OnceLock::new(),
        })
    }

    /// Takes one preparer more. False when there are as many as may be.
    pub(super) fn take(&self, make: impl FnOnce() -> Preparer) -> bool {
        let room = 2 * limits::LOOK_AHEAD_SESSIONS;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        if count >= room {
            self.leave();
            return false;
        }
        self.new.push(make()).is_ok()
    }

    pub(super) fn leave(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// There is something to do; the thread hears of it at [`Self::wake`].
    pub(super) fn call(&self) {
        self.is_called.store(true, Ordering::Relaxed);
    }

    /// Wakes the thread if it sleeps and has been called: for the end of a worker's turn.
    pub fn wake(&self) {
        // Either this sees the thread asleep, or the thread, before it sleeps, sees the call.
        fence(Ordering::SeqCst);
        if self.is_called.load(Ordering::Relaxed) && self.is_asleep.load(Ordering::Relaxed) {
            self.unpark();
        }
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.unpark();
    }

    /// Sleeps until there is a call that `wake` tells of.
    fn sleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !self.is_called.load(Ordering::Relaxed) {
            thread::park();
        }
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// All preparers of a worker.
#[derive(Debug)]
pub struct Pool {
    workshop: Arc<Workshop>,
    preparers: Vec<Preparer>,
}

impl Pool {
    /// Nothing to prepare yet.
    #[must_use]
    pub fn new(workshop: Arc<Workshop>) -> Self {
        Self {
            workshop,
            preparers: Vec::with_capacity(2 * limits::LOOK_AHEAD_SESSIONS),
        }
    }

    /// Prepares a few links for every session; `now_ms` is any clock's time.
    pub fn round(&mut self, now_ms: u64) -> Progress {
        while let Some(preparer) = self.workshop.new.pop() {
            self.preparers.push(preparer);
        }
        self.preparers.retain(Preparer::is_wanted);
        let mut most = Progress::Nothing;
        for preparer in &mut self.preparers {
            most = most.max(preparer.prepare(now_ms));
        }
        most
    }

    /// Works in the calling thread until [`Workshop::end`].
    pub fn run(&mut self) {
        let workshop = Arc::clone(&self.workshop);
        let started = Instant::now();
        let _ = workshop.thread.set(thread::current());
        while !workshop.has_ended.load(Ordering::SeqCst) {
            workshop.is_called.store(false, Ordering::SeqCst);
            match self.round(started.elapsed().as_millis() as u64) {
                Progress::Some => {}
                Progress::Resting => {
                    thread::sleep(Duration::from_millis(limits::PREPARER_REST_MS));
                }
                Progress::Nothing => workshop.sleep(),
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Preparers in the queue know the workshop, which has the queue.
        while self.workshop.new.pop().is_some() {}
    }
}
