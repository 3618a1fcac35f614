//! One PPP link over one call: its phases (RFC 1661 3.2), and the order in which they call upon
//! LCP, authentication, CCP and IPCP.
//!
//! Where MPPE is required, IPCP is not started before CCP is opened, and what the peer sends of it
//! is not answered. Frames that come before the call is established are kept, a few of them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use dataplane::program::MppeSpec;

use super::Time;
use super::auth::{AuthMethod, AuthRequest, Authenticated, Verdict};
use super::ccp::{self, Ccp};
use super::chap::{ChapAuthenticator, ChapPeer};
use super::ending::Ending;
use super::ipcp::{self, Ipcp};
use super::lcp::Lcp;
use super::negotiation::Negotiation;
use super::outbox::{Failure, Layer, Signal, Surroundings};
use super::pap::{PapAuthenticator, PapPeer};
use super::timer::Timer;
use crate::wire::chap::ChapPacket;
use crate::wire::cp::Code;
use crate::wire::pap::PapPacket;
use crate::wire::ppp::{Frame, Protocol};

pub use config::{Addresses, LcpConfig, LinkConfig, MppeConfig, Network, Report};

mod config;
#[cfg(test)]
mod tests;

/// Which end of the call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// IP may pass.
    NetworkUp(Network),
    /// IP may pass no more.
    NetworkDown,
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
    /// CCP and IPCP negotiate, or IP passes.
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

/// How we prove who we are.
#[derive(Debug)]
enum Proving {
    Unasked,
    Chap(ChapPeer),
    Pap(PapPeer),
}

/// How the peer proves who it is.
#[derive(Debug)]
enum Verifying {
    Unasked,
    Chap(ChapAuthenticator),
    Pap(PapAuthenticator),
}

/// Frames that are kept from before `handle_up`, and octets of the longest one.
const EARLY_FRAMES_MAX: usize = 4;
const EARLY_FRAME_LEN_MAX: usize = 2_048;

/// Octets that MPPE adds to an IP packet inside the peer's MRU: its header, and the inner protocol
/// field (RFC 3078 3).
const MPPE_OVERHEAD: u16 = 4;

/// Octets of a Protocol-Reject in front of the rejected information.
const PROTOCOL_REJECT_HEADER: usize = 6;

