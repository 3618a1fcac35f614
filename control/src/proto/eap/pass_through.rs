//! The end that has the other prove who it is to an authentication server (RFC 3748 2.3, RFC 3579):
//! the method is spoken between those two, and only Requests are repeated here.

use bytes::Bytes;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{Proved, ROUNDS_MAX};
use crate::proto::auth::{AuthMethod, AuthRequest, Authenticated, Secret, Verdict};
use crate::proto::ending::Ending;
use crate::proto::link::LinkOutput;
use crate::proto::outbox::{Context, Failure, printable};
use crate::proto::pap::{peer_failed, peer_name};
use crate::proto::timer::Timer;
use crate::wire::eap::{EapPacket, EapType};
use crate::wire::ppp::Protocol;

/// Requests of one conversation: certificates come in many.
const REQUESTS_MAX: u32 = 5 * ROUNDS_MAX;

/// Carries EAP between the peer and who knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::proto) struct EapPassThrough {
    /// The Request that is out, to be repeated.
    request: Bytes,
    id: u8,
    sent_count: u32,
    rounds: u32,
    /// From the Identity response.
    name: Option<String>,
    /// The response that awaits the server's word.
    pending: Option<u32>,
    /// Success or Failure, once it has been said.
    last: Option<Bytes>,
    proved: Option<Proved>,
}

impl EapPassThrough {
    pub(in crate::proto) fn start(ctx: &mut Context<'_>) -> Self {
        let id = ctx.rng.random();
        let identity = EapPacket {
            code: EapPacket::REQUEST,
            id,
            kind: Some(EapType::IDENTITY.0),
            data: b"Name",
        };
        let mut eap = Self {
            request: identity.to_bytes(),
            id,
            sent_count: 0,
            rounds: 0,
            name: None,
            pending: None,
            last: None,
            proved: None,
        };
        eap.send_request(ctx);
        eap
    }

    /// The server's word that is waited for will not come. True when there was one.
    pub(in crate::proto) fn forget_verdict(&mut self) -> bool {
        self.sent_count = 0;
        self.pending.take().is_some()
    }

    /// Who has proved who it is, once.
    pub(in crate::proto) fn take_proved(&mut self) -> Option<Proved> {
        self.proved.take()
    }

    fn send_request(&mut self, ctx: &mut Context<'_>) {
        self.sent_count += 1;
        ctx.outbox.send(Protocol::EAP, &self.request);
        let due = ctx.now.after_ms(ctx.config.lcp.restart_ms);
        ctx.timers.set(Timer::Verifying, due);
    }

    /// Nothing has come.
    pub(in crate::proto) fn handle_timeout(
        &mut self,
        ctx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        if self.last.is_some() || self.pending.is_some() {
            return Ok(());
        }
        if self.sent_count < ctx.config.lcp.max_configure {
            self.send_request(ctx);
            return Ok(());
        }
        ctx.outbox.report("EAP: no response to Requests");
        Err(Failure {
            reason: "Authentication failed",
            ending: Ending::PeerAuthFailed("it does not answer over EAP".into()),
        })
    }

    /// Takes a Response, whose octets are in `payload`, to the server, unless it answers no
    /// Request that is out.
    pub(in crate::proto) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
        payload: &[u8],
        request_id: &mut u32,
    ) -> Result<(), Failure> {
        if packet.id != self.id || self.pending.is_some() {
            return Ok(());
        }
        if let Some(last) = &self.last {
            ctx.outbox.send(Protocol::EAP, last);
            return Ok(());
        }
        if self.name.is_none() {
            if packet.kind != Some(EapType::IDENTITY.0) {
                return Ok(());
            }
            self.name = Some(peer_name(ctx, packet.data));
        }
        self.rounds += 1;
        let name = self.name.clone().unwrap_or_default();
        if self.rounds > REQUESTS_MAX {
            return Err(self.turn_away(ctx, &name, "it answers without end"));
        }
        ctx.timers.stop(Timer::Verifying);
        *request_id = request_id.wrapping_add(1);
        self.pending = Some(*request_id);
        let length = usize::from(payload.get(2).copied().unwrap_or_default()) << 8
            | usize::from(payload.get(3).copied().unwrap_or_default());
        let request = AuthRequest {
            method: AuthMethod::Eap,
            id: packet.id,
            peer_name: name,
            our_name: ctx.config.name.clone(),
            challenge: Vec::new(),
            response: Secret::new(payload.get(..length).unwrap_or(payload).to_vec()),
        };
        let request_id = *request_id;
        ctx.outbox.push(LinkOutput::Authenticate {
            request_id,
            request,
        });
        Ok(())
    }

    /// The server's word on `request_id`.
    pub(in crate::proto) fn handle_verdict(
        &mut self,
        ctx: &mut Context<'_>,
        request_id: u32,
        verdict: Verdict,
    ) -> Result<(), Failure> {
        if self.pending.take_if(|id| *id == request_id).is_none() {
            return Ok(());
        }
        let name = self.name.clone().unwrap_or_default();
        match verdict {
            Verdict::Continue { request } => match EapPacket::parse(&request) {
                Ok(packet) if packet.code == EapPacket::REQUEST => {
                    self.id = packet.id;
                    self.request = request.into();
                    self.sent_count = 0;
                    self.send_request(ctx);
                    Ok(())
                }
                _ => {
                    let why = "its authentication server sent something else than an EAP Request";
                    Err(self.turn_away(ctx, &name, why))
                }
            },
            Verdict::Accept {
                proof, addresses, ..
            } => {
                self.say(ctx, EapPacket::SUCCESS);
                self.proved = Some(Proved {
                    authenticated: Authenticated::as_authenticator(AuthMethod::Eap, proof),
                    name,
                    addresses,
                });
                Ok(())
            }
            Verdict::Reject { message, .. } => Err(self.turn_away(ctx, &name, &message)),
        }
    }

    fn turn_away(&mut self, ctx: &mut Context<'_>, name: &str, why: &str) -> Failure {
        let line = format!(
            "Peer {} failed EAP authentication",
            printable(name.as_bytes())
        );
        ctx.outbox.report(line);
        self.say(ctx, EapPacket::FAILURE);
        peer_failed(name, why)
    }

    /// A Success or Failure has the identifier of the Response that it speaks of (RFC 3748 4.2).
    fn say(&mut self, ctx: &mut Context<'_>, code: u8) {
        ctx.timers.stop(Timer::Verifying);
        let packet = EapPacket {
            code,
            id: self.id,
            kind: None,
            data: &[],
        };
        let packet = packet.to_bytes();
        ctx.outbox.send(Protocol::EAP, &packet);
        self.last = Some(packet);
    }
}
