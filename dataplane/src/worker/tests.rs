//! A worker in a simulated world, turn by turn.

use super::*;
use crate::counters::SessionCounters;
use crate::mppe::keys::{KeyMode, KeyStrength, StartKey};
use crate::offload::checksum::Sum;
use crate::offload::{TunFeatures, VnetHeader};
use crate::program::{MppeSpec, NetworkSpec, Role};
use crate::sim_io::{SimIo, outer_ipv4};

const SLOTS: u16 = 256;
const CONTROL_SLOTS: u16 = 4;
const TUN: TunId = TunId(3);
/// LCP Echo-Request with address and control field (RFC 1661 5.8).
const ECHO: &[u8] = b"\xFF\x03\xC0\x21\x09\x01\x00\x08\x00\x00\x00\x00";

/// A worker in a simulated world, with the calls 1 and 2 of one peer.
struct Bench {
    worker: Worker<SimIo>,
    mailbox: Arc<Mailbox>,
    counters: Arc<IoCounters>,
    local: Ipv4Addr,
    peer: Ipv4Addr,
}

impl Bench {
    /// `number` and `peer_number` are the last octets of the addresses.
    fn new(number: u8, peer_number: u8) -> Self {
        let mailbox = Arc::new(Mailbox::new(64, limits::NOTICES_RESERVED + 256).unwrap());
        let counters = Arc::new(IoCounters::default());
        let spec = WorkerSpec {
            index: 0,
            count: 1,
            max_sessions: 2,
            slots: usize::from(SLOTS),
        };
        let io = SimIo::new(SLOTS, CONTROL_SLOTS);
        let (theirs, counted) = (Arc::clone(&mailbox), Arc::clone(&counters));
        let bench = Self {
            worker: Worker::new(spec, io, theirs, Arc::default(), counted),
            mailbox,
            counters,
            local: Ipv4Addr::new(192, 0, 2, number),
            peer: Ipv4Addr::new(192, 0, 2, peer_number),
        };
        bench.install(1);
        bench.install(2);
        bench
    }

    fn install(&self, call_id: u16) {
        self.post(Command::Install(SessionSpec {
            call_id: CallId(call_id),
            peer: self.peer,
            local: None,
            peer_call_id: Some(call_id),
            role: Role::Both,
            counters: Arc::new(SessionCounters::default()),
        }));
    }

    /// Lets the IP packets of call 1 flow, encrypted, through a TUN device of its own.
    fn open(&mut self, send: &[u8; 16], receive: &[u8; 16]) {
        let call_id = CallId(1);
        let mppe = |octets| {
            let start_key = StartKey::new(KeyStrength::Bits128, octets);
            let mode = KeyMode::Stateless;
            Some(MppeSpec { start_key, mode })
        };
        self.worker.io.attach_sim(TUN);
        let owner = Some(call_id);
        self.worker.tuns.push(Tun {
            id: TUN,
            owner,
            by_source: false,
        });
        let (inner, inner_peer) = (self.local.octets()[3], self.peer.octets()[3]);
        let network = NetworkSpec {
            tun: TUN,
            local: Ipv4Addr::new(10, 0, 0, inner),
            peer: Ipv4Addr::new(10, 0, 0, inner_peer),
            compress_protocol: true,
            compress_address_control: true,
            require_encryption: true,
            check_source: true,
        };
        let (mppe_receive, mppe_send) = (mppe(receive), mppe(send));
        self.post(Command::SetReceiveKey {
            call_id,
            mppe: mppe_receive,
        });
        self.post(Command::SetSendKey {
            call_id,
            mppe: mppe_send,
        });
        self.post(Command::OpenNetwork { call_id, network });
    }

    fn post(&self, command: Command) {
        self.mailbox.post(command).unwrap();
    }

    fn inject(&self, call_id: u16, frame: &'static [u8]) {
        let frame = Bytes::from_static(frame);
        let call_id = CallId(call_id);
        self.post(Command::Inject { call_id, frame });
    }

    fn turn(&mut self) -> Flow {
        self.worker.turn().unwrap()
    }

    fn turn_at(&mut self, now_ms: u64) {
        self.worker.io.set_now_ms(now_ms);
        self.turn();
    }

    /// Carries what this worker has sent to the other.
    fn send_to(&mut self, other: &mut Self) -> usize {
        let sent = self.worker.io.take_sent();
        for sent in &sent {
            assert_eq!(sent.peer, other.local);
            let packet = outer_ipv4(self.local, sent.peer, &sent.packet);
            other.worker.io.gre_arrives(&packet);
        }
        sent.len()
    }

    fn notices(&self) -> Vec<Notice> {
        std::iter::from_fn(|| self.mailbox.next_notice()).collect()
    }

    fn assert_no_slot_is_missing(&mut self) {
        self.turn();
        let free = self.worker.io.free_slots();
        assert_eq!(free, usize::from(SLOTS + CONTROL_SLOTS));
    }
}

