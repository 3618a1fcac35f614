//! Why a tunnel does not come up: one attempt at it, watched from all sides, and judged phase by
//! phase.
//!
//! The attempt is that of `up`: the same state machines, sockets and workers. But in place of a TUN
//! device the worker serves one end of a pair of Unix sockets, at whose other end `stack` asks its
//! questions. So this host gets no interface, address or route; whatever ends the process, nothing
//! remains, and a tunnel that runs beside is not disturbed.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane::impairment::Impairment;
use dataplane::offload::TunFeatures;
use dataplane::program::{CallId, Command, Role, TunId};
use thiserror::Error;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::engine::{Direction, Engine};
use super::host_error::HostError;
use super::netlink::Netlink;
use super::privileges;
use super::transport::TransportConfig;
use super::workers::WorkersConfig;
use crate::config::client::ClientConfig;
use crate::config::fast_path::FastPathMode;
use crate::proto::ending::Ending;
use crate::proto::endpoint::{EndpointConfig, Timers};
use crate::proto::link::{LinkConfig, Network};
use crate::proto::{Action, Event};
use crate::wire::cp::Code;
use crate::wire::lcp::LcpOption;
use crate::wire::ppp::Protocol;

mod ear;
mod firewall;
mod judge;
mod measure;
mod observe;
mod report;
mod stack;
mod way;

pub use report::{Finding, Phase, Remedy, Report, Status, Verdict};

use ear::{Ear, Target};
use firewall::{Helper, Obstacle};
use judge::Case;
use observe::{Echoes, Frames, Observed};
use stack::Reply;

/// In place of a TUN device.
const TUN: TunId = TunId(0);
/// How often the ear is asked, and a person told that time passes.
const TICK: Duration = Duration::from_millis(50);
/// For the end of the call and of the control connection.
const FAREWELL: Duration = Duration::from_secs(3);
/// Octets of the longest packet that comes out of the tunnel.
const PACKET_BYTES_MAX: usize = 2_048;
/// Octets around an inner packet: see `client::dial`.
const OVERHEAD: u32 = 44;

/// Why an examination did not even begin.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// The machine or its administrator.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The operating system refused something else.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl DoctorError {
    /// pppd's exit status.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Host(host) => host.exit_status(),
            Self::Io(_) => 1,
        }
    }
}

/// How an examination is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For each answer of the server, where nothing else is said.
    pub timeout: Duration,
    /// A password was given, so that its absence is a fault.
    pub has_password: bool,
}

/// What a person is told meanwhile.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A phase begins, or lasts: for so long by now.
    Busy(Phase, Duration),
    /// It is over.
    Done(&'a Finding),
}

/// Examines the way to a tunnel from end to end.
///
/// # Errors
/// When this host cannot even try.
pub async fn examine(
    config: &ClientConfig,
    options: Options,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, DoctorError> {
    privileges::check().map_err(HostError::from)?;
    let mut report = Report {
        server: config.server.clone(),
        findings: Vec::new(),
        lacks_password: false,
        is_interrupted: false,
    };
    let mut add = |finding: Finding, tell: &mut dyn FnMut(Progress<'_>)| {
        tell(Progress::Done(&finding));
        report.findings.push(finding);
    };
    tell(Progress::Busy(Phase::Name, Duration::ZERO));
    let (finding, address) = way::name(config, options.timeout).await;
    add(finding, tell);
    let Some(address) = address else {
        return Ok(report);
    };
    tell(Progress::Busy(Phase::Route, Duration::ZERO));
    let netlink = Netlink::open().map_err(HostError::from)?;
    let obstacles = firewall::read(config.port).await;
    let (finding, way) = way::route(config, &netlink, address, obstacles.as_deref()).await;
    add(finding, tell);
    let Some(way) = way else {
        return Ok(report);
    };
    let mut examination = Examination::start(config, options, address, way, obstacles, tell)?;
    examination.run().await;
    report.findings.append(&mut examination.findings);
    report.lacks_password = examination.lacks_password();
    report.is_interrupted = examination.is_interrupted;
    Ok(report)
}

/// An answer to something that was asked over a link that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// LCP Echo-Reply.
    LcpEcho { id: u8 },
    /// Through the tunnel.
    Inside(Reply),
}

