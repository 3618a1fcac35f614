//! What this machine, or its administrator, lacks for a tunnel of either role.

use dataplane::handle::StartError;
use dataplane::sys::tun::TunError;
use thiserror::Error;

use super::netlink::NetlinkError;
use super::privileges::Missing;

/// Why this host cannot carry a tunnel.
#[derive(Debug, Error)]
pub enum HostError {
    /// The user: not enough privileges.
    #[error(transparent)]
    Privileges(#[from] Missing),
    /// The machine: what the data plane needs is not there.
    #[error(transparent)]
    DataPlane(#[from] StartError),
    /// The machine: no TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The machine: addresses or routes refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl HostError {
    /// pppd's exit status: 3 not root, 4 no kernel support, 1 anything else.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Privileges(_) => 3,
            Self::DataPlane(_) => 4,
            Self::Tun(_) | Self::Netlink(_) => 1,
        }
    }
}
