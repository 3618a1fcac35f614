//! What IPv6 needs of this host beside netlink.

use std::path::Path;

/// Whether this host can give an interface an IPv6 address at all.
pub(crate) fn is_available() -> bool {
    let switched_off = std::fs::read("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    Path::new("/proc/net/if_inet6").exists() && !switched_off.is_ok_and(|it| it.starts_with(b"1"))
}

/// Has the kernel not give an interface that comes up a link-local address of its own choice: the
/// peer knows the one that was negotiated. Where that cannot be had, there are two.
pub(crate) fn choose_no_address(interface: &str) {
    let mode = format!("/proc/sys/net/ipv6/conf/{interface}/addr_gen_mode");
    let _ = std::fs::write(mode, "1");
}

/// Whether an interface may have IPv6 addresses and send IPv6 packets. Where that cannot be said,
/// it stays as it is.
pub(crate) fn permit(interface: &str, is_permitted: bool) {
    let switch = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    let _ = std::fs::write(switch, if is_permitted { "0" } else { "1" });
}