/// Restart intervals that IPCP waits for a peer to say anything about an optional MPPE.
const CCP_PATIENCE: u64 = 4;

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
            proving: Proving::Unasked,
            verifying: Verifying::Unasked,
            we_proved: None,
            peer_proved: None,
            awaits_addresses: false,
            has_addresses: false,
            request_id: 0,
            early: Vec::new(),
            parked: None,
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
        if setup_timeout_ms > 0 {
            ctx.timers
                .set(Timer::SetupDeadline, now.after_ms(setup_timeout_ms));
        }
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

    /// Packets have come from the peer since the last time.
    pub fn handle_alive(&mut self, _now: Time) {
        self.lcp.protocol.handle_alive();
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

    /// The answer to `LinkOutput::Authenticate`. An answer that is no longer waited for is ignored.
    pub fn handle_verdict(&mut self, now: Time, request_id: u32, verdict: Verdict) {
        if self.is_ending() {
            return;
        }
        // Only a server takes its addresses from there; a client's are its own affair.
        let addresses = match &verdict {
            Verdict::Accept { addresses, .. } if self.around.role == LinkRole::Callee => {
                Some(addresses.clone())
            }
            Verdict::Accept { .. } | Verdict::Reject { .. } => None,
        };
        let mut ctx = self.around.at(now);
        let handled = match &mut self.verifying {
            Verifying::Unasked => Ok(None),
            Verifying::Chap(chap) => chap.handle_verdict(&mut ctx, request_id, verdict),
            Verifying::Pap(pap) => pap.handle_verdict(&mut ctx, request_id, verdict),
        };
        match handled {
            Ok(None) => {}
            Ok(Some((authenticated, name))) => {
                let report = Report::PeerAuthenticated(name);
                ctx.outbox.push(LinkOutput::Report(report));
                if let Some(addresses) = addresses {
                    self.ipcp.protocol.assign(addresses);
                }
                self.peer_proved = Some(authenticated);
                self.finish_authentication(now);
            }
            Err(failure) => self.fail(now, failure),
        }
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
        self.around.outbox.outputs.pop_front()
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
        let has_authentication = matches!(self.phase, Phase::Authenticate | Phase::Network);
        match frame.protocol {
            Protocol::LCP => self
                .lcp
                .handle_packet(&mut self.around.at(now), frame.payload),
            Protocol::CHAP if has_authentication => self.handle_chap(now, frame.payload),
            Protocol::PAP if has_authentication => self.handle_pap(now, frame.payload),
            Protocol::CCP if self.phase == Phase::Network => {
                self.handle_ccp(now, frame.payload);
            }
            Protocol::IPCP if self.phase == Phase::Network => {
                self.handle_ipcp(now, frame.payload);
            }
            // Out of phase (RFC 1661 3.4, 3.5), or the data plane's.
            Protocol::CHAP | Protocol::PAP | Protocol::CCP | Protocol::IPCP => {}
            Protocol::IPV4 | Protocol::IPV6 | Protocol::COMPRESSED => {}
            unknown => self.reject_protocol(now, unknown, frame.payload),
        }
    }

    fn handle_ccp(&mut self, now: Time, payload: &[u8]) {
        let fits = payload.len() <= EARLY_FRAME_LEN_MAX;
        if fits && self.ccp.awaits_answer() && self.ccp.protocol.must_wait(payload) {
            self.parked_ccp = Some(Bytes::copy_from_slice(payload));
            return;
        }
        let mut ctx = self.around.at(now);
        self.ccp.handle_packet(&mut ctx, payload);
        let is_due = |payload: &mut Bytes| {
            !self.ccp.awaits_answer() || !self.ccp.protocol.must_wait(payload)
        };
        if let Some(request) = self.parked_ccp.take_if(is_due) {
            self.ccp.handle_packet(&mut ctx, &request);
        }
    }

    /// Until CCP has settled IPCP does not answer at all: a Terminate-Ack, which the table gives
    /// to a closed layer, makes some peers hang up.
    fn handle_ipcp(&mut self, now: Time, payload: &[u8]) {
        let is_request = payload.first() == Some(&Code::CONFIGURE_REQUEST.0);
        if !self.ipcp.is_down() {
            self.ipcp.handle_packet(&mut self.around.at(now), payload);
        } else if is_request && payload.len() <= EARLY_FRAME_LEN_MAX {
            self.parked = Some(Bytes::copy_from_slice(payload));
        }
    }

    fn handle_chap(&mut self, now: Time, payload: &[u8]) {
        let Ok(packet) = ChapPacket::parse(payload) else {
            return;
        };
        let mut ctx = self.around.at(now);
        if let ChapPacket::Response { .. } = packet {
            if let Verifying::Chap(chap) = &mut self.verifying {
                chap.handle_packet(&mut ctx, &packet, &mut self.request_id);
            }
        } else if let Proving::Chap(chap) = &mut self.proving {
            let handled = chap.handle_packet(&mut ctx, &packet);
            self.handle_proved(now, handled);
        }
    }

    fn handle_pap(&mut self, now: Time, payload: &[u8]) {
        let Ok(packet) = PapPacket::parse(payload) else {
            return;
        };
        let mut ctx = self.around.at(now);
        if let PapPacket::AuthenticateRequest { .. } = packet {
            if let Verifying::Pap(pap) = &mut self.verifying {
                pap.handle_packet(&mut ctx, &packet, &mut self.request_id);
            }
        } else if let Proving::Pap(pap) = &mut self.proving {
            let handled = pap.handle_packet(&mut ctx, &packet);
            self.handle_proved(now, handled);
        }
    }

    fn handle_proved(&mut self, now: Time, handled: Result<Option<Authenticated>, Failure>) {
        match handled {
            // A challenge after the first changes no keys.
            Ok(Some(authenticated))
                if self.phase == Phase::Authenticate && self.we_proved.is_none() =>
            {
                self.we_proved = Some(authenticated);
                self.finish_authentication(now);
            }
            Ok(_) => {}
            Err(failure) => self.fail(now, failure),
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
        while let Some((layer, signal)) = self.around.outbox.signals.pop_front() {
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
            }
            (_, Signal::ProtocolRejected(protocol)) => {
                self.handle_protocol_rejected(now, protocol);
            }
            _ if self.phase != Phase::Network => {}
            (Layer::Ccp, Signal::Up) => self.start_ipcp(now),
            (Layer::Ccp, Signal::Down) => self.ccp_down(now),
            (Layer::Ccp, Signal::Finished) => self.ccp_finished(now),
            (Layer::Ipcp, Signal::Up) => self.network_up(now),
            (Layer::Ipcp, Signal::Down) => {}
            (Layer::Ipcp, Signal::Finished) => self.ipcp_finished(now),
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
            Timer::Echo => self.lcp.protocol.handle_echo_timeout(&mut ctx),
            Timer::Proving => match &mut self.proving {
                Proving::Pap(pap) => pap.handle_timeout(&mut ctx),
                Proving::Chap(chap) => {
                    chap.repeat_response(&mut ctx);
                    Ok(())
                }
                Proving::Unasked => Ok(()),
            },
            Timer::Verifying => match &mut self.verifying {
                Verifying::Chap(chap) => chap.handle_timeout(&mut ctx),
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
            Timer::SetupDeadline => Err(Failure {
                reason: "Setup timeout",
                ending: Ending::NegotiationFailed(self.phase.words()),
            }),
        };
        if let Err(failure) = handled {
            self.fail(now, failure);
        }
    }

    fn auth_timeout(&self) -> Failure {
        let is_ours = !matches!(self.proving, Proving::Unasked) && self.we_proved.is_none();
        let ending = if is_ours {
            Ending::NegotiationFailed("authentication")
        } else {
            Ending::PeerAuthFailed("it did not do so in time".into())
        };
        Failure {
            reason: "Authentication timeout",
            ending,
        }
    }

    fn start_authentication(&mut self, now: Time) {
        self.phase = Phase::Authenticate;
        self.we_proved = None;
        self.peer_proved = None;
        self.awaits_addresses = false;
        let mut ctx = self.around.at(now);
        ctx.outbox.push(LinkOutput::Report(Report::LinkUp));
        let due = now.after_ms(ctx.config.lcp.auth_timeout_ms);
        ctx.timers.set(Timer::AuthDeadline, due);
        self.verifying = match self.lcp.protocol.peer_proves_by() {
            None => Verifying::Unasked,
            Some(AuthMethod::Pap) => Verifying::Pap(PapAuthenticator::default()),
            Some(method) => Verifying::Chap(ChapAuthenticator::start(&mut ctx, method)),
        };
        self.proving = match self.lcp.protocol.peer.auth {
            None => Proving::Unasked,
            Some(AuthMethod::Pap) => match PapPeer::start(&mut ctx) {
                Ok(pap) => Proving::Pap(pap),
                Err(failure) => return self.fail(now, failure),
            },
            Some(method) => Proving::Chap(ChapPeer::new(method)),
        };
        self.finish_authentication(now);
    }

    /// Goes on to the network phase when every proof that was demanded has been given.
    fn finish_authentication(&mut self, now: Time) {
        let we_are_done = matches!(self.proving, Proving::Unasked) || self.we_proved.is_some();
        let peer_is_done =
            matches!(self.verifying, Verifying::Unasked) || self.peer_proved.is_some();
        if self.phase != Phase::Authenticate || !we_are_done || !peer_is_done {
            return;
        }
        self.around.timers.stop(Timer::AuthDeadline);
        let brings_addresses = !matches!(self.verifying, Verifying::Unasked);
        if self.around.role == LinkRole::Callee && !brings_addresses && !self.has_addresses {
            self.awaits_addresses = true;
            self.around.outbox.push(LinkOutput::AssignAddresses);
            return;
        }
        self.phase = Phase::Network;
        self.around
            .outbox
            .push(LinkOutput::Report(Report::NetworkPhase));
        self.start_ccp(now);
    }

    /// The exchange that keys are made from: see [`Link`].
    fn take_authenticated(&mut self) -> Option<Authenticated> {
        let (we_proved, peer_proved) = (self.we_proved.as_ref(), self.peer_proved.as_ref());
        let caller_proved = match self.around.role {
            LinkRole::Caller => we_proved,
            LinkRole::Callee => peer_proved,
        };
        let callee_alone = !caller_proved.is_some_and(Authenticated::has_keys);
        match (self.around.role, callee_alone) {
            (LinkRole::Caller, false) | (LinkRole::Callee, true) => self.we_proved.take(),
            (LinkRole::Caller, true) | (LinkRole::Callee, false) => self.peer_proved.take(),
        }
    }

    fn start_ccp(&mut self, now: Time) {
        let authenticated = self.take_authenticated();
        let has_keys = authenticated.as_ref().is_some_and(Authenticated::has_keys);
        let mut ctx = self.around.at(now);
        let mppe = ctx.config.mppe.as_ref();
        if let Some(mppe) = mppe
            && mppe.require
            && !has_keys
        {
            let line = "MPPE required, but MS-CHAP[v2] auth not performed.";
            ctx.outbox.report(line);
            let ours = ccp::demand_words(mppe);
            let theirs = "keys come from MS-CHAP only, and it was not used".into();
            let ending = Ending::MppeRefused { ours, theirs };
            return self.end(now, "MPPE required but not available", ending);
        }
        self.ccp.protocol.authenticate(authenticated);
        match mppe {
            Some(mppe) if has_keys => {
                if !mppe.require {
                    let patience_ms = ctx.config.lcp.restart_ms.saturating_mul(CCP_PATIENCE);
                    ctx.timers.set(Timer::CcpSettle, now.after_ms(patience_ms));
                }
                self.ccp.open(&mut ctx);
                self.ccp.lower_up(&mut ctx);
            }
            _ => {
                self.ccp.open_passively(&mut ctx);
                self.start_ipcp(now);
            }
        }
    }

    /// CCP has settled, one way or the other.
    fn start_ipcp(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        ctx.timers.stop(Timer::CcpSettle);
        if !self.ipcp.is_down() {
            return;
        }
        self.ipcp.open(&mut ctx);
        self.ipcp.lower_up(&mut ctx);
        if let Some(request) = self.parked.take() {
            self.ipcp.handle_packet(&mut ctx, &request);
        }
    }

    /// While IP passes, new keys would be the old ones over again, and with them the key stream:
    /// the link ends, as pppd ends it. Before that CCP may well start afresh, and IPCP with it.
    fn ccp_down(&mut self, now: Time) {
        if !self.ccp.protocol.lost {
            return;
        }
        if !self.ipcp.protocol.is_up {
            self.ipcp.lower_down(&mut self.around.at(now));
            return;
        }
        self.around.outbox.report("MPPE disabled");
        let ending = Ending::PeerIncompatible("the peer took MPPE back while it was in use".into());
        self.end(now, "MPPE disabled", ending);
    }

    fn ccp_finished(&mut self, now: Time) {
        match &self.around.config.mppe {
            Some(mppe) if mppe.require => {
                let reason = "MPPE required but peer negotiation failed";
                let failure = self.ccp.protocol.refusal(mppe, reason);
                self.around.outbox.report(reason);
                self.fail(now, failure);
            }
            Some(_) => self.go_on_without_mppe(now),
            None => self.start_ipcp(now),
        }
    }

    /// The optional MPPE came to nothing, which a peer that speaks CCP must know first: it may have
    /// come to something there, and IP would then be encrypted for nobody.
    fn go_on_without_mppe(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        self.ccp.protocol.forget_receive_key(&mut ctx);
        self.ccp.abandon(&mut ctx, "No MPPE negotiated");
        let knows = self.ccp.protocol.terminated || !self.ccp.is_closing();
        if knows || !self.ccp.has_heard() {
            self.start_ipcp(now);
        }
    }

    fn ipcp_finished(&mut self, now: Time) {
        let ending = if self.ipcp.protocol.terminated {
            Ending::PeerRequest("IPCP terminated by peer".into())
        } else {
            Ending::NegotiationFailed("IPCP")
        };
        self.end(now, ipcp::TERMINATE_REASON, ending);
    }

    fn handle_protocol_rejected(&mut self, now: Time, protocol: Protocol) {
        let mut ctx = self.around.at(now);
        if ctx.outbox.may_reject(now) {
            let line = format!("Protocol-Reject for protocol {:#06x} received", protocol.0);
            ctx.outbox.report(line);
        }
        match protocol {
            Protocol::CCP if self.phase == Phase::Network => {
                let handled = self.ccp.protocol.handle_protocol_rejected(&mut ctx);
                self.ccp.lower_down(&mut ctx);
                match handled {
                    Ok(()) => self.start_ipcp(now),
                    Err(failure) => self.fail(now, failure),
                }
            }
            Protocol::IPCP if self.phase == Phase::Network => {
                let why = "the peer does not speak IP: it rejects IPCP";
                let ending = Ending::PeerIncompatible(why.into());
                self.end(now, ipcp::TERMINATE_REASON, ending);
            }
            _ => {}
        }
    }

    fn network_up(&mut self, now: Time) {
        let (ipcp, ccp) = (&mut self.ipcp.protocol, &self.ccp.protocol);
        let Some(remote) = ipcp.remote else {
            return;
        };
        ipcp.is_up = true;
        self.lcp.protocol.refused_auth = None;
        let named = |server: &Option<Ipv4Addr>| server.filter(|server| !server.is_unspecified());
        let peer = &self.lcp.protocol.peer;
        let config = &self.around.config;
        let overhead = if ccp.encrypts() { MPPE_OVERHEAD } else { 0 };
        let required = config.mppe.is_some_and(|mppe| mppe.require);
        let network = Network {
            local: ipcp.local,
            remote,
            dns: [named(&ipcp.dns[0]), named(&ipcp.dns[1])],
            wins: [named(&ipcp.wins[0]), named(&ipcp.wins[1])],
            mtu: config.lcp.mtu.min(peer.mru.saturating_sub(overhead)),
            compress_protocol: peer.compression.protocol,
            compress_address_control: peer.compression.address_control,
            require_encryption: required || ccp.encrypts() && ccp.decrypts(),
            cipher: ccp.cipher(),
        };
        let outbox = &mut self.around.outbox;
        outbox.report(format!("local  IP address {}", network.local));
        outbox.report(format!("remote IP address {}", network.remote));
        for (rank, server) in ["primary  ", "secondary"].iter().zip(network.dns) {
            if let Some(server) = server {
                outbox.report(format!("{rank} DNS address {server}"));
            }
        }
        outbox.push(LinkOutput::NetworkUp(network));
        self.around.timers.stop(Timer::SetupDeadline);
        if let Verifying::Chap(chap) = &self.verifying {
            chap.schedule(&mut self.around.at(now));
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

    fn network_layers_down(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        for timer in [
            Timer::AuthDeadline,
            Timer::Proving,
            Timer::Verifying,
            Timer::CcpSettle,
        ] {
            ctx.timers.stop(timer);
        }
        self.ipcp.lower_down(&mut ctx);
        self.ccp.lower_down(&mut ctx);
        self.parked = None;
        self.parked_ccp = None;
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
        let waiting = matches!(&self.proving, Proving::Chap(chap) if chap.is_waiting());
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
