//! What the engine does for a take-over: it stands still, tells what it knows, and goes on; or it
//! begins where another process stood still.

use std::collections::HashMap;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use dataplane::counters::SessionCounters;
use dataplane::program::{CallId, Command, Notice, Role, SessionSpec};
use dataplane::snapshot::SessionSnapshot;
use tokio::net::TcpStream;

use super::{Engine, Input, Session};
use crate::driver::clock::Clock;
use crate::proto::endpoint::{Endpoint, EndpointConfig, EndpointSnapshot};
use crate::proto::{Action, ConnectionId, Time};

/// For all workers to answer: each is through with what it has taken in after a turn or two.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Sessions as their workers know them.
pub(crate) type Exported = HashMap<CallId, SessionSnapshot>;

impl Engine {
    /// Lets all GRE come through the raw sockets, which another process has too.
    pub(crate) fn rest_fast_path(&mut self) {
        if let Ok(fast_path) = &mut self.fast_path {
            fast_path.rest();
        }
    }

    /// Reads and writes nothing on control connections from now on. What was read before, and not
    /// handled, is put into `unheard`.
    pub(crate) async fn pause_transport(&mut self, unheard: &mut Vec<Input>) {
        let paused = self.transport.pause();
        tokio::pin!(paused);
        loop {
            tokio::select! {
                () = &mut paused => break,
                Some(input) = self.transport_inputs.recv() => unheard.push(Input::Transport(input)),
            }
        }
        while let Ok(input) = self.transport_inputs.try_recv() {
            unheard.push(Input::Transport(input));
        }
    }

    /// Has all workers tell of their sessions, and with `is_last` stand still. What they say beside
    /// that is put into `unheard`. `None` when a worker does not answer.
    pub(crate) async fn export(
        &mut self,
        is_last: bool,
        unheard: &mut Vec<Input>,
    ) -> Option<Exported> {
        let workers = usize::from(self.workers.count());
        for worker in 0..workers {
            self.workers.send_to(worker, Command::Export { is_last });
        }
        let mut exported = Exported::new();
        let mut answers = 0;
        self.hear(unheard, |notice| {
            let Notice::Exported { sessions, .. } = notice else {
                return Err(notice);
            };
            for (call_id, snapshot) in sessions {
                exported.entry(call_id).or_default().join(snapshot);
            }
            answers += 1;
            Ok(answers == workers)
        })
        .await?;
        Some(exported)
    }

    /// Has all workers answer when they have done what they were told before, and have their GRE
    /// sockets collect packets. False when one does not, or could not do something.
    pub(crate) async fn collect(&mut self) -> bool {
        let workers = usize::from(self.workers.count());
        for worker in 0..workers {
            self.workers.send_to(worker, Command::Collect);
        }
        let mut answers = 0;
        let answered = self
            .hear(&mut Vec::new(), |notice| match notice {
                Notice::Collecting => {
                    answers += 1;
                    Ok(answers == workers)
                }
                other => Err(other),
            })
            .await;
        let refused = |(_, io): (_, Arc<dataplane::io::IoCounters>)| io.commands_refused.get();
        answered.is_some() && self.workers.counters().map(refused).all(|count| count == 0)
    }

    /// Takes notices until `wanted` has had all that it waits for; it gives back what is not its.
    async fn hear(
        &mut self,
        unheard: &mut Vec<Input>,
        mut wanted: impl FnMut(Notice) -> Result<bool, Notice>,
    ) -> Option<()> {
        let all = async {
            loop {
                let is_flushed = self.workers.flush();
                let notice = tokio::select! {
                    notice = self.notices.recv() => notice?,
                    () = tokio::time::sleep(super::QUEUE_RETRY), if !is_flushed => continue,
                };
                match wanted(notice) {
                    Ok(true) => return Some(()),
                    Ok(false) => {}
                    Err(Notice::Failed { .. } | Notice::Stopped) => return None,
                    Err(other) => unheard.push(Input::Notice(other)),
                }
            }
        };
        tokio::time::timeout(ANSWER_LIMIT, all).await.ok()?
    }

    /// Goes on. `lead`: see [`Command::Resume`].
    pub(crate) fn go_on(&mut self, lead: u32) {
        for worker in 0..usize::from(self.workers.count()) {
            self.workers.send_to(worker, Command::Resume { lead });
        }
        self.queue_full = !self.workers.flush();
        self.transport.resume();
    }

