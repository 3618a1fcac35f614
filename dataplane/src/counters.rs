//! What was counted: written by one worker, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

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
///
/// What is written by the worker that receives, and by the one that sends, has cache lines of its
/// own; so has each session, since its neighbour in memory may be another worker's.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SessionCounters {
    /// IP packets from the peer, delivered.
    pub received_packets: Counter,
    /// Their bytes.
    pub received_bytes: Counter,
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
    /// Packets received whose key streams had been prepared.
    pub received_prepared: Counter,
    /// Packets sent whose key streams had been prepared.
    pub sent_prepared: Counter,
    /// CCP Reset-Requests that the decryptor asked for.
    pub resyncs: Counter,
    /// Packets from the peer dropped, for any reason.
    pub dropped: Counter,
    apart: Apart,
    /// IP packets to the peer.
    pub sent_packets: Counter,
    /// Their bytes.
    pub sent_bytes: Counter,
    /// Packets to the peer dropped, for any reason.
    pub send_dropped: Counter,
}

/// Nothing, at the start of a cache line: 128 octets, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart;

const _: () = assert!(std::mem::offset_of!(SessionCounters, sent_packets) % 128 == 0);
const _: () = assert!(align_of::<SessionCounters>() == 128);

/// Why a packet went no further. Indexes [`WorkerCounters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Outer IPv4 header missing, cut short, a fragment, or not of protocol 47.
    BadIpv4,
    /// Not an enhanced GRE header (RFC 2637 4.1), or longer than the packet.
    BadGre,
    /// No session of ours has this Call ID.
    UnknownCall,
    /// The outer source address is not the session's peer.
    WrongPeer,
    /// The sequence number has been seen already.
    Duplicate,
    /// The sequence number was given up or passed long ago.
    Late,
    /// The sequence number jumps, and nothing has confirmed the jump yet.
    SequenceJump,
    /// Too short for a PPP protocol field, or not one.
    BadPpp,
    /// Encrypted, and the session has no receive key.
    NoReceiveKey,
    /// MPPE header cut short, without the encrypted bit, or without the flushed bit where the
    /// mode demands it.
    BadMppe,
    /// The stateful decryptor has lost its place and waits for a flushed packet.
    AwaitingFlush,
    /// More keys would have to be skipped than the budget allows now.
    KeyBudget,
    /// What came out of the cipher is not a packet: forged, damaged, or another key.
    BadPlaintext,
    /// IP in the clear where encryption is required.
    ClearForbidden,
    /// IP before the network is open, or after it has been closed; IPv6 without IPV6CP.
    NetworkClosed,
    /// Not a whole IP packet inside.
    BadInnerIp,
    /// The inner source address is not the one given to the peer.
    InnerSource,
    /// To send, but the peer's Call ID is not known yet.
    NoPeerCallId,
    /// To send encrypted, but there is no send key.
    NoSendKey,
    /// To send through a shared device, but no session has the destination address.
    NoRoute,
    /// To send, but without headroom for the headers in front of it.
    NoHeadroom,
    /// To send, but it is a GRE packet to the session's own peer: a route leads the tunnel into
    /// itself.
    Looped,
    /// Held for reordering when the session was removed.
    Removed,
    /// The session has used up what its rate allows now.
    RateLimited,
    /// The session has carried all that it may.
    QuotaSpent,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::BadIpv4,
        Self::BadGre,
        Self::UnknownCall,
        Self::WrongPeer,
        Self::Duplicate,
        Self::Late,
        Self::SequenceJump,
        Self::BadPpp,
        Self::NoReceiveKey,
        Self::BadMppe,
        Self::AwaitingFlush,
        Self::KeyBudget,
        Self::BadPlaintext,
        Self::ClearForbidden,
        Self::NetworkClosed,
        Self::BadInnerIp,
        Self::InnerSource,
        Self::NoPeerCallId,
        Self::NoSendKey,
        Self::NoRoute,
        Self::NoHeadroom,
        Self::Looped,
        Self::Removed,
        Self::RateLimited,
        Self::QuotaSpent,
    ];

    /// A name for tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadIpv4 => "bad_ipv4",
            Self::BadGre => "bad_gre",
            Self::UnknownCall => "unknown_call",
            Self::WrongPeer => "wrong_peer",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::SequenceJump => "sequence_jump",
            Self::BadPpp => "bad_ppp",
            Self::NoReceiveKey => "no_receive_key",
            Self::BadMppe => "bad_mppe",
            Self::AwaitingFlush => "awaiting_flush",
            Self::KeyBudget => "key_budget",
            Self::BadPlaintext => "bad_plaintext",
            Self::ClearForbidden => "clear_forbidden",
            Self::NetworkClosed => "network_closed",
            Self::BadInnerIp => "bad_inner_ip",
            Self::InnerSource => "inner_source",
            Self::NoPeerCallId => "no_peer_call_id",
            Self::NoSendKey => "no_send_key",
            Self::NoRoute => "no_route",
            Self::NoHeadroom => "no_headroom",
            Self::Looped => "looped",
            Self::Removed => "removed",
            Self::RateLimited => "rate_limited",
            Self::QuotaSpent => "quota_spent",
        }
    }
}

/// What one worker dropped, by reason. Padded, so that no two workers write one cache line.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    dropped: CachePadded<[Counter; DropReason::ALL.len()]>,
}

impl WorkerCounters {
    /// Counts one packet dropped.
    pub fn count_drop(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }

    /// Packets dropped for `reason` so far.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_indexes_its_own_counter() {
        let counters = WorkerCounters::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
            counters.count_drop(reason);
            assert_eq!(counters.dropped(reason), 1);
        }
    }
}
