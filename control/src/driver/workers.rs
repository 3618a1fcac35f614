//! The data plane's workers as control sees them: commands to the owner of a call, or to the two
//! that share it by direction, and notices back.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use dataplane::counters::WorkerCounters;
use dataplane::handle::{self, GateResult, SendError, StartError, WorkerConfig, WorkerHandle};
use dataplane::impairment::Impairment;
use dataplane::io::IoCounters;
use dataplane::program::{CallId, Command, Notice};
use dataplane::sys::affinity::permitted_processors;
use dataplane::sys::packet_ring::Gate;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fast_path::Senders;
use super::{placement, privileges};
use crate::config::fast_path::FastPathMode;

/// Notices that may wait for the control loop; more stay in the workers' own bounded queues.
const NOTICES_MAX: usize = 1024;

/// Packets that the kernel's queue of a TUN device holds unless it is told otherwise.
const TUN_QUEUE: u32 = 500;
/// 14 MB of full packets, and half a second at 200 Mbit/s.
const TUN_QUEUE_MAX: u32 = 10_000;

/// How many packets may wait in a TUN device that so many sessions share: ten for each, which is
/// what a TCP connection starts with.
pub(crate) fn tun_queue(sessions: usize) -> u32 {
    let wanted = u32::try_from(sessions.saturating_mul(10));
    wanted.map_or(TUN_QUEUE_MAX, |it| it.clamp(TUN_QUEUE, TUN_QUEUE_MAX))
}

/// How the data plane is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkersConfig {
    /// Threads: see [`CallId::receiver`].
    pub count: u16,
    /// Each session has a worker for each direction, when there are two workers or more.
    pub split_directions: bool,
    /// Outer source address; `None` lets the routes choose.
    pub local: Option<Ipv4Addr>,
    /// Firewall mark of GRE packets.
    pub mark: Option<u32>,
    /// GRE packets have Don't Fragment.
    pub dont_fragment: bool,
    /// Sessions that one worker may hold.
    pub sessions_max: usize,
    /// Whether the fast path may be taken.
    pub fast_path: FastPathMode,
    /// Whether the workers prepare key streams.
    pub look_ahead: bool,
    /// Packets lost and reordered on purpose.
    pub impairment: Impairment,
    /// Whether they stand still at first (`Command::Resume`).
    pub is_held: bool,
}

/// All workers of this process.
pub(crate) struct Workers {
    handles: Vec<Rc<WorkerHandle>>,
    is_split: bool,
    /// Commands that did not fit into the queue of the worker of this index, or had others before
    /// them, oldest first. They keep their order also between workers: what permits the peer to
    /// send must not overtake what prepares another worker to receive it.
    waiting: VecDeque<(usize, Command)>,
    /// Read notices, and look after where a worker runs.
    tasks: Vec<JoinHandle<()>>,
    gates: Result<Vec<Gate>, String>,
}

impl Workers {
    pub(crate) fn start(
        config: WorkersConfig,
    ) -> Result<(Self, mpsc::Receiver<Notice>), StartError> {
        let (notices, receiver) = mpsc::channel(NOTICES_MAX);
        let mut workers = Self {
            handles: Vec::new(),
            is_split: config.split_directions && config.count > 1,
            waiting: VecDeque::new(),
            tasks: Vec::new(),
            gates: Ok(Vec::new()),
        };
        let processors = processors(config.count);
        for index in 0..config.count {
            let mut handle = handle::spawn(WorkerConfig {
                index,
                count: config.count,
                pin_to: processors.get(usize::from(index)).copied(),
                is_urgent: true,
                look_ahead: config.look_ahead,
                keep: privileges::of_workers(),
                impairment: config.impairment,
                is_held: config.is_held,
                local: config.local,
                mark: config.mark,
                dont_fragment: config.dont_fragment,
                wants_packet_ring: config.fast_path == FastPathMode::Auto,
                max_sessions: config.sessions_max,
                ..WorkerConfig::default()
            })?;
            workers.keep_gate(handle.take_gate());
            if processors.is_empty() {
                let task = placement::watch(handle.thread_id());
                workers.tasks.push(tokio_uring::spawn(task));
            }
            let handle = Rc::new(handle);
            let wake =
                handle
                    .notice_fd()
                    .try_clone_to_owned()
                    .map_err(|source| StartError::Resource {
                        action: "watch the worker",
                        source,
                    })?;
            let task = read_notices(Rc::downgrade(&handle), wake, notices.clone());
            workers.tasks.push(tokio_uring::spawn(task));
            workers.handles.push(handle);
        }
        Ok((workers, receiver))
    }

