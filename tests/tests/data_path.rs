//! Two data planes joined by a bad network: only true packets are delivered, in order, once.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::counters::SessionCounters;
use dataplane::decap::{Batch, Verdict, decap, release_expired};
use dataplane::encap::{Outgoing, acknowledge, encap};
use dataplane::frame::{Frame, Slot, Slots, VecArena};
use dataplane::limits::{
    BATCH_PACKETS, HEADROOM_BYTES, KEYS_SKIPPED_MAX, MPPE_LOST_MS, REORDER_TIMEOUT_MS,
    RESET_REQUEST_INTERVAL_MS, SLOT_BYTES,
};
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::program::{CallId, Ipv6Spec, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::session::{SessionNotice, SessionTable};
use proptest::prelude::*;

const CALL: CallId = CallId(7);
const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SLOTS: u16 = 512;

/// One end: a session, an arena and the slots that are free.
struct End {
    table: SessionTable,
    arena: VecArena,
    free: Vec<Slot>,
    counters: Arc<SessionCounters>,
    out: Batch,
}

impl End {
    fn new(peer: Ipv4Addr, mppe: Option<&MppeSpec>) -> Self {
        let counters = Arc::<SessionCounters>::default();
        let mut table = SessionTable::new(0, 1, Arc::default());
        let spec = SessionSpec {
            call_id: CALL,
            peer,
            local: None,
            peer_call_id: Some(CALL.0),
            role: Role::Both,
            counters: Arc::clone(&counters),
        };
        table.install(&spec).expect("an empty table");
        let session = table.get_mut(CALL).expect("installed");
        session.set_receive_key(mppe);
        session.set_send_key(mppe);
        let network = NetworkSpec {
            tun: TunId(0),
            local: Ipv4Addr::UNSPECIFIED,
            peer: Ipv4Addr::UNSPECIFIED,
            compress_protocol: true,
            compress_address_control: false,
            require_encryption: mppe.is_some(),
            check_source: false,
        };
        assert!(table.open_network(CALL, network, false));
        Self {
            table,
            arena: VecArena::new(SLOTS, SLOT_BYTES as u16),
            free: (0..SLOTS).map(Slot).collect(),
            counters,
            out: Batch::new(),
        }
    }

    /// IP packets become what the raw socket of the other end delivers.
    fn send(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for group in packets.chunks(BATCH_PACKETS) {
            let mut batch: Vec<Outgoing> = group
                .iter()
                .zip(&self.free)
                .map(|(packet, slot)| {
                    let frame = self.arena.fill(*slot, HEADROOM_BYTES as u16, packet);
                    Outgoing::new(CALL, frame)
                })
                .collect();
            encap(&mut self.table, &mut self.arena, &mut batch, 0);
            for packet in batch {
                assert_eq!(packet.dropped, None);
                sent.push(outer(A, packet.frame.bytes(&self.arena)));
            }
        }
        sent
    }

    /// Packets from the network; what goes to TUN comes out.
    fn receive(&mut self, packets: &[Vec<u8>], now_ms: u64) -> Vec<Vec<u8>> {
        let frames: Vec<Frame> = packets
            .iter()
            .map(|packet| {
                let slot = self.free.pop().expect("slots come back");
                self.arena.fill(slot, 0, packet)
            })
            .collect();
        decap(
            &mut self.table,
            &mut self.arena,
            &frames,
            &mut self.out,
            now_ms,
        );
        self.take_delivered()
    }

    fn expire(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        release_expired(&mut self.table, &mut self.arena, &mut self.out, now_ms);
        self.take_delivered()
    }

    fn take_delivered(&mut self) -> Vec<Vec<u8>> {
        let mut delivered = Vec::new();
        for decided in self.out.as_slice() {
            assert!(!self.free.contains(&decided.frame.slot), "a slot twice");
            self.free.push(decided.frame.slot);
            if let Verdict::Deliver { .. } = decided.verdict {
                delivered.push(decided.frame.bytes(&self.arena).to_vec());
            }
        }
        self.out.clear();
        delivered
    }

    /// Removes the session; now every slot must be free again.
    fn finish(mut self) {
        assert!(self.table.remove(CALL, &mut self.out));
        self.take_delivered();
        assert_eq!(self.free.len(), usize::from(SLOTS), "a slot was lost");
    }
}

/// A GRE packet with its outer header, from `source`.
fn outer(source: Ipv4Addr, gre: &[u8]) -> Vec<u8> {
    ipv4(source, 47, gre)
}

fn ipv4(source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total_len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet.extend(source.octets());
    packet.extend(B.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !((folded & 0xFFFF) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An inner packet that nothing else looks like.
fn inner(number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(4 + number as usize * 37 % 300, number as u8);
    ipv4(A, 17, &payload)
}

fn number_of(packet: &[u8]) -> u32 {
    let octets = packet[20..24].try_into().expect("an inner packet");
    let number = u32::from_be_bytes(octets);
    assert_eq!(packet, inner(number), "octet for octet");
    number
}

/// IPv6 crosses, encrypted, once it is open at both ends; where sources are checked, from the
/// peer's link-local address alone.
#[test]
fn ipv6_crosses_where_both_ends_have_opened_it() {
    let mppe = mppe(KeyStrength::Bits128, KeyMode::Stateless);
    let (mut a, mut b) = (End::new(B, Some(&mppe)), End::new(A, Some(&mppe)));
    let link_local = |last| Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, last);
    let packet = |source| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 4, 59, 64];
        packet.extend(link_local(source).octets());
        packet.extend(link_local(2).octets());
        packet.extend([1, 2, 3, 4]);
        packet
    };
    let spec = |last| {
        Some(Ipv6Spec {
            peer: link_local(last),
        })
    };
    assert!(a.table.set_ipv6(CALL, spec(2), false));
    let sent = a.send(&[packet(1)]);
    assert!(b.receive(&sent, 0).is_empty(), "b has not opened it");
    let mut network = b.table.get(CALL).and_then(|it| it.network().cloned());
    if let Some(network) = &mut network {
        network.check_source = true;
    }
    assert!(b.table.open_network(CALL, network.expect("open"), false));
    assert!(b.table.set_ipv6(CALL, spec(1), false));
    let sent = a.send(&[packet(1), packet(3), packet(1)]);
    assert_eq!(b.receive(&sent, 0), [packet(1), packet(1)]);
    a.finish();
    b.finish();
}

fn mppe(strength: KeyStrength, mode: KeyMode) -> MppeSpec {
    MppeSpec {
        start_key: StartKey::new(strength, b"0123456789abcdef"),
        mode,
    }
}

fn any_mppe() -> impl Strategy<Value = Option<MppeSpec>> {
    let strengths = prop_oneof![
        Just(KeyStrength::Bits40),
        Just(KeyStrength::Bits56),
        Just(KeyStrength::Bits128),
    ];
    proptest::option::of(strengths.prop_map(|strength| mppe(strength, KeyMode::Stateless)))
}

/// What becomes of one packet on its way.
#[derive(Clone, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// This many packets overtake it.
    Overtaken(usize),
}

