//! The IPv6 Control Protocol (RFC 5072): interface identifiers, from which each end makes its
//! link-local address. Compression is never agreed to.
//!
//! It is a guest of the link: whatever becomes of it, IPv4 goes on.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::link::{Ipv6Config, Ipv6Network, LinkOutput};
use super::negotiation::{ControlProtocol, Verdict};
use super::outbox::{Context, Failure, Layer};
use super::timer::Timer;
use crate::wire::ipv6cp::{InterfaceIdentifier, Ipv6cpOption};
use crate::wire::ppp::Protocol;

/// IPV6CP of one link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ipv6cp {
    config: Ipv6Config,
    /// What our request names.
    local: InterfaceIdentifier,
    ask_identifier: bool,
    /// What the peer's last request named and was granted.
    remote: Option<InterfaceIdentifier>,
    /// What we would have a peer that names none, or our own, take instead.
    suggested: Option<InterfaceIdentifier>,
    /// The peer's last request named an identifier, granted or not.
    named: bool,
    /// The peer was asked to name its identifier.
    prompted: bool,
    /// `Ipv6Up` has been said.
    is_up: bool,
}

impl Ipv6cp {
    pub(super) const fn new(config: Ipv6Config) -> Self {
        Self {
            config,
            local: InterfaceIdentifier::ZERO,
            ask_identifier: true,
            remote: None,
            suggested: None,
            named: false,
            prompted: false,
            is_up: false,
        }
    }

    /// What both ends have settled on; `None` where that makes no two addresses.
    pub(super) fn agreed(&self) -> Option<Ipv6Network> {
        let remote = self.remote.or(self.config.remote)?;
        let network = Ipv6Network {
            local: self.local,
            remote,
        };
        (remote != self.local).then_some(network)
    }

    /// Says that IPv6 may pass, once.
    pub(super) fn announce(&mut self, ctx: &mut Context<'_>) {
        let Some(network) = self.agreed().filter(|_| !self.is_up) else {
            return;
        };
        self.is_up = true;
        ctx.outbox
            .report(format!("local  LL address {}", network.local));
        ctx.outbox
            .report(format!("remote LL address {}", network.remote));
        ctx.outbox.push(LinkOutput::Ipv6Up(network));
    }

    /// The network is down, and IPv6 with it.
    pub(super) const fn forget_announcement(&mut self) {
        self.is_up = false;
    }

    /// The peer may call itself so.
    fn is_usable(&self, identifier: InterfaceIdentifier) -> bool {
        identifier != InterfaceIdentifier::ZERO && identifier != self.local
    }

    fn judge_identifier(
        &mut self,
        ctx: &mut Context<'_>,
        asked: InterfaceIdentifier,
    ) -> Verdict<Ipv6cpOption> {
        self.named = true;
        let is_ours_to_say = self
            .config
            .remote
            .is_some_and(|remote| remote != asked && !self.config.accept_remote);
        if self.is_usable(asked) && !is_ours_to_say {
            self.remote = Some(asked);
            return Verdict::Ack;
        }
        Verdict::Nak(Ipv6cpOption::InterfaceIdentifier(self.suggest(ctx)))
    }

    fn suggest(&mut self, ctx: &mut Context<'_>) -> InterfaceIdentifier {
        let configured = self.config.remote.filter(|it| self.is_usable(*it));
        let before = self.suggested.filter(|it| self.is_usable(*it));
        let suggested = configured
            .or(before)
            .unwrap_or_else(|| random_identifier(ctx));
        self.suggested = Some(suggested);
        suggested
    }
}

/// Never zero, and without the bit that claims to be unique in the world (RFC 5072 4.1).
fn random_identifier(ctx: &mut Context<'_>) -> InterfaceIdentifier {
    const UNIVERSAL: u64 = 1 << 57;
    let bits: u64 = ctx.rng.random_range(1..=u64::MAX);
    InterfaceIdentifier((bits & !UNIVERSAL | 1).to_be_bytes())
}

impl ControlProtocol for Ipv6cp {
    type Option = Ipv6cpOption;

    const PROTOCOL: Protocol = Protocol::IPV6CP;
    const NAME: &'static str = "IPV6CP";
    const LAYER: Layer = Layer::Ipv6cp;
    const RESTART: Timer = Timer::Ipv6cpRestart;

    fn reset(&mut self, ctx: &mut Context<'_>) {
        let configured = self
            .config
            .local
            .filter(|it| *it != InterfaceIdentifier::ZERO);
        *self = Self {
            local: configured.unwrap_or_else(|| random_identifier(ctx)),
            ..Self::new(self.config)
        };
    }

    fn request(&self, _ctx: &Context<'_>) -> Vec<Ipv6cpOption> {
        let option = Ipv6cpOption::InterfaceIdentifier(self.local);
        Vec::from_iter(self.ask_identifier.then_some(option))
    }

    fn begin_judgement(&mut self) {
        self.remote = None;
        self.named = false;
    }

    fn judge(
        &mut self,
        ctx: &mut Context<'_>,
        option: &Ipv6cpOption,
    ) -> Result<Verdict<Ipv6cpOption>, Failure> {
        Ok(match *option {
            Ipv6cpOption::InterfaceIdentifier(asked) => self.judge_identifier(ctx, asked),
            Ipv6cpOption::Compression(..) | Ipv6cpOption::Unknown(..) => Verdict::Reject,
        })
    }

    /// A peer that named no identifier is asked for one, once.
    fn missing(&mut self, ctx: &mut Context<'_>) -> Vec<Ipv6cpOption> {
        if self.named || self.prompted {
            return Vec::new();
        }
        self.prompted = true;
        vec![Ipv6cpOption::InterfaceIdentifier(self.suggest(ctx))]
    }

    fn naked(&mut self, ctx: &mut Context<'_>, options: &[Ipv6cpOption]) -> Result<(), Failure> {
        let may_change = self.config.local.is_none() || self.config.accept_local;
        for option in options {
            match *option {
                Ipv6cpOption::InterfaceIdentifier(ours) if may_change => {
                    let is_good = ours != InterfaceIdentifier::ZERO
                        && ![self.remote, self.suggested].contains(&Some(ours));
                    self.local = if is_good {
                        ours
                    } else {
                        random_identifier(ctx)
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn rejected(
        &mut self,
        _ctx: &mut Context<'_>,
        options: &[Ipv6cpOption],
    ) -> Result<(), Failure> {
        let is_identifier = |it: &Ipv6cpOption| matches!(it, Ipv6cpOption::InterfaceIdentifier(_));
        // An identifier that we have needs no consent.
        self.ask_identifier &= !options.iter().any(is_identifier);
        Ok(())
    }

    fn terminated_by_peer(&mut self, ctx: &mut Context<'_>, _reason: &[u8], opened: bool) {
        if opened {
            ctx.outbox.report("IPV6CP terminated by peer");
        }
    }

    fn down(&mut self, ctx: &mut Context<'_>) {
        if self.is_up {
            self.is_up = false;
            ctx.outbox.push(LinkOutput::Ipv6Down);
        }
    }
}
