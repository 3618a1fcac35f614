//! The IP Control Protocol (RFC 1332) with Microsoft's name servers (RFC 1877).
//!
//! Header compression is never agreed to, nor is the deprecated IP-Addresses option.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ending::Ending;
use super::link::{Addresses, LinkOutput, LinkRole};
use super::negotiation::{ControlProtocol, Verdict};
use super::outbox::{Context, Failure, Layer, Signal};
use super::timer::Timer;
use crate::wire::ipcp::IpcpOption;
use crate::wire::ppp::Protocol;

/// The address that pppd makes up for a peer that names none; it serves as the far end of a
/// point-to-point interface and nothing more.
const REMOTE_DEFAULT: Ipv4Addr = Ipv4Addr::new(10, 64, 64, 64);

pub(super) const TERMINATE_REASON: &str = "No network protocols running";

/// IPCP of one link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ipcp {
    /// What to ask for and to give.
    addresses: Addresses,
    /// The address that our request names; unspecified asks for one.
    pub(super) local: Ipv4Addr,
    ask_address: bool,
    /// What the peer's last request named and was granted.
    pub(super) remote: Option<Ipv4Addr>,
    /// The peer's last request named an address, granted or not.
    named: bool,
    /// The peer was asked to name its address.
    prompted: bool,
    /// Name servers that we ask for, by the latest Nak: `None` does not ask.
    pub(super) dns: [Option<Ipv4Addr>; 2],
    pub(super) wins: [Option<Ipv4Addr>; 2],
    /// The peer ended IPCP.
    pub(super) terminated: bool,
    /// `NetworkUp` has been said.
    pub(super) is_up: bool,
}

impl Ipcp {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self {
            addresses,
            local: Ipv4Addr::UNSPECIFIED,
            ask_address: true,
            remote: None,
            named: false,
            prompted: false,
            dns: [None; 2],
            wins: [None; 2],
            terminated: false,
            is_up: false,
        }
    }

    /// What a verdict brings takes the place of what was configured.
    pub(super) fn assign(&mut self, addresses: Addresses) {
        self.addresses = addresses;
    }

    /// The peer's address as it stands: what its request named, or else what was meant for it.
    pub(super) fn remote_so_far(&self) -> Option<Ipv4Addr> {
        self.remote.or(self.addresses.remote)
    }

    fn judge_address(&mut self, asked: Ipv4Addr) -> Verdict<IpcpOption> {
        self.named = true;
        match self.addresses.remote {
            Some(remote) if asked == remote => {}
            Some(_) if self.addresses.accept_remote && !asked.is_unspecified() => {}
            Some(remote) => return Verdict::Nak(IpcpOption::Address(remote)),
            // Neither end knows: there is nothing to propose.
            None if asked.is_unspecified() => return Verdict::Reject,
            None => {}
        }
        self.remote = Some(asked);
        Verdict::Ack
    }

    fn failure(why: String) -> Failure {
        Failure {
            reason: TERMINATE_REASON,
            ending: Ending::NoAddresses(why),
        }
    }
}

/// The peer asks for a name server: it gets the one that we have, or none.
fn judge_server(
    asked: Ipv4Addr,
    ours: Option<Ipv4Addr>,
    option: fn(Ipv4Addr) -> IpcpOption,
) -> Verdict<IpcpOption> {
    match ours {
        None => Verdict::Reject,
        Some(server) if server == asked => Verdict::Ack,
        Some(server) => Verdict::Nak(option(server)),
    }
}

impl ControlProtocol for Ipcp {
    type Option = IpcpOption;

    const PROTOCOL: Protocol = Protocol::IPCP;
    const NAME: &'static str = "IPCP";
    const LAYER: Layer = Layer::Ipcp;
    const RESTART: Timer = Timer::IpcpRestart;

    fn reset(&mut self, _ctx: &mut Context<'_>) {
        let asked = |ask: bool| [ask.then_some(Ipv4Addr::UNSPECIFIED); 2];
        *self = Self {
            local: self.addresses.local.unwrap_or(Ipv4Addr::UNSPECIFIED),
            dns: asked(self.addresses.ask_dns),
            wins: asked(self.addresses.ask_wins),
            ..Self::new(self.addresses.clone())
        };
    }

