//! An established call on its way to another process.

use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::program::CallId;
use serde::{Deserialize, Serialize};

use super::{Call, Established, State};
use crate::proto::endpoint::{CallPhase, Timers};
use crate::proto::link::{Link, LinkConfig, LinkRole, LinkSnapshot, Network};
use crate::proto::{ConnectionId, Time};

/// What another process needs to go on with a call that the other end placed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::proto) struct CallSnapshot {
    pub(in crate::proto) call_id: CallId,
    pub(in crate::proto) connection: ConnectionId,
    pub(in crate::proto) peer_call_id: Option<u16>,
    installed_at: Time,
    network: Network,
    peer_name: Option<String>,
    link: LinkSnapshot,
}

impl Call {
    /// `None` but for a call of the other end's that carries IP.
    pub(in crate::proto) fn snapshot(&self) -> Option<CallSnapshot> {
        if self.phase() != CallPhase::Up || self.role != LinkRole::Callee {
            return None;
        }
        Some(CallSnapshot {
            call_id: self.call_id,
            connection: self.connection,
            peer_call_id: self.peer_call_id,
            installed_at: self.installed_at,
            network: self.network.clone()?,
            peer_name: self.peer_name.clone(),
            link: self.link.snapshot()?,
        })
    }

    /// The call that a snapshot was made of. Nothing is said of it: the driver knows.
    pub(in crate::proto) fn restore(
        now: Time,
        snapshot: CallSnapshot,
        peer: Ipv4Addr,
        config: Arc<LinkConfig>,
        seed: [u8; 32],
        timers: Timers,
    ) -> Self {
        Self {
            call_id: snapshot.call_id,
            connection: snapshot.connection,
            peer,
            peer_call_id: snapshot.peer_call_id,
            role: LinkRole::Callee,
            state: State::Established(Established {
                hint_at: None,
                closing: None,
            }),
            link: Link::restore(now, snapshot.link, config, seed),
            timers,
            installed_at: snapshot.installed_at,
            network: Some(snapshot.network),
            peer_name: snapshot.peer_name,
            outputs: std::collections::VecDeque::new(),
        }
    }
}
