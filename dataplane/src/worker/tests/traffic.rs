//! Rates and quotas of sessions, as a worker keeps them.

use super::*;
use crate::rate_limit::{Quota, Rate, TrafficLimits};

const PACKET: usize = 1_000;

fn limit(bench: &Bench, limits: TrafficLimits) {
    let (call_id, limits) = (CallId(1), Box::new(limits));
    bench.post(Command::SetLimits { call_id, limits });
}

/// 1,000 octets in 8 ms, and ten times that at once.
const RATE: Rate = Rate {
    bps: 1_000_000,
    burst_bytes: 10 * PACKET as u64,
    peak_bps: None,
};

/// Has `a` read so many packets; how many of them `b` writes.
fn carried(a: &mut Bench, b: &mut Bench, count: usize, now_ms: u64) -> usize {
    for _ in 0..count {
        a.worker.io.tun_arrives(TUN, &inner(1, 2, PACKET));
    }
    a.turn_at(now_ms);
    a.send_to(b);
    b.turn_at(now_ms);
    b.worker.io.take_written().len()
}

/// Whether an Echo-Request of LCP reaches control at the other end.
fn echo_passes(a: &mut Bench, b: &mut Bench) -> bool {
    a.inject(1, ECHO);
    a.turn();
    a.send_to(b);
    b.turn();
    b.notices()
        .iter()
        .any(|notice| matches!(notice, Notice::Punt { .. }))
}

#[test]
fn what_is_over_the_rate_is_dropped_and_counted_at_the_end_that_limits() {
    let (mut a, mut b) = pair();
    let limits = TrafficLimits {
        send: Some(RATE),
        ..TrafficLimits::NONE
    };
    limit(&a, limits);
    assert_eq!(carried(&mut a, &mut b, 30, 0), 10);
    let dropped = a.worker.sessions.counters();
    assert_eq!(dropped.dropped(DropReason::RateLimited), 20);
    let session = a.worker.sessions.get(CallId(1)).unwrap();
    assert_eq!(session.counters().send_dropped.get(), 20);
    assert!(echo_passes(&mut a, &mut b), "control is never held back");
    // What is dropped uses up neither keys nor numbers: the rest decrypts.
    assert_eq!(carried(&mut a, &mut b, 30, 40), 5);
    let limits = TrafficLimits {
        receive: Some(RATE),
        ..TrafficLimits::NONE
    };
    limit(&a, TrafficLimits::NONE);
    limit(&b, limits);
    assert_eq!(carried(&mut a, &mut b, 30, 100), 10);
    assert_eq!(carried(&mut a, &mut b, 30, 140), 5);
    let session = b.worker.sessions.get(CallId(1)).unwrap();
    assert_eq!(session.counters().received_packets.get(), 30);
    assert_eq!(session.counters().dropped.get(), 45);
    assert!(echo_passes(&mut a, &mut b));
    limit(&b, TrafficLimits::NONE);
    b.turn();
    assert_eq!(carried(&mut a, &mut b, 30, 140), 30);
    a.assert_no_slot_is_missing();
    b.assert_no_slot_is_missing();
}

#[test]
fn a_train_is_charged_packet_by_packet() {
    let (mut a, mut b) = (Bench::new(1, 2), Bench::new(2, 1));
    let features = TunFeatures {
        vnet_header: true,
        tcp: true,
        udp: true,
    };
    a.worker.io.attach_sim_with(TUN, features);
    a.open(b"key from a to b.", b"key from b to a.");
    b.open(b"key from b to a.", b"key from a to b.");
    let limits = TrafficLimits {
        send: Some(Rate {
            burst_bytes: 10 * 1_340,
            ..RATE
        }),
        ..TrafficLimits::NONE
    };
    limit(&a, limits);
    a.worker.io.tun_arrives(TUN, &tcp_train(40, 1_300));
    a.turn();
    assert_eq!(a.send_to(&mut b), 10);
    a.assert_no_slot_is_missing();
}

#[test]
fn who_has_spent_a_quota_is_told_of_once_and_carries_nothing_more() {
    let (mut a, mut b) = pair();
    let limits = TrafficLimits {
        quota: Quota {
            total_bytes: Some(10 * PACKET as u64 + 500),
            ..Quota::default()
        },
        ..TrafficLimits::NONE
    };
    limit(&b, limits);
    assert_eq!(carried(&mut a, &mut b, 10, 0), 10);
    assert!(b.notices().is_empty());
    assert_eq!(carried(&mut a, &mut b, 3, 0), 0);
    let is_spent = |notice: &Notice| matches!(notice, Notice::QuotaSpent { call_id: CallId(1) });
    assert!(matches!(&b.notices()[..], [one] if is_spent(one)));
    // Both ways together: the other direction is over, too.
    b.worker.io.tun_arrives(TUN, &inner(2, 1, PACKET));
    b.turn();
    assert!(b.notices().is_empty());
    let dropped = b.worker.sessions.counters();
    assert_eq!(dropped.dropped(DropReason::QuotaSpent), 4);
    assert!(echo_passes(&mut a, &mut b), "the end can be told");
    b.assert_no_slot_is_missing();
}
