//! The Compression Control Protocol (RFC 1962), for MPPE alone (RFC 3078 2).
//!
//! What a Configure-Request says is what its sender is ready to *receive* (RFC 1962 4), so the
//! acknowledged request of this side keys what we decrypt, and the peer's what we encrypt.
//!
//! One strength is asked for, the strongest allowed, as pppd does; a request for several is
//! Nak'ed with the strongest that both allow. Where a strength is asked for that the other side
//! does not allow, both go down from there: a request is Nak'ed with the strongest below it, and a
//! Nak is answered with the next weaker request. MPPC (the C bit) and the D bit are always Nak'ed
//! away, and so is stateful mode unless it is allowed.
//!
//! Where stateful mode is preferred, it is asked for, and proposed to a peer that has agreed to
//! it; a peer that rejects it is asked for stateless mode.

use std::fmt;

use dataplane::mppe::keys::{KeyMode, KeyStrength};
use dataplane::program::MppeSpec;
use serde::{Deserialize, Serialize};

use super::auth::Authenticated;
use super::automaton::Event;
use super::ending::Ending;
use super::link::{LinkOutput, MppeConfig, MppeLimit, Report};
use super::negotiation::{ControlProtocol, Verdict};
use super::outbox::{Context, Failure, Layer, Signal};
use super::timer::Timer;
use crate::wire::ccp::{CcpOption, MppeBits};
use crate::wire::cp::{Code, ConfigOption, ControlPacket};
use crate::wire::ppp::Protocol;

const STRENGTHS: u32 = MppeBits::BITS_40 | MppeBits::BITS_56 | MppeBits::BITS_128;

/// One definite agreement: what one direction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Agreed {
    strength: KeyStrength,
    mode: KeyMode,
}

impl Agreed {
    const fn bits(self) -> MppeBits {
        let strength = match self.strength {
            KeyStrength::Bits40 => MppeBits::BITS_40,
            KeyStrength::Bits56 => MppeBits::BITS_56,
            KeyStrength::Bits128 => MppeBits::BITS_128,
        };
        let stateless = match self.mode {
            KeyMode::Stateless => MppeBits::STATELESS,
            KeyMode::Stateful => 0,
        };
        MppeBits(strength | stateless)
    }
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strength = match self.strength {
            KeyStrength::Bits40 => 40,
            KeyStrength::Bits56 => 56,
            KeyStrength::Bits128 => 128,
        };
        let mode = match self.mode {
            KeyMode::Stateless => "stateless",
            KeyMode::Stateful => "stateful",
        };
        write!(f, "MPPE {strength}-bit {mode}")
    }
}

/// `<mppe +H -M +S -L -D -C>`, as pppd prints it.
struct Words(MppeBits);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<mppe")?;
        for (bit, letter) in [
            (MppeBits::STATELESS, 'H'),
            (MppeBits::BITS_56, 'M'),
            (MppeBits::BITS_128, 'S'),
            (MppeBits::BITS_40, 'L'),
            (MppeBits::OBSOLETE, 'D'),
            (MppeBits::MPPC, 'C'),
        ] {
            let sign = if self.0.0 & bit == 0 { '-' } else { '+' };
            write!(f, " {sign}{letter}")?;
        }
        f.write_str(">")
    }
}

const fn allowed_strengths(config: &MppeConfig) -> u32 {
    let mut bits = 0;
    if config.allow_40 {
        bits |= MppeBits::BITS_40;
    }
    if config.allow_56 {
        bits |= MppeBits::BITS_56;
    }
    if config.allow_128 {
        bits |= MppeBits::BITS_128;
    }
    bits
}

const fn strongest(bits: u32) -> Option<KeyStrength> {
    if bits & MppeBits::BITS_128 != 0 {
        Some(KeyStrength::Bits128)
    } else if bits & MppeBits::BITS_56 != 0 {
        Some(KeyStrength::Bits56)
    } else if bits & MppeBits::BITS_40 != 0 {
        Some(KeyStrength::Bits40)
    } else {
        None
    }
}

/// Strengths below the strongest of `bits`.
const fn weaker(bits: u32) -> u32 {
    match strongest(bits) {
        Some(KeyStrength::Bits128) => MppeBits::BITS_56 | MppeBits::BITS_40,
        Some(KeyStrength::Bits56) => MppeBits::BITS_40,
        Some(KeyStrength::Bits40) | None => 0,
    }
}

