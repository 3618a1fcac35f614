//! One host: an endpoint, a data plane, and a ledger that holds the endpoint to its promises.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use control::proto::auth::{self, AuthRequest, Secret, Verdict};
use control::proto::ending::Ending;
use control::proto::endpoint::{Endpoint, EndpointConfig};
use control::proto::link::{Addresses, Ipv6Network, MppeLimit, Network};
use control::proto::{Action, ConnectionId, Event, Time};
use control::wire::log::describe;
use dataplane::counters::SessionCounters;
use dataplane::program::{CallId, Command, Ipv6Spec, NetworkSpec, Role, SessionSpec, TunId};

use crate::plane::Plane;

/// What a host asks of the network around it.
#[derive(Debug)]
pub enum Request {
    /// Open a TCP connection.
    Connect(ConnectionId, SocketAddrV4),
    /// Send octets over one.
    Send(ConnectionId, Bytes),
    /// Close one.
    Close(ConnectionId),
    /// Look a secret up, which may take a while.
    Judge(CallId, u32, Verdict),
    /// Look for free addresses, which may take as long.
    Assign(CallId, Addresses),
}

/// What became of one call.
#[derive(Debug)]
pub struct CallRecord {
    /// While IP flows.
    pub network: Option<Network>,
    /// While IPv6 flows, too.
    pub ipv6: Option<Ipv6Network>,
    /// Whether IP has ever flowed.
    pub was_up: bool,
    /// Why it is over.
    pub ending: Option<Ending>,
}

/// One host.
#[derive(Debug)]
pub struct Node {
    /// Its outer address.
    pub address: Ipv4Addr,
    /// Its control plane.
    pub endpoint: Endpoint,
    /// Its data plane.
    pub plane: Plane,
    /// Every call that it ever had, oldest first.
    pub calls: Vec<(CallId, CallRecord)>,
    /// Why dials came to nothing.
    pub dials_failed: Vec<Ending>,
    /// What the log says, for when a run fails.
    pub log: Vec<String>,
    /// How often `Idle` was said.
    pub idle: usize,
    secrets: BTreeMap<String, Secret>,
    live: BTreeMap<CallId, usize>,
}

impl Node {
    /// A host that knows these names and passwords of others.
    #[must_use]
    pub fn new(
        address: Ipv4Addr,
        config: EndpointConfig,
        seed: [u8; 32],
        secrets: BTreeMap<String, Secret>,
    ) -> Self {
        let looks_ahead = seed[0] % 2 == 1;
        let plane = Plane::new(config.worker_count, config.limits.calls_max, looks_ahead);
        Self {
            address,
            endpoint: Endpoint::new(config, seed),
            plane,
            calls: Vec::new(),
            dials_failed: Vec::new(),
            log: Vec::new(),
            idle: 0,
            secrets,
            live: BTreeMap::new(),
        }
    }

    /// Lets the endpoint handle something, and does what it wants in the order in which it says.
    pub fn handle(&mut self, now: Time, event: Event<'_>) -> Vec<Request> {
        if let Event::Frame { call_id, frame } = &event {
            let line = format!("{now:?} {call_id:?} rcvd {}", describe(frame));
            self.log.push(line);
        }
        self.endpoint.handle(now, event);
        let mut requests = Vec::new();
        while let Some(action) = self.endpoint.poll_action() {
            requests.extend(self.act(now, action));
        }
        requests
    }

    /// Calls that have not ended.
    pub fn live_calls(&self) -> impl Iterator<Item = CallId> {
        self.live.keys().copied()
    }

    /// The record of a call that has not ended.
    #[must_use]
    pub fn live_record(&self, call_id: CallId) -> Option<&CallRecord> {
        let index = self.live.get(&call_id)?;
        self.calls.get(*index).map(|(_, record)| record)
    }

    fn act(&mut self, now: Time, action: Action) -> Option<Request> {
        match action {
            Action::Connect { connection, server } => Some(Request::Connect(connection, server)),
            Action::SendControl { connection, bytes } => Some(Request::Send(connection, bytes)),
            Action::CloseControl { connection } => Some(Request::Close(connection)),
            Action::Authenticate {
                call_id,
                request_id,
                request,
            } => Some(Request::Judge(
                call_id,
                request_id,
                self.judge(call_id, &request),
            )),
            Action::AssignAddresses { call_id } => {
                Some(Request::Assign(call_id, server_addresses(call_id)))
            }
            Action::Install {
                call_id,
                peer,
                peer_call_id,
                ..
            } => self.install(call_id, peer, peer_call_id),
            Action::Dataplane(command) => self.program(now, command),
            Action::Report { call_id, report } => {
                self.log.push(format!("{now:?} {call_id:?} {report:?}"));
                None
            }
            // A server that waits for a kernel prepares; here everything stands at once.
            Action::PrepareNetwork { .. } => None,
            Action::NetworkUp { call_id, network } => self.network_up(now, call_id, network),
            Action::NetworkDown { call_id } => self.network_down(call_id),
            Action::Ipv6Up { call_id, ipv6 } => self.set_ipv6(now, call_id, Some(ipv6)),
            Action::Ipv6Down { call_id } => self.set_ipv6(now, call_id, None),
            Action::Ended { call_id, ending } => self.end(now, call_id, ending),
            Action::DialFailed { ending, .. } => {
                self.log.push(format!("{now:?} dial failed: {ending}"));
                self.dials_failed.push(ending);
                None
            }
            Action::Idle => {
                self.idle += 1;
                None
            }
        }
    }

