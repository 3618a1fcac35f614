//! The ring, the GRE socket and TUN devices of a worker on this kernel, without any session.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::namespaces::{Namespace, comes_true, ip, may_run, raw_sockets};
use dataplane::frame::Frame;
use dataplane::io::{Arrivals, Io, IoCounters, Route};
use dataplane::limits;
use dataplane::mailbox::Mailbox;
use dataplane::offload::TunFeatures;
use dataplane::program::{Command, NextHop, Role, TunId};
use dataplane::sys::gre_socket::{self, GreSocketConfig};
use dataplane::sys::packet_socket;
use dataplane::sys::probe::{self, RingFeatures};
use dataplane::sys::tun::{self, TunDevice};
use dataplane::sys::xdp_socket::{self, XdpSocketError};
use dataplane::uring::Uring;
use dataplane::wire::ipv4::{HEADER_LEN, Ipv4Repr};
use nix::sys::socket::{setsockopt, sockopt};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SLOTS: u16 = 256;
const TUN: TunId = TunId(5);

const fn route(peer: Ipv4Addr, local: Option<Ipv4Addr>) -> Route {
    Route {
        peer,
        local,
        next_hop: None,
    }
}

/// The loopback device as the next hop: its Ethernet address is zero.
const NEXT_HOP: NextHop = NextHop {
    interface: 1,
    mac: [0; 6],
    local_mac: None,
    source: LOOPBACK,
    packet_len_max: 600,
};

/// The same for whole frames.
const FRAME_HOP: NextHop = NextHop {
    local_mac: Some([0; 6]),
    ..NEXT_HOP
};

/// A ring with its socket, which has to live in one thread.
struct World {
    uring: Uring,
    arrivals: Arrivals,
    mailbox: Arc<Mailbox>,
    counters: Arc<IoCounters>,
}

impl World {
    fn new(index: u16, count: u16, features: RingFeatures) -> Self {
        let socket = GreSocketConfig {
            index,
            count,
            local: None,
            mark: None,
        };
        let gre = gre_socket::open(&socket).unwrap();
        let mailbox = Arc::new(Mailbox::new(16, limits::NOTICES_RESERVED + 16).unwrap());
        let counters = Arc::new(IoCounters::default());
        let (theirs, counted) = (Arc::clone(&mailbox), Arc::clone(&counters));
        Self {
            uring: Uring::new(gre, SLOTS, features, theirs, counted).unwrap(),
            arrivals: Arrivals::default(),
            mailbox,
            counters,
        }
    }

    fn attach(&mut self, tun: TunId, device: TunDevice) -> bool {
        self.uring
            .attach(tun, device.fd.into(), device.features, Role::Both)
    }

    /// The kernel takes frames from and to its own address for forged unless it is told otherwise.
    fn open_packet_socket(&mut self) {
        for setting in ["accept_local", "route_localnet"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/lo/{setting}"), "1").unwrap();
        }
        self.uring
            .attach_packet_socket(packet_socket::open().unwrap());
    }

    fn attach_xdp_socket(&mut self) -> Result<(), XdpSocketError> {
        let socket = xdp_socket::open().unwrap();
        self.uring.attach_xdp_socket(socket, FRAME_HOP.interface)
    }