/// What this side demands, in words.
pub(super) fn demand_words(config: &MppeConfig) -> String {
    format!("this side requires MPPE ({})", words(config))
}

/// Why there is no MPPE, which is required: an authentication server has left no strength of
/// `config`.
pub(super) fn nothing_left(config: Option<&MppeConfig>, limit: MppeLimit) -> Ending {
    let ours = match config {
        Some(config) => format!("this side allows MPPE ({})", words(config)),
        None => "this side does not allow MPPE".into(),
    };
    let theirs = format!("for the authentication server {limit}");
    Ending::MppeRefused { ours, theirs }
}

fn words(config: &MppeConfig) -> String {
    let modes = if config.allow_stateful {
        ""
    } else {
        ", stateless only"
    };
    format!("{}{modes}", config.strengths())
}

/// CCP of one link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ccp {
    /// What keys are made from; without it no MPPE is agreed to.
    authenticated: Option<Authenticated>,
    /// What we ask for; `None` once it came to nothing.
    asked: Option<Agreed>,
    /// What the peer asked for last, and was granted.
    granted: Option<Agreed>,
    /// The peer's request named MPPE.
    named: bool,
    /// A request for stateless mode was Nak'ed with stateful, which is done once.
    proposed_stateful: bool,
    /// What the data plane is keyed with.
    receive: Option<Agreed>,
    send: Option<Agreed>,
    /// Keys were agreed and taken back.
    pub(super) lost: bool,
    /// The peer has ended CCP.
    pub(super) terminated: bool,
    /// What the peer said last, in words.
    peer_words: Option<String>,
}

impl Ccp {
    pub(super) const fn new() -> Self {
        Self {
            authenticated: None,
            asked: None,
            granted: None,
            named: false,
            proposed_stateful: false,
            receive: None,
            send: None,
            lost: false,
            terminated: false,
            peer_words: None,
        }
    }

    /// Gives what keys are made from. Before that, and without it, MPPE is rejected.
    pub(super) fn authenticate(&mut self, authenticated: Option<Authenticated>) {
        self.authenticated = authenticated;
    }

    /// What we send is encrypted.
    pub(super) const fn encrypts(&self) -> bool {
        self.send.is_some()
    }

    /// What we receive is encrypted.
    pub(super) const fn decrypts(&self) -> bool {
        self.receive.is_some()
    }

    fn asks_stateful(&self) -> bool {
        self.asked
            .is_some_and(|asked| asked.mode == KeyMode::Stateful)
    }

    /// Whether the answer to this packet depends on what the peer says to our own request. Stateful
    /// mode is proposed only to a peer that takes it: pppd ends the link where it does not.
    pub(super) fn must_wait(&self, payload: &[u8]) -> bool {
        let Ok(packet) = ControlPacket::parse(payload) else {
            return false;
        };
        let options = CcpOption::parse_all(packet.data).unwrap_or_default();
        let is_stateless = |option: &CcpOption| matches!(option, CcpOption::Mppe(bits) if bits.0 & MppeBits::STATELESS != 0);
        packet.code == Code::CONFIGURE_REQUEST
            && self.asks_stateful()
            && options.iter().any(is_stateless)
    }

    /// Agreed to on one side alone, a key is of no use: the peer did not get so far.
    pub(super) fn forget_receive_key(&mut self, ctx: &mut Context<'_>) {
        if self.receive.take().is_some() {
            ctx.outbox.push(LinkOutput::SetReceiveKey(None));
        }
    }

    /// `MPPE 128-bit stateless`, or `none`.
    pub(super) fn cipher(&self) -> String {
        match (self.receive, self.send) {
            (None, None) => "none".into(),
            (Some(receive), Some(send)) if receive == send => receive.to_string(),
            (Some(receive), Some(send)) => format!("{receive} / {send}"),
            (Some(receive), None) => format!("{receive} receive"),
            (None, Some(send)) => format!("{send} transmit"),
        }
    }

    fn config(&self, ctx: &Context<'_>) -> Option<MppeConfig> {
        let has_keys = self.authenticated.as_ref()?.has_keys();
        ctx.mppe.filter(|_| has_keys)
    }

    fn spec(&self, agreed: Agreed, is_send: bool) -> Option<MppeSpec> {
        let keys = self.authenticated.as_ref()?.start_keys(agreed.strength)?;
        Some(MppeSpec {
            start_key: if is_send { keys.send } else { keys.receive },
            mode: agreed.mode,
        })
    }

