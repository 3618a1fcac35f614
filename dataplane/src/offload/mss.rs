//! MSS clamping: a TCP connection through the tunnel is told of no larger segments than pass it
//! whole (RFC 9293 3.7.1), whoever the two ends are. ICMP would tell them too, where it is let
//! through.

use super::headers::{IpHeader, TCP, TCP_LEN_MIN, tcp};

/// RFC 9293 3.2.
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: usize = 4;
const SYN: u8 = 0x02;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// Lowers the Maximum Segment Size in a SYN to what goes into an IP packet of `mtu` octets. The
/// checksum, which must be complete, stays right. Everything else is left as it is.
pub fn clamp(packet: &mut [u8], mtu: u16) {
    let Some(ip) = IpHeader::parse(packet).filter(|ip| ip.protocol == TCP) else {
        return;
    };
    let headers = TCP_LEN_MIN + if ip.is_ipv4 { IPV4_LEN } else { IPV6_LEN };
    let mss_max = usize::from(mtu).saturating_sub(headers) as u16;
    let Some(segment) = packet.get_mut(ip.len..) else {
        return;
    };
    if segment.len() > TCP_LEN_MIN && segment[tcp::FLAGS] & SYN != 0 {
        clamp_segment(segment, mss_max);
    }
}

fn clamp_segment(segment: &mut [u8], mss_max: u16) {
    let Some(at) = find_mss(segment) else { return };
    let before = [segment[at], segment[at + 1]];
    if u16::from_be_bytes(before) <= mss_max {
        return;
    }
    let after = mss_max.to_be_bytes();
    segment[at..at + 2].copy_from_slice(&after);
    // At an odd place the two octets belong to two words of the sum, each in the other's half.
    let as_word = |octets: [u8; 2]| match at % 2 {
        0 => u16::from_be_bytes(octets),
        _ => u16::from_le_bytes(octets),
    };
    let field = tcp::CHECKSUM..tcp::CHECKSUM + 2;
    let checksum = u16::from_be_bytes([segment[field.start], segment[field.start + 1]]);
    let checksum = updated(checksum, as_word(before), as_word(after));
    segment[field].copy_from_slice(&checksum.to_be_bytes());
}

/// Where the value of the option is, in a segment longer than `TCP_LEN_MIN`.
fn find_mss(segment: &[u8]) -> Option<usize> {
    let header_len = usize::from(segment[tcp::DATA_OFFSET] >> 4) * 4;
    let header = segment.get(..header_len)?;
    let mut at = TCP_LEN_MIN;
    loop {
        match *header.get(at)? {
            OPTION_END => return None,
            OPTION_NOTHING => at += 1,
            kind => {
                let len = usize::from(*header.get(at + 1)?);
                if kind == OPTION_MSS && len == OPTION_MSS_LEN {
                    return (at + len <= header.len()).then_some(at + 2);
                }
                at += len.max(2);
            }
        }
    }
}

/// A checksum after one of the words that it covers has changed (RFC 1624 3, equation 3).
fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::checksum::Sum;
    use proptest::prelude::*;

    /// A SYN with these options behind its header, and a right checksum.
    fn syn(is_ipv4: bool, options: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), OPTION_END);
        let mut segment = vec![0; TCP_LEN_MIN];
        segment[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
        segment[tcp::DATA_OFFSET] = (((TCP_LEN_MIN + options.len()) / 4) << 4) as u8;
        segment[tcp::FLAGS] = SYN;
        segment.extend_from_slice(&options);
        let addresses: Vec<u8> = (1..=if is_ipv4 { 8 } else { 32 }).collect();
        let sum = Sum::default().with_pseudo_header(&addresses, TCP, segment.len());
        let checksum = sum.with(&segment).finish();
        segment[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&checksum);
        let mut packet = if is_ipv4 {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0];
            header[3] = (IPV4_LEN + segment.len()) as u8;
            header
        } else {
            vec![0x60, 0, 0, 0, 0, segment.len() as u8, TCP, 64]
        };
        packet.extend_from_slice(&addresses);
        packet.extend_from_slice(&segment);
        packet
    }

    fn holds(packet: &[u8]) -> bool {
        let (addresses, segment) = match packet[0] >> 4 {
            4 => (&packet[12..20], &packet[20..]),
            _ => (&packet[8..40], &packet[40..]),
        };
        let sum = Sum::default().with_pseudo_header(addresses, TCP, segment.len());
        sum.with(segment).holds()
    }

    const MSS_1460: [u8; 4] = [OPTION_MSS, 4, 0x05, 0xB4];

    #[test]
    fn a_large_segment_size_becomes_what_fits() {
        for (is_ipv4, fits) in [(true, 1_360_u16), (false, 1_340)] {
            let mut packet = syn(is_ipv4, &MSS_1460);
            clamp(&mut packet, 1_400);
            let at = packet.len() - 2;
            assert_eq!(packet[at..], fits.to_be_bytes());
            assert!(holds(&packet));
        }
    }

    #[test]
    fn an_option_at_an_odd_place_keeps_its_checksum() {
        let options = [&[OPTION_NOTHING][..], &MSS_1460, &[OPTION_NOTHING; 3]].concat();
        let mut packet = syn(true, &options);
        clamp(&mut packet, 1_400);
        assert_eq!(packet[43..45], 1_360_u16.to_be_bytes());
        assert!(holds(&packet));
    }

    #[test]
    fn what_fits_and_what_is_no_syn_stays() {
        let mut small = syn(true, &[OPTION_MSS, 4, 0x02, 0x00]);
        let mut ack = syn(true, &MSS_1460);
        ack[20 + tcp::FLAGS] = tcp::ACK;
        let mut fragment = syn(true, &MSS_1460);
        fragment[7] = 1;
        let mut bare = syn(true, &[]);
        for packet in [&mut small, &mut ack, &mut fragment, &mut bare] {
            let before = packet.clone();
            clamp(packet, 1_400);
            assert_eq!(*packet, before);
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_borne(mut packet in prop::collection::vec(any::<u8>(), 0..120), mtu: u16) {
            clamp(&mut packet, mtu);
        }

        #[test]
        fn any_options_keep_a_right_checksum(
            options in prop::collection::vec(any::<u8>(), 0..40),
            is_ipv4: bool,
            mtu in 576_u16..1_500,
        ) {
            let mut packet = syn(is_ipv4, &options);
            clamp(&mut packet, mtu);
            prop_assert!(holds(&packet));
        }
    }
}
