//! What carries a session's packets between the kernel and a worker: its TUN device, addresses and
//! routes.
//!
//! A client takes its tunnel for open as soon as it has our last Configure-Ack, and may send at
//! once. So the way stands before that frame goes out: `PrepareNetwork` has the kernel make it, and
//! until it has, whatever else the session wants done is held. Other sessions go on meanwhile.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::limits::TUNS_MAX;
use dataplane::program::{CallId, Command, Role, TunId};

use super::attributes::SessionRoute;
use super::{Server, ServerError, Session, Standing};
use crate::config::server::{LocalAddresses, ServerConfig};
use crate::driver::descriptors::{self, DescriptorsError};
use crate::driver::kernel_writer::{Change, Device, DeviceSpec, Done, For, Place, RouteVia};
use crate::driver::namespace;
use crate::driver::scripts::Script;
use crate::driver::workers::tun_queue;
use crate::proto::link::Network;
use crate::proto::{Action, Event};

pub(super) mod handover;

/// Devices of workers have the small numbers.
const SESSION_TUNS: u32 = 1 << 16;
/// A control connection, and a TUN device.
const DESCRIPTORS_EACH: u64 = 2;
/// How long a session waits for its record when the disk does not answer.
const RECORD_WAIT: Duration = Duration::from_secs(5);
/// Why a session ends that cannot have its way.
const NO_WAY: &str = "the server has no interface, route or address for this tunnel";

/// A TUN device that all sessions of one worker share.
pub(super) struct SharedTun {
    pub(super) device: Device,
    /// Our addresses on it.
    locals: HashSet<Ipv4Addr>,
    /// Packets that may wait in it.
    queue: u32,
}

/// What one session's packets take.
#[derive(Default)]
pub(super) struct Way {
    /// Its own, unless it shares one.
    device: Option<Device>,
    /// For which addresses and routes stand.
    prepared: Option<Network>,
    /// Routes to networks behind the client (`Framed-Route`).
    networks: Vec<RouteVia>,
}

/// What a session wants done while it waits.
pub(super) struct Held {
    actions: VecDeque<Action>,
    network: Network,
    /// The kernel has not made its way yet.
    awaits_kernel: bool,
    since: Instant,
}

/// Where tunnels are to end.
pub(super) fn place(config: &ServerConfig) -> Place {
    Place {
        namespace: config.netns.as_deref().map(namespace::path_of),
        vrf: config.interface_vrf.clone(),
    }
}

/// Raises the limit of descriptors, and holds it against the sessions where each has a device.
pub(super) fn check_descriptors(config: &ServerConfig) -> Result<(), DescriptorsError> {
    let sessions = u64::from(config.limits.sessions_max);
    let provided = descriptors::provide(sessions, DESCRIPTORS_EACH);
    if config.interface_per_session {
        provided
    } else {
        Ok(())
    }
}

impl Server {
    /// Makes the devices that sessions share, where they do.
    pub(super) async fn open_tuns(&mut self) -> Result<(), ServerError> {
        let workers = self.engine.workers.count();
        if self.config.interface_per_session {
            let most = TUNS_MAX * usize::from(workers);
            if self.config.limits.sessions_max as usize > most {
                return Err(ServerError::TooManyInterfaces(most));
            }
            return Ok(());
        }
        for worker in 0..workers {
            let address = match self.config.local {
                LocalAddresses::Shared(local) => Some((local, None)),
                LocalAddresses::PerSession(_) => None,
            };
            let spec = DeviceSpec {
                name: format!("{}%d", self.config.interface_prefix),
                mtu: Some(self.config.link.lcp.mtu),
                address,
                link_local: self.link_local(),
            };
            self.kernel.open(For::Worker(worker), spec);
            let done = self.kernel.next().await;
            let Some(device) = done.device else {
                return Err(ServerError::Device(done.errors.join("; ")));
            };
            for error in done.errors {
                self.log.line(&error);
            }
            // The device of the calls that this worker receives.
            self.attach(CallId(worker), TunId(u32::from(worker)), &device, None);
            let locals = address.map(|(local, _)| local).into_iter().collect();
            self.tuns.push(SharedTun {
                device,
                locals,
                queue: tun_queue(0),
            });
        }
        Ok(())
    }

