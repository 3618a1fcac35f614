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
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::capture::{Tap, Taps};
use crate::counters::{DropReason, WorkerCounters};
use crate::decap::{Batch, Decided, Verdict, decap, release_expired};
use crate::encap::{Outgoing, acknowledge, encap, encap_control};
use crate::frame::Frame;
use crate::io::{Arrivals, Io, IoCounters, IoError};
use crate::limits;
use crate::mailbox::Mailbox;
use crate::mppe::look_ahead::Workshop;
use crate::program::{CallId, Command, MppeSpec, NetworkSpec, Notice, SessionSpec, TunId};
use crate::punt_budget::PuntBudgets;
use crate::session::{Session, SessionNotice, SessionTable};
use crate::snapshot::SessionSnapshot;
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
    taps: Taps,
    arrivals: Arrivals,
    decided: Batch,
    outgoing: Vec<Outgoing>,
    now_ms: u64,
    /// There is work left that needs nothing but another turn.
    has_more: bool,
    /// There is work left that needs a slot.
    is_short: bool,
    has_notified: bool,
    /// It stands still: see `Command::Export`.
    is_held: bool,
    /// An export that is due at the end of the turn, and whether it is the last.
    export: Option<bool>,
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
    /// See `Command::RouteBySource`.
    by_source: bool,
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
            taps: Taps::new(),
            arrivals: Arrivals::with_capacity(spec.slots, limits::TUNS_MAX),
            decided: Batch::new(),
            outgoing: Vec::with_capacity(limits::BATCH_PACKETS),
            now_ms: 0,
            has_more: false,
            is_short: false,
            has_notified: false,
            is_held: false,
            export: None,
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
        if self.is_held {
            self.ignore_arrivals();
        } else {
            self.take_gre();
            self.take_tun();
            self.acknowledge_owed();
            self.release_expired();
        }
        while let Some(is_last) = self.export.take() {
            self.tell_of_sessions(is_last)?;
            self.obey_commands();
        }
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
        if self.is_held {
            return self.stalled.is_some().then_some(self.now_ms + 1);
        }
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
        while !self.is_stopping && self.export.is_none() {
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
            Command::SetReceiveKey { call_id, mppe } => self.set_receive_key(call_id, mppe),
            Command::SetSendKey { call_id, mppe } => self.set_send_key(call_id, mppe),
            Command::ResetSendKey { call_id } => {
                let session = self.sessions.sender_mut(call_id);
                session.map(Session::reset_send_key).is_some()
            }
            Command::OpenNetwork { call_id, network } => self.open_network(call_id, network),
            Command::CloseNetwork { call_id } => self.sessions.close_network(call_id),
            Command::SetIpv6 { call_id, ipv6 } => {
                let is_shared = self.shares_its_tun(call_id);
                self.sessions.set_ipv6(call_id, ipv6, is_shared)
            }
            Command::SetRoutes { call_id, networks } => {
                let is_shared = self.shares_its_tun(call_id);
                self.sessions.set_networks(call_id, networks, is_shared)
            }
            Command::SetNextHop { call_id, next_hop } => {
                self.with_session(call_id, |s| s.set_next_hop(next_hop))
            }
            Command::ClampMss { call_id, mtu } => self.with_session(call_id, |s| s.clamp_mss(mtu)),
            Command::SetLimits { call_id, limits } => {
                let now_ms = self.now_ms;
                self.with_session(call_id, |s| s.set_limits(&limits, now_ms))
            }
            Command::Capture { call_id, tap } => self.capture(call_id, tap),
            Command::EndCapture { call_id } => {
                self.taps.forget_closed(call_id);
                true
            }
            Command::Remove { call_id } => self.remove(call_id),
            Command::AttachTun {
                tun,
                fd,
                features,
                owner,
                role,
            } => self.io.attach(tun, fd, features, role) && self.note_tun(tun, owner),
            Command::RouteBySource { tun } => self.route_by_source(tun),
            Command::DetachTun { tun } => self.detach_tun(tun),
            Command::AttachPacketSocket { fd } => {
                self.io.attach_packet_socket(fd);
                true
            }
            Command::AttachXdpSocket { fd, interface } => self.attach_xdp_socket(fd, interface),
            Command::DetachXdpSocket { interface } => {
                self.io.detach_xdp_socket(interface);
                true
            }
            Command::Import { call_id, snapshot } => {
                self.import(call_id, &snapshot) && self.look_ahead(call_id)
            }
            Command::Collect => self.collect(),
            Command::Export { is_last } => {
                self.export = Some(is_last);
                true
            }
            Command::Resume { lead } => self.resume(lead),
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

    fn set_receive_key(&mut self, call_id: CallId, mppe: Option<MppeSpec>) -> bool {
        let session = self.sessions.receiver_mut(call_id);
        let is_set = session.map(|it| it.set_receive_key(mppe.as_ref()));
        is_set.is_some() && self.look_ahead(call_id)
    }

    fn set_send_key(&mut self, call_id: CallId, mppe: Option<MppeSpec>) -> bool {
        let session = self.sessions.sender_mut(call_id);
        let is_set = session.map(|it| it.set_send_key(mppe.as_ref()));
        is_set.is_some() && self.look_ahead(call_id)
    }

    fn open_network(&mut self, call_id: CallId, network: NetworkSpec) -> bool {
        let shared = self.tun(network.tun).filter(|tun| tun.owner.is_none());
        let key = shared.map(|tun| match tun.by_source {
            true => network.local,
            false => network.peer,
        });
        self.sessions.open_network_by(call_id, network, key)
    }

    /// Whether packets out of the TUN device of this session have to be told from others'.
    fn shares_its_tun(&self, call_id: CallId) -> bool {
        let session = self.sessions.get(call_id);
        let tun = session.and_then(|session| Some(session.network()?.tun));
        let tun = tun.and_then(|tun| self.tun(tun));
        tun.is_some_and(|tun| tun.owner.is_none())
    }

    fn capture(&mut self, call_id: CallId, tap: Arc<Tap>) -> bool {
        if self.sessions.get(call_id).is_none() {
            tap.end();
            return false;
        }
        self.taps.open(call_id, tap)
    }

    fn note_tun(&mut self, id: TunId, owner: Option<CallId>) -> bool {
        if let Err(index) = self.position(id) {
            let by_source = false;
            let tun = Tun {
                id,
                owner,
                by_source,
            };
            self.tuns.insert(index, tun);
        }
        true
    }

    fn route_by_source(&mut self, tun: TunId) -> bool {
        let tun = self.tuns.iter_mut().find(|it| it.id == tun);
        tun.map(|it| it.by_source = true).is_some()
    }

    fn detach_tun(&mut self, tun: TunId) -> bool {
        self.io.detach(tun);
        self.forget_tun(tun)
    }

    fn attach_xdp_socket(&mut self, fd: OwnedFd, interface: u32) -> bool {
        let attached = self.io.attach_xdp_socket(fd, interface);
        self.tell_of_xdp(interface, attached.map_err(|error| error.to_string()));
        true
    }

    fn collect(&mut self) -> bool {
        let is_done = self.io.collect(self.index, self.sessions.worker_count());
        self.notify(Notice::Collecting);
        is_done
    }

    fn resume(&mut self, lead: u32) -> bool {
        self.sessions.skip(lead);
        self.io.resume();
        self.is_held = false;
        true
    }

    fn with_session(&mut self, call_id: CallId, change: impl FnOnce(&mut Session)) -> bool {
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

    /// Stands still until it is told `Resume`; before the first turn.
    pub fn begin_held(&mut self) {
        // Nothing is in flight that could fail to be taken back.
        self.is_held = self.io.hold(&mut self.arrivals).is_ok();
    }

    /// What comes late to a worker that stands still comes to another process too.
    fn ignore_arrivals(&mut self) {
        let gre = self.arrivals.gre.drain(..);
        for frame in gre.chain(self.arrivals.tun.drain(..).map(|(_, frame)| frame)) {
            self.io.release(frame.slot);
        }
    }

    fn import(&mut self, call_id: CallId, snapshot: &SessionSnapshot) -> bool {
        let io = &mut self.io;
        self.sessions
            .restore(call_id, snapshot, self.now_ms, |octets| {
                let room = limits::SLOT_BYTES - limits::HEADROOM_BYTES;
                if octets.len() > room {
                    return None;
                }
                let slot = io.take_kept_slot()?;
                let frame = Frame::new(slot, limits::HEADROOM_BYTES as u16, octets.len() as u16);
                frame.bytes_mut(io).copy_from_slice(octets);
                Some(frame)
            })
    }

    /// Tells of all sessions, and before the last time comes to a standstill.
    fn tell_of_sessions(&mut self, is_last: bool) -> Result<(), IoError> {
        if is_last && !self.is_held {
            self.is_held = true;
            self.arrivals.clear();
            self.io.hold(&mut self.arrivals)?;
            while !self.arrivals.gre.is_empty() || !self.arrivals.tun.is_empty() {
                self.take_gre();
                self.take_tun();
                self.arrivals.clear();
                // What was to be sent goes out, and nothing is waited for.
                self.now_ms = self.io.wait(Some(0), &mut self.arrivals)?;
                self.forget_lost_tuns();
                self.tell_of_lost_xdp();
            }
        }
        let (worker, sessions) = (self.index, self.sessions.snapshots(&self.io));
        self.notify(Notice::Exported { worker, sessions });
        Ok(())
    }

    fn remove(&mut self, call_id: CallId) -> bool {
        self.decided.clear();
        if !self.sessions.remove(call_id, &mut self.decided) {
            return false;
        }
        self.carry_out();
        self.sessions_left += 1;
        self.punt_budgets.close(call_id);
        self.taps.end(call_id);
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

    fn tun(&self, tun: TunId) -> Option<Tun> {
        self.position(tun).ok().map(|index| self.tuns[index])
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
        self.taps.received(&self.decided, &self.io);
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
            self.taps.sent(&self.outgoing, &self.io);
            let (sessions, io) = (&mut self.sessions, &mut self.io);
            encap(sessions, io, &mut self.outgoing, self.now_ms);
            self.send_outgoing();
        }
        self.arrivals.tun = arrived;
    }

    /// Finds the session of each packet.
    fn route(&mut self, batch: &[(TunId, Frame)]) {
        // Neighbours come from the same device nearly always.
        let mut latest: Option<(TunId, Option<Tun>)> = None;
        for &(id, frame) in batch {
            let tun = match latest {
                Some((same, tun)) if same == id => tun,
                _ => self.tun(id),
            };
            latest = Some((id, tun));
            match self.session_of(tun, frame) {
                Ok(call_id) => self.outgoing.push(Outgoing::new(call_id, frame)),
                Err(reason) => {
                    self.sessions.counters().count_drop(reason);
                    self.io.release(frame.slot);
                }
            }
        }
    }

    /// `tun`: `None` when it is not attached any more.
    fn session_of(&self, tun: Option<Tun>, frame: Frame) -> Result<CallId, DropReason> {
        // Read before the device was detached.
        let tun = tun.ok_or(DropReason::NetworkClosed)?;
        let packet = frame.bytes(&self.io);
        let destination = inner_destination(packet);
        let destination = destination.ok_or(DropReason::BadInnerIp)?;
        let session = tun.owner.or_else(|| match destination {
            IpAddr::V4(_) if tun.by_source => self.sessions.by_address(inner_source(packet)?),
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
                Some(SessionNotice::QuotaSpent(call_id)) => Notice::QuotaSpent { call_id },
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
fn inner_source(packet: &[u8]) -> Option<Ipv4Addr> {
    let [a, b, c, d] = *packet.get(12..)?.first_chunk()?;
    Some(Ipv4Addr::new(a, b, c, d))
}

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
mod tests;
