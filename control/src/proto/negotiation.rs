//! What runs the automaton of RFC 1661 4 for LCP, CCP, IPCP and IPV6CP: identifiers, the restart
//! timer and its counters (4.6), retransmission, and the packets of RFC 1661 5.1 to 5.6.
//!
//! Where RFC 1661 leaves a choice, it is made as pppd makes it: identifiers start at 1, a
//! retransmitted Configure-Request keeps its identifier, an Ack, Nak or Reject counts once.
//!
//! At one point this goes beyond the table: when the peer repeats, identifier and all, the very
//! Configure-Request that opened the layer, our Ack was lost, not the layer. The Ack is repeated
//! and the layer stays up; GRE loses packets, and RFC 1661 thought of modems.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Time;
use super::automaton::{Action, Event, State, transition};
use super::outbox::{Context, Failure, Layer, Signal};
use super::timer::Timer;
use crate::wire::cp::{Code, ConfigOption, ControlPacket, configure};
use crate::wire::ppp::Protocol;

/// After a Terminate-Request has been acknowledged, the lower layer is held this long at most, so
/// that a repeated one is acknowledged too (RFC 1661 4.4, zrc).
const LINGER_MS: u64 = 1_000;

/// Code, Identifier and Length.
const CP_HEADER_LEN: usize = 4;

/// Octets of an unknown packet that a Code-Reject carries back.
const CODE_REJECT_DATA_MAX: usize = 256;

/// What is said to one option that the peer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict<O> {
    Ack,
    /// Not with this value, but with that.
    Nak(O),
    Reject,
}

/// What LCP, CCP, IPCP and IPV6CP each know of their own options.
pub(super) trait ControlProtocol {
    type Option: ConfigOption + Clone;

    const PROTOCOL: Protocol;
    const NAME: &'static str;
    const LAYER: Layer;
    const RESTART: Timer;

