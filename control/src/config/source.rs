//! Reading configuration files: whole, bounded, and forgotten when they may hold secrets.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::error::{ConfigError, Place};

/// No configuration that people write is longer; it bounds what a wrong path can cost.
pub(super) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The octets of a file, which is named at `place`.
///
/// # Errors
/// Says which file cannot be opened, in pppd's words.
pub(super) fn read(
    what: &'static str,
    path: &Path,
    place: &Place,
) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    read_bounded(path).map_err(|error| ConfigError::Unreadable {
        place: place.clone(),
        what,
        path: path.to_owned(),
        cause: cause(&error),
    })
}

/// As [`read`], but a file that does not exist is `None`.
pub(super) fn read_if_exists(
    what: &'static str,
    path: &Path,
) -> Result<Option<Zeroizing<Vec<u8>>>, ConfigError> {
    match read_bounded(path) {
        Ok(octets) => Ok(Some(octets)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(ConfigError::Unreadable {
            place: Place::command_line(),
            what,
            path: path.to_owned(),
            cause: cause(&error),
        }),
    }
}

/// The operating system's words, and what to do where that is known.
fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}. Run this as root, or with sudo")
        }
        _ => error.to_string(),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

fn read_bounded(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let len_hint = file
        .metadata()
        .map_or(0, |meta| meta.len())
        .min(FILE_BYTES_MAX);
    // Room from the start, so that no half-grown copy with secrets stays behind in the heap.
    let capacity = usize::try_from(len_hint).unwrap_or(0) + 1;
    let mut octets = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("the file is larger than 16 MiB"));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_a_file_is_told_who_may() {
        let words = |kind: std::io::ErrorKind| cause(&kind.into());
        assert!(words(std::io::ErrorKind::PermissionDenied).ends_with("with sudo"));
        assert!(!words(std::io::ErrorKind::NotFound).contains("sudo"));
    }
}
