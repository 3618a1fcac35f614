//! Everything about one run that is drawn from its seed.

use std::sync::Arc;

use control::proto::auth::{AuthMethod, AuthMethods, Secret, Secrets};
use control::proto::link::{Addresses, Ipv6Config, LcpConfig, LinkConfig, MppeConfig};
use control::wire::ipv6cp::InterfaceIdentifier;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// The client's name.
pub const CLIENT_NAME: &str = "mia";
/// The server's name.
pub const SERVER_NAME: &str = "zidler";
/// The client's password.
pub const PASSWORD: &[u8] = b"diamonds";

/// What the network does while it is faulty.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Of 100 GRE packets, how many are lost.
    pub loss_percent: u32,
    /// Of 100 GRE packets, how many come twice.
    pub duplicate_percent: u32,
    /// Shortest way of any packet, milliseconds.
    pub delay_ms: u64,
    /// How much longer the way can be; GRE packets overtake one another.
    pub jitter_ms: u64,
    /// TCP octets come in pieces of at most this many.
    pub piece_bytes_max: usize,
    /// For how long, from the start, milliseconds.
    pub lasts_ms: u64,
}

impl Faults {
    /// A network without faults.
    pub const NONE: Self = Self {
        loss_percent: 0,
        duplicate_percent: 0,
        delay_ms: 10,
        jitter_ms: 0,
        piece_bytes_max: 1_460,
        lasts_ms: 0,
    };
}

/// Which way GRE does not come through at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It comes through.
    Neither,
    /// Nothing reaches the client.
    ToClient,
    /// Nothing comes through.
    Both,
}

/// How a tunnel that is up is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The client hangs up.
    ClientHangsUp,
    /// The server hangs up.
    ServerHangsUp,
    /// The client shuts down.
    ClientShutsDown,
    /// The server shuts down.
    ServerShutsDown,
    /// The TCP connection breaks.
    ConnectionBreaks,
}

/// What a run must come to when the network lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Both demands hold together: the tunnel comes up, and encrypted when `encrypted`.
    Up {
        /// One side at least requires MPPE.
        encrypted: bool,
    },
    /// They do not: it never comes up.
    Fails,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where all of it comes from.
    pub seed: u64,
    /// The client's link.
    pub client: Arc<LinkConfig>,
    /// The server's link.
    pub server: Arc<LinkConfig>,
    /// Whether the client's password is the one that the server knows.
    pub password_is_right: bool,
    /// The network at first.
    pub faults: Faults,
    /// GRE does not come through, however long one waits.
    pub blocked: Blocked,
    /// When the TCP connection breaks by itself, milliseconds from the start.
    pub breaks_at_ms: Option<u64>,
    /// Longest time for the secrets to be looked up, milliseconds.
    pub verdict_ms_max: u64,
    /// The end.
    pub farewell: Farewell,
    /// Workers of the server and of the client: 2 have a direction each.
    pub workers: [u16; 2],
}

impl Scenario {
    /// Draws a run.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = &mut ChaCha12Rng::seed_from_u64(seed);
        let password_is_right = rng.random_ratio(9, 10);
        let password = if password_is_right {
            PASSWORD
        } else {
            b"rhinestones"
        };
        Self {
            seed,
            client: Arc::new(LinkConfig {
                name: CLIENT_NAME.to_owned(),
                remote_name: None,
                require: AuthMethods::NONE,
                allow: draw_methods(rng),
                eap_pass_through: false,
                secrets: Arc::new(OneSecret(Secret::new(password.to_vec()))),
                lcp: draw_lcp(rng),
                mppe: draw_mppe(rng),
                addresses: Addresses {
                    accept_local: true,
                    accept_remote: true,
                    ask_dns: rng.random(),
                    ..Addresses::default()
                },
                ipv6: draw_ipv6(rng),
            }),
            server: Arc::new(LinkConfig {
                name: SERVER_NAME.to_owned(),
                remote_name: None,
                require: if rng.random_ratio(1, 10) {
                    AuthMethods::NONE
                } else {
                    draw_methods(rng)
                },
                allow: AuthMethods::NONE,
                eap_pass_through: false,
                secrets: Arc::new(OneSecret(Secret::new(Vec::new()))),
                lcp: draw_lcp(rng),
                mppe: draw_mppe(rng),
                addresses: Addresses::default(),
                ipv6: draw_ipv6(rng),
            }),
            password_is_right,
            faults: draw_faults(rng),
            blocked: match rng.random_range(0..20) {
                0 => Blocked::ToClient,
                1 => Blocked::Both,
                _ => Blocked::Neither,
            },
            breaks_at_ms: rng.random_ratio(1, 10).then(|| rng.random_range(0..10_000)),
            verdict_ms_max: *pick(rng, &[0, 20, 5_000]),
            farewell: *pick(
                rng,
                &[
                    Farewell::ClientHangsUp,
                    Farewell::ServerHangsUp,
                    Farewell::ClientShutsDown,
                    Farewell::ServerShutsDown,
                    Farewell::ConnectionBreaks,
                ],
            ),
            workers: [*pick(rng, &[1, 2]), *pick(rng, &[1, 2])],
        }
    }

    /// What both configurations come to, network aside.
    #[must_use]
    pub fn expectation(&self) -> Expectation {
        let method = self.method();
        let is_authenticated = method.is_some() && self.password_is_right;
        if self.server.require != AuthMethods::NONE && !is_authenticated {
            return Expectation::Fails;
        }
        let encrypted = self.requires_encryption();
        if !encrypted {
            return Expectation::Up { encrypted };
        }
        let has_keys = matches!(
            method,
            Some(AuthMethod::Eap | AuthMethod::MsChapV1 | AuthMethod::MsChapV2)
        );
        if has_keys && self.strongest_common().is_some() {
            Expectation::Up { encrypted }
        } else {
            Expectation::Fails
        }
    }

    /// Whether both sides speak IPV6CP. `None` when both were given the same identifier: if one
    /// insists on it, the other may hear of that too late.
    #[must_use]
    pub fn expects_ipv6(&self) -> Option<bool> {
        let (Some(client), Some(server)) = (self.client.ipv6, self.server.ipv6) else {
            return Some(false);
        };
        (client.local.is_none() || server.local.is_none()).then_some(true)
    }

    /// Bits of the longest key that both sides allow.
    #[must_use]
    pub fn strongest_common(&self) -> Option<u32> {
        let (client, server) = (self.client.mppe.as_ref()?, self.server.mppe.as_ref()?);
        let theirs = strengths(server);
        strengths(client)
            .into_iter()
            .find(|bits| theirs.contains(bits))
    }

    /// Whether either side does.
    #[must_use]
    pub fn requires_encryption(&self) -> bool {
        let links = [&self.client, &self.server];
        links
            .iter()
            .any(|it| it.mppe.is_some_and(|mppe| mppe.require))
    }

    /// The strongest method that the server takes and the client can.
    fn method(&self) -> Option<AuthMethod> {
        let (server, client) = (&self.server.require, &self.client.allow);
        let both = [
            (AuthMethod::Eap, server.eap && client.eap),
            (AuthMethod::MsChapV2, server.mschap_v2 && client.mschap_v2),
            (AuthMethod::MsChapV1, server.mschap_v1 && client.mschap_v1),
            (AuthMethod::ChapMd5, server.chap_md5 && client.chap_md5),
            (AuthMethod::Pap, server.pap && client.pap),
        ];
        both.iter()
            .find(|(_, both)| *both)
            .map(|(method, _)| *method)
    }
}

