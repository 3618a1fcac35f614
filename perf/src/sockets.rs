//! What one packet costs to send, by the kind of socket: the comparison behind the choice of
//! `--fast-path auto`. Nothing but sending is measured, with the way through the cable, which is
//! work of the sending core: the other end drops each packet, as it is for another Ethernet
//! address.

use std::fmt::Write;
use std::fs::File;
use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dataplane::frame::Frame;
use dataplane::io::{Arrivals, Io, IoCounters, Route};
use dataplane::limits::{HEADROOM_BYTES, NOTICES_RESERVED, RECEIVE_SLOTS};
use dataplane::mailbox::Mailbox;
use dataplane::program::NextHop;
use dataplane::sys::gre_socket::{self, GreSocketConfig, IPPROTO_GRE};
use dataplane::sys::{packet_socket, probe, xdp_socket};
use dataplane::uring::Uring;
use dataplane::wire::ipv4::{self, PROTOCOL_GRE};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, SockaddrLike,
    bind, sendmmsg, socket,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespaces::{CLIENT, Namespaces, SERVER};

/// Octets of a GRE packet with an inner packet of 1400.
const PACKET_LEN: usize = 1420;
/// Packets that are handed over together.
const BATCH: usize = 64;
/// Packets that are sent in turn, so that they lie in the cache no better than in a program that
/// makes them.
const PACKETS: usize = 4 * BATCH;
/// Batches in one measurement: a tenth of a second.
const BATCHES: usize = 600;
const ROUNDS: usize = 15;
/// Nobody has it.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0xEE];
const CABLE: &str = "cable-c";

/// One kind of socket.
struct Way {
    name: &'static str,
    /// Sends a batch.
    send: Box<dyn FnMut() -> Result<()>>,
    /// Nanoseconds a packet, of each round.
    samples: Vec<f64>,
}

/// Measures all ways in turn, and prints what a packet costs.
pub(crate) fn compare(work: &Path) -> Result<()> {
    let namespaces = Namespaces::new(work).context(
        "this needs root, or a kernel that lets users make namespaces (unshare -Urnm perf/run ...)",
    )?;
    let client = &namespaces.client;
    let mac = NOBODY.map(|octet| format!("{octet:02x}")).join(":");
    client.ip(&format!(
        "neighbour replace {SERVER} lladdr {mac} dev {CABLE} nud permanent"
    ))?;
    let namespace = File::open(format!("/proc/{}/ns/net", client.pid()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
    let mut ways = all_ways()?;
    for way in &mut ways {
        way.round().with_context(|| way.name)?;
    }
    for _ in 0..ROUNDS {
        for way in &mut ways {
            let ns = way.round().with_context(|| way.name)?;
            way.samples.push(ns);
        }
    }
    print!("{}", table(&mut ways));
    Ok(())
}

fn all_ways() -> Result<Vec<Way>> {
    let mut ways = vec![ours("raw socket, io_uring sendmsg (pptp-fast)", None)?];
    ways.extend(raw_ways()?);
    ways.push(packet_way()?);
    let packet = Some(Fast::Packet);
    ways.push(ours(
        "packet socket, bypassing, sendmmsg (pptp-fast)",
        packet,
    )?);
    match ours("AF_XDP socket, copying (pptp-fast)", Some(Fast::Xdp)) {
        Ok(way) => ways.push(way),
        Err(error) => eprintln!("perf: AF_XDP is left out: {error:#}"),
    }
    Ok(ways)
}

impl Way {
    fn new(name: &'static str, send: impl FnMut() -> Result<()> + 'static) -> Self {
        Self {
            name,
            send: Box::new(send),
            samples: Vec::new(),
        }
    }

    /// Nanoseconds a packet.
    fn round(&mut self) -> Result<f64> {
        let begun = Instant::now();
        for _ in 0..BATCHES {
            (self.send)()?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e9 / (BATCHES * BATCH) as f64)
    }
}

#[derive(Clone, Copy)]
enum Fast {
    Packet,
    Xdp,
}

/// The data plane's own sending.
fn ours(name: &'static str, fast: Option<Fast>) -> Result<Way> {
    let gre = gre_socket::open(&GreSocketConfig {
        index: 0,
        count: 1,
        local: None,
        mark: None,
    })?;
    let counters = Arc::new(IoCounters::default());
    let mailbox = Arc::new(Mailbox::new(16, NOTICES_RESERVED * 2)?);
    let counted = Arc::clone(&counters);
    let mut uring = Uring::new(gre, RECEIVE_SLOTS, probe::probe()?, mailbox, counted)?;
    let (interface, _) = cable()?;
    match fast {
        Some(Fast::Packet) => uring.attach_packet_socket(packet_socket::open()?),
        Some(Fast::Xdp) => uring.attach_xdp_socket(xdp_socket::open()?, interface)?,
        None => {}
    }
    let next_hop = NextHop {
        interface,
        mac: NOBODY,
        local_mac: Some(NOBODY),
        source: CLIENT,
        packet_len_max: 1500,
    };
    let route = Route {
        peer: SERVER,
        local: None,
        next_hop: fast.map(|_| next_hop),
    };
    let mut arrivals = Arrivals::default();
    Ok(Way::new(name, move || {
        let failed = counters.send_failed.get();
        for _ in 0..BATCH {
            let slot = uring.take_slot().context("a slot has not come back")?;
            uring.send(
                Frame::new(slot, HEADROOM_BYTES as u16, PACKET_LEN as u16),
                route,
            );
        }
        uring.wait(Some(0), &mut arrivals)?;
        ensure!(counters.send_failed.get() == failed, "packets are refused");
        Ok(())
    }))
}

fn raw_ways() -> Result<Vec<Way>> {
    let peer = SocketAddrV4::new(SERVER, 0);
    let gre = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_GRE)));
    let packet = vec![0; PACKET_LEN];

    let (to, mut packets) = (gre()?, Packets::new(&packet));
    let one_by_one = Way::new("raw socket, sendto", move || {
        for octets in packets.next_batch() {
            to.send_to(octets, &peer.into())?;
        }
        Ok(())
    });
    let (connected, mut packets) = (gre()?, Packets::new(&packet));
    connected.connect(&peer.into())?;
    let by_connection = Way::new("raw socket, connected, send", move || {
        for octets in packets.next_batch() {
            connected.send(octets)?;
        }
        Ok(())
    });
    let to = Some(SockaddrIn::from(peer));
    let many = many_at_once("raw socket, sendmmsg", gre()?, &packet, to);
    let with_header = gre()?;
    with_header.set_header_included_v4(true)?;
    let packet = ipv4_packet(&packet);
    let name = "raw socket, IP_HDRINCL, sendmmsg";
    let with_header = many_at_once(name, with_header, &packet, to);
    Ok(vec![one_by_one, by_connection, many, with_header])
}

