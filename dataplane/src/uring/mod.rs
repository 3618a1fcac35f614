//! The world through io_uring: implements [`Io`] for a worker.
//!
//! Slots are parted once, by what they are for, so that no direction can starve another:
//!
//! ```text
//! 0 .......... receive_slots .......... 2 * receive_slots .. + CONTROL .. + KEPT ... + RING_FRAMES
//! | filled by GRE socket | cut out of TUN reads | the worker's | held     | packet ring |
//! ```
//!
//! GRE arrives through the raw socket or through the packet ring (see `tap`), whichever control
//! has chosen; the raw socket is always open. What a session holds while it waits for an earlier
//! packet moves out of the ring, which cannot go on past a frame that is in use.
//!
//! TUN devices are read into buffers of their own, since a read may bring a whole train of packets
//! (see `reads`). A slot that is released goes back to where it came from. While packets wait
//! to be sent or written, their slots are away, and the kernel queues or drops what would have
//! come into them: back-pressure without a queue of our own.

mod arena;
mod buffers;
mod devices;
mod direct;
mod outbox;
mod outer;
mod reads;
mod ring;
mod runs;
mod sends;
mod setup;
mod standstill;
mod tap;
mod token;
mod wait;
mod xdp;

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};

use self::arena::Arena;
use self::buffers::BufferRing;
use self::devices::{Devices, ReadFailure, SINGLE_READS};
use self::direct::Direct;
use self::outbox::Outbox;
use self::outer::Outer;
use self::reads::Reads;
use self::ring::Ring;
use self::runs::Runs;
use self::tap::Tap;
use self::token::Token;
use self::xdp::Xdp;
use crate::frame::{Frame, Slot, Slots};
use crate::io::{Arrivals, Io, IoCounters, IoError, Route};
use crate::limits;
use crate::mailbox::Mailbox;
use crate::offload::gather::{Gather, Gathered, put_header};
use crate::offload::{TunFeatures, VnetHeader};
use crate::program::{Role, TunId};
use crate::sys::gre_socket;
use crate::sys::packet_ring::PacketRing;
use crate::sys::probe::{RingError, RingFeatures};
use crate::sys::xdp_socket::XdpSocketError;

/// Buffer group of the GRE socket.
const GROUP_GRE: u16 = 0;

/// Buffer group of the TUN devices.
const GROUP_TUN: u16 = 1;

/// GRE packets in one turn from which on the worker counts as busy, and waits for more to come
/// together: with longer batches come longer runs, fewer system calls and fewer wake-ups.
const BUSY_PACKETS: usize = 8;

/// GRE packets in one turn below which it is not busy any more.
const QUIET_PACKETS: usize = 4;

/// Rounds, of `CLOSE_ROUND_NS` each at most, in which what is in flight must end when a worker
/// closes.
const CLOSE_ROUNDS: u32 = 50;

/// See `CLOSE_ROUNDS`.
const CLOSE_ROUND_NS: u64 = 10_000_000;

/// The ring of one worker, with everything that its operations touch.
#[derive(Debug)]
pub struct Uring {
    ring: Ring,
    gre: OwnedFd,
    outer: Outer,
    direct: Direct,
    tap: Tap,
    xdp: Xdp,
    /// Slots that it has done with.
    xdp_done: Vec<Slot>,
    /// Interfaces that have failed, to be told with the next arrivals.
    xdp_lost: Vec<(u32, std::io::Error)>,
    devices: Devices,
    gather: Gather,
    memory: ManuallyDrop<Memory>,
    receive_slots: u16,
    control_free: Vec<Slot>,
    kept_free: Vec<Slot>,
    mailbox: Arc<Mailbox>,
    counters: Arc<IoCounters>,
    has_read_multishot: bool,
    completed: Vec<cqueue::Entry>,
    /// Nothing is taken in.
    is_held: bool,
    is_receiving: bool,
    is_polling: bool,
    is_polling_tap: bool,
    is_busy: bool,
    /// Most of it came through the packet ring.
    is_ring_busy: bool,
    /// Packets that wait to go out through the raw socket together.
    outgoing: Vec<(Frame, Route)>,
    /// Sends that have not completed.
    sends: usize,
    /// Errors since the last packet, and the latest of them.
    receive_errors: (u32, i32),
    /// What the kernel had dropped when it was last asked.
    receive_dropped: u32,
    /// When to look for deleted devices and such drops next.
    check_ms: u64,
    started: Instant,
}

