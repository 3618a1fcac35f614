//! `/run/pptp-fast`: one Unix socket for each running tunnel or server, through which `down` and
//! `status` reach it. The socket is removed when its process ends; one that a killed process left
//! behind answers nobody, and the next start replaces it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The directory: `PPTP_FAST_RUN_DIR`, or `/run/pptp-fast`.
#[must_use]
pub fn run_dir() -> PathBuf {
    std::env::var_os("PPTP_FAST_RUN_DIR").map_or_else(|| "/run/pptp-fast".into(), PathBuf::from)
}

/// The socket of tunnel `name`, which must be a valid tunnel name.
#[must_use]
pub fn tunnel_socket(name: &str) -> PathBuf {
    run_dir().join(format!("tunnel-{name}.sock"))
}

/// What tunnel `name` has changed on the host and must undo.
#[must_use]
pub fn leftovers(name: &str) -> PathBuf {
    run_dir().join(format!("tunnel-{name}.json"))
}

/// Where pid files are: `/var/run` as pppd has them, unless run files have another place.
#[must_use]
pub fn pid_dir() -> PathBuf {
    std::env::var_os("PPTP_FAST_RUN_DIR").map_or_else(|| "/var/run".into(), PathBuf::from)
}

/// The socket of the server.
#[must_use]
pub fn server_socket() -> PathBuf {
    run_dir().join("serve.sock")
}

/// That forwarding was off before the server switched it on.
#[must_use]
pub fn server_forwarding() -> PathBuf {
    run_dir().join("serve-forwarding")
}

/// Names of the tunnels that have a socket, sorted.
#[must_use]
pub fn tunnels() -> Vec<String> {
    names(".sock")
}

/// Names of the tunnels that have something to undo, whether they run or not; sorted.
#[must_use]
pub fn tunnels_with_leftovers() -> Vec<String> {
    names(".json")
}

fn names(suffix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(run_dir()) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| {
            Some(
                file.strip_prefix("tunnel-")?
                    .strip_suffix(suffix)?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    names
}

/// A listening admin socket that only its owner, and perhaps a group, can reach; removed on drop.
#[derive(Debug)]
pub struct AdminSocket {
    /// Non-blocking.
    pub listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Makes the directory (mode 0700) and the socket (mode 0600).
    ///
    /// # Errors
    /// `AddrInUse` when a living process answers on the socket; else the operating system's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Lets a group reach the socket: mode 0660, and 0750 of its directory.
    ///
    /// # Errors
    /// The operating system's, when the directory or the socket is not ours.
    pub fn share_with(&self, group: nix::unistd::Gid) -> io::Result<()> {
        for (path, mode) in [(self.path.parent(), 0o750), (Some(&*self.path), 0o660)] {
            let Some(path) = path else { continue };
            std::os::unix::fs::chown(path, None, Some(group.as_raw()))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
