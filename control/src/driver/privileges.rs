//! What a process must be allowed to do, checked before anything is tried; and what it gives up
//! when it is set up.
//!
//! Root's process keeps CAP_NET_ADMIN and CAP_NET_RAW, in all of its threads, and can get nothing
//! back by executing a program; workers keep CAP_IPC_LOCK, too, where AF_XDP sockets may be wanted
//! and the limit of locked memory cannot be raised. Scripts are promised the rest, so another
//! process runs them (see `programs`). It stays user 0: it writes what root owns, as pid files and
//! /etc/resolv.conf, and no longer what others own.

use std::path::Path;
use std::sync::OnceLock;

use caps::{CapSet, Capability};
use dataplane::handle::StartError;
use dataplane::sys::capabilities::{self, Keep};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use thiserror::Error;

use super::programs::{self, helper};
use super::scripts;
use crate::config::fast_path::FastPathMode;
use crate::config::pppd_options;

pub use helper::{COMMAND as RUN_PROGRAMS, Permitted, run as run_programs};

/// What the workers of this process keep when it is set up. Not set, everything is kept.
static KEPT: OnceLock<Keep> = OnceLock::new();

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

/// Has this process give up its capabilities when it is set up, and starts the one that runs
/// scripts, in `dir` and at their other `places`, with all of them. Nothing happens where there is
/// nothing to give up. To be called before there are threads, once.
///
/// # Errors
/// When the process for scripts cannot be started.
pub fn prepare(
    dir: Option<&Path>,
    places: &pppd_options::Scripts,
    fast_path: FastPathMode,
) -> std::io::Result<()> {
    if !capabilities::are_more_than_network() || check().is_err() {
        return Ok(());
    }
    programs::start(&scripts::permitted(dir, places))?;
    // Some of what is opened later is locked memory, too.
    let unlimited = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let kept = match (fast_path, unlimited) {
        (FastPathMode::Auto, Err(_)) => Keep::NetworkAndMemory,
        _ => Keep::Network,
    };
    let _ = KEPT.set(kept);
    Ok(())
}

/// What workers are to keep.
pub(crate) fn of_workers() -> Keep {
    KEPT.get().copied().unwrap_or_default()
}

/// Everything is set up: this thread, and those that it starts from now on, keep what they need.
pub(crate) fn give_up() -> Result<(), StartError> {
    if KEPT.get().is_none() {
        return Ok(());
    }
    Keep::Network
        .give_up_others()
        .map_err(|source| StartError::Resource {
            action: "go on with less",
            source,
        })
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