/// What the kernel reads and writes on its own. It is freed only when nothing is in flight.
#[derive(Debug)]
struct Memory {
    gre_buffers: BufferRing,
    reads: Reads,
    runs: Runs,
    outbox: Outbox,
    arena: Arena,
}

impl Uring {
    /// Slots of an arena with so many for each direction, beside the packet ring.
    #[must_use]
    pub const fn slots(receive_slots: u16) -> usize {
        2 * receive_slots as usize + limits::CONTROL_SLOTS as usize + limits::KEPT_SLOTS as usize
    }

    /// Sets up the ring of the calling thread, which alone may use it: `receive_slots` slots, a
    /// power of two, for each direction.
    ///
    /// # Errors
    /// The kernel has no io_uring for us, or not enough memory: see [`RingError`].
    pub fn new(
        gre: OwnedFd,
        receive_slots: u16,
        features: RingFeatures,
        mailbox: Arc<Mailbox>,
        counters: Arc<IoCounters>,
    ) -> Result<Self, RingError> {
        let (slots, frames) = (Self::slots(receive_slots), usize::from(limits::RING_FRAMES));
        let operations = slots + frames + limits::TUNS_MAX + usize::from(limits::READ_BUFFERS);
        let ring = Ring::new(operations)?;
        let gre_buffers = BufferRing::register(&ring.submitter(), GROUP_GRE, receive_slots)?;
        let reads = Reads::new(&ring.submitter(), GROUP_TUN, receive_slots.into())?;
        let memory = Memory {
            gre_buffers,
            reads,
            runs: Runs::new(),
            outbox: Outbox::new(slots),
            arena: Arena::with_ring(slots, frames),
        };
        let reads_wanted = if features.read_multishot {
            1
        } else {
            SINGLE_READS
        };
        let mut uring = Self {
            completed: Vec::with_capacity(ring.completions_max()),
            ring,
            gre,
            outer: Outer::default(),
            direct: Direct::new(),
            tap: Tap::new(),
            xdp: Xdp::new(),
            xdp_done: Vec::with_capacity(slots),
            xdp_lost: Vec::with_capacity(limits::XDP_SOCKETS_MAX),
            devices: Devices::new(reads_wanted),
            gather: Gather::new(),
            memory: ManuallyDrop::new(memory),
            receive_slots,
            control_free: Vec::with_capacity(usize::from(limits::CONTROL_SLOTS)),
            kept_free: Vec::with_capacity(usize::from(limits::KEPT_SLOTS)),
            mailbox,
            counters,
            has_read_multishot: features.read_multishot,
            is_held: false,
            is_receiving: false,
            is_polling: false,
            is_polling_tap: false,
            is_busy: false,
            is_ring_busy: false,
            outgoing: Vec::with_capacity(limits::DIRECT_PACKETS),
            sends: 0,
            receive_errors: (0, 0),
            receive_dropped: 0,
            check_ms: 0,
            started: Instant::now(),
        };
        for slot in (0..slots as u16).map(Slot) {
            uring.release(slot);
        }
        Ok(uring)
    }

    /// Receives through this packet ring too from now on. There is one at most.
    ///
    /// # Errors
    /// It cannot be mapped.
    ///
    /// # Panics
    /// When there is one already.
    pub fn attach_packet_ring(&mut self, ring: PacketRing) -> std::io::Result<()> {
        self.tap.attach(&mut self.memory.arena, ring)
    }

