//! The Challenge Handshake Authentication Protocol (RFC 1994), both ends, also as MS-CHAPv1
//! (RFC 2433) and MS-CHAPv2 (RFC 2759).
//!
//! A Response is repeated until something is said to it, since the authenticator repeats its
//! Challenge only until it has one, and its Success may get lost (RFC 1994 4.2).
//!
//! A Failure that allows a retry (R=1) is a failure, as it is for pppd: there is one password, and
//! it will not be better the second time.

use bytes::Bytes;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::auth::{AuthMethod, AuthRequest, Authenticated, MsChapProof, Secret, Verdict};
use super::change_password::{FailureFields, change};
use super::ending::Ending;
use super::link::LinkOutput;
use super::outbox::{Context, Failure, printable};
use super::pap::{find_secret, not_accepted, peer_failed, peer_name, report_message};
use super::timer::Timer;
use crate::crypto::challenge_response::{
    chap_md5_response, generate_authenticator_response, generate_nt_response, nt_challenge_response,
};
use crate::crypto::key_derivation::KeyMaterial;
use crate::wire::chap::{ChapPacket, MsChapV1Response, MsChapV2Response};
use crate::wire::ppp::Protocol;

/// Octets of a challenge that we make.
const CHALLENGE_LEN: usize = 16;
/// MS-CHAPv1's have 8 (RFC 2433 2).
const CHALLENGE_LEN_MSCHAP_V1: usize = 8;

/// Proves to the peer who we are.
#[derive(Debug)]
pub(super) struct ChapPeer {
    method: AuthMethod,
    exchange: Option<Exchange>,
    /// How often the response may still be sent.
    repeats_left: u32,
    /// Name of the authenticator in its latest challenge.
    server: String,
    /// A Change-Password is out.
    is_changing: bool,
}

/// One challenge, and what we made of it.
pub(super) struct Exchange {
    pub(super) id: u8,
    pub(super) challenge: Vec<u8>,
    /// A whole CHAP packet.
    pub(super) response: Bytes,
    /// No Success or Failure has come.
    pub(super) unanswered: bool,
    /// What a Success must begin with (RFC 2759 5); empty but in MS-CHAPv2.
    pub(super) success_due: String,
    pub(super) key_material: Option<KeyMaterial>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({}, <hidden>)", self.id)
    }
}

impl Exchange {
    fn send(&self, ctx: &mut Context<'_>) {
        ctx.outbox.send(Protocol::CHAP, &self.response);
    }

    /// The words of an MS-CHAPv2 Success; `None` when it does not prove the password.
    pub(super) fn verified_words<'m>(&self, message: &'m [u8]) -> Option<&'m [u8]> {
        let due = self.success_due.as_bytes();
        let (given, rest) = message.split_at_checked(due.len())?;
        let is_due = bool::from(given.to_ascii_uppercase().ct_eq(due));
        let words = rest.strip_prefix(b" ").unwrap_or(rest);
        is_due.then(|| words.strip_prefix(b"M=").unwrap_or(words))
    }
}

impl ChapPeer {
    pub(super) const fn new(method: AuthMethod) -> Self {
        Self {
            method,
            exchange: None,
            repeats_left: 0,
            server: String::new(),
            is_changing: false,
        }
    }

