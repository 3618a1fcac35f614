//! One tunnel as a client: from the name of a server to packets on `ppp0`, again and again where
//! it persists, and back to nothing.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::SessionCounters;
use dataplane::program::{CallId, Command, TunId};
use dataplane::sys::tun::{self, TunDevice};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::admin::{Answer, Asked};
use super::engine::Engine;
use super::host_error::HostError;
use super::log::Log;
use super::netlink::{Netlink, Way};
use super::privileges;
use super::scripts::{Script, Scripts};
use super::service;
use crate::config::client::ClientConfig;
use crate::proto::Action;
use crate::proto::ending::Ending;
use crate::proto::link::{Network, Report};

mod demand;
mod dial;
mod farewell;
mod ipv6;
mod kill_switch;
mod leftovers;
mod life;
mod limits;
mod network;
mod pid_files;
mod requests;
mod routes;
mod setup;
mod status;
mod verify;

pub use leftovers::repair;

use leftovers::Record;
use life::{Life, Next};
use network::Standing;
use routes::Routes;

/// The one TUN device of a client.
const TUN: TunId = TunId(0);
/// How often `idle`, `maxconnect` and the way to the server are looked at.
const CHECK: Duration = Duration::from_secs(1);
/// What an end by `down`, INT or TERM is called.
pub const USER_REQUEST: &str = "User request";

/// Why a client did not even start, grouped by who can do something about it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The machine or its administrator.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The name of the server has no address.
    #[error(
        "cannot find the address of the server {server}: {cause}. Check the name, or give the \
         address in numbers"
    )]
    Resolve {
        /// As it was given.
        server: String,
        /// The resolver's words.
        cause: String,
    },
    /// Nothing may leave but through the tunnel, and the kernel does not see to that.
    #[error(
        "no kill switch, so no tunnel: {0}. It needs nf_tables in the kernel (modprobe nf_tables) \
         and CAP_NET_ADMIN"
    )]
    KillSwitch(std::io::Error),
}

impl ClientError {
    /// pppd's exit status: 3 not root, 4 no kernel support, 16 no connection, 1 anything else.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Host(host) => host.exit_status(),
            Self::Resolve { .. } => 16,
            Self::KillSwitch(_) => 4,
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

/// What whoever waits for the tunnel is told, once.
#[derive(Clone, Debug)]
pub enum Announcement {
    /// It stands.
    Up(Up),
    /// It comes up with the first packet: `demand`.
    OnDemand {
        /// `ppp0`.
        interface: String,
    },
    /// The first attempt has failed, and others follow: `persist`, with pppd's way of going to the
    /// background before the tunnel stands.
    Persisting {
        /// Why.
        why: String,
    },
}

/// Runs a tunnel until it has ended for good. `announce` is told once, when it stands or when there
/// is no use in waiting for that; `requests` ask for its state or its end.
///
/// # Errors
/// When it could not even begin; how it ended is in `Ok`.
pub async fn run(
    config: &ClientConfig,
    log: Log,
    requests: mpsc::Receiver<Asked>,
    announce: oneshot::Sender<Announcement>,
) -> Result<Ended, ClientError> {
    let mut client = Client::start(config, log, announce).await?;
    let outcome = client.run(requests).await;
    service::stopping();
    service::beat_during(client.leave(&outcome)).await;
    let has_stood = client.had_network;
    outcome.map(|ending| Ended { ending, has_stood })
}

/// How a tunnel has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub ending: Ending,
    /// The tunnel stood before.
    pub has_stood: bool,
}

impl Ended {
    /// pppd's exit status: a tunnel that stood and that the peer has ended in order is a success.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match &self.ending {
            Ending::PeerRequest(_) if self.has_stood => 0,
            ending => ending.exit_status(),
        }
    }
}

struct Client<'a> {
    config: &'a ClientConfig,
    started: Instant,
    engine: Engine,
    netlink: Netlink,
    log: Log,
    /// Whether packets of the negotiation are logged.
    debug: Rc<Cell<bool>>,
    scripts: Scripts,
    record: Record,
    routes: Routes,
    life: Life,
    tun: TunDevice,
    index: u32,
    interface: String,
    /// Ours and the peer's, while the interface has them.
    addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The kill switch stands.
    is_closed: bool,
    /// The tunnel has stood at least once.
    has_stood: bool,
    attempts: usize,
    addresses_found: Vec<Ipv4Addr>,

    // The present attempt, or the pause before the next.
    lookup: Option<dial::Lookup>,
    server: Option<SocketAddrV4>,
    /// The server's address for scripts and status.
    device: String,
    /// The way to it, outside the tunnel.
    way: Option<Way>,
    call: Option<(CallId, Arc<SessionCounters>)>,
    /// When the present call, or the last, was begun.
    placed: Instant,
    peer_name: Option<String>,
    /// auth-up was run, and auth-down was not.
    is_proved: bool,
    network: Option<Standing>,
    had_network: bool,
    /// This side has asked for the call's end: with what.
    ending: Option<Ending>,
    redial_at: Option<tokio::time::Instant>,
    /// The next packet starts an attempt.
    is_waiting: bool,
    last_ending: Option<String>,

    /// No attempt is to follow.
    is_leaving: bool,
    announce: Option<oneshot::Sender<Announcement>>,
    /// To be answered when the tunnel has ended.
    waiting: Vec<oneshot::Sender<Answer>>,
}

