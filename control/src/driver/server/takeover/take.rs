//! The side of the new process: stands by, takes what the old one tells, and goes on from there.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::program::{CallId, Command, Ipv6Spec, Notice};
use dataplane::sys::pidfd::Pidfd;
use nix::sys::signal::{Signal, raise};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::channel::Channel;
use super::state::{Descriptor, PlaceState, SessionState, State, ToNew, ToOld, Unheard};
use super::{End, FORMAT, LEAD, READY_LIMIT, Sockets, WORD_LIMIT};
use crate::config::server::ServerConfig;
use crate::driver::admin::Asked;
use crate::driver::engine::Input;
use crate::driver::log::Log;
use crate::driver::server::host_rules::HostRules;
use crate::driver::server::radius::handover::RadiusState;
use crate::driver::server::{Server, ServerError, Session, Standing, endpoint_config};
use crate::driver::transport::TransportInput;
use crate::driver::{privileges, service};

/// How long a process takes to end, once its sockets are closed.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked at.
const END_LOOK: Duration = Duration::from_millis(5);
/// For the old process to close its AF_XDP sockets.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// Where a take-over is, in the new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// Its workers stand by.
    Ready,
    /// The first state has come.
    Told,
    /// The last state has come, and is in place.
    Still,
    /// It has said so.
    Taken,
    /// It may go on.
    Go,
    /// It goes on.
    Running,
}

/// Why a process has not taken over. The old one goes on, unless it is said to have ended.
#[derive(Debug, Error)]
pub enum TakeoverError {
    /// The operator: there is nothing to take over.
    #[error("no server is running here that could be taken over: start one without --takeover")]
    NoServer,
    /// The operator: the other end is not root's, or this one is not.
    #[error("only root can take over, and only from root: run this with sudo")]
    NotRoot,
    /// The old process does not want to.
    #[error("the running server refuses: {0}")]
    Refused(String),
    /// The operator: this process would put tunnels elsewhere.
    #[error(
        "the running server goes on: {0} has changed, and tunnels cannot be moved. Restart the \
         service, which ends them, or change that back"
    )]
    Elsewhere(&'static str),
    /// It goes on.
    #[error("the running server goes on, since the take-over has failed: {0}")]
    Abandoned(String),
    /// The old process has ended too early.
    #[error("the running server has ended before it had told its sessions: start one anew")]
    Gone,
    /// This process cannot serve.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl TakeoverError {
    /// As `ServerError`'s.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Server(error) => error.exit_status(),
            Self::NotRoot => 3,
            Self::Elsewhere(_) => 2,
            _ => 1,
        }
    }
}

/// A server that goes on with another process's sessions.
pub struct Taken {
    server: Server,
}

impl Taken {
    /// The admin socket, and the one that the next take-over comes through.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn sockets(&self) -> std::io::Result<(UnixListener, UnixListener)> {
        match &self.server.sockets {
            Some(sockets) => Ok((sockets.admin.try_clone()?, sockets.takeover.try_clone()?)),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Runs it as [`super::run`] does. `desk` serves the admin socket.
    pub async fn run(
        mut self,
        requests: mpsc::Receiver<Asked>,
        ready: oneshot::Sender<()>,
        desk: Option<AbortHandle>,
    ) -> End {
        if let Some(sockets) = &mut self.server.sockets {
            sockets.desk = desk;
        }
        if let Err(error) = privileges::give_up() {
            self.server.log.line(&error.to_string());
        }
        let scrapes = self.server.serve_metrics().unwrap_or_else(|error| {
            self.server.log.line(&error.to_string());
            mpsc::channel(1).1
        });
        let _ = ready.send(());
        self.server.work(requests, scrapes).await
    }
}

/// Takes over from the server that listens at `path`. With `stop_at` the process stops itself in
/// this phase (SIGSTOP), for tests.
///
/// # Errors
/// Nothing has been taken; see [`TakeoverError`].
pub async fn take(
    config: ServerConfig,
    log: Log,
    path: &Path,
    stop_at: Option<Phase>,
) -> Result<Taken, TakeoverError> {
    let mut taker = Taker::greet(path, stop_at, &PlaceState::of(&config)).await?;
    let mut server = Server::assemble(config, log, Some(taker.workers))?;
    if let Err(error) = taker.take_into(&mut server).await {
        // Forwarding is the old process's affair.
        server.host_rules.hand_over();
        return Err(error);
    }
    Ok(Taken { server })
}

/// The way to the old process, and what has come from it.
struct Taker {
    channel: Channel,
    old: Pidfd,
    pid: u32,
    workers: u16,
    descriptors: HashMap<Descriptor, OwnedFd>,
    stop_at: Option<Phase>,
}

impl Taker {
    async fn greet(
        path: &Path,
        stop_at: Option<Phase>,
        place: &PlaceState,
    ) -> Result<Self, TakeoverError> {
        let channel = Channel::connect(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => TakeoverError::NotRoot,
            _ => TakeoverError::NoServer,
        })?;
        let hello = ToOld::Hello { format: FORMAT };
        let answer = match channel.send(&hello, &[]).await {
            Ok(()) => channel.receive(WORD_LIMIT).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok((
                ToNew::Offer {
                    workers,
                    pid,
                    place: theirs,
                },
                _,
            )) => {
                if let Some(setting) = theirs.difference(place) {
                    return Err(TakeoverError::Elsewhere(setting));
                }
                Ok(Self {
                    channel,
                    old: Pidfd::open(pid).map_err(|_| TakeoverError::Gone)?,
                    pid,
                    workers,
                    descriptors: HashMap::new(),
                    stop_at,
                })
            }
            Ok((ToNew::Refused { reason }, _)) => Err(TakeoverError::Refused(reason)),
            Ok(_) => Err(TakeoverError::Refused("it makes no offer".to_owned())),
            Err(error) => Err(TakeoverError::Refused(error.to_string())),
        }
    }

