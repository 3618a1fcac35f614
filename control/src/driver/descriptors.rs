//! How many descriptors this process may have open (getrlimit(2), `RLIMIT_NOFILE`): a tunnel takes
//! at least one, and the soft limit is 1024 on most systems.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

/// What a process has open beside its sessions: sockets of the workers, rings, queues, logs.
const BESIDE: u64 = 128;

/// The configuration asks for more sessions than this process may have descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{sessions} sessions need {needed} descriptors, and this process may have {limit}, enough for \
     {possible} (limits.sessions_max of serve, --count of bench sessions): raise the limit \
     (LimitNOFILE={needed} in the unit of systemd, `ulimit -n {needed}` as root in a shell)"
)]
pub struct DescriptorsError {
    /// As configured.
    sessions: u64,
    needed: u64,
    limit: u64,
    /// Sessions that the limit permits.
    possible: u64,
}

/// Raises the limit as far as it goes, beyond the hard limit where root may, and says whether it is
/// enough for so many sessions with so many descriptors each.
///
/// # Errors
/// It is not.
pub(crate) fn provide(sessions: u64, each: u64) -> Result<(), DescriptorsError> {
    let needed = sessions.saturating_mul(each).saturating_add(BESIDE);
    let limit = raise(needed);
    if needed <= limit {
        return Ok(());
    }
    Err(DescriptorsError {
        sessions,
        needed,
        limit,
        possible: limit.saturating_sub(BESIDE) / each.max(1),
    })
}

/// The limit that holds from now on.
fn raise(needed: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return u64::MAX;
    };
    for limit in [needed.max(hard), hard] {
        if setrlimit(Resource::RLIMIT_NOFILE, limit, limit).is_ok() {
            return limit;
        }
    }
    soft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_sessions_are_refused_with_the_number_that_would_do() {
        assert_eq!(provide(1, 1), Ok(()));
        let error = provide(u64::MAX / 4, 2).unwrap_err();
        assert!(provide(error.possible, 2).is_ok());
        assert!(provide(error.possible + 1, 2).is_err());
        let words = error.to_string();
        assert!(words.contains("limits.sessions_max"), "{words}");
    }
}
