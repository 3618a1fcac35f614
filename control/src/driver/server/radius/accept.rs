//! What an answer says: attributes of the session, MPPE's keys, words for the peer.

use std::net::Ipv4Addr;

use super::super::attributes::{AddressChoice, ROUTES_MAX, SessionAttributes, SessionRoute};
use super::super::traffic::names_rates;
use super::requests::{FRAMED, PPP};
use crate::crypto::key_derivation::KeyMaterial;
use crate::proto::auth::{AuthMethod, AuthRequest, MsChapProof};
use crate::proto::link::MppeLimit;
use crate::proto::radius::{Change, change_of};
use crate::wire::radius::{Kind, Packet, reveal_password, reveal_salted};

/// `Framed-IP-Address` that lets the client choose (RFC 2865 5.8).
const CLIENT_CHOOSES: Ipv4Addr = Ipv4Addr::BROADCAST;
/// The same, that lets us choose.
const WE_CHOOSE: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 254);
/// `MS-MPPE-Encryption-Policy` that requires MPPE (RFC 2548 2.4.4).
const ENCRYPTION_REQUIRED: u32 = 2;
/// Bits of `MS-MPPE-Encryption-Types`: L and S of RFC 2548 2.4.5, and that of 56-bit keys, which
/// servers of Windows add.
const TYPE_40: u32 = 0x2;
const TYPE_128: u32 = 0x4;
const TYPE_56: u32 = 0x8;
/// Words for the peer are cut here: they go into one CHAP packet.
const MESSAGE_CHARS_MAX: usize = 200;

/// An Access-Accept.
pub(super) struct Accepted {
    pub(super) attributes: SessionAttributes,
    /// The network that `Framed-IP-Netmask` makes of the client's address, when it is more than
    /// that.
    pub(super) network: Option<SessionRoute>,
    pub(super) proof: Option<MsChapProof>,
    pub(super) message: Option<String>,
}

/// A proved answer to `request`, and what is needed to read what it hides.
#[derive(Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) packet: Packet<'a>,
    /// Of the request.
    pub(super) authenticator: &'a [u8; 16],
    pub(super) secret: &'a [u8],
    pub(super) request: &'a AuthRequest,
}

