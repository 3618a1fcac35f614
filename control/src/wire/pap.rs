//! PAP packets (RFC 1334 2.2).

/// One PAP packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PapPacket<'a> {
    /// Code 1.
    AuthenticateRequest {
        /// Matches the reply.
        id: u8,
        /// Peer-ID.
        peer_id: &'a [u8],
        /// In the clear.
        password: &'a [u8],
    },
    /// Code 2.
    AuthenticateAck {
        /// That of the request.
        id: u8,
        /// Text.
        message: &'a [u8],
    },
    /// Code 3.
    AuthenticateNak {
        /// That of the request.
        id: u8,
        /// Text.
        message: &'a [u8],
    },
}
