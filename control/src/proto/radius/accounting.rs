//! Accounting (RFC 2866): what has happened is told until a server has recorded it; interim updates
//! (RFC 2869 5.16) come at intervals that differ a little, so that sessions which began together
//! do not report together for ever.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

use dataplane::program::CallId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::client::{Client, Counters};
use super::{ClientConfig, Output, Question, Token};
use crate::proto::Time;
use crate::wire::radius::AttributeList;

/// How accounting behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountingConfig {
    /// The servers.
    pub client: ClientConfig,
    /// Until a record that no server took is sent again.
    pub retry_ms: u64,
    /// Records kept until a server has taken them; then the oldest is lost.
    pub records_max: usize,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordKind {
    /// A session has begun, or is over: kept until it is recorded.
    Session,
    /// A session goes on: the next of its kind says more, so this one is not kept.
    Interim,
    /// The server starts or stops. Kept as little: told late, it would end sessions that have
    /// begun since.
    Server,
}

/// One thing to record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it says.
    pub kind: RecordKind,
    /// All but Acct-Delay-Time.
    pub attributes: AttributeList,
    /// When it happened.
    pub at: Time,
}

/// What accounting wants done, or has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountingOutput {
    /// As a client's; never `Answered` or `Failed`.
    Client(Output),
    /// It is time to say how a session goes on.
    InterimDue(CallId),
    /// A record is lost: no server takes it, and there are too many.
    Lost,
}

/// All records of this side.
#[derive(Debug)]
pub struct Accounting {
    config: AccountingConfig,
    client: Client,
    rng: ChaCha12Rng,
    tokens: u64,
    under_way: BTreeMap<Token, Record>,
    /// To be sent again, by when.
    later: BTreeMap<(Time, Token), Record>,
    interims: HashMap<CallId, Interim>,
    interims_due: BTreeSet<(Time, CallId)>,
    outputs: VecDeque<AccountingOutput>,
}

#[derive(Clone, Copy, Debug)]
struct Interim {
    interval_ms: u64,
    due: Time,
}

impl Accounting {
    /// Nothing recorded yet. All its randomness comes from `seed`.
    #[must_use]
    pub fn new(config: AccountingConfig, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        Self {
            client: Client::new(config.client.clone(), rng.random()),
            config,
            rng,
            tokens: 0,
            under_way: BTreeMap::new(),
            later: BTreeMap::new(),
            interims: HashMap::new(),
            interims_due: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Records something.
    pub fn record(&mut self, now: Time, record: Record) {
        if self.under_way.len() + self.later.len() >= self.config.records_max {
            self.outputs.push_back(AccountingOutput::Lost);
            if record.kind == RecordKind::Interim || self.later.pop_first().is_none() {
                return;
            }
        }
        self.send(now, record);
    }

    /// From now on `InterimDue` tells every `interval_ms`, or about, that a session goes on.
    pub fn start_interims(&mut self, now: Time, call_id: CallId, interval_ms: u64) {
        self.stop_interims(call_id);
        let due = self.next_interim(now, interval_ms);
        self.interims.insert(call_id, Interim { interval_ms, due });
        self.interims_due.insert((due, call_id));
    }

    /// The same where another process has begun it, and the next is due then.
    pub fn go_on_with_interims(
        &mut self,
        now: Time,
        call_id: CallId,
        interval_ms: u64,
        due: Option<Time>,
    ) {
        self.start_interims(now, call_id, interval_ms);
        if let (Some(interim), Some(due)) = (self.interims.get_mut(&call_id), due)
            && due < interim.due
        {
            self.interims_due.remove(&(interim.due, call_id));
            interim.due = due;
            self.interims_due.insert((due, call_id));
        }
    }

    /// When the next interim update of a session is due.
    #[must_use]
    pub fn interim_due(&self, call_id: CallId) -> Option<Time> {
        self.interims.get(&call_id).map(|interim| interim.due)
    }

    /// Records that are kept until a server has taken them, and no server has.
    pub fn kept(&self) -> impl Iterator<Item = &Record> {
        let all = self.under_way.values().chain(self.later.values());
        all.filter(|record| record.kind == RecordKind::Session)
    }

    /// Records and interim updates are another process's from now on.
    pub fn let_go(&mut self) {
        self.under_way.clear();
        self.later.clear();
        self.interims.clear();
        self.interims_due.clear();
    }

    /// It goes on no more.
    pub fn stop_interims(&mut self, call_id: CallId) {
        if let Some(Interim { due, .. }) = self.interims.remove(&call_id) {
            self.interims_due.remove(&(due, call_id));
        }
    }

    /// Takes in what came to `socket`.
    pub fn handle_datagram(&mut self, now: Time, socket: u16, from: SocketAddr, datagram: &[u8]) {
        self.client.handle_datagram(now, socket, from, datagram);
        self.settle(now);
    }

    /// The moment of `poll_timeout` has come; too early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        self.client.handle_timeout(now);
        self.settle(now);
        let later = self.later.split_off(&(now.after_ms(1), Token(0)));
        for record in std::mem::replace(&mut self.later, later).into_values() {
            self.send(now, record);
        }
        while let Some(&(due, call_id)) = self.interims_due.first()
            && due <= now
        {
            self.interims_due.pop_first();
            let Some(interval_ms) = self.interims.get(&call_id).map(|it| it.interval_ms) else {
                continue;
            };
            let due = self.next_interim(now, interval_ms);
            self.interims.insert(call_id, Interim { interval_ms, due });
            self.interims_due.insert((due, call_id));
            self.outputs
                .push_back(AccountingOutput::InterimDue(call_id));
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let later = self.later.first_key_value().map(|((due, _), _)| *due);
        let interim = self.interims_due.first().map(|(due, _)| *due);
        [self.client.poll_timeout(), later, interim]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<AccountingOutput> {
        self.outputs.pop_front()
    }

    /// Records that no server has taken yet.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.under_way.len() + self.later.len()
    }

    /// What the client passed over.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.client.counters()
    }

    fn next_interim(&mut self, now: Time, interval_ms: u64) -> Time {
        let tenth = interval_ms / 10;
        now.after_ms(interval_ms - tenth + self.rng.random_range(0..=2 * tenth))
    }

    fn send(&mut self, now: Time, record: Record) {
        self.tokens += 1;
        let token = Token(self.tokens);
        let question = Question::Accounting {
            attributes: record.attributes.clone(),
            at: record.at,
        };
        self.under_way.insert(token, record);
        self.client.ask(now, token, question);
        self.settle(now);
    }

    fn settle(&mut self, now: Time) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Answered { token, .. } => {
                    self.under_way.remove(&token);
                }
                Output::Failed { token } => self.put_off(now, token),
                output => self.outputs.push_back(AccountingOutput::Client(output)),
            }
        }
    }

    fn put_off(&mut self, now: Time, token: Token) {
        if let Some(record) = self.under_way.remove(&token)
            && record.kind == RecordKind::Session
        {
            let due = now.after_ms(self.config.retry_ms);
            self.later.insert((due, token), record);
        }
    }
}
