//! CCP options (RFC 1962 3; RFC 3078 2.1).

use bytes::{BufMut, Bytes};

use super::cp::{ConfigOption, clamp_data};

/// The four octets of the MPPE option (RFC 3078 2.1), kept whole so that unknown bits survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MppeBits(pub u32);

impl MppeBits {
    /// H: stateless.
    pub const STATELESS: u32 = 0x0100_0000;
    /// M: 56-bit keys.
    pub const BITS_56: u32 = 0x0000_0080;
    /// S: 128-bit keys.
    pub const BITS_128: u32 = 0x0000_0040;
    /// L: 40-bit keys.
    pub const BITS_40: u32 = 0x0000_0020;
    /// D: obsolete.
    pub const OBSOLETE: u32 = 0x0000_0010;
    /// C: MPPC compression (RFC 2118).
    pub const MPPC: u32 = 0x0000_0001;
}

/// One Configuration Option of CCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CcpOption {
    /// MPPE/MPPC (kind 18).
    Mppe(MppeBits),
    /// Any other, by kind, with its data: printed, and rejected.
    Other(u8, Bytes),
}

/// Kind of the MPPE/MPPC option.
const MPPE: u8 = 18;

impl ConfigOption for CcpOption {
    fn parse(kind: u8, data: &[u8]) -> Self {
        match (kind, data) {
            (MPPE, &[a, b, c, d]) => Self::Mppe(MppeBits(u32::from_be_bytes([a, b, c, d]))),
            _ => Self::Other(kind, Bytes::copy_from_slice(data)),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Mppe(_) => MPPE,
            Self::Other(kind, _) => *kind,
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Mppe(_) => 4,
            Self::Other(_, data) => clamp_data(data, 0).len(),
        }
    }

    fn emit_data(&self, mut buffer: &mut [u8]) {
        match self {
            Self::Mppe(bits) => buffer.put_u32(bits.0),
            Self::Other(_, data) => buffer.put_slice(clamp_data(data, 0)),
        }
    }
}
