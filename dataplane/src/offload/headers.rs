//! IP, TCP and UDP headers (RFC 791 3.1, RFC 8200 3, RFC 9293 3.1, RFC 768), as far as offload
//! reads and rewrites them.

use super::checksum::Sum;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const IPV6_LEN: usize = 40;
pub(super) const UDP_LEN: usize = 8;
pub(super) const TCP_LEN_MIN: usize = 20;

/// The longest that both headers together can be here.
pub(super) const HEADERS_LEN_MAX: usize = 60 + 60;

/// Offsets in a TCP header.
pub(super) mod tcp {
    pub(in super::super) const SEQUENCE: usize = 4;
    pub(in super::super) const DATA_OFFSET: usize = 12;
    pub(in super::super) const FLAGS: usize = 13;
    pub(in super::super) const CHECKSUM: usize = 16;
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const PSH: u8 = 0x08;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const CWR: u8 = 0x80;
}

/// Offsets in a UDP header.
pub(super) mod udp {
    pub(in super::super) const LENGTH: usize = 4;
    pub(in super::super) const CHECKSUM: usize = 6;
}

/// Offsets in an IPv4 header.
pub(super) mod ipv4 {
    pub(in super::super) const TOTAL_LEN: usize = 2;
    pub(in super::super) const ID: usize = 4;
    pub(in super::super) const FRAGMENT: usize = 6;
    pub(in super::super) const CHECKSUM: usize = 10;
}

/// An IP header of which the payload is known: no fragment, no extension header of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpHeader {
    /// Octets of the header, with IPv4 options.
    pub(super) len: usize,
    pub(super) is_ipv4: bool,
    /// What follows it.
    pub(super) protocol: u8,
}

impl IpHeader {
    /// Reads the header in front of `packet`, which holds all of it. The lengths in it are not
    /// compared with the packet: those of a super-packet may not fit their fields.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header = packet.first_chunk::<20>()?;
                let len = usize::from(header[0] & 0x0F) * 4;
                let fragment = u16::from_be_bytes([header[6], header[7]]);
                // Everything but Don't Fragment.
                let is_whole = fragment & !0x4000 == 0;
                (len >= 20 && len <= packet.len() && is_whole).then_some(Self {
                    len,
                    is_ipv4: true,
                    protocol: header[9],
                })
            }
            6 => {
                let header = packet.first_chunk::<IPV6_LEN>()?;
                Some(Self {
                    len: IPV6_LEN,
                    is_ipv4: false,
                    protocol: header[6],
                })
            }
            _ => None,
        }
    }

    /// Source and destination in the header that this was read from.
    pub(super) fn addresses<'a>(&self, header: &'a [u8]) -> &'a [u8] {
        if self.is_ipv4 {
            &header[12..20]
        } else {
            &header[8..40]
        }
    }

    /// The sum of the pseudo-header for `len` octets behind this header.
    pub(super) fn pseudo_header(&self, header: &[u8], len: usize) -> Sum {
        Sum::default().with_pseudo_header(self.addresses(header), self.protocol, len)
    }

    /// The length of the whole packet that the header tells.
    pub(super) fn told_len(&self, header: &[u8]) -> usize {
        if self.is_ipv4 {
            usize::from(u16_at(header, ipv4::TOTAL_LEN))
        } else {
            IPV6_LEN + usize::from(u16_at(header, 4))
        }
    }

    /// Writes the length of the whole packet, and what depends on it.
    pub(super) fn set_len(&self, header: &mut [u8], packet_len: usize) {
        if self.is_ipv4 {
            put_u16(header, ipv4::TOTAL_LEN, packet_len as u16);
            put(header, ipv4::CHECKSUM, [0; 2]);
            let checksum = Sum::default().with(&header[..self.len]).finish();
            put(header, ipv4::CHECKSUM, checksum);
        } else {
            put_u16(header, 4, (packet_len - IPV6_LEN) as u16);
        }
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

pub(super) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, value.to_be_bytes());
}
