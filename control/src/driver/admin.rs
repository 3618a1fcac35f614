//! What is said to a running process, and what it answers: one line of JSON each way over the
//! socket of `run_files`, again and again on one connection.
//!
//! Everything is bounded: clients at a time, the length of a request, the time that a silent client
//! is kept, and what one answer holds. A capture alone is different: after its answer the
//! connection belongs to a thread, which sends pcapng on it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::peer::Peer;
use self::records::{CaptureWish, Order, PoolRecord, Progress, Reloaded, SessionPage};
use crate::driver::capture::Capture;
use crate::driver::drops::Drops;
use crate::driver::log::Log;
use crate::driver::server::snapshot::{Snapshot, SnapshotPart};

pub(crate) mod peer;
pub mod records;

pub(crate) use peer::Policy;

/// Longest request that is read: the names of `records::TERMINATE_MAX` sessions.
const REQUEST_BYTES_MAX: u64 = 32 << 10;
/// Clients at a time.
const CLIENTS_MAX: usize = 32;
/// How long a client may be silent, or not read.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to accept, when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How is it?
    Status,
    /// End in order; answered when it has ended.
    Down,
    /// End the link, and start another where the tunnel persists (pppd's HUP). A server reads its
    /// files again.
    HangUp,
    /// Log every negotiation packet, or stop that (pppd's USR1).
    ToggleDebug,
    /// Negotiate CCP again (pppd's USR2).
    RenegotiateCompression,
    /// What an operator asks of a server.
    Operate(Order),
    /// Copies of inner packets, as pcapng on the same connection after the answer; root only.
    Capture(CaptureWish),
    /// Metrics of a server, from within its process.
    #[serde(skip)]
    Snapshot(SnapshotPart),
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `Status`, from a client.
    Tunnel(Box<TunnelStatus>),
    /// To `Status`, from a server.
    Server(ServerStatus),
    /// To `Down`.
    Ended,
    /// To `Order::Sessions`.
    Sessions(SessionPage),
    /// To `Order::Pools`.
    Pools {
        /// All of them.
        pools: Vec<PoolRecord>,
    },
    /// To `Order::Terminate`: so many have been told to end.
    Terminated {
        /// Others had gone.
        count: usize,
    },
    /// To `Order::Reload`.
    Reloaded(Reloaded),
    /// To `Order::Drain` and `Order::Progress`.
    Progress(Progress),
    /// It is not done.
    Refused {
        /// For a person.
        why: String,
    },
    /// To `Capture`, from within: what goes to the thread that has the connection from then on.
    #[serde(skip)]
    Capture(Capture),
    /// To `Snapshot`.
    #[serde(skip)]
    Snapshot(Box<Snapshot>),
    /// To anything else.
    Done,
}

/// One tunnel as `status --json` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Tunnel name (client) or the peer's user name (server).
    pub name: String,
    /// `connecting`, `up`, `ending`; of a client that persists also `reconnecting`, and of one on
    /// demand `waiting`.
    pub state: String,
    /// `ppp0`.
    pub interface: String,
    /// Outer address of the other end.
    pub peer: String,
    /// Our address in the tunnel, when up.
    pub local_ip: Option<String>,
    /// The peer's address in the tunnel, when up.
    pub peer_ip: Option<String>,
    /// Our IPv6 address in the tunnel, when IPv6 is up.
    #[serde(default)]
    pub local_ipv6: Option<String>,
    /// The peer's.
    #[serde(default)]
    pub peer_ipv6: Option<String>,
    /// `MPPE 128-bit stateless`, `none`.
    pub cipher: Option<String>,
    /// Seconds since it came up.
    pub uptime_s: Option<u64>,
    /// Octets of IP packets received.
    pub received_bytes: u64,
    /// IP packets received.
    pub received_packets: u64,
    /// Octets of IP packets sent.
    pub sent_bytes: u64,
    /// IP packets sent.
    pub sent_packets: u64,
    /// GRE packets that never came.
    pub lost: u64,
    /// Packets put back into order.
    pub reordered: u64,
    /// Packets dropped, for whatever reason.
    pub dropped: u64,
    /// The same of the whole process by reason, at worker, kernel queues and devices: see
    /// `driver::drops`. Only where a process has one tunnel.
    #[serde(default, skip_serializing_if = "Drops::is_empty")]
    pub drops: Drops,
    /// Times MPPE had to be brought back into step.
    pub mppe_resyncs: u64,
    /// Whether key streams are prepared for packets to come (`--look-ahead`).
    pub look_ahead: bool,
    /// Packets, of both directions, whose key streams were ready when they came.
    pub prepared_packets: u64,
    /// How GRE packets leave: `AF_XDP socket`, `packet socket` or `raw socket`.
    pub fast_path: String,
    /// Why so.
    pub fast_path_reason: String,
    /// How GRE packets arrive: `packet ring` or `raw socket`.
    pub fast_path_receive: String,
    /// Why so.
    pub fast_path_receive_reason: String,
    /// The process.
    pub pid: u32,
    /// Attempts in a row that brought no network (client).
    #[serde(default)]
    pub failures: u32,
    /// Seconds until the next attempt (client that persists).
    #[serde(default)]
    pub redial_in_s: Option<u64>,
    /// How the last attempt ended (client that persists).
    #[serde(default)]
    pub last_ending: Option<String>,
}

