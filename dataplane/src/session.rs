//! One session: the state of a call's GRE numbers (RFC 2637 4.2), keys, limits and way to the peer.
//!
//! Only the making of a session and the setting of keys allocate; packets find everything in place.

mod table;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub use table::{InstallError, SessionNotice, SessionTable};

use crate::counters::SessionCounters;
use crate::frame::Slots;
use crate::io::Route;
use crate::mppe::decryptor::Decryptor;
use crate::mppe::encryptor::Encryptor;
use crate::mppe::look_ahead::Workshop;
use crate::program::{CallId, Ipv6Spec, MppeSpec, NetworkSpec, NextHop, Role, SessionSpec};
use crate::rate_limit::{Allowance, TrafficLimits};
use crate::sequence::{ReceiveWindow, SendSequence};
use crate::snapshot::{ReceiveSnapshot, SendSnapshot, SessionSnapshot};
use crate::wire::ppp::Compression;

/// One call as its worker sees it.
#[derive(Debug)]
pub struct Session {
    call_id: CallId,
    role: Role,
    route: Route,
    pub(crate) peer_call_id: Option<u16>,
    pub(crate) network: Option<NetworkSpec>,
    pub(crate) ipv6: Option<Ipv6Spec>,
    /// Networks behind the peer.
    pub(crate) networks: Box<[(Ipv4Addr, u8)]>,
    pub(crate) window: ReceiveWindow,
    pub(crate) sent: SendSequence,
    pub(crate) decryptor: Option<Decryptor>,
    pub(crate) encryptor: Option<Encryptor>,
    /// The address by which packets out of a shared TUN device find the session.
    looked_up_by: Option<Ipv4Addr>,
    /// See `Command::ClampMss`.
    pub(crate) clamp_mtu: Option<u16>,
    /// `None` while nothing is limited.
    pub(crate) allowance: Option<Box<Allowance>>,
    pub(crate) counters: Arc<SessionCounters>,
    /// Whether the session stands in the queue of this name: once at most.
    in_gaps: bool,
    in_owing: bool,
    in_urgent: bool,
}

impl Session {
    fn new(spec: &SessionSpec) -> Self {
        Self {
            call_id: spec.call_id,
            role: spec.role,
            route: Route {
                peer: spec.peer,
                local: spec.local,
                next_hop: None,
            },
            peer_call_id: spec.peer_call_id,
            network: None,
            ipv6: None,
            networks: Box::default(),
            window: ReceiveWindow::new(),
            sent: SendSequence::new(),
            decryptor: None,
            encryptor: None,
            looked_up_by: None,
            clamp_mtu: None,
            allowance: None,
            counters: Arc::clone(&spec.counters),
            in_gaps: false,
            in_owing: false,
            in_urgent: false,
        }
    }

    /// Ours.
    #[must_use]
    pub const fn call_id(&self) -> CallId {
        self.call_id
    }

    /// Who its packets go to, and come from.
    #[must_use]
    pub const fn peer(&self) -> Ipv4Addr {
        self.route.peer
    }

    /// Where its packets go.
    #[must_use]
    pub const fn route(&self) -> Route {
        self.route
    }

    /// See `Command::SetNextHop`.
    pub const fn set_next_hop(&mut self, next_hop: Option<NextHop>) {
        self.route.next_hop = next_hop;
    }

    /// See `Command::ClampMss`.
    pub const fn clamp_mss(&mut self, mtu: Option<u16>) {
        self.clamp_mtu = mtu;
    }

    /// See `Command::SetLimits`.
    pub fn set_limits(&mut self, limits: &TrafficLimits, now_ms: u64) {
        let before = self.allowance.as_deref();
        self.allowance = Allowance::new(limits, before, now_ms).map(Box::new);
    }

    /// What `OpenNetwork` brought, while it is open.
    #[must_use]
    pub const fn network(&self) -> Option<&NetworkSpec> {
        self.network.as_ref()
    }

    /// What it carried.
    #[must_use]
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// Packets sent that the peer has not acknowledged; nothing depends on it, and the half of a
    /// session that only sends does not learn of acknowledgments.
    #[must_use]
    pub const fn unacknowledged(&self) -> u32 {
        self.sent.unacknowledged()
    }

    /// See [`crate::program::Command::SetPeerCallId`].
    pub const fn set_peer_call_id(&mut self, peer_call_id: u16) {
        self.peer_call_id = Some(peer_call_id);
    }

    /// See [`crate::program::Command::SetReceiveKey`].
    pub fn set_receive_key(&mut self, mppe: Option<&MppeSpec>) {
        self.decryptor = mppe.map(|mppe| Decryptor::new(&mppe.start_key, mppe.mode));
    }

    /// See [`crate::program::Command::SetSendKey`].
    pub fn set_send_key(&mut self, mppe: Option<&MppeSpec>) {
        self.encryptor = mppe.map(|mppe| Encryptor::new(&mppe.start_key, mppe.mode));
    }

    /// Has the key streams of both directions prepared, as far as there are stateless keys. False
    /// when `workshop` has no room.
    pub fn look_ahead(&mut self, workshop: &Arc<Workshop>) -> bool {
        let receiving = self.decryptor.as_mut();
        let sending = self.encryptor.as_mut();
        receiving.is_none_or(|it| it.look_ahead(workshop))
            && sending.is_none_or(|it| it.look_ahead(workshop))
    }

    /// See [`crate::program::Command::ResetSendKey`].
    pub const fn reset_send_key(&mut self) {
        if let Some(encryptor) = &mut self.encryptor {
            encryptor.reset();
        }
    }

    /// What another process needs to go on.
    fn snapshot(&self, slots: &impl Slots) -> SessionSnapshot {
        let receive = self.role.receives().then(|| ReceiveSnapshot {
            window: self.window.snapshot(|frame| frame.bytes(slots).to_vec()),
            decryptor: self.decryptor.as_ref().map(Decryptor::snapshot),
        });
        let (next, acknowledged) = self.sent.snapshot();
        let send = self.role.sends().then(|| SendSnapshot {
            next,
            acknowledged,
            encryptor: self.encryptor.as_ref().map(Encryptor::snapshot),
        });
        SessionSnapshot { receive, send }
    }

    /// Goes on where another process left off, but for what it held. False, and nothing is
    /// changed, when the snapshot makes no sense.
    fn restore(&mut self, snapshot: &SessionSnapshot, now_ms: u64) -> bool {
        let keyed = |it: &ReceiveSnapshot| it.decryptor.as_ref().map(Decryptor::restore);
        let decryptor = snapshot.receive.as_ref().and_then(keyed);
        let keyed = |it: &SendSnapshot| it.encryptor.as_ref().map(Encryptor::restore);
        let encryptor = snapshot.send.as_ref().and_then(keyed);
        if matches!(decryptor, Some(None)) || matches!(encryptor, Some(None)) {
            return false;
        }
        if let Some(receive) = &snapshot.receive {
            self.window = ReceiveWindow::restore(&receive.window, now_ms);
            self.decryptor = decryptor.flatten();
        }
        if let Some(send) = &snapshot.send {
            self.sent = SendSequence::restore((send.next, send.acknowledged));
            self.encryptor = encryptor.flatten();
        }
        true
    }

    pub(crate) const fn compression(&self) -> Compression {
        match &self.network {
            Some(network) => Compression {
                protocol: network.compress_protocol,
                address_control: network.compress_address_control,
            },
            None => Compression {
                protocol: false,
                address_control: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small_enough_for_ten_thousand() {
        assert!(size_of::<Session>() * 10_000 < 16 << 20);
    }
}