    fn judge_mppe(&mut self, config: &MppeConfig, bits: MppeBits) -> Verdict<CcpOption> {
        self.named = true;
        self.peer_words = Some(format!("the peer asks for {}", Words(bits)));
        let allowed = allowed_strengths(config);
        let is_stateless = bits.0 & MppeBits::STATELESS != 0;
        let proposes = is_stateless && self.asks_stateful() && !self.proposed_stateful;
        self.proposed_stateful |= proposes;
        let mode = if proposes || !is_stateless && config.allow_stateful {
            KeyMode::Stateful
        } else {
            KeyMode::Stateless
        };
        let proposed = strongest(bits.0 & allowed).or_else(|| strongest(weaker(bits.0) & allowed));
        let Some(strength) = proposed.or_else(|| strongest(allowed)) else {
            return Verdict::Reject;
        };
        let mut agreed = Agreed { strength, mode };
        if agreed.bits() == bits {
            self.granted = Some(agreed);
            return Verdict::Ack;
        }
        if bits.0 & STRENGTHS == 0 {
            // It named nothing of use: what we ask for ourselves is the best proposal.
            agreed = self.asked.unwrap_or(agreed);
        }
        Verdict::Nak(CcpOption::Mppe(agreed.bits()))
    }

    /// MPPE will not be: the end when it is required, otherwise we go on without.
    fn give_up(&mut self, ctx: &mut Context<'_>, reason: &'static str) -> Result<(), Failure> {
        self.asked = None;
        match ctx.mppe {
            Some(config) if config.require => {
                ctx.outbox.report(reason);
                Err(self.refusal(&config, reason))
            }
            _ => Ok(()),
        }
    }

    /// Why there is no tunnel without MPPE, in the words of both sides.
    pub(super) fn refusal(&self, config: &MppeConfig, reason: &'static str) -> Failure {
        let theirs = self.peer_words.clone();
        Failure {
            reason,
            ending: Ending::MppeRefused {
                ours: demand_words(config),
                theirs: theirs.unwrap_or_else(|| "the peer does not negotiate it".into()),
            },
        }
    }

    /// The peer does not know CCP.
    pub(super) fn handle_protocol_rejected(
        &mut self,
        ctx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        self.peer_words = Some("the peer rejects CCP, the protocol that negotiates it".into());
        self.forget_receive_key(ctx);
        self.give_up(ctx, "MPPE required but peer refused")
    }
}

impl ControlProtocol for Ccp {
    type Option = CcpOption;

    const PROTOCOL: Protocol = Protocol::CCP;
    const NAME: &'static str = "CCP";
    const LAYER: Layer = Layer::Ccp;
    const RESTART: Timer = Timer::CcpRestart;

    fn reset(&mut self, ctx: &mut Context<'_>) {
        *self = Self {
            authenticated: self.authenticated.take(),
            ..Self::new()
        };
        self.asked = self.config(ctx).and_then(|config| {
            let prefers_stateful = config.allow_stateful && config.prefer_stateful;
            let mode = if prefers_stateful {
                KeyMode::Stateful
            } else {
                KeyMode::Stateless
            };
            let strength = strongest(allowed_strengths(&config))?;
            Some(Agreed { strength, mode })
        });
    }

    fn request(&self, _ctx: &Context<'_>) -> Vec<CcpOption> {
        self.asked
            .map(|asked| CcpOption::Mppe(asked.bits()))
            .into_iter()
            .collect()
    }

    fn begin_judgement(&mut self) {
        self.granted = None;
        self.named = false;
    }

    fn judge(
        &mut self,
        ctx: &mut Context<'_>,
        option: &CcpOption,
    ) -> Result<Verdict<CcpOption>, Failure> {
        Ok(match (option, self.config(ctx)) {
            (CcpOption::Mppe(bits), Some(config)) => self.judge_mppe(&config, *bits),
            _ => Verdict::Reject,
        })
    }

    fn missing(&mut self, ctx: &mut Context<'_>) -> Vec<CcpOption> {
        let required = self.config(ctx).is_some_and(|config| config.require);
        if required && !self.named {
            self.peer_words = Some("the peer asks for no MPPE".into());
            return self.request(ctx);
        }
        Vec::new()
    }

