//! The state machines, sans I/O.
//!
//! The driver feeds an [`Event`] with the time to `Endpoint::handle`, drains `poll_action` until
//! it is empty, and sleeps until `poll_timeout`. Time only grows. Randomness (magic numbers,
//! challenges, call IDs) comes from a generator seeded by an argument, so that a whole network of
//! endpoints runs from one seed.
//!
//! The actions of one event are carried out in the order in which they were polled; in particular
//! a `SetReceiveKey` comes before the Configure-Ack that lets the peer use the key.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use dataplane::program::{CallId, Command};

/// A moment: milliseconds since any fixed origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Names a control connection between driver and endpoint; never reused within one process.
///
/// The driver names those that it accepts and counts up from 0; the endpoint names those that it
/// asks for, with the highest bit set, so that the two never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Someone wants a tunnel: connect and call (client).
    Dial {
        /// TCP address of the server, normally port 1723.
        server: SocketAddrV4,
        /// Options of the link to be.
        link: Arc<link::LinkConfig>,
    },
    /// A TCP connection came in (server).
    Accepted {
        /// Chosen by the driver.
        connection: ConnectionId,
        /// Who connected.
        peer: SocketAddrV4,
    },
    /// The TCP connection that `Action::Connect` asked for stands.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// It does not stand, or broke, or was closed by the peer.
    Disconnected {
        /// Which.
        connection: ConnectionId,
        /// Operating system's words; `None` when the peer closed it in order.
        error: Option<String>,
    },
    /// Octets of a control connection, cut anywhere.
    ControlBytes {
        /// Which.
        connection: ConnectionId,
        /// Never empty.
        bytes: &'a [u8],
    },
    /// A PPP frame that the data plane does not handle itself.
    Frame {
        /// Session.
        call_id: CallId,
        /// As it stood behind the GRE header.
        frame: &'a [u8],
    },
    /// The stateful decryptor lost its place.
    ResetNeeded {
        /// Session.
        call_id: CallId,
    },
    /// The peer's MPPE counter and ours have parted for good.
    MppeLost {
        /// Session.
        call_id: CallId,
    },
    /// Packets have arrived from the peer since the last such event (a sign of life for echo).
    Alive {
        /// Session.
        call_id: CallId,
        /// Packets of the network layer are among them.
        has_traffic: bool,
    },
    /// Answer to `Action::Authenticate`.
    Verdict {
        /// Session.
        call_id: CallId,
        /// That of the request.
        request_id: u32,
        /// What the secrets say.
        verdict: auth::Verdict,
    },
    /// Answer to `Action::AssignAddresses`.
    Addresses {
        /// Session.
        call_id: CallId,
        /// For both ends of it; `None` when none are left.
        addresses: Option<link::Addresses>,
    },
    /// Somebody on this side wants the call to end.
    HangUp {
        /// Session.
        call_id: CallId,
        /// Goes into the Terminate-Request.
        reason: String,
    },
    /// The same, at once: the peer is told, and not waited for.
    Cut {
        /// Session.
        call_id: CallId,
        /// What the call is said to have ended for.
        reason: String,
    },
    /// Everything is to end in order; `Action::Idle` tells when it has.
    Shutdown,
    /// `poll_timeout`'s moment has come.
    Timeout,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Action {
    /// Open a TCP connection.
    Connect {
        /// Its name from now on.
        connection: ConnectionId,
        /// Where to.
        server: SocketAddrV4,
    },
    /// Send octets over a control connection, all of them, in order.
    SendControl {
        /// Which.
        connection: ConnectionId,
        /// One or more whole messages.
        bytes: Bytes,
    },
    /// Close a control connection after what was sent on it.
    CloseControl {
        /// Which.
        connection: ConnectionId,
    },
    /// A call has come into being. The driver makes its counters and installs the session in the
    /// worker that owns the call ID.
    Install {
        /// Ours.
        call_id: CallId,
        /// The control connection that carries it: that of `Connect` when a `Dial` made the call.
        connection: ConnectionId,
        /// The outer address of the other end.
        peer: Ipv4Addr,
        /// The other end's call ID, when already known.
        peer_call_id: Option<u16>,
    },
    /// Program the worker that owns the call. Never `Install`, `AttachTun`, `DetachTun`, `Stop`,
    /// `OpenNetwork`, `CloseNetwork` or `SetIpv6`: those follow from other actions.
    Dataplane(Command),
    /// Ask the secrets whether the peer is who it says.
    Authenticate {
        /// Session.
        call_id: CallId,
        /// To be given back with the verdict.
        request_id: u32,
        /// What the peer presented.
        request: auth::AuthRequest,
    },
    /// Give a session addresses that no verdict will bring, because nobody has to prove who it is
    /// (server).
    AssignAddresses {
        /// Session.
        call_id: CallId,
    },
    /// Something that a person reads in the log, in pppd's words.
    Report {
        /// Session.
        call_id: CallId,
        /// What.
        report: link::Report,
    },
    /// The peer may send IP as soon as it has the next frame: addresses, routes and `OpenNetwork`
    /// come before that. `NetworkUp` follows, or not.
    PrepareNetwork {
        /// Session.
        call_id: CallId,
        /// What is about to be agreed.
        network: link::Network,
    },
    /// The network layer is up: addresses on the TUN, routes, then `OpenNetwork` to the worker, as
    /// far as `PrepareNetwork` has not seen to it.
    NetworkUp {
        /// Session.
        call_id: CallId,
        /// What was agreed.
        network: link::Network,
    },
    /// It is down again.
    NetworkDown {
        /// Session.
        call_id: CallId,
    },
    /// IPv6 may pass as well, while the network is up: the link-local address on the TUN, then
    /// `SetIpv6` to the worker.
    Ipv6Up {
        /// Session.
        call_id: CallId,
        /// What was agreed.
        ipv6: link::Ipv6Network,
    },
    /// It may no more. A `NetworkDown` says the same without these words.
    Ipv6Down {
        /// Session.
        call_id: CallId,
    },
    /// The call is over; nothing more of this `CallId` follows. The session is to be removed.
    Ended {
        /// Session.
        call_id: CallId,
        /// Why, grouped by who is to blame.
        ending: ending::Ending,
    },
    /// `Dial` came to nothing before a call existed.
    DialFailed {
        /// That of `Connect`; a new one when the dial was refused before there was a `Connect`.
        connection: ConnectionId,
        /// Why.
        ending: ending::Ending,
    },
    /// After `Shutdown`: nothing is left.
    Idle,
}

