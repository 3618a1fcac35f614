//! Two workers in two network namespaces, and a tunnel between them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane::counters::{DropReason, SessionCounters};
use dataplane::handle::{SendError, StartError, WorkerConfig, WorkerHandle, spawn};
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::program::{
    CallId, Command, MppeSpec, NetworkSpec, Notice, Role, SessionSpec, TunId,
};
use dataplane::sys::tun::{self, TunDevice};
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespaces::{Namespace, comes_true, ip, may_run, raw_sockets};

const TUN: TunId = TunId(1);
const WAIT: Duration = Duration::from_secs(5);

/// One end of the tunnel.
#[derive(Clone, Copy)]
struct End {
    call_id: CallId,
    outer: Ipv4Addr,
    inner: Ipv4Addr,
    /// 128-bit start key of what this end sends.
    send_key: [u8; 16],
    /// Whether the TUN device is the session's own.
    owns_tun: bool,
}

const A: End = End {
    call_id: CallId(1),
    outer: Ipv4Addr::new(192, 0, 2, 1),
    inner: Ipv4Addr::new(10, 0, 0, 1),
    send_key: *b"from A to B 1234",
    owns_tun: true,
};

const B: End = End {
    call_id: CallId(0xFFFE),
    outer: Ipv4Addr::new(192, 0, 2, 2),
    inner: Ipv4Addr::new(10, 0, 0, 2),
    send_key: *b"from B to A 5678",
    owns_tun: false,
};

/// What a TUN device is opened with.
#[derive(Clone, Copy)]
enum Offload {
    Best,
    None,
}

/// A worker with one session, in a namespace.
struct Side {
    worker: WorkerHandle,
    counters: Arc<SessionCounters>,
}

impl Side {
    /// Starts a worker and installs the session; IP does not flow yet.
    fn start(end: End, peer: End) -> Self {
        let config = WorkerConfig {
            max_sessions: 4,
            slots: 512,
            ..WorkerConfig::default()
        };
        let worker = spawn(config).unwrap();
        let counters = Arc::new(SessionCounters::default());
        let spec = SessionSpec {
            call_id: end.call_id,
            peer: peer.outer,
            local: Some(end.outer),
            peer_call_id: Some(peer.call_id.0),
            role: Role::Both,
            counters: Arc::clone(&counters),
        };
        worker.send(Command::Install(spec)).unwrap();
        Self { worker, counters }
    }

    /// Keys the session and lets IP flow through a TUN device.
    fn open(&self, end: End, peer: End, mode: KeyMode, offload: Offload) {
        let call_id = end.call_id;
        let key = |octets: [u8; 16]| {
            let start_key = StartKey::new(KeyStrength::Bits128, &octets);
            Some(MppeSpec { start_key, mode })
        };
        let TunDevice { fd, name, features } = match offload {
            Offload::Best => tun::open("ppp%d").unwrap(),
            Offload::None => tun::open_plain("ppp%d").unwrap(),
        };
        assert_eq!(name, "ppp0");
        ip(&format!(
            "address add {} peer {} dev ppp0",
            end.inner, peer.inner
        ));
        ip("link set ppp0 mtu 1396");
        let network = NetworkSpec {
            tun: TUN,
            local: end.inner,
            peer: peer.inner,
            compress_protocol: true,
            compress_address_control: true,
            require_encryption: true,
            check_source: true,
        };
        let commands = [
            Command::SetReceiveKey {
                call_id,
                mppe: key(peer.send_key),
            },
            Command::SetSendKey {
                call_id,
                mppe: key(end.send_key),
            },
            Command::AttachTun {
                tun: TUN,
                fd: fd.into(),
                features,
                owner: end.owns_tun.then_some(call_id),
                role: Role::Both,
            },
            Command::OpenNetwork { call_id, network },
        ];
        for command in commands {
            self.worker.send(command).unwrap();
        }
    }

    fn inject(&self, end: End, frame: &'static [u8]) {
        let command = Command::Inject {
            call_id: end.call_id,
            frame: Bytes::from_static(frame),
        };
        self.worker.send(command).unwrap();
    }

