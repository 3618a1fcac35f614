//! A worker whose sessions went through a snapshot does from then on exactly what the worker does
//! that they came from.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What happens to one packet on its way to the worker that will be handed over.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    IsLost,
    /// Behind the next one.
    IsOvertaken,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Arrives),
        1 => Just(Fate::IsLost),
        2 => Just(Fate::IsOvertaken),
    ]
}

fn mode() -> impl Strategy<Value = KeyMode> {
    prop_oneof![Just(KeyMode::Stateless), Just(KeyMode::Stateful)]
}

fn strength() -> impl Strategy<Value = KeyStrength> {
    prop_oneof![
        Just(KeyStrength::Bits40),
        Just(KeyStrength::Bits56),
        Just(KeyStrength::Bits128),
    ]
}

impl Bench {
    fn open_with(&mut self, keys: [&[u8; 16]; 2], strength: KeyStrength, mode: KeyMode) {
        let call_id = CallId(1);
        self.open(keys[0], keys[1]);
        let [send, receive] = keys.map(|octets| {
            let start_key = StartKey::new(strength, octets);
            Some(MppeSpec { start_key, mode })
        });
        let mppe = send;
        self.post(Command::SetSendKey { call_id, mppe });
        let mppe = receive;
        self.post(Command::SetReceiveKey { call_id, mppe });
        self.turn();
    }

    fn exported(&mut self, is_last: bool) -> Vec<(CallId, SessionSnapshot)> {
        self.post(Command::Export { is_last });
        self.turn();
        let exported = self.notices().into_iter().find_map(|notice| match notice {
            Notice::Exported { sessions, .. } => Some(sessions),
            _ => None,
        });
        exported.expect("it tells")
    }

    /// A worker that stands still, with these sessions in place.
    fn successor(&self, sessions: &[(CallId, SessionSnapshot)], now_ms: u64) -> Self {
        let number = |address: Ipv4Addr| address.octets()[3];
        let mut successor = Self::new(number(self.local), number(self.peer));
        successor.worker.begin_held();
        successor.worker.io.set_now_ms(now_ms);
        // Keys of its own would be wrong.
        successor.open(b"another key.....", b"another key too.");
        for (call_id, snapshot) in sessions {
            let text = serde_json::to_string(snapshot).unwrap();
            let snapshot = serde_json::from_str(&text).unwrap();
            let call_id = *call_id;
            successor.post(Command::Import { call_id, snapshot });
        }
        successor.post(Command::Collect);
        successor.turn();
        let notices = successor.notices();
        assert!(matches!(notices[..], [Notice::Collecting]), "{notices:?}");
        assert_eq!(successor.counters.commands_refused.get(), 0);
        successor
    }

    fn resume(&mut self, lead: u32) {
        self.post(Command::Resume { lead });
        self.turn();
    }

    /// What the host sends goes out.
    fn sends(&mut self, lengths: &[usize]) -> Vec<Vec<u8>> {
        let (from, to) = (self.local.octets()[3], self.peer.octets()[3]);
        for len in lengths {
            self.worker.io.tun_arrives(TUN, &inner(from, to, *len));
        }
        self.turn();
        let sent = self.worker.io.take_sent();
        sent.into_iter().map(|sent| sent.packet).collect()
    }

    /// What comes from the peer is written to the device.
    fn receives(&mut self, packets: &[Vec<u8>], now_ms: u64) -> Vec<Vec<u8>> {
        for packet in packets {
            let packet = outer_ipv4(self.peer, self.local, packet);
            self.worker.io.gre_arrives(&packet);
        }
        self.turn_at(now_ms);
        let written = self.worker.io.take_written();
        written.into_iter().map(|(_, packet)| packet).collect()
    }
}

/// The packets as they arrive.
fn suffer(packets: Vec<Vec<u8>>, fates: &[Fate]) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    let mut late = None;
    for (packet, fate) in packets.into_iter().zip(fates) {
        match fate {
            Fate::Arrives => arrived.push(packet),
            Fate::IsLost => continue,
            Fate::IsOvertaken => {
                arrived.extend(late.replace(packet));
                continue;
            }
        }
        arrived.extend(late.take());
    }
    // One that would be last is on its way.
    arrived
}

/// Sequence number and payload of each GRE packet that has them (RFC 2637, section 4.1).
fn without_acknowledgments(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let data = packets.iter().filter(|packet| packet[0] & 0x10 != 0);
    data.map(|packet| {
        let ack_len = if packet[1] & 0x80 == 0 { 0 } else { 4 };
        [&packet[8..12], &packet[12 + ack_len..]].concat()
    })
    .collect()
}

