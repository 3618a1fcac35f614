//! Many tunnels as a server: one TUN device a worker, an address pool, secrets.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::offload::TunFeatures;
use dataplane::program::{CallId, Command, NetworkSpec, Role, TunId};
use dataplane::sys::tun::{self, TunDevice};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use self::takeover::{End, Sockets};
use super::admin::{Answer, Asked, Request};
use super::engine::{Direction, Engine, Trace};
use super::host_error::HostError;
use super::ipv6;
use super::log::Log;
use super::netlink::Netlink;
use super::privileges;
use super::scripts::Script;
use super::transport::TransportConfig;
use super::workers::WorkersConfig;
use crate::config::server::{LocalAddresses, ServerConfig};
use crate::proto::ending::Ending;
use crate::proto::endpoint::{EndpointConfig, Limits, Timers};
use crate::proto::link::{Ipv6Network, Network, Report};
use crate::proto::pool::AddressPool;
use crate::proto::{Action, Event};
use crate::wire::log as packet_log;

mod admission;
mod hooks;
mod link_local;
mod status;
pub mod takeover;

/// How often idle and session time-outs are looked at.
const LIMIT_CHECK: Duration = Duration::from_secs(1);

/// An address outlives a killed process that listened on it for a moment, until the kernel has torn
/// its ring down.
const BUSY_RETRIES: u32 = 40;
/// Together with `BUSY_RETRIES`, one second.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The machine or its administrator.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The operator: the configuration asks for what this version does not do.
    #[error("the configuration asks for {0}, which this version does not do: take it out")]
    Unsupported(&'static str),
    /// The operator: the file cannot be written.
    #[error("cannot write {path}: {cause}")]
    PidFile {
        /// `pidfile`.
        path: String,
        /// Operating system's words.
        cause: std::io::Error,
    },
    /// The operator: the address cannot be listened on.
    #[error(
        "cannot listen on {address}: {cause}. Another PPTP server may be running (ss -ltnp 'sport = 1723'), or the address is not of this machine"
    )]
    Listen {
        /// Address and port.
        address: String,
        /// Operating system's words.
        cause: String,
    },
}

impl ServerError {
    /// As pppd's: 3 not root, 4 no kernel support, 1 anything else.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Host(host) => host.exit_status(),
            Self::Unsupported(_) => 2,
            Self::PidFile { .. } | Self::Listen { .. } => 1,
        }
    }
}

/// Runs a server until `requests` asks for its end. `ready` is told when it listens.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: ServerConfig,
    log: Log,
    requests: mpsc::Receiver<Asked>,
    ready: oneshot::Sender<()>,
) -> Result<(), ServerError> {
    let mut server = Server::start(config, log).await?;
    let _ = ready.send(());
    server.work(requests).await;
    Ok(())
}

/// A TUN device that all sessions of one worker share.
struct SharedTun {
    index: u32,
    name: String,
    fd: Arc<OwnedFd>,
    features: TunFeatures,
}

/// What the server remembers of one call beside what the endpoint does.
#[derive(Default)]
struct Session {
    /// Outer address.
    peer: String,
    /// Name that it proved to be its own.
    user: String,
    /// From the pool, to be given back.
    address: Option<Ipv4Addr>,
    network: Option<Standing>,
    /// When the call was installed.
    since: Option<Instant>,
    /// For one script after the other.
    turn: Arc<Mutex<()>>,
}

/// The network of a session as long as it stands.
struct Standing {
    agreed: Network,
    ipv6: Option<Ipv6Network>,
    since: Instant,
    /// Packets in both directions at the last look, and when they were last more.
    packets: u64,
    busy_at: Instant,
}

struct Server {
    config: ServerConfig,
    engine: Engine,
    netlink: Netlink,
    log: Log,
    /// Whether packets of negotiations are logged.
    debug: Rc<Cell<bool>>,
    pool: AddressPool,
    tuns: Vec<SharedTun>,
    sessions: HashMap<CallId, Session>,
    /// Of sessions that have ended while a script of theirs ran.
    scripts_running: Vec<Arc<Mutex<()>>>,
    /// Those that go to a process that takes over.
    sockets: Option<Sockets>,
}

