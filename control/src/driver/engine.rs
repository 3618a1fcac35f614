//! What client and server share: the endpoint's state machines joined to sockets, workers and the
//! clock. Happenings become events, actions become system calls; what only one role can decide is
//! handed to it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dataplane::counters::SessionCounters;
use dataplane::handle::StartError;
use dataplane::program::{CallId, Command, NetworkSpec, Notice, Role, SessionSpec, TunId};
use dataplane::sys::packet_socket;
use tokio::sync::mpsc;
use tokio::time::Interval;

use super::admin::TunnelStatus;
use super::clock::Clock;
use super::fast_path::{FastPath, RAW_SOCKET};
use super::transport::{Transport, TransportConfig, TransportInput};
use super::workers::{Workers, WorkersConfig};
use crate::config::fast_path::FastPathMode;
use crate::proto::auth::Verdict;
use crate::proto::ending::Ending;
use crate::proto::endpoint::{CallStatus, ControlCounters, Endpoint, EndpointConfig, Limits};
use crate::proto::link::{LinkConfig, Network};
use crate::proto::refusal::{Refusal, RefusalCounts};
use crate::proto::sources::Access;
use crate::proto::{Action, ConnectionId, Event};

pub(crate) mod handover;

/// How often counters are looked at for signs of life.
const LIFE_CHECK: Duration = Duration::from_secs(1);
/// Peers turned away that are remembered until the role asks: it does before its next action.
const REJECTED_MAX: usize = 64;
/// How soon a full command queue is tried again.
const QUEUE_RETRY: Duration = Duration::from_millis(1);

/// Which way a PPP frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// We sent it.
    Sent,
    /// We received it.
    Rcvd,
}

/// Sees every negotiation frame, for the log.
pub(crate) type Trace = Box<dyn FnMut(CallId, Direction, &[u8])>;

/// Something happened; `Engine::handle` makes it an event.
pub(crate) enum Input {
    Transport(TransportInput),
    Notice(Notice),
    Timer,
    LifeCheck,
    QueueRetry,
    /// Ways to peers have changed.
    WaysChanged,
}

struct Session {
    counters: Arc<SessionCounters>,
    /// `gre_received` at the last look.
    seen: u64,
    /// Those of the network layer.
    seen_packets: u64,
}

/// Endpoint, transport and workers as one.
pub(crate) struct Engine {
    clock: Clock,
    endpoint: Endpoint,
    transport: Transport,
    transport_inputs: mpsc::Receiver<TransportInput>,
    pub(crate) workers: Workers,
    notices: mpsc::Receiver<Notice>,
    sessions: HashMap<CallId, Session>,
    life_check: Interval,
    accepted: u64,
    queue_full: bool,
    trace: Option<Trace>,
    local: Option<Ipv4Addr>,
    /// Sources of those connections that have one of their own and no call yet.
    sources: HashMap<ConnectionId, Ipv4Addr>,
    look_ahead: bool,
    /// Whom a verdict has turned away, until somebody asks.
    rejected: Vec<CallId>,
    /// Or why there is none.
    fast_path: Result<FastPath, String>,
}

impl Engine {
    pub(crate) fn start(
        mut config: EndpointConfig,
        transport: TransportConfig,
        workers: WorkersConfig,
        trace: Option<Trace>,
    ) -> Result<Self, StartError> {
        let (local, mode, look_ahead) = (workers.local, workers.fast_path, workers.look_ahead);
        let (mut workers, notices) = Workers::start(workers)?;
        let fast_path = open_fast_path(mode, &mut workers);
        config.worker_count = workers.count();
        let (transport, transport_inputs) = Transport::new(transport);
        Ok(Self {
            clock: Clock::start(),
            endpoint: Endpoint::new(config, rand::random()),
            transport,
            transport_inputs,
            workers,
            notices,
            sessions: HashMap::new(),
            life_check: tokio::time::interval(LIFE_CHECK),
            accepted: 0,
            queue_full: false,
            trace,
            local,
            sources: HashMap::new(),
            look_ahead,
            rejected: Vec::new(),
            fast_path,
        })
    }

    /// Does an `Action::Connect` from a source address of its own, for GRE as well.
    pub(crate) fn connect_from(
        &mut self,
        connection: ConnectionId,
        server: SocketAddrV4,
        source: Ipv4Addr,
    ) {
        self.sources.insert(connection, source);
        let local = Some(source);
        self.transport.connect_from(connection, server, local);
    }