/// Key lengths that a side allows, the strongest first.
fn strengths(mppe: &MppeConfig) -> Vec<u32> {
    let all = [
        (128, mppe.allow_128),
        (56, mppe.allow_56),
        (40, mppe.allow_40),
    ];
    let allowed = all.iter().filter(|(_, allowed)| *allowed);
    allowed.map(|(bits, _)| *bits).collect()
}

fn pick<'a, T>(rng: &mut ChaCha12Rng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// Any set but the empty one, with MS-CHAPv2 in two of three.
fn draw_methods(rng: &mut ChaCha12Rng) -> AuthMethods {
    let methods = AuthMethods {
        eap: rng.random_ratio(1, 4),
        mschap_v2: rng.random_ratio(2, 3),
        mschap_v1: rng.random(),
        chap_md5: rng.random(),
        pap: rng.random(),
    };
    if methods == AuthMethods::NONE {
        AuthMethods::ALL
    } else {
        methods
    }
}

fn draw_mppe(rng: &mut ChaCha12Rng) -> Option<MppeConfig> {
    let prefer_stateful = rng.random_ratio(1, 5);
    let mppe = MppeConfig {
        require: rng.random(),
        allow_40: rng.random(),
        allow_56: rng.random_ratio(1, 4),
        allow_128: rng.random_ratio(3, 4),
        allow_stateful: prefer_stateful || rng.random(),
        prefer_stateful,
    };
    let allows_any = mppe.allow_40 || mppe.allow_56 || mppe.allow_128;
    (allows_any && rng.random_ratio(4, 5)).then_some(mppe)
}

/// Two identifiers of one's own are drawn so seldom that both sides may have the same.
fn draw_ipv6(rng: &mut ChaCha12Rng) -> Option<Ipv6Config> {
    let one = InterfaceIdentifier([0, 0, 0, 0, 0, 0, 0, 1]);
    let ipv6 = Ipv6Config {
        local: rng.random_ratio(1, 5).then_some(one),
        remote: None,
        accept_local: rng.random(),
        accept_remote: rng.random(),
    };
    rng.random_ratio(3, 4).then_some(ipv6)
}

fn draw_lcp(rng: &mut ChaCha12Rng) -> LcpConfig {
    LcpConfig {
        mru: *pick(rng, &[1_400, 1_490, 1_500]),
        mtu: *pick(rng, &[1_000, 1_456]),
        accm: *pick(rng, &[None, Some(0), Some(0x000A_0000)]),
        pfc: rng.random(),
        acfc: rng.random(),
        magic: rng.random_ratio(4, 5),
        echo_interval_ms: *pick(rng, &[0, 10_000, 30_000]),
        chap_interval_ms: *pick(rng, &[0, 0, 700, 7_000]),
        ..LcpConfig::default()
    }
}

fn draw_faults(rng: &mut ChaCha12Rng) -> Faults {
    Faults {
        loss_percent: *pick(rng, &[0, 0, 5, 30]),
        duplicate_percent: *pick(rng, &[0, 10, 50]),
        delay_ms: *pick(rng, &[0, 1, 20, 300]),
        jitter_ms: *pick(rng, &[0, 5, 200]),
        piece_bytes_max: *pick(rng, &[1, 7, 100, 1_460]),
        lasts_ms: *pick(rng, &[0, 2_000, 8_000, 60_000]),
    }
}

/// The same secret for everybody.
#[derive(Debug)]
pub struct OneSecret(pub Secret);

impl Secrets for OneSecret {
    fn find(&self, _client: &str, _server: &str, _pap: bool) -> Option<Secret> {
        Some(self.0.clone())
    }

    fn origin(&self, pap: bool) -> String {
        let file = if pap { "pap-secrets" } else { "chap-secrets" };
        file.to_owned()
    }
}
