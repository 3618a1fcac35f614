//! The captured negotiations, replayed against one of our ends: what the real peer sent goes in,
//! and what comes out must be, octet for octet, what the real pppd in our place sent.
//!
//! Magic numbers, CHAP identifiers, and what follows from a random challenge differ by nature: the
//! peer's frames are changed to ours on the way in, and our frames back on the way out. IPV6CP,
//! which we do not speak, is left out, and so is the end, which the test does not play.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use control::crypto::challenge_response::generate_authenticator_response;
use control::proto::Time;
use control::proto::auth::{AuthMethod, AuthMethods, MsChapProof, Secret, Secrets, Verdict};
use control::proto::ending::Ending;
use control::proto::link::{
    Addresses, LcpConfig, Link, LinkConfig, LinkOutput, LinkRole, MppeConfig, MppeLimit, Network,
};
use control::wire::chap::{ChapPacket, MsChapV2Response};
use control::wire::cp::{ConfigOption, ControlPacket};
use control::wire::lcp::LcpOption;
use control::wire::log::describe;
use control::wire::ppp::{Frame, Protocol};
use sim::capture::{Capture, Side};

const PASSWORD: &[u8] = b"mia123";

#[derive(Debug)]
struct Known;

impl Secrets for Known {
    fn find(&self, client: &str, server: &str, _pap: bool) -> Option<Secret> {
        let known = client == "mia" && server == "zidler";
        known.then(|| Secret::new(PASSWORD.to_vec()))
    }

    fn origin(&self, _pap: bool) -> String {
        "chap-secrets".into()
    }
}

fn mppe(bits: u32) -> Option<MppeConfig> {
    Some(MppeConfig {
        require: true,
        allow_40: bits == 40,
        allow_56: false,
        allow_128: bits == 128,
        allow_stateful: false,
        prefer_stateful: false,
    })
}

fn config(side: Side, method: AuthMethod, mppe: Option<MppeConfig>) -> LinkConfig {
    let server = Ipv4Addr::new(192, 168, 254, 230);
    let only = |method| AuthMethods {
        eap: false,
        mschap_v2: method == AuthMethod::MsChapV2,
        mschap_v1: method == AuthMethod::MsChapV1,
        chap_md5: method == AuthMethod::ChapMd5,
        pap: method == AuthMethod::Pap,
    };
    let (name, remote_name, require, addresses) = match side {
        Side::Client => {
            let addresses = Addresses {
                ask_dns: true,
                ..Addresses::default()
            };
            ("mia", Some("zidler".into()), AuthMethods::NONE, addresses)
        }
        Side::Server => {
            let addresses = Addresses {
                local: Some(server),
                remote: Some(Ipv4Addr::new(192, 168, 254, 231)),
                dns: [Some(server); 2],
                ..Addresses::default()
            };
            ("zidler", None, only(method), addresses)
        }
    };
    LinkConfig {
        name: name.into(),
        remote_name,
        require,
        allow: AuthMethods::ALL,
        eap_pass_through: false,
        secrets: Arc::new(Known),
        lcp: LcpConfig::default(),
        mppe,
        addresses,
        ipv6: None,
    }
}

/// One of our ends in the place of the one that was captured.
struct Replay {
    link: Link,
    theirs: Random,
    ours: Random,
    v2_response: Option<MsChapV2Response>,
    v2_challenge: [u8; 16],
    /// Frames that came out and were not expected yet, as the captured end would have sent them.
    sent: Vec<Vec<u8>>,
    network: Option<Network>,
    ending: Option<Ending>,
}

/// What is random in the frames of the end that is replaced.
#[derive(Clone, Copy, Default)]
struct Random {
    magic: Option<u32>,
    chap_id: Option<u8>,
}

impl Replay {
    fn new(config: LinkConfig, side: Side) -> Self {
        let role = match side {
            Side::Client => LinkRole::Caller,
            Side::Server => LinkRole::Callee,
        };
        let mut link = Link::new(Arc::new(config), role, [3; 32]);
        link.handle_up(Time(0));
        Self {
            link,
            theirs: Random::default(),
            ours: Random::default(),
            v2_response: None,
            v2_challenge: [0; 16],
            sent: Vec::new(),
            network: None,
            ending: None,
        }
    }

    /// A frame of the captured peer comes in.
    fn receive(&mut self, frame: &[u8]) {
        let mut frame = exchange(frame, self.theirs, self.ours);
        let parsed = Frame::parse(&frame).expect("a captured frame");
        if parsed.protocol == Protocol::CHAP {
            match ChapPacket::parse(parsed.payload) {
                Ok(ChapPacket::Challenge { value, .. }) if value.len() == 16 => {
                    self.v2_challenge.copy_from_slice(value);
                }
                Ok(ChapPacket::Success { id, .. }) if self.v2_response.is_some() => {
                    let header = frame[..parsed.header_len].to_vec();
                    frame = [header, self.success(id).to_vec()].concat();
                }
                _ => {}
            }
        }
        self.link.handle_frame(Time(1), &frame);
    }