    /// We have answered a challenge, and wait for what the peer makes of it.
    pub(super) fn is_waiting(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.unanswered)
    }

    pub(super) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &ChapPacket<'_>,
    ) -> Result<Option<Authenticated>, Failure> {
        match *packet {
            ChapPacket::Challenge { id, value, name } => {
                self.handle_challenge(ctx, id, value, name)?;
                Ok(None)
            }
            ChapPacket::Success { id, message } => self.handle_success(ctx, id, message),
            ChapPacket::Failure { id, message } => self.handle_failure(ctx, id, message),
            ChapPacket::Response { .. } | ChapPacket::Other { .. } => Ok(None),
        }
    }

    /// Answers, at any time; the same challenge gets the same response (RFC 1994 4.1).
    fn handle_challenge(
        &mut self,
        ctx: &mut Context<'_>,
        id: u8,
        challenge: &[u8],
        name: &[u8],
    ) -> Result<(), Failure> {
        let is_repeated =
            |exchange: &&Exchange| exchange.id == id && exchange.challenge == challenge;
        if let Some(exchange) = self.exchange.as_ref().filter(is_repeated) {
            exchange.send(ctx);
            return Ok(());
        }
        let server = peer_name(ctx, name);
        let secret = find_secret(ctx, &server, false)?;
        self.server = server;
        self.is_changing = false;
        self.exchange = respond(ctx, self.method, id, challenge, &secret);
        self.repeats_left = ctx.config.lcp.max_configure;
        self.repeat_response(ctx);
        Ok(())
    }

    /// Answers a Failure that demands another password with the one that is given for that.
    fn change_password(
        &mut self,
        ctx: &mut Context<'_>,
        failure_id: u8,
        fields: &FailureFields,
        message: &[u8],
    ) -> Result<(), Failure> {
        let expired = Failure {
            reason: "Failed to authenticate ourselves to peer",
            ending: Ending::PasswordExpired {
                client: ctx.config.name.clone(),
                why: failure_words(message),
            },
        };
        let Some(new) = ctx.config.secrets.new_password() else {
            return Err(expired);
        };
        let Some(challenge) = fields.challenge_for_change() else {
            let why = "the server takes no new one over MS-CHAPv2";
            return Err(not_changed(why.into()));
        };
        let old = find_secret(ctx, &self.server, false)?;
        self.exchange = change(ctx, failure_id, &challenge, &old, &new);
        if self.exchange.is_none() {
            let why = "a new password has 1 to 256 characters";
            return Err(not_changed(why.into()));
        }
        self.is_changing = true;
        self.repeats_left = ctx.config.lcp.max_configure;
        self.repeat_response(ctx);
        Ok(())
    }

    /// Sends the response that nothing has been said to yet, for the first time or again.
    pub(super) fn repeat_response(&mut self, ctx: &mut Context<'_>) {
        let unanswered = self
            .exchange
            .as_ref()
            .filter(|exchange| exchange.unanswered);
        if let Some(exchange) = unanswered.filter(|_| self.repeats_left > 0) {
            self.repeats_left -= 1;
            exchange.send(ctx);
            let due = ctx.now.after_ms(ctx.config.lcp.restart_ms);
            ctx.timers.set(Timer::Proving, due);
        }
    }

    /// The exchange that a Success or Failure with `id` ends.
    fn answered(&mut self, ctx: &mut Context<'_>, id: u8) -> Option<&mut Exchange> {
        let exchange = self.exchange.as_mut()?;
        if exchange.id != id || !exchange.unanswered {
            return None;
        }
        exchange.unanswered = false;
        ctx.timers.stop(Timer::Proving);
        Some(exchange)
    }

    fn handle_success(
        &mut self,
        ctx: &mut Context<'_>,
        id: u8,
        message: &[u8],
    ) -> Result<Option<Authenticated>, Failure> {
        let method = self.method;
        let Some(exchange) = self.answered(ctx, id) else {
            return Ok(None);
        };
        if method == AuthMethod::MsChapV2 {
            let Some(words) = exchange.verified_words(message) else {
                return Err(mutual_failure(ctx));
            };
            report_message(ctx, words);
        } else if !message.is_empty() {
            let line = format!("CHAP authentication succeeded: {}", printable(message));
            ctx.outbox.report(line);
        }
        ctx.outbox.report("CHAP authentication succeeded");
        let authenticated = Authenticated::as_peer(method, exchange.key_material.take());
        if self.is_changing {
            self.is_changing = false;
            ctx.config.secrets.password_changed();
            let place = ctx.config.secrets.origin(false);
            let line = format!("Password changed: put the new one into {place}");
            ctx.outbox.report(line);
        }
        Ok(Some(authenticated))
    }

    fn handle_failure(
        &mut self,
        ctx: &mut Context<'_>,
        id: u8,
        message: &[u8],
    ) -> Result<Option<Authenticated>, Failure> {
        let method = self.method;
        if self.answered(ctx, id).is_none() {
            return Ok(None);
        }
        let fields = FailureFields::parse(message);
        if method == AuthMethod::MsChapV2 && fields.is_expired() && !self.is_changing {
            let line = format!("MS-CHAP authentication failed: {}", failure_words(message));
            ctx.outbox.report(line);
            self.change_password(ctx, id, &fields, message)?;
            return Ok(None);
        }
        let is_microsoft = matches!(method, AuthMethod::MsChapV1 | AuthMethod::MsChapV2);
        let why = if is_microsoft {
            failure_words(message)
        } else {
            printable(message)
        };
        if is_microsoft {
            ctx.outbox
                .report(format!("MS-CHAP authentication failed: {why}"));
        } else if !why.is_empty() {
            ctx.outbox
                .report(format!("CHAP authentication failed: {why}"));
        }
        ctx.outbox.report("CHAP authentication failed");
        Err(if self.is_changing {
            not_changed(why)
        } else {
            not_accepted(why)
        })
    }
}

