//! The Link Control Protocol's options (RFC 1661 6), echoes (5.8) and loop detection (6.4).

use bytes::{BufMut, Bytes};
use rand::RngExt;

use super::auth::{AuthMethod, AuthMethods};
use super::automaton::Event;
use super::ending::Ending;
use super::negotiation::{ControlProtocol, Verdict};
use super::outbox::{Context, Failure, Layer, Signal, printable};
use super::timer::Timer;
use crate::wire::cp::{Code, ControlPacket};
use crate::wire::lcp::{AuthProtocol, LcpOption};
use crate::wire::ppp::{HeaderCompression, Protocol};

/// The MRU of a peer that names none (RFC 1661 6.1).
pub(super) const MRU_DEFAULT: u16 = 1500;
/// No smaller MRU is agreed to (pppd's MINMRU).
const MRU_MIN: u16 = 128;
/// Requests with our own magic number until the link counts as looped back.
const LOOPS_MAX: u32 = 5;

/// What the peer asked for, and was granted, in its last request.
#[derive(Debug)]
pub(super) struct PeerOptions {
    /// Octets that it receives at most.
    pub(super) mru: u16,
    /// How we are to prove who we are.
    pub(super) auth: Option<AuthMethod>,
    /// It takes compressed headers.
    pub(super) compression: HeaderCompression,
}

impl PeerOptions {
    const DEFAULT: Self = Self {
        mru: MRU_DEFAULT,
        auth: None,
        compression: HeaderCompression {
            protocol: false,
            address_control: false,
        },
    };
}

/// LCP of one link.
#[derive(Debug)]
pub(super) struct Lcp {
    mru: Option<u16>,
    accm: Option<u32>,
    /// How the peer is to prove who it is, and what it may still fall back to.
    auth: Option<AuthMethod>,
    auth_left: AuthMethods,
    magic: Option<u32>,
    pfc: bool,
    acfc: bool,
    pub(super) peer: PeerOptions,
    loop_count: u32,
    /// The method that the peer demanded last and was refused, in words.
    pub(super) refused_auth: Option<String>,
    /// The peer's words when it ended the link.
    pub(super) terminated: Option<String>,
    echo_id: u8,
    echoes_unanswered: u32,
    echo_rejected: bool,
    /// Packets of the network layer have come since an Echo-Request was last due.
    has_traffic: bool,
}

impl Lcp {
    pub(super) const fn new() -> Self {
        Self {
            mru: None,
            accm: None,
            auth: None,
            auth_left: AuthMethods::NONE,
            magic: None,
            pfc: false,
            acfc: false,
            peer: PeerOptions::DEFAULT,
            loop_count: 0,
            refused_auth: None,
            terminated: None,
            echo_id: 0,
            echoes_unanswered: 0,
            echo_rejected: false,
            has_traffic: false,
        }
    }

    /// The method by which the peer agreed to prove who it is.
    pub(super) const fn peer_proves_by(&self) -> Option<AuthMethod> {
        self.auth
    }

    /// Any sign of life answers every echo that is out.
    pub(super) const fn handle_alive(&mut self) {
        self.echoes_unanswered = 0;
    }

    /// Packets of the network layer have come.
    pub(super) const fn handle_traffic(&mut self) {
        self.has_traffic = true;
    }

    /// The echo timer has run out.
    pub(super) fn handle_echo_timeout(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        let failure_max = ctx.config.lcp.echo_failure;
        if failure_max > 0 && self.echoes_unanswered >= failure_max {
            let line = format!("No response to {} echo-requests", self.echoes_unanswered);
            ctx.outbox.report(line);
            ctx.outbox.report("Serial link appears to be disconnected.");
            return Err(Failure {
                reason: "Peer not responding",
                ending: Ending::PeerDead("LCP Echo-Requests"),
            });
        }
        let has_traffic = std::mem::take(&mut self.has_traffic);
        if ctx.config.lcp.echo_adaptive && has_traffic {
            let interval_ms = ctx.config.lcp.echo_interval_ms;
            ctx.timers.set(Timer::Echo, ctx.now.after_ms(interval_ms));
        } else {
            self.send_echo(ctx);
        }
        Ok(())
    }

    fn send_echo(&mut self, ctx: &mut Context<'_>) {
        let interval_ms = ctx.config.lcp.echo_interval_ms;
        if interval_ms == 0 || self.echo_rejected {
            return;
        }
        let magic = self.magic.unwrap_or(0).to_be_bytes();
        let (code, id, data) = (Code::ECHO_REQUEST, self.echo_id, &magic[..]);
        let packet = ControlPacket { code, id, data }.to_bytes();
        ctx.outbox.send(Protocol::LCP, &packet);
        self.echo_id = self.echo_id.wrapping_add(1);
        self.echoes_unanswered = self.echoes_unanswered.saturating_add(1);
        ctx.timers.set(Timer::Echo, ctx.now.after_ms(interval_ms));
    }

