//! The control connection (RFC 2637 2): fifteen messages over TCP, and how to find them in it.
//!
//! Every message is Length (2, header included), PPTP Message Type (2, always 1: control), Magic
//! Cookie (4), Control Message Type (2), Reserved0 (2), and fields of fixed length.

use bytes::{BufMut, Bytes};
use thiserror::Error;

use super::WireError;
use super::reader::Reader;

pub mod codes;
mod display;
pub mod messages;

pub use messages::Message;

/// TCP port of the control connection (RFC 2637 1.3).
pub const PORT: u16 = 1723;
/// Magic Cookie (RFC 2637 2.1).
pub const MAGIC_COOKIE: u32 = 0x1A2B_3C4D;
/// Protocol Version 1.0 (RFC 2637 2.1).
pub const PROTOCOL_VERSION: u16 = 0x0100;

/// Octets in front of a message's own fields.
const HEADER_LEN: usize = 12;
/// The longest message, Incoming-Call-Request: nothing longer is ever waited for.
pub const MESSAGE_LEN_MAX: usize = 220;
/// The only PPTP Message Type there is: 2, management, was never defined.
const CONTROL_MESSAGE: u16 = 1;

/// Why a byte stream is not a PPTP control connection. None of these can be got over, since where
/// the next message starts is not known: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PptpError {
    /// The stream is out of step, or something else is spoken there.
    #[error("bad magic cookie {0:#010x} (1a2b3c4d is due): is that port really PPTP's?")]
    BadMagicCookie(u32),
    /// Shorter than a header (0 included), or longer than any message.
    #[error("bad message length {0} (12 to 220 is possible)")]
    BadLength(u16),
    /// The PPTP Message Type is not "control".
    #[error("PPTP message type {0} is not a control message")]
    NotControl(u16),
    /// The Control Message Type is none of the fifteen.
    #[error("unknown control message type {0}")]
    UnknownType(u16),
    /// Too short for its type.
    #[error("control message type {message_type} has {len} octets, which is too short")]
    TooShort {
        /// Control Message Type.
        message_type: u16,
        /// The Length field.
        len: u16,
    },
}

/// Reads the message at the front of `stream`, which may be cut anywhere, and says how many octets
/// it took; `None` when more must come first, which is never more than [`MESSAGE_LEN_MAX`] octets
/// in all. What can be told from the octets that are there is told at once, so a peer that speaks
/// something else never makes us wait.
///
/// A message may be longer than its type needs: what follows the known fields is passed over, as
/// are reserved fields, whatever they hold.
///
/// # Errors
/// As [`PptpError`] says.
pub fn next_message(stream: &[u8]) -> Result<Option<(Message, usize)>, PptpError> {
    let mut reader = Reader::new(stream);
    let Ok(len) = reader.u16() else {
        return Ok(None);
    };
    if usize::from(len) < HEADER_LEN || usize::from(len) > MESSAGE_LEN_MAX {
        return Err(PptpError::BadLength(len));
    }
    match reader.u16() {
        Ok(CONTROL_MESSAGE) => {}
        Ok(other) => return Err(PptpError::NotControl(other)),
        Err(_) => return Ok(None),
    }
    match reader.u32() {
        Ok(MAGIC_COOKIE) => {}
        Ok(other) => return Err(PptpError::BadMagicCookie(other)),
        Err(_) => return Ok(None),
    }
    let Ok(message_type) = reader.u16() else {
        return Ok(None);
    };
    if !messages::is_known(message_type) {
        return Err(PptpError::UnknownType(message_type));
    }
    let Some(whole) = stream.get(..usize::from(len)) else {
        return Ok(None);
    };
    let fields = whole.get(HEADER_LEN..).unwrap_or(&[]);
    match Message::parse_fields(message_type, fields) {
        Ok(message) => Ok(Some((message, whole.len()))),
        Err(_) => Err(PptpError::TooShort { message_type, len }),
    }
}

