//! What a request says of a call: the attributes that accel-ppp's and pppd's RADIUS modules send.

use std::net::Ipv4Addr;

use dataplane::counters::SessionCounters;
use dataplane::program::CallId;

use crate::proto::auth::{AuthMethod, AuthRequest, Secret};
use crate::proto::ending::Ending;
use crate::wire::chap::{MsChapV1Response, MsChapV2Response};
use crate::wire::radius::{AcctTerminateCause, AttributeList, Kind, PASSWORD_BYTES_MAX};

/// `Service-Type` Framed and `Framed-Protocol` PPP (RFC 2865 5.6 and 5.7).
pub(super) const FRAMED: u32 = 2;
pub(super) const PPP: u32 = 1;
/// `NAS-Port-Type` Virtual (RFC 2865 5.41).
const VIRTUAL: u32 = 5;
/// `Tunnel-Type` PPTP and `Tunnel-Medium-Type` IPv4 (RFC 2868 3.1 and 3.2), with a tag of 0 in front.
const PPTP: u32 = 1;
const IPV4: u32 = 1;
/// `Acct-Authentic` (RFC 2866 5.6).
const BY_RADIUS: u32 = 1;
const BY_SECRETS: u32 = 2;
/// What calls end with when the endpoint is told to end them all.
pub(super) const SHUTTING_DOWN: &str = "shutting down";
/// Longest User-Name; a longer one would be another's when it is cut.
const NAME_BYTES_MAX: usize = 253;

/// Who this server says it is.
pub(super) struct Nas {
    pub(super) identifier: String,
    pub(super) address: Option<Ipv4Addr>,
}

/// One call, as requests describe it.
pub(super) struct Facts<'a> {
    pub(super) call_id: CallId,
    /// The client's outer address.
    pub(super) calling: &'a str,
    /// Ours.
    pub(super) called: Option<Ipv4Addr>,
    pub(super) acct_session_id: &'a str,
}

/// A session, as accounting describes it.
pub(super) struct Account<'a> {
    pub(super) user: &'a str,
    pub(super) class: &'a [Vec<u8>],
    pub(super) address: Option<Ipv4Addr>,
    pub(super) by_secrets: bool,
}

impl Nas {
    /// `called` is the address that the client called, where there is a client.
    pub(super) fn describe(&self, list: &mut AttributeList, called: Option<Ipv4Addr>) {
        list.text(Kind::NAS_IDENTIFIER, &self.identifier);
        if let Some(address) = self.address.or(called) {
            list.address(Kind::NAS_IP_ADDRESS, address);
        }
    }

    fn describe_call(&self, list: &mut AttributeList, facts: &Facts<'_>) {
        self.describe(list, facts.called);
        list.number(Kind::NAS_PORT, facts.call_id.0.into());
        list.text(Kind::NAS_PORT_ID, &format!("pptp/{}", facts.call_id.0));
        list.number(Kind::NAS_PORT_TYPE, VIRTUAL);
        list.number(Kind::SERVICE_TYPE, FRAMED);
        list.number(Kind::FRAMED_PROTOCOL, PPP);
        list.text(Kind::CALLING_STATION_ID, facts.calling);
        list.number(Kind::TUNNEL_TYPE, PPTP);
        list.number(Kind::TUNNEL_MEDIUM_TYPE, IPV4);
        list.text(Kind::TUNNEL_CLIENT_ENDPOINT, facts.calling);
        if let Some(called) = facts.called {
            list.text(Kind::CALLED_STATION_ID, &called.to_string());
            list.text(Kind::TUNNEL_SERVER_ENDPOINT, &called.to_string());
        }
        list.text(Kind::ACCT_SESSION_ID, facts.acct_session_id);
    }

