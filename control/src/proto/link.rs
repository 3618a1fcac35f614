//! One PPP link over one call: phases (RFC 1661 3.2), and what it is configured with.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use dataplane::program::MppeSpec;

use super::Time;
use super::auth::{AuthMethods, AuthRequest, Secrets, Verdict};
use super::ending::Ending;

/// Everything that decides how a link is negotiated. Defaults are pppd's.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Our name for authentication (`name`).
    pub name: String,
    /// Name to take for the peer instead of the one it gives (`remotename`).
    pub remote_name: Option<String>,
    /// Methods that we let a peer use to prove who it is; empty is `noauth`.
    pub require: AuthMethods,
    /// Methods that we are ready to prove ourselves with (those not refused).
    pub allow: AuthMethods,
    /// Secrets to prove ourselves with (as peer).
    pub secrets: Arc<dyn Secrets>,
    /// LCP options and timers.
    pub lcp: LcpConfig,
    /// MPPE; `None` is `nomppe` or `noccp`.
    pub mppe: Option<MppeConfig>,
    /// What we ask of IPCP. A server replaces it with what the verdict brings.
    pub addresses: Addresses,
}

/// LCP options and every protocol's timers (pppd's `lcp-*`, `ipcp-*`, `chap-*` defaults).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LcpConfig {
    /// Largest packet that we receive, octets; announced when not 1500.
    pub mru: u16,
    /// Largest packet that we send, octets, whatever the peer's MRU allows.
    pub mtu: u16,
    /// `asyncmap`: announced when `Some`.
    pub accm: Option<u32>,
    /// Ask for protocol field compression (not `nopcomp`), and allow the peer to.
    pub pfc: bool,
    /// Ask for address/control compression (not `noaccomp`), and allow the peer to.
    pub acfc: bool,
    /// Ask for a magic number (not `nomagic`).
    pub magic: bool,
    /// Restart timer (RFC 1661 4.6).
    pub restart_ms: u64,
    /// Configure-Requests without an answer.
    pub max_configure: u32,
    /// Terminate-Requests without an answer.
    pub max_terminate: u32,
    /// Configure-Naks before rejecting.
    pub max_failure: u32,
    /// Between LCP Echo-Requests; 0 sends none.
    pub echo_interval_ms: u64,
    /// Unanswered Echo-Requests until the link is dead; 0 never.
    pub echo_failure: u32,
    /// For the whole of authentication, either role.
    pub auth_timeout_ms: u64,
    /// For the whole way from call to network; 0 is no limit.
    pub setup_timeout_ms: u64,
}

impl Default for LcpConfig {
    fn default() -> Self {
        Self {
            mru: 1500,
            mtu: 1456,
            accm: Some(0),
            pfc: true,
            acfc: true,
            magic: true,
            restart_ms: 3_000,
            max_configure: 10,
            max_terminate: 2,
            max_failure: 10,
            echo_interval_ms: 30_000,
            echo_failure: 4,
            auth_timeout_ms: 60_000,
            setup_timeout_ms: 90_000,
        }
    }
}

/// Which MPPE this side agrees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MppeConfig {
    /// Without MPPE the link ends.
    pub require: bool,
    /// 40-bit keys may be used.
    pub allow_40: bool,
    /// 56-bit keys may be used.
    pub allow_56: bool,
    /// 128-bit keys may be used.
    pub allow_128: bool,
    /// Stateful mode may be agreed when the peer insists (`mppe-stateful`); stateless is asked for
    /// first, as pppd does.
    pub allow_stateful: bool,
    /// Ask for stateful mode from the start.
    pub prefer_stateful: bool,
}

/// Addresses to ask for or to give in IPCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Ours; `None` asks the peer for one.
    pub local: Option<Ipv4Addr>,
    /// The peer's; `None` takes what the peer says.
    pub remote: Option<Ipv4Addr>,
    /// Take another address for us than `local` when the peer insists.
    pub accept_local: bool,
    /// Take another address for the peer than `remote` when it insists.
    pub accept_remote: bool,
    /// Ask the peer for DNS servers (`usepeerdns`).
    pub ask_dns: bool,
    /// Ask the peer for WINS servers (`usepeerwins`).
    pub ask_wins: bool,
    /// DNS servers to give (`ms-dns`).
    pub dns: [Option<Ipv4Addr>; 2],
    /// WINS servers to give (`ms-wins`).
    pub wins: [Option<Ipv4Addr>; 2],
}

