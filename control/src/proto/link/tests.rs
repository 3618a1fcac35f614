//! Two links joined back to back, in virtual time.

mod eap;
mod encryption;
mod ipv6;
mod joined;
mod mppe_limit;
mod passwords;
mod proofs;
mod refusals;
mod robust;
mod transcripts;

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use dataplane::mppe::keys::{KeyMode, StartKey};

use super::*;
use crate::proto::auth::{AuthMethod, AuthMethods, Secret, Secrets, Verdict, verify};
use crate::wire::chap::ChapPacket;
use crate::wire::log::describe;

const CALLER: usize = 0;
const CALLEE: usize = 1;
/// One way, as in a good network.
const LATENCY_MS: u64 = 5;

const MPPE_128: MppeConfig = MppeConfig {
    require: true,
    allow_40: false,
    allow_56: false,
    allow_128: true,
    allow_stateful: false,
    prefer_stateful: false,
};

/// mia is known by one password, and zidler by another.
#[derive(Clone, Debug)]
struct Known(&'static str);

impl Secrets for Known {
    fn find(&self, client: &str, _server: &str, _pap: bool) -> Option<Secret> {
        let password = match client {
            "mia" => self.0,
            "zidler" => "zidler123",
            _ => return None,
        };
        Some(Secret::new(password.into()))
    }

    fn origin(&self, pap: bool) -> String {
        format!("/etc/ppp/{}-secrets", if pap { "pap" } else { "chap" })
    }
}

/// The how-to's client: its options in /etc/ppp/options.pptp.
fn caller() -> LinkConfig {
    LinkConfig {
        name: "mia".into(),
        remote_name: Some("zidler".into()),
        require: AuthMethods::NONE,
        allow: AuthMethods::ALL,
        eap_pass_through: false,
        secrets: Arc::new(Known("mia123")),
        lcp: LcpConfig {
            pfc: false,
            acfc: false,
            ..LcpConfig::default()
        },
        mppe: Some(MPPE_128),
        addresses: Addresses {
            ask_dns: true,
            ..Addresses::default()
        },
        ipv6: None,
    }
}

/// The how-to's server.
fn callee() -> LinkConfig {
    LinkConfig {
        name: "zidler".into(),
        remote_name: None,
        require: only(AuthMethod::MsChapV2),
        allow: AuthMethods::ALL,
        eap_pass_through: false,
        secrets: Arc::new(Known("mia123")),
        lcp: LcpConfig::default(),
        mppe: Some(MPPE_128),
        addresses: callee_addresses(),
        ipv6: None,
    }
}

fn callee_addresses() -> Addresses {
    let server = Ipv4Addr::new(192, 168, 254, 230);
    Addresses {
        local: Some(server),
        remote: Some(Ipv4Addr::new(192, 168, 254, 231)),
        dns: [Some(server); 2],
        ..Addresses::default()
    }
}

fn only(method: AuthMethod) -> AuthMethods {
    let mut others = AuthMethods::ALL;
    for other in AuthMethod::ALL {
        if other != method {
            others = others.without(other);
        }
    }
    others
}

/// One end, and what it has put out.
struct End {
    link: Link,
    secrets: Arc<dyn Secrets>,
    lines: Vec<String>,
    receive: Option<MppeSpec>,
    send: Option<MppeSpec>,
    resets: u32,
    network: Option<Network>,
    ipv6: Option<Ipv6Network>,
    /// The last `PrepareNetwork`.
    prepared: Option<Network>,
    /// `NetworkUp` was ever said.
    was_up: bool,
    endings: Vec<Ending>,
    has_hung_up: bool,
    /// Kept back until `answer`.
    holds_verdicts: bool,
    /// What its verdicts say of MPPE.
    mppe_limit: MppeLimit,
    asked: Vec<(u32, AuthRequest)>,
}

/// What the wire does with a frame that one end sends: it may change it, or lose it.
type Wire = Box<dyn FnMut(usize, Bytes) -> Option<Bytes>>;

struct Pair {
    ends: [End; 2],
    now: Time,
    in_flight: VecDeque<(Time, usize, Bytes)>,
    wire: Wire,
}

impl Pair {
    fn new(caller: LinkConfig, callee: LinkConfig) -> Self {
        Self::seeded(caller, callee, 7)
    }

    fn seeded(caller: LinkConfig, callee: LinkConfig, seed: u8) -> Self {
        let end = |config: LinkConfig, role, seed| End {
            secrets: Arc::clone(&config.secrets),
            link: Link::new(Arc::new(config), role, [seed; 32]),
            lines: Vec::new(),
            receive: None,
            send: None,
            resets: 0,
            network: None,
            ipv6: None,
            prepared: None,
            was_up: false,
            endings: Vec::new(),
            has_hung_up: false,
            holds_verdicts: false,
            mppe_limit: MppeLimit::default(),
            asked: Vec::new(),
        };
        Self {
            ends: [
                end(caller, LinkRole::Caller, seed),
                end(callee, LinkRole::Callee, seed.wrapping_add(100)),
            ],
            now: Time(1_000),
            in_flight: VecDeque::new(),
            wire: Box::new(|_, frame| Some(frame)),
        }
    }

    /// Both ends come up, and go on until they are quiet.
    fn connect(mut self) -> Self {
        for side in [CALLEE, CALLER] {
            let now = self.now;
            self.ends[side].link.handle_up(now);
            self.drain(side);
        }
        self.run_for(5_000);
        self
    }

    /// Lets `ms` milliseconds pass.
    fn run_for(&mut self, ms: u64) {
        let until = self.now.after_ms(ms);
        for _ in 0..100_000 {
            let arrival = self.in_flight.front().map(|(at, ..)| *at);
            let due = self.ends.iter().filter_map(|end| end.link.poll_timeout());
            let Some(next) = due.chain(arrival).min().filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, to, frame) = self.in_flight.pop_front().unwrap();
                if frame.is_empty() {
                    self.ends[to].link.handle_down(self.now);
                    self.drain(to);
                    continue;
                }
                let line = format!("rcvd {}", describe(&frame));
                self.ends[to].lines.push(line);
                self.ends[to].link.handle_frame(self.now, &frame);
            }
            for side in [CALLER, CALLEE] {
                self.ends[side].link.handle_timeout(self.now);
                self.drain(side);
            }
        }
        panic!("the ends do not come to rest");
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.ends[side].link.poll_output() {
            assert!(
                self.ends[side].endings.is_empty(),
                "{output:?} after the end"
            );
            match output {
                LinkOutput::Frame(frame) => self.transmit(side, frame),
                LinkOutput::Authenticate {
                    request_id,
                    request,
                } => {
                    self.ends[side].asked.push((request_id, request));
                    if !self.ends[side].holds_verdicts {
                        self.answer(side);
                    }
                }
                LinkOutput::AssignAddresses => {
                    let end = &mut self.ends[side];
                    let addresses = end.link.around.config.addresses.clone();
                    let addresses = addresses.remote.is_some().then_some(addresses);
                    end.link.handle_addresses(self.now, addresses);
                }
                LinkOutput::NetworkUp(network) => {
                    // The callee prepared this very network before either end was up.
                    assert!(self.ends[CALLEE].prepared.is_some(), "not prepared");
                    if side == CALLEE {
                        assert_eq!(self.ends[CALLEE].prepared.as_ref(), Some(&network));
                    }
                    self.ends[side].note(LinkOutput::NetworkUp(network));
                }
                other => self.ends[side].note(other),
            }
        }
        // Whose link is over clears the call.
        if !self.ends[side].endings.is_empty() && !self.ends[side].has_hung_up {
            self.ends[side].has_hung_up = true;
            let at = self.now.after_ms(LATENCY_MS);
            self.in_flight.push_back((at, 1 - side, Bytes::new()));
        }
    }

    fn transmit(&mut self, side: usize, frame: Bytes) {
        let line = format!("sent {}", describe(&frame));
        self.ends[side].lines.push(line);
        if let Some(frame) = (self.wire)(side, frame) {
            let at = self.now.after_ms(LATENCY_MS);
            self.in_flight.push_back((at, 1 - side, frame));
        }
    }

    /// The secrets say what they have to say.
    fn answer(&mut self, side: usize) {
        for (request_id, request) in std::mem::take(&mut self.ends[side].asked) {
            let end = &mut self.ends[side];
            let is_pap = request.method == AuthMethod::Pap;
            let secret = end
                .secrets
                .find(&request.peer_name, &request.our_name, is_pap);
            let verdict = match verify(&request, secret.as_ref()) {
                Ok(proof) => Verdict::Accept {
                    proof,
                    message: "Access granted".into(),
                    addresses: end.link.around.config.addresses.clone(),
                    mppe: end.mppe_limit,
                },
                Err(_) => Verdict::Reject {
                    code: 691,
                    message: "Access denied".into(),
                },
            };
            end.link.handle_verdict(self.now, request_id, verdict);
        }
        self.drain(side);
    }

    fn close(&mut self, side: usize, reason: &str) {
        let ending = Ending::LocalRequest(reason.into());
        self.ends[side].link.handle_close(self.now, reason, ending);
        self.drain(side);
    }

    #[track_caller]
    fn ending(&self, side: usize) -> &Ending {
        match &self.ends[side].endings[..] {
            [ending] => ending,
            other => panic!("{other:?} after {:#?}", self.ends[side].lines),
        }
    }

    #[track_caller]
    fn network(&self, side: usize) -> &Network {
        let end = &self.ends[side];
        end.network
            .as_ref()
            .unwrap_or_else(|| panic!("no network after {:#?}", end.lines))
    }

    #[track_caller]
    fn assert_never_up(&self) {
        assert!(!self.ends[CALLER].was_up && !self.ends[CALLEE].was_up);
    }

    #[track_caller]
    fn assert_said(&self, side: usize, line: &str) {
        let lines = &self.ends[side].lines;
        assert!(
            lines.iter().any(|said| said == line),
            "{line:?} is not in {lines:#?}"
        );
    }

    /// What one end encrypts, the other decrypts.
    #[track_caller]
    fn assert_keyed_alike(&self) {
        for (from, to) in [(CALLER, CALLEE), (CALLEE, CALLER)] {
            let (send, receive) = (&self.ends[from].send, &self.ends[to].receive);
            assert_eq!(send.as_ref().map(key), receive.as_ref().map(key));
        }
    }

    #[track_caller]
    fn assert_encrypted(&self) {
        assert!(self.ends[CALLER].send.is_some() && self.ends[CALLER].receive.is_some());
        self.assert_keyed_alike();
    }
}