    /// What the captured server would have said to our response.
    fn success(&self, id: u8) -> Bytes {
        let response = self.v2_response.expect("checked");
        let due = generate_authenticator_response(
            PASSWORD,
            &response.nt_response,
            &response.peer_challenge,
            &self.v2_challenge,
            b"mia",
        );
        let message = format!("{due} M=Access granted");
        let message = message.as_bytes();
        ChapPacket::Success { id, message }.to_bytes()
    }

    fn drain(&mut self, verdict: Option<&Verdict>) {
        while let Some(output) = self.link.poll_output() {
            match output {
                LinkOutput::Frame(frame) => {
                    learn(&mut self.ours, &frame);
                    let parsed = Frame::parse(&frame).expect("our own frame");
                    if let Ok(ChapPacket::Response { value, .. }) =
                        ChapPacket::parse(parsed.payload)
                    {
                        self.v2_response = MsChapV2Response::parse(value).ok();
                    }
                    self.sent.push(frame.to_vec());
                }
                LinkOutput::Authenticate { request_id, .. } => {
                    let verdict = verdict.expect("only the server asks").clone();
                    self.link.handle_verdict(Time(1), request_id, verdict);
                }
                LinkOutput::NetworkUp(network) => self.network = Some(network),
                LinkOutput::Terminated(ending) => self.ending = Some(ending),
                _ => {}
            }
        }
    }

    /// The captured end sent this: we must have sent the same.
    #[track_caller]
    fn expect(&mut self, frame: &[u8]) {
        learn(&mut self.theirs, frame);
        let wanted = blank(frame);
        let (ours, theirs) = (self.ours, self.theirs);
        let same = |sent: &Vec<u8>| blank(&exchange(sent, ours, theirs)) == wanted;
        let Some(position) = self.sent.iter().position(same) else {
            let sent: Vec<_> = self
                .sent
                .iter()
                .map(|frame| describe(frame).to_string())
                .collect();
            panic!("{} was not sent, but {sent:#?}", describe(frame));
        };
        self.sent.remove(position);
    }
}

/// Notes the random values of a frame that its sender chose.
fn learn(random: &mut Random, frame: &[u8]) {
    let frame = Frame::parse(frame).expect("a frame");
    let Ok(packet) = ControlPacket::parse(frame.payload) else {
        return;
    };
    match (frame.protocol, packet.code.0) {
        (Protocol::LCP, 1) => {
            let options = LcpOption::parse_all(packet.data).expect("options");
            random.magic = options.iter().find_map(|option| match option {
                LcpOption::Magic(magic) => Some(*magic),
                _ => None,
            });
        }
        (Protocol::CHAP, 1) => random.chap_id = Some(packet.id),
        _ => {}
    }
}

/// `frame` with the random values `from` replaced by `to`.
fn exchange(frame: &[u8], from: Random, to: Random) -> Vec<u8> {
    let mut octets = frame.to_vec();
    let parsed = Frame::parse(frame).expect("a frame");
    match (
        parsed.protocol,
        from.magic.zip(to.magic),
        from.chap_id.zip(to.chap_id),
    ) {
        (Protocol::LCP, Some((from, to)), _) => {
            let found = octets
                .windows(4)
                .position(|word| word == from.to_be_bytes());
            if let Some(at) = found {
                octets[at..at + 4].copy_from_slice(&to.to_be_bytes());
            }
        }
        (Protocol::CHAP, _, Some((from, to))) if octets[parsed.header_len + 1] == from => {
            octets[parsed.header_len + 1] = to;
        }
        _ => {}
    }
    octets
}

/// Protocol and packet of a frame, without what follows from a random challenge: an MS-CHAPv2
/// response, and a challenge. Linux leaves Address and Control out of LCP echoes too, which
/// RFC 1661 6.6 forbids, so the header does not count.
fn blank(frame: &[u8]) -> (Protocol, Vec<u8>) {
    let parsed = Frame::parse(frame).expect("a frame");
    let is_chap = parsed.protocol == Protocol::CHAP;
    let packet = match ChapPacket::parse(parsed.payload) {
        Ok(ChapPacket::Challenge { id, name, .. }) if is_chap => ChapPacket::Challenge {
            id,
            value: &[],
            name,
        }
        .to_bytes()
        .to_vec(),
        // A v2 response has eight zeros behind the peer's challenge, one of v1 has none in front.
        Ok(ChapPacket::Response { id, value, name })
            if is_chap && value.len() == 49 && value[..16] != [0; 16] =>
        {
            ChapPacket::Response {
                id,
                value: &[],
                name,
            }
            .to_bytes()
            .to_vec()
        }
        _ => parsed.payload.to_vec(),
    };
    (parsed.protocol, packet)
}