const A: &[u8; 16] = b"key from a to b.";
const B: &[u8; 16] = b"key from b to a.";

fn pair_with(strength: KeyStrength, mode: KeyMode) -> (Bench, Bench) {
    let (mut a, mut b) = (Bench::new(1, 2), Bench::new(2, 1));
    a.open_with([A, B], strength, mode);
    b.open_with([B, A], strength, mode);
    (a, b)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_session_goes_on_as_if_it_had_never_moved(
        strength in strength(),
        mode in mode(),
        before in vec((21..1400_usize, fate()), 0..300),
        after in vec((21..1400_usize, fate()), 1..40),
        replies in vec(21..1400_usize, 0..300),
    ) {
        let (mut a, mut b) = pair_with(strength, mode);
        let (lengths, fates): (Vec<_>, Vec<_>) = before.into_iter().unzip();
        for (lengths, fates) in lengths.chunks(50).zip(fates.chunks(50)) {
            let packets = suffer(a.sends(lengths), fates);
            b.receives(&packets, 1);
        }
        for lengths in replies.chunks(50) {
            b.sends(lengths);
        }
        b.notices();

        let sessions = b.exported(true);
        let mut successor = b.successor(&sessions, 1);
        let (lengths, fates): (Vec<_>, Vec<_>) = after.into_iter().unzip();
        let packets = suffer(a.sends(&lengths), &fates);
        b.resume(0);
        successor.resume(0);
        // When what was owed long ago is acknowledged may differ.
        let (here, there) = (b.sends(&lengths), successor.sends(&lengths));
        prop_assert_eq!(without_acknowledgments(&here), without_acknowledgments(&there));
        let (here, there) = (b.receives(&packets, 2), successor.receives(&packets, 2));
        prop_assert_eq!(here, there);
        // What is held is given up at the same time, and what is owed is acknowledged.
        for round in 1..=limits::REORDER_PACKETS as u64 {
            let later = 2 + round * limits::ACK_DELAY_MS.max(limits::REORDER_TIMEOUT_MS);
            let (here, there) = (b.receives(&[], later), successor.receives(&[], later));
            prop_assert_eq!(here, there);
        }
        // Perhaps not at the same time, which hangs on what was owed long ago.
        let (here, there) = (b.worker.io.take_sent(), successor.worker.io.take_sent());
        prop_assert_eq!(here.last(), there.last());
        b.assert_no_slot_is_missing();
        successor.assert_no_slot_is_missing();
    }

    /// The old worker went on after it had told, and then was no more.
    #[test]
    fn a_lead_keeps_numbers_and_keys_from_being_used_twice(
        mode in mode(),
        before in vec(21..1400_usize, 1..100),
        unknown in vec(21..1400_usize, 0..200),
        after in vec(21..1400_usize, 30..60),
    ) {
        const LEAD: u32 = 2048;
        let (mut a, mut b) = pair_with(KeyStrength::Bits128, mode);
        let packets = a.sends(&before);
        b.receives(&packets, 1);
        let sessions = a.exported(false);
        let packets = a.sends(&unknown);
        b.receives(&packets, 1);

        let mut successor = a.successor(&sessions, 1);
        successor.resume(LEAD);
        // A jump that keys do not prove is believed when nothing else has come for a while, and a
        // stateful cipher that is behind asks to start afresh.
        let mut now_ms = 2 + limits::RESYNC_QUIET_MS;
        let mut arrived = Vec::new();
        for lengths in after.chunks(10) {
            now_ms += 1;
            let packets = successor.sends(lengths);
            prop_assert_eq!(packets.len(), lengths.len());
            arrived = b.receives(&packets, now_ms);
            let needs_reset = |it: &Notice| matches!(it, Notice::ResetNeeded { .. });
            if b.notices().iter().any(needs_reset) {
                let call_id = CallId(1);
                successor.post(Command::ResetSendKey { call_id });
            }
        }
        let last: Vec<usize> = arrived.iter().map(Vec::len).collect();
        prop_assert_eq!(last, after.chunks(10).last().unwrap_or_default());
    }
}

#[test]
fn a_worker_that_stands_still_takes_nothing_in() {
    let (mut a, mut b) = pair_with(KeyStrength::Bits128, KeyMode::Stateless);
    let packets = a.sends(&[100, 200]);
    b.exported(true);
    assert!(b.receives(&packets, 5).is_empty());
    assert!(b.sends(&[100]).is_empty());
    b.resume(0);
    assert_eq!(b.receives(&[], 6).len(), 2);
    assert_eq!(b.worker.io.take_sent().len(), 1);
}
