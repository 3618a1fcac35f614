//! What `status` shows of a server.

use dataplane::program::CallId;

use super::{Server, Session};
use crate::driver::admin::{STATUS_SESSIONS_MAX, ServerStatus, TunnelStatus};
use crate::driver::drops;

impl Server {
    /// For the line that systemd shows.
    pub(super) fn summary(&self) -> String {
        let up = self.sessions.values().filter(|it| it.network.is_some());
        let listen: Vec<_> = self.config.listen.iter().map(ToString::to_string).collect();
        format!(
            "Listening on {}; tunnels: {}",
            listen.join(", "),
            up.count()
        )
    }

    pub(super) fn status(&self) -> ServerStatus {
        let mut sessions: Vec<(CallId, &Session)> = self
            .sessions
            .iter()
            .map(|(call_id, session)| (*call_id, session))
            .collect();
        sessions.sort_by_key(|(call_id, _)| *call_id);
        sessions.truncate(STATUS_SESSIONS_MAX);
        ServerStatus {
            pid: std::process::id(),
            listen: self.config.listen.iter().map(ToString::to_string).collect(),
            drops: drops::count(
                &self.engine.workers,
                self.tuns.iter().map(|tun| tun.device.name.as_str()),
            ),
            session_count: self.sessions.len(),
            refused: self
                .refusal_counts()
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            is_draining: self.operation.is_draining,
            sessions: sessions
                .into_iter()
                .map(|(call_id, session)| self.session_status(call_id, session))
                .collect(),
        }
    }

    fn session_status(&self, call_id: CallId, session: &Session) -> TunnelStatus {
        let network = session.network.as_ref();
        let mut status = TunnelStatus {
            name: session.attributes.user.clone(),
            state: if network.is_some() {
                "up"
            } else {
                "connecting"
            }
            .to_owned(),
            interface: self.device_name(call_id).to_owned(),
            peer: session.peer.clone(),
            local_ip: network.map(|standing| standing.agreed.local.to_string()),
            peer_ip: network.map(|standing| standing.agreed.remote.to_string()),
            cipher: network.map(|standing| standing.agreed.cipher.clone()),
            uptime_s: network.map(|standing| standing.since.elapsed().as_secs()),
            pid: std::process::id(),
            ..TunnelStatus::default()
        };
        if let Some(ipv6) = network.and_then(|standing| standing.ipv6) {
            status.name_ipv6(ipv6);
        }
        if let Some(counters) = self.engine.counters(call_id) {
            status.count(counters);
        }
        self.engine.describe_way(call_id, &mut status);
        status
    }
}
