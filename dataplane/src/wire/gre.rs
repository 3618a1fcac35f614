//! The enhanced GRE header of PPTP (RFC 2637 4.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |C|R|K|S|s|Recur|A| Flags | Ver |         Protocol Type         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |    Key (HW) Payload Length    |       Key (LW) Call ID        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                  Sequence Number (Optional)                   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |               Acknowledgment Number (Optional)                |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use thiserror::Error;

use super::octets;

/// Octets of the longest header: with sequence and acknowledgment number.
pub const HEADER_LEN_MAX: usize = 16;

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
const STRICT_SOURCE_ROUTE: u16 = 0x0800;
const RECURSION: u16 = 0x0700;
const ACKNOWLEDGMENT: u16 = 0x0080;
const FLAGS: u16 = 0x0078;
const VERSION: u16 = 0x0007;
const ENHANCED: u16 = 1;
const PROTOCOL: u16 = 0x880B;

/// What an enhanced GRE header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreRepr {
    /// The receiver's Call ID.
    pub call_id: u16,
    /// Octets of payload behind the header.
    pub payload_len: u16,
    /// Number of this packet; there whenever there is payload.
    pub sequence: Option<u32>,
    /// Highest number that the sender of this packet has received.
    pub acknowledgment: Option<u32>,
}

/// Why bytes are not an enhanced GRE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GreError {
    /// Fewer octets than the header.
    #[error("GRE header cut short")]
    Truncated,
    /// C must be 0.
    #[error("GRE checksum bit set")]
    Checksum,
    /// R must be 0.
    #[error("GRE routing bit set")]
    Routing,
    /// K must be 1.
    #[error("GRE without key")]
    NoKey,
    /// s must be 0.
    #[error("GRE strict source route bit set")]
    StrictSourceRoute,
    /// Recursion control must be 0.
    #[error("GRE recursion control set")]
    Recursion,
    /// The four flag bits must be 0.
    #[error("reserved GRE flags set")]
    Flags,
    /// The version must be 1.
    #[error("GRE version {0}, not 1")]
    Version(u16),
    /// The protocol type must be 880B.
    #[error("GRE protocol type {0:#06x}, not 0x880b")]
    Protocol(u16),
    /// The payload length goes beyond the packet.
    #[error("GRE payload cut short")]
    PayloadTruncated,
    /// Payload without a sequence number.
    #[error("GRE payload without sequence number")]
    PayloadUnnumbered,
}

impl GreRepr {
    /// Reads the header at the start of `bytes`, whose payload follows at `header_len()`. Octets
    /// behind the payload are tolerated.
    ///
    /// # Errors
    /// What RFC 2637 4.1 forbids, or a payload that is not all there.
    pub fn parse(bytes: &[u8]) -> Result<Self, GreError> {
        let head: [u8; 8] = octets(bytes, 0).ok_or(GreError::Truncated)?;
        let flags = u16::from_be_bytes([head[0], head[1]]);
        check_flags(flags)?;
        match u16::from_be_bytes([head[2], head[3]]) {
            PROTOCOL => {}
            other => return Err(GreError::Protocol(other)),
        }

        let mut header_len = 8;
        let mut number = |present: bool| {
            if !present {
                return Ok(None);
            }
            let value = octets(bytes, header_len).ok_or(GreError::Truncated)?;
            header_len += 4;
            Ok(Some(u32::from_be_bytes(value)))
        };
        let gre = Self {
            payload_len: u16::from_be_bytes([head[4], head[5]]),
            call_id: u16::from_be_bytes([head[6], head[7]]),
            sequence: number(flags & SEQUENCE != 0)?,
            acknowledgment: number(flags & ACKNOWLEDGMENT != 0)?,
        };

        if bytes.len() - header_len < usize::from(gre.payload_len) {
            return Err(GreError::PayloadTruncated);
        }
        if gre.payload_len > 0 && gre.sequence.is_none() {
            return Err(GreError::PayloadUnnumbered);
        }
        Ok(gre)
    }

    /// Octets of the header: 8, 12 or 16.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        8 + 4 * (self.sequence.is_some() as usize + self.acknowledgment.is_some() as usize)
    }

    /// Writes the header into the first `header_len()` octets of `bytes`.
    ///
    /// # Panics
    /// When `bytes` is shorter.
    pub fn emit(&self, bytes: &mut [u8]) {
        let mut flags = KEY | ENHANCED;
        let mut header_len = 8;
        if let Some(sequence) = self.sequence {
            flags |= SEQUENCE;
            bytes[header_len..header_len + 4].copy_from_slice(&sequence.to_be_bytes());
            header_len += 4;
        }
        if let Some(acknowledgment) = self.acknowledgment {
            flags |= ACKNOWLEDGMENT;
            bytes[header_len..header_len + 4].copy_from_slice(&acknowledgment.to_be_bytes());
        }
        bytes[0..2].copy_from_slice(&flags.to_be_bytes());
        bytes[2..4].copy_from_slice(&PROTOCOL.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.call_id.to_be_bytes());
    }
}

