//! IPv4 headers (RFC 791 3.1), as far as the data plane looks into them.

use std::net::Ipv4Addr;

use thiserror::Error;

use super::octets;

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Protocol number of GRE.
pub const PROTOCOL_GRE: u8 = 47;

/// Time to live of what we send: the recommended default (RFC 1700).
pub const TIME_TO_LIVE: u8 = 64;

/// The header, without options, of a packet that we send: Don't Fragment is not set, and nothing
/// is special about its service.
#[must_use]
pub fn header(
    total_len: u16,
    identification: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[8] = TIME_TO_LIVE;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = !ones_complement_sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The sum of all 16-bit words in ones' complement (RFC 1071). `header` is an even number of
/// octets, 60 at most.
fn ones_complement_sum(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    ((folded & 0xFFFF) + (folded >> 16)) as u16
}

/// Whether the checksum of the header that `packet` begins with holds, for one without options.
#[must_use]
pub fn plain_checksum_holds(packet: &[u8]) -> bool {
    let header = packet.first_chunk::<HEADER_LEN>();
    header.is_some_and(|header| ones_complement_sum(header) == 0xFFFF)
}

/// What the data plane needs to know of an IPv4 packet. Made by [`Ipv4Repr::parse`] alone, so its
/// lengths fit the bytes that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Octets of the header, options included.
    pub header_len: usize,
    /// Octets of header and payload together; the bytes may be more.
    pub total_len: usize,
    /// More fragments follow, or some went before.
    pub is_fragment: bool,
    /// What the payload is.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

/// Why bytes are not a whole IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Ipv4Error {
    /// Fewer octets than the header, or than its total length.
    #[error("IPv4 packet cut short")]
    Truncated,
    /// The version is not 4.
    #[error("IP version {0}, not 4")]
    Version(u8),
    /// Header length below 20 octets, or total length below header length.
    #[error("IPv4 lengths contradict each other")]
    Lengths,
}

impl Ipv4Repr {
    /// Reads the header at the start of `bytes`. Octets behind the total length are tolerated:
    /// link layers pad.
    ///
    /// # Errors
    /// When `bytes` do not hold a whole IPv4 packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Ipv4Error> {
        Self::parse_header(bytes, bytes.len())
    }

    /// The same for a packet of `packet_len` octets of which only the first are at hand.
    ///
    /// # Errors
    /// When no whole IPv4 packet of `packet_len` octets begins so.
    pub fn parse_header(bytes: &[u8], packet_len: usize) -> Result<Self, Ipv4Error> {
        let header: [u8; HEADER_LEN] = octets(bytes, 0).ok_or(Ipv4Error::Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(Ipv4Error::Version(header[0] >> 4));
        }
        let header_len = usize::from(header[0] & 0x0F) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < HEADER_LEN || total_len < header_len {
            return Err(Ipv4Error::Lengths);
        }
        if packet_len < total_len {
            return Err(Ipv4Error::Truncated);
        }
        Ok(Self {
            header_len,
            total_len,
            // More Fragments, or an offset; Don't Fragment is not one of them.
            is_fragment: u16::from_be_bytes([header[6], header[7]]) & 0x3FFF != 0,
            protocol: header[9],
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
        })
    }

    /// Whether the checksum of the header holds. `bytes` are those that `self` was made from; it
    /// does not hold when they end before the header does.
    #[must_use]
    pub fn checksum_holds(&self, bytes: &[u8]) -> bool {
        let header = bytes.get(..self.header_len);
        header.is_some_and(|header| ones_complement_sum(header) == 0xFFFF)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A GRE packet's outer header from a capture of pptpd.
    const OUTER: [u8; 24] = [
        0x45, 0x00, 0x00, 0x18, 0x4E, 0x55, 0x40, 0x00, 0x40, 0x2F, 0xD7, 0xC5, 0x0A, 0x4D, 0x00,
        0x01, 0x0A, 0x4D, 0x00, 0x02, 1, 2, 3, 4,
    ];

    #[test]
    fn fields_are_found() {
        let ipv4 = Ipv4Repr::parse(&OUTER).expect("well-formed");
        assert_eq!(ipv4.header_len, 20);
        assert_eq!(ipv4.total_len, 24);
        assert!(!ipv4.is_fragment, "Don't Fragment is no fragment");
        assert_eq!(ipv4.protocol, PROTOCOL_GRE);
        assert_eq!(ipv4.source, Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(ipv4.destination, Ipv4Addr::new(10, 77, 0, 2));
        assert!(ipv4.checksum_holds(&OUTER));
    }

    #[test]
    fn a_changed_header_fails_its_checksum() {
        for octet in 0..HEADER_LEN {
            let mut changed = OUTER;
            changed[octet] ^= 0x01;
            if let Ok(ipv4) = Ipv4Repr::parse(&changed) {
                assert!(!ipv4.checksum_holds(&changed), "octet {octet}");
            }
        }
    }

    #[test]
    fn a_header_that_we_make_is_that_of_a_capture() {
        let address = |last| Ipv4Addr::new(10, 77, 0, last);
        let made = header(24, 0x4E55, PROTOCOL_GRE, address(1), address(2));
        let mut captured = OUTER;
        // The capture has Don't Fragment set: without it the checksum is greater by as much, in
        // ones' complement: D7C5 + 4000.
        captured[6] = 0;
        captured[10..12].copy_from_slice(&0x17C6u16.to_be_bytes());
        assert_eq!(made, captured[..HEADER_LEN]);
    }

    #[test]
    fn each_fault_is_named() {
        let with = |octet: usize, value: u8| {
            let mut changed = OUTER;
            changed[octet] = value;
            Ipv4Repr::parse(&changed)
        };
        assert_eq!(with(0, 0x65), Err(Ipv4Error::Version(6)));
        assert_eq!(with(0, 0x44), Err(Ipv4Error::Lengths));
        assert_eq!(with(0, 0x47), Err(Ipv4Error::Lengths));
        assert_eq!(with(3, 19), Err(Ipv4Error::Lengths));
        assert_eq!(with(3, 25), Err(Ipv4Error::Truncated));
        assert_eq!(Ipv4Repr::parse(&OUTER[..19]), Err(Ipv4Error::Truncated));
        assert_eq!(Ipv4Repr::parse(&OUTER[..23]), Err(Ipv4Error::Truncated));
        assert!(with(6, 0x20).is_ok_and(|ipv4| ipv4.is_fragment));
        assert!(with(7, 0x01).is_ok_and(|ipv4| ipv4.is_fragment));
    }

    proptest! {
        #[test]
        fn what_we_make_is_read_again_and_its_checksum_holds(
            total_len in 20u16..,
            identification: u16,
            source: u32,
            destination: u32,
        ) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let made = header(total_len, identification, PROTOCOL_GRE, source, destination);
            let read = Ipv4Repr::parse_header(&made, usize::from(total_len)).expect("well-formed");
            prop_assert!(read.checksum_holds(&made));
            prop_assert_eq!(read.total_len, usize::from(total_len));
            prop_assert_eq!((read.source, read.destination), (source, destination));
            prop_assert!(!read.is_fragment);
        }

        #[test]
        fn lengths_fit_the_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(ipv4) = Ipv4Repr::parse(&bytes) {
                prop_assert!(ipv4.header_len <= ipv4.total_len && ipv4.total_len <= bytes.len());
                let _ = ipv4.checksum_holds(&bytes);
            }
        }
    }
}