    /// Starts what must always be in flight and is not.
    fn arm(&mut self) {
        self.memory.gre_buffers.publish();
        self.memory.reads.buffers().publish();
        let is_sweeping = self.is_busy && !self.is_ring_busy;
        if !self.is_held
            && !self.is_receiving
            && !is_sweeping
            && self.memory.gre_buffers.has_available()
        {
            let group = self.memory.gre_buffers.group();
            let entry = opcode::RecvMulti::new(Fd(self.gre.as_raw_fd()), group).build();
            // SAFETY: it fills buffers of the group only, which the arena has lent.
            unsafe { self.ring.push(entry, Token::Receive) };
            self.is_receiving = true;
        }
        if !self.is_polling {
            let wake = Fd(self.mailbox.command_fd().as_raw_fd());
            let entry = opcode::PollAdd::new(wake, libc::POLLIN as u32).build();
            // SAFETY: it touches no memory.
            unsafe { self.ring.push(entry, Token::Wake) };
            self.is_polling = true;
        }
        while !self.is_held
            && self.memory.reads.buffers().has_available()
            && let Some((device, fd)) = self.devices.begin_read()
        {
            self.read(device, Fd(fd));
        }
    }

    fn read(&mut self, device: u16, fd: Fd) {
        let group = self.memory.reads.buffers().group();
        let entry = if self.has_read_multishot {
            // The length is that of the buffer that is taken.
            opcode::ReadMulti::new(fd, 0, group).build()
        } else {
            opcode::Read::new(fd, std::ptr::null_mut(), limits::READ_BYTES as u32)
                .buf_group(group)
                .build()
                .flags(io_uring::squeue::Flags::BUFFER_SELECT)
        };
        // SAFETY: it fills buffers of the group only, which the arena has lent.
        unsafe { self.ring.push(entry, Token::Read { device }) };
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Does with every completion what is to be done. Whether there is more than ends of writes.
    fn reap(&mut self, arrivals: &mut Arrivals) -> bool {
        let mut completed = std::mem::take(&mut self.completed);
        self.ring.collect(&mut completed);
        let mut has_news = false;
        for entry in completed.drain(..) {
            let token = Token::from_bits(entry.user_data());
            has_news |= !matches!(token, Some(Token::Write { .. } | Token::WriteRun { .. }));
            match token {
                Some(Token::Receive) => {
                    self.is_receiving &= cqueue::more(entry.flags());
                    self.received(&entry, arrivals);
                }
                Some(Token::Sweep) => self.received(&entry, arrivals),
                Some(Token::Read { device }) => self.have_read(device, &entry, arrivals),
                Some(Token::Send { slot }) => self.sent(slot, entry.result()),
                Some(Token::Write { device, slot }) => {
                    self.written(device, 1, entry.result(), arrivals);
                    self.memory.arena.take_back(slot);
                    self.release(slot);
                }
                Some(Token::WriteRun { device, record }) => {
                    let (slots, count) = self.memory.runs.end(record);
                    self.written(device, count, entry.result(), arrivals);
                    for slot in &slots[..count] {
                        self.memory.arena.take_back(*slot);
                        self.release(*slot);
                    }
                }
                Some(Token::Wake) => {
                    self.is_polling = false;
                    self.mailbox.clear_command();
                }
                Some(Token::Tap) => {
                    self.is_polling_tap = false;
                    if entry.result() & libc::c_int::from(libc::POLLERR) != 0 {
                        self.tap.clear_error();
                    }
                }
                Some(Token::Cancel) | None => {}
            }
        }
        self.completed = completed;
        has_news || !arrivals.tuns_lost.is_empty()
    }

    fn received(&mut self, entry: &cqueue::Entry, arrivals: &mut Arrivals) {
        match self.take_buffer(entry) {
            Ok(frame) => {
                self.receive_errors.0 = 0;
                self.counters.gre_received.add(1);
                arrivals.gre.push(frame);
            }
            Err(libc::ENOBUFS) => self.counters.shortages.add(1),
            Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            Err(errno) => self.receive_errors = (self.receive_errors.0 + 1, errno),
        }
    }

    fn count_receive_drops(&mut self) {
        if let Ok(dropped) = gre_socket::dropped(self.gre.as_fd()) {
            let new = dropped.wrapping_sub(self.receive_dropped);
            self.counters.receive_dropped.add(new.into());
            self.receive_dropped = dropped;
        }
    }

    fn have_read(&mut self, device: u16, entry: &cqueue::Entry, arrivals: &mut Arrivals) {
        let tun = self.devices.tun(device);
        let result = entry.result();
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            let len = usize::try_from(result).unwrap_or(0);
            self.memory.reads.arrive(Slot(buffer), len, tun);
        }
        let failure = (result < 0).then(|| devices::classify_read(-result));
        if !cqueue::more(entry.flags()) {
            let again = failure != Some(ReadFailure::Lost);
            self.devices.end_read(device, again);
        }
        match (tun, failure) {
            (Some((tun, _)), Some(ReadFailure::Lost)) => arrivals.lose(tun),
            (_, Some(ReadFailure::NoBuffer)) => self.counters.shortages.add(1),
            _ => {}
        }
    }

