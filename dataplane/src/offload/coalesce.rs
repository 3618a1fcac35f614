//! Finds out whether a packet goes on where those before it end, so that they may be written to a
//! TUN device as one super-packet.
//!
//! The rules are those of Linux's receive offload: splitting the super-packet again gives back the
//! packets that came, octet for octet, but for identifications that mean nothing (RFC 6864 4.1).
//! Whoever joins packets vouches for them, since the kernel does not look at their checksums any
//! more: so they are verified here.

use super::checksum::Sum;
use super::headers::{
    HEADERS_LEN_MAX, IpHeader, TCP, TCP_LEN_MIN, UDP, UDP_LEN, ipv4, put, put_u16, tcp, u16_at,
    u32_at, udp,
};
use super::{TunFeatures, VnetHeader};
use crate::limits::RUN_PACKETS_MAX;

/// Octets of an IP packet, at most.
const PACKET_LEN_MAX: usize = 65535;

/// In-order TCP segments, or UDP datagrams of one length, of one flow that differ only in what a
/// super-packet tells of each.
#[derive(Clone, Debug)]
pub struct Run {
    /// Headers of the first packet.
    headers: [u8; HEADERS_LEN_MAX],
    ip: IpHeader,
    headers_len: usize,
    /// Payload octets of every packet but the last, which may have fewer.
    size: usize,
    /// Octets of the super-packet so far.
    len: usize,
    count: usize,
    ids: Ids,
    /// Of TCP; UDP has none.
    next_sequence: u32,
    /// The last one said PSH.
    is_pushed: bool,
    /// Nothing may follow the last one.
    is_closed: bool,
}

/// How the identification of IPv4 goes on from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    /// There is one packet, or it is IPv6.
    Any,
    /// By one, as it will again when the super-packet is split.
    Rising,
    /// Not at all: it means nothing, since Don't Fragment is set (RFC 6864 4.1).
    Fixed,
}

/// A TCP segment or UDP datagram with payload, not yet verified.
struct Segment {
    ip: IpHeader,
    headers_len: usize,
}

impl Run {
    /// A run that begins with `packet`; `None` when nothing can be joined to it, on a device with
    /// these features.
    #[must_use]
    pub fn begin(packet: &[u8], features: TunFeatures) -> Option<Self> {
        let segment = Segment::parse(packet)?;
        let (ip, headers_len) = (segment.ip, segment.headers_len);
        if ip.protocol == UDP && !features.udp {
            return None;
        }
        let size = packet.len() - headers_len;
        let is_pushed = segment.is_pushed(packet);
        let fits = u16::try_from(size).is_ok();
        if is_pushed || !fits || !segment.is_intact(packet) {
            return None;
        }
        let mut headers = [0; HEADERS_LEN_MAX];
        headers[..headers_len].copy_from_slice(&packet[..headers_len]);
        let sequence = match ip.protocol {
            TCP => u32_at(packet, ip.len + tcp::SEQUENCE),
            _ => 0,
        };
        Some(Self {
            headers,
            ip,
            headers_len,
            size,
            len: packet.len(),
            count: 1,
            ids: Ids::Any,
            next_sequence: sequence.wrapping_add(size as u32),
            is_pushed,
            is_closed: false,
        })
    }

    /// Packets in the run.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Adds `packet` when it goes on where the run ends. Returns where its payload begins; `None`,
    /// and nothing changed, when it does not belong to the run.
    #[must_use]
    pub fn join(&mut self, packet: &[u8]) -> Option<usize> {
        let segment = Segment::parse(packet)?;
        let payload_len = packet.len() - segment.headers_len;
        let has_room = !self.is_closed
            && self.count < RUN_PACKETS_MAX
            && self.len + payload_len <= PACKET_LEN_MAX
            && payload_len <= self.size;
        if !has_room || segment.headers_len != self.headers_len || segment.ip != self.ip {
            return None;
        }
        let headers = &packet[..self.headers_len];
        let ids = self.follow_id(headers)?;
        if !self.is_alike(headers) || !segment.is_intact(packet) {
            return None;
        }
        self.ids = ids;
        self.count += 1;
        self.len += payload_len;
        self.next_sequence = self.next_sequence.wrapping_add(payload_len as u32);
        self.is_pushed = segment.is_pushed(packet);
        self.is_closed = self.is_pushed || payload_len < self.size;
        Some(self.headers_len)
    }