    /// What asks whether the client may come in, and the password when it is to be hidden; or why
    /// it cannot be asked.
    pub(super) fn access(
        &self,
        facts: &Facts<'_>,
        request: &AuthRequest,
        state: Option<&[u8]>,
        mtu: u16,
    ) -> Result<(AttributeList, Option<Secret>), &'static str> {
        if request.peer_name.is_empty() || request.peer_name.len() > NAME_BYTES_MAX {
            return Err("RADIUS: a name has 1 to 253 octets");
        }
        let mut list = AttributeList::new();
        list.text(Kind::USER_NAME, &request.peer_name);
        self.describe_call(&mut list, facts);
        let malformed = "RADIUS: the response is malformed";
        let (response, challenge) = (request.response.as_bytes(), &request.challenge);
        let mut password = None;
        match request.method {
            AuthMethod::Pap if response.len() > PASSWORD_BYTES_MAX => {
                return Err("RADIUS: a password has at most 128 octets");
            }
            AuthMethod::Pap => password = Some(request.response.clone()),
            AuthMethod::ChapMd5 => {
                let value = [&[request.id][..], response].concat();
                list.octets(Kind::CHAP_PASSWORD, &value);
                list.octets(Kind::CHAP_CHALLENGE, challenge);
            }
            AuthMethod::MsChapV1 => {
                let it = MsChapV1Response::parse(response).map_err(|_| malformed)?;
                // RFC 2548 2.1.3: Ident, Flags, LM-Response, NT-Response.
                let head = [request.id, it.use_nt_response];
                let value = [&head[..], &it.lm_response, &it.nt_response].concat();
                list.octets(Kind::MS_CHAP_CHALLENGE, challenge);
                list.octets(Kind::MS_CHAP_RESPONSE, &value);
            }
            AuthMethod::MsChapV2 => {
                let it = MsChapV2Response::parse(response).map_err(|_| malformed)?;
                // RFC 2548 2.3.2: Ident, Flags, Peer-Challenge, Reserved, Response.
                let head = [request.id, it.flags];
                let parts = [&head[..], &it.peer_challenge, &[0; 8], &it.nt_response];
                list.octets(Kind::MS_CHAP_CHALLENGE, challenge);
                list.octets(Kind::MS_CHAP2_RESPONSE, &parts.concat());
            }
            AuthMethod::Eap => {
                list.number(Kind::FRAMED_MTU, mtu.into());
                list.split(Kind::EAP_MESSAGE, response);
            }
        }
        if let Some(state) = state {
            list.octets(Kind::STATE, state);
        }
        Ok((list, password))
    }

    /// What every record of a session says; how much it carried comes on top.
    pub(super) fn account(&self, facts: &Facts<'_>, account: &Account<'_>) -> AttributeList {
        let mut list = AttributeList::new();
        list.text(Kind::USER_NAME, account.user);
        self.describe_call(&mut list, facts);
        for class in account.class {
            list.octets(Kind::CLASS, class);
        }
        if let Some(address) = account.address {
            list.address(Kind::FRAMED_IP_ADDRESS, address);
        }
        let authentic = if account.by_secrets {
            BY_SECRETS
        } else {
            BY_RADIUS
        };
        list.number(Kind::ACCT_AUTHENTIC, authentic);
        list
    }
}

/// What a session has carried. Input is what the client sent (RFC 2866 5.3).
pub(super) fn count(list: &mut AttributeList, seconds: u64, counters: &SessionCounters) {
    list.number(Kind::ACCT_SESSION_TIME, low(seconds));
    let octets = [
        (
            Kind::ACCT_INPUT_OCTETS,
            Kind::ACCT_INPUT_GIGAWORDS,
            counters.received_bytes.get(),
        ),
        (
            Kind::ACCT_OUTPUT_OCTETS,
            Kind::ACCT_OUTPUT_GIGAWORDS,
            counters.sent_bytes.get(),
        ),
    ];
    for (octets, gigawords, count) in octets {
        list.number(octets, low(count));
        list.number(gigawords, low(count >> 32));
    }
    list.number(
        Kind::ACCT_INPUT_PACKETS,
        low(counters.received_packets.get()),
    );
    list.number(Kind::ACCT_OUTPUT_PACKETS, low(counters.sent_packets.get()));
}

/// The lower 32 bits: counters of RADIUS wrap.
const fn low(number: u64) -> u32 {
    (number & 0xFFFF_FFFF) as u32
}