impl Action {
    /// The call that it is about, if it is about one.
    #[must_use]
    pub const fn call_id(&self) -> Option<CallId> {
        match self {
            Self::Install { call_id, .. }
            | Self::Authenticate { call_id, .. }
            | Self::AssignAddresses { call_id }
            | Self::Report { call_id, .. }
            | Self::PrepareNetwork { call_id, .. }
            | Self::NetworkUp { call_id, .. }
            | Self::NetworkDown { call_id }
            | Self::Ipv6Up { call_id, .. }
            | Self::Ipv6Down { call_id }
            | Self::Ended { call_id, .. } => Some(*call_id),
            Self::Dataplane(command) => match command {
                Command::Inject { call_id, .. }
                | Command::SetPeerCallId { call_id, .. }
                | Command::SetReceiveKey { call_id, .. }
                | Command::SetSendKey { call_id, .. }
                | Command::ResetSendKey { call_id } => Some(*call_id),
                _ => None,
            },
            Self::Connect { .. }
            | Self::SendControl { .. }
            | Self::CloseControl { .. }
            | Self::DialFailed { .. }
            | Self::Idle => None,
        }
    }
}

pub mod auth;
pub mod automaton;
pub mod backoff;
pub mod call;
pub mod call_ids;
pub mod connection;
pub mod ending;
pub mod endpoint;
pub mod link;
pub mod pool;
pub mod pools;
pub mod radius;
pub mod refusal;
pub mod sources;

mod ccp;
mod change_password;
mod chap;
mod eap;
mod ipcp;
mod ipv6cp;
mod lcp;
pub(crate) mod lru;
mod negotiation;
mod outbox;
mod pap;
mod timer;
