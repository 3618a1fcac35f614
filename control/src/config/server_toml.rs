//! Our own server file.

use std::path::Path;

use super::error::ConfigError;
use super::server::ServerConfig;

/// Reads a TOML server file at `path`. `dir` is pppd's directory.
///
/// # Errors
/// What is wrong, with file and line.
pub fn read(path: &Path, dir: &Path, host_name: &str) -> Result<ServerConfig, ConfigError> {
    let _ = (path, dir, host_name);
    Err(ConfigError::Conflict(String::new()))
}
