//! What is received: one TCP flow in MPPE, in GRE, made by our own way out.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use benches::sessions;
use dataplane::encap::{Outgoing, encap};
use dataplane::frame::{Slot, VecArena};
use dataplane::limits::{BATCH_PACKETS, HEADROOM_BYTES, SLOT_BYTES};
use dataplane::offload::checksum::Sum;
use dataplane::program::CallId;
use dataplane::session::SessionTable;
use dataplane::sys::gre_socket::{self, GreSocketConfig};
use dataplane::wire::ipv4;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::{LOCAL, PEER};

/// Octets of an inner packet.
pub(super) const PACKET_BYTES: usize = 1400;
/// The flow's source is the peer inside; its destination is nowhere.
pub(super) const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const TCP: u8 = 6;
const TCP_HEADER_BYTES: usize = 20;
/// Of our session at the receiver, and of the sender's one session.
pub(super) const CALL: CallId = CallId(0);

/// The peer: its session, its keys, and a socket that is given whole IPv4 packets.
pub(super) struct Sender {
    table: SessionTable,
    arena: VecArena,
    batch: Vec<Outgoing>,
    /// Segments sent so far.
    segments: u32,
    socket: OwnedFd,
    /// Takes our acknowledgments, and drops them: without it the kernel would answer each.
    _ear: OwnedFd,
}

impl Sender {
    pub(super) fn new() -> Result<Self> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        );
        let ear = gre_socket::open(&GreSocketConfig {
            // Our Call ID is even, so the filter passes nothing.
            index: 1,
            count: 2,
            local: Some(PEER),
            mark: None,
        })?;
        Ok(Self {
            table: sessions(1),
            arena: VecArena::new(BATCH_PACKETS as u16, SLOT_BYTES as u16),
            batch: Vec::with_capacity(BATCH_PACKETS),
            segments: 0,
            socket: socket.context("no raw socket")?,
            _ear: ear,
        })
    }

    /// Queues so many packets in the receiver's socket.
    pub(super) fn send(&mut self, packets: usize) -> Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(LOCAL, 0));
        let mut left = packets;
        while left > 0 {
            self.fill(left.min(BATCH_PACKETS));
            left -= self.batch.len();
            encap(&mut self.table, &mut self.arena, &mut self.batch, 0);
            for outgoing in &self.batch {
                let mut frame = outgoing.frame;
                if outgoing.dropped.is_some() || !frame.push_header(ipv4::HEADER_LEN) {
                    bail!("cannot make a packet: {:?}", outgoing.dropped);
                }
                let len = frame.len() as u16;
                let header = ipv4::header(len, 0, ipv4::PROTOCOL_GRE, PEER, LOCAL);
                let packet = frame.bytes_mut(&mut self.arena);
                packet[..header.len()].copy_from_slice(&header);
                sendto(self.socket.as_raw_fd(), packet, &to, MsgFlags::empty())
                    .context("cannot send on the loopback")?;
            }
        }
        Ok(())
    }

    /// The next segments of the flow, as they come from TUN.
    fn fill(&mut self, packets: usize) {
        self.batch.clear();
        for slot in (0..packets as u16).map(Slot) {
            let packet = segment(self.segments);
            self.segments = self.segments.wrapping_add(1);
            let frame = self.arena.fill(slot, HEADROOM_BYTES as u16, &packet);
            self.batch.push(Outgoing::new(CALL, frame));
        }
    }
}

/// A full segment of one flow, with true checksums.
pub(super) fn segment(number: u32) -> [u8; PACKET_BYTES] {
    let sequence = number.wrapping_mul((PACKET_BYTES - ipv4::HEADER_LEN - TCP_HEADER_BYTES) as u32);
    let mut packet = [7; PACKET_BYTES];
    let (header, tcp) = packet.split_at_mut(ipv4::HEADER_LEN);
    header.copy_from_slice(&ipv4::header(
        PACKET_BYTES as u16,
        number as u16,
        TCP,
        SOURCE,
        DESTINATION,
    ));
    // Ports, sequence and acknowledgment number, 5 words of header with ACK, window, no checksum.
    tcp[..4].copy_from_slice(&[0x10, 0, 0x20, 0]);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..TCP_HEADER_BYTES].copy_from_slice(&[0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let sum = Sum::default().with_pseudo_header(&header[12..20], TCP, tcp.len());
    let checksum = sum.with(tcp).finish();
    tcp[16..18].copy_from_slice(&checksum);
    packet
}
