//! Dynamic authorization (RFC 5176): who may end or change a session, which one, and how.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use dataplane::rate_limit::Quota;

use super::quota::quota_of;
use crate::proto::Time;
use crate::proto::auth::Secret;
use crate::wire::radius::{
    AttributeList, Authenticator, Code, ErrorCause, Kind, MessageAuthenticator, Packet, reply,
    verify_request,
};

/// Answers kept for requests that come again because the answer was lost.
const ANSWERS_MAX: usize = 256;
/// For so long; those who ask give up much sooner.
const ANSWER_MS: u64 = 30_000;
/// How far the clocks of both ends may be apart (RFC 5176 3.3 and 6.3).
const CLOCKS_APART_S: u32 = 300;
/// `Service-Type` that wants the session authorized anew (RFC 5176 3.1), which is not done.
const AUTHORIZE_ONLY: u32 = 17;

/// Who may give orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicClient {
    /// Where its requests come from.
    pub address: IpAddr,
    /// Shared with it.
    pub secret: Secret,
}

/// By what names an order may call this server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `NAS-Identifier`.
    pub nas_identifier: String,
    /// `NAS-IP-Address`; `None` when it is not configured, and then any is taken for ours.
    pub nas_ip_address: Option<Ipv4Addr>,
}

/// Which sessions an order means: those for which everything that is there is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionKey {
    /// `User-Name`.
    pub user_name: Option<String>,
    /// `Acct-Session-Id`.
    pub acct_session_id: Option<String>,
    /// `Framed-IP-Address`.
    pub framed_ip_address: Option<Ipv4Addr>,
    /// `Calling-Station-Id`.
    pub calling_station_id: Option<String>,
    /// `NAS-Port`.
    pub nas_port: Option<u32>,
}

impl SessionKey {
    fn of(packet: Packet<'_>) -> Self {
        Self {
            user_name: packet.text(Kind::USER_NAME),
            acct_session_id: packet.text(Kind::ACCT_SESSION_ID),
            framed_ip_address: packet.address(Kind::FRAMED_IP_ADDRESS),
            calling_station_id: packet.text(Kind::CALLING_STATION_ID),
            nas_port: packet.number(Kind::NAS_PORT),
        }
    }
}

/// What is to be another way from now on; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `Session-Timeout`, from the session's beginning; `u64::MAX` is no limit.
    pub session_timeout_ms: Option<u64>,
    /// `Idle-Timeout`; `u64::MAX` is no limit.
    pub idle_timeout_ms: Option<u64>,
    /// `Acct-Interim-Interval`.
    pub interim_interval_ms: Option<u64>,
    /// `Filter-Id`.
    pub filter_id: Option<String>,
    /// `Mikrotik-Rate-Limit`.
    pub rate_limit: Option<String>,
    /// `Cisco-AVPair` that names rates, one for each direction.
    pub cisco_rates: Vec<String>,
    /// `WISPr-Bandwidth-Max-Up`, bits a second.
    pub wispr_up_bps: Option<u32>,
    /// `WISPr-Bandwidth-Max-Down`, bits a second.
    pub wispr_down_bps: Option<u32>,
    /// `Session-Octets-Limit` and its like; the session's counters are held against it.
    pub quota: Option<Quota>,
    /// `Class`, all of them.
    pub class: Option<Vec<Vec<u8>>>,
}

/// More `Class` attributes than this are not echoed.
const CLASSES_MAX: usize = 8;
/// Nor are more rates of Cisco's looked at.
const CISCO_RATES_MAX: usize = 8;
/// A server that wants to hear of every session more often is not obeyed; RFC 2869 2.1 wants a
/// minute.
const INTERIM_MS_MIN: u64 = 10_000;

