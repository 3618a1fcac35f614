//! Look-ahead, and chains of several sessions abreast, change how fast packets are enciphered and
//! nothing else: octet for octet the same leaves, and the same is delivered.

use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::counters::SessionCounters;
use dataplane::decap::{Batch, Verdict, decap, release_expired};
use dataplane::encap::{Outgoing, encap};
use dataplane::frame::{Frame, Slot, VecArena};
use dataplane::limits::{BATCH_PACKETS, HEADROOM_BYTES, REORDER_TIMEOUT_MS, SLOT_BYTES};
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::mppe::look_ahead::{Pool, Progress, Workshop};
use dataplane::program::{CallId, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::session::SessionTable;
use dataplane::sim_io::outer_ipv4;
use proptest::collection::vec;
use proptest::prelude::*;

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Sessions, each keyed in another way.
const SESSIONS: u16 = 6;
/// Packets held and packets of a batch.
const SLOTS: u16 = 512;

/// One end of all sessions.
struct End {
    table: SessionTable,
    arena: VecArena,
    free: Vec<Slot>,
    out: Batch,
    counters: Arc<SessionCounters>,
    pool: Option<(Arc<Workshop>, Pool)>,
}

impl End {
    fn new(looks_ahead: bool) -> Self {
        let mut end = Self {
            table: SessionTable::new(0, 1, Arc::default()),
            arena: VecArena::new(SLOTS, SLOT_BYTES as u16),
            free: (0..SLOTS).map(Slot).collect(),
            out: Batch::new(),
            counters: Arc::default(),
            pool: looks_ahead.then(|| {
                let workshop = Workshop::new();
                (Arc::clone(&workshop), Pool::new(workshop))
            }),
        };
        for call_id in (0..SESSIONS).map(CallId) {
            let spec = SessionSpec {
                call_id,
                peer: A,
                local: None,
                peer_call_id: Some(call_id.0),
                counters: Arc::clone(&end.counters),
                role: Role::Both,
            };
            assert!(end.table.install(&spec).is_ok());
            let network = NetworkSpec {
                tun: TunId(0),
                local: Ipv4Addr::UNSPECIFIED,
                peer: Ipv4Addr::UNSPECIFIED,
                compress_protocol: false,
                compress_address_control: false,
                require_encryption: true,
                check_source: false,
            };
            assert!(end.table.open_network(call_id, network, false));
            end.key(call_id, 0);
        }
        end
    }

    /// Keys both directions of a session, as control does at the start and at any time after.
    fn key(&mut self, call_id: CallId, generation: u8) {
        let strengths = [
            KeyStrength::Bits40,
            KeyStrength::Bits56,
            KeyStrength::Bits128,
        ];
        let strength = strengths[usize::from(call_id.0 % 3)];
        let mode = if call_id.0 == SESSIONS - 1 {
            KeyMode::Stateful
        } else {
            KeyMode::Stateless
        };
        let start_key = StartKey::new(strength, &[call_id.0 as u8 + 16 * generation; 16]);
        let mppe = MppeSpec { start_key, mode };
        let session = self.table.get_mut(call_id).expect("installed");
        session.set_receive_key(Some(&mppe));
        session.set_send_key(Some(&mppe));
        if let Some((workshop, _)) = &self.pool {
            assert!(session.look_ahead(workshop));
        }
    }

    /// The helper gets the time for so many rounds.
    fn idle(&mut self, rounds: usize, now_ms: u64) {
        if let Some((_, pool)) = &mut self.pool {
            for _ in 0..rounds {
                if pool.round(now_ms) == Progress::Nothing {
                    break;
                }
            }
        }
    }

    /// `packets`: sessions and inner packets, in batches of `step`.
    fn send(&mut self, packets: &[(CallId, Vec<u8>)], step: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for group in packets.chunks(step) {
            let fill = |((call_id, packet), slot): (&(CallId, Vec<u8>), &Slot)| {
                let frame = self.arena.fill(*slot, HEADROOM_BYTES as u16, packet);
                Outgoing::new(*call_id, frame)
            };
            let mut batch: Vec<_> = group.iter().zip(&self.free).map(fill).collect();
            encap(&mut self.table, &mut self.arena, &mut batch, 0);
            for packet in batch {
                assert_eq!(packet.dropped, None);
                sent.push(outer_ipv4(A, B, packet.frame.bytes(&self.arena)));
            }
        }
        sent
    }

    fn receive(&mut self, packets: &[Vec<u8>], step: usize, now_ms: u64) -> Vec<Vec<u8>> {
        let mut delivered = Vec::new();
        for group in packets.chunks(step) {
            let mut frames: Vec<Frame> = Vec::new();
            for packet in group {
                let slot = self.free.pop().expect("slots come back");
                frames.push(self.arena.fill(slot, 0, packet));
            }
            let (table, arena) = (&mut self.table, &mut self.arena);
            decap(table, arena, &frames, &mut self.out, now_ms);
            self.take_delivered(&mut delivered);
        }
        delivered
    }

    fn expire(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        let mut delivered = Vec::new();
        release_expired(&mut self.table, &mut self.arena, &mut self.out, now_ms);
        self.take_delivered(&mut delivered);
        delivered
    }

    fn take_delivered(&mut self, delivered: &mut Vec<Vec<u8>>) {
        for decided in self.out.as_slice() {
            self.free.push(decided.frame.slot);
            if let Verdict::Deliver { .. } = decided.verdict {
                delivered.push(decided.frame.bytes(&self.arena).to_vec());
            }
        }
        self.out.clear();
    }
}

/// An IPv4 packet of `len` octets.
fn inner(len: usize) -> Vec<u8> {
    outer_ipv4(A, B, &vec![7; len.saturating_sub(20)])
}

/// What happens next.
#[derive(Clone, Debug)]
enum Happening {
    /// Packets of these sessions and lengths, of which the network changes the fate.
    Packets(Vec<(u16, usize, Fate)>, usize),
    /// Nothing comes: the helpers work so many rounds.
    Idle(usize),
    /// Control keys a session anew.
    Key(u16),
    /// Somebody sends noise under the name of a session, so many counts ahead.
    Forged(u16, u16),
    /// So many packets of a session are lost in a row.
    Outage(u16, usize),
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Overtaken(usize),
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => (1..5_usize).prop_map(Fate::Overtaken),
    ]
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let packet = (0..SESSIONS, 20..1800_usize, any_fate());
    prop_oneof![
        6 => (vec(packet, 1..150), 1..=BATCH_PACKETS)
            .prop_map(|(packets, step)| Happening::Packets(packets, step)),
        4 => (0..60_usize).prop_map(Happening::Idle),
        1 => (0..SESSIONS).prop_map(Happening::Key),
        1 => (0..SESSIONS, 0..70_u16).prop_map(|(call, ahead)| Happening::Forged(call, ahead)),
        1 => (0..SESSIONS, 1..300_usize).prop_map(|(call, count)| Happening::Outage(call, count)),
    ]
}

