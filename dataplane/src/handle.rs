//! One worker as control sees it: start it, send it commands, read its notices, stop it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crossbeam_queue::ArrayQueue;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::counters::WorkerCounters;
use crate::program::{Command, Notice};
use crate::sys::affinity::AffinityError;
use crate::sys::gre_socket::GreSocketError;
use crate::sys::probe::RingError;
use crate::sys::wake::Wake;

/// What a worker is to be like. Everything is allocated from it at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Which worker this is, from 0. It owns the calls with call ID modulo `count` = `index`.
    pub index: u16,
    /// How many workers there are, 1 or more.
    pub count: u16,
    /// Processor to run on alone, counted from 0.
    pub pin_to: Option<usize>,
    /// Outer address of this host; only what is sent to it is received.
    pub local: Option<Ipv4Addr>,
    /// Firewall mark of the GRE packets that are sent.
    pub mark: Option<u32>,
    /// Packets that the worker can hold at once, 2048 octets each: a power of two from 256 to
    /// 32768.
    pub slots: u16,
    /// Sessions that can be installed at once.
    pub max_sessions: usize,
    /// Commands that can wait.
    pub commands: usize,
    /// Notices that can wait; beyond them punted frames are dropped.
    pub notices: usize,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            index: 0,
            count: 1,
            pin_to: None,
            local: None,
            mark: None,
            slots: 2048,
            max_sessions: 1024,
            commands: 4096,
            notices: 4096,
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

/// What control and one worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) commands: ArrayQueue<Command>,
    pub(crate) command_wake: Wake,
    pub(crate) notices: ArrayQueue<Notice>,
    pub(crate) notice_wake: Wake,
    pub(crate) counters: Arc<WorkerCounters>,
    /// Set when the worker is to end though no `Command::Stop` could be queued.
    pub(crate) is_stopping: AtomicBool,
}

/// A running worker. Dropping it ends the thread and closes its socket, ring and TUN devices.
#[derive(Debug)]
pub struct WorkerHandle {
    index: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a worker: opens its GRE socket and its ring in the network namespace of the calling
/// thread, and runs it in a thread named `pptp-worker-N`, which takes no signal.
///
/// # Errors
/// What could not be opened, as [`StartError`]; nothing is left behind then.
pub fn spawn(config: WorkerConfig) -> Result<WorkerHandle, StartError> {
    check(&config)?;
    let index = config.index;
    let shared = Arc::new(Shared {
        commands: ArrayQueue::new(config.commands),
        command_wake: new_wake()?,
        notices: ArrayQueue::new(config.notices),
        notice_wake: new_wake()?,
        counters: Arc::default(),
        is_stopping: AtomicBool::new(false),
    });
    let (started, has_started) = sync_channel(1);
    let theirs = Arc::clone(&shared);
    let thread = spawn_without_signals(index, move || run(&config, &theirs, &started))?;
    match has_started.recv() {
        Ok(Ok(())) => Ok(WorkerHandle {
            index,
            shared,
            thread: Some(thread),
        }),
        Ok(Err(error)) => {
            // The thread is on its way out; waiting for it closes what it had opened.
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(resource("start the worker")(io::Error::other(
            "its thread ended before it had said whether it could start",
        ))),
    }
}

impl WorkerHandle {
    /// Which worker this is, from 0.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Queues a command and wakes the worker. Commands take effect in this order.
    ///
    /// # Errors
    /// The queue is full, or the worker has ended; the command comes back.
    pub fn send(&self, command: Command) -> Result<(), SendError> {
        if self.has_ended() {
            return Err(SendError::Stopped(command));
        }
        self.shared
            .commands
            .push(command)
            .map_err(SendError::QueueFull)?;
        self.shared.command_wake.signal();
        Ok(())
    }

    /// The next notice, in the order in which they happened.
    #[must_use]
    pub fn try_recv(&self) -> Option<Notice> {
        self.shared.notices.pop()
    }

    /// Readable when there are notices: for the poller of control's runtime. When it is, call
    /// [`Self::clear_notice`] and then [`Self::try_recv`] until it is empty, in this order.
    #[must_use]
    pub fn notice_fd(&self) -> BorrowedFd<'_> {
        self.shared.notice_wake.as_fd()
    }

    /// Makes [`Self::notice_fd`] unreadable until the next notice.
    pub fn clear_notice(&self) {
        self.shared.notice_wake.clear();
    }

    /// What the worker has counted, live.
    #[must_use]
    pub fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.shared.counters)
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

    fn end(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.command_wake.signal();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.end();
    }
}

fn check(config: &WorkerConfig) -> Result<(), StartError> {
    if config.index >= config.count {
        return Err(StartError::Config("index must be less than count"));
    }
    if !config.slots.is_power_of_two() || !(256..=32768).contains(&config.slots) {
        let message = "slots must be a power of two from 256 to 32768";
        return Err(StartError::Config(message));
    }
    if config.max_sessions == 0 || config.max_sessions > 65536 {
        return Err(StartError::Config("max_sessions must be from 1 to 65536"));
    }
    if config.commands == 0 || config.notices < NOTICES_RESERVED * 2 {
        let message = "commands must be at least 1, notices at least 128";
        return Err(StartError::Config(message));
    }
    Ok(())
}

fn new_wake() -> Result<Wake, StartError> {
    Wake::new().map_err(resource("make an eventfd"))
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

/// Room in the notice queue that punted frames leave for notices that must not be lost.
pub(crate) const NOTICES_RESERVED: usize = 64;

/// The body of the thread.
fn run(_config: &WorkerConfig, shared: &Shared, started: &SyncSender<Result<(), StartError>>) {
    let _ = started.send(Ok(()));
    while !shared.is_stopping.load(Ordering::Acquire) {
        while let Some(command) = shared.commands.pop() {
            if matches!(command, Command::Stop) {
                shared.is_stopping.store(true, Ordering::Release);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = shared.notices.push(Notice::Stopped);
    shared.notice_wake.signal();
}
