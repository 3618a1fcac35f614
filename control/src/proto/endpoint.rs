//! The whole of this side: control connections (RFC 2637 3.1), the calls on them (3.2) and their
//! links, joined to the driver by [`Event`] and [`Action`].
//!
//! The driver may rely on this:
//! - Every `Dial` ends in exactly one `Install` or exactly one `DialFailed`, and every `Install`
//!   in exactly one `Ended`; a `NetworkUp` is followed by `NetworkDown` before `Ended`.
//! - After `Ended` the driver itself removes the session from the worker: no
//!   [`Command::Remove`](dataplane::program::Command::Remove) is emitted here.
//! - `Ended` comes before the control connection is closed; a client that wants the connection
//!   to end in order (Stop-Control-Connection-Request) goes on until `CloseControl`, or sends
//!   `Shutdown` and goes on until `Idle`.
//! - After `CloseControl`, or after it reported `Disconnected`, the driver sends no more events
//!   of that connection; if it does, they are ignored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use dataplane::program::CallId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::call::{Call, CallOutput, CallSpec};
use super::call_ids::CallIds;
use super::connection::{Connection, ConnectionOutput, ConnectionRole, Identity};
use super::ending::Ending;
use super::link::LinkConfig;
use super::refusal::{Refusal, RefusalCounts};
use super::sources::Access;
use super::{Action, ConnectionId, Event, Time};
use crate::wire::pptp::codes::{ErrorCode, IncomingCallResult, OutgoingCallResult, StopReason};
use crate::wire::pptp::messages::{
    IncomingCallReply, IncomingCallRequest, Message, OutgoingCallReply, OutgoingCallRequest,
};

mod config;
mod gate;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;

pub use config::{CallPhase, CallStatus, EndpointConfig, Limits, Timers};

use gate::Gate;

/// What was passed over on control connections, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlCounters {
    /// Connections closed at once, or pushed out, because of `Limits`.
    pub connections_refused: u64,
    /// Connections closed because the other end broke RFC 2637.
    pub connections_broken: u64,
    /// Call requests refused.
    pub calls_refused: u64,
    /// Set-Link-Info messages; GRE needs no character map, so they change nothing.
    pub set_link_infos: u64,
    /// WAN-Error-Notify messages.
    pub wan_errors: u64,
    /// Messages about calls that have ended or never were.
    pub strays: u64,
}

/// Set in the name of every connection that the endpoint asks for.
const OUTBOUND: u64 = 1 << 63;

/// All control connections and calls of this side.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    identity: Identity,
    rng: ChaCha12Rng,
    connections: BTreeMap<ConnectionId, ConnectionEntry>,
    gate: Gate,
    calls: BTreeMap<CallId, CallEntry>,
    call_ids: CallIds,
    /// One entry for every connection and call that waits for a time.
    deadlines: BTreeSet<(Time, Waiter)>,
    actions: VecDeque<Action>,
    counters: ControlCounters,
    connections_asked_for: u64,
    calls_asked_for: u16,
    /// Connections that a call has changed: to be settled before the event is done with.
    unsettled: Vec<ConnectionId>,
    lifetime: Lifetime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifetime {
    Running,
    ShuttingDown,
    /// `Action::Idle` has been said.
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    Connection(ConnectionId),
    Call(CallId),
}

#[derive(Debug)]
struct ConnectionEntry {
    /// In a box, as calls are: the nodes of a tree are half empty.
    connection: Box<Connection>,
    peer: SocketAddrV4,
    /// What to call with as soon as the connection is established.
    dial: Option<Arc<LinkConfig>>,
    calls: Vec<CallId>,
    deadline: Option<Time>,
}

#[derive(Debug)]
struct CallEntry {
    call: Box<Call>,
    deadline: Option<Time>,
    /// Since when no IP flows over it; of calls that came in.
    half_open_since: Option<Time>,
}

