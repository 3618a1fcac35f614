//! Many tunnels as a server: one TUN device a worker, an address pool, secrets.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::impairment::Impairment;
use dataplane::program::{CallId, Command, TunId};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use self::takeover::{End, Sockets};
use super::admin::records::Order;
use super::admin::{Answer, Asked, Request};
use super::descriptors::DescriptorsError;
use super::engine::{Direction, Engine, Trace};
use super::host_error::HostError;
use super::kernel_writer::{KernelWriter, WriterError};
use super::lease_file::LeaseFileError;
use super::log::Log;
use super::privileges;
use super::scripts::Script;
use super::service;
use super::transport::TransportConfig;
use super::workers::WorkersConfig;
use crate::config::server::ServerConfig;
use crate::proto::ending::Ending;
use crate::proto::endpoint::{EndpointConfig, Limits, Timers};
use crate::proto::link::{Ipv6Network, Network, Report};
use crate::proto::{Action, Event};
use crate::wire::log as packet_log;

use attributes::SessionAttributes;
use host_rules::HostRules;
use proxy_arp::ProxyArp;
use radius::Radius;

mod admission;
pub mod attributes;
mod hooks;
mod host_rules;
mod leases;
mod link_local;
mod metrics;
mod network;
mod observe;
mod operate;
mod proxy_arp;
mod quiet;
mod radius;
mod refusals;
mod reload;
pub mod snapshot;
mod status;
pub mod takeover;
mod traffic;

pub use host_rules::HostRulesError;
pub use operate::admin_group;

use leases::Leases;
use network::{Held, SharedTun, Way};
use observe::Observer;
use operate::Operation;
use refusals::Refusals;
use reload::Reloading;

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
    /// The operator: the place where tunnels are to end.
    #[error(transparent)]
    Place(#[from] WriterError),
    /// The operator: the file that was asked for.
    #[error(transparent)]
    Leases(LeaseFileError),
    /// The machine or its administrator: no device for the tunnels.
    #[error("{0}")]
    Device(String),
    /// What [traffic] wants of the host.
    #[error(transparent)]
    HostRules(#[from] HostRulesError),
    /// The operator: more sessions than devices.
    #[error(
        "with interface = \"per-session\" there are at most {0} sessions, 4096 for each worker: set \
         limits.sessions_max to that, or dataplane.workers higher"
    )]
    TooManyInterfaces(usize),
    /// The operator: every session has descriptors.
    #[error(transparent)]
    Descriptors(#[from] DescriptorsError),
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
    /// The operator: no socket for RADIUS, or its port is taken.
    #[error("cannot open the sockets for RADIUS: {0}; look at `bind` and `listen` of [radius]")]
    Radius(std::io::Error),
    /// The operator: the address cannot be listened on.
    #[error(
        "cannot listen on {address}: {cause}. Another PPTP server may be running (ss -ltnp 'sport \
         = 1723'), or the address is not of this machine"
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
            Self::Device(_) => 4,
            Self::TooManyInterfaces(_) => 2,
            Self::Place(_)
            | Self::HostRules(_)
            | Self::Leases(_)
            | Self::Descriptors(_)
            | Self::PidFile { .. }
            | Self::Metrics { .. }
            | Self::Radius(_)
            | Self::Listen { .. } => 1,
        }
    }
}

/// Runs a server until `requests` asks for its end, or it has drained; no other process can take
/// over. `ready` is told when it listens.
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
    let scrapes = server.serve_metrics()?;
    let _ = ready.send(());
    server.work(requests, scrapes).await;
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