    /// The kernel takes a moment to close the socket that has the queue.
    #[track_caller]
    fn attach_xdp_socket_at_last(&mut self) {
        let begun = Instant::now();
        while let Err(error) = self.attach_xdp_socket() {
            assert!(begun.elapsed() < Duration::from_secs(2), "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `is_enough` or for two seconds.
    fn wait_until(&mut self, is_enough: impl Fn(&Self) -> bool) -> bool {
        let begun = Instant::now();
        let mut now_ms = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            now_ms = self
                .uring
                .wait(Some(now_ms + 20), &mut self.arrivals)
                .unwrap();
            if is_enough(self) {
                return true;
            }
        }
        false
    }

    fn send(&mut self, packet: &[u8], local: Option<Ipv4Addr>) {
        self.send_along(packet, route(LOOPBACK, local));
    }

    fn send_to(&mut self, packet: &[u8], next_hop: NextHop) {
        let next_hop = Some(next_hop);
        let route = Route {
            next_hop,
            ..route(LOOPBACK, None)
        };
        self.send_along(packet, route);
    }

    fn send_along(&mut self, packet: &[u8], route: Route) {
        let slot = self.uring.take_slot().expect("a control slot is free");
        let headroom = limits::HEADROOM_BYTES as u16;
        let frame = Frame::new(slot, headroom, packet.len() as u16);
        frame.bytes_mut(&mut self.uring).copy_from_slice(packet);
        self.uring.send(frame, route);
    }

    fn take_gre(&mut self) -> Vec<Vec<u8>> {
        let frames = std::mem::take(&mut self.arrivals.gre);
        let packets = frames.iter().map(|frame| {
            let packet = frame.bytes(&self.uring).to_vec();
            self.uring.release(frame.slot);
            packet
        });
        packets.collect()
    }
}

/// A GRE packet as in RFC 2637 4.1, with sequence number and four octets of payload.
fn gre(call_id: u16, sequence: u32) -> Vec<u8> {
    let mut packet = vec![0x30, 0x01, 0x88, 0x0B, 0, 4];
    packet.extend(call_id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(b"data");
    packet
}

fn features() -> RingFeatures {
    probe::probe().expect("this kernel has io_uring")
}

#[test]
fn gre_crosses_the_socket_from_the_chosen_address_and_without_dont_fragment() {
    if !may_run("ring::gre_crosses_the_socket_from_the_chosen_address_and_without_dont_fragment") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        let (first, second) = (gre(7, 1), gre(8, 2));
        world.send(&first, None);
        world.send(&second, Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert!(world.wait_until(|world| world.arrivals.gre.len() == 2));
        let packets = world.take_gre();
        assert_eq!(
            (&packets[0][20..], &packets[1][20..]),
            (&first[..], &second[..])
        );
        assert_eq!(packets[0][12..16], [127, 0, 0, 1]);
        assert_eq!(packets[1][12..16], [127, 0, 0, 2]);
        for packet in packets {
            assert_eq!(packet[6] & 0x40, 0, "Don't Fragment is set");
        }
    });
}

#[test]
fn each_worker_sees_its_own_calls_alone() {
    if !may_run("ring::each_worker_sees_its_own_calls_alone") {
        return;
    }
    Namespace::new().run(|| {
        let mut worlds: Vec<World> = (0..3).map(|i| World::new(i, 3, features())).collect();
        for world in &mut worlds {
            // Multishot receives begin with the first wait.
            world.wait_until(|_| true);
        }
        for call_id in 0..30 {
            worlds[0].send(&gre(call_id, 0), None);
        }
        // Not ours: version 0, no key, another protocol, and too short for a call ID.
        let mut strangers = [gre(0, 0), gre(0, 0), gre(0, 0), gre(0, 0)];
        strangers[0][1] = 0;
        strangers[1][0] = 0x10;
        strangers[2][3] = 0x0C;
        strangers[3].truncate(7);
        strangers
            .iter()
            .for_each(|packet| worlds[0].send(packet, None));
        worlds[0].send(&gre(33, 0), None);
        for (index, world) in worlds.iter_mut().enumerate() {
            let expected = if index == 0 { 11 } else { 10 };
            world.wait_until(|world| world.arrivals.gre.len() >= expected);
            let packets = world.take_gre();
            let call_ids = packets.iter().map(|p| u16::from_be_bytes([p[26], p[27]]));
            let call_ids: Vec<u16> = call_ids.collect();
            assert_eq!(call_ids.len(), expected, "{call_ids:?}");
            assert!(
                call_ids.iter().all(|id| usize::from(id % 3) == index),
                "{call_ids:?}"
            );
        }
    });
}

#[test]
fn a_flood_beyond_all_buffers_is_received_after_it() {
    if !may_run("ring::a_flood_beyond_all_buffers_is_received_after_it") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        let mut sent = 0;
        // Nothing that arrives is released before all 256 buffers are used up.
        while world.counters.shortages.get() == 0 {
            for _ in 0..100 {
                world.send(&gre(1, sent), None);
                sent += 1;
            }
            world.wait_until(|_| true);
            assert!(sent < 10_000, "a shortage must come");
        }
        let mut received = 0;
        while received < sent {
            received += world.take_gre().len() as u32;
            assert!(received == sent || world.wait_until(|w| !w.arrivals.gre.is_empty()));
        }
        assert_eq!(world.counters.gre_received.get(), u64::from(sent));
        assert_eq!(world.counters.gre_sent.get(), u64::from(sent));
    });
}

