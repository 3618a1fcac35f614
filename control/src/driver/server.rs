//! Many tunnels as a server: one TUN device a worker, an address pool, secrets.

use std::collections::HashMap;
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
use crate::config::server::ServerConfig;
use crate::proto::auth::{self, AuthMethod, AuthRequest, Verdict};
use crate::proto::ending::Ending;
use crate::proto::endpoint::EndpointConfig;
use crate::proto::link::{Addresses, Network, Report};
use crate::proto::pool::AddressPool;
use crate::proto::{Action, Event};
use crate::wire::log as packet_log;

/// For all tunnels to end in order.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The user: not enough privileges.
    #[error(transparent)]
    Privileges(#[from] privileges::Missing),
    /// The machine: what the data plane needs is not there.
    #[error(transparent)]
    DataPlane(#[from] dataplane::worker_handle::StartError),
    /// The machine: no TUN device.
    #[error(transparent)]
    Tun(#[from] tun::TunError),
    /// The machine: addresses or routes refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The operator: the address cannot be listened on.
    #[error("cannot listen on {address}: {cause}. Another PPTP server may be running (ss -ltnp 'sport = 1723'), or the address is not of this machine")]
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
    address: Option<std::net::Ipv4Addr>,
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
            count: config.worker_count(),
            local: None,
            sessions_max: config.limits.calls_max,
        };
        let endpoint = EndpointConfig {
            host_name: config.link.name.clone(),
            link: Some(Arc::new(config.link.clone())),
            limits: config.limits,
            timers: config.timers,
            ..EndpointConfig::default()
        };
        let trace = config.log.packets.then(|| trace_to(std::rc::Rc::clone(&log)));
        let engine = Engine::start(endpoint, TransportConfig::default(), workers, trace)?;
        let pool = AddressPool::new(config.pool.clone());
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
            self.netlink.add_address(index, self.config.local_ip, None, 32).await?;
            self.netlink.set_up(index, Some(self.config.link.lcp.mtu)).await?;
            let tun = TunId(u32::from(worker));
            let attach = Command::AttachTun { tun, fd, owner: None };
            self.engine.workers.send_to(usize::from(worker), attach);
            self.tuns.push(SharedTun { index, name });
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), ServerError> {
        for address in &self.config.listen {
            self.engine.listen(*address).map_err(|error| ServerError::Listen {
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
                    let session = Session { peer: peer.to_string(), ..Session::default() };
                    self.sessions.insert(*call_id, session);
                    self.say(*call_id, "call established");
                }
                Action::Report { call_id, report } => self.report(*call_id, report),
                Action::Authenticate { call_id, request_id, request } => {
                    let verdict = self.authenticate(*call_id, request);
                    let (call_id, request_id) = (*call_id, *request_id);
                    let event = Event::Verdict { call_id, request_id, verdict };
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
        self.log.borrow_mut().line(&format!("[{peer} call {}] {text}", call_id.0));
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
        let secrets = &self.config.secrets;
        let entry = secrets.find(&request.peer_name, &request.our_name, pap);
        let proof = match auth::verify(request, entry.as_ref()) {
            Ok(proof) => proof,
            Err(refusal) => return refusal.into(),
        };
        let fixed = secrets.fixed_address(&request.peer_name, &request.our_name, pap);
        let address = match fixed {
            Some(address) => self.pool.allocate_fixed(address).then_some(address),
            None => self.pool.allocate(rand::random()),
        };
        let Some(remote) = address else {
            self.say(call_id, "no address left in the pool for this user: enlarge [pool]");
            return Verdict::Reject { code: 649, message: "No address available".to_owned() };
        };
        let Some(session) = self.sessions.get_mut(&call_id) else {
            self.pool.release(remote);
            return Verdict::Reject { code: 691, message: "Access denied".to_owned() };
        };
        // A peer that proves itself again (a later challenge) keeps the address that it has.
        let remote = match session.address {
            Some(held) => {
                self.pool.release(remote);
                held
            }
            None => *session.address.insert(remote),
        };
        Verdict::Accept {
            proof,
            message: self.config.welcome.clone(),
            addresses: Addresses {
                local: Some(self.config.local_ip),
                remote: Some(remote),
                accept_local: false,
                accept_remote: false,
                dns: self.config.dns,
                wins: self.config.wins,
                ..Addresses::default()
            },
        }
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
        self.engine.command(call_id, Command::OpenNetwork { call_id, network: spec });
        let index = self.tuns[worker].index;
        let route = self.netlink.add_host_route(index, network.remote, network.local, network.mtu);
        if let Err(error) = route.await {
            self.say(call_id, &error.to_string());
        }
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.network = Some((network, Instant::now()));
        }
    }

    async fn network_down(&mut self, call_id: CallId) {
        let Some(session) = self.sessions.get_mut(&call_id) else { return };
        let Some((network, since)) = session.network.take() else { return };
        let worker = usize::from(call_id.0 % self.engine.workers.count());
        self.netlink.remove_host_route(self.tuns[worker].index, network.remote).await;
        let minutes = since.elapsed().as_secs_f64() / 60.0;
        self.say(call_id, &format!("Connect time {minutes:.1} minutes."));
        if let Some(counters) = self.engine.counters(call_id) {
            let (sent, received) = (counters.sent_bytes.get(), counters.received_bytes.get());
            self.say(call_id, &format!("Sent {sent} bytes, received {received} bytes."));
        }
    }

    fn ended(&mut self, call_id: CallId, ending: &Ending) {
        self.say(call_id, &format!("ended: {ending}"));
        if let Some(address) = self.sessions.remove(&call_id).and_then(|session| session.address) {
            self.pool.release(address);
        }
    }

    fn status(&self) -> ServerStatus {
        let mut sessions: Vec<(CallId, &Session)> =
            self.sessions.iter().map(|(call_id, session)| (*call_id, session)).collect();
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
            state: if network.is_some() { "up" } else { "connecting" }.to_owned(),
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
        let _ = tokio::time::timeout(SHUTDOWN, orderly).await;
        for worker in 0..self.tuns.len() {
            let detach = Command::DetachTun { tun: TunId(worker as u32) };
            self.engine.workers.send_to(worker, detach);
        }
        self.engine.flush(SHUTDOWN).await;
    }
}

fn trace_to(log: std::rc::Rc<std::cell::RefCell<Log>>) -> Trace {
    Box::new(move |call_id, direction, frame| {
        let verb = match direction {
            Direction::Sent => "sent",
            Direction::Rcvd => "rcvd",
        };
        let packet = packet_log::describe(frame);
        log.borrow_mut().line(&format!("[call {}] {verb} {packet}", call_id.0));
    })
}
