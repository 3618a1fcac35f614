//! What carries a session's packets between the kernel and a worker: its TUN device, addresses and
//! routes.
//!
//! A client takes its tunnel for open as soon as it has our last Configure-Ack, and may send at
//! once. So the way stands before that frame goes out: `PrepareNetwork` has the kernel make it, and
//! until it has, whatever else the session wants done is held. Other sessions go on meanwhile.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Instant;

use dataplane::limits::TUNS_MAX;
use dataplane::program::{CallId, Command, NetworkSpec, Role, TunId};

use super::{Server, ServerError, Session, Standing};
use crate::config::server::{LocalAddresses, ServerConfig};
use crate::driver::descriptors::{self, DescriptorsError};
use crate::driver::kernel_writer::{Change, Device, DeviceSpec, Done, For, Place, RouteVia};
use crate::driver::namespace;
use crate::driver::scripts::Script;
use crate::proto::link::Network;
use crate::proto::{Action, Event};

/// Devices of workers have the small numbers.
const SESSION_TUNS: u32 = 1 << 16;
/// A control connection, and a TUN device.
const DESCRIPTORS_EACH: u64 = 2;
/// Why a session ends that cannot have its way.
const NO_WAY: &str = "the server cannot make an interface or a route for it";

/// A TUN device that all sessions of one worker share.
pub(super) struct SharedTun {
    pub(super) device: Device,
    /// Our addresses on it.
    locals: HashSet<Ipv4Addr>,
}

/// What one session's packets take.
#[derive(Default)]
pub(super) struct Way {
    /// Its own, unless it shares one.
    device: Option<Device>,
    /// For which addresses and routes stand.
    prepared: Option<Network>,
}

/// What a session wants done while it waits.
pub(super) struct Held {
    actions: VecDeque<Action>,
    network: Network,
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
            self.tuns.push(SharedTun { device, locals });
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
        session.held = Some(Held {
            actions: VecDeque::new(),
            network: network.clone(),
            since: Instant::now(),
        });
        let before = session.way.prepared.take();
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
        changes.push(Change::AddRoute(host_route(index, network)));
        changes
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
        for error in &done.errors {
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
        if done.device.is_some() {
            session.way.device = done.device;
        }
        self.go_on(call_id, done.errors.is_empty())
    }

    /// The session waits no more. What it wanted done meanwhile is to be done.
    fn go_on(&mut self, call_id: CallId, has_way: bool) -> Vec<Action> {
        let Some(held) = self
            .sessions
            .get_mut(&call_id)
            .and_then(|it| it.held.take())
        else {
            return Vec::new();
        };
        if has_way {
            self.open_network(call_id, &held.network);
            if let Some(session) = self.sessions.get_mut(&call_id) {
                session.way.prepared = Some(held.network);
            }
            return held.actions.into();
        }
        // The tunnel would be of no use. What is held still goes out: the peer has to hear of the
        // end in its place.
        let reason = NO_WAY.to_owned();
        let mut actions: Vec<Action> = held.actions.into();
        actions.retain(|action| !matches!(action, Action::NetworkUp { .. }));
        actions.extend(self.engine.handle_event(Event::HangUp { call_id, reason }));
        actions
    }

    fn open_network(&mut self, call_id: CallId, network: &Network) {
        let spec = NetworkSpec {
            tun: self.tun_of(call_id),
            local: network.local,
            peer: network.remote,
            compress_protocol: network.compress_protocol,
            compress_address_control: network.compress_address_control,
            require_encryption: network.require_encryption,
            check_source: true,
        };
        let open = Command::OpenNetwork {
            call_id,
            network: spec,
        };
        self.engine.command(call_id, open);
        let mtu = Some(network.mtu);
        self.engine
            .command(call_id, Command::ClampMss { call_id, mtu });
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

    pub(super) fn network_down(&mut self, call_id: CallId) {
        self.ipv6_down(call_id);
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let prepared = session.way.prepared.take();
        let standing = session.network.take();
        if let Some(Standing { agreed, since, .. }) = standing {
            self.start_script(Script::IpDown, call_id, Some(&agreed));
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

    fn take_routes_away(&self, call_id: CallId, prepared: Option<Network>) {
        if let (Some(network), Some(index)) = (prepared, self.device_index(call_id)) {
            let changes = self.removals(index, &network);
            self.kernel.change(For::Session(call_id), changes);
        }
    }

    /// A session is gone: nothing of its way remains.
    pub(super) fn take_way_apart(&mut self, call_id: CallId, way: Way) {
        match way.device {
            // Its addresses and routes go with it.
            Some(device) => {
                let tun = session_tun(call_id);
                self.engine.command(call_id, Command::DetachTun { tun });
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