fn key(spec: &MppeSpec) -> (&[u8], KeyMode) {
    (StartKey::as_bytes(&spec.start_key), spec.mode)
}

impl End {
    fn note(&mut self, output: LinkOutput) {
        match output {
            LinkOutput::SetReceiveKey(spec) => {
                self.lines.push(format!("receive key {}", spec.is_some()));
                self.receive = spec;
            }
            LinkOutput::SetSendKey(spec) => {
                self.lines.push(format!("send key {}", spec.is_some()));
                self.send = spec;
            }
            LinkOutput::ResetSendKey => self.resets += 1,
            LinkOutput::Report(report) => self.lines.push(report.to_string()),
            LinkOutput::PrepareNetwork(network) => self.prepared = Some(network),
            LinkOutput::NetworkUp(network) => {
                assert!(self.network.replace(network).is_none(), "up twice");
                self.was_up = true;
            }
            LinkOutput::NetworkDown => {
                assert!(self.network.take().is_some(), "down before it was up");
                self.ipv6 = None;
            }
            LinkOutput::Ipv6Up(ipv6) => {
                assert!(self.network.is_some(), "IPv6 before IPv4");
                assert!(self.ipv6.replace(ipv6).is_none(), "up twice");
            }
            LinkOutput::Ipv6Down => {
                assert!(self.ipv6.take().is_some(), "down before it was up");
            }
            LinkOutput::Terminated(ending) => {
                assert!(self.network.is_none(), "the network outlives the link");
                assert_eq!(self.link.poll_timeout(), None);
                self.endings.push(ending);
            }
            LinkOutput::Frame(_)
            | LinkOutput::Authenticate { .. }
            | LinkOutput::AssignAddresses => {
                unreachable!()
            }
        }
    }
}