    pub(crate) fn listen(&mut self, address: SocketAddrV4) -> std::io::Result<()> {
        self.transport.listen(address)
    }

    /// The name of the connection that is accepted next.
    pub(crate) const fn next_accepted(&self) -> ConnectionId {
        ConnectionId(self.accepted)
    }

    /// See [`Endpoint::set_accepting`].
    pub(crate) const fn set_accepting(&mut self, is_accepting: bool) {
        self.endpoint.set_accepting(is_accepting);
    }

    /// See [`Endpoint::set_link`].
    pub(crate) fn set_link(&mut self, link: Arc<LinkConfig>) {
        self.endpoint.set_link(link);
    }

    /// See [`Endpoint::set_access`].
    pub(crate) fn set_access(&mut self, access: Arc<Access>) {
        self.endpoint.set_access(access);
    }

    /// See [`Endpoint::set_limits`].
    pub(crate) const fn set_limits(&mut self, limits: Limits) {
        self.endpoint.set_limits(limits);
    }

    /// See [`Endpoint::refusal_counts`].
    pub(crate) const fn refusal_counts(&self) -> &RefusalCounts {
        self.endpoint.refusal_counts()
    }

    /// See [`Endpoint::next_refusal`].
    pub(crate) fn next_refusal(&mut self) -> Option<(Ipv4Addr, Refusal)> {
        self.endpoint.next_refusal()
    }

    /// See [`Endpoint::call`].
    pub(crate) fn call(&self, call_id: CallId) -> Option<CallStatus> {
        self.endpoint.call(call_id)
    }

    /// Which of our addresses the peer of a connection has called.
    pub(crate) fn called(&self, connection: ConnectionId) -> Option<Ipv4Addr> {
        self.transport.local_address(connection)
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.endpoint.connection_count()
    }

    pub(crate) const fn control_counters(&self) -> ControlCounters {
        self.endpoint.counters()
    }

    /// Counters of a session, while it is installed.
    pub(crate) fn counters(&self, call_id: CallId) -> Option<&Arc<SessionCounters>> {
        self.sessions.get(&call_id).map(|session| &session.counters)
    }

