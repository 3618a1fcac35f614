//! EAP packets (RFC 3748 4), as far as a log needs them: what cannot be spoken is still named.

use super::WireError;
use super::cp::ControlPacket;

/// One EAP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EapPacket<'a> {
    /// 1 Request, 2 Response, 3 Success, 4 Failure.
    pub code: u8,
    /// Matches Responses with Requests.
    pub id: u8,
    /// What is asked for or answered; only Requests and Responses have one.
    pub kind: Option<u8>,
    /// What follows.
    pub data: &'a [u8],
}

impl<'a> EapPacket<'a> {
    /// Reads one packet from a frame's payload.
    ///
    /// # Errors
    /// `Truncated` or `BadLength` when Length contradicts what is there, or a Request or Response
    /// has no Type.
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let ControlPacket { code, id, data } = ControlPacket::parse(payload)?;
        let code = code.0;
        let (kind, data) = match (code, data) {
            (1 | 2, []) => return Err(WireError::Truncated { needed: 5, got: 4 }),
            (1 | 2, &[kind, ref data @ ..]) => (Some(kind), data),
            _ => (None, data),
        };
        Ok(Self {
            code,
            id,
            kind,
            data,
        })
    }
}
