//! One session in two workers, a direction each, against an ordinary peer, over a network that
//! loses, doubles and reorders packets as a seed says.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::counters::SessionCounters;
use dataplane::io::IoCounters;
use dataplane::limits;
use dataplane::mailbox::Mailbox;
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::offload::TunFeatures;
use dataplane::program::{
    CallId, Command, MppeSpec, NetworkSpec, Notice, Role, SessionSpec, TunId,
};
use dataplane::sim_io::{SimIo, outer_ipv4};
use dataplane::wire::gre::GreRepr;
use dataplane::worker::{Worker, WorkerSpec};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

const SLOTS: u16 = 512;
const TUN: TunId = TunId(0);
/// LCP Echo-Request with address and control field (RFC 1661 5.8).
const ECHO: &[u8] = b"\xFF\x03\xC0\x21\x09\x01\x00\x08\x00\x00\x00\x00";

/// One worker of a host.
struct Lane {
    worker: Worker<SimIo>,
    mailbox: Arc<Mailbox>,
}

impl Lane {
    fn new(index: u16, count: u16) -> Self {
        let mailbox = Arc::new(Mailbox::new(64, limits::NOTICES_RESERVED + 64).unwrap());
        let spec = WorkerSpec {
            index,
            count,
            max_sessions: 1,
            slots: usize::from(SLOTS),
        };
        let (io, counters) = (SimIo::new(SLOTS, 64), Arc::new(IoCounters::default()));
        let theirs = Arc::clone(&mailbox);
        Self {
            worker: Worker::new(spec, io, theirs, Arc::default(), counters),
            mailbox,
        }
    }
}

/// A host with one session: in one worker, or in two.
struct Host {
    lanes: Vec<Lane>,
    call_id: CallId,
    outer: Ipv4Addr,
    inner: Ipv4Addr,
    counters: Arc<SessionCounters>,
}

impl Host {
    fn new(number: u8, workers: u16, call_id: u16) -> Self {
        Self {
            lanes: (0..workers)
                .map(|index| Lane::new(index, workers))
                .collect(),
            call_id: CallId(call_id),
            outer: Ipv4Addr::new(192, 0, 2, number),
            inner: Ipv4Addr::new(10, 0, 0, number),
            counters: Arc::default(),
        }
    }

    /// Installs the session, encrypted both ways, and lets IP flow.
    fn open(&mut self, peer: &Self, mode: KeyMode) {
        let call_id = self.call_id;
        let mppe = |sender: &Self| {
            let octets = [sender.inner.octets()[3]; 16];
            let start_key = StartKey::new(KeyStrength::Bits128, &octets);
            Some(MppeSpec { start_key, mode })
        };
        let nothing = std::fs::File::open("/dev/null").unwrap();
        let commands = [
            Command::Install(SessionSpec {
                call_id,
                peer: peer.outer,
                local: None,
                peer_call_id: None,
                role: Role::Both,
                counters: Arc::clone(&self.counters),
            }),
            Command::SetPeerCallId {
                call_id,
                peer_call_id: peer.call_id.0,
            },
            Command::AttachTun {
                tun: TUN,
                fd: Arc::new(nothing.into()),
                features: TunFeatures::default(),
                owner: None,
                role: Role::Both,
            },
            Command::SetReceiveKey {
                call_id,
                mppe: mppe(peer),
            },
            Command::SetSendKey {
                call_id,
                mppe: mppe(self),
            },
            Command::OpenNetwork {
                call_id,
                network: NetworkSpec {
                    tun: TUN,
                    local: self.inner,
                    peer: peer.inner,
                    compress_protocol: true,
                    compress_address_control: true,
                    require_encryption: true,
                    check_source: true,
                },
            },
        ];
        for command in commands {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        let (receiver, sender) = self.halves();
        if receiver == sender {
            self.lanes[receiver].mailbox.post(command).unwrap();
            return;
        }
        let halves = command.split();
        for (index, half) in [(receiver, halves.receive), (sender, halves.send)] {
            if let Some(half) = half {
                self.lanes[index].mailbox.post(half).unwrap();
            }
        }
    }

    fn halves(&self) -> (usize, usize) {
        let count = self.lanes.len() as u16;
        let (receiver, sender) = (self.call_id.receiver(count), self.call_id.sender(count));
        (usize::from(receiver), usize::from(sender))
    }

    /// The host sends a packet through the tunnel.
    fn sends(&mut self, peer: &Self, payload: &[u8]) {
        let packet = outer_ipv4(self.inner, peer.inner, payload);
        let (_, sender) = self.halves();
        let io = self.lanes[sender].worker.io_mut();
        io.tun_arrives(TUN, &packet);
    }

    /// Every worker turns; what has gone out by whom.
    fn turn(&mut self, now_ms: u64) -> Vec<(usize, Vec<u8>)> {
        let mut sent = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.worker.io_mut().set_now_ms(now_ms);
            lane.worker.turn().unwrap();
            let packets = lane.worker.io_mut().take_sent().into_iter();
            sent.extend(packets.map(|it| (index, it.packet)));
        }
        sent
    }

