//! PPP frames (RFC 1661 2, RFC 1662 3.1): address, control, protocol, information.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::WireError;
use super::reader::Reader;

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

/// Address and Control fields of every frame here (RFC 1662 3.1): all stations, unnumbered
/// information.
const ADDRESS_CONTROL: [u8; 2] = [0xFF, 0x03];

/// One PPP frame as PPTP carries it: no flags, no FCS, Address and Control possibly left out
/// (RFC 1661 6.6), the Protocol field possibly one octet (RFC 1661 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub protocol: Protocol,
    /// What follows the header; padding, if any, included.
    pub payload: &'a [u8],
    /// Octets in front of the payload: 1 to 4.
    pub header_len: usize,
}

impl<'a> Frame<'a> {
    /// Takes every form of header, whatever was negotiated: receivers must take the long form, and
    /// the short one is told from it by its first octets.
    ///
    /// # Errors
    /// `Truncated` when the header is not whole.
    pub fn parse(frame: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame.strip_prefix(&ADDRESS_CONTROL).unwrap_or(frame));
        let first = reader.u8()?;
        // The last octet of a Protocol field is odd, every other even (RFC 1661 2).
        let protocol = if first & 1 == 1 {
            u16::from(first)
        } else {
            u16::from_be_bytes([first, reader.u8()?])
        };
        Ok(Self {
            protocol: Protocol(protocol),
            payload: reader.rest(),
            header_len: frame.len() - reader.rest().len(),
        })
    }
}

/// Which header fields the peer takes in their short form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderCompression {
    /// One octet for protocols below 0x0100 (RFC 1661 6.5).
    pub protocol: bool,
    /// No Address and Control fields (RFC 1661 6.6).
    pub address_control: bool,
}

/// Puts the PPP header in front of `payload`. LCP always has the long form, so that it is
/// understood whatever either side believes was negotiated (RFC 1661 6.5 and 6.6).
#[must_use]
pub fn frame(protocol: Protocol, payload: &[u8], compression: HeaderCompression) -> Bytes {
    let compression = if protocol == Protocol::LCP {
        HeaderCompression::default()
    } else {
        compression
    };
    let mut frame = Vec::with_capacity(4 + payload.len());
    if !compression.address_control {
        frame.extend_from_slice(&ADDRESS_CONTROL);
    }
    match protocol.0.to_be_bytes() {
        [0, low] if compression.protocol && low & 1 == 1 => frame.push(low),
        field => frame.extend_from_slice(&field),
    }
    frame.extend_from_slice(payload);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_header_is_understood() {
        for (octets, header_len) in [
            (&[0xFF, 0x03, 0x00, 0xFD, 0x90][..], 4),
            (&[0xFF, 0x03, 0xFD, 0x90], 3),
            (&[0x00, 0xFD, 0x90], 2),
            (&[0xFD, 0x90], 1),
        ] {
            let frame = Frame::parse(octets).unwrap();
            assert_eq!(frame.protocol, Protocol::COMPRESSED);
            assert_eq!(frame.payload, [0x90]);
            assert_eq!(frame.header_len, header_len);
        }
    }

    #[test]
    fn a_header_without_its_protocol_is_truncated() {
        for octets in [&[][..], &[0xFF, 0x03], &[0xFF, 0x03, 0xC0], &[0x00]] {
            assert!(matches!(
                Frame::parse(octets),
                Err(WireError::Truncated { .. })
            ));
        }
    }

    #[test]
    fn lcp_keeps_the_long_header_whatever_was_negotiated() {
        let all = HeaderCompression {
            protocol: true,
            address_control: true,
        };
        assert_eq!(
            frame(Protocol::LCP, &[9], all),
            &[0xFF, 0x03, 0xC0, 0x21, 9][..]
        );
        assert_eq!(frame(Protocol::IPCP, &[9], all), &[0x80, 0x21, 9][..]);
        assert_eq!(frame(Protocol::COMPRESSED, &[9], all), &[0xFD, 9][..]);
    }
}
