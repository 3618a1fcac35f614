//! Segmentation offload against a plain implementation: packets here are built one by one, and
//! their checksums by a routine that shares nothing with the data plane's.

use dataplane::frame::{Frame, Slot, Slots, VecArena};
use dataplane::limits::{HEADROOM_BYTES, RUN_PACKETS_MAX, SLOT_BYTES};
use dataplane::offload::coalesce::Run;
use dataplane::offload::gather::{Gather, put_header};
use dataplane::offload::split::{Split, SplitError};
use dataplane::offload::{TunFeatures, VnetHeader};
use dataplane::program::TunId;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const TUN: TunId = TunId(1);
/// Of a device of today's Linux.
const ALL: TunFeatures = TunFeatures {
    vnet_header: true,
    tcp: true,
    udp: true,
};
const LEN_MAX: usize = SLOT_BYTES - HEADROOM_BYTES;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// Everything that a packet of a flow is made from.
#[derive(Clone, Debug)]
struct Packet {
    is_ipv6: bool,
    /// The transport is UDP, and what is said of TCP is ignored.
    is_udp: bool,
    tos: u8,
    ttl: u8,
    id: u16,
    /// Flags and fragment offset of IPv4.
    fragment: u16,
    ip_options: Vec<u8>,
    source_port: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Packet {
    /// A TCP segment with time stamps (RFC 7323 3.2), as Linux sends them.
    fn tcp(payload_len: usize) -> Self {
        Self {
            is_ipv6: false,
            is_udp: false,
            tos: 0,
            ttl: 64,
            id: 0x1234,
            fragment: 0x4000,
            ip_options: Vec::new(),
            source_port: 40000,
            sequence: 1_000_000,
            acknowledgment: 77,
            flags: ACK,
            window: 502,
            urgent: 0,
            options: vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4],
            payload: pattern(payload_len, 0),
        }
    }

    /// A datagram.
    fn udp(payload_len: usize) -> Self {
        Self {
            is_udp: true,
            ..Self::tcp(payload_len)
        }
    }