    async fn take_into(&mut self, server: &mut Server) -> Result<(), TakeoverError> {
        server.host_rules = HostRules::open(&server.config).map_err(ServerError::from)?;
        server.open_radius_quietly()?;
        server.engine.begin_paused().await;
        self.reach(Phase::Ready);
        let (state, lead) = self.be_told(server).await?;
        let still_since = Instant::now();
        let (sessions, unheard) = server.assume(state, &mut self.descriptors).await?;
        if lead == 0 {
            self.reach(Phase::Still);
            self.be_let_go().await?;
            self.reach(Phase::Go);
        }
        server.engine.go_on(lead);
        let pause = still_since.elapsed();
        self.reach(Phase::Running);
        // Should it be gone, it need not know.
        let _ = self.channel.send(&ToOld::Running, &[]).await;
        server.settle(self, sessions, unheard, pause).await;
        Ok(())
    }

    fn reach(&self, phase: Phase) {
        if self.stop_at == Some(phase) {
            let _ = raise(Signal::SIGSTOP);
        }
    }

    /// Everything that the old process tells, and how many packets it may have sent since.
    async fn be_told(&mut self, server: &mut Server) -> Result<(State, u32), TakeoverError> {
        self.say(&ToOld::Ready).await;
        let Some(first) = self.hear_state().await? else {
            return Err(TakeoverError::Gone);
        };
        self.reach(Phase::Told);
        self.check(&first)?;
        let most = server.config.limits.sessions_max as usize;
        let told = first.sessions.len();
        if told > most {
            return Err(abandoned(format!(
                "it has {told} sessions, and limits.sessions_max is {most} now: set it higher"
            )));
        }
        if !server.engine.collect().await {
            return Err(abandoned("a worker of the new process does not answer"));
        }
        self.say(&ToOld::Accepted).await;
        Ok(match self.hear_state().await? {
            Some(last) => {
                self.check(&last)?;
                (last, 0)
            }
            None => (first, LEAD),
        })
    }

    /// Waits for `Go`, or for the end of the old process.
    async fn be_let_go(&mut self) -> Result<(), TakeoverError> {
        self.say(&ToOld::Taken).await;
        self.reach(Phase::Taken);
        match self.hear().await? {
            Some(ToNew::Go) | None => Ok(()),
            Some(_) => Err(abandoned("it says something else than it should")),
        }
    }

    /// That the old process does not hear it shows when its answer is missing.
    async fn say(&self, word: &ToOld) {
        let _ = self.channel.send(word, &[]).await;
    }

    async fn hear_state(&mut self) -> Result<Option<State>, TakeoverError> {
        match self.hear().await? {
            Some(ToNew::State(state)) => Ok(Some(*state)),
            Some(_) => Err(abandoned("it says something else than it should")),
            None => Ok(None),
        }
    }