/// What the network layer agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Our address.
    pub local: Ipv4Addr,
    /// The peer's.
    pub remote: Ipv4Addr,
    /// DNS servers that the peer named.
    pub dns: [Option<Ipv4Addr>; 2],
    /// WINS servers that the peer named.
    pub wins: [Option<Ipv4Addr>; 2],
    /// The largest IP packet to send, octets: the smaller of the peer's MRU and our `mtu`.
    pub mtu: u16,
    /// The peer takes compressed protocol fields.
    pub compress_protocol: bool,
    /// The peer takes compressed address and control fields.
    pub compress_address_control: bool,
    /// IP passes only encrypted.
    pub require_encryption: bool,
    /// In the words of `status`: `MPPE 128-bit stateless`, or `none`.
    pub cipher: String,
}

/// A line for the log that is not a packet; `Display` is pppd's wording.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// `CHAP authentication succeeded` and the like: complete words, no newline.
    Line(String),
    /// LCP is up.
    LinkUp,
    /// The peer proved who it is (server): its name.
    PeerAuthenticated(String),
    /// MPPE is up, in pppd's words: `MPPE 128-bit stateless compression enabled`.
    CipherUp(String),
}

/// Which end of the call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// Placed the call: a client.
    Caller,
    /// Was called: a server.
    Callee,
}

/// What a link wants done, in this order.
#[derive(Debug)]
pub enum LinkOutput {
    /// Send this PPP frame: as it stands behind the GRE header.
    Frame(Bytes),
    /// Key what we receive; `None` forgets the key.
    SetReceiveKey(Option<MppeSpec>),
    /// Key what we send; `None` forgets the key.
    SetSendKey(Option<MppeSpec>),
    /// The peer sent a CCP Reset-Request.
    ResetSendKey,
    /// Ask the secrets; `handle_verdict` brings the answer, at once or later.
    Authenticate {
        /// To be given back with the verdict.
        request_id: u32,
        /// What the peer presented.
        request: AuthRequest,
    },
    /// A line for a person.
    Report(Report),
    /// IP may pass.
    NetworkUp(Network),
    /// IP may pass no more.
    NetworkDown,
    /// The link is over; nothing follows.
    Terminated(Ending),
}

/// One PPP link. Time only grows from call to call; after every call drain
/// [`poll_output`](Self::poll_output), then sleep until [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Link {
    config: Arc<LinkConfig>,
    role: LinkRole,
    heard: bool,
    outputs: VecDeque<LinkOutput>,
}

impl Link {
    /// A link whose lower layer is down. `seed` makes its magic numbers and challenges.
    #[must_use]
    pub fn new(config: Arc<LinkConfig>, role: LinkRole, seed: [u8; 32]) -> Self {
        let _ = seed;
        Self {
            config,
            role,
            heard: false,
            outputs: VecDeque::new(),
        }
    }

    /// The call is established: LCP starts.
    pub fn handle_up(&mut self, now: Time) {
        let _ = (now, &self.config, self.role);
    }

    /// A PPP frame came. Before `handle_up` the first few are kept and handled there.
    pub fn handle_frame(&mut self, now: Time, frame: &[u8]) {
        let _ = (now, frame);
        self.heard = true;
    }

    /// Packets have come from the peer since the last time.
    pub fn handle_alive(&mut self, now: Time) {
        let _ = now;
    }

    /// The stateful decryptor lost its place.
    pub fn handle_reset_needed(&mut self, now: Time) {
        let _ = now;
    }

    /// The peer's MPPE counter and ours have parted for good.
    pub fn handle_mppe_lost(&mut self, now: Time) {
        let _ = now;
    }

    /// The answer to `LinkOutput::Authenticate`.
    pub fn handle_verdict(&mut self, now: Time, request_id: u32, verdict: Verdict) {
        let _ = (now, request_id, verdict);
    }

    /// Ends the link in order, with a Terminate-Request that carries `reason`.
    pub fn handle_close(&mut self, now: Time, reason: &str, ending: Ending) {
        let _ = (now, reason);
        self.outputs.push_back(LinkOutput::Terminated(ending));
    }

    /// The call is gone under us: no frame can be sent any more.
    pub fn handle_down(&mut self, now: Time) {
        let _ = now;
    }

    /// The moment of `poll_timeout` has come; too early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// Whether any PPP frame has ever come.
    #[must_use]
    pub const fn heard_anything(&self) -> bool {
        self.heard
    }
}