#[test]
fn what_the_network_refuses_is_counted_and_its_slot_comes_back() {
    if !may_run("ring::what_the_network_refuses_is_counted_and_its_slot_comes_back") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        let unreachable = Ipv4Addr::new(192, 0, 2, 1);
        for _ in 0..u32::from(limits::CONTROL_SLOTS) * 2 {
            let slot = world.uring.take_slot().expect("slots come back");
            let frame = Frame::new(slot, limits::HEADROOM_BYTES as u16, 16);
            world.uring.send(frame, route(unreachable, None));
            world.wait_until(|_| true);
        }
        let refused = u64::from(limits::CONTROL_SLOTS) * 2;
        assert_eq!(world.counters.send_failed.get(), refused);
    });
}

/// Packets as long as the next hop takes go through the packet socket, longer ones do not.
#[test]
fn packets_to_a_next_hop_leave_in_order_with_a_header_of_their_own() {
    if !may_run("ring::packets_to_a_next_hop_leave_in_order_with_a_header_of_their_own") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        world.open_packet_socket();
        // More than go out at once.
        const COUNT: u32 = 200;
        let packets: Vec<_> = (0..COUNT).map(|sequence| gre(1, sequence)).collect();
        for packet in &packets {
            world.send_to(packet, NEXT_HOP);
        }
        assert!(world.wait_until(|world| world.arrivals.gre.len() == packets.len()));
        let arrived = world.take_gre();
        for (arrived, sent) in arrived.iter().zip(&packets) {
            assert_eq!(&arrived[HEADER_LEN..], sent);
            let header = Ipv4Repr::parse(arrived).expect("a whole packet");
            assert!(header.checksum_holds(arrived));
            assert_eq!((header.source, header.destination), (LOOPBACK, LOOPBACK));
            assert_eq!((arrived[6] & 0x40, arrived[8]), (0, 64));
        }
        let identifications = arrived.iter().map(|it| [it[4], it[5]]);
        let apart: std::collections::BTreeSet<_> = identifications.collect();
        assert_eq!(
            apart.len(),
            packets.len(),
            "each has an identification of its own"
        );
        assert_eq!(world.counters.gre_sent_directly.get(), u64::from(COUNT));

        let mut fits = gre(1, COUNT);
        fits.resize(usize::from(NEXT_HOP.packet_len_max) - HEADER_LEN, 7);
        let mut too_long = gre(1, COUNT + 1);
        too_long.resize(fits.len() + 1, 7);
        world.send_to(&fits, NEXT_HOP);
        world.send_to(&too_long, NEXT_HOP);
        assert!(world.wait_until(|world| world.arrivals.gre.len() == 2));
        assert_eq!(world.counters.gre_sent_directly.get(), u64::from(COUNT) + 1);
        assert_eq!(world.counters.gre_sent.get(), u64::from(COUNT) + 2);
    });
}

/// A device that has gone takes nothing: the raw socket does, and nothing is lost or overtaken.
#[test]
fn what_the_device_refuses_takes_the_raw_socket_and_the_rest_follows_it() {
    if !may_run("ring::what_the_device_refuses_takes_the_raw_socket_and_the_rest_follows_it") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        world.open_packet_socket();
        let gone = NextHop {
            interface: 99,
            ..NEXT_HOP
        };
        let packets: Vec<_> = (0..150).map(|sequence| gre(1, sequence)).collect();
        for (index, packet) in packets.iter().enumerate() {
            let is_refused = (40..50).contains(&index);
            world.send_to(packet, if is_refused { gone } else { NEXT_HOP });
        }
        assert!(world.wait_until(|world| world.arrivals.gre.len() == packets.len()));
        let arrived = world.take_gre();
        let arrived: Vec<_> = arrived.iter().map(|it| it[HEADER_LEN..].to_vec()).collect();
        assert!(arrived == packets, "they are in order");
        assert_eq!(world.counters.gre_sent_directly.get(), 40);
        assert_eq!(world.counters.gre_sent.get(), packets.len() as u64);
        // The next turn tries the device again.
        world.send_to(&packets[0], NEXT_HOP);
        assert!(world.wait_until(|world| world.arrivals.gre.len() == 1));
        assert_eq!(world.counters.gre_sent_directly.get(), 41);
    });
}