    /// The GRE packet in the buffer that the kernel has used, or the error number.
    fn take_buffer(&mut self, entry: &cqueue::Entry) -> Result<Frame, i32> {
        let result = entry.result();
        let Some(buffer) = cqueue::buffer_select(entry.flags()) else {
            // Without a buffer there is no packet: 0 would say that the socket was shut down.
            return Err(if result < 0 { -result } else { libc::EAGAIN });
        };
        let slot = Slot(buffer);
        self.memory.arena.take_back(slot);
        self.memory.gre_buffers.consume();
        match u16::try_from(result) {
            Ok(len @ 1..) => Ok(Frame::new(slot, limits::HEADROOM_BYTES as u16, len)),
            _ => {
                self.release(slot);
                Err(if result < 0 { -result } else { libc::EAGAIN })
            }
        }
    }

    /// A write of `count` packets has completed.
    fn written(&mut self, device: u16, count: usize, result: i32, arrivals: &mut Arrivals) {
        let tun = self.devices.end_write(device);
        if result < 0 {
            self.counters.write_failed.add(count as u64);
            if let Some(tun) = tun.filter(|_| devices::is_lost_to_write(-result)) {
                arrivals.lose(tun);
            }
        } else {
            self.counters.tun_written.add(count as u64);
            self.counters.runs_written.add(u64::from(count > 1));
        }
    }

    /// Writes what has been joined so far.
    fn flush(&mut self) {
        if let Some(gathered) = self.gather.take(&mut self.memory.arena) {
            match *gathered.frames() {
                [frame] => self.write_one(gathered.tun, frame),
                _ => self.write_run(&gathered),
            }
        }
    }

    fn write_one(&mut self, tun: TunId, frame: Frame) {
        let slot = frame.slot;
        let Some((device, fd)) = self.devices.begin_write(tun) else {
            self.refuse(slot);
            return;
        };
        let packet = self.memory.arena.lend_packet(frame);
        let entry = opcode::Write::new(Fd(fd), packet.as_ptr(), frame.len() as u32).build();
        // SAFETY: the packet is in a slot that the arena has lent until the operation has
        // completed.
        unsafe { self.ring.push(entry, Token::Write { device, slot }) };
    }