impl<'a> Client<'a> {
    async fn start(
        config: &'a ClientConfig,
        log: Log,
        announce: oneshot::Sender<Announcement>,
    ) -> Result<Self, ClientError> {
        let started = Instant::now();
        privileges::check().map_err(HostError::from)?;
        let netlink = Netlink::open().map_err(HostError::from)?;
        let mut record = Record::open(&config.tunnel);
        record.repair(&netlink, &log).await;
        if !config.kill_switch {
            record.open_kill_switch().map_err(ClientError::KillSwitch)?;
        }
        let debug = Rc::new(Cell::new(config.log.debug));
        let trace = setup::trace_to(log.clone(), Rc::clone(&debug));
        let engine = Engine::start(
            setup::endpoint_config(config),
            setup::transport_config(config),
            setup::workers_config(config),
            Some(trace),
        )
        .map_err(HostError::from)?;
        let tun =
            tun::open(&setup::interface_pattern(&config.interface)).map_err(HostError::from)?;
        let interface = tun.name.clone();
        log.line(&format!("Using interface {interface}"));
        let (index, _) = netlink.link(&interface).await.map_err(HostError::from)?;
        let table = match &config.interface.vrf {
            Some(vrf) => Some(
                netlink
                    .join_vrf(index, vrf)
                    .await
                    .map_err(HostError::from)?,
            ),
            None => None,
        };
        privileges::give_up().map_err(HostError::from)?;
        let client = Self {
            config,
            started,
            engine,
            netlink,
            log,
            debug,
            scripts: setup::scripts(config),
            record,
            routes: Routes::new(config, table),
            life: Life::new(config.persist),
            tun,
            index,
            interface,
            addresses: None,
            is_closed: false,
            has_stood: false,
            attempts: 0,
            addresses_found: Vec::new(),
            lookup: None,
            server: None,
            device: config.server.clone(),
            way: None,
            call: None,
            placed: started,
            peer_name: None,
            is_proved: false,
            network: None,
            had_network: false,
            ending: None,
            redial_at: None,
            is_waiting: false,
            last_ending: None,
            is_leaving: false,
            announce: Some(announce),
            waiting: Vec::new(),
        };
        Ok(client)
    }

    async fn run(&mut self, mut requests: mpsc::Receiver<Asked>) -> Result<Ending, ClientError> {
        self.write_pid_files();
        self.run_script(Script::NetInit).await;
        if self.config.persist.demand {
            self.wait_on_demand().await?;
        } else {
            self.dial();
        }
        let mut check = tokio::time::interval(CHECK);
        loop {
            let (redial_at, is_waiting) = (self.redial_at, self.is_waiting);
            let step = tokio::select! {
                input = self.engine.next() => Ok(self.engine.handle(input)),
                Some((request, answer)) = requests.recv() => Ok(self.serve(request, answer)),
                _ = check.tick() => Ok(self.check().await),
                () = service::beat() => Ok(Vec::new()),
                addresses = done(&mut self.lookup) => self.found(addresses).await,
                () = until(redial_at) => {
                    self.pause_is_over();
                    Ok(Vec::new())
                }
                () = demand::packet(&self.tun.fd), if is_waiting => {
                    self.log.line("Starting link");
                    self.dial();
                    Ok(Vec::new())
                }
            };
            let outcome = match step {
                Ok(actions) => self.perform(actions).await.map(Ok),
                Err(error) => Some(Err(error)),
            };
            let outcome = match outcome {
                // Asked to leave while nothing was under way.
                None if self.is_leaving && self.is_at_rest() => Some(Ok(self
                    .ending
                    .take()
                    .unwrap_or_else(|| Ending::LocalRequest(USER_REQUEST.to_owned())))),
                outcome => outcome,
            };
            if let Some(outcome) = outcome
                && self.attempt_over(&outcome).await
            {
                return outcome;
            }
        }
    }

