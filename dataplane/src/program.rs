//! What control tells a worker, and what a worker tells control.
//!
//! One bounded queue each way for each worker. Commands take effect in the order in which they
//! were sent, and between batches, so control can put `SetReceiveKey` in front of the
//! Configure-Ack that permits the peer to use the key, and no packet can come between.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::counters::SessionCounters;
use crate::mppe::keys::{KeyMode, StartKey};
use crate::offload::TunFeatures;

/// The Call ID that *we* chose: it stands in the GRE key field of what the peer sends us
/// (RFC 2637 4.1), and names the session everywhere in this program. 0 is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u16);

/// Names a TUN device that a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunId(pub u32);

/// What a worker needs to know of a call before any GRE packet of it.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Ours: what the peer writes into its packets.
    pub call_id: CallId,
    /// Outer address of the peer: packets from elsewhere are dropped and counted.
    pub peer: Ipv4Addr,
    /// Outer address that we send from, when it must be a particular one.
    pub local: Option<Ipv4Addr>,
    /// Theirs: what we write into our packets. `None` until the Outgoing-Call-Reply has named it;
    /// until then packets are received and nothing is sent.
    pub peer_call_id: Option<u16>,
    /// Counters that control reads and the worker alone writes.
    pub counters: Arc<SessionCounters>,
}

/// How one direction of MPPE is keyed.
#[derive(Clone, Debug)]
pub struct MppeSpec {
    /// Start key of this direction.
    pub start_key: StartKey,
    /// Stateless or stateful.
    pub mode: KeyMode,
}

/// The way to a peer that the fast path takes: frames are addressed to the next hop by us, and the
/// routing of the kernel is not asked. Control keeps it true, and takes it back when in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that packets leave through.
    pub interface: u32,
    /// Ethernet address of the router, or of the peer itself.
    pub mac: [u8; 6],
    /// Outer source address: the one that the route chooses.
    pub source: Ipv4Addr,
    /// Octets of the longest IPv4 packet that goes this way; longer ones go over the raw socket,
    /// which fragments.
    pub packet_len_max: u16,
}

/// What lets IP packets through a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// The TUN device that the session's packets go to and come from.
    pub tun: TunId,
    /// Our address inside the tunnel.
    pub local: Ipv4Addr,
    /// The peer's address inside the tunnel: with a shared TUN, packets for it go to this session.
    pub peer: Ipv4Addr,
    /// Leave out the first octet of the PPP protocol field (RFC 1661 6.5) when sending.
    pub compress_protocol: bool,
    /// Leave out FF 03 (RFC 1661 6.6) when sending.
    pub compress_address_control: bool,
    /// IP packets may pass only encrypted: in the clear they are dropped, both ways, and counted.
    pub require_encryption: bool,
    /// Drop what the peer sends from another source address than `peer`.
    pub check_source: bool,
}

/// What lets IPv6 packets through a session whose network is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Spec {
    /// The peer's link-local address: with a shared TUN, packets for it go to this session, and
    /// with `check_source` only packets from it are let in.
    pub peer: Ipv6Addr,
}

/// One order to the worker that owns the call.
#[derive(Debug)]
pub enum Command {
    /// Makes the session. Every frame it receives is punted until `OpenNetwork`.
    Install(SessionSpec),
    /// The peer's Call ID has become known.
    SetPeerCallId {
        /// Session.
        call_id: CallId,
        /// What we write into our packets from now on.
        peer_call_id: u16,
    },
    /// Sends one PPP frame (with FF 03 and protocol where they belong), never encrypted.
    Inject {
        /// Session.
        call_id: CallId,
        /// Whole PPP frame as it stands behind the GRE header.
        frame: Bytes,
    },
    /// Keys what we receive; `None` forgets the key.
    SetReceiveKey {
        /// Session.
        call_id: CallId,
        /// Key of the direction from the peer to us.
        mppe: Option<MppeSpec>,
    },
    /// Keys what we send; `None` forgets the key.
    SetSendKey {
        /// Session.
        call_id: CallId,
        /// Key of the direction from us to the peer.
        mppe: Option<MppeSpec>,
    },
    /// The peer sent a CCP Reset-Request: the next packet starts afresh, with the flushed bit.
    ResetSendKey {
        /// Session.
        call_id: CallId,
    },
    /// IPCP is up: IP packets flow.
    OpenNetwork {
        /// Session.
        call_id: CallId,
        /// Where to and how.
        network: NetworkSpec,
    },
    /// IPCP is down: IP packets are dropped, control frames still pass.
    CloseNetwork {
        /// Session.
        call_id: CallId,
    },
    /// IPV6CP is up: while the network is open, IPv6 packets flow, too; `None` ends that, as
    /// `CloseNetwork` does. Refused when another session of a shared TUN has the same peer address.
    SetIpv6 {
        /// Session.
        call_id: CallId,
        /// Where to.
        ipv6: Option<Ipv6Spec>,
    },
    /// From now on the session's packets go to this next hop through the packet socket; `None`, as
    /// at the start, is the raw socket, where the kernel finds the way.
    SetNextHop {
        /// Session.
        call_id: CallId,
        /// Where to, when it is known for certain.
        next_hop: Option<NextHop>,
    },
    /// Forgets the session.
    Remove {
        /// Session.
        call_id: CallId,
    },
    /// Serves this TUN device from now on.
    AttachTun {
        /// Its name between control and worker.
        tun: TunId,
        /// A non-blocking TUN queue.
        fd: OwnedFd,
        /// What was agreed with the kernel when it was opened.
        features: TunFeatures,
        /// One session owns it (a client's `ppp0`): no look-up by address. `None`: shared.
        owner: Option<CallId>,
    },
    /// Closes the TUN device.
    DetachTun {
        /// Which.
        tun: TunId,
    },
    /// Sends through this socket (`sys::packet_socket`) where a next hop is known.
    AttachPacketSocket {
        /// The socket.
        fd: OwnedFd,
    },
    /// Ends the worker after what is queued has been done.
    Stop,
}

/// One report from a worker.
#[derive(Debug)]
pub enum Notice {
    /// A PPP frame that is not the data plane's: LCP, CHAP, CCP, IPCP, IPV6CP, or an unknown
    /// protocol.
    Punt {
        /// Session.
        call_id: CallId,
        /// The PPP frame as received, without the GRE header.
        frame: Bytes,
    },
    /// The stateful decryptor lost its place: control sends a CCP Reset-Request. Sent once for a
    /// loss, and again when the worker still waits after `limits::RESET_REQUEST_INTERVAL_MS`.
    ResetNeeded {
        /// Session.
        call_id: CallId,
    },
    /// More keys would have to be skipped than `limits` allows, again and again: the peer's counter
    /// and ours have parted for good.
    MppeLost {
        /// Session.
        call_id: CallId,
    },
    /// The TUN device is gone (someone deleted it).
    TunLost {
        /// Which.
        tun: TunId,
    },
    /// The worker cannot go on, with the reason in words that name the remedy.
    Failed {
        /// For a person.
        reason: String,
    },
    /// The last notice of a worker.
    Stopped,
}
