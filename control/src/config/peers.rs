//! Peers files as pptp-command writes them: options, with the server and the routes in comments.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Place, nearest};
use super::route::Route;
use super::source;

/// Names that an error lists, or suggests from.
pub const TUNNELS_SHOWN_MAX: usize = 50;
/// Routes of one tunnel.
pub const ROUTES_MAX: usize = 1_024;

/// What the comments of a peers file say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Name, as the file is called.
    pub name: String,
    /// pptp-command takes the file for a tunnel: it has `# PPTP` in it.
    pub marked: bool,
    /// Of `# Server IP:`.
    pub server: Option<String>,
    /// Of the `# Route:` lines, in order.
    pub routes: Vec<Route>,
    /// Route lines that were passed over, and why.
    pub warnings: Vec<String>,
}

impl Peer {
    /// Reads `dir`/peers/`name`.
    ///
    /// # Errors
    /// [`ConfigError::BadTunnelName`]; [`ConfigError::NoTunnel`] with the tunnels that there are.
    pub fn read(dir: &Path, name: &str) -> Result<Self, ConfigError> {
        check_name(name)?;
        let path = path(dir, name);
        match source::read_if_exists("options file", &path)? {
            Some(text) => Ok(Self::parse(name, &path.to_string_lossy(), &text)),
            None => Err(not_found(dir, name)),
        }
    }

    /// Reads the comments in the text of a peers file called `file`.
    #[must_use]
    pub fn parse(name: &str, file: &str, text: &[u8]) -> Self {
        let mut peer = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for (line, octets) in (1_u32..).zip(text.split(|&c| c == b'\n')) {
            let content = String::from_utf8_lossy(octets);
            let content = content.trim_start_matches('\u{FEFF}').trim();
            let Some(comment) = content.strip_prefix('#').map(str::trim) else {
                continue;
            };
            peer.marked |= comment.starts_with("PPTP");
            if let Some(server) = comment.strip_prefix("Server IP:").map(str::trim) {
                peer.server = leading_host(server).or(peer.server);
            } else if let Some(route) = comment.strip_prefix("Route:").map(str::trim) {
                let place = Place {
                    file: Some(file.into()),
                    line,
                };
                peer.add_route(route, &place);
            }
        }
        peer
    }

    fn add_route(&mut self, text: &str, place: &Place) {
        if text.is_empty() {
            return;
        }
        if self.routes.len() + self.warnings.len() >= ROUTES_MAX {
            return;
        }
        match Route::parse(text) {
            Ok(route) => self.routes.push(route),
            Err(why) => self
                .warnings
                .push(format!("{place}this route is passed over: {why}")),
        }
    }
}

/// pptp-command's `([-a-zA-Z0-9.]+)`, and the underscore that some names have.
fn leading_host(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')))
        .unwrap_or(text.len());
    let host = text
        .get(..end)
        .filter(|host| !host.is_empty() && host.len() <= 253)?;
    Some(host.to_owned())
}

/// Where the peers file of a tunnel is.
#[must_use]
pub fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join("peers").join(name)
}

/// pptp-command's rule for names, `[-@\w.]+`, without the two that are directories.
///
/// # Errors
/// [`ConfigError::BadTunnelName`].
pub fn check_name(name: &str) -> Result<(), ConfigError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '@' | '_' | '.');
    if name.is_empty() || name.len() > 200 || matches!(name, "." | "..") || !name.chars().all(fits)
    {
        let shown = name.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(ConfigError::BadTunnelName(shown));
    }
    Ok(())
}

/// Every tunnel of `dir`/peers that pptp-command would list, or that goes over a built-in `pptp`.
/// Sorted by name; a directory that is not there has none.
///
/// # Errors
/// A directory that cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Peer>, ConfigError> {
    let mut peers = Vec::new();
    for name in names(dir)? {
        // A file that vanishes, or that we may not read, is no reason to hide the others.
        let Ok(Some(text)) = source::read_if_exists("options file", &path(dir, &name)) else {
            continue;
        };
        let mut peer = Peer::parse(&name, &path(dir, &name).to_string_lossy(), &text);
        if peer.server.is_none() {
            let mut options = super::PppdOptions::default();
            // Only the server is wanted; problems are told when the tunnel is used.
            let _problems = options.check_text(dir, &name, &text);
            peer.server = options.server;
        }
        if peer.marked || peer.server.is_some() {
            peers.push(peer);
        }
    }
    Ok(peers)
}

