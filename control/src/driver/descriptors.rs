//! How many descriptors this process may have: a tunnel takes one, and the soft limit is 1024 on
//! most systems.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

/// Beside those of the tunnels: rings, sockets, devices, log.
const OTHERS: u64 = 128;

/// The hard limit is too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{tunnels} tunnels need {needed} descriptors, and this process may have {permitted}: raise the \
     limit (ulimit -n {needed} as root; LimitNOFILE={needed} in a systemd unit; \
     /etc/security/limits.conf for a log-in)"
)]
pub(crate) struct TooFewDescriptors {
    tunnels: u64,
    needed: u64,
    permitted: u64,
}

/// Raises the limit of open descriptors as far as so many tunnels need it: root may go beyond the
/// hard limit.
pub(crate) fn make_room_for(tunnels: u64) -> Result<(), TooFewDescriptors> {
    let needed = tunnels + OTHERS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    let is_raised = needed <= soft
        || setrlimit(Resource::RLIMIT_NOFILE, needed.max(soft), hard.max(needed)).is_ok();
    if is_raised {
        return Ok(());
    }
    // As far as it goes.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    Err(TooFewDescriptors {
        tunnels,
        needed,
        permitted: hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_permits_is_refused_in_words() {
        let refused = make_room_for(1 << 40).unwrap_err().to_string();
        assert!(refused.contains("ulimit -n"), "{refused}");
    }
}
