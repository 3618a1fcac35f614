//! Changing the files that people edit by hand, too: what is not understood stays as it is.
//!
//! ```text
//! atomic        one file: lock, read, replace by rename
//! secrets       chap-secrets and pap-secrets, line by line
//! peer          peers/NAME, peers/__default and options.pptp
//! resolv_conf   resolv.conf, and its two versions with and without a tunnel
//! ```

pub mod atomic;
pub mod peer;
pub mod resolv_conf;
pub mod secrets;

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::error::ConfigError;

/// Why a file was not changed: it is then as it was before. `Display` never shows a secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EditError {
    /// The operating system refused.
    #[error("cannot {what} {}: {cause}{}", path.display(), next_step(.cause))]
    Io {
        /// What was tried: `write`, `lock`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// Another writer holds the lock.
    #[error(
        "another program is changing files in {}: wait until it is done, and try again",
        .0.display()
    )]
    Busy(PathBuf),
    /// Somebody who takes no lock has changed the file since it was read.
    #[error("{} was changed by another program just now: look at it, and try again", .0.display())]
    Changed(PathBuf),
    /// What is there is not what this program may replace.
    #[error("{} is left as it is: {why}", path.display())]
    NotUnderstood {
        /// Which file.
        path: PathBuf,
        /// What is odd about it, and what to do.
        why: String,
    },
    /// What is to be written cannot stand in such a file.
    #[error("{0}")]
    BadValue(String),
    /// The file cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl EditError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { what, path, cause }
    }

    fn not_understood(path: &Path, why: impl Into<String>) -> Self {
        Self::NotUnderstood {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}

fn next_step(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        std::io::ErrorKind::PermissionDenied => ". Run this as root, or with sudo",
        std::io::ErrorKind::ReadOnlyFilesystem => ". The file system is read-only: remount it",
        std::io::ErrorKind::ResourceBusy => {
            ". It is mounted there, as containers do: change it outside"
        }
        _ => "",
    }
}