    /// The lower layer has come up: what earlier negotiations changed is forgotten.
    fn reset(&mut self, ctx: &mut Context<'_>);

    /// Options of our next Configure-Request, in pppd's order.
    fn request(&self, ctx: &Context<'_>) -> Vec<Self::Option>;

    /// The peer's next Configure-Request is about to be judged: what the last one said is void.
    fn begin_judgement(&mut self);

    /// Judges one option of the peer's request, and keeps what it says.
    fn judge(
        &mut self,
        ctx: &mut Context<'_>,
        option: &Self::Option,
    ) -> Result<Verdict<Self::Option>, Failure>;

    /// What the peer's request lacks: appended to a Nak (RFC 1661 5.3).
    fn missing(&mut self, _ctx: &mut Context<'_>) -> Vec<Self::Option> {
        Vec::new()
    }

    /// Max-Failure Naks have changed nothing; from now on the options will be rejected.
    fn nak_limit(&mut self, _ctx: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// The peer wants other values in our request.
    fn naked(&mut self, ctx: &mut Context<'_>, options: &[Self::Option]) -> Result<(), Failure>;

    /// The peer wants no such options in our request.
    fn rejected(&mut self, ctx: &mut Context<'_>, options: &[Self::Option]) -> Result<(), Failure>;

    /// A Configure-Request of ours and a Configure-Ack of ours are both out, or go out next: from
    /// then on the peer may act on them.
    fn configured(&mut self, _ctx: &mut Context<'_>) {}

    /// This-Layer-Up.
    fn up(&mut self, _ctx: &mut Context<'_>) {}

    /// This-Layer-Down.
    fn down(&mut self, _ctx: &mut Context<'_>) {}

    /// A packet whose code is this protocol's own; `None` when the code is unknown.
    fn handle_code(
        &mut self,
        _ctx: &mut Context<'_>,
        _packet: &ControlPacket<'_>,
        _opened: bool,
    ) -> Option<Option<Event>> {
        None
    }

    /// Send-Echo-Reply.
    fn echo_reply(&mut self, _ctx: &mut Context<'_>, _packet: &ControlPacket<'_>) {}

    /// The peer does not know a code beyond those of RFC 1661 5.1 to 5.6.
    fn code_rejected(&mut self, _code: Code) {}

    /// A Terminate-Request came, with these words.
    fn terminated_by_peer(&mut self, _ctx: &mut Context<'_>, _reason: &[u8], _opened: bool) {}
}

/// One protocol's automaton at work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Negotiation<P> {
    pub(super) protocol: P,
    state: State,
    /// Of the last packet that took a new identifier.
    last_id: u8,
    request_id: u8,
    /// Options of the Configure-Request that is out.
    request: Bytes,
    /// No Ack, Nak or Reject has come for it.
    unanswered: bool,
    restart_count: u32,
    /// Naks sent since the last Ack.
    failure_count: u32,
    /// Naks received since the lower layer came up.
    nak_count: u32,
    /// The request that was acknowledged last: its identifier, options, and when.
    acked: Option<(u8, Bytes, Time)>,
    /// Goes into our Terminate-Requests.
    close_reason: Bytes,
    /// A packet has come since the lower layer came up.
    heard: bool,
}

impl<P: ControlProtocol> Negotiation<P> {
    pub(super) const fn new(protocol: P) -> Self {
        Self {
            protocol,
            state: State::Initial,
            last_id: 0,
            request_id: 0,
            request: Bytes::new(),
            unanswered: false,
            restart_count: 0,
            failure_count: 0,
            nak_count: 0,
            acked: None,
            close_reason: Bytes::new(),
            heard: false,
        }
    }

    pub(super) fn is_opened(&self) -> bool {
        self.state == State::Opened
    }

    /// No packet has been asked of this layer yet, or none is any more.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Initial | State::Starting)
    }

    /// The peer speaks this protocol.
    pub(super) const fn has_heard(&self) -> bool {
        self.heard
    }

    /// Our Configure-Request is out, and nothing was said to it.
    pub(super) const fn awaits_answer(&self) -> bool {
        self.unanswered
    }

    /// The peer has still to acknowledge our Terminate-Request.
    pub(super) fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    pub(super) fn open(&mut self, ctx: &mut Context<'_>) {
        self.step(ctx, Event::Open, None);
    }

    /// Opens without asking for anything until the peer does (RFC 1661 4.2, Stopped).
    pub(super) fn open_passively(&mut self, ctx: &mut Context<'_>) {
        if self.is_down() {
            self.state = State::Initial;
            self.lower_up(ctx);
            self.state = State::Stopped;
        }
    }

    pub(super) fn lower_up(&mut self, ctx: &mut Context<'_>) {
        self.failure_count = 0;
        self.nak_count = 0;
        self.acked = None;
        self.heard = false;
        self.protocol.reset(ctx);
        self.step(ctx, Event::Up, None);
    }

    pub(super) fn lower_down(&mut self, ctx: &mut Context<'_>) {
        self.step(ctx, Event::Down, None);
    }

    /// Ends in order; `reason` goes into the Terminate-Request.
    pub(super) fn close(&mut self, ctx: &mut Context<'_>, reason: &str) {
        const REASON_LEN_MAX: usize = 255;
        let octets = reason.as_bytes();
        let kept = octets.get(..REASON_LEN_MAX).unwrap_or(octets);
        self.close_reason = Bytes::copy_from_slice(kept);
        self.step(ctx, Event::Close, None);
    }

    /// Ends for good, though the layer may not have been opened: the peer may think that it is, and
    /// hears of the end until it acknowledges it. From then on its requests get Terminate-Acks.
    ///
    /// The table has no such event: it takes the other end of a layer that came to nothing for one
    /// that came to nothing too, and a lost Configure-Ack belies that.
    pub(super) fn abandon(&mut self, ctx: &mut Context<'_>, reason: &str) {
        if self.is_down() || matches!(self.state, State::Closed | State::Closing) {
            return;
        }
        if self.state == State::Stopped {
            self.state = State::ReqSent;
        }
        self.close(ctx, reason);
        if self.state == State::Closing {
            // Nothing above this layer says it again.
            self.restart_count = ctx.config.lcp.max_configure;
        }
    }

    /// Sends a packet of this protocol's own, with an identifier of its own.
    pub(super) fn send(&mut self, ctx: &mut Context<'_>, code: Code, data: &[u8]) {
        let id = self.next_id();
        let packet = ControlPacket { code, id, data }.to_bytes();
        ctx.outbox.send(P::PROTOCOL, &packet);
    }

    /// The restart timer has run out.
    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let event = if self.restart_count > 0 {
            Event::TimeoutRetry
        } else {
            if matches!(self.state, State::ReqSent | State::AckRcvd | State::AckSent) {
                let line = format!("{}: timeout sending Config-Requests", P::NAME);
                ctx.outbox.report(line);
            }
            Event::TimeoutFinal
        };
        self.step(ctx, event, None);
    }

    /// One packet of this protocol. What does not fit is discarded silently (RFC 1661 5).
    pub(super) fn handle_packet(&mut self, ctx: &mut Context<'_>, payload: &[u8]) {
        let Ok(packet) = ControlPacket::parse(payload) else {
            return;
        };
        if self.is_down() {
            return;
        }
        self.heard = true;
        let handled = match packet.code {
            Code::CONFIGURE_REQUEST => self.handle_request(ctx, &packet),
            Code::CONFIGURE_ACK => {
                self.handle_ack(ctx, &packet);
                Ok(())
            }
            Code::CONFIGURE_NAK | Code::CONFIGURE_REJECT => self.handle_nak(ctx, &packet),
            _ => {
                self.handle_other(ctx, &packet);
                Ok(())
            }
        };
        if let Err(failure) = handled {
            ctx.outbox.signal(P::LAYER, Signal::Failed(failure));
        }
    }

    fn handle_request(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &ControlPacket<'_>,
    ) -> Result<(), Failure> {
        let Ok(options) = P::Option::parse_all(packet.data) else {
            return Ok(());
        };
        if self.is_repeated(ctx, packet) {
            reply::<P>(ctx, Code::CONFIGURE_ACK, Some(packet));
            return Ok(());
        }
        if matches!(self.state, State::Closed | State::Closing | State::Stopping) {
            self.step(ctx, Event::RcrBad, Some(packet));
            return Ok(());
        }
        match self.judge(ctx, &options)? {
            Answer::Ack => {
                self.failure_count = 0;
                let data = Bytes::copy_from_slice(packet.data);
                self.acked = Some((packet.id, data, ctx.now));
                self.step(ctx, Event::RcrGood, Some(packet));
            }
            Answer::Refuse(code, refused) => {
                let refusal = configure(code, packet.id, &refused);
                self.perform(ctx, Event::RcrBad, Some(packet), Some(&refusal));
            }
        }
        Ok(())
    }

    /// Whether `packet` is the request that opened this layer, sent again because our Ack got lost.
    fn is_repeated(&self, ctx: &Context<'_>, packet: &ControlPacket<'_>) -> bool {
        let lcp = &ctx.config.lcp;
        let patience_ms = lcp.restart_ms.saturating_mul(lcp.max_configure.into());
        self.is_opened()
            && self.acked.as_ref().is_some_and(|(id, data, at)| {
                *id == packet.id && data == packet.data && ctx.now <= at.after_ms(patience_ms)
            })
    }

    fn judge(
        &mut self,
        ctx: &mut Context<'_>,
        options: &[P::Option],
    ) -> Result<Answer<P::Option>, Failure> {
        self.protocol.begin_judgement();
        let (mut naks, mut unwanted, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for option in options {
            match self.protocol.judge(ctx, option)? {
                Verdict::Ack => {}
                Verdict::Nak(better) => {
                    naks.push(better);
                    unwanted.push(option.clone());
                }
                Verdict::Reject => rejects.push(option.clone()),
            }
        }
        if !rejects.is_empty() {
            return Ok(Answer::Refuse(Code::CONFIGURE_REJECT, rejects));
        }
        let may_nak = self.failure_count < ctx.config.lcp.max_failure;
        let missing = self.protocol.missing(ctx);
        if naks.is_empty() && missing.is_empty() {
            return Ok(Answer::Ack);
        }
        if may_nak {
            self.failure_count += 1;
            naks.extend(missing);
            return Ok(Answer::Refuse(Code::CONFIGURE_NAK, naks));
        }
        self.protocol.nak_limit(ctx)?;
        if unwanted.is_empty() {
            return Ok(Answer::Ack);
        }
        Ok(Answer::Refuse(Code::CONFIGURE_REJECT, unwanted))
    }

    /// An Ack must be the request that is out, to the octet (RFC 1661 5.2).
    fn handle_ack(&mut self, ctx: &mut Context<'_>, packet: &ControlPacket<'_>) {
        if self.answers_request(packet) && packet.data == self.request {
            self.unanswered = false;
            self.step(ctx, Event::Rca, Some(packet));
        }
    }

    fn handle_nak(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &ControlPacket<'_>,
    ) -> Result<(), Failure> {
        if !self.answers_request(packet) {
            return Ok(());
        }
        let Ok(options) = P::Option::parse_all(packet.data) else {
            return Ok(());
        };
        self.nak_count = self.nak_count.saturating_add(1);
        let nak_max = ctx.config.lcp.max_failure;
        if packet.code == Code::CONFIGURE_NAK && self.nak_count <= nak_max {
            self.unanswered = false;
            self.protocol.naked(ctx, &options)?;
        } else {
            let Some(asked) = self.asked_of(&options) else {
                return Ok(());
            };
            self.unanswered = false;
            self.protocol.rejected(ctx, &asked)?;
        }
        self.step(ctx, Event::Rcn, Some(packet));
        Ok(())
    }

    /// Those of `options` that our request has, by kind. Each is rejected once, so that a peer that
    /// goes on rejecting, or Nak'ing past all patience, ends the exchange and not our patience.
    fn asked_of(&self, options: &[P::Option]) -> Option<Vec<P::Option>> {
        let mut asked = P::Option::parse_all(&self.request).unwrap_or_default();
        asked.retain(|ours| options.iter().any(|theirs| theirs.kind() == ours.kind()));
        (!asked.is_empty()).then_some(asked)
    }

    fn answers_request(&self, packet: &ControlPacket<'_>) -> bool {
        self.unanswered && packet.id == self.request_id
    }

    fn handle_other(&mut self, ctx: &mut Context<'_>, packet: &ControlPacket<'_>) {
        let event = match packet.code {
            Code::TERMINATE_REQUEST => {
                let opened = self.is_opened();
                self.protocol.terminated_by_peer(ctx, packet.data, opened);
                Event::Rtr
            }
            Code::TERMINATE_ACK => Event::Rta,
            Code::CODE_REJECT => match packet.data.first() {
                Some(1..=7) => Event::RxjBad,
                Some(&code) => {
                    self.protocol.code_rejected(Code(code));
                    Event::RxjGood
                }
                None => return,
            },
            _ => {
                let opened = self.is_opened();
                match self.protocol.handle_code(ctx, packet, opened) {
                    Some(Some(event)) => event,
                    Some(None) => return,
                    None => Event::Ruc,
                }
            }
        };
        self.step(ctx, event, Some(packet));
    }

    fn step(&mut self, ctx: &mut Context<'_>, event: Event, packet: Option<&ControlPacket<'_>>) {
        self.perform(ctx, event, packet, None);
    }

    /// One row and column of the table, with what its actions need: the packet that caused it, and
    /// the Nak or Reject that answers it.
    fn perform(
        &mut self,
        ctx: &mut Context<'_>,
        event: Event,
        packet: Option<&ControlPacket<'_>>,
        refusal: Option<&Bytes>,
    ) {
        let Some((actions, next)) = transition(self.state, event) else {
            return;
        };
        for &action in actions {
            match action {
                Action::Tlu => {
                    self.protocol.up(ctx);
                    ctx.outbox.signal(P::LAYER, Signal::Up);
                }
                Action::Tld => {
                    self.protocol.down(ctx);
                    ctx.outbox.signal(P::LAYER, Signal::Down);
                }
                Action::Tls => {}
                Action::Tlf => ctx.outbox.signal(P::LAYER, Signal::Finished),
                Action::Irc => {
                    let lcp = &ctx.config.lcp;
                    let terminates = actions.contains(&Action::Str);
                    self.restart_count = if terminates {
                        lcp.max_terminate
                    } else {
                        lcp.max_configure
                    };
                }
                Action::Zrc => {
                    self.restart_count = 0;
                    self.restart(ctx, ctx.config.lcp.restart_ms.min(LINGER_MS));
                }
                Action::Scr => {
                    let repeats = event == Event::TimeoutRetry;
                    self.send_request(ctx, repeats, next == State::AckSent);
                }
                Action::Sca => {
                    self.protocol.configured(ctx);
                    reply::<P>(ctx, Code::CONFIGURE_ACK, packet);
                }
                Action::Scn => {
                    if let Some(refusal) = refusal {
                        ctx.outbox.send(P::PROTOCOL, refusal);
                    }
                }
                Action::Str => self.send_terminate_request(ctx),
                Action::Sta => send_terminate_ack::<P>(ctx, packet, self.last_id),
                Action::Scj => self.send_code_reject(ctx, packet),
                Action::Ser => {
                    if let Some(packet) = packet {
                        self.protocol.echo_reply(ctx, packet);
                    }
                }
            }
        }
        self.state = next;
        if !next.is_timed() {
            ctx.timers.stop(P::RESTART);
        }
    }

    fn next_id(&mut self) -> u8 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    fn restart(&self, ctx: &mut Context<'_>, after_ms: u64) {
        ctx.timers.set(P::RESTART, ctx.now.after_ms(after_ms));
    }

    fn count_restart(&mut self, ctx: &mut Context<'_>) {
        self.restart_count = self.restart_count.saturating_sub(1);
        self.restart(ctx, ctx.config.lcp.restart_ms);
    }

    /// `acked`: our Configure-Ack to the peer stands, so the peer may act on this request.
    fn send_request(&mut self, ctx: &mut Context<'_>, repeats: bool, acked: bool) {
        if !repeats {
            self.request_id = self.next_id();
            let options = self.protocol.request(ctx);
            let packet = configure(Code::CONFIGURE_REQUEST, self.request_id, &options);
            self.request = packet.slice(CP_HEADER_LEN.min(packet.len())..);
        }
        self.unanswered = true;
        if acked {
            self.protocol.configured(ctx);
        }
        let (code, id, data) = (Code::CONFIGURE_REQUEST, self.request_id, &self.request[..]);
        let packet = ControlPacket { code, id, data }.to_bytes();
        ctx.outbox.send(P::PROTOCOL, &packet);
        self.count_restart(ctx);
    }

    fn send_terminate_request(&mut self, ctx: &mut Context<'_>) {
        let reason = self.close_reason.clone();
        self.send(ctx, Code::TERMINATE_REQUEST, &reason);
        self.count_restart(ctx);
    }

    fn send_code_reject(&mut self, ctx: &mut Context<'_>, packet: Option<&ControlPacket<'_>>) {
        let Some(unknown) = packet else { return };
        if !ctx.outbox.may_reject(ctx.now) {
            return;
        }
        let unknown = unknown.to_bytes();
        let data = unknown.get(..CODE_REJECT_DATA_MAX).unwrap_or(&unknown);
        self.send(ctx, Code::CODE_REJECT, data);
    }
}

/// What is said to a whole Configure-Request.
enum Answer<O> {
    Ack,
    /// Configure-Nak or Configure-Reject, with these options.
    Refuse(Code, Vec<O>),
}

/// Sends `packet` back with another code.
fn reply<P: ControlProtocol>(
    ctx: &mut Context<'_>,
    code: Code,
    packet: Option<&ControlPacket<'_>>,
) {
    if let Some(&ControlPacket { id, data, .. }) = packet {
        let packet = ControlPacket { code, id, data }.to_bytes();
        ctx.outbox.send(P::PROTOCOL, &packet);
    }
}

/// Answers `packet`, or re-synchronizes the peer's automaton when it was no Terminate-Request.
fn send_terminate_ack<P: ControlProtocol>(
    ctx: &mut Context<'_>,
    packet: Option<&ControlPacket<'_>>,
    last_id: u8,
) {
    let id = packet.map_or(last_id, |packet| packet.id);
    let (code, data) = (Code::TERMINATE_ACK, &[][..]);
    let packet = ControlPacket { code, id, data }.to_bytes();
    ctx.outbox.send(P::PROTOCOL, &packet);
}
