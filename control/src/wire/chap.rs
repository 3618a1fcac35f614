//! CHAP packets (RFC 1994 4), also as MS-CHAPv1 (RFC 2433) and MS-CHAPv2 (RFC 2759) fill them.

/// One CHAP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChapPacket<'a> {
    /// Code 1: Value and the sender's Name.
    Challenge {
        /// Matches the Response.
        id: u8,
        /// 1 to 255 octets: 8 in MS-CHAPv1, 16 in MS-CHAPv2.
        value: &'a [u8],
        /// Name of the authenticator.
        name: &'a [u8],
    },
    /// Code 2: Value and the sender's Name.
    Response {
        /// That of the Challenge.
        id: u8,
        /// 16 octets with MD5, 49 in MS-CHAP.
        value: &'a [u8],
        /// Name of the peer.
        name: &'a [u8],
    },
    /// Code 3.
    Success {
        /// That of the Response.
        id: u8,
        /// Text; `S=<40 hex> M=...` in MS-CHAPv2.
        message: &'a [u8],
    },
    /// Code 4.
    Failure {
        /// That of the Response.
        id: u8,
        /// Text; `E=691 R=1 C=... V=3 M=...` in MS-CHAP.
        message: &'a [u8],
    },
    /// Any other code, 5 to 7 of MS-CHAP's change-password among them.
    Other {
        /// Code.
        code: u8,
        /// Identifier.
        id: u8,
        /// The rest.
        data: &'a [u8],
    },
}