/// Many times as many packets as there are slots, so each comes back.
#[test]
fn frames_leave_through_an_xdp_socket_in_order_and_their_slots_come_back() {
    if !may_run("ring::frames_leave_through_an_xdp_socket_in_order_and_their_slots_come_back") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        world.open_packet_socket();
        world.attach_xdp_socket().expect("the queue is free");
        let mut sent = Vec::new();
        for turn in 0..20 {
            for index in 0..100 {
                let packet = gre(1, turn * 100 + index);
                world.send_to(&packet, FRAME_HOP);
                sent.push(packet);
            }
            assert!(world.wait_until(|world| world.arrivals.gre.len() == 100));
            let arrived = world.take_gre();
            for (arrived, sent) in arrived.iter().zip(&sent[sent.len() - 100..]) {
                assert_eq!(&arrived[HEADER_LEN..], sent);
                let header = Ipv4Repr::parse(arrived).expect("a whole packet");
                assert!(header.checksum_holds(arrived));
            }
        }
        assert_eq!(world.counters.gre_sent_by_xdp.get(), 2000);
        assert_eq!(world.counters.gre_sent.get(), 2000);
        // Without an address of its own, the same next hop takes the packet socket.
        world.send_to(&sent[0], NEXT_HOP);
        assert!(world.wait_until(|world| world.arrivals.gre.len() == 1));
        assert_eq!(world.counters.gre_sent_directly.get(), 1);
    });
}

#[test]
fn an_interface_that_goes_down_ends_its_xdp_socket_and_nothing_else() {
    if !may_run("ring::an_interface_that_goes_down_ends_its_xdp_socket_and_nothing_else") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        world.open_packet_socket();
        world.attach_xdp_socket().expect("the queue is free");
        ip("link set lo down");
        for sequence in 0..10 {
            world.send_to(&gre(1, sequence), FRAME_HOP);
        }
        assert!(world.wait_until(|world| !world.arrivals.xdp_lost.is_empty()));
        let (interface, error) = world.arrivals.xdp_lost.pop().expect("it is lost");
        assert_eq!(interface, FRAME_HOP.interface);
        assert_eq!(
            error.raw_os_error(),
            Some(nix::errno::Errno::ENETDOWN as i32)
        );
        assert_eq!(world.counters.send_failed.get(), 10);
        ip("link set lo up");
        world.send_to(&gre(1, 11), FRAME_HOP);
        assert!(world.wait_until(|world| world.arrivals.gre.len() == 1));
        world.take_gre();
        assert_eq!(world.counters.gre_sent_by_xdp.get(), 0);
        // A while later, the slots of those that were not sent are back.
        std::thread::sleep(Duration::from_millis(limits::XDP_RETIRE_MS));
        world.wait_until(|_| true);
        let all = (0..limits::CONTROL_SLOTS).map_while(|_| world.uring.take_slot());
        let all: Vec<_> = all.collect();
        assert_eq!(all.len(), usize::from(limits::CONTROL_SLOTS));
        all.into_iter().for_each(|slot| world.uring.release(slot));
        world.attach_xdp_socket_at_last();
        world.send_to(&gre(1, 12), FRAME_HOP);
        assert!(world.wait_until(|world| world.arrivals.gre.len() == 1));
        assert_eq!(world.counters.gre_sent_by_xdp.get(), 1);
    });
}

