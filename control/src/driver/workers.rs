//! The data plane's workers as control sees them: commands to the owner of a call, notices back.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use dataplane::handle::{self, SendError, StartError, WorkerConfig, WorkerHandle};
use dataplane::program::{CallId, Command, Notice};
use dataplane::sys::affinity::permitted_processors;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::fast_path::FastPathMode;

/// Notices that may wait for the control loop; more stay in the workers' own bounded queues.
const NOTICES_MAX: usize = 1024;

/// How the data plane is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkersConfig {
    /// Threads; call ID mod `count` is the owner.
    pub count: u16,
    /// Outer source address; `None` lets the routes choose.
    pub local: Option<Ipv4Addr>,
    /// Firewall mark of GRE packets.
    pub mark: Option<u32>,
    /// Sessions that one worker may hold.
    pub sessions_max: usize,
    /// Whether the fast path may be taken.
    pub fast_path: FastPathMode,
}

/// All workers of this process.
pub(crate) struct Workers {
    handles: Vec<Rc<WorkerHandle>>,
    /// Commands that did not fit into a worker's queue, oldest first.
    waiting: Vec<VecDeque<Command>>,
    readers: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(
        config: WorkersConfig,
    ) -> Result<(Self, mpsc::Receiver<Notice>), StartError> {
        let (notices, receiver) = mpsc::channel(NOTICES_MAX);
        let mut workers = Self {
            handles: Vec::new(),
            waiting: Vec::new(),
            readers: Vec::new(),
        };
        let processors = processors(config.count);
        for index in 0..config.count {
            let handle = Rc::new(handle::spawn(WorkerConfig {
                index,
                count: config.count,
                pin_to: processors.get(usize::from(index)).copied(),
                is_urgent: true,
                local: config.local,
                mark: config.mark,
                max_sessions: config.sessions_max,
                ..WorkerConfig::default()
            })?);
            let wake =
                handle
                    .notice_fd()
                    .try_clone_to_owned()
                    .map_err(|source| StartError::Resource {
                        action: "watch the worker",
                        source,
                    })?;
            let task = read_notices(Rc::downgrade(&handle), wake, notices.clone());
            workers.readers.push(tokio_uring::spawn(task));
            workers.handles.push(handle);
            workers.waiting.push(VecDeque::new());
        }
        Ok((workers, receiver))
    }

    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.handles.len()).unwrap_or(u16::MAX)
    }

    /// Sends `command` to the worker that owns `call_id`.
    pub(crate) fn send(&mut self, call_id: CallId, command: Command) {
        self.send_to(usize::from(call_id.0 % self.count()), command);
    }

    /// Sends `command` to worker `index`.
    pub(crate) fn send_to(&mut self, index: usize, command: Command) {
        self.waiting[index].push_back(command);
        self.flush();
    }

    /// Tries again what did not fit; true when nothing waits any more.
    pub(crate) fn flush(&mut self) -> bool {
        for (handle, waiting) in self.handles.iter().zip(&mut self.waiting) {
            while let Some(command) = waiting.pop_front() {
                match handle.send(command) {
                    Ok(()) => {}
                    Err(SendError::QueueFull(command)) => {
                        waiting.push_front(command);
                        break;
                    }
                    // Its last notice has said why; there is nobody left to command.
                    Err(SendError::Stopped(_)) => {}
                }
            }
        }
        self.waiting.iter().all(VecDeque::is_empty)
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
        for task in &self.readers {
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
