//! IPV6CP options (RFC 5072 4; RFC 5172 2).

use std::fmt;
use std::net::Ipv6Addr;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::cp::{ConfigOption, clamp_data};
use super::log::{Octets, nameless_option};

/// The lower half of an IPv6 address (RFC 5072 4.1), in wire order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct InterfaceIdentifier(pub [u8; 8]);

impl InterfaceIdentifier {
    /// All zeros: none, or one is asked for.
    pub const ZERO: Self = Self([0; 8]);

    /// That of an address.
    #[must_use]
    pub const fn of(address: Ipv6Addr) -> Self {
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = address.octets();
        Self([a, b, c, d, e, f, g, h])
    }

    /// The address that it makes on its link (RFC 5072 5): fe80::/64 with it.
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        const PREFIX: u128 = 0xFE80 << 112;
        Ipv6Addr::from_bits(PREFIX | u128::from(u64::from_be_bytes(self.0)))
    }
}

/// pppd's way to write the link-local address, with all the identifier's zeros.
impl fmt::Display for InterfaceIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0;
        write!(
            f,
            "fe80::{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{g:02x}:{h:02x}{i:02x}"
        )
    }
}

/// One Configuration Option of IPV6CP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipv6cpOption {
    /// Interface-Identifier (kind 1).
    InterfaceIdentifier(InterfaceIdentifier),
    /// IPv6-Compression-Protocol (kind 2): protocol and its data.
    Compression(u16, Bytes),
    /// Anything else.
    Unknown(u8, Bytes),
}

/// pppd's wording, in angle brackets.
impl fmt::Display for Ipv6cpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceIdentifier(identifier) => write!(f, "<addr {identifier}>"),
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
            (1, &[a, b, c, d, e, f, g, h]) => {
                Self::InterfaceIdentifier(InterfaceIdentifier([a, b, c, d, e, f, g, h]))
            }
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
            Self::InterfaceIdentifier(identifier) => buffer.put_slice(&identifier.0),
            Self::Compression(protocol, data) => {
                buffer.put_u16(*protocol);
                buffer.put_slice(clamp_data(data, 2));
            }
            Self::Unknown(_, data) => buffer.put_slice(clamp_data(data, 0)),
        }
    }
}
