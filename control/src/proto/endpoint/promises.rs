//! What `endpoint.rs` promises to the driver, held against anything that may happen.

use dataplane::program::Command;
use proptest::prelude::*;

use super::tests::{
    PEER, PEER_CALL_ID, call_reply, call_request, clear_request, disconnect_notify, echo_reply,
    echo_request, link_config, messages, start_reply, start_request, stop_reply, stop_request,
};
use super::*;
use crate::wire::pptp::PROTOCOL_VERSION;
use crate::wire::pptp::codes::StartResult;

/// What a peer, a driver or the clock may do to an endpoint, in any order.
#[derive(Clone, Debug)]
enum Step {
    Dial,
    Accept,
    Connected(usize),
    Disconnected(usize),
    Message(usize, u8, usize),
    Octets(usize, Vec<u8>),
    Frame(usize, Vec<u8>),
    HangUp(usize),
    Pass(u64),
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    let octets = || proptest::collection::vec(any::<u8>(), 1..24);
    prop_oneof![
        3 => Just(Step::Dial),
        3 => Just(Step::Accept),
        4 => any::<usize>().prop_map(Step::Connected),
        1 => any::<usize>().prop_map(Step::Disconnected),
        30 => (any::<usize>(), 0_u8..15, any::<usize>())
            .prop_map(|(connection, kind, call)| Step::Message(connection, kind, call)),
        1 => (any::<usize>(), octets()).prop_map(|(it, octets)| Step::Octets(it, octets)),
        4 => (any::<usize>(), octets()).prop_map(|(it, octets)| Step::Frame(it, octets)),
        3 => any::<usize>().prop_map(Step::HangUp),
        4 => (0_u64..90_000).prop_map(Step::Pass),
        1 => Just(Step::Shutdown),
    ]
}

/// Holds the endpoint to the promises that its documentation makes to the driver.
struct Accountant {
    endpoint: Endpoint,
    now: Time,
    open: Vec<ConnectionId>,
    accepted: u64,
    dials: usize,
    dials_answered: usize,
    live: BTreeMap<CallId, bool>,
    calls_seen: Vec<CallId>,
    idle: usize,
}

impl Accountant {
    fn new() -> Self {
        let mut config = EndpointConfig {
            link: Some(link_config()),
            ..EndpointConfig::default()
        };
        config.limits.connections_max = 6;
        config.limits.half_open_max = 2;
        config.limits.calls_per_connection_max = 3;
        config.limits.calls_max = 8;
        Self {
            endpoint: Endpoint::new(config, [9; 32]),
            now: Time(0),
            open: Vec::new(),
            accepted: 0,
            dials: 0,
            dials_answered: 0,
            live: BTreeMap::new(),
            calls_seen: vec![CallId(1)],
            idle: 0,
        }
    }

    fn take(&mut self, step: Step) {
        let connection = |at: usize| self.open.get(at % self.open.len().max(1)).copied();
        let call = |at: usize| self.calls_seen[at % self.calls_seen.len()];
        match step {
            Step::Dial => {
                self.dials += 1;
                self.handle(Event::Dial {
                    server: PEER,
                    link: link_config(),
                });
            }
            Step::Accept => {
                let connection = ConnectionId(self.accepted);
                self.accepted += 1;
                self.open.push(connection);
                let peer = PEER;
                self.handle(Event::Accepted { connection, peer });
            }
            Step::Connected(at) => {
                if let Some(connection) = connection(at) {
                    self.handle(Event::Connected { connection });
                }
            }
            Step::Disconnected(at) => {
                if let Some(connection) = connection(at) {
                    self.open.retain(|it| *it != connection);
                    let error = None;
                    self.handle(Event::Disconnected { connection, error });
                }
            }
            Step::Message(at, kind, call_at) => {
                if let Some(connection) = connection(at) {
                    let bytes = &some_message(kind, call(call_at)).to_bytes();
                    self.handle(Event::ControlBytes { connection, bytes });
                }
            }
            Step::Octets(at, bytes) => {
                if let Some(connection) = connection(at) {
                    let bytes = &bytes;
                    self.handle(Event::ControlBytes { connection, bytes });
                }
            }
            Step::Frame(at, frame) => {
                let call_id = call(at);
                let frame = &frame;
                self.handle(Event::Frame { call_id, frame });
            }
            Step::HangUp(at) => {
                let call_id = call(at);
                let reason = "a test".to_owned();
                self.handle(Event::HangUp { call_id, reason });
            }
            Step::Pass(ms) => self.pass_ms(ms),
            Step::Shutdown => self.handle(Event::Shutdown),
        }
    }