    fn record(&mut self, call_id: CallId) -> &mut CallRecord {
        let index = self.live.get(&call_id);
        let index = *index.unwrap_or_else(|| panic!("{call_id:?} is not alive"));
        &mut self.calls[index].1
    }

    fn install(
        &mut self,
        call_id: CallId,
        peer: Ipv4Addr,
        peer_call_id: Option<u16>,
    ) -> Option<Request> {
        let before = self.live.insert(call_id, self.calls.len());
        assert!(before.is_none(), "{call_id:?} was installed twice");
        let record = CallRecord {
            network: None,
            ipv6: None,
            was_up: false,
            ending: None,
        };
        self.calls.push((call_id, record));
        let spec = SessionSpec {
            call_id,
            peer,
            local: None,
            peer_call_id,
            role: Role::Both,
            counters: Arc::new(SessionCounters::default()),
        };
        self.plane.obey(call_id, Command::Install(spec));
        None
    }

    fn program(&mut self, now: Time, command: Command) -> Option<Request> {
        let call_id = match &command {
            Command::Inject { call_id, .. }
            | Command::SetPeerCallId { call_id, .. }
            | Command::SetReceiveKey { call_id, .. }
            | Command::SetSendKey { call_id, .. }
            | Command::ResetSendKey { call_id } => *call_id,
            _ => panic!("the driver's to say: {command:?}"),
        };
        if let Command::Inject { call_id, frame } = &command {
            let line = format!("{now:?} {call_id:?} sent {}", describe(frame));
            self.log.push(line);
        }
        self.plane.obey(call_id, command);
        None
    }

    fn network_up(&mut self, now: Time, call_id: CallId, network: Network) -> Option<Request> {
        let cipher = &network.cipher;
        self.log.push(format!("{now:?} {call_id:?} up: {cipher}"));
        let spec = NetworkSpec {
            tun: self.plane.attach(call_id),
            local: network.local,
            peer: network.remote,
            compress_protocol: network.compress_protocol,
            compress_address_control: network.compress_address_control,
            require_encryption: network.require_encryption,
            check_source: false,
        };
        let record = self.record(call_id);
        assert!(record.network.is_none(), "{call_id:?} came up twice");
        record.network = Some(network);
        record.was_up = true;
        let open = Command::OpenNetwork {
            call_id,
            network: spec,
        };
        self.plane.obey(call_id, open);
        None
    }

    fn set_ipv6(
        &mut self,
        now: Time,
        call_id: CallId,
        ipv6: Option<Ipv6Network>,
    ) -> Option<Request> {
        self.log.push(format!("{now:?} {call_id:?} IPv6: {ipv6:?}"));
        let record = self.record(call_id);
        assert!(record.network.is_some(), "{call_id:?} has no network");
        assert_ne!(record.ipv6.is_some(), ipv6.is_some(), "{call_id:?} twice");
        record.ipv6 = ipv6;
        let ipv6 = ipv6.map(|ipv6| Ipv6Spec {
            peer: ipv6.remote.link_local(),
        });
        self.plane.obey(call_id, Command::SetIpv6 { call_id, ipv6 });
        None
    }

    fn network_down(&mut self, call_id: CallId) -> Option<Request> {
        self.record(call_id).ipv6 = None;
        let was = self.record(call_id).network.take();
        assert!(was.is_some(), "{call_id:?} went down and was not up");
        self.plane.obey(call_id, Command::CloseNetwork { call_id });
        let tun = TunId(call_id.0.into());
        self.plane.obey(call_id, Command::DetachTun { tun });
        None
    }

    fn end(&mut self, now: Time, call_id: CallId, ending: Ending) -> Option<Request> {
        self.log
            .push(format!("{now:?} {call_id:?} ended: {ending}"));
        let record = self.record(call_id);
        assert!(record.network.is_none(), "Ended came before NetworkDown");
        record.ending = Some(ending);
        self.live.remove(&call_id);
        self.plane.obey(call_id, Command::Remove { call_id });
        None
    }

    fn judge(&self, call_id: CallId, request: &AuthRequest) -> Verdict {
        let secret = self.secrets.get(&request.peer_name);
        match auth::verify(request, secret) {
            Ok(proof) => Verdict::Accept {
                proof,
                message: "Welcome".to_owned(),
                addresses: server_addresses(call_id),
                mppe: MppeLimit::default(),
            },
            Err(denied) => Verdict::Reject {
                code: 691,
                message: denied.to_string(),
            },
        }
    }
}

/// What a server gives to a call: one address of its own, another for every Call ID.
#[must_use]
pub fn server_addresses(call_id: CallId) -> Addresses {
    let [high, low] = call_id.0.to_be_bytes();
    Addresses {
        local: Some(Ipv4Addr::new(10, 0, 0, 1)),
        remote: Some(Ipv4Addr::new(10, 1, high, low)),
        dns: [Some(Ipv4Addr::new(10, 0, 0, 53)), None],
        ..Addresses::default()
    }
}
