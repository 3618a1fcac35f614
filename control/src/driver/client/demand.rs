//! `demand` (pppd(8)): the interface is up without a link, and the first packet for it brings the
//! link up. What wants to go meanwhile waits in the device's own bounded queue, in the kernel.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::host_error::HostError;
use super::super::{ipv6, service};
use super::{Announcement, Client, ClientError};

impl Client<'_> {
    /// Sets the interface up with its routes, and waits.
    pub(super) async fn wait_on_demand(&mut self) -> Result<(), ClientError> {
        // What a host says of itself to new IPv6 neighbours is no demand.
        ipv6::permit(&self.interface, false);
        self.look_ahead().await;
        self.set_up_for_demand().await.map_err(HostError::from)?;
        self.is_waiting = true;
        let interface = self.interface.clone();
        service::ready(&format!("Waits for a packet to {interface}"));
        self.announce(Announcement::OnDemand { interface });
        Ok(())
    }
}

/// Waits until a packet wants to go into the tunnel. It stays where it is.
pub(super) async fn packet(tun: &OwnedFd) {
    let Ok(tun) = tun.try_clone() else {
        return;
    };
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor changes; \
        an OwnedFd's does not"
    )]
    let watched = AsyncFd::with_interest(tun, Interest::READABLE);
    // Where it cannot be watched, an attempt too early is better than none.
    if let Ok(tun) = watched {
        drop(tun.readable().await);
    }
}
