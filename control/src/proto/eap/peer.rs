//! The end that proves who it is: it only answers (RFC 3748 4.1).

use bytes::Bytes;

use super::{OP_FAILURE, OP_SUCCESS, ROUNDS_MAX, inner, needs_keys};
use crate::crypto::challenge_response::chap_md5_response;
use crate::proto::auth::{AuthMethod, Authenticated};
use crate::proto::chap::{Exchange, failure_words, mutual_failure, respond};
use crate::proto::outbox::{Context, Failure, printable};
use crate::proto::pap::{find_secret, not_accepted, peer_name, report_message};
use crate::wire::chap::ChapPacket;
use crate::wire::eap::{EapPacket, EapType, parse_value, value_with_name};
use crate::wire::ppp::Protocol;

/// What has become of the method.
#[derive(Debug)]
enum Method {
    /// None has been answered yet.
    Unknown,
    /// A challenge was answered; the authenticator has the word.
    Md5,
    /// The same; it must know our password as well.
    MsChapV2(Box<Exchange>),
    /// It does.
    MsChapV2Proved,
}

/// Proves to the peer who we are.
#[derive(Debug)]
pub(in crate::proto) struct EapPeer {
    method: Method,
    /// The latest Request, and what was said to it: one that comes again gets the same.
    request: Bytes,
    response: Bytes,
    /// Identifier of that Request.
    id: u8,
    rounds: u32,
    /// What the method has proved, until the authenticator says that it is enough.
    proved: Option<Authenticated>,
    /// It has said so.
    succeeded: bool,
}

impl EapPeer {
    pub(in crate::proto) const fn new() -> Self {
        Self {
            method: Method::Unknown,
            request: Bytes::new(),
            response: Bytes::new(),
            id: 0,
            rounds: 0,
            proved: None,
            succeeded: false,
        }
    }

    /// We have answered a challenge, and wait for what the peer makes of it.
    pub(in crate::proto) const fn is_waiting(&self) -> bool {
        !matches!(self.method, Method::Unknown) && !self.succeeded
    }

    pub(in crate::proto) fn handle_packet(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
        payload: &[u8],
    ) -> Result<Option<Authenticated>, Failure> {
        match packet.code {
            EapPacket::REQUEST => {
                self.handle_request(ctx, packet, payload)?;
                Ok(None)
            }
            EapPacket::SUCCESS if self.fits(packet) => Ok(self.succeed(ctx)),
            EapPacket::FAILURE if self.fits(packet) => {
                ctx.outbox
                    .report("EAP: peer reports authentication failure");
                Err(not_accepted(String::new()))
            }
            _ => Ok(None),
        }
    }

    /// The authenticator has begun what comes after authentication, so its Success was lost.
    pub(in crate::proto) fn handle_network(
        &mut self,
        ctx: &mut Context<'_>,
    ) -> Option<Authenticated> {
        self.succeed(ctx)
    }

    /// RFC 3748 4.2 has the identifier of the last Response; some count on.
    fn fits(&self, packet: &EapPacket<'_>) -> bool {
        let is_answered = !self.response.is_empty();
        is_answered && (packet.id == self.id || packet.id == self.id.wrapping_add(1))
    }

    /// A Success that no method has earned says nothing.
    fn succeed(&mut self, ctx: &mut Context<'_>) -> Option<Authenticated> {
        let authenticated = self.proved.take()?;
        self.rounds = 0;
        self.succeeded = true;
        ctx.outbox.report("EAP authentication succeeded");
        Some(authenticated)
    }

