//! The end that has the other prove who it is: it asks, and asks again (RFC 3748 4.1).

use bytes::Bytes;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::{OP_FAILURE, OP_SUCCESS, ROUNDS_MAX, inner, needs_keys, op_code};
use crate::proto::auth::{AuthMethod, AuthRequest, Authenticated, Secret, Verdict};
use crate::proto::ending::Ending;
use crate::proto::link::{Addresses, LinkOutput};
use crate::proto::outbox::{Context, Failure, printable};
use crate::proto::pap::{peer_failed, peer_name};
use crate::proto::timer::Timer;
use crate::wire::chap::ChapPacket;
use crate::wire::eap::{EapPacket, EapType, parse_value, value_with_name};
use crate::wire::ppp::Protocol;

/// Octets of a challenge that we make.
const CHALLENGE_LEN: usize = 16;

/// Who has proved it, and what comes of that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::proto) struct Proved {
    pub(in crate::proto) authenticated: Authenticated,
    pub(in crate::proto) name: String,
    pub(in crate::proto) addresses: Addresses,
}

/// What the Request that is out asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Stage {
    Identity,
    /// A response to our challenge, by MS-CHAPv2 or else by MD5.
    Challenge,
    /// An answer to MS-CHAPv2's Success.
    Confirm(Box<Proved>),
    /// An answer to MS-CHAPv2's Failure: who is turned away, and why.
    Sorry(String, String),
    /// Nothing: this was said last, and is said again to whoever did not hear it.
    Done(Bytes),
}

/// Has the peer prove who it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::proto) struct EapAuthenticator {
    stage: Stage,
    /// MD5 instead of MS-CHAPv2.
    by_md5: bool,
    id: u8,
    request: Bytes,
    sent_count: u32,
    rounds: u32,
    challenge: [u8; CHALLENGE_LEN],
    /// The request that awaits its verdict, and the peer's name.
    pending: Option<(u32, String)>,
    proved: Option<Proved>,
    /// The name that was proved first.
    name: Option<String>,
}

impl EapAuthenticator {
    pub(in crate::proto) fn start(ctx: &mut Context<'_>) -> Self {
        let mut authenticator = Self {
            stage: Stage::Identity,
            by_md5: false,
            id: ctx.rng.random(),
            request: Bytes::new(),
            sent_count: 0,
            rounds: 0,
            challenge: [0; CHALLENGE_LEN],
            pending: None,
            proved: None,
            name: None,
        };
        let prompt: &[u8] = b"Name";
        authenticator.ask(ctx, EapType::IDENTITY, prompt);
        authenticator
    }

    /// The verdict that is waited for will not come: the peer is asked again when the timer says.
    /// True when there was one.
    pub(in crate::proto) fn forget_verdict(&mut self) -> bool {
        self.sent_count = 0;
        self.pending.take().is_some()
    }

    /// Who has proved who it is, once.
    pub(in crate::proto) fn take_proved(&mut self) -> Option<Proved> {
        self.proved.take()
    }

    /// The peer is to be asked again after `chap_interval_ms`.
    pub(in crate::proto) fn schedule(&self, ctx: &mut Context<'_>) {
        let interval_ms = ctx.config.lcp.chap_interval_ms;
        if interval_ms > 0 && matches!(self.stage, Stage::Done(_)) {
            let due = ctx.now.after_ms(interval_ms);
            ctx.timers.set(Timer::Verifying, due);
        }
    }

    /// Sends a new Request, with an identifier that the last had not.
    fn ask(&mut self, ctx: &mut Context<'_>, EapType(kind): EapType, data: &[u8]) {
        self.id = self.id.wrapping_add(1);
        let request = EapPacket {
            code: EapPacket::REQUEST,
            id: self.id,
            kind: Some(kind),
            data,
        };
        self.request = request.to_bytes();
        self.sent_count = 0;
        self.send_request(ctx);
    }

    fn send_request(&mut self, ctx: &mut Context<'_>) {
        self.sent_count += 1;
        ctx.outbox.send(Protocol::EAP, &self.request);
        let due = ctx.now.after_ms(ctx.config.lcp.restart_ms);
        ctx.timers.set(Timer::Verifying, due);
    }

