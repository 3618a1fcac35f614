//! pptpd.conf and the pppd options file that it names (pptpd.conf(5)) into a `ServerConfig`.

use std::path::Path;

use super::error::ConfigError;
use super::server::ServerConfig;

/// Reads pptpd.conf at `path`. `dir` is pppd's directory.
///
/// # Errors
/// What is wrong, with file and line.
pub fn read(path: &Path, dir: &Path, host_name: &str) -> Result<ServerConfig, ConfigError> {
    let _ = (path, dir, host_name);
    Err(ConfigError::Conflict(String::new()))
}