    #[track_caller]
    fn notice(&self) -> Notice {
        let begun = Instant::now();
        while begun.elapsed() < WAIT {
            self.worker.clear_notice();
            if let Some(notice) = self.worker.try_recv() {
                return notice;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no notice comes: {:?}", self.worker.io_counters());
    }

    #[track_caller]
    fn expect_punt(&self, end: End, expected: &[u8]) {
        match self.notice() {
            Notice::Punt { call_id, frame } => {
                assert_eq!((call_id, &frame[..]), (end.call_id, expected));
            }
            other => panic!("not a punt: {other:?}"),
        }
    }
}

/// Both ends of a tunnel, open.
struct Tunnel {
    a: (Namespace, Side),
    b: (Namespace, Side),
}

impl Tunnel {
    fn new(mode: KeyMode) -> Self {
        Self::with(mode, Offload::Best)
    }

    /// One end has the best offload that the kernel takes; `offload` is what the other has.
    fn with(mode: KeyMode, offload: Offload) -> Self {
        let (a, b) = (Namespace::new(), Namespace::new());
        a.join(&b);
        let (side_a, side_b) = (a.run(|| Side::start(A, B)), b.run(|| Side::start(B, A)));
        // LCP Echo-Request and Echo-Reply (RFC 1661 5.8), with address and control field.
        let (request, reply) = (
            b"\xFF\x03\xC0\x21\x09\x01\x00\x08\x00\x00\x00\x00",
            b"\xFF\x03\xC0\x21\x0A\x01\x00\x08\x00\x00\x00\x00",
        );
        side_a.inject(A, request);
        side_b.expect_punt(B, request);
        side_b.inject(B, reply);
        side_a.expect_punt(A, reply);
        let side_a = a.run(move || {
            side_a.open(A, B, mode, Offload::Best);
            side_a
        });
        let side_b = b.run(move || {
            side_b.open(B, A, mode, offload);
            side_b
        });
        // The kernel greets the network of a device that comes up, so both must be ready before.
        a.ip("link set ppp0 up");
        b.ip("link set ppp0 up");
        Self {
            a: (a, side_a),
            b: (b, side_b),
        }
    }

    fn assert_nothing_was_dropped(&self) {
        for (_, side) in [&self.a, &self.b] {
            let counters = side.worker.counters();
            for reason in DropReason::ALL {
                // The kernel sends router solicitations (IPv6, which is closed here) and reports to
                // multicast groups through every new device; they have no session.
                if !matches!(reason, DropReason::NetworkClosed | DropReason::NoRoute) {
                    assert_eq!(counters.dropped(reason), 0, "{}", reason.name());
                }
            }
            assert_eq!(side.counters.lost.get(), 0);
            assert_eq!(side.worker.io_counters().commands_refused.get(), 0);
        }
    }

    /// Does what control does when a packet was lost and the keys change only now and then: asks
    /// the other end for a fresh start (RFC 3078 7.2, CCP Reset-Request).
    fn pass_resets_on(&self) {
        for (from, to) in [(&self.a.1, (&self.b.1, B)), (&self.b.1, (&self.a.1, A))] {
            while let Some(notice) = from.worker.try_recv() {
                assert!(matches!(notice, Notice::ResetNeeded { .. }), "{notice:?}");
                let call_id = to.1.call_id;
                to.0.worker.send(Command::ResetSendKey { call_id }).unwrap();
            }
        }
    }

    /// Stops both workers; nothing of them is left.
    fn end(self) {
        for (namespace, side) in [self.a, self.b] {
            namespace.run(move || {
                side.worker.stop();
                assert!(comes_true(|| !ip("-o link").contains("ppp0")));
                assert!(comes_true(|| raw_sockets() == 0));
            });
        }
    }
}

/// Octets that repeat only after 251.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 7 + seed) % 251) as u8).collect()
}

/// UDP packets of every size, echoed by the other end.
fn udp_is_echoed(tunnel: &Tunnel) {
    let echo = tunnel.b.0.run(|| {
        let socket = UdpSocket::bind((B.inner, 7)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            for _ in 0..300 {
                let (len, from) = socket.recv_from(&mut packet).unwrap();
                socket.send_to(&packet[..len], from).unwrap();
            }
        })
    });
    tunnel.a.0.run(|| {
        let socket = UdpSocket::bind((A.inner, 0)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket.connect((B.inner, 7)).unwrap();
        let mut answer = [0; 2048];
        for round in 0..300 {
            // 1368 octets with UDP and IP header fill the MTU.
            let sent = pattern(round * 1368 / 299, round);
            socket.send(&sent).unwrap();
            let len = socket.recv(&mut answer).unwrap();
            assert_eq!(answer[..len], sent, "packet {round}");
        }
    });
    echo.join().unwrap();
}

fn send_and_receive(mut stream: TcpStream, len: usize) {
    stream.set_read_timeout(Some(WAIT * 4)).unwrap();
    let sent = pattern(len, 0);
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == sent, "{} of {len} octets came back", answer.len());
}