    /// What the old process says next; `None` when it has ended.
    async fn hear(&mut self) -> Result<Option<ToNew>, TakeoverError> {
        let error = match self.channel.receive(READY_LIMIT).await {
            Ok((ToNew::Cancelled { reason } | ToNew::Refused { reason }, _)) => {
                return Err(TakeoverError::Abandoned(reason));
            }
            Ok((word, descriptors)) => {
                if let ToNew::State(state) = &word {
                    let named = state.descriptors.iter().copied().zip(descriptors);
                    self.descriptors.extend(named);
                }
                return Ok(Some(word));
            }
            Err(error) => error,
        };
        use std::io::ErrorKind::{InvalidData, TimedOut};
        if matches!(error.kind(), TimedOut | InvalidData) {
            return Err(abandoned(error));
        }
        for _ in 0..END_LIMIT.as_millis() / END_LOOK.as_millis() {
            if self.old.has_ended() {
                return Ok(None);
            }
            tokio::time::sleep(END_LOOK).await;
        }
        Err(abandoned("it has closed the connection"))
    }

    /// Whether nothing is missing.
    fn check(&self, state: &State) -> Result<(), TakeoverError> {
        let tuns = state.tuns.iter().map(|tun| Descriptor::Tun(tun.worker));
        let own = state.sessions.iter().filter(|it| it.way.device.is_some());
        let own = own.map(|it| Descriptor::Device(it.call_id));
        let connections = state.endpoint.connections().map(Descriptor::Connection);
        let sockets = [Descriptor::Admin, Descriptor::Takeover];
        for needed in tuns.chain(own).chain(connections).chain(sockets) {
            if !self.descriptors.contains_key(&needed) {
                return Err(abandoned(format!("{needed:?} has not come")));
            }
        }
        let told: std::collections::HashSet<CallId> =
            state.sessions.iter().map(|it| it.call_id).collect();
        for (call_id, _) in state.endpoint.calls() {
            if !told.contains(&call_id) {
                return Err(abandoned(format!("session {} has not come", call_id.0)));
            }
        }
        let is_each_own = state.sessions.iter().all(|it| it.way.device.is_some());
        if state.tuns.len() != usize::from(self.workers) && !(state.tuns.is_empty() && is_each_own)
        {
            return Err(abandoned("there is not one TUN device for each worker"));
        }
        Ok(())
    }
}

fn abandoned(reason: impl ToString) -> TakeoverError {
    TakeoverError::Abandoned(reason.to_string())
}

impl Server {
    /// Puts everything in place, so that nothing is left to do but to go on. Returns sessions whose
    /// ways are to be watched, and what is to be handled first.
    async fn assume(
        &mut self,
        state: State,
        descriptors: &mut HashMap<Descriptor, OwnedFd>,
    ) -> Result<(Vec<(CallId, std::net::Ipv4Addr)>, Vec<Unheard>), TakeoverError> {
        let refused = |error: std::io::Error| abandoned(error);
        for tun in &state.tuns {
            if let Some(fd) = descriptors.remove(&Descriptor::Tun(tun.worker)) {
                self.assume_tun(tun.clone(), fd);
            }
        }
        self.assume_listeners(descriptors).await?;
        self.assume_radius(state.radius, descriptors.remove(&Descriptor::Orders))?;
        self.observer.assume(state.tally);
        self.operation.is_draining = state.is_draining;
        if let Some(supervisor) = state.supervisor {
            service::succeed(&supervisor);
        }
        if let Some(ipv6) = &mut self.config.link.ipv6 {
            ipv6.local = state.identifier.or(ipv6.local);
        }
        let config = endpoint_config(&self.config);
        self.engine
            .restore(config, state.now, state.accepted, state.endpoint);
        self.engine.set_accepting(!state.is_draining);
        self.engine.set_access(Arc::clone(&self.config.access));
        for it in state.connections {
            if let Some(socket) = descriptors.remove(&Descriptor::Connection(it.connection)) {
                let adopted = self.engine.adopt(it.connection, socket, it.unsent);
                adopted.map_err(refused)?;
            }
        }
        let sessions = state.sessions.iter().map(|it| (it.call_id, it.peer));
        let sessions = sessions.collect();
        for session in state.sessions {
            let device = descriptors.remove(&Descriptor::Device(session.call_id));
            self.assume_session(session, device);
        }
        let mut listener = |name| descriptors.remove(&name).map(UnixListener::from);
        let (admin, takeover) = (listener(Descriptor::Admin), listener(Descriptor::Takeover));
        self.sockets = admin
            .zip(takeover)
            .map(|(admin, takeover)| Sockets::new(admin, takeover));
        if !self.engine.collect().await {
            return Err(abandoned("a worker of the new process has not taken all"));
        }
        Ok((sessions, state.unheard))
    }

    /// Listens where the configuration says: through the old sockets, where there are some.
    async fn assume_listeners(
        &mut self,
        descriptors: &mut HashMap<Descriptor, OwnedFd>,
    ) -> Result<(), TakeoverError> {
        let mut others = Vec::new();
        for address in &self.config.listen {
            match descriptors.remove(&Descriptor::Listener(*address)) {
                Some(listener) => {
                    let listening = self.engine.listen_with(*address, listener);
                    listening.map_err(abandoned)?;
                }
                None => others.push(*address),
            }
        }
        self.listen_on(others).await?;
        Ok(())
    }