/// What the server remembers of one call beside what the endpoint does.
#[derive(Default)]
struct Session {
    /// Outer address.
    peer: String,
    /// Who it is, and what is particular to it.
    attributes: SessionAttributes,
    /// From the pool, to be given back.
    address: Option<Ipv4Addr>,
    network: Option<Standing>,
    /// What its packets take between here and the kernel.
    way: Way,
    /// Its address is not on record yet.
    awaits_record: bool,
    /// While the kernel, or the lease file, is still at work for it.
    held: Option<Held>,
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
    kernel: KernelWriter,
    log: Log,
    /// Whether packets of negotiations are logged.
    debug: Rc<Cell<bool>>,
    leases: Leases,
    reloading: Reloading,
    tuns: Vec<SharedTun>,
    sessions: HashMap<CallId, Session>,
    radius: Option<Radius>,
    /// Of sessions that have ended while a script of theirs ran.
    scripts_running: Vec<Arc<Mutex<()>>>,
    observer: Observer,
    refusals: Refusals,
    operation: Operation,
    /// Those that go to a process that takes over.
    sockets: Option<Sockets>,
    host_rules: HostRules,
    proxy_arp: Option<ProxyArp>,
}

impl Server {
    /// Serves until `requests` asks for the end, or it has drained, or another process goes on.
    async fn work(
        &mut self,
        mut requests: mpsc::Receiver<Asked>,
        mut scrapes: mpsc::Receiver<Asked>,
    ) -> End {
        service::ready(&self.summary());
        let mut successors = self.greet_successors();
        let mut limit_check = tokio::time::interval(LIMIT_CHECK);
        let waiting = loop {
            let actions = tokio::select! {
                input = self.engine.next() => {
                    self.observer.look_at(&input, self.engine.next_accepted());
                    self.engine.handle(input)
                }
                done = self.kernel.next() => self.kernel_done(done),
                kept = self.leases.next() => self.lease_kept(kept),
                _ = limit_check.tick() => {
                    service::status(&self.summary());
                    self.check_limits()
                }
                () = service::beat() => continue,
                input = Radius::next(&mut self.radius) => self.handle_radius(input),
                read = self.reloading.next() => {
                    self.reloaded(read);
                    continue;
                }
                Some((request, answer)) = either(&mut requests, &mut scrapes) => {
                    let (reply, actions) = match request {
                        Request::Down => break Some(answer),
                        // What daemons do on HUP; there is no link that it could mean.
                        Request::HangUp | Request::Operate(Order::Reload) => {
                            self.reload(answer);
                            continue;
                        }
                        Request::Operate(order) => self.operate(order),
                        request => (self.answer(request), Vec::new()),
                    };
                    let _ = answer.send(reply);
                    actions
                }
                Some(successor) = successors.recv() => {
                    match service::beat_during(self.hand_over(successor)).await {
                        Some((taken, channel)) => {
                            self.leave(&taken, channel).await;
                            return End::TakenOver;
                        }
                        None => continue,
                    }
                }
            };
            self.perform(actions);
            if self.is_drained() {
                self.log.line("No calls are left: the server ends");
                break None;
            }
        };
        service::stopping();
        service::beat_during(self.shut_down()).await;
        if let Some(waiting) = waiting {
            let _ = waiting.send(Answer::Ended);
        }
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
        network::check_descriptors(&config)?;
        let leases = match takes_over {
            Some(_) => Leases::unknown(&config),
            None => Leases::open(&config, &log)?,
        };
        // Before the workers, which hold what cannot be given back at once.
        let kernel = KernelWriter::start(network::place(&config))?;
        // What is wanted of the host is there already where another process served.
        let host_rules = match takes_over {
            Some(_) => HostRules::default(),
            None => HostRules::open(&config)?,
        };
        let workers = WorkersConfig {
            count: takes_over.unwrap_or_else(|| worker_count(&config)),
            split_directions: config.split_directions,
            local: None,
            mark: None,
            dont_fragment: false,
            sessions_max: config.limits.sessions_max as usize,
            fast_path: config.fast_path,
            look_ahead: config.look_ahead,
            impairment: Impairment::default(),
            is_held: takes_over.is_some(),
        };
        let endpoint = endpoint_config(&config);
        let debug = Rc::new(Cell::new(config.log.debug));
        let trace = Some(trace_to(log.clone(), Rc::clone(&debug)));
        let engine = Engine::start(endpoint, TransportConfig::default(), workers, trace)
            .map_err(HostError::from)?;
        let refusals = Refusals::new(&config);
        Ok(Self {
            config,
            refusals,
            engine,
            kernel,
            log,
            debug,
            leases,
            reloading: Reloading::default(),
            tuns: Vec::new(),
            sessions: HashMap::new(),
            radius: None,
            scripts_running: Vec::new(),
            observer: Observer::default(),
            operation: Operation::default(),
            host_rules,
            proxy_arp: None,
            sockets: None,
        })
    }

