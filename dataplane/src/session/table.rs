//! Sessions of one worker: by Call ID on the way in, by inner address on the way out.
//!
//! Whoever waits for something, an earlier packet or its turn to acknowledge, stands in a queue of
//! the table's own: nothing looks through all sessions.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use thiserror::Error;

use super::Session;
use crate::address_table::AddressTable;
use crate::counters::{DropReason, WorkerCounters};
use crate::decap::{Batch, Verdict};
use crate::frame::{Frame, Slots};
use crate::limits;
use crate::mppe::decryptor::Trouble;
use crate::mppe::keys::SessionKey;
use crate::mppe::rc4;
use crate::mppe::rekey::{KeySchedule, Step, StepsAbreast};
use crate::prefix_table::PrefixTable;
use crate::program::{CallId, Ipv6Spec, NetworkSpec, Role, SessionSpec};
use crate::sequence::Place;
use crate::snapshot::SessionSnapshot;

/// Why a session could not be installed: a fault in control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InstallError {
    /// [`CallId::receiver`], or [`CallId::sender`] of the half that sends, is another worker.
    #[error("call {0:?} belongs to another worker: install it there")]
    Foreign(CallId),
    /// The Call ID is in use.
    #[error("call {0:?} is already installed: remove it first")]
    InUse(CallId),
}

/// What a session has to tell control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionNotice {
    /// See [`crate::program::Notice::ResetNeeded`].
    ResetNeeded(CallId),
    /// See [`crate::program::Notice::MppeLost`].
    MppeLost(CallId),
    /// See [`crate::program::Notice::QuotaSpent`].
    QuotaSpent(CallId),
}

/// All sessions of one worker, in a fixed array.
#[derive(Debug)]
pub struct SessionTable {
    /// First those that this worker receives, then those that it only sends.
    sessions: Vec<Option<Box<Session>>>,
    received_max: usize,
    worker: u16,
    workers: u16,
    addresses: AddressTable,
    /// Peers choose these addresses themselves, so they are hashed with a secret; and they are few.
    link_locals: HashMap<Ipv6Addr, CallId>,
    /// Networks behind peers, likewise.
    prefixes: PrefixTable,
    counters: Arc<WorkerCounters>,
    /// Packets held for reordering by all sessions together.
    pub(crate) held_count: usize,
    /// Sessions with a gap, and when to look at them. One that is queued again may stand behind
    /// others that are due later, and is looked at late by one time-out at most.
    gaps: VecDeque<(u64, CallId)>,
    /// Sessions that owe an acknowledgment, likewise.
    owing: VecDeque<(u64, CallId)>,
    /// Sessions that owe so many that it must be sent at once.
    urgent: VecDeque<CallId>,
    notices: VecDeque<SessionNotice>,
}

impl SessionTable {
    /// The table of worker `worker` of `workers`: for the calls of which it is the receiver, and
    /// the sending halves of those of which it is the sender.
    ///
    /// # Panics
    /// When `worker` is not less than `workers`.
    #[must_use]
    pub fn new(worker: u16, workers: u16, counters: Arc<WorkerCounters>) -> Self {
        assert!(worker < workers, "worker {worker} of {workers}");
        let capacity = (1_usize << 16).div_ceil(usize::from(workers));
        // A worker that is alone has nobody to share a session with.
        let halves = if workers > 1 { capacity } else { 0 };
        let slots = std::iter::repeat_with(|| None).take(capacity + halves);
        Self {
            sessions: slots.collect(),
            received_max: capacity,
            worker,
            workers,
            addresses: AddressTable::new(capacity),
            link_locals: HashMap::new(),
            prefixes: PrefixTable::default(),
            counters,
            held_count: 0,
            gaps: VecDeque::with_capacity(capacity),
            owing: VecDeque::with_capacity(capacity),
            urgent: VecDeque::with_capacity(capacity),
            notices: VecDeque::with_capacity(limits::NOTICES_MAX),
        }
    }

    /// Of how many workers this is one.
    pub(crate) const fn worker_count(&self) -> u16 {
        self.workers
    }

