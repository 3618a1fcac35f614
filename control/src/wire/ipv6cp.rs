//! IPV6CP options (RFC 5072 4; RFC 5172 2).

use std::fmt;

use bytes::{BufMut, Bytes};

use super::cp::{ConfigOption, clamp_data};
use super::log::{Octets, nameless_option};

/// One Configuration Option of IPV6CP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipv6cpOption {
    /// Interface-Identifier (kind 1), eight octets in wire order.
    InterfaceIdentifier([u8; 8]),
    /// IPv6-Compression-Protocol (kind 2): protocol and its data.
    Compression(u16, Bytes),
    /// Anything else.
    Unknown(u8, Bytes),
}

/// pppd's wording, in angle brackets: an identifier as the link-local address that it makes, with
/// all its zeros.
impl fmt::Display for Ipv6cpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceIdentifier(identifier) => {
                f.write_str("<addr fe80::")?;
                for (index, octet) in identifier.iter().enumerate() {
                    if index != 0 && index % 2 == 0 {
                        f.write_str(":")?;
                    }
                    write!(f, "{octet:02x}")?;
                }
                f.write_str(">")
            }
            Self::Compression(protocol, data) => {
                write!(f, "<compress {protocol:#x}{}>", Octets(data))
            }
            Self::Unknown(kind, data) => nameless_option(f, *kind, data),
        }
    }
}

impl ConfigOption for Ipv6cpOption {
    fn parse(kind: u8, data: &[u8]) -> Self {
        match (kind, data) {
            (1, &[a, b, c, d, e, f, g, h]) => Self::InterfaceIdentifier([a, b, c, d, e, f, g, h]),
            (2, &[a, b, ref rest @ ..]) => {
                Self::Compression(u16::from_be_bytes([a, b]), Bytes::copy_from_slice(rest))
            }
            _ => Self::Unknown(kind, Bytes::copy_from_slice(data)),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::InterfaceIdentifier(_) => 1,
            Self::Compression(..) => 2,
            Self::Unknown(kind, _) => *kind,
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::InterfaceIdentifier(_) => 8,
            Self::Compression(_, data) => 2 + clamp_data(data, 2).len(),
            Self::Unknown(_, data) => clamp_data(data, 0).len(),
        }
    }

    fn emit_data(&self, mut buffer: &mut [u8]) {
        match self {
            Self::InterfaceIdentifier(identifier) => buffer.put_slice(identifier),
            Self::Compression(protocol, data) => {
                buffer.put_u16(*protocol);
                buffer.put_slice(clamp_data(data, 2));
            }
            Self::Unknown(_, data) => buffer.put_slice(clamp_data(data, 0)),
        }
    }
}
