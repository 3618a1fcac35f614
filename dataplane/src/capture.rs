//! Copies of the inner packets of one session, for a person who looks at it.
//!
//! A [`Tap`] is two bounded queues of buffers that are all allocated when it is made: the worker
//! takes an empty one, fills it, and puts it where the reader finds it. Without an empty one the
//! copy is not made, and that is counted: a slow reader costs copies, never packets. Nothing wakes
//! the reader; it looks every few milliseconds.
//!
//! A session without a tap costs nothing: a worker that has no taps asks once a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crossbeam_queue::ArrayQueue;

use crate::decap::{Batch, Decided, Verdict};
use crate::encap::Outgoing;
use crate::frame::Slots;
use crate::limits::{SLOT_BYTES, TAP_BUFFERS, TAPS_MAX};
use crate::program::CallId;

/// Which way a packet went through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came from the peer, and was let in.
    Received,
    /// It was to go to the peer; what is dropped after this is copied, too.
    Sent,
}

/// One packet: an IP packet as the TUN device has it, before encryption or after decryption.
#[derive(Debug)]
pub struct Copied {
    /// When the worker had it in hand.
    pub at: SystemTime,
    /// Which way.
    pub direction: Direction,
    len: u16,
    octets: [u8; SLOT_BYTES],
}

impl Copied {
    /// The whole packet: no slot holds a longer one than this buffer does.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// The way from the workers of one session to one reader.
#[derive(Debug)]
pub struct Tap {
    empty: ArrayQueue<Box<Copied>>,
    full: ArrayQueue<Box<Copied>>,
    missed: AtomicU64,
    has_ended: AtomicBool,
    is_closed: AtomicBool,
}

impl Tap {
    /// A tap with all its buffers: `limits::TAP_BUFFERS` times 2 KiB.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let empty = ArrayQueue::new(TAP_BUFFERS);
        for _ in 0..TAP_BUFFERS {
            let buffer = Copied {
                at: SystemTime::UNIX_EPOCH,
                direction: Direction::Received,
                len: 0,
                octets: [0; SLOT_BYTES],
            };
            // There is room for just so many.
            let _ = empty.push(Box::new(buffer));
        }
        Arc::new(Self {
            empty,
            full: ArrayQueue::new(TAP_BUFFERS),
            missed: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Reader: the next packet, to be given back with [`Self::give_back`].
    #[must_use]
    pub fn take(&self) -> Option<Box<Copied>> {
        self.full.pop()
    }

    /// Reader: the buffer may be filled again.
    pub fn give_back(&self, buffer: Box<Copied>) {
        let given = self.empty.push(buffer);
        debug_assert!(
            given.is_ok(),
            "no tap has more buffers than it was made with"
        );
    }

    /// Packets that were not copied because the reader was too slow.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Reader: no packets will come beyond those that [`Self::take`] still finds, because the
    /// session has gone. Ask first and look for packets afterwards.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Reader: nothing more is wanted.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether the reader has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Worker: nothing follows.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    fn copy(&self, direction: Direction, packet: &[u8]) {
        if self.is_closed() {
            return;
        }
        let Some(mut buffer) = self.empty.pop() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let len = packet.len().min(SLOT_BYTES);
        buffer.at = SystemTime::now();
        buffer.direction = direction;
        buffer.len = len as u16;
        buffer.octets[..len].copy_from_slice(&packet[..len]);
        let put = self.full.push(buffer);
        debug_assert!(put.is_ok(), "no tap has more buffers than it was made with");
    }
}

/// The taps of one worker.
#[derive(Debug)]
pub(crate) struct Taps(Vec<(CallId, Arc<Tap>)>);

impl Taps {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(TAPS_MAX))
    }

    /// See `Command::Capture`. False, and the tap has ended, when there are as many as allowed.
    pub(crate) fn open(&mut self, call_id: CallId, tap: Arc<Tap>) -> bool {
        if self.0.len() == TAPS_MAX {
            tap.end();
            return false;
        }
        self.0.push((call_id, tap));
        true
    }

