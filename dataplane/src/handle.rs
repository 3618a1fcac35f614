//! One worker as control sees it: start it, send it commands, read its notices, stop it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Pid, gettid};

use crate::counters::WorkerCounters;
use crate::impairment::{Impaired, Impairment};
use crate::io::{Io, IoCounters};
use crate::limits;
use crate::mailbox::Mailbox;
use crate::mppe::look_ahead::{Pool, Workshop};
use crate::program::{Command, Notice};
use crate::sys::affinity::{AffinityError, pin_current_thread};
use crate::sys::capabilities::Keep;
use crate::sys::gre_socket::{self, GreSocketConfig, GreSocketError};
use crate::sys::packet_ring::{self, Gate};
use crate::sys::priority::{idle_current_thread, raise_current_thread};
use crate::sys::probe::{RingError, probe};
use crate::uring::Uring;
use crate::worker::{Worker, WorkerSpec};

/// What a worker is to be like. Everything is allocated from it at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Which worker this is, from 0. It owns the calls with call ID modulo `count` = `index`.
    pub index: u16,
    /// How many workers there are, 1 or more.
    pub count: u16,
    /// Processor to run on alone, counted from 0.
    pub pin_to: Option<usize>,
    /// Run ahead of ordinary programs on the same processor, where that is permitted.
    pub is_urgent: bool,
    /// Prepare key streams in a thread of its own, which takes only time that nobody else wants.
    pub look_ahead: bool,
    /// Which capabilities its threads keep when everything is open.
    pub keep: Keep,
    /// Outer address of this host; only what is sent to it is received.
    pub local: Option<Ipv4Addr>,
    /// Firewall mark of the GRE packets that are sent.
    pub mark: Option<u32>,
    /// Send GRE packets with Don't Fragment: to measure the path.
    pub dont_fragment: bool,
    /// Packets that the worker can hold at once in each direction, 2048 octets each: a power of
    /// two in `limits::RECEIVE_SLOTS_RANGE`.
    pub slots: u16,
    /// Open a packet ring beside the GRE socket. It takes nothing in until its gate is opened.
    pub wants_packet_ring: bool,
    /// Stand still, with a GRE socket that queues nothing, until it is told `Collect` and `Resume`.
    pub is_held: bool,
    /// Sessions that can be installed at once.
    pub max_sessions: usize,
    /// Commands that can wait.
    pub commands: usize,
    /// Notices that can wait; beyond them punted frames are dropped.
    pub notices: usize,
    /// Lose and reorder GRE packets on purpose.
    pub impairment: Impairment,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            index: 0,
            count: 1,
            pin_to: None,
            is_urgent: false,
            look_ahead: false,
            keep: Keep::All,
            local: None,
            mark: None,
            dont_fragment: false,
            slots: limits::RECEIVE_SLOTS,
            wants_packet_ring: false,
            is_held: false,
            max_sessions: 1024,
            commands: 4096,
            notices: 4096,
            impairment: Impairment::default(),
        }
    }
}

