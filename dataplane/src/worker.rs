//! The one loop of the data plane, and nothing else.
//!
//! ```text
//! wait -> commands -> GRE batch -> decap -> TUN writes, punts -> TUN batch -> encap -> sends
//!      -> acknowledgments owed -> reorder time-outs -> notices -> wait
//! ```
//!
//! Everything is taken in batches; nothing here allocates, locks, reads a clock or logs for a
//! packet, except that a punted frame is copied, and those are rare and bounded.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;

use crate::counters::{DropReason, WorkerCounters};
use crate::decap::{Batch, Decided, Verdict, decap, release_expired};
use crate::encap::{Outgoing, acknowledge, encap, encap_control};
use crate::frame::Frame;
use crate::io::{Arrivals, Io, IoCounters, IoError};
use crate::limits;
use crate::mailbox::Mailbox;
use crate::mppe::look_ahead::Workshop;
use crate::program::{CallId, Command, Notice, SessionSpec, TunId};
use crate::punt_budget::PuntBudgets;
use crate::session::{SessionNotice, SessionTable};
use crate::wire::ipv6;

/// A worker: sessions, and the world that their packets come from.
#[derive(Debug)]
pub struct Worker<I: Io> {
    index: u16,
    io: I,
    mailbox: Arc<Mailbox>,
    io_counters: Arc<IoCounters>,
    sessions: SessionTable,
    sessions_left: usize,
    /// A command that waits for a slot; those behind it wait with it.
    stalled: Option<Command>,
    /// In the order of their ids.
    tuns: Vec<Tun>,
    punt_budgets: PuntBudgets,
    workshop: Option<Arc<Workshop>>,
    arrivals: Arrivals,
    decided: Batch,
    outgoing: Vec<Outgoing>,
    now_ms: u64,
    /// There is work left that needs nothing but another turn.
    has_more: bool,
    /// There is work left that needs a slot.
    is_short: bool,
    has_notified: bool,
    is_stopping: bool,
}

/// Whose worker this is and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Which worker, from 0.
    pub index: u16,
    /// Of how many.
    pub count: u16,
    /// Sessions that can be installed at once.
    pub max_sessions: usize,
    /// Slots of the arena: what can arrive in one turn.
    pub slots: usize,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It has been told to stop, and has done what was queued.
    Stop,
}

#[derive(Clone, Copy, Debug)]
struct Tun {
    id: TunId,
    owner: Option<CallId>,
}

impl<I: Io> Worker<I> {
    /// A worker without sessions.
    #[must_use]
    pub fn new(
        spec: WorkerSpec,
        io: I,
        mailbox: Arc<Mailbox>,
        counters: Arc<WorkerCounters>,
        io_counters: Arc<IoCounters>,
    ) -> Self {
        Self {
            index: spec.index,
            io,
            mailbox,
            io_counters,
            sessions: SessionTable::new(spec.index, spec.count, counters),
            sessions_left: spec.max_sessions,
            stalled: None,
            tuns: Vec::with_capacity(limits::TUNS_MAX.min(spec.max_sessions + 1)),
            punt_budgets: PuntBudgets::new(spec.max_sessions),
            workshop: None,
            arrivals: Arrivals::with_capacity(spec.slots, limits::TUNS_MAX),
            decided: Batch::new(),
            outgoing: Vec::with_capacity(limits::BATCH_PACKETS),
            now_ms: 0,
            has_more: false,
            is_short: false,
            has_notified: false,
            is_stopping: false,
        }
    }

    /// Has the key streams of sessions prepared in `workshop` from now on.
    pub fn look_ahead_in(&mut self, workshop: Arc<Workshop>) {
        self.workshop = Some(workshop);
    }

