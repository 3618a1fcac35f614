//! The Authenticate phase (RFC 1661 3.5): one end, or both, prove who they are.

use super::{Link, LinkOutput, LinkRole, Phase, Report};
use crate::proto::Time;
use crate::proto::auth::{AuthMethod, Authenticated, Verdict};
use crate::proto::chap::{ChapAuthenticator, ChapPeer};
use crate::proto::eap::{EapAuthenticator, EapPassThrough, EapPeer, Proved};
use crate::proto::ending::Ending;
use crate::proto::outbox::Failure;
use crate::proto::pap::{PapAuthenticator, PapPeer};
use crate::proto::timer::Timer;
use crate::wire::chap::ChapPacket;
use crate::wire::eap::EapPacket;
use crate::wire::pap::PapPacket;

/// How we prove who we are.
#[derive(Debug)]
pub(super) enum Proving {
    Unasked,
    Chap(ChapPeer),
    Eap(Box<EapPeer>),
    Pap(PapPeer),
}

/// How the peer proves who it is.
#[derive(Debug)]
pub(super) enum Verifying {
    Unasked,
    Chap(ChapAuthenticator),
    Eap(Box<EapAuthenticator>),
    PassThrough(Box<EapPassThrough>),
    Pap(PapAuthenticator),
}

impl Link {
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
            Verdict::Accept { .. } | Verdict::Reject { .. } | Verdict::Continue { .. } => None,
        };
        // What a later verdict says comes too late: keys are agreed.
        if let Verdict::Accept { mppe, .. } = &verdict
            && self.phase == Phase::Authenticate
            && request_id == self.request_id
        {
            self.around.mppe_limit = *mppe;
        }
        let mut ctx = self.around.at(now);
        let handled = match &mut self.verifying {
            Verifying::Unasked => Ok(None),
            Verifying::Chap(chap) => chap.handle_verdict(&mut ctx, request_id, verdict),
            Verifying::Pap(pap) => pap.handle_verdict(&mut ctx, request_id, verdict),
            Verifying::Eap(eap) => {
                let handled = eap.handle_verdict(&mut ctx, request_id, verdict);
                self.handle_verified(now, handled);
                return self.settle(now);
            }
            Verifying::PassThrough(eap) => {
                let handled = eap.handle_verdict(&mut ctx, request_id, verdict);
                self.handle_verified(now, handled);
                return self.settle(now);
            }
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

    pub(super) fn start_authentication(&mut self, now: Time) {
        self.phase = Phase::Authenticate;
        self.we_proved = None;
        self.peer_proved = None;
        self.awaits_addresses = false;
        let mut ctx = self.around.at(now);
        ctx.outbox.push(LinkOutput::Report(Report::LinkUp));
        let due = now.after_ms(ctx.config.lcp.auth_timeout_ms);
        ctx.timers.set(Timer::AuthDeadline, due);
        ctx.timers.stop(Timer::PhaseDeadline);
        self.verifying = match self.lcp.protocol.peer_proves_by() {
            None => Verifying::Unasked,
            Some(AuthMethod::Pap) => Verifying::Pap(PapAuthenticator::default()),
            Some(AuthMethod::Eap) if ctx.config.eap_pass_through => {
                Verifying::PassThrough(Box::new(EapPassThrough::start(&mut ctx)))
            }
            Some(AuthMethod::Eap) => Verifying::Eap(Box::new(EapAuthenticator::start(&mut ctx))),
            Some(method) => Verifying::Chap(ChapAuthenticator::start(&mut ctx, method)),
        };
        self.proving = match self.lcp.protocol.peer.auth {
            None => Proving::Unasked,
            Some(AuthMethod::Pap) => match PapPeer::start(&mut ctx) {
                Ok(pap) => Proving::Pap(pap),
                Err(failure) => return self.fail(now, failure),
            },
            Some(AuthMethod::Eap) => Proving::Eap(Box::new(EapPeer::new())),
            Some(method) => Proving::Chap(ChapPeer::new(method)),
        };
        self.finish_authentication(now);
    }

    pub(super) fn handle_chap(&mut self, now: Time, payload: &[u8]) {
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

    /// Requests, Success and Failure are for the end that proves, Responses for the other.
    pub(super) fn handle_eap(&mut self, now: Time, payload: &[u8]) {
        let Ok(packet) = EapPacket::parse(payload) else {
            return;
        };
        let mut ctx = self.around.at(now);
        if packet.code == EapPacket::RESPONSE {
            let request_id = &mut self.request_id;
            let handled = match &mut self.verifying {
                Verifying::Eap(eap) => eap.handle_packet(&mut ctx, &packet, request_id),
                Verifying::PassThrough(eap) => {
                    eap.handle_packet(&mut ctx, &packet, payload, request_id)
                }
                Verifying::Unasked | Verifying::Chap(_) | Verifying::Pap(_) => return,
            };
            self.handle_verified(now, handled);
        } else if let Proving::Eap(eap) = &mut self.proving {
            let handled = eap.handle_packet(&mut ctx, &packet, payload);
            self.handle_proved(now, handled);
        }
    }

    /// The peer negotiates its network layers already: where EAP has succeeded but for a Success
    /// that was lost, that stands for it.
    pub(super) fn take_network_for_success(&mut self, now: Time) {
        if self.phase == Phase::Authenticate
            && let Proving::Eap(eap) = &mut self.proving
        {
            let authenticated = eap.handle_network(&mut self.around.at(now));
            self.handle_proved(now, Ok(authenticated));
        }
    }

    fn handle_verified(&mut self, now: Time, handled: Result<(), Failure>) {
        if let Err(failure) = handled {
            return self.fail(now, failure);
        }
        let proved = match &mut self.verifying {
            Verifying::Eap(eap) => eap.take_proved(),
            Verifying::PassThrough(eap) => eap.take_proved(),
            Verifying::Unasked | Verifying::Chap(_) | Verifying::Pap(_) => None,
        };
        let Some(proved) = proved else {
            return;
        };
        let Proved {
            authenticated,
            name,
            addresses,
        } = proved;
        let report = Report::PeerAuthenticated(name);
        self.around.outbox.push(LinkOutput::Report(report));
        if self.around.role == LinkRole::Callee {
            self.ipcp.protocol.assign(addresses);
        }
        self.peer_proved = Some(authenticated);
        self.finish_authentication(now);
    }

    pub(super) fn handle_pap(&mut self, now: Time, payload: &[u8]) {
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

    pub(super) fn auth_timeout(&self) -> Failure {
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

    /// Goes on to the network phase when every proof that was demanded has been given.
    pub(super) fn finish_authentication(&mut self, now: Time) {
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
        let mut ctx = self.around.at(now);
        ctx.limit(Timer::PhaseDeadline, ctx.config.lcp.network_timeout_ms);
        ctx.outbox.push(LinkOutput::Report(Report::NetworkPhase));
        self.start_ccp(now);
    }

    /// The exchange that keys are made from: see [`Link`].
    pub(super) fn take_authenticated(&mut self) -> Option<Authenticated> {
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
}
