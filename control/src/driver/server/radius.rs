//! RADIUS for a server: sockets and clock for the machines of `proto::radius`, and what is
//! remembered of each call for them.
//!
//! ```text
//! requests   what a request says of a call
//! accept     what an answer says: attributes, keys, words
//! sessions   the server's part: verdicts, accounting, routes, orders
//! sockets    datagrams in and out
//! handover   what another process needs to go on
//! ```

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dataplane::program::CallId;
use rand::RngExt;

use super::super::clock::Clock;
use crate::config::radius::RadiusConfig;
use crate::proto::Time;
use crate::proto::auth::{AuthRequest, Secret};
use crate::proto::radius::{
    Accounting, AccountingOutput, Client, DynamicServer, Identity, Order, Output, Question,
    Received, Record, RecordKind, SessionKey, Token,
};
use crate::wire::radius::{AcctStatusType, AttributeList, ErrorCause, Kind};

mod accept;
pub(super) mod handover;
mod requests;
mod sessions;
mod sockets;

use requests::Nas;
use sockets::{Datagram, Purpose, Sockets};

/// Everything about RADIUS that a server holds.
pub(super) struct Radius {
    nas: Nas,
    fall_back_to_secrets: bool,
    interim_ms: Option<u64>,
    clock: Clock,
    auth: Client,
    accounting: Option<Accounting>,
    dynamic: Option<DynamicServer>,
    sockets: Sockets,
    tokens: u64,
    pending: HashMap<Token, Pending>,
    calls: HashMap<CallId, Call>,
}

/// A question that is out.
struct Pending {
    call_id: CallId,
    request_id: u32,
    request: AuthRequest,
}

/// What is remembered of one call.
#[derive(Default)]
struct Call {
    acct_session_id: String,
    /// Our outer address.
    called: Option<Ipv4Addr>,
    /// Its question that is out.
    asked: Option<Token>,
    /// `State` of the last Access-Challenge.
    state: Option<Vec<u8>>,
    /// The secrets let it in, not a server.
    by_secrets: bool,
    /// The client's inner address, since accounting began.
    framed: Option<Ipv4Addr>,
    /// When accounting began.
    started: Option<Time>,
}

/// Something that came, or became due.
pub(super) enum RadiusInput {
    Datagram(Datagram),
    Timer,
}

/// What the server has to do about it.
enum RadiusEvent {
    /// A server answered.
    Answered {
        pending: Pending,
        reply: Bytes,
        authenticator: [u8; 16],
        secret: Secret,
    },
    /// No server answered.
    Failed(Pending),
    /// It is time to say how a session goes on.
    InterimDue(CallId),
    /// Somebody who may wants sessions ended or changed; the answer goes back to `datagram`.
    Order {
        datagram: Datagram,
        key: SessionKey,
        order: Order,
    },
    /// A person should know.
    Say(String),
}

impl Radius {
    /// Opens the sockets, and tells the servers that sessions of before are gone.
    pub(super) fn open(config: &RadiusConfig, name: &str) -> std::io::Result<Self> {
        let mut radius = Self::open_quietly(config, name)?;
        radius.hear_orders(config, None)?;
        radius.tell_of_server(AcctStatusType::AccountingOn);
        Ok(radius)
    }

    /// Opens the sockets, but the one for orders, and says nothing.
    fn open_quietly(config: &RadiusConfig, name: &str) -> std::io::Result<Self> {
        let auth = config.auth();
        let accounting = config.accounting();
        let identity = Identity {
            nas_identifier: config
                .nas_identifier
                .clone()
                .unwrap_or_else(|| name.to_owned()),
            nas_ip_address: config.nas_ip_address,
        };
        let count = auth.sockets;
        let sockets = Sockets::open(config.bind, count, accounting.is_some())?;
        Ok(Self {
            nas: Nas {
                identifier: identity.nas_identifier.clone(),
                address: config.nas_ip_address,
            },
            fall_back_to_secrets: config.fall_back_to_secrets,
            interim_ms: config.interim_ms,
            clock: Clock::start(),
            auth: Client::new(auth, rand::random()),
            accounting: accounting.map(|config| Accounting::new(config, rand::random())),
            dynamic: config
                .dynamic
                .as_ref()
                .map(|dynamic| DynamicServer::new(dynamic.clients.clone(), identity)),
            sockets,
            tokens: 0,
            pending: HashMap::new(),
            calls: HashMap::new(),
        })
    }

