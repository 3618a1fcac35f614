//! One host's data plane: real workers, whose rings and devices are in memory. With two of them,
//! each carries one direction of every session.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use control::proto::Time;
use dataplane::counters::WorkerCounters;
use dataplane::io::IoCounters;
use dataplane::mailbox::Mailbox;
use dataplane::mppe::look_ahead::{Pool, Workshop};
use dataplane::offload::TunFeatures;
use dataplane::program::{CallId, Command, Notice, Role, TunId};
use dataplane::sim_io::SimIo;
use dataplane::wire::ipv4::{HEADER_LEN, PROTOCOL_GRE};
use dataplane::worker::{Worker, WorkerSpec};

/// Slots for what arrives in one turn, and for what the worker itself sends.
const RECEIVE_SLOTS: u16 = 128;
const CONTROL_SLOTS: u16 = 64;
/// Commands and notices that wait, at most.
const QUEUE_LEN: usize = 1_024;
/// UDP, for probes.
const PROTOCOL_UDP: u8 = 17;

/// One host's data plane.
#[derive(Debug)]
pub struct Plane {
    lanes: Vec<Lane>,
}

/// A worker and the way to it.
#[derive(Debug)]
struct Lane {
    worker: Worker<SimIo>,
    mailbox: Arc<Mailbox>,
    /// What prepares key streams, when the worker looks ahead.
    pool: Option<Pool>,
    /// Orders for which the mailbox has no room yet.
    waiting: VecDeque<Command>,
}

/// What a data plane has for the world after a turn.
#[derive(Debug, Default)]
pub struct Turned {
    /// GRE packets: where to, and what.
    pub sent: Vec<(Ipv4Addr, Vec<u8>)>,
    /// IP packets that came through: the call, and what.
    pub delivered: Vec<(CallId, Vec<u8>)>,
    /// What control must hear.
    pub notices: Vec<Notice>,
}

impl Lane {
    fn new(index: u16, count: u16, sessions_max: usize, looks_ahead: bool) -> Self {
        let mailbox = Mailbox::new(QUEUE_LEN, QUEUE_LEN);
        let mailbox = Arc::new(mailbox.expect("file descriptors are left"));
        let spec = WorkerSpec {
            index,
            count,
            max_sessions: sessions_max,
            slots: usize::from(RECEIVE_SLOTS),
        };
        let mut worker = Worker::new(
            spec,
            SimIo::new(RECEIVE_SLOTS, CONTROL_SLOTS),
            Arc::clone(&mailbox),
            Arc::new(WorkerCounters::default()),
            Arc::new(IoCounters::default()),
        );
        let pool = looks_ahead.then(|| {
            let workshop = Workshop::new();
            worker.look_ahead_in(Arc::clone(&workshop));
            Pool::new(workshop)
        });
        Self {
            worker,
            pool,
            mailbox,
            waiting: VecDeque::new(),
        }
    }

    fn post_waiting(&mut self) {
        while let Some(command) = self.waiting.pop_front() {
            if let Err(command) = self.mailbox.post(command) {
                self.waiting.push_front(command);
                return;
            }
        }
    }

    /// Does everything that there is to do now.
    fn turn(&mut self, now: Time, turned: &mut Turned) {
        self.worker.io_mut().set_now_ms(now.0);
        // The helper gets more or less time, so that some streams are ready and some are not.
        if let Some(pool) = &mut self.pool {
            for _ in 0..now.0 % 5 {
                pool.round(now.0);
            }
        }
        let mut rounds = 0;
        loop {
            self.post_waiting();
            self.worker.turn().expect("memory does not fail");
            rounds += 1;
            assert!(rounds < 1_000, "a worker that never rests");
            let is_done = self.next_deadline().is_none_or(|at| at > now);
            if is_done && self.waiting.is_empty() {
                break;
            }
        }
        let io = self.worker.io_mut();
        let sent = io.take_sent().into_iter();
        let written = io.take_written().into_iter();
        turned.sent.extend(sent.map(|it| (it.peer, it.packet)));
        turned.delivered.extend(written.filter_map(|(tun, packet)| {
            let call_id = CallId(u16::try_from(tun.0).ok()?);
            Some((call_id, packet))
        }));
        let notices = std::iter::from_fn(|| self.mailbox.next_notice());
        turned.notices.extend(notices);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.worker.next_deadline_ms().map(Time)
    }