/// A server as `status --json` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The process.
    pub pid: u32,
    /// Addresses listened on.
    pub listen: Vec<String>,
    /// Packets dropped by reason, of all sessions: see `driver::drops`.
    #[serde(default)]
    pub drops: Drops,
    /// Connections, calls and log-ins refused or given up, by reason: see `proto::refusal`.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// Tunnels that are up or on the way: the first [`STATUS_SESSIONS_MAX`]; `sessions list` has
    /// all of them.
    pub sessions: Vec<TunnelStatus>,
    /// How many there are.
    #[serde(default)]
    pub session_count: usize,
    /// No more calls are taken.
    #[serde(default)]
    pub is_draining: bool,
}

/// Sessions in the answer to `Status`.
pub const STATUS_SESSIONS_MAX: usize = 1024;

/// A request with the way back for its answer.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

/// Serves the socket until the task is dropped: to root and to the user that runs this process.
pub(crate) async fn serve(
    listener: std::os::unix::net::UnixListener,
    requests: mpsc::Sender<Asked>,
) -> std::io::Result<()> {
    serve_to(listener, requests, Policy::default(), Log::default()).await
}

/// Serves the socket to whom `policy` permits, until the task is dropped. What changes something,
/// and who is refused, goes into the log.
pub(crate) async fn serve_to(
    listener: std::os::unix::net::UnixListener,
    requests: mpsc::Sender<Asked>,
    policy: Policy,
    log: Log,
) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let desk = Rc::new(Desk {
        requests,
        policy,
        log,
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let line = to_line(&refused("too many others ask at this moment: try again"));
            let _ = stream.try_write(line.as_bytes());
            continue;
        };
        let desk = Rc::clone(&desk);
        tokio::task::spawn_local(async move {
            desk.attend(stream).await;
            drop(place);
        });
    }
}

/// Where requests are taken.
struct Desk {
    requests: mpsc::Sender<Asked>,
    policy: Policy,
    log: Log,
}

type Client = tokio::io::BufReader<tokio::net::UnixStream>;

impl Desk {
    /// Answers one client until it goes, is silent for too long, or gets a capture.
    async fn attend(&self, stream: tokio::net::UnixStream) {
        let Ok(peer) = Peer::of(&stream) else { return };
        let mut client = tokio::io::BufReader::new(stream);
        if !peer.is_permitted(self.policy) {
            self.log.line(&format!("admin socket: {peer} is refused"));
            let _ = say(
                &mut client,
                &refused("only root and the admin group may ask"),
            )
            .await;
            return;
        }
        while let Ok(Some(line)) = tokio::time::timeout(PATIENCE, listen(&mut client)).await {
            let answer = match serde_json::from_str(&line) {
                Ok(request) => self.answer(request, peer).await,
                Err(_) => refused("this request is not known: are both of the same version?"),
            };
            if let Answer::Capture(capture) = answer {
                if say(&mut client, &Answer::Done).await
                    && let Ok(stream) = client.into_inner().into_std()
                {
                    capture.start(stream);
                }
                return;
            }
            if !say(&mut client, &answer).await {
                return;
            }
        }
    }

    async fn answer(&self, request: Request, peer: Peer) -> Answer {
        match &request {
            Request::Capture(wish) => {
                if !peer.is_root() {
                    self.log
                        .line(&format!("admin socket: {peer} may not capture"));
                    return refused("packets are shown to root only: run this with sudo");
                }
                let whose = wish.session.as_ref().map_or("", |name| name.sid.as_str());
                self.log
                    .line(&format!("admin socket: {peer} captures {whose}"));
            }
            Request::Operate(order) => {
                if let Some(change) = order.change() {
                    self.log.line(&format!("admin socket: {peer} {change}"));
                }
            }
            _ => {}
        }
        let (sender, receiver) = oneshot::channel();
        let ended = || refused("the process is ending");
        if self.requests.send((request, sender)).await.is_err() {
            return ended();
        }
        receiver.await.unwrap_or_else(|_| ended())
    }
}

