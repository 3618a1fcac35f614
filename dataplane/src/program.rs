//! What control tells a worker, and what a worker tells control.
//!
//! One bounded queue each way for each worker. Commands take effect in the order in which they
//! were sent, and between batches, so control can put `SetReceiveKey` in front of the
//! Configure-Ack that permits the peer to use the key, and no packet can come between.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::capture::Tap;
use crate::counters::SessionCounters;
use crate::mppe::keys::{KeyMode, StartKey};
use crate::offload::TunFeatures;
use crate::rate_limit::TrafficLimits;
use crate::snapshot::SessionSnapshot;

/// The Call ID that *we* chose: it stands in the GRE key field of what the peer sends us
/// (RFC 2637 4.1), and names the session everywhere in this program. 0 is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u16);

impl CallId {
    /// Which of so many workers, at least one, receives the call's packets: the filters of their
    /// sockets say the same.
    #[must_use]
    pub const fn receiver(self, workers: u16) -> u16 {
        self.0 % workers
    }

    /// Which of so many workers, at least one, sends the call's packets where the directions are
    /// split: the one after the receiver.
    #[must_use]
    pub const fn sender(self, workers: u16) -> u16 {
        (self.receiver(workers) + 1) % workers
    }
}

/// Which directions of a session its worker carries. The halves of a split session share nothing
/// but counters, of which each writes its own: numbers and keys of the two directions are apart
/// in GRE and MPPE, too. What was received is then acknowledged by packets without a sequence
/// number (RFC 2637 4.1), and with no data packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Both.
    #[default]
    Both,
    /// From the peer: order, decryption, writes to the TUN device, punts, acknowledgments.
    Receive,
    /// To the peer: reads from the TUN device, encryption, sequence numbers, frames of control's.
    Send,
}

impl Role {
    /// Whether packets from the peer are taken.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::Both | Self::Receive)
    }

    /// Whether packets to the peer are made.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::Both | Self::Send)
    }
}

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
    /// What this worker does for the session.
    pub role: Role,
    /// Counters that control reads; each is written by one direction, and so by one worker.
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
    /// Ethernet address of the interface itself, when it may be given whole frames through an
    /// AF_XDP socket; with `None`, or without such a socket, packets go through the packet socket.
    pub local_mac: Option<[u8; 6]>,
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
    /// While the network is open, packets from these networks behind the peer are let in as well,
    /// and with a shared TUN packets for them go to this session.
    SetRoutes {
        /// Session.
        call_id: CallId,
        /// Networks with the bits of their prefixes, in place of those of before.
        networks: Box<[(Ipv4Addr, u8)]>,
    },
    /// From now on TCP connections through the session, both ways, are told of no larger segments
    /// than go into an IP packet of so many octets; `None`, as at the start, leaves them alone.
    ClampMss {
        /// Session.
        call_id: CallId,
        /// The MTU of the tunnel.
        mtu: Option<u16>,
    },
    /// From now on the session carries IP packets no faster, and no more of them, than this; at the
    /// start nothing is limited. Frames of control's are never held back. What it has used up of a
    /// rate stays used up when the rate changes.
    SetLimits {
        /// Session.
        call_id: CallId,
        /// Instead of what was before.
        limits: Box<TrafficLimits>,
    },
    /// From now on the session's packets go to this next hop, through the AF_XDP socket of its
    /// interface or else the packet socket; `None`, as at the start, is the raw socket, where the
    /// kernel finds the way.
    SetNextHop {
        /// Session.
        call_id: CallId,
        /// Where to, when it is known for certain.
        next_hop: Option<NextHop>,
    },
    /// Copies the session's inner packets into this tap from now on, until the session is removed,
    /// which ends the tap.
    Capture {
        /// Session.
        call_id: CallId,
        /// Where copies go.
        tap: Arc<Tap>,
    },
    /// Lets go of the taps of this session that nobody reads any more.
    EndCapture {
        /// Session.
        call_id: CallId,
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
        /// A non-blocking TUN queue; closed when nobody has it any more.
        fd: Arc<OwnedFd>,
        /// What was agreed with the kernel when it was opened.
        features: TunFeatures,
        /// One session owns it (a client's `ppp0`): no look-up by address. `None`: shared.
        owner: Option<CallId>,
        /// Which directions: who sends to the peer reads here, who receives from it writes.
        role: Role,
    },
    /// From now on packets out of this shared TUN device find their session by their source, not
    /// their destination: at the end where all sessions have one peer, and an address each.
    RouteBySource {
        /// The device.
        tun: TunId,
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
    /// Sends through this socket (`sys::xdp_socket`) what leaves through this interface. The worker
    /// says with [`Notice::XdpSocket`] what has become of it.
    AttachXdpSocket {
        /// The socket, as it was opened.
        fd: OwnedFd,
        /// Index of the interface.
        interface: u32,
    },
    /// Closes the AF_XDP socket of this interface, if there is one.
    DetachXdpSocket {
        /// Index of the interface.
        interface: u32,
    },
    /// Puts a session that was just installed where another process had left it.
    Import {
        /// Session.
        call_id: CallId,
        /// As the other process exported it.
        snapshot: Box<SessionSnapshot>,
    },
    /// A worker that was spawned as held lets its GRE socket collect packets from now on, without
    /// looking at them, and answers [`Notice::Collecting`] when that and everything before is done.
    Collect,
    /// Tells of all sessions with [`Notice::Exported`].
    Export {
        /// Before it does, it stops taking packets in, and deals with those that it has taken; then
        /// it stands still until `Resume`, and only obeys.
        is_last: bool,
    },
    /// A worker that stands still goes on.
    Resume {
        /// Packets that may have been sent since the sessions were exported, by whom ever: so many
        /// numbers and keys are left out, so that none is used twice.
        lead: u32,
    },
    /// Ends the worker after what is queued has been done.
    Stop,
}