/// Trying the same again would not help, and might lock the account.
fn not_changed(why: String) -> Failure {
    Failure {
        ending: Ending::PasswordNotChanged(why),
        ..not_accepted(String::new())
    }
}

/// Our answer to a challenge; `None` when the method does not make challenges of this length.
pub(super) fn respond(
    ctx: &mut Context<'_>,
    method: AuthMethod,
    id: u8,
    challenge: &[u8],
    secret: &Secret,
) -> Option<Exchange> {
    let (name, password) = (ctx.config.name.as_bytes(), secret.as_nt_secret());
    let (mut success_due, mut key_material) = (String::new(), None);
    let value = match method {
        AuthMethod::MsChapV2 => {
            let challenge = challenge.try_into().ok()?;
            let peer_challenge: [u8; 16] = ctx.rng.random();
            let nt_response = generate_nt_response(challenge, &peer_challenge, name, password);
            success_due = generate_authenticator_response(
                password,
                &nt_response,
                &peer_challenge,
                challenge,
                name,
            );
            key_material = Some(KeyMaterial::from_mschap_v2(password, &nt_response));
            let flags = 0;
            MsChapV2Response {
                peer_challenge,
                nt_response,
                flags,
            }
            .to_value()
            .to_vec()
        }
        AuthMethod::MsChapV1 => {
            let challenge = challenge.try_into().ok()?;
            key_material = Some(KeyMaterial::from_mschap_v1(password, challenge));
            let response = MsChapV1Response {
                lm_response: [0; 24],
                nt_response: nt_challenge_response(challenge, password),
                use_nt_response: 1,
            };
            response.to_value().to_vec()
        }
        // A hash alone is of no use in it.
        AuthMethod::ChapMd5 if secret.is_nt_hash() => return None,
        AuthMethod::ChapMd5 => chap_md5_response(id, secret.as_bytes(), challenge).to_vec(),
        AuthMethod::Eap | AuthMethod::Pap => return None,
    };
    let response = ChapPacket::Response {
        id,
        value: &value,
        name,
    };
    Some(Exchange {
        id,
        challenge: challenge.to_vec(),
        response: response.to_bytes(),
        unanswered: true,
        success_due,
        key_material,
    })
}

/// The peer accepted a response without knowing the password that it was made from.
pub(super) fn mutual_failure(ctx: &mut Context<'_>) -> Failure {
    ctx.outbox.report("MS-CHAPv2 mutual authentication failed.");
    ctx.outbox.report("CHAP authentication failed");
    Failure {
        reason: "Failed to authenticate ourselves to peer",
        ending: Ending::PeerAuthFailed(
            "the server does not know our password (MS-CHAPv2 mutual authentication), so it is \
             not the server it claims to be"
                .into(),
        ),
    }
}

