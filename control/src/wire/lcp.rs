//! LCP options (RFC 1661 6; RFC 1662 7.1; RFC 1990 5.1).

use std::fmt::{self, Write};
use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes};

use super::cp::{ConfigOption, clamp_data};
use super::log::{Octets, nameless_option};
use super::ppp::Protocol;

/// One Configuration Option of LCP. What is of a known kind but has another length than its RFC
/// gives is `Unknown`, and so rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LcpOption {
    /// Maximum-Receive-Unit, octets (kind 1).
    Mru(u16),
    /// Async-Control-Character-Map (kind 2).
    Accm(u32),
    /// Authentication-Protocol (kind 3).
    Auth(AuthProtocol),
    /// Quality-Protocol (kind 4): protocol number and its data.
    Quality(u16, Bytes),
    /// Magic-Number (kind 5).
    Magic(u32),
    /// Protocol-Field-Compression (kind 7).
    Pfc,
    /// Address-and-Control-Field-Compression (kind 8).
    Acfc,
    /// Callback (kind 13, RFC 1570 2.3): operation and message.
    Callback(u8, Bytes),
    /// Multilink MRRU (kind 17).
    Mrru(u16),
    /// Short Sequence Number Header Format (kind 18).
    Ssnhf,
    /// Endpoint Discriminator (kind 19): class and address.
    Endpoint(u8, Bytes),
    /// Anything else.
    Unknown(u8, Bytes),
}

/// How one end asks the other to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthProtocol {
    /// RFC 1334.
    Pap,
    /// RFC 1994, algorithm 5.
    ChapMd5,
    /// RFC 2433, algorithm 0x80.
    MsChapV1,
    /// RFC 2759, algorithm 0x81.
    MsChapV2,
    /// RFC 3748.
    Eap,
    /// Another protocol, with its data.
    Other(Protocol, Bytes),
}

/// CHAP algorithms in the Authentication-Protocol option (RFC 1994 3, RFC 2433 3, RFC 2759 3).
const CHAP_MD5: u8 = 0x05;
const CHAP_MS_V1: u8 = 0x80;
const CHAP_MS_V2: u8 = 0x81;

impl AuthProtocol {
    fn parse(protocol: Protocol, data: &[u8]) -> Self {
        match (protocol, data) {
            (Protocol::PAP, []) => Self::Pap,
            (Protocol::CHAP, [CHAP_MD5]) => Self::ChapMd5,
            (Protocol::CHAP, [CHAP_MS_V1]) => Self::MsChapV1,
            (Protocol::CHAP, [CHAP_MS_V2]) => Self::MsChapV2,
            (Protocol::EAP, []) => Self::Eap,
            _ => Self::Other(protocol, Bytes::copy_from_slice(data)),
        }
    }

    /// The protocol that authenticates.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Pap => Protocol::PAP,
            Self::ChapMd5 | Self::MsChapV1 | Self::MsChapV2 => Protocol::CHAP,
            Self::Eap => Protocol::EAP,
            Self::Other(protocol, _) => *protocol,
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Self::Pap | Self::Eap => &[],
            Self::ChapMd5 => &[CHAP_MD5],
            Self::MsChapV1 => &[CHAP_MS_V1],
            Self::MsChapV2 => &[CHAP_MS_V2],
            Self::Other(_, data) => clamp_data(data, 2),
        }
    }
}

/// Link Quality Report (RFC 1989), the one Quality-Protocol there is.
const LINK_QUALITY_REPORT: u16 = 0xC025;
/// Callback operation 6: location is determined during CBCP negotiation.
const CALLBACK_CBCP: u8 = 6;

/// pppd's wording.
impl fmt::Display for AuthProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pap => f.write_str("pap"),
            Self::ChapMd5 => f.write_str("chap MD5"),
            Self::MsChapV1 => f.write_str("chap MS"),
            Self::MsChapV2 => f.write_str("chap MS-v2"),
            Self::Eap => f.write_str("eap"),
            Self::Other(Protocol::PAP, data) => write!(f, "pap{}", Octets(data)),
            Self::Other(Protocol::CHAP, data) => write!(f, "chap{}", Octets(data)),
            Self::Other(Protocol::EAP, data) => write!(f, "eap{}", Octets(data)),
            Self::Other(protocol, data) => write!(f, "{:#x}{}", protocol.0, Octets(data)),
        }
    }
}

/// pppd's wording, in angle brackets.
impl fmt::Display for LcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mru(octets) => write!(f, "<mru {octets}>"),
            Self::Accm(map) => write!(f, "<asyncmap {map:#x}>"),
            Self::Auth(auth) => write!(f, "<auth {auth}>"),
            Self::Quality(LINK_QUALITY_REPORT, data) => write!(f, "<quality lqr{}>", Octets(data)),
            Self::Quality(protocol, data) => write!(f, "<quality {protocol:#x}{}>", Octets(data)),
            Self::Magic(magic) => write!(f, "<magic {magic:#x}>"),
            Self::Pfc => f.write_str("<pcomp>"),
            Self::Acfc => f.write_str("<accomp>"),
            Self::Callback(CALLBACK_CBCP, data) => write!(f, "<callback CBCP{}>", Octets(data)),
            Self::Callback(operation, data) => {
                write!(f, "<callback {operation:#x}{}>", Octets(data))
            }
            Self::Mrru(octets) => write!(f, "<mrru {octets}>"),
            Self::Ssnhf => f.write_str("<ssnhf>"),
            Self::Endpoint(class, address) => endpoint(f, *class, address),
            Self::Unknown(kind, data) => nameless_option(f, *kind, data),
        }
    }
}

