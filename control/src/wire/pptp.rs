//! The fifteen PPTP control messages (RFC 2637 2).

/// TCP port of the control connection (RFC 2637 1.3).
pub const PORT: u16 = 1723;
/// Magic Cookie (RFC 2637 2.1).
pub const MAGIC_COOKIE: u32 = 0x1A2B_3C4D;
/// Protocol Version 1.0 (RFC 2637 2.1).
pub const PROTOCOL_VERSION: u16 = 0x0100;
