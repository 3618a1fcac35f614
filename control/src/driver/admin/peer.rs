//! Who is at the other end of an admin socket: SO_PEERCRED (unix(7)), held against who may ask.
//!
//! The mode of the socket keeps strangers out already; this is the second lock, and the name that
//! the log has for whoever changes something.

use nix::unistd::{Gid, Uid};

/// Who may ask, beside root and the user that runs this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    /// Members of this group.
    pub group: Option<Gid>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub uid: u32,
    gid: u32,
    pid: Option<i32>,
}

impl Peer {
    /// Of a connected socket.
    pub(crate) fn of(stream: &tokio::net::UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
        })
    }

    /// It is root, or runs as we do.
    pub(crate) fn is_root(self) -> bool {
        self.uid == 0 || self.uid == Uid::effective().as_raw()
    }

    /// It may ask at all.
    pub(crate) fn is_permitted(self, policy: Policy) -> bool {
        let is_member = |group: Gid| {
            let group = group.as_raw();
            self.gid == group || self.supplementary_groups().contains(&group)
        };
        self.is_root() || policy.group.is_some_and(is_member)
    }

    /// From /proc, which is never slow, while a user database may be across the network. A process
    /// that has gone has none.
    fn supplementary_groups(self) -> Vec<u32> {
        let Some(pid) = self.pid else {
            return Vec::new();
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        groups(&status.unwrap_or_default())
    }
}

/// `uid 1000 (pid 4711)`.
impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {}", self.uid)?;
        match self.pid {
            Some(pid) => write!(f, " (pid {pid})"),
            None => Ok(()),
        }
    }
}

/// The line `Groups:` of proc_pid_status(5).
fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let numbers = line.unwrap_or_default().split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_group_may_ask_and_nobody_else() {
        let policy = |group| Policy {
            group: Some(Gid::from_raw(group)),
        };
        let peer = |uid, gid| Peer {
            uid,
            gid,
            pid: None,
        };
        assert!(peer(0, 0).is_permitted(Policy::default()));
        assert!(peer(70_001, 70_002).is_permitted(policy(70_002)));
        assert!(!peer(70_001, 70_003).is_permitted(policy(70_002)));
        assert!(!peer(70_001, 0).is_permitted(Policy::default()));
        assert!(!peer(70_001, 70_002).is_root());
    }

    #[test]
    fn supplementary_groups_are_read_from_proc() {
        assert_eq!(
            groups("Name:\tx\nGroups:\t4 27 1000 \nNStgid:\t1\n"),
            [4, 27, 1000]
        );
        assert!(groups("Name:\tx\nGroups:\t\n").is_empty());
    }
}
