//! IPCP options (RFC 1332 3; RFC 1877 1).

use std::net::Ipv4Addr;

use bytes::Bytes;

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