    /// Makes a session.
    ///
    /// # Errors
    /// When the Call ID is in use, or is not this worker's.
    pub fn install(&mut self, spec: &SessionSpec) -> Result<(), InstallError> {
        let worker = match spec.role {
            Role::Both | Role::Receive => spec.call_id.receiver(self.workers),
            Role::Send => spec.call_id.sender(self.workers),
        };
        if worker != self.worker {
            return Err(InstallError::Foreign(spec.call_id));
        }
        match self.slot_of(spec.call_id) {
            None => Err(InstallError::Foreign(spec.call_id)),
            Some(Some(_)) => Err(InstallError::InUse(spec.call_id)),
            Some(free) => {
                *free = Some(Box::new(Session::new(spec)));
                Ok(())
            }
        }
    }

    /// Forgets a session and its address. Frames it still held are appended to `out`, which should
    /// be empty, as dropped. False when there was no such session.
    pub fn remove(&mut self, call_id: CallId, out: &mut Batch) -> bool {
        self.close_network(call_id);
        let Some(mut session) = self.slot_of(call_id).and_then(Option::take) else {
            return false;
        };
        self.held_count -= session.window.held_count();
        while session.window.held_count() > 0 {
            session.window.give_up_gap(0, &mut |_, frame| {
                self.counters.count_drop(DropReason::Removed);
                out.decide(frame, Verdict::Drop(DropReason::Removed));
            });
        }
        self.gaps.retain(|(_, other)| *other != call_id);
        self.owing.retain(|(_, other)| *other != call_id);
        self.urgent.retain(|other| *other != call_id);
        true
    }

    /// IP flows. With `shared`, packets for `network.peer` find the session by address. False when
    /// there is no such session, or no room in the address table.
    pub fn open_network(&mut self, call_id: CallId, network: NetworkSpec, shared: bool) -> bool {
        let key = shared.then_some(network.peer);
        self.open_network_by(call_id, network, key)
    }

    /// IP flows. With `key`, packets out of a shared TUN device with this address find the session
    /// by it. False when there is no such session, or no room in the address table.
    pub fn open_network_by(
        &mut self,
        call_id: CallId,
        network: NetworkSpec,
        key: Option<Ipv4Addr>,
    ) -> bool {
        self.close_network(call_id);
        let Some(session) = self.get(call_id) else {
            return false;
        };
        let key = key.filter(|_| session.role.sends());
        if let Some(address) = key
            && !self.addresses.insert(address, call_id)
        {
            return false;
        }
        if let Some(session) = self.get_mut(call_id) {
            session.network = Some(network);
            session.looked_up_by = key;
        }
        true
    }

    /// Packets from these networks behind the peer are let in, and with `shared`, packets for them
    /// find the session. False when the session has no network.
    pub fn set_networks(
        &mut self,
        call_id: CallId,
        networks: Box<[(Ipv4Addr, u8)]>,
        shared: bool,
    ) -> bool {
        self.clear_networks(call_id);
        let Some(session) = self.get_mut(call_id).filter(|it| it.network.is_some()) else {
            return false;
        };
        let is_looked_up = shared && session.role.sends();
        session.networks.clone_from(&networks);
        for network in networks.into_iter().filter(|_| is_looked_up) {
            self.prefixes.insert(network, call_id);
        }
        true
    }

    fn clear_networks(&mut self, call_id: CallId) {
        let before = self.get_mut(call_id);
        let before = before.map_or_else(Box::default, |it| std::mem::take(&mut it.networks));
        for network in before {
            self.prefixes.remove(network, call_id);
        }
    }

    /// IPv6 flows as well, or no more. With `shared`, packets for `ipv6.peer` find the session by
    /// address: who has one keeps it. False when it is another session's, or the session has no
    /// network.
    pub fn set_ipv6(&mut self, call_id: CallId, ipv6: Option<Ipv6Spec>, shared: bool) -> bool {
        self.close_ipv6(call_id);
        let Some(ipv6) = ipv6 else {
            return self.get(call_id).is_some();
        };
        let Some(session) = self.get(call_id) else {
            return false;
        };
        let is_looked_up = shared && session.role.sends();
        let is_taken = is_looked_up && self.link_locals.contains_key(&ipv6.peer);
        if session.network.is_none() || is_taken {
            return false;
        }
        if let Some(session) = self.get_mut(call_id) {
            session.ipv6 = Some(ipv6);
        }
        if is_looked_up {
            self.link_locals.insert(ipv6.peer, call_id);
        }
        true
    }