fn any_fate(reorder_max: usize) -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        2 => (1..=reorder_max).prop_map(Fate::Overtaken),
    ]
}

fn through_network(sent: Vec<Vec<u8>>, fates: &[Fate]) -> Vec<Vec<u8>> {
    let mut arrivals: Vec<(usize, Vec<u8>)> = Vec::new();
    for (index, (packet, fate)) in sent.into_iter().zip(fates).enumerate() {
        match fate {
            Fate::Arrives => arrivals.push((2 * index, packet)),
            Fate::Lost => {}
            Fate::Twice => {
                arrivals.push((2 * index, packet.clone()));
                arrivals.push((2 * index + 9, packet));
            }
            Fate::Overtaken(by) => arrivals.push((2 * (index + by) + 1, packet)),
        }
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals.into_iter().map(|(_, packet)| packet).collect()
}

fn receive_all(end: &mut End, arrivals: &[Vec<u8>], steps: &[usize], mut now_ms: u64) -> Vec<u32> {
    let mut delivered = Vec::new();
    let mut rest = arrivals;
    for step in steps.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (group, tail) = rest.split_at((*step).min(rest.len()));
        delivered.extend(end.receive(group, now_ms).iter().map(|p| number_of(p)));
        rest = tail;
        now_ms += 1;
    }
    for _ in 0..100 {
        now_ms += REORDER_TIMEOUT_MS;
        delivered.extend(end.expire(now_ms).iter().map(|p| number_of(p)));
    }
    delivered
}