impl Answer<'_> {
    /// Reads an Access-Accept.
    ///
    /// # Errors
    /// Why the session cannot be what the server wants it to be.
    pub(super) fn accepted(self) -> Result<Accepted, &'static str> {
        let packet = self.packet;
        let is_other = |kind, ours| packet.number(kind).is_some_and(|given| given != ours);
        if is_other(Kind::SERVICE_TYPE, FRAMED) || is_other(Kind::FRAMED_PROTOCOL, PPP) {
            return Err("RADIUS: the server wants another service than PPP for this user");
        }
        let mut attributes = SessionAttributes {
            user: packet
                .text(Kind::USER_NAME)
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| self.request.peer_name.clone()),
            pool: packet.text(Kind::FRAMED_POOL),
            routes: packet
                .find_all(Kind::FRAMED_ROUTE)
                .filter_map(|text| parse_route(std::str::from_utf8(text).ok()?))
                .take(ROUTES_MAX)
                .collect(),
            dns: [
                packet.address(Kind::MS_PRIMARY_DNS_SERVER),
                packet.address(Kind::MS_SECONDARY_DNS_SERVER),
            ],
            wins: [
                packet.address(Kind::MS_PRIMARY_NBNS_SERVER),
                packet.address(Kind::MS_SECONDARY_NBNS_SERVER),
            ],
            mppe: mppe_limit(packet),
            ..SessionAttributes::default()
        };
        apply(&mut attributes, change_of(packet));
        let mut network = None;
        match packet.address(Kind::FRAMED_IP_ADDRESS) {
            None | Some(WE_CHOOSE | Ipv4Addr::UNSPECIFIED) => {}
            Some(CLIENT_CHOOSES) => attributes.address = AddressChoice::Client,
            Some(address) => {
                attributes.address = AddressChoice::Fixed(address);
                let mask = packet.address(Kind::FRAMED_IP_NETMASK);
                network = mask
                    .and_then(prefix_len)
                    .filter(|prefix_len| (1..32).contains(prefix_len))
                    .map(|prefix_len| SessionRoute::around(address, prefix_len, None));
            }
        }
        Ok(Accepted {
            attributes,
            network,
            proof: self.proof()?,
            message: self.reply_message(),
        })
    }

    /// `MS-CHAP-Error`'s code, when there is one, and words for the peer.
    pub(super) fn rejected(self) -> (Option<u32>, Option<String>) {
        let error = self.packet.find(Kind::MS_CHAP_ERROR);
        let error = error.and_then(|value| value.get(1..)).unwrap_or_default();
        let error = String::from_utf8_lossy(error).into_owned();
        let code = error
            .split_once("E=")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|digits| digits.parse().ok());
        let words = error.split_once("M=").map(|(_, words)| clean(words));
        let words = self.reply_message().or(words);
        (code, words.filter(|words| !words.is_empty()))
    }

    fn reply_message(self) -> Option<String> {
        let octets = self.packet.joined(Kind::REPLY_MESSAGE);
        (!octets.is_empty()).then(|| clean(&String::from_utf8_lossy(&octets)))
    }

    /// What MS-CHAPv2's Success says, and what MPPE's keys are made of.
    fn proof(self) -> Result<Option<MsChapProof>, &'static str> {
        let (authenticator_response, key_material) = match self.request.method {
            AuthMethod::Pap | AuthMethod::ChapMd5 => return Ok(None),
            AuthMethod::Eap => (String::new(), self.given_keys()),
            AuthMethod::MsChapV1 => (String::new(), self.mschap_v1_keys()),
            AuthMethod::MsChapV2 => (self.authenticator_response()?, self.given_keys()),
        };
        Ok(Some(MsChapProof {
            authenticator_response,
            key_material,
        }))
    }

    /// RFC 2548 2.3.3: Ident, and 42 octets of text.
    fn authenticator_response(self) -> Result<String, &'static str> {
        let missing = "RADIUS: the server's answer has no MS-CHAP2-Success for this client";
        let value = self.packet.find(Kind::MS_CHAP2_SUCCESS);
        match value.and_then(<[u8]>::split_first) {
            Some((ident, text)) if *ident == self.request.id && text.starts_with(b"S=") => {
                let text = text.get(..42).ok_or(missing)?;
                Ok(String::from_utf8_lossy(text).into_owned())
            }
            _ => Err(missing),
        }
    }

    /// What is the server's to send with is ours to send with (RFC 2548 2.4.2).
    fn given_keys(self) -> Option<KeyMaterial> {
        let key = |kind| {
            let value = self.packet.find(kind)?;
            let key = reveal_salted(value, self.secret, self.authenticator)?;
            // EAP's are longer (RFC 3079 4, RFC 5216 2.3).
            key.get(..16)?.try_into().ok()
        };
        Some(KeyMaterial::Given {
            send: key(Kind::MS_MPPE_SEND_KEY)?,
            receive: key(Kind::MS_MPPE_RECV_KEY)?,
        })
    }

    /// RFC 2548 2.4.1: 8 octets of the LM hash, 16 of the hash of the NT hash, and padding.
    fn mschap_v1_keys(self) -> Option<KeyMaterial> {
        let value = self.packet.find(Kind::MS_CHAP_MPPE_KEYS)?;
        let keys = reveal_password(value, self.secret, self.authenticator)?;
        Some(KeyMaterial::V1 {
            lm_password_hash: keys.get(..8)?.try_into().ok()?,
            nt_password_hash_hash: keys.get(8..24)?.try_into().ok()?,
            challenge: self.request.challenge.as_slice().try_into().ok()?,
        })
    }
}

/// RFC 2548 2.4.4 and 2.4.5. Without Types, those of the configuration may be used.
fn mppe_limit(packet: Packet<'_>) -> MppeLimit {
    let types = packet.number(Kind::MS_MPPE_ENCRYPTION_TYPES);
    let denies = |bit| types.is_some_and(|types| types & bit == 0);
    MppeLimit {
        require: packet.number(Kind::MS_MPPE_ENCRYPTION_POLICY) == Some(ENCRYPTION_REQUIRED),
        deny_40: denies(TYPE_40),
        deny_56: denies(TYPE_56),
        deny_128: denies(TYPE_128),
    }
}

/// Changes what a change is about.
pub(super) fn apply(attributes: &mut SessionAttributes, change: Change) {
    fn put<T>(place: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *place = new;
        }
    }
    put(
        &mut attributes.session_timeout_ms,
        change.session_timeout_ms,
    );
    put(&mut attributes.idle_timeout_ms, change.idle_timeout_ms);
    put(
        &mut attributes.interim_interval_ms,
        change.interim_interval_ms,
    );
    if names_rates(&change) {
        attributes.rate_limit = None;
        (attributes.wispr_up_bps, attributes.wispr_down_bps) = (None, None);
        attributes.filter_id = None;
        attributes.cisco_rates = change.cisco_rates;
    }
    put(&mut attributes.filter_id, change.filter_id);
    put(&mut attributes.rate_limit, change.rate_limit);
    put(&mut attributes.wispr_up_bps, change.wispr_up_bps);
    put(&mut attributes.wispr_down_bps, change.wispr_down_bps);
    put(&mut attributes.quota, change.quota);
    if let Some(class) = change.class {
        attributes.class = class;
    }
}