impl Endpoint {
    /// An endpoint with nothing in it. All its randomness comes from `seed`.
    #[must_use]
    pub fn new(config: EndpointConfig, seed: [u8; 32]) -> Self {
        Self {
            identity: Identity::new(&config),
            rng: ChaCha12Rng::from_seed(seed),
            connections: BTreeMap::new(),
            gate: Gate::new(config.limits.peer_prefix_len),
            calls: BTreeMap::new(),
            call_ids: CallIds::new(config.worker_count),
            deadlines: BTreeSet::new(),
            actions: VecDeque::new(),
            counters: ControlCounters::default(),
            connections_asked_for: 0,
            calls_asked_for: 0,
            unsettled: Vec::new(),
            lifetime: Lifetime::Running,
            config,
        }
    }

    /// Takes in what happened at `now`; `now` never goes back.
    pub fn handle(&mut self, now: Time, event: Event<'_>) {
        match event {
            Event::Dial { server, link } => self.dial(now, server, link),
            Event::Accepted { connection, peer } => self.accept(now, connection, peer),
            Event::Connected { connection } => {
                let identity = self.identity;
                self.with_connection(now, connection, |it| it.handle_connected(now, &identity));
            }
            Event::Disconnected { connection, error } => {
                self.with_connection(now, connection, |it| it.handle_disconnected(error));
            }
            Event::ControlBytes { connection, bytes } => {
                let identity = self.identity;
                self.with_connection(now, connection, |it| {
                    it.handle_bytes(now, bytes, &identity);
                });
            }
            Event::Frame { call_id, frame } => {
                self.with_call(now, call_id, |call| call.handle_frame(now, frame));
            }
            Event::ResetNeeded { call_id } => {
                self.with_call(now, call_id, |call| call.handle_reset_needed(now));
            }
            Event::MppeLost { call_id } => {
                self.with_call(now, call_id, |call| call.handle_mppe_lost(now));
            }
            Event::Alive {
                call_id,
                has_traffic,
            } => {
                self.with_call(now, call_id, |call| call.handle_alive(now, has_traffic));
            }
            Event::Verdict {
                call_id,
                request_id,
                verdict,
            } => self.with_call(now, call_id, |call| {
                call.handle_verdict(now, request_id, verdict);
            }),
            Event::Addresses { call_id, addresses } => {
                self.with_call(now, call_id, |call| call.handle_addresses(now, addresses));
            }
            Event::HangUp { call_id, reason } => {
                self.with_call(now, call_id, |call| call.hang_up(now, &reason));
            }
            Event::Cut { call_id, reason } => {
                self.with_call(now, call_id, |call| call.cut(now, &reason));
            }
            Event::Shutdown => self.shut_down(now),
            Event::Timeout => self.handle_timeout(now),
        }
        while let Some(id) = self.unsettled.pop() {
            self.settle_connection(now, id);
        }
        self.notice_idle();
    }

    /// The next thing to do; the driver polls after every event until there is `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `Event::Timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Every call that has been installed and has not ended, by call ID.
    pub fn calls(&self) -> impl Iterator<Item = CallStatus> {
        let call_ids = self.calls.keys();
        call_ids.filter_map(|call_id| self.call(*call_id))
    }

    /// One of [`Self::calls`].
    #[must_use]
    pub fn call(&self, call_id: CallId) -> Option<CallStatus> {
        let entry = self.calls.get(&call_id)?;
        let connection = self.connections.get(&entry.call.connection())?;
        Some(CallStatus {
            call_id,
            peer_call_id: entry.call.peer_call_id(),
            connection: entry.call.connection(),
            peer: connection.peer,
            peer_host_name: connection.connection.peer_host_name().to_owned(),
            peer_name: entry.call.peer_name().map(str::to_owned),
            outgoing: entry.call.is_outgoing(),
            phase: entry.call.phase(),
            installed_at: entry.call.installed_at(),
            network: entry.call.network().cloned(),
        })
    }

    /// Whether new control connections and calls from the other side are taken, or refused in the
    /// words of RFC 2637: general error, no resource; call administratively prohibited.
    pub const fn set_accepting(&mut self, is_accepting: bool) {
        self.identity.is_accepting = is_accepting;
    }

