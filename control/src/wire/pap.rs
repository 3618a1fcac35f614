//! PAP packets (RFC 1334 2.2).

use std::fmt;

use bytes::{BufMut, Bytes};

use super::WireError;
use super::cp::ControlPacket;
use super::reader::Reader;

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

impl<'a> PapPacket<'a> {
    /// Reads one packet from a frame's payload. An Ack or Nak without a Msg-Length, as some peers
    /// send, has an empty message.
    ///
    /// # Errors
    /// `Truncated` or `BadLength` when a length contradicts what is there, `BadValue` when the code
    /// is none of the three. Such packets are silently discarded (RFC 1334 2.2).
    pub fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        let ControlPacket { code, id, data } = ControlPacket::parse(payload)?;
        let mut reader = Reader::new(data);
        Ok(match code.0 {
            1 => Self::AuthenticateRequest {
                id,
                peer_id: take_counted(&mut reader)?,
                password: take_counted(&mut reader)?,
            },
            2 | 3 => {
                let message = if data.is_empty() {
                    data
                } else {
                    take_counted(&mut reader)?
                };
                if code.0 == 2 {
                    Self::AuthenticateAck { id, message }
                } else {
                    Self::AuthenticateNak { id, message }
                }
            }
            value => {
                return Err(WireError::BadValue {
                    field: "Code",
                    value: value.into(),
                });
            }
        })
    }

    /// The Identifier field.
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Self::AuthenticateRequest { id, .. }
            | Self::AuthenticateAck { id, .. }
            | Self::AuthenticateNak { id, .. } => *id,
        }
    }

    /// Octets that `emit` writes.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        4 + match self {
            Self::AuthenticateRequest {
                peer_id, password, ..
            } => 2 + countable(peer_id).len() + countable(password).len(),
            Self::AuthenticateAck { message, .. } | Self::AuthenticateNak { message, .. } => {
                1 + countable(message).len()
            }
        }
    }

    /// Writes the packet. Names, passwords and messages beyond 255 octets are cut there, as their
    /// lengths have one octet.
    ///
    /// # Panics
    /// When `buffer` is shorter than `buffer_len()`.
    pub fn emit(&self, mut buffer: &mut [u8]) {
        let len = u16::try_from(self.buffer_len()).unwrap_or(u16::MAX);
        buffer.put_u8(match self {
            Self::AuthenticateRequest { .. } => 1,
            Self::AuthenticateAck { .. } => 2,
            Self::AuthenticateNak { .. } => 3,
        });
        buffer.put_u8(self.id());
        buffer.put_u16(len);
        match self {
            Self::AuthenticateRequest {
                peer_id, password, ..
            } => {
                put_counted(&mut buffer, peer_id);
                put_counted(&mut buffer, password);
            }
            Self::AuthenticateAck { message, .. } | Self::AuthenticateNak { message, .. } => {
                put_counted(&mut buffer, message);
            }
        }
    }

    /// The packet in a buffer of its own.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = vec![0; self.buffer_len()];
        self.emit(&mut buffer);
        buffer.into()
    }
}

fn take_counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let len = usize::from(reader.u8()?);
    reader.take(len)
}

/// As much as a one-octet length can tell.
fn countable(octets: &[u8]) -> &[u8] {
    octets.get(..usize::from(u8::MAX)).unwrap_or(octets)
}

fn put_counted(buffer: &mut &mut [u8], octets: &[u8]) {
    let octets = countable(octets);
    buffer.put_u8(u8::try_from(octets.len()).unwrap_or(u8::MAX));
    buffer.put_slice(octets);
}

/// Never shows the password.
impl fmt::Debug for PapPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, id, text) = match self {
            Self::AuthenticateRequest { id, peer_id, .. } => ("AuthenticateRequest", id, peer_id),
            Self::AuthenticateAck { id, message } => ("AuthenticateAck", id, message),
            Self::AuthenticateNak { id, message } => ("AuthenticateNak", id, message),
        };
        f.debug_struct(name)
            .field("id", id)
            .field("text", &text.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_password() {
        let packet = PapPacket::AuthenticateRequest {
            id: 1,
            peer_id: b"mia",
            password: b"mia123",
        };
        let debug = format!("{packet:?}");
        assert!(debug.contains("mia"));
        assert!(!debug.contains("123"));
    }

    #[test]
    fn an_ack_without_msg_length_has_an_empty_message() {
        let ack = PapPacket::AuthenticateAck {
            id: 9,
            message: b"",
        };
        assert_eq!(PapPacket::parse(&[2, 9, 0, 4]), Ok(ack));
    }

    #[test]
    fn a_password_length_past_the_end_is_refused() {
        assert!(PapPacket::parse(&[1, 1, 0, 8, 1, b'm', 9, b'x']).is_err());
    }
}
