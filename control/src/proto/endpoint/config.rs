//! What an endpoint is told when it is made, and what it shows of its calls.

use std::net::SocketAddrV4;
use std::sync::Arc;

use dataplane::program::CallId;

use crate::proto::link::{LinkConfig, Network};
use crate::proto::{ConnectionId, Time};

/// What an endpoint is and how much it takes on.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Host Name of our Start-Control-Connection messages; at most 64 octets are sent.
    pub host_name: String,
    /// Vendor Name of our Start-Control-Connection messages; at most 64 octets are sent.
    pub vendor: String,
    /// How links of calls that come in are negotiated; `None` refuses such calls (client only).
    pub link: Option<Arc<LinkConfig>>,
    /// Phone Number of our Outgoing-Call-Requests; at most 64 octets are sent.
    pub phone_number: String,
    /// Packet Recv. Window Size that we announce, in packets.
    pub receive_window: u16,
    /// Workers of the data plane, at least 1: call ID mod `worker_count` is the call's worker.
    pub worker_count: u16,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timers: Timers,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            host_name: "local".to_owned(),
            vendor: "pptp-fast".to_owned(),
            link: None,
            phone_number: String::new(),
            receive_window: 64,
            worker_count: 1,
            limits: Limits::default(),
            timers: Timers::default(),
        }
    }
}

/// How much an endpoint takes on; what is beyond is refused in the words of RFC 2637.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Control connections.
    pub connections_max: usize,
    /// Control connections from one address.
    pub connections_per_peer_max: usize,
    /// Accepted control connections that carry no call; one more pushes out the oldest, since an
    /// honest client calls at once.
    pub half_open_max: usize,
    /// The same from one address.
    pub half_open_per_peer_max: usize,
    /// Calls, over all connections; at most 65,535.
    pub calls_max: usize,
    /// Calls on one control connection.
    pub calls_per_connection_max: usize,
    /// Calls from one address.
    pub calls_per_peer_max: usize,
    /// Calls that came in and over which no IP flows; one more pushes out one that has taken long,
    /// or else is refused.
    pub half_open_calls_max: usize,
    /// The same from one address.
    pub half_open_calls_per_peer_max: usize,
    /// Bits of an address that make it one: of others with the same, each counts for all. Only what
    /// the endpoint was made with counts.
    pub peer_prefix_len: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 32_768,
            connections_per_peer_max: 32_768,
            half_open_max: 1_024,
            half_open_per_peer_max: 32_768,
            calls_max: 32_768,
            calls_per_connection_max: 128,
            calls_per_peer_max: 32_768,
            half_open_calls_max: 32_768,
            half_open_calls_per_peer_max: 32_768,
            peer_prefix_len: 32,
        }
    }
}

/// How long an endpoint waits, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// For TCP to connect.
    pub connect_ms: u64,
    /// For Start-Control-Connection-Request or -Reply (RFC 2637 3.1.4: 60 s).
    pub start_ms: u64,
    /// For Outgoing-Call-Reply (RFC 2637 3.2.1: 60 s).
    pub call_reply_ms: u64,
    /// For the first call on an accepted connection, and for another after the last has ended.
    pub idle_ms: u64,
    /// Without any message until Echo-Request is sent (RFC 2637 3.1.4: 60 s).
    pub echo_idle_ms: u64,
    /// From Echo-Request until the connection is given up (RFC 2637 3.1.4: 60 s).
    pub echo_wait_ms: u64,
    /// For Call-Disconnect-Notify after Call-Clear-Request.
    pub clear_ms: u64,
    /// For Stop-Control-Connection-Reply.
    pub stop_ms: u64,
    /// Without any PPP frame until a line says that GRE does not come through.
    pub gre_hint_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            connect_ms: 60_000,
            start_ms: 60_000,
            call_reply_ms: 60_000,
            idle_ms: 60_000,
            echo_idle_ms: 60_000,
            echo_wait_ms: 60_000,
            clear_ms: 3_000,
            stop_ms: 3_000,
            gre_hint_ms: 6_000,
        }
    }
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallPhase {
    /// Outgoing-Call-Request is sent.
    Calling,
    /// The call stands; LCP, authentication, CCP or IPCP is negotiated.
    Negotiating,
    /// IP flows.
    Up,
    /// It is being ended in order.
    Ending,
}

/// What `status` and `sessions list` show of a call.
#[derive(Clone, Debug)]
pub struct CallStatus {
    /// Ours.
    pub call_id: CallId,
    /// The other end's, once known.
    pub peer_call_id: Option<u16>,
    /// The control connection that carries it.
    pub connection: ConnectionId,
    /// TCP address of the other end.
    pub peer: SocketAddrV4,
    /// Host Name that the other end gave; not proved.
    pub peer_host_name: String,
    /// Name that the peer proved to be its own.
    pub peer_name: Option<String>,
    /// This side asked for the call.
    pub outgoing: bool,
    /// How far it has come.
    pub phase: CallPhase,
    /// When it was installed.
    pub installed_at: Time,
    /// What was agreed, while IP flows.
    pub network: Option<Network>,
}
