//! A link that carries IP on its way to another process: everything that its protocols know, so that
//! echoes, resets, renegotiation and the end go on as if nothing had happened.
//!
//! A proof that is under way is not carried: the peer is asked once more.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::authenticate::{Proving, Verifying};
use super::{Link, LinkConfig, LinkRole, MppeLimit, Phase};
use crate::proto::Time;
use crate::proto::auth::{AuthMethod, Authenticated};
use crate::proto::ccp::Ccp;
use crate::proto::chap::{ChapAuthenticator, ChapPeer};
use crate::proto::eap::{EapAuthenticator, EapPassThrough, EapPeer};
use crate::proto::ipcp::Ipcp;
use crate::proto::ipv6cp::Ipv6cp;
use crate::proto::lcp::Lcp;
use crate::proto::negotiation::Negotiation;
use crate::proto::pap::PapAuthenticator;
use crate::proto::timer::{Timer, TimerTable};
use crate::wire::ppp::HeaderCompression;

/// What another process needs to go on with a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::proto) struct LinkSnapshot {
    lcp: Negotiation<Lcp>,
    ccp: Negotiation<Ccp>,
    ipcp: Negotiation<Ipcp>,
    ipv6cp: Option<Negotiation<Ipv6cp>>,
    verifying: Verified,
    we_proved: Option<Authenticated>,
    peer_proved: Option<Authenticated>,
    #[serde(default)]
    mppe_limit: MppeLimit,
    request_id: u32,
    timers: TimerTable,
    compression: HeaderCompression,
}

/// How the peer has proved who it is, and may be asked to again.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Verified {
    Unasked,
    Chap(ChapAuthenticator),
    Eap(Box<EapAuthenticator>),
    PassThrough(Box<EapPassThrough>),
    Pap(PapAuthenticator),
}

impl Link {
    /// `None` when IP does not pass.
    pub(in crate::proto) fn snapshot(&self) -> Option<LinkSnapshot> {
        if self.phase != Phase::Network || !self.ipcp.protocol.is_up {
            return None;
        }
        let mut timers = self.around.timers.clone();
        let (verifying, is_waiting) = match &self.verifying {
            Verifying::Unasked => (Verified::Unasked, false),
            Verifying::Chap(chap) => {
                let mut chap = chap.clone();
                let is_waiting = chap.forget_verdict();
                (Verified::Chap(chap), is_waiting)
            }
            Verifying::Eap(eap) => {
                let mut eap = eap.clone();
                let is_waiting = eap.forget_verdict();
                (Verified::Eap(eap), is_waiting)
            }
            Verifying::PassThrough(eap) => {
                let mut eap = eap.clone();
                let is_waiting = eap.forget_verdict();
                (Verified::PassThrough(eap), is_waiting)
            }
            Verifying::Pap(pap) => (Verified::Pap(pap.clone()), false),
        };
        if is_waiting {
            timers.set(Timer::Verifying, Time(0));
        }
        Some(LinkSnapshot {
            lcp: self.lcp.clone(),
            ccp: self.ccp.clone(),
            ipcp: self.ipcp.clone(),
            ipv6cp: self.ipv6cp.clone(),
            verifying,
            we_proved: self.we_proved.clone(),
            peer_proved: self.peer_proved.clone(),
            mppe_limit: self.around.mppe_limit,
            request_id: self.request_id,
            timers,
            compression: self.around.outbox.compression,
        })
    }

    /// The link of a server that a snapshot was made of, with the options of `config` from now on.
    pub(in crate::proto) fn restore(
        now: Time,
        snapshot: LinkSnapshot,
        config: Arc<LinkConfig>,
        seed: [u8; 32],
    ) -> Self {
        let proving = match snapshot.lcp.protocol.peer.auth {
            None | Some(AuthMethod::Pap) => Proving::Unasked,
            Some(AuthMethod::Eap) => Proving::Eap(Box::new(EapPeer::new())),
            Some(method) => Proving::Chap(ChapPeer::new(method)),
        };
        let echo_interval_ms = config.lcp.echo_interval_ms;
        let mut link = Self {
            phase: Phase::Network,
            lcp: snapshot.lcp,
            ccp: snapshot.ccp,
            ipcp: snapshot.ipcp,
            ipv6cp: snapshot.ipv6cp,
            proving,
            verifying: match snapshot.verifying {
                Verified::Unasked => Verifying::Unasked,
                Verified::Chap(chap) => Verifying::Chap(chap),
                Verified::Eap(eap) => Verifying::Eap(eap),
                Verified::PassThrough(eap) => Verifying::PassThrough(eap),
                Verified::Pap(pap) => Verifying::Pap(pap),
            },
            we_proved: snapshot.we_proved,
            peer_proved: snapshot.peer_proved,
            has_addresses: true,
            request_id: snapshot.request_id,
            heard: true,
            ..Self::new(config, LinkRole::Callee, seed)
        };
        let around = &mut link.around;
        around.timers = snapshot.timers;
        around.mppe_limit = snapshot.mppe_limit;
        around.outbox.compression = snapshot.compression;
        // The interval may be new: what is due later, or not at all, is due then.
        if echo_interval_ms > 0 && !around.timers.is_set(Timer::Echo) {
            around
                .timers
                .set(Timer::Echo, now.after_ms(echo_interval_ms));
        }
        link
    }
}