    fn is_empty(&self) -> bool {
        let io = self.worker.io();
        let slots = usize::from(RECEIVE_SLOTS) + usize::from(CONTROL_SLOTS);
        io.free_slots() == slots && io.tuns().is_empty()
    }
}

impl Plane {
    /// A data plane without sessions, of one worker or of two; `looks_ahead` prepares key streams
    /// between their turns.
    ///
    /// # Panics
    /// When no file descriptor is left.
    #[must_use]
    pub fn new(workers: u16, sessions_max: usize, looks_ahead: bool) -> Self {
        let lane = |index| Lane::new(index, workers, sessions_max, looks_ahead);
        Self {
            lanes: (0..workers).map(lane).collect(),
        }
    }

    /// Takes an order of control about a call, or about its device; it is obeyed in the next turn.
    pub fn obey(&mut self, call_id: CallId, command: Command) {
        if let [alone] = &mut self.lanes[..] {
            alone.waiting.push_back(command);
            return;
        }
        let halves = command.split();
        self.receiver(call_id).waiting.extend(halves.receive);
        self.sender(call_id).waiting.extend(halves.send);
    }

    fn receiver(&mut self, call_id: CallId) -> &mut Lane {
        let index = call_id.receiver(self.lanes.len() as u16);
        &mut self.lanes[usize::from(index)]
    }

    fn sender(&mut self, call_id: CallId) -> &mut Lane {
        let index = call_id.sender(self.lanes.len() as u16);
        &mut self.lanes[usize::from(index)]
    }

    /// Gives a call a TUN device of its own.
    ///
    /// # Panics
    /// When no file descriptor is left.
    pub fn attach(&mut self, call_id: CallId) -> TunId {
        let tun = TunId(call_id.0.into());
        let nothing = std::fs::File::open("/dev/null").expect("file descriptors are left");
        let attach = Command::AttachTun {
            tun,
            fd: Arc::new(OwnedFd::from(nothing)),
            features: TunFeatures::default(),
            owner: Some(call_id),
            role: Role::Both,
        };
        self.obey(call_id, attach);
        tun
    }

    /// A GRE packet comes from the network: to every worker, as a kernel without filters has it.
    pub fn gre_arrives(&mut self, from: Ipv4Addr, to: Ipv4Addr, packet: &[u8]) {
        let packet = ipv4_packet(PROTOCOL_GRE, from, to, packet);
        for lane in &mut self.lanes {
            lane.worker.io_mut().gre_arrives(&packet);
        }
    }

    /// The host sends a datagram through the tunnel.
    pub fn tun_arrives(&mut self, call_id: CallId, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) {
        let packet = ipv4_packet(PROTOCOL_UDP, from, to, payload);
        let tun = TunId(call_id.0.into());
        let sender = self.sender(call_id);
        sender.worker.io_mut().tun_arrives(tun, &packet);
    }

    /// The host sends a datagram through the tunnel, over IPv6.
    ///
    /// # Panics
    /// When the payload is longer than IPv6 can say.
    pub fn tun_arrives_ipv6(
        &mut self,
        call_id: CallId,
        from: Ipv6Addr,
        to: Ipv6Addr,
        payload: &[u8],
    ) {
        let len = u16::try_from(payload.len()).expect("packets are short");
        let [high, low] = len.to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, high, low, PROTOCOL_UDP, 64];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        let tun = TunId(call_id.0.into());
        let sender = self.sender(call_id);
        sender.worker.io_mut().tun_arrives(tun, &packet);
    }

    /// Does everything that there is to do now.
    ///
    /// # Panics
    /// When the worker fails, or finds no end.
    pub fn turn(&mut self, now: Time) -> Turned {
        let mut turned = Turned::default();
        for lane in &mut self.lanes {
            lane.turn(now, &mut turned);
        }
        turned
    }

    /// When there is something to do, though nothing arrives.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.lanes.iter().filter_map(Lane::next_deadline).min()
    }

    /// Nothing is held: no device, and no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }
}

/// An IPv4 packet (RFC 791) without options.
fn ipv4_packet(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(HEADER_LEN + payload.len()).expect("packets are short");
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !((folded & 0xFFFF) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}
