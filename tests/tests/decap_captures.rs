//! Real peers' GRE packets through our decap, and what they carried through our encap again.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use control::crypto::key_derivation::{KeyMaterial, StartKeys, start_keys};
use dataplane::counters::DropReason;
use dataplane::decap::{Batch, Verdict, decap};
use dataplane::encap::{Outgoing, encap};
use dataplane::frame::{Frame, Slot, VecArena};
use dataplane::limits::{BATCH_PACKETS, HEADROOM_BYTES, SLOT_BYTES};
use dataplane::mppe::keys::{KeyMode, KeyStrength};
use dataplane::program::{CallId, Ipv6Spec, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::session::SessionTable;
use dataplane::wire::gre::GreRepr;
use dataplane::wire::ipv4::{self, Ipv4Repr};
use dataplane::wire::ppp::{self, PppHeader};
use pcap_file::pcap::PcapReader;
use sim::capture::{ENCRYPTED_NAMES, NAMES};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PASSWORD: &[u8] = b"mia123";

/// The IPv4 packets of protocol 47 in a capture, as a raw socket delivers them.
fn gre_packets(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("captures/{name}.pcap"));
    let file = std::fs::File::open(path).expect("the capture is there");
    let mut reader = PcapReader::new(file).expect("a pcap file");
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let ethernet = packet.expect("a whole packet").data.into_owned();
        let is_gre = |ip: &Ipv4Repr| ip.protocol == ipv4::PROTOCOL_GRE;
        if ethernet[12..14] == [0x08, 0x00]
            && Ipv4Repr::parse(&ethernet[14..]).is_ok_and(|ip| is_gre(&ip))
        {
            packets.push(ethernet[14..].to_vec());
        }
    }
    packets
}

/// The part of a captured packet behind the GRE header, and what the headers say.
fn payload(packet: &[u8]) -> (Ipv4Repr, GreRepr, &[u8]) {
    let outer = Ipv4Repr::parse(packet).expect("an IPv4 packet");
    let gre_packet = &packet[outer.header_len..outer.total_len];
    let gre = GreRepr::parse(gre_packet).expect("a GRE packet");
    let payload = &gre_packet[gre.header_len()..];
    (outer, gre, &payload[..usize::from(gre.payload_len)])
}

/// The server's start keys, from the CHAP exchange in the capture (RFC 2433, 2759).
fn server_keys(name: &str, packets: &[Vec<u8>]) -> StartKeys {
    let chap = |code: u8| {
        packets
            .iter()
            .filter_map(|packet| {
                let (_, _, frame) = payload(packet);
                let ppp = PppHeader::parse(frame)?;
                let message = &frame[ppp.len..];
                (ppp.protocol == 0xC223 && message[0] == code).then(|| message.to_vec())
            })
            .next()
            .expect("CHAP took place")
    };
    let material = if name.starts_with("mschapv1") {
        let challenge = chap(1)[5..13].try_into().expect("8 octets");
        KeyMaterial::from_mschap_v1(PASSWORD, &challenge)
    } else {
        let nt_response = chap(2)[5 + 24..5 + 48].try_into().expect("24 octets");
        KeyMaterial::from_mschap_v2(PASSWORD, &nt_response)
    };
    let strength = match name.contains("40") {
        true => KeyStrength::Bits40,
        false => KeyStrength::Bits128,
    };
    start_keys(&material, strength, true)
}

fn table(call_id: u16, peer: Ipv4Addr, compressed: bool, encrypted: bool) -> SessionTable {
    let mut table = SessionTable::new(0, 1, Arc::default());
    let spec = SessionSpec {
        call_id: CallId(call_id),
        peer,
        local: None,
        peer_call_id: Some(1),
        role: Role::Both,
        counters: Arc::default(),
    };
    let network = NetworkSpec {
        tun: TunId(3),
        local: Ipv4Addr::UNSPECIFIED,
        peer: Ipv4Addr::UNSPECIFIED,
        compress_protocol: compressed,
        compress_address_control: compressed,
        require_encryption: encrypted,
        check_source: false,
    };
    table.install(&spec).expect("an empty table");
    assert!(table.open_network(CallId(call_id), network, false));
    let peer = Ipv6Addr::UNSPECIFIED;
    assert!(table.set_ipv6(CallId(call_id), Some(Ipv6Spec { peer }), false));
    table
}

/// Every packet of one side through a fresh session, `step` at a time: the IP packets and the PPP
/// frames that came out, in order.
struct Received {
    delivered: Vec<Vec<u8>>,
    punted: Vec<Vec<u8>>,
    drops: Vec<DropReason>,
}

