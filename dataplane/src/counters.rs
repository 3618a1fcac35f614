//! What was counted: written by one worker, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker calls this, so a plain load and store is enough: no locked
    /// instruction on the packet path.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one session carried. Bytes are of inner IP packets.
#[derive(Debug, Default)]
pub struct SessionCounters {
    /// IP packets from the peer, delivered.
    pub received_packets: Counter,
    /// Their bytes.
    pub received_bytes: Counter,
    /// IP packets to the peer.
    pub sent_packets: Counter,
    /// Their bytes.
    pub sent_bytes: Counter,
    /// GRE packets of every kind from the peer: the sign of life.
    pub gre_received: Counter,
    /// GRE sequence numbers that never came.
    pub lost: Counter,
    /// Packets that came out of order and were put right.
    pub reordered: Counter,
    /// Packets that came twice, or too late.
    pub late_or_duplicate: Counter,
    /// MPPE keys skipped to catch up with the peer's coherency count.
    pub keys_skipped: Counter,
    /// CCP Reset-Requests that the decryptor asked for.
    pub resyncs: Counter,
    /// Packets dropped, for any reason.
    pub dropped: Counter,
}

/// What one worker did, over all sessions.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// GRE packets received.
    pub gre_received: Counter,
}