    async fn start(config: ServerConfig, log: Log) -> Result<Self, ServerError> {
        let mut server = Self::assemble(config, log, None)?;
        server.engine.set_access(Arc::clone(&server.config.access));
        server.open_tuns().await?;
        server.open_proxy_arp();
        server.open_radius()?;
        server.listen().await?;
        server.write_pid_file()?;
        if server.config.split_directions && server.engine.workers.count() == 1 {
            server
                .log
                .line("split_directions does nothing: it needs two workers");
        }
        privileges::give_up().map_err(HostError::from)?;
        Ok(server)
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Server(self.status()),
            Request::Capture(wish) => self.capture(wish),
            Request::Snapshot(part) => Answer::Snapshot(Box::new(self.snapshot(part))),
            Request::ToggleDebug => {
                self.debug.set(!self.debug.get());
                Answer::Done
            }
            // Each client's affair, or answered elsewhere.
            Request::RenegotiateCompression
            | Request::Down
            | Request::HangUp
            | Request::Operate(_) => Answer::Done,
        }
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

    fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let Some(action) = self.hold(action) else {
                continue;
            };
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
                Action::PrepareNetwork { call_id, network } => {
                    self.prepare_network(*call_id, network);
                }
                Action::NetworkUp { call_id, network } => {
                    self.network_up(*call_id, network.clone());
                }
                Action::NetworkDown { call_id } => self.network_down(*call_id),
                Action::Ipv6Up { call_id, ipv6 } => self.ipv6_up(*call_id, *ipv6),
                Action::Ipv6Down { call_id } => self.ipv6_down(*call_id),
                Action::Ended { call_id, ending } => self.ended(*call_id, ending),
                _ => {}
            }
            self.engine.perform(action);
        }
        self.hear_refusals();
    }

    fn say(&mut self, call_id: CallId, text: &str) {
        if !self.may_say(call_id) {
            return;
        }
        let session = self.sessions.get(&call_id);
        let peer = session.map_or("?", |session| session.peer.as_str());
        let prefix = format!("[{peer} call {}]", call_id.0);
        self.log.session_line(call_id.0, "line", &prefix, text);
    }

    fn report(&mut self, call_id: CallId, report: &Report) {
        match report {
            Report::Line(line) | Report::CipherUp(line) => self.say(call_id, line),
            Report::PeerAuthenticated(_) => self.start_script(Script::AuthUp, call_id, None),
            Report::LinkUp | Report::NetworkPhase => {}
        }
    }

    fn ended(&mut self, call_id: CallId, ending: &Ending) {
        self.say(call_id, &format!("ended: {ending}"));
        self.count_stalled(call_id, ending);
        self.account_stop(call_id, ending);
        let proved = self.sessions.get(&call_id);
        if proved.is_some_and(|session| !session.attributes.user.is_empty()) {
            self.start_script(Script::AuthDown, call_id, None);
        }
        let Some(session) = self.sessions.remove(&call_id) else {
            return;
        };
        self.remember_scripts(session.turn);
        self.take_way_apart(call_id, session.way);
        if let Some(address) = session.address {
            self.release_address(address);
        }
    }

    /// Ends sessions that have been idle, or have stood, for too long.
    fn check_limits(&mut self) -> Vec<Action> {
        self.forget_captures();
        self.observer.tidy();
        self.sum_refusals_up();
        let mut actions = self.release_overdue();
        actions.extend(self.end_overdue());
        actions
    }

    fn end_overdue(&mut self) -> Vec<Action> {
        let timeouts = &self.config.timeouts;
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
            let attributes = &session.attributes;
            let session_ms = attributes.session_timeout_ms.or(timeouts.session_ms);
            let idle_ms = attributes.idle_timeout_ms.or(timeouts.idle_ms);
            if is_over(session_ms, standing.since) {
                over.push((*call_id, Ending::ConnectTimeout.to_string()));
            } else if is_over(idle_ms, standing.busy_at) {
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
            let mut is_idle = false;
            loop {
                is_idle |= actions.iter().any(|action| matches!(action, Action::Idle));
                self.perform(std::mem::take(&mut actions));
                // Those that are held have ended, and have still to be taken apart.
                if is_idle && !self.sessions.values().any(|it| it.held.is_some()) {
                    return;
                }
                actions = tokio::select! {
                    input = self.engine.next() => self.engine.handle(input),
                    done = self.kernel.next() => self.kernel_done(done),
                    kept = self.leases.next() => self.lease_kept(kept),
                };
            }
        };
        let _ = tokio::time::timeout(limit, orderly).await;
        self.sum_all_refusals_up();
        self.account_rest();
        self.stop_answering_all_arp();
        let _ = tokio::time::timeout(limit, Radius::close(&mut self.radius)).await;
        for worker in 0..self.tuns.len() as u16 {
            let tun = TunId(u32::from(worker));
            let detach = Command::DetachTun { tun };
            self.engine.command(CallId(worker), detach);
        }
        self.tuns.clear();
        self.engine.stop(limit).await;
        self.kernel.finish(limit).await;
        self.leases.finish(limit).await;
        self.wait_for_scripts(limit).await;
        if let Some(path) = &self.config.pid_file {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Options that the files know and this version does not do: better refused than passed over.
const fn refuse_unsupported(config: &ServerConfig) -> Result<(), ServerError> {
    if config.vrf.is_some() {
        return Err(ServerError::Unsupported("listening in a VRF"));
    }
    // Packets of a VRF seem to come from it, not from the tunnel.
    if config.interface_vrf.is_some() && config.traffic.host.needs_table() {
        return Err(ServerError::Unsupported(
            "nat or client_to_client = false together with a VRF for tunnels",
        ));
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
    EndpointConfig {
        host_name: config.link.name.clone(),
        link: Some(Arc::new(config.link.clone())),
        limits: endpoint_limits(config),
        timers: Timers {
            start_ms: config.timeouts.first_message_ms,
            idle_ms: config.timeouts.first_call_ms,
            echo_idle_ms: config.timeouts.echo_interval_ms,
            echo_wait_ms: config.timeouts.echo_wait_ms,
            ..Timers::default()
        },
        ..EndpointConfig::default()
    }
}

fn endpoint_limits(config: &ServerConfig) -> Limits {
    let limits = &config.limits;
    let per_connection = limits.calls_per_connection_max as usize;
    let of_connections = (limits.connections_per_peer_max as usize).saturating_mul(per_connection);
    let or = |given: Option<u32>, default| given.map_or(default, |given| given as usize);
    Limits {
        connections_max: limits.sessions_max as usize + limits.half_open_max as usize,
        connections_per_peer_max: limits.connections_per_peer_max as usize,
        half_open_max: limits.half_open_max as usize,
        half_open_per_peer_max: or(limits.half_open_per_peer_max, usize::MAX),
        calls_max: limits.sessions_max as usize,
        calls_per_connection_max: per_connection,
        calls_per_peer_max: or(limits.sessions_per_peer_max, of_connections),
        half_open_calls_max: limits.half_open_calls_max as usize,
        half_open_calls_per_peer_max: or(limits.half_open_calls_per_peer_max, of_connections),
        peer_prefix_len: limits.peer_prefix_len,
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
        log.packet_line(call_id.0, &prefix, &format!("{verb} {packet}"));
    })
}
