//! The head of a PPP frame (RFC 1661 2, 6.5, 6.6; RFC 1662 3.1): address, control, protocol.

/// Internet Protocol version 4.
pub const IPV4: u16 = 0x0021;
/// Internet Protocol version 6.
pub const IPV6: u16 = 0x0057;
/// Encrypted datagram (RFC 3078 3).
pub const COMPRESSED: u16 = 0x00FD;

/// All-Stations and Unnumbered Information.
const ADDRESS_CONTROL: [u8; 2] = [0xFF, 0x03];

/// Octets of the longest head.
pub const HEADER_LEN_MAX: usize = 4;

/// What stands in front of a PPP frame's information field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PppHeader {
    /// Protocol field, expanded.
    pub protocol: u16,
    /// Octets in front of the information field: 1 to 4.
    pub len: usize,
}

impl PppHeader {
    /// Reads the head of a frame: address and control may be left out, and the protocol field may
    /// be compressed, whatever was negotiated: both forms can be told apart. `None` when the
    /// frame is too short or its protocol number is not one (RFC 1661 2: the last octet is odd,
    /// the first even).
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (skipped, rest) = match frame.strip_prefix(&ADDRESS_CONTROL) {
            Some(rest) => (2, rest),
            None => (0, frame),
        };
        let header = Self::parse_protocol(rest)?;
        Some(Self {
            protocol: header.protocol,
            len: skipped + header.len,
        })
    }

    /// Reads a protocol field alone, as it stands inside an MPPE packet.
    #[must_use]
    pub fn parse_protocol(frame: &[u8]) -> Option<Self> {
        match *frame {
            [low, ..] if low & 1 == 1 => Some(Self {
                protocol: u16::from(low),
                len: 1,
            }),
            [high, low, ..] if low & 1 == 1 => Some(Self {
                protocol: u16::from_be_bytes([high, low]),
                len: 2,
            }),
            _ => None,
        }
    }
}

/// How heads are written, as LCP negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// Leave out the first octet of the protocol field when it is 0 (RFC 1661 6.5).
    pub protocol: bool,
    /// Leave out address and control (RFC 1661 6.6).
    pub address_control: bool,
}

impl Compression {
    /// Octets that the head of a frame of `protocol` takes.
    #[must_use]
    pub const fn header_len(self, protocol: u16) -> usize {
        let address_control = if self.address_control { 0 } else { 2 };
        let short = self.protocol && protocol <= 0xFF;
        address_control + if short { 1 } else { 2 }
    }

    /// Writes the head into the first `header_len(protocol)` octets of `bytes`.
    ///
    /// # Panics
    /// When `bytes` is shorter.
    pub fn emit(self, protocol: u16, bytes: &mut [u8]) {
        let len = self.header_len(protocol);
        if !self.address_control {
            bytes[..2].copy_from_slice(&ADDRESS_CONTROL);
        }
        let [high, low] = protocol.to_be_bytes();
        bytes[len - 1] = low;
        if !(self.protocol && high == 0) {
            bytes[len - 2] = high;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_four_forms_are_read() {
        let compressed = |len| {
            Some(PppHeader {
                protocol: COMPRESSED,
                len,
            })
        };
        assert_eq!(PppHeader::parse(&[0xFF, 0x03, 0x00, 0xFD]), compressed(4));
        assert_eq!(PppHeader::parse(&[0xFF, 0x03, 0xFD, 0x90]), compressed(3));
        assert_eq!(PppHeader::parse(&[0x00, 0xFD, 0x90]), compressed(2));
        assert_eq!(PppHeader::parse(&[0xFD, 0x90]), compressed(1));
    }

    #[test]
    fn what_is_no_protocol_is_refused() {
        assert_eq!(PppHeader::parse(&[]), None);
        assert_eq!(PppHeader::parse(&[0xFF, 0x03]), None);
        assert_eq!(PppHeader::parse(&[0xC0]), None);
        assert_eq!(PppHeader::parse(&[0xC0, 0x20]), None, "even last octet");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            high in any::<u8>().prop_map(|octet| octet & 0xFE),
            low in any::<u8>().prop_map(|octet| octet | 1),
            protocol: bool,
            address_control: bool,
        ) {
            let number = u16::from_be_bytes([high, low]);
            let compression = Compression { protocol, address_control };
            let mut frame = vec![0xA5; compression.header_len(number)];
            compression.emit(number, &mut frame);
            // A compressed protocol FF in front of 03 would be taken for address and control:
            // RFC 1661 6.6 reserves it, and 00FF is not assigned.
            prop_assume!(number != 0x00FF);
            let header = PppHeader { protocol: number, len: frame.len() };
            prop_assert_eq!(PppHeader::parse(&frame), Some(header));
        }
    }
}
