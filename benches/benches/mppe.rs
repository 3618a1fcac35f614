//! RC4 and key changes, against the plain baseline. `cargo bench -p pptp-fast-benches --bench mppe`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::mppe::keys::{KeyStrength, StartKey};
use dataplane::mppe::rc4::{Rc4, apply_lanes};
use dataplane::mppe::rekey::KeySchedule;
use pptp_fast_benches::{PlainMppe, rc4};

const PACKET_LEN: usize = 1400;
const KEY: [u8; 16] = *b"0123456789abcdef";

/// Key set-up and one packet; lanes count per packet.
fn bench_rc4(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rc4");
    group.throughput(Throughput::Bytes(PACKET_LEN as u64));
    group.bench_function("plain", |bencher| {
        let mut text = [0; PACKET_LEN];
        bencher.iter(|| rc4(black_box(&KEY), &mut text));
    });
    group.bench_function("one", |bencher| {
        let mut text = [0; PACKET_LEN];
        bencher.iter(|| Rc4::new(black_box(&KEY)).apply(&mut text));
    });
    group.throughput(Throughput::Bytes(2 * PACKET_LEN as u64));
    group.bench_function("two abreast", lanes::<2>);
    group.throughput(Throughput::Bytes(3 * PACKET_LEN as u64));
    group.bench_function("three abreast", lanes::<3>);
    group.throughput(Throughput::Bytes(4 * PACKET_LEN as u64));
    group.bench_function("four abreast", lanes::<4>);
    group.finish();
}

fn lanes<const N: usize>(bencher: &mut criterion::Bencher<'_>) {
    let mut texts = [[0; PACKET_LEN]; N];
    bencher.iter(|| {
        let texts = texts.each_mut().map(|text| &mut text[..]);
        apply_lanes([black_box(&KEY); N], texts);
    });
}

fn bench_rekey(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rekey");
    group.bench_function("plain", |bencher| {
        let mut chain = PlainMppe::new(KEY);
        bencher.iter(|| chain.rekey());
    });
    group.bench_function("schedule", |bencher| {
        let mut schedule = KeySchedule::new(&StartKey::new(KeyStrength::Bits128, &KEY));
        let mut key = schedule.initial();
        bencher.iter(|| {
            key = schedule.next(&key);
            key
        });
    });
    group.finish();
}

criterion_group!(benches, bench_rc4, bench_rekey);
criterion_main!(benches);