    fn handle_request(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
        payload: &[u8],
    ) -> Result<(), Failure> {
        if !self.response.is_empty() && payload == self.request {
            ctx.outbox.send(Protocol::EAP, &self.response);
            return Ok(());
        }
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            ctx.outbox.report("EAP: received too many Request messages");
            return Err(not_accepted("it asks without end".into()));
        }
        let kind = EapType(packet.kind.unwrap_or_default());
        let answer = match kind {
            EapType::IDENTITY => Some((kind, ctx.config.name.clone().into_bytes())),
            EapType::NOTIFICATION => {
                let line = format!("EAP: Notification \"{}\"", printable(packet.data));
                ctx.outbox.report(line);
                Some((kind, Vec::new()))
            }
            EapType::NAK => None,
            EapType::MSCHAP_V2 => {
                let reply = self.handle_mschap_v2(ctx, packet)?;
                self.answer(ctx, packet, payload, reply.data.map(|data| (kind, data)));
                return reply.failure.map_or(Ok(()), Err);
            }
            EapType::MD5_CHALLENGE if !needs_keys(ctx) => self.handle_md5(ctx, packet)?,
            _ if matches!(self.method, Method::Unknown) => {
                Some((EapType::NAK, suggestions(ctx).to_vec()))
            }
            _ => None,
        };
        self.answer(ctx, packet, payload, answer);
        Ok(())
    }

    fn answer(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
        payload: &[u8],
        answer: Option<(EapType, Vec<u8>)>,
    ) {
        let Some((EapType(kind), data)) = answer else {
            return;
        };
        let response = EapPacket {
            code: EapPacket::RESPONSE,
            id: packet.id,
            kind: Some(kind),
            data: &data,
        };
        self.id = packet.id;
        self.request = Bytes::copy_from_slice(payload);
        self.response = response.to_bytes();
        ctx.outbox.send(Protocol::EAP, &self.response);
    }

    fn handle_md5(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
    ) -> Result<Option<(EapType, Vec<u8>)>, Failure> {
        let is_mine = matches!(self.method, Method::Unknown | Method::Md5);
        let Some((challenge, name)) = parse_value(packet.data).ok().filter(|_| is_mine) else {
            return Ok(None);
        };
        let server = peer_name(ctx, name);
        let secret = find_secret(ctx, &server, false)?;
        let value = chap_md5_response(packet.id, secret.as_bytes(), challenge);
        self.method = Method::Md5;
        self.proved = Some(Authenticated::as_peer(AuthMethod::Eap, None));
        let data = value_with_name(&value, ctx.config.name.as_bytes());
        Ok(Some((EapType::MD5_CHALLENGE, data)))
    }

    fn handle_mschap_v2(
        &mut self,
        ctx: &mut Context<'_>,
        packet: &EapPacket<'_>,
    ) -> Result<Reply, Failure> {
        let nothing = Ok(Reply::default());
        match (inner(packet), &mut self.method) {
            (_, Method::Md5) => nothing,
            (Some(ChapPacket::Challenge { id, value, name }), _) => {
                let server = peer_name(ctx, name);
                let secret = find_secret(ctx, &server, false)?;
                let method = AuthMethod::MsChapV2;
                let Some(exchange) = respond(ctx, method, id, value, &secret) else {
                    return nothing;
                };
                let response = exchange.response.to_vec();
                self.proved = None;
                self.method = Method::MsChapV2(Box::new(exchange));
                Ok(Reply::saying(response))
            }
            (Some(ChapPacket::Success { message, .. }), Method::MsChapV2(exchange)) => {
                let Some(words) = exchange.verified_words(message) else {
                    return Err(mutual_failure(ctx));
                };
                report_message(ctx, words);
                let key_material = exchange.key_material.take();
                self.proved = Some(Authenticated::as_peer(AuthMethod::Eap, key_material));
                self.method = Method::MsChapV2Proved;
                Ok(Reply::saying(vec![OP_SUCCESS]))
            }
            (Some(ChapPacket::Failure { message, .. }), Method::MsChapV2(_)) => {
                let why = failure_words(message);
                let line = format!("MS-CHAP authentication failed: {why}");
                ctx.outbox.report(line);
                Ok(Reply {
                    data: Some(vec![OP_FAILURE]),
                    failure: Some(not_accepted(why)),
                })
            }
            _ => nothing,
        }
    }
}

/// What is to be answered, if anything, and whether that was the end.
#[derive(Default)]
struct Reply {
    data: Option<Vec<u8>>,
    failure: Option<Failure>,
}

impl Reply {
    const fn saying(data: Vec<u8>) -> Self {
        Self {
            data: Some(data),
            failure: None,
        }
    }
}

/// The types that we would rather be asked for.
fn suggestions(ctx: &Context<'_>) -> &'static [u8] {
    const BOTH: [u8; 2] = [EapType::MSCHAP_V2.0, EapType::MD5_CHALLENGE.0];
    if needs_keys(ctx) { &BOTH[..1] } else { &BOTH }
}
