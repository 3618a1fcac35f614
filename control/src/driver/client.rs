//! One tunnel as a client: from the name of a server to packets on `ppp0`, and back to nothing.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::SessionCounters;
use dataplane::program::{CallId, Command, NetworkSpec, TunId};
use dataplane::sys::tun;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Answer, Asked, Request, TunnelStatus};
use super::engine::{Direction, Engine, Trace};
use super::log::Log;
use super::netlink::{Netlink, NetlinkError};
use super::privileges;
use super::transport::TransportConfig;
use super::workers::WorkersConfig;
use crate::config::client::{ClientConfig, InterfaceConfig};
use crate::proto::ending::Ending;
use crate::proto::endpoint::{EndpointConfig, Timers};
use crate::proto::link::{Network, Report};
use crate::proto::{Action, Event};
use crate::wire::log as packet_log;

/// The one TUN device of a client.
const TUN: TunId = TunId(0);
/// The worker that owns it: a client has one.
const WORKER: usize = 0;
/// For the last control messages after the call has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a client did not even start, grouped by who can do something about it.
#[derive(Debug, Error)]
pub enum ClientError {
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
    /// The name of the server has no address.
    #[error(
        "cannot find the address of the server {server}: {cause}. Check the name, or give the address in numbers"
    )]
    Resolve {
        /// As it was given.
        server: String,
        /// The resolver's words.
        cause: String,
    },
}

impl ClientError {
    /// pppd's exit status: 3 not root, 4 no kernel support, 16 no connection, 1 anything else.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Privileges(_) => 3,
            Self::DataPlane(_) => 4,
            Self::Resolve { .. } => 16,
            Self::Tun(_) | Self::Netlink(_) => 1,
        }
    }
}

/// The tunnel stands.
#[derive(Clone, Debug)]
pub struct Up {
    /// `ppp0`.
    pub interface: String,
    /// What was agreed.
    pub network: Network,
    /// From the start until now.
    pub setup: Duration,
}

/// Runs a tunnel until it has ended. `up` is told once, when it stands; `requests` ask for its
/// state or its end.
///
/// # Errors
/// When it could not even begin; how it ended is in `Ok`.
pub async fn run(
    config: &ClientConfig,
    log: Log,
    requests: mpsc::Receiver<Asked>,
    up: oneshot::Sender<Up>,
) -> Result<Ending, ClientError> {
    let mut client = Client::start(config, log, up).await?;
    let ending = client.run(requests).await;
    client.leave().await;
    Ok(ending)
}

struct Client {
    name: String,
    started: Instant,
    engine: Engine,
    netlink: Netlink,
    log: std::rc::Rc<std::cell::RefCell<Log>>,
    interface: String,
    /// Until it is given to the worker.
    tun: Option<OwnedFd>,
    server: SocketAddrV4,
    link: Arc<crate::proto::link::LinkConfig>,
    call: Option<(CallId, Arc<SessionCounters>)>,
    network: Option<(Network, Instant)>,
    ending: bool,
    up: Option<oneshot::Sender<Up>>,
    /// To be answered when the tunnel has ended.
    waiting: Vec<oneshot::Sender<Answer>>,
}

impl Client {
    async fn start(
        config: &ClientConfig,
        log: Log,
        up: oneshot::Sender<Up>,
    ) -> Result<Self, ClientError> {
        let started = Instant::now();
        privileges::check()?;
        let server = resolve(&config.server, config.port).await?;
        let log = std::rc::Rc::new(std::cell::RefCell::new(log));
        let workers = WorkersConfig {
            count: 1,
            local: config.pptp.local_bind,
            sessions_max: 1,
        };
        let transport = TransportConfig {
            local: config.pptp.local_bind,
        };
        let endpoint = EndpointConfig {
            host_name: config
                .pptp
                .host_name
                .clone()
                .unwrap_or_else(|| "local".to_owned()),
            phone_number: config.pptp.phone.clone(),
            timers: Timers {
                echo_idle_ms: config.pptp.idle_wait_ms,
                echo_wait_ms: config.pptp.max_echo_wait_ms,
                ..Timers::default()
            },
            ..EndpointConfig::default()
        };
        let trace = trace_to(std::rc::Rc::clone(&log));
        let engine = Engine::start(endpoint, transport, workers, Some(trace))?;
        let (tun, interface) = tun::open(&interface_pattern(&config.interface))?;
        log.borrow_mut()
            .line(&format!("Using interface {interface}"));
        Ok(Self {
            name: config.tunnel.clone(),
            started,
            engine,
            netlink: Netlink::open()?,
            log,
            interface,
            tun: Some(tun),
            server,
            link: Arc::new(config.link.clone()),
            call: None,
            network: None,
            ending: false,
            up: Some(up),
            waiting: Vec::new(),
        })
    }

