//! One PPP link over one call: its phases (RFC 1661 3.2), and the order in which they call upon
//! LCP, authentication, CCP, IPCP and IPV6CP.
//!
//! Where MPPE is required, IPCP and IPV6CP are not started before CCP is opened, and what the peer
//! sends of them is not answered. Frames that come before the call is established are kept, a few of them.

use std::sync::Arc;

use bytes::Bytes;
use dataplane::program::MppeSpec;
use serde::{Deserialize, Serialize};

use self::authenticate::{Proving, Verifying};
use super::Time;
use super::auth::{AuthRequest, Authenticated};
use super::ccp::Ccp;
use super::ending::Ending;
use super::ipcp::{self, Ipcp};
use super::ipv6cp::Ipv6cp;
use super::lcp::Lcp;
use super::negotiation::Negotiation;
use super::outbox::{self, Failure, Layer, Signal, Surroundings};
use super::timer::Timer;
use crate::wire::cp::Code;
use crate::wire::ppp::{Frame, Protocol};

pub(super) use snapshot::LinkSnapshot;

pub use config::{
    Addresses, Ipv6Config, Ipv6Network, LcpConfig, LinkConfig, MppeConfig, MppeLimit, Network,
    Report,
};

mod authenticate;
mod config;
mod network;
mod snapshot;
#[cfg(test)]
mod tests;

/// Which end of the call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkRole {
    /// Placed the call: a client.
    Caller,
    /// Was called: a server.
    Callee,
}

/// What a link wants done, in this order.
#[derive(Debug)]
pub enum LinkOutput {
    /// Send this PPP frame: as it stands behind the GRE header.
    Frame(Bytes),
    /// Key what we receive; `None` forgets the key.
    SetReceiveKey(Option<MppeSpec>),
    /// Key what we send; `None` forgets the key.
    SetSendKey(Option<MppeSpec>),
    /// The peer sent a CCP Reset-Request.
    ResetSendKey,
    /// Ask the secrets; `handle_verdict` brings the answer, at once or later.
    Authenticate {
        /// To be given back with the verdict.
        request_id: u32,
        /// What the peer presented.
        request: AuthRequest,
    },
    /// A server that has nobody prove who it is needs addresses, which a verdict would have
    /// brought; `handle_addresses` brings them, at once or later.
    AssignAddresses,
    /// A line for a person.
    Report(Report),
    /// A callee's next frame may be the last that the peer waits for before it sends IP: what carries its
    /// packets must stand before that frame goes out. May come more than once, and `NetworkUp` need
    /// not follow.
    PrepareNetwork(Network),
    /// IP may pass.
    NetworkUp(Network),
    /// IP may pass no more, IPv6 neither.
    NetworkDown,
    /// IPv6 may pass, too, while the network is up.
    Ipv6Up(Ipv6Network),
    /// IPv6 may pass no more.
    Ipv6Down,
    /// The link is over; nothing follows.
    Terminated(Ending),
}

/// RFC 1661 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The call is not established.
    Dead,
    /// LCP negotiates.
    Establish,
    /// One end, or both, prove who they are.
    Authenticate,
    /// CCP, IPCP and IPV6CP negotiate, or IP passes.
    Network,
    /// A Terminate-Request is out.
    Terminate,
    /// `Terminated` has been said.
    Ended,
}

impl Phase {
    /// What is negotiated in it.
    const fn words(self) -> &'static str {
        match self {
            Self::Dead | Self::Establish => "LCP",
            Self::Authenticate => "authentication",
            Self::Network | Self::Terminate | Self::Ended => "IPCP",
        }
    }
}

/// Frames that are kept from before `handle_up`, and octets of the longest one.
const EARLY_FRAMES_MAX: usize = 4;
const EARLY_FRAME_LEN_MAX: usize = 2_048;

/// Octets of a Protocol-Reject in front of the rejected information.
const PROTOCOL_REJECT_HEADER: usize = 6;

/// One PPP link. Time only grows from call to call; after every call drain
/// [`poll_output`](Self::poll_output), then sleep until [`poll_timeout`](Self::poll_timeout).
///
/// When each end proves to the other who it is, and both by MS-CHAP, keys are made from the
/// exchange in which the callee verified the caller. (pppd takes the exchange that ended last,
/// which need not be the same at both ends.)
#[derive(Debug)]
pub struct Link {
    around: Surroundings,
    phase: Phase,
    lcp: Negotiation<Lcp>,
    ccp: Negotiation<Ccp>,
    ipcp: Negotiation<Ipcp>,
    /// `None` does not speak it.
    ipv6cp: Option<Negotiation<Ipv6cp>>,
    proving: Proving,
    verifying: Verifying,
    /// What came of them.
    we_proved: Option<Authenticated>,
    peer_proved: Option<Authenticated>,
    /// `AssignAddresses` has been said, and what it was for is not there yet.
    awaits_addresses: bool,
    /// It has come.
    has_addresses: bool,
    /// Given to the last `Authenticate`.
    request_id: u32,
    early: Vec<Bytes>,
    /// The latest IPCP Configure-Request that came while IPCP had to wait for CCP.
    parked: Option<Bytes>,
    /// The same of IPV6CP.
    parked_ipv6: Option<Bytes>,
    /// The latest CCP Configure-Request whose answer depends on the peer's answer to ours.
    parked_ccp: Option<Bytes>,
    ending: Option<Ending>,
    heard: bool,
}

