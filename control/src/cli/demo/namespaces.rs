//! Two network namespaces that live and die with two processes: nothing is left behind, however
//! the demonstration ends.

use std::net::Ipv4Addr;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use thiserror::Error;

use crate::driver::netlink::{Netlink, NetlinkError};

/// Why there is no namespace.
#[derive(Debug, Error)]
pub(in crate::cli) enum NamespaceError {
    /// Not root, and no user namespaces.
    #[error(
        "this system lets only root make network namespaces ({0}). Run the demonstration with \
         sudo, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1; with AppArmor \
         kernel.apparmor_restrict_unprivileged_userns=0)"
    )]
    UserNamespace(Errno),
    /// Root without the capability, as in most containers.
    #[error(
        "making a network namespace is not permitted ({0}): in a container, run it with \
         --privileged or --cap-add=SYS_ADMIN,NET_ADMIN"
    )]
    NetworkNamespace(Errno),
    /// The user's number cannot be mapped.
    #[error("cannot become root in the new user namespace: {0}")]
    Map(std::io::Error),
}

/// Moves this process into a network namespace of its own, inside a user namespace of its own when
/// not root. The process must not have threads yet.
pub(in crate::cli) fn enter() -> Result<(), NamespaceError> {
    if Uid::effective().is_root() {
        return unshare(CloneFlags::CLONE_NEWNET).map_err(NamespaceError::NetworkNamespace);
    }
    let (user, group) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(NamespaceError::UserNamespace)?;
    let map = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(NamespaceError::Map)
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("0 {user} 1"))?;
    map("gid_map", format!("0 {group} 1"))
}

/// Sets up what is in the new namespace: the loopback interface, and `link` with its address.
pub(in crate::cli) async fn configure(
    netlink: &Netlink,
    link: &str,
    (address, prefix_len): (Ipv4Addr, u8),
) -> Result<(), NetlinkError> {
    let (loopback, _) = netlink.link("lo").await?;
    netlink.set_up(loopback, None).await?;
    let (index, _) = netlink.link(link).await?;
    netlink
        .add_address(index, address, None, prefix_len)
        .await?;
    netlink.set_up(index, None).await
}
