//! Requests under way: identifiers, repetitions, and the way from one server to the next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::health::Health;
use super::{ClientConfig, IDS, Output, Question, Token, WAITING_MAX};
use crate::proto::Time;
use crate::wire::radius::{
    Authenticator, Code, Kind, MessageAuthenticator, Packet, access_request, accounting_request,
    verify_reply,
};

/// What was passed over, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that a server answered.
    pub answered: u64,
    /// Datagrams sent again.
    pub repeated: u64,
    /// Requests that went on to another server.
    pub moved: u64,
    /// Requests that no server answered.
    pub failed: u64,
    /// Requests turned away because too many waited.
    pub refused: u64,
    /// Datagrams that answer nothing that is under way.
    pub strays: u64,
    /// Answers whose authenticator is wrong or missing.
    pub forged: u64,
}

/// The client's side of one kind of request: authentication, or accounting.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    health: Health,
    rng: ChaCha12Rng,
    requests: BTreeMap<Token, Request>,
    /// Server and slot of what is under way.
    slots: HashMap<(usize, u32), Token>,
    /// Where the search for a free slot goes on, a server.
    next_slot: Vec<u32>,
    /// Without a slot yet.
    waiting: VecDeque<Token>,
    deadlines: BTreeSet<(Time, Token)>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

#[derive(Debug)]
struct Request {
    question: Question,
    tried: Vec<usize>,
    flight: Option<Flight>,
}

/// A request on its way to one server.
#[derive(Debug)]
struct Flight {
    server: usize,
    slot: u32,
    packet: Bytes,
    authenticator: Authenticator,
    sent_count: u32,
    first_sent: Time,
    due: Time,
}

impl Client {
    /// A client that has asked nothing yet. All its randomness comes from `seed`.
    #[must_use]
    pub fn new(config: ClientConfig, seed: [u8; 32]) -> Self {
        let count = config.servers.len();
        Self {
            config,
            health: Health::new(count),
            rng: ChaCha12Rng::from_seed(seed),
            requests: BTreeMap::new(),
            slots: HashMap::new(),
            next_slot: vec![0; count],
            waiting: VecDeque::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Asks. `Answered` or `Failed` with `token` follows, unless `forget` comes before it. A token
    /// is new every time.
    pub fn ask(&mut self, now: Time, token: Token, question: Question) {
        let request = Request {
            question,
            tried: Vec::new(),
            flight: None,
        };
        debug_assert!(!self.requests.contains_key(&token), "{token:?} twice");
        self.requests.insert(token, request);
        self.launch(now, token);
    }

    /// Nobody wants the answer any more.
    pub fn forget(&mut self, now: Time, token: Token) {
        if let Some(flight) = self.land(token) {
            self.health.abandon(now, flight.server);
        }
        self.waiting.retain(|other| *other != token);
        self.requests.remove(&token);
        self.serve_waiting(now);
    }

    /// Takes in what came to `socket`.
    pub fn handle_datagram(&mut self, now: Time, socket: u16, from: SocketAddr, datagram: &[u8]) {
        let Ok(packet) = Packet::parse(datagram) else {
            self.counters.strays += 1;
            return;
        };
        let slot = u32::from(socket) * IDS + u32::from(packet.id());
        let servers = self.config.servers.iter().enumerate();
        let asked = servers
            .filter(|(_, server)| server.address == from)
            .find_map(|(index, server)| Some((index, server, *self.slots.get(&(index, slot))?)));
        let Some((index, server, token)) = asked else {
            self.counters.strays += 1;
            return;
        };
        let Some(request) = self.requests.get(&token) else {
            return;
        };
        let (Some(flight), true) = (&request.flight, answers(&request.question, packet.code()))
        else {
            self.counters.strays += 1;
            return;
        };
        // Accounting-Responses decide nothing, and few servers put the attribute there.
        let need = match request.question {
            Question::Access { .. } => server.message_authenticator,
            Question::Accounting { .. } => MessageAuthenticator::Optional,
        };
        let secret = server.secret.clone();
        if let Err(forged) = verify_reply(packet, &flight.authenticator, secret.as_bytes(), need) {
            self.counters.forged += 1;
            return self.outputs.push_back(Output::Forged {
                server: from,
                forged,
            });
        }
        let authenticator = flight.authenticator;
        self.land(token);
        self.requests.remove(&token);
        self.counters.answered += 1;
        if self.health.hear(now, index) {
            self.outputs.push_back(Output::Alive { server: from });
        }
        self.outputs.push_back(Output::Answered {
            token,
            reply: Bytes::copy_from_slice(packet.as_bytes()),
            authenticator,
            secret,
        });
        self.serve_waiting(now);
    }

    /// The moment of `poll_timeout` has come; too early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(due, token)) = self.deadlines.first()
            && due <= now
        {
            self.deadlines.pop_first();
            self.repeat_or_move(now, token);
        }
        self.serve_waiting(now);
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was passed over.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Requests without an answer so far.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.requests.len()
    }

    /// Nothing holds an identifier or waits for a time.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.slots.is_empty() && self.deadlines.is_empty() && self.waiting.is_empty()
    }