impl Message {
    /// Octets that `emit` writes.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.fields_len()
    }

    /// Writes the message with its header, reserved fields zero.
    ///
    /// # Panics
    /// When `buffer` is shorter than `buffer_len()`.
    pub fn emit(&self, mut buffer: &mut [u8]) {
        // Every message is shorter than 256 octets.
        buffer.put_u16(u16::try_from(self.buffer_len()).unwrap_or(u16::MAX));
        buffer.put_u16(CONTROL_MESSAGE);
        buffer.put_u32(MAGIC_COOKIE);
        buffer.put_u16(self.message_type());
        buffer.put_u16(0);
        self.emit_fields(buffer);
    }

    /// The message in a buffer of its own.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = vec![0; self.buffer_len()];
        self.emit(&mut buffer);
        buffer.into()
    }
}

/// A text field of fixed length, filled up with zeros: Host Name, Vendor Name, Phone Number and
/// the like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// All zeros.
    pub const EMPTY: Self = Self([0; N]);

    /// As much of `text` as the field holds.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut field = [0; N];
        for (to, from) in field.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self(field)
    }

    /// The whole field, whatever it holds.
    #[must_use]
    pub const fn from_octets(octets: [u8; N]) -> Self {
        Self(octets)
    }

    /// The whole field.
    #[must_use]
    pub const fn octets(&self) -> &[u8; N] {
        &self.0
    }

    /// What stands before the first zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|octet| *octet == 0).next().unwrap_or(&[])
    }
}

impl<const N: usize> std::fmt::Display for Text<N> {
    /// What stands before the first zero, with anything but printable ASCII escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl<const N: usize> std::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Echo-Request, identifier 7, from RFC 2637 2.5.
    const ECHO_REQUEST: [u8; 16] = [
        0x00, 0x10, 0x00, 0x01, 0x1A, 0x2B, 0x3C, 0x4D, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x07,
    ];

    #[test]
    fn a_message_cut_anywhere_is_waited_for() {
        for cut in 0..ECHO_REQUEST.len() {
            assert_eq!(next_message(&ECHO_REQUEST[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn two_messages_in_one_segment_come_one_by_one() {
        let stream = [ECHO_REQUEST, ECHO_REQUEST].concat();
        let (message, len) = next_message(&stream).unwrap().unwrap();
        assert_eq!(message.to_bytes(), &ECHO_REQUEST[..]);
        assert_eq!(len, 16);
    }

    #[test]
    fn what_is_not_pptp_is_told_from_the_first_octets() {
        assert_eq!(next_message(&[0, 0]), Err(PptpError::BadLength(0)));
        assert_eq!(next_message(&[0, 11]), Err(PptpError::BadLength(11)));
        assert_eq!(next_message(&[0, 221]), Err(PptpError::BadLength(221)));
        // The first octets of an HTTP request.
        assert_eq!(next_message(b"GET /"), Err(PptpError::BadLength(0x4745)));
        assert_eq!(next_message(&[0, 16, 0, 2]), Err(PptpError::NotControl(2)));
        assert_eq!(
            next_message(&[0, 16, 0, 1, 0x4D, 0x3C, 0x2B, 0x1A]),
            Err(PptpError::BadMagicCookie(0x4D3C_2B1A))
        );
        let mut unknown = ECHO_REQUEST;
        unknown[9] = 16;
        assert_eq!(next_message(&unknown), Err(PptpError::UnknownType(16)));
        unknown[9] = 0;
        assert_eq!(next_message(&unknown), Err(PptpError::UnknownType(0)));
    }

    #[test]
    fn a_message_too_short_for_its_type_is_an_error() {
        let mut short = ECHO_REQUEST;
        short[1] = 15;
        assert_eq!(
            next_message(&short),
            Err(PptpError::TooShort {
                message_type: 5,
                len: 15
            })
        );
    }

    #[test]
    fn a_longer_message_and_reserved_fields_are_tolerated() {
        let mut long = [&ECHO_REQUEST[..], &[0xFF; 4]].concat();
        long[1] = 20;
        long[10] = 0xFF;
        let (message, len) = next_message(&long).unwrap().unwrap();
        assert_eq!(message.to_bytes(), &ECHO_REQUEST[..]);
        assert_eq!(len, 20);
    }

    #[test]
    fn a_text_longer_than_its_field_is_cut() {
        let text = Text::<4>::new("zidler");
        assert_eq!(text.octets(), b"zidl");
        assert_eq!(text.to_string(), "zidl");
        assert_eq!(Text::<4>::from_octets(*b"a\0\xFFb").to_string(), "a");
    }
}
