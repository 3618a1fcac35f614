//! Programs that a tunnel runs beside itself: pppd's scripts, resolvconf, resolvectl.
//!
//! They are promised all that root may do, while this process gives most of that up once it is set
//! up (see `privileges`). So a process of our own is started before, keeps what root has, and
//! starts programs when it is asked to: only those that were named when it was started. Without
//! it, because there was nothing to give up, programs are started from here.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::namespace;

pub(crate) mod helper;
mod remote;

pub(crate) use remote::start;

/// The file mode creation mask with which pppd runs its scripts.
const PRIVATE: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO);

/// What is to be run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Without a slash it is looked for in `PATH`.
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// All of it; `None` is that of this process.
    pub environment: Option<Vec<(String, String)>>,
    /// For its standard input, which is otherwise empty.
    pub input: Option<String>,
    /// The file of the network namespace that it runs in, if not this one.
    pub namespace: Option<PathBuf>,
    /// It makes files that nobody but their owner may read, unless it says otherwise itself.
    #[serde(default)]
    pub is_private: bool,
}

/// A program that was started, or could not be.
pub(crate) struct Running {
    started: oneshot::Receiver<io::Result<u32>>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// The other ends of a `Running`.
struct Watch {
    started: oneshot::Sender<io::Result<u32>>,
    ended: oneshot::Sender<io::Result<ExitStatus>>,
}

impl Program {
    /// Starts it; nothing that is launched later starts before it.
    pub(crate) fn launch(self) -> Running {
        let (watch, running) = Watch::new();
        match remote::current() {
            Some(remote) => remote.launch(self, watch),
            None => self.launch_here(watch),
        }
        running
    }

    fn launch_here(mut self, watch: Watch) {
        let input = self.input.take();
        let mut command = self.command(input.is_some());
        let runtime = Handle::current();
        // A process lives where the thread that makes it does.
        let spawned = namespace::inside(self.namespace.as_deref(), || {
            let _runtime = runtime.enter();
            let before = self.is_private.then(|| umask(PRIVATE));
            let spawned = command.spawn();
            before.map(umask);
            spawned
        });
        match spawned.map_err(io::Error::other).flatten() {
            Ok(child) => {
                let _ = watch.started.send(Ok(child.id().unwrap_or(0)));
                tokio::task::spawn_local(see_to_end(child, input, watch.ended));
            }
            Err(error) => drop(watch.started.send(Err(error))),
        }
    }

    fn command(&self, has_input: bool) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(environment) = &self.environment {
            command.env_clear();
            command.envs(environment.iter().map(|(name, value)| (name, value)));
        }
        command
            .args(&self.arguments)
            .current_dir("/")
            .stdin(if has_input {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Running {
    /// Its process ID.
    ///
    /// # Errors
    /// When it could not be started.
    pub(crate) async fn pid(&mut self) -> io::Result<u32> {
        (&mut self.started).await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it could not be started, or nobody knows how it ended.
    pub(crate) async fn wait(mut self) -> io::Result<ExitStatus> {
        if !self.started.is_terminated() {
            self.pid().await?;
        }
        self.ended.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Watch {
    fn new() -> (Self, Running) {
        let (started, has_started) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let running = Running {
            started: has_started,
            ended: has_ended,
        };
        (Self { started, ended }, running)
    }
}

async fn see_to_end(
    mut child: Child,
    input: Option<String>,
    ended: oneshot::Sender<io::Result<ExitStatus>>,
) {
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let _ = ended.send(child.wait().await);
}

fn gone() -> io::Error {
    io::Error::other("the process that runs programs for this one has ended: start again")
}