    /// A record is free: without one, nothing is joined.
    fn write_run(&mut self, gathered: &Gathered) {
        let frames = gathered.frames();
        let Some((device, fd)) = self.devices.begin_write(gathered.tun) else {
            frames.iter().for_each(|frame| self.refuse(frame.slot));
            return;
        };
        let Memory { runs, arena, .. } = &mut *self.memory;
        let parts = frames
            .iter()
            .map(|frame| (frame.slot, arena.lend_packet(*frame), frame.len()));
        let Some((record, vector, count)) = runs.begin(parts) else {
            unreachable!("a packet was joined though no record was free");
        };
        let entry = opcode::Writev::new(Fd(fd), vector, count).build();
        // SAFETY: the record is in use, and the slots of its parts are lent, until the operation
        // has completed; the records never move.
        unsafe { self.ring.push(entry, Token::WriteRun { device, record }) };
    }

    /// A packet that cannot be written.
    fn refuse(&mut self, slot: Slot) {
        self.counters.write_failed.add(1);
        self.release(slot);
    }
}

impl Io for Uring {
    fn wait(&mut self, deadline_ms: Option<u64>, arrivals: &mut Arrivals) -> Result<u64, IoError> {
        self.flush_direct();
        self.flush_raw();
        self.flush();
        self.arm();
        self.enter(deadline_ms, arrivals)?;
        self.direct.begin_turn();
        self.reap(arrivals);
        arrivals.xdp_lost.append(&mut self.xdp_lost);
        let Memory { reads, arena, .. } = &mut *self.memory;
        let before = arrivals.gre.len();
        self.tap.take(arena, arrivals, &self.counters);
        self.is_ring_busy = arrivals.gre.len() - before >= BUSY_PACKETS;
        let enough = if self.is_busy {
            QUIET_PACKETS
        } else {
            BUSY_PACKETS
        };
        self.is_busy = !self.is_held && arrivals.gre.len() >= enough;
        reads.split(arena, arrivals, &self.counters);
        let (errors, errno) = self.receive_errors;
        if errors > limits::RECEIVE_ERRORS_MAX {
            return Err(IoError::Receive(std::io::Error::from_raw_os_error(errno)));
        }
        let now_ms = self.now_ms();
        self.reap_xdp(now_ms);
        if now_ms >= self.check_ms {
            self.check_ms = now_ms + limits::TUN_CHECK_MS;
            self.devices.look_for_lost(arrivals);
            self.tap.count_drops(&self.counters);
            self.count_receive_drops();
        }
        Ok(now_ms)
    }

    fn take_slot(&mut self) -> Option<Slot> {
        self.control_free.pop()
    }

    fn take_kept_slot(&mut self) -> Option<Slot> {
        self.kept_free.pop()
    }

    fn release(&mut self, slot: Slot) {
        let control_first = 2 * self.receive_slots;
        if self.memory.arena.is_of_ring(slot) {
            self.tap.give_back(&mut self.memory.arena, slot);
        } else if slot.0 >= control_first + limits::CONTROL_SLOTS {
            self.kept_free.push(slot);
        } else if slot.0 >= control_first {
            self.control_free.push(slot);
        } else if slot.0 >= self.receive_slots {
            self.memory.reads.release(slot);
        } else {
            // What is received begins behind the headroom.
            let whole = limits::HEADROOM_BYTES as u16;
            let len = limits::SLOT_BYTES - limits::HEADROOM_BYTES;
            let begin = self
                .memory
                .arena
                .lend_packet(Frame::new(slot, whole, len as u16));
            self.memory.gre_buffers.push(slot, begin, len);
        }
    }

    fn send(&mut self, frame: Frame, route: Route) {
        let arena = &mut self.memory.arena;
        let Some(packet) = self.outer.address(arena, frame, route) else {
            self.send_raw(frame, route);
            return;
        };
        match self.xdp.queue(arena, packet) {
            Some(false) => {}
            Some(true) => self.flush_xdp(),
            None if self.direct.queue(packet) => {
                if self.direct.is_full() {
                    self.flush_direct();
                }
            }
            None => self.send_raw(frame, route),
        }
    }