    fn handle_echo_reply(&mut self, ctx: &mut Context<'_>, data: &[u8]) {
        let magic = data.first_chunk().copied().map_or(0, u32::from_be_bytes);
        if self.magic == Some(magic) {
            if ctx.outbox.may_reject(ctx.now) {
                ctx.outbox
                    .report("appear to have received our own echo-reply!");
            }
        } else {
            self.echoes_unanswered = 0;
        }
    }

    /// The peer wants us to prove who we are.
    fn judge_auth(&mut self, ctx: &mut Context<'_>, asked: &AuthProtocol) -> Verdict<LcpOption> {
        let allowed = ctx.config.allow;
        if let Some(method) = AuthMethod::from_protocol(asked)
            && allowed.contains(method)
        {
            self.peer.auth = Some(method);
            self.refused_auth = None;
            return Verdict::Ack;
        }
        self.refused_auth = Some(auth_words(asked));
        if let Some(method) = allowed.strongest() {
            Verdict::Nak(LcpOption::Auth(method.protocol()))
        } else {
            ctx.outbox.report("No auth is possible");
            Verdict::Reject
        }
    }

    fn judge_magic(
        &mut self,
        ctx: &mut Context<'_>,
        magic: u32,
    ) -> Result<Verdict<LcpOption>, Failure> {
        if self.magic == Some(magic) {
            self.loop_count += 1;
            if self.loop_count >= LOOPS_MAX {
                ctx.outbox.report("Serial line is looped back.");
                return Err(Failure {
                    reason: "Loopback detected",
                    ending: Ending::LoopedBack,
                });
            }
        } else if magic != 0 {
            return Ok(Verdict::Ack);
        }
        Ok(Verdict::Nak(LcpOption::Magic(new_magic(ctx))))
    }

    /// The peer does not prove who it is by the method that we asked for.
    fn auth_refused(
        &mut self,
        ctx: &mut Context<'_>,
        suggested: Option<AuthMethod>,
    ) -> Result<(), Failure> {
        let Some(asked) = self.auth else {
            return Ok(());
        };
        self.auth_left = self.auth_left.without(asked);
        self.auth = suggested
            .filter(|&method| self.auth_left.contains(method))
            .or_else(|| self.auth_left.strongest());
        if self.auth.is_some() {
            return Ok(());
        }
        self.auth = Some(asked);
        ctx.outbox
            .report("peer refused to authenticate: terminating link");
        let demanded = ctx.config.require;
        Err(Failure {
            reason: "peer refused to authenticate",
            ending: Ending::PeerAuthFailed(format!(
                "it refuses every method asked of it ({demanded})"
            )),
        })
    }
}

/// A method in the words of pppd's log.
fn auth_words(auth: &AuthProtocol) -> String {
    match auth {
        AuthProtocol::Other(protocol, _) => format!("authentication protocol {:#06x}", protocol.0),
        ours => {
            AuthMethod::from_protocol(ours).map_or_else(String::new, |method| method.to_string())
        }
    }
}

/// Never zero (RFC 1661 6.4).
fn new_magic(ctx: &mut Context<'_>) -> u32 {
    ctx.rng.random_range(1..=u32::MAX)
}

impl ControlProtocol for Lcp {
    type Option = LcpOption;

    const PROTOCOL: Protocol = Protocol::LCP;
    const NAME: &'static str = "LCP";
    const LAYER: Layer = Layer::Lcp;
    const RESTART: Timer = Timer::LcpRestart;

    fn reset(&mut self, ctx: &mut Context<'_>) {
        let config = &ctx.config.lcp;
        *self = Self {
            mru: (config.mru != MRU_DEFAULT).then_some(config.mru.max(MRU_MIN)),
            accm: config.accm,
            auth: ctx.config.require.strongest(),
            auth_left: ctx.config.require,
            pfc: config.pfc,
            acfc: config.acfc,
            magic: config.magic.then(|| new_magic(ctx)),
            ..Self::new()
        };
    }

