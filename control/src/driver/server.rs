//! Many tunnels as a server: one TUN device a worker, an address pool, secrets.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::program::{CallId, Command, NetworkSpec, TunId};
use dataplane::sys::tun;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Answer, Asked, Request, ServerStatus, TunnelStatus};
use super::engine::{Direction, Engine, Trace};
use super::log::Log;
use super::netlink::{Netlink, NetlinkError};
use super::privileges;
use super::transport::TransportConfig;
use super::workers::WorkersConfig;
use crate::config::secrets::Entry;
use crate::config::server::{LocalAddresses, ServerConfig};
use crate::proto::auth::{self, AuthMethod, AuthRequest, Secrets, Verdict};
use crate::proto::ending::Ending;
use crate::proto::endpoint::{EndpointConfig, Limits, Timers};
use crate::proto::link::{Addresses, Network, Report};
use crate::proto::pool::AddressPool;
use crate::proto::{Action, Event};
use crate::wire::log as packet_log;

/// Microsoft's error codes (RFC 2759 6).
const WRONG_NAME_OR_PASSWORD: u32 = 691;
const NO_DIAL_IN: u32 = 649;

/// pppd's words to a peer that is turned away.
fn denied() -> String {
    "Access denied".to_owned()
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The user: not enough privileges.
    #[error(transparent)]
    Privileges(#[from] privileges::Missing),
    /// The machine: what the data plane needs is not there.
    #[error(transparent)]
    DataPlane(#[from] dataplane::handle::StartError),
    /// The machine: no TUN device.
    #[error(transparent)]
    Tun(#[from] tun::TunError),
    /// The machine: addresses or routes refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
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
            Self::Privileges(_) => 3,
            Self::DataPlane(_) => 4,
            Self::Tun(_) | Self::Netlink(_) | Self::Listen { .. } => 1,
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
    mut requests: mpsc::Receiver<Asked>,
    ready: oneshot::Sender<()>,
) -> Result<(), ServerError> {
    let mut server = Server::start(config, log).await?;
    let _ = ready.send(());
    let waiting = loop {
        let actions = tokio::select! {
            input = server.engine.next() => server.engine.handle(input),
            Some((request, answer)) = requests.recv() => match request {
                Request::Down => break answer,
                Request::Status => {
                    let _ = answer.send(Answer::Server(server.status()));
                    continue;
                }
            },
        };
        server.perform(actions).await;
    };
    server.shut_down().await;
    let _ = waiting.send(Answer::Ended);
    Ok(())
}

/// A TUN device that all sessions of one worker share.
struct SharedTun {
    index: u32,
    name: String,
}

/// What the server remembers of one call beside what the endpoint does.
#[derive(Default)]
struct Session {
    peer: String,
    user: String,
    /// From the pool, to be given back.
    address: Option<Ipv4Addr>,
    network: Option<(Network, Instant)>,
}

struct Server {
    config: ServerConfig,
    engine: Engine,
    netlink: Netlink,
    log: std::rc::Rc<std::cell::RefCell<Log>>,
    pool: AddressPool,
    tuns: Vec<SharedTun>,
    sessions: HashMap<CallId, Session>,
}

impl Server {
    async fn start(config: ServerConfig, log: Log) -> Result<Self, ServerError> {
        privileges::check()?;
        let log = std::rc::Rc::new(std::cell::RefCell::new(log));
        let workers = WorkersConfig {
            count: worker_count(&config),
            local: None,
            sessions_max: config.limits.sessions_max as usize,
        };
        let endpoint = endpoint_config(&config);
        let trace = config.log.debug.then(|| trace_to(std::rc::Rc::clone(&log)));
        let engine = Engine::start(endpoint, TransportConfig::default(), workers, trace)?;
        let pool = config.address_pool();
        let mut server = Self {
            config,
            engine,
            netlink: Netlink::open()?,
            log,
            pool,
            tuns: Vec::new(),
            sessions: HashMap::new(),
        };
        server.open_tuns().await?;
        server.listen()?;
        Ok(server)
    }

    async fn open_tuns(&mut self) -> Result<(), ServerError> {
        for worker in 0..self.engine.workers.count() {
            let (fd, name) = tun::open(&format!("{}%d", self.config.interface_prefix))?;
            let (index, _) = self.netlink.link(&name).await?;
            if let LocalAddresses::Shared(local) = self.config.local {
                self.netlink.add_address(index, local, None, 32).await?;
            }
            self.netlink
                .set_up(index, Some(self.config.link.lcp.mtu))
                .await?;
            let tun = TunId(u32::from(worker));
            let attach = Command::AttachTun {
                tun,
                fd,
                owner: None,
            };
            self.engine.workers.send_to(usize::from(worker), attach);
            self.tuns.push(SharedTun { index, name });
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), ServerError> {
        for address in &self.config.listen {
            self.engine
                .listen(*address)
                .map_err(|error| ServerError::Listen {
                    address: address.to_string(),
                    cause: error.to_string(),
                })?;
            let line = format!("Listening for PPTP on {address}");
            self.log.borrow_mut().line(&line);
        }
        Ok(())
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match &action {
                Action::Install { call_id, peer, .. } => {
                    let session = Session {
                        peer: peer.to_string(),
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
                } => {
                    let verdict = self.authenticate(*call_id, request);
                    let (call_id, request_id) = (*call_id, *request_id);
                    let event = Event::Verdict {
                        call_id,
                        request_id,
                        verdict,
                    };
                    let more = self.engine.handle_event(event);
                    Box::pin(self.perform(more)).await;
                }
                Action::NetworkUp { call_id, network } => {
                    self.network_up(*call_id, network.clone()).await;
                }
                Action::NetworkDown { call_id } => self.network_down(*call_id).await,
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
            .borrow_mut()
            .line(&format!("[{peer} call {}] {text}", call_id.0));
    }

    fn report(&mut self, call_id: CallId, report: &Report) {
        match report {
            Report::Line(line) | Report::CipherUp(line) => self.say(call_id, line),
            Report::PeerAuthenticated(user) => {
                if let Some(session) = self.sessions.get_mut(&call_id) {
                    session.user.clone_from(user);
                }
            }
            Report::LinkUp => {}
        }
    }

    fn authenticate(&mut self, call_id: CallId, request: &AuthRequest) -> Verdict {
        let pap = request.method == AuthMethod::Pap;
        let (client, server) = (&request.peer_name, &request.our_name);
        let secret = self.config.secrets.find(client, server, pap);
        let proof = match auth::verify(request, secret.as_ref()) {
            Ok(proof) => proof,
            Err(auth::Denied) => {
                return Verdict::Reject {
                    code: WRONG_NAME_OR_PASSWORD,
                    message: denied(),
                };
            }
        };
        let entry = self.config.secrets.entry(client, server, pap);
        let fixed = entry.and_then(Entry::fixed_address);
        match self.addresses(call_id, fixed) {
            Some(addresses) => Verdict::Accept {
                proof,
                message: self.config.welcome.clone(),
                addresses,
            },
            None => {
                self.say(call_id, "no address left for this user: enlarge the pool");
                Verdict::Reject {
                    code: NO_DIAL_IN,
                    message: denied(),
                }
            }
        }
    }

    /// Addresses for a session. A peer that proves itself again keeps those that it has.
    fn addresses(&mut self, call_id: CallId, fixed: Option<Ipv4Addr>) -> Option<Addresses> {
        let session = self.sessions.get_mut(&call_id)?;
        let remote = match (session.address, fixed) {
            (Some(held), _) => held,
            (None, Some(fixed)) => self.pool.allocate_fixed(fixed).then_some(fixed)?,
            (None, None) => self.pool.allocate(rand::random())?,
        };
        session.address = Some(remote);
        let index = self.config.pool.index_of(remote).unwrap_or(0);
        Some(Addresses {
            local: self.config.local.for_client(index),
            remote: Some(remote),
            accept_local: false,
            accept_remote: false,
            ..self.config.link.addresses.clone()
        })
    }

    async fn network_up(&mut self, call_id: CallId, network: Network) {
        let worker = usize::from(call_id.0 % self.engine.workers.count());
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
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.network = Some((network, Instant::now()));
        }
    }

    async fn network_down(&mut self, call_id: CallId) {
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let Some((network, since)) = session.network.take() else {
            return;
        };
        let worker = usize::from(call_id.0 % self.engine.workers.count());
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
        if let Some(address) = self
            .sessions
            .remove(&call_id)
            .and_then(|session| session.address)
        {
            self.pool.release(address);
        }
    }

    fn status(&self) -> ServerStatus {
        let mut sessions: Vec<(CallId, &Session)> = self
            .sessions
            .iter()
            .map(|(call_id, session)| (*call_id, session))
            .collect();
        sessions.sort_by_key(|(call_id, _)| *call_id);
        ServerStatus {
            pid: std::process::id(),
            listen: self.config.listen.iter().map(ToString::to_string).collect(),
            sessions: sessions
                .into_iter()
                .map(|(call_id, session)| self.session_status(call_id, session))
                .collect(),
        }
    }

    fn session_status(&self, call_id: CallId, session: &Session) -> TunnelStatus {
        let worker = usize::from(call_id.0 % self.engine.workers.count());
        let network = session.network.as_ref();
        let mut status = TunnelStatus {
            name: session.user.clone(),
            state: if network.is_some() {
                "up"
            } else {
                "connecting"
            }
            .to_owned(),
            interface: self.tuns[worker].name.clone(),
            peer: session.peer.clone(),
            local_ip: network.map(|(network, _)| network.local.to_string()),
            peer_ip: network.map(|(network, _)| network.remote.to_string()),
            cipher: network.map(|(network, _)| network.cipher.clone()),
            uptime_s: network.map(|(_, since)| since.elapsed().as_secs()),
            pid: std::process::id(),
            ..TunnelStatus::default()
        };
        if let Some(counters) = self.engine.counters(call_id) {
            status.count(counters);
        }
        status
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
        for worker in 0..self.tuns.len() {
            let detach = Command::DetachTun {
                tun: TunId(worker as u32),
            };
            self.engine.workers.send_to(worker, detach);
        }
        self.engine.stop(limit).await;
    }
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

fn trace_to(log: std::rc::Rc<std::cell::RefCell<Log>>) -> Trace {
    Box::new(move |call_id, direction, frame| {
        let verb = match direction {
            Direction::Sent => "sent",
            Direction::Rcvd => "rcvd",
        };
        let packet = packet_log::describe(frame);
        log.borrow_mut()
            .line(&format!("[call {}] {verb} {packet}", call_id.0));
    })
}
