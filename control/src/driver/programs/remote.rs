//! This process's end of the helper: programs to be run go out, news of them come in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::helper::{self, News, Permitted, Reply, Request};
use super::{Program, Watch};

/// Programs that may wait to be asked for.
const REQUESTS_MAX: usize = 4_096;

/// Of this process, for its life.
static SOCKET: OnceLock<UnixStream> = OnceLock::new();
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Of the runtime of this thread, for the runtime's life.
    static REMOTE: RefCell<Option<Remote>> = const { RefCell::new(None) };
}

/// What is on the way, by its number.
type Waiting = Rc<RefCell<HashMap<u64, Pending>>>;

/// How far a program is.
enum Pending {
    Asked(Watch),
    Runs(tokio::sync::oneshot::Sender<io::Result<ExitStatus>>),
}

#[derive(Clone)]
pub(super) struct Remote {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
}

/// Starts the helper: from now on it runs all programs of this process.
pub(crate) fn start(permitted: &Permitted) -> io::Result<()> {
    if SOCKET.get().is_some() {
        return Ok(());
    }
    let socket = helper::spawn(permitted)?;
    socket.set_nonblocking(true)?;
    SOCKET
        .set(socket)
        .map_err(|_| io::Error::other("two threads start this process"))
}

/// The helper as the runtime of this thread speaks to it, or `None` when there is none.
pub(super) fn current() -> Option<Remote> {
    let socket = SOCKET.get()?;
    REMOTE.with_borrow_mut(|remote| {
        // Its tasks go with the runtime that they belong to.
        if remote.as_ref().is_none_or(|it| it.requests.is_closed()) {
            *remote = Remote::open(socket).ok();
        }
        remote.clone()
    })
}

impl Remote {
    fn open(socket: &UnixStream) -> io::Result<Self> {
        let stream = tokio::net::UnixStream::from_std(socket.try_clone()?)?;
        let (read, write) = stream.into_split();
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let waiting = Waiting::default();
        tokio::task::spawn_local(send(write, receiver, Rc::clone(&waiting)));
        tokio::task::spawn_local(receive(read, Rc::clone(&waiting)));
        Ok(Self { requests, waiting })
    }

    pub(super) fn launch(&self, program: Program, watch: Watch) {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let Ok(mut line) = serde_json::to_vec(&Request { id, program }) else {
            let error = io::Error::other("its path or an argument is no text");
            let _ = watch.started.send(Err(error));
            return;
        };
        line.push(b'\n');
        match self.requests.try_send(line) {
            Ok(()) => {
                let mut waiting = self.waiting.borrow_mut();
                waiting.insert(id, Pending::Asked(watch));
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                let error = io::Error::other("too many programs wait to be run");
                let _ = watch.started.send(Err(error));
            }
            // Whoever waits hears of it when `watch` is dropped.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

async fn send(mut write: OwnedWriteHalf, mut requests: mpsc::Receiver<Vec<u8>>, waiting: Waiting) {
    while let Some(line) = requests.recv().await {
        if write.write_all(&line).await.is_err() {
            break;
        }
    }
    requests.close();
    waiting.borrow_mut().clear();
}

async fn receive(read: OwnedReadHalf, waiting: Waiting) {
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(reply) = serde_json::from_str(&line) {
            hear(&mut waiting.borrow_mut(), reply);
        }
    }
    // The helper is gone; nobody else knows.
    waiting.borrow_mut().clear();
}

fn hear(waiting: &mut HashMap<u64, Pending>, Reply { id, news }: Reply) {
    match (waiting.remove(&id), news) {
        (Some(Pending::Asked(watch)), News::Started { pid }) => {
            let _ = watch.started.send(Ok(pid));
            waiting.insert(id, Pending::Runs(watch.ended));
        }
        (Some(Pending::Asked(watch)), News::Failed { why }) => {
            let _ = watch.started.send(Err(io::Error::other(why)));
        }
        (Some(Pending::Runs(ended)), News::Ended { status }) => {
            let _ = ended.send(Ok(ExitStatus::from_raw(status)));
        }
        (Some(Pending::Runs(ended)), News::Failed { why }) => {
            let _ = ended.send(Err(io::Error::other(why)));
        }
        // Of an earlier runtime, or out of turn.
        _ => {}
    }
}