/// Why a worker did not start. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("worker configuration: {0}")]
    Config(&'static str),
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No GRE socket.
    #[error(transparent)]
    Socket(#[from] GreSocketError),
    /// The processor to run on cannot be had.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// No descriptor or no thread left.
    #[error("cannot {action}: {source}")]
    Resource {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The command was not taken; it is given back.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// As many commands wait as `WorkerConfig::commands` allows: try again later.
    #[error("the worker's command queue is full")]
    QueueFull(Command),
    /// The worker has ended.
    #[error("the worker has ended")]
    Stopped(Command),
}

/// A running worker. Dropping it ends the thread and closes its socket, ring and TUN devices.
#[derive(Debug)]
pub struct WorkerHandle {
    index: u16,
    mailbox: Arc<Mailbox>,
    counters: Arc<WorkerCounters>,
    io_counters: Arc<IoCounters>,
    gate: Option<GateResult>,
    thread: Option<JoinHandle<()>>,
    thread_id: Pid,
}

/// What becomes of the wish for a packet ring: control's end of it, or why there is none, in words.
pub type GateResult = Result<Gate, String>;

/// What a worker says of itself when it has opened everything.
struct Ready {
    gate: Option<GateResult>,
    thread_id: Pid,
}

/// Starts a worker: opens its GRE socket and its ring in the network namespace of the calling
/// thread, and runs it in a thread named `pptp-worker-N`, which takes no signal.
///
/// # Errors
/// What could not be opened, as [`StartError`]; nothing is left behind then.
pub fn spawn(config: WorkerConfig) -> Result<WorkerHandle, StartError> {
    check(&config)?;
    let index = config.index;
    let mailbox = Mailbox::new(config.commands, config.notices);
    let mailbox = Arc::new(mailbox.map_err(resource("make an eventfd"))?);
    let mut handle = WorkerHandle {
        index,
        mailbox: Arc::clone(&mailbox),
        counters: Arc::default(),
        io_counters: Arc::default(),
        gate: None,
        thread: None,
        thread_id: Pid::from_raw(0),
    };
    let (counters, io_counters) = (handle.counters(), handle.io_counters());
    let (started, has_started) = sync_channel(1);
    handle.thread = Some(spawn_without_signals(index, move || {
        run(&config, &mailbox, counters, io_counters, &started);
    })?);
    // When it could not start it is on its way out; dropping the handle waits for that.
    let silent = "its thread ended before it had said whether it could start";
    let has_started = has_started.recv();
    let ready = has_started
        .unwrap_or_else(|_| Err(resource("start the worker")(io::Error::other(silent))))?;
    handle.gate = ready.gate;
    handle.thread_id = ready.thread_id;
    Ok(handle)
}

impl WorkerHandle {
    /// Which worker this is, from 0.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its thread, for the kernel.
    #[must_use]
    pub fn thread_id(&self) -> Pid {
        self.thread_id
    }

    /// Queues a command and wakes the worker. Commands take effect in this order.
    ///
    /// # Errors
    /// The queue is full, or the worker has ended; the command comes back.
    pub fn send(&self, command: Command) -> Result<(), SendError> {
        if self.has_ended() {
            return Err(SendError::Stopped(command));
        }
        self.mailbox.post(command).map_err(SendError::QueueFull)
    }

    /// The next notice, in the order in which they happened.
    #[must_use]
    pub fn try_recv(&self) -> Option<Notice> {
        self.mailbox.next_notice()
    }

    /// Readable when there are notices: for the poller of control's runtime. When it is, call
    /// [`Self::clear_notice`] and then [`Self::try_recv`] until it is empty, in this order.
    #[must_use]
    pub fn notice_fd(&self) -> BorrowedFd<'_> {
        self.mailbox.notice_fd()
    }

    /// Makes [`Self::notice_fd`] unreadable until the next notice.
    pub fn clear_notice(&self) {
        self.mailbox.clear_notice();
    }

    /// What the worker has dropped, live.
    #[must_use]
    pub fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    /// What the worker's input and output met, live.
    #[must_use]
    pub fn io_counters(&self) -> Arc<IoCounters> {
        Arc::clone(&self.io_counters)
    }

    /// Control's end of the packet ring, once, when one was wanted.
    pub fn take_gate(&mut self) -> Option<GateResult> {
        self.gate.take()
    }

    /// The thread is gone: it was stopped, or has failed (then a `Notice::Failed` is waiting).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the worker do what is queued, ends it and waits until it is gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.mailbox.end();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn check(config: &WorkerConfig) -> Result<(), StartError> {
    if config.index >= config.count {
        return Err(StartError::Config("index must be less than count"));
    }
    if !config.slots.is_power_of_two() || !limits::RECEIVE_SLOTS_RANGE.contains(&config.slots) {
        let message = "slots must be a power of two from 256 to 16384";
        return Err(StartError::Config(message));
    }
    if config.max_sessions == 0 || config.max_sessions > 65536 {
        return Err(StartError::Config("max_sessions must be from 1 to 65536"));
    }
    if config.commands == 0 || config.notices < limits::NOTICES_RESERVED * 2 {
        let message = "commands must be at least 1, notices at least 128";
        return Err(StartError::Config(message));
    }
    Ok(())
}

fn resource(action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Resource { action, source }
}

/// Signals are for control: the mask is set around the start, since a thread inherits it, and no
/// signal can find the new thread without it.
fn spawn_without_signals(
    index: u16,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| resource("block signals")(errno.into()))?;
    let spawned = Builder::new()
        .name(format!("pptp-worker-{index}"))
        .spawn(body);
    before
        .thread_set_mask()
        .map_err(|errno| resource("restore signals")(errno.into()))?;
    spawned.map_err(resource("start a thread"))
}