struct Examination<'a> {
    config: &'a ClientConfig,
    options: Options,
    tell: &'a mut dyn FnMut(Progress<'_>),
    engine: Engine,
    ear: Ear,
    observed: Observed,
    obstacles: Option<Vec<Obstacle>>,
    address: Ipv4Addr,
    way: way::Found,
    /// The worker's end, until the network stands.
    tun: Option<OwnedFd>,
    inside: UnixDatagram,
    interrupt: [Signal; 2],
    is_interrupted: bool,
    findings: Vec<Finding>,
    phase: Phase,
    since: Instant,
    // For what is measured.
    loss: f64,
    longest_ms: f64,
    echo_id: u8,
    sequence: u16,
}

impl<'a> Examination<'a> {
    fn start(
        config: &'a ClientConfig,
        options: Options,
        address: Ipv4Addr,
        way: way::Found,
        obstacles: Option<Vec<Obstacle>>,
        tell: &'a mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, DoctorError> {
        let (frames, echoes) = (Frames::default(), Echoes::default());
        let trace = observe::trace_to(&frames, &echoes);
        let engine = Engine::start(
            endpoint_config(config, options.timeout),
            TransportConfig {
                local: config.pptp.local_bind,
                mark: config.pptp.mark,
            },
            workers_config(config),
            Some(trace),
        )
        .map_err(HostError::from)?;
        let (ours, theirs) = StdUnixDatagram::pair()?;
        for end in [&ours, &theirs] {
            end.set_nonblocking(true)?;
        }
        let target = Target {
            local: way.local,
            server: address,
            port: config.port,
            call_id: None,
        };
        Ok(Self {
            config,
            options,
            tell,
            engine,
            ear: Ear::open(target)?,
            observed: Observed::new(frames, echoes),
            obstacles,
            address,
            way,
            tun: Some(theirs.into()),
            inside: UnixDatagram::from_std(ours)?,
            interrupt: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ],
            is_interrupted: false,
            findings: Vec::new(),
            phase: Phase::Tcp,
            since: Instant::now(),
            loss: 0.0,
            longest_ms: 100.0,
            echo_id: 0xC0,
            sequence: 0,
        })
    }

    async fn run(&mut self) {
        self.begin(Phase::Tcp);
        let server = SocketAddrV4::new(self.address, self.config.port);
        let link = Arc::new(link_config(self.config, self.options.timeout, self.way.mtu));
        let actions = self.engine.handle_event(Event::Dial { server, link });
        self.perform(actions);
        self.negotiate().await;
        if let Some(network) = self.observed.network.clone()
            && !self.is_over()
        {
            self.measure(&network).await;
            self.note_early_end();
        }
        self.farewell().await;
    }

    /// Until IP may pass, or it is clear that it never will.
    async fn negotiate(&mut self) {
        loop {
            self.listen();
            let current = self.observed.phase();
            let failed = self.observed.ending.clone();
            let passed = Phase::ALL.into_iter().filter(|phase| {
                *phase >= self.phase
                    && *phase <= Phase::Addresses
                    && current.is_none_or(|current| *phase < current)
            });
            for phase in passed.collect::<Vec<_>>() {
                let finding = self.judge(phase, None);
                self.finish(finding);
            }
            let Some(current) = current else {
                return;
            };
            if self.is_interrupted {
                return;
            }
            if let Some(ending) = failed {
                let finding = self.judge(current, Some(&ending));
                self.finish(finding);
                return;
            }
            if current != self.phase {
                self.begin(current);
            }
            self.next_answer(Instant::now() + TICK).await;
        }
    }

    fn listen(&mut self) {
        self.ear.listen();
        // The ear hears also what the firewall of this host drops behind it.
        let (_, received) = self.gre_counts();
        self.observed.is_acknowledged |= received > 0 && self.ear.heard.is_acknowledged;
    }

    /// GRE packets that the kernel refused to send, and that the worker received.
    fn gre_counts(&self) -> (u64, u64) {
        let counters = self.engine.workers.counters();
        counters.fold((0, 0), |(refused, came), (_, io)| {
            (refused + io.send_failed.get(), came + io.gre_received.get())
        })
    }

    fn judge(&self, phase: Phase, ending: Option<&Ending>) -> Finding {
        let (send_refused, worker_received) = self.gre_counts();
        let case = Case {
            config: self.config,
            has_password: self.options.has_password,
            address: self.address,
            local: self.way.local,
            is_neighbour: self.way.is_neighbour,
            timeout: self.options.timeout,
            observed: &self.observed,
            heard: &self.ear.heard,
            obstacles: self.obstacles.as_deref(),
            helper: Helper::read(),
            send_refused,
            worker_received,
        };
        case.judge(phase, ending)
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
        (self.tell)(Progress::Busy(phase, Duration::ZERO));
    }

    fn finish(&mut self, finding: Finding) {
        // What was cut short says nothing.
        if self.is_interrupted {
            return;
        }
        (self.tell)(Progress::Done(&finding));
        self.findings.push(finding);
    }

    /// The call has ended, or somebody wants it to.
    const fn is_over(&self) -> bool {
        self.is_interrupted || self.observed.ending.is_some()
    }

    /// It stopped where a password is needed, and none was given.
    fn lacks_password(&self) -> bool {
        !self.options.has_password && matches!(self.observed.ending, Some(Ending::NoSecret { .. }))
    }

    /// What the server ends while it is measured did stand.
    fn note_early_end(&mut self) {
        let Some(ending) = self.observed.ending.clone() else {
            return;
        };
        let summary = format!("the tunnel stood, and ended by itself: {ending}");
        let finding = Finding::new(self.phase, Status::Failed, summary)
            .because(format!("the tunnel comes up and does not last: {ending}"))
            .elsewhere("journalctl -u pptp-fast-server -u pptpd -n 50");
        self.findings.retain(|found| found.phase != self.phase);
        self.finish(finding);
    }

    /// Lets things happen until there is an answer, or `until`.
    async fn next_answer(&mut self, until: Instant) -> Option<Came> {
        let mut packet = [0; PACKET_BYTES_MAX];
        loop {
            if let Some(id) = self.observed.take_echo() {
                return Some(Came::LcpEcho { id });
            }
            let now = Instant::now();
            if now >= until || self.is_over() {
                return None;
            }
            let tick = tokio::time::sleep(TICK.min(until - now));
            let [interrupt, terminate] = &mut self.interrupt;
            tokio::select! {
                input = self.engine.next() => {
                    self.observed.input(&input, self.since);
                    let actions = self.engine.handle(input);
                    self.perform(actions);
                }
                len = self.inside.recv(&mut packet) => {
                    let packet = packet.get(..len.unwrap_or(0)).unwrap_or(&[]);
                    if let Some(reply) = stack::read(packet) {
                        return Some(Came::Inside(reply));
                    }
                }
                _ = interrupt.recv() => self.is_interrupted = true,
                _ = terminate.recv() => self.is_interrupted = true,
                () = tick => {
                    self.listen();
                    (self.tell)(Progress::Busy(self.phase, self.since.elapsed()));
                }
            }
            if self.observed.has_news() {
                return None;
            }
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.observed.action(&action);
            match &action {
                Action::Install { call_id, .. } => self.ear.target.call_id = Some(call_id.0),
                Action::NetworkUp { call_id, network } => self.open_network(*call_id, network),
                _ => {}
            }
            self.engine.perform(action);
        }
    }

    fn open_network(&mut self, call_id: CallId, network: &Network) {
        let Some(fd) = self.tun.take() else {
            return;
        };
        self.engine.open_network(call_id, TUN, network, false);
        let attach = Command::AttachTun {
            tun: TUN,
            fd: Arc::new(fd),
            features: TunFeatures::default(),
            owner: Some(call_id),
            role: Role::Both,
        };
        self.engine.command(call_id, attach);
    }

    fn inject(&mut self, frame: Bytes) {
        if let Some(call_id) = self.observed.call_id {
            let inject = Command::Inject { call_id, frame };
            self.engine.command(call_id, inject);
        }
    }

    /// What does not fit is lost, as on any way.
    async fn send_inside(&self, packet: &[u8]) {
        let _ = tokio::time::timeout(TICK, self.inside.send(packet)).await;
    }

    /// What the server takes, as it said in LCP.
    fn peer_mru(&self) -> u16 {
        const DEFAULT: u16 = 1_500;
        let requests = Code::CONFIGURE_REQUEST;
        let options = self
            .observed
            .options(Direction::Rcvd, Protocol::LCP, requests);
        let mrus = options.into_iter().filter_map(|option| match option {
            LcpOption::Mru(mru) => Some(mru),
            _ => None,
        });
        mrus.last().unwrap_or(DEFAULT)
    }

    /// Ends call and connection in order.
    async fn farewell(&mut self) {
        let actions = self.engine.handle_event(Event::Shutdown);
        self.perform(actions);
        let _ = tokio::time::timeout(FAREWELL, async {
            while !self.observed.is_idle {
                let input = self.engine.next().await;
                let actions = self.engine.handle(input);
                self.perform(actions);
            }
        })
        .await;
        self.engine.stop(FAREWELL).await;
    }
}