    fn request(&self, _ctx: &Context<'_>) -> Vec<IpcpOption> {
        [
            self.ask_address.then_some(IpcpOption::Address(self.local)),
            self.dns[0].map(IpcpOption::Dns1),
            self.dns[1].map(IpcpOption::Dns2),
            self.wins[0].map(IpcpOption::Wins1),
            self.wins[1].map(IpcpOption::Wins2),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn begin_judgement(&mut self) {
        self.remote = None;
        self.named = false;
    }

    fn judge(
        &mut self,
        _ctx: &mut Context<'_>,
        option: &IpcpOption,
    ) -> Result<Verdict<IpcpOption>, Failure> {
        let [dns1, dns2] = self.addresses.dns;
        let [wins1, wins2] = self.addresses.wins;
        Ok(match *option {
            IpcpOption::Address(asked) => self.judge_address(asked),
            IpcpOption::Dns1(asked) => judge_server(asked, dns1, IpcpOption::Dns1),
            IpcpOption::Dns2(asked) => judge_server(asked, dns2, IpcpOption::Dns2),
            IpcpOption::Wins1(asked) => judge_server(asked, wins1, IpcpOption::Wins1),
            IpcpOption::Wins2(asked) => judge_server(asked, wins2, IpcpOption::Wins2),
            IpcpOption::Addresses(..) | IpcpOption::Compression(..) | IpcpOption::Unknown(..) => {
                Verdict::Reject
            }
        })
    }

    /// A peer that named no address is asked for one, once, as pppd does.
    fn missing(&mut self, _ctx: &mut Context<'_>) -> Vec<IpcpOption> {
        if self.named || self.prompted {
            return Vec::new();
        }
        self.prompted = true;
        let proposed = self.addresses.remote.unwrap_or(Ipv4Addr::UNSPECIFIED);
        vec![IpcpOption::Address(proposed)]
    }

    fn nak_limit(&mut self, _ctx: &mut Context<'_>) -> Result<(), Failure> {
        match (self.remote, self.addresses.remote) {
            (None, Some(remote)) if self.named => Err(Self::failure(format!(
                "the peer does not take the address {remote}"
            ))),
            _ => Ok(()),
        }
    }

    fn naked(&mut self, _ctx: &mut Context<'_>, options: &[IpcpOption]) -> Result<(), Failure> {
        let may_change = self.addresses.local.is_none() || self.addresses.accept_local;
        let [dns1, dns2] = &mut self.dns;
        let [wins1, wins2] = &mut self.wins;
        for option in options {
            match *option {
                IpcpOption::Address(ours) if may_change && !ours.is_unspecified() => {
                    self.local = ours;
                }
                IpcpOption::Dns1(server) => *dns1 = dns1.map(|_| server),
                IpcpOption::Dns2(server) => *dns2 = dns2.map(|_| server),
                IpcpOption::Wins1(server) => *wins1 = wins1.map(|_| server),
                IpcpOption::Wins2(server) => *wins2 = wins2.map(|_| server),
                _ => {}
            }
        }
        Ok(())
    }

    fn rejected(&mut self, _ctx: &mut Context<'_>, options: &[IpcpOption]) -> Result<(), Failure> {
        for option in options {
            match *option {
                IpcpOption::Address(asked) if asked.is_unspecified() => {
                    return Err(Self::failure(
                        "the peer has no address for this side".into(),
                    ));
                }
                IpcpOption::Address(asked) if self.addresses.local.is_none() => {
                    return Err(Self::failure(format!(
                        "the peer offers {asked} and rejects it"
                    )));
                }
                // An address that we know needs no consent.
                IpcpOption::Address(_) => self.ask_address = false,
                IpcpOption::Dns1(_) => self.dns[0] = None,
                IpcpOption::Dns2(_) => self.dns[1] = None,
                IpcpOption::Wins1(_) => self.wins[0] = None,
                IpcpOption::Wins2(_) => self.wins[1] = None,
                _ => {}
            }
        }
        Ok(())
    }

    fn configured(&mut self, ctx: &mut Context<'_>) {
        ctx.outbox.signal(Layer::Ipcp, Signal::Configured);
    }

    fn up(&mut self, ctx: &mut Context<'_>) {
        if self.local.is_unspecified() {
            let failure = Self::failure("the peer gave this side none".into());
            ctx.outbox.report("Could not determine local IP address");
            ctx.outbox.signal(Layer::Ipcp, Signal::Failed(failure));
            return;
        }
        if self.remote.is_some() {
            return;
        }
        self.remote = self.addresses.remote;
        if self.remote.is_none() && ctx.role == LinkRole::Caller {
            let line =
                format!("Could not determine remote IP address: defaulting to {REMOTE_DEFAULT}");
            ctx.outbox.report(line);
            self.remote = Some(REMOTE_DEFAULT);
        }
        if self.remote.is_none() {
            let failure = Self::failure("the peer has none and names none".into());
            ctx.outbox.signal(Layer::Ipcp, Signal::Failed(failure));
        }
    }

    fn terminated_by_peer(&mut self, ctx: &mut Context<'_>, _reason: &[u8], opened: bool) {
        if opened {
            self.terminated = true;
            ctx.outbox.report("IPCP terminated by peer");
        }
    }

    fn down(&mut self, ctx: &mut Context<'_>) {
        if self.is_up {
            self.is_up = false;
            ctx.outbox.push(LinkOutput::NetworkDown);
        }
    }
}
