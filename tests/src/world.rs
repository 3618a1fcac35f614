//! The clock, what is in flight, and the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use control::proto::auth::{Secret, Verdict};
use control::proto::endpoint::EndpointConfig;
use control::proto::link::{Addresses, LinkConfig};
use control::proto::{ConnectionId, Event, Time};
use dataplane::program::{CallId, Notice};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::node::{Node, Request};
use crate::scenario::{Blocked, CLIENT_NAME, Faults, PASSWORD, Scenario};

/// Node 0.
pub const SERVER: usize = 0;
/// Node 1, when there is one client.
pub const CLIENT: usize = 1;

/// Marks IP packets of the simulator, so that an eavesdropper knows them.
const PROBE: &[u8; 16] = b"probe of the sim";
/// More than any run takes for each client: beyond it two hosts keep each other busy for nothing.
const STEPS_MAX_PER_NODE: u64 = 100_000;

/// A network with one server and clients.
#[derive(Debug)]
pub struct World {
    /// The time now.
    pub now: Time,
    /// All hosts; the server first.
    pub nodes: Vec<Node>,
    /// What the network does now.
    pub faults: Faults,
    /// GRE that never arrives.
    pub blocked: Blocked,
    /// Which hosts require encryption.
    requires_encryption: Vec<bool>,
    /// Probes that an eavesdropper could read on the wire.
    overheard: BTreeSet<[u8; 8]>,
    rng: ChaCha12Rng,
    flights: BTreeMap<(Time, u64), Arrival>,
    flights_started: u64,
    streams: Vec<Stream>,
    timers: BTreeSet<(Time, usize)>,
    /// The time under which each host stands in `timers`.
    due: Vec<Option<Time>>,
    verdict_ms_max: u64,
    probes_sent: u64,
    /// Probes that came through, by the node that received them.
    pub probes_delivered: Vec<u64>,
    /// Of them, those over IPv6 are counted here instead.
    pub ipv6_probes_delivered: Vec<u64>,
    steps: u64,
}

/// What will happen.
#[derive(Debug)]
enum Arrival {
    Opened(usize),
    Octets(usize, End, Bytes),
    Closed(usize, End, Option<String>),
    Gre {
        from: Ipv4Addr,
        to: Ipv4Addr,
        packet: Vec<u8>,
    },
    Verdict(usize, CallId, u32, Verdict),
    Addresses(usize, CallId, Addresses),
}

/// One TCP connection.
#[derive(Debug)]
struct Stream {
    node: [usize; 2],
    name: [ConnectionId; 2],
    open: [bool; 2],
    /// When the last octets for this end arrive: later ones come no earlier.
    last: [Time; 2],
}

/// Which end of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Originator = 0,
    Receiver = 1,
}

impl End {
    const fn other(self) -> Self {
        match self {
            Self::Originator => Self::Receiver,
            Self::Receiver => Self::Originator,
        }
    }
}