    fn request(&self, _ctx: &Context<'_>) -> Vec<LcpOption> {
        [
            self.mru.map(LcpOption::Mru),
            self.accm.map(LcpOption::Accm),
            self.auth.map(|method| LcpOption::Auth(method.protocol())),
            self.magic.map(LcpOption::Magic),
            self.pfc.then_some(LcpOption::Pfc),
            self.acfc.then_some(LcpOption::Acfc),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn begin_judgement(&mut self) {
        self.peer = PeerOptions::DEFAULT;
    }

    fn judge(
        &mut self,
        ctx: &mut Context<'_>,
        option: &LcpOption,
    ) -> Result<Verdict<LcpOption>, Failure> {
        Ok(match option {
            LcpOption::Mru(mru) if *mru < MRU_MIN => Verdict::Nak(LcpOption::Mru(MRU_MIN)),
            LcpOption::Mru(mru) => {
                self.peer.mru = *mru;
                Verdict::Ack
            }
            // Nothing is escaped in GRE, so any map will do.
            LcpOption::Accm(_) => Verdict::Ack,
            LcpOption::Auth(asked) => self.judge_auth(ctx, asked),
            LcpOption::Magic(magic) => self.judge_magic(ctx, *magic)?,
            LcpOption::Pfc if ctx.config.lcp.pfc => {
                self.peer.compression.protocol = true;
                Verdict::Ack
            }
            LcpOption::Acfc if ctx.config.lcp.acfc => {
                self.peer.compression.address_control = true;
                Verdict::Ack
            }
            _ => Verdict::Reject,
        })
    }

    fn naked(&mut self, ctx: &mut Context<'_>, options: &[LcpOption]) -> Result<(), Failure> {
        for option in options {
            match option {
                LcpOption::Mru(mru) => {
                    let wanted = self.mru.unwrap_or(MRU_DEFAULT);
                    self.mru = self
                        .mru
                        .map(|_| (*mru).clamp(MRU_MIN, wanted.max(MRU_DEFAULT)));
                }
                LcpOption::Accm(map) => self.accm = self.accm.map(|ours| ours | map),
                LcpOption::Auth(suggested) => {
                    self.auth_refused(ctx, AuthMethod::from_protocol(suggested))?;
                }
                LcpOption::Magic(_) => self.magic = self.magic.map(|_| new_magic(ctx)),
                _ => {}
            }
        }
        Ok(())
    }

    fn rejected(&mut self, ctx: &mut Context<'_>, options: &[LcpOption]) -> Result<(), Failure> {
        for option in options {
            match option {
                LcpOption::Mru(_) => self.mru = None,
                LcpOption::Accm(_) => self.accm = None,
                LcpOption::Auth(_) => self.auth_refused(ctx, None)?,
                LcpOption::Magic(_) => self.magic = None,
                LcpOption::Pfc => self.pfc = false,
                LcpOption::Acfc => self.acfc = false,
                _ => {}
            }
        }
        Ok(())
    }

    fn up(&mut self, ctx: &mut Context<'_>) {
        ctx.outbox.compression = self.peer.compression;
        self.echoes_unanswered = 0;
        self.has_traffic = false;
        self.send_echo(ctx);
    }

    fn down(&mut self, ctx: &mut Context<'_>) {
        ctx.outbox.compression = HeaderCompression::default();
        ctx.timers.stop(Timer::Echo);
    }

    fn handle_code(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &ControlPacket<'_>,
        opened: bool,
    ) -> Option<Option<Event>> {
        match packet.code {
            Code::ECHO_REPLY => {
                if opened {
                    self.handle_echo_reply(ctx, packet.data);
                }
                Some(Some(Event::Rxr))
            }
            Code::ECHO_REQUEST | Code::DISCARD_REQUEST => Some(Some(Event::Rxr)),
            Code::PROTOCOL_REJECT => {
                let rejected = packet.data.first_chunk().copied().map(u16::from_be_bytes);
                if rejected == Some(Protocol::LCP.0) {
                    return Some(Some(Event::RxjBad));
                }
                if let Some(protocol) = rejected.filter(|_| opened) {
                    let signal = Signal::ProtocolRejected(Protocol(protocol));
                    ctx.outbox.signal(Layer::Lcp, signal);
                }
                Some(None)
            }
            Code::IDENTIFICATION | Code::TIME_REMAINING => Some(None),
            _ => None,
        }
    }

    fn echo_reply(&mut self, ctx: &mut Context<'_>, packet: &ControlPacket<'_>) {
        if packet.code != Code::ECHO_REQUEST {
            return;
        }
        let mut data = Vec::with_capacity(packet.data.len());
        data.put_u32(self.magic.unwrap_or(0));
        data.extend_from_slice(packet.data.get(4..).unwrap_or(&[]));
        let (code, id, data) = (Code::ECHO_REPLY, packet.id, &data[..]);
        let reply: Bytes = ControlPacket { code, id, data }.to_bytes();
        ctx.outbox.send(Protocol::LCP, &reply);
    }

    fn code_rejected(&mut self, code: Code) {
        if code == Code::ECHO_REQUEST {
            self.echo_rejected = true;
            self.echoes_unanswered = 0;
        }
    }

    fn terminated_by_peer(&mut self, ctx: &mut Context<'_>, reason: &[u8], opened: bool) {
        let words = printable(reason);
        if opened {
            ctx.outbox.report(if words.is_empty() {
                "LCP terminated by peer".to_owned()
            } else {
                format!("LCP terminated by peer ({words})")
            });
        }
        self.terminated = Some(words);
    }
}