    /// The segment that follows, with as much payload.
    fn next(&self) -> Self {
        let len = self.payload.len();
        Self {
            id: self.id.wrapping_add(1),
            sequence: self.sequence.wrapping_add(len as u32),
            payload: pattern(len, self.sequence as usize),
            ..self.clone()
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend(self.source_port.to_be_bytes());
        octets.extend(5201u16.to_be_bytes());
        if self.is_udp {
            octets.extend((8 + self.payload.len() as u16).to_be_bytes());
            octets.extend([0; 2]);
        } else {
            octets.extend(self.sequence.to_be_bytes());
            octets.extend(self.acknowledgment.to_be_bytes());
            octets.push(((20 + self.options.len()) as u8 / 4) << 4);
            octets.push(self.flags);
            octets.extend(self.window.to_be_bytes());
            octets.extend([0; 2]);
            octets.extend(self.urgent.to_be_bytes());
            octets.extend(&self.options);
        }
        octets.extend(&self.payload);
        octets
    }

    fn addresses(&self) -> Vec<u8> {
        let [a, b]: [&[u8]; 2] = if self.is_ipv6 {
            [&[0xFD; 16], &[0xFE; 16]]
        } else {
            [&[10, 0, 0, 1], &[10, 0, 0, 2]]
        };
        [a, b].concat()
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let mut octets = self.addresses();
        octets.extend([0, self.protocol()]);
        octets.extend((len as u16).to_be_bytes());
        octets
    }

    fn protocol(&self) -> u8 {
        if self.is_udp { 17 } else { 6 }
    }

    fn ip_len(&self) -> usize {
        if self.is_ipv6 {
            40
        } else {
            20 + self.ip_options.len()
        }
    }

    fn headers_len(&self) -> usize {
        let transport = if self.is_udp {
            8
        } else {
            20 + self.options.len()
        };
        self.ip_len() + transport
    }

    fn checksum_at(&self) -> usize {
        if self.is_udp { 6 } else { 16 }
    }

    fn ip_header(&self, payload_len: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        if self.is_ipv6 {
            octets.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
            octets.extend((payload_len as u16).to_be_bytes());
            octets.extend([self.protocol(), self.ttl]);
        } else {
            octets.extend([0x40 | (self.ip_len() / 4) as u8, self.tos]);
            octets.extend(((self.ip_len() + payload_len) as u16).to_be_bytes());
            octets.extend(self.id.to_be_bytes());
            octets.extend(self.fragment.to_be_bytes());
            octets.extend([self.ttl, self.protocol(), 0, 0]);
        }
        octets.extend(self.addresses());
        if !self.is_ipv6 {
            octets.extend(&self.ip_options);
            let sum = internet_checksum(&octets);
            octets[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        octets
    }

    /// The packet as it goes on the wire.
    fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let pseudo_header = self.pseudo_header(transport.len());
        let mut sum = internet_checksum(&[&pseudo_header[..], &transport].concat());
        if self.is_udp && sum == 0 {
            sum = 0xFFFF;
        }
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut packet = self.ip_header(transport.len());
        packet.extend(transport);
        packet
    }

    /// The packet as a TUN device hands it over: a train of packets with `size` octets of payload
    /// each; `None`: one packet without its checksum.
    fn train(&self, size: Option<u16>) -> Vec<u8> {
        let mut transport = self.transport();
        let sum = !internet_checksum(&self.pseudo_header(transport.len()));
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let gso_type = match (size, self.is_udp, self.is_ipv6) {
            (None, ..) => VnetHeader::GSO_NONE,
            (_, true, _) => VnetHeader::GSO_UDP,
            (_, false, false) => VnetHeader::GSO_TCP_IPV4,
            (_, false, true) => VnetHeader::GSO_TCP_IPV6,
        };
        let has_cwr = size.is_some() && !self.is_udp && self.flags & CWR != 0;
        let header = VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            gso_type: gso_type | if has_cwr { VnetHeader::GSO_ECN } else { 0 },
            header_len: self.headers_len() as u16,
            gso_size: size.unwrap_or(0),
            checksum_start: self.ip_len() as u16,
            checksum_offset: at as u16,
        };
        let ip_header = self.ip_header(transport.len());
        [&header.to_bytes()[..], &ip_header, &transport].concat()
    }

    /// The packets that a train of this is to be cut into.
    fn pieces(&self, size: usize) -> Vec<Vec<u8>> {
        let payloads: Vec<&[u8]> = match self.payload.len() {
            0 => vec![&[]],
            _ => self.payload.chunks(size).collect(),
        };
        let last = payloads.len() - 1;
        let piece = |(index, payload): (usize, &&[u8])| {
            let mut flags = self.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if index < last {
                flags &= !(FIN | PSH);
            }
            let piece = Self {
                id: self.id.wrapping_add(index as u16),
                sequence: self.sequence.wrapping_add((index * size) as u32),
                flags,
                payload: payload.to_vec(),
                ..self.clone()
            };
            piece.bytes()
        };
        payloads.iter().enumerate().map(piece).collect()
    }
}

/// RFC 1071, word by word.
fn internet_checksum(octets: &[u8]) -> u16 {
    let mut sum = 0u16;
    for word in octets.chunks(2) {
        let word = u16::from(word[0]) << 8 | u16::from(*word.get(1).unwrap_or(&0));
        let (added, carried) = sum.overflowing_add(word);
        sum = added + u16::from(carried);
    }
    !sum
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 7 + seed) % 251) as u8).collect()
}

fn split(train: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    let split = Split::parse(train, LEN_MAX)?;
    let mut out = [0xEE; LEN_MAX];
    let pieces = (0..split.count()).map(|index| {
        let len = split.emit(index, &mut out);
        out[..len].to_vec()
    });
    Ok(pieces.collect())
}

