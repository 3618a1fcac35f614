//! CCP options (RFC 1962 3; RFC 3078 2.1).

use std::fmt;

use bytes::{BufMut, Bytes};

use super::cp::{ConfigOption, clamp_data};
use super::log::{Octets, nameless_option};

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

/// pppd's wording: every bit with its letter, and the octets where bits are set that have none.
impl fmt::Display for MppeBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unknown = self.0;
        f.write_str("mppe")?;
        for (letter, bit) in [
            ('H', Self::STATELESS),
            ('M', Self::BITS_56),
            ('S', Self::BITS_128),
            ('L', Self::BITS_40),
            ('D', Self::OBSOLETE),
            ('C', Self::MPPC),
        ] {
            let sign = if self.0 & bit == 0 { '-' } else { '+' };
            write!(f, " {sign}{letter}")?;
            unknown &= !bit;
        }
        if unknown != 0 {
            let [a, b, c, d] = self.0.to_be_bytes();
            write!(f, " +U ({a:02x} {b:02x} {c:02x} {d:02x})")?;
        }
        Ok(())
    }
}

/// pppd's wording, in angle brackets.
impl fmt::Display for CcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, data) = match self {
            Self::Mppe(bits) => return write!(f, "<{bits}>"),
            Self::Other(kind, data) => (*kind, &data[..]),
        };
        match (kind, data) {
            (1, rest) => write!(f, "<predictor 1{}>", Octets(rest)),
            (2, rest) => write!(f, "<predictor 2{}>", Octets(rest)),
            (21, &[first, ref rest @ ..]) => {
                let (version, code_bits) = (first >> 5, first & 0x1F);
                write!(f, "<bsd v{version} {code_bits}{}>", Octets(rest))
            }
            (24 | 26, &[window, check, ref rest @ ..]) => {
                let draft = if kind == 24 { "(old#)" } else { "" };
                write!(f, "<deflate{draft} {}", (window >> 4) + 8)?;
                let method = window & 0x0F;
                if method != 8 {
                    write!(f, " method {method}")?;
                }
                if check != 0 {
                    write!(f, " check {check}")?;
                }
                write!(f, "{}>", Octets(rest))
            }
            _ => nameless_option(f, kind, data),
        }
    }
}

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
