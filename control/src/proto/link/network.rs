//! The Network-Layer Protocol phase (RFC 1661 3.6): CCP first, then IPCP and IPV6CP.

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::authenticate::Verifying;
use super::{EARLY_FRAME_LEN_MAX, Link, LinkOutput, LinkRole, Network, Phase};
use crate::proto::Time;
use crate::proto::auth::Authenticated;
use crate::proto::ccp;
use crate::proto::ending::Ending;
use crate::proto::ipcp;
use crate::proto::negotiation::{ControlProtocol, Negotiation};
use crate::proto::outbox::Context;
use crate::proto::timer::Timer;
use crate::wire::cp::Code;
use crate::wire::ppp::Protocol;

/// Octets that MPPE adds to an IP packet inside the peer's MRU: its header, and the inner protocol
/// field (RFC 3078 3).
const MPPE_OVERHEAD: u16 = 4;

/// Said to a peer with which MPPE cannot even be negotiated.
const NO_MPPE: &str = "MPPE required but not available";

/// Restart intervals that IPCP waits for a peer to say anything about an optional MPPE.
const CCP_PATIENCE: u64 = 4;

impl Link {
    pub(super) fn start_ccp(&mut self, now: Time) {
        let authenticated = self.take_authenticated();
        let has_keys = authenticated.as_ref().is_some_and(Authenticated::has_keys);
        let mut ctx = self.around.at(now);
        let mppe = ctx.mppe;
        if mppe.is_some_and(|mppe| !mppe.allows_any()) {
            ctx.outbox
                .report("MPPE required, but no strength is allowed.");
            let ending =
                ccp::nothing_left(self.around.config.mppe.as_ref(), self.around.mppe_limit);
            return self.end(now, NO_MPPE, ending);
        }
        if let Some(mppe) = mppe
            && mppe.require
            && !has_keys
        {
            let line = "MPPE required, but MS-CHAP[v2] auth not performed.";
            ctx.outbox.report(line);
            let ours = ccp::demand_words(&mppe);
            let theirs = "keys come from MS-CHAP only, and it was not used".into();
            let ending = Ending::MppeRefused { ours, theirs };
            return self.end(now, NO_MPPE, ending);
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
                self.start_network(now);
            }
        }
    }

    /// CCP has settled, one way or the other.
    pub(super) fn start_network(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        ctx.timers.stop(Timer::CcpSettle);
        if self.ipcp.is_down() {
            start(&mut self.ipcp, &mut ctx, self.parked.take());
        }
        if let Some(ipv6cp) = self.ipv6cp.as_mut().filter(|ipv6cp| ipv6cp.is_down()) {
            start(ipv6cp, &mut ctx, self.parked_ipv6.take());
        }
    }

    pub(super) fn handle_ccp(&mut self, now: Time, payload: &[u8]) {
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
    pub(super) fn handle_ipcp(&mut self, now: Time, payload: &[u8]) {
        if !self.ipcp.is_down() {
            self.ipcp.handle_packet(&mut self.around.at(now), payload);
        } else if let Some(request) = worth_parking(payload) {
            self.parked = Some(request);
        }
    }

    /// The same, where IPV6CP is spoken.
    pub(super) fn handle_ipv6cp(&mut self, now: Time, payload: &[u8]) {
        match &mut self.ipv6cp {
            Some(ipv6cp) if !ipv6cp.is_down() => {
                ipv6cp.handle_packet(&mut self.around.at(now), payload);
            }
            Some(_) => {
                if let Some(request) = worth_parking(payload) {
                    self.parked_ipv6 = Some(request);
                }
            }
            None => {}
        }
    }

    /// While IP passes, new keys would be the old ones over again, and with them the key stream:
    /// the link ends, as pppd ends it. Before that CCP may well start afresh, and IPCP with it.
    pub(super) fn ccp_down(&mut self, now: Time) {
        if !self.ccp.protocol.lost {
            return;
        }
        if !self.ipcp.protocol.is_up {
            let mut ctx = self.around.at(now);
            if let Some(ipv6cp) = &mut self.ipv6cp {
                ipv6cp.lower_down(&mut ctx);
            }
            self.ipcp.lower_down(&mut ctx);
            return;
        }
        self.around.outbox.report("MPPE disabled");
        let ending = Ending::PeerIncompatible("the peer took MPPE back while it was in use".into());
        self.end(now, "MPPE disabled", ending);
    }

    pub(super) fn ccp_finished(&mut self, now: Time) {
        match self.around.mppe() {
            Some(mppe) if mppe.require => {
                let reason = "MPPE required but peer negotiation failed";
                let failure = self.ccp.protocol.refusal(&mppe, reason);
                self.around.outbox.report(reason);
                self.fail(now, failure);
            }
            Some(_) => self.go_on_without_mppe(now),
            None => self.start_network(now),
        }
    }

    /// The optional MPPE came to nothing, which a peer that speaks CCP must know first: it may have
    /// come to something there, and IP would then be encrypted for nobody.
    pub(super) fn go_on_without_mppe(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        self.ccp.protocol.forget_receive_key(&mut ctx);
        self.ccp.abandon(&mut ctx, "No MPPE negotiated");
        let knows = self.ccp.protocol.terminated || !self.ccp.is_closing();
        if knows || !self.ccp.has_heard() {
            self.start_network(now);
        }
    }

    pub(super) fn ipcp_finished(&mut self, now: Time) {
        let ending = if self.ipcp.protocol.terminated {
            Ending::PeerRequest("IPCP terminated by peer".into())
        } else {
            Ending::NegotiationFailed("IPCP")
        };
        self.end(now, ipcp::TERMINATE_REASON, ending);
    }

    pub(super) fn handle_protocol_rejected(&mut self, now: Time, protocol: Protocol) {
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
                    Ok(()) => self.start_network(now),
                    Err(failure) => self.fail(now, failure),
                }
            }
            Protocol::IPCP if self.phase == Phase::Network => {
                let why = "the peer does not speak IP: it rejects IPCP";
                let ending = Ending::PeerIncompatible(why.into());
                self.end(now, ipcp::TERMINATE_REASON, ending);
            }
            // IPv4 goes on alone.
            Protocol::IPV6CP if self.phase == Phase::Network => {
                if let Some(ipv6cp) = &mut self.ipv6cp {
                    ipv6cp.lower_down(&mut ctx);
                }
            }
            _ => {}
        }
    }

    /// The caller may send IP as soon as it has what goes out next. (A caller itself opens the way
    /// with `NetworkUp`: nobody sends to it before it has asked.)
    pub(super) fn prepare_network(&mut self) {
        let ipcp = &self.ipcp.protocol;
        if self.around.role == LinkRole::Callee
            && let Some(remote) = ipcp.remote_so_far()
            && !ipcp.local.is_unspecified()
            && !ipcp.is_up
        {
            let network = self.describe_network(remote);
            self.around.outbox.push(LinkOutput::PrepareNetwork(network));
        }
    }

    /// What is agreed with a peer that has the address `remote`.
    fn describe_network(&self, remote: Ipv4Addr) -> Network {
        let (ipcp, ccp) = (&self.ipcp.protocol, &self.ccp.protocol);
        let named = |server: &Option<Ipv4Addr>| server.filter(|server| !server.is_unspecified());
        let peer = &self.lcp.protocol.peer;
        let config = &self.around.config;
        let overhead = if ccp.encrypts() { MPPE_OVERHEAD } else { 0 };
        let required = self.around.mppe().is_some_and(|mppe| mppe.require);
        Network {
            local: ipcp.local,
            remote,
            dns: [named(&ipcp.dns[0]), named(&ipcp.dns[1])],
            wins: [named(&ipcp.wins[0]), named(&ipcp.wins[1])],
            mtu: config.lcp.mtu.min(peer.mru.saturating_sub(overhead)),
            compress_protocol: peer.compression.protocol,
            compress_address_control: peer.compression.address_control,
            require_encryption: required || ccp.encrypts() && ccp.decrypts(),
            cipher: ccp.cipher(),
        }
    }

    pub(super) fn network_up(&mut self, now: Time) {
        let Some(remote) = self.ipcp.protocol.remote else {
            return;
        };
        self.ipcp.protocol.is_up = true;
        self.lcp.protocol.refused_auth = None;
        let network = self.describe_network(remote);
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
        self.around.timers.stop(Timer::PhaseDeadline);
        match &self.verifying {
            Verifying::Chap(chap) => chap.schedule(&mut self.around.at(now)),
            Verifying::Eap(eap) => eap.schedule(&mut self.around.at(now)),
            // What an authentication server was told once is enough.
            Verifying::Unasked | Verifying::Pap(_) | Verifying::PassThrough(_) => {}
        }
        self.ipv6_up(now);
    }

    /// IPCP negotiates again: until it has, IPv6 does not pass either.
    pub(super) fn network_down(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        ctx.limit(Timer::PhaseDeadline, ctx.config.lcp.network_timeout_ms);
        if let Some(ipv6cp) = &mut self.ipv6cp {
            ipv6cp.protocol.forget_announcement();
        }
    }

    /// IPv6 passes when both IPCP and IPV6CP have come up, whichever is last.
    pub(super) fn ipv6_up(&mut self, now: Time) {
        let Some(ipv6cp) = self.ipv6cp.as_mut().filter(|it| it.is_opened()) else {
            return;
        };
        let mut ctx = self.around.at(now);
        if ipv6cp.protocol.agreed().is_none() {
            let reason = "Could not determine remote LL address";
            ctx.outbox.report(reason);
            ipv6cp.close(&mut ctx, reason);
        } else if self.ipcp.protocol.is_up {
            ipv6cp.protocol.announce(&mut ctx);
        }
    }

    pub(super) fn network_layers_down(&mut self, now: Time) {
        let mut ctx = self.around.at(now);
        for timer in [
            Timer::AuthDeadline,
            Timer::Proving,
            Timer::Verifying,
            Timer::CcpSettle,
        ] {
            ctx.timers.stop(timer);
        }
        // pppd ends IP before IPv6, and so do its scripts; the former says the latter, too.
        self.ipcp.lower_down(&mut ctx);
        if let Some(ipv6cp) = &mut self.ipv6cp {
            ipv6cp.protocol.forget_announcement();
            ipv6cp.lower_down(&mut ctx);
        }
        self.ccp.lower_down(&mut ctx);
        self.parked = None;
        self.parked_ipv6 = None;
        self.parked_ccp = None;
    }
}

fn start<P: ControlProtocol>(
    negotiation: &mut Negotiation<P>,
    ctx: &mut Context<'_>,
    parked: Option<Bytes>,
) {
    negotiation.open(ctx);
    negotiation.lower_up(ctx);
    if let Some(request) = parked {
        negotiation.handle_packet(ctx, &request);
    }
}

/// A Configure-Request of a length that is kept for later.
fn worth_parking(payload: &[u8]) -> Option<Bytes> {
    let is_request = payload.first() == Some(&Code::CONFIGURE_REQUEST.0);
    let fits = payload.len() <= EARLY_FRAME_LEN_MAX;
    (is_request && fits).then(|| Bytes::copy_from_slice(payload))
}