    /// For those who would rather wait than fail.
    #[cfg(test)]
    pub(super) const fn ask_the_dead(&mut self) {
        self.config.ask_the_dead = true;
    }

    /// Sends a request to the best server that it has not been to.
    fn launch(&mut self, now: Time, token: Token) {
        let Some(request) = self.requests.get(&token) else {
            return;
        };
        let mut server = self.health.choose(now, &request.tried);
        if server.is_none() && self.config.ask_the_dead {
            server = self.health.choose_any(&request.tried);
        }
        let Some(server) = server else {
            return self.fail(token);
        };
        let Some(slot) = self.free_slot(server) else {
            self.health.abandon(now, server);
            if self.waiting.len() >= WAITING_MAX {
                self.counters.refused += 1;
                return self.fail(token);
            }
            return self.waiting.push_back(token);
        };
        let (packet, authenticator) = self.encode(now, token, server, slot);
        let due = self.due(now);
        let flight = Flight {
            server,
            slot,
            packet,
            authenticator,
            sent_count: 0,
            first_sent: now,
            due,
        };
        if let Some(request) = self.requests.get_mut(&token) {
            request.flight = Some(flight);
            self.slots.insert((server, slot), token);
            self.transmit(now, token);
        }
    }

    fn transmit(&mut self, now: Time, token: Token) {
        let due = self.due(now);
        let flight = self.requests.get_mut(&token);
        let Some(flight) = flight.and_then(|request| request.flight.as_mut()) else {
            return;
        };
        flight.sent_count += 1;
        flight.due = due;
        self.deadlines.insert((due, token));
        if let Some(server) = self.config.servers.get(flight.server) {
            self.outputs.push_back(Output::Transmit {
                socket: u16::try_from(flight.slot / IDS).unwrap_or(0),
                to: server.address,
                bytes: flight.packet.clone(),
            });
        }
    }

    /// Users who fail together would come again together, for ever.
    fn due(&mut self, now: Time) -> Time {
        let tenth = self.config.timeout_ms / 10;
        now.after_ms(self.config.timeout_ms - tenth + self.rng.random_range(0..=2 * tenth))
    }

    /// An identifier of a socket that nothing is under way with to `server`. What was used last is
    /// used again last, so that a late answer finds nothing.
    fn free_slot(&mut self, server: usize) -> Option<u32> {
        let count = u32::from(self.config.sockets) * IDS;
        let first = *self.next_slot.get(server)?;
        let slot = (first..count)
            .chain(0..first)
            .find(|slot| !self.slots.contains_key(&(server, *slot)))?;
        *self.next_slot.get_mut(server)? = (slot + 1) % count;
        Some(slot)
    }

