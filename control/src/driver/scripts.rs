//! The scripts of pppd(8), SCRIPTS: run as a link comes and goes, with pppd's arguments and an
//! environment that holds pppd's variables and nothing else.
//!
//! What is not waited for runs beside everything else, but the scripts of one link never overtake
//! each other: ip-down begins when ip-up has ended, as in pppd.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::log::Log;
use super::programs::helper::Permitted;
use super::programs::{Program, Running};
use super::service;
use crate::config::pppd_options;
use crate::proto::link::{Ipv6Network, Network};
use crate::wire::ipv6cp::InterfaceIdentifier;

/// pppd's third argument where there is no serial line.
const SPEED: &str = "0";
/// For a script that was asked to end.
const GRACE: Duration = Duration::from_secs(1);
/// A path for scripts that set none; the environment is otherwise empty, as in pppd.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// The interface exists; waited for.
    NetInit,
    /// Before the network layers are negotiated; waited for. It may rename the interface.
    NetPreUp,
    /// The process is about to end.
    NetDown,
    /// The peer has proved who it is.
    AuthUp,
    /// The link is down, and AuthUp was run.
    AuthDown,
    /// Before the interface comes up; waited for.
    IpPreUp,
    /// The network is up.
    IpUp,
    /// The network is down.
    IpDown,
    /// IPv6 is up.
    Ipv6Up,
    /// IPv6 is down.
    Ipv6Down,
}

impl Script {
    const ALL: [Self; 10] = [
        Self::NetInit,
        Self::NetPreUp,
        Self::NetDown,
        Self::AuthUp,
        Self::AuthDown,
        Self::IpPreUp,
        Self::IpUp,
        Self::IpDown,
        Self::Ipv6Up,
        Self::Ipv6Down,
    ];

    const fn file_name(self) -> &'static str {
        match self {
            Self::NetInit => "net-init",
            Self::NetPreUp => "net-pre-up",
            Self::NetDown => "net-down",
            Self::AuthUp => "auth-up",
            Self::AuthDown => "auth-down",
            Self::IpPreUp => "ip-pre-up",
            Self::IpUp => "ip-up",
            Self::IpDown => "ip-down",
            Self::Ipv6Up => "ipv6-up",
            Self::Ipv6Down => "ipv6-down",
        }
    }

    const fn place(self, places: &pppd_options::Scripts) -> Option<&PathBuf> {
        match self {
            Self::NetInit => places.net_init.as_ref(),
            Self::NetPreUp => places.net_pre_up.as_ref(),
            Self::NetDown => places.net_down.as_ref(),
            Self::AuthUp => places.auth_up.as_ref(),
            Self::AuthDown => places.auth_down.as_ref(),
            Self::IpPreUp => places.ip_pre_up.as_ref(),
            Self::IpUp => places.ip_up.as_ref(),
            Self::IpDown => places.ip_down.as_ref(),
            Self::Ipv6Up => places.ipv6_up.as_ref(),
            Self::Ipv6Down => places.ipv6_down.as_ref(),
        }
    }
}

/// Where scripts lie, and what they are told of one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripts {
    /// `/etc/ppp`; a script that is not there is not run.
    pub dir: PathBuf,
    /// Scripts that have another place.
    pub places: pppd_options::Scripts,
    /// Last argument.
    pub ipparam: String,
    /// `LINKNAME`, `CALL_FILE` and what `set NAME=VALUE` gave.
    pub environment: Vec<(String, String)>,
    /// Where scripts run, when not in our own network namespace: where the interface is.
    pub namespace: Option<PathBuf>,
    /// Held by the script that runs.
    pub turn: Arc<Mutex<()>>,
    /// Its process, of those that are not waited for; 0 when none runs.
    pub running: Arc<AtomicI32>,
}

