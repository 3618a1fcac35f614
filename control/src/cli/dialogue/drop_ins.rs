//! `/etc/pptp.d`: tunnels and name servers that an administrator offers, one file a site.
//!
//! A line `name address` starts a tunnel, and the lines after it, up to an empty one, are its
//! routes. Behind a line `nameservers` every line is `name:search list:address address`. A `#`
//! starts a comment. Names are shown as `FILE-name`.

use std::path::{Path, PathBuf};

use crate::config::peers;

/// Files that are read, and octets of each.
const FILES_MAX: usize = 100;
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the files offer, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct DropIns {
    pub tunnels: Vec<OfferedTunnel>,
    pub resolvers: Vec<OfferedResolver>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct OfferedTunnel {
    pub name: String,
    pub server: String,
    pub routes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct OfferedResolver {
    pub name: String,
    pub search: Vec<String>,
    pub servers: Vec<String>,
}

/// `PPTPDIR`, or /etc/pptp.d.
pub(in crate::cli) fn directory() -> PathBuf {
    std::env::var_os("PPTPDIR").map_or_else(|| "/etc/pptp.d".into(), PathBuf::from)
}

impl DropIns {
    /// Reads the files of `directory`; one that cannot be read offers nothing.
    pub(in crate::cli) fn read(directory: &Path) -> Self {
        let mut offered = Self::default();
        let Ok(entries) = std::fs::read_dir(directory) else {
            return offered;
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.retain(|name| peers::check_name(name).is_ok() && !name.starts_with('.'));
        for name in names.iter().take(FILES_MAX) {
            let path = directory.join(name);
            if path
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_BYTES_MAX)
                && let Ok(text) = std::fs::read(&path)
            {
                offered.parse(name, &String::from_utf8_lossy(&text));
            }
        }
        offered
    }

    fn parse(&mut self, file: &str, text: &str) {
        let mut lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        while let Some(line) = lines.next() {
            if line == "nameservers" {
                self.resolvers
                    .extend(lines.by_ref().filter_map(|line| resolver(file, line)));
            } else if let Some((name, server)) = line.split_once(char::is_whitespace) {
                let routes = lines.by_ref().take_while(|line| !line.is_empty());
                self.tunnels.push(OfferedTunnel {
                    name: format!("{file}-{name}"),
                    server: server.trim().to_owned(),
                    routes: routes.map(ToOwned::to_owned).collect(),
                });
            }
        }
    }
}

fn resolver(file: &str, line: &str) -> Option<OfferedResolver> {
    let words = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect();
    let (name, rest) = line.split_once(':')?;
    let (search, servers) = rest.split_once(':')?;
    Some(OfferedResolver {
        name: format!("{file}-{name}"),
        search: words(search),
        servers: words(servers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_with_their_routes_and_name_servers_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = "# our site\nlab 10.0.0.5  # the old one\n\
            add -net 10.1.0.0 netmask 255.255.0.0 TUNNEL_DEV\nadd -host 10.2.0.1 TUNNEL_DEV\n\n\
            home vpn.example.net\n\nnameservers\ncorp:corp.example lab.example:10.0.0.1 10.0.0.2\n";
        std::fs::write(dir.path().join("site"), text).unwrap();
        std::fs::write(dir.path().join(".swp"), text).unwrap();
        let offered = DropIns::read(dir.path());
        let tunnels: Vec<_> = offered
            .tunnels
            .iter()
            .map(|tunnel| (&*tunnel.name, &*tunnel.server, tunnel.routes.len()))
            .collect();
        assert_eq!(
            tunnels,
            [
                ("site-lab", "10.0.0.5", 2),
                ("site-home", "vpn.example.net", 0)
            ]
        );
        let [corp] = &offered.resolvers[..] else {
            panic!("{offered:?}")
        };
        assert_eq!(corp.name, "site-corp");
        assert_eq!((corp.search.len(), corp.servers.len()), (2, 2));
        assert_eq!(DropIns::read(Path::new("/nonexistent")), DropIns::default());
    }
}
