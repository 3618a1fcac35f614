//! Several servers and the network between, simulated from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use dataplane::program::CallId;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::proto::Time;
use crate::proto::auth::Secret;
use crate::wire::radius::{AttributeList, Code, Kind, MessageAuthenticator, Packet, reply};

const TIMEOUT_MS: u64 = 1_000;
const TRIES: u32 = 3;
const DEAD_MS: u64 = 20_000;

fn address(server: usize) -> SocketAddr {
    format!("192.0.2.{}:1812", server + 1).parse().unwrap()
}

fn secret(server: usize) -> Secret {
    Secret::new(format!("secret of {server}").into_bytes())
}

fn config(servers: usize) -> ClientConfig {
    ClientConfig {
        servers: (0..servers)
            .map(|server| ServerSpec {
                address: address(server),
                secret: secret(server),
                message_authenticator: MessageAuthenticator::Required,
            })
            .collect(),
        timeout_ms: TIMEOUT_MS,
        tries: TRIES,
        dead_ms: DEAD_MS,
        sockets: 2,
        ask_the_dead: false,
    }
}

fn question(user: &str) -> Question {
    let mut attributes = AttributeList::new();
    attributes.text(Kind::USER_NAME, user);
    Question::Access {
        attributes,
        password: Some(Secret::new(b"password".to_vec())),
    }
}

/// What a server that is up says to a request.
fn answer(server: usize, request: &[u8]) -> Bytes {
    let request = Packet::parse(request).unwrap();
    let code = if request.code() == Code::ACCOUNTING_REQUEST {
        Code::ACCOUNTING_RESPONSE
    } else {
        Code::ACCESS_ACCEPT
    };
    let mut attributes = AttributeList::new();
    attributes.octets(Kind::CLASS, &[u8::try_from(server).unwrap()]);
    reply(code, request, &attributes, secret(server).as_bytes())
}

/// A network that loses, delays and doubles datagrams.
struct World {
    now: Time,
    rng: ChaCha12Rng,
    client: Client,
    is_up: Vec<bool>,
    loss: f64,
    delay_ms_max: u64,
    on_the_way: BTreeMap<(Time, u64), (u16, SocketAddr, Bytes)>,
    serial: u64,
    asked: BTreeSet<Token>,
    outputs: Vec<(Time, Output)>,
    sent: Vec<usize>,
}

impl World {
    fn new(servers: usize, seed: u64) -> Self {
        Self {
            now: Time(0),
            rng: ChaCha12Rng::seed_from_u64(seed),
            client: Client::new(config(servers), [3; 32]),
            is_up: vec![true; servers],
            loss: 0.0,
            delay_ms_max: 20,
            on_the_way: BTreeMap::new(),
            serial: 0,
            asked: BTreeSet::new(),
            outputs: Vec::new(),
            sent: vec![0; servers],
        }
    }

    fn ask(&mut self) -> Token {
        let token = Token(self.asked.len() as u64);
        self.asked.insert(token);
        self.client.ask(self.now, token, question("mia"));
        self.drain();
        token
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            if let Output::Transmit { socket, to, bytes } = &output {
                let server = (0..self.is_up.len())
                    .find(|it| address(*it) == *to)
                    .unwrap();
                self.sent[server] += 1;
                if self.is_up[server] && !self.rng.random_bool(self.loss) {
                    let copies = if self.rng.random_bool(0.05) { 2 } else { 1 };
                    for _ in 0..copies {
                        self.deliver(*socket, *to, answer(server, bytes));
                    }
                }
            } else {
                self.outputs.push((self.now, output));
            }
        }
    }

    fn deliver(&mut self, socket: u16, from: SocketAddr, bytes: Bytes) {
        if self.rng.random_bool(self.loss) {
            return;
        }
        let at = self
            .now
            .after_ms(self.rng.random_range(1..=self.delay_ms_max));
        self.serial += 1;
        self.on_the_way
            .insert((at, self.serial), (socket, from, bytes));
    }

    fn run_until(&mut self, end: Time) {
        loop {
            let arrival = self.on_the_way.keys().next().map(|(at, _)| *at);
            let next = [arrival, self.client.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, (socket, from, bytes)) = self.on_the_way.pop_first().unwrap();
                self.client.handle_datagram(self.now, socket, from, &bytes);
            }
            self.client.handle_timeout(self.now);
            self.drain();
        }
    }

    /// The server that answered.
    fn answered_by(&self, token: Token) -> Option<usize> {
        self.outputs.iter().find_map(|(_, output)| match output {
            Output::Answered {
                token: other,
                reply,
                ..
            } if *other == token => {
                let packet = Packet::parse(reply).unwrap();
                Some(usize::from(packet.find(Kind::CLASS).unwrap()[0]))
            }
            _ => None,
        })
    }

    fn outcomes(&self, token: Token) -> usize {
        let is_outcome = |output: &Output| match output {
            Output::Answered { token: other, .. } | Output::Failed { token: other } => {
                *other == token
            }
            _ => false,
        };
        self.outputs
            .iter()
            .filter(|(_, output)| is_outcome(output))
            .count()
    }
}