    fn close_ipv6(&mut self, call_id: CallId) {
        let before = self.get_mut(call_id).and_then(|it| it.ipv6.take());
        if let Some(ipv6) = before
            && self.link_locals.get(&ipv6.peer) == Some(&call_id)
        {
            self.link_locals.remove(&ipv6.peer);
        }
    }

    /// IP stops. False when there is no such session.
    pub fn close_network(&mut self, call_id: CallId) -> bool {
        self.close_ipv6(call_id);
        self.clear_networks(call_id);
        let Some(session) = self.get_mut(call_id) else {
            return false;
        };
        session.network = None;
        // The address may be another session's by now.
        if let Some(address) = session.looked_up_by.take()
            && self.addresses.get(address) == Some(call_id)
        {
            self.addresses.remove(address);
        }
        true
    }

    /// All sessions as another process needs them.
    pub(crate) fn snapshots(&self, slots: &impl Slots) -> Vec<(CallId, SessionSnapshot)> {
        let sessions = self.sessions.iter().flatten();
        sessions
            .map(|session| (session.call_id, session.snapshot(slots)))
            .collect()
    }

    /// Goes on where another process left off. What it held is held again as long as `hold` finds
    /// room. False when there is no such session or the snapshot makes no sense.
    pub(crate) fn restore(
        &mut self,
        call_id: CallId,
        snapshot: &SessionSnapshot,
        now_ms: u64,
        mut hold: impl FnMut(&[u8]) -> Option<Frame>,
    ) -> bool {
        let Some(session) = self.get_mut(call_id) else {
            return false;
        };
        if !session.restore(snapshot, now_ms) {
            return false;
        }
        let receive = snapshot.receive.iter();
        let mut held_count = 0;
        for (sequence, octets) in receive.flat_map(|receive| &receive.window.held) {
            let is_early = session.window.place(*sequence) == Place::Early;
            if let Some(frame) = is_early.then(|| hold(octets.as_bytes())).flatten() {
                session.window.hold_again(*sequence, frame, now_ms);
                held_count += 1;
            }
        }
        self.held_count += held_count;
        self.queue(call_id);
        true
    }

    /// Every session leaves out the numbers and keys of so many packets to its peer.
    pub(crate) fn skip(&mut self, packets: u32) {
        for session in self.sessions.iter_mut().flatten() {
            session.sent.skip(packets);
            if let Some(encryptor) = &mut session.encryptor {
                encryptor.skip(packets);
            }
        }
    }

    /// The session of one of our Call IDs.
    #[must_use]
    pub fn get(&self, call_id: CallId) -> Option<&Session> {
        self.sessions.get(self.index(call_id)?)?.as_deref()
    }

    /// The session of one of our Call IDs.
    pub fn get_mut(&mut self, call_id: CallId) -> Option<&mut Session> {
        self.slot_of(call_id)?.as_deref_mut()
    }

    /// The session of one of our Call IDs, when this worker receives its packets.
    pub(crate) fn receiver_mut(&mut self, call_id: CallId) -> Option<&mut Session> {
        self.get_mut(call_id).filter(|it| it.role.receives())
    }

    /// The session of one of our Call IDs, when this worker sends its packets.
    pub(crate) fn sender_mut(&mut self, call_id: CallId) -> Option<&mut Session> {
        self.get_mut(call_id).filter(|it| it.role.sends())
    }

    /// The session whose peer has this address inside the tunnel, or a network with it behind it
    /// (shared TUN devices only).
    #[must_use]
    pub fn by_address(&self, inner: Ipv4Addr) -> Option<CallId> {
        let own = self.addresses.get(inner);
        own.or_else(|| self.prefixes.get(inner))
    }

    /// The session whose peer has this link-local address (shared TUN devices only).
    #[must_use]
    pub fn by_link_local(&self, inner: Ipv6Addr) -> Option<CallId> {
        self.link_locals.get(&inner).copied()
    }