fn pair() -> (Bench, Bench) {
    let (mut a, mut b) = (Bench::new(1, 2), Bench::new(2, 1));
    a.open(b"key from a to b.", b"key from b to a.");
    b.open(b"key from b to a.", b"key from a to b.");
    a.turn();
    b.turn();
    (a, b)
}

/// An IPv4 packet of `len` octets; what is in it does not matter to a tunnel.
fn inner(source: u8, destination: u8, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len - 20).map(|i| (i % 251) as u8).collect();
    let address = |last| Ipv4Addr::new(10, 0, 0, last);
    outer_ipv4(address(source), address(destination), &payload)
}

#[test]
fn a_batch_crosses_in_one_turn_at_each_end_and_all_slots_come_back() {
    let (mut a, mut b) = pair();
    let packets: Vec<_> = (0..150).map(|i| inner(1, 2, 20 + i * 9)).collect();
    for packet in &packets {
        a.worker.io.tun_arrives(TUN, packet);
    }
    a.turn();
    assert_eq!(a.send_to(&mut b), packets.len());
    b.turn();
    let written = b.worker.io.take_written();
    let expected: Vec<_> = packets.into_iter().map(|packet| (TUN, packet)).collect();
    assert!(written == expected, "{} packets arrived", written.len());
    assert!(b.notices().is_empty());
    a.assert_no_slot_is_missing();
    b.assert_no_slot_is_missing();
}

#[test]
fn a_train_that_crosses_is_written_as_the_train_that_was_read() {
    let (mut a, mut b) = (Bench::new(1, 2), Bench::new(2, 1));
    let features = TunFeatures {
        vnet_header: true,
        tcp: true,
        udp: true,
    };
    for bench in [&mut a, &mut b] {
        bench.worker.io.attach_sim_with(TUN, features);
    }
    a.open(b"key from a to b.", b"key from b to a.");
    b.open(b"key from b to a.", b"key from a to b.");
    b.turn();
    let train = tcp_train(40, 1300);
    a.worker.io.tun_arrives(TUN, &train);
    a.turn();
    assert_eq!(a.send_to(&mut b), 40);
    b.turn();
    let written = b.worker.io.take_written();
    assert!(written == [(TUN, train)], "{} writes", written.len());
    a.assert_no_slot_is_missing();
    b.assert_no_slot_is_missing();
}

/// So many TCP segments from 10.0.0.1 to 10.0.0.2 as a TUN device hands them over together.
fn tcp_train(segments: usize, size: usize) -> Vec<u8> {
    let source_and_destination = [10, 0, 0, 1, 10, 0, 0, 2];
    let segment_len = 20 + segments * size;
    let sum = Sum::default().with_pseudo_header(&source_and_destination, 6, segment_len);
    let mut segment = vec![0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0];
    segment.extend(sum.partial());
    segment.extend([0, 0]);
    segment.extend((0..segments * size).map(|i| (i % 251) as u8));
    let [source, destination] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
    let mut packet = outer_ipv4(source, destination, &segment);
    packet[9] = 6;
    packet[10..12].fill(0);
    let checksum = Sum::default().with(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&checksum);
    let header = VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        gso_type: VnetHeader::GSO_TCP_IPV4,
        header_len: 40,
        gso_size: size as u16,
        checksum_start: 20,
        checksum_offset: 16,
    };
    [&header.to_bytes()[..], &packet].concat()
}

#[test]
fn what_is_owed_is_acknowledged_when_its_time_has_come() {
    let (mut a, mut b) = pair();
    a.worker.io.tun_arrives(TUN, &inner(1, 2, 100));
    a.turn();
    // Where the S bit is set, the sequence number follows the key.
    let sequence = a.worker.io.sent()[0].packet[8..12].to_vec();
    a.send_to(&mut b);
    b.turn();
    assert!(b.worker.io.take_sent().is_empty());
    let deadline_ms = b
        .worker
        .next_deadline_ms()
        .expect("an acknowledgment is owed");
    b.turn_at(deadline_ms);
    let sent = b.worker.io.take_sent();
    // Key and acknowledgment, no sequence number, no payload (RFC 2637 4.1).
    let header = [0x20, 0x81, 0x88, 0x0B, 0, 0, 0, 1];
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].packet, [&header[..], &sequence].concat());
    assert_eq!(b.worker.next_deadline_ms(), None);
    b.assert_no_slot_is_missing();
}