impl Link {
    /// A link whose lower layer is down. `seed` makes its magic numbers and challenges.
    #[must_use]
    pub fn new(config: Arc<LinkConfig>, role: LinkRole, seed: [u8; 32]) -> Self {
        Self {
            phase: Phase::Dead,
            lcp: Negotiation::new(Lcp::new()),
            ccp: Negotiation::new(Ccp::new()),
            ipcp: Negotiation::new(Ipcp::new(config.addresses.clone())),
            ipv6cp: config.ipv6.map(|ipv6| Negotiation::new(Ipv6cp::new(ipv6))),
            proving: Proving::Unasked,
            verifying: Verifying::Unasked,
            we_proved: None,
            peer_proved: None,
            awaits_addresses: false,
            has_addresses: false,
            request_id: 0,
            early: Vec::new(),
            parked: None,
            parked_ipv6: None,
            parked_ccp: None,
            ending: None,
            heard: false,
            around: Surroundings::new(config, role, seed),
        }
    }

    /// The call is established: LCP starts.
    pub fn handle_up(&mut self, now: Time) {
        if self.phase != Phase::Dead {
            return;
        }
        self.phase = Phase::Establish;
        let mut ctx = self.around.at(now);
        let setup_timeout_ms = ctx.config.lcp.setup_timeout_ms;
        ctx.limit(Timer::SetupDeadline, setup_timeout_ms);
        ctx.limit(Timer::PhaseDeadline, ctx.config.lcp.lcp_timeout_ms);
        self.lcp.open(&mut ctx);
        self.lcp.lower_up(&mut ctx);
        for frame in std::mem::take(&mut self.early) {
            self.dispatch(now, &frame);
        }
        self.settle(now);
    }

    /// A PPP frame came. Before `handle_up` the first few are kept and handled there: GRE may be
    /// faster than the Outgoing-Call-Reply.
    pub fn handle_frame(&mut self, now: Time, frame: &[u8]) {
        self.heard = true;
        if self.phase == Phase::Dead {
            if self.early.len() < EARLY_FRAMES_MAX && frame.len() <= EARLY_FRAME_LEN_MAX {
                self.early.push(Bytes::copy_from_slice(frame));
            }
            return;
        }
        self.dispatch(now, frame);
        self.settle(now);
    }

    /// Packets have come from the peer since the last time, of the network layer among them or not.
    pub fn handle_alive(&mut self, _now: Time, has_traffic: bool) {
        self.lcp.protocol.handle_alive();
        if has_traffic {
            self.lcp.protocol.handle_traffic();
        }
    }

    /// The stateful decryptor lost its place: the peer is asked to start afresh.
    pub fn handle_reset_needed(&mut self, now: Time) {
        if self.ccp.is_opened() && self.ccp.protocol.decrypts() {
            self.ccp
                .send(&mut self.around.at(now), Code::RESET_REQUEST, &[]);
        }
    }

    /// The peer's MPPE counter and ours have parted for good.
    pub fn handle_mppe_lost(&mut self, now: Time) {
        if self.is_ending() {
            return;
        }
        self.around
            .outbox
            .report("Too many MPPE errors, closing LCP");
        let ending = Ending::PeerIncompatible(
            "MPPE lost its place: the peer's packet counter and ours have parted for good".into(),
        );
        self.end(now, "Too many MPPE errors", ending);
        self.settle(now);
    }

    /// The answer to `LinkOutput::AssignAddresses`; `None` when there are none. An answer that is
    /// not waited for is ignored.
    pub fn handle_addresses(&mut self, now: Time, addresses: Option<Addresses>) {
        if !std::mem::take(&mut self.awaits_addresses) || self.phase != Phase::Authenticate {
            return;
        }
        if let Some(addresses) = addresses {
            self.ipcp.protocol.assign(addresses);
            self.has_addresses = true;
            self.finish_authentication(now);
        } else {
            let ending = Ending::NoAddresses("this side has none left to give".into());
            self.end(now, ipcp::TERMINATE_REASON, ending);
        }
        self.settle(now);
    }

