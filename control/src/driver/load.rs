//! Many clients in one process: the same state machines, transport and data plane as a tunnel of
//! `up` has, with one TUN device for all of them. For measuring servers.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::impairment::Impairment;
use dataplane::program::{CallId, Command, Role, TunId};
use dataplane::sys::tun::{self, TunDevice};

use super::drops::{self, Drops};
use super::engine::{Engine, Input};
use super::host_error::HostError;
use super::ipv6;
use super::netlink::Netlink;
use super::privileges;
use super::transport::{TransportConfig, TransportInput};
use super::workers::{WorkersConfig, tun_queue};
use crate::config::fast_path::FastPathMode;
use crate::proto::endpoint::EndpointConfig;
use crate::proto::link::{LinkConfig, Network, Report};
use crate::proto::{Action, ConnectionId, Event};

mod phases;
mod tally;

pub(crate) use phases::{PHASES, Phases};
pub(crate) use tally::{Cause, Causes, Tally};

/// The one TUN device, of the one worker.
const TUN: TunId = TunId(0);
const INTERFACE: &str = "load%d";

/// Who dials, how many of them, and how fast.
pub(crate) struct LoadConfig {
    pub server: SocketAddrV4,
    pub count: usize,
    /// Dials a second; `None` is as fast as the server answers.
    pub rate: Option<f64>,
    /// Dials under way at a time.
    pub at_once: usize,
    /// Outer source addresses, taken in turn; empty lets the routes choose.
    pub sources: Vec<Ipv4Addr>,
    /// Name of each client: `{}` is its number, from 1.
    pub user: String,
    /// What the clients are, but for their names.
    pub link: LinkConfig,
    pub endpoint: EndpointConfig,
    pub fast_path: FastPathMode,
    pub impairment: Impairment,
}

/// One client.
struct Client {
    dialled_at: Instant,
    phases: Phases,
    call_id: Option<CallId>,
    /// While its network stands.
    network: Option<Network>,
}

/// All of them.
pub(crate) struct Load {
    config: LoadConfig,
    engine: Engine,
    netlink: Netlink,
    interface: u32,
    interface_name: String,
    clients: Vec<Client>,
    by_connection: HashMap<ConnectionId, usize>,
    by_call: HashMap<CallId, usize>,
    /// Addresses of the server inside the tunnels that have a route.
    routed: HashSet<Ipv4Addr>,
    tally: Tally,
    is_idle: bool,
    began_at: Option<Instant>,
    latest_up_at: Option<Instant>,
}

impl Load {
    /// Opens the sockets and the TUN device, in this thread's network namespace.
    pub(crate) async fn start(config: LoadConfig) -> Result<Self, HostError> {
        privileges::check()?;
        let workers = WorkersConfig {
            dont_fragment: false,
            // One TUN device, so one worker.
            count: 1,
            split_directions: false,
            local: None,
            mark: None,
            sessions_max: config.count,
            fast_path: config.fast_path,
            look_ahead: false,
            impairment: config.impairment,
            is_held: false,
        };
        let endpoint = config.endpoint.clone();
        let mut engine = Engine::start(endpoint, TransportConfig::default(), workers, None)?;
        let netlink = Netlink::open()?;
        let TunDevice { fd, name, features } = tun::open(INTERFACE)?;
        let (interface, _) = netlink.link(&name).await?;
        ipv6::permit(&name, false);
        let mtu = Some(config.link.lcp.mtu);
        netlink.set_up(interface, mtu).await?;
        let queue = tun_queue(config.count);
        netlink.set_queue(interface, queue).await?;
        let attach = Command::AttachTun {
            tun: TUN,
            fd: fd.into(),
            features,
            owner: None,
            role: Role::Both,
        };
        engine.command(CallId(0), attach);
        engine.command(CallId(0), Command::RouteBySource { tun: TUN });
        Ok(Self {
            clients: Vec::with_capacity(config.count),
            config,
            engine,
            netlink,
            interface,
            interface_name: name,
            by_connection: HashMap::new(),
            by_call: HashMap::new(),
            routed: HashSet::new(),
            tally: Tally::default(),
            is_idle: false,
            began_at: None,
            latest_up_at: None,
        })
    }

    /// Dials all clients and waits until each has its network or has failed. `progress` is told
    /// of each.
    pub(crate) async fn establish(&mut self, mut progress: impl FnMut(&Tally)) {
        let began_at = Instant::now();
        self.began_at = Some(began_at);
        loop {
            progress(&self.tally);
            let next = self.clients.len();
            let is_over = self.tally.decided() >= self.config.count;
            if is_over {
                return;
            }
            let may_dial = next < self.config.count && self.under_way() < self.config.at_once;
            let due_at = self
                .config
                .rate
                .map(|rate| began_at + Duration::from_secs_f64(next as f64 / rate));
            if may_dial && due_at.is_none_or(|due_at| due_at <= Instant::now()) {
                self.dial().await;
                continue;
            }
            let due_at = due_at.filter(|_| may_dial);
            tokio::select! {
                input = self.engine.next() => self.take(input).await,
                () = until(due_at) => {}
            }
        }
    }

