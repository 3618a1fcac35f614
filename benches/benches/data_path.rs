//! Batches of packets through encap and decap, round-robin over 1, 100 and 10,000 sessions,
//! against the plain baseline, which does no more than the cryptography.
//! `cargo bench -p pptp-fast-benches --bench data_path`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::decap::{Batch, Verdict, decap};
use dataplane::encap::{Outgoing, encap};
use dataplane::frame::{Frame, Slot, VecArena};
use dataplane::limits::{BATCH_PACKETS, HEADROOM_BYTES, SLOT_BYTES};
use dataplane::mppe::baseline::PlainMppe;
use dataplane::mppe::look_ahead::{Pool, Progress, Workshop};
use dataplane::program::CallId;
use dataplane::session::SessionTable;
use pptp_fast_benches::{PACKET_LEN, PEER, START_KEY, inner_packet, sessions};

const PACKETS: u16 = BATCH_PACKETS as u16;
const SESSIONS: [u16; 3] = [1, 100, 10_000];

/// A sender, and the batch of packets that it is to send next.
struct Sender {
    table: SessionTable,
    arena: VecArena,
    batch: Vec<Outgoing>,
    sessions: u16,
    next: u16,
}

impl Sender {
    fn new(count: u16) -> Self {
        Self {
            table: sessions(count),
            arena: VecArena::new(PACKETS, SLOT_BYTES as u16),
            batch: Vec::new(),
            sessions: count,
            next: 0,
        }
    }

    /// Packets as they come from TUN, one of each session in turn.
    fn fill(&mut self) {
        self.batch.clear();
        let inner = inner_packet();
        for slot in (0..PACKETS).map(Slot) {
            let frame = self.arena.fill(slot, HEADROOM_BYTES as u16, &inner);
            self.batch.push(Outgoing::new(CallId(self.next), frame));
            self.next = (self.next + 1) % self.sessions;
        }
    }

    fn encap(&mut self) {
        encap(&mut self.table, &mut self.arena, &mut self.batch, 0);
    }

    /// The packets after `encap`, as the receiver's raw socket delivers them.
    fn received(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for packet in &self.batch {
            let mut frame = packet.frame;
            assert!(packet.dropped.is_none() && frame.push_header(20));
            let len = frame.len() as u16;
            let header = &mut frame.bytes_mut(&mut self.arena)[..20];
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&len.to_be_bytes());
            header[9] = 47;
            header[12..16].copy_from_slice(&PEER.octets());
            frames.push(frame);
        }
        frames
    }
}

fn plain(count: u16, iterations: u64) -> Duration {
    let mut chains = vec![PlainMppe::new(START_KEY); usize::from(count)];
    let mut texts = vec![[0; PACKET_LEN]; BATCH_PACKETS];
    let mut next = 0;
    let start = Instant::now();
    for _ in 0..iterations {
        for text in &mut texts {
            chains[next].encrypt(black_box(text));
            next = (next + 1) % chains.len();
        }
    }
    start.elapsed()
}

fn bench_encap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encap");
    group.throughput(Throughput::Elements(u64::from(PACKETS)));
    for count in SESSIONS {
        group.bench_function(BenchmarkId::new("plain", count), |bencher| {
            bencher.iter_custom(|iterations| plain(count, iterations));
        });
        group.bench_function(BenchmarkId::new("batch", count), |bencher| {
            let mut sender = Sender::new(count);
            bencher.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    sender.fill();
                    let start = Instant::now();
                    sender.encap();
                    elapsed += start.elapsed();
                }
                elapsed
            });
        });
    }
    group.finish();
}

/// What is left to do for a packet whose key stream has been prepared.
fn bench_prepared(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encap");
    group.throughput(Throughput::Elements(u64::from(PACKETS)));
    group.bench_function(BenchmarkId::new("prepared", 1), |bencher| {
        let mut sender = Sender::new(1);
        let workshop = Workshop::new();
        let mut pool = Pool::new(Arc::clone(&workshop));
        let session = sender.table.get_mut(CallId(0));
        assert!(session.is_some_and(|session| session.look_ahead(&workshop)));
        bencher.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                while pool.round(0) == Progress::Some {}
                sender.fill();
                let start = Instant::now();
                sender.encap();
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
    group.finish();
}

fn bench_decap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decap");
    group.throughput(Throughput::Elements(u64::from(PACKETS)));
    for count in SESSIONS {
        group.bench_function(BenchmarkId::new("plain", count), |bencher| {
            bencher.iter_custom(|iterations| plain(count, iterations));
        });
        group.bench_function(BenchmarkId::new("batch", count), |bencher| {
            let mut sender = Sender::new(count);
            let mut receiver = sessions(count);
            let mut out = Batch::new();
            bencher.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    sender.fill();
                    sender.encap();
                    let frames = sender.received();
                    out.clear();
                    let start = Instant::now();
                    decap(&mut receiver, &mut sender.arena, &frames, &mut out, 0);
                    elapsed += start.elapsed();
                    let delivered = |verdict| matches!(verdict, Verdict::Deliver { .. });
                    assert!(
                        out.as_slice()
                            .iter()
                            .all(|decided| delivered(decided.verdict))
                    );
                    assert_eq!(out.as_slice().len(), BATCH_PACKETS);
                }
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_encap, bench_prepared, bench_decap);
criterion_main!(benches);
