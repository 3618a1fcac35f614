//! IPv6 headers (RFC 8200 3), as far as the data plane looks into them.

use std::net::Ipv6Addr;

use super::octets;

/// Octets of the header; what extends it belongs to the payload.
pub const HEADER_LEN: usize = 40;

/// What the data plane needs to know of an IPv6 packet. Made by [`Ipv6Repr::parse`] alone, so its
/// length fits the bytes that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// Octets of header and payload together; the bytes may be more.
    pub total_len: usize,
    /// Source address.
    pub source: Ipv6Addr,
}

impl Ipv6Repr {
    /// Reads the header of a whole packet; `None` when it is cut short or of another version.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let [version, ..] = *packet else { return None };
        let payload_len = usize::from(u16::from_be_bytes(octets(packet, 4)?));
        let source = Ipv6Addr::from(octets::<16>(packet, 8)?);
        let total_len = HEADER_LEN + payload_len;
        let is_whole = version >> 4 == 6 && total_len <= packet.len();
        is_whole.then_some(Self { total_len, source })
    }
}

/// Destination address of what begins like an IPv6 packet.
#[must_use]
pub fn destination(packet: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(octets::<16>(packet, 24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router solicitation (RFC 4861 4.1) as pppd's kernel sends it, from fe80::1 to ff02::2.
    fn solicitation() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
        packet.extend(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 1).octets());
        packet.extend(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 2).octets());
        packet.extend([133, 0, 0, 0, 0, 0, 0, 0]);
        packet
    }

    #[test]
    fn addresses_and_length_stand_where_the_rfc_has_them() {
        let mut packet = solicitation();
        packet.extend([0; 3]);
        let ipv6 = Ipv6Repr::parse(&packet).expect("it is whole");
        assert_eq!(ipv6.total_len, 48);
        assert_eq!(ipv6.source, Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 1));
        let all_routers = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 2);
        assert_eq!(destination(&packet), Some(all_routers));
    }

    #[test]
    fn what_is_cut_short_or_of_another_version_is_none() {
        let packet = solicitation();
        for len in 0..packet.len() {
            assert_eq!(Ipv6Repr::parse(&packet[..len]), None, "{len} octets");
        }
        let mut ipv4 = packet;
        ipv4[0] = 0x45;
        assert_eq!(Ipv6Repr::parse(&ipv4), None);
    }
}
