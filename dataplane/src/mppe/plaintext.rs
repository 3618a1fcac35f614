//! Whether what came out of the cipher is a packet: a PPP protocol, and what it carries (RFC 3078
//! 3).
//!
//! MPPE authenticates nothing, so a forged packet decrypts to noise. Noise must not advance the
//! keys: it is told from a packet by its PPP protocol and by the IP header behind it.

use crate::wire::ipv4::Ipv4Repr;
use crate::wire::ppp::{self, PppHeader};

/// Octets of plaintext that [`is_packet`] looks at, at most: protocol and longest IPv4 header.
pub const EVIDENCE_LEN: usize = 2 + 60;

/// Whether a plaintext of `len` octets that begins with `head` is a PPP packet that MPPE carries
/// (RFC 3078 3: protocols 0021 to 00FA). Noise passes with a chance of about 2 to the power of
/// -32 as IP. Other protocols have no header that we know: noise passes for one of them in one of
/// 600 cases, so they are believed only when `expected`, that is, when they move the keys on by
/// no more than a step.
#[must_use]
pub fn is_packet(head: &[u8], len: usize, expected: bool) -> bool {
    let Some(ppp) = PppHeader::parse_protocol(head) else {
        return false;
    };
    let inner = &head[ppp.len..];
    let inner_len = len.saturating_sub(ppp.len);
    match ppp.protocol {
        ppp::IPV4 => {
            Ipv4Repr::parse_header(inner, inner_len).is_ok_and(|ipv4| ipv4.checksum_holds(inner))
        }
        ppp::IPV6 => is_ipv6(inner, inner_len),
        protocol => expected && ppp.len == 2 && (0x0021..=0x00FA).contains(&protocol),
    }
}

/// Version 6 and a payload length that fits (RFC 8200 3).
fn is_ipv6(inner: &[u8], inner_len: usize) -> bool {
    const HEADER_LEN: usize = 40;
    match *inner {
        [version, _, _, _, high, low, ..] => {
            let payload_len = usize::from(u16::from_be_bytes([high, low]));
            version >> 4 == 6 && HEADER_LEN + payload_len == inner_len
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Protocol 0021 and an IPv4 header without payload.
    const IPV4: [u8; 22] = [
        0x00, 0x21, 0x45, 0x00, 0x00, 0x14, 0x4E, 0x55, 0x40, 0x00, 0x40, 0x2F, 0xD7, 0xC9, 0x0A,
        0x4D, 0x00, 0x01, 0x0A, 0x4D, 0x00, 0x02,
    ];

    #[test]
    fn ip_packets_are_believed_with_either_form_of_protocol() {
        assert!(is_packet(&IPV4, IPV4.len(), false));
        assert!(is_packet(&IPV4[1..], IPV4.len() - 1, false));
        let mut ipv6 = vec![0x57, 0x60, 0, 0, 0, 0, 3];
        ipv6.resize(1 + 40 + 3, 0);
        assert!(is_packet(&ipv6, ipv6.len(), false));
        assert!(!is_packet(&ipv6, ipv6.len() + 1, false));
    }

    #[test]
    fn unknown_protocols_are_believed_only_when_expected() {
        assert!(is_packet(&[0x00, 0x2D, 1, 2, 3], 5, true));
        assert!(!is_packet(&[0x00, 0x2D, 1, 2, 3], 5, false));
        assert!(!is_packet(&[0x2D, 1, 2, 3], 4, true));
        assert!(
            !is_packet(&[0xC0, 0x21, 1, 1], 4, true),
            "LCP is never encrypted"
        );
        assert!(!is_packet(&[], 0, true));
    }

    proptest! {
        #[test]
        fn noise_is_not_believed(noise: [u8; 64], len in 64..1500_usize) {
            prop_assert!(!is_packet(&noise[..EVIDENCE_LEN], len, false));
        }
    }
}
