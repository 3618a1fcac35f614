//! The captures of real peers in `tests/captures`, taken apart: what went over the control
//! connection, and what over GRE, from either side.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use control::wire::chap::ChapPacket;
use control::wire::ppp::{Frame, Protocol};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;

/// Every capture, by the stem of its files.
pub const NAMES: [&str; 11] = [
    "chap-md5",
    "deflate-vj",
    "mppe-refused",
    "mppe128-stateful",
    "mppe128-stateless",
    "mppe128-stateless-compressed-headers",
    "mppe40-stateless",
    "mschapv1",
    "mschapv1-mppe128",
    "pap",
    "wrong-password",
];

/// Those in which IP went encrypted.
pub const ENCRYPTED_NAMES: [&str; 5] = [
    "mppe128-stateful",
    "mppe128-stateless",
    "mppe128-stateless-compressed-headers",
    "mppe40-stateless",
    "mschapv1-mppe128",
];

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// pptp-linux and pppd at 10.77.0.2.
    Client,
    /// pptpd and pppd at 10.77.0.1.
    Server,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The one at the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    const fn of(source: Ipv4Addr) -> Option<Self> {
        match source.octets() {
            [10, 77, 0, 1] => Some(Self::Server),
            [10, 77, 0, 2] => Some(Self::Client),
            _ => None,
        }
    }
}

/// One GRE packet that carried something.
#[derive(Clone, Debug)]
pub struct GrePacket {
    /// Who sent it.
    pub from: Side,
    /// The receiver's call ID.
    pub call_id: u16,
    /// Its number.
    pub sequence: u32,
    /// A PPP frame.
    pub frame: Vec<u8>,
}

/// One capture, in the order in which it was taken.
#[derive(Debug)]
pub struct Capture {
    /// Octets of the control connection that the client sent, and those that the server sent.
    streams: [Stream; 2],
    /// GRE packets with a payload, from both sides.
    pub gre: Vec<GrePacket>,
}

/// How the client proved itself, or tried to.
#[derive(Clone, Debug, Default)]
pub struct ChapExchange {
    /// Identifier of challenge and response.
    pub id: u8,
    /// Value of the server's challenge.
    pub challenge: Vec<u8>,
    /// Value of the client's response.
    pub response: Vec<u8>,
    /// Message of the server's Success; empty when there is none.
    pub success: Vec<u8>,
}

/// One direction of a TCP connection.
#[derive(Debug, Default)]
struct Stream {
    next_sequence: Option<u32>,
    octets: Vec<u8>,
}

impl Capture {
    /// Reads `tests/captures/NAME.pcap`.
    ///
    /// # Panics
    /// When it is not there, not Ethernet, or not whole.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let file = File::open(path(name, "pcap")).expect("tests/captures holds the capture");
        let mut reader = PcapReader::new(file).expect("a pcap file");
        assert_eq!(reader.header().datalink, DataLink::ETHERNET);

        let mut capture = Self {
            streams: Default::default(),
            gre: Vec::new(),
        };
        while let Some(packet) = reader.next_packet() {
            capture.take_ethernet(&packet.expect("a whole packet").data);
        }
        capture
    }

    /// Everything that one side sent over the control connection.
    #[must_use]
    pub fn control_stream(&self, from: Side) -> &[u8] {
        &self.streams[from as usize].octets
    }

    /// The PPP frames that one side sent, in the order in which they went out.
    pub fn frames(&self, from: Side) -> impl Iterator<Item = &[u8]> {
        let sent = self.gre.iter().filter(move |packet| packet.from == from);
        sent.map(|packet| &packet.frame[..])
    }

    /// The CHAP packets of a capture in which the client proves itself.
    ///
    /// # Panics
    /// When something there is not PPP or CHAP.
    #[must_use]
    pub fn chap_exchange(&self) -> ChapExchange {
        let mut exchange = ChapExchange::default();
        for packet in &self.gre {
            let frame = Frame::parse(&packet.frame).expect("peers speak PPP");
            if frame.protocol != Protocol::CHAP {
                continue;
            }
            match ChapPacket::parse(frame.payload).expect("peers speak CHAP") {
                ChapPacket::Challenge { id, value, .. } => {
                    exchange.id = id;
                    exchange.challenge = value.to_vec();
                }
                ChapPacket::Response { value, .. } => exchange.response = value.to_vec(),
                ChapPacket::Success { message, .. } => exchange.success = message.to_vec(),
                ChapPacket::Failure { .. } | ChapPacket::Other { .. } => {}
            }
        }
        exchange
    }

    fn take_ethernet(&mut self, frame: &[u8]) {
        const IPV4: [u8; 2] = [0x08, 0x00];
        if frame[12..14] != IPV4 {
            return;
        }
        let packet = &frame[14..];
        let header_len = usize::from(packet[0] & 0x0F) * 4;
        let total_len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
        let Some(from) = Side::of(source) else {
            return;
        };
        let payload = &packet[header_len..total_len];
        match packet[9] {
            6 => self.streams[from as usize].take_segment(payload),
            47 => self.gre.extend(parse_gre(from, payload)),
            _ => {}
        }
    }
}

impl Stream {
    /// Takes what is new in a segment. A veth pair loses and reorders nothing, so a segment that
    /// is not the next is one that was sent again.
    fn take_segment(&mut self, segment: &[u8]) {
        const SYN: u8 = 0x02;
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        if segment[13] & SYN != 0 {
            self.next_sequence = Some(sequence.wrapping_add(1));
            return;
        }
        let payload = &segment[usize::from(segment[12] >> 4) * 4..];
        if self.next_sequence == Some(sequence) {
            self.octets.extend_from_slice(payload);
            let len = u32::try_from(payload.len()).expect("a segment is short");
            self.next_sequence = Some(sequence.wrapping_add(len));
        }
    }
}

/// `None` for an acknowledgment without payload.
fn parse_gre(from: Side, packet: &[u8]) -> Option<GrePacket> {
    const SEQUENCE: u8 = 0x10;
    const ACKNOWLEDGMENT: u8 = 0x80;
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet[0] & SEQUENCE == 0 {
        return None;
    }
    let header_len = if packet[1] & ACKNOWLEDGMENT == 0 {
        12
    } else {
        16
    };
    let sequence = u32::from(word(8)) << 16 | u32::from(word(10));
    let payload_len = usize::from(word(4));
    Some(GrePacket {
        from,
        call_id: word(6),
        sequence,
        frame: packet[header_len..header_len + payload_len].to_vec(),
    })
}

/// The packets that pppd logged on one side, in order: what it sent (`sent [...]`), or what it
/// received (`rcvd [...]`), without that word.
///
/// # Panics
/// When the log is not there.
#[must_use]
pub fn logged(name: &str, by: Side, verb: &str) -> Vec<String> {
    let extension = match by {
        Side::Client => "client.log",
        Side::Server => "server.log",
    };
    let log = std::fs::read_to_string(path(name, extension)).expect("tests/captures holds the log");
    let packet_of = |line: &str| {
        let packet = line.strip_prefix(verb)?.strip_prefix(' ')?;
        packet.starts_with('[').then(|| packet.to_owned())
    };
    log.lines().filter_map(packet_of).collect()
}

fn path(name: &str, extension: &str) -> PathBuf {
    let file = format!("{name}.{extension}");
    [env!("CARGO_MANIFEST_DIR"), "captures", &file]
        .iter()
        .collect()
}
