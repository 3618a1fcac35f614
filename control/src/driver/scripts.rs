//! The scripts of pppd(8), SCRIPTS: run as the network comes and goes, with pppd's arguments
//! (`interface tty speed local remote ipparam`, link-local addresses for `ipv6-up` and `ipv6-down`) and an environment that holds pppd's variables
//! and nothing else.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::log::Log;
use crate::proto::link::{Ipv6Network, Network};

/// pppd's third argument where there is no serial line.
const SPEED: &str = "0";
/// A path for scripts that set none; the environment is otherwise empty, as in pppd.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Before the interface comes up; waited for.
    PreUp,
    /// The network is up.
    Up,
    /// The network is down.
    Down,
    /// IPv6 is up.
    Ipv6Up,
    /// IPv6 is down.
    Ipv6Down,
}

impl Script {
    const fn file_name(self) -> &'static str {
        match self {
            Self::PreUp => "ip-pre-up",
            Self::Up => "ip-up",
            Self::Down => "ip-down",
            Self::Ipv6Up => "ipv6-up",
            Self::Ipv6Down => "ipv6-down",
        }
    }
}

/// Where scripts lie, and what they are told of one tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Scripts {
    /// `/etc/ppp`; a script that is not there is not run.
    pub dir: PathBuf,
    /// Scripts that have another place: `ip-pre-up-script`, `ip-up-script`, `ip-down-script`,
    /// `ipv6-up-script`, `ipv6-down-script`.
    pub places: [Option<PathBuf>; 5],
    /// Sixth argument.
    pub ipparam: String,
    /// `PPPLOGNAME`, `LINKNAME` and what `set NAME=VALUE` gave.
    pub environment: Vec<(String, String)>,
}

/// What a script is told of the tunnel.
pub(crate) struct Facts<'a> {
    pub interface: &'a str,
    /// Outer address of the other end.
    pub device: &'a str,
    pub network: &'a Network,
    /// While IPv6 stands.
    pub ipv6: Option<Ipv6Network>,
    pub peer_name: &'a str,
    /// For `ip-down`: seconds, octets sent and received.
    pub carried: Option<(u64, u64, u64)>,
}

impl Scripts {
    /// Runs a script and waits for its end.
    pub(crate) async fn run(&self, script: Script, facts: &Facts<'_>, log: &Log) {
        let Some((path, mut command)) = self.command(script, facts) else {
            return;
        };
        match command.status().await {
            Ok(status) if status.success() => {}
            Ok(status) => log.line(&format!("Script {} ended with {status}", path.display())),
            Err(error) => log.line(&format!("Script {} does not run: {error}", path.display())),
        }
    }

    /// Starts a script; its end is awaited beside everything else.
    pub(crate) fn start(&self, script: Script, facts: &Facts<'_>, log: &Log) {
        let Some((path, mut command)) = self.command(script, facts) else {
            return;
        };
        match command.spawn() {
            Ok(mut child) => {
                let id = child.id().unwrap_or(0);
                log.line(&format!("Script {} started (pid {id})", path.display()));
                let log = log.clone();
                tokio::task::spawn_local(async move {
                    if let Ok(status) = child.wait().await {
                        let path = path.display();
                        log.line(&format!("Script {path} finished (pid {id}), {status}"));
                    }
                });
            }
            Err(error) => log.line(&format!("Script {} does not run: {error}", path.display())),
        }
    }

    fn command(&self, script: Script, facts: &Facts<'_>) -> Option<(PathBuf, Command)> {
        let path = match &self.places[script as usize] {
            Some(path) => path.clone(),
            None => self.dir.join(script.file_name()),
        };
        if !is_executable(&path) {
            return None;
        }
        let mut command = Command::new(&path);
        command
            .args(self.arguments(script, facts))
            .env_clear()
            .env("PATH", PATH)
            .envs(environment(facts))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some((path, command))
    }

    fn arguments(&self, script: Script, facts: &Facts<'_>) -> [String; 6] {
        let [local, remote] = match (script, facts.ipv6) {
            (Script::Ipv6Up | Script::Ipv6Down, Some(ipv6)) => {
                [ipv6.local.to_string(), ipv6.remote.to_string()]
            }
            _ => [facts.network.local, facts.network.remote].map(|it| it.to_string()),
        };
        [
            facts.interface.to_owned(),
            // There is no tty: the other end's address, as pppd has it with its PPTP plugin.
            facts.device.to_owned(),
            SPEED.to_owned(),
            local,
            remote,
            self.ipparam.clone(),
        ]
    }
}

/// pppd's variables.
fn environment(facts: &Facts<'_>) -> Vec<(&'static str, String)> {
    let network = facts.network;
    let mut variables = vec![
        ("DEVICE", facts.device.to_owned()),
        ("IFNAME", facts.interface.to_owned()),
        ("IPLOCAL", network.local.to_string()),
        ("IPREMOTE", network.remote.to_string()),
        ("PEERNAME", facts.peer_name.to_owned()),
        ("SPEED", SPEED.to_owned()),
        ("ORIG_UID", nix::unistd::getuid().to_string()),
        ("PPPD_PID", std::process::id().to_string()),
    ];
    let servers = [
        ("DNS1", network.dns[0]),
        ("DNS2", network.dns[1]),
        ("WINS1", network.wins[0]),
        ("WINS2", network.wins[1]),
    ];
    let known = servers
        .into_iter()
        .filter_map(|(name, server): (_, Option<Ipv4Addr>)| {
            server.map(|server| (name, server.to_string()))
        });
    variables.extend(known);
    if let Some(ipv6) = facts.ipv6 {
        variables.push(("LLLOCAL", ipv6.local.to_string()));
        variables.push(("LLREMOTE", ipv6.remote.to_string()));
    }
    if let Some((seconds, sent, received)) = facts.carried {
        variables.push(("CONNECT_TIME", seconds.to_string()));
        variables.push(("BYTES_SENT", sent.to_string()));
        variables.push(("BYTES_RCVD", received.to_string()));
    }
    variables
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