/// `Framed-Route` (RFC 2865 5.22): `192.168.1.0/24 192.168.1.1 1`. The router is the session,
/// whatever it says; without a prefix length, the network's class gives it.
fn parse_route(text: &str) -> Option<SessionRoute> {
    let mut words = text.split_ascii_whitespace();
    let (address, prefix_len) = match words.next()?.split_once('/') {
        Some((address, prefix_len)) => (address.parse().ok()?, prefix_len.parse().ok()?),
        None => words_of_class(text.split_ascii_whitespace().next()?)?,
    };
    let _router = words.next();
    let metric = words.next().and_then(|word| word.parse().ok());
    // Nobody means to give this machine's own way out to a client.
    (1..=32)
        .contains(&prefix_len)
        .then(|| SessionRoute::around(address, prefix_len, metric))
}

fn words_of_class(word: &str) -> Option<(Ipv4Addr, u8)> {
    let address: Ipv4Addr = word.parse().ok()?;
    let prefix_len = match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        224.. => 32,
    };
    Some((address, prefix_len))
}

fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    let ones = mask.to_bits().leading_ones();
    let is_mask = ones + mask.to_bits().trailing_zeros() >= 32;
    u8::try_from(ones).ok().filter(|_| is_mask)
}

fn clean(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    text.take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::auth::Secret;
    use crate::wire::radius::{AttributeList, Code, access_request, hide_salted, reply};

    const AUTHENTICATOR: [u8; 16] = [6; 16];
    const SECRET: &[u8] = b"shared";

    fn request(method: AuthMethod) -> AuthRequest {
        AuthRequest {
            method,
            id: 0x42,
            peer_name: "mia".into(),
            our_name: "zidler".into(),
            challenge: vec![0; 16],
            response: Secret::new(Vec::new()),
        }
    }

    fn read<T>(
        code: Code,
        method: AuthMethod,
        fill: impl FnOnce(&mut AttributeList),
        read: impl FnOnce(Answer<'_>) -> T,
    ) -> T {
        let asked = access_request(1, &AUTHENTICATOR, &AttributeList::new(), None, SECRET);
        let mut list = AttributeList::new();
        fill(&mut list);
        let octets = reply(code, Packet::parse(&asked).unwrap(), &list, SECRET);
        read(Answer {
            packet: Packet::parse(&octets).unwrap(),
            authenticator: &AUTHENTICATOR,
            secret: SECRET,
            request: &request(method),
        })
    }

    fn accepted(
        method: AuthMethod,
        fill: impl FnOnce(&mut AttributeList),
    ) -> Result<Accepted, &'static str> {
        read(Code::ACCESS_ACCEPT, method, fill, |it| it.accepted())
    }

    #[test]
    fn addresses_stand_for_what_rfc_2865_says() {
        let choice = |address: Ipv4Addr| {
            let fill = |list: &mut AttributeList| list.address(Kind::FRAMED_IP_ADDRESS, address);
            accepted(AuthMethod::Pap, fill).unwrap().attributes.address
        };
        assert_eq!(choice(Ipv4Addr::BROADCAST), AddressChoice::Client);
        assert_eq!(choice(WE_CHOOSE), AddressChoice::Pool);
        let fixed = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(choice(fixed), AddressChoice::Fixed(fixed));
    }

    #[test]
    fn a_netmask_makes_a_network_of_a_fixed_address_only() {
        let network = |address: &str, mask: &str| {
            let fill = |list: &mut AttributeList| {
                list.address(Kind::FRAMED_IP_ADDRESS, address.parse().unwrap());
                list.address(Kind::FRAMED_IP_NETMASK, mask.parse().unwrap());
            };
            accepted(AuthMethod::Pap, fill).unwrap().network
        };
        let due = SessionRoute::around(Ipv4Addr::new(10, 9, 0, 1), 24, None);
        assert_eq!(network("10.9.0.1", "255.255.255.0"), Some(due));
        assert_eq!(network("10.9.0.1", "255.255.255.255"), None);
        assert_eq!(network("10.9.0.1", "255.0.255.0"), None);
        assert_eq!(network("255.255.255.254", "255.255.255.0"), None);
    }

    /// The examples of RFC 2865 5.22, and what operators write.
    #[test]
    fn routes_are_read_as_operators_write_them() {
        let route = |text| parse_route(text).map(|it| (it.destination.to_string(), it.prefix_len));
        let due = |address: &str, prefix_len| Some((address.to_owned(), prefix_len));
        assert_eq!(
            route("192.168.1.0/24 192.168.1.1 1 2 -1 3 400"),
            due("192.168.1.0", 24)
        );
        assert_eq!(route("192.168.1.0 0.0.0.0 1"), due("192.168.1.0", 24));
        assert_eq!(route("10.1.0.0"), due("10.0.0.0", 8));
        assert_eq!(route("172.16.5.0/30"), due("172.16.5.0", 30));
        assert_eq!(parse_route("10.0.0.0/8 0.0.0.0 7").unwrap().metric, Some(7));
        for text in [
            "",
            "x",
            "10.0.0.0/33",
            "0.0.0.0/0",
            "10.0.0.0/x",
            "2001:db8::/32",
        ] {
            assert_eq!(route(text), None, "{text}");
        }
    }

    #[test]
    fn mschap_v2_needs_the_success_of_this_exchange() {
        let with = |ident: u8, text: &str| {
            let value = [&[ident][..], text.as_bytes()].concat();
            accepted(AuthMethod::MsChapV2, |list| {
                list.octets(Kind::MS_CHAP2_SUCCESS, &value);
                let key = hide_salted(&[1; 16], 7, SECRET, &AUTHENTICATOR);
                list.octets(Kind::MS_MPPE_SEND_KEY, &key);
                let key = hide_salted(&[2; 16], 8, SECRET, &AUTHENTICATOR);
                list.octets(Kind::MS_MPPE_RECV_KEY, &key);
            })
        };
        let text = format!("S={}", "A".repeat(40));
        let proof = with(0x42, &text).unwrap().proof.unwrap();
        assert_eq!(proof.authenticator_response, text);
        let Some(KeyMaterial::Given { send, receive }) = &proof.key_material else {
            panic!("no keys");
        };
        assert_eq!((send, receive), (&[1; 16], &[2; 16]));
        assert!(with(0x41, &text).is_err());
        assert!(with(0x42, "S=AA").is_err());
        assert!(accepted(AuthMethod::MsChapV2, |_| {}).is_err());
    }

    /// RFC 2548 2.4.4: 1 is allowed, 2 required. 2.4.5: bit 1 is 40-bit keys, bit 2 128-bit ones.
    /// Windows' usual policy names all strengths by 14.
    #[test]
    fn policy_and_types_of_mppe_are_those_of_rfc_2548() {
        let limit = |policy: Option<u32>, types: Option<u32>| {
            let fill = |list: &mut AttributeList| {
                if let Some(policy) = policy {
                    list.number(Kind::Vendor(311, 7), policy);
                }
                if let Some(types) = types {
                    list.number(Kind::Vendor(311, 8), types);
                }
            };
            let limit = accepted(AuthMethod::Pap, fill).unwrap().attributes.mppe;
            limit.to_string()
        };
        for (policy, types, due) in [
            (None, None, "allowed (128 or 56 or 40 bit)"),
            (Some(1), None, "allowed (128 or 56 or 40 bit)"),
            (Some(2), None, "required (128 or 56 or 40 bit)"),
            (Some(1), Some(0), "allowed (no strength)"),
            (Some(1), Some(2), "allowed (40 bit)"),
            (Some(2), Some(4), "required (128 bit)"),
            (Some(2), Some(6), "required (128 or 40 bit)"),
            (Some(2), Some(14), "required (128 or 56 or 40 bit)"),
            (None, Some(4), "allowed (128 bit)"),
        ] {
            assert_eq!(
                limit(policy, types),
                format!("MPPE is {due}"),
                "{policy:?} {types:?}"
            );
        }
    }

    #[test]
    fn another_service_is_refused() {
        let login = |list: &mut AttributeList| list.number(Kind::SERVICE_TYPE, 1);
        assert!(accepted(AuthMethod::Pap, login).is_err());
        let slip = |list: &mut AttributeList| list.number(Kind::FRAMED_PROTOCOL, 2);
        assert!(accepted(AuthMethod::Pap, slip).is_err());
    }

    #[test]
    fn a_rejection_says_why() {
        let rejected = |text: &str, message: &str| {
            let value = [&[0x42][..], text.as_bytes()].concat();
            let fill = |list: &mut AttributeList| {
                list.octets(Kind::MS_CHAP_ERROR, &value);
                list.text(Kind::REPLY_MESSAGE, message);
            };
            read(Code::ACCESS_REJECT, AuthMethod::MsChapV2, fill, |it| {
                it.rejected()
            })
        };
        let text = "E=648 R=0 C=00112233445566778899aabbccddeeff V=3 M=Too old";
        assert_eq!(rejected(text, ""), (Some(648), Some("Too old".into())));
        let due = (Some(691), Some("Pay\u{fffd} your bill".into()));
        assert_eq!(rejected("E=691 R=1", "Pay\u{fffd} your\n bill"), due);
        assert_eq!(rejected("", ""), (None, None));
    }
}