    fn pass_ms(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        let mut rounds = 0;
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            rounds += 1;
            assert!(rounds < 10_000, "livelock");
            self.now = self.now.max(at);
            self.handle(Event::Timeout);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event<'_>) {
        self.endpoint.handle(self.now, event);
        while let Some(action) = self.endpoint.poll_action() {
            self.book(action);
        }
    }

    fn book(&mut self, action: Action) {
        match action {
            Action::Connect { connection, .. } => self.open.push(connection),
            Action::SendControl { connection, bytes } => {
                assert!(self.open.contains(&connection), "sent on a closed one");
                assert!(messages(&bytes).count() >= 1);
            }
            Action::CloseControl { connection } => {
                assert!(self.open.contains(&connection), "closed twice");
                self.open.retain(|it| *it != connection);
            }
            Action::Install {
                call_id,
                connection,
                ..
            } => {
                self.dials_answered += usize::from(connection.0 & OUTBOUND != 0);
                assert!(self.live.insert(call_id, false).is_none());
                self.calls_seen.push(call_id);
            }
            Action::DialFailed { .. } => self.dials_answered += 1,
            Action::NetworkUp { call_id, .. } => {
                assert_eq!(self.live.insert(call_id, true), Some(false));
            }
            Action::NetworkDown { call_id } => {
                assert_eq!(self.live.insert(call_id, false), Some(true));
            }
            Action::Ipv6Up { call_id, .. } | Action::Ipv6Down { call_id } => {
                assert_eq!(self.live.get(&call_id), Some(&true));
            }
            Action::Ended { call_id, .. } => assert_eq!(self.live.remove(&call_id), Some(false)),
            Action::Report { call_id, .. }
            | Action::Authenticate { call_id, .. }
            | Action::PrepareNetwork { call_id, .. }
            | Action::AssignAddresses { call_id } => {
                assert!(self.live.contains_key(&call_id));
            }
            Action::Dataplane(command) => self.book_command(&command),
            Action::Idle => self.idle += 1,
        }
    }

    fn book_command(&self, command: &Command) {
        match command {
            Command::SetPeerCallId { call_id, .. }
            | Command::Inject { call_id, .. }
            | Command::SetReceiveKey { call_id, .. }
            | Command::SetSendKey { call_id, .. }
            | Command::ResetSendKey { call_id } => assert!(self.live.contains_key(call_id)),
            other => panic!("not for the endpoint to say: {other:?}"),
        }
    }

    fn close(mut self) {
        self.handle(Event::Shutdown);
        self.pass_ms(600_000);
        assert!(self.live.is_empty(), "calls were left: {:?}", self.live);
        assert_eq!(self.dials, self.dials_answered);
        assert!(self.open.is_empty(), "connections were left");
        assert_eq!(self.idle, 1);
        assert_eq!(self.endpoint.poll_timeout(), None);
        assert!(self.endpoint.gate.is_empty());
    }
}

fn some_message(kind: u8, call_id: CallId) -> Message {
    match kind {
        0 | 1 => start_request(PROTOCOL_VERSION),
        2 | 3 => start_reply(StartResult::SUCCESSFUL),
        4 | 5 => call_request(call_id.0.wrapping_add(1)),
        6 | 7 => call_reply(call_id, OutgoingCallResult::CONNECTED),
        8 => call_reply(call_id, OutgoingCallResult::BUSY),
        9 => clear_request(call_id.0.wrapping_add(1)),
        10 => disconnect_notify(PEER_CALL_ID),
        11 => stop_request(StopReason::NONE),
        12 => stop_reply(),
        13 => echo_request(1),
        _ => echo_reply(1),
    }
}

proptest! {
    #[test]
    fn whatever_happens_every_promise_to_the_driver_is_kept(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut accountant = Accountant::new();
        for step in steps {
            accountant.take(step);
        }
        accountant.close();
    }
}