/// Whole frames through the queueing discipline.
fn packet_way() -> Result<Way> {
    let (_, address) = cable()?;
    let family = AddressFamily::Packet;
    let packet = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(packet.as_raw_fd(), &address)?;
    let mut frame = [NOBODY, NOBODY].concat();
    frame.extend([8, 0]);
    frame.extend(ipv4_packet(&vec![0; PACKET_LEN]));
    let name = "packet socket, sendmmsg";
    Ok(many_at_once::<LinkAddr>(name, packet, &frame, None))
}

fn many_at_once<A: SockaddrLike + Copy + 'static>(
    name: &'static str,
    socket: impl AsRawFd + 'static,
    octets: &[u8],
    to: Option<A>,
) -> Way {
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut packets = Packets::new(octets);
    Way::new(name, move || {
        let batch = packets.next_batch().iter();
        let parts: Vec<_> = batch.map(|octets| [IoSlice::new(octets)]).collect();
        let addresses = [to; BATCH];
        let flags = MsgFlags::empty();
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &parts,
            addresses,
            [],
            flags,
        )?;
        ensure!(sent.count() == BATCH, "packets are refused");
        Ok(())
    })
}

/// The packets that are sent.
struct Packets {
    all: Vec<Vec<u8>>,
    next: usize,
}

impl Packets {
    fn new(octets: &[u8]) -> Self {
        Self {
            all: vec![octets.to_vec(); PACKETS],
            next: 0,
        }
    }

    fn next_batch(&mut self) -> &[Vec<u8>] {
        let begin = self.next;
        self.next = (begin + BATCH) % PACKETS;
        &self.all[begin..begin + BATCH]
    }
}

fn ipv4_packet(payload: &[u8]) -> Vec<u8> {
    let len = (ipv4::HEADER_LEN + payload.len()) as u16;
    let header = ipv4::header(len, 1, PROTOCOL_GRE, CLIENT, SERVER);
    [&header[..], payload].concat()
}

/// Index and address of the client's end of the cable.
fn cable() -> Result<(u32, LinkAddr)> {
    for interface in getifaddrs()? {
        let link = interface.address.as_ref().and_then(|it| it.as_link_addr());
        if interface.interface_name == CABLE
            && let Some(link) = link
        {
            return Ok((u32::try_from(link.ifindex())?, *link));
        }
    }
    bail!("no interface {CABLE}")
}

/// The first is what the others are held against.
fn table(ways: &mut [Way]) -> String {
    let mut text = format!(
        "ns a packet of {PACKET_LEN} octets, {BATCH} at once, {ROUNDS} rounds in turn\n\
         {:<48} {:>7} {:>7} {:>7}\n",
        "socket", "median", "lowest", "ratio"
    );
    let mut first = None;
    for way in ways {
        way.samples.sort_by(f64::total_cmp);
        let (median, lowest) = (way.samples[way.samples.len() / 2], way.samples[0]);
        let ratio = *first.get_or_insert(median) / median;
        let name = way.name;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<48} {median:>7.0} {lowest:>7.0} {ratio:>7.2}");
    }
    text
}