    fn attach(&mut self, call_id: CallId, tun: TunId, device: &Device, owner: Option<CallId>) {
        let attach = Command::AttachTun {
            tun,
            fd: device.fd.clone(),
            features: device.features,
            owner,
            role: Role::Both,
        };
        self.engine.command(call_id, attach);
        if let Err(error) = self.host_rules.add_device(&device.name) {
            let name = &device.name;
            self.log.line(&format!(
                "cannot have the rules of [traffic] count for {name}: {error}"
            ));
        }
    }

    /// Gives an action back that may be done now.
    pub(super) fn hold(&mut self, action: Action) -> Option<Action> {
        let session = action.call_id().and_then(|id| self.sessions.get_mut(&id));
        if let Some(held) = session.and_then(|session| session.held.as_mut()) {
            held.actions.push_back(action);
            return None;
        }
        Some(action)
    }

    /// Has the way of a session made; until it stands, the session's actions are held.
    pub(super) fn prepare_network(&mut self, call_id: CallId, network: &Network) {
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        if session.way.prepared.as_ref() == Some(network) {
            return;
        }
        // Of a client that brings its own, this is the first that is heard of it.
        if !self.claim_address(call_id, network.remote) {
            self.say(
                call_id,
                &format!("the address {} is not free", network.remote),
            );
            return self.refuse_network(call_id, network);
        }
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        session.held = Some(Held {
            actions: VecDeque::new(),
            network: network.clone(),
            awaits_kernel: true,
            since: Instant::now(),
        });
        let before = session.way.prepared.take();
        self.take_networks_away(call_id);
        let whom = For::Waiting(call_id);
        match (self.device_index(call_id), before) {
            (None, _) => {
                let spec = DeviceSpec {
                    name: format!("{}%d", self.config.interface_prefix),
                    mtu: Some(network.mtu),
                    address: Some((network.local, Some(network.remote))),
                    link_local: self.link_local(),
                };
                self.kernel.open(whom, spec);
            }
            (Some(index), before) => {
                let mut changes = Vec::new();
                if let Some(before) = before {
                    changes.extend(self.removals(index, &before));
                }
                changes.extend(self.additions(call_id, index, network));
                self.add_networks(call_id, index);
                self.kernel.change(whom, changes);
            }
        }
    }

    /// What makes the way for `network` through a device that is there.
    fn additions(&mut self, call_id: CallId, index: u32, network: &Network) -> Vec<Change> {
        let (local, mtu) = (network.local, network.mtu);
        if self.config.interface_per_session {
            let (mtu, peer) = (Some(mtu), Some(network.remote));
            return vec![
                Change::AddAddress { index, local, peer },
                Change::SetUp { index, mtu },
            ];
        }
        let mut changes = Vec::new();
        let worker = usize::from(call_id.receiver(self.engine.workers.count()));
        if self.tuns[worker].locals.insert(local) {
            let peer = None;
            changes.push(Change::AddAddress { index, local, peer });
        }
        // Grown by doubling, so that few sessions have no long queue.
        let packets = tun_queue(self.sessions.len());
        let tun = &mut self.tuns[worker];
        if packets >= tun.queue.saturating_mul(2) {
            tun.queue = packets;
            changes.push(Change::SetQueue { index, packets });
        }
        changes.push(Change::AddRoute(host_route(index, network)));
        changes
    }

    /// Routes networks behind a client to it. One that cannot be is said, and the tunnel is of use
    /// all the same.
    fn add_networks(&mut self, call_id: CallId, index: u32) {
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let routes = session.attributes.routes.iter();
        let networks: Vec<RouteVia> = routes.map(|route| network_route(index, route)).collect();
        session.way.networks.clone_from(&networks);
        let changes = networks.into_iter().map(Change::AddNetwork).collect();
        self.kernel.change(For::Session(call_id), changes);
    }

    /// Takes them away, but those that another session has, too.
    fn take_networks_away(&mut self, call_id: CallId) {
        let session = self.sessions.get_mut(&call_id);
        let networks = session.map(|session| std::mem::take(&mut session.way.networks));
        self.remove_networks(call_id, networks.unwrap_or_default());
    }

    fn remove_networks(&self, call_id: CallId, networks: Vec<RouteVia>) {
        if networks.is_empty() {
            return;
        }
        let has_it = |session: &Session, route: &RouteVia| session.way.networks.contains(route);
        let unused = |route: &RouteVia| !self.sessions.values().any(|it| has_it(it, route));
        let unused = networks.into_iter().filter(unused);
        let changes = unused.map(Change::RemoveRoute).collect();
        self.kernel.change(For::Session(call_id), changes);
    }