/// What a TUN device would be written, for packets that come in one batch.
fn gather(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut arena = VecArena::new(packets.len() as u16, SLOT_BYTES as u16);
    let mut gather = Gather::new();
    let mut written = Vec::new();
    let mut take = |gather: &mut Gather, arena: &mut VecArena| {
        if let Some(gathered) = gather.take(arena) {
            assert_eq!(gathered.tun, TUN);
            let parts = gathered.frames().iter().map(|frame| frame.bytes(arena));
            written.push(parts.collect::<Vec<_>>().concat());
        }
        std::mem::take(&mut written)
    };
    let mut all = Vec::new();
    for (slot, packet) in packets.iter().enumerate() {
        let mut frame = arena.fill(Slot(slot as u16), HEADROOM_BYTES as u16, packet);
        if gather.join(&arena, TUN, frame) {
            continue;
        }
        all.extend(take(&mut gather, &mut arena));
        if !gather.begin(&arena, TUN, ALL, frame) {
            assert!(put_header(&mut arena, &mut frame, VnetHeader::default()));
            all.push(frame.bytes(&arena).to_vec());
        }
    }
    all.extend(take(&mut gather, &mut arena));
    all
}

/// How many packets each write has.
fn runs(packets: &[Vec<u8>]) -> Vec<usize> {
    let count = |written: &Vec<u8>| split(written).expect("our own").len();
    gather(packets).iter().map(count).collect()
}

/// Any packet of any flow.
fn any_packet(payload_len_max: usize) -> impl Strategy<Value = Packet> {
    let ip = (
        any::<bool>(),
        any::<u8>(),
        1u8..,
        any::<u16>(),
        any::<bool>(),
    );
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>());
    let options = select(vec![0usize, 4, 12, 40]);
    let rest = (any::<bool>(), options, 0..=payload_len_max, any::<usize>());
    (ip, tcp, rest).prop_map(|(ip, tcp, (is_udp, options_len, len, seed))| Packet {
        is_ipv6: ip.0,
        is_udp,
        tos: ip.1,
        ttl: ip.2,
        id: ip.3,
        fragment: if ip.4 { 0x4000 } else { 0 },
        sequence: tcp.0,
        acknowledgment: tcp.1,
        flags: tcp.2,
        window: tcp.3,
        options: vec![1; options_len],
        payload: pattern(len, seed % 251),
        ..Packet::tcp(0)
    })
}

/// What may happen between a segment and the next; most often nothing.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Short,
    Push,
    Lost,
    Twice,
    Window,
    Id,
    FixedId,
    Damage(usize),
    PureAck,
    Flags(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::Nothing),
        1 => Just(Event::Short),
        1 => Just(Event::Push),
        1 => Just(Event::Lost),
        1 => Just(Event::Twice),
        1 => Just(Event::Window),
        1 => Just(Event::Id),
        2 => Just(Event::FixedId),
        1 => any::<usize>().prop_map(Event::Damage),
        1 => Just(Event::PureAck),
        1 => any::<u8>().prop_map(Event::Flags),
    ]
}

/// A flow of segments in which these events happen.
fn flow(mut packet: Packet, events: &[Event]) -> Vec<Vec<u8>> {
    let len = packet.payload.len();
    let mut packets = Vec::new();
    for event in events {
        let mut this = packet.clone();
        let mut damage = None;
        let mut count = 1;
        match *event {
            Event::Nothing => {}
            Event::Short => this.payload.truncate(len / 2),
            Event::Push => this.flags |= PSH,
            Event::Lost => count = 0,
            Event::Twice => count = 2,
            Event::Window => packet.window += 1,
            Event::Id => this.id = this.id.wrapping_add(99),
            Event::FixedId => this.id = packet.id.wrapping_sub(1),
            Event::Damage(at) => damage = Some(at),
            Event::PureAck => this.payload.clear(),
            Event::Flags(flags) => this.flags = flags,
        }
        let mut bytes = this.bytes();
        if let Some(at) = damage {
            let at = 20 + at % (bytes.len() - 20);
            bytes[at] ^= 0x10;
        }
        packets.extend(vec![bytes; count]);
        packet = Packet {
            payload: pattern(len, packets.len()),
            window: packet.window,
            ..this.next()
        };
        packet.flags = ACK;
    }
    packets
}