    fn encode(
        &mut self,
        now: Time,
        token: Token,
        server: usize,
        slot: u32,
    ) -> (Bytes, Authenticator) {
        let id = u8::try_from(slot % IDS).unwrap_or(0);
        let spec = self.config.servers.get(server);
        let question = self.requests.get(&token).map(|request| &request.question);
        let secret = spec.map_or(&[][..], |spec| spec.secret.as_bytes());
        match question {
            Some(Question::Access {
                attributes,
                password,
            }) => {
                let mut authenticator = [0; 16];
                self.rng.fill_bytes(&mut authenticator);
                let password = password.as_ref().map(|password| password.as_bytes());
                let packet = access_request(id, &authenticator, attributes, password, secret);
                (packet, authenticator)
            }
            Some(Question::Accounting { attributes, at }) => {
                let mut attributes = attributes.clone();
                let delay_s = now.0.saturating_sub(at.0) / 1000;
                let delay_s = u32::try_from(delay_s).unwrap_or(u32::MAX);
                attributes.number(Kind::ACCT_DELAY_TIME, delay_s);
                accounting_request(id, &attributes, secret)
            }
            None => (Bytes::new(), [0; 16]),
        }
    }

    /// No answer in time.
    fn repeat_or_move(&mut self, now: Time, token: Token) {
        let flight = self.requests.get(&token);
        let Some(flight) = flight.and_then(|request| request.flight.as_ref()) else {
            return;
        };
        if flight.sent_count < self.config.tries {
            self.counters.repeated += 1;
            return self.transmit(now, token);
        }
        let (server, first_sent) = (flight.server, flight.first_sent);
        let is_news = self
            .health
            .miss(now, server, first_sent, self.config.dead_ms);
        self.move_on(now, token);
        if is_news {
            if let Some(spec) = self.config.servers.get(server) {
                let server = spec.address;
                self.outputs.push_back(Output::Dead { server });
            }
            self.evacuate(now, server);
        }
    }

    /// What else is under way to a dead server need not wait for as long.
    fn evacuate(&mut self, now: Time, server: usize) {
        let is_there = |request: &Request| {
            let flight = request.flight.as_ref();
            flight.is_some_and(|flight| flight.server == server)
        };
        let requests = self.requests.iter();
        let there: Vec<Token> = requests
            .filter(|(_, request)| is_there(request))
            .map(|(token, _)| *token)
            .collect();
        for token in there {
            self.move_on(now, token);
        }
    }

    fn move_on(&mut self, now: Time, token: Token) {
        let Some(flight) = self.land(token) else {
            return;
        };
        if let Some(request) = self.requests.get_mut(&token) {
            request.tried.push(flight.server);
        }
        self.counters.moved += 1;
        self.launch(now, token);
    }

    /// Takes a request out of the air.
    fn land(&mut self, token: Token) -> Option<Flight> {
        let flight = self.requests.get_mut(&token)?.flight.take()?;
        self.slots.remove(&(flight.server, flight.slot));
        self.deadlines.remove(&(flight.due, token));
        Some(flight)
    }

    fn fail(&mut self, token: Token) {
        self.requests.remove(&token);
        self.counters.failed += 1;
        self.outputs.push_back(Output::Failed { token });
    }

    /// Each that waits is tried once: what still finds no slot goes to the end of the queue.
    fn serve_waiting(&mut self, now: Time) {
        for _ in 0..self.waiting.len() {
            let free = self.slots.len() < usize::from(self.config.sockets) * IDS as usize;
            let Some(token) = self.waiting.front().copied().filter(|_| free) else {
                return;
            };
            self.waiting.pop_front();
            self.launch(now, token);
        }
    }
}

/// Whether a packet of this code can be an answer.
fn answers(question: &Question, code: Code) -> bool {
    match question {
        Question::Access { .. } => matches!(
            code,
            Code::ACCESS_ACCEPT | Code::ACCESS_REJECT | Code::ACCESS_CHALLENGE
        ),
        Question::Accounting { .. } => code == Code::ACCOUNTING_RESPONSE,
    }
}