/// A sender and a receiver.
struct Pair {
    sender: End,
    receiver: End,
    generation: [u8; SESSIONS as usize],
}

impl Pair {
    fn new(looks_ahead: bool) -> Self {
        Self {
            sender: End::new(looks_ahead),
            receiver: End::new(looks_ahead),
            generation: [0; SESSIONS as usize],
        }
    }

    /// What left the sender, and what the receiver delivered. `alone`: one packet at a time.
    fn live(&mut self, happening: &Happening, alone: bool, now_ms: u64) -> [Vec<Vec<u8>>; 2] {
        match happening {
            Happening::Packets(packets, step) => {
                let step = if alone { 1 } else { *step };
                let inner = packets
                    .iter()
                    .map(|(call, len, _)| (CallId(*call), inner(*len)));
                let sent = self.sender.send(&inner.collect::<Vec<_>>(), step);
                let fates = packets.iter().map(|(_, _, fate)| *fate);
                let arrivals = through_network(&sent, fates);
                [sent, self.receiver.receive(&arrivals, step, now_ms)]
            }
            Happening::Idle(rounds) => {
                self.sender.idle(*rounds, now_ms);
                self.receiver.idle(*rounds, now_ms);
                [Vec::new(), self.receiver.expire(now_ms)]
            }
            Happening::Key(call) => {
                let generation = &mut self.generation[usize::from(*call)];
                *generation = (*generation + 1) % 8;
                self.sender.key(CallId(*call), *generation);
                self.receiver.key(CallId(*call), *generation);
                [Vec::new(), Vec::new()]
            }
            Happening::Forged(call, ahead) => {
                let mut copy = self.sender.send(&[(CallId(*call), inner(60))], 1);
                // The next number, and noise of a coherency count further on.
                let at = copy[0].len() - 60 - 2 - 2;
                let count = u16::from_be_bytes([copy[0][at], copy[0][at + 1]]);
                let count = (count & 0xF000) | ((count & 0x0FFF) + ahead) & 0x0FFF;
                copy[0][at..at + 2].copy_from_slice(&count.to_be_bytes());
                copy[0][at + 2..].fill(0x5A);
                let delivered = self.receiver.receive(&copy, 1, now_ms);
                [copy, delivered]
            }
            Happening::Outage(call, count) => {
                let lost = vec![(CallId(*call), inner(40)); *count];
                let step = if alone { 1 } else { BATCH_PACKETS };
                [self.sender.send(&lost, step), Vec::new()]
            }
        }
    }
}

