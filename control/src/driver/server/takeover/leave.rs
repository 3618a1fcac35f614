//! The end of the old process: another one goes on with devices, routes, run files and sessions, and
//! nothing of that is torn down.

use std::collections::HashSet;
use std::time::Duration;

use dataplane::program::CallId;

use super::channel::Channel;
use crate::driver::server::Server;
use crate::driver::server::radius::Radius;
use crate::proto::ending::Ending;
use crate::proto::endpoint::EndpointSnapshot;

/// For each thing that the new process waits for.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);
/// Why calls end that were not established.
const REPLACED: &str = "another process serves now";

impl Server {
    /// Ends what the new process has not taken, and lets go of the rest. The new process waits with
    /// new sessions until `channel` is closed: from then on addresses, routes and the lease file
    /// are its own affair.
    pub(in crate::driver::server) async fn leave(
        &mut self,
        taken: &EndpointSnapshot,
        channel: Channel,
    ) {
        if let Some(sockets) = &self.sockets {
            sockets.let_go();
        }
        self.host_rules.hand_over();
        self.engine.let_go(taken);
        let taken: HashSet<CallId> = taken.calls().map(|(call_id, _)| call_id).collect();
        if let Some(radius) = &mut self.radius {
            radius.let_go(taken.iter().copied());
        }
        let mut left: Vec<CallId> = self.sessions.keys().copied().collect();
        left.retain(|call_id| !taken.contains(call_id));
        for call_id in left {
            self.ended(call_id, &Ending::LocalRequest(REPLACED.to_owned()));
        }
        let sessions = std::mem::take(&mut self.sessions);
        for session in sessions.into_values() {
            self.remember_scripts(session.turn);
        }
        self.tuns.clear();
        self.engine.stop(FAREWELL_LIMIT).await;
        self.kernel.finish(FAREWELL_LIMIT).await;
        self.leases.finish(FAREWELL_LIMIT).await;
        // The AF_XDP sockets are closed.
        drop(channel);
        let limit = Duration::from_millis(self.config.timeouts.shutdown_ms);
        let _ = tokio::time::timeout(limit, Radius::drain(&mut self.radius)).await;
        // They are this process's children; who waits for a turn has it here.
        self.wait_for_scripts(limit).await;
    }
}