    /// What has come out of the tunnel since the last call.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let (receiver, _) = self.halves();
        let written = self.lanes[receiver].worker.io_mut().take_written();
        written
            .into_iter()
            .map(|(_, it)| it[20..].to_vec())
            .collect()
    }

    fn punts(&self) -> usize {
        let (receiver, _) = self.halves();
        let notices = std::iter::from_fn(|| self.lanes[receiver].mailbox.next_notice());
        let is_punt = |notice: &Notice| matches!(notice, Notice::Punt { .. });
        notices.filter(is_punt).count()
    }

    fn assert_no_slot_is_missing(&self) {
        for lane in &self.lanes {
            assert_eq!(lane.worker.io().free_slots(), usize::from(SLOTS) + 64);
        }
    }
}

/// What the network does to packets in one direction.
struct Network {
    rng: ChaCha12Rng,
    is_faulty: bool,
    in_flight: Vec<(u64, Vec<u8>)>,
    lost: u64,
}

impl Network {
    fn new(seed: u64, is_faulty: bool) -> Self {
        Self {
            rng: ChaCha12Rng::seed_from_u64(seed),
            is_faulty,
            in_flight: Vec::new(),
            lost: 0,
        }
    }

    /// One in twenty packets is lost, one in twenty comes twice, and one in ten is overtaken.
    fn takes(&mut self, now_ms: u64, packet: Vec<u8>) {
        let fate = if self.is_faulty {
            self.rng.next_u32() % 20
        } else {
            19
        };
        let delay_ms = if fate < 4 && fate > 1 { 2 } else { 1 };
        match fate {
            0 => self.lost += 1,
            1 => self
                .in_flight
                .extend([(now_ms + 1, packet.clone()), (now_ms + 2, packet)]),
            _ => self.in_flight.push((now_ms + delay_ms, packet)),
        }
    }

    /// To every worker, as a kernel without filters has it.
    fn brings(&mut self, now_ms: u64, from: &Host, to: &mut Host) {
        let (due, later) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|(at_ms, _)| *at_ms <= now_ms);
        self.in_flight = later;
        let due: Vec<(u64, Vec<u8>)> = due;
        for (_, packet) in due {
            for lane in &mut to.lanes {
                let packet = outer_ipv4(from.outer, to.outer, &packet);
                lane.worker.io_mut().gre_arrives(&packet);
            }
        }
    }
}

/// What each half may send: the sender numbers without a gap and acknowledges nothing; the
/// receiver acknowledges without numbers (RFC 2637 4.1, 4.4).
fn check_halves(host: &Host, sent: &[(usize, Vec<u8>)], next: &mut u32, acknowledged: &mut u32) {
    let (receiver, sender) = host.halves();
    for (index, packet) in sent {
        let gre = GreRepr::parse(packet).unwrap();
        if *index == sender {
            assert_eq!(gre.sequence, Some(*next));
            assert_eq!(gre.acknowledgment, None);
            *next += 1;
        } else {
            assert_eq!((*index, gre.sequence, gre.payload_len), (receiver, None, 0));
            let latest = gre.acknowledgment.expect("nothing else is sent alone");
            assert!(latest > *acknowledged, "{latest} after {acknowledged}");
            *acknowledged = latest;
        }
    }
}