    /// A session that owes an acknowledgment and whose time has come, for
    /// [`crate::encap::acknowledge`]. Each comes once: what is not acknowledged then goes with the
    /// next packet to that peer, or after the next packet from it.
    pub fn next_owing(&mut self, now_ms: u64) -> Option<CallId> {
        while let Some(call_id) = self.urgent.pop_front() {
            if let Some(session) = self.get_mut(call_id) {
                session.in_urgent = false;
                if session.window.acknowledgment_deadline_ms() == Some(0) {
                    return Some(call_id);
                }
            }
        }
        while let Some((at_ms, call_id)) = self.owing.front().copied() {
            if at_ms > now_ms {
                return None;
            }
            self.owing.pop_front();
            let Some(session) = self.get_mut(call_id) else {
                continue;
            };
            session.in_owing = false;
            match session.window.acknowledgment_deadline_ms() {
                None => {}
                Some(due_ms) if due_ms <= now_ms => return Some(call_id),
                Some(due_ms) => {
                    session.in_owing = true;
                    self.owing.push_back((due_ms, call_id));
                }
            }
        }
        None
    }

    /// Takes the next step of the chains of these sessions, at most `LANES_MAX`, abreast, if they
    /// are several: `chain` finds a session's chain and its latest key. Steps stand where the
    /// first packet of each session stands.
    pub(crate) fn step_abreast(
        &mut self,
        call_ids: impl Iterator<Item = CallId> + Clone,
        chain: impl Fn(&mut Session) -> Option<(&mut KeySchedule, SessionKey)>,
    ) -> [Option<Step>; rc4::LANES_MAX] {
        let mut taken = [None; rc4::LANES_MAX];
        let mut others = call_ids.clone();
        let first = others.next();
        if others.all(|other| Some(other) == first) {
            return taken;
        }
        let mut steps = StepsAbreast::new();
        let mut begun = [(CallId(0), 0); rc4::LANES_MAX];
        let mut count = 0;
        for (at, call_id) in call_ids.enumerate() {
            let is_new = begun[..count].iter().all(|(other, _)| *other != call_id);
            let session = self.get_mut(call_id).filter(|_| is_new);
            if let Some((schedule, key)) = session.and_then(&chain) {
                begun[steps.begin(schedule, &key)] = (call_id, at);
                count += 1;
            }
        }
        for ((_, at), step) in begun.iter().zip(steps.run()) {
            taken[*at] = Some(*step);
        }
        taken
    }

    /// What sessions have to tell control, until `None`.
    pub fn next_notice(&mut self) -> Option<SessionNotice> {
        self.notices.pop_front()
    }

