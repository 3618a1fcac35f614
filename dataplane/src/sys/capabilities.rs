//! What a thread may still do when everything is open (capabilities(7): on Linux capabilities are a
//! thread's own, and whoever starts a thread gives it what is left of them).

use std::collections::HashSet;
use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability, runtime};

/// What carrying packets takes for good: devices, routes and marks; GRE and packet sockets.
pub const KEPT: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Whether this thread may do more than [`KEPT`].
#[must_use]
pub fn are_more_than_kept() -> bool {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    permitted.iter().any(|one| !KEPT.contains(one))
}

/// Gives up all capabilities of this thread but [`KEPT`], for itself, for the threads that it
/// starts from now on, and for whatever any of them executes: neither the user ID 0 nor a set-uid
/// program brings one back (`no_new_privs`, and the bounding set).
///
/// # Errors
/// In the kernel's words.
pub fn keep_only_network() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    shrink().map_err(|error| io::Error::other(format!("cannot give up capabilities: {error}")))
}

fn shrink() -> Result<(), CapsError> {
    // Who may not shrink the bounding set cannot gain from it either: see `no_new_privs`.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in runtime::thread_all_supported() {
            if !KEPT.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    if runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: HashSet<_> = KEPT
        .into_iter()
        .filter(|it| permitted.contains(it))
        .collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a thread: its sets as /proc shows them.
    fn sets() -> Vec<(String, u64)> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let sets = status.lines().filter_map(|line| {
            let (name, digits) = line.split_once(":\t")?;
            let set = u64::from_str_radix(digits, 16).ok()?;
            name.starts_with("Cap").then(|| (name.to_owned(), set))
        });
        sets.collect()
    }

    #[test]
    fn nothing_but_the_network_remains_and_nothing_comes_back() {
        let before = sets();
        let (after, executed) = std::thread::spawn(|| {
            keep_only_network().unwrap();
            let mut cat = std::process::Command::new("cat");
            let executed = cat.arg("/proc/self/status").output().unwrap();
            (sets(), String::from_utf8(executed.stdout).unwrap())
        })
        .join()
        .unwrap();
        let kept = KEPT.iter().fold(0, |set, it| set | it.bitmask());
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            assert_eq!(after & !kept, 0, "{name}");
            if ["CapPrm", "CapEff"].contains(&name.as_str()) {
                assert_eq!(*after, before & kept, "{name}");
            }
        }
        assert!(executed.contains("NoNewPrivs:\t1"), "{executed}");
        for line in executed.lines().filter(|line| line.starts_with("Cap")) {
            let set = line.split_once(":\t").unwrap().1;
            let set = u64::from_str_radix(set, 16).unwrap();
            assert_eq!(set & !kept, 0, "{line}");
        }
        assert_eq!(sets(), before, "other threads keep theirs");
    }
}
