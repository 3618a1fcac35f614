//! What a process must be allowed to do, checked before anything is tried.

use caps::{CapSet, Capability};
use thiserror::Error;

/// What the process may not do.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "not allowed: {0} missing. CAP_NET_ADMIN makes the tunnel's network interface, CAP_NET_RAW \
     opens the GRE socket. Run this with sudo, or give the program both: sudo setcap \
     cap_net_admin,cap_net_raw+ep {1}"
)]
pub struct Missing(String, String);

/// Checks that the process has both capabilities that the data plane needs.
///
/// # Errors
/// Names those that are missing.
pub fn check() -> Result<(), Missing> {
    missing(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
}

fn missing(has: impl Fn(Capability) -> bool) -> Result<(), Missing> {
    let absent: Vec<String> = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]
        .into_iter()
        .filter(|capability| !has(*capability))
        .map(|capability| capability.to_string())
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    let verb = if absent.len() == 1 { "is" } else { "are" };
    let program = std::env::current_exe().map_or_else(
        |_| "pptp-fast".to_owned(),
        |path| path.display().to_string(),
    );
    Err(Missing(format!("{} {verb}", absent.join(" and ")), program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named_with_the_remedy() {
        assert_eq!(missing(|_| true), Ok(()));
        let none = missing(|_| false).unwrap_err().to_string();
        assert!(
            none.contains("CAP_NET_ADMIN and CAP_NET_RAW are missing"),
            "{none}"
        );
        let raw = missing(|capability| capability == Capability::CAP_NET_ADMIN).unwrap_err();
        assert!(raw.to_string().contains("CAP_NET_RAW is missing"), "{raw}");
        assert!(raw.to_string().contains("sudo"), "{raw}");
    }
}
