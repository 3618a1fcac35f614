//! Sessions of one worker: by Call ID on the way in, by inner address on the way out.

use std::net::Ipv4Addr;
use std::sync::Arc;

use thiserror::Error;

use crate::counters::{SessionCounters, WorkerCounters};
use crate::decap::Batch;
use crate::program::{CallId, MppeSpec, NetworkSpec, SessionSpec};

/// One call as its worker sees it.
#[derive(Debug)]
pub struct Session {
    call_id: CallId,
    peer: Ipv4Addr,
    local: Option<Ipv4Addr>,
    peer_call_id: Option<u16>,
    network: Option<NetworkSpec>,
    counters: Arc<SessionCounters>,
}

impl Session {
    /// Ours.
    #[must_use]
    pub const fn call_id(&self) -> CallId {
        self.call_id
    }

    /// Where its packets go.
    #[must_use]
    pub const fn peer(&self) -> Ipv4Addr {
        self.peer
    }

    /// Outer source address, when it must be a particular one.
    #[must_use]
    pub const fn local(&self) -> Option<Ipv4Addr> {
        self.local
    }

    /// What `OpenNetwork` brought, while it is open.
    #[must_use]
    pub const fn network(&self) -> Option<&NetworkSpec> {
        self.network.as_ref()
    }

    /// What it carried.
    #[must_use]
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// See [`crate::program::Command::SetPeerCallId`].
    pub const fn set_peer_call_id(&mut self, peer_call_id: u16) {
        self.peer_call_id = Some(peer_call_id);
    }

    /// See [`crate::program::Command::SetReceiveKey`].
    pub fn set_receive_key(&mut self, mppe: Option<&MppeSpec>) {
        let _ = mppe;
    }

    /// See [`crate::program::Command::SetSendKey`].
    pub fn set_send_key(&mut self, mppe: Option<&MppeSpec>) {
        let _ = mppe;
    }

    /// See [`crate::program::Command::ResetSendKey`].
    pub fn reset_send_key(&mut self) {}
}

/// Why a session could not be installed: a fault in control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InstallError {
    /// Call ID modulo workers is another worker.
    #[error("call {0:?} belongs to another worker")]
    Foreign(CallId),
    /// The Call ID is in use.
    #[error("call {0:?} is already installed")]
    InUse(CallId),
}

/// What a session has to tell control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionNotice {
    /// See [`crate::program::Notice::ResetNeeded`].
    ResetNeeded(CallId),
    /// See [`crate::program::Notice::MppeLost`].
    MppeLost(CallId),
}

/// All sessions of one worker. A fixed array; only `install` allocates.
#[derive(Debug)]
pub struct SessionTable {
    sessions: Vec<Option<Box<Session>>>,
    counters: Arc<WorkerCounters>,
}

impl SessionTable {
    /// The table of worker `worker` of `workers`: it owns the calls whose ID modulo `workers` is
    /// `worker`.
    #[must_use]
    pub fn new(worker: u16, workers: u16, counters: Arc<WorkerCounters>) -> Self {
        let _ = (worker, workers);
        Self {
            sessions: Vec::new(),
            counters,
        }
    }

    /// Makes a session.
    ///
    /// # Errors
    /// When the Call ID is in use, or is not this worker's.
    pub fn install(&mut self, spec: &SessionSpec) -> Result<(), InstallError> {
        Err(InstallError::Foreign(spec.call_id))
    }

    /// Forgets a session and its address. Frames it still held come out in `out`, as dropped.
    /// False when there was none.
    pub fn remove(&mut self, call_id: CallId, out: &mut Batch) -> bool {
        let _ = (call_id, out);
        false
    }

    /// IP flows. With `shared`, packets for `network.peer` find the session by address. False when
    /// there is no such session, or no room in the address table.
    pub fn open_network(&mut self, call_id: CallId, network: NetworkSpec, shared: bool) -> bool {
        let _ = (call_id, network, shared);
        false
    }

    /// IP stops. False when there is no such session.
    pub fn close_network(&mut self, call_id: CallId) -> bool {
        let _ = call_id;
        false
    }

    /// The session of one of our Call IDs.
    #[must_use]
    pub fn get(&self, call_id: CallId) -> Option<&Session> {
        self.sessions.get(usize::from(call_id.0))?.as_deref()
    }

    /// The session of one of our Call IDs.
    pub fn get_mut(&mut self, call_id: CallId) -> Option<&mut Session> {
        self.sessions
            .get_mut(usize::from(call_id.0))?
            .as_deref_mut()
    }

    /// The session whose peer has this address inside the tunnel (shared TUN devices only).
    #[must_use]
    pub fn by_address(&self, inner: Ipv4Addr) -> Option<CallId> {
        let _ = inner;
        None
    }

    /// A session that owes an acknowledgment and whose time has come. The caller acknowledges; as
    /// long as it does not, the same session may come again.
    pub fn next_owing(&mut self, now_ms: u64) -> Option<CallId> {
        let _ = now_ms;
        None
    }

    /// What sessions have to tell control, until `None`.
    pub fn next_notice(&mut self) -> Option<SessionNotice> {
        None
    }

    /// When `next_owing` or `release_expired` has work next, if nothing else happens.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        None
    }

    /// What this worker dropped.
    #[must_use]
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }
}