    /// See `Command::EndCapture`.
    pub(crate) fn forget_closed(&mut self, call_id: CallId) {
        self.0
            .retain(|(other, tap)| *other != call_id || !tap.is_closed());
    }

    /// The session is gone.
    pub(crate) fn end(&mut self, call_id: CallId) {
        self.0.retain(|(other, tap)| {
            if *other == call_id {
                tap.end();
            }
            *other != call_id
        });
    }

    /// Copies what is about to be delivered.
    pub(crate) fn received(&self, decided: &Batch, slots: &impl Slots) {
        if self.0.is_empty() {
            return;
        }
        for Decided { frame, verdict } in decided.as_slice() {
            if let Verdict::Deliver { call_id, .. } = verdict {
                self.copy(*call_id, Direction::Received, frame.bytes(slots));
            }
        }
    }

    /// Copies what is about to be encrypted.
    pub(crate) fn sent(&self, outgoing: &[Outgoing], slots: &impl Slots) {
        if self.0.is_empty() {
            return;
        }
        for Outgoing { call_id, frame, .. } in outgoing {
            self.copy(*call_id, Direction::Sent, frame.bytes(slots));
        }
    }

    fn copy(&self, call_id: CallId, direction: Direction, packet: &[u8]) {
        for (_, tap) in self.0.iter().filter(|(other, _)| *other == call_id) {
            tap.copy(direction, packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Slot, VecArena};

    #[test]
    fn only_the_session_that_is_looked_at_is_copied() {
        let mut arena = VecArena::new(2, 128);
        let mut outgoing = Vec::new();
        for (slot, packet) in [b"mine", b"your"].into_iter().enumerate() {
            let slot = slot as u16;
            let frame = arena.fill(Slot(slot), 64, packet);
            outgoing.push(Outgoing::new(CallId(slot), frame));
        }
        let (mut taps, tap) = (Taps::new(), Tap::new());
        taps.sent(&outgoing, &arena);
        assert!(taps.open(CallId(1), Arc::clone(&tap)));
        taps.sent(&outgoing, &arena);
        let copied = tap.take().unwrap();
        assert_eq!(copied.octets(), b"your");
        assert_eq!(copied.direction, Direction::Sent);
        assert!(tap.take().is_none());
    }

    #[test]
    fn a_reader_that_is_slow_misses_packets_and_is_told() {
        let tap = Tap::new();
        for _ in 0..TAP_BUFFERS + 3 {
            tap.copy(Direction::Received, b"packet");
        }
        assert_eq!(tap.missed(), 3);
        let first = tap.take().unwrap();
        tap.give_back(first);
        tap.copy(Direction::Received, b"one more");
        assert_eq!(tap.missed(), 3);
        let rest: Vec<_> = std::iter::from_fn(|| tap.take()).collect();
        assert_eq!(rest.len(), TAP_BUFFERS);
        assert_eq!(
            rest.last().map(|copied| copied.octets()),
            Some(&b"one more"[..])
        );
    }

    #[test]
    fn taps_are_few_and_end_with_their_session_or_their_reader() {
        let mut taps = Taps::new();
        let tap = Tap::new();
        for _ in 0..TAPS_MAX {
            assert!(taps.open(CallId(1), Arc::clone(&tap)));
        }
        let refused = Tap::new();
        assert!(!taps.open(CallId(2), Arc::clone(&refused)));
        assert!(refused.has_ended());
        taps.forget_closed(CallId(1));
        assert_eq!(taps.0.len(), TAPS_MAX, "somebody still reads");
        tap.close();
        taps.forget_closed(CallId(1));
        assert!(taps.0.is_empty());
        let tap = Tap::new();
        assert!(taps.open(CallId(1), Arc::clone(&tap)));
        taps.end(CallId(2));
        assert!(!tap.has_ended());
        taps.end(CallId(1));
        assert!(tap.has_ended() && taps.0.is_empty());
    }
}
