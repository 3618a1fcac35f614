//! The packet that LCP, CCP, IPCP and IPV6CP share (RFC 1661 5) and its options (RFC 1661 6).

/// The Code field (RFC 1661 5; RFC 1570 2; RFC 1962 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// RFC 1661 5.1.
    pub const CONFIGURE_REQUEST: Self = Self(1);
    /// RFC 1661 5.2.
    pub const CONFIGURE_ACK: Self = Self(2);
    /// RFC 1661 5.3.
    pub const CONFIGURE_NAK: Self = Self(3);
    /// RFC 1661 5.4.
    pub const CONFIGURE_REJECT: Self = Self(4);
    /// RFC 1661 5.5.
    pub const TERMINATE_REQUEST: Self = Self(5);
    /// RFC 1661 5.5.
    pub const TERMINATE_ACK: Self = Self(6);
    /// RFC 1661 5.6.
    pub const CODE_REJECT: Self = Self(7);
    /// RFC 1661 5.7, LCP only.
    pub const PROTOCOL_REJECT: Self = Self(8);
    /// RFC 1661 5.8, LCP only.
    pub const ECHO_REQUEST: Self = Self(9);
    /// RFC 1661 5.8, LCP only.
    pub const ECHO_REPLY: Self = Self(10);
    /// RFC 1661 5.9, LCP only.
    pub const DISCARD_REQUEST: Self = Self(11);
    /// RFC 1570 2.1, LCP only.
    pub const IDENTIFICATION: Self = Self(12);
    /// RFC 1570 2.2, LCP only.
    pub const TIME_REMAINING: Self = Self(13);
    /// RFC 1962 2.1, CCP only.
    pub const RESET_REQUEST: Self = Self(14);
    /// RFC 1962 2.1, CCP only.
    pub const RESET_ACK: Self = Self(15);
}

/// One packet: Code (1), Identifier (1), Length (2, big endian), Data. Octets past Length are
/// padding and ignored on reception (RFC 1661 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPacket<'a> {
    /// What kind.
    pub code: Code,
    /// Matches replies with requests.
    pub id: u8,
    /// `Length - 4` octets.
    pub data: &'a [u8],
}