    /// One worker without a ring is enough for none to be used: the rule is for all.
    fn keep_gate(&mut self, gate: Option<GateResult>) {
        match (&mut self.gates, gate) {
            (Ok(gates), Some(Ok(gate))) => gates.push(gate),
            (gates @ Ok(_), Some(Err(refusal))) => *gates = Err(refusal),
            _ => {}
        }
    }

    /// The gates of all packet rings, once; or why there are none.
    pub(crate) fn take_gates(&mut self) -> Result<Vec<Gate>, String> {
        std::mem::replace(&mut self.gates, Ok(Vec::new()))
    }

    /// Which of them send.
    pub(crate) fn senders(&self) -> Senders {
        Senders {
            workers: self.count().max(1),
            is_split: self.is_split,
        }
    }

    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.handles.len()).unwrap_or(u16::MAX)
    }

    /// What each worker has counted, live.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (Arc<WorkerCounters>, Arc<IoCounters>)> {
        let handles = self.handles.iter();
        handles.map(|handle| (handle.counters(), handle.io_counters()))
    }

    /// Sends a command about `call_id`, or about a TUN device of its worker, to the worker that
    /// owns the call; where directions are split, to the one that it concerns, or to both.
    pub(crate) fn send(&mut self, call_id: CallId, command: Command) {
        let count = self.count();
        let receiver = usize::from(call_id.receiver(count));
        if !self.is_split {
            self.send_to(receiver, command);
            return;
        }
        let halves = command.split();
        let sender = usize::from(call_id.sender(count));
        for (index, half) in [(receiver, halves.receive), (sender, halves.send)] {
            if let Some(half) = half {
                self.send_to(index, half);
            }
        }
    }

    /// Sends `command` to worker `index`.
    pub(crate) fn send_to(&mut self, index: usize, command: Command) {
        self.waiting.push_back((index, command));
        self.flush();
    }

    /// Tries again what did not fit; true when nothing waits any more.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some((index, command)) = self.waiting.pop_front() {
            match self.handles.get(index).map(|handle| handle.send(command)) {
                Some(Err(SendError::QueueFull(command))) => {
                    self.waiting.push_front((index, command));
                    return false;
                }
                // When it has stopped, its last notice has said why; there is nobody to command.
                Some(Ok(()) | Err(SendError::Stopped(_))) | None => {}
            }
        }
        true
    }
}

impl Workers {
    /// Ends every worker after what is queued, and waits until their devices are gone.
    pub(crate) fn stop(&mut self) {
        self.flush();
        self.handles.clear();
        self.waiting.clear();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A processor for each of several workers, so that sessions do not move between caches; none when
/// there are not enough. A worker that is alone goes where there is time.
fn processors(count: u16) -> Vec<usize> {
    let permitted = permitted_processors();
    if count > 1 && usize::from(count) <= permitted.len() {
        permitted
    } else {
        Vec::new()
    }
}

/// Does not keep the worker alive: `Workers::stop` must end it at once.
async fn read_notices(handle: Weak<WorkerHandle>, wake: OwnedFd, notices: mpsc::Sender<Notice>) {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor changes; \
        an OwnedFd's does not"
    )]
    let Ok(wake) = AsyncFd::new(wake) else { return };
    loop {
        let Ok(mut ready) = wake.readable().await else {
            return;
        };
        ready.clear_ready();
        if let Some(handle) = handle.upgrade() {
            handle.clear_notice();
        }
        while let Some(notice) = handle.upgrade().and_then(|handle| handle.try_recv()) {
            if notices.send(notice).await.is_err() {
                return;
            }
        }
    }
}