#[test]
fn a_dead_server_is_left_alone_and_comes_back() {
    let mut world = World::new(2, 1);
    world.is_up[0] = false;
    let first = world.ask();
    let beside = world.ask();
    world.run_until(Time(5_000));
    assert_eq!(world.answered_by(first), Some(1));
    assert_eq!(world.answered_by(beside), Some(1));
    let at = world
        .outputs
        .iter()
        .find_map(|(at, output)| matches!(output, Output::Dead { .. }).then_some(*at));
    let patience = TIMEOUT_MS * u64::from(TRIES);
    assert!(at.unwrap().0.abs_diff(patience) <= patience / 10);
    // It is not asked again while it is dead.
    let before = world.sent[0];
    let second = world.ask();
    world.run_until(Time(6_000));
    assert_eq!(
        (world.answered_by(second), world.sent[0]),
        (Some(1), before)
    );
    // It answers the one that tries it.
    world.is_up[0] = true;
    world.run_until(Time(30_000));
    let third = world.ask();
    world.run_until(Time(31_000));
    assert_eq!(world.answered_by(third), Some(0));
    let alive = Output::Alive { server: address(0) };
    assert!(world.outputs.iter().any(|(_, output)| *output == alive));
}

#[test]
fn when_all_are_dead_a_request_fails_at_once_and_one_tries_them() {
    let mut world = World::new(2, 2);
    world.is_up = vec![false; 2];
    let first = world.ask();
    world.run_until(Time(8_000));
    assert_eq!((world.outcomes(first), world.answered_by(first)), (1, None));
    let second = world.ask();
    assert_eq!(world.outcomes(second), 1);
    // Who has nothing to fall back to asks them all the same.
    world.client.ask_the_dead();
    world.is_up[1] = true;
    let third = world.ask();
    world.run_until(Time(16_000));
    assert_eq!(world.answered_by(third), Some(1));
}

#[test]
fn more_requests_than_identifiers_wait_and_no_more_than_are_allowed() {
    let mut world = World::new(1, 3);
    let room = 2 * IDS as usize;
    world.delay_ms_max = 300;
    for _ in 0..room + WAITING_MAX + 10 {
        world.ask();
    }
    assert_eq!(world.sent[0], room);
    assert_eq!(world.client.counters().refused, 10);
    world.run_until(Time(60_000));
    assert_eq!(world.client.pending_count(), 0);
    let answered = world.client.counters().answered as usize;
    assert_eq!(answered, room + WAITING_MAX);
    assert!(world.client.is_at_rest());
}

#[test]
fn answers_that_are_forged_or_not_asked_for_change_nothing() {
    let mut client = Client::new(config(1), [3; 32]);
    client.ask(Time(0), Token(1), question("mia"));
    let Some(Output::Transmit { socket, bytes, .. }) = client.poll_output() else {
        panic!("nothing sent");
    };
    let request = Packet::parse(&bytes).unwrap();
    let accept = |key: &[u8]| reply(Code::ACCESS_ACCEPT, request, &AttributeList::new(), key);
    client.handle_datagram(Time(1), socket, address(0), &accept(b"other"));
    assert!(matches!(client.poll_output(), Some(Output::Forged { .. })));
    let good = accept(secret(0).as_bytes());
    client.handle_datagram(Time(1), socket, address(1), &good);
    client.handle_datagram(Time(1), socket ^ 1, address(0), &good);
    client.handle_datagram(Time(1), socket, address(0), &good[..12]);
    assert_eq!(client.poll_output(), None);
    assert_eq!(client.counters().strays, 3);
    client.handle_datagram(Time(1), socket, address(0), &good);
    assert!(matches!(
        client.poll_output(),
        Some(Output::Answered { .. })
    ));
    client.handle_datagram(Time(1), socket, address(0), &good);
    assert_eq!((client.poll_output(), client.counters().strays), (None, 4));
}

#[test]
fn a_request_that_is_forgotten_has_no_outcome() {
    let mut world = World::new(2, 4);
    let token = world.ask();
    world.client.forget(Time(0), token);
    world.run_until(Time(30_000));
    assert_eq!(
        (world.outcomes(token), world.client.pending_count()),
        (0, 0)
    );
    assert!(world.client.is_at_rest());
}

fn record(kind: RecordKind, at: Time) -> Record {
    Record {
        kind,
        attributes: AttributeList::new(),
        at,
    }
}

