//! One tunnel as a client: from the name of a server to packets on `ppp0`, and back to nothing.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::SessionCounters;
use dataplane::program::{CallId, Command, Ipv6Spec, NetworkSpec, TunId};
use dataplane::sys::tun::{self, TunDevice};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Answer, Asked, Request, TunnelStatus};
use super::engine::{Direction, Engine, Trace};
use super::host_error::HostError;
use super::ipv6;
use super::log::Log;
use super::netlink::{Netlink, NetlinkError};
use super::privileges;
use super::scripts::{Facts, Script, Scripts};
use super::transport::TransportConfig;
use super::workers::WorkersConfig;
use crate::config::client::{ClientConfig, InterfaceConfig};
use crate::proto::ending::Ending;
use crate::proto::endpoint::{EndpointConfig, Timers};
use crate::proto::link::{Ipv6Network, LinkConfig, Network, Report};
use crate::proto::{Action, Event};
use crate::wire::log as packet_log;

/// The one TUN device of a client.
const TUN: TunId = TunId(0);
/// The worker that owns it: a client has one.
const WORKER: usize = 0;
/// Octets in front of an inner packet: IPv4 (20), GRE with both numbers (16), PPP with MPPE (8).
const OVERHEAD: u32 = 44;
/// What every IPv4 host must take.
const MTU_MIN: u32 = 576;
/// What a slot of the data plane holds beside its headers.
const MTU_MAX: u32 = 1_500;
/// How often `idle` and `maxconnect` are looked at.
const LIMIT_CHECK: Duration = Duration::from_secs(1);
/// For the last control messages after the call has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a client did not even start, grouped by who can do something about it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The machine or its administrator.
    #[error(transparent)]
    Host(#[from] HostError),
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
            Self::Host(host) => host.exit_status(),
            Self::Resolve { .. } => 16,
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
    log: Log,
    interface: String,
    /// Until it is given to the worker.
    tun: Option<TunDevice>,
    server: SocketAddrV4,
    link: Arc<LinkConfig>,
    call: Option<(CallId, Arc<SessionCounters>)>,
    network: Option<Standing>,
    limits: Limits,
    scripts: Scripts,
    /// The end was asked for: with what, when that is more than `down`.
    ending: Option<Ending>,
    up: Option<oneshot::Sender<Up>>,
    /// To be answered when the tunnel has ended.
    waiting: Vec<oneshot::Sender<Answer>>,
}

/// The network as long as it stands.
struct Standing {
    agreed: Network,
    ipv6: Option<Ipv6Network>,
    since: Instant,
    /// Packets in both directions at the last look, and when they were last more.
    packets: u64,
    busy_at: Instant,
}

/// `idle` and `maxconnect`.
struct Limits {
    idle: Option<Duration>,
    connect: Option<Duration>,
}

