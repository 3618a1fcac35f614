//! What is looked at once a second: `idle`, `maxconnect`, and the way to the server.

use std::time::{Duration, Instant};

use super::Client;
use crate::proto::Action;
use crate::proto::ending::Ending;

impl Client<'_> {
    /// Once a second: limits, and the way to the server.
    pub(super) async fn check(&mut self) -> Vec<Action> {
        self.guard_routes().await;
        self.check_limits()
    }

    /// Ends a tunnel that has been idle, or has stood, for too long.
    fn check_limits(&mut self) -> Vec<Action> {
        let (Some(standing), Some((call_id, counters))) = (&mut self.network, &self.call) else {
            return Vec::new();
        };
        let packets = counters.sent_packets.get() + counters.received_packets.get();
        if packets != standing.packets {
            standing.packets = packets;
            standing.busy_at = Instant::now();
        }
        let is_over = |limit_ms: Option<u64>, since: Instant| {
            limit_ms.is_some_and(|limit| since.elapsed() >= Duration::from_millis(limit))
        };
        let ending = if is_over(self.config.max_connect_ms, standing.since) {
            Ending::ConnectTimeout
        } else if is_over(self.config.idle_ms, standing.busy_at) {
            Ending::IdleTimeout
        } else {
            return Vec::new();
        };
        let (call_id, reason) = (*call_id, ending.to_string());
        self.log.line(&reason);
        self.hang_up(call_id, ending, reason)
    }
}
