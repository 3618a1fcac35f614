//! Who may come in: what each source has at a time, and all of them together. It is asked before
//! anything is made for a connection or a call, and costs no more than what has been let in.
//!
//! A connection is *half-open* as long as it carries no call, and a call as long as no IP flows.
//! When there are as many half-open ones as there may be, the oldest goes: somebody who means it is
//! through within seconds, and somebody who wants to fill the places has to fill them again and
//! again. A call has [`CALL_GRACE_MS`] before it may be pushed out, so that many clients that come
//! at once after a power cut do not push out one another; until then the new one is refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::program::CallId;

use super::Limits;
use crate::proto::refusal::{Refusal, RefusalCounts};
use crate::proto::sources::{Access, source_of};
use crate::proto::{ConnectionId, Time};

/// How long a call may take before it has to make room.
const CALL_GRACE_MS: u64 = 10_000;
/// Refusals that wait for the driver to write them down; further ones are only counted.
const RECENT_MAX: usize = 64;

/// What one source has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holdings {
    connections: usize,
    half_open: usize,
    calls: usize,
    half_open_calls: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Gate {
    prefix_len: u8,
    access: Arc<Access>,
    holdings: BTreeMap<Ipv4Addr, Holdings>,
    /// The driver names connections upwards, so the first is the oldest.
    half_open: BTreeSet<ConnectionId>,
    half_open_calls: BTreeSet<(Time, CallId)>,
    counts: RefusalCounts,
    recent: VecDeque<(Ipv4Addr, Refusal)>,
}

impl Gate {
    pub(super) fn new(prefix_len: u8) -> Self {
        Self {
            prefix_len,
            access: Arc::default(),
            holdings: BTreeMap::new(),
            half_open: BTreeSet::new(),
            half_open_calls: BTreeSet::new(),
            counts: RefusalCounts::default(),
            recent: VecDeque::new(),
        }
    }

    pub(super) fn set_access(&mut self, access: Arc<Access>) {
        self.access = access;
    }

    /// Counts a refusal, and keeps it for the log.
    pub(super) fn refuse(&mut self, peer: Ipv4Addr, refusal: Refusal) {
        self.counts.add(refusal);
        if self.recent.len() < RECENT_MAX {
            self.recent.push_back((peer, refusal));
        }
    }

    pub(super) const fn counts(&self) -> &RefusalCounts {
        &self.counts
    }

    pub(super) fn next_refusal(&mut self) -> Option<(Ipv4Addr, Refusal)> {
        self.recent.pop_front()
    }

    fn held(&self, peer: Ipv4Addr) -> Holdings {
        let source = source_of(peer, self.prefix_len);
        self.holdings.get(&source).copied().unwrap_or_default()
    }

    /// Whether a connection from `peer` may be made, when there are `count`.
    pub(super) fn check_connection(
        &self,
        limits: &Limits,
        peer: Ipv4Addr,
        count: usize,
    ) -> Result<(), Refusal> {
        let held = self.held(peer);
        if !self.access.admits(peer) {
            Err(Refusal::SourceDenied)
        } else if held.connections >= limits.connections_per_peer_max {
            Err(Refusal::ConnectionsPerPeer)
        } else if held.half_open >= limits.half_open_per_peer_max {
            Err(Refusal::HalfOpenPerPeer)
        } else if count >= limits.connections_max {
            Err(Refusal::Connections)
        } else {
            Ok(())
        }
    }

    /// Whether `peer` may call once more; what all have together is not looked at.
    pub(super) fn check_call(&self, limits: &Limits, peer: Ipv4Addr) -> Result<(), Refusal> {
        let held = self.held(peer);
        if held.calls >= limits.calls_per_peer_max {
            Err(Refusal::SessionsPerPeer)
        } else if held.half_open_calls >= limits.half_open_calls_per_peer_max {
            Err(Refusal::HalfOpenCallsPerPeer)
        } else {
            Ok(())
        }
    }

    pub(super) fn half_open_count(&self) -> usize {
        self.half_open.len()
    }

    pub(super) fn oldest_half_open(&self) -> Option<ConnectionId> {
        self.half_open.first().copied()
    }

    pub(super) fn half_open_call_count(&self) -> usize {
        self.half_open_calls.len()
    }

    /// The half-open call that has taken longest, when that was long.
    pub(super) fn overdue_call(&self, now: Time) -> Option<CallId> {
        let (since, call_id) = self.half_open_calls.first()?;
        (since.after_ms(CALL_GRACE_MS) <= now).then_some(*call_id)
    }

    pub(super) fn add_connection(&mut self, peer: Ipv4Addr) {
        self.change(peer, |held| held.connections += 1);
    }

    pub(super) fn remove_connection(&mut self, id: ConnectionId, peer: Ipv4Addr) {
        self.set_half_open(id, peer, false);
        self.change(peer, |held| held.connections -= 1);
    }

    /// An accepted connection carries no call, or carries one.
    pub(super) fn set_half_open(&mut self, id: ConnectionId, peer: Ipv4Addr, is_half_open: bool) {
        if is_half_open && self.half_open.insert(id) {
            self.change(peer, |held| held.half_open += 1);
        } else if !is_half_open && self.half_open.remove(&id) {
            self.change(peer, |held| held.half_open -= 1);
        }
    }

    pub(super) fn add_call(&mut self, peer: Ipv4Addr) {
        self.change(peer, |held| held.calls += 1);
    }

    pub(super) fn remove_call(&mut self, peer: Ipv4Addr) {
        self.change(peer, |held| held.calls -= 1);
    }

    /// IP does not flow over a call that has come in, since `new`, or it does. `old` is what was
    /// said last.
    pub(super) fn set_half_open_call(
        &mut self,
        call_id: CallId,
        peer: Ipv4Addr,
        old: Option<Time>,
        new: Option<Time>,
    ) {
        if let Some(since) = old
            && self.half_open_calls.remove(&(since, call_id))
        {
            self.change(peer, |held| held.half_open_calls -= 1);
        }
        if let Some(since) = new
            && self.half_open_calls.insert((since, call_id))
        {
            self.change(peer, |held| held.half_open_calls += 1);
        }
    }

    fn change(&mut self, peer: Ipv4Addr, change: impl FnOnce(&mut Holdings)) {
        let source = source_of(peer, self.prefix_len);
        let held = self.holdings.entry(source).or_default();
        change(held);
        if *held == Holdings::default() {
            self.holdings.remove(&source);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.holdings.is_empty() && self.half_open.is_empty() && self.half_open_calls.is_empty()
    }
}