/// Without the identification of packets where it means nothing (RFC 6864 4.1).
fn without_idle_ids(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #[test]
    fn a_train_is_cut_into_the_packets_that_it_stands_for(
        packet in any_packet(60_000),
        size in 100..1400u16,
    ) {
        let pieces = split(&packet.train(Some(size))).expect("a good one");
        prop_assert_eq!(pieces, packet.pieces(size.into()));
    }

    #[test]
    fn a_packet_without_checksum_gets_it(packet in any_packet(1400)) {
        let pieces = split(&packet.train(None)).expect("a good one");
        let expected = packet.bytes();
        prop_assert_eq!(pieces.len(), 1);
        // Zero is written as its other form, which says the same, for TCP too.
        let at = packet.ip_len() + packet.checksum_at();
        if expected[at..at + 2] == [0, 0] {
            prop_assert_eq!(&pieces[0][at..at + 2], &[0xFF, 0xFF]);
        } else {
            prop_assert_eq!(&pieces[0], &expected);
        }
    }

    #[test]
    fn what_is_joined_and_cut_again_is_what_came(
        is_ipv6 in any::<bool>(),
        is_udp in any::<bool>(),
        sequence in any::<u32>(),
        id in any::<u16>(),
        len in 2..1400usize,
        events in vec(event(), 1..120),
    ) {
        let first = Packet { is_ipv6, is_udp, sequence, id, ..Packet::tcp(len) };
        let packets = flow(first, &events);
        let written = gather(&packets);
        let mut again = Vec::new();
        for written in &written {
            prop_assert!(written.len() <= VnetHeader::LEN + 65535);
            again.extend(split(written).expect("our own"));
        }
        let came: Vec<_> = packets.into_iter().map(without_idle_ids).collect();
        let again: Vec<_> = again.into_iter().map(without_idle_ids).collect();
        prop_assert_eq!(again, came);
    }

    #[test]
    fn no_octets_make_it_panic(
        octets in vec(any::<u8>(), 0..200),
        gso_type in select(vec![0u8, 1, 3, 4, 5, 0x81, 0x84]),
        version in select(vec![0x45u8, 0x46, 0x4F, 0x60, 0x00]),
        protocol in select(vec![6u8, 17, 1]),
    ) {
        let mut octets = octets;
        let _ = split(&octets);
        let mut run = Run::begin(&Packet::tcp(50).bytes(), ALL).expect("a good one");
        let _ = (run.join(&octets), Run::begin(&octets, ALL));
        // Nearer to what is expected, so that more of it is read.
        if octets.len() > VnetHeader::LEN + 9 {
            octets[1] = gso_type;
            octets[VnetHeader::LEN] = version;
            octets[VnetHeader::LEN + if version == 0x60 { 6 } else { 9 }] = protocol;
        }
        let _ = split(&octets);
        let packet = octets.get(VnetHeader::LEN..).unwrap_or(&[]);
        let _ = (run.join(packet), Run::begin(packet, ALL));
    }

    #[test]
    fn no_damage_to_a_train_makes_it_panic(
        packet in any_packet(3000),
        size in 1..1500u16,
        damage in vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        let mut train = packet.train(Some(size));
        for (at, octet) in damage {
            let at = at % train.len().min(100);
            train[at] = octet;
        }
        train.truncate(cut % (train.len() + 1));
        let _ = split(&train);
    }
}

