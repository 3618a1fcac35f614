//! Key streams prepared before their packets come, so that a packet needs an XOR only.
//!
//! In stateless MPPE (RFC 3078 7.1) the keys and key streams of all packets to come follow from
//! the start key. A [`Preparer`] walks along the chain of one direction, in a thread that takes
//! only time that nobody wants ([`Workshop`]), and puts [`Link`]s into a queue; the session takes
//! them with its [`LookAhead`].
//!
//! ```text
//!              links, in the order of the chain
//! Preparer ------------------------------------> LookAhead
//!          <------------------------------------
//!              links to fill again; how far the session is
//! ```
//!
//! Neither side ever waits for the other. The chain is a function of the start key, so both have
//! it: a session that finds no link computes what it needs, and a preparer that has been overtaken
//! goes on where the session is. A link tells its place in the chain, and is used there or never.

mod preparer;
mod workshop;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use self::preparer::{Preparer, Progress};
pub use self::workshop::{Pool, Workshop};
use super::keys::SessionKey;
use super::rekey::KeySchedule;
use crate::limits;

/// One key of a chain and what RC4 makes of it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Link {
    mark: Mark,
    stream: [u8; limits::PREPARED_BYTES],
}

/// A place in a chain: the session key after so many steps from the first one.
#[derive(Clone, Copy, Debug, Zeroize)]
pub(super) struct Mark {
    pub(super) index: u64,
    pub(super) key: SessionKey,
}

/// What a session and its preparer share.
struct Shared {
    /// Links that are ready, in the order of their places.
    ready: ArrayQueue<Box<Link>>,
    /// Links to be filled.
    free: ArrayQueue<Box<Link>>,
    /// Up to here the session needs no more links.
    passed: AtomicU64,
    /// Where the session is, now and then while it is ahead of the preparer.
    overtaken: ArrayQueue<Mark>,
    workshop: Arc<Workshop>,
}

/// The session's end: links that it has taken from the queue, until it is past them.
pub struct LookAhead {
    shared: Arc<Shared>,
    links: VecDeque<Box<Link>>,
    /// Links given back since the preparer was told.
    given_back: usize,
    /// Where the preparer was told that it is overtaken.
    told: u64,
}

impl LookAhead {
    /// Prepares a chain from `mark` on, whose steps `schedule` takes. `None` when `workshop` has as
    /// many as it may have. It allocates all that it ever needs.
    pub(super) fn begin(
        workshop: &Arc<Workshop>,
        schedule: &KeySchedule,
        mark: Mark,
    ) -> Option<Self> {
        let shared = Arc::new(Shared {
            ready: ArrayQueue::new(limits::PREPARED_PACKETS),
            free: ArrayQueue::new(limits::PREPARED_PACKETS),
            passed: AtomicU64::new(mark.index),
            overtaken: ArrayQueue::new(1),
            workshop: Arc::clone(workshop),
        });
        if !workshop.take(|| Preparer::new(Arc::clone(&shared), schedule.clone(), mark)) {
            return None;
        }
        for _ in 0..limits::PREPARED_PACKETS {
            let stream = [0; limits::PREPARED_BYTES];
            shared.give(Box::new(Link { mark, stream }));
        }
        workshop.call();
        Some(Self {
            shared,
            links: VecDeque::with_capacity(limits::PREPARED_PACKETS),
            given_back: 0,
            told: mark.index,
        })
    }

    /// The last place up to `index` whose key is at hand.
    pub(super) fn nearest(&mut self, index: u64) -> Option<Mark> {
        if self.links.back().is_none_or(|last| last.mark.index < index) {
            while let Some(link) = self.shared.ready.pop() {
                self.links.push_back(link);
            }
        }
        let last = self.links.back().map(|link| link.mark);
        let link = last.filter(|mark| mark.index <= index);
        link.or_else(|| self.link(index).map(|link| link.mark))
    }

    /// XORs the key stream at place `index` into `text`. False, and nothing has happened, when it
    /// is not at hand or too short.
    pub(super) fn apply(&self, index: u64, text: &mut [u8]) -> bool {
        let Some(stream) = self
            .link(index)
            .and_then(|link| link.stream.get(..text.len()))
        else {
            return false;
        };
        for (octet, key) in text.iter_mut().zip(stream) {
            *octet ^= key;
        }
        true
    }

    /// The session is past `mark`, and never goes back.
    pub(super) fn pass(&mut self, mark: &Mark) {
        self.shared.passed.store(mark.index, Ordering::Relaxed);
        while let Some(link) = self
            .links
            .pop_front_if(|link| link.mark.index <= mark.index)
        {
            self.shared.give(link);
            self.given_back += 1;
        }
        if self.given_back >= limits::PREPARED_PACKETS / 4 {
            self.given_back = 0;
            self.shared.workshop.call();
        }
        if self.links.is_empty() && mark.index - self.told >= limits::PREPARED_PACKETS as u64 {
            self.told = mark.index;
            self.shared.overtaken.force_push(*mark);
        }
    }

