//! ICMP echo (RFC 792) through the tunnel.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Octets behind the ICMP header, as ping(8) sends them.
const PAYLOAD_LEN: usize = 56;
const HEADER_LEN: usize = 8;
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(20);

/// Sends `count` echo requests to `peer`; the round trips that came back, in milliseconds, sorted.
pub(in crate::cli) fn ping(peer: Ipv4Addr, count: u16) -> std::io::Result<Vec<f64>> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddrV4::new(peer, 0).into())?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let id = std::process::id() as u16;
    let mut round_trips = Vec::new();
    for sequence in 0..count {
        let sent = Instant::now();
        socket.send(&echo_request(id, sequence))?;
        if wait_for_reply(&socket, id, sequence, sent)? {
            round_trips.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        std::thread::sleep(INTERVAL);
    }
    round_trips.sort_by(f64::total_cmp);
    Ok(round_trips)
}

fn echo_request(id: u16, sequence: u16) -> [u8; HEADER_LEN + PAYLOAD_LEN] {
    let mut packet = [0x5a; HEADER_LEN + PAYLOAD_LEN];
    packet[..4].copy_from_slice(&[8, 0, 0, 0]);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// RFC 1071, over an even number of octets.
pub(in crate::cli) fn checksum(packet: &[u8]) -> u16 {
    let sum: u32 = packet
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

fn wait_for_reply(
    mut socket: &Socket,
    id: u16,
    sequence: u16,
    sent: Instant,
) -> std::io::Result<bool> {
    let mut buffer = [0; 2048];
    while sent.elapsed() < ANSWER_LIMIT {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if is_reply(&buffer[..length], id, sequence) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `packet` begins with the IPv4 header, as raw sockets deliver it.
fn is_reply(packet: &[u8], id: u16, sequence: u16) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let header_len = usize::from(first & 0x0f) * 4;
    let Some(icmp) = packet.get(header_len..header_len + HEADER_LEN) else {
        return false;
    };
    icmp[0] == 0 && icmp[4..6] == id.to_be_bytes() && icmp[6..8] == sequence.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        assert_eq!(checksum(&echo_request(0x1234, 7)), 0);
    }

    #[test]
    fn only_the_reply_to_this_request_counts() {
        let mut packet = vec![0x45; 20];
        packet.extend_from_slice(&[0, 0, 0, 0, 0x12, 0x34, 0, 7]);
        assert!(is_reply(&packet, 0x1234, 7));
        assert!(!is_reply(&packet, 0x1234, 8));
        assert!(!is_reply(&packet[..27], 0x1234, 7));
        packet[20] = 8;
        assert!(!is_reply(&packet, 0x1234, 7));
    }
}