fn refused(why: &str) -> Answer {
    Answer::Refused {
        why: why.to_owned(),
    }
}

/// The next request; `None` when there is none, or one too long.
async fn listen(client: &mut Client) -> Option<String> {
    let mut line = String::new();
    let mut limited = client.take(REQUEST_BYTES_MAX);
    let read = limited.read_line(&mut line).await;
    (read.is_ok() && line.ends_with('\n')).then_some(line)
}

/// False when the client is gone, or does not read.
async fn say(client: &mut Client, answer: &Answer) -> bool {
    let line = to_line(answer);
    let written = tokio::time::timeout(PATIENCE, client.write_all(line.as_bytes())).await;
    matches!(written, Ok(Ok(())))
}

fn to_line(answer: &Answer) -> String {
    let mut text = serde_json::to_string(answer).unwrap_or_default();
    text.push('\n');
    text
}

/// Whether a living process is behind `socket`.
#[must_use]
pub fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Asks the process behind `socket`; blocks until it answers or `limit` has passed.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when no process is there; `UnexpectedEof` when it ended
/// without an answer.
pub fn ask(socket: &Path, request: &Request, limit: Duration) -> std::io::Result<Answer> {
    Conversation::open(socket, limit)?.ask(request)
}

/// Several requests to one process.
#[derive(Debug)]
pub struct Conversation(BufReader<UnixStream>);

impl Conversation {
    /// Begins one; each answer is waited for no longer than `limit`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when no process is there, `PermissionDenied` when this
    /// user may not ask.
    pub fn open(socket: &Path, limit: Duration) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks once.
    ///
    /// # Errors
    /// `UnexpectedEof` when the process ended without an answer.
    pub fn ask(&mut self, request: &Request) -> std::io::Result<Answer> {
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        match self.0.get_mut().write_all(text.as_bytes()) {
            // Who is refused is told so at once, and nobody listens any more: the words are here.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if line.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// What follows the answer to `Capture`.
    #[must_use]
    pub fn into_reader(self) -> BufReader<UnixStream> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Serves a socket, answering every request with `Done`, while `work` talks to it.
    fn served(work: impl FnOnce(&Path) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.unwrap(), async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            let (requests, mut receiver) = mpsc::channel::<Asked>(1);
            tokio::task::spawn_local(serve(listener, requests));
            let work = tokio::task::spawn_blocking(move || work(&path));
            tokio::select! {
                done = work => done.unwrap(),
                () = async {
                    while let Some((_, answer)) = receiver.recv().await {
                        let _ = answer.send(Answer::Done);
                    }
                } => {}
            }
        });
    }

    #[test]
    fn requests_are_answered_one_after_the_other_and_strange_ones_refused() {
        served(|path| {
            let mut conversation = Conversation::open(path, PATIENCE).unwrap();
            for _ in 0..3 {
                let answer = conversation.ask(&Request::Status).unwrap();
                assert!(matches!(answer, Answer::Done), "{answer:?}");
            }
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"{\"command\":\"snapshot\"}\n").unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert!(line.contains("\"refused\""), "{line}");
        });
    }

    #[test]
    fn who_is_refused_before_asking_hears_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for words in [to_line(&refused("only for root")), String::new()] {
            let mut conversation = Conversation::open(&path, PATIENCE).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(words.as_bytes()).unwrap();
            drop(stream);
            match conversation.ask(&Request::Status) {
                Ok(Answer::Refused { .. }) => assert!(!words.is_empty()),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                    assert!(words.is_empty());
                }
                Ok(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_request_without_end_is_not_read_to_it() {
        served(|path| {
            let mut stream = UnixStream::connect(path).unwrap();
            // It may be cut off before all of this is written.
            let _ = stream.write_all(&vec![b' '; REQUEST_BYTES_MAX as usize + 1]);
            let mut rest = Vec::new();
            let read = stream.read_to_end(&mut rest);
            assert!(read.is_err() || rest.is_empty(), "{rest:?}");
        });
    }

    #[test]
    fn one_client_too_many_is_told_to_come_again() {
        served(|path| {
            let mut others: Vec<_> = (0..CLIENTS_MAX)
                .map(|_| Conversation::open(path, PATIENCE).unwrap())
                .collect();
            // The last of them has its place, and so have those before.
            let last = others.last_mut().unwrap().ask(&Request::Status).unwrap();
            assert!(matches!(last, Answer::Done), "{last:?}");
            let mut line = String::new();
            let late = UnixStream::connect(path).unwrap();
            BufReader::new(late).read_line(&mut line).unwrap();
            assert!(line.contains("try again"), "{line}");
        });
    }
}
