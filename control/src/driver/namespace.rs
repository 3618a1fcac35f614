//! Network namespaces other than our own (namespaces(7), ip-netns(8)).
//!
//! A socket belongs for ever to the namespace in which it was made, and a thread can change the one
//! in which it makes them. So whatever is to happen in another namespace happens in a thread that
//! has gone there; nothing here ever moves the thread of the control loop.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;

/// Where ip-netns(8) keeps the names.
const NAMED: &str = "/run/netns";

/// Why a namespace cannot be entered.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// The operator: there is none of this name.
    #[error("there is no network namespace {path}: {cause}. `ip netns add` makes one")]
    Unknown {
        /// Its file.
        path: PathBuf,
        /// Operating system's words.
        cause: std::io::Error,
    },
    /// The kernel refused.
    #[error("cannot enter the network namespace {path}: {cause}; this needs CAP_SYS_ADMIN")]
    Refused {
        /// Its file.
        path: PathBuf,
        /// Operating system's words.
        cause: nix::Error,
    },
}

/// The file of a namespace that is given as a name of ip-netns(8) or as a path.
#[must_use]
pub fn path_of(name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new(NAMED).join(name)
    }
}

/// Takes the calling thread, for good, into the namespace of this file.
///
/// # Errors
/// There is none, or it is not permitted.
pub(crate) fn enter(path: &Path) -> Result<(), NamespaceError> {
    let file = File::open(path).map_err(|cause| NamespaceError::Unknown {
        path: path.to_owned(),
        cause,
    })?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|cause| NamespaceError::Refused {
        path: path.to_owned(),
        cause,
    })
}

/// Does something in the namespace of this file, or here when there is none: in a thread of its
/// own, whose end is waited for.
///
/// # Errors
/// The namespace cannot be entered.
///
/// # Panics
/// When `work` does.
pub(crate) fn inside<T: Send>(
    path: Option<&Path>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    let Some(path) = path else {
        return Ok(work());
    };
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            enter(path)?;
            Ok(work())
        });
        match there.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_ip_netns_and_a_path_is_itself() {
        assert_eq!(path_of("red"), Path::new("/run/netns/red"));
        assert_eq!(path_of("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let error = inside(Some(Path::new("/nonexistent/ns")), || ()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ns"), "{error}");
    }
}