/// What an Access-Accept, or a CoA-Request, says that can be changed later.
#[must_use]
pub fn change_of(packet: Packet<'_>) -> Change {
    let ms = |kind| {
        packet.number(kind).map(|seconds| match seconds {
            // As pppd has it.
            0 => u64::MAX,
            _ => u64::from(seconds) * 1000,
        })
    };
    let class: Vec<_> = packet
        .find_all(Kind::CLASS)
        .take(CLASSES_MAX)
        .map(<[u8]>::to_vec)
        .collect();
    let cisco_rates = packet
        .find_all(Kind::CISCO_AVPAIR)
        .filter(|value| names_cisco_rate(value))
        .take(CISCO_RATES_MAX)
        .map(|value| String::from_utf8_lossy(value).into_owned());
    Change {
        session_timeout_ms: ms(Kind::SESSION_TIMEOUT),
        idle_timeout_ms: ms(Kind::IDLE_TIMEOUT),
        interim_interval_ms: ms(Kind::ACCT_INTERIM_INTERVAL).map(|ms| ms.max(INTERIM_MS_MIN)),
        filter_id: packet.text(Kind::FILTER_ID),
        rate_limit: packet.text(Kind::MIKROTIK_RATE_LIMIT),
        cisco_rates: cisco_rates.collect(),
        wispr_up_bps: packet.number(Kind::WISPR_BANDWIDTH_MAX_UP),
        wispr_down_bps: packet.number(Kind::WISPR_BANDWIDTH_MAX_DOWN),
        quota: quota_of(packet),
        class: (!class.is_empty()).then_some(class),
    }
}

/// Whether a `Cisco-AVPair`, which may be about anything, is about a rate:
/// `lcp:interface-config#1=rate-limit output 2000000 8000 8000 ...`.
fn names_cisco_rate(value: &[u8]) -> bool {
    let mut parts = value.splitn(2, |octet| *octet == b'=');
    let (name, command) = (parts.next(), parts.next());
    name.is_some_and(|name| name.starts_with(b"lcp:interface-config"))
        && command.is_some_and(|it| it.trim_ascii_start().starts_with(b"rate-limit "))
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End the sessions.
    Disconnect,
    /// Change what they may do.
    Change(Box<Change>),
}

/// What a datagram comes to.
#[derive(Debug)]
pub enum Received {
    /// Nothing: it is from nobody who may give orders.
    Nothing,
    /// An answer that is due at once: it was answered before, or cannot be done.
    Answer(Bytes),
    /// An order, to be answered by `DynamicServer::answer`.
    Order {
        /// Which sessions.
        key: SessionKey,
        /// What to do.
        order: Order,
    },
}

/// Listens to orders.
#[derive(Debug)]
pub struct DynamicServer {
    clients: Vec<DynamicClient>,
    identity: Identity,
    answers: VecDeque<Answered>,
}

#[derive(Debug)]
struct Answered {
    at: Time,
    from: SocketAddr,
    request: Authenticator,
    answer: Bytes,
}

impl DynamicServer {
    /// Who is `identity` and obeys `clients`.
    #[must_use]
    pub const fn new(clients: Vec<DynamicClient>, identity: Identity) -> Self {
        Self {
            clients,
            identity,
            answers: VecDeque::new(),
        }
    }