    /// How the links of calls that come in from now on are negotiated.
    pub fn set_link(&mut self, link: Arc<LinkConfig>) {
        self.config.link = Some(link);
    }

    /// Who may connect from now on; connections that stand are left alone.
    pub fn set_access(&mut self, access: Arc<Access>) {
        self.gate.set_access(access);
    }

    /// How much may be taken on from now on; what there is stays.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.config.limits = limits;
    }

    /// Whether a TCP connection from `peer` is to be closed before anything is made for it, in
    /// place of `Event::Accepted`. That is counted.
    pub fn turns_away(&mut self, peer: Ipv4Addr) -> bool {
        let count = self.connections.len();
        let verdict = self.gate.check_connection(&self.config.limits, peer, count);
        if let Err(refusal) = verdict {
            self.counters.connections_refused += 1;
            self.gate.refuse(peer, refusal);
        }
        verdict.is_err()
    }

    /// How often each reason has led to a refusal.
    #[must_use]
    pub const fn refusal_counts(&self) -> &RefusalCounts {
        self.gate.counts()
    }

    /// A refusal that is not in the log yet; after many at once the rest is counted only.
    pub fn next_refusal(&mut self) -> Option<(Ipv4Addr, Refusal)> {
        self.gate.next_refusal()
    }

    /// How many control connections there are, of any state.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// What was passed over.
    #[must_use]
    pub const fn counters(&self) -> ControlCounters {
        self.counters
    }

    fn dial(&mut self, now: Time, server: SocketAddrV4, link: Arc<LinkConfig>) {
        let id = ConnectionId(OUTBOUND | self.connections_asked_for);
        self.connections_asked_for += 1;
        let full = self.connections.len() >= self.config.limits.connections_max;
        if full || self.lifetime != Lifetime::Running {
            let why = if full {
                "there are as many control connections as allowed"
            } else {
                "shutting down"
            };
            self.actions.push_back(Action::DialFailed {
                connection: id,
                ending: Ending::LocalRequest(why.to_owned()),
            });
            return;
        }
        let connection = Connection::originate(now, server.to_string(), self.config.timers);
        self.insert(id, connection, server, Some(link));
        self.actions.push_back(Action::Connect {
            connection: id,
            server,
        });
        self.settle_connection(now, id);
    }

    fn accept(&mut self, now: Time, id: ConnectionId, peer: SocketAddrV4) {
        let known = self.connections.contains_key(&id);
        if known || self.lifetime != Lifetime::Running || self.turns_away(*peer.ip()) {
            debug_assert!(!known, "{id:?} was accepted twice");
            self.actions
                .push_back(Action::CloseControl { connection: id });
            return;
        }
        if self.gate.half_open_count() >= self.config.limits.half_open_max {
            self.push_out_oldest_half_open(now);
        }
        let connection = Connection::receive(now, peer.to_string(), self.config.timers);
        self.insert(id, connection, peer, None);
        self.gate.set_half_open(id, *peer.ip(), true);
        self.settle_connection(now, id);
    }

    fn push_out_oldest_half_open(&mut self, now: Time) {
        let oldest = self.gate.oldest_half_open();
        let entry = oldest.and_then(|id| Some((id, self.connections.get(&id)?)));
        if let Some((id, entry)) = entry {
            self.counters.connections_refused += 1;
            self.gate
                .refuse(*entry.peer.ip(), Refusal::HalfOpenPushedOut);
            self.with_connection(now, id, |it| it.cut(StopReason::NONE));
        }
    }

    fn insert(
        &mut self,
        id: ConnectionId,
        connection: Connection,
        peer: SocketAddrV4,
        dial: Option<Arc<LinkConfig>>,
    ) {
        self.gate.add_connection(*peer.ip());
        let entry = ConnectionEntry {
            connection: Box::new(connection),
            peer,
            dial,
            calls: Vec::new(),
            deadline: None,
        };
        self.connections.insert(id, entry);
    }

    fn shut_down(&mut self, now: Time) {
        if self.lifetime != Lifetime::Running {
            return;
        }
        self.lifetime = Lifetime::ShuttingDown;
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for call_id in calls {
            self.with_call(now, call_id, |call| call.hang_up(now, "shutting down"));
        }
        let connections: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in connections {
            self.stop_if_unused(now, id, StopReason::STOP_LOCAL_SHUTDOWN);
        }
    }

    fn stop_if_unused(&mut self, now: Time, id: ConnectionId, reason: StopReason) {
        let unused = |entry: &ConnectionEntry| entry.calls.is_empty();
        if self.connections.get(&id).is_some_and(unused) {
            self.with_connection(now, id, |it| it.stop(now, reason));
        }
    }

    fn notice_idle(&mut self) {
        let empty = self.connections.is_empty() && self.calls.is_empty();
        if self.lifetime == Lifetime::ShuttingDown && empty {
            self.lifetime = Lifetime::Idle;
            self.actions.push_back(Action::Idle);
        }
    }

    /// Whatever is due is done once; what is due again at once waits for the next `Timeout`.
    fn handle_timeout(&mut self, now: Time) {
        let due: Vec<Waiter> = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, waiter)| *waiter)
            .collect();
        for waiter in due {
            match waiter {
                Waiter::Connection(id) => {
                    self.with_connection(now, id, |it| it.handle_timeout(now));
                }
                Waiter::Call(call_id) => {
                    self.with_call(now, call_id, |call| call.handle_timeout(now));
                }
            }
        }
    }

    /// Lets one connection handle something, then does what it wants. Unknown: nothing.
    fn with_connection(
        &mut self,
        now: Time,
        id: ConnectionId,
        handle: impl FnOnce(&mut Connection),
    ) {
        if let Some(entry) = self.connections.get_mut(&id) {
            handle(&mut entry.connection);
            self.settle_connection(now, id);
        }
    }

    /// Carries out what a connection wants until it wants nothing, forgets it when it is closed,
    /// and sees to its next deadline.
    fn settle_connection(&mut self, now: Time, id: ConnectionId) {
        while let Some(output) = self.next_connection_output(id) {
            match output {
                ConnectionOutput::Send(bytes) => self.actions.push_back(Action::SendControl {
                    connection: id,
                    bytes,
                }),
                ConnectionOutput::Established => self.place_dialled_call(now, id),
                ConnectionOutput::Call(message) => self.handle_call_message(now, id, &message),
                ConnectionOutput::Lost(ending) => self.lose_connection(now, id, &ending),
                ConnectionOutput::Close => {
                    self.actions
                        .push_back(Action::CloseControl { connection: id });
                }
            }
        }
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let deadline = entry.connection.poll_timeout();
        let old = std::mem::replace(&mut entry.deadline, deadline);
        let closed = entry.connection.is_closed();
        self.reschedule(Waiter::Connection(id), old, deadline);
        if closed {
            self.remove_connection(now, id);
        }
    }

    fn next_connection_output(&mut self, id: ConnectionId) -> Option<ConnectionOutput> {
        self.connections.get_mut(&id)?.connection.poll_output()
    }

    fn remove_connection(&mut self, now: Time, id: ConnectionId) {
        // A dial that was stopped before it came to a call.
        let closed = Ending::LocalRequest("ended before there was a call".to_owned());
        self.lose_connection(now, id, &closed);
        let Some(entry) = self.connections.remove(&id) else {
            return;
        };
        debug_assert!(entry.calls.is_empty());
        self.gate.remove_connection(id, *entry.peer.ip());
        let is_inbound = entry.connection.role() == ConnectionRole::Receiver;
        if let Some(refusal) = entry.connection.refusal().filter(|_| is_inbound) {
            self.gate.refuse(*entry.peer.ip(), refusal);
        }
    }

    /// Ends every call of a connection, and the dial that was to make one.
    fn lose_connection(&mut self, now: Time, id: ConnectionId, ending: &Ending) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        if matches!(ending, Ending::NotPptp(_)) {
            self.counters.connections_broken += 1;
        }
        if entry.dial.take().is_some() {
            self.actions.push_back(Action::DialFailed {
                connection: id,
                ending: ending.clone(),
            });
        }
        for call_id in entry.calls.clone() {
            self.with_call(now, call_id, |call| call.handle_lost(now, ending.clone()));
        }
    }

    fn handle_call_message(&mut self, now: Time, id: ConnectionId, message: &Message) {
        match message {
            Message::OutgoingCallRequest(request) => self.handle_call_request(now, id, request),
            Message::OutgoingCallReply(reply) => {
                let Some(call_id) = self.own_call(id, reply.peer_call_id) else {
                    let words = "Outgoing-Call-Reply to nothing that was asked".to_owned();
                    return self.reject_connection(id, Ending::NotPptp(words));
                };
                let mut verdict = Ok(());
                self.with_call(now, call_id, |call| verdict = call.handle_reply(now, reply));
                if let Err(ending) = verdict {
                    self.reject_connection(id, ending);
                }
            }
            Message::IncomingCallRequest(request) => self.refuse_incoming_call(id, request),
            Message::CallClearRequest(request) => {
                if let Some(call_id) = self.peers_call(id, request.call_id) {
                    self.with_call(now, call_id, |call| call.handle_clear_request(now));
                }
            }
            Message::CallDisconnectNotify(notify) => {
                if let Some(call_id) = self.peers_call(id, notify.call_id) {
                    self.with_call(now, call_id, |call| {
                        call.handle_disconnect_notify(now, notify);
                    });
                }
            }
            Message::SetLinkInfo(_) => self.counters.set_link_infos += 1,
            Message::WanErrorNotify(_) => self.counters.wan_errors += 1,
            _ => {
                let words = "a reply to an incoming call that was never announced".to_owned();
                self.reject_connection(id, Ending::NotPptp(words));
            }
        }
    }

    fn reject_connection(&mut self, id: ConnectionId, ending: Ending) {
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.connection.reject(ending);
        }
    }

    /// The call that we named so, on this connection.
    fn own_call(&self, id: ConnectionId, call_id: u16) -> Option<CallId> {
        let entry = self.calls.get(&CallId(call_id))?;
        (entry.call.connection() == id).then_some(CallId(call_id))
    }

    /// The call that the other end named so, on this connection. A peer that gets the name wrong
    /// (some swap its octets) and has one call cannot mean another.
    fn peers_call(&mut self, id: ConnectionId, peer_call_id: u16) -> Option<CallId> {
        let calls = &self.connections.get(&id)?.calls;
        let named = |call_id: &&CallId| {
            let call = self.calls.get(call_id).map(|entry| &entry.call);
            call.is_some_and(|call| call.peer_call_id() == Some(peer_call_id))
        };
        let found = match (calls.iter().find(named), calls.as_slice()) {
            (Some(call_id), _) | (None, [call_id]) => Some(*call_id),
            (None, _) => None,
        };
        self.counters.strays += u64::from(found.is_none());
        found
    }

    fn place_dialled_call(&mut self, now: Time, id: ConnectionId) {
        let dial = |entry: &mut ConnectionEntry| entry.dial.take();
        let Some(config) = self.connections.get_mut(&id).and_then(dial) else {
            return;
        };
        let Some(spec) = self.call_spec(now, id, config) else {
            let why = "there are as many calls as allowed".to_owned();
            self.actions.push_back(Action::DialFailed {
                connection: id,
                ending: Ending::LocalRequest(why),
            });
            if let Some(entry) = self.connections.get_mut(&id) {
                entry.connection.stop(now, StopReason::NONE);
            }
            return;
        };
        let serial = self.calls_asked_for;
        self.calls_asked_for = serial.wrapping_add(1);
        let call = Call::place(now, spec, serial, &self.config.phone_number);
        self.insert_call(now, id, call);
    }

    fn handle_call_request(&mut self, now: Time, id: ConnectionId, request: &OutgoingCallRequest) {
        let Some(entry) = self.connections.get(&id) else {
            return;
        };
        // What follows on the same segment may already have closed it.
        if !entry.connection.is_established() {
            return;
        }
        let inbound = entry.connection.role() == ConnectionRole::Receiver;
        let config = self.config.link.clone();
        let is_accepting = self.identity.is_accepting && self.lifetime == Lifetime::Running;
        let config = config.filter(|_| inbound && is_accepting);
        let Some(config) = config else {
            let result = OutgoingCallResult::DO_NOT_ACCEPT;
            return self.refuse_call(id, request, result, ErrorCode::NONE);
        };
        let general = OutgoingCallResult::GENERAL_ERROR;
        let taken = entry.calls.iter().any(|call_id| {
            let call = self.calls.get(call_id).map(|entry| &entry.call);
            call.is_some_and(|call| call.peer_call_id() == Some(request.call_id))
        });
        if taken {
            return self.refuse_call(id, request, general, ErrorCode::BAD_CALL_ID);
        }
        let peer = *entry.peer.ip();
        if let Err(refusal) = self.make_room_for_call(now, id, peer) {
            self.gate.refuse(peer, refusal);
            return self.refuse_call(id, request, general, ErrorCode::NO_RESOURCE);
        }
        let Some(spec) = self.call_spec(now, id, config) else {
            return self.refuse_call(id, request, general, ErrorCode::NO_RESOURCE);
        };
        let call = Call::answer(now, spec, request);
        self.insert_call(now, id, call);
    }

    /// Lets in one more call that comes in, for which another may have to go.
    fn make_room_for_call(
        &mut self,
        now: Time,
        id: ConnectionId,
        peer: Ipv4Addr,
    ) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let calls = self.connections.get(&id).map_or(0, |it| it.calls.len());
        if calls >= limits.calls_per_connection_max {
            return Err(Refusal::CallsPerConnection);
        }
        self.gate.check_call(limits, peer)?;
        let refusal = if self.calls.len() >= limits.calls_max {
            Refusal::Sessions
        } else if self.gate.half_open_call_count() >= limits.half_open_calls_max {
            Refusal::HalfOpenCalls
        } else {
            return Ok(());
        };
        let overdue = self.gate.overdue_call(now).ok_or(refusal)?;
        if let Some(entry) = self.calls.get(&overdue) {
            self.gate
                .refuse(entry.call.peer(), Refusal::HalfOpenCallPushedOut);
        }
        let reason = "it took long, and another waited for its place";
        self.with_call(now, overdue, |call| call.cut(now, reason));
        Ok(())
    }

    /// `None` when there is no room for another call.
    fn call_spec(
        &mut self,
        now: Time,
        id: ConnectionId,
        config: Arc<LinkConfig>,
    ) -> Option<CallSpec> {
        let entry = self.connections.get(&id)?;
        let limits = self.config.limits;
        if self.calls.len() >= limits.calls_max
            || entry.calls.len() >= limits.calls_per_connection_max
        {
            return None;
        }
        Some(CallSpec {
            call_id: self.call_ids.allocate(now, &mut self.rng)?,
            connection: id,
            peer: *entry.peer.ip(),
            config,
            seed: self.rng.random(),
            receive_window: self.config.receive_window,
            timers: self.config.timers,
        })
    }

    fn insert_call(&mut self, now: Time, id: ConnectionId, call: Call) {
        let call_id = call.call_id();
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.connection.engage();
            entry.calls.push(call_id);
            self.gate.set_half_open(id, *entry.peer.ip(), false);
        }
        self.gate.add_call(call.peer());
        let entry = CallEntry {
            call: Box::new(call),
            deadline: None,
            half_open_since: None,
        };
        self.calls.insert(call_id, entry);
        self.settle_call(now, call_id);
    }

    fn refuse_call(
        &mut self,
        id: ConnectionId,
        request: &OutgoingCallRequest,
        result: OutgoingCallResult,
        error: ErrorCode,
    ) {
        self.counters.calls_refused += 1;
        let reply = OutgoingCallReply {
            call_id: 0,
            peer_call_id: request.call_id,
            result,
            error,
            cause_code: 0,
            connect_speed: 0,
            receive_window: 0,
            processing_delay: 0,
            physical_channel_id: 0,
        };
        self.send(id, reply.into());
    }

    /// No telephone rings here, and a server that calls its client back is not supported.
    fn refuse_incoming_call(&mut self, id: ConnectionId, request: &IncomingCallRequest) {
        self.counters.calls_refused += 1;
        let reply = IncomingCallReply {
            call_id: 0,
            peer_call_id: request.call_id,
            result: IncomingCallResult::DO_NOT_ACCEPT,
            error: ErrorCode::NONE,
            receive_window: 0,
            transmit_delay: 0,
        };
        self.send(id, reply.into());
    }

    fn send(&mut self, id: ConnectionId, message: Message) {
        let entry = self.connections.get(&id);
        if entry.is_some_and(|entry| entry.connection.is_established()) {
            self.actions.push_back(Action::SendControl {
                connection: id,
                bytes: message.to_bytes(),
            });
        }
    }

    /// Lets one call handle something, then does what it wants. Unknown: nothing.
    fn with_call(&mut self, now: Time, call_id: CallId, handle: impl FnOnce(&mut Call)) {
        if let Some(entry) = self.calls.get_mut(&call_id) {
            handle(&mut entry.call);
            self.settle_call(now, call_id);
        }
    }

    /// Carries out what a call wants until it wants nothing, forgets it when it is over, and sees
    /// to its next deadline.
    fn settle_call(&mut self, now: Time, call_id: CallId) {
        while let Some((id, output)) = self.next_call_output(call_id) {
            match output {
                CallOutput::Act(action) => self.actions.push_back(action),
                CallOutput::Send(message) => self.send(id, message),
            }
        }
        let Some(entry) = self.calls.get_mut(&call_id) else {
            return;
        };
        let id = entry.call.connection();
        let deadline = entry.call.poll_timeout();
        let old = std::mem::replace(&mut entry.deadline, deadline);
        let over = entry.call.is_over();
        let is_half_open = !over && !entry.call.is_outgoing() && entry.call.network().is_none();
        let since = entry.half_open_since;
        let half_open_since = is_half_open.then(|| since.unwrap_or(now));
        if half_open_since != since {
            entry.half_open_since = half_open_since;
            let peer = entry.call.peer();
            self.gate
                .set_half_open_call(call_id, peer, since, half_open_since);
        }
        self.reschedule(Waiter::Call(call_id), old, deadline);
        if over {
            self.remove_call(now, call_id, id);
        }
    }

    fn next_call_output(&mut self, call_id: CallId) -> Option<(ConnectionId, CallOutput)> {
        let call = &mut self.calls.get_mut(&call_id)?.call;
        Some((call.connection(), call.poll_output()?))
    }

    fn remove_call(&mut self, now: Time, call_id: CallId, id: ConnectionId) {
        if let Some(entry) = self.calls.remove(&call_id) {
            self.gate.remove_call(entry.call.peer());
        }
        self.call_ids.free(now, call_id);
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.calls.retain(|other| *other != call_id);
        if !entry.calls.is_empty() {
            return;
        }
        entry.connection.rest(now);
        let outbound = entry.connection.role() == ConnectionRole::Originator;
        self.gate.set_half_open(id, *entry.peer.ip(), !outbound);
        match self.lifetime {
            Lifetime::Running if outbound => entry.connection.stop(now, StopReason::NONE),
            Lifetime::Running => {}
            _ => entry.connection.stop(now, StopReason::STOP_LOCAL_SHUTDOWN),
        }
        self.unsettled.push(id);
    }

    fn reschedule(&mut self, waiter: Waiter, old: Option<Time>, new: Option<Time>) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.deadlines.remove(&(at, waiter));
        }
        if let Some(at) = new {
            self.deadlines.insert((at, waiter));
        }
    }
}