fn endpoint_config(config: &ClientConfig, timeout: Duration) -> EndpointConfig {
    let timeout_ms = in_ms(timeout);
    let host_name = config.pptp.host_name.clone();
    EndpointConfig {
        host_name: host_name.unwrap_or_else(|| "local".to_owned()),
        phone_number: config.pptp.phone.clone(),
        timers: Timers {
            connect_ms: timeout_ms,
            start_ms: timeout_ms,
            call_reply_ms: timeout_ms,
            gre_hint_ms: timeout_ms / 2,
            clear_ms: 1_000,
            stop_ms: 1_000,
            ..Timers::default()
        },
        ..EndpointConfig::default()
    }
}

/// Over the raw socket, whose way is that of every router and firewall rule, and with Don't
/// Fragment, for the path MTU.
fn workers_config(config: &ClientConfig) -> WorkersConfig {
    WorkersConfig {
        count: 1,
        split_directions: false,
        local: config.pptp.local_bind,
        mark: config.pptp.mark,
        dont_fragment: true,
        sessions_max: 1,
        fast_path: FastPathMode::Off,
        look_ahead: false,
        impairment: Impairment::default(),
        is_held: false,
    }
}

/// The tunnel's link, with less patience, and with name servers.
fn link_config(config: &ClientConfig, timeout: Duration, path_mtu: u32) -> LinkConfig {
    const RESTART_MS: u64 = 1_000;
    let mut link = config.link.clone();
    link.ipv6 = None;
    link.addresses.ask_dns = true;
    let timeout_ms = in_ms(timeout);
    let lcp = &mut link.lcp;
    // Those that measure are of our own making.
    lcp.echo_interval_ms = 0;
    lcp.restart_ms = lcp.restart_ms.min(RESTART_MS);
    lcp.max_configure = u32::try_from(timeout_ms / lcp.restart_ms.max(1)).unwrap_or(u32::MAX);
    lcp.max_configure = lcp.max_configure.max(3);
    lcp.max_terminate = 1;
    lcp.auth_timeout_ms = timeout_ms;
    lcp.setup_timeout_ms = timeout_ms.saturating_mul(4);
    if config.mtu.is_none() {
        let mtu = path_mtu.saturating_sub(OVERHEAD).clamp(576, 1_500);
        lcp.mtu = u16::try_from(mtu).unwrap_or(lcp.mtu);
    }
    link
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