#[test]
fn injected_frames_wait_for_the_network_and_keep_their_order() {
    let (mut a, mut b) = (Bench::new(1, 2), Bench::new(2, 1));
    a.turn();
    b.turn();
    a.worker.io.set_network_stuck(true);
    let frames: Vec<&'static [u8]> = vec![
        b"\xFF\x03\xC0\x21\x01",
        b"\xFF\x03\xC0\x21\x02",
        b"\xFF\x03\xC0\x21\x03",
        b"\xFF\x03\xC0\x21\x04",
        b"\xFF\x03\xC0\x21\x05",
        b"\xFF\x03\xC0\x21\x06",
    ];
    for frame in &frames {
        a.inject(1, frame);
    }
    a.post(Command::Remove { call_id: CallId(1) });
    a.turn();
    assert_eq!(a.send_to(&mut b), usize::from(CONTROL_SLOTS));
    // It waits without spinning while nothing goes out.
    assert_eq!(a.worker.next_deadline_ms(), Some(1));
    a.turn();
    assert_eq!(a.send_to(&mut b), 0);
    a.worker.io.set_network_stuck(false);
    a.turn();
    assert_eq!(a.send_to(&mut b), 2);
    assert!(
        a.worker.sessions.get(CallId(1)).is_none(),
        "removed when all were sent"
    );
    b.turn();
    let punted: Vec<Bytes> = b.notices().into_iter().map(punted).collect();
    assert_eq!(punted, frames);
}

fn punted(notice: Notice) -> Bytes {
    match notice {
        Notice::Punt { frame, .. } => frame,
        other => panic!("not a punt: {other:?}"),
    }
}

#[test]
fn a_flood_of_control_frames_in_one_session_leaves_the_other_its_own() {
    let (mut a, mut b) = (Bench::new(1, 2), Bench::new(2, 1));
    b.turn();
    for _ in 0..5 {
        (0..40).for_each(|_| a.inject(1, ECHO));
        for _ in 0..10 {
            a.turn();
            a.send_to(&mut b);
        }
        b.turn();
    }
    a.inject(2, ECHO);
    a.turn();
    a.send_to(&mut b);
    b.turn();
    let of_second = |notice: &Notice| {
        matches!(
            notice,
            Notice::Punt {
                call_id: CallId(2),
                ..
            }
        )
    };
    let notices = b.notices();
    assert_eq!(notices.len(), limits::PUNT_BURST as usize + 1);
    assert_eq!(notices.iter().filter(|notice| of_second(notice)).count(), 1);
    assert_eq!(
        b.counters.punts_dropped.get(),
        200 - u64::from(limits::PUNT_BURST)
    );
    b.assert_no_slot_is_missing();
}

#[test]
fn a_device_that_vanishes_is_reported_once_and_its_packets_are_dropped() {
    let (mut a, mut b) = pair();
    b.worker.io.tun_vanishes(TUN);
    b.turn();
    assert!(matches!(b.notices()[..], [Notice::TunLost { tun: TUN }]));
    a.worker.io.tun_arrives(TUN, &inner(1, 2, 100));
    a.turn();
    a.send_to(&mut b);
    b.turn();
    assert!(b.worker.io.take_written().is_empty());
    assert!(b.notices().is_empty());
    b.assert_no_slot_is_missing();
}

#[test]
fn what_is_not_ip_or_has_no_session_does_not_leave() {
    let (mut a, _) = pair();
    let mut ipv6 = inner(1, 2, 60);
    ipv6[0] = 0x60;
    a.worker.io.tun_arrives(TUN, &ipv6);
    a.worker.io.tun_arrives(TUN, &[0x45]);
    a.worker.io.attach_sim(TunId(8));
    let (id, owner) = (TunId(8), None);
    a.worker.tuns.push(Tun {
        id,
        owner,
        by_source: false,
    });
    a.worker.io.tun_arrives(id, &inner(1, 77, 60));
    a.turn();
    assert!(a.worker.io.take_sent().is_empty());
    let counters = a.worker.sessions.counters();
    assert_eq!(counters.dropped(DropReason::BadInnerIp), 1);
    assert_eq!(counters.dropped(DropReason::NetworkClosed), 1, "no IPV6CP");
    assert_eq!(counters.dropped(DropReason::NoRoute), 1);
    a.assert_no_slot_is_missing();
}

#[test]
fn what_was_posted_before_the_stop_is_done() {
    let mut a = Bench::new(1, 2);
    a.inject(1, ECHO);
    a.post(Command::Stop);
    assert_eq!(a.turn(), Flow::Stop);
    assert_eq!(a.worker.io.take_sent().len(), 1);
}

#[test]
fn commands_that_cannot_be_obeyed_are_counted_and_harm_nothing() {
    let mut a = Bench::new(1, 2);
    a.turn();
    a.inject(77, ECHO);
    a.inject(1, &[0; limits::SLOT_BYTES]);
    a.install(1);
    a.install(3);
    a.post(Command::Remove {
        call_id: CallId(77),
    });
    a.post(Command::DetachTun { tun: TunId(77) });
    a.turn();
    assert_eq!(a.counters.commands_refused.get(), 6);
    a.post(Command::Remove { call_id: CallId(1) });
    a.install(3);
    a.turn();
    assert_eq!(a.counters.commands_refused.get(), 6);
    a.assert_no_slot_is_missing();
}

mod traffic;
