//! The Password Authentication Protocol (RFC 1334 2), both ends.

use serde::{Deserialize, Serialize};

use super::auth::{AuthMethod, AuthRequest, Authenticated, Secret, Verdict};
use super::ending::Ending;
use super::link::LinkOutput;
use super::outbox::{Context, Failure, printable};
use super::timer::Timer;
use crate::wire::pap::PapPacket;
use crate::wire::ppp::Protocol;

/// Proves to the peer who we are.
#[derive(Debug)]
pub(super) struct PapPeer {
    secret: Secret,
    id: u8,
    sent_count: u32,
    finished: bool,
}

impl PapPeer {
    pub(super) fn start(ctx: &mut Context<'_>) -> Result<Self, Failure> {
        let server = ctx.config.remote_name.as_deref().unwrap_or_default();
        let secret = find_secret(ctx, server, true)?;
        let mut peer = Self {
            secret,
            id: 0,
            sent_count: 0,
            finished: false,
        };
        peer.send_request(ctx);
        Ok(peer)
    }

    fn send_request(&mut self, ctx: &mut Context<'_>) {
        self.id = self.id.wrapping_add(1);
        self.sent_count += 1;
        let request = PapPacket::AuthenticateRequest {
            id: self.id,
            peer_id: ctx.config.name.as_bytes(),
            password: self.secret.as_bytes(),
        };
        ctx.outbox.send(Protocol::PAP, &request.to_bytes());
        let due = ctx.now.after_ms(ctx.config.lcp.restart_ms);
        ctx.timers.set(Timer::Proving, due);
    }

    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        if self.sent_count >= ctx.config.lcp.max_configure {
            let line = "No response to PAP authenticate-requests";
            ctx.outbox.report(line);
            return Err(not_accepted(
                "no answer to PAP Authenticate-Requests".into(),
            ));
        }
        self.send_request(ctx);
        Ok(())
    }

    pub(super) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &PapPacket<'_>,
    ) -> Result<Option<Authenticated>, Failure> {
        if self.finished || packet.id() != self.id {
            return Ok(None);
        }
        match packet {
            PapPacket::AuthenticateRequest { .. } => Ok(None),
            PapPacket::AuthenticateAck { message, .. } => {
                self.finished = true;
                ctx.timers.stop(Timer::Proving);
                report_message(ctx, message);
                ctx.outbox.report("PAP authentication succeeded");
                Ok(Some(Authenticated::as_peer(AuthMethod::Pap, None)))
            }
            PapPacket::AuthenticateNak { message, .. } => {
                self.finished = true;
                ctx.timers.stop(Timer::Proving);
                report_message(ctx, message);
                ctx.outbox.report("PAP authentication failed");
                Err(not_accepted(printable(message)))
            }
        }
    }
}

/// Has the peer prove who it is.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct PapAuthenticator {
    /// The name that the pending request gave, and its identifier.
    pending: Option<(u8, String)>,
    request_id: u32,
    accepted: Option<Vec<u8>>,
}

impl PapAuthenticator {
    pub(super) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &PapPacket<'_>,
        request_id: &mut u32,
    ) {
        let PapPacket::AuthenticateRequest {
            id,
            peer_id,
            password,
        } = *packet
        else {
            return;
        };
        // The Ack was lost: it is repeated, whatever the request now says (RFC 1334 2.2.1).
        if let Some(message) = &self.accepted {
            let ack = PapPacket::AuthenticateAck { id, message };
            ctx.outbox.send(Protocol::PAP, &ack.to_bytes());
            return;
        }
        if let Some((pending_id, _)) = &mut self.pending {
            *pending_id = id;
            return;
        }
        let peer_name = peer_name(ctx, peer_id);
        self.pending = Some((id, peer_name.clone()));
        *request_id = request_id.wrapping_add(1);
        self.request_id = *request_id;
        let request = AuthRequest {
            method: AuthMethod::Pap,
            id: 0,
            peer_name,
            our_name: ctx.config.name.clone(),
            challenge: Vec::new(),
            response: Secret::new(password.to_vec()),
        };
        let request_id = *request_id;
        ctx.outbox.push(LinkOutput::Authenticate {
            request_id,
            request,
        });
    }

    /// The verdict on `request_id`; the name of who is authenticated, when that is settled by it.
    pub(super) fn handle_verdict(
        &mut self,
        ctx: &mut Context<'_>,
        request_id: u32,
        verdict: Verdict,
    ) -> Result<Option<(Authenticated, String)>, Failure> {
        let Some((id, name)) = self.pending.take_if(|_| request_id == self.request_id) else {
            return Ok(None);
        };
        match verdict {
            Verdict::Accept { message, .. } => {
                let message = message.into_bytes();
                let ack = PapPacket::AuthenticateAck {
                    id,
                    message: &message,
                };
                ctx.outbox.send(Protocol::PAP, &ack.to_bytes());
                self.accepted = Some(message);
                let line = format!(
                    "PAP peer authentication succeeded for {}",
                    printable(name.as_bytes())
                );
                ctx.outbox.report(line);
                Ok(Some((
                    Authenticated::as_authenticator(AuthMethod::Pap, None),
                    name,
                )))
            }
            Verdict::Reject { message, .. } => {
                let nak = PapPacket::AuthenticateNak {
                    id,
                    message: message.as_bytes(),
                };
                ctx.outbox.send(Protocol::PAP, &nak.to_bytes());
                let line = format!(
                    "PAP peer authentication failed for {}",
                    printable(name.as_bytes())
                );
                ctx.outbox.report(line);
                Err(peer_failed(&name, &message))
            }
            // EAP's alone.
            Verdict::Continue { .. } => Ok(None),
        }
    }
}

/// The secret that proves us to `server`, or the ending that names the file to edit.
pub(super) fn find_secret(
    ctx: &mut Context<'_>,
    server: &str,
    pap: bool,
) -> Result<Secret, Failure> {
    let client = &ctx.config.name;
    let secrets = &ctx.config.secrets;
    secrets.find(client, server, pap).ok_or_else(|| {
        let protocol = if pap { "PAP" } else { "CHAP" };
        let line = format!("No {protocol} secret found for authenticating us to {server}");
        ctx.outbox.report(line);
        Failure {
            reason: "Failed to authenticate ourselves to peer",
            ending: Ending::NoSecret {
                client: client.clone(),
                server: server.to_owned(),
                file: secrets.origin(pap),
            },
        }
    })
}

/// The name that a peer gave, or the one that is to stand for it (`remotename`).
pub(super) fn peer_name(ctx: &Context<'_>, given: &[u8]) -> String {
    let remote_name = ctx.config.remote_name.clone();
    remote_name.unwrap_or_else(|| String::from_utf8_lossy(given).into_owned())
}

pub(super) fn report_message(ctx: &mut Context<'_>, message: &[u8]) {
    if !message.is_empty() {
        let line = format!("Remote message: {}", printable(message));
        ctx.outbox.report(line);
    }
}

/// The peer did not accept who we are.
pub(super) const fn not_accepted(why: String) -> Failure {
    Failure {
        reason: "Failed to authenticate ourselves to peer",
        ending: Ending::AuthFailed(why),
    }
}

/// The peer is not who it says.
pub(super) fn peer_failed(name: &str, why: &str) -> Failure {
    Failure {
        reason: "Authentication failed",
        ending: Ending::PeerAuthFailed(format!("{}: {why}", printable(name.as_bytes()))),
    }
}