/// What an MS-CHAP Failure says: its `M=` text when there is one, else its code in words
/// (RFC 2759 6).
pub(super) fn failure_words(message: &[u8]) -> String {
    let text = printable(message);
    let code = text
        .strip_prefix("E=")
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|digits| digits.parse::<u32>().ok());
    if let Some((_, words)) = text.split_once("M=").filter(|(_, words)| !words.is_empty()) {
        return words.to_owned();
    }
    match code {
        Some(646) => "E=646 Restricted logon hours".into(),
        Some(647) => "E=647 Account disabled".into(),
        Some(648) => "E=648 Password expired".into(),
        Some(649) => "E=649 No dialin permission".into(),
        Some(691) => "E=691 Authentication failure".into(),
        Some(709) => "E=709 Error changing password".into(),
        _ => format!("Unknown authentication failure: {text}"),
    }
}

/// Has the peer prove who it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ChapAuthenticator {
    method: AuthMethod,
    id: u8,
    challenge: Vec<u8>,
    sent_count: u32,
    /// The request that awaits its verdict, and the peer's name.
    pending: Option<(u32, String)>,
    /// What was said to the response, to be said again when it is repeated.
    verdict: Option<Bytes>,
    /// The name that the first response proved.
    proved: Option<String>,
}

impl ChapAuthenticator {
    pub(super) fn start(ctx: &mut Context<'_>, method: AuthMethod) -> Self {
        let mut authenticator = Self {
            method,
            id: ctx.rng.random(),
            challenge: Vec::new(),
            sent_count: 0,
            pending: None,
            verdict: None,
            proved: None,
        };
        authenticator.challenge_anew(ctx);
        authenticator
    }

    /// The verdict that is waited for will not come: the peer is asked again when the timer says.
    /// True when there was one.
    pub(super) fn forget_verdict(&mut self) -> bool {
        self.sent_count = 0;
        self.pending.take().is_some()
    }

    /// A challenge that was never sent before, with an identifier that the last had not
    /// (RFC 1994 4.1).
    fn challenge_anew(&mut self, ctx: &mut Context<'_>) {
        let len = if self.method == AuthMethod::MsChapV1 {
            CHALLENGE_LEN_MSCHAP_V1
        } else {
            CHALLENGE_LEN
        };
        self.challenge = vec![0; len];
        ctx.rng.fill_bytes(&mut self.challenge);
        self.id = self.id.wrapping_add(1);
        self.sent_count = 0;
        self.verdict = None;
        self.send_challenge(ctx);
    }

    fn send_challenge(&mut self, ctx: &mut Context<'_>) {
        self.sent_count += 1;
        let challenge = ChapPacket::Challenge {
            id: self.id,
            value: &self.challenge,
            name: ctx.config.name.as_bytes(),
        };
        ctx.outbox.send(Protocol::CHAP, &challenge.to_bytes());
        let due = ctx.now.after_ms(ctx.config.lcp.restart_ms);
        ctx.timers.set(Timer::Verifying, due);
    }

    /// The peer is to be asked again after `chap_interval_ms`. Until the network is up it may lack
    /// our Success, and would make its keys from the next exchange instead of this one.
    pub(super) fn schedule(&self, ctx: &mut Context<'_>) {
        let interval_ms = ctx.config.lcp.chap_interval_ms;
        if interval_ms > 0 && self.verdict.is_some() {
            let due = ctx.now.after_ms(interval_ms);
            ctx.timers.set(Timer::Verifying, due);
        }
    }