fn accounting() -> Accounting {
    let config = AccountingConfig {
        client: config(1),
        retry_ms: 5_000,
        records_max: 10,
    };
    Accounting::new(config, [4; 32])
}

/// Runs until `end` with a server that is up or not; what came out.
fn run(accounting: &mut Accounting, end: Time, is_up: bool) -> Vec<(Time, AccountingOutput)> {
    let mut outputs = Vec::new();
    let mut now = Time(0);
    loop {
        while let Some(output) = accounting.poll_output() {
            if let AccountingOutput::Client(Output::Transmit { socket, to, bytes }) = &output
                && is_up
            {
                accounting.handle_datagram(now, *socket, *to, &answer(0, bytes));
            }
            outputs.push((now, output));
        }
        let Some(next) = accounting.poll_timeout().filter(|next| *next <= end) else {
            return outputs;
        };
        now = now.max(next);
        accounting.handle_timeout(now);
    }
}

#[test]
fn what_no_server_records_is_told_again_with_its_delay() {
    let mut accounting = accounting();
    accounting.record(Time(0), record(RecordKind::Session, Time(0)));
    accounting.record(Time(0), record(RecordKind::Interim, Time(0)));
    accounting.record(Time(0), record(RecordKind::Server, Time(0)));
    run(&mut accounting, Time(4_000), false);
    assert_eq!(accounting.pending_count(), 1, "the session's is kept");
    // The server is dead for 20 s: until then nothing is sent.
    let outputs = run(&mut accounting, Time(60_000), true);
    assert_eq!(accounting.pending_count(), 0);
    let delays: Vec<u32> = outputs
        .iter()
        .filter_map(|(at, output)| match output {
            AccountingOutput::Client(Output::Transmit { bytes, .. }) => {
                let delay = Packet::parse(bytes).unwrap().number(Kind::ACCT_DELAY_TIME);
                assert_eq!(u64::from(delay.unwrap()), at.0 / 1000);
                delay
            }
            _ => None,
        })
        .collect();
    assert!(delays.len() == 1 && delays[0] >= 20, "{delays:?}");
}

#[test]
fn records_kept_have_a_bound() {
    let mut accounting = accounting();
    for _ in 0..10 {
        accounting.record(Time(0), record(RecordKind::Session, Time(0)));
    }
    run(&mut accounting, Time(4_000), false);
    for _ in 0..5 {
        accounting.record(Time(4_000), record(RecordKind::Session, Time(4_000)));
        assert!(accounting.pending_count() <= 10);
    }
    let lost = std::iter::from_fn(|| accounting.poll_output());
    assert_eq!(lost.filter(|it| *it == AccountingOutput::Lost).count(), 5);
}

#[test]
fn interims_come_about_as_often_as_asked_and_not_all_together() {
    let mut accounting = accounting();
    for call in 0..100 {
        accounting.start_interims(Time(0), CallId(call), 60_000);
    }
    accounting.stop_interims(CallId(7));
    let outputs = run(&mut accounting, Time(600_000), true);
    let of = |call| {
        let due = AccountingOutput::InterimDue(CallId(call));
        outputs.iter().filter(|(_, it)| *it == due).count()
    };
    assert_eq!(of(7), 0);
    assert!((9..=11).contains(&of(8)), "{}", of(8));
    let firsts: BTreeSet<Time> = outputs.iter().take(99).map(|(at, _)| *at).collect();
    assert!(firsts.len() > 50, "{firsts:?}");
    assert!(firsts.first().unwrap().0 >= 54_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever servers fail and datagrams get lost: every request has one outcome, and one that a
    /// living server could answer is answered once losses stop.
    #[test]
    fn every_request_has_one_outcome(seed: u64, loss in 0.0..0.6, servers in 1_usize..4) {
        let mut world = World::new(servers, seed);
        world.loss = loss;
        let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 1);
        for step in 1..60_u64 {
            let server = rng.random_range(0..servers);
            world.is_up[server] = rng.random_bool(0.6);
            for _ in 0..rng.random_range(0..30) {
                world.ask();
            }
            world.run_until(Time(step * 500));
        }
        world.loss = 0.0;
        world.is_up = vec![true; servers];
        let end = world.now.after_ms(3 * DEAD_MS);
        world.run_until(end);
        let last = world.ask();
        let end = world.now.after_ms(DEAD_MS);
        world.run_until(end);
        prop_assert!(world.answered_by(last).is_some());
        for token in world.asked.clone() {
            prop_assert_eq!(world.outcomes(token), 1);
        }
        prop_assert_eq!(world.client.pending_count(), 0);
        prop_assert!(world.client.is_at_rest());
    }
}