fn is_ascending(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn loss_and_reordering_lose_only_what_was_lost(
        mppe in any_mppe(),
        fates in proptest::collection::vec(any_fate(6), 1..200),
        steps in proptest::collection::vec(1..=BATCH_PACKETS, 1..5),
    ) {
        let (mut a, mut b) = (End::new(B, mppe.as_ref()), End::new(A, mppe.as_ref()));
        let packets: Vec<_> = (0..fates.len() as u32).map(inner).collect();
        let arrivals = through_network(a.send(&packets), &fates);
        let delivered = receive_all(&mut b, &arrivals, &steps, 0);
        prop_assert!(is_ascending(&delivered));
        // Six positions of reordering fit the window, so what arrived is delivered.
        let expected: Vec<u32> = (0..fates.len() as u32)
            .filter(|number| !matches!(fates[*number as usize], Fate::Lost))
            .collect();
        // The first packets may be lost for good: where the peer starts is not known.
        let missing = expected.len() - delivered.len();
        let lost_at_start = fates.iter().take_while(|fate| !matches!(fate, Fate::Arrives)).count();
        prop_assert!(missing <= lost_at_start, "{expected:?} {delivered:?}");
        b.finish();
    }

    #[test]
    fn heavy_reordering_never_delivers_twice_or_out_of_order(
        mppe in any_mppe(),
        fates in proptest::collection::vec(any_fate(60), 1..200),
        steps in proptest::collection::vec(1..=BATCH_PACKETS, 1..5),
    ) {
        let (mut a, mut b) = (End::new(B, mppe.as_ref()), End::new(A, mppe.as_ref()));
        let packets: Vec<_> = (0..fates.len() as u32).map(inner).collect();
        let arrivals = through_network(a.send(&packets), &fates);
        let delivered = receive_all(&mut b, &arrivals, &steps, 0);
        prop_assert!(is_ascending(&delivered));
        b.finish();
    }

    #[test]
    fn forged_packets_cost_no_more_than_the_numbers_they_took(
        strength in prop_oneof![Just(KeyStrength::Bits40), Just(KeyStrength::Bits128)],
        forged in proptest::collection::vec(
            (0..120_usize, prop_oneof![
                4 => (0..24_u32).prop_map(Ok),
                1 => any::<u32>().prop_map(Err),
            ], any::<u16>(), 0..200_usize),
            0..30,
        ),
        steps in proptest::collection::vec(1..=BATCH_PACKETS, 1..5),
    ) {
        let mppe = mppe(strength, KeyMode::Stateless);
        let (mut a, mut b) = (End::new(B, Some(&mppe)), End::new(A, Some(&mppe)));
        let packets: Vec<_> = (0..150).map(inner).collect();
        let mut arrivals: Vec<(usize, Vec<u8>)> =
            a.send(&packets).into_iter().enumerate().collect();
        let mut taken = 0;
        for (at, number, count, len) in &forged {
            // Near the true number, where it takes one's place; or anywhere.
            let sequence = match number {
                Ok(ahead) => *at as u32 + ahead,
                Err(anywhere) => *anywhere,
            };
            taken += usize::from(sequence < 200);
            arrivals.push((*at, forge(sequence, *count, *len)));
        }
        arrivals.sort_by_key(|(at, _)| *at);
        let arrivals: Vec<_> = arrivals.into_iter().map(|(_, packet)| packet).collect();
        let delivered = receive_all(&mut b, &arrivals, &steps, 0);
        prop_assert!(is_ascending(&delivered));
        prop_assert!(delivered.len() + taken >= 150, "{} and {taken}", delivered.len());
        prop_assert_eq!(delivered.last(), Some(&149), "the tunnel lives");
        b.finish();
    }

    #[test]
    fn arbitrary_bytes_are_dropped_and_their_slots_come_back(
        mppe in any_mppe(),
        junk in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..120)), 0..BATCH_PACKETS,
        ),
    ) {
        let mut b = End::new(A, mppe.as_ref());
        let packets: Vec<_> = junk
            .into_iter()
            .map(|(wrap, bytes)| if wrap { outer(A, &bytes) } else { bytes })
            .collect();
        b.receive(&packets, 0);
        b.finish();
    }

    #[test]
    fn a_stateful_session_recovers_from_loss_by_reset_requests(
        fates in proptest::collection::vec(any_fate(6), 1..600),
    ) {
        let mppe = mppe(KeyStrength::Bits128, KeyMode::Stateful);
        let (mut a, mut b) = (End::new(B, Some(&mppe)), End::new(A, Some(&mppe)));
        let mut delivered = Vec::new();
        let mut now_ms = 0;
        let faultless = std::iter::repeat_n(Fate::Arrives, 2 * BATCH_PACKETS);
        let fates: Vec<Fate> = fates.into_iter().chain(faultless).collect();
        for (group, fates) in fates.chunks(16).enumerate() {
            let first = group as u32 * 16;
            let packets: Vec<_> = (first..first + fates.len() as u32).map(inner).collect();
            let arrivals = through_network(a.send(&packets), fates);
            delivered.extend(b.receive(&arrivals, now_ms).iter().map(|p| number_of(p)));
            now_ms += REORDER_TIMEOUT_MS + RESET_REQUEST_INTERVAL_MS;
            delivered.extend(b.expire(now_ms).iter().map(|p| number_of(p)));
            while let Some(notice) = b.table.next_notice() {
                prop_assert_eq!(notice, SessionNotice::ResetNeeded(CALL));
                a.table.get_mut(CALL).expect("installed").reset_send_key();
            }
        }
        prop_assert!(is_ascending(&delivered));
        prop_assert_eq!(delivered.last(), Some(&(fates.len() as u32 - 1)), "it recovered");
        b.finish();
    }
}

