//! LCP options (RFC 1661 6; RFC 1662 7.1; RFC 1990 5.1).

use bytes::Bytes;

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