    /// When `next_owing` or [`crate::decap::release_expired`] has work next, if nothing else
    /// happens. It may turn out to be nothing.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if !self.urgent.is_empty() {
            return Some(0);
        }
        let gap_ms = self.gaps.front().map(|(at_ms, _)| *at_ms);
        let owing_ms = self.owing.front().map(|(at_ms, _)| *at_ms);
        gap_ms.into_iter().chain(owing_ms).min()
    }

    /// What this worker dropped.
    #[must_use]
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Takes the first session from the queue of gaps whose gap has been waited for long enough.
    pub(crate) fn next_expired(&mut self, now_ms: u64) -> Option<CallId> {
        while let Some((at_ms, call_id)) = self.gaps.front().copied() {
            if at_ms > now_ms {
                return None;
            }
            self.gaps.pop_front();
            let Some(session) = self.get_mut(call_id) else {
                continue;
            };
            session.in_gaps = false;
            match session.window.gap_deadline_ms() {
                Some(due_ms) if due_ms <= now_ms => return Some(call_id),
                _ => self.queue(call_id),
            }
        }
        None
    }

    /// Puts a session into the queues where its state belongs.
    pub(crate) fn queue(&mut self, call_id: CallId) {
        let index = self.index(call_id).unwrap_or(usize::MAX);
        let Some(Some(session)) = self.sessions.get_mut(index) else {
            return;
        };
        if let Some(due_ms) = session.window.gap_deadline_ms()
            && !session.in_gaps
        {
            session.in_gaps = true;
            self.gaps.push_back((due_ms, call_id));
        }
        match session.window.acknowledgment_deadline_ms() {
            Some(0) if !session.in_urgent => {
                session.in_urgent = true;
                self.urgent.push_back(call_id);
            }
            Some(due_ms) if due_ms > 0 && !session.in_owing => {
                session.in_owing = true;
                self.owing.push_back((due_ms, call_id));
            }
            _ => {}
        }
    }

    /// Queues what the session's decryptor complains of.
    pub(crate) fn note_trouble(&mut self, call_id: CallId, now_ms: u64) {
        if self.notices.len() >= limits::NOTICES_MAX {
            return;
        }
        let Some(session) = self.get_mut(call_id) else {
            return;
        };
        let trouble = session
            .decryptor
            .as_mut()
            .and_then(|decryptor| decryptor.trouble(now_ms));
        let notice = match trouble {
            None => return,
            Some(Trouble::ResetNeeded) => {
                session.counters.resyncs.add(1);
                SessionNotice::ResetNeeded(call_id)
            }
            Some(Trouble::Lost) => SessionNotice::MppeLost(call_id),
        };
        self.notices.push_back(notice);
    }

    /// Queues, once, that the session has spent its quota.
    pub(crate) fn note_quota(&mut self, call_id: CallId) {
        if self.notices.len() >= limits::NOTICES_MAX {
            return;
        }
        let session = self.get_mut(call_id);
        let allowance = session.and_then(|session| session.allowance.as_mut());
        if let Some(allowance) = allowance.filter(|it| !it.is_told) {
            allowance.is_told = true;
            self.notices.push_back(SessionNotice::QuotaSpent(call_id));
        }
    }

    fn slot_of(&mut self, call_id: CallId) -> Option<&mut Option<Box<Session>>> {
        let index = self.index(call_id)?;
        self.sessions.get_mut(index)
    }

    /// Where a session stands, if it is one of this worker's.
    const fn index(&self, call_id: CallId) -> Option<usize> {
        let index = (call_id.0 / self.workers) as usize;
        if call_id.receiver(self.workers) == self.worker {
            Some(index)
        } else if call_id.sender(self.workers) == self.worker {
            Some(self.received_max + index)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::TunId;

    fn spec(call_id: u16) -> SessionSpec {
        SessionSpec {
            call_id: CallId(call_id),
            peer: Ipv4Addr::new(192, 0, 2, 1),
            local: None,
            peer_call_id: Some(7),
            role: Role::Both,
            counters: Arc::default(),
        }
    }

    fn network(peer: Ipv4Addr) -> NetworkSpec {
        NetworkSpec {
            tun: TunId(0),
            local: Ipv4Addr::new(10, 0, 0, 1),
            peer,
            compress_protocol: false,
            compress_address_control: false,
            require_encryption: false,
            check_source: false,
        }
    }

    #[test]
    fn a_worker_owns_its_share_of_call_ids() {
        let mut table = SessionTable::new(2, 3, Arc::default());
        assert_eq!(table.install(&spec(5)), Ok(()));
        assert_eq!(table.install(&spec(65_534)), Ok(()));
        let in_use = Err(InstallError::InUse(CallId(5)));
        assert_eq!(table.install(&spec(5)), in_use);
        let foreign = Err(InstallError::Foreign(CallId(6)));
        assert_eq!(table.install(&spec(6)), foreign);
        assert!(table.get(CallId(5)).is_some());
        assert!(table.get(CallId(3)).is_none(), "another worker's call");
        assert!(table.get(CallId(65_535)).is_none());
        let mut out = Batch::new();
        assert!(table.remove(CallId(5), &mut out));
        assert!(!table.remove(CallId(5), &mut out));
        assert!(table.get(CallId(5)).is_none());
    }

    #[test]
    fn the_halves_of_a_session_live_in_two_workers() {
        let half = |role| SessionSpec {
            role,
            ..spec(65_535)
        };
        for workers in [2, 3, 7] {
            let call_id = CallId(65_535);
            let (receiver, sender) = (call_id.receiver(workers), call_id.sender(workers));
            for worker in 0..workers {
                let mut table = SessionTable::new(worker, workers, Arc::default());
                for (role, owner) in [(Role::Receive, receiver), (Role::Send, sender)] {
                    let expected = if worker == owner {
                        Ok(())
                    } else {
                        Err(InstallError::Foreign(call_id))
                    };
                    assert_eq!(table.install(&half(role)), expected);
                }
                assert_eq!(table.receiver_mut(call_id).is_some(), worker == receiver);
                assert_eq!(table.sender_mut(call_id).is_some(), worker == sender);
                // Calls of its own have their places beside those that it only sends.
                let own = (65_528..=65_534).find(|id| id % workers == worker).unwrap();
                assert_eq!(table.install(&spec(own)), Ok(()));
                let found = table.get(CallId(own)).map(Session::call_id);
                assert_eq!(found, Some(CallId(own)));
            }
        }
    }

    #[test]
    fn networks_behind_a_peer_lead_to_it_while_its_network_is_open() {
        let mut table = SessionTable::new(0, 1, Arc::default());
        table.install(&spec(1)).unwrap();
        let behind = (Ipv4Addr::new(172, 16, 0, 0), 16);
        let host = Ipv4Addr::new(172, 16, 3, 4);
        assert!(!table.set_networks(CallId(1), Box::new([behind]), true));
        let peer = Ipv4Addr::new(10, 0, 0, 2);
        assert!(table.open_network(CallId(1), network(peer), true));
        assert!(table.set_networks(CallId(1), Box::new([behind]), true));
        assert_eq!(table.by_address(host), Some(CallId(1)));
        assert!(table.close_network(CallId(1)));
        assert_eq!(table.by_address(host), None);
    }

    #[test]
    fn only_the_half_that_sends_is_looked_up_by_address() {
        let inner = Ipv4Addr::new(10, 0, 0, 9);
        for (worker, role) in [(1, Role::Receive), (0, Role::Send)] {
            let mut table = SessionTable::new(worker, 2, Arc::default());
            assert_eq!(table.install(&SessionSpec { role, ..spec(1) }), Ok(()));
            assert!(table.open_network(CallId(1), network(inner), true));
            let found = table.by_address(inner).is_some();
            assert_eq!(found, role == Role::Send);
        }
    }

    #[test]
    fn an_address_lives_as_long_as_its_network() {
        let mut table = SessionTable::new(0, 1, Arc::default());
        let inner = Ipv4Addr::new(10, 0, 0, 9);
        assert!(!table.open_network(CallId(1), network(inner), true));
        assert_eq!(table.install(&spec(1)), Ok(()));
        assert_eq!(table.install(&spec(2)), Ok(()));
        assert!(table.open_network(CallId(1), network(inner), true));
        assert_eq!(table.by_address(inner), Some(CallId(1)));
        // A client that dials in again before its old call has ended takes its address along.
        assert!(table.open_network(CallId(2), network(inner), true));
        assert!(table.remove(CallId(1), &mut Batch::new()));
        assert_eq!(table.by_address(inner), Some(CallId(2)));
        assert!(table.close_network(CallId(2)));
        assert_eq!(table.by_address(inner), None);
    }

    #[test]
    fn a_link_local_address_is_its_first_holders_until_he_lets_go() {
        let mut table = SessionTable::new(0, 1, Arc::default());
        let peer = Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 9);
        let ipv6 = Some(Ipv6Spec { peer });
        for call_id in [1, 2] {
            assert_eq!(table.install(&spec(call_id)), Ok(()));
        }
        assert!(!table.set_ipv6(CallId(1), ipv6, true), "no network");
        for call_id in [1, 2] {
            let inner = Ipv4Addr::new(10, 0, 0, call_id as u8);
            assert!(table.open_network(CallId(call_id), network(inner), true));
        }
        assert!(table.set_ipv6(CallId(1), ipv6, true));
        assert!(!table.set_ipv6(CallId(2), ipv6, true), "another's");
        assert_eq!(table.by_link_local(peer), Some(CallId(1)));
        assert!(table.close_network(CallId(1)));
        assert_eq!(table.by_link_local(peer), None);
        assert!(table.set_ipv6(CallId(2), ipv6, true));
        assert!(table.set_ipv6(CallId(2), None, true));
        assert_eq!(table.by_link_local(peer), None);
    }
}
