//! The two octets between the PPP protocol field 00FD and the ciphertext (RFC 3078 3.1).

/// Octets of the header.
pub const HEADER_LEN: usize = 2;

/// The coherency count has 12 bits.
pub const COHERENCY_COUNTS: u16 = 0x1000;

const FLUSHED: u16 = 0x8000;
const ENCRYPTED: u16 = 0x1000;

/// What an MPPE header says. The bits B and C mean nothing in MPPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MppeHeader {
    /// Bit A: the cipher was initialized before this packet.
    pub flushed: bool,
    /// Bit D: the packet is encrypted.
    pub encrypted: bool,
    /// 0 to 4095.
    pub coherency_count: u16,
}

impl MppeHeader {
    /// Reads the header at the start of `bytes`; `None` when they are fewer than two.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = u16::from_be_bytes(*bytes.first_chunk()?);
        Some(Self {
            flushed: word & FLUSHED != 0,
            encrypted: word & ENCRYPTED != 0,
            coherency_count: word % COHERENCY_COUNTS,
        })
    }

    /// The header as it goes on the wire.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut word = self.coherency_count % COHERENCY_COUNTS;
        if self.flushed {
            word |= FLUSHED;
        }
        if self.encrypted {
            word |= ENCRYPTED;
        }
        word.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_is_read_and_written() {
        for word in 0..=u16::MAX {
            let header = MppeHeader::parse(&word.to_be_bytes()).expect("two octets");
            assert_eq!(header.flushed, word & 0x8000 != 0);
            assert_eq!(header.encrypted, word & 0x1000 != 0);
            assert_eq!(header.coherency_count, word & 0x0FFF);
            // B and C are not kept.
            assert_eq!(u16::from_be_bytes(header.to_bytes()), word & 0x9FFF);
        }
        assert_eq!(MppeHeader::parse(&[0x90]), None);
    }
}
