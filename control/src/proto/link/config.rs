//! What a link is configured with, what it agrees on, and what it says to a person.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::proto::auth::{AuthMethods, Secrets};
use crate::proto::outbox::printable;
use crate::wire::ipv6cp::InterfaceIdentifier;

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
    /// An authentication server speaks EAP with the peer, and this side only carries it.
    pub eap_pass_through: bool,
    /// Secrets to prove ourselves with (as peer).
    pub secrets: Arc<dyn Secrets>,
    /// LCP options and timers.
    pub lcp: LcpConfig,
    /// MPPE; `None` is `nomppe` or `noccp`.
    pub mppe: Option<MppeConfig>,
    /// What we ask of IPCP. A server replaces it with what the verdict brings.
    pub addresses: Addresses,
    /// IPv6; `None` is `noipv6`: the peer's IPV6CP is rejected.
    pub ipv6: Option<Ipv6Config>,
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
    /// No Echo-Request when packets have come since the last one was due.
    pub echo_adaptive: bool,
    /// Unanswered Echo-Requests until the link is dead; 0 never.
    pub echo_failure: u32,
    /// From one CHAP Challenge that the peer has met to the next (`chap-interval`); 0 never.
    pub chap_interval_ms: u64,
    /// For the whole of authentication, either role.
    pub auth_timeout_ms: u64,
    /// For the whole way from call to network; 0 is no limit.
    pub setup_timeout_ms: u64,
    /// For LCP, each time that it negotiates; 0 is no limit.
    pub lcp_timeout_ms: u64,
    /// From authentication to an open network, and for each time that it is closed while the link
    /// stands; 0 is no limit.
    pub network_timeout_ms: u64,
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
            echo_adaptive: false,
            echo_failure: 4,
            chap_interval_ms: 0,
            auth_timeout_ms: 60_000,
            setup_timeout_ms: 90_000,
            lcp_timeout_ms: 0,
            network_timeout_ms: 0,
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

impl MppeConfig {
    const NOTHING: Self = Self {
        require: false,
        allow_40: false,
        allow_56: false,
        allow_128: false,
        allow_stateful: false,
        prefer_stateful: false,
    };

    /// Whether keys of any strength may be used.
    #[must_use]
    pub const fn allows_any(&self) -> bool {
        self.allow_40 || self.allow_56 || self.allow_128
    }

    /// `128 or 40 bit`.
    pub(in crate::proto) fn strengths(&self) -> String {
        let all = [
            (self.allow_128, "128"),
            (self.allow_56, "56"),
            (self.allow_40, "40"),
        ];
        let allowed: Vec<_> = all.iter().filter(|it| it.0).map(|it| it.1).collect();
        if allowed.is_empty() {
            return "no strength".to_owned();
        }
        format!("{} bit", allowed.join(" or "))
    }
}

/// How an authentication server narrows, for one session, what this side agrees to (RFC 2548 2.4.4
/// and 2.4.5). By default it does not; and it never widens anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MppeLimit {
    /// Without MPPE the link ends, also where this side only prefers it.
    pub require: bool,
    /// 40-bit keys may not be used.
    pub deny_40: bool,
    /// 56-bit keys may not be used.
    pub deny_56: bool,
    /// 128-bit keys may not be used.
    pub deny_128: bool,
}

impl MppeLimit {
    /// What is left of `config`. Where nothing is left of a MPPE that is required, that has no
    /// strength.
    #[must_use]
    pub fn narrow(self, config: Option<MppeConfig>) -> Option<MppeConfig> {
        let config = config.unwrap_or(MppeConfig::NOTHING);
        let left = MppeConfig {
            require: config.require || self.require,
            allow_40: config.allow_40 && !self.deny_40,
            allow_56: config.allow_56 && !self.deny_56,
            allow_128: config.allow_128 && !self.deny_128,
            ..config
        };
        (left.require || left.allows_any()).then_some(left)
    }
}

/// `MPPE is required (128 or 40 bit)`.
impl fmt::Display for MppeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = if self.require { "required" } else { "allowed" };
        let strengths = MppeConfig {
            allow_40: !self.deny_40,
            allow_56: !self.deny_56,
            allow_128: !self.deny_128,
            ..MppeConfig::NOTHING
        }
        .strengths();
        write!(f, "MPPE is {policy} ({strengths})")
    }
}

/// Addresses to ask for or to give in IPCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What to ask for and to give in IPV6CP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Config {
    /// Our interface identifier; `None` draws one, and takes another when the peer insists.
    pub local: Option<InterfaceIdentifier>,
    /// The peer's; `None` takes what the peer says.
    pub remote: Option<InterfaceIdentifier>,
    /// Take another than `local` when the peer insists (`ipv6cp-accept-local`).
    pub accept_local: bool,
    /// Let the peer have another than `remote` (`ipv6cp-accept-remote`).
    pub accept_remote: bool,
}

/// What IPV6CP agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Network {
    /// Our interface identifier.
    pub local: InterfaceIdentifier,
    /// The peer's: another.
    pub remote: InterfaceIdentifier,
}

/// What the network layer agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whoever had to has proved who they are; network layers are negotiated next.
    NetworkPhase,
    /// The peer proved who it is (server): its name.
    PeerAuthenticated(String),
    /// MPPE is up, in pppd's words: `MPPE 128-bit stateless compression enabled`.
    CipherUp(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(words) | Self::CipherUp(words) => f.write_str(words),
            Self::LinkUp => f.write_str("LCP is up"),
            Self::NetworkPhase => f.write_str("authentication is over"),
            Self::PeerAuthenticated(name) => {
                write!(f, "Peer {} authenticated", printable(name.as_bytes()))
            }
        }
    }
}
