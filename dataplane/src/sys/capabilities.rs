//! What a thread may still do when everything is open (capabilities(7): on Linux capabilities are a
//! thread's own, and whoever starts a thread gives it what is left of them).

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet, runtime};

/// Which capabilities a thread keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Those that it has.
    #[default]
    All,
    /// What carrying packets takes for good: CAP_NET_ADMIN for devices, routes and marks,
    /// CAP_NET_RAW for GRE and packet sockets.
    Network,
    /// CAP_IPC_LOCK, too: for AF_XDP sockets, whose memory is locked, where the limit of locked
    /// memory cannot be raised.
    NetworkAndMemory,
}

impl Keep {
    const fn capabilities(self) -> &'static [Capability] {
        const KEPT: [Capability; 3] = [
            Capability::CAP_NET_ADMIN,
            Capability::CAP_NET_RAW,
            Capability::CAP_IPC_LOCK,
        ];
        match self {
            Self::All => &[],
            Self::Network => KEPT.split_at(2).0,
            Self::NetworkAndMemory => &KEPT,
        }
    }

    /// Gives up all other capabilities of this thread, for itself, for the threads that it starts
    /// from now on, and for whatever any of them executes: neither the user ID 0 nor a set-uid
    /// program brings one back (`no_new_privs`, and the bounding set).
    ///
    /// # Errors
    /// In the kernel's words.
    pub fn give_up_others(self) -> io::Result<()> {
        if self == Self::All {
            return Ok(());
        }
        nix::sys::prctl::set_no_new_privs()?;
        let shrunk = shrink(self.capabilities());
        shrunk.map_err(|error| io::Error::other(format!("cannot give up capabilities: {error}")))
    }
}

/// Whether this thread may do more than the network takes.
#[must_use]
pub fn are_more_than_network() -> bool {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let network = Keep::Network.capabilities();
    permitted.iter().any(|one| !network.contains(one))
}

fn shrink(kept: &[Capability]) -> Result<(), CapsError> {
    // Who may not shrink the bounding set cannot gain from it either: see `no_new_privs`.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in runtime::thread_all_supported() {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    if runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted
        .into_iter()
        .filter(|it| kept.contains(it))
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
            Keep::Network.give_up_others().unwrap();
            let mut cat = std::process::Command::new("cat");
            let executed = cat.arg("/proc/self/status").output().unwrap();
            (sets(), String::from_utf8(executed.stdout).unwrap())
        })
        .join()
        .unwrap();
        let kept = Keep::Network
            .capabilities()
            .iter()
            .fold(0, |set, it| set | it.bitmask());
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
