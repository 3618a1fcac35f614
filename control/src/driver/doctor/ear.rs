//! What passes this host's interfaces while a server is examined: GRE in both directions, before
//! the firewall on the way in and behind it on the way out, and ICMP errors about our packets
//! (RFC 792, RFC 1191).
//!
//! The worker sees only what is right; this sees also what is not.

use std::io::Read;
use std::net::Ipv4Addr;

use dataplane::wire::ipv4::{Ipv4Repr, PROTOCOL_GRE};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Every protocol, both directions (`ETH_P_ALL`, packet(7)).
const ALL_PROTOCOLS: u16 = 3;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
/// Octets of a packet that are looked at.
const LOOK_BYTES: usize = 2_048;
/// Packets that are looked at in one go, and ICMP errors that are kept.
const PACKETS_MAX: usize = 512;
const ERRORS_MAX: usize = 16;
/// The A bit in the second octet of a GRE header.
const ACKNOWLEDGMENT: u8 = 0x80;
/// Address, control and protocol of an LCP frame.
const LCP_FRAME: [u8; 4] = [0xFF, 0x03, 0xC0, 0x21];
const CONFIGURE_REQUEST: u8 = 1;
const ECHO_REQUEST: u8 = 9;

/// What an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Gre,
    Tcp,
}

/// One ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IcmpError {
    pub(super) from: Ipv4Addr,
    pub(super) kind: u8,
    pub(super) code: u8,
    /// Of the next link, where the packet was too long.
    pub(super) mtu: Option<u16>,
    pub(super) about: About,
}

impl IcmpError {
    pub(super) const fn words(&self) -> &'static str {
        match (self.kind, self.code) {
            (3, 0) => "network unreachable",
            (3, 1) => "host unreachable",
            (3, 2) => "protocol unreachable",
            (3, 3) => "port unreachable",
            (3, 4) => "fragmentation needed",
            (3, 9 | 10 | 13) => "administratively prohibited",
            (3, _) => "destination unreachable",
            (11, _) => "time to live exceeded",
            _ => "ICMP error",
        }
    }

    pub(super) const fn is_prohibition(&self) -> bool {
        matches!((self.kind, self.code), (3, 9 | 10 | 13))
    }

    pub(super) const fn is_too_long(&self) -> bool {
        matches!((self.kind, self.code), (3, 4))
    }
}

/// Whose packets are of interest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) local: Ipv4Addr,
    pub(super) server: Ipv4Addr,
    pub(super) port: u16,
    /// Ours, once a call is asked for.
    pub(super) call_id: Option<u16>,
}

/// Everything that was heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// GRE packets that left this host for the server.
    pub(super) gre_out: u64,
    /// GRE packets of our call that arrived at this host, whatever became of them.
    pub(super) gre_in: u64,
    /// The server has acknowledged a packet of ours (RFC 2637 4.1).
    pub(super) is_acknowledged: bool,
    /// Our call ID came from this address, which is not the server's.
    pub(super) stranger: Option<Ipv4Addr>,
    /// The server began LCP under this call ID, which is not ours.
    pub(super) other_call_id: Option<u16>,
    /// Identifier, and octets of the whole IP packet, of the last LCP Echo-Request that left.
    pub(super) echo_out: Option<(u8, usize)>,
    pub(super) errors: Vec<IcmpError>,
}

/// A packet socket, and what came of it.
#[derive(Debug)]
pub(super) struct Ear {
    socket: Socket,
    pub(super) target: Target,
    pub(super) heard: Heard,
}

impl Ear {
    pub(super) fn open(target: Target) -> std::io::Result<Self> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
        let socket = Socket::new(Domain::PACKET, kind, Some(protocol))?;
        socket.attach_filter(&filter())?;
        Ok(Self {
            socket,
            target,
            heard: Heard::default(),
        })
    }

    /// Takes what has come since the last time.
    pub(super) fn listen(&mut self) {
        let mut packet = [0; LOOK_BYTES];
        for _ in 0..PACKETS_MAX {
            let Ok(len) = (&self.socket).read(&mut packet) else {
                return;
            };
            self.heard.take(&self.target, &packet[..len]);
        }
    }
}