/// Names of files in `dir`/peers, sorted, without pptp-command's own `__default`.
fn names(dir: &Path) -> Result<Vec<String>, ConfigError> {
    let directory = dir.join("peers");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(ConfigError::Unreadable {
                place: Place::command_line(),
                what: "directory",
                path: directory,
                cause: error.to_string(),
            });
        }
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_name(name).is_ok() && name != DEFAULT)
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The name of the symbolic link to the default tunnel.
pub const DEFAULT: &str = "__default";

fn not_found(dir: &Path, name: &str) -> ConfigError {
    let mut tunnels = names(dir).unwrap_or_default();
    let suggestion = nearest(name, tunnels.iter().map(String::as_str));
    tunnels.truncate(TUNNELS_SHOWN_MAX);
    ConfigError::NoTunnel {
        name: name.to_owned(),
        directory: dir.join("peers"),
        tunnels,
        suggestion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// As pptp-command writes it.
    const TEST2: &[u8] = b"#\n# PPTP Tunnel configuration for tunnel test2\n\
        # Server IP: zidler.ece.uic.edu\n\
        # Route: add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV\n\
        # Route: add -host 1.2.3.4; reboot\n#\n\nname mia\n# Server IP is not this\n";

    #[test]
    fn comments_tell_the_server_and_the_routes() {
        let peer = Peer::parse("test2", "/etc/ppp/peers/test2", TEST2);
        assert!(peer.marked);
        assert_eq!(peer.server.as_deref(), Some("zidler.ece.uic.edu"));
        assert_eq!(peer.routes.len(), 1);
        assert_eq!(peer.routes[0].destination, Ipv4Addr::new(192, 168, 2, 0));
        assert!(peer.warnings[0].starts_with("In file /etc/ppp/peers/test2, line 5: "));
    }

    #[test]
    fn odd_line_ends_do_not_matter() {
        let text = b"\xEF\xBB\xBF# PPTP\r\n#Server IP: 10.0.0.5\r\n# Route: \r\n#\xFF\tServer";
        let peer = Peer::parse("t", "t", text);
        assert!(peer.marked);
        assert_eq!(peer.server.as_deref(), Some("10.0.0.5"));
        assert!(peer.routes.is_empty() && peer.warnings.is_empty());
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_directory() {
        for name in [
            "",
            ".",
            "..",
            "../options",
            "/etc/passwd",
            "a/b",
            "a b",
            "x\n",
            "caf\u{e9}",
        ] {
            assert!(
                matches!(check_name(name), Err(ConfigError::BadTunnelName(_))),
                "{name}"
            );
        }
        for name in ["test2", "user@host", "a-b_c.d", "...x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_unknown_tunnel_is_told_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let error = Peer::read(dir.path(), "test2").unwrap_err().to_string();
        assert!(
            error.starts_with("Tunnel configuration for test2 not found"),
            "{error}"
        );
        assert!(error.contains("There are no configured tunnels"), "{error}");
        fs::create_dir(dir.path().join("peers")).unwrap();
        for name in ["test2", "work", "__default"] {
            fs::write(path(dir.path(), name), TEST2).unwrap();
        }
        let error = Peer::read(dir.path(), "tset2").unwrap_err().to_string();
        assert!(
            error.ends_with("There are: test2, work. Did you mean 'test2'?"),
            "{error}"
        );
    }

    #[test]
    fn tunnels_are_listed_and_other_peers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(dir.path()).unwrap(), []);
        fs::create_dir(dir.path().join("peers")).unwrap();
        fs::write(path(dir.path(), "test2"), TEST2).unwrap();
        fs::write(
            path(dir.path(), "dsl"),
            "/dev/ttyS0\n115200\nconnect 'chat -f x'\n",
        )
        .unwrap();
        fs::write(
            path(dir.path(), "setup"),
            "pty \"/usr/sbin/pptp vpn.example --nolaunchpppd\"\n",
        )
        .unwrap();
        let all = list(dir.path()).unwrap();
        let servers: Vec<_> = all
            .iter()
            .map(|peer| (&*peer.name, peer.server.as_deref()))
            .collect();
        assert_eq!(
            servers,
            [
                ("setup", Some("vpn.example")),
                ("test2", Some("zidler.ece.uic.edu"))
            ]
        );
    }
}