fn receive(packets: &[&Vec<u8>], table: &mut SessionTable, step: usize) -> Received {
    let mut arena = VecArena::new(BATCH_PACKETS as u16, SLOT_BYTES as u16);
    let mut received = Received {
        delivered: Vec::new(),
        punted: Vec::new(),
        drops: Vec::new(),
    };
    let mut out = Batch::new();
    for group in packets.chunks(step) {
        let frames: Vec<Frame> = group
            .iter()
            .enumerate()
            .map(|(slot, packet)| arena.fill(Slot(slot as u16), 0, packet))
            .collect();
        decap(table, &mut arena, &frames, &mut out, 0);
        let mut slots = HashSet::new();
        for decided in out.as_slice() {
            assert!(slots.insert(decided.frame.slot), "each slot once");
            let bytes = decided.frame.bytes(&arena).to_vec();
            match decided.verdict {
                Verdict::Deliver { .. } => received.delivered.push(bytes),
                Verdict::Punt { .. } => received.punted.push(bytes),
                Verdict::Drop(reason) => received.drops.push(reason),
                Verdict::Consumed => {}
            }
        }
        assert_eq!(slots.len(), group.len(), "every slot comes out");
        out.clear();
    }
    received
}

fn from_side(packets: &[Vec<u8>], source: Ipv4Addr) -> Vec<&Vec<u8>> {
    packets
        .iter()
        .filter(|packet| payload(packet).0.source == source)
        .collect()
}

fn is_ping(packet: &[u8]) -> bool {
    packet[9] == 1 && packet.len() == 228 && packet[28 + 16..].iter().all(|octet| *octet == 0x5A)
}

#[test]
fn every_encrypted_packet_of_real_peers_is_read_in_batches_of_any_size() {
    for name in ENCRYPTED_NAMES {
        let packets = gre_packets(name);
        let keys = server_keys(name, &packets);
        for (source, key) in [(CLIENT, &keys.receive), (SERVER, &keys.send)] {
            for step in [1, 3, BATCH_PACKETS] {
                let side = from_side(&packets, source);
                let call_id = payload(side[0]).1.call_id;
                let mut table = table(call_id, source, false, true);
                let session = table.get_mut(CallId(call_id)).expect("installed");
                session.set_receive_key(Some(&MppeSpec {
                    start_key: key.clone(),
                    mode: KeyMode::Stateless,
                }));
                let received = receive(&side, &mut table, step);
                assert_eq!(received.drops, [], "{name} from {source}");
                let pings = received.delivered.iter().filter(|packet| is_ping(packet));
                assert_eq!(pings.count(), 3, "{name} from {source}");
            }
        }
    }
}

#[test]
fn clear_frames_of_every_capture_reach_control_unchanged() {
    for name in NAMES {
        let packets = gre_packets(name);
        for source in [CLIENT, SERVER] {
            let side = from_side(&packets, source);
            let call_id = payload(side[0]).1.call_id;
            let mut table = table(call_id, source, false, true);
            let received = receive(&side, &mut table, 5);
            let expected: Vec<&[u8]> = side
                .iter()
                .map(|packet| payload(packet).2)
                .filter(|frame| PppHeader::parse(frame).is_some_and(|ppp| ppp.protocol >= 0x4000))
                .collect();
            assert!(!expected.is_empty());
            assert_eq!(received.punted, expected, "{name} from {source}");
            assert_eq!(received.delivered.len(), 0, "nothing in the clear");
        }
    }
}

/// The MPPE packets of one side, from the coherency count on.
fn mppe_packets(side: &[&Vec<u8>]) -> Vec<Vec<u8>> {
    side.iter()
        .filter_map(|packet| {
            let frame = payload(packet).2;
            let ppp = PppHeader::parse(frame)?;
            (ppp.protocol == ppp::COMPRESSED).then(|| frame[ppp.len..].to_vec())
        })
        .collect()
}

#[test]
fn our_encap_writes_octet_for_octet_what_real_peers_wrote() {
    for name in ENCRYPTED_NAMES {
        let packets = gre_packets(name);
        let keys = server_keys(name, &packets);
        for (source, key) in [(CLIENT, &keys.receive), (SERVER, &keys.send)] {
            let side = from_side(&packets, source);
            let call_id = payload(side[0]).1.call_id;
            let spec = MppeSpec {
                start_key: key.clone(),
                mode: KeyMode::Stateless,
            };
            let mut table = table(call_id, source, name.ends_with("compressed-headers"), true);
            let session = table.get_mut(CallId(call_id)).expect("installed");
            session.set_receive_key(Some(&spec));
            session.set_send_key(Some(&spec));

            let plain = receive(&side, &mut table, 1).delivered;

            let mut arena = VecArena::new(BATCH_PACKETS as u16, SLOT_BYTES as u16);
            let mut batch: Vec<Outgoing> = plain
                .iter()
                .enumerate()
                .map(|(slot, packet)| {
                    let frame = arena.fill(Slot(slot as u16), HEADROOM_BYTES as u16, packet);
                    Outgoing::new(CallId(call_id), frame)
                })
                .collect();
            encap(&mut table, &mut arena, &mut batch, 0);
            let written: Vec<Vec<u8>> = batch
                .iter()
                .map(|packet| {
                    assert_eq!(packet.dropped, None);
                    let bytes = packet.frame.bytes(&arena);
                    let gre = GreRepr::parse(bytes).expect("a GRE packet");
                    let frame = &bytes[gre.header_len()..];
                    let ppp = PppHeader::parse(frame).expect("a PPP frame");
                    assert_eq!(ppp.protocol, ppp::COMPRESSED);
                    frame[ppp.len..].to_vec()
                })
                .collect();
            assert_eq!(written, mppe_packets(&side), "{name} from {source}");
        }
    }
}