#[test]
fn what_cannot_be_cut_is_refused_with_the_reason() {
    let good = Packet::tcp(3000);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut train = good.train(Some(1000));
        change(&mut train);
        split(&train).expect_err("a bad one")
    };
    let ip = VnetHeader::LEN;
    let tcp = ip + 20;
    assert_eq!(refused(&|train| train.truncate(9)), SplitError::Truncated);
    assert_eq!(refused(&|train| train[1] = 3), SplitError::Type(3));
    let sizes =
        |size: u16| move |train: &mut Vec<u8>| train[4..6].copy_from_slice(&size.to_ne_bytes());
    assert_eq!(refused(&sizes(0)), SplitError::Size);
    assert_eq!(refused(&sizes(2900)), SplitError::TooLong(2952));
    assert_eq!(refused(&|train| train[1] = 5), SplitError::Headers);
    assert_eq!(refused(&|train| train[ip] = 0x44), SplitError::Headers);
    assert_eq!(refused(&|train| train[ip + 6] = 0x20), SplitError::Headers);
    assert_eq!(
        refused(&|train| train[tcp + 12] = 0x40),
        SplitError::Headers
    );
    assert_eq!(
        refused(&|train| train.truncate(tcp + 25)),
        SplitError::Headers
    );
    assert_eq!(refused(&|train| train.truncate(tcp)), SplitError::Headers);
    assert_eq!(refused(&|train| train.truncate(ip)), SplitError::Headers);
    let one = |len: usize, start: u16, offset: u16| {
        let header = VnetHeader {
            flags: VnetHeader::NEEDS_CHECKSUM,
            checksum_start: start,
            checksum_offset: offset,
            ..VnetHeader::default()
        };
        split(&[&header.to_bytes()[..], &vec![0; len]].concat()).err()
    };
    assert_eq!(one(0, 0, 0), Some(SplitError::Truncated));
    assert_eq!(one(100, 98, 0), None);
    assert_eq!(one(100, 98, 1), Some(SplitError::ChecksumPlace));
    assert_eq!(one(100, 65535, 65535), Some(SplitError::ChecksumPlace));
    assert_eq!(
        one(LEN_MAX + 1, 0, 0),
        Some(SplitError::TooLong(LEN_MAX + 1))
    );
    assert!(Split::plain(&[], LEN_MAX).is_err());
}

#[test]
fn segments_of_one_flow_in_order_are_one_write_without_a_copy() {
    for is_ipv6 in [false, true] {
        let first = Packet {
            is_ipv6,
            ..Packet::tcp(1000)
        };
        let flow: Vec<Packet> = std::iter::successors(Some(first.clone()), |p| Some(p.next()))
            .take(10)
            .collect();
        let packets: Vec<_> = flow.iter().map(Packet::bytes).collect();
        let written = gather(&packets);
        // It is what the kernel would have made of the same octets itself.
        let payload = flow.iter().flat_map(|p| p.payload.clone()).collect();
        let whole = Packet { payload, ..first };
        assert_eq!(written, [whole.train(Some(1000))]);
    }
}