    /// Links stand in a row, but where the preparer was overtaken.
    fn link(&self, index: u64) -> Option<&Link> {
        let first = self.links.front()?.mark.index;
        let offset = usize::try_from(index.checked_sub(first)?).ok()?;
        let link = self.links.get(offset)?;
        (link.mark.index == index).then_some(link)
    }
}

impl Drop for LookAhead {
    fn drop(&mut self) {
        // The preparer forgets a session that is gone, when it is awake.
        self.shared.workshop.call();
    }
}

impl Shared {
    fn give(&self, link: Box<Link>) {
        // There are no more links than the queue has room for.
        let _ = self.free.push(link);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(mut mark) = self.overtaken.pop() {
            mark.zeroize();
        }
    }
}

impl std::fmt::Debug for LookAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LookAhead({} links, <hidden>)", self.links.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mppe::encryptor::{Cipher, Encryptor};
    use crate::mppe::keys::{KeyMode, KeyStrength, StartKey};
    use crate::mppe::rc4::Rc4;

    const FULL: u64 = limits::PREPARED_PACKETS as u64;

    fn encryptor() -> Encryptor {
        let start_key = StartKey::new(KeyStrength::Bits128, b"0123456789abcdef");
        Encryptor::new(&start_key, KeyMode::Stateless)
    }

    /// The next packet, and whether its stream was ready.
    fn send(encryptor: &mut Encryptor, len: usize) -> (Vec<u8>, bool) {
        let mut text = vec![0; len];
        let (_, cipher) = encryptor.prepare();
        match cipher {
            Cipher::Own(key) => Rc4::new(key.as_bytes()).apply(&mut text),
            Cipher::Running | Cipher::Prepared => encryptor.encrypt_next(&mut text),
        }
        (text, matches!(cipher, Cipher::Prepared))
    }

    fn fill(pool: &mut Pool, now_ms: u64) {
        while pool.round(now_ms) == Progress::Some {}
    }

    #[test]
    fn what_is_ready_is_used_and_what_is_not_is_computed() {
        let workshop = Workshop::new();
        let mut pool = Pool::new(Arc::clone(&workshop));
        let (mut plain, mut ahead) = (encryptor(), encryptor());
        assert!(ahead.look_ahead(&workshop));
        for round in 0..4 {
            let now_ms = 10 * round;
            // A session that was found to be ahead is left alone at first.
            fill(&mut pool, now_ms);
            fill(&mut pool, now_ms + limits::PREPARER_REST_MS);
            for packet in 0..2 * FULL {
                let len = if packet == 3 { 1900 } else { 100 };
                let (text, is_ready) = send(&mut ahead, len);
                assert_eq!(text, send(&mut plain, len).0);
                assert_eq!(is_ready, packet < FULL, "packet {packet} of round {round}");
            }
        }
    }

    #[test]
    fn a_session_that_is_too_fast_is_left_alone() {
        let workshop = Workshop::new();
        let mut pool = Pool::new(Arc::clone(&workshop));
        let mut ahead = encryptor();
        assert!(ahead.look_ahead(&workshop));
        for now_ms in (0..100).step_by(limits::PREPARER_REST_MS as usize) {
            for _ in 0..FULL {
                send(&mut ahead, 100);
            }
            assert_eq!(pool.round(now_ms), Progress::Resting);
        }
    }

    #[test]
    fn sessions_beyond_the_limit_go_without_until_others_leave() {
        let workshop = Workshop::new();
        let mut pool = Pool::new(Arc::clone(&workshop));
        let mut directions = Vec::new();
        for _ in 0..2 * limits::LOOK_AHEAD_SESSIONS {
            let mut one = encryptor();
            assert!(one.look_ahead(&workshop));
            directions.push(one);
        }
        let mut last = encryptor();
        assert!(!last.look_ahead(&workshop));
        directions.clear();
        pool.round(0);
        assert!(last.look_ahead(&workshop));
    }

    #[test]
    fn a_thread_fills_the_links_and_ends() {
        let workshop = Workshop::new();
        let mut pool = Pool::new(Arc::clone(&workshop));
        let thread = std::thread::spawn(move || pool.run());
        let (mut plain, mut ahead) = (encryptor(), encryptor());
        assert!(ahead.look_ahead(&workshop));
        let mut ready = 0;
        // Generous: until so many have been ready, however slow the machine is.
        for _ in 0..1_000_000 {
            let (text, is_ready) = send(&mut ahead, 40);
            assert_eq!(text, send(&mut plain, 40).0);
            ready += u64::from(is_ready);
            if ready >= 10 * FULL {
                break;
            }
            workshop.wake();
            if !is_ready {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        assert!(ready >= 10 * FULL);
        workshop.end();
        thread.join().expect("it ends in order");
    }
}