/// What a script is told of the link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts<'a> {
    pub interface: &'a str,
    /// Outer address of the other end.
    pub device: &'a str,
    /// What was agreed, while the network is up.
    pub network: Option<&'a Network>,
    /// While IPv6 stands.
    pub ipv6: Option<Ipv6Network>,
    /// Name that the peer proved to be its own.
    pub peer_name: Option<&'a str>,
    /// The name servers that the peer named are used.
    pub uses_peer_dns: bool,
    /// When it is over: seconds, octets sent and received.
    pub carried: Option<(u64, u64, u64)>,
}

impl Scripts {
    /// Runs a script and waits for its end, and for that of the one before.
    pub(crate) async fn run(&self, script: Script, facts: &Facts<'_>, log: &Log) {
        let Some(program) = self.program(script, facts) else {
            return;
        };
        let path = program.path.clone();
        let _turn = self.turn.lock().await;
        let mut running = program.launch();
        let path = path.display();
        match running.pid().await {
            Ok(id) => log.line(&format!("Script {path} started (pid {id})")),
            Err(error) => return log.warning(&format!("Script {path} does not run: {error}")),
        }
        match service::beat_during(running.wait()).await {
            Ok(status) if status.success() => {}
            Ok(status) => log.warning(&format!("Script {path} ended with {status}")),
            Err(error) => log.warning(&format!("Script {path} does not run: {error}")),
        }
    }

    /// Starts a script as soon as the one before has ended, and does not wait for it.
    pub(crate) fn start(&self, script: Script, facts: &Facts<'_>, log: &Log) {
        let Some(program) = self.program(script, facts) else {
            return;
        };
        let path = program.path.clone();
        let (log, turn) = (log.clone(), Arc::clone(&self.turn));
        let running = Arc::clone(&self.running);
        match Arc::clone(&turn).try_lock_owned() {
            Ok(turn) => {
                let launched = program.launch();
                tokio::task::spawn_local(see_to_end(path, launched, log, (running, turn)));
            }
            Err(_) => drop(tokio::task::spawn_local(async move {
                let turn = turn.lock_owned().await;
                see_to_end(path, program.launch(), log, (running, turn)).await;
            })),
        }
    }

    /// Waits until no script runs, or `limit` has passed.
    pub(crate) async fn finish(&self, limit: Duration) {
        // Those that were started have a place in the queue once their task has run.
        tokio::task::yield_now().await;
        let _ = service::beat_during(tokio::time::timeout(limit, self.turn.lock())).await;
    }

    /// Before the process ends: scripts may go on for `limit`, or as long as they want, and are
    /// then asked to end, one after the other (pppd's child-timeout).
    pub(crate) async fn end(&self, limit: Option<Duration>, log: &Log) {
        tokio::task::yield_now().await;
        let Some(limit) = limit else {
            return drop(self.turn.lock().await);
        };
        let deadline = Instant::now() + limit;
        while tokio::time::timeout_at(deadline, self.turn.lock())
            .await
            .is_err()
        {
            let process = self.running.load(Ordering::Relaxed);
            log.line(&format!("sending SIGTERM to script (pid {process})"));
            if process <= 0 || kill(Pid::from_raw(process), Signal::SIGTERM).is_err() {
                return;
            }
            // The next one in the queue has its turn when this one has gone.
            let gone = tokio::time::timeout(GRACE, async {
                while self.running.load(Ordering::Relaxed) == process {
                    tokio::time::sleep(GRACE / 50).await;
                }
            });
            if gone.await.is_err() {
                return;
            }
        }
    }