#[test]
fn whatever_differs_from_its_neighbours_is_never_joined_to_them() {
    type Change = fn(&mut Packet);
    let changes: [(&str, Change); 22] = [
        ("port", |p| p.source_port += 1),
        ("gap", |p| p.sequence += 1000),
        ("twice", |p| p.sequence -= 1000),
        ("acknowledgment", |p| p.acknowledgment += 1),
        ("window", |p| p.window += 1),
        ("urgent pointer", |p| p.urgent = 1),
        ("time stamp", |p| p.options[7] += 1),
        ("no options", |p| p.options.clear()),
        ("longer", |p| p.payload.push(0)),
        ("nothing in it", |p| p.payload.clear()),
        ("FIN", |p| p.flags |= FIN),
        ("SYN", |p| p.flags |= SYN),
        ("RST", |p| p.flags |= RST),
        ("URG", |p| p.flags |= URG),
        ("ECE", |p| p.flags |= ECE),
        ("CWR", |p| p.flags |= CWR),
        ("no ACK", |p| p.flags = 0),
        ("congestion experienced", |p| p.tos = 3),
        ("TTL", |p| p.ttl -= 1),
        ("version", |p| p.is_ipv6 = true),
        ("protocol", |p| p.is_udp = true),
        ("identification", |p| p.id += 5),
    ];
    let first = Packet::tcp(1000);
    let second = first.next();
    let bytes = |packets: &[&Packet]| packets.iter().map(|p| p.bytes()).collect::<Vec<_>>();
    assert_eq!(runs(&bytes(&[&first, &second])), [2]);
    for (what, change) in changes {
        let mut other = second.clone();
        change(&mut other);
        assert_eq!(runs(&bytes(&[&first, &other])), [1, 1], "{what}");
        assert_eq!(runs(&bytes(&[&other, &first])), [1, 1], "{what}, before");
    }
    for (what, fragment) in [("more fragments", 0x2000), ("offset", 1), ("may be cut", 0)] {
        let mut other = second.clone();
        other.fragment = fragment;
        assert_eq!(runs(&bytes(&[&first, &other])), [1, 1], "{what}");
    }
    let mut options = first;
    options.ip_options = vec![1; 4];
    let mut after = options.next();
    after.ip_options = vec![1; 4];
    assert_eq!(runs(&bytes(&[&options, &after])), [1, 1], "IP options");
}

#[test]
fn datagrams_of_one_flow_are_one_write_where_the_device_takes_it() {
    for is_ipv6 in [false, true] {
        let first = Packet {
            is_ipv6,
            ..Packet::udp(1000)
        };
        let flow: Vec<Packet> = std::iter::successors(Some(first.clone()), |p| Some(p.next()))
            .take(10)
            .collect();
        let packets: Vec<_> = flow.iter().map(Packet::bytes).collect();
        let payload = flow.iter().flat_map(|p| p.payload.clone()).collect();
        let whole = Packet {
            payload,
            ..first.clone()
        };
        assert_eq!(gather(&packets), [whole.train(Some(1000))]);
        let before_6_2 = TunFeatures { udp: false, ..ALL };
        assert!(Run::begin(&first.bytes(), before_6_2).is_none());
    }
}

#[test]
fn datagrams_that_differ_are_never_joined() {
    type Change = fn(&mut Packet);
    let changes: [(&str, Change); 7] = [
        ("port", |p| p.source_port += 1),
        ("longer", |p| p.payload.push(0)),
        ("nothing in it", |p| p.payload.clear()),
        ("congestion experienced", |p| p.tos = 3),
        ("TTL", |p| p.ttl -= 1),
        ("version", |p| p.is_ipv6 = true),
        ("identification", |p| p.id += 5),
    ];
    let first = Packet::udp(1000);
    let second = first.next();
    for (what, change) in changes {
        let mut other = second.clone();
        change(&mut other);
        assert_eq!(runs(&[first.bytes(), other.bytes()]), [1, 1], "{what}");
    }
    // The last may be shorter, and then it is the last.
    let mut short = second.clone();
    short.payload.truncate(10);
    let after = short.next();
    assert_eq!(runs(&[first.bytes(), short.bytes(), after.bytes()]), [2, 1]);

    let mut without_checksum = second.bytes();
    without_checksum[26..28].fill(0);
    assert_eq!(runs(&[first.bytes(), without_checksum]), [1, 1]);
    let mut damaged = second.bytes();
    damaged[500] ^= 1;
    assert_eq!(runs(&[first.bytes(), damaged]), [1, 1]);
    let mut short_length = second.bytes();
    short_length[25] -= 1;
    assert_eq!(runs(&[first.bytes(), short_length]), [1, 1]);
}