    /// Turns until it is told to stop or cannot go on, and closes everything.
    pub fn run(&mut self) {
        let reason = loop {
            match self.turn() {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        self.io.close();
        if let Some(reason) = reason {
            self.mailbox.notify(Notice::Failed { reason });
        }
    }

    /// Waits once, and does everything that has come.
    ///
    /// # Errors
    /// The worker cannot go on.
    pub fn turn(&mut self) -> Result<Flow, IoError> {
        self.arrivals.clear();
        let deadline_ms = self.next_deadline_ms();
        self.now_ms = self.io.wait(deadline_ms, &mut self.arrivals)?;
        self.io_counters.turns.add(1);
        self.obey_commands();
        self.forget_lost_tuns();
        self.tell_of_lost_xdp();
        self.take_gre();
        self.take_tun();
        self.acknowledge_owed();
        self.release_expired();
        self.pass_notices_on();
        if let Some(workshop) = &self.workshop {
            workshop.wake();
        }
        if self.is_stopping {
            return Ok(Flow::Stop);
        }
        Ok(Flow::Continue)
    }

    /// The world of this worker: a simulator looks at it between turns.
    #[must_use]
    pub const fn io(&self) -> &I {
        &self.io
    }

    /// The world of this worker: a simulator changes it between turns.
    pub const fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// When `turn` has something to do, though nothing arrives: for a simulator's clock.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let sessions = self.sessions.next_deadline_ms();
        match (self.has_more, self.is_short) {
            (true, _) => Some(self.now_ms),
            // A packet that has gone out brings its slot back and ends the wait; should the
            // network take none, this keeps the worker from spinning.
            (false, true) => Some(sessions.map_or(u64::MAX, |ms| ms).min(self.now_ms + 1)),
            (false, false) => sessions,
        }
    }

    fn obey_commands(&mut self) {
        while !self.is_stopping {
            let next = self.stalled.take().or_else(|| self.mailbox.next_command());
            let Some(command) = next else { return };
            self.stalled = self.obey(command);
            if self.stalled.is_some() {
                return;
            }
        }
    }

    /// Does what control says. Gives the command back when it has to wait for a slot.
    fn obey(&mut self, command: Command) -> Option<Command> {
        let done = match command {
            Command::Install(spec) => self.install(&spec),
            Command::SetPeerCallId {
                call_id,
                peer_call_id,
            } => self.with_session(call_id, |s| s.set_peer_call_id(peer_call_id)),
            Command::Inject { call_id, frame } => return self.inject(call_id, frame),
            Command::SetReceiveKey { call_id, mppe } => {
                let session = self.sessions.receiver_mut(call_id);
                let is_set = session.map(|it| it.set_receive_key(mppe.as_ref()));
                is_set.is_some() && self.look_ahead(call_id)
            }
            Command::SetSendKey { call_id, mppe } => {
                let session = self.sessions.sender_mut(call_id);
                let is_set = session.map(|it| it.set_send_key(mppe.as_ref()));
                is_set.is_some() && self.look_ahead(call_id)
            }
            Command::ResetSendKey { call_id } => {
                let session = self.sessions.sender_mut(call_id);
                session.map(|it| it.reset_send_key()).is_some()
            }
            Command::OpenNetwork { call_id, network } => {
                let is_shared = self.owner_of(network.tun).is_some_and(|o| o.is_none());
                self.sessions.open_network(call_id, network, is_shared)
            }
            Command::CloseNetwork { call_id } => self.sessions.close_network(call_id),
            Command::SetIpv6 { call_id, ipv6 } => {
                let session = self.sessions.get(call_id);
                let tun = session.and_then(|session| Some(session.network()?.tun));
                let owner = tun.and_then(|tun| self.owner_of(tun));
                let is_shared = owner.is_some_and(|owner| owner.is_none());
                self.sessions.set_ipv6(call_id, ipv6, is_shared)
            }
            Command::SetNextHop { call_id, next_hop } => {
                self.with_session(call_id, |s| s.set_next_hop(next_hop))
            }
            Command::ClampMss { call_id, mtu } => self.with_session(call_id, |s| s.clamp_mss(mtu)),
            Command::Remove { call_id } => self.remove(call_id),
            Command::AttachTun {
                tun,
                fd,
                features,
                owner,
                role,
            } => {
                let is_attached = self.io.attach(tun, fd, features, role);
                if is_attached && let Err(index) = self.position(tun) {
                    self.tuns.insert(index, Tun { id: tun, owner });
                }
                is_attached
            }
            Command::DetachTun { tun } => {
                self.io.detach(tun);
                self.forget_tun(tun)
            }
            Command::AttachPacketSocket { fd } => {
                self.io.attach_packet_socket(fd);
                true
            }
            Command::AttachXdpSocket { fd, interface } => {
                let attached = self.io.attach_xdp_socket(fd, interface);
                self.tell_of_xdp(interface, attached.map_err(|error| error.to_string()));
                true
            }
            Command::DetachXdpSocket { interface } => {
                self.io.detach_xdp_socket(interface);
                true
            }
            Command::Stop => {
                self.is_stopping = true;
                true
            }
        };
        if !done {
            self.io_counters.commands_refused.add(1);
        }
        None
    }

    fn with_session(
        &mut self,
        call_id: CallId,
        change: impl FnOnce(&mut crate::session::Session),
    ) -> bool {
        self.sessions.get_mut(call_id).map(change).is_some()
    }

    /// Looks ahead for a session that has been keyed, where that is possible.
    fn look_ahead(&mut self, call_id: CallId) -> bool {
        if let Some(workshop) = &self.workshop
            && let Some(session) = self.sessions.get_mut(call_id)
            && !session.look_ahead(workshop)
        {
            self.io_counters.look_ahead_refused.add(1);
        }
        true
    }

    fn install(&mut self, spec: &SessionSpec) -> bool {
        if self.sessions_left == 0 || self.sessions.install(spec).is_err() {
            return false;
        }
        self.sessions_left -= 1;
        self.punt_budgets.open(spec.call_id, self.now_ms);
        true
    }

    fn remove(&mut self, call_id: CallId) -> bool {
        self.decided.clear();
        if !self.sessions.remove(call_id, &mut self.decided) {
            return false;
        }
        self.carry_out();
        self.sessions_left += 1;
        self.punt_budgets.close(call_id);
        true
    }

    fn inject(&mut self, call_id: CallId, bytes: Bytes) -> Option<Command> {
        let fits = bytes.len() <= limits::SLOT_BYTES - limits::HEADROOM_BYTES;
        let Some(session) = self.sessions.sender_mut(call_id).filter(|_| fits) else {
            self.io_counters.commands_refused.add(1);
            return None;
        };
        let Some(slot) = self.io.take_slot() else {
            return Some(Command::Inject {
                call_id,
                frame: bytes,
            });
        };
        let mut frame = Frame::new(slot, limits::HEADROOM_BYTES as u16, bytes.len() as u16);
        frame.bytes_mut(&mut self.io).copy_from_slice(&bytes);
        match encap_control(session, &mut self.io, &mut frame, self.now_ms) {
            Ok(()) => self.io.send(frame, session.route()),
            Err(_) => {
                self.io_counters.commands_refused.add(1);
                self.io.release(slot);
            }
        }
        None
    }

    fn owner_of(&self, tun: TunId) -> Option<Option<CallId>> {
        self.position(tun).ok().map(|index| self.tuns[index].owner)
    }

    fn position(&self, tun: TunId) -> Result<usize, usize> {
        self.tuns.binary_search_by_key(&tun, |t| t.id)
    }

    fn forget_tun(&mut self, tun: TunId) -> bool {
        let index = self.position(tun);
        index.map(|index| self.tuns.remove(index)).is_ok()
    }

    fn forget_lost_tuns(&mut self) {
        while let Some(tun) = self.arrivals.tuns_lost.pop() {
            self.io.detach(tun);
            if self.forget_tun(tun) {
                self.notify(Notice::TunLost { tun });
            }
        }
    }

    fn tell_of_xdp(&mut self, interface: u32, state: Result<(), String>) {
        self.notify(Notice::XdpSocket {
            worker: self.index,
            interface,
            state,
        });
    }

    fn tell_of_lost_xdp(&mut self) {
        while let Some((interface, error)) = self.arrivals.xdp_lost.pop() {
            self.tell_of_xdp(interface, Err(error.to_string()));
        }
    }

    fn take_gre(&mut self) {
        let gre = std::mem::take(&mut self.arrivals.gre);
        for batch in gre.chunks(limits::BATCH_PACKETS) {
            self.decided.clear();
            let (sessions, io) = (&mut self.sessions, &mut self.io);
            decap(sessions, io, batch, &mut self.decided, self.now_ms);
            self.carry_out();
        }
        self.arrivals.gre = gre;
    }

    /// Does with each frame what has been decided; every slot finds its new owner here.
    fn carry_out(&mut self) {
        for &Decided { frame, verdict } in self.decided.as_slice() {
            match verdict {
                Verdict::Deliver { tun, .. } => {
                    self.io.write(tun, frame);
                    continue;
                }
                Verdict::Punt { call_id } => {
                    let has_room = self.mailbox.has_room_for_punt();
                    if has_room && self.punt_budgets.spend(call_id, self.now_ms) {
                        let frame = Bytes::copy_from_slice(frame.bytes(&self.io));
                        let notice = Notice::Punt { call_id, frame };
                        self.has_notified |= self.mailbox.notify(notice);
                    } else {
                        self.io_counters.punts_dropped.add(1);
                    }
                }
                Verdict::Drop(_) | Verdict::Consumed => {}
            }
            self.io.release(frame.slot);
        }
    }

    fn take_tun(&mut self) {
        let arrived = std::mem::take(&mut self.arrivals.tun);
        for batch in arrived.chunks(limits::BATCH_PACKETS) {
            self.outgoing.clear();
            self.route(batch);
            let (sessions, io) = (&mut self.sessions, &mut self.io);
            encap(sessions, io, &mut self.outgoing, self.now_ms);
            self.send_outgoing();
        }
        self.arrivals.tun = arrived;
    }

    /// Finds the session of each packet.
    fn route(&mut self, batch: &[(TunId, Frame)]) {
        // Neighbours come from the same device nearly always.
        let mut latest: Option<(TunId, Option<Option<CallId>>)> = None;
        for &(tun, frame) in batch {
            let owner = match latest {
                Some((same, owner)) if same == tun => owner,
                _ => self.owner_of(tun),
            };
            latest = Some((tun, owner));
            match self.session_of(owner, frame) {
                Ok(call_id) => self.outgoing.push(Outgoing::new(call_id, frame)),
                Err(reason) => {
                    self.sessions.counters().count_drop(reason);
                    self.io.release(frame.slot);
                }
            }
        }
    }

    /// `owner`: whose the device is; without one it is shared; `None` when it is not attached.
    fn session_of(
        &self,
        owner: Option<Option<CallId>>,
        frame: Frame,
    ) -> Result<CallId, DropReason> {
        // Read before the device was detached.
        let owner = owner.ok_or(DropReason::NetworkClosed)?;
        let destination = inner_destination(frame.bytes(&self.io));
        let destination = destination.ok_or(DropReason::BadInnerIp)?;
        let session = owner.or_else(|| match destination {
            IpAddr::V4(address) => self.sessions.by_address(address),
            IpAddr::V6(address) => self.sessions.by_link_local(address),
        });
        session.ok_or(DropReason::NoRoute)
    }

    fn send_outgoing(&mut self) {
        for outgoing in &self.outgoing {
            let session = self.sessions.get(outgoing.call_id);
            match session.filter(|_| outgoing.dropped.is_none()) {
                Some(session) => self.io.send(outgoing.frame, session.route()),
                None => self.io.release(outgoing.frame.slot),
            }
        }
    }

    fn acknowledge_owed(&mut self) {
        self.is_short = self.stalled.is_some();
        while let Some(call_id) = self.sessions.next_owing(self.now_ms) {
            let Some(slot) = self.io.take_slot() else {
                self.is_short = true;
                return;
            };
            let mut frame = Frame::new(slot, limits::HEADROOM_BYTES as u16, 0);
            let session = self.sessions.get_mut(call_id);
            let owed = session.and_then(|session| {
                let is_made = acknowledge(session, &mut self.io, &mut frame);
                is_made.then(|| session.route())
            });
            match owed {
                Some(route) => self.io.send(frame, route),
                None => {
                    self.io.release(slot);
                    return;
                }
            }
        }
    }

    fn release_expired(&mut self) {
        self.decided.clear();
        let (sessions, io) = (&mut self.sessions, &mut self.io);
        self.has_more = release_expired(sessions, io, &mut self.decided, self.now_ms);
        self.carry_out();
    }

    fn pass_notices_on(&mut self) {
        while self.mailbox.has_room() {
            let notice = match self.sessions.next_notice() {
                Some(SessionNotice::ResetNeeded(call_id)) => Notice::ResetNeeded { call_id },
                Some(SessionNotice::MppeLost(call_id)) => Notice::MppeLost { call_id },
                None => break,
            };
            self.notify(notice);
        }
        if std::mem::take(&mut self.has_notified) {
            self.mailbox.wake_control();
        }
    }

    fn notify(&mut self, notice: Notice) {
        // Full though a reserve is kept: control has stopped listening, and nobody is to be told.
        self.has_notified |= self.mailbox.notify(notice);
    }
}

/// Destination address of an IP packet (RFC 791 3.1, RFC 8200 3).
fn inner_destination(packet: &[u8]) -> Option<IpAddr> {
    let header = packet.first_chunk::<20>()?;
    let [.., a, b, c, d] = *header;
    match header[0] >> 4 {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => ipv6::destination(packet).map(IpAddr::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
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
            self.worker.tuns.push(Tun { id: TUN, owner });
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
        a.worker.tuns.push(Tun { id, owner });
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
}