/// Up to the first IP packet, or to the end when there was none.
fn negotiation(capture: &Capture) -> impl Iterator<Item = (Side, &[u8])> {
    let frames = capture
        .gre
        .iter()
        .map(|packet| (packet.from, &packet.frame[..]));
    let protocol = |frame: &[u8]| Frame::parse(frame).expect("a frame").protocol;
    let is_ip = move |protocol| matches!(protocol, Protocol::COMPRESSED | Protocol::IPV4);
    let without_ipv6 = frames.filter(move |(_, frame)| protocol(frame) != Protocol::IPV6CP);
    // The kernel may send while pppd still negotiates.
    let is_late = move |frame: &[u8]| {
        protocol(frame) == Protocol::LCP && frame.get(4) == Some(&5) && frame.ends_with(b"disabled")
            || frame.ends_with(b"User request")
    };
    without_ipv6
        .filter(move |(_, frame)| !is_ip(protocol(frame)) && protocol(frame) != Protocol::IPV6)
        .take_while(move |(_, frame)| !is_late(frame))
}

fn replay(name: &str, side: Side, config: LinkConfig, verdict: Option<&Verdict>) -> Replay {
    let capture = Capture::load(name);
    let mut replay = Replay::new(config, side);
    replay.drain(verdict);
    let mut due: Vec<&[u8]> = Vec::new();
    for (from, frame) in negotiation(&capture) {
        if from == side {
            learn(&mut replay.theirs, frame);
            due.push(frame);
        } else {
            replay.receive(frame);
            replay.drain(verdict);
        }
    }
    for frame in due {
        replay.expect(frame);
    }
    let rest: Vec<_> = replay
        .sent
        .iter()
        .map(|frame| describe(frame).to_string())
        .collect();
    assert!(rest.is_empty(), "{name}: pppd did not send {rest:#?}");
    replay
}

/// The negotiations that succeed, with options that we have too.
const AGREED: [(&str, AuthMethod, u32); 6] = [
    ("chap-md5", AuthMethod::ChapMd5, 0),
    ("mppe128-stateless", AuthMethod::MsChapV2, 128),
    ("mppe40-stateless", AuthMethod::MsChapV2, 40),
    ("mschapv1", AuthMethod::MsChapV1, 0),
    ("mschapv1-mppe128", AuthMethod::MsChapV1, 128),
    ("pap", AuthMethod::Pap, 0),
];

#[test]
fn our_client_says_to_pptpd_what_pppd_says() {
    for (name, method, bits) in AGREED {
        let mut config = config(Side::Client, method, mppe(bits).filter(|_| bits > 0));
        if name == "mppe128-stateless" {
            config.lcp.pfc = false;
            config.lcp.acfc = false;
        }
        let replay = replay(name, Side::Client, config, None);
        let network = replay
            .network
            .unwrap_or_else(|| panic!("{name} brings no network"));
        assert_eq!(network.local, Ipv4Addr::new(192, 168, 254, 231));
        assert_eq!(network.remote, Ipv4Addr::new(192, 168, 254, 230));
    }
}

#[test]
fn our_server_says_to_pptp_linux_what_pppd_says() {
    for (name, method, bits) in AGREED {
        let config = config(Side::Server, method, mppe(bits).filter(|_| bits > 0));
        // The secrets' word is the captured one: our challenge was another.
        let success = Capture::load(name)
            .frames(Side::Server)
            .find_map(|frame| {
                let frame = Frame::parse(frame).expect("a frame");
                match ChapPacket::parse(frame.payload) {
                    Ok(ChapPacket::Success { message, .. }) if frame.protocol == Protocol::CHAP => {
                        Some(String::from_utf8(message.to_vec()).expect("text"))
                    }
                    _ => None,
                }
            })
            .unwrap_or_else(|| "Login ok".into());
        let (response, message) = success.split_once(" M=").unwrap_or(("", &success));
        let verdict = Verdict::Accept {
            proof: (bits > 0).then(|| MsChapProof {
                authenticator_response: response.into(),
                key_material: Some(control::crypto::key_derivation::KeyMaterial::V2 {
                    master_key: [9; 16],
                }),
            }),
            message: message.into(),
            addresses: config.addresses.clone(),
            mppe: MppeLimit::default(),
        };
        let replay = replay(name, Side::Server, config, Some(&verdict));
        assert!(replay.network.is_some(), "{name} brings no network");
    }
}

#[test]
fn our_client_ends_a_wrong_password_as_pppd_does() {
    let config = config(Side::Client, AuthMethod::MsChapV2, mppe(128));
    let replay = replay("wrong-password", Side::Client, config, None);
    assert_eq!(
        replay.ending,
        Some(Ending::AuthFailed("Access denied".into()))
    );
}