    /// Keeps the tunnels alive until `work` is done.
    pub(crate) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                input = self.engine.next() => self.take(input).await,
            }
        }
    }

    /// Ends every tunnel in order, for at most `limit`.
    pub(crate) async fn stop(&mut self, limit: Duration) {
        self.tally.stop();
        let actions = self.engine.handle_event(Event::Shutdown);
        let orderly = async {
            self.perform(actions).await;
            while !self.is_idle {
                let input = self.engine.next().await;
                self.take(input).await;
            }
        };
        // What has not ended by then ends with the process.
        let _ = tokio::time::timeout(limit, orderly).await;
        self.engine.stop(limit).await;
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// From the first dial to the last tunnel that came up.
    pub(crate) fn took(&self) -> Duration {
        match (self.began_at, self.latest_up_at) {
            (Some(from), Some(to)) => to - from,
            _ => Duration::ZERO,
        }
    }

    /// How long each phase took, of every client whose tunnel came up.
    pub(crate) fn phases(&self) -> impl Iterator<Item = &Phases> {
        self.clients.iter().map(|client| &client.phases)
    }

    /// Our and the server's addresses inside each tunnel that stands.
    pub(crate) fn networks(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let networks = self.clients.iter().filter_map(|it| it.network.as_ref());
        networks.map(|it| (it.local, it.remote)).collect()
    }

    /// Makes the tunnels' addresses inside this machine's own, so that programs can use them.
    pub(crate) async fn own_addresses(&self) -> Result<(), HostError> {
        for (local, _) in self.networks() {
            self.netlink.add_local_host(self.interface, local).await?;
        }
        Ok(())
    }

    /// What the data plane dropped, by reason.
    pub(crate) fn drops(&self) -> Drops {
        drops::count(
            &self.engine.workers,
            std::iter::once(self.interface_name.as_str()),
        )
    }

    fn under_way(&self) -> usize {
        self.clients.len() - self.tally.decided()
    }

    async fn dial(&mut self) {
        let index = self.clients.len();
        let number = (index + 1).to_string();
        let link = LinkConfig {
            name: self.config.user.replace("{}", &number),
            ..self.config.link.clone()
        };
        self.clients.push(Client {
            dialled_at: Instant::now(),
            phases: Phases::default(),
            call_id: None,
            network: None,
        });
        let (server, link) = (self.config.server, Arc::new(link));
        let actions = self.engine.handle_event(Event::Dial { server, link });
        for action in &actions {
            if let Action::Connect { connection, .. } | Action::DialFailed { connection, .. } =
                action
            {
                self.by_connection.insert(*connection, index);
            }
        }
        self.perform(actions).await;
    }

    async fn take(&mut self, input: Input) {
        if let Input::Transport(TransportInput::Connected { connection, .. }) = &input {
            self.mark(
                self.by_connection.get(connection).copied(),
                Phases::connected,
            );
        }
        let actions = self.engine.handle(input);
        self.perform(actions).await;
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match &action {
                Action::Connect { connection, server } => {
                    if let Some(source) = self.source(*connection) {
                        self.engine.connect_from(*connection, *server, source);
                        continue;
                    }
                }
                Action::Install {
                    call_id,
                    connection,
                    ..
                } => self.call_placed(*call_id, *connection),
                Action::Report { call_id, report } => self.report(*call_id, report),
                Action::NetworkUp { call_id, network } => {
                    self.network_up(*call_id, network.clone()).await;
                }
                Action::NetworkDown { call_id } => {
                    if let Some(client) = self.client_of(*call_id) {
                        client.network = None;
                    }
                }
                Action::Ended { call_id, ending } => {
                    if let Some(index) = self.by_call.remove(call_id) {
                        self.clients[index].network = None;
                        self.tally.ended(index, ending);
                    }
                }
                Action::DialFailed { connection, ending } => {
                    if let Some(index) = self.by_connection.remove(connection) {
                        self.tally.ended(index, ending);
                    }
                }
                Action::Idle => self.is_idle = true,
                _ => {}
            }
            self.engine.perform(action);
        }
    }

    fn source(&self, connection: ConnectionId) -> Option<Ipv4Addr> {
        let index = self.by_connection.get(&connection)?;
        let sources = &self.config.sources;
        let place = index.checked_rem(sources.len())?;
        sources.get(place).copied()
    }

    fn call_placed(&mut self, call_id: CallId, connection: ConnectionId) {
        let Some(index) = self.by_connection.remove(&connection) else {
            return;
        };
        self.by_call.insert(call_id, index);
        self.clients[index].call_id = Some(call_id);
        self.mark(Some(index), Phases::call_placed);
    }

    fn report(&mut self, call_id: CallId, report: &Report) {
        let index = self.by_call.get(&call_id).copied();
        match report {
            Report::LinkUp => self.mark(index, Phases::link_up),
            Report::NetworkPhase => self.mark(index, Phases::authenticated),
            Report::CipherUp(_) => self.mark(index, Phases::cipher_up),
            Report::Line(_) | Report::PeerAuthenticated(_) => {}
        }
    }

    fn mark(&mut self, index: Option<usize>, mark: impl FnOnce(&mut Phases, Duration)) {
        if let Some(client) = index.and_then(|index| self.clients.get_mut(index)) {
            mark(&mut client.phases, client.dialled_at.elapsed());
        }
    }

    fn client_of(&mut self, call_id: CallId) -> Option<&mut Client> {
        let index = *self.by_call.get(&call_id)?;
        self.clients.get_mut(index)
    }

    async fn network_up(&mut self, call_id: CallId, network: Network) {
        // No check of sources: the server may route others' packets to us.
        self.engine.open_network(call_id, TUN, &network, false);
        let server = network.remote;
        if self.routed.insert(server) {
            let entry = super::netlink::RouteEntry {
                destination: server,
                prefix_len: 32,
                interface: Some(self.interface),
                gateway: None,
                metric: 0,
                table: None,
            };
            // Without it only traffic is missing, and that is counted.
            let _ = self.netlink.add_route(&entry).await;
        }
        let index = self.by_call.get(&call_id).copied();
        self.mark(index, Phases::network_up);
        if let Some(index) = index {
            self.clients[index].network = Some(network);
            self.tally.came_up(index);
            self.latest_up_at = Some(Instant::now());
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