#[test]
fn a_queue_has_one_xdp_socket() {
    if !may_run("ring::a_queue_has_one_xdp_socket") {
        return;
    }
    Namespace::new().run(|| {
        let mut first = World::new(0, 2, features());
        let mut second = World::new(1, 2, features());
        first.attach_xdp_socket().expect("the queue is free");
        let refused = second.attach_xdp_socket();
        let interface = FRAME_HOP.interface;
        let is_taken = matches!(
            refused,
            Err(XdpSocketError::QueuesTaken { interface: it }) if it == interface
        );
        assert!(is_taken, "{refused:?}");
        first.uring.detach_xdp_socket(interface);
        second.attach_xdp_socket_at_last();
    });
}

#[test]
fn a_command_ends_the_wait() {
    if !may_run("ring::a_command_ends_the_wait") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        let mailbox = Arc::clone(&world.mailbox);
        for _ in 0..3 {
            let mailbox = Arc::clone(&mailbox);
            let poster = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                mailbox.post(Command::Stop).unwrap();
            });
            // Without the wake-up this would wait for ever.
            world.uring.wait(None, &mut world.arrivals).unwrap();
            poster.join().unwrap();
        }
    });
}

fn open_tun(name: &str, address: &str) -> TunDevice {
    bring_up(tun::open(name).unwrap(), address)
}

fn bring_up(device: TunDevice, address: &str) -> TunDevice {
    ip(&format!("address add {address}/24 dev {}", device.name));
    ip(&format!("link set {} up mtu 1400", device.name));
    device
}

fn is_udp(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4 && packet[9] == 17
}

/// Sends an UDP packet of the host through TUN, and back to where it came from.
fn udp_crosses_tun(features: RingFeatures, device: TunDevice) {
    let mut world = World::new(0, 1, features);
    let device = bring_up(device, "10.9.0.1");
    assert_eq!(device.name, "ppp0");
    assert!(world.attach(TUN, device));
    let host = UdpSocket::bind("10.9.0.1:4000").unwrap();
    host.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    for round in 0..100u32 {
        let payload = round.to_be_bytes().repeat(300);
        host.send_to(&payload, "10.9.0.2:4000").unwrap();
        let mut frame = None;
        let begun = Instant::now();
        while frame.is_none() && begun.elapsed() < Duration::from_secs(2) {
            world.wait_until(|world| !world.arrivals.tun.is_empty());
            // Beside ours there are router solicitations.
            for (tun, arrived) in std::mem::take(&mut world.arrivals.tun) {
                assert_eq!(tun, TUN);
                if is_udp(arrived.bytes(&world.uring)) {
                    frame = Some(arrived);
                } else {
                    world.uring.release(arrived.slot);
                }
            }
        }
        let frame = frame.expect("a packet comes out of TUN");
        assert_eq!(usize::from(frame.start), limits::HEADROOM_BYTES);
        let packet = frame.bytes_mut(&mut world.uring);
        assert_eq!(packet[28..], payload);
        // With the addresses exchanged, and the ports equal, all checksums stay right.
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        world.uring.write(TUN, frame);
        world.wait_until(|_| true);
        let mut answer = [0; 1500];
        let len = host.recv(&mut answer).expect("the packet comes back");
        assert_eq!(answer[..len], payload);
    }
    assert_eq!(world.counters.write_failed.get(), 0);
    world.uring.detach(TUN);
    assert!(
        world.wait_until(|_| !ip("-o link").contains("ppp0")),
        "the device is gone"
    );
    // The name is free again at once, and packets for a detached device are dropped.
    assert_eq!(open_tun("ppp%d", "10.9.0.1").name, "ppp0");
    let slot = world.uring.take_slot().unwrap();
    world.uring.write(TUN, Frame::new(slot, 64, 20));
    assert_eq!(world.counters.write_failed.get(), 1);
}

#[test]
fn udp_crosses_tun_with_multishot_reads() {
    if !may_run("ring::udp_crosses_tun_with_multishot_reads") || !features().read_multishot {
        return;
    }
    Namespace::new().run(|| udp_crosses_tun(features(), tun::open("ppp%d").unwrap()));
}

