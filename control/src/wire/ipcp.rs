//! IPCP options (RFC 1332 3; RFC 1877 1).

use std::fmt;
use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes};

use super::cp::{ConfigOption, clamp_data};
use super::log::{Octets, nameless_option};

/// One Configuration Option of IPCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpcpOption {
    /// IP-Addresses, deprecated (kind 1): the sender's and the other's.
    Addresses(Ipv4Addr, Ipv4Addr),
    /// IP-Compression-Protocol (kind 2): protocol and its data.
    Compression(u16, Bytes),
    /// IP-Address (kind 3).
    Address(Ipv4Addr),
    /// Primary DNS server (kind 129).
    Dns1(Ipv4Addr),
    /// Primary NBNS server (kind 130).
    Wins1(Ipv4Addr),
    /// Secondary DNS server (kind 131).
    Dns2(Ipv4Addr),
    /// Secondary NBNS server (kind 132).
    Wins2(Ipv4Addr),
    /// Anything else.
    Unknown(u8, Bytes),
}

/// Van Jacobson Compressed TCP/IP (RFC 1332 4).
const VJ: u16 = 0x002D;
/// What old implementations called it (RFC 1332 4, RFC 1172).
const OLD_VJ: u16 = 0x0037;

/// pppd's wording, in angle brackets.
impl fmt::Display for IpcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(sender, receiver) => write!(f, "<addrs {sender} {receiver}>"),
            Self::Compression(VJ, data) => write!(f, "<compress VJ{}>", Octets(data)),
            Self::Compression(OLD_VJ, data) => write!(f, "<compress old-VJ{}>", Octets(data)),
            Self::Compression(protocol, data) => {
                write!(f, "<compress {protocol:#x}{}>", Octets(data))
            }
            Self::Address(address) => write!(f, "<addr {address}>"),
            Self::Dns1(address) => write!(f, "<ms-dns1 {address}>"),
            Self::Dns2(address) => write!(f, "<ms-dns2 {address}>"),
            Self::Wins1(address) | Self::Wins2(address) => write!(f, "<ms-wins {address}>"),
            Self::Unknown(kind, data) => nameless_option(f, *kind, data),
        }
    }
}

impl ConfigOption for IpcpOption {
    fn parse(kind: u8, data: &[u8]) -> Self {
        let address = |octets: &[u8; 4]| Ipv4Addr::from(*octets);
        match (kind, data) {
            (1, &[a, b, c, d, e, f, g, h]) => {
                Self::Addresses(address(&[a, b, c, d]), address(&[e, f, g, h]))
            }
            (2, &[a, b, ref rest @ ..]) => {
                Self::Compression(u16::from_be_bytes([a, b]), Bytes::copy_from_slice(rest))
            }
            (3, &[a, b, c, d]) => Self::Address(address(&[a, b, c, d])),
            (129, &[a, b, c, d]) => Self::Dns1(address(&[a, b, c, d])),
            (130, &[a, b, c, d]) => Self::Wins1(address(&[a, b, c, d])),
            (131, &[a, b, c, d]) => Self::Dns2(address(&[a, b, c, d])),
            (132, &[a, b, c, d]) => Self::Wins2(address(&[a, b, c, d])),
            _ => Self::Unknown(kind, Bytes::copy_from_slice(data)),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Addresses(..) => 1,
            Self::Compression(..) => 2,
            Self::Address(_) => 3,
            Self::Dns1(_) => 129,
            Self::Wins1(_) => 130,
            Self::Dns2(_) => 131,
            Self::Wins2(_) => 132,
            Self::Unknown(kind, _) => *kind,
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Addresses(..) => 8,
            Self::Compression(_, data) => 2 + clamp_data(data, 2).len(),
            Self::Unknown(_, data) => clamp_data(data, 0).len(),
            Self::Address(_) | Self::Dns1(_) | Self::Wins1(_) | Self::Dns2(_) | Self::Wins2(_) => 4,
        }
    }

    fn emit_data(&self, mut buffer: &mut [u8]) {
        match self {
            Self::Addresses(sender, receiver) => {
                buffer.put_slice(&sender.octets());
                buffer.put_slice(&receiver.octets());
            }
            Self::Compression(protocol, data) => {
                buffer.put_u16(*protocol);
                buffer.put_slice(clamp_data(data, 2));
            }
            Self::Address(address)
            | Self::Dns1(address)
            | Self::Wins1(address)
            | Self::Dns2(address)
            | Self::Wins2(address) => buffer.put_slice(&address.octets()),
            Self::Unknown(_, data) => buffer.put_slice(clamp_data(data, 0)),
        }
    }
}
