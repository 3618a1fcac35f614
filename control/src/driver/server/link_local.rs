//! IPv6 of a server: one interface identifier for its end of every tunnel, and a session for each
//! link-local address of a peer.
//!
//! A TUN device that many sessions share is one link, so a peer's identifier must be its own there.
//! Who has one keeps it; the same user may take it along into a new session. Addresses beyond the
//! link are not given out.

use std::net::Ipv6Addr;

use dataplane::program::{CallId, Command, Ipv6Spec};

use super::{Script, Server};
use crate::config::server::ServerConfig;
use crate::driver::ipv6;
use crate::driver::kernel_writer::{Change, For};
use crate::proto::link::Ipv6Network;
use crate::wire::ipv6cp::InterfaceIdentifier;

/// Settles on the server's own identifier: that of the options, or one for the life of this
/// process.
pub(super) fn choose(config: &mut ServerConfig) {
    /// Not unique in the world (RFC 5072 4.1).
    const UNIVERSAL: u64 = 1 << 57;
    let Some(link) = config.link.ipv6.as_mut().filter(|_| ipv6::is_available()) else {
        config.link.ipv6 = None;
        return;
    };
    let drawn = rand::random::<u64>() & !UNIVERSAL | 1;
    link.local = link
        .local
        .or_else(|| Some(InterfaceIdentifier(drawn.to_be_bytes())));
    // All sessions have it: it cannot be another for one of them.
    link.accept_local = false;
    link.remote = None;
}

impl Server {
    /// The server's address, which every TUN device has.
    pub(super) fn link_local(&self) -> Option<Ipv6Addr> {
        let own = self.config.link.ipv6.and_then(|ipv6| ipv6.local);
        own.map(InterfaceIdentifier::link_local)
    }

    pub(super) fn ipv6_up(&mut self, call_id: CallId, agreed: Ipv6Network) {
        for other in self.holders(call_id, agreed.remote) {
            let user = |call_id| {
                self.sessions
                    .get(&call_id)
                    .map(|it| it.attributes.user.clone())
            };
            let is_same_user = user(other) == user(call_id).filter(|it| !it.is_empty());
            if !is_same_user {
                let text = "no IPv6: another session has this link-local address";
                return self.say(call_id, text);
            }
            self.ipv6_down(other);
        }
        let Some(standing) = self
            .sessions
            .get_mut(&call_id)
            .and_then(|it| it.network.as_mut())
        else {
            return;
        };
        standing.ipv6 = Some(agreed);
        let network = standing.agreed.clone();
        let peer = agreed.remote.link_local();
        let ipv6 = Some(Ipv6Spec { peer });
        self.engine
            .command(call_id, Command::SetIpv6 { call_id, ipv6 });
        if let Some(index) = self.device_index(call_id) {
            let (host, mtu) = (peer, network.mtu);
            let route = Change::AddLinkLocalRoute { index, host, mtu };
            self.kernel.change(For::Session(call_id), vec![route]);
        }
        self.start_script(Script::Ipv6Up, call_id, Some(&network));
    }

    /// Nothing happens when IPv6 is not up.
    pub(super) fn ipv6_down(&mut self, call_id: CallId) {
        let session = self.sessions.get(&call_id);
        let Some(standing) = session.and_then(|it| it.network.as_ref()) else {
            return;
        };
        let Some(agreed) = standing.ipv6 else { return };
        let network = standing.agreed.clone();
        self.start_script(Script::Ipv6Down, call_id, Some(&network));
        if let Some(index) = self.device_index(call_id) {
            let host = agreed.remote.link_local();
            let route = Change::RemoveLinkLocalRoute { index, host };
            self.kernel.change(For::Session(call_id), vec![route]);
        }
        let ipv6 = None;
        self.engine
            .command(call_id, Command::SetIpv6 { call_id, ipv6 });
        let standing = self.sessions.get_mut(&call_id);
        if let Some(standing) = standing.and_then(|it| it.network.as_mut()) {
            standing.ipv6 = None;
        }
    }

    /// Other sessions of the same TUN device whose peer has this identifier: one at most.
    fn holders(&self, call_id: CallId, identifier: InterfaceIdentifier) -> Vec<CallId> {
        let workers = self.engine.workers.count();
        let is_holder = |(other, session): &(&CallId, &super::Session)| {
            let ipv6 = session.network.as_ref().and_then(|it| it.ipv6);
            **other != call_id
                && other.receiver(workers) == call_id.receiver(workers)
                && ipv6.is_some_and(|ipv6| ipv6.remote == identifier)
        };
        let holders = self.sessions.iter().filter(is_holder);
        holders.map(|(other, _)| *other).collect()
    }
}
