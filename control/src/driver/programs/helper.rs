//! The process that keeps root's capabilities and runs programs for one that has given them up.
//!
//! Requests and replies are lines of JSON over a pair of sockets, the helper's end of which is its
//! standard input. It ends when the other end is closed: however the tunnel's process ends, none of
//! ours remains.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Program, Watch};

/// The command of this program that is the helper.
pub const COMMAND: &str = "run-programs";
/// Those that are run by their names, whatever else is permitted.
const NAMES: [&str; 2] = ["resolvconf", "resolvectl"];
/// Variables that are meant for the process that systemd has started.
const NOT_INHERITED: [&str; 5] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "PPTP_FAST_BACKGROUND",
];
/// Replies that may wait; then programs' ends wait, too.
const REPLIES_MAX: usize = 64;

/// What may be run, settled when the helper is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Permitted {
    /// Everything that lies in this folder.
    #[arg(long = "in", value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// This file.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

impl Permitted {
    fn permits(&self, path: &Path) -> bool {
        let is_inside = |folder: &PathBuf| path.parent() == Some(folder);
        NAMES.iter().any(|name| path == Path::new(name))
            || self.folders.iter().any(is_inside)
            || self.files.iter().any(|file| file == path)
    }
}

/// Please run this; `id` comes back with every reply.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub id: u64,
    pub program: Program,
}

/// What has become of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub id: u64,
    pub news: News,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum News {
    Started {
        pid: u32,
    },
    /// With wait(2)'s status.
    Ended {
        status: i32,
    },
    Failed {
        why: String,
    },
}

/// Starts the helper; the socket by which it is spoken to.
pub(super) fn spawn(permitted: &Permitted) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("pptp-fast").arg(COMMAND);
    for folder in &permitted.folders {
        command.arg("--in").arg(folder);
    }
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    // Ctrl-C is for the tunnel, which then has ip-down run.
    command.arg("--").args(&permitted.files).process_group(0);
    command.stdin(OwnedFd::from(theirs));
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(ours)
}

/// Is the helper, until the other end of its standard input is closed.
///
/// # Errors
/// When standard input is no socket, or the operating system refuses.
pub fn run(permitted: Permitted) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Its address says that it is a socket: else this was typed by a person.
    socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(socket, permitted))
}

async fn serve(socket: UnixStream, permitted: Permitted) -> io::Result<()> {
    // When everything of a service is signalled, scripts are still to be run. A handler is not
    // handed down to them.
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let _ = signal(kind)?;
    }
    socket.set_nonblocking(true)?;
    let (read, mut write) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let (replies, mut waiting) = mpsc::channel::<Reply>(REPLIES_MAX);
    tokio::task::spawn_local(async move {
        while let Some(reply) = waiting.recv().await {
            let mut line = serde_json::to_vec(&reply).unwrap_or_default();
            line.push(b'\n');
            if write.write_all(&line).await.is_err() {
                return;
            }
        }
    });
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        if let Ok(Request { id, program }) = serde_json::from_str(&line) {
            launch(id, program, &permitted, replies.clone());
        }
    }
    Ok(())
}

fn launch(id: u64, program: Program, permitted: &Permitted, replies: mpsc::Sender<Reply>) {
    if !permitted.permits(&program.path) {
        let why = "it is not among what was to be run when this process was started".to_owned();
        let news = News::Failed { why };
        tokio::task::spawn_local(async move { replies.send(Reply { id, news }).await });
        return;
    }
    let (watch, mut running) = Watch::new();
    program.launch_here(watch);
    tokio::task::spawn_local(async move {
        let failed = |error: io::Error| News::Failed {
            why: error.to_string(),
        };
        let (news, is_running) = match running.pid().await {
            Ok(pid) => (News::Started { pid }, true),
            Err(error) => (failed(error), false),
        };
        let _ = replies.send(Reply { id, news }).await;
        if is_running {
            let news = match running.wait().await {
                Ok(status) => News::Ended {
                    status: status.into_raw(),
                },
                Err(error) => failed(error),
            };
            let _ = replies.send(Reply { id, news }).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_named_is_permitted() {
        let permitted = Permitted {
            folders: vec!["/etc/ppp".into()],
            files: vec!["/usr/local/bin/up".into()],
        };
        for path in ["/etc/ppp/ip-up", "/usr/local/bin/up", "resolvconf"] {
            assert!(permitted.permits(Path::new(path)), "{path}");
        }
        for path in [
            "/bin/sh",
            "sh",
            "/etc/ppp/../cron.daily/x",
            "/etc/ppp/peers/x",
            "/usr/local/bin/up2",
            "./resolvconf",
            "",
        ] {
            assert!(!permitted.permits(Path::new(path)), "{path}");
        }
    }
}
