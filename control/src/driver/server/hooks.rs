//! Scripts for each session of a server.

use std::sync::Arc;

use dataplane::program::CallId;

use super::super::scripts::{Facts, Script, Scripts};
use super::Server;
use crate::proto::link::Network;

impl Server {
    /// Starts a script for one session; nothing where scripts are not wanted.
    pub(super) fn start_script(&self, script: Script, call_id: CallId, network: Option<&Network>) {
        let (Some(dir), Some(session)) = (&self.config.scripts_dir, self.sessions.get(&call_id))
        else {
            return;
        };
        let worker = usize::from(call_id.0 % self.engine.workers.count());
        let is_over = matches!(script, Script::IpDown | Script::AuthDown);
        let counters = self.engine.counters(call_id).filter(|_| is_over);
        let carried = counters.map(|counters| {
            let seconds = session.since.map_or(0, |since| since.elapsed().as_secs());
            let (sent, received) = (counters.sent_bytes.get(), counters.received_bytes.get());
            (seconds, sent, received)
        });
        let ipparam = if self.config.ipparam {
            session.peer.clone()
        } else {
            String::new()
        };
        let scripts = Scripts {
            dir: dir.clone(),
            ipparam,
            turn: Arc::clone(&session.turn),
            ..Scripts::default()
        };
        let facts = Facts {
            interface: &self.tuns[worker].name,
            device: &session.peer,
            network,
            peer_name: Some(session.user.as_str()).filter(|user| !user.is_empty()),
            uses_peer_dns: false,
            carried,
        };
        scripts.start(script, &facts, &self.log);
    }
}