    /// Rewrites the headers of the run's first packet, at the start of `first`, to those of the
    /// super-packet, and returns what has to stand in front of them. One packet alone stays as it
    /// is.
    ///
    /// # Panics
    /// When `first` is shorter than these headers.
    pub fn finish(&self, first: &mut [u8]) -> VnetHeader {
        if self.count < 2 {
            return VnetHeader::default();
        }
        let (ip_header, transport) = first[..self.headers_len].split_at_mut(self.ip.len);
        self.ip.set_len(ip_header, self.len);
        let transport_len = self.len - self.ip.len;
        if self.ip.protocol == UDP {
            put_u16(transport, udp::LENGTH, transport_len as u16);
        } else if self.is_pushed {
            transport[tcp::FLAGS] |= tcp::PSH;
        }
        let (gso_type, checksum_offset) = match (self.ip.protocol, self.ip.is_ipv4) {
            (UDP, _) => (VnetHeader::GSO_UDP, udp::CHECKSUM),
            (_, true) => (VnetHeader::GSO_TCP_IPV4, tcp::CHECKSUM),
            (_, false) => (VnetHeader::GSO_TCP_IPV6, tcp::CHECKSUM),
        };
        let sum = self.ip.pseudo_header(ip_header, transport_len);
        put(transport, checksum_offset, sum.partial());
        VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            gso_type,
            header_len: self.headers_len as u16,
            gso_size: self.size as u16,
            checksum_start: self.ip.len as u16,
            checksum_offset: checksum_offset as u16,
        }
    }

    /// How identifications go on with this packet, if they do.
    fn follow_id(&self, headers: &[u8]) -> Option<Ids> {
        if !self.ip.is_ipv4 {
            return Some(Ids::Any);
        }
        let (first, id) = (u16_at(&self.headers, ipv4::ID), u16_at(headers, ipv4::ID));
        let may_be_fixed = headers[ipv4::FRAGMENT] & 0x40 != 0;
        let is_next = id == first.wrapping_add(self.count as u16);
        match self.ids {
            Ids::Any | Ids::Rising if is_next => Some(Ids::Rising),
            Ids::Any | Ids::Fixed if id == first && may_be_fixed => Some(Ids::Fixed),
            _ => None,
        }
    }

    /// Whether the headers are those of the first packet, except for what differs from segment to
    /// segment; lengths and identification have been looked at.
    fn is_alike(&self, headers: &[u8]) -> bool {
        let (ip, segment) = headers.split_at(self.ip.len);
        let (first_ip, first) = self.headers[..self.headers_len].split_at(self.ip.len);
        let is_ip_alike = if self.ip.is_ipv4 {
            // Version, header length, TOS with ECN; flags, TTL, protocol; addresses.
            ip[..2] == first_ip[..2] && ip[6..10] == first_ip[6..10] && ip[12..] == first_ip[12..]
        } else {
            // All but the payload length: traffic class with ECN, flow label, hop limit, addresses.
            ip[..4] == first_ip[..4] && ip[6..] == first_ip[6..]
        };
        // Ports; the lengths of datagrams are in the run's.
        let is_flow = is_ip_alike && segment[..4] == first[..4];
        if self.ip.protocol == UDP {
            return is_flow;
        }
        is_flow
            && u32_at(segment, tcp::SEQUENCE) == self.next_sequence
            // Acknowledgment and data offset; window; urgent pointer and options. The flags of a
            // `Segment` differ in PSH at most.
            && segment[8..13] == first[8..13]
            && segment[14..16] == first[14..16]
            && segment[18..] == first[18..]
    }
}

impl Segment {
    /// A packet with payload, without IP options, not cut and not padded: a TCP segment without
    /// flags but ACK and PSH, or a UDP datagram with a checksum.
    fn parse(packet: &[u8]) -> Option<Self> {
        let ip = IpHeader::parse(packet)?;
        let has_options = ip.is_ipv4 && ip.len > 20;
        if has_options || ip.told_len(packet) != packet.len() {
            return None;
        }
        let transport = &packet[ip.len..];
        let header_len = match ip.protocol {
            TCP => tcp_header_len(transport),
            UDP => udp_header_len(transport),
            _ => None,
        }?;
        // More than the header: there is payload.
        (header_len < transport.len()).then_some(Self {
            ip,
            headers_len: ip.len + header_len,
        })
    }

    /// The sender has nothing more to say for now.
    fn is_pushed(&self, packet: &[u8]) -> bool {
        self.ip.protocol == TCP && packet[self.ip.len + tcp::FLAGS] & tcp::PSH != 0
    }

    /// Whether the checksums are right: what is joined gets new ones.
    fn is_intact(&self, packet: &[u8]) -> bool {
        let (ip_header, segment) = packet.split_at(self.ip.len);
        let is_ip_intact = !self.ip.is_ipv4 || Sum::default().with(ip_header).holds();
        let sum = self.ip.pseudo_header(ip_header, segment.len());
        is_ip_intact && sum.with(segment).holds()
    }
}

fn tcp_header_len(segment: &[u8]) -> Option<usize> {
    let header = segment.first_chunk::<TCP_LEN_MIN>()?;
    let len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
    let is_plain = header[tcp::FLAGS] & !tcp::PSH == tcp::ACK;
    (len >= TCP_LEN_MIN && is_plain).then_some(len)
}

/// Datagrams without a checksum would get one: they stay alone.
fn udp_header_len(datagram: &[u8]) -> Option<usize> {
    let header = datagram.first_chunk::<UDP_LEN>()?;
    let is_whole = usize::from(u16_at(header, udp::LENGTH)) == datagram.len();
    let has_checksum = u16_at(header, udp::CHECKSUM) != 0;
    (is_whole && has_checksum).then_some(UDP_LEN)
}