impl World {
    /// The world of a scenario: a server and one client, nothing dialled yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let mut world = Self::with_clients(
            scenario.seed,
            Arc::clone(&scenario.server),
            1,
            scenario.workers,
        );
        world.faults = scenario.faults;
        world.blocked = scenario.blocked;
        world.verdict_ms_max = scenario.verdict_ms_max;
        let requires = |link: &LinkConfig| link.mppe.is_some_and(|mppe| mppe.require);
        world.requires_encryption = vec![requires(&scenario.server), requires(&scenario.client)];
        world
    }

    /// A server whose links are negotiated so, and `count` clients; the network has no faults.
    /// `workers` are those of the server and of each client.
    #[must_use]
    pub fn with_clients(
        seed: u64,
        server: Arc<LinkConfig>,
        count: usize,
        workers: [u16; 2],
    ) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(!seed);
        let secret = Secret::new(PASSWORD.to_vec());
        let secrets = BTreeMap::from([(CLIENT_NAME.to_owned(), secret)]);
        let server = EndpointConfig {
            link: Some(server),
            host_name: "server.example".to_owned(),
            worker_count: workers[SERVER],
            ..EndpointConfig::default()
        };
        let mut nodes = vec![Node::new(address(SERVER), server, rng.random(), secrets)];
        for index in 1..=count {
            let config = EndpointConfig {
                worker_count: workers[CLIENT],
                ..EndpointConfig::default()
            };
            let secrets = BTreeMap::new();
            nodes.push(Node::new(address(index), config, rng.random(), secrets));
        }
        Self {
            now: Time(rng.random_range(0..1 << 40)),
            faults: Faults::NONE,
            blocked: Blocked::Neither,
            requires_encryption: vec![false; nodes.len()],
            overheard: BTreeSet::new(),
            rng,
            flights: BTreeMap::new(),
            flights_started: 0,
            streams: Vec::new(),
            timers: BTreeSet::new(),
            due: vec![None; nodes.len()],
            verdict_ms_max: 0,
            probes_sent: 0,
            probes_delivered: vec![0; nodes.len()],
            ipv6_probes_delivered: vec![0; nodes.len()],
            nodes,
            steps: 0,
        }
    }

    /// A client dials the server.
    pub fn dial(&mut self, node: usize, link: Arc<LinkConfig>) {
        let server = SocketAddrV4::new(address(SERVER), 1723);
        self.handle(node, Event::Dial { server, link });
    }

    /// Someone at `node` wants every call of it to end.
    pub fn hang_up(&mut self, node: usize) {
        let calls: Vec<CallId> = self.nodes[node].live_calls().collect();
        for call_id in calls {
            let reason = "User request".to_owned();
            self.handle(node, Event::HangUp { call_id, reason });
        }
    }

    /// Everything at `node` is to end.
    pub fn shut_down(&mut self, node: usize) {
        self.handle(node, Event::Shutdown);
    }

    /// Every TCP connection breaks, and what is in flight on it is lost.
    pub fn break_connections(&mut self) {
        self.flights
            .retain(|_, it| !matches!(it, Arrival::Octets(..) | Arrival::Closed(..)));
        for index in 0..self.streams.len() {
            for end in [End::Originator, End::Receiver] {
                let error = Some("connection reset by peer".to_owned());
                self.arrive(Arrival::Closed(index, end, error));
            }
        }
    }

    /// Lets time pass until `is_done`, at most `ms`; whether it was done.
    pub fn run_until(&mut self, ms: u64, mut is_done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.after_ms(ms);
        loop {
            if is_done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return is_done(self);
            }
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// The next thing that happens, at `end` at the latest; false when there is none.
    fn step(&mut self, end: Time) -> bool {
        self.steps += 1;
        let steps_max = STEPS_MAX_PER_NODE * self.nodes.len() as u64;
        assert!(self.steps < steps_max, "livelock");
        let flight = self.flights.keys().next().map(|(at, _)| *at);
        let timer = self.timers.first().copied();
        let at = [flight, timer.map(|(at, _)| at)]
            .into_iter()
            .flatten()
            .min();
        let Some(at) = at.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        if flight == Some(at) {
            if let Some((_, arrival)) = self.flights.pop_first() {
                self.arrive(arrival);
            }
        } else if let Some((_, node)) = timer {
            // The endpoint's or the data plane's: too early is harmless to both.
            self.handle(node, Event::Timeout);
        }
        true
    }

    /// Sees to when a host must be looked at again: its endpoint's time or its data plane's.
    fn reschedule(&mut self, node: usize) {
        let host = &self.nodes[node];
        let times = [host.endpoint.poll_timeout(), host.plane.next_deadline()];
        let due = times.into_iter().flatten().min();
        let before = std::mem::replace(&mut self.due[node], due);
        if let Some(at) = before {
            self.timers.remove(&(at, node));
        }
        if let Some(at) = due {
            self.timers.insert((at, node));
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Opened(index) => self.stream_opened(index),
            Arrival::Octets(index, end, bytes) => {
                let Some((node, connection)) = self.open_end(index, end) else {
                    return;
                };
                let bytes = &bytes;
                self.handle(node, Event::ControlBytes { connection, bytes });
            }
            Arrival::Closed(index, end, error) => {
                let Some((node, connection)) = self.open_end(index, end) else {
                    return;
                };
                self.streams[index].open[end as usize] = false;
                self.handle(node, Event::Disconnected { connection, error });
            }
            Arrival::Gre { from, to, packet } => {
                let Some(node) = self.node_at(to) else {
                    return;
                };
                self.nodes[node].plane.gre_arrives(from, to, &packet);
                self.settle_plane(node);
            }
            Arrival::Verdict(node, call_id, request_id, verdict) => {
                self.handle(
                    node,
                    Event::Verdict {
                        call_id,
                        request_id,
                        verdict,
                    },
                );
            }
            Arrival::Addresses(node, call_id, addresses) => {
                let addresses = Some(addresses);
                self.handle(node, Event::Addresses { call_id, addresses });
            }
        }
    }

    fn open_end(&self, index: usize, end: End) -> Option<(usize, ConnectionId)> {
        let stream = &self.streams[index];
        let end = end as usize;
        stream.open[end].then_some((stream.node[end], stream.name[end]))
    }

    fn stream_opened(&mut self, index: usize) {
        let Some((client, name)) = self.open_end(index, End::Originator) else {
            return;
        };
        self.streams[index].open[End::Receiver as usize] = true;
        let peer = SocketAddrV4::new(self.nodes[client].address, 40_000);
        let connection = self.streams[index].name[End::Receiver as usize];
        self.handle(SERVER, Event::Accepted { connection, peer });
        self.handle(client, Event::Connected { connection: name });
    }

    fn handle(&mut self, node: usize, event: Event<'_>) {
        let requests = self.nodes[node].handle(self.now, event);
        for request in requests {
            self.serve(node, request);
        }
        self.settle_plane(node);
    }

    fn serve(&mut self, node: usize, request: Request) {
        match request {
            Request::Connect(name, server) => {
                assert_eq!(*server.ip(), address(SERVER));
                let index = self.streams.len();
                self.streams.push(Stream {
                    node: [node, SERVER],
                    name: [name, ConnectionId(index as u64)],
                    open: [true, false],
                    last: [self.now; 2],
                });
                let at = self.now.after_ms(self.draw_delay_ms());
                self.fly(at, Arrival::Opened(index));
            }
            Request::Send(name, bytes) => {
                let (index, end) = self.stream_end(node, name);
                self.send_octets(index, end.other(), bytes);
            }
            Request::Close(name) => {
                let (index, end) = self.stream_end(node, name);
                self.streams[index].open[end as usize] = false;
                let at = self.stream_time(index, end.other());
                self.fly(at, Arrival::Closed(index, end.other(), None));
            }
            Request::Judge(call_id, request_id, verdict) => {
                let delay_ms = self.rng.random_range(0..=self.verdict_ms_max);
                let at = self.now.after_ms(delay_ms);
                self.fly(at, Arrival::Verdict(node, call_id, request_id, verdict));
            }
            Request::Assign(call_id, addresses) => {
                let delay_ms = self.rng.random_range(0..=self.verdict_ms_max);
                let at = self.now.after_ms(delay_ms);
                self.fly(at, Arrival::Addresses(node, call_id, addresses));
            }
        }
    }

    fn stream_end(&self, node: usize, name: ConnectionId) -> (usize, End) {
        for (index, stream) in self.streams.iter().enumerate().rev() {
            for end in [End::Originator, End::Receiver] {
                let end_index = end as usize;
                if stream.node[end_index] == node && stream.name[end_index] == name {
                    assert!(stream.open[end_index], "{name:?} was used after its end");
                    return (index, end);
                }
            }
        }
        panic!("node {node} has no connection {name:?}");
    }

    /// Octets stay in order and arrive in pieces.
    fn send_octets(&mut self, index: usize, to: End, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let max = bytes.len().min(self.faults.piece_bytes_max);
            let piece = bytes.split_to(self.rng.random_range(1..=max));
            let at = self.stream_time(index, to);
            self.fly(at, Arrival::Octets(index, to, piece));
        }
    }

    fn stream_time(&mut self, index: usize, to: End) -> Time {
        let at = self.now.after_ms(self.draw_delay_ms());
        let last = &mut self.streams[index].last[to as usize];
        *last = at.max(*last);
        *last
    }

    /// Lets a data plane turn, and takes what it has for the network and for control; again until
    /// control has nothing to answer.
    fn settle_plane(&mut self, node: usize) {
        let from = self.nodes[node].address;
        let turned = self.nodes[node].plane.turn(self.now);
        for (to, packet) in turned.sent {
            self.send_gre(from, to, &packet);
        }
        for (call_id, packet) in turned.delivered {
            let record = self.nodes[node].live_record(call_id);
            let is_ipv6 = packet[0] >> 4 == 6;
            let is_up =
                record.is_some_and(|it| it.network.is_some() && (!is_ipv6 || it.ipv6.is_some()));
            assert!(is_up, "IP came through before the network was up");
            let number = probe_number(&packet).expect("what was sent comes through");
            let is_clear = self.overheard.contains(&number);
            let refuses = self.requires_encryption[node];
            assert!(!(is_clear && refuses), "IP in the clear was let in");
            let delivered = if is_ipv6 {
                &mut self.ipv6_probes_delivered
            } else {
                &mut self.probes_delivered
            };
            delivered[node] += 1;
            self.handle(
                node,
                Event::Alive {
                    call_id,
                    has_traffic: true,
                },
            );
        }
        for notice in turned.notices {
            match notice {
                Notice::Punt { call_id, frame } => {
                    let frame = &frame;
                    self.handle(node, Event::Frame { call_id, frame });
                }
                Notice::ResetNeeded { call_id } => {
                    self.handle(node, Event::ResetNeeded { call_id });
                }
                Notice::MppeLost { call_id } => self.handle(node, Event::MppeLost { call_id }),
                other => panic!("unexpected: {other:?}"),
            }
        }
        self.reschedule(node);
    }

    fn send_gre(&mut self, from: Ipv4Addr, to: Ipv4Addr, packet: &[u8]) {
        if let Some(number) = probe_number(packet) {
            let sender = self.node_at(from);
            let refuses = sender.is_some_and(|node| self.requires_encryption[node]);
            assert!(!refuses, "IP in the clear was let out");
            self.overheard.insert(number);
        }
        let is_blocked = match self.blocked {
            Blocked::Neither => false,
            Blocked::ToClient => from == address(SERVER),
            Blocked::Both => true,
        };
        if is_blocked || self.draw_percent(self.faults.loss_percent) {
            return;
        }
        let copies = 1 + u32::from(self.draw_percent(self.faults.duplicate_percent));
        for _ in 0..copies {
            let at = self.now.after_ms(self.draw_delay_ms());
            let packet = packet.to_vec();
            self.fly(at, Arrival::Gre { from, to, packet });
        }
    }

    /// Both ends of every tunnel send an IPv4 packet and an IPv6 packet, whether it is up or not.
    pub fn send_probes(&mut self) {
        for node in 0..self.nodes.len() {
            let calls: Vec<CallId> = self.nodes[node].live_calls().collect();
            for call_id in calls {
                let packet = self.next_probe();
                let ipv6_packet = self.next_probe();
                let record = self.nodes[node].live_record(call_id);
                let ipv6 = record.and_then(|record| record.ipv6);
                let network = record.and_then(|record| record.network.as_ref());
                let nobody = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
                let (from, to) = network.map_or(nobody, |it| (it.local, it.remote));
                let plane = &mut self.nodes[node].plane;
                plane.tun_arrives(call_id, from, to, &packet);
                let (from, to) = ipv6
                    .map_or((Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED), |it| {
                        (it.local.link_local(), it.remote.link_local())
                    });
                plane.tun_arrives_ipv6(call_id, from, to, &ipv6_packet);
            }
            self.settle_plane(node);
        }
    }

    fn next_probe(&mut self) -> Vec<u8> {
        self.probes_sent += 1;
        [&PROBE[..], &self.probes_sent.to_be_bytes()].concat()
    }

    /// Nothing is left anywhere.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_empty(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let endpoint = &node.endpoint;
            assert_eq!(endpoint.calls().count(), 0, "calls are left at {index}");
            assert_eq!(endpoint.connection_count(), 0, "connections, at {index}");
            assert_eq!(endpoint.poll_timeout(), None, "a timer, at {index}");
            assert!(node.plane.is_empty(), "slots or devices, at {index}");
            for (call_id, record) in &node.calls {
                assert!(record.ending.is_some(), "{call_id:?} never ended");
            }
        }
        let open = |stream: &Stream| stream.open.contains(&true);
        assert!(!self.streams.iter().any(open), "a TCP connection is open");
    }

    fn node_at(&self, address: Ipv4Addr) -> Option<usize> {
        let [_, _, high, low] = address.octets();
        let index = usize::from(u16::from_be_bytes([high, low]));
        let node = self.nodes.get(index)?;
        (node.address == address).then_some(index)
    }

    fn fly(&mut self, at: Time, arrival: Arrival) {
        self.flights_started += 1;
        self.flights.insert((at, self.flights_started), arrival);
    }

    fn draw_delay_ms(&mut self) -> u64 {
        self.faults.delay_ms + self.rng.random_range(0..=self.faults.jitter_ms)
    }

    fn draw_percent(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }
}

/// The number of the probe that can be read in these octets.
fn probe_number(octets: &[u8]) -> Option<[u8; 8]> {
    let at = octets.windows(PROBE.len()).position(|it| it == PROBE)?;
    octets.get(at + PROBE.len()..)?.first_chunk().copied()
}

fn address(node: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(node).unwrap_or(u16::MAX).to_be_bytes();
    Ipv4Addr::new(192, 168, high, low)
}
