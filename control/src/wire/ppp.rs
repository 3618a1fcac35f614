//! PPP frames (RFC 1661 2, RFC 1662 3.1): address, control, protocol, information.

/// A PPP Protocol field (RFC 1661 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u16);

impl Protocol {
    /// Internet Protocol version 4.
    pub const IPV4: Self = Self(0x0021);
    /// Internet Protocol version 6.
    pub const IPV6: Self = Self(0x0057);
    /// Compressed or encrypted datagram (RFC 1962, RFC 3078).
    pub const COMPRESSED: Self = Self(0x00FD);
    /// IP Control Protocol (RFC 1332).
    pub const IPCP: Self = Self(0x8021);
    /// IPv6 Control Protocol (RFC 5072).
    pub const IPV6CP: Self = Self(0x8057);
    /// Compression Control Protocol (RFC 1962).
    pub const CCP: Self = Self(0x80FD);
    /// Link Control Protocol (RFC 1661).
    pub const LCP: Self = Self(0xC021);
    /// Password Authentication Protocol (RFC 1334).
    pub const PAP: Self = Self(0xC023);
    /// Callback Control Protocol.
    pub const CBCP: Self = Self(0xC029);
    /// Challenge Handshake Authentication Protocol (RFC 1994).
    pub const CHAP: Self = Self(0xC223);
    /// Extensible Authentication Protocol (RFC 3748).
    pub const EAP: Self = Self(0xC227);
}
