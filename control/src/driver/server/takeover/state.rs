//! What goes from the old process to the new one. Whoever gives the server something to remember of
//! a session adds it here, with `#[serde(default)]`, so that older processes can still hand over.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane::program::CallId;
use dataplane::snapshot::{Hidden, SessionSnapshot};
use serde::{Deserialize, Serialize};

use crate::config::server::ServerConfig;
use crate::driver::server::attributes::SessionAttributes;
use crate::driver::server::network::handover::{TunState, WayState};
use crate::driver::server::observe::handover::{SeenState, TallyState};
use crate::driver::server::radius::handover::{AccountState, RadiusState};
use crate::driver::service::Supervisor;
use crate::proto::endpoint::EndpointSnapshot;
use crate::proto::link::{Ipv6Network, Network};
use crate::proto::{ConnectionId, Time};
use crate::wire::ipv6cp::InterfaceIdentifier;

/// Said by the new process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToOld {
    /// The first word. Its shape never changes.
    Hello {
        /// `FORMAT` of the new process.
        format: u32,
    },
    /// Its workers stand by.
    Ready,
    /// It could go on with what it has been told, and its GRE sockets collect what comes.
    Accepted,
    /// It has everything that it needs, and waits for `ToNew::Go`.
    Taken,
    /// It goes on: the old process is to end.
    Running,
}

/// Said by the old process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToNew {
    /// It does not hand over. Its shape never changes.
    Refused {
        /// In words for a person.
        reason: String,
    },
    /// It would hand over.
    Offer {
        /// Workers that the new process must have as well: call IDs are parted among them.
        workers: u16,
        /// The process: whether it has ended, the kernel says.
        pid: u32,
        /// Where tunnels end.
        place: PlaceState,
    },
    /// Everything, while tunnels run; and with `is_last` once more, while they stand still.
    State(Box<State>),
    /// The new process goes on from here. Until then it must not.
    Go,
    /// The old process goes on.
    Cancelled {
        /// In words for a person.
        reason: String,
    },
}

/// Where tunnels end. Two processes must agree on it: devices stay where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaceState {
    /// Each has an interface of its own.
    pub(super) per_session: bool,
    pub(super) vrf: Option<String>,
    pub(super) netns: Option<String>,
}

impl PlaceState {
    pub(super) fn of(config: &ServerConfig) -> Self {
        Self {
            per_session: config.interface_per_session,
            vrf: config.interface_vrf.clone(),
            netns: config.netns.clone(),
        }
    }

    /// In which setting two differ.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.per_session != other.per_session {
            return Some("dataplane.interface");
        }
        if self.vrf != other.vrf {
            return Some("dataplane.vrf");
        }
        (self.netns != other.netns).then_some("dataplane.netns")
    }
}

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// What comes over no more.
    pub(super) is_last: bool,
    /// What the descriptors with this message are, in their order. Those that came before are not
    /// sent again.
    pub(super) descriptors: Vec<Descriptor>,
    /// The time that all times are of.
    pub(super) now: Time,
    /// Connections accepted so far.
    pub(super) accepted: u64,
    /// The server's own in IPv6.
    pub(super) identifier: Option<InterfaceIdentifier>,
    /// Devices that sessions share, one for each worker; none where each session has its own.
    pub(super) tuns: Vec<TunState>,
    pub(super) endpoint: EndpointSnapshot,
    pub(super) connections: Vec<ConnectionState>,
    pub(super) sessions: Vec<SessionState>,
    /// What has come and was not handled, in order.
    pub(super) unheard: Vec<Unheard>,
    /// No calls are taken.
    #[serde(default)]
    pub(super) is_draining: bool,
    #[serde(default)]
    pub(super) tally: TallyState,
    #[serde(default)]
    pub(super) radius: Option<RadiusState>,
    /// Whose service it is.
    #[serde(default)]
    pub(super) supervisor: Option<Supervisor>,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Descriptor {
    /// A socket that listens for PPTP.
    Listener(SocketAddrV4),
    /// The admin socket.
    Admin,
    /// The socket that take-overs come through.
    Takeover,
    /// A TUN device that sessions share, by its worker.
    Tun(u16),
    /// A session's own TUN device.
    Device(CallId),
    /// Where RADIUS servers send orders to.
    Orders,
    /// A control connection.
    Connection(ConnectionId),
}

/// A control connection's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ConnectionState {
    pub(super) connection: ConnectionId,
    pub(super) unsent: Vec<u8>,
}

/// What the server remembers of a session. Times are ages, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SessionState {
    pub(super) call_id: CallId,
    pub(super) peer_call_id: Option<u16>,
    pub(super) peer: Ipv4Addr,
    pub(super) attributes: SessionAttributes,
    /// On record as its own.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) way: WayState,
    #[serde(default)]
    pub(super) seen: Option<SeenState>,
    #[serde(default)]
    pub(super) account: Option<AccountState>,
    /// Since the call was installed.
    pub(super) age_ms: u64,
    pub(super) network: NetworkState,
    /// `SessionCounters::values`.
    pub(super) counters: Vec<u64>,
    /// What the workers know.
    pub(super) dataplane: SessionSnapshot,
}

/// The network of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NetworkState {
    pub(super) agreed: Network,
    pub(super) ipv6: Option<Ipv6Network>,
    /// Since it came up.
    pub(super) age_ms: u64,
    /// See `Standing::packets`.
    pub(super) packets: u64,
    /// Since there was a packet.
    pub(super) quiet_ms: u64,
}

/// Something that has happened and was not handled.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Unheard {
    /// Octets of a control connection.
    Bytes(ConnectionId, Vec<u8>),
    /// A control connection has ended.
    Disconnected(ConnectionId, Option<String>),
    /// A PPP frame for control.
    Frame(CallId, Hidden),
    /// The stateful decryptor lost its place.
    ResetNeeded(CallId),
    /// The peer's MPPE counter and ours have parted for good.
    MppeLost(CallId),
}