const fn check_flags(flags: u16) -> Result<(), GreError> {
    // Only the bits S and A are free; one comparison lets every good packet through.
    if flags & !(SEQUENCE | ACKNOWLEDGMENT) == KEY | ENHANCED {
        return Ok(());
    }
    Err(if flags & VERSION != ENHANCED {
        GreError::Version(flags & VERSION)
    } else if flags & CHECKSUM != 0 {
        GreError::Checksum
    } else if flags & ROUTING != 0 {
        GreError::Routing
    } else if flags & KEY == 0 {
        GreError::NoKey
    } else if flags & STRICT_SOURCE_ROUTE != 0 {
        GreError::StrictSourceRoute
    } else if flags & RECURSION != 0 {
        GreError::Recursion
    } else {
        debug_assert!(flags & FLAGS != 0);
        GreError::Flags
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// LCP Configure-Ack of pptpd: call 41703, sequence 1, acknowledgment 1 (captured).
    const DATA: &str = "3081880b0014a2e70000000100000001\
                        ff03c0210201001002060000000005\
                        0686b404b3";
    /// Acknowledgment alone of pptp-linux: call 0, acknowledgment 4 (captured).
    const ACK: &str = "2081880b0000000000000004";

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).expect("hex")
    }

    #[test]
    fn captured_packets_are_read() {
        let data = GreRepr::parse(&bytes(DATA)).expect("data");
        assert_eq!(data.call_id, 41703);
        assert_eq!(data.payload_len, 20);
        assert_eq!((data.sequence, data.acknowledgment), (Some(1), Some(1)));
        assert_eq!(data.header_len(), 16);

        let ack = GreRepr::parse(&bytes(ACK)).expect("acknowledgment");
        assert_eq!((ack.call_id, ack.payload_len), (0, 0));
        assert_eq!((ack.sequence, ack.acknowledgment), (None, Some(4)));
        assert_eq!(ack.header_len(), 12);
    }

    #[test]
    fn captured_headers_are_written_alike() {
        for packet in [bytes(DATA), bytes(ACK)] {
            let gre = GreRepr::parse(&packet).expect("well-formed");
            let mut emitted = [0xA5; HEADER_LEN_MAX];
            gre.emit(&mut emitted);
            assert_eq!(emitted[..gre.header_len()], packet[..gre.header_len()]);
        }
    }

    #[test]
    fn of_all_flag_words_only_four_are_let_through() {
        let mut accepted = Vec::new();
        for flags in 0..=u16::MAX {
            let mut packet = bytes(DATA);
            packet[..2].copy_from_slice(&flags.to_be_bytes());
            packet[4..6].fill(0);
            match GreRepr::parse(&packet) {
                Ok(_) => accepted.push(flags),
                Err(error) => assert!(names(error, flags), "{flags:#06x}: {error}"),
            }
        }
        assert_eq!(accepted, [0x2001, 0x2081, 0x3001, 0x3081]);
    }

    /// Whether `error` tells the truth of `flags`.
    fn names(error: GreError, flags: u16) -> bool {
        match error {
            GreError::Checksum => flags & 0x8000 != 0,
            GreError::Routing => flags & 0x4000 != 0,
            GreError::NoKey => flags & 0x2000 == 0,
            GreError::StrictSourceRoute => flags & 0x0800 != 0,
            GreError::Recursion => flags & 0x0700 != 0,
            GreError::Flags => flags & 0x0078 != 0,
            GreError::Version(version) => version == flags & 7 && version != 1,
            _ => false,
        }
    }

    #[test]
    fn other_protocol_types_are_rejected() {
        let mut packet = bytes(DATA);
        packet[2..4].copy_from_slice(&[0x08, 0x00]);
        assert_eq!(GreRepr::parse(&packet), Err(GreError::Protocol(0x0800)));
    }

    #[test]
    fn every_shorter_packet_is_rejected() {
        let packet = bytes(DATA);
        for len in 0..packet.len() {
            let error = GreRepr::parse(&packet[..len]).expect_err("cut short");
            let expected = if len < 16 {
                GreError::Truncated
            } else {
                GreError::PayloadTruncated
            };
            assert_eq!(error, expected, "{len} octets");
        }
    }

    #[test]
    fn octets_behind_the_payload_are_tolerated() {
        let mut packet = bytes(DATA);
        packet.extend([0; 7]);
        assert_eq!(GreRepr::parse(&packet), GreRepr::parse(&bytes(DATA)));
    }

    #[test]
    fn payload_without_sequence_number_is_rejected() {
        let packet = bytes("2001880b000100070000");
        assert_eq!(GreRepr::parse(&packet), Err(GreError::PayloadUnnumbered));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(gre) = GreRepr::parse(&bytes) {
                prop_assert!(gre.header_len() + usize::from(gre.payload_len) <= bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            call_id: u16,
            payload_len in 0..100_u16,
            sequence: u32,
            acknowledgment: Option<u32>,
        ) {
            let gre = GreRepr { call_id, payload_len, sequence: Some(sequence), acknowledgment };
            let mut packet = vec![0xA5; gre.header_len() + usize::from(payload_len)];
            gre.emit(&mut packet);
            prop_assert_eq!(GreRepr::parse(&packet), Ok(gre));
        }
    }
}