    /// No response has come, or it is time to ask a peer that has proved itself again.
    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        if self.verdict.is_some() {
            self.challenge_anew(ctx);
            return Ok(());
        }
        if self.sent_count >= ctx.config.lcp.max_configure {
            ctx.outbox
                .report("Peer failed to respond to CHAP challenge");
            return Err(Failure {
                reason: "Authentication failed",
                ending: Ending::PeerAuthFailed("it does not answer the challenge".into()),
            });
        }
        self.send_challenge(ctx);
        Ok(())
    }

    pub(super) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &ChapPacket<'_>,
        request_id: &mut u32,
    ) {
        let ChapPacket::Response { id, value, name } = *packet else {
            return;
        };
        if id != self.id || self.pending.is_some() {
            return;
        }
        if let Some(verdict) = &self.verdict {
            ctx.outbox.send(Protocol::CHAP, verdict);
            return;
        }
        ctx.timers.stop(Timer::Verifying);
        let peer_name = peer_name(ctx, name);
        *request_id = request_id.wrapping_add(1);
        self.pending = Some((*request_id, peer_name.clone()));
        let request = AuthRequest {
            method: self.method,
            id,
            peer_name,
            our_name: ctx.config.name.clone(),
            challenge: self.challenge.clone(),
            response: Secret::new(value.to_vec()),
        };
        let request_id = *request_id;
        ctx.outbox.push(LinkOutput::Authenticate {
            request_id,
            request,
        });
    }

    /// The verdict on `request_id`; the name of who is authenticated, when that is settled by it
    /// for the first time. Later proofs only keep the link up.
    pub(super) fn handle_verdict(
        &mut self,
        ctx: &mut Context<'_>,
        request_id: u32,
        verdict: Verdict,
    ) -> Result<Option<(Authenticated, String)>, Failure> {
        let pending = self.pending.take_if(|(id, _)| *id == request_id);
        let Some((_, name)) = pending else {
            return Ok(None);
        };
        let id = self.id;
        match verdict {
            Verdict::Accept { proof, message, .. } => {
                if self.proved.as_ref().is_some_and(|proved| *proved != name) {
                    ctx.outbox.report("Peer changed its name");
                    return Err(peer_failed(&name, "it was another before"));
                }
                let message = self.success_message(proof.as_ref(), &message);
                let message = message.as_bytes();
                self.say(ctx, ChapPacket::Success { id, message });
                if self.proved.is_some() {
                    self.schedule(ctx);
                    return Ok(None);
                }
                self.proved = Some(name.clone());
                Ok(Some((
                    Authenticated::as_authenticator(self.method, proof),
                    name,
                )))
            }
            Verdict::Reject { code, message } => {
                let words = self.failure_message(code, &message);
                let failure = ChapPacket::Failure {
                    id,
                    message: words.as_bytes(),
                };
                let line = format!(
                    "Peer {} failed CHAP authentication",
                    printable(name.as_bytes())
                );
                ctx.outbox.report(line);
                self.say(ctx, failure);
                Err(peer_failed(&name, &message))
            }
            // EAP's alone.
            Verdict::Continue { .. } => Ok(None),
        }
    }

    fn say(&mut self, ctx: &mut Context<'_>, packet: ChapPacket<'_>) {
        let packet = packet.to_bytes();
        ctx.outbox.send(Protocol::CHAP, &packet);
        self.verdict = Some(packet);
    }

    fn success_message(&self, proof: Option<&MsChapProof>, message: &str) -> String {
        match proof {
            Some(proof) if self.method == AuthMethod::MsChapV2 => {
                format!("{} M={message}", proof.authenticator_response)
            }
            _ => message.to_owned(),
        }
    }

    fn failure_message(&self, code: u32, message: &str) -> String {
        let challenge = hex::encode(&self.challenge);
        match self.method {
            AuthMethod::MsChapV2 => format!("E={code} R=0 C={challenge} V=3 M={message}"),
            AuthMethod::MsChapV1 => format!("E={code} R=0 C={challenge} V=2"),
            AuthMethod::Eap | AuthMethod::ChapMd5 | AuthMethod::Pap => message.to_owned(),
        }
    }
}