/// The body of the thread: opens everything here, since the ring belongs to the thread that opens
/// it, says whether that went well, and works.
fn run(
    config: &WorkerConfig,
    mailbox: &Arc<Mailbox>,
    counters: Arc<WorkerCounters>,
    io_counters: Arc<IoCounters>,
    started: &SyncSender<Result<Ready, StartError>>,
) {
    let helper = config.look_ahead.then(|| Helper::start(config));
    let opened = open(config, mailbox, &io_counters).and_then(|it| {
        let given_up = config.keep.give_up_others();
        given_up.map_err(resource("go on with less"))?;
        Ok((it.0, it.1, helper.transpose()?))
    });
    let (uring, gate, helper) = match opened {
        Ok(all) => all,
        Err(error) => {
            // Whoever started the thread waits for this.
            let _ = started.send(Err(error));
            return;
        }
    };
    let spec = WorkerSpec {
        index: config.index,
        count: config.count,
        max_sessions: config.max_sessions,
        slots: Uring::slots(config.slots),
    };
    let goodbye = Goodbye(Arc::clone(mailbox));
    let workshop = helper.as_ref().map(|helper| Arc::clone(&helper.workshop));
    let thread_id = gettid();
    let _ = started.send(Ok(Ready { gate, thread_id }));
    let mailbox = Arc::clone(mailbox);
    let is_held = config.is_held;
    if config.impairment.is_none() {
        let worker = Worker::new(spec, uring, mailbox, counters, io_counters);
        work(worker, workshop, is_held);
    } else {
        let impaired = Impaired::new(uring, config.impairment);
        let worker = Worker::new(spec, impaired, mailbox, counters, io_counters);
        work(worker, workshop, is_held);
    }
    drop(helper);
    drop(goodbye);
}

/// Runs a worker to its end. The devices and the socket are closed before control hears of it.
fn work<I: Io>(mut worker: Worker<I>, workshop: Option<Arc<Workshop>>, is_held: bool) {
    if is_held {
        worker.begin_held();
    }
    if let Some(workshop) = workshop {
        worker.look_ahead_in(workshop);
    }
    worker.run();
}

fn open(
    config: &WorkerConfig,
    mailbox: &Arc<Mailbox>,
    io_counters: &Arc<IoCounters>,
) -> Result<(Uring, Option<GateResult>), StartError> {
    if let Some(cpu) = config.pin_to {
        pin_current_thread(cpu)?;
    }
    if config.is_urgent {
        // Without the permission it works like any program.
        let _ = raise_current_thread();
    }
    let gre = gre_socket::open(&GreSocketConfig {
        index: config.index,
        count: config.count,
        local: config.local,
        mark: config.mark,
    })?;
    if config.dont_fragment {
        gre_socket::set_dont_fragment(&gre)?;
    }
    gre_socket::make_room_for(&gre, config.max_sessions);
    if config.is_held {
        gre_socket::deafen(gre.as_fd()).map_err(resource("attach the GRE filter"))?;
    }
    let features = probe()?;
    let (mailbox, io_counters) = (Arc::clone(mailbox), Arc::clone(io_counters));
    let mut uring = Uring::new(gre, config.slots, features, mailbox, io_counters)?;
    let gate = config
        .wants_packet_ring
        .then(|| open_packet_ring(config, &mut uring));
    Ok((uring, gate))
}

fn open_packet_ring(config: &WorkerConfig, uring: &mut Uring) -> GateResult {
    let ends = packet_ring::open(config.index, config.count);
    let (ring, gate) = ends.map_err(|error| error.to_string())?;
    let attached = uring.attach_packet_ring(ring);
    attached.map_err(|error| format!("cannot map the packet ring: {error}"))?;
    Ok(gate)
}

/// The thread that prepares key streams for a worker.
struct Helper {
    workshop: Arc<Workshop>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    /// Before the worker is pinned: the helper goes where there is time.
    fn start(config: &WorkerConfig) -> Result<Self, StartError> {
        let workshop = Workshop::new();
        let mut pool = Pool::new(Arc::clone(&workshop));
        let builder = Builder::new().name(format!("pptp-ahead-{}", config.index));
        let keep = config.keep;
        let thread = builder.spawn(move || {
            // It could only be too urgent, and then it has its share like any thread.
            let _ = idle_current_thread();
            // It opens nothing and does without; that the worker cannot is said by that.
            if keep.give_up_others().is_ok() {
                pool.run();
            }
        });
        Ok(Self {
            workshop,
            thread: Some(thread.map_err(resource("start a thread"))?),
        })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.workshop.end();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Tells control that the worker is gone, however it went.
struct Goodbye(Arc<Mailbox>);

impl Drop for Goodbye {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the worker has met a fault of its own; please report it".into();
            self.0.notify(Notice::Failed { reason });
        }
        self.0.notify(Notice::Stopped);
        self.0.wake_control();
    }
}