impl Server {
    async fn work(&mut self, mut requests: mpsc::Receiver<Asked>) -> End {
        let mut successors = self.greet_successors();
        let mut limit_check = tokio::time::interval(LIMIT_CHECK);
        let waiting = loop {
            let actions = tokio::select! {
                input = self.engine.next() => self.engine.handle(input),
                _ = limit_check.tick() => self.check_limits(),
                Some((request, answer)) = requests.recv() => {
                    let reply = match request {
                        Request::Down | Request::HangUp => break answer,
                        Request::Status => Answer::Server(self.status()),
                        Request::ToggleDebug => self.toggle_debug(),
                        // Each client's affair.
                        Request::RenegotiateCompression => Answer::Done,
                    };
                    let _ = answer.send(reply);
                    continue;
                }
                Some(successor) = successors.recv() => match self.hand_over(successor).await {
                    Some((taken, channel)) => {
                        self.leave(&taken, channel).await;
                        return End::TakenOver;
                    }
                    None => continue,
                },
            };
            self.perform(actions).await;
        };
        self.shut_down().await;
        let _ = waiting.send(Answer::Ended);
        End::Down
    }

    /// A server without devices that does not listen. `takes_over`: its workers stand still, and
    /// are so many.
    fn assemble(
        mut config: ServerConfig,
        log: Log,
        takes_over: Option<u16>,
    ) -> Result<Self, ServerError> {
        refuse_unsupported(&config)?;
        link_local::choose(&mut config);
        privileges::check().map_err(HostError::from)?;
        let workers = WorkersConfig {
            count: takes_over.unwrap_or_else(|| worker_count(&config)),
            split_directions: config.split_directions,
            local: None,
            mark: None,
            sessions_max: config.limits.sessions_max as usize,
            fast_path: config.fast_path,
            look_ahead: config.look_ahead,
            is_held: takes_over.is_some(),
        };
        let endpoint = endpoint_config(&config);
        let debug = Rc::new(Cell::new(config.log.debug));
        let trace = Some(trace_to(log.clone(), Rc::clone(&debug)));
        let engine = Engine::start(endpoint, TransportConfig::default(), workers, trace)
            .map_err(HostError::from)?;
        let pool = config.address_pool();
        Ok(Self {
            config,
            engine,
            netlink: Netlink::open().map_err(HostError::from)?,
            log,
            debug,
            pool,
            tuns: Vec::new(),
            sessions: HashMap::new(),
            scripts_running: Vec::new(),
            sockets: None,
        })
    }

    async fn start(config: ServerConfig, log: Log) -> Result<Self, ServerError> {
        let mut server = Self::assemble(config, log, None)?;
        server.open_tuns().await?;
        server.listen().await?;
        server.write_pid_file()?;
        if server.config.split_directions && server.engine.workers.count() == 1 {
            server
                .log
                .line("split_directions does nothing: it needs two workers");
        }
        if server.config.proxy_arp {
            server
                .log
                .line("proxyarp is not done: route the clients' addresses to this machine");
        }
        Ok(server)
    }

    fn toggle_debug(&self) -> Answer {
        self.debug.set(!self.debug.get());
        Answer::Done
    }

    async fn open_tuns(&mut self) -> Result<(), HostError> {
        for worker in 0..self.engine.workers.count() {
            let TunDevice { fd, name, features } =
                tun::open(&format!("{}%d", self.config.interface_prefix))?;
            let (index, _) = self.netlink.link(&name).await?;
            ipv6::choose_no_address(&name);
            if let LocalAddresses::Shared(local) = self.config.local {
                self.netlink.add_address(index, local, None, 32).await?;
            }
            self.netlink
                .set_up(index, Some(self.config.link.lcp.mtu))
                .await?;
            self.add_link_local(index).await;
            let tun = TunId(u32::from(worker));
            let fd = Arc::new(fd);
            let attach = Command::AttachTun {
                tun,
                fd: Arc::clone(&fd),
                features,
                owner: None,
                role: Role::Both,
            };
            // The device of the calls that this worker receives.
            self.engine.command(CallId(worker), attach);
            self.tuns.push(SharedTun {
                index,
                name,
                fd,
                features,
            });
        }
        Ok(())
    }

    async fn listen(&mut self) -> Result<(), ServerError> {
        self.listen_on(self.config.listen.clone()).await
    }

