//! An established control connection on its way to another process.

use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionRole, Established, State};
use crate::proto::Time;
use crate::proto::endpoint::Timers;

/// What another process needs to go on with a connection that the other end opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::proto) struct ConnectionSnapshot {
    peer_host_name: String,
    partial: Vec<u8>,
    echo_at: Time,
    dead_at: Option<Time>,
    echo_identifier: u32,
    idle_until: Option<Time>,
}

impl Connection {
    /// `None` but for one that is established and that the other end opened.
    pub(in crate::proto) fn snapshot(&self) -> Option<ConnectionSnapshot> {
        let State::Established(established) = &self.state else {
            return None;
        };
        if self.role != ConnectionRole::Receiver {
            return None;
        }
        Some(ConnectionSnapshot {
            peer_host_name: self.peer_host_name.clone(),
            partial: self.partial.clone(),
            echo_at: established.echo_at,
            dead_at: established.dead_at,
            echo_identifier: established.echo_identifier,
            idle_until: established.idle_until,
        })
    }

    /// The connection that a snapshot was made of.
    pub(in crate::proto) fn restore(
        snapshot: ConnectionSnapshot,
        peer: String,
        timers: Timers,
    ) -> Self {
        let state = State::Established(Established {
            echo_at: snapshot.echo_at,
            dead_at: snapshot.dead_at,
            echo_identifier: snapshot.echo_identifier,
            idle_until: snapshot.idle_until,
        });
        Self {
            peer_host_name: snapshot.peer_host_name,
            partial: snapshot.partial,
            ..Self::new(ConnectionRole::Receiver, state, peer, timers)
        }
    }
}