#[test]
fn udp_crosses_tun_with_single_reads() {
    if !may_run("ring::udp_crosses_tun_with_single_reads") {
        return;
    }
    let older = RingFeatures {
        read_multishot: false,
        ..features()
    };
    Namespace::new().run(move || udp_crosses_tun(older, tun::open("ppp%d").unwrap()));
}

#[test]
fn udp_crosses_a_device_without_offload() {
    if !may_run("ring::udp_crosses_a_device_without_offload") {
        return;
    }
    Namespace::new().run(|| {
        let device = tun::open_plain("ppp%d").unwrap();
        assert_eq!(device.features, TunFeatures::default());
        udp_crosses_tun(features(), device);
    });
}

#[test]
fn trains_for_which_no_slots_are_left_are_cut_when_slots_come_back() {
    if !may_run("ring::trains_for_which_no_slots_are_left_are_cut_when_slots_come_back") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        let device = open_tun("ppp%d", "10.9.0.1");
        if !device.features.udp {
            println!("this kernel has no trains of datagrams");
            return;
        }
        assert!(world.attach(TUN, device));
        let host = UdpSocket::bind("10.9.0.1:4000").unwrap();
        setsockopt(&host, sockopt::UdpGsoSegment, &1000).unwrap();
        // 800 datagrams, for 256 slots.
        for train in 0..20u8 {
            let datagrams = (0..40).map(|index| [train * 10 + index / 4; 1000]);
            let datagrams: Vec<_> = datagrams.collect();
            host.send_to(&datagrams.concat(), "10.9.0.2:4000").unwrap();
        }
        let mut kept = Vec::new();
        let mut came = Vec::new();
        while came.len() < 800 {
            let has_some = world.wait_until(|world| !world.arrivals.tun.is_empty());
            assert!(
                has_some || kept.len() == usize::from(SLOTS),
                "{}",
                came.len()
            );
            for (_, frame) in std::mem::take(&mut world.arrivals.tun) {
                let packet = frame.bytes(&world.uring);
                if is_udp(packet) {
                    assert_eq!(packet.len(), 28 + 1000);
                    came.push(packet[28]);
                }
                kept.push(frame.slot);
            }
            if kept.len() == usize::from(SLOTS) {
                kept.drain(..).for_each(|slot| world.uring.release(slot));
            }
        }
        let expected: Vec<u8> = (0..800u32).map(|index| (index / 4) as u8).collect();
        assert!(came == expected, "they come in another order");
        assert_eq!(world.counters.trains_read.get(), 20);
        assert_eq!(world.counters.split_failed.get(), 0);
    });
}

#[test]
fn a_deleted_device_is_lost_and_one_that_is_down_is_not() {
    if !may_run("ring::a_deleted_device_is_lost_and_one_that_is_down_is_not") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        assert!(world.attach(TUN, open_tun("tun7", "10.9.0.1")));
        ip("link set tun7 down");
        let slot = world.uring.take_slot().unwrap();
        world.uring.write(TUN, Frame::new(slot, 64, 20));
        assert!(world.wait_until(|world| world.counters.write_failed.get() == 1));
        assert!(world.arrivals.tuns_lost.is_empty());
        ip("link delete tun7");
        assert!(world.wait_until(|world| !world.arrivals.tuns_lost.is_empty()));
        assert_eq!(world.arrivals.tuns_lost, [TUN]);
        world.uring.detach(TUN);
        assert!(world.attach(TUN, open_tun("tun7", "10.9.0.1")));
    });
}

#[test]
fn closing_the_ring_closes_socket_and_devices_at_once() {
    if !may_run("ring::closing_the_ring_closes_socket_and_devices_at_once") {
        return;
    }
    Namespace::new().run(|| {
        let mut world = World::new(0, 1, features());
        for (index, name) in ["tun0", "tun1"].into_iter().enumerate() {
            let device = open_tun(name, &format!("10.9.{index}.1"));
            assert!(world.attach(TunId(index as u32), device));
        }
        world.send(&gre(1, 1), None);
        world.wait_until(|_| true);
        drop(world);
        assert!(comes_true(|| !ip("-o link").contains("tun")));
        assert!(comes_true(|| raw_sockets() == 0));
    });
}