/// As much TCP as fills queues and windows, one way and then back.
fn tcp_is_echoed(tunnel: &Tunnel, len: usize) {
    let listener = tunnel.b.0.run(|| TcpListener::bind((B.inner, 7)).unwrap());
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let stream = tunnel.a.0.run(|| TcpStream::connect((B.inner, 7)).unwrap());
    let client = std::thread::spawn(move || send_and_receive(stream, len));
    while !client.is_finished() {
        tunnel.pass_resets_on();
        std::thread::sleep(Duration::from_millis(1));
    }
    client.join().unwrap();
    echo.join().unwrap();
}

#[test]
fn packets_cross_an_encrypted_tunnel_intact_and_then_all_is_gone() {
    if !may_run("tunnel::packets_cross_an_encrypted_tunnel_intact_and_then_all_is_gone") {
        return;
    }
    let tunnel = Tunnel::new(KeyMode::Stateless);
    udp_is_echoed(&tunnel);
    tunnel.assert_nothing_was_dropped();
    let (a, b) = (&tunnel.a.1.counters, &tunnel.b.1.counters);
    assert_eq!(a.sent_packets.get(), b.received_packets.get());
    assert_eq!(b.sent_bytes.get(), a.received_bytes.get());
    assert!(a.received_packets.get() >= 300);
    tunnel.end();
}

#[test]
fn a_stateful_tunnel_carries_tcp() {
    if !may_run("tunnel::a_stateful_tunnel_carries_tcp") {
        return;
    }
    let tunnel = Tunnel::new(KeyMode::Stateful);
    tcp_is_echoed(&tunnel, 4 << 20);
    tunnel.end();
}

#[test]
fn a_stateless_tunnel_carries_tcp() {
    if !may_run("tunnel::a_stateless_tunnel_carries_tcp") {
        return;
    }
    let tunnel = Tunnel::new(KeyMode::Stateless);
    tcp_is_echoed(&tunnel, 16 << 20);
    tunnel.end();
}

/// A counter of TCP in the network namespace of the calling thread.
fn tcp_counter(name: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut rows = table.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let mut fields = names.split(' ').zip(values.split(' '));
    let (_, value) = fields.find(|(field, _)| *field == name).unwrap();
    value.parse().unwrap()
}

/// TCP both ways at the same time; returns segments sent and sent again, of both ends.
fn tcp_crosses_both_ways(tunnel: &Tunnel, len: usize) -> (u64, u64) {
    let listener = tunnel.b.0.run(|| TcpListener::bind((B.inner, 7)).unwrap());
    let carry = move |mut stream: TcpStream, seed: usize| {
        stream.set_read_timeout(Some(WAIT * 4)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            writer.write_all(&pattern(len, seed)).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == pattern(len, 100 - seed), "it came otherwise");
    };
    let other = std::thread::spawn(move || carry(listener.accept().unwrap().0, 1));
    let stream = tunnel.a.0.run(|| TcpStream::connect((B.inner, 7)).unwrap());
    carry(stream, 99);
    other.join().unwrap();
    let [a, b] = [&tunnel.a.0, &tunnel.b.0]
        .map(|namespace| namespace.run(|| (tcp_counter("OutSegs"), tcp_counter("RetransSegs"))));
    (a.0 + b.0, a.1 + b.1)
}

#[test]
fn tcp_crosses_in_trains_both_ways_and_little_is_sent_again() {
    if !may_run("tunnel::tcp_crosses_in_trains_both_ways_and_little_is_sent_again") {
        return;
    }
    let tunnel = Tunnel::new(KeyMode::Stateless);
    let (sent, again) = tcp_crosses_both_ways(&tunnel, 16 << 20);
    println!("{sent} segments, {again} of them again");
    assert!(again * 50 < sent, "{again} of {sent} were sent again");
    for (_, side) in [&tunnel.a, &tunnel.b] {
        let io = side.worker.io_counters();
        assert!(io.trains_read.get() > 0 && io.runs_written.get() > 0);
        assert_eq!((io.split_failed.get(), io.write_failed.get()), (0, 0));
    }
    tunnel.end();
}