/// What the end of a session is called.
pub(super) fn terminate_cause(ending: &Ending) -> AcctTerminateCause {
    match ending {
        Ending::LocalRequest(why) if *why == Ending::IdleTimeout.to_string() => {
            AcctTerminateCause::IdleTimeout
        }
        Ending::LocalRequest(why) if *why == Ending::ConnectTimeout.to_string() => {
            AcctTerminateCause::SessionTimeout
        }
        Ending::LocalRequest(why) if *why == Ending::TrafficLimit.to_string() => {
            AcctTerminateCause::NasRequest
        }
        Ending::LocalRequest(why) if why == super::super::admission::REPLACED => {
            AcctTerminateCause::PortPreempted
        }
        Ending::LocalRequest(why) if why == SHUTTING_DOWN => AcctTerminateCause::AdminReboot,
        Ending::LocalRequest(_) => AcctTerminateCause::AdminReset,
        Ending::IdleTimeout => AcctTerminateCause::IdleTimeout,
        Ending::ConnectTimeout => AcctTerminateCause::SessionTimeout,
        // As pppd has it.
        Ending::TrafficLimit => AcctTerminateCause::NasRequest,
        Ending::PeerRequest(_) => AcctTerminateCause::UserRequest,
        Ending::ControlLost(_)
        | Ending::ControlTimeout(_)
        | Ending::GreSilent { .. }
        | Ending::PeerDead(_)
        | Ending::Unreachable { .. } => AcctTerminateCause::LostCarrier,
        Ending::MppeRefused { .. } | Ending::PeerIncompatible(_) => {
            AcctTerminateCause::ServiceUnavailable
        }
        Ending::NegotiationFailed(_)
        | Ending::NotPptp(_)
        | Ending::LoopedBack
        | Ending::PeerAuthFailed(_) => AcctTerminateCause::UserError,
        Ending::AuthFailed(_)
        | Ending::NoAddresses(_)
        | Ending::NoSecret { .. }
        | Ending::PasswordExpired { .. }
        | Ending::PasswordNotChanged(_)
        | Ending::Refused { .. } => AcctTerminateCause::NasError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::radius::{Packet, access_request};

    const FACTS: Facts<'_> = Facts {
        call_id: CallId(700),
        calling: "198.51.100.9",
        called: Some(Ipv4Addr::new(192, 0, 2, 1)),
        acct_session_id: "00ff",
    };

    fn nas() -> Nas {
        Nas {
            identifier: "pptp-1".into(),
            address: None,
        }
    }

    fn request(method: AuthMethod, response: Vec<u8>) -> AuthRequest {
        AuthRequest {
            method,
            id: 0x42,
            peer_name: "mia".into(),
            our_name: "zidler".into(),
            challenge: (0..16).collect(),
            response: Secret::new(response),
        }
    }

    fn asked(request: &AuthRequest) -> bytes::Bytes {
        let (list, password) = nas()
            .access(&FACTS, request, Some(b"so far"), 1400)
            .unwrap();
        let password = password.as_ref().map(Secret::as_bytes);
        access_request(1, &[9; 16], &list, password, b"secret")
    }

    #[test]
    fn a_request_says_who_calls_and_how() {
        let octets = asked(&request(AuthMethod::Pap, b"password".to_vec()));
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.text(Kind::USER_NAME).unwrap(), "mia");
        assert_eq!(
            packet.text(Kind::CALLING_STATION_ID).unwrap(),
            "198.51.100.9"
        );
        assert_eq!(packet.address(Kind::NAS_IP_ADDRESS), FACTS.called);
        assert_eq!(packet.number(Kind::NAS_PORT), Some(700));
        assert_eq!(packet.number(Kind::TUNNEL_TYPE), Some(1));
        assert_eq!(packet.find(Kind::STATE), Some(&b"so far"[..]));
        assert_eq!(packet.find(Kind::USER_PASSWORD).unwrap().len(), 16);
    }

    /// RFC 2548 2.3.2, with a response as RFC 2759 4 has it.
    #[test]
    fn an_mschap_v2_response_is_put_in_the_order_of_rfc_2548() {
        let mut value = vec![0xAA; 16];
        value.extend([0; 8]);
        value.extend([0xBB; 24]);
        value.push(0);
        let octets = asked(&request(AuthMethod::MsChapV2, value));
        let packet = Packet::parse(&octets).unwrap();
        let found = packet.find(Kind::MS_CHAP2_RESPONSE).unwrap();
        assert_eq!(found.len(), 50);
        assert_eq!((found[0], found[1]), (0x42, 0));
        assert_eq!((found[2], found[17], found[18]), (0xAA, 0xAA, 0));
        assert_eq!(found[26..], [0xBB; 24]);
    }

    #[test]
    fn names_passwords_and_responses_that_do_not_fit_are_not_asked_about() {
        let refused = |request: &AuthRequest| nas().access(&FACTS, request, None, 1400).is_err();
        assert!(refused(&request(AuthMethod::Pap, vec![b'x'; 129])));
        assert!(!refused(&request(AuthMethod::Pap, vec![b'x'; 128])));
        assert!(refused(&request(AuthMethod::MsChapV2, vec![0; 48])));
        let mut long = request(AuthMethod::Pap, Vec::new());
        long.peer_name = "x".repeat(254);
        assert!(refused(&long));
    }

    #[test]
    fn counters_beyond_four_gigabytes_carry_over() {
        let counters = SessionCounters::default();
        counters.received_bytes.add((3 << 32) + 17);
        counters.sent_bytes.add(5);
        let mut list = AttributeList::new();
        count(&mut list, 60, &counters);
        let octets = access_request(1, &[9; 16], &list, None, b"secret");
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.number(Kind::ACCT_INPUT_OCTETS), Some(17));
        assert_eq!(packet.number(Kind::ACCT_INPUT_GIGAWORDS), Some(3));
        assert_eq!(packet.number(Kind::ACCT_OUTPUT_OCTETS), Some(5));
        assert_eq!(packet.number(Kind::ACCT_OUTPUT_GIGAWORDS), Some(0));
    }
}