    async fn listen_on(&mut self, addresses: Vec<SocketAddrV4>) -> Result<(), ServerError> {
        for address in addresses {
            let mut tries = 0;
            while let Err(error) = self.engine.listen(address) {
                let is_busy = error.kind() == std::io::ErrorKind::AddrInUse;
                if !is_busy || tries == BUSY_RETRIES {
                    return Err(ServerError::Listen {
                        address: address.to_string(),
                        cause: error.to_string(),
                    });
                }
                tries += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            self.log.line(&format!("Listening for PPTP on {address}"));
        }
        Ok(())
    }

    fn write_pid_file(&self) -> Result<(), ServerError> {
        let Some(path) = &self.config.pid_file else {
            return Ok(());
        };
        let pid = format!("{}\n", std::process::id());
        std::fs::write(path, pid).map_err(|cause| ServerError::PidFile {
            path: path.display().to_string(),
            cause,
        })
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match &action {
                Action::Install { call_id, peer, .. } => {
                    let session = Session {
                        peer: peer.to_string(),
                        since: Some(Instant::now()),
                        ..Session::default()
                    };
                    self.sessions.insert(*call_id, session);
                    self.say(*call_id, "call established");
                }
                Action::Report { call_id, report } => self.report(*call_id, report),
                Action::Authenticate {
                    call_id,
                    request_id,
                    request,
                } => actions.extend(self.admit(*call_id, *request_id, request)),
                Action::AssignAddresses { call_id } => actions.extend(self.assign(*call_id)),
                Action::NetworkUp { call_id, network } => {
                    self.network_up(*call_id, network.clone()).await;
                }
                Action::NetworkDown { call_id } => self.network_down(*call_id).await,
                Action::Ipv6Up { call_id, ipv6 } => self.ipv6_up(*call_id, *ipv6).await,
                Action::Ipv6Down { call_id } => self.ipv6_down(*call_id).await,
                Action::Ended { call_id, ending } => self.ended(*call_id, ending),
                _ => {}
            }
            self.engine.perform(action);
        }
    }

    fn say(&self, call_id: CallId, text: &str) {
        let session = self.sessions.get(&call_id);
        let peer = session.map_or("?", |session| session.peer.as_str());
        self.log
            .line(&format!("[{peer} call {}] {text}", call_id.0));
    }

    fn report(&self, call_id: CallId, report: &Report) {
        match report {
            Report::Line(line) | Report::CipherUp(line) => self.say(call_id, line),
            Report::PeerAuthenticated(_) => self.start_script(Script::AuthUp, call_id, None),
            Report::LinkUp | Report::NetworkPhase => {}
        }
    }

    /// Lets IP through.
    fn open_network(&mut self, call_id: CallId, network: &Network) {
        let worker = usize::from(call_id.receiver(self.engine.workers.count()));
        let spec = NetworkSpec {
            tun: TunId(worker as u32),
            local: network.local,
            peer: network.remote,
            compress_protocol: network.compress_protocol,
            compress_address_control: network.compress_address_control,
            require_encryption: network.require_encryption,
            check_source: true,
        };
        self.engine.command(
            call_id,
            Command::OpenNetwork {
                call_id,
                network: spec,
            },
        );
        let mtu = Some(network.mtu);
        self.engine
            .command(call_id, Command::ClampMss { call_id, mtu });
    }

    async fn network_up(&mut self, call_id: CallId, network: Network) {
        self.open_network(call_id, &network);
        let worker = usize::from(call_id.receiver(self.engine.workers.count()));
        let index = self.tuns[worker].index;
        if let LocalAddresses::PerSession(_) = self.config.local {
            let added = self
                .netlink
                .add_address(index, network.local, None, 32)
                .await;
            if let Err(error) = added {
                self.say(call_id, &error.to_string());
            }
        }
        let route = self
            .netlink
            .add_host_route(index, network.remote, network.local, network.mtu);
        if let Err(error) = route.await {
            self.say(call_id, &error.to_string());
        }
        self.start_script(Script::IpUp, call_id, Some(&network));
        if let Some(session) = self.sessions.get_mut(&call_id) {
            let now = Instant::now();
            session.network = Some(Standing {
                agreed: network,
                ipv6: None,
                since: now,
                packets: 0,
                busy_at: now,
            });
        }
    }

    async fn network_down(&mut self, call_id: CallId) {
        self.ipv6_down(call_id).await;
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let Some(Standing {
            agreed: network,
            since,
            ..
        }) = session.network.take()
        else {
            return;
        };
        self.start_script(Script::IpDown, call_id, Some(&network));
        let worker = usize::from(call_id.receiver(self.engine.workers.count()));
        self.netlink
            .remove_host_route(self.tuns[worker].index, network.remote)
            .await;
        let minutes = since.elapsed().as_secs_f64() / 60.0;
        self.say(call_id, &format!("Connect time {minutes:.1} minutes."));
        if let Some(counters) = self.engine.counters(call_id) {
            let (sent, received) = (counters.sent_bytes.get(), counters.received_bytes.get());
            self.say(
                call_id,
                &format!("Sent {sent} bytes, received {received} bytes."),
            );
        }
    }