    fn program(&self, script: Script, facts: &Facts<'_>) -> Option<Program> {
        let path = match script.place(&self.places) {
            Some(path) => path.clone(),
            None => self.dir.join(script.file_name()),
        };
        if !is_executable(&path) {
            return None;
        }
        let mut variables = vec![("PATH".to_owned(), PATH.to_owned())];
        variables.extend(
            environment(facts)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        variables.extend_from_slice(&self.environment);
        Some(Program {
            path,
            arguments: self.arguments(script, facts),
            environment: Some(variables),
            input: None,
            namespace: self.namespace.clone(),
            is_private: true,
        })
    }

    fn arguments(&self, script: Script, facts: &Facts<'_>) -> Vec<String> {
        // There is no tty: the other end's address, as pppd has it with its PPTP plugin.
        let (interface, tty) = (facts.interface.to_owned(), facts.device.to_owned());
        let (speed, ipparam) = (SPEED.to_owned(), self.ipparam.clone());
        match script {
            Script::NetInit | Script::NetPreUp | Script::NetDown => {
                vec![interface, tty, speed, ipparam]
            }
            Script::AuthUp | Script::AuthDown => {
                let peer = facts.peer_name.unwrap_or_default().to_owned();
                vec![interface, peer, log_name(), tty, speed, ipparam]
            }
            Script::IpPreUp | Script::IpUp | Script::IpDown => {
                let address = |end: fn(&Network) -> Ipv4Addr| {
                    facts
                        .network
                        .map_or_else(String::new, |network| end(network).to_string())
                };
                let (local, remote) = (address(|it| it.local), address(|it| it.remote));
                vec![interface, tty, speed, local, remote, ipparam]
            }
            Script::Ipv6Up | Script::Ipv6Down => {
                let address = |end: fn(&Ipv6Network) -> InterfaceIdentifier| {
                    let ipv6 = facts.ipv6.as_ref();
                    ipv6.map_or_else(String::new, |ipv6| end(ipv6).to_string())
                };
                let (local, remote) = (address(|it| it.local), address(|it| it.remote));
                vec![interface, tty, speed, local, remote, ipparam]
            }
        }
    }
}

/// Waits for the end of a script, whose `turn` it is until then.
async fn see_to_end(
    path: PathBuf,
    mut script: Running,
    log: Log,
    (running, _turn): (Arc<AtomicI32>, OwnedMutexGuard<()>),
) {
    let path = path.display();
    let id = match script.pid().await {
        Ok(id) => id,
        Err(error) => return log.warning(&format!("Script {path} does not run: {error}")),
    };
    log.line(&format!("Script {path} started (pid {id})"));
    running.store(id.cast_signed(), Ordering::Relaxed);
    let ended = script.wait().await;
    running.store(0, Ordering::Relaxed);
    if let Ok(status) = ended {
        log.line(&format!("Script {path} finished (pid {id}), {status}"));
    }
}

/// The scripts that may come to be run.
pub(crate) fn permitted(dir: Option<&Path>, places: &pppd_options::Scripts) -> Permitted {
    let placed = Script::ALL.iter().filter_map(|script| script.place(places));
    Permitted {
        folders: dir.map(Path::to_owned).into_iter().collect(),
        files: placed.cloned().collect(),
    }
}

/// pppd's variables.
fn environment(facts: &Facts<'_>) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("DEVICE", facts.device.to_owned()),
        ("IFNAME", facts.interface.to_owned()),
        ("SPEED", SPEED.to_owned()),
        ("ORIG_UID", nix::unistd::getuid().to_string()),
        ("PPPLOGNAME", log_name()),
        ("PPPD_PID", std::process::id().to_string()),
    ];
    let digits = facts
        .interface
        .trim_start_matches(|c: char| !c.is_ascii_digit());
    if digits.parse::<u32>().is_ok() {
        variables.push(("UNIT", digits.to_owned()));
    }
    if let Some(name) = facts.peer_name {
        variables.push(("PEERNAME", name.to_owned()));
    }
    if let Some(network) = facts.network {
        let known = [
            ("IPLOCAL", Some(network.local)),
            ("IPREMOTE", Some(network.remote)),
            ("DNS1", network.dns[0]),
            ("DNS2", network.dns[1]),
            ("WINS1", network.wins[0]),
            ("WINS2", network.wins[1]),
        ];
        let known = known
            .into_iter()
            .filter_map(|(name, address)| Some((name, address?.to_string())));
        variables.extend(known);
        if facts.uses_peer_dns && network.dns.iter().any(Option::is_some) {
            variables.push(("USEPEERDNS", "1".to_owned()));
        }
    }
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

/// The name of the user who runs this, or the number of one who has none.
fn log_name() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