/// Passes what has the protocol number of GRE or ICMP where an IPv4 header has it.
fn filter() -> [SockFilter; 5] {
    const LOAD_OCTET: u16 = 0x30;
    const IS_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const PROTOCOL_OFFSET: u32 = 9;
    [
        SockFilter::new(LOAD_OCTET, 0, 0, PROTOCOL_OFFSET),
        SockFilter::new(IS_EQUAL, 1, 0, u32::from(PROTOCOL_GRE)),
        SockFilter::new(IS_EQUAL, 0, 1, u32::from(PROTOCOL_ICMP)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

impl Heard {
    fn take(&mut self, target: &Target, packet: &[u8]) {
        // A train of packets that is still together is longer than what is looked at.
        let Ok(ip) = Ipv4Repr::parse_header(packet, usize::from(u16::MAX)) else {
            return;
        };
        let Some(payload) = packet.get(ip.header_len..) else {
            return;
        };
        match ip.protocol {
            PROTOCOL_GRE => self.take_gre(target, &ip, payload),
            PROTOCOL_ICMP => self.take_icmp(target, &ip, payload),
            _ => {}
        }
    }

    fn take_gre(&mut self, target: &Target, ip: &Ipv4Repr, gre: &[u8]) {
        let Some((call_id, frame)) = look_into_gre(gre) else {
            return;
        };
        let second = gre.get(1).copied().unwrap_or(0);
        if ip.source == target.local && ip.destination == target.server {
            self.gre_out += 1;
            if let Some([ECHO_REQUEST, id, ..]) = frame.strip_prefix(&LCP_FRAME) {
                self.echo_out = Some((*id, ip.total_len));
            }
            return;
        }
        let Some(ours) = target.call_id else {
            return;
        };
        let begins_lcp = matches!(
            frame.strip_prefix(&LCP_FRAME),
            Some([CONFIGURE_REQUEST, ..])
        );
        if ip.source == target.server && call_id == ours {
            self.gre_in += 1;
            self.is_acknowledged |= second & ACKNOWLEDGMENT != 0;
        } else if ip.source == target.server && begins_lcp {
            self.other_call_id = Some(call_id);
        } else if call_id == ours && begins_lcp && ip.source != target.local {
            self.stranger = Some(ip.source);
        }
    }

    fn take_icmp(&mut self, target: &Target, ip: &Ipv4Repr, icmp: &[u8]) {
        let [
            kind @ (3 | 11),
            code,
            _,
            _,
            _,
            _,
            mtu_high,
            mtu_low,
            quoted @ ..,
        ] = icmp
        else {
            return;
        };
        let Ok(ours) = Ipv4Repr::parse_header(quoted, usize::from(u16::MAX)) else {
            return;
        };
        let transport = quoted.get(ours.header_len..).unwrap_or(&[]);
        let port = target.port.to_be_bytes();
        let about = match (ours.protocol, transport) {
            (PROTOCOL_GRE, _) => About::Gre,
            (PROTOCOL_TCP, [_, _, high, low, ..]) if [*high, *low] == port => About::Tcp,
            _ => return,
        };
        let mtu = u16::from_be_bytes([*mtu_high, *mtu_low]);
        let error = IcmpError {
            from: ip.source,
            kind: *kind,
            code: *code,
            mtu: (mtu > 0 && (*kind, *code) == (3, 4)).then_some(mtu),
            about,
        };
        let is_ours = ours.source == target.local && ours.destination == target.server;
        if is_ours && self.errors.len() < ERRORS_MAX && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// The first error about such packets, other than that they are too long.
    pub(super) fn refusal(&self, about: About) -> Option<&IcmpError> {
        let mut errors = self.errors.iter();
        errors.find(|error| error.about == about && !error.is_too_long())
    }
}

/// Call ID and payload of a PPTP packet, which may be the first of several fragments.
fn look_into_gre(gre: &[u8]) -> Option<(u16, &[u8])> {
    const SEQUENCE: u8 = 0x10;
    let [first, second, 0x88, 0x0B, _, _, high, low, ..] = gre else {
        return None;
    };
    let words = usize::from(first & SEQUENCE != 0) + usize::from(second & ACKNOWLEDGMENT != 0);
    let payload = gre.get(8 + 4 * words..).unwrap_or(&[]);
    Some((u16::from_be_bytes([*high, *low]), payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::wire::gre::GreRepr;
    use dataplane::wire::ipv4::header;

    const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
    const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const TARGET: Target = Target {
        local: LOCAL,
        server: SERVER,
        port: 1723,
        call_id: Some(7),
    };

    fn ip(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let len = (20 + payload.len()) as u16;
        [&header(len, 1, protocol, source, destination)[..], payload].concat()
    }

    fn gre(source: Ipv4Addr, destination: Ipv4Addr, call_id: u16, frame: &[u8]) -> Vec<u8> {
        let repr = GreRepr {
            call_id,
            payload_len: frame.len() as u16,
            sequence: Some(0),
            acknowledgment: None,
        };
        let mut packet = vec![0; repr.header_len()];
        repr.emit(&mut packet);
        packet.extend_from_slice(frame);
        ip(PROTOCOL_GRE, source, destination, &packet)
    }

    fn hear(packets: &[Vec<u8>]) -> Heard {
        let mut heard = Heard::default();
        for packet in packets {
            heard.take(&TARGET, packet);
        }
        heard
    }

    const LCP_REQUEST: [u8; 8] = [0xFF, 0x03, 0xC0, 0x21, 1, 1, 0, 4];

    #[test]
    fn gre_is_counted_by_direction_and_what_is_wrong_with_it_is_kept() {
        let heard = hear(&[
            gre(LOCAL, SERVER, 99, &LCP_REQUEST),
            gre(SERVER, LOCAL, 7, &LCP_REQUEST),
        ]);
        assert_eq!((heard.gre_out, heard.gre_in), (1, 1));
        assert_eq!((heard.stranger, heard.other_call_id), (None, None));
        assert!(!heard.is_acknowledged);
        let mut acknowledging = gre(SERVER, LOCAL, 7, &[]);
        acknowledging[20 + 1] |= ACKNOWLEDGMENT;
        assert!(hear(&[acknowledging]).is_acknowledged);
        let rewritten = hear(&[gre(SERVER, LOCAL, 8, &LCP_REQUEST)]);
        assert_eq!((rewritten.gre_in, rewritten.other_call_id), (0, Some(8)));
        let other = Ipv4Addr::new(203, 0, 113, 6);
        let elsewhere = hear(&[gre(other, LOCAL, 7, &LCP_REQUEST)]);
        assert_eq!(elsewhere.stranger, Some(other));
        // A tunnel that runs beside has another call ID, and no LCP to begin.
        let beside = hear(&[gre(SERVER, LOCAL, 8, &[0xFD, 0x90, 0, 1])]);
        assert_eq!(beside.other_call_id, None);
    }

    #[test]
    fn an_echo_request_that_leaves_tells_the_size_of_its_packet() {
        let mut frame = vec![0xFF, 0x03, 0xC0, 0x21, 9, 0x42, 0, 100];
        frame.resize(104, 0);
        let heard = hear(&[gre(LOCAL, SERVER, 99, &frame)]);
        assert_eq!(heard.echo_out, Some((0x42, 20 + 12 + 104)));
    }

    #[test]
    fn icmp_errors_about_our_packets_are_kept_and_others_are_not() {
        let router = Ipv4Addr::new(192, 0, 2, 1);
        let quoted = gre(LOCAL, SERVER, 99, &LCP_REQUEST);
        let icmp = |kind: u8, code: u8, mtu: u16, quoted: &[u8]| {
            let [high, low] = mtu.to_be_bytes();
            let message = [&[kind, code, 0, 0, 0, 0, high, low], &quoted[..28]].concat();
            ip(PROTOCOL_ICMP, router, LOCAL, &message)
        };
        let heard = hear(&[
            icmp(3, 13, 0, &quoted),
            icmp(3, 13, 0, &quoted),
            icmp(3, 4, 1400, &quoted),
            icmp(3, 2, 0, &gre(LOCAL, router, 99, &LCP_REQUEST)),
        ]);
        assert_eq!(heard.errors.len(), 2);
        assert!(heard.refusal(About::Gre).unwrap().is_prohibition());
        assert_eq!(heard.refusal(About::Tcp), None);
        assert_eq!(heard.errors[1].mtu, Some(1400));
        let syn = [0, 80, 0x06, 0xBB, 0, 0, 0, 1];
        let tcp = ip(PROTOCOL_TCP, LOCAL, SERVER, &syn);
        let heard = hear(&[icmp(3, 1, 0, &tcp)]);
        assert_eq!(
            heard.refusal(About::Tcp).unwrap().words(),
            "host unreachable"
        );
    }
}
