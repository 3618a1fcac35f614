//! CHAP packets (RFC 1994 4), also as MS-CHAPv1 (RFC 2433) and MS-CHAPv2 (RFC 2759) fill them.

use bytes::{BufMut, Bytes};

use super::WireError;
use super::cp::ControlPacket;
use super::reader::Reader;

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

impl<'a> ChapPacket<'a> {
    /// Reads one packet from a frame's payload. Octets past Length are padding.
    ///
    /// # Errors
    /// `Truncated` or `BadLength` when Length or Value-Size contradict what is there; such packets
    /// are silently discarded (RFC 1994 4).
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let ControlPacket { code, id, data } = ControlPacket::parse(payload)?;
        Ok(match code.0 {
            1 => {
                let (value, name) = Self::parse_value(data)?;
                Self::Challenge { id, value, name }
            }
            2 => {
                let (value, name) = Self::parse_value(data)?;
                Self::Response { id, value, name }
            }
            3 => Self::Success { id, message: data },
            4 => Self::Failure { id, message: data },
            code => Self::Other { code, id, data },
        })
    }

    fn parse_value(data: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), WireError> {
        let mut reader = Reader::new(data);
        let value_len = usize::from(reader.u8()?);
        Ok((reader.take(value_len)?, reader.rest()))
    }

    /// The Identifier field.
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Self::Challenge { id, .. }
            | Self::Response { id, .. }
            | Self::Success { id, .. }
            | Self::Failure { id, .. }
            | Self::Other { id, .. } => *id,
        }
    }

    /// The packet in a buffer of its own. A value beyond 255 octets is cut there, as Value-Size
    /// has one octet.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = vec![0; self.buffer_len()];
        self.emit(&mut buffer);
        buffer.into()
    }

    /// Octets that `emit` writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        4 + match self {
            Self::Challenge { value, name, .. } | Self::Response { value, name, .. } => {
                1 + kept_value(value).len() + kept_rest(name).len()
            }
            Self::Success { message, .. } | Self::Failure { message, .. } => {
                kept_rest(message).len()
            }
            Self::Other { data, .. } => kept_rest(data).len(),
        }
    }

    /// Writes the packet.
    ///
    /// # Panics
    /// When `buffer` is shorter than `buffer_len()`.
    pub fn emit(&self, mut buffer: &mut [u8]) {
        let len = u16::try_from(self.buffer_len()).unwrap_or(u16::MAX);
        buffer.put_u8(match self {
            Self::Challenge { .. } => 1,
            Self::Response { .. } => 2,
            Self::Success { .. } => 3,
            Self::Failure { .. } => 4,
            Self::Other { code, .. } => *code,
        });
        buffer.put_u8(self.id());
        buffer.put_u16(len);
        match self {
            Self::Challenge { value, name, .. } | Self::Response { value, name, .. } => {
                let value = kept_value(value);
                buffer.put_u8(u8::try_from(value.len()).unwrap_or(u8::MAX));
                buffer.put_slice(value);
                buffer.put_slice(kept_rest(name));
            }
            Self::Success { message, .. } | Self::Failure { message, .. } => {
                buffer.put_slice(kept_rest(message));
            }
            Self::Other { data, .. } => buffer.put_slice(kept_rest(data)),
        }
    }
}

/// As much as Value-Size can tell.
fn kept_value(value: &[u8]) -> &[u8] {
    value.get(..usize::from(u8::MAX)).unwrap_or(value)
}

/// As much as Length can tell, whatever stands in front.
fn kept_rest(rest: &[u8]) -> &[u8] {
    rest.get(..usize::from(u16::MAX) - 4 - 256).unwrap_or(rest)
}

/// Octets of the Value of an MS-CHAP response, either version.
pub const MSCHAP_RESPONSE_LEN: usize = 49;

/// The Value of an MS-CHAPv1 response (RFC 2433 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsChapV1Response {
    /// From the LAN Manager password; zeros when not given.
    pub lm_response: [u8; 24],
    /// From the Windows NT password.
    pub nt_response: [u8; 24],
    /// 1 when `nt_response` is to be used.
    pub use_nt_response: u8,
}

impl MsChapV1Response {
    /// Takes the Value field.
    ///
    /// # Errors
    /// `BadLength` when it is not 49 octets.
    pub fn parse(value: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(exactly(value)?);
        Ok(Self {
            lm_response: reader.array()?,
            nt_response: reader.array()?,
            use_nt_response: reader.u8()?,
        })
    }

    /// The Value field.
    #[must_use]
    pub fn to_value(&self) -> [u8; MSCHAP_RESPONSE_LEN] {
        let mut value = [0; MSCHAP_RESPONSE_LEN];
        let mut buffer = &mut value[..];
        buffer.put_slice(&self.lm_response);
        buffer.put_slice(&self.nt_response);
        buffer.put_u8(self.use_nt_response);
        value
    }
}

/// The Value of an MS-CHAPv2 response (RFC 2759 4). Its eight reserved octets are sent as zeros
/// and not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsChapV2Response {
    /// Random octets of the peer.
    pub peer_challenge: [u8; 16],
    /// What proves the password.
    pub nt_response: [u8; 24],
    /// Zero.
    pub flags: u8,
}

impl MsChapV2Response {
    /// Takes the Value field.
    ///
    /// # Errors
    /// `BadLength` when it is not 49 octets.
    pub fn parse(value: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(exactly(value)?);
        let peer_challenge = reader.array()?;
        reader.take(8)?;
        Ok(Self {
            peer_challenge,
            nt_response: reader.array()?,
            flags: reader.u8()?,
        })
    }

    /// The Value field.
    #[must_use]
    pub fn to_value(&self) -> [u8; MSCHAP_RESPONSE_LEN] {
        let mut value = [0; MSCHAP_RESPONSE_LEN];
        let mut buffer = &mut value[..];
        buffer.put_slice(&self.peer_challenge);
        buffer.put_bytes(0, 8);
        buffer.put_slice(&self.nt_response);
        buffer.put_u8(self.flags);
        value
    }
}

fn exactly(value: &[u8]) -> Result<&[u8], WireError> {
    if value.len() == MSCHAP_RESPONSE_LEN {
        Ok(value)
    } else {
        Err(WireError::BadLength(value.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_size_past_the_end_is_refused() {
        // Value-Size 16, two octets there.
        let error = WireError::Truncated { needed: 17, got: 3 };
        assert_eq!(ChapPacket::parse(&[1, 1, 0, 7, 16, 0xAA, 0xBB]), Err(error));
    }

    #[test]
    fn a_challenge_without_a_value_is_refused() {
        assert!(ChapPacket::parse(&[1, 1, 0, 4]).is_err());
    }

    #[test]
    fn an_mschap_response_of_another_length_is_refused() {
        for len in [0, 16, 48, 50] {
            let value = vec![0; len];
            assert_eq!(
                MsChapV1Response::parse(&value),
                Err(WireError::BadLength(len))
            );
            assert_eq!(
                MsChapV2Response::parse(&value),
                Err(WireError::BadLength(len))
            );
        }
    }
}
