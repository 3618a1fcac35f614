//! Segmentation offload at the TUN device: many packets in one read, and in one write.
//!
//! The kernel hands over a train of TCP segments or UDP datagrams as one *super-packet*: the
//! headers once, the payloads one after the other, and in front of it a virtio-net header (VIRTIO
//! 1.2, 5.1.6) that tells how to cut it. What is written to the device may have the same form. It
//! saves nearly the whole cost of a read, a write and a pass through the kernel's TCP per packet.
//!
//! [`split`] cuts what was read into packets, [`coalesce`] finds out what may be joined, and
//! [`gather`] joins it where it lies. All three are pure: slices in, slices out.

pub mod checksum;
pub mod coalesce;
pub mod gather;
mod headers;
pub mod mss;
pub mod split;

/// What a TUN device has agreed to, when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TunFeatures {
    /// A virtio-net header of [`VnetHeader::LEN`] octets stands in front of every packet, both
    /// ways, and what is written may be a TCP super-packet.
    pub vnet_header: bool,
    /// What is read may be a TCP super-packet, or lack its checksum.
    pub tcp: bool,
    /// What is read, and what is written, may be a train of UDP datagrams (Linux 6.2).
    pub udp: bool,
}

/// The virtio-net header, in the host's byte order, as TUN devices have it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`Self::NEEDS_CHECKSUM`], or nothing.
    pub flags: u8,
    /// What kind of super-packet it is, or [`Self::GSO_NONE`].
    pub gso_type: u8,
    /// Octets of the headers that each packet gets: a hint only.
    pub header_len: u16,
    /// Octets of payload that each packet gets, except that the last may get fewer.
    pub gso_size: u16,
    /// Where the octets to be summed begin, to the end of the packet.
    pub checksum_start: u16,
    /// Where the checksum goes, from there.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Octets of the header.
    pub const LEN: usize = 10;
    /// The checksum field holds the sum of the pseudo-header only.
    pub const NEEDS_CHECKSUM: u8 = 1;
    /// One packet.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCP_IPV4: u8 = 1;
    /// TCP over IPv6.
    pub const GSO_TCP_IPV6: u8 = 4;
    /// UDP datagrams of equal length.
    pub const GSO_UDP: u8 = 5;
    /// Added to a TCP type when the first packet says Congestion Window Reduced (RFC 3168).
    pub const GSO_ECN: u8 = 0x80;

    /// Reads the header in front of `bytes`; `None` when they are too short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = *bytes.first_chunk::<{ Self::LEN }>()?;
        Some(Self {
            flags,
            gso_type,
            header_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            checksum_start: u16::from_ne_bytes([e, f]),
            checksum_offset: u16::from_ne_bytes([g, h]),
        })
    }

    /// The header as octets.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b] = self.header_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.checksum_start.to_ne_bytes();
        let [g, h] = self.checksum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_laid_out_as_the_standard_says() {
        // struct virtio_net_hdr of VIRTIO 1.2, 5.1.6, without num_buffers.
        let header = VnetHeader {
            flags: 1,
            gso_type: 4,
            header_len: 0x1122,
            gso_size: 0x3344,
            checksum_start: 0x5566,
            checksum_offset: 0x7788,
        };
        let fields = [0x1122u16, 0x3344, 0x5566, 0x7788].map(u16::to_ne_bytes);
        let expected = [&[1, 4][..], &fields.concat()].concat();
        assert_eq!(header.to_bytes()[..], expected);
        assert_eq!(VnetHeader::parse(&expected), Some(header));
        assert_eq!(VnetHeader::parse(&expected[..9]), None);
    }
}