#[test]
fn an_end_with_offload_and_one_without_understand_each_other() {
    if !may_run("tunnel::an_end_with_offload_and_one_without_understand_each_other") {
        return;
    }
    let tunnel = Tunnel::with(KeyMode::Stateless, Offload::None);
    tcp_crosses_both_ways(&tunnel, 4 << 20);
    let (a, b) = (
        tunnel.a.1.worker.io_counters(),
        tunnel.b.1.worker.io_counters(),
    );
    assert!(a.trains_read.get() > 0);
    assert_eq!((b.trains_read.get(), b.runs_written.get()), (0, 0));
    tunnel.end();
}

#[test]
fn a_train_of_datagrams_arrives_one_by_one() {
    if !may_run("tunnel::a_train_of_datagrams_arrives_one_by_one") {
        return;
    }
    let tunnel = Tunnel::new(KeyMode::Stateless);
    let receiver = tunnel.b.0.run(|| UdpSocket::bind((B.inner, 7)).unwrap());
    receiver.set_read_timeout(Some(WAIT)).unwrap();
    // 30 datagrams of 1000 octets and one of 500, in one call.
    let sent = pattern(30_500, 3);
    let (train, segment) = (sent.clone(), 1000);
    tunnel.a.0.run(move || {
        let sender = UdpSocket::bind((A.inner, 0)).unwrap();
        setsockopt(&sender, sockopt::UdpGsoSegment, &segment).unwrap();
        sender.send_to(&train, (B.inner, 7)).unwrap();
    });
    let mut datagram = [0; 2048];
    for expected in sent.chunks(1000) {
        let len = receiver.recv(&mut datagram).unwrap();
        assert_eq!(datagram[..len], *expected);
    }
    let io = tunnel.a.1.worker.io_counters();
    if tunnel
        .a
        .0
        .run(|| tun::open("probe%d").unwrap().features.udp)
    {
        assert!(io.trains_read.get() > 0, "the kernel has cut it itself");
    }
    tunnel.end();
}

#[test]
fn a_deleted_device_is_reported_and_the_session_lives_on() {
    if !may_run("tunnel::a_deleted_device_is_reported_and_the_session_lives_on") {
        return;
    }
    let tunnel = Tunnel::new(KeyMode::Stateless);
    tunnel.a.0.ip("link delete ppp0");
    let (side_a, side_b) = (&tunnel.a.1, &tunnel.b.1);
    assert!(matches!(side_a.notice(), Notice::TunLost { tun: TUN }));
    let request = b"\xFF\x03\xC0\x21\x09\x02\x00\x08\x00\x00\x00\x00";
    side_a.inject(A, request);
    side_b.expect_punt(B, request);
    tunnel.end();
}

#[test]
fn a_stopped_worker_says_so_and_takes_no_more_commands() {
    if !may_run("tunnel::a_stopped_worker_says_so_and_takes_no_more_commands") {
        return;
    }
    Namespace::new().run(|| {
        let side = Side::start(A, B);
        side.worker.send(Command::Stop).unwrap();
        assert!(matches!(side.notice(), Notice::Stopped));
        while !side.worker.has_ended() {
            std::thread::yield_now();
        }
        let refused = side.worker.send(Command::Stop);
        assert!(matches!(refused, Err(SendError::Stopped(Command::Stop))));
    });
}

#[test]
fn a_worker_that_cannot_start_says_why() {
    if !may_run("tunnel::a_worker_that_cannot_start_says_why") {
        return;
    }
    Namespace::new().run(|| {
        let start = |config| {
            spawn(config)
                .err()
                .map(|error: StartError| error.to_string())
        };
        let foreign = WorkerConfig {
            local: Some(Ipv4Addr::new(192, 0, 2, 77)),
            ..WorkerConfig::default()
        };
        assert!(start(foreign).is_some_and(|error| error.contains("192.0.2.77")));
        let no_processor = WorkerConfig {
            pin_to: Some(1023),
            ..WorkerConfig::default()
        };
        assert!(start(no_processor).is_some_and(|error| error.contains("processor 1023")));
        let contradiction = WorkerConfig {
            index: 2,
            count: 2,
            ..WorkerConfig::default()
        };
        assert!(start(contradiction).is_some_and(|error| error.contains("index")));
        let pinned_and_marked = WorkerConfig {
            pin_to: Some(0),
            mark: Some(7),
            local: Some(Ipv4Addr::LOCALHOST),
            ..WorkerConfig::default()
        };
        assert_eq!(start(pinned_and_marked), None);
    });
}
