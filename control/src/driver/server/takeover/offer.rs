//! The side of the old process: greets new ones, tells all that it knows, and stands still.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use dataplane::program::{CallId, Notice};
use dataplane::snapshot::Hidden;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::channel::Channel;
use super::state::{
    ConnectionState, Descriptor, NetworkState, PlaceState, SessionState, State, ToNew, ToOld,
    Unheard,
};
use super::{FORMAT, LEAD, READY_LIMIT, STANDSTILL_LIMIT, WORD_LIMIT};
use crate::driver::engine::Input;
use crate::driver::engine::handover::Exported;
use crate::driver::server::radius::Radius;
use crate::driver::server::{Server, Session};
use crate::driver::service;
use crate::driver::transport::TransportInput;
use crate::proto::endpoint::EndpointSnapshot;

/// Why the old process goes on.
struct Refusal {
    reason: String,
    /// It stood still.
    is_still: bool,
    lead: u32,
}

impl Refusal {
    fn new(reason: impl ToString, is_still: bool) -> Self {
        Self {
            reason: reason.to_string(),
            is_still,
            lead: 0,
        }
    }
}

/// For the new process to go on once it may; one that hangs then is ended.
const RUNNING_LIMIT: Duration = Duration::from_secs(10);
/// For the kernel and the lease file to do what they are at.
const HELD_LIMIT: Duration = Duration::from_millis(500);

/// What every new process is offered.
#[derive(Clone)]
struct Offer {
    workers: u16,
    place: PlaceState,
}