/// What the two workers of a split session are told.
#[derive(Debug, Default)]
pub struct Halves {
    /// The worker that receives.
    pub receive: Option<Command>,
    /// The worker that sends.
    pub send: Option<Command>,
}

impl Command {
    /// Parts an order that concerns a whole session, or its TUN device, into those for its halves.
    /// What is about one direction has one half; what is a worker's own (`AttachPacketSocket`,
    /// `AttachXdpSocket`, `DetachXdpSocket`, `Collect`, `Export`, `Resume`, `Stop`) goes to the
    /// receiver's worker as it is.
    ///
    /// Who gives the receiver its half first keeps promises to the peer: a frame that goes out
    /// later, at the sender, may permit what was prepared for at the receiver.
    #[must_use]
    pub fn split(self) -> Halves {
        let both = |receive, send| Halves {
            receive: Some(receive),
            send: Some(send),
        };
        let alike = |half: &dyn Fn() -> Self| both(half(), half());
        match self {
            Self::Install(spec) => {
                let half = |role| {
                    Self::Install(SessionSpec {
                        role,
                        ..spec.clone()
                    })
                };
                both(half(Role::Receive), half(Role::Send))
            }
            Self::AttachTun {
                tun,
                fd,
                features,
                owner,
                ..
            } => {
                let half = |role| Self::AttachTun {
                    tun,
                    fd: Arc::clone(&fd),
                    features,
                    owner,
                    role,
                };
                both(half(Role::Receive), half(Role::Send))
            }
            Self::SetPeerCallId {
                call_id,
                peer_call_id,
            } => alike(&|| Self::SetPeerCallId {
                call_id,
                peer_call_id,
            }),
            Self::OpenNetwork { call_id, network } => alike(&|| Self::OpenNetwork {
                call_id,
                network: network.clone(),
            }),
            Self::CloseNetwork { call_id } => alike(&|| Self::CloseNetwork { call_id }),
            Self::SetIpv6 { call_id, ipv6 } => alike(&|| Self::SetIpv6 { call_id, ipv6 }),
            Self::SetRoutes { call_id, networks } => alike(&|| Self::SetRoutes {
                call_id,
                networks: networks.clone(),
            }),
            // Segment sizes are told in both directions.
            Self::ClampMss { call_id, mtu } => alike(&|| Self::ClampMss { call_id, mtu }),
            // Each half keeps its own rate, and both the quotas.
            Self::SetLimits { call_id, limits } => alike(&|| Self::SetLimits {
                call_id,
                limits: limits.clone(),
            }),
            // Acknowledgments take the same way as data.
            Self::SetNextHop { call_id, next_hop } => {
                alike(&|| Self::SetNextHop { call_id, next_hop })
            }
            // Each half copies its own direction.
            Self::Capture { call_id, tap } => {
                let half = |tap| Self::Capture { call_id, tap };
                both(half(Arc::clone(&tap)), half(tap))
            }
            Self::EndCapture { call_id } => alike(&|| Self::EndCapture { call_id }),
            Self::Import { call_id, snapshot } => {
                let (receive, send) = snapshot.halves();
                let half = |snapshot| Self::Import {
                    call_id,
                    snapshot: Box::new(snapshot),
                };
                both(half(receive), half(send))
            }
            Self::Remove { call_id } => alike(&|| Self::Remove { call_id }),
            Self::DetachTun { tun } => alike(&|| Self::DetachTun { tun }),
            Self::RouteBySource { tun } => alike(&|| Self::RouteBySource { tun }),
            send @ (Self::Inject { .. } | Self::SetSendKey { .. } | Self::ResetSendKey { .. }) => {
                Halves {
                    send: Some(send),
                    ..Halves::default()
                }
            }
            receive @ (Self::SetReceiveKey { .. }
            | Self::AttachPacketSocket { .. }
            | Self::AttachXdpSocket { .. }
            | Self::DetachXdpSocket { .. }
            | Self::Collect
            | Self::Export { .. }
            | Self::Resume { .. }
            | Self::Stop) => Halves {
                receive: Some(receive),
                ..Halves::default()
            },
        }
    }
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
    /// The session has carried all that it may: nothing passes any more. Told once, by each half of
    /// a split session.
    QuotaSpent {
        /// Session.
        call_id: CallId,
    },
    /// The TUN device is gone (someone deleted it).
    TunLost {
        /// Which.
        tun: TunId,
    },
    /// An AF_XDP socket is in use, or is not any more: the packet socket does its work then.
    XdpSocket {
        /// Whose it is.
        worker: u16,
        /// Index of the interface.
        interface: u32,
        /// The error is in words, for a person.
        state: Result<(), String>,
    },
    /// The answer to `Collect`.
    Collecting,
    /// The answer to `Export`: all sessions of the worker, or the halves that it has.
    Exported {
        /// Which worker.
        worker: u16,
        /// In no order.
        sessions: Vec<(CallId, SessionSnapshot)>,
    },
    /// The worker cannot go on, with the reason in words that name the remedy.
    Failed {
        /// For a person.
        reason: String,
    },
    /// The last notice of a worker.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which halves an order has.
    fn halves(command: Command) -> (bool, bool) {
        let Halves { receive, send } = command.split();
        (receive.is_some(), send.is_some())
    }