    fn challenge_anew(&mut self, ctx: &mut Context<'_>) {
        ctx.rng.fill_bytes(&mut self.challenge);
        self.stage = Stage::Challenge;
        let name = ctx.config.name.clone().into_bytes();
        if self.by_md5 {
            let data = value_with_name(&self.challenge, &name);
            self.ask(ctx, EapType::MD5_CHALLENGE, &data);
        } else {
            let challenge = ChapPacket::Challenge {
                // As Windows does: that of the EAP packet.
                id: self.id.wrapping_add(1),
                value: &self.challenge,
                name: &name,
            };
            let data = challenge.to_bytes();
            self.ask(ctx, EapType::MSCHAP_V2, &data);
        }
    }

    /// Nothing has come, or it is time to ask a peer that has proved itself again.
    pub(in crate::proto) fn handle_timeout(
        &mut self,
        ctx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        if let Stage::Done(_) = self.stage {
            self.rounds = 0;
            self.challenge_anew(ctx);
            return Ok(());
        }
        if self.sent_count < ctx.config.lcp.max_configure {
            self.send_request(ctx);
            return Ok(());
        }
        ctx.outbox.report("EAP: no response to Requests");
        let ending = match &self.stage {
            Stage::Sorry(name, why) => return Err(peer_failed(name, why)),
            _ => Ending::PeerAuthFailed("it does not answer over EAP".into()),
        };
        Err(Failure {
            reason: "Authentication failed",
            ending,
        })
    }

