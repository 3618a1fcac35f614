//! What `down` and `status` say to a running process, and what it answers: one line of JSON each
//! way over the socket of `run_files`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::driver::drops::Drops;

/// Longest request that is read.
const REQUEST_BYTES_MAX: u64 = 4096;

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
    /// It cannot be done, and why.
    Refused(String),
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
    /// Tunnels that are up or on the way.
    pub sessions: Vec<TunnelStatus>,
}

/// A request with the way back for its answer.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

/// Serves the socket until the task is dropped.
pub(crate) async fn serve(
    listener: std::os::unix::net::UnixListener,
    requests: mpsc::Sender<Asked>,
) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(answer_one(stream, requests.clone()));
    }
}

async fn answer_one(mut stream: tokio::net::UnixStream, requests: mpsc::Sender<Asked>) {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(read.take(REQUEST_BYTES_MAX));
    if reader.read_line(&mut line).await.is_err() {
        return;
    }
    let Ok(request) = serde_json::from_str(&line) else {
        return;
    };
    let (sender, receiver) = oneshot::channel();
    if requests.send((request, sender)).await.is_err() {
        return;
    }
    let Ok(answer) = receiver.await else { return };
    if let Ok(mut text) = serde_json::to_string(&answer) {
        text.push('\n');
        let _ = write.write_all(text.as_bytes()).await;
    }
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
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
