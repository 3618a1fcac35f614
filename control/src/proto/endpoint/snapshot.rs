//! An endpoint on its way to another process: the calls that carry IP, and their connections.
//!
//! Whatever is still negotiated is not carried. A connection that carries no call yet is closed by
//! the old process; a call beside an established one on the same connection is ended by the new.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use dataplane::program::CallId;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{CallEntry, ConnectionEntry, ControlCounters, Endpoint, EndpointConfig, Waiter};
use crate::proto::call::{Call, CallSnapshot};
use crate::proto::connection::{Connection, ConnectionSnapshot};
use crate::proto::{ConnectionId, Time};
use crate::wire::pptp::Text;
use crate::wire::pptp::codes::{DisconnectResult, ErrorCode, StopReason};
use crate::wire::pptp::messages::{CallDisconnectNotify, Message, StopControlConnectionRequest};

/// What another process needs to go on with all established calls of a server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EndpointSnapshot {
    connections: Vec<CarriedConnection>,
    calls: Vec<CallSnapshot>,
    #[serde(default)]
    counters: ControlCounters,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CarriedConnection {
    id: ConnectionId,
    peer: SocketAddrV4,
    connection: ConnectionSnapshot,
    /// Calls that end here, since they were not established.
    left_behind: Vec<CallId>,
}

impl EndpointSnapshot {
    /// The connections that are carried: their sockets must be, too.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.iter().map(|carried| carried.id)
    }

    /// The calls that are carried: ours, and the other end's.
    pub fn calls(&self) -> impl Iterator<Item = (CallId, Option<u16>)> {
        let calls = self.calls.iter();
        calls.map(|call| (call.call_id, call.peer_call_id))
    }
}

impl Endpoint {
    /// All that is established, and that `is_carried` agrees to.
    #[must_use]
    pub fn snapshot(&self, is_carried: impl Fn(CallId) -> bool) -> EndpointSnapshot {
        let mut snapshot = EndpointSnapshot {
            counters: self.counters,
            ..EndpointSnapshot::default()
        };
        for (id, entry) in &self.connections {
            let of_call = |call_id: &CallId| self.calls.get(call_id)?.call.snapshot();
            let carried = entry.calls.iter().filter(|call_id| is_carried(**call_id));
            let calls: Vec<CallSnapshot> = carried.filter_map(of_call).collect();
            let Some(connection) = entry.connection.snapshot().filter(|_| !calls.is_empty()) else {
                continue;
            };
            let is_left = |call_id: &&CallId| calls.iter().all(|call| call.call_id != **call_id);
            snapshot.connections.push(CarriedConnection {
                id: *id,
                peer: entry.peer,
                connection,
                left_behind: entry.calls.iter().filter(is_left).copied().collect(),
            });
            snapshot.calls.extend(calls);
        }
        snapshot
    }

    /// An endpoint that goes on with what another process had established. All its randomness comes
    /// from `seed`.
    #[must_use]
    pub fn restore(
        config: EndpointConfig,
        seed: [u8; 32],
        now: Time,
        snapshot: EndpointSnapshot,
    ) -> Self {
        let mut endpoint = Self::new(config, seed);
        endpoint.counters = snapshot.counters;
        for carried in snapshot.connections {
            endpoint.restore_connection(carried);
        }
        for call in snapshot.calls {
            endpoint.restore_call(now, call);
        }
        endpoint
    }

    fn restore_connection(&mut self, carried: CarriedConnection) {
        let (id, peer, timers) = (carried.id, carried.peer, self.config.timers);
        let connection = Connection::restore(carried.connection, peer.to_string(), timers);
        let deadline = connection.poll_timeout();
        self.gate.add_connection(*peer.ip());
        let entry = ConnectionEntry {
            connection: Box::new(connection),
            peer,
            dial: None,
            calls: Vec::new(),
            deadline,
        };
        self.connections.insert(id, entry);
        self.reschedule(Waiter::Connection(id), None, deadline);
        for call_id in carried.left_behind {
            self.send(id, end_of_call(call_id));
        }
    }

    fn restore_call(&mut self, now: Time, snapshot: CallSnapshot) {
        let (call_id, id) = (snapshot.call_id, snapshot.connection);
        let (Some(config), Some(entry)) = (self.config.link.clone(), self.connections.get_mut(&id))
        else {
            return;
        };
        if !self.call_ids.take(call_id) {
            return;
        }
        entry.calls.push(call_id);
        let (peer, seed) = (*entry.peer.ip(), self.rng.random());
        let call = Call::restore(now, snapshot, peer, config, seed, self.config.timers);
        let deadline = call.poll_timeout();
        self.gate.add_call(peer);
        let entry = CallEntry {
            call: Box::new(call),
            deadline,
            half_open_since: None,
        };
        self.calls.insert(call_id, entry);
        self.reschedule(Waiter::Call(call_id), None, deadline);
    }

    /// The last words to the connections that another process has not taken over: a call that is
    /// still negotiated ends, and the peer may call again.
    pub fn farewells(&self, taken: &EndpointSnapshot) -> Vec<(ConnectionId, bytes::Bytes)> {
        let taken: BTreeSet<ConnectionId> = taken.connections().collect();
        let mut words = Vec::new();
        for (id, entry) in &self.connections {
            if !entry.connection.is_established() || taken.contains(id) {
                continue;
            }
            let calls = entry.calls.iter().map(|call_id| end_of_call(*call_id));
            let reason = StopReason::STOP_LOCAL_SHUTDOWN;
            let stop = StopControlConnectionRequest { reason };
            let messages = calls.chain([stop.into()]);
            words.extend(messages.map(|message| (*id, message.to_bytes())));
        }
        words
    }
}

fn end_of_call(call_id: CallId) -> Message {
    CallDisconnectNotify {
        call_id: call_id.0,
        result: DisconnectResult::ADMIN_SHUTDOWN,
        error: ErrorCode::NONE,
        cause_code: 0,
        call_statistics: Text::EMPTY,
    }
    .into()
}
