//! EAP packets (RFC 3748 4).

use bytes::Bytes;

use super::WireError;
use super::cp::{Code, ControlPacket};

/// The Type field of a Request or Response (RFC 3748 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EapType(pub u8);

impl EapType {
    /// Who is it? (RFC 3748 5.1)
    pub const IDENTITY: Self = Self(1);
    /// A line for a person (RFC 3748 5.2).
    pub const NOTIFICATION: Self = Self(2);
    /// Another type, please; in Responses only (RFC 3748 5.3.1).
    pub const NAK: Self = Self(3);
    /// As CHAP with MD5 (RFC 3748 5.4).
    pub const MD5_CHALLENGE: Self = Self(4);
    /// As MS-CHAPv2 (draft-kamath-pppext-eap-mschapv2).
    pub const MSCHAP_V2: Self = Self(26);
}

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
    /// Code of a Request.
    pub const REQUEST: u8 = 1;
    /// Code of a Response.
    pub const RESPONSE: u8 = 2;
    /// Code of a Success.
    pub const SUCCESS: u8 = 3;
    /// Code of a Failure.
    pub const FAILURE: u8 = 4;

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

    /// The packet in a buffer of its own.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let data = [self.kind.as_slice(), self.data].concat();
        let (code, id, data) = (Code(self.code), self.id, &data[..]);
        ControlPacket { code, id, data }.to_bytes()
    }
}

/// What an MD5-Challenge Request or Response holds: Value-Size, Value and Name, as in CHAP.
///
/// # Errors
/// `Truncated` when Value-Size is more than is there.
pub fn parse_value(data: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let truncated = |needed| WireError::Truncated {
        needed,
        got: data.len(),
    };
    let (&len, rest) = data.split_first().ok_or_else(|| truncated(1))?;
    let len = usize::from(len);
    rest.split_at_checked(len).ok_or_else(|| truncated(1 + len))
}

/// Puts Value-Size in front of `value`, which is cut at 255 octets, and `name` behind it.
#[must_use]
pub fn value_with_name(value: &[u8], name: &[u8]) -> Vec<u8> {
    let value = value.get(..usize::from(u8::MAX)).unwrap_or(value);
    let len = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[len][..], value, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (code, kind) in [(1, Some(1)), (2, Some(26)), (3, None)] {
            let data = if kind.is_some() { &b"mia"[..] } else { &[] };
            let packet = EapPacket {
                code,
                id: 9,
                kind,
                data,
            };
            assert_eq!(EapPacket::parse(&packet.to_bytes()), Ok(packet));
        }
    }

    #[test]
    fn a_request_without_a_type_and_a_value_past_the_end_are_refused() {
        assert!(EapPacket::parse(&[1, 1, 0, 4]).is_err());
        assert!(parse_value(&[]).is_err());
        assert!(parse_value(&[3, 1, 2]).is_err());
        assert_eq!(parse_value(&[1, 7, b'z']), Ok((&[7][..], &b"z"[..])));
    }
}