#[test]
fn what_is_damaged_is_left_to_the_kernel_as_it_is() {
    let (first, second) = (Packet::tcp(1000), Packet::tcp(1000).next());
    let third = second.next();
    for at in [10, 36, 52, 1051] {
        let mut damaged = second.bytes();
        damaged[at] ^= 1;
        let written = gather(&[first.bytes(), damaged.clone(), third.bytes()]);
        assert_eq!(written.len(), 3, "octet {at}");
        assert_eq!(written[1][..VnetHeader::LEN], [0; VnetHeader::LEN]);
        assert_eq!(written[1][VnetHeader::LEN..], damaged);
    }
    let mut padded = second.bytes();
    padded.push(0);
    assert_eq!(runs(&[first.bytes(), padded]), [1, 1]);
}

#[test]
fn a_run_ends_with_a_push_with_a_short_segment_and_when_it_is_full() {
    let flow = |count: usize, len: usize| {
        let first = Packet::tcp(len);
        std::iter::successors(Some(first), |p| Some(p.next())).take(count)
    };
    let mut pushed: Vec<_> = flow(5, 1000).collect();
    pushed[2].flags |= PSH;
    let pushed: Vec<_> = pushed.iter().map(Packet::bytes).collect();
    let written = gather(&pushed);
    let flags_at = VnetHeader::LEN + 20 + 13;
    assert_eq!(runs(&pushed), [3, 2]);
    assert_eq!(
        (written[0][flags_at], written[1][flags_at]),
        (ACK | PSH, ACK)
    );

    let mut short: Vec<_> = flow(3, 1000).collect();
    short[1].payload.truncate(400);
    short[2] = Packet {
        payload: pattern(400, 1),
        ..short[1].next()
    };
    let short: Vec<_> = short.iter().map(Packet::bytes).collect();
    assert_eq!(runs(&short), [2, 1]);

    let many: Vec<_> = flow(100, 100).map(|p| p.bytes()).collect();
    let rest = 100 - 2 * RUN_PACKETS_MAX;
    assert_eq!(runs(&many), [RUN_PACKETS_MAX, RUN_PACKETS_MAX, rest]);
    // 34 packets of 1900 octets would have more than 65535.
    let long: Vec<_> = flow(40, 1900).map(|p| p.bytes()).collect();
    assert_eq!(runs(&long), [34, 6]);
}

#[test]
fn identifications_may_stand_still_only_where_they_mean_nothing() {
    let first = Packet::tcp(500);
    let second = Packet {
        id: first.id,
        ..first.next()
    };
    let third = Packet {
        id: first.id,
        ..second.next()
    };
    let rising = Packet {
        id: first.id.wrapping_add(2),
        ..second.next()
    };
    let bytes = |p: &[&Packet]| p.iter().map(|p| p.bytes()).collect::<Vec<_>>();
    assert_eq!(runs(&bytes(&[&first, &second, &third])), [3]);
    assert_eq!(runs(&bytes(&[&first, &second, &rising])), [2, 1]);
    let may_be_cut = |p: &Packet| Packet {
        fragment: 0,
        ..p.clone()
    };
    let (first, second) = (may_be_cut(&first), may_be_cut(&second));
    assert_eq!(runs(&bytes(&[&first, &second])), [1, 1]);
    assert_eq!(runs(&bytes(&[&first, &first.next()])), [2]);
}

#[test]
fn packets_without_headroom_are_not_joined_and_keep_their_octets() {
    let mut arena = VecArena::new(1, SLOT_BYTES as u16);
    let packet = Packet::tcp(100).bytes();
    let mut frame: Frame = arena.fill(Slot(0), VnetHeader::LEN as u16 - 1, &packet);
    assert!(!Gather::new().begin(&arena, TUN, ALL, frame));
    assert!(!put_header(&mut arena, &mut frame, VnetHeader::default()));
    assert_eq!(frame.bytes(&arena), packet);
    assert_eq!(arena.slot(Slot(0))[..9], [0; 9]);
}