    async fn run(&mut self, mut requests: mpsc::Receiver<Asked>) -> Ending {
        let dial = Event::Dial {
            server: self.server,
            link: Arc::clone(&self.link),
        };
        let actions = self.engine.handle_event(dial);
        if let Some(ending) = self.perform(actions).await {
            return ending;
        }
        loop {
            let actions = tokio::select! {
                input = self.engine.next() => self.engine.handle(input),
                Some((request, answer)) = requests.recv() => self.serve(request, answer),
            };
            if let Some(ending) = self.perform(actions).await {
                return ending;
            }
        }
    }

    /// Carries out `actions`; the ending when the tunnel is over.
    async fn perform(&mut self, actions: Vec<Action>) -> Option<Ending> {
        let mut over = None;
        for action in actions {
            match &action {
                Action::Report { report, .. } => self.report(report),
                Action::NetworkUp { call_id, network } => {
                    let (call_id, network) = (*call_id, network.clone());
                    self.network_up(call_id, network).await;
                }
                Action::NetworkDown { .. } => self.network_down().await,
                Action::Ended { ending, .. } | Action::DialFailed { ending, .. } => {
                    over = Some(ending.clone());
                }
                _ => {}
            }
            let installed = match &action {
                Action::Install { call_id, .. } => Some(*call_id),
                _ => None,
            };
            self.engine.perform(action);
            if let Some(call_id) = installed {
                self.attach(call_id);
            }
        }
        over
    }

    fn report(&self, report: &Report) {
        match report {
            Report::Line(line) | Report::CipherUp(line) => self.log.borrow_mut().line(line),
            Report::LinkUp | Report::PeerAuthenticated(_) => {}
        }
    }

    /// The session is installed: the TUN device is its own from now on.
    fn attach(&mut self, call_id: CallId) {
        self.log.borrow_mut().line(&format!(
            "Connect: {} <--> {}",
            self.interface,
            self.server.ip()
        ));
        self.call = self
            .engine
            .counters(call_id)
            .map(|counters| (call_id, Arc::clone(counters)));
        if let Some(fd) = self.tun.take() {
            let attach = Command::AttachTun {
                tun: TUN,
                fd,
                owner: Some(call_id),
            };
            self.engine.workers.send_to(WORKER, attach);
        }
    }

    async fn network_up(&mut self, call_id: CallId, network: Network) {
        let spec = NetworkSpec {
            tun: TUN,
            local: network.local,
            peer: network.remote,
            compress_protocol: network.compress_protocol,
            compress_address_control: network.compress_address_control,
            require_encryption: network.require_encryption,
            check_source: false,
        };
        self.engine.command(
            call_id,
            Command::OpenNetwork {
                call_id,
                network: spec,
            },
        );
        if let Err(error) = self.set_addresses(&network).await {
            self.log.borrow_mut().line(&error.to_string());
            self.hang_up(call_id, "no addresses on the interface");
            return;
        }
        self.network = Some((network.clone(), Instant::now()));
        if let Some(up) = self.up.take() {
            let interface = self.interface.clone();
            let _ = up.send(Up {
                interface,
                network,
                setup: self.started.elapsed(),
            });
        }
    }

    async fn set_addresses(&self, network: &Network) -> Result<(), NetlinkError> {
        let (index, _) = self.netlink.link(&self.interface).await?;
        self.netlink
            .add_address(index, network.local, Some(network.remote), 32)
            .await?;
        self.netlink.set_up(index, Some(network.mtu)).await
    }

    async fn network_down(&mut self) {
        let Some((_, since)) = self.network.take() else {
            return;
        };
        let minutes = since.elapsed().as_secs_f64() / 60.0;
        let mut log = self.log.borrow_mut();
        log.line(&format!("Connect time {minutes:.1} minutes."));
        if let Some((_, counters)) = &self.call {
            let (sent, received) = (counters.sent_bytes.get(), counters.received_bytes.get());
            log.line(&format!("Sent {sent} bytes, received {received} bytes."));
        }
        drop(log);
        if let Ok((index, _)) = self.netlink.link(&self.interface).await {
            let _ = self.netlink.set_down(index).await;
        }
    }