    /// Receives through the packet rings again what may be.
    pub(crate) fn resume_fast_path(&mut self) {
        if let Ok(fast_path) = &mut self.fast_path {
            fast_path.go_on();
        }
        self.pass_next_hops_on();
    }

    /// What the endpoint has established and `is_carried` agrees to, the time that its times are
    /// of, and the number of the next connection.
    pub(crate) fn snapshot(
        &self,
        is_carried: impl Fn(CallId) -> bool,
    ) -> (EndpointSnapshot, Time, u64) {
        let snapshot = self.endpoint.snapshot(is_carried);
        (snapshot, self.clock.now(), self.accepted)
    }

    /// The sockets that listen.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (std::net::SocketAddrV4, RawFd)> {
        self.transport.listeners()
    }

    /// A connection's socket, and what has not been written to it.
    pub(crate) fn connection(&self, connection: ConnectionId) -> Option<(RawFd, Vec<u8>)> {
        self.transport.connection(connection)
    }

    /// Another process goes on with these connections and the sockets that listen; the other
    /// connections end, and their last words are sent.
    pub(crate) fn let_go(&mut self, taken: &EndpointSnapshot) {
        self.transport.let_go(taken.connections());
        self.transport.resume();
        let mut closing = Vec::new();
        for (connection, bytes) in self.endpoint.farewells(taken) {
            self.transport.send(connection, bytes);
            closing.push(connection);
        }
        for connection in closing {
            self.transport.close(connection);
        }
    }

    /// Goes on with what another process had established at its time `now`, as soon as it is told
    /// to. Nothing may have happened here before.
    pub(crate) fn restore(
        &mut self,
        mut config: EndpointConfig,
        now: Time,
        accepted: u64,
        snapshot: EndpointSnapshot,
    ) {
        config.worker_count = self.workers.count();
        self.clock = Clock::at(now);
        self.accepted = accepted;
        self.endpoint = Endpoint::restore(config, rand::random(), self.clock.now(), snapshot);
    }

    /// Has these sockets from now on, but neither accepts nor reads nor writes before `go_on`.
    pub(crate) async fn begin_paused(&mut self) {
        self.pause_transport(&mut Vec::new()).await;
    }

    /// Accepts connections through a socket that listens already.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn listen_with(
        &mut self,
        address: std::net::SocketAddrV4,
        listener: OwnedFd,
    ) -> std::io::Result<()> {
        self.transport.listen_with(address, listener.into())
    }

    /// Has a connection, with what was not written to it.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn adopt(
        &mut self,
        connection: ConnectionId,
        stream: OwnedFd,
        unsent: Vec<u8>,
    ) -> std::io::Result<()> {
        let stream = TcpStream::from_std(stream.into())?;
        self.transport.adopt(connection, stream, unsent.into());
        Ok(())
    }

    /// Installs a session where another process had left it.
    pub(crate) fn import(
        &mut self,
        call_id: CallId,
        peer: std::net::Ipv4Addr,
        peer_call_id: Option<u16>,
        counted: &[u64],
        snapshot: SessionSnapshot,
    ) {
        let counters = Arc::new(SessionCounters::default());
        counters.add_values(counted);
        let spec = SessionSpec {
            call_id,
            peer,
            local: None,
            peer_call_id,
            role: Role::Both,
            counters: Arc::clone(&counters),
        };
        let session = Session {
            seen: counters.gre_received.get(),
            seen_packets: counters.received_packets.get(),
            counters,
        };
        self.sessions.insert(call_id, session);
        self.command(call_id, Command::Install(spec));
        let snapshot = Box::new(snapshot);
        self.command(call_id, Command::Import { call_id, snapshot });
    }

    /// Watches the way to a session's peer.
    pub(crate) fn watch(&mut self, call_id: CallId, peer: std::net::Ipv4Addr) {
        if let Ok(fast_path) = &mut self.fast_path {
            fast_path.watch(call_id, peer, self.local);
        }
    }

    /// What the endpoint wants done without an event.
    pub(crate) fn pending(&mut self) -> Vec<Action> {
        self.actions()
    }
}
