//! Cuts a super-packet that was read from a TUN device into the packets that go on the wire, and
//! completes checksums that the kernel has left to the device.

use super::VnetHeader;
use super::checksum::Sum;
use super::headers::{
    IpHeader, TCP, TCP_LEN_MIN, UDP, UDP_LEN, ipv4, put, put_u16, tcp, u16_at, u32_at, udp,
};

/// Something read from a TUN device, and how to cut it.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    /// Without virtio-net header.
    packet: &'a [u8],
    cut: Cut,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// It is one packet. Where the octets to be summed begin and where their checksum goes, when
    /// that is still to be done.
    Not { checksum: Option<(usize, usize)> },
    /// Each piece has the first `headers_len` octets, and `size` of the others.
    Into {
        ip: IpHeader,
        headers_len: usize,
        size: usize,
    },
}

/// Why something read from a TUN device cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Shorter than a virtio-net header, or nothing behind it.
    #[error("it is cut short")]
    Truncated,
    /// The checksum is to go, or to begin, outside the packet.
    #[error("its checksum lies outside")]
    ChecksumPlace,
    /// A kind of super-packet that was not asked for.
    #[error("super-packets of type {0} were not asked for")]
    Type(u8),
    /// The headers are not those of the super-packet's type.
    #[error("its headers are not of its type")]
    Headers,
    /// A super-packet without a length for its pieces.
    #[error("its pieces have no length")]
    Size,
    /// A packet, or piece, that no slot can hold.
    #[error("its pieces of {0} octets are too long")]
    TooLong(usize),
}

impl<'a> Split<'a> {
    /// Reads what came from a device with virtio-net headers. No piece is longer than `len_max`.
    ///
    /// # Errors
    /// It is to be dropped.
    pub fn parse(bytes: &'a [u8], len_max: usize) -> Result<Self, SplitError> {
        let header = VnetHeader::parse(bytes).ok_or(SplitError::Truncated)?;
        let packet = &bytes[VnetHeader::LEN..];
        if header.gso_type == VnetHeader::GSO_NONE {
            return Self::one(header, packet, len_max);
        }
        let protocol = match header.gso_type & !VnetHeader::GSO_ECN {
            VnetHeader::GSO_TCP_IPV4 | VnetHeader::GSO_TCP_IPV6 => TCP,
            VnetHeader::GSO_UDP => UDP,
            _ => return Err(SplitError::Type(header.gso_type)),
        };
        let ip = IpHeader::parse(packet).filter(|ip| ip.protocol == protocol);
        let ip = ip.ok_or(SplitError::Headers)?;
        let headers_len = ip.len + transport_len(protocol, &packet[ip.len..])?;
        let size = usize::from(header.gso_size);
        if size == 0 {
            return Err(SplitError::Size);
        }
        let payload_len = packet.len() - headers_len;
        let longest = headers_len + size.min(payload_len);
        if longest > len_max {
            return Err(SplitError::TooLong(longest));
        }
        let cut = Cut::Into {
            ip,
            headers_len,
            size,
        };
        let count = payload_len.div_ceil(size).max(1);
        Ok(Self { packet, cut, count })
    }

    /// The same for a device without virtio-net headers.
    ///
    /// # Errors
    /// It is to be dropped.
    pub fn plain(packet: &'a [u8], len_max: usize) -> Result<Self, SplitError> {
        Self::one(VnetHeader::default(), packet, len_max)
    }

    fn one(header: VnetHeader, packet: &'a [u8], len_max: usize) -> Result<Self, SplitError> {
        if packet.is_empty() {
            return Err(SplitError::Truncated);
        }
        if packet.len() > len_max {
            return Err(SplitError::TooLong(packet.len()));
        }
        let mut checksum = None;
        if header.flags & VnetHeader::NEEDS_CHECKSUM != 0 {
            let start = usize::from(header.checksum_start);
            let at = start + usize::from(header.checksum_offset);
            if at + 2 > packet.len() {
                return Err(SplitError::ChecksumPlace);
            }
            checksum = Some((start, at));
        }
        let cut = Cut::Not { checksum };
        let count = 1;
        Ok(Self { packet, cut, count })
    }

    /// How many packets it makes: 1 or more.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Writes packet number `index`, from 0, to the start of `out`, and returns its length.
    ///
    /// # Panics
    /// When `index` is not less than [`Self::count`], or `out` shorter than `len_max` was.
    pub fn emit(&self, index: usize, out: &mut [u8]) -> usize {
        assert!(index < self.count, "piece {index} of {}", self.count);
        match self.cut {
            Cut::Not { checksum } => {
                let out = &mut out[..self.packet.len()];
                out.copy_from_slice(self.packet);
                if let Some((start, at)) = checksum {
                    // Zero is written otherwise for all, since only UDP minds.
                    let sum = Sum::default().with(&out[start..]);
                    put(out, at, sum.finish_nonzero());
                }
                out.len()
            }
            Cut::Into {
                ip,
                headers_len,
                size,
            } => {
                let (headers, payload) = self.packet.split_at(headers_len);
                let offset = index * size;
                let payload = &payload[offset..payload.len().min(offset + size)];
                let out = &mut out[..headers_len + payload.len()];
                out[..headers_len].copy_from_slice(headers);
                out[headers_len..].copy_from_slice(payload);
                self.rewrite(index, offset, ip, out);
                out.len()
            }
        }
    }

    /// Makes the headers of the whole those of one piece.
    fn rewrite(&self, index: usize, offset: usize, ip: IpHeader, out: &mut [u8]) {
        let out_len = out.len();
        let (ip_header, segment) = out.split_at_mut(ip.len);
        if ip.is_ipv4 {
            let id = u16_at(ip_header, ipv4::ID).wrapping_add(index as u16);
            put_u16(ip_header, ipv4::ID, id);
        }
        ip.set_len(ip_header, out_len);
        let sum = ip.pseudo_header(ip_header, segment.len());
        if ip.protocol == TCP {
            let sequence = u32_at(segment, tcp::SEQUENCE).wrapping_add(offset as u32);
            put(segment, tcp::SEQUENCE, sequence.to_be_bytes());
            if index + 1 < self.count {
                segment[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
            }
            if index > 0 {
                segment[tcp::FLAGS] &= !tcp::CWR;
            }
            put(segment, tcp::CHECKSUM, [0; 2]);
            let checksum = sum.with(segment).finish();
            put(segment, tcp::CHECKSUM, checksum);
        } else {
            put_u16(segment, udp::LENGTH, segment.len() as u16);
            put(segment, udp::CHECKSUM, [0; 2]);
            let checksum = sum.with(segment).finish_nonzero();
            put(segment, udp::CHECKSUM, checksum);
        }
    }
}

/// Octets of the transport header at the start of `segment`.
fn transport_len(protocol: u8, segment: &[u8]) -> Result<usize, SplitError> {
    let len = if protocol == UDP {
        UDP_LEN
    } else {
        let data_offset = segment.get(tcp::DATA_OFFSET).ok_or(SplitError::Headers)?;
        usize::from(data_offset >> 4) * 4
    };
    let is_whole = len <= segment.len() && (protocol == UDP || len >= TCP_LEN_MIN);
    is_whole.then_some(len).ok_or(SplitError::Headers)
}