    fn hang_up(&mut self, call_id: CallId, reason: &str) -> Vec<Action> {
        self.ending = true;
        self.engine.handle_event(Event::HangUp {
            call_id,
            reason: reason.to_owned(),
        })
    }

    fn serve(&mut self, request: Request, answer: oneshot::Sender<Answer>) -> Vec<Action> {
        match request {
            Request::Status => {
                let _ = answer.send(Answer::Tunnel(self.status()));
                Vec::new()
            }
            Request::Down => {
                self.waiting.push(answer);
                self.end()
            }
        }
    }

    fn end(&mut self) -> Vec<Action> {
        if std::mem::replace(&mut self.ending, true) {
            return Vec::new();
        }
        match &self.call {
            Some((call_id, _)) => {
                let call_id = *call_id;
                self.hang_up(call_id, "User request")
            }
            None => self.engine.handle_event(Event::Shutdown),
        }
    }

    fn status(&self) -> TunnelStatus {
        let network = self.network.as_ref();
        let state = match (self.ending, network) {
            (true, _) => "ending",
            (false, Some(_)) => "up",
            (false, None) => "connecting",
        };
        let mut status = TunnelStatus {
            name: self.name.clone(),
            state: state.to_owned(),
            interface: self.interface.clone(),
            peer: self.server.ip().to_string(),
            local_ip: network.map(|(network, _)| network.local.to_string()),
            peer_ip: network.map(|(network, _)| network.remote.to_string()),
            cipher: network.map(|(network, _)| network.cipher.clone()),
            uptime_s: network.map(|(_, since)| since.elapsed().as_secs()),
            pid: std::process::id(),
            ..TunnelStatus::default()
        };
        if let Some((_, counters)) = &self.call {
            status.count(counters);
        }
        status
    }

    /// The call has ended; the control connection ends in order, and then everything is let go.
    async fn leave(&mut self) {
        self.network_down().await;
        let actions = self.engine.handle_event(Event::Shutdown);
        let farewell = tokio::time::timeout(FAREWELL, async {
            let mut actions = actions;
            loop {
                let idle = actions.iter().any(|action| matches!(action, Action::Idle));
                for action in actions {
                    self.engine.perform(action);
                }
                if idle {
                    return;
                }
                let input = self.engine.next().await;
                actions = self.engine.handle(input);
            }
        });
        let _ = farewell.await;
        self.engine
            .workers
            .send_to(WORKER, Command::DetachTun { tun: TUN });
        self.engine.stop(FAREWELL).await;
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Answer::Ended);
        }
    }
}

impl TunnelStatus {
    /// Fills in what a session has carried.
    pub(crate) fn count(&mut self, counters: &SessionCounters) {
        self.received_bytes = counters.received_bytes.get();
        self.received_packets = counters.received_packets.get();
        self.sent_bytes = counters.sent_bytes.get();
        self.sent_packets = counters.sent_packets.get();
        self.lost = counters.lost.get();
        self.reordered = counters.reordered.get();
        self.dropped = counters.dropped.get();
        self.mppe_resyncs = counters.resyncs.get();
    }
}

fn trace_to(log: std::rc::Rc<std::cell::RefCell<Log>>) -> Trace {
    Box::new(move |_, direction, frame| {
        let verb = match direction {
            Direction::Sent => "sent",
            Direction::Rcvd => "rcvd",
        };
        log.borrow_mut()
            .line(&format!("{verb} {}", packet_log::describe(frame)));
    })
}

/// The name that is asked for, or the first free one as pppd takes it.
fn interface_pattern(interface: &InterfaceConfig) -> String {
    match (&interface.name, interface.unit) {
        (Some(name), _) => name.clone(),
        (None, Some(unit)) => format!("ppp{unit}"),
        (None, None) => "ppp%d".to_owned(),
    }
}

async fn resolve(server: &str, port: u16) -> Result<SocketAddrV4, ClientError> {
    let failed = |cause: String| ClientError::Resolve {
        server: server.to_owned(),
        cause,
    };
    let addresses = tokio::net::lookup_host((server, port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut v4 = addresses.filter_map(|address| match address {
        std::net::SocketAddr::V4(address) => Some(address),
        std::net::SocketAddr::V6(_) => None,
    });
    v4.next()
        .ok_or_else(|| failed("it has no IPv4 address, and PPTP needs one".to_owned()))
}
