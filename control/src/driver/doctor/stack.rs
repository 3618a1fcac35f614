//! As much of an IP stack as asking through the tunnel takes: ICMP echo (RFC 792) and a question to
//! a name server (RFC 1035 4.1 over RFC 768). With it no interface, address or route of this host
//! is needed.

use std::net::Ipv4Addr;

use dataplane::wire::ipv4::{self, Ipv4Repr};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_UDP: u8 = 17;
const IP_HEADER_LEN: usize = 20;
const ICMP_HEADER_LEN: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const DOMAIN_PORT: u16 = 53;
/// Where our questions come from: any port will do, as nobody else uses this address.
const OUR_PORT: u16 = 33_053;

/// Something that came back through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// To the echo request of this number.
    Echo { sequence: u16, len: usize },
    /// From a name server, with its response code (RFC 1035 4.1.1).
    Name { server: Ipv4Addr, id: u16, code: u8 },
    /// Nobody listens there: from this address, with this code.
    Unreachable { from: Ipv4Addr, code: u8 },
}

/// An ICMP echo request in an IP packet of `len` octets, at least 28, with Don't Fragment.
pub(super) fn echo_request(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    sequence: u16,
    len: usize,
) -> Vec<u8> {
    let len = len.max(IP_HEADER_LEN + ICMP_HEADER_LEN);
    let mut icmp = vec![0; len - IP_HEADER_LEN];
    icmp[0] = ECHO_REQUEST;
    icmp[4..6].copy_from_slice(&OUR_PORT.to_be_bytes());
    icmp[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(PROTOCOL_ICMP, source, destination, &icmp)
}

/// Asks a name server for the name servers of the root, which everyone knows or refuses to tell.
pub(super) fn name_question(source: Ipv4Addr, server: Ipv4Addr, id: u16) -> Vec<u8> {
    const RECURSION_DESIRED: u16 = 0x0100;
    const NAME_SERVERS: u16 = 2;
    const INTERNET: u16 = 1;
    let mut udp = Vec::new();
    let mut put = |word: u16| udp.extend_from_slice(&word.to_be_bytes());
    for word in [OUR_PORT, DOMAIN_PORT, 0, 0] {
        put(word);
    }
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        put(word);
    }
    udp.push(0);
    for word in [NAME_SERVERS, INTERNET] {
        udp.extend_from_slice(&word.to_be_bytes());
    }
    let len = udp.len() as u16;
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    let pseudo = [
        &source.octets()[..],
        &server.octets(),
        &[0, PROTOCOL_UDP],
        &len.to_be_bytes(),
    ]
    .concat();
    let sum = match checksum(&[&pseudo, &udp]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(PROTOCOL_UDP, source, server, &udp)
}

/// What a packet from the tunnel answers.
pub(super) fn read(packet: &[u8]) -> Option<Reply> {
    let ip = Ipv4Repr::parse(packet).ok()?;
    let payload = packet.get(ip.header_len..ip.total_len)?;
    let port = OUR_PORT.to_be_bytes();
    match (ip.protocol, payload) {
        (PROTOCOL_ICMP, [ECHO_REPLY, 0, _, _, a, b, c, d, ..]) if [*a, *b] == port => {
            Some(Reply::Echo {
                sequence: u16::from_be_bytes([*c, *d]),
                len: ip.total_len,
            })
        }
        (PROTOCOL_ICMP, [UNREACHABLE, code, ..]) => Some(Reply::Unreachable {
            from: ip.source,
            code: *code,
        }),
        (
            PROTOCOL_UDP,
            [
                0,
                53,
                to_high,
                to_low,
                _,
                _,
                _,
                _,
                id_high,
                id_low,
                flags,
                code,
                ..,
            ],
        ) if [*to_high, *to_low] == port && flags & 0x80 != 0 => Some(Reply::Name {
            server: ip.source,
            id: u16::from_be_bytes([*id_high, *id_low]),
            code: code & 0x0F,
        }),
        _ => None,
    }
}

/// The words of a response code (RFC 1035 4.1.1).
pub(super) const fn response_code(code: u8) -> &'static str {
    match code {
        0 => "no error",
        1 => "format error",
        2 => "server failure",
        3 => "no such name",
        4 => "not implemented",
        5 => "refused",
        _ => "unknown code",
    }
}

fn packet(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    const DONT_FRAGMENT: u8 = 0x40;
    let len = u16::try_from(IP_HEADER_LEN + payload.len()).unwrap_or(u16::MAX);
    let mut header = ipv4::header(len, 1, protocol, source, destination);
    header[6] |= DONT_FRAGMENT;
    header[10..12].fill(0);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

/// RFC 1071, over parts of which all but the last have an even number of octets.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words
        .map(|word| match word {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(*high) << 8,
            _ => 0,
        })
        .sum();
    let mut folded = sum;
    while folded > 0xFFFF {
        folded = (folded & 0xFFFF) + (folded >> 16);
    }
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 168, 254, 231);
    const THEM: Ipv4Addr = Ipv4Addr::new(192, 168, 254, 230);

    #[test]
    fn an_echo_request_is_as_long_as_asked_for_and_whole() {
        let packet = echo_request(US, THEM, 7, 1_400);
        let ip = Ipv4Repr::parse(&packet).unwrap();
        assert_eq!((ip.total_len, packet.len()), (1_400, 1_400));
        assert!(ip.checksum_holds(&packet));
        assert!(!ip.is_fragment);
        assert_eq!(packet[6], 0x40, "Don't Fragment");
        assert_eq!(checksum(&[&packet[20..]]), 0, "ICMP");
    }

    #[test]
    fn an_echo_reply_is_told_from_others() {
        let mut packet = echo_request(US, THEM, 7, 64);
        assert_eq!(read(&packet), None, "our own request");
        packet[20] = ECHO_REPLY;
        assert_eq!(
            read(&packet),
            Some(Reply::Echo {
                sequence: 7,
                len: 64
            })
        );
        packet[25] ^= 1;
        assert_eq!(read(&packet), None, "somebody else's");
    }

    #[test]
    fn a_question_has_a_checksum_that_holds_and_its_answer_a_code() {
        let question = name_question(US, THEM, 0x1234);
        let udp = &question[20..];
        let len = udp.len() as u16;
        let pseudo = [
            &US.octets()[..],
            &THEM.octets(),
            &[0, 17],
            &len.to_be_bytes(),
        ]
        .concat();
        assert_eq!(checksum(&[&pseudo, udp]), 0);
        let mut answer = question.clone();
        answer[12..16].copy_from_slice(&THEM.octets());
        answer[20..22].copy_from_slice(&53_u16.to_be_bytes());
        answer[22..24].copy_from_slice(&OUR_PORT.to_be_bytes());
        answer[30] = 0x81;
        answer[31] = 0x85;
        let reply = Reply::Name {
            server: THEM,
            id: 0x1234,
            code: 5,
        };
        assert_eq!(read(&answer), Some(reply));
    }
}