    /// Waits for the next thing to happen; for ever where there is no RADIUS.
    pub(super) async fn next(radius: &mut Option<Self>) -> RadiusInput {
        let Some(radius) = radius else {
            return std::future::pending().await;
        };
        let accounting = radius
            .accounting
            .as_ref()
            .and_then(Accounting::poll_timeout);
        let due = [radius.auth.poll_timeout(), accounting];
        let due = due.into_iter().flatten().min();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(radius.clock.instant(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            datagram = radius.sockets.receive() => RadiusInput::Datagram(datagram),
            () = timer => RadiusInput::Timer,
        }
    }

    /// Gives the machines what happened.
    fn handle(&mut self, input: RadiusInput) -> Vec<RadiusEvent> {
        let now = self.clock.now();
        let mut events = Vec::new();
        match input {
            RadiusInput::Timer => {
                self.auth.handle_timeout(now);
                if let Some(accounting) = &mut self.accounting {
                    accounting.handle_timeout(now);
                }
            }
            RadiusInput::Datagram(datagram) => {
                let (from, bytes) = (datagram.from, &datagram.bytes);
                match datagram.purpose {
                    Purpose::Auth(socket) => self.auth.handle_datagram(now, socket, from, bytes),
                    Purpose::Accounting(socket) => {
                        if let Some(accounting) = &mut self.accounting {
                            accounting.handle_datagram(now, socket, from, bytes);
                        }
                    }
                    Purpose::Dynamic => events.extend(self.hear_order(now, datagram)),
                }
            }
        }
        self.settle(&mut events);
        events
    }

    fn hear_order(&mut self, now: Time, datagram: Datagram) -> Option<RadiusEvent> {
        let dynamic = self.dynamic.as_mut()?;
        match dynamic.receive(now, unix_s(), datagram.from, &datagram.bytes) {
            Received::Nothing => None,
            Received::Answer(answer) => {
                self.sockets.answer(datagram.from, &answer);
                None
            }
            Received::Order { key, order } => Some(RadiusEvent::Order {
                datagram,
                key,
                order,
            }),
        }
    }

    fn answer_order(&mut self, datagram: &Datagram, outcome: Result<(), ErrorCause>) {
        let now = self.clock.now();
        if let Some(dynamic) = &mut self.dynamic
            && let Some(answer) = dynamic.answer(now, datagram.from, &datagram.bytes, outcome)
        {
            self.sockets.answer(datagram.from, &answer);
        }
    }

    /// Sends what the machines want sent; the rest is for the server.
    fn settle(&mut self, events: &mut Vec<RadiusEvent>) {
        while let Some(output) = self.auth.poll_output() {
            match output {
                Output::Answered {
                    token,
                    reply,
                    authenticator,
                    secret,
                } => events.extend(self.pending.remove(&token).map(|pending| {
                    RadiusEvent::Answered {
                        pending,
                        reply,
                        authenticator,
                        secret,
                    }
                })),
                Output::Failed { token } => {
                    events.extend(self.pending.remove(&token).map(RadiusEvent::Failed));
                }
                output => events.extend(self.sockets.carry_out(&output, Purpose::Auth)),
            }
        }
        while let Some(output) = self.accounting.as_mut().and_then(Accounting::poll_output) {
            match output {
                AccountingOutput::Client(output) => {
                    events.extend(self.sockets.carry_out(&output, Purpose::Accounting));
                }
                AccountingOutput::InterimDue(call_id) => {
                    events.push(RadiusEvent::InterimDue(call_id));
                }
                AccountingOutput::Lost => {
                    let text = "RADIUS: an accounting record is lost, no server takes any";
                    events.push(RadiusEvent::Say(text.to_owned()));
                }
            }
        }
    }

    /// What is remembered of a call, from its first request on.
    fn call(&mut self, call_id: CallId) -> &mut Call {
        self.calls.entry(call_id).or_insert_with(|| Call {
            acct_session_id: format!("{:016x}", rand::rng().random::<u64>()),
            ..Call::default()
        })
    }

    fn ask(&mut self, pending: Pending, attributes: AttributeList, password: Option<Secret>) {
        self.tokens += 1;
        let token = Token(self.tokens);
        if let Some(before) = self.call(pending.call_id).asked.replace(token) {
            self.drop_question(before);
        }
        self.pending.insert(token, pending);
        let question = Question::Access {
            attributes,
            password,
        };
        self.auth.ask(self.clock.now(), token, question);
    }

    fn drop_question(&mut self, token: Token) {
        if self.pending.remove(&token).is_some() {
            self.auth.forget(self.clock.now(), token);
        }
    }

    /// A call is over.
    fn forget(&mut self, call_id: CallId) -> Option<Call> {
        let call = self.calls.remove(&call_id)?;
        if let Some(token) = call.asked {
            self.drop_question(token);
        }
        if let Some(accounting) = &mut self.accounting {
            accounting.stop_interims(call_id);
        }
        Some(call)
    }

    fn record(&mut self, kind: RecordKind, attributes: AttributeList) {
        let at = self.clock.now();
        if let Some(accounting) = &mut self.accounting {
            let record = Record {
                kind,
                attributes,
                at,
            };
            accounting.record(at, record);
        }
    }

    /// The server starts, or stops.
    fn tell_of_server(&mut self, status: AcctStatusType) {
        let mut attributes = AttributeList::new();
        attributes.number(Kind::ACCT_STATUS_TYPE, status as u32);
        // RFC 2866 5.5 wants it in every request.
        attributes.text(Kind::ACCT_SESSION_ID, "00000000");
        self.nas.describe(&mut attributes, None);
        attributes.number(Kind::EVENT_TIMESTAMP, unix_s());
        self.record(RecordKind::Server, attributes);
        self.settle(&mut Vec::new());
    }

    /// Tells the servers that the server stops, and waits until they have taken all.
    pub(super) async fn close(radius: &mut Option<Self>) {
        if let Some(radius) = radius {
            radius.tell_of_server(AcctStatusType::AccountingOff);
        }
        Self::drain(radius).await;
    }

    /// Waits until servers have taken what there is to tell.
    pub(super) async fn drain(radius: &mut Option<Self>) {
        while let Some(it) = radius
            && it
                .accounting
                .as_ref()
                .is_some_and(|it| it.pending_count() > 0)
        {
            let input = Self::next(radius).await;
            if let Some(radius) = radius {
                radius.handle(input);
            }
        }
    }
}

/// Seconds since 1970, as `Event-Timestamp` has them.
fn unix_s() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}