    /// What takes that away again. Addresses of shared devices stay: others have them too.
    fn removals(&self, index: u32, network: &Network) -> Vec<Change> {
        if self.config.interface_per_session {
            let (local, peer) = (network.local, Some(network.remote));
            return vec![Change::RemoveAddress { index, local, peer }];
        }
        vec![Change::RemoveRoute(host_route(index, network))]
    }

    /// The kernel has done something, or could not.
    pub(super) fn kernel_done(&mut self, done: Done) -> Vec<Action> {
        let (For::Session(call_id) | For::Waiting(call_id)) = done.whom else {
            return Vec::new();
        };
        for error in done.errors.iter().filter(|error| !error.is_empty()) {
            self.say(call_id, error);
        }
        if done.whom == For::Session(call_id) {
            return Vec::new();
        }
        if let Some(device) = &done.device {
            self.attach(call_id, session_tun(call_id), device, Some(call_id));
        }
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return Vec::new();
        };
        let index = done.device.as_ref().map(|device| device.index);
        if done.device.is_some() {
            session.way.device = done.device;
        }
        if !done.errors.is_empty() {
            return self.give_up(call_id);
        }
        if let Some(index) = index
            && !session.attributes.routes.is_empty()
        {
            self.add_networks(call_id, index);
            self.kernel.change(done.whom, Vec::new());
            return Vec::new();
        }
        if let Some(held) = &mut session.held {
            held.awaits_kernel = false;
        }
        self.go_on_when_ready(call_id)
    }

    /// What a session wanted done is done when its way stands and its address is on record.
    pub(super) fn go_on_when_ready(&mut self, call_id: CallId) -> Vec<Action> {
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return Vec::new();
        };
        let is_ready = |held: &mut Held| !held.awaits_kernel && !session.awaits_record;
        let Some(held) = session.held.take_if(is_ready) else {
            return Vec::new();
        };
        session.way.prepared = Some(held.network.clone());
        self.open_network(call_id, &held.network);
        held.actions.into()
    }

    /// Sessions whose records have been awaited for too long go on without.
    pub(super) fn release_overdue(&mut self) -> Vec<Action> {
        let is_overdue = |session: &Session| {
            let held = session.held.as_ref();
            session.awaits_record
                && held.is_some_and(|it| !it.awaits_kernel && it.since.elapsed() > RECORD_WAIT)
        };
        let overdue = self.sessions.iter().filter(|(_, it)| is_overdue(it));
        let overdue: Vec<CallId> = overdue.map(|(call_id, _)| *call_id).collect();
        let mut actions = Vec::new();
        for call_id in overdue {
            self.say(call_id, "the lease file takes long; going on without it");
            if let Some(session) = self.sessions.get_mut(&call_id) {
                session.awaits_record = false;
            }
            actions.extend(self.go_on_when_ready(call_id));
        }
        actions
    }

    /// A tunnel without its way would be of no use. What is held still goes out, as far as it is
    /// true: the peer has to hear of the end in its place.
    fn give_up(&mut self, call_id: CallId) -> Vec<Action> {
        let session = self.sessions.get_mut(&call_id);
        let held = session.and_then(|session| session.held.take());
        let mut actions: Vec<Action> = held.map_or_else(Vec::new, |held| held.actions.into());
        actions.retain(|action| !matches!(action, Action::NetworkUp { .. }));
        let reason = NO_WAY.to_owned();
        actions.extend(self.engine.handle_event(Event::HangUp { call_id, reason }));
        actions
    }

    /// Ends a session whose network cannot be. The same as when the kernel has refused it.
    fn refuse_network(&mut self, call_id: CallId, network: &Network) {
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.held = Some(Held {
                actions: VecDeque::new(),
                network: network.clone(),
                awaits_kernel: true,
                since: Instant::now(),
            });
        }
        self.kernel.refuse(For::Waiting(call_id));
    }

    fn open_network(&mut self, call_id: CallId, network: &Network) {
        self.let_through(call_id, network);
        let networks = self
            .sessions
            .get(&call_id)
            .map(|it| it.way.networks.clone());
        for network in networks.unwrap_or_default() {
            self.say(call_id, &format!("route {network} added"));
        }
    }

    /// Has the worker let IP through.
    fn let_through(&mut self, call_id: CallId, network: &Network) {
        let (tun, check_source) = (self.tun_of(call_id), self.config.traffic.check_source);
        self.engine
            .open_network(call_id, tun, network, check_source);
        let mtu = self.config.traffic.clamp_mss.then_some(network.mtu);
        self.engine
            .command(call_id, Command::ClampMss { call_id, mtu });
        self.set_limits(call_id, false);
        let networks = self
            .sessions
            .get(&call_id)
            .map(|it| it.way.networks.clone());
        let networks = networks.unwrap_or_default();
        if networks.is_empty() {
            return;
        }
        let pairs = networks.iter().map(|it| (it.destination, it.prefix_len));
        let networks = pairs.collect();
        self.engine
            .command(call_id, Command::SetRoutes { call_id, networks });
    }

    pub(super) fn network_up(&mut self, call_id: CallId, network: Network) {
        let Some(session) = self.sessions.get(&call_id) else {
            return;
        };
        if session.way.prepared.as_ref() != Some(&network) {
            // Something has changed at the last moment.
            self.prepare_network(call_id, &network);
            self.hold(Action::NetworkUp { call_id, network });
            return;
        }
        self.answer_arp(call_id, network.remote);
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
        self.account_start(call_id);
    }

    pub(super) fn network_down(&mut self, call_id: CallId) {
        let session = self.sessions.get(&call_id);
        let standing = session.and_then(|it| it.network.as_ref());
        if let Some(agreed) = standing.map(|it| it.agreed.clone()) {
            self.start_script(Script::IpDown, call_id, Some(&agreed));
        }
        self.ipv6_down(call_id);
        self.stop_answering_arp(call_id);
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let prepared = session.way.prepared.take();
        let standing = session.network.take();
        if let Some(Standing { since, .. }) = standing {
            let minutes = since.elapsed().as_secs_f64() / 60.0;
            self.say(call_id, &format!("Connect time {minutes:.1} minutes."));
            if let Some(counters) = self.engine.counters(call_id) {
                let (sent, received) = (counters.sent_bytes.get(), counters.received_bytes.get());
                let text = format!("Sent {sent} bytes, received {received} bytes.");
                self.say(call_id, &text);
            }
        }
        self.take_routes_away(call_id, prepared);
    }

    fn take_routes_away(&mut self, call_id: CallId, prepared: Option<Network>) {
        self.take_networks_away(call_id);
        if let (Some(network), Some(index)) = (prepared, self.device_index(call_id)) {
            let changes = self.removals(index, &network);
            self.kernel.change(For::Session(call_id), changes);
        }
    }

    /// A session is gone: nothing of its way remains.
    pub(super) fn take_way_apart(&mut self, call_id: CallId, way: Way) {
        self.remove_networks(call_id, way.networks);
        match way.device {
            // Its addresses and routes go with it.
            Some(device) => {
                let tun = session_tun(call_id);
                self.engine.command(call_id, Command::DetachTun { tun });
                // That it is not in the table is no harm.
                let _ = self.host_rules.remove_device(&device.name);
                self.kernel.close(device.fd);
            }
            None => self.take_routes_away(call_id, way.prepared),
        }
    }

    fn tun_of(&self, call_id: CallId) -> TunId {
        if self.config.interface_per_session {
            session_tun(call_id)
        } else {
            TunId(u32::from(call_id.receiver(self.engine.workers.count())))
        }
    }

    /// The device of a session, its own or that of its worker.
    fn device(&self, call_id: CallId) -> Option<&Device> {
        let own = |session: &Session| session.way.device.is_some();
        if let Some(session) = self.sessions.get(&call_id).filter(|session| own(session)) {
            return session.way.device.as_ref();
        }
        let worker = usize::from(call_id.receiver(self.engine.workers.count()));
        self.tuns.get(worker).map(|tun| &tun.device)
    }

    pub(super) fn device_index(&self, call_id: CallId) -> Option<u32> {
        self.device(call_id).map(|device| device.index)
    }

    /// Empty while a session that has a device of its own has none yet.
    pub(super) fn device_name(&self, call_id: CallId) -> &str {
        self.device(call_id).map_or("", |device| &device.name)
    }
}

fn session_tun(call_id: CallId) -> TunId {
    TunId(SESSION_TUNS + u32::from(call_id.0))
}

fn network_route(index: u32, route: &SessionRoute) -> RouteVia {
    RouteVia {
        index,
        destination: route.destination,
        prefix_len: route.prefix_len,
        source: None,
        mtu: None,
        metric: route.metric,
    }
}

fn host_route(index: u32, network: &Network) -> RouteVia {
    RouteVia {
        index,
        destination: network.remote,
        prefix_len: 32,
        source: Some(network.local),
        mtu: Some(network.mtu),
        metric: None,
    }
}