/// Greets new processes for ever. Those whose workers stand by are passed on.
async fn greet(listener: UnixListener, offer: Offer, ready: mpsc::Sender<Channel>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Whoever is not root's is not answered.
                if let Ok(channel) = Channel::new(stream) {
                    tokio::task::spawn_local(greet_one(channel, offer.clone(), ready.clone()));
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn greet_one(channel: Channel, offer: Offer, ready: mpsc::Sender<Channel>) {
    let answer = match channel.receive(WORD_LIMIT).await {
        Ok((ToOld::Hello { format: FORMAT }, _)) => ToNew::Offer {
            workers: offer.workers,
            pid: std::process::id(),
            place: offer.place,
        },
        Ok((ToOld::Hello { format }, _)) => ToNew::Refused {
            reason: format!(
                "it hands over in format {FORMAT}, and this version takes over in format {format}: \
                 restart the service instead, which ends its sessions"
            ),
        },
        _ => return,
    };
    if channel.send(&answer, &[]).await.is_ok()
        && matches!(answer, ToNew::Offer { .. })
        && let Ok((ToOld::Ready, _)) = channel.receive(READY_LIMIT).await
    {
        let _ = ready.send(channel).await;
    }
}

impl Server {
    /// Lets new processes ask. What comes out has workers that stand by.
    pub(in crate::driver::server) fn greet_successors(&mut self) -> mpsc::Receiver<Channel> {
        let (ready, channels) = mpsc::channel(1);
        let listener = self.sockets.as_ref().and_then(|sockets| {
            let listener = sockets.takeover.try_clone().ok()?;
            UnixListener::from_std(listener).ok()
        });
        if let Some(listener) = listener {
            let offer = Offer {
                workers: self.engine.workers.count(),
                place: PlaceState::of(&self.config),
            };
            let task = tokio::task::spawn_local(greet(listener, offer, ready));
            if let Some(sockets) = &mut self.sockets {
                sockets.porter = Some(task.abort_handle());
            }
        }
        channels
    }

    /// Hands over; then the new process waits until `channel`, which comes back, is closed. When it
    /// comes to nothing, everything goes on as before.
    pub(in crate::driver::server) async fn hand_over(
        &mut self,
        channel: Channel,
    ) -> Option<(EndpointSnapshot, Channel)> {
        let pid = channel.peer().pid;
        self.log
            .line(&format!("Process {pid} asks to take over the sessions"));
        let mut unheard = Vec::new();
        self.engine.rest_fast_path();
        let refusal = match self.offer(&channel, &mut unheard).await {
            Ok(taken) => {
                service::hand_over(pid);
                self.log
                    .line(&format!("Process {pid} has taken over the sessions"));
                return Some((taken, channel));
            }
            Err(refusal) => refusal,
        };
        let words = format!("Process {pid} has not taken over: {}", refusal.reason);
        self.log.line(&words);
        // If it does not hear that: it does not go on as long as this process lives.
        let cancelled = ToNew::Cancelled {
            reason: refusal.reason,
        };
        let sending = channel.send(&cancelled, &[]);
        let _ = tokio::time::timeout(Duration::from_millis(100), sending).await;
        drop(channel);
        if refusal.is_still {
            self.engine.go_on(refusal.lead);
        }
        self.engine.resume_fast_path();
        for input in unheard {
            self.observer.look_at(&input, self.engine.next_accepted());
            let actions = self.engine.handle(input);
            self.perform(actions);
        }
        None
    }

    async fn offer(
        &mut self,
        channel: &Channel,
        unheard: &mut Vec<Input>,
    ) -> Result<EndpointSnapshot, Refusal> {
        let mut sent = HashSet::new();
        self.tell(channel, false, &mut sent, unheard).await?;
        let word = channel.receive(WORD_LIMIT).await;
        expect(word, |word| matches!(word, ToOld::Accepted)).map_err(|e| Refusal::new(e, false))?;

        self.let_sessions_settle().await;
        self.engine.pause_transport(unheard).await;
        let taken = self.tell(channel, true, &mut sent, unheard).await?;
        let word = channel.receive(STANDSTILL_LIMIT).await;
        expect(word, |word| matches!(word, ToOld::Taken)).map_err(|e| Refusal::new(e, true))?;

        let go = channel.send(&ToNew::Go, &[]).await;
        go.map_err(|error| Refusal::new(error, true))?;
        // From here on only its end can bring the sessions back.
        let mut word = channel.receive(RUNNING_LIMIT).await;
        if matches!(&word, Err(error) if error.kind() == ErrorKind::TimedOut) {
            // It has the connection open, so the number is its own still.
            let _ = kill(Pid::from_raw(channel.peer().pid), Signal::SIGKILL);
            word = channel.receive(Duration::MAX).await;
        }
        expect(word, |word| matches!(word, ToOld::Running)).map_err(|reason| Refusal {
            reason,
            is_still: true,
            lead: LEAD,
        })?;
        Ok(taken)
    }

    /// What is held up between two steps is not carried: it goes on first.
    async fn let_sessions_settle(&mut self) {
        let limit = tokio::time::sleep(HELD_LIMIT);
        tokio::pin!(limit);
        while self.sessions.values().any(|session| session.held.is_some()) {
            let actions = tokio::select! {
                done = self.kernel.next() => self.kernel_done(done),
                kept = self.leases.next() => self.lease_kept(kept),
                () = &mut limit => return,
            };
            self.perform(actions);
        }
    }

    /// Tells everything; with `is_last` it stands still before.
    async fn tell(
        &mut self,
        channel: &Channel,
        is_last: bool,
        sent: &mut HashSet<Descriptor>,
        unheard: &mut Vec<Input>,
    ) -> Result<EndpointSnapshot, Refusal> {
        let exported = self.engine.export(is_last, unheard).await;
        let exported = exported.ok_or_else(|| Refusal::new("a worker does not answer", is_last))?;
        let (mut state, descriptors) = self.state(exported, sent);
        state.is_last = is_last;
        state.unheard = unheard.iter().filter_map(told).collect();
        let endpoint = state.endpoint.clone();
        let limit = if is_last {
            STANDSTILL_LIMIT
        } else {
            WORD_LIMIT
        };
        let message = ToNew::State(Box::new(state));
        let sending = tokio::time::timeout(limit, channel.send(&message, &descriptors));
        match sending.await {
            Ok(Ok(())) => Ok(endpoint),
            Ok(Err(error)) => Err(Refusal::new(error, is_last)),
            Err(_) => Err(Refusal::new("it does not listen", is_last)),
        }
    }

    fn state(&self, mut exported: Exported, sent: &mut HashSet<Descriptor>) -> (State, Vec<RawFd>) {
        let is_carried = |call_id| self.sessions.get(&call_id).is_some_and(is_up);
        let (endpoint, now, accepted) = self.engine.snapshot(is_carried);
        let (mut names, mut descriptors) = (Vec::new(), Vec::new());
        let mut carry = |name: Descriptor, descriptor: RawFd| {
            if sent.insert(name) {
                names.push(name);
                descriptors.push(descriptor);
            }
        };
        for (address, listener) in self.engine.listeners() {
            carry(Descriptor::Listener(address), listener);
        }
        if let Some(sockets) = &self.sockets {
            carry(Descriptor::Admin, sockets.admin.as_raw_fd());
            carry(Descriptor::Takeover, sockets.takeover.as_raw_fd());
        }
        let mut tuns = Vec::new();
        for (worker, shared) in (0..).zip(&self.tuns) {
            let (tun, fd) = shared.told(worker);
            carry(Descriptor::Tun(worker), fd);
            tuns.push(tun);
        }
        for (call_id, _) in endpoint.calls() {
            let session = self.sessions.get(&call_id);
            if let Some(fd) = session.and_then(|session| session.way.told().1) {
                carry(Descriptor::Device(call_id), fd);
            }
        }
        if let Some(socket) = self.radius.as_ref().and_then(Radius::order_socket) {
            carry(Descriptor::Orders, socket);
        }
        let mut connections = Vec::new();
        for connection in endpoint.connections() {
            if let Some((socket, unsent)) = self.engine.connection(connection) {
                carry(Descriptor::Connection(connection), socket);
                connections.push(ConnectionState { connection, unsent });
            }
        }
        let told = |(call_id, peer_call_id)| {
            self.session_state(call_id, peer_call_id, exported.remove(&call_id)?)
        };
        let state = State {
            is_last: false,
            descriptors: names,
            now,
            accepted,
            identifier: self.config.link.ipv6.and_then(|ipv6| ipv6.local),
            tuns,
            sessions: endpoint.calls().filter_map(told).collect(),
            endpoint,
            connections,
            unheard: Vec::new(),
            is_draining: self.operation.is_draining,
            tally: self.observer.told(),
            radius: self.radius.as_ref().map(Radius::told),
            supervisor: service::supervisor(),
        };
        (state, descriptors)
    }

    fn session_state(
        &self,
        call_id: CallId,
        peer_call_id: Option<u16>,
        dataplane: dataplane::snapshot::SessionSnapshot,
    ) -> Option<SessionState> {
        let session = self.sessions.get(&call_id)?;
        let standing = session.network.as_ref()?;
        Some(SessionState {
            call_id,
            peer_call_id,
            peer: session.peer.parse().ok()?,
            attributes: session.attributes.clone(),
            address: session.address,
            way: session.way.told().0,
            seen: self.observer.session_told(call_id),
            account: self
                .radius
                .as_ref()
                .and_then(|radius| radius.account_told(call_id)),
            age_ms: session.since.map_or(0, age_ms),
            network: NetworkState {
                agreed: standing.agreed.clone(),
                ipv6: standing.ipv6,
                age_ms: age_ms(standing.since),
                packets: standing.packets,
                quiet_ms: age_ms(standing.busy_at),
            },
            counters: self.engine.counters(call_id)?.values(),
            dataplane,
        })
    }
}

/// Its network stands, and it waits for nothing.
const fn is_up(session: &Session) -> bool {
    session.network.is_some() && session.held.is_none()
}

fn age_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What the new process must hear of; the rest is of no use there.
fn told(input: &Input) -> Option<Unheard> {
    Some(match input {
        Input::Transport(TransportInput::Bytes { connection, bytes }) => {
            Unheard::Bytes(*connection, bytes.to_vec())
        }
        Input::Transport(TransportInput::Disconnected { connection, error }) => {
            Unheard::Disconnected(*connection, error.clone())
        }
        Input::Notice(Notice::Punt { call_id, frame }) => {
            Unheard::Frame(*call_id, Hidden::new(frame))
        }
        Input::Notice(Notice::ResetNeeded { call_id }) => Unheard::ResetNeeded(*call_id),
        Input::Notice(Notice::MppeLost { call_id }) => Unheard::MppeLost(*call_id),
        _ => return None,
    })
}

/// Whether the new process says what it is to say; else why it does not.
fn expect(
    word: std::io::Result<(ToOld, Vec<std::os::fd::OwnedFd>)>,
    is_it: impl Fn(&ToOld) -> bool,
) -> Result<(), String> {
    match word {
        Ok((word, _)) if is_it(&word) => Ok(()),
        Ok(_) => Err("it says something else than it should".to_owned()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err("it has ended".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
