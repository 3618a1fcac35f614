//! A worker allocates before its first packet, and never for one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane::counters::SessionCounters;
use dataplane::io::IoCounters;
use dataplane::limits;
use dataplane::mailbox::Mailbox;
use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::mppe::look_ahead::{Pool, Progress, Workshop};
use dataplane::offload::checksum::Sum;
use dataplane::program::{CallId, Command, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::rate_limit::{Quota, Rate, TrafficLimits};
use dataplane::sys::gre_socket::{self, GreSocketConfig};
use dataplane::sys::probe;
use dataplane::sys::tun::{self, TunDevice};
use dataplane::uring::Uring;
use dataplane::worker::{Flow, Worker, WorkerSpec};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt,
    socket, sockopt,
};

use crate::namespaces::{Namespace, ip, may_run};

/// The system's allocator, counting what each thread takes from it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it is; the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no count any more, and needs none.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SLOTS: u16 = 256;

/// One end of a tunnel from this host to itself: octets 127.0.0.N outside, 10.0.N.1 inside.
fn commands(number: u8, peer: u8, counters: &Arc<SessionCounters>) -> [Command; 6] {
    let call_id = CallId(number.into());
    let outer = |number| Ipv4Addr::new(127, 0, 0, number);
    let inner = |number| Ipv4Addr::new(10, 0, number, 1);
    let mppe = |number: u8| {
        let start_key = StartKey::new(KeyStrength::Bits128, &[number; 16]);
        let mode = KeyMode::Stateless;
        Some(MppeSpec { start_key, mode })
    };
    let TunDevice { fd, name, features } = tun::open("ppp%d").unwrap();
    ip(&format!(
        "address add {} peer 10.9.{number}.1 dev {name}",
        inner(number)
    ));
    ip(&format!("link set {name} up mtu 1396"));
    let network = NetworkSpec {
        tun: TunId(number.into()),
        local: inner(number),
        peer: inner(peer),
        compress_protocol: true,
        compress_address_control: true,
        require_encryption: true,
        check_source: true,
    };
    let spec = SessionSpec {
        call_id,
        peer: outer(peer),
        local: Some(outer(number)),
        peer_call_id: Some(peer.into()),
        role: Role::Both,
        counters: Arc::clone(counters),
    };
    // More than is ever sent here.
    let rate = Some(Rate::new(1 << 40));
    let limits = Box::new(TrafficLimits {
        receive: rate,
        send: rate,
        quota: Quota {
            total_bytes: Some(1 << 40),
            ..Quota::default()
        },
    });
    let (tun, owner) = (network.tun, Some(call_id));
    [
        Command::Install(spec),
        Command::SetReceiveKey {
            call_id,
            mppe: mppe(peer),
        },
        Command::SetSendKey {
            call_id,
            mppe: mppe(number),
        },
        Command::AttachTun {
            tun,
            fd: fd.into(),
            features,
            owner,
            role: Role::Both,
        },
        Command::OpenNetwork { call_id, network },
        Command::SetLimits { call_id, limits },
    ]
}

/// TCP segments of one flow, in order, each an IPv4 packet whose checksum the kernel will fill in.
fn tcp_segments(source: Ipv4Addr, destination: Ipv4Addr) -> [Vec<u8>; 32] {
    std::array::from_fn(|i| {
        let sequence = (i as u32 * 1000).to_be_bytes();
        let mut segment = vec![0, 80, 0, 81];
        segment.extend(sequence);
        segment.extend([0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        segment.extend([7; 1000]);
        let addresses = [source.octets(), destination.octets()].concat();
        let sum = Sum::default().with_pseudo_header(&addresses, 6, segment.len());
        let checksum = sum.with(&segment).finish();
        segment[16..18].copy_from_slice(&checksum);
        let mut packet = vec![0x45, 0, 0, 0, 1, i as u8, 0x40, 0, 64, 6, 0, 0];
        packet.extend(addresses);
        packet.extend(segment);
        packet
    })
}

#[test]
fn packets_cost_no_allocation() {
    if !may_run("allocations::packets_cost_no_allocation") {
        return;
    }
    for looks_ahead in [false, true] {
        Namespace::new().run(move || send_and_count(looks_ahead));
    }
}

/// Sends packets through two sessions, and counts what the worker allocates for them; with
/// `looks_ahead`, also what the preparation of their key streams allocates.
fn send_and_count(looks_ahead: bool) {
    let config = GreSocketConfig {
        index: 0,
        count: 1,
        local: None,
        mark: None,
    };
    let mailbox = Arc::new(Mailbox::new(64, limits::NOTICES_RESERVED + 64).unwrap());
    let counters = Arc::new(IoCounters::default());
    let gre = gre_socket::open(&config).unwrap();
    let (theirs, counted) = (Arc::clone(&mailbox), Arc::clone(&counters));
    let features = probe::probe().unwrap();
    let uring = Uring::new(gre, SLOTS, features, theirs, counted).unwrap();
    let spec = WorkerSpec {
        index: 0,
        count: 1,
        max_sessions: 2,
        slots: Uring::slots(SLOTS),
    };
    let (theirs, counted) = (Arc::clone(&mailbox), Arc::clone(&counters));
    let mut worker = Worker::new(spec, uring, theirs, Arc::default(), counted);
    let workshop = Workshop::new();
    let mut pool = Pool::new(Arc::clone(&workshop));
    if looks_ahead {
        worker.look_ahead_in(workshop);
    }
    let carried = Arc::<SessionCounters>::default();
    let ends = [commands(1, 2, &carried), commands(2, 1, &carried)];
    for command in ends.into_iter().flatten() {
        mailbox.post(command).unwrap();
    }
    // Ends a wait for packets that do not come.
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(30));
        let _ = mailbox.post(Command::Stop);
    });
    let host = UdpSocket::bind("10.0.1.1:4000").unwrap();
    let destination = SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 1), 4000);
    let in_trains = UdpSocket::bind("10.0.1.1:4001").unwrap();
    setsockopt(&in_trains, sockopt::UdpGsoSegment, &1000).unwrap();
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::Raw,
    );
    let raw = raw.unwrap();
    let segments = tcp_segments(Ipv4Addr::new(10, 0, 1, 1), *destination.ip());
    let to_raw = SockaddrIn::from(destination);
    let mut send = |batches: u64| {
        for batch in 0..batches {
            // A session that is found to be ahead is left alone at first.
            for now_ms in [0, limits::PREPARER_REST_MS] {
                while pool.round(10 * batch + now_ms) == Progress::Some {}
            }
            let goal = counters.tun_written.get() + 32 + 32 + 16;
            in_trains.send_to(&[7; 16_000], destination).unwrap();
            for segment in &segments {
                sendto(raw.as_raw_fd(), segment, &to_raw, MsgFlags::empty()).unwrap();
            }
            for _ in 0..32 {
                // Into the first device, and out of the second, to an address of its own.
                host.send_to(&[7; 1000], destination).unwrap();
            }
            while counters.tun_written.get() < goal {
                assert_eq!(
                    worker.turn().unwrap(),
                    Flow::Continue,
                    "packets are missing"
                );
            }
        }
    };
    send(1);
    let before = ALLOCATIONS.get();
    send(100);
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(counters.trains_read.get() > 0 && counters.runs_written.get() > 0);
    assert_eq!(carried.sent_prepared.get() > 0, looks_ahead);
    assert_eq!(carried.received_prepared.get() > 0, looks_ahead);
}