    /// Carries out `actions`; the ending when the attempt is over.
    async fn perform(&mut self, actions: Vec<Action>) -> Option<Ending> {
        let mut over = None;
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match &action {
                Action::Report { report, .. } => self.report(report).await,
                Action::Authenticate {
                    call_id,
                    request_id,
                    request,
                } => actions.extend(self.verify(*call_id, *request_id, request)),
                Action::NetworkUp { call_id, network } => {
                    self.has_stood = true;
                    let more = self.network_up(*call_id, network).await;
                    actions.extend(more);
                }
                Action::NetworkDown { .. } => {
                    self.auth_down();
                    self.network_down().await;
                }
                Action::Ipv6Up { call_id, ipv6 } => self.ipv6_up(*call_id, *ipv6).await,
                Action::Ipv6Down { .. } => self.ipv6_down().await,
                Action::Ended { ending, .. } | Action::DialFailed { ending, .. } => {
                    let asked_for = self.ending.take();
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
                self.call_placed(call_id);
            }
        }
        over
    }

    async fn report(&mut self, report: &Report) {
        match report {
            Report::Line(line) | Report::CipherUp(line) => self.log.line(line),
            Report::LinkUp => {}
            Report::NetworkPhase => {
                self.run_script(Script::NetPreUp).await;
                self.follow_new_name().await;
            }
            Report::PeerAuthenticated(name) => {
                self.peer_name = Some(name.clone());
                self.is_proved = true;
                self.start_script(Script::AuthUp, None, None);
            }
        }
    }

    /// pppd tells of the link's end before that of the network on it.
    fn auth_down(&mut self) {
        if std::mem::take(&mut self.is_proved) {
            let (sent, received) = self.octets();
            let since = self.network.as_ref().map_or(self.placed, |it| it.since);
            let carried = (since.elapsed().as_secs(), sent, received);
            let network = self.network.as_ref().map(|it| &it.agreed);
            self.start_script(Script::AuthDown, network, Some(carried));
        }
    }

    fn call_placed(&mut self, call_id: CallId) {
        self.placed = Instant::now();
        self.log
            .line(&format!("Connect: {} <--> {}", self.interface, self.device));
        self.call = self
            .engine
            .counters(call_id)
            .map(|counters| (call_id, Arc::clone(counters)));
    }

    /// An attempt, or its beginning, is over; whether that was the last.
    async fn attempt_over(&mut self, outcome: &Result<Ending, ClientError>) -> bool {
        self.auth_down();
        self.network_down().await;
        self.peer_name = None;
        if let Some((call_id, _)) = self.call.take() {
            let detach = Command::DetachTun { tun: TUN };
            self.engine.command(call_id, detach);
        }
        let ending = match outcome {
            Ok(ending) => ending.clone(),
            // The name may be known again when the network is.
            Err(error @ ClientError::Resolve { server, .. }) => Ending::Unreachable {
                server: server.clone(),
                cause: error.to_string(),
            },
            Err(_) => return true,
        };
        if self.is_leaving {
            return true;
        }
        let next = self.life.after(&ending, self.had_network, rand::random());
        let pause = match next {
            Next::Leave => return true,
            Next::Redial(pause) | Next::AwaitPacket(pause) => pause,
        };
        let why = match outcome {
            Ok(ending) => ending.to_string(),
            Err(error) => error.to_string(),
        };
        let plan = format!("{why}; next attempt in {:.1} s", pause.as_secs_f64());
        self.log.warning(&plan);
        service::status(&plan);
        self.last_ending = Some(why.clone());
        self.redial_at = Some(tokio::time::Instant::now() + pause);
        self.announce_persisting(why);
        false
    }

    fn pause_is_over(&mut self) {
        self.redial_at = None;
        if self.config.persist.demand {
            self.is_waiting = true;
        } else {
            self.dial();
        }
    }

    /// Nothing that could end is under way.
    const fn is_at_rest(&self) -> bool {
        self.is_waiting || self.redial_at.is_some() || self.lookup.is_some()
    }

    async fn run_script(&self, script: Script) {
        let facts = self.facts(None, None);
        self.scripts.run(script, &facts, &self.log).await;
    }

    fn announce_up(&mut self, up: Up) {
        let (interface, local) = (&up.interface, up.network.local);
        service::ready(&format!("Up on {interface}, local IP address {local}"));
        self.announce(Announcement::Up(up));
    }

    fn announce_persisting(&mut self, why: String) {
        use crate::config::pppd_options::Detach;
        // `updetach` and `nodetach` wait until the tunnel stands.
        if self.config.detach == Detach::AtOnce {
            self.announce(Announcement::Persisting { why });
        }
    }

    fn announce(&mut self, announcement: Announcement) {
        if let Some(announce) = self.announce.take() {
            let _ = announce.send(announcement);
        }
    }
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What a lookup has found, once it has.
async fn done(lookup: &mut Option<dial::Lookup>) -> std::io::Result<Vec<Ipv4Addr>> {
    match lookup {
        Some(lookup) => lookup.await.unwrap_or_else(|error| Err(error.into())),
        None => std::future::pending().await,
    }
}
