//! What metrics show of a server at one moment: plain numbers, taken in parts, so that no part
//! holds the control loop up for long.

use dataplane::counters::SessionCounters;
use serde::{Deserialize, Serialize};

use crate::driver::admin::records::PoolRecord;
use crate::proto::endpoint::ControlCounters;
use crate::proto::refusal::RefusalCounts;

/// Parts into which sessions fall, by the high bits of their call ID.
pub const SHARES: u8 = 16;

/// Which part of a snapshot is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// Everything but sessions.
    General,
    /// One of `SHARES`.
    Share(u8),
}

/// One part.
#[derive(Clone, Debug)]
pub enum Snapshot {
    /// Everything but sessions.
    General(General),
    /// A share of the sessions.
    Share(Share),
}

/// Everything but sessions.
#[derive(Clone, Debug, Default)]
pub struct General {
    /// Control connections of any state.
    pub connections: usize,
    /// No calls are taken.
    pub is_draining: bool,
    /// What was passed over on control connections.
    pub control: ControlCounters,
    /// Who was turned away, by reason.
    pub refused: RefusalCounts,
    /// Address pools.
    pub pools: Vec<PoolRecord>,
}

/// A share of the sessions, of now and of before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Sessions without a network.
    pub starting: usize,
    /// Sessions with one.
    pub active: usize,
    /// What they, and those that have ended, have carried.
    pub traffic: Traffic,
}

impl Share {
    /// Joins two.
    pub fn add(&mut self, other: &Self) {
        self.starting += other.starting;
        self.active += other.active;
        self.traffic.add(&other.traffic);
    }
}

/// What sessions have carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// IP packets from clients.
    pub received_packets: u64,
    /// Their octets.
    pub received_bytes: u64,
    /// IP packets to clients.
    pub sent_packets: u64,
    /// Their octets.
    pub sent_bytes: u64,
    /// GRE packets that never came.
    pub lost: u64,
    /// Packets put back into order.
    pub reordered: u64,
    /// Packets that came twice, or too late.
    pub late_or_duplicate: u64,
    /// Times MPPE had to be brought back into step.
    pub mppe_resyncs: u64,
    /// MPPE keys skipped.
    pub mppe_keys_skipped: u64,
}

impl Traffic {
    /// Adds what one session has carried.
    pub(crate) fn count(&mut self, counters: &SessionCounters) {
        self.add(&Self {
            received_packets: counters.received_packets.get(),
            received_bytes: counters.received_bytes.get(),
            sent_packets: counters.sent_packets.get(),
            sent_bytes: counters.sent_bytes.get(),
            lost: counters.lost.get(),
            reordered: counters.reordered.get(),
            late_or_duplicate: counters.late_or_duplicate.get(),
            mppe_resyncs: counters.resyncs.get(),
            mppe_keys_skipped: counters.keys_skipped.get(),
        });
    }

    /// Joins two.
    pub const fn add(&mut self, other: &Self) {
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.late_or_duplicate += other.late_or_duplicate;
        self.mppe_resyncs += other.mppe_resyncs;
        self.mppe_keys_skipped += other.mppe_keys_skipped;
    }
}
