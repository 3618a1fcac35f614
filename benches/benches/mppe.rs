//! RC4 and key changes, against the plain baseline, which takes one packet at a time.
//! `cargo bench -p pptp-fast-benches --bench mppe`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::limits::BATCH_PACKETS;
use dataplane::mppe::baseline::{PlainMppe, PlainRc4};
use dataplane::mppe::keys::{KeyStrength, SessionKey, StartKey};
use dataplane::mppe::rc4::{Kernel, LANES_MAX, Rc4, encipher_with};
use dataplane::mppe::rekey::{KeySchedule, StepsAbreast};
use pptp_fast_benches::{PACKET_LEN, START_KEY, Texts};

/// Batches of packets with keys of their own: all full, and every other one short.
fn bench_rc4(criterion: &mut Criterion) {
    let mixed = |n: usize| {
        if n.is_multiple_of(2) {
            PACKET_LEN
        } else {
            40 + n
        }
    };
    bench_batch(criterion, "rc4", Texts::new([PACKET_LEN; BATCH_PACKETS]));
    bench_batch(
        criterion,
        "rc4 mixed",
        Texts::new((0..BATCH_PACKETS).map(mixed)),
    );
}

fn bench_batch(criterion: &mut Criterion, name: &str, mut texts: Texts) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(texts.octets()));
    group.bench_function("plain", |bencher| {
        let mut rc4 = PlainRc4::new();
        bencher.iter(|| {
            for (key, text) in texts.iter_mut() {
                rc4.set_key(key);
                rc4.apply(text);
            }
        });
    });
    for kernel in kernels() {
        for lanes in 1..=LANES_MAX {
            let id = format!("{}, {lanes} abreast", kernel.name());
            group.bench_function(id, |bencher| {
                bencher.iter(|| encipher_with(kernel, lanes, &mut texts));
            });
        }
    }
    group.finish();
}

fn kernels() -> Vec<Kernel> {
    let mut kernels = vec![Kernel::Portable, Kernel::best()];
    kernels.dedup();
    kernels
}

/// A stream that runs on from packet to packet: stateful sessions.
fn bench_stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rc4 stateful");
    group.throughput(Throughput::Bytes(PACKET_LEN as u64));
    let mut text = [0; PACKET_LEN];
    group.bench_function("plain", |bencher| {
        let mut rc4 = PlainRc4::new();
        rc4.set_key(&START_KEY);
        bencher.iter(|| rc4.apply(black_box(&mut text)));
    });
    group.bench_function("ours", |bencher| {
        let mut rc4 = Rc4::new(&START_KEY);
        bencher.iter(|| rc4.apply(black_box(&mut text)));
    });
    group.finish();
}

/// One change of a session key.
fn bench_rekey(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rekey");
    group.throughput(Throughput::Elements(1));
    group.bench_function("plain", |bencher| {
        let mut chain = PlainMppe::new(START_KEY);
        bencher.iter(|| chain.rekey());
    });
    group.bench_function("one session", |bencher| {
        let mut schedule = KeySchedule::new(&StartKey::new(KeyStrength::Bits128, &START_KEY));
        let mut key = schedule.initial();
        bencher.iter(|| {
            key = schedule.next(&key);
            key
        });
    });
    group.throughput(Throughput::Elements(4));
    group.bench_function("four sessions abreast", |bencher| {
        let start_key = StartKey::new(KeyStrength::Bits128, &START_KEY);
        let mut schedules: [_; 4] = std::array::from_fn(|_| KeySchedule::new(&start_key));
        let mut keys: [SessionKey; 4] = schedules.each_mut().map(KeySchedule::initial);
        bencher.iter(|| {
            let mut steps = StepsAbreast::new();
            for (schedule, key) in schedules.iter_mut().zip(&keys) {
                steps.begin(schedule, key);
            }
            for (key, step) in keys.iter_mut().zip(steps.run()) {
                *key = step.to;
            }
            keys
        });
    });
    group.finish();
}

criterion_group!(benches, bench_rc4, bench_stream, bench_rekey);
criterion_main!(benches);