    fn nak_limit(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        match ctx.mppe {
            Some(config) if config.require => {
                let reason = "MPPE required but peer negotiation failed";
                ctx.outbox.report(reason);
                Err(self.refusal(&config, reason))
            }
            _ => Ok(()),
        }
    }

    fn naked(&mut self, ctx: &mut Context<'_>, options: &[CcpOption]) -> Result<(), Failure> {
        let proposed = options.iter().find_map(|option| match option {
            CcpOption::Mppe(bits) => Some(*bits),
            CcpOption::Other(..) => None,
        });
        let (Some(bits), Some(config)) = (proposed, self.config(ctx)) else {
            return Ok(());
        };
        self.peer_words = Some(format!("the peer offers {}", Words(bits)));
        let stateless = bits.0 & MppeBits::STATELESS != 0;
        let allowed = allowed_strengths(&config);
        let asked = self.asked.map_or(0, |asked| asked.bits().0);
        let offered = strongest(bits.0 & allowed);
        if let Some(strength) = offered.or_else(|| strongest(weaker(asked) & allowed)) {
            if stateless || config.allow_stateful {
                let mode = if stateless {
                    KeyMode::Stateless
                } else {
                    KeyMode::Stateful
                };
                self.asked = Some(Agreed { strength, mode });
                return Ok(());
            }
            ctx.outbox
                .report("Refusing MPPE stateful mode offered by peer");
        }
        self.give_up(ctx, "MPPE required but peer negotiation failed")
    }

    fn rejected(&mut self, ctx: &mut Context<'_>, _options: &[CcpOption]) -> Result<(), Failure> {
        self.peer_words = Some("the peer rejects MPPE".into());
        // pppd rejects stateful mode, where it is not allowed, instead of asking for the other.
        if let Some(asked) = self
            .asked
            .as_mut()
            .filter(|it| it.mode == KeyMode::Stateful)
        {
            asked.mode = KeyMode::Stateless;
            return Ok(());
        }
        self.give_up(ctx, "MPPE required but peer refused")
    }

    fn configured(&mut self, ctx: &mut Context<'_>) {
        if self.asked == self.receive {
            return;
        }
        let spec = self.asked.and_then(|asked| self.spec(asked, false));
        self.receive = self.asked;
        ctx.outbox.push(LinkOutput::SetReceiveKey(spec));
    }

    fn up(&mut self, ctx: &mut Context<'_>) {
        if let Some(config) = ctx.mppe
            && config.require
            && (self.receive.is_none() || self.granted.is_none())
        {
            let reason = "MPPE required but peer refused";
            let failure = self.refusal(&config, reason);
            ctx.outbox.report(reason);
            ctx.outbox.signal(Layer::Ccp, Signal::Failed(failure));
            return;
        }
        if let Some(granted) = self.granted {
            self.send = Some(granted);
            let spec = self.spec(granted, true);
            ctx.outbox.push(LinkOutput::SetSendKey(spec));
        }
        if self.receive.is_some() || self.send.is_some() {
            let words = format!("{} compression enabled", self.cipher());
            ctx.outbox.push(LinkOutput::Report(Report::CipherUp(words)));
        }
    }

    fn down(&mut self, ctx: &mut Context<'_>) {
        self.lost = self.receive.is_some() || self.send.is_some();
        self.forget_receive_key(ctx);
        if self.send.take().is_some() {
            ctx.outbox.push(LinkOutput::SetSendKey(None));
        }
    }

    /// A peer that has given CCP up before it was opened will not come back to it.
    fn terminated_by_peer(&mut self, ctx: &mut Context<'_>, _reason: &[u8], opened: bool) {
        self.terminated = true;
        let required = ctx.mppe.is_some_and(|config| config.require);
        if !opened && !required {
            ctx.outbox.signal(Layer::Ccp, Signal::Finished);
        }
    }

    fn handle_code(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &ControlPacket<'_>,
        opened: bool,
    ) -> Option<Option<Event>> {
        match packet.code {
            Code::RESET_REQUEST => {
                if opened && self.encrypts() {
                    ctx.outbox.push(LinkOutput::ResetSendKey);
                    let (code, id, data) = (Code::RESET_ACK, packet.id, &[][..]);
                    let ack = ControlPacket { code, id, data }.to_bytes();
                    ctx.outbox.send(Protocol::CCP, &ack);
                }
                Some(None)
            }
            // The flushed bit of the packets says the same, and when (RFC 3078 7).
            Code::RESET_ACK => Some(None),
            _ => None,
        }
    }
}