    /// Accounting goes on, and orders come to the old socket.
    fn assume_radius(
        &mut self,
        state: Option<RadiusState>,
        orders: Option<OwnedFd>,
    ) -> Result<(), TakeoverError> {
        let (Some(radius), Some(config)) = (&mut self.radius, &self.config.radius) else {
            return Ok(());
        };
        let heard = radius.hear_orders(config, orders);
        heard.map_err(ServerError::Radius)?;
        if let Some(state) = state {
            radius.assume(state);
        }
        Ok(())
    }

    fn assume_session(&mut self, told: SessionState, device: Option<OwnedFd>) {
        let (call_id, network) = (told.call_id, told.network);
        let ago = |ms| {
            let now = Instant::now();
            now.checked_sub(Duration::from_millis(ms)).unwrap_or(now)
        };
        self.engine.import(
            call_id,
            told.peer,
            told.peer_call_id,
            &told.counters,
            told.dataplane,
        );
        if let (Some(radius), Some(account)) = (&mut self.radius, told.account) {
            let interval_ms = told.attributes.interim_interval_ms;
            radius.assume_account(call_id, account, interval_ms);
        }
        let (agreed, ipv6) = (network.agreed.clone(), network.ipv6);
        let session = Session {
            peer: told.peer.to_string(),
            attributes: told.attributes,
            address: told.address,
            since: Some(ago(told.age_ms)),
            network: Some(Standing {
                agreed: network.agreed,
                ipv6: network.ipv6,
                since: ago(network.age_ms),
                packets: network.packets,
                busy_at: ago(network.quiet_ms),
            }),
            ..Session::default()
        };
        self.sessions.insert(call_id, session);
        self.assume_way(call_id, told.way, device, &agreed);
        if let Some(ipv6) = ipv6 {
            let peer = ipv6.remote.link_local();
            let ipv6 = Some(Ipv6Spec { peer });
            self.engine
                .command(call_id, Command::SetIpv6 { call_id, ipv6 });
        }
        if let Some(seen) = told.seen {
            self.assume_seen(call_id, seen);
        }
    }

    fn client_addresses(&self) -> Vec<(CallId, std::net::Ipv4Addr)> {
        let sessions = self.sessions.iter();
        let up = sessions.filter_map(|(id, it)| Some((*id, it.network.as_ref()?.agreed.remote)));
        up.collect()
    }

    /// What can wait until tunnels run again.
    async fn settle(
        &mut self,
        taker: &Taker,
        sessions: Vec<(CallId, std::net::Ipv4Addr)>,
        unheard: Vec<Unheard>,
        pause: Duration,
    ) {
        let (count, pid, ms) = (sessions.len(), taker.pid, pause.as_micros() as f64 / 1e3);
        self.log.line(&format!(
            "Taken over from process {pid}: {count} sessions, which stood still for {ms:.1} ms here"
        ));
        if let Err(error) = self.write_pid_file() {
            self.log.line(&error.to_string());
        }
        // Until then the old process gives addresses back, and takes routes away.
        taker.channel.closed(FAREWELL_LIMIT).await;
        self.succeed_to_leases().await;
        self.open_proxy_arp();
        for (call_id, remote) in self.client_addresses() {
            self.answer_arp(call_id, remote);
        }
        for input in unheard.into_iter().map(heard) {
            let actions = self.engine.handle(input);
            self.perform(actions);
        }
        let actions = self.engine.pending();
        self.perform(actions);
        for (call_id, peer) in sessions {
            self.engine.watch(call_id, peer);
        }
        self.engine.resume_fast_path();
    }
}

fn heard(unheard: Unheard) -> Input {
    match unheard {
        Unheard::Bytes(connection, bytes) => Input::Transport(TransportInput::Bytes {
            connection,
            bytes: bytes.into(),
        }),
        Unheard::Disconnected(connection, error) => {
            Input::Transport(TransportInput::Disconnected { connection, error })
        }
        Unheard::Frame(call_id, frame) => Input::Notice(Notice::Punt {
            call_id,
            frame: bytes::Bytes::copy_from_slice(frame.as_bytes()),
        }),
        Unheard::ResetNeeded(call_id) => Input::Notice(Notice::ResetNeeded { call_id }),
        Unheard::MppeLost(call_id) => Input::Notice(Notice::MppeLost { call_id }),
    }
}
