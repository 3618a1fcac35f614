//! Many tunnels as a server: one TUN device a worker, an address pool, secrets.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::impairment::Impairment;
use dataplane::program::{CallId, Command, NetworkSpec, Role, TunId};
use dataplane::sys::tun::{self, TunDevice};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::admin::{Answer, Asked, Request};
use super::descriptors;
use super::engine::{Direction, Engine, Trace};
use super::host_error::HostError;
use super::ipv6;
use super::log::Log;
use super::netlink::Netlink;
use super::privileges;
use super::scripts::Script;
use super::transport::TransportConfig;
use super::workers::{WorkersConfig, tun_queue};
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
mod metrics;
mod observe;
mod operate;
mod reload;
pub mod snapshot;
mod status;

pub use operate::admin_group;

use observe::Observer;
use operate::Operation;

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
    /// The operator: metrics cannot be served there.
    #[error("cannot serve metrics on {address}: {cause}. Give [metrics] another address")]
    Metrics {
        /// Address and port, or a path.
        address: String,
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
            Self::PidFile { .. } | Self::Metrics { .. } | Self::Listen { .. } => 1,
        }
    }
}

/// Runs a server until `requests` asks for its end, or it has drained. `ready` is told when it
/// listens.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: ServerConfig,
    log: Log,
    mut requests: mpsc::Receiver<Asked>,
    ready: oneshot::Sender<()>,
) -> Result<(), ServerError> {
    let mut server = Server::start(config, log).await?;
    let mut scrapes = server.serve_metrics()?;
    let _ = ready.send(());
    let mut limit_check = tokio::time::interval(LIMIT_CHECK);
    let waiting = loop {
        let actions = tokio::select! {
            input = server.engine.next() => {
                server.observer.look_at(&input, server.engine.next_accepted());
                server.engine.handle(input)
            }
            _ = limit_check.tick() => server.check_limits(),
            Some((request, answer)) = either(&mut requests, &mut scrapes) => {
                let (reply, actions) = match request {
                    Request::Down => break Some(answer),
                    Request::Operate(order) => server.operate(order),
                    request => (server.answer(request), Vec::new()),
                };
                let _ = answer.send(reply);
                actions
            }
        };
        server.perform(actions).await;
        if server.is_drained() {
            server.log.line("No calls are left: the server ends");
            break None;
        }
    };
    server.shut_down().await;
    if let Some(waiting) = waiting {
        let _ = waiting.send(Answer::Ended);
    }
    Ok(())
}

/// The next request, from whichever side.
async fn either(
    one: &mut mpsc::Receiver<Asked>,
    other: &mut mpsc::Receiver<Asked>,
) -> Option<Asked> {
    tokio::select! {
        Some(asked) = one.recv() => Some(asked),
        Some(asked) = other.recv() => Some(asked),
        else => None,
    }
}

/// A TUN device that all sessions of one worker share.
struct SharedTun {
    index: u32,
    name: String,
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
    observer: Observer,
    operation: Operation,
}

impl Server {
    async fn start(mut config: ServerConfig, log: Log) -> Result<Self, ServerError> {
        refuse_unsupported(&config)?;
        link_local::choose(&mut config);
        privileges::check().map_err(HostError::from)?;
        let workers = WorkersConfig {
            count: worker_count(&config),
            split_directions: config.split_directions,
            local: None,
            mark: None,
            sessions_max: config.limits.sessions_max as usize,
            fast_path: config.fast_path,
            look_ahead: config.look_ahead,
            impairment: Impairment::default(),
        };
        let endpoint = endpoint_config(&config);
        if let Err(few) = descriptors::make_room_for(endpoint.limits.connections_max as u64) {
            log.line(&few.to_string());
        }
        let debug = Rc::new(Cell::new(config.log.debug));
        let trace = Some(trace_to(log.clone(), Rc::clone(&debug)));
        let engine = Engine::start(endpoint, TransportConfig::default(), workers, trace)
            .map_err(HostError::from)?;
        let pool = config.address_pool();
        let mut server = Self {
            config,
            engine,
            netlink: Netlink::open().map_err(HostError::from)?,
            log,
            debug,
            pool,
            tuns: Vec::new(),
            sessions: HashMap::new(),
            scripts_running: Vec::new(),
            observer: Observer::default(),
            operation: Operation::default(),
        };
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

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Server(self.status()),
            Request::HangUp => self.reload(),
            Request::Capture(wish) => self.capture(wish),
            Request::Snapshot(part) => Answer::Snapshot(Box::new(self.snapshot(part))),
            Request::ToggleDebug => {
                self.debug.set(!self.debug.get());
                Answer::Done
            }
            // Each client's affair, or answered elsewhere.
            Request::RenegotiateCompression | Request::Down | Request::Operate(_) => Answer::Done,
        }
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
            let sessions_max = self.config.limits.sessions_max as usize;
            self.netlink
                .set_queue(index, tun_queue(sessions_max))
                .await?;
            self.add_link_local(index).await;
            let tun = TunId(u32::from(worker));
            let attach = Command::AttachTun {
                tun,
                fd: fd.into(),
                features,
                owner: None,
                role: Role::Both,
            };
            // The device of the calls that this worker receives.
            self.engine.command(CallId(worker), attach);
            self.tuns.push(SharedTun { index, name });
        }
        Ok(())
    }

    async fn listen(&mut self) -> Result<(), ServerError> {
        for address in self.config.listen.clone() {
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
            self.observe(&action);
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
        let prefix = format!("[{peer} call {}]", call_id.0);
        self.log.session_line(call_id.0, "line", &prefix, text);
    }

    fn report(&self, call_id: CallId, report: &Report) {
        match report {
            Report::Line(line) | Report::CipherUp(line) => self.say(call_id, line),
            Report::PeerAuthenticated(_) => self.start_script(Script::AuthUp, call_id, None),
            Report::LinkUp | Report::NetworkPhase => {}
        }
    }

    async fn network_up(&mut self, call_id: CallId, network: Network) {
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
        self.forget_captures();
        self.observer.tidy();
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
        let prefix = format!("[call {}]", call_id.0);
        let text = format!("{verb} {packet}");
        log.session_line(call_id.0, "packet", &prefix, &text);
    })
}