/// What came out is a part of what went in, in order, each once.
fn assert_in_order(received: &[u32], sent: u32) {
    assert!(received.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(received.iter().all(|number| *number < sent));
}

fn numbers(packets: Vec<Vec<u8>>) -> impl Iterator<Item = u32> {
    let number = |packet: Vec<u8>| u32::from_be_bytes(*packet.first_chunk().unwrap());
    packets.into_iter().map(number)
}

fn run(seed: u64, workers: u16, mode: KeyMode, is_faulty: bool) {
    println!("seed {seed}, {workers} workers, {mode:?}, faulty: {is_faulty}");
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut split = Host::new(1, workers, rng.random());
    let mut peer = Host::new(2, 1, rng.random());
    split.open(&peer, mode);
    peer.open(&split, mode);
    assert!(split.turn(0).is_empty() && peer.turn(0).is_empty());
    let (mut out, mut back) = (
        Network::new(seed, is_faulty),
        Network::new(!seed, is_faulty),
    );
    let (mut from_split, mut from_peer) = (Vec::new(), Vec::new());
    let (mut sent, mut echoes) = ([0_u32; 2], 0);
    let (mut next, mut acknowledged) = (1, 0);
    for now_ms in 1..=2_000 {
        if now_ms <= 1_000 {
            for (index, sent) in sent.iter_mut().enumerate() {
                for _ in 0..rng.random_range(0..4) {
                    let mut payload = sent.to_be_bytes().to_vec();
                    payload.resize(rng.random_range(4..1_300), 0);
                    match index {
                        0 => split.sends(&peer, &payload),
                        _ => peer.sends(&split, &payload),
                    }
                    *sent += 1;
                }
            }
            if now_ms % 100 == 0 {
                let (call_id, frame) = (split.call_id, bytes::Bytes::from_static(ECHO));
                split.obey(Command::Inject { call_id, frame });
                echoes += 1;
            }
        }
        let gone = split.turn(now_ms);
        check_halves(&split, &gone, &mut next, &mut acknowledged);
        gone.into_iter()
            .for_each(|(_, packet)| out.takes(now_ms, packet));
        for (_, packet) in peer.turn(now_ms) {
            back.takes(now_ms, packet);
        }
        out.brings(now_ms, &split, &mut peer);
        back.brings(now_ms, &peer, &mut split);
        from_split.extend(numbers(peer.received()));
        from_peer.extend(numbers(split.received()));
    }
    assert_in_order(&from_split, sent[0]);
    assert_in_order(&from_peer, sent[1]);
    let punts = peer.punts();
    let (arrived, lost) = (from_split.len() + punts, out.lost);
    if is_faulty {
        assert!(lost > 10 && punts > 0, "{lost} lost, {punts} echoes");
        // Stateful keys lose what comes before control has had the peer start afresh.
        if mode == KeyMode::Stateless {
            let whole = sent[0] as usize + echoes;
            assert!(
                arrived + lost as usize + 5 >= whole,
                "{arrived} and {lost} of {whole}"
            );
        }
    } else {
        // In order, and each once: as many as were sent are all.
        assert_eq!(
            [from_split.len(), from_peer.len()],
            sent.map(|count| count as usize)
        );
        assert_eq!(punts, echoes);
    }
    check_counters(&split, sent[0], &from_peer, next);
    assert!(acknowledged > 0, "what was received has been acknowledged");
    split.assert_no_slot_is_missing();
    peer.assert_no_slot_is_missing();
}

fn check_counters(split: &Host, sent: u32, received: &[u32], next: u32) {
    let counters = &split.counters;
    assert_eq!(counters.sent_packets.get(), u64::from(sent));
    assert!(u64::from(next) > u64::from(sent));
    assert_eq!(counters.received_packets.get(), received.len() as u64);
    assert_eq!(counters.send_dropped.get(), 0);
}

#[test]
fn a_split_session_carries_everything_in_order_over_a_good_network() {
    for workers in [2, 3] {
        for mode in [KeyMode::Stateless, KeyMode::Stateful] {
            run(7, workers, mode, false);
        }
    }
}

#[test]
fn loss_doubles_and_reordering_are_put_right_by_a_split_session() {
    for seed in 0..20 {
        run(seed, 2, KeyMode::Stateless, true);
    }
}

/// Keys come to the halves apart: the wrong half refuses what is not its own.
#[test]
fn a_half_refuses_what_is_the_other_halfs() {
    let mut host = Host::new(1, 2, 7);
    let peer = Host::new(2, 1, 8);
    host.open(&peer, KeyMode::Stateless);
    host.turn(1);
    let (receiver, sender) = host.halves();
    let call_id = host.call_id;
    let frame = bytes::Bytes::from_static(ECHO);
    let inject = Command::Inject { call_id, frame };
    host.lanes[receiver].mailbox.post(inject).unwrap();
    let mppe = None;
    let key = Command::SetReceiveKey { call_id, mppe };
    host.lanes[sender].mailbox.post(key).unwrap();
    assert!(host.turn(2).is_empty(), "the receiver numbers nothing");
    host.sends(&peer, b"encrypted as before");
    let indices: BTreeSet<usize> = host.turn(3).into_iter().map(|(index, _)| index).collect();
    assert_eq!(indices, BTreeSet::from([sender]));
}