    fn ended(&mut self, call_id: CallId, ending: &Ending) {
        self.say(call_id, &format!("ended: {ending}"));
        let proved = self.sessions.get(&call_id);
        if proved.is_some_and(|session| !session.user.is_empty()) {
            self.start_script(Script::AuthDown, call_id, None);
        }
        let Some(session) = self.sessions.remove(&call_id) else {
            return;
        };
        self.remember_scripts(session.turn);
        if let Some(address) = session.address {
            self.pool.release(address);
        }
    }

    /// Ends sessions that have been idle, or have stood, for too long.
    fn check_limits(&mut self) -> Vec<Action> {
        let timeouts = &self.config.timeouts;
        if timeouts.idle_ms.is_none() && timeouts.session_ms.is_none() {
            return Vec::new();
        }
        let is_over = |limit_ms: Option<u64>, since: Instant| {
            limit_ms.is_some_and(|limit| since.elapsed() >= Duration::from_millis(limit))
        };
        let mut over = Vec::new();
        for (call_id, session) in &mut self.sessions {
            let (Some(standing), Some(counters)) =
                (&mut session.network, self.engine.counters(*call_id))
            else {
                continue;
            };
            let packets = counters.sent_packets.get() + counters.received_packets.get();
            if packets != standing.packets {
                standing.packets = packets;
                standing.busy_at = Instant::now();
            }
            if is_over(timeouts.session_ms, standing.since) {
                over.push((*call_id, Ending::ConnectTimeout.to_string()));
            } else if is_over(timeouts.idle_ms, standing.busy_at) {
                over.push((*call_id, Ending::IdleTimeout.to_string()));
            }
        }
        over.into_iter()
            .flat_map(|(call_id, reason)| {
                self.engine.handle_event(Event::HangUp { call_id, reason })
            })
            .collect()
    }

    async fn shut_down(&mut self) {
        let limit = Duration::from_millis(self.config.timeouts.shutdown_ms);
        let mut actions = self.engine.handle_event(Event::Shutdown);
        let orderly = async {
            loop {
                let idle = actions.iter().any(|action| matches!(action, Action::Idle));
                self.perform(std::mem::take(&mut actions)).await;
                if idle {
                    return;
                }
                let input = self.engine.next().await;
                actions = self.engine.handle(input);
            }
        };
        let _ = tokio::time::timeout(limit, orderly).await;
        for worker in 0..self.engine.workers.count() {
            let tun = TunId(u32::from(worker));
            let detach = Command::DetachTun { tun };
            self.engine.command(CallId(worker), detach);
        }
        self.tuns.clear();
        self.engine.stop(limit).await;
        self.wait_for_scripts(limit).await;
        if let Some(path) = &self.config.pid_file {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Options that the files know and this version does not do: better refused than passed over.
const fn refuse_unsupported(config: &ServerConfig) -> Result<(), ServerError> {
    if config.vrf.is_some() {
        return Err(ServerError::Unsupported("a VRF"));
    }
    if config.interface_per_session {
        return Err(ServerError::Unsupported("an interface for every session"));
    }
    Ok(())
}

/// One a core, unless the configuration says.
fn worker_count(config: &ServerConfig) -> u16 {
    let cores = std::thread::available_parallelism().ok();
    let count = config
        .workers
        .or(cores)
        .map_or(1, std::num::NonZeroUsize::get);
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn endpoint_config(config: &ServerConfig) -> EndpointConfig {
    let limits = &config.limits;
    EndpointConfig {
        host_name: config.link.name.clone(),
        link: Some(Arc::new(config.link.clone())),
        limits: Limits {
            connections_max: limits.sessions_max as usize + limits.half_open_max as usize,
            connections_per_peer_max: limits.connections_per_peer_max as usize,
            half_open_max: limits.half_open_max as usize,
            calls_max: limits.sessions_max as usize,
            calls_per_connection_max: limits.calls_per_connection_max as usize,
        },
        timers: Timers {
            start_ms: config.timeouts.first_message_ms,
            echo_idle_ms: config.timeouts.echo_interval_ms,
            echo_wait_ms: config.timeouts.echo_wait_ms,
            ..Timers::default()
        },
        ..EndpointConfig::default()
    }
}

fn trace_to(log: Log, debug: Rc<Cell<bool>>) -> Trace {
    Box::new(move |call_id, direction, frame| {
        if !debug.get() {
            return;
        }
        let verb = match direction {
            Direction::Sent => "sent",
            Direction::Rcvd => "rcvd",
        };
        let packet = packet_log::describe(frame);
        log.line(&format!("[call {}] {verb} {packet}", call_id.0));
    })
}