fn through_network(sent: &[Vec<u8>], fates: impl Iterator<Item = Fate>) -> Vec<Vec<u8>> {
    let mut arrivals = Vec::new();
    for ((index, packet), fate) in sent.iter().enumerate().zip(fates) {
        match fate {
            Fate::Arrives => arrivals.push((2 * index, packet)),
            Fate::Lost => {}
            Fate::Overtaken(by) => arrivals.push((2 * (index + by) + 1, packet)),
        }
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
        .into_iter()
        .map(|(_, packet)| packet.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn nothing_but_speed_depends_on_looking_ahead(happenings in vec(any_happening(), 1..40)) {
        let (mut plain, mut ahead) = (Pair::new(false), Pair::new(true));
        for (happening, number) in happenings.iter().zip(1_u64..) {
            let now_ms = number * REORDER_TIMEOUT_MS;
            let expected = plain.live(happening, false, now_ms);
            prop_assert_eq!(ahead.live(happening, false, now_ms), expected);
        }
        prop_assert_eq!(plain.sender.counters.sent_prepared.get(), 0);
    }

    #[test]
    fn packets_of_several_sessions_leave_as_if_each_were_alone(
        packets in vec((0..SESSIONS, 20..200_usize), 1..300),
        step in 1..=BATCH_PACKETS,
    ) {
        let happening = |step| {
            let packets = packets.iter().map(|(call, len)| (*call, *len, Fate::Arrives));
            Happening::Packets(packets.collect(), step)
        };
        let (mut several, mut alone) = (Pair::new(false), Pair::new(false));
        let expected = alone.live(&happening(1), true, 0);
        prop_assert_eq!(several.live(&happening(step), false, 0), expected);
    }
}

#[test]
fn after_a_pause_every_stream_is_ready() {
    let mut pair = Pair::new(true);
    pair.live(&Happening::Idle(1000), false, 0);
    let packets = (0..SESSIONS - 1).flat_map(|call| [(call, 1400, Fate::Arrives); 30]);
    let happening = Happening::Packets(packets.collect(), 16);
    let [sent, delivered] = pair.live(&happening, false, 0);
    assert_eq!(delivered.len(), sent.len());
    let count = sent.len() as u64;
    assert_eq!(pair.sender.counters.sent_prepared.get(), count);
    assert_eq!(pair.receiver.counters.received_prepared.get(), count);
}