    fn attach_packet_socket(&mut self, fd: OwnedFd) {
        self.direct.attach(fd);
    }

    fn attach_xdp_socket(&mut self, fd: OwnedFd, interface: u32) -> Result<(), XdpSocketError> {
        self.detach_xdp_socket(interface);
        self.xdp.attach(&self.memory.arena, fd, interface)
    }

    fn detach_xdp_socket(&mut self, interface: u32) {
        self.flush_xdp();
        self.xdp.retire(interface, self.now_ms());
    }

    fn write(&mut self, tun: TunId, mut frame: Frame) {
        let may_join = self.memory.runs.has_free();
        if may_join && self.gather.join(&self.memory.arena, tun, frame) {
            return;
        }
        self.flush();
        let features = self.devices.features(tun).unwrap_or_default();
        if features.vnet_header {
            if self.gather.begin(&self.memory.arena, tun, features, frame) {
                return;
            }
            let header = VnetHeader::default();
            if !put_header(&mut self.memory.arena, &mut frame, header) {
                self.refuse(frame.slot);
                return;
            }
        }
        self.write_one(tun, frame);
    }

    fn attach(&mut self, tun: TunId, fd: Arc<OwnedFd>, features: TunFeatures, role: Role) -> bool {
        self.devices.attach(tun, fd, features, role)
    }

    fn detach(&mut self, tun: TunId) {
        self.flush();
        if let Some(device) = self.devices.detach(tun) {
            let reads = Token::Read { device }.to_bits();
            self.cancel(CancelBuilder::user_data(reads).all());
        }
    }

    fn hold(&mut self, arrivals: &mut Arrivals) -> Result<(), IoError> {
        self.stand_still(arrivals)
    }

    fn resume(&mut self) {
        self.is_held = false;
    }

    fn collect(&mut self, index: u16, count: u16) -> bool {
        gre_socket::listen(self.gre.as_fd(), index, count).is_ok()
    }

    fn close(&mut self) {
        self.flush_direct();
        self.flush_raw();
        self.flush();
        let mut arrivals = Arrivals::default();
        let mut rounds_left = CLOSE_ROUNDS;
        self.xdp.close(self.now_ms());
        let is_sending = |it: &Self| it.sends > 0 || it.xdp.lent() > 0;
        while is_sending(self) && rounds_left > 0 && self.close_round(&mut arrivals) {
            rounds_left -= 1;
        }
        while let Some(tun) = self.devices.any() {
            self.detach(tun);
        }
        self.cancel(CancelBuilder::any());
        rounds_left = CLOSE_ROUNDS;
        while self.ring.in_flight() > 0 && rounds_left > 0 && self.close_round(&mut arrivals) {
            rounds_left -= 1;
        }
    }
}

impl Slots for Uring {
    fn slot(&self, slot: Slot) -> &[u8] {
        self.memory.arena.slot(slot)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.memory.arena.slot_mut(slot)
    }

    fn keep(&mut self, frame: Frame) -> Frame {
        let arena = &mut self.memory.arena;
        if !arena.is_of_ring(frame.slot) {
            return frame;
        }
        let Some(slot) = self.kept_free.pop() else {
            return frame;
        };
        arena.copy(frame, slot);
        self.release(frame.slot);
        Frame { slot, ..frame }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.ring.in_flight() > 0 || self.xdp.lent() > 0 {
            self.close();
        }
        if self.ring.in_flight() > 0 || self.xdp.lent() > 0 {
            // The kernel may still write into this memory: it is given up, never freed.
            return;
        }
        for group in [GROUP_GRE, GROUP_TUN] {
            // It fails only when there is no such group, and then there is nothing to do.
            let _ = self.ring.submitter().unregister_buf_ring(group);
        }
        // SAFETY: this is the only place that drops it, `self` is not used any more, and the
        // kernel has nothing in flight and no buffer left to use.
        unsafe { ManuallyDrop::drop(&mut self.memory) };
    }
}
