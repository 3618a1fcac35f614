//! Finds out whether a packet goes on where those before it end, so that they may be written to a
//! TUN device as one super-packet.
//!
//! The rules are those of Linux's receive offload: splitting the super-packet again gives back the
//! packets that came, octet for octet, but for identifications that mean nothing (RFC 6864 4.1). Whoever joins TCP segments vouches for them, since the
//! kernel does not look at their checksums any more: so they are verified here.

use super::VnetHeader;
use super::checksum::Sum;
use super::headers::{HEADERS_LEN_MAX, IpHeader, TCP, TCP_LEN_MIN, ipv4, put, tcp, u16_at, u32_at};
use crate::limits::RUN_PACKETS_MAX;

/// Octets of an IP packet, at most.
const PACKET_LEN_MAX: usize = 65535;

/// In-order TCP segments of one flow that differ only in what a super-packet tells of each.
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

/// A TCP segment with payload, not yet verified.
struct Segment {
    ip: IpHeader,
    headers_len: usize,
}

impl Run {
    /// A run that begins with `packet`; `None` when nothing can be joined to it.
    #[must_use]
    pub fn begin(packet: &[u8]) -> Option<Self> {
        let segment = Segment::parse(packet)?;
        let (ip, headers_len) = (segment.ip, segment.headers_len);
        let size = packet.len() - headers_len;
        let is_pushed = packet[ip.len + tcp::FLAGS] & tcp::PSH != 0;
        let fits = u16::try_from(size).is_ok();
        if is_pushed || !fits || !segment.is_intact(packet) {
            return None;
        }
        let mut headers = [0; HEADERS_LEN_MAX];
        headers[..headers_len].copy_from_slice(&packet[..headers_len]);
        let sequence = u32_at(packet, ip.len + tcp::SEQUENCE);
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
        self.is_pushed = headers[self.ip.len + tcp::FLAGS] & tcp::PSH != 0;
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
        let (ip_header, segment) = first[..self.headers_len].split_at_mut(self.ip.len);
        self.ip.set_len(ip_header, self.len);
        if self.is_pushed {
            segment[tcp::FLAGS] |= tcp::PSH;
        }
        let sum = self.ip.pseudo_header(ip_header, self.len - self.ip.len);
        put(segment, tcp::CHECKSUM, sum.partial());
        VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            gso_type: if self.ip.is_ipv4 {
                VnetHeader::GSO_TCP_IPV4
            } else {
                VnetHeader::GSO_TCP_IPV6
            },
            header_len: self.headers_len as u16,
            gso_size: self.size as u16,
            checksum_start: self.ip.len as u16,
            checksum_offset: tcp::CHECKSUM as u16,
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
        is_ip_alike
            && u32_at(segment, tcp::SEQUENCE) == self.next_sequence
            // Ports; acknowledgment and data offset; window; urgent pointer and options. The flags
            // of a `Segment` differ in PSH at most.
            && segment[..4] == first[..4]
            && segment[8..13] == first[8..13]
            && segment[14..16] == first[14..16]
            && segment[18..] == first[18..]
    }
}

impl Segment {
    /// A TCP segment with payload and no flags but ACK and PSH, without IP options, not cut and
    /// not padded.
    fn parse(packet: &[u8]) -> Option<Self> {
        let ip = IpHeader::parse(packet)?;
        let has_options = ip.is_ipv4 && ip.len > 20;
        if ip.protocol != TCP || has_options || ip.told_len(packet) != packet.len() {
            return None;
        }
        let segment = &packet[ip.len..];
        let header = segment.first_chunk::<TCP_LEN_MIN>()?;
        let tcp_len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
        let is_plain = header[tcp::FLAGS] & !tcp::PSH == tcp::ACK;
        // More than the header: there is payload.
        (tcp_len >= TCP_LEN_MIN && tcp_len < segment.len() && is_plain).then_some(Self {
            ip,
            headers_len: ip.len + tcp_len,
        })
    }

    /// Whether the checksums are right: what is joined gets new ones.
    fn is_intact(&self, packet: &[u8]) -> bool {
        let (ip_header, segment) = packet.split_at(self.ip.len);
        let is_ip_intact = !self.ip.is_ipv4 || Sum::default().with(ip_header).holds();
        let sum = self.ip.pseudo_header(ip_header, segment.len());
        is_ip_intact && sum.with(segment).holds()
    }
}