impl Client {
    async fn start(
        config: &ClientConfig,
        log: Log,
        up: oneshot::Sender<Up>,
    ) -> Result<Self, ClientError> {
        let started = Instant::now();
        privileges::check().map_err(HostError::from)?;
        let server = resolve(&config.server, config.port).await?;
        let workers = WorkersConfig {
            count: 1,
            local: config.pptp.local_bind,
            sessions_max: 1,
            fast_path: config.fast_path(),
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
        let trace = trace_to(log.clone());
        let engine =
            Engine::start(endpoint, transport, workers, Some(trace)).map_err(HostError::from)?;
        let tun = tun::open(&interface_pattern(&config.interface)).map_err(HostError::from)?;
        let interface = tun.name.clone();
        log.line(&format!("Using interface {interface}"));
        let netlink = Netlink::open().map_err(HostError::from)?;
        let link = fitted_to_path(config, &netlink, *server.ip()).await;
        Ok(Self {
            name: config.tunnel.clone(),
            started,
            engine,
            netlink,
            log,
            interface,
            tun: Some(tun),
            server,
            link: Arc::new(link),
            call: None,
            network: None,
            limits: Limits {
                idle: config.idle_ms.map(Duration::from_millis),
                connect: config.max_connect_ms.map(Duration::from_millis),
            },
            scripts: scripts(config),
            ending: None,
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
        let mut limit_check = tokio::time::interval(LIMIT_CHECK);
        loop {
            let actions = tokio::select! {
                input = self.engine.next() => self.engine.handle(input),
                Some((request, answer)) = requests.recv() => self.serve(request, answer),
                _ = limit_check.tick() => self.check_limits(),
            };
            if let Some(ending) = self.perform(actions).await {
                return ending;
            }
        }
    }

    /// Carries out `actions`; the ending when the tunnel is over.
    async fn perform(&mut self, actions: Vec<Action>) -> Option<Ending> {
        let mut over = None;
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match &action {
                Action::Report { report, .. } => self.report(report),
                Action::NetworkUp { call_id, network } => {
                    let more = self.network_up(*call_id, network).await;
                    actions.extend(more);
                }
                Action::NetworkDown { .. } => self.network_down().await,
                Action::Ipv6Up { call_id, ipv6 } => self.ipv6_up(*call_id, *ipv6).await,
                Action::Ipv6Down { .. } => self.ipv6_down().await,
                Action::Ended { ending, .. } | Action::DialFailed { ending, .. } => {
                    let asked_for = self.ending.clone();
                    over = Some(match ending {
                        Ending::LocalRequest(_) => asked_for.unwrap_or_else(|| ending.clone()),
                        _ => ending.clone(),
                    });
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
            Report::Line(line) | Report::CipherUp(line) => self.log.line(line),
            Report::LinkUp | Report::PeerAuthenticated(_) => {}
        }
    }

    /// The session is installed: the TUN device is its own from now on.
    fn attach(&mut self, call_id: CallId) {
        self.log.line(&format!(
            "Connect: {} <--> {}",
            self.interface,
            self.server.ip()
        ));
        self.call = self
            .engine
            .counters(call_id)
            .map(|counters| (call_id, Arc::clone(counters)));
        if let Some(device) = self.tun.take() {
            let attach = Command::AttachTun {
                tun: TUN,
                fd: device.fd,
                features: device.features,
                owner: Some(call_id),
            };
            self.engine.workers.send_to(WORKER, attach);
        }
    }

    /// Lets packets through; what is to be done when that fails.
    async fn network_up(&mut self, call_id: CallId, network: &Network) -> Vec<Action> {
        let spec = NetworkSpec {
            tun: TUN,
            local: network.local,
            peer: network.remote,
            compress_protocol: network.compress_protocol,
            compress_address_control: network.compress_address_control,
            require_encryption: network.require_encryption,
            check_source: false,
        };
        let open = Command::OpenNetwork {
            call_id,
            network: spec,
        };
        self.engine.command(call_id, open);
        if let Err(error) = self.set_addresses(network).await {
            self.log.line(&error.to_string());
            let reason = "no addresses on the interface".to_owned();
            return self.hang_up(call_id, Ending::NoAddresses(error.to_string()), reason);
        }
        let now = Instant::now();
        self.network = Some(Standing {
            agreed: network.clone(),
            ipv6: None,
            since: now,
            packets: 0,
            busy_at: now,
        });
        self.run_script(Script::Up, network, None, None);
        if let Some(up) = self.up.take() {
            let _ = up.send(Up {
                interface: self.interface.clone(),
                network: network.clone(),
                setup: self.started.elapsed(),
            });
        }
        Vec::new()
    }

    /// Lets IPv6 packets through, too. That this host cannot have them is no reason to end.
    async fn ipv6_up(&mut self, call_id: CallId, ipv6: Ipv6Network) {
        let Some(standing) = &mut self.network else {
            return;
        };
        let local = ipv6.local.link_local();
        let added = match self.netlink.link(&self.interface).await {
            Ok((index, _)) => self.netlink.add_link_local(index, local).await,
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            return self.log.line(&format!("no IPv6: {error}"));
        }
        standing.ipv6 = Some(ipv6);
        let peer = ipv6.remote.link_local();
        let ipv6 = Some(Ipv6Spec { peer });
        self.engine
            .command(call_id, Command::SetIpv6 { call_id, ipv6 });
        self.run_ipv6_script(Script::Ipv6Up);
    }

    async fn ipv6_down(&mut self) {
        self.run_ipv6_script(Script::Ipv6Down);
        let standing = self.network.as_mut();
        if let Some(ipv6) = standing.and_then(|standing| standing.ipv6.take())
            && let Ok((index, _)) = self.netlink.link(&self.interface).await
        {
            let local = ipv6.local.link_local();
            self.netlink.remove_link_local(index, local).await;
        }
    }

    fn run_ipv6_script(&self, script: Script) {
        if let Some(standing) = self.network.as_ref().filter(|it| it.ipv6.is_some()) {
            self.run_script(script, &standing.agreed, standing.ipv6, None);
        }
    }

    fn run_script(
        &self,
        script: Script,
        network: &Network,
        ipv6: Option<Ipv6Network>,
        carried: Option<(u64, u64, u64)>,
    ) {
        let device = self.server.ip().to_string();
        let mut facts = self.facts(&device, network, carried);
        facts.ipv6 = ipv6;
        self.scripts.start(script, &facts, &self.log);
    }

    fn facts<'a>(
        &'a self,
        device: &'a str,
        network: &'a Network,
        carried: Option<(u64, u64, u64)>,
    ) -> Facts<'a> {
        Facts {
            interface: &self.interface,
            device,
            network,
            ipv6: None,
            peer_name: self.link.remote_name.as_deref().unwrap_or_default(),
            carried,
        }
    }

    async fn set_addresses(&self, network: &Network) -> Result<(), NetlinkError> {
        let (index, _) = self.netlink.link(&self.interface).await?;
        self.netlink
            .add_address(index, network.local, Some(network.remote), 32)
            .await?;
        let device = self.server.ip().to_string();
        let facts = self.facts(&device, network, None);
        self.scripts.run(Script::PreUp, &facts, &self.log).await;
        ipv6::choose_no_address(&self.interface);
        self.netlink.set_up(index, Some(network.mtu)).await
    }

    async fn network_down(&mut self) {
        let Some(standing) = self.network.take() else {
            return;
        };
        let seconds = standing.since.elapsed().as_secs();
        let minutes = standing.since.elapsed().as_secs_f64() / 60.0;
        let (sent, received) = self.call.as_ref().map_or((0, 0), |(_, counters)| {
            (counters.sent_bytes.get(), counters.received_bytes.get())
        });
        let log = &self.log;
        log.line(&format!("Connect time {minutes:.1} minutes."));
        log.line(&format!("Sent {sent} bytes, received {received} bytes."));
        let carried = Some((seconds, sent, received));
        self.run_script(Script::Down, &standing.agreed, None, carried);
        if standing.ipv6.is_some() {
            self.run_script(Script::Ipv6Down, &standing.agreed, standing.ipv6, carried);
        }
        if let Ok((index, _)) = self.netlink.link(&self.interface).await {
            let _ = self.netlink.set_down(index).await;
        }
    }

    /// Ends a tunnel that has been idle, or has stood, for too long.
    fn check_limits(&mut self) -> Vec<Action> {
        let (Some(standing), Some((call_id, counters))) = (&mut self.network, &self.call) else {
            return Vec::new();
        };
        let packets = counters.sent_packets.get() + counters.received_packets.get();
        if packets != standing.packets {
            standing.packets = packets;
            standing.busy_at = Instant::now();
        }
        let is_over = |limit: Option<Duration>, since: Instant| {
            limit.is_some_and(|limit| since.elapsed() >= limit)
        };
        let ending = if is_over(self.limits.connect, standing.since) {
            Ending::ConnectTimeout
        } else if is_over(self.limits.idle, standing.busy_at) {
            Ending::IdleTimeout
        } else {
            return Vec::new();
        };
        let (call_id, reason) = (*call_id, ending.to_string());
        self.log.line(&reason);
        self.hang_up(call_id, ending, reason)
    }

    /// Asks the call to end in order; nothing when that has been asked for already.
    fn hang_up(&mut self, call_id: CallId, ending: Ending, reason: String) -> Vec<Action> {
        if self.ending.replace(ending).is_some() {
            return Vec::new();
        }
        self.engine.handle_event(Event::HangUp { call_id, reason })
    }

    fn serve(&mut self, request: Request, answer: oneshot::Sender<Answer>) -> Vec<Action> {
        match request {
            Request::Status => {
                let _ = answer.send(Answer::Tunnel(Box::new(self.status())));
                Vec::new()
            }
            Request::Down => {
                self.waiting.push(answer);
                self.end()
            }
        }
    }

    fn end(&mut self) -> Vec<Action> {
        let reason = "User request".to_owned();
        let ending = Ending::LocalRequest(reason.clone());
        match &self.call {
            Some((call_id, _)) => {
                let call_id = *call_id;
                self.hang_up(call_id, ending, reason)
            }
            None => {
                self.ending = Some(ending);
                self.engine.handle_event(Event::Shutdown)
            }
        }
    }

    fn status(&self) -> TunnelStatus {
        let network = self.network.as_ref();
        let state = match (&self.ending, network) {
            (Some(_), _) => "ending",
            (None, Some(_)) => "up",
            (None, None) => "connecting",
        };
        let mut status = TunnelStatus {
            name: self.name.clone(),
            state: state.to_owned(),
            interface: self.interface.clone(),
            peer: self.server.ip().to_string(),
            local_ip: network.map(|standing| standing.agreed.local.to_string()),
            peer_ip: network.map(|standing| standing.agreed.remote.to_string()),
            cipher: network.map(|standing| standing.agreed.cipher.clone()),
            uptime_s: network.map(|standing| standing.since.elapsed().as_secs()),
            pid: std::process::id(),
            ..TunnelStatus::default()
        };
        if let Some((call_id, counters)) = &self.call {
            status.count(counters);
            self.engine.describe_way(*call_id, &mut status);
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

fn trace_to(log: Log) -> Trace {
    Box::new(move |_, direction, frame| {
        let verb = match direction {
            Direction::Sent => "sent",
            Direction::Rcvd => "rcvd",
        };
        log.line(&format!("{verb} {}", packet_log::describe(frame)));
    })
}

/// The link's configuration; without `mtu`, packets are small enough for the way to the server.
async fn fitted_to_path(config: &ClientConfig, netlink: &Netlink, server: Ipv4Addr) -> LinkConfig {
    let mut link = config.link.clone();
    link.ipv6 = link.ipv6.filter(|_| ipv6::is_available());
    if config.mtu.is_none() {
        // Without a route, dialling says so in better words.
        if let Ok(path_mtu) = netlink.route_mtu(server).await {
            let mtu = path_mtu.saturating_sub(OVERHEAD).clamp(MTU_MIN, MTU_MAX);
            link.lcp.mtu = u16::try_from(mtu).unwrap_or(link.lcp.mtu);
        }
    }
    link
}

fn scripts(config: &ClientConfig) -> Scripts {
    let places = &config.scripts;
    let mut environment = config.environment.clone();
    if let Some(name) = &config.link_name {
        environment.push(("LINKNAME".to_owned(), name.clone()));
    }
    Scripts {
        dir: config.scripts_dir.clone(),
        places: [
            places.ip_pre_up.clone(),
            places.ip_up.clone(),
            places.ip_down.clone(),
            places.ipv6_up.clone(),
            places.ipv6_down.clone(),
        ],
        ipparam: config.ipparam.clone().unwrap_or_default(),
        environment,
    }
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