    /// Waits for the next thing to happen. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Input {
        let deadline = self
            .endpoint
            .poll_timeout()
            .map(|time| self.clock.instant(time));
        tokio::select! {
            Some(notice) = self.notices.recv() => Input::Notice(notice),
            Some(input) = self.transport_inputs.recv() => Input::Transport(input),
            () = sleep_until(deadline) => Input::Timer,
            _ = self.life_check.tick() => Input::LifeCheck,
            () = tokio::time::sleep(QUEUE_RETRY), if self.queue_full => Input::QueueRetry,
            () = ways_changed(&mut self.fast_path) => Input::WaysChanged,
        }
    }

    /// Tells the endpoint what happened; returns what it wants done, in order, with the opening of
    /// the network first: the worker must let IP through before the last Configure-Ack tells the
    /// peer that it may send.
    pub(crate) fn handle(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Transport(input) => return self.handle_transport(input),
            Input::Notice(notice) => self.handle_notice(notice),
            Input::Timer => self.endpoint.handle(self.clock.now(), Event::Timeout),
            Input::LifeCheck => self.check_life(),
            Input::QueueRetry => self.queue_full = !self.workers.flush(),
            Input::WaysChanged => self.pass_next_hops_on(),
        }
        self.actions()
    }

    /// Gives the endpoint an event of the role's own.
    pub(crate) fn handle_event(&mut self, event: Event<'_>) -> Vec<Action> {
        if let Event::Verdict {
            call_id,
            verdict: Verdict::Reject { .. },
            ..
        } = &event
            && self.rejected.len() < REJECTED_MAX
        {
            self.rejected.push(*call_id);
        }
        self.endpoint.handle(self.clock.now(), event);
        self.actions()
    }

    /// Whom a verdict has turned away.
    pub(crate) fn next_rejected(&mut self) -> Option<CallId> {
        self.rejected.pop()
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions: Vec<Action> = std::iter::from_fn(|| self.endpoint.poll_action()).collect();
        let is_opening = |action: &Action| {
            matches!(
                action,
                Action::PrepareNetwork { .. } | Action::NetworkUp { .. }
            )
        };
        actions.sort_by_key(|action| !is_opening(action));
        actions
    }

    fn handle_transport(&mut self, input: TransportInput) -> Vec<Action> {
        let now = self.clock.now();
        match input {
            // Dropped, and with it closed, before anything is made for it.
            TransportInput::Accepted { peer, .. } if self.endpoint.turns_away(*peer.ip()) => {}
            TransportInput::Accepted { stream, peer } => {
                let connection = ConnectionId(self.accepted);
                self.accepted += 1;
                self.transport.adopt(connection, stream, Bytes::new());
                self.endpoint
                    .handle(now, Event::Accepted { connection, peer });
            }
            TransportInput::Connected { connection, stream } => {
                self.transport.adopt(connection, stream, Bytes::new());
                self.endpoint.handle(now, Event::Connected { connection });
            }
            TransportInput::Bytes { connection, bytes } if self.transport.knows(connection) => {
                self.endpoint.handle(
                    now,
                    Event::ControlBytes {
                        connection,
                        bytes: &bytes,
                    },
                );
            }
            TransportInput::Disconnected { connection, error }
                if self.transport.knows(connection) =>
            {
                self.transport.close(connection);
                self.endpoint
                    .handle(now, Event::Disconnected { connection, error });
            }
            // Late news of a connection that we closed.
            TransportInput::Bytes { .. } | TransportInput::Disconnected { .. } => {}
        }
        self.actions()
    }

    fn handle_notice(&mut self, notice: Notice) {
        let now = self.clock.now();
        match notice {
            Notice::Punt { call_id, frame } => {
                if let Some(trace) = &mut self.trace {
                    trace(call_id, Direction::Rcvd, &frame);
                }
                self.endpoint.handle(
                    now,
                    Event::Frame {
                        call_id,
                        frame: &frame,
                    },
                );
            }
            Notice::ResetNeeded { call_id } => {
                self.endpoint.handle(now, Event::ResetNeeded { call_id });
            }
            Notice::MppeLost { call_id } => {
                self.endpoint.handle(now, Event::MppeLost { call_id });
            }
            Notice::QuotaSpent { call_id } => {
                let reason = Ending::TrafficLimit.to_string();
                self.endpoint.handle(now, Event::HangUp { call_id, reason });
            }
            Notice::XdpSocket {
                worker,
                interface,
                state,
            } => {
                if let Ok(fast_path) = &mut self.fast_path {
                    fast_path.hear_of_xdp(worker, interface, state);
                }
            }
            Notice::TunLost { .. }
            | Notice::Stopped
            | Notice::Collecting
            | Notice::Exported { .. } => {}
            Notice::Failed { reason } => tracing::error!("{reason}"),
        }
    }

    fn check_life(&mut self) {
        let now = self.clock.now();
        for (call_id, session) in &mut self.sessions {
            let received = session.counters.gre_received.get();
            if received != session.seen {
                session.seen = received;
                let packets = session.counters.received_packets.get();
                let before = std::mem::replace(&mut session.seen_packets, packets);
                let alive = Event::Alive {
                    call_id: *call_id,
                    has_traffic: packets != before,
                };
                self.endpoint.handle(now, alive);
            }
        }
    }

    /// Carries out what is the same for both roles; the role has seen `action` before.
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { connection, server } => self.transport.connect(connection, server),
            Action::SendControl { connection, bytes } => {
                if !self.transport.send(connection, bytes) {
                    self.transport.close(connection);
                    let error = Some("the peer does not read what we send".to_owned());
                    let event = Event::Disconnected { connection, error };
                    self.endpoint.handle(self.clock.now(), event);
                }
            }
            Action::CloseControl { connection } => self.transport.close(connection),
            Action::Install {
                call_id,
                peer,
                peer_call_id,
                connection,
            } => {
                let counters = Arc::new(SessionCounters::default());
                let mut source = self.sources.remove(&connection);
                if source.or(self.local).is_none() {
                    source = self.transport.outer_source(connection, peer);
                }
                let spec = SessionSpec {
                    call_id,
                    peer,
                    local: source,
                    peer_call_id,
                    role: Role::Both,
                    counters: Arc::clone(&counters),
                };
                let session = Session {
                    counters,
                    seen: 0,
                    seen_packets: 0,
                };
                self.sessions.insert(call_id, session);
                self.command(call_id, Command::Install(spec));
                if let Ok(fast_path) = &mut self.fast_path {
                    fast_path.watch(call_id, peer, source.or(self.local));
                }
                self.pass_next_hops_on();
            }
            Action::Dataplane(command) => self.dataplane(command),
            Action::Ipv6Down { call_id } => {
                let ipv6 = None;
                self.command(call_id, Command::SetIpv6 { call_id, ipv6 });
            }
            Action::NetworkDown { call_id } => {
                self.command(call_id, Command::CloseNetwork { call_id });
            }
            Action::Ended { call_id, .. } => {
                self.sessions.remove(&call_id);
                if let Ok(fast_path) = &mut self.fast_path {
                    fast_path.forget(call_id);
                }
                self.command(call_id, Command::Remove { call_id });
            }
            Action::Authenticate { .. }
            | Action::AssignAddresses { .. }
            | Action::Report { .. }
            | Action::PrepareNetwork { .. }
            | Action::NetworkUp { .. }
            | Action::Ipv6Up { .. }
            | Action::DialFailed { .. }
            | Action::Idle => {}
        }
    }

    fn pass_next_hops_on(&mut self) {
        while let Ok(fast_path) = &mut self.fast_path
            && let Some((worker, command)) = fast_path.next_order()
        {
            match command {
                Command::SetNextHop { call_id, .. } => self.workers.send(call_id, command),
                command => self.workers.send_to(usize::from(worker), command),
            }
            self.queue_full = !self.workers.flush();
        }
    }

    /// Fills in how a session's packets leave and arrive.
    pub(crate) fn describe_way(&self, call_id: CallId, status: &mut TunnelStatus) {
        status.look_ahead = self.look_ahead;
        let decision = match &self.fast_path {
            Ok(fast_path) => fast_path.describe(call_id),
            Err(reason) => Some((RAW_SOCKET, reason.clone())),
        };
        if let Some((socket, reason)) = decision {
            status.fast_path = socket.to_owned();
            status.fast_path_reason = reason;
        }
        let receive = match &self.fast_path {
            Ok(fast_path) => fast_path.describe_receive(call_id),
            Err(reason) => Some((RAW_SOCKET, reason.clone())),
        };
        if let Some((socket, reason)) = receive {
            status.fast_path_receive = socket.to_owned();
            status.fast_path_receive_reason = reason;
        }
    }

    fn dataplane(&mut self, command: Command) {
        let call_id = match &command {
            Command::Inject { call_id, frame } => {
                if let Some(trace) = &mut self.trace {
                    trace(*call_id, Direction::Sent, frame);
                }
                *call_id
            }
            Command::SetPeerCallId { call_id, .. }
            | Command::SetReceiveKey { call_id, .. }
            | Command::SetSendKey { call_id, .. }
            | Command::ResetSendKey { call_id } => *call_id,
            // Those follow from other actions (see `Action::Dataplane`).
            _ => return,
        };
        self.command(call_id, command);
    }

    /// Sends a command to the worker, or the workers, of the call.
    pub(crate) fn command(&mut self, call_id: CallId, command: Command) {
        self.workers.send(call_id, command);
        self.queue_full = !self.workers.flush();
    }

    /// Has the workers of the call let IP through, to and from this TUN device. With `check_source`
    /// they drop what the peer sends from another address than its own.
    pub(crate) fn open_network(
        &mut self,
        call_id: CallId,
        tun: TunId,
        network: &Network,
        check_source: bool,
    ) {
        let network = NetworkSpec {
            tun,
            local: network.local,
            peer: network.remote,
            compress_protocol: network.compress_protocol,
            compress_address_control: network.compress_address_control,
            require_encryption: network.require_encryption,
            check_source,
        };
        self.command(call_id, Command::OpenNetwork { call_id, network });
    }

    /// Waits until the last words to the peers have gone out, or `limit` has passed; then ends the
    /// workers, and with them their devices.
    pub(crate) async fn stop(&mut self, limit: Duration) {
        self.transport.flush(limit).await;
        self.workers.stop();
    }
}

/// Watches the network, takes the packet rings over, and gives each worker a packet socket; or says
/// why not.
fn open_fast_path(mode: FastPathMode, workers: &mut Workers) -> Result<FastPath, String> {
    if mode == FastPathMode::Off {
        return Err("the fast path is switched off (--fast-path)".to_owned());
    }
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let senders = workers.senders();
    let fast_path = FastPath::open(senders, workers.take_gates()).map_err(|error| words(&error))?;
    for worker in 0..workers.count() {
        let fd = packet_socket::open().map_err(|error| words(&error))?;
        workers.send_to(usize::from(worker), Command::AttachPacketSocket { fd });
    }
    Ok(fast_path)
}

async fn ways_changed(fast_path: &mut Result<FastPath, String>) {
    match fast_path {
        Ok(fast_path) => fast_path.changed().await,
        Err(_) => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