/// An encrypted packet of noise, from the right address and for the right call.
fn forge(sequence: u32, coherency_count: u16, len: usize) -> Vec<u8> {
    let mut payload = vec![0xFF, 0x03, 0x00, 0xFD];
    payload.extend((0x9000 | (coherency_count % 0x1000)).to_be_bytes());
    payload.extend((0..len).map(|i| ((i as u32).wrapping_mul(0x9E37_79B1) >> 13 ^ sequence) as u8));
    let mut gre = vec![0x30, 0x01, 0x88, 0x0B];
    gre.extend((payload.len() as u16).to_be_bytes());
    gre.extend(CALL.0.to_be_bytes());
    gre.extend(sequence.to_be_bytes());
    gre.extend(payload);
    outer(A, &gre)
}

#[test]
fn an_outage_of_more_than_a_round_of_counts_is_survived() {
    for lost in [10, 40, 3000, 4095, 4096, 5000, 8000] {
        let mppe = mppe(KeyStrength::Bits128, KeyMode::Stateless);
        let (mut a, mut b) = (End::new(B, Some(&mppe)), End::new(A, Some(&mppe)));
        let before: Vec<_> = (0..5).map(inner).collect();
        assert_eq!(b.receive(&a.send(&before), 0).len(), 5);
        let outage: Vec<_> = (5..5 + lost).map(inner).collect();
        a.send(&outage);
        let after: Vec<_> = (90_000..90_005).map(inner).collect();
        let mut delivered = b.receive(&a.send(&after), 1000);
        delivered.extend(b.expire(1000 + REORDER_TIMEOUT_MS));
        assert_eq!(delivered, after, "after {lost}");
        assert_eq!(b.counters.lost.get(), u64::from(lost));
    }
}

#[test]
fn an_outage_that_cannot_be_caught_up_with_is_called_lost() {
    let mppe = mppe(KeyStrength::Bits128, KeyMode::Stateless);
    let (mut a, mut b) = (End::new(B, Some(&mppe)), End::new(A, Some(&mppe)));
    assert_eq!(b.receive(&a.send(&[inner(0)]), 0).len(), 1);
    let lost = KEYS_SKIPPED_MAX + 1;
    let group: Vec<_> = (0..32).map(inner).collect();
    for _ in 0..=lost / 32 {
        a.send(&group);
    }
    for now_ms in (1000..=MPPE_LOST_MS).step_by(100) {
        assert_eq!(b.table.next_notice(), None, "before {now_ms} ms");
        assert_eq!(b.receive(&a.send(&[inner(1)]), now_ms).len(), 0);
    }
    assert_eq!(b.table.next_notice(), Some(SessionNotice::MppeLost(CALL)));
    b.finish();
}

#[test]
fn acknowledgments_go_with_packets_or_alone() {
    let (mut a, mut b) = (End::new(B, None), End::new(A, None));
    b.receive(&a.send(&[inner(1), inner(2)]), 0);
    let deadline_ms = b.table.next_deadline_ms().expect("owed");
    assert_eq!(b.table.next_owing(deadline_ms - 1), None);
    assert_eq!(b.table.next_owing(deadline_ms), Some(CALL));
    let mut frame = Frame::new(Slot(0), 0, 0);
    let session = b.table.get_mut(CALL).expect("installed");
    assert!(acknowledge(session, &mut b.arena, &mut frame));
    assert!(!acknowledge(session, &mut b.arena, &mut frame), "once");
    assert_eq!(b.table.next_deadline_ms(), None);

    let session = a.table.get(CALL).expect("installed");
    assert_eq!(session.unacknowledged(), 2);
    let packet = outer(B, frame.bytes(&b.arena));
    a.receive(&[packet], 0);
    let session = a.table.get(CALL).expect("installed");
    assert_eq!(session.unacknowledged(), 0);

    b.receive(&a.send(&[inner(3)]), 0);
    a.receive(&[outer(B, &b.send(&[inner(4)])[0][20..])], 0);
    let session = a.table.get(CALL).expect("installed");
    assert_eq!(session.unacknowledged(), 0, "told along with a packet");
    assert_eq!(b.table.next_owing(u64::MAX), None);
    assert_eq!(b.arena.slot(Slot(0)).len(), SLOT_BYTES);
}
