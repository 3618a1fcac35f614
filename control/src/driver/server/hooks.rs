//! Scripts for each session of a server.

use std::sync::Arc;
use std::time::Duration;

use dataplane::program::CallId;
use tokio::sync::Mutex;

use super::super::namespace;
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
        let is_over = matches!(script, Script::IpDown | Script::Ipv6Down | Script::AuthDown);
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
            namespace: self.config.netns.as_deref().map(namespace::path_of),
            ..Scripts::default()
        };
        let facts = Facts {
            interface: self.device_name(call_id),
            device: &session.peer,
            network,
            ipv6: session.network.as_ref().and_then(|it| it.ipv6),
            peer_name: Some(session.attributes.user.as_str()).filter(|user| !user.is_empty()),
            uses_peer_dns: false,
            carried,
        };
        scripts.start(script, &facts, &self.log);
    }
    /// A session is gone; its last scripts may still run, or wait for each other.
    pub(super) fn remember_scripts(&mut self, turn: Arc<Mutex<()>>) {
        let is_running = |turn: &Arc<Mutex<()>>| turn.try_lock().is_err();
        self.scripts_running.retain(is_running);
        if is_running(&turn) {
            self.scripts_running.push(turn);
        }
    }

    /// Before the process ends: as long as scripts run, but no longer than `limit`.
    pub(super) async fn wait_for_scripts(&mut self, limit: Duration) {
        let turns = std::mem::take(&mut self.scripts_running);
        let all = async {
            // Those that wait for their turn take a place in its queue first.
            tokio::task::yield_now().await;
            for turn in &turns {
                let _turn = turn.lock().await;
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
    }
}
