//! What `status` shows of a client.

use dataplane::counters::SessionCounters;

use super::super::admin::TunnelStatus;
use super::super::drops;
use super::Client;
use crate::proto::link::Ipv6Network;

impl Client<'_> {
    pub(super) fn status(&self) -> TunnelStatus {
        let network = self.network.as_ref();
        let redial_in = self
            .redial_at
            .map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
        let state = if self.is_leaving {
            "ending"
        } else if network.is_some() {
            "up"
        } else if self.is_waiting {
            "waiting"
        } else if self.last_ending.is_some() {
            "reconnecting"
        } else {
            "connecting"
        };
        let mut status = TunnelStatus {
            name: self.config.tunnel.clone(),
            state: state.to_owned(),
            interface: self.interface.clone(),
            peer: self.device.clone(),
            local_ip: network.map(|standing| standing.agreed.local.to_string()),
            peer_ip: network.map(|standing| standing.agreed.remote.to_string()),
            cipher: network.map(|standing| standing.agreed.cipher.clone()),
            uptime_s: network.map(|standing| standing.since.elapsed().as_secs()),
            drops: drops::count(
                &self.engine.workers,
                std::iter::once(self.interface.as_str()),
            ),
            pid: std::process::id(),
            failures: self.life.failures(),
            redial_in_s: redial_in.map(|pause| pause.as_secs()),
            last_ending: self.last_ending.clone(),
            ..TunnelStatus::default()
        };
        if let Some(ipv6) = network.and_then(|standing| standing.ipv6) {
            status.name_ipv6(ipv6);
        }
        if let Some((call_id, counters)) = &self.call {
            status.count(counters);
            self.engine.describe_way(*call_id, &mut status);
        }
        status
    }
}

impl TunnelStatus {
    /// Fills in the addresses of IPv6.
    pub(crate) fn name_ipv6(&mut self, ipv6: Ipv6Network) {
        self.local_ipv6 = Some(ipv6.local.link_local().to_string());
        self.peer_ipv6 = Some(ipv6.remote.link_local().to_string());
    }

    /// Fills in what a session has carried.
    pub(crate) fn count(&mut self, counters: &SessionCounters) {
        self.received_bytes = counters.received_bytes.get();
        self.received_packets = counters.received_packets.get();
        self.sent_bytes = counters.sent_bytes.get();
        self.sent_packets = counters.sent_packets.get();
        self.lost = counters.lost.get();
        self.reordered = counters.reordered.get();
        self.dropped = counters.dropped.get() + counters.send_dropped.get();
        self.mppe_resyncs = counters.resyncs.get();
        self.prepared_packets = counters.received_prepared.get() + counters.sent_prepared.get();
    }
}