    /// Ends the link in order, with a Terminate-Request that carries `reason`.
    pub fn handle_close(&mut self, now: Time, reason: &str, ending: Ending) {
        self.end(now, reason, ending);
        self.settle(now);
    }

    /// The call is gone under us: no frame can be sent any more.
    pub fn handle_down(&mut self, now: Time) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Terminate;
        self.network_layers_down(now);
        self.around.outbox.report("Modem hangup");
        self.finish();
    }

    /// The moment of `poll_timeout` has come; too early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        for timer in Timer::ALL {
            if self.around.timers.expire(timer, now) {
                self.handle_timer(now, timer);
                self.settle(now);
            }
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        outbox::pop(&mut self.around.outbox.outputs)
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.around.timers.next()
    }

    /// Whether any PPP frame has ever come.
    #[must_use]
    pub const fn heard_anything(&self) -> bool {
        self.heard
    }

    /// Why this side has begun to end the link, while that is under way.
    pub(super) const fn ending_so_far(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Terminate | Phase::Ended)
    }

    fn dispatch(&mut self, now: Time, frame: &[u8]) {
        let Ok(frame) = Frame::parse(frame) else {
            return;
        };
        if self.phase == Phase::Ended {
            return;
        }
        self.lcp.protocol.handle_alive();
        if matches!(frame.protocol, Protocol::CCP | Protocol::IPCP) {
            self.take_network_for_success(now);
        }
        let has_authentication = matches!(self.phase, Phase::Authenticate | Phase::Network);
        match frame.protocol {
            Protocol::LCP => self
                .lcp
                .handle_packet(&mut self.around.at(now), frame.payload),
            Protocol::CHAP if has_authentication => self.handle_chap(now, frame.payload),
            Protocol::PAP if has_authentication => self.handle_pap(now, frame.payload),
            Protocol::EAP if has_authentication => self.handle_eap(now, frame.payload),
            Protocol::CCP if self.phase == Phase::Network => {
                self.handle_ccp(now, frame.payload);
            }
            Protocol::IPCP if self.phase == Phase::Network => {
                self.handle_ipcp(now, frame.payload);
            }
            Protocol::IPV6CP if self.ipv6cp.is_none() => {
                self.reject_protocol(now, Protocol::IPV6CP, frame.payload);
            }
            Protocol::IPV6CP if self.phase == Phase::Network => {
                self.handle_ipv6cp(now, frame.payload);
            }
            // Out of phase (RFC 1661 3.4, 3.5), or the data plane's.
            Protocol::CHAP | Protocol::PAP | Protocol::EAP => {}
            Protocol::CCP | Protocol::IPCP | Protocol::IPV6CP => {}
            Protocol::IPV4 | Protocol::IPV6 | Protocol::COMPRESSED => {}
            unknown => self.reject_protocol(now, unknown, frame.payload),
        }
    }

    fn reject_protocol(&mut self, now: Time, protocol: Protocol, payload: &[u8]) {
        let mut ctx = self.around.at(now);
        if !self.lcp.is_opened() || !ctx.outbox.may_reject(now) {
            return;
        }
        let line = format!("Unsupported protocol {:#x} received", protocol.0);
        ctx.outbox.report(line);
        let room = usize::from(self.lcp.protocol.peer.mru).saturating_sub(PROTOCOL_REJECT_HEADER);
        let mut data = protocol.0.to_be_bytes().to_vec();
        data.extend_from_slice(payload.get(..room).unwrap_or(payload));
        self.lcp.send(&mut ctx, Code::PROTOCOL_REJECT, &data);
    }

    /// Acts on what the layers have signalled, until they are quiet.
    fn settle(&mut self, now: Time) {
        while let Some((layer, signal)) = outbox::pop(&mut self.around.outbox.signals) {
            self.handle_signal(now, layer, signal);
        }
    }

    fn handle_signal(&mut self, now: Time, layer: Layer, signal: Signal) {
        match (layer, signal) {
            (Layer::Lcp, Signal::Finished) => self.finish(),
            _ if self.is_ending() => {}
            (_, Signal::Failed(failure)) => self.fail(now, failure),
            (Layer::Lcp, Signal::Up) => self.start_authentication(now),
            (Layer::Lcp, Signal::Down) => {
                self.phase = Phase::Establish;
                self.network_layers_down(now);
                let mut ctx = self.around.at(now);
                ctx.limit(Timer::PhaseDeadline, ctx.config.lcp.lcp_timeout_ms);
            }
            (_, Signal::ProtocolRejected(protocol)) => {
                self.handle_protocol_rejected(now, protocol);
            }
            _ if self.phase != Phase::Network => {}
            (Layer::Ccp, Signal::Up) => self.start_network(now),
            (Layer::Ccp, Signal::Down) => self.ccp_down(now),
            (Layer::Ccp, Signal::Finished) => self.ccp_finished(now),
            (Layer::Ipcp, Signal::Configured) => self.prepare_network(),
            (Layer::Ipcp, Signal::Up) => self.network_up(now),
            (Layer::Ipcp, Signal::Down) => self.network_down(now),
            (Layer::Ipcp, Signal::Finished) => self.ipcp_finished(now),
            (Layer::Ipv6cp, Signal::Up) => self.ipv6_up(now),
            (_, Signal::Configured) | (Layer::Ipv6cp, Signal::Down | Signal::Finished) => {}
        }
    }

    fn handle_timer(&mut self, now: Time, timer: Timer) {
        let mut ctx = self.around.at(now);
        let handled = match timer {
            Timer::LcpRestart => {
                self.lcp.handle_timeout(&mut ctx);
                Ok(())
            }
            Timer::CcpRestart => {
                self.ccp.handle_timeout(&mut ctx);
                Ok(())
            }
            Timer::IpcpRestart => {
                self.ipcp.handle_timeout(&mut ctx);
                Ok(())
            }
            Timer::Ipv6cpRestart => {
                if let Some(ipv6cp) = &mut self.ipv6cp {
                    ipv6cp.handle_timeout(&mut ctx);
                }
                Ok(())
            }
            Timer::Echo => self.lcp.protocol.handle_echo_timeout(&mut ctx),
            Timer::Proving => match &mut self.proving {
                Proving::Pap(pap) => pap.handle_timeout(&mut ctx),
                Proving::Chap(chap) => {
                    chap.repeat_response(&mut ctx);
                    Ok(())
                }
                Proving::Unasked | Proving::Eap(_) => Ok(()),
            },
            Timer::Verifying => match &mut self.verifying {
                Verifying::Chap(chap) => chap.handle_timeout(&mut ctx),
                Verifying::Eap(eap) => eap.handle_timeout(&mut ctx),
                Verifying::PassThrough(eap) => eap.handle_timeout(&mut ctx),
                Verifying::Unasked | Verifying::Pap(_) => Ok(()),
            },
            Timer::AuthDeadline => Err(self.auth_timeout()),
            Timer::CcpSettle => {
                // A peer that has said anything will settle it, or let CCP's own count run out.
                if !self.ccp.has_heard() {
                    self.go_on_without_mppe(now);
                }
                Ok(())
            }
            Timer::SetupDeadline | Timer::PhaseDeadline => Err(Failure {
                reason: "Setup timeout",
                ending: Ending::NegotiationFailed(self.phase.words()),
            }),
        };
        if let Err(failure) = handled {
            self.fail(now, failure);
        }
    }

    fn fail(&mut self, now: Time, failure: Failure) {
        self.end(now, failure.reason, failure.ending);
    }

    /// Ends in order. The first reason given is the one that counts.
    fn end(&mut self, now: Time, reason: &str, ending: Ending) {
        if self.is_ending() {
            return;
        }
        self.phase = Phase::Terminate;
        self.ending = Some(ending);
        self.network_layers_down(now);
        self.around.timers.stop_all();
        if self.lcp.is_down() {
            self.finish();
        } else {
            self.lcp.close(&mut self.around.at(now), reason);
        }
    }

    fn finish(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        let ending = self.ending.take().unwrap_or_else(|| self.ending_by_peer());
        self.phase = Phase::Ended;
        self.around.timers.stop_all();
        self.around.outbox.report("Connection terminated.");
        self.around.outbox.push(LinkOutput::Terminated(ending));
    }

    /// Why a link ended that this side did not end.
    fn ending_by_peer(&mut self) -> Ending {
        let waiting = match &self.proving {
            Proving::Chap(chap) => chap.is_waiting(),
            Proving::Eap(eap) => eap.is_waiting(),
            Proving::Unasked | Proving::Pap(_) => false,
        };
        let lcp = &mut self.lcp.protocol;
        if let Some(method) = lcp.refused_auth.take() {
            let allowed = self.around.config.allow;
            return Ending::PeerIncompatible(format!(
                "the peer demands {method} as proof of who we are, and this side allows {allowed}"
            ));
        }
        match lcp.terminated.take() {
            Some(reason) if waiting && reason.to_ascii_lowercase().contains("authent") => {
                Ending::AuthFailed(reason)
            }
            Some(reason) => Ending::PeerRequest(reason),
            None if self.phase == Phase::Terminate => Ending::PeerRequest(String::new()),
            None => Ending::NegotiationFailed(self.phase.words()),
        }
    }
}
