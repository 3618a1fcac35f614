//! The Internet checksum (RFC 1071) and the pseudo-headers of TCP and UDP (RFC 9293 3.1, RFC 768,
//! RFC 8200 8.1).

/// A one's complement sum in progress. It adds in the host's byte order, which comes out the same
/// in memory (RFC 1071 2B).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// With these octets added: an even number of them, except at the very end.
    #[must_use]
    pub fn with(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        // Words of 32 bits in 64: no packet is long enough to overflow.
        let words = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        Self(self.0 + words.sum::<u64>() + u64::from(u32::from_ne_bytes(last)))
    }

    /// With the pseudo-header added that stands in front of a TCP or UDP segment of `len` octets.
    /// `addresses` are source and destination, as they stand in the IP header.
    #[must_use]
    pub fn with_pseudo_header(self, addresses: &[u8], protocol: u8, len: usize) -> Self {
        // No segment of an IP packet without jumbo payload is longer than its length field tells.
        let [high, low] = (len as u16).to_be_bytes();
        self.with(addresses).with(&[0, protocol, high, low])
    }

    /// The sum itself, as octets of a packet: what stands in a checksum field whose calculation
    /// someone else completes.
    #[must_use]
    pub fn partial(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The checksum, as octets of a packet.
    #[must_use]
    pub fn finish(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// The same for UDP, where zero would say that there is none.
    #[must_use]
    pub fn finish_nonzero(self) -> [u8; 2] {
        match self.finish() {
            [0, 0] => [0xFF, 0xFF],
            checksum => checksum,
        }
    }

    /// Whether octets that contain their own checksum add up.
    #[must_use]
    pub fn holds(self) -> bool {
        self.fold() == 0xFFFF
    }

    const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        // Section 3: the words 0001 f203 f4f5 f6f7 sum up to ddf2.
        let octets = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(Sum::default().with(&octets).partial(), [0xDD, 0xF2]);
        assert_eq!(Sum::default().with(&octets).finish(), [0x22, 0x0D]);
        let in_parts = Sum::default().with(&octets[..2]).with(&octets[2..]);
        assert_eq!(in_parts.partial(), [0xDD, 0xF2]);
    }

    #[test]
    fn an_odd_octet_at_the_end_is_the_high_half_of_a_word() {
        let sum = Sum::default().with(&[0x12, 0x34, 0x56]);
        assert_eq!(sum.partial(), [0x68, 0x34]);
    }

    #[test]
    fn a_checksum_of_zero_is_never_given_to_udp() {
        let sum = Sum::default().with(&[0xFF, 0xFF]);
        assert_eq!(sum.finish(), [0, 0]);
        assert_eq!(sum.finish_nonzero(), [0xFF, 0xFF]);
        assert!(sum.holds());
    }
}