    /// A Response counts only with the identifier of the Request that is out (RFC 3748 4.1).
    pub(in crate::proto) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
        request_id: &mut u32,
    ) -> Result<(), Failure> {
        let is_answer = packet.code == EapPacket::RESPONSE && packet.id == self.id;
        if !is_answer || self.pending.is_some() {
            return Ok(());
        }
        if let Stage::Done(last) = &self.stage {
            ctx.outbox.send(Protocol::EAP, last);
            return Ok(());
        }
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(self.turn_away(ctx, "the peer", "it answers without end"));
        }
        match (EapType(packet.kind.unwrap_or_default()), &self.stage) {
            (EapType::IDENTITY, Stage::Identity) => {
                self.challenge_anew(ctx);
                Ok(())
            }
            (EapType::NAK, Stage::Challenge) => self.handle_nak(ctx, packet.data),
            (EapType::MD5_CHALLENGE, Stage::Challenge) if self.by_md5 => {
                if let Ok((value, name)) = parse_value(packet.data) {
                    let id = packet.id;
                    self.verify(ctx, AuthMethod::ChapMd5, id, value, name, request_id);
                }
                Ok(())
            }
            (EapType::MSCHAP_V2, _) if !self.by_md5 => {
                self.handle_mschap_v2(ctx, packet, request_id)
            }
            _ => Ok(()),
        }
    }

    fn handle_mschap_v2(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
        request_id: &mut u32,
    ) -> Result<(), Failure> {
        match (&self.stage, op_code(packet)) {
            (Stage::Challenge, _) => {
                if let Some(ChapPacket::Response { id, value, name }) = inner(packet) {
                    self.verify(ctx, AuthMethod::MsChapV2, id, value, name, request_id);
                }
            }
            (Stage::Confirm(_), Some(OP_SUCCESS)) => self.succeed(ctx),
            (Stage::Sorry(name, why), Some(OP_FAILURE)) => {
                let (name, why) = (name.clone(), why.clone());
                return Err(self.turn_away(ctx, &name, &why));
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer wants another method: MD5, where no keys are needed, is the only one.
    fn handle_nak(&mut self, ctx: &mut Context<'_>, wanted: &[u8]) -> Result<(), Failure> {
        let has_choice = !self.by_md5 && !needs_keys(ctx) && self.name.is_none();
        if has_choice && wanted.contains(&EapType::MD5_CHALLENGE.0) {
            self.by_md5 = true;
            self.challenge_anew(ctx);
            return Ok(());
        }
        let why = "it takes none of the EAP methods that this side asks for";
        Err(self.turn_away(ctx, "the peer", why))
    }

    fn verify(
        &mut self,
        ctx: &mut Context<'_>,
        method: AuthMethod,
        id: u8,
        value: &[u8],
        name: &[u8],
        request_id: &mut u32,
    ) {
        ctx.timers.stop(Timer::Verifying);
        let peer_name = peer_name(ctx, name);
        *request_id = request_id.wrapping_add(1);
        let request_id = *request_id;
        self.pending = Some((request_id, peer_name.clone()));
        let request = AuthRequest {
            method,
            id,
            peer_name,
            our_name: ctx.config.name.clone(),
            challenge: self.challenge.to_vec(),
            response: Secret::new(value.to_vec()),
        };
        ctx.outbox.push(LinkOutput::Authenticate {
            request_id,
            request,
        });
    }

    /// The verdict on `request_id`. Later ones only keep the link up.
    pub(in crate::proto) fn handle_verdict(
        &mut self,
        ctx: &mut Context<'_>,
        request_id: u32,
        verdict: Verdict,
    ) -> Result<(), Failure> {
        let pending = self.pending.take_if(|(id, _)| *id == request_id);
        let Some((_, name)) = pending else {
            return Ok(());
        };
        match verdict {
            Verdict::Accept {
                proof,
                message,
                addresses,
                ..
            } => {
                if self.name.as_ref().is_some_and(|before| *before != name) {
                    ctx.outbox.report("Peer changed its name");
                    return Err(self.turn_away(ctx, &name, "it was another before"));
                }
                let words = proof
                    .as_ref()
                    .map(|proof| format!("{} M={message}", proof.authenticator_response));
                self.stage = Stage::Confirm(Box::new(Proved {
                    authenticated: Authenticated::as_authenticator(AuthMethod::Eap, proof),
                    name,
                    addresses,
                }));
                match words.filter(|_| !self.by_md5) {
                    Some(words) => {
                        let (id, message) = (self.id, words.as_bytes());
                        self.ask_inner(ctx, ChapPacket::Success { id, message });
                    }
                    None => self.succeed(ctx),
                }
                Ok(())
            }
            Verdict::Reject { message, .. } if self.by_md5 => {
                Err(self.turn_away(ctx, &name, &message))
            }
            Verdict::Reject { code, message } => {
                let challenge = hex::encode(self.challenge);
                let words = format!("E={code} R=0 C={challenge} V=3 M={message}");
                self.stage = Stage::Sorry(name, message);
                let (id, message) = (self.id, words.as_bytes());
                self.ask_inner(ctx, ChapPacket::Failure { id, message });
                Ok(())
            }
            // Only where EAP is passed through.
            Verdict::Continue { .. } => Ok(()),
        }
    }

    /// `packet` has the identifier of the response that it speaks of.
    fn ask_inner(&mut self, ctx: &mut Context<'_>, packet: ChapPacket<'_>) {
        let data = packet.to_bytes();
        self.ask(ctx, EapType::MSCHAP_V2, &data);
    }

    fn succeed(&mut self, ctx: &mut Context<'_>) {
        let last = self.say(ctx, EapPacket::SUCCESS);
        let before = std::mem::replace(&mut self.stage, Stage::Done(last));
        if let Stage::Confirm(proved) = before
            && self.name.is_none()
        {
            self.name = Some(proved.name.clone());
            self.proved = Some(*proved);
        } else {
            self.schedule(ctx);
        }
    }

    fn turn_away(&mut self, ctx: &mut Context<'_>, name: &str, why: &str) -> Failure {
        let line = format!(
            "Peer {} failed EAP authentication",
            printable(name.as_bytes())
        );
        ctx.outbox.report(line);
        let last = self.say(ctx, EapPacket::FAILURE);
        self.stage = Stage::Done(last);
        peer_failed(name, why)
    }

    /// A Success or Failure has the identifier of the Response that it speaks of (RFC 3748 4.2).
    fn say(&self, ctx: &mut Context<'_>, code: u8) -> Bytes {
        ctx.timers.stop(Timer::Verifying);
        let packet = EapPacket {
            code,
            id: self.id,
            kind: None,
            data: &[],
        };
        let packet = packet.to_bytes();
        ctx.outbox.send(Protocol::EAP, &packet);
        packet
    }
}
