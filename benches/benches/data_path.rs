//! Batches of packets through encap and decap, against the plain baseline, which does no more than
//! the cryptography. `cargo bench -p pptp-fast-benches --bench data_path`

use std::net::Ipv4Addr;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::decap::{Batch, Verdict, decap};
use dataplane::encap::{Outgoing, encap};
use dataplane::frame::{Frame, Slot, VecArena};
use dataplane::limits::{HEADROOM_BYTES, SLOT_BYTES};
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::program::{CallId, MppeSpec, NetworkSpec, SessionSpec, TunId};
use dataplane::session::SessionTable;
use pptp_fast_benches::PlainMppe;

const PACKETS: u16 = 32;
const PACKET_LEN: usize = 1400;
const CALL: CallId = CallId(1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const KEY: [u8; 16] = *b"0123456789abcdef";

fn table() -> SessionTable {
    let mut table = SessionTable::new(0, 1, Arc::default());
    let spec = SessionSpec {
        call_id: CALL,
        peer: PEER,
        local: None,
        peer_call_id: Some(CALL.0),
        counters: Arc::default(),
    };
    let network = NetworkSpec {
        tun: TunId(0),
        local: Ipv4Addr::UNSPECIFIED,
        peer: Ipv4Addr::UNSPECIFIED,
        compress_protocol: false,
        compress_address_control: false,
        require_encryption: true,
        check_source: false,
    };
    let mppe = MppeSpec {
        start_key: StartKey::new(KeyStrength::Bits128, &KEY),
        mode: KeyMode::Stateless,
    };
    table.install(&spec).expect("an empty table");
    assert!(table.open_network(CALL, network, false));
    let session = table.get_mut(CALL).expect("installed");
    session.set_receive_key(Some(&mppe));
    session.set_send_key(Some(&mppe));
    table
}

/// An IPv4 packet with a true header checksum.
fn inner() -> Vec<u8> {
    let mut packet = vec![0; PACKET_LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET_LEN as u16).to_be_bytes());
    let checksum = !(0x4500 + PACKET_LEN as u16);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn outgoing() -> Vec<Outgoing> {
    (0..PACKETS)
        .map(|slot| {
            let frame = Frame::new(Slot(slot), HEADROOM_BYTES as u16, PACKET_LEN as u16);
            Outgoing::new(CALL, frame)
        })
        .collect()
}

fn bench_encap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encap");
    group.throughput(Throughput::Elements(u64::from(PACKETS)));
    group.bench_function("plain", |bencher| {
        let mut chain = PlainMppe::new(KEY);
        let mut text = inner();
        bencher.iter(|| (0..PACKETS).for_each(|_| chain.encrypt(&mut text)));
    });
    group.bench_function("batch", |bencher| {
        let mut table = table();
        let mut arena = VecArena::new(PACKETS, SLOT_BYTES as u16);
        bencher.iter_batched_ref(
            || {
                let batch = outgoing();
                for slot in 0..PACKETS {
                    arena.fill(Slot(slot), HEADROOM_BYTES as u16, &inner());
                }
                (batch, arena.clone())
            },
            |(batch, arena)| encap(&mut table, arena, batch, 0),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn bench_decap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decap");
    group.throughput(Throughput::Elements(u64::from(PACKETS)));
    group.bench_function("plain", |bencher| {
        let mut chain = PlainMppe::new(KEY);
        let mut text = inner();
        bencher.iter(|| (0..PACKETS).for_each(|_| chain.encrypt(&mut text)));
    });
    group.bench_function("batch", |bencher| {
        let (mut sender, mut receiver) = (table(), table());
        let mut out = Batch::new();
        bencher.iter_batched_ref(
            || received(&mut sender),
            |(frames, arena)| {
                out.clear();
                decap(&mut receiver, arena, frames, &mut out, 0);
                let first = out.as_slice().first().expect("verdicts");
                assert!(matches!(first.verdict, Verdict::Deliver { .. }));
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The next packets of `sender`, as the receiver's raw socket delivers them.
fn received(sender: &mut SessionTable) -> (Vec<Frame>, VecArena) {
    let mut arena = VecArena::new(PACKETS, SLOT_BYTES as u16);
    let mut batch = outgoing();
    for packet in &batch {
        arena.fill(packet.frame.slot, HEADROOM_BYTES as u16, &inner());
    }
    encap(sender, &mut arena, &mut batch, 0);
    let frames = batch
        .iter()
        .map(|packet| {
            let mut frame = packet.frame;
            assert!(packet.dropped.is_none() && frame.push_header(20));
            let len = frame.len() as u16;
            let header = &mut frame.bytes_mut(&mut arena)[..20];
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&len.to_be_bytes());
            header[9] = 47;
            header[12..16].copy_from_slice(&PEER.octets());
            frame
        })
        .collect();
    (frames, arena)
}

criterion_group!(benches, bench_encap, bench_decap);
criterion_main!(benches);