    #[test]
    fn each_half_is_told_what_it_has_to_know() {
        let (call_id, mppe, tun) = (CallId(7), None, TunId(0));
        let set_receive_key = Command::SetReceiveKey {
            call_id,
            mppe: mppe.clone(),
        };
        assert_eq!(halves(set_receive_key), (true, false));
        assert_eq!(halves(Command::SetSendKey { call_id, mppe }), (false, true));
        assert_eq!(halves(Command::ResetSendKey { call_id }), (false, true));
        let frame = Bytes::from_static(b"\xFF\x03\xC0\x21");
        assert_eq!(halves(Command::Inject { call_id, frame }), (false, true));
        assert_eq!(halves(Command::CloseNetwork { call_id }), (true, true));
        assert_eq!(halves(Command::Remove { call_id }), (true, true));
        assert_eq!(halves(Command::DetachTun { tun }), (true, true));
        let ipv6 = None;
        assert_eq!(halves(Command::SetIpv6 { call_id, ipv6 }), (true, true));
        let tap = Tap::new();
        assert_eq!(halves(Command::Capture { call_id, tap }), (true, true));
        assert_eq!(halves(Command::EndCapture { call_id }), (true, true));
        let mtu = Some(1_400);
        assert_eq!(halves(Command::ClampMss { call_id, mtu }), (true, true));
        let limits = Box::new(TrafficLimits::NONE);
        assert_eq!(halves(Command::SetLimits { call_id, limits }), (true, true));
        let next_hop = None;
        let set_next_hop = Command::SetNextHop { call_id, next_hop };
        assert_eq!(halves(set_next_hop), (true, true));
    }

    #[test]
    fn the_halves_of_a_session_count_into_the_same_counters() {
        let spec = SessionSpec {
            call_id: CallId(7),
            peer: Ipv4Addr::LOCALHOST,
            local: None,
            peer_call_id: Some(8),
            role: Role::Both,
            counters: Arc::default(),
        };
        let counters = Arc::clone(&spec.counters);
        let halves = Command::Install(spec).split();
        let (Some(Command::Install(receive)), Some(Command::Install(send))) =
            (halves.receive, halves.send)
        else {
            panic!("both halves are installed")
        };
        assert_eq!((receive.role, send.role), (Role::Receive, Role::Send));
        assert_eq!(receive.peer_call_id, send.peer_call_id);
        assert!(Arc::ptr_eq(&receive.counters, &counters));
        assert!(Arc::ptr_eq(&send.counters, &counters));
    }

    #[test]
    fn two_workers_or_more_part_every_call() {
        for workers in [2, 3, 64, u16::MAX] {
            for call_id in [0, 1, 63, 64, u16::MAX - 1, u16::MAX].map(CallId) {
                let (receiver, sender) = (call_id.receiver(workers), call_id.sender(workers));
                assert!(receiver < workers && sender < workers && receiver != sender);
            }
        }
        assert_eq!(CallId(9).sender(1), 0);
    }
}
