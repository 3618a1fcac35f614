//! Take-over: a new process, perhaps of another version, goes on with the sessions of the old one.
//!
//! ```text
//! new                                        old
//! Hello            ------------------------>     only to root; formats must be the same
//!                  <------------------------  Offer
//! (workers, held)
//! Ready            ------------------------>     all that is known, while it goes on to serve:
//!                  <------------------------  State, with listening sockets, connections, devices
//! (sockets queue)
//! Accepted         ------------------------>     now it stands still:
//!                  <------------------------  State, as it is after the last packet
//! (sessions in place)
//! Taken            ------------------------>
//!                  <------------------------  Go
//! (goes on)
//! Running          ------------------------>     ends, and tears nothing down
//! ```
//!
//! At every moment exactly one of the two will go on, whichever of them is killed:
//! - Before `Go` the old one has all it needs to go on itself, and does so when the new one ends,
//!   refuses or is silent for too long.
//! - The new one goes on without `Go` only when the old one has ended, which the kernel says: with
//!   the last `State` that it has. After the first one packets may have been sent, so it leaves out
//!   `LEAD` numbers and keys; the peers take that for loss.
//! - After `Go` the old one goes on only when the new one has ended before `Running`, for which it
//!   sees itself when the new one hangs. It may have sent packets: the same lead.
//!
//! What arrives while both stand still waits in the GRE sockets of the new process and in the
//! devices. GRE that both have seen is recognised by its number. Sessions that are still negotiated
//! are not carried: their connections end in order, and their clients dial again.

mod channel;
mod leave;
mod offer;
mod state;
mod take;

use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

pub use self::take::{Phase, Taken, TakeoverError, take};
use super::{Server, ServerError};
use crate::config::server::ServerConfig;
use crate::driver::admin::Asked;
use crate::driver::log::Log;

/// What the state of this version looks like. Two processes with different ones do not hand over:
/// raise it when a field changes its meaning, or a new one cannot do without a value.
const FORMAT: u32 = 1;

/// Packets that a session may have sent since it was exported, when nobody knows: half a round of
/// MPPE's coherency count, so that the peer cannot mistake it.
const LEAD: u32 = 2048;

/// For the other process to say what needs no preparation.
const WORD_LIMIT: Duration = Duration::from_secs(10);
/// For the new process to start its workers.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// For the new process to take everything while tunnels stand still.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(3);

/// Sockets that belong to the service and not to a process. Who serves them is stopped when they
/// are another process's.
#[derive(Debug)]
pub struct Sockets {
    /// The admin socket.
    pub admin: UnixListener,
    /// Where a new process asks to take over.
    pub takeover: UnixListener,
    /// Who serves the admin socket.
    pub desk: Option<AbortHandle>,
    /// Who greets new processes.
    pub(super) porter: Option<AbortHandle>,
}

impl Sockets {
    /// Both, as they were bound or have come from another process.
    #[must_use]
    pub const fn new(admin: UnixListener, takeover: UnixListener) -> Self {
        Self {
            admin,
            takeover,
            desk: None,
            porter: None,
        }
    }

    /// Whoever comes waits for the other process from now on.
    fn let_go(&self) {
        for task in [&self.desk, &self.porter].into_iter().flatten() {
            task.abort();
        }
    }
}

/// How a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With all its sessions, because it was told to.
    Down,
    /// Another process goes on; the run files are its own now.
    TakenOver,
}

/// Runs a server until `requests` asks for its end, or a new process has taken over. `ready` is
/// told when it listens.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: ServerConfig,
    log: Log,
    requests: mpsc::Receiver<Asked>,
    ready: oneshot::Sender<()>,
    sockets: Sockets,
) -> Result<End, ServerError> {
    let mut server = Server::start(config, log).await?;
    server.sockets = Some(sockets);
    let scrapes = server.serve_metrics()?;
    let _ = ready.send(());
    Ok(server.work(requests, scrapes).await)
}