fn endpoint(f: &mut fmt::Formatter<'_>, class: u8, address: &[u8]) -> fmt::Result {
    const CLASSES: [&str; 6] = ["null", "local", "IP", "MAC", "magic", "phone"];
    f.write_str("<endpoint [")?;
    match CLASSES.get(usize::from(class)) {
        Some(name) => f.write_str(name)?,
        None => write!(f, "{class}")?,
    }
    match (class, address) {
        (2, &[a, b, c, d]) => write!(f, ":{}", Ipv4Addr::new(a, b, c, d))?,
        _ => {
            // A MAC address has colons, a magic number its words, and anything else a dot between
            // octets.
            let (separator, group_len) = match class {
                3 if address.len() == 6 => (':', 1),
                4 if address.len().is_multiple_of(4) => ('.', 4),
                _ => ('.', 1),
            };
            for (index, octet) in address.iter().enumerate() {
                if index == 0 {
                    f.write_char(':')?;
                } else if index % group_len == 0 {
                    f.write_char(separator)?;
                }
                write!(f, "{octet:02x}")?;
            }
        }
    }
    f.write_str("]>")
}

impl ConfigOption for LcpOption {
    fn parse(kind: u8, data: &[u8]) -> Self {
        match (kind, data) {
            (1, &[a, b]) => Self::Mru(u16::from_be_bytes([a, b])),
            (2, &[a, b, c, d]) => Self::Accm(u32::from_be_bytes([a, b, c, d])),
            (3, &[a, b, ref rest @ ..]) => {
                let protocol = Protocol(u16::from_be_bytes([a, b]));
                Self::Auth(AuthProtocol::parse(protocol, rest))
            }
            (4, &[a, b, ref rest @ ..]) => {
                Self::Quality(u16::from_be_bytes([a, b]), Bytes::copy_from_slice(rest))
            }
            (5, &[a, b, c, d]) => Self::Magic(u32::from_be_bytes([a, b, c, d])),
            (7, []) => Self::Pfc,
            (8, []) => Self::Acfc,
            (13, &[operation, ref rest @ ..]) => {
                Self::Callback(operation, Bytes::copy_from_slice(rest))
            }
            (17, &[a, b]) => Self::Mrru(u16::from_be_bytes([a, b])),
            (18, []) => Self::Ssnhf,
            (19, &[class, ref rest @ ..]) => Self::Endpoint(class, Bytes::copy_from_slice(rest)),
            _ => Self::Unknown(kind, Bytes::copy_from_slice(data)),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Mru(_) => 1,
            Self::Accm(_) => 2,
            Self::Auth(_) => 3,
            Self::Quality(..) => 4,
            Self::Magic(_) => 5,
            Self::Pfc => 7,
            Self::Acfc => 8,
            Self::Callback(..) => 13,
            Self::Mrru(_) => 17,
            Self::Ssnhf => 18,
            Self::Endpoint(..) => 19,
            Self::Unknown(kind, _) => *kind,
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Pfc | Self::Acfc | Self::Ssnhf => 0,
            Self::Mru(_) | Self::Mrru(_) => 2,
            Self::Accm(_) | Self::Magic(_) => 4,
            Self::Auth(auth) => 2 + auth.data().len(),
            Self::Quality(_, data) => 2 + clamp_data(data, 2).len(),
            Self::Callback(_, data) | Self::Endpoint(_, data) => 1 + clamp_data(data, 1).len(),
            Self::Unknown(_, data) => clamp_data(data, 0).len(),
        }
    }

    fn emit_data(&self, mut buffer: &mut [u8]) {
        match self {
            Self::Pfc | Self::Acfc | Self::Ssnhf => {}
            Self::Mru(octets) | Self::Mrru(octets) => buffer.put_u16(*octets),
            Self::Accm(value) | Self::Magic(value) => buffer.put_u32(*value),
            Self::Auth(auth) => {
                buffer.put_u16(auth.protocol().0);
                buffer.put_slice(auth.data());
            }
            Self::Quality(protocol, data) => {
                buffer.put_u16(*protocol);
                buffer.put_slice(clamp_data(data, 2));
            }
            Self::Callback(first, data) | Self::Endpoint(first, data) => {
                buffer.put_u8(*first);
                buffer.put_slice(clamp_data(data, 1));
            }
            Self::Unknown(_, data) => buffer.put_slice(clamp_data(data, 0)),
        }
    }
}