    /// Takes in a datagram; `unix_s` is the wall clock, which `Event-Timestamp` is held against.
    pub fn receive(
        &mut self,
        now: Time,
        unix_s: u32,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Received {
        let Ok(packet) = Packet::parse(datagram) else {
            return Received::Nothing;
        };
        let is_order = matches!(packet.code(), Code::DISCONNECT_REQUEST | Code::COA_REQUEST);
        let Some(secret) = self.secret(from).filter(|_| is_order) else {
            return Received::Nothing;
        };
        let need = MessageAuthenticator::Optional;
        if verify_request(packet, secret.as_bytes(), need).is_err() {
            return Received::Nothing;
        }
        let stamp = packet.number(Kind::EVENT_TIMESTAMP).unwrap_or(unix_s);
        if stamp.abs_diff(unix_s) > CLOCKS_APART_S {
            return Received::Nothing;
        }
        let request = packet.authenticator();
        let same = |it: &&Answered| it.from == from && it.request == request;
        if let Some(known) = self.answers.iter().find(same) {
            return Received::Answer(known.answer.clone());
        }
        match self.understand(packet) {
            Ok((key, order)) => Received::Order { key, order },
            Err(cause) => match self.answer(now, from, datagram, Err(cause)) {
                Some(answer) => Received::Answer(answer),
                None => Received::Nothing,
            },
        }
    }

    /// Answers the order in `datagram` from `from`: done, or why not.
    pub fn answer(
        &mut self,
        now: Time,
        from: SocketAddr,
        datagram: &[u8],
        outcome: Result<(), ErrorCause>,
    ) -> Option<Bytes> {
        let packet = Packet::parse(datagram).ok()?;
        let secret = self.secret(from)?;
        let mut attributes = AttributeList::new();
        for state in packet.find_all(Kind::PROXY_STATE) {
            attributes.octets(Kind::PROXY_STATE, state);
        }
        let is_change = packet.code() == Code::COA_REQUEST;
        let code = match (is_change, outcome) {
            (true, Ok(())) => Code::COA_ACK,
            (true, Err(_)) => Code::COA_NAK,
            (false, Ok(())) => Code::DISCONNECT_ACK,
            (false, Err(_)) => Code::DISCONNECT_NAK,
        };
        if let Err(cause) = outcome {
            attributes.number(Kind::ERROR_CAUSE, cause as u32);
        }
        let answer = reply(code, packet, &attributes, secret.as_bytes());
        self.answers
            .retain(|it| now.0.saturating_sub(it.at.0) < ANSWER_MS);
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(Answered {
            at: now,
            from,
            request: packet.authenticator(),
            answer: answer.clone(),
        });
        Some(answer)
    }

    fn secret(&self, from: SocketAddr) -> Option<Secret> {
        let client = self.clients.iter().find(|it| it.address == from.ip())?;
        Some(client.secret.clone())
    }

    fn understand(&self, packet: Packet<'_>) -> Result<(SessionKey, Order), ErrorCause> {
        let is_other = |given: Option<Ipv4Addr>, ours: Option<Ipv4Addr>| {
            given.is_some_and(|given| ours.is_some_and(|ours| ours != given))
        };
        let named = packet.text(Kind::NAS_IDENTIFIER);
        if named.is_some_and(|name| name != self.identity.nas_identifier)
            || is_other(
                packet.address(Kind::NAS_IP_ADDRESS),
                self.identity.nas_ip_address,
            )
        {
            return Err(ErrorCause::NasIdentificationMismatch);
        }
        if packet.number(Kind::SERVICE_TYPE) == Some(AUTHORIZE_ONLY) {
            return Err(ErrorCause::UnsupportedService);
        }
        let key = SessionKey::of(packet);
        if key == SessionKey::default() {
            return Err(ErrorCause::MissingAttribute);
        }
        if packet.code() == Code::DISCONNECT_REQUEST {
            return Ok((key, Order::Disconnect));
        }
        let is_understood = |(kind, value): (Kind, &[u8])| match kind {
            Kind::CISCO_AVPAIR => names_cisco_rate(value),
            kind => is_understood(kind),
        };
        if !packet.attributes().all(is_understood) {
            return Err(ErrorCause::UnsupportedAttribute);
        }
        let change = change_of(packet);
        if change == Change::default() {
            return Err(ErrorCause::MissingAttribute);
        }
        Ok((key, Order::Change(Box::new(change))))
    }
}

/// An order to change something that is not understood must not be taken for done (RFC 5176 3.4).
const fn is_understood(kind: Kind) -> bool {
    matches!(
        kind,
        // Who, and which session.
        Kind::USER_NAME
            | Kind::ACCT_SESSION_ID
            | Kind::FRAMED_IP_ADDRESS
            | Kind::CALLING_STATION_ID
            | Kind::CALLED_STATION_ID
            | Kind::NAS_IDENTIFIER
            | Kind::NAS_IP_ADDRESS
            | Kind::NAS_PORT
            | Kind::NAS_PORT_ID
            | Kind::NAS_PORT_TYPE
            // What goes with every request.
            | Kind::EVENT_TIMESTAMP
            | Kind::MESSAGE_AUTHENTICATOR
            | Kind::PROXY_STATE
            | Kind::SERVICE_TYPE
            | Kind::FRAMED_PROTOCOL
            // What can be changed.
            | Kind::SESSION_TIMEOUT
            | Kind::IDLE_TIMEOUT
            | Kind::ACCT_INTERIM_INTERVAL
            | Kind::FILTER_ID
            | Kind::CLASS
            | Kind::MIKROTIK_RATE_LIMIT
            | Kind::WISPR_BANDWIDTH_MAX_UP
            | Kind::WISPR_BANDWIDTH_MAX_DOWN
            | Kind::SESSION_OCTETS_LIMIT
            | Kind::OCTETS_DIRECTION
            | Kind::MIKROTIK_RECV_LIMIT
            | Kind::MIKROTIK_XMIT_LIMIT
            | Kind::MIKROTIK_TOTAL_LIMIT
            | Kind::MIKROTIK_RECV_LIMIT_GIGAWORDS
            | Kind::MIKROTIK_XMIT_LIMIT_GIGAWORDS
            | Kind::MIKROTIK_TOTAL_LIMIT_GIGAWORDS
            | Kind::CHILLISPOT_MAX_INPUT_OCTETS
            | Kind::CHILLISPOT_MAX_OUTPUT_OCTETS
            | Kind::CHILLISPOT_MAX_TOTAL_OCTETS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::radius::{dynamic_request, verify_reply};

    const FROM: &str = "192.0.2.7:40000";
    const NOW_S: u32 = 1_800_000_000;

    fn server() -> DynamicServer {
        let client = DynamicClient {
            address: "192.0.2.7".parse().unwrap(),
            secret: Secret::new(b"order".to_vec()),
        };
        let identity = Identity {
            nas_identifier: "pptp-1".into(),
            nas_ip_address: Some(Ipv4Addr::new(10, 0, 0, 1)),
        };
        DynamicServer::new(vec![client], identity)
    }

    fn request(code: Code, fill: impl FnOnce(&mut AttributeList)) -> Bytes {
        let mut list = AttributeList::new();
        fill(&mut list);
        dynamic_request(code, 5, &list, b"order").0
    }

    fn receive(server: &mut DynamicServer, datagram: &[u8]) -> Received {
        server.receive(Time(0), NOW_S, FROM.parse().unwrap(), datagram)
    }

    fn cause(received: &Received, request: &[u8]) -> u32 {
        let Received::Answer(answer) = received else {
            panic!("{received:?}");
        };
        let (packet, request) = (
            Packet::parse(answer).unwrap(),
            Packet::parse(request).unwrap(),
        );
        let need = MessageAuthenticator::Required;
        verify_reply(packet, &request.authenticator(), b"order", need).unwrap();
        packet.number(Kind::ERROR_CAUSE).unwrap()
    }

    #[test]
    fn an_order_is_understood_once_and_its_answer_repeated() {
        let mut server = server();
        let disconnect = request(Code::DISCONNECT_REQUEST, |list| {
            list.text(Kind::USER_NAME, "mia");
            list.number(Kind::EVENT_TIMESTAMP, NOW_S - 200);
            list.octets(Kind::PROXY_STATE, b"by");
        });
        let Received::Order { key, order } = receive(&mut server, &disconnect) else {
            panic!("no order");
        };
        assert_eq!(key.user_name.as_deref(), Some("mia"));
        assert_eq!(order, Order::Disconnect);
        let from = FROM.parse().unwrap();
        let answer = server.answer(Time(1), from, &disconnect, Ok(())).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!((packet.code(), packet.id()), (Code::DISCONNECT_ACK, 5));
        assert_eq!(packet.find(Kind::PROXY_STATE), Some(&b"by"[..]));
        let Received::Answer(again) = receive(&mut server, &disconnect) else {
            panic!("done twice");
        };
        assert_eq!(again, answer);
    }

    #[test]
    fn a_change_says_what_is_another_way() {
        let change = request(Code::COA_REQUEST, |list| {
            list.text(Kind::ACCT_SESSION_ID, "00f1");
            list.number(Kind::SESSION_TIMEOUT, 90);
            list.number(Kind::IDLE_TIMEOUT, 0);
            list.text(Kind::MIKROTIK_RATE_LIMIT, "2M/8M");
        });
        let Received::Order { order, .. } = receive(&mut server(), &change) else {
            panic!("no order");
        };
        let due = Change {
            session_timeout_ms: Some(90_000),
            idle_timeout_ms: Some(u64::MAX),
            rate_limit: Some("2M/8M".into()),
            ..Change::default()
        };
        assert_eq!(order, Order::Change(Box::new(due)));
    }

    #[test]
    fn pairs_of_cisco_are_changes_where_they_name_rates() {
        let output = "lcp:interface-config#1=rate-limit output 2000000 8000 8000";
        let input = "lcp:interface-config=rate-limit input access-group 102 512000 8000 8000";
        let change = |pairs: &[&str]| {
            let datagram = request(Code::COA_REQUEST, |list| {
                list.text(Kind::USER_NAME, "mia");
                for pair in pairs {
                    list.text(Kind::Vendor(9, 1), pair);
                }
            });
            (receive(&mut server(), &datagram), datagram)
        };
        let Received::Order { order, .. } = change(&[output, input]).0 else {
            panic!("no order");
        };
        let due = Change {
            cisco_rates: vec![output.into(), input.into()],
            ..Change::default()
        };
        assert_eq!(order, Order::Change(Box::new(due)));
        for other in [
            "lcp:interface-config=ip unnumbered lo0",
            "shell:priv-lvl=15",
            "x",
        ] {
            let (received, datagram) = change(&[output, other]);
            assert_eq!(cause(&received, &datagram), 401, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_cause() {
        let user = |list: &mut AttributeList| list.text(Kind::USER_NAME, "mia");
        let coa = |fill: &dyn Fn(&mut AttributeList)| request(Code::COA_REQUEST, fill);
        for (datagram, due) in [
            (coa(&|list| list.number(Kind::IDLE_TIMEOUT, 1)), 402),
            (coa(&|list| user(list)), 402),
            (
                coa(&|list| {
                    user(list);
                    list.number(Kind::IDLE_TIMEOUT, 1);
                    list.text(Kind::FRAMED_POOL, "other");
                }),
                401,
            ),
            (
                coa(&|list| {
                    user(list);
                    list.text(Kind::NAS_IDENTIFIER, "pptp-2");
                }),
                403,
            ),
            (
                coa(&|list| {
                    user(list);
                    list.address(Kind::NAS_IP_ADDRESS, Ipv4Addr::new(10, 0, 0, 2));
                }),
                403,
            ),
            (
                coa(&|list| {
                    user(list);
                    list.number(Kind::SERVICE_TYPE, AUTHORIZE_ONLY);
                }),
                405,
            ),
        ] {
            assert_eq!(cause(&receive(&mut server(), &datagram), &datagram), due);
        }
    }

    #[test]
    fn strangers_wrong_secrets_and_old_requests_get_no_answer() {
        let mut server = server();
        let good = request(Code::DISCONNECT_REQUEST, |list| {
            list.text(Kind::USER_NAME, "mia");
        });
        let stranger = "192.0.2.8:40000".parse().unwrap();
        let received = server.receive(Time(0), NOW_S, stranger, &good);
        assert!(matches!(received, Received::Nothing));
        let mut list = AttributeList::new();
        list.text(Kind::USER_NAME, "mia");
        let (forged, _) = dynamic_request(Code::DISCONNECT_REQUEST, 5, &list, b"other");
        assert!(matches!(receive(&mut server, &forged), Received::Nothing));
        let old = request(Code::DISCONNECT_REQUEST, |list| {
            list.text(Kind::USER_NAME, "mia");
            list.number(Kind::EVENT_TIMESTAMP, NOW_S - 301);
        });
        assert!(matches!(receive(&mut server, &old), Received::Nothing));
        assert!(matches!(
            receive(&mut server, &good[..30]),
            Received::Nothing
        ));
    }

    #[test]
    fn answers_kept_have_a_bound() {
        let mut server = server();
        for user in 0..2 * ANSWERS_MAX {
            let datagram = request(Code::DISCONNECT_REQUEST, |list| {
                list.text(Kind::USER_NAME, &user.to_string());
            });
            let from = FROM.parse().unwrap();
            server.answer(Time(0), from, &datagram, Ok(())).unwrap();
        }
        assert_eq!(server.answers.len(), ANSWERS_MAX);
    }
}
